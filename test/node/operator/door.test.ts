/**
 * Goal: the control door serves its user and nobody else, refuses in words, and outlives readers that go. Method: a real
 * door over a made-up node, the real client, and plain HTTP.
 */
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import {
  type NodeStatus,
  type Operated,
  type Operator,
  openDoor,
  openMetricsPort,
} from '../../../node/operator/index.ts';
import { openOperator } from '../../../node/operator/index.ts';
import { homeAt } from '../../../node/home.ts';
import { openJournal } from '../../../node/journal.ts';
import { type Address, encodeAddress } from '../../../protocol/address.ts';
import { systemEnv } from '../../../protocol/env.ts';
import type { LogRecord } from '../../../protocol/job-log.ts';
import { freePort } from '../../fixtures/port.ts';

const lease = encodeAddress(new Uint8Array(32).fill(5));
const env = systemEnv();
let directory: string;
let opened: AsyncDisposableStack;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'molt-door-'));
  opened = new AsyncDisposableStack();
  opened.defer(() => rm(directory, { recursive: true, force: true }));
});
afterEach(() => opened.disposeAsync());

const record = (sequence: number): LogRecord => ({
  sequence,
  atMs: 1,
  attempt: 1,
  stream: 'stdout',
  offset: sequence * 2,
  bytes: Uint8Array.of(255, sequence),
});

/** A node with one job that printed two pieces, and goes on for as long as somebody follows. */
function madeUp() {
  const seen = { draining: false, left: Promise.withResolvers<void>() };
  const operated: Operated = {
    status: () => ({ draining: seen.draining, unfinished: 1 }) as NodeStatus,
    jobs: () => [{ lease, phase: 'running' }] as unknown as ReturnType<Operated['jobs']>,
    logs: async function* (_lease: Address, { from, follow }, signal) {
      for (const sequence of [0, 1]) if (sequence >= from) yield record(sequence);
      if (!follow) return;
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
      seen.left.resolve();
    },
    market: () => ({ headline: '0 bids heard', obstacles: [], reasons: [] }),
    disputes: () => [],
    setDraining: (on) => {
      seen.draining = on;
      return Promise.resolve();
    },
    metrics: () => Promise.resolve({ contentType: 'text/plain', text: 'molt_x 1\n' }),
  };
  return { operated, seen };
}

async function connected(operated: Operated): Promise<Operator> {
  opened.use(await openDoor(homeAt(directory).door, operated));
  return opened.use(await openOperator(env, homeAt(directory)));
}

function get(path: string, method = 'GET'): Promise<{ code: number | undefined; body: string }> {
  return new Promise((resolve, reject) => {
    request({ socketPath: homeAt(directory).door, method, path }, (response) => {
      let body = '';
      response.on('data', (data: Buffer) => (body += data.toString()));
      response.on('end', () => resolve({ code: response.statusCode, body }));
    })
      .once('error', reject)
      .end();
  });
}

test('a running node tells its jobs and status, and drains when it is told', async () => {
  const { operated, seen } = madeUp();
  const operator = await connected(operated);
  expect((await stat(homeAt(directory).door)).mode & 0o777).toBe(0o600);
  expect(await operator.jobs()).toMatchObject([{ lease }]);
  expect(await operator.setDraining(true)).toMatchObject({ draining: true, unfinished: 1 });
  expect(seen.draining).toBe(true);
  expect(await operator.setDraining(false)).toMatchObject({ draining: false });
});

test('output comes as the very bytes that were printed, from the sequence that was asked for', async () => {
  const operator = await connected(madeUp().operated);
  const read = await Array.fromAsync(operator.logs(lease, { from: 1, follow: false }, new AbortController().signal));
  expect(read.map((one) => ({ ...one, bytes: [...one.bytes] }))).toEqual([{ ...record(1), bytes: [255, 1] }]);
});

test('a follower that goes ends the following, and its own loop', async () => {
  const { operated, seen } = madeUp();
  const operator = await connected(operated);
  const gone = new AbortController();
  const read: number[] = [];
  for await (const { sequence } of operator.logs(lease, { from: 0, follow: true }, gone.signal)) {
    read.push(sequence);
    if (sequence === 1) gone.abort();
  }
  expect(read).toEqual([0, 1]);
  await seen.left.promise;
});

test('a follower that goes before the node has answered reads nothing, and does not go on for ever', async () => {
  const operator = await connected(madeUp().operated);
  const gone = new AbortController();
  const reading = Array.fromAsync(operator.logs(lease, { from: 0, follow: true }, gone.signal));
  gone.abort();
  expect(await reading).toEqual([]);
});

test('a node that stops while it is spoken to is told as that', async () => {
  const door = await openDoor(homeAt(directory).door, madeUp().operated);
  await using operator = await openOperator(env, homeAt(directory));
  const following = operator.logs(lease, { from: 0, follow: true }, new AbortController().signal);
  const read: number[] = [];
  const loop = (async () => {
    for await (const { sequence } of following) {
      read.push(sequence);
      if (sequence === 1) void door[Symbol.asyncDispose]();
    }
  })();
  await expect(loop).rejects.toMatchObject({ code: 'node/stopped' });
  expect(read).toEqual([0, 1]);
  await expect(operator.jobs()).rejects.toMatchObject({ code: 'node/stopped' });
  await expect(operator.setDraining(true)).rejects.toMatchObject({ code: 'node/stopped' });
});

test('what is not known is refused in words, and the door stays open', async () => {
  const operator = await connected(madeUp().operated);
  const other = encodeAddress(new Uint8Array(32).fill(6));
  const signal = new AbortController().signal;
  await expect(Array.fromAsync(operator.logs(other, { from: 0, follow: true }, signal))).rejects.toMatchObject({
    code: 'job/unknown',
  });
  for (const path of ['/', '/logs/../../etc/passwd', '/logs/x', `/logs/${lease}?from=-1`, `/logs/${lease}?from=x`]) {
    const { code, body } = await get(path);
    expect({ path, code, error: (JSON.parse(body) as { error: { code: string } }).error.code }).toEqual({
      path,
      code: 400,
      error: 'config/usage',
    });
  }
  expect((await get('/drain')).code).toBe(400);
  expect(await get('/metrics')).toEqual({ code: 200, body: 'molt_x 1\n' });
});

test('a door that a crash left behind is replaced, and one whose path is too long is refused in words', async () => {
  await writeFile(homeAt(directory).door, 'left over');
  const operator = await connected(madeUp().operated);
  expect(await operator.status()).toBeDefined();
  const long = join(directory, 'x'.repeat(100), 'node.sock');
  await expect(openDoor(long, madeUp().operated)).rejects.toMatchObject({ code: 'config/invalid' });
});

test('of a stopped node the journal answers; one that holds it and does not answer is named', async () => {
  const home = homeAt(directory);
  {
    await using operator = await openOperator(env, home);
    expect(await operator.jobs()).toEqual([]);
    await expect(operator.setDraining(true)).rejects.toMatchObject({ code: 'config/usage' });
  }
  {
    await using _made = await openJournal(join(directory, 'journal'));
    await expect(openOperator(env, home)).rejects.toMatchObject({ code: 'node/already-running' });
  }
  await using operator = await openOperator(env, home);
  expect(await operator.status()).toBeUndefined();
  expect(await operator.setDraining(true)).toEqual({ draining: true, unfinished: 0 });
  const read = Array.fromAsync(operator.logs(lease, { from: 0, follow: false }, new AbortController().signal));
  await expect(read).rejects.toMatchObject({ code: 'job/unknown' });
});

test('the metrics port serves its own machine by its own name, metrics only, and says when it is taken', async () => {
  const port = await freePort();
  opened.use(await openMetricsPort(port, madeUp().operated));
  const ask = (path: string, host: string): Promise<number | undefined> =>
    new Promise((resolve) => {
      request({ port, host: '127.0.0.1', path, headers: { host } }, (response) => {
        response.resume();
        resolve(response.statusCode);
      }).end();
    });
  expect(await ask('/metrics', `localhost:${port}`)).toBe(200);
  expect(await ask('/metrics', 'rebound.example')).toBe(403);
  expect(await ask('/jobs', '127.0.0.1')).toBe(404);
  await expect(openMetricsPort(port, madeUp().operated)).rejects.toMatchObject({ code: 'mesh/listen-failed' });
});

test('why bids were won or not is asked of a running node, and a stopped one hears none', async () => {
  expect(await (await connected(madeUp().operated)).market()).toEqual({
    headline: '0 bids heard',
    obstacles: [],
    reasons: [],
  });
  const never = await openOperator(env, homeAt(join(directory, 'never')));
  expect(await never.market()).toBeUndefined();
});
