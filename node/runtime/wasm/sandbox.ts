/**
 * The sandbox process: how a wasm job is fenced off from the machine, and how the node talks to it.
 *
 * Fences, from the inside out: WebAssembly itself; system.ts, which imports files under `/in`, `/out`, `/tmp`,
 * `/secrets` and nothing else; Node's permission model (no other files, no processes, no addons) with an empty
 * environment; and, where bubblewrap works, namespaces without network and with only the needed directories mounted.
 * Whatever comes out of the process is parsed as if the guest had written it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import type { Env } from '../../../protocol/env.ts';
import { ERRORS, type ErrorCode, isErrorCode, MoltError } from '../../../protocol/errors.ts';
import type { ExitReason, LogChunk } from '../runtime.ts';
import {
  EVENT_FD,
  FRAME_BYTES_MAX,
  LOG_FD,
  type SandboxCommand,
  type SandboxEvent,
  type SandboxTask,
  STREAM_NUMBER,
} from './channel.ts';

const EVENT_BYTES_MAX = 65_536;
/** How much of what Node prints when it dies is kept. */
const DIAGNOSTIC_BYTES_MAX = 4096;
const HEAP_MIB_MAX = 512;

const REASONS = [
  'exited',
  'out-of-memory',
  'out-of-fuel',
  'stack-overflow',
  'output-too-large',
  'crashed',
] as const satisfies readonly ExitReason[];

const vitals = z.object({
  cpuMs: z.number().nonnegative(),
  memoryBytes: z.number().int().nonnegative(),
  fuel: z.string().regex(/^\d{1,20}$/),
});
const result = z.object({
  reason: z.enum(REASONS),
  exitCode: z.number().int().exactOptional(),
  durationMs: z.number().nonnegative().exactOptional(),
  detail: z.string(),
});
const errorCode = z.string().refine((code): code is ErrorCode => isErrorCode(code), {
  error: `not one of the ${Object.keys(ERRORS).length} error codes`,
});
const event = z.discriminatedUnion('event', [
  z.object({ event: z.literal('metered') }),
  z.object({ event: z.literal('started') }),
  z.object({ event: z.literal('usage'), vitals }),
  z.object({ event: z.literal('stopped'), vitals }),
  z.object({ event: z.literal('ended'), vitals, result }),
  z.object({ event: z.literal('failed'), code: errorCode, message: z.string() }),
]);

export interface SandboxOptions {
  /** Absolute host paths the process may read. */
  readonly readable: readonly string[];
  /** The one directory it may write. */
  readonly writable: string;
  /** Path of a bubblewrap that works here. */
  readonly bubblewrap?: string;
  /** Called for each event, in order. */
  readonly onEvent: (event: SandboxEvent) => void;
}

/** How the process ended, as the operating system tells it. */
export interface SandboxEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** The end of what Node printed. */
  readonly diagnostic: string;
}

/** Directories and files of our own that the process needs. */
function ownSources(): string[] {
  const here = dirname(fileURLToPath(import.meta.url));
  const shim = dirname(dirname(fileURLToPath(import.meta.resolve('@bjorn3/browser_wasi_shim'))));
  const sources = [here, fileURLToPath(new URL('../../../protocol', import.meta.url)), shim];
  return sources.map((path) => realpathSync(path));
}

function nodeArguments(options: SandboxOptions): string[] {
  const extension = import.meta.url.endsWith('.ts') ? '.ts' : '.js';
  return [
    '--permission',
    ...[...ownSources(), ...options.readable].map((path) => `--allow-fs-read=${path}`),
    `--allow-fs-read=${options.writable}`,
    `--allow-fs-write=${options.writable}`,
    '--allow-worker',
    '--no-warnings',
    `--max-old-space-size=${HEAP_MIB_MAX}`,
    fileURLToPath(new URL(`./child${extension}`, import.meta.url)),
  ];
}

/** Arguments of bubblewrap for running `command` with only `readable` and `writable` (and the system's libraries). */
export function bubblewrapArguments(readable: readonly string[], writable: readonly string[]): string[] {
  const system = ['/usr', '/lib', '/lib64', '/etc/ld.so.cache'];
  return [
    '--unshare-all',
    '--die-with-parent',
    '--new-session',
    '--clearenv',
    ...system.flatMap((path) => ['--ro-bind-try', path, path]),
    '--proc',
    '/proc',
    '--dev',
    '/dev',
    ...readable.flatMap((path) => ['--ro-bind', path, path]),
    ...writable.flatMap((path) => ['--bind', path, path]),
    '--chdir',
    '/',
    '--',
  ];
}

export class Sandbox {
  readonly #process: ChildProcess;
  readonly #env: Env;
  #diagnostic = '';
  /** Resolves when the process has ended and its last event was delivered. Never rejects. */
  readonly ended: Promise<SandboxEnd>;

  constructor(env: Env, options: SandboxOptions) {
    this.#env = env;
    const node = realpathSync(process.execPath);
    const command = [node, ...nodeArguments(options)];
    if (options.bubblewrap !== undefined) {
      const readable = [node, ...ownSources(), ...options.readable];
      command.unshift(options.bubblewrap, ...bubblewrapArguments(readable, [options.writable]));
    }
    const [file = node, ...rest] = command;
    this.#process = spawn(file, rest, { env: {}, cwd: '/', stdio: ['pipe', 'pipe', 'pipe', 'pipe', 'pipe'] });
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream?.on('data', (bytes: Buffer) => {
        this.#diagnostic = (this.#diagnostic + bytes.toString('utf8')).slice(-DIAGNOSTIC_BYTES_MAX);
      });
    }
    // A process that dies closes its end of the command pipe; how it died is told by `ended`.
    this.#process.stdin?.on('error', () => undefined);
    const events = this.#readEvents(options.onEvent);
    const exited = new Promise<Omit<SandboxEnd, 'diagnostic'>>((resolve) => {
      this.#process.once('exit', (code, signal) => resolve({ code, signal }));
      this.#process.once('error', (error) => {
        this.#diagnostic = error.message;
        resolve({ code: null, signal: null });
      });
    });
    this.ended = exited.then(async (end) => {
      await events;
      return { ...end, diagnostic: this.#diagnostic.trim() };
    });
  }

  #pipe(fd: number): Readable {
    return this.#process.stdio[fd] as Readable;
  }

  async #readEvents(onEvent: (event: SandboxEvent) => void): Promise<void> {
    let rest = '';
    try {
      for await (const bytes of this.#pipe(EVENT_FD) as AsyncIterable<Buffer>) {
        const lines = (rest + bytes.toString('utf8')).split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) onEvent(event.parse(JSON.parse(line)));
        if (rest.length > EVENT_BYTES_MAX) throw new MoltError('runtime/engine-failed', 'an event without end');
      }
    } catch (error) {
      this.#diagnostic = `the sandbox process said something unexpected: ${String(error)}`;
      this.kill();
    }
  }

  send(message: SandboxTask | SandboxCommand): void {
    (this.#process.stdin as Writable).write(`${JSON.stringify(message)}\n`);
  }

  kill(): void {
    this.#process.kill('SIGKILL');
  }

  /** Lets go of pipes that nobody reads any more. */
  release(): void {
    this.#pipe(LOG_FD).destroy();
  }

  /** The guest's output. A reader that leaves early lets the rest run into nothing. */
  async *logs(): AsyncGenerator<LogChunk, void, undefined> {
    const pipe = this.#pipe(LOG_FD);
    let rest: Buffer = Buffer.alloc(0);
    try {
      for await (const bytes of pipe.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
        rest = rest.length === 0 ? bytes : Buffer.concat([rest, bytes]);
        const atMs = this.#env.clock.now();
        for (;;) {
          if (rest.length < 5) break;
          const length = rest.readUInt32LE(1);
          if (length > FRAME_BYTES_MAX) {
            this.kill();
            return;
          }
          if (rest.length < 5 + length) break;
          const stream = rest.readUInt8(0) === STREAM_NUMBER.stderr ? 'stderr' : 'stdout';
          yield { stream, bytes: rest.subarray(5, 5 + length), atMs };
          rest = rest.subarray(5 + length);
        }
      }
    } finally {
      if (!pipe.destroyed) pipe.resume();
    }
  }
}

/** Runs bubblewrap once with what a sandbox needs; undefined when it is absent or refused here. */
export async function findBubblewrap(): Promise<string | undefined> {
  for (const directory of ['/usr/bin', '/bin', '/usr/local/bin']) {
    const path = join(directory, 'bwrap');
    const node = realpathSync(process.execPath);
    const child = spawn(path, [...bubblewrapArguments([node], []), node, '--version'], { env: {}, stdio: 'ignore' });
    const works = await new Promise<boolean>((resolve) => {
      child.once('error', () => resolve(false));
      child.once('exit', (code) => resolve(code === 0));
    });
    if (works) return path;
  }
  return undefined;
}
