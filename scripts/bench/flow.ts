/**
 * The life of a no-op wasm job at so many provider processes: how long each step takes, and what all of it costs around
 * the same sandbox started directly.
 */
import { createHash } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { connect as connectTcp, createServer } from 'node:net';
import { join } from 'node:path';

import { readWallet } from '../../chain/index.ts';
import { kernelModule } from '../../node/speed.ts';
import { createRuntimes } from '../../node/runtime/index.ts';
import type { JobSpecInput } from '../../protocol/job-spec.ts';
import { baseUnits } from '../../protocol/units.ts';
import type { JobEvent, Molt } from '../../sdk/index.ts';
import { type TestMarket, openMarket } from '../../test/integration/market.ts';
import { type Group, median } from './row.ts';

const JOBS = 12;
const WARM_UP = 3;

/** When each step of one job was reached, ms after `run` was called; `billed` is a duration. */
interface Steps {
  readonly bid: number;
  readonly firstQuote: number;
  readonly allQuotes: number;
  readonly leaseOpen: number;
  /** From the acceptance of a quote to the confirmed lease. */
  readonly opening: number;
  readonly running: number;
  readonly proof: number;
  readonly settled: number;
  readonly billed: number;
}

export function flow(nodes: number): Group {
  return {
    name: `flow-${nodes}`,
    about: `one no-op wasm job, warm, ${nodes} provider processes on loopback, p50 of ${JOBS}`,
    run: async (tell) => {
      await using market = await openMarket({ logLevel: 'info' });
      for (let index = 0; index < nodes; index++) await market.provider({ pricePerCpu: `0.00${index + 1}` });
      const buyer = await market.buyer();
      await using molt = await buyer.connect();
      const spec = await noopJob(market, molt);
      await allOffers(molt, nodes);
      const steps: Steps[] = [];
      for (let job = 0; job < JOBS + WARM_UP; job++) {
        // Peers take one bid a second from one buyer in the long run.
        await market.env.clock.sleep(1_200);
        const one = await timeJob(molt, spec, nodes);
        if (job >= WARM_UP) steps.push(one);
      }
      const p50 = (pick: (one: Steps) => number): number => median(steps.map(pick));
      const echo = await echoTime();
      const confirm = await confirmTime(market);
      const direct = await sandboxTime(market);
      const at = `${nodes} nodes`;
      const tcp = { baseline: echo, baselineIs: 'TCP connect and echo, raw' };
      const ms = { unit: 'ms p50' };
      tell({
        name: `bid → first quote, ${at}`,
        value: p50((one) => one.firstQuote - one.bid),
        ...ms,
        ...tcp,
        target: 50,
      });
      tell({
        name: `bid → all quotes, ${at}`,
        value: p50((one) => one.allQuotes - one.bid),
        ...ms,
        ...tcp,
        target: 50,
      });
      const chain = { baseline: confirm, baselineIs: 'one bare transfer, sent to confirmed' };
      tell({
        name: `bid → lease open, ${at}`,
        value: p50((one) => one.leaseOpen - one.bid),
        ...ms,
        ...chain,
        target: 250,
      });
      const sandbox = { baseline: direct.total, baselineIs: 'the same sandbox, started directly' };
      tell({
        name: `bid → first instruction, ${at}`,
        value: p50((one) => one.running - one.bid),
        ...ms,
        ...sandbox,
        target: 600,
      });
      tell({
        name: `bid → settled, ${at}`,
        value: p50((one) => one.settled - one.bid),
        ...ms,
        ...sandbox,
        target: 700,
      });
      tell({
        name: `whole overhead around the job, ${at}`,
        value: p50((one) => one.settled - one.billed),
        ...ms,
        ...sandbox,
        target: 600,
      });
      const dispatch = p50((one) => one.settled - one.billed - 2 * confirm);
      tell({
        name: `dispatch overhead, ${at}`,
        value: dispatch,
        ...ms,
        baseline: direct.total - direct.billed,
        baselineIs: 'sandbox start and end, directly',
        target: 500,
      });
    },
  };
}

async function noopJob(market: TestMarket, molt: Molt): Promise<JobSpecInput> {
  const path = join(market.directory, 'noop.wasm');
  await writeFile(path, kernelModule(1));
  const { cid } = await molt.add(path);
  return {
    runtime: 'wasm',
    image: cid,
    command: ['noop'],
    resources: { memoryBytes: 16 * 2 ** 20 },
    maxDurationSeconds: 10,
  };
}

/** Waits until every provider's offer was heard. */
async function allOffers(molt: Molt, nodes: number): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    if ((await molt.offers()).length >= nodes) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`only ${(await molt.offers()).length} of ${nodes} offers were heard`);
}

async function timeJob(molt: Molt, spec: JobSpecInput, nodes: number): Promise<Steps> {
  const startedMs = performance.now();
  const at = (): number => performance.now() - startedMs;
  const seen: { -readonly [K in keyof Steps]?: Steps[K] } = {};
  let quotes = 0;
  const onEvent = (event: JobEvent): void => {
    if (event.type === 'bid') seen.bid = at();
    if (event.type === 'quote') {
      quotes++;
      seen.firstQuote ??= at();
    }
    if (event.type === 'ranked') seen.allQuotes = at();
    if (event.type === 'lease-opened') {
      seen.leaseOpen = at();
      seen.opening = event.afterMs;
    }
    if (event.type === 'phase' && event.phase === 'running') seen.running = at();
    if (event.type === 'proof-verified') {
      seen.proof = at();
      seen.billed = event.billedMs;
    }
    if (event.type === 'settled') seen.settled = at();
  };
  await molt.run(spec, { maxPrice: '1', quotes: Math.min(nodes, 20), onEvent });
  if (quotes < 1) throw new Error('the job ran without a quote');
  return seen as Steps;
}

/** Connect, one byte there and back, median of 20. */
export async function echoTime(): Promise<number> {
  const server = createServer((socket) => socket.pipe(socket));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const times: number[] = [];
  for (let round = 0; round < 20; round++) {
    const startedMs = performance.now();
    await new Promise<void>((resolve, reject) => {
      const socket = connectTcp(port, '127.0.0.1', () => socket.write('x'));
      socket.on('error', reject);
      socket.on('data', () => {
        times.push(performance.now() - startedMs);
        socket.destroy();
        resolve();
      });
    });
  }
  server.close();
  return median(times);
}

/** The cheapest transaction there is, through the same client: median of 10. */
async function confirmTime(market: TestMarket): Promise<number> {
  const owner = await market.buyer({ deposit: '1' });
  const times: number[] = [];
  const wallet = await readWallet(owner.home.wallet);
  for (let round = 0; round < 10; round++) {
    const startedMs = performance.now();
    await market.chain.withdrawBudget(wallet, owner.budget, baseUnits(1n));
    times.push(performance.now() - startedMs);
  }
  return median(times);
}

/** The job's module in the job's sandbox without market, mesh and money: median of 5. */
async function sandboxTime(market: TestMarket): Promise<{ total: number; billed: number }> {
  const [wasm] = createRuntimes(market.env, { directory: join(market.directory, 'direct') });
  if (wasm === undefined) throw new Error('there is no wasm runtime');
  const module = kernelModule(1);
  const folder = join(market.directory, 'direct-job');
  const path = join(market.directory, 'direct.wasm');
  await writeFile(path, module);
  const digest = createHash('sha256').update(module).digest('hex');
  const totals: number[] = [];
  const billed: number[] = [];
  for (let round = 0; round < 6; round++) {
    await rm(folder, { recursive: true, force: true });
    for (const name of ['in', 'out']) await mkdir(join(folder, name), { recursive: true });
    const startedMs = performance.now();
    const run = await wasm.start(
      {
        attemptId: `direct-${round}`,
        image: { kind: 'module', path, digest },
        command: ['noop'],
        environment: {},
        inputDirectory: join(folder, 'in'),
        outputDirectory: join(folder, 'out'),
        limits: {
          cpus: 1,
          memoryBytes: 16 * 2 ** 20,
          diskBytes: 2 ** 20,
          durationMs: 10_000,
          logBytes: 1_000,
          processes: 1,
        },
        randomSeed: new Uint8Array(32),
        clockStartMs: 0,
      },
      AbortSignal.timeout(20_000),
    );
    for await (const _chunk of run.logs) continue;
    const exit = await run.exit;
    if (round > 0) {
      totals.push(performance.now() - startedMs);
      billed.push(exit.durationMs);
    }
  }
  await wasm.close();
  return { total: median(totals), billed: median(billed) };
}
