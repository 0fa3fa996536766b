/**
 * The seller: what a provider has promised, as a pure state machine: (state, event) → (state, effects).
 *
 * Contract: a quote is signed only after its capacity and stake are set aside, and they stay so until the quote expires,
 * the buyer lets go, or a lease takes them over. So nothing is sold twice, and a silent buyer blocks nothing for longer
 * than one quote lives. Whatever is signed carries a sequence that was journaled before, so a crash never makes this key
 * sign one number twice: the shell performs `keep-sequence` before any later effect that has a header.
 *
 * What survives a crash is the journal's: leases (`lease-restored`) and the sequence (`opened`). Quotes do not: a buyer
 * who accepts one after the restart hears that it is unknown.
 */
import type { Address } from '../protocol/address.ts';
import type { Verified } from '../protocol/brands.ts';
import { MoltError } from '../protocol/errors.ts';
import { warmPrefix } from '../protocol/job-spec.ts';
import { LIMITS } from '../protocol/limits.ts';
import type { Bid, Message, Quote, Resources } from '../protocol/messages.ts';
import { baseUnits } from '../protocol/units.ts';
import { isAsked } from './bid.ts';
import {
  type Capacity,
  type PlainResources,
  type Reservation,
  createCapacity,
  freeResources,
  keep,
  promisedStake,
  release,
  reserve,
  restore,
  utilisation,
  withhold,
} from './capacity.ts';
import { type BuyerStanding, type HoldTime, beginHold, endHold, holdOf, holdRefusal } from './hold.ts';
import type { Moment } from './moment.ts';
import { nextSequence } from './offers.ts';
import type { Gpu } from './placement.ts';
import type { SellingPolicy } from './policy.ts';
import { type Answer, type ProviderFacts, answerBid } from './quote.ts';
import { refusal } from './refusal.ts';

/** A quote that was sent and can still be accepted. */
export interface OpenQuote {
  readonly id: string;
  readonly buyer: Address;
  readonly content: Quote;
  readonly bid: Bid;
  readonly expiresMs: number;
  /** The signed bytes. */
  readonly bytes: Uint8Array;
  /** Ids of the GPUs that are set aside for it. */
  readonly gpus: readonly string[];
}

export interface SellerState {
  readonly capacity: Capacity;
  /** What was held in vain of late, and by whom. */
  readonly holdTime: HoldTime;
  /** By quote id. */
  readonly quotes: ReadonlyMap<string, OpenQuote>;
  /** Newest sequence that was given out. */
  readonly sequence: number;
  /** Every number up to here counts as used after a crash. */
  readonly sequenceKept: number;
  /** Monotonic time of the last offer. */
  readonly offeredMs: number;
  /** What the last offer said is free; undefined when it is out of date for another reason than open quotes. */
  readonly offeredFree: Resources | undefined;
  /** True while an offer waits for its time. */
  readonly isOfferDue: boolean;
  /** What runs is finished, nothing new is taken. */
  readonly isDraining: boolean;
  readonly isClosed: boolean;
}

/** What the provider knows of itself when a bid comes in. */
export interface SellerTerms {
  readonly policy: SellingPolicy;
  /** `freeStake` as the chain has it; what is merely promised is taken off here. */
  readonly provider: Omit<ProviderFacts, 'draining'>;
  readonly speed: number;
  /** Digests or references of what is at hand. */
  readonly warm: readonly string[];
  /** Of the inputs that the bid names, those at hand. Default: none. */
  readonly near?: readonly string[];
  readonly chainNowMs: number;
  /** The bidder, as the chain knows it; why it is held nothing where it does not. */
  readonly buyer: BuyerStanding | MoltError;
  /** Buyers paid this provider before: room is kept for them. */
  readonly hasRegulars: boolean;
  /** True: a check of the provider's own is asked before a quote is signed. Default false. */
  readonly needsApproval?: boolean;
}

/** What a signed message of the seller says beside its content. */
export interface SellerHeader {
  readonly sequence: number;
  readonly issuedMs: number;
  readonly expiresMs: number;
}

export type SellerEvent =
  /** The node trades from now on; `sequence` is the journal's. Leases were restored before. */
  | { readonly type: 'opened'; readonly sequence: number }
  | { readonly type: 'bid'; readonly bid: Verified<Message<Bid>>; readonly terms: SellerTerms }
  /** The provider's own check has answered; its refusal, or nothing when it approves. */
  | {
      readonly type: 'bid-checked';
      readonly bid: Verified<Message<Bid>>;
      readonly content: Quote;
      readonly refused: MoltError | undefined;
    }
  | { readonly type: 'quote-signed'; readonly quote: Omit<OpenQuote, 'gpus'> }
  | { readonly type: 'quote-unsigned'; readonly bid: string }
  /** The buyer let the quote go, or its stream ended. */
  | { readonly type: 'quote-ended'; readonly quote: string }
  | { readonly type: 'quote-expired'; readonly quote: string }
  | { readonly type: 'quote-accepted'; readonly quote: string; readonly buyer: Address; readonly lease: Address }
  /** A lease of the journal. Never refused: it is running already. `stake` is what the chain has not yet reserved. */
  | ({ readonly type: 'lease-restored'; readonly lease: Address } & Omit<Reservation, 'expiresMs'>)
  /** These devices go to nobody until the next such event; leases that have one keep it. */
  | { readonly type: 'gpus-withheld'; readonly ids: ReadonlySet<string> }
  /** The chain has set the stake aside: it is no longer merely promised. */
  | { readonly type: 'lease-funded'; readonly lease: Address }
  | { readonly type: 'lease-ended'; readonly lease: Address }
  /** What an offer tells besides capacity is not what it was. */
  | { readonly type: 'offer-changed' }
  /** The wait of an `offer-later` is over. */
  | { readonly type: 'offer-due' }
  /** An offer is repeated within its life, changed or not. */
  | { readonly type: 'offer-repeat' }
  /** On: the offer is withdrawn and open quotes are void. Off: offers again. */
  | { readonly type: 'draining'; readonly on: boolean }
  | { readonly type: 'closed' };

export type SellerEffect =
  | { readonly type: 'keep-sequence'; readonly upTo: number }
  /** Ends as `bid-checked`, in any case. */
  | { readonly type: 'check-bid'; readonly bid: Verified<Message<Bid>>; readonly content: Quote }
  /** Ends as `quote-signed` or `quote-unsigned`. */
  | {
      readonly type: 'sign-quote';
      readonly bid: Verified<Message<Bid>>;
      readonly content: Quote;
      readonly header: SellerHeader;
    }
  /** Ends as `quote-ended` or `quote-expired`, whichever is first. */
  | { readonly type: 'send-quote'; readonly quote: OpenQuote }
  | { readonly type: 'decline'; readonly bid: Verified<Message<Bid>>; readonly reason: MoltError }
  | { readonly type: 'release-quote'; readonly quote: OpenQuote; readonly reason: 'expired' | 'let-go' }
  /** The lease has the quote's capacity until `lease-ended`. */
  | { readonly type: 'take-lease'; readonly quote: OpenQuote; readonly lease: Address }
  | { readonly type: 'refuse-lease'; readonly reason: MoltError }
  | {
      readonly type: 'publish-offer';
      readonly free: Resources;
      readonly revoked: boolean;
      readonly header: SellerHeader;
    }
  /** Ends as `offer-due`. */
  | { readonly type: 'offer-later'; readonly waitMs: number };

export interface SellerDecision {
  readonly state: SellerState;
  readonly effects: readonly SellerEffect[];
}

const QUOTES_OPEN_MAX = 256;
/** Sequence numbers are the clock's milliseconds, so this keeps the disk out of all but one message a minute. */
const SEQUENCES_AHEAD = 60_000;
/** Offers follow changes of capacity, but not faster than admission elsewhere allows an origin. */
const OFFER_MIN_GAP_MS = 5_000;
/** Changes that come together are told together. */
const OFFER_GATHER_MS = 250;

/** A seller that has everything free and trades not yet. */
export function createSeller(
  total: PlainResources,
  start: { readonly gpus: readonly Gpu[]; readonly isDraining: boolean },
): SellerState {
  return {
    capacity: createCapacity(total, start.gpus),
    holdTime: new Map(),
    quotes: new Map(),
    sequence: 0,
    sequenceKept: 0,
    offeredMs: -Infinity,
    offeredFree: undefined,
    isOfferDue: false,
    isDraining: start.isDraining,
    isClosed: false,
  };
}

export function decideSeller(state: SellerState, event: SellerEvent, at: Moment): SellerDecision {
  switch (event.type) {
    case 'opened':
      return offerNow({ ...state, sequence: event.sequence, sequenceKept: event.sequence }, at);
    case 'bid':
      return hearBid(state, event, at);
    case 'bid-checked':
      return takeCheck(state, event, at);
    case 'quote-signed':
      return sendQuote(state, event.quote, at);
    case 'quote-unsigned':
      return nothing(freed(state, event.bid, at));
    case 'quote-ended':
      return releaseQuote(state, event.quote, { at, reason: 'let-go' });
    case 'quote-expired':
      return releaseQuote(state, event.quote, { at, reason: 'expired' });
    case 'quote-accepted':
      return takeLease(state, event, at);
    case 'lease-restored':
      return nothing(withLease(state, event.lease, event));
    case 'lease-funded': {
      const held = state.capacity.reservations.get(event.lease);
      return nothing(held === undefined ? state : fundLease(state, event.lease, { held, at }));
    }
    case 'gpus-withheld': {
      const { withheld } = state.capacity;
      const next = { ...state, capacity: withhold(state.capacity, event.ids) };
      return withheld.symmetricDifference(event.ids).size > 0 ? offerAnew(next, at) : nothing(next);
    }
    case 'lease-ended':
      return offerAnew(freed(state, event.lease, at), at);
    case 'offer-changed':
      return offerAnew(state, at);
    case 'offer-due':
      return offerDue(state, at);
    case 'offer-repeat':
      // Right after another it would use up what peers take of one origin, and a withdrawal would find nobody who hears it.
      return at.monotonicMs - state.offeredMs < OFFER_MIN_GAP_MS ? nothing(state) : offerNow(state, at);
    case 'draining':
      return drain(state, event.on, at);
    case 'closed':
      return publishOffer({ ...state, isClosed: true }, at, true);
    default:
      return event satisfies never;
  }
}

/**
 * A quote that this buyer can accept now. Throws `market/draining` where none can, `market/quote-unknown` for one that is
 * unknown, expired or taken, and `protocol/wrong-signer` for another buyer's.
 */
export function quoteFor(state: SellerState, id: string, buyer: Address, at: Moment): OpenQuote {
  if (state.isDraining) {
    const message = 'the provider finishes its running jobs and takes nothing new; take another quote';
    throw new MoltError('market/draining', message);
  }
  const quote = state.quotes.get(id);
  if (quote === undefined || quote.expiresMs <= at.nowMs) {
    throw new MoltError('market/quote-unknown', 'this quote is unknown here, expired or already accepted; bid again');
  }
  if (quote.buyer !== buyer) throw new MoltError('protocol/wrong-signer', 'this quote was made for another buyer');
  return quote;
}

/** Others than the asked stay silent: not even a refusal is sent. */
function hearBid(state: SellerState, event: SellerEvent & { type: 'bid' }, at: Moment): SellerDecision {
  const { bid, terms } = event;
  if (!isAsked(bid, terms.provider.address)) return nothing(state);
  const decline = (reason: MoltError): SellerDecision => ({ state, effects: [{ type: 'decline', bid, reason }] });
  if (terms.buyer instanceof MoltError) return decline(terms.buyer);
  const answer = answerTo(state, event, at);
  if ('declined' in answer) return decline(answer.declined);
  const content = answer.quote;
  const { capacity, holdTime } = state;
  const { need } = bid.content;
  const hold = holdOf(terms.buyer, { capacity, need, amount: content.amount }, at.nowMs);
  const on = { standing: terms.buyer, capacity, time: holdTime, hasRegulars: terms.hasRegulars };
  const refused = holdRefusal(hold, on, at.nowMs);
  if (refused !== undefined) return decline(refused);
  const expiresMs = at.nowMs + LIMITS.quoteLifetimeMs;
  // Held under the bid's name until the quote has one: signing takes a while, and nothing may slip in between.
  const held = {
    ...state,
    capacity: reserve(capacity, bid.id, { need, stake: content.reserve, expiresMs, hold }, at.nowMs),
    holdTime: beginHold(holdTime, hold, at.nowMs),
  };
  if (terms.needsApproval === true) return { state: held, effects: [{ type: 'check-bid', bid, content }] };
  return signQuote(held, { bid, content }, at);
}

function signQuote(
  state: SellerState,
  { bid, content }: { readonly bid: Verified<Message<Bid>>; readonly content: Quote },
  at: Moment,
): SellerDecision {
  const numbered = nextHeader(state, at, LIMITS.quoteLifetimeMs);
  return {
    state: numbered.state,
    effects: [...numbered.effects, { type: 'sign-quote', bid, content, header: numbered.header }],
  };
}

/** The capacity was held while the check was asked; a check that took longer than the hold approves nothing. */
function takeCheck(state: SellerState, event: SellerEvent & { type: 'bid-checked' }, at: Moment): SellerDecision {
  const { bid, content, refused } = event;
  const hold = state.capacity.reservations.get(bid.id);
  const isHeld = hold !== undefined && (hold.expiresMs ?? Infinity) > at.nowMs;
  if (refused === undefined && isHeld && !state.isDraining && !state.isClosed) {
    return signQuote(state, { bid, content }, at);
  }
  const reason = refused ?? refusal('market/not-approved', "the provider's own check came too late for this bid");
  return { state: freed(state, bid.id, at), effects: [{ type: 'decline', bid, reason }] };
}

function answerTo(state: SellerState, { bid, terms }: SellerEvent & { type: 'bid' }, at: Moment): Answer {
  const { provider, policy, speed, chainNowMs } = terms;
  const freeStake = provider.freeStake - promisedStake(state.capacity, at.nowMs);
  return answerBid({
    bid,
    policy,
    provider: {
      ...provider,
      freeStake: baseUnits(freeStake > 0n ? freeStake : 0n),
      draining: state.isDraining || state.isClosed || state.quotes.size >= QUOTES_OPEN_MAX,
    },
    free: freeResources(state.capacity, at.nowMs),
    utilisation: utilisation(state.capacity, at.nowMs),
    speed,
    warm: terms.warm.map(warmPrefix).includes(bid.content.warm),
    near: terms.near ?? [],
    nowMs: at.nowMs,
    chainNowMs,
  });
}

/** A quote is not sent when its hold ran out, or the provider began to drain, while it was signed. */
function sendQuote(state: SellerState, signed: Omit<OpenQuote, 'gpus'>, at: Moment): SellerDecision {
  if (state.isDraining) return nothing(freed(state, signed.content.bid, at));
  const { id, expiresMs } = signed;
  const capacity = keep(state.capacity, signed.content.bid, { id, expiresMs }, at.nowMs);
  if (capacity === undefined) return nothing(state);
  const quote = { ...signed, gpus: capacity.reservations.get(id)?.gpus ?? [] };
  const offered = offerSoon({ ...state, capacity, quotes: new Map(state.quotes).set(id, quote) }, at);
  return { state: offered.state, effects: [{ type: 'send-quote', quote }, ...offered.effects] };
}

function releaseQuote(
  state: SellerState,
  id: string,
  ended: { readonly at: Moment; readonly reason: 'expired' | 'let-go' },
): SellerDecision {
  const quote = state.quotes.get(id);
  if (quote === undefined) return nothing(state);
  const offered = offerSoon(freed(withoutQuote(state, id), id, ended.at), ended.at);
  return {
    state: offered.state,
    effects: [{ type: 'release-quote', quote, reason: ended.reason }, ...offered.effects],
  };
}

function takeLease(state: SellerState, event: SellerEvent & { type: 'quote-accepted' }, at: Moment): SellerDecision {
  try {
    const quote = quoteFor(state, event.quote, event.buyer, at);
    const capacity = keep(state.capacity, quote.id, { id: event.lease, expiresMs: undefined }, at.nowMs);
    if (capacity === undefined)
      throw new MoltError('market/quote-expired', 'the quote expired a moment ago; bid again');
    return {
      state: { ...withoutQuote(state, quote.id), capacity },
      effects: [{ type: 'take-lease', quote, lease: event.lease }],
    };
  } catch (error) {
    if (!(error instanceof MoltError)) throw error;
    return { state, effects: [{ type: 'refuse-lease', reason: error }] };
  }
}

function withLease(
  state: SellerState,
  lease: Address,
  { need, gpus, stake }: Omit<Reservation, 'expiresMs'>,
): SellerState {
  return { ...state, capacity: restore(state.capacity, lease, { need, gpus, stake, expiresMs: undefined }) };
}

/** The chain has the lease: what it holds is paid for. */
function fundLease(
  state: SellerState,
  lease: Address,
  { held, at }: { readonly held: Reservation; readonly at: Moment },
): SellerState {
  const { hold } = held;
  const holdTime = hold === undefined ? state.holdTime : endHold(state.holdTime, hold, true, at.nowMs);
  return { ...withLease(state, lease, { ...held, stake: 0n }), holdTime };
}

/** Gives back what is set aside under a name; what was held in vain stays counted. */
function freed(state: SellerState, id: string, at: Moment): SellerState {
  const hold = state.capacity.reservations.get(id)?.hold;
  const holdTime = hold === undefined ? state.holdTime : endHold(state.holdTime, hold, false, at.nowMs);
  return { ...state, capacity: release(state.capacity, id), holdTime };
}

function withoutQuote(state: SellerState, id: string): SellerState {
  const quotes = new Map(state.quotes);
  quotes.delete(id);
  return { ...state, quotes };
}

function drain(state: SellerState, on: boolean, at: Moment): SellerDecision {
  if (state.isDraining === on || state.isClosed) return nothing(state);
  const draining = { ...state, isDraining: on };
  if (!on) return offerNow(draining, at);
  const emptied = [...state.quotes.keys()].reduce((left, id) => freed(left, id, at), draining);
  const published = publishOffer({ ...emptied, quotes: new Map() }, at, true);
  const released = [...state.quotes.values()].map(
    (quote) => ({ type: 'release-quote', quote, reason: 'let-go' }) as const,
  );
  return { state: published.state, effects: [...released, ...published.effects] };
}

/** Capacity changed: tell the market, at most once in a while. */
function offerSoon(state: SellerState, at: Moment): SellerDecision {
  if (state.isOfferDue || state.isClosed || state.isDraining) return nothing(state);
  const waitMs = Math.max(OFFER_GATHER_MS, state.offeredMs + OFFER_MIN_GAP_MS - at.monotonicMs);
  return { state: { ...state, isOfferDue: true }, effects: [{ type: 'offer-later', waitMs }] };
}

function offerAnew(state: SellerState, at: Moment): SellerDecision {
  return offerSoon({ ...state, offeredFree: undefined }, at);
}

/**
 * A repetition may have told the change meanwhile; of what changed after that the wait begins with it. Told at once, the
 * two would use up what peers take of one origin, as in `offer-repeat`. Most quotes are let go soon: what they held is free
 * again by now, and every offer costs the whole market work.
 */
function offerDue(state: SellerState, at: Moment): SellerDecision {
  if (!state.isOfferDue) return nothing(state);
  const waited = { ...state, isOfferDue: false };
  if (at.monotonicMs - state.offeredMs < OFFER_MIN_GAP_MS) return offerSoon(waited, at);
  const { offeredFree } = state;
  const isTold = offeredFree !== undefined && isSame(offeredFree, freeResources(state.capacity, at.nowMs));
  return isTold ? nothing(waited) : offerNow(waited, at);
}

function isSame(a: Resources, b: Resources): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function offerNow(state: SellerState, at: Moment): SellerDecision {
  return state.isClosed || state.isDraining ? nothing(state) : publishOffer(state, at, false);
}

function publishOffer(state: SellerState, at: Moment, revoked: boolean): SellerDecision {
  const free = freeResources(state.capacity, at.nowMs);
  const offeredFree = revoked ? undefined : free;
  const told = { ...state, offeredMs: at.monotonicMs, offeredFree, isOfferDue: false };
  const numbered = nextHeader(told, at, LIMITS.offerLifetimeMs);
  return {
    state: numbered.state,
    effects: [...numbered.effects, { type: 'publish-offer', free, revoked, header: numbered.header }],
  };
}

function nextHeader(
  state: SellerState,
  at: Moment,
  lifetimeMs: number,
): SellerDecision & { readonly header: SellerHeader } {
  const sequence = nextSequence(state.sequence, at.nowMs);
  const header = { sequence, issuedMs: at.nowMs, expiresMs: at.nowMs + lifetimeMs };
  if (sequence <= state.sequenceKept) return { state: { ...state, sequence }, effects: [], header };
  const upTo = sequence + SEQUENCES_AHEAD;
  return { state: { ...state, sequence, sequenceKept: upTo }, effects: [{ type: 'keep-sequence', upTo }], header };
}

function nothing(state: SellerState): SellerDecision {
  return { state, effects: [] };
}
