/**
 * Streams to named peers: dialling, the table of protocol handlers, and their limits.
 *
 * Handlers are registered with libp2p directly and never through its middleware (`libp2p.use()`): that pushes the handler
 * onto a shared array once per stream, so the twentieth stream would be handled twenty times.
 *
 * Every protocol of Molt runs over circuits as well (relay.ts): each bounds what it sends, and the relay bounds the circuit.
 * Gossip and the DHT do not: peers behind NAT hear both from those they can dial, and a relay's bytes are for jobs.
 */
import type { Connection, Libp2p, Stream } from '@libp2p/interface';

import type { Channel, OpenOptions, ProtocolLimits } from '../../market/ports.ts';
import type { Address } from '../../protocol/address.ts';
import type { Env } from '../../protocol/env.ts';
import { MoltError, assert } from '../../protocol/errors.ts';
import { StreamChannel } from './channel.ts';
import { Deadline } from '../../protocol/deadline.ts';
import { addressOf, parseAddresses, peerIdOf } from './peer.ts';

export interface MeshOpenOptions extends OpenOptions {
  /** See `ChannelOptions.idleMs`. */
  readonly idleMs?: number;
  /** See `ChannelOptions.allocate`. */
  readonly allocate?: (length: number) => Uint8Array;
}

export type StreamHandler = (channel: Channel) => Promise<void>;

const OPEN_MS = 10_000;
/** The frame limit of an opener that states none. */
const FRAME_BYTES_DEFAULT = 64 * 1024;
/** Our own bound of streams to one peer and protocol; the peer has a smaller one of its own. */
const OUTBOUND_STREAMS_MAX = 1_024;

export class Streams {
  readonly #env: Env;
  readonly #libp2p: Libp2p;
  readonly #prefix: string;
  readonly #pressure: { readonly isHigh: boolean };
  readonly #open = new Set<StreamChannel>();

  /** `prefix` stands before every protocol name on the wire, so that networks do not answer each other. */
  constructor(
    env: Env,
    on: { readonly libp2p: Libp2p; readonly prefix: string; readonly pressure: { readonly isHigh: boolean } },
  ) {
    this.#env = env;
    this.#libp2p = on.libp2p;
    this.#prefix = on.prefix;
    this.#pressure = on.pressure;
  }

  /**
   * A new stream, over the connection there is or a new one. Throws `mesh/unreachable` when no connection can be made,
   * `mesh/unsupported` when the peer does not speak the protocol, `mesh/timeout` after 10 s, `mesh/closed` when the
   * connection breaks meanwhile, and the signal's reason when it aborts first.
   */
  async open(to: Address, protocol: string, options: MeshOpenOptions = {}): Promise<Channel> {
    options.signal?.throwIfAborted();
    using deadline = new Deadline(this.#env.clock, OPEN_MS, options.signal);
    try {
      const connection = await this.#connection(to, deadline.signal, options.addresses);
      const stream = await connection.newStream(this.#wire(protocol), {
        signal: deadline.signal,
        maxOutboundStreams: OUTBOUND_STREAMS_MAX,
        runOnLimitedConnection: true,
      });
      return this.#track(stream, to, { maxFrameBytes: FRAME_BYTES_DEFAULT, ...options });
    } catch (cause) {
      options.signal?.throwIfAborted();
      if (cause instanceof MoltError) throw cause;
      if (deadline.expired)
        throw new MoltError(
          'mesh/timeout',
          `expected ${to} to open ${protocol} within ${OPEN_MS} ms; try another peer`,
          { peer: to },
          { cause },
        );
      throw openFailure(to, protocol, cause);
    }
  }

  async #connection(to: Address, signal: AbortSignal, addresses: readonly string[] = []): Promise<Connection> {
    const peer = peerIdOf(to);
    const known = (): Connection | undefined => {
      const open = this.#libp2p.getConnections(peer).filter((one) => one.status === 'open');
      return open.find((one) => one.limits === undefined) ?? open[0];
    };
    const now = known();
    if (now !== undefined) return now;
    const target = addresses.length > 0 ? parseAddresses(addresses, peer) : peer;
    try {
      return await this.#libp2p.dial(target, { signal });
    } catch (cause) {
      // The peer may have come to us meanwhile.
      const since = known();
      if (since !== undefined && !signal.aborted) return since;
      throw unreachable(to, signal.aborted ? signal.reason : cause);
    }
  }

  /** Serves a protocol until disposed. A handler that returns closes its channel, one that throws aborts it. */
  async handle(protocol: string, limits: ProtocolLimits, handler: StreamHandler): Promise<AsyncDisposable> {
    const wire = this.#wire(protocol);
    const perPeer = new Map<Address, number>();
    const served = new Set<StreamChannel>();
    const accept = (stream: Stream, connection: Connection): void => {
      const remote = addressOf(connection.remotePeer);
      const count = remote === undefined ? 0 : (perPeer.get(remote) ?? 0);
      const places = limits.canWait === true && this.#pressure.isHigh ? limits.maxStreams / 8 : limits.maxStreams;
      if (remote === undefined || count >= limits.maxStreamsPerPeer || served.size >= places) {
        stream.abort(new MoltError('mesh/too-many-streams', `no more streams of ${protocol} now; close some first`));
        return;
      }
      const channel = this.#track(stream, remote, limits);
      served.add(channel);
      perPeer.set(remote, count + 1);
      const forget = (): void => {
        served.delete(channel);
        const left = (perPeer.get(remote) ?? 1) - 1;
        if (left > 0) perPeer.set(remote, left);
        else perPeer.delete(remote);
      };
      if (channel.ended.aborted) forget();
      else channel.ended.addEventListener('abort', forget, { once: true });
      void this.#serve(channel, protocol, handler);
    };
    await this.#libp2p.handle(wire, accept, {
      maxInboundStreams: limits.maxStreamsPerPeer + 1,
      maxOutboundStreams: OUTBOUND_STREAMS_MAX,
      runOnLimitedConnection: true,
    });
    return {
      [Symbol.asyncDispose]: async () => {
        await this.#libp2p.unhandle(wire);
        for (const channel of served)
          channel.abort(new MoltError('node/stopped', `${protocol} is no longer served here`));
      },
    };
  }

  async #serve(channel: StreamChannel, protocol: string, handler: StreamHandler): Promise<void> {
    try {
      await handler(channel);
      await channel.close();
    } catch (error) {
      const level = error instanceof MoltError && error.blame !== 'self' ? 'debug' : 'warn';
      this.#env.logger.log(level, 'stream handler failed', { protocol, remote: channel.remote, error });
      channel.abort(error instanceof Error ? error : new MoltError('mesh/closed', 'the handler failed'));
    }
  }

  /** Aborts everything: the node stops. */
  abortAll(): void {
    for (const channel of this.#open)
      channel.abort(new MoltError('node/stopped', 'this node is closing; its streams are over'));
  }

  #track(
    stream: Stream,
    remote: Address,
    limits: Pick<MeshOpenOptions, 'idleMs' | 'allocate'> & { readonly maxFrameBytes: number },
  ): StreamChannel {
    const { maxFrameBytes, idleMs, allocate } = limits;
    const channel = new StreamChannel(this.#env, stream, {
      remote,
      maxFrameBytes,
      ...(idleMs === undefined ? {} : { idleMs }),
      ...(allocate && { allocate }),
    });
    if (channel.ended.aborted) return channel;
    this.#open.add(channel);
    channel.ended.addEventListener('abort', () => this.#open.delete(channel), { once: true });
    return channel;
  }

  #wire(protocol: string): string {
    assert(protocol.startsWith('/'), 'a protocol name starts with a slash');
    return `${this.#prefix}${protocol}`;
  }
}

function unreachable(to: Address, cause: unknown): MoltError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new MoltError(
    'mesh/unreachable',
    `no connection to ${to}: ${why}; check its addresses and that it runs`,
    { peer: to },
    { cause },
  );
}

function openFailure(to: Address, protocol: string, cause: unknown): MoltError {
  const name = cause instanceof Error ? cause.name : '';
  if (name === 'UnsupportedProtocolError') {
    return new MoltError(
      'mesh/unsupported',
      `${to} does not speak ${protocol}; it may run another version or network`,
      { peer: to },
      { cause },
    );
  }
  return new MoltError(
    'mesh/closed',
    `the connection to ${to} broke while ${protocol} was being opened; try again`,
    { peer: to },
    { cause },
  );
}
