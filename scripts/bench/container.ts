/**
 * What our side of a container job costs beside the engine's own: dispatch with and without waiting containers, and the
 * node's memory over many jobs. Groups tell nothing, and why, where no engine answers.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Docker from 'dockerode';

import { ContainerRuntime, type RunRequest } from '../../node/runtime/index.ts';
import { type Env, systemEnv } from '../../protocol/env.ts';
import type { JobSpecInput } from '../../protocol/job-spec.ts';
import { findEngine, openBusyboxRegistry } from '../../test/fixtures/engine.ts';
import { processesMentioning } from '../../test/fixtures/traces.ts';
import { type TestBuyer, type TestMarket, openMarket } from '../../test/integration/market.ts';
import { type Group, type Row, median } from './row.ts';

const ROUNDS = 20;
const POOL = 2;
/** Between jobs: a waiting container is made in it. */
const PAUSE_MS = 1_500;
const RAW = 'create, start, wait, remove through the engine';

export const dispatch: Group = {
  name: 'dispatch',
  about: `\`true\` in a container, warm image, from the call to its removal, p50 of ${ROUNDS}`,
  run: async (tell) => {
    const { socketPath, reason } = await findEngine();
    if (socketPath === undefined) return console.log(`skipped: ${reason}`);
    await using registry = await openBusyboxRegistry();
    const env = systemEnv();
    const root = mkdtempSync(join(tmpdir(), 'molt-bench-'));
    try {
      const { reference } = registry;
      const docker = new Docker({ socketPath });
      const open = async (pool: number): Promise<ContainerRuntime> => {
        const runtime = new ContainerRuntime(env, { directory: join(root, `pool-${pool}`), socketPath, pool });
        await runtime.prepare({ kind: 'image', reference }, () => undefined, AbortSignal.timeout(60_000));
        return runtime;
      };
      await using cold = await open(0);
      await using pooled = await open(POOL);
      const times = { raw: [] as number[], cold: [] as number[], pooled: [] as number[] };
      // Taken in turns, so that whatever else the machine does meets all three alike. The first rounds warm up.
      for (let round = -3; round < ROUNDS; round++) {
        const one = {
          raw: await rawOnce(docker, reference),
          cold: await ourOnce(cold, root, reference),
          pooled: await ourOnce(pooled, root, reference),
        };
        if (round >= 0) for (const kind of ['raw', 'cold', 'pooled'] as const) times[kind].push(one[kind]);
        await env.clock.sleep(PAUSE_MS);
      }
      const baseline = median(times.raw);
      const row = { unit: 'ms p50', baseline, baselineIs: RAW };
      tell({ name: 'dispatch, a container of its own', value: median(times.cold), ...row, target: 1.25 * baseline });
      tell({ name: 'dispatch, a container that waited', value: median(times.pooled), ...row, target: 0.3 * baseline });
    } finally {
      rmSync(root, { recursive: true, force: true });
    }
  },
};

async function rawOnce(docker: Docker, image: string): Promise<number> {
  const startedMs = performance.now();
  const container = await docker.createContainer({
    Image: image,
    Cmd: ['/bin/true'],
    HostConfig: { NetworkMode: 'none' },
  });
  await container.start();
  await container.wait();
  await container.remove();
  return performance.now() - startedMs;
}

async function ourOnce(runtime: ContainerRuntime, root: string, reference: string): Promise<number> {
  const attemptId = `bench-${randomBytes(8).toString('hex')}`;
  const [inputDirectory, outputDirectory] = [join(root, attemptId, 'in'), join(root, attemptId, 'out')];
  for (const directory of [inputDirectory, outputDirectory]) mkdirSync(directory, { recursive: true });
  const limits = { cpus: 1, memoryBytes: 64 << 20, diskBytes: 32 << 20, durationMs: 60_000, logBytes: 1 << 20 };
  const request: RunRequest = {
    attemptId,
    image: { kind: 'image', reference },
    command: ['/bin/true'],
    environment: {},
    inputDirectory,
    outputDirectory,
    collects: false,
    limits: { ...limits, processes: 64 },
    randomSeed: new Uint8Array(32),
    clockStartMs: 0,
  };
  const startedMs = performance.now();
  const run = await runtime.start(request, AbortSignal.timeout(60_000));
  const { exitCode, detail } = await run.exit;
  await runtime.remove(attemptId);
  if (exitCode !== 0) throw new Error(detail);
  return performance.now() - startedMs;
}

const JOBS = 50;
const AT_A_TIME = 10;
/** Peers take one bid a second from one buyer in the long run. */
const BID_PAUSE_MS = 1_200;
/** Ten buyers at once may wait for each other on two cores. */
const QUOTE_MS = 15_000;
const WARM_UP = 10;
const SETTLE_MS = 3_000;

export const manyJobs: Group = {
  name: 'many-jobs',
  about: `memory of a provider process over ${JOBS} container jobs, bought and paid each`,
  run: async (tell) => {
    const { socketPath, reason } = await findEngine();
    if (socketPath === undefined) return console.log(`skipped: ${reason}`);
    await using registry = await openBusyboxRegistry();
    await using market = await openMarket();
    const provider = await market.provider({
      runtimes: ['container'],
      containerSocket: socketPath,
      cpuMillis: 100 * 2 * AT_A_TIME,
    });
    const spec: JobSpecInput = {
      runtime: 'container',
      image: registry.reference,
      command: ['/bin/true'],
      resources: { cpuMillis: 100, memoryBytes: 32 * 2 ** 20, diskBytes: 8 * 2 ** 20 },
      maxDurationSeconds: 60,
    };
    const buyers = await Promise.all(Array.from({ length: AT_A_TIME }, () => market.buyer()));
    await buyInTurn(market, buyers.slice(0, 1), spec, WARM_UP);
    const rss = async (): Promise<number> => rssOf(market.env, provider.home.directory);
    const phases = [
      { name: 'one after another', buyers: buyers.slice(0, 1) },
      { name: `${AT_A_TIME} at a time`, buyers },
    ];
    for (const phase of phases) {
      const baseline = await rss();
      await buyInTurn(market, phase.buyers, spec, JOBS);
      const row: Row = {
        name: `memory (RSS) after ${JOBS} jobs, ${phase.name}`,
        value: await rss(),
        unit: 'MB',
        baseline,
        baselineIs: 'the same process before them',
        target: 1.15 * baseline,
      };
      tell(row);
    }
  },
};

/** So many jobs in all, each buyer one after the other. */
async function buyInTurn(
  market: TestMarket,
  buyers: readonly TestBuyer[],
  spec: JobSpecInput,
  jobs: number,
): Promise<void> {
  const buy = async (buyer: TestBuyer): Promise<void> => {
    const molt = await buyer.connect();
    for (let job = 0; job < jobs / buyers.length; job++) {
      await molt.run(spec, { maxPrice: '1', quoteTimeoutMs: QUOTE_MS });
      await market.env.clock.sleep(BID_PAUSE_MS);
    }
    await molt.close();
  };
  await Promise.all(buyers.map(buy));
}

/** Of the process that has this home, once it rests, MB. */
async function rssOf(env: Env, home: string): Promise<number> {
  await env.clock.sleep(SETTLE_MS);
  const sizes = processesMentioning(home).map((pid) => {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? 0) / 1024;
  });
  return Math.max(...sizes);
}
