/**
 * Goal: a book is made whole by few pulls, whoever lies. Method: the real book; neighbours and pulls that the test speaks
 * for, with a clock that is turned by hand.
 */
import { expect, test } from 'vitest';

import { type Book, type Neighbours, type OfferFeed, createBook, followMarket } from '../../market/index.ts';
import type { Address } from '../../protocol/address.ts';
import type { Env } from '../../protocol/env.ts';
import { MoltError } from '../../protocol/errors.ts';
import { TurnedClock } from '../fixtures/turned-clock.ts';
import { address, key, verifiedOffer } from './fixtures.ts';

type Listener = Parameters<Neighbours['onPeer']>[0];

/** A market of neighbours; `answers` says what a pull from each does. */
class Street {
  readonly #clock = new TurnedClock();
  readonly book: Book = createBook({ offersMax: 1_000 });
  readonly pulled: Address[] = [];
  readonly #peers = new Set<Address>();
  readonly #listeners = new Set<Listener>();
  answers: (peer: Address) => Promise<number> = () => Promise.resolve(0);

  readonly env: Env = this.#clock.env;

  readonly neighbours: Neighbours = {
    peers: () => [...this.#peers],
    isConnected: (peer) => this.#peers.has(peer),
    onPeer: (listener) => {
      this.#listeners.add(listener);
      return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
    },
  };

  readonly feed: OfferFeed = {
    book: this.book,
    pull: (peer) => {
      this.pulled.push(peer);
      return this.answers(peer);
    },
    add: () => undefined,
    onChange: () => ({ [Symbol.dispose]: () => undefined }),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };

  async tell(type: 'connected' | 'disconnected', peer: Address): Promise<void> {
    if (type === 'connected') this.#peers.add(peer);
    else this.#peers.delete(peer);
    for (const listener of this.#listeners) listener({ type, peer });
    await this.settle();
  }

  async turn(ms: number): Promise<void> {
    this.#clock.turn(ms);
    await this.settle();
  }

  settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
}

const people = Array.from({ length: 6 }, (_, index) => address(`neighbour ${index}`));
const [one, two, three] = people as [Address, Address, Address];

test('a newcomer pulls from two peers and then only follows', async () => {
  const street = new Street();
  street.book.put(verifiedOffer(key('seller')));
  using _following = followMarket(street.env, street);
  for (const peer of people) await street.tell('connected', peer);
  await street.turn(1_000);
  expect(street.pulled).toEqual([one, two]);
});

test('while nothing was heard, everybody is asked; a pull that fails does not count', async () => {
  const street = new Street();
  using _following = followMarket(street.env, street);
  await street.tell('connected', one);
  await street.tell('connected', two);
  await street.tell('connected', three);
  expect(street.pulled).toEqual([one, two, three]);

  const other = new Street();
  other.book.put(verifiedOffer(key('seller')));
  other.answers = (peer) => (peer === one ? Promise.reject(new MoltError('mesh/closed', 'gone')) : Promise.resolve(1));
  using _other = followMarket(other.env, other);
  for (const peer of people) await other.tell('connected', peer);
  expect(other.pulled).toEqual([one, two, three]);
});

test('a peer that was lost is pulled from as soon as it is back', async () => {
  const street = new Street();
  street.book.put(verifiedOffer(key('seller')));
  using _following = followMarket(street.env, street);
  for (const peer of people) await street.tell('connected', peer);
  await street.tell('disconnected', three);
  await street.turn(5_000);
  expect(street.pulled).toEqual([one, two]);
  await street.tell('connected', three);
  expect(street.pulled).toEqual([one, two, three]);
});

test('peers that come and go all the time cost few pulls', async () => {
  const street = new Street();
  street.book.put(verifiedOffer(key('seller')));
  using _following = followMarket(street.env, street);
  for (let round = 0; round < 100; round++) {
    await street.tell('connected', three);
    await street.tell('disconnected', three);
  }
  expect(street.pulled.length).toBeLessThanOrEqual(10);
});

test('every half minute somebody else is asked, by chance', async () => {
  const street = new Street();
  street.book.put(verifiedOffer(key('seller')));
  using _following = followMarket(street.env, street);
  for (const peer of people) await street.tell('connected', peer);
  for (let minute = 0; minute < 30; minute++) await street.turn(30_000);
  expect(new Set(street.pulled).size).toBeGreaterThan(3);
  expect(street.pulled.length).toBeLessThanOrEqual(32);
});
