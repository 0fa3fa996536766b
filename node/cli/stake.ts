/** `molt stake`, `unstake`, `withdraw` and `stakes`: tokens behind providers, what they earned and lost. */
import { type Chain, type DelegationAccount, readWalletAddress } from '../../chain/index.ts';
import type { Address } from '../../protocol/address.ts';
import { MoltError } from '../../protocol/errors.ts';
import { formatMolt } from '../../protocol/units.ts';
import { confirm, openWallet } from './ask.ts';
import { type CommandContext, printResult } from './command.ts';
import { type Flags, addressWord, amountWord, findProvider, openMarket } from './market.ts';
import { formatDuration, table } from './terminal.ts';

type Words = readonly string[];

export async function stakeCommand(context: CommandContext, flags: Flags, [provider, text]: Words): Promise<void> {
  const example = 'molt stake PROVIDER 25';
  const amount = amountWord(text, example);
  const { chain } = await openMarket(context, flags);
  await using _closing = chain;
  const { address, commissionBps } = await findProvider(chain, provider, example);
  const wallet = await openWallet(context);
  const { unbondingMs } = chain.parameters;
  await confirm(
    context,
    flags['yes'],
    `Stake ${formatMolt(amount)} behind ${address}? It earns ${percent(10_000 - commissionBps)} of its share of fees, can be slashed, and takes ${formatDuration(unbondingMs)} to get back.`,
  );
  const { signature } = await chain.stake(wallet, address, amount);
  const after = await chain.delegation(chain.delegationAddress(address, wallet.address));
  printResult(context, { provider: address, staked: amount, value: after?.value, transaction: signature }, [
    `staked ${formatMolt(amount)} behind ${address}; yours there is now worth ${formatMolt(after?.value ?? 0n)}`,
    `transaction ${signature}`,
  ]);
}

export async function unstakeCommand(context: CommandContext, flags: Flags, [provider, text]: Words): Promise<void> {
  const example = 'molt unstake PROVIDER 25';
  const { chain } = await openMarket(context, flags);
  await using _closing = chain;
  const { address } = await findProvider(chain, provider, example);
  const wallet = await openWallet(context);
  const before = await requireDelegation(chain, address, wallet.address);
  const amount = amountWord(text, example, before.value);
  await confirm(
    context,
    flags['yes'],
    `Start to take ${formatMolt(amount)} back from ${address}? It can be slashed for ${formatDuration(chain.parameters.unbondingMs)} more${before.unbondingShares > 0n ? ', and what is unbonding already waits as long again' : ''}.`,
  );
  const { signature } = await chain.unstake(wallet, address, amount);
  const after = await chain.delegation(before.address);
  const until = after?.unbondingUntilMs ?? 0;
  printResult(
    context,
    { provider: address, unbonding: after?.unbondingValue, withdrawableAtMs: until, transaction: signature },
    [
      `${formatMolt(after?.unbondingValue ?? 0n)} unbonding until ${time(until)}`,
      `then: molt withdraw ${address}`,
      `transaction ${signature}`,
    ],
  );
}

export async function withdrawCommand(context: CommandContext, flags: Flags, [provider]: Words): Promise<void> {
  const { chain } = await openMarket(context, flags);
  await using _closing = chain;
  const { address } = await findProvider(chain, provider, 'molt withdraw PROVIDER');
  const wallet = await openWallet(context);
  const before = await requireDelegation(chain, address, wallet.address);
  if (before.unbondingShares === 0n) {
    const message = `nothing of yours is unbonding at ${address}: run molt unstake ${address} AMOUNT first`;
    throw new MoltError('chain/too-early', message, { provider: address });
  }
  const nowMs = await chain.chainTimeMs();
  if (nowMs < before.unbondingUntilMs) {
    const message = `${formatMolt(before.unbondingValue)} can be withdrawn from ${time(before.unbondingUntilMs)} on, in ${formatDuration(before.unbondingUntilMs - nowMs)}`;
    throw new MoltError('chain/too-early', message, { provider: address });
  }
  const { tokens } = await chain.balances(wallet.address);
  const { signature } = await chain.withdrawStake(wallet, address);
  const paid = (await chain.balances(wallet.address)).tokens - tokens;
  printResult(context, { provider: address, withdrawn: paid, transaction: signature }, [
    `${formatMolt(paid)} are back in wallet ${wallet.address}`,
    `transaction ${signature}`,
  ]);
}

async function requireDelegation(chain: Chain, provider: Address, staker: Address): Promise<DelegationAccount> {
  const found = await chain.delegation(chain.delegationAddress(provider, staker));
  if (found) return found;
  const message = `wallet ${staker} has nothing behind ${provider}: molt stakes lists what it has`;
  throw new MoltError('chain/account-missing', message, { provider, staker });
}

export async function stakesCommand(context: CommandContext, flags: Flags, [wallet]: Words): Promise<void> {
  const { chain } = await openMarket(context, flags);
  await using _closing = chain;
  const staker =
    wallet === undefined
      ? (await readWalletAddress(context.home.wallet)).address
      : addressWord(wallet, 'wallet', 'molt stakes WALLET');
  const found = await chain.delegationsOf(staker);
  const stakes = await Promise.all(found.map((delegation) => describe(chain, delegation)));
  const columns = [
    { title: 'provider' },
    { title: 'value', align: 'right' },
    { title: 'paid in', align: 'right' },
    { title: 'yield', align: 'right' },
    { title: 'unbonding', align: 'right' },
    { title: 'withdrawable' },
    { title: 'provider lost', align: 'right' },
  ] as const;
  const rows = stakes.map((one) => [
    one.provider,
    formatMolt(one.value),
    formatMolt(one.paidIn),
    signed(one.yield),
    formatMolt(one.unbonding),
    one.unbonding === 0n ? '' : time(one.withdrawableAtMs),
    formatMolt(one.providerSlashed),
  ]);
  const none = [`wallet ${staker} has nothing staked: molt providers lists where it could`];
  printResult(context, { staker, stakes }, rows.length === 0 ? none : table(context.terminal, columns, rows));
}

interface Stake {
  readonly provider: Address;
  readonly value: bigint;
  readonly paidIn: bigint;
  /** What both values have over what was paid in: fees earned, less slashes. Negative after a loss. */
  readonly yield: bigint;
  readonly unbonding: bigint;
  readonly withdrawableAtMs: number;
  /** Of the whole provider, so far. */
  readonly providerSlashed: bigint;
}

async function describe(chain: Chain, delegation: DelegationAccount): Promise<Stake> {
  const { provider, value, unbondingValue, principal, unbondingUntilMs } = delegation;
  const account = await chain.provider(provider);
  return {
    provider,
    value,
    paidIn: principal,
    yield: value + unbondingValue - principal,
    unbonding: unbondingValue,
    withdrawableAtMs: unbondingUntilMs,
    providerSlashed: account?.slashed ?? 0n,
  };
}

const signed = (amount: bigint): string => (amount < 0n ? `-${formatMolt(-amount)}` : `+${formatMolt(amount)}`);
const percent = (bps: number): string => `${bps / 100} %`;
const time = (ms: number): string => new Date(ms).toISOString();
