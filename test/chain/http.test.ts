/** How an endpoint is asked: against real servers on loopback that answer well, too much, not at all. */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { type RequestListener, type Server, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gzipSync } from 'node:zlib';

import { afterEach, expect, test } from 'vitest';

import { post } from '../../chain/http.ts';

const servers: Server[] = [];
const { signal } = new AbortController();

async function serve(listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}

afterEach(() => {
  for (const server of servers.splice(0)) server.close().closeAllConnections();
});

test('what is asked arrives as JSON, and the whole answer comes back with its status', async () => {
  const url = await serve((request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      const body = Buffer.concat(parts).toString();
      response.writeHead(503, { 'retry-after': '7' }).end(`${request.headers['content-type']} ${body}`);
    });
  });
  const { status, statusText, headers, text } = await post(url, '{"é":1}', { signal });
  expect({ status, statusText, text }).toEqual({
    status: 503,
    statusText: 'Service Unavailable',
    text: 'application/json {"é":1}',
  });
  expect(headers['retry-after']).toBe('7');
});

test('a packed answer is unpacked, and one that is cut is an error', async () => {
  const packed = gzipSync(JSON.stringify({ result: 'x'.repeat(100_000) }));
  let cut = false;
  const url = await serve((_, response) => {
    response.setHeader('content-encoding', 'gzip').end(cut ? packed.subarray(0, packed.length - 9) : packed);
  });
  expect(JSON.parse((await post(url, '', { signal })).text)).toEqual({ result: 'x'.repeat(100_000) });
  cut = true;
  await expect(post(url, '', { signal })).rejects.toMatchObject({ code: 'Z_BUF_ERROR' });
});

test('an answer that would fill the memory is refused, packed or not', async () => {
  const bomb = gzipSync(Buffer.alloc(65 * 1024 * 1024));
  const url = await serve((_, response) => void response.setHeader('content-encoding', 'gzip').end(bomb));
  await expect(post(url, '', { signal })).rejects.toMatchObject({ code: 'protocol/oversize' });
});

test('the signal ends a question that nobody answers, and an answer that does not end', async () => {
  for (const begin of [false, true]) {
    const asking = new AbortController();
    const url = await serve((_, response) => {
      if (begin) response.write('begun');
      setImmediate(() => asking.abort());
    });
    await expect(post(url, '', { signal: asking.signal })).rejects.toThrow();
  }
});

test('a process that asks a chain has not loaded what is behind fetch', async () => {
  const client = new URL('../../chain/client.ts', import.meta.url).href;
  const env = new URL('../../protocol/env.ts', import.meta.url).href;
  const script = `
    const { openChain } = await import(${JSON.stringify(client)});
    const { systemEnv } = await import(${JSON.stringify(env)});
    const answer = await openChain(systemEnv(), { rpcUrl: 'http://127.0.0.1:1' }).catch((error) => error.code);
    console.log(answer, process.moduleLoadList.filter((name) => name.includes('undici')));
    process.exit();`;
  const told = execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
  expect(told).toBe('chain/unreachable []\n');
});
