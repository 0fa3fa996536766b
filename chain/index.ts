/**
 * Chain: budgets, stake and leases, and the program that holds one against the other.
 *
 * The program (program/, C) is the only authority about money. `layout.ts` declares its accounts, instructions and
 * events once; `connectChain` gives the client that reads them and sends transactions, to any cluster; `devnet/` is a
 * whole local chain with the same interface. Types cost nothing here: the client's libraries load with the first
 * connection.
 */
import type { Env } from '../protocol/env.ts';
import type { Chain, ChainOptions } from './chain.ts';

export type {
  BudgetAccount,
  BudgetLimits,
  Chain,
  ChainOptions,
  ChainRecord,
  ConfigAccount,
  Confirmed,
  DelegationAccount,
  DisputeAccount,
  DisputeSeat,
  Draft,
  Equivocation,
  LeaseAccount,
  LeaseEnding,
  LeaseExtension,
  LeaseTerms,
  Network,
  OffenceAccount,
  OpeningDraft,
  Parameters,
  ProviderAccount,
  ProviderSettings,
  Side,
  Signatures,
  StakePool,
  StakeSlash,
  TransactionCost,
  Vote,
  VoucherPayment,
} from './chain.ts';
export { leftToday, spentToday } from './budget-day.ts';
export type { Deployment, DeployOptions } from './deploy.ts';
export type { Devnet, DevnetOptions } from './devnet/index.ts';
export { type ChainClock, openChainClock } from './chain-clock.ts';
export { type ChainEvent, readEvents } from './events.ts';
export { readNetwork } from './network.ts';
export { type Vouched, createVouching } from './vouching.ts';
export { type AskPassphrase, createWallet, encryptWallet, readWallet, readWalletAddress } from './wallet.ts';

/**
 * Connects to a cluster and reads the market's Config. Throws `chain/unreachable`, `chain/wrong-network` and
 * `chain/not-deployed`.
 */
export async function connectChain(env: Env, options: ChainOptions): Promise<Chain> {
  const { openChain } = await import('./client.ts');
  return openChain(env, options);
}

/** Starts the local chain (devnet/index.ts). */
export async function startDevnet(
  env: Env,
  options: import('./devnet/index.ts').DevnetOptions,
): Promise<import('./devnet/index.ts').Devnet> {
  const devnet = await import('./devnet/index.ts');
  return devnet.startDevnet(env, options);
}

/** Deploys or upgrades a program on any cluster, resuming where an earlier run stopped (deploy.ts). */
export async function deployProgram(
  env: Env,
  options: import('./deploy.ts').DeployOptions,
): Promise<import('./deploy.ts').Deployment> {
  const deploy = await import('./deploy.ts');
  return deploy.deployProgram(env, options);
}
