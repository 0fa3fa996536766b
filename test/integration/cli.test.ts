/** Goal: the commands that need a chain do what they say, once. Method: molt processes against a real local chain. */
import { spawnSync } from 'node:child_process';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { type TestMarket, type TestProvider, openMarket } from './market.ts';

const program = join(import.meta.dirname, '../../node/molt.js');
let market: TestMarket;
let provider: TestProvider;

beforeAll(async () => {
  market = await openMarket();
  provider = await market.provider();
});

afterAll(async () => {
  await market?.[Symbol.asyncDispose]();
});

interface Answer {
  readonly code: number | null;
  readonly json: Record<string, unknown>;
  readonly error: { readonly code: string; readonly message: string };
}

function molt(home: string, args: readonly string[]): Answer {
  const run = spawnSync(process.execPath, [program, '--json', '--home', home, ...args], {
    encoding: 'utf8',
    cwd: market.directory,
    env: { PATH: process.env['PATH'], HOME: market.directory },
  });
  const parse = (text: string): Record<string, unknown> => JSON.parse(text.trim().split('\n').at(-1) ?? '') as never;
  return {
    code: run.status,
    json: run.stdout === '' ? {} : parse(run.stdout),
    error: run.stderr === '' ? { code: '', message: '' } : (parse(run.stderr)['error'] as Answer['error']),
  };
}

describe('molt init', () => {
  test('run again changes no key, moves no money, and does only what is missing', async () => {
    const home = join(market.directory, 'again');
    const init = ['init', '--role', 'buyer', '--rpc', market.rpcUrl, '--deposit', '20'];
    const first = molt(home, init);
    expect(first.code).toBe(0);
    const keys = ['wallet.json', 'node-key.json'].map((name) => readFileSync(join(home, name), 'utf8'));
    const before = await market.chain.budget(first.json['account'] as never);
    expect(before?.free).toBe(20_000_000_000n);
    expect(before?.delegates).toEqual([first.json['nodeKey']]);

    const second = molt(home, init);
    expect(second.json).toEqual(first.json);
    expect(['wallet.json', 'node-key.json'].map((name) => readFileSync(join(home, name), 'utf8'))).toEqual(keys);
    expect(await market.chain.budget(first.json['account'] as never)).toEqual(before);

    expect(molt(home, [...init.slice(0, -1), '30']).code).toBe(0);
    expect((await market.chain.budget(first.json['account'] as never))?.free).toBe(30_000_000_000n);
  });

  test('makes files that only their owner can read', () => {
    const home = join(market.directory, 'private');
    expect(molt(home, ['init', '--role', 'provider', '--rpc', market.rpcUrl]).code).toBe(0);
    expect(statSync(home).mode & 0o777).toBe(0o700);
    for (const name of ['wallet.json', 'node-key.json', 'config.json']) {
      expect(statSync(join(home, name)).mode & 0o777, name).toBe(0o600);
    }
  });
});

test('a second process on one home is refused and told who has it', () => {
  const { code, error } = molt(provider.home.directory, ['up']);
  expect(code).toBe(1);
  expect(error.code).toBe('node/already-running');
  expect(error.message).toContain(provider.home.directory);
});

test('molt up without an account says how to make one', () => {
  const home = join(market.directory, 'nobody');
  molt(home, ['init', '--role', 'buyer', '--rpc', market.rpcUrl]);
  const { code, error } = molt(home, ['up']);
  expect({ code, error: error.code }).toEqual({ code: 1, error: 'config/invalid' });
  expect(error.message).toContain('molt init --role provider');
});

test('molt offers lists the provider with its price and its stake from the chain, without a home of its own', async () => {
  const home = join(market.directory, 'window-shopper');
  const flags = ['--rpc-url', market.rpcUrl, '--bootstrap', provider.address, '--mdns', 'false'];
  const offers = (): unknown => molt(home, ['offers', ...flags]).json['offers'];
  // A look takes two seconds, and joining the mesh takes longer on a busy machine.
  await expect
    .poll(offers)
    .toMatchObject([
      { node: provider.account.nodeKey, provider: provider.account.account, stake: '100000000000', settledCount: '0' },
    ]);
});

test('molt wallet airdrop gives what was asked for, and balance tells it', () => {
  const home = join(market.directory, 'poor');
  expect(molt(home, ['wallet', 'new']).code).toBe(0);
  expect(molt(home, ['wallet', 'balance', '--rpc', market.rpcUrl]).json['baseUnits']).toBe('0');
  expect(molt(home, ['wallet', 'airdrop', '2.5', '--rpc', market.rpcUrl]).code).toBe(0);
  expect(molt(home, ['wallet', 'balance', '--rpc', market.rpcUrl]).json['baseUnits']).toBe('2500000000');
});

describe('molt run', () => {
  test('writes outputs, specification and proof, and tells each step as JSON', async () => {
    const buyer = await market.buyer();
    const out = join(market.directory, 'out');
    const lines: Record<string, unknown>[] = [];
    const script = "import os; open('/out/a.txt','w').write(os.environ['WHAT'] + open('/secrets/word').read())";
    const secret = join(market.directory, 'word.txt');
    writeFileSync(secret, 'swordfish');
    const child = market.spawn(
      [
        ['run', '--home', buyer.home.directory, '--image', 'python', '--out', out, '--output', 'a.txt'],
        ['--env', 'WHAT=the word is ', '--secret', `word=${secret}`, '--memory', '256M'],
        ['--', 'python', '-c', script],
      ].flat(),
      (line) => lines.push(line),
    );
    expect(await child.exited).toBe(0);
    expect(readFileSync(join(out, 'a.txt'), 'utf8')).toBe('the word is swordfish');
    const types = lines.map((line) => line['type']);
    const order = ['mesh-joined', 'bid', 'quote', 'accepted', 'lease-opened', 'proof-verified', 'settled', 'result'];
    expect(order.map((type) => types.indexOf(type))).toEqual(
      order.map((type) => types.indexOf(type)).toSorted((a, b) => a - b),
    );
    expect(types).toEqual(expect.arrayContaining(order));
    expect(readFileSync(join(out, 'spec.json'), 'utf8')).not.toContain('swordfish');
    expect(molt(buyer.home.directory, ['verify', join(out, 'proof.json'), '--outputs', out]).json['valid']).toBe(true);
  });

  test('of a program that fails ends with code 1 and says so', async () => {
    const buyer = await market.buyer();
    const run = ['run', '--image', 'python', '--', 'python', '-c', 'raise SystemExit(3)'];
    const { code, error } = molt(buyer.home.directory, run);
    expect({ code, error: error.code }).toEqual({ code: 1, error: 'job/failed' });
    expect(error.message).toContain('3');
  });

  test('of an input that does not exist says which, before money moves', async () => {
    const buyer = await market.buyer();
    const { code, error } = molt(buyer.home.directory, ['run', '--image', 'python', '--input', 'missing.csv']);
    expect({ code, error: error.code }).toEqual({ code: 1, error: 'job/input-missing' });
    expect((await market.chain.budget(buyer.budget))?.free).toBe(50_000_000_000n);
  });

  test('stopped by a signal settles for what ran and ends with 130', async () => {
    const buyer = await market.buyer();
    const lines: Record<string, unknown>[] = [];
    const endless = "import sys\nprint('on', flush=True)\nwhile True: pass";
    const args = ['run', '--home', buyer.home.directory, '--image', 'python', '--', 'python', '-c', endless];
    const child = market.spawn(args, (line) => lines.push(line));
    await expect.poll(() => lines.some((line) => line['type'] === 'log')).toBe(true);
    process.kill(child.pid ?? 0, 'SIGINT');
    expect(await child.exited).toBe(130);
    const budget = await market.chain.budget(buyer.budget);
    expect(budget?.locked).toBe(0n);
    expect(budget?.free).toBeLessThan(50_000_000_000n);
    expect(budget?.free).toBeGreaterThan(49_000_000_000n);
  });
});

test('molt lease shows an abandoned lease and lets a stranger expire it once its time is over', async () => {
  const doomed = await market.provider();
  const buyer = await market.buyer();
  const lines: Record<string, unknown>[] = [];
  const args = ['run', '--home', buyer.home.directory, '--bootstrap', doomed.address, '--image', 'python'];
  const endless = ['--timeout', '60', '--', 'python', '-c', 'while True: pass'];
  const child = market.spawn([...args, ...endless], (line) => lines.push(line));
  const opened = await expect
    .poll(() => lines.find((line) => line['type'] === 'phase' && line['phase'] === 'running'))
    .toBeDefined()
    .then(() => lines.find((line) => line['type'] === 'lease-opened'));
  // Everybody who could end it properly is gone.
  process.kill(child.pid ?? 0, 'SIGKILL');
  await child.exited;
  const accepted = lines.find((line) => line['type'] === 'accepted')?.['node'];
  await (accepted === doomed.account.nodeKey ? doomed : provider).kill();
  const lease = String(opened?.['lease']);
  expect(molt(buyer.home.directory, ['lease', 'list']).json['leases']).toMatchObject([{ lease, side: 'bought' }]);

  const stranger = (await market.buyer()).home.directory;
  expect(molt(stranger, ['lease', 'expire', lease]).error.code).toBe('chain/refused');
  await market.warp(3_600);
  const { code, json } = molt(stranger, ['lease', 'expire', lease]);
  expect({ code, refunded: json['refunded'] }).toEqual({ code: 0, refunded: opened?.['locked'] });
  const after = await market.chain.budget(buyer.budget);
  expect(after?.locked).toBe(0n);
  // All money back, and part of the stake that stood behind the lease on top.
  expect(after?.free).toBeGreaterThan(50_000_000_000n);
  expect(molt(stranger, ['lease', 'expire', lease]).error.code).toBe('chain/account-missing');
});
