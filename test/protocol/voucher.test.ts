/** Goal: a voucher is 88 fixed bytes, bound to network, lease and amount, and signed by one key. */
import { expect, test } from 'vitest';

import { encodeAddress } from '../../protocol/address.ts';
import { keyPairFromSeed } from '../../protocol/ed25519.ts';
import { baseUnits } from '../../protocol/units.ts';
import { VOUCHER_BYTES, assertVoucher, encodeVoucher, signVoucher } from '../../protocol/voucher.ts';

const address = (byte: number) => encodeAddress(new Uint8Array(32).fill(byte));
const delegate = keyPairFromSeed(new Uint8Array(32).fill(7));
const voucher = { network: address(1), lease: address(2), amount: baseUnits(0x0102030405060708n) };

test('the bytes are domain, network, lease and amount, little endian', () => {
  const bytes = encodeVoucher(voucher);
  expect(bytes.length).toBe(VOUCHER_BYTES);
  const domain = Buffer.from('molt/voucher/v1\0').toString('hex');
  expect(Buffer.from(bytes).toString('hex')).toBe(`${domain}${'01'.repeat(32)}${'02'.repeat(32)}0807060504030201`);
});

test('a voucher counts for its delegate, its lease, its network and its amount alone', () => {
  const signature = signVoucher(delegate, voucher);
  expect(() => assertVoucher(voucher, signature, delegate.address)).not.toThrow();
  for (const other of [
    { ...voucher, network: address(3) },
    { ...voucher, lease: address(3) },
    { ...voucher, amount: baseUnits(1n) },
  ]) {
    expect(() => assertVoucher(other, signature, delegate.address)).toThrow(
      expect.objectContaining({ code: 'protocol/bad-signature' }),
    );
  }
  const stranger = keyPairFromSeed(new Uint8Array(32).fill(8));
  expect(() => assertVoucher(voucher, signature, stranger.address)).toThrow();
});
