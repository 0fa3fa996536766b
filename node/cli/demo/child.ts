/**
 * Other `molt` processes, started, listened to and ended by this one.
 *
 * They get a process group of their own, so that a Ctrl-C in the terminal reaches only the parent, which then ends them
 * in order. They end by themselves when the parent is gone, even by SIGKILL: their standard input closes.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import type { Env } from '../../../protocol/env.ts';
import { MoltError, isErrorCode } from '../../../protocol/errors.ts';
import { processEnvironment } from '../../config.ts';

export interface MoltChild {
  readonly name: string;
  /** Undefined when it could not be started. */
  readonly pid: number | undefined;
  /** Exit code, undefined after a signal. */
  readonly exited: Promise<number | undefined>;
  /** Resolves with the first line of this type, from the start. Throws what the process reported when it ended before. */
  first(type: string): Promise<Readonly<Record<string, unknown>>>;
  /** What the process said went wrong. */
  failure(): MoltError;
  /** SIGINT, and SIGKILL after `graceMs`. Idempotent. */
  stop(graceMs: number): Promise<void>;
}

export interface ChildOptions {
  readonly name: string;
  readonly args: readonly string[];
  readonly onLine?: (line: Readonly<Record<string, unknown>>) => void;
}

/** As in the first line of molt.js, which says why. */
export const NODE_FLAGS: readonly string[] = ['--max-semi-space-size=1'];
export const NODE_ENVIRONMENT: Readonly<Record<string, string>> = { MALLOC_ARENA_MAX: '1' };

const STDERR_KEPT = 20_000;
const living = new Set<ChildProcess>();
let guarded = false;

/** The program file of a checkout or of the published package. */
export function moltProgram(): string {
  const candidates = ['../../molt.js', '../../../molt.js'].map((path) => new URL(path, import.meta.url));
  return fileURLToPath(candidates.find((url) => existsSync(url)) ?? new URL('../../molt.js', import.meta.url));
}

/** Starts `molt --json ARGS`. Settings come from its home alone: MOLT_ variables are not passed on. */
export function startMolt(env: Env, options: ChildOptions): MoltChild {
  guard();
  const inherited = Object.entries(processEnvironment()).filter(([name]) => !name.startsWith('MOLT_'));
  const child = spawn(process.execPath, [...NODE_FLAGS, moltProgram(), '--json', ...options.args], {
    stdio: ['pipe', 'pipe', 'pipe'],
    detached: true,
    env: { ...Object.fromEntries(inherited), ...NODE_ENVIRONMENT },
  });
  living.add(child);
  /** By type: a process may say any number of other things before the one that is waited for. */
  const firsts = new Map<unknown, Readonly<Record<string, unknown>>>();
  const listeners = new Set<() => void>();
  let errors = '';
  let ended = false;
  const wake = (): void => {
    for (const listener of listeners) listener();
  };
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors = (errors + text).slice(-STDERR_KEPT);
  });
  const read = createInterface({ input: child.stdout });
  read.on('line', (text) => {
    const line = parseLine(text);
    if (line === undefined) return;
    if (!firsts.has(line['type'])) firsts.set(line['type'], line);
    options.onLine?.(line);
    wake();
  });
  const exited = new Promise<number | undefined>((resolve) => {
    child.on('error', (error) => {
      errors += error.message;
    });
    child.on('close', (code) => {
      living.delete(child);
      ended = true;
      wake();
      resolve(code ?? undefined);
    });
  });
  const failure = (): MoltError => failureOf(options.name, errors);
  return {
    name: options.name,
    pid: child.pid,
    exited,
    failure,
    first: (type) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          const line = firsts.get(type);
          if (line !== undefined) resolve(line);
          else if (ended) reject(failure());
          else return;
          listeners.delete(look);
        };
        listeners.add(look);
        look();
      }),
    stop: async (graceMs) => {
      if (!ended) child.kill('SIGINT');
      const late = new AbortController();
      await Promise.race([exited, env.clock.sleep(graceMs, late.signal).catch(() => undefined)]);
      late.abort();
      if (!ended) child.kill('SIGKILL');
      await exited;
    },
  };
}

/** Whatever way this process ends, its children end too. */
function guard(): void {
  if (guarded) return;
  guarded = true;
  process.on('exit', () => {
    for (const child of living) child.kill('SIGKILL');
  });
}

function parseLine(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** The error object a `molt --json` prints as its last line on standard error, else its last words. */
function failureOf(name: string, errors: string): MoltError {
  const last = errors.trim().split('\n').at(-1) ?? '';
  const error = parseLine(last)?.['error'] as { code?: unknown; message?: unknown } | undefined;
  if (typeof error?.code === 'string' && isErrorCode(error.code)) {
    return new MoltError(error.code, `${name}: ${String(error.message)}`);
  }
  const said = error === undefined ? errors.trim().slice(-1_000) : String(error.message);
  return new MoltError('node/stopped', `${name} ended unexpectedly${said === '' ? '' : `: ${said}`}`);
}
