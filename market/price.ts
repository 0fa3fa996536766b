/** What a provider asks for, as a pure function of the need and of how busy it is. */
import { MoltError } from '../protocol/errors.ts';
import type { Prices, Resources } from '../protocol/messages.ts';
import { type BaseUnits, U64_MAX, baseUnits } from '../protocol/units.ts';

/** So much of the price is asked at this share of the machine in use; in between, in proportion. */
export interface PricePoint {
  /** Share in use, 0 … 10,000. */
  readonly busyBps: number;
  /** Share of the price, 10,000 = the price itself. */
  readonly priceBps: number;
}

export interface PricePolicy {
  /** Of a machine that does nothing yet, unless `curve` says otherwise. */
  readonly prices: Prices;
  /** Never ask less, base units per second. Default 0. */
  readonly floorPerSecond?: bigint;
  /** Never ask more, base units per second. Default unbounded. */
  readonly ceilingPerSecond?: bigint;
  /** Ascending in `busyBps`; before the first and after the last point the price stays. Default: always the price. */
  readonly curve?: readonly PricePoint[];
}

const GIB = 2n ** 30n;
const ALL_BPS = 10_000;
const CURVE_POINTS_MAX = 8;
const CURVE_PERCENT_MAX = 10_000;

/**
 * `BUSY:PRICE` in whole percent, for example ["0:80", "50:100", "100:250"]. Throws `config/invalid`, saying what a curve
 * looks like.
 */
export function parsePriceCurve(texts: readonly string[]): readonly PricePoint[] {
  const points = texts.map((text) => {
    const [, busy, price] = /^(\d{1,3}):(\d{1,5})$/.exec(text) ?? [];
    const isPoint = busy !== undefined && Number(busy) <= 100 && Number(price) <= CURVE_PERCENT_MAX;
    if (!isPoint)
      throw badCurve(`"${text}" is no BUSY:PRICE, two numbers in percent, at most 100 and ${CURVE_PERCENT_MAX}`);
    return { busyBps: Number(busy) * 100, priceBps: Number(price) * 100 };
  });
  if (points.length > CURVE_POINTS_MAX)
    throw badCurve(`it has ${points.length} points, ${CURVE_POINTS_MAX} are enough`);
  const isAscending = points.every(({ busyBps }, index) => index === 0 || busyBps > (points[index - 1]?.busyBps ?? 0));
  if (!isAscending) throw badCurve('its points do not follow one another from idle to busy');
  return points;
}

function badCurve(why: string): MoltError {
  return new MoltError(
    'config/invalid',
    `the price curve is refused: ${why}; write for example 0:100, 80:150, 100:300`,
  );
}

/** The prices now: what an offer advertises. `utilisation` is the share in use, 0 … 1; outside counts as the nearer end. */
export function currentPrices({ prices, curve = [] }: PricePolicy, utilisation: number): Prices {
  const bps = BigInt(curveAt(curve, Math.round(Math.min(Math.max(utilisation, 0), 1) * ALL_BPS)));
  const scaled = (price: bigint): BaseUnits => {
    const now = ceilingDivide(price * bps, BigInt(ALL_BPS));
    return baseUnits(now > U64_MAX ? U64_MAX : now);
  };
  const { base, perCpu, perGib, perGpu } = prices;
  return { base: scaled(base), perCpu: scaled(perCpu), perGib: scaled(perGib), perGpu: scaled(perGpu) };
}

function curveAt(curve: readonly PricePoint[], busyBps: number): number {
  const after = curve.findIndex((point) => point.busyBps >= busyBps);
  const [left, right] = after === -1 ? [curve.at(-1), undefined] : [curve[after - 1], curve[after]];
  if (left === undefined || right === undefined) return (left ?? right)?.priceBps ?? ALL_BPS;
  const share = (busyBps - left.busyBps) / (right.busyBps - left.busyBps);
  return Math.round(left.priceBps + share * (right.priceBps - left.priceBps));
}

/** Base units per second, between floor and ceiling. Every part rounds up; may exceed a u64, so compare before branding it. */
export function askPerSecond(policy: PricePolicy, need: Resources, utilisation: number): bigint {
  const ask = priceOf(currentPrices(policy, utilisation), need);
  const atLeast = policy.floorPerSecond ?? 0n;
  const atMost = policy.ceilingPerSecond;
  const raised = ask < atLeast ? atLeast : ask;
  return atMost !== undefined && raised > atMost ? atMost : raised;
}

/** What this need costs at these prices, base units per second: what an offer promises before anybody is asked. */
export function priceOf({ base, perCpu, perGib, perGpu }: Prices, need: Resources): bigint {
  const gpus = BigInt(need.gpus.reduce((sum, group) => sum + group.count, 0));
  return (
    base +
    ceilingDivide(perCpu * BigInt(need.cpuMillis), 1000n) +
    ceilingDivide(perGib * BigInt(need.memoryBytes), GIB) +
    perGpu * gpus
  );
}

/** ⌈a ÷ b⌉ for a ≥ 0, b > 0. */
export function ceilingDivide(a: bigint, b: bigint): bigint {
  return (a + b - 1n) / b;
}
