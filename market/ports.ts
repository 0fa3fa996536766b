/**
 * What the market needs of a network, in its own terms: a topic to shout in, and a stream to one peer. `node/mesh`
 * satisfies both; nothing in market/ knows libp2p.
 */
import type { Address } from '../protocol/address.ts';
import type { Verdict } from '../protocol/errors.ts';

/** Small, unordered, lossy messages to whoever listens. Best effort: nothing that matters depends on arrival. */
export interface PubSub {
  /** Refuses what exceeds the topic's limit with `protocol/oversize`; resolves when handed to the mesh. */
  publish(topic: string, data: Uint8Array): Promise<void>;
  /**
   * Joins a topic. `validate` sees every new message once and is also its consumer: `accept` forwards the message to
   * others, `ignore` drops it, `reject` drops it and lowers the score of the peer that forwarded it.
   */
  subscribe(
    topic: string,
    validate: (data: Uint8Array, from: Address) => Verdict | Promise<Verdict>,
    limits?: TopicLimits,
  ): Promise<Disposable>;
}

export interface TopicLimits {
  /** Larger messages of others are rejected unseen. Default: what the mesh takes at most. */
  readonly messageBytesMax?: number;
}

/** An ordered, reliable, encrypted, authenticated stream of bounded frames to one peer. */
export interface Channel extends AsyncIterable<Uint8Array> {
  readonly remote: Address;
  /** Resolves when the frame is accepted by the transport; waits while the peer is slow. `mesh/closed` when it is gone. */
  send(frame: Uint8Array, signal?: AbortSignal): Promise<void>;
  /** Ends our side and lets what was sent arrive. Idempotent. */
  close(): Promise<void>;
  /** Ends both sides at once. Idempotent. */
  abort(error: Error): void;
}

export interface ProtocolLimits {
  readonly maxFrameBytes: number;
  /** Open streams of this protocol from one peer. */
  readonly maxStreamsPerPeer: number;
  /** Open streams of this protocol from all peers together. */
  readonly maxStreams: number;
  /** Longest silence of a peer that we wait for; absent: for ever. */
  readonly idleMs?: number;
  /** What can wait: while this node is overloaded it serves an eighth of `maxStreams`. Default false. */
  readonly canWait?: boolean;
}

export interface OpenOptions {
  readonly signal?: AbortSignal;
  /** Multiaddrs to try when there is no connection yet. */
  readonly addresses?: readonly string[];
  readonly maxFrameBytes?: number;
}

/** Streams to named peers. */
export interface Network {
  readonly self: Address;
  /** Dialable multiaddrs of this node, each ending in its peer id. */
  readonly addresses: readonly string[];
  isConnected(peer: Address): boolean;
  open(to: Address, protocol: string, options?: OpenOptions): Promise<Channel>;
  handle(
    protocol: string,
    limits: ProtocolLimits,
    handler: (channel: Channel) => Promise<void>,
  ): Promise<AsyncDisposable>;
}
