/**
 * A provider of the simulation: the real seller machine (market/seller.ts) and the real job machine (node/provider/job.ts)
 * in a shell as thin as the node's, with a journal that survives crashes and an engine whose runs may survive them too.
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
import {
  type Agreement,
  type Effect,
  type Input,
  type Job,
  OPEN_SLACK_MS,
  acceptJob,
  decide,
} from '../../node/provider/job.ts';
import type { Address } from '../../protocol/address.ts';
import type { Verified } from '../../protocol/brands.ts';
import { sealEnvelope } from '../../protocol/envelope.ts';
import type { Verdict } from '../../protocol/errors.ts';
import { MoltError } from '../../protocol/errors.ts';
import { isLeaseEnd } from '../../protocol/lease.ts';
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
import type { Link, LinkEnd } from './network.ts';
import { NETWORK, Peer, type PeerOptions, type Surroundings, addressOf } from './peer.ts';
import { Violation } from './world.ts';

export interface ProviderOptions extends PeerOptions {
  readonly total: Resources;
  readonly stake: bigint;
  readonly region: string;
  readonly policy: SellingPolicy;
}

/** Frames of the lease stream, as objects: their bytes are node/'s and test/integration's matter. */
export type LeaseFrame =
  | { readonly type: 'accept'; readonly quote: string; readonly budget: Address }
  | { readonly type: 'submit'; readonly lease: Address; readonly runMs: number }
  | { readonly type: 'attach'; readonly lease: Address }
  | { readonly type: 'settle'; readonly lease: Address; readonly amount: bigint }
  | { readonly type: 'cancel'; readonly lease: Address }
  | { readonly type: 'accepted'; readonly terms: Terms; readonly signature: Uint8Array }
  | { readonly type: 'settle-signed'; readonly signature: Uint8Array }
  | { readonly type: 'refused'; readonly error: MoltError }
  | { readonly type: 'failed'; readonly error: MoltError }
  | { readonly type: 'proof'; readonly claimed: bigint }
  | { readonly type: 'closed' };

/** What a crash leaves. Writes become durable in their order, some time after they began. */
interface Journal {
  sequence: number;
  readonly jobs: Map<Address, Job>;
  pending: { readonly apply: () => void; readonly done: () => void }[];
}

/** A run in the engine, by lease: outlives the node's process, not the machine. */
interface Run {
  readonly startedMs: number;
  readonly endsMs: number;
}

const TICK_MS = 1_000;
const WATCH_MS = 500;
const FUNDED_PATIENCE_MS = 10_000;

export class Provider extends Peer {
  readonly account: Address;
  readonly options: ProviderOptions;
  readonly isHonest: boolean = true;
  /** True for one that sells what it does not have. */
  readonly cannotRun: boolean = false;
  seller: SellerState;
  readonly jobs = new Map<Address, Job>();
  /** Newest sequence that was published, and whether it was a withdrawal. */
  published: { sequence: number; revoked: boolean } | undefined;
  /** Quotes that went out, of every life: what may be accepted, by whom, until when. */
  readonly #sent = new Map<string, Pick<OpenQuote, 'buyer' | 'expiresMs'>>();
  /** Everything that this key signed, by number: two of one number are an equivocation. */
  readonly signed = new Map<number, string>();
  /** The highest number of earlier lives. */
  #signedBefore = 0;
  readonly journal: Journal = { sequence: 0, jobs: new Map(), pending: [] };
  readonly #runs = new Map<Address, Run>();
  readonly #followers = new Map<Address, Link>();
  readonly #inputs = new Map<Address, Input[]>();
  readonly #ticking = new Set<Address>();

  constructor(name: string, at: Surroundings, options: ProviderOptions) {
    super(name, at, options);
    this.options = options;
    this.account = addressOf(name);
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
    this.jobs.clear();
    this.#followers.clear();
    this.#inputs.clear();
    this.#ticking.clear();
    this.journal.pending = [];
    for (const [lease, job] of this.journal.jobs) this.jobs.set(lease, job);
    const open = [...this.jobs].filter(([, job]) => job.phase !== 'closed');
    for (const [lease, { agreement, phase, vacated }] of open) {
      if (vacated === true) continue;
      const stake = phase === 'accepted' ? BigInt(agreement.reserve) : 0n;
      this.decide({ type: 'lease-restored', lease, need: agreement.need, gpus: agreement.gpus ?? [], stake });
    }
    for (const [lease] of open) {
      this.dispatch(lease, { type: 'restarted', adopted: this.#runs.has(lease) });
      this.#tick(lease);
      this.#lookAtLease(lease);
    }
    this.do({ type: 'opened', sequence: this.journal.sequence });
    this.#repeatOffers();
  }

  override crash(): void {
    super.crash();
    // What was being written is durable up to some point.
    const durable = this.chance.between(0, this.journal.pending.length);
    for (const { apply } of this.journal.pending.splice(0).slice(0, durable)) apply();
    // A machine that loses its power loses its containers too.
    if (this.chance.happens(0.5)) this.#runs.clear();
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
        return this.write(
          () => (this.journal.sequence = effect.upTo),
          () => undefined,
        );
      case 'sign-quote':
        return this.whenWritten(() => this.signQuote(effect));
      case 'send-quote':
        return this.#sendQuote(effect.quote);
      case 'decline':
        return this.#answer(effect.bid.signer, { bid: effect.bid.id, declined: effect.reason }).close(this);
      case 'publish-offer':
        return this.whenWritten(() => this.publishOffer(effect));
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
    this.do({ type: 'bid', bid, terms: { ...this.terms(), buyer: this.standing(bid.content.budget) } });
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
        minGraceMs: 60_000,
        minWindowMs: 30_000,
        maxLeaseMs: 86_400_000,
        runtimes: ['wasm', 'container'],
        features: [],
        region: this.options.region,
      },
      speed: 100,
      warm: [],
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
      warm: [],
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
        this.#submit(link, this.#ownJob(buyer, frame.lease), frame.runMs, this.at.world.nowMs);
      if (frame.type === 'attach') this.#tellFollower(this.#follow(link, this.#ownJob(buyer, frame.lease)));
      if (frame.type === 'cancel') this.dispatch(this.#ownJob(buyer, frame.lease).agreement.lease, { type: 'cancel' });
      if (frame.type === 'settle') this.#settle(link, this.#ownJob(buyer, frame.lease), frame.amount);
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
    chain.needs.set(lease, quote.bid.need);
    const { job, effects } = acceptJob(agreementOf(lease, terms, quote, this.now()), this.now());
    this.write(
      () => this.journal.jobs.set(lease, job),
      () => {
        this.jobs.set(lease, job);
        for (const effect of effects) this.#performJob(job, effect);
        this.#tick(lease);
        const signature = this.at.chain.sign(this.key, { event: 'open', lease, terms });
        link.send(this, { type: 'accepted', terms, signature } satisfies LeaseFrame);
      },
    );
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

  /** Takes the job once its lease is seen funded. */
  #submit(link: Link, { agreement }: Job, runMs: number, sinceMs: number): void {
    const { lease } = agreement;
    if (!this.at.chain.leases.has(lease)) {
      if (this.at.world.nowMs - sinceMs > FUNDED_PATIENCE_MS) {
        const error = new MoltError('chain/account-missing', 'the lease is not on chain');
        return link.send(this, { type: 'refused', error } satisfies LeaseFrame);
      }
      return this.after(WATCH_MS, 'waits for the lease', () => {
        const job = this.jobs.get(lease);
        if (job !== undefined) this.#submit(link, job, runMs, sinceMs);
      });
    }
    this.dispatch(lease, { type: 'lease-funded' });
    this.dispatch(lease, { type: 'spec', spec: String(runMs), hasSecrets: false });
    const job = this.jobs.get(lease);
    if (job !== undefined) this.#follow(link, job);
    return undefined;
  }

  #settle(link: Link, job: Job, amount: bigint): void {
    const { lease } = job.agreement;
    if (job.outcome === undefined || amount < BigInt(job.outcome.claimed))
      throw new MoltError('proof/wrong-metering', 'the settlement pays less than the proof claims');
    const signature = this.at.chain.sign(this.key, { event: 'settleAgreed', lease, amount });
    link.send(this, { type: 'settle-signed', signature } satisfies LeaseFrame);
  }

  #ownJob(buyer: Address, lease: Address): Job {
    const job = this.jobs.get(lease);
    if (job === undefined || job.agreement.delegate !== buyer)
      throw new MoltError('job/unknown', 'no such lease of yours is known here');
    return job;
  }

  #follow(link: Link, job: Job): Job {
    this.#followers.set(job.agreement.lease, link);
    return job;
  }

  #tellFollower(job: Job): void {
    const link = this.#followers.get(job.agreement.lease);
    const { failure, outcome } = job;
    let frame: LeaseFrame | undefined;
    if (failure !== undefined) frame = { type: 'failed', error: new MoltError(failure.code, failure.message) };
    else if (outcome !== undefined) frame = { type: 'proof', claimed: BigInt(outcome.claimed) };
    else if (job.phase === 'closed') frame = { type: 'closed' };
    if (frame !== undefined) link?.send(this, frame);
  }

  /** Inputs of one job are applied one after the other, each decision journaled before its effects. */
  dispatch(lease: Address, input: Input): void {
    const waiting = this.#inputs.get(lease);
    if (waiting !== undefined) {
      waiting.push(input);
      return;
    }
    const job = this.jobs.get(lease);
    if (job === undefined) return;
    const { job: next, effects } = decide(job, input, this.now());
    if (next === job && effects.length === 0) return;
    this.#inputs.set(lease, []);
    this.write(
      () => this.journal.jobs.set(lease, next),
      () => {
        this.jobs.set(lease, next);
        for (const effect of effects) this.#performJob(next, effect);
        if (next.phase !== job.phase) this.#entered(next);
        const rest = this.#inputs.get(lease) ?? [];
        this.#inputs.delete(lease);
        for (const one of rest) this.dispatch(lease, one);
      },
    );
  }

  #entered(job: Job): void {
    const { lease } = job.agreement;
    if (job.phase === 'queued') this.do({ type: 'lease-funded', lease });
    if (job.phase === 'done' || job.phase === 'refunding' || job.phase === 'closed') this.#tellFollower(job);
    if (job.phase === 'running') {
      const run = this.#runs.get(lease);
      if (run !== undefined) this.#awaitExit(job, run);
    }
  }

  #performJob(job: Job, effect: Effect): void {
    const { lease } = job.agreement;
    const { attempt } = job;
    const soon = (what: string, input: () => Input): void =>
      this.after(this.chance.between(50, 2_000), what, () => this.dispatch(lease, input()));
    switch (effect.type) {
      case 'await-lease':
        return this.#awaitLease(job.agreement);
      case 'fetch':
        return soon('fetched', () =>
          this.chance.happens(0.05)
            ? { type: 'failed', attempt, failure: { code: 'job/input-missing', message: 'no such content' } }
            : { type: 'fetched', inputs: {}, attempt },
        );
      case 'prepare':
        return soon('prepared', () => ({ type: 'prepared', attempt }));
      case 'start':
        return soon('started', () => (this.cannotRun ? failedStart(attempt) : this.#startRun(job)));
      case 'adopt': {
        const run = this.#runs.get(lease);
        if (run === undefined) return undefined;
        if (job.phase === 'starting') this.dispatch(lease, { type: 'started', attempt, startedAtMs: run.startedMs });
        return this.#awaitExit(job, run);
      }
      case 'collect':
        return soon('collected', () => this.#collect(job));
      case 'stop':
        return this.#stopRun(job);
      case 'claim':
      case 'settle-lapsed':
      case 'refund':
        return this.#onChain(job, effect.type);
      case 'release':
        if ((this.#runs.get(lease)?.endsMs ?? 0) > this.at.world.nowMs)
          throw new Violation(`${this.name} gives away what the run of lease ${lease} still uses`);
        return this.do({ type: 'lease-ended', lease });
      default:
        return undefined;
    }
  }

  #startRun(job: Job): Input {
    const startedMs = this.at.world.nowMs;
    const { blackouts } = this.options.policy;
    const closed = blackouts?.next(this.now(), this.now() + Number(job.spec ?? '0'));
    if (closed !== undefined && this.isHonest)
      throw new Violation(`${this.name} runs a job into its closed hours ${closed.text}`);
    this.#runs.set(job.agreement.lease, { startedMs, endsMs: startedMs + Number(job.spec ?? '0') });
    return { type: 'started', attempt: job.attempt, startedAtMs: startedMs };
  }

  #awaitExit(job: Job, run: Run): void {
    const { lease } = job.agreement;
    this.after(run.endsMs - this.at.world.nowMs, 'a run ends', () => {
      if (this.#runs.get(lease) === run) this.#exit(job, run, run.endsMs);
    });
  }

  #stopRun(job: Job): void {
    const { lease } = job.agreement;
    const run = this.#runs.get(lease);
    this.#runs.delete(lease);
    if (run !== undefined && job.phase === 'running') this.#exit(job, run, this.at.world.nowMs);
  }

  #exit({ agreement, attempt }: Job, { startedMs }: Run, endedMs: number): void {
    const exit = {
      reason: 'exited',
      exitCode: 0,
      detail: '',
      startedAtMs: startedMs,
      finishedAtMs: endedMs,
      durationMs: endedMs - startedMs,
      cpuMs: 0,
      memoryPeakBytes: 0,
      fuel: undefined,
    };
    this.dispatch(agreement.lease, { type: 'exited', attempt, exit });
  }

  #collect(job: Job): Input {
    const seconds = BigInt(Math.ceil((job.exit?.durationMs ?? 0) / 1000));
    const owed = seconds * BigInt(job.agreement.pricePerSecond);
    const lock = BigInt(job.agreement.amount);
    const claimed = String(owed < lock ? owed : lock);
    return {
      type: 'collected',
      attempt: job.attempt,
      outcome: { proofDigest: job.agreement.lease, claimed, outputs: [] },
    };
  }

  #onChain(job: Job, what: 'claim' | 'settle-lapsed' | 'refund'): void {
    const { chain } = this.at;
    const { lease } = job.agreement;
    const found = chain.leases.get(lease);
    if (found === undefined || isLeaseEnd(found.state)) return this.dispatch(lease, { type: 'lease-closed' });
    if (what === 'claim' && found.state !== 'running') return this.dispatch(lease, { type: 'claim-confirmed' });
    const event = ({ claim: 'submitProof', 'settle-lapsed': 'settleLapsed', refund: 'cancelByOperator' } as const)[
      what
    ];
    const amount = what === 'claim' ? { amount: BigInt(job.outcome?.claimed ?? '0') } : {};
    const draft = { event, lease, ...amount };
    const signatures = new Map([[this.address, this.at.chain.sign(this.key, draft)]]);
    chain.submit(
      { ...draft, signatures },
      this.mine((refusal) => {
        if (what === 'claim' && refusal === undefined) this.dispatch(lease, { type: 'claim-confirmed' });
      }),
    );
    return undefined;
  }

  /** An answer that comes after this life is over is not heard. */
  mine<Argument>(run: (argument: Argument) => void): (argument: Argument) => void {
    const { life } = this;
    return (argument) => {
      if (this.isUp && this.life === life) run(argument);
    };
  }

  /** As jobs.ts: until the chain's own clock says that the lease can no longer be opened, and it is not there. */
  #awaitLease({ lease, openBeforeMs }: Agreement): void {
    const { chain } = this.at;
    if (chain.leases.has(lease)) return this.dispatch(lease, { type: 'lease-funded' });
    if (chain.nowMs() > openBeforeMs + OPEN_SLACK_MS) return this.dispatch(lease, { type: 'lease-missing' });
    return this.after(WATCH_MS, 'awaits a lease', () => {
      if (this.jobs.get(lease)?.phase === 'accepted') this.#awaitLease(this.jobs.get(lease)!.agreement);
    });
  }

  #watchLease({ address, state, terms }: LeaseAccount): void {
    if (terms.operator !== this.address || !isLeaseEnd(state) || !this.isUp) return;
    this.after(this.chance.between(100, 1_500), 'sees its lease closed', () => this.#lookAtLease(address));
  }

  #lookAtLease(lease: Address): void {
    const found = this.at.chain.leases.get(lease);
    if (found !== undefined && isLeaseEnd(found.state)) this.dispatch(lease, { type: 'lease-closed' });
  }

  #tick(lease: Address): void {
    if (this.#ticking.has(lease)) return;
    this.#ticking.add(lease);
    const again = (): void =>
      this.after(TICK_MS, 'tick', () => {
        const phase = this.jobs.get(lease)?.phase;
        if (phase === undefined || phase === 'closed') return;
        this.dispatch(lease, { type: 'tick' });
        again();
      });
    again();
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

  /** `apply` reaches the disk after a while; `done` runs then, in this life. */
  write(apply: () => void, done: () => void): void {
    const { journal } = this;
    const write = { apply, done };
    journal.pending.push(write);
    this.after(this.chance.between(1, 30), 'journals', () => {
      // In the order of the writes, whatever each of them took.
      while (journal.pending.includes(write)) {
        const first = journal.pending.shift()!;
        first.apply();
        first.done();
      }
    });
  }

  /** After everything that is being written now: write ahead, then sign. */
  whenWritten(run: () => void): void {
    if (this.journal.pending.length === 0) run();
    else this.write(() => undefined, run);
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

function agreementOf(lease: Address, terms: Terms, { id, bid, gpus }: OpenQuote, nowMs: number): Agreement {
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
    acceptedAtMs: nowMs,
  };
}

function failedStart(attempt: number): Input {
  return { type: 'failed', attempt, failure: { code: 'job/interrupted', message: 'there is no such machine' } };
}
