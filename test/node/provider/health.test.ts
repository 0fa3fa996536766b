/**
 * Goal: a service counts as ready exactly when it answers as the check asks, and its changes are told once. Method: a
 * clock that the test moves, connections that answer what the test says.
 */
import { Duplex } from 'node:stream';

import { describe, expect, it } from 'vitest';

import { type HealthCheck, watchHealth } from '../../../node/provider/health.ts';
import { type Env, systemEnv } from '../../../protocol/env.ts';

const CHECK: HealthCheck = { service: 'web', path: '/up', intervalSeconds: 1, startSeconds: 5, failures: 2 };

/** Time that passes only while somebody sleeps, at once. Deadlines of questions never come. */
function fastEnv(): Env {
  let nowMs = 0;
  const clock = {
    now: () => nowMs,
    monotonic: () => nowMs,
    sleep: async (ms: number, signal?: AbortSignal) => {
      if (ms === 5_000)
        return new Promise<void>((_, reject) =>
          signal?.addEventListener('abort', () => reject(signal.reason as Error)),
        );
      nowMs += ms;
      await new Promise((resolve) => setImmediate(resolve));
    },
    every: () => ({ [Symbol.dispose]: () => undefined }),
  };
  return { ...systemEnv(), clock };
}

/** A connection that answers a request with this text, or is refused. */
function answering(text: string | undefined): Duplex {
  if (text === undefined) throw new Error('ECONNREFUSED');
  return new Duplex({
    read() {},
    write(request: Buffer, _encoding, done) {
      expect(request.toString()).toMatch(/^GET \/up HTTP\/1\.1\r\nHost: localhost\r\n/);
      this.push(text);
      this.push(null);
      done();
    },
  });
}

const OK = 'HTTP/1.1 200 OK\r\n\r\n';
const DOWN = 'HTTP/1.1 503 Busy\r\n\r\n';

/** What is told while the service gives these answers, one a question, and how the watch ends. */
async function watch(
  answers: readonly (string | undefined)[],
  more: { readonly check?: HealthCheck; readonly wasReady?: boolean } = {},
): Promise<{ readonly told: string[]; readonly end: string | undefined }> {
  const over = new AbortController();
  const told: string[] = [];
  let asked = 0;
  const end = await watchHealth(
    fastEnv(),
    {
      check: more.check ?? CHECK,
      wasReady: more.wasReady ?? false,
      connect: async () => {
        if (asked === answers.length - 1) queueMicrotask(() => setImmediate(() => over.abort()));
        return answering(answers[asked++]);
      },
      tell: (ready, reason) => told.push(ready ? 'ready' : `unready: ${reason}`),
    },
    over.signal,
  );
  return { told, end };
}

describe('a health check', () => {
  it('is passed by 2xx and 3xx, told once', async () => {
    expect(await watch([undefined, DOWN, OK, 'HTTP/1.0 302 Found\r\n\r\n', OK])).toEqual({
      told: ['ready'],
      end: undefined,
    });
  });

  it('is not passed by anything else', async () => {
    for (const text of [
      'HTTP/1.1 404 No\r\n\r\n',
      'HTTP/1.1 100 Go on\r\n\r\n',
      'SSH-2.0\r\n',
      '',
      'x'.repeat(5_000),
    ]) {
      const { told, end } = await watch(Array.from({ length: 7 }, () => text));
      expect(told, text).toEqual([]);
      expect(end, text).toMatch(/^GET \/up (?:answered|got no)/);
    }
  });

  it('is passed by a connection alone where no path is asked', async () => {
    const { path: _path, ...check } = CHECK;
    expect((await watch([undefined, 'anything', 'anything'], { check })).told).toEqual(['ready']);
  });

  it('ends the watch with the last reason when the start takes too long', async () => {
    expect(await watch(Array.from({ length: 7 }, () => undefined))).toEqual({ told: [], end: 'ECONNREFUSED' });
  });

  it('is missed after so many misses in a row, and passed again', async () => {
    const { told, end } = await watch([OK, DOWN, OK, DOWN, DOWN, DOWN, OK, OK]);
    expect(told).toEqual(['ready', 'unready: GET /up answered 503', 'ready']);
    expect(end).toBeUndefined();
  });

  it('never stops a service that was ready once, also before this node restarted', async () => {
    const { told, end } = await watch(
      Array.from({ length: 20 }, () => undefined),
      { wasReady: true },
    );
    expect(told).toEqual(['unready: ECONNREFUSED']);
    expect(end).toBeUndefined();
  });
});
