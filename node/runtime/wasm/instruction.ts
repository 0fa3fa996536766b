/**
 * The instructions a job may use: how long each one is, and which indices it names.
 *
 * Allowed: WebAssembly 2.0 (MVP, sign extension, non-trapping conversion, bulk memory, reference types, fixed-width SIMD)
 * and tail calls. Refused: what would make a run differ between machines (threads and atomics, relaxed SIMD) and what the
 * meter does not charge for (exceptions, garbage collection, typed function references). Source: Core Specification,
 * "Instructions". Types are left to the engine's validation, which follows.
 */
import { invalidModule, type ModuleReader } from './module-bytes.ts';

/** Ends of the index spaces of a module: an index at or behind its end is refused, also where the meter adds some. */
export interface IndexSpaces {
  readonly types: number;
  readonly functions: number;
  readonly globals: number;
}

/** Opcodes by name, where the meter has to know them. Prefixed ones are `prefix << 8 | number`. */
export const OP = {
  unreachable: 0x00,
  block: 0x02,
  loop: 0x03,
  if: 0x04,
  else: 0x05,
  end: 0x0b,
  br: 0x0c,
  brIf: 0x0d,
  brTable: 0x0e,
  return: 0x0f,
  call: 0x10,
  callIndirect: 0x11,
  returnCall: 0x12,
  returnCallIndirect: 0x13,
  localGet: 0x20,
  localSet: 0x21,
  localTee: 0x22,
  memoryGrow: 0x40,
  f32Const: 0x43,
  f64Const: 0x44,
  memoryInit: 0xfc08,
  memoryCopy: 0xfc0a,
  memoryFill: 0xfc0b,
  tableInit: 0xfc0c,
  tableCopy: 0xfc0e,
  tableGrow: 0xfc0f,
  tableFill: 0xfc11,
  v128Const: 0xfd0c,
} as const;

const VALUE_TYPES: ReadonlySet<number> = new Set([0x7f, 0x7e, 0x7d, 0x7c, 0x7b, 0x70, 0x6f]);

export function readValueType(reader: ModuleReader): number {
  const start = reader.offset;
  const type = reader.byte();
  if (!VALUE_TYPES.has(type)) throw invalidModule(start, `value type 0x${type.toString(16)}`);
  return type;
}

/** What a block takes and leaves: a type of the module, one value, or nothing. */
export type BlockType = { readonly typeIndex: number } | { readonly results: 0 | 1 };

/** Reads one instruction after another. One object for all of them, because a module has millions. */
export class InstructionReader {
  readonly #reader: ModuleReader;
  readonly #spaces: IndexSpaces;
  opcode: number = 0;
  /** The index, label or type that the instruction names; for a `br_table` its default label. */
  index: number = 0;
  /** For `block`, `loop` and `if`. */
  blockType: BlockType = { results: 0 };
  /** The deepest label of a branch, for `br`, `br_if` and `br_table`. */
  labelMax: number = 0;

  constructor(reader: ModuleReader, spaces: IndexSpaces) {
    this.#reader = reader;
    this.#spaces = spaces;
  }

  /** Where the next instruction begins. */
  get offset(): number {
    return this.#reader.offset;
  }

  get done(): boolean {
    return this.#reader.done;
  }

  /** Passes one instruction. Throws `job/module-invalid` for what is refused or cut off. */
  next(): void {
    const start = this.#reader.offset;
    this.opcode = this.#reader.byte();
    if (this.opcode >= 0x45 && this.opcode <= 0xc4) return;
    // By far the most frequent ones.
    if (this.opcode >= OP.localGet && this.opcode <= OP.localTee) {
      this.index = this.#reader.u32();
      return;
    }
    if (this.opcode >= 0x28 && this.opcode <= 0x3e) this.#memoryArgument();
    else if (this.opcode === 0xfc) this.#bulk(start);
    else if (this.opcode === 0xfd) this.#vector(start);
    else if (this.opcode >= 0x41 && this.opcode <= 0x44) this.#constant();
    else this.#other(start);
  }

  #constant(): void {
    if (this.opcode === 0x41) this.#reader.skipSigned(32);
    else if (this.opcode === 0x42) this.#reader.skipSigned(64);
    else this.#reader.skip(this.opcode === OP.f32Const ? 4 : 8);
  }

  #other(start: number): void {
    const { types, functions, globals } = this.#spaces;
    switch (this.opcode) {
      case OP.unreachable:
      case 0x01: // nop
      case OP.else:
      case OP.end:
      case OP.return:
      case 0x1a: // drop
      case 0x1b: // select
      case 0xd1: // ref.is_null
        return;
      case OP.block:
      case OP.loop:
      case OP.if:
        this.#block();
        return;
      case 0x25: // table.get
      case 0x26: // table.set
        this.index = this.#reader.u32();
        return;
      case OP.br:
      case OP.brIf:
        this.index = this.#reader.u32();
        this.labelMax = this.index;
        return;
      case OP.brTable:
        this.#branchTable();
        return;
      case OP.call:
      case OP.returnCall:
      case 0xd2: // ref.func
        this.#index(functions, 'function');
        return;
      case OP.callIndirect:
      case OP.returnCallIndirect:
        this.#index(types, 'type');
        this.#reader.u32();
        return;
      case 0x1c: // select with types
        for (let count = this.#reader.count('select types'); count > 0; count--) readValueType(this.#reader);
        return;
      case 0x23: // global.get
      case 0x24: // global.set
        this.#index(globals, 'global');
        return;
      case 0x3f: // memory.size
      case OP.memoryGrow:
        this.#index(1, 'memory');
        return;
      case 0xd0: // ref.null
        this.#reader.skipSigned(33);
        return;
      default:
        throw invalidModule(start, refusal(this.opcode));
    }
  }

  #index(end: number, what: string): void {
    const start = this.#reader.offset;
    this.index = this.#reader.u32();
    if (this.index >= end) throw invalidModule(start, `${what} ${this.index} of ${end}`);
  }

  /** One byte for nothing or one value; else the index of a type. */
  #block(): void {
    const first = this.#reader.bytes[this.#reader.offset] ?? 0;
    if (first === 0x40) {
      this.#reader.byte();
      this.blockType = { results: 0 };
    } else if (first >= 0x40 && first < 0x80) {
      readValueType(this.#reader);
      this.blockType = { results: 1 };
    } else {
      this.#index(this.#spaces.types, 'type');
      this.blockType = { typeIndex: this.index };
    }
  }

  #branchTable(): void {
    this.labelMax = 0;
    for (let labels = this.#reader.count('branch labels'); labels >= 0; labels--) {
      this.index = this.#reader.u32();
      this.labelMax = Math.max(this.labelMax, this.index);
    }
  }

  #memoryArgument(): void {
    const start = this.#reader.offset;
    if (this.#reader.u32() > 4) throw invalidModule(start, 'an alignment above 16 bytes or a second memory');
    this.#reader.u32();
  }

  #bulk(start: number): void {
    const sub = this.#reader.u32();
    this.opcode = 0xfc00 | sub;
    if (sub <= 7) return; // saturating conversions
    if (sub > 17) throw invalidModule(start, `unknown instruction 0xfc ${sub}`);
    this.#reader.u32();
    // memory.init, memory.copy, table.init and table.copy name a second index.
    if (sub === 8 || sub === 10 || sub === 12 || sub === 14) this.#reader.u32();
  }

  #vector(start: number): void {
    const sub = this.#reader.u32();
    if (sub > 0xff) throw invalidModule(start, 'a relaxed SIMD instruction, which is refused,');
    this.opcode = 0xfd00 | sub;
    if (sub <= 11 || sub === 92 || sub === 93) this.#memoryArgument();
    else if (sub === 12 || sub === 13) this.#reader.skip(16);
    else if (sub >= 21 && sub <= 34) this.#reader.skip(1);
    else if (sub >= 84 && sub <= 91) {
      this.#memoryArgument();
      this.#reader.skip(1);
    }
  }
}

function refusal(opcode: number): string {
  if ([0x06, 0x07, 0x08, 0x09, 0x0a, 0x18, 0x19, 0x1f].includes(opcode)) return 'exception handling, which is refused,';
  if (opcode === 0xfe) return 'an atomic instruction: threads are refused,';
  if (opcode === 0xfb) return 'a garbage collection instruction, which is refused,';
  return `unknown instruction 0x${opcode.toString(16).padStart(2, '0')}`;
}
