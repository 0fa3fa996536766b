/**
 * Goal: a program that buys on its own stays within its limits, and what cannot be known is not bought. Method: the pure
 * limits, then the bidder with them, then the count on disk with jobs side by side and after a crash.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import * as fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';

import {
  AUTONOMY,
  type Autonomy,
  type BidderOrder,
  type Commitment,
  allowance,
  autonomyOf,
  createBidder,
  decideBidder,
  medianCeiling,
  spendingRefusal,
  shareOfCeiling,
} from '../../market/index.ts';
import { type Env, systemEnv } from '../../protocol/env.ts';
import { parseJobSpec } from '../../protocol/job-spec.ts';
import type { Offer } from '../../protocol/messages.ts';
import { baseUnits, parseMolt } from '../../protocol/units.ts';
import { openSpending } from '../../sdk/spending.ts';
import { NOW, SMALL, address, key, verifiedOffer } from '../market/fixtures.ts';

const HOUR = 3_600_000;
const { conservative, moderate } = AUTONOMY;
const spent = (amount: string, agoMs: number, open = false): Commitment => ({
  atMs: NOW - agoMs,
  amount: parseMolt(amount).toString(),
  open,
});

test.each<[readonly Commitment[], string]>([
  [[], '1'],
  [[spent('0.5', 0)], '1'],
  [[spent('1', 0), spent('0.7', 60_000)], '0.3'],
  [[spent('2', HOUR)], '1'],
  [[spent('2', HOUR), spent('7.5', 2 * HOUR)], '0.5'],
  [[spent('10', 24 * HOUR)], '1'],
  [[spent('1.6', -HOUR)], '0.4'],
])('with %j spent, so much may the next lease lock: %s MOLT', (commitments, left) => {
  expect(allowance(conservative, commitments, NOW)).toBe(parseMolt(left));
});

test.each<[string, Partial<Autonomy>, readonly Commitment[], string]>([
  [
    'an hour is used up',
    {},
    [spent('1', 0), spent('1', 1)],
    'the 2 MOLT of this hour are spent or locked; wait, or raise the limit',
  ],
  [
    'a day is used up',
    {},
    [spent('6', 2 * HOUR), spent('4', 3 * HOUR)],
    'the 10 MOLT of this day are spent or locked; wait, or raise the limit',
  ],
  ['another job runs', {}, [spent('0', 0, true)], '1 of 1 jobs run at once; wait for one to end'],
  ['no job may cost anything', { jobMax: baseUnits(0n) }, [], 'no job may cost anything'],
])('when %s nothing more is bought', (_what, changes, commitments, why) => {
  expect(() => allowance({ ...conservative, ...changes }, commitments, NOW)).toThrow(
    expect.objectContaining({
      code: 'market/spending-limit',
      message: `the limits of autonomy forbid it: ${why}`,
    }),
  );
});

test('a lease above what is left is refused with both numbers', () => {
  const next = { amount: parseMolt('0.5'), nowMs: NOW };
  expect(spendingRefusal(conservative, [spent('1.5', 0)], next)).toBeUndefined();
  expect(spendingRefusal(conservative, [spent('1.6', 0)], next)?.message).toBe(
    'the limits of autonomy forbid it: the lease would lock 0.5 MOLT, 0.4 MOLT are left',
  );
});

test('presets are known by name, and limits of one’s own must be whole', () => {
  expect(autonomyOf('moderate')).toBe(moderate);
  expect(autonomyOf({ ...moderate, concurrentMax: 2 }).concurrentMax).toBe(2);
  expect(() => autonomyOf('bold' as 'moderate')).toThrow(
    '"bold" is no preset of autonomy; there are conservative, moderate, aggressive',
  );
  const { dayMax: _dayMax, ...lacking } = moderate;
  expect(() => autonomyOf(lacking as Autonomy)).toThrow(
    'the limit dayMax of autonomy must be base units, a bigint, 0 or more',
  );
  expect(() => autonomyOf({ ...moderate, concurrentMax: Infinity })).toThrow(
    'concurrentMax of autonomy must be a whole',
  );
  expect(() => autonomyOf({ ...moderate, jobMax: baseUnits(-1n) })).toThrow();
});

test('the going price is the lower median of what is asked, and too few offers make none', () => {
  expect(medianCeiling({ medianPercentMax: 100, offersMin: 3 }, [900n, 100n, 300n])).toBe(300n);
  expect(medianCeiling({ medianPercentMax: 125, offersMin: 2 }, [400n, 100n, 300n, 900n])).toBe(375n);
  expect(() => medianCeiling({ medianPercentMax: 100, offersMin: 3 }, [1n, 2n])).toThrow(
    'the limits of autonomy forbid it: the going price is not known: 3 offers that could do the job are wanted, 2 were heard',
  );
  expect(() => medianCeiling({ medianPercentMax: 100, offersMin: 0 }, [])).toThrow();
});

/** `genuine`: how many of the offers, from the first on, are of providers on chain. Default all. */
function begun(
  asks: readonly bigint[],
  order: Partial<BidderOrder>,
  changes: Partial<Offer> = {},
  known = asks.length,
) {
  const module = 'bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy';
  const spec = parseJobSpec({ runtime: 'wasm', image: module, maxDurationSeconds: 100 });
  const { state } = createBidder({ spec, budget: address('budget'), maxPrice: baseUnits(10n ** 9n), ...order });
  const offers = asks.map((ask, index) =>
    verifiedOffer(
      key(`ask ${index}`),
      {},
      {
        free: SMALL,
        prices: { base: baseUnits(ask), perCpu: baseUnits(0n), perGib: baseUnits(0n), perGpu: baseUnits(0n) },
        ...changes,
      },
    ),
  );
  const at = { nowMs: NOW, monotonicMs: 0 };
  const heard = decideBidder(state, { type: 'begin', offers, bookSize: offers.length, peers: 1, addresses: [] }, at);
  const genuine = new Set(offers.slice(0, known).map(({ signer }) => signer));
  return decideBidder(heard.state, { type: 'offers-checked', checked: offers.length, genuine }, at);
}

test('a bid never pays more than the limits allow beside the going price, and asks those who are within', () => {
  const { state, effects } = begun([100n, 300n, 900n], { median: conservative });
  const bid = effects.find((effect) => effect.type === 'sign-bid');
  expect(bid?.content.pricePerSecondMax).toBe(300n);
  expect(state.suitable).toHaveLength(2);
  const dearer = begun([100n, 300n, 900n], {
    median: { medianPercentMax: 10_000, offersMin: 1 },
    maxPrice: baseUnits(20_000n),
  });
  expect(dearer.effects.find((effect) => effect.type === 'sign-bid')?.content.pricePerSecondMax).toBe(200n);
});

test('without a going price no bid goes out', () => {
  const { effects } = begun([100n, 300n], { median: conservative });
  expect(effects).toMatchObject([{ type: 'fail', error: { code: 'market/spending-limit' } }]);
  // Those who could not do the job say nothing about its price.
  const unable = begun([1n, 2n, 3n], { median: conservative }, { runtimes: ['container'] });
  expect(unable.effects).toEqual([]);
  expect(unable.state.phase).toBe('over');
});

test('offers that somebody invented make no going price', () => {
  const { effects } = begun([100n, 300n, 900n, 1n, 1n, 1n, 1n], { median: conservative }, {}, 3);
  expect(effects.find((effect) => effect.type === 'sign-bid')?.content.pricePerSecondMax).toBe(300n);
  expect(begun([100n, 300n, 900n], { median: conservative }, {}, 2).effects).toMatchObject([
    { type: 'fail', error: { code: 'market/spending-limit' } },
  ]);
});

let directory = '';
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'molt-spending-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const env: Env = { ...systemEnv(), clock: { ...systemEnv().clock, now: () => NOW } };

test('jobs side by side cannot overspend together', async () => {
  const spending = await openSpending(env, directory, { ...moderate, hourMax: parseMolt('2.5') });
  const outcomes = await Promise.allSettled(Array.from({ length: 4 }, () => spending.commit(parseMolt('1'))));
  expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'rejected']);
  expect(spending.allowance()).toBe(parseMolt('0.5'));
});

test('what was paid counts once it is known, and what nobody knows counts whole', async () => {
  const spending = await openSpending(env, directory, moderate);
  const [paid, unknown, refused] = await Promise.all([
    spending.commit(parseMolt('5')),
    spending.commit(parseMolt('5')),
    spending.commit(parseMolt('5')),
  ]);
  await paid.end(parseMolt('1'));
  await unknown.end(undefined);
  await refused.end(0n);
  const again = await openSpending(env, directory, { ...moderate, jobMax: moderate.hourMax });
  expect(again.allowance()).toBe(parseMolt('14'));
});

test('a crash forgets nothing: what was locked then counts whole, and no job of that time runs any more', async () => {
  const before = await openSpending(env, directory, conservative);
  await before.commit(parseMolt('0.8'));
  expect(() => before.allowance()).toThrow('1 of 1 jobs run at once');
  const after = await openSpending(env, directory, conservative);
  expect(after.allowance()).toBe(parseMolt('1'));
  await (await after.commit(parseMolt('1'))).end(parseMolt('1'));
  expect(after.allowance()).toBe(parseMolt('0.2'));
});

test.each(['{', '[]', '{"version":1,"commitments":[{"atMs":1,"amount":"-5"}]}', '{"version":2,"commitments":[]}'])(
  'a count that reads %s stops the buying',
  async (text) => {
    await writeFile(join(directory, 'spending.json'), text);
    await expect(openSpending(env, directory, moderate)).rejects.toMatchObject({ code: 'node/journal-corrupt' });
  },
);

test('what cannot be counted is not bought', async () => {
  const spending = await openSpending(env, join(directory, 'gone'), moderate);
  await expect(spending.commit(1n)).rejects.toMatchObject({ code: 'node/journal-corrupt' });
  expect(spending.allowance()).toBe(moderate.jobMax);
});

test('whatever is bought and paid in whatever order, an hour never costs more than its limit', async () => {
  const amounts = fc.array(fc.tuple(fc.bigInt(0n, 3n), fc.nat(3)), { minLength: 1, maxLength: 12 });
  const limits = { ...moderate, jobMax: baseUnits(3n), hourMax: baseUnits(7n), dayMax: baseUnits(9n) };
  await fc.assert(
    fc.asyncProperty(amounts, async (asked) => {
      const spending = await openSpending(env, await mkdtemp(join(directory, 'run-')), limits);
      let total = 0n;
      for (const [amount, part] of asked) {
        const committed = await spending.commit(amount).catch(() => undefined);
        if (committed === undefined) continue;
        const paid = (amount * BigInt(part)) / 3n;
        total += paid;
        await committed.end(paid);
      }
      expect(total).toBeLessThanOrEqual(7n);
    }),
    { numRuns: 20 },
  );
});

test('a job on several providers has one ceiling, what its lost ones cost and the limits of a job and of the day in it', () => {
  // Three at first, each an equal share.
  expect(shareOfCeiling(90n, { bound: [], vacant: 3 })).toBe(30n);
  // Two lock 20 each and one was lost for 5: its successor may lock the rest.
  expect(shareOfCeiling(90n, { bound: [20n, 20n, 5n], vacant: 1 })).toBe(45n);
  expect(shareOfCeiling(90n, { bound: [50n, 40n], vacant: 1 })).toBe(0n);
  // One job may cost 60, also where each lease alone would be within that.
  expect(shareOfCeiling(90n, { bound: [], vacant: 3 }, { jobMax: 60n, allowance: 1_000n })).toBe(20n);
  expect(shareOfCeiling(90n, { bound: [20n, 20n, 20n], vacant: 1 }, { jobMax: 60n, allowance: 1_000n })).toBe(0n);
  // What is left of the day is for all of them together.
  expect(shareOfCeiling(90n, { bound: [], vacant: 3 }, { jobMax: 60n, allowance: 30n })).toBe(10n);
  expect(shareOfCeiling(90n, { bound: [20n], vacant: 2 }, { jobMax: 60n, allowance: 30n })).toBe(15n);
});
