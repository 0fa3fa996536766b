/**
 * Goal: whoever pulls from large books gets all of them in the end, and what convicts an equivocator first. Method: the
 * real feed with its ports in memory; what it answers to a pull is read off a channel. The feed between real nodes is
 * test/integration's matter.
 */
import { expect, test } from 'vitest';

import { type Channel, type OfferFeed, createAdmission, openOfferFeed } from '../../market/index.ts';
import type { Address } from '../../protocol/address.ts';
import { type Env, type Random, systemEnv } from '../../protocol/env.ts';
import type { Verdict } from '../../protocol/errors.ts';
import { OffersRequest } from '../../protocol/molt.js';
import { NETWORK, address, key, offerBytes } from './fixtures.ts';

const SELF = address('self');
const HELD = 2_400;
const PULLED = 2_000;

/** Every number drawn is the next of these, as a whole number below the bound. */
function drawing(numbers: number[]): Random {
  const random: Random = {
    bytes: (length) => {
      const bytes = Buffer.alloc(length);
      bytes.writeUIntBE(numbers.shift() ?? 0, 0, 6);
      return new Uint8Array(bytes);
    },
    split: () => random,
  };
  return random;
}

type Answer = (channel: Channel) => Promise<void>;

/** A feed whose gossip the test sends, and whose pulls are answered by what `pulled` gives. */
async function openFeed(env: Env, pulled: () => readonly Uint8Array[] = () => []) {
  let answer: Answer | undefined;
  let hear: ((bytes: Uint8Array, from: Address) => Verdict | Promise<Verdict>) | undefined;
  const nothing = { [Symbol.dispose]: () => undefined, [Symbol.asyncDispose]: () => Promise.resolve() };
  const refused: string[] = [];
  const feed: OfferFeed = await openOfferFeed(env, {
    networkId: NETWORK,
    classes: ['cpu'],
    admission: createAdmission({ network: NETWORK }),
    onRefused: ({ code }) => refused.push(code),
    pubsub: {
      publish: () => Promise.resolve(),
      subscribe: (_topic, validate) => {
        hear = validate;
        return Promise.resolve(nothing);
      },
    },
    network: {
      self: SELF,
      addresses: [],
      isConnected: () => false,
      open: () => Promise.resolve(channelOf(pulled())),
      handle: (_protocol, _limits, handler) => {
        answer = handler;
        return Promise.resolve(nothing);
      },
    },
  });
  const answered = async (): Promise<readonly Uint8Array[]> => {
    const sent: Uint8Array[] = [];
    await answer?.(channelOf([OffersRequest.encode({ resourceClass: 'cpu', region: '' })], sent));
    return sent;
  };
  return { feed, refused, answered, hear: async (bytes: Uint8Array) => hear?.(bytes, address('somebody')) };
}

/** Brings these frames, and keeps what is sent. */
function channelOf(frames: readonly Uint8Array[], sent: Uint8Array[] = []): Channel {
  return {
    remote: address('somebody'),
    send: (frame) => {
      sent.push(frame);
      return Promise.resolve();
    },
    close: () => Promise.resolve(),
    abort: () => undefined,
    async *[Symbol.asyncIterator]() {
      await Promise.resolve();
      yield* frames;
    },
  };
}

test('a pull from a book that is larger than a pull begins anywhere, so that two may bring all of it', async () => {
  // Thousands of signatures take a while on a machine that others use, and no offer is to expire meanwhile.
  const { clock, ...rest } = systemEnv();
  const at = clock.now();
  const env = { ...rest, clock: { ...clock, now: () => at }, random: drawing([0, PULLED]) };
  const { feed, answered } = await openFeed(env);
  await using _feed = feed;
  for (let index = 0; index < HELD; index++) {
    const times = { issuedMs: at, expiresMs: at + 60_000 };
    feed.add(offerBytes(key(`seller ${index}`), times));
  }
  expect(feed.book.size).toBe(HELD);
  const pull = async (): Promise<ReadonlySet<string>> =>
    new Set((await answered()).map((bytes) => Buffer.from(bytes).toString('hex')));
  const [first, second] = [await pull(), await pull()];
  expect([first.size, second.size]).toEqual([PULLED, PULLED]);
  expect(first.union(second).size).toBe(HELD);
}, 240_000);

/** What a liar tells one half of the market, and the other. */
function liesOf(name: string, atMs: number, sequence = 7): readonly [Uint8Array, Uint8Array] {
  const header = { sequence, issuedMs: atMs, expiresMs: atMs + 60_000 };
  return [offerBytes(key(name), header), offerBytes(key(name), header, { region: 'elsewhere' })];
}

test('a newcomer that pulls from who convicted an equivocator believes nothing of it either, and shows it to others', async () => {
  const env = systemEnv();
  const at = env.clock.now();
  const times = { issuedMs: at, expiresMs: at + 60_000 };
  const witness = await openFeed(env);
  await using _witness = witness.feed;
  const honest = offerBytes(key('honest'), times);
  for (const bytes of [honest, ...liesOf('liar', at)])
    expect(await witness.hear(bytes)).toMatchObject({ verdict: 'accept' });
  expect(witness.feed.book.list().map(({ signer }) => signer)).toEqual([key('honest').address]);

  let pulled = await witness.answered();
  expect(pulled).toEqual([...liesOf('liar', at), honest]);
  const newcomer = await openFeed(env, () => pulled);
  await using _newcomer = newcomer.feed;
  await newcomer.feed.pull(address('witness'));
  expect(newcomer.refused).toEqual(['market/equivocated']);
  expect(newcomer.feed.book.list().map(({ signer }) => signer)).toEqual([key('honest').address]);
  // What the liar says next, to a neighbour of the newcomer that knows nothing of it.
  const next = offerBytes(key('liar'), { ...times, sequence: 8, issuedMs: at + 1 });
  expect(await newcomer.hear(next)).toMatchObject({ verdict: 'ignore', code: 'market/equivocated' });
  expect(newcomer.feed.book.size).toBe(1);

  pulled = await newcomer.answered();
  const third = await openFeed(env, () => pulled);
  await using _third = third.feed;
  await third.feed.pull(address('newcomer'));
  expect(await third.hear(next)).toMatchObject({ code: 'market/equivocated' });
});

test('nobody is convicted by what he did not sign, and who invents convicts fills neither an answer nor a book', async () => {
  const env = systemEnv();
  const at = env.clock.now();
  const [first, second] = liesOf('honest', at);
  const forged = second.with(second.length - 1, (second.at(-1) ?? 0) ^ 1);
  const victim = await openFeed(env, () => [first, forged, forged]);
  await using _victim = victim.feed;
  await victim.feed.pull(address('liar'));
  expect(victim.refused).toEqual(['protocol/bad-signature', 'protocol/bad-signature']);
  expect(victim.feed.book.size).toBe(1);
  expect(await victim.answered()).toEqual([first]);

  const flood = Array.from({ length: 200 }, (_, index) => liesOf(`invented ${index}`, at)).flat();
  const flooded = await openFeed(env, () => flood);
  await using _flooded = flooded.feed;
  await flooded.feed.pull(address('liar'));
  expect(flooded.feed.book.size).toBe(0);
  expect(await flooded.answered()).toEqual(flood.slice(-128));
});
