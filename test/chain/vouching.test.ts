/** Goal: one bounded request says whose offers count. Method: real signed offers, a chain that the test speaks for. */
import { expect, test } from 'vitest';

import { type ProviderAccount, createVouching } from '../../chain/index.ts';
import type { Address } from '../../protocol/address.ts';
import { systemEnv } from '../../protocol/env.ts';
import { baseUnits } from '../../protocol/units.ts';
import { address, key, verifiedOffer } from '../market/fixtures.ts';

const NEEDED = 1_000n;

function world(accounts: ReadonlyMap<Address, { operator: Address; stake: bigint }>) {
  const requests: (readonly Address[])[] = [];
  let nowMs = 0;
  const env = { ...systemEnv(), clock: { ...systemEnv().clock, monotonic: () => nowMs } };
  const vouch = createVouching(env, {
    parameters: { minStake: baseUnits(NEEDED) } as Parameters<typeof createVouching>[1]['parameters'],
    providersAt: (wanted) => {
      requests.push(wanted);
      return Promise.resolve(wanted.map((one) => accounts.get(one) as ProviderAccount | undefined));
    },
  });
  return { vouch, requests, pass: (ms: number) => (nowMs += ms) };
}

const accountOf = (name: string): Address => address(`provider of ${key(name).address}`);
const offer = (name: string, provider = accountOf(name)) => verifiedOffer(key(name), {}, { provider });

test('an offer counts when its signer is operator of the provider it names, with stake enough', async () => {
  const { vouch } = world(
    new Map([
      [accountOf('real'), { operator: key('real').address, stake: NEEDED }],
      [accountOf('poor'), { operator: key('poor').address, stake: NEEDED - 1n }],
    ]),
  );
  const borrowed = offer('thief', accountOf('real'));
  const { checked, genuine } = await vouch([offer('real'), offer('poor'), borrowed, offer('nobody')]);
  expect(checked).toBe(4);
  expect(genuine).toEqual(new Set([key('real').address]));
});

test('of a thousand offers a hundred are drawn by chance, in one request, and what is known is not asked again for a minute', async () => {
  const { vouch, requests, pass } = world(new Map());
  const many = Array.from({ length: 1_000 }, (_, index) => offer(`many ${index}`));
  expect((await vouch(many)).checked).toBe(100);
  expect(requests[0]).toHaveLength(100);
  expect(new Set(requests[0]).size).toBe(100);
  await vouch(many);
  expect(requests[1]).not.toEqual(requests[0]);
  const few = many.slice(0, 3);
  await vouch(few);
  const asked = requests.length;
  await vouch(few);
  expect(requests.slice(asked).flat()).toEqual([]);
  pass(60_001);
  await vouch(few);
  expect(requests.at(-1)).toHaveLength(3);
});
