/**
 * A buyer of the simulation: the real bidder machine (market/bidder.ts) in a shell like the SDK's, and a plain model of one
 * attempt: accept, open, submit, follow, settle, with the SDK's patience (sdk/attempt.ts, sdk/lease-client.ts).
 */
import {
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
import { isLeaseEnd } from '../../protocol/lease.ts';
import { LIMITS } from '../../protocol/limits.ts';
import {
  type Message,
  type Offer,
  type ResourceClass,
  decodeQuote,
  encodeBid,
  resourceClassOf,
} from '../../protocol/messages.ts';
import { bidsTopic } from '../../protocol/wire.ts';
import type { Terms, Transaction } from './chain.ts';
import type { Link, LinkEnd } from './network.ts';
import { NETWORK, Peer, type PeerOptions, type Surroundings, addressOf } from './peer.ts';
import type { BidAnswerFrame, LeaseFrame } from './provider.ts';
import { Violation } from './world.ts';

export interface BuyerOptions extends PeerOptions {
  /** Where its jobs must run; it follows that region alone. '' for anywhere. */
  readonly region: string;
  readonly balance: bigint;
  readonly capPerLease: bigint;
  readonly capInAll: bigint;
}

const OFFERS_WAIT_MS = 5_000;
const ANSWER_MS = 10_000;
const RECONNECT_EVERY_MS = 500;
const RECONNECT_MS = 8_000;
const RECLAIM_EVERY_MS = 10_000;
/** The peers' admission takes one bid a second from one origin. */
const BID_GAP_MS = 1_200;

/** As market/bidder.ts: three bids, and the quotes of each. */
const BIDS_MAX = 3;
const TRIES_MAX = BIDS_MAX * LIMITS.quotesWanted;

export class Buyer extends Peer {
  readonly options: BuyerOptions;
  readonly budget: Address;
  readonly jobs: Purchase[] = [];
  sequence = 0;
  nextBidMs = 0;

  constructor(name: string, at: Surroundings, options: BuyerOptions) {
    super(name, at, options);
    this.options = options;
    this.budget = addressOf(`budget of ${name}`);
    const { balance, capPerLease, capInAll } = options;
    at.chain.addBudget(this.budget, { delegate: this.address, balance, capPerLease, capInAll });
  }

  override start(): void {
    super.start();
    this.#reclaim();
  }

  override crash(): void {
    super.crash();
    for (const job of this.jobs) job.isVanished ||= job.state.phase !== 'over';
  }

  buy(order: BidderOrder, runMs: number): void {
    const job = new Purchase(this, order, runMs);
    this.jobs.push(job);
    job.begin();
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
        const job = this.jobs.find((one) => one.state.bid?.id === answer.bid && !one.isVanished);
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

export class Purchase {
  readonly buyer: Buyer;
  readonly order: BidderOrder;
  readonly runMs: number;
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

  constructor(buyer: Buyer, order: BidderOrder, runMs: number) {
    const { state, effects } = createBidder(order);
    this.buyer = buyer;
    this.order = order;
    this.runMs = runMs;
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
        return new Attempt(this, effect.quote).begin();
      case 'deliver':
        this.outcome = 'delivered';
        return undefined;
      case 'fail':
        this.outcome = effect.error as MoltError;
        world.trace(`${buyer.name} job ends: ${this.outcome.code}`);
        return undefined;
      default:
        return undefined;
    }
  }

  /** Whom the bidder machine may try: nobody twice, and nobody for more than the job may cost. */
  #noteTry({ signer, content }: VerifiedQuote): void {
    const { name } = this.buyer;
    if (this.#tried.has(signer)) throw new Violation(`${name} tries ${signer} again, which failed this job`);
    this.#tried.add(signer);
    if (content.amount > this.order.maxPrice) throw new Violation(`${name} tries a quote of ${content.amount}`);
    if (this.#tried.size > TRIES_MAX || this.bids > BIDS_MAX) throw new Violation(`${name} tries without end`);
  }

  #gatherOffers(untilMs: number): void {
    const { buyer } = this;
    const book = buyer.book;
    if (book === undefined) return undefined;
    book.expire(buyer.now());
    if (book.size === 0 && buyer.at.world.nowMs < untilMs)
      return buyer.after(RECONNECT_EVERY_MS, 'waits for offers', () => this.#gatherOffers(untilMs));
    const offers = book.list(this.#class() === 'gpu' ? 'gpu' : undefined);
    return this.do({ type: 'begin', offers, bookSize: book.size, peers: 8, addresses: [] });
  }

  #vouch(offers: readonly Message<Offer>[]): { checked: number; genuine: ReadonlySet<Address> } {
    const { providers } = this.buyer.at.chain;
    const genuine = offers.filter(({ signer, content }) => providers.get(content.provider)?.operator === signer);
    return { checked: offers.length, genuine: new Set(genuine.map(({ signer }) => signer)) };
  }

  #sign(content: Parameters<typeof encodeBid>[0]): void {
    const { buyer } = this;
    const nowMs = buyer.now();
    buyer.sequence = nextSequence(buyer.sequence, nowMs);
    const times = { sequence: buyer.sequence, issuedMs: nowMs, expiresMs: nowMs + LIMITS.bidLifetimeMs };
    const envelope = sealEnvelope(buyer.key, 'bid', { network: NETWORK, ...times }, encodeBid(content));
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

/** One quote, from its acceptance to the settlement. */
class Attempt {
  readonly #purchase: Purchase;
  readonly #quote: VerifiedQuote;
  readonly #buyer: Buyer;
  readonly #lease: Address;
  readonly #terms: Terms;
  #link: Link | undefined;
  #isOver = false;
  #isOpen = false;
  #isAccepted = false;
  #lostMs: number | undefined;
  #claimed: bigint | undefined;

  constructor(purchase: Purchase, quote: VerifiedQuote) {
    const { buyer } = purchase;
    const { content } = quote;
    this.#purchase = purchase;
    this.#quote = quote;
    this.#buyer = buyer;
    this.#lease = buyer.at.chain.leaseAddress(buyer.budget, quote.id);
    this.#terms = {
      quote: quote.id,
      budget: buyer.budget,
      provider: content.provider,
      operator: quote.signer,
      delegate: buyer.address,
      pricePerSecond: content.pricePerSecond,
      amount: content.amount,
      reserve: content.reserve,
      openBeforeMs: content.openBeforeMs,
      finishByMs: content.finishByMs,
      graceMs: content.graceMs,
      windowMs: content.windowMs,
    };
  }

  begin(): void {
    this.#connect();
    this.#say({ type: 'accept', quote: this.#quote.id, budget: this.#buyer.budget });
    this.#buyer.after(ANSWER_MS, 'waits for a signature', () => {
      if (!this.#isAccepted) this.#fail(new MoltError('mesh/timeout', 'the provider did not answer in time'));
    });
  }

  #connect(): void {
    const link = this.#buyer.at.network.connect(this.#buyer, this.#quote.signer, 'lease', {
      onFrame: (frame) => this.#hear(frame as LeaseFrame),
      onEnd: () => {
        if (this.#link === link) this.#lost();
      },
    });
    this.#link = link;
  }

  #say(frame: LeaseFrame): void {
    this.#link?.send(this.#buyer, frame);
  }

  #hear(frame: LeaseFrame): void {
    if (this.#isOver) return;
    this.#lostMs = undefined;
    if (frame.type === 'accepted' && !this.#isAccepted) this.#open(frame.signature);
    else if (frame.type === 'refused' || frame.type === 'failed') this.#fail(frame.error);
    else if (frame.type === 'proof' && this.#claimed === undefined) this.#settle(frame.claimed);
    else if (frame.type === 'settle-signed' && this.#claimed !== undefined) this.#settleAgreed(frame.signature);
    else if (frame.type === 'closed') this.#lookAtLease();
  }

  #open(theirs: Uint8Array): void {
    this.#isAccepted = true;
    const draft = { event: 'open', lease: this.#lease, terms: this.#terms } as const;
    this.#submit(draft, theirs, (refusal) => {
      const isThere = this.#buyer.at.chain.leases.has(this.#lease);
      if (refusal !== undefined && !isThere) return this.#fail(refusal);
      this.#isOpen = true;
      this.#purchase.do({ type: 'lease-opened' });
      this.#purchase.matchedMs ??= this.#buyer.at.world.nowMs;
      this.#say({ type: 'submit', lease: this.#lease, runMs: this.#purchase.runMs });
      return this.#watchDeadline();
    });
  }

  /** A provider that lives on and never proves: its lease runs out, and with it the wait. */
  #watchDeadline(): void {
    const { chain } = this.#buyer.at;
    const { finishByMs, graceMs } = this.#terms;
    this.#buyer.after(finishByMs + graceMs - chain.nowMs() + 2_000, 'the lease has run out', () => {
      if (this.#isOver) return;
      this.#fail(new MoltError('job/provider-lost', 'the provider proved nothing in the time of the lease'));
    });
  }

  #settle(claimed: bigint): void {
    if (claimed > this.#terms.amount) {
      this.#fail(new MoltError('proof/wrong-metering', 'the proof claims more than is locked'));
      return;
    }
    this.#claimed = claimed;
    this.#say({ type: 'settle', lease: this.#lease, amount: claimed });
    this.#buyer.after(ANSWER_MS, 'waits for the settlement', () => this.#settleAlone(claimed));
  }

  #settleAgreed(theirs: Uint8Array): void {
    const amount = this.#claimed ?? 0n;
    const draft = { event: 'settleAgreed', lease: this.#lease, amount } as const;
    this.#submit(draft, theirs, () => this.#lookAtLease());
  }

  /** The provider did not co-sign: what it claimed on chain meanwhile is paid without it, or the wait goes on there. */
  #settleAlone(claimed: bigint): void {
    const lease = this.#buyer.at.chain.leases.get(this.#lease);
    if (this.#isOver) return;
    if (lease?.state === 'proven' && lease.claimed === claimed)
      this.#submit({ event: 'settleClaimed', lease: this.#lease }, undefined, () => this.#lookAtLease());
    else this.#lookAtLease();
  }

  #lookAtLease(): void {
    const lease = this.#buyer.at.chain.leases.get(this.#lease);
    if (this.#isOver) return;
    if (lease?.state === 'settled') {
      this.#isOver = true;
      this.#link?.close(this.#buyer);
      this.#purchase.paid += this.#claimed ?? 0n;
      this.#purchase.do({ type: 'delivered' });
    } else if (lease === undefined || isLeaseEnd(lease.state)) {
      this.#fail(new MoltError('job/provider-lost', 'the lease was closed without a proof'));
    } else this.#buyer.after(2_000, 'looks at its lease', () => this.#settleAlone(this.#claimed ?? 0n));
  }

  #submit(
    draft: Omit<Transaction, 'signatures'>,
    theirs: Uint8Array | undefined,
    done: (refusal: MoltError | undefined) => void,
  ): void {
    const { key, address, at } = this.#buyer;
    const signatures = new Map([[address, at.chain.sign(key, draft)]]);
    if (theirs !== undefined) signatures.set(this.#terms.operator, theirs);
    at.chain.submit(
      { ...draft, signatures },
      this.#buyer.mine((refusal) => {
        if (!this.#isOver) done(refusal);
      }),
    );
  }

  /** Comes back to the same provider for a while before it counts as gone. */
  #lost(): void {
    if (this.#isOver) return;
    const { nowMs } = this.#buyer.at.world;
    this.#link = undefined;
    if (!this.#isOpen) {
      this.#fail(new MoltError('mesh/closed', 'the stream closed before the lease was open'));
      return;
    }
    this.#lostMs ??= nowMs;
    if (nowMs - this.#lostMs > RECONNECT_MS) {
      this.#fail(new MoltError('job/provider-lost', 'the provider no longer answers'));
      return;
    }
    this.#buyer.after(RECONNECT_EVERY_MS, 'reconnects', () => {
      if (this.#isOver) return;
      this.#connect();
      this.#say({ type: 'submit', lease: this.#lease, runMs: this.#purchase.runMs });
      this.#say({ type: 'attach', lease: this.#lease });
      if (this.#claimed !== undefined) this.#say({ type: 'settle', lease: this.#lease, amount: this.#claimed });
    });
  }

  #fail(error: MoltError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#link?.close(this.#buyer);
    this.#purchase.do({ type: 'try-failed', error, cancelled: false });
  }
}
