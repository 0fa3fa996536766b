/**
 * The receiving side of the artifact bench, a process of its own, so that it runs with the flags that are measured. Reads
 * a way per line and answers each with the milliseconds it took; ends with its stdin.
 */
import { randomFillSync } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type Socket, connect } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { connect as connectTls } from 'node:tls';

import { multiaddr } from '@multiformats/multiaddr';

import { openArtifacts } from '../../node/mesh/index.ts';
import { systemEnv } from '../../protocol/env.ts';
import { CHANNEL_PROTOCOL, PRE_SHARED_KEY, RAW_PROTOCOL, type Where, bareLibp2p, benchMesh } from './artifact-peer.ts';

export type Way = 'tcp' | 'tls' | 'libp2p' | 'channel' | 'artifact' | 'disk' | 'write';

/** What the process is started with, as one JSON argument. */
export interface Taking {
  readonly where: Where;
  readonly sizeBytes: number;
  /** A folder on disk, and one in memory where there is such a file system. */
  readonly disk: string;
  readonly memory: string;
}

if (import.meta.main) await take(JSON.parse(process.argv[2] ?? '') as Taking);

async function take({ where, sizeBytes, disk, memory }: Taking): Promise<void> {
  const env = systemEnv();
  const raw = await bareLibp2p([]);
  const connection = await raw.dial(where.libp2p.map((address) => multiaddr(address)));
  const mesh = await benchMesh(env, 'light');
  const peer = await mesh.connect(where.mesh);
  const fetchInto = async (parent: string): Promise<string> => {
    const store = await mkdtemp(join(parent, 'molt-bench-'));
    const artifacts = await openArtifacts(env, { directory: store, quotaBytes: 2 * sizeBytes });
    await artifacts.fetch(mesh, peer, where.cid, { maxBytes: 2 * sizeBytes });
    return store;
  };
  // Each may leave a folder, which is removed after the clock has stopped.
  const ways: Readonly<Record<Way, () => Promise<string | void>>> = {
    tcp: () => drain(connect(where.tcp, '127.0.0.1')),
    tls: () =>
      drain(
        connectTls({
          port: where.tls,
          host: '127.0.0.1',
          pskCallback: () => ({ psk: PRE_SHARED_KEY, identity: 'bench' }),
          minVersion: 'TLSv1.3',
          ciphers: 'TLS_AES_128_GCM_SHA256',
          checkServerIdentity: () => undefined,
        }),
      ),
    libp2p: async () => {
      const stream = await connection.newStream(RAW_PROTOCOL);
      let bytes = 0;
      const { promise, resolve } = Promise.withResolvers<void>();
      stream.addEventListener('message', (event) => {
        bytes += event.data.byteLength;
        if (bytes >= sizeBytes) resolve();
      });
      await promise;
      stream.abort(new Error('enough'));
    },
    channel: async () => {
      const channel = await mesh.open(peer, CHANNEL_PROTOCOL, { maxFrameBytes: 2 ** 20 });
      for await (const frame of channel) void frame;
      channel.abort(new Error('enough'));
    },
    artifact: () => fetchInto(memory),
    disk: () => fetchInto(disk),
    write: async () => {
      const bytes = randomFillSync(Buffer.alloc(2 ** 20));
      const target = await mkdtemp(join(disk, 'written-'));
      for (let index = 0; index < sizeBytes / bytes.length; index++) await writeFile(join(target, `${index}`), bytes);
      return target;
    },
  };
  for await (const line of createInterface({ input: process.stdin })) {
    const startedMs = performance.now();
    const left = await ways[line as Way]();
    console.log(performance.now() - startedMs);
    if (left !== undefined) await rm(left, { recursive: true, force: true });
  }
  process.exit(0);
}

function drain(socket: Socket): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  socket
    .on('data', () => undefined)
    .on('end', resolve)
    .on('error', reject);
  return promise;
}
