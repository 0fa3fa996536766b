/**
 * Whom a node is connected to by its own choice. Whoever a newcomer knows first may be hostile, and whoever connects to it
 * may be one person a hundred times; so it looks for neighbours itself: sellers whose provider account costs stake, in as
 * many network ranges as there are, and, while it knows too few of those, whoever a walk through the DHT meets.
 *
 * For a buyer the same connections are warm when it bids. Who cannot be reached takes no place from others; a seller
 * without a connection dials the bidder itself when it quotes.
 */
import type { Address } from '../protocol/address.ts';
import { type Env, randomInt } from '../protocol/env.ts';
import type { Message, Offer } from '../protocol/messages.ts';
import { rangeOf } from '../protocol/multiaddress.ts';
import { createBoundedMap } from './bounded-map.ts';
import type { Vouch } from './doubts.ts';
import type { Neighbours } from './following.ts';
import type { OfferFeed } from './offers.ts';

/** What keeping neighbours needs of a network. */
export interface Acquaintances extends Pick<Neighbours, 'isConnected' | 'onPeer'> {
  /** Dials addresses that a stranger told, once. */
  meet(addresses: readonly string[], signal?: AbortSignal): Promise<Address>;
  /** Addresses of peers that a walk through the DHT to a random place meets. */
  wander(signal?: AbortSignal): AsyncIterable<readonly string[]>;
}

export interface NeighbourOptions {
  readonly feed: Pick<OfferFeed, 'book' | 'onChange' | 'pull'>;
  readonly neighbours: Acquaintances;
  readonly vouch: Vouch;
  /** How many of them to be connected to. */
  readonly wanted: number;
}

/** Gossip's own degree: fewer neighbours are found by the DHT as well. */
export const NEIGHBOURS_HEALTHY = 6;
const DIALS_MAX = 8;
const LOOK_EVERY_MS = 2_000;
/** Who could not be reached is dialled again after this long. */
const AGAIN_MS = 60_000;
const WANDER_EVERY_MS = 30_000;
const FAILED_MAX = 10_000;
const SMALL_BOOK = 64;
/** Offers looked at together: what one request to the chain can answer. */
const LOOKED_AT_MAX = 100;
const ROUNDS_MAX = 3;
/** The first neighbours of our own choice are asked for their books: those before may have hidden what they know. */
const PULLS = 2;

/** Keeps `wanted` neighbours from now on until disposed. Never throws. */
export class KeptNeighbours implements Disposable {
  readonly #env: Env;
  readonly #options: NeighbourOptions;
  readonly #random: Env['random'];
  readonly #stopped = new AbortController();
  readonly #opened = new DisposableStack();
  readonly #dialling = new Map<Address, string>();
  /** Connected sellers that the chain knows, with the range that they offer from. */
  readonly #chosen = new Map<Address, string>();
  /** Met on a walk. */
  readonly #met = new Set<Address>();
  readonly #failed = createBoundedMap<Address, number>(FAILED_MAX);
  #isLooking = false;
  #wanderedMs = -Infinity;
  #pulls = 0;

  constructor(env: Env, options: NeighbourOptions) {
    this.#env = env;
    this.#options = options;
    this.#random = env.random.split('neighbours');
    const { feed, neighbours } = options;
    const forget = (peer: Address): void => {
      this.#chosen.delete(peer);
      this.#met.delete(peer);
    };
    this.#opened.use(neighbours.onPeer(({ type, peer }) => (type === 'disconnected' ? forget(peer) : undefined)));
    // A large book changes all the time, and its sellers can wait for the next look.
    const onChange = (): unknown => (feed.book.size <= SMALL_BOOK ? this.#look() : undefined);
    this.#opened.use(feed.onChange(() => void onChange()));
    this.#opened.use(env.clock.every(LOOK_EVERY_MS, () => this.#look()));
  }

  /** Connected sellers that the chain knows. */
  get size(): number {
    return this.#chosen.size;
  }

  [Symbol.dispose](): void {
    this.#stopped.abort();
    this.#opened.dispose();
  }

  async #look(): Promise<void> {
    if (this.#isLooking || this.#stopped.signal.aborted) return;
    this.#isLooking = true;
    try {
      for (let round = 0; round < ROUNDS_MAX && this.#room() > 0; round++) if (!(await this.#chooseSome())) break;
      const known = this.#chosen.size + this.#dialling.size;
      if (known < Math.min(this.#options.wanted, NEIGHBOURS_HEALTHY)) await this.#wander();
    } catch (error) {
      this.#env.logger.log('debug', 'no neighbours could be looked for', { error });
    } finally {
      this.#isLooking = false;
    }
  }

  /** Of offers that were not looked at yet, the real sellers, each from a range that has the fewest; true when more wait. */
  async #chooseSome(): Promise<boolean> {
    const { feed, neighbours, vouch } = this.#options;
    const isTaken = (peer: Address): boolean =>
      this.#chosen.has(peer) || this.#dialling.has(peer) || this.#isTried(peer);
    const unknown = feed.book.list().filter(({ signer }) => !isTaken(signer));
    const looked = draw(unknown, LOOKED_AT_MAX, (below) => randomInt(this.#random, below));
    if (looked.length === 0) return false;
    const { genuine } = await vouch(looked);
    for (const { signer } of looked) if (!genuine.has(signer)) this.#failed.set(signer, this.#env.clock.monotonic());
    for (let rest = looked.filter(({ signer }) => genuine.has(signer)); this.#room() > 0;) {
      const [next] = rest.toSorted((a, b) => this.#crowd(a) - this.#crowd(b));
      if (next === undefined || this.#stopped.signal.aborted) break;
      rest = rest.filter((offer) => offer !== next);
      if (neighbours.isConnected(next.signer)) this.#choose(next);
      else void this.#dial(next);
    }
    return looked.length < unknown.length;
  }

  async #dial(offer: Message<Offer>): Promise<void> {
    const { signer, content } = offer;
    this.#dialling.set(signer, rangeOfOffer(offer));
    try {
      await this.#options.neighbours.meet(content.addresses, this.#stopped.signal);
      this.#choose(offer);
    } catch {
      this.#failed.set(signer, this.#env.clock.monotonic());
    } finally {
      this.#dialling.delete(signer);
      void this.#look();
    }
  }

  #choose(offer: Message<Offer>): void {
    this.#chosen.set(offer.signer, rangeOfOffer(offer));
    if (this.#pulls++ < PULLS) this.#options.feed.pull(offer.signer, this.#stopped.signal).catch(() => undefined);
  }

  async #wander(): Promise<void> {
    if (this.#env.clock.monotonic() - this.#wanderedMs < WANDER_EVERY_MS) return;
    this.#wanderedMs = this.#env.clock.monotonic();
    const { neighbours } = this.#options;
    for await (const addresses of neighbours.wander(this.#stopped.signal)) {
      if (this.#met.size >= NEIGHBOURS_HEALTHY) return;
      const peer = await neighbours.meet(addresses, this.#stopped.signal).catch(() => undefined);
      if (peer !== undefined) this.#met.add(peer);
    }
  }

  #isTried(peer: Address): boolean {
    return this.#env.clock.monotonic() - (this.#failed.get(peer) ?? -Infinity) < AGAIN_MS;
  }

  #room(): number {
    const { wanted } = this.#options;
    return Math.min(wanted - this.#chosen.size - this.#dialling.size, DIALS_MAX - this.#dialling.size);
  }

  #crowd(offer: Message<Offer>): number {
    const range = rangeOfOffer(offer);
    return [...this.#chosen.values(), ...this.#dialling.values()].filter((one) => one === range).length;
  }
}

/** By the first address of an offer; where that names no IP address, all of it. */
function rangeOfOffer({ content }: Message<Offer>): string {
  const [first = ''] = content.addresses;
  const ip = /^\/ip[46]\/([^/]+)\//.exec(first)?.[1];
  return ip === undefined ? first : rangeOf(ip);
}

/** At most `count`, each as likely as the others. */
function draw<Item>(items: readonly Item[], count: number, below: (limit: number) => number): readonly Item[] {
  const rest = [...items];
  const drawn: Item[] = [];
  while (drawn.length < count && rest.length > 0) {
    const index = below(rest.length);
    drawn.push(rest[index] as Item);
    rest[index] = rest.at(-1) as Item;
    rest.pop();
  }
  return drawn;
}
