/**
 * What one connected peer may cost this node. The gate (gater.ts) decides who comes in; the guard counts what they do
 * then, below every protocol: frames of the multiplexer (frames.ts), streams that are opened, and gossip that has to be
 * read, duplicates and control messages included. Who spends more is thrown out and banned, for no honest peer comes near
 * these limits, and a refusal would cost as much as the next attempt. How fast this node reads is its own affair: what it
 * cannot read in time is shed, and costs its sender nothing.
 */
import type { Connection, Libp2p } from '@libp2p/interface';

import type { Address } from '../../protocol/address.ts';
import type { Env } from '../../protocol/env.ts';
import { MoltError, assert } from '../../protocol/errors.ts';
import { Bucket } from './bucket.ts';
import { type FrameLimits, countFrames, spareWindowUpdates } from './frames.ts';
import type { Gate } from './gater.ts';
import { addressOf, peerIdOf } from './peer.ts';
import type { Pressure } from './pressure.ts';

export interface GuardLimits extends FrameLimits {
  /** Inbound streams that one connection may open per second in the long run, whatever their protocol. */
  readonly streamsPerSecond: number;
  /**
   * Gossip of one peer per second in the long run: a frame, a message, a subscription and a control entry count one,
   * an id in a control entry a tenth. A neighbour that alone passes on a shard of 5,000 providers, who repeat their offers
   * three times a minute, sends some 600; bids and the ids of what it has come on top.
   */
  readonly gossipPerSecond: number;
}

/** A bucket holds this many seconds' worth. */
const BURST_SECONDS = 4;
/**
 * What a peer is blamed for is counted over more: while this process stands still, what its peers send waits, and all of
 * it is read at once. After 9 s of silence they hang up (heartbeat.ts), so none of them sends more than this by mistake.
 */
const BLAME_SECONDS = 15;
/** Under pressure a unit is worth as many, in what is read; nobody is blamed for our being slow. */
const UNDER_PRESSURE = 10;
/** So many breaches within `STRIKES_MS`, over all connections of a peer, and it is thrown out. */
const STRIKES_MAX = 3;
const STRIKES_MS = 10 * 60_000;
const STRUCK_MAX = 1_024;

/** `read`: handle it. `shed`: let it go, and blame nobody. `barred`: its sender is thrown out. */
export type Gossiped = 'read' | 'shed' | 'barred';

interface GossipBuckets {
  readonly read: Bucket;
  readonly blame: Bucket;
}

/** What the guard reads of a libp2p connection beyond its interface. */
interface MuxedConnection extends Connection {
  readonly muxer?: EventTarget;
}

export class Guard {
  readonly #env: Env;
  readonly #limits: GuardLimits;
  readonly #gate: Gate;
  readonly #pressure: Pressure;
  readonly #gossip = new Map<Address, GossipBuckets>();
  readonly #strikes = new Map<Address, { count: number; readonly sinceMs: number }>();
  #libp2p: Libp2p | undefined;

  constructor(env: Env, parts: { readonly gate: Gate; readonly pressure: Pressure; readonly limits: GuardLimits }) {
    this.#env = env;
    this.#limits = parts.limits;
    this.#gate = parts.gate;
    this.#pressure = parts.pressure;
  }

  /** Called once, before the node starts. */
  watch(libp2p: Libp2p): void {
    this.#libp2p = libp2p;
    libp2p.addEventListener('connection:open', (event) => this.#count(event.detail));
    libp2p.addEventListener('peer:disconnect', (event) => {
      const peer = addressOf(event.detail);
      if (peer !== undefined) this.#gossip.delete(peer);
    });
  }

  /** Counts gossip of a peer before it is handled. */
  gossiped(peer: Address, units: number): Gossiped {
    let buckets = this.#gossip.get(peer);
    if (buckets === undefined) {
      const { gossipPerSecond } = this.#limits;
      const read = new Bucket(gossipPerSecond, gossipPerSecond * BURST_SECONDS);
      buckets = { read, blame: new Bucket(gossipPerSecond, gossipPerSecond * BLAME_SECONDS) };
      this.#gossip.set(peer, buckets);
    }
    const now = this.#env.clock.monotonic();
    if (!buckets.blame.take(now, units)) {
      this.throwOut(peer, 'it gossips more than a peer may');
      return 'barred';
    }
    return buckets.read.take(now, this.#pressure.isHigh ? units * UNDER_PRESSURE : units) ? 'read' : 'shed';
  }

  /**
   * Gossip of this peer cannot be read, which may happen to a faulty honest peer now and then, and no more often. The
   * library stops reading and leaves the stream open: what goes on arriving would be taken and thrown away.
   */
  strikeGossip(peer: Address, error: Error): void {
    for (const connection of this.#libp2p?.getConnections(peerIdOf(peer)) ?? []) {
      for (const stream of connection.streams) {
        if (stream.direction === 'inbound' && stream.protocol.startsWith('/meshsub/')) stream.abort(error);
      }
    }
    const now = this.#env.clock.monotonic();
    const known = this.#strikes.get(peer);
    const strikes = known !== undefined && now - known.sinceMs < STRIKES_MS ? known : { count: 0, sinceMs: now };
    strikes.count++;
    this.#strikes.set(peer, strikes);
    if (this.#strikes.size > STRUCK_MAX) this.#strikes.delete([...this.#strikes.keys()][0] ?? peer);
    if (strikes.count >= STRIKES_MAX) this.throwOut(peer, 'its gossip frames cannot be read');
  }

  /** Bans the peer and drops its connections at once. */
  throwOut(peer: Address, reason: string): void {
    this.#env.logger.log('warn', 'peer thrown out', { peer, reason });
    this.#gate.ban(peer);
    for (const connection of this.#libp2p?.getConnections(peerIdOf(peer)) ?? []) {
      connection.abort(new MoltError('mesh/closed', `the connection is dropped: ${reason}`));
    }
  }

  #count(connection: Connection): void {
    const { muxer } = connection as MuxedConnection;
    assert(muxer instanceof EventTarget, 'this release of libp2p keeps its muxer elsewhere: adapt node/mesh/guard.ts');
    const peer = addressOf(connection.remotePeer);
    const onExcess = (reason: string): void => {
      if (connection.status !== 'open') return;
      if (peer === undefined) connection.abort(new MoltError('mesh/closed', 'the peer has no node key'));
      else this.throwOut(peer, reason);
    };
    const bucket = new Bucket(this.#limits.streamsPerSecond, this.#limits.streamsPerSecond * BURST_SECONDS);
    muxer.addEventListener('stream', () => {
      if (!bucket.take(this.#env.clock.monotonic())) onExcess('it opens more streams than a peer may');
    });
    spareWindowUpdates(muxer);
    countFrames(muxer, this.#limits, { monotonic: () => this.#env.clock.monotonic(), onExcess });
  }
}
