/**
 * The bidder: one job on its way to a provider, as a pure state machine: (state, event) → (state, effects).
 *
 * idle → asking → weighing → trying → leased → over. It asks those whose offers suit, and counts only offers of
 * providers that the chain knows; takes answers until enough have come, ranks what is acceptable, and tries the best; while no money is locked the next quote is the fall-back. A
 * provider that failed this job is out for this job, and after a failure under an open lease it bids again, as often as
 * it may. Contract: it ends in `over`, with `deliver` or with a typed reason in `fail`, and everything that it held is
 * let go then. Events that do not belong to the present phase, or to the present bid, are dropped.
 */
import type { Address } from '../protocol/address.ts';
import type { Verified } from '../protocol/brands.ts';
import { type ErrorCode, MoltError, hasCode } from '../protocol/errors.ts';
import { type JobSpec, featuresOf } from '../protocol/job-spec.ts';
import { LIMITS } from '../protocol/limits.ts';
import {
  type Bid,
  type HardwareTier,
  type Message,
  type Offer,
  type Quote,
  resourceClassOf,
} from '../protocol/messages.ts';
import { type BaseUnits, baseUnits, formatMolt } from '../protocol/units.ts';
import { type MedianLimit, medianCeiling } from './autonomy.ts';
import { distanceCut, isAsked, makeBid, pricePerSecondWithin } from './bid.ts';
import { type HistoryParameters, historyScore } from './history.ts';
import type { Moment } from './moment.ts';
import { LASTING, type OfferJudgement, type Wanted, judgeOffer, wantedOf } from './obstacle.ts';
import { type ProviderOnChain, acceptableQuote } from './quote.ts';
import {
  type Candidate,
  type OwnRanking,
  type ProviderRecord,
  type RankedQuote,
  type Reason,
  type Strategy,
  rank,
  rankedByBuyer,
} from './rank.ts';

export type VerifiedQuote = Verified<Message<Quote>>;

/** What the buyer wants; fixed for the job. */
export interface BidderOrder {
  readonly spec: JobSpec;
  /** The account that pays: providers hold capacity for who can. */
  readonly budget: Address;
  /** Ceiling for the whole job. */
  readonly maxPrice: BaseUnits;
  readonly stakeMin?: BaseUnits;
  /** Stake that must stand behind the lease. Default: what the chain asks for. */
  readonly reserveMin?: BaseUnits;
  /** Bounds the price by what live offers ask; see `medianCeiling`. Default: `maxPrice` alone bounds it. */
  readonly median?: MedianLimit;
  /** Settled history that a provider must have, 0 … 1,000,000. Default 0. */
  readonly historyMin?: number;
  /** Chain time by which the job must be proven. Default: any. */
  readonly finishByMs?: number;
  /** The job must begin within so long after each of its bids. Default: any time. */
  readonly startWithinMs?: number;
  /** The bid names the job's inputs, so that a provider that has them can say so. Default: no. */
  readonly nearData?: boolean;
  /** Least hardware tier. Default A0. */
  readonly hardwareTierMin?: HardwareTier;
  /** Challenge window at least, at most `longestWindowMs`. Default: the provider's own. */
  readonly windowMs?: number;
  /** Where the job must run, as providers say of themselves. Default: anywhere. */
  readonly region?: string;
  /** The region whose offers alone this buyer hears; it says so where there are none. Default: all are heard. */
  readonly followed?: string;
  /** Where it would better run; counts in ranking only. */
  readonly regionWished?: string;
  /** 1 … LIMITS.quotesWanted; default 5. */
  readonly quotesWanted?: number;
  /** With fewer the bid is in vain: the slots that it is for. Those who are slow are waited for until so many are there. Default 1. */
  readonly quotesNeeded?: number;
  /** Longest wait for quotes. Default 2,000, and up to 8,000 more where fewer than needed have come by then. */
  readonly quoteTimeoutMs?: number;
  /** Node keys that are not asked. */
  readonly without?: ReadonlySet<Address>;
  /** Providers to try under an open lease, in all. Default 3. */
  readonly attempts?: number;
  readonly strategy?: Strategy;
  /** The buyer's own order of the quotes, over the strategy's. */
  readonly rank?: OwnRanking;
  /** Share of bids in which the lot decides, 0 … 1; see `rank`. */
  readonly lotShare?: number;
  readonly history?: HistoryParameters;
}

interface Heard {
  readonly quote: VerifiedQuote;
  /** From the bid to the answer: the latency that ranking knows. */
  readonly afterMs: number;
}

interface Able {
  readonly offer: Verified<Message<Offer>>;
  readonly judgement: OfferJudgement;
}

interface Declined {
  readonly node: Address;
  readonly error: MoltError;
}

export interface BidderState {
  readonly order: BidderOrder;
  readonly phase: 'idle' | 'asking' | 'weighing' | 'trying' | 'leased' | 'over';
  /** 1 for the first bid. */
  readonly attempt: number;
  /** Node keys that failed this job. */
  readonly failed: ReadonlySet<Address>;
  /** Why the provider before failed: says more than that nobody is left. */
  readonly earlier: unknown;
  /** The bid that is out; its id is empty until it is signed. */
  readonly bid: { readonly id: string; readonly content: Bid } | undefined;
  /** Live offers that could serve the job, until the chain has said who is behind them. */
  readonly able: readonly Able[];
  /** Whose live offers suit the job. */
  readonly suitable: readonly Verified<Message<Offer>>[];
  /** Those of them that the bid asks. */
  readonly asked: ReadonlySet<Address>;
  /** Where those that were asked say to be. */
  readonly regions: ReadonlyMap<Address, string>;
  readonly startedMs: number;
  /** The time for quotes was over with fewer than needed, and became longer. */
  readonly isPatient: boolean;
  readonly heard: ReadonlySet<Address>;
  readonly quotes: readonly Heard[];
  readonly declines: readonly Declined[];
  /** What is left to try, best first; the head is being tried. */
  readonly ranked: readonly RankedQuote[];
}

/** What the chain says when quotes are weighed. */
export interface BidderFacts {
  /** Free in the budget, and the most that it leases at once. */
  readonly budget: { readonly free: bigint; readonly capPerLease: bigint };
  /** By provider account; why it could not be read where it could not. */
  readonly accounts: ReadonlyMap<Address, (ProviderRecord & ProviderOnChain) | MoltError>;
  readonly chainNowMs: number;
  /** Random numbers in [0, 1), one per quote. */
  readonly draws: readonly number[];
}

export type BidderEvent =
  /** The offers heard of the job's resource class, of `bookSize` in all, from `peers`. */
  | {
      readonly type: 'begin';
      readonly offers: readonly Verified<Message<Offer>>[];
      readonly bookSize: number;
      readonly peers: number;
      readonly addresses: readonly string[];
    }
  /** Of `checked` offers, drawn by chance where not all were, these signers are operators of the providers they name. */
  | { readonly type: 'offers-checked'; readonly checked: number; readonly genuine: ReadonlySet<Address> }
  | { readonly type: 'bid-signed'; readonly bid: string }
  /** An answer of `node` on a stream that the shell numbered; `answer` was checked to be signed by `node`. */
  | {
      readonly type: 'answered';
      readonly stream: number;
      readonly node: Address;
      readonly bid: string;
      readonly answer: VerifiedQuote | MoltError;
    }
  | { readonly type: 'time-up'; readonly bid: string }
  | { readonly type: 'weighed'; readonly bid: string; readonly facts: BidderFacts }
  /** The money is locked with the quote that is being tried. */
  | { readonly type: 'lease-opened' }
  | { readonly type: 'delivered' }
  /** The try of the present quote ended without a result. */
  | { readonly type: 'try-failed'; readonly error: unknown; readonly cancelled: boolean }
  /** The bid could not be signed, sent or weighed. */
  | { readonly type: 'failed'; readonly error: unknown }
  /** The buyer no longer wants the job. While a quote is tried, its end says what came of it. */
  | { readonly type: 'cancelled'; readonly error: unknown };

/** What a person following the job is told. */
export type BidderNews =
  /** What was heard, for what; `judged` are the nearest of them, at most a few dozen. */
  | {
      readonly type: 'offers';
      readonly count: number;
      readonly judged: readonly OfferJudgement[];
      readonly wanted: Wanted;
    }
  | {
      readonly type: 'bid';
      readonly bid: string;
      readonly pricePerSecondMax: BaseUnits;
      readonly attempt: number;
      /** Nodes whose live offers suit and that the bid asks. */
      readonly asked: readonly Address[];
    }
  | {
      readonly type: 'quote';
      readonly provider: Address;
      readonly node: Address;
      readonly pricePerSecond: BaseUnits;
      readonly amount: BaseUnits;
      readonly afterMs: number;
    }
  | {
      readonly type: 'declined';
      readonly node: Address;
      readonly code: ErrorCode;
      readonly reason: string;
      /** What would have been taken, decimal; see `refusal`. */
      readonly enough?: string;
    }
  | {
      readonly type: 'ranked';
      readonly quotes: readonly {
        readonly provider: Address;
        readonly node: Address;
        readonly pricePerSecond: BaseUnits;
        readonly score: number;
        readonly reasons: readonly Reason[];
      }[];
    }
  | {
      readonly type: 'provider-failed';
      readonly node: Address;
      readonly code: ErrorCode;
      readonly reason: string;
      readonly retrying: boolean;
    };

export type BidderEffect =
  | { readonly type: 'tell'; readonly news: BidderNews }
  /** Ends as `offers-checked` or `failed`. */
  | { readonly type: 'check-offers'; readonly offers: readonly Verified<Message<Offer>>[] }
  /** Ends as `bid-signed` or `failed`. */
  | { readonly type: 'sign-bid'; readonly content: Bid }
  /** Answers are taken from now on. Ends as `failed` or says nothing. */
  | { readonly type: 'publish-bid'; readonly bid: string }
  /** Ends as `time-up`. */
  | { readonly type: 'wait'; readonly bid: string; readonly ms: number }
  /** This provider's account will be asked for by `weigh`. */
  | { readonly type: 'look-ahead'; readonly provider: Address }
  /** This answer is of no use, or was a refusal: its stream is closed. */
  | { readonly type: 'let-go'; readonly stream: number }
  /** Every stream of this bid is closed, so that the capacity behind it is free again. */
  | { readonly type: 'let-all-go'; readonly bid: string }
  /** Ends as `weighed` or `failed`. */
  | { readonly type: 'weigh'; readonly bid: string; readonly providers: readonly Address[] }
  /** Ends as `try-failed`, or as `lease-opened` and then `delivered` or `try-failed`. */
  | { readonly type: 'try'; readonly quote: VerifiedQuote; readonly attempt: number }
  /** Ends as `begin`. */
  | { readonly type: 'gather-offers' }
  | { readonly type: 'deliver' }
  | { readonly type: 'fail'; readonly error: unknown };

export interface BidderDecision {
  readonly state: BidderState;
  readonly effects: readonly BidderEffect[];
}

const QUOTE_TIMEOUT_MS = 2_000;
/** Where too few quotes came by then: a market that is slow today is better waited for than given up. */
const TOO_FEW_MS = 8_000;
const ATTEMPTS = 3;
/** Once as many quotes as needed are there, slower providers get this long, and a little more for each that was asked. */
const STRAGGLER_MS = 250;
const STRAGGLER_PER_ASKED_MS = 25;
/** Offers that a record keeps, and more obstacles than one can have. */
const JUDGED_MAX = 64;
const OBSTACLES_MAX = 16;
/** Strangers' answers that are listened to; those whom the bid asks are always heard. */
const STRANGERS_MAX = LIMITS.quotesWanted;

/** A job that nobody was asked for yet; the first effect is to `gather-offers`. */
export function createBidder(order: BidderOrder): BidderDecision {
  return {
    state: freshBid(order, { attempt: 1, failed: new Set(order.without), earlier: undefined }),
    effects: [gatherOffers],
  };
}

const gatherOffers: BidderEffect = { type: 'gather-offers' };

export function decideBidder(state: BidderState, event: BidderEvent, at: Moment): BidderDecision {
  if ('bid' in event && event.type !== 'bid-signed' && event.bid !== state.bid?.id) {
    return event.type === 'answered' ? { state, effects: [{ type: 'let-go', stream: event.stream }] } : nothing(state);
  }
  const row: Handlers = TABLE[state.phase];
  // The row's handler takes exactly the events of its own name.
  const handler = row[event.type] as
    | ((state: BidderState, event: BidderEvent, at: Moment) => BidderDecision)
    | undefined;
  if (handler !== undefined) return handler(state, event, at);
  return event.type === 'answered' ? { state, effects: [{ type: 'let-go', stream: event.stream }] } : nothing(state);
}

type Of<Type extends BidderEvent['type']> = Extract<BidderEvent, { readonly type: Type }>;
type Handlers = {
  readonly [Type in BidderEvent['type']]?: (state: BidderState, event: Of<Type>, at: Moment) => BidderDecision;
};

/** Phase × event → what happens. What is not here is dropped. */
const TABLE: Readonly<Record<BidderState['phase'], Handlers>> = {
  idle: {
    begin: beginBid,
    'offers-checked': chooseAsked,
    'bid-signed': startAsking,
    failed: failBid,
    cancelled: failBid,
  },
  asking: { answered: takeAnswer, 'time-up': endAsking, failed: failBid, cancelled: failBid },
  weighing: { weighed: rankQuotes, failed: failBid, cancelled: failBid },
  trying: { 'lease-opened': takeLease, 'try-failed': failTry, delivered: deliver },
  leased: { 'try-failed': failTry, delivered: deliver },
  over: {},
};

function freshBid(order: BidderOrder, on: Pick<BidderState, 'attempt' | 'failed' | 'earlier'>): BidderState {
  return {
    ...on,
    order,
    phase: 'idle',
    bid: undefined,
    able: [],
    suitable: [],
    asked: new Set(),
    regions: new Map(),
    startedMs: 0,
    isPatient: false,
    heard: new Set(),
    quotes: [],
    declines: [],
    ranked: [],
  };
}

function beginBid(state: BidderState, event: Of<'begin'>, at: Moment): BidderDecision {
  const { order, failed } = state;
  let content: Bid;
  try {
    content = bidFor(order, event.addresses, at.nowMs);
  } catch (error) {
    if (!(error instanceof MoltError)) throw error;
    return failBid(state, { error });
  }
  const wanted = order.followed === undefined ? wantedOf(content) : { ...wantedOf(content), followed: order.followed };
  // The book drops what expired only now and then.
  const live = event.offers.filter(({ expiresMs }) => expiresMs > at.nowMs);
  const judged = live.map((offer) => ({ offer, judgement: judgeOffer(offer, wanted, failed) }));
  const told: BidderEffect = {
    type: 'tell',
    news: { type: 'offers', count: event.bookSize, judged: nearest(judged.map(({ judgement }) => judgement)), wanted },
  };
  const able = judged.filter(({ judgement }) => isAble(judgement));
  if (able.length === 0) {
    const spent = judged.filter(({ judgement: { obstacles } }) => isAble({ obstacles, failedBefore: false })).length;
    const why = spent === 0 ? noOffers(state, event) : allSpent(event.bookSize, spent);
    const error = new MoltError('market/no-offers', why, { offers: event.bookSize });
    return withFirst(told, failBid(state, { error }));
  }
  return {
    state: { ...state, able, bid: { id: '', content } },
    effects: [told, { type: 'check-offers', offers: able.map(({ offer }) => offer) }],
  };
}

function bidFor(order: BidderOrder, addresses: readonly string[], nowMs: number): Bid {
  const { spec } = order;
  return makeBid({
    spec,
    budget: order.budget,
    pricePerSecondMax: pricePerSecondWithin(order.maxPrice, spec.maxDurationSeconds),
    bookSize: 0,
    addresses,
    ...(order.region === undefined ? {} : { region: order.region }),
    ...(order.quotesWanted === undefined ? {} : { quotesWanted: order.quotesWanted }),
    ...(order.stakeMin === undefined ? {} : { stakeMin: order.stakeMin }),
    ...(order.reserveMin === undefined ? {} : { reserveMin: order.reserveMin }),
    ...(order.finishByMs === undefined ? {} : { finishByMs: order.finishByMs }),
    ...(order.startWithinMs === undefined ? {} : { startByMs: nowMs + order.startWithinMs }),
    ...(order.nearData === undefined ? {} : { nearData: order.nearData }),
    ...(order.hardwareTierMin === undefined ? {} : { hardwareTierMin: order.hardwareTierMin }),
    ...(order.windowMs === undefined ? {} : { windowMs: order.windowMs }),
  });
}

/**
 * Whether one of these offers could do the order's job at all, now or later: until then a buyer that has only just joined
 * does well to hear more of the market. An order that no bid can be made of is not waited for either.
 */
export function couldBeServed(order: BidderOrder, offers: readonly Message<Offer>[], nowMs: number): boolean {
  try {
    const wanted = wantedOf(bidFor(order, [], nowMs));
    return offers.some((offer) => isAble(judgeOffer(offer, wanted, order.without ?? new Set())));
  } catch {
    return true;
  }
}

/** The offers of those that say they could do the order's job at this moment and at this price. */
export function thoseWithRoom<Heard extends Message<Offer>>(
  order: BidderOrder,
  offers: readonly Heard[],
  nowMs: number,
): readonly Heard[] {
  const wanted = wantedOf(bidFor(order, [], nowMs));
  return offers.filter((offer) => {
    const { obstacles, failedBefore } = judgeOffer(offer, wanted, order.without ?? new Set());
    return offer.expiresMs > nowMs && obstacles.length === 0 && !failedBefore;
  });
}

/** The job ended with its first bid, to which nobody answered but with a no, or with a quote that cannot be taken. */
export function isTakenByNobody({ phase, attempt, bid, heard, declines }: BidderState): boolean {
  return phase === 'over' && attempt === 1 && bid !== undefined && bid.id !== '' && declines.length === heard.size;
}

function isAble({ obstacles, failedBefore }: Pick<OfferJudgement, 'obstacles' | 'failedBefore'>): boolean {
  return !failedBefore && !obstacles.some(({ what }) => LASTING.has(what));
}

/**
 * Invented offers cost nothing: they neither make the price nor the number of those who are asked. Where nobody is behind
 * any of them the bid asks everybody all the same: who was kept from the book hears the bid.
 */
function chooseAsked(state: BidderState, { checked, genuine }: Of<'offers-checked'>): BidderDecision {
  const { order, able, bid } = state;
  if (bid === undefined) return nothing(state);
  const vouched = able.filter(({ offer }) => genuine.has(offer.signer));
  const isWhole = checked >= able.length;
  let ceiling: bigint = bid.content.pricePerSecondMax;
  try {
    const asks = vouched.map(({ judgement }) => BigInt(judgement.pricePerSecond));
    const going = order.median === undefined ? ceiling : medianCeiling(order.median, asks);
    if (going < ceiling) ceiling = going;
  } catch (error) {
    if (!(error instanceof MoltError)) throw error;
    return failBid(state, { error });
  }
  const candidates = isWhole ? vouched : able;
  // An offer may be some seconds old: when none fits, those who could are asked all the same and say it firmly.
  const fitting = candidates.filter(
    ({ judgement }) => judgement.obstacles.length === 0 && BigInt(judgement.pricePerSecond) <= ceiling,
  );
  const suitable = (fitting.length > 0 ? fitting : candidates).map(({ offer }) => offer);
  const known = isWhole ? suitable.length : leastShare(vouched.length, checked) * suitable.length;
  const content = {
    ...bid.content,
    pricePerSecondMax: baseUnits(ceiling),
    distanceMax: distanceCut(bid.content.quotesWanted, Math.floor(known)),
  };
  return {
    state: { ...state, able: [], suitable, bid: { id: '', content } },
    effects: [{ type: 'sign-bid', content }],
  };
}

/** The share that a sample leaves no doubt about: two standard deviations below what it shows. */
function leastShare(found: number, of: number): number {
  return of === 0 ? 0 : Math.max(0, found - 2 * Math.sqrt(found)) / of;
}

/** Those with the fewest obstacles, as many as a record keeps. */
function nearest(judged: readonly OfferJudgement[]): readonly OfferJudgement[] {
  if (judged.length <= JUDGED_MAX) return judged;
  const kept: OfferJudgement[] = [];
  for (let obstacles = 0; kept.length < JUDGED_MAX && obstacles < OBSTACLES_MAX; obstacles++) {
    const room = JUDGED_MAX - kept.length;
    kept.push(...judged.filter((judgement) => judgement.obstacles.length === obstacles).slice(0, room));
  }
  return kept;
}

function startAsking(state: BidderState, event: Of<'bid-signed'>, at: Moment): BidderDecision {
  if (state.bid === undefined) return nothing(state);
  const bid = { ...state.bid, id: event.bid };
  const asked = new Set(
    state.suitable.filter(({ content }) => isAsked(bid, content.provider)).map(({ signer }) => signer),
  );
  const { pricePerSecondMax } = bid.content;
  const regions = new Map(
    state.suitable.filter(({ signer }) => asked.has(signer)).map(({ signer, content }) => [signer, content.region]),
  );
  return {
    state: { ...state, phase: 'asking', bid, asked, regions, startedMs: at.monotonicMs, suitable: [] },
    effects: [
      { type: 'publish-bid', bid: bid.id },
      { type: 'wait', bid: bid.id, ms: state.order.quoteTimeoutMs ?? QUOTE_TIMEOUT_MS },
      {
        type: 'tell',
        news: { type: 'bid', bid: bid.id, pricePerSecondMax, attempt: state.attempt, asked: [...asked] },
      },
    ],
  };
}

function takeAnswer(state: BidderState, { stream, node, answer }: Of<'answered'>, at: Moment): BidderDecision {
  const { heard, asked, failed, bid } = state;
  const strangers = heard.size - [...heard].filter((one) => asked.has(one)).length;
  const isWelcome = !heard.has(node) && !failed.has(node) && (asked.has(node) || strangers < STRANGERS_MAX);
  // A provider that failed this job hears the bid like everybody; its answer neither counts nor keeps its capacity.
  if (!isWelcome || bid === undefined) return { state, effects: [{ type: 'let-go', stream }] };
  const listening = { ...state, heard: new Set(heard).add(node) };
  const unfit = answer instanceof MoltError ? answer : strangersQuote(answer, bid);
  if (unfit !== undefined) {
    const noted = { ...listening, declines: [...state.declines, { node, error: unfit }] };
    return addFirst([tellDeclined(node, unfit), { type: 'let-go', stream }], whenComplete(noted));
  }
  const quote = answer as VerifiedQuote;
  const afterMs = at.monotonicMs - state.startedMs;
  const { provider, pricePerSecond, amount } = quote.content;
  const effects: readonly BidderEffect[] = [
    { type: 'look-ahead', provider },
    { type: 'tell', news: { type: 'quote', provider, node, pricePerSecond, amount, afterMs } },
  ];
  const quotes = [...state.quotes, { quote, afterMs }];
  const next = whenComplete({ ...listening, quotes });
  if (next.state.phase !== 'asking' || quotes.length !== neededBy(state)) return addFirst(effects, next);
  // The more were asked and the later these answered, the longer the others are worth waiting for.
  const ms = Math.max(STRAGGLER_MS + STRAGGLER_PER_ASKED_MS * asked.size, Math.min(3 * afterMs, QUOTE_TIMEOUT_MS));
  return addFirst([...effects, { type: 'wait', bid: bid.id, ms }], next);
}

/** Who answers without being asked would make a bid cost as many answers as there are strangers. */
function strangersQuote({ content }: VerifiedQuote, bid: { id: string; content: Bid }): MoltError | undefined {
  if (isAsked(bid, content.provider)) return undefined;
  return new MoltError('market/quote-unacceptable', `the bid did not ask ${content.provider}; its quote is refused`);
}

/** All that were asked have answered, or as many quotes as are wanted are there. */
function whenComplete(state: BidderState): BidderDecision {
  const all = state.asked.size > 0 && [...state.asked].every((node) => state.heard.has(node));
  const wanted = state.bid?.content.quotesWanted ?? Infinity;
  return all || state.quotes.length >= wanted ? weigh(state) : nothing(state);
}

/** Some of those who were asked said nothing: where too few quoted, they have longer, unless the buyer set the time himself. */
function endAsking(state: BidderState): BidderDecision {
  const { order, bid, quotes, asked, isPatient } = state;
  const isFirm = isPatient || order.quoteTimeoutMs !== undefined || asked.size === 0;
  if (isFirm || quotes.length >= neededBy(state) || bid === undefined) return weigh(state);
  return { state: { ...state, isPatient: true }, effects: [{ type: 'wait', bid: bid.id, ms: TOO_FEW_MS }] };
}

function neededBy({ order }: BidderState): number {
  return order.quotesNeeded ?? 1;
}

function weigh(state: BidderState): BidderDecision {
  const providers = [...new Set(state.quotes.map(({ quote }) => quote.content.provider))];
  return {
    state: { ...state, phase: 'weighing' },
    effects: [{ type: 'weigh', bid: state.bid?.id ?? '', providers }],
  };
}

function rankQuotes(state: BidderState, { facts }: Of<'weighed'>, at: Moment): BidderDecision {
  const { order, bid } = state;
  if (bid === undefined) return nothing(state);
  const candidates: Candidate[] = [];
  const declines = [...state.declines];
  const effects: BidderEffect[] = [];
  for (const [index, heard] of state.quotes.entries()) {
    try {
      const draw = facts.draws[index] ?? 0;
      const region = state.regions.get(heard.quote.signer) ?? '';
      const candidate = candidateOf(heard, { bid, facts, at, draw });
      assertHistory(candidate, order);
      candidates.push({ ...candidate, region });
    } catch (error) {
      if (!(error instanceof MoltError)) throw error;
      declines.push({ node: heard.quote.signer, error });
      effects.push(tellDeclined(heard.quote.signer, error));
    }
  }
  let ranked: readonly RankedQuote[];
  try {
    ranked = orderOf(order, bid.content, candidates);
  } catch (error) {
    if (!(error instanceof MoltError)) throw error;
    return addFirst(effects, end({ ...state, declines }, error));
  }
  const next = { ...state, phase: 'trying', declines, ranked } as const;
  if (ranked.length === 0) {
    const error = candidates.length === 0 ? noQuotes(declines) : noneTaken(candidates.length);
    return addFirst(effects, failBid(next, { error }));
  }
  const news = { type: 'ranked', quotes: ranked.map(newsOfRanked) } as const;
  return addFirst([...effects, { type: 'tell', news }], tryBest(next, at));
}

/** Throws `market/ranking-failed`. */
function orderOf(order: BidderOrder, bid: Bid, candidates: readonly Candidate[]): readonly RankedQuote[] {
  const { strategy, history, lotShare, regionWished } = order;
  const ranked = rank({
    bid,
    candidates,
    ...(strategy === undefined ? {} : { strategy }),
    ...(history === undefined ? {} : { history }),
    ...(regionWished === undefined ? {} : { regionWished }),
    // Who orders by himself wants no lot beside it.
    ...(order.rank !== undefined ? { lotShare: 0 } : lotShare === undefined ? {} : { lotShare }),
  });
  return order.rank === undefined ? ranked : rankedByBuyer(bid, ranked, order.rank);
}

function noneTaken(count: number): MoltError {
  const quotes = count === 1 ? 'the one quote' : `any of the ${count} quotes`;
  return new MoltError('market/no-quotes', `the buyer's own ranking does not take ${quotes}`);
}

/** Throws what speaks against the quote. */
function candidateOf(
  { quote, afterMs }: Heard,
  on: { bid: { id: string; content: Bid }; facts: BidderFacts; at: Moment; draw: number },
): Candidate {
  const { facts, at, bid, draw } = on;
  const account = facts.accounts.get(quote.content.provider);
  if (account instanceof MoltError) throw account;
  if (account === undefined) {
    const missing = `the quote names a provider ${quote.content.provider} that is not on this chain`;
    throw new MoltError('chain/account-missing', missing);
  }
  acceptableQuote({ quote, bid, provider: account, nowMs: at.nowMs, chainNowMs: facts.chainNowMs });
  assertAffordable(quote, facts.budget);
  return { quote, account, latencyMs: afterMs, failedBefore: false, draw };
}

function assertHistory({ account, quote }: Candidate, { historyMin = 0, history }: BidderOrder): void {
  const score = historyScore(account, history);
  if (score >= BigInt(historyMin)) return;
  const [has, wanted] = [Number(score) / 1e6, historyMin / 1e6];
  throw new MoltError(
    'market/quote-unacceptable',
    `the settled history of ${quote.content.provider} scores ${has.toFixed(2)}, ${wanted.toFixed(2)} is wanted`,
  );
}

function assertAffordable({ content }: VerifiedQuote, { free, capPerLease }: BidderFacts['budget']): void {
  const limit = free < capPerLease ? free : capPerLease;
  if (content.amount <= limit) return;
  const what =
    free === limit
      ? `the budget has ${formatMolt(free)} free; deposit more`
      : `the budget leases at most ${formatMolt(limit)} at once; raise its cap`;
  throw new MoltError(
    'chain/budget-empty',
    `the quote locks ${formatMolt(content.amount)}, ${what}, or shorten the job's maximum duration`,
  );
}

/** Tries the head of what is ranked; quotes that ran out meanwhile are nobody's fault and are passed over. */
function tryBest(state: BidderState, at: Moment): BidderDecision {
  const ranked = state.ranked.filter(({ quote }) => quote.expiresMs > at.nowMs);
  const [best] = ranked;
  if (best === undefined) {
    const error = new MoltError('market/quote-expired', 'every quote expired before it could be accepted; bid again');
    return bidAgain(state, error);
  }
  return {
    state: { ...state, phase: 'trying', ranked },
    effects: [{ type: 'try', quote: best.quote, attempt: state.attempt }],
  };
}

function takeLease(state: BidderState): BidderDecision {
  // The others get their capacity back as soon as one is bound.
  return { state: { ...state, phase: 'leased' }, effects: letAllGo(state) };
}

function deliver(state: BidderState): BidderDecision {
  return { state: { ...state, phase: 'over' }, effects: [...letAllGo(state), { type: 'deliver' }] };
}

function failTry(state: BidderState, { error, cancelled }: Of<'try-failed'>, at: Moment): BidderDecision {
  const [tried, ...rest] = state.ranked;
  if (tried === undefined) return nothing(state);
  if (cancelled) {
    const again = mayBidAgain(state) && isWorthRetrying(error);
    const ended = again ? new MoltError('job/cancelled', 'the job was cancelled', {}, { cause: error }) : error;
    return end(state, ended);
  }
  const node = tried.quote.signer;
  const next = { ...state, failed: new Set(state.failed).add(node), ranked: rest };
  const hasFallBack = state.phase === 'trying' && rest.length > 0;
  const retrying = isWorthRetrying(error) && (hasFallBack || mayBidAgain(state));
  const code = error instanceof MoltError ? error.code : 'job/provider-lost';
  const reason = error instanceof Error ? error.message : String(error);
  const told: BidderEffect = { type: 'tell', news: { type: 'provider-failed', node, code, reason, retrying } };
  if (!retrying) return withFirst(told, end(next, error));
  return withFirst(told, hasFallBack ? tryBest(next, at) : bidAgain(next, error));
}

function bidAgain(state: BidderState, error: unknown): BidderDecision {
  if (!mayBidAgain(state)) return end(state, error);
  const on = { attempt: state.attempt + 1, failed: state.failed, earlier: error };
  return { state: freshBid(state.order, on), effects: [...letAllGo(state), gatherOffers] };
}

function mayBidAgain({ attempt, order }: BidderState): boolean {
  return attempt < (order.attempts ?? ATTEMPTS);
}

/** Another provider can help unless the fault is the buyer's own. */
export function isWorthRetrying(error: unknown): boolean {
  return error instanceof MoltError && error.blame !== 'user' && error.code !== 'node/stopped';
}

/** When nobody is left to try, why the last provider failed says more than that nobody is left. */
function failBid(state: BidderState, { error }: { readonly error: unknown }): BidderDecision {
  const { earlier } = state;
  if (!(error instanceof MoltError) || !(earlier instanceof MoltError)) return end(state, error);
  const message = `${earlier.message}; and no other provider takes the job: ${error.message}`;
  return end(state, new MoltError(earlier.code, message, earlier.context, { cause: earlier }));
}

function end(state: BidderState, error: unknown): BidderDecision {
  return { state: { ...state, phase: 'over' }, effects: [...letAllGo(state), { type: 'fail', error }] };
}

function letAllGo({ bid }: BidderState): readonly BidderEffect[] {
  return bid === undefined || bid.id === '' ? [] : [{ type: 'let-all-go', bid: bid.id }];
}

function tellDeclined(node: Address, { code, message, context }: MoltError): BidderEffect {
  const enough = context['enough'] === undefined ? {} : { enough: String(context['enough']) };
  return { type: 'tell', news: { type: 'declined', node, code, reason: message, ...enough } };
}

function newsOfRanked({ quote, score, reasons }: RankedQuote): (BidderNews & { type: 'ranked' })['quotes'][number] {
  const { provider, pricePerSecond } = quote.content;
  return { provider, node: quote.signer, pricePerSecond, score, reasons };
}

/** The refusal that most providers gave decides the code; all of them are in the text. */
function noQuotes(declines: readonly Declined[]): MoltError {
  const [first] = declines;
  if (first === undefined) {
    return new MoltError(
      'market/no-quotes',
      'no provider answered the bid in time; try again, molt explain tells why no offer was used',
    );
  }
  const texts = declines.map(({ node, error }) => `${node.slice(0, 8)}: ${error.message}`);
  const isFull = declines.some(({ error }) => hasCode(error, 'market/no-capacity'));
  const isSame = declines.every(({ error }) => error.code === first.error.code);
  const code = isSame ? first.error.code : isFull ? 'market/no-capacity' : 'market/no-quotes';
  return new MoltError(code, `no provider takes this job now. ${texts.join('; ')}`, { declined: declines.length });
}

/** `spent` could do the job, were it not for what they did of it. */
function allSpent(bookSize: number, spent: number): string {
  const who = spent === 1 ? 'the one that could do this job has' : `the ${spent} that could do this job have`;
  return `${heard(bookSize)}; ${who} a part in it already, or failed it`;
}

function heard(bookSize: number): string {
  return bookSize === 1 ? '1 offer was heard' : `${bookSize} offers were heard`;
}

function noOffers({ order }: BidderState, { bookSize, peers }: Of<'begin'>): string {
  const { followed } = order;
  if (bookSize === 0) {
    const where = followed === undefined ? '' : ` of region ${followed}, the only one that is followed,`;
    const check =
      followed === undefined ? 'that a provider is up' : 'that a provider of it is up, or follow all regions';
    return `no live offer${where} was heard from ${peers} peers; check the bootstrap addresses, and ${check}`;
  }
  const features = featuresOf(order.spec);
  const beyond = features.length === 0 ? '' : ` with ${features.join(' and ')}`;
  const isElsewhere = followed !== undefined && order.region !== followed;
  const only = isElsewhere ? `, and only offers of region ${followed} are followed` : '';
  const there = order.region === undefined || order.region === '' ? '' : ` in region ${order.region}${only}`;
  const { hardwareTierMin: tier = 'A0' } = order;
  const shown = tier === 'A0' ? '' : ` on hardware of tier ${tier}`;
  return `${heard(bookSize)}, none sells the ${order.spec.runtime} runtime${beyond} for ${resourceClassOf(order.spec.resources)} jobs${there}${shown}`;
}

function nothing(state: BidderState): BidderDecision {
  return { state, effects: [] };
}

function withFirst(effect: BidderEffect, decision: BidderDecision): BidderDecision {
  return addFirst([effect], decision);
}

function addFirst(effects: readonly BidderEffect[], { state, effects: rest }: BidderDecision): BidderDecision {
  return { state, effects: [...effects, ...rest] };
}
