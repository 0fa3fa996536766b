/**
 * Wire bytes → transaction, exactly as strict as a Solana node: minimal lengths, no byte left over, every index in range.
 *
 * Strictness is safety here: the VM ends the whole process on bytes that it cannot decode, so what passes this file must
 * be what it decodes. Legacy messages and version 0 with address lookup tables are known.
 */
import { base58btc } from 'multiformats/bases/base58';

import { encodeAddress, type Address } from '../../protocol/address.ts';
import { MoltError, assert } from '../../protocol/errors.ts';

/** Most bytes of a transaction: one UDP packet of IPv6's smallest MTU. */
export const WIRE_BYTES_MAX = 1_232;
const LOOKUP_TABLE_PROGRAM = 'AddressLookupTab1e1111111111111111111111111';
const LOOKUP_TABLE_HEADER = 56;

export interface CompiledInstruction {
  readonly programIdIndex: number;
  readonly accounts: readonly number[];
  readonly data: Uint8Array;
}

export interface Lookup {
  readonly table: Address;
  readonly writable: readonly number[];
  readonly readonly: readonly number[];
}

export interface Header {
  readonly numRequiredSignatures: number;
  readonly numReadonlySignedAccounts: number;
  readonly numReadonlyUnsignedAccounts: number;
}

export interface WireTransaction {
  readonly wire: Uint8Array;
  /** The first signature in base58: the name of the transaction. */
  readonly name: string;
  readonly signatures: readonly Uint8Array[];
  readonly version: 'legacy' | 0;
  readonly header: Header;
  /** The keys that stand in the message itself. */
  readonly keys: readonly Address[];
  readonly blockhash: string;
  readonly instructions: readonly CompiledInstruction[];
  readonly lookups: readonly Lookup[];
}

/** Addresses that lookup tables add behind the keys of the message, in this order. */
export interface LoadedAddresses {
  readonly writable: readonly Address[];
  readonly readonly: readonly Address[];
}

function malformed(what: string): MoltError {
  return new MoltError(
    'protocol/malformed',
    `the bytes are not a Solana transaction (${what}): send the wire form of a signed one`,
  );
}

/** Bounded by its bytes; every read past the end is `protocol/malformed`. */
class Reader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get rest(): number {
    return this.#bytes.length - this.#at;
  }

  peek(): number {
    const byte = this.#bytes[this.#at];
    if (byte === undefined) throw malformed('it ends too early');
    return byte;
  }

  byte(): number {
    const byte = this.peek();
    this.#at++;
    return byte;
  }

  take(length: number): Uint8Array {
    if (length > this.rest) throw malformed('it ends too early');
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  /** Solana's compact-u16: seven bits a byte, three bytes at most, no form longer than needed. */
  length(): number {
    let value = 0;
    for (let index = 0; index < 3; index++) {
      const byte = this.byte();
      value |= (byte & 0x7f) << (7 * index);
      if (byte >= 0x80) continue;
      if ((byte === 0 && index > 0) || value > 0xffff) break;
      return value;
    }
    throw malformed('a length is not in its shortest form');
  }

  list<T>(read: () => T): T[] {
    return Array.from({ length: this.#bounded(this.length()) }, read);
  }

  /** Every item takes a byte at least, so a length beyond the rest is refused before anything is made for it. */
  #bounded(length: number): number {
    if (length > this.rest) throw malformed('it ends too early');
    return length;
  }
}

/** Keys repeat, and base58 is slow: the last ones are kept. */
const NAMES_MAX = 8_192;
const names = new Map<string, Address>();

/** `encodeAddress` with a memory. */
export function addressOf(key: Uint8Array): Address {
  const bytes = Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString('latin1');
  const known = names.get(bytes);
  if (known !== undefined) return known;
  if (names.size >= NAMES_MAX) names.clear();
  const made = encodeAddress(key);
  names.set(bytes, made);
  return made;
}

/** Throws `protocol/malformed`. */
export function parseTransaction(wire: Uint8Array): WireTransaction {
  if (wire.length > WIRE_BYTES_MAX) throw malformed(`${wire.length} bytes, at most ${WIRE_BYTES_MAX}`);
  const reader = new Reader(wire);
  const signatures = reader.list(() => reader.take(64));
  const version = reader.peek() >= 0x80 ? reader.byte() - 0x80 : 'legacy';
  if (version !== 'legacy' && version !== 0) throw malformed(`version ${version}`);
  const header = {
    numRequiredSignatures: reader.byte(),
    numReadonlySignedAccounts: reader.byte(),
    numReadonlyUnsignedAccounts: reader.byte(),
  };
  const keys = reader.list(() => addressOf(reader.take(32)));
  const blockhash = addressOf(reader.take(32));
  const instructions = reader.list(() => ({
    programIdIndex: reader.byte(),
    accounts: reader.list(() => reader.byte()),
    data: reader.take(reader.length()),
  }));
  const lookups =
    version === 0
      ? reader.list(() => ({
          table: addressOf(reader.take(32)),
          writable: reader.list(() => reader.byte()),
          readonly: reader.list(() => reader.byte()),
        }))
      : [];
  if (reader.rest > 0) throw malformed(`${reader.rest} bytes too many`);
  const [first] = signatures;
  if (first === undefined) throw malformed('no signature');
  const transaction = { wire, name: base58btc.baseEncode(first), signatures, version, header, keys } as const;
  return checked({ ...transaction, blockhash, instructions, lookups });
}

/** What a node calls sanitising. */
function checked(transaction: WireTransaction): WireTransaction {
  const { header, keys, signatures, instructions, lookups } = transaction;
  const { numRequiredSignatures, numReadonlySignedAccounts, numReadonlyUnsignedAccounts } = header;
  if (signatures.length !== numRequiredSignatures) throw malformed('one signature per signer');
  if (numReadonlySignedAccounts >= numRequiredSignatures) throw malformed('the fee payer is not writable');
  if (numRequiredSignatures + numReadonlyUnsignedAccounts > keys.length)
    throw malformed('fewer keys than the header says');
  if (lookups.some(({ writable, readonly }) => writable.length + readonly.length === 0))
    throw malformed('an empty lookup');
  const loaded = lookups.reduce((sum, { writable, readonly }) => sum + writable.length + readonly.length, 0);
  const count = keys.length + loaded;
  if (count > 256) throw malformed(`${count} accounts`);
  for (const { programIdIndex, accounts } of instructions) {
    if (programIdIndex === 0 || programIdIndex >= keys.length) throw malformed('a program that is not among the keys');
    if (accounts.some((index) => index >= count)) throw malformed('an account that is not among the keys');
  }
  return transaction;
}

/** Whether the account at `index` of keys, then loaded writable, then loaded readonly may change. */
export function isWritable({ header, keys, lookups }: WireTransaction, index: number): boolean {
  const { numRequiredSignatures, numReadonlySignedAccounts, numReadonlyUnsignedAccounts } = header;
  if (index < numRequiredSignatures) return index < numRequiredSignatures - numReadonlySignedAccounts;
  if (index < keys.length) return index < keys.length - numReadonlyUnsignedAccounts;
  return index - keys.length < lookups.reduce((sum, { writable }) => sum + writable.length, 0);
}

/** Looks the lookups up; undefined when a table is not there or too short, which the VM then refuses with its reason. */
export function loadAddresses(
  { lookups }: WireTransaction,
  read: (table: Address) => { readonly owner: Address; readonly data: Uint8Array } | undefined,
): LoadedAddresses | undefined {
  const writable: Address[] = [];
  const readonly: Address[] = [];
  for (const lookup of lookups) {
    const table = read(lookup.table);
    if (table?.owner !== LOOKUP_TABLE_PROGRAM) return undefined;
    for (const [list, indexes] of [
      [writable, lookup.writable],
      [readonly, lookup.readonly],
    ] as const) {
      for (const index of indexes) {
        const start = LOOKUP_TABLE_HEADER + 32 * index;
        if (start + 32 > table.data.length) return undefined;
        list.push(addressOf(table.data.subarray(start, start + 32)));
      }
    }
  }
  return { writable, readonly };
}

/** The bytes that are signed. */
export function messageOf({ wire, signatures }: WireTransaction): Uint8Array {
  assert(signatures.length < 128, 'a parsed transaction has at most 19 signatures');
  return wire.subarray(1 + 64 * signatures.length);
}

const COMPUTE_BUDGET = 'ComputeBudget111111111111111111111111111111';
/** Programs that check signatures; the first byte of their data says how many. */
const PRECOMPILES: ReadonlySet<string> = new Set([
  'Ed25519SigVerify111111111111111111111111111',
  'KeccakSecp256k11111111111111111111111111111',
  'Secp256r1SigVerify1111111111111111111111111',
]);
const LAMPORTS_PER_SIGNATURE = 5_000;
const UNITS_MAX = 1_400_000;
const UNITS_PER_INSTRUCTION = 200_000;

/** Lamports that a transaction pays: its signatures, and what it offers for each compute unit that it asks for. */
export function feeOf({ signatures, instructions, keys }: WireTransaction): number {
  let count = signatures.length;
  let price = 0n;
  let limit: number | undefined;
  let calls = 0;
  for (const { programIdIndex, data } of instructions) {
    const program = keys[programIdIndex];
    const bytes = Buffer.from(data);
    if (program !== undefined && PRECOMPILES.has(program)) count += bytes[0] ?? 0;
    if (program !== COMPUTE_BUDGET) calls++;
    else if (bytes[0] === 2 && bytes.length >= 5) limit = bytes.readUInt32LE(1);
    else if (bytes[0] === 3 && bytes.length >= 9) price = bytes.readBigUInt64LE(1);
  }
  const units = BigInt(Math.min(limit ?? calls * UNITS_PER_INSTRUCTION, UNITS_MAX));
  return count * LAMPORTS_PER_SIGNATURE + Number((price * units + 999_999n) / 1_000_000n);
}
