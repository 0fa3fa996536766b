/** Goal: earnings sum exactly what the chain told, each payment once. Method: records as the chain client gives them. */
import { expect, test } from 'vitest';
import * as fc from 'fast-check';

import type { ChainRecord, LeaseEnding, StakeSlash, VoucherPayment } from '../../../chain/index.ts';
import { earningsOf, parseSince } from '../../../node/cli/earnings.ts';
import { type Address, encodeAddress } from '../../../protocol/address.ts';
import { baseUnits } from '../../../protocol/units.ts';

const address = (byte: number): Address => encodeAddress(new Uint8Array(32).fill(byte));
const [me, other, budget] = [address(1), address(2), address(3)];
const DAY = 86_400_000;
const NOON = Date.UTC(2026, 10, 20, 12);

const record = (atMs: number, parts: Partial<ChainRecord>): ChainRecord => ({
  signature: 'x',
  atMs,
  vouchers: [],
  endings: [],
  slashes: [],
  ...parts,
});
const ending = (lease: Address, paid: bigint, fees = { burned: 0n, staked: 0n }, provider = me): LeaseEnding => ({
  ending: 'settledTogether',
  lease,
  budget,
  provider,
  resultDigest: new Uint8Array(32),
  paid: baseUnits(paid),
  refunded: baseUnits(0n),
  burned: baseUnits(fees.burned),
  staked: baseUnits(fees.staked),
  slashed: baseUnits(0n),
  signature: 'x',
});
const voucher = (lease: Address, redeemed: bigint, fees: { burned: bigint; staked: bigint }): VoucherPayment => ({
  lease,
  budget,
  provider: me,
  redeemed: baseUnits(redeemed),
  burned: baseUnits(fees.burned),
  staked: baseUnits(fees.staked),
});
const slash = (own: bigint, delegated: bigint): StakeSlash => ({
  reason: 'noShow',
  provider: me,
  own: baseUnits(own),
  delegated: baseUnits(delegated),
  paid: baseUnits(0n),
  burned: baseUnits(0n),
  signature: 'x',
});

test('a lease that was paid by vouchers and then settled counts each payment once, on its own day', () => {
  const lease = address(9);
  const earnings = earningsOf(
    [
      record(NOON, { vouchers: [voucher(lease, 100n, { burned: 1n, staked: 2n })] }),
      record(NOON + 1_000, { vouchers: [voucher(lease, 250n, { burned: 1n, staked: 3n })] }),
      record(NOON + DAY, { endings: [ending(lease, 400n, { burned: 2n, staked: 3n })] }),
    ],
    me,
    0,
  );
  expect(earnings.days.map(({ day, gross, payout, paidLeases }) => ({ day, gross, payout, paidLeases }))).toEqual([
    { day: '2026-11-21', gross: 150n, payout: 145n, paidLeases: 1 },
    { day: '2026-11-20', gross: 250n, payout: 243n, paidLeases: 0 },
  ]);
  expect(earnings.total).toMatchObject({ gross: 400n, burned: 4n, staked: 8n, payout: 388n });
});

test('a payment before the window is not counted, though what follows it in the same lease is', () => {
  const lease = address(9);
  const early = record(NOON - DAY, { vouchers: [voucher(lease, 300n, { burned: 3n, staked: 3n })] });
  const late = record(NOON, { endings: [ending(lease, 500n, { burned: 2n, staked: 2n })] });
  expect(earningsOf([early, late], me, NOON - 1).total).toMatchObject({ gross: 200n, payout: 196n, paidLeases: 1 });
});

test('others in the same transactions do not count, and what was lost does', () => {
  const records = [
    record(NOON, { endings: [ending(address(8), 70n, undefined, other), ending(address(9), 0n)] }),
    record(NOON, { slashes: [slash(5n, 7n), { ...slash(1n, 1n), provider: other }] }),
  ];
  const { total } = earningsOf(records, me, 0);
  expect(total).toMatchObject({ gross: 0n, payout: 0n, slashed: 12n, paidLeases: 0, unpaidLeases: 1 });
});

test('whatever the payments are, days sum to the total and gross is payout, burnt and stake fee', () => {
  const payment = fc.record({
    lease: fc.integer({ min: 10, max: 14 }),
    atMs: fc.integer({ min: NOON - 9 * DAY, max: NOON }),
    more: fc.bigInt({ min: 0n, max: 10n ** 18n }),
  });
  fc.assert(
    fc.property(fc.array(payment, { maxLength: 30 }), (payments) => {
      const paid = new Map<number, bigint>();
      const records = payments
        .sort((a, b) => a.atMs - b.atMs)
        .map(({ lease, atMs, more }) => {
          const total = (paid.get(lease) ?? 0n) + more;
          paid.set(lease, total);
          return record(atMs, {
            vouchers: [voucher(address(lease), total, { burned: more / 50n, staked: more / 30n })],
          });
        });
      const { total, days } = earningsOf(records, me, 0);
      const given = payments.reduce((sum, { more }) => sum + more, 0n);
      expect(total.gross).toBe(given);
      expect(total.payout + total.burned + total.staked).toBe(given);
      expect(days.reduce((sum, day) => sum + day.payout, 0n)).toBe(total.payout);
    }),
  );
});

test('--since takes hours, days and weeks, and nothing else', () => {
  expect([parseSince('12h'), parseSince('7d'), parseSince('2w')]).toEqual([DAY / 2, 7 * DAY, 14 * DAY]);
  for (const text of ['', '7', '0d', '-1d', '1.5d', '7 d', '99999d']) expect(() => parseSince(text)).toThrow('--since');
});
