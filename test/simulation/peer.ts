/** A node of the simulation: a key, a clock that is not quite right, and a life that can end at any moment. */
import { createHash } from 'node:crypto';

import type { Admission, Book, Memo, Moment } from '../../market/index.ts';
import { createAdmission, createBook } from '../../market/index.ts';
import { type Address, encodeAddress } from '../../protocol/address.ts';
import { type KeyPair, keyPairFromSeed } from '../../protocol/ed25519.ts';
import type { Chain } from './chain.ts';
import type { Chance } from './chance.ts';
import type { Link, LinkEnd, Member, Network } from './network.ts';
import { START_MS, type World } from './world.ts';

export interface Surroundings {
  readonly world: World;
  readonly network: Network;
  readonly chain: Chain;
  readonly memo: Memo;
  /** True once no more offers are repeated, so that everything can come to rest. */
  isFrozen: boolean;
}

export const NETWORK: Address = addressOf('network');
const OFFERS_MAX = 10_000;
const EXPIRE_EVERY_MS = 5_000;

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
  readonly chance: Chance;
  readonly links: Set<Link> = new Set<Link>();
  /** How far this clock is ahead, ms. */
  readonly skewMs: number;
  life = 0;
  isUp = false;
  admission: Admission;
  /** Undefined for a node that keeps none. */
  book: Book | undefined;
  readonly #keepsBook: boolean;

  constructor(name: string, at: Surroundings, options: { readonly skewMs: number; readonly keepsBook: boolean }) {
    this.name = name;
    this.at = at;
    this.key = keyOf(name);
    this.chance = at.world.chance.split(name);
    this.skewMs = options.skewMs;
    this.#keepsBook = options.keepsBook;
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
    this.admission = this.#newAdmission();
    this.book = this.#keepsBook ? createBook({ offersMax: OFFERS_MAX }) : undefined;
    if (this.#keepsBook) this.#expireBook();
  }

  /** The process is gone, and nothing is said to anybody. */
  crash(): void {
    this.at.world.trace(`${this.name} crashes`);
    this.isUp = false;
    // Each takes itself out of the set, which a walk over it bears.
    for (const link of this.links) link.crash(this);
    this.links.clear();
  }

  hearGossip(topic: string, bytes: Uint8Array, from: Address): void {
    if (topic.startsWith('offers')) this.hearOffer(bytes, from);
    else this.hearBid(bytes, from);
  }

  hearOffer(bytes: Uint8Array, from: Address | undefined): void {
    if (this.book === undefined) return;
    const { message } = this.admission.offer(bytes, from, this.now());
    if (message !== undefined) this.book.put(message);
  }

  abstract hearBid(bytes: Uint8Array, from: Address): void;

  /** Every node with a book answers pulls. */
  accept(protocol: string, link: Link): LinkEnd | undefined {
    if (protocol !== 'offers') return undefined;
    for (const bytes of this.book?.bytes() ?? []) link.send(this, bytes);
    link.close(this);
    return { onFrame: () => undefined, onEnd: () => undefined };
  }

  /** Gossip is a hint; a pull repairs the book after a join or a healed partition. */
  pull(from: Address): void {
    this.at.network.connect(this, from, 'offers', {
      onFrame: (bytes) => this.hearOffer(bytes as Uint8Array, undefined),
      onEnd: () => undefined,
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
