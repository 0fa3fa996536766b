/**
 * Goal: a provider that promised a start and broke the promise is not paid, whether it gives the money back, admits it in
 * its proof or keeps silent, and the next provider does the job. Method: one provider in this process whose runtime or
 * clock is tampered with, another one as a process of its own.
 */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';

import { readWallet } from '../../chain/index.ts';
import type { RunningNode } from '../../node/node.ts';
import type { Address } from '../../protocol/address.ts';
import type { Env } from '../../protocol/env.ts';
import type { JobEvent, JobResult, Molt } from '../../sdk/index.ts';
import { startCrook, tamper, withExit } from './crook.ts';
import { type TestBuyer, type TestMarket, type TestProvider, openMarket, runFirstOn, stepsJob } from './market.ts';

let market: TestMarket;
let late: TestProvider;
let punctual: TestProvider;
beforeAll(async () => {
  market = await openMarket();
  const starts = { startSecondsWarm: 1, startSecondsCold: 1 };
  late = await market.provider({ pricePerCpu: '0.00005', ...starts });
  punctual = await market.provider({ pricePerCpu: '0.003', ...starts });
  await late.stop();
  // It has the module ready: what it promises does not depend on how long this machine takes to prepare one.
  await using molt = await (await market.buyer()).connect();
  await molt.run(await stepsJob(market, molt, 1), { maxPrice: '5' });
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
  const { clock } = market.env;
  const env: Env = { ...market.env, clock: Object.assign(Object.create(clock), { now: () => clock.now() + offsetMs }) };
  node = await startCrook(env, late.home);
  buyer = await market.buyer();
});
afterEach(async () => {
  vi.restoreAllMocks();
  await node.close();
});

/** The second provider begins within it as well, on a machine that does other things besides. */
const SOON_SECONDS = 25;

async function runIn(startWithinSeconds: number, molt: Molt, events: JobEvent[]): Promise<JobResult> {
  await expect.poll(async () => (await molt.offers()).length).toBe(2);
  const result = await runFirstOn([late], molt, await stepsJob(market, molt, 2), {
    maxPrice: '5',
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
    await market.env.clock.sleep((SOON_SECONDS + 5) * 1_000);
    return run;
  });
  const before = await market.chain.budget(buyer.budget);
  await using molt = await buyer.connect();
  const events: JobEvent[] = [];
  const { cost } = await runIn(SOON_SECONDS, molt, events);
  expect(events.find((event) => event.type === 'provider-failed')).toMatchObject({
    node: (await readWallet(late.home.nodeKey)).address,
    code: 'job/started-late',
    retrying: true,
  });
  // It says so before it gives the money back, and the buyer waits for neither.
  await expect
    .poll(() => market.chain.leaseEnding(lateLease(events)))
    .toMatchObject({ ending: 'cancelledByOperator', paid: 0n });
  const after = await market.chain.budget(buyer.budget);
  expect(after).toMatchObject({ locked: 0n, free: (before?.free ?? 0n) - cost });
});

test('one whose own proof says that it began late is not paid, and disputed when it claims', async () => {
  tamper((run) => withExit(run, (exit) => ({ ...exit, startedAtMs: run.startedAtMs + 100_000 })));
  await using molt = await buyer.connect();
  const events: JobEvent[] = [];
  // A start that is admitted a hundred seconds later is late all the same.
  await runIn(60, molt, events);
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
    await market.env.clock.sleep((SOON_SECONDS + 25) * 1_000);
    return run;
  });
  await using molt = await buyer.connect();
  const events: JobEvent[] = [];
  await runIn(SOON_SECONDS, molt, events);
  expect(events.find((event) => event.type === 'provider-failed')).toMatchObject({
    code: 'job/started-late',
    reason: expect.stringContaining('promised to begin the job by'),
    retrying: true,
  });
  expect(await market.chain.leaseEnding(lateLease(events))).toBeUndefined();
});
