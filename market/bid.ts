/**
 * A bid: what the job needs, never the job itself, and who may answer.
 *
 * A bid costs O(1) answers however large the market is. Providers and the bid's id lie on a ring of 2^64 points; only
 * those at most `distanceMax` away from the bid answer. The id is a hash over the signed bytes, so nobody can choose his
 * place on the ring after the bid is known, nor before, when it is not. A buyer can try bids until one asks a provider
 * that he favours, and gains nothing: he accepts whom he likes anyway.
 */
import { createHash } from 'node:crypto';

import { type Address, decodeAddress } from '../protocol/address.ts';
import { MoltError } from '../protocol/errors.ts';
import { type JobSpec, featuresOf, storedInputs, warmPrefix } from '../protocol/job-spec.ts';
import { LIMITS } from '../protocol/limits.ts';
import type { Bid, HardwareTier } from '../protocol/messages.ts';
import { type BaseUnits, U64_MAX, baseUnits, formatMolt } from '../protocol/units.ts';

export interface BidRequest {
  readonly spec: JobSpec;
  /** Base units per second; see `pricePerSecondWithin` for a total. */
  readonly pricePerSecondMax: BaseUnits;
  /** The provider's whole stake must be at least this. Default 0. */
  readonly stakeMin?: BaseUnits;
  /** Stake set aside for this lease alone must be at least this. Default 0. */
  readonly reserveMin?: BaseUnits;
  /** Default: any. */
  readonly region?: string;
  /** Live offers heard that suit the job; 0 when unknown, which asks everybody. */
  readonly bookSize: number;
  /** 1 … LIMITS.quotesWanted, default 5. */
  readonly quotesWanted?: number;
  /** Multiaddrs of the bidder, most useful first; surplus is cut. Empty for a bidder that can only dial. */
  readonly addresses: readonly string[];
  /** Chain time by which the job must be proven, rounded down to whole seconds; default: any. */
  readonly finishByMs?: number;
  /** Unix ms by which the job must have begun; default: any. */
  readonly startByMs?: number;
  /** The account that would pay. */
  readonly budget: Address;
  /** Names the inputs that come from the buyer's store, the first few of them, for all who hear the bid. Default: no. */
  readonly nearData?: boolean;
  /** Least hardware tier; default A0, which any has. */
  readonly hardwareTierMin?: HardwareTier;
  /** Challenge window at least, rounded up to whole seconds; default: the provider's own. */
  readonly windowMs?: number;
}

const QUOTES_WANTED = 5;

/** Names that tell a provider nothing about an input that it does not have. */
function nearOf(spec: JobSpec): readonly string[] {
  const cids = new Set(storedInputs(spec).map(({ cid }) => cid));
  return [...cids].slice(0, LIMITS.nearPerBid).map(warmPrefix);
}

/** The content of a bid for this job; sealing it is the caller's. Throws `protocol/invalid-spec` for a region too long. */
export function makeBid(request: BidRequest): Bid {
  const { spec, region = '' } = request;
  if (region.length > LIMITS.regionCharacters) {
    const message = `the region "${region}" is longer than the ${LIMITS.regionCharacters} characters a region may have`;
    throw new MoltError('protocol/invalid-spec', message);
  }
  const quotesWanted = Math.min(Math.max(request.quotesWanted ?? QUOTES_WANTED, 1), LIMITS.quotesWanted);
  const { cpuMillis, memoryBytes, diskBytes, gpus } = spec.resources;
  return {
    need: { cpuMillis, memoryBytes, diskBytes, gpus },
    runtime: spec.runtime,
    features: featuresOf(spec),
    durationSecondsMax: spec.maxDurationSeconds,
    pricePerSecondMax: request.pricePerSecondMax,
    stakeMin: request.stakeMin ?? baseUnits(0n),
    reserveMin: request.reserveMin ?? baseUnits(0n),
    region,
    distanceMax: distanceCut(quotesWanted, request.bookSize),
    quotesWanted,
    warm: warmPrefix(spec.image),
    addresses: request.addresses.slice(0, LIMITS.addressesPerMessage),
    finishByMs: Math.floor((request.finishByMs ?? 0) / 1000) * 1000,
    startByMs: request.startByMs ?? 0,
    budget: request.budget,
    near: request.nearData === true ? nearOf(spec) : [],
    hardwareTierMin: request.hardwareTierMin ?? 'A0',
    windowMs: Math.ceil((request.windowMs ?? 0) / 1000) * 1000,
  };
}

/**
 * The price per second at which a run of the whole duration costs at most `total`: rounded down.
 * Throws `protocol/invalid-amount` when not even one base unit per second is left of a total above zero.
 */
export function pricePerSecondWithin(total: BaseUnits, durationSeconds: number): BaseUnits {
  const perSecond = total / BigInt(durationSeconds);
  if (perSecond === 0n && total > 0n) {
    throw new MoltError(
      'protocol/invalid-amount',
      `${formatMolt(total)} for ${durationSeconds} s is less than one base unit a second; raise the price or shorten the job`,
    );
  }
  return baseUnits(perSecond);
}

const DISTANCE_DOMAIN = 'molt/1/distance\n';

/** Where a provider lies from a bid: the first 8 bytes, big endian, of SHA-256(domain | bid id | provider account). */
export function distance(bidId: string, provider: Address): bigint {
  return createHash('sha256')
    .update(DISTANCE_DOMAIN)
    .update(Buffer.from(bidId, 'hex'))
    .update(decodeAddress(provider))
    .digest()
    .readBigUInt64BE(0);
}

/** Not every provider in reach has room, so more are asked than quotes are wanted; three times as many leave fewer than
 * five answers of fifteen in one bid of a thousand when all suit. */
const ASKED_PER_QUOTE = 3;

/** The cut that asks `ASKED_PER_QUOTE` × `quotesWanted` of `bookSize` providers on average; all when there are not more. */
export function distanceCut(quotesWanted: number, bookSize: number): bigint {
  const asked = quotesWanted * ASKED_PER_QUOTE;
  if (bookSize <= asked) return U64_MAX;
  return (U64_MAX * BigInt(asked)) / BigInt(bookSize);
}

/** True when `provider` is among those whom the bid asks. Others stay silent: not even a refusal is sent. */
export function isAsked(bid: { readonly id: string; readonly content: Bid }, provider: Address): boolean {
  return distance(bid.id, provider) <= bid.content.distanceMax;
}
