/** Those who do not play fair, each in one way. What they do to themselves is their affair; the others must not suffer. */
import type { SellerEffect } from '../../market/index.ts';
import type { Agreement } from '../../node/provider/job.ts';
import type { Verified } from '../../protocol/brands.ts';
import { sealEnvelope } from '../../protocol/envelope.ts';
import { LIMITS } from '../../protocol/limits.ts';
import type { Verdict } from '../../protocol/errors.ts';
import { type Bid, type Message, decodeBid, encodeOffer, encodeQuote } from '../../protocol/messages.ts';
import { U64_MAX, baseUnits } from '../../protocol/units.ts';
import { offersTopic } from '../../protocol/wire.ts';
import type { Address } from '../../protocol/address.ts';
import { Buyer } from './buyer.ts';
import type { Link, LinkEnd } from './network.ts';
import type { Task } from './engine.ts';
import { NETWORK, type Surroundings } from './peer.ts';
import type { LeaseFrame } from './jobs.ts';
import { type BidAnswerFrame, Provider, type ProviderOptions } from './provider.ts';

/** Offers a hundred times what it has, takes the lease, and cannot run the job. */
export class Phantom extends Provider {
  override readonly isHonest = false;
  override readonly cannotRun = true;
}

/** Signs quotes that break the bid, the chain or their own sums. */
class TermBreaker extends Provider {
  override readonly isHonest = false;

  override signQuote(effect: SellerEffect & { type: 'sign-quote' }): void {
    const { content, bid, header } = effect;
    const { pricePerSecondMax } = bid.content;
    const lies = [
      { pricePerSecond: baseUnits(pricePerSecondMax + 1n) },
      { amount: baseUnits(content.amount * 2n) },
      { reserve: baseUnits(U64_MAX) },
      { finishByMs: content.finishByMs + 86_400_000 },
      { graceMs: 86_400_000 },
      { bid: 'ab'.repeat(32) },
      { startByMs: bid.content.startByMs === 0 ? 0 : bid.content.startByMs + 3_600_000 },
      { startByMs: 0 },
      { windowMs: 0 },
      { near: ['0123456789abcdef'] },
      { provider: this.chance.pick([...this.at.chain.providers.keys()]) },
    ];
    const lie = encodeQuote({ ...content, ...this.chance.pick(lies) });
    const envelope = sealEnvelope(this.key, 'quote', { network: NETWORK, ...header }, lie);
    const link = this.at.network.connect(this, bid.signer, 'quote', SILENCE);
    link.send(this, { bid: bid.id, quote: envelope.bytes } satisfies BidAnswerFrame);
    this.after(LIMITS.quoteLifetimeMs, 'lets its lie go', () => link.close(this));
    this.do({ type: 'quote-unsigned', bid: bid.id });
  }
}

/** Quotes like the others, then says nothing to whoever accepts, or nothing after the lease is open. */
export class Silent extends Provider {
  override readonly isHonest = false;

  override hearLease(link: Link, frame: LeaseFrame): void {
    if (frame.type === 'accept' && this.chance.happens(0.5)) super.hearLease(link, frame);
  }
}

/** Takes the lease and does nothing, with much time to do it by its terms: replicas of its job wait for it. */
export class Dawdler extends Provider {
  override readonly isHonest = false;

  constructor(name: string, at: Surroundings, options: ProviderOptions) {
    super(name, at, { ...options, graceMs: 420_000 });
  }

  override hearLease(link: Link, frame: LeaseFrame): void {
    if (frame.type === 'accept') super.hearLease(link, frame);
  }
}

/** Forgets what it promised before every bid, and co-signs for whoever accepts. */
class DoubleSeller extends Provider {
  override readonly isHonest = false;

  override hearBid(bytes: Uint8Array, from: Address): Verdict['verdict'] {
    const { capacity } = this.seller;
    this.seller = { ...this.seller, capacity: { ...capacity, reservations: new Map() } };
    return super.hearBid(bytes, from);
  }

  override hearLease(link: Link, frame: LeaseFrame): void {
    if (frame.type !== 'accept') return;
    const quote = this.seller.quotes.get(frame.quote);
    if (quote === undefined) return;
    const lease = this.at.chain.leaseAddress(frame.budget, quote.id);
    const terms = this.termsOf(quote, frame.budget);
    const signature = this.at.chain.sign(this.key, { event: 'open', lease, terms });
    link.send(this, { type: 'accepted', terms, signature } satisfies LeaseFrame);
  }
}

/** Tells every neighbour another price under one number. */
class Equivocator extends Provider {
  override readonly isHonest = false;

  override publishOffer({ free, revoked, header }: SellerEffect & { type: 'publish-offer' }): void {
    const [cheap, dear] = [1n, 9_999n].map((base) => {
      const offer = this.offer(free, revoked);
      const body = encodeOffer({ ...offer, prices: { ...offer.prices, base: baseUnits(base) } });
      return sealEnvelope(this.key, 'offer', { network: NETWORK, ...header }, body).bytes;
    });
    const only = (): Uint8Array | undefined => (this.chance.happens(0.5) ? cheap : dear);
    for (const topic of this.offerTopics())
      this.at.network.gossip.publish(this, topic, cheap ?? new Uint8Array(), only);
  }
}

/** Answers bids that do not ask it, three times each. */
class Uninvited extends Provider {
  override readonly isHonest = false;

  override hearBid(bytes: Uint8Array, from: Address): Verdict['verdict'] {
    const { message, verdict } = this.admission.bid(bytes, from, this.now());
    if (message === undefined) return verdict.verdict;
    const bid = { ...decodeBid(message), content: { ...message.content, distanceMax: U64_MAX } } as typeof message;
    for (let time = 0; time < 3; time++) this.hold(bid);
    return 'accept';
  }
}

/** Answers as if bids insisted on nothing: on no stake, start, end, window or hardware. */
export class Unfit extends Provider {
  override readonly isHonest = false;

  constructor(name: string, at: Surroundings, options: ProviderOptions) {
    super(name, at, { ...options, stake: LITTLE_STAKE });
  }

  override hold(bid: Verified<Message<Bid>>): void {
    const nothing = { stakeMin: baseUnits(0n), reserveMin: baseUnits(0n), hardwareTierMin: 'A0' } as const;
    const content = { ...bid.content, ...nothing, startByMs: 0, finishByMs: 0, windowMs: 0, region: '' };
    super.hold({ ...bid, content });
  }
}

/** Promises to start at once, is slow, and goes on as if nothing had been promised. */
class LateStarter extends Provider {
  override readonly isHonest = false;

  constructor(name: string, at: Surroundings, options: ProviderOptions) {
    const starts = { warmSeconds: 1, coldSeconds: 1 };
    super(name, at, { ...options, slowness: 20, images: [], policy: { ...options.policy, starts } });
  }

  override agreement(...on: Parameters<Provider['agreement']>): Agreement {
    const { startByMs: _forgotten, ...agreement } = super.agreement(...on);
    return agreement;
  }
}

/** Says that the job came to something else; some of them all say the same. */
export class Forger extends Provider {
  override readonly isHonest = false;

  override resultOf(task: Task): string {
    return this.#isInLeague ? `the lie about ${task.result}` : `a lie of ${this.name}`;
  }

  get #isInLeague(): boolean {
    return Number(this.name.split(' ')[1]) % 2 === 0;
  }
}

/** Sends out again what others offered, some time later: offers of the dead among them. */
class Replayer extends Provider {
  override readonly isHonest = false;

  override hearOffer(bytes: Uint8Array, from: Address | undefined): Verdict['verdict'] {
    const verdict = super.hearOffer(bytes, from);
    if (from === undefined || this.at.isFrozen || !this.chance.happens(0.3)) return verdict;
    this.after(this.chance.between(1_000, 90_000), 'replays an offer', () =>
      // A copy: caches that know the message by its content would keep it from everybody's admission.
      this.at.network.gossip.publish(this, offersTopic(NETWORK, 'cpu'), bytes.slice()),
    );
    return verdict;
  }
}

/**
 * Shouts without end while there are faults: bytes that are no offer, offers with a wrong signature, and true
 * ones of its own far more often than anybody may. And forwards all that it hears, good or bad.
 */
class Flooder extends Provider {
  override readonly isHonest = false;

  override start(): void {
    super.start();
    this.#flood();
  }

  override hearOffer(bytes: Uint8Array, from: Address | undefined): Verdict['verdict'] {
    super.hearOffer(bytes, from);
    return 'accept';
  }

  #flood(): void {
    this.after(FLOOD_EVERY_MS, 'floods', () => {
      if (this.at.isCalm) return;
      for (let time = 0; time < 3; time++) this.#shout();
      this.#flood();
    });
  }

  #shout(): void {
    const nowMs = this.now();
    const sequence = (this.published?.sequence ?? nowMs) + this.chance.between(1, 50);
    const header = { sequence, issuedMs: nowMs, expiresMs: nowMs + LIMITS.offerLifetimeMs };
    const { bytes } = this.sealOffer(this.offer(this.free(), false), header);
    const kind = this.chance.between(0, 2);
    if (kind === 0) bytes.fill(0xff, 0, 16);
    if (kind === 1) bytes[bytes.length - 1] = 255 - (bytes.at(-1) ?? 0);
    if (kind < 2) this.at.forged.add(bytes);
    for (const topic of this.offerTopics()) this.at.network.gossip.publish(this, topic, bytes);
  }
}

/** Enough to stand behind some leases, less than any bid insists on. */
const LITTLE_STAKE = 1_500_000n;
const FLOOD_EVERY_MS = 2_000;
const STEAL_EVERY_MS = 500;

export const LIARS: readonly (typeof Provider)[] = [
  Phantom,
  TermBreaker,
  Silent,
  DoubleSeller,
  Equivocator,
  Uninvited,
  Unfit,
  LateStarter,
  Forger,
  Replayer,
  Flooder,
];

const SILENCE: LinkEnd = { onFrame: () => undefined, onEnd: () => undefined };

/** Takes every quote and those of others, accepts them and never opens a lease: wants to keep others out. */
export class Squatter extends Buyer {
  override accept(protocol: string, link: Link): LinkEnd | undefined {
    if (protocol !== 'quote') return super.accept(protocol, link);
    this.after(LIMITS.quoteLifetimeMs * 2, 'lets go at last', () => link.close(this));
    return {
      onFrame: (frame) => {
        const { quote } = frame as BidAnswerFrame;
        const job = this.jobs.find(({ state }) => state.bid?.id === (frame as BidAnswerFrame).bid);
        const id = quote === undefined || job === undefined ? undefined : job.quoteId(quote);
        if (id === undefined) return;
        this.#accept(link.remoteOf(this), id);
      },
      onEnd: () => undefined,
    };
  }

  override start(): void {
    super.start();
    this.#steal();
  }

  #accept(node: Address, quote: string): void {
    const accepting = this.at.network.connect(this, node, 'lease', SILENCE);
    accepting.send(this, { type: 'accept', quote, budget: this.budget } satisfies LeaseFrame);
    this.after(LIMITS.quoteLifetimeMs, 'hangs up', () => accepting.close(this));
  }

  /** Accepts quotes that were made for others, however their names came here. */
  #steal(): void {
    this.after(STEAL_EVERY_MS, 'steals', () => {
      if (this.at.isCalm) return;
      const others = this.at.peers.filter((peer) => peer instanceof Buyer && peer !== this);
      const quotes = others.flatMap((peer) =>
        peer instanceof Buyer ? peer.jobs.flatMap(({ state }) => (state.phase === 'over' ? [] : state.quotes)) : [],
      );
      if (quotes.length > 0) {
        const { quote } = this.chance.pick(quotes);
        this.#accept(quote.signer, quote.id);
      }
      this.#steal();
    });
  }
}
