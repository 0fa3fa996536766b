/** Goal: what strangers name costs the chain a bounded number of reads. Method: the real journal, budgets that are counted. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import type { BudgetAccount } from '../../../chain/index.ts';
import { type Journal, openJournal } from '../../../node/journal.ts';
import { Buyers } from '../../../node/provider/buyers.ts';
import type { Address } from '../../../protocol/address.ts';
import { systemEnv } from '../../../protocol/env.ts';
import { MoltError } from '../../../protocol/errors.ts';
import { baseUnits } from '../../../protocol/units.ts';
import { address, key, verifiedBid } from '../../market/fixtures.ts';

const NOW = 1_800_000_000_000;
let directory: string;
let journal: Journal;
let nowMs: number;
let reads: Address[];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'molt-buyers-'));
  journal = await openJournal(directory);
  nowMs = 1_000;
  reads = [];
});
afterEach(async () => {
  await journal[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

const buyerKey = key('buyer');
const ACCOUNT: BudgetAccount = {
  address: address('budget'),
  owner: address('owner'),
  vault: address('vault'),
  delegates: [buyerKey.address],
  id: 0n,
  openLeases: 0,
  capPerLease: baseUnits(70n),
  capPerDay: baseUnits(90n),
  expiresAtMs: NOW + 1_000,
  locked: baseUnits(0n),
  free: baseUnits(100n),
  spentOnDay: baseUnits(30n),
  dayStartMs: NOW - 1_000,
};

function open(account: (address: Address) => Promise<BudgetAccount | undefined>): Promise<Buyers> {
  const env = systemEnv();
  return Buyers.open(
    { ...env, clock: { ...env.clock, monotonic: () => nowMs } },
    {
      budget: (address) => {
        reads.push(address);
        return account(address);
      },
      chainNowMs: () => NOW,
      journal,
      rangeOf: () => '203.0.113',
    },
  );
}

const bidOf = (budget: string, signer = buyerKey) => verifiedBid(signer, { budget: address(budget) });
const forwarder = address('forwarder');
const codeOf = (answer: object): string => (answer instanceof MoltError ? answer.code : 'known');

test('a bidder is what the chain says of its budget: what is free today, and whether it paid here before', async () => {
  const buyers = await open(() => Promise.resolve(ACCOUNT));
  expect(await buyers.standing(bidOf('budget'), forwarder)).toEqual({
    budget: address('budget'),
    free: 60n,
    capPerLease: 70n,
    range: '203.0.113',
    isKnown: false,
  });
  expect(buyers.hasRegulars).toBe(false);
  await buyers.paid(address('budget'));
  expect(await buyers.standing(bidOf('budget'), forwarder)).toMatchObject({ isKnown: true });
  expect(reads).toHaveLength(1);
  const later = await open(() => Promise.resolve(ACCOUNT));
  expect(later.hasRegulars).toBe(true);
});

test.each<[string, Partial<BudgetAccount> | undefined, string]>([
  ['is not there', undefined, 'chain/account-missing'],
  ["is somebody else's", { delegates: [address('another')] }, 'chain/budget-limit'],
  ['has expired', { expiresAtMs: NOW }, 'chain/budget-limit'],
  ['is empty', { free: baseUnits(0n) }, 'chain/budget-empty'],
  ['has spent all of its day', { spentOnDay: baseUnits(90n) }, 'chain/budget-empty'],
])('a budget that %s gets no hold', async (_what, changes, code) => {
  const buyers = await open(() => Promise.resolve(changes && { ...ACCOUNT, ...changes }));
  expect(codeOf(await buyers.standing(bidOf('budget'), forwarder))).toBe(code);
});

test('one forwarder that brings invented budgets uses up its own reads; others, and who paid before, are looked up', async () => {
  const buyers = await open((named) => Promise.resolve(named === address('budget') ? ACCOUNT : undefined));
  await buyers.paid(address('budget'));
  const answers: string[] = [];
  for (let count = 0; count < 100; count++)
    answers.push(codeOf(await buyers.standing(bidOf(`invented ${count}`), forwarder)));
  expect(answers.filter((code) => code === 'chain/account-missing')).toHaveLength(20);
  expect(answers.at(-1)).toBe('market/rate-limited');
  expect(codeOf(await buyers.standing(bidOf('another'), address('elsewhere')))).toBe('chain/account-missing');
  expect(codeOf(await buyers.standing(bidOf('budget'), forwarder))).toBe('known');
  nowMs += 10_000;
  expect(codeOf(await buyers.standing(bidOf('later'), forwarder))).toBe('chain/account-missing');
});

test('a chain that does not answer is no word against the bidder, and is asked again', async () => {
  let isDown = true;
  const down = new MoltError('chain/unreachable', 'no answer');
  const buyers = await open(() => (isDown ? Promise.reject(down) : Promise.resolve(ACCOUNT)));
  expect(codeOf(await buyers.standing(bidOf('budget'), forwarder))).toBe('chain/unreachable');
  isDown = false;
  expect(codeOf(await buyers.standing(bidOf('budget'), forwarder))).toBe('known');
});
