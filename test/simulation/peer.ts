/** A node of the simulation: a key, a clock that is not quite right, and a life that can end at any moment. */
import { createHash } from 'node:crypto';

import type { Admission, Book, Memo, Moment } from '../../market/index.ts';
import { ADMISSION_LIMITS, createAdmission, createBook } from '../../market/index.ts';
import { type Address, encodeAddress } from '../../protocol/address.ts';
import { type KeyPair, keyPairFromSeed } from '../../protocol/ed25519.ts';
import type { Verdict } from '../../protocol/errors.ts';
import { type Message, type Offer, RESOURCE_CLASSES, type ResourceClass } from '../../protocol/messages.ts';
import { offersTopic } from '../../protocol/wire.ts';
import type { Chain } from './chain.ts';
import type { Chance } from './chance.ts';
import type { Link, LinkEnd, Member, Network } from './network.ts';
import { START_MS, Violation, type World } from './world.ts';

export interface Surroundings {
  readonly world: World;
  readonly network: Network;
  readonly chain: Chain;
  readonly memo: Memo;
  readonly peers: Peer[];
  /** Messages whose signature is not their signer's. */
  readonly forged: WeakSet<Uint8Array>;
  /** True once liars have become quiet and nothing is lost any more. */
  isCalm: boolean;
  /** True once no more offers are repeated, so that everything can come to rest. */
  isFrozen: boolean;
}

/** A part of the market, as in protocol/wire.ts; the region '' is the whole class. */
export interface Shard {
  readonly resourceClass: ResourceClass;
  readonly region: string;
}

/** Those of the classes in this region. */
export function shardsIn(region: string): readonly Shard[] {
  return RESOURCE_CLASSES.map((resourceClass) => ({ resourceClass, region }));
}

export interface PeerOptions {
  readonly skewMs: number;
  /** Offers that it follows; none for a node that keeps no book. */
  readonly shards: readonly Shard[];
}

export const NETWORK: Address = addressOf('network');
const OFFERS_MAX = 10_000;
const EXPIRE_EVERY_MS = 5_000;
/** As market/following.ts. */
const CHANCE_PULL_EVERY_MS = 30_000;
/** As market/offers.ts; what comes together takes one step here. */
const PULL_MAX = 2_000;
const PULL_AT_ONCE = 32;

const keys = new Map<string, KeyPair>();

/** Keys depend on names alone, so runs share them. */
export function keyOf(name: string): KeyPair {
  const known = keys.get(name) ?? keyPairFromSeed(new Uint8Array(createHash('sha256').update(name).digest()));
  keys.set(name, known);
  return known;
}

export function addressOf(name: string): Address {
  return encodeAddress(new Uint8Array(createHash('sha256').update(`address ${name}`).digest()));
}

/** Decodes and verifies each message of a run once instead of once per node: what is checked is the same. */
export function createMemo(): Memo {
  const kept = { envelope: new WeakMap<Uint8Array, unknown>(), message: new WeakMap<Uint8Array, unknown>() };
  return <Content>(step: 'envelope' | 'message', bytes: Uint8Array, make: () => Content): Content => {
    const known = kept[step].get(bytes);
    if (known !== undefined) return known as Content;
    const made = make();
    kept[step].set(bytes, made);
    return made;
  };
}

export abstract class Peer implements Member {
  readonly name: string;
  readonly key: KeyPair;
  readonly at: Surroundings;
  readonly isHonest: boolean = true;
  readonly chance: Chance;
  readonly links: Set<Link> = new Set<Link>();
  /** How far this clock is ahead, ms. */
  skewMs: number;
  life = 0;
  /** World time at which this life began. */
  upSinceMs = 0;
  isUp = false;
  admission: Admission;
  /** Undefined for a node that keeps none. */
  book: Book | undefined;
  readonly shards: readonly Shard[];
  readonly #admitted = new Map<Address, { readonly sinceMs: number; readonly count: number }>();

  constructor(name: string, at: Surroundings, options: PeerOptions) {
    this.name = name;
    this.at = at;
    this.key = keyOf(name);
    this.chance = at.world.chance.split(name);
    this.skewMs = options.skewMs;
    this.shards = options.shards;
    this.admission = this.#newAdmission();
  }

  get address(): Address {
    return this.key.address;
  }

  now(): number {
    return START_MS + Math.floor(this.at.world.nowMs) + this.skewMs;
  }

  moment(): Moment {
    return { nowMs: this.now(), monotonicMs: this.at.world.nowMs };
  }

  after(delayMs: number, what: string, run: () => void): void {
    this.at.world.after(delayMs, what, this, run);
  }

  /** A process starts; what it keeps is what the subclass reads from its journal. */
  start(): void {
    this.life++;
    this.isUp = true;
    this.upSinceMs = this.at.world.nowMs;
    this.#admitted.clear();
    this.admission = this.#newAdmission();
    this.book = this.shards.length > 0 ? createBook({ offersMax: OFFERS_MAX }) : undefined;
    if (this.book !== undefined) {
      this.#expireBook();
      this.#pullByChance();
    }
    this.at.network.gossip.enter(this);
  }

  /** The process is gone, and nothing is said to anybody. */
  crash(): void {
    this.at.world.trace(`${this.name} crashes`);
    this.isUp = false;
    // Each takes itself out of the set, which a walk over it bears.
    for (const link of this.links) link.crash(this);
    this.links.clear();
    this.at.network.leave(this);
  }

  /** What it subscribes to. */
  topics(): ReadonlySet<string> {
    return new Set(this.shards.map(({ resourceClass, region }) => offersTopic(NETWORK, resourceClass, region)));
  }

  /** True when offers of this class and region are among those that it follows. */
  follows(resourceClass: ResourceClass, region: string): boolean {
    return this.shards.some((shard) => shard.resourceClass === resourceClass && ['', region].includes(shard.region));
  }

  hearGossip(topic: string, bytes: Uint8Array, from: Address): Verdict['verdict'] {
    return topic.includes('/offers/') ? this.hearOffer(bytes, from) : this.hearBid(bytes, from);
  }

  /** As market/offers.ts; `from` is undefined for what was asked for. */
  hearOffer(bytes: Uint8Array, from: Address | undefined): Verdict['verdict'] {
    if (this.book === undefined) return 'ignore';
    let admitted = this.admission.offer(bytes, from, this.now());
    const doubt = admitted.message === undefined ? admitted.doubt : undefined;
    if (doubt !== undefined) {
      // A look at the chain takes a second at most, which a gossiped offer may take as well.
      const { signer, content } = doubt.message;
      const isGenuine = this.at.chain.providers.get(content.provider)?.operator === signer;
      this.admission.settle(doubt, isGenuine, this.now());
      if (isGenuine) admitted = this.admission.offer(bytes, from, this.now());
    }
    if (admitted.message !== undefined) this.#noteAdmitted(admitted.message, from !== undefined);
    if (admitted.message !== undefined) return this.book.put(admitted.message, from) === 'full' ? 'ignore' : 'accept';
    this.at.world.count(`refused as ${admitted.verdict.code}`);
    if (admitted.convicted === undefined) return admitted.verdict.verdict;
    this.book.drop(admitted.convicted);
    return 'accept';
  }

  /** What no admission may let in: what a liar forged, and more of one origin than its bucket allows. */
  #noteAdmitted({ bytes, signer }: Message<Offer>, isUnasked: boolean): void {
    if (this.at.forged.has(bytes)) throw new Violation(`${this.name} admitted a forged offer`);
    if (signer === this.address || !isUnasked) return;
    const { nowMs } = this.at.world;
    const heard = this.#admitted.get(signer) ?? { sinceMs: nowMs, count: 0 };
    this.#admitted.set(signer, { ...heard, count: heard.count + 1 });
    const { burst, perSecond } = ADMISSION_LIMITS.offersPerOrigin;
    // The bucket is filled by this node's own clock, which may have been set meanwhile.
    const most = burst + (perSecond * (nowMs - heard.sinceMs)) / 1_000 + 1;
    if (heard.count + 1 > most) throw new Violation(`${this.name} admitted ${heard.count + 1} offers of ${signer}`);
  }

  abstract hearBid(bytes: Uint8Array, from: Address): Verdict['verdict'];

  /** Every node with a book answers pulls, each for one shard. */
  accept(protocol: string, link: Link): LinkEnd | undefined {
    if (protocol !== 'offers') return undefined;
    return {
      onFrame: (frame) => {
        const { resourceClass, region } = frame as Shard;
        const all = this.book?.bytes(resourceClass, region) ?? [];
        const from = all.length > PULL_MAX ? this.chance.between(0, all.length - 1) : 0;
        const offers = [...all.slice(from), ...all.slice(0, from)].slice(0, PULL_MAX);
        for (let at = 0; at < offers.length; at += PULL_AT_ONCE) link.send(this, offers.slice(at, at + PULL_AT_ONCE));
        link.close(this);
      },
      onEnd: () => undefined,
    };
  }

  /** Gossip is a hint; a pull of what is followed repairs the book after a join or a healed partition. */
  pull(from: Address): void {
    for (const shard of this.shards) {
      const onFrame = (offers: unknown): void => {
        for (const bytes of offers as readonly Uint8Array[]) this.hearOffer(bytes, undefined);
      };
      const link = this.at.network.connect(this, from, 'offers', { onFrame, onEnd: () => undefined });
      link.send(this, shard);
    }
  }

  /** What everybody else withheld, or nobody was allowed to forward, is found in the end. */
  #pullByChance(): void {
    this.after(CHANCE_PULL_EVERY_MS, 'pulls by chance', () => {
      if (this.at.isFrozen) return;
      const keepers = this.at.peers.filter((peer) => peer !== this && peer.isUp && peer.book !== undefined);
      if (keepers.length > 0) this.pull(this.chance.pick(keepers).address);
      this.#pullByChance();
    });
  }

  #newAdmission(): Admission {
    return createAdmission({ network: NETWORK, memo: this.at.memo });
  }

  #expireBook(): void {
    if (this.at.isFrozen) return;
    this.after(EXPIRE_EVERY_MS, 'expires offers', () => {
      this.book?.expire(this.now());
      this.#expireBook();
    });
  }
}
