/**
 * What each operation of a market calls on the program: pure functions from values to instructions.
 *
 * The client, the local chain and the tests build their transactions here, so accounts are filled in at one place.
 */
import type { TransactionInstruction } from '@solana/web3.js';

import type { Address } from '../protocol/address.ts';
import type { BaseUnits } from '../protocol/units.ts';
import { NOBODY, limitsFields, parametersFields, secondsDown, secondsUp } from './accounts.ts';
import {
  budgetAddress,
  configAddress,
  delegationAddress,
  disputeAddress,
  leaseAddress,
  offenceAddress,
  programDataAddress,
  providerAddress,
  stakeVaultAddress,
  vaultAddress,
  type Derived,
} from './addresses.ts';
import type {
  BudgetLimits,
  DisputeAccount,
  Equivocation,
  LeaseAccount,
  LeaseExtension,
  LeaseTerms,
  OffenceAccount,
  Parameters,
  Vote,
} from './chain.ts';
import {
  INSTRUCTIONS_SYSVAR,
  SLOT_HASHES_SYSVAR,
  offenceDigest,
  verifySignatures,
  voteCommitment,
  type SignedMessage,
} from './evidence.ts';
import { buildInstruction, type InstructionAccounts } from './instructions.ts';
import { VOTES } from './layout.ts';

/** One deployment: the program and the mint of its Config. */
export interface Market {
  readonly programId: Address;
  readonly mint: Address;
}

/** `network`: genesis hash of the cluster, to which signed statements are bound from then on. */
export function callInitialize(
  market: Market,
  authority: Address,
  parameters: Parameters,
  network: Address,
): TransactionInstruction {
  return buildInstruction({
    programId: market.programId,
    name: 'initialize',
    accounts: {
      authority,
      config: configAddress(market.programId).address,
      mint: market.mint,
      programData: programDataAddress(market.programId),
    },
    fields: { parameters: parametersFields(parameters), network },
  });
}

/** Announces parameters; two days later anybody can apply them. */
export function callQueueParameters(
  market: Market,
  authority: Address,
  parameters: Parameters,
): TransactionInstruction {
  return buildInstruction({
    programId: market.programId,
    name: 'queueParameters',
    accounts: { authority, config: configAddress(market.programId).address },
    fields: { parameters: parametersFields(parameters) },
  });
}

export function callApplyParameters({ programId }: Market): TransactionInstruction {
  return buildInstruction({
    programId,
    name: 'applyParameters',
    accounts: { config: configAddress(programId).address },
    fields: {},
  });
}

/** Hands over to a key, which signs too; undefined gives the authority up for good. */
export function callSetAuthority({ programId }: Market, authority: Address, to?: Address): TransactionInstruction {
  return buildInstruction({
    programId,
    name: 'setAuthority',
    accounts: { authority, config: configAddress(programId).address, newAuthority: to ?? NOBODY },
    fields: {},
    signing: to === undefined ? [] : [to],
  });
}

/** A provider joins the verifiers (authority and owner sign) or leaves them (either signs). */
export function callSetVerifier(
  { programId }: Market,
  people: { readonly authority: Address; readonly owner: Address },
  isMember: boolean,
  signing: readonly Address[],
): TransactionInstruction {
  const { address } = providerAddress(programId, people.owner);
  return buildInstruction({
    programId,
    name: 'setVerifier',
    accounts: { ...people, config: configAddress(programId).address, provider: address },
    fields: { member: isMember ? 1 : 0 },
    signing,
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

/** Whose stake behind whom. */
export interface Staking {
  readonly staker: Address;
  /** The provider account. */
  readonly provider: Address;
}

export function callStake(
  { programId }: Market,
  { staker, provider }: Staking,
  source: Address,
  amount: BaseUnits,
): TransactionInstruction {
  const delegation = delegationAddress(programId, provider, staker);
  const stakeVault = stakeVaultAddress(programId, provider).address;
  return buildInstruction({
    programId,
    name: 'stake',
    accounts: { staker, provider, delegation: delegation.address, source, stakeVault },
    fields: { bump: delegation.bump, amount },
  });
}

export function callUnstake({ programId }: Market, staking: Staking, shares: bigint): TransactionInstruction {
  const { staker, provider } = staking;
  const delegation = delegationAddress(programId, provider, staker).address;
  return buildInstruction({
    programId,
    name: 'unstake',
    accounts: { staker, config: configAddress(programId).address, provider, delegation },
    fields: { shares },
  });
}

export function callWithdrawStake(
  { programId }: Market,
  { staker, provider }: Staking,
  destination: Address,
): TransactionInstruction {
  const delegation = delegationAddress(programId, provider, staker).address;
  const stakeVault = stakeVaultAddress(programId, provider).address;
  return buildInstruction({
    programId,
    name: 'withdrawStake',
    accounts: { staker, provider, delegation, stakeVault, destination },
    fields: {},
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

function closingAccounts({ programId, mint }: Market, lease: LeaseAccount): InstructionAccounts<'expireLease'> {
  return {
    rentPayer: lease.rentPayer,
    provider: lease.provider,
    budget: lease.budget,
    lease: lease.address,
    vault: vaultAddress(programId, lease.budget).address,
    stakeVault: stakeVaultAddress(programId, lease.provider).address,
    mint,
  };
}

function payingAccounts(market: Market, lease: LeaseAccount): InstructionAccounts<'settle'> {
  const { delegate, operator, payout } = lease;
  return { ...closingAccounts(market, lease), delegate, operator, payout };
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

export function callExtendLease(
  { programId }: Market,
  lease: LeaseAccount,
  extension: LeaseExtension,
): TransactionInstruction {
  const { delegate, operator, provider, budget } = lease;
  return buildInstruction({
    programId,
    name: 'extendLease',
    accounts: {
      delegate,
      operator,
      config: configAddress(programId).address,
      provider,
      budget,
      vault: vaultAddress(programId, budget).address,
      lease: lease.address,
    },
    fields: {
      amount: extension.amount,
      reserve: extension.reserve,
      finishBy: BigInt(secondsUp(extension.finishByMs)),
    },
  });
}

/** The verification of the voucher and its redemption, in this order. */
export function callRedeemVoucher(
  market: Market,
  lease: LeaseAccount,
  amount: BaseUnits,
  voucher: SignedMessage,
): TransactionInstruction[] {
  const redeem = buildInstruction({
    programId: market.programId,
    name: 'redeemVoucher',
    accounts: {
      ...payingAccounts(market, lease),
      config: configAddress(market.programId).address,
      instructions: INSTRUCTIONS_SYSVAR,
    },
    fields: { amount },
    signing: [lease.operator],
  });
  return [verifySignatures(lease.delegate, [voucher]), redeem];
}

/** The delegate pays the rent of the dispute and gets it back. */
export function callDispute({ programId }: Market, lease: LeaseAccount): TransactionInstruction {
  const dispute = disputeAddress(programId, lease.address);
  return buildInstruction({
    programId,
    name: 'dispute',
    accounts: {
      delegate: lease.delegate,
      config: configAddress(programId).address,
      budget: lease.budget,
      vault: vaultAddress(programId, lease.budget).address,
      lease: lease.address,
      dispute: dispute.address,
    },
    fields: { bump: dispute.bump },
  });
}

/** Provider accounts, in the order of the draw. */
type Drawn = readonly [Address, Address, Address];

export function callDraw({ programId }: Market, lease: Address, drawn: Drawn): TransactionInstruction {
  const [verifier0, verifier1, verifier2] = drawn;
  return buildInstruction({
    programId,
    name: 'draw',
    accounts: {
      config: configAddress(programId).address,
      dispute: disputeAddress(programId, lease).address,
      slotHashes: SLOT_HASHES_SYSVAR,
      verifier0,
      verifier1,
      verifier2,
    },
    fields: {},
  });
}

export function callVote({ programId }: Market, operator: Address, vote: Vote): TransactionInstruction {
  const dispute = disputeAddress(programId, vote.lease).address;
  const { verifier, side, salt } = vote;
  return buildInstruction({
    programId,
    name: 'vote',
    accounts: { operator, verifier, dispute },
    fields: { commitment: voteCommitment(dispute, verifier, side, salt) },
  });
}

export function callRevealVote({ programId }: Market, operator: Address, vote: Vote): TransactionInstruction {
  const { verifier, side, salt } = vote;
  return buildInstruction({
    programId,
    name: 'revealVote',
    accounts: { operator, verifier, dispute: disputeAddress(programId, vote.lease).address },
    fields: { vote: VOTES[side], salt },
  });
}

/** Before the draw nobody stands in the places of the verifiers; the lease's own provider fills them. */
export function callResolve(market: Market, lease: LeaseAccount, dispute: DisputeAccount): TransactionInstruction {
  const { programId } = market;
  const [verifier0, verifier1, verifier2] = [0, 1, 2].map(
    (seat) => dispute.seats[seat]?.verifier ?? lease.provider,
  ) as [Address, Address, Address];
  return buildInstruction({
    programId,
    name: 'resolve',
    accounts: {
      ...closingAccounts(market, lease),
      payout: lease.payout,
      dispute: dispute.address,
      disputeRentPayer: dispute.rentPayer,
      verifier0,
      stakeVault0: stakeVaultAddress(programId, verifier0).address,
      verifier1,
      stakeVault1: stakeVaultAddress(programId, verifier1).address,
      verifier2,
      stakeVault2: stakeVaultAddress(programId, verifier2).address,
    },
    fields: {},
  });
}

/** Who reports about whom, and the token account for the reward. */
export interface Report {
  readonly reporter: Address;
  readonly reward: Address;
  readonly provider: Address;
}

function slashCall(
  market: Market,
  report: Report,
  offence: Derived,
  harmed: Address | undefined,
): TransactionInstruction {
  const { programId, mint } = market;
  const { reporter, reward, provider } = report;
  const stakeVault = stakeVaultAddress(programId, provider).address;
  return buildInstruction({
    programId,
    name: 'slashEquivocation',
    accounts: {
      reporter,
      config: configAddress(programId).address,
      provider,
      offence: offence.address,
      stakeVault,
      mint,
      reward,
      harmedBudget: harmed ?? provider,
      harmedVault: harmed === undefined ? stakeVault : vaultAddress(programId, harmed).address,
      instructions: INSTRUCTIONS_SYSVAR,
    },
    fields: { bump: offence.bump },
  });
}

/** The verification of both commits and the slash, in this order. The reporter pays the rent of the Offence account. */
export function callSlashEquivocation(
  market: Market,
  report: Report,
  evidence: Equivocation,
  harmedBudget?: Address,
): TransactionInstruction[] {
  const offence = offenceAddress(market.programId, report.provider, offenceDigest(evidence));
  const signed = evidence.commits.map((message, index) => ({
    message,
    signature: evidence.signatures[index] ?? new Uint8Array(),
  }));
  return [verifySignatures(evidence.signer, signed), slashCall(market, report, offence, harmedBudget)];
}

/** What an offence still owes, now that leases have ended; the evidence is not needed again. */
export function callCollectSlash(market: Market, report: Report, offence: OffenceAccount): TransactionInstruction {
  return slashCall(market, report, { address: offence.address, bump: 0 }, offence.harmed);
}
