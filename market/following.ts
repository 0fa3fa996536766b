/**
 * Keeping a book whole: whom to pull from, and when. A newcomer pulls from two peers, for one of them may hide what it
 * knows; nothing can be invented, since every offer is signed. A peer that was lost and is back may come from the other
 * side of a cut, so it is pulled from at once. And now and then one peer by chance is asked, so that what everybody else
 * withheld is found in the end.
 */
import type { Address } from '../protocol/address.ts';
import { type Env, randomInt } from '../protocol/env.ts';
import { createBuckets } from './buckets.ts';
import type { OfferFeed } from './offers.ts';

/** What following needs of a network. */
export interface Neighbours {
  peers(): readonly Address[];
  isConnected(peer: Address): boolean;
  onPeer(
    listener: (event: { readonly type: 'connected' | 'disconnected'; readonly peer: Address }) => void,
  ): Disposable;
}

/** Peers that a newcomer pulls from before it merely follows; while its book is empty it asks every one of them. */
const JOIN_PULLS = 2;
/** A peer that was lost is remembered for as long as a cut may last and its offers may differ from ours. */
const LOST_MAX = 256;
const RETURN_PULLS = { perSecond: 0.5, burst: 8 };
const PULLS_AT_A_TIME = 4;
const CHANCE_EVERY_MS = 30_000;
const TICK_MS = 1_000;

export interface Following extends Disposable {
  /** Pulls that brought something or nothing, but were answered. */
  readonly pulls: number;
}

/** Follows until disposed. Never throws: a pull that fails is followed by one from somebody else. */
export function followMarket(env: Env, on: { readonly feed: OfferFeed; readonly neighbours: Neighbours }): Following {
  const { feed, neighbours } = on;
  const stopped = new AbortController();
  const asked = new Set<Address>();
  const lost = new Set<Address>();
  const running = new Set<Address>();
  const returns = createBuckets(RETURN_PULLS, 1);
  let pulls = 0;
  let chanceMs = env.clock.monotonic();

  const pull = async (peer: Address): Promise<void> => {
    if (running.size >= PULLS_AT_A_TIME || running.has(peer)) return;
    running.add(peer);
    asked.add(peer);
    try {
      await feed.pull(peer, stopped.signal);
      pulls++;
      lost.delete(peer);
    } catch (error) {
      env.logger.log('debug', 'offers could not be pulled', { peer, error });
    } finally {
      running.delete(peer);
    }
  };
  const join = (): void => {
    for (const peer of neighbours.peers()) {
      if (running.size + (feed.book.size === 0 ? 0 : pulls) >= JOIN_PULLS) return;
      if (!asked.has(peer)) void pull(peer);
    }
  };
  const tick = (): void => {
    join();
    for (const peer of neighbours.peers()) {
      if (lost.has(peer) && returns.take('returns', env.clock.monotonic())) void pull(peer);
    }
    if (env.clock.monotonic() - chanceMs < CHANCE_EVERY_MS) return;
    chanceMs = env.clock.monotonic();
    // Whoever failed to answer a newcomer may be asked again.
    asked.clear();
    const peers = neighbours.peers();
    const peer = peers[peers.length === 0 ? 0 : randomInt(env.random, peers.length)];
    if (peer !== undefined) void pull(peer);
  };
  const listening = neighbours.onPeer(({ type, peer }) => {
    if (type === 'connected') return tick();
    asked.delete(peer);
    lost.delete(peer);
    lost.add(peer);
    const [oldest] = lost;
    if (lost.size > LOST_MAX && oldest !== undefined) lost.delete(oldest);
  });
  const ticking = env.clock.every(TICK_MS, tick);
  join();
  return {
    get pulls() {
      return pulls;
    },
    [Symbol.dispose]: () => {
      listening[Symbol.dispose]();
      ticking[Symbol.dispose]();
      stopped.abort();
    },
  };
}
