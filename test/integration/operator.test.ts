/**
 * Goal: who operates a provider sees its jobs, their output and its earnings, can empty it, and learns what is wrong with
 * it. Method: molt processes beside a running provider, over its control door, and over its journal when it is stopped.
 */
import { spawn, spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { type TestBuyer, type TestMarket, type TestProvider, openMarket, stepsJob } from './market.ts';
import type { Job, Molt } from '../../sdk/index.ts';

const program = join(import.meta.dirname, '../../node/molt.js');
let market: TestMarket;
let provider: TestProvider;
let buyer: TestBuyer;
let client: Molt;
let metricsPort: number;

beforeAll(async () => {
  market = await openMarket();
  metricsPort = await freePort();
  provider = await market.provider({ metricsPort });
  buyer = await market.buyer();
  client = await buyer.connect();
});

afterAll(async () => {
  await market?.[Symbol.asyncDispose]();
});

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}

interface Answer {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

const environment = (): NodeJS.ProcessEnv => ({ PATH: process.env['PATH'], HOME: market.directory });

function molt(home: string, ...args: readonly string[]): Answer {
  const run = spawnSync(process.execPath, [program, '--home', home, ...args], { encoding: 'utf8', env: environment() });
  return { code: run.status, out: run.stdout, err: run.stderr };
}

function json(home: string, ...args: readonly string[]): Record<string, unknown> {
  const { out, err } = molt(home, '--json', ...args);
  expect(err).toBe('');
  return JSON.parse(out) as Record<string, unknown>;
}

/** A molt process that keeps running; its output so far, and its end. */
function follow(home: string, ...args: readonly string[]) {
  const child = spawn(process.execPath, [program, '--home', home, ...args], { env: environment() });
  const said = { out: '', err: '' };
  child.stdout.on('data', (data: Buffer) => (said.out += data.toString()));
  child.stderr.on('data', (data: Buffer) => (said.err += data.toString()));
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  return { said, ended, stop: () => child.kill('SIGINT') };
}

async function startSteps(steps: number): Promise<{ readonly job: Job; readonly lease: string }> {
  const opened = Promise.withResolvers<string>();
  const job = client.start(await stepsJob(market, client, steps), {
    maxPrice: '5',
    onEvent: (event) => {
      if (event.type === 'lease-opened') opened.resolve(event.lease);
    },
  });
  job.result.catch((error: unknown) => opened.reject(error));
  return { job, lease: await opened.promise };
}

const home = (): string => provider.home.directory;

describe('a provider that runs', () => {
  test('answers at a socket that only its own user can open', () => {
    expect(statSync(provider.home.door).mode & 0o777).toBe(0o600);
    expect(statSync(provider.home.door).isSocket()).toBe(true);
    expect(molt(home(), 'jobs').out).toBe('no jobs\n');
    expect(json(home(), 'jobs')).toEqual({ sold: [] });
  });

  test('shows a job while it runs, its output as it comes, and both after its end', async () => {
    const { job, lease } = await startSteps(6);
    const following = follow(home(), 'logs', lease.slice(0, 6), '-f', '--timestamps');
    await expect.poll(() => following.said.out, { timeout: 60_000 }).toContain('step 1');
    // The follower saw it live: the job has not ended.
    const [running] = json(home(), 'jobs')['sold'] as Record<string, unknown>[];
    expect(running).toMatchObject({
      lease,
      phase: 'running',
      standing: 'open',
      buyer: buyer.key.address,
      claimed: null,
    });
    expect(BigInt(String(running?.['billed']))).toBeGreaterThan(0n);
    const result = await job.result;
    expect(await following.ended).toBe(0);

    const lines = following.said.out.trim().split('\n');
    expect(lines.map((line) => line.replace(/^\S+Z (\d+) stdout (step \d+) \d+$/, '$2'))).toEqual(
      [0, 1, 2, 3, 4, 5].map((step) => `step ${step}`),
    );
    // Resumed at a sequence number, it goes on with that line.
    const third = lines[3]?.split(' ')[1] ?? '';
    expect(molt(home(), 'logs', lease, '--from', third).out.split('\n')[0]).toContain('step 3');
    expect(molt(home(), 'logs', lease, '--stderr').out).toBe('');

    await expect.poll(() => json(home(), 'jobs')['sold'], { timeout: 20_000 }).toEqual([]);
    expect(molt(home(), 'jobs').out).toContain('molt jobs --all lists the one that ended');
    const [ended] = json(home(), 'jobs', '--all')['sold'] as Record<string, unknown>[];
    expect(ended).toMatchObject({ lease, phase: 'closed', standing: 'settled', claimed: result.cost.toString() });
    expect(molt(home(), 'jobs', '--all').out).toMatch(/settled .*exit 0/);
    expect(molt(home(), 'logs', lease).out.split('\n').filter(Boolean)).toHaveLength(6);
  });

  test('says which job is meant when it does not know', () => {
    expect(molt(home(), 'logs', 'zzzz')).toMatchObject({ code: 1, err: expect.stringContaining('job/unknown') });
    expect(molt(home(), 'logs', 'zzzz', '--from', 'x')).toMatchObject({ code: 2 });
  });
});

describe('molt drain', () => {
  test('finishes what runs, takes nothing new, survives a restart, and is undone', async () => {
    const { job, lease } = await startSteps(8);
    await expect.poll(() => (json(home(), 'jobs')['sold'] as unknown[]).length).toBe(1);
    const waiting = follow(home(), 'drain', '--wait');
    await expect.poll(() => waiting.said.out).toContain('waiting for 1 job');
    await provider.line((line) => line['type'] === 'draining' && line['draining'] === true, 'draining');
    await expect(client.run(await stepsJob(market, client, 1), { maxPrice: '5', attempts: 1 })).rejects.toMatchObject({
      code: expect.stringMatching(/^market\//),
    });
    const result = await job.result;
    expect(result.lease).toBe(lease);
    expect(await waiting.ended).toBe(0);
    expect(waiting.said.out).toContain('nothing runs any more');

    await provider.kill();
    const before = provider.lines.length;
    await provider.start();
    expect(provider.lines.slice(before).find((line) => line['type'] === 'draining')).toMatchObject({ draining: true });
    expect(json(home(), 'drain', '--undo')).toEqual({ draining: false, unfinished: 0, running: true });
    const one = await stepsJob(market, client, 1);
    await expect
      .poll(
        () =>
          client.run(one, { maxPrice: '5' }).then(
            (result) => result.exitCode,
            () => -1,
          ),
        { timeout: 60_000 },
      )
      .toBe(0);
  });
});
