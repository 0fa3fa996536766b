/** A simple price policy: what a provider asks for, as a pure function of the need and of how busy it is. */
import type { Address } from '../protocol/address.ts';
import type { Prices, Resources } from '../protocol/messages.ts';

export interface PricePolicy {
  /** What the offer advertises. */
  readonly prices: Prices;
  /** Never ask less, base units per second. Default 0. */
  readonly floorPerSecond?: bigint;
  /** Never ask more, base units per second. Default unbounded. */
  readonly ceilingPerSecond?: bigint;
  /** Surcharge when everything is in use, in basis points of the price; in proportion below that. Default 0. */
  readonly busySurchargeBps?: number;
  /** Longest job that is leased. */
  readonly durationSecondsMax: number;
  /** Node keys of buyers that get no quote. */
  readonly blockedBuyers?: readonly Address[];
}

const GIB = 2n ** 30n;

/**
 * Base units per second. Every part rounds up; may exceed a u64, so compare before branding it.
 * `utilisation` is the share in use, 0 … 1; what lies outside counts as the nearer end.
 */
export function askPerSecond(policy: PricePolicy, need: Resources, utilisation: number): bigint {
  const { base, perCpu, perGib, perGpu } = policy.prices;
  const gpus = BigInt(need.gpus.reduce((sum, group) => sum + group.count, 0));
  const plain =
    base +
    ceilingDivide(perCpu * BigInt(need.cpuMillis), 1000n) +
    ceilingDivide(perGib * BigInt(need.memoryBytes), GIB) +
    perGpu * gpus;
  const busyBps = Math.round(Math.min(Math.max(utilisation, 0), 1) * (policy.busySurchargeBps ?? 0));
  const ask = ceilingDivide(plain * BigInt(10_000 + busyBps), 10_000n);
  const atLeast = policy.floorPerSecond ?? 0n;
  const atMost = policy.ceilingPerSecond;
  const raised = ask < atLeast ? atLeast : ask;
  return atMost !== undefined && raised > atMost ? atMost : raised;
}

/** ⌈a ÷ b⌉ for a ≥ 0, b > 0. */
export function ceilingDivide(a: bigint, b: bigint): bigint {
  return (a + b - 1n) / b;
}
