/**
 * The voucher: how much of one lease its operator may redeem, counted from the opening, signed by the lease's delegate.
 *
 * Layout, 88 bytes, little endian: 0 domain (16, zero padded) · 16 network (genesis hash, 32) · 48 lease account (32) ·
 * 80 amount u64. Amounts are cumulative, so only the highest voucher counts, losing one costs nothing and redeeming one
 * twice pays nothing. SPEC.md, "Voucher".
 */
import { type Address, decodeAddress } from './address.ts';
import { type Signer, assertSignature } from './ed25519.ts';
import type { BaseUnits } from './units.ts';

export const VOUCHER_BYTES = 88;
const DOMAIN = Buffer.from('molt/voucher/v1'.padEnd(16, '\0'), 'latin1');

export interface Voucher {
  readonly network: Address;
  readonly lease: Address;
  /** Everything that may be redeemed since the lease was opened. */
  readonly amount: BaseUnits;
}

/** The exact bytes that are signed. */
export function encodeVoucher({ network, lease, amount }: Voucher): Uint8Array {
  const bytes = Buffer.alloc(VOUCHER_BYTES);
  DOMAIN.copy(bytes, 0);
  bytes.set(decodeAddress(network), 16);
  bytes.set(decodeAddress(lease), 48);
  bytes.writeBigUInt64LE(amount, 80);
  return new Uint8Array(bytes);
}

/** 64 bytes by the delegate of the lease. */
export function signVoucher(delegate: Signer, voucher: Voucher): Uint8Array {
  return delegate.sign(encodeVoucher(voucher));
}

/** Throws `protocol/bad-signature` unless `delegate` signed exactly this voucher. */
export function assertVoucher(voucher: Voucher, signature: Uint8Array, delegate: Address): void {
  assertSignature(encodeVoucher(voucher), signature, decodeAddress(delegate));
}
