/**
 * Goal: a provider quotes what it can keep and otherwise says why not, in numbers; a buyer accepts nothing that breaks
 * its bid, the chain or its own sums. Method: one good case, then each term broken alone, then properties over prices.
 */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import {
  type AnswerRequest,
  type ProviderFacts,
  type ProviderOnChain,
  type SellingPolicy,
  acceptableQuote,
  answerBid,
  askPerSecond,
  imageRules,
  longestWindowMs,
  parseBlackouts,
  parsePriceCurve,
} from '../../market/index.ts';
import type { MoltError } from '../../protocol/errors.ts';
import { warmPrefix } from '../../protocol/job-spec.ts';
import type { Bid, Quote } from '../../protocol/messages.ts';
import { U64_MAX, baseUnits } from '../../protocol/units.ts';
import { address, key, NOW, SMALL, verifiedBid, verifiedQuote } from './fixtures.ts';

const MOLT = 1_000_000_000n;
const buyer = key('buyer');
const operator = key('operator');
const MODULE = 'bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy';
const OTHER_MODULE = 'bafkreiabltrd5zm73pvi7plq25pef3hm7jxhbi3kv4hapegrkfpkqtkbme';

const policy: SellingPolicy = {
  prices: {
    base: baseUnits(100n),
    perCpu: baseUnits(1_000n),
    perGib: baseUnits(10n),
    perGpu: baseUnits(50_000n),
  },
  durationSecondsMax: 3600,
};
const provider: ProviderFacts = {
  address: address('provider'),
  stake: baseUnits(100n * MOLT),
  freeStake: baseUnits(50n * MOLT),
  reserveBps: 5000,
  minGraceMs: 1_500,
  minWindowMs: 2_000,
  maxLeaseMs: 14 * 24 * 3_600_000,
  runtimes: ['wasm'],
  features: ['egress'],
  region: 'eu',
  draining: false,
};

function request(changes: Partial<AnswerRequest> = {}, bid: Partial<Bid> = {}): AnswerRequest {
  return {
    bid: verifiedBid(buyer, bid),
    policy,
    provider,
    free: SMALL,
    utilisation: 0,
    speed: 77,
    warm: true,
    near: [],
    nowMs: NOW,
    chainNowMs: NOW + 500,
    ...changes,
  };
}

function quoteOf(asked: AnswerRequest): Quote {
  const answer = answerBid(asked);
  if ('declined' in answer) throw answer.declined;
  return answer.quote;
}

function declinedOf(asked: AnswerRequest): MoltError {
  const answer = answerBid(asked);
  if ('quote' in answer) throw new TypeError('expected a refusal');
  return answer.declined;
}

test('a provider that can serve answers with price, lock, reserve and whole-second deadlines in chain time', () => {
  const asked = request();
  expect(quoteOf(asked)).toEqual({
    bid: asked.bid.id,
    provider: provider.address,
    pricePerSecond: 1_110n,
    amount: 666_000n,
    reserve: 333_000n,
    openBeforeMs: NOW + 30_000,
    finishByMs: NOW + 30_000 + 600_000 + 120_000,
    graceMs: 2_000,
    windowMs: 2_000,
    speed: 77,
    warm: true,
    startByMs: 0,
    near: [],
  });
});

test('deadlines follow the chain clock, not the wall clock', () => {
  const quote = quoteOf(request({ chainNowMs: NOW + 3_600_400 }));
  expect(quote.openBeforeMs).toBe(NOW + 3_630_000);
});

test('a bid that must be finished early gets that as the finish-by that is promised on chain', () => {
  expect(quoteOf(request({}, { finishByMs: NOW + 640_000 })).finishByMs).toBe(NOW + 640_000);
  expect(quoteOf(request({}, { finishByMs: NOW + 10 ** 9 })).finishByMs).toBe(NOW + 750_000);
});

test('a start that the provider can keep to is promised as the bid asks for it', () => {
  expect(quoteOf(request({}, { startByMs: NOW + 10_000 })).startByMs).toBe(NOW + 10_000);
  expect(quoteOf(request({ warm: false }, { startByMs: NOW + 60_000 })).startByMs).toBe(NOW + 60_000);
});

test('a refused start tells how many seconds would have done', () => {
  expect(declinedOf(request({}, { startByMs: NOW + 1 })).context['enough']).toBe('10');
});

test('a quote names the inputs that are at hand, of those that the bid names', () => {
  const near = ['0a'.repeat(8), '0b'.repeat(8)];
  expect(quoteOf(request({ near: near.slice(1) }, { near })).near).toEqual(['0b'.repeat(8)]);
  expect(() => accept({ near: near.slice(1) }, { bid: { near } })).not.toThrow();
});

test('a challenge window is as long as the bid asks, and at most twice as long as the job may take, or what the program takes', () => {
  expect(quoteOf(request({}, { windowMs: 1_000 })).windowMs).toBe(2_000);
  expect(quoteOf(request({}, { windowMs: 700_000 })).windowMs).toBe(700_000);
  expect(quoteOf(request({}, { windowMs: 10 ** 9 })).windowMs).toBe(1_500_000);
  expect(longestWindowMs(20 * 86_400)).toBe(30 * 86_400_000);
});

test('a lease of exactly the smallest size is sold', () => {
  expect(quoteOf(request({ policy: { ...policy, leaseAmountMin: 666_000n } })).amount).toBe(666_000n);
});

test('the reserve is what the buyer asks for when that is more', () => {
  expect(quoteOf(request({}, { reserveMin: baseUnits(MOLT) })).reserve).toBe(MOLT);
});

test.each<[string, Partial<AnswerRequest>, Partial<Bid>, string, string]>([
  ['an expired bid', { nowMs: NOW + 20_001 }, {}, 'protocol/expired', 'the bid expired 1 ms ago'],
  [
    'a draining provider',
    { provider: { ...provider, draining: true } },
    {},
    'market/draining',
    'the provider finishes its running jobs and takes nothing new',
  ],
  [
    'a blocked buyer',
    { policy: { ...policy, blockedBuyers: [buyer.address] } },
    {},
    'market/buyer-refused',
    'the provider does not serve this buyer',
  ],
  [
    'a buyer who is not among the chosen',
    { policy: { ...policy, allowedBuyers: [operator.address] } },
    {},
    'market/buyer-refused',
    'the provider serves chosen buyers only, and this is none of them',
  ],
  [
    'a module that is blocked by its whole name',
    { policy: { ...policy, images: imageRules([], [MODULE]) } },
    { warm: warmPrefix(MODULE) },
    'market/image-refused',
    'the provider does not run this image',
  ],
  [
    'a module that is not among the chosen',
    { policy: { ...policy, images: imageRules(['ghcr.io/acme/tool', OTHER_MODULE], []) } },
    { warm: warmPrefix(MODULE) },
    'market/image-refused',
    'the provider runs chosen images only, and this is none of them',
  ],
  [
    'hours without sales',
    { policy: { ...policy, blackouts: parseBlackouts(['fri 08:00-09:00'], 'UTC') } },
    {},
    'market/closed',
    'the provider sells nothing now: it is closed at fri 08:00-09:00 (UTC)',
  ],
  [
    'a job that could still run in hours without sales',
    { policy: { ...policy, blackouts: parseBlackouts(['fri 09:10-17:30'], 'Europe/Berlin') } },
    {},
    'market/closed',
    'the job may run 600 s, the provider closes at fri 09:10-17:30 (Europe/Berlin), which leaves 450 s',
  ],
  [
    'a lease below the minimum',
    { policy: { ...policy, leaseAmountMin: 666_001n } },
    {},
    'market/lease-too-small',
    'the lease would lock 0.000666 MOLT, the provider takes none below 0.000666001 MOLT',
  ],
  [
    'a runtime it has not',
    {},
    { runtime: 'container' },
    'market/unsupported',
    'the job needs the container runtime, the provider has wasm',
  ],
  [
    'what the provider does not offer',
    {},
    { features: ['egress', 'services', 'sandbox'] },
    'market/unsupported',
    'the job needs services and sandbox, which the provider does not offer',
  ],
  [
    'a tier of hardware that nobody can show',
    {},
    { hardwareTierMin: 'A1' },
    'market/tier-too-low',
    'the bid asks for hardware of tier A1, the provider can show A0',
  ],
  [
    'another region',
    {},
    { region: 'us' },
    'market/unsupported',
    'the job must run in region us, the provider is in eu',
  ],
  [
    'a long job',
    {},
    { durationSecondsMax: 3601 },
    'market/duration-too-long',
    'the job may run 3601 s, the provider leases at most 3600 s',
  ],
  [
    'a job longer than one lease with the time to prepare',
    { provider: { ...provider, maxLeaseMs: 600_000 } },
    {},
    'market/duration-too-long',
    'the job may run 600 s, with time to prepare more than the 600 s of one lease',
  ],
  [
    'a wish for more stake than there is',
    {},
    { stakeMin: baseUnits(101n * MOLT) },
    'chain/stake-too-low',
    'the bid asks for 101 MOLT of stake, the provider has 100 MOLT',
  ],
  [
    'a wish for more reserve than is free',
    {},
    { reserveMin: baseUnits(51n * MOLT) },
    'market/reserve-too-high',
    'the bid asks for 51 MOLT of stake behind the lease, 50 MOLT are free',
  ],
  ['no room', { free: { ...SMALL, cpuMillis: 500 } }, {}, 'market/no-capacity', '1 CPU core needed, 0.5 free'],
  [
    'a low ceiling',
    {},
    { pricePerSecondMax: baseUnits(1_109n) },
    'market/price-too-low',
    'the price is 0.00000111 MOLT a second, the bid pays at most 0.000001109 MOLT',
  ],
  [
    'an end that comes too soon',
    {},
    { finishByMs: NOW + 629_000 },
    'market/finish-too-late',
    'the job may run 600 s and its lease may open until 30 s from now, which leaves 599 s before the bid wants it finished',
  ],
  [
    'an amount beyond 64 bits',
    { policy: { ...policy, floorPerSecond: U64_MAX } },
    { pricePerSecondMax: baseUnits(U64_MAX) },
    'market/declined',
    '600 s cost more than one lease can lock',
  ],
  [
    'a start that comes too soon',
    {},
    { startByMs: NOW + 9_999 },
    'market/start-too-late',
    'the bid wants the job begun in 9.999 s, the provider promises 10 s where the image is at hand',
  ],
  [
    'a start that a download keeps from coming in time',
    { warm: false, policy: { ...policy, starts: { warmSeconds: 1, coldSeconds: 20 } } },
    { startByMs: NOW + 19_999 },
    'market/start-too-late',
    'the bid wants the job begun in 19.999 s, the provider promises 20 s where the image is still to be fetched',
  ],
])('%s is declined with a typed reason in numbers', (...[, changes, bid, code, message]) => {
  expect(declinedOf(request(changes, bid))).toMatchObject({ code, message });
});

test('prices add up by part, each rounded up, with curve, floor and ceiling', () => {
  const need = {
    cpuMillis: 1,
    memoryBytes: 1,
    diskBytes: 0,
    gpus: [{ count: 2, vramBytes: 0, model: '', computeCapability: 0 }],
  };
  expect(askPerSecond(policy, need, 0)).toBe(100n + 1n + 1n + 100_000n);
  const busy = { ...policy, curve: parsePriceCurve(['0:100', '100:200']) };
  expect(askPerSecond(busy, SMALL, 0.5)).toBe(1_665n);
  expect(askPerSecond(busy, SMALL, 7)).toBe(2_220n);
  expect(askPerSecond({ ...busy, ceilingPerSecond: 2_000n }, SMALL, 1)).toBe(2_000n);
  expect(askPerSecond({ ...policy, floorPerSecond: 5_000n }, SMALL, 0)).toBe(5_000n);
});

const onChain: ProviderOnChain = {
  operator: operator.address,
  stake: baseUnits(100n * MOLT),
  reserved: baseUnits(50n * MOLT),
};

function accept(changes: Partial<Quote> = {}, more: { onChain?: Partial<ProviderOnChain>; bid?: Partial<Bid> } = {}) {
  const asked = request({}, more.bid);
  const quote = verifiedQuote(operator, { ...quoteOf(request()), bid: asked.bid.id, ...changes });
  return acceptableQuote({
    quote,
    bid: asked.bid,
    provider: { ...onChain, ...more.onChain },
    nowMs: NOW + 1_000,
    chainNowMs: NOW + 1_000,
  });
}

test('what an honest provider quotes is acceptable', () => {
  expect(() => accept()).not.toThrow();
});

test.each<[string, Partial<Quote>, Parameters<typeof accept>[1], string]>([
  ['an answer to another bid', { bid: 'ab'.repeat(32) }, {}, 'it answers another bid'],
  [
    'a price above the ceiling',
    {},
    { bid: { pricePerSecondMax: baseUnits(1_109n) } },
    'it asks 0.00000111 MOLT a second, the bid pays at most 0.000001109 MOLT',
  ],
  [
    'a lock that is not price times duration',
    { amount: baseUnits(666_001n) },
    {},
    'it locks 0.000666001 MOLT, price times 600 s is 0.000666 MOLT',
  ],
  [
    'too little reserve',
    {},
    { bid: { reserveMin: baseUnits(MOLT) } },
    'it reserves 0.000333 MOLT of stake, the bid asks for 1 MOLT',
  ],
  [
    'too little stake',
    {},
    { onChain: { stake: baseUnits(60n * MOLT) }, bid: { stakeMin: baseUnits(99n * MOLT) } },
    'the provider has 60 MOLT of stake, the bid asks for 99 MOLT',
  ],
  [
    'a reserve that is not free on chain',
    {},
    { onChain: { stake: baseUnits(50n * MOLT) } },
    'it reserves 0.000333 MOLT of stake, 0 MOLT are free on chain',
  ],
  ['a lease that can no longer be opened', { openBeforeMs: NOW + 1_000 }, {}, 'the time to open its lease is over'],
  [
    'a lease that can be opened much later',
    { openBeforeMs: NOW + 92_000, finishByMs: NOW + 900_000 },
    {},
    'its lease could be opened 91000 ms from now, which is too late',
  ],
  [
    'too little time for the job',
    { finishByMs: NOW + 629_000 },
    {},
    'it leaves 599000 ms for a job that may run 600000 ms',
  ],
  [
    'money held for hours',
    { finishByMs: NOW + 4_231_000 },
    {},
    'it keeps the money 3601000 ms longer than the job may run',
  ],
  [
    'a later end than was asked for',
    {},
    { bid: { finishByMs: NOW + 749_000 } },
    'it promises to finish 1000 ms later than the bid asks',
  ],
  [
    'a later start than was asked for',
    { startByMs: NOW + 20_001 },
    { bid: { startByMs: NOW + 20_000 } },
    'it promises to start 1 ms later than the bid asks',
  ],
  [
    'no start where one was asked for',
    {},
    { bid: { startByMs: NOW + 20_000 } },
    'it promises no start, the bid asks for one',
  ],
  [
    'inputs at hand that nobody asked for',
    { near: ['00'.repeat(8)] },
    {},
    'it says to have inputs that the bid does not name',
  ],
  [
    'a shorter challenge window than was asked for',
    {},
    { bid: { windowMs: 3_000 } },
    'its challenge window is 2000 ms, the bid asks for 3000 ms',
  ],
  ['a long grace', { graceMs: 3_601_000 }, {}, 'its grace of 3601000 ms is longer than 3600000 ms'],
])('%s is not acceptable', (_what, changes, more, breach) => {
  expect(() => accept(changes, more)).toThrow(
    expect.objectContaining({
      code: 'market/quote-unacceptable',
      message: `the quote of ${provider.address} is refused: ${breach}`,
    }),
  );
});

test('a quote by anyone but the operator on chain is not acceptable', () => {
  expect(() => accept({}, { onChain: { operator: buyer.address } })).toThrow(
    expect.objectContaining({ code: 'protocol/wrong-signer' }),
  );
});

test('an expired quote is not acceptable', () => {
  const asked = request();
  const quote = verifiedQuote(operator, quoteOf(asked));
  const late = { quote, bid: asked.bid, provider: onChain, nowMs: NOW + 20_000, chainNowMs: NOW + 20_000 };
  expect(() => acceptableQuote(late)).toThrow(expect.objectContaining({ code: 'market/quote-expired' }));
});

test('whatever the prices, a quote never exceeds the ceiling, its sums hold, and the buyer finds it acceptable', () => {
  const money = fc.bigInt(0n, 10n ** 12n).map(baseUnits);
  const asked = fc.record({
    prices: fc.record({ base: money, perCpu: money, perGib: money, perGpu: money }),
    curve: fc.tuple(fc.nat(500), fc.nat(500)).map(([idle, busy]) => parsePriceCurve([`0:${idle}`, `100:${busy}`])),
    floorPerSecond: money,
    utilisation: fc.double({ min: 0, max: 1, noNaN: true }),
    pricePerSecondMax: money,
    durationSecondsMax: fc.integer({ min: 1, max: 3600 }),
    cpuMillis: fc.integer({ min: 1, max: 1000 }),
    chainAheadMs: fc.nat(10 ** 9),
  });
  fc.assert(
    fc.property(asked, ({ pricePerSecondMax, durationSecondsMax, cpuMillis, utilisation, chainAheadMs, ...prices }) => {
      const full = request(
        { policy: { ...policy, ...prices }, utilisation, chainNowMs: NOW + chainAheadMs },
        { pricePerSecondMax, durationSecondsMax, need: { ...SMALL, cpuMillis } },
      );
      const answer = answerBid(full);
      if ('declined' in answer) return;
      const { quote } = answer;
      expect(quote.pricePerSecond).toBeLessThanOrEqual(pricePerSecondMax);
      expect(quote.amount).toBe(quote.pricePerSecond * BigInt(durationSecondsMax));
      const chainNowMs = full.chainNowMs;
      acceptableQuote({
        quote: verifiedQuote(operator, quote),
        bid: full.bid,
        provider: onChain,
        nowMs: NOW,
        chainNowMs,
      });
    }),
    { numRuns: 300 },
  );
});
