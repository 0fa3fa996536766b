/**
 * Gossip: topics over gossipsub, with a validator that is also the consumer.
 *
 * Messages are Molt's own signed envelopes, so gossipsub runs `StrictNoSign`: its own signatures would be checked once per
 * duplicate, six times per message. Sizes are held at the publisher, because a frame above the receiver's limit makes
 * the receiver drop that peer from gossip for good (watch.ts repairs that too). Every field of the score is written
 * out: libp2p's defaults give everybody ten points within seconds and punish quiet topics.
 */
import { hash } from 'node:crypto';

import {
  type GossipSub,
  type GossipSubComponents,
  type GossipsubOpts,
  type Message,
  StrictNoSign,
  TopicValidatorResult,
  gossipsub,
} from '@libp2p/gossipsub';
import type { PeerId } from '@libp2p/interface';

import type { PubSub, TopicLimits } from '../../market/ports.ts';
import type { Address } from '../../protocol/address.ts';
import type { Env } from '../../protocol/env.ts';
import { MoltError, type Verdict, assert } from '../../protocol/errors.ts';
import { Bucket } from './bucket.ts';
import type { Guard } from './guard.ts';
import { reachOf } from './ip.ts';
import { addressOf, peerIdOf } from './peer.ts';

export interface GossipLimits {
  /** Largest message of a topic, refused at the publisher and rejected from others. */
  readonly messageBytesMax: number;
  /** Largest frame from a peer; a peer that sends more is cut off and reconnects. */
  readonly frameBytesMax: number;
  /** Messages whose verdict is awaited; those beyond it are dropped without blame. */
  readonly pendingVerdictsMax: number;
}

export type Validate = (data: Uint8Array, from: Address) => Verdict | Promise<Verdict>;

/** Below this score nothing of a peer is taken; the watchdog throws it out. Nine bad messages are enough. */
export const GRAYLIST_SCORE = -800;
/** A publisher waits this long for a fresh connection to tell its subscriptions, so that a first message arrives. */
const SETTLE_MS = 1_000;
/** And so long where nobody else is known who would get it: sent now, it would be lost, and a busy machine is slow to tell. */
const SETTLE_ALONE_MS = 10_000;
const SETTLE_POLL_MS = 20;
const TOPIC_CHARACTERS_MAX = 128;
const MESSAGE_ID_BYTES = 20;
/**
 * Messages looked at per second, from each peer, while the event loop lags: a small market goes on, a flood does not, and it
 * takes nothing from what others are allowed.
 */
const UNDER_PRESSURE_PER_SECOND = 20;
const UNDER_PRESSURE_BURST = 100;
/** Who promised a message is given 3 s by the library; what we did not read or shed within this time broke no promise. */
const FORGIVEN_MS = 5_000;
const HEARTBEAT_MS = 700;
/** An id in a control message, against one message. */
const ID_UNITS = 0.1;

/** All private and loopback addresses count as shared by honest peers: a rack, a lab, a container host. */
class LocalAddresses extends Set<string> {
  override has(ip: string): boolean {
    return reachOf(ip) !== 'public';
  }
}

/**
 * Points of one topic. Only a bad message costs (10 × count²); presence and fresh messages give a little. Mesh delivery
 * rates are not scored: markets are quiet, and quiet is not a fault. Weight 0 switches a term off, yet the library checks
 * its other fields.
 */
const TOPIC_SCORE = {
  topicWeight: 1,
  timeInMeshWeight: 0.01,
  timeInMeshQuantum: 1_000,
  timeInMeshCap: 300,
  firstMessageDeliveriesWeight: 0.2,
  firstMessageDeliveriesDecay: 0.9,
  firstMessageDeliveriesCap: 50,
  meshMessageDeliveriesWeight: 0,
  meshMessageDeliveriesDecay: 0.5,
  meshMessageDeliveriesCap: 1,
  meshMessageDeliveriesThreshold: 0,
  meshMessageDeliveriesWindow: 10,
  meshMessageDeliveriesActivation: 1_000,
  meshFailurePenaltyWeight: 0,
  meshFailurePenaltyDecay: 0.5,
  invalidMessageDeliveriesWeight: -10,
  invalidMessageDeliveriesDecay: 0.99,
} as const;

/** A decoded frame of a peer, as far as it is counted. */
interface Rpc {
  readonly subscriptions?: readonly unknown[];
  readonly messages?: readonly unknown[];
  readonly control?: {
    readonly ihave?: readonly { readonly messageIDs?: readonly unknown[] }[];
    readonly iwant?: readonly { readonly messageIDs?: readonly unknown[] }[];
    readonly idontwant?: readonly { readonly messageIDs?: readonly unknown[] }[];
    readonly graft?: readonly unknown[];
    readonly prune?: readonly unknown[];
  };
}

/** What we read of the gossipsub object beyond its interface; `gossipInternals` fails loudly when a release moves it. */
interface GossipInternals extends GossipSub {
  reportMessageValidationResult(id: string, from: string, acceptance: TopicValidatorResult): void;
  handleReceivedRpc(from: PeerId, rpc: Rpc): Promise<void>;
  handlePeerReadStreamError(error: Error, from: PeerId): void;
  applyIwantPenalties(): void;
  readonly gossipTracer: { getBrokenPromises(): unknown };
  readonly streamsInbound: ReadonlyMap<string, { readonly rawStream: { readonly status: string } }>;
  readonly streamsOutbound: ReadonlyMap<string, unknown>;
  readonly score: {
    score(peer: string): number;
    addPenalty(peer: string, penalty: number, label: string): void;
    readonly params: { readonly topics: Record<string, typeof TOPIC_SCORE> };
  };
}

export class Gossip implements PubSub {
  readonly #env: Env;
  readonly #limits: GossipLimits;
  readonly #prefix: string;
  readonly #guard: Pick<Guard, 'gossiped' | 'strikeGossip'>;
  readonly #pressure: { readonly isHigh: boolean };
  /** What is still looked at of a peer while the event loop lags. */
  readonly #underPressure = new Map<Address, Bucket>();
  /** Largest message of each topic that has a limit of its own. */
  readonly #bytesMax = new Map<string, number>();
  readonly #subscribed = new Set<string>();
  /** Topics ever subscribed to: after leaving one, messages still on their way are ignored without blame. */
  readonly #validated = new Set<string>();
  readonly #connectedAt = new Map<string, number>();
  readonly #heard = new Set<string>();
  readonly #waiting = new Set<() => void>();
  #router: GossipInternals | undefined;
  #pending = 0;
  /** Accepted messages that this turn of the event loop has brought, by id, with who brought each first. */
  readonly #toForward = new Map<string, string>();
  /** Monotonic time until which messages that did not come may be ours to answer for. */
  #forgivenUntil = -Infinity;
  #beatMs = Infinity;

  /** `prefix` stands before every topic on the wire, so that networks do not hear each other. */
  constructor(
    env: Env,
    limits: GossipLimits,
    on: {
      readonly prefix: string;
      readonly guard: Pick<Guard, 'gossiped' | 'strikeGossip'>;
      readonly pressure: { readonly isHigh: boolean };
    },
  ) {
    this.#env = env;
    this.#limits = limits;
    this.#prefix = on.prefix;
    this.#guard = on.guard;
    this.#pressure = on.pressure;
  }

  /** The libp2p service. Called once, by createLibp2p. */
  readonly service = (components: GossipSubComponents): GossipSub => {
    const router = gossipInternals(gossipsub(this.#options())(components));
    const handle = router.handleReceivedRpc.bind(router);
    // The one place that every frame of a peer passes, before anything of it is looked at.
    router.handleReceivedRpc = async (from, rpc) => {
      const peer = addressOf(from);
      const fate = peer === undefined ? 'barred' : this.#guard.gossiped(peer, unitsOf(rpc));
      if (fate === 'read') await handle(from, rpc);
      if (fate !== 'shed') return;
      this.#forgivenUntil = this.#env.clock.monotonic() + FORGIVEN_MS;
      if (isKept(rpc)) await handle(from, keptOf(rpc));
    };
    const punish = router.applyIwantPenalties.bind(router);
    router.applyIwantPenalties = () => (this.#isForgiving() ? void router.gossipTracer.getBrokenPromises() : punish());
    const onReadError = router.handlePeerReadStreamError.bind(router);
    router.handlePeerReadStreamError = (error, from) => {
      onReadError(error, from);
      const peer = addressOf(from);
      if (peer !== undefined && error.name.startsWith('Invalid')) this.#guard.strikeGossip(peer, error);
    };
    router.addEventListener('gossipsub:message', ({ detail: { msgId, propagationSource } }) => {
      if (this.#toForward.size === 0) setImmediate(this.#forward);
      this.#toForward.set(msgId, propagationSource.toString());
    });
    router.addEventListener('subscription-change', (event) => {
      this.#heard.add(event.detail.peerId.toString());
      for (const wake of this.#waiting) wake();
    });
    this.#router = router;
    return router;
  };

  /**
   * What was accepted is passed on when all that has arrived is read, for some neighbours turn out to have it by then:
   * without that every pair of neighbours sends every message both ways.
   */
  readonly #forward = (): void => {
    const messages = [...this.#toForward];
    this.#toForward.clear();
    for (const [id, from] of messages) {
      try {
        this.#use().reportMessageValidationResult(id, from, TopicValidatorResult.Accept);
      } catch (error) {
        this.#env.logger.log('error', 'gossip was not passed on', { error });
      }
    }
  };

  /** At each heartbeat: true when what peers sent may lie unread, or was shed, because this process is slow. */
  #isForgiving(): boolean {
    const now = this.#env.clock.monotonic();
    const isLate = now - this.#beatMs > 3 * HEARTBEAT_MS || this.#pressure.isHigh;
    this.#beatMs = now;
    if (isLate) this.#forgivenUntil = now + FORGIVEN_MS;
    return now < this.#forgivenUntil;
  }

  #options(): Partial<GossipsubOpts> {
    return {
      globalSignaturePolicy: StrictNoSign,
      msgIdFn: messageId,
      fallbackToFloodsub: false,
      // Our own messages go to every subscriber at once: one hop for bids, and no mesh needed among two or three peers.
      floodPublish: true,
      batchPublish: true,
      allowPublishToZeroTopicPeers: true,
      ignoreDuplicatePublishError: true,
      // Only the forwarding waits for `#forward`: messages are judged as they come.
      asyncValidation: true,
      D: 6,
      Dlo: 4,
      Dhi: 8,
      Dscore: 4,
      Dout: 2,
      heartbeatInterval: HEARTBEAT_MS,
      mcacheLength: 6,
      mcacheGossip: 3,
      seenTTL: 120_000,
      idontwantMinDataSize: 16 * 1024,
      maxTopicBytesPerPeer: 64 * 1024,
      // The ids of one IHAVE and the messages that answer one IWANT come in one frame each, and the sender's own bound
      // is 5,000 ids: smaller limits here would lose the whole frame at rates above 100 messages a second.
      decodeRpcLimits: {
        maxSubscriptions: 64,
        maxMessages: 4_096,
        maxIhaveMessageIDs: 5_000,
        maxIwantMessageIDs: 5_000,
        maxIdontwantMessageIDs: 512,
        maxControlMessages: 64,
        maxPeerInfos: 16,
      },
      maxInboundDataLength: this.#limits.frameBytesMax,
      maxOutboundBufferSize: 4 * 1024 * 1024,
      maxInboundStreams: 2,
      maxOutboundStreams: 2,
      dataTransform: { inboundTransform: this.#checkInbound, outboundTransform: (_topic, data) => data },
      scoreParams: {
        topics: {},
        topicScoreCap: 20,
        appSpecificScore: () => 0,
        appSpecificWeight: 0,
        IPColocationFactorWeight: -5,
        IPColocationFactorThreshold: 32,
        IPColocationFactorWhitelist: new LocalAddresses(),
        behaviourPenaltyWeight: -10,
        behaviourPenaltyThreshold: 6,
        behaviourPenaltyDecay: 0.9,
        decayInterval: 1_000,
        decayToZero: 0.1,
        retainScore: 3_600_000,
      },
      scoreThresholds: {
        gossipThreshold: -100,
        publishThreshold: -400,
        graylistThreshold: GRAYLIST_SCORE,
        acceptPXThreshold: 10,
        opportunisticGraftThreshold: 0,
      },
    };
  }

  /** First look at foreign bytes, before they are hashed, remembered or shown to anyone. Throwing rejects them. */
  readonly #checkInbound = (topic: string, data: Uint8Array): Uint8Array => {
    if (!this.#validated.has(topic)) {
      throw new MoltError('protocol/malformed', 'expected a message of a topic that was subscribed to; it is dropped');
    }
    const limit = this.#bytesMax.get(topic) ?? this.#limits.messageBytesMax;
    if (data.length > limit) throw oversize(data.length, limit);
    return data;
  };

  async publish(topic: string, data: Uint8Array): Promise<void> {
    const limit = this.#bytesMax.get(this.#wire(topic)) ?? this.#limits.messageBytesMax;
    if (data.length > limit) throw oversize(data.length, limit);
    const wire = this.#wire(topic);
    await this.#settled(wire);
    await this.#use().publish(wire, data);
  }

  subscribe(topic: string, validate: Validate, limits: TopicLimits = {}): Promise<Disposable> {
    const router = this.#use();
    const wire = this.#wire(topic);
    assert(!this.#subscribed.has(wire), 'a topic has one subscriber, which is its validator');
    if (limits.messageBytesMax !== undefined) this.#bytesMax.set(wire, limits.messageBytesMax);
    router.score.params.topics[wire] = TOPIC_SCORE;
    router.topicValidators.set(wire, (peer, message) => this.#judge(peer, message, validate));
    this.#subscribed.add(wire);
    this.#validated.add(wire);
    router.subscribe(wire);
    return Promise.resolve({
      [Symbol.dispose]: () => {
        if (!this.#subscribed.delete(wire)) return;
        // The score parameters stay: gossipsub reads them for every peer that ever had points in the topic.
        router.topicValidators.set(wire, () => TopicValidatorResult.Ignore);
        router.unsubscribe(wire);
      },
    });
  }

  async #judge(peer: PeerId, message: Message, validate: Validate): Promise<TopicValidatorResult> {
    const from = addressOf(peer);
    if (from === undefined || this.#pending >= this.#limits.pendingVerdictsMax) return TopicValidatorResult.Ignore;
    if (this.#pressure.isHigh && !this.#isLookedAt(from)) return TopicValidatorResult.Ignore;
    this.#pending++;
    try {
      const verdict = await validate(message.data, from);
      if (verdict.verdict === 'accept') return TopicValidatorResult.Accept;
      this.#env.logger.log('debug', 'gossip refused', {
        topic: message.topic,
        from,
        verdict: verdict.verdict,
        code: verdict.code,
      });
      // A message that others may have brought as well is not what is wrong here: its forwarder alone pays.
      if (verdict.code === 'market/flooded') this.#use().score.addPenalty(peer.toString(), 1, 'flood');
      return verdict.verdict === 'reject' ? TopicValidatorResult.Reject : TopicValidatorResult.Ignore;
    } catch (error) {
      this.#env.logger.log('error', 'gossip validator failed', { topic: message.topic, error });
      return TopicValidatorResult.Ignore;
    } finally {
      this.#pending--;
    }
  }

  #isLookedAt(peer: Address): boolean {
    const bucket = this.#underPressure.get(peer) ?? new Bucket(UNDER_PRESSURE_PER_SECOND, UNDER_PRESSURE_BURST);
    this.#underPressure.set(peer, bucket);
    return bucket.take(this.#env.clock.monotonic());
  }

  /** Told by the mesh about every connection, so that a publisher knows whom to wait for. */
  connected(peer: Address): void {
    this.#connectedAt.set(peerIdOf(peer).toString(), this.#env.clock.monotonic());
  }

  disconnected(peer: Address): void {
    const id = peerIdOf(peer).toString();
    this.#connectedAt.delete(id);
    this.#heard.delete(id);
    this.#underPressure.delete(peer);
    for (const wake of this.#waiting) wake();
  }

  /** True when messages can flow both ways with this peer now. */
  isHealthy(peer: Address): boolean {
    const id = peerIdOf(peer).toString();
    const router = this.#use();
    return router.streamsInbound.get(id)?.rawStream.status === 'open' && router.streamsOutbound.has(id);
  }

  /** True while anything is subscribed to: otherwise a peer owes us no stream. */
  get isListening(): boolean {
    return this.#subscribed.size > 0;
  }

  score(peer: Address): number {
    return this.#use().score.score(peerIdOf(peer).toString());
  }

  /** Waits until every peer has told its subscriptions, or has had its time to do so. */
  async #settled(topic: string): Promise<void> {
    for (;;) {
      const waitMs = this.#unsettledMs(topic);
      if (waitMs <= 0) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = new AbortController();
      this.#waiting.add(resolve);
      this.#env.clock.sleep(Math.min(waitMs, SETTLE_POLL_MS), timer.signal).then(resolve, resolve);
      await promise;
      this.#waiting.delete(resolve);
      timer.abort();
    }
  }

  #unsettledMs(topic: string): number {
    const now = this.#env.clock.monotonic();
    const router = this.#use();
    const silent = [...this.#connectedAt].filter(([id]) => !this.#heard.has(id) || !router.streamsOutbound.has(id));
    if (silent.length === 0) return 0;
    const isAlone = !router.getSubscribers(topic).some((peer) => router.streamsOutbound.has(peer.toString()));
    const patienceMs = isAlone ? SETTLE_ALONE_MS : SETTLE_MS;
    return silent.reduce((waitMs, [, since]) => Math.max(waitMs, since + patienceMs - now), 0);
  }

  #wire(topic: string): string {
    assert(topic.length <= TOPIC_CHARACTERS_MAX, 'a topic has at most 128 characters');
    return `${this.#prefix}${topic}`;
  }

  #use(): GossipInternals {
    assert(this.#router !== undefined, 'gossip is used after createLibp2p has made the service');
    return this.#router;
  }
}

function oversize(length: number, limit: number): MoltError {
  return new MoltError(
    'protocol/oversize',
    `expected a gossip message of at most ${limit} bytes, got ${length}; send it on a stream`,
    { length },
  );
}

function unitsOf({ subscriptions = [], messages = [], control = {} }: Rpc): number {
  const { ihave = [], iwant = [], idontwant = [], graft = [], prune = [] } = control;
  const lists = [...ihave, ...iwant, ...idontwant];
  const ids = lists.reduce((sum, { messageIDs = [] }) => sum + messageIDs.length, 0);
  const entries = subscriptions.length + messages.length + lists.length + graft.length + prune.length;
  return 1 + entries + ids * ID_UNITS;
}

/** What is said once and never again: without it a peer would be deaf, or out of the mesh, for as long as it is connected. */
function isKept({ subscriptions = [], control = {} }: Rpc): boolean {
  return subscriptions.length + (control.graft?.length ?? 0) + (control.prune?.length ?? 0) > 0;
}

/** Messages and their ids are let go: neighbours name them again, and other neighbours have them too. */
function keptOf({ subscriptions = [], control = {} }: Rpc): Rpc {
  const { graft = [], prune = [] } = control;
  return { subscriptions, messages: [], control: { ihave: [], iwant: [], idontwant: [], graft, prune } };
}

/** SHA-256 over topic and data, with the topic's length so that no two pairs give the same bytes. */
function messageId({ topic, data }: Message): Uint8Array {
  const bytes = Buffer.concat([Buffer.from(`${topic.length}:${topic}`), data]);
  return hash('sha256', bytes, 'buffer').subarray(0, MESSAGE_ID_BYTES);
}

function gossipInternals(router: GossipSub): GossipInternals {
  const internals = router as GossipInternals;
  const known =
    internals.streamsInbound instanceof Map &&
    internals.streamsOutbound instanceof Map &&
    typeof internals.handleReceivedRpc === 'function' &&
    typeof internals.handlePeerReadStreamError === 'function' &&
    typeof internals.reportMessageValidationResult === 'function' &&
    typeof internals.applyIwantPenalties === 'function' &&
    typeof internals.gossipTracer?.getBrokenPromises === 'function' &&
    typeof internals.score.score === 'function' &&
    typeof internals.score.addPenalty === 'function' &&
    typeof internals.score.params.topics === 'object';
  assert(known, 'this release of @libp2p/gossipsub keeps its streams or scores elsewhere: adapt node/mesh/gossip.ts');
  return internals;
}
