/** The `Chain` client over Solana JSON-RPC. Imported lazily by chain/index.ts: its libraries take a while to load. */
import {
  PublicKey,
  type Connection,
  type GetProgramAccountsFilter,
  type TransactionInstruction,
} from '@solana/web3.js';
import { base58btc } from 'multiformats/bases/base58';

import { parseAddress, type Address } from '../protocol/address.ts';
import type { FundedLease } from '../protocol/brands.ts';
import type { Signer } from '../protocol/ed25519.ts';
import type { Env } from '../protocol/env.ts';
import { MoltError, assert, hasCode } from '../protocol/errors.ts';
import { baseUnits, type BaseUnits } from '../protocol/units.ts';
import { encodeVoucher } from '../protocol/voucher.ts';
import {
  leaseDifference,
  poolOf,
  readBudget,
  readConfig,
  readDelegation,
  readDispute,
  readEndings,
  readLease,
  readOffence,
  readProvider,
  readSlashes,
  readVouchers,
  tokenAmount,
} from './accounts.ts';
import {
  budgetAddress,
  configAddress,
  delegationAddress,
  disputeAddress,
  leaseAddress,
  providerAddress,
  tokenAddress,
  vaultAddress,
} from './addresses.ts';
import * as calls from './calls.ts';
import type {
  BudgetAccount,
  BudgetLimits,
  Chain,
  ChainOptions,
  ChainRecord,
  ConfigAccount,
  Confirmed,
  DelegationAccount,
  DisputeAccount,
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
  Signatures,
  StakeSlash,
  TransactionCost,
  Vote,
} from './chain.ts';
import { decodeAccount } from './codec.ts';
import { ComputeBudget } from './compute.ts';
import { openConnection, type OpenConnection } from './connection.ts';
import { SLOT_HASHES_SYSVAR, drawnVerifiers } from './evidence.ts';
import { LOCAL_PROGRAM_ID, buildDraft, fitsTransaction } from './instructions.ts';
import { ACCOUNTS, fieldOffset, type AccountKind } from './layout.ts';
import { assertOpensOnly } from './opening.ts';
import { reach, submitDraft } from './submit.ts';
import { createTokenAccount } from './token.ts';
import { watchAccount } from './watch.ts';

/** What one request of a cluster may read. */
const READ_MAX = 100;
const CLOCK_SYSVAR = 'SysvarC1ock11111111111111111111111111111111' as Address;
/** A blockhash lives for about 60 s: up to FRESH it is used as it is, up to STALE used while the next one is fetched. */
const BLOCKHASH_FRESH_MS = 2_000;
const BLOCKHASH_STALE_MS = 15_000;
/** Transactions of an account that are searched for an event, newest first. */
const ENDING_SEARCH_MAX = 50;
/** Signatures asked for at once, the most that a cluster gives; and transactions read at the same time. */
const HISTORY_PAGE = 1_000;
const HISTORY_READS = 8;

/** Reads genesis hash and Config. Throws `chain/unreachable`, `chain/wrong-network`, `chain/not-deployed`. */
export async function openChain(env: Env, options: ChainOptions): Promise<Chain> {
  const opened = openConnection(env, options.rpcUrl);
  const { connection } = opened;
  const programId = options.programId ?? LOCAL_PROGRAM_ID;
  const [genesis, config] = await Promise.all([
    reach(connection.getGenesisHash()),
    reach(connection.getAccountInfo(new PublicKey(configAddress(programId).address))),
  ]);
  const network = parseAddress(genesis);
  if (options.expectedNetwork !== undefined && options.expectedNetwork !== network) {
    throw new MoltError(
      'chain/wrong-network',
      `expected the cluster with genesis hash ${options.expectedNetwork}, but ${options.rpcUrl} serves ${network}: change rpcUrl or the network`,
      { expected: options.expectedNetwork, network },
    );
  }
  if (config === null || config.owner.toBase58() !== programId) {
    throw new MoltError(
      'chain/not-deployed',
      `the program ${programId} has no config on this cluster: check programId, or start a local chain with "molt devnet"`,
      { programId },
    );
  }
  const { mint, parameters } = readConfig(config.data);
  return new SolanaChain(env, opened, { network, programId, mint, parameters });
}

interface Deployment extends calls.Market {
  readonly network: Network;
  readonly parameters: Parameters;
}

class SolanaChain implements Chain {
  readonly network: Network;
  readonly programId: Address;
  readonly mint: Address;
  readonly parameters: Parameters;
  readonly #env: Env;
  readonly #opened: OpenConnection;
  readonly #connection: Connection;
  readonly #market: calls.Market;
  readonly #compute: ComputeBudget;
  readonly #closing = new AbortController();
  #blockhash: { readonly value: string; readonly atMs: number } | undefined;
  #fetching: Promise<string> | undefined;

  constructor(env: Env, opened: OpenConnection, deployment: Deployment) {
    this.#env = env;
    this.#opened = opened;
    this.#connection = opened.connection;
    this.#compute = new ComputeBudget(env, opened.connection);
    this.network = deployment.network;
    this.programId = deployment.programId;
    this.mint = deployment.mint;
    this.parameters = deployment.parameters;
    this.#market = { programId: deployment.programId, mint: deployment.mint };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new MoltError('node/stopped', 'the chain client was closed'));
    await this.#fetching?.catch(() => undefined);
    this.#opened[Symbol.dispose]();
  }

  // Addresses

  leaseAddress(budget: Address, termsDigest: Uint8Array): Address {
    return leaseAddress(this.programId, budget, termsDigest).address;
  }

  providerAddress(owner: Address): Address {
    return providerAddress(this.programId, owner).address;
  }

  budgetAddress(owner: Address, id: bigint): Address {
    return budgetAddress(this.programId, owner, id).address;
  }

  delegationAddress(provider: Address, staker: Address): Address {
    return delegationAddress(this.programId, provider, staker).address;
  }

  disputeAddress(lease: Address): Address {
    return disputeAddress(this.programId, lease).address;
  }

  tokenAddress(owner: Address): Address {
    return tokenAddress(owner, this.mint);
  }

  // Reading

  async #read(
    addresses: readonly Address[],
  ): Promise<({ readonly data: Uint8Array; readonly lamports: number; readonly owner: string } | undefined)[]> {
    const infos = await reach(
      this.#connection.getMultipleAccountsInfo(addresses.map((address) => new PublicKey(address))),
    );
    return infos
      .map((info) => info && { data: info.data, lamports: info.lamports, owner: info.owner.toBase58() })
      .map((info) => info ?? undefined);
  }

  /** Data of an account of the program; undefined where there is none. */
  async #readOwn(address: Address): Promise<Uint8Array | undefined> {
    const [info] = await this.#read([address]);
    if (info === undefined || info.data.length === 0) return undefined;
    this.#requireOwn(address, info.owner);
    return info.data;
  }

  #requireOwn(address: Address, owner: string): void {
    if (owner === this.programId) return;
    throw new MoltError(
      'chain/account-malformed',
      `${address} belongs to ${owner}, not to the program ${this.programId}: check the address`,
      { address },
    );
  }

  async provider(address: Address): Promise<ProviderAccount | undefined> {
    const data = await this.#readOwn(address);
    return data && readProvider(address, data);
  }

  async providersAt(addresses: readonly Address[]): Promise<(ProviderAccount | undefined)[]> {
    assert(addresses.length <= READ_MAX, 'one request reads at most 100 accounts');
    const found = addresses.length === 0 ? [] : await this.#read(addresses);
    return addresses.map((address, index) => {
      const info = found[index];
      if (info?.owner !== this.programId) return undefined;
      try {
        return readProvider(address, info.data);
      } catch (error) {
        // An account of another kind; whoever named it is no provider.
        if (hasCode(error, 'chain/account-malformed')) return undefined;
        throw error;
      }
    });
  }

  async budget(address: Address): Promise<BudgetAccount | undefined> {
    const [info, vault] = await this.#read([address, vaultAddress(this.programId, address).address]);
    if (info === undefined || info.data.length === 0) return undefined;
    this.#requireOwn(address, info.owner);
    return readBudget(address, info.data, tokenAmount(vault?.data));
  }

  async lease(address: Address): Promise<LeaseAccount | undefined> {
    const data = await this.#readOwn(address);
    return data && readLease(address, data);
  }

  async #search(
    kind: AccountKind,
    keys: Readonly<Record<string, Address | undefined>>,
  ): Promise<{ address: Address; data: Uint8Array }[]> {
    const { tag, fields } = ACCOUNTS[kind];
    const filters: GetProgramAccountsFilter[] = [
      { memcmp: { offset: 0, bytes: base58btc.baseEncode(Uint8Array.of(tag)) } },
    ];
    for (const [name, key] of Object.entries(keys)) {
      if (key !== undefined) filters.push({ memcmp: { offset: fieldOffset(fields, name), bytes: key } });
    }
    const found = await reach(this.#connection.getProgramAccounts(new PublicKey(this.programId), { filters }));
    return found.map(({ pubkey, account }) => ({ address: pubkey.toBase58() as Address, data: account.data }));
  }

  async leases(filter: {
    readonly operator?: Address;
    readonly delegate?: Address;
    readonly budget?: Address;
  }): Promise<LeaseAccount[]> {
    const { operator, delegate, budget } = filter;
    const found = await this.#search('lease', { operator, delegate, budget });
    return found.map(({ address, data }) => readLease(address, data));
  }

  async providers(): Promise<ProviderAccount[]> {
    const found = await this.#search('provider', {});
    return found.map(({ address, data }) => readProvider(address, data));
  }

  async delegation(address: Address): Promise<DelegationAccount | undefined> {
    const data = await this.#readOwn(address);
    return data && this.#valued({ address, data });
  }

  async delegationsOf(staker: Address): Promise<DelegationAccount[]> {
    return Promise.all((await this.#search('delegation', { staker })).map((found) => this.#valued(found)));
  }

  /** A delegation beside the provider that says what its shares are worth. */
  async #valued({
    address,
    data,
  }: {
    readonly address: Address;
    readonly data: Uint8Array;
  }): Promise<DelegationAccount> {
    const provider = await this.provider(decodeAccount('delegation', data).provider);
    assert(provider, 'provider accounts are never closed');
    return readDelegation(address, data, provider);
  }

  async dispute(lease: Address): Promise<DisputeAccount | undefined> {
    const address = this.disputeAddress(lease);
    const data = await this.#readOwn(address);
    return data && readDispute(address, data);
  }

  async disputes(): Promise<DisputeAccount[]> {
    return (await this.#search('dispute', {})).map(({ address, data }) => readDispute(address, data));
  }

  async config(): Promise<ConfigAccount> {
    const data = await this.#readOwn(configAddress(this.programId).address);
    assert(data, 'the config was there when the client was opened, and is never closed');
    return readConfig(data);
  }

  async slashes(provider: Address): Promise<StakeSlash[]> {
    const found: StakeSlash[] = [];
    for await (const { logs, signature } of this.#logsAbout(provider)) {
      found.push(...readSlashes(this.programId, logs, signature).filter((slash) => slash.provider === provider));
    }
    return found;
  }

  watchLease(address: Address, signal: AbortSignal): AsyncIterable<LeaseAccount | undefined> {
    const ended = AbortSignal.any([signal, this.#closing.signal]);
    return watchAccount(this.#env, this.#connection, { address, signal: ended, read: () => this.lease(address) });
  }

  async leaseEnding(address: Address): Promise<LeaseEnding | undefined> {
    for await (const { logs, signature } of this.#logsAbout(address)) {
      const ending = readEndings(this.programId, logs, signature).find(({ lease }) => lease === address);
      if (ending) return ending;
    }
    return undefined;
  }

  /** What the last transactions that named an account printed, newest first. */
  async *#logsAbout(address: Address): AsyncIterable<{ readonly signature: string; readonly logs: readonly string[] }> {
    const key = new PublicKey(address);
    const signatures = await reach(this.#connection.getSignaturesForAddress(key, { limit: ENDING_SEARCH_MAX }));
    for (const { signature, err } of signatures) {
      if (err !== null) continue;
      const found = await reach(this.#connection.getTransaction(signature, { maxSupportedTransactionVersion: 0 }));
      yield { signature, logs: found?.meta?.logMessages ?? [] };
    }
  }

  async *history(account: Address, sinceMs: number): AsyncIterable<ChainRecord> {
    const key = new PublicKey(account);
    let before: string | undefined;
    for (;;) {
      const options = { limit: HISTORY_PAGE, ...(before === undefined ? {} : { before }) };
      const page = await reach(this.#connection.getSignaturesForAddress(key, options));
      const young = page.filter(({ blockTime }) => (blockTime ?? 0) * 1000 >= sinceMs);
      const good = young.filter(({ err }) => err === null);
      for (let at = 0; at < good.length; at += HISTORY_READS) {
        yield* await Promise.all(good.slice(at, at + HISTORY_READS).map((one) => this.#record(one)));
      }
      before = page.at(-1)?.signature;
      if (page.length < HISTORY_PAGE || young.length < page.length) return;
    }
  }

  async #record({
    signature,
    blockTime,
  }: {
    readonly signature: string;
    readonly blockTime?: number | null;
  }): Promise<ChainRecord> {
    const found = await reach(this.#connection.getTransaction(signature, { maxSupportedTransactionVersion: 0 }));
    const logs = found?.meta?.logMessages ?? [];
    return {
      signature,
      atMs: (blockTime ?? 0) * 1000,
      vouchers: readVouchers(this.programId, logs),
      endings: readEndings(this.programId, logs, signature),
      slashes: readSlashes(this.programId, logs, signature),
    };
  }

  async chainTimeMs(): Promise<number> {
    const [clock] = await this.#read([CLOCK_SYSVAR]);
    if (clock === undefined || clock.data.length < 40) {
      throw new MoltError('chain/account-malformed', 'the cluster has no Clock sysvar: is rpcUrl a Solana cluster?');
    }
    return Number(Buffer.from(clock.data).readBigInt64LE(32)) * 1000;
  }

  async balances(owner: Address): Promise<{ readonly lamports: bigint; readonly tokens: BaseUnits }> {
    const [wallet, tokens] = await this.#read([owner, this.tokenAddress(owner)]);
    return { lamports: BigInt(wallet?.lamports ?? 0), tokens: tokenAmount(tokens?.data) };
  }

  async transactionCost(signature: string): Promise<TransactionCost | undefined> {
    const found = await reach(
      this.#connection.getTransaction(signature, { maxSupportedTransactionVersion: 0, commitment: 'confirmed' }),
    );
    if (!found?.meta) return undefined;
    return { feeLamports: BigInt(found.meta.fee), computeUnits: found.meta.computeUnitsConsumed ?? 0 };
  }

  // Transactions of two parties

  async recentBlockhash(): Promise<string> {
    const known = this.#blockhash;
    const ageMs = known ? this.#env.clock.monotonic() - known.atMs : Infinity;
    if (known && ageMs < BLOCKHASH_FRESH_MS) return known.value;
    const fetching = this.#fetchBlockhash();
    if (!known || ageMs >= BLOCKHASH_STALE_MS) return fetching;
    fetching.catch(() => undefined);
    return known.value;
  }

  #fetchBlockhash(): Promise<string> {
    this.#fetching ??= reach(this.#connection.getLatestBlockhash())
      .then(({ blockhash }) => {
        this.#blockhash = { value: blockhash, atMs: this.#env.clock.monotonic() };
        return blockhash;
      })
      .finally(() => {
        this.#fetching = undefined;
      });
    return this.#fetching;
  }

  draftOpenLease(terms: LeaseTerms, blockhash: string): Draft {
    return buildDraft(terms.delegate, blockhash, [calls.callOpenLease(this.#market, terms)]);
  }

  draftOpenLeases(terms: readonly LeaseTerms[], blockhash: string): readonly OpeningDraft[] {
    const callsOf = (leases: readonly LeaseTerms[]): TransactionInstruction[] =>
      leases.map((one) => calls.callOpenLease(this.#market, one));
    const groups: LeaseTerms[][] = [];
    for (const one of terms) {
      // An operator signs for one lease at a time.
      const group = groups.find(
        (leases) =>
          leases.every(({ operator }) => operator !== one.operator) &&
          fitsTransaction(one.delegate, blockhash, callsOf([...leases, one])),
      );
      if (group === undefined) groups.push([one]);
      else group.push(one);
    }
    return groups.flatMap((leases) => {
      const [first] = leases;
      return first === undefined ? [] : [{ ...buildDraft(first.delegate, blockhash, callsOf(leases)), terms: leases }];
    });
  }

  assertOpens(message: Uint8Array, terms: LeaseTerms): void {
    const { operator, delegate } = terms;
    assertOpensOnly(message, { operator, delegate, instruction: calls.callOpenLease(this.#market, terms) });
  }

  draftSettle(lease: LeaseAccount, amount: BaseUnits, resultDigest: Uint8Array, blockhash: string): Draft {
    const call = calls.callSettle(this.#market, lease, { amount, resultDigest }, ['delegate', 'operator']);
    return buildDraft(lease.delegate, blockhash, [call]);
  }

  draftCancel(lease: LeaseAccount, amount: BaseUnits, blockhash: string): Draft {
    return buildDraft(lease.delegate, blockhash, [
      calls.callCancelLease(this.#market, lease, amount, ['delegate', 'operator']),
    ]);
  }

  draftExtend(lease: LeaseAccount, extension: LeaseExtension, blockhash: string): Draft {
    return buildDraft(lease.delegate, blockhash, [calls.callExtendLease(this.#market, lease, extension)]);
  }

  async submit(draft: Draft, signatures: Signatures): Promise<Confirmed> {
    try {
      return await submitDraft(this.#env, this.#connection, draft, signatures);
    } catch (error) {
      if (hasCode(error, 'chain/blockhash-expired')) this.#blockhash = undefined;
      throw error;
    }
  }

  async fundedLease(address: Address, terms: LeaseTerms): Promise<FundedLease<LeaseAccount>> {
    const lease = await this.lease(address);
    const differs = lease === undefined ? 'it does not exist' : leaseDifference(lease, terms);
    if (
      lease === undefined ||
      differs !== undefined ||
      address !== this.leaseAddress(terms.budget, terms.termsDigest)
    ) {
      throw new MoltError(
        'chain/lease-mismatch',
        `lease ${address} does not carry the agreed terms: ${differs ?? 'its address is another'}; do not run or pay`,
        { lease: address },
      );
    }
    return lease as FundedLease<LeaseAccount>;
  }

  // Transactions of one party

  /** Builds, signs and submits; a blockhash that expired meanwhile is replaced once, since nothing happened then. */
  async #perform(signer: Signer, instructions: readonly TransactionInstruction[]): Promise<Confirmed> {
    const attempt = async (): Promise<Confirmed> => {
      const blockhash = await this.recentBlockhash();
      const whole = await this.#compute.apply(signer.address, blockhash, instructions);
      return this.submit(buildDraft(signer.address, blockhash, whole), [signer]);
    };
    try {
      return await attempt();
    } catch (error) {
      if (!hasCode(error, 'chain/blockhash-expired')) throw error;
      return attempt();
    }
  }

  #createTokens(owner: Address): TransactionInstruction {
    return createTokenAccount({ payer: owner, account: this.tokenAddress(owner), owner, mint: this.mint });
  }

  registerProvider(owner: Signer, settings: ProviderSettings & { readonly operator: Address }): Promise<Confirmed> {
    const { operator, commissionBps = 0 } = settings;
    const payout = settings.payout ?? this.tokenAddress(owner.address);
    const call = calls.callRegisterProvider(this.#market, owner.address, { operator, payout, commissionBps });
    return this.#perform(owner, settings.payout === undefined ? [this.#createTokens(owner.address), call] : [call]);
  }

  async updateProvider(owner: Signer, settings: ProviderSettings): Promise<Confirmed> {
    const address = this.providerAddress(owner.address);
    const current = await this.provider(address);
    if (!current) {
      throw new MoltError('chain/account-missing', `${owner.address} has no provider account: register one first`, {
        address,
      });
    }
    const { operator, payout, commissionBps } = { ...current, ...settings };
    return this.#perform(owner, [
      calls.callUpdateProvider(this.#market, owner.address, { operator, payout, commissionBps }),
    ]);
  }

  stake(staker: Signer, provider: Address, amount: BaseUnits): Promise<Confirmed> {
    const source = this.tokenAddress(staker.address);
    const staking = { staker: staker.address, provider };
    return this.#perform(staker, [calls.callStake(this.#market, staking, source, amount)]);
  }

  async unstake(staker: Signer, provider: Address, amount: BaseUnits): Promise<Confirmed> {
    const address = this.delegationAddress(provider, staker.address);
    const [found, account] = await Promise.all([this.delegation(address), this.provider(provider)]);
    if (!found || !account) {
      const message = `${staker.address} has no stake behind ${provider}: stake first, or name another provider`;
      throw new MoltError('chain/account-missing', message, { address });
    }
    const pool = poolOf(account, staker.address);
    const shares = pool.stake === 0n ? 0n : (amount * pool.shares + pool.stake - 1n) / pool.stake;
    const held = amount >= found.value ? found.shares : shares;
    return this.#perform(staker, [calls.callUnstake(this.#market, { staker: staker.address, provider }, held)]);
  }

  withdrawStake(staker: Signer, provider: Address): Promise<Confirmed> {
    const destination = this.tokenAddress(staker.address);
    return this.#perform(staker, [
      this.#createTokens(staker.address),
      calls.callWithdrawStake(this.#market, { staker: staker.address, provider }, destination),
    ]);
  }

  async createBudget(
    owner: Signer,
    id: bigint,
    limits: BudgetLimits,
    deposit?: BaseUnits,
  ): Promise<Confirmed & { readonly budget: Address }> {
    const budget = this.budgetAddress(owner.address, id);
    const account = this.tokenAddress(owner.address);
    const instructions = [calls.callCreateBudget(this.#market, owner.address, id, limits)];
    if (deposit !== undefined)
      instructions.push(calls.callDeposit(this.#market, owner.address, { budget, account, amount: deposit }));
    return { ...(await this.#perform(owner, instructions)), budget };
  }

  deposit(depositor: Signer, budget: Address, amount: BaseUnits): Promise<Confirmed> {
    const account = this.tokenAddress(depositor.address);
    return this.#perform(depositor, [calls.callDeposit(this.#market, depositor.address, { budget, account, amount })]);
  }

  withdrawBudget(owner: Signer, budget: Address, amount: BaseUnits): Promise<Confirmed> {
    const account = this.tokenAddress(owner.address);
    return this.#perform(owner, [
      this.#createTokens(owner.address),
      calls.callWithdrawBudget(this.#market, owner.address, { budget, account, amount }),
    ]);
  }

  setDelegates(owner: Signer, budget: Address, limits: BudgetLimits): Promise<Confirmed> {
    return this.#perform(owner, [calls.callSetDelegates(this.#market, owner.address, budget, limits)]);
  }

  closeBudget(owner: Signer, budget: Address): Promise<Confirmed> {
    const destination = this.tokenAddress(owner.address);
    return this.#perform(owner, [
      this.#createTokens(owner.address),
      calls.callCloseBudget(this.#market, owner.address, budget, destination),
    ]);
  }

  submitProof(operator: Signer, lease: Address, claimed: BaseUnits, resultDigest: Uint8Array): Promise<Confirmed> {
    return this.#perform(operator, [
      calls.callSubmitProof(this.#market, operator.address, { lease, claimed, resultDigest }),
    ]);
  }

  settleAfterWindow(payer: Signer, lease: LeaseAccount): Promise<Confirmed> {
    if (!lease.proof) {
      const message = `lease ${lease.address} has no proof as far as it was read: read it again, or submit the proof first`;
      return Promise.reject(new MoltError('chain/refused', message, { lease: lease.address }));
    }
    const settlement = { amount: lease.proof.claimed, resultDigest: lease.proof.resultDigest };
    return this.#perform(payer, [calls.callSettle(this.#market, lease, settlement, [])]);
  }

  settleAlone(delegate: Signer, lease: LeaseAccount, amount: BaseUnits, resultDigest: Uint8Array): Promise<Confirmed> {
    return this.#perform(delegate, [calls.callSettle(this.#market, lease, { amount, resultDigest }, ['delegate'])]);
  }

  cancelByOperator(operator: Signer, lease: LeaseAccount): Promise<Confirmed> {
    return this.#perform(operator, [calls.callCancelLease(this.#market, lease, baseUnits(0n), ['operator'])]);
  }

  cancelByDelegate(delegate: Signer, lease: LeaseAccount, mostToPay: BaseUnits = lease.amount): Promise<Confirmed> {
    return this.#perform(delegate, [calls.callCancelLease(this.#market, lease, mostToPay, ['delegate'])]);
  }

  expireLease(payer: Signer, lease: LeaseAccount): Promise<Confirmed> {
    return this.#perform(payer, [calls.callExpireLease(this.#market, lease)]);
  }

  redeemVoucher(operator: Signer, lease: LeaseAccount, amount: BaseUnits, signature: Uint8Array): Promise<Confirmed> {
    const message = encodeVoucher({ network: this.network, lease: lease.address, amount });
    return this.#perform(operator, calls.callRedeemVoucher(this.#market, lease, amount, { message, signature }));
  }

  openDispute(delegate: Signer, lease: LeaseAccount): Promise<Confirmed> {
    return this.#perform(delegate, [calls.callDispute(this.#market, lease)]);
  }

  async #disputeOf(lease: Address): Promise<DisputeAccount> {
    const dispute = await this.dispute(lease);
    if (dispute) return dispute;
    throw new MoltError('chain/account-missing', `lease ${lease} is not disputed, or no longer`, { lease });
  }

  async drawVerifiers(payer: Signer, lease: Address): Promise<Confirmed> {
    const [dispute, { verifiers }, [hashes]] = await Promise.all([
      this.#disputeOf(lease),
      this.config(),
      this.#read([SLOT_HASHES_SYSVAR]),
    ]);
    const { address, provider, slot } = dispute;
    const slotHashes = hashes?.data ?? new Uint8Array(8);
    const drawn = drawnVerifiers({ dispute: address, provider, slot, verifiers, slotHashes });
    return this.#perform(payer, [calls.callDraw(this.#market, lease, drawn)]);
  }

  commitVote(operator: Signer, vote: Vote): Promise<Confirmed> {
    return this.#perform(operator, [calls.callVote(this.#market, operator.address, vote)]);
  }

  revealVote(operator: Signer, vote: Vote): Promise<Confirmed> {
    return this.#perform(operator, [calls.callRevealVote(this.#market, operator.address, vote)]);
  }

  draftAdmitVerifier(owner: Address, authority: Address, blockhash: string): Draft {
    const call = calls.callSetVerifier(this.#market, { authority, owner }, true, [authority, owner]);
    return buildDraft(owner, blockhash, [call]);
  }

  async dismissVerifier(signer: Signer, owner: Address): Promise<Confirmed> {
    // Without an authority nobody but the owner can sign, and any address may stand in its place.
    const { authority = signer.address } = await this.config();
    const call = calls.callSetVerifier(this.#market, { authority, owner }, false, [signer.address]);
    return this.#perform(signer, [call]);
  }

  async resolveDispute(payer: Signer, lease: LeaseAccount): Promise<Confirmed> {
    const dispute = await this.#disputeOf(lease.address);
    return this.#perform(payer, [calls.callResolve(this.#market, lease, dispute)]);
  }

  slashEquivocation(
    reporter: Signer,
    provider: Address,
    evidence: Equivocation,
    harmedBudget?: Address,
  ): Promise<Confirmed> {
    const report = { reporter: reporter.address, reward: this.tokenAddress(reporter.address), provider };
    const slash = calls.callSlashEquivocation(this.#market, report, evidence, harmedBudget);
    return this.#perform(reporter, [this.#createTokens(reporter.address), ...slash]);
  }

  async offences(provider: Address): Promise<OffenceAccount[]> {
    return (await this.#search('offence', { provider })).map(({ address, data }) => readOffence(address, data));
  }

  collectSlash(reporter: Signer, offence: OffenceAccount): Promise<Confirmed> {
    const reward = this.tokenAddress(reporter.address);
    const report = { reporter: reporter.address, reward, provider: offence.provider };
    return this.#perform(reporter, [
      this.#createTokens(reporter.address),
      calls.callCollectSlash(this.#market, report, offence),
    ]);
  }
}
