/**
 * The meter on hand-made modules: what it charges, what it refuses, and that a guest cannot get around it.
 * Metered modules are instantiated here directly; the sandbox around them is tested in wasm-runtime.test.ts.
 */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MoltError } from '../../../protocol/errors.ts';
import { capMemory, FUEL_EXPORT, meterModule, REFUSED_EXPORT } from '../../../node/runtime/wasm/meter.ts';
import { assemble, ENDLESS, type ModuleParts, NOTHING, RECURSE, section, text, vector } from './module.ts';

interface Outcome {
  readonly burnt: bigint;
  readonly trap: string | undefined;
  readonly refused: number;
  readonly pages: number;
}

function run(parts: ModuleParts, fuel: bigint, pagesMax: number = 16): Outcome {
  const metered = meterModule(assemble(parts));
  capMemory(metered, pagesMax);
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(metered), {});
  const tank = exports[FUEL_EXPORT] as { value: bigint };
  tank.value = fuel;
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

  it('charges bulk memory instructions by their length', () => {
    const fill = [0, 0x41, 0, 0x41, 1, 0x41, 0x80, 0x80, 0x04, 0xfc, 0x0b, 0, 0x0b]; // memory.fill(0, 1, 65536)
    expect(run({ bodies: [fill] }, 100_000n).burnt).toBe(5n + 8192n);
    expect(run({ bodies: [fill] }, 1000n).trap).toContain('unreachable');
  });

  it('gives the memory a maximum and counts refused growth', () => {
    const grow = [0, 0x41, 1, 0x40, 0, 0x1a, 0x0b];
    const module: ModuleParts = { bodies: [countdown(10, grow.slice(1, -1))] };
    expect(run(module, 10_000n, 4)).toMatchObject({ pages: 4, refused: 7, trap: undefined });
    expect(run({ ...module, memory: [1, 1, 2] }, 10_000n, 4).pages).toBe(2);
  });

  it('tells how many pages a module starts with when they exceed the maximum', () => {
    const metered = meterModule(assemble({ bodies: [NOTHING], memory: [0, 9] }));
    expect(capMemory(metered, 4)).toBe(9);
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
      bodies: [countdown(3), NOTHING],
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
