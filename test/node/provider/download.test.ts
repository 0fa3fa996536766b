/**
 * Goal: an input from the web arrives whole or not at all, from nowhere but where the provider lets jobs reach, and a cut
 * costs nothing twice. Method: a real TLS server on loopback that the test declares to be the web.
 */
import { createHash, randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';

import { afterEach, describe, expect, it } from 'vitest';

import { type Download, download, secureConnection } from '../../../node/provider/download.ts';
import { locate } from '../../../protocol/egress.ts';
import { systemEnv } from '../../../protocol/env.ts';
import { type TestWeb, openWeb } from '../../fixtures/web.ts';

/** Waits between tries take no time here. */
const system = systemEnv();
const env = {
  ...system,
  clock: {
    ...system.clock,
    now: () => system.clock.now(),
    monotonic: () => system.clock.monotonic(),
    every: (ms: number, task: () => void) => system.clock.every(ms, task),
    sleep: (ms: number, signal?: AbortSignal) => system.clock.sleep(ms > 10_000 ? ms : 1, signal),
  },
};
const MIB = 1024 * 1024;
const content = randomBytes(3 * MIB + 7);
const sha256 = createHash('sha256').update(content).digest('hex');

let web: TestWeb;
afterEach(() => web[Symbol.asyncDispose]());

async function get(url: string, options: Partial<Download> = {}): Promise<Buffer> {
  const connect = secureConnection(web.outside, web.authority);
  const policy = [`*.example.com:${web.port}`, `*.private.com:${web.port}`, `wrong.name.com:${web.port}`];
  const job = { url, maxBytes: 8 * MIB, signal: new AbortController().signal, ...options };
  const parts: Uint8Array[] = [];
  for await (const part of download(env, { connect, policy }, job)) parts.push(part);
  return Buffer.concat(parts);
}

const send = (_request: IncomingMessage, response: ServerResponse): void => void response.end(content);

/** Answers in pieces: after each `piece` bytes the connection breaks. `ranges` says whether it can go on. */
function breaking(piece: number, ranges: boolean, etag?: string) {
  return (request: IncomingMessage, response: ServerResponse): void => {
    const from = ranges ? Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0) : 0;
    const headers = { 'content-length': content.length - from, ...(etag === undefined ? {} : { etag }) };
    const until = ranges ? from + piece : ++tries * piece;
    if (from > 0)
      response.writeHead(206, {
        ...headers,
        'content-range': `bytes ${from}-${content.length - 1}/${content.length}`,
      });
    else response.writeHead(200, headers);
    response.write(content.subarray(from, until), () => {
      if (until >= content.length) response.end();
      else setTimeout(() => response.socket?.destroy(), 30);
    });
  };
}
let tries = 0;

describe('a download', () => {
  it('brings the object, tells progress, and checks the hash it was given', async () => {
    web = await openWeb((_request, response) => {
      response.setHeader('content-length', content.length);
      response.end(content);
    });
    const progress: (number | undefined)[][] = [];
    const got = await get(web.url('data.example.com', '/a?sig=1'), {
      sha256,
      onProgress: (done, total) => progress.push([done, total]),
    });
    expect(got.equals(content)).toBe(true);
    expect(progress.at(-1)).toEqual([content.length, content.length]);
    expect(web.asked).toEqual(['data.example.com /a?sig=1']);
    const wrong = get(web.url('data.example.com', '/a?sig=SECRET'), { sha256: '0'.repeat(64) });
    await expect(wrong).rejects.toMatchObject({ code: 'job/input-missing' });
    await expect(wrong).rejects.not.toThrow('SECRET');
  });

  it('goes on at the byte where it was cut, of the same version of the object', async () => {
    web = await openWeb(breaking(MIB, true, '"v1"'));
    expect((await get(web.url('data.example.com', '/a'), { sha256 })).equals(content)).toBe(true);
    expect(web.asked.length).toBe(4);
    for (const line of web.asked.slice(1)) expect(line).toMatch(/^data\.example\.com \/a bytes=\d+-$/);
  });

  it('compares what a server without ranges sends again, and goes on behind it', async () => {
    tries = 0;
    web = await openWeb(breaking(MIB, false));
    expect((await get(web.url('data.example.com', '/a'), { sha256 })).equals(content)).toBe(true);
    expect(web.asked).toEqual(Array.from({ length: 4 }, () => 'data.example.com /a'));
  });

  it('refuses an object that changed between two pieces', async () => {
    let asked = 0;
    web = await openWeb((_request, response) => {
      response.setHeader('content-length', content.length);
      const version = Buffer.from(content);
      version[5] = asked++;
      response.write(version.subarray(0, MIB * asked), () => setTimeout(() => response.socket?.destroy(), 30));
    });
    await expect(get(web.url('data.example.com', '/a'))).rejects.toMatchObject({
      code: 'job/input-missing',
      message: expect.stringContaining('changed') as string,
    });
  });

  it('gives up a server that never sends the whole', async () => {
    web = await openWeb((_request, response) => {
      response.writeHead(200, { 'content-length': 10 });
      response.write('x', () => setTimeout(() => response.socket?.destroy(), 5));
    });
    await expect(get(web.url('data.example.com', '/a'))).rejects.toMatchObject({ code: 'job/input-missing' });
    expect(web.asked.length).toBeLessThan(12);
  });

  it('stops at the size it may have, told or not', async () => {
    web = await openWeb((request, response) => {
      if (request.url === '/told') response.setHeader('content-length', content.length);
      response.end(content);
    });
    for (const path of ['/told', '/untold']) {
      await expect(get(web.url('data.example.com', path), { maxBytes: MIB })).rejects.toMatchObject({
        code: 'artifact/too-large',
      });
    }
  });

  it('is tried again when the server is busy', async () => {
    let asked = 0;
    web = await openWeb((request, response) => {
      if (asked++ === 0) response.writeHead(503).end();
      else send(request, response);
    });
    expect((await get(web.url('data.example.com', '/a'))).length).toBe(content.length);
  });

  it('ends with its signal', async () => {
    web = await openWeb((_request, response) => void response.write('x'));
    await expect(get(web.url('data.example.com', '/a'), { signal: AbortSignal.timeout(200) })).rejects.toMatchObject({
      name: 'TimeoutError',
    });
  });
});

describe('where a download may go', () => {
  it('is nowhere outside of the policy, nor to addresses that are not public, nor to numbers', async () => {
    web = await openWeb(send);
    for (const [url, code] of [
      // Another provider may let jobs go there; the rest is nowhere that any should.
      [web.url('example.com', '/'), 'market/egress-refused'],
      [web.url('elsewhere.org', '/'), 'market/egress-refused'],
      ['https://data.example.com/', 'market/egress-refused'],
      [web.url('127.0.0.1', '/'), 'job/egress-refused'],
      [web.url('[::1]', '/'), 'job/egress-refused'],
      [web.url('2130706433', '/'), 'job/egress-refused'],
      [web.url('inside.private.com', '/'), 'job/egress-refused'],
    ] as const) {
      await expect(get(url)).rejects.toMatchObject({ code });
    }
    expect(web.asked).toEqual([]);
  });

  it('is no server whose certificate is not good for the name', async () => {
    web = await openWeb(send);
    await expect(get(web.url('wrong.name.com', '/'))).rejects.toMatchObject({ code: 'job/input-missing' });
    expect(web.asked).toEqual([]);
  });

  it('is judged again at every redirect', async () => {
    const places: Record<string, string> = {};
    web = await openWeb((request, response) => {
      const location = places[request.url ?? ''];
      if (location === undefined) send(request, response);
      else response.writeHead(302, { location }).end();
    });
    places['/ok'] = web.url('other.example.com', '/a');
    places['/relative'] = '/a';
    places['/private'] = web.url('inside.private.com', '/');
    places['/number'] = web.url('127.0.0.1', '/a');
    places['/elsewhere'] = web.url('elsewhere.org', '/');
    places['/http'] = 'http://data.example.com/';
    places['/file'] = 'file:///etc/passwd';
    places['/loop'] = '/loop';
    for (const path of ['/ok', '/relative'])
      expect((await get(web.url('data.example.com', path))).length).toBe(content.length);
    expect(web.asked).toContain('other.example.com /a');
    for (const [path, code] of [
      ['/private', 'job/egress-refused'],
      ['/number', 'job/egress-refused'],
      ['/elsewhere', 'market/egress-refused'],
      ['/http', 'job/input-missing'],
      ['/file', 'job/input-missing'],
      ['/loop', 'job/input-missing'],
    ]) {
      await expect(get(web.url('data.example.com', path ?? ''))).rejects.toMatchObject({ code });
    }
  });
});

describe('what a download refuses', () => {
  it('is an answer that is not the object: errors, compressed content, headers without end', async () => {
    web = await openWeb((request, response) => {
      if (request.url === '/gone') response.writeHead(404).end();
      else if (request.url === '/mine') response.writeHead(403).end();
      else if (request.url === '/zip') response.writeHead(200, { 'content-encoding': 'gzip' }).end('x');
      else response.writeHead(200, { 'x-long': 'x'.repeat(64 * 1024) }).end('x');
    });
    for (const path of ['/gone', '/mine', '/zip', '/long'])
      await expect(get(web.url('data.example.com', path))).rejects.toMatchObject({ code: 'job/input-missing' });
    await expect(get(web.url('data.example.com', '/mine'))).rejects.toThrow('presigned');
  });
});

describe('an s3 URL', () => {
  it('is the public address of its object', async () => {
    web = await openWeb(send);
    expect(locate('s3://bucket/dir/a%20b.csv').href).toBe('https://bucket.s3.amazonaws.com/dir/a%20b.csv');
    expect(locate('s3://my.bucket/a').href).toBe('https://s3.amazonaws.com/my.bucket/a');
    expect(locate('https://x.example.com/a?b=c').href).toBe('https://x.example.com/a?b=c');
  });
});
