/**
 * The meter: rewrites a module so that it counts its own instructions, cannot exceed its memory and its stack, and
 * shows the same NaNs everywhere.
 *
 * - Fuel is an exported mutable i64 global. Every function entry and every loop header subtracts the number of
 *   instructions of its region (the code up to the next inner loop, and after it) and traps below zero, so no path
 *   runs for ever without paying. Instructions that move n bytes pay n / 8 on top, those that move n table entries 8 n,
 *   and growing the memory by a page as much as moving it, each through an added function.
 *   The count depends on the module and its inputs only, never on the engine, its compiler tiers or the machine.
 * - Memory: `memory.grow` goes through an added function that knows the limit of the run from a global, and counts what it
 *   refuses in another: only so can a trap for want of memory be told from any other. Tables get a maximum.
 * - Stack: every function that calls takes the slots of its frame (locals and operands, and a few more) from a global,
 *   traps below zero, and puts them back when it returns. Native frames differ by compiler and machine; with a native
 *   stack several times as large (guest.ts), recursion ends at this count, at the same depth everywhere.
 * - NaNs that arithmetic makes are replaced by the canonical one where their bits can be seen (function-body.ts).
 * - Whatever the meter does not understand is refused (instruction.ts). What it adds lies behind the end of each index
 *   space, and code or an export that names such an index is refused, so a guest cannot refuel. (A table could name the
 *   added functions; all they do is charge, or grow the memory within its limit.)
 *
 * Pure; bounded by the size of the module. `METER_VERSION` changes whenever the same module would be charged otherwise:
 * fuel figures are comparable within one version only.
 */
import { ADDED_FUNCTIONS, ADDED_GLOBALS, AddedCode, BodyWriter, padded, readLocals } from './body-writer.ts';
import { analyseBody, type Signatures } from './function-body.ts';
import { type IndexSpaces, readValueType } from './instruction.ts';
import { invalidModule, ModuleReader, ModuleWriter } from './module-bytes.ts';

export const METER_VERSION = 2;
/** Stack slots of a guest. A slot is a local or an operand. */
export const STACK_SLOTS: number = 1 << 20;
/** Largest module that is read, in bytes. */
export const MODULE_BYTES_MAX: number = 128 * 1024 * 1024;
export const PAGE_BYTES = 65_536;
const WASI_MODULE = 'wasi_snapshot_preview1';
const PAGES_MAX = 65_536;
/** Entries of all tables of a module together, now and after growth. */
export const TABLE_ENTRIES_MAX = 1_000_000;
const TABLES_MAX = 100;
/** Locals of all functions together: what validating them costs does not show in the size of the module. */
const LOCALS_TOTAL_MAX = 20_000_000;
const PARAMETERS_MAX = 1000;

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
  readonly signatures: Signatures;
  /** Encoded results of the types that have several, by index of the type. */
  readonly manyResults: ReadonlyMap<number, Uint8Array>;
  /** The one result of each type, 0 where there are none or several. */
  readonly oneResult: Uint8Array;
  readonly spaces: IndexSpaces;
  readonly functionsImported: number;
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

/** Pages a metered module starts with. */
export function initialPages(metered: Uint8Array): number {
  const reader = new ModuleReader(metered, 8);
  while (!reader.done) {
    const id = reader.byte();
    const section = reader.part(reader.u32());
    if (id !== SECTION.memory) continue;
    section.skip(2); // one memory, limits with a maximum
    return section.u32();
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
    case SECTION.type: // (i32) -> i32, for the added functions; then the types of blocks that stand for whole bodies
      append(1 + outline.manyResults.size, () => {
        writer.put(0x60, 1, 0x7f, 1, 0x7f);
        for (const results of outline.manyResults.values()) {
          writer.put(0x60, 0);
          writer.bytes(results);
        }
      });
      return;
    case SECTION.function:
      append(ADDED_FUNCTIONS, () => {
        for (let count = 0; count < ADDED_FUNCTIONS; count++) writer.u32(outline.spaces.types);
      });
      return;
    case SECTION.table:
      writeTables(writer, reader);
      return;
    case SECTION.memory:
      writer.put(1, 0x01);
      writer.u32(outline.memory.pages);
      writer.u32(outline.memory.pagesMax);
      return;
    case SECTION.global: // in the order of ADDED_GLOBALS; empty tank until the runtime fills it before `_start`
      append(ADDED_GLOBALS.length, () => {
        writer.put(0x7e, 0x01, 0x42, 0x00, 0x0b, 0x7f, 0x01, 0x41, 0x00, 0x0b);
        for (const value of [STACK_SLOTS, PAGES_MAX]) {
          writer.put(0x7f, 0x01, 0x41);
          writer.fill(writer.hole(), value);
          writer.put(0x0b);
        }
      });
      return;
    case SECTION.export:
      append(ADDED_GLOBALS.length, () => {
        for (const [index, name] of ADDED_GLOBALS.entries()) {
          writer.name(name);
          writer.put(0x03);
          writer.u32(outline.spaces.globals + index);
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
  const imported = readImports(open(SECTION.import), types.count);
  const ofFunction = readFunctions(need(SECTION.function, 'functions'), imported, types.count);
  const memory = readMemory(need(SECTION.memory, 'memory'));
  const globals = sections.has(SECTION.global) ? open(SECTION.global).count('globals') : 0;
  need(SECTION.code, 'code');
  const spaces = { types: types.count, functions: ofFunction.length, globals };
  readExports(need(SECTION.export, 'exports'), spaces);
  const { oneResult, manyResults, parameters, results } = types;
  const signatures = { parameters, results, ofFunction };
  return { sections, names, signatures, oneResult, manyResults, spaces, functionsImported: imported.length, memory };
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

interface Types {
  readonly count: number;
  readonly parameters: Uint16Array;
  readonly results: Uint16Array;
  readonly oneResult: Uint8Array;
  readonly manyResults: Map<number, Uint8Array>;
}

function readTypes(reader: ModuleReader): Types {
  const count = reader.count('types');
  const parameters = new Uint16Array(count);
  const results = new Uint16Array(count);
  const oneResult = new Uint8Array(count);
  const manyResults = new Map<number, Uint8Array>();
  const values = (what: string): number => {
    const start = reader.offset;
    const length = reader.count(what);
    if (length > PARAMETERS_MAX) throw invalidModule(start, `${length} ${what} of a function`);
    return length;
  };
  for (let index = 0; index < count; index++) {
    const start = reader.offset;
    if (reader.byte() !== 0x60) throw invalidModule(start, 'a type that is not a function');
    const taken = values('parameters');
    parameters[index] = taken;
    for (let value = 0; value < taken; value++) readValueType(reader);
    const from = reader.offset;
    const left = values('results');
    results[index] = left;
    for (let value = 0; value < left; value++) oneResult[index] = readValueType(reader);
    if (left > 1) manyResults.set(index, reader.bytes.slice(from, reader.offset));
  }
  return { count, parameters, results, oneResult, manyResults };
}

function readTypeIndex(reader: ModuleReader, types: number): number {
  const start = reader.offset;
  const type = reader.u32();
  if (type >= types) throw invalidModule(start, `type ${type} of ${types}`);
  return type;
}

/** Only functions of WASI preview 1 may be imported; returns their types. */
function readImports(reader: ModuleReader, types: number): readonly number[] {
  if (reader.done) return [];
  const count = reader.count('imports');
  const imported: number[] = [];
  for (let index = 0; index < count; index++) {
    const start = reader.offset;
    const module = reader.name();
    const name = reader.name();
    if (module !== WASI_MODULE)
      throw invalidModule(start, `import "${module}"."${name}", only WASI preview 1 is given,`);
    if (reader.byte() !== 0x00) throw invalidModule(start, `import "${module}"."${name}" that is not a function`);
    imported.push(readTypeIndex(reader, types));
  }
  return imported;
}

function readFunctions(reader: ModuleReader, imported: readonly number[], types: number): Uint32Array {
  const defined = reader.count('functions');
  const ofFunction = new Uint32Array(imported.length + defined);
  ofFunction.set(imported);
  for (let index = imported.length; index < ofFunction.length; index++)
    ofFunction[index] = readTypeIndex(reader, types);
  return ofFunction;
}

/** Gives every table a maximum, so that all together keep within `TABLE_ENTRIES_MAX`. */
function writeTables(writer: ModuleWriter, reader: ModuleReader): void {
  const from = reader.offset;
  const count = reader.count('tables');
  if (count > TABLES_MAX) throw invalidModule(from, `${count} tables`);
  writer.u32(count);
  for (let index = 0; index < count; index++) {
    const start = reader.offset;
    const type = readValueType(reader);
    const flags = reader.byte();
    if (flags > 1) throw invalidModule(start, 'a table of an unknown kind');
    const entries = reader.u32();
    const entriesMax = Math.min(flags === 1 ? reader.u32() : TABLE_ENTRIES_MAX, Math.floor(TABLE_ENTRIES_MAX / count));
    if (entries > entriesMax) throw invalidModule(start, `a table of ${entries} entries, at most ${entriesMax}`);
    writer.put(type, 0x01);
    writer.u32(entries);
    writer.u32(entriesMax);
  }
  if (!reader.done) throw invalidModule(reader.offset, 'bytes behind the tables');
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
    if (ADDED_GLOBALS.includes(name)) {
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
  const { spaces, signatures, functionsImported } = outline;
  const defined = spaces.functions - functionsImported;
  if (count !== defined) throw invalidModule(start, `${count} bodies for ${defined} functions`);
  writer.u32(count + ADDED_FUNCTIONS);
  const added = new AddedCode(writer, spaces);
  const blocks = bodyBlocks(outline);
  let locals = 0;
  for (let index = 0; index < count; index++) {
    const body = reader.part(reader.u32());
    const at = body.offset;
    const typeIndex = signatures.ofFunction[functionsImported + index] ?? 0;
    const declared = readLocals(body, signatures.parameters[typeIndex] ?? 0);
    locals += declared.total;
    if (locals > LOCALS_TOTAL_MAX) throw invalidModule(at, `more than ${LOCALS_TOTAL_MAX} locals in all functions`);
    const size = writer.hole();
    const from = writer.length;
    const facts = analyseBody(body, { spaces, signatures, typeIndex, locals: declared.total });
    new BodyWriter(writer, added, { body, spaces, facts, declared, block: blocks(typeIndex) }).write();
    writer.fill(size, writer.length - from);
  }
  if (!reader.done) throw invalidModule(reader.offset, 'bytes behind the last function');
  added.writeFunctions();
}

/** For each type of a function, the type of a block that stands for its whole body, encoded. */
function bodyBlocks({ spaces, oneResult, manyResults }: Outline): (typeIndex: number) => readonly number[] {
  const many = new Map([...manyResults.keys()].map((typeIndex, at) => [typeIndex, spaces.types + 1 + at]));
  return (typeIndex) => {
    const index = many.get(typeIndex);
    // A positive number of 33 bits, signed: the fifth byte keeps the sign clear.
    if (index !== undefined) return padded(index);
    return [oneResult[typeIndex] || 0x40];
  };
}
