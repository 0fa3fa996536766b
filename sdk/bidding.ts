/**
 * The buyer's end of the market: the shell around `market/bidder.ts`. Publishes bids, keeps the quotes that come, reads the
 * chain, and has the quotes tried that the machine picks.
 *
 * A quote is held while it may still be accepted; letting it go tells the provider that its capacity is free again. The
 * machine says when.
 */
import {
  type BidRecord,
  type BidderEffect,
  type BidderEvent,
  type BidderFacts,
  type BidderNews,
  type BidderOrder,
  type BidderState,
  type HistoryParameters,
  type SeveralPlaces,
  type VerifiedQuote,
  couldBeServed,
  createBidder,
  decideBidder,
  endRecord,
  isTakenByNobody,
  nextSequence,
  recordNews,
  thoseWithRoom,
} from '../market/index.ts';
import type { BudgetAccount } from '../chain/index.ts';
import type { Address } from '../protocol/address.ts';
import { type Envelope, decodeEnvelope, sealEnvelope, verifyEnvelope } from '../protocol/envelope.ts';
import { MoltError } from '../protocol/errors.ts';
import { LIMITS } from '../protocol/limits.ts';
import { type Bid, type Message, type Offer, decodeQuote, encodeBid, resourceClassOf } from '../protocol/messages.ts';
import { BASE_UNITS_PER_MOLT } from '../protocol/units.ts';
import { bidsTopic, fromRefusal } from '../protocol/wire.ts';
import type { Answer } from './answers.ts';
import type { Buyer } from './buyer.ts';
import type { JobEvent } from './progress.ts';

/**
 * One quote, tried from opening its lease to the result. `tell` hears `lease-opened` when the money is locked; `ranked` is
 * everything that can be tried, this quote first.
 */
export type Attempt<Result> = (
  quote: VerifiedQuote,
  attempt: number,
  tell: (event: JobEvent) => void,
  ranked: readonly VerifiedQuote[],
) => Promise<Result>;

export interface BiddingOptions<Result> {
  readonly order: BidderOrder;
  readonly attempt: Attempt<Result>;
  readonly tell: (event: JobEvent) => void;
  readonly signal: AbortSignal;
  /** Of a bid for several at once: who has a place now, for the record. */
  readonly several?: () => SeveralPlaces;
}

const OFFERS_WAIT_MS = 5_000;
/** Where none of the offers heard is of use: how long others are waited for, and how often they are looked through. */
const MORE_OFFERS_MS = 1_500;
const MORE_OFFERS_POLL_MS = 100;
/** For so long after it connected a buyer may know few of those who sell. */
const NEWCOMER_MS = 15_000;

/**
 * Finds providers for a job until one delivers. Throws `market/no-offers`, `market/no-quotes` (with every refusal heard),
 * `market/no-capacity`, `job/cancelled`, and what the last attempt throws. Where nobody takes the first bid, and a provider
 * with room is heard of that the bid was not made for, it is made once more.
 */
export async function buyJob<Result>(buyer: Buyer, options: BiddingOptions<Result>): Promise<Result> {
  const bidding = new Bidding(buyer, options);
  try {
    return await bidding.result;
  } catch (error) {
    if (!(await bidding.hearsOfAnother())) throw error;
  }
  return new Bidding(buyer, options).result;
}

class Bidding<Result> {
  readonly result: Promise<Result>;
  readonly #buyer: Buyer;
  readonly #options: BiddingOptions<Result>;
  readonly #end: PromiseWithResolvers<Result> = Promise.withResolvers<Result>();
  /** Answers whose quotes may still be accepted, by a number of ours. */
  readonly #held = new Map<number, Answer>();
  #state: BidderState;
  #answers = 0;
  /** Of the bid that is out. */
  #envelope: Envelope | undefined;
  #budget: Promise<BudgetAccount> | undefined;
  #stopListening: () => void = () => undefined;
  #waiting = new AbortController();
  /** Quotes that are being let go; the result waits for them. */
  #closing: Promise<unknown> = Promise.resolve();
  #delivered: { readonly result: Result } | undefined;
  /** Of the bid that is out, or was last. */
  #record: BidRecord | undefined;
  /** What it was made of; empty once somebody takes it. */
  #offers: ReturnType<Buyer['feed']['book']['list']> = [];

  constructor(buyer: Buyer, options: BiddingOptions<Result>) {
    this.#buyer = buyer;
    this.#options = options;
    const { signal } = options;
    const onAbort = (): void => this.#dispatch({ type: 'cancelled', error: cancelledBy(signal) });
    this.result = this.#end.promise.finally(() => signal.removeEventListener('abort', onAbort));
    const { state, effects } = createBidder(options.order);
    this.#state = state;
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
    else this.#performAll(effects);
  }

  /** Nobody took its first bid, and another provider says to have room now: a newcomer waits for one a little. */
  async hearsOfAnother(): Promise<boolean> {
    const { env, joinedMs } = this.#buyer;
    const { order, signal } = this.#options;
    const { clock } = env;
    if (signal.aborted || !isTakenByNobody(this.#state)) return false;
    const endMs = Math.min(clock.monotonic() + MORE_OFFERS_MS, joinedMs + NEWCOMER_MS);
    const asked = new Set(thoseWithRoom(order, this.#offers, clock.now()).map(({ signer }) => signer));
    this.#offers = [];
    for (;;) {
      if (thoseWithRoom(order, this.#heardOffers(), clock.now()).some(({ signer }) => !asked.has(signer))) return true;
      if (clock.monotonic() >= endMs) return false;
      await clock.sleep(MORE_OFFERS_POLL_MS, signal).catch(() => {
        throw cancelledBy(signal);
      });
    }
  }

  #dispatch(event: BidderEvent): void {
    const { env } = this.#buyer;
    const at = { nowMs: env.clock.now(), monotonicMs: env.clock.monotonic() };
    const { state, effects } = decideBidder(this.#state, event, at);
    this.#state = state;
    this.#performAll(effects);
  }

  #performAll(effects: readonly BidderEffect[]): void {
    for (const effect of effects) this.#perform(effect);
  }

  #perform(effect: BidderEffect): void {
    switch (effect.type) {
      case 'tell':
        this.#note(effect.news);
        return this.#options.tell(effect.news);
      case 'gather-offers':
        return this.#orFail(this.#gatherOffers());
      case 'check-offers':
        return this.#orFail(this.#checkOffers(effect.offers));
      case 'sign-bid':
        return this.#orFail(this.#sign(effect.content));
      case 'publish-bid':
        return this.#orFail(this.#publish(effect.bid));
      case 'wait':
        return this.#wait(effect.bid, effect.ms);
      case 'look-ahead':
        // Asked for now, so that weighing finds it; what fails is told there.
        return void this.#buyer.providerAccount(effect.provider).catch(() => undefined);
      case 'let-go':
        return this.#letGo(effect.stream);
      case 'let-all-go':
        return this.#letAllGo();
      case 'weigh':
        return this.#orFail(this.#weigh(effect.bid, effect.providers));
      case 'try':
        return void this.#try(effect.quote, effect.attempt);
      case 'deliver':
        this.#keepRecord();
        return void this.#closing.then(() => this.#delivered && this.#end.resolve(this.#delivered.result));
      case 'fail':
        this.#keepRecord(effect.error);
        return void this.#closing.then(() => this.#end.reject(effect.error));
      default:
        return effect satisfies never;
    }
  }

  /** A bid that follows another ends the record of that one. */
  #note(news: BidderNews): void {
    if (news.type === 'offers' && this.#record !== undefined) {
      const last = this.#record.failures.at(-1);
      const { code, reason } = last ?? { code: 'market/quote-expired', reason: 'every quote expired; it bid again' };
      this.#keepRecord(new MoltError(code, reason));
    }
    this.#record = recordNews(this.#record, news, this.#buyer.env.clock.now());
  }

  #keepRecord(error?: unknown): void {
    const { several } = this.#options;
    if (this.#record !== undefined) {
      const ended = endRecord(this.#record, error);
      this.#buyer.journal.keepBid(several === undefined ? ended : { ...ended, several: several() });
    }
    this.#record = undefined;
  }

  #orFail(work: Promise<void>): void {
    work.catch((error: unknown) => this.#dispatch({ type: 'failed', error }));
  }

  async #gatherOffers(): Promise<void> {
    const { feed, mesh } = this.#buyer;
    await this.#buyer.waitForOffers(OFFERS_WAIT_MS, this.#options.signal);
    await this.#hearMore();
    this.#offers = this.#heardOffers();
    this.#dispatch({
      type: 'begin',
      offers: this.#offers,
      bookSize: feed.book.size,
      peers: mesh.peers().length,
      addresses: mesh.addresses,
    });
  }

  /** Who sells GPUs sells processor time too. */
  #heardOffers(): ReturnType<Buyer['feed']['book']['list']> {
    return this.#buyer.feed.book.list(this.#class() === 'gpu' ? 'gpu' : undefined);
  }

  /** The first offer that a newcomer hears need not be of one who could do this job. */
  async #hearMore(): Promise<void> {
    const { feed, env } = this.#buyer;
    const { order, signal } = this.#options;
    const { clock } = env;
    const endMs = clock.monotonic() + MORE_OFFERS_MS;
    while (!couldBeServed(order, feed.book.list(), clock.now()) && clock.monotonic() < endMs)
      await clock.sleep(MORE_OFFERS_POLL_MS, signal);
  }

  async #checkOffers(offers: readonly Message<Offer>[]): Promise<void> {
    this.#dispatch({ type: 'offers-checked', ...(await this.#buyer.vouch(offers)) });
  }

  async #sign(content: Bid): Promise<void> {
    const buyer = this.#buyer;
    await buyer.bidTurn(this.#options.signal);
    const nowMs = buyer.env.clock.now();
    buyer.sequence = nextSequence(buyer.sequence, nowMs);
    const header = {
      network: buyer.chain.network,
      sequence: buyer.sequence,
      issuedMs: nowMs,
      expiresMs: nowMs + LIMITS.bidLifetimeMs,
    };
    this.#envelope = sealEnvelope(buyer.key, 'bid', header, encodeBid(content));
    this.#dispatch({ type: 'bid-signed', bid: this.#envelope.id });
  }

  async #publish(bid: string): Promise<void> {
    const { mesh, chain } = this.#buyer;
    if (this.#envelope === undefined) return;
    this.#waiting = new AbortController();
    this.#stopListening = this.#buyer.routeAnswers(bid, (answer) => this.#hear(bid, answer));
    this.#budget = this.#buyer.budget();
    this.#budget.catch(() => undefined);
    const region = this.#state.bid?.content.region ?? '';
    await mesh.publish(bidsTopic(chain.network, this.#class(), region), this.#envelope.bytes);
  }

  #hear(bid: string, answer: Answer): void {
    const number = this.#answers++;
    this.#held.set(number, answer);
    this.#dispatch({ type: 'answered', stream: number, node: answer.from, bid, answer: this.#read(answer) });
  }

  /** The quote in an answer, if its signer is the peer that sent it; else what speaks against it. */
  #read({ from, content }: Answer): VerifiedQuote | MoltError {
    if (content.declined !== undefined) return fromRefusal(content.declined);
    try {
      const at = { network: this.#buyer.chain.network, nowMs: this.#buyer.env.clock.now() };
      const envelope = decodeEnvelope('quote', content.quote ?? new Uint8Array(), at);
      if (envelope.signer !== from) {
        throw new MoltError('protocol/wrong-signer', 'a quote must come from the node that signed it');
      }
      return verifyEnvelope(decodeQuote(envelope));
    } catch (error) {
      if (!(error instanceof MoltError)) throw error;
      return error;
    }
  }

  #wait(bid: string, ms: number): void {
    const timeUp = (): void => this.#dispatch({ type: 'time-up', bid });
    this.#buyer.env.clock.sleep(ms, this.#waiting.signal).then(timeUp, () => undefined);
  }

  #letGo(number: number): void {
    void this.#held.get(number)?.letGo();
    this.#held.delete(number);
  }

  #letAllGo(): void {
    this.#stopListening();
    this.#waiting.abort(new MoltError('market/quote-expired', 'the bid is over'));
    const held = [...this.#held.values()];
    this.#held.clear();
    this.#closing = Promise.all([this.#closing, ...held.map((answer) => answer.letGo())]);
  }

  async #weigh(bid: string, providers: readonly Address[]): Promise<void> {
    const { chainClock } = this.#buyer;
    const accounts = new Map<
      Address,
      BidderFacts['accounts'] extends ReadonlyMap<Address, infer Fact> ? Fact : never
    >();
    for (const provider of providers) {
      try {
        accounts.set(provider, await this.#buyer.providerAccount(provider));
      } catch (error) {
        if (!(error instanceof MoltError)) throw error;
        accounts.set(provider, error);
      }
    }
    const budget = await (this.#budget ?? this.#buyer.budget());
    const draws = this.#state.quotes.map(() => this.#buyer.draw());
    this.#dispatch({ type: 'weighed', bid, facts: { budget, accounts, chainNowMs: chainClock.now(), draws } });
  }

  async #try(quote: VerifiedQuote, attempt: number): Promise<void> {
    this.#offers = [];
    const tell = (event: JobEvent): void => {
      if (event.type === 'lease-opened') this.#dispatch({ type: 'lease-opened' });
      this.#options.tell(event);
    };
    try {
      const ranked = this.#state.ranked.map((one) => one.quote);
      this.#delivered = { result: await this.#options.attempt(quote, attempt, tell, ranked) };
    } catch (error) {
      this.#dispatch({ type: 'try-failed', error, cancelled: this.#options.signal.aborted });
      return;
    }
    this.#dispatch({ type: 'delivered' });
  }

  #class(): ReturnType<typeof resourceClassOf> {
    return resourceClassOf(this.#options.order.spec.resources);
  }
}

function cancelledBy(signal: AbortSignal): MoltError {
  const reason: unknown = signal.reason;
  return reason instanceof MoltError
    ? reason
    : new MoltError('job/cancelled', 'the job was cancelled', {}, { cause: reason });
}

/** One reference job is 1 MOLT, whatever share of it this market burns. */
export function historyParameters(burnFeeBps: number): HistoryParameters {
  const share = Math.max(burnFeeBps, 1);
  return { burnFeeBps: share, referenceFee: (BASE_UNITS_PER_MOLT * BigInt(share)) / 10_000n };
}
