/**
 * The chain as the rest of Molt sees it: accounts, terms, drafts and the `Chain` client, in Molt's own units.
 *
 * No library is imported here, so that a type costs nothing. Money is base units; times are Unix milliseconds and
 * durations milliseconds, which the chain keeps in whole seconds: `openBefore` rounds down, everything else up.
 */
import type { Address } from '../protocol/address.ts';
import type { FundedLease } from '../protocol/brands.ts';
import type { Signer } from '../protocol/ed25519.ts';
import type { BaseUnits } from '../protocol/units.ts';

/** Genesis hash of a cluster: base58 of 32 bytes. */
export type Network = Address;

/** What the authority of the market has set (Config account). Fractions are basis points. */
export interface Parameters {
  readonly stakeFeeBps: number;
  readonly burnFeeBps: number;
  /** A lease reserves at least this share of its amount, rounded up. */
  readonly reserveBps: number;
  /** Share of the amount that a no-show costs, capped by the reserve. */
  readonly noShowSlashBps: number;
  /** Share of a lease's amount, rounded up, that a buyer puts at risk with a dispute. */
  readonly disputeBondBps: number;
  /** Share of the whole stake that a proven equivocation costs. */
  readonly equivocationSlashBps: number;
  readonly minGraceMs: number;
  readonly minWindowMs: number;
  readonly maxLeaseMs: number;
  /** From unstaking to withdrawing; also the least time between two rotations of an operator. */
  readonly unbondingMs: number;
  /** For drawing verifiers, then for committing votes; and for revealing them. */
  readonly voteMs: number;
  readonly revealMs: number;
  /** A provider with less stake opens no lease. */
  readonly minStake: BaseUnits;
  /** What a drawn verifier loses when it reveals no vote. */
  readonly verifierPledge: BaseUnits;
}

/** The Config account. */
export interface ConfigAccount {
  readonly mint: Address;
  readonly network: Network;
  /** Undefined: given up for good. */
  readonly authority?: Address;
  readonly parameters: Parameters;
  /** Announced, and from when on anybody may apply it. */
  readonly queued?: { readonly parameters: Parameters; readonly applicableAtMs: number };
  /** Providers that can be drawn to judge a dispute. */
  readonly verifiers: readonly Address[];
}

/** Stake of one kind behind a provider: a share is worth `stake / shares`. */
export interface StakePool {
  readonly stake: BaseUnits;
  readonly shares: bigint;
  /** Those of the shares that are unbonding. */
  readonly unbonding: bigint;
  /** Rises when a slash takes everything: shares of an older generation are worth nothing. */
  readonly generation: number;
}

export interface ProviderAccount {
  readonly address: Address;
  readonly owner: Address;
  readonly operator: Address;
  readonly payout: Address;
  readonly stakeVault: Address;
  readonly commissionBps: number;
  readonly openLeases: number;
  /** What can back leases: own stake and delegations, without what is unbonding. */
  readonly stake: BaseUnits;
  readonly own: StakePool;
  readonly delegated: StakePool;
  /** Set aside for open leases, and for duties as a verifier. */
  readonly reserved: BaseUnits;
  /** Settlements that paid something. */
  readonly settledCount: bigint;
  readonly settledAmount: bigint;
  readonly feesBurned: bigint;
  /** Leases that expired without a proof, lost disputes, equivocations; and what they were about. */
  readonly faults: bigint;
  readonly faultAmount: bigint;
  readonly registeredAtMs: number;
  /** Stake lost so far. */
  readonly slashed: BaseUnits;
  /** Lost, but still standing behind open leases: until it is taken nobody withdraws and no lease opens. */
  readonly slashDue: BaseUnits;
  /** Opens no lease before; 0 when never jailed. */
  readonly jailedUntilMs: number;
  /** Its statements are slashable too. */
  readonly formerOperator?: Address;
}

/** What one staker has behind one provider. Values are what the shares are worth now. */
export interface DelegationAccount {
  readonly address: Address;
  readonly provider: Address;
  readonly staker: Address;
  readonly shares: bigint;
  readonly value: BaseUnits;
  /** On their way out; withdrawable from `unbondingUntilMs` on. They earn and are slashed until withdrawn. */
  readonly unbondingShares: bigint;
  readonly unbondingValue: BaseUnits;
  readonly unbondingUntilMs: number;
  /** Paid in and not withdrawn yet: yield, or loss, is the difference to both values. */
  readonly principal: BaseUnits;
}

/** One of the three who judge. */
export interface DisputeSeat {
  /** A provider account; its operator votes. */
  readonly verifier: Address;
  readonly committed: boolean;
  /** Once revealed: whose word it found to be true. */
  readonly vote?: Side;
  readonly pledge: BaseUnits;
}

/** Whose word a verifier found to be true. */
export type Side = 'provider' | 'buyer';

export interface DisputeAccount {
  readonly address: Address;
  readonly lease: Address;
  readonly provider: Address;
  /** Paid the rent of the account and gets it back. */
  readonly rentPayer: Address;
  readonly bond: BaseUnits;
  /** The verifiers come from the hash of the first slot after this one. */
  readonly slot: bigint;
  /** Empty before the draw. */
  readonly seats: readonly DisputeSeat[];
  /** Before the draw: until when it can be made; after it: until when votes are committed. */
  readonly voteUntilMs: number;
  /** 0 before the draw. */
  readonly revealUntilMs: number;
}

/** A proven equivocation. */
export interface OffenceAccount {
  readonly address: Address;
  readonly provider: Address;
  /** Who showed it first. */
  readonly reporter: Address;
  /** The budget that is compensated. */
  readonly harmed?: Address;
  readonly amount: BaseUnits;
  /** Still behind open leases; anyone takes it later with `collectSlash`. */
  readonly due: BaseUnits;
  readonly provenAtMs: number;
}

/** Two commits of one signer that contradict each other, as signed: 136 and 64 bytes each. */
export interface Equivocation {
  readonly signer: Address;
  readonly commits: readonly [Uint8Array, Uint8Array];
  readonly signatures: readonly [Uint8Array, Uint8Array];
}

/** Who may lease with a budget, up to what, until when. */
export interface BudgetLimits {
  /** One to four node keys. */
  readonly delegates: readonly Address[];
  readonly capPerLease: BaseUnits;
  /** Per UTC day, counted when a lease opens; what a lease does not spend is given back on the same day. */
  readonly capPerDay: BaseUnits;
  readonly expiresAtMs: number;
}

export interface BudgetAccount extends BudgetLimits {
  readonly address: Address;
  readonly id: bigint;
  readonly owner: Address;
  readonly vault: Address;
  readonly openLeases: number;
  readonly locked: BaseUnits;
  /** What can be leased or withdrawn. */
  readonly free: BaseUnits;
  /** Counted on the UTC day that starts at `dayStartMs`; on a later day nothing is spent yet. */
  readonly spentOnDay: BaseUnits;
  readonly dayStartMs: number;
}

export interface LeaseAccount {
  readonly address: Address;
  readonly budget: Address;
  readonly provider: Address;
  readonly operator: Address;
  readonly delegate: Address;
  /** Paid the rent of the account and gets it back. */
  readonly rentPayer: Address;
  /** Takes the payout; fixed when the lease opened. */
  readonly payout: Address;
  readonly termsDigest: Uint8Array;
  readonly amount: BaseUnits;
  readonly pricePerSecond: BaseUnits;
  readonly reserve: BaseUnits;
  /** Paid by vouchers so far; no ending pays less. */
  readonly redeemed: BaseUnits;
  readonly state: 'running' | 'proven' | 'disputed';
  readonly openedAtMs: number;
  readonly finishByMs: number;
  readonly graceMs: number;
  readonly windowMs: number;
  readonly stakeFeeBps: number;
  readonly burnFeeBps: number;
  readonly noShowSlashBps: number;
  readonly disputeBondBps: number;
  /** The provider's share of what delegators earn, fixed when the lease opened. */
  readonly commissionBps: number;
  /** Present once proven. */
  readonly proof?: { readonly claimed: BaseUnits; readonly resultDigest: Uint8Array; readonly provenAtMs: number };
}

/** What buyer and provider agreed; both derive the same transaction from it. */
export interface LeaseTerms {
  readonly budget: Address;
  readonly provider: Address;
  readonly operator: Address;
  readonly delegate: Address;
  /** 32 bytes. */
  readonly termsDigest: Uint8Array;
  readonly amount: BaseUnits;
  readonly pricePerSecond: BaseUnits;
  readonly reserve: BaseUnits;
  readonly openBeforeMs: number;
  readonly finishByMs: number;
  readonly graceMs: number;
  readonly windowMs: number;
}

/** New totals of a running lease; none is lower than before. */
export interface LeaseExtension {
  readonly amount: BaseUnits;
  readonly reserve: BaseUnits;
  readonly finishByMs: number;
}

/** A transaction that is not signed yet: the exact bytes to sign, and who must, fee payer first. */
export interface Draft {
  readonly message: Uint8Array;
  readonly signers: readonly Address[];
}

/** The leases that one transaction opens. */
export interface OpeningDraft extends Draft {
  readonly terms: readonly LeaseTerms[];
}

/** One signature per signer of the draft, or the signers themselves. */
export type Signatures = ReadonlyMap<Address, Uint8Array> | readonly Signer[];

/** A confirmed transaction, base58. */
export interface Confirmed {
  readonly signature: string;
}

/** How a lease ended, from the event that the program emits. */
export interface LeaseEnding {
  readonly ending:
    | 'settledTogether'
    | 'settledByDelegate'
    | 'settledAfterWindow'
    | 'cancelledByOperator'
    | 'cancelledByDelegate'
    | 'cancelledTogether'
    | 'expired'
    | 'resolvedForProvider'
    | 'resolvedForBuyer'
    | 'resolvedNeutral';
  readonly lease: Address;
  readonly budget: Address;
  readonly provider: Address;
  readonly resultDigest: Uint8Array;
  /** Since the opening, vouchers included. */
  readonly paid: BaseUnits;
  readonly refunded: BaseUnits;
  /** Of the last payment. */
  readonly burned: BaseUnits;
  readonly staked: BaseUnits;
  readonly slashed: BaseUnits;
  /** Transaction that ended it. */
  readonly signature: string;
}

/** Stake that was lost, from the event that the program emits. */
export interface StakeSlash {
  readonly reason: 'noShow' | 'wrongResult' | 'equivocation' | 'missedVote';
  readonly provider: Address;
  /** Lost by the owner and by delegators. */
  readonly own: BaseUnits;
  readonly delegated: BaseUnits;
  /** Where it went: to buyer and reporter, or nowhere. */
  readonly paid: BaseUnits;
  readonly burned: BaseUnits;
  readonly signature: string;
}

/** Money redeemed by a voucher, from the event that the program emits. */
export interface VoucherPayment {
  readonly lease: Address;
  readonly budget: Address;
  readonly provider: Address;
  /** Since the opening, this payment included. */
  readonly redeemed: BaseUnits;
  /** Of this payment. */
  readonly burned: BaseUnits;
  readonly staked: BaseUnits;
}

/** What one transaction told about leases and stake. */
export interface ChainRecord {
  readonly signature: string;
  /** Time of its block; whole seconds. */
  readonly atMs: number;
  readonly vouchers: readonly VoucherPayment[];
  readonly endings: readonly LeaseEnding[];
  readonly slashes: readonly StakeSlash[];
}

/** What a confirmed transaction cost. */
export interface TransactionCost {
  readonly feeLamports: bigint;
  readonly computeUnits: number;
}

export interface ChainOptions {
  /** http or https; the websocket is on the same host, one port higher where a port is named. */
  readonly rpcUrl: string;
  /** Default: the address at which the local chain installs the program. */
  readonly programId?: Address;
  /** Refuses any other cluster with `chain/wrong-network`. */
  readonly expectedNetwork?: Network;
}

/**
 * The client of one market on one cluster. Every method may throw `chain/unreachable`; those that send a transaction
 * also `chain/refused` and the closer codes of the catalogue, `chain/blockhash-expired`, `chain/not-confirmed` (its fate
 * is unknown: look at the accounts before trying again) and `chain/insufficient-funds`.
 */
export interface Chain extends AsyncDisposable {
  readonly network: Network;
  readonly programId: Address;
  readonly mint: Address;
  readonly parameters: Parameters;

  leaseAddress(budget: Address, termsDigest: Uint8Array): Address;
  providerAddress(owner: Address): Address;
  budgetAddress(owner: Address, id: bigint): Address;
  delegationAddress(provider: Address, staker: Address): Address;
  disputeAddress(lease: Address): Address;
  /** The token account in which `owner` holds MOLT by default. */
  tokenAddress(owner: Address): Address;

  provider(address: Address): Promise<ProviderAccount | undefined>;
  /** At most 100 in one request; undefined for what is no provider of this market. */
  providersAt(addresses: readonly Address[]): Promise<(ProviderAccount | undefined)[]>;
  budget(address: Address): Promise<BudgetAccount | undefined>;
  lease(address: Address): Promise<LeaseAccount | undefined>;
  /** All open leases that match every given key. */
  leases(filter: {
    readonly operator?: Address;
    readonly delegate?: Address;
    readonly budget?: Address;
  }): Promise<LeaseAccount[]>;
  /** What is staked, with its value now. */
  delegation(address: Address): Promise<DelegationAccount | undefined>;
  delegationsOf(staker: Address): Promise<DelegationAccount[]>;
  /** The open dispute about a lease. */
  dispute(lease: Address): Promise<DisputeAccount | undefined>;
  /** All open disputes. */
  disputes(): Promise<DisputeAccount[]>;
  /** Parameters as they are now, what is announced, and the verifiers. */
  config(): Promise<ConfigAccount>;
  /** The latest slashes of a provider, newest first, from its last transactions. */
  slashes(provider: Address): Promise<StakeSlash[]>;
  /** All registered providers: the market's ranking reads their history. */
  providers(): Promise<ProviderAccount[]>;
  /** The lease now and after every change, `undefined` once it is closed; ends when `signal` aborts. */
  watchLease(address: Address, signal: AbortSignal): AsyncIterable<LeaseAccount | undefined>;
  /** How a closed lease ended; undefined while it is open or was never opened. */
  leaseEnding(address: Address): Promise<LeaseEnding | undefined>;
  /**
   * What the transactions that named an account told, newest first, back to `sinceMs`. An endpoint that keeps less
   * history ends earlier.
   */
  history(account: Address, sinceMs: number): AsyncIterable<ChainRecord>;
  /** Time of the Clock sysvar, which decides about deadlines; whole seconds. */
  chainTimeMs(): Promise<number>;
  /** Lamports of a wallet and the tokens of its default token account. */
  balances(owner: Address): Promise<{ readonly lamports: bigint; readonly tokens: BaseUnits }>;
  transactionCost(signature: string): Promise<TransactionCost | undefined>;

  /** Not older than a few seconds, usually without a request. */
  recentBlockhash(): Promise<string>;
  draftOpenLease(terms: LeaseTerms, blockhash: string): Draft;
  /**
   * Leases of one delegate in few transactions: all leases of one draft open, or none of them does. A draft holds as many
   * as fit into one transaction, three, and no two of one operator.
   */
  draftOpenLeases(terms: readonly LeaseTerms[], blockhash: string): readonly OpeningDraft[];
  /**
   * For the operator of `terms`: throws `chain/transaction-mismatch` unless its signature under this message opens this
   * lease and does nothing else.
   */
  assertOpens(message: Uint8Array, terms: LeaseTerms): void;
  draftSettle(lease: LeaseAccount, amount: BaseUnits, resultDigest: Uint8Array, blockhash: string): Draft;
  /** Both sign; pays `amount` or what the time costs, whichever is less. */
  draftCancel(lease: LeaseAccount, amount: BaseUnits, blockhash: string): Draft;
  draftExtend(lease: LeaseAccount, extension: LeaseExtension, blockhash: string): Draft;
  submit(draft: Draft, signatures: Signatures): Promise<Confirmed>;
  /** The lease, if it is on chain, running, and carries exactly these terms; else throws `chain/lease-mismatch`. */
  fundedLease(address: Address, terms: LeaseTerms): Promise<FundedLease<LeaseAccount>>;

  /** `payout` defaults to the owner's default token account, which is made where it is missing. */
  registerProvider(owner: Signer, settings: ProviderSettings & { readonly operator: Address }): Promise<Confirmed>;
  /** What is not given stays. */
  updateProvider(owner: Signer, settings: ProviderSettings): Promise<Confirmed>;
  /** Stakes behind a provider; the owner's stake is the provider's own. */
  stake(staker: Signer, provider: Address, amount: BaseUnits): Promise<Confirmed>;
  /** Starts the unbonding time of shares worth `amount` now; all of them where that is no more than they are worth. */
  unstake(staker: Signer, provider: Address, amount: BaseUnits): Promise<Confirmed>;
  /** Pays out everything that has unbonded. */
  withdrawStake(staker: Signer, provider: Address): Promise<Confirmed>;
  createBudget(
    owner: Signer,
    id: bigint,
    limits: BudgetLimits,
    deposit?: BaseUnits,
  ): Promise<Confirmed & { readonly budget: Address }>;
  deposit(depositor: Signer, budget: Address, amount: BaseUnits): Promise<Confirmed>;
  withdrawBudget(owner: Signer, budget: Address, amount: BaseUnits): Promise<Confirmed>;
  setDelegates(owner: Signer, budget: Address, limits: BudgetLimits): Promise<Confirmed>;
  closeBudget(owner: Signer, budget: Address): Promise<Confirmed>;
  submitProof(operator: Signer, lease: Address, claimed: BaseUnits, resultDigest: Uint8Array): Promise<Confirmed>;
  /** Pays the claim; the signer only pays the transaction fee. */
  settleAfterWindow(payer: Signer, lease: LeaseAccount): Promise<Confirmed>;
  /** The whole lock, or the claim. */
  settleAlone(delegate: Signer, lease: LeaseAccount, amount: BaseUnits, resultDigest: Uint8Array): Promise<Confirmed>;
  cancelByOperator(operator: Signer, lease: LeaseAccount): Promise<Confirmed>;
  /** Refused when the time used costs more than `mostToPay` (default: the lock). */
  cancelByDelegate(delegate: Signer, lease: LeaseAccount, mostToPay?: BaseUnits): Promise<Confirmed>;
  expireLease(payer: Signer, lease: LeaseAccount): Promise<Confirmed>;
  /** Pays the difference to what was redeemed before. `signature` is the delegate's, over `encodeVoucher`. */
  redeemVoucher(operator: Signer, lease: LeaseAccount, amount: BaseUnits, signature: Uint8Array): Promise<Confirmed>;
  /** Locks the bond in the budget; inside the challenge window. */
  openDispute(delegate: Signer, lease: LeaseAccount): Promise<Confirmed>;
  /** Anyone; at the earliest one slot after the dispute. */
  drawVerifiers(payer: Signer, lease: Address): Promise<Confirmed>;
  /** `salt`: 32 bytes that the verifier keeps until it reveals. */
  commitVote(operator: Signer, vote: Vote): Promise<Confirmed>;
  revealVote(operator: Signer, vote: Vote): Promise<Confirmed>;
  /**
   * What takes the provider of `owner` into the list of verifiers, paid by the owner. `authority` is the market's; both sign.
   */
  draftAdmitVerifier(owner: Address, authority: Address, blockhash: string): Draft;
  /** Takes the provider of `owner` off the list; the owner signs, or the market's authority. */
  dismissVerifier(signer: Signer, owner: Address): Promise<Confirmed>;
  /** Anyone; when all votes are revealed or their time has passed. */
  resolveDispute(payer: Signer, lease: LeaseAccount): Promise<Confirmed>;
  /** Anyone. `harmedBudget`: the account that the first of the commits names, which is then compensated. */
  slashEquivocation(
    reporter: Signer,
    provider: Address,
    evidence: Equivocation,
    harmedBudget?: Address,
  ): Promise<Confirmed>;
  /** Proven equivocations of a provider. */
  offences(provider: Address): Promise<OffenceAccount[]>;
  /** Anyone: takes what an offence still owes, once leases have ended, for the reporter's reward. */
  collectSlash(reporter: Signer, offence: OffenceAccount): Promise<Confirmed>;
}

/** What a verifier says about a lease. */
export interface Vote {
  readonly lease: Address;
  /** The provider account whose operator votes. */
  readonly verifier: Address;
  readonly side: Side;
  readonly salt: Uint8Array;
}

export interface ProviderSettings {
  readonly operator?: Address;
  readonly payout?: Address;
  readonly commissionBps?: number;
}
