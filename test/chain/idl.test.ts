/**
 * Goal: whoever knows nothing but chain/program/idl.json reads accounts and instructions of the program.
 * Method: a reader that takes everything from that file, against what the real program has written.
 */
import { readFileSync } from 'node:fs';

import { describe, expect, test } from 'vitest';

import { configAddress, delegationAddress } from '../../chain/addresses.ts';
import * as calls from '../../chain/calls.ts';
import { decodeAccount } from '../../chain/codec.ts';
import { INSTRUCTIONS, type AccountMeta } from '../../chain/layout.ts';
import { encodeAddress, type Address } from '../../protocol/address.ts';
import { TestMarket, must, openLease, registerPair } from './market.ts';

type Type =
  | 'u8'
  | 'u16'
  | 'u32'
  | 'u64'
  | 'i64'
  | 'pubkey'
  | { readonly array: readonly [Type, number] }
  | { readonly defined: { readonly name: string } };
type Fields = readonly { readonly name: string; readonly type: Type }[];
interface Idl {
  readonly address: string;
  readonly instructions: readonly {
    readonly name: string;
    readonly discriminator: readonly number[];
    readonly accounts: readonly { readonly name: string; readonly signer?: boolean; readonly writable?: boolean }[];
    readonly args: Fields;
  }[];
  readonly accounts: readonly { readonly name: string; readonly discriminator: readonly number[] }[];
  readonly errors: readonly { readonly code: number; readonly name: string; readonly msg: string }[];
  readonly types: readonly { readonly name: string; readonly type: { readonly fields: Fields } }[];
}

const idl = JSON.parse(readFileSync(new URL('../../chain/program/idl.json', import.meta.url), 'utf8')) as Idl;

/** Reads fields one after another, as Borsh lays them out. */
function read(
  fields: Fields,
  data: Buffer,
  start: number,
): { readonly value: Record<string, unknown>; readonly end: number } {
  let at = start;
  const one = (type: Type): unknown => {
    if (typeof type === 'object') {
      if ('array' in type) return Array.from({ length: type.array[1] }, () => one(type.array[0]));
      const inner = read(must(idl.types.find(({ name }) => name === type.defined.name)).type.fields, data, at);
      at = inner.end;
      return inner.value;
    }
    const from = at;
    at += { u8: 1, u16: 2, u32: 4, u64: 8, i64: 8, pubkey: 32 }[type];
    if (type === 'pubkey') return encodeAddress(data.subarray(from, at));
    if (type === 'u64') return data.readBigUInt64LE(from);
    return type === 'i64' ? data.readBigInt64LE(from) : data.readUIntLE(from, at - from);
  };
  const value = Object.fromEntries(fields.map(({ name, type }) => [name, one(type)]));
  return { value, end: at };
}

const camel = (name: string): string => name.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());

describe('the published interface', () => {
  const market = new TestMarket();
  const pair = registerPair(market);
  const lease = openLease(market, pair);

  test.each([
    ['Config', 'config', configAddress(market.programId).address],
    ['Provider', 'provider', lease.provider],
    ['Budget', 'budget', lease.budget],
    ['Lease', 'lease', lease.address],
    ['Delegation', 'delegation', delegationAddress(market.programId, lease.provider, pair.owner.address).address],
  ] as const)('tells a %s by its first byte and where everything in it is', (name, kind, address) => {
    const data = Buffer.from(must(market.data(address)));
    expect(idl.accounts.find(({ discriminator }) => discriminator[0] === data[0])?.name).toBe(name);
    const { value, end } = read(must(idl.types.find((type) => type.name === name)).type.fields, data, 1);
    expect(end).toBe(data.length);
    const known = decodeAccount(kind, data) as unknown as Readonly<Record<string, unknown>>;
    const found = Object.fromEntries(Object.entries(value).map(([field, content]) => [camel(field), content]));
    for (const [field, content] of Object.entries(known)) {
      if (['number', 'bigint', 'string'].includes(typeof content))
        expect([field, found[field]]).toEqual([field, content]);
    }
  });

  test('tells the arguments and accounts of an instruction', () => {
    const call = calls.callOpenLease(market.market, pair.terms);
    const described = must(idl.instructions.find(({ discriminator }) => discriminator[0] === call.data[0]));
    expect(described.name).toBe('open_lease');
    const { value, end } = read(described.args, call.data, 1);
    expect(end).toBe(call.data.length);
    expect(value).toMatchObject({ amount: pair.terms.amount, reserve: pair.terms.reserve });
    const place = described.accounts.findIndex(({ name }) => name === 'lease');
    expect(call.keys[place]?.pubkey.toBase58()).toBe(lease.address);
    expect(described.accounts.map(({ signer, writable }) => [signer === true, writable === true])).toEqual(
      call.keys.map(({ isSigner, isWritable }) => [isSigner, isWritable]),
    );
  });

  test('lists every instruction with the flags of the program, and every error with what to do', () => {
    expect(idl.address).toBe(market.programId satisfies Address);
    expect(idl.instructions.map(({ discriminator }) => discriminator)).toEqual(
      Object.values(INSTRUCTIONS).map(({ tag }) => [tag]),
    );
    for (const [index, { accounts }] of Object.values(INSTRUCTIONS).entries()) {
      const metas: readonly AccountMeta[] = accounts;
      expect(
        idl.instructions[index]?.accounts.map(({ signer, writable }) => [signer === true, writable === true]),
      ).toEqual(metas.map(({ signer, writable }) => [signer === true, writable === true]));
    }
    for (const { msg } of idl.errors) expect(msg.length).toBeGreaterThan(20);
  });
});
