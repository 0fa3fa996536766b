/** A dispute from the buyer's complaint to its end, and every way in which it does not go on. */
import { beforeEach, describe, expect, test } from 'vitest';

import { readConfig, readDispute, readEndings, readSlashes } from '../../../chain/accounts.ts';
import {
  configAddress,
  disputeAddress,
  providerAddress,
  stakeVaultAddress,
  tokenAddress,
  vaultAddress,
} from '../../../chain/addresses.ts';
import * as calls from '../../../chain/calls.ts';
import type { DisputeAccount, LeaseAccount, Side } from '../../../chain/chain.ts';
import { SLOT_HASHES_SYSVAR, drawnVerifiers } from '../../../chain/evidence.ts';
import { MoltError } from '../../../protocol/errors.ts';
import { baseUnits } from '../../../protocol/units.ts';
import { encodeVoucher } from '../../../protocol/voucher.ts';
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

const VOTE_SECONDS = PARAMETERS.voteMs / 1000;
const REVEAL_SECONDS = PARAMETERS.revealMs / 1000;
const CLAIM = 600_001n;
/** A tenth of the amount, rounded up. */
const BOND = 100_001n;
const SALT = new Uint8Array(32).fill(5);

export function disputeChapter(): void {
  describe('disputes', () => {
    let market: TestMarket;
    let pair: Pair;
    let lease: LeaseAccount;
    let verifiers: Map<string, Pair>;

    beforeEach(() => {
      market = new TestMarket();
      pair = registerPair(market);
      verifiers = new Map();
      for (let count = 0; count < 5; count++) addVerifier(market.newVerifier());
      market.setSlot(1_000);
      lease = openLease(market, pair);
      prove();
    });

    const addVerifier = (verifier: Pair): void => {
      verifiers.set(providerAddress(market.programId, verifier.owner.address).address, verifier);
    };
    const ok = (outcome: Outcome): void => expect(outcome.refused ?? outcome.failed).toBeUndefined();
    const prove = (): void => {
      const claim = { lease: lease.address, claimed: baseUnits(CLAIM), resultDigest: DIGEST };
      market.mustSend([calls.callSubmitProof(market.market, pair.operator.address, claim)], pair.operator);
    };
    const dispute = (): Outcome => market.send([calls.callDispute(market.market, lease)], pair.delegate);
    const account = (): DisputeAccount => {
      const { address } = disputeAddress(market.programId, lease.address);
      return readDispute(address, must(market.data(address)));
    };
    const drawn = () => {
      const { address, provider, slot } = account();
      const config = readConfig(must(market.data(configAddress(market.programId).address)));
      const slotHashes = must(market.data(SLOT_HASHES_SYSVAR));
      return drawnVerifiers({ dispute: address, provider, slot, verifiers: config.verifiers, slotHashes });
    };
    const draw = (): Outcome => market.send([calls.callDraw(market.market, lease.address, drawn())], pair.buyer);
    /** Disputed and drawn; gives the three verifiers in order. */
    const judges = (): Pair[] => {
      ok(dispute());
      market.setSlot(market.slot() + 2);
      ok(draw());
      return account().seats.map(({ verifier }) => must(verifiers.get(verifier)));
    };
    const ballot = (judge: Pair, side: Side, salt = SALT) => ({
      lease: lease.address,
      verifier: providerAddress(market.programId, judge.owner.address).address,
      side,
      salt,
    });
    const vote = (judge: Pair, side: Side): Outcome =>
      market.send([calls.callVote(market.market, judge.operator.address, ballot(judge, side))], judge.operator);
    const reveal = (judge: Pair, side: Side, salt = SALT): Outcome =>
      market.send(
        [calls.callRevealVote(market.market, judge.operator.address, ballot(judge, side, salt))],
        judge.operator,
      );
    const resolve = (): Outcome => market.send([calls.callResolve(market.market, lease, account())], pair.buyer);
    const endVoting = (): void => market.setTime(account().voteUntilMs / 1000 + 1);
    const endReveal = (): void => market.setTime(account().revealUntilMs / 1000 + 1);
    const ending = (outcome: Outcome) => readEndings(market.programId, outcome.logs, 'x')[0];
    const paidTo = (): bigint => market.tokens(tokenAddress(pair.owner.address, market.mint));
    const supply = (): bigint => Buffer.from(must(market.data(market.mint))).readBigUInt64LE(36);
    /** Everybody named votes, in order; `undefined` does not reveal. */
    const judge = (sides: readonly (Side | undefined)[]): Pair[] => {
      const three = judges();
      for (const [index, one] of three.entries()) ok(vote(one, sides[index] ?? 'buyer'));
      endVoting();
      for (const [index, one] of three.entries()) {
        const side = sides[index];
        if (side !== undefined) ok(reveal(one, side));
      }
      return three;
    };
    /** Nothing of a dispute remains: no account, no lock, no reserve, no lamports. */
    const expectClean = (): void => {
      expect(market.data(disputeAddress(market.programId, lease.address).address)).toBeUndefined();
      expect(market.data(lease.address)).toBeUndefined();
      expect(market.budget(pair.budget)).toMatchObject({ locked: 0n, openLeases: 0 });
      for (const { owner } of [pair, ...verifiers.values()]) {
        const { reserved, own } = market.provider(owner.address);
        expect(reserved).toBe(0n);
        const vault = stakeVaultAddress(
          market.programId,
          providerAddress(market.programId, owner.address).address,
        ).address;
        expect(market.tokens(vault)).toBe(own.stake);
      }
    };

    test('the delegate disputes inside the window, with a bond out of the free money', () => {
      const { free } = market.budget(pair.budget);
      expect(
        market.send(
          [tamper(calls.callDispute(market.market, lease), 'dispute', 'delegate', { address: pair.buyer.address })],
          pair.buyer,
        ).refused,
      ).toBe('NotDelegate');
      market.setTime(START_SECONDS + 61);
      expectRefusal(dispute(), 'WindowClosed');
      market.setTime(START_SECONDS + 60);
      ok(dispute());
      expect(market.budget(pair.budget)).toMatchObject({ free: free - BOND, locked: 1_000_003n + BOND });
      expect(market.lease(pair.terms)).toMatchObject({ state: 'disputed', proof: { claimed: CLAIM } });
      expect(account()).toMatchObject({
        lease: lease.address,
        bond: BOND,
        slot: 1_000n,
        seats: [],
        rentPayer: pair.delegate.address,
      });
      expectRefusal(dispute(), 'LeaseNotProven');
      const settle = calls.callSettle(market.market, lease, { amount: baseUnits(CLAIM), resultDigest: DIGEST }, [
        'delegate',
        'operator',
      ]);
      expectRefusal(market.send([settle], pair.delegate, pair.operator), 'LeaseNotProven');
      expectRefusal(
        market.send(
          [calls.callCancelLease(market.market, lease, lease.amount, ['delegate', 'operator'])],
          pair.delegate,
          pair.operator,
        ),
        'LeaseNotRunning',
      );
    });

    test('a running lease is not disputed, nor one whose bond the budget cannot put up', () => {
      const poor = registerPair(market, 100_000_000n, 1_000_003n);
      lease = openLease(market, poor);
      const call = calls.callDispute(market.market, lease);
      expectRefusal(market.send([call], poor.delegate), 'LeaseNotProven');
      const claim = { lease: lease.address, claimed: baseUnits(CLAIM), resultDigest: DIGEST };
      market.mustSend([calls.callSubmitProof(market.market, poor.operator.address, claim)], poor.operator);
      expectRefusal(market.send([call], poor.delegate), 'BudgetEmpty');
      const own = calls.callDispute(market.market, { ...lease, budget: pair.budget });
      expectRefusal(market.send([own], poor.delegate), 'WrongAddress');
      const foreign = { address: vaultAddress(market.programId, pair.budget).address };
      expectRefusal(market.send([tamper(call, 'dispute', 'vault', foreign)], poor.delegate), 'WrongAddress');
    });

    test('verifiers are drawn by the first slot after the dispute, once, and pledge a little', () => {
      ok(dispute());
      const early = calls.callDraw(market.market, lease.address, [...verifiers.keys()].slice(0, 3) as never);
      expectRefusal(market.send([early], pair.buyer), 'DrawTooEarly');
      market.setSlot(1_001);
      expectRefusal(market.send([early], pair.buyer), 'DrawTooEarly');
      market.setSlot(1_002);
      const chosen = drawn();
      market.setSlot(1_005);
      expect(drawn()).toEqual(chosen);
      const [a, b, c] = chosen;
      expectRefusal(
        market.send([calls.callDraw(market.market, lease.address, [b, a, c])], pair.buyer),
        'WrongVerifier',
      );
      const hashes = tamper(calls.callDraw(market.market, lease.address, chosen), 'draw', 'slotHashes', {
        address: pair.budget,
      });
      expectRefusal(market.send([hashes], pair.buyer), 'WrongAddress');
      ok(draw());
      expect(account().seats).toEqual(chosen.map((verifier) => ({ verifier, committed: false, pledge: 50_000n })));
      for (const verifier of chosen) {
        expect(market.provider(must(verifiers.get(verifier)).owner.address).reserved).toBe(50_000n);
      }
      expectRefusal(market.send([calls.callDraw(market.market, lease.address, chosen)], pair.buyer), 'AlreadyDrawn');
    });

    test('a draw that nobody made while the slot was known starts anew', () => {
      ok(dispute());
      market.setSlot(2_000, 512);
      ok(draw());
      expect(account()).toMatchObject({ slot: 2_000n, seats: [] });
      market.setSlot(2_001, 512);
      expect(() => drawn()).toThrow(MoltError);
      market.setSlot(2_002, 512);
      ok(draw());
      expect(account().seats).toHaveLength(3);
    });

    test('over many disputes every verifier is drawn, and never the provider of the lease', () => {
      const people = { authority: market.authority.address, owner: pair.owner.address };
      const join = calls.callSetVerifier(market.market, people, true, [people.authority, people.owner]);
      market.mustSend([join], market.authority, pair.owner);
      const seen = new Map<string, number>();
      for (let round = 0; round < 30; round++) {
        if (round > 0) {
          lease = openLease(market, pair, newTerms(market, pair));
          prove();
        }
        ok(dispute());
        market.setSlot(1_002 + 3 * round);
        ok(draw());
        const seats = account().seats.map(({ verifier }) => verifier);
        expect(new Set(seats).size).toBe(3);
        for (const seat of seats) seen.set(seat, (seen.get(seat) ?? 0) + 1);
      }
      expect([...seen.keys()].sort()).toEqual([...verifiers.keys()].sort());
      expect(Math.min(...seen.values())).toBeGreaterThan(5);
    });

    test('too few verifiers: nobody is drawn, and the time ends the dispute', () => {
      const three = [...verifiers.values()].slice(2);
      for (const { owner } of three) {
        const people = { authority: market.authority.address, owner: owner.address };
        market.mustSend([calls.callSetVerifier(market.market, people, false, [owner.address])], owner);
      }
      ok(dispute());
      market.setSlot(1_002);
      const call = calls.callDraw(market.market, lease.address, [...verifiers.keys()].slice(0, 3) as never);
      expectRefusal(market.send([call], pair.buyer), 'TooFewVerifiers');
      expect(() => drawn()).toThrow('three verifiers');
      market.setTime(START_SECONDS + VOTE_SECONDS);
      expectRefusal(resolve(), 'NotYetResolved');
      market.setTime(START_SECONDS + VOTE_SECONDS + 1);
      expectRefusal(market.send([call], pair.buyer), 'VotingClosed');
      expect(ending(resolve())).toMatchObject({ ending: 'resolvedNeutral', paid: CLAIM / 2n, slashed: 0n });
      expectClean();
    });

    test('two for the provider: the claim and the bond are paid', () => {
      const before = paidTo();
      const { free } = market.budget(pair.budget);
      judge(['provider', 'buyer', 'provider']);
      const outcome = resolve();
      // 1 % and 2 % of the claim are fees; the bond carries none.
      expect(ending(outcome)).toMatchObject({
        ending: 'resolvedForProvider',
        paid: CLAIM,
        burned: 6_000n,
        staked: 12_000n,
      });
      expect(paidTo()).toBe(before + CLAIM - 18_000n + BOND);
      expect(market.budget(pair.budget).free).toBe(free + 1_000_003n - CLAIM - BOND);
      expect(market.provider(pair.owner.address)).toMatchObject({ settledCount: 1n, faults: 0n });
      expectClean();
    });

    test('two for the buyer: nothing is paid, the bond returns, the reserve is lost, most of it to the buyer', () => {
      const { free } = market.budget(pair.budget);
      const before = supply();
      judge(['buyer', 'buyer', 'provider']);
      const outcome = resolve();
      expect(ending(outcome)).toMatchObject({ ending: 'resolvedForBuyer', paid: 0n, slashed: 200_000n });
      expect(readSlashes(market.programId, outcome.logs, 'x')).toMatchObject([
        { reason: 'wrongResult', own: 200_000n, delegated: 0n, paid: 140_000n, burned: 60_000n },
      ]);
      expect(market.budget(pair.budget).free).toBe(free + 1_000_003n + 140_000n);
      expect(supply()).toBe(before - 60_000n);
      expect(market.provider(pair.owner.address)).toMatchObject({
        own: { stake: 99_800_000n },
        faults: 1n,
        faultAmount: 1_000_003n,
        settledCount: 0n,
      });
      expectClean();
    });

    test('no two equal votes: half of the claim, the bond returns, and only who was silent loses', () => {
      const { free } = market.budget(pair.budget);
      const [, , silent] = judge(['provider', 'buyer', undefined]);
      expectRefusal(resolve(), 'NotYetResolved');
      endReveal();
      const outcome = resolve();
      expect(ending(outcome)).toMatchObject({ ending: 'resolvedNeutral', paid: 300_000n, slashed: 0n });
      expect(readSlashes(market.programId, outcome.logs, 'x')).toMatchObject([
        {
          reason: 'missedVote',
          provider: providerAddress(market.programId, must(silent).owner.address).address,
          burned: 50_000n,
        },
      ]);
      expect(market.provider(must(silent).owner.address).own.stake).toBe(9_950_000n);
      expect(market.budget(pair.budget).free).toBe(free + 1_000_003n - 300_000n);
      expect(market.provider(pair.owner.address)).toMatchObject({ faults: 0n, own: { stake: 100_000_000n + 6_000n } });
      expectClean();
    });

    test('two equal votes decide although the third is silent', () => {
      judge(['buyer', undefined, 'buyer']);
      expectRefusal(resolve(), 'NotYetResolved');
      endReveal();
      expect(ending(resolve())?.ending).toBe('resolvedForBuyer');
      expectClean();
    });

    test('votes are committed by drawn operators in their time, and can be replaced', () => {
      ok(dispute());
      const anyone = must([...verifiers.values()][0]);
      expectRefusal(vote(anyone, 'buyer'), 'VotingClosed');
      market.setSlot(1_002);
      ok(draw());
      const seats = account().seats.map(({ verifier }) => must(verifiers.get(verifier)));
      const other = must([...verifiers.values()].find((one) => !seats.includes(one)));
      expectRefusal(vote(other, 'buyer'), 'WrongVerifier');
      const [first] = seats.map(must);
      if (!first) return;
      const stolen = calls.callVote(market.market, other.operator.address, ballot(first, 'buyer'));
      expectRefusal(market.send([stolen], other.operator), 'NotOperator');
      ok(vote(first, 'buyer'));
      ok(vote(first, 'provider'));
      expectRefusal(reveal(first, 'provider'), 'RevealClosed');
      endVoting();
      expectRefusal(vote(first, 'buyer'), 'VotingClosed');
      expectRefusal(reveal(first, 'buyer'), 'WrongReveal');
      expectRefusal(reveal(first, 'provider', new Uint8Array(32)), 'WrongReveal');
      ok(reveal(first, 'provider'));
      expectRefusal(reveal(must(seats[1]), 'provider'), 'WrongReveal');
      endReveal();
      expectRefusal(reveal(first, 'provider'), 'RevealClosed');
      expect(REVEAL_SECONDS).toBe((account().revealUntilMs - account().voteUntilMs) / 1000);
    });

    test('vouchers that were redeemed before are the least that any outcome pays', () => {
      for (const sides of [
        ['buyer', 'buyer', 'buyer'],
        [undefined, undefined, undefined],
      ] as const) {
        lease = openLease(market, pair, newTerms(market, pair));
        const amount = baseUnits(400_000n);
        const message = encodeVoucher({ network: market.network, lease: lease.address, amount });
        const voucher = { message, signature: pair.delegate.sign(message) };
        market.mustSend(calls.callRedeemVoucher(market.market, lease, amount, voucher), pair.operator);
        prove();
        judge(sides);
        endReveal();
        expect(ending(resolve())?.paid).toBe(400_000n);
        market.setSlot(market.slot() + 5);
      }
    });

    test('a payout account that is closed does not keep a dispute from ending', () => {
      const vault = vaultAddress(market.programId, pair.budget).address;
      const update = { operator: pair.operator.address, payout: vault, commissionBps: 0 };
      market.mustSend([calls.callUpdateProvider(market.market, pair.owner.address, update)], pair.owner);
      lease = openLease(market, pair, newTerms(market, pair));
      prove();
      judge(['provider', 'provider', 'provider']);
      ok(resolve());
      expect(market.provider(pair.owner.address).own.stake).toBe(100_000_000n + CLAIM - 6_000n + BOND);
    });

    test('the accounts of a resolution are the ones of this dispute', () => {
      const three = judge(['provider', 'provider', 'provider']);
      const call = calls.callResolve(market.market, lease, account());
      const send = (name: string, address: Parameters<typeof tamper>[3]['address']): Outcome =>
        market.send([tamper(call, 'resolve', name, address === undefined ? {} : { address })], pair.buyer);
      const other = must([...verifiers.values()].find((one) => !three.includes(one)));
      const otherProvider = providerAddress(market.programId, other.owner.address).address;
      expectRefusal(send('verifier1', otherProvider), 'WrongVerifier');
      expectRefusal(send('stakeVault1', stakeVaultAddress(market.programId, otherProvider).address), 'WrongAddress');
      expectRefusal(send('disputeRentPayer', pair.buyer.address), 'WrongAddress');
      expectRefusal(send('payout', tokenAddress(pair.buyer.address, market.mint)), 'WrongAddress');
      expectRefusal(send('dispute', newKey().address), 'WrongOwner');
      const second = openLease(market, pair, newTerms(market, pair));
      const foreign = calls.callResolve(market.market, second, account());
      expectRefusal(market.send([foreign], pair.buyer), 'LeaseNotDisputed');
      ok(resolve());
      expectRefusal(market.send([call], pair.buyer), 'WrongOwner');
    });
  });
}
