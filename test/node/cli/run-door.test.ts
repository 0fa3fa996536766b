/**
 * Goal: the door of `molt run` opens forwards for its own job, reads output, and does nothing else, whatever is said to it.
 * Method: real sockets.
 */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { type Socket, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import {
  type ForwardLine,
  type OutputQuery,
  type RunningJob,
  forwardThroughRun,
  logsThroughRun,
  openRunDoor,
} from '../../../node/cli/run-door.ts';
import type { Address } from '../../../protocol/address.ts';
import { MoltError } from '../../../protocol/errors.ts';
import type { LogRecord } from '../../../protocol/job-log.ts';
import type { Forward, ForwardOptions } from '../../../sdk/index.ts';

const LEASE = '7xKXtg2CW87d97TXJSDpbD5jBkheTqA83TZRuJosgAsU' as Address;
const never = new AbortController().signal;

let directory: string;
let path: string;
let opened: { readonly servicePort: number; readonly options: ForwardOptions; readonly closed: AbortController }[];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'molt-door-'));
  path = join(directory, 'run.sock');
  opened = [];
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** Ten records with bytes that are no text; `--follow` waits for ever after them. */
async function* logs(
  lease: Address,
  { from, follow, signal }: OutputQuery & { readonly signal: AbortSignal },
): AsyncGenerator<LogRecord> {
  if (lease !== LEASE) throw new MoltError('job/unknown', `there is no ${lease}`);
  for (let sequence = from; sequence < 10; sequence++) {
    const bytes = new Uint8Array(50_000).fill(sequence + 250);
    yield { sequence, atMs: 1, attempt: 1, stream: sequence % 2 === 0 ? 'stdout' : 'stderr', offset: 0, bytes };
  }
  if (follow)
    await new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(new Error('left'))));
}

async function openDoor(lease: Address | undefined = LEASE, isGang = false): Promise<AsyncDisposable> {
  const job: RunningJob = {
    lease: () => lease,
    forward: async (servicePort, options): Promise<Forward> => {
      if (servicePort === 22) throw new MoltError('job/impossible', 'the job has no service 22');
      const closed = new AbortController();
      options.signal?.addEventListener('abort', () => closed.abort(), { once: true });
      opened.push({ servicePort, options, closed });
      const close = async (): Promise<void> => closed.abort();
      return { host: '127.0.0.1', port: 40_000, servicePort, closed: closed.signal, [Symbol.asyncDispose]: close };
    },
  };
  const door = await openRunDoor(path, { ...(isGang ? {} : { job }), logs });
  if (door === undefined) throw new Error('the path is too long');
  return door;
}

test('a forward is told, its refusals too, and it ends with whoever asked', async () => {
  await using _door = await openDoor();
  expect(statSync(path).mode & 0o777).toBe(0o600);
  const lines: ForwardLine[] = [];
  const leaving = new AbortController();
  const asking = forwardThroughRun(
    path,
    { job: '7xKX…', servicePort: 8080 },
    (line) => lines.push(line),
    leaving.signal,
  );
  await expect.poll(() => lines).toEqual([{ type: 'listening', lease: LEASE, port: 40_000, servicePort: 8080 }]);
  opened[0]?.options.onRefused?.(new MoltError('mesh/unreachable', 'not yet'));
  await expect.poll(() => lines[1]).toEqual({ type: 'refused', code: 'mesh/unreachable', reason: 'not yet' });
  leaving.abort();
  expect(await asking).toBe(true);
  await expect.poll(() => opened[0]?.closed.signal.aborted).toBe(true);
});

test('a forward that ends by itself ends the asking', async () => {
  await using _door = await openDoor();
  const asking = forwardThroughRun(path, { job: LEASE, servicePort: 8080 }, () => undefined, never);
  await expect.poll(() => opened.length).toBe(1);
  opened[0]?.closed.abort();
  expect(await asking).toBe(true);
});

test('another job, a port that is no service and a lease that is not open are refused with their reason', async () => {
  const ask = (job: string, servicePort: number): Promise<boolean> =>
    forwardThroughRun(path, { job, servicePort }, () => undefined, never);
  {
    await using _door = await openDoor();
    await expect(ask('8', 8080)).rejects.toMatchObject({
      code: 'job/unknown',
      message: expect.stringContaining(LEASE),
    });
    await expect(ask('7x', 22)).rejects.toMatchObject({ code: 'job/impossible' });
  }
  expect(await ask('7x', 8080)).toBe(false);
});

async function read(query: OutputQuery & { readonly lease: Address }, signal = never): Promise<readonly LogRecord[]> {
  const records: LogRecord[] = [];
  for await (const record of (await logsThroughRun(path, query, signal)) ?? []) records.push(record);
  return records;
}

test('output comes as it is kept, from where it is wanted, also of a job that is not the one that runs', async () => {
  {
    await using _door = await openDoor(undefined, true);
    const records = await read({ lease: LEASE, from: 7, follow: false });
    expect(records.map(({ sequence, stream, bytes }) => [sequence, stream, bytes.length, bytes[0]])).toEqual([
      [7, 'stderr', 50_000, 1],
      [8, 'stdout', 50_000, 2],
      [9, 'stderr', 50_000, 3],
    ]);
    const other = '1'.repeat(32) as Address;
    await expect(read({ lease: other, from: 0, follow: false })).rejects.toMatchObject({ code: 'job/unknown' });
    await expect(
      forwardThroughRun(path, { job: '7x', servicePort: 8080 }, () => undefined, never),
    ).rejects.toMatchObject({ code: 'job/unknown', message: expect.stringContaining('it is a gang') });
  }
  expect(await logsThroughRun(path, { lease: LEASE, from: 0, follow: false }, never)).toBeUndefined();
});

test('output that is cut says so, and who leaves ends the reading', async () => {
  const door = await openDoor();
  const following = expect(read({ lease: LEASE, from: 9, follow: true })).rejects.toMatchObject({
    code: 'mesh/closed',
  });
  const leaving = new AbortController();
  const left = read({ lease: LEASE, from: 0, follow: true }, leaving.signal);
  setImmediate(() => leaving.abort(new MoltError('job/cancelled', 'enough')));
  await expect(left).rejects.toMatchObject({ code: 'job/cancelled' });
  await door[Symbol.asyncDispose]();
  await following;
});

test('garbage is answered in one line, and nothing is opened', async () => {
  await using _door = await openDoor();
  for (const garbage of [
    'x\n',
    '{}\n',
    '{"job":"7","servicePort":0}\n',
    '{"job":"7","servicePort":1,"more":1}\n',
    '{"logs":"7","from":-1,"follow":true}\n',
    'y'.repeat(5_000),
  ]) {
    const socket = connect({ path });
    socket.write(garbage);
    expect(await textOf(socket), garbage.slice(0, 40)).toMatch(/^\{"type":"failed","code":"config\/usage"[^\n]*\n$/);
  }
  expect(opened).toEqual([]);
});

async function textOf(socket: Socket): Promise<string> {
  let text = '';
  for await (const chunk of socket) text += String(chunk);
  return text;
}
