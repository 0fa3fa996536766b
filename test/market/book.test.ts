/** Goal: the book holds the newest live offer of each signer and never more than it may. */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import { createBook } from '../../market/index.ts';
import { key, NOW, SMALL, verifiedOffer } from './fixtures.ts';

const signers = Array.from({ length: 6 }, (_, index) => key(`book ${index}`));
const [first, second, third] = signers as [(typeof signers)[0], (typeof signers)[0], (typeof signers)[0]];

test('a newer offer of a signer replaces the older one, an older or equal one changes nothing', () => {
  const book = createBook({ offersMax: 10 });
  expect(book.put(verifiedOffer(first, { sequence: 2 }, { region: 'old' }))).toBe('added');
  expect(book.put(verifiedOffer(first, { sequence: 3 }, { region: 'new' }))).toBe('updated');
  expect(book.put(verifiedOffer(first, { sequence: 3 }, { region: 'same' }))).toBe('stale');
  expect(book.put(verifiedOffer(first, { sequence: 1 }, { region: 'older' }))).toBe('stale');
  expect(book.get(first.address)?.content.region).toBe('new');
  expect(book.size).toBe(1);
});

test('a revoked offer leaves the book', () => {
  const book = createBook({ offersMax: 10 });
  book.put(verifiedOffer(first, { sequence: 1 }));
  expect(book.put(verifiedOffer(first, { sequence: 2 }, { revoked: true }))).toBe('revoked');
  expect(book.get(first.address)).toBeUndefined();
});

test('a full book takes updates and, once an offer has expired, newcomers', () => {
  const book = createBook({ offersMax: 2 });
  book.put(verifiedOffer(first, { sequence: 1, expiresMs: NOW + 1_000 }));
  book.put(verifiedOffer(second, { sequence: 1, expiresMs: NOW + 5_000 }));
  expect(book.put(verifiedOffer(third))).toBe('full');
  expect(book.put(verifiedOffer(second, { sequence: 2 }))).toBe('updated');
  expect(book.expire(NOW + 999)).toBe(0);
  expect(book.expire(NOW + 1_000)).toBe(1);
  expect(book.put(verifiedOffer(third))).toBe('added');
});

test('offers are listed by class, and pulled as the very bytes that were signed', () => {
  const book = createBook({ offersMax: 10 });
  const plain = verifiedOffer(first);
  const withGpu = verifiedOffer(
    second,
    {},
    { free: { ...SMALL, gpus: [{ count: 1, vramBytes: 1, model: '', computeCapability: 0 }] } },
  );
  book.put(plain);
  book.put(withGpu);
  expect(book.list().map((offer) => offer.signer)).toEqual([first.address, second.address]);
  expect(book.list('gpu').map((offer) => offer.signer)).toEqual([second.address]);
  expect(book.bytes('cpu')).toEqual([plain.bytes]);
});

test('whatever is put, the book stays bounded and holds the highest sequence it took of each signer', () => {
  const offers = signers.flatMap((signer) =>
    [1, 2, 3].map((sequence) => verifiedOffer(signer, { sequence }, { revoked: sequence === 2 })),
  );
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...offers), { maxLength: 40 }), (puts) => {
      const book = createBook({ offersMax: 3 });
      const held = new Map<string, number>();
      for (const offer of puts) {
        const change = book.put(offer);
        if (change === 'added' || change === 'updated') held.set(offer.signer, offer.sequence);
        if (change === 'revoked') held.delete(offer.signer);
        expect(book.size).toBeLessThanOrEqual(3);
      }
      expect(new Map(book.list().map((offer) => [offer.signer as string, offer.sequence]))).toEqual(held);
    }),
  );
});

test('a full book makes room for what others bring, at the cost of whoever brought most', () => {
  const book = createBook({ offersMax: 10 });
  const [liar, honest] = [key('liar').address, key('honest').address];
  for (let index = 0; index < 30; index++) book.put(verifiedOffer(key(`invented ${index}`)), liar);
  expect(book.size).toBe(10);
  const real = [1, 2, 3, 4].map((index) => verifiedOffer(key(`real ${index}`)));
  expect(real.map((offer) => book.put(offer, honest))).toEqual(['added', 'added', 'added', 'added']);
  expect(book.put(verifiedOffer(key('one more lie')), liar)).toBe('full');
  expect(real.every((offer) => book.get(offer.signer) === offer)).toBe(true);
  expect(book.size).toBe(10);
});

test('a pull can be of one region, and a convict is dropped', () => {
  const book = createBook({ offersMax: 10 });
  const [here, there] = [verifiedOffer(first, {}, { region: 'eu' }), verifiedOffer(second, {}, { region: 'us' })];
  book.put(here);
  book.put(there);
  expect(book.bytes('cpu', 'eu')).toEqual([here.bytes]);
  expect(book.bytes('cpu')).toHaveLength(2);
  expect(book.drop(here.signer)).toBe(true);
  expect(book.drop(here.signer)).toBe(false);
  expect(book.bytes('cpu', 'eu')).toEqual([]);
});
