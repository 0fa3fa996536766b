"""Profiles a CSV file: what is in each column, and how the numbers differ between groups.

usage: analyse.py INPUT.csv OUTPUT_DIRECTORY

Writes report.json (everything) and summary.txt (for reading). Needs nothing but the standard library, so it runs
wherever Python does, here inside a WebAssembly sandbox.
"""

import csv
import json
import math
import os
import sys
from collections import Counter, defaultdict

DISTINCT_MAX = 20_000
GROUPS_MAX = 60
TOP = 5
GROUP_LINES = 15


class Numbers:
    """Count, mean, spread and bounds of a column in one pass (Welford)."""

    def __init__(self):
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0
        self.minimum = math.inf
        self.maximum = -math.inf
        self.total = 0.0

    def add(self, value):
        self.count += 1
        difference = value - self.mean
        self.mean += difference / self.count
        self.squares += difference * (value - self.mean)
        self.total += value
        if value < self.minimum:
            self.minimum = value
        if value > self.maximum:
            self.maximum = value

    def report(self):
        spread = math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else 0.0
        return {
            "count": self.count,
            "total": round(self.total, 4),
            "mean": round(self.mean, 4),
            "deviation": round(spread, 4),
            "minimum": self.minimum,
            "maximum": self.maximum,
        }


def as_number(text):
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def read_sample(path):
    """Rows from eight places of the file: a sorted file looks alike at its beginning."""
    rows = []
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        for part in range(8):
            file.seek(size * part // 8)
            lines = file.read(16_384).split(b"\n")[1:-1]
            text = [line.decode("utf-8", "replace") for line in lines]
            rows += list(csv.reader(text))
    return rows


def column_kinds(header, sample):
    """A column is of numbers when every filled cell of the sample is one."""
    kinds = []
    for index in range(len(header)):
        cells = [row[index] for row in sample if index < len(row) and row[index] != ""]
        numeric = bool(cells) and all(as_number(cell) is not None for cell in cells)
        kinds.append("number" if numeric else "text")
    return kinds


def grouping_column(kinds, sample):
    """The text column of the sample with the fewest, but more than one, different values."""
    best = None
    for index, kind in enumerate(kinds):
        if kind != "text":
            continue
        distinct = len({row[index] for row in sample if index < len(row)})
        if 1 < distinct <= GROUPS_MAX and (best is None or distinct < best[0]):
            best = (distinct, index)
    return None if best is None else best[1]


def analyse(path):
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.reader(file)
        header = next(reader, None)
        if not header:
            sys.exit(f"{path} is empty: expected a CSV file with a header line")
    sample = read_sample(path)
    kinds = column_kinds(header, sample)
    group_index = grouping_column(kinds, sample)
    numeric = [index for index, kind in enumerate(kinds) if kind == "number"]
    textual = [index for index, kind in enumerate(kinds) if kind == "text"]
    numbers = {index: Numbers() for index in numeric}
    values = {index: Counter() for index in textual}
    missing = Counter()
    groups = defaultdict(lambda: {index: Numbers() for index in numeric})
    rows = odd = 0
    print(f"{len(header)} columns: {', '.join(header)}", flush=True)

    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.reader(file)
        next(reader)
        for row in reader:
            rows += 1
            if len(row) != len(header):
                odd += 1
                continue
            group = groups[row[group_index]] if group_index is not None and len(groups) <= GROUPS_MAX else None
            for index in numeric:
                value = as_number(row[index]) if row[index] != "" else None
                if value is None:
                    missing[index] += 1
                    continue
                numbers[index].add(value)
                if group is not None:
                    group[index].add(value)
            for index in textual:
                counter = values[index]
                cell = row[index]
                if cell == "":
                    missing[index] += 1
                elif cell in counter or len(counter) < DISTINCT_MAX:
                    counter[cell] += 1
            if rows % 25_000 == 0:
                print(f"{rows:,} rows read", flush=True)

    columns = []
    for index, name in enumerate(header):
        column = {"name": name, "kind": kinds[index], "missing": missing[index]}
        if kinds[index] == "number":
            if numbers[index].count:
                column.update(numbers[index].report())
        else:
            column["distinct"] = len(values[index])
            column["distinct_is_bound"] = len(values[index]) >= DISTINCT_MAX
            column["most_common"] = values[index].most_common(TOP)
        columns.append(column)
    report = {"rows": rows, "odd_rows": odd, "columns": columns}
    if group_index is not None:
        report["grouped_by"] = header[group_index]
        report["groups"] = {
            name: {header[index]: cells[index].report() for index in numeric if cells[index].count}
            for name, cells in sorted(groups.items())
        }
    return report


def summary(report):
    lines = [f"{report['rows']:,} rows, {report['odd_rows']} of them with the wrong number of cells", ""]
    for column in report["columns"]:
        if column["kind"] == "number" and "mean" in column:
            lines.append(
                f"{column['name']:<16} mean {column['mean']:>12,.2f}   deviation {column['deviation']:>12,.2f}"
                f"   {column['minimum']:,.2f} to {column['maximum']:,.2f}   total {column['total']:,.2f}"
            )
        elif column["kind"] == "text":
            top = ", ".join(f"{value} ({count:,})" for value, count in column["most_common"][:3])
            bound = "at least " if column["distinct_is_bound"] else ""
            lines.append(f"{column['name']:<16} {bound}{column['distinct']:,} different, most often {top}")
    if "groups" in report:
        last = [column["name"] for column in report["columns"] if column["kind"] == "number"][-1:]
        for name in last:
            lines += ["", f"{name} by {report['grouped_by']}"]
            for group, cells in list(report["groups"].items())[:GROUP_LINES]:
                if name in cells:
                    lines.append(
                        f"  {group:<14} {cells[name]['count']:>9,} rows   mean {cells[name]['mean']:>10,.2f}"
                        f"   total {cells[name]['total']:>16,.2f}"
                    )
    return "\n".join(lines) + "\n"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    report = analyse(sys.argv[1])
    text = summary(report)
    with open(f"{sys.argv[2]}/report.json", "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)
    with open(f"{sys.argv[2]}/summary.txt", "w", encoding="utf-8") as file:
        file.write(text)
    print(text, end="")


main()
