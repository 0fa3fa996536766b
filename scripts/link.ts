/**
 * Links one relocatable BPF object into the shared object that Solana loads.
 *
 * No stock linker makes BPF shared objects, and the loader (anza-xyz/sbpf, src/elf.rs) wants little: constants straight
 * after the code with addresses equal to file offsets, local calls resolved, system calls left as dynamic relocations
 * by name. SBPF version 0, the format that every cluster loads. The output depends on the input bytes only.
 */
import { assert } from '../protocol/errors.ts';

interface Section {
  readonly name: string;
  readonly index: number;
  readonly type: number;
  readonly link: number;
  readonly info: number;
  readonly align: number;
  readonly bytes: Buffer;
}

interface ElfSymbol {
  readonly name: string;
  readonly section: number;
  readonly value: number;
}

interface Relocation {
  readonly offset: number;
  readonly type: number;
  readonly symbol: ElfSymbol;
}

const RODATA_BASE = 0x1_0000_0000n;
const R_BPF_64_64 = 1;
const R_BPF_64_ABS64 = 2;
const R_BPF_64_32 = 10;
const HEADER_SIZE = 64;
const PROGRAM_HEADER_SIZE = 56;
const SECTION_HEADER_SIZE = 64;
const SYMBOL_SIZE = 24;

function readSections(object: Buffer): Section[] {
  assert(object.readUInt32BE(0) === 0x7f454c46 && object.readUInt16LE(18) === 247, 'the object is not a BPF ELF');
  const start = Number(object.readBigUInt64LE(40));
  const count = object.readUInt16LE(60);
  const at = (index: number): number => start + index * SECTION_HEADER_SIZE;
  const body = (index: number): Buffer => {
    const offset = Number(object.readBigUInt64LE(at(index) + 24));
    return object.subarray(offset, offset + Number(object.readBigUInt64LE(at(index) + 32)));
  };
  const names = body(object.readUInt16LE(62));
  return Array.from({ length: count }, (_, index) => ({
    name: text(names, object.readUInt32LE(at(index))),
    index,
    type: object.readUInt32LE(at(index) + 4),
    link: object.readUInt32LE(at(index) + 40),
    info: object.readUInt32LE(at(index) + 44),
    align: Number(object.readBigUInt64LE(at(index) + 48)),
    bytes: body(index),
  }));
}

function text(table: Buffer, offset: number): string {
  return table.toString('latin1', offset, table.indexOf(0, offset));
}

function readSymbols(sections: readonly Section[]): ElfSymbol[] {
  const table = sections.find((section) => section.type === 2);
  const names = sections[table?.link ?? 0];
  assert(table && names, 'the object has no symbol table');
  return Array.from({ length: table.bytes.length / SYMBOL_SIZE }, (_, index) => {
    const at = index * SYMBOL_SIZE;
    return {
      name: text(names.bytes, table.bytes.readUInt32LE(at)),
      section: table.bytes.readUInt16LE(at + 6),
      value: Number(table.bytes.readBigUInt64LE(at + 8)),
    };
  });
}

function readRelocations(sections: readonly Section[], target: Section, symbols: readonly ElfSymbol[]): Relocation[] {
  const table = sections.find((section) => section.type === 9 && section.info === target.index);
  if (!table) return [];
  return Array.from({ length: table.bytes.length / 16 }, (_, index) => {
    const info = table.bytes.readBigUInt64LE(index * 16 + 8);
    const symbol = symbols[Number(info >> 32n)];
    assert(symbol, `relocation ${index} names no symbol`);
    return { offset: Number(table.bytes.readBigUInt64LE(index * 16)), type: Number(info & 0xffffffffn), symbol };
  });
}

/** Constants of all `.rodata…` sections one after another, and where each section starts. */
function mergeConstants(sections: readonly Section[]): { readonly bytes: Buffer; readonly start: Map<number, number> } {
  const start = new Map<number, number>();
  const parts: Buffer[] = [];
  let size = 0;
  for (const section of sections.filter(({ name }) => name.startsWith('.rodata'))) {
    const padding = -size & (Math.max(section.align, 1) - 1);
    parts.push(Buffer.alloc(padding), section.bytes);
    start.set(section.index, size + padding);
    size += padding + section.bytes.length;
  }
  parts.push(Buffer.alloc(-size & 7));
  return { bytes: Buffer.concat(parts), start };
}

/** Resolves local calls and addresses of constants in place; gives the calls that the loader must resolve by name. */
function relocate(
  code: Buffer,
  codeSection: Section,
  relocations: readonly Relocation[],
  constants: { readonly offset: number; readonly start: ReadonlyMap<number, number> },
): Relocation[] {
  const dynamic: Relocation[] = [];
  for (const relocation of relocations) {
    const { offset, type, symbol } = relocation;
    if (type === R_BPF_64_32 && symbol.section === 0) {
      code.writeInt32LE(-1, offset + 4);
      dynamic.push(relocation);
    } else if (type === R_BPF_64_32) {
      assert(symbol.section === codeSection.index, `call to ${symbol.name} outside the code`);
      // A section symbol carries the target in the immediate already, counted from the section's start less one.
      const inSection = symbol.name === '' ? (code.readInt32LE(offset + 4) + 1) * 8 : 0;
      code.writeInt32LE((symbol.value + inSection - offset) / 8 - 1, offset + 4);
    } else {
      const start = constants.start.get(symbol.section);
      assert(type === R_BPF_64_64 && start !== undefined, `relocation ${type} against ${symbol.name} is not supported`);
      const within = code.readUInt32LE(offset + 4);
      const address = RODATA_BASE + BigInt(constants.offset + start + symbol.value + within);
      code.writeUInt32LE(Number(address & 0xffffffffn), offset + 4);
      code.writeUInt32LE(Number(address >> 32n), offset + 12);
    }
  }
  return dynamic;
}

/** Writes the addresses that constants hold of other constants. */
function relocateConstants(
  sections: readonly Section[],
  symbols: readonly ElfSymbol[],
  constants: { readonly bytes: Buffer; readonly offset: number; readonly start: ReadonlyMap<number, number> },
): void {
  for (const section of sections) {
    const own = constants.start.get(section.index);
    if (own === undefined) continue;
    for (const { offset, type, symbol } of readRelocations(sections, section, symbols)) {
      const start = constants.start.get(symbol.section);
      assert(
        type === R_BPF_64_ABS64 && start !== undefined,
        `relocation ${type} against ${symbol.name} is not supported`,
      );
      const within = constants.bytes.readBigUInt64LE(own + offset);
      const address = RODATA_BASE + BigInt(constants.offset + start + symbol.value) + within;
      constants.bytes.writeBigUInt64LE(address, own + offset);
    }
  }
}

/** Collects strings and gives their offsets; the empty string is at 0. */
function stringTable(): { readonly add: (value: string) => number; readonly bytes: () => Buffer } {
  let content = '\0';
  return {
    add: (value) => {
      const known = content.indexOf(`\0${value}\0`);
      if (known >= 0) return known + 1;
      const offset = content.length;
      content += `${value}\0`;
      return offset;
    },
    bytes: () => Buffer.from(content.padEnd(Math.ceil(content.length / 8) * 8, '\0'), 'latin1'),
  };
}

function words(...values: readonly (number | bigint)[]): Buffer {
  const buffer = Buffer.alloc(values.length * 8);
  values.forEach((value, index) => buffer.writeBigUInt64LE(BigInt(value), index * 8));
  return buffer;
}

interface Placed {
  readonly name: string;
  readonly type: number;
  readonly flags: number;
  readonly bytes: Buffer;
  readonly link?: number;
  readonly info?: number;
  readonly entrySize?: number;
}

function sectionHeader(section: Placed, name: number, address: number, offset: number): Buffer {
  const header = Buffer.alloc(SECTION_HEADER_SIZE);
  header.writeUInt32LE(name, 0);
  header.writeUInt32LE(section.type, 4);
  words(section.flags, address, offset, section.bytes.length).copy(header, 8);
  header.writeUInt32LE(section.link ?? 0, 40);
  header.writeUInt32LE(section.info ?? 0, 44);
  words(section.type === 0 ? 0 : 8, section.entrySize ?? 0).copy(header, 48);
  return header;
}

function programHeader(type: number, flags: number, offset: number, size: number): Buffer {
  const header = Buffer.alloc(PROGRAM_HEADER_SIZE);
  header.writeUInt32LE(type, 0);
  header.writeUInt32LE(flags, 4);
  words(offset, offset, offset, size, size, 8).copy(header, 8);
  return header;
}

function fileHeader(entry: number, sectionsAt: number, sectionCount: number): Buffer {
  const header = Buffer.alloc(HEADER_SIZE);
  header.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  header.writeUInt16LE(3, 16);
  header.writeUInt16LE(247, 18);
  header.writeUInt32LE(1, 20);
  words(entry, HEADER_SIZE, sectionsAt).copy(header, 24);
  [HEADER_SIZE, PROGRAM_HEADER_SIZE, 3, SECTION_HEADER_SIZE, sectionCount, sectionCount - 1].forEach((value, index) =>
    header.writeUInt16LE(value, 52 + index * 2),
  );
  return header;
}

/** Symbols and relocations that the loader resolves: one symbol per system call, one relocation per call. */
function dynamicTables(
  calls: readonly Relocation[],
  codeOffset: number,
): { symbols: Buffer; strings: Buffer; relocations: Buffer } {
  const strings = stringTable();
  const names = [...new Set(calls.map((call) => call.symbol.name))];
  const symbols = Buffer.alloc((names.length + 1) * SYMBOL_SIZE);
  names.forEach((name, index) => {
    symbols.writeUInt32LE(strings.add(name), (index + 1) * SYMBOL_SIZE);
    symbols.writeUInt8(0x10, (index + 1) * SYMBOL_SIZE + 4);
  });
  const relocations = calls.map((call) =>
    words(codeOffset + call.offset, (BigInt(names.indexOf(call.symbol.name) + 1) << 32n) | BigInt(R_BPF_64_32)),
  );
  return { symbols, strings: strings.bytes(), relocations: Buffer.concat(relocations) };
}

/** The bytes of the shared object. Throws `AssertionError` for an object that uses what is not supported. */
export function link(object: Buffer): Buffer {
  const sections = readSections(object);
  for (const { name, bytes } of sections) {
    assert(!/^\.(data|bss)/.test(name) || bytes.length === 0, `${name}: a program has no writable globals`);
  }
  const codeSection = sections.find(({ name }) => name === '.text');
  assert(codeSection, 'the object has no code');
  const symbols = readSymbols(sections);
  const constants = mergeConstants(sections);
  const code = Buffer.from(codeSection.bytes);
  const codeOffset = HEADER_SIZE + 3 * PROGRAM_HEADER_SIZE;
  const relocations = readRelocations(sections, codeSection, symbols);
  const constantsOffset = codeOffset + code.length;
  const calls = relocate(code, codeSection, relocations, { offset: constantsOffset, start: constants.start });
  relocateConstants(sections, symbols, { ...constants, offset: constantsOffset });
  const entry = symbols.find(({ name }) => name === 'entrypoint');
  assert(entry, 'the object has no entrypoint');

  const tables = dynamicTables(calls, codeOffset);
  const dynamicOffset = codeOffset + code.length + constants.bytes.length;
  const symbolsOffset = dynamicOffset + 16 * 8;
  const stringsOffset = symbolsOffset + tables.symbols.length;
  const relocationsOffset = stringsOffset + tables.strings.length;
  const dynamic = [
    [17, relocationsOffset],
    [18, tables.relocations.length],
    [19, 16],
    [6, symbolsOffset],
    [11, SYMBOL_SIZE],
    [5, stringsOffset],
    [10, tables.strings.length],
    [0, 0],
  ];
  const names = stringTable();
  const placed: Placed[] = [
    { name: '.text', type: 1, flags: 6, bytes: code },
    { name: '.rodata', type: 1, flags: 2, bytes: constants.bytes },
    { name: '.dynamic', type: 6, flags: 2, bytes: words(...dynamic.flat()), link: 5, entrySize: 16 },
    { name: '.dynsym', type: 11, flags: 2, bytes: tables.symbols, link: 5, info: 1, entrySize: SYMBOL_SIZE },
    { name: '.dynstr', type: 3, flags: 2, bytes: tables.strings },
    { name: '.rel.dyn', type: 9, flags: 2, bytes: tables.relocations, link: 4, entrySize: 16 },
  ];
  for (const { name } of placed) names.add(name);
  names.add('.shstrtab');
  const all: Placed[] = [...placed, { name: '.shstrtab', type: 3, flags: 0, bytes: names.bytes() }];

  let offset = codeOffset;
  const headers: Buffer[] = [Buffer.alloc(SECTION_HEADER_SIZE)];
  for (const section of all) {
    headers.push(sectionHeader(section, names.add(section.name), section.flags === 0 ? 0 : offset, offset));
    offset += section.bytes.length;
  }
  return Buffer.concat([
    fileHeader(codeOffset + entry.value, offset, headers.length),
    programHeader(1, 5, codeOffset, code.length + constants.bytes.length),
    programHeader(1, 4, dynamicOffset, relocationsOffset + tables.relocations.length - dynamicOffset),
    programHeader(2, 4, dynamicOffset, 16 * 8),
    ...all.map(({ bytes }) => bytes),
    ...headers,
  ]);
}
