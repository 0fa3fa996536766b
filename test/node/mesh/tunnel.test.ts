/**
 * Goal: a connection carried over the mesh behaves like one: bytes in order, half-open ends, back-pressure, breaks. Method:
 * two real mesh nodes on loopback; a TCP server behind one, a TCP client before the other.
 */
import { type AddressInfo, type Server, type Socket, connect, createServer } from 'node:net';
import { createHash, randomBytes } from 'node:crypto';

import { describe, expect, it } from 'vitest';

import { type Mesh, tunnel } from '../../../node/mesh/index.ts';
import { Peers } from './peers.ts';

const PROTOCOL = '/molt/1/test';
const FRAME_BYTES = 64 * 1024;
const LIMITS = { maxFrameBytes: FRAME_BYTES, maxStreamsPerPeer: 8, maxStreams: 16 };

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

/** client → `near` node → `far` node → `serve`. */
async function openTunnel(
  near: Mesh,
  far: Mesh,
  serve: (socket: Socket) => void,
): Promise<{ readonly client: Socket; readonly served: Promise<Socket> }> {
  const { promise: served, resolve } = Promise.withResolvers<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined);
    resolve(socket);
    serve(socket);
    server.close();
  });
  const port = await listen(server);
  await far.handle(PROTOCOL, LIMITS, async (channel) => {
    await tunnel(channel, connect({ port, host: '127.0.0.1', allowHalfOpen: true }), FRAME_BYTES);
  });
  const channel = await near.open(far.self, PROTOCOL, { maxFrameBytes: FRAME_BYTES });
  const local = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
    void tunnel(channel, socket, FRAME_BYTES);
    local.close();
  });
  const client = connect({ port: await listen(local), host: '127.0.0.1', allowHalfOpen: true });
  client.on('error', () => undefined);
  return { client, served };
}

async function textOf(socket: Socket): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

const closed = (socket: Socket): Promise<boolean> =>
  new Promise((resolve) => {
    if (socket.closed) resolve(true);
    else socket.once('close', () => resolve(true));
  });

describe('a tunnel', () => {
  it('carries bytes in order, and an end of one side leaves the other open', async () => {
    await using peers = new Peers();
    const [far, near] = await peers.pair();
    const sent = randomBytes(5_000_000);
    const { client } = await openTunnel(near, far, (socket) => {
      const hash = createHash('sha256');
      socket.on('data', (bytes) => hash.update(bytes)).on('end', () => socket.end(hash.digest('hex')));
    });
    client.end(sent);
    expect(await textOf(client)).toBe(createHash('sha256').update(sent).digest('hex'));
  });

  it('lets the far side end first', async () => {
    await using peers = new Peers();
    const [far, near] = await peers.pair();
    const { client, served } = await openTunnel(near, far, (socket) => socket.end('that is all'));
    expect(await textOf(client)).toBe('that is all');
    client.end('and this came after');
    expect(await textOf(await served)).toBe('and this came after');
  });

  it('makes a sender wait for a reader that takes nothing', async () => {
    await using peers = new Peers();
    const [far, near] = await peers.pair();
    let sent = 0;
    const { client } = await openTunnel(near, far, (socket) => {
      const chunk = Buffer.alloc(FRAME_BYTES);
      const write = (): void => {
        while (!socket.destroyed && sent < 512 * 2 ** 20) {
          sent += chunk.length;
          if (!socket.write(chunk)) break;
        }
      };
      socket.on('drain', write);
      write();
    });
    let before = -1;
    await expect
      .poll(
        () => {
          const isStill = sent === before && sent > 0;
          before = sent;
          return isStill;
        },
        { interval: 500, timeout: 20_000 },
      )
      .toBe(true);
    expect(sent).toBeLessThan(64 * 2 ** 20);
    client.destroy();
  });

  it('breaks one end when the other breaks, from either side', async () => {
    await using peers = new Peers();
    const [far, near] = await peers.pair();
    const first = await openTunnel(near, far, (socket) => socket.write('hello'));
    const served = await first.served;
    served.resume();
    first.client.resetAndDestroy();
    expect(await closed(served)).toBe(true);
  });

  it('breaks the near end when the far one breaks', async () => {
    await using peers = new Peers();
    const [far, near] = await peers.pair();
    const { client, served } = await openTunnel(near, far, (socket) => socket.write('hello'));
    await new Promise((resolve) => client.once('data', resolve));
    (await served).resetAndDestroy();
    expect(await closed(client)).toBe(true);
  });

  it('breaks both ends when a node goes away in mid-transfer', async () => {
    await using peers = new Peers();
    const [far, near] = await peers.pair();
    const { client, served } = await openTunnel(near, far, (socket) => socket.resume());
    client.write(Buffer.alloc(1_000_000));
    const server = await served;
    await near[Symbol.asyncDispose]();
    expect(await Promise.all([closed(client), closed(server)])).toEqual([true, true]);
  });
});
