/**
 * What each operation of a market calls on the program: pure functions from values to instructions.
 *
 * The client, the local chain and the tests build their transactions here, so accounts are filled in at one place.
 */
import type { TransactionInstruction } from '@solana/web3.js';

import type { Address } from '../protocol/address.ts';
import type { BaseUnits } from '../protocol/units.ts';
import { limitsFields, parametersFields, secondsDown, secondsUp } from './accounts.ts';
import {
  budgetAddress,
  configAddress,
  leaseAddress,
  providerAddress,
  stakeVaultAddress,
  vaultAddress,
} from './addresses.ts';
import type { BudgetLimits, LeaseAccount, LeaseTerms, Parameters } from './chain.ts';
import { buildInstruction, type InstructionAccounts } from './instructions.ts';

/** One deployment: the program and the mint of its Config. */
export interface Market {
  readonly programId: Address;
  readonly mint: Address;
}

export function callInitialize(market: Market, authority: Address, parameters: Parameters): TransactionInstruction {
  return buildInstruction({
    programId: market.programId,
    name: 'initialize',
    accounts: { authority, config: configAddress(market.programId).address, mint: market.mint },
    fields: { parameters: parametersFields(parameters) },
  });
}

export function callSetParameters(
  market: Market,
  authority: Address,
  parameters: Parameters,
  newAuthority: Address = authority,
): TransactionInstruction {
  return buildInstruction({
    programId: market.programId,
    name: 'setParameters',
    accounts: { authority, config: configAddress(market.programId).address },
    fields: { parameters: parametersFields(parameters), newAuthority },
  });
}

/** Complete settings of a provider. */
export interface ProviderRegistration {
  readonly operator: Address;
  readonly payout: Address;
  readonly commissionBps: number;
}

export function callRegisterProvider(
  { programId, mint }: Market,
  owner: Address,
  settings: ProviderRegistration,
): TransactionInstruction {
  const provider = providerAddress(programId, owner);
  const vault = stakeVaultAddress(programId, provider.address);
  return buildInstruction({
    programId,
    name: 'registerProvider',
    accounts: {
      owner,
      config: configAddress(programId).address,
      provider: provider.address,
      stakeVault: vault.address,
      payout: settings.payout,
      mint,
    },
    fields: {
      bump: provider.bump,
      vaultBump: vault.bump,
      commissionBps: settings.commissionBps,
      operator: settings.operator,
    },
  });
}

export function callUpdateProvider(
  { programId }: Market,
  owner: Address,
  settings: ProviderRegistration,
): TransactionInstruction {
  return buildInstruction({
    programId,
    name: 'updateProvider',
    accounts: {
      owner,
      config: configAddress(programId).address,
      provider: providerAddress(programId, owner).address,
      payout: settings.payout,
    },
    fields: { commissionBps: settings.commissionBps, operator: settings.operator },
  });
}

export function callStake(
  { programId }: Market,
  owner: Address,
  source: Address,
  amount: BaseUnits,
): TransactionInstruction {
  const provider = providerAddress(programId, owner).address;
  const stakeVault = stakeVaultAddress(programId, provider).address;
  return buildInstruction({
    programId,
    name: 'stake',
    accounts: { owner, provider, source, stakeVault },
    fields: { amount },
  });
}

export function callUnstake(
  { programId }: Market,
  owner: Address,
  destination: Address,
  amount: BaseUnits,
): TransactionInstruction {
  const provider = providerAddress(programId, owner).address;
  const stakeVault = stakeVaultAddress(programId, provider).address;
  return buildInstruction({
    programId,
    name: 'unstake',
    accounts: { owner, provider, stakeVault, destination },
    fields: { amount },
  });
}

export function callCreateBudget(
  { programId, mint }: Market,
  owner: Address,
  id: bigint,
  limits: BudgetLimits,
): TransactionInstruction {
  const budget = budgetAddress(programId, owner, id);
  const vault = vaultAddress(programId, budget.address);
  return buildInstruction({
    programId,
    name: 'createBudget',
    accounts: { owner, config: configAddress(programId).address, budget: budget.address, vault: vault.address, mint },
    fields: { bump: budget.bump, vaultBump: vault.bump, id, limits: limitsFields(limits) },
  });
}

/** Money into or out of a budget, between its vault and `account`. */
export interface BudgetMove {
  readonly budget: Address;
  readonly account: Address;
  readonly amount: BaseUnits;
}

export function callDeposit(
  { programId }: Market,
  depositor: Address,
  { budget, account, amount }: BudgetMove,
): TransactionInstruction {
  const vault = vaultAddress(programId, budget).address;
  return buildInstruction({
    programId,
    name: 'deposit',
    accounts: { depositor, budget, source: account, vault },
    fields: { amount },
  });
}

export function callWithdrawBudget(
  { programId }: Market,
  owner: Address,
  { budget, account, amount }: BudgetMove,
): TransactionInstruction {
  const vault = vaultAddress(programId, budget).address;
  return buildInstruction({
    programId,
    name: 'withdrawBudget',
    accounts: { owner, budget, vault, destination: account },
    fields: { amount },
  });
}

export function callSetDelegates(
  { programId }: Market,
  owner: Address,
  budget: Address,
  limits: BudgetLimits,
): TransactionInstruction {
  return buildInstruction({
    programId,
    name: 'setDelegates',
    accounts: { owner, budget },
    fields: { limits: limitsFields(limits) },
  });
}

export function callCloseBudget(
  { programId }: Market,
  owner: Address,
  budget: Address,
  destination: Address,
): TransactionInstruction {
  const vault = vaultAddress(programId, budget).address;
  return buildInstruction({
    programId,
    name: 'closeBudget',
    accounts: { owner, budget, vault, destination },
    fields: {},
  });
}

/** `payer` pays the rent of the lease and gets it back; it signs too. */
export function callOpenLease(
  { programId }: Market,
  terms: LeaseTerms,
  payer: Address = terms.delegate,
): TransactionInstruction {
  const lease = leaseAddress(programId, terms.budget, terms.termsDigest);
  return buildInstruction({
    programId,
    name: 'openLease',
    accounts: {
      payer,
      delegate: terms.delegate,
      operator: terms.operator,
      config: configAddress(programId).address,
      provider: terms.provider,
      budget: terms.budget,
      vault: vaultAddress(programId, terms.budget).address,
      lease: lease.address,
    },
    fields: {
      bump: lease.bump,
      graceSeconds: secondsUp(terms.graceMs),
      windowSeconds: secondsUp(terms.windowMs),
      amount: terms.amount,
      pricePerSecond: terms.pricePerSecond,
      reserve: terms.reserve,
      openBefore: BigInt(secondsDown(terms.openBeforeMs)),
      finishBy: BigInt(secondsUp(terms.finishByMs)),
      termsDigest: terms.termsDigest,
    },
  });
}

/** Result and claim of an operator. */
export interface ProofClaim {
  readonly lease: Address;
  readonly claimed: BaseUnits;
  readonly resultDigest: Uint8Array;
}

export function callSubmitProof({ programId }: Market, operator: Address, claim: ProofClaim): TransactionInstruction {
  const { lease, claimed, resultDigest } = claim;
  return buildInstruction({
    programId,
    name: 'submitProof',
    accounts: { operator, lease },
    fields: { claimed, resultDigest },
  });
}

/** The parties of a lease by whom an ending is signed. */
export type LeaseParty = 'delegate' | 'operator';

function closingAccounts({ programId }: Market, lease: LeaseAccount): InstructionAccounts<'expireLease'> {
  return {
    rentPayer: lease.rentPayer,
    provider: lease.provider,
    budget: lease.budget,
    lease: lease.address,
    vault: vaultAddress(programId, lease.budget).address,
    stakeVault: stakeVaultAddress(programId, lease.provider).address,
  };
}

function payingAccounts(market: Market, lease: LeaseAccount): InstructionAccounts<'settle'> {
  const { delegate, operator, payout } = lease;
  return { ...closingAccounts(market, lease), delegate, operator, payout, mint: market.mint };
}

/** What is settled: the amount and the result that it pays for. */
export interface Settlement {
  readonly amount: BaseUnits;
  readonly resultDigest: Uint8Array;
}

export function callSettle(
  market: Market,
  lease: LeaseAccount,
  settlement: Settlement,
  by: readonly LeaseParty[],
): TransactionInstruction {
  return buildInstruction({
    programId: market.programId,
    name: 'settle',
    accounts: payingAccounts(market, lease),
    fields: { amount: settlement.amount, resultDigest: settlement.resultDigest },
    signing: by.map((party) => lease[party]),
  });
}

export function callCancelLease(
  market: Market,
  lease: LeaseAccount,
  mostToPay: BaseUnits,
  by: readonly LeaseParty[],
): TransactionInstruction {
  return buildInstruction({
    programId: market.programId,
    name: 'cancelLease',
    accounts: payingAccounts(market, lease),
    fields: { amount: mostToPay },
    signing: by.map((party) => lease[party]),
  });
}

export function callExpireLease(market: Market, lease: LeaseAccount): TransactionInstruction {
  return buildInstruction({
    programId: market.programId,
    name: 'expireLease',
    accounts: closingAccounts(market, lease),
    fields: {},
  });
}
