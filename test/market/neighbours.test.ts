/**
 * Goal: a node chooses its neighbours among those who have something to lose, from many networks, whatever else is offered
 * to it. Method: the real book; a network, a DHT and a chain that the test speaks for, with a clock that is turned by hand.
 */
import { expect, test } from 'vitest';

import { type Book, type NeighbourOptions, createBook, KeptNeighbours } from '../../market/index.ts';
import type { Address } from '../../protocol/address.ts';
import type { Env } from '../../protocol/env.ts';
import { MoltError } from '../../protocol/errors.ts';
import { rangeOf } from '../../protocol/multiaddress.ts';
import { TurnedClock } from '../fixtures/turned-clock.ts';
import { address, key, multiaddrOf, verifiedOffer } from './fixtures.ts';

/** Everybody can be reached but those in `deadEnds`; the chain knows `operators`. */
class Town {
  readonly #clock = new TurnedClock();
  readonly book: Book = createBook({ offersMax: 10_000 });
  readonly operators = new Set<Address>();
  readonly deadEnds = new Set<Address>();
  readonly connected = new Map<Address, string>();
  readonly pulled: Address[] = [];
  /** What a walk through the DHT meets. */
  walk: readonly Address[] = [];
  walks = 0;
  questions = 0;
  dials = 0;
  atOnce = 0;
  mostAtOnce = 0;
  readonly #byAddress = new Map<string, Address>();
  readonly #listeners = new Set<(event: { type: 'connected' | 'disconnected'; peer: Address }) => void>();

  readonly env: Env = this.#clock.env;

  options(wanted: number): NeighbourOptions {
    return {
      wanted,
      feed: {
        book: this.book,
        onChange: () => ({ [Symbol.dispose]: () => undefined }),
        pull: (peer) => {
          this.pulled.push(peer);
          return Promise.resolve(0);
        },
      },
      vouch: (offers) => {
        this.questions++;
        expect(offers.length).toBeLessThanOrEqual(100);
        return Promise.resolve({ genuine: new Set(offers.map(({ signer }) => signer)).intersection(this.operators) });
      },
      neighbours: {
        isConnected: (peer) => this.connected.has(peer),
        meet: async ([to = '']) => {
          this.dials++;
          this.mostAtOnce = Math.max(this.mostAtOnce, ++this.atOnce);
          await new Promise((resolve) => setImmediate(resolve));
          this.atOnce--;
          const peer = this.#byAddress.get(to);
          if (peer === undefined || this.deadEnds.has(peer)) throw new MoltError('mesh/unreachable', 'nobody');
          this.connected.set(peer, to);
          return peer;
        },
        wander: () => this.#walkOn(),
        onPeer: (listener) => {
          this.#listeners.add(listener);
          return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
        },
      },
    };
  }

  async *#walkOn(): AsyncGenerator<readonly string[], void, undefined> {
    this.walks++;
    for (const peer of this.walk) {
      await new Promise((resolve) => setImmediate(resolve));
      yield [multiaddrOf(peer)];
    }
  }

  /** Somebody offers from this range; `isReal`: the chain knows him. */
  offer(name: string, range: string, isReal: boolean): Address {
    return this.offerAt(name, `/ip4/${range}.7`, isReal);
  }

  offerAt(name: string, host: string, isReal: boolean): Address {
    const signer = key(name);
    const at = multiaddrOf(signer.address).replace('/ip4/127.0.0.1', host);
    this.#byAddress.set(at, signer.address);
    this.book.put(verifiedOffer(signer, {}, { addresses: [at] }));
    if (isReal) this.operators.add(signer.address);
    return signer.address;
  }

  meetable(peer: Address): Address {
    this.#byAddress.set(multiaddrOf(peer), peer);
    return peer;
  }

  lose(peer: Address): void {
    this.connected.delete(peer);
    for (const listener of this.#listeners) listener({ type: 'disconnected', peer });
  }

  async turn(ms: number): Promise<void> {
    this.#clock.turn(ms);
    for (let round = 0; round < 60; round++) await new Promise((resolve) => setImmediate(resolve));
  }
}

const range = (index: number): string => `198.51.${index}`;

test('of a thousand invented offers and eight real ones, six real neighbours come, and the first two are asked for books', async () => {
  const town = new Town();
  for (let index = 0; index < 1_000; index++) town.offer(`invented ${index}`, range(index % 256), false);
  const real = Array.from({ length: 8 }, (_, index) => town.offer(`real ${index}`, range(index), true));
  using kept = new KeptNeighbours(town.env, town.options(6));
  for (let turn = 0; turn < 10; turn++) await town.turn(2_000);
  expect(kept.size).toBe(6);
  expect([...town.connected.keys()].every((peer) => real.includes(peer))).toBe(true);
  // Nobody is dialled on the word of an offer that the chain does not bear out.
  expect(town.dials).toBe(6);
  expect(town.pulled).toHaveLength(2);
  expect(town.questions).toBeLessThanOrEqual(30);
});

test('neighbours are taken from as many networks as there are, before a second one of any', async () => {
  const town = new Town();
  for (let index = 0; index < 40; index++) town.offer(`rack ${index}`, range(1), true);
  // One customer of one provider: a /48 of IPv6 has more addresses than there are sellers.
  for (let index = 0; index < 40; index++) town.offerAt(`room ${index}`, `/ip6/2001:db8:5:${index}::7`, true);
  for (let index = 2; index < 7; index++) town.offer(`other ${index}`, range(index), true);
  using kept = new KeptNeighbours(town.env, town.options(7));
  await town.turn(2_000);
  expect(kept.size).toBe(7);
  const ranges = [...town.connected.values()].map((to) => rangeOf(to.split('/')[2] ?? ''));
  expect(new Set(ranges).size).toBe(7);
});

test('who cannot be reached takes no place, is dialled again a minute later, and few are dialled at a time', async () => {
  const town = new Town();
  for (let index = 0; index < 100; index++) town.deadEnds.add(town.offer(`dead ${index}`, range(index), true));
  const good = town.offer('good', range(200), true);
  using kept = new KeptNeighbours(town.env, town.options(24));
  await town.turn(2_000);
  await town.turn(2_000);
  expect(kept.size).toBe(1);
  expect(town.connected.has(good)).toBe(true);
  expect(town.mostAtOnce).toBe(8);
  expect(town.dials).toBe(101);
  await town.turn(2_000);
  expect(town.dials).toBe(101);
  await town.turn(60_000);
  expect(town.dials).toBeGreaterThan(101);
});

test('who is connected already counts, once the chain knows him, and one that is lost is replaced', async () => {
  const town = new Town();
  const [first, ...others] = [1, 2, 3].map((index) => town.offer(`real ${index}`, range(index), true));
  const stranger = town.offer('stranger', range(9), false);
  town.connected.set(first as Address, '').set(stranger, '');
  using kept = new KeptNeighbours(town.env, town.options(2));
  await town.turn(2_000);
  expect(kept.size).toBe(2);
  expect(town.dials).toBeLessThanOrEqual(2);
  for (const peer of [first as Address, ...others]) if (town.connected.has(peer)) town.lose(peer);
  await town.turn(2_000);
  expect(kept.size).toBe(2);
});

test('with too few sellers in the book it walks through the DHT, every half minute and no further than needed', async () => {
  const town = new Town();
  town.walk = Array.from({ length: 20 }, (_, index) => town.meetable(address(`met ${index}`)));
  using kept = new KeptNeighbours(town.env, town.options(6));
  await town.turn(2_000);
  expect(town.connected.size).toBe(6);
  expect(kept.size).toBe(0);
  for (let turn = 0; turn < 14; turn++) await town.turn(2_000);
  expect(town.walks).toBe(1);
  await town.turn(2_000);
  expect(town.walks).toBe(2);
  expect(town.connected.size).toBe(6);
  // Those met on the way keep no place from sellers.
  for (let index = 0; index < 8; index++) town.offer(`late ${index}`, range(index), true);
  await town.turn(2_000);
  expect(kept.size).toBe(6);
});

test('while the chain does not answer nobody is chosen, and it goes on after', async () => {
  const town = new Town();
  town.offer('real', range(1), true);
  const options = town.options(6);
  let isDown = true;
  const down = new MoltError('chain/unreachable', 'no answer');
  using kept = new KeptNeighbours(town.env, {
    ...options,
    vouch: (o) => (isDown ? Promise.reject(down) : options.vouch(o)),
  });
  await town.turn(2_000);
  expect(kept.size).toBe(0);
  isDown = false;
  await town.turn(2_000);
  expect(kept.size).toBe(1);
});
