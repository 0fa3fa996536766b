/** Goal: money is exact from text to base units and back, and what is owed rounds up and is capped. */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import {
  U64_MAX,
  baseUnits,
  byteCount,
  costOf,
  formatBytes,
  formatMolt,
  milliseconds,
  parseMolt,
} from '../../protocol/units.ts';

const invalid = expect.objectContaining({ code: 'protocol/invalid-amount' });
const amounts = fc.bigInt(0n, U64_MAX).map(baseUnits);

test.each([
  ['0', 0n],
  ['1', 1_000_000_000n],
  ['2.5', 2_500_000_000n],
  ['0.000000001', 1n],
  ['  7 MOLT ', 7_000_000_000n],
  ['7molt', 7_000_000_000n],
  ['18446744073.709551615', U64_MAX],
])('"%s" is %d base units', (text, units) => {
  expect(parseMolt(text)).toBe(units);
});

test.each(['', '.5', '5.', '-1', '+1', '1e3', '0x10', '1,5', '1.0000000001', '18446744073.709551616', '1 SOL', '١'])(
  '"%s" is no amount',
  (text) => {
    expect(() => parseMolt(text)).toThrow(invalid);
  },
);

test('what is printed is read back exactly', () => {
  fc.assert(
    fc.property(amounts, (amount) => {
      expect(parseMolt(formatMolt(amount))).toBe(amount);
    }),
  );
});

test('differences are printed with their sign', () => {
  expect([formatMolt(-1_500_000_000n), formatMolt(0n), formatMolt(-1n)]).toEqual([
    '-1.5 MOLT',
    '0 MOLT',
    '-0.000000001 MOLT',
  ]);
});

test('amounts are u64, sizes and durations are whole and not negative', () => {
  expect(baseUnits(U64_MAX)).toBe(U64_MAX);
  for (const make of [
    () => baseUnits(U64_MAX + 1n),
    () => baseUnits(-1),
    () => milliseconds(0.5),
    () => milliseconds(-1),
    () => milliseconds(Number.NaN),
    () => byteCount(2 ** 53),
  ]) {
    expect(make).toThrow(invalid);
  }
});

test('cost is milliseconds times price over a thousand, rounded up, capped by the lock', () => {
  const molt = baseUnits(1_000_000_000n);
  expect(costOf(1, baseUnits(1n), molt)).toBe(1n);
  expect(costOf(1_000, baseUnits(3n), molt)).toBe(3n);
  expect(costOf(1_001, baseUnits(3n), molt)).toBe(4n);
  expect(costOf(0.2, baseUnits(1_000n), molt)).toBe(1n);
  expect(costOf(0, molt, molt)).toBe(0n);
  expect(costOf(2_000, molt, molt)).toBe(molt);
  fc.assert(
    fc.property(fc.nat(10 ** 9), amounts, amounts, (ms, price, locked) => {
      const cost = costOf(ms, price, locked);
      expect(cost <= locked).toBe(true);
      if (cost < locked) {
        expect(cost * 1000n >= BigInt(ms) * price).toBe(true);
        expect(cost === 0n || (cost - 1n) * 1000n < BigInt(ms) * price).toBe(true);
      }
    }),
  );
});

test('bytes are printed in decimal units', () => {
  expect([0, 999, 1_000, 5_240_000, 12_000_000, 3e15].map(formatBytes)).toEqual([
    '0 B',
    '999 B',
    '1.0 kB',
    '5.2 MB',
    '12 MB',
    '3000 TB',
  ]);
});
