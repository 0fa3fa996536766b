/**
 * The watchdog: keeps the connections that were asked for, repairs gossip, and throws out peers that lie.
 *
 * libp2p 3 redials a lost peer five times and then never, and a peer whose gossip stream broke stays connected but deaf
 * for good. Each tick looks at both. Redials go on for as long as the node runs: 0.5 s after the loss, then with a
 * growing pause up to 30 s, spread by chance so that a healed partition is not met by everybody at once.
 */
import type { Libp2p } from '@libp2p/interface';
import type { Multiaddr } from '@multiformats/multiaddr';

import type { Address } from '../../protocol/address.ts';
import { type Env, randomInt } from '../../protocol/env.ts';
import { MoltError } from '../../protocol/errors.ts';
import { Deadline } from '../../protocol/deadline.ts';
import { GRAYLIST_SCORE, type Gossip } from './gossip.ts';
import type { Guard } from './guard.ts';
import { addressOf, peerIdOf } from './peer.ts';

const TICK_MS = 500;
const REDIAL_FIRST_MS = 500;
const REDIAL_MAX_MS = 30_000;
const REDIAL_GROWTH = 1.5;
const DIAL_MS = 8_000;
const KEPT_MAX = 64;
/** How long a peer may be connected without a gossip stream in both directions. */
const DEAF_MS = 5_000;
/** The same while streams of jobs run over the connection. */
const DEAF_IN_USE_MS = 120_000;

interface Kept {
  addresses: readonly Multiaddr[];
  peer: Address | undefined;
  dialing: boolean;
  pauseMs: number;
  nextAt: number;
}

export class Watch implements Disposable {
  readonly #env: Env;
  readonly #libp2p: Libp2p;
  readonly #gossip: Gossip;
  readonly #guard: Guard;
  readonly #prefix: string;
  readonly #kept = new Map<string, Kept>();
  readonly #speaksGossip = new Set<Address>();
  readonly #deafSince = new Map<Address, number>();
  readonly #stopped = new AbortController();
  readonly #ticker: Disposable;

  constructor(
    env: Env,
    parts: { readonly libp2p: Libp2p; readonly gossip: Gossip; readonly guard: Guard; readonly prefix: string },
  ) {
    this.#env = env;
    this.#prefix = parts.prefix;
    this.#libp2p = parts.libp2p;
    this.#gossip = parts.gossip;
    this.#guard = parts.guard;
    this.#libp2p.addEventListener('peer:identify', (event) => {
      const peer = addressOf(event.detail.peerId);
      if (peer !== undefined && event.detail.protocols.some((name) => name.startsWith('/meshsub/')))
        this.#speaksGossip.add(peer);
    });
    this.#libp2p.addEventListener('peer:disconnect', (event) => {
      const peer = addressOf(event.detail);
      if (peer === undefined) return;
      this.#speaksGossip.delete(peer);
      this.#deafSince.delete(peer);
    });
    this.#ticker = env.clock.every(TICK_MS, () => this.#tick());
  }

  /** Stay connected to whoever answers at these addresses, at most 64 such; true when there was room. */
  keep(addresses: readonly Multiaddr[], peer?: Address): boolean {
    const name = peer ?? addresses.map(String).sort().join(' ');
    const known = this.#kept.get(name);
    if (known !== undefined) {
      known.addresses = addresses;
      return true;
    }
    if (this.#kept.size >= KEPT_MAX) return false;
    this.#kept.set(name, { addresses, peer, dialing: false, pauseMs: REDIAL_FIRST_MS, nextAt: 0 });
    return true;
  }

  /** Dials everything that is kept now, without waiting. */
  start(): void {
    this.#redial();
  }

  [Symbol.dispose](): void {
    this.#ticker[Symbol.dispose]();
    this.#stopped.abort();
  }

  #tick(): void {
    this.#redial();
    for (const id of this.#libp2p.getPeers()) {
      const peer = addressOf(id);
      if (peer === undefined) continue;
      this.#throwOutLiar(peer);
      this.#wakeDeaf(peer);
    }
  }

  #throwOutLiar(peer: Address): void {
    const score = this.#gossip.score(peer);
    if (score > GRAYLIST_SCORE) return;
    this.#guard.throwOut(peer, `its score fell to ${Math.round(score)}`);
  }

  #wakeDeaf(peer: Address): void {
    const owesGossip = this.#speaksGossip.has(peer) && this.#isDirect(peer);
    if (!this.#gossip.isListening || !owesGossip || this.#gossip.isHealthy(peer)) {
      this.#deafSince.delete(peer);
      return;
    }
    const now = this.#env.clock.monotonic();
    const since = this.#deafSince.get(peer) ?? now;
    this.#deafSince.set(peer, since);
    // A job's stream is worth more than gossip: a connection in use is only dropped when it stays deaf for long.
    if (now - since < (this.#carriesStreams(peer) ? DEAF_IN_USE_MS : DEAF_MS)) return;
    this.#env.logger.log('warn', 'peer without gossip stream reconnected', { peer });
    this.#close(peer);
  }

  /** Gossip does not run over circuits. */
  #isDirect(peer: Address): boolean {
    return this.#libp2p.getConnections(peerIdOf(peer)).some(({ limits }) => limits === undefined);
  }

  /** True when somebody above the mesh has a stream to this peer. */
  #carriesStreams(peer: Address): boolean {
    const own = (protocol: string | undefined): boolean => protocol?.startsWith(`${this.#prefix}/molt/`) === true;
    return this.#libp2p
      .getConnections(peerIdOf(peer))
      .some(({ streams }) => streams.some((stream) => own(stream.protocol)));
  }

  #close(peer: Address): void {
    for (const connection of this.#libp2p.getConnections(peerIdOf(peer))) {
      connection.abort(new MoltError('mesh/closed', 'the connection is of no use any more; it is dropped'));
    }
  }

  #redial(): void {
    const now = this.#env.clock.monotonic();
    for (const kept of this.#kept.values()) {
      if (kept.dialing || this.#isConnected(kept)) continue;
      if (kept.nextAt > now) continue;
      void this.#dial(kept);
    }
  }

  async #dial(kept: Kept): Promise<void> {
    kept.dialing = true;
    try {
      using deadline = new Deadline(this.#env.clock, DIAL_MS, this.#stopped.signal);
      const connection = await this.#libp2p.dial([...kept.addresses], { signal: deadline.signal });
      kept.peer = addressOf(connection.remotePeer);
      kept.pauseMs = REDIAL_FIRST_MS;
    } catch (error) {
      this.#env.logger.log('debug', 'redial failed', { addresses: kept.addresses.map(String), error });
      kept.pauseMs = Math.min(REDIAL_MAX_MS, kept.pauseMs * REDIAL_GROWTH);
    } finally {
      kept.dialing = false;
      kept.nextAt =
        this.#env.clock.monotonic() + kept.pauseMs / 2 + randomInt(this.#env.random, Math.ceil(kept.pauseMs / 2));
    }
  }

  #isConnected(kept: Kept): boolean {
    return kept.peer !== undefined && this.#libp2p.getConnections(peerIdOf(kept.peer)).length > 0;
  }
}
