/**
 * What stands between an offer and a job: every obstacle, not just the first, each with the value that would have done.
 * The bidder asks those without, and `explain` adds up the rest.
 */
import type { Address } from '../protocol/address.ts';
import { formatBytes, formatMolt } from '../protocol/units.ts';
import {
  type Bid,
  type Feature,
  type HardwareTier,
  type Message,
  type Offer,
  type Resources,
  type RuntimeKind,
  isTierAtLeast,
} from '../protocol/messages.ts';
import { fits } from './fit.ts';
import { priceOf } from './price.ts';

/** What a job wants of a provider; amounts as decimal text, so that it can be kept as JSON. */
export interface Wanted {
  readonly runtime: RuntimeKind;
  readonly features: readonly Feature[];
  readonly need: Resources;
  readonly durationSecondsMax: number;
  /** Base units. */
  readonly pricePerSecondMax: string;
  readonly stakeMin: string;
  /** Absent from records of before it was kept. */
  readonly reserveMin?: string;
  /** Empty: any. */
  readonly region: string;
  /** The only region whose offers were heard; absent: all were. */
  readonly followed?: string;
  /** Absent from records of before there were tiers. */
  readonly hardwareTierMin?: HardwareTier;
}

export type ObstacleName =
  | 'runtime'
  | 'feature'
  | 'region'
  /** Of the hardware. */
  | 'tier'
  | 'duration'
  | 'cpu'
  | 'memory'
  | 'disk'
  | 'gpu'
  | 'price'
  | 'stake'
  /** Stake behind the lease, of what is free. */
  | 'reserve'
  | 'amount'
  /** How soon the job must begin. */
  | 'start'
  /** No room at this moment. */
  | 'busy'
  /** The buyer's own budget. */
  | 'budget'
  /** The provider lets jobs reach less. */
  | 'egress'
  /** The provider does not want to, or did not keep to the rules. */
  | 'policy';

export interface Obstacle {
  readonly what: ObstacleName;
  /** For people, as the end of "this provider …". */
  readonly text: string;
  /** What would have done, decimal: base units a second, base units, seconds, thousandths of a core or bytes. */
  readonly enough?: string;
}

/** What one offer came to. */
export interface OfferJudgement {
  readonly node: Address;
  readonly provider: Address;
  /** What the offer asks for this job, base units a second, decimal. */
  readonly pricePerSecond: string;
  readonly obstacles: readonly Obstacle[];
  /** It failed this job earlier. */
  readonly failedBefore: boolean;
}

/** Obstacles that time does not remove: a provider that has one is not asked. */
export const LASTING: ReadonlySet<ObstacleName> = new Set(['runtime', 'feature', 'region', 'tier']);

export function judgeOffer(
  { signer, content }: Message<Offer>,
  wanted: Wanted,
  failed: ReadonlySet<Address>,
): OfferJudgement {
  const pricePerSecond = priceOf(content.prices, wanted.need).toString();
  const obstacles = [...kindObstacles(content, wanted), ...sizeObstacles(content, wanted)];
  return { node: signer, provider: content.provider, pricePerSecond, obstacles, failedBefore: failed.has(signer) };
}

export function wantedOf(bid: Bid): Wanted {
  const { runtime, features, need, durationSecondsMax, region, hardwareTierMin } = bid;
  return {
    runtime,
    features,
    need,
    durationSecondsMax,
    region,
    hardwareTierMin,
    pricePerSecondMax: bid.pricePerSecondMax.toString(),
    stakeMin: bid.stakeMin.toString(),
    reserveMin: bid.reserveMin.toString(),
  };
}

function kindObstacles(offer: Offer, wanted: Wanted): Obstacle[] {
  const found: Obstacle[] = [];
  if (!offer.runtimes.includes(wanted.runtime)) {
    found.push({ what: 'runtime', text: `sells ${offer.runtimes.join(' and ') || 'nothing'}, not ${wanted.runtime}` });
  }
  const lacking = wanted.features.filter((feature) => !offer.features.includes(feature));
  if (lacking.length > 0) found.push({ what: 'feature', text: `does not offer ${lacking.join(' and ')}` });
  if (wanted.region !== '' && offer.region !== wanted.region) {
    found.push({ what: 'region', text: offer.region === '' ? 'names no region' : `is in region ${offer.region}` });
  }
  if (!isTierAtLeast(offer.hardwareTier, wanted.hardwareTierMin ?? 'A0')) {
    found.push({ what: 'tier', text: `shows its hardware at tier ${offer.hardwareTier}` });
  }
  return found;
}

function sizeObstacles(offer: Offer, wanted: Wanted): Obstacle[] {
  const { free } = offer;
  const { need } = wanted;
  const found: Obstacle[] = [];
  const short = (what: ObstacleName, enough: number | bigint, text: string): void => {
    found.push({ what, text, enough: enough.toString() });
  };
  if (wanted.durationSecondsMax > offer.durationSecondsMax) {
    short('duration', offer.durationSecondsMax, `leases at most ${offer.durationSecondsMax} s`);
  }
  if (need.cpuMillis > free.cpuMillis) short('cpu', free.cpuMillis, `has ${free.cpuMillis / 1000} cores free`);
  if (need.memoryBytes > free.memoryBytes) {
    short('memory', free.memoryBytes, `has ${formatBytes(free.memoryBytes)} of memory free`);
  }
  if (need.diskBytes > free.diskBytes) short('disk', free.diskBytes, `has ${formatBytes(free.diskBytes)} of disk free`);
  const nothing = { cpuMillis: 0, memoryBytes: 0, diskBytes: 0 };
  const gpus = fits({ ...nothing, gpus: need.gpus }, { ...nothing, gpus: free.gpus });
  if (gpus !== undefined) found.push({ what: 'gpu', text: `has too few GPUs: ${gpus.reason}` });
  const price = priceOf(offer.prices, need);
  if (price > BigInt(wanted.pricePerSecondMax)) short('price', price, `asks ${formatMolt(price)} a second`);
  return found;
}
