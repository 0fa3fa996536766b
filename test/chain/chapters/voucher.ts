/** Extending a lease, and vouchers: what the delegate signs off chain, what the program takes for its signature. */
import { Ed25519Program, PublicKey, TransactionInstruction } from '@solana/web3.js';
import { beforeEach, describe, expect, test } from 'vitest';

import { readEndings } from '../../../chain/accounts.ts';
import { tokenAddress, vaultAddress } from '../../../chain/addresses.ts';
import * as calls from '../../../chain/calls.ts';
import type { LeaseAccount, LeaseExtension } from '../../../chain/chain.ts';
import { verifySignatures } from '../../../chain/evidence.ts';
import type { Address } from '../../../protocol/address.ts';
import { decodeAddress } from '../../../protocol/address.ts';
import type { KeyPair } from '../../../protocol/ed25519.ts';
import { U64_MAX, baseUnits } from '../../../protocol/units.ts';
import { encodeVoucher } from '../../../protocol/voucher.ts';
import {
  DIGEST,
  LIMITS_OPEN,
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

export function voucherChapter(): void {
  let market: TestMarket;
  let pair: Pair;
  let lease: LeaseAccount;
  const prepare = (): void => {
    market = new TestMarket();
    pair = registerPair(market);
    lease = openLease(market, pair);
  };
  const ok = (outcome: Outcome): void => expect(outcome.refused ?? outcome.failed).toBeUndefined();
  const paidTo = (): bigint => market.tokens(tokenAddress(pair.owner.address, market.mint));

  describe('extending a lease', () => {
    beforeEach(prepare);

    const extend = (changes: Partial<LeaseExtension>, delegate = pair.delegate): Outcome => {
      const { amount, reserve, finishByMs } = lease;
      const call = calls.callExtendLease(
        market.market,
        { ...lease, delegate: delegate.address },
        {
          amount,
          reserve,
          finishByMs,
          ...changes,
        },
      );
      return market.send([call], delegate, pair.operator);
    };

    test('locks more money and stake until a later deadline, and doing it twice changes nothing', () => {
      const extension = {
        amount: baseUnits(2_000_000n),
        reserve: baseUnits(300_000n),
        finishByMs: lease.finishByMs + 600_000,
      };
      for (let time = 0; time < 2; time++) {
        ok(extend(extension));
        expect(market.lease(pair.terms)).toMatchObject(extension);
        expect(market.budget(pair.budget)).toMatchObject({ locked: 2_000_000n, spentOnDay: 2_000_000n, openLeases: 1 });
        expect(market.provider(pair.owner.address)).toMatchObject({ reserved: 300_000n, openLeases: 1 });
      }
    });

    test('is held against the same limits as opening', () => {
      expectRefusal(extend({ amount: baseUnits(1_000_002n) }), 'ExtensionShrinks');
      expectRefusal(extend({ reserve: baseUnits(199_999n) }), 'ExtensionShrinks');
      expectRefusal(extend({ finishByMs: lease.finishByMs - 1_000 }), 'ExtensionShrinks');
      expectRefusal(extend({ finishByMs: (START_SECONDS + 86_401) * 1000 }), 'FinishOutOfRange');
      expectRefusal(extend({ amount: baseUnits(2_000_011n) }), 'ReserveTooLow');
      expectRefusal(extend({ amount: baseUnits(U64_MAX) }), 'ReserveTooLow');
      expectRefusal(extend({ reserve: baseUnits(100_000_001n) }), 'StakeTooLow');
      expectRefusal(extend({ amount: baseUnits(100_000_001n), reserve: baseUnits(100_000_000n) }), 'OverLeaseCap');
      market.setTime(START_SECONDS + 600);
      expectRefusal(extend({}), 'FinishOutOfRange');
    });

    test('needs both parties of the lease, and a delegate that the budget still has', () => {
      const stranger = newKey();
      market.fund(stranger);
      expectRefusal(extend({}, stranger), 'NotDelegate');
      const call = calls.callExtendLease(market.market, lease, lease);
      const foreign = tamper(call, 'extendLease', 'operator', { address: stranger.address });
      expectRefusal(market.send([foreign], pair.delegate, stranger), 'NotOperator');
      const limits = { ...LIMITS_OPEN, delegates: [stranger.address] };
      market.mustSend([calls.callSetDelegates(market.market, pair.buyer.address, pair.budget, limits)], pair.buyer);
      expectRefusal(extend({}), 'NotDelegate');
      const other = registerPair(market);
      const otherLease = openLease(market, other);
      for (const [name, address] of Object.entries({
        provider: otherLease.provider,
        budget: other.budget,
        vault: vaultAddress(market.programId, other.budget).address,
      })) {
        expectRefusal(
          market.send([tamper(call, 'extendLease', name, { address })], pair.delegate, pair.operator),
          'WrongAddress',
        );
      }
    });

    test('a proven lease is not extended', () => {
      const claim = { lease: lease.address, claimed: baseUnits(1n), resultDigest: DIGEST };
      market.mustSend([calls.callSubmitProof(market.market, pair.operator.address, claim)], pair.operator);
      expectRefusal(extend({}), 'LeaseNotRunning');
    });
  });

  describe('vouchers', () => {
    beforeEach(prepare);

    interface Forged {
      readonly network?: Address;
      readonly lease?: Address;
      readonly signed?: bigint;
      readonly signer?: KeyPair;
    }

    const build = (amount: bigint, forged: Forged = {}): TransactionInstruction[] => {
      const { network = market.network, signer = pair.delegate } = forged;
      const voucher = { network, lease: forged.lease ?? lease.address, amount: baseUnits(forged.signed ?? amount) };
      const message = encodeVoucher(voucher);
      const [verify, redeem] = calls.callRedeemVoucher(
        market.market,
        { ...lease, delegate: signer.address },
        baseUnits(amount),
        { message, signature: signer.sign(message) },
      );
      const { address } = pair.delegate;
      return [must(verify), tamper(must(redeem), 'redeemVoucher', 'delegate', { address, isSigner: false })];
    };
    const send = (instructions: readonly TransactionInstruction[]): Outcome => market.send(instructions, pair.operator);
    const redeem = (amount: bigint, forged: Forged = {}): Outcome => send(build(amount, forged));

    test('pays the difference to what was redeemed before, with the fees of a settlement', () => {
      const before = paidTo();
      ok(redeem(500_000n));
      expect(paidTo()).toBe(before + 485_000n);
      ok(redeem(600_000n));
      expect(paidTo()).toBe(before + 485_000n + 97_000n);
      expect(market.lease(pair.terms)?.redeemed).toBe(600_000n);
      expect(market.provider(pair.owner.address)).toMatchObject({
        own: { stake: 100_012_000n },
        settledAmount: 600_000n,
        settledCount: 0n,
        feesBurned: 6_000n,
      });
      expect(market.budget(pair.budget)).toMatchObject({ locked: 400_003n, free: 1_000_000_000n - 1_000_003n });
    });

    test('pays once, and an older one nothing', () => {
      ok(redeem(500_000n));
      expectRefusal(redeem(500_000n), 'NothingToRedeem');
      expectRefusal(redeem(400_000n), 'NothingToRedeem');
      expectRefusal(redeem(0n), 'NothingToRedeem');
    });

    test('pays no more than the lock, whatever it says', () => {
      ok(redeem(U64_MAX));
      expect(market.lease(pair.terms)?.redeemed).toBe(1_000_003n);
      expect(market.budget(pair.budget).locked).toBe(0n);
    });

    test('is bound to lease, network, amount and delegate', () => {
      const other = openLease(market, pair, newTerms(market, pair));
      expectRefusal(redeem(5n, { lease: other.address }), 'WrongVoucher');
      expectRefusal(redeem(5n, { network: newKey().address }), 'WrongVoucher');
      expectRefusal(redeem(5n, { signed: 4n }), 'WrongVoucher');
      expectRefusal(redeem(5n, { signer: pair.buyer }), 'WrongSigner');
      expectRefusal(redeem(5n, { signer: pair.operator }), 'WrongSigner');
    });

    test('only by the operator, while the lease runs and its grace lasts', () => {
      const [verify, call] = build(5n);
      const stranger = tamper(must(call), 'redeemVoucher', 'operator', { address: pair.buyer.address });
      expectRefusal(market.send([must(verify), stranger], pair.buyer), 'NotOperator');
      const unsigned = tamper(must(call), 'redeemVoucher', 'operator', { isSigner: false });
      expectRefusal(market.send([must(verify), unsigned], pair.buyer), 'NotOperator');
      market.setTime(START_SECONDS + 630);
      ok(redeem(5n));
      market.setTime(START_SECONDS + 631);
      expectRefusal(redeem(6n), 'ProofTooLate');
      market.setTime(START_SECONDS);
      const claim = { lease: lease.address, claimed: baseUnits(10n), resultDigest: DIGEST };
      market.mustSend([calls.callSubmitProof(market.market, pair.operator.address, claim)], pair.operator);
      expectRefusal(redeem(6n), 'LeaseNotRunning');
    });

    test('a signature is taken in one form only, right before', () => {
      const [verify, call] = build(5n).map(must);
      if (!verify || !call) return;
      expectRefusal(send([call]), 'BadEvidence');
      expectRefusal(send([call, verify]), 'BadEvidence');
      const other = calls.callApplyParameters(market.market);
      expect(send([verify, other, call]).refused).toBe('NothingQueued');
      const deposit = calls.callDeposit(market.market, pair.owner.address, {
        budget: pair.budget,
        account: tokenAddress(pair.owner.address, market.mint),
        amount: baseUnits(1n),
      });
      expectRefusal(market.send([verify, deposit, call], pair.operator, pair.owner), 'BadEvidence');
      // The form of the wallet libraries is the same one.
      const message = encodeVoucher({ network: market.network, lease: lease.address, amount: baseUnits(5n) });
      const usual = Ed25519Program.createInstructionWithPublicKey({
        publicKey: decodeAddress(pair.delegate.address),
        message,
        signature: pair.delegate.sign(message),
      });
      expect(usual.data.subarray(2)).toEqual(verify.data.subarray(2));
      // Two signatures where one is expected; the key of another instruction; a message elsewhere.
      const signed = { message, signature: pair.delegate.sign(message) };
      expectRefusal(send([verifySignatures(pair.delegate.address, [signed, signed]), call]), 'BadEvidence');
      // Account zero is the payer: Ed25519 ignores accounts, so it would verify, and the program must not be confused.
      const account = { pubkey: new PublicKey(pair.operator.address), isSigner: false, isWritable: false };
      const crowded = new TransactionInstruction({ programId: verify.programId, keys: [account], data: verify.data });
      expectRefusal(send([crowded, call]), 'BadEvidence');
      // Verifies another message, at other offsets, than the one at the place where the program looks.
      const forged = Buffer.concat([verify.data, message]);
      forged.writeUInt16LE(verify.data.length, 2 + 8);
      expectRefusal(
        send([new TransactionInstruction({ programId: verify.programId, keys: [], data: forged }), call]),
        'BadEvidence',
      );
      // Offsets into the instruction by its number instead of by "here".
      for (const at of [4, 8, 14]) {
        const absolute = Buffer.from(verify.data);
        absolute.writeUInt16LE(0, at);
        const named = new TransactionInstruction({ programId: verify.programId, keys: [], data: absolute });
        expectRefusal(send([named, call]), 'BadEvidence');
      }
      const elsewhere = tamper(call, 'redeemVoucher', 'instructions', { address: pair.budget });
      expectRefusal(send([verify, elsewhere]), 'WrongAddress');
      const bad = Buffer.from(verify.data);
      bad[48] = (bad[48] ?? 0) ^ 1;
      const broken = new TransactionInstruction({ programId: verify.programId, keys: [], data: bad });
      expect(send([broken, call]).failed).toBeDefined();
      ok(send([verify, call]));
    });

    test('every ending honours what was redeemed', () => {
      const before = paidTo();
      const ending = (outcome: Outcome) => readEndings(market.programId, outcome.logs, 'x')[0];
      const settle = (amount: bigint): Outcome =>
        market.send(
          [
            calls.callSettle(market.market, lease, { amount: baseUnits(amount), resultDigest: DIGEST }, [
              'delegate',
              'operator',
            ]),
          ],
          pair.delegate,
          pair.operator,
        );
      const cancel = (most: bigint, by: readonly calls.LeaseParty[]): Outcome =>
        market.send(
          [calls.callCancelLease(market.market, lease, baseUnits(most), by)],
          pair.buyer,
          ...by.map((party) => pair[party]),
        );
      const next = (): void => {
        lease = openLease(market, pair, newTerms(market, pair));
        ok(redeem(500_000n));
      };
      ok(redeem(500_000n));
      expectRefusal(settle(499_999n), 'AmountBelowRedeemed');
      expect(ending(settle(500_000n))).toMatchObject({ paid: 500_000n, refunded: 500_003n, burned: 0n });
      expect(paidTo()).toBe(before + 485_000n);
      next();
      expect(ending(settle(700_000n))).toMatchObject({ paid: 700_000n, burned: 2_000n });
      next();
      expect(ending(cancel(0n, ['operator']))).toMatchObject({ paid: 500_000n, refunded: 500_003n });
      next();
      expectRefusal(cancel(499_999n, ['delegate']), 'OwedMore');
      expectRefusal(cancel(499_999n, ['delegate', 'operator']), 'AmountBelowRedeemed');
      expect(ending(cancel(500_000n, ['delegate']))?.paid).toBe(500_000n);
      next();
      const claim = { lease: lease.address, claimed: baseUnits(499_999n), resultDigest: DIGEST };
      expectRefusal(
        market.send([calls.callSubmitProof(market.market, pair.operator.address, claim)], pair.operator),
        'AmountBelowRedeemed',
      );
      market.setTime(market.now() + 631);
      const expired = market.send([calls.callExpireLease(market.market, lease)], pair.buyer);
      expect(ending(expired)).toMatchObject({ paid: 500_000n, refunded: 500_003n, slashed: 50_000n });
      expect(market.budget(pair.budget)).toMatchObject({ locked: 0n, openLeases: 0 });
      expect(market.provider(pair.owner.address)).toMatchObject({ reserved: 0n, openLeases: 0 });
    });
  });
}
