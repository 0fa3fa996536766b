/** One figure of the bench: a value beside what the machine itself needs for the bare thing, in the same run. */
export interface Row {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** What it is compared with, measured in this run (or counted). */
  readonly baseline: number;
  readonly baselineIs: string;
  readonly target: number;
  /** Targets are upper bounds unless this says `at-least`. */
  readonly bound?: 'at-most' | 'at-least';
}

/** A group of figures that are measured together. `names` lets `npm run bench -- NAME` skip whole groups. */
export interface Group {
  readonly name: string;
  readonly about: string;
  run(tell: (row: Row) => void): Promise<void>;
}

export function holds(row: Row): boolean {
  return row.bound === 'at-least' ? row.value >= row.target : row.value <= row.target;
}

export function ratio(row: Row): number {
  return row.baseline === 0 ? (row.value === 0 ? 1 : Number.POSITIVE_INFINITY) : row.value / row.baseline;
}

/** The middle of an odd count, the mean of the two middle ones of an even count. Throws nothing; NaN for none. */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** Linear between neighbours. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * share;
  const low = sorted[Math.floor(at)] ?? Number.NaN;
  const high = sorted[Math.ceil(at)] ?? Number.NaN;
  return low + (high - low) * (at - Math.floor(at));
}

/** Three digits that matter. */
export function readable(value: number): string {
  if (!Number.isFinite(value)) return '-';
  if (Number.isInteger(value)) return value.toLocaleString('en');
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toFixed(digits);
}
