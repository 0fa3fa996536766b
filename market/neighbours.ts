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
import { createBoundedMap } from './bounded-map.ts';
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
  /** Signers of offers whose providers the chain knows. May throw `chain/…`. */
  readonly vouch: (offers: readonly Message<Offer>[]) => Promise<{ readonly genuine: ReadonlySet<Address> }>;
  /** How many of them to be connected to. */
  readonly wanted: number;
}

export interface KeptNeighbours extends Disposable {
  /** Connected sellers that the chain knows. */
  readonly size: number;
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

/** Keeps `wanted` neighbours until disposed. Never throws. */
export function keepNeighbours(env: Env, options: NeighbourOptions): KeptNeighbours {
  const { feed, neighbours, vouch, wanted } = options;
  const stopped = new AbortController();
  const random = env.random.split('neighbours');
  const dialling = new Map<Address, string>();
  /** Connected sellers that the chain knows, with the range that they offer from. */
  const chosen = new Map<Address, string>();
  /** Met on a walk. */
  const met = new Set<Address>();
  const failed = createBoundedMap<Address, number>(FAILED_MAX);
  let isLooking = false;
  let wanderedMs = -Infinity;
  let pulls = 0;

  const isTried = (peer: Address): boolean => env.clock.monotonic() - (failed.get(peer) ?? -Infinity) < AGAIN_MS;
  const room = (): number => Math.min(wanted - chosen.size - dialling.size, DIALS_MAX - dialling.size);
  const choose = (peer: Address, range: string): void => {
    chosen.set(peer, range);
    if (pulls++ < PULLS) feed.pull(peer, stopped.signal).catch(() => undefined);
  };
  const dial = async ({ signer, content }: Message<Offer>, range: string): Promise<void> => {
    dialling.set(signer, range);
    try {
      await neighbours.meet(content.addresses, stopped.signal);
      choose(signer, range);
    } catch {
      failed.set(signer, env.clock.monotonic());
    } finally {
      dialling.delete(signer);
      void look();
    }
  };
  /** From the offers that were not looked at yet, those of real sellers, each from a range that has the fewest so far. */
  const lookOnce = async (): Promise<boolean> => {
    const unknown = feed.book
      .list()
      .filter(({ signer }) => !chosen.has(signer) && !dialling.has(signer) && !isTried(signer));
    const looked = draw(unknown, LOOKED_AT_MAX, (below) => randomInt(random, below));
    if (looked.length === 0) return false;
    const { genuine } = await vouch(looked);
    const known = looked.filter(({ signer }) => genuine.has(signer));
    for (const { signer } of looked) if (!genuine.has(signer)) failed.set(signer, env.clock.monotonic());
    for (let rest = known; rest.length > 0 && room() > 0;) {
      const [next] = rest.toSorted((a, b) => crowd(a) - crowd(b));
      if (next === undefined || stopped.signal.aborted) break;
      rest = rest.filter((offer) => offer !== next);
      if (neighbours.isConnected(next.signer)) choose(next.signer, rangeOf(next));
      else void dial(next, rangeOf(next));
    }
    return looked.length < unknown.length;
  };
  const crowd = (offer: Message<Offer>): number => {
    const range = rangeOf(offer);
    return [...chosen.values(), ...dialling.values()].filter((one) => one === range).length;
  };
  const look = async (): Promise<void> => {
    if (isLooking || stopped.signal.aborted) return;
    isLooking = true;
    try {
      for (let round = 0; round < ROUNDS_MAX && room() > 0; round++) if (!(await lookOnce())) break;
      if (chosen.size + dialling.size < Math.min(wanted, NEIGHBOURS_HEALTHY)) await wander();
    } catch (error) {
      env.logger.log('debug', 'no neighbours could be looked for', { error });
    } finally {
      isLooking = false;
    }
  };
  const wander = async (): Promise<void> => {
    if (env.clock.monotonic() - wanderedMs < WANDER_EVERY_MS) return;
    wanderedMs = env.clock.monotonic();
    for await (const addresses of neighbours.wander(stopped.signal)) {
      if (met.size >= NEIGHBOURS_HEALTHY) return;
      const peer = await neighbours.meet(addresses, stopped.signal).catch(() => undefined);
      if (peer !== undefined) met.add(peer);
    }
  };
  const listening = neighbours.onPeer(({ type, peer }) => {
    if (type === 'connected') return;
    chosen.delete(peer);
    met.delete(peer);
  });
  // A large book changes all the time, and its sellers can wait for the next look.
  const changing = feed.onChange(() => {
    if (feed.book.size <= SMALL_BOOK) void look();
  });
  const ticking = env.clock.every(LOOK_EVERY_MS, look);
  return {
    get size() {
      return chosen.size;
    },
    [Symbol.dispose]: () => {
      stopped.abort();
      for (const one of [listening, changing, ticking]) one[Symbol.dispose]();
    },
  };
}

/** Who is near in the net tends to be in one hand: the /24 that an offer's first address names. */
function rangeOf({ content }: Message<Offer>): string {
  return /^\/ip4\/(\d+\.\d+\.\d+)\./.exec(content.addresses[0] ?? '')?.[1] ?? content.addresses[0] ?? '';
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
