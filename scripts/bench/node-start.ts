/** How soon a provider process listens, and what it weighs: of the program as `npm run build` makes it and as it is published. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { NODE_ENVIRONMENT, NODE_FLAGS } from '../../node/cli/demo/child.ts';
import { readNetwork } from '../../chain/index.ts';
import { openMesh } from '../../node/mesh/index.ts';
import { keyPairFromSeed } from '../../protocol/ed25519.ts';
import { meshName } from '../../protocol/wire.ts';
import { type TestMarket, openMarket } from '../../test/integration/market.ts';
import { type Group, median } from './row.ts';

const root = join(import.meta.dirname, '../..');
const ROUNDS = 5;
const ROUNDS_WITH_PEERS = 3;
const SETTLE_MS = 3_000;
/** The setting of the mesh: what comes beyond it is refused. */
const PEERS = 150;

export const nodeStart: Group = {
  name: 'node-start',
  about: `a provider process: its start, and what it weighs; medians of ${ROUNDS}, with peers of ${ROUNDS_WITH_PEERS}`,
  run: async (tell) => {
    execFileSync(process.execPath, [join(root, 'scripts/build.ts')], { stdio: ['ignore', 'ignore', 'inherit'] });
    await using market = await openMarket();
    const provider = await market.provider({ listen: ['/ip4/127.0.0.1/tcp/0', '/ip6/::1/tcp/0'] });
    await provider.stop();
    const listening: number[] = [];
    const selling: number[] = [];
    const weights: number[] = [];
    const weightsWithPeers: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const node = await start(provider.home.directory);
      listening.push(node.listeningMs);
      selling.push(node.sellingMs);
      await market.env.clock.sleep(SETTLE_MS);
      weights.push(await node.rssMb());
      if (round < ROUNDS_WITH_PEERS) {
        await using _peers = await connectPeers(market, node);
        weightsWithPeers.push(await node.rssMb());
      }
      await node.stop();
    }
    const bare = await bareNode();
    tell({
      name: 'process start → listening',
      value: median(listening),
      unit: 'ms',
      baseline: bare.startMs,
      baselineIs: 'bare node, start to exit',
      target: 200,
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
      target: 130,
    });
    tell({
      name: `the same with ${PEERS} peers`,
      value: median(weightsWithPeers),
      unit: 'MB',
      baseline: bare.rssMb,
      baselineIs: 'bare node',
      target: 160,
    });
  },
};

interface Started {
  readonly addresses: readonly string[];
  readonly listeningMs: number;
  readonly sellingMs: number;
  rssMb(): Promise<number>;
  stop(): Promise<void>;
}

async function start(home: string): Promise<Started> {
  const startedMs = performance.now();
  const child = spawn(
    process.execPath,
    [...NODE_FLAGS, join(root, 'dist/molt.js'), '--json', 'up', '--home', home, '--until-stdin-ends'],
    { stdio: ['pipe', 'pipe', 'inherit'], env: { ...process.env, ...NODE_ENVIRONMENT } },
  );
  const ended = once(child, 'exit');
  const times = new Map<string, number>();
  let addresses: readonly string[] = [];
  for await (const text of createInterface({ input: child.stdout })) {
    const line = JSON.parse(text) as { type: string; addresses?: readonly string[] };
    times.set(line.type, performance.now() - startedMs);
    if (line.type === 'listening') addresses = line.addresses ?? [];
    if (line.type === 'selling') break;
  }
  // What it tells later is not read, and must not stop it.
  child.stdout.resume();
  const [listeningMs, sellingMs] = [times.get('listening'), times.get('selling')];
  if (listeningMs === undefined || sellingMs === undefined)
    throw new Error('the provider ended before it sold anything');
  return {
    addresses,
    listeningMs,
    sellingMs,
    rssMb: () => rssOf(child),
    stop: async () => {
      child.stdin.end();
      await ended;
    },
  };
}

/**
 * As many peers as a node accepts by itself, half of them from each range of the loopback interface: one range has no
 * places for all. They live in this process and take part in gossip.
 */
async function connectPeers(market: TestMarket, { addresses }: Started): Promise<AsyncDisposable> {
  const network = meshName(await readNetwork(market.rpcUrl));
  await using opened = new AsyncDisposableStack();
  const families = ['/ip4/', '/ip6/'].map((family) => addresses.filter((address) => address.startsWith(family)));
  for (let index = 0; index < PEERS; index++) {
    const key = keyPairFromSeed(market.env.random.bytes(32));
    const options = { key, listen: [], bootstrap: [], mdns: false, role: 'light', network } as const;
    const peer = opened.use(await openMesh(market.env, options));
    await peer.connect(families[index % families.length] ?? []);
  }
  await market.env.clock.sleep(SETTLE_MS);
  return opened.move();
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
