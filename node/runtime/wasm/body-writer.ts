/**
 * Writes one function of a metered module: its own instructions, and between them what the meter adds.
 *
 * What is added lives here alone: the globals, the functions that charge and grow, the code that calls them, and the code
 * that makes NaNs canonical. meter.ts says why; function-body.ts says where.
 */
import type { BodyFacts } from './function-body.ts';
import { type IndexSpaces, InstructionReader, OP, readValueType } from './instruction.ts';
import { invalidModule, type ModuleReader, ModuleWriter } from './module-bytes.ts';
import { KIND } from './operands.ts';

/** Name of the exported fuel global, i64; a module that exports any of these names itself is refused. */
export const FUEL_EXPORT = 'molt:fuel';
/** Name of the exported i32 global that counts refused `memory.grow`s. */
export const REFUSED_EXPORT = 'molt:refused-grows';
/** Name of the exported i32 global of stack slots left; below zero after a stack overflow. */
export const STACK_EXPORT = 'molt:stack';
/** Name of the exported i32 global of the most pages the memory may grow to; 65,536 until the runtime sets it. */
export const PAGES_EXPORT = 'molt:pages';
/** The added globals in the order of their indices. */
export const ADDED_GLOBALS: readonly string[] = [FUEL_EXPORT, REFUSED_EXPORT, STACK_EXPORT, PAGES_EXPORT];
/** What a frame costs besides its locals and operands, in slots. */
const FRAME_SLOTS = 8;
/** A function that calls nothing and needs no more slots than this is not counted: it adds one frame at most. */
const LEAF_SLOTS_MAX = 256;
/** Locals of one function, parameters included; the engine allows 50,000, and the meter may add three. */
const LOCALS_MAX = 49_997;

export function padded(value: number): readonly number[] {
  const scratch = new ModuleWriter(8);
  scratch.fill(scratch.hole(), value);
  return [...scratch.finish()];
}

/** `opcode` followed by an index. */
function encoded(opcode: number, index: number): readonly number[] {
  const scratch = new ModuleWriter(8);
  scratch.put(opcode);
  scratch.u32(index);
  return [...scratch.finish()];
}

interface Variable {
  readonly get: readonly number[];
  readonly set: readonly number[];
}

export const ADDED_FUNCTIONS = 3;

/** The code that pays, the code that keeps the stack, and the functions behind them. */
export class AddedCode {
  readonly #writer: ModuleWriter;
  readonly #fuel: Variable;
  readonly #refused: Variable;
  readonly #stack: Variable;
  readonly #pages: Variable;
  readonly #calls: readonly (readonly number[])[];

  constructor(writer: ModuleWriter, { globals, functions }: IndexSpaces) {
    const variable = (name: string): Variable => {
      const index = globals + ADDED_GLOBALS.indexOf(name);
      return { get: encoded(0x23, index), set: encoded(0x24, index) };
    };
    this.#writer = writer;
    this.#fuel = variable(FUEL_EXPORT);
    this.#refused = variable(REFUSED_EXPORT);
    this.#stack = variable(STACK_EXPORT);
    this.#pages = variable(PAGES_EXPORT);
    this.#calls = Array.from({ length: ADDED_FUNCTIONS }, (_, index) => encoded(OP.call, functions + index));
  }

  /** fuel -= <constant, filled in later>; if fuel < 0: unreachable. Returns the place of the constant. */
  constant(): number {
    this.#writer.put(...this.#fuel.get, 0x42);
    const place = this.#writer.hole();
    this.#writer.put(0x7d, ...this.#fuel.set);
    this.#trapBelowZero();
    return place;
  }

  /** stack -= slots; if stack < 0: unreachable. */
  enter(slots: number): void {
    const { get, set } = this.#stack;
    this.#writer.put(...get, 0x41, ...padded(slots), 0x6b, ...set);
    this.#writer.put(...get, 0x41, 0x00, 0x48, 0x04, 0x40, 0x00, 0x0b);
  }

  /** stack += slots. */
  leave(slots: number): void {
    const { get, set } = this.#stack;
    this.#writer.put(...get, 0x41, ...padded(slots), 0x6a, ...set);
  }

  /** Charges for the number on top of the operands and leaves it there: bytes, or entries of a table. */
  length(unit: 'bytes' | 'entries'): void {
    this.#writer.put(...(this.#calls[unit === 'bytes' ? 0 : 1] ?? []));
  }

  /** Stands for `memory.grow`. */
  grow(): void {
    this.#writer.put(...(this.#calls[2] ?? []));
  }

  writeFunctions(): void {
    // charge(n: i32): fuel -= n / 8, or n * 8; if fuel < 0: unreachable; n
    for (const shift of [0x88, 0x86]) {
      this.#function(() => {
        this.#pay(3, shift);
        this.#writer.put(0x20, 0x00, 0x0b);
      });
    }
    this.#function(() => this.#growFunction());
  }

  /** grow(n: i32): more than allowed is -1; else fuel -= n * 8192 and n = memory.grow(n). Every -1 is counted. */
  #growFunction(): void {
    const { get, set } = this.#refused;
    const writer = this.#writer;
    // (u64) memory.size + (u64) n > (u64) pages
    writer.put(0x3f, 0x00, 0xad, 0x20, 0x00, 0xad, 0x7c, ...this.#pages.get, 0xad, 0x56);
    writer.put(0x04, 0x40, ...get, 0x41, 0x01, 0x6a, ...set, 0x41, 0x7f, 0x0f, 0x0b);
    this.#pay(13, 0x86);
    writer.put(0x20, 0x00, 0x40, 0x00, 0x22, 0x00, 0x41, 0x7f, 0x46, ...get, 0x6a, ...set, 0x20, 0x00, 0x0b);
  }

  /** fuel -= local 0 shifted by `bits`, right (0x88) or left (0x86); if fuel < 0: unreachable. */
  #pay(bits: number, shift: number): void {
    this.#writer.put(...this.#fuel.get, 0x20, 0x00, 0xad, 0x42, bits, shift, 0x7d, ...this.#fuel.set);
    this.#trapBelowZero();
  }

  /** A function without locals. */
  #function(body: () => void): void {
    const size = this.#writer.hole();
    const start = this.#writer.length;
    this.#writer.put(0x00);
    body();
    this.#writer.fill(size, this.#writer.length - start);
  }

  #trapBelowZero(): void {
    this.#writer.put(...this.#fuel.get, 0x42, 0x00, 0x53, 0x04, 0x40, 0x00, 0x0b);
  }
}

export interface Declared {
  /** Parameters and locals. */
  readonly total: number;
  /** Locals alone. */
  readonly own: number;
  readonly groups: number;
  /** Where the groups begin and end. */
  readonly from: number;
  readonly to: number;
}

interface Body {
  /** Stands behind the locals. */
  readonly body: ModuleReader;
  readonly spaces: IndexSpaces;
  readonly facts: BodyFacts;
  readonly declared: Declared;
  /** Type of a block with the function's results. */
  readonly block: readonly number[];
}

interface Canonical {
  /** Type of the value, and of the local that holds it meanwhile. */
  readonly type: number;
  readonly nan: readonly number[];
  /** Of the value, the NaN, and the value twice: the value where it equals itself, else the NaN. */
  readonly choose: readonly number[];
  /** Of the value twice: not zero when a lane is a NaN. Only for vectors. */
  readonly isNan?: readonly number[];
}

const CANONICAL: ReadonlyMap<number, Canonical> = new Map([
  [KIND.f32, { type: 0x7d, nan: [0x43, 0, 0, 0xc0, 0x7f], choose: [0x5b, 0x1b] }],
  [KIND.f64, { type: 0x7c, nan: [0x44, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f], choose: [0x61, 0x1b] }],
  [
    KIND.f32x4,
    {
      type: 0x7b,
      nan: [0xfd, 0x0c, ...Array.from({ length: 4 }, () => [0, 0, 0xc0, 0x7f]).flat()],
      choose: [0xfd, 0x41, 0xfd, 0x52],
      isNan: [0xfd, 0x42, 0xfd, 0xa4, 0x01],
    },
  ],
  [
    KIND.f64x2,
    {
      type: 0x7b,
      nan: [0xfd, 0x0c, ...Array.from({ length: 2 }, () => [0, 0, 0, 0, 0, 0, 0xf8, 0x7f]).flat()],
      choose: [0xfd, 0x47, 0xfd, 0x52],
      isNan: [0xfd, 0x48, 0xfd, 0xc4, 0x01],
    },
  ],
]);

/** Writes one function with everything that is added to it. */
export class BodyWriter {
  readonly #writer: ModuleWriter;
  readonly #added: AddedCode;
  readonly #body: Body;
  readonly #bytes: Uint8Array;
  #copied: number;
  /** Index of the added local of each value type. */
  readonly #temporaries = new Map<number, number>();
  #nextCanonical = 0;

  constructor(writer: ModuleWriter, added: AddedCode, body: Body) {
    this.#writer = writer;
    this.#added = added;
    this.#body = body;
    this.#bytes = body.body.bytes;
    this.#copied = body.body.offset;
  }

  write(): void {
    const { facts, block } = this.#body;
    const slots = facts.slots + FRAME_SLOTS;
    const counted = facts.calls || slots > LEAF_SLOTS_MAX;
    this.#locals();
    if (counted) {
      this.#added.enter(slots);
      this.#writer.put(0x02, ...block);
    }
    this.#instructions(counted ? slots : 0);
    if (counted) {
      this.#added.leave(slots);
      this.#writer.put(0x0b);
    }
  }

  #locals(): void {
    const { declared, facts } = this.#body;
    for (const place of facts.canonical) {
      const { type = 0 } = CANONICAL.get(place % 8) ?? {};
      if (!this.#temporaries.has(type)) this.#temporaries.set(type, declared.total + this.#temporaries.size);
    }
    this.#writer.u32(declared.groups + this.#temporaries.size);
    this.#writer.bytes(this.#bytes, declared.from, declared.to);
    for (const type of this.#temporaries.keys()) this.#writer.put(1, type);
  }

  #flush(end: number): void {
    this.#writer.bytes(this.#bytes, this.#copied, end);
    this.#copied = end;
  }

  /** The instructions of the function with its fuel; `slots` are put back wherever it is left, 0 for none. */
  #instructions(slots: number): void {
    const { body, spaces, declared, facts } = this.#body;
    const reader = new InstructionReader(body, spaces);
    // Zeroing locals is work too: each one counts as an instruction.
    let cost = declared.own;
    let hole = this.#added.constant();
    /** One entry per open block: undefined for block and if, the enclosing region for a loop. */
    const blocks: (undefined | { readonly hole: number; readonly cost: number })[] = [];
    for (;;) {
      const start = reader.offset;
      reader.next();
      cost++;
      const { opcode } = reader;
      if (opcode === OP.block || opcode === OP.if) blocks.push(undefined);
      else if (opcode === OP.loop) {
        blocks.push({ hole, cost });
        this.#flush(reader.offset);
        hole = this.#added.constant();
        cost = 1;
      } else if (opcode === OP.end) {
        if (blocks.length === 0) break;
        const enclosing = blocks.pop();
        if (enclosing === undefined) continue;
        this.#writer.fill(hole, cost);
        ({ hole, cost } = enclosing);
      } else this.#replace(opcode, { start, end: reader.offset, slots, depth: blocks.length });
      if (this.#nextCanonical < facts.canonical.length) this.#canonical(reader.offset);
    }
    this.#writer.fill(hole, cost);
    this.#flush(reader.offset);
  }

  /** What is written before an instruction, or in its stead. */
  #replace(opcode: number, at: { start: number; end: number; slots: number; depth: number }): void {
    switch (opcode) {
      case OP.memoryInit:
      case OP.memoryCopy:
      case OP.memoryFill:
        this.#flush(at.start);
        this.#added.length('bytes');
        return;
      case OP.tableInit:
      case OP.tableCopy:
      case OP.tableFill:
      case OP.tableGrow:
        this.#flush(at.start);
        this.#added.length('entries');
        return;
      case OP.memoryGrow:
        this.#flush(at.start);
        this.#copied = at.end;
        this.#added.grow();
        return;
      case OP.return: // to the end of the block that stands for the body
        if (at.slots === 0) return;
        this.#flush(at.start);
        this.#copied = at.end;
        this.#writer.put(...encoded(OP.br, at.depth));
        return;
      case OP.returnCall:
      case OP.returnCallIndirect:
        this.#flush(at.start);
        this.#added.leave(at.slots);
        return;
      default:
    }
  }

  /** Makes the value that the instruction ending at `end` left canonical, when it is one of those that are seen. */
  #canonical(end: number): void {
    const place = this.#body.facts.canonical[this.#nextCanonical] ?? 0;
    if (Math.floor(place / 8) !== end) return;
    this.#nextCanonical++;
    const canonical = CANONICAL.get(place % 8);
    if (canonical === undefined) return;
    const { type, nan, choose, isNan } = canonical;
    const index = this.#temporaries.get(type) ?? 0;
    const [get, set] = [encoded(OP.localGet, index), encoded(OP.localSet, index)];
    this.#flush(end);
    this.#writer.put(...set);
    // Looking at the signs of a comparison and jumping costs a vector less than choosing in every case.
    if (isNan !== undefined) this.#writer.put(...get, ...get, ...isNan, 0x04, 0x40);
    this.#writer.put(...get, ...nan, ...get, ...get, ...choose);
    if (isNan !== undefined) this.#writer.put(...set, 0x0b, ...get);
  }
}

/** Passes the locals of a function with this many parameters. */
export function readLocals(body: ModuleReader, parameters: number): Declared {
  const groups = body.count('local groups');
  const from = body.offset;
  let own = 0;
  for (let group = 0; group < groups; group++) {
    const start = body.offset;
    own += body.u32();
    if (own + parameters > LOCALS_MAX) throw invalidModule(start, `more than ${LOCALS_MAX} locals`);
    readValueType(body);
  }
  return { total: own + parameters, own, groups, from, to: body.offset };
}
