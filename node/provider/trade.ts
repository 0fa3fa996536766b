/**
 * The provider's side of the market: says what is free, answers bids with firm quotes, and holds capacity for each.
 *
 * Contract: a quote is sent only after its capacity and stake are set aside, and they stay so until the quote expires,
 * the buyer lets go (closes the stream the quote came on), or a lease takes them over. So nothing is sold twice, and a
 * silent buyer blocks nothing for longer than one quote lives.
 */
import {
  type Admission,
  type Capacity,
  type Gpu,
  type PlainResources,
  type PricePolicy,
  type ProviderFacts,
  answerBid,
  createCapacity,
  freeResources,
  groupGpus,
  isAsked,
  keep,
  nextSequence,
  OFFER_REPEAT_MS,
  promisedStake,
  release,
  reserve,
  restore,
  utilisation,
  withhold,
} from '../../market/index.ts';
import type { Network, PubSub } from '../../market/ports.ts';
import type { Address } from '../../protocol/address.ts';
import type { Verified } from '../../protocol/brands.ts';
import { Deadline } from '../../protocol/deadline.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import type { Env } from '../../protocol/env.ts';
import { type Envelope, sealEnvelope } from '../../protocol/envelope.ts';
import { ACCEPT, MoltError, type Verdict, hasCode } from '../../protocol/errors.ts';
import { warmPrefix } from '../../protocol/job-spec.ts';
import { LIMITS } from '../../protocol/limits.ts';
import {
  type Bid,
  type Feature,
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
import { BidAnswer } from '../../protocol/molt.js';
import { baseUnits } from '../../protocol/units.ts';
import { STREAMS, bidsTopic, offersTopic, toRefusal } from '../../protocol/wire.ts';
import type { Tell } from '../events.ts';
import type { Journal } from '../journal.ts';

/** A quote that was sent and can still be accepted. */
export interface OpenQuote {
  readonly id: string;
  readonly buyer: Address;
  readonly content: Quote;
  readonly bid: Bid;
  readonly expiresMs: number;
  /** Ids of the GPUs that are set aside for it. */
  readonly gpus: readonly string[];
}

export interface TradeOptions {
  readonly key: KeyPair;
  readonly networkId: Address;
  readonly pubsub: PubSub;
  readonly network: Network;
  readonly admission: Admission;
  readonly journal: Journal;
  readonly total: PlainResources;
  /** Devices that are sold: each was seen inside a container. */
  readonly gpus: readonly Gpu[];
  readonly policy: PricePolicy;
  readonly region: string;
  readonly runtimes: () => readonly RuntimeKind[];
  readonly features: readonly Feature[];
  readonly speed: () => { readonly score: number; readonly measuredMs: number };
  readonly warm: () => readonly string[];
  /** What the chain says of this provider, kept fresh by the caller. */
  readonly facts: () => Omit<ProviderFacts, 'runtimes' | 'features' | 'region' | 'draining'>;
  readonly chainNowMs: () => number;
  /** Every offer of our own: gossip does not hand it back to us, but peers pull it from our book. */
  readonly onOffer: (bytes: Uint8Array) => void;
  /** True: starts without offering anything, until `setDraining(false)`. */
  readonly draining: boolean;
  readonly tell: Tell;
}

const QUOTES_OPEN_MAX = 256;
const ADDRESSES_OFFERED = 2;
/** Sequence numbers are the clock's milliseconds, so this keeps the disk out of all but one message a minute. */
const SEQUENCES_AHEAD = 60_000;
/** Offers follow changes of capacity, but not faster than admission elsewhere allows an origin. */
const OFFER_MIN_GAP_MS = 5_000;

export class Trade implements AsyncDisposable {
  readonly #env: Env;
  readonly #options: TradeOptions;
  readonly #quotes = new Map<string, OpenQuote>();
  readonly #opened = new AsyncDisposableStack();
  #capacity: Capacity;
  #sequence = 0;
  /** Every number up to here counts as used after a crash. */
  #sequenceKept = 0;
  #keeping: Promise<void> = Promise.resolve();
  #lastOfferMs = -Infinity;
  #offerDue: AbortController | undefined;
  #draining: boolean;
  #closed = false;

  constructor(env: Env, options: TradeOptions) {
    this.#env = env;
    this.#options = options;
    this.#draining = options.draining;
    this.#capacity = createCapacity(options.total, options.gpus);
  }

  /** Starts to listen and to offer. Capacity of recovered jobs must have been taken before. */
  async open(): Promise<void> {
    const { pubsub, networkId, journal } = this.#options;
    this.#sequence = await journal.counter('sequence');
    this.#sequenceKept = this.#sequence;
    for (const resourceClass of new Set<ResourceClass>(['cpu', this.#class()])) {
      const topic = bidsTopic(networkId, resourceClass);
      this.#opened.use(await pubsub.subscribe(topic, (bytes, from) => this.#hear(bytes, from)));
    }
    this.#opened.use(this.#env.clock.every(OFFER_REPEAT_MS, () => this.publishOffer()));
    await this.publishOffer();
  }

  get total(): Resources {
    return { ...this.#options.total, gpus: groupGpus(this.#options.gpus) };
  }

  get draining(): boolean {
    return this.#draining;
  }

  /** On: the offer is withdrawn, open quotes are void, and bids are declined. Off: offers again. Leases go on either way. */
  async setDraining(on: boolean): Promise<void> {
    if (this.#draining === on) return;
    this.#draining = on;
    for (const quote of on ? this.#quotes.values() : []) this.#letGo(quote, 'let-go');
    this.#lastOfferMs = this.#env.clock.monotonic();
    await this.#publish(on);
  }

  /** 0 … 1: the fullest dimension. */
  utilisation(): number {
    return utilisation(this.#capacity, this.#env.clock.now());
  }

  free(): Resources {
    return freeResources(this.#capacity, this.#env.clock.now());
  }

  quote(id: string): OpenQuote | undefined {
    const found = this.#quotes.get(id);
    return found === undefined || found.expiresMs <= this.#env.clock.now() ? undefined : found;
  }

  /** The quote becomes a lease: its capacity stays until `endLease`. False when the hold is gone. */
  takeOver(quote: OpenQuote, lease: Address): boolean {
    const kept = keep(this.#capacity, quote.id, { id: lease, expiresMs: undefined }, this.#env.clock.now());
    if (kept === undefined) return false;
    this.#capacity = kept;
    this.#quotes.delete(quote.id);
    return true;
  }

  /** Takes capacity for a lease that the journal remembers. Never refuses: it is running already. */
  restoreLease(lease: Address, taken: { need: Resources; gpus: readonly string[]; stake: bigint }): void {
    this.#capacity = restore(this.#capacity, lease, { ...taken, expiresMs: undefined });
  }

  /** These devices go to nobody until the next call says otherwise; leases that have one keep it. */
  withholdGpus(ids: ReadonlySet<string>): void {
    const before = this.#capacity.withheld;
    this.#capacity = withhold(this.#capacity, ids);
    if (before.symmetricDifference(ids).size > 0) this.#offerSoon();
  }

  /** The chain has set the stake aside: it is no longer merely promised. */
  stakeReserved(lease: Address): void {
    const found = this.#capacity.reservations.get(lease);
    if (found !== undefined) this.restoreLease(lease, { ...found, stake: 0n });
  }

  endLease(lease: Address): void {
    this.#capacity = release(this.#capacity, lease);
    this.#offerSoon();
  }

  async publishOffer(): Promise<void> {
    if (this.#closed || this.#draining) return;
    this.#lastOfferMs = this.#env.clock.monotonic();
    await this.#publish(false);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#offerDue?.abort();
    await this.#opened.disposeAsync();
    await this.#publish(true).catch(() => undefined);
  }

  /** Where this machine is found. Jobs without a GPU may be bid to it as well. */
  #class(): ResourceClass {
    return resourceClassOf({ ...this.#options.total, gpus: this.#capacity.devices.length > 0 ? this.free().gpus : [] });
  }

  async #publish(revoked: boolean): Promise<void> {
    const { key, networkId, pubsub, policy, network, tell } = this.#options;
    const facts = this.#options.facts();
    const speed = this.#options.speed();
    const header = await this.#header(LIMITS.offerLifetimeMs);
    const content: Offer = {
      provider: facts.address,
      free: offeredOf(this.free()),
      runtimes: this.#options.runtimes(),
      features: this.#options.features,
      prices: policy.prices,
      speed: speed.score,
      speedMeasuredMs: speed.measuredMs,
      region: this.#options.region,
      durationSecondsMax: policy.durationSecondsMax,
      warm: this.#options.warm().map(warmPrefix).slice(0, LIMITS.warmPerOffer),
      addresses: network.addresses.slice(0, ADDRESSES_OFFERED),
      revoked,
    };
    const envelope = sealWhatFits(content, (offer) => sealEnvelope(key, 'offer', header, encodeOffer(offer)));
    await pubsub.publish(offersTopic(networkId, this.#class()), envelope.bytes);
    this.#options.onOffer(envelope.bytes);
    tell({ type: 'offer-published', sequence: envelope.sequence, revoked });
  }

  /** Write ahead, then sign: a crash must not make us sign the same sequence twice. */
  async #header(
    lifetimeMs: number,
  ): Promise<{ network: Address; sequence: number; issuedMs: number; expiresMs: number }> {
    const nowMs = this.#env.clock.now();
    this.#sequence = nextSequence(this.#sequence, nowMs);
    const sequence = this.#sequence;
    if (sequence > this.#sequenceKept) {
      this.#sequenceKept = sequence + SEQUENCES_AHEAD;
      this.#keeping = this.#options.journal.setCounter('sequence', this.#sequenceKept);
    }
    await this.#keeping;
    return { network: this.#options.networkId, sequence, issuedMs: nowMs, expiresMs: nowMs + lifetimeMs };
  }

  #hear(bytes: Uint8Array, from: Address): Verdict {
    const { verdict, message } = this.#options.admission.bid(bytes, from, this.#env.clock.now());
    if (message === undefined) {
      this.#options.tell({ type: 'bid-refused', code: verdict.code, reason: verdict.reason });
      return verdict;
    }
    if (isAsked(message, this.#options.facts().address)) {
      void this.#answer(message).catch((error: unknown) => {
        const code = error instanceof MoltError ? error.code : 'mesh/unreachable';
        this.#options.tell({ type: 'bid-declined', bid: message.id, code, reason: (error as Error).message });
      });
    }
    return ACCEPT;
  }

  async #answer(bid: Verified<Message<Bid>>): Promise<void> {
    const { tell, network, speed } = this.#options;
    const nowMs = this.#env.clock.now();
    const facts = this.#options.facts();
    const freeStake = facts.freeStake - promisedStake(this.#capacity, nowMs);
    const answer = answerBid({
      bid,
      policy: this.#options.policy,
      provider: {
        ...facts,
        freeStake: baseUnits(freeStake > 0n ? freeStake : 0n),
        runtimes: this.#options.runtimes(),
        features: this.#options.features,
        region: this.#options.region,
        draining: this.#draining || this.#closed || this.#quotes.size >= QUOTES_OPEN_MAX,
      },
      free: this.free(),
      utilisation: utilisation(this.#capacity, nowMs),
      speed: speed().score,
      warm: this.#options.warm().map(warmPrefix).includes(bid.content.warm),
      nowMs,
      chainNowMs: this.#options.chainNowMs(),
    });
    if ('declined' in answer) {
      const { code, message } = answer.declined;
      tell({ type: 'bid-declined', bid: bid.id, code, reason: message });
      const channel = await network.open(bid.signer, STREAMS.quote.protocol, { addresses: bid.content.addresses });
      await channel.send(BidAnswer.encode({ bid: Buffer.from(bid.id, 'hex'), declined: toRefusal({ code, message }) }));
      await channel.close();
      return;
    }
    await this.#sendQuote(bid, answer.quote);
  }

  /** Holds first, then sends, then waits for the buyer to accept, to let go, or for the time to run out. */
  async #sendQuote(bid: Verified<Message<Bid>>, content: Quote): Promise<void> {
    const { key, network, tell } = this.#options;
    // Held under the bid's name until the quote has one: signing needs the journal, and nothing may slip in between.
    const holdUntilMs = this.#env.clock.now() + LIMITS.quoteLifetimeMs;
    this.#capacity = reserve(
      this.#capacity,
      bid.id,
      { need: bid.content.need, stake: content.reserve, expiresMs: holdUntilMs },
      this.#env.clock.now(),
    );
    let envelope: Envelope;
    try {
      envelope = sealEnvelope(key, 'quote', await this.#header(LIMITS.quoteLifetimeMs), encodeQuote(content));
    } catch (error) {
      this.#capacity = release(this.#capacity, bid.id);
      throw error;
    }
    const quote: OpenQuote = {
      id: envelope.id,
      buyer: bid.signer,
      content,
      bid: bid.content,
      expiresMs: envelope.expiresMs,
      gpus: this.#capacity.reservations.get(bid.id)?.gpus ?? [],
    };
    this.#capacity =
      keep(this.#capacity, bid.id, { id: quote.id, expiresMs: quote.expiresMs }, this.#env.clock.now()) ??
      this.#capacity;
    this.#quotes.set(quote.id, quote);
    tell({ type: 'quoted', bid: bid.id, quote: quote.id, pricePerSecond: content.pricePerSecond });
    this.#offerSoon();
    using expiry = new Deadline(this.#env.clock, LIMITS.quoteLifetimeMs);
    try {
      const channel = await network.open(bid.signer, STREAMS.quote.protocol, {
        addresses: bid.content.addresses,
        signal: expiry.signal,
      });
      await channel.send(BidAnswer.encode({ bid: Buffer.from(bid.id, 'hex'), quote: envelope.bytes }));
      expiry.signal.addEventListener(
        'abort',
        () => channel.abort(new MoltError('market/quote-expired', 'the quote expired')),
        { once: true },
      );
      // The buyer says nothing more here; the end of the stream is the word.
      for await (const _frame of channel) break;
      await channel.close();
    } finally {
      this.#letGo(quote, expiry.expired ? 'expired' : 'let-go');
    }
  }

  #letGo(quote: OpenQuote, reason: 'expired' | 'let-go'): void {
    if (!this.#quotes.delete(quote.id)) return;
    this.#capacity = release(this.#capacity, quote.id);
    this.#options.tell({ type: 'hold-released', quote: quote.id, reason });
    this.#offerSoon();
  }

  /** Capacity changed: tell the market, at most once in a while. */
  #offerSoon(): void {
    if (this.#offerDue !== undefined || this.#closed) return;
    const waiting = new AbortController();
    this.#offerDue = waiting;
    const waitMs = Math.max(250, this.#lastOfferMs + OFFER_MIN_GAP_MS - this.#env.clock.monotonic());
    this.#env.clock
      .sleep(waitMs, waiting.signal)
      .then(() => {
        this.#offerDue = undefined;
        return this.publishOffer();
      })
      .catch(() => undefined);
  }
}

/** An offer names few kinds of GPU: those that are free before those that are not, large before small. */
function offeredOf(free: Resources): Resources {
  const kinds = free.gpus.toSorted((a, b) => Number(b.count > 0) - Number(a.count > 0));
  return { ...free, gpus: kinds.slice(0, LIMITS.gpuKindsPerMessage) };
}

/**
 * An offer has few bytes: what does not fit is left out, digests of warm modules first, then the second address, then
 * kinds of GPU from the end of the list. A bid for a kind that is left out is answered all the same.
 */
function sealWhatFits(offer: Offer, seal: (offer: Offer) => Envelope): Envelope {
  const { warm, addresses, free } = offer;
  const bare = { ...offer, warm: [], addresses: addresses.slice(0, 1) };
  const smaller = [
    ...warm.map((_, index) => ({ ...offer, warm: warm.slice(0, warm.length - index) })),
    { ...offer, warm: [] },
    bare,
    ...free.gpus.slice(1).map((_, index) => ({ ...bare, free: { ...free, gpus: free.gpus.slice(0, -index - 1) } })),
  ];
  for (const candidate of smaller.slice(0, -1)) {
    try {
      return seal(candidate);
    } catch (error) {
      if (!hasCode(error, 'protocol/oversize')) throw error;
    }
  }
  return seal(smaller.at(-1) ?? bare);
}
