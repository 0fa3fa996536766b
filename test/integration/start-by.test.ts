/**
 * Goal: a provider that promised a start and broke the promise is not paid, whether it gives the money back, admits it in
 * its proof or keeps silent, and the next provider does the job. Method: one provider in this process whose runtime or
 * clock is tampered with, another one as a process of its own.
 */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';

import { readWallet } from '../../chain/index.ts';
import { mergeSettings, readConfigFile } from '../../node/config.ts';
import { nodeConfig } from '../../node/node-config.ts';
import { type RunningNode, startNode } from '../../node/node.ts';
import { type Run, WasmRuntime } from '../../node/runtime/index.ts';
import type { Address } from '../../protocol/address.ts';
import type { Env } from '../../protocol/env.ts';
import type { JobEvent, JobResult, Molt } from '../../sdk/index.ts';
import { type TestBuyer, type TestMarket, type TestProvider, openMarket, stepsJob } from './market.ts';

let market: TestMarket;
let late: TestProvider;
let punctual: TestProvider;
beforeAll(async () => {
  market = await openMarket();
  const starts = { startSecondsWarm: 1, startSecondsCold: 1 };
  late = await market.provider({ pricePerCpu: '0.00005', ...starts });
  punctual = await market.provider({ pricePerCpu: '0.003', ...starts });
  await late.stop();
});
afterAll(async () => {
  await market?.[Symbol.asyncDispose]();
});

let node: RunningNode;
let buyer: TestBuyer;
/** Added to the clock of the late provider. */
let offsetMs: number;
beforeEach(async () => {
  offsetMs = 0;
  const { settings } = mergeSettings({ environment: {}, file: await readConfigFile(late.home.config) });
  const config = await nodeConfig(late.home.directory, await readWallet(late.home.nodeKey), settings);
  const { clock } = market.env;
  const env: Env = { ...market.env, clock: Object.assign(Object.create(clock), { now: () => clock.now() + offsetMs }) };
  node = await startNode(env, config, () => undefined);
  buyer = await market.buyer();
});
afterEach(async () => {
  vi.restoreAllMocks();
  await node.close();
});

/** Every run of the late provider is what `change` makes of it; the other provider is another process. */
function tamper(change: (run: Run) => Run | Promise<Run>): void {
  // oxlint-disable-next-line unbound-method -- applied to its own instance below
  const start = WasmRuntime.prototype.start;
  vi.spyOn(WasmRuntime.prototype, 'start').mockImplementation(async function (this: WasmRuntime, ...given) {
    return change(await start.apply(this, given));
  });
}

async function runIn(startWithinSeconds: number, molt: Molt, events: JobEvent[]): Promise<JobResult> {
  await expect.poll(async () => (await molt.offers()).length).toBe(2);
  const result = await molt.run(await stepsJob(market, molt, 2), {
    maxPrice: '5',
    lotShare: 0,
    startWithinSeconds,
    onEvent: (event) => events.push(event),
  });
  expect(result).toMatchObject({ exitCode: 0, attempts: 2, provider: punctual.account.account });
  return result;
}

function lateLease(events: readonly JobEvent[]): Address {
  const opened = events.find((event) => event.type === 'lease-opened');
  if (opened?.type !== 'lease-opened') throw new Error('no lease was opened with the late provider');
  return opened.lease;
}

test('one that cannot begin in time gives the money back by itself', async () => {
  tamper(async (run) => {
    await market.env.clock.sleep(20_000);
    return run;
  });
  const before = await market.chain.budget(buyer.budget);
  await using molt = await buyer.connect();
  const events: JobEvent[] = [];
  const { cost } = await runIn(15, molt, events);
  expect(events.find((event) => event.type === 'provider-failed')).toMatchObject({
    node: (await readWallet(late.home.nodeKey)).address,
    code: 'job/started-late',
    retrying: true,
  });
  const ending = await market.chain.leaseEnding(lateLease(events));
  expect(ending).toMatchObject({ ending: 'cancelledByOperator', paid: 0n });
  const after = await market.chain.budget(buyer.budget);
  expect(after).toMatchObject({ locked: 0n, free: (before?.free ?? 0n) - cost });
});

test('one whose own proof says that it began late is not paid, and disputed when it claims', async () => {
  tamper((run) => withStart(run, run.startedAtMs + 100_000));
  await using molt = await buyer.connect();
  const events: JobEvent[] = [];
  await runIn(20, molt, events);
  expect(events.find((event) => event.type === 'provider-failed')).toMatchObject({
    code: 'proof/started-late',
    retrying: true,
  });
  const lease = lateLease(events);
  await expect.poll(async () => (await market.chain.lease(lease))?.state).toBe('disputed');
  await expect.poll(() => events.some((event) => event.type === 'lease-disputed' && event.lease === lease)).toBe(true);
  expect(await market.chain.leaseEnding(lease)).toBeUndefined();
});

test('one that is not heard to begin is given up for another, whatever its clock says', async () => {
  tamper(async (run) => {
    offsetMs = -600_000;
    await market.env.clock.sleep(40_000);
    return run;
  });
  await using molt = await buyer.connect();
  const events: JobEvent[] = [];
  await runIn(15, molt, events);
  expect(events.find((event) => event.type === 'provider-failed')).toMatchObject({
    code: 'job/started-late',
    reason: expect.stringContaining('promised to begin the job by'),
    retrying: true,
  });
  expect(await market.chain.leaseEnding(lateLease(events))).toBeUndefined();
});

function withStart(run: Run, startedAtMs: number): Run {
  return new Proxy(run, {
    get: (target, name) => {
      if (name === 'exit') return target.exit.then((exit) => ({ ...exit, startedAtMs }));
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}
