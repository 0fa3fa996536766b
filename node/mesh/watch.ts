/**
 * The watchdog: keeps the connections that were asked for, takes up those that a cut has ended, repairs gossip, and
 * throws out peers that lie.
 *
 * libp2p 3 redials a lost peer five times and then never, and a peer whose gossip stream broke stays connected but deaf
 * for good. Each tick looks at both. Redials of kept peers go on for as long as the node runs: 0.5 s after the loss, then
 * with a growing pause, at most 1.5 s for two minutes and 30 s afterwards, spread by chance so that a healed partition is
 * not met by everybody at once.
 */
import type { Libp2p, PeerId } from '@libp2p/interface';
import type { Multiaddr } from '@multiformats/multiaddr';

import type { Address } from '../../protocol/address.ts';
import { type Env, randomInt } from '../../protocol/env.ts';
import { MoltError } from '../../protocol/errors.ts';
import { Deadline } from '../../protocol/deadline.ts';
import { STREAMS } from '../../protocol/wire.ts';
import { GRAYLIST_SCORE, type Gossip } from './gossip.ts';
import type { Guard } from './guard.ts';
import { addressOf, peerIdOf, peersOf } from './peer.ts';

const TICK_MS = 500;
const REDIAL_FIRST_MS = 500;
/** Longest pause between tries, at first and once the peer has been away for a while. */
const REDIAL_SOON_MS = 1_500;
const REDIAL_MAX_MS = 30_000;
const AWAY_LONG_MS = 120_000;
const REDIAL_GROWTH = 1.5;
/** The same as TCP takes to send its first packet three times: a dial into a cut is over soon after the cut is healed. */
const DIAL_MS = 4_000;
const KEPT_MAX = 64;
const LOST_MAX = 32;
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
  /** Monotonic time when it was last connected, or first asked for. */
  seenMs: number;
}

export class Watch implements Disposable {
  readonly #env: Env;
  readonly #libp2p: Libp2p;
  readonly #gossip: Gossip;
  readonly #guard: Guard;
  readonly #prefix: string;
  readonly #kept = new Map<string, Kept>();
  /** Peers that nobody asked to keep and that went away, until they are back or have been away for long. */
  readonly #lost = new Map<Address, Kept>();
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
      const { connection, peerId, protocols } = event.detail;
      const peer = addressOf(peerId);
      // Gossip does not run over circuits, so whoever came by one is no neighbour.
      if (
        peer !== undefined &&
        connection.limits === undefined &&
        protocols.some((name) => name.startsWith('/meshsub/'))
      )
        this.#speaksGossip.add(peer);
    });
    this.#libp2p.addEventListener('peer:disconnect', (event) => {
      const peer = addressOf(event.detail);
      if (peer === undefined) return;
      if (this.#speaksGossip.has(peer)) void this.#miss(event.detail, peer);
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
    this.#kept.set(name, {
      addresses,
      peer,
      dialing: false,
      pauseMs: REDIAL_FIRST_MS,
      nextAt: 0,
      seenMs: this.#env.clock.monotonic(),
    });
    return true;
  }

  /** A cut takes peers away that nobody asked to keep; when it is healed they are worth as much as the others. */
  async #miss(id: PeerId, peer: Address): Promise<void> {
    const known = await this.#libp2p.peerStore.get(id).catch(() => undefined);
    const addresses = (known?.addresses ?? []).map(({ multiaddr }) => multiaddr);
    const isKept = [...this.#kept.values()].some((kept) => kept.peer === peer);
    if (addresses.length === 0 || isKept || this.#lost.size >= LOST_MAX || this.#stopped.signal.aborted) return;
    const now = this.#env.clock.monotonic();
    const nextAt = now + REDIAL_FIRST_MS;
    this.#lost.set(peer, { addresses, peer, dialing: false, pauseMs: REDIAL_FIRST_MS, nextAt, seenMs: now });
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
    for (const peer of peersOf(this.#libp2p.getConnections())) {
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

  #isDirect(peer: Address): boolean {
    return this.#libp2p.getConnections(peerIdOf(peer)).some(({ limits }) => limits === undefined);
  }

  /** True when somebody above the mesh has a stream to this peer. */
  #carriesStreams(peer: Address): boolean {
    // Streams for quotes are kept in case of a next bid.
    const kept = `${this.#prefix}${STREAMS.quote.protocol}`;
    const own = (protocol: string | undefined): boolean =>
      protocol?.startsWith(`${this.#prefix}/molt/`) === true && protocol !== kept;
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
    for (const [peer, lost] of this.#lost) {
      if (this.#isConnected(lost) || now - lost.seenMs > AWAY_LONG_MS) this.#lost.delete(peer);
    }
    for (const kept of [...this.#kept.values(), ...this.#lost.values()]) {
      if (kept.dialing) continue;
      if (this.#isConnected(kept)) {
        kept.seenMs = now;
        continue;
      }
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
      const awayMs = this.#env.clock.monotonic() - kept.seenMs;
      kept.pauseMs = Math.min(awayMs < AWAY_LONG_MS ? REDIAL_SOON_MS : REDIAL_MAX_MS, kept.pauseMs * REDIAL_GROWTH);
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
