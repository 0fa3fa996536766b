/**
 * The instructions a job may use, and how long each one is.
 *
 * Allowed: WebAssembly 2.0 (MVP, sign extension, non-trapping conversion, bulk memory, reference types, fixed-width SIMD)
 * and tail calls. Refused: what would make a run differ between machines (threads and atomics, relaxed SIMD) and what the
 * meter does not charge for (exceptions, garbage collection, typed function references). Source: Core Specification,
 * "Instructions". Types and stack discipline are left to the engine's validation, which follows.
 */
import { invalidModule, type ModuleReader } from './module-bytes.ts';

/** What the meter has to know about an instruction it passed. */
export type Effect = 'plain' | 'open' | 'loop' | 'end' | 'bulk' | 'grow';

/** Index spaces whose ends the meter extends: an index at or behind its end must stay invalid. */
export interface IndexSpaces {
  readonly functions: number;
  readonly globals: number;
}

const VALUE_TYPES: ReadonlySet<number> = new Set([0x7f, 0x7e, 0x7d, 0x7c, 0x7b, 0x70, 0x6f]);

export function readValueType(reader: ModuleReader): void {
  const start = reader.offset;
  const type = reader.byte();
  if (!VALUE_TYPES.has(type)) throw invalidModule(start, `value type 0x${type.toString(16)}`);
}

/** Passes one instruction. Throws `job/module-invalid` for what is refused or cut off. */
export function readInstruction(reader: ModuleReader, spaces: IndexSpaces): Effect {
  const start = reader.offset;
  const opcode = reader.byte();
  if (opcode >= 0x45 && opcode <= 0xc4) return 'plain';
  if (opcode >= 0x28 && opcode <= 0x3e) {
    readMemoryArgument(reader);
    return 'plain';
  }
  switch (opcode) {
    case 0x02:
    case 0x04:
      reader.skipSigned(33);
      return 'open';
    case 0x03:
      reader.skipSigned(33);
      return 'loop';
    case 0x0b:
      return 'end';
    case 0x40:
      readIndex(reader, 1, 'memory');
      return 'grow';
    case 0xfc:
      return readBulk(reader, start);
    case 0xfd:
      readVector(reader, start);
      return 'plain';
    default:
      readPlain(reader, opcode, spaces);
      return 'plain';
  }
}

function readPlain(reader: ModuleReader, opcode: number, spaces: IndexSpaces): void {
  const start = reader.offset - 1;
  switch (opcode) {
    case 0x00: // unreachable
    case 0x01: // nop
    case 0x05: // else
    case 0x0f: // return
    case 0x1a: // drop
    case 0x1b: // select
    case 0xd1: // ref.is_null
      return;
    case 0x0c: // br
    case 0x0d: // br_if
    case 0x20: // local.get
    case 0x21: // local.set
    case 0x22: // local.tee
    case 0x25: // table.get
    case 0x26: // table.set
      reader.u32();
      return;
    case 0x0e: // br_table
      for (let labels = reader.count('branch labels'); labels >= 0; labels--) reader.u32();
      return;
    case 0x10: // call
    case 0x12: // return_call
    case 0xd2: // ref.func
      readIndex(reader, spaces.functions, 'function');
      return;
    case 0x11: // call_indirect
    case 0x13: // return_call_indirect
      reader.u32();
      reader.u32();
      return;
    case 0x1c: // select with types
      for (let types = reader.count('select types'); types > 0; types--) readValueType(reader);
      return;
    case 0x23: // global.get
    case 0x24: // global.set
      readIndex(reader, spaces.globals, 'global');
      return;
    case 0x3f: // memory.size
      readIndex(reader, 1, 'memory');
      return;
    case 0x41:
      reader.skipSigned(32);
      return;
    case 0x42:
      reader.skipSigned(64);
      return;
    case 0x43:
      reader.skip(4);
      return;
    case 0x44:
      reader.skip(8);
      return;
    case 0xd0: // ref.null
      reader.skipSigned(33);
      return;
    default:
      throw invalidModule(start, refusal(opcode));
  }
}

function refusal(opcode: number): string {
  if ([0x06, 0x07, 0x08, 0x09, 0x0a, 0x18, 0x19, 0x1f].includes(opcode)) return 'exception handling, which is refused,';
  if (opcode === 0xfe) return 'an atomic instruction: threads are refused,';
  if (opcode === 0xfb) return 'a garbage collection instruction, which is refused,';
  return `unknown instruction 0x${opcode.toString(16).padStart(2, '0')}`;
}

function readIndex(reader: ModuleReader, end: number, what: string): void {
  const start = reader.offset;
  const index = reader.u32();
  if (index >= end) throw invalidModule(start, `${what} ${index} of ${end}`);
}

function readMemoryArgument(reader: ModuleReader): void {
  const start = reader.offset;
  if (reader.u32() > 4) throw invalidModule(start, 'an alignment above 16 bytes or a second memory');
  reader.u32();
}

function readBulk(reader: ModuleReader, start: number): Effect {
  const sub = reader.u32();
  if (sub <= 7) return 'plain'; // saturating conversions
  switch (sub) {
    case 9: // data.drop
    case 13: // elem.drop
    case 16: // table.size
      reader.u32();
      return 'plain';
    case 8: // memory.init
    case 10: // memory.copy
    case 12: // table.init
    case 14: // table.copy
      reader.u32();
      reader.u32();
      return 'bulk';
    case 11: // memory.fill
    case 15: // table.grow
    case 17: // table.fill
      reader.u32();
      return 'bulk';
    default:
      throw invalidModule(start, `unknown instruction 0xfc ${sub}`);
  }
}

function readVector(reader: ModuleReader, start: number): void {
  const sub = reader.u32();
  if (sub > 0xff) throw invalidModule(start, 'a relaxed SIMD instruction, which is refused,');
  if (sub <= 11 || sub === 92 || sub === 93) readMemoryArgument(reader);
  else if (sub === 12 || sub === 13) reader.skip(16);
  else if (sub >= 21 && sub <= 34) reader.skip(1);
  else if (sub >= 84 && sub <= 91) {
    readMemoryArgument(reader);
    reader.skip(1);
  }
}
