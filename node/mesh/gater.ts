/**
 * Who may connect: the first defence of a node, because a handshake costs 8 to 16 ms of CPU and accepting is free for
 * the attacker. Token buckets for accepts, bans with an end, Ed25519 keys only, and no dialling into private networks on
 * the word of strangers.
 */
import type { ConnectionGater, PeerId } from '@libp2p/interface';
import type { Multiaddr } from '@multiformats/multiaddr';

import type { Address } from '../../protocol/address.ts';
import type { Clock } from '../../protocol/env.ts';
import { type Reach, ipOf, rangeOf, reachOf } from './ip.ts';
import { addressOf } from './peer.ts';

export interface GateLimits {
  /** New inbound connections per second from all public addresses together. Loopback and private ranges are exempt. */
  readonly acceptsPerSecond: number;
  /** The same per /24 (IPv4) or /48 (IPv6). */
  readonly acceptsPerSecondPerRange: number;
  /** How long a peer that was thrown out stays out. */
  readonly banMs: number;
}

const RANGES_MAX = 4_096;
const BANS_MAX = 4_096;
/** A bucket holds this many seconds' worth of tokens, so that a short burst of honest peers passes. */
const BURST_SECONDS = 3;

export class Gate {
  readonly #clock: Clock;
  readonly #limits: GateLimits;
  readonly #all: Bucket;
  readonly #ranges = new Map<string, Bucket>();
  readonly #bans = new Map<Address, number>();
  readonly #reaches = new Set<Reach>(['public']);

  constructor(clock: Clock, limits: GateLimits) {
    this.#clock = clock;
    this.#limits = limits;
    this.#all = new Bucket(limits.acceptsPerSecond);
  }

  /** Closes the door to a peer for `banMs`. The oldest ban is forgotten when there are more than 4,096. */
  ban(peer: Address): void {
    this.#bans.delete(peer);
    this.#bans.set(peer, this.#clock.monotonic() + this.#limits.banMs);
    if (this.#bans.size > BANS_MAX) dropFirst(this.#bans);
  }

  isBanned(peer: Address): boolean {
    const until = this.#bans.get(peer);
    if (until === undefined) return false;
    if (this.#clock.monotonic() < until) return true;
    this.#bans.delete(peer);
    return false;
  }

  /**
   * The user, or the local network itself, named these addresses. Where they reach, this node lives, so from now on
   * loopback or private addresses that peers tell may be dialled as well.
   */
  livesAt(addresses: readonly Multiaddr[]): void {
    for (const address of addresses) {
      const ip = ipOf(address);
      if (ip !== undefined) this.#reaches.add(reachOf(ip));
    }
  }

  mayDial(address: Multiaddr): boolean {
    const ip = ipOf(address);
    return ip === undefined || this.#reaches.has(reachOf(ip));
  }

  /** One more connection from this IP address now? Consumes a token of its range and of the whole. */
  accepts(ip: string | undefined): boolean {
    if (ip !== undefined && reachOf(ip) !== 'public') return true;
    const now = this.#clock.monotonic();
    return this.#bucketOf(ip === undefined ? '' : rangeOf(ip)).take(now) && this.#all.take(now);
  }

  #bucketOf(range: string): Bucket {
    let bucket = this.#ranges.get(range);
    if (bucket === undefined) {
      bucket = new Bucket(this.#limits.acceptsPerSecondPerRange);
      this.#ranges.set(range, bucket);
      if (this.#ranges.size > RANGES_MAX) dropFirst(this.#ranges);
    }
    return bucket;
  }

  #refuses(peer: PeerId): boolean {
    const address = addressOf(peer);
    return address === undefined || this.isBanned(address);
  }

  /** The form libp2p asks in: true means no. */
  readonly hooks: ConnectionGater = {
    denyDialPeer: (peer) => this.#refuses(peer),
    denyDialMultiaddr: (address) => !this.mayDial(address),
    denyInboundConnection: (connection) => !this.accepts(ipOf(connection.remoteAddr)),
    denyInboundEncryptedConnection: (peer) => this.#refuses(peer),
    denyOutboundEncryptedConnection: (peer) => this.#refuses(peer),
  };
}

class Bucket {
  readonly #perSecond: number;
  #tokens: number;
  #filledAt: number | undefined;

  constructor(perSecond: number) {
    this.#perSecond = perSecond;
    this.#tokens = perSecond * BURST_SECONDS;
  }

  take(now: number): boolean {
    const elapsedMs = now - (this.#filledAt ?? now);
    this.#filledAt = now;
    this.#tokens = Math.min(this.#perSecond * BURST_SECONDS, this.#tokens + (elapsedMs / 1_000) * this.#perSecond);
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}

function dropFirst<Key>(map: Map<Key, unknown>): void {
  for (const key of map.keys()) {
    map.delete(key);
    return;
  }
}
