/**
 * How `molt forward` reaches a job that `molt run` of the same home has in its hands: two processes cannot use one node key
 * on the mesh, so the one that runs opens the forward, and the other asks it to.
 *
 * A unix socket in the home, 0600. One connection is one forward and lasts as long: a line of JSON asks, lines of JSON
 * answer, the end of the connection ends the forward.
 */
import { chmod, rm } from 'node:fs/promises';
import { type Socket, connect, createServer } from 'node:net';
import { createInterface } from 'node:readline';

import { z } from 'zod';

import type { Address } from '../../protocol/address.ts';
import { MoltError, isErrorCode } from '../../protocol/errors.ts';
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
const requestSchema = z.strictObject({ job: z.string().max(64), servicePort: port, port: port.optional() });
const lineSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('listening'), lease: z.string().optional(), port, servicePort: port }),
  z.object({ type: z.literal('refused'), code: z.string(), reason: z.string() }),
  z.object({ type: z.literal('failed'), code: z.string(), reason: z.string() }),
]);

/** Opens the door; undefined where the home's path is too long for one. */
export async function openRunDoor(path: string, job: RunningJob): Promise<AsyncDisposable | undefined> {
  if (Buffer.byteLength(path) > PATH_BYTES_MAX) return undefined;
  await rm(path, { force: true });
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => undefined).once('close', () => sockets.delete(socket)));
    void serve(socket, job);
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

async function serve(socket: Socket, job: RunningJob): Promise<void> {
  const closed = new AbortController();
  socket.once('close', () => closed.abort(new MoltError('mesh/closed', 'nobody wants the forward any more')));
  const say = (line: z.output<typeof lineSchema>): void => {
    if (socket.writable) socket.write(`${JSON.stringify(line)}\n`);
  };
  try {
    const asked = await readRequest(socket);
    const lease = job.lease();
    if (lease === undefined || !lease.startsWith(asked.job.replace(/…$/, ''))) {
      const runs = lease === undefined ? 'no lease is open yet' : `it runs ${lease}`;
      throw new MoltError(
        'job/unknown',
        `molt run of this home does not run a job that begins with "${asked.job}": ${runs}`,
      );
    }
    const forward = await job.forward(asked.servicePort, {
      ...(asked.port === undefined ? {} : { port: asked.port }),
      signal: closed.signal,
      onRefused: ({ code, message }) => say({ type: 'refused', code, reason: message }),
    });
    say({ type: 'listening', lease, port: forward.port, servicePort: forward.servicePort });
    forward.closed.addEventListener('abort', () => socket.end(), { once: true });
  } catch (error) {
    const { code, message } = error instanceof MoltError ? error : new MoltError('config/usage', String(error));
    say({ type: 'failed', code, reason: message });
    socket.end();
  }
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
    throw new MoltError('config/usage', 'expected a request for a forward as one line of JSON', {}, { cause });
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
  signal.throwIfAborted();
  const socket = await open(path);
  if (socket === undefined) return false;
  const onAbort = (): void => void socket.destroy();
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    socket.write(`${JSON.stringify(asked)}\n`);
    const lines = createInterface({ input: socket });
    // A socket that is destroyed has no end, and lines would be waited for.
    socket.once('close', () => lines.close());
    for await (const text of lines) {
      const line = lineSchema.parse(JSON.parse(text));
      if (line.type !== 'failed') onLine(line);
      else throw new MoltError(isErrorCode(line.code) ? line.code : 'job/unknown', line.reason);
    }
  } finally {
    signal.removeEventListener('abort', onAbort);
    socket.destroy();
  }
  return true;
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
