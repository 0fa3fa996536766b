/** How fast an artifact moves between two processes, beside what the same bytes need over the layers below it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { randomFillSync } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type Socket, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { connect as connectTls } from 'node:tls';

import { multiaddr } from '@multiformats/multiaddr';

import { openArtifacts, openMesh } from '../../node/mesh/index.ts';
import { keyPairFromSeed } from '../../protocol/ed25519.ts';
import { systemEnv } from '../../protocol/env.ts';
import { CHANNEL_PROTOCOL, PRE_SHARED_KEY, RAW_PROTOCOL, type Where, bareLibp2p } from './artifact-peer.ts';
import { type Group, median } from './row.ts';

const SIZE_BYTES = 512 * 1024 * 1024;
const ROUNDS = 5;
const MEGA = 1e6;
/** A file system in memory, where there is one: what it takes is the transfer, and not the disk. */
const MEMORY = '/dev/shm';

const env = systemEnv();

export const artifact: Group = {
  name: 'artifact',
  about: `${SIZE_BYTES / 2 ** 20} MiB between two processes on loopback, MB/s, median of ${ROUNDS} rounds in turn`,
  run: async (tell) => {
    const directory = await mkdtemp(join(tmpdir(), 'molt-bench-'));
    const child = spawn(
      process.execPath,
      [join(import.meta.dirname, 'artifact-peer.ts'), directory, String(SIZE_BYTES)],
      {
        stdio: ['pipe', 'pipe', 'inherit'],
      },
    );
    try {
      const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
      const rates = await measure(JSON.parse(line) as Where, directory);
      const unit = 'MB/s';
      const bound = 'at-least' as const;
      const stream = { unit, bound, baseline: rates.libp2p, baselineIs: 'a bare libp2p stream, 64 KiB writes' };
      const { artifact: whole, disk } = rates;
      tell({ ...stream, name: 'artifact into memory, beside the stream', value: whole, target: 0.6 * rates.libp2p });
      tell({ ...stream, name: 'artifact onto disk, beside the stream', value: disk, target: 0.6 * rates.libp2p });
      const tls = { unit, bound, baseline: rates.tls, baselineIs: 'node:tls 1.3, AES-128-GCM' };
      tell({ ...tls, name: 'artifact into memory, beside raw TLS', value: whole, target: 0.1 * rates.tls });
      const tcp = { unit, bound, baseline: rates.tcp, baselineIs: 'node:net' };
      tell({ ...tcp, name: 'artifact into memory, beside raw TCP', value: whole, target: 0.1 * rates.tcp });
      tell({ ...stream, name: 'channel of 1 MiB frames', value: rates.channel, target: 0.8 * rates.libp2p });
      const write = { unit, bound, baseline: rates.write, baselineIs: 'as many bytes written to files of 1 MiB' };
      tell({ ...write, name: 'artifact onto disk, beside the disk', value: disk, target: 0.1 * rates.write });
    } finally {
      await end(child);
      await rm(directory, { recursive: true, force: true });
    }
  },
};

type Way = 'tcp' | 'tls' | 'libp2p' | 'channel' | 'artifact' | 'disk' | 'write';

/** MB/s each way. */
async function measure(where: Where, directory: string): Promise<Readonly<Record<Way, number>>> {
  const raw = await bareLibp2p([]);
  const connection = await raw.dial(where.libp2p.map((address) => multiaddr(address)));
  await using mesh = await openMesh(env, {
    key: keyPairFromSeed(env.random.bytes(32)),
    listen: [],
    bootstrap: [],
    mdns: false,
    role: 'light',
    network: 'bench',
  });
  const peer = await mesh.connect(where.mesh);
  const fetchInto = async (parent: string): Promise<string> => {
    const store = await mkdtemp(join(parent, 'molt-bench-'));
    const artifacts = await openArtifacts(env, { directory: store, quotaBytes: 2 * SIZE_BYTES });
    await artifacts.fetch(mesh, peer, where.cid, { maxBytes: 2 * SIZE_BYTES });
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
        if (bytes >= SIZE_BYTES) resolve();
      });
      await promise;
      stream.abort(new Error('enough'));
    },
    channel: async () => {
      const channel = await mesh.open(peer, CHANNEL_PROTOCOL, { maxFrameBytes: 2 ** 20 });
      for await (const frame of channel) void frame;
      channel.abort(new Error('enough'));
    },
    artifact: () => fetchInto(existsSync(MEMORY) ? MEMORY : directory),
    disk: () => fetchInto(directory),
    write: async () => {
      const bytes = randomFillSync(Buffer.alloc(2 ** 20));
      const target = await mkdtemp(join(directory, 'written-'));
      for (let index = 0; index < SIZE_BYTES / bytes.length; index++) await writeFile(join(target, `${index}`), bytes);
      return target;
    },
  };
  const rates: Record<Way, number[]> = { tcp: [], tls: [], libp2p: [], channel: [], artifact: [], disk: [], write: [] };
  for (let round = 0; round < ROUNDS; round++) {
    for (const way of Object.keys(ways) as Way[]) {
      const startedMs = performance.now();
      const left = await ways[way]();
      rates[way].push(SIZE_BYTES / MEGA / ((performance.now() - startedMs) / 1_000));
      if (left !== undefined) await rm(left, { recursive: true, force: true });
    }
  }
  await raw.stop();
  const of = (way: Way): number => median(rates[way]);
  return {
    tcp: of('tcp'),
    tls: of('tls'),
    libp2p: of('libp2p'),
    channel: of('channel'),
    artifact: of('artifact'),
    disk: of('disk'),
    write: of('write'),
  };
}

function drain(socket: Socket): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  socket
    .on('data', () => undefined)
    .on('end', resolve)
    .on('error', reject);
  return promise;
}

async function end(child: ChildProcess): Promise<void> {
  child.stdin?.end();
  if (child.exitCode === null) await once(child, 'exit');
}
