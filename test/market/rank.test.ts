/**
 * Goal: history is the same integer for everybody, ranking is total, deterministic and explains itself, and what a
 * provider says of its own speed decides nothing without history. Method: the published values, word by word reasons,
 * then properties.
 */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import {
  type Candidate,
  type OwnRanking,
  type ProviderRecord,
  type Strategy,
  HISTORY_PARAMETERS,
  historyScore,
  rank,
  rankedByBuyer,
  weightedStrategy,
} from '../../market/index.ts';
import { integerSquareRoot, wilsonLowerBound } from '../../market/history.ts';
import { AssertionError } from '../../protocol/errors.ts';
import type { Quote } from '../../protocol/messages.ts';
import { baseUnits } from '../../protocol/units.ts';
import { bidContent, key, quoteContent, verifiedQuote } from './fixtures.ts';

const newcomer: ProviderRecord = {
  stake: baseUnits(0n),
  reserved: baseUnits(0n),
  settledCount: 0n,
  settledAmount: 0n,
  feesBurned: 0n,
  faults: 0n,
  faultAmount: 0n,
};
const veteran: ProviderRecord = { ...newcomer, settledCount: 100n, feesBurned: 100n * HISTORY_PARAMETERS.referenceFee };
const bid = bidContent();
const keys = Array.from({ length: 8 }, (_, index) => key(`ranked ${index}`));

function candidate(index: number, changes: Partial<Quote> = {}, more: Partial<Candidate> = {}): Candidate {
  const verified = verifiedQuote(keys[index]!, quoteContent(changes));
  return { quote: verified, account: newcomer, latencyMs: 10, failedBefore: false, draw: 0.5, ...more };
}

/** Park and Miller's, so that the draws of a test are the same everywhere. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647;
}

function order(candidates: readonly Candidate[], strategy?: Strategy): string[] {
  const ranked = rank({ bid, candidates, ...(strategy === undefined ? {} : { strategy }) });
  return ranked.map((ranking) => String(keys.findIndex(({ address }) => address === ranking.quote.signer)));
}

test.each([
  [0n, 0],
  [11n, 0.8],
  [25n, 0.9],
  [52n, 0.95],
  [268n, 0.99],
])('%d reference jobs without a fault score just above %d', (jobs, least) => {
  const score = Number(historyScore({ ...newcomer, feesBurned: jobs * HISTORY_PARAMETERS.referenceFee }));
  expect(score).toBeGreaterThanOrEqual(least * 1e6);
  expect(score).toBeLessThan(least * 1e6 + 10_000);
});

test('a fault of weight fifty takes a hundred clean jobs from 0.974 to 0.601 and ten to 0.10', () => {
  expect(Number(wilsonLowerBound(100_000_000n, 0n)) / 1e6).toBeCloseTo(0.974, 3);
  expect(Number(wilsonLowerBound(100_000_000n, 50_000_000n)) / 1e6).toBeCloseTo(0.601, 3);
  expect(Number(wilsonLowerBound(10_000_000n, 50_000_000n)) / 1e6).toBeCloseTo(0.1, 2);
});

test('a lease left unproven counts twice its value at the fee rate', () => {
  const spoilt = { ...veteran, faults: 1n, faultAmount: 25_000_000_000n };
  expect(historyScore(spoilt)).toBe(wilsonLowerBound(100_000_000n, 50_000_000n));
});

test('score is always 0 … 1, grows with good evidence and falls with bad', () => {
  const evidence = fc.bigInt(0n, 10n ** 20n);
  fc.assert(
    fc.property(evidence, evidence, fc.bigInt(1n, 10n ** 18n), (good, bad, more) => {
      const score = wilsonLowerBound(good, bad);
      expect(score >= 0n && score <= 1_000_000n).toBe(true);
      // One millionth is what floor division may cost.
      expect(wilsonLowerBound(good + more, bad)).toBeGreaterThanOrEqual(score - 1n);
      expect(wilsonLowerBound(good, bad + more)).toBeLessThanOrEqual(score + 1n);
    }),
  );
});

test('the integer square root is exact', () => {
  fc.assert(
    fc.property(fc.bigInt(0n, 2n ** 160n), (value) => {
      const root = integerSquareRoot(value);
      expect(root * root <= value && (root + 1n) * (root + 1n) > value).toBe(true);
    }),
  );
});

test('among equals the cheapest comes first, and every reason says why in words and numbers', () => {
  const ranked = rank({
    bid,
    candidates: [
      candidate(0, { pricePerSecond: baseUnits(1_999n) }),
      candidate(1, { warm: true }, { account: { ...veteran, faults: 2n, faultAmount: 1n } }),
    ],
  });
  expect(ranked.map(({ quote }) => quote.signer)).toEqual([keys[1]!.address, keys[0]!.address]);
  expect(ranked[0]?.reasons.map(({ what, text }) => `${what}: ${text}`)).toEqual([
    'price: asks 0.000001 MOLT a second, the lowest price',
    'history: 100 leases settled, 2 left unproven',
    'stake: puts 0.0003 MOLT of stake behind a lease of 0.0006 MOLT',
    'speed: says its speed is 100, 100 % of the best for the price; its history backs 97 % of that',
    'latency: answers in 10 ms',
    'warm: says it has the image at hand',
    'data: was not told which inputs the job has',
    'region: may be anywhere',
  ]);
  expect(ranked[1]?.reasons.map(({ what, text }) => `${what}: ${text}`)).toEqual([
    'price: asks 0.000001999 MOLT a second, the lowest is 0.000001 MOLT',
    'history: 0 leases settled, none left unproven',
    'stake: puts 0.0003 MOLT of stake behind a lease of 0.0006 MOLT',
    'speed: says its speed is 100, 50 % of the best for the price; its history backs 0 % of that',
    'latency: answers in 10 ms',
    'warm: has to fetch the image first',
    'data: was not told which inputs the job has',
    'region: may be anywhere',
  ]);
  expect(ranked[1]?.reasons[0]).toMatchObject({ value: 0.5005, weight: 0.45 });
});

test('of equals the one that has more of the data comes first, and says how much', () => {
  const near = ['0a'.repeat(8), '0b'.repeat(8)];
  const candidates = [candidate(0, { near: near.slice(1) }), candidate(1, { near }), candidate(2)];
  const ranked = rank({ bid: { ...bid, near }, candidates });
  expect(ranked.map(({ quote }) => quote.signer)).toEqual([1, 0, 2].map((index) => keys[index]!.address));
  expect(ranked.map(({ reasons }) => reasons.find(({ what }) => what === 'data')?.text)).toEqual([
    'says it has 2 of 2 inputs at hand',
    'says it has 1 of 2 inputs at hand',
    'says it has 0 of 2 inputs at hand',
  ]);
});

test('a single quote is called the only one', () => {
  expect(rank({ bid, candidates: [candidate(0)] })[0]?.reasons[0]?.text).toBe(
    'asks 0.000001 MOLT a second, the only quote',
  );
});

test('the score is the sum of value times weight, and the weights sum to one', () => {
  const [ranked] = rank({ bid, candidates: [candidate(0, { speed: 1 }, { account: veteran }), candidate(1)] });
  expect(ranked?.score).toBeCloseTo(
    ranked!.reasons.reduce((sum, { value, weight }) => sum + value * weight, 0),
    12,
  );
  expect(ranked?.reasons.reduce((sum, { weight }) => sum + weight, 0)).toBeCloseTo(1, 12);
});

test('a claimed speed without history moves no score: it only breaks ties', () => {
  const modest = candidate(0, { speed: 10 });
  const boaster = candidate(1, { speed: 4_000_000_000 });
  const ranked = rank({ bid, candidates: [modest, boaster] });
  expect(ranked[0]?.score).toBe(ranked[1]?.score);
  expect(ranked[0]?.quote.signer).toBe(keys[1]!.address);
  expect(order([boaster, candidate(2, { speed: 10, warm: true })])).toEqual(['2', '1']);
});

test('with history the faster of two wins at the same price', () => {
  const slow = candidate(0, { speed: 50 }, { account: veteran });
  const fast = candidate(1, { speed: 100 }, { account: veteran });
  const [best] = rank({ bid, candidates: [slow, fast] });
  expect(best?.quote.signer).toBe(keys[1]!.address);
  expect(best?.reasons.find(({ what }) => what === 'speed')?.value).toBeCloseTo(0.974, 3);
});

test('with history the one that gives more speed for the money wins over the faster and dearer', () => {
  const terms = (speed: number, price: bigint) => ({ speed, pricePerSecond: baseUnits(price) });
  const dear = candidate(0, terms(100, 3_999n), { account: veteran });
  const worth = candidate(1, terms(60, 1_999n), { account: veteran });
  expect(order([dear, worth], weightedStrategy({ speed: 1 }))).toEqual(['1', '0']);
});

test('a region that is wished for counts, and keeps nobody out', () => {
  const candidates = [candidate(0, {}, { region: 'us' }), candidate(1, {}, { region: 'eu' }), candidate(2)];
  const ranked = rank({ bid, candidates, regionWished: 'eu' });
  expect(ranked.map(({ reasons }) => reasons.at(-1)?.text)).toEqual([
    'says it is in eu, as wished',
    expect.stringMatching(/^(names no region|says it is in us)$/),
    expect.stringMatching(/^(names no region|says it is in us)$/),
  ]);
  expect(ranked[0]?.score).toBeGreaterThan(ranked[1]?.score ?? 1);
});

test('over ten thousand bids every acceptable quote wins sometimes and the best most often', () => {
  const wins = [0, 0, 0, 0];
  const random = seeded(7);
  const prices = [1_000n, 1_100n, 4_000n, 400_000n];
  const quotes = prices.map((price, index) => candidate(index, { pricePerSecond: baseUnits(price) }));
  for (let round = 0; round < 10_000; round++) {
    const [best] = rank({ bid, candidates: quotes.map((quote) => ({ ...quote, draw: random() })) });
    const winner = keys.findIndex(({ address }) => address === best?.quote.signer);
    wins[winner] = (wins[winner] ?? 0) + 1;
  }
  const [best = 0, ...others] = wins;
  expect(Math.min(...others)).toBeGreaterThan(20);
  expect(best).toBeGreaterThan(9_500);
  expect(others[0]).toBeGreaterThan(others[2] ?? 0);
});

test('who wins by lot is told so, and without lots nobody does', () => {
  const lucky = candidate(0, { pricePerSecond: baseUnits(9_000n) }, { draw: 0 });
  const [first] = rank({ bid, candidates: [lucky, candidate(1)] });
  expect(first).toMatchObject({ byLot: true, quote: { signer: keys[0]!.address } });
  expect(first?.reasons[0]?.text).toBe(
    'the lot fell on it: a share of bids goes by lot, so that everybody gets a turn',
  );
  expect(rank({ bid, candidates: [lucky, candidate(1)], lotShare: 0 })[0]).toMatchObject({ byLot: false });
});

test('a buyer orders the quotes by a function of its own, and may leave some out', () => {
  const ranked = rank({ bid, candidates: [candidate(0), candidate(1), candidate(2)] });
  const own = rankedByBuyer(bid, ranked, ({ quotes }) => [...quotes].reverse().slice(0, 2));
  expect(own).toEqual([ranked[2], ranked[1]]);
  expect(rankedByBuyer(bid, ranked, () => [])).toEqual([]);
});

test.each<[string, unknown, string]>([
  ['throws', 'boom', "the buyer's own ranking threw: boom"],
  ['is late', Promise.resolve([]), "the buyer's own ranking must give an array of quotes, not a promise"],
  [
    'makes one up',
    [{ score: 1 }],
    "the buyer's own ranking gave something that is not one of the quotes it was given, or one of them twice",
  ],
  [
    'gives one twice',
    'twice',
    "the buyer's own ranking gave something that is not one of the quotes it was given, or one of them twice",
  ],
])('a function that %s ends in a typed error', (_what, given, message) => {
  const ranked = rank({ bid, candidates: [candidate(0), candidate(1)] });
  const own = (({ quotes }) => {
    if (given === 'boom') throw new Error('boom');
    return given === 'twice' ? [quotes[0], quotes[0]] : given;
  }) as OwnRanking;
  const ranking = () => rankedByBuyer(bid, ranked, own);
  expect(ranking).toThrow(expect.objectContaining({ code: 'market/ranking-failed', message }));
});

test('a provider that failed this job is out, and nobody left means an empty ranking', () => {
  const failed = candidate(0, { pricePerSecond: baseUnits(1n) }, { failedBefore: true });
  expect(order([failed, candidate(1)])).toEqual(['1']);
  expect(rank({ bid, candidates: [failed, candidate(1)] })[0]?.reasons[0]?.value).toBe(1);
  expect(order([failed])).toEqual([]);
});

test('a free quote and an unmeasured latency are judged, not divided by zero', () => {
  const [free, dear] = rank({
    bid,
    candidates: [
      candidate(0, { pricePerSecond: baseUnits(0n), amount: baseUnits(0n), reserve: baseUnits(0n), speed: 0 }),
      candidate(1, { speed: 0 }, { latencyMs: undefined }),
    ],
  });
  expect(free?.reasons.map(({ value }) => value)).toEqual([1, 0, 0, 0, 100 / 110, 0, 0, 0]);
  expect(dear?.reasons[4]).toMatchObject({ value: 0, text: 'answers in a time that was not measured' });
});

test('a buyer can weigh by himself, or judge by himself', () => {
  const cheap = candidate(0);
  const near = candidate(1, { pricePerSecond: baseUnits(1_999n) }, { latencyMs: 0 });
  expect(order([cheap, near])).toEqual(['0', '1']);
  expect(order([cheap, near], weightedStrategy({ latency: 3 }))).toEqual(['1', '0']);
  const own: Strategy = ({ quote }) => [
    { what: 'reserve', value: Number(quote.content.reserve), weight: 1, text: 'more is better' },
  ];
  expect(order([cheap, candidate(2, { reserve: baseUnits(300_001n) })], own)).toEqual(['2', '0']);
});

test('a strategy without weights, or that gives no number, is a defect', () => {
  expect(() => weightedStrategy({})).toThrow(AssertionError);
  expect(() => weightedStrategy({ price: -1, stake: 2 })).toThrow(AssertionError);
  const none: Strategy = () => [{ what: 'x', value: Number.NaN, weight: 1, text: '' }];
  expect(() => order([candidate(0)], none)).toThrow(AssertionError);
});

test('for equal draws the ranking is total and the same in whatever order the quotes came', () => {
  const choice = fc.record({
    pricePerSecond: fc.constantFrom(0n, 1n, 1_000n).map(baseUnits),
    speed: fc.constantFrom(0, 1, 100),
    warm: fc.boolean(),
  });
  const circumstances = fc.record({
    account: fc.constantFrom(newcomer, veteran),
    latencyMs: fc.constantFrom(undefined, 0, 10, 5_000),
    draw: fc.constantFrom(0, 0.5, 0.999),
  });
  const shuffled = fc
    .array(fc.tuple(choice, circumstances), { minLength: 1, maxLength: 8 })
    .map((all) => all.map(([terms, rest], index) => candidate(index, terms, rest)))
    .chain((all) =>
      fc.tuple(fc.constant(all), fc.shuffledSubarray(all, { minLength: all.length, maxLength: all.length })),
    );
  fc.assert(
    fc.property(shuffled, ([candidates, others]) => {
      const ranked = order(candidates);
      expect(order(others)).toEqual(ranked);
      expect(new Set(ranked).size).toBe(candidates.length);
      for (const { score } of rank({ bid, candidates })) expect(score >= 0 && score <= 1).toBe(true);
    }),
    { numRuns: 200 },
  );
});
