/**
 * How fast this node's sandbox really is: a small kernel run as a job of its own.
 *
 * The kernel is a xorshift loop in a WASI module of a hundred bytes. It goes through the very runtime that jobs go
 * through, metering included, so the figure is what a buyer gets, not what a data sheet says. It is self-reported all
 * the same: ranking uses it only in the measure in which settled history backs the provider.
 */
import { createHash } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { Deadline } from '../protocol/deadline.ts';
import type { Env } from '../protocol/env.ts';
import { MoltError } from '../protocol/errors.ts';
import type { Runtime } from './runtime/index.ts';

export interface Speed {
  /** Thousands of kernel rounds a second on one core. */
  readonly score: number;
  readonly measuredMs: number;
}

const ROUNDS = 40_000_000;
const MEMORY_BYTES = 16 * 2 ** 20;
const DURATION_MS = 30_000;

/** Runs the kernel once. Throws what the runtime throws, and `runtime/unavailable` when the kernel fails. */
export async function measureSpeed(env: Env, runtime: Runtime, directory: string): Promise<Speed> {
  const folder = join(directory, 'speed');
  await rm(folder, { recursive: true, force: true });
  for (const name of ['in', 'out']) await mkdir(join(folder, name), { recursive: true, mode: 0o700 });
  const module = kernelModule(ROUNDS);
  const path = join(folder, 'kernel.wasm');
  await writeFile(path, module);
  const attemptId = 'speed';
  try {
    using deadline = new Deadline(env.clock, DURATION_MS);
    const run = await runtime.start(
      {
        attemptId,
        image: { kind: 'module', path, digest: createHash('sha256').update(module).digest('hex') },
        command: ['kernel'],
        environment: {},
        inputDirectory: join(folder, 'in'),
        outputDirectory: join(folder, 'out'),
        limits: {
          cpus: 1,
          memoryBytes: MEMORY_BYTES,
          diskBytes: 1 << 16,
          durationMs: DURATION_MS,
          logBytes: 1024,
          processes: 1,
        },
        randomSeed: new Uint8Array(32),
        clockStartMs: 0,
      },
      deadline.signal,
    );
    for await (const _chunk of run.logs) continue;
    const exit = await run.exit;
    if (exit.reason !== 'exited' || exit.exitCode !== 0) {
      throw new MoltError('runtime/unavailable', `the speed kernel ended with ${exit.reason}: ${exit.detail}`);
    }
    return { score: Math.round(ROUNDS / Math.max(1, exit.durationMs)), measuredMs: env.clock.now() };
  } finally {
    await runtime.remove(attemptId);
    await rm(folder, { recursive: true, force: true });
  }
}

/** A WASI module: (module (memory 1) (func (export "_start") … xorshift32 `rounds` times, result stored at 0)). */
export function kernelModule(rounds: number): Uint8Array {
  const shift = (amount: number, opcode: number): number[] => [0x20, 0, 0x20, 0, 0x41, amount, opcode, 0x73, 0x21, 0];
  const [shl, shrU] = [0x74, 0x76];
  const body = [
    [1, 2, 0x7f], // two i32 locals: value, rounds left
    [0x41, 1, 0x21, 0],
    [0x41, ...signedLeb(rounds), 0x21, 1],
    [0x03, 0x40],
    shift(13, shl),
    shift(17, shrU),
    shift(5, shl),
    [0x20, 1, 0x41, 1, 0x6b, 0x22, 1, 0x0d, 0, 0x0b],
    [0x41, 0, 0x20, 0, 0x36, 2, 0],
    [0x0b],
  ].flat();
  const section = (id: number, bytes: readonly number[]): number[] => [id, ...unsignedLeb(bytes.length), ...bytes];
  const name = (text: string): number[] => [text.length, ...Buffer.from(text)];
  const sections = [
    [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    section(1, [1, 0x60, 0, 0]),
    section(3, [1, 0]),
    section(5, [1, 0, 1]),
    section(7, [2, ...name('memory'), 2, 0, ...name('_start'), 0, 0]),
    section(10, [1, ...unsignedLeb(body.length), ...body]),
  ];
  return Uint8Array.from(sections.flat());
}

function unsignedLeb(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  do {
    const low = rest & 0x7f;
    rest >>>= 7;
    bytes.push(rest === 0 ? low : low | 0x80);
  } while (rest !== 0);
  return bytes;
}

function signedLeb(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (;;) {
    const low = rest & 0x7f;
    rest >>= 7;
    if ((rest === 0 && (low & 0x40) === 0) || (rest === -1 && (low & 0x40) !== 0)) return [...bytes, low];
    bytes.push(low | 0x80);
  }
}
