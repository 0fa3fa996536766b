/**
 * Goal: a provider is told why it does not earn and what would have won, word by word. Method: the events of its trade
 * folded, and the text of that, with other offers beside its own.
 */
import { expect, test } from 'vitest';

import {
  type SalesEvent,
  type SalesSituation,
  createSales,
  resumeSales,
  explainSales,
  recordSale,
  refusal,
} from '../../market/index.ts';
import type { Bid, Offer } from '../../protocol/messages.ts';
import { baseUnits } from '../../protocol/units.ts';
import { NOW, key, verifiedBid, verifiedOffer } from './fixtures.ts';

const MINUTE = 60_000;
const self = key('self');
const bidOf = (name: string, changes: Partial<Bid> = {}) => verifiedBid(key(name), changes);

function situation(changes: Partial<SalesSituation> = {}, others: readonly Partial<Offer>[] = []): SalesSituation {
  const offers = [
    verifiedOffer(self),
    ...others.map((offer, index) => verifiedOffer(key(`other ${index}`), {}, offer)),
  ];
  return { self: self.address, draining: false, peers: 4, offers, nowMs: NOW + 12 * MINUTE, ...changes };
}

const explained = (events: readonly SalesEvent[], around: SalesSituation = situation()) =>
  explainSales(
    events.reduce((record, event) => recordSale(record, event, NOW), createSales(NOW)),
    around,
  );

/** A bid that was declined. */
function declined(name: string, reason: ReturnType<typeof refusal>, changes: Partial<Bid> = {}): SalesEvent[] {
  const bid = bidOf(name, changes);
  return [
    { type: 'asked', bid },
    { type: 'declined', bid: bid.id, reason },
  ];
}

function quoted(name: string, price: bigint, end: 'lost' | 'won'): SalesEvent[] {
  const bid = bidOf(name);
  return [
    { type: 'asked', bid },
    { type: 'quoted', bid: bid.id, pricePerSecond: price },
    { type: end, bid: bid.id },
  ];
}

test.each<[string, readonly SalesEvent[], Partial<SalesSituation>, readonly string[]]>([
  ['hears no bid', [], {}, ['no buyer has bid where this node listens: nothing was wanted of its class and region']],
  [
    'is not asked',
    [{ type: 'not-asked' }],
    {},
    [
      'every bid asked others: each asks only the closest few of those whose offers suit; a lower price or more room suits more',
    ],
  ],
  ['has no peer', [], { peers: 0 }, ['no peer is connected: name one in bootstrap, and see molt doctor']],
  [
    'drains',
    [],
    { draining: true },
    [
      'the node drains and offers nothing: molt drain --undo sells again',
      'no buyer has bid where this node listens: nothing was wanted of its class and region',
    ],
  ],
  [
    'has no offer',
    declined('a', refusal('market/draining', 'x')),
    { offers: [] },
    ['no offer of this node is live: see molt doctor'],
  ],
])('a provider that %s is told what to look at', (_what, events, around, obstacles) => {
  expect(explained(events, situation(around)).obstacles).toEqual(obstacles);
});

test('every end of a bid is counted', () => {
  const events = [
    { type: 'not-asked' } as const,
    ...quoted('a', 1_000n, 'won'),
    ...quoted('b', 1_000n, 'lost'),
    ...declined('c', refusal('market/no-capacity', '2 CPU cores needed, 1 free')),
    { type: 'asked', bid: bidOf('d') } as const,
  ];
  expect(explained(events)).toEqual({
    headline: '5 bids heard in 12 min, 4 asked this provider: 1 declined, 2 quoted, 1 won',
    obstacles: [],
    reasons: [
      {
        what: 'market/no-capacity',
        bids: 1,
        text: '1 bid was declined for want of room, last: 2 CPU cores needed, 1 free',
      },
      {
        what: 'lost',
        bids: 1,
        text: '1 quote was not taken, though no live offer asks less: buyers weigh history, stake, speed for the price and warmth too',
      },
      {
        what: 'silent',
        bids: 1,
        text: '1 bid got no answer out: the buyer could not be reached, or is being answered now',
      },
    ],
  });
});

const under = (name: string, ask: bigint, paid: bigint) =>
  declined(name, refusal('market/price-too-low', 'x', ask), { pricePerSecondMax: baseUnits(paid) });

test.each<[string, readonly SalesEvent[], string]>([
  [
    'price',
    [...under('a', 1_000n, 800n), ...under('b', 2_000n, 1_600n), ...under('c', 1_000n, 449n)],
    '3 bids were declined for the price: asking 20 % less would have got 2 of them a quote, 56 % less all 3',
  ],
  [
    'price, but for one that pays next to nothing',
    [...under('a', 1_000n, 800n), ...under('b', 1_000n, 300n), ...under('c', 1_000n, 1n)],
    '3 bids were declined for the price: asking 20 % less would have got one of them a quote, 70 % less 2 of them',
  ],
  [
    'a price that nobody can ask',
    under('a', 1_000n, 1n),
    '1 bid was declined for the price: they would have paid less than a tenth of what you ask',
  ],
  [
    'one price',
    under('a', 1_000n, 800n),
    '1 bid was declined for the price: asking 20 % less would have got one of them a quote',
  ],
  [
    'length',
    [
      ...declined('a', refusal('market/duration-too-long', 'x'), { durationSecondsMax: 700 }),
      ...declined('b', refusal('market/duration-too-long', 'x'), { durationSecondsMax: 900 }),
    ],
    '2 bids were declined for length: durationSecondsMax of 900 would have taken all',
  ],
  [
    'size',
    declined('a', refusal('market/lease-too-small', 'x'), { durationSecondsMax: 10 }),
    '1 bid was declined for size: the smallest would have paid at most 0.02 MOLT, which leaseAmountMin rules out',
  ],
  [
    'stake',
    declined('a', refusal('chain/stake-too-low', '5 MOLT must stand behind it, 1 MOLT are free')),
    '1 bid was declined for want of stake, last: 5 MOLT must stand behind it, 1 MOLT are free; molt stake adds some',
  ],
  [
    'hours',
    declined('a', refusal('market/closed', 'it is closed at mon-fri 09:00-17:00 (UTC)')),
    '1 bid was declined (market/closed), last: it is closed at mon-fri 09:00-17:00 (UTC)',
  ],
])('bids declined for %s are added up to what would have won them', (_what, events, text) => {
  expect(explained(events).reasons.map((reason) => reason.text)).toEqual([text]);
});

test('quotes that were not taken are held against the live offers that could have done the job', () => {
  const cheaper = {
    prices: { base: baseUnits(600n), perCpu: baseUnits(0n), perGib: baseUnits(0n), perGpu: baseUnits(0n) },
  };
  const around = situation({}, [cheaper, { ...cheaper, runtimes: [] }]);
  expect(explained([...quoted('a', 1_000n, 'lost'), ...quoted('b', 500n, 'lost')], around).reasons).toEqual([
    {
      what: 'lost',
      bids: 2,
      text: '2 quotes were not taken: others ask less now for 1 of these; 40 % less would be the lowest price for all of them',
    },
  ]);
});

test('only the last bids are remembered, and how many there were is', () => {
  const events = Array.from({ length: 300 }, (_, index) => ({ type: 'asked', bid: bidOf(`many ${index}`) }) as const);
  expect(explained(events).headline).toBe(
    '300 bids heard in 12 min, 300 asked this provider; of the last 256: 0 declined, 0 quoted, 0 won',
  );
});

test('the record goes on after a restart and says from when; what was quoted then is lost, and old records are dropped', () => {
  const bid = verifiedBid(key('buyer'));
  const before = [
    { type: 'asked' as const, bid },
    { type: 'quoted' as const, bid: bid.id, pricePerSecond: 1_000n },
    { type: 'not-asked' as const },
  ].reduce((record, event) => recordSale(record, event, NOW), createSales(NOW));
  // As it comes back from the journal.
  const kept = JSON.parse(JSON.stringify(before)) as typeof before;
  const resumed = resumeSales(kept, NOW + 3_600_000);
  expect(resumed).toMatchObject({ sinceMs: NOW, restarts: 1, notAsked: 1, sales: [{ bid: bid.id, outcome: 'lost' }] });
  const situation = { self: key('self').address, draining: false, peers: 1, offers: [], nowMs: NOW + 7_200_000 };
  expect(explainSales(resumed, situation).headline).toBe(
    '2 bids heard since 2027-01-15 08:00 UTC, over 1 restart, 1 asked this provider: 0 declined, 1 quoted, 0 won',
  );
  const month = 31 * 86_400_000;
  expect(resumeSales(kept, NOW + month)).toEqual(createSales(NOW + month));
  expect(resumeSales(undefined, NOW)).toEqual(createSales(NOW));
});
