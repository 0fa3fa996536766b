/**
 * The control door of a running node: HTTP on a unix socket that only the node's own user can open, and, where a port is
 * set, its metrics on the loopback interface.
 *
 * Nothing here is reachable from the network, and nothing it tells is a secret of a buyer: it speaks of leases, amounts
 * and program output, which the machine's owner has anyway. Requests have no body; a refusal is the error as JSON.
 */
import { chmod, rm } from 'node:fs/promises';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

import type { SalesExplanation } from '../../market/index.ts';
import { type Address, parseAddress } from '../../protocol/address.ts';
import { MoltError } from '../../protocol/errors.ts';
import type { LogRecord } from '../../protocol/job-log.ts';
import type { DisputeSummary } from '../verifier/index.ts';
import type { JobSummary } from './job-summary.ts';
import { createServer } from '../http.ts';
import { type LogQuery, type NodeStatus, unknownJob } from './operator.ts';

/** What the node lets the door do. */
export interface Operated {
  status(): NodeStatus;
  jobs(): readonly JobSummary[];
  /** Of a job that `jobs` names. */
  logs(lease: Address, query: LogQuery, signal: AbortSignal): AsyncIterable<LogRecord>;
  disputes(): readonly DisputeSummary[];
  setDraining(on: boolean): Promise<void>;
  /** Why bids were won or not. */
  market(): SalesExplanation;
  /** Prometheus text. */
  metrics(): Promise<{ readonly contentType: string; readonly text: string }>;
}

/** Bytes of a socket's path that every system takes (macOS 103, Linux 107). */
const PATH_BYTES_MAX = 103;
const CONNECTIONS_MAX = 64;

/** Opens the door at `path`, taking the place of one that a crash left there. Throws `config/invalid`. */
export async function openDoor(path: string, operated: Operated): Promise<AsyncDisposable> {
  if (Buffer.byteLength(path) > PATH_BYTES_MAX) {
    throw new MoltError(
      'config/invalid',
      `the control socket ${path} is longer than the ${PATH_BYTES_MAX} bytes a socket may have; choose a shorter --home to use molt jobs, logs and drain while the node runs`,
    );
  }
  await rm(path, { force: true });
  const server = createServer((request, response) => void answer(operated, request, response));
  await listen(server, { path });
  await chmod(path, 0o600);
  return { [Symbol.asyncDispose]: () => close(server) };
}

/** Serves `/metrics`, and nothing else, on 127.0.0.1. Throws `mesh/listen-failed`. */
export async function openMetricsPort(port: number, operated: Operated): Promise<AsyncDisposable> {
  const server = createServer((request, response) => {
    // A page in a browser can be made to ask a name that resolves to us; a scraper asks for us by our own.
    const isOurName = /^(?:127\.0\.0\.1|localhost|\[::1\])(?::\d+)?$/.test(request.headers.host ?? '');
    if (isOurName && request.method === 'GET' && request.url === '/metrics') void sendMetrics(operated, response);
    else response.writeHead(isOurName ? 404 : 403).end();
  });
  await listen(server, { port, host: '127.0.0.1' });
  return { [Symbol.asyncDispose]: () => close(server) };
}

async function listen(server: Server, at: { path: string } | { port: number; host: string }): Promise<void> {
  server.maxConnections = CONNECTIONS_MAX;
  server.requestTimeout = 10_000;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen(at, () => resolve());
  const where = 'path' in at ? at.path : `${at.host}:${at.port}`;
  await promise.catch((cause: unknown) => {
    throw new MoltError(
      'mesh/listen-failed',
      `cannot listen at ${where}: ${(cause as Error).message}; choose another or stop what uses it`,
      {},
      { cause },
    );
  });
  server.removeListener('error', reject);
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

async function answer(operated: Operated, request: IncomingMessage, response: ServerResponse): Promise<void> {
  request.resume();
  try {
    const url = new URL(request.url ?? '/', 'http://door');
    const route = `${request.method} ${url.pathname}`;
    const logs = /^GET \/logs\/([1-9A-HJ-NP-Za-km-z]{32,44})$/.exec(route);
    if (logs !== null) return await sendLogs(operated, parseAddress(logs[1] ?? ''), { url, response });
    if (route === 'GET /status') return sendJson(response, operated.status());
    if (route === 'GET /jobs') return sendJson(response, { jobs: operated.jobs() });
    if (route === 'GET /disputes') return sendJson(response, { disputes: operated.disputes() });
    if (route === 'GET /market') return sendJson(response, operated.market());
    if (route === 'GET /metrics') return await sendMetrics(operated, response);
    if (route === 'POST /drain' || route === 'POST /resume') {
      await operated.setDraining(route === 'POST /drain');
      return sendJson(response, operated.status());
    }
    throw new MoltError('config/usage', `the control door knows no ${route}`);
  } catch (error) {
    const known = error instanceof MoltError;
    const body = known ? error.toJSON() : { code: 'runtime/engine-failed', message: String(error) };
    if (response.headersSent) response.destroy();
    else sendJson(response, { error: body }, known ? 400 : 500);
  }
}

function sendJson(response: ServerResponse, value: unknown, code = 200): void {
  response.writeHead(code, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}

async function sendMetrics(operated: Operated, response: ServerResponse): Promise<void> {
  try {
    const { contentType, text } = await operated.metrics();
    response.writeHead(200, { 'content-type': contentType }).end(text);
  } catch (error) {
    response.writeHead(500).end(String(error));
  }
}

/** One JSON object a line: the record, its bytes in base64. Ends when the program has, or when the reader goes. */
async function sendLogs(
  operated: Operated,
  lease: Address,
  { url, response }: { readonly url: URL; readonly response: ServerResponse },
): Promise<void> {
  const from = Number(url.searchParams.get('from') ?? '0');
  if (!Number.isSafeInteger(from) || from < 0) {
    throw new MoltError('config/usage', `from is ${from}, expected a sequence number, 0 or more`);
  }
  const gone = new AbortController();
  response.once('close', () => gone.abort());
  if (!operated.jobs().some((job) => job.lease === lease)) throw unknownJob(lease);
  const records = operated.logs(lease, { from, follow: url.searchParams.has('follow') }, gone.signal);
  response.writeHead(200, { 'content-type': 'application/x-ndjson' });
  response.flushHeaders();
  const lines = async function* (): AsyncGenerator<string> {
    for await (const { bytes, ...record } of records) {
      yield `${JSON.stringify({ ...record, base64: Buffer.from(bytes).toString('base64') })}\n`;
    }
  };
  // The reader may leave at any time.
  await pipeline(Readable.from(lines(), { objectMode: true, highWaterMark: 64 }), response).catch(() => undefined);
}
