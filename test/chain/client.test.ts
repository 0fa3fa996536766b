/** The client against the local chain: the flows of a lease, what it refuses, and the errors that people will see. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { connectChain, type Chain, type Devnet, type LeaseAccount } from '../../chain/index.ts';
import { PROGRAM_ERRORS } from '../../chain/program-errors.ts';
import { encodeAddress } from '../../protocol/address.ts';
import { hasCode } from '../../protocol/errors.ts';
import { baseUnits } from '../../protocol/units.ts';
import {
  LIMITS,
  env,
  funded,
  newParties,
  openOn,
  randomKey,
  rpc,
  startLocalChain,
  termsOf,
  type LocalChain,
  type Parties,
} from './local-chain.ts';

let local: LocalChain;
let devnet: Devnet;
let chain: Chain;
let parties: Parties;

beforeAll(async () => {
  local = await startLocalChain();
  ({ devnet, chain } = local);
  parties = await newParties(devnet, chain);
});

afterAll(async () => {
  await local[Symbol.asyncDispose]();
});

const digest = (): Uint8Array => env.random.bytes(32);
const warp = (seconds: number): Promise<unknown> => rpc(devnet.rpcUrl, 'molt_warp', seconds);

async function open(changes: Parameters<typeof termsOf>[2] = {}): Promise<LeaseAccount> {
  const terms = await termsOf(chain, parties, changes);
  return chain.fundedLease(await openOn(chain, parties, terms), terms);
}

async function proven(claimed = baseUnits(6n * 10n ** 8n)): Promise<LeaseAccount> {
  const lease = await open();
  await chain.submitProof(parties.operator, lease.address, claimed, digest());
  const account = await chain.lease(lease.address);
  expect(account?.state).toBe('proven');
  return account as LeaseAccount;
}

describe('connecting', () => {
  test('an endpoint that is not there, another network and a program that is not there are told apart', async () => {
    await expect(connectChain(env, { rpcUrl: 'http://127.0.0.1:9' })).rejects.toMatchObject({
      code: 'chain/unreachable',
    });
    const other = encodeAddress(digest());
    await expect(connectChain(env, { rpcUrl: devnet.rpcUrl, expectedNetwork: other })).rejects.toMatchObject({
      code: 'chain/wrong-network',
    });
    await expect(connectChain(env, { rpcUrl: devnet.rpcUrl, programId: randomKey().address })).rejects.toMatchObject({
      code: 'chain/not-deployed',
    });
  });

  test('tells network, mint and parameters', async () => {
    expect(chain).toMatchObject({
      network: devnet.network,
      mint: devnet.mint,
      parameters: { minWindowMs: 1_000, burnFeeBps: 50 },
    });
    await using same = await connectChain(env, { rpcUrl: devnet.rpcUrl, expectedNetwork: devnet.network });
    expect(same.network).toBe(devnet.network);
  });
});

describe('a lease of two parties', () => {
  test('both sides build the same bytes and pay 20,000 lamports for the whole life', async () => {
    await using provider = await connectChain(env, { rpcUrl: devnet.rpcUrl });
    const terms = await termsOf(chain, parties);
    const blockhash = await chain.recentBlockhash();
    const draft = chain.draftOpenLease(terms, blockhash);
    expect(provider.draftOpenLease(terms, blockhash)).toEqual(draft);
    expect(draft.signers).toEqual([parties.delegate.address, parties.operator.address]);
    const before = await Promise.all([
      chain.balances(parties.delegate.address),
      chain.balances(parties.operator.address),
    ]);

    const signatures = new Map([
      [parties.delegate.address, parties.delegate.sign(draft.message)],
      [parties.operator.address, parties.operator.sign(draft.message)],
    ]);
    await chain.submit(draft, signatures);
    const address = chain.leaseAddress(terms.budget, terms.termsDigest);
    const lease = await provider.fundedLease(address, terms);
    const result = digest();
    const settle = chain.draftSettle(lease, baseUnits(700_000_001n), result, blockhash);
    expect(provider.draftSettle(lease, baseUnits(700_000_001n), result, blockhash)).toEqual(settle);
    expect(await chain.leaseEnding(address)).toBeUndefined();
    const { signature } = await chain.submit(settle, [parties.operator, parties.delegate]);

    expect(await chain.lease(address)).toBeUndefined();
    expect(await chain.leaseEnding(address)).toMatchObject({
      ending: 'settledTogether',
      paid: 700_000_001n,
      refunded: 299_999_999n,
      signature,
      resultDigest: result,
    });
    expect((await chain.transactionCost(signature))?.feeLamports).toBe(10_000n);
    const after = await Promise.all([
      chain.balances(parties.delegate.address),
      chain.balances(parties.operator.address),
    ]);
    const lamports = (list: typeof before): bigint => list.reduce((sum, balance) => sum + balance.lamports, 0n);
    expect(lamports(before) - lamports(after)).toBe(20_000n);
  });

  test('a missing signature is named before anything is sent', async () => {
    const draft = chain.draftOpenLease(await termsOf(chain, parties), await chain.recentBlockhash());
    await expect(chain.submit(draft, [parties.delegate])).rejects.toMatchObject({
      code: 'chain/transaction-mismatch',
      context: { signer: parties.operator.address },
    });
  });

  test('a signature over other bytes is refused by the chain', async () => {
    const draft = chain.draftOpenLease(await termsOf(chain, parties), await chain.recentBlockhash());
    const wrong = new Map([
      [parties.delegate.address, parties.delegate.sign(draft.message)],
      [parties.operator.address, parties.operator.sign(digest())],
    ]);
    await expect(chain.submit(draft, wrong)).rejects.toMatchObject({ code: 'chain/refused' });
  });

  test('submitting the same transaction twice gives the same answer and happens once', async () => {
    const terms = await termsOf(chain, parties);
    const draft = chain.draftOpenLease(terms, await chain.recentBlockhash());
    const first = await chain.submit(draft, [parties.delegate, parties.operator]);
    expect(await chain.submit(draft, [parties.delegate, parties.operator])).toEqual(first);
  });

  test.each([
    ['amount', { amount: baseUnits(10n ** 9n + 1n) }],
    ['pricePerSecond', { pricePerSecond: baseUnits(1n) }],
    ['reserve', { reserve: baseUnits(10n ** 8n + 1n) }],
    ['graceMs', { graceMs: 6_000 }],
    ['windowMs', { windowMs: 6_000 }],
    ['finishByMs', { finishByMs: 1 }],
    ['operator', { operator: randomKey().address }],
    ['delegate', { delegate: randomKey().address }],
    ['provider', { provider: randomKey().address }],
    ['termsDigest', { termsDigest: new Uint8Array(32) }],
  ])('a lease that differs from the terms in %s is not a funded lease', async (_, change) => {
    const terms = await termsOf(chain, parties);
    const address = await openOn(chain, parties, terms);
    await expect(chain.fundedLease(address, { ...terms, ...change })).rejects.toMatchObject({
      code: 'chain/lease-mismatch',
    });
    expect((await chain.fundedLease(address, terms)).address).toBe(address);
  });

  test('a lease that is proven or not there is not a funded lease', async () => {
    const terms = await termsOf(chain, parties);
    const address = chain.leaseAddress(terms.budget, terms.termsDigest);
    await expect(chain.fundedLease(address, terms)).rejects.toMatchObject({ code: 'chain/lease-mismatch' });
    await openOn(chain, parties, terms);
    await chain.submitProof(parties.operator, address, baseUnits(1n), digest());
    await expect(chain.fundedLease(address, terms)).rejects.toMatchObject({ code: 'chain/lease-mismatch' });
  });
});

describe('one party alone', () => {
  test('the provider is paid after the window by anyone', async () => {
    const lease = await proven();
    const anyone = await funded(devnet);
    await expect(chain.settleAfterWindow(anyone, lease)).rejects.toMatchObject({
      code: 'chain/refused',
      context: { program: 'WindowOpen' },
    });
    await warp(31);
    const before = await chain.balances(parties.owner.address);
    await chain.settleAfterWindow(anyone, lease);
    // 600,000,000 less 0.5 % burnt and 1 % for the stake.
    expect((await chain.balances(parties.owner.address)).tokens - before.tokens).toBe(591_000_000n);
    expect((await chain.leaseEnding(lease.address))?.ending).toBe('settledAfterWindow');
  });

  test('a lease without a proof has nothing to settle after a window', async () => {
    await expect(chain.settleAfterWindow(parties.buyer, await open())).rejects.toMatchObject({ code: 'chain/refused' });
  });

  test('the delegate settles the claim, the operator cancels, the delegate cancels, both cancel, anyone expires', async () => {
    const claimed = await proven();
    await chain.settleAlone(
      parties.delegate,
      claimed,
      baseUnits(6n * 10n ** 8n),
      claimed.proof?.resultDigest as Uint8Array,
    );
    expect((await chain.leaseEnding(claimed.address))?.ending).toBe('settledByDelegate');

    const byOperator = await open();
    await chain.cancelByOperator(parties.operator, byOperator);
    expect(await chain.leaseEnding(byOperator.address)).toMatchObject({ ending: 'cancelledByOperator', paid: 0n });

    const byDelegate = await open();
    await warp(20);
    await expect(chain.cancelByDelegate(parties.delegate, byDelegate, baseUnits(5n))).rejects.toMatchObject({
      context: { program: 'OwedMore' },
    });
    await chain.cancelByDelegate(parties.delegate, byDelegate);
    expect((await chain.leaseEnding(byDelegate.address))?.paid).toBeGreaterThanOrEqual(20n * 10n ** 6n);

    const together = await open();
    const draft = chain.draftCancel(together, baseUnits(0n), await chain.recentBlockhash());
    await chain.submit(draft, [parties.delegate, parties.operator]);
    expect((await chain.leaseEnding(together.address))?.ending).toBe('cancelledTogether');

    const lost = await open();
    const before = await chain.budget(parties.budget);
    await expect(chain.expireLease(parties.buyer, lost)).rejects.toMatchObject({
      context: { program: 'NotYetExpired' },
    });
    await warp(70);
    await chain.expireLease(parties.buyer, lost);
    // 10 % of the amount, all of the reserve.
    expect(((await chain.budget(parties.budget))?.free ?? 0n) - (before?.free ?? 0n)).toBe(lost.amount + 100_000_000n);
    expect((await chain.provider(lost.provider))?.faults).toBe(1n);
  });

  test('a blockhash that expired meanwhile is replaced without the caller noticing', async () => {
    await chain.recentBlockhash();
    await warp(120);
    await chain.deposit(parties.buyer, parties.budget, baseUnits(1n));
    const stale = await chain.recentBlockhash();
    await warp(120);
    const draft = chain.draftOpenLease(await termsOf(chain, parties), stale);
    await expect(chain.submit(draft, [parties.delegate, parties.operator])).rejects.toMatchObject({
      code: 'chain/blockhash-expired',
      retry: 'now',
    });
  });
});

describe('provider and budget', () => {
  test('a provider updates one setting and keeps the others, stakes and unstakes', async () => {
    const owner = await funded(devnet);
    const operator = randomKey();
    await expect(chain.updateProvider(owner, { commissionBps: 1 })).rejects.toMatchObject({
      code: 'chain/account-missing',
    });
    await chain.registerProvider(owner, { operator: operator.address, commissionBps: 250 });
    const address = chain.providerAddress(owner.address);
    const next = randomKey();
    await chain.updateProvider(owner, { operator: next.address });
    expect(await chain.provider(address)).toMatchObject({
      operator: next.address,
      commissionBps: 250,
      payout: chain.tokenAddress(owner.address),
    });
    const { tokens } = await chain.balances(owner.address);
    await chain.stake(owner, address, baseUnits(10_000_000n));
    await chain.unstake(owner, address, baseUnits(4_000_000n));
    expect((await chain.provider(address))?.stake).toBe(6_000_000n);
    await expect(chain.withdrawStake(owner, address)).rejects.toMatchObject({ code: 'chain/too-early' });
    await warp(11);
    await chain.withdrawStake(owner, address);
    expect((await chain.balances(owner.address)).tokens).toBe(tokens - 6_000_000n);
    expect(await chain.delegation(chain.delegationAddress(address, owner.address))).toMatchObject({
      provider: address,
      staker: owner.address,
      value: 6_000_000n,
      principal: 6_000_000n,
      unbondingShares: 0n,
    });
    expect((await chain.providers()).map((provider) => provider.address)).toEqual(
      expect.arrayContaining([address, chain.providerAddress(parties.owner.address)]),
    );
    await expect(chain.unstake(parties.buyer, address, baseUnits(1n))).rejects.toMatchObject({
      code: 'chain/account-missing',
    });
  });

  test('a budget is made, filled, limited, emptied and closed', async () => {
    const buyer = await funded(devnet);
    const first = randomKey();
    const { budget } = await chain.createBudget(buyer, 7n, LIMITS(first.address));
    expect(budget).toBe(chain.budgetAddress(buyer.address, 7n));
    expect(await chain.budget(budget)).toMatchObject({ free: 0n, delegates: [first.address] });
    await chain.deposit(buyer, budget, baseUnits(900n));
    await chain.withdrawBudget(buyer, budget, baseUnits(300n));
    const second = randomKey();
    await chain.setDelegates(buyer, budget, { ...LIMITS(second.address), capPerLease: baseUnits(5n) });
    expect(await chain.budget(budget)).toMatchObject({
      free: 600n,
      delegates: [second.address],
      capPerLease: 5n,
      id: 7n,
    });
    await chain.closeBudget(buyer, budget);
    expect(await chain.budget(budget)).toBeUndefined();
    expect((await chain.balances(buyer.address)).tokens).toBe(10n ** 12n);
  });

  test('leases are found by operator, delegate and budget', async () => {
    const lease = await open();
    const { operator, delegate, budget } = lease;
    for (const filter of [{ operator }, { delegate }, { budget }, { operator, delegate, budget }]) {
      expect((await chain.leases(filter)).map(({ address }) => address)).toContain(lease.address);
    }
    expect(await chain.leases({ operator: delegate })).toEqual([]);
    expect(await chain.leases({ operator: randomKey().address })).toEqual([]);
  });

  test('refusals carry the closest code and say what to do', async () => {
    const poor = randomKey();
    await expect(chain.deposit(poor, parties.budget, baseUnits(1n))).rejects.toMatchObject({
      code: 'chain/insufficient-funds',
    });
    await expect(chain.deposit(parties.buyer, parties.budget, baseUnits(10n ** 15n))).rejects.toMatchObject({
      code: 'chain/insufficient-funds',
    });
    await expect(open({ amount: baseUnits(10n ** 12n), reserve: baseUnits(10n ** 11n) })).rejects.toMatchObject({
      code: 'chain/stake-too-low',
    });
    await expect(
      open({ amount: baseUnits(6n * 10n ** 11n), reserve: baseUnits(6n * 10n ** 10n) }),
    ).rejects.toMatchObject({ code: 'chain/budget-empty' });
    await expect(open({ amount: baseUnits(10n ** 12n + 1n) })).rejects.toSatisfy((error) =>
      hasCode(error, 'chain/refused', 'chain/budget-limit'),
    );
    await expect(chain.withdrawBudget(parties.delegate, parties.budget, baseUnits(1n))).rejects.toMatchObject({
      code: 'chain/refused',
      context: { program: 'NotOwner' },
    });
    await expect(chain.provider(parties.budget)).rejects.toMatchObject({ code: 'chain/account-malformed' });
    await expect(chain.lease(parties.buyer.address)).resolves.toBeUndefined();
    await expect(chain.lease(chain.tokenAddress(parties.buyer.address))).rejects.toMatchObject({
      code: 'chain/account-malformed',
    });
    for (const { name, text } of PROGRAM_ERRORS) expect(`${name}: ${text}`).toMatch(/^\w+: \S.{10,}/);
  });
});

describe('watching a lease', () => {
  test('gives the lease now, when it is proven and when it is gone, and ends with its signal', async () => {
    const terms = await termsOf(chain, parties);
    const address = chain.leaseAddress(terms.budget, terms.termsDigest);
    const stop = new AbortController();
    const seen: (string | undefined)[] = [];
    for await (const lease of chain.watchLease(address, stop.signal)) {
      seen.push(lease?.state);
      if (seen.length === 1) await openOn(chain, parties, terms);
      else if (lease?.state === 'running') await chain.submitProof(parties.operator, address, baseUnits(5n), digest());
      else if (lease?.proof) await chain.settleAlone(parties.delegate, lease, baseUnits(5n), lease.proof.resultDigest);
      else stop.abort();
    }
    expect(seen).toEqual([undefined, 'running', 'proven', undefined]);
  });

  test('closing the client ends every watch', async () => {
    const own = await connectChain(env, { rpcUrl: devnet.rpcUrl });
    let rounds = 0;
    for await (const _ of own.watchLease(randomKey().address, new AbortController().signal)) {
      rounds++;
      await own[Symbol.asyncDispose]();
    }
    expect(rounds).toBe(1);
  });
});
