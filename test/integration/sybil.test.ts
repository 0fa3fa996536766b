/**
 * Goal: capacity is held only for who can pay, strangers with money cannot take all of it, and who paid before is served
 * on. Method: a local chain, a provider as a real process, and bidders with real budgets, and with none, that take quotes
 * and never accept or let go of one.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';

import { openOperator } from '../../node/operator/index.ts';
import { type Mesh, openMesh } from '../../node/mesh/index.ts';
import type { Address } from '../../protocol/address.ts';
import { type KeyPair, keyPairFromSeed } from '../../protocol/ed25519.ts';
import { sealEnvelope } from '../../protocol/envelope.ts';
import { encodeBid } from '../../protocol/messages.ts';
import { parseMolt } from '../../protocol/units.ts';
import { STREAMS, bidsTopic, decodeBidAnswer, meshName } from '../../protocol/wire.ts';
import { type JobEvent, connect } from '../../sdk/index.ts';
import { bidContent, offerBytes } from '../market/fixtures.ts';
import { until } from '../node/mesh/peers.ts';
import { type TestBuyer, type TestMarket, type TestProvider, openMarket, stepsJob } from './market.ts';

const GIB = 2 ** 30;
let market: TestMarket;
let provider: TestProvider;
let regular: TestBuyer;

beforeAll(async () => {
  market = await openMarket();
  // Eight slots of 100/1000 core.
  provider = await market.provider({ cpuMillis: 800, memoryBytes: 2 * GIB, diskBytes: 2 * GIB });
  regular = await market.buyer();
});

afterAll(async () => {
  await market?.[Symbol.asyncDispose]();
});

interface Bidder extends AsyncDisposable {
  readonly mesh: Mesh;
  /** Asks for `slots`; "quote", or the code of the refusal. The stream of a quote stays open. */
  bid(slots: number): Promise<string>;
}

/** Follows none of a buyer's manners: what it is quoted it keeps. */
async function openBidder(key: KeyPair, budget: Address): Promise<Bidder> {
  const { network } = market.chain;
  const mesh = await openMesh(market.env, {
    key,
    listen: ['/ip4/127.0.0.1/tcp/0'],
    bootstrap: [provider.address],
    mdns: false,
    role: 'light',
    network: meshName(network),
  });
  const answers = new Map<string, (answer: string) => void>();
  await mesh.handle(STREAMS.quote.protocol, STREAMS.quote, async (channel) => {
    for await (const frame of channel) {
      const { bid, declined } = decodeBidAnswer(frame);
      answers.get(Buffer.from(bid).toString('hex'))?.(declined === undefined ? 'quote' : declined.code);
    }
  });
  await until('the bidder is connected', () => mesh.peers().length > 0);
  let sequence = 0;
  return {
    mesh,
    bid: async (slots) => {
      const issuedMs = market.env.clock.now();
      sequence = Math.max(sequence + 1, issuedMs);
      const content = bidContent({
        need: { cpuMillis: slots * 100, memoryBytes: slots * 64 * 2 ** 20, diskBytes: slots * 64 * 2 ** 20, gpus: [] },
        durationSecondsMax: 60,
        pricePerSecondMax: parseMolt('0.1'),
        budget,
      });
      const header = { network, sequence, issuedMs, expiresMs: issuedMs + 20_000 };
      const { id, bytes } = sealEnvelope(key, 'bid', header, encodeBid(content));
      const answer = Promise.withResolvers<string>();
      answers.set(id, answer.resolve);
      await mesh.publish(bidsTopic(network, 'cpu'), bytes);
      return answer.promise;
    },
    [Symbol.asyncDispose]: () => mesh[Symbol.asyncDispose](),
  };
}

/**
 * So many strangers with money, each connected, bid for a slot one after the other: what they are answered. A quote is kept for
 * some seconds, so nothing slow stands between the first bid and the last.
 */
async function askAsStrangers(count: number, opened: AsyncDisposableStack): Promise<readonly string[]> {
  const bidders: Bidder[] = [];
  for (let index = 0; index < count; index++) {
    const { key, budget } = await market.buyer();
    bidders.push(opened.use(await openBidder(key, budget)));
  }
  const answers: string[] = [];
  for (const bidder of bidders) answers.push(await bidder.bid(1));
  return answers;
}

const newKey = (): KeyPair => keyPairFromSeed(market.env.random.bytes(32));

test('who names no budget, or one that is not his, is told so and held nothing', async () => {
  await using penniless = await openBidder(newKey(), newKey().address);
  expect(await penniless.bid(8)).toBe('chain/account-missing');
  await using thief = await openBidder(newKey(), regular.budget);
  expect(await thief.bid(8)).toBe('chain/budget-limit');
  const poor = await market.buyer({ deposit: '0.000001' });
  await using _connected = await openBidder(poor.key, poor.budget);
  expect(await _connected.bid(8)).toBe('chain/budget-empty');
});

test('strangers with money hold three quarters at most, and a buyer that paid before gets its job done meanwhile', async () => {
  const molt = await regular.connect();
  const job = async () => ({
    ...(await stepsJob(market, molt, 1)),
    resources: { cpuMillis: 200, memoryBytes: GIB / 2 },
  });
  await molt.run(await job(), { maxPrice: '5' });
  await using strangers = new AsyncDisposableStack();
  const answers = await askAsStrangers(8, strangers);
  expect(answers.filter((answer) => answer === 'quote')).toHaveLength(6);
  expect(answers.slice(-2)).toEqual(['market/no-capacity', 'market/no-capacity']);
  const result = await molt.run(await job(), { maxPrice: '5' });
  expect(result.exitCode).toBe(0);
});

test('a thousand invented offers keep no provider from being asked', async () => {
  const liars = Array.from({ length: 1_000 }, newKey);
  const { network } = market.chain;
  await using liar = await openMesh(market.env, {
    key: newKey(),
    listen: ['/ip4/127.0.0.1/tcp/0'],
    bootstrap: [],
    mdns: false,
    role: 'node',
    network: meshName(network),
  });
  await using _served = await liar.handle(STREAMS.offers.protocol, STREAMS.offers, async (channel) => {
    const issuedMs = market.env.clock.now();
    const free = { cpuMillis: 64_000, memoryBytes: 2 ** 38, diskBytes: 2 ** 38, gpus: [] };
    for (const key of liars) await channel.send(offerBytes(key, { network, issuedMs, sequence: issuedMs }, { free }));
  });
  const { key, budget } = await market.buyer();
  const bootstrap = [...liar.addresses, provider.address];
  const molt = await connect({ rpcUrl: market.rpcUrl, key, budget, bootstrap });
  try {
    await until('the book is full of inventions, and tells that the strangers have left', async () => {
      const offers = await molt.offers();
      const honest = offers.find((offer) => offer.provider === provider.account.account);
      return offers.length > 1_000 && (honest?.free.cpuMillis ?? 0) >= 200;
    });
    const heard: JobEvent[] = [];
    const job = { ...(await stepsJob(market, molt, 1)), resources: { cpuMillis: 200, memoryBytes: GIB / 2 } };
    const result = await molt.run(job, { maxPrice: '5', onEvent: (event) => heard.push(event) });
    expect(result.exitCode).toBe(0);
    expect(heard.find((event) => event.type === 'offers')?.count).toBeGreaterThan(1_000);
    // As many as were heard say nothing about how many there are.
    const [bid] = heard.filter((event) => event.type === 'bid');
    expect(bid?.asked).toContain(result.node);
  } finally {
    await molt.close();
  }
});

test('who paid before is known after a restart, and what became of earlier bids is still told', async () => {
  // The record is written every five seconds.
  await new Promise((resolve) => setTimeout(resolve, 6_000));
  await provider.kill();
  await provider.start();
  await using strangers = new AsyncDisposableStack();
  const answers = await askAsStrangers(7, strangers);
  expect(answers).toEqual([...Array.from({ length: 6 }, () => 'quote'), 'market/no-capacity']);
  await using operator = await openOperator(market.env, provider.home);
  const explained = await operator.market();
  expect(explained?.headline).toMatch(/^\d+ bids heard since \d{4}-\d\d-\d\d \d\d:\d\d UTC, over 1 restart, /);
  expect(explained?.reasons.map(({ what }) => what)).toContain('chain/account-missing');
});
