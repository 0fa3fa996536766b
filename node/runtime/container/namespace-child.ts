/**
 * The other end of namespace.ts: a program that lives in a job's network namespace and hands out sockets made there.
 *
 * It starts as root, because only root enters a namespace, and gives that up once its listeners stand. It reads nothing
 * from any connection: a listener or a connected socket goes to the node as it is, and is closed here.
 */
import { type Server, Socket, createServer } from 'node:net';
import { networkInterfaces } from 'node:os';

import type { ChildMessage, ListenAddress, NodeMessage } from './namespace.ts';

const NOBODY = 65_534;
const CONNECT_MS = 5_000;
const BACKLOG = 128;

function tell(message: ChildMessage, handle?: Socket | Server): Promise<void> {
  return new Promise((resolve) => {
    // Gone: the node went away, and so does this program, at `disconnect`.
    process.send?.(message, handle, {}, () => resolve());
  });
}

async function listen({ address, port }: ListenAddress): Promise<Server> {
  const server = createServer({ pauseOnConnect: true });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen({ host: address, port, backlog: BACKLOG }, resolve);
  await promise;
  return server;
}

/** Every listener, or none: a job must not start with half of its network. */
async function listenAll(addresses: readonly ListenAddress[]): Promise<void> {
  const outer = Object.entries(networkInterfaces()).filter(([, entries]) => entries?.some((entry) => !entry.internal));
  if (outer.length > 0) {
    return tell({ type: 'failed', reason: `it has the interface ${outer[0]?.[0]}, so it is no job's own` });
  }
  try {
    const servers: Server[] = [];
    for (const address of addresses) servers.push(await listen(address));
    for (const server of servers) {
      await tell({ type: 'listening' }, server);
      // A listener that two processes have is accepted from by both.
      server.close();
    }
    process.setgroups?.([]);
    process.setgid?.(NOBODY);
    process.setuid?.(NOBODY);
    return await tell({ type: 'ready' });
  } catch (error) {
    return tell({ type: 'failed', reason: error instanceof Error ? error.message : String(error) });
  }
}

function connect(id: number, port: number): void {
  const socket = new Socket({ allowHalfOpen: true });
  // What comes is for the node to read.
  socket.pause();
  socket.setTimeout(CONNECT_MS, () => socket.destroy(new Error('no answer')));
  socket.once('error', (error) => void tell({ type: 'refused', id, reason: codeOf(error) }));
  socket.once('connect', () => {
    socket.setTimeout(0);
    void tell({ type: 'connected', id }, socket);
  });
  socket.connect({ host: '127.0.0.1', port });
}

function codeOf(error: Error): string {
  return 'code' in error && typeof error.code === 'string' ? error.code : error.message;
}

process.on('message', (message: NodeMessage) => {
  if (message.type === 'listen') void listenAll(message.addresses);
  else connect(message.id, message.port);
});
process.on('disconnect', () => process.exit());
