/**
 * Offer, bid and quote: what they mean, with the limits that their wire form (molt.proto) cannot express.
 *
 * Each message has an `encode…` for its own side and a `decode…` for the other: the decoder takes an envelope and gives
 * the same envelope with the typed message in `content`, so the signature stays beside what was signed. Decoders throw
 * `protocol/malformed`, `protocol/not-canonical`.
 */
import { multiaddrFromBytes, multiaddrToBytes } from './multiaddress.ts';
import { type Address, decodeAddress, encodeAddress } from './address.ts';
import { type Envelope, decodeCanonical, toSafeNumber } from './envelope.ts';
import { MoltError } from './errors.ts';
import { LIMITS } from './limits.ts';
import * as wire from './molt.js';
import { type BaseUnits, baseUnits } from './units.ts';

/** Runtimes by wire number, append-only. */
export const RUNTIMES = ['wasm', 'container'] as const;
export type RuntimeKind = (typeof RUNTIMES)[number];

/**
 * What a provider may offer beyond a runtime, and a bid may ask for, by wire number, append-only. `egress`: an allow-list
 * of hosts the job may reach. `services`: ports of the job that the buyer can reach. `sandbox`: a stronger sandbox than
 * a container on the host's kernel. `fetch`: the provider fetches inputs from the web.
 */
export const FEATURES = ['egress', 'services', 'sandbox', 'fetch'] as const;
export type Feature = (typeof FEATURES)[number];

/**
 * What shows on which hardware a job runs, by wire number, append-only. `A0`: the provider says so. `A1`: a challenge that the
 * device solved. `A2`: and a TPM. `A3`: a CPU's trusted execution environment. `A4`: and a GPU's report in it.
 */
export const HARDWARE_TIERS = ['A0', 'A1', 'A2', 'A3', 'A4'] as const;
export type HardwareTier = (typeof HARDWARE_TIERS)[number];

/** The highest tier that anybody can show in this version: no offer may name another. */
export const HARDWARE_TIER_SHOWN: HardwareTier = 'A0';

export function isTierAtLeast(tier: HardwareTier, least: HardwareTier): boolean {
  return HARDWARE_TIERS.indexOf(tier) >= HARDWARE_TIERS.indexOf(least);
}

export interface GpuGroup {
  readonly count: number;
  readonly vramBytes: number;
  /** As the driver names it; empty in a bid means any. */
  readonly model: string;
  /** CUDA compute capability in tenths: 89 is 8.9. In a bid: at least. 0 where there is none, or any will do. */
  readonly computeCapability: number;
}

/** What a job needs or a provider has. */
export interface Resources {
  /** Thousandths of a core. */
  readonly cpuMillis: number;
  readonly memoryBytes: number;
  readonly diskBytes: number;
  readonly gpus: readonly GpuGroup[];
}

/** Ask prices, base units per second. */
export interface Prices {
  readonly base: BaseUnits;
  readonly perCpu: BaseUnits;
  readonly perGib: BaseUnits;
  readonly perGpu: BaseUnits;
}

export interface Offer {
  readonly provider: Address;
  readonly free: Resources;
  readonly runtimes: readonly RuntimeKind[];
  readonly features: readonly Feature[];
  readonly hardwareTier: HardwareTier;
  readonly prices: Prices;
  /** Thousands of kernel rounds a second on one core, measured by the provider itself; ranks only after settlement. */
  readonly speed: number;
  readonly speedMeasuredMs: number;
  readonly region: string;
  readonly durationSecondsMax: number;
  /** First 8 bytes, hex, of digests of modules and images that are at hand. */
  readonly warm: readonly string[];
  /** Multiaddrs, each ending in the node's peer id. */
  readonly addresses: readonly string[];
  readonly revoked: boolean;
}

export interface Bid {
  readonly need: Resources;
  readonly runtime: RuntimeKind;
  /** What the job needs beyond the runtime. */
  readonly features: readonly Feature[];
  readonly durationSecondsMax: number;
  readonly pricePerSecondMax: BaseUnits;
  readonly stakeMin: BaseUnits;
  readonly reserveMin: BaseUnits;
  readonly region: string;
  /** 0 … 2^64-1; see market/bid.ts `distance`. */
  readonly distanceMax: bigint;
  readonly quotesWanted: number;
  /** First 8 bytes, hex, of the module or image digest; empty when not told. */
  readonly warm: string;
  readonly addresses: readonly string[];
  /** Chain time, whole seconds, by which the job must be proven; 0 when any time will do. */
  readonly finishByMs: number;
  /** Unix ms by which the job must have begun; 0 when any time will do. */
  readonly startByMs: number;
  /** The account that would pay. Capacity is held for who can. */
  readonly budget: Address;
  /** First 8 bytes, hex, of digests of the CIDs of inputs; empty when not told. */
  readonly near: readonly string[];
  /** Least tier of the provider; A0 when any will do. */
  readonly hardwareTierMin: HardwareTier;
  /** The challenge window must be at least this, whole seconds; 0 when the provider's own will do. */
  readonly windowMs: number;
}

export interface Quote {
  /** Id of the bid this answers. */
  readonly bid: string;
  readonly provider: Address;
  readonly pricePerSecond: BaseUnits;
  /** To be locked: price × longest duration. */
  readonly amount: BaseUnits;
  readonly reserve: BaseUnits;
  /** Whole seconds, as the chain keeps them. */
  readonly openBeforeMs: number;
  readonly finishByMs: number;
  readonly graceMs: number;
  readonly windowMs: number;
  readonly speed: number;
  readonly warm: boolean;
  /** Those of the inputs that the bid names that are at hand, as the bid names them. */
  readonly near: readonly string[];
  /** Unix ms of the provider's own clock by which its proof says that the job began; 0 when nothing is promised. */
  readonly startByMs: number;
}

export type Message<Content> = Envelope & { readonly content: Content };

/** Topics and streams are sharded by this: who trades CPU time need not hear about GPUs. */
export const RESOURCE_CLASSES = ['cpu', 'gpu'] as const;
export type ResourceClass = (typeof RESOURCE_CLASSES)[number];

export function resourceClassOf(resources: Resources): ResourceClass {
  return resources.gpus.length > 0 ? 'gpu' : 'cpu';
}

export function encodeOffer(offer: Offer): Uint8Array {
  return wire.Offer.encode({
    provider: decodeAddress(offer.provider),
    free: encodeResources(offer.free),
    runtimes: offer.runtimes.map(runtimeNumber),
    features: offer.features.map(featureNumber),
    hardwareTier: HARDWARE_TIERS.indexOf(offer.hardwareTier),
    prices: {
      base: offer.prices.base,
      cpu: offer.prices.perCpu,
      memory: offer.prices.perGib,
      gpu: offer.prices.perGpu,
    },
    speed: offer.speed,
    speedMeasuredMs: BigInt(offer.speedMeasuredMs),
    region: offer.region,
    durationSecondsMax: offer.durationSecondsMax,
    warm: offer.warm.map((prefix) => Buffer.from(prefix, 'hex')),
    addresses: offer.addresses.map(multiaddrToBytes),
    revoked: offer.revoked,
  });
}

export function decodeOffer(envelope: Envelope): Message<Offer> {
  const raw = decodeCanonical(wire.Offer, envelope.body, 'offer');
  const prices = raw.prices ?? { base: 0n, cpu: 0n, memory: 0n, gpu: 0n };
  bound(raw.runtimes.length <= RUNTIMES.length, 'offer', 'too many runtimes');
  bound(raw.warm.length <= LIMITS.warmPerOffer, 'offer', 'too many warm digests');
  bound(raw.region.length <= LIMITS.regionCharacters, 'offer', 'the region is too long');
  bound(raw.durationSecondsMax <= LIMITS.leaseSeconds, 'offer', 'the duration is longer than a lease may last');
  const content: Offer = {
    provider: decodeKey(raw.provider, 'provider'),
    free: decodeResources(raw.free),
    runtimes: raw.runtimes.map(runtimeOf),
    features: decodeFeatures(raw.features),
    hardwareTier: tierOf(raw.hardwareTier, HARDWARE_TIER_SHOWN),
    prices: {
      base: baseUnits(prices.base),
      perCpu: baseUnits(prices.cpu),
      perGib: baseUnits(prices.memory),
      perGpu: baseUnits(prices.gpu),
    },
    speed: raw.speed,
    speedMeasuredMs: toSafeNumber(raw.speedMeasuredMs, 'speed date'),
    region: raw.region,
    durationSecondsMax: raw.durationSecondsMax,
    warm: raw.warm.map((prefix) => decodePrefix(prefix, 'warm digest')),
    addresses: decodeAddresses(raw.addresses),
    revoked: raw.revoked,
  };
  return { ...envelope, content };
}

export function encodeBid(bid: Bid): Uint8Array {
  return wire.Bid.encode({
    need: encodeResources(bid.need),
    runtime: runtimeNumber(bid.runtime),
    features: bid.features.map(featureNumber),
    durationSecondsMax: bid.durationSecondsMax,
    pricePerSecondMax: bid.pricePerSecondMax,
    stakeMin: bid.stakeMin,
    reserveMin: bid.reserveMin,
    region: bid.region,
    distanceMax: bid.distanceMax,
    quotesWanted: bid.quotesWanted,
    warm: Buffer.from(bid.warm, 'hex'),
    addresses: bid.addresses.map(multiaddrToBytes),
    finishByMs: BigInt(bid.finishByMs),
    startByMs: BigInt(bid.startByMs),
    budget: decodeAddress(bid.budget),
    windowMs: BigInt(bid.windowMs),
    hardwareTier: HARDWARE_TIERS.indexOf(bid.hardwareTierMin),
    near: bid.near.map((prefix) => Buffer.from(prefix, 'hex')),
  });
}

export function decodeBid(envelope: Envelope): Message<Bid> {
  const raw = decodeCanonical(wire.Bid, envelope.body, 'bid');
  bound(raw.region.length <= LIMITS.regionCharacters, 'bid', 'the region is too long');
  bound(raw.quotesWanted >= 1 && raw.quotesWanted <= LIMITS.quotesWanted, 'bid', `it wants ${raw.quotesWanted} quotes`);
  bound(
    raw.durationSecondsMax >= 1 && raw.durationSecondsMax <= LIMITS.leaseSeconds,
    'bid',
    'the duration is out of range',
  );
  const content: Bid = {
    need: decodeResources(raw.need),
    runtime: runtimeOf(raw.runtime),
    features: decodeFeatures(raw.features),
    durationSecondsMax: raw.durationSecondsMax,
    pricePerSecondMax: baseUnits(raw.pricePerSecondMax),
    stakeMin: baseUnits(raw.stakeMin),
    reserveMin: baseUnits(raw.reserveMin),
    region: raw.region,
    distanceMax: raw.distanceMax,
    quotesWanted: raw.quotesWanted,
    warm: raw.warm.length === 0 ? '' : decodePrefix(raw.warm, 'warm digest'),
    addresses: decodeAddresses(raw.addresses),
    finishByMs: wholeSeconds(raw.finishByMs, 'finish-by time'),
    startByMs: toSafeNumber(raw.startByMs, 'start-by time'),
    budget: decodeKey(raw.budget, 'budget'),
    windowMs: wholeSeconds(raw.windowMs, 'challenge window'),
    hardwareTierMin: tierOf(raw.hardwareTier, 'A4'),
    near: decodeNear(raw.near, 'bid'),
  };
  return { ...envelope, content };
}

export function encodeQuote(quote: Quote): Uint8Array {
  return wire.Quote.encode({
    bid: Buffer.from(quote.bid, 'hex'),
    provider: decodeAddress(quote.provider),
    pricePerSecond: quote.pricePerSecond,
    amount: quote.amount,
    reserve: quote.reserve,
    openBeforeMs: BigInt(quote.openBeforeMs),
    finishByMs: BigInt(quote.finishByMs),
    graceMs: BigInt(quote.graceMs),
    windowMs: BigInt(quote.windowMs),
    speed: quote.speed,
    warm: quote.warm,
    near: quote.near.map((prefix) => Buffer.from(prefix, 'hex')),
    startByMs: BigInt(quote.startByMs),
  });
}

export function decodeQuote(envelope: Envelope): Message<Quote> {
  const raw = decodeCanonical(wire.Quote, envelope.body, 'quote');
  bound(raw.bid.length === 32, 'quote', 'the bid id has not 32 bytes');
  const content: Quote = {
    bid: Buffer.from(raw.bid).toString('hex'),
    provider: decodeKey(raw.provider, 'provider'),
    pricePerSecond: baseUnits(raw.pricePerSecond),
    amount: baseUnits(raw.amount),
    reserve: baseUnits(raw.reserve),
    openBeforeMs: wholeSeconds(raw.openBeforeMs, 'open-before time'),
    finishByMs: wholeSeconds(raw.finishByMs, 'finish-by time'),
    graceMs: wholeSeconds(raw.graceMs, 'grace'),
    windowMs: wholeSeconds(raw.windowMs, 'challenge window'),
    speed: raw.speed,
    warm: raw.warm,
    near: decodeNear(raw.near, 'quote'),
    startByMs: toSafeNumber(raw.startByMs, 'start-by time'),
  };
  return { ...envelope, content };
}

function encodeResources(resources: Resources): wire.Resources {
  return {
    cpuMillis: resources.cpuMillis,
    memoryBytes: BigInt(resources.memoryBytes),
    diskBytes: BigInt(resources.diskBytes),
    gpus: resources.gpus.map((gpu) => ({ ...gpu, vramBytes: BigInt(gpu.vramBytes) })),
  };
}

function decodeResources(raw: wire.Resources | undefined): Resources {
  const { cpuMillis, memoryBytes, diskBytes, gpus } = raw ?? { cpuMillis: 0, memoryBytes: 0n, diskBytes: 0n, gpus: [] };
  bound(gpus.length <= LIMITS.gpuKindsPerMessage, 'resources', 'too many kinds of GPU');
  return {
    cpuMillis,
    memoryBytes: toSafeNumber(memoryBytes, 'memory'),
    diskBytes: toSafeNumber(diskBytes, 'disk'),
    gpus: gpus.map((gpu) => {
      bound(gpu.model.length <= LIMITS.modelCharacters, 'resources', 'the GPU model is too long');
      return { ...gpu, vramBytes: toSafeNumber(gpu.vramBytes, 'GPU memory') };
    }),
  };
}

function runtimeNumber(runtime: RuntimeKind): number {
  return RUNTIMES.indexOf(runtime) + 1;
}

function runtimeOf(number: number): RuntimeKind {
  const runtime = RUNTIMES[number - 1];
  if (runtime === undefined) throw malformed('message', `it names runtime ${number}, known are 1 … ${RUNTIMES.length}`);
  return runtime;
}

function tierOf(number: number, highest: HardwareTier): HardwareTier {
  const tier = HARDWARE_TIERS[number];
  if (tier !== undefined && isTierAtLeast(highest, tier)) return tier;
  throw malformed('message', `it names hardware tier ${tier ?? number}, the highest here is ${highest}`);
}

function featureNumber(feature: Feature): number {
  return FEATURES.indexOf(feature) + 1;
}

function decodeFeatures(numbers: readonly number[]): Feature[] {
  bound(numbers.length <= FEATURES.length, 'message', 'too many features');
  return numbers.map((number) => {
    const feature = FEATURES[number - 1];
    if (feature === undefined)
      throw malformed('message', `it names feature ${number}, known are 1 … ${FEATURES.length}`);
    return feature;
  });
}

function decodeKey(bytes: Uint8Array, what: string): Address {
  bound(bytes.length === 32, what, 'it has not 32 bytes');
  return encodeAddress(bytes);
}

function decodePrefix(bytes: Uint8Array, what: string): string {
  bound(bytes.length === 8, what, 'it has not 8 bytes');
  return Buffer.from(bytes).toString('hex');
}

function decodeNear(raw: readonly Uint8Array[], what: string): string[] {
  bound(raw.length <= LIMITS.nearPerBid, what, 'it names too many inputs');
  return raw.map((prefix) => decodePrefix(prefix, 'digest of an input'));
}

function decodeAddresses(raw: readonly Uint8Array[]): string[] {
  bound(raw.length <= LIMITS.addressesPerMessage, 'message', 'too many addresses');
  return raw.map((bytes) => {
    bound(bytes.length <= LIMITS.addressBytes, 'message', 'an address is too long');
    return multiaddrFromBytes(bytes);
  });
}

function wholeSeconds(value: bigint, what: string): number {
  const ms = toSafeNumber(value, what);
  bound(ms % 1000 === 0, what, 'it is not a whole number of seconds');
  return ms;
}

function bound(condition: boolean, what: string, reason: string): asserts condition {
  if (!condition) throw malformed(what, reason);
}

function malformed(what: string, reason: string): MoltError {
  return new MoltError('protocol/malformed', `the ${what} is refused: ${reason}`);
}
