/** A file of 5 GiB through add, transfer and export, in processes with a small heap: what each holds at most, and how long. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { openArtifacts } from '../../node/mesh/index.ts';
import { systemEnv } from '../../protocol/env.ts';
import { type Where, benchMesh } from './artifact-peer.ts';
import type { Group } from './row.ts';

const SIZE_BYTES = 5 * 2 ** 30;
const SMALL_BYTES = 64 * 2 ** 20;
const FLAGS = ['--max-old-space-size=96', '--max-semi-space-size=1'];
const MEGA = 1e6;

export const artifactBig: Group = {
  name: 'big-artifact',
  about: 'a file of 5 GiB added, sent, fetched and exported by processes with a heap of 96 MB; 11 GB of disk',
  run: async (tell) => {
    const small = await carry(SMALL_BYTES);
    const big = await carry(SIZE_BYTES);
    for (const side of ['sender', 'receiver'] as const) {
      tell({
        name: `peak memory of the ${side}, 5 GiB`,
        value: big[side],
        unit: 'MB',
        baseline: small[side],
        baselineIs: 'the same with 64 MiB',
        target: 400,
      });
    }
  },
};

if (import.meta.main) await receive(process.argv[2] ?? '', process.argv[3] ?? '');

/** Peak resident memory of both sides, MB. */
async function carry(sizeBytes: number): Promise<{ readonly sender: number; readonly receiver: number }> {
  const directory = await mkdtemp(join(tmpdir(), 'molt-bench-'));
  const peer = start(['artifact-peer.ts', directory, String(sizeBytes)]);
  try {
    const where = await lineOf(peer);
    const receiver = start(['artifact-big.ts', directory, where]);
    const { sizeBytes: got, peakMb } = JSON.parse(await lineOf(receiver)) as { sizeBytes: number; peakMb: number };
    if (got !== sizeBytes) throw new Error(`expected ${sizeBytes} bytes, got ${got}`);
    return { sender: peakOf(peer), receiver: peakMb };
  } finally {
    peer.stdin?.end();
    if (peer.exitCode === null) await once(peer, 'exit');
    await rm(directory, { recursive: true, force: true });
  }
}

function start([script = '', ...args]: readonly string[]): ChildProcess {
  return spawn(process.execPath, [...FLAGS, join(import.meta.dirname, script), ...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
}

async function lineOf(child: ChildProcess): Promise<string> {
  if (child.stdout === null) throw new Error('a child has its output');
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  return line;
}

/** From /proc; NaN elsewhere. */
function peakOf(child: ChildProcess): number {
  try {
    const [, kilobytes] = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8')) ?? [];
    return (Number(kilobytes) * 1_024) / MEGA;
  } catch {
    return Number.NaN;
  }
}

async function receive(directory: string, told: string): Promise<void> {
  const where = JSON.parse(told) as Where;
  const env = systemEnv();
  const quotaBytes = 2 * SIZE_BYTES;
  const artifacts = await openArtifacts(env, { directory: join(directory, 'got'), quotaBytes });
  await using mesh = await benchMesh(env, 'light');
  const peer = await mesh.connect(where.mesh);
  await artifacts.fetch(mesh, peer, where.cid, { maxBytes: quotaBytes });
  const target = join(directory, 'exported');
  await artifacts.export(where.cid, target, { maxBytes: quotaBytes, maxEntries: 1 });
  const { size } = await stat(target);
  console.log(JSON.stringify({ sizeBytes: size, peakMb: (process.resourceUsage().maxRSS * 1_024) / MEGA }));
}
