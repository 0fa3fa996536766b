/** Goal: the 136 bytes of a commit are exactly those that SPEC.md lays out, and nothing else decodes. */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import { type Address, decodeAddress, encodeAddress } from '../../protocol/address.ts';
import { COMMIT_BYTES, COMMIT_KINDS, type CommitKind, decodeCommit, encodeCommit } from '../../protocol/commit.ts';
import { AssertionError } from '../../protocol/errors.ts';
import { U64_MAX } from '../../protocol/units.ts';

const bytes32 = fc.uint8Array({ minLength: 32, maxLength: 32 });
const address = bytes32.map(encodeAddress);
const u64 = fc.bigInt(0n, U64_MAX);
const commits = fc.record({
  kind: fc.constantFrom(...(Object.keys(COMMIT_KINDS) as CommitKind[])),
  attempt: fc.nat(65_535),
  network: address,
  subject: bytes32,
  index: u64,
  aux: u64,
  value: bytes32,
  slot: u64,
  account: address,
});

test('every field stands where the layout says', () => {
  const fill = (byte: number): Uint8Array => new Uint8Array(32).fill(byte);
  const encoded = encodeCommit({
    kind: 'result',
    attempt: 0x0102,
    network: encodeAddress(fill(0xaa)),
    subject: fill(0xbb),
    index: 0x0304n,
    aux: 0x0506n,
    value: fill(0xcc),
    slot: 0x0708n,
    account: encodeAddress(fill(0xdd)),
  });
  expect(Buffer.from(encoded).toString('hex')).toBe(
    [
      Buffer.from('molt/commit/v1\0\0').toString('hex'),
      '03',
      '00',
      '0201',
      'aa'.repeat(4),
      'bb'.repeat(32),
      '0403000000000000',
      '0605000000000000',
      'cc'.repeat(32),
      '0807000000000000',
      'dd'.repeat(24),
    ].join(''),
  );
});

test('what is encoded is decoded', () => {
  fc.assert(
    fc.property(commits, (commit) => {
      const encoded = encodeCommit(commit);
      expect(encoded).toHaveLength(COMMIT_BYTES);
      const { network, account, ...rest } = commit;
      expect(decodeCommit(encoded)).toEqual({
        ...rest,
        networkPrefix: prefix(network, 4),
        accountPrefix: prefix(account, 24),
      });
    }),
  );
});

test('bytes of another length, domain, kind or with a flag are refused', () => {
  const good = encodeCommit(fc.sample(commits, { numRuns: 1, seed: 1 })[0]!);
  const changed = (at: number, byte: number): Uint8Array => {
    const bytes = good.slice();
    bytes[at] = byte;
    return bytes;
  };
  const refused = [
    good.subarray(1),
    Uint8Array.of(...good, 0),
    changed(0, 0),
    changed(15, 1),
    changed(16, 0),
    changed(16, 7),
    changed(17, 1),
  ];
  for (const bytes of [new Uint8Array(), ...refused]) {
    expect(() => decodeCommit(bytes)).toThrow(expect.objectContaining({ code: 'protocol/malformed' }));
  }
});

test('a digest of another length or an attempt beyond 16 bits is a defect of the caller', () => {
  const commit = fc.sample(commits, { numRuns: 1, seed: 1 })[0]!;
  expect(() => encodeCommit({ ...commit, value: new Uint8Array(31) })).toThrow(AssertionError);
  expect(() => encodeCommit({ ...commit, attempt: 65_536 })).toThrow(AssertionError);
});

function prefix(of: Address, bytes: number): Uint8Array {
  return decodeAddress(of).slice(0, bytes);
}
