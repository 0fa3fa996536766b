/**
 * Goal: whoever pulls from large books gets all of them in the end. Method: the real feed with its ports in memory; what
 * it answers to a pull is read off a channel. The feed between real nodes is test/integration's matter.
 */
import { expect, test } from 'vitest';

import { type Channel, createAdmission, openOfferFeed } from '../../market/index.ts';
import type { Address } from '../../protocol/address.ts';
import { type Random, systemEnv } from '../../protocol/env.ts';
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

test('a pull from a book that is larger than a pull begins anywhere, so that two may bring all of it', async () => {
  let answer: ((channel: Channel) => Promise<void>) | undefined;
  const nothing = { [Symbol.dispose]: () => undefined, [Symbol.asyncDispose]: () => Promise.resolve() };
  const env = { ...systemEnv(), random: drawing([0, PULLED]) };
  const at = env.clock.now();
  await using feed = await openOfferFeed(env, {
    networkId: NETWORK,
    admission: createAdmission({ network: NETWORK }),
    pubsub: { publish: () => Promise.resolve(), subscribe: () => Promise.resolve(nothing) },
    network: {
      self: SELF,
      addresses: [],
      isConnected: () => false,
      open: () => Promise.reject(new Error('this feed pulls from nobody')),
      handle: (_protocol, _limits, handler) => {
        answer = handler;
        return Promise.resolve(nothing);
      },
    },
  });
  for (let index = 0; index < HELD; index++) {
    const times = { issuedMs: at, expiresMs: at + 60_000 };
    feed.add(offerBytes(key(`seller ${index}`), times));
  }
  expect(feed.book.size).toBe(HELD);
  const [first, second] = [await pulledFrom(answer), await pulledFrom(answer)];
  expect([first.size, second.size]).toEqual([PULLED, PULLED]);
  expect(first.union(second).size).toBe(HELD);
});

async function pulledFrom(answer: ((channel: Channel) => Promise<void>) | undefined): Promise<ReadonlySet<string>> {
  const sent = new Set<string>();
  await answer?.({
    remote: 'somebody' as Address,
    send: (frame) => {
      sent.add(Buffer.from(frame).toString('hex'));
      return Promise.resolve();
    },
    close: () => Promise.resolve(),
    abort: () => undefined,
    async *[Symbol.asyncIterator]() {
      await Promise.resolve();
      yield OffersRequest.encode({ resourceClass: 'cpu', region: '' });
    },
  });
  return sent;
}
