/**
 * The chain program, instruction by instruction, in the real VM: what it does, and everything it refuses.
 *
 * Every error of the program is provoked at least once; the last test holds that against the list of errors.
 */
import { PublicKey, SystemProgram, TransactionInstruction } from '@solana/web3.js';
import { Rent } from 'litesvm';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';

import { limitsFields, readDispute, readEndings, readLease } from '../../chain/accounts.ts';
import {
  budgetAddress,
  configAddress,
  disputeAddress,
  leaseAddress,
  providerAddress,
  stakeVaultAddress,
  tokenAddress,
  vaultAddress,
} from '../../chain/addresses.ts';
import * as calls from '../../chain/calls.ts';
import type { LeaseAccount, LeaseTerms, Parameters } from '../../chain/chain.ts';
import { buildInstruction } from '../../chain/instructions.ts';
import { ACCOUNTS, layoutSize } from '../../chain/layout.ts';
import { PROGRAM_ERRORS } from '../../chain/program-errors.ts';
import type { Address } from '../../protocol/address.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import { LEASE_EVENTS } from '../../protocol/lease.ts';
import { U64_MAX, baseUnits } from '../../protocol/units.ts';
import { encodeVoucher } from '../../protocol/voucher.ts';
import { authorityChapter } from './chapters/authority.ts';
import { disputeChapter } from './chapters/dispute.ts';
import { equivocationChapter } from './chapters/equivocation.ts';
import { stakeChapter } from './chapters/stake.ts';
import { voucherChapter } from './chapters/voucher.ts';
import { expectRefusal, provoked } from './refusal.ts';
import {
  DIGEST,
  LIMITS_OPEN,
  PARAMETERS,
  START_SECONDS,
  TestMarket,
  callOwnStake,
  must,
  newDigest,
  newKey,
  newTerms,
  openLease,
  registerPair,
  tamper,
  type Outcome,
  type Pair,
} from './market.ts';

stakeChapter();
authorityChapter();
voucherChapter();
disputeChapter();
equivocationChapter();

let market: TestMarket;
let pair: Pair;

beforeEach(() => {
  market = new TestMarket();
  pair = registerPair(market);
});

afterAll(() => {
  const missing = PROGRAM_ERRORS.map(({ name }) => name).filter((name) => !provoked.has(name));
  expect(missing, 'errors of the program that no test provokes').toEqual([]);
});

const open = (terms: LeaseTerms): TransactionInstruction => calls.callOpenLease(market.market, terms);
const tryOpen = (changes: Partial<LeaseTerms>): Outcome =>
  market.send([open(newTerms(market, pair, changes))], pair.delegate, pair.operator);
const tokensOf = (owner: KeyPair): bigint => market.tokens(tokenAddress(owner.address, market.mint));
const vaultOf = (of: Pair = pair): bigint => market.tokens(vaultAddress(market.programId, of.budget).address);
const stakeVaultOf = (of: Pair = pair): Address =>
  stakeVaultAddress(market.programId, providerAddress(market.programId, of.owner.address).address).address;

const change = (
  { programId, keys, data }: TransactionInstruction,
  changes: Partial<Pick<TransactionInstruction, 'keys' | 'data'>>,
): TransactionInstruction => new TransactionInstruction({ programId, keys, data, ...changes });

describe('the shape of a call', () => {
  const raw = (data: readonly number[], keys: TransactionInstruction['keys'] = []): Outcome =>
    market.send(
      [new TransactionInstruction({ programId: new PublicKey(market.programId), keys, data: Buffer.from(data) })],
      pair.owner,
    );

  test('an unknown tag and empty data are refused', () => {
    expectRefusal(raw([99]), 'UnknownInstruction');
    expectRefusal(raw([]), 'UnknownInstruction');
  });

  test('data that is one byte short or long is refused', () => {
    const good = callOwnStake(market, pair.owner, 5n);
    for (const data of [good.data.subarray(0, -1), Buffer.concat([good.data, Buffer.from([0])])]) {
      expectRefusal(market.send([change(good, { data })], pair.owner), 'WrongDataLength');
    }
  });

  test('a missing or an additional account is refused, however many there are', () => {
    const good = open(newTerms(market, pair));
    const more = { pubkey: new PublicKey(newKey().address), isSigner: false, isWritable: false };
    const send = (keys: TransactionInstruction['keys']): Outcome =>
      market.send([change(good, { keys })], pair.delegate, pair.operator);
    expectRefusal(send(good.keys.slice(0, -1)), 'WrongAccountCount');
    expectRefusal(send([...good.keys, more]), 'WrongAccountCount');
    expectRefusal(send([...good.keys, ...Array.from({ length: 12 }, () => more)]), 'WrongAccountCount');
  });

  test('an account that must sign or be writable and is not is refused', () => {
    const good = open(newTerms(market, pair));
    expectRefusal(
      market.send([tamper(good, 'openLease', 'operator', { isSigner: false })], pair.delegate),
      'MissingSignature',
    );
    expectRefusal(
      market.send([tamper(good, 'openLease', 'provider', { isWritable: false })], pair.delegate, pair.operator),
      'NotWritable',
    );
  });
});

describe('config', () => {
  test('is made once, and nobody can make a second one at another address', () => {
    const again = calls.callInitialize(market.market, pair.owner.address, PARAMETERS, market.network);
    expectRefusal(market.send([again], pair.owner), 'AlreadyExists');
    const elsewhere = tamper(again, 'initialize', 'config', { address: newKey().address });
    expectRefusal(market.send([elsewhere], pair.owner), 'WrongAddress');
  });

  test('initialize holds its parameters against the same bounds', () => {
    expect(() => new TestMarket({ ...PARAMETERS, burnFeeBps: 1_001 })).toThrow('ParameterOutOfRange');
  });

  test('initialize wants a mint, not any account', () => {
    const fresh = new TestMarket();
    const wrong = tamper(fresh.callInitialize(PARAMETERS), 'initialize', 'mint', {
      address: fresh.authority.address,
    });
    expectRefusal(fresh.send([wrong], fresh.authority), 'WrongMint');
  });

  test('a cluster with an unknown rent rule is refused instead of guessed', () => {
    market.svm.setRent(new Rent(3480n, 3, 50));
    expectRefusal(market.send([open(newTerms(market, pair))], pair.delegate, pair.operator), 'UnknownRent');
  });
});

describe('provider', () => {
  const payoutOf = (owner: KeyPair) => tokenAddress(owner.address, market.mint);
  const settings = (changes: Partial<calls.ProviderRegistration> = {}): calls.ProviderRegistration => ({
    operator: pair.operator.address,
    payout: payoutOf(pair.owner),
    commissionBps: 500,
    ...changes,
  });

  test('registering stores what was given, once per owner', () => {
    const account = market.provider(pair.owner.address);
    expect(account).toMatchObject({
      owner: pair.owner.address,
      operator: pair.operator.address,
      payout: payoutOf(pair.owner),
      stake: 100_000_000n,
      reserved: 0n,
      settledCount: 0n,
      registeredAtMs: START_SECONDS * 1000,
    });
    const again = calls.callRegisterProvider(market.market, pair.owner.address, settings());
    expectRefusal(market.send([again], pair.owner), 'AlreadyExists');
  });

  test('lamports sent to the address beforehand do not stop a registration', () => {
    for (const lamports of [1_000_000, 50_000_000]) {
      const owner = market.newWallet();
      const { address } = providerAddress(market.programId, owner.address);
      const gift = SystemProgram.transfer({
        fromPubkey: new PublicKey(pair.owner.address),
        toPubkey: new PublicKey(address),
        lamports,
      });
      market.mustSend([gift], pair.owner);
      market.mustSend([calls.callRegisterProvider(market.market, owner.address, settings())], owner);
      expect(market.provider(owner.address).owner).toBe(owner.address);
    }
  });

  test('updating rotates operator, payout and commission; only for the owner', () => {
    const operator = newKey();
    const update = calls.callUpdateProvider(
      market.market,
      pair.owner.address,
      settings({ operator: operator.address }),
    );
    market.mustSend([update], pair.owner);
    expect(market.provider(pair.owner.address)).toMatchObject({ operator: operator.address, commissionBps: 500 });
    const thief = market.newWallet();
    const stolen = tamper(update, 'updateProvider', 'owner', { address: thief.address });
    expectRefusal(market.send([stolen], thief), 'NotOwner');
  });

  test('a payout account of another mint and a commission over 100 % are refused', () => {
    const foreign = market.newMint();
    const wallet = market.newWallet(0n, foreign);
    const payout = tokenAddress(wallet.address, foreign);
    const other = market.newWallet();
    expectRefusal(
      market.send([calls.callRegisterProvider(market.market, other.address, settings({ payout }))], other),
      'WrongMint',
    );
    expectRefusal(
      market.send([calls.callUpdateProvider(market.market, pair.owner.address, settings({ payout }))], pair.owner),
      'WrongMint',
    );
    expectRefusal(
      market.send(
        [calls.callUpdateProvider(market.market, pair.owner.address, settings({ commissionBps: 10_001 }))],
        pair.owner,
      ),
      'ParameterOutOfRange',
    );
    const greedy = settings({ commissionBps: 10_001 });
    const register = calls.callRegisterProvider(market.market, other.address, greedy);
    expectRefusal(market.send([register], other), 'ParameterOutOfRange');
    const wrongMint = tamper(
      calls.callRegisterProvider(market.market, other.address, settings({ payout: payoutOf(pair.owner) })),
      'registerProvider',
      'mint',
      {
        address: foreign,
      },
    );
    expectRefusal(market.send([wrongMint], other), 'WrongAddress');
  });
});

describe('budget', () => {
  const account = () => tokenAddress(pair.buyer.address, market.mint);
  const move = (amount: bigint) => ({ budget: pair.budget, account: account(), amount: baseUnits(amount) });

  test('withdrawing leaves what is leased', () => {
    openLease(market, pair);
    const withdraw = (amount: bigint): Outcome =>
      market.send([calls.callWithdrawBudget(market.market, pair.buyer.address, move(amount))], pair.buyer);
    expectRefusal(withdraw(1_000_000_000n - 1_000_003n + 1n), 'BudgetEmpty');
    expectRefusal(withdraw(U64_MAX), 'BudgetEmpty');
    expectRefusal(withdraw(0n), 'ZeroAmount');
    expect(withdraw(1_000_000_000n - 1_000_003n).refused).toBeUndefined();
    expect(market.budget(pair.budget)).toMatchObject({ free: 0n, locked: 1_000_003n });
  });

  test('anybody may deposit, and a plain token transfer counts as one', () => {
    const friend = market.newWallet(500n);
    const deposit = calls.callDeposit(market.market, friend.address, {
      budget: pair.budget,
      account: tokenAddress(friend.address, market.mint),
      amount: baseUnits(500n),
    });
    market.mustSend([deposit], friend);
    expect(market.budget(pair.budget).free).toBe(1_000_000_500n);
    expectRefusal(
      market.send([calls.callDeposit(market.market, pair.buyer.address, move(0n))], pair.buyer),
      'ZeroAmount',
    );
  });

  test('only its owner takes money out, changes it or closes it, and only its own vault is touched', () => {
    const thief = registerPair(market);
    const stolen = { address: thief.buyer.address };
    const foreign = { address: vaultAddress(market.programId, thief.budget).address };
    const withdraw = calls.callWithdrawBudget(market.market, pair.buyer.address, move(1n));
    const deposit = calls.callDeposit(market.market, pair.buyer.address, move(1n));
    const close = calls.callCloseBudget(market.market, pair.buyer.address, pair.budget, account());
    const limits = { ...LIMITS_OPEN, delegates: [thief.delegate.address] };
    const set = calls.callSetDelegates(market.market, pair.buyer.address, pair.budget, limits);
    expectRefusal(market.send([tamper(withdraw, 'withdrawBudget', 'owner', stolen)], thief.buyer), 'NotOwner');
    expectRefusal(market.send([tamper(set, 'setDelegates', 'owner', stolen)], thief.buyer), 'NotOwner');
    expectRefusal(market.send([tamper(close, 'closeBudget', 'owner', stolen)], thief.buyer), 'NotOwner');
    expectRefusal(market.send([tamper(withdraw, 'withdrawBudget', 'vault', foreign)], pair.buyer), 'WrongAddress');
    expectRefusal(market.send([tamper(deposit, 'deposit', 'vault', foreign)], pair.buyer), 'WrongAddress');
    expectRefusal(market.send([tamper(close, 'closeBudget', 'vault', foreign)], pair.buyer), 'WrongAddress');
    const own = { address: vaultAddress(market.programId, pair.budget).address };
    expectRefusal(
      market.send([tamper(withdraw, 'withdrawBudget', 'destination', own)], pair.buyer),
      'DuplicateAccount',
    );
    expectRefusal(market.send([tamper(close, 'closeBudget', 'destination', own)], pair.buyer), 'DuplicateAccount');
    expectRefusal(market.send([tamper(deposit, 'deposit', 'source', own)], pair.buyer), 'DuplicateAccount');
  });

  test('a budget has one to four delegates', () => {
    const limits = limitsFields({ ...LIMITS_OPEN, delegates: [newKey().address] });
    const four = Array.from({ length: 4 }, () => newKey().address);
    for (const delegateCount of [0, 5, 255]) {
      const set = buildInstruction({
        programId: market.programId,
        name: 'setDelegates',
        accounts: { owner: pair.buyer.address, budget: pair.budget },
        fields: { limits: { ...limits, delegateCount } },
      });
      expectRefusal(market.send([set], pair.buyer), 'TooManyDelegates');
      const budget = budgetAddress(market.programId, pair.buyer.address, 2n);
      const vault = vaultAddress(market.programId, budget.address);
      const create = buildInstruction({
        programId: market.programId,
        name: 'createBudget',
        accounts: {
          owner: pair.buyer.address,
          config: configAddress(market.programId).address,
          budget: budget.address,
          vault: vault.address,
          mint: market.mint,
        },
        fields: { bump: budget.bump, vaultBump: vault.bump, id: 2n, limits: { ...limits, delegateCount } },
      });
      expectRefusal(market.send([create], pair.buyer), 'TooManyDelegates');
    }
    market.mustSend(
      [calls.callSetDelegates(market.market, pair.buyer.address, pair.budget, { ...LIMITS_OPEN, delegates: four })],
      pair.buyer,
    );
    expect(market.budget(pair.budget).delegates).toEqual(four);
    expectRefusal(tryOpen({}), 'NotDelegate');
  });

  test('a vault is made of no other mint than the market', () => {
    const create = calls.callCreateBudget(market.market, pair.buyer.address, 2n, {
      ...LIMITS_OPEN,
      delegates: [pair.delegate.address],
    });
    expectRefusal(
      market.send([tamper(create, 'createBudget', 'mint', { address: market.newMint() })], pair.buyer),
      'WrongAddress',
    );
  });

  test('closing returns money and both rents, and waits for open leases', () => {
    const close = calls.callCloseBudget(market.market, pair.buyer.address, pair.budget, account());
    const lease = openLease(market, pair);
    expectRefusal(market.send([close], pair.buyer), 'LeasesOpen');
    market.mustSend([calls.callCancelLease(market.market, lease, baseUnits(0n), ['operator'])], pair.operator);
    const lamports = market.lamports(pair.buyer.address);
    const rents = market.lamports(pair.budget) + market.lamports(vaultAddress(market.programId, pair.budget).address);
    const tokens = tokensOf(pair.buyer);
    market.mustSend([close], pair.buyer);
    expect(market.lamports(pair.buyer.address)).toBe(lamports + rents - 5_000n);
    expect(tokensOf(pair.buyer)).toBe(tokens + 1_000_000_000n);
    expect(market.data(pair.budget)).toBeUndefined();
  });
});

describe('open_lease', () => {
  test('locks the amount, reserves the stake and fixes terms and rates', () => {
    const lease = openLease(market, pair);
    expect(lease).toMatchObject({
      state: 'running',
      amount: pair.terms.amount,
      reserve: pair.terms.reserve,
      rentPayer: pair.delegate.address,
      payout: tokenAddress(pair.owner.address, market.mint),
      openedAtMs: START_SECONDS * 1000,
      finishByMs: pair.terms.finishByMs,
      burnFeeBps: PARAMETERS.burnFeeBps,
    });
    expect(market.budget(pair.budget)).toMatchObject({ locked: 1_000_003n, openLeases: 1, spentOnDay: 1_000_003n });
    expect(market.provider(pair.owner.address)).toMatchObject({ reserved: 200_000n, openLeases: 1 });
  });

  test('the same terms cannot be opened twice at once', () => {
    openLease(market, pair);
    expectRefusal(market.send([open(pair.terms)], pair.delegate, pair.operator), 'AlreadyExists');
  });

  test('refuses money the budget does not have or does not allow', () => {
    const limit = (limits: Partial<typeof LIMITS_OPEN>): void => {
      const all = { ...LIMITS_OPEN, ...limits, delegates: [pair.delegate.address] };
      market.mustSend([calls.callSetDelegates(market.market, pair.buyer.address, pair.budget, all)], pair.buyer);
    };
    expectRefusal(tryOpen({ amount: baseUnits(0n) }), 'ZeroAmount');
    expectRefusal(tryOpen({ amount: baseUnits(100_000_001n), reserve: baseUnits(20_000_000n) }), 'OverLeaseCap');
    limit({ capPerDay: baseUnits(1_000_002n) });
    expectRefusal(tryOpen({}), 'OverDayCap');
    limit({ expiresAtMs: START_SECONDS * 1000 });
    expectRefusal(tryOpen({}), 'BudgetExpired');
    limit({ capPerLease: baseUnits(U64_MAX), capPerDay: baseUnits(U64_MAX) });
    market.setParameters({ ...PARAMETERS, reserveBps: 0 });
    expectRefusal(tryOpen({ amount: baseUnits(1_000_000_001n) }), 'BudgetEmpty');
    expectRefusal(tryOpen({ amount: baseUnits(U64_MAX) }), 'BudgetEmpty');
    expect(tryOpen({ amount: baseUnits(1n), reserve: baseUnits(0n) }).refused).toBeUndefined();
    expectRefusal(tryOpen({ amount: baseUnits(U64_MAX) }), 'OverDayCap');
  });

  test('counts the cap per day by UTC day and gives unspent money back to it', () => {
    const cap = { ...LIMITS_OPEN, capPerDay: baseUnits(1_500_000n), delegates: [pair.delegate.address] };
    market.mustSend([calls.callSetDelegates(market.market, pair.buyer.address, pair.budget, cap)], pair.buyer);
    const lease = openLease(market, pair);
    expectRefusal(tryOpen({}), 'OverDayCap');
    const settlement = { amount: baseUnits(400_000n), resultDigest: DIGEST };
    market.mustSend(
      [calls.callSettle(market.market, lease, settlement, ['delegate', 'operator'])],
      pair.delegate,
      pair.operator,
    );
    expect(market.budget(pair.budget).spentOnDay).toBe(400_000n);
    openLease(market, pair, newTerms(market, pair));
    expectRefusal(tryOpen({}), 'OverDayCap');
    market.setTime((Math.floor(START_SECONDS / 86_400) + 1) * 86_400);
    expect(tryOpen({}).refused).toBeUndefined();
  });

  test('refuses deadlines outside what the config allows', () => {
    const nowMs = START_SECONDS * 1000;
    expectRefusal(tryOpen({ openBeforeMs: nowMs - 1_000 }), 'OpenedTooLate');
    expectRefusal(tryOpen({ finishByMs: nowMs }), 'FinishOutOfRange');
    expectRefusal(tryOpen({ finishByMs: nowMs + PARAMETERS.maxLeaseMs + 1_000 }), 'FinishOutOfRange');
    expectRefusal(tryOpen({ graceMs: PARAMETERS.minGraceMs - 1_000 }), 'GraceOutOfRange');
    expectRefusal(tryOpen({ graceMs: 30 * 86_400_000 + 1_000 }), 'GraceOutOfRange');
    expectRefusal(tryOpen({ windowMs: PARAMETERS.minWindowMs - 1_000 }), 'WindowOutOfRange');
    expectRefusal(tryOpen({ windowMs: 30 * 86_400_000 + 1_000 }), 'WindowOutOfRange');
    expect(tryOpen({ openBeforeMs: nowMs, finishByMs: nowMs + PARAMETERS.maxLeaseMs }).refused).toBeUndefined();
  });

  test('refuses stake that does not back the lease', () => {
    // 1,000,003 × 10 % is 100,000.3: the reserve rounds up.
    expectRefusal(tryOpen({ reserve: baseUnits(100_000n) }), 'ReserveTooLow');
    expect(tryOpen({ reserve: baseUnits(100_001n) }).refused).toBeUndefined();
    expectRefusal(tryOpen({ reserve: baseUnits(100_000_000n - 100_001n + 1n) }), 'StakeTooLow');
    const poor = registerPair(market, 1_999_999n);
    const terms = newTerms(market, poor, { amount: baseUnits(100n), reserve: baseUnits(10n) });
    expectRefusal(market.send([open(terms)], poor.delegate, poor.operator), 'StakeTooLow');
  });

  test('refuses keys that are not the current ones, and accounts of somebody else', () => {
    const other = registerPair(market);
    const terms = newTerms(market, pair);
    const asDelegate = { ...terms, delegate: other.delegate.address };
    expectRefusal(market.send([open(asDelegate)], other.delegate, pair.operator), 'NotDelegate');
    const asOperator = { ...terms, operator: other.operator.address };
    expectRefusal(market.send([open(asOperator)], pair.delegate, other.operator), 'NotOperator');
    const send = (account: string, address: Address): Outcome =>
      market.send([tamper(open(terms), 'openLease', account, { address })], pair.delegate, pair.operator);
    expectRefusal(send('vault', vaultAddress(market.programId, other.budget).address), 'WrongAddress');
    expectRefusal(send('budget', terms.provider), 'WrongKind');
    expectRefusal(send('provider', terms.budget), 'WrongKind');
    expectRefusal(send('config', terms.budget), 'WrongKind');
    expectRefusal(send('config', pair.owner.address), 'WrongOwner');
    expectRefusal(send('budget', pair.owner.address), 'WrongOwner');
    expectRefusal(send('lease', terms.provider), 'AlreadyExists');
    // Another free address than the derived one: the runtime does not let the program sign for it.
    expect(send('lease', newKey().address).failed).toBeDefined();
    // One that signs for itself would not need that: it must not become a lease beside the derived one.
    const fresh = newKey();
    const signing = tamper(open(terms), 'openLease', 'lease', { address: fresh.address, isSigner: true });
    expectRefusal(market.send([signing], pair.delegate, pair.operator, fresh), 'WrongAddress');
    expectRefusal(send('lease', pair.delegate.address), 'WrongAddress');
  });

  test('a key may be payer, delegate and operator at once', () => {
    const one = registerPair(market);
    const update = {
      operator: one.delegate.address,
      payout: tokenAddress(one.owner.address, market.mint),
      commissionBps: 0,
    };
    market.mustSend([calls.callUpdateProvider(market.market, one.owner.address, update)], one.owner);
    const terms = newTerms(market, { ...one, operator: one.delegate });
    market.mustSend([open(terms)], one.delegate);
    const lease = must(market.lease(terms));
    const settlement = { amount: lease.amount, resultDigest: DIGEST };
    market.mustSend([calls.callSettle(market.market, lease, settlement, ['delegate', 'operator'])], one.delegate);
    expect(market.lease(terms)).toBeUndefined();
  });

  test('somebody else may pay the rent and gets it back', () => {
    const sponsor = market.newWallet();
    market.mustSend(
      [calls.callOpenLease(market.market, pair.terms, sponsor.address)],
      pair.delegate,
      pair.operator,
      sponsor,
    );
    const lease = must(market.lease(pair.terms));
    const rent = market.lamports(lease.address);
    expect(lease.rentPayer).toBe(sponsor.address);
    const before = market.lamports(sponsor.address);
    market.mustSend([calls.callCancelLease(market.market, lease, baseUnits(0n), ['operator'])], pair.operator);
    expect(market.lamports(sponsor.address)).toBe(before + rent);
  });
});

describe('proof and settlement', () => {
  let lease: LeaseAccount;
  beforeEach(() => {
    lease = openLease(market, pair);
  });

  const prove = (claimed = 600_000n, operator = pair.operator): Outcome =>
    market.send(
      [
        calls.callSubmitProof(market.market, operator.address, {
          lease: lease.address,
          claimed: baseUnits(claimed),
          resultDigest: DIGEST,
        }),
      ],
      operator,
    );
  const settle = (amount: bigint, by: readonly calls.LeaseParty[], resultDigest: Uint8Array = DIGEST): Outcome =>
    market.send(
      [calls.callSettle(market.market, lease, { amount: baseUnits(amount), resultDigest }, by)],
      pair.buyer,
      ...by.map((party) => pair[party]),
    );

  test('together the parties settle any amount up to the lock, which is split to the last unit', () => {
    const supply = Buffer.from(must(market.data(market.mint))).readBigUInt64LE(36);
    const payout = tokensOf(pair.owner);
    const rent = market.lamports(lease.address);
    const delegateLamports = market.lamports(pair.delegate.address);
    const outcome = settle(999_999n, ['delegate', 'operator']);
    expect(outcome.refused).toBeUndefined();
    // 1 % burnt and 2 % to the stake, both rounded down; the payout takes the rest.
    expect(Buffer.from(must(market.data(market.mint))).readBigUInt64LE(36)).toBe(supply - 9_999n);
    expect(market.provider(pair.owner.address)).toMatchObject({
      stake: 100_000_000n + 19_999n,
      reserved: 0n,
      openLeases: 0,
      settledCount: 1n,
      settledAmount: 999_999n,
      feesBurned: 9_999n,
    });
    expect(market.tokens(stakeVaultOf())).toBe(100_019_999n);
    expect(tokensOf(pair.owner)).toBe(payout + 999_999n - 9_999n - 19_999n);
    expect(market.budget(pair.budget)).toMatchObject({ locked: 0n, openLeases: 0, free: 1_000_000_000n - 999_999n });
    expect(market.lamports(pair.delegate.address)).toBe(delegateLamports + rent);
    expect(readEndings(market.programId, outcome.logs, 'x')).toEqual([
      expect.objectContaining({
        ending: 'settledTogether',
        lease: lease.address,
        paid: 999_999n,
        refunded: 4n,
        burned: 9_999n,
        staked: 19_999n,
        slashed: 0n,
      }),
    ]);
  });

  test('nothing and one unit settle too', () => {
    expect(settle(0n, ['delegate', 'operator']).refused).toBeUndefined();
    expect(market.provider(pair.owner.address)).toMatchObject({ settledCount: 0n, feesBurned: 0n });
    lease = openLease(market, pair, newTerms(market, pair));
    expect(settle(1n, ['delegate', 'operator']).refused).toBeUndefined();
    expect(market.provider(pair.owner.address)).toMatchObject({ settledCount: 1n, settledAmount: 1n, feesBurned: 0n });
  });

  test('more than the lock is refused whoever signs', () => {
    expectRefusal(settle(1_000_004n, ['delegate', 'operator']), 'AmountNotAllowed');
    expectRefusal(settle(U64_MAX, ['delegate', 'operator']), 'AmountNotAllowed');
    expectRefusal(settle(1_000_004n, ['delegate']), 'AmountNotAllowed');
  });

  test('the delegate alone pays the whole lock, or the claim, and nothing else', () => {
    expectRefusal(settle(600_000n, ['delegate']), 'AmountNotAllowed');
    expect(prove().refused).toBeUndefined();
    expectRefusal(settle(599_999n, ['delegate']), 'AmountNotAllowed');
    expectRefusal(settle(600_000n, ['delegate'], newDigest()), 'DigestMismatch');
    expect(settle(600_000n, ['delegate']).refused).toBeUndefined();
    lease = openLease(market, pair, newTerms(market, pair));
    const outcome = settle(lease.amount, ['delegate']);
    expect(readEndings(market.programId, outcome.logs, 'x')[0]?.ending).toBe('settledByDelegate');
  });

  test('the operator alone counts as anyone: only the claim, only after the window', () => {
    expectRefusal(settle(lease.amount, ['operator']), 'LeaseNotProven');
    expectRefusal(settle(lease.amount, []), 'LeaseNotProven');
    expect(prove().refused).toBeUndefined();
    expectRefusal(settle(600_000n, ['operator']), 'WindowOpen');
    market.setTime(START_SECONDS + 60);
    expectRefusal(settle(600_000n, []), 'WindowOpen');
    market.setTime(START_SECONDS + 61);
    expectRefusal(settle(600_001n, []), 'AmountNotAllowed');
    expectRefusal(settle(600_000n, [], newDigest()), 'DigestMismatch');
    const outcome = settle(600_000n, []);
    expect(readEndings(market.programId, outcome.logs, 'x')[0]).toMatchObject({
      ending: 'settledAfterWindow',
      paid: 600_000n,
      refunded: 400_003n,
    });
  });

  test('a proof is given once, by the operator of the lease, in time, and claims no more than the lock', () => {
    expectRefusal(prove(600_000n, pair.delegate), 'NotOperator');
    expectRefusal(prove(1_000_004n), 'ClaimTooHigh');
    expectRefusal(prove(U64_MAX), 'ClaimTooHigh');
    market.setTime(START_SECONDS + 600 + 30);
    expect(prove(1_000_003n).refused).toBeUndefined();
    expect(market.lease(pair.terms)).toMatchObject({
      state: 'proven',
      proof: { claimed: 1_000_003n, resultDigest: DIGEST },
    });
    expectRefusal(prove(), 'LeaseNotRunning');
    lease = openLease(market, pair, newTerms(market, pair));
    market.setTime(START_SECONDS + 630 + 600 + 31);
    expectRefusal(prove(), 'ProofTooLate');
  });

  test('an operator who was rotated away still ends the leases that it signed', () => {
    const update = {
      operator: newKey().address,
      payout: tokenAddress(pair.owner.address, market.mint),
      commissionBps: 0,
    };
    market.mustSend([calls.callUpdateProvider(market.market, pair.owner.address, update)], pair.owner);
    expectRefusal(tryOpen({}), 'NotOperator');
    expect(prove().refused).toBeUndefined();
    expect(settle(600_000n, ['delegate', 'operator']).refused).toBeUndefined();
  });

  test('rates that change while a lease runs do not touch it', () => {
    const dearer: Parameters = { ...PARAMETERS, burnFeeBps: 1_000, stakeFeeBps: 1_000 };
    market.setParameters(dearer);
    const outcome = settle(1_000_000n, ['delegate', 'operator']);
    expect(readEndings(market.programId, outcome.logs, 'x')[0]).toMatchObject({ burned: 10_000n, staked: 20_000n });
  });

  test('a payout account that is closed or is the vault itself does not block the end: the payout goes to the stake', () => {
    const { payout } = lease;
    // What the owner would do with spl-token: empty the account, then close it.
    const empty = callOwnStake(market, pair.owner, tokensOf(pair.owner));
    const close = new TransactionInstruction({
      programId: new PublicKey('TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA'),
      keys: [
        { pubkey: new PublicKey(payout), isSigner: false, isWritable: true },
        { pubkey: new PublicKey(pair.owner.address), isSigner: false, isWritable: true },
        { pubkey: new PublicKey(pair.owner.address), isSigner: true, isWritable: false },
      ],
      data: Buffer.from([9]),
    });
    market.mustSend([empty, close], pair.owner);
    const { stake } = market.provider(pair.owner.address);
    expect(settle(1_000_000n, ['delegate', 'operator']).refused).toBeUndefined();
    expect(market.provider(pair.owner.address).stake).toBe(stake + 990_000n);

    const payoutIsVault = vaultAddress(market.programId, pair.budget).address;
    const update = { operator: pair.operator.address, payout: payoutIsVault, commissionBps: 0 };
    market.mustSend([calls.callUpdateProvider(market.market, pair.owner.address, update)], pair.owner);
    lease = openLease(market, pair, newTerms(market, pair));
    const before = vaultOf();
    expect(settle(1_000_000n, ['delegate', 'operator']).refused).toBeUndefined();
    expect(vaultOf()).toBe(before - 1_000_000n);
    expect(market.provider(pair.owner.address).stake).toBe(stake + 990_000n + 990_000n);
  });

  test('accounts that are not the ones of the lease are refused, one by one', () => {
    const other = registerPair(market);
    const otherLease = openLease(market, other);
    const good = calls.callSettle(market.market, lease, { amount: lease.amount, resultDigest: DIGEST }, [
      'delegate',
      'operator',
    ]);
    const foreign = {
      rentPayer: other.delegate.address,
      provider: otherLease.provider,
      budget: other.budget,
      vault: vaultAddress(market.programId, other.budget).address,
      stakeVault: stakeVaultOf(other),
      payout: otherLease.payout,
      mint: market.newMint(),
    };
    for (const [account, address] of Object.entries(foreign)) {
      expectRefusal(
        market.send([tamper(good, 'settle', account, { address })], pair.delegate, pair.operator),
        'WrongAddress',
      );
    }
    expectRefusal(
      market.send([tamper(good, 'settle', 'lease', { address: lease.provider })], pair.delegate, pair.operator),
      'WrongKind',
    );
    // The other lease's parties did not sign, and its accounts are not these.
    expectRefusal(
      market.send([tamper(good, 'settle', 'lease', { address: otherLease.address })], pair.delegate, pair.operator),
      'WrongAddress',
    );
    const strangers = tamper(
      tamper(good, 'settle', 'delegate', { address: other.delegate.address }),
      'settle',
      'operator',
      {
        address: other.operator.address,
      },
    );
    expectRefusal(market.send([strangers], other.delegate, other.operator), 'LeaseNotProven');
  });

  test('no ending takes the provider or the budget of somebody else, not even with all that belongs to them', () => {
    const other = registerPair(market);
    const otherLease = openLease(market, other);
    const settlement = { amount: lease.amount, resultDigest: DIGEST };
    const endings = {
      settle: calls.callSettle(market.market, lease, settlement, ['delegate', 'operator']),
      cancelLease: calls.callCancelLease(market.market, lease, lease.amount, ['delegate', 'operator']),
      expireLease: calls.callExpireLease(market.market, lease),
    } as const;
    market.setTime(START_SECONDS + 631);
    const sets = [
      { provider: otherLease.provider, stakeVault: stakeVaultOf(other) },
      { budget: other.budget, vault: vaultAddress(market.programId, other.budget).address },
      { rentPayer: other.delegate.address },
      { vault: vaultAddress(market.programId, other.budget).address },
      { stakeVault: stakeVaultOf(other) },
    ];
    for (const [name, good] of Object.entries(endings)) {
      for (const set of sets) {
        const forged = Object.entries(set).reduce(
          (instruction, [account, address]) => tamper(instruction, name as keyof typeof endings, account, { address }),
          good,
        );
        const signers = name === 'expireLease' ? [pair.buyer] : [pair.delegate, pair.operator];
        expectRefusal(market.send([forged], ...signers), 'WrongAddress');
      }
    }
    expect(market.send([endings.expireLease], pair.buyer).refused).toBeUndefined();
  });

  test('a lease that ended is gone: it cannot be settled, proven or brought back', () => {
    const call = calls.callSettle(market.market, lease, { amount: lease.amount, resultDigest: DIGEST }, [
      'delegate',
      'operator',
    ]);
    const refund = SystemProgram.transfer({
      fromPubkey: new PublicKey(pair.delegate.address),
      toPubkey: new PublicKey(lease.address),
      lamports: 10_000_000,
    });
    market.mustSend([call, refund], pair.delegate, pair.operator);
    expectRefusal(market.send([call], pair.delegate, pair.operator), 'WrongOwner');
    expectRefusal(prove(), 'WrongOwner');
    expectRefusal(market.send([call, call], pair.delegate, pair.operator), 'WrongOwner');
    // Lamports that lie at its address do not keep the same terms from being leased again.
    expect(openLease(market, pair).state).toBe('running');
  });
});

describe('cancel and expire', () => {
  let lease: LeaseAccount;
  beforeEach(() => {
    lease = openLease(market, pair);
  });

  const cancel = (mostToPay: bigint, by: readonly calls.LeaseParty[]): Outcome =>
    market.send(
      [calls.callCancelLease(market.market, lease, baseUnits(mostToPay), by)],
      pair.buyer,
      ...by.map((party) => pair[party]),
    );
  const expire = (): Outcome => market.send([calls.callExpireLease(market.market, lease)], pair.buyer);

  test('the operator alone gives everything back', () => {
    market.setTime(START_SECONDS + 100);
    expectRefusal(cancel(1n, ['operator']), 'AmountNotAllowed');
    const outcome = cancel(0n, ['operator']);
    expect(readEndings(market.programId, outcome.logs, 'x')[0]).toMatchObject({
      ending: 'cancelledByOperator',
      paid: 0n,
      refunded: 1_000_003n,
    });
    expect(market.budget(pair.budget).free).toBe(1_000_000_000n);
    expect(market.provider(pair.owner.address)).toMatchObject({ reserved: 0n, faults: 0n, settledCount: 0n });
  });

  test('the delegate alone pays for the seconds since opening, not less', () => {
    market.setTime(START_SECONDS + 100);
    expectRefusal(cancel(99_999n, ['delegate']), 'OwedMore');
    const outcome = cancel(1_000_003n, ['delegate']);
    expect(readEndings(market.programId, outcome.logs, 'x')[0]).toMatchObject({
      ending: 'cancelledByDelegate',
      paid: 100_000n,
    });
  });

  test('what the delegate owes is capped by the lock, also where the product leaves 64 bits', () => {
    market.setTime(START_SECONDS + 5_000);
    expect(readEndings(market.programId, cancel(1_000_003n, ['delegate']).logs, 'x')[0]?.paid).toBe(1_000_003n);
    for (const price of [U64_MAX, 0n]) {
      const terms = newTerms(market, pair, { pricePerSecond: baseUnits(price) });
      lease = openLease(market, pair, terms);
      market.setTime(market.now() + 7);
      expect(readEndings(market.programId, cancel(1_000_003n, ['delegate']).logs, 'x')[0]?.paid).toBe(
        price === 0n ? 0n : 1_000_003n,
      );
    }
  });

  test('together they pay the time or less', () => {
    market.setTime(START_SECONDS + 100);
    expect(readEndings(market.programId, cancel(30_000n, ['delegate', 'operator']).logs, 'x')[0]?.paid).toBe(30_000n);
    lease = openLease(market, pair, newTerms(market, pair));
    market.setTime(START_SECONDS + 200);
    const outcome = cancel(1_000_003n, ['delegate', 'operator']);
    expect(readEndings(market.programId, outcome.logs, 'x')[0]).toMatchObject({
      ending: 'cancelledTogether',
      paid: 100_000n,
    });
  });

  test('nobody else cancels, and a proven lease is not cancelled', () => {
    expectRefusal(cancel(0n, []), 'NotAParty');
    market.mustSend(
      [
        calls.callSubmitProof(market.market, pair.operator.address, {
          lease: lease.address,
          claimed: baseUnits(5n),
          resultDigest: DIGEST,
        }),
      ],
      pair.operator,
    );
    expectRefusal(cancel(0n, ['operator']), 'LeaseNotRunning');
    expectRefusal(cancel(1_000_003n, ['delegate', 'operator']), 'LeaseNotRunning');
    market.setTime(START_SECONDS + 10_000);
    expectRefusal(expire(), 'LeaseNotRunning');
  });

  test('after finishBy and grace anyone ends a lease without proof: money back, slashed stake on top', () => {
    market.setTime(START_SECONDS + 630);
    expectRefusal(expire(), 'NotYetExpired');
    market.setTime(START_SECONDS + 631);
    const outcome = expire();
    // 5 % of 1,000,003, rounded down.
    expect(readEndings(market.programId, outcome.logs, 'x')[0]).toMatchObject({
      ending: 'expired',
      paid: 0n,
      refunded: 1_000_003n,
      slashed: 50_000n,
    });
    expect(market.budget(pair.budget)).toMatchObject({ free: 1_000_050_000n, locked: 0n });
    expect(market.tokens(stakeVaultOf())).toBe(99_950_000n);
    expect(market.provider(pair.owner.address)).toMatchObject({
      stake: 99_950_000n,
      reserved: 0n,
      openLeases: 0,
      faults: 1n,
      faultAmount: 1_000_003n,
    });
  });

  test('a no-show never costs more than what was reserved', () => {
    const hard: Parameters = { ...PARAMETERS, noShowSlashBps: 10_000 };
    market.setParameters(hard);
    lease = openLease(market, pair, newTerms(market, pair));
    market.setTime(START_SECONDS + 631);
    expect(readEndings(market.programId, expire().logs, 'x')[0]?.slashed).toBe(200_000n);
  });
});

describe('what an instruction costs', () => {
  test('opening and settling take at most 20,000 compute units, and the program at most 48 KiB', () => {
    const opened = market.mustSend([open(pair.terms)], pair.delegate, pair.operator);
    const lease = must(market.lease(pair.terms));
    const settlement = { amount: lease.amount, resultDigest: DIGEST };
    const settled = market.mustSend(
      [calls.callSettle(market.market, lease, settlement, ['delegate', 'operator'])],
      pair.delegate,
      pair.operator,
    );
    expect(opened.units + settled.units).toBeLessThanOrEqual(20_000);
    const size = market.svm
      .getProgramAccounts('BPFLoaderUpgradeab1e11111111111111111111111' as never)
      .map(({ data }) => data.length);
    expect(size.some((length) => length <= 48 * 1024 + 45)).toBe(true);
  });

  test('the life of a job leaves lamports only in transaction fees', () => {
    const before = market.lamports(pair.delegate.address) + market.lamports(pair.operator.address);
    const lease = openLease(market, pair);
    market.mustSend(
      [
        calls.callSettle(market.market, lease, { amount: lease.amount, resultDigest: DIGEST }, [
          'delegate',
          'operator',
        ]),
      ],
      pair.delegate,
      pair.operator,
    );
    expect(before - market.lamports(pair.delegate.address) - market.lamports(pair.operator.address)).toBe(20_000n);
  });
});

test('the program and the table of the lease agree about who may do what to a lease, and when', () => {
  // Each event of the table, done in a state that it allows and refused in every other that exists on chain.
  const events = Object.keys(LEASE_EVENTS).filter((name) => name !== 'open');
  for (const state of ['running', 'proven', 'disputed'] as const) {
    for (const name of events) {
      const { lease, table } = leaseIn(state);
      if (name === 'settleLapsed') market.setTime(market.now() + 61);
      if (name === 'expire') market.setTime(market.now() + 631);
      if (name === 'resolveNeutral') market.setTime(market.now() + PARAMETERS.voteMs / 1000 + 1);
      const steps = table[name];
      // How disputes are resolved for one side is told in their own chapter; here, that no other state can be.
      if (steps === undefined) continue;
      const [instructions, ...signers] = steps;
      const outcome = market.send(instructions, ...signers);
      const allowed = (LEASE_EVENTS[name as keyof typeof LEASE_EVENTS].from as readonly string[]).includes(state);
      const accepted = outcome.refused === undefined && outcome.failed === undefined;
      expect([name, state, accepted]).toEqual([name, state, allowed]);
      if (accepted) {
        const { to } = LEASE_EVENTS[name as keyof typeof LEASE_EVENTS];
        const data = market.data(lease.address);
        expect([name, data ? readLease(lease.address, data).state : undefined]).toEqual([
          name,
          ['running', 'proven', 'disputed'].includes(to) ? to : undefined,
        ]);
      }
    }
  }
});

type Steps = readonly [readonly TransactionInstruction[], KeyPair, ...KeyPair[]];

/** A fresh lease in this state, and what each event of the table is sent as. */
function leaseIn(state: 'running' | 'proven' | 'disputed'): {
  readonly lease: LeaseAccount;
  readonly table: Readonly<Record<string, Steps>>;
} {
  const fresh = registerPair(market);
  const { delegate, operator, buyer } = fresh;
  const lease = openLease(market, fresh);
  const proof = { lease: lease.address, claimed: baseUnits(10n), resultDigest: DIGEST };
  const prove = calls.callSubmitProof(market.market, operator.address, proof);
  const dispute = calls.callDispute(market.market, lease);
  if (state !== 'running') market.mustSend([prove], operator);
  if (state === 'disputed') market.mustSend([dispute], delegate);
  const settle = (amount: bigint, by: readonly calls.LeaseParty[]): readonly TransactionInstruction[] => [
    calls.callSettle(market.market, lease, { amount: baseUnits(amount), resultDigest: DIGEST }, by),
  ];
  const cancel = (amount: bigint, by: readonly calls.LeaseParty[]): readonly TransactionInstruction[] => [
    calls.callCancelLease(market.market, lease, baseUnits(amount), by),
  ];
  const amount = baseUnits(7n);
  const message = encodeVoucher({ network: market.network, lease: lease.address, amount });
  const voucher = { message, signature: delegate.sign(message) };
  const address = disputeAddress(market.programId, lease.address).address;
  const data = market.data(address);
  const nobody = {
    address,
    lease: lease.address,
    provider: lease.provider,
    rentPayer: delegate.address,
    bond: baseUnits(0n),
    slot: 0n,
    seats: [],
    voteUntilMs: 0,
    revealUntilMs: 0,
  };
  const table: Record<string, Steps> = {
    extend: [[calls.callExtendLease(market.market, lease, lease)], delegate, operator],
    redeem: [calls.callRedeemVoucher(market.market, lease, amount, voucher), operator],
    submitProof: [[prove], operator],
    dispute: [[dispute], delegate],
    settleAgreed: [settle(10n, ['delegate', 'operator']), delegate, operator],
    settleWhole: [settle(lease.amount, ['delegate']), delegate],
    settleClaimed: [settle(10n, ['delegate']), delegate],
    settleLapsed: [settle(10n, []), buyer],
    resolveNeutral: [[calls.callResolve(market.market, lease, data ? readDispute(address, data) : nobody)], buyer],
    cancelByOperator: [cancel(0n, ['operator']), operator],
    cancelByDelegate: [cancel(lease.amount, ['delegate']), delegate],
    cancelAgreed: [cancel(0n, ['delegate', 'operator']), delegate, operator],
    expire: [[calls.callExpireLease(market.market, lease)], buyer],
  };
  return { lease, table };
}

test('accounts are as large as the layouts say', () => {
  const lease = openLease(market, pair);
  expect(market.data(lease.address)?.length).toBe(layoutSize(ACCOUNTS.lease.fields));
  expect(market.data(pair.budget)?.length).toBe(layoutSize(ACCOUNTS.budget.fields));
  expect(market.data(lease.provider)?.length).toBe(layoutSize(ACCOUNTS.provider.fields));
  expect(leaseAddress(market.programId, pair.budget, pair.terms.termsDigest).address).toBe(lease.address);
});
