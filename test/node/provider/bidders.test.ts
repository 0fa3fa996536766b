/**
 * Goal: one stream carries all answers to a bidder, and each quote is held exactly until it is let go. Method: a real
 * mesh on loopback between the two ends, `Bidders` and `takeAnswers`; where a bidder lies, its frames are sent by hand.
 */
import { afterEach, beforeEach, expect, test } from 'vitest';

import type { Channel } from '../../../market/ports.ts';
import { type Mesh, openMesh } from '../../../node/mesh/index.ts';
import { type Asker, Bidders } from '../../../node/provider/bidders.ts';
import { keyPairFromSeed } from '../../../protocol/ed25519.ts';
import { type Env, systemEnv } from '../../../protocol/env.ts';
import { MoltError } from '../../../protocol/errors.ts';
import { BidAnswer, LetGo } from '../../../protocol/molt.js';
import { STREAMS } from '../../../protocol/wire.ts';
import { type Answer, type AnswerRoute, takeAnswers } from '../../../sdk/answers.ts';

const env = systemEnv();
const FIRST = '11'.repeat(32);
const SECOND = '22'.repeat(32);
const QUOTE = new Uint8Array(300).fill(7);

let opened: AsyncDisposableStack;
let provider: Mesh;
let bidder: Mesh;
let bidders: Bidders;
/** Calls what the clock of `bidders` does every ten seconds, at a time of the test's choice. */
let sweepAt: (ms: number) => void;
const streams: Channel[] = [];
/** When each of them has ended. */
const served: Promise<void>[] = [];

beforeEach(async () => {
  opened = new AsyncDisposableStack();
  streams.length = 0;
  served.length = 0;
  provider = opened.use(await peer());
  bidder = opened.use(await peer());
  let addMs = 0;
  let sweep = (): void => undefined;
  const clock: Env['clock'] = {
    ...env.clock,
    monotonic: () => env.clock.monotonic() + addMs,
    every: (_ms, task) => {
      sweep = () => void task();
      return { [Symbol.dispose]: () => undefined };
    },
  };
  bidders = opened.use(new Bidders({ ...env, clock }, provider));
  sweepAt = (ms) => {
    addMs = ms;
    sweep();
  };
});
afterEach(() => opened.disposeAsync());

function peer(): Promise<Mesh> {
  return openMesh(env, {
    key: keyPairFromSeed(env.random.bytes(32)),
    listen: ['/ip4/127.0.0.1/tcp/0'],
    bootstrap: [],
    mdns: false,
    role: 'node',
    network: 'test',
  });
}

async function serve(handler: (channel: Channel) => Promise<void>): Promise<void> {
  await bidder.handle(STREAMS.quote.protocol, STREAMS.quote, async (channel) => {
    streams.push(channel);
    served.push(handler(channel));
    await served.at(-1);
  });
}

/** A buyer whose answers end up in a queue. */
async function listen(...bids: readonly string[]): Promise<() => Promise<Answer>> {
  const queue: Answer[] = [];
  let wake = (): void => undefined;
  const route: AnswerRoute = (answer) => {
    queue.push(answer);
    wake();
  };
  const routes = new Map(bids.map((bid) => [bid, route]));
  await serve((channel) => takeAnswers(env, channel, routes));
  return async () => {
    for (;;) {
      const answer = queue.shift();
      if (answer !== undefined) return answer;
      await new Promise<void>((resolve) => (wake = resolve));
    }
  };
}

const asker = (bid: string): Asker => ({ bid, bidder: bidder.self, addresses: bidder.addresses });
const never = new AbortController().signal;

/** Tells whether a quote is still held after everything that is on its way has arrived. */
async function isHeld(quote: Promise<void>): Promise<boolean> {
  const pause = env.clock.sleep(100).then(() => true);
  return Promise.race([quote.then(() => false), pause]);
}

test('all answers to one bidder travel on one stream, and each quote is let go alone', async () => {
  const next = await listen(FIRST, SECOND);
  const first = bidders.quote(asker(FIRST), QUOTE, never);
  const one = await next();
  const second = bidders.quote(asker(SECOND), QUOTE, never);
  const two = await next();
  expect(one.from).toBe(provider.self);
  expect(Buffer.from(two.content.quote ?? [])).toEqual(Buffer.from(QUOTE));
  await one.letGo();
  await first;
  expect(await isHeld(second)).toBe(true);
  await one.letGo();
  expect(await isHeld(second)).toBe(true);
  await two.letGo();
  await second;
  expect(streams).toHaveLength(1);
});

test('two answers at once to a bidder that was no peer open one stream', async () => {
  const next = await listen(FIRST, SECOND);
  const reason = new MoltError('market/no-capacity', 'all is taken');
  await Promise.all([bidders.decline(asker(FIRST), reason), bidders.decline(asker(SECOND), reason)]);
  const codes = [await next(), await next()].map(({ content }) => content.declined?.code);
  expect(codes).toEqual(['market/no-capacity', 'market/no-capacity']);
  expect(streams).toHaveLength(1);
});

test('a quote for a bid that is over is let go at once', async () => {
  await listen();
  await bidders.quote(asker(FIRST), QUOTE, never);
});

test('the end of the stream lets every quote go, and the next answer opens another', async () => {
  const next = await listen(FIRST, SECOND);
  const quotes = [FIRST, SECOND].map((bid) => bidders.quote(asker(bid), QUOTE, never));
  await next();
  await next();
  streams[0]?.abort(new MoltError('mesh/closed', 'gone'));
  await Promise.all(quotes);
  const again = bidders.quote(asker(FIRST), QUOTE, never);
  await (await next()).letGo();
  await again;
  expect(streams).toHaveLength(2);
});

test('a quote that has expired is waited for no longer, and its stream serves the next one', async () => {
  const next = await listen(FIRST, SECOND);
  const expiry = new AbortController();
  const first = bidders.quote(asker(FIRST), QUOTE, expiry.signal);
  const late = await next();
  expiry.abort();
  await first;
  const second = bidders.quote(asker(SECOND), QUOTE, never);
  await late.letGo();
  expect(await isHeld(second)).toBe(true);
  await (await next()).letGo();
  await second;
  expect(streams).toHaveLength(1);
});

test('a bidder that lets go more than it was sent loses its stream', async () => {
  await serve(async (channel) => {
    for await (const _frame of channel) {
      for (const bid of [SECOND, SECOND]) await channel.send(LetGo.encode({ bid: Buffer.from(bid, 'hex') }));
    }
  });
  // Held under FIRST, and never let go by name.
  await bidders.quote(asker(FIRST), QUOTE, never);
});

test('a provider that answers without end loses its stream', async () => {
  await listen();
  const channel = await provider.open(bidder.self, STREAMS.quote.protocol, { addresses: bidder.addresses });
  const frame = BidAnswer.encode({ bid: Buffer.from(FIRST, 'hex'), quote: QUOTE });
  const flood = async (): Promise<void> => {
    for (;;) {
      await channel.send(frame);
      await env.clock.sleep(1);
    }
  };
  await expect(flood()).rejects.toMatchObject({ code: 'mesh/closed' });
});

test('a stream goes when it was of no use for a minute, but not while a quote is held on it', async () => {
  const next = await listen(FIRST);
  const quote = bidders.quote(asker(FIRST), QUOTE, never);
  const answer = await next();
  sweepAt(61_000);
  expect(await isHeld(quote)).toBe(true);
  await answer.letGo();
  await quote;
  sweepAt(122_001);
  await served[0];
});
