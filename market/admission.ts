/**
 * Admission: what happens to an offer or a bid that somebody else's machine handed us. Pure; the clock is an argument.
 *
 * Clauses in this order, cheap ones first, each with its code (SPEC.md, "Admission"):
 *  1. size, decode, canonical form, version, kind, network, clock window, expiry  — `protocol/envelope.ts`
 *  2. the forwarder's bucket                                                       `market/rate-limited`
 *  3. the origin's bucket, looked at, unless we asked for the message              `market/rate-limited`
 *  4. the sequence, looked at                                `protocol/replayed`; a convict's: `market/equivocated`
 *  5. the body's decoding and limits                                               `protocol/malformed`, `not-canonical`
 *  6. the signature                                                                `protocol/bad-signature`
 *  7. two different messages of one signer and sequence                            `market/equivocated`
 *  8. sense                                                                        `protocol/malformed`
 * Only after 6 are the origin's token taken and its sequence kept: until then the message merely claims its origin, and a
 * forger could otherwise silence an honest node by using up its bucket or its sequence numbers.
 *
 * Memory is bounded whatever arrives, and bounded memory never lets a replay in: when a signer has to be forgotten, every
 * message of an unknown signer that was issued no later than the forgotten one's newest counts as replayed.
 */
import { base58btc } from 'multiformats/bases/base58';

import { type Address, decodeAddress } from '../protocol/address.ts';
import type { Verified } from '../protocol/brands.ts';
import { type Envelope, assertTimely, parseEnvelope, verifyEnvelope } from '../protocol/envelope.ts';
import { ACCEPT, MoltError, type Verdict, verdictOf } from '../protocol/errors.ts';
import { type Bid, type Message, type Offer, decodeBid, decodeOffer } from '../protocol/messages.ts';
import { createBoundedMap } from './bounded-map.ts';
import { type Buckets, type Rate, createBuckets } from './buckets.ts';

/** The message is there exactly when the verdict is `accept`. */
export type Admitted<Content> =
  | { readonly verdict: Verdict & { readonly verdict: 'accept' }; readonly message: Verified<Message<Content>> }
  | {
      readonly verdict: Verdict & { readonly verdict: 'ignore' | 'reject' };
      readonly message?: undefined;
      /** Who was just convicted of two messages under one sequence: nothing it said before counts. */
      readonly convicted?: Address;
    };

export interface Admission {
  /**
   * `from` is the peer that forwarded the message; undefined for one that we asked for in a pull, where the puller bounds
   * the count: it is not counted, neither for a forwarder nor for its origin. What an origin may say is not used up by what
   * others tell of it, or a newcomer that pulled two versions of an offer would not hear the withdrawal that follows.
   * Never throws for anything that the bytes hold.
   */
  offer(bytes: Uint8Array, from: Address | undefined, nowMs: number): Admitted<Offer>;
  bid(bytes: Uint8Array, from: Address | undefined, nowMs: number): Admitted<Bid>;
}

export interface AdmissionLimits {
  readonly offersPerOrigin: Rate;
  readonly bidsPerOrigin: Rate;
  /** Offers and bids together, from one forwarding peer. */
  readonly messagesPerForwarder: Rate;
  /** Signers remembered, per kind. */
  readonly signersMax: number;
  /** Forwarders remembered: more than there can be connections. */
  readonly forwardersMax: number;
}

export const ADMISSION_LIMITS: AdmissionLimits = {
  offersPerOrigin: { perSecond: 0.2, burst: 3 },
  bidsPerOrigin: { perSecond: 1, burst: 10 },
  messagesPerForwarder: { perSecond: 50, burst: 50 },
  signersMax: 8_192,
  forwardersMax: 1_024,
};

/** How long nothing is taken of a signer that said two things at once. */
const BARRED_MS = 10 * 60_000;

/**
 * Keeps what `make` gives for these bytes and this step, or gives what was kept. Decoding and verifying depend on the
 * bytes alone, so admissions of one process may share them; what `make` throws is not kept.
 */
export type Memo = <Content>(step: 'envelope' | 'message', bytes: Uint8Array, make: () => Content) => Content;

/** One admission per node and network. Without `memo` every message is decoded and verified anew. */
export function createAdmission(options: {
  readonly network: Address;
  readonly limits?: Partial<AdmissionLimits>;
  readonly memo?: Memo;
}): Admission {
  const limits = { ...ADMISSION_LIMITS, ...options.limits };
  const forwarders = createBuckets(limits.messagesPerForwarder, limits.forwardersMax);
  const memo: Memo = options.memo ?? ((_step, _bytes, make) => make());
  const shared = { network: options.network, forwarders, memo };
  const offers = createGate<Offer>({
    ...shared,
    kind: 'offer',
    origins: createOrigins(limits.offersPerOrigin, limits.signersMax),
    decode: decodeOffer,
    assertSense: (offer) => assertReachesSigner(offer, 'offer'),
  });
  const bids = createGate<Bid>({
    ...shared,
    kind: 'bid',
    origins: createOrigins(limits.bidsPerOrigin, limits.signersMax),
    decode: decodeBid,
    assertSense: assertBidSense,
  });
  return { offer: offers, bid: bids };
}

interface Gate<Content> {
  readonly network: Address;
  readonly forwarders: Buckets;
  readonly memo: Memo;
  readonly kind: 'offer' | 'bid';
  readonly origins: Origins;
  readonly decode: (envelope: Envelope) => Message<Content>;
  readonly assertSense: (message: Message<Content>) => void;
}

function createGate<Content>(gate: Gate<Content>) {
  return (bytes: Uint8Array, from: Address | undefined, nowMs: number): Admitted<Content> => {
    try {
      const envelope = gate.memo('envelope', bytes, () => parseEnvelope(gate.kind, bytes, gate.network));
      assertTimely(envelope, nowMs);
      if (from !== undefined && !gate.forwarders.take(from, nowMs)) {
        throw new MoltError('market/rate-limited', `${from} forwards more than it may; it has to slow down`, { from });
      }
      if (from !== undefined) gate.origins.assertRoom(envelope, nowMs);
      gate.origins.assertNew(envelope, nowMs);
      const message = gate.memo('message', bytes, () => verifyEnvelope(gate.decode(envelope)));
      if (gate.origins.convicts(envelope, nowMs)) {
        const { signer, sequence } = envelope;
        const error = equivocated(signer, `it signed two different ${gate.kind}s with sequence ${sequence}`);
        return { verdict: verdictOf(error) as Verdict & { verdict: 'ignore' | 'reject' }, convicted: signer };
      }
      if (from !== undefined) gate.origins.take(envelope, nowMs);
      gate.origins.keep(envelope);
      gate.assertSense(message);
      return { verdict: ACCEPT as Verdict & { verdict: 'accept' }, message };
    } catch (error) {
      if (!(error instanceof MoltError)) throw error;
      return { verdict: verdictOf(error) as Verdict & { verdict: 'ignore' | 'reject' } };
    }
  };
}

interface Origins {
  /** Throws `market/rate-limited`. Takes nothing. */
  assertRoom(envelope: Envelope, nowMs: number): void;
  /** Throws `protocol/replayed`, `market/equivocated`. Changes nothing. */
  assertNew(envelope: Envelope, nowMs: number): void;
  /** After the signature verified: true for a second message under the newest sequence, which bars its signer. */
  convicts(envelope: Envelope, nowMs: number): boolean;
  /** After the signature verified: takes the token. */
  take(envelope: Envelope, nowMs: number): void;
  /** After the signature verified: keeps the sequence. */
  keep(envelope: Envelope): void;
}

interface Newest {
  readonly sequence: number;
  readonly id: string;
  /** Latest issue time of everything kept of this signer. */
  readonly issuedMs: number;
}

function createOrigins(rate: Rate, signersMax: number): Origins {
  const buckets = createBuckets(rate, signersMax);
  const newest = createBoundedMap<Address, Newest>(signersMax);
  /** Until when nothing of a signer is taken. */
  const barred = createBoundedMap<Address, number>(signersMax);
  /** Latest issue time of everything that was ever forgotten. */
  let forgottenMs = -Infinity;
  return {
    assertRoom({ kind, signer }, nowMs) {
      if (buckets.has(signer, nowMs)) return;
      throw new MoltError(
        'market/rate-limited',
        `${signer} sends more than one ${kind} in ${1 / rate.perSecond} s; it has to slow down`,
        { signer },
      );
    },
    assertNew(envelope, nowMs) {
      const { kind, signer, sequence, issuedMs, id } = envelope;
      if ((barred.get(signer) ?? 0) > nowMs) throw equivocated(signer, 'it was convicted a short while ago');
      const known = newest.get(signer);
      const isTwice = known !== undefined && sequence === known.sequence && id !== known.id;
      if (!isTwice && (known === undefined ? issuedMs <= forgottenMs : sequence <= known.sequence)) {
        throw new MoltError(
          'protocol/replayed',
          known === undefined
            ? `the ${kind} of ${signer} is older than our memory of signers reaches`
            : `the ${kind} of ${signer} has sequence ${sequence}, ${known.sequence} was seen`,
          { signer, sequence },
        );
      }
    },
    convicts({ signer, sequence, id }, nowMs) {
      const known = newest.get(signer);
      if (known?.sequence !== sequence || known.id === id) return false;
      barred.set(signer, nowMs + BARRED_MS);
      return true;
    },
    take({ signer }, nowMs) {
      buckets.take(signer, nowMs);
    },
    keep({ signer, sequence, issuedMs, id }) {
      const before = newest.get(signer)?.issuedMs ?? issuedMs;
      const forgotten = newest.set(signer, { sequence, id, issuedMs: Math.max(before, issuedMs) });
      if (forgotten !== undefined) forgottenMs = Math.max(forgottenMs, forgotten.issuedMs);
    },
  };
}

function equivocated(signer: Address, why: string): MoltError {
  return new MoltError('market/equivocated', `nothing of ${signer} is taken: ${why}`, { signer });
}

function assertBidSense(bid: Message<Bid>): void {
  assertReachesSigner(bid, 'bid');
  const { cpuMillis, memoryBytes } = bid.content.need;
  if (cpuMillis === 0 || memoryBytes === 0 || bid.content.need.gpus.some((gpu) => gpu.count === 0)) {
    throw new MoltError('protocol/malformed', 'the bid is refused: it asks for no CPU, no memory or zero GPUs');
  }
}

/**
 * An address that is not the signer's own would make every reader of the message dial somebody who never asked for it.
 */
function assertReachesSigner(message: Message<Offer> | Message<Bid>, kind: string): void {
  if (message.content.addresses.length === 0) return;
  const suffix = `/p2p/${peerIdOf(message.signer)}`;
  const foreign = message.content.addresses.find((address) => !address.endsWith(suffix));
  if (foreign !== undefined) {
    throw new MoltError('protocol/malformed', `the ${kind} is refused: ${foreign} does not lead to its signer`, {
      signer: message.signer,
    });
  }
}

/** An identity multihash (0, 36 bytes) around the protobuf of an Ed25519 key (type 1, 32 bytes). */
const PEER_ID_PREFIX = Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20);

/** A node key in the text form that multiaddrs use. */
function peerIdOf(address: Address): string {
  return base58btc.baseEncode(Buffer.concat([PEER_ID_PREFIX, decodeAddress(address)]));
}
