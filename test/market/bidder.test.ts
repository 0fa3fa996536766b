/** Goal: every job finds a provider or a typed reason, whatever those asked do. Method: the machine alone, event by event. */
import { describe, expect, test } from 'vitest';

import {
  type BidderEffect,
  type BidderEvent,
  type BidderFacts,
  type BidderOrder,
  type BidderState,
  type VerifiedQuote,
  couldBeServed,
  createBidder,
  decideBidder,
} from '../../market/index.ts';
import type { Verified } from '../../protocol/brands.ts';
import { MoltError } from '../../protocol/errors.ts';
import { parseJobSpec } from '../../protocol/job-spec.ts';
import type { Message, Offer, Quote } from '../../protocol/messages.ts';
import { U64_MAX, baseUnits } from '../../protocol/units.ts';
import { NOW, address, key, quoteContent, verifiedOffer, verifiedQuote } from './fixtures.ts';

const MODULE = 'bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy';
const spec = parseJobSpec({ runtime: 'wasm', image: MODULE, maxDurationSeconds: 100 });
const BID = 'ab'.repeat(32);
const providerOf = (name: string) => address(`provider of ${key(name).address}`);

class Bidder {
  state: BidderState;
  effects: readonly BidderEffect[];
  readonly all: BidderEffect[] = [];

  constructor(changes: Partial<BidderOrder> = {}) {
    const start = createBidder({ spec, budget: address('budget'), maxPrice: baseUnits(1_000_000n), ...changes });
    this.state = start.state;
    this.effects = start.effects;
  }

  do(event: BidderEvent, afterMs = 0): readonly BidderEffect[] {
    const { state, effects } = decideBidder(this.state, event, { nowMs: NOW + afterMs, monotonicMs: afterMs });
    this.state = state;
    this.effects = effects;
    this.all.push(...effects);
    return effects;
  }

  begin(names: readonly string[], changes: Partial<Offer> = {}) {
    const offers = names.map((name) => verifiedOffer(key(name), {}, changes));
    this.do({ type: 'begin', offers, bookSize: offers.length, peers: 3, addresses: [] });
    this.vouch(offers);
    if (this.state.bid !== undefined) this.do({ type: 'bid-signed', bid: BID });
    return this;
  }

  /** Says that these, by default all, are of providers on chain. */
  vouch(genuine: readonly Message<Offer>[], checked = genuine.length) {
    return this.do({ type: 'offers-checked', checked, genuine: new Set(genuine.map(({ signer }) => signer)) });
  }

  answer(name: string, answer: VerifiedQuote | MoltError, afterMs = 0) {
    return this.do({ type: 'answered', stream: this.all.length, node: key(name).address, bid: BID, answer }, afterMs);
  }

  weigh(changes: Partial<BidderFacts> = {}) {
    const accounts = new Map(this.state.quotes.map(({ quote }) => [quote.content.provider, accountOf(quote.signer)]));
    const budget = { free: 10n ** 12n, capPerLease: 10n ** 12n };
    const facts = { budget, accounts, chainNowMs: NOW, draws: this.state.quotes.map(() => 0), ...changes };
    return this.do({ type: 'weighed', bid: BID, facts });
  }

  /** Those that were tried, in order. */
  get tried() {
    return this.all.flatMap((effect) => (effect.type === 'try' ? [effect.quote.signer] : []));
  }

  get failure() {
    return this.all.flatMap((effect) => (effect.type === 'fail' ? [effect.error as MoltError] : []))[0];
  }
}

function accountOf(operator: VerifiedQuote['signer']) {
  const none = { settledCount: 0n, settledAmount: 0n, feesBurned: 0n, faults: 0n, faultAmount: 0n };
  return { operator, stake: baseUnits(10n ** 12n), reserved: baseUnits(0n), ...none };
}

function quoteOf(name: string, pricePerSecond = 100n, changes: Partial<Quote> = {}): VerifiedQuote {
  const asked = { pricePerSecond: baseUnits(pricePerSecond), amount: baseUnits(pricePerSecond * 100n) };
  const provider = providerOf(name);
  return verifiedQuote(key(name), quoteContent({ bid: BID, provider, ...asked, reserve: baseUnits(0n), ...changes }));
}

const full = new MoltError('market/no-capacity', '1 CPU core needed, 0 free');
const lost = new MoltError('job/provider-lost', 'it went away');
const types = (effects: readonly BidderEffect[]) => effects.map(({ type }) => type);

/** Two quotes are there and ranked; the cheaper is being tried. */
function trying(): Bidder {
  const bidder = new Bidder().begin(['a', 'b']);
  bidder.answer('a', quoteOf('a', 100n));
  bidder.answer('b', quoteOf('b', 900n));
  bidder.weigh();
  return bidder;
}

test('a job starts by gathering offers', () => {
  expect(types(new Bidder().effects)).toEqual(['gather-offers']);
});

test('a newcomer hears more of the market until an offer comes of one who could do the job', () => {
  const order = { spec, budget: address('budget'), maxPrice: baseUnits(1_000_000n) };
  const stranger = verifiedOffer(key('a'), {}, { runtimes: ['container'] });
  const able = verifiedOffer(key('b'), {}, {});
  expect(couldBeServed(order, [stranger], NOW)).toBe(false);
  expect(couldBeServed(order, [stranger, able], NOW)).toBe(true);
  expect(couldBeServed({ ...order, without: new Set([able.signer]) }, [stranger, able], NOW)).toBe(false);
  expect(couldBeServed({ ...order, maxPrice: baseUnits(1n) }, [stranger], NOW)).toBe(true);
});

test.each([
  ['no offer at all', [], {}, 'no live offer was heard from 3 peers'],
  ['offers of another runtime', ['a'], { runtimes: ['container'] }, '1 offer was heard, none sells the wasm runtime'],
] as const)('%s ends the job with a reason and without a bid', (_what, names, changes, words) => {
  const bidder = new Bidder().begin(names, changes);
  expect(bidder.failure).toMatchObject({ code: 'market/no-offers', message: expect.stringContaining(words) });
  expect(types(bidder.all)).not.toContain('sign-bid');
});

test.each([
  [[], 'eu', 'no live offer of region eu, the only one that is followed, was heard from 3 peers'],
  [['a'], 'us', 'for cpu jobs in region us, and only offers of region eu are followed'],
] as const)(
  'a buyer that follows a region with no provider for it hears that it follows only that: %s',
  (names, region, words) => {
    const bidder = new Bidder({ region, followed: 'eu' }).begin(names, { region: 'eu' });
    expect(bidder.failure).toMatchObject({ code: 'market/no-offers', message: expect.stringContaining(words) });
  },
);

test('those without room are asked all the same when nobody says to have any', () => {
  const nothing = { cpuMillis: 0, memoryBytes: 0, diskBytes: 0, gpus: [] };
  expect(new Bidder().begin(['a'], { free: nothing }).state.phase).toBe('asking');
});

test('when all that were asked have answered, quotes are weighed at once and the cheapest is tried first', () => {
  const bidder = new Bidder().begin(['a', 'b', 'c']);
  bidder.answer('a', quoteOf('a', 900n));
  expect(types(bidder.answer('b', full))).toEqual(['tell', 'let-go']);
  expect(types(bidder.answer('c', quoteOf('c', 100n)))).toEqual(['look-ahead', 'tell', 'weigh']);
  bidder.weigh();
  expect(bidder.tried).toEqual([key('c').address]);
});

test('each bid asks for a start within as long, also the one after a provider that broke its promise', () => {
  const bidder = new Bidder({ startWithinMs: 20_000 }).begin(['a']);
  expect(bidder.state.bid?.content.startByMs).toBe(NOW + 20_000);
  bidder.answer('a', quoteOf('a', 100n, { startByMs: NOW + 20_000 }));
  bidder.weigh();
  bidder.do({ type: 'lease-opened' });
  const late = new MoltError('proof/started-late', 'it began late');
  expect(types(bidder.do({ type: 'try-failed', error: late, cancelled: false }))).toContain('gather-offers');
  const offers = [verifiedOffer(key('b'))];
  bidder.do({ type: 'begin', offers, bookSize: 1, peers: 1, addresses: [] }, 9_000);
  bidder.vouch(offers);
  expect(bidder.state.bid?.content.startByMs).toBe(NOW + 29_000);
  expect(new Bidder().begin(['a']).state.bid?.content.startByMs).toBe(0);
});

test('as many quotes as are wanted are enough', () => {
  const bidder = new Bidder({ quotesWanted: 1 }).begin(['a', 'b']);
  expect(types(bidder.answer('a', quoteOf('a')))).toContain('weigh');
});

test('after the first quote the others get a little longer, and longer the later it came', () => {
  const bidder = new Bidder().begin(['a', 'b']);
  expect(bidder.answer('a', quoteOf('a'), 10).at(-1)).toEqual({ type: 'wait', bid: BID, ms: 300 });
  const slow = new Bidder().begin(['a', 'b']);
  expect(slow.answer('a', quoteOf('a'), 500).at(-1)).toEqual({ type: 'wait', bid: BID, ms: 1_500 });
});

test('nobody answers: the job ends with a reason when time is up', () => {
  const bidder = new Bidder({ quoteTimeoutMs: 2_000 }).begin(['a']);
  expect(types(bidder.do({ type: 'time-up', bid: BID }))).toEqual(['weigh']);
  bidder.weigh();
  expect(bidder.failure).toMatchObject({ code: 'market/no-quotes' });
  expect(types(bidder.effects)).toContain('let-all-go');
});

test('where no quote came in time, those who said nothing have longer, once, and the first quote is taken', () => {
  const silent = new Bidder().begin(['a', 'b']);
  silent.answer('a', full);
  expect(silent.do({ type: 'time-up', bid: BID })).toEqual([{ type: 'wait', bid: BID, ms: 8_000 }]);
  expect(types(silent.do({ type: 'time-up', bid: BID }))).toEqual(['weigh']);
  silent.weigh();
  expect(silent.failure).toMatchObject({ code: 'market/no-capacity' });
  const slow = new Bidder().begin(['a', 'b']);
  slow.do({ type: 'time-up', bid: BID });
  expect(slow.answer('b', quoteOf('b'), 5_000).at(-1)).toEqual({ type: 'wait', bid: BID, ms: 2_000 });
  slow.do({ type: 'time-up', bid: BID });
  slow.weigh();
  expect(slow.tried).toEqual([key('b').address]);
});

test('a bid for several slots waits for as many quotes: with fewer it would be in vain', () => {
  const slow = new Bidder({ quotesNeeded: 2 }).begin(['a', 'b', 'c']);
  expect(types(slow.answer('a', quoteOf('a'), 10))).not.toContain('wait');
  expect(slow.do({ type: 'time-up', bid: BID })).toEqual([{ type: 'wait', bid: BID, ms: 8_000 }]);
  expect(slow.answer('b', quoteOf('b'), 5_000).at(-1)).toEqual({ type: 'wait', bid: BID, ms: 2_000 });
  expect(types(slow.do({ type: 'time-up', bid: BID }))).toEqual(['weigh']);
  const few = new Bidder({ quotesNeeded: 2 }).begin(['a', 'b']);
  few.answer('a', quoteOf('a'), 10);
  expect(types(few.answer('b', full))).toContain('weigh');
});

test('refusals of one kind give their code, and all of them are in the text', () => {
  const bidder = new Bidder().begin(['a', 'b']);
  bidder.answer('a', full);
  bidder.answer('b', new MoltError('market/no-capacity', '2 needed, 1 free'));
  bidder.weigh();
  expect(bidder.failure).toMatchObject({ code: 'market/no-capacity' });
  expect(bidder.failure?.message).toContain('1 CPU core needed, 0 free');
  expect(bidder.failure?.message).toContain('2 needed, 1 free');
});

test('a second answer of one node, and an answer after time, is let go and changes nothing', () => {
  const bidder = new Bidder().begin(['a', 'b']);
  bidder.answer('a', quoteOf('a'));
  const before = bidder.state;
  expect(types(bidder.answer('a', quoteOf('a', 1n)))).toEqual(['let-go']);
  expect(bidder.state).toBe(before);
  bidder.do({ type: 'time-up', bid: BID });
  expect(types(bidder.answer('b', quoteOf('b')))).toEqual(['let-go']);
});

test('a quote of a provider that the bid did not ask is refused', () => {
  const bidder = new Bidder({ quotesWanted: 1 }).begin(Array.from({ length: 400 }, (_, index) => `p${index}`));
  const names = Array.from({ length: 400 }, (_, index) => `p${index}`);
  const stranger = names.find((name) => !bidder.state.asked.has(key(name).address)) ?? '';
  expect(types(bidder.answer(stranger, quoteOf(stranger)))).toEqual(['tell', 'let-go']);
  expect(bidder.state.quotes).toEqual([]);
});

test('strangers cannot use up the ears for those whom the bid asks', () => {
  const bidder = new Bidder().begin(['a']);
  for (let index = 0; index < 100; index++) bidder.answer(`stranger ${index}`, full);
  expect(bidder.state.heard.size).toBe(20);
  expect(types(bidder.answer('a', quoteOf('a')))).toContain('weigh');
});

test.each([
  ['signed by another than the operator on chain', { operator: key('x').address }, 'protocol/wrong-signer'],
  ['whose stake does not cover its reserve', { stake: baseUnits(0n) }, 'market/quote-unacceptable'],
] as const)('a quote %s is not tried', (_what, changes, code) => {
  const bidder = new Bidder().begin(['a']);
  bidder.answer('a', quoteOf('a', 100n, { reserve: baseUnits(1n) }));
  bidder.weigh({ accounts: new Map([[providerOf('a'), { ...accountOf(key('a').address), ...changes }]]) });
  expect(bidder.failure?.code).toBe(code);
  expect(bidder.tried).toEqual([]);
});

test('a quote above what the budget leases at once is not tried', () => {
  const bidder = new Bidder().begin(['a']);
  bidder.answer('a', quoteOf('a'));
  bidder.weigh({ budget: { free: 10n ** 12n, capPerLease: 9_999n } });
  expect(bidder.failure?.code).toBe('chain/budget-empty');
});

test('a provider that fails before the money is locked is out, and the next quote is tried without a new bid', () => {
  const bidder = trying();
  const [told] = bidder.do({ type: 'try-failed', error: lost, cancelled: false });
  expect(told).toMatchObject({ type: 'tell', news: { type: 'provider-failed', retrying: true } });
  expect(bidder.tried).toEqual([key('a').address, key('b').address]);
  expect(types(bidder.all)).not.toContain('let-all-go');
});

test('quotes that ran out meanwhile are passed over, and the job bids again', () => {
  const bidder = trying();
  bidder.do({ type: 'try-failed', error: lost, cancelled: false }, 30_000);
  expect(bidder.tried).toEqual([key('a').address]);
  expect(types(bidder.effects)).toEqual(['tell', 'let-all-go', 'gather-offers']);
  expect([...bidder.state.failed]).toEqual([key('a').address]);
});

test('once the money is locked the others are let go, and a failure bids again without the one that failed', () => {
  const bidder = trying();
  expect(types(bidder.do({ type: 'lease-opened' }))).toEqual(['let-all-go']);
  bidder.do({ type: 'try-failed', error: lost, cancelled: false });
  expect(bidder.state).toMatchObject({ phase: 'idle', attempt: 2 });
  bidder.begin(['a', 'b']);
  expect([...bidder.state.asked]).toEqual([key('b').address]);
  expect(types(bidder.answer('a', quoteOf('a')))).toEqual(['let-go']);
});

test('when nobody is left, the failure before is told with the reason why nobody is left', () => {
  const bidder = trying();
  bidder.do({ type: 'lease-opened' });
  bidder.do({ type: 'try-failed', error: lost, cancelled: false });
  bidder.begin(['a']);
  expect(bidder.failure).toMatchObject({
    code: 'job/provider-lost',
    message: expect.stringMatching(
      /^it went away; and no other provider takes the job: 1 offer was heard; the one that could do this job has a part in it already, or failed it$/,
    ),
  });
});

test.each([
  ["the buyer's own fault", new MoltError('job/failed', 'exit code 1')],
  ['a defect', new Error('a defect')],
])('%s ends the job at once', (_what, error) => {
  const bidder = trying();
  expect(types(bidder.do({ type: 'try-failed', error, cancelled: false }))).toEqual(['tell', 'let-all-go', 'fail']);
  expect(bidder.failure).toBe(error);
});

test('attempts are bounded, and the last failure is the reason', () => {
  const bidder = new Bidder({ attempts: 2 });
  for (const name of ['a', 'b']) {
    bidder.begin([name]);
    bidder.answer(name, quoteOf(name));
    bidder.weigh();
    bidder.do({ type: 'lease-opened' });
    bidder.do({ type: 'try-failed', error: lost, cancelled: false });
  }
  expect(bidder.failure).toBe(lost);
  expect(bidder.state.phase).toBe('over');
});

test('cancelled while it asks, the job ends and lets everything go; under a lease its run says what came of it', () => {
  const cancelled = new MoltError('job/cancelled', 'the job was cancelled');
  const asking = new Bidder().begin(['a', 'b']);
  asking.answer('a', quoteOf('a'));
  expect(types(asking.do({ type: 'cancelled', error: cancelled }))).toEqual(['let-all-go', 'fail']);
  const running = trying();
  running.do({ type: 'lease-opened' });
  expect(running.do({ type: 'cancelled', error: cancelled })).toEqual([]);
  running.do({ type: 'try-failed', error: lost, cancelled: true });
  expect(running.failure).toMatchObject({ code: 'job/cancelled', cause: lost });
});

test('a delivered job lets everything go and hears nothing more', () => {
  const bidder = trying();
  bidder.do({ type: 'lease-opened' });
  expect(types(bidder.do({ type: 'delivered' }))).toEqual(['let-all-go', 'deliver']);
  expect(bidder.do({ type: 'try-failed', error: lost, cancelled: false })).toEqual([]);
});

test('a buyer’s own order of the quotes is the order in which they are tried', () => {
  const bidder = new Bidder({ rank: ({ quotes }) => [...quotes].reverse() }).begin(['a', 'b']);
  bidder.answer('a', quoteOf('a', 100n));
  bidder.answer('b', quoteOf('b', 900n));
  bidder.weigh();
  expect(bidder.tried).toEqual([key('b').address]);
});

test.each([
  ['throws', 'market/ranking-failed', "the buyer's own ranking threw: no idea"],
  ['takes none', 'market/no-quotes', "the buyer's own ranking does not take any of the 2 quotes"],
])('a buyer’s own ranking that %s ends the job with a reason, and every quote is let go', (what, code, message) => {
  const rank = (): never[] => {
    if (what === 'throws') throw new Error('no idea');
    return [];
  };
  const bidder = new Bidder({ rank }).begin(['a', 'b']);
  bidder.answer('a', quoteOf('a', 100n));
  bidder.answer('b', quoteOf('b', 900n));
  bidder.weigh();
  expect(bidder.failure).toMatchObject({ code, message });
  expect(types(bidder.effects)).toContain('let-all-go');
  expect(bidder.tried).toEqual([]);
});

test('an offer that has expired since it was heard is not asked', () => {
  const bidder = new Bidder();
  const [kept, expired] = [
    verifiedOffer(key('a'), { expiresMs: NOW + 5_001 }),
    verifiedOffer(key('b'), { expiresMs: NOW + 5_000 }),
  ];
  const offers = [kept, expired];
  bidder.do({ type: 'begin', offers, bookSize: 2, peers: 1, addresses: [] }, 5_000);
  bidder.vouch(offers);
  bidder.do({ type: 'bid-signed', bid: BID }, 5_000);
  expect(bidder.state.asked).toEqual(new Set([kept.signer]));
});

describe('invented offers', () => {
  const real = ['a', 'b', 'c'].map((name) => verifiedOffer(key(name)));
  const invented = Array.from({ length: 1_000 }, (_, index) => verifiedOffer(key(`invented ${index}`)));
  const bidOver = (offers: readonly Verified<Message<Offer>>[]): Bidder => {
    const bidder = new Bidder();
    bidder.do({ type: 'begin', offers, bookSize: offers.length, peers: 1, addresses: [] });
    return bidder;
  };

  test('do not narrow the circle of those who are asked, where all were checked', () => {
    const bidder = bidOver([...invented.slice(0, 60), ...real]);
    bidder.vouch(real, 63);
    expect(bidder.state.bid?.content.distanceMax).toBe(U64_MAX);
    bidder.do({ type: 'bid-signed', bid: BID });
    expect(bidder.state.asked).toEqual(new Set(real.map(({ signer }) => signer)));
  });

  test('do not either where a sample is all that can be checked: a thousand of them leave three providers asked', () => {
    const bidder = bidOver([...invented, ...real]);
    bidder.vouch([], 100);
    expect(bidder.state.bid?.content.distanceMax).toBe(U64_MAX);
    const unlucky = bidOver([...invented, ...real]);
    unlucky.vouch(real, 100);
    expect(unlucky.state.bid?.content.distanceMax).toBe(U64_MAX);
  });

  test('a large market of real providers costs a bid as many answers as a small one', () => {
    const bidder = bidOver(invented);
    bidder.vouch(invented.slice(0, 100));
    const asked = (1_000 * Number(bidder.state.bid?.content.distanceMax)) / Number(U64_MAX);
    // Fifteen of what the sample leaves no doubt about.
    expect(Math.round(asked)).toBe(19);
  });

  test('where there are no others everybody is asked, and who was kept from the book may answer', () => {
    const bidder = bidOver(invented.slice(0, 5));
    bidder.vouch([], 5);
    bidder.do({ type: 'bid-signed', bid: BID });
    expect(bidder.state.asked.size).toBe(0);
    bidder.answer('a', quoteOf('a'));
    bidder.do({ type: 'time-up', bid: BID });
    bidder.weigh();
    expect(bidder.tried).toEqual([key('a').address]);
  });
});
