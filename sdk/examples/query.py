"""SQL over CSV files, as a job without a container: CPython and SQLite in one WebAssembly module.

    python /in/query.py 'select city, sum(amount) as total from sales group by city'

Every /in/NAME.csv becomes a table NAME; a column whose values are all numbers is one. The result goes to /out/result.csv.
"""

import csv
import pathlib
import sqlite3
import sys


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def load(database, path):
    with open(path, newline="") as file:
        rows = csv.reader(file)
        columns = [f"{quoted(name)} numeric" for name in next(rows)]
        table = quoted(path.stem)
        database.execute(f"create table {table} ({', '.join(columns)})")
        places = ", ".join("?" for _ in columns)
        database.executemany(f"insert into {table} values ({places})", rows)


def main(query):
    database = sqlite3.connect(":memory:")
    for path in sorted(pathlib.Path("/in").glob("*.csv")):
        load(database, path)
    result = database.execute(query)
    with open("/out/result.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(column[0] for column in result.description)
        count = 0
        for row in result:
            writer.writerow(row)
            count += 1
    print(f"{count} rows")


main(sys.argv[1])
