/**
 * How `molt forward` and `molt logs` reach the mesh while `molt run` of the same home is on it: two processes cannot use one
 * node key there, so the one that runs opens the forward or reads the output, and the other asks it to.
 *
 * A unix socket in the home, 0600. One connection is one forward or one reading and lasts as long: a line of JSON asks, lines
 * of JSON answer, the end of the connection ends it. Output that is there whole ends with a line that says so.
 */
import { chmod, rm } from 'node:fs/promises';
import { type Socket, connect, createServer } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

import { z } from 'zod';

import { type Address, parseAddress } from '../../protocol/address.ts';
import { MoltError, isErrorCode } from '../../protocol/errors.ts';
import type { LogRecord } from '../../protocol/job-log.ts';
import type { Forward, ForwardOptions } from '../../sdk/index.ts';
import type { PortPair } from './forward-flags.ts';

/** What a line of an answer says. */
export type ForwardLine =
  | {
      readonly type: 'listening';
      readonly lease?: string | undefined;
      readonly port: number;
      readonly servicePort: number;
    }
  | { readonly type: 'refused'; readonly code: string; readonly reason: string };

/** What of a job's output is wanted. */
export interface OutputQuery {
  /** First sequence. */
  readonly from: number;
  /** Also what comes, until the program has ended. */
  readonly follow: boolean;
}

/** What the process that is on the mesh does for others of its home. */
export interface Running {
  /** The job whose services it forwards; a gang forwards none. */
  readonly job?: RunningJob;
  /** The output of any job of this buyer. */
  logs(lease: Address, query: OutputQuery & { readonly signal: AbortSignal }): AsyncIterable<LogRecord>;
}

/** The job that is being run. */
export interface RunningJob {
  /** Undefined before the lease is open. */
  lease(): Address | undefined;
  forward(servicePort: number, options: ForwardOptions): Promise<Forward>;
}

const REQUEST_BYTES_MAX = 1_024;
const CONNECTIONS_MAX = 16;
/** Bytes of a socket's path that every system takes. */
const PATH_BYTES_MAX = 103;
const NOBODY: ReadonlySet<unknown> = new Set(['ENOENT', 'ECONNREFUSED', 'EINVAL', 'ENAMETOOLONG']);

const port = z.int().min(1).max(65_535);
const count = z.int().min(0);
const requestSchema = z.union([
  z.strictObject({ job: z.string().max(64), servicePort: port, port: port.optional() }),
  z.strictObject({ logs: z.string().max(64), from: count, follow: z.boolean() }),
]);
const failedSchema = z.object({ type: z.literal('failed'), code: z.string(), reason: z.string() });
const forwardLineSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('listening'), lease: z.string().optional(), port, servicePort: port }),
  z.object({ type: z.literal('refused'), code: z.string(), reason: z.string() }),
]);
const logLineSchema = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('log'),
    sequence: count,
    atMs: count,
    attempt: count,
    stream: z.enum(['stdout', 'stderr']),
    offset: count,
    base64: z.string(),
  }),
  z.object({ type: z.literal('whole') }),
]);
type LogLine = z.output<typeof logLineSchema>;
type Line = ForwardLine | LogLine | z.output<typeof failedSchema>;
type ForwardRequest = Extract<z.output<typeof requestSchema>, { readonly job: string }>;
type LogsRequest = Extract<z.output<typeof requestSchema>, { readonly logs: string }>;

/** Opens the door; undefined where the home's path is too long for one. */
export async function openRunDoor(path: string, running: Running): Promise<AsyncDisposable | undefined> {
  if (Buffer.byteLength(path) > PATH_BYTES_MAX) return undefined;
  await rm(path, { force: true });
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => undefined).once('close', () => sockets.delete(socket)));
    void serve(socket, running);
  });
  server.maxConnections = CONNECTIONS_MAX;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen({ path }, resolve);
  await promise;
  await chmod(path, 0o600);
  return {
    [Symbol.asyncDispose]: async () => {
      server.close();
      for (const socket of sockets) socket.destroy();
      await rm(path, { force: true });
    },
  };
}

async function serve(socket: Socket, running: Running): Promise<void> {
  const closed = new AbortController();
  socket.once('close', () => closed.abort(new MoltError('mesh/closed', 'nobody wants it any more')));
  try {
    const asked = await readRequest(socket);
    if ('logs' in asked) await serveLogs(socket, running, { asked, signal: closed.signal });
    else await serveForward(socket, running, { asked, signal: closed.signal });
  } catch (error) {
    const { code, message } = error instanceof MoltError ? error : new MoltError('config/usage', String(error));
    say(socket, { type: 'failed', code, reason: message });
    socket.end();
  }
}

function say(socket: Socket, line: Line): void {
  if (socket.writable) socket.write(textOf(line));
}

function textOf(line: Line): string {
  return `${JSON.stringify(line)}\n`;
}

interface Serving<Asked> {
  readonly asked: Asked;
  /** Aborts when the connection is closed. */
  readonly signal: AbortSignal;
}

async function serveForward(
  socket: Socket,
  { job }: Running,
  { asked, signal }: Serving<ForwardRequest>,
): Promise<void> {
  const lease = job?.lease();
  if (job === undefined || lease === undefined || !lease.startsWith(asked.job.replace(/…$/, ''))) {
    const runs = job === undefined ? 'it is a gang' : lease === undefined ? 'no lease is open yet' : `it runs ${lease}`;
    throw new MoltError('job/unknown', `what runs in this home is not a job that begins with "${asked.job}": ${runs}`);
  }
  const forward = await job.forward(asked.servicePort, {
    ...(asked.port === undefined ? {} : { port: asked.port }),
    signal,
    onRefused: ({ code, message }) => say(socket, { type: 'refused', code, reason: message }),
  });
  say(socket, { type: 'listening', lease, port: forward.port, servicePort: forward.servicePort });
  forward.closed.addEventListener('abort', () => socket.end(), { once: true });
}

/** As fast as the other end reads. */
async function serveLogs(socket: Socket, running: Running, { asked, signal }: Serving<LogsRequest>): Promise<void> {
  const { logs, ...query } = asked;
  const records = running.logs(parseAddress(logs), { ...query, signal });
  const lines = async function* (): AsyncGenerator<string> {
    for await (const { bytes, ...record } of records) {
      yield textOf({ type: 'log', ...record, base64: Buffer.from(bytes).toString('base64') });
    }
    yield textOf({ type: 'whole' });
  };
  // A failure of the reading leaves the socket open, to be told there.
  await pipeline(Readable.from(lines(), { highWaterMark: 16 }), socket, { end: false, signal });
  socket.end();
}

async function readRequest(socket: Socket): Promise<z.output<typeof requestSchema>> {
  let text = '';
  for await (const chunk of socket.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    text += chunk.toString('utf8');
    if (text.includes('\n') || text.length > REQUEST_BYTES_MAX) break;
  }
  // What follows is not read: only the end of the connection still means something.
  socket.resume();
  try {
    return requestSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new MoltError(
      'config/usage',
      'expected a request for a forward or for output as one line of JSON',
      {},
      { cause },
    );
  }
}

/**
 * Asks the `molt run` of this home for a forward: its lines until it ends or the signal aborts. False when no `molt run` is
 * there. Throws what it refuses.
 */
export async function forwardThroughRun(
  path: string,
  asked: PortPair & { readonly job: string },
  onLine: (line: ForwardLine) => void,
  signal: AbortSignal,
): Promise<boolean> {
  const lines = await ask(path, { request: asked, schema: forwardLineSchema, signal });
  if (lines === undefined) return false;
  for await (const line of lines) onLine(line);
  return true;
}

/**
 * The output of a job of this buyer as the process on the mesh reads it; undefined when there is none. Throws what it refuses,
 * and `mesh/closed` when it ends before the output is whole: what is missing begins after the last sequence.
 */
export async function logsThroughRun(
  path: string,
  { lease, from, follow }: OutputQuery & { readonly lease: Address },
  signal: AbortSignal,
): Promise<AsyncIterable<LogRecord> | undefined> {
  const lines = await ask(path, { request: { logs: lease, from, follow }, schema: logLineSchema, signal });
  return lines === undefined ? undefined : recordsOf(lines, signal);
}

async function* recordsOf(lines: AsyncIterable<LogLine>, signal: AbortSignal): AsyncGenerator<LogRecord> {
  for await (const line of lines) {
    if (line.type === 'whole') return;
    const { type: _type, base64, ...record } = line;
    yield { ...record, bytes: new Uint8Array(Buffer.from(base64, 'base64')) };
  }
  signal.throwIfAborted();
  throw new MoltError('mesh/closed', 'the process that read the output has ended; ask again');
}

interface Asking<Answer> {
  readonly request: z.input<typeof requestSchema>;
  readonly schema: z.ZodType<Answer>;
  readonly signal: AbortSignal;
}

/** The lines of the answer, undefined when nobody is there. Throws what is refused. */
async function ask<Answer>(path: string, asking: Asking<Answer>): Promise<AsyncGenerator<Answer> | undefined> {
  asking.signal.throwIfAborted();
  const socket = await open(path);
  return socket === undefined ? undefined : answersOn(socket, asking);
}

async function* answersOn<Answer>(socket: Socket, { request, schema, signal }: Asking<Answer>): AsyncGenerator<Answer> {
  const onAbort = (): void => void socket.destroy();
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    signal.throwIfAborted();
    socket.write(`${JSON.stringify(request)}\n`);
    for await (const text of linesOf(socket)) {
      const line: unknown = JSON.parse(text);
      const { data: failed } = failedSchema.safeParse(line);
      if (failed !== undefined) {
        throw new MoltError(isErrorCode(failed.code) ? failed.code : 'job/unknown', failed.reason);
      }
      yield schema.parse(line);
    }
  } finally {
    signal.removeEventListener('abort', onAbort);
    socket.destroy();
  }
}

/** A connection that breaks has ended: what the last word was, the lines themselves say. */
async function* linesOf(socket: Socket): AsyncGenerator<string> {
  let rest = '';
  try {
    for await (const chunk of socket.setEncoding('utf8') as AsyncIterable<string>) {
      const lines = `${rest}${chunk}`.split('\n');
      rest = lines.pop() ?? '';
      yield* lines;
    }
  } catch {
    // Reset by the other end, or destroyed here.
  }
}

async function open(path: string): Promise<Socket | undefined> {
  const socket = connect({ path });
  const { promise, resolve, reject } = Promise.withResolvers<Socket | undefined>();
  socket.once('connect', () => resolve(socket));
  socket.on('error', (error: NodeJS.ErrnoException) => {
    if (NOBODY.has(error.code)) resolve(undefined);
    else
      reject(
        new MoltError('node/stopped', `molt run does not answer at ${path}: ${error.message}`, {}, { cause: error }),
      );
  });
  return promise;
}
