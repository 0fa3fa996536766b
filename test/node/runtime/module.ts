/**
 * A tiny WebAssembly assembler for tests: modules are written as the bytes of their sections.
 */

const PREAMBLE = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];

export function leb(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  do {
    bytes.push((rest % 128) | (rest >= 128 ? 0x80 : 0));
    rest = Math.floor(rest / 128);
  } while (rest > 0);
  return bytes;
}

/** Signed LEB128 of 32 bits. */
export function signed(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ;) {
    const low = rest & 0x7f;
    rest >>= 7;
    if ((rest === 0 && (low & 0x40) === 0) || (rest === -1 && (low & 0x40) !== 0)) return [...bytes, low];
    bytes.push(low | 0x80);
  }
}

export function text(value: string): number[] {
  const bytes = [...Buffer.from(value, 'utf8')];
  return [...leb(bytes.length), ...bytes];
}

export function vector(items: readonly (readonly number[])[]): number[] {
  return [...leb(items.length), ...items.flat()];
}

export function section(id: number, contents: readonly number[]): number[] {
  return [id, ...leb(contents.length), ...contents];
}

export interface ModuleParts {
  /** WASI functions to import, by name; all of type 1 unless `importType` says otherwise. */
  readonly imports?: readonly string[];
  readonly importModule?: string;
  /** Memory limits; `[0, 1]` (one page, no maximum) when absent. */
  readonly memory?: readonly number[];
  /** How many types () -> () follow the three that are there. */
  readonly moreTypes?: number;
  /** The whole table section. */
  readonly tables?: readonly number[];
  /** Globals: type, mutability, initial expression. */
  readonly globals?: readonly (readonly number[])[];
  /** Bodies without size: local groups, then code with its `end`. The first one is `_start`; all have type 0. */
  readonly bodies: readonly (readonly number[])[];
  readonly exports?: readonly (readonly number[])[];
  /** Whole sections to put before the code section. */
  readonly before?: readonly number[];
  /** Bytes placed at address 0 of the memory. */
  readonly data?: readonly number[];
}

/** Types: 0 is () -> (), 1 is (i32 × 4) -> i32, 2 is (i32) -> (). */
const TYPES: readonly (readonly number[])[] = [
  [0x60, 0, 0],
  [0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f],
  [0x60, 1, 0x7f, 0],
];

/** Assembles a WASI command. `proc_exit` gets type 2, every other import type 1. */
export function assemble(parts: ModuleParts): Uint8Array {
  const imports = parts.imports ?? [];
  const importType = (name: string): number => (name === 'proc_exit' ? 2 : 1);
  const importModule = parts.importModule ?? 'wasi_snapshot_preview1';
  const exports = [
    [...text('memory'), 0x02, 0],
    [...text('_start'), 0x00, ...leb(imports.length)],
    ...(parts.exports ?? []),
  ];
  return Uint8Array.from([
    ...PREAMBLE,
    ...section(1, vector([...TYPES, ...Array.from({ length: parts.moreTypes ?? 0 }, () => [0x60, 0, 0])])),
    ...(imports.length === 0
      ? []
      : section(2, vector(imports.map((name) => [...text(importModule), ...text(name), 0x00, importType(name)])))),
    ...section(3, vector(parts.bodies.map(() => [0]))),
    ...(parts.tables ?? []),
    ...section(5, [1, ...(parts.memory ?? [0, 1])]),
    ...(parts.globals === undefined ? [] : section(6, vector(parts.globals))),
    ...section(7, vector(exports)),
    ...(parts.before ?? []),
    ...section(10, vector(parts.bodies.map((body) => [...leb(body.length), ...body]))),
    ...(parts.data === undefined
      ? []
      : section(11, vector([[0, 0x41, 0, 0x0b, ...leb(parts.data.length), ...parts.data]]))),
  ]);
}

/** `local.get 0`-free endless loop. */
export const ENDLESS: readonly number[] = [0, 0x03, 0x40, 0x0c, 0, 0x0b, 0x0b];
/** Calls itself for ever. */
export const RECURSE: readonly number[] = [0, 0x10, 0, 0x0b];
/** Does nothing. */
export const NOTHING: readonly number[] = [0, 0x0b];
