/**
 * The provider's end of the market: the shell around `market/seller.ts`. Hears bids, signs and sends quotes, publishes
 * offers; every decision, and what is held for whom, is the machine's.
 */
import {
  type Admission,
  type Gpu,
  type Moment,
  type OpenQuote,
  type PlainResources,
  type ProviderFacts,
  type Sales,
  type SalesEvent,
  type SellerEffect,
  type SellerEvent,
  type SellerHeader,
  type SellerState,
  type SellerTerms,
  type SellingPolicy,
  OFFER_REPEAT_MS,
  createSeller,
  currentPrices,
  decideSeller,
  fits,
  freeResources,
  groupGpus,
  isAsked,
  quoteFor,
  recordSale,
  resumeSales,
  utilisation,
} from '../../market/index.ts';
import type { Network, PubSub } from '../../market/ports.ts';
import type { Address } from '../../protocol/address.ts';
import type { Verified } from '../../protocol/brands.ts';
import { Deadline } from '../../protocol/deadline.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import type { Env } from '../../protocol/env.ts';
import { type Envelope, sealEnvelope } from '../../protocol/envelope.ts';
import { ACCEPT, MoltError, type Verdict } from '../../protocol/errors.ts';
import { warmPrefix } from '../../protocol/job-spec.ts';
import { LIMITS } from '../../protocol/limits.ts';
import {
  type Bid,
  type Feature,
  HARDWARE_TIER_SHOWN,
  type Message,
  type Offer,
  type Quote,
  type ResourceClass,
  type Resources,
  type RuntimeKind,
  encodeOffer,
  encodeQuote,
  resourceClassOf,
} from '../../protocol/messages.ts';
import { bidsTopic, offersTopic } from '../../protocol/wire.ts';
import type { Tell } from '../events.ts';
import type { Journal } from '../journal.ts';
import { type Approve, bidQuestion } from './approval.ts';
import { type Asker, Bidders } from './bidders.ts';
import type { Buyers } from './buyers.ts';
import { Leaving } from './leaving.ts';
import { offeredOf, sealWhatFits } from './offered.ts';

export interface TradeOptions {
  readonly key: KeyPair;
  readonly networkId: Address;
  readonly pubsub: PubSub;
  readonly network: Network;
  readonly admission: Admission;
  readonly journal: Journal;
  readonly buyers: Pick<Buyers, 'standing' | 'hasRegulars'>;
  readonly total: PlainResources;
  /** Devices that are sold: each was seen inside a container. */
  readonly gpus: readonly Gpu[];
  readonly policy: SellingPolicy;
  /** The owner's own check, asked before a quote is signed where `needsApproval`. */
  readonly approve: Approve;
  readonly needsApproval: boolean;
  readonly region: string;
  readonly runtimes: () => readonly RuntimeKind[];
  readonly features: readonly Feature[];
  readonly speed: () => { readonly score: number; readonly measuredMs: number };
  readonly warm: () => readonly string[];
  /** Of inputs as bids name them, those at hand. */
  readonly near: (names: readonly string[]) => Promise<readonly string[]>;
  /** What the chain says of this provider, kept fresh by the caller. */
  readonly facts: () => Omit<ProviderFacts, 'runtimes' | 'features' | 'region' | 'draining'>;
  readonly chainNowMs: () => number;
  /** Every offer of our own: gossip does not hand it back to us, but peers pull it from our book. */
  readonly onOffer: (bytes: Uint8Array) => void;
  /** True: starts without offering anything, until `setDraining(false)`. */
  readonly draining: boolean;
  readonly tell: Tell;
}

const ADDRESSES_OFFERED = 2;
/** Name of the journal's record of bids. */
const SALES = 'sales';
const KEEP_SALES_MS = 5_000;

export class Trade implements AsyncDisposable {
  readonly #env: Env;
  readonly #options: TradeOptions;
  readonly #opened = new AsyncDisposableStack();
  readonly #offerWait = new AbortController();
  #seller: SellerState;
  #sales: Sales;
  /** As it stands in the journal. */
  #kept: Sales | undefined;
  /** The journal's latest write of the sequence; nothing is signed before it. */
  #keeping: Promise<void> = Promise.resolve();
  readonly #bidders: Bidders;
  readonly #leaving: Leaving;

  constructor(env: Env, options: TradeOptions) {
    this.#env = env;
    this.#options = options;
    this.#bidders = new Bidders(env, options.network);
    this.#leaving = new Leaving(env);
    this.#sales = resumeSales(undefined, env.clock.now());
    this.#seller = createSeller(options.total, { gpus: options.gpus, isDraining: options.draining });
  }

  /** Starts to listen and to offer. Capacity of recovered jobs must have been taken before. */
  async open(): Promise<void> {
    const { pubsub, networkId, journal } = this.#options;
    this.#opened.use(this.#bidders);
    const sequence = await journal.counter('sequence');
    this.#sales = resumeSales(parseSales(await journal.record(SALES)), this.#env.clock.now());
    this.#opened.use(this.#env.clock.every(KEEP_SALES_MS, () => this.#keepSales()));
    for (const resourceClass of new Set<ResourceClass>(['cpu', this.#class()])) {
      for (const region of new Set(['', this.#options.region])) {
        const topic = bidsTopic(networkId, resourceClass, region);
        const limits = { messageBytesMax: LIMITS.bidBytes };
        this.#opened.use(await pubsub.subscribe(topic, (bytes, from) => this.#hear(bytes, from), limits));
      }
    }
    this.#opened.use(this.#env.clock.every(OFFER_REPEAT_MS, () => this.#offer('offer-repeat')));
    await this.#dispatch({ type: 'opened', sequence });
  }

  get total(): Resources {
    return { ...this.#options.total, gpus: groupGpus(this.#options.gpus) };
  }

  get draining(): boolean {
    return this.#seller.isDraining;
  }

  /** On: the offer is withdrawn, open quotes are void, and bids are declined. Off: offers again. Leases go on either way. */
  async setDraining(on: boolean): Promise<void> {
    await this.#dispatch({ type: 'draining', on });
  }

  /** 0 … 1: the fullest dimension. */
  utilisation(): number {
    return utilisation(this.#seller.capacity, this.#env.clock.now());
  }

  free(): Resources {
    return freeResources(this.#seller.capacity, this.#env.clock.now());
  }

  /** Throws `market/quote-unknown`, `market/draining`, `protocol/wrong-signer`. */
  quote(id: string, buyer: Address): OpenQuote {
    return quoteFor(this.#seller, id, buyer, this.#moment());
  }

  /** The quote becomes a lease: its capacity stays until `endLease`. Throws as `quote`, and `market/quote-expired`. */
  takeOver(quote: OpenQuote, lease: Address): void {
    const effects = this.#decide({ type: 'quote-accepted', quote: quote.id, buyer: quote.buyer, lease });
    for (const effect of effects) if (effect.type === 'refuse-lease') throw effect.reason;
    this.#note({ type: 'won', bid: quote.content.bid });
  }

  /** Takes capacity for a lease that the journal remembers. */
  restoreLease(lease: Address, taken: { need: Resources; gpus: readonly string[]; stake: bigint }): void {
    this.#decide({ type: 'lease-restored', lease, ...taken });
  }

  /** GPUs that a lease has: not those that are only promised. */
  leasedGpus(): ReadonlySet<string> {
    const leases = [...this.#seller.capacity.reservations.values()].filter(({ expiresMs }) => expiresMs === undefined);
    return new Set(leases.flatMap(({ gpus }) => gpus));
  }

  /** These devices go to nobody until the next call says otherwise; leases that have one keep it. */
  withholdGpus(ids: ReadonlySet<string>): void {
    void this.#dispatch({ type: 'gpus-withheld', ids });
  }

  /** Peers reach this node elsewhere now. */
  moved(): void {
    void this.#dispatch({ type: 'offer-changed' });
  }

  stakeReserved(lease: Address): void {
    this.#decide({ type: 'lease-funded', lease });
  }

  /** Its capacity is free when `gone` settles, that is when nothing of it is left; bids that lack it wait a moment for it. */
  endLease(lease: Address, gone: Promise<void> = Promise.resolve()): void {
    const end = (): void => void this.#dispatch({ type: 'lease-ended', lease });
    this.#leaving.add(gone.then(end, end));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#offerWait.abort();
    const revoking = this.#dispatch({ type: 'closed' }).catch(() => undefined);
    await this.#opened.disposeAsync();
    await revoking;
    await this.#keepSales();
  }

  /** What became of the bids heard since the record began, in earlier starts too. */
  get sales(): Sales {
    return this.#sales;
  }

  /** A crash loses the last seconds of the record, and nothing else. */
  async #keepSales(): Promise<void> {
    if (this.#kept === this.#sales) return;
    this.#kept = this.#sales;
    const bytes = Buffer.from(JSON.stringify(this.#sales));
    await this.#options.journal
      .setRecord(SALES, bytes)
      .catch((error: unknown) => this.#env.logger.log('warn', 'the record of sales could not be kept', { error }));
  }

  #note(event: SalesEvent): void {
    this.#sales = recordSale(this.#sales, event, this.#env.clock.now());
  }

  #moment(): Moment {
    return { nowMs: this.#env.clock.now(), monotonicMs: this.#env.clock.monotonic() };
  }

  #decide(event: SellerEvent): readonly SellerEffect[] {
    const { state, effects } = decideSeller(this.#seller, event, this.#moment());
    this.#seller = state;
    return effects;
  }

  /** Decides and performs. Resolves when every effect is done; rejects with what the first failed one throws. */
  async #dispatch(event: SellerEvent): Promise<void> {
    await Promise.all(this.#decide(event).map((effect) => this.#perform(effect)));
  }

  async #perform(effect: SellerEffect): Promise<void> {
    const { tell, journal } = this.#options;
    switch (effect.type) {
      case 'keep-sequence':
        this.#keeping = journal.setCounter('sequence', effect.upTo);
        return this.#keeping;
      case 'check-bid':
        return this.#check(effect.bid, effect.content);
      case 'sign-quote':
        return this.#sign(effect.bid, effect.content, effect.header);
      case 'send-quote':
        return this.#send(effect.quote);
      case 'decline':
        return this.#decline(effect.bid, effect.reason);
      case 'release-quote':
        this.#note({ type: 'lost', bid: effect.quote.content.bid });
        return tell({ type: 'hold-released', quote: effect.quote.id, reason: effect.reason });
      case 'publish-offer':
        return this.#publish(effect);
      case 'offer-later':
        this.#env.clock
          .sleep(effect.waitMs, this.#offerWait.signal)
          .then(() => this.#offer('offer-due'))
          .catch(() => undefined);
        return undefined;
      case 'take-lease':
      case 'refuse-lease':
        // `takeOver` has read these: its caller waits for the answer.
        return undefined;
      default:
        return effect satisfies never;
    }
  }

  /** An offer that does not get out is not the end: the next one follows. */
  async #offer(type: 'offer-due' | 'offer-repeat'): Promise<void> {
    try {
      await this.#dispatch({ type });
    } catch (error) {
      if (!(error instanceof MoltError)) throw error;
      this.#options.tell({ type: 'trouble', what: 'offer', code: error.code, reason: error.message });
    }
  }

  /** Where this machine is found. Jobs without a GPU may be bid to it as well. */
  #class(): ResourceClass {
    const { devices } = this.#seller.capacity;
    return resourceClassOf({ ...this.#options.total, gpus: devices.length > 0 ? this.free().gpus : [] });
  }

  async #publish({ free, revoked, header }: SellerEffect & { type: 'publish-offer' }): Promise<void> {
    const { key, networkId, pubsub, policy, network, tell } = this.#options;
    const speed = this.#options.speed();
    const content: Offer = {
      provider: this.#options.facts().address,
      free: offeredOf(free),
      runtimes: this.#options.runtimes(),
      features: this.#options.features,
      hardwareTier: HARDWARE_TIER_SHOWN,
      prices: currentPrices(policy, this.utilisation()),
      speed: speed.score,
      speedMeasuredMs: speed.measuredMs,
      region: this.#options.region,
      durationSecondsMax: policy.durationSecondsMax,
      warm: this.#options.warm().map(warmPrefix).slice(0, LIMITS.warmPerOffer),
      addresses: network.addresses.slice(0, ADDRESSES_OFFERED),
      revoked,
    };
    await this.#keeping;
    const envelope = sealWhatFits(content, (offer) =>
      sealEnvelope(key, 'offer', { network: networkId, ...header }, encodeOffer(offer)),
    );
    for (const shard of new Set(['', content.region])) {
      await pubsub.publish(offersTopic(networkId, this.#class(), shard), envelope.bytes);
    }
    this.#options.onOffer(envelope.bytes);
    tell({ type: 'offer-published', sequence: envelope.sequence, revoked });
  }

  #hear(bytes: Uint8Array, from: Address): Verdict {
    const { verdict, message } = this.#options.admission.bid(bytes, from, this.#env.clock.now());
    if (message === undefined) {
      this.#options.tell({ type: 'bid-refused', code: verdict.code, reason: verdict.reason });
      return verdict;
    }
    void this.#answer(message, from);
    return ACCEPT;
  }

  /**
   * Nothing is held for a stranger before the chain has seen his money and there is a stream to him: bids that nobody can
   * pay for, or from addresses where nobody answers, would otherwise take up all capacity, each for as long as it may last.
   */
  async #answer(bid: Verified<Message<Bid>>, from: Address): Promise<void> {
    const { facts, network, tell, buyers } = this.#options;
    if (!isAsked(bid, facts().address)) return this.#note({ type: 'not-asked' });
    this.#note({ type: 'asked', bid });
    try {
      const known = await buyers.standing(bid, from);
      if (!network.isConnected(bid.signer)) {
        // Who has no money is not dialled to be told so.
        if (known instanceof MoltError) throw known;
        await this.#bidders.meet(askerOf(bid));
      }
      // Where a stranger comes from is known now.
      const buyer = known instanceof MoltError ? known : await buyers.standing(bid, from);
      const near = await this.#options.near(bid.content.near);
      await this.#leaving.until(() => fits(bid.content.need, this.free()) === undefined);
      await this.#dispatch({ type: 'bid', bid, terms: { ...this.#terms(buyer), near } });
    } catch (error) {
      const code = error instanceof MoltError ? error.code : 'mesh/unreachable';
      tell({ type: 'bid-declined', bid: bid.id, code, reason: (error as Error).message });
    }
  }

  #terms(buyer: SellerTerms['buyer']): SellerTerms {
    const { policy, region, features, chainNowMs } = this.#options;
    return {
      policy,
      provider: { ...this.#options.facts(), runtimes: this.#options.runtimes(), features, region },
      speed: this.#options.speed().score,
      warm: this.#options.warm(),
      chainNowMs: chainNowMs(),
      buyer,
      hasRegulars: this.#options.buyers.hasRegulars,
      needsApproval: this.#options.needsApproval,
    };
  }

  async #check(bid: Verified<Message<Bid>>, content: Quote): Promise<void> {
    const refused = await this.#options.approve(bidQuestion(bid, content));
    await this.#dispatch({ type: 'bid-checked', bid, content, refused });
  }

  async #decline(bid: Verified<Message<Bid>>, reason: MoltError): Promise<void> {
    const { tell } = this.#options;
    this.#note({ type: 'declined', bid: bid.id, reason });
    tell({ type: 'bid-declined', bid: bid.id, code: reason.code, reason: reason.message });
    await this.#bidders.decline(askerOf(bid), reason);
  }

  /** Write ahead, then sign. */
  async #sign(bid: Verified<Message<Bid>>, content: Quote, header: SellerHeader): Promise<void> {
    const { key, networkId } = this.#options;
    let envelope: Envelope;
    try {
      await this.#keeping;
      envelope = sealEnvelope(key, 'quote', { network: networkId, ...header }, encodeQuote(content));
    } catch (error) {
      this.#decide({ type: 'quote-unsigned', bid: bid.id });
      throw error;
    }
    const { id, expiresMs, bytes } = envelope;
    const quote = { id, buyer: bid.signer, content, bid: bid.content, expiresMs, bytes };
    await this.#dispatch({ type: 'quote-signed', quote });
  }

  /** Sends, then waits for the buyer to accept, to let go, or for the time to run out. */
  async #send(quote: OpenQuote): Promise<void> {
    const { tell } = this.#options;
    const { id, buyer, content, bid, bytes } = quote;
    this.#note({ type: 'quoted', bid: content.bid, pricePerSecond: content.pricePerSecond });
    tell({ type: 'quoted', bid: content.bid, quote: id, pricePerSecond: content.pricePerSecond });
    using expiry = new Deadline(this.#env.clock, LIMITS.quoteLifetimeMs);
    try {
      await this.#bidders.quote({ bid: content.bid, bidder: buyer, addresses: bid.addresses }, bytes, expiry.signal);
    } finally {
      await this.#dispatch({ type: expiry.expired ? 'quote-expired' : 'quote-ended', quote: id });
    }
  }
}

function askerOf({ id, signer, content }: Verified<Message<Bid>>): Asker {
  return { bid: id, bidder: signer, addresses: content.addresses };
}

/** One that this version cannot read begins anew. */
function parseSales(kept: Uint8Array | undefined): Sales | undefined {
  if (kept === undefined) return undefined;
  const read = JSON.parse(Buffer.from(kept).toString()) as Partial<Sales>;
  const isSales = Array.isArray(read.sales) && Number.isInteger(read.restarts) && Number.isInteger(read.sinceMs);
  return isSales ? (read as Sales) : undefined;
}
