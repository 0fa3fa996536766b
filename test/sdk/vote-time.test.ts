/**
 * Goal: the vote of replicas is held a minute before the first claim would be paid, whenever that is made. Method: leases by
 * hand on a chain whose time passes while somebody sleeps.
 */
import { expect, test } from 'vitest';

import type { LeaseAccount } from '../../chain/index.ts';
import type { Address } from '../../protocol/address.ts';
import { systemEnv } from '../../protocol/env.ts';
import { MoltError } from '../../protocol/errors.ts';
import type { Buyer } from '../../sdk/buyer.ts';
import { untilVote } from '../../sdk/vote-time.ts';
import { address } from '../market/fixtures.ts';

type Claim = Readonly<{ windowMs: number; claimsAtMs?: number; state?: LeaseAccount['state'] }>;

const [a, b, c] = ['a', 'b', 'c'].map(address) as [Address, Address, Address];
const windowMs = 500_000;

/** When the vote is held; `asked`: how often the chain was. */
async function votedAt(
  claims: ReadonlyMap<Address, Claim>,
  leases: (nowMs: number) => readonly Address[],
  { signal = new AbortController().signal, awayUntilMs = 0 } = {},
): Promise<{ readonly atMs: number; readonly asked: number }> {
  let [nowMs, asked] = [0, 0];
  const clock = {
    ...systemEnv().clock,
    sleep: async (ms: number, stopped?: AbortSignal) => {
      stopped?.throwIfAborted();
      nowMs += ms;
    },
  };
  const chain = {
    lease: async (lease: Address) => {
      asked++;
      if (nowMs < awayUntilMs) throw new MoltError('chain/unreachable', 'it is away');
      const { claimsAtMs = Infinity, state = 'running', ...claim } = claims.get(lease) ?? { windowMs };
      return { state, ...claim, ...(nowMs < claimsAtMs ? {} : { proof: { provenAtMs: claimsAtMs } }) };
    },
  };
  const buyer = { env: { ...systemEnv(), clock }, chain, chainClock: { now: () => nowMs } } as unknown as Buyer;
  await untilVote(buyer, () => leases(nowMs), signal);
  return { atMs: nowMs, asked };
}

test.each<[string, readonly Claim[], number]>([
  ['at the beginning', [{ windowMs, claimsAtMs: 0 }, { windowMs }], 440_000],
  ['later', [{ windowMs }, { windowMs, claimsAtMs: 100_000 }], 540_000],
  [
    'by two, of which one has a shorter window',
    [
      { windowMs, claimsAtMs: 0 },
      { windowMs: 300_000, claimsAtMs: 100_000 },
    ],
    340_000,
  ],
])('a claim that is made %s is not paid before the vote', async (_when, claims, expected) => {
  const leases = new Map(claims.map((claim, index) => [[a, b][index] ?? a, claim]));
  expect((await votedAt(leases, () => [a, b])).atMs).toBe(expected);
});

test('the chain is asked again only when the time that it told has come, or others have a lease', async () => {
  const alone = await votedAt(new Map([[a, { windowMs, claimsAtMs: 100_000 }]]), () => [a]);
  expect(alone).toEqual({ atMs: 540_000, asked: 3 });
  const week = { windowMs: 604_800_000 };
  const claims = new Map<Address, Claim>([
    [a, week],
    [b, week],
    [c, { windowMs, claimsAtMs: 80_000 }],
  ]);
  const replaced = await votedAt(claims, (nowMs) => (nowMs < 60_000 ? [a, b] : [a, c]));
  expect(replaced.atMs).toBe(520_000);
});

test('an endpoint that is away is asked until it is back, a dispute is not counted, and who has voted stops', async () => {
  const claims = new Map<Address, Claim>([
    [a, { windowMs, claimsAtMs: 0 }],
    [b, { windowMs: 100_000, claimsAtMs: 0, state: 'disputed' }],
  ]);
  expect((await votedAt(claims, () => [a, b], { awayUntilMs: 200_000 })).atMs).toBe(440_000);
  const reason = new MoltError('node/stopped', 'there is nothing to vote on');
  await expect(votedAt(claims, () => [a], { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
});
