/**
 * What a provider's settled history on chain is worth: one integer that every peer computes alike.
 *
 * Good evidence is money that nobody gets back: the fees burned by settled leases. Bad evidence is the value of leases
 * that were never proven, at the same fee rate, times a weight. The score is the lower bound of a Wilson interval, so a
 * newcomer has 0, nobody gains by splitting into many, and faking history costs exactly what it claims to have cost. The
 * score ranks; it never replaces stake.
 *
 * The chain keeps totals without dates, so old evidence weighs as much as new.
 */
import { ceilingDivide } from './price.ts';

/** Of a provider account. */
export interface SettledHistory {
  readonly settledCount: number | bigint;
  readonly settledAmount: bigint;
  readonly feesBurned: bigint;
  /** Leases that expired without a proof, and their locked amounts. */
  readonly faults: number | bigint;
  readonly faultAmount: bigint;
}

export interface HistoryParameters {
  /** Fee burned by one reference job, base units: the unit of evidence. */
  readonly referenceFee: bigint;
  /** Of the chain: the share of a payment that is burned. */
  readonly burnFeeBps: number;
}

/** One reference job is 1 MOLT with 1 % burned. */
export const HISTORY_PARAMETERS: HistoryParameters = { referenceFee: 10_000_000n, burnFeeBps: 100 };

/** 1.0 in the integers of this file. */
export const MICRO = 1_000_000n;
/** A lease left without a proof counts as this many of its value in good leases. */
const NO_SHOW_WEIGHT = 2n;
/** z² for z = 1.645 (one-sided 95 %), in millionths. */
const Z_SQUARED = 2_706_025n;

/**
 * 0 … 1,000,000. Integers and floor division only. 11, 25 and 52 reference jobs without a fault give 0.8, 0.9 and 0.95.
 */
export function historyScore(history: SettledHistory, parameters: HistoryParameters = HISTORY_PARAMETERS): bigint {
  const burnedByFaults = ceilingDivide(history.faultAmount * BigInt(parameters.burnFeeBps), 10_000n);
  const good = (history.feesBurned * MICRO) / parameters.referenceFee;
  const bad = (burnedByFaults * NO_SHOW_WEIGHT * MICRO) / parameters.referenceFee;
  return wilsonLowerBound(good, bad);
}

/** Lower bound in millionths of good ÷ (good + bad), both ≥ 0 and in millionths of a unit of evidence. */
export function wilsonLowerBound(good: bigint, bad: bigint): bigint {
  const n = good + bad;
  if (n === 0n) return 0n;
  // (p + z²/2n − z √(p(1−p)/n + z²/4n²)) ÷ (1 + z²/n), numerator and denominator multiplied by n.
  const spread = integerSquareRoot((Z_SQUARED * good * bad) / n + (Z_SQUARED * Z_SQUARED) / 4n);
  const numerator = good + Z_SQUARED / 2n - spread;
  return numerator <= 0n ? 0n : (numerator * MICRO) / (n + Z_SQUARED);
}

/** ⌊√value⌋ for value ≥ 0, by Newton's method from above. */
export function integerSquareRoot(value: bigint): bigint {
  if (value < 2n) return value;
  let root = 1n << BigInt((value.toString(2).length + 1) >> 1);
  for (;;) {
    const next = (root + value / root) >> 1n;
    if (next >= root) return root;
    root = next;
  }
}
