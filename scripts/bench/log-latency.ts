/**
 * How long a line of a job is on its way to the buyer, through runtime, journal and mesh.
 *
 * A container prints how long the machine has been up, which the buyer reads in the same place (in steps of 10 ms). A wasm
 * guest has no clock but the one its specification sets, so its lines are timed from the moment the node received them.
 */
import { readFileSync } from 'node:fs';
import { connect as connectTcp, createServer } from 'node:net';

import type { JobSpecInput } from '../../protocol/job-spec.ts';
import type { JobEvent } from '../../sdk/index.ts';
import { findEngine, openBusyboxRegistry } from '../../test/fixtures/engine.ts';
import { openMarket, stepsJob, type TestMarket } from '../../test/integration/market.ts';
import { type Group, type Row, quantile } from './row.ts';

const LINES = 100;
const STEPS = 30;
const TARGET_MS = 100;

export const logLatency: Group = {
  name: 'log-latency',
  about: 'a line of output, from the job to the buyer, over loopback',
  run: async (tell) => {
    const wire = await wireTimes();
    const rows = (what: string, times: readonly number[]): Row[] =>
      [0.5, 0.99].map((share) => ({
        name: `${what}, p${share * 100} of ${times.length}`,
        value: quantile(times, share),
        unit: 'ms',
        baseline: quantile(wire, share),
        baselineIs: 'a byte over raw TCP, there and back',
        target: TARGET_MS,
      }));
    await using market = await openMarket();
    for (const row of rows('wasm: received by the node → buyer', await wasmTimes(market))) tell(row);
    const { socketPath, reason } = await findEngine();
    if (socketPath === undefined) return console.log(`containers skipped: ${reason}`);
    for (const row of rows('container: printed → buyer', await containerTimes(market, socketPath))) tell(row);
  },
};

async function wasmTimes(market: TestMarket): Promise<number[]> {
  const provider = await market.provider();
  const buyer = await market.buyer();
  await using molt = await buyer.connect();
  const times: number[] = [];
  const onEvent = (event: JobEvent): void => {
    if (event.type === 'log') times.push(Date.now() - event.atMs);
  };
  await molt.run(await stepsJob(market, molt, STEPS), { maxPrice: '5', onEvent });
  await provider.stop();
  return times;
}

async function containerTimes(market: TestMarket, socketPath: string): Promise<number[]> {
  await using registry = await openBusyboxRegistry();
  const provider = await market.provider({ runtimes: ['container'], containerSocket: socketPath });
  const buyer = await market.buyer();
  await using molt = await buyer.connect();
  const times: number[] = [];
  const onEvent = (event: JobEvent): void => {
    if (event.type !== 'log') return;
    const nowSeconds = Number.parseFloat(readFileSync('/proc/uptime', 'utf8'));
    for (const line of Buffer.from(event.bytes).toString().trim().split('\n'))
      times.push((nowSeconds - Number.parseFloat(line)) * 1_000);
  };
  const spec: JobSpecInput = {
    runtime: 'container',
    image: registry.reference,
    command: ['sh', '-c', `for i in $(seq ${LINES}); do read up idle < /proc/uptime; echo $up; sleep 0.1; done`],
    resources: { memoryBytes: 64 * 2 ** 20, diskBytes: 32 * 2 ** 20 },
    maxDurationSeconds: 120,
  };
  await molt.run(spec, { maxPrice: '5', onEvent });
  await provider.stop();
  return times;
}

/** The machine's own: a byte to a loopback socket and back. */
async function wireTimes(): Promise<number[]> {
  const server = createServer((socket) => socket.pipe(socket));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const socket = connectTcp(typeof address === 'object' && address !== null ? address.port : 0, '127.0.0.1');
  await new Promise((resolve) => socket.once('connect', resolve));
  const times: number[] = [];
  for (let round = 0; round < LINES; round++) {
    const startedMs = performance.now();
    const answer = new Promise((resolve) => socket.once('data', resolve));
    socket.write('x');
    await answer;
    times.push(performance.now() - startedMs);
  }
  socket.destroy();
  server.close();
  return times;
}
