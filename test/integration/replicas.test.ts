/**
 * Goal: a wasm job on three providers is believed where two agree; one that returns something else is not paid, and its
 * claim is disputed. Method: honest providers as processes of their own, a liar in this process whose outputs are forged.
 */
import { mkdtemp, readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, test, vi } from 'vitest';

import type { RunningNode } from '../../node/node.ts';
import type { Address } from '../../protocol/address.ts';
import { type JobEvent, type Molt, ReplicasFailedError, type RunOptions } from '../../sdk/index.ts';
import { forged, startCrook, tamper } from './crook.ts';
import { type TestBuyer, type TestMarket, type TestProvider, openMarket, runFirstOn, stepsJob } from './market.ts';

type Line = Readonly<Record<string, unknown>>;

let market: TestMarket;
let buyer: TestBuyer;
let molt: Molt;
let forger: TestProvider;
let forging: RunningNode;
const honest: TestProvider[] = [];

beforeAll(async () => {
  market = await openMarket();
  forger = await market.provider({ pricePerCpu: '0.0005' });
  for (let count = 0; count < 2; count++) honest.push(await market.provider({ pricePerCpu: '0.001' }));
  buyer = await market.buyer();
  molt = await buyer.connect();
  await forger.stop();
  forging = await startCrook(market.env, forger.home);
});

afterAll(async () => {
  vi.restoreAllMocks();
  await forging?.close();
  await market?.[Symbol.asyncDispose]();
});

/** So many are live and have room. The offer of one that was killed lives for a minute. */
async function offersOf(count: number): Promise<void> {
  const ready = async (): Promise<number> =>
    (await molt.offers()).filter(({ free, revoked }) => !revoked && free.cpuMillis >= 1_000).length;
  await expect.poll(ready, { timeout: 90_000 }).toBe(count);
}

test('three that agree are all paid, the result is one, and each proof is kept', async () => {
  await offersOf(3);
  const before = await market.chain.budget(buyer.budget);
  const outputDirectory = await mkdtemp(join(market.directory, 'out-'));
  const events: JobEvent[] = [];
  const result = await molt.run(await stepsJob(market, molt, 2), {
    maxPrice: '6',
    replicas: 3,
    outputDirectory,
    onEvent: (event) => events.push(event),
  });
  expect(await readFile(join(outputDirectory, 'result.txt'), 'utf8')).toBe('steps 2');
  expect(await readdir(outputDirectory)).toEqual(['result.txt']);
  expect(result.replicas?.map(({ outcome }) => outcome)).toEqual(['agreed', 'agreed', 'agreed']);
  expect(new Set(result.replicas?.map(({ provider }) => provider)).size).toBe(3);
  expect(new Set(result.replicas?.map(({ proofDigest }) => proofDigest)).size).toBe(3);
  expect(events.at(-1)).toMatchObject({ type: 'replicas-compared', agreed: [0, 1, 2], outvoted: [], lost: [] });
  expect(result.cost).toBe(result.replicas?.reduce((sum, { cost = 0n }) => sum + cost, 0n));
  const after = await market.chain.budget(buyer.budget);
  expect(after).toMatchObject({ locked: 0n, free: (before?.free ?? 0n) - result.cost });
});

test('a program that fails the same everywhere is told as failed, once, and paid', async () => {
  await offersOf(3);
  const spec = await stepsJob(market, molt, 1);
  const failing = { ...spec, command: ['python', '-c', 'raise SystemExit(3)'], outputs: [] };
  await expect(molt.run(failing, { maxPrice: '6', replicas: 3 })).rejects.toMatchObject({
    code: 'job/failed',
    result: { exitCode: 3, replicas: [{ outcome: 'agreed' }, { outcome: 'agreed' }, { outcome: 'agreed' }] },
  });
});

test('molt run --replicas tells each step and leaves a proof of every replica', async () => {
  await offersOf(3);
  const { home } = await market.buyer();
  const out = await mkdtemp(join(market.directory, 'out-'));
  const lines: Line[] = [];
  const program = ['--image', 'python', '--', 'python', '-c', 'print(6 * 7)'];
  const options = ['--home', home.directory, '--out', out, '--replicas', '3', '--max-price', '6', '--timeout', '60'];
  // A newcomer may not have heard of all three yet.
  await expect
    .poll(async () => {
      lines.length = 0;
      return market.spawn(['run', ...options, ...program], (line) => lines.push(line)).exited;
    })
    .toBe(0);
  expect(lines.find(({ type }) => type === 'replicas-compared')).toMatchObject({ agreed: [0, 1, 2] });
  expect(lines.at(-1)).toMatchObject({
    type: 'result',
    exitCode: 0,
    replicas: [{ rank: 0 }, { rank: 1 }, { rank: 2 }],
  });
  expect((await readdir(out)).toSorted()).toEqual([
    'proof-0.json',
    'proof-1.json',
    'proof-2.json',
    'proof.json',
    'spec.json',
  ]);
});

test('a run whose buyer was killed goes on where it was, with the leases that it has, and pays each of them once', async () => {
  await offersOf(3);
  const { home, budget } = await market.buyer();
  const before = await market.chain.budget(budget);
  await stepsJob(market, molt, 1);
  const run = (lines: Line[]): ReturnType<TestMarket['spawn']> => {
    const out = ['--out', join(market.directory, 'resumed')];
    const limits = ['--replicas', '3', '--max-price', '6', '--timeout', '120', '--output', 'result.txt'];
    const job = ['--image', 'python', '--input', join(market.directory, 'steps.py'), '--'];
    const program = ['python', '/in/steps.py', '12'];
    return market.spawn(['run', '--home', home.directory, ...out, ...limits, ...job, ...program], (line) =>
      lines.push(line),
    );
  };
  const first: Line[] = [];
  let killed = run(first);
  const isHeard = async (): Promise<boolean> => {
    const isOver = await Promise.race([killed.exited.then(() => true), market.env.clock.sleep(50).then(() => false)]);
    // A newcomer may not have heard of all three yet.
    if (isOver && first.every(({ type }) => type !== 'lease-opened')) killed = run(first);
    return first.some(({ type }) => type === 'log');
  };
  await expect.poll(isHeard, { timeout: 150_000 }).toBe(true);
  process.kill(killed.pid ?? 0, 'SIGKILL');
  await killed.exited;
  const opened = first.filter(({ type }) => type === 'lease-opened').map(({ lease }) => String(lease));
  expect(opened).toHaveLength(3);

  const second: Line[] = [];
  const exitCode = await run(second).exited;
  expect(exitCode, JSON.stringify(second.slice(-3))).toBe(0);
  expect(second.find(({ type }) => type === 'run-resumed')).toMatchObject({ ranks: [0, 1, 2] });
  expect(second.filter(({ type }) => type === 'bid' || type === 'lease-opened')).toEqual([]);
  const result = second.at(-1);
  expect(result).toMatchObject({ type: 'result', exitCode: 0 });
  const replicas = result?.['replicas'] as { readonly outcome: string; readonly lease: string }[];
  expect(replicas.map(({ outcome }) => outcome)).toEqual(['agreed', 'agreed', 'agreed']);
  expect(replicas.map(({ lease }) => lease).toSorted()).toEqual(opened.toSorted());
  const cost = BigInt(String(result?.['cost']));
  expect(await market.chain.budget(budget)).toMatchObject({ locked: 0n, free: (before?.free ?? 0n) - cost });
  expect(await readFile(join(market.directory, 'resumed', 'result.txt'), 'utf8')).toBe('steps 12');
  // A run that ended is not taken up: the same job is bought anew.
  const third: Line[] = [];
  const again = run(third);
  await expect.poll(() => third.some(({ type }) => type === 'bid'), { timeout: 150_000 }).toBe(true);
  expect(third.some(({ type }) => type === 'run-resumed')).toBe(false);
  await again.stop(30_000);
});

test('one that is lost is let be where nobody can take its place', async () => {
  await offersOf(3);
  const [victim] = honest;
  let isKilled = false;
  // So long that the victim is not through when the first word of anybody is heard here.
  const result = await molt.run(await stepsJob(market, molt, 16), {
    maxPrice: '6',
    replicas: 3,
    reconnectMs: 1_000,
    onEvent: (event) => {
      if (isKilled || event.type !== 'log') return;
      isKilled = true;
      void victim?.kill();
    },
  });
  const outcomes = result.replicas?.map(({ outcome, provider }) => [provider === victim?.account.account, outcome]);
  expect(outcomes?.toSorted()).toEqual([
    [false, 'agreed'],
    [false, 'agreed'],
    [true, 'lost'],
  ]);
  await victim?.start();
});

test('one that is lost is replaced by another provider, within the ceiling, and each lease is paid once', async () => {
  const spare = await market.provider({ pricePerCpu: '0.002' });
  await offersOf(4);
  const before = await market.chain.budget(buyer.budget);
  let victim: TestProvider | undefined;
  const events: JobEvent[] = [];
  // The spare one is left to take over.
  const first = [forger, ...honest];
  const result = await runFirstOn(first, molt, await stepsJob(market, molt, 16), {
    maxPrice: '6',
    replicas: 3,
    reconnectMs: 1_000,
    onEvent: (event) => {
      events.push(event);
      if (victim !== undefined || event.type !== 'log' || event.rank !== 1) return;
      const seat = events.find((one) => one.type === 'seated' && one.rank === 1);
      victim = honest.find(({ account }) => seat?.type === 'seated' && account.account === seat.provider);
      void victim?.kill();
    },
  });
  expect(victim).toBeDefined();
  expect(result.replicas?.map(({ outcome }) => outcome)).toEqual(['agreed', 'agreed', 'agreed']);
  expect(result.replicas?.[1]).toMatchObject({
    provider: spare.account.account,
    earlier: [{ provider: victim?.account.account, code: 'job/provider-lost' }],
  });
  expect(events.filter(({ type }) => type === 'member-lost')).toMatchObject([{ rank: 1, replacing: true }]);
  const leases = events.filter((event) => event.type === 'lease-opened').map(({ lease }) => lease);
  expect(leases).toHaveLength(4);
  const endings = await Promise.all(leases.map((lease) => market.chain.leaseEnding(lease)));
  const paid = endings.reduce((sum, ending) => sum + (ending?.paid ?? 0n), 0n);
  expect(result.cost).toBe(paid);
  expect(paid).toBeLessThanOrEqual(6n * 10n ** 9n);
  const after = await market.chain.budget(buyer.budget);
  expect(after).toMatchObject({ locked: 0n, free: (before?.free ?? 0n) - paid });
  await victim?.start();
  await spare.stop();
});

test('one that returns something else is outvoted: not paid, and disputed when it claims', async () => {
  await offersOf(3);
  tamper(forged);
  const outputDirectory = await mkdtemp(join(market.directory, 'out-'));
  const events: JobEvent[] = [];
  const result = await molt.run(await stepsJob(market, molt, 2), {
    maxPrice: '6',
    replicas: 3,
    outputDirectory,
    onEvent: (event) => events.push(event),
  });
  vi.restoreAllMocks();
  expect(await readFile(join(outputDirectory, 'result.txt'), 'utf8')).toBe('steps 2');
  const outvoted = result.replicas?.filter(({ outcome }) => outcome !== 'agreed');
  expect(outvoted).toMatchObject([
    { outcome: 'outvoted', provider: forger.account.account, code: 'proof/outvoted', proof: expect.any(Uint8Array) },
  ]);
  const lease = outvoted?.[0]?.lease;
  if (lease === undefined) throw new Error('the forger had no lease');
  await expect.poll(async () => (await market.chain.lease(lease))?.state).toBe('disputed');
  await expect.poll(() => events.some((event) => event.type === 'lease-disputed' && event.lease === lease)).toBe(true);
  expect(await market.chain.leaseEnding(lease)).toBeUndefined();
});

test('where no result has more than half, each is told with who came to it, and nobody is settled or disputed by itself', async () => {
  await offersOf(3);
  tamper(forged);
  const events: JobEvent[] = [];
  const options = { maxPrice: '4', replicas: 2 } as const;
  const error = await failureOf({ ...options, onEvent: (event) => events.push(event) });
  expect(error.code).toBe('proof/no-majority');
  expect(error.replicas).toMatchObject([{ outcome: 'undecided' }, { outcome: 'undecided' }]);
  for (const { proof, lease } of error.replicas) {
    expect(proof).toBeInstanceOf(Uint8Array);
    expect((await market.chain.lease(lease!))?.state).toMatch(/running|proven/);
  }
  expect(error.results.map(({ ranks }) => ranks.length)).toEqual([1, 1]);
  expect(new Set(error.replicas.map(({ resultDigest }) => resultDigest)).size).toBe(2);
  expect(events.at(-1)).toMatchObject({ type: 'replicas-differ', results: error.results, lost: [], disputing: false });
  expect(events.filter(({ type }) => type === 'settled' || type === 'lease-disputed')).toEqual([]);

  await offersOf(3);
  const disputed = await failureOf({ ...options, disputeAll: true });
  vi.restoreAllMocks();
  for (const { lease } of disputed.replicas)
    await expect.poll(async () => (await market.chain.lease(lease!))?.state).toBe('disputed');
});

async function failureOf(options: RunOptions): Promise<ReplicasFailedError> {
  // The forger and one honest provider, once both quote.
  const running = runFirstOn([forger, ...honest.slice(0, 1)], molt, await stepsJob(market, molt, 1), options);
  const error: unknown = await running.catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(ReplicasFailedError);
  return error as ReplicasFailedError;
}

test('a result is compared before its claim is paid, however long another replica may still take', async () => {
  // By its lease this one may come an hour after it promised, long after the window of the other.
  const slow = await market.provider({ pricePerCpu: '0.002', graceSeconds: 3_600 });
  await offersOf(4);
  const [quick] = honest;
  if (quick === undefined) throw new Error('nobody is honest');
  const events: JobEvent[] = [];
  let isKilled = false;
  const options: RunOptions = {
    maxPrice: '6',
    replicas: 2,
    reconnectMs: 3_600_000,
    disputeAll: true,
    onEvent: (event) => {
      events.push(event);
      if (isKilled || event.type !== 'lease-opened') return;
      isKilled = true;
      void slow.kill();
    },
  };
  const running = runFirstOn([slow, quick], molt, await stepsJob(market, molt, 1), options);
  const failed = expect(running).rejects.toBeInstanceOf(ReplicasFailedError);
  await expect.poll(() => leaseOf(events, 'replica-proven'), { timeout: 60_000 }).toBeDefined();
  const lease = leaseOf(events, 'replica-proven');
  if (lease === undefined) throw new Error('nothing was proven');
  await expect.poll(async () => (await market.chain.lease(lease))?.state, { timeout: 60_000 }).toBe('proven');
  const { windowMs = 0 } = (await market.chain.lease(lease)) ?? {};
  await market.warp(windowMs / 1000 - 50);
  await failed;
  const error = (await running.catch((reason: unknown) => reason)) as ReplicasFailedError;
  expect(error.code).toBe('proof/no-majority');
  expect(events.find(({ type }) => type === 'vote-closed')).toMatchObject({
    missing: [error.replicas.find(({ outcome }) => outcome === 'lost')?.rank],
    code: 'market/finish-too-late',
  });
  await expect.poll(async () => (await market.chain.lease(lease))?.state).toBe('disputed');
});

/** Of the member that the first event of this type is about. */
function leaseOf(events: readonly JobEvent[], type: JobEvent['type']): Address | undefined {
  const rank = events.find((event) => event.type === type)?.rank;
  const opened = events.find((event) => event.type === 'lease-opened' && event.rank === rank);
  return rank !== undefined && opened?.type === 'lease-opened' ? opened.lease : undefined;
}

test('too few providers, and jobs that need not repeat, are refused before anything is leased', async () => {
  const spec = await stepsJob(market, molt, 1);
  await expect(molt.run(spec, { maxPrice: '8', replicas: 4 })).rejects.toBeInstanceOf(ReplicasFailedError);
  await expect(molt.run(spec, { maxPrice: '8', replicas: 4 })).rejects.toMatchObject({
    code: 'market/gang-incomplete',
  });
  const image = `alpine@sha256:${'ab'.repeat(32)}`;
  await expect(molt.run({ runtime: 'container', image }, { maxPrice: '6', replicas: 3 })).rejects.toMatchObject({
    code: 'protocol/invalid-spec',
    message: expect.stringContaining('of a container nothing says that it repeats'),
  });
  const inputs = [{ url: 'https://example.com/data.csv', path: 'data.csv' }];
  await expect(molt.run({ ...spec, inputs }, { maxPrice: '6', replicas: 3 })).rejects.toMatchObject({
    code: 'protocol/invalid-spec',
    message: expect.stringContaining('say its sha256'),
  });
});
