/**
 * TLS on the socket: it must be what every libp2p node speaks, and must bear peers that lie, stop or vanish in the middle.
 * Real nodes of the library and of ours on loopback, and bare sockets in the place of peers.
 */
import { once } from 'node:events';
import { type Socket, connect as connectTcp, createServer } from 'node:net';
import { connect } from 'node:tls';

import type { ConnectionEncrypter, Libp2p, Stream } from '@libp2p/interface';
import { type TLSComponents, tls } from '@libp2p/tls';
import { tcp } from '@libp2p/tcp';
import { yamux } from '@libp2p/yamux';
import { multiaddr } from '@multiformats/multiaddr';
import { createLibp2p } from 'libp2p';
import { describe, expect, onTestFinished, test } from 'vitest';

import { directTls } from '../../../node/mesh/encryption.ts';

const ECHO = '/echo/1';

type Encrypter = (components: TLSComponents) => ConnectionEncrypter;

/** How long a node of these tests waits for the next word of a peer that it does not know yet. */
const UPGRADE_MS = 10_000;

async function open(encrypter: Encrypter, upgradeMs = UPGRADE_MS): Promise<Libp2p> {
  const node = await createLibp2p({
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [encrypter],
    streamMuxers: [yamux()],
    connectionManager: { reconnectRetries: 0, inboundUpgradeTimeout: upgradeMs, inboundConnectionThreshold: 10_000 },
    connectionMonitor: { enabled: false },
  });
  onTestFinished(() => node.stop());
  await node.handle(ECHO, (stream) => {
    stream.addEventListener('message', ({ data }) => void stream.send(data));
    stream.addEventListener('remoteCloseWrite', () => void stream.close().catch(() => undefined));
  });
  return node;
}

/** Sends so many bytes and returns what came back. */
async function echoed(stream: Stream, bytes: Uint8Array): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  let length = 0;
  const whole = new Promise<void>((resolve, reject) => {
    stream.addEventListener('message', ({ data }) => {
      parts.push(data.subarray());
      length += data.byteLength;
      if (length >= bytes.length) resolve();
    });
    stream.addEventListener('close', ({ error }) => reject(error ?? new Error('closed')));
  });
  stream.send(bytes);
  await whole;
  return Buffer.concat(parts);
}

async function expectEcho(from: Libp2p, to: Libp2p): Promise<void> {
  const connection = await from.dial(to.getMultiaddrs());
  expect(connection.encryption).toBe('/tls/1.0.0');
  expect(connection.remotePeer.toString()).toBe(to.peerId.toString());
  const bytes = Buffer.alloc(200_000, 'molt');
  expect((await echoed(await connection.newStream(ECHO), bytes)).equals(bytes)).toBe(true);
  const [back] = to.getConnections(from.peerId);
  expect(back?.remotePeer.toString()).toBe(from.peerId.toString());
}

/** The port of a node. */
function portOf(node: Libp2p): number {
  return Number(/\/tcp\/(\d+)/.exec(String(node.getMultiaddrs()[0]))?.[1]);
}

/** Asks for TLS as any libp2p peer does, and gives the socket once the node has agreed. */
async function agreed(node: Libp2p): Promise<Socket> {
  const socket = connectTcp(portOf(node), '127.0.0.1').on('error', () => undefined);
  const line = (text: string): Buffer => Buffer.concat([Buffer.of(text.length + 1), Buffer.from(`${text}\n`)]);
  socket.write(Buffer.concat([line('/multistream/1.0.0'), line('/tls/1.0.0')]));
  for (let heard = ''; !heard.includes('/tls/1.0.0\n');) heard += String((await once(socket, 'data'))[0]);
  return socket;
}

function gone(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.closed) resolve();
    else socket.resume().once('close', resolve);
  });
}

describe('TLS on the socket', () => {
  test('speaks with a node of its kind', async () => {
    await expectEcho(await open(directTls()), await open(directTls()));
  });

  test('speaks with a node of the library, whoever dials', async () => {
    await expectEcho(await open(directTls()), await open(tls()));
    await expectEcho(await open(tls()), await open(directTls()));
  });

  test('a peer that is not the one that was dialled is refused', async () => {
    const [from, to, other] = [await open(directTls()), await open(directTls()), await open(directTls())];
    const lie = multiaddr(`/ip4/127.0.0.1/tcp/${portOf(to)}/p2p/${other.peerId.toString()}`);
    await expect(from.dial(lie)).rejects.toThrow('Unexpected Peer');
    expect(from.getConnections()).toEqual([]);
  });

  test('a peer without a certificate is refused, and one that sends noise or stops in the middle', async () => {
    const node = await open(directTls(), 3_000);
    const bare = await agreed(node);
    const anonymous = connect({ socket: bare, rejectUnauthorized: false, ALPNProtocols: ['libp2p'] });
    anonymous.on('error', () => undefined);
    const noisy = await agreed(node);
    noisy.write(Buffer.alloc(4_096, 7));
    const silent = await agreed(node);
    await Promise.all([anonymous, noisy, silent].map(gone));
    expect(node.getConnections()).toEqual([]);
    await expectEcho(await open(directTls()), node);
  });

  test('connections that break at any moment leave a node that works', async () => {
    const node = await open(directTls());
    // Between the two: cuts every connection after a number of bytes, from the first words to the middle of a stream.
    let cutAfter = 0;
    const between = createServer((near) => {
      let left = (cutAfter += 150);
      const far = connectTcp(portOf(node), '127.0.0.1');
      for (const [one, two] of [
        [near, far],
        [far, near],
      ] as const) {
        one.on('error', () => undefined);
        one.on('close', () => two.destroy());
        one.on('data', (bytes) => {
          if ((left -= bytes.length) > 0) two.write(bytes);
          else if (cutAfter % 300 === 0) two.resetAndDestroy();
          else two.destroy();
        });
      }
    });
    between.listen(0, '127.0.0.1');
    onTestFinished(() => void between.close());
    await once(between, 'listening');
    const address = between.address() as { port: number };
    const from = await open(directTls());
    const through = node
      .getMultiaddrs()[0]!
      .toString()
      .replace(/tcp\/\d+/, `tcp/${address.port}`);
    let broken = 0;
    for (let round = 0; round < 40; round++) {
      const once = async (): Promise<void> => {
        const connection = await from.dial(multiaddr(through), { signal: AbortSignal.timeout(2_000) });
        await echoed(await connection.newStream(ECHO), Buffer.alloc(20_000));
      };
      await once().catch(() => broken++);
    }
    expect(broken).toBe(40);
    await expectEcho(from, node);
  });
});
