/**
 * Who has how much, before and after: read from the chain, and checked to add up to the base unit.
 */
import type { Chain } from '../../../chain/index.ts';
import type { Address } from '../../../protocol/address.ts';
import { AssertionError } from '../../../protocol/errors.ts';
import { formatMolt } from '../../../protocol/units.ts';

export interface Parties {
  readonly buyer: { readonly wallet: Address; readonly budget: Address };
  readonly providers: readonly { readonly name: string; readonly wallet: Address; readonly provider: Address }[];
}

/** Base units. */
export interface Balances {
  readonly accounts: readonly { readonly name: string; readonly amount: bigint }[];
  /** Burned by settlements of these providers so far. */
  readonly burned: bigint;
}

export async function readBalances(chain: Chain, parties: Parties): Promise<Balances> {
  const { buyer, providers } = parties;
  const budget = await chain.budget(buyer.budget);
  const accounts = [
    { name: 'buyer, wallet', amount: (await chain.balances(buyer.wallet)).tokens as bigint },
    { name: 'buyer, budget', amount: (budget?.free ?? 0n) + (budget?.locked ?? 0n) },
  ];
  let burned = 0n;
  for (const { name, wallet, provider } of providers) {
    const account = await chain.provider(provider);
    accounts.push(
      { name: `${name}, wallet`, amount: (await chain.balances(wallet)).tokens },
      { name: `${name}, stake`, amount: account?.stake ?? 0n },
    );
    burned += account?.feesBurned ?? 0n;
  }
  return { accounts, burned };
}

export interface BalanceRow {
  readonly name: string;
  readonly before: bigint;
  readonly after: bigint;
}

export interface Reckoning {
  readonly rows: readonly BalanceRow[];
  /** What the settlement split the cost into. */
  readonly payout: bigint;
  readonly stakeFee: bigint;
  readonly burned: bigint;
}

/**
 * Compares two readings around one job that cost `cost`. A difference of one base unit is a defect of the program or
 * of this one: throws an AssertionError that names the sums.
 */
export function reckon(before: Balances, after: Balances, cost: bigint): Reckoning {
  const rows = after.accounts.map(({ name, amount }) => ({
    name,
    before: before.accounts.find((each) => each.name === name)?.amount ?? 0n,
    after: amount,
  }));
  const gained = (suffix: string): bigint =>
    rows
      .filter((row) => row.name.endsWith(suffix) && !row.name.startsWith('buyer'))
      .reduce((sum, row) => sum + row.after - row.before, 0n);
  const sum = (side: 'before' | 'after'): bigint => rows.reduce((total, row) => total + row[side], 0n);
  const burned = after.burned - before.burned;
  const payout = gained(', wallet');
  const stakeFee = gained(', stake');
  if (sum('before') !== sum('after') + burned) {
    throw new AssertionError(
      `the balances do not add up: ${formatMolt(sum('before'))} before, ${formatMolt(sum('after'))} after and ${formatMolt(burned)} burned`,
    );
  }
  if (payout + stakeFee + burned !== cost) {
    throw new AssertionError(
      `the job cost ${formatMolt(cost)}, but ${formatMolt(payout)} were paid out, ${formatMolt(stakeFee)} staked and ${formatMolt(burned)} burned`,
    );
  }
  return { rows, payout, stakeFee, burned };
}
