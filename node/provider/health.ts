/**
 * Whether a service of a job answers: asked at intervals through its network, told when it changes.
 */
import type { Duplex } from 'node:stream';

import { Deadline } from '../../protocol/deadline.ts';
import type { Env } from '../../protocol/env.ts';
import type { JobSpec } from '../../protocol/job-spec.ts';

export type HealthCheck = NonNullable<JobSpec['health']>;

export interface HealthWatch {
  readonly check: HealthCheck;
  /** Opens a connection to the service. */
  readonly connect: (signal: AbortSignal) => Promise<Duplex>;
  /** The service was ready before this node restarted: it need not start again. */
  readonly wasReady: boolean;
  readonly tell: (ready: boolean, reason: string) => void;
}

/** One question may take this long. */
const ANSWER_MS = 5_000;
const STATUS_BYTES_MAX = 1_024;

/**
 * Asks until the signal aborts; then resolves with undefined. A service that is not ready within its start time ends the
 * watch: resolves with what the last question met. A service that was ready once is only reported on.
 */
export async function watchHealth(env: Env, watch: HealthWatch, signal: AbortSignal): Promise<string | undefined> {
  const { check, tell } = watch;
  const startUntilMs = env.clock.monotonic() + check.startSeconds * 1_000;
  let state: 'starting' | 'ready' | 'unready' = watch.wasReady ? 'ready' : 'starting';
  let misses = 0;
  while (!signal.aborted) {
    const miss = await ask(env, watch, signal);
    if (signal.aborted) break;
    misses = miss === undefined ? 0 : misses + 1;
    if (miss === undefined) {
      if (state !== 'ready') tell(true, '');
      state = 'ready';
    } else if (state === 'starting' && env.clock.monotonic() >= startUntilMs) {
      return miss;
    } else if (state === 'ready' && misses >= check.failures) {
      tell(false, miss);
      state = 'unready';
    }
    await env.clock.sleep(check.intervalSeconds * 1_000, signal).catch(() => undefined);
  }
  return undefined;
}

/** Undefined when the service is well, else why not. */
async function ask(env: Env, { check, connect }: HealthWatch, signal: AbortSignal): Promise<string | undefined> {
  using deadline = new Deadline(env.clock, ANSWER_MS, signal);
  try {
    const connection = await connect(deadline.signal);
    // A break is told by the reading loop.
    connection.on('error', () => undefined);
    const onAbort = (): void => void connection.destroy();
    deadline.signal.addEventListener('abort', onAbort, { once: true });
    try {
      return check.path === undefined ? undefined : await askHttp(connection, check.path);
    } finally {
      connection.destroy();
    }
  } catch (error) {
    if (deadline.expired) return `no answer within ${ANSWER_MS / 1_000} s`;
    return error instanceof Error ? error.message : String(error);
  }
}

async function askHttp(connection: Duplex, path: string): Promise<string | undefined> {
  connection.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: molt-health\r\nConnection: close\r\n\r\n`);
  let head = '';
  for await (const chunk of connection as AsyncIterable<Buffer>) {
    head += chunk.toString('latin1');
    if (head.includes('\n') || head.length > STATUS_BYTES_MAX) break;
  }
  const status = /^HTTP\/1\.[01] (\d{3})\b/.exec(head)?.[1];
  if (status === undefined) return `GET ${path} got no HTTP answer`;
  return /^[23]/.test(status) ? undefined : `GET ${path} answered ${status}`;
}
