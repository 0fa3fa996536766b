/**
 * Goal: who pays for nothing cannot hold a provider's capacity, and who paid before always finds room. Method: the seller's
 * machine with bidders of every standing, event by event.
 */
import { describe, expect, it } from 'vitest';

import { type SellerState, createSeller, decideSeller } from '../../market/index.ts';
import type { BuyerStanding } from '../../market/index.ts';
import type { Address } from '../../protocol/address.ts';
import { MoltError } from '../../protocol/errors.ts';
import { NOW, SELLER_TERMS, address, key, verifiedBid } from './fixtures.ts';

const GIB = 2 ** 30;
/** Eight slots. */
const MACHINE = { cpuMillis: 8_000, memoryBytes: 8 * GIB, diskBytes: 8 * GIB };
const SECONDS = 600;
const AMOUNT = 1_000n * BigInt(SECONDS);
const LIFE_MS = 30_000;

class Provider {
  #state: SellerState = createSeller(MACHINE, { gpus: [], isDraining: false });
  #bids = 0;

  /** The name of the quote, or the refusal. */
  ask(
    standing: Partial<BuyerStanding> & { name: string },
    slots = 1,
    atMs = 0,
    hasRegulars = true,
  ): string | MoltError {
    const { name, ...known } = standing;
    const buyer = {
      budget: address(name),
      free: 10n ** 12n,
      capPerLease: 10n ** 12n,
      range: '',
      isKnown: false,
      ...known,
    };
    const need = { cpuMillis: slots * 1_000, memoryBytes: slots * GIB, diskBytes: slots * GIB, gpus: [] };
    const sealed = verifiedBid(key(`${name} ${this.#bids++}`), { need, durationSecondsMax: SECONDS });
    const bid = { ...sealed, expiresMs: NOW + atMs + 20_000 };
    const terms = { ...SELLER_TERMS, buyer, hasRegulars };
    for (const effect of this.#do({ type: 'bid', bid, terms }, atMs)) {
      if (effect.type === 'decline') return effect.reason;
      if (effect.type !== 'sign-quote') continue;
      const { content, header } = effect;
      const quote = { id: bid.id, buyer: bid.signer, content, bid: bid.content, bytes: new Uint8Array() };
      this.#do({ type: 'quote-signed', quote: { ...quote, expiresMs: header.expiresMs } }, atMs);
      return bid.id;
    }
    throw new Error('no answer');
  }

  end(quote: string | MoltError, atMs: number): void {
    this.#do({ type: 'quote-ended', quote: String(quote) }, atMs);
  }

  /** The buyer accepts, and the chain has the lease. */
  lease(quote: string | MoltError, atMs: number, funded = true): void {
    const open = this.#state.quotes.get(String(quote));
    if (open === undefined) throw quote instanceof MoltError ? quote : new Error('no such quote');
    const lease = address(String(quote));
    this.#do({ type: 'quote-accepted', quote: open.id, buyer: open.buyer, lease }, atMs);
    if (funded) this.#do({ type: 'lease-funded', lease }, atMs);
  }

  /** Whatever is leased or quoted ends. */
  finish(atMs: number): void {
    for (const name of this.#state.capacity.reservations.keys()) {
      this.#do({ type: 'lease-ended', lease: name as Address }, atMs);
    }
  }

  #do(event: Parameters<typeof decideSeller>[1], atMs: number) {
    const { state, effects } = decideSeller(this.#state, event, { nowMs: NOW + atMs, monotonicMs: atMs });
    this.#state = state;
    return effects;
  }
}

const isQuote = (answer: string | MoltError): boolean => typeof answer === 'string';
const quotes = (answers: readonly (string | MoltError)[]): number => answers.filter(isQuote).length;

describe('money', () => {
  it('a budget that cannot pay is held nothing', () => {
    const provider = new Provider();
    expect(provider.ask({ name: 'poor', free: AMOUNT - 1n })).toMatchObject({ code: 'chain/budget-empty' });
    expect(provider.ask({ name: 'bound', capPerLease: AMOUNT - 1n })).toMatchObject({ code: 'chain/budget-limit' });
    expect(isQuote(provider.ask({ name: 'able', free: AMOUNT, capPerLease: AMOUNT }))).toBe(true);
  });

  it('all holds of a budget together are no more than it has, however many of its delegates bid', () => {
    const provider = new Provider();
    const buyer = { name: 'one', free: 2n * AMOUNT, isKnown: true };
    const first = provider.ask(buyer);
    expect(quotes([first, provider.ask(buyer)])).toBe(2);
    expect(provider.ask(buyer)).toMatchObject({
      code: 'chain/budget-limit',
      message: expect.stringContaining('accept them or let go of them first'),
    });
    provider.end(first, 100);
    expect(isQuote(provider.ask(buyer, 1, 100))).toBe(true);
  });
});

describe('room', () => {
  it('a quarter of the machine stays out of reach of all strangers together, for those who paid before', () => {
    const provider = new Provider();
    const strangers = Array.from({ length: 8 }, (_, index) => provider.ask({ name: `stranger ${index}` }));
    expect(quotes(strangers)).toBe(6);
    expect(strangers.at(-1)).toMatchObject({
      code: 'market/no-capacity',
      message: 'buyers without history here hold as much as they may without a lease; bid again when quotes have ended',
    });
    expect(isQuote(provider.ask({ name: 'regular', isKnown: true }, 2))).toBe(true);
  });

  it('where nobody paid before, strangers may take it all', () => {
    const provider = new Provider();
    const answers = Array.from({ length: 8 }, (_, index) => provider.ask({ name: `${index}` }, 1, 0, false));
    expect(quotes(answers)).toBe(8);
  });

  it('bidders of one network hold half of the machine at most, others find room', () => {
    const provider = new Provider();
    const near = Array.from({ length: 8 }, (_, i) =>
      provider.ask({ name: `near ${i}`, range: '203.0.113' }, 1, 0, false),
    );
    expect(quotes(near)).toBe(4);
    expect(near.at(-1)).toMatchObject({ message: expect.stringMatching(/^bidders of your network hold as much/) });
    expect(isQuote(provider.ask({ name: 'far', range: '198.51.100' }, 4, 0, false))).toBe(true);
  });

  it('a job that needs the whole machine is quoted to a stranger when no other stranger holds any of it', () => {
    const provider = new Provider();
    const whole = provider.ask({ name: 'large', range: '203.0.113' }, 8);
    expect(isQuote(whole)).toBe(true);
  });
});

describe('time', () => {
  it('who lets quotes run out again and again waits, and is told how long; others do not', () => {
    const provider = new Provider();
    const squatter = { name: 'squatter' };
    for (let round = 0; round < 2; round++) {
      const whole = provider.ask(squatter, 8, round * LIFE_MS, false);
      provider.end(whole, (round + 1) * LIFE_MS);
    }
    expect(provider.ask(squatter, 8, 2 * LIFE_MS, false)).toMatchObject({
      code: 'market/no-capacity',
      message: 'your budget held as much as it may without a lease; bid again in 378 s',
    });
    const other = provider.ask({ name: 'other' }, 8, 2 * LIFE_MS, false);
    expect(isQuote(other)).toBe(true);
    provider.end(other, 2 * LIFE_MS);
    expect(isQuote(provider.ask(squatter, 8, 2 * LIFE_MS + 379_000, false))).toBe(true);
  });

  it.each([false, true])(
    'a few squatters with money that take turns soon hold next to nothing, if they paid once too: %s',
    (isKnown) => {
      const provider = new Provider();
      const held = [0, 0, 0, 0];
      for (let second = 0; second < 4 * 3_600; second += 60) {
        for (let squatter = 0; squatter < 8; squatter++) {
          const whole = provider.ask({ name: `squatter ${squatter}`, isKnown }, 8, second * 1_000, isKnown);
          if (!isQuote(whole)) continue;
          provider.end(whole, second * 1_000 + LIFE_MS - 1);
          const hour = Math.floor(second / 3_600);
          held[hour] = (held[hour] ?? 0) + LIFE_MS / 3_600_000;
          break;
        }
      }
      expect(held[3]).toBeGreaterThan(0);
      expect(held[3]).toBeLessThan(0.1);
      // Who is new finds the machine free.
      expect(isQuote(provider.ask({ name: 'new' }, 8, 4 * 3_600_000, isKnown))).toBe(true);
    },
  );

  it('a lease forgives half of what was held in vain', () => {
    const wait = (leases: boolean): number => {
      const provider = new Provider();
      const buyer = { name: 'buyer' };
      let atMs = 0;
      for (let quote = 0; quote < 4; quote++) {
        provider.end(provider.ask(buyer, 8, atMs, false), atMs + LIFE_MS);
        atMs += 3_600_000;
      }
      if (leases) {
        provider.lease(provider.ask(buyer, 8, atMs, false), atMs);
        provider.finish(atMs);
      }
      for (let quote = 0; quote < 2; quote++, atMs += LIFE_MS) {
        provider.end(provider.ask(buyer, 8, atMs, false), atMs + LIFE_MS);
      }
      return Number(/in (\d+) s/.exec(String(provider.ask(buyer, 8, atMs, false)))?.[1]);
    };
    expect(wait(true)).toBeLessThan(wait(false) / 1.5);
  });

  it('strangers that take turns hold a machine with one slot half of the time, and who paid before gets the rest', () => {
    const provider = new Provider();
    let heldMs = 0;
    for (let second = 0; second < 1_200; second++) {
      const whole = provider.ask({ name: `sybil ${second}` }, 8, second * 1_000);
      if (!isQuote(whole)) continue;
      provider.end(whole, (second + 30) * 1_000);
      heldMs += LIFE_MS;
      second += 29;
    }
    expect(heldMs / 1_200_000).toBeGreaterThan(0.45);
    expect(heldMs / 1_200_000).toBeLessThan(0.56);
    expect(isQuote(provider.ask({ name: 'regular', isKnown: true }, 8, 1_230_000))).toBe(true);
  });

  it('quotes that are let go of soon cost little: a buyer that compares prices bids on', () => {
    const provider = new Provider();
    for (let second = 0; second < 600; second += 5) {
      const quote = provider.ask({ name: 'comparing', range: '203.0.113' }, 2, second * 1_000);
      expect(isQuote(quote)).toBe(true);
      provider.end(quote, second * 1_000 + 1_500);
    }
  });

  it('a lease that opens costs nothing, one that is only co-signed counts on', () => {
    const provider = new Provider();
    const rounds = (isFunded: boolean): string | MoltError => {
      for (let round = 0; round < 4; round++) {
        const atMs = round * 25_000;
        provider.lease(provider.ask({ name: `${isFunded}` }, 8, atMs, false), atMs, isFunded);
        provider.finish(atMs + 24_000);
      }
      return provider.ask({ name: `${isFunded}` }, 8, 100_000, false);
    };
    expect(isQuote(rounds(true))).toBe(true);
    provider.finish(100_000);
    expect(() => rounds(false)).toThrow('your budget held as much as it may');
  });
});
