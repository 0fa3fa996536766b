/**
 * Units: money, time and sizes as distinct types, so that seconds cannot be paid where tokens are meant.
 *
 * Money is a bigint of base units of the MOLT token (9 decimals, u64 on chain) from end to end; decimals exist only in
 * `parseMolt` and `formatMolt`. What is owed rounds up and is capped by what is locked (protocol/SPEC.md, "Money").
 */
import { MoltError } from './errors.ts';

declare const unit: unique symbol;

/** MOLT base units, 0 … 2^64-1. 1 MOLT = 10^9 base units. */
export type BaseUnits = bigint & { readonly [unit]: 'base-units' };
/** Duration or Unix time in milliseconds, a safe integer. */
export type Milliseconds = number & { readonly [unit]: 'ms' };
/** A size in bytes, a safe non-negative integer. */
export type ByteCount = number & { readonly [unit]: 'bytes' };

export const MOLT_DECIMALS = 9;
export const BASE_UNITS_PER_MOLT = 1_000_000_000n;
export const U64_MAX: bigint = 2n ** 64n - 1n;

/** Checks the u64 range. Throws `protocol/invalid-amount`. */
export function baseUnits(value: bigint | number): BaseUnits {
  const amount = BigInt(value);
  if (amount < 0n || amount > U64_MAX) {
    throw new MoltError('protocol/invalid-amount', `an amount must be 0 … 2^64-1 base units, not ${amount}`, {
      amount: amount.toString(),
    });
  }
  return amount as BaseUnits;
}

/** A non-negative safe integer number of milliseconds. Throws `protocol/invalid-amount`. */
export function milliseconds(value: number): Milliseconds {
  return safeInteger(value, 'milliseconds') as Milliseconds;
}

/** A non-negative safe integer number of bytes. Throws `protocol/invalid-amount`. */
export function byteCount(value: number): ByteCount {
  return safeInteger(value, 'bytes') as ByteCount;
}

function safeInteger(value: number, what: string): number {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new MoltError('protocol/invalid-amount', `expected a whole number of ${what}, not ${value}`, {
      amount: String(value),
    });
  }
  return value;
}

/** "1.25" or "1.25 MOLT" → base units. At most 9 decimals, no sign, no exponent. Throws `protocol/invalid-amount`. */
export function parseMolt(text: string): BaseUnits {
  const match = /^(\d{1,12})(?:\.(\d{1,9}))?(?:\s*MOLT)?$/i.exec(text.trim());
  if (!match) {
    throw new MoltError(
      'protocol/invalid-amount',
      `"${text}" is not an amount of MOLT: write digits with at most 9 decimals, for example 2.5`,
      { amount: text },
    );
  }
  const whole = BigInt(match[1] ?? '0');
  const fraction = BigInt((match[2] ?? '').padEnd(MOLT_DECIMALS, '0'));
  return baseUnits(whole * BASE_UNITS_PER_MOLT + fraction);
}

/** Base units → "1.25 MOLT": exact, trailing zeros cut. Also renders differences, so it accepts negative bigints. */
export function formatMolt(amount: bigint): string {
  const sign = amount < 0n ? '-' : '';
  const absolute = amount < 0n ? -amount : amount;
  const fraction = (absolute % BASE_UNITS_PER_MOLT).toString().padStart(MOLT_DECIMALS, '0').replace(/0+$/, '');
  return `${sign}${absolute / BASE_UNITS_PER_MOLT}${fraction === '' ? '' : `.${fraction}`} MOLT`;
}

/**
 * What a run of `durationMs` costs at `pricePerSecond`, rounded up to the base unit, capped by `locked`.
 * The chain program computes the same (chain/program, `cancel_lease`): ceil(ms × price / 1000), capped.
 */
export function costOf(durationMs: number, pricePerSecond: BaseUnits, locked: BaseUnits): BaseUnits {
  const owed = (BigInt(Math.ceil(durationMs)) * pricePerSecond + 999n) / 1000n;
  return (owed < locked ? owed : locked) as BaseUnits;
}

/** Bytes as people read them: "5.2 MB" (decimal units). */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'] as const;
  let value = bytes;
  let index = 0;
  while (value >= 1000 && index < units.length - 1) {
    value /= 1000;
    index++;
  }
  return `${index === 0 ? value : value.toFixed(value < 10 ? 1 : 0)} ${units[index]}`;
}
