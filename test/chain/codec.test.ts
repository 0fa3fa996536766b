/** Layouts and codecs: what decodes re-encodes to the same bytes, and other bytes are refused. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { readEndings, readLease } from '../../chain/accounts.ts';
import { decodeAccount, encodeInstruction } from '../../chain/codec.ts';
import { LOCAL_PROGRAM_ID } from '../../chain/instructions.ts';
import {
  ACCOUNTS,
  EVENTS,
  INSTRUCTIONS,
  LEASE_STATES,
  fieldOffset,
  fieldSize,
  layoutSize,
  type Field,
} from '../../chain/layout.ts';
import { PROGRAM_ERRORS, programError } from '../../chain/program-errors.ts';
import { decodeAddress } from '../../protocol/address.ts';
import { isErrorCode } from '../../protocol/errors.ts';
import { randomKey } from './local-chain.ts';

const layouts: readonly (readonly [string, { readonly tag: number; readonly fields: readonly Field[] }])[] = [
  ...Object.entries(ACCOUNTS),
  ...Object.entries(INSTRUCTIONS),
  ...Object.entries(EVENTS),
];

describe('layouts', () => {
  test.each(layouts)('%s starts with its tag and keeps every field aligned', (_, { fields }) => {
    expect(fields[0]).toEqual(['tag', 'u8']);
    for (const [name, type] of fields) expect(fieldOffset(fields, name) % fieldSize(type).align).toBe(0);
    expect(new Set(fields.map(([name]) => name)).size).toBe(fields.length);
  });

  test('no two accounts share a tag or a size', () => {
    const accounts = Object.values(ACCOUNTS);
    expect(new Set(accounts.map(({ tag }) => tag)).size).toBe(accounts.length);
    expect(new Set(accounts.map(({ fields }) => layoutSize(fields))).size).toBe(accounts.length);
  });
});

describe('codec', () => {
  test('an instruction is written little endian at the declared offsets', () => {
    const digest = new Uint8Array(32).fill(3);
    const data = Buffer.from(encodeInstruction('submitProof', { claimed: 0x0102030405060708n, resultDigest: digest }));
    expect(data.toString('hex')).toBe(`0c000000000000000807060504030201${'03'.repeat(32)}`);
  });

  test('numbers that do not fit their field are refused', () => {
    const fields = { claimed: 2n ** 64n, resultDigest: new Uint8Array(32) };
    expect(() => encodeInstruction('submitProof', fields)).toThrow(RangeError);
    expect(() => encodeInstruction('submitProof', { ...fields, claimed: -1n })).toThrow(RangeError);
    expect(() => encodeInstruction('submitProof', { claimed: 1n, resultDigest: new Uint8Array(31) })).toThrow(
      'expected 32 bytes',
    );
  });

  test('an account of another length or tag is refused', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        const isLease = bytes.length === layoutSize(ACCOUNTS.lease.fields) && bytes[0] === ACCOUNTS.lease.tag;
        if (!isLease)
          expect(() => decodeAccount('lease', bytes)).toThrow(
            expect.objectContaining({ code: 'chain/account-malformed' }),
          );
      }),
    );
  });

  test('a lease is read field by field from where the layout puts it', () => {
    const data = Buffer.alloc(layoutSize(ACCOUNTS.lease.fields));
    const at = (name: string): number => fieldOffset(ACCOUNTS.lease.fields, name);
    const operator = randomKey().address;
    data[0] = ACCOUNTS.lease.tag;
    data[at('state')] = LEASE_STATES.proven;
    data.writeBigUInt64LE(77n, at('claimed'));
    data.writeBigInt64LE(1_800_000_000n, at('provenAt'));
    data.writeUInt32LE(9, at('graceSeconds'));
    data.set(decodeAddress(operator), at('operator'));
    expect(readLease(operator, data)).toMatchObject({
      state: 'proven',
      operator,
      graceMs: 9_000,
      proof: { claimed: 77n, provenAtMs: 1_800_000_000_000 },
    });
  });
});

describe('errors of the program', () => {
  test('have distinct names, numbers in a row, a text, and a code of the catalogue', () => {
    expect(new Set(PROGRAM_ERRORS.map(({ name }) => name)).size).toBe(PROGRAM_ERRORS.length);
    for (const [index, error] of PROGRAM_ERRORS.entries()) {
      expect(error.number).toBe(7000 + index);
      expect(programError(error.number)).toBe(error);
      expect(isErrorCode(error.code)).toBe(true);
    }
    expect(programError(1)).toBeUndefined();
    expect(programError(7000 + PROGRAM_ERRORS.length)).toBeUndefined();
  });
});

describe('events in logs', () => {
  const blob = Buffer.alloc(layoutSize(EVENTS.leaseEnded.fields));
  blob[0] = EVENTS.leaseEnded.tag;
  blob[1] = 7;
  const line = `Program data: ${blob.toString('base64')}`;
  const other = randomKey().address;

  test('count only when the program itself printed them', () => {
    const own = [`Program ${LOCAL_PROGRAM_ID} invoke [1]`, line, `Program ${LOCAL_PROGRAM_ID} success`];
    expect(readEndings(LOCAL_PROGRAM_ID, own, 's').map(({ ending }) => ending)).toEqual(['expired']);
    const forged = [`Program ${other} invoke [1]`, line, `Program ${other} success`];
    expect(readEndings(LOCAL_PROGRAM_ID, forged, 's')).toEqual([]);
    const after = [
      ...own.slice(0, 1),
      ...own.slice(2),
      `Program ${other} invoke [1]`,
      line,
      `Program ${other} success`,
    ];
    expect(readEndings(LOCAL_PROGRAM_ID, after, 's')).toEqual([]);
    const inside = [
      `Program ${LOCAL_PROGRAM_ID} invoke [1]`,
      `Program ${other} invoke [2]`,
      line,
      `Program ${other} success`,
      `Program ${LOCAL_PROGRAM_ID} success`,
    ];
    expect(readEndings(LOCAL_PROGRAM_ID, inside, 's')).toEqual([]);
    const logged = [
      `Program ${other} invoke [1]`,
      `Program log: Program ${LOCAL_PROGRAM_ID} invoke [1]`,
      line,
      `Program ${other} success`,
    ];
    expect(readEndings(LOCAL_PROGRAM_ID, logged, 's')).toEqual([]);
  });
});
