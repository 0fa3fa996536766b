/**
 * Goal: neighbours may pass on a market of any size, while whoever floods, with invented origins or with few real ones, is
 * dropped, and nobody can make an honest peer look like one. Method: the real admission, feed and doubts of nodes that are
 * joined by hand, real signatures, a chain that the test speaks for, and a clock that is turned by hand.
 */
import { expect, test } from 'vitest';

import { type Admission, type Memo, type OfferFeed, createAdmission, openOfferFeed } from '../../market/index.ts';
import type { Address } from '../../protocol/address.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import { type Env, systemEnv } from '../../protocol/env.ts';
import { MoltError, type Verdict } from '../../protocol/errors.ts';
import { NETWORK, NOW, address, bidBytes, key, offerBytes } from './fixtures.ts';

const FLOODED = 'market/flooded';
/** Points of a behaviour penalty that drop a peer (node/mesh/gossip.ts): its score falls by 10 × (points − 6)². */
const POINTS_FATAL = 15;

/** One clock for all nodes. */
class Time {
  nowMs = NOW;
  #sleepers: { readonly atMs: number; readonly wake: () => void }[] = [];

  readonly env: Env = {
    ...systemEnv(),
    clock: {
      ...systemEnv().clock,
      now: () => this.nowMs,
      monotonic: () => this.nowMs,
      sleep: (ms) => new Promise((wake) => this.#sleepers.push({ atMs: this.nowMs + ms, wake })),
      every: () => ({ [Symbol.dispose]: () => undefined }),
    },
  };

  async pass(ms: number): Promise<void> {
    this.nowMs += ms;
    const due = this.#sleepers.filter(({ atMs }) => atMs <= this.nowMs);
    this.#sleepers = this.#sleepers.filter(({ atMs }) => atMs > this.nowMs);
    for (const { wake } of due) wake();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

interface Node {
  readonly feed: OfferFeed;
  readonly admission: Admission;
  /** An offer comes by gossip; the verdict may take a while. */
  hear(bytes: Uint8Array, from: Address): Promise<Verdict>;
  /** Looks at the chain so far. */
  looks(): number;
}

const decided = new WeakMap<Uint8Array, Map<string, unknown>>();
/** What signed bytes hold, and that their signature is right, is found out once for all nodes and tests. */
const memo: Memo = <Content>(step: string, bytes: Uint8Array, make: () => Content): Content => {
  const known = decided.get(bytes) ?? new Map<string, unknown>();
  decided.set(bytes, known);
  if (!known.has(step)) known.set(step, make());
  return known.get(step) as Content;
};

/** A node that follows a market, in which the chain knows `staked`. */
async function openNode({ env }: Time, staked: ReadonlySet<Address>, fails = false): Promise<Node> {
  let validate: ((data: Uint8Array, from: Address) => Verdict | Promise<Verdict>) | undefined;
  let looks = 0;
  const nothing = { [Symbol.dispose]: () => undefined, [Symbol.asyncDispose]: () => Promise.resolve() };
  const admission = createAdmission({ network: NETWORK, memo });
  const feed = await openOfferFeed(env, {
    networkId: NETWORK,
    admission,
    classes: ['cpu'],
    vouch: (offers) => {
      looks++;
      expect(offers.length).toBeLessThanOrEqual(100);
      if (fails) return Promise.reject(new MoltError('chain/unreachable', 'no chain today'));
      return Promise.resolve({ genuine: new Set(offers.map(({ signer }) => signer)).intersection(staked) });
    },
    pubsub: {
      publish: () => Promise.resolve(),
      subscribe: (_topic, given) => {
        validate = given;
        return Promise.resolve(nothing);
      },
    },
    network: {
      self: address('self'),
      addresses: [],
      isConnected: () => false,
      open: () => Promise.reject(new Error('nobody is pulled from')),
      handle: () => Promise.resolve(nothing),
    },
  });
  return {
    feed,
    admission,
    looks: () => looks,
    hear: async (bytes, from) => {
      if (validate === undefined) throw new Error('the feed has subscribed');
      return validate(bytes, from);
    },
  };
}

const names = (what: string, count: number): KeyPair[] =>
  Array.from({ length: count }, (_, index) => key(`${what} ${index}`));
const addresses = (keys: readonly KeyPair[]): Address[] => keys.map((one) => one.address);
const signed = new Map<string, Uint8Array>();
/** Tests that play the same scene share what was signed for it. */
function fresh(signer: KeyPair, nowMs: number): Uint8Array {
  const name = `${signer.address} ${nowMs}`;
  const bytes = signed.get(name) ?? offerBytes(signer, { sequence: nowMs, issuedMs: nowMs, expiresMs: nowMs + 60_000 });
  signed.set(name, bytes);
  return bytes;
}

/** What became of messages: how often each code came. */
function count(verdicts: readonly Verdict[]): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const verdict of verdicts) {
    const name = verdict.verdict === 'accept' ? 'accept' : verdict.code;
    counts[name] = (counts[name] ?? 0) + 1;
  }
  return counts;
}

const PROVIDERS = 5_000;
const REPEAT_MS = 20_000;
/** Offers that come in one moment. */
const AT_ONCE = 5;
/** Thousands of signatures take a while on a machine that others use. */
const LONG_MS = 240_000;
const providers = names('provider', PROVIDERS);
const everybody = new Set(addresses(providers));

/** Every provider repeats its offer once, evenly over twenty seconds, each through one of the forwarders. */
async function round(time: Time, node: Node, forwarders: readonly KeyPair[]): Promise<readonly Verdict[]> {
  const verdicts: Promise<Verdict>[] = [];
  for (const [index, provider] of providers.entries()) {
    const from = forwarders[index % forwarders.length];
    verdicts.push(node.hear(fresh(provider, time.nowMs), from?.address ?? address('nobody')));
    if (index % AT_ONCE === 0) await time.pass((AT_ONCE * REPEAT_MS) / PROVIDERS);
  }
  // The last look is answered within a second.
  await time.pass(1_000);
  await time.pass(1_000);
  return Promise.all(verdicts);
}

test.each([8, 1])(
  'the offers of 5,000 staked providers pass whole through %i honest neighbours, once their stakes were looked up',
  async (neighbours) => {
    const time = new Time();
    const node = await openNode(time, everybody);
    const forwarders = names('neighbour', neighbours);
    const rounds: Readonly<Record<string, number>>[] = [];
    for (let index = 0; index < 4; index++) rounds.push(count(await round(time, node, forwarders)));
    expect(rounds[3]).toEqual({ accept: PROVIDERS });
    // Before that, whom there was no time to look up was left out, and no neighbour was blamed for it.
    const codes = new Set(rounds.flatMap((one) => Object.keys(one)));
    expect(codes).toEqual(new Set(['accept', 'market/rate-limited']));
    expect(rounds[0]?.['accept']).toBeGreaterThan(2_000);
    expect(node.feed.book.size).toBe(PROVIDERS);
    expect(node.looks()).toBeLessThanOrEqual(90);
  },
  LONG_MS,
);

test('in a market of a few hundred providers nothing is looked up', async () => {
  const time = new Time();
  const node = await openNode(time, new Set());
  const [neighbour = key('neighbour')] = names('neighbour', 1);
  for (const provider of providers.slice(0, 400)) {
    expect(await node.hear(fresh(provider, time.nowMs), neighbour.address)).toEqual({ verdict: 'accept' });
    await time.pass(REPEAT_MS / 400);
  }
  expect(node.looks()).toBe(0);
});

test('a flood of offers by invented origins is dropped after some hundreds, and their forwarder pays for it', async () => {
  const time = new Time();
  const node = await openNode(time, everybody);
  const flooder = key('flooder').address;
  const verdicts: Promise<Verdict>[] = [];
  for (let index = 0; index < 2_000; index++) {
    verdicts.push(node.hear(fresh(key(`invented ${index}`), time.nowMs), flooder));
    await time.pass(2);
  }
  await time.pass(1_000);
  await time.pass(1_000);
  const told = await Promise.all(verdicts);
  const counts = count(told);
  // Four seconds of what may pass of strangers, and what their bucket holds.
  expect(counts['accept']).toBeLessThanOrEqual(50 + 4 * 25 + 1);
  expect(counts[FLOODED]).toBeGreaterThan(POINTS_FATAL);
  const first = told.findIndex((verdict) => verdict.verdict === 'ignore' && verdict.code === FLOODED);
  expect(first).toBeLessThan(1_500);
  // Nobody else pays, and who has a stake is heard, even through the flooder.
  const [one = key('one'), other = key('other')] = providers;
  const answers = [
    node.hear(fresh(one, time.nowMs), key('neighbour').address),
    node.hear(fresh(other, time.nowMs), flooder),
  ];
  await time.pass(1_000);
  expect((await answers[0])?.verdict).toBe('accept');
  expect((await answers[1])?.verdict === 'accept' || (await answers[1])?.verdict === 'ignore').toBe(true);
});

test('a flood by a few staked origins stops at their own buckets, and their forwarder pays for it', async () => {
  const time = new Time();
  const few = names('provider', 3);
  const node = await openNode(time, everybody);
  const verdicts: Promise<Verdict>[] = [];
  for (let index = 0; index < 2_000; index++) {
    const origin = few[index % few.length] ?? key('provider 0');
    verdicts.push(node.hear(fresh(origin, time.nowMs), key('flooder').address));
    await time.pass(2);
  }
  const counts = count(await Promise.all(verdicts));
  expect(counts['accept']).toBeLessThanOrEqual(3 * 4);
  expect(counts[FLOODED]).toBeGreaterThan(POINTS_FATAL);
});

test('where the chain cannot be asked, strangers beyond the bucket are left out and nobody is blamed', async () => {
  const time = new Time();
  const node = await openNode(time, everybody, true);
  const verdicts: Promise<Verdict>[] = [];
  for (let index = 0; index < 1_000; index++) {
    verdicts.push(node.hear(fresh(key(`invented ${index}`), time.nowMs), key('flooder').address));
    await time.pass(2);
  }
  await time.pass(1_000);
  await time.pass(1_000);
  expect(Object.keys(count(await Promise.all(verdicts))).toSorted()).toEqual(['accept', 'market/rate-limited']);
});

test(
  'twelve flooders cannot make the honest peer between them and a newcomer look like one',
  async () => {
    const time = new Time();
    const honest = await openNode(time, everybody);
    const newcomer = await openNode(time, everybody);
    const between = key('honest').address;
    const flooders = names('flooder', 12);
    const passed: Promise<Verdict>[] = [];
    let verdicts = 0;
    const pass = async (bytes: Uint8Array, from: Address): Promise<void> => {
      const verdict = await honest.hear(bytes, from);
      verdicts++;
      if (verdict.verdict === 'accept') passed.push(newcomer.hear(bytes, between));
    };
    const passing: Promise<void>[] = [];
    for (let index = 0; index < 6_000; index++) {
      const from = flooders[index % flooders.length] ?? key('flooder 0');
      passing.push(pass(fresh(key(`invented ${index}`), time.nowMs), from.address));
      // Among them a market that the newcomer does not know yet.
      const provider = providers[index];
      if (index % 10 === 0 && provider !== undefined)
        passing.push(pass(fresh(provider, time.nowMs), key('neighbour').address));
      await time.pass(4);
    }
    for (let index = 0; index < 5; index++) await time.pass(1_000);
    await Promise.all(passing);
    expect(verdicts).toBe(passing.length);
    const counts = count(await Promise.all(passed));
    expect(counts['accept']).toBeGreaterThan(500);
    expect(counts[FLOODED]).toBeUndefined();
  },
  LONG_MS,
);

test(
  'bids of more strangers than an honest peer takes in are blamed on who brings them, and on nobody between',
  () => {
    // Two in each millisecond; a peer may hear them later than they were signed.
    const bids = names('bidder', 4_000).map((bidder, index) => {
      const issuedMs = NOW + Math.floor(index / 2);
      return { bytes: bidBytes(bidder, { sequence: issuedMs, issuedMs }), issuedMs };
    });
    const overrun = createAdmission({ network: NETWORK, memo });
    const flooder = key('flooder').address;
    const flood = count(bids.map(({ bytes, issuedMs }) => overrun.bid(bytes, flooder, issuedMs).verdict));
    expect(flood['accept']).toBeLessThanOrEqual(50 + 2 * 25 + 1);
    expect(flood[FLOODED]).toBeGreaterThan(POINTS_FATAL);

    const [honest, beyond] = [0, 1].map(() => createAdmission({ network: NETWORK, memo })) as [Admission, Admission];
    const flooders = addresses(names('flooder', 12));
    const between = key('honest').address;
    const passed: Verdict[] = [];
    for (const [index, { bytes }] of bids.entries()) {
      const nowMs = NOW + index;
      if (honest.bid(bytes, flooders[index % 12] ?? flooder, nowMs).message !== undefined)
        passed.push(beyond.bid(bytes, between, nowMs).verdict);
    }
    expect(passed.length).toBeGreaterThan(500);
    expect(count(passed)[FLOODED]).toBeUndefined();
  },
  LONG_MS,
);

test('the same offer by a second topic costs its forwarder nothing', () => {
  const admission = createAdmission({ network: NETWORK });
  const from = key('neighbour').address;
  for (let index = 0; index < 300; index++) {
    const nowMs = NOW + index * 50;
    const bytes = fresh(key(`provider ${index}`), nowMs);
    expect(admission.offer(bytes, from, nowMs).verdict.verdict).toBe('accept');
    for (let again = 0; again < 3; again++) {
      expect(admission.offer(bytes, from, nowMs).verdict).toMatchObject({ code: 'protocol/replayed' });
    }
  }
});
