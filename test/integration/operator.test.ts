/**
 * Goal: who operates a provider sees its jobs, their output and its earnings, can empty it, and learns what is wrong with
 * it. Method: molt processes beside a running provider, over its control door, and over its journal when it is stopped.
 */
import { spawn } from 'node:child_process';
import { chmodSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { readWallet } from '../../chain/index.ts';
import { baseUnits } from '../../protocol/units.ts';
import type { Job, Molt } from '../../sdk/index.ts';
import { freePort } from '../fixtures/port.ts';
import { type TestBuyer, type TestMarket, type TestProvider, openMarket, stepsJob } from './market.ts';

const program = join(import.meta.dirname, '../../node/molt.js');
let market: TestMarket;
let provider: TestProvider;
let buyer: TestBuyer;
let client: Molt;
let metricsPort: number;
/** Of the payout account, before anything was earned. */
let tokensAtFirst: bigint;

beforeAll(async () => {
  market = await openMarket();
  metricsPort = await freePort();
  provider = await market.provider({ metricsPort });
  tokensAtFirst = (await market.chain.balances(provider.account.wallet)).tokens;
  buyer = await market.buyer();
  client = await buyer.connect();
});

afterAll(async () => {
  await market?.[Symbol.asyncDispose]();
});

interface Answer {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

const environment = (): NodeJS.ProcessEnv => ({ PATH: process.env['PATH'], HOME: market.directory });

function molt(home: string, ...args: string[]): Promise<Answer> {
  return moltWith({}, home, ...args);
}

/** With settings from the environment. Asynchronously, for the buyer's client lives here. */
async function moltWith(settings: Readonly<Record<string, string>>, home: string, ...args: string[]): Promise<Answer> {
  const { said, ended } = follow(settings, home, ...args);
  return { code: await ended, ...said };
}

async function json(home: string, ...args: string[]): Promise<Record<string, unknown>> {
  const { out, err } = await molt(home, '--json', ...args);
  expect(err).toBe('');
  return JSON.parse(out) as Record<string, unknown>;
}

/** A molt process that keeps running; its output so far, and its end. */
function follow(settings: Readonly<Record<string, string>>, home: string, ...args: readonly string[]) {
  const env = { ...environment(), ...settings };
  const child = spawn(process.execPath, [program, '--home', home, ...args], { env });
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
  test('answers at a socket that only its own user can open', async () => {
    expect(statSync(provider.home.door).mode & 0o777).toBe(0o600);
    expect(statSync(provider.home.door).isSocket()).toBe(true);
    expect((await molt(home(), 'jobs')).out).toBe('no jobs\n');
    expect(await json(home(), 'jobs')).toEqual({ sold: [] });
  });

  test('shows a job while it runs, its output as it comes, and both after its end', async () => {
    // Long enough for two processes to start while it runs.
    const { job, lease } = await startSteps(16);
    const following = follow({}, home(), 'logs', lease.slice(0, 6), '-f', '--timestamps');
    await expect.poll(() => following.said.out).toContain('step 1');
    // The follower saw it live: the job has not ended.
    const [running] = (await json(home(), 'jobs'))['sold'] as Record<string, unknown>[];
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
      Array.from({ length: 16 }, (_, step) => `step ${step}`),
    );
    // Resumed at a sequence number, it goes on with the first line that has it: two that came at once share one.
    const sequences = lines.map((line) => line.split(' ')[1] ?? '');
    const fourth = sequences[3] ?? '';
    const resumed = (await molt(home(), 'logs', lease, '--from', fourth)).out.split('\n')[0];
    expect(resumed).toMatch(new RegExp(`^step ${sequences.indexOf(fourth)} `));
    expect((await molt(home(), 'logs', lease, '--stderr')).out).toBe('');

    await expect.poll(async () => (await json(home(), 'jobs'))['sold']).toEqual([]);
    expect((await molt(home(), 'jobs')).out).toContain('molt jobs --all lists the one that ended');
    const [ended] = (await json(home(), 'jobs', '--all'))['sold'] as Record<string, unknown>[];
    expect(ended).toMatchObject({ lease, phase: 'closed', standing: 'settled', claimed: result.cost.toString() });
    expect((await molt(home(), 'jobs', '--all')).out).toMatch(/settled .*exit 0/);
    expect((await molt(home(), 'logs', lease)).out.split('\n').filter(Boolean)).toHaveLength(16);
  });

  test('says which job is meant when it does not know', async () => {
    expect(await molt(home(), 'logs', 'zzzz')).toMatchObject({ code: 1, err: expect.stringContaining('job/unknown') });
    expect(await molt(home(), 'logs', 'zzzz', '--from', 'x')).toMatchObject({ code: 2 });
  });
});

describe('molt drain', () => {
  test('finishes what runs, takes nothing new, survives a restart, and is undone', async () => {
    const { job, lease } = await startSteps(16);
    const waiting = follow({}, home(), 'drain', '--wait');
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
    expect(await json(home(), 'drain', '--undo')).toEqual({ draining: false, unfinished: 0, running: true });
    const one = await stepsJob(market, client, 1);
    await expect
      .poll(() =>
        client.run(one, { maxPrice: '5' }).then(
          (result) => result.exitCode,
          () => -1,
        ),
      )
      .toBe(0);
  });
});

describe('a buyer', () => {
  test('reads the output of its job from the provider, live after its own process died and again after the end', async () => {
    const own = await market.buyer();
    const lines: Record<string, unknown>[] = [];
    // Its own process must not have ended before it is killed.
    const script = "import time\nfor i in range(5):\n  print('line', i, flush=True)\n  sum(range(6000000))";
    const args = ['run', '--home', own.home.directory, '--image', 'python', '--timeout', '120', '--', 'python', '-c'];
    const child = market.spawn([...args, script], (line) => lines.push(line));
    await expect.poll(() => lines.some((line) => line['type'] === 'log')).toBe(true);
    const lease = String(lines.find((line) => line['type'] === 'lease-opened')?.['lease']);
    const directory = own.home.directory;
    // While the other process has the node key, it reads; killed in between, what is missing comes all the same.
    const live = follow({}, directory, 'logs', lease.slice(0, 8), '-f');
    await expect.poll(() => live.said.out).toContain('line 0');
    process.kill(child.pid ?? 0, 'SIGKILL');
    await child.exited;
    // Some seconds after the job has ended the provider claims alone.
    const bought = (await json(directory, 'jobs'))['bought'] as Record<string, unknown>[];
    expect(bought).toMatchObject([{ lease, standing: 'running', provider: provider.account.account }]);
    expect(await live.ended).toBe(0);
    expect(live.said).toEqual({ out: `${[0, 1, 2, 3, 4].map((index) => `line ${index}`).join('\n')}\n`, err: '' });
    const whole = [0, 1, 2, 3, 4].map((index) => `line ${index}`).join('\n');
    const following = await molt(directory, 'logs', lease.slice(0, 8), '-f');
    expect(following).toMatchObject({ code: 0, out: `${whole}\n` });
    expect((await molt(directory, 'logs', lease)).out).toBe(`${whole}\n`);
    // The buyer is gone, so the provider claims, waits for the window and is paid all the same.
    await provider.line((line) => line['type'] === 'claimed' && line['lease'] === lease, 'the claim');
    await market.warp(120);
    await provider.line((line) => line['type'] === 'lease-closed' && line['lease'] === lease, 'the settlement');
    expect((await json(directory, 'jobs'))['bought']).toEqual([]);
    expect((await json(directory, 'jobs', '--all'))['bought']).toMatchObject([
      { lease, standing: 'settledAfterWindow' },
    ]);
  });

  test('reads it through its own process while that one has the job, to the end', async () => {
    const own = await market.buyer();
    const directory = own.home.directory;
    const lines: Record<string, unknown>[] = [];
    const script = "for i in range(4):\n  print('line', i, flush=True)\n  sum(range(3000000))";
    const args = ['run', '--home', directory, '--image', 'python', '--timeout', '60', '--', 'python', '-c', script];
    const child = market.spawn(args, (line) => lines.push(line));
    await expect.poll(() => lines.some((line) => line['type'] === 'lease-opened')).toBe(true);
    const lease = String(lines.find((line) => line['type'] === 'lease-opened')?.['lease']);
    const following = await molt(directory, 'logs', lease, '-f');
    expect(following).toEqual({ code: 0, out: 'line 0\nline 1\nline 2\nline 3\n', err: '' });
    expect(await child.exited).toBe(0);
  });

  test('cannot read the output of somebody else', async () => {
    const stranger = await market.buyer();
    const [sold] = (await json(home(), 'jobs', '--all'))['sold'] as Record<string, unknown>[];
    const answer = await molt(stranger.home.directory, 'logs', String(sold?.['lease']));
    expect(answer).toMatchObject({ code: 1, out: '', err: expect.stringContaining('job/unknown') });
  });
});

test('metrics are scraped and say what happened', async () => {
  const response = await fetch(`http://127.0.0.1:${metricsPort}/metrics`);
  expect(response.headers.get('content-type')).toContain('text/plain');
  const samples = new Map<string, number>();
  for (const line of (await response.text()).split('\n')) {
    const match = /^([a-z_\d]+(?:\{[^}]*\})?) ([-+.\deE]+|NaN)$/.exec(line);
    if (match !== null) samples.set(match[1] ?? '', Number(match[2]));
    else expect(line).toMatch(/^$|^# (HELP|TYPE) /);
  }
  const account = await market.chain.provider(provider.account.account);
  // The account is read every few seconds.
  const settled = Number(account?.settledAmount);
  expect(settled).toBeGreaterThan(0);
  for (const sample of [
    `molt_settled_base_units_total ${settled}`,
    `molt_stake_base_units{kind="own"} ${account?.own.stake}`,
  ])
    await expect
      .poll(async () => (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text())
      .toContain(`${sample}\n`);
  // Since the restart above: one job of the client, and two of buyers with a process of their own.
  expect(samples.get('molt_leases_accepted_total')).toBe(3);
  expect(samples.get('molt_quotes_total')).toBeGreaterThanOrEqual(2);
  expect(samples.get('molt_gossip_messages_total{kind="bid",verdict="accept"}')).toBeGreaterThanOrEqual(2);
  expect(samples.get('molt_capacity{resource="cpu_millis",state="total"}')).toBe(1_000);
  expect(samples.get('molt_runtime_available{runtime="wasm"}')).toBe(1);
  expect(samples.get('nodejs_eventloop_lag_seconds')).toBeGreaterThanOrEqual(0);
  expect((await fetch(`http://127.0.0.1:${metricsPort}/jobs`)).status).toBe(404);
});

test('earnings are what the chain moved, to the base unit', async () => {
  const { total, days, open } = (await json(home(), 'earnings', '--since', '1d')) as Record<
    string,
    Record<string, string>
  >;
  const tokens = (await market.chain.balances(provider.account.wallet)).tokens;
  const account = await market.chain.provider(provider.account.account);
  expect(BigInt(total?.['payout'] ?? 0)).toBe(tokens - tokensAtFirst);
  expect(BigInt(total?.['staked'] ?? 0)).toBe((account?.own.stake ?? 0n) - 100_000_000_000n);
  expect(BigInt(total?.['burned'] ?? 0)).toBe(account?.feesBurned);
  expect(BigInt(total?.['gross'] ?? 0)).toBe(account?.settledAmount);
  expect(total?.['paidLeases']).toBe(Number(account?.settledCount));
  const byDay = (days as unknown as Record<string, string>[]).reduce(
    (sum, day) => sum + BigInt(day['payout'] ?? 0),
    0n,
  );
  expect(byDay).toBe(tokens - tokensAtFirst);
  expect(open).toMatchObject({ leases: 0, locked: '0' });
  expect((await molt(home(), 'earnings')).out).toMatch(/day \(UTC\) +paid leases +paid +burnt/);
});

describe('molt doctor', () => {
  interface Diagnosis {
    readonly code: number | null;
    readonly failed: Readonly<Record<string, string>>;
  }

  async function doctor(
    settings: Readonly<Record<string, string>>,
    directory: string,
    ...args: string[]
  ): Promise<Diagnosis> {
    const { code, out, err } = await moltWith(settings, directory, '--json', 'doctor', ...args);
    expect(err).toBe('');
    const { checks } = JSON.parse(out) as { checks: { name: string; verdict: string; found: string; mend: string }[] };
    for (const check of checks) expect(check.mend !== '', check.name).toBe(check.verdict !== 'ok');
    const failed = checks.filter((check) => check.verdict === 'fail').map((check) => [check.name, check.found]);
    return { code, failed: Object.fromEntries(failed) as Record<string, string> };
  }

  /** The chain's clock was moved above, and every diagnosis says so. */
  const clock = expect.stringContaining('behind');

  test('finds nothing wrong with a provider and a buyer but the clock that was moved', async () => {
    expect(await doctor({}, home())).toEqual({ code: 1, failed: { clock } });
    expect(await doctor({}, buyer.home.directory)).toEqual({ code: 1, failed: { clock } });
    expect((await molt(home(), 'doctor')).out).toMatch(/✔ port +\/ip4\/127.0.0.1\/tcp\/\d+ is held by this node\n/);
  });

  test('finds a key that others can read, no engine, a chain that is away, a peer that is away', async () => {
    chmodSync(provider.home.nodeKey, 0o644);
    const open = (await doctor({}, home())).failed;
    chmodSync(provider.home.nodeKey, 0o600);
    expect(open['home']).toContain('node-key.json has mode 0644');
    const engine = { MOLT_RUNTIMES: 'container', MOLT_CONTAINER_SOCKET: '/nowhere/docker.sock' };
    expect((await doctor(engine, home())).failed['container runtime']).toContain('/nowhere/docker.sock');
    expect(Object.keys((await doctor({}, home(), '--rpc', 'http://127.0.0.1:1')).failed)).toEqual(['chain']);
    const dead = provider.address.replace(/tcp\/\d+/, 'tcp/1');
    expect((await doctor({ MOLT_BOOTSTRAP: dead }, home())).failed['bootstrap peers']).toContain(dead);
  });

  test('of a provider that is stopped, finds a port that another program holds and a stake that is too low', async () => {
    await provider.stop();
    expect(await json(home(), 'jobs')).toEqual({ sold: [] });
    expect(((await json(home(), 'jobs', '--all'))['sold'] as unknown[]).length).toBeGreaterThan(0);
    // Buyers that look for the provider come here, too.
    const thief = createServer((socket) => socket.destroy());
    const port = Number(/tcp\/(\d+)/.exec(provider.address)?.[1]);
    await new Promise<void>((resolve) => thief.listen(port, '127.0.0.1', () => resolve()));
    const taken = (await doctor({}, home())).failed;
    await new Promise((resolve) => thief.close(resolve));
    expect(taken['port']).toContain('used by another program');

    const wallet = await readWallet(provider.home.wallet);
    const { chain } = market;
    const account = provider.account.account;
    await chain.unstake(wallet, account, baseUnits(((await chain.provider(account))?.own.stake ?? 0n) - 1n));
    const poor = await doctor({}, home());
    expect(Object.keys(poor.failed)).toEqual(['clock', 'stake']);
    expect(poor.code).toBe(1);
  });

  test('of a node that is stopped, draining is kept for its next start', async () => {
    expect(await json(home(), 'drain')).toMatchObject({ draining: true, running: false });
    expect((await molt(home(), 'drain', '--undo')).out).toContain('the next molt up sells again');
  });
});
