/**
 * A provider of the simulation: the real seller machine (market/seller.ts) in a shell as thin as the node's. Its jobs are
 * jobs.ts, what survives a crash journal.ts, what runs engine.ts.
 */
import {
  type OpenQuote,
  type SellerEffect,
  type SellerEvent,
  type SellerState,
  type SellerTerms,
  type SellingPolicy,
  OFFER_REPEAT_MS,
  createSeller,
  currentPrices,
  decideSeller,
  freeResources,
  isAsked,
  quoteFor,
  utilisation,
} from '../../market/index.ts';
import type { Agreement, Job } from '../../node/provider/job.ts';
import type { Address } from '../../protocol/address.ts';
import type { Verified } from '../../protocol/brands.ts';
import { sealEnvelope } from '../../protocol/envelope.ts';
import type { Verdict } from '../../protocol/errors.ts';
import { MoltError } from '../../protocol/errors.ts';
import { warmPrefix } from '../../protocol/job-spec.ts';
import { isLeaseEnd } from '../../protocol/lease.ts';
import { LIMITS } from '../../protocol/limits.ts';
import {
  type Bid,
  type Message,
  type Offer,
  type ResourceClass,
  type Resources,
  encodeOffer,
  encodeQuote,
  resourceClassOf,
} from '../../protocol/messages.ts';
import { baseUnits } from '../../protocol/units.ts';
import { bidsTopic, offersTopic } from '../../protocol/wire.ts';
import { type LeaseAccount, RESERVE_BPS, type Terms } from './chain.ts';
import { Engine, type Task } from './engine.ts';
import { Jobs, type LeaseFrame } from './jobs.ts';
import { Journal } from './journal.ts';
import type { Link, LinkEnd } from './network.ts';
import { NETWORK, Peer, type PeerOptions, type Surroundings, addressOf } from './peer.ts';
import { Violation } from './world.ts';

export interface ProviderOptions extends PeerOptions {
  readonly total: Resources;
  readonly stake: bigint;
  readonly region: string;
  readonly policy: SellingPolicy;
  /** How many times as long as others it takes to bring an image or an input. */
  readonly slowness: number;
  /** At hand from the beginning. */
  readonly images: readonly string[];
  /** Asked for in its quotes; default a minute. */
  readonly graceMs?: number;
}

export class Provider extends Peer {
  readonly account: Address;
  readonly options: ProviderOptions;
  /** True for one that sells what it does not have. */
  readonly cannotRun: boolean = false;
  seller: SellerState;
  /** Newest sequence that was published, and whether it was a withdrawal. */
  published: { sequence: number; revoked: boolean } | undefined;
  /** Quotes that went out, of every life: what may be accepted, by whom, until when. */
  readonly #sent = new Map<string, Pick<OpenQuote, 'buyer' | 'expiresMs'>>();
  /** Everything that this key signed, by number: two of one number are an equivocation. */
  readonly signed = new Map<number, string>();
  /** The highest number of earlier lives. */
  #signedBefore = 0;
  readonly journal: Journal = new Journal(this);
  readonly engine: Engine;
  readonly #jobs: Jobs;

  constructor(name: string, at: Surroundings, options: ProviderOptions) {
    super(name, at, options);
    this.options = options;
    this.account = addressOf(name);
    this.engine = new Engine(this, options);
    this.#jobs = new Jobs(this, this.journal, this.engine);
    this.seller = this.#fresh();
    at.chain.addProvider(this.account, this.address, options.stake);
    at.chain.watch((lease) => this.#watchLease(lease));
  }

  #fresh(): SellerState {
    const { gpus, ...total } = this.options.total;
    const devices = gpus.flatMap(({ count, vramBytes, model, computeCapability }) =>
      Array.from({ length: count }, (_, index) => ({
        id: `${this.name}/${model}/${index}`,
        model,
        memoryBytes: vramBytes,
        computeCapability,
        busId: '',
        numaNode: undefined,
        links: {},
      })),
    );
    return createSeller(total, { gpus: devices, isDraining: false });
  }

  /** As node/provider: leases of the journal first, then their jobs go on, then the market hears of us. */
  override start(): void {
    super.start();
    this.#signedBefore = Math.max(0, ...this.signed.keys());
    this.seller = this.#fresh();
    this.journal.start();
    const open = this.#jobs.start();
    for (const [lease, { agreement, phase, vacated }] of open) {
      if (vacated === true) continue;
      const stake = phase === 'accepted' ? BigInt(agreement.reserve) : 0n;
      this.decide({ type: 'lease-restored', lease, need: agreement.need, gpus: agreement.gpus ?? [], stake });
    }
    this.#jobs.recover(open);
    this.do({ type: 'opened', sequence: this.journal.sequence });
    this.#repeatOffers();
  }

  override crash(): void {
    super.crash();
    this.journal.crash();
    this.engine.crash();
  }

  /** Ends as an operator would: the offer is withdrawn, nothing new is taken, what runs goes on. */
  drain(): void {
    this.do({ type: 'draining', on: true });
  }

  decide(event: SellerEvent): readonly SellerEffect[] {
    const { state, effects } = decideSeller(this.seller, event, this.moment());
    this.seller = state;
    return effects;
  }

  do(event: SellerEvent): void {
    // Told again after a change of capacity, which a bid causes; the others are repeated, bid or no bid.
    if (event.type === 'offer-due') this.at.world.count('offers after a change');
    for (const effect of this.decide(event)) this.perform(effect);
  }

  perform(effect: SellerEffect): void {
    switch (effect.type) {
      case 'keep-sequence':
        return this.journal.write(
          () => (this.journal.sequence = effect.upTo),
          () => undefined,
        );
      case 'sign-quote':
        this.#assertMayPromise(effect);
        return this.journal.whenWritten(() => this.signQuote(effect));
      case 'send-quote':
        return this.#sendQuote(effect.quote);
      case 'decline':
        return this.#answer(effect.bid.signer, { bid: effect.bid.id, declined: effect.reason }).close(this);
      case 'publish-offer':
        return this.journal.whenWritten(() => this.publishOffer(effect));
      case 'offer-later':
        return this.after(effect.waitMs, 'offer due', () => this.do({ type: 'offer-due' }));
      default:
        return undefined;
    }
  }

  override topics(): ReadonlySet<string> {
    const bids = [...new Set<ResourceClass>(['cpu', this.resourceClass])].flatMap((resourceClass) =>
      ['', this.options.region].map((region) => bidsTopic(NETWORK, resourceClass, region)),
    );
    return super.topics().union(new Set(bids));
  }

  get resourceClass(): ResourceClass {
    return resourceClassOf(this.options.total);
  }

  hearBid(bytes: Uint8Array, from: Address): Verdict['verdict'] {
    const { message, verdict } = this.admission.bid(bytes, from, this.now());
    if (message !== undefined) this.hold(message);
    return verdict.verdict;
  }

  hold(bid: Verified<Message<Bid>>): void {
    const isQuiet = !isAsked(bid, this.account) && this.isHonest;
    const before = this.at.world.counts.get('answers');
    const near = this.engine.near(bid.content.near);
    this.do({ type: 'bid', bid, terms: { ...this.terms(), near, buyer: this.standing(bid.content.budget) } });
    if (isQuiet && (this.seller.capacity.reservations.has(bid.id) || this.at.world.counts.get('answers') !== before))
      throw new Violation(`${this.name} answers a bid that did not ask it`);
  }

  /** As the chain knows the bidder. Nobody is known from before: all bounds hold for everybody. */
  standing(address: Address): SellerTerms['buyer'] {
    const budget = this.at.chain.budgets.get(address);
    if (budget === undefined) return new MoltError('chain/account-missing', 'the bid names a budget that is not there');
    const [inVault, inCap] = [budget.balance - budget.locked, budget.capInAll - budget.spent];
    const free = inVault < inCap ? inVault : inCap;
    return { budget: address, free, capPerLease: budget.capPerLease, range: '', isKnown: false };
  }

  terms(): Omit<SellerTerms, 'buyer'> {
    const { stake, reserved } = this.at.chain.providers.get(this.account)!;
    return {
      policy: this.options.policy,
      provider: {
        address: this.account,
        stake: baseUnits(stake),
        freeStake: baseUnits(stake - reserved),
        reserveBps: RESERVE_BPS,
        minGraceMs: this.options.graceMs ?? 60_000,
        minWindowMs: 30_000,
        maxLeaseMs: 86_400_000,
        runtimes: ['wasm', 'container'],
        features: [],
        region: this.options.region,
      },
      speed: 100,
      warm: this.engine.warm,
      chainNowMs: this.at.chain.nowMs(),
      hasRegulars: false,
    };
  }

  /** What it offers. */
  offer(free: Resources, revoked: boolean): Offer {
    const { policy, provider } = this.terms();
    return {
      provider: this.account,
      free,
      runtimes: provider.runtimes,
      features: [],
      hardwareTier: 'A0',
      prices: currentPrices(policy, utilisation(this.seller.capacity, this.now())),
      speed: 100,
      speedMeasuredMs: 0,
      region: provider.region,
      durationSecondsMax: policy.durationSecondsMax,
      warm: this.engine.warm.map(warmPrefix).slice(0, LIMITS.warmPerOffer),
      addresses: [],
      revoked,
    };
  }

  publishOffer({ free, revoked, header }: SellerEffect & { type: 'publish-offer' }): void {
    const { bytes } = this.sealOffer(this.offer(free, revoked), header);
    this.published = { sequence: header.sequence, revoked };
    for (const topic of this.offerTopics()) this.at.network.gossip.publish(this, topic, bytes);
    this.hearOffer(bytes, undefined);
  }

  /** Its offers are said in the shard of the whole class, and in that of its region. */
  offerTopics(): ReadonlySet<string> {
    return new Set(['', this.options.region].map((region) => offersTopic(NETWORK, this.resourceClass, region)));
  }

  sealOffer(content: Offer, header: (SellerEffect & { type: 'publish-offer' })['header']) {
    const envelope = sealEnvelope(this.key, 'offer', { network: NETWORK, ...header }, encodeOffer(content));
    this.#noteSigned(envelope.sequence, envelope.id);
    return envelope;
  }

  signQuote({ bid, content, header }: SellerEffect & { type: 'sign-quote' }): void {
    const envelope = sealEnvelope(this.key, 'quote', { network: NETWORK, ...header }, encodeQuote(content));
    const { id, expiresMs, bytes } = envelope;
    this.#noteSigned(envelope.sequence, id);
    this.do({ type: 'quote-signed', quote: { id, buyer: bid.signer, content, bid: bid.content, expiresMs, bytes } });
  }

  override accept(protocol: string, link: Link): LinkEnd | undefined {
    if (protocol !== 'lease') return super.accept(protocol, link);
    return {
      onFrame: (frame) => this.hearLease(link, frame as LeaseFrame),
      onEnd: () => undefined,
    };
  }

  /** As node/provider/lease-stream.ts. */
  hearLease(link: Link, frame: LeaseFrame): void {
    const buyer = link.remoteOf(this);
    try {
      if (frame.type === 'accept') this.#acceptLease(link, buyer, frame);
      if (frame.type === 'submit')
        this.#jobs.submit(link, this.#jobs.own(buyer, frame.lease), frame.task, this.at.world.nowMs);
      if (frame.type === 'attach') this.#attach(link, this.#jobs.own(buyer, frame.lease));
      if (frame.type === 'cancel')
        this.#jobs.dispatch(this.#jobs.own(buyer, frame.lease).agreement.lease, { type: 'cancel' });
      if (frame.type === 'settle') this.#settle(link, this.#jobs.own(buyer, frame.lease), frame.amount);
    } catch (error) {
      if (!(error instanceof MoltError)) throw error;
      link.send(this, { type: 'refused', error } satisfies LeaseFrame);
    }
  }

  #acceptLease(link: Link, buyer: Address, frame: LeaseFrame & { type: 'accept' }): void {
    const { chain } = this.at;
    const quote = quoteFor(this.seller, frame.quote, buyer, this.moment());
    const lease = chain.leaseAddress(frame.budget, quote.id);
    const terms = this.termsOf(quote, frame.budget);
    for (const effect of this.decide({ type: 'quote-accepted', quote: quote.id, buyer, lease })) {
      if (effect.type === 'refuse-lease') throw effect.reason;
    }
    this.#assertMayAccept(quote.id, buyer);
    chain.promises.set(lease, quote.bid);
    this.#jobs.accept(this.agreement(lease, terms, quote), () => {
      const signature = this.at.chain.sign(this.key, { event: 'open', lease, terms });
      link.send(this, { type: 'accepted', terms, signature } satisfies LeaseFrame);
    });
  }

  /** What the seller machine has just allowed, seen from outside: each quote once, by its buyer, in its time. */
  #assertMayAccept(id: string, buyer: Address): void {
    const sent = this.#sent.get(id);
    this.#sent.delete(id);
    if (sent === undefined) throw new Violation(`${this.name} took quote ${id}, which is not out, or was taken`);
    if (sent.buyer !== buyer) throw new Violation(`${this.name} took quote ${id} of ${sent.buyer} from ${buyer}`);
    if (sent.expiresMs <= this.now()) throw new Violation(`${this.name} took quote ${id} after it expired`);
    if (this.seller.isDraining) throw new Violation(`${this.name} took quote ${id} while it drains`);
  }

  termsOf({ id, content, buyer }: OpenQuote, budget: Address): Terms {
    const { pricePerSecond, amount, reserve, openBeforeMs, finishByMs, graceMs, windowMs } = content;
    const who = { quote: id, budget, provider: this.account, operator: this.address, delegate: buyer };
    return { ...who, pricePerSecond, amount, reserve, openBeforeMs, finishByMs, graceMs, windowMs };
  }

  #attach(link: Link, job: Job): void {
    this.#jobs.follow(link, job);
    this.#jobs.tellFollower(job);
  }

  #settle(link: Link, job: Job, amount: bigint): void {
    const { lease } = job.agreement;
    if (job.outcome === undefined || amount < BigInt(job.outcome.claimed))
      throw new MoltError('proof/wrong-metering', 'the settlement pays less than the proof claims');
    const signature = this.at.chain.sign(this.key, { event: 'settleAgreed', lease, amount });
    link.send(this, { type: 'settle-signed', signature } satisfies LeaseFrame);
  }

  /** An answer that comes after this life is over is not heard. */
  mine<Argument>(run: (argument: Argument) => void): (argument: Argument) => void {
    const { life } = this;
    return (argument) => {
      if (this.isUp && this.life === life) run(argument);
    };
  }

  #watchLease(lease: LeaseAccount): void {
    if (lease.terms.operator === this.address && isLeaseEnd(lease.state) && this.isUp) this.#jobs.watchLease(lease);
  }

  /** What a run of it comes to here. */
  resultOf({ result }: Task): string {
    return result;
  }

  /** Seen from outside, as its run begins: nothing runs that the policy rules out. */
  assertMayRun({ runMs, image }: Task): void {
    if (!this.isHonest) return;
    const { blackouts } = this.options.policy;
    const closed = blackouts?.next(this.now(), this.now() + runMs);
    if (closed !== undefined) throw new Violation(`${this.name} runs a job into its closed hours ${closed.text}`);
    if (this.#blocks(warmPrefix(image))) throw new Violation(`${this.name} runs ${image}, which it does not want`);
  }

  /** By the name that a bid has for it. */
  #blocks(image: string): boolean {
    return this.options.policy.images?.blocked.some(({ prefix }) => prefix === image) === true;
  }

  /** What the seller machine is about to sign, held against the bid: nothing that it asks for is passed over. */
  #assertMayPromise({ bid, content }: SellerEffect & { type: 'sign-quote' }): void {
    if (!this.isHonest) return;
    const { stakeMin, reserveMin, hardwareTierMin, startByMs, finishByMs, windowMs, warm, near } = bid.content;
    const { warmSeconds = 0, coldSeconds = 0 } = this.options.policy.starts ?? {};
    const isWarm = this.engine.warm.some((image) => warmPrefix(image) === warm);
    const leastMs = (isWarm ? warmSeconds : coldSeconds) * 1_000;
    const { stake = 0n } = this.at.chain.providers.get(this.account) ?? {};
    const broken = [
      stake < stakeMin && 'has less stake than is asked for',
      content.reserve < reserveMin && 'sets less stake aside than is asked for',
      hardwareTierMin !== 'A0' && `cannot show hardware of tier ${hardwareTierMin}`,
      startByMs > 0 && startByMs - this.now() < leastMs && 'cannot start so soon',
      content.startByMs !== startByMs && 'promises another start',
      finishByMs > 0 && content.finishByMs > finishByMs && 'finishes too late',
      content.windowMs < windowMs && 'leaves too little time to compare',
      content.warm !== isWarm && 'does not say what it has at hand',
      content.near.some((name) => !near.includes(name)) && 'tells of inputs that nobody asked for',
      this.#blocks(warm) && 'does not run this image',
    ].find((one) => one !== false);
    if (broken !== undefined) throw new Violation(`${this.name} quotes, and ${broken}`);
  }

  #sendQuote(quote: OpenQuote): void {
    this.#sent.set(quote.id, quote);
    const link = this.#answer(quote.buyer, { bid: quote.content.bid, quote: quote.bytes }, () =>
      this.do({ type: 'quote-ended', quote: quote.id }),
    );
    this.after(quote.expiresMs - this.now(), 'a quote runs out', () => {
      this.do({ type: 'quote-expired', quote: quote.id });
      link.close(this);
    });
  }

  #answer(buyer: Address, answer: BidAnswerFrame, onEnd: () => void = () => undefined): Link {
    this.at.world.count('answers');
    const link = this.at.network.connect(this, buyer, 'quote', { onFrame: () => undefined, onEnd });
    link.send(this, answer);
    return link;
  }

  #repeatOffers(): void {
    this.after(OFFER_REPEAT_MS, 'repeats its offer', () => {
      if (this.at.isFrozen) return;
      this.do({ type: 'offer-repeat' });
      this.#repeatOffers();
    });
  }

  /** A life goes on with numbers above all that this key ever signed, whatever the clock says. */
  #noteSigned(sequence: number, id: string): void {
    const other = this.signed.get(sequence);
    if (other !== undefined && other !== id && this.isHonest)
      throw new Violation(`${this.name} signed number ${sequence} twice`);
    if (sequence <= this.#signedBefore && this.isHonest)
      throw new Violation(`${this.name} signed number ${sequence} after ${this.#signedBefore}`);
    this.signed.set(sequence, id);
  }

  /** What it signs with a lease. */
  agreement(lease: Address, terms: Terms, { id, bid, gpus, content }: OpenQuote): Agreement {
    return {
      lease,
      quoteId: id,
      budget: terms.budget,
      provider: terms.provider,
      operator: terms.operator,
      delegate: terms.delegate,
      buyerAddresses: [],
      specDigest: '',
      termsDigest: '',
      amount: String(terms.amount),
      pricePerSecond: String(terms.pricePerSecond),
      reserve: String(terms.reserve),
      openBeforeMs: terms.openBeforeMs,
      finishByMs: terms.finishByMs,
      graceMs: terms.graceMs,
      windowMs: terms.windowMs,
      need: bid.need,
      gpus,
      runtime: bid.runtime,
      durationSecondsMax: bid.durationSecondsMax,
      ...(bid.near.length === 0 ? {} : { near: bid.near }),
      ...(content.startByMs === 0 ? {} : { startByMs: content.startByMs }),
      acceptedAtMs: this.now(),
    };
  }

  /** Jobs that are not closed. */
  get openJobs(): readonly Job[] {
    return [...this.#jobs.all.values()].filter(({ phase }) => phase !== 'closed');
  }

  /** What it has promised to leases and quotes that are alive, for the invariants. */
  free(): Resources {
    return freeResources(this.seller.capacity, this.now());
  }
}

export interface BidAnswerFrame {
  readonly bid: string;
  readonly quote?: Uint8Array;
  readonly declined?: MoltError;
}
