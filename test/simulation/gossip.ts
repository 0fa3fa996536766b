/**
 * Gossip as a mesh: each topic is one, in which a message goes to a few neighbours and from them to theirs.
 *
 * Degrees, heartbeat, caches and the score at which a peer is no longer heard are those of node/mesh/gossip.ts. A node
 * forwards a message once, and only when its admission accepts it: what a liar floods dies at its neighbours. Copies are
 * lost and delayed link by link; who lacks a message hears from a few others, at the heartbeats, that they have it, and
 * asks for it. A copy that comes after another is dropped unseen, so it costs no step here.
 */
import type { Chance } from './chance.ts';
import type { Member, Network } from './network.ts';
import { Violation, type World } from './world.ts';

const DEGREE = 6;
const DEGREE_MIN = 4;
/** Between the 6 that a node seeks and the 12 from which on it prunes back to 6. */
const DEGREE_MAX = 8;
const HEARTBEAT_MS = 700;
/** A node tells of what it heard within so many heartbeats, each time to so many. */
const TOLD_HEARTBEATS = 3;
const TOLD_PEERS = 6;
const SEEN_MS = 120_000;
/** Bad messages of one forwarder after which nothing more is taken from it: −10 × count² points against −800. */
const BAD_MAX = 9;
/** A list so short is shuffled; of a longer one members are drawn until enough suit. */
const SHORT = 32;
const DRAWS_PER_WANTED = 8;

/** Counted with every copy, so the names are not put together each time. */
const COPIES_OF = { bids: 'gossip copies of bids', offers: 'gossip copies of offers' } as const;
const HEARD_OF = { bids: 'gossip bids heard', offers: 'gossip offers heard' } as const;

/** A message on its way through one topic. */
interface Message {
  readonly bytes: Uint8Array;
  /** By member: in which life it heard the message, when, and whether it took it, and so tells of it. */
  readonly seen: Map<Member, { readonly life: number; readonly atMs: number; readonly isTaken: boolean }>;
  /** When the first copy that is under way arrives. */
  readonly due: Map<Member, number>;
  lastHeardMs: number;
}

interface Topic {
  readonly name: string;
  /** What it carries. */
  readonly what: 'bids' | 'offers';
  readonly members: Member[];
  readonly mesh: Map<Member, Set<Member>>;
  readonly messages: WeakMap<Uint8Array, Message>;
  /** What somebody heard a short while ago. */
  readonly recent: Set<Message>;
  isBeating: boolean;
}

export class Gossip {
  readonly #world: World;
  readonly #network: Network;
  readonly #chance: Chance;
  readonly #topics = new Map<string, Topic>();
  /** By hearer and forwarder: how many bad messages came. */
  readonly #bad = new Map<Member, Map<Member, number>>();

  constructor(world: World, network: Network) {
    this.#world = world;
    this.#network = network;
    this.#chance = world.chance.split('gossip');
  }

  subscribe(member: Member, name: string): void {
    const { members } = this.#topic(name);
    if (!members.includes(member)) members.push(member);
  }

  /** How many follow it, up or not. */
  followers(name: string): number {
    return this.#topic(name).members.length;
  }

  /** A node has started: it finds neighbours. */
  enter(member: Member): void {
    for (const topic of this.#topics.values()) if (topic.members.includes(member)) this.#graft(topic, member);
  }

  /** The others have noticed that it is gone, or that the cut keeps them apart. */
  dropApart(areApart: (a: Member, b: Member) => boolean): void {
    for (const { mesh } of this.#topics.values())
      for (const [member, neighbours] of mesh)
        for (const neighbour of neighbours) if (areApart(member, neighbour)) this.#prune(mesh, member, neighbour);
  }

  /**
   * A node says something new. Its own messages go to as many followers as it reaches itself. `only` gives each of these
   * other bytes, or none: what an equivocating origin does.
   */
  publish(origin: Member, name: string, bytes: Uint8Array, only?: (member: Member) => Uint8Array | undefined): void {
    const topic = this.#topic(name);
    this.#world.count('gossip messages');
    const near = topic.mesh.get(origin) ?? new Set<Member>();
    const isFar = (member: Member): boolean => member !== origin && !near.has(member) && this.#reaches(origin, member);
    const reach = Math.max(DEGREE, this.#network.faults.reach) - near.size;
    for (const member of [...near, ...this.#sample(topic.members, reach, isFar)]) {
      const sent = only === undefined ? bytes : only(member);
      if (sent === undefined) continue;
      const message = this.#message(topic, sent);
      message.seen.set(origin, { life: origin.life, atMs: this.#world.nowMs, isTaken: true });
      message.lastHeardMs = this.#world.nowMs;
      this.#send(topic, message, { from: origin, to: member });
    }
    this.#beat(topic);
  }

  #topic(name: string): Topic {
    const found = this.#topics.get(name);
    if (found !== undefined) return found;
    const topic: Topic = {
      name,
      what: name.includes('/bids/') ? 'bids' : 'offers',
      members: [],
      mesh: new Map(),
      messages: new WeakMap(),
      recent: new Set(),
      isBeating: false,
    };
    this.#topics.set(name, topic);
    return topic;
  }

  #message({ messages }: Topic, bytes: Uint8Array): Message {
    const found = messages.get(bytes);
    if (found !== undefined) return found;
    const made: Message = { bytes, seen: new Map(), due: new Map(), lastHeardMs: 0 };
    messages.set(bytes, made);
    return made;
  }

  #hasSeen({ seen }: Message, member: Member): boolean {
    const when = seen.get(member);
    return when?.life === member.life && this.#world.nowMs - when.atMs < SEEN_MS;
  }

  #reaches(from: Member, to: Member): boolean {
    return to.isUp && !this.#network.isCut(from, to);
  }

  /** Neighbours up to the degree, of those who have room. */
  #graft({ members, mesh }: Topic, member: Member): void {
    const mine = mesh.get(member) ?? new Set();
    mesh.set(member, mine);
    const suits = (other: Member): boolean =>
      other !== member &&
      !mine.has(other) &&
      this.#reaches(member, other) &&
      (mesh.get(other)?.size ?? 0) < DEGREE_MAX &&
      !this.#isBarred(other, member) &&
      !this.#isBarred(member, other);
    for (const other of this.#sample(members, DEGREE - mine.size, suits)) {
      mine.add(other);
      const theirs = mesh.get(other) ?? new Set();
      mesh.set(other, theirs.add(member));
    }
  }

  #prune(mesh: Topic['mesh'], a: Member, b: Member): void {
    mesh.get(a)?.delete(b);
    mesh.get(b)?.delete(a);
  }

  #isBarred(hearer: Member, forwarder: Member): boolean {
    return (this.#bad.get(hearer)?.get(forwarder) ?? 0) >= BAD_MAX;
  }

  #send(
    topic: Topic,
    message: Message,
    on: { readonly from: Member; readonly to: Member; readonly legs?: number },
  ): void {
    const { from, to, legs = 1 } = on;
    const { faults } = this.#network;
    this.#world.count(COPIES_OF[topic.what]);
    for (let leg = 0; leg < legs; leg++) if (this.#chance.happens(faults.lossShare)) return;
    if (!this.#reaches(from, to) || this.#isBarred(to, from)) return;
    // A cache that forgot too early: the node's own admission has to tell.
    const isAgain = this.#chance.happens(faults.duplicateShare);
    if (!isAgain && this.#hasSeen(message, to)) return;
    let delayMs = 0;
    for (let leg = 0; leg < legs; leg++) delayMs += this.#network.delayMs(from, to);
    const atMs = this.#world.nowMs + delayMs;
    const first = message.due.get(to) ?? -1;
    if (!isAgain && first >= this.#world.nowMs && first <= atMs) return;
    if (!isAgain) message.due.set(to, atMs);
    this.#world.after(delayMs, `hears ${topic.name}`, to, () => {
      if (!isAgain && (message.due.get(to) !== atMs || this.#hasSeen(message, to))) return;
      if (!this.#network.isCut(from, to) && !this.#isBarred(to, from)) this.#hear(topic, message, from, to);
    });
  }

  #hear(topic: Topic, message: Message, from: Member, to: Member): void {
    const isFirst = !this.#hasSeen(message, to);
    const { nowMs } = this.#world;
    const wasTaken = !isFirst && message.seen.get(to)?.isTaken === true;
    this.#world.count(HEARD_OF[topic.what]);
    const verdict = to.hearGossip(topic.name, message.bytes, from.address);
    message.seen.set(to, { life: to.life, atMs: nowMs, isTaken: wasTaken || verdict === 'accept' });
    if (verdict === 'reject') this.#blame(topic, to, from);
    if (verdict !== 'accept' || !isFirst) return;
    message.lastHeardMs = nowMs;
    if ((topic.mesh.get(to)?.size ?? 0) < DEGREE_MIN) this.#graft(topic, to);
    for (const neighbour of topic.mesh.get(to) ?? [])
      if (neighbour !== from) this.#send(topic, message, { from: to, to: neighbour });
    topic.recent.add(message);
    this.#beat(topic);
  }

  /** One bad message costs the place in the mesh, some more the hearing. */
  #blame(topic: Topic, hearer: Member, forwarder: Member): void {
    if (forwarder.isHonest)
      throw new Violation(`${hearer.name} blames ${forwarder.name}, which only passed on what it had admitted`);
    const counts = this.#bad.get(hearer) ?? new Map<Member, number>();
    this.#bad.set(hearer, counts.set(forwarder, (counts.get(forwarder) ?? 0) + 1));
    this.#world.count('gossip rejected');
    this.#prune(topic.mesh, hearer, forwarder);
  }

  /** While something is new: at each heartbeat those who have it tell some who may not. */
  #beat(topic: Topic): void {
    if (topic.isBeating) return;
    topic.isBeating = true;
    this.#world.after(HEARTBEAT_MS, `heartbeat of ${topic.name}`, undefined, () => {
      topic.isBeating = false;
      const sinceMs = this.#world.nowMs - TOLD_HEARTBEATS * HEARTBEAT_MS;
      for (const message of topic.recent) {
        if (message.lastHeardMs < sinceMs) topic.recent.delete(message);
        else this.#tell(topic, message, sinceMs);
      }
      if (topic.recent.size > 0) this.#beat(topic);
    });
  }

  #tell(topic: Topic, message: Message, sinceMs: number): void {
    const lacking = new Set(topic.members.filter((member) => member.isUp && !this.#hasSeen(message, member)));
    if (lacking.size === 0) return;
    for (const [holder, { atMs, life, isTaken }] of message.seen) {
      if (!isTaken || atMs < sinceMs || !holder.isUp || holder.life !== life) continue;
      const near = topic.mesh.get(holder);
      const told = this.#sample(topic.members, TOLD_PEERS, (other) => other !== holder && near?.has(other) !== true);
      // They hear of it, ask for it, get it: three messages.
      for (const to of told) if (lacking.has(to)) this.#send(topic, message, { from: holder, to, legs: 3 });
    }
  }

  #sample(members: readonly Member[], wanted: number, suits: (member: Member) => boolean): readonly Member[] {
    if (wanted <= 0) return [];
    if (members.length <= SHORT) return this.#chance.shuffle(members).filter(suits).slice(0, wanted);
    const found = new Set<Member>();
    for (let draw = 0; draw < wanted * DRAWS_PER_WANTED && found.size < wanted; draw++) {
      const member = this.#chance.pick(members);
      if (!found.has(member) && suits(member)) found.add(member);
    }
    return [...found];
  }
}
