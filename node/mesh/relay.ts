/**
 * Circuits: connections to a peer behind NAT that run through a third one, the relay (circuit relay v2 of libp2p).
 *
 * A relay lends its address and its line, never its trust: the two ends encrypt to each other, and it sees bytes. What
 * strangers can make it spend is bounded in every dimension: peers it holds a place for, circuits at once in all and of one
 * peer, new circuits a second, bytes and time of one circuit, and bytes an hour in all. A job's streams resume, so a circuit
 * that ends at its bound costs a pause, not the job.
 *
 * The side behind NAT takes circuits only from relays that it chose itself.
 */
import { AsyncLocalStorage } from 'node:async_hooks';

import {
  type CircuitRelayServerComponents,
  type CircuitRelayService,
  type CircuitRelayTransportComponents,
  RELAY_V2_HOP_CODEC,
  RELAY_V2_STOP_CODEC,
  circuitRelayServer,
  circuitRelayTransport,
} from '@libp2p/circuit-relay-v2';
import {
  type Connection,
  type ConnectionGater,
  type PeerId,
  type Startable,
  type Stream,
  type StreamHandler,
  type Transport,
  isStartable,
} from '@libp2p/interface';

import { createBuckets } from '../../market/index.ts';
import type { Clock } from '../../protocol/env.ts';
import { MoltError, assert } from '../../protocol/errors.ts';
import { Bucket } from './bucket.ts';
import { withMethod } from './with-method.ts';

/** The protocol by which a peer tells that it relays. */
export const RELAY_PROTOCOL: string = RELAY_V2_HOP_CODEC;

export interface RelayLimits {
  /** Peers behind NAT that this node relays for. */
  readonly relayReservationsMax: number;
  /** How long a place is held without being renewed. Peers renew five minutes before. */
  readonly relayReservationMs: number;
  /** Circuits through this node at once. */
  readonly relayCircuitsMax: number;
  /** The same of one peer, those it opens and those it takes each. */
  readonly relayCircuitsPerPeer: number;
  /** Both directions of one circuit together. */
  readonly relayCircuitBytes: number;
  readonly relayCircuitMs: number;
  /** All circuits and directions together. */
  readonly relayBytesPerHour: number;
}

export const RELAY_LIMITS: RelayLimits = {
  relayReservationsMax: 64,
  relayReservationMs: 60 * 60_000,
  relayCircuitsMax: 64,
  relayCircuitsPerPeer: 8,
  relayCircuitBytes: 1024 ** 3,
  relayCircuitMs: 6 * 60 * 60_000,
  relayBytesPerHour: 10 * 1024 ** 3,
};

/** New circuits of one opener, and to one peer behind NAT: each costs the latter a handshake. */
const CIRCUITS_FROM_PEER = { perSecond: 0.5, burst: 8 };
const CIRCUITS_TO_PEER = { perSecond: 2, burst: 16 };
const RESERVATIONS_OF_PEER = { perSecond: 0.1, burst: 5 };
const PEERS_REMEMBERED = 4_096;
const HOUR_SECONDS = 3_600;
const HOP_MS = 10_000;

/** What relaying needs of libp2p. */
export type Components = CircuitRelayServerComponents & Pick<CircuitRelayTransportComponents, 'events'>;

/** What this node relays for others now. */
export interface Relaying {
  readonly reservations: number;
  readonly circuits: number;
  /** Since the relay was opened, both directions. */
  readonly bytes: number;
}

/** A stream that asks for a place, or for a circuit, which it becomes. */
interface Asked {
  readonly stream: Stream;
  readonly opener: string;
  /** It counts as a circuit. */
  isAdmitted: boolean;
  /** The other half. */
  far?: Stream;
}

/** The relaying side. Offers nothing until `open`, and nothing after `close`. */
export class Relay {
  readonly #clock: Clock;
  readonly #limits: RelayLimits;
  readonly #components: Components;
  readonly #budget: Bucket;
  readonly #circuits = new Map<string, number>();
  /** What is asked of this relay, and on whose behalf the current code runs. */
  readonly #asking = new AsyncLocalStorage<Asked>();
  #server: (CircuitRelayService & Startable) | undefined;
  #all = 0;
  #bytes = 0;

  constructor(clock: Clock, limits: RelayLimits, components: Components) {
    this.#clock = clock;
    this.#limits = limits;
    this.#components = components;
    this.#budget = new Bucket(limits.relayBytesPerHour / HOUR_SECONDS, limits.relayBytesPerHour);
  }

  get relaying(): Relaying | undefined {
    if (this.#server === undefined) return undefined;
    return { reservations: this.#server.reservations.size, circuits: this.#all, bytes: this.#bytes };
  }

  async open(): Promise<void> {
    if (this.#server !== undefined) return;
    const limits = this.#limits;
    const server = circuitRelayServer({
      hopTimeout: HOP_MS,
      maxInboundHopStreams: limits.relayCircuitsPerPeer + 2,
      maxOutboundStopStreams: limits.relayCircuitsPerPeer,
      reservations: {
        maxReservations: limits.relayReservationsMax,
        reservationTtl: limits.relayReservationMs,
        defaultDurationLimit: limits.relayCircuitMs,
        defaultDataLimit: BigInt(limits.relayCircuitBytes),
      },
    })({
      ...this.#components,
      registrar: guarded(this.#components.registrar, RELAY_V2_HOP_CODEC, (handler) => this.#knowing(handler)),
      connectionManager: this.#joining(this.#components.connectionManager),
      connectionGater: this.#gater(),
    });
    assert(isStartable(server), 'this release of @libp2p/circuit-relay-v2 starts its relay otherwise');
    this.#server = server;
    this.#components.events.addEventListener('peer:disconnect', this.#onGone);
    await server.start();
  }

  /** Gives up every place and breaks every circuit. */
  async close(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    this.#components.events.removeEventListener('peer:disconnect', this.#onGone);
    await server?.stop();
  }

  /** A peer that is gone has no use for its place, which others may have. */
  readonly #onGone = (event: CustomEvent<PeerId>): void => this.#release(event.detail);

  /**
   * libp2p renews a reservation by a second timer while the first one runs on, and so forgets it at the second renewal.
   * A renewal is therefore a new reservation, and the old one's timer ends here.
   */
  #release(peer: PeerId): void {
    const reservation = this.#server?.reservations.get(peer);
    if (reservation === undefined) return;
    reservation.signal.clear();
    this.#server?.reservations.delete(peer);
  }

  /** The form libp2p asks in: true means no. */
  #gater(): ConnectionGater {
    const reserving = createBuckets(RESERVATIONS_OF_PEER, PEERS_REMEMBERED);
    const from = createBuckets(CIRCUITS_FROM_PEER, PEERS_REMEMBERED);
    const to = createBuckets(CIRCUITS_TO_PEER, PEERS_REMEMBERED);
    return {
      denyInboundRelayReservation: (peer) => {
        if (!reserving.take(peer.toString(), this.#clock.monotonic())) return true;
        this.#release(peer);
        return false;
      },
      denyOutboundRelayedConnection: (opener, target) => {
        const now = this.#clock.monotonic();
        if (!this.#budget.take(now, 1) || !from.take(opener.toString(), now) || !to.take(target.toString(), now))
          return true;
        return !this.#admits(this.#asked());
      },
    };
  }

  /** Lets the code that answers a stream know which one it is, and ends one that no circuit came of. */
  #knowing(handler: StreamHandler): StreamHandler {
    return async (stream, connection) => {
      const asked: Asked = { stream, opener: connection.remotePeer.toString(), isAdmitted: false };
      try {
        await this.#asking.run(asked, () => handler(stream, connection));
      } finally {
        if (asked.isAdmitted && asked.far?.writeStatus !== 'writable')
          stream.abort(new MoltError('mesh/unreachable', 'the other end took no circuit'));
      }
    };
  }

  /**
   * Counts what is asked for as a circuit for as long as its stream is open; false where there is no room. Only circuits
   * count: a relay that carries all it may still renews the places that it holds.
   */
  #admits(asked: Asked): boolean {
    const { stream, opener } = asked;
    const count = this.#circuits.get(opener) ?? 0;
    if (this.#all >= this.#limits.relayCircuitsMax || count >= this.#limits.relayCircuitsPerPeer) return false;
    // One that has ended meanwhile does not say so again, and would count for ever.
    if (stream.status !== 'open') return false;
    this.#all++;
    this.#circuits.set(opener, count + 1);
    asked.isAdmitted = true;
    stream.addEventListener(
      'close',
      () => {
        this.#all--;
        const left = (this.#circuits.get(opener) ?? 1) - 1;
        if (left > 0) this.#circuits.set(opener, left);
        else this.#circuits.delete(opener);
      },
      { once: true },
    );
    return true;
  }

  #asked(): Asked {
    const asked = this.#asking.getStore();
    assert(asked !== undefined, 'a relay opens streams for circuits only, and these are asked for by a stream');
    return asked;
  }

  /** Connections whose new streams are the other half of the circuit that is being asked for. No circuit goes on through another. */
  #joining(connections: Components['connectionManager']): Components['connectionManager'] {
    const joining = (connection: Connection): Connection =>
      withMethod(connection, 'newStream', async (protocols, options) => {
        const asked = this.#asked();
        const far = await connection.newStream(protocols, options);
        this.#carry(asked.stream, far);
        this.#carry(far, asked.stream);
        asked.far = far;
        return far;
      });
    return withMethod(connections, 'getConnections', (peer) =>
      connections
        .getConnections(peer)
        .filter(({ status, limits }) => status === 'open' && limits === undefined)
        .map(joining),
    );
  }

  /**
   * What libp2p carries from one stream to the other is counted where it is written, and while that side is slow the
   * other is not read: by itself libp2p would hold everything that a fast sender has for a slow reader.
   */
  #carry(from: Stream, to: Stream): void {
    const send = to.send.bind(to);
    to.send = (data) => {
      this.#bytes += data.byteLength;
      if (!this.#budget.take(this.#clock.monotonic(), data.byteLength))
        to.abort(new MoltError('mesh/closed', 'the bytes of this hour are used up here'));
      const more = send(data);
      if (!more && from.readStatus === 'readable') from.pause();
      return more;
    };
    to.addEventListener('drain', () => {
      if (from.readStatus === 'paused') from.resume();
    });
  }
}

/** The places that this node has at relays, as libp2p keeps and renews them. */
export interface Reservations {
  /** Asks the relay for a place; resolves when there is one. The peer must be connected and no relayed one itself. */
  addRelay(relay: PeerId, type: 'configured'): Promise<unknown>;
  hasReservation(relay: PeerId): boolean;
  /** Forgets all of them here; the relays forget them when they run out. */
  cancelReservations(): void;
}

interface ReservingTransport extends Transport {
  readonly reservationStore: Reservations;
}

/** The dialling and the taking side. `made` gets the places, once, while libp2p is put together. */
export function circuits(
  made: (reservations: Reservations) => void,
): (components: CircuitRelayTransportComponents) => Transport {
  return (components) => {
    let store: Reservations | undefined;
    const { registrar, ...rest } = partsOf(components);
    const transport = circuitRelayTransport({ maxInboundStopStreams: 64 })({
      ...rest,
      // Left alone, libp2p would make a relay of ours of any peer that claims to be one, and tell its addresses as ours.
      registrar: guarded(registrar, RELAY_V2_STOP_CODEC, (handler) => (stream, connection) => {
        if (store?.hasReservation(connection.remotePeer) === true) return handler(stream, connection);
        stream.abort(new MoltError('mesh/unsupported', 'circuits are taken from chosen relays only'));
        return undefined;
      }),
    });
    assert(hasReservations(transport), 'this release of @libp2p/circuit-relay-v2 keeps its reservations elsewhere');
    store = transport.reservationStore;
    made(store);
    return transport;
  };
}

function hasReservations(transport: Transport): transport is ReservingTransport {
  const { reservationStore: store } = transport as Partial<ReservingTransport>;
  return (
    typeof store?.addRelay === 'function' &&
    typeof store.hasReservation === 'function' &&
    typeof store.cancelReservations === 'function'
  );
}

/** Each component by itself: the object that libp2p hands over looks each one up anew at every use. */
function partsOf(components: CircuitRelayTransportComponents): CircuitRelayTransportComponents {
  const { addressManager, connectionGater, connectionManager, events, logger, peerId } = components;
  const { peerStore, randomWalk, registrar, transportManager, upgrader } = components;
  return {
    addressManager,
    connectionGater,
    connectionManager,
    events,
    logger,
    peerId,
    peerStore,
    randomWalk,
    registrar,
    transportManager,
    upgrader,
  };
}

type Registrar = CircuitRelayTransportComponents['registrar'];

/** The registrar, but the handler of one protocol goes through `wrap`. */
function guarded(registrar: Registrar, protocol: string, wrap: (handler: StreamHandler) => StreamHandler): Registrar {
  return withMethod(registrar, 'handle', (name, handler, options) =>
    registrar.handle(name, name === protocol ? wrap(handler) : handler, options),
  );
}
