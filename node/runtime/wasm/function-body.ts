/**
 * What the meter must know of a function before it rewrites it: the height of its frame, and which of its NaNs can be seen.
 *
 * One pass follows the operand stack through the function, as validation does. It gives the greatest number of operands at
 * a time, hence the cost of the function's frame, and whether the function calls anything. A second pass, only for
 * functions with floating-point arithmetic, finds the instructions after which a NaN must be made canonical.
 *
 * NaNs of arithmetic are left alone as long as nobody looks: a value that goes from one arithmetic instruction into the
 * next, or into a comparison, costs nothing. A local whose every assignment is arithmetic (or a constant that is no
 * NaN) may hold such a NaN as well; then it is each reading of the local that is looked at. So in an accumulating loop the
 * only instruction that pays is the store behind the loop. Values that may be anything (parameters, loads, results of
 * calls) keep their bits, because programs do move integers about as floats.
 *
 * The module may be ill-typed here; the engine refuses it afterwards. What must hold even then: no label and no local
 * behind the end of what the function has is accepted, because the meter adds a block and locals there.
 */
import { type BlockType, InstructionReader, type IndexSpaces, OP } from './instruction.ts';
import { invalidModule, type ModuleReader } from './module-bytes.ts';
import { ignoresNan, isNeverNan, leavesOf, nanMadeBy, takesOf } from './operands.ts';

/** Parameters and results of each type of the module. */
export interface Signatures {
  readonly parameters: Uint16Array;
  readonly results: Uint16Array;
  /** Type of each function, imported ones first. */
  readonly ofFunction: Uint32Array;
}

export interface BodyContext {
  readonly spaces: IndexSpaces;
  readonly signatures: Signatures;
  /** Type of this function. */
  readonly typeIndex: number;
  /** Parameters and declared locals. */
  readonly locals: number;
}

export interface BodyFacts {
  readonly calls: boolean;
  /** Values a frame of the function holds at most. */
  readonly slots: number;
  /** Ends of instructions (offset × 8 + kind, ascending) after which a NaN is made canonical. */
  readonly canonical: readonly number[];
}

/** A stack entry or a local: nothing is known of its bits; it is no NaN; or offset × 8 + kind of what made it. */
const OPAQUE = 0;
const NO_NAN = -1;
/** Of a local: what all its assignments have in common. */
const MIXED = 7;
/** Blocks inside one another; compilers stay below a few hundred. */
const BLOCKS_MAX = 65_536;

interface Block {
  readonly base: number;
  readonly parameters: number;
  readonly results: number;
  /** Values a branch to it carries. */
  readonly carries: number;
}

export function analyseBody(body: ModuleReader, context: BodyContext): BodyFacts {
  const first = new Analysis(body, context, new Uint8Array(context.locals));
  first.run(body.offset);
  const facts = { calls: first.calls, slots: context.locals + first.height };
  if (!first.arithmetic) return { ...facts, canonical: [] };
  const second = new Analysis(body, context, first.assigned);
  second.run(body.offset);
  return { ...facts, canonical: [...second.seen].sort((a, b) => a - b) };
}

class Analysis {
  readonly #reader: InstructionReader;
  readonly #bytes: Uint8Array;
  readonly #end: number;
  readonly #context: BodyContext;
  readonly #kinds: Uint8Array;
  readonly #stack: number[] = [];
  readonly #blocks: Block[] = [];
  /** Where the operands of the innermost block begin. */
  #base: number = 0;
  readonly assigned: Uint8Array;
  readonly seen: Set<number> = new Set();
  height: number = 0;
  calls: boolean = false;
  arithmetic: boolean = false;

  /** `kinds`: what every assignment of a local has been found to be, all 0 in the first pass. */
  constructor(body: ModuleReader, context: BodyContext, kinds: Uint8Array) {
    this.#reader = new InstructionReader(body.copy(), context.spaces);
    this.#bytes = body.bytes;
    this.#end = body.end;
    this.#context = context;
    this.#kinds = kinds;
    this.assigned = new Uint8Array(context.locals);
    this.assigned.fill(MIXED, 0, context.signatures.parameters[context.typeIndex]);
    const results = context.signatures.results[context.typeIndex] ?? 0;
    this.#blocks.push({ base: 0, parameters: 0, results, carries: results });
  }

  run(from: number): void {
    let start = from;
    while (this.#blocks.length > 0) {
      this.#reader.next();
      this.#step(start);
      start = this.#reader.offset;
      if (this.#stack.length > this.height) this.height = this.#stack.length;
    }
    if (start !== this.#end) throw invalidModule(start, 'code behind the end of a function');
  }

  #step(start: number): void {
    const { opcode } = this.#reader;
    if (opcode < 0x14 && this.#control(start)) return;
    if (opcode >= OP.localGet && opcode <= OP.localTee) {
      this.#local(start);
      return;
    }
    for (let count = takesOf(opcode); count > 0; count--) {
      const value = this.#pop();
      if (value > 0 && !ignoresNan(opcode, value % 8)) this.seen.add(value);
    }
    if (leavesOf(opcode) === 0) return;
    const kind = nanMadeBy(opcode);
    if (kind !== 0) this.arithmetic = true;
    this.#stack.push(kind === 0 ? this.#constant(start) : this.#reader.offset * 8 + kind);
  }

  /** An instruction that is no arithmetic: is what it leaves known to be no NaN? */
  #constant(start: number): number {
    const { opcode } = this.#reader;
    if (isNeverNan(opcode)) return NO_NAN;
    if (opcode < OP.f32Const) return OPAQUE;
    if (opcode !== OP.f32Const && opcode !== OP.f64Const && opcode !== OP.v128Const) return OPAQUE;
    const { length } = this.#bytes;
    const at = this.#reader.offset - (opcode === OP.f32Const ? 4 : opcode === OP.f64Const ? 8 : 16);
    if (at < start || at + 4 > length) return OPAQUE;
    const view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset + at, this.#reader.offset - at);
    for (let lane = 0; lane + 4 <= view.byteLength && opcode !== OP.f64Const; lane += 4) {
      if (Number.isNaN(view.getFloat32(lane, true))) return OPAQUE;
    }
    for (let lane = 0; lane + 8 <= view.byteLength; lane += 8) {
      if (Number.isNaN(view.getFloat64(lane, true))) return OPAQUE;
    }
    return NO_NAN;
  }

  #local(start: number): void {
    const { opcode, index } = this.#reader;
    if (index >= this.#context.locals) throw invalidModule(start, `local ${index} of ${this.#context.locals}`);
    const kind = this.#kinds[index] ?? 0;
    if (opcode === OP.localGet) {
      this.#stack.push(kind > 0 && kind < MIXED ? this.#reader.offset * 8 + kind : OPAQUE);
      return;
    }
    const value = this.#pop();
    if (value !== NO_NAN) {
      const assigned = value === OPAQUE ? MIXED : value % 8;
      const before = this.assigned[index];
      this.assigned[index] = before === 0 || before === assigned ? assigned : MIXED;
    }
    if (value > 0 && value % 8 !== kind) this.seen.add(value);
    if (opcode === OP.localTee) this.#stack.push(value);
  }

  /** False for the few of these opcodes that neither branch nor call. */
  #control(start: number): boolean {
    const { opcode, index } = this.#reader;
    const { signatures } = this.#context;
    switch (opcode) {
      case OP.block:
      case OP.loop:
      case OP.if:
        if (opcode === OP.if) this.#show(1);
        this.#open(start, opcode, this.#reader.blockType);
        return true;
      case OP.else:
        this.#else();
        return true;
      case OP.end:
        this.#close();
        return true;
      case OP.brIf:
      case OP.brTable:
        this.#show(1);
        this.#branch(start);
        return true;
      case OP.br:
        this.#branch(start);
        return true;
      case OP.return:
      case OP.unreachable:
        this.#leave();
        return true;
      case OP.call:
      case OP.returnCall:
        this.#call(signatures.ofFunction[index] ?? 0, 0);
        return true;
      case OP.callIndirect:
      case OP.returnCallIndirect:
        this.#call(index, 1);
        return true;
      default:
        return false;
    }
  }

  #pop(): number {
    const base = this.#base;
    // Behind an unconditional branch, and in ill-typed code, there may be fewer values than are taken.
    return this.#stack.length > base ? (this.#stack.pop() ?? OPAQUE) : OPAQUE;
  }

  /** Takes values to where their bits may be looked at. */
  #show(count: number): void {
    for (let left = count; left > 0; left--) {
      const value = this.#pop();
      if (value > 0) this.seen.add(value);
    }
  }

  #push(count: number): void {
    for (let left = count; left > 0; left--) this.#stack.push(OPAQUE);
  }

  #open(start: number, opcode: number, type: BlockType): void {
    if (this.#blocks.length > BLOCKS_MAX) throw invalidModule(start, `blocks deeper than ${BLOCKS_MAX}`);
    const { parameters, results } = this.#context.signatures;
    const [taken, left] =
      'typeIndex' in type ? [parameters[type.typeIndex] ?? 0, results[type.typeIndex] ?? 0] : [0, type.results];
    this.#show(taken);
    const carries = opcode === OP.loop ? taken : left;
    this.#base = this.#stack.length;
    this.#blocks.push({ base: this.#base, parameters: taken, results: left, carries });
    this.#push(taken);
  }

  /** Everything of the open block is shown: these are its results. */
  #leave(): void {
    this.#show(this.#stack.length - this.#base);
  }

  #else(): void {
    this.#leave();
    this.#push(this.#blocks.at(-1)?.parameters ?? 0);
  }

  #close(): void {
    this.#leave();
    const block = this.#blocks.pop();
    this.#base = this.#blocks.at(-1)?.base ?? 0;
    this.#push(block?.results ?? 0);
  }

  #branch(start: number): void {
    const { opcode, index, labelMax } = this.#reader;
    if (labelMax >= this.#blocks.length) throw invalidModule(start, `label ${labelMax} of ${this.#blocks.length}`);
    if (opcode !== OP.brIf) {
      this.#leave();
      return;
    }
    const { carries = 0 } = this.#blocks[this.#blocks.length - 1 - index] ?? {};
    this.#show(carries);
    this.#push(carries);
  }

  #call(typeIndex: number, more: number): void {
    const { parameters, results } = this.#context.signatures;
    this.calls = true;
    this.#show((parameters[typeIndex] ?? 0) + more);
    if (this.#reader.opcode === OP.call || this.#reader.opcode === OP.callIndirect) {
      this.#push(results[typeIndex] ?? 0);
    } else {
      this.#leave();
    }
  }
}
