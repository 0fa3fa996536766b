/** Two signed statements that cannot both be true: who loses what, who gets what, and what is no equivocation. */
import { beforeEach, describe, expect, test } from 'vitest';

import { readOffence, readSlashes } from '../../../chain/accounts.ts';
import {
  offenceAddress,
  providerAddress,
  stakeVaultAddress,
  tokenAddress,
  vaultAddress,
} from '../../../chain/addresses.ts';
import * as calls from '../../../chain/calls.ts';
import type { Equivocation, LeaseAccount, OffenceAccount } from '../../../chain/chain.ts';
import { offenceDigest, verifySignatures } from '../../../chain/evidence.ts';
import { LIMITS } from '../../../chain/layout.ts';
import type { Address } from '../../../protocol/address.ts';
import { encodeCommit, type Commit } from '../../../protocol/commit.ts';
import type { KeyPair } from '../../../protocol/ed25519.ts';
import { baseUnits } from '../../../protocol/units.ts';
import {
  PARAMETERS,
  START_SECONDS,
  TestMarket,
  must,
  newDigest,
  newKey,
  newTerms,
  openLease,
  registerPair,
  tamper,
  type Outcome,
  type Pair,
} from '../market.ts';
import { expectRefusal } from '../refusal.ts';
import { staker } from './stake.ts';

export function equivocationChapter(): void {
  describe('equivocation', () => {
    let market: TestMarket;
    let pair: Pair;
    let provider: Address;
    let reporter: KeyPair;
    let lease: LeaseAccount;
    beforeEach(() => {
      market = new TestMarket();
      pair = registerPair(market);
      provider = providerAddress(market.programId, pair.owner.address).address;
      reporter = market.newWallet();
      lease = openLease(market, pair);
    });

    const ok = (outcome: Outcome): void => expect(outcome.refused ?? outcome.failed).toBeUndefined();
    const commit = (changes: Partial<Commit> = {}): Commit => ({
      kind: 'result',
      attempt: 1,
      network: market.network,
      subject: new Uint8Array(32).fill(3),
      index: 0n,
      aux: 0n,
      value: newDigest(),
      slot: 7n,
      account: pair.budget,
      ...changes,
    });
    const evidence = (a: Commit, b: Commit, signer: KeyPair = pair.operator): Equivocation => {
      const commits = [encodeCommit(a), encodeCommit(b)] as const;
      return { signer: signer.address, commits, signatures: [signer.sign(commits[0]), signer.sign(commits[1])] };
    };
    const build = (found: Equivocation, harmed?: Address) => {
      const reward = tokenAddress(reporter.address, market.mint);
      const report = { reporter: reporter.address, reward, provider };
      return calls.callSlashEquivocation(market.market, report, found, harmed);
    };
    const report = (found: Equivocation, harmed?: Address): Outcome => market.send(build(found, harmed), reporter);
    const offence = (found: Equivocation): OffenceAccount => {
      const { address } = offenceAddress(market.programId, provider, offenceDigest(found));
      return readOffence(address, must(market.data(address)));
    };
    const reward = (): bigint => market.tokens(tokenAddress(reporter.address, market.mint));
    const supply = (): bigint => Buffer.from(must(market.data(market.mint))).readBigUInt64LE(36);
    const unit = new Uint8Array(32).fill(9);
    const sold = (from: bigint, to: bigint, changes: Partial<Commit> = {}): Commit =>
      commit({ kind: 'lease', subject: unit, index: from, aux: to, ...changes });

    test('two results for one attempt: a quarter of the stake is lost, reporter and buyer are paid, the rest is burnt', () => {
      const found = evidence(commit(), commit());
      const before = supply();
      const { free } = market.budget(pair.budget);
      const outcome = report(found, pair.budget);
      ok(outcome);
      // 25 million: 30 % to the reporter, 40 % to the budget that the first commit names.
      expect(reward()).toBe(7_500_000n);
      expect(market.budget(pair.budget).free).toBe(free + 10_000_000n);
      expect(supply()).toBe(before - 7_500_000n);
      expect(market.provider(pair.owner.address)).toMatchObject({
        own: { stake: 75_000_000n },
        faults: 1n,
        faultAmount: 25_000_000n,
        slashed: 25_000_000n,
        slashDue: 0n,
        jailedUntilMs: (START_SECONDS + LIMITS.jailSeconds) * 1000,
      });
      expect(market.tokens(stakeVaultAddress(market.programId, provider).address)).toBe(75_000_000n);
      expect(offence(found)).toMatchObject({ provider, reporter: reporter.address, amount: 25_000_000n, due: 0n });
      expect(readSlashes(market.programId, outcome.logs, 'x')).toMatchObject([
        { reason: 'equivocation', own: 25_000_000n, paid: 17_500_000n, burned: 7_500_000n },
      ]);
    });

    test('where no budget is named, the part of the buyer is burnt', () => {
      const before = supply();
      ok(report(evidence(commit(), commit())));
      expect(reward()).toBe(7_500_000n);
      expect(supply()).toBe(before - 17_500_000n);
    });

    test('one offence is slashed once, however many values were signed', () => {
      const [a, b, c] = [commit(), commit(), commit()];
      ok(report(evidence(a, b)));
      for (const again of [evidence(a, b), evidence(b, a), evidence(a, c), evidence(b, c)]) {
        expectRefusal(report(again), 'AlreadySlashed');
      }
      // Another attempt, index or subject is another offence.
      ok(report(evidence(commit({ attempt: 2 }), commit({ attempt: 2 }))));
      expect(market.provider(pair.owner.address).own.stake).toBe(56_250_000n);
    });

    test('what does not contradict itself is no offence', () => {
      const same = commit();
      for (const [a, b] of [
        [same, same],
        [same, { ...same, slot: 8n }],
        [commit(), commit({ attempt: 2 })],
        [commit(), commit({ index: 1n })],
        [commit(), commit({ subject: unit })],
        [commit(), commit({ kind: 'verdict' })],
        [sold(100n, 200n), sold(200n, 300n)],
        [sold(200n, 300n), sold(100n, 200n)],
        [sold(100n, 200n), sold(150n, 250n, { subject: new Uint8Array(32) })],
        [sold(100n, 100n), sold(50n, 100n)],
        [commit({ index: 100n, aux: 200n }), commit({ index: 150n, aux: 250n })],
      ] as const) {
        expectRefusal(report(evidence(a, b)), 'NoConflict');
      }
    });

    test('a capacity unit that is sold twice for the same time is one, whatever the attempt', () => {
      const found = evidence(sold(100n, 200n), sold(199n, 300n, { attempt: 2 }));
      ok(report(found));
      expect(offence(found)).toMatchObject({ amount: 25_000_000n });
      // The same pair in the other order is the same offence; a third sale inside is another one.
      expectRefusal(report(evidence(sold(199n, 300n, { attempt: 2 }), sold(100n, 200n))), 'AlreadySlashed');
      ok(report(evidence(sold(100n, 200n), sold(150n, 160n))));
    });

    test('statements of other networks, domains, flags and signers count for nothing', () => {
      expectRefusal(report(evidence(commit({ network: newKey().address }), commit())), 'WrongDomain');
      expectRefusal(report(evidence(commit(), commit({ network: newKey().address }))), 'WrongDomain');
      expectRefusal(report(evidence(commit(), commit(), pair.owner)), 'WrongSigner');
      for (const at of [0, 15, 17]) {
        const bytes = [encodeCommit(commit()), encodeCommit(commit())].map((message) => {
          message[at] = (message[at] ?? 0) ^ 1;
          return { message, signature: pair.operator.sign(message) };
        });
        const [, slash] = build(evidence(commit(), commit()));
        const forged = [verifySignatures(pair.operator.address, bytes), must(slash)];
        expectRefusal(market.send(forged, reporter), 'WrongDomain');
      }
      const [, slash] = build(evidence(commit(), commit()));
      expectRefusal(market.send([must(slash)], reporter), 'BadEvidence');
    });

    test('an operator that was rotated away still answers for what it signed', () => {
      const settings = {
        operator: newKey().address,
        payout: tokenAddress(pair.owner.address, market.mint),
        commissionBps: 0,
      };
      market.mustSend([calls.callUpdateProvider(market.market, pair.owner.address, settings)], pair.owner);
      ok(report(evidence(commit(), commit())));
    });

    test('stake behind open leases is theirs first; what is due is taken when they have ended', () => {
      const big = openLease(market, pair, newTerms(market, pair, { reserve: baseUnits(89_800_000n) }));
      const found = evidence(commit(), commit());
      ok(report(found));
      expect(offence(found)).toMatchObject({ amount: 25_000_000n, due: 15_000_000n });
      expect(market.provider(pair.owner.address)).toMatchObject({
        own: { stake: 90_000_000n },
        reserved: 90_000_000n,
        slashDue: 15_000_000n,
      });
      expectRefusal(report(found), 'AlreadySlashed');
      const owner = staker(market, provider, pair.owner);
      ok(owner.unstake(50_000_000n));
      market.mustSend([calls.callCancelLease(market.market, big, baseUnits(0n), ['operator'])], pair.operator);
      market.setTime(START_SECONDS + PARAMETERS.unbondingMs / 1000);
      expectRefusal(owner.withdraw(), 'SlashDue');
      market.setTime(START_SECONDS + LIMITS.jailSeconds);
      const limits = { ...market.budget(pair.budget), expiresAtMs: Number.MAX_SAFE_INTEGER };
      market.mustSend([calls.callSetDelegates(market.market, pair.buyer.address, pair.budget, limits)], pair.buyer);
      const open = (): Outcome =>
        market.send([calls.callOpenLease(market.market, newTerms(market, pair))], pair.delegate, pair.operator);
      expectRefusal(open(), 'SlashDue');
      // The evidence is not needed again; whoever takes what is due has the reward.
      const about = { reporter: reporter.address, reward: tokenAddress(reporter.address, market.mint), provider };
      const before = reward();
      ok(market.send([calls.callCollectSlash(market.market, about, offence(found))], reporter));
      expect(reward()).toBe(before + 4_500_000n);
      expect(offence(found).due).toBe(0n);
      expect(market.provider(pair.owner.address)).toMatchObject({ own: { stake: 75_000_000n }, slashDue: 0n });
      ok(open());
      ok(owner.withdraw());
    });

    test('a jailed provider opens and extends nothing until its time has passed', () => {
      ok(report(evidence(commit(), commit())));
      const open = (): Outcome =>
        market.send([calls.callOpenLease(market.market, newTerms(market, pair))], pair.delegate, pair.operator);
      expectRefusal(open(), 'Jailed');
      const extension = calls.callExtendLease(market.market, lease, lease);
      expectRefusal(market.send([extension], pair.delegate, pair.operator), 'Jailed');
      market.setTime(START_SECONDS + LIMITS.jailSeconds - 1);
      expectRefusal(open(), 'Jailed');
      market.setTime(START_SECONDS + LIMITS.jailSeconds);
      expect(open().refused).toBe('BudgetExpired');
    });

    test('whoever conspires with delegators in the pool gets nothing of theirs', () => {
      const who = market.newWallet(900_000_000n);
      ok(staker(market, provider, who).stake(800_000_000n));
      const before = market.provider(pair.owner.address).own.stake;
      ok(report(evidence(commit(), commit()), pair.budget));
      // A quarter of 900 million is more than the owner has: all of that is lost first, and 70 % of it is paid.
      expect(market.provider(pair.owner.address)).toMatchObject({
        own: { stake: 0n },
        delegated: { stake: 675_000_000n },
      });
      expect(reward()).toBe((before * 3n) / 10n);
      expect(market.budget(pair.budget).free).toBe(1_000_000_000n - 1_000_003n + (before * 4n) / 10n);
    });

    test('accounts of others are refused', () => {
      const found = evidence(commit(), commit());
      const other = registerPair(market);
      const otherLease = openLease(market, other);
      const otherProvider = otherLease.provider;
      const [verify, slash] = build(found, pair.budget).map(must);
      if (!verify || !slash) return;
      const send = (name: string, address: Address): Outcome =>
        market.send([verify, tamper(slash, 'slashEquivocation', name, { address })], reporter);
      expectRefusal(send('provider', otherProvider), 'WrongAddress');
      expectRefusal(send('stakeVault', stakeVaultAddress(market.programId, otherProvider).address), 'WrongAddress');
      expectRefusal(send('mint', market.newMint()), 'WrongAddress');
      expectRefusal(send('harmedVault', vaultAddress(market.programId, other.budget).address), 'WrongAddress');
      expectRefusal(send('instructions', pair.budget), 'WrongAddress');
      const own = stakeVaultAddress(market.programId, provider).address;
      expectRefusal(send('reward', own), 'DuplicateAccount');
      // A budget that no commit names is not harmed, and a fresh account at another address is not the offence.
      ok(report(found, other.budget));
      expect(market.budget(other.budget).free).toBe(1_000_000_000n - 1_000_003n);
      const second = evidence(commit({ attempt: 2 }), commit({ attempt: 2 }));
      const [verifySecond, slashSecond] = build(second).map(must);
      if (!verifySecond || !slashSecond) return;
      const first = offenceAddress(market.programId, provider, offenceDigest(found)).address;
      const reused = tamper(slashSecond, 'slashEquivocation', 'offence', { address: first });
      expectRefusal(market.send([verifySecond, reused], reporter), 'AlreadySlashed');
      const away = { address: otherProvider };
      const vault = { address: stakeVaultAddress(market.programId, otherProvider).address };
      const borrowed = tamper(
        tamper(reused, 'slashEquivocation', 'provider', away),
        'slashEquivocation',
        'stakeVault',
        vault,
      );
      expectRefusal(market.send([borrowed], reporter), 'WrongOffence');
      const free = tamper(slashSecond, 'slashEquivocation', 'offence', { address: newKey().address });
      expect(market.send([verifySecond, free], reporter).failed).toBeDefined();
      // Nor is the reporter's own wallet: it signs, so the runtime would let it be made into one, again and again.
      const wallet = tamper(slashSecond, 'slashEquivocation', 'offence', { address: reporter.address });
      expectRefusal(market.send([verifySecond, wallet], reporter), 'WrongAddress');
    });
  });
}
