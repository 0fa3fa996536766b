/**
 * The engine behind a socket: calls with a deadline, errors in our words, and nothing that can hang for ever.
 */
import { createRequire } from 'node:module';

import type Docker from 'dockerode';

import type { Env } from '../../../protocol/env.ts';
import { MoltError } from '../../../protocol/errors.ts';
import { freshConnections } from '../../http.ts';

/** Labels by which a node finds what is its own. */
export const LABEL = {
  node: 'molt.node',
  attempt: 'molt.attempt',
  role: 'molt.role',
  terms: 'molt.terms',
} as const;

/** An engine that is silent for so long while it is given something to do is treated as gone. */
const CALL_MS_MAX = 60_000;
/** Questions and removals are answered within this, or asked again: what is removed twice is gone just the same. */
const ANSWER_MS_MAX = 15_000;

export type Engine = Docker;
/** Podman answers the same calls, and means other things by some of them. */
export type EngineKind = 'docker' | 'podman';

export interface EngineClients {
  /** For calls that answer at once. */
  readonly calls: Engine;
  /** For what stays open while a job runs or an image is pulled: silence there means nothing. */
  readonly streams: Engine;
}

export function connectEngine(env: Env, socketPath: string): EngineClients {
  // Loaded on first use: it brings 17 MB of memory that a node without containers does not need.
  const Client = createRequire(import.meta.url)('dockerode') as typeof Docker;
  // An engine that shuts down stops listening first and ends its containers then, but goes on serving the connections it
  // has: over one of those it would tell of an end as if it were the job's own, and take removals that it does not complete.
  const place = { socketPath, agent: freshConnections() };
  const patient = { ...place, timeout: CALL_MS_MAX };
  const calls = new Client(patient);
  boundAnswers(env, calls);
  return { calls, streams: new Client(place) };
}

/**
 * Ends questions and removals at their time. The client itself bounds the silence before an answer and nothing after it:
 * an engine that dies in the middle of one would be waited for until the node ends.
 */
function boundAnswers(env: Env, { modem }: Engine): void {
  const dial = modem.dial.bind(modem);
  modem.dial = (options, callback) => {
    if (options.method !== 'GET' && options.method !== 'DELETE') return dial(options, callback);
    const answered = new AbortController();
    const given = new AbortController();
    const end: typeof callback = (error, result) => {
      if (answered.signal.aborted) return;
      answered.abort();
      callback?.(error, result);
    };
    const late = (): void => {
      end(new Error(`no whole answer came within ${ANSWER_MS_MAX / 1_000} s`), null);
      given.abort();
    };
    env.clock.sleep(ANSWER_MS_MAX, answered.signal).then(late, () => undefined);
    return dial({ ...options, abortSignal: given.signal }, end);
  };
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
