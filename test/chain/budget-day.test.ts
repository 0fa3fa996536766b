/** Goal: everybody counts a budget's day as the program does. Method: one account, looked at before and after midnight. */
import { expect, test } from 'vitest';

import { type BudgetAccount, leftToday, spentToday } from '../../chain/index.ts';
import { baseUnits } from '../../protocol/units.ts';
import { address } from '../market/fixtures.ts';

const DAY_MS = 86_400_000;
const account: BudgetAccount = {
  address: address('budget'),
  id: 0n,
  owner: address('owner'),
  vault: address('vault'),
  delegates: [],
  openLeases: 0,
  locked: baseUnits(0n),
  free: baseUnits(1_000n),
  capPerLease: baseUnits(50n),
  capPerDay: baseUnits(100n),
  expiresAtMs: 10 * DAY_MS,
  spentOnDay: baseUnits(70n),
  dayStartMs: DAY_MS,
};

test('what was spent counts until the day is over, and the next day begins with the whole cap', () => {
  const last = 2 * DAY_MS - 1;
  expect([spentToday(account, last), leftToday(account, last)]).toEqual([70n, 30n]);
  expect([spentToday(account, last + 1), leftToday(account, last + 1)]).toEqual([0n, 100n]);
});

test('a cap that was lowered below what is spent leaves nothing', () => {
  expect(leftToday({ ...account, capPerDay: baseUnits(60n) }, DAY_MS)).toBe(0n);
});
