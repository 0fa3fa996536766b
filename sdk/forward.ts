/**
 * A service of a running job on a port of this machine.
 *
 * A listener on 127.0.0.1; each connection to it is one stream to the provider that has the job at that moment. Nobody else
 * is told of it, and nothing about it is on the provider's own network.
 */
import { type AddressInfo, type Server, type Socket, createServer } from 'node:net';

import { nextFrame, tunnel } from '../node/mesh/index.ts';
import { type Address, decodeAddress } from '../protocol/address.ts';
import { Deadline } from '../protocol/deadline.ts';
import { MoltError } from '../protocol/errors.ts';
import { ForwardRequest } from '../protocol/molt.js';
import { STREAMS, decodeForwardAnswer, fromRefusal } from '../protocol/wire.ts';
import type { Buyer } from './buyer.ts';

export interface ForwardOptions {
  /** Port on 127.0.0.1; a free one by default. */
  readonly port?: number;
  /** A connection was not made, and why. Must not throw. */
  readonly onRefused?: (error: MoltError) => void;
  /** Ends the forward. */
  readonly signal?: AbortSignal;
}

/** Stands until it is disposed, or what it leads to is over. */
export interface Forward extends AsyncDisposable {
  readonly host: '127.0.0.1';
  /** Where it listens. */
  readonly port: number;
  /** The port of the job's service. */
  readonly servicePort: number;
  /** Aborts when it no longer listens. */
  readonly closed: AbortSignal;
}

/** Which job, and who has it. */
export interface ForwardTarget {
  readonly lease: Address;
  readonly node: Address;
  readonly addresses: readonly string[];
}

const HOST = '127.0.0.1';
const OPEN_MS = 15_000;

/**
 * Opens the listener. `target` is asked at each connection; undefined means that the job runs nowhere at the moment. Throws
 * `mesh/listen-failed`.
 */
export async function openForward(
  buyer: Buyer,
  servicePort: number,
  target: () => ForwardTarget | undefined,
  options: ForwardOptions = {},
): Promise<Forward> {
  options.signal?.throwIfAborted();
  const closing = new AbortController();
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
    sockets.add(socket.on('error', () => undefined).once('close', () => sockets.delete(socket)));
    carry(buyer, { servicePort, target: target(), socket, signal: closing.signal }).catch((error: unknown) => {
      socket.resetAndDestroy();
      if (!closing.signal.aborted) options.onRefused?.(asMoltError(error));
    });
  });
  server.maxConnections = STREAMS.forward.maxStreamsPerPeer;
  const port = await listen(server, options.port ?? 0);
  const close = async (): Promise<void> => {
    if (closing.signal.aborted) return;
    closing.abort(new MoltError('mesh/closed', 'the forward was closed'));
    const { promise, resolve } = Promise.withResolvers<void>();
    server.close(() => resolve());
    for (const socket of sockets) socket.destroy();
    await promise;
  };
  for (const signal of [options.signal, buyer.closing])
    signal?.addEventListener('abort', () => void close(), { once: true });
  return { host: HOST, port, servicePort, closed: closing.signal, [Symbol.asyncDispose]: close };
}

async function listen(server: Server, port: number): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen({ host: HOST, port }, resolve);
  try {
    await promise;
  } catch (cause) {
    throw new MoltError(
      'mesh/listen-failed',
      `cannot listen at ${HOST}:${port}: ${(cause as Error).message}; choose another local port`,
      { port },
      { cause },
    );
  }
  return (server.address() as AddressInfo).port;
}

interface Carried {
  readonly servicePort: number;
  readonly target: ForwardTarget | undefined;
  readonly socket: Socket;
  readonly signal: AbortSignal;
}

/** One connection from its first byte to its last. Throws why it was not made. */
async function carry({ env, mesh }: Buyer, { servicePort, target, socket, signal }: Carried): Promise<void> {
  if (target === undefined) throw new MoltError('mesh/unreachable', 'the job does not run yet, or no longer');
  const { node, addresses, lease } = target;
  const { protocol, maxFrameBytes } = STREAMS.forward;
  using deadline = new Deadline(env.clock, OPEN_MS, signal);
  const channel = await mesh.open(node, protocol, { addresses, maxFrameBytes, signal: deadline.signal });
  const onAbort = (): void => channel.abort(new MoltError('mesh/closed', 'the forward was closed'));
  deadline.signal.addEventListener('abort', onAbort, { once: true });
  try {
    await channel.send(ForwardRequest.encode({ lease: decodeAddress(lease), port: servicePort }));
    const frame = await nextFrame(channel);
    if (frame === undefined) throw new MoltError('mesh/closed', 'the provider ended the connection before it began');
    const { refused } = decodeForwardAnswer(frame);
    if (refused !== undefined) throw fromRefusal(refused);
    deadline[Symbol.dispose]();
    await tunnel(channel, socket, maxFrameBytes);
  } catch (error) {
    channel.abort(asMoltError(error));
    throw error;
  } finally {
    deadline.signal.removeEventListener('abort', onAbort);
  }
}

/** What the transport says of a cut is for programs that open streams; who uses the service connects again. */
function asMoltError(error: unknown): MoltError {
  if (error instanceof MoltError && error.code !== 'mesh/closed') return error;
  return new MoltError('mesh/closed', 'the connection broke on its way to the job; try again', {}, { cause: error });
}
