/** How soon a provider process listens, and what it weighs: of the program as `npm run build` makes it and as it is published. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { NODE_ENVIRONMENT, NODE_FLAGS } from '../../node/cli/demo/child.ts';
import { type TestMarket, openMarket } from '../../test/integration/market.ts';
import { type Group, median } from './row.ts';

const root = join(import.meta.dirname, '../..');
const ROUNDS = 5;
const SETTLE_MS = 3_000;

export const nodeStart: Group = {
  name: 'node-start',
  about: `start of a provider process, median of ${ROUNDS}`,
  run: async (tell) => {
    execFileSync(process.execPath, [join(root, 'scripts/build.ts')], { stdio: ['ignore', 'ignore', 'inherit'] });
    await using market = await openMarket();
    const provider = await market.provider();
    await provider.stop();
    const listening: number[] = [];
    const selling: number[] = [];
    const weights: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const one = await startOnce(market, provider.home.directory);
      listening.push(one.listeningMs);
      selling.push(one.sellingMs);
      weights.push(one.rssMb);
    }
    const bare = await bareNode();
    tell({
      name: 'process start → listening',
      value: median(listening),
      unit: 'ms',
      baseline: bare.startMs,
      baselineIs: 'bare node, start to exit',
      target: 500,
    });
    tell({
      name: 'process start → selling',
      value: median(selling),
      unit: 'ms',
      baseline: bare.startMs,
      baselineIs: 'bare node, start to exit',
      target: 3_000,
    });
    tell({
      name: 'memory of a provider node (RSS)',
      value: median(weights),
      unit: 'MB',
      baseline: bare.rssMb,
      baselineIs: 'bare node',
      target: 150,
    });
  },
};

async function startOnce(
  market: TestMarket,
  home: string,
): Promise<{ listeningMs: number; sellingMs: number; rssMb: number }> {
  const startedMs = performance.now();
  const child = spawn(
    process.execPath,
    [...NODE_FLAGS, join(root, 'dist/molt.js'), '--json', 'up', '--home', home, '--until-stdin-ends'],
    { stdio: ['pipe', 'pipe', 'inherit'], env: { ...process.env, ...NODE_ENVIRONMENT } },
  );
  const times = new Map<string, number>();
  const sold = new Promise<void>((resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      const { type } = JSON.parse(line) as { type: string };
      times.set(type, performance.now() - startedMs);
      if (type === 'selling') resolve();
    });
    child.on('exit', () => reject(new Error('the provider ended before it sold anything')));
  });
  await sold;
  await market.env.clock.sleep(SETTLE_MS);
  const rssMb = await rssOf(child);
  const ended = new Promise((resolve) => child.on('exit', resolve));
  child.stdin.end();
  await ended;
  return { listeningMs: times.get('listening') ?? Number.NaN, sellingMs: times.get('selling') ?? Number.NaN, rssMb };
}

async function bareNode(): Promise<{ startMs: number; rssMb: number }> {
  const starts: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const startedMs = performance.now();
    const child = spawn(process.execPath, ['-e', '0']);
    await new Promise((resolve) => child.on('exit', resolve));
    starts.push(performance.now() - startedMs);
  }
  const child = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 5000)']);
  await new Promise((resolve) => setTimeout(resolve, 500));
  const rssMb = await rssOf(child);
  child.kill();
  return { startMs: median(starts), rssMb };
}

async function rssOf(child: ChildProcess): Promise<number> {
  const status = await readFile(`/proc/${child.pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? Number.NaN) / 1024;
}
