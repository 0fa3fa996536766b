/** The client against the local chain, for what holders, verifiers and reporters do: stake, vouchers, disputes, slashes. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import * as calls from '../../chain/calls.ts';
import { connectChain, startDevnet, type Chain, type Devnet, type LeaseAccount, type Vote } from '../../chain/index.ts';
import { buildDraft } from '../../chain/instructions.ts';
import type { Address } from '../../protocol/address.ts';
import { encodeCommit } from '../../protocol/commit.ts';
import { keyPairFromSeed, type KeyPair } from '../../protocol/ed25519.ts';
import type { Env } from '../../protocol/env.ts';
import { baseUnits } from '../../protocol/units.ts';
import { signVoucher } from '../../protocol/voucher.ts';
import { env, funded, newFolder, newParties, openOn, rpc, termsOf, type Parties } from './local-chain.ts';
import { must } from './market.ts';

const MOLT = 10n ** 9n;
let folder: Awaited<ReturnType<typeof newFolder>>;
let devnet: Devnet;
let chain: Chain;
let parties: Parties;
let authority: KeyPair;

beforeAll(async () => {
  // The key of the local chain's authority is drawn when the chain is born: kept here, to admit verifiers with it.
  const drawn: Uint8Array[] = [];
  const bytes = (length: number): Uint8Array => {
    const made = env.random.bytes(length);
    drawn.push(made.slice());
    return made;
  };
  const watched: Env = { ...env, random: { ...env.random, bytes } };
  folder = await newFolder();
  devnet = await startDevnet(watched, { directory: folder.path, port: 0 });
  chain = await connectChain(env, { rpcUrl: devnet.rpcUrl });
  const { authority: address } = await chain.config();
  const keys = drawn.filter(({ length }) => length === 32).map((seed) => keyPairFromSeed(seed));
  authority = must(keys.find((key) => key.address === address));
  parties = await newParties(devnet, chain);
});

afterAll(async () => {
  await chain[Symbol.asyncDispose]();
  await devnet.close();
  await folder[Symbol.asyncDispose]();
});

const warp = (seconds: number): Promise<unknown> => rpc(devnet.rpcUrl, 'molt_warp', seconds);
const provider = (): Address => chain.providerAddress(parties.owner.address);

async function open(): Promise<LeaseAccount> {
  const terms = await termsOf(chain, parties);
  return chain.fundedLease(await openOn(chain, parties, terms), terms);
}

describe('delegations', () => {
  test('a holder stakes behind a provider, earns its share of fees, and takes everything out again', async () => {
    const holder = await funded(devnet);
    const before = (await chain.balances(holder.address)).tokens;
    await chain.stake(holder, provider(), baseUnits(300n * MOLT));
    const lease = await open();
    const draft = chain.draftSettle(lease, lease.amount, new Uint8Array(32), await chain.recentBlockhash());
    await chain.submit(draft, [parties.delegate, parties.operator]);
    // 1 % of 1 MOLT, three quarters of it to delegators.
    const [delegation] = await chain.delegationsOf(holder.address);
    expect(delegation).toMatchObject({ provider: provider(), principal: 300n * MOLT, value: 300n * MOLT + 7_500_000n });
    await chain.unstake(holder, provider(), baseUnits(10n ** 15n));
    expect(await chain.delegation(must(delegation).address)).toMatchObject({
      shares: 0n,
      value: 0n,
      unbondingShares: 300n * MOLT,
    });
    await expect(chain.withdrawStake(holder, provider())).rejects.toMatchObject({
      code: 'chain/too-early',
      context: { program: 'StillUnbonding' },
    });
    await warp(11);
    await chain.withdrawStake(holder, provider());
    expect((await chain.balances(holder.address)).tokens).toBe(before + 7_500_000n);
    expect(await chain.delegationsOf(holder.address)).toEqual([]);
  });

  test('an amount that rounds is taken in shares that cover it', async () => {
    const holder = await funded(devnet);
    await chain.stake(holder, provider(), baseUnits(10n * MOLT));
    await chain.unstake(holder, provider(), baseUnits(MOLT));
    const [delegation] = await chain.delegationsOf(holder.address);
    expect(delegation?.unbondingValue).toBeGreaterThanOrEqual(MOLT - 1n);
    expect(delegation?.unbondingValue).toBeLessThanOrEqual(MOLT + 1n);
  });
});

describe('a running lease', () => {
  test('is extended by both, and vouchers are redeemed from it before it ends', async () => {
    const lease = await open();
    const extension = {
      amount: baseUnits(2n * MOLT),
      reserve: baseUnits(2n * 10n ** 8n),
      finishByMs: lease.finishByMs + 60_000,
    };
    const draft = chain.draftExtend(lease, extension, await chain.recentBlockhash());
    await chain.submit(draft, [parties.delegate, parties.operator]);
    const longer = must(await chain.lease(lease.address));
    expect(longer).toMatchObject(extension);
    const voucher = (amount: bigint) => ({ network: chain.network, lease: lease.address, amount: baseUnits(amount) });
    const redeem = (amount: bigint) =>
      chain.redeemVoucher(parties.operator, longer, baseUnits(amount), signVoucher(parties.delegate, voucher(amount)));
    await redeem(MOLT);
    await expect(redeem(MOLT)).rejects.toMatchObject({ context: { program: 'NothingToRedeem' } });
    const bad = signVoucher(parties.operator, voucher(2n * MOLT));
    await expect(chain.redeemVoucher(parties.operator, longer, baseUnits(2n * MOLT), bad)).rejects.toMatchObject({
      code: 'chain/refused',
    });
    await chain.cancelByOperator(parties.operator, must(await chain.lease(lease.address)));
    expect(await chain.leaseEnding(lease.address)).toMatchObject({ paid: MOLT, refunded: MOLT });
  });
});

describe('a dispute', () => {
  test('goes from the complaint over the draw to the verdict', async () => {
    const judges = await Promise.all(
      [0, 1, 2].map(async () => {
        const judge = await newParties(devnet, chain);
        const people = { authority: authority.address, owner: judge.owner.address };
        const join = calls.callSetVerifier({ programId: chain.programId, mint: chain.mint }, people, true, [
          people.authority,
          people.owner,
        ]);
        const draft = buildDraft(judge.owner.address, await chain.recentBlockhash(), [join]);
        await chain.submit(draft, [judge.owner, authority]);
        return judge;
      }),
    );
    const { verifiers } = await chain.config();
    expect(verifiers.toSorted()).toEqual(judges.map(({ owner }) => chain.providerAddress(owner.address)).toSorted());

    const lease = await open();
    await chain.submitProof(parties.operator, lease.address, baseUnits(MOLT), new Uint8Array(32).fill(1));
    await chain.openDispute(parties.delegate, must(await chain.lease(lease.address)));
    expect(await chain.lease(lease.address)).toMatchObject({ state: 'disputed' });
    await warp(1);
    await chain.drawVerifiers(parties.buyer, lease.address);
    const dispute = must(await chain.dispute(lease.address));
    expect(dispute.seats.map(({ verifier }) => verifier).toSorted()).toEqual(verifiers.toSorted());

    const vote = (judge: Parties): Vote => ({
      lease: lease.address,
      verifier: chain.providerAddress(judge.owner.address),
      side: 'buyer',
      salt: new Uint8Array(32).fill(4),
    });
    for (const judge of judges) await chain.commitVote(judge.operator, vote(judge));
    await expect(chain.revealVote(must(judges[0]).operator, vote(must(judges[0])))).rejects.toMatchObject({
      context: { program: 'RevealClosed' },
    });
    await expect(chain.resolveDispute(parties.buyer, must(await chain.lease(lease.address)))).rejects.toMatchObject({
      code: 'chain/too-early',
    });
    await warp(61);
    for (const judge of judges) await chain.revealVote(judge.operator, vote(judge));
    expect((await chain.dispute(lease.address))?.seats.map((seat) => seat.vote)).toEqual(['buyer', 'buyer', 'buyer']);
    await chain.resolveDispute(parties.buyer, must(await chain.lease(lease.address)));
    expect(await chain.leaseEnding(lease.address)).toMatchObject({
      ending: 'resolvedForBuyer',
      paid: 0n,
      slashed: 10n ** 8n,
    });
    expect(await chain.slashes(provider())).toMatchObject([
      { reason: 'wrongResult', own: 10n ** 8n, delegated: 0n, paid: 7n * 10n ** 7n, burned: 3n * 10n ** 7n },
    ]);
    expect(await chain.dispute(lease.address)).toBeUndefined();
    await expect(chain.resolveDispute(parties.buyer, lease)).rejects.toMatchObject({ code: 'chain/account-missing' });
  });
});

describe('equivocation', () => {
  test('is shown by anyone in one transaction, and pays reporter and buyer', async () => {
    const reporter = await funded(devnet);
    const commit = (value: number): Uint8Array =>
      encodeCommit({
        kind: 'result',
        attempt: 1,
        network: chain.network,
        subject: new Uint8Array(32).fill(1),
        index: 0n,
        aux: 0n,
        value: new Uint8Array(32).fill(value),
        slot: 0n,
        account: parties.budget,
      });
    const commits = [commit(1), commit(2)] as const;
    const { operator } = parties;
    const signatures = [operator.sign(commits[0]), operator.sign(commits[1])] as const;
    const evidence = { signer: operator.address, commits, signatures };
    const before = must(await chain.provider(provider()));
    const [{ tokens }, budget] = await Promise.all([chain.balances(reporter.address), chain.budget(parties.budget)]);
    await chain.slashEquivocation(reporter, provider(), evidence, parties.budget);
    const [slash] = await chain.slashes(provider());
    const lost = (before.own.stake + before.delegated.stake) / 4n;
    expect(slash).toMatchObject({ reason: 'equivocation', own: lost, delegated: 0n });
    expect((await chain.balances(reporter.address)).tokens - tokens).toBe((lost * 3n) / 10n);
    expect(((await chain.budget(parties.budget))?.free ?? 0n) - (budget?.free ?? 0n)).toBeGreaterThanOrEqual(
      (lost * 4n) / 10n,
    );
    await expect(chain.slashEquivocation(reporter, provider(), evidence)).rejects.toMatchObject({
      context: { program: 'AlreadySlashed' },
    });
    await expect(open()).rejects.toMatchObject({ context: { program: 'Jailed' } });
    expect(await chain.offences(provider())).toMatchObject([{ amount: lost, due: 0n, harmed: parties.budget }]);
  });

  test('what stands behind open leases is collected by anyone when they have ended', async () => {
    const [other, reporter, collector] = await Promise.all([newParties(devnet, chain), funded(devnet), funded(devnet)]);
    const seller = chain.providerAddress(other.owner.address);
    const terms = await termsOf(chain, other, { reserve: baseUnits(90n * MOLT) });
    const lease = await chain.fundedLease(await openOn(chain, other, terms), terms);
    const { operator } = other;
    const commits = [1, 2].map((value) =>
      encodeCommit({
        kind: 'checkpoint',
        attempt: 0,
        network: chain.network,
        subject: new Uint8Array(32),
        index: 5n,
        aux: 0n,
        value: new Uint8Array(32).fill(value),
        slot: 0n,
        account: other.budget,
      }),
    );
    const [a, b] = [must(commits[0]), must(commits[1])];
    const signatures = [operator.sign(a), operator.sign(b)] as const;
    await chain.slashEquivocation(reporter, seller, { signer: operator.address, commits: [a, b], signatures });
    const [offence] = await chain.offences(seller);
    expect(offence).toMatchObject({ amount: 25n * MOLT, due: 15n * MOLT });
    await expect(chain.collectSlash(collector, must(offence))).rejects.toMatchObject({
      context: { program: 'AlreadySlashed' },
    });
    await chain.cancelByOperator(operator, lease);
    const { tokens } = await chain.balances(collector.address);
    await chain.collectSlash(collector, must(offence));
    expect((await chain.balances(collector.address)).tokens - tokens).toBe((15n * MOLT * 3n) / 10n);
    expect(await chain.offences(seller)).toMatchObject([{ due: 0n }]);
    expect(await chain.provider(seller)).toMatchObject({ slashDue: 0n, slashed: 25n * MOLT });
  });
});
