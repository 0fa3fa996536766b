/**
 * Bytes ↔ values for every layout of chain/layout.ts, with types derived from the tables.
 *
 * `spare…` fields are zero and do not appear in values; `tag` is written by the encoder and checked by the decoder.
 */
import { decodeAddress, encodeAddress, type Address } from '../protocol/address.ts';
import { MoltError, assert } from '../protocol/errors.ts';
import { ACCOUNTS, EVENTS, INSTRUCTIONS, RECORDS, layoutSize, type Field, type FieldType } from './layout.ts';

type Value<T> = T extends 'u8' | 'u16' | 'u32'
  ? number
  : T extends 'u64' | 'i64'
    ? bigint
    : T extends 'key'
      ? Address
      : T extends { readonly bytes: number }
        ? Uint8Array
        : T extends { readonly keys: number }
          ? readonly Address[]
          : T extends { readonly record: infer R extends keyof typeof RECORDS }
            ? Fields<(typeof RECORDS)[R]>
            : never;

/** The value of a layout: one property per field, without `tag` and spare bytes. */
export type Fields<F extends readonly Field[]> = {
  readonly [E in F[number] as E[0] extends 'tag' | `spare${string}` ? never : E[0]]: Value<E[1]>;
};

export type AccountFields<K extends keyof typeof ACCOUNTS> = Fields<(typeof ACCOUNTS)[K]['fields']>;
export type InstructionFields<K extends keyof typeof INSTRUCTIONS> = Fields<(typeof INSTRUCTIONS)[K]['fields']>;
export type EventFields<K extends keyof typeof EVENTS> = Fields<(typeof EVENTS)[K]['fields']>;

type Loose = Readonly<Record<string, unknown>>;

interface Scalar {
  write(buffer: Buffer, value: unknown, offset: number): unknown;
  read(buffer: Buffer, offset: number): unknown;
}

const SCALARS: Readonly<Record<Extract<FieldType, string>, Scalar>> = {
  u8: {
    write: (buffer, value, at) => buffer.writeUInt8(value as number, at),
    read: (buffer, at) => buffer.readUInt8(at),
  },
  u16: {
    write: (buffer, value, at) => buffer.writeUInt16LE(value as number, at),
    read: (buffer, at) => buffer.readUInt16LE(at),
  },
  u32: {
    write: (buffer, value, at) => buffer.writeUInt32LE(value as number, at),
    read: (buffer, at) => buffer.readUInt32LE(at),
  },
  u64: {
    write: (buffer, value, at) => buffer.writeBigUInt64LE(value as bigint, at),
    read: (buffer, at) => buffer.readBigUInt64LE(at),
  },
  i64: {
    write: (buffer, value, at) => buffer.writeBigInt64LE(value as bigint, at),
    read: (buffer, at) => buffer.readBigInt64LE(at),
  },
  key: {
    write: (buffer, value, at) => buffer.set(decodeAddress(value as Address), at),
    read: (buffer, at) => encodeAddress(buffer.subarray(at, at + 32)),
  },
};

const NO_KEY: Uint8Array = new Uint8Array(32);

function encodeFields(fields: readonly Field[], value: Loose, buffer: Buffer, start: number): number {
  let offset = start;
  for (const [name, type] of fields) {
    if (!name.startsWith('spare') && name !== 'tag') encodeField(type, value[name], buffer, offset);
    offset += layoutSize([[name, type]]);
  }
  return offset;
}

function encodeField(type: FieldType, value: unknown, buffer: Buffer, offset: number): void {
  if (typeof type === 'object') {
    if ('record' in type) {
      encodeFields(RECORDS[type.record], value as Loose, buffer, offset);
    } else if ('keys' in type) {
      const keys = value as readonly Address[];
      assert(keys.length <= type.keys, `at most ${type.keys} keys`);
      keys.forEach((key, index) => buffer.set(decodeAddress(key), offset + 32 * index));
    } else {
      const bytes = value as Uint8Array;
      assert(bytes.length === type.bytes, `expected ${type.bytes} bytes, got ${bytes.length}`);
      buffer.set(bytes, offset);
    }
    return;
  }
  SCALARS[type].write(buffer, value, offset);
}

function decodeFields(fields: readonly Field[], buffer: Buffer, start: number): Loose {
  const value: Record<string, unknown> = {};
  let offset = start;
  for (const [name, type] of fields) {
    if (!name.startsWith('spare') && name !== 'tag') value[name] = decodeField(type, buffer, offset);
    offset += layoutSize([[name, type]]);
  }
  return value;
}

function decodeField(type: FieldType, buffer: Buffer, offset: number): unknown {
  if (typeof type === 'object') {
    if ('record' in type) return decodeFields(RECORDS[type.record], buffer, offset);
    if ('bytes' in type) return new Uint8Array(buffer.subarray(offset, offset + type.bytes));
    // Unused places at the end are zero.
    return Array.from({ length: type.keys }, (_, index) =>
      buffer.subarray(offset + 32 * index, offset + 32 * (index + 1)),
    )
      .filter((key) => !key.equals(NO_KEY))
      .map((key) => encodeAddress(key));
  }
  return SCALARS[type].read(buffer, offset);
}

function encodeTagged(layout: { readonly tag: number; readonly fields: readonly Field[] }, value: Loose): Uint8Array {
  const buffer = Buffer.alloc(layoutSize(layout.fields));
  buffer.writeUInt8(layout.tag, 0);
  encodeFields(layout.fields, value, buffer, 0);
  return buffer;
}

/** Instruction data. Numbers outside their field throw a RangeError: a programmer error. */
export function encodeInstruction<K extends keyof typeof INSTRUCTIONS>(
  name: K,
  value: InstructionFields<K>,
): Uint8Array {
  return encodeTagged(INSTRUCTIONS[name], value);
}

/** Instruction data → fields; undefined when tag or length are another instruction's. */
export function decodeInstruction<K extends keyof typeof INSTRUCTIONS>(
  name: K,
  data: Uint8Array,
): InstructionFields<K> | undefined {
  const layout: { readonly tag: number; readonly fields: readonly Field[] } = INSTRUCTIONS[name];
  if (data.length !== layoutSize(layout.fields) || data[0] !== layout.tag) return undefined;
  return decodeFields(
    layout.fields,
    Buffer.from(data.buffer, data.byteOffset, data.byteLength),
    0,
  ) as InstructionFields<K>;
}

/** Fields → account data, as the program writes it. */
export function encodeAccount<K extends keyof typeof ACCOUNTS>(kind: K, value: AccountFields<K>): Uint8Array {
  return encodeTagged(ACCOUNTS[kind], value);
}

/** Account data → fields. Throws `chain/account-malformed` when length or tag are those of something else. */
export function decodeAccount<K extends keyof typeof ACCOUNTS>(kind: K, data: Uint8Array): AccountFields<K> {
  const layout: { readonly tag: number; readonly fields: readonly Field[] } = ACCOUNTS[kind];
  const size = layoutSize(layout.fields);
  if (data.length !== size || data[0] !== layout.tag) {
    throw new MoltError(
      'chain/account-malformed',
      `expected a ${kind} of ${size} bytes with tag ${layout.tag}, got ${data.length} bytes with tag ${data[0] ?? 'none'}: ` +
        'is this address an account of this program, and is the client as new as the program?',
      { kind, length: data.length },
    );
  }
  return decodeFields(layout.fields, Buffer.from(data.buffer, data.byteOffset, data.byteLength), 0) as AccountFields<K>;
}

/** One blob of `sol_log_data` → the event, or undefined when it is not this kind. */
export function decodeEvent<K extends keyof typeof EVENTS>(kind: K, data: Uint8Array): EventFields<K> | undefined {
  const layout = EVENTS[kind];
  if (data.length !== layoutSize(layout.fields) || data[0] !== layout.tag) return undefined;
  return decodeFields(layout.fields, Buffer.from(data.buffer, data.byteOffset, data.byteLength), 0) as EventFields<K>;
}
