/**
 * Reading and writing the WebAssembly binary format: bounded, strict, and naming the place of every fault.
 *
 * Source: WebAssembly Core Specification, "Binary Format". The reader refuses LEB128 numbers that are longer than their
 * type allows and never reads behind its end; the writer grows by doubling.
 */
import { isUtf8 } from 'node:buffer';
import { MoltError } from '../../../protocol/errors.ts';

/** A `job/module-invalid` at a byte offset of the module. */
export function invalidModule(offset: number, what: string): MoltError {
  return new MoltError(
    'job/module-invalid',
    `the WebAssembly module cannot be run: ${what} at byte ${offset}. Build it for wasm32-wasi (preview 1) without threads, exceptions, GC or relaxed SIMD.`,
    { offset, what },
  );
}

export class ModuleReader {
  readonly bytes: Uint8Array;
  readonly end: number;
  offset: number;

  constructor(bytes: Uint8Array, offset: number = 0, end: number = bytes.length) {
    this.bytes = bytes;
    this.offset = offset;
    this.end = end;
  }

  get done(): boolean {
    return this.offset >= this.end;
  }

  byte(): number {
    const value = this.offset < this.end ? this.bytes[this.offset] : undefined;
    if (value === undefined) throw invalidModule(this.offset, 'unexpected end');
    this.offset++;
    return value;
  }

  skip(length: number): void {
    if (length > this.end - this.offset) throw invalidModule(this.offset, 'unexpected end');
    this.offset += length;
  }

  /** Unsigned LEB128 of at most 32 bits. */
  u32(): number {
    const start = this.offset;
    const first = start < this.end ? (this.bytes[start] ?? 0x80) : 0x80;
    if (first < 0x80) {
      this.offset = start + 1;
      return first;
    }
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.byte();
      if (shift === 28 && byte > 0x0f) break;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw invalidModule(start, 'a number longer than 32 bits');
  }

  /** Passes a signed LEB128 of at most `bits` bits; its value is left to the engine's own validation. */
  skipSigned(bits: 32 | 33 | 64): void {
    const start = this.offset;
    const bytesMax = Math.ceil(bits / 7);
    for (let count = 0; count < bytesMax; count++) {
      if (this.byte() < 0x80) return;
    }
    throw invalidModule(start, `a number longer than ${bits} bits`);
  }

  /** A count of things of which each takes at least one byte, so that no count exceeds what is left. */
  count(what: string): number {
    const start = this.offset;
    const count = this.u32();
    if (count > this.end - this.offset) throw invalidModule(start, `${count} ${what} where fewer bytes are left`);
    return count;
  }

  /** A name of at most 1 KiB, in valid UTF-8: the engine refuses others, also in sections that are left out here. */
  name(): string {
    const start = this.offset;
    const length = this.u32();
    if (length > 1024) throw invalidModule(start, `a name of ${length} bytes`);
    this.skip(length);
    const bytes = this.bytes.subarray(this.offset - length, this.offset);
    if (!isUtf8(bytes)) throw invalidModule(start, 'a name that is not UTF-8');
    return Buffer.from(bytes).toString('utf8');
  }

  /** Another reader of the same bytes, at the same place. */
  copy(): ModuleReader {
    return new ModuleReader(this.bytes, this.offset, this.end);
  }

  /** A reader of the next `length` bytes, which this one passes. */
  part(length: number): ModuleReader {
    const start = this.offset;
    this.skip(length);
    return new ModuleReader(this.bytes, start, this.offset);
  }
}

export class ModuleWriter {
  #bytes: Uint8Array;
  length: number = 0;

  constructor(capacity: number) {
    this.#bytes = new Uint8Array(Math.max(capacity, 64));
  }

  #reserve(more: number): void {
    if (this.length + more <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.length + more));
    grown.set(this.#bytes.subarray(0, this.length));
    this.#bytes = grown;
  }

  put(...values: readonly number[]): void {
    this.#reserve(values.length);
    for (const value of values) this.#bytes[this.length++] = value;
  }

  bytes(source: Uint8Array, start: number = 0, end: number = source.length): void {
    this.#reserve(end - start);
    this.#bytes.set(source.subarray(start, end), this.length);
    this.length += end - start;
  }

  u32(value: number): void {
    let rest = value;
    while (rest >= 0x80) {
      this.put((rest % 128) | 0x80);
      rest = Math.floor(rest / 128);
    }
    this.put(rest);
  }

  name(text: string): void {
    const bytes = Buffer.from(text, 'utf8');
    this.u32(bytes.length);
    this.bytes(bytes);
  }

  /** Leaves room for a number that is known later, always five bytes long; `fill` writes it. Returns its place. */
  hole(): number {
    const place = this.length;
    this.put(0x80, 0x80, 0x80, 0x80, 0x00);
    return place;
  }

  /** Below 2^31 the same five bytes are right for signed and unsigned numbers. */
  fill(place: number, value: number): void {
    fillPadded(this.#bytes, place, value);
  }

  finish(): Uint8Array {
    return this.#bytes.slice(0, this.length);
  }
}

/** Writes `value` (0 … 2^31-1) as a LEB128 of exactly five bytes. */
export function fillPadded(bytes: Uint8Array, place: number, value: number): void {
  let rest = value;
  for (let index = 0; index < 4; index++) {
    bytes[place + index] = (rest % 128) | 0x80;
    rest = Math.floor(rest / 128);
  }
  bytes[place + 4] = rest;
}
