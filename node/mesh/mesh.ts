/**
 * The composition root of the mesh: one libp2p node with the settings Molt needs, behind Molt's own words.
 *
 * Loaded always: TCP, TLS 1.3 and Noise in this order, yamux, identify, ping, gossipsub. Loaded when asked for, because
 * each costs start time and memory: the datastore, the DHT, websockets, mDNS, AutoNAT.
 */
import { createHash } from 'node:crypto';

import { privateKeyFromRaw } from '@libp2p/crypto/keys';
import { type Identify, type IdentifyPush, identify, identifyPush } from '@libp2p/identify';
import type { GossipSub } from '@libp2p/gossipsub';
import type { Connection, Libp2p, PeerInfo, ServiceMap } from '@libp2p/interface';
import type { KadDHT, KadDHTComponents } from '@libp2p/kad-dht';
import { noise } from '@libp2p/noise';
import { type Ping, ping } from '@libp2p/ping';
import { tcp } from '@libp2p/tcp';
import { yamux } from '@libp2p/yamux';
import type { LevelDatastore } from 'datastore-level';
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr';
import { type Libp2pOptions, createLibp2p } from 'libp2p';
import { CID } from 'multiformats/cid';
import * as Digest from 'multiformats/hashes/digest';

import type { Network, ProtocolLimits, PubSub, TopicLimits } from '../../market/ports.ts';
import type { Address } from '../../protocol/address.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import type { Env } from '../../protocol/env.ts';
import { MoltError, assert } from '../../protocol/errors.ts';
import { rangeOf } from '../../protocol/multiaddress.ts';
import { Deadline } from '../../protocol/deadline.ts';
import { findFriends } from './friends.ts';
import { Gate, type GateLimits } from './gater.ts';
import { Gossip, type GossipLimits, type Validate } from './gossip.ts';
import { Guard, type GuardLimits } from './guard.ts';
import { Heartbeat } from './heartbeat.ts';
import { withoutCircuits } from './dht.ts';
import { directTls } from './encryption.ts';
import { ipOf, reachOf } from './ip.ts';
import { Nat, type NatOptions, type Reachability, isCircuit } from './nat.ts';
import { Pressure, type PressureLimits } from './pressure.ts';
import { addressOf, parseAddresses, peerIdOf, peerOf, peersOf } from './peer.ts';
import { RELAY_LIMITS, type RelayLimits } from './relay.ts';
import { silentComponents } from './silence.ts';
import { type MeshOpenOptions, type StreamHandler, Streams } from './streams.ts';
import { Watch } from './watch.ts';

export interface MeshLimits extends GateLimits, GossipLimits, GuardLimits, RelayLimits, PressureLimits {
  /** Open connections; beyond it inbound ones are refused and the least useful ones pruned. */
  readonly connectionsMax: number;
  /** Inbound streams of one connection, all protocols together. */
  readonly inboundStreamsMax: number;
  /** Of one stream: what a peer may send before we read. 16 MiB fills a 50 ms line at 200 MB/s. */
  readonly windowBytesMax: number;
}

const DEFAULT_MESH_LIMITS: MeshLimits = {
  ...RELAY_LIMITS,
  connectionsMax: 150,
  inboundStreamsMax: 128,
  windowBytesMax: 4 * 1024 * 1024,
  acceptsPerSecond: 20,
  acceptsPerSecondPerRange: 3,
  acceptsPerSecondPerLocalRange: 40,
  connectionsPerRange: 32,
  connectionsPerLocalRange: 120,
  streamsPerSecond: 200,
  controlFramesPerSecond: 1_000,
  gossipPerSecond: 1_200,
  pressureMs: 200,
  banMs: 30 * 60_000,
  messageBytesMax: 4 * 1024,
  frameBytesMax: 4 * 1024 * 1024,
  pendingVerdictsMax: 1_024,
};

export interface MeshOptions {
  readonly key: KeyPair;
  /** Where known peers and DHT records are kept; absent: in memory. One process at a time. */
  readonly directory?: string;
  /** Multiaddrs to listen at, for example `/ip4/0.0.0.0/tcp/4001`; empty: dial only. */
  readonly listen: readonly string[];
  /** Further multiaddrs at which the world reaches this node, for example of a forwarded port. */
  readonly announce?: readonly string[];
  /** Multiaddrs of peers to stay connected to. */
  readonly bootstrap: readonly string[];
  /** Find peers of the same network on the local network segment. */
  readonly mdns: boolean;
  /** Ask the router to forward our port, and confirm it by peers that dial back. Default false. */
  readonly upnp?: boolean;
  /** Relay for peers behind NAT while the world reaches this node directly. Default false. */
  readonly relay?: boolean;
  /** `light` is a buyer: it uses the DHT without serving it. */
  readonly role: 'node' | 'light';
  /** Separates networks: topics, protocols and DHT of one are not heard on another. Letters, digits and hyphens. */
  readonly network: string;
  readonly limits?: Partial<MeshLimits>;
}

export type PeerEvent = { readonly type: 'connected' | 'disconnected'; readonly peer: Address };

/** A peer of the mesh. What the market needs of it is declared in market/ports.ts. Once closed it throws `node/stopped`. */
export interface Mesh extends PubSub, Network, AsyncDisposable {
  readonly self: Address;
  readonly addresses: readonly string[];
  peers(): readonly Address[];
  isConnected(peer: Address): boolean;
  /** Network range (/24, /48) that a peer is connected from; empty on the local network, whose addresses are shared. */
  rangeOf(peer: Address): string;
  /** Connects to whoever answers at these addresses and stays connected to it. Throws `mesh/unreachable`. */
  connect(addresses: readonly string[], signal?: AbortSignal): Promise<Address>;
  /** Connects to whoever answers at these addresses of a stranger, once. Throws `mesh/unreachable`. */
  meet(addresses: readonly string[], signal?: AbortSignal): Promise<Address>;
  /** Addresses of peers that a walk through the DHT to a random place meets, those of each together. */
  wander(signal?: AbortSignal): AsyncIterable<readonly string[]>;
  onPeer(listener: (event: PeerEvent) => void): Disposable;
  /** How the world reaches this node now. */
  readonly reachability: Reachability;
  /** Calls for every change of the way or of the addresses. */
  onReachability(listener: (now: Reachability) => void): Disposable;
  open(to: Address, protocol: string, options?: MeshOpenOptions): ReturnType<Network['open']>;
  handle(protocol: string, limits: ProtocolLimits, handler: StreamHandler): Promise<AsyncDisposable>;
  /** Tells the DHT that this node has the content; renewed by itself while the node runs. */
  provide(cid: string, signal?: AbortSignal): Promise<void>;
  /** Peers that said they have the content, each once. Ends when the DHT knows no more. */
  findProviders(cid: string, signal?: AbortSignal): AsyncIterable<Address>;
}

interface Services extends ServiceMap {
  identify: Identify;
  identifyPush: IdentifyPush;
  ping: Ping;
  gossip: GossipSub;
  dht: KadDHT;
  autonat?: unknown;
}

interface Parts {
  readonly libp2p: Libp2p<Services>;
  readonly gossip: Gossip;
  readonly gate: Gate;
  readonly guard: Guard;
  readonly pressure: Pressure;
  readonly nat: Nat;
  readonly store: LevelDatastore | undefined;
}

const CONNECT_MS = 10_000;
/** Multicodec numbers. */
const RAW_CODEC = 0x55;
const SHA_256_CODE = 0x12;
const FIND_PROVIDERS_MS = 30_000;

/**
 * Starts a peer. Resolves when it listens; dialling the bootstrap peers goes on in the background. Throws
 * `mesh/listen-failed`, `config/invalid` (an address or network name that cannot be) or `node/already-running` (the
 * directory is in use).
 */
export async function openMesh(env: Env, options: MeshOptions): Promise<Mesh> {
  checkOptions(options);
  const limits = { ...DEFAULT_MESH_LIMITS, ...options.limits };
  const prefix = `/molt-${options.network}`;
  const pressure = new Pressure(env.clock, limits);
  const gate = new Gate(env.clock, limits, pressure);
  gate.livesAt(options.listen.map((address) => multiaddr(address)));
  const guard = new Guard(env, { gate, pressure, limits });
  const gossip = new Gossip(env, limits, { prefix, guard, pressure });
  const nat = new Nat(env, natOptions(options, limits));
  const store = await openStore(options);
  let onLocalPeer: (peer: PeerInfo) => void = () => undefined;
  const libp2p = await createLibp2p({
    ...(await configuration(options, limits, { gate, gossip, nat, prefix })),
    peerDiscovery: await localDiscovery(options, (peer) => onLocalPeer(peer)),
    ...(store === undefined ? {} : { datastore: store }),
  });
  guard.watch(libp2p);
  try {
    await libp2p.start();
  } catch (cause) {
    pressure[Symbol.dispose]();
    await libp2p.stop();
    await store?.close();
    throw startFailure(options, cause);
  }
  const mesh = new Libp2pMesh(env, { libp2p, gossip, gate, guard, pressure, nat, store }, prefix);
  onLocalPeer = (peer) => mesh.keep(peer.multiaddrs, addressOf(peer.id));
  for (const address of options.bootstrap) {
    const parsed = multiaddr(address);
    if (peerOf(parsed) !== libp2p.peerId.toString()) mesh.keep([parsed]);
  }
  mesh.start();
  return mesh;
}

class Libp2pMesh implements Mesh {
  readonly self: Address;
  readonly #env: Env;
  readonly #parts: Parts;
  readonly #streams: Streams;
  readonly #watch: Watch;
  readonly #heartbeat: Heartbeat;
  readonly #relayCid: string;
  readonly #listeners = new Set<(event: PeerEvent) => void>();
  readonly #stopped = new AbortController();

  constructor(env: Env, parts: Parts, prefix: string) {
    this.#env = env;
    this.#parts = parts;
    this.#streams = new Streams(env, { libp2p: parts.libp2p, pressure: parts.pressure, prefix });
    this.#watch = new Watch(env, { ...parts, prefix });
    this.#heartbeat = new Heartbeat(env, parts.libp2p);
    this.#relayCid = relayCid(prefix);
    const self = addressOf(parts.libp2p.peerId);
    assert(self !== undefined, 'the node key is Ed25519');
    this.self = self;
    parts.libp2p.addEventListener('peer:connect', (event) => this.#tell('connected', addressOf(event.detail)));
    parts.libp2p.addEventListener('peer:disconnect', (event) => this.#tell('disconnected', addressOf(event.detail)));
  }

  get addresses(): readonly string[] {
    return this.#parts.libp2p.getMultiaddrs().map(String);
  }

  keep(addresses: readonly Multiaddr[], peer?: Address): void {
    this.#parts.gate.livesAt(addresses);
    if (!this.#watch.keep(addresses, peer))
      this.#env.logger.log('warn', 'too many peers to stay connected to', { peer });
  }

  start(): void {
    const { libp2p, nat } = this.#parts;
    nat.start({
      libp2p,
      findRelays: (signal) => this.findProviders(this.#relayCid, signal),
      announceRelay: (signal) => this.provide(this.#relayCid, signal),
      ...verifier(libp2p.services.autonat),
    });
    this.#watch.start();
    void findFriends(this.#env, { libp2p, dht: libp2p.services.dht }, this.#stopped.signal);
  }

  get reachability(): Reachability {
    return this.#parts.nat.reachability;
  }

  onReachability(listener: (now: Reachability) => void): Disposable {
    return this.#parts.nat.onChange(listener);
  }

  peers(): readonly Address[] {
    return [...peersOf(this.#parts.libp2p.getConnections())];
  }

  isConnected(peer: Address): boolean {
    return this.#parts.libp2p.getConnections(peerIdOf(peer)).length > 0;
  }

  rangeOf(peer: Address): string {
    const [connection] = this.#parts.libp2p.getConnections(peerIdOf(peer));
    const ip = connection === undefined ? undefined : ipOf(connection.remoteAddr);
    return ip === undefined || reachOf(ip) !== 'public' ? '' : rangeOf(ip);
  }

  async connect(addresses: readonly string[], signal?: AbortSignal): Promise<Address> {
    this.#stopped.signal.throwIfAborted();
    const parsed = parseAddresses(addresses);
    this.#parts.gate.livesAt(parsed);
    const peer = await this.#dial(parsed, signal);
    this.keep(parsed, peer);
    return peer;
  }

  async meet(addresses: readonly string[], signal?: AbortSignal): Promise<Address> {
    this.#stopped.signal.throwIfAborted();
    // The gate decides: on a stranger's word nobody is dialled in a private network.
    return this.#dial(parseAddresses(addresses), signal);
  }

  async *wander(signal?: AbortSignal): AsyncGenerator<readonly string[], void, undefined> {
    const seen = new Set<string>([this.#parts.libp2p.peerId.toString()]);
    using deadline = new Deadline(this.#env.clock, FIND_PROVIDERS_MS, this.#whileRunning(signal));
    const { dht } = this.#parts.libp2p.services;
    for await (const event of dht.getClosestPeers(this.#env.random.bytes(32), { signal: deadline.signal })) {
      if (event.name !== 'PEER_RESPONSE') continue;
      for (const { id, multiaddrs } of event.closer) {
        if (seen.has(id.toString()) || this.#parts.libp2p.getConnections(id).length > 0) continue;
        seen.add(id.toString());
        const direct = multiaddrs.filter((address) => ipOf(address) !== undefined && !isCircuit(address));
        if (direct.length > 0) yield parseAddresses(direct.map(String), id).map(String);
      }
    }
  }

  async #dial(parsed: Multiaddr[], signal: AbortSignal | undefined): Promise<Address> {
    using deadline = new Deadline(this.#env.clock, CONNECT_MS, signal);
    try {
      const connection = await this.#parts.libp2p.dial(parsed, { signal: deadline.signal });
      const peer = addressOf(connection.remotePeer);
      assert(peer !== undefined, 'the gate lets Ed25519 keys pass only');
      return peer;
    } catch (cause) {
      signal?.throwIfAborted();
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new MoltError(
        'mesh/unreachable',
        `no peer answers at ${parsed.join(', ')}: ${why}; check the address and that the peer runs`,
        {},
        { cause },
      );
    }
  }

  onPeer(listener: (event: PeerEvent) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }

  async publish(topic: string, data: Uint8Array): Promise<void> {
    this.#stopped.signal.throwIfAborted();
    await this.#parts.gossip.publish(topic, data);
  }

  async subscribe(topic: string, validate: Validate, limits?: TopicLimits): Promise<Disposable> {
    this.#stopped.signal.throwIfAborted();
    return this.#parts.gossip.subscribe(topic, validate, limits);
  }

  async open(to: Address, protocol: string, options?: MeshOpenOptions): ReturnType<Network['open']> {
    this.#stopped.signal.throwIfAborted();
    return this.#streams.open(to, protocol, options);
  }

  async handle(protocol: string, limits: ProtocolLimits, handler: StreamHandler): Promise<AsyncDisposable> {
    this.#stopped.signal.throwIfAborted();
    return this.#streams.handle(protocol, limits, handler);
  }

  async provide(cid: string, signal?: AbortSignal): Promise<void> {
    using deadline = new Deadline(this.#env.clock, FIND_PROVIDERS_MS, this.#whileRunning(signal));
    for await (const event of this.#parts.libp2p.services.dht.provide(parseCid(cid), { signal: deadline.signal })) {
      if (event.name === 'QUERY_ERROR') this.#env.logger.log('debug', 'dht peer failed', { error: event.error });
    }
  }

  async *findProviders(cid: string, signal?: AbortSignal): AsyncGenerator<Address, void, undefined> {
    const seen = new Set<Address>();
    using deadline = new Deadline(this.#env.clock, FIND_PROVIDERS_MS, this.#whileRunning(signal));
    for await (const event of this.#parts.libp2p.services.dht.findProviders(parseCid(cid), {
      signal: deadline.signal,
    })) {
      if (event.name !== 'PROVIDER' && event.name !== 'PEER_RESPONSE') continue;
      for (const provider of event.providers) {
        const peer = addressOf(provider.id);
        if (peer === undefined || peer === this.self || seen.has(peer)) continue;
        seen.add(peer);
        await this.#parts.libp2p.peerStore.merge(provider.id, { multiaddrs: provider.multiaddrs.slice(0, 16) });
        yield peer;
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#stopped.signal.aborted) return;
    this.#stopped.abort(new MoltError('node/stopped', 'this node is closing'));
    this.#watch[Symbol.dispose]();
    this.#heartbeat[Symbol.dispose]();
    this.#parts.pressure[Symbol.dispose]();
    this.#streams.abortAll();
    await this.#parts.nat[Symbol.asyncDispose]();
    await this.#parts.libp2p.stop();
    await this.#parts.store?.close();
  }

  #whileRunning(signal?: AbortSignal): AbortSignal {
    return signal === undefined ? this.#stopped.signal : AbortSignal.any([this.#stopped.signal, signal]);
  }

  #tell(type: PeerEvent['type'], peer: Address | undefined): void {
    if (peer === undefined) return;
    const connections = this.#parts.libp2p.getConnections(peerIdOf(peer));
    const hearsGossip = connections.some(({ limits }) => limits === undefined);
    if (type === 'connected' && hearsGossip) this.#parts.gossip.connected(peer);
    else if (type === 'disconnected') this.#parts.gossip.disconnected(peer);
    this.#env.logger.log('debug', 'peer changed', { type, peer });
    for (const listener of this.#listeners) listener({ type, peer });
  }
}

async function configuration(
  options: MeshOptions,
  limits: MeshLimits,
  parts: { readonly gate: Gate; readonly gossip: Gossip; readonly nat: Nat; readonly prefix: string },
): Promise<Libp2pOptions<Services>> {
  // With its public half beside it: the library would compute that in JavaScript, a fifth of the time until a node listens.
  const privateKey = privateKeyFromRaw(Buffer.concat([options.key.seed, options.key.publicKey]));
  const { kadDHT } = await import('@libp2p/kad-dht');
  return {
    start: false,
    privateKey,
    nodeInfo: { userAgent: 'molt' },
    addresses: {
      listen: [...options.listen],
      appendAnnounce: [...(options.announce ?? [])],
      announceFilter: parts.nat.filter,
    },
    transports: [...(await transports(options, limits)), parts.nat.transport],
    connectionEncrypters: [directTls(), noise()],
    streamMuxers: [yamux(muxer(limits))],
    connectionGater: parts.gate.hooks,
    connectionManager: {
      maxConnections: limits.connectionsMax,
      // The gate counts per range; libp2p's own count per address would refuse ten nodes behind one address.
      inboundConnectionThreshold: limits.connectionsMax,
      // The gate counts those per range, where a few silent sockets cannot shut everybody out.
      maxIncomingPendingConnections: 64,
      maxPeerAddrsToDial: 8,
      dialTimeout: 8_000,
      inboundUpgradeTimeout: 5_000,
      outboundStreamProtocolNegotiationTimeout: 5_000,
      inboundStreamProtocolNegotiationTimeout: 5_000,
      // watch.ts redials: libp2p would give up after a few tries.
      reconnectRetries: 0,
    },
    // heartbeat.ts does that.
    connectionMonitor: { enabled: false },
    logger: silentComponents,
    services: {
      identify: identify(),
      identifyPush: identifyPush(),
      ping: ping({ maxInboundStreams: 8, maxOutboundStreams: 4 }),
      gossip: parts.gossip.service,
      circuits: parts.nat.service,
      dht: (components: KadDHTComponents) =>
        kadDHT({
          protocol: `${parts.prefix}/kad/1`,
          clientMode: options.role === 'light',
          peerInfoMapper: (peer) => ({
            ...peer,
            multiaddrs: peer.multiaddrs.filter((address) => parts.gate.mayDial(address)),
          }),
          allowQueryWithZeroPeers: true,
        })(withoutCircuits(components)),
      ...(await natServices(options)),
    },
  };
}

/** A paused stream may still receive one whole window, so the read limit lies above it: libp2p resets the stream otherwise. */
function muxer(limits: MeshLimits): Parameters<typeof yamux>[0] {
  return {
    maxInboundStreams: limits.inboundStreamsMax,
    // heartbeat.ts pings.
    enableKeepAlive: false,
    streamOptions: {
      maxStreamWindowSize: limits.windowBytesMax,
      maxReadBufferLength: limits.windowBytesMax + 1024 * 1024,
      maxWriteBufferLength: 8 * 1024 * 1024,
    },
  };
}

async function transports(options: MeshOptions, limits: MeshLimits): Promise<NonNullable<Libp2pOptions['transports']>> {
  const made: NonNullable<Libp2pOptions['transports']> = [
    tcp({ maxConnections: limits.connectionsMax + 10, backlog: 64 }),
  ];
  const named = [...options.listen, ...options.bootstrap, ...(options.announce ?? [])];
  if (named.some((address) => /\/wss?(\/|$)/.test(address))) {
    const { webSockets } = await import('@libp2p/websockets');
    made.push(webSockets());
  }
  return made;
}

async function openStore(options: MeshOptions): Promise<LevelDatastore | undefined> {
  if (options.directory === undefined) return undefined;
  const { LevelDatastore } = await import('datastore-level');
  const store = new LevelDatastore(options.directory);
  try {
    await store.open();
  } catch (cause) {
    throw new MoltError(
      'node/already-running',
      `the peer store in ${options.directory} cannot be opened; is another node using it?`,
      {},
      { cause },
    );
  }
  return store;
}

/** libp2p mixes what mDNS hears with what the DHT tells; only the first is worth a lasting connection. */
async function localDiscovery(
  options: MeshOptions,
  found: (peer: PeerInfo) => void,
): Promise<NonNullable<Libp2pOptions['peerDiscovery']>> {
  if (!options.mdns) return [];
  const { mdns } = await import('@libp2p/mdns');
  return [
    (components) => {
      const service = mdns({ serviceTag: `_molt-${options.network}._udp.local` })(components);
      service.addEventListener('peer', (event) => found(event.detail));
      return service;
    },
  ];
}

async function natServices(options: MeshOptions): Promise<object> {
  const services: Record<string, unknown> = {};
  if (options.listen.some((address) => !isLoopback(address))) {
    const { autoNATv2 } = await import('@libp2p/autonat-v2');
    services['autonat'] = autoNATv2();
  }
  return services;
}

function natOptions(options: MeshOptions, limits: MeshLimits): NatOptions {
  const { announce = [], bootstrap, relay = false, upnp = false } = options;
  return {
    limits,
    given: announce.map((address) => multiaddr(address)),
    trusted: new Set(bootstrap.flatMap((address) => peerOf(multiaddr(address)) ?? [])),
    relays: relay,
    wantsRelays: wantsRelays(options),
    upnp: upnp && wantsRelays(options),
  };
}

/** Whoever listens on this machine only wants nobody from elsewhere. */
function wantsRelays({ listen }: MeshOptions): boolean {
  return listen.length === 0 || listen.some((address) => !isLoopback(address));
}

/** The name under which relays of a network stand in the DHT: a raw CID over SHA-256 of the text. */
function relayCid(prefix: string): string {
  const digest = createHash('sha256').update(`molt/1/relay${prefix}`).digest();
  return CID.createV1(RAW_CODEC, Digest.create(SHA_256_CODE, digest)).toString();
}

/** AutoNAT asks a peer once, when it connects; by this it is asked again. */
function verifier(autonat: unknown): { verify?: (connection: Connection) => Promise<void> } {
  if (autonat === undefined) return {};
  const { client } = autonat as { client?: { verifyExternalAddresses?(connection: Connection): Promise<void> } };
  const verify = client?.verifyExternalAddresses?.bind(client);
  assert(verify !== undefined, 'this release of @libp2p/autonat-v2 asks elsewhere: adapt node/mesh/mesh.ts');
  return { verify };
}

function checkOptions(options: MeshOptions): void {
  if (!/^[A-Za-z0-9-]{1,64}$/.test(options.network)) {
    throw new MoltError(
      'config/invalid',
      `expected a network name of letters, digits and hyphens, got "${options.network}"`,
    );
  }
  for (const address of [...options.listen, ...options.bootstrap, ...(options.announce ?? [])]) {
    try {
      multiaddr(address);
    } catch (cause) {
      throw new MoltError(
        'config/invalid',
        `expected a multiaddr such as /ip4/0.0.0.0/tcp/4001, got "${address}"`,
        {},
        { cause },
      );
    }
  }
}

/** The wildcard address counts as public: it says nothing about the network. */
function isLoopback(address: string): boolean {
  return reachOf(ipOf(multiaddr(address)) ?? '') === 'loopback';
}

function startFailure(options: MeshOptions, cause: unknown): MoltError {
  const text = cause instanceof Error ? cause.message : String(cause);
  // The library tells each address with the stack of its error.
  const told = [...text.matchAll(/Error: (.+)/g)].map(([, why]) => why);
  const why = told.length === 0 ? text : [...new Set(told)].join(', ');
  return new MoltError(
    'mesh/listen-failed',
    `cannot listen at ${options.listen.join(', ')}: ${why}; choose another port (setting \`listen\`) or stop what uses it`,
    {},
    { cause },
  );
}

function parseCid(cid: string): CID {
  try {
    return CID.parse(cid);
  } catch (cause) {
    throw new MoltError('protocol/malformed', `expected a CID, got "${cid.slice(0, 64)}"`, {}, { cause });
  }
}
