/**
 * How the world reaches this node: directly, through relays, or not at all.
 *
 * A node tells an address to others only when the world can dial it: one that the operator gave, or one where a peer dialled
 * back and came through (AutoNAT), for example of a port that the router forwards by UPnP. With none of these it asks two
 * relays for a place and tells the addresses that lead through them, as long as it has them. Where there is no relay
 * either, it tells what it listens at, which is good for the local network.
 *
 * Circuits are left again where that is possible: see `#leaveRelays`. Two ends behind NAT stay on their circuit, for TCP from
 * Node punches no holes.
 *
 * A circuit's address is made of the address at which this node itself reached the relay: what a relay says of its own
 * addresses would let it send strangers anywhere.
 */
import type { Connection, Libp2p, PeerId } from '@libp2p/interface';
import type { Multiaddr } from '@multiformats/multiaddr';

import type { Address } from '../../protocol/address.ts';
import { Deadline } from '../../protocol/deadline.ts';
import { type Env, randomInt } from '../../protocol/env.ts';
import { assert } from '../../protocol/errors.ts';
import { LIMITS } from '../../protocol/limits.ts';
import { isPublicAddress } from '../public-address.ts';
import { ipOf, reachOf } from './ip.ts';
import { addressOf, peerIdOf, peerOf, peersOf } from './peer.ts';
import {
  type Components,
  RELAY_PROTOCOL,
  Relay,
  type RelayLimits,
  type Relaying,
  type Reservations,
  circuits,
} from './relay.ts';
import { type Forwarding, forwardPort } from './upnp.ts';

/** `direct`: the world dials this node. `relayed`: it comes through relays. `local`: only the local network does. */
export type Way = 'direct' | 'relayed' | 'local';

export interface Reachability {
  readonly way: Way;
  /** What is told to others, each ending in this node's peer id. */
  readonly addresses: readonly string[];
  /** Relays that hold a place for this node. */
  readonly relays: readonly Address[];
  /** What this node relays for others; absent while it does not. */
  readonly relaying?: Relaying;
}

const RELAYS_WANTED = 2;
const ANNOUNCED_MAX = 8;
const TICK_MS = 1_000;
/** An address of this node's own that peers have not confirmed by then counts as out of reach. */
const CONFIRM_MS = 10_000;
/** A relay that refused is not asked again for so long. */
const REFUSED_MS = 30_000;
const REMEMBERED_MAX = 256;
const DIRECT_MS = 8_000;
/** A peer that could not be dialled directly is dialled again after this long, then after twice as long, and so on. */
const DIRECT_RETRY_MS = 2_000;
const DIRECT_RETRY_MAX_MS = 60_000;
const DIRECT_DIALS_MAX = 4;
/** A circuit with no stream is not left sooner: whoever has just opened it is about to open its first stream. */
const CIRCUIT_IDLE_MS = 5_000;
const SEARCH_EVERY_MS = 30_000;
const SEARCH_MS = 10_000;
const SEARCH_DIALS_MAX = 4;
/** A router forgets after an hour. */
const FORWARD_RENEW_MS = 30 * 60_000;
const FORWARD_RETRY_MS = 5 * 60_000;
const FORWARDED_MAX = 2;
const VERIFY_EVERY_MS = 5_000;
const VERIFIERS_ASKED = 4;

/**
 * What a node tells of itself. `verified` are addresses that work somewhere, `given` those that the operator vouches for,
 * `circuits` those through relays that hold a place for it.
 */
export function announced(
  verified: readonly Multiaddr[],
  { given, circuits }: { readonly given: ReadonlySet<string>; readonly circuits: readonly Multiaddr[] },
): { readonly way: Way; readonly addresses: readonly Multiaddr[] } {
  const own = verified.filter((address) => !isCircuit(address));
  const vouched = own.filter((address) => given.has(bare(address)));
  const world = [...vouched, ...own.filter((address) => !vouched.includes(address) && isPublic(address))];
  if (world.length > 0) return { way: 'direct', addresses: world.slice(0, ANNOUNCED_MAX) };
  if (circuits.length > 0) return { way: 'relayed', addresses: circuits.slice(0, ANNOUNCED_MAX) };
  return { way: 'local', addresses: own.slice(0, ANNOUNCED_MAX) };
}

interface Listener {
  readonly host: string;
  readonly port: number;
}

interface Place {
  readonly relay: PeerId;
  readonly connection: Connection;
  readonly address: Multiaddr;
}

interface Undialled {
  readonly pauseMs: number;
  /** Monotonic time of the next dial. */
  readonly nextMs: number;
}

export interface NatOptions {
  readonly limits: RelayLimits;
  /** Addresses that the operator vouches for. */
  readonly given: readonly Multiaddr[];
  /** Peer ids named by the operator: they are asked to relay before strangers are. */
  readonly trusted: ReadonlySet<string>;
  /** Relay for others, while the world reaches this node directly. */
  readonly relays: boolean;
  /** False where nobody but this machine is to reach the node. */
  readonly wantsRelays: boolean;
  /** Ask the router to forward the port. */
  readonly upnp: boolean;
}

/** What the rest of the mesh does for this chapter. */
interface NatParts {
  readonly libp2p: Libp2p;
  /** Relays that the mesh knows of. */
  findRelays(signal: AbortSignal): AsyncIterable<Address>;
  /** Tells the mesh that this node relays. */
  announceRelay(signal: AbortSignal): Promise<void>;
  /** Asks a connected peer to dial back; absent where nothing confirms addresses. */
  readonly verify?: (connection: Connection) => Promise<void>;
}

interface Parts {
  readonly reservations: Reservations;
  readonly relay: Relay;
  readonly addresses: Components['addressManager'];
}

export class Nat implements AsyncDisposable {
  readonly #env: Env;
  readonly #options: NatOptions;
  readonly #given: ReadonlySet<string>;
  readonly #places = new Map<string, Place>();
  readonly #refused = new Map<string, number>();
  readonly #listeners = new Set<(now: Reachability) => void>();
  readonly #stopped = new AbortController();
  #reservations: Reservations | undefined;
  #relay: Relay | undefined;
  #addresses: Components['addressManager'] | undefined;
  #started: NatParts | undefined;
  #ticker: Disposable | undefined;
  #startedAt = 0;
  #busy: Promise<void> = Promise.resolve();
  #isBusy = false;
  #leaving: Promise<void> = Promise.resolve();
  #isLeaving = false;
  /** Peers that could not be dialled directly, and the pause since. */
  readonly #undialled = new Map<string, Undialled>();
  /** Circuits without a stream, and the monotonic time when that was first seen. */
  readonly #idleSince = new WeakMap<Connection, number>();
  #told = '';
  #searchAt = 0;
  #verifyAt = 0;
  #relayTold = false;
  #forwarding: Promise<void> = Promise.resolve();
  readonly #forwarded = new Map<string, Forwarding>();

  constructor(env: Env, options: NatOptions) {
    this.#env = env;
    this.#options = options;
    this.#given = new Set(options.given.map((address) => bare(address)));
  }

  /** The libp2p transport of circuits. Called once, by createLibp2p. */
  readonly transport: ReturnType<typeof circuits> = circuits((reservations) => (this.#reservations = reservations));

  /** The libp2p service that lends this chapter what relaying needs. Called once, by createLibp2p. */
  readonly service = (components: Components): object => {
    const { addressManager, connectionManager, events, logger, peerId, peerStore, privateKey, registrar } = components;
    const { connectionGater } = components;
    this.#addresses = addressManager;
    this.#relay = new Relay(this.#env.clock, this.#options.limits, {
      addressManager,
      connectionGater,
      connectionManager,
      events,
      logger,
      peerId,
      peerStore,
      privateKey,
      registrar,
    });
    return {};
  };

  /** Begins to look after this node's reachability. Once, when libp2p runs. */
  start(parts: NatParts): void {
    this.#started = parts;
    this.#startedAt = this.#env.clock.monotonic();
    this.#ticker = this.#env.clock.every(TICK_MS, () => this.#tick());
    parts.libp2p.addEventListener('peer:identify', () => this.#tick());
    parts.libp2p.addEventListener('connection:close', () => this.#tick());
    if (this.#options.upnp) this.#forwarding = this.#keepForwarded().catch(() => undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ticker?.[Symbol.dispose]();
    this.#stopped.abort();
    await Promise.all([this.#busy, this.#leaving, this.#forwarding]);
    await Promise.all([...this.#forwarded.values()].map((forwarding) => forwarding.remove()));
  }

  /** What of these addresses is told: libp2p asks this before it tells anything to anyone. */
  readonly filter = (addresses: Multiaddr[]): Multiaddr[] => [...this.#announced(addresses).addresses];

  get reachability(): Reachability {
    const { libp2p, relay } = this.#parts();
    const { relaying } = relay;
    const { way } = this.#announced(this.#verified());
    return {
      way,
      addresses: libp2p.getMultiaddrs().map(String),
      relays: this.#held().flatMap((place) => addressOf(place.relay) ?? []),
      ...(relaying === undefined ? {} : { relaying }),
    };
  }

  onChange(listener: (now: Reachability) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }

  #parts(): NatParts & Parts {
    const [started, reservations, relay, addresses] = [this.#started, this.#reservations, this.#relay, this.#addresses];
    assert(started !== undefined && addresses !== undefined, 'reachability is asked for after the start');
    assert(reservations !== undefined && relay !== undefined, 'libp2p was made with the transport and the service');
    return { ...started, reservations, relay, addresses };
  }

  #announced(addresses: readonly Multiaddr[]): ReturnType<typeof announced> {
    const circuits = this.#started === undefined ? [] : this.#held().map((place) => place.address);
    return announced(addresses, { given: this.#given, circuits });
  }

  #verified(): Multiaddr[] {
    const known = this.#parts().addresses.getAddressesWithMetadata();
    return known.filter(({ verified }) => verified).map(({ multiaddr }) => multiaddr);
  }

  /** Own addresses that the world might dial, if somebody tried. */
  #unverified(): number {
    const known = this.#parts().addresses.getAddressesWithMetadata();
    return known.filter(
      ({ multiaddr, verified, type }) =>
        !verified && type !== 'observed' && !isCircuit(multiaddr) && isPublic(multiaddr),
    ).length;
  }

  /** Places that stand: the relay holds them as long as the connection to it lasts. */
  #held(): Place[] {
    const { reservations } = this.#parts();
    return [...this.#places.values()].filter(
      ({ relay, connection }) => connection.status === 'open' && reservations.hasReservation(relay),
    );
  }

  #tick(): void {
    if (this.#stopped.signal.aborted) return;
    if (!this.#isLeaving) {
      this.#isLeaving = true;
      this.#leaving = this.#leaveRelays().finally(() => (this.#isLeaving = false));
    }
    if (this.#isBusy) return;
    this.#isBusy = true;
    this.#busy = this.#adapt()
      .catch((error: unknown) => {
        if (!this.#stopped.signal.aborted) this.#env.logger.log('warn', 'reachability not settled', { error });
      })
      .finally(() => (this.#isBusy = false));
  }

  async #adapt(): Promise<void> {
    const { way } = this.#announced(this.#verified());
    await this.#tell();
    if (way === 'direct') await this.#beDirect();
    else await this.#beHidden();
    await this.#tell();
  }

  async #beDirect(): Promise<void> {
    const { relay, reservations } = this.#parts();
    if (this.#places.size > 0) {
      reservations.cancelReservations();
      this.#places.clear();
    }
    if (!this.#options.relays) return;
    await relay.open();
    if (
      this.#relayTold ||
      this.#parts().libp2p.getConnections().length === 0 ||
      !this.#isDue('search', SEARCH_EVERY_MS)
    )
      return;
    using deadline = new Deadline(this.#env.clock, SEARCH_MS, this.#stopped.signal);
    // The DHT renews it by itself from then on.
    this.#relayTold = await this.#parts()
      .announceRelay(deadline.signal)
      .then(
        () => true,
        () => false,
      );
  }

  async #beHidden(): Promise<void> {
    await this.#parts().relay.close();
    this.#relayTold = false;
    const unverified = this.#unverified();
    if (unverified > 0) await this.#verify();
    if (!this.#options.wantsRelays) return;
    if (unverified > 0 && this.#env.clock.monotonic() - this.#startedAt < CONFIRM_MS) return;
    for (const [name, place] of this.#places) if (!this.#held().includes(place)) this.#places.delete(name);
    while (this.#places.size < RELAYS_WANTED && !this.#stopped.signal.aborted) {
      const candidate = await this.#candidate();
      if (candidate === undefined) return this.#search();
      await this.#reserve(candidate);
    }
  }

  /**
   * Of two ends of a circuit one of which the world reaches, the other dials there as soon as it is told where. Streams stay
   * where they are; the circuit is closed when it has had none for a while.
   */
  async #leaveRelays(): Promise<void> {
    const { libp2p } = this.#parts();
    const relayed = libp2p.getConnections().filter(({ limits }) => limits !== undefined);
    for (const peer of [...peersOf(relayed)].map(peerIdOf)) {
      const open = libp2p.getConnections(peer).filter(({ status }) => status === 'open');
      const circuits = open.filter(({ limits }) => limits !== undefined);
      if (circuits.length === 0) continue;
      if (circuits.length < open.length) {
        using deadline = new Deadline(this.#env.clock, DIRECT_MS, this.#stopped.signal);
        const { signal } = deadline;
        for (const circuit of circuits)
          if (this.#isLeft(circuit)) await circuit.close({ signal }).catch(() => undefined);
      } else await this.#dialDirectly(peer);
      if (this.#stopped.signal.aborted) return;
    }
  }

  #isLeft(circuit: Connection): boolean {
    const now = this.#env.clock.monotonic();
    const sinceMs = isIdle(circuit) ? (this.#idleSince.get(circuit) ?? now) : undefined;
    if (sinceMs === undefined) this.#idleSince.delete(circuit);
    else this.#idleSince.set(circuit, sinceMs);
    return sinceMs !== undefined && now - sinceMs >= CIRCUIT_IDLE_MS;
  }

  async #dialDirectly(peer: PeerId): Promise<void> {
    const { libp2p } = this.#parts();
    const name = peer.toString();
    const before = this.#undialled.get(name);
    if (before !== undefined && before.nextMs > this.#env.clock.monotonic()) return;
    const known = await libp2p.peerStore.get(peer).catch(() => undefined);
    const told = (known?.addresses ?? []).map(({ multiaddr }) => multiaddr);
    const direct = told.filter((address) => !isCircuit(address) && isPublic(address)).slice(0, DIRECT_DIALS_MAX);
    if (direct.length === 0) return;
    using deadline = new Deadline(this.#env.clock, DIRECT_MS, this.#stopped.signal);
    const named = direct.map((address) =>
      peerOf(address) === undefined ? address.encapsulate(`/p2p/${name}`) : address,
    );
    try {
      await libp2p.dial(named, { signal: deadline.signal });
      this.#undialled.delete(name);
    } catch (error) {
      const pauseMs = Math.min((before?.pauseMs ?? DIRECT_RETRY_MS / 2) * 2, DIRECT_RETRY_MAX_MS);
      remember(this.#undialled, name, { pauseMs, nextMs: this.#env.clock.monotonic() + pauseMs });
      this.#env.logger.log('debug', 'peer not reached directly', { peer: name, addresses: named.map(String), error });
    }
  }

  /** A port that the router forwards is known long after peers were connected, so they are asked again. */
  async #verify(): Promise<void> {
    const { libp2p, verify } = this.#parts();
    if (verify === undefined || !this.#isDue('verify', VERIFY_EVERY_MS)) return;
    const direct = libp2p.getConnections().filter((one) => one.status === 'open' && one.limits === undefined);
    for (const connection of direct.slice(0, VERIFIERS_ASKED)) await verify(connection);
  }

  /** Has the router forward what this node listens at, and renews it, for as long as the node runs. */
  async #keepForwarded(): Promise<void> {
    const { signal } = this.#stopped;
    for (;;) {
      const isDirect = this.#announced(this.#verified()).way === 'direct';
      // A machine that the world reaches anyway has no use for a router.
      const targets = isDirect && this.#forwarded.size === 0 ? [] : this.#behindRouter();
      for (const target of targets) {
        await this.#forward(target).catch((error: unknown) => {
          if (!signal.aborted) this.#env.logger.log('debug', 'port not forwarded', { ...target, error });
        });
      }
      await this.#env.clock.sleep(this.#forwarded.size > 0 ? FORWARD_RENEW_MS : FORWARD_RETRY_MS, signal);
    }
  }

  async #forward({ host, port }: Listener): Promise<void> {
    const forwarding = await forwardPort(this.#env.clock, { host, port }, this.#stopped.signal);
    const { addresses } = this.#parts();
    const before = this.#forwarded.get(`${host}:${port}`);
    this.#forwarded.set(`${host}:${port}`, forwarding);
    const { externalHost, externalPort } = forwarding;
    // A renewal changes nothing, and what peers confirmed stays confirmed.
    if (before?.externalHost === externalHost && before.externalPort === externalPort) return;
    if (before !== undefined)
      addresses.removePublicAddressMapping(host, port, before.externalHost, before.externalPort, 'tcp');
    // Told to nobody before a peer came in by it.
    addresses.addPublicAddressMapping(host, port, externalHost, externalPort, 'tcp');
    this.#env.logger.log('info', 'the router forwards a port', {
      at: `${externalHost}:${externalPort}`,
      to: `${host}:${port}`,
    });
    this.#tick();
  }

  /** TCP ports of this node on private IPv4 networks. */
  #behindRouter(): Listener[] {
    const known = this.#parts().addresses.getAddressesWithMetadata();
    const own = known.flatMap(({ multiaddr: address, type }) => {
      const [ip, tcp] = address.getComponents();
      const isListener = type === 'transport' && ip?.name === 'ip4' && tcp?.name === 'tcp';
      return isListener && reachOf(ip.value ?? '') === 'private'
        ? [{ host: ip.value ?? '', port: Number(tcp.value) }]
        : [];
    });
    return own.slice(0, FORWARDED_MAX);
  }

  async #reserve({ relay, connection, address }: Place): Promise<void> {
    const name = relay.toString();
    try {
      await this.#parts().reservations.addRelay(relay, 'configured');
      this.#places.set(name, { relay, connection, address });
      this.#env.logger.log('info', 'relay found', { relay: addressOf(relay) });
      await this.#tell();
    } catch (error) {
      this.#env.logger.log('debug', 'relay refused', { relay: addressOf(relay), error });
      remember(this.#refused, name, this.#env.clock.monotonic() + REFUSED_MS);
    }
  }

  /**
   * The next relay to ask: one the operator named before a stranger. A relay on the local network leads nobody in from
   * the world, so it counts only where no peer of the world is connected.
   */
  async #candidate(): Promise<Place | undefined> {
    const now = this.#env.clock.monotonic();
    const found: Place[] = [];
    for (const connection of this.#parts().libp2p.getConnections()) {
      const name = connection.remotePeer.toString();
      if (this.#places.has(name) || (this.#refused.get(name) ?? 0) > now) continue;
      const address = this.#circuitThrough(connection);
      if (address === undefined) continue;
      const known = await this.#parts()
        .libp2p.peerStore.get(connection.remotePeer)
        .catch(() => undefined);
      if (known?.protocols.includes(RELAY_PROTOCOL) === true)
        found.push({ relay: connection.remotePeer, connection, address });
    }
    const world = found.filter(({ address }) => isPublic(address));
    const isWorldly = this.#parts()
      .libp2p.getConnections()
      .some(({ remoteAddr }) => isPublic(remoteAddr));
    const usable = isWorldly ? world : found;
    const trusted = usable.filter(({ relay }) => this.#options.trusted.has(relay.toString()));
    const pool = trusted.length > 0 ? trusted : usable;
    return pool.length === 0 ? undefined : pool[randomInt(this.#env.random, pool.length)];
  }

  /** Undefined for a connection that leads to no relay, or by an address that no message has room for. */
  #circuitThrough({ remotePeer, remoteAddr, direction, limits, status }: Connection): Multiaddr | undefined {
    if (direction !== 'outbound' || status !== 'open' || limits !== undefined || isCircuit(remoteAddr))
      return undefined;
    const relay =
      peerOf(remoteAddr) === undefined ? remoteAddr.encapsulate(`/p2p/${remotePeer.toString()}`) : remoteAddr;
    const address = relay.encapsulate(`/p2p-circuit/p2p/${this.#parts().libp2p.peerId.toString()}`);
    return address.bytes.length <= LIMITS.addressBytes ? address : undefined;
  }

  /** Connects to relays that the mesh knows of; the next tick sees whether they are any good. */
  async #search(): Promise<void> {
    const { libp2p } = this.#parts();
    if (libp2p.getConnections().length === 0 || !this.#isDue('search', SEARCH_EVERY_MS)) return;
    using deadline = new Deadline(this.#env.clock, SEARCH_MS, this.#stopped.signal);
    let dials = 0;
    try {
      for await (const relay of this.#parts().findRelays(deadline.signal)) {
        const peer = peerIdOf(relay);
        if (this.#places.has(peer.toString()) || libp2p.getConnections(peer).length > 0) continue;
        await libp2p.dial(peer, { signal: deadline.signal }).catch(() => undefined);
        if (++dials >= SEARCH_DIALS_MAX) return;
      }
    } catch (error) {
      if (!deadline.signal.aborted) throw error;
    }
  }

  #isDue(what: 'search' | 'verify', everyMs: number): boolean {
    const now = this.#env.clock.monotonic();
    if (now < (what === 'search' ? this.#searchAt : this.#verifyAt)) return false;
    if (what === 'search') this.#searchAt = now + everyMs;
    else this.#verifyAt = now + everyMs;
    return true;
  }

  /** Peers hear of new addresses by identify, listeners by a call. */
  async #tell(): Promise<void> {
    const now = this.reachability;
    const text = [now.way, ...now.addresses].join(' ');
    if (text === this.#told || this.#stopped.signal.aborted) return;
    this.#told = text;
    const { libp2p } = this.#parts();
    const own = `/p2p/${libp2p.peerId.toString()}`;
    const multiaddrs = libp2p.getMultiaddrs().map((address) => address.decapsulate(own));
    await libp2p.peerStore.patch(libp2p.peerId, { multiaddrs });
    for (const listener of this.#listeners) listener(now);
  }
}

/** No stream of Molt is there, nor one that is still being agreed on. */
function isIdle({ streams }: Connection): boolean {
  return streams.every(({ protocol }) => protocol !== '' && !protocol?.startsWith('/molt-'));
}

/** The oldest is forgotten when there are too many. */
function remember<Value>(known: Map<string, Value>, name: string, value: Value): void {
  known.delete(name);
  known.set(name, value);
  for (const oldest of known.keys()) {
    if (known.size <= REMEMBERED_MAX) return;
    known.delete(oldest);
  }
}

export function isCircuit(address: Multiaddr): boolean {
  return address.getComponents().some(({ name }) => name === 'p2p-circuit');
}

/** By the host that the address begins with, which for a circuit is the relay. */
function isPublic(address: Multiaddr): boolean {
  const ip = ipOf(address);
  return ip === undefined ? !isCircuit(address) : isPublicAddress(ip);
}

/** Without the peer ids at its end, so that an address compares whoever it is written for. */
function bare(address: Multiaddr): string {
  return address.toString().replace(/\/p2p\/[A-Za-z0-9]+$/, '');
}
