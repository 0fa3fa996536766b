/**
 * The meter on hand-made modules: what it charges, what it refuses, and that a guest cannot get around it.
 * Metered modules are instantiated here directly; the sandbox around them is tested in wasm-runtime.test.ts.
 */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MoltError } from '../../../protocol/errors.ts';
import { FUEL_EXPORT, PAGES_EXPORT, REFUSED_EXPORT, STACK_EXPORT } from '../../../node/runtime/wasm/body-writer.ts';
import { initialPages, meterModule, STACK_SLOTS } from '../../../node/runtime/wasm/meter.ts';
import { assemble, ENDLESS, leb, type ModuleParts, NOTHING, RECURSE, section, signed, text, vector } from './module.ts';

interface Outcome {
  readonly burnt: bigint;
  readonly trap: string | undefined;
  readonly refused: number;
  readonly pages: number;
}

function run(parts: ModuleParts, fuel: bigint, pagesMax: number = 16): Outcome {
  const metered = meterModule(assemble(parts));
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(metered), {});
  const tank = exports[FUEL_EXPORT] as { value: bigint };
  tank.value = fuel;
  (exports[PAGES_EXPORT] as { value: number }).value = pagesMax;
  let trap: string | undefined;
  try {
    (exports['_start'] as () => void)();
  } catch (error) {
    trap = (error as Error).message;
  }
  const refused = (exports[REFUSED_EXPORT] as { value: number }).value;
  const pages = (exports['memory'] as WebAssembly.Memory).buffer.byteLength / 65_536;
  return { burnt: fuel - tank.value, trap, refused, pages };
}

function refusal(bytes: Uint8Array): string {
  try {
    meterModule(bytes);
  } catch (error) {
    if (error instanceof MoltError && error.code === 'job/module-invalid') return error.message;
    throw error;
  }
  return 'accepted';
}

function compiles(bytes: Uint8Array): boolean {
  try {
    return new WebAssembly.Module(bytes) instanceof WebAssembly.Module;
  } catch {
    return false;
  }
}

/** local 0 counts down from `times`; each round runs `body`. */
const countdown = (times: number, body: readonly number[] = []): readonly number[] => {
  const setUp = [1, 1, 0x7f, 0x41, times, 0x21, 0]; // one i32 local; local 0 = times
  const round = [0x20, 0, 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0]; // local 0 -= 1; br_if
  return [...setUp, 0x03, 0x40, ...body, ...round, 0x0b, 0x0b];
};

describe('the meter', () => {
  it('charges a function for its instructions and its locals', () => {
    expect(run({ bodies: [NOTHING] }, 100n).burnt).toBe(1n);
    expect(run({ bodies: [[0, 0x01, 0x01, 0x01, 0x0b]] }, 100n).burnt).toBe(4n);
    expect(run({ bodies: [[1, 9, 0x7e, 0x0b]] }, 100n).burnt).toBe(10n);
  });

  it('charges a loop for every round', () => {
    // Outside the loop: one local, const, set, loop, end. A round: header, get, const, sub, tee, br_if, end.
    for (const times of [1, 2, 50]) {
      expect(run({ bodies: [countdown(times)] }, 10_000n).burnt).toBe(5n + 7n * BigInt(times));
    }
  });

  it('stops an endless loop', () => {
    const { burnt, trap } = run({ bodies: [ENDLESS] }, 1_000_000n);
    expect(trap).toContain('unreachable');
    expect(burnt).toBeGreaterThan(1_000_000n);
    expect(burnt).toBeLessThan(1_000_010n);
  });

  it('charges every call of a recursion', () => {
    expect(run({ bodies: [RECURSE] }, 1000n).trap).toContain('unreachable');
  });

  it('ends a recursion when the slots of its stack are used up', () => {
    // Each call counts itself in the first word of the memory.
    const count = [0x41, 0, 0x41, 0, 0x28, 2, 0, 0x41, 1, 0x6a, 0x36, 2, 0];
    const wide = [1, 40, 0x7e]; // 40 i64 locals
    for (const locals of [[0], wide]) {
      const module = new WebAssembly.Module(meterModule(assemble({ bodies: [[...locals, ...count, 0x10, 0, 0x0b]] })));
      const { exports } = new WebAssembly.Instance(module, {});
      (exports[FUEL_EXPORT] as { value: bigint }).value = 1n << 60n;
      const stack = exports[STACK_EXPORT] as { value: number };
      expect(stack.value).toBe(STACK_SLOTS);
      stack.value = 10_000; // what the stack of this test's own thread surely holds
      expect(() => (exports['_start'] as () => void)()).toThrow('unreachable');
      expect(stack.value).toBeLessThan(0);
      // 8 slots a frame, 3 operands, and the locals.
      const slots = 8 + 3 + (locals === wide ? 40 : 0);
      const depth = new Uint32Array((exports['memory'] as WebAssembly.Memory).buffer)[0];
      expect(depth).toBe(Math.floor(10_000 / slots));
    }
  });

  it('gives the stack back however a function is left', () => {
    const callee = (code: readonly number[]): readonly number[] => [0, ...code, 0x10, 5, 0x0b];
    const ways = [[0x0f], [0x02, 0x40, 0x0c, 1, 0x0b], [0x41, 0, 0x0e, 0, 0], [0x12, 5]].map((way) =>
      callee([0x41, 1, 0x04, 0x40, ...way.map((byte, at) => (way[0] === 0x0c && at === 1 ? byte + 1 : byte)), 0x0b]),
    );
    const calls = [0x10, 1, 0x10, 2, 0x10, 3, 0x10, 4];
    const parts = { bodies: [[0, ...calls, 0x0b], ...ways, NOTHING] };
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(meterModule(assemble(parts))), {});
    (exports[FUEL_EXPORT] as { value: bigint }).value = 1000n;
    (exports['_start'] as () => void)();
    expect((exports[STACK_EXPORT] as { value: number }).value).toBe(STACK_SLOTS);
  });

  it('charges growth and table instructions by what they move', () => {
    const grow = [0, 0x41, 3, 0x40, 0, 0x1a, 0x0b];
    expect(run({ bodies: [grow] }, 100_000n).burnt).toBe(4n + 3n * 8192n);
    const tables = section(4, [1, 0x70, 0, 10]);
    const growTable = [0, 0xd0, 0x70, 0x41, 5, 0xfc, 15, 0, 0x1a, 0x0b];
    expect(run({ bodies: [growTable], tables }, 100_000n).burnt).toBe(5n + 40n);
  });

  it('refuses tables that are too large together, and lets none grow beyond', () => {
    const two = (entries: number[]): number[] => section(4, [2, 0x70, 0, ...entries, 0x6f, 0, 1]);
    expect(refusal(assemble({ bodies: [NOTHING], tables: two([0xa0, 0xc2, 0x1e]) }))).toBe('accepted'); // 500,000
    expect(refusal(assemble({ bodies: [NOTHING], tables: two([0xa1, 0xc2, 0x1e]) }))).toContain('at most 500000');
  });

  it('charges bulk memory instructions by their length', () => {
    const fill = [0, 0x41, 0, 0x41, 1, 0x41, 0x80, 0x80, 0x04, 0xfc, 0x0b, 0, 0x0b]; // memory.fill(0, 1, 65536)
    expect(run({ bodies: [fill] }, 100_000n).burnt).toBe(5n + 8192n);
    expect(run({ bodies: [fill] }, 1000n).trap).toContain('unreachable');
  });

  it('gives the memory a maximum and counts refused growth', () => {
    const grow = [0, 0x41, 1, 0x40, 0, 0x1a, 0x0b];
    const module: ModuleParts = { bodies: [countdown(10, grow.slice(1, -1))] };
    expect(run(module, 100_000n, 4)).toMatchObject({ pages: 4, refused: 7, trap: undefined });
    expect(run({ ...module, memory: [1, 1, 2] }, 100_000n, 4).pages).toBe(2);
  });

  it('tells how many pages a module starts with', () => {
    const metered = meterModule(assemble({ bodies: [NOTHING], memory: [0, 9] }));
    expect(initialPages(metered)).toBe(9);
  });

  it('keeps the globals and exports of the module', () => {
    const metered = meterModule(
      assemble({
        bodies: [NOTHING],
        globals: [[0x7f, 0x00, 0x41, 42, 0x0b]],
        exports: [[...text('answer'), 0x03, 0]],
      }),
    );
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(metered), {});
    expect((exports['answer'] as { value: number }).value).toBe(42);
  });

  it('refuses code that reaches for the fuel or the added functions', () => {
    const refuel = [0, 0x42, 0xff, 0, 0x24, 0, 0x0b]; // global.set 0, where global 0 would be the fuel
    expect(refusal(assemble({ bodies: [refuel] }))).toContain('global 0 of 0');
    expect(refusal(assemble({ bodies: [[0, 0x41, 0x7f, 0x10, 1, 0x1a, 0x0b]] }))).toContain('function 1 of 1');
    const exported = [[...text('tank'), 0x03, 0]];
    expect(refusal(assemble({ bodies: [NOTHING], exports: exported }))).toContain('global 0 of 0');
    const reserved = [[...text(FUEL_EXPORT), 0x00, 0]];
    expect(refusal(assemble({ bodies: [NOTHING], exports: reserved }))).toContain('reserved');
  });

  it.each([
    ['an atomic instruction', [0, 0xfe, 0x03, 0, 0x0b], 'threads are refused'],
    ['relaxed SIMD', [0, 0xfd, 0x80, 0x02, 0x0b], 'relaxed SIMD'],
    ['an exception', [0, 0x08, 0, 0x0b], 'exception handling'],
    ['a try block', [0, 0x06, 0x40, 0x0b, 0x0b], 'exception handling'],
    ['garbage collection', [0, 0xfb, 0x00, 0, 0x0b], 'garbage collection'],
    ['an unknown instruction', [0, 0xff, 0x0b], 'unknown instruction 0xff'],
    ['a second memory', [0, 0x41, 0, 0x28, 0x42, 0, 0x1a, 0x0b], 'second memory'],
    ['an endless number', [0, 0x41, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00, 0x1a, 0x0b], 'longer than 32 bits'],
    ['code behind the end', [0, 0x0b, 0x01], 'behind the end'],
    ['a function without end', [0, 0x01], 'unexpected end'],
    ['too many locals', [1, 0xff, 0xff, 0x3f, 0x7f, 0x0b], 'locals'],
  ])('refuses %s and says where', (_name, body, reason) => {
    expect(refusal(assemble({ bodies: [body] }))).toMatch(new RegExp(`${reason}.* at byte \\d+`));
  });

  it.each([
    ['a shared memory', { memory: [3, 1, 1] }, 'threads are refused'],
    ['a 64-bit memory', { memory: [4, 1] }, '64-bit memory'],
    ['foreign imports', { imports: ['secret'], importModule: 'env' }, 'only WASI preview 1'],
    ['a start section', { before: section(8, [0]) }, 'start section'],
    ['a section twice', { before: section(7, vector([])) }, 'out of order'],
    ['a custom section whose name is not UTF-8', { before: section(0, [1, 0x80]) }, 'not UTF-8'],
    ['an unknown section', { before: section(42, []) }, 'unknown section 42'],
  ] as [string, Partial<ModuleParts>, string][])('refuses %s', (_name, parts, reason) => {
    expect(refusal(assemble({ bodies: [NOTHING], ...parts }))).toContain(reason);
  });

  it('refuses what is no module at all', () => {
    expect(refusal(new Uint8Array())).toContain('not a WebAssembly module');
    expect(refusal(Buffer.from('#!/bin/sh'))).toContain('not a WebAssembly module');
  });

  it('answers any damage with a refusal or a module that is as valid as before', () => {
    const whole = assemble({
      bodies: [countdown(3), NOTHING, [0, 0x41, 0, 0x04, 0x40, 0x0f, 0x0b, 0x10, 1, 0x0b]],
      globals: [[0x7f, 0x00, 0x41, 1, 0x0b]],
      data: [1, 2, 3],
    });
    const damage = fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(damage, fc.nat(whole.length), (changes, length) => {
        const bytes = whole.slice(0, length < 8 ? whole.length : length);
        for (const [place, value] of changes) if (place < bytes.length) bytes[place] = value;
        const answer = refusal(bytes);
        if (answer !== 'accepted') expect(answer).toContain('the WebAssembly module cannot be run');
        // What it adds must never make a module valid that was not.
        else if (compiles(meterModule(bytes))) expect(compiles(bytes)).toBe(true);
      }),
      { numRuns: 3000 },
    );
  });
});

describe('the meter and NaNs', () => {
  const F32 = [0x43, 0, 0, 0, 0];
  const F64 = [0x44, 0, 0, 0, 0, 0, 0, 0, 0];
  const bits32 = (value: number): number[] => [0x41, ...signed(value), 0xbe];
  const bits64 = (value: bigint): number[] => [0x44, ...new Uint8Array(new BigUint64Array([value]).buffer)];
  const payload32 = bits32(0xffa12345 | 0); // a signalling NaN with sign and payload
  const payload64 = bits64(0xfff4123456789abcn);
  const v = (sub: number): number[] => [0xfd, ...leb(sub)];
  const bytes16 = (words: readonly number[]): number[] => [...new Uint8Array(Uint32Array.from(words).buffer)];
  const payloadF32x4 = [...v(12), ...bytes16([0xffa12345, 0x3f800000, 0x7fc12345, 0xffc00000])];
  const payloadF64x2 = [...v(12), ...bytes16([0x9abcdef0, 0xfff41234, 0x0, 0x40000000])];
  const zero128 = [...v(12), ...bytes16([0, 0, 0, 0])];
  const CANONICAL32 = 0x7fc00000;
  const CANONICAL64 = 0x7ff80000;

  /** Runs `code`, which leaves a value, stores it at 0 with `store`, and reads the first four words. */
  function words(code: readonly number[], store: readonly number[], locals: readonly number[] = [0]): number[] {
    const metered = meterModule(assemble({ bodies: [[...locals, 0x41, 0, ...code, ...store, 0x0b]] }));
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(metered), {});
    (exports[FUEL_EXPORT] as { value: bigint }).value = 1000n;
    (exports['_start'] as () => void)();
    return [...new Uint32Array((exports['memory'] as WebAssembly.Memory).buffer, 0, 4)];
  }
  const store32 = [0x38, 2, 0];
  const store64 = [0x39, 3, 0];
  const store128 = [...v(11), 4, 0];

  it.each([...range(0x8d, 0x91).map((op) => [op, 1]), ...range(0x92, 0x97).map((op) => [op, 2])])(
    'makes what f32 instruction 0x%s leaves canonical',
    (opcode, operands) => {
      const code = [...payload32, ...(operands === 2 ? F32 : []), opcode];
      expect(words(code, store32)[0]).toBe(CANONICAL32);
      // Seen as an integer, and through a local, just the same.
      expect(words([...code, 0xbc], [0x36, 2, 0])[0]).toBe(CANONICAL32);
      expect(words([...code, 0x21, 0, 0x20, 0], store32, [1, 1, 0x7d])[0]).toBe(CANONICAL32);
      // abs, neg and copysign work on the canonical one.
      expect(words([...code, 0x8c], store32)[0]).toBe(CANONICAL32 + 0x80000000);
      expect(words([0x43, 0, 0, 0x80, 0x3f, ...code, 0x98], store32)[0]).toBe(0x3f800000);
    },
  );

  it.each([...range(0x9b, 0x9f).map((op) => [op, 1]), ...range(0xa0, 0xa5).map((op) => [op, 2])])(
    'makes what f64 instruction 0x%s leaves canonical',
    (opcode, operands) => {
      const code = [...payload64, ...(operands === 2 ? F64 : []), opcode];
      expect(words(code, store64).slice(0, 2)).toEqual([0, CANONICAL64]);
      expect(words([...code, 0x22, 0], store64, [1, 1, 0x7c]).slice(0, 2)).toEqual([0, CANONICAL64]);
    },
  );

  it('makes what conversions between float types leave canonical', () => {
    expect(words([...payload64, 0xb6], store32)[0]).toBe(CANONICAL32);
    expect(words([...payload32, 0xbb], store64).slice(0, 2)).toEqual([0, CANONICAL64]);
    expect(words([...payloadF64x2, ...v(94)], store128)).toEqual([CANONICAL32, 0x40000000, 0, 0]);
    expect(words([...payloadF32x4, ...v(95)], store128)).toEqual([0, CANONICAL64, 0, 0x3ff00000]);
  });

  it.each([...range(103, 106).map((op) => [op, 1]), [227, 1], ...range(228, 233).map((op) => [op, 2])])(
    'makes every lane that f32x4 instruction %s leaves canonical',
    (sub, operands) => {
      const code = [...payloadF32x4, ...(operands === 2 ? zero128 : []), ...v(sub)];
      const [first, , third, fourth] = words(code, store128);
      expect([first, third, fourth]).toEqual([CANONICAL32, CANONICAL32, CANONICAL32]);
      expect(words([...code, ...v(31), 2], store32)[0]).toBe(CANONICAL32); // extract_lane
    },
  );

  it.each([[116, 1], [117, 1], [122, 1], [148, 1], [239, 1], ...range(240, 245).map((op) => [op, 2])])(
    'makes every lane that f64x2 instruction %s leaves canonical',
    (sub, operands) => {
      const code = [...payloadF64x2, ...(operands === 2 ? zero128 : []), ...v(sub)];
      expect(words(code, store128).slice(0, 2)).toEqual([0, CANONICAL64]);
    },
  );

  it('leaves the bits of what is only moved, negated or selected alone', () => {
    expect(words(payload32, store32)[0]).toBe(0xffa12345);
    expect(words([...payload32, 0x21, 0, 0x20, 0], store32, [1, 1, 0x7d])[0]).toBe(0xffa12345);
    expect(words([...payload32, 0x8b], store32)[0]).toBe(0x7fa12345); // abs
    expect(words([...payload32, ...F32, 0x41, 1, 0x1b], store32)[0]).toBe(0xffa12345); // select
    expect(words([...payloadF32x4, ...zero128, ...v(234)], store128)[0]).toBe(0xffa12345); // pmin is a selection
    // A local that is assigned both a moved value and a sum keeps the moved one.
    const both = [...payload32, ...F32, 0x92, 0x21, 0, ...payload32, 0x21, 0, 0x20, 0];
    expect(words(both, store32, [1, 1, 0x7d])[0]).toBe(0xffa12345);
  });

  it('carries NaNs canonically through calls, blocks and branches', () => {
    const nan = [...payload32, ...F32, 0x92];
    expect(words([0x02, 0x7d, ...nan, 0x0b], store32)[0]).toBe(CANONICAL32);
    expect(words([0x02, 0x7d, ...nan, 0x41, 1, 0x0d, 0, 0x0b], store32)[0]).toBe(CANONICAL32);
    expect(words([0x41, 1, 0x04, 0x7d, ...nan, 0x05, ...F32, 0x0b], store32)[0]).toBe(CANONICAL32);
    // Summed up in a loop, stored behind it.
    const loop = [
      0x03,
      0x40,
      0x20,
      0,
      ...payload32,
      0x92,
      0x21,
      0,
      0x20,
      1,
      0x41,
      1,
      0x6a,
      0x22,
      1,
      0x41,
      3,
      0x48,
      0x0d,
      0,
    ];
    expect(words([...loop, 0x0b, 0x20, 0], store32, [2, 1, 0x7d, 1, 0x7f])[0]).toBe(CANONICAL32);
  });
});

function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}
