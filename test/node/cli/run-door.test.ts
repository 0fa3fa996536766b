/** Goal: the door of `molt run` opens forwards for its own job and nothing else, whatever is said to it. Method: real sockets. */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { type Socket, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { type ForwardLine, forwardThroughRun, openRunDoor } from '../../../node/cli/run-door.ts';
import type { Address } from '../../../protocol/address.ts';
import { MoltError } from '../../../protocol/errors.ts';
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

async function openDoor(lease: Address | undefined = LEASE): Promise<AsyncDisposable> {
  const door = await openRunDoor(path, {
    lease: () => lease,
    forward: async (servicePort, options): Promise<Forward> => {
      if (servicePort === 22) throw new MoltError('job/impossible', 'the job has no service 22');
      const closed = new AbortController();
      options.signal?.addEventListener('abort', () => closed.abort(), { once: true });
      opened.push({ servicePort, options, closed });
      const close = async (): Promise<void> => closed.abort();
      return { host: '127.0.0.1', port: 40_000, servicePort, closed: closed.signal, [Symbol.asyncDispose]: close };
    },
  });
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

test('garbage is answered in one line, and nothing is opened', async () => {
  await using _door = await openDoor();
  for (const garbage of [
    'x\n',
    '{}\n',
    '{"job":"7","servicePort":0}\n',
    '{"job":"7","servicePort":1,"more":1}\n',
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
