/**
 * Goal: a bid is explained from what was heard, word by word: what became of every offer, and the one change that would
 * have found a provider. Method: the bidder with offers and answers, its news folded into a record, and the text of that.
 */
import { expect, test } from 'vitest';

import {
  type BidRecord,
  type BidderNews,
  type BidderOrder,
  createBidder,
  decideBidder,
  endRecord,
  explainBid,
  recordNews,
  refusal,
} from '../../market/index.ts';
import type { MoltError } from '../../protocol/errors.ts';
import { type JobSpecInput, parseJobSpec } from '../../protocol/job-spec.ts';
import type { Offer } from '../../protocol/messages.ts';
import { baseUnits } from '../../protocol/units.ts';
import { NOW, SMALL, address, key, offerContent, quoteContent, verifiedOffer, verifiedQuote } from './fixtures.ts';

const MODULE = 'bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy';
const BID = 'ab'.repeat(32);
const GIB = 2 ** 30;
const PLENTY = { cpuMillis: 8_000, memoryBytes: 64 * GIB, diskBytes: 64 * GIB, gpus: [] };
const NAMES = ['a', 'b', 'c', 'd'];
const at = { nowMs: NOW, monotonicMs: 0 };

/** What each of a few providers offers and answers; undefined stays silent. */
type Scene = readonly { readonly offer?: Partial<Offer>; readonly answer?: MoltError | bigint }[];

/** Up to 100 s for 0.1 MOLT: 0.001 MOLT a second. */
function bidFor(scene: Scene, job: Partial<JobSpecInput> = {}, order: Partial<BidderOrder> = {}): BidRecord {
  const spec = parseJobSpec({ runtime: 'wasm', image: MODULE, maxDurationSeconds: 100, ...job });
  let { state, effects } = createBidder({
    spec,
    budget: address('budget'),
    maxPrice: baseUnits(100_000_000n),
    ...order,
  });
  let record: BidRecord | undefined;
  const send = (event: Parameters<typeof decideBidder>[1]): void => {
    ({ state, effects } = decideBidder(state, event, at));
    for (const effect of effects) {
      if (effect.type === 'tell') record = recordNews(record, effect.news satisfies BidderNews, NOW);
      if (effect.type === 'fail' && record !== undefined) record = endRecord(record, effect.error);
      if (effect.type === 'deliver' && record !== undefined) record = endRecord(record);
    }
  };
  const offers = scene.map(({ offer }, index) =>
    verifiedOffer(key(NAMES[index] ?? ''), {}, { free: PLENTY, prices: pricesOf(1_000n), ...offer }),
  );
  send({ type: 'begin', offers, bookSize: offers.length, peers: 3, addresses: [] });
  const genuine = new Set(offers.map(({ signer }) => signer));
  send({ type: 'offers-checked', checked: offers.length, genuine });
  if (state.bid !== undefined) send({ type: 'bid-signed', bid: BID });
  for (const [stream, { answer }] of scene.entries()) {
    const node = key(NAMES[stream] ?? '');
    if (answer === undefined || state.bid === undefined) continue;
    const { provider } = offerContent(node);
    const priceOf = (asked: bigint) => ({ pricePerSecond: baseUnits(asked), amount: baseUnits(asked * 100n) });
    const said =
      typeof answer === 'bigint'
        ? verifiedQuote(node, quoteContent({ bid: BID, provider, ...priceOf(answer), reserve: baseUnits(0n) }))
        : answer;
    send({ type: 'answered', stream, node: node.address, bid: BID, answer: said });
  }
  send({ type: 'time-up', bid: BID });
  const accounts = new Map(state.quotes.map(({ quote }) => [quote.content.provider, accountOf(quote.signer)]));
  const budget = { free: 10n ** 12n, capPerLease: 10n ** 12n };
  send({
    type: 'weighed',
    bid: BID,
    facts: { budget, accounts, chainNowMs: NOW, draws: state.quotes.map(() => 0.99) },
  });
  send({ type: 'delivered' });
  if (record === undefined) throw new Error('nothing was recorded');
  // What is kept is JSON.
  return JSON.parse(JSON.stringify(record)) as BidRecord;
}

function pricesOf(base: bigint): Offer['prices'] {
  return { base: baseUnits(base), perCpu: baseUnits(0n), perGib: baseUnits(0n), perGpu: baseUnits(0n) };
}

function accountOf(operator: ReturnType<typeof address>) {
  const none = { settledCount: 0n, settledAmount: 0n, feesBurned: 0n, faults: 0n, faultAmount: 0n };
  return { operator, stake: baseUnits(10n ** 12n), reserved: baseUnits(0n), ...none };
}

const tooLow = (enough: bigint) => refusal('market/price-too-low', 'the price is higher', enough);
const changes = (record: BidRecord) => explainBid(record).changes.map(({ text }) => text);
/** By name of the provider. */
const texts = (record: BidRecord) =>
  Object.fromEntries(
    explainBid(record).providers.map(({ node, text }) => [NAMES.find((name) => key(name).address === node), text]),
  );

test('a bid under every price says which price would have got a quote from how many', () => {
  const record = bidFor([
    { offer: { prices: pricesOf(1_200_000n) }, answer: tooLow(1_200_000n) },
    { offer: { prices: pricesOf(1_500_000n) }, answer: tooLow(2_000_000n) },
    { offer: { prices: pricesOf(1_200_000n) }, answer: tooLow(1_200_000n) },
  ]);
  expect(explainBid(record)).toMatchObject({
    headline: '3 offers heard, 3 asked, 0 quotes: no match (market/price-too-low)',
    changes: [
      {
        what: 'price',
        providers: 3,
        enough: '1200000',
        enoughForAll: '2000000',
        text: '0.0012 MOLT/s (0.12 MOLT for the job) instead of 0.001 MOLT/s would have got a quote from 2 providers, 0.002 MOLT/s from 3',
      },
    ],
  });
  expect(texts(record)['a']).toBe('declined: the price is higher (market/price-too-low)');
});

test.each<[string, Partial<Offer>, Partial<JobSpecInput>, string, string]>([
  [
    'memory',
    { free: { ...PLENTY, memoryBytes: 2 * GIB } },
    { resources: { memoryBytes: 4 * GIB } },
    'did not answer in time; it has 2.1 GB of memory free',
    '2.1 GB less memory (2.1 GB) would have got a quote from 1 provider',
  ],
  [
    'disk',
    { free: { ...PLENTY, diskBytes: GIB } },
    { resources: { diskBytes: 3 * GIB } },
    'did not answer in time; it has 1.1 GB of disk free',
    '2.1 GB less disk (1.1 GB) would have got a quote from 1 provider',
  ],
  [
    'cores',
    { free: { ...PLENTY, cpuMillis: 1_000 } },
    { resources: { cpuMillis: 2_500 } },
    'did not answer in time; it has 1 cores free',
    '1 core instead of 2.5 cores would have got a quote from 1 provider',
  ],
  [
    'time',
    { durationSecondsMax: 60 },
    {},
    'did not answer in time; it leases at most 60 s',
    'a job of at most 60 s instead of 100 s would have got a quote from 1 provider',
  ],
  [
    'GPUs',
    {},
    { runtime: 'container', image: `x@sha256:${'0'.repeat(64)}`, resources: { gpus: [{ count: 2, vramBytes: 0 }] } },
    'did not answer in time; it has too few GPUs: 2 × GPU needed, 0 such free',
    'fewer or other GPUs would have got a quote from 1 provider',
  ],
])('an offer that is short of %s is told, and what would do', (...[, offer, job, text, change]) => {
  const runtimes = ['wasm', 'container'] as const;
  expect(texts(bidFor([{ offer: { runtimes, ...offer } }], job))['a']).toBe(text);
  const full = refusal('market/no-capacity', 'full');
  // Silence is no promise: only who has answered counts, with what its offer showed.
  expect(changes(bidFor([{ offer: { runtimes, ...offer } }], job))).toEqual([]);
  if (!text.includes('leases')) {
    expect(changes(bidFor([{ offer: { runtimes, ...offer }, answer: full }], job))).toEqual([change]);
  } else {
    const long = refusal('market/duration-too-long', 'too long', 60n);
    expect(changes(bidFor([{ offer: { runtimes, ...offer }, answer: long }], job))).toEqual([change]);
  }
});

test('offers of another kind are told with all that is wrong, and what would do is the one thing', () => {
  const record = bidFor(
    [
      { offer: { region: 'us' } },
      { offer: { runtimes: ['container'] } },
      { offer: { region: 'eu', features: [], runtimes: [] } },
    ],
    {},
    { region: 'eu' },
  );
  expect(texts(record)).toEqual({
    a: 'was not asked: it is in region us',
    b: 'was not asked: it sells container, not wasm, names no region',
    c: 'was not asked: it sells nothing, not wasm',
  });
  expect(explainBid(record).headline).toBe('3 offers heard, 0 asked, 0 quotes: no match (market/no-offers)');
  expect(changes(record)).toEqual(['any region instead of eu would have got a quote from 1 provider']);
});

test('where one region is followed and has nobody, that is what could be changed', () => {
  const record = bidFor([], {}, { region: 'eu', followed: 'eu' });
  expect(explainBid(record).headline).toBe('0 offers heard, 0 asked, 0 quotes: no match (market/no-offers)');
  expect(changes(record)).toEqual([
    'only offers of region eu were heard: following all regions, or another, may find providers',
  ]);
});

test.each<[MoltError, Partial<BidderOrder>, string | undefined]>([
  [
    refusal('market/duration-too-long', 'x', 50n),
    {},
    'a job of at most 50 s instead of 100 s would have got a quote from 1 provider',
  ],
  [
    refusal('market/closed', 'x', 40n),
    {},
    'a job of at most 40 s instead of 100 s would have got a quote from 1 provider',
  ],
  [refusal('market/closed', 'x'), {}, undefined],
  [
    refusal('market/lease-too-small', 'x', 2_000_000_000n),
    {},
    'a longer job, one that locks 2 MOLT, would have got a quote from 1 provider',
  ],
  [
    refusal('chain/stake-too-low', 'x', 40_000_000_000n),
    { stakeMin: baseUnits(50_000_000_000n) },
    'asking for 40 MOLT of stake instead of 50 MOLT would have got a quote from 1 provider',
  ],
  [
    refusal('market/reserve-too-high', 'x', 40_000_000_000n),
    { reserveMin: baseUnits(50_000_000_000n) },
    'a reserve of 40 MOLT instead of 50 MOLT would have got a quote from 1 provider',
  ],
  [refusal('market/start-too-late', 'x', 10n), {}, 'a start within 10 s would have got a quote from 1 provider'],
  [refusal('market/no-capacity', 'x'), {}, 'trying again later, when there is room, may get a quote from 1 provider'],
  [refusal('market/buyer-refused', 'x'), {}, undefined],
  [refusal('market/image-refused', 'x'), {}, undefined],
  [refusal('market/not-approved', 'x', 7n), {}, undefined],
  [refusal('market/draining', 'x'), {}, undefined],
])('%s comes to a change only where one helps', (answer, order, change) => {
  expect(changes(bidFor([{ answer }], {}, order))).toEqual(change === undefined ? [] : [change]);
});

test('what wins more providers comes first', () => {
  const closing = refusal('market/closed', 'x', 40n);
  const long = refusal('market/duration-too-long', 'x', 50n);
  expect(changes(bidFor([{ answer: tooLow(5_000_000n) }, { answer: closing }, { answer: long }]))).toEqual([
    'a job of at most 50 s instead of 100 s would have got a quote from 1 provider, 40 s from 2',
    '0.005 MOLT/s (0.5 MOLT for the job) instead of 0.001 MOLT/s would have got a quote from 1 provider',
  ]);
});

test('a tier of hardware that nobody has keeps the bid from going out, and says which would do', () => {
  const record = bidFor([{}, {}], {}, { hardwareTierMin: 'A1' });
  expect(texts(record)['a']).toBe('was not asked: it shows its hardware at tier A0');
  expect(changes(record)).toEqual(['hardware of tier A0 instead of A1 would have got a quote from 2 providers']);
});

test('when every provider wants several changes, the nearest is named with all of them', () => {
  const offer = { free: { ...PLENTY, memoryBytes: GIB }, prices: pricesOf(3_000_000n) };
  const worse = { ...offer, free: { ...SMALL, cpuMillis: 10, memoryBytes: GIB } };
  const record = bidFor([{ offer: worse }, { offer, answer: tooLow(4_000_000n) }], {
    resources: { memoryBytes: 2 * GIB },
  });
  const { address: node } = key('b');
  expect(changes(record)).toEqual([
    `the nearest is ${node.slice(0, 8)}: it would have taken 0.004 MOLT/s (0.4 MOLT for the job) instead of 0.001 MOLT/s, and 1.1 GB less memory (1.1 GB)`,
  ]);
});

test('a match tells who was taken and why, and who was not', () => {
  const record = bidFor([{ answer: 500n }, { answer: 400n }, { answer: refusal('market/draining', 'it drains') }, {}]);
  expect(explainBid(record)).toMatchObject({
    headline: `4 offers heard, 4 asked, 2 quotes: ${key('b').address.slice(0, 8)} delivered`,
    changes: [],
  });
  expect(texts(record)).toEqual({
    b: 'quoted 0.0000004 MOLT a second, ranked 1 of 2 with 0.500: asks 0.0000004 MOLT a second, the lowest price',
    a: 'quoted 0.0000005 MOLT a second, ranked 2 of 2 with 0.410: asks 0.0000005 MOLT a second, the lowest is 0.0000004 MOLT',
    c: 'declined: it drains (market/draining)',
    d: 'did not answer in time',
  });
});

test('a bid for several says who got which place, and who was not asked because it has one', () => {
  const a = key('a').address;
  const taken = ['a', 'b', 'c'].map((name, rank) => ({ node: key(name).address, rank }));
  const whole = bidFor([{ answer: 500n }, { answer: 400n }, { answer: 600n }]);
  const record = { ...whole, several: { noun: 'replica', size: 3, taken: taken.slice(0, 2) } } as const;
  expect(explainBid(record)).toMatchObject({
    headline: '3 offers heard, 3 asked, 3 quotes: 2 providers taken for 3 replicas',
    changes: [],
  });
  expect(texts(record)['a']).toMatch(/^quoted 0\.0000005 MOLT a second, ranked 2 of 3 .*; it got replica 0$/);
  expect(texts(record)['c']).not.toContain('it got');
  const offers = whole.offers.map((offer) => ({ ...offer, failedBefore: offer.node === a }));
  const replacing = { ...whole, offers, answers: whole.answers.filter(({ node }) => node !== a) };
  expect(texts({ ...replacing, several: { noun: 'slot', size: 3, taken } })['a']).toBe(
    'was not asked: it has slot 0 already',
  );
  expect(explainBid({ ...replacing, several: { noun: 'slot', size: 3, taken: [] } }).headline).toContain(
    'nobody taken for 3 slots',
  );
});

test('of many offers a record keeps the nearest, and says how many there were', () => {
  const spec = parseJobSpec({ runtime: 'wasm', image: MODULE });
  const offers = Array.from({ length: 90 }, (_, index) =>
    verifiedOffer(key(`many ${index}`), {}, { free: PLENTY, region: index < 80 ? 'us' : 'eu' }),
  );
  const { state } = createBidder({ spec, budget: address('budget'), maxPrice: baseUnits(10n ** 9n), region: 'eu' });
  const { effects } = decideBidder(state, { type: 'begin', offers, bookSize: 90, peers: 1, addresses: [] }, at);
  const [told] = effects;
  if (told?.type !== 'tell' || told.news.type !== 'offers') throw new Error('expected the offers');
  expect(told.news.count).toBe(90);
  expect(told.news.judged).toHaveLength(64);
  expect(told.news.judged.slice(0, 10).every(({ obstacles }) => obstacles.length === 0)).toBe(true);
});

test('limits of the buyer’s own are told as what kept it from bidding, or as the ceiling of the bid', () => {
  const median = { medianPercentMax: 100, offersMin: 2 };
  const alone = bidFor([{}], {}, { median });
  expect(explainBid(alone)).toMatchObject({
    headline: '1 offer heard, 0 asked, 0 quotes: no match (market/spending-limit)',
    changes: [],
  });
  expect(texts(alone)).toEqual({ a: 'suits, and no bid went out' });
  const dear = { offer: { prices: pricesOf(5_000n) } };
  const capped = bidFor([{ answer: refusal('market/draining', 'it drains') }, dear], {}, { median });
  expect(texts(capped)['b']).toBe('was not asked: it asks 0.000005 MOLT a second');
  expect(changes(capped)).toEqual([
    '0.000005 MOLT/s (0.0005 MOLT for the job) instead of 0.000001 MOLT/s would have got a quote from 1 provider',
  ]);
});
