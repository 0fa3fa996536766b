/**
 * The engine behind a socket: calls with a deadline, errors in our words, and nothing that can hang for ever.
 */
import { createRequire } from 'node:module';

import type Docker from 'dockerode';

import { MoltError } from '../../../protocol/errors.ts';

/** Labels by which a node finds what is its own. */
export const LABEL = {
  node: 'molt.node',
  attempt: 'molt.attempt',
  role: 'molt.role',
  terms: 'molt.terms',
} as const;

/** An engine that does not answer a simple call within this is treated as gone. */
const CALL_MS_MAX = 60_000;

export type Engine = Docker;
/** Podman answers the same calls, and means other things by some of them. */
export type EngineKind = 'docker' | 'podman';

export interface EngineClients {
  /** For calls that answer at once. */
  readonly calls: Engine;
  /** For what stays open while a job runs or an image is pulled: silence there means nothing. */
  readonly streams: Engine;
}

export function connectEngine(socketPath: string): EngineClients {
  // Loaded on first use: it brings 17 MB of memory that a node without containers does not need.
  const Client = createRequire(import.meta.url)('dockerode') as typeof Docker;
  return { calls: new Client({ socketPath, timeout: CALL_MS_MAX }), streams: new Client({ socketPath }) };
}

interface HttpFault {
  readonly statusCode?: number;
  readonly message: string;
}

export function faultOf(error: unknown): HttpFault {
  if (!(error instanceof Error)) return { message: String(error) };
  const status = 'statusCode' in error ? error.statusCode : undefined;
  return typeof status === 'number' ? { statusCode: status, message: error.message } : { message: error.message };
}

export function isMissing(error: unknown): boolean {
  return faultOf(error).statusCode === 404;
}

/** Anything an engine call threw, as `runtime/engine-failed` (or `job/disk-full` when that is what it says). */
export function engineFailed(doing: string, error: unknown): MoltError {
  if (error instanceof MoltError) return error;
  const { message } = faultOf(error);
  if (/no space left on device/i.test(message)) {
    return new MoltError(
      'job/disk-full',
      `no space is left for ${doing}; free some and start the job again`,
      {},
      { cause: error },
    );
  }
  return new MoltError(
    'runtime/engine-failed',
    `the container engine failed at ${doing}: ${message}. Check that it runs: docker info.`,
    { doing },
    { cause: error },
  );
}

/** Performs an engine call; what it throws becomes `runtime/engine-failed`. */
export async function engineCall<T>(doing: string, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw engineFailed(doing, error);
  }
}

/** Performs a call that deletes something: that it is gone already is success. */
export async function engineRemoval(doing: string, call: () => Promise<unknown>): Promise<void> {
  try {
    await call();
  } catch (error) {
    if (!isMissing(error)) throw engineFailed(doing, error);
  }
}

/** The results of all, after all have ended; throws the first failure. */
export async function allEnded<T extends readonly unknown[] | []>(
  work: T,
): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  await Promise.allSettled(work);
  return Promise.all(work);
}
