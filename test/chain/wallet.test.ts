/** Wallet files: Solana CLI's format, readable by nobody else. */
import { chmod, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { Keypair } from '@solana/web3.js';
import { expect, test } from 'vitest';

import { createWallet, readWallet } from '../../chain/index.ts';
import { env, newFolder, randomKey } from './local-chain.ts';

test('a new wallet is private, in the format of the Solana CLI, and reads back as the same key', async () => {
  await using folder = await newFolder();
  const path = join(folder.path, 'id.json');
  const pair = await createWallet(env, path);
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  const bytes = JSON.parse(await readFile(path, 'utf8')) as number[];
  expect(Keypair.fromSecretKey(Uint8Array.from(bytes)).publicKey.toBase58()).toBe(pair.address);
  const message = env.random.bytes(40);
  expect((await readWallet(path)).sign(message)).toEqual(pair.sign(message));
});

test('an existing file is never overwritten', async () => {
  await using folder = await newFolder();
  const path = join(folder.path, 'id.json');
  const { address } = await createWallet(env, path);
  await expect(createWallet(env, path)).rejects.toMatchObject({ code: 'wallet/invalid' });
  expect((await readWallet(path)).address).toBe(address);
});

test.each([0o640, 0o604, 0o660, 0o644])('mode %o is refused, because others can read the key', async (mode) => {
  await using folder = await newFolder();
  const path = join(folder.path, 'id.json');
  await createWallet(env, path);
  await chmod(path, mode);
  await expect(readWallet(path)).rejects.toMatchObject({ code: 'wallet/unsafe' });
});

test('a file that is missing or is no keypair is refused with what to do', async () => {
  await using folder = await newFolder();
  const path = join(folder.path, 'id.json');
  await expect(readWallet(path)).rejects.toMatchObject({ code: 'wallet/missing' });
  await expect(readWallet(folder.path)).rejects.toMatchObject({ code: 'wallet/invalid' });
  const good = [...randomKey().seed, ...randomKey().publicKey];
  const bad = [
    '',
    'no json',
    '{}',
    '[1,2,3]',
    JSON.stringify(Array.from({ length: 64 }, () => 256)),
    JSON.stringify(good),
    `[${'1,'.repeat(5_000)}1]`,
  ];
  for (const text of bad) {
    await writeFile(path, text, { mode: 0o600 });
    await expect(readWallet(path)).rejects.toMatchObject({ code: 'wallet/invalid' });
  }
});
