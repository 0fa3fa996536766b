/**
 * The network: gossip that loses, doubles, delays and reorders; streams that keep order until they break; partitions.
 *
 * Gossip goes from the origin to every member of a topic; which neighbour a member got it from is drawn, so that the
 * admission of forwarders is at work. A stream whose ends are cut apart, or whose other end crashed, breaks: both ends
 * hear of it, later and not at once.
 */
import type { Address } from '../../protocol/address.ts';
import type { Chance } from './chance.ts';
import type { Actor, World } from './world.ts';

export interface NetworkFaults {
  /** Share of gossip deliveries that are lost, and that come twice. */
  lossShare: number;
  duplicateShare: number;
  /** Share of deliveries that take up to twenty times as long: what is sent later comes earlier. */
  slowShare: number;
  readonly delayMs: { readonly from: number; readonly to: number };
}

export interface Member extends Actor {
  readonly address: Address;
  readonly links: Set<Link>;
  hearGossip(topic: string, bytes: Uint8Array, from: Address): void;
  /** Somebody opens a stream to this node; its end of it, or undefined to refuse. */
  accept(protocol: string, link: Link): LinkEnd | undefined;
}

/** One side's ears. */
export interface LinkEnd {
  onFrame(frame: unknown): void;
  /** The other side closed, or the stream broke. Called once, and not after one's own close. */
  onEnd(): void;
}

const NEIGHBOURS = 8;
const BREAK_MS = { from: 200, to: 8_000 };

export class Network {
  readonly faults: NetworkFaults;
  readonly #world: World;
  readonly #chance: Chance;
  readonly #topics = new Map<string, Member[]>();
  readonly #members = new Map<Address, Member>();
  readonly #neighbours = new Map<Member, readonly Address[]>();
  #sideOf: ((member: Member) => number) | undefined;

  constructor(world: World, faults: NetworkFaults) {
    this.#world = world;
    this.#chance = world.chance.split('network');
    this.faults = faults;
  }

  join(member: Member, topics: readonly string[]): void {
    this.#members.set(member.address, member);
    for (const topic of topics) {
      const members = this.#topics.get(topic) ?? [];
      this.#topics.set(topic, members);
      if (!members.includes(member)) members.push(member);
    }
  }

  member(address: Address): Member | undefined {
    return this.#members.get(address);
  }

  /** Sides cannot hear each other until `heal`. */
  cut(sideOf: (member: Member) => number): void {
    this.#sideOf = sideOf;
    this.#world.trace('network cut');
  }

  heal(): void {
    this.#sideOf = undefined;
    this.#world.trace('network healed');
  }

  isCut(a: Member, b: Member): boolean {
    return this.#sideOf !== undefined && this.#sideOf(a) !== this.#sideOf(b);
  }

  /** `only` gives each member other bytes, or none: what an equivocating origin does. */
  publish(origin: Member, topic: string, bytes: Uint8Array, only?: (member: Member) => Uint8Array | undefined): void {
    for (const member of this.#topics.get(topic) ?? []) {
      if (member === origin) continue;
      const sent = only === undefined ? bytes : only(member);
      if (sent === undefined) continue;
      if (this.#chance.happens(this.faults.lossShare)) continue;
      this.#deliver(origin, member, topic, sent);
      if (this.#chance.happens(this.faults.duplicateShare)) this.#deliver(origin, member, topic, sent);
    }
  }

  connect(from: Member, to: Address, protocol: string, mine: LinkEnd): Link {
    return new Link(this, this.#world, { from, to: this.#members.get(to), protocol, mine });
  }

  delayMs(): number {
    const { from, to } = this.faults.delayMs;
    const plain = this.#chance.between(from, to);
    return this.#chance.happens(this.faults.slowShare) ? plain * this.#chance.between(2, 20) : plain;
  }

  breakMs(): number {
    return this.#chance.between(BREAK_MS.from, BREAK_MS.to);
  }

  #deliver(origin: Member, member: Member, topic: string, bytes: Uint8Array): void {
    this.#world.after(this.delayMs(), `hears ${topic}`, member, () => {
      if (this.isCut(origin, member)) return;
      this.#world.count('gossip');
      member.hearGossip(topic, bytes, this.#forwarder(member));
    });
  }

  #forwarder(member: Member): Address {
    let neighbours = this.#neighbours.get(member);
    if (neighbours === undefined) {
      const others = [...this.#members.keys()];
      neighbours = Array.from({ length: NEIGHBOURS }, () => this.#chance.pick(others));
      this.#neighbours.set(member, neighbours);
    }
    return this.#chance.pick(neighbours);
  }
}

interface Side {
  readonly member: Member;
  readonly end: LinkEnd;
  isOpen: boolean;
  /** Frames to this side arrive in order. */
  lastAtMs: number;
}

/** A stream of frames between two nodes. */
export class Link {
  readonly #network: Network;
  readonly #world: World;
  readonly #near: Side;
  #far: Side | undefined;
  #queued: unknown[] = [];

  constructor(
    network: Network,
    world: World,
    on: {
      readonly from: Member;
      readonly to: Member | undefined;
      readonly protocol: string;
      readonly mine: LinkEnd;
    },
  ) {
    const { from, to, protocol, mine } = on;
    this.#network = network;
    this.#world = world;
    this.#near = { member: from, end: mine, isOpen: true, lastAtMs: 0 };
    from.links.add(this);
    const mustFail = to === undefined || !to.isUp || network.isCut(from, to);
    if (mustFail) this.#end(this.#near, network.breakMs());
    else world.after(network.delayMs(), `opens ${protocol} to ${to.name}`, undefined, () => this.#arrive(to, protocol));
  }

  /** The peer that the transport authenticated. */
  remoteOf(member: Member): Address {
    return (member === this.#near.member ? this.#far : this.#near)?.member.address ?? this.#near.member.address;
  }

  send(from: Member, frame: unknown): void {
    const far = this.#far;
    if (far === undefined) {
      if (this.#near.isOpen) this.#queued.push(frame);
      return;
    }
    const [mine, theirs] = from === this.#near.member ? [this.#near, far] : [far, this.#near];
    if (mine.isOpen) this.#carry(mine, theirs, frame);
  }

  /** Ends this side; the other hears of it after what was sent. */
  close(from: Member): void {
    const mine = from === this.#near.member ? this.#near : this.#far;
    if (mine === undefined || !mine.isOpen) return;
    this.#shut(mine);
    const theirs = mine === this.#near ? this.#far : this.#near;
    if (theirs === undefined) return;
    const atMs = Math.max(theirs.lastAtMs, this.#world.nowMs + this.#network.delayMs());
    theirs.lastAtMs = atMs;
    this.#end(theirs, atMs - this.#world.nowMs);
  }

  /** A node is gone: its side is silent, the other hears of it some time. */
  crash(member: Member): void {
    const mine = member === this.#near.member ? this.#near : this.#far;
    if (mine !== undefined) this.#shut(mine);
    const theirs = mine === this.#near ? this.#far : this.#near;
    if (theirs !== undefined) this.#end(theirs, this.#network.breakMs());
  }

  #arrive(to: Member, protocol: string): void {
    const { member, isOpen } = this.#near;
    if (!to.isUp || this.#network.isCut(member, to)) return this.#end(this.#near, this.#network.breakMs());
    // The side is there before its ears are, so that `remoteOf` and `send` work while it accepts.
    let end: LinkEnd | undefined;
    const far: Side = {
      member: to,
      end: { onFrame: (frame) => end?.onFrame(frame), onEnd: () => end?.onEnd() },
      isOpen: true,
      lastAtMs: this.#world.nowMs,
    };
    this.#far = far;
    to.links.add(this);
    end = to.accept(protocol, this);
    if (end === undefined) {
      this.close(to);
      return undefined;
    }
    for (const frame of this.#queued.splice(0)) this.#carry(this.#near, far, frame);
    if (!isOpen) this.#end(far, this.#network.delayMs());
    return undefined;
  }

  #carry(mine: Side, theirs: Side, frame: unknown): void {
    const atMs = Math.max(theirs.lastAtMs, this.#world.nowMs + this.#network.delayMs());
    theirs.lastAtMs = atMs;
    this.#world.count('frames');
    this.#world.after(atMs - this.#world.nowMs, 'gets a frame', theirs.member, () => {
      if (!theirs.isOpen) return;
      if (this.#network.isCut(mine.member, theirs.member)) {
        this.#end(mine, this.#network.breakMs());
        this.#end(theirs, this.#network.breakMs());
      } else theirs.end.onFrame(frame);
    });
  }

  #end(side: Side, delayMs: number): void {
    this.#world.after(delayMs, 'hears a stream end', side.member, () => {
      if (!side.isOpen) return;
      this.#shut(side);
      side.end.onEnd();
    });
  }

  #shut(side: Side): void {
    side.isOpen = false;
    side.member.links.delete(this);
  }
}
