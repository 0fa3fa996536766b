/** Who is in a market and what they want, drawn by chance: providers with their policies, buyers' limits, jobs and gangs. */
import { createHash } from 'node:crypto';

import { CID } from 'multiformats/cid';
import * as Digest from 'multiformats/hashes/digest';

import {
  type Autonomy,
  type BidderOrder,
  type SellingPolicy,
  imageRules,
  longestWindowMs,
  parseBlackouts,
  parsePriceCurve,
  quorumOf,
} from '../../market/index.ts';
import { parseJobSpec } from '../../protocol/job-spec.ts';
import { baseUnits } from '../../protocol/units.ts';
import type { Buyer } from './buyer.ts';
import type { Chance } from './chance.ts';
import type { Task } from './engine.ts';
import type { GangWish } from './gang.ts';
import { keyOf } from './peer.ts';
import type { ProviderOptions } from './provider.ts';
import { START_MS } from './world.ts';

const GIB = 2 ** 30;
const RAW_CODEC = 0x55;
const SHA_256_CODE = 0x12;
const DURATION_MAX_S = 3_600;
/** Minute of the day, UTC, in which a run begins. */
const START_MINUTE = (START_MS / 60_000) % (24 * 60);
const MODULES = ['module a', 'module b', 'module c'].map(cidOf);
const IMAGES = ['ab', 'cd'].map((byte) => `registry.example/job@sha256:${byte.repeat(32)}`);
const INPUTS = ['input a', 'input b', 'input c', 'input d', 'input e'].map(cidOf);
/** Time to prepare that a job which must be finished early leaves, beside what it may run. */
const SPARE_MS = { from: 30_000, to: 240_000 };

/** '' for a buyer that takes any, and for a provider that names none. */
export function drawRegion(chance: Chance, regions: number): string {
  const drawn = chance.between(0, regions);
  return drawn === 0 ? '' : `region-${drawn}`;
}

/** How far a clock is off, ms. */
export function drawSkew(chance: Chance, wrongClockShare: number): number {
  const most = chance.happens(wrongClockShare) ? 120_000 : 3_000;
  return chance.between(-most, most);
}

export function drawProvider(
  chance: Chance,
  { hasPolicies, buyers }: { readonly hasPolicies: boolean; readonly buyers: number },
): Pick<ProviderOptions, 'total' | 'policy' | 'stake' | 'slowness' | 'images'> {
  const cores = chance.between(1, 8);
  const gpu = { count: chance.between(1, 3), vramBytes: 24 * GIB, model: 'Model A', computeCapability: 89 };
  const total = { cpuMillis: cores * 1_000, memoryBytes: cores * 2 * GIB, diskBytes: cores * 4 * GIB };
  const price = BigInt(chance.between(1_000, 60_000));
  const none = baseUnits(0n);
  const prices = { base: baseUnits(price), perCpu: none, perGib: none, perGpu: none };
  // Some promise what they cannot always keep: their stake is what it costs them.
  const starts = { warmSeconds: chance.between(3, 10), coldSeconds: chance.between(5, 20) };
  const policy = { prices, durationSecondsMax: DURATION_MAX_S, starts };
  return {
    total: { ...total, gpus: chance.happens(0.4) ? [gpu] : [] },
    policy: hasPolicies ? { ...policy, ...drawPolicy(chance, price, buyers) } : policy,
    // Some have hardly enough for two leases.
    stake: BigInt(chance.between(1, 50)) * (chance.happens(0.7) ? 1_000_000n : 20_000n),
    slowness: chance.happens(0.5) ? 1 : chance.between(2, 15),
    images: [...MODULES, ...IMAGES].filter(() => chance.happens(0.3)),
  };
}

/** Each rule for some of the providers. Hours are those of minutes in which the run may be. */
function drawPolicy(chance: Chance, price: bigint, buyers: number): Partial<SellingPolicy> {
  const from = START_MINUTE + chance.between(0, 3);
  const hours = `${clock(from)}-${clock(from + chance.between(1, 3))}`;
  const buyer = keyOf(`buyer ${chance.between(0, buyers)}`).address;
  return {
    ...(chance.happens(0.4) ? { blackouts: parseBlackouts([hours], 'UTC') } : {}),
    ...(chance.happens(0.6) ? { curve: parsePriceCurve(['0:60', '50:100', '100:300']) } : {}),
    ...(chance.happens(0.3) ? { floorPerSecond: price, ceilingPerSecond: price * 2n } : {}),
    ...(chance.happens(0.2) ? { leaseAmountMin: price * 20n } : {}),
    ...(chance.happens(0.2) ? { blockedBuyers: [buyer] } : {}),
    ...(chance.happens(0.2) ? { images: imageRules([], [chance.pick([...MODULES, ...IMAGES])]) } : {}),
  };
}

export function drawAutonomy(chance: Chance): Autonomy {
  // Of the order of what a few jobs cost, so that it binds.
  const hourMax = baseUnits(BigInt(chance.between(3, 40)) * 100_000n);
  return {
    medianPercentMax: chance.pick([100, 150, 400]),
    offersMin: chance.between(1, 2),
    jobMax: baseUnits(hourMax / BigInt(chance.between(1, 3))),
    hourMax,
    dayMax: baseUnits(hourMax * 2n),
    concurrentMax: chance.between(1, 4),
    stakeMin: baseUnits(0n),
    historyMin: 0,
  };
}

export interface Job {
  readonly order: BidderOrder;
  readonly task: Task;
  readonly isRepeatable: boolean;
}

/** A job of this buyer that comes at `atMs` of the world's time. */
export function drawJob(chance: Chance, { options, budget }: Buyer, on: JobBounds): Job {
  const seconds = chance.between(5, 60);
  const cores = chance.between(1, 4);
  const isGpu = chance.happens(0.25);
  const image = chance.pick(isGpu ? IMAGES : MODULES);
  const inputs = INPUTS.filter(() => chance.happens(0.2));
  const spec = parseJobSpec({
    runtime: isGpu ? 'container' : 'wasm',
    image,
    maxDurationSeconds: seconds,
    resources: {
      cpuMillis: cores * 1_000,
      memoryBytes: cores * GIB,
      diskBytes: cores * GIB,
      ...(isGpu ? { gpus: [{ count: chance.between(1, 2) }] } : {}),
    },
    inputs: inputs.map((cid, index) => ({ cid, path: `input-${index}` })),
  });
  const maxPrice = baseUnits(BigInt(chance.between(20_000, 120_000)) * BigInt(seconds));
  const quotesWanted = chance.between(on.quotesMin, 5);
  const wishes = on.hasWishes ? drawWishes(chance, { atMs: on.atMs, seconds, maxPrice }) : {};
  return {
    order: { spec, budget, maxPrice, quotesWanted, region: options.region, ...wishes },
    task: { runMs: chance.between(500, seconds * 1_000), image, inputs, result: `result ${on.atMs} of ${image}` },
    isRepeatable: !isGpu,
  };
}

export interface JobBounds {
  readonly atMs: number;
  readonly quotesMin: number;
  readonly hasWishes: boolean;
}

/** What a job insists on beside its size, each for some of them. */
function drawWishes(
  chance: Chance,
  { atMs, seconds, maxPrice }: { readonly atMs: number; readonly seconds: number; readonly maxPrice: bigint },
): Partial<BidderOrder> {
  const finishByMs = START_MS + atMs + seconds * 1_000 + chance.between(SPARE_MS.from, SPARE_MS.to);
  return {
    ...(chance.happens(0.35) ? { startWithinMs: chance.between(6_000, 30_000) } : {}),
    ...(chance.happens(0.15) ? { finishByMs } : {}),
    ...(chance.happens(0.2) ? { stakeMin: baseUnits(BigInt(chance.between(2, 20)) * 1_000_000n) } : {}),
    ...(chance.happens(0.2) ? { reserveMin: baseUnits((maxPrice * BigInt(chance.between(1, 30))) / 100n) } : {}),
    ...(chance.happens(0.05) ? { hardwareTierMin: 'A1' } : {}),
    ...(chance.happens(0.5) ? { nearData: true } : {}),
  };
}

/** Slots that run together; replicas of one job among them. */
export function drawGang(chance: Chance, replicaShare: number): GangWish {
  if (chance.happens(replicaShare)) {
    const slots = chance.pick([2, 3, 3, 4, 5]);
    const how = { spread: 'distinct-providers', onLoss: 'replace', fillings: slots + 2 } as const;
    return { ...how, slots, quorum: quorumOf(slots), isCompared: true };
  }
  const slots = chance.between(2, 3);
  return {
    slots,
    ...(chance.happens(0.3) ? { quorum: slots - 1 } : {}),
    spread: chance.pick(['any', 'distinct-providers'] as const),
    onLoss: chance.pick(['fail', 'replace'] as const),
    fillings: chance.between(1, 3),
  };
}

/** The order of one replica: its provider waits for the slowest of the others. */
export function replicaOf(order: BidderOrder): BidderOrder {
  return { ...order, windowMs: longestWindowMs(order.spec.maxDurationSeconds) };
}

function cidOf(content: string): string {
  const digest = createHash('sha256').update(content).digest();
  return CID.createV1(RAW_CODEC, Digest.create(SHA_256_CODE, digest)).toString();
}

/** A minute of the day, as settings write it. */
function clock(minute: number): string {
  return `${String(Math.floor(minute / 60)).padStart(2, '0')}:${String(minute % 60).padStart(2, '0')}`;
}
