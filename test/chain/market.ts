/** A market in one LiteSVM for the tests of the program: the real VM, the real SPL Token, the built program. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

import { PublicKey, SystemProgram, TransactionInstruction } from '@solana/web3.js';
import { LiteSVM } from 'litesvm';
import { FailedTransactionMetadata, type LiteSvm } from 'litesvm/dist/internal.js';

import { readBudget, readLease, readProvider, tokenAmount } from '../../chain/accounts.ts';
import { budgetAddress, leaseAddress, providerAddress, tokenAddress, vaultAddress } from '../../chain/addresses.ts';
import * as calls from '../../chain/calls.ts';
import type {
  BudgetAccount,
  BudgetLimits,
  LeaseAccount,
  LeaseTerms,
  Parameters,
  ProviderAccount,
} from '../../chain/chain.ts';
import { LOCAL_PROGRAM_ID, buildDraft, wireTransaction } from '../../chain/instructions.ts';
import { INSTRUCTIONS, LIMITS, type InstructionName } from '../../chain/layout.ts';
import { PROGRAM_ERRORS } from '../../chain/program-errors.ts';
import { MINT_SIZE, createTokenAccount, initializeMint, mintTokens } from '../../chain/token.ts';
import { encodeAddress, type Address } from '../../protocol/address.ts';
import { keyPairFromSeed, type KeyPair } from '../../protocol/ed25519.ts';
import { assert } from '../../protocol/errors.ts';
import { baseUnits } from '../../protocol/units.ts';

export const PARAMETERS: Parameters = {
  stakeFeeBps: 200,
  burnFeeBps: 100,
  reserveBps: 1000,
  noShowSlashBps: 500,
  disputeBondBps: 1000,
  equivocationSlashBps: 2500,
  minGraceMs: 10_000,
  minWindowMs: 60_000,
  maxLeaseMs: 86_400_000,
  unbondingMs: 3_600_000,
  voteMs: 600_000,
  revealMs: 300_000,
  minStake: baseUnits(2_000_000),
  verifierPledge: baseUnits(50_000),
};

export const START_SECONDS = 1_800_000_000;
export const DIGEST = new Uint8Array(32).fill(7);

/** `refused` is the program's own error name, `failed` anything else that the VM says. */
export interface Outcome {
  readonly refused?: string;
  readonly failed?: string;
  readonly units: number;
  readonly logs: readonly string[];
}

let seedCounter = 0;
export function newKey(): KeyPair {
  const seed = Buffer.alloc(32);
  seed.writeUInt32LE(++seedCounter);
  return keyPairFromSeed(seed);
}

export class TestMarket {
  readonly svm: LiteSVM = new LiteSVM();
  /** The same VM without its translations between addresses and bytes, which cost more than what it does. */
  readonly vm: LiteSvm = (this.svm as unknown as { readonly inner: LiteSvm }).inner;
  readonly programId: Address = LOCAL_PROGRAM_ID;
  readonly authority: KeyPair = newKey();
  readonly mint: Address;
  /** Genesis hash to which signed statements are bound. */
  readonly network: Address = newKey().address;
  readonly market: calls.Market;

  constructor(parameters: Parameters = PARAMETERS) {
    this.svm.addProgram(kit(this.programId), readFileSync(new URL('../../chain/program/molt.so', import.meta.url)));
    this.setTime(START_SECONDS);
    this.fund(this.authority);
    this.mint = this.newMint();
    this.market = { programId: this.programId, mint: this.mint };
    this.mustSend([this.callInitialize(parameters)], this.authority);
  }

  callInitialize(parameters: Parameters): TransactionInstruction {
    return calls.callInitialize(this.market, this.authority.address, parameters, this.network);
  }

  /** Queues and applies, as if the delay had passed, and puts the clock back. */
  setParameters(parameters: Parameters): void {
    const now = this.now();
    this.mustSend([calls.callQueueParameters(this.market, this.authority.address, parameters)], this.authority);
    this.setTime(now + LIMITS.parameterDelaySeconds);
    this.mustSend([calls.callApplyParameters(this.market)], this.authority);
    this.setTime(now);
  }

  setTime(seconds: number): void {
    const clock = this.svm.getClock();
    clock.unixTimestamp = BigInt(seconds);
    this.svm.setClock(clock);
  }

  slot(): number {
    return Number(this.svm.getClock().slot);
  }

  /** The present slot, and hashes of so many before it, newest first. */
  setSlot(slot: number, count = 10): void {
    const clock = this.svm.getClock();
    clock.slot = BigInt(slot);
    this.svm.setClock(clock);
    this.svm.setSlotHashes(
      Array.from({ length: Math.min(count, slot) }, (_, index) => {
        const at = slot - 1 - index;
        const hash = createHash('sha256').update(`slot ${at}`).digest();
        return { slot: BigInt(at), hash: encodeAddress(hash) };
      }) as never,
    );
  }

  now(): number {
    return Number(this.svm.getClock().unixTimestamp);
  }

  fund(owner: KeyPair, lamports = 10_000_000_000n): void {
    this.svm.airdrop(kit(owner.address), lamports as SecondOf<LiteSVM['airdrop']>);
  }

  newMint(): Address {
    const mint = newKey();
    const make = SystemProgram.createAccount({
      fromPubkey: new PublicKey(this.authority.address),
      newAccountPubkey: new PublicKey(mint.address),
      lamports: 10_000_000,
      space: MINT_SIZE,
      programId: new PublicKey('TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA'),
    });
    this.mustSend([make, initializeMint(mint.address, 9, this.authority.address)], this.authority, mint);
    return mint.address;
  }

  /** A funded wallet with a token account holding `tokens`. */
  newWallet(tokens: bigint = 0n, mint: Address = this.mint): KeyPair {
    const owner = newKey();
    this.fund(owner);
    const account = tokenAddress(owner.address, mint);
    const instructions = [createTokenAccount({ payer: owner.address, account, owner: owner.address, mint })];
    if (tokens > 0n) instructions.push(mintTokens(mint, account, this.authority.address, baseUnits(tokens)));
    this.mustSend(instructions, owner, ...(tokens > 0n ? [this.authority] : []));
    return owner;
  }

  /** Signs with everybody given; the first pays the fee. */
  send(instructions: readonly TransactionInstruction[], ...signers: readonly KeyPair[]): Outcome {
    const [payer] = signers;
    assert(payer, 'somebody pays the fee');
    this.svm.expireBlockhash();
    const draft = buildDraft(payer.address, this.svm.latestBlockhash(), instructions);
    const signatures = draft.signers.map((address) => {
      const signer = signers.find((candidate) => candidate.address === address);
      return signer ? signer.sign(draft.message) : new Uint8Array(64);
    });
    const result = this.vm.sendLegacyTransaction(wireTransaction(draft, signatures));
    const failed = result instanceof FailedTransactionMetadata;
    const meta = failed ? result.meta() : result;
    const outcome = { units: Number(meta.computeUnitsConsumed()), logs: meta.logs() };
    if (!failed) return outcome;
    const custom = /Custom\((\d+)\)/.exec(result.toString());
    const named = PROGRAM_ERRORS.find(({ number }) => number === Number(custom?.[1]));
    return named ? { ...outcome, refused: named.name } : { ...outcome, failed: result.toString() };
  }

  setAccount(
    address: Address,
    account: { readonly owner: Address; readonly data: Uint8Array; readonly lamports: bigint },
  ): void {
    this.svm.setAccount({
      address: kit(address),
      data: account.data,
      executable: false,
      lamports: account.lamports as never,
      programAddress: kit(account.owner),
      space: BigInt(account.data.length),
    });
  }

  /** A seller with stake who is on the list of verifiers. */
  newVerifier(stake = 10_000_000n): Pair {
    const pair = registerPair(this, stake, 1_000n);
    const people = { authority: this.authority.address, owner: pair.owner.address };
    const join = calls.callSetVerifier(this.market, people, true, [people.authority, people.owner]);
    this.mustSend([join], this.authority, pair.owner);
    return pair;
  }

  mustSend(instructions: readonly TransactionInstruction[], ...signers: readonly KeyPair[]): Outcome {
    const outcome = this.send(instructions, ...signers);
    assert(!outcome.refused && !outcome.failed, `${outcome.refused ?? outcome.failed} ${outcome.logs.join(' | ')}`);
    return outcome;
  }

  data(address: Address): Uint8Array | undefined {
    const account = this.svm.getAccount(kit(address));
    return account.exists && account.data.length > 0 ? new Uint8Array(account.data) : undefined;
  }

  lamports(address: Address): bigint {
    return this.svm.getBalance(kit(address)) ?? 0n;
  }

  tokens(account: Address): bigint {
    return tokenAmount(this.data(account));
  }

  provider(owner: Address): ProviderAccount {
    const address = providerAddress(this.programId, owner).address;
    return readProvider(address, must(this.data(address)));
  }

  budget(address: Address): BudgetAccount {
    return readBudget(address, must(this.data(address)), this.tokens(vaultAddress(this.programId, address).address));
  }

  lease(terms: LeaseTerms): LeaseAccount | undefined {
    const { address } = leaseAddress(this.programId, terms.budget, terms.termsDigest);
    const data = this.data(address);
    return data && readLease(address, data);
  }
}

/** The instruction with one of its declared accounts replaced or its flags changed: what an attacker would send. */
export function tamper(
  instruction: TransactionInstruction,
  name: InstructionName,
  account: string,
  change: { readonly address?: Address; readonly isSigner?: boolean; readonly isWritable?: boolean },
): TransactionInstruction {
  const index = INSTRUCTIONS[name].accounts.findIndex((meta) => meta.name === account);
  assert(index >= 0, `${name} has the account ${account}`);
  const { address, ...flags } = change;
  const keys = instruction.keys.map((meta, at) =>
    at === index ? { ...meta, ...flags, ...(address === undefined ? {} : { pubkey: new PublicKey(address) }) } : meta,
  );
  return new TransactionInstruction({ programId: instruction.programId, keys, data: instruction.data });
}

type FirstOf<F extends (...args: never[]) => unknown> = F extends (first: infer S) => unknown ? S : never;
type SecondOf<F extends (...args: never[]) => unknown> = F extends (first: never, second: infer S) => unknown
  ? S
  : never;

type KitAddress = FirstOf<LiteSVM['getAccount']>;
export const kit = (address: Address): KitAddress => address as unknown as KitAddress;

export function must<T>(value: T | undefined): T {
  assert(value !== undefined, 'the value exists');
  return value;
}

export const LIMITS_OPEN: Omit<BudgetLimits, 'delegates'> = {
  capPerLease: baseUnits(100_000_000n),
  capPerDay: baseUnits(1_000_000_000n),
  expiresAtMs: (START_SECONDS + 1_000_000) * 1000,
};

/** The owner stakes behind its own provider, from its default token account. */
export function callOwnStake(
  { market, programId, mint }: TestMarket,
  owner: KeyPair,
  amount: bigint,
): TransactionInstruction {
  const staking = { staker: owner.address, provider: providerAddress(programId, owner.address).address };
  return calls.callStake(market, staking, tokenAddress(owner.address, mint), baseUnits(amount));
}

/** A seller with stake, a buyer with a budget, and terms between them. */
export interface Pair {
  readonly owner: KeyPair;
  readonly operator: KeyPair;
  readonly buyer: KeyPair;
  readonly delegate: KeyPair;
  readonly budget: Address;
  readonly terms: LeaseTerms;
}

export function registerPair(market: TestMarket, stake = 100_000_000n, deposit = 1_000_000_000n): Pair {
  const owner = market.newWallet(stake * 2n);
  const buyer = market.newWallet(deposit * 2n);
  const operator = newKey();
  const delegate = newKey();
  market.fund(operator);
  market.fund(delegate);
  const payout = tokenAddress(owner.address, market.mint);
  market.mustSend(
    [
      calls.callRegisterProvider(market.market, owner.address, {
        operator: operator.address,
        payout,
        commissionBps: 0,
      }),
      ...(stake > 0n ? [callOwnStake(market, owner, stake)] : []),
    ],
    owner,
  );
  const budget = budgetAddress(market.programId, buyer.address, 1n).address;
  const account = tokenAddress(buyer.address, market.mint);
  market.mustSend(
    [
      calls.callCreateBudget(market.market, buyer.address, 1n, { ...LIMITS_OPEN, delegates: [delegate.address] }),
      calls.callDeposit(market.market, buyer.address, { budget, account, amount: baseUnits(deposit) }),
    ],
    buyer,
  );
  return { owner, operator, buyer, delegate, budget, terms: newTerms(market, { owner, operator, delegate, budget }) };
}

let digestCounter = 0;
export function newDigest(): Uint8Array {
  const digest = Buffer.alloc(32, 9);
  digest.writeUInt32LE(++digestCounter);
  return new Uint8Array(digest);
}

export function newTerms(
  market: TestMarket,
  pair: { owner: KeyPair; operator: KeyPair; delegate: KeyPair; budget: Address },
  changes: Partial<LeaseTerms> = {},
): LeaseTerms {
  const nowMs = market.now() * 1000;
  return {
    budget: pair.budget,
    provider: providerAddress(market.programId, pair.owner.address).address,
    operator: pair.operator.address,
    delegate: pair.delegate.address,
    termsDigest: newDigest(),
    amount: baseUnits(1_000_003n),
    pricePerSecond: baseUnits(1_000n),
    reserve: baseUnits(200_000n),
    openBeforeMs: nowMs + 30_000,
    finishByMs: nowMs + 600_000,
    graceMs: 30_000,
    windowMs: 60_000,
    ...changes,
  };
}

/** Opens the lease of these terms and gives its account. */
export function openLease(market: TestMarket, pair: Pair, terms: LeaseTerms = pair.terms): LeaseAccount {
  market.mustSend([calls.callOpenLease(market.market, terms)], pair.delegate, pair.operator);
  return must(market.lease(terms));
}
