/**
 * Goal: a buyer that has only just joined does not give up while those who could do its job are still being heard of.
 * Method: the real bidding of a buyer whose book, mesh and chain are by hand; each provider answers as soon as it hears a bid.
 */
import { beforeEach, expect, test } from 'vitest';

import { createBook } from '../../market/index.ts';
import { decodeEnvelope, verifyEnvelope } from '../../protocol/envelope.ts';
import { type Clock, systemEnv } from '../../protocol/env.ts';
import { MoltError, type ErrorCode } from '../../protocol/errors.ts';
import { parseJobSpec } from '../../protocol/job-spec.ts';
import { type Offer, decodeBid, decodeOffer, encodeQuote } from '../../protocol/messages.ts';
import { baseUnits } from '../../protocol/units.ts';
import { toRefusal } from '../../protocol/wire.ts';
import type { AnswerRoute } from '../../sdk/answers.ts';
import { buyJob } from '../../sdk/bidding.ts';
import type { Buyer } from '../../sdk/buyer.ts';
import type { JobEvent } from '../../sdk/progress.ts';
import { NETWORK, SMALL, address, key, offerBytes, quoteContent, seal } from '../market/fixtures.ts';

const env = systemEnv();
const MODULE = 'bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy';
const spec = parseJobSpec({ runtime: 'wasm', image: MODULE, maxDurationSeconds: 100 });
/** Waits for quotes are longer. */
const POLL_MS_MAX = 200;
const HOUR_MS = 3_600_000;
const NO_ROOM = { ...SMALL, cpuMillis: 0 };
const providerOf = (name: string) => address(`provider of ${key(name).address}`);

/** What a provider says to a bid: a quote, or why not. */
type Says = 'quote' | ErrorCode;

class Market {
  readonly book = createBook({ offersMax: 10 });
  readonly events: JobEvent[] = [];
  /** Called with the number of each bid, once all who are there have answered it. */
  onBid: (number: number) => void = () => undefined;
  /** Called whenever the buyer waits for more offers. */
  onWait: () => void = () => undefined;
  readonly #routes = new Map<string, AnswerRoute>();
  readonly #says = new Map<string, Says>();
  #bids = 0;

  offer(name: string, says: Says, changes: Partial<Offer> = {}): void {
    const nowMs = env.clock.now();
    const bytes = offerBytes(key(name), { issuedMs: nowMs, sequence: nowMs + this.#says.size }, changes);
    this.book.put(verifyEnvelope(decodeOffer(decodeEnvelope('offer', bytes, { network: NETWORK, nowMs }))));
    this.#says.set(name, says);
  }

  /** A buyer that connected so long ago. */
  run(joinedMsAgo = 0, signal = new AbortController().signal): Promise<string> {
    const { book } = this;
    const account = (provider: unknown) => {
      const name = [...this.#says.keys()].find((one) => providerOf(one) === provider) ?? '';
      const none = { settledCount: 0n, settledAmount: 0n, feesBurned: 0n, faults: 0n, faultAmount: 0n };
      return { operator: key(name).address, stake: baseUnits(10n ** 12n), reserved: baseUnits(0n), ...none };
    };
    const sleep: Clock['sleep'] = (ms, signal) => {
      if (ms <= POLL_MS_MAX) this.onWait();
      return env.clock.sleep(ms, signal);
    };
    const buyer = {
      env: { ...env, clock: { ...env.clock, sleep } },
      key: key('buyer'),
      joinedMs: env.clock.monotonic() - joinedMsAgo,
      sequence: 0,
      feed: { book },
      mesh: { peers: () => [], addresses: [], publish: async (_topic: string, bytes: Uint8Array) => this.#hear(bytes) },
      chain: { network: NETWORK },
      chainClock: env.clock,
      journal: { bids: [], keepBid: () => undefined },
      waitForOffers: async () => undefined,
      vouch: async () => ({ checked: book.size, genuine: new Set(book.list().map(({ signer }) => signer)) }),
      bidTurn: async () => undefined,
      budget: async () => ({ free: 10n ** 12n, capPerLease: 10n ** 12n }),
      providerAccount: async (provider: unknown) => account(provider),
      draw: () => 0,
      routeAnswers: (bid: string, route: AnswerRoute) => {
        this.#routes.set(bid, route);
        return () => this.#routes.delete(bid);
      },
    } as unknown as Buyer;
    return buyJob(buyer, {
      order: { spec, budget: address('budget'), maxPrice: baseUnits(1_000_000n) },
      attempt: async (quote) => quote.signer,
      tell: (event) => this.events.push(event),
      signal,
    });
  }

  get bids(): number {
    return this.events.filter(({ type }) => type === 'bid').length;
  }

  #hear(bytes: Uint8Array): void {
    const nowMs = env.clock.now();
    const bid = decodeBid(decodeEnvelope('bid', bytes, { network: NETWORK, nowMs }));
    for (const [name, says] of this.#says) {
      const body = quoteContent({
        bid: bid.id,
        provider: providerOf(name),
        amount: baseUnits(100_000n),
        reserve: baseUnits(0n),
        openBeforeMs: Math.ceil(nowMs / 1000) * 1000 + 30_000,
        finishByMs: Math.ceil(nowMs / 1000) * 1000 + 250_000,
      });
      const quote = seal(key(name), 'quote', encodeQuote(body), { issuedMs: nowMs });
      const declined = says === 'quote' ? undefined : toRefusal(new MoltError(says, `${name} takes no more`));
      const content = { bid: Buffer.from(bid.id, 'hex'), ...(declined === undefined ? { quote } : { declined }) };
      this.#routes.get(bid.id)?.({ from: key(name).address, content, letGo: async () => undefined });
    }
    this.onBid(++this.#bids);
  }
}

let market: Market;
beforeEach(() => {
  market = new Market();
});

test('a newcomer whose bid all decline waits for more offers, and bids again when one comes', async () => {
  market.offer('full', 'market/no-capacity');
  market.onWait = () => market.offer('free', 'quote');
  expect(await market.run()).toBe(key('free').address);
  expect(market.bids).toBe(2);
});

test('one that is told of room by the provider that had none bids again', async () => {
  market.offer('full', 'market/no-capacity', { free: NO_ROOM });
  market.onBid = (number) => {
    if (number === 1) market.offer('full', 'quote');
  };
  expect(await market.run()).toBe(key('full').address);
  expect(market.bids).toBe(2);
});

test('one that hears of nobody else is told why all declined, after one bid', async () => {
  market.offer('full', 'market/no-capacity');
  // What says again that it has room, and what could not do the job, is nobody else.
  market.onBid = () => {
    market.offer('full', 'market/no-capacity');
    market.offer('other', 'quote', { runtimes: ['container'] });
    market.offer('dear', 'quote', {
      prices: { base: baseUnits(10n ** 9n), perCpu: baseUnits(0n), perGib: baseUnits(0n), perGpu: baseUnits(0n) },
    });
  };
  await expect(market.run()).rejects.toMatchObject({
    code: 'market/no-capacity',
    message: expect.stringContaining('full takes no more'),
  });
  expect(market.bids).toBe(1);
});

test('the second bid is the last: whoever declines it too is told of', async () => {
  market.offer('full', 'market/no-capacity');
  market.onBid = (number) => market.offer(`full too ${number}`, 'market/no-capacity');
  await expect(market.run()).rejects.toMatchObject({ code: 'market/no-capacity', context: { declined: 2 } });
  expect(market.bids).toBe(2);
});

test('a buyer that has long been there does not wait, but bids again where another was heard of meanwhile', async () => {
  market.offer('full', 'market/no-capacity');
  market.onWait = () => market.offer('late', 'quote');
  await expect(market.run(HOUR_MS)).rejects.toMatchObject({ code: 'market/no-capacity' });
  market.onBid = () => market.offer('free', 'quote');
  expect(await market.run(HOUR_MS)).toBe(key('free').address);
});

test('a job that is cancelled while all decline is not bid for again', async () => {
  const cancelling = new AbortController();
  market.offer('full', 'market/no-capacity');
  market.onWait = () => cancelling.abort();
  await expect(market.run(0, cancelling.signal)).rejects.toMatchObject({ code: 'job/cancelled' });
  expect(market.bids).toBe(1);
});
