/** Goal: a provider keeps what it promises and promises nothing twice. Method: the machine alone, event by event. */
import { expect, test } from 'vitest';

import {
  type OpenQuote,
  type SellerEffect,
  type SellerEvent,
  type SellerState,
  createSeller,
  decideSeller,
  freeResources,
} from '../../market/index.ts';
import type { Verified } from '../../protocol/brands.ts';
import { MoltError } from '../../protocol/errors.ts';
import type { Bid, Message } from '../../protocol/messages.ts';
import { baseUnits } from '../../protocol/units.ts';
import { NOW, SELLER_TERMS, SMALL, address, key, verifiedBid } from './fixtures.ts';

const at = (afterMs = 0) => ({ nowMs: NOW + afterMs, monotonicMs: afterMs });

class Seller {
  state: SellerState = createSeller(SMALL, { gpus: [], isDraining: false });

  do(event: SellerEvent, afterMs = 0): readonly SellerEffect[] {
    const { state, effects } = decideSeller(this.state, event, at(afterMs));
    this.state = state;
    return effects;
  }

  /** Hears a bid and signs what it wants signed; the id of the quote, or the code of the refusal. */
  answer(bid: Verified<Message<Bid>>, afterMs = 0): string {
    for (const effect of this.do({ type: 'bid', bid, terms: SELLER_TERMS }, afterMs)) {
      if (effect.type === 'decline') return effect.reason.code;
      if (effect.type === 'sign-quote') {
        this.do({ type: 'quote-signed', quote: signed(effect) }, afterMs);
        return `quote ${bid.id}`;
      }
    }
    return 'silence';
  }
}

function signed({ bid, content, header }: SellerEffect & { type: 'sign-quote' }): Omit<OpenQuote, 'gpus'> {
  const { expiresMs } = header;
  return { id: `quote ${bid.id}`, buyer: bid.signer, content, bid: bid.content, expiresMs, bytes: new Uint8Array() };
}

const bidOf = (name: string, changes: Partial<Bid> = {}) => verifiedBid(key(name), changes);
const types = (effects: readonly SellerEffect[]) => effects.map(({ type }) => type);
const lease = address('lease');

test('the machine with one slot quotes one bid, and the other hears that there is no capacity', () => {
  const seller = new Seller();
  expect(seller.answer(bidOf('a'))).toMatch(/^quote/);
  expect(seller.answer(bidOf('b'))).toBe('market/no-capacity');
});

test('capacity is held from before the signature on, so a bid that comes in between is declined', () => {
  const seller = new Seller();
  const effects = seller.do({ type: 'bid', bid: bidOf('a'), terms: SELLER_TERMS });
  expect(types(effects)).toEqual(['keep-sequence', 'sign-quote']);
  expect(seller.answer(bidOf('b'))).toBe('market/no-capacity');
});

test('where the provider has a check of its own, a quote is signed after it, and capacity is held meanwhile', () => {
  const seller = new Seller();
  const bid = bidOf('a');
  const [asked, ...rest] = seller.do({ type: 'bid', bid, terms: { ...SELLER_TERMS, needsApproval: true } });
  if (asked?.type !== 'check-bid') throw new Error('expected a check');
  expect(rest).toEqual([]);
  expect(seller.answer(bidOf('b'))).toBe('market/no-capacity');
  const effects = seller.do({ type: 'bid-checked', bid, content: asked.content, refused: undefined }, 500);
  expect(types(effects)).toEqual(['keep-sequence', 'sign-quote']);
});

test.each<[string, MoltError | undefined, number, boolean, string]>([
  ['says no', new MoltError('market/not-approved', 'no'), 500, false, 'no'],
  ['comes too late', undefined, 30_000, false, "the provider's own check came too late for this bid"],
  ['comes while draining', undefined, 500, true, "the provider's own check came too late for this bid"],
])('a check that %s declines and frees what was held', (...[, refused, afterMs, drains, message]) => {
  const seller = new Seller();
  const bid = bidOf('a');
  const [asked] = seller.do({ type: 'bid', bid, terms: { ...SELLER_TERMS, needsApproval: true } });
  if (asked?.type !== 'check-bid') throw new Error('expected a check');
  if (drains) seller.do({ type: 'draining', on: true });
  const effects = seller.do({ type: 'bid-checked', bid, content: asked.content, refused }, afterMs);
  expect(effects).toMatchObject([{ type: 'decline', reason: { code: 'market/not-approved', message } }]);
  expect(seller.state.capacity.reservations.size).toBe(0);
});

test('a quote that cannot be signed holds nothing', () => {
  const seller = new Seller();
  const bid = bidOf('a');
  seller.do({ type: 'bid', bid, terms: SELLER_TERMS });
  seller.do({ type: 'quote-unsigned', bid: bid.id });
  expect(freeResources(seller.state.capacity, NOW)).toEqual(SMALL);
});

test('a quote whose signature took longer than its life is not sent', () => {
  const seller = new Seller();
  const [, sign] = seller.do({ type: 'bid', bid: bidOf('a'), terms: SELLER_TERMS });
  if (sign?.type !== 'sign-quote') throw new Error('expected a quote to sign');
  expect(seller.do({ type: 'quote-signed', quote: signed(sign) }, 30_000)).toEqual([]);
  expect(seller.state.quotes.size).toBe(0);
});

test('the stake of open quotes is taken off what is free, so that the same stake stands behind one of them', () => {
  const seller = new Seller();
  seller.state = createSeller(
    { ...SMALL, cpuMillis: 2_000, memoryBytes: 2 ** 31, diskBytes: 2 ** 31 },
    { gpus: [], isDraining: false },
  );
  const needed = (1000n * 600n) / 10n;
  const terms = { ...SELLER_TERMS, provider: { ...SELLER_TERMS.provider, freeStake: baseUnits(needed) } };
  expect(types(seller.do({ type: 'bid', bid: bidOf('a'), terms }))).toContain('sign-quote');
  const [declined] = seller.do({ type: 'bid', bid: bidOf('b'), terms });
  expect(declined).toMatchObject({ type: 'decline', reason: { code: 'chain/stake-too-low' } });
});

test.each([
  ['quote-ended', 'let-go'],
  ['quote-expired', 'expired'],
] as const)('after %s the capacity is free, the hold is told as %s once, and an offer follows', (type, reason) => {
  const seller = new Seller();
  const quote = seller.answer(bidOf('a'));
  seller.do({ type: 'offer-due' }, 250);
  const effects = seller.do({ type, quote }, 1_000);
  expect(effects[0]).toMatchObject({ type: 'release-quote', reason });
  expect(effects[1]).toEqual({ type: 'offer-later', waitMs: 4_250 });
  expect(seller.do({ type, quote }, 1_000)).toEqual([]);
  expect(freeResources(seller.state.capacity, NOW)).toEqual(SMALL);
});

test('no offer follows quotes that were let go before it was due, and one follows any other change', () => {
  const seller = new Seller();
  seller.do({ type: 'opened', sequence: 1 });
  const due = (atMs: number, ...changes: readonly SellerEvent[]): string[] => {
    seller.do({ type: 'quote-ended', quote: seller.answer(bidOf(`due at ${atMs}`)) });
    for (const change of changes) seller.do(change);
    return types(seller.do({ type: 'offer-due' }, atMs));
  };
  expect(due(5_000)).toEqual([]);
  expect(due(5_000, { type: 'offer-changed' })).toContain('publish-offer');
  expect(due(10_000)).toEqual([]);
  expect(due(10_000, { type: 'lease-ended', lease })).toContain('publish-offer');
  seller.answer(bidOf('held'));
  expect(types(seller.do({ type: 'offer-due' }, 15_000))).toContain('publish-offer');
});

test('a bid that does not ask this provider is answered with silence', () => {
  const seller = new Seller();
  expect(seller.do({ type: 'bid', bid: bidOf('a', { distanceMax: 0n }), terms: SELLER_TERMS })).toEqual([]);
});

test('an accepted quote is a lease for its own buyer, once, and keeps the capacity past the life of the quote', () => {
  const seller = new Seller();
  const quote = seller.answer(bidOf('a'));
  const accept = (name: string) =>
    seller.do({ type: 'quote-accepted', quote, buyer: key(name).address, lease })[0] ?? { type: 'nothing' };
  expect(accept('b')).toMatchObject({ type: 'refuse-lease', reason: { code: 'protocol/wrong-signer' } });
  expect(accept('a')).toMatchObject({ type: 'take-lease', lease });
  expect(accept('a')).toMatchObject({ type: 'refuse-lease', reason: { code: 'market/quote-unknown' } });
  seller.do({ type: 'quote-ended', quote }, 1_000);
  expect(freeResources(seller.state.capacity, NOW + 10 ** 9).cpuMillis).toBe(0);
  seller.do({ type: 'lease-ended', lease }, 60_000);
  expect(freeResources(seller.state.capacity, NOW + 60_000)).toEqual(SMALL);
});

test('an expired quote is not accepted even while its hold has not been cleared', () => {
  const seller = new Seller();
  const quote = seller.answer(bidOf('a'));
  const [effect] = seller.do({ type: 'quote-accepted', quote, buyer: key('a').address, lease }, 30_000);
  expect(effect).toMatchObject({ type: 'refuse-lease', reason: { code: 'market/quote-unknown' } });
});

test('every signed number was kept before it, and after a crash none comes again', () => {
  const numbers: number[] = [];
  let kept = 0;
  const live = (seller: Seller, effects: readonly SellerEffect[]) => {
    for (const effect of effects) {
      if (effect.type === 'keep-sequence') kept = effect.upTo;
      if (effect.type === 'publish-offer') {
        expect(effect.header.sequence).toBeLessThanOrEqual(kept);
        numbers.push(effect.header.sequence);
      }
    }
  };
  // The clock of the second life runs behind the first's, as after a bad shutdown.
  for (const startMs of [0, -30_000]) {
    const seller = new Seller();
    live(seller, seller.do({ type: 'opened', sequence: kept }, startMs));
    for (let round = 1; round <= 10; round++)
      live(seller, seller.do({ type: 'offer-repeat' }, startMs + round * 20_000));
  }
  expect(numbers).toHaveLength(22);
  expect([...new Set(numbers)].sort((a, b) => a - b)).toEqual(numbers);
});

test('an offer is not repeated right after another, so that peers have room left for a withdrawal', () => {
  const seller = new Seller();
  seller.do({ type: 'opened', sequence: 1 });
  expect(types(seller.do({ type: 'offer-repeat' }, 4_999))).toEqual([]);
  expect(types(seller.do({ type: 'offer-repeat' }, 5_000))).toContain('publish-offer');
});

test('a change that a repetition has told is not told again, and one after it waits its time', () => {
  const seller = new Seller();
  seller.do({ type: 'opened', sequence: 1 });
  expect(seller.do({ type: 'offer-changed' }, 19_000)).toEqual([{ type: 'offer-later', waitMs: 250 }]);
  expect(types(seller.do({ type: 'offer-repeat' }, 19_249))).toContain('publish-offer');
  expect(seller.do({ type: 'offer-due' }, 19_250)).toEqual([]);
  expect(seller.do({ type: 'offer-changed' }, 20_000)).toEqual([{ type: 'offer-later', waitMs: 4_249 }]);
  expect(seller.do({ type: 'offer-due' }, 20_001)).toEqual([{ type: 'offer-later', waitMs: 4_248 }]);
  expect(types(seller.do({ type: 'offer-due' }, 24_249))).toContain('publish-offer');
  expect(seller.do({ type: 'offer-due' }, 24_249)).toEqual([]);
});

test('a restored lease has its capacity before the first offer says what is free', () => {
  const seller = new Seller();
  seller.do({ type: 'lease-restored', lease, need: SMALL, gpus: [], stake: 0n });
  const effects = seller.do({ type: 'opened', sequence: 5 });
  expect(effects.find(({ type }) => type === 'publish-offer')).toMatchObject({ free: { cpuMillis: 0 } });
});

test('a closed seller withdraws its offer, then offers and quotes nothing more', () => {
  const seller = new Seller();
  expect(seller.do({ type: 'closed' }).at(-1)).toMatchObject({ type: 'publish-offer', revoked: true });
  expect(seller.answer(bidOf('a'))).toBe('market/draining');
  expect(seller.do({ type: 'offer-due' })).toEqual([]);
  expect(seller.do({ type: 'offer-repeat' })).toEqual([]);
});

test('a draining seller withdraws its offer, voids open quotes, and quotes again when it is told to', () => {
  const seller = new Seller();
  const quote = seller.answer(bidOf('a'));
  const effects = seller.do({ type: 'draining', on: true });
  expect(effects[0]).toMatchObject({ type: 'release-quote', quote: { id: quote } });
  expect(effects.at(-1)).toMatchObject({ type: 'publish-offer', revoked: true, free: SMALL });
  const [refused] = seller.do({ type: 'quote-accepted', quote, buyer: key('a').address, lease });
  expect(refused).toMatchObject({ type: 'refuse-lease', reason: { code: 'market/draining' } });
  expect(seller.answer(bidOf('b'))).toBe('market/draining');
  expect(seller.do({ type: 'offer-repeat' })).toEqual([]);
  expect(seller.do({ type: 'draining', on: false }).at(-1)).toMatchObject({ type: 'publish-offer', revoked: false });
  expect(seller.answer(bidOf('c'))).toMatch(/^quote/);
});

test('a quote whose signature comes when the provider drains is not sent and holds nothing', () => {
  const seller = new Seller();
  const sign = seller.do({ type: 'bid', bid: bidOf('a'), terms: SELLER_TERMS }).at(-1);
  if (sign?.type !== 'sign-quote') throw new Error('expected a quote to sign');
  seller.do({ type: 'draining', on: true });
  expect(seller.do({ type: 'quote-signed', quote: signed(sign) })).toEqual([]);
  expect(freeResources(seller.state.capacity, NOW)).toEqual(SMALL);
});
