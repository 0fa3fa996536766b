/**
 * Limits for a program that trades on its own: what it may pay beside the going price, how much in one job, an hour and a
 * day, how many jobs at once, and with whom. They fail closed: what cannot be known or counted is not bought. The budget on
 * chain bounds all of it once more, whatever this program does.
 */
import { MoltError } from '../protocol/errors.ts';
import { BASE_UNITS_PER_MOLT, type BaseUnits, baseUnits, formatMolt } from '../protocol/units.ts';

export interface Autonomy {
  /** Most a second, in percent of the median that the live offers ask that could do the job. */
  readonly medianPercentMax: number;
  /** So many such offers must be heard for a median to count. */
  readonly offersMin: number;
  /**
   * Most that one job may lock, a gang or replicas in all their leases together, and all of an hour and of a day; a lease
   * counts with what it locks until it is settled.
   */
  readonly jobMax: BaseUnits;
  readonly hourMax: BaseUnits;
  readonly dayMax: BaseUnits;
  /** Leases open at once. */
  readonly concurrentMax: number;
  /** Stake of a provider. */
  readonly stakeMin: BaseUnits;
  /** Settled history of a provider as the integer score of `historyScore`, 0 … 1,000,000. */
  readonly historyMin: number;
}

const molt = (amount: bigint): BaseUnits => baseUnits(amount * BASE_UNITS_PER_MOLT);

export const AUTONOMY = {
  conservative: {
    medianPercentMax: 100,
    offersMin: 3,
    jobMax: molt(1n),
    hourMax: molt(2n),
    dayMax: molt(10n),
    concurrentMax: 1,
    stakeMin: molt(50n),
    historyMin: 500_000,
  },
  moderate: {
    medianPercentMax: 125,
    offersMin: 2,
    jobMax: molt(5n),
    hourMax: molt(20n),
    dayMax: molt(100n),
    concurrentMax: 4,
    stakeMin: molt(10n),
    historyMin: 0,
  },
  aggressive: {
    medianPercentMax: 300,
    offersMin: 1,
    jobMax: molt(50n),
    hourMax: molt(200n),
    dayMax: molt(1_000n),
    concurrentMax: 16,
    stakeMin: molt(0n),
    historyMin: 0,
  },
} as const satisfies Record<string, Autonomy>;

export type AutonomyName = keyof typeof AUTONOMY;

/** A preset by name, or limits of one's own, checked. Throws `config/invalid`, naming what is missing or no limit. */
export function autonomyOf(choice: AutonomyName | Autonomy): Autonomy {
  if (typeof choice === 'string') {
    if (Object.hasOwn(AUTONOMY, choice)) return AUTONOMY[choice];
    const known = Object.keys(AUTONOMY).join(', ');
    throw new MoltError('config/invalid', `"${choice}" is no preset of autonomy; there are ${known}`);
  }
  for (const name of Object.keys(AUTONOMY.moderate) as (keyof Autonomy)[]) {
    const value: unknown = choice[name];
    const isLimit =
      typeof AUTONOMY.moderate[name] === 'bigint'
        ? typeof value === 'bigint' && value >= 0n
        : Number.isSafeInteger(value) && (value as number) >= 0;
    // A limit that is not there is no limit, and that is never what was meant.
    if (!isLimit) {
      const wanted = typeof AUTONOMY.moderate[name] === 'bigint' ? 'base units, a bigint' : 'a whole number';
      throw new MoltError('config/invalid', `the limit ${name} of autonomy must be ${wanted}, 0 or more`);
    }
  }
  return choice;
}

/** What was locked, or is spent, for one lease. */
export interface Commitment {
  readonly atMs: number;
  /** Base units, decimal. */
  readonly amount: string;
  /** The lease is open, as far as this program knows. */
  readonly open: boolean;
}

const HOUR_MS = 3_600_000;
export const DAY_MS = 24 * HOUR_MS;

/** The most that another lease may lock now; `market/spending-limit` when that is nothing. */
export function allowance(limits: Autonomy, commitments: readonly Commitment[], nowMs: number): bigint {
  const open = commitments.filter((each) => each.open).length;
  if (open >= limits.concurrentMax) {
    throw limited(`${open} of ${limits.concurrentMax} jobs run at once; wait for one to end`);
  }
  const hour = limits.hourMax - spentSince(commitments, nowMs - HOUR_MS);
  const day = limits.dayMax - spentSince(commitments, nowMs - DAY_MS);
  const left = [limits.jobMax, hour, day].reduce((least, each) => (each < least ? each : least));
  if (left > 0n) return left;
  const [what, most] = hour <= 0n ? ['hour', limits.hourMax] : ['day', limits.dayMax];
  if (hour > 0n && day > 0n) throw limited('no job may cost anything');
  throw limited(`the ${formatMolt(most)} of this ${what} are spent or locked; wait, or raise the limit`);
}

/**
 * What each vacant place of one job on several providers may lock: an equal share of the ceiling for all, or of the most that
 * one job may cost where that is less, once what the others lock or cost is taken off; and all of them together no more than
 * may be spent now. Not positive when nothing is left.
 */
export function shareOfCeiling(
  ceiling: bigint,
  { bound, vacant }: { readonly bound: readonly bigint[]; readonly vacant: number },
  most?: { readonly jobMax: bigint; readonly allowance: bigint },
): bigint {
  const whole = most === undefined || ceiling < most.jobMax ? ceiling : most.jobMax;
  const left = bound.reduce((rest, amount) => rest - amount, whole);
  const allowed = most === undefined || left < most.allowance ? left : most.allowance;
  return allowed / BigInt(Math.max(1, vacant));
}

/** Undefined when a lease of this amount may be opened now. */
export function spendingRefusal(
  limits: Autonomy,
  commitments: readonly Commitment[],
  next: { readonly amount: bigint; readonly nowMs: number },
): MoltError | undefined {
  try {
    const left = allowance(limits, commitments, next.nowMs);
    if (next.amount <= left) return undefined;
    return limited(`the lease would lock ${formatMolt(next.amount)}, ${formatMolt(left)} are left`);
  } catch (error) {
    if (error instanceof MoltError) return error;
    throw error;
  }
}

/** What lies in the future counts too: a clock that was set back frees nothing. */
function spentSince(commitments: readonly Commitment[], sinceMs: number): bigint {
  return commitments.reduce((sum, { atMs, amount }) => (atMs > sinceMs ? sum + BigInt(amount) : sum), 0n);
}

/**
 * The ceiling a second: so many percent of the median of these asks (base units a second, of offers that could do the job).
 * Throws `market/spending-limit` when there are too few of them to know a going price.
 */
export function medianCeiling({ medianPercentMax, offersMin }: MedianLimit, asks: readonly bigint[]): bigint {
  if (asks.length < Math.max(1, offersMin)) {
    throw limited(
      `the going price is not known: ${offersMin} offers that could do the job are wanted, ${asks.length} were heard`,
    );
  }
  const sorted = asks.toSorted((a, b) => (a < b ? -1 : Number(a > b)));
  // Of an even number the lower one of the middle two: when in doubt, pay less.
  const median = sorted[(sorted.length - 1) >> 1] ?? 0n;
  return (median * BigInt(medianPercentMax)) / 100n;
}

export type MedianLimit = Pick<Autonomy, 'medianPercentMax' | 'offersMin'>;

function limited(why: string): MoltError {
  return new MoltError('market/spending-limit', `the limits of autonomy forbid it: ${why}`);
}
