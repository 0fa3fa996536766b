/**
 * The sending side of the artifact bench, a process of its own: the same bytes over bare TCP, bare TLS 1.3, a bare
 * libp2p stream, a channel of Molt, and as an artifact. Prints one JSON line saying where, and ends with its stdin.
 */
import { randomFillSync } from 'node:crypto';
import { open, rm } from 'node:fs/promises';
import { type AddressInfo, type Server, createServer } from 'node:net';
import { join } from 'node:path';
import { createServer as createTlsServer } from 'node:tls';

import type { Stream } from '@libp2p/interface';
import { tcp } from '@libp2p/tcp';
import { tls } from '@libp2p/tls';
import { yamux } from '@libp2p/yamux';
import { type Libp2p, createLibp2p } from 'libp2p';

import { type Mesh, openArtifacts, openMesh } from '../../node/mesh/index.ts';
import { keyPairFromSeed } from '../../protocol/ed25519.ts';
import { type Env, systemEnv } from '../../protocol/env.ts';

export const RAW_PROTOCOL = '/bench/raw';
export const CHANNEL_PROTOCOL = '/bench/channel';
/** Both ends know it: the bench measures the cipher, not the handshake. */
export const PRE_SHARED_KEY = Buffer.alloc(32, 7);
const CHUNK_BYTES = 64 * 1024;
const FRAME_BYTES = 1024 * 1024;
const WINDOW_BYTES = 4 * 1024 * 1024;
const WRITE_HIGH_BYTES = 1024 * 1024;

export interface Where {
  readonly tcp: number;
  readonly tls: number;
  readonly libp2p: readonly string[];
  readonly mesh: readonly string[];
  readonly cid: string;
}

/** The settings that Molt's mesh has (node/mesh/mesh.ts). */
export function bareLibp2p(listen: readonly string[]): Promise<Libp2p> {
  return createLibp2p({
    addresses: { listen: [...listen] },
    transports: [tcp()],
    connectionEncrypters: [tls()],
    streamMuxers: [
      yamux({
        streamOptions: { maxStreamWindowSize: WINDOW_BYTES },
      }),
    ],
  });
}

/** A mesh of which only the peers of this bench know; a light one listens nowhere. */
export function benchMesh(env: Env, role: 'node' | 'light'): Promise<Mesh> {
  return openMesh(env, {
    key: keyPairFromSeed(env.random.bytes(32)),
    listen: role === 'light' ? [] : ['/ip4/127.0.0.1/tcp/0'],
    bootstrap: [],
    mdns: false,
    role,
    network: 'bench',
  });
}

if (import.meta.main) await serve(process.argv[2] ?? '', Number(process.argv[3]));

async function serve(directory: string, sizeBytes: number): Promise<void> {
  const env = systemEnv();
  const chunk = randomFillSync(Buffer.alloc(CHUNK_BYTES));
  const push = (socket: {
    write(bytes: Uint8Array): boolean;
    end(): void;
    once(name: 'drain', then: () => void): unknown;
  }): void => {
    let left = sizeBytes;
    const more = (): void => {
      while (left > 0) {
        left -= chunk.length;
        if (!socket.write(chunk)) return void socket.once('drain', more);
      }
      socket.end();
    };
    more();
  };
  const plain = createServer((socket) => push(socket.on('error', () => undefined)));
  const secure = createTlsServer(
    { pskCallback: () => PRE_SHARED_KEY, minVersion: 'TLSv1.3', ciphers: 'TLS_AES_128_GCM_SHA256' },
    (socket) => push(socket.on('error', () => undefined)),
  );
  const libp2p = await bareLibp2p(['/ip4/127.0.0.1/tcp/0']);
  await libp2p.handle(RAW_PROTOCOL, (stream) => pushRaw(stream, chunk, sizeBytes));
  const mesh = await benchMesh(env, 'node');
  const frame = randomFillSync(Buffer.alloc(FRAME_BYTES));
  const limits = { maxFrameBytes: FRAME_BYTES, maxStreams: 4, maxStreamsPerPeer: 4 };
  await mesh.handle(CHANNEL_PROTOCOL, limits, async (channel) => {
    for (let left = sizeBytes; left > 0; left -= FRAME_BYTES) await channel.send(frame);
  });
  const artifacts = await openArtifacts(env, {
    directory: join(directory, 'sent'),
    quotaBytes: 2 * sizeBytes + 2 ** 30,
  });
  const { cid } = await artifacts.add(await randomFile(join(directory, 'file'), sizeBytes));
  await rm(join(directory, 'file'));
  await artifacts.serve(mesh, () => true);
  const where: Where = {
    tcp: await portOf(plain),
    tls: await portOf(secure),
    libp2p: libp2p.getMultiaddrs().map(String),
    mesh: mesh.addresses,
    cid,
  };
  console.log(JSON.stringify(where));
  process.stdin.resume().on('end', () => process.exit(0));
}

async function pushRaw(stream: Stream, chunk: Uint8Array, sizeBytes: number): Promise<void> {
  for (let left = sizeBytes; left > 0; left -= chunk.length) {
    while (stream.writeBufferLength > WRITE_HIGH_BYTES) {
      const { promise, resolve } = Promise.withResolvers<void>();
      stream.addEventListener('drain', () => resolve(), { once: true });
      await promise;
    }
    stream.send(chunk);
  }
  await stream.close();
}

/** A file of random bytes, so that no two blocks are alike. */
export async function randomFile(path: string, sizeBytes: number): Promise<string> {
  await using file = await open(path, 'w');
  const bytes = Buffer.alloc(FRAME_BYTES);
  for (let left = sizeBytes; left > 0; left -= bytes.length) {
    await file.write(randomFillSync(bytes), 0, Math.min(left, bytes.length));
  }
  return path;
}

function portOf(server: Server): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<number>();
  server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port));
  return promise;
}
