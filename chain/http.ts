/**
 * One question to an RPC endpoint and its answer.
 *
 * Over `node:http` and not `fetch`: the library behind `fetch` brings a parser in WebAssembly and 750 KB of source, some 18 MB
 * of a process that asks a chain a few things a second. Connections are kept by Node's own agents, which follow
 * NODE_USE_ENV_PROXY as `fetch` does. Redirects are not followed.
 */
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { request as requestSecure } from 'node:https';
import { type Readable, pipeline } from 'node:stream';
import { createGunzip } from 'node:zlib';

import { MoltError } from '../protocol/errors.ts';

// An `import` of it would read all its exports, one of which is the WebSocket of the library that is spared here.
const { request: requestPlain } = process.getBuiltinModule('node:http');

/** Every account of a program may be asked for at once; a chain of ten thousand providers answers with a tenth of it. */
const ANSWER_BYTES_MAX = 64 * 1024 * 1024;

export interface Answer {
  readonly status: number;
  readonly statusText: string;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

/**
 * Sends JSON and reads the whole answer, whatever its status. Throws what the system says (`ECONNREFUSED`), what the
 * signal says as an `AbortError`, `ERR_INVALID_URL`, and `protocol/oversize` for more than 64 MiB.
 */
export async function post(url: string, body: string, options: PostOptions): Promise<Answer> {
  const target = new URL(url);
  const request = target.protocol === 'https:' ? requestSecure : requestPlain;
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const headers = { 'content-type': 'application/json', 'accept-encoding': 'gzip', ...options.headers };
  request(target, { method: 'POST', headers, signal: options.signal }, resolve).on('error', reject).end(body);
  const response = await promise;
  return {
    status: response.statusCode ?? 0,
    statusText: response.statusMessage ?? '',
    headers: response.headers,
    text: await textOf(response),
  };
}

export interface PostOptions {
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

async function textOf(response: IncomingMessage): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of unpacked(response)) {
    bytes += (chunk as Uint8Array).length;
    if (bytes > ANSWER_BYTES_MAX) {
      response.destroy();
      throw new MoltError('protocol/oversize', `the endpoint answers with more than ${ANSWER_BYTES_MAX} bytes`);
    }
    chunks.push(chunk as Uint8Array);
  }
  return Buffer.concat(chunks, bytes).toString('utf8');
}

function unpacked(response: IncomingMessage): Readable {
  return response.headers['content-encoding'] === 'gzip'
    ? pipeline(response, createGunzip(), () => undefined)
    : response;
}
