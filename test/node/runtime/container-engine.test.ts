/**
 * Goal: no call to an engine lasts for ever, and none goes to an engine that is ending. Method: a server on a socket that
 * behaves as an engine does that dies or shuts down in the middle of something.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { type RequestListener, type Server, createServer } from 'node:http';
import { Server as SocketServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, it } from 'vitest';

import { type EngineClients, connectEngine, engineCall } from '../../../node/runtime/container/engine.ts';
import { type Env, systemEnv } from '../../../protocol/env.ts';

let directory: string;
let socketPath: string;
let server: Server;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'molt-engine-calls-'));
  socketPath = join(directory, 'engine.sock');
});
afterEach(() => {
  server.closeAllConnections();
  server.close();
  rmSync(directory, { recursive: true, force: true });
});

/** Clients of an engine that answers so. */
async function connectTo(answer: RequestListener, env: Env = systemEnv()): Promise<EngineClients> {
  server = createServer({ keepAliveTimeout: 60_000 }, answer);
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  return connectEngine(env, socketPath);
}

it('gets no answer from an engine that stopped listening, though its connections are open', async () => {
  const { calls, streams } = await connectTo((_request, response) => response.end('{}'));
  for (const client of [calls, streams]) await client.info();
  // The listener alone: the server's own way would close what is idle as well.
  SocketServer.prototype.close.call(server);
  for (const client of [calls, streams]) {
    const asked = engineCall('asking', () => client.info());
    await expect(asked).rejects.toMatchObject({ code: 'runtime/engine-failed' });
  }
});

it.each([
  ['a question', (clients: EngineClients) => clients.calls.listContainers()],
  ['a removal', (clients: EngineClients) => clients.calls.getVolume('x').remove()],
])('%s that an engine began to answer when it died fails in its time', async (_, call) => {
  const env = systemEnv();
  const { promise: cut, resolve: onCut } = Promise.withResolvers<void>();
  const asked: number[] = [];
  const sleep = async (ms: number): Promise<void> => {
    asked.push(ms);
    await cut;
  };
  const clients = await connectTo(
    (_request, response) => {
      response.writeHead(200, { 'content-length': 100 });
      response.write('[{"Id":');
      setImmediate(() => response.destroy());
      response.once('close', onCut);
    },
    { ...env, clock: { ...env.clock, sleep } },
  );
  await expect(engineCall('asking', () => call(clients) as Promise<unknown>)).rejects.toMatchObject({
    code: 'runtime/engine-failed',
  });
  expect(asked).toEqual([15_000]);
});

it('leaves an engine its time for what it was told to do', async () => {
  const env = systemEnv();
  const clock = { ...env.clock, sleep: async () => undefined };
  const { calls } = await connectTo((_request, response) => setTimeout(() => response.end('{"Id":"1"}'), 50), {
    ...env,
    clock,
  });
  expect((await calls.createContainer({ Image: 'x' })).id).toBe('1');
});
