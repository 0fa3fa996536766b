/**
 * Who may connect: the first defence of a node, because a handshake costs 8 to 16 ms of CPU and accepting is free for
 * the attacker. Token buckets for accepts and places per network range, bans with an end, Ed25519 keys only, and no dialling into private networks on
 * the word of strangers.
 */
import type { ConnectionGater, MultiaddrConnection, PeerId } from '@libp2p/interface';
import type { Multiaddr } from '@multiformats/multiaddr';

import type { Address } from '../../protocol/address.ts';
import type { Clock } from '../../protocol/env.ts';
import { rangeOf } from '../../protocol/multiaddress.ts';
import { Bucket } from './bucket.ts';
import { type Reach, ipOf, reachOf } from './ip.ts';
import { addressOf } from './peer.ts';

export interface GateLimits {
  /** New inbound connections per second from all public addresses together. */
  readonly acceptsPerSecond: number;
  /** The same per /24 (IPv4) or /48 (IPv6). */
  readonly acceptsPerSecondPerRange: number;
  /** The same per range of loopback or private addresses, which count for themselves: a rack or a lab starts at once. */
  readonly acceptsPerSecondPerLocalRange: number;
  /** Inbound connections that are open at a time from one range, so that one network cannot take all places. */
  readonly connectionsPerRange: number;
  readonly connectionsPerLocalRange: number;
  /** How long a peer that was thrown out stays out. */
  readonly banMs: number;
}

const RANGES_MAX = 4_096;
const BANS_MAX = 4_096;
/** A bucket holds this many seconds' worth of tokens, so that a short burst of honest peers passes. */
const BURST_SECONDS = 3;
/** Share of a range's places whose handshake may be unfinished: a silent socket costs its sender nothing. */
const PENDING_SHARE = 0.25;
/** Under pressure an accepted connection takes as many tokens. */
const UNDER_PRESSURE = 4;

/** What one range has open. */
interface Range {
  readonly bucket: Bucket;
  open: number;
  pending: number;
}

export class Gate {
  readonly #clock: Clock;
  readonly #limits: GateLimits;
  readonly #all: Bucket;
  readonly #ranges = new Map<string, Range>();
  readonly #pending = new WeakMap<MultiaddrConnection, () => void>();
  readonly #pressure: { readonly isHigh: boolean };
  readonly #bans = new Map<Address, number>();
  readonly #reaches = new Set<Reach>(['public']);

  constructor(clock: Clock, limits: GateLimits, pressure: { readonly isHigh: boolean } = { isHigh: false }) {
    this.#clock = clock;
    this.#limits = limits;
    this.#pressure = pressure;
    this.#all = new Bucket(limits.acceptsPerSecond, limits.acceptsPerSecond * BURST_SECONDS);
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

  /** One more connection from this IP address now? Consumes a token of its range, and of the whole for a public one. */
  accepts(ip: string | undefined): boolean {
    const now = this.#clock.monotonic();
    const tokens = this.#pressure.isHigh ? UNDER_PRESSURE : 1;
    const isLocal = ip !== undefined && reachOf(ip) !== 'public';
    return this.#rangeOf(ip).bucket.take(now, tokens) && (isLocal || this.#all.take(now, tokens));
  }

  /** `accepts`, and a place of the range for as long as the connection is open. */
  #admits(connection: MultiaddrConnection): boolean {
    const ip = ipOf(connection.remoteAddr);
    const isLocal = ip !== undefined && reachOf(ip) !== 'public';
    const places = isLocal ? this.#limits.connectionsPerLocalRange : this.#limits.connectionsPerRange;
    const range = this.#rangeOf(ip);
    if (range.open >= places || range.pending >= Math.ceil(places * PENDING_SHARE) || !this.accepts(ip)) return false;
    range.open++;
    range.pending++;
    let isPending = true;
    const settle = (): void => {
      if (isPending) range.pending--;
      isPending = false;
    };
    this.#pending.set(connection, settle);
    connection.addEventListener(
      'close',
      () => {
        settle();
        range.open--;
      },
      { once: true },
    );
    return true;
  }

  #rangeOf(ip: string | undefined): Range {
    const name = ip === undefined ? '' : rangeOf(ip);
    let range = this.#ranges.get(name);
    if (range === undefined) {
      const isLocal = ip !== undefined && reachOf(ip) !== 'public';
      const { acceptsPerSecondPerRange, acceptsPerSecondPerLocalRange } = this.#limits;
      const perSecond = isLocal ? acceptsPerSecondPerLocalRange : acceptsPerSecondPerRange;
      range = { bucket: new Bucket(perSecond, perSecond * BURST_SECONDS), open: 0, pending: 0 };
      this.#ranges.set(name, range);
      if (this.#ranges.size > RANGES_MAX) dropFirst(this.#ranges);
    }
    return range;
  }

  #refuses(peer: PeerId): boolean {
    const address = addressOf(peer);
    return address === undefined || this.isBanned(address);
  }

  /** The form libp2p asks in: true means no. */
  readonly hooks: ConnectionGater = {
    denyDialPeer: (peer) => this.#refuses(peer),
    denyDialMultiaddr: (address) => !this.mayDial(address),
    denyInboundConnection: (connection) => !this.#admits(connection),
    denyInboundEncryptedConnection: (peer) => this.#refuses(peer),
    denyInboundUpgradedConnection: (_peer, connection) => {
      this.#pending.get(connection)?.();
      return false;
    },
    denyOutboundEncryptedConnection: (peer) => this.#refuses(peer),
  };
}

function dropFirst<Key>(map: Map<Key, unknown>): void {
  for (const key of map.keys()) {
    map.delete(key);
    return;
  }
}
