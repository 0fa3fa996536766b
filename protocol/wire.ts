/**
 * Names of topics and stream protocols, and the framed messages of the streams. One place, so that both ends agree.
 */
import { createHash } from 'node:crypto';

import { CID } from 'multiformats/cid';
import * as Digest from 'multiformats/hashes/digest';

import type { Address } from './address.ts';
import { decodeCanonical } from './envelope.ts';
import { type ErrorCode, type ErrorContext, MoltError, isErrorCode } from './errors.ts';
import { LIMITS } from './limits.ts';
import type { ResourceClass } from './messages.ts';
import {
  BidAnswer,
  EvidenceAnswer,
  EvidenceRequest,
  ForwardAnswer,
  ForwardRequest,
  LeaseRequest,
  LeaseResponse,
  LetGo,
  OffersRequest,
  type Refusal,
} from './molt.js';
import { U64_MAX } from './units.ts';

/** Multicodec numbers. */
const RAW_CODEC = 0x55;
const SHA_256_CODE = 0x12;

/** What mesh protocols are scoped by: enough of the network id that two networks never meet. */
export function meshName(network: Address): string {
  return network.slice(0, 16);
}

/**
 * Topics carry the first characters of the network, so that a test network never talks to another, and are sharded by
 * resource class and region. In the shard of `''` everything of the class is said; in a region's shard what is of that
 * region besides. So who trades in one region hears only that one, and nobody has to know which regions there are.
 */
export function offersTopic(network: Address, resourceClass: ResourceClass, region = ''): string {
  return `/molt/1/${network.slice(0, 8)}/offers/${resourceClass}/${shardOf(region)}`;
}

/** A bid is said once: in its region's shard when it insists on one, else in that of `''`, which every provider hears. */
export function bidsTopic(network: Address, resourceClass: ResourceClass, region = ''): string {
  return `/molt/1/${network.slice(0, 8)}/bids/${resourceClass}/${shardOf(region)}`;
}

function shardOf(region: string): string {
  return region === '' ? 'any' : `in-${region}`;
}

/**
 * The name under which providers of a class stand in the DHT, so that a market is found by peers that hear no gossip of
 * it: a raw CID over SHA-256 of the text.
 */
export function marketCid(network: Address, resourceClass: ResourceClass): string {
  const digest = createHash('sha256').update(`molt/1/market/${network}/${resourceClass}`).digest();
  return CID.createV1(RAW_CODEC, Digest.create(SHA_256_CODE, digest)).toString();
}

/** Stream protocols with their bounds. Kept streams (quote, lease) are few per peer; pulls are short. */
export const STREAMS = {
  quote: {
    protocol: '/molt/1/quote',
    maxFrameBytes: LIMITS.bidAnswerFrameBytes,
    maxStreamsPerPeer: 4,
    maxStreams: 512,
    // The provider ends a stream that it has no use for after half this time.
    idleMs: 120_000,
  },
  offers: {
    protocol: '/molt/1/offers',
    maxFrameBytes: LIMITS.offersFrameBytes,
    maxStreamsPerPeer: 4,
    maxStreams: 64,
    idleMs: 10_000,
    canWait: true,
  },
  lease: { protocol: '/molt/1/lease', maxFrameBytes: LIMITS.leaseFrameBytes, maxStreamsPerPeer: 32, maxStreams: 512 },
  artifact: {
    protocol: '/molt/1/artifact',
    maxFrameBytes: LIMITS.artifactFrameBytes,
    maxStreamsPerPeer: 8,
    maxStreams: 64,
    canWait: true,
  },
  /** One stream is one connection to a service. */
  forward: {
    protocol: '/molt/1/forward',
    maxFrameBytes: LIMITS.forwardFrameBytes,
    maxStreamsPerPeer: 64,
    maxStreams: 512,
  },
  /** To the drawn verifiers of a disputed lease. Who brings content waits until it was fetched. */
  evidence: {
    protocol: '/molt/1/evidence',
    maxFrameBytes: LIMITS.evidenceFrameBytes,
    maxStreamsPerPeer: 4,
    maxStreams: 64,
    canWait: true,
  },
} as const;

export const decodeBidAnswer = (bytes: Uint8Array): BidAnswer => decodeCanonical(BidAnswer, bytes, 'answer to a bid');
export const decodeLetGo = (bytes: Uint8Array): LetGo => decodeCanonical(LetGo, bytes, 'word that a quote is let go');
export const decodeLeaseRequest = (bytes: Uint8Array): LeaseRequest =>
  decodeCanonical(LeaseRequest, bytes, 'lease request');
export const decodeLeaseResponse = (bytes: Uint8Array): LeaseResponse =>
  decodeCanonical(LeaseResponse, bytes, 'lease response');
export const decodeOffersRequest = (bytes: Uint8Array): OffersRequest =>
  decodeCanonical(OffersRequest, bytes, 'request for offers');

export const decodeForwardRequest = (bytes: Uint8Array): ForwardRequest =>
  decodeCanonical(ForwardRequest, bytes, 'request for a connection');
export const decodeForwardAnswer = (bytes: Uint8Array): ForwardAnswer =>
  decodeCanonical(ForwardAnswer, bytes, 'answer to a request for a connection');
export const decodeEvidenceRequest = (bytes: Uint8Array): EvidenceRequest =>
  decodeCanonical(EvidenceRequest, bytes, 'evidence');
export const decodeEvidenceAnswer = (bytes: Uint8Array): EvidenceAnswer =>
  decodeCanonical(EvidenceAnswer, bytes, 'answer to evidence');

/**
 * An error as it travels: its code, a bounded reason and, where the refused term has a number, the one that would have been
 * taken (`context.enough`: base units a second for a price, base units for an amount or stake, seconds for a duration).
 */
export function toRefusal(error: { code: ErrorCode; message: string; context?: ErrorContext }): Refusal {
  const enough = String(error.context?.['enough'] ?? '');
  return {
    code: error.code,
    reason: error.message.slice(0, LIMITS.refusalCharacters),
    enough: /^\d{1,20}$/.test(enough) && BigInt(enough) <= U64_MAX ? BigInt(enough) : 0n,
  };
}

/** A peer's refusal as an error here; a code that this version does not know becomes `market/declined`. */
export function fromRefusal(refusal: Refusal): MoltError {
  const code = isErrorCode(refusal.code) ? refusal.code : 'market/declined';
  const enough = refusal.enough === 0n ? {} : { enough: refusal.enough.toString() };
  return new MoltError(code, refusal.reason.slice(0, LIMITS.refusalCharacters), { remote: true, ...enough });
}
