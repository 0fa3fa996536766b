/**
 * Goal: the commands of token holders and buyers do on chain what they say, and refuse with what to do next. Method: molt
 * processes as users start them, against a local chain of this process; the chain is asked behind their back.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { createWallet, readWallet } from '../../../chain/index.ts';
import type { Address } from '../../../protocol/address.ts';
import { encodeCommit, type Commit } from '../../../protocol/commit.ts';

import type { KeyPair } from '../../../protocol/ed25519.ts';
import { baseUnits } from '../../../protocol/units.ts';
import {
  env,
  newFolder,
  newParties,
  openOn,
  rpc,
  startLocalChain,
  termsOf,
  type LocalChain,
  type Parties,
} from '../../chain/local-chain.ts';

const program = join(import.meta.dirname, '../../../node/molt.js');
const MOLT = 10n ** 9n;
let local: LocalChain;
let folder: Awaited<ReturnType<typeof newFolder>>;
let parties: Parties;
let provider: Address;

beforeAll(async () => {
  local = await startLocalChain();
  folder = await newFolder();
  parties = await newParties(local.devnet, local.chain);
  provider = local.chain.providerAddress(parties.owner.address);
});

afterAll(async () => {
  await local[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

interface Answer {
  readonly code: number | null;
  readonly out: string;
  readonly json: Record<string, unknown>;
  readonly error: { readonly code: string; readonly message: string };
}

/** Runs molt with `--json`; a passphrase goes through file descriptor 3. Asynchronously, for the chain lives here. */
async function molt(
  home: string,
  args: readonly string[],
  options: { passphrase?: string; plain?: boolean } = {},
): Promise<Answer> {
  const { passphrase, plain = false } = options;
  const flags = [...(plain ? [] : ['--json']), ...(passphrase === undefined ? [] : ['--passphrase-fd', '3'])];
  const child = spawn(process.execPath, [program, ...flags, '--home', home, ...args], {
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    env: { PATH: process.env['PATH'], HOME: folder.path, MOLT_RPC_URL: local.devnet.rpcUrl },
  });
  const parts = { out: '', err: '' };
  child.stdout?.on('data', (data: Buffer) => (parts.out += data.toString()));
  child.stderr?.on('data', (data: Buffer) => (parts.err += data.toString()));
  const pipe = child.stdio[3] as NodeJS.WritableStream;
  pipe.on('error', () => undefined);
  pipe.end(passphrase === undefined ? '' : `${passphrase}\n`);
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  const parse = (text: string): Record<string, unknown> => JSON.parse(text.trim().split('\n').at(-1) ?? '') as never;
  return {
    code,
    out: parts.out,
    json: plain || parts.out === '' ? {} : parse(parts.out),
    error:
      plain || parts.err === '' ? { code: '', message: parts.err } : (parse(parts.err)['error'] as Answer['error']),
  };
}

/** A home with a funded wallet and a funded node key. */
async function newHome(name: string): Promise<{ home: string; wallet: KeyPair; node: KeyPair }> {
  const home = join(folder.path, name);
  mkdirSync(home);
  const wallet = await createWallet(env, join(home, 'wallet.json'));
  const node = await createWallet(env, join(home, 'node-key.json'));
  for (const { address } of [wallet, node]) await rpc(local.devnet.rpcUrl, 'molt_faucet', address);
  return { home, wallet, node };
}

/** A home whose node key and wallet are these. */
function homeOf(name: string, node: KeyPair, wallet: KeyPair): string {
  const home = join(folder.path, name);
  mkdirSync(home);
  const write = (file: string, pair: KeyPair): void =>
    writeFileSync(join(home, file), JSON.stringify([...pair.seed, ...pair.publicKey]), { mode: 0o600 });
  write('node-key.json', node);
  write('wallet.json', wallet);
  return home;
}

describe('a token holder', () => {
  test('finds providers, stakes, sees yield and losses, unstakes, waits and withdraws', async () => {
    const { home, wallet } = await newHome('holder');
    const { json } = await molt(home, ['providers']);
    expect(json['providers']).toContainEqual(
      expect.objectContaining({ provider, stake: Number(100n * MOLT).toString(), commissionBps: 0 }),
    );
    expect((await molt(home, ['stakes'], { plain: true })).out).toContain('nothing staked');
    // By the address of its owner, too.
    const staked = await molt(home, ['stake', parties.owner.address, '25']);
    expect(staked).toMatchObject({ code: 0, json: { provider, staked: '25000000000' } });
    const address = local.chain.delegationAddress(provider, wallet.address);
    expect((await local.chain.delegation(address))?.value).toBe(25n * MOLT);
    expect((await molt(home, ['stakes'])).json['stakes']).toMatchObject([
      { provider, value: '25000000000', paidIn: '25000000000', yield: '0', unbonding: '0' },
    ]);
    expect((await molt(home, ['withdraw', provider])).error).toMatchObject({ code: 'chain/too-early' });
    expect((await molt(home, ['unstake', provider, '10'])).json).toMatchObject({ unbonding: '10000000000' });
    const early = await molt(home, ['withdraw', provider]);
    expect(early).toMatchObject({ code: 1, error: { code: 'chain/too-early' } });
    expect(early.error.message).toContain('10.000000000 MOLT'.slice(0, 2));
    await rpc(local.devnet.rpcUrl, 'molt_warp', local.chain.parameters.unbondingMs / 1000 + 1);
    expect((await molt(home, ['withdraw', provider])).json).toMatchObject({ withdrawn: '10000000000' });
    expect((await local.chain.balances(wallet.address)).tokens).toBe(985n * MOLT);
    const table = await molt(home, ['stakes'], { plain: true });
    expect(table.out).toMatch(/provider +value +paid in +yield/);
    expect(table.out).toContain(provider);
  });

  test('is told what is wrong, and nothing moves', async () => {
    const { home, wallet } = await newHome('clumsy');
    const cases: readonly [readonly string[], string, number][] = [
      [['stake', provider, '0'], 'config/usage', 2],
      [['stake', 'nobody', '5'], 'config/usage', 2],
      [['stake', wallet.address, '5'], 'chain/account-missing', 1],
      [['budget', 'deposit', '5000', parties.budget], 'chain/insufficient-funds', 1],
      // More than eight times what the provider itself has at stake.
      [['stake', provider, '5000'], 'chain/refused', 1],
      [['unstake', provider, '5'], 'chain/account-missing', 1],
      [['withdraw', provider], 'chain/account-missing', 1],
      [['budget', 'burn'], 'config/usage', 2],
      [['budget', 'deposit', '5'], 'config/usage', 2],
      [['lease', 'settle'], 'config/usage', 2],
      [['slash', join(home, 'none.json')], 'config/usage', 2],
      [['program', 'run'], 'config/usage', 2],
    ];
    for (const [args, code, exit] of cases) {
      const answer = await molt(home, args);
      expect({ args, code: answer.error.code, exit: answer.code }).toEqual({ args, code, exit });
    }
    expect((await local.chain.balances(wallet.address)).tokens).toBe(1_000n * MOLT);
  });

  test('shows an equivocation to the chain and is rewarded; what proves nothing is not sent', async () => {
    const { home, wallet } = await newHome('reporter');
    const guilty = await newParties(local.devnet, local.chain);
    const commit = (value: number): Commit => ({
      kind: 'result',
      attempt: 0,
      network: local.chain.network,
      subject: new Uint8Array(32).fill(5),
      index: 0n,
      aux: 0n,
      value: new Uint8Array(32).fill(value),
      slot: 1n,
      account: guilty.operator.address,
    });
    const file = join(home, 'evidence.json');
    const write = (values: readonly number[], signer = guilty.operator): void => {
      const commits = values.map((value) => encodeCommit(commit(value)));
      const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
      const signatures = commits.map((bytes) => base64(signer.sign(bytes)));
      writeFileSync(
        file,
        JSON.stringify({ signer: guilty.operator.address, commits: commits.map(base64), signatures }),
      );
    };
    write([1, 1]);
    expect((await molt(home, ['slash', file])).error).toMatchObject({ code: 'chain/refused' });
    write([1, 2], parties.operator);
    expect((await molt(home, ['slash', file])).error.message).toContain('signature 1');
    write([1, 2]);
    const slashed = await molt(home, ['slash', file]);
    expect(slashed.error.message).toBe('');
    expect(BigInt(String(slashed.json['slashed']))).toBeGreaterThan(0n);
    expect(BigInt(String(slashed.json['reward']))).toBeGreaterThan(0n);
    expect((await local.chain.balances(wallet.address)).tokens).toBe(
      1_000n * MOLT + BigInt(String(slashed.json['reward'])),
    );
  });
});

test('a provider joins the verifiers and leaves them by its owner alone, and what changes nothing is refused', async () => {
  const judge = await newParties(local.devnet, local.chain);
  const home = homeOf('judge', judge.operator, judge.owner);
  const { home: stranger } = await newHome('no judge');
  const account = local.chain.providerAddress(judge.owner.address);
  const listed = async (): Promise<boolean> => (await local.chain.config()).verifiers.includes(account);
  expect((await molt(home, ['verifier', 'leave'])).error).toMatchObject({
    code: 'chain/refused',
    message: expect.stringContaining('not on the list of verifiers'),
  });
  expect((await molt(home, ['verifier', 'join'])).json).toMatchObject({ verifier: account });
  expect(await listed()).toBe(true);
  expect((await molt(stranger, ['verifier', 'leave'])).error.code).toBe('chain/account-missing');
  expect((await molt(stranger, ['verifier', 'leave', judge.owner.address])).error.code).toBe('chain/refused');
  expect(await listed()).toBe(true);
  expect((await molt(home, ['verifier'])).json['verifiers']).toContainEqual(
    expect.objectContaining({ verifier: account, operator: judge.operator.address, seats: 0 }),
  );
  expect((await molt(home, ['verifier', 'leave'])).json).toMatchObject({ verifier: account });
  expect(await listed()).toBe(false);
});

describe('a buyer', () => {
  test('makes a budget, fills, limits, empties and closes it', async () => {
    const { home, wallet, node } = await newHome('buyer');
    expect((await molt(home, ['budget'], { plain: true })).out).toContain('molt budget create');
    const made = await molt(home, ['budget', 'create', '--deposit', '20', '--cap-per-lease', '2', '--days', '7']);
    const budget = made.json['budget'] as Address;
    expect(await local.chain.budget(budget)).toMatchObject({
      free: 20n * MOLT,
      delegates: [node.address],
      capPerLease: 2n * MOLT,
    });
    const second = await molt(home, ['budget', 'create', '--delegate', wallet.address, '--delegate', node.address]);
    expect(second.json).toMatchObject({ id: '1', delegates: [wallet.address, node.address] });
    expect((await molt(home, ['budget', 'list'])).json['budgets']).toMatchObject([
      { budget, free: '20000000000', locked: '0' },
      { budget: second.json['budget'], free: '0' },
    ]);
    expect((await molt(home, ['budget', 'deposit', '5', budget])).json).toMatchObject({ free: '25000000000' });
    expect((await molt(home, ['budget', 'withdraw', '1.5', budget])).json).toMatchObject({ free: '23500000000' });
    expect((await molt(home, ['budget', 'delegates', '--budget', budget])).json).toMatchObject({
      delegates: [node.address],
    });
    await molt(home, ['budget', 'delegates', wallet.address, '--budget', budget, '--cap-per-day', '3']);
    expect(await local.chain.budget(budget)).toMatchObject({
      delegates: [wallet.address],
      capPerDay: 3n * MOLT,
      capPerLease: 2n * MOLT,
    });
    const { home: stranger } = await newHome('stranger');
    expect((await molt(stranger, ['budget', 'withdraw', 'all', budget])).error.message).toContain(wallet.address);
    expect((await molt(home, ['budget', 'withdraw', 'all', budget])).json).toMatchObject({ free: '0' });
    expect((await molt(home, ['budget', 'withdraw', 'all', budget])).error.code).toBe('config/usage');
    for (const one of [budget, second.json['budget'] as Address]) {
      expect((await molt(home, ['budget', 'close', one])).code).toBe(0);
      expect(await local.chain.budget(one)).toBeUndefined();
    }
    expect((await local.chain.balances(wallet.address)).tokens).toBe(1_000n * MOLT);
  });

  test('looks at leases, settles what is claimed, disputes, and anybody settles after the window', async () => {
    const home = homeOf('lessee', parties.delegate, parties.buyer);
    const { home: stranger } = await newHome('passer-by');
    // Time enough for every command that must come before the end of it, on whatever machine.
    const open = async (windowMs = 600_000): Promise<Address> => {
      const finishByMs = (await local.chain.chainTimeMs()) + 600_400;
      return openOn(local.chain, parties, await termsOf(local.chain, parties, { finishByMs, windowMs }));
    };
    const prove = (lease: Address): Promise<unknown> =>
      local.chain.submitProof(parties.operator, lease, baseUnits(6n * 10n ** 8n), env.random.bytes(32));
    const lease = await open();
    expect((await molt(home, ['lease'])).json['leases']).toMatchObject([{ lease, side: 'bought', state: 'running' }]);
    expect((await molt(home, ['lease', 'settle', lease])).error.message).toContain('only a proven one');
    await prove(lease);
    expect((await molt(stranger, ['lease', 'settle', lease])).error.code).toBe('chain/too-early');
    expect((await molt(stranger, ['lease', 'dispute', lease])).error.message).toContain(parties.delegate.address);
    expect((await molt(home, ['lease', 'show', lease], { plain: true })).out).toContain('anyone may settle it in');
    expect((await molt(home, ['lease', 'settle', lease])).json).toMatchObject({ paid: '600000000' });
    expect((await molt(home, ['lease', 'show', lease])).json).toMatchObject({
      state: 'ended',
      ending: 'settledByDelegate',
    });

    const late = await open(30_000);
    await prove(late);
    await rpc(local.devnet.rpcUrl, 'molt_warp', 31);
    expect((await molt(stranger, ['lease', 'settle', late])).code).toBe(0);
    expect((await local.chain.leaseEnding(late))?.ending).toBe('settledAfterWindow');

    const wrong = await open();
    await prove(wrong);
    expect((await molt(home, ['lease', 'dispute', wrong])).json).toMatchObject({ bond: '100000000' });
    expect((await local.chain.lease(wrong))?.state).toBe('disputed');
    expect((await molt(home, ['lease', 'show', wrong])).json).toMatchObject({ state: 'disputed' });
    expect((await molt(home, ['lease', 'show', provider])).code).toBe(1);
  });
});

describe('a wallet under a passphrase', () => {
  const passphrase = 'open sesame and then some';

  test('is made and used with a file descriptor, and useless without', async () => {
    const home = join(folder.path, 'sealed');
    const made = await molt(home, ['wallet', 'new', '--encrypt'], { passphrase });
    expect(made).toMatchObject({ code: 0, json: { encrypted: true } });
    const address = String(made.json['wallet']);
    await rpc(local.devnet.rpcUrl, 'molt_faucet', address);
    expect(readFileSync(join(home, 'wallet.json'), 'utf8')).toContain(address);
    expect((await molt(home, ['wallet', 'balance'])).json).toMatchObject({
      wallet: address,
      baseUnits: '1000000000000',
    });
    expect((await molt(home, ['stake', provider, '1'])).error.code).toBe('wallet/locked');
    expect((await molt(home, ['stake', provider, '1'], { passphrase: 'open barley and then' })).error.code).toBe(
      'wallet/passphrase',
    );
    expect((await molt(home, ['stake', provider, '1'], { passphrase })).code).toBe(0);
    const init = await molt(home, ['init', '--role', 'buyer', '--deposit', '3'], { passphrase });
    expect(init).toMatchObject({ code: 0, json: { wallet: address } });
    expect((await molt(home, ['--passphrase-fd', 'x', 'wallet'])).error.code).toBe('config/usage');
  });

  test('can be put on later', async () => {
    const { home, wallet } = await newHome('later');
    expect((await molt(home, ['wallet', 'encrypt'])).error.code).toBe('wallet/locked');
    expect((await readWallet(join(home, 'wallet.json'))).address).toBe(wallet.address);
    expect((await molt(home, ['wallet', 'encrypt'], { passphrase })).json).toMatchObject({ encrypted: true });
    await expect(readWallet(join(home, 'wallet.json'))).rejects.toMatchObject({ code: 'wallet/locked' });
    expect((await readWallet(join(home, 'wallet.json'), async () => passphrase)).address).toBe(wallet.address);
  });
});

test('a program is deployed from a home, and found there the next time', async () => {
  const { home } = await newHome('deployer');
  const first = await molt(home, ['program', 'deploy']);
  expect(first).toMatchObject({ code: 0, json: { outcome: 'deployed', resumed: 0 } });
  expect((await molt(home, ['program', 'deploy'])).json).toMatchObject({
    outcome: 'unchanged',
    programId: first.json['programId'],
  });
});
