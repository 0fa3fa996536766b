/** Stake of owners and delegators in the real VM: shares, fees, slashes, unbonding, and what must not be possible. */
import { beforeEach, describe, expect, test } from 'vitest';

import { readDelegation, readSlashes } from '../../../chain/accounts.ts';
import { delegationAddress, providerAddress, stakeVaultAddress, tokenAddress } from '../../../chain/addresses.ts';
import * as calls from '../../../chain/calls.ts';
import type { DelegationAccount, LeaseTerms } from '../../../chain/chain.ts';
import { mintTokens } from '../../../chain/token.ts';
import type { Address } from '../../../protocol/address.ts';
import type { KeyPair } from '../../../protocol/ed25519.ts';
import { U64_MAX, baseUnits } from '../../../protocol/units.ts';
import {
  DIGEST,
  PARAMETERS,
  START_SECONDS,
  TestMarket,
  must,
  newKey,
  newTerms,
  openLease,
  registerPair,
  tamper,
  type Outcome,
  type Pair,
} from '../market.ts';
import { expectRefusal } from '../refusal.ts';

const UNBONDING_SECONDS = PARAMETERS.unbondingMs / 1000;

/** A staker's calls, with everything filled in. */
export function staker(market: TestMarket, provider: Address, who: KeyPair) {
  const staking = { staker: who.address, provider };
  const account = tokenAddress(who.address, market.mint);
  const delegation = delegationAddress(market.programId, provider, who.address).address;
  return {
    delegation,
    stake: (amount: bigint): Outcome =>
      market.send([calls.callStake(market.market, staking, account, baseUnits(amount))], who),
    unstake: (shares: bigint): Outcome => market.send([calls.callUnstake(market.market, staking, shares)], who),
    withdraw: (): Outcome => market.send([calls.callWithdrawStake(market.market, staking, account)], who),
    tokens: (): bigint => market.tokens(account),
    read: (owner: Address): DelegationAccount | undefined => {
      const data = market.data(delegation);
      return data && readDelegation(delegation, data, market.provider(owner));
    },
  };
}

export function stakeChapter(): void {
  describe('stake', () => {
    let market: TestMarket;
    let pair: Pair;
    let provider: Address;
    beforeEach(() => {
      market = new TestMarket();
      pair = registerPair(market);
      provider = providerAddress(market.programId, pair.owner.address).address;
    });

    const as = (who: KeyPair) => staker(market, provider, who);
    const ok = (outcome: Outcome): void => expect(outcome.refused ?? outcome.failed).toBeUndefined();
    /** Settles a lease of this amount to the last unit. */
    const earn = (amount: bigint): void => {
      const terms: LeaseTerms = newTerms(market, pair, { amount: baseUnits(amount), reserve: baseUnits(0n) });
      const lease = openLease(market, pair, terms);
      const call = calls.callSettle(market.market, lease, { amount: lease.amount, resultDigest: DIGEST }, [
        'delegate',
        'operator',
      ]);
      market.mustSend([call], pair.delegate, pair.operator);
    };
    const expire = (amount: bigint, reserve: bigint): Outcome => {
      const terms = newTerms(market, pair, { amount: baseUnits(amount), reserve: baseUnits(reserve) });
      const lease = openLease(market, pair, terms);
      market.setTime(market.now() + 631);
      return market.mustSend([calls.callExpireLease(market.market, lease)], pair.buyer);
    };

    test('the first stake makes the delegation; shares cost one unit each at first', () => {
      const who = market.newWallet(500_000_000n);
      ok(as(who).stake(300_000_000n));
      expect(as(who).read(pair.owner.address)).toMatchObject({
        provider,
        staker: who.address,
        shares: 300_000_000n,
        value: 300_000_000n,
        principal: 300_000_000n,
        unbondingShares: 0n,
      });
      expect(market.provider(pair.owner.address)).toMatchObject({
        stake: 400_000_000n,
        own: { stake: 100_000_000n, shares: 100_000_000n },
        delegated: { stake: 300_000_000n, shares: 300_000_000n },
      });
    });

    test('a stake fee is shared in proportion, less the commission of the day the lease was opened', () => {
      const who = market.newWallet(500_000_000n);
      ok(as(who).stake(300_000_000n));
      const payout = tokenAddress(pair.owner.address, market.mint);
      const commission = (commissionBps: number): void => {
        const settings = { operator: pair.operator.address, payout, commissionBps };
        market.mustSend([calls.callUpdateProvider(market.market, pair.owner.address, settings)], pair.owner);
      };
      commission(1_000);
      const lease = openLease(market, pair, newTerms(market, pair, { amount: baseUnits(1_000_000n) }));
      commission(10_000);
      const settlement = { amount: lease.amount, resultDigest: DIGEST };
      const call = calls.callSettle(market.market, lease, settlement, ['delegate', 'operator']);
      market.mustSend([call], pair.delegate, pair.operator);
      // 2 % of a million is 20,000: three quarters belong to delegators, a tenth of which is the owner's.
      expect(market.provider(pair.owner.address)).toMatchObject({
        own: { stake: 100_000_000n + 6_500n },
        delegated: { stake: 300_000_000n + 13_500n, shares: 300_000_000n },
      });
      expect(as(who).read(pair.owner.address)?.value).toBe(300_013_500n);
    });

    test('delegations reach eight times the own stake and no further', () => {
      const who = market.newWallet(2_000_000_000n);
      expectRefusal(as(who).stake(800_000_001n), 'OverDelegated');
      ok(as(who).stake(800_000_000n));
      // Own stake on its way out no longer carries them: nothing more is delegated and nothing leased.
      ok(as(pair.owner).unstake(8n));
      expectRefusal(as(who).stake(1_000_000n), 'OverDelegated');
      const open = calls.callOpenLease(market.market, newTerms(market, pair));
      expectRefusal(market.send([open], pair.delegate, pair.operator), 'OverDelegated');
    });

    test('unstaking takes time, in which the stake backs no new lease, and then pays', () => {
      const before = as(pair.owner).tokens();
      expectRefusal(as(pair.owner).withdraw(), 'SharesMissing');
      expectRefusal(as(pair.owner).unstake(0n), 'ZeroAmount');
      expectRefusal(as(pair.owner).unstake(100_000_001n), 'SharesMissing');
      ok(as(pair.owner).unstake(99_000_000n));
      expect(market.provider(pair.owner.address).stake).toBe(1_000_000n);
      const open = calls.callOpenLease(market.market, newTerms(market, pair));
      expectRefusal(market.send([open], pair.delegate, pair.operator), 'StakeTooLow');
      market.setTime(START_SECONDS + UNBONDING_SECONDS - 1);
      expectRefusal(as(pair.owner).withdraw(), 'StillUnbonding');
      market.setTime(START_SECONDS + UNBONDING_SECONDS);
      ok(as(pair.owner).withdraw());
      expect(as(pair.owner).tokens()).toBe(before + 99_000_000n);
      expect(as(pair.owner).read(pair.owner.address)).toMatchObject({ shares: 1_000_000n, principal: 1_000_000n });
    });

    test('unstaking again restarts the time for both parts', () => {
      ok(as(pair.owner).unstake(10_000_000n));
      market.setTime(START_SECONDS + UNBONDING_SECONDS - 1);
      ok(as(pair.owner).unstake(10_000_000n));
      market.setTime(START_SECONDS + UNBONDING_SECONDS);
      expectRefusal(as(pair.owner).withdraw(), 'StillUnbonding');
      market.setTime(START_SECONDS + 2 * UNBONDING_SECONDS);
      ok(as(pair.owner).withdraw());
      expect(market.provider(pair.owner.address).own).toMatchObject({ stake: 80_000_000n, unbonding: 0n });
    });

    test('stake that an open lease counts on stays until the lease ends', () => {
      const terms = newTerms(market, pair, {
        reserve: baseUnits(100_000_000n),
        finishByMs: (START_SECONDS + 7_200) * 1000,
      });
      const lease = openLease(market, pair, terms);
      ok(as(pair.owner).unstake(100_000_000n));
      market.setTime(START_SECONDS + UNBONDING_SECONDS);
      expectRefusal(as(pair.owner).withdraw(), 'StakeReserved');
      market.mustSend([calls.callCancelLease(market.market, lease, baseUnits(0n), ['operator'])], pair.operator);
      ok(as(pair.owner).withdraw());
      expect(market.provider(pair.owner.address)).toMatchObject({ own: { stake: 0n, shares: 0n }, reserved: 0n });
    });

    test('an emptied delegation is closed and its rent returned', () => {
      const who = market.newWallet(5_000_000n);
      const lamports = market.lamports(who.address);
      ok(as(who).stake(5_000_000n));
      ok(as(who).unstake(5_000_000n));
      market.setTime(START_SECONDS + UNBONDING_SECONDS);
      ok(as(who).withdraw());
      expect(market.data(as(who).delegation)).toBeUndefined();
      expect(market.lamports(who.address)).toBe(lamports - 3n * 5_000n);
      // And made again by the next stake.
      ok(as(who).stake(5_000_000n));
    });

    test('own stake loses first; what delegators lose is burnt, not paid', () => {
      const who = market.newWallet(500_000_000n);
      ok(as(who).stake(300_000_000n));
      market.setParameters({ ...PARAMETERS, noShowSlashBps: 10_000 });
      const { free } = market.budget(pair.budget);
      const supply = (): bigint => Buffer.from(must(market.data(market.mint))).readBigUInt64LE(36);
      const before = supply();
      const outcome = expire(100_000_000n, 100_000_000n);
      expect(market.provider(pair.owner.address)).toMatchObject({
        own: { stake: 0n, shares: 0n, unbonding: 0n, generation: 1 },
        delegated: { stake: 300_000_000n },
        slashed: 100_000_000n,
      });
      expect(market.budget(pair.budget).free).toBe(free + 100_000_000n);
      expect(readSlashes(market.programId, outcome.logs, 'x')).toEqual([
        {
          reason: 'noShow',
          provider,
          own: 100_000_000n,
          delegated: 0n,
          paid: 100_000_000n,
          burned: 0n,
          signature: 'x',
        },
      ]);
      expect(supply()).toBe(before);
      // Without own stake nothing is leased any more. The owner starts anew, in a new generation.
      const open = calls.callOpenLease(market.market, newTerms(market, pair));
      expectRefusal(market.send([open], pair.delegate, pair.operator), 'OverDelegated');
      expectRefusal(as(pair.owner).unstake(1n), 'SharesMissing');
      ok(as(pair.owner).stake(40_000_000n));
      expect(as(pair.owner).read(pair.owner.address)).toMatchObject({ shares: 40_000_000n, principal: 40_000_000n });
      const lost = expire(60_000_000n, 60_000_000n);
      expect(readSlashes(market.programId, lost.logs, 'x')).toMatchObject([
        { own: 40_000_000n, delegated: 20_000_000n, paid: 40_000_000n, burned: 20_000_000n },
      ]);
      expect(supply()).toBe(before - 20_000_000n);
      expect(as(who).read(pair.owner.address)?.value).toBe(280_000_000n);
      expect(market.tokens(stakeVaultAddress(market.programId, provider).address)).toBe(280_000_000n);
    });

    test('shares of a generation that lost everything are worth nothing, and the account still gives its rent back', () => {
      market.setParameters({ ...PARAMETERS, noShowSlashBps: 10_000 });
      const terms = newTerms(market, pair, { amount: baseUnits(100_000_000n), reserve: baseUnits(100_000_000n) });
      const lease = openLease(market, pair, terms);
      ok(as(pair.owner).unstake(50_000_000n));
      market.setTime(START_SECONDS + 631);
      market.mustSend([calls.callExpireLease(market.market, lease)], pair.buyer);
      // Shares that are unbonding answered like the others.
      expect(market.provider(pair.owner.address).own).toEqual({ stake: 0n, shares: 0n, unbonding: 0n, generation: 1 });
      expect(as(pair.owner).read(pair.owner.address)).toMatchObject({ value: 0n, unbondingValue: 0n });
      const lamports = market.lamports(pair.owner.address);
      const rent = market.lamports(as(pair.owner).delegation);
      ok(as(pair.owner).withdraw());
      expect(market.lamports(pair.owner.address)).toBe(lamports + rent - 5_000n);
    });

    test('neither gifts nor fees raise the price of a share so far that rounding takes the next stake', () => {
      const [first, second] = [market.newWallet(10_000_000n), market.newWallet(900_000_000n)];
      market.setParameters({ ...PARAMETERS, reserveBps: 0 });
      ok(as(first).stake(1_000_000n));
      // As few shares as an attacker likes, and most of the owner's stake out of the way.
      ok(as(first).unstake(999_000n));
      ok(as(pair.owner).unstake(98_000_000n));
      market.setTime(START_SECONDS + UNBONDING_SECONDS);
      ok(as(first).withdraw());
      ok(as(pair.owner).withdraw());
      const vault = stakeVaultAddress(market.programId, provider).address;
      const gift = mintTokens(market.mint, vault, market.authority.address, baseUnits(1_000_000n));
      market.mustSend([gift], market.authority);
      expect(market.provider(pair.owner.address).delegated).toMatchObject({ stake: 1_000n, shares: 1_000n });
      for (let round = 0; round < 5; round++) earn(90_000_000n);
      const { stake, shares } = market.provider(pair.owner.address).delegated;
      expect([shares, stake > 5_000n]).toEqual([1_000n, true]);
      const least = (1_000_000n * stake + shares - 1n) / shares;
      expectRefusal(as(second).stake(least - 1n), 'StakeTooSmall');
      // One unit less than what the next share costs: what rounding takes is under a millionth.
      const staked = least + stake / shares - 1n;
      ok(as(second).stake(staked));
      const value = as(second).read(pair.owner.address)?.value ?? 0n;
      expect(staked - value).toBeLessThanOrEqual(staked / 1_000_000n);
    });

    test('refuses nothing, too much, and stakes that are too small for exact shares', () => {
      const who = market.newWallet(5_000_000n);
      expectRefusal(as(who).stake(0n), 'ZeroAmount');
      expectRefusal(as(who).stake(999_999n), 'StakeTooSmall');
      expectRefusal(as(pair.owner).stake(U64_MAX), 'Overflow');
      expect(as(who).stake(6_000_000n).failed).toContain('Custom(1)');
    });

    test('refuses delegations, vaults and accounts of somebody else', () => {
      const [who, thief] = [market.newWallet(50_000_000n), market.newWallet(50_000_000n)];
      const other = registerPair(market);
      const otherProvider = providerAddress(market.programId, other.owner.address).address;
      ok(as(who).stake(5_000_000n));
      ok(as(thief).stake(5_000_000n));
      const staking = { staker: thief.address, provider };
      const account = tokenAddress(thief.address, market.mint);
      const stake = calls.callStake(market.market, staking, account, baseUnits(1_000_000n));
      const unstake = calls.callUnstake(market.market, staking, 1n);
      const withdraw = calls.callWithdrawStake(market.market, staking, account);
      const foreign = { address: as(who).delegation };
      expectRefusal(market.send([tamper(stake, 'stake', 'delegation', foreign)], thief), 'NotStaker');
      expectRefusal(market.send([tamper(unstake, 'unstake', 'delegation', foreign)], thief), 'NotStaker');
      expectRefusal(market.send([tamper(withdraw, 'withdrawStake', 'delegation', foreign)], thief), 'NotStaker');
      const elsewhere = { address: otherProvider };
      expectRefusal(market.send([tamper(unstake, 'unstake', 'provider', elsewhere)], thief), 'NotStaker');
      expectRefusal(market.send([tamper(stake, 'stake', 'provider', elsewhere)], thief), 'WrongAddress');
      const vault = { address: stakeVaultAddress(market.programId, otherProvider).address };
      expectRefusal(market.send([tamper(stake, 'stake', 'stakeVault', vault)], thief), 'WrongAddress');
      ok(as(thief).unstake(5_000_000n));
      market.setTime(START_SECONDS + UNBONDING_SECONDS);
      expectRefusal(market.send([tamper(withdraw, 'withdrawStake', 'stakeVault', vault)], thief), 'WrongAddress');
      const own = { address: stakeVaultAddress(market.programId, provider).address };
      expectRefusal(market.send([tamper(withdraw, 'withdrawStake', 'destination', own)], thief), 'DuplicateAccount');
      expectRefusal(market.send([tamper(stake, 'stake', 'source', own)], thief), 'DuplicateAccount');
      expectRefusal(
        market.send([tamper(unstake, 'unstake', 'delegation', { address: newKey().address })], thief),
        'WrongOwner',
      );
    });

    test('an operator is rotated once in an unbonding time, so that what it signed stays slashable', () => {
      const rotate = (operator: Address): Outcome => {
        const settings = { operator, payout: tokenAddress(pair.owner.address, market.mint), commissionBps: 0 };
        return market.send([calls.callUpdateProvider(market.market, pair.owner.address, settings)], pair.owner);
      };
      const [second, third] = [newKey().address, newKey().address];
      ok(rotate(second));
      expect(market.provider(pair.owner.address)).toMatchObject({
        operator: second,
        formerOperator: pair.operator.address,
      });
      expectRefusal(rotate(third), 'RotatedRecently');
      ok(rotate(second));
      market.setTime(START_SECONDS + UNBONDING_SECONDS);
      ok(rotate(third));
      expect(market.provider(pair.owner.address)).toMatchObject({ operator: third, formerOperator: second });
    });
  });
}
