/**
 * The sandbox process: how a wasm job is fenced off from the machine, and how the node talks to it.
 *
 * Fences, from the inside out: WebAssembly itself; system.ts, which imports files under `/in`, `/out`, `/tmp`,
 * `/secrets` and nothing else; Node's permission model (no other files, no processes, no addons) with an empty
 * environment; and, where bubblewrap works, namespaces without network and with only the needed directories mounted.
 * Whatever comes out of the process is parsed as if the guest had written it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, realpathSync } from 'node:fs';
import { mkdir, realpath } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import type { Env } from '../../../protocol/env.ts';
import { assert, ERRORS, type ErrorCode, isErrorCode, MoltError } from '../../../protocol/errors.ts';
import type { ExitReason, LogChunk } from '../runtime.ts';
import {
  EVENT_FD,
  FRAME_BYTES_MAX,
  LOG_FD,
  type SandboxCommand,
  type SandboxEvent,
  type SandboxTask,
  STREAM_NUMBER,
  WARM_UP,
} from './channel.ts';

/** Where bubblewrap tells the process that it has made, next to the pipes that the sandbox itself has. */
const INFO_FD = 5;
const INFO_BYTES_MAX = 4_096;
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
  z.object({ event: z.literal('loaded') }),
  z.object({ event: z.literal('started') }),
  z.object({ event: z.literal('usage'), vitals }),
  z.object({ event: z.literal('stopped'), vitals }),
  z.object({ event: z.literal('ended'), vitals, result }),
  z.object({ event: z.literal('failed'), code: errorCode, message: z.string() }),
]);

/** What this machine has for sandboxes; found once by `prepareFences`. */
export interface Fences {
  /** Path of the Node that executes sandboxes, without links. */
  readonly program: string;
  /** Path of a bubblewrap that works here. */
  readonly bubblewrap?: string;
  /**
   * Directory with the compiled sources of the sandbox: in a checkout it saves removing the types at every start. Only
   * together with bubblewrap, which keeps a sandbox from changing what the next one executes.
   */
  readonly compileCache?: string;
}

export interface SandboxOptions {
  /** Absolute host paths the process may read. */
  readonly readable: readonly string[];
  /** The one directory it may write. */
  readonly writable: string;
  readonly fences: Fences;
}

/** How the process ended, as the operating system tells it. */
export interface SandboxEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** The end of what Node printed. */
  readonly diagnostic: string;
}

/** The nearest `name` in this file's directory or one above it. */
function findAbove(directory: string, name: string): string {
  const path = join(directory, name);
  if (existsSync(path)) return path;
  assert(directory !== dirname(directory), `the package is installed without ${name}`);
  return findAbove(dirname(directory), name);
}

/**
 * Files and directories of our own that the process needs. The shim is looked for as Node does it, because package
 * managers put a link where the process will look, and both ends of it must be readable; package.json says that the
 * sources are modules, which Node would otherwise find out by compiling each of them twice.
 */
function findOwnSources(): readonly string[] {
  const here = realpathSync(dirname(fileURLToPath(import.meta.url)));
  const protocol = realpathSync(fileURLToPath(new URL('../../../protocol', import.meta.url)));
  const shim = findAbove(here, 'node_modules/@bjorn3/browser_wasi_shim');
  return [...new Set([here, protocol, findAbove(here, 'package.json'), shim, realpathSync(shim)])];
}
const ownSources = findOwnSources();

const isCheckout = import.meta.url.endsWith('.ts');
const childEntry = fileURLToPath(new URL(`./child${isCheckout ? '.ts' : '.js'}`, import.meta.url));

/** Everything the process may read but its own program. */
function readablePaths({ readable, fences }: SandboxOptions): readonly string[] {
  return [...ownSources, ...readable, ...(fences.compileCache === undefined ? [] : [fences.compileCache])];
}

/** Nothing of the node's environment. */
function environmentOf({ compileCache }: Fences): Record<string, string> {
  return compileCache === undefined ? {} : { NODE_COMPILE_CACHE: compileCache };
}

function nodeArguments(options: SandboxOptions): string[] {
  return [
    '--permission',
    ...readablePaths(options).map((path) => `--allow-fs-read=${path}`),
    `--allow-fs-read=${options.writable}`,
    `--allow-fs-write=${options.writable}`,
    // Node uses a compile cache only where it may write; bubblewrap mounts it read-only.
    ...(options.fences.compileCache === undefined ? [] : [`--allow-fs-write=${options.fences.compileCache}`]),
    '--allow-worker',
    '--no-warnings',
    `--max-old-space-size=${HEAP_MIB_MAX}`,
    childEntry,
  ];
}

/** Arguments of bubblewrap for running `command` with only `readable` and `writable` (and the system's libraries). */
function bubblewrapArguments(readable: readonly string[], writable: readonly string[]): string[] {
  const system = ['/usr', '/lib', '/lib64', '/etc/ld.so.cache'];
  return [
    '--unshare-all',
    '--die-with-parent',
    '--new-session',
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
  /** The first process behind bubblewrap, with which all others in there end; undefined where there is none. */
  readonly #inner: Promise<number | undefined>;
  #isKilled = false;
  #diagnostic = '';
  /** Called for each event, in order; whoever holds the process sets it before it asks for anything. */
  onEvent: (event: SandboxEvent) => void = () => undefined;
  /** Resolves when the process has ended and its last event was delivered. Never rejects. */
  readonly ended: Promise<SandboxEnd>;

  constructor(env: Env, options: SandboxOptions) {
    this.#env = env;
    const { bubblewrap, program } = options.fences;
    const command = [program, ...nodeArguments(options)];
    if (bubblewrap !== undefined) {
      const seen = bubblewrapArguments([program, ...readablePaths(options)], [options.writable]);
      command.unshift(bubblewrap, '--info-fd', String(INFO_FD), ...seen);
    }
    const [file = program, ...rest] = command;
    const stdio = Array.from({ length: bubblewrap === undefined ? INFO_FD : INFO_FD + 1 }, () => 'pipe' as const);
    this.#process = spawn(file, rest, { env: environmentOf(options.fences), cwd: '/', stdio });
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream?.on('data', (bytes: Buffer) => {
        this.#diagnostic = (this.#diagnostic + bytes.toString('utf8')).slice(-DIAGNOSTIC_BYTES_MAX);
      });
    }
    // A process that dies closes its end of the command pipe; how it died is told by `ended`.
    this.#process.stdin?.on('error', () => undefined);
    this.#inner = bubblewrap === undefined ? Promise.resolve(undefined) : innerOf(this.#pipe(INFO_FD));
    const events = this.#readEvents();
    const exited = new Promise<Omit<SandboxEnd, 'diagnostic'>>((resolve) => {
      this.#process.once('exit', (code, signal) => {
        const isKill = this.#isKilled && code === CODE_OF_SIGKILL;
        resolve(isKill ? { code: null, signal: 'SIGKILL' } : { code, signal });
      });
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

  async #readEvents(): Promise<void> {
    let rest = '';
    try {
      for await (const bytes of this.#pipe(EVENT_FD) as AsyncIterable<Buffer>) {
        const lines = (rest + bytes.toString('utf8')).split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) this.onEvent(event.parse(JSON.parse(line)));
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

  /**
   * Ends the process, at once or as soon as there is one. Of bubblewrap's two the inner one is killed: without the outer,
   * which has to let it go on from where it is made, it would wait for that for ever, and with it whoever waits for `ended`.
   */
  kill(): void {
    if (this.#isKilled) return;
    this.#isKilled = true;
    void this.#inner.then((inner) => {
      const { exitCode, signalCode } = this.#process;
      if (exitCode !== null || signalCode !== null) return;
      if (inner === undefined) this.#process.kill('SIGKILL');
      else killProcess(inner);
    });
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

/** What a shell, and bubblewrap, make of a program that ended by SIGKILL. */
const CODE_OF_SIGKILL = 128 + 9;

/**
 * The process that bubblewrap has made, which it tells right away in one JSON object; undefined when it made none. Read to
 * its end: a pipe that is closed under its hands would end it half way.
 */
function innerOf(info: Readable): Promise<number | undefined> {
  const { promise, resolve } = Promise.withResolvers<number | undefined>();
  let text = '';
  info.on('data', (bytes: Buffer) => {
    text = (text + bytes.toString('utf8')).slice(0, INFO_BYTES_MAX);
    const pid = /"child-pid": (\d+)\D/.exec(text)?.[1];
    if (pid !== undefined) resolve(Number(pid));
  });
  // It broke with the process.
  info.on('error', () => undefined);
  info.once('close', () => resolve(undefined));
  return promise;
}

function killProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended by itself a moment ago.
  }
}

/** Finds out what this machine has. `directory` is kept and belongs to the caller; `node` executes the sandboxes. */
export async function prepareFences(directory: string, node: string = process.execPath): Promise<Fences> {
  const program = realpathSync(node);
  const [bubblewrap, compileCache] = await Promise.all([
    findBubblewrap(program),
    isCheckout ? fillCompileCache(program, join(directory, 'compile-cache')) : undefined,
  ]);
  return {
    program,
    ...(bubblewrap === undefined ? {} : { bubblewrap }),
    ...(compileCache === undefined ? {} : { compileCache }),
  };
}

async function succeeds(file: string, args: readonly string[], env: Record<string, string>): Promise<boolean> {
  const child = spawn(file, args, { env, stdio: 'ignore' });
  return new Promise<boolean>((resolve) => {
    child.once('error', () => resolve(false));
    child.once('exit', (code) => resolve(code === 0));
  });
}

/** Runs bubblewrap with what a sandbox needs; undefined when it is absent or refused here. */
async function findBubblewrap(node: string): Promise<string | undefined> {
  for (const directory of ['/usr/bin', '/bin', '/usr/local/bin']) {
    const path = join(directory, 'bwrap');
    if (await succeeds(path, [...bubblewrapArguments([node], []), node, '--version'], {})) return path;
  }
  return undefined;
}

async function fillCompileCache(program: string, directory: string): Promise<string | undefined> {
  await mkdir(directory, { recursive: true });
  const compileCache = await realpath(directory);
  const filled = await succeeds(
    program,
    ['--no-warnings', childEntry, WARM_UP],
    environmentOf({ program, compileCache }),
  );
  return filled ? compileCache : undefined;
}
