/**
 * Admission: what happens to an offer or a bid that somebody else's machine handed us. Pure; the clock is an argument.
 *
 * Clauses in this order, cheap ones first, each with its code (SPEC.md, "Admission"):
 *  1. size, decode, canonical form, version, kind, network, clock window, expiry  — `protocol/envelope.ts`
 *  2. the origin's bucket, looked at, unless we asked for the message              `market/rate-limited`
 *  3. the sequence, looked at                                `protocol/replayed`; a convict's: `market/equivocated`
 *  4. where nobody vouches for the origin, the bucket of its forwarder and that of all   `market/rate-limited`; a
 *     forwarder that brings far more than an honest one could: `market/flooded`
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
import { type Rate, createBuckets } from './buckets.ts';
import { type Forwarders, type Passage, createForwarders } from './forwarders.ts';

/** The message is there exactly when the verdict is `accept`. */
export type Admitted<Content> =
  | { readonly verdict: Verdict & { readonly verdict: 'accept' }; readonly message: Verified<Message<Content>> }
  | {
      readonly verdict: Verdict & { readonly verdict: 'ignore' | 'reject' };
      readonly message?: undefined;
      /** Who was just convicted of two messages under one sequence: nothing it said before counts. */
      readonly convicted?: Address;
      /** It was refused only because nobody vouches for its signer; `Admission.settle` says what was found. */
      readonly doubt?: Doubt<Content>;
    };

/** A message of a stranger, decoded and not verified. */
export interface Doubt<Content> {
  readonly message: Message<Content>;
  readonly from: Address;
  /** Its forwarder brings more strangers than it may; otherwise all forwarders together do. */
  readonly isExcess: boolean;
}

export interface Admission {
  /**
   * `from` is the peer that forwarded the message; undefined for one that we asked for in a pull, where the puller bounds
   * the count: it is not counted, neither for a forwarder nor for its origin. What an origin may say is not used up by what
   * others tell of it, or a newcomer that pulled two versions of an offer would not hear the withdrawal that follows.
   * Never throws for anything that the bytes hold.
   */
  offer(bytes: Uint8Array, from: Address | undefined, nowMs: number): Admitted<Offer>;
  bid(bytes: Uint8Array, from: Address | undefined, nowMs: number): Admitted<Bid>;
  /**
   * What was found about a doubtful offer. A genuine signer is vouched for from now on, so that its offers, this one
   * included, are admitted; what is not genuine counts against its forwarder.
   */
  settle(doubt: Doubt<Offer>, isGenuine: boolean, nowMs: number): void;
}

export interface AdmissionLimits {
  readonly offersPerOrigin: Rate;
  readonly bidsPerOrigin: Rate;
  /** Of signers that nobody vouches for, from one forwarding peer; beyond it, offers are doubtful. */
  readonly offersPerForwarder: Rate;
  readonly bidsPerForwarder: Rate;
  /** The same from all of them: what a node lets through, so that it cannot be blamed for what others invent. */
  readonly offersInAll: Rate;
  readonly bidsInAll: Rate;
  /** Bids beyond `bidsPerForwarder` that are not blamed on their forwarder: more than `bidsInAll` of an honest one. */
  readonly bidsBlameless: Rate;
  /** Signers remembered, per kind. */
  readonly signersMax: number;
  /** Forwarders remembered: more than there can be connections. */
  readonly forwardersMax: number;
}

export const ADMISSION_LIMITS: AdmissionLimits = {
  offersPerOrigin: { perSecond: 0.2, burst: 3 },
  bidsPerOrigin: { perSecond: 1, burst: 10 },
  offersPerForwarder: { perSecond: 50, burst: 100 },
  bidsPerForwarder: { perSecond: 25, burst: 50 },
  offersInAll: { perSecond: 25, burst: 50 },
  bidsInAll: { perSecond: 100, burst: 200 },
  bidsBlameless: { perSecond: 200, burst: 400 },
  signersMax: 8_192,
  forwardersMax: 1_024,
};

/** How long nothing is taken of a signer that said two things at once. */
const BARRED_MS = 10 * 60_000;
/** How long a stake that was looked up counts: it leaves its account more slowly than this. */
const VOUCHED_MS = 10 * 60_000;

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
  const memo: Memo = options.memo ?? ((_step, _bytes, make) => make());
  const shared = { network: options.network, memo };
  /** Until when a signer counts as vouched for. */
  const vouched = createBoundedMap<Address, number>(limits.signersMax);
  const offerLimits = { perForwarder: limits.offersPerForwarder, inAll: limits.offersInAll };
  const offerForwarders = createForwarders(offerLimits, limits.forwardersMax);
  const bidLimits = { perForwarder: limits.bidsPerForwarder, inAll: limits.bidsInAll, blameless: limits.bidsBlameless };
  const offers = createGate<Offer>({
    ...shared,
    kind: 'offer',
    forwarders: offerForwarders,
    isVouched: (signer, nowMs) => (vouched.get(signer) ?? 0) > nowMs,
    canBeLookedUp: true,
    origins: createOrigins(limits.offersPerOrigin, limits.signersMax),
    decode: decodeOffer,
    assertSense: (offer) => assertReachesSigner(offer, 'offer'),
  });
  const bids = createGate<Bid>({
    ...shared,
    kind: 'bid',
    forwarders: createForwarders(bidLimits, limits.forwardersMax),
    isVouched: () => false,
    canBeLookedUp: false,
    origins: createOrigins(limits.bidsPerOrigin, limits.signersMax),
    decode: decodeBid,
    assertSense: assertBidSense,
  });
  return {
    offer: offers,
    bid: bids,
    settle({ message, from, isExcess }, isGenuine, nowMs) {
      if (isGenuine) vouched.set(message.signer, nowMs + VOUCHED_MS);
      if (isExcess) offerForwarders.judge(from, isGenuine, nowMs);
    },
  };
}

interface Gate<Content> {
  readonly network: Address;
  readonly forwarders: Forwarders;
  readonly isVouched: (signer: Address, nowMs: number) => boolean;
  readonly canBeLookedUp: boolean;
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
      const refused = gate.origins.refusal(envelope, from === undefined, nowMs);
      if (refused !== undefined) throw blamed(gate, refused, { from, nowMs });
      if (from !== undefined && !gate.isVouched(envelope.signer, nowMs)) {
        const passage = gate.forwarders.take(from, nowMs);
        if (passage !== 'taken') return crowdedOut(gate, envelope, { from, passage, nowMs });
      }
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

/** What the origin's own bucket or sequence refuses costs whoever brings it, except the same message by another topic. */
function blamed<Content>(
  { forwarders, canBeLookedUp }: Gate<Content>,
  { error, isEcho }: OriginRefusal,
  { from, nowMs }: { readonly from: Address | undefined; readonly nowMs: number },
): MoltError {
  if (from === undefined || isEcho || !forwarders.charge(from, nowMs)) return error;
  if (canBeLookedUp) forwarders.judge(from, false, nowMs);
  return forwarders.isFlood(from, nowMs) ? flooded(from) : error;
}

/** A stranger for whom there is no room: looked up where that can be done, unless its forwarder is known to invent them. */
function crowdedOut<Content>(
  gate: Gate<Content>,
  envelope: Envelope,
  { from, passage, nowMs }: { readonly from: Address; readonly passage: Passage; readonly nowMs: number },
): Admitted<Content> {
  const isExcess = passage === 'excess';
  const { forwarders, canBeLookedUp } = gate;
  if (isExcess && forwarders.isFlood(from, nowMs)) throw flooded(from);
  const who = isExcess ? `${from} forwards` : 'all peers together forward';
  const text = `${who} more ${gate.kind}s of strangers than one may; each has to be sent again later`;
  const error = new MoltError('market/rate-limited', text, { from });
  const verdict = verdictOf(error) as Verdict & { verdict: 'ignore' | 'reject' };
  return canBeLookedUp ? { verdict, doubt: { message: gate.decode(envelope), from, isExcess } } : { verdict };
}

function flooded(from: Address): MoltError {
  const text = `${from} forwards far more than it may of what nobody vouches for; its messages are dropped`;
  return new MoltError('market/flooded', text, { from });
}

interface OriginRefusal {
  readonly error: MoltError;
  /** It is the message that was taken last, once more. */
  readonly isEcho: boolean;
}

interface Origins {
  /**
   * `market/rate-limited`, unless we asked for the message; `protocol/replayed`, `market/equivocated`; or undefined.
   * Changes nothing.
   */
  refusal(envelope: Envelope, isAsked: boolean, nowMs: number): OriginRefusal | undefined;
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
    refusal(envelope, isAsked, nowMs) {
      const { kind, signer, sequence, issuedMs, id } = envelope;
      const known = newest.get(signer);
      const refuse = (error: MoltError): OriginRefusal => ({ error, isEcho: known?.id === id });
      if ((barred.get(signer) ?? 0) > nowMs) return refuse(equivocated(signer, 'it was convicted a short while ago'));
      if (!isAsked && !buckets.has(signer, nowMs)) {
        const text = `${signer} sends more than one ${kind} in ${1 / rate.perSecond} s; it has to slow down`;
        return refuse(new MoltError('market/rate-limited', text, { signer }));
      }
      const isTwice = known !== undefined && sequence === known.sequence && id !== known.id;
      if (isTwice || !(known === undefined ? issuedMs <= forgottenMs : sequence <= known.sequence)) return undefined;
      const text =
        known === undefined
          ? `the ${kind} of ${signer} is older than our memory of signers reaches`
          : `the ${kind} of ${signer} has sequence ${sequence}, ${known.sequence} was seen`;
      return refuse(new MoltError('protocol/replayed', text, { signer, sequence }));
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
