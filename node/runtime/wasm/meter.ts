/**
 * The meter: rewrites a module so that it counts its own instructions and cannot exceed its memory.
 *
 * - Fuel is an exported mutable i64 global. Every function entry and every loop header subtracts the number of
 *   instructions of its region (the code up to the next inner loop, and after it) and traps below zero, so no path
 *   runs for ever without paying. Instructions that move n bytes or entries pay n / 8 on top, through an added function.
 *   The count depends on the module and its inputs only, never on the engine, its compiler tiers or the machine.
 * - The memory section gets a maximum in a fixed-width number, which `capMemory` sets per run: one rewritten module
 *   serves every memory size. `memory.grow` goes through a second added function, which counts refusals in a second
 *   global: only so can a trap for want of memory be told from any other.
 * - Whatever the meter does not understand is refused (instruction.ts). What it adds lies behind the end of each index
 *   space, and code or an export that names such an index is refused, so a guest cannot refuel. (A table could name the
 *   added functions; all they do is charge, or grow the memory within its maximum.)
 *
 * Pure; bounded by the size of the module. `METER_VERSION` changes whenever the same module would be charged otherwise:
 * fuel figures are comparable within one version only.
 */
import { type Effect, type IndexSpaces, readInstruction, readValueType } from './instruction.ts';
import { fillPadded, invalidModule, ModuleReader, ModuleWriter } from './module-bytes.ts';

export const METER_VERSION = 1;
/** Name of the exported fuel global; a module that exports this name itself is refused. */
export const FUEL_EXPORT = 'molt:fuel';
/** Name of the exported i32 global that counts refused `memory.grow`s. */
export const REFUSED_EXPORT = 'molt:refused-grows';
/** Largest module that is read, in bytes. */
export const MODULE_BYTES_MAX: number = 128 * 1024 * 1024;
export const PAGE_BYTES = 65_536;
const WASI_MODULE = 'wasi_snapshot_preview1';
const PAGES_MAX = 65_536;

const SECTION = {
  custom: 0,
  type: 1,
  import: 2,
  function: 3,
  table: 4,
  memory: 5,
  global: 6,
  export: 7,
  start: 8,
  element: 9,
  code: 10,
  data: 11,
  dataCount: 12,
} as const;
/** Order in which sections must stand: the data count (12) stands before the code. */
const ORDER: readonly number[] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 10, 11];

interface Section {
  readonly id: number;
  readonly start: number;
  readonly end: number;
}

/** What the sections before the code say, as far as the meter needs it. */
interface Outline {
  readonly sections: ReadonlyMap<number, Section>;
  readonly names: Section | undefined;
  readonly types: number;
  readonly functionsImported: number;
  readonly functionsDefined: number;
  readonly globals: number;
  readonly memory: MemoryLimits;
}

interface MemoryLimits {
  readonly pages: number;
  readonly pagesMax: number;
}

/** Rewrites a module. Throws `job/module-invalid` naming what is wrong and at which byte. */
export function meterModule(source: Uint8Array): Uint8Array {
  if (source.length > MODULE_BYTES_MAX) throw invalidModule(source.length, `more than ${MODULE_BYTES_MAX} bytes`);
  const outline = readOutline(source);
  const writer = new ModuleWriter(source.length + (source.length >> 2) + 1024);
  writer.put(0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00);
  for (const id of ORDER) {
    const section = outline.sections.get(id);
    if (section === undefined && id !== SECTION.global) continue;
    writeSection(writer, id, () => writeContents(writer, source, outline, id));
  }
  if (outline.names !== undefined) {
    const { start, end } = outline.names;
    writeSection(writer, SECTION.custom, () => writer.bytes(source, start, end));
  }
  return writer.finish();
}

/**
 * Lowers the memory maximum of a module that `meterModule` wrote to `maximumPages`, in place. Returns the pages the module starts with;
 * when these exceed `maximumPages` the module cannot run within its memory and nothing is changed.
 */
export function capMemory(metered: Uint8Array, maximumPages: number): number {
  const reader = new ModuleReader(metered, 8);
  while (!reader.done) {
    const id = reader.byte();
    const section = reader.part(reader.u32());
    if (id !== SECTION.memory) continue;
    section.skip(2); // one memory, limits with a maximum
    const initialPages = section.u32();
    const place = section.offset;
    if (initialPages <= maximumPages) fillPadded(metered, place, Math.min(maximumPages, section.u32()));
    return initialPages;
  }
  throw invalidModule(metered.length, 'no memory');
}

function writeSection(writer: ModuleWriter, id: number, contents: () => void): void {
  writer.put(id);
  const size = writer.hole();
  const start = writer.length;
  contents();
  writer.fill(size, writer.length - start);
}

function writeContents(writer: ModuleWriter, source: Uint8Array, outline: Outline, id: number): void {
  const section = outline.sections.get(id);
  const reader = new ModuleReader(source, section?.start ?? 0, section?.end ?? 0);
  /** Copies a vector and appends `count` more elements. */
  const append = (count: number, elements: () => void): void => {
    writer.u32(section === undefined ? count : reader.u32() + count);
    writer.bytes(source, reader.offset, reader.end);
    elements();
  };
  switch (id) {
    case SECTION.type: // (i32) -> i32, for both added functions
      append(1, () => writer.put(0x60, 1, 0x7f, 1, 0x7f));
      return;
    case SECTION.function:
      append(2, () => {
        writer.u32(outline.types);
        writer.u32(outline.types);
      });
      return;
    case SECTION.memory:
      writer.put(1, 0x01);
      writer.u32(outline.memory.pages);
      writer.fill(writer.hole(), outline.memory.pagesMax);
      return;
    case SECTION.global: // fuel: mutable i64, empty until the runtime fills it before `_start`; refusals: mutable i32
      append(2, () => writer.put(0x7e, 0x01, 0x42, 0x00, 0x0b, 0x7f, 0x01, 0x41, 0x00, 0x0b));
      return;
    case SECTION.export:
      append(2, () => {
        for (const [index, name] of [FUEL_EXPORT, REFUSED_EXPORT].entries()) {
          writer.name(name);
          writer.put(0x03);
          writer.u32(outline.globals + index);
        }
      });
      return;
    case SECTION.code:
      writeCode(writer, reader, outline);
      return;
    default:
      writer.bytes(source, reader.offset, reader.end);
  }
}

function readOutline(source: Uint8Array): Outline {
  const { sections, names } = readSections(source);
  const open = (id: number): ModuleReader => {
    const section = sections.get(id);
    return new ModuleReader(source, section?.start ?? 0, section?.end ?? 0);
  };
  const need = (id: number, what: string): ModuleReader => {
    if (!sections.has(id)) throw invalidModule(source.length, `no ${what}`);
    return open(id);
  };
  if (sections.has(SECTION.start)) {
    throw invalidModule(sections.get(SECTION.start)?.start ?? 0, 'a start section (export _start instead)');
  }
  const types = readTypes(need(SECTION.type, 'types'));
  const functionsImported = readImports(open(SECTION.import));
  const functionsDefined = need(SECTION.function, 'functions').u32();
  const memory = readMemory(need(SECTION.memory, 'memory'));
  const globals = sections.has(SECTION.global) ? open(SECTION.global).count('globals') : 0;
  need(SECTION.code, 'code');
  readExports(need(SECTION.export, 'exports'), { functions: functionsImported + functionsDefined, globals });
  return { sections, names, types, functionsImported, functionsDefined, globals, memory };
}

function readSections(source: Uint8Array): { sections: Map<number, Section>; names: Section | undefined } {
  const reader = new ModuleReader(source);
  const magic = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];
  if (magic.some((value, index) => source[index] !== value)) {
    throw invalidModule(0, 'not a WebAssembly module of version 1');
  }
  reader.skip(magic.length);
  const sections = new Map<number, Section>();
  let names: Section | undefined;
  let position = -1;
  while (!reader.done) {
    const at = reader.offset;
    const id = reader.byte();
    const body = reader.part(reader.u32());
    const section = { id, start: body.offset, end: body.end };
    if (id === SECTION.custom) {
      // Function names make traps readable; every other custom section (debug information) is left out.
      if (body.name() === 'name') names = section;
      continue;
    }
    if (id === 13) throw invalidModule(at, 'exception handling, which is refused,');
    const next = ORDER.indexOf(id);
    if (next === -1) throw invalidModule(at, `unknown section ${id}`);
    if (next <= position) throw invalidModule(at, `section ${id} out of order`);
    position = next;
    sections.set(id, section);
  }
  return { sections, names };
}

function readTypes(reader: ModuleReader): number {
  const count = reader.count('types');
  for (let index = 0; index < count; index++) {
    const start = reader.offset;
    if (reader.byte() !== 0x60) throw invalidModule(start, 'a type that is not a function');
    for (let values = reader.count('parameters'); values > 0; values--) readValueType(reader);
    for (let values = reader.count('results'); values > 0; values--) readValueType(reader);
  }
  return count;
}

/** Only functions of WASI preview 1 may be imported; returns how many are. */
function readImports(reader: ModuleReader): number {
  if (reader.done) return 0;
  const count = reader.count('imports');
  for (let index = 0; index < count; index++) {
    const start = reader.offset;
    const module = reader.name();
    const name = reader.name();
    if (module !== WASI_MODULE)
      throw invalidModule(start, `import "${module}"."${name}", only WASI preview 1 is given,`);
    if (reader.byte() !== 0x00) throw invalidModule(start, `import "${module}"."${name}" that is not a function`);
    reader.u32();
  }
  return count;
}

/** The limits of the module's own single 32-bit memory. */
function readMemory(reader: ModuleReader): MemoryLimits {
  const start = reader.offset;
  if (reader.u32() !== 1) throw invalidModule(start, 'more or fewer than one memory');
  const flags = reader.byte();
  if ((flags & 0x02) !== 0) throw invalidModule(start, 'a shared memory: threads are refused,');
  if (flags > 1) throw invalidModule(start, 'a 64-bit memory or one of odd pages');
  const pages = reader.u32();
  const pagesMax = flags === 1 ? reader.u32() : PAGES_MAX;
  if (pages > pagesMax || pagesMax > PAGES_MAX) {
    throw invalidModule(start, `a memory of ${pages} pages, at most ${pagesMax}`);
  }
  if (!reader.done) throw invalidModule(reader.offset, 'bytes behind the memory');
  return { pages, pagesMax };
}

function readExports(reader: ModuleReader, spaces: IndexSpaces): void {
  const found = new Set<string>();
  for (let count = reader.count('exports'); count > 0; count--) {
    const start = reader.offset;
    const name = reader.name();
    if (name === FUEL_EXPORT || name === REFUSED_EXPORT) {
      throw invalidModule(start, `an export named ${name}, which is reserved,`);
    }
    const kind = reader.byte();
    const index = reader.u32();
    if (kind === 0x00 && index >= spaces.functions)
      throw invalidModule(start, `function ${index} of ${spaces.functions}`);
    if (kind === 0x03 && index >= spaces.globals) throw invalidModule(start, `global ${index} of ${spaces.globals}`);
    if ((kind === 0x00 && name === '_start') || (kind === 0x02 && name === 'memory')) found.add(name);
  }
  for (const name of ['_start', 'memory']) {
    if (!found.has(name)) throw invalidModule(reader.end, `no export "${name}", so this is not a WASI command,`);
  }
}

function writeCode(writer: ModuleWriter, reader: ModuleReader, outline: Outline): void {
  const start = reader.offset;
  const count = reader.count('function bodies');
  if (count !== outline.functionsDefined) {
    throw invalidModule(start, `${count} bodies for ${outline.functionsDefined} functions`);
  }
  const functions = outline.functionsImported + count;
  const spaces: IndexSpaces = { functions, globals: outline.globals };
  writer.u32(count + 2);
  const added = new AddedCode(writer, outline.globals, functions);
  for (let index = 0; index < count; index++) {
    const body = reader.part(reader.u32());
    const size = writer.hole();
    const from = writer.length;
    writeBody(writer, body, spaces, added);
    writer.fill(size, writer.length - from);
  }
  if (!reader.done) throw invalidModule(reader.offset, 'bytes behind the last function');
  added.writeFunctions();
}

/** `opcode` followed by an index. */
function encoded(opcode: number, index: number): readonly number[] {
  const scratch = new ModuleWriter(8);
  scratch.put(opcode);
  scratch.u32(index);
  return [...scratch.finish()];
}

/** The code that pays, and the code that counts refused growth. */
class AddedCode {
  readonly #writer: ModuleWriter;
  readonly #getFuel: readonly number[];
  readonly #setFuel: readonly number[];
  readonly #refusals: number;
  readonly #callCharge: readonly number[];
  readonly #callGrow: readonly number[];

  /** The added globals and functions take the two indices from `fuelGlobal` and `chargeFunction` on. */
  constructor(writer: ModuleWriter, fuelGlobal: number, chargeFunction: number) {
    this.#writer = writer;
    this.#getFuel = encoded(0x23, fuelGlobal);
    this.#setFuel = encoded(0x24, fuelGlobal);
    this.#refusals = fuelGlobal + 1;
    this.#callCharge = encoded(0x10, chargeFunction);
    this.#callGrow = encoded(0x10, chargeFunction + 1);
  }

  /** fuel -= <constant, filled in later>; if fuel < 0: unreachable. Returns the place of the constant. */
  constant(): number {
    this.#writer.put(...this.#getFuel, 0x42);
    const place = this.#writer.hole();
    this.#writer.put(0x7d, ...this.#setFuel);
    this.#trapBelowZero();
    return place;
  }

  /** Charges for the length on top of the stack and leaves it there. */
  length(): void {
    this.#writer.put(...this.#callCharge);
  }

  /** Stands for `memory.grow`. */
  grow(): void {
    this.#writer.put(...this.#callGrow);
  }

  writeFunctions(): void {
    this.#function(() => {
      // charge(n: i32): fuel -= n / 8; if fuel < 0: unreachable; n
      this.#writer.put(0x00, ...this.#getFuel, 0x20, 0x00, 0xad, 0x42, 0x03, 0x88, 0x7d, ...this.#setFuel);
      this.#trapBelowZero();
      this.#writer.put(0x20, 0x00, 0x0b);
    });
    this.#function(() => {
      // grow(n: i32): n = memory.grow(n); refusals += (n == -1); n
      const [get, set] = [encoded(0x23, this.#refusals), encoded(0x24, this.#refusals)];
      this.#writer.put(
        0x00,
        0x20,
        0x00,
        0x40,
        0x00,
        0x22,
        0x00,
        0x41,
        0x7f,
        0x46,
        ...get,
        0x6a,
        ...set,
        0x20,
        0x00,
        0x0b,
      );
    });
  }

  #function(body: () => void): void {
    const size = this.#writer.hole();
    const start = this.#writer.length;
    body();
    this.#writer.fill(size, this.#writer.length - start);
  }

  #trapBelowZero(): void {
    this.#writer.put(...this.#getFuel, 0x42, 0x00, 0x53, 0x04, 0x40, 0x00, 0x0b);
  }
}

function writeBody(writer: ModuleWriter, body: ModuleReader, spaces: IndexSpaces, added: AddedCode): void {
  let copied = body.offset;
  const flush = (end: number): void => {
    writer.bytes(body.bytes, copied, end);
    copied = end;
  };
  // Zeroing locals is work too: each one counts as an instruction.
  let cost = readLocals(body);
  flush(body.offset);
  let hole = added.constant();
  /** One entry per open block: undefined for block and if, the enclosing region for a loop. */
  const blocks: (undefined | { readonly hole: number; readonly cost: number })[] = [];
  for (;;) {
    const start = body.offset;
    const effect: Effect = readInstruction(body, spaces);
    cost++;
    if (effect === 'open') blocks.push(undefined);
    else if (effect === 'bulk') {
      flush(start);
      added.length();
    } else if (effect === 'grow') {
      flush(start);
      copied = body.offset;
      added.grow();
    } else if (effect === 'loop') {
      blocks.push({ hole, cost });
      flush(body.offset);
      hole = added.constant();
      cost = 1;
    } else if (effect === 'end') {
      if (blocks.length === 0) break;
      const enclosing = blocks.pop();
      if (enclosing === undefined) continue;
      writer.fill(hole, cost);
      ({ hole, cost } = enclosing);
    }
  }
  writer.fill(hole, cost);
  flush(body.offset);
  if (!body.done) throw invalidModule(body.offset, 'code behind the end of a function');
}

function readLocals(body: ModuleReader): number {
  let locals = 0;
  for (let groups = body.count('local groups'); groups > 0; groups--) {
    const start = body.offset;
    locals += body.u32();
    if (locals > 50_000) throw invalidModule(start, 'more than 50,000 locals');
    readValueType(body);
  }
  return locals;
}
