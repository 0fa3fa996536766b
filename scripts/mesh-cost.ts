/**
 * What a mesh node costs to have: `node scripts/mesh-cost.ts [runs]` starts fresh processes that open a mesh on loopback,
 * and prints from process start to listening (ms) and memory (RSS, MB) one second later, median of the runs. Baseline:
 * a process that does nothing. Compiled code is cached between starts, as node/molt.js does it.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { enableCompileCache } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { argv, execPath, exit, memoryUsage } from 'node:process';

const KINDS = ['baseline', 'node', 'node-on-disk', 'light'] as const;
type Kind = (typeof KINDS)[number];

if (argv[2] === '--child') await child(argv[3] as Kind);
else parent(Number(argv[2] ?? 5));

function parent(runs: number): void {
  for (const kind of KINDS) {
    const results = Array.from({ length: runs }, () => {
      const { stdout } = spawnSync(execPath, [import.meta.filename, '--child', kind], { encoding: 'utf8' });
      return JSON.parse(stdout) as { listeningMs: number; rssMb: number };
    });
    console.log(
      `${kind.padEnd(14)} listening ${median(results.map((one) => one.listeningMs))} ms   rss ${median(results.map((one) => one.rssMb))} MB`,
    );
  }
}

async function child(kind: Kind): Promise<never> {
  enableCompileCache();
  if (kind !== 'baseline') await open(kind);
  const listeningMs = Math.round(performance.now());
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  console.log(JSON.stringify({ listeningMs, rssMb: Math.round(memoryUsage().rss / 1e6) }));
  exit(0);
}

async function open(kind: Kind): Promise<void> {
  const { openMesh } = await import('../node/mesh/index.ts');
  const { keyPairFromSeed } = await import('../protocol/ed25519.ts');
  const { systemEnv, systemRandom } = await import('../protocol/env.ts');
  await openMesh(systemEnv(), {
    key: keyPairFromSeed(systemRandom.bytes(32)),
    listen: kind === 'light' ? [] : ['/ip4/127.0.0.1/tcp/0'],
    bootstrap: [],
    mdns: false,
    role: kind === 'light' ? 'light' : 'node',
    network: 'cost',
    ...(kind === 'node-on-disk' ? { directory: mkdtempSync(join(tmpdir(), 'molt-cost-')) } : {}),
  });
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}
