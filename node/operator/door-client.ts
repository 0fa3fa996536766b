/** The other side of the control door: what `molt jobs`, `logs` and `drain` speak through to a running node. */
import type { IncomingMessage } from 'node:http';

import type { SalesExplanation } from '../../market/index.ts';
import type { Address } from '../../protocol/address.ts';
import { MoltError, isErrorCode } from '../../protocol/errors.ts';
import type { LogRecord } from '../../protocol/job-log.ts';
import { request } from '../http.ts';
import type { DisputeSummary } from '../verifier/index.ts';
import type { JobSummary } from './job-summary.ts';
import type { LogQuery, NodeStatus, Operator } from './operator.ts';

/** What the system says where nobody listens; too long a path is refused, and a node does not listen at one either. */
const NOBODY: ReadonlySet<string | undefined> = new Set(['ENOENT', 'ECONNREFUSED', 'EINVAL', 'ENAMETOOLONG']);

/** A running node at this socket; undefined where nobody listens. */
export async function connectDoor(path: string): Promise<Operator | undefined> {
  const status = await ask<NodeStatus>(path, 'GET', '/status').catch((error: MoltError) => {
    if (NOBODY.has((error.cause as NodeJS.ErrnoException | undefined)?.code)) return undefined;
    throw error;
  });
  if (status === undefined) return undefined;
  return {
    status: () => ask<NodeStatus>(path, 'GET', '/status'),
    jobs: async () => (await ask<{ jobs: JobSummary[] }>(path, 'GET', '/jobs')).jobs,
    logs: (lease, query, signal) => readLogs(path, { lease, query, signal }),
    disputes: async () => (await ask<{ disputes: DisputeSummary[] }>(path, 'GET', '/disputes')).disputes,
    market: () => ask<SalesExplanation>(path, 'GET', '/market'),
    setDraining: (on) => ask<NodeStatus>(path, 'POST', on ? '/drain' : '/resume'),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

async function* readLogs(
  path: string,
  { lease, query, signal }: { readonly lease: Address; readonly query: LogQuery; readonly signal: AbortSignal },
): AsyncGenerator<LogRecord> {
  let response: IncomingMessage | undefined;
  const leave = (): void => void response?.destroy();
  signal.addEventListener('abort', leave, { once: true });
  let text = '';
  try {
    response = await open(path, 'GET', `/logs/${lease}?from=${query.from}${query.follow ? '&follow=1' : ''}`);
    // Whoever left before the answer came is told by nobody.
    if (signal.aborted) return;
    response.setEncoding('utf8');
    for await (const chunk of response) {
      const lines = (text + (chunk as string)).split('\n');
      text = lines.pop() ?? '';
      for (const line of lines) yield parseRecord(line);
    }
  } catch (cause) {
    if (!signal.aborted) throw told(path, cause);
  } finally {
    signal.removeEventListener('abort', leave);
    response?.destroy();
  }
}

function parseRecord(line: string): LogRecord {
  const { base64, ...record } = JSON.parse(line) as Omit<LogRecord, 'bytes'> & { readonly base64: string };
  return { ...record, bytes: Buffer.from(base64, 'base64') };
}

/** Throws what the node refused with, or `node/stopped` when it does not answer. */
async function ask<Answer>(path: string, method: string, route: string): Promise<Answer> {
  try {
    return JSON.parse(await textOf(await open(path, method, route))) as Answer;
  } catch (cause) {
    throw told(path, cause);
  }
}

/** The response of a route that answered well; else throws the error it told. */
async function open(path: string, method: string, route: string): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  request({ socketPath: path, method, path: route, timeout: 0 }, resolve).once('error', reject).end();
  const response = await promise;
  if (response.statusCode === 200) return response;
  const { error } = JSON.parse(await textOf(response)) as { error: { code: string; message: string } };
  throw new MoltError(isErrorCode(error.code) ? error.code : 'runtime/engine-failed', error.message);
}

async function textOf(response: IncomingMessage): Promise<string> {
  let text = '';
  response.setEncoding('utf8');
  for await (const chunk of response) text += chunk as string;
  return text;
}

function told(path: string, cause: unknown): MoltError {
  if (cause instanceof MoltError) return cause;
  const why = cause instanceof Error ? `: ${cause.message}` : '';
  const message = `the node behind ${path} does not answer any more${why}; is it still running? try again`;
  return new MoltError('node/stopped', message, {}, { cause });
}
