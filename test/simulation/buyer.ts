/**
 * A buyer of the simulation: the real bidder machine (market/bidder.ts) in a shell like the SDK's. Some trade on their own,
 * within limits that a journal keeps (spending.ts); some jobs are gangs (gang.ts).
 */
import {
  type Autonomy,
  type BidderEffect,
  type BidderEvent,
  type BidderFacts,
  type BidderOrder,
  type BidderState,
  type VerifiedQuote,
  createBidder,
  decideBidder,
  nextSequence,
} from '../../market/index.ts';
import type { Address } from '../../protocol/address.ts';
import { decodeEnvelope, sealEnvelope, verifyEnvelope } from '../../protocol/envelope.ts';
import { MoltError, type Verdict } from '../../protocol/errors.ts';
import { warmPrefix } from '../../protocol/job-spec.ts';
import { isLeaseEnd } from '../../protocol/lease.ts';
import { LIMITS } from '../../protocol/limits.ts';
import {
  type Bid,
  type Message,
  type Offer,
  type ResourceClass,
  decodeQuote,
  encodeBid,
  resourceClassOf,
} from '../../protocol/messages.ts';
import { baseUnits } from '../../protocol/units.ts';
import { bidsTopic } from '../../protocol/wire.ts';
import { Attempt } from './attempt.ts';
import type { Task } from './engine.ts';
import type { GangPurchase } from './gang.ts';
import type { Link, LinkEnd } from './network.ts';
import { type Committed, Spending } from './spending.ts';
import { NETWORK, Peer, type PeerOptions, type Surroundings, addressOf } from './peer.ts';
import type { BidAnswerFrame } from './provider.ts';
import { Violation } from './world.ts';

export interface BuyerOptions extends PeerOptions {
  /** Where its jobs must run; it follows that region alone. '' for anywhere. */
  readonly region: string;
  readonly balance: bigint;
  readonly capPerLease: bigint;
  readonly capInAll: bigint;
  /** For one that trades on its own. */
  readonly autonomy?: Autonomy;
}

const OFFERS_WAIT_MS = 5_000;
const LOOK_EVERY_MS = 500;
const RECLAIM_EVERY_MS = 10_000;
const CONTEST_EVERY_MS = 3_000;
/** The peers' admission takes one bid a second from one origin. */
const BID_GAP_MS = 1_200;

/** More time than any quote may keep money for, beyond what the job may take. */
const HELD_MAX_MS = 3_600_000;

/** As market/bidder.ts: three bids, and the quotes of each. */
const BIDS_MAX = 3;
const TRIES_MAX = BIDS_MAX * LIMITS.quotesWanted;

export class Buyer extends Peer {
  readonly options: BuyerOptions;
  readonly budget: Address;
  readonly jobs: Purchase[] = [];
  readonly gangs: GangPurchase[] = [];
  /** Bids for slots of gangs. */
  readonly asks: Purchase[] = [];
  readonly spending: Spending | undefined;
  /** Survives crashes. */
  readonly contested = new Map<Address, { readonly sinceMs: number }>();
  sequence = 0;
  nextBidMs = 0;

  constructor(name: string, at: Surroundings, options: BuyerOptions) {
    super(name, at, options);
    this.options = options;
    this.spending = options.autonomy === undefined ? undefined : new Spending(this, options.autonomy);
    this.budget = addressOf(`budget of ${name}`);
    const { balance, capPerLease, capInAll } = options;
    at.chain.addBudget(this.budget, { delegate: this.address, balance, capPerLease, capInAll });
  }

  override start(): void {
    super.start();
    this.spending?.start();
    this.#reclaim();
    for (const lease of this.contested.keys()) this.#contest(lease);
  }

  override crash(): void {
    super.crash();
    for (const job of [...this.jobs, ...this.asks, ...this.gangs]) job.isVanished ||= job.state.phase !== 'over';
  }

  buy(order: BidderOrder, task: Task): void {
    const limited = this.limited(order);
    if (limited === undefined) return;
    const job = new Purchase(this, limited, task);
    this.jobs.push(job);
    job.begin();
  }

  gang(purchase: (order: BidderOrder) => GangPurchase, order: BidderOrder): void {
    const limited = this.limited(order);
    if (limited === undefined) return;
    const gang = purchase(limited);
    this.gangs.push(gang);
    gang.begin();
  }

  /** What its own limits leave of an order, as sdk/prepare.ts; undefined when they forbid it. */
  limited(order: BidderOrder): BidderOrder | undefined {
    if (this.spending === undefined) return order;
    const { limits } = this.spending;
    try {
      const left = this.spending.allowance();
      const maxPrice = baseUnits(left < order.maxPrice ? left : order.maxPrice);
      const { stakeMin = limits.stakeMin } = order;
      return { ...order, maxPrice, median: limits, historyMin: limits.historyMin, stakeMin };
    } catch (error) {
      if (!(error instanceof MoltError)) throw error;
      this.at.world.count('jobs over the limits');
      return undefined;
    }
  }

  /** Counts a lease that is about to be asked for, where spending is limited. */
  commit(amount: bigint, done: (result: MoltError | Committed) => void): void {
    if (this.spending === undefined) done({ end: () => undefined });
    else this.spending.commit(amount, done);
  }

  /** This lease's provider broke its word: a claim of it is disputed, over crashes too, as sdk/contest.ts. */
  contest(lease: Address): void {
    this.contested.set(lease, { sinceMs: this.at.world.nowMs });
    this.#contest(lease);
  }

  #contest(lease: Address): void {
    const { chain } = this.at;
    const { state, provenMs = 0, terms } = chain.leases.get(lease) ?? {};
    const isOver = state === undefined || state === 'disputed' || isLeaseEnd(state);
    if (isOver || (state === 'proven' && chain.nowMs() > provenMs + (terms?.windowMs ?? 0))) {
      this.contested.delete(lease);
      return;
    }
    const again = (): void => this.after(CONTEST_EVERY_MS, 'contests a lease', () => this.#contest(lease));
    if (state !== 'proven') return again();
    const draft = { event: 'dispute', lease } as const;
    const signatures = new Map([[this.address, chain.sign(this.key, draft)]]);
    return chain.submit({ ...draft, signatures }, this.mine(again));
  }

  /** Other buyers' bids are nothing to this one: it does not listen. */
  override hearBid(): Verdict['verdict'] {
    throw new Violation(`${this.name} hears bids, which it does not follow`);
  }

  override accept(protocol: string, link: Link): LinkEnd | undefined {
    if (protocol !== 'quote') return super.accept(protocol, link);
    let stream: { readonly job: Purchase; readonly number: number } | undefined;
    return {
      onFrame: (frame) => {
        const answer = frame as BidAnswerFrame;
        const job = [...this.jobs, ...this.asks].find((one) => one.state.bid?.id === answer.bid && !one.isVanished);
        if (job === undefined || stream !== undefined) link.close(this);
        else stream = { job, number: job.hear(link, answer) };
      },
      onEnd: () => stream?.job.forget(stream.number),
    };
  }

  /** Leases that nobody proved in time give their money back: sdk/reclaim.ts. */
  #reclaim(): void {
    this.after(RECLAIM_EVERY_MS, 'looks for dead leases', () => {
      const { chain } = this.at;
      for (const { address, state, terms, provenMs } of chain.leases.values()) {
        if (terms.delegate !== this.address) continue;
        const isDead = state === 'running' && chain.nowMs() > terms.finishByMs + terms.graceMs;
        const isLapsed = state === 'proven' && chain.nowMs() > provenMs + terms.windowMs;
        const event = isDead ? 'expire' : 'settleLapsed';
        if (isDead || isLapsed) chain.submit({ event, lease: address, signatures: new Map() }, () => undefined);
      }
      if (!this.at.isFrozen) this.#reclaim();
    });
  }

  /** Callbacks of another life are not heard. */
  mine<Argument>(run: (argument: Argument) => void): (argument: Argument) => void {
    const { life } = this;
    return (argument) => {
      if (this.isUp && this.life === life) run(argument);
    };
  }
}

/** Who takes the quotes of a bid instead of an attempt: a gang. */
export interface Holder {
  readonly hold: (quotes: readonly VerifiedQuote[]) => void;
  readonly failed: (error: MoltError) => void;
}

export class Purchase {
  readonly #holder: Holder | undefined;
  readonly buyer: Buyer;
  readonly order: BidderOrder;
  readonly slots = 1;
  readonly task: Task;
  state: BidderState;
  /** Its buyer crashed before the end. */
  isVanished = false;
  outcome: 'delivered' | MoltError | undefined;
  readonly startedMs: number;
  /** When the lease of the delivered attempt was opened. */
  matchedMs: number | undefined;
  paid = 0n;
  bids = 0;
  readonly held = new Map<number, Link>();
  readonly #tried = new Set<Address>();
  readonly #first: readonly BidderEffect[];
  #streams = 0;
  #bytes: Uint8Array | undefined;

  constructor(buyer: Buyer, order: BidderOrder, task: Task, holder?: Holder) {
    const { state, effects } = createBidder(order);
    this.#holder = holder;
    this.buyer = buyer;
    this.order = order;
    this.task = task;
    this.state = state;
    this.#first = effects;
    this.startedMs = buyer.at.world.nowMs;
  }

  begin(): void {
    for (const effect of this.#first) this.#perform(effect);
  }

  do(event: BidderEvent): void {
    const { state, effects } = decideBidder(this.state, event, this.buyer.moment());
    this.state = state;
    for (const effect of effects) this.#perform(effect);
  }

  hear(link: Link, answer: BidAnswerFrame): number {
    const stream = this.#streams++;
    this.held.set(stream, link);
    const node = link.remoteOf(this.buyer);
    this.do({ type: 'answered', stream, node, bid: answer.bid, answer: this.#read(node, answer) });
    return stream;
  }

  /** Name of a quote that came as bytes; undefined for one that is none. */
  quoteId(bytes: Uint8Array): string | undefined {
    try {
      return decodeEnvelope('quote', bytes, { network: NETWORK, nowMs: this.buyer.now() }).id;
    } catch {
      return undefined;
    }
  }

  /** The other side ended the stream: there is nothing to close any more. */
  forget(stream: number): void {
    this.held.delete(stream);
  }

  #perform(effect: BidderEffect): void {
    const { buyer } = this;
    const { world } = buyer.at;
    switch (effect.type) {
      case 'gather-offers':
        return this.#gatherOffers(world.nowMs + OFFERS_WAIT_MS);
      case 'check-offers':
        return this.do({ type: 'offers-checked', ...this.#vouch(effect.offers) });
      case 'sign-bid': {
        const waitMs = Math.max(0, buyer.nextBidMs - world.nowMs);
        buyer.nextBidMs = world.nowMs + waitMs + BID_GAP_MS;
        return buyer.after(waitMs, 'signs a bid', () => this.#sign(effect.content));
      }
      case 'publish-bid':
        if (this.#bytes !== undefined) buyer.at.network.gossip.publish(buyer, this.#topic(), this.#bytes);
        return undefined;
      case 'wait':
        return buyer.after(effect.ms, 'time is up', () => this.do({ type: 'time-up', bid: effect.bid }));
      case 'let-go':
        this.held.get(effect.stream)?.close(buyer);
        this.held.delete(effect.stream);
        return undefined;
      case 'let-all-go':
        for (const link of this.held.values()) link.close(buyer);
        this.held.clear();
        return undefined;
      case 'weigh':
        return buyer.after(buyer.chance.between(20, 200), 'weighs', () => this.#weigh(effect.bid, effect.providers));
      case 'try':
        this.#noteTry(effect.quote);
        for (const { quote } of this.state.ranked) this.#assertSuits(quote);
        if (this.#holder === undefined) return this.#try(effect.quote);
        return this.#holder.hold(this.state.ranked.map(({ quote }) => quote));
      case 'deliver':
        this.outcome = 'delivered';
        return undefined;
      case 'fail':
        this.outcome = effect.error as MoltError;
        world.trace(`${buyer.name} job ends: ${this.outcome.code}`);
        return this.#holder?.failed(this.outcome);
      default:
        return undefined;
    }
  }

  /** The gang wants no more quotes: as sdk/gang-run.ts, a bid that held some has done what it was for. */
  release(): void {
    if (this.state.phase === 'trying') this.do({ type: 'delivered' });
    else this.do({ type: 'cancelled', error: new MoltError('market/quote-expired', 'the gang wants no more quotes') });
  }

  #try(quote: VerifiedQuote): void {
    const { buyer } = this;
    const fail = (error: MoltError): void => this.do({ type: 'try-failed', error, cancelled: false });
    buyer.commit(quote.content.amount, (committed) => {
      if (committed instanceof MoltError) return fail(committed);
      const attempt = new Attempt(buyer, quote, this.task, {
        signed: () => attempt.open(),
        opened: () => {
          this.do({ type: 'lease-opened' });
          this.matchedMs ??= buyer.at.world.nowMs;
          attempt.run();
        },
        delivered: (paid) => {
          this.#assertInTime(attempt);
          this.paid += paid;
          committed.end(paid);
          this.do({ type: 'delivered' });
        },
        failed: (error) => {
          committed.end(attempt.paid(error));
          fail(error);
        },
      });
      return attempt.accept();
    });
  }

  /** A job that had to begin by then is delivered only if it did, by the clock of who ran it. */
  #assertInTime({ lease }: Attempt): void {
    if (this.buyer.at.chain.late.has(lease))
      throw new Violation(`${this.buyer.name} paid for a job that began later than was promised`);
  }

  /** Whom the bidder machine may try: nobody twice, and nobody for more than the job may cost. */
  #noteTry({ signer, content }: VerifiedQuote): void {
    const { name } = this.buyer;
    if (this.#tried.has(signer)) throw new Violation(`${name} tries ${signer} again, which failed this job`);
    this.#tried.add(signer);
    if (content.amount > this.order.maxPrice) throw new Violation(`${name} tries a quote of ${content.amount}`);
    if (this.#tried.size > TRIES_MAX || this.bids > BIDS_MAX) throw new Violation(`${name} tries without end`);
  }

  /** What the bidder machine takes for acceptable, held against the bid anew. */
  #assertSuits({ id, signer, content: quote }: VerifiedQuote): void {
    const { chain } = this.buyer.at;
    const { id: bidId = '', content: bid } = this.state.bid ?? {};
    const account = chain.providers.get(quote.provider);
    if (bid === undefined || account === undefined) throw new Violation(`${this.buyer.name} takes ${id} for no bid`);
    const durationMs = bid.durationSecondsMax * 1_000;
    const broken = [
      quote.bid !== bidId && 'answers another bid',
      account.operator !== signer && 'is not signed by the operator of its provider',
      quote.pricePerSecond > bid.pricePerSecondMax && 'is too dear',
      quote.amount !== quote.pricePerSecond * BigInt(bid.durationSecondsMax) && 'locks another amount',
      quote.reserve < bid.reserveMin && 'sets too little stake aside',
      account.faults === 0 && account.stake < bid.stakeMin && 'has too little stake behind it',
      bid.startByMs > 0 && (quote.startByMs === 0 || quote.startByMs > bid.startByMs) && 'does not promise the start',
      bid.finishByMs > 0 && quote.finishByMs > bid.finishByMs && 'does not promise the end',
      quote.finishByMs < quote.openBeforeMs + durationMs && 'leaves too little time for the job',
      quote.finishByMs > quote.openBeforeMs + durationMs + HELD_MAX_MS && 'keeps the money too long',
      quote.graceMs > HELD_MAX_MS && 'has too long a grace',
      quote.windowMs < bid.windowMs && 'leaves too little time to compare',
      quote.near.some((name) => !bid.near.includes(name)) && 'tells of inputs that the bid does not name',
    ].find((one) => one !== false);
    if (broken !== undefined) throw new Violation(`${this.buyer.name} takes quote ${id}, which ${broken}`);
  }

  /** A bid says what a provider must know to answer, and of the job itself nothing that it was not asked to tell. */
  #assertDiscreet(content: Bid, bytes: Uint8Array): void {
    const { name } = this.buyer;
    const { image, inputs } = this.task;
    const text = Buffer.from(bytes).toString('latin1');
    for (const secret of [image, ...inputs, this.task.result])
      if (text.includes(secret)) throw new Violation(`${name} tells everybody of ${secret}`);
    const told = this.order.nearData === true ? inputs.map(warmPrefix) : [];
    if (content.near.some((one) => !told.includes(one)))
      throw new Violation(`${name} tells everybody which inputs its job has`);
  }

  #gatherOffers(untilMs: number): void {
    const { buyer } = this;
    const book = buyer.book;
    if (book === undefined) return undefined;
    book.expire(buyer.now());
    if (book.size === 0 && buyer.at.world.nowMs < untilMs)
      return buyer.after(LOOK_EVERY_MS, 'waits for offers', () => this.#gatherOffers(untilMs));
    const offers = book.list(this.#class() === 'gpu' ? 'gpu' : undefined);
    return this.do({ type: 'begin', offers, bookSize: book.size, peers: 8, addresses: [] });
  }

  #vouch(offers: readonly Message<Offer>[]): { checked: number; genuine: ReadonlySet<Address> } {
    const { providers } = this.buyer.at.chain;
    const genuine = offers.filter(({ signer, content }) => providers.get(content.provider)?.operator === signer);
    return { checked: offers.length, genuine: new Set(genuine.map(({ signer }) => signer)) };
  }

  #sign(content: Bid): void {
    const { buyer } = this;
    const nowMs = buyer.now();
    buyer.sequence = nextSequence(buyer.sequence, nowMs);
    const times = { sequence: buyer.sequence, issuedMs: nowMs, expiresMs: nowMs + LIMITS.bidLifetimeMs };
    const envelope = sealEnvelope(buyer.key, 'bid', { network: NETWORK, ...times }, encodeBid(content));
    this.#assertDiscreet(content, envelope.bytes);
    this.#bytes = envelope.bytes;
    this.bids++;
    buyer.at.world.count('bids');
    const followers = buyer.at.network.gossip.followers(this.#topic());
    buyer.at.world.count('followers of bids', followers);
    buyer.at.world.count('providers in reach of bids', (followers * Number(content.distanceMax)) / 2 ** 64);
    this.do({ type: 'bid-signed', bid: envelope.id });
  }

  #read(node: Address, { quote, declined }: BidAnswerFrame): VerifiedQuote | MoltError {
    if (declined !== undefined) return declined;
    try {
      const at = { network: NETWORK, nowMs: this.buyer.now() };
      const envelope = decodeEnvelope('quote', quote ?? new Uint8Array(), at);
      if (envelope.signer !== node)
        throw new MoltError('protocol/wrong-signer', 'a quote must come from the node that signed it');
      return verifyEnvelope(decodeQuote(envelope));
    } catch (error) {
      if (!(error instanceof MoltError)) throw error;
      return error;
    }
  }

  #weigh(bid: string, providers: readonly Address[]): void {
    const { chain } = this.buyer.at;
    const budget = chain.budgets.get(this.buyer.budget)!;
    const accounts: [Address, BidderFacts['accounts'] extends ReadonlyMap<Address, infer Fact> ? Fact : never][] = [];
    for (const provider of providers) {
      const account = chain.providerAccount(provider);
      if (account !== undefined) accounts.push([provider, account]);
    }
    const free = budget.balance - budget.locked;
    const facts = {
      budget: { free, capPerLease: budget.capPerLease },
      accounts: new Map(accounts),
      chainNowMs: chain.nowMs(),
      draws: this.state.quotes.map(() => this.buyer.chance.next()),
    };
    this.do({ type: 'weighed', bid, facts });
  }

  #topic(): string {
    return bidsTopic(NETWORK, this.#class(), this.state.bid?.content.region);
  }

  #class(): ResourceClass {
    return resourceClassOf(this.order.spec.resources);
  }
}
