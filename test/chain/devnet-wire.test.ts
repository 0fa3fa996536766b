/**
 * What strangers can send to the local chain: the VM ends the process on bytes that it cannot decode, so whatever the
 * parser lets through must be a transaction to the VM. A wrong judgement does not fail this test, it kills it.
 */
import { PublicKey, SystemProgram, TransactionMessage } from '@solana/web3.js';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import { feeOf, isWritable, loadAddresses, parseTransaction } from '../../chain/devnet/transaction.ts';
import { SYSTEM_PROGRAM, Vm } from '../../chain/devnet/vm.ts';
import { buildDraft, wireTransaction } from '../../chain/instructions.ts';
import { hasCode } from '../../protocol/errors.ts';
import { encodeAddress } from '../../protocol/address.ts';
import { keyPairFromSeed } from '../../protocol/ed25519.ts';

const payer = keyPairFromSeed(new Uint8Array(32).fill(1));
const to = keyPairFromSeed(new Uint8Array(32).fill(2)).address;
const BLOCKHASH = encodeAddress(new Uint8Array(32).fill(9));
const instruction = SystemProgram.transfer({
  fromPubkey: new PublicKey(payer.address),
  toPubkey: new PublicKey(to),
  lamports: 1_000_000,
});
const draft = buildDraft(payer.address, BLOCKHASH, [instruction, instruction]);
const legacy = wireTransaction(draft, [payer.sign(draft.message)]);
const message = new TransactionMessage({
  payerKey: new PublicKey(payer.address),
  recentBlockhash: BLOCKHASH,
  instructions: [instruction],
}).compileToV0Message();
const lookups = Buffer.concat([Buffer.from([1]), new PublicKey(to).toBuffer(), Buffer.from([2, 0, 1, 1, 2])]);
const versioned = Buffer.concat([
  Buffer.from([1]),
  payer.sign(message.serialize()),
  message.serialize().subarray(0, -1),
  lookups,
]);

test('a transaction is read as the client wrote it', () => {
  const parsed = parseTransaction(new Uint8Array(legacy));
  expect(parsed).toMatchObject({
    version: 'legacy',
    keys: [payer.address, to, SYSTEM_PROGRAM],
    blockhash: BLOCKHASH,
    lookups: [],
    instructions: [
      { programIdIndex: 2, accounts: [0, 1], data: new Uint8Array(instruction.data) },
      { programIdIndex: 2, accounts: [0, 1] },
    ],
  });
  expect([0, 1, 2].map((index) => isWritable(parsed, index))).toEqual([true, true, false]);
  expect(feeOf(parsed)).toBe(5_000);
  const second = parseTransaction(versioned);
  expect(second.version).toBe(0);
  expect(second.lookups).toEqual([{ table: to, writable: [0, 1], readonly: [2] }]);
  expect([3, 4, 5].map((index) => isWritable(second, index))).toEqual([true, true, false]);
  expect(loadAddresses(second, () => undefined)).toBeUndefined();
});

test('changed, cut and lengthened bytes are refused, or the VM can take them', () => {
  const vm = new Vm();
  const account = { lamports: 10n ** 10n, owner: SYSTEM_PROGRAM, executable: false, data: new Uint8Array() };
  vm.setAccount(payer.address, account);
  let taken = 0;
  let refused = 0;
  const edits = fc.array(fc.tuple(fc.nat(legacy.length + 40), fc.nat(255)), { minLength: 0, maxLength: 4 });
  fc.assert(
    fc.property(fc.boolean(), edits, fc.integer({ min: -40, max: 40 }), (isLegacy, changes, growth) => {
      const original = isLegacy ? legacy : versioned;
      // Half of all keep their length: those get further.
      const length = growth < 0 && growth > -21 ? original.length : original.length + growth;
      const wire = new Uint8Array(Math.max(0, length));
      wire.set(original.subarray(0, wire.length));
      // The first 65 bytes are count and signature.
      for (const [at, byte] of changes) if (at + 65 < wire.length) wire[at + 65] = byte;
      let parsed;
      try {
        parsed = parseTransaction(wire);
      } catch (error) {
        refused++;
        return hasCode(error, 'protocol/malformed');
      }
      taken++;
      vm.simulate(parsed, false);
      vm.execute(parsed);
      return true;
    }),
    { numRuns: 5_000 },
  );
  expect(taken).toBeGreaterThan(200);
  expect(refused).toBeGreaterThan(200);
});

test.each([
  ['nothing', new Uint8Array()],
  ['a byte too many', Buffer.concat([legacy, Buffer.from([0])])],
  ['no signature', Buffer.concat([Buffer.from([0]), draft.message])],
  ['a length in a longer form than needed', Buffer.concat([Buffer.from([0x81, 0]), legacy.subarray(1)])],
  ['another version', Buffer.concat([legacy.subarray(0, 65), Buffer.from([0x85]), legacy.subarray(65)])],
  ['1233 bytes', Buffer.concat([legacy, Buffer.alloc(1_233 - legacy.length)])],
])('%s is no transaction', (_, wire) => {
  expect(() => parseTransaction(wire)).toThrow(expect.objectContaining({ code: 'protocol/malformed' }));
});
