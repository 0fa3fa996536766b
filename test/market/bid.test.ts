/** Goal: a bid says what the job needs and no more, and the number it asks does not grow with the market. */
import { createHash } from 'node:crypto';

import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import { distance, distanceCut, isAsked, makeBid, pricePerSecondWithin } from '../../market/index.ts';
import { parseJobSpec, warmPrefix } from '../../protocol/job-spec.ts';
import { U64_MAX, baseUnits } from '../../protocol/units.ts';
import { address, bidContent } from './fixtures.ts';

const MODULE = 'bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy';
const spec = parseJobSpec({ runtime: 'wasm', image: MODULE, command: ['secret-command'], maxDurationSeconds: 90 });
const budget = address('budget');
const bidId = 'ab'.repeat(32);

test('a bid carries needs and limits of the spec, five quotes by default, and nothing of the job', () => {
  const bid = makeBid({
    spec,
    budget,
    pricePerSecondMax: baseUnits(7n),
    bookSize: 0,
    addresses: ['/a', '/b', '/c', '/d'],
  });
  expect(bid).toEqual({
    need: { cpuMillis: 1000, memoryBytes: 512 * 2 ** 20, diskBytes: 256 * 2 ** 20, gpus: [] },
    runtime: 'wasm',
    features: [],
    durationSecondsMax: 90,
    pricePerSecondMax: 7n,
    stakeMin: 0n,
    reserveMin: 0n,
    region: '',
    distanceMax: U64_MAX,
    finishByMs: 0,
    startByMs: 0,
    near: [],
    windowMs: 0,
    hardwareTierMin: 'A0',
    quotesWanted: 5,
    warm: warmPrefix(MODULE),
    addresses: ['/a', '/b', '/c'],
    budget,
  });
});

test('more quotes than the protocol allows are not asked for', () => {
  const bid = makeBid({
    spec,
    budget,
    pricePerSecondMax: baseUnits(7n),
    bookSize: 0,
    addresses: [],
    quotesWanted: 1_000,
  });
  expect(bid.quotesWanted).toBe(20);
});

test('a small or unknown market is asked whole', () => {
  expect([distanceCut(5, 0), distanceCut(5, 1), distanceCut(5, 15)]).toEqual([U64_MAX, U64_MAX, U64_MAX]);
  expect(distanceCut(5, 16)).toBeLessThan(U64_MAX);
});

test('about fifteen providers answer a bid for five quotes, of a hundred as of five thousand', () => {
  for (const size of [100, 1_000, 5_000]) {
    const bid = { id: bidId, content: bidContent({ distanceMax: distanceCut(5, size) }) };
    const asked = Array.from({ length: size }, (_, index) => address(`${index}`)).filter((provider) =>
      isAsked(bid, provider),
    );
    expect(asked.length).toBeGreaterThanOrEqual(5);
    expect(asked.length).toBeLessThanOrEqual(30);
  }
});

test('distance is eight bytes of a hash over domain, bid and provider', () => {
  expect(distance(bidId, address('a'))).toBe(distance(bidId, address('a')));
  expect(distance(bidId, address('a'))).not.toBe(distance(bidId, address('b')));
  expect(distance(bidId, address('a'))).not.toBe(distance('ac'.repeat(32), address('a')));
  expect(distance(bidId, address('a'))).toBeLessThanOrEqual(U64_MAX);
});

test('a total becomes a price per second that never exceeds the total', () => {
  fc.assert(
    fc.property(fc.bigInt(0n, U64_MAX), fc.integer({ min: 1, max: 1_209_600 }), (total, seconds) => {
      fc.pre(total === 0n || total >= BigInt(seconds));
      const perSecond = pricePerSecondWithin(baseUnits(total), seconds);
      expect(perSecond * BigInt(seconds)).toBeLessThanOrEqual(total);
      expect((perSecond + 1n) * BigInt(seconds)).toBeGreaterThan(total);
    }),
  );
});

test('a total too small for its duration is refused with what to do', () => {
  expect(() => pricePerSecondWithin(baseUnits(5n), 10)).toThrow(
    expect.objectContaining({
      code: 'protocol/invalid-amount',
      message: '0.000000005 MOLT for 10 s is less than one base unit a second; raise the price or shorten the job',
    }),
  );
});

test('a provider that tries thousands of keys for one bid is asked by the next ones no more often than others', () => {
  const idOf = (index: number): string => createHash('sha256').update(`bid ${index}`).digest('hex');
  const keys = Array.from({ length: 20_000 }, (_, index) => address(`ground ${index}`));
  const nearest = keys.reduce((best, one) => (distance(idOf(0), one) < distance(idOf(0), best) ? one : best));
  expect(distance(idOf(0), nearest)).toBeLessThan(U64_MAX / 2_000n);
  // A bid's place hangs on its signed bytes, so it is unknown while keys can still be chosen.
  const content = bidContent({ distanceMax: distanceCut(5, 300) });
  const bids = 4_000;
  const asked = Array.from({ length: bids }, (_, index) => isAsked({ id: idOf(index + 1), content }, nearest));
  const times = asked.filter(Boolean).length;
  // One in twenty is 200; five standard deviations of a fair draw are 69.
  expect(Math.abs(times - bids / 20)).toBeLessThan(69);
});
