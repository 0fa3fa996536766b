/**
 * The network: gossip (gossip.ts), streams that keep order until they break, links near and far, and partitions.
 *
 * A stream whose ends are cut apart, or whose other end crashed, breaks: both ends hear of it, later and not at once.
 */
import type { Address } from '../../protocol/address.ts';
import type { Verdict } from '../../protocol/errors.ts';
import type { Chance } from './chance.ts';
import { Gossip } from './gossip.ts';
import type { Actor, World } from './world.ts';

export interface NetworkFaults {
  /** Share of gossip copies that are lost on a link, and that are heard again though they were heard. */
  lossShare: number;
  duplicateShare: number;
  /** Share of messages that take up to twenty times as long: what is sent later comes earlier. */
  slowShare: number;
  /** Share of nodes that are far from everybody: each of their links takes five times as long. */
  readonly farShare: number;
  /** One way between two nodes that are not far. */
  readonly delayMs: { readonly from: number; readonly to: number };
  /** Followers of a topic that a publisher sends its own messages to itself, beside its neighbours there. */
  readonly reach: number;
}

export interface Member extends Actor {
  readonly address: Address;
  /** True for one that forwards only what it admitted itself. */
  readonly isHonest: boolean;
  readonly links: Set<Link>;
  /** What the node thinks of a message that it has not heard yet: only what it accepts goes on. */
  hearGossip(topic: string, bytes: Uint8Array, from: Address): Verdict['verdict'];
  /** Somebody opens a stream to this node; its end of it, or undefined to refuse. */
  accept(protocol: string, link: Link): LinkEnd | undefined;
}

/** One side's ears. */
export interface LinkEnd {
  onFrame(frame: unknown): void;
  /** The other side closed, or the stream broke. Called once, and not after one's own close. */
  onEnd(): void;
}

const FAR_TIMES = 5;
const BREAK_MS = { from: 200, to: 8_000 };

export class Network {
  readonly faults: NetworkFaults;
  readonly #world: World;
  readonly #chance: Chance;
  readonly #members = new Map<Address, Member>();
  /** Half of what a message takes to or from each node, ms. */
  readonly #accessMs = new Map<Member, number>();
  #sideOf: ((member: Member) => number) | undefined;
  readonly gossip: Gossip;

  constructor(world: World, faults: NetworkFaults) {
    this.#world = world;
    this.#chance = world.chance.split('network');
    this.faults = faults;
    this.gossip = new Gossip(world, this);
  }

  join(member: Member, topics: Iterable<string>): void {
    this.#members.set(member.address, member);
    for (const topic of topics) this.gossip.subscribe(member, topic);
  }

  /** A node crashed: its neighbours hear of it some time. */
  leave(member: Member): void {
    const { life } = member;
    this.#world.after(this.breakMs(), `${member.name} is missed`, undefined, () => {
      if (!member.isUp && member.life === life) this.gossip.dropApart((a, b) => a === member || b === member);
    });
  }

  /** Sides cannot hear each other until `heal`. */
  cut(sideOf: (member: Member) => number): void {
    this.#sideOf = sideOf;
    this.#world.trace('network cut');
    this.#world.after(this.breakMs(), 'the cut is noticed', undefined, () =>
      this.gossip.dropApart((a, b) => this.isCut(a, b)),
    );
  }

  heal(): void {
    this.#sideOf = undefined;
    this.#world.trace('network healed');
  }

  isCut(a: Member, b: Member): boolean {
    return this.#sideOf !== undefined && this.#sideOf(a) !== this.#sideOf(b);
  }

  connect(from: Member, to: Address, protocol: string, mine: LinkEnd): Link {
    return new Link(this, this.#world, { from, to: this.#members.get(to), protocol, mine });
  }

  /** One message, one way. */
  delayMs(a: Member, b: Member): number {
    const plain = this.#access(a) + this.#access(b) + this.#chance.between(0, 10);
    return this.#chance.happens(this.faults.slowShare) ? plain * this.#chance.between(2, 20) : plain;
  }

  breakMs(): number {
    return this.#chance.between(BREAK_MS.from, BREAK_MS.to);
  }

  #access(member: Member): number {
    const known = this.#accessMs.get(member);
    if (known !== undefined) return known;
    const { delayMs, farShare } = this.faults;
    const chance = this.#chance.split(`access of ${member.name}`);
    const plain = chance.between(delayMs.from, delayMs.to) / 2;
    const made = Math.round(chance.happens(farShare) ? plain * FAR_TIMES : plain);
    this.#accessMs.set(member, made);
    return made;
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
    else
      world.after(network.delayMs(from, to), `opens ${protocol} to ${to.name}`, undefined, () =>
        this.#arrive(to, protocol),
      );
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
    const atMs = Math.max(theirs.lastAtMs, this.#world.nowMs + this.#network.delayMs(mine.member, theirs.member));
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
    if (!isOpen) this.#end(far, this.#network.delayMs(member, to));
    return undefined;
  }

  #carry(mine: Side, theirs: Side, frame: unknown): void {
    const atMs = Math.max(theirs.lastAtMs, this.#world.nowMs + this.#network.delayMs(mine.member, theirs.member));
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
