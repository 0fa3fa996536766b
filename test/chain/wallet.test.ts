/** Wallet files: Solana CLI's format, readable by nobody else. */
import { chmod, readFile, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { Keypair } from '@solana/web3.js';
import { describe, expect, test } from 'vitest';

import { createWallet, encryptWallet, readWallet, readWalletAddress } from '../../chain/index.ts';
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

describe('under a passphrase', () => {
  const PASSPHRASE = 'seven words that nobody would guess';

  test('a wallet opens with it alone, tells its address without it, and holds no seed in the open', async () => {
    await using folder = await newFolder();
    const path = join(folder.path, 'id.json');
    const pair = await createWallet(env, path, PASSPHRASE);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    const text = await readFile(path, 'utf8');
    expect(text).not.toContain(Buffer.from(pair.seed).toString('hex'));
    expect(text).not.toContain(JSON.stringify([...pair.seed]).slice(1, -1));
    expect(await readWalletAddress(path)).toEqual({ address: pair.address, encrypted: true });
    const asked: string[] = [];
    const opened = await readWallet(path, async (address) => {
      asked.push(address);
      return PASSPHRASE;
    });
    expect(asked).toEqual([pair.address]);
    expect(opened.sign(Buffer.from('x'))).toEqual(pair.sign(Buffer.from('x')));
    await expect(readWallet(path)).rejects.toMatchObject({ code: 'wallet/locked' });
    await expect(readWallet(path, async () => `${PASSPHRASE} `)).rejects.toMatchObject({ code: 'wallet/passphrase' });
  });

  test('the same passphrase in another spelling of its characters opens it', async () => {
    await using folder = await newFolder();
    const path = join(folder.path, 'id.json');
    const pair = await createWallet(env, path, 'na\u00efve caf\u00e9 owner');
    expect((await readWallet(path, async () => 'nai\u0308ve cafe\u0301 owner')).address).toBe(pair.address);
  });

  test('two wallets under one passphrase share nothing', async () => {
    await using folder = await newFolder();
    const files = await Promise.all(
      ['a', 'b'].map(async (name) => {
        const path = join(folder.path, name);
        await createWallet(env, path, PASSPHRASE);
        return JSON.parse(await readFile(path, 'utf8')) as { scrypt: { salt: string }; nonce: string };
      }),
    );
    expect(files[0]?.scrypt.salt).not.toBe(files[1]?.scrypt.salt);
    expect(files[0]?.nonce).not.toBe(files[1]?.nonce);
  });

  test('a changed file does not open, and one that asks for too much memory is not tried', async () => {
    await using folder = await newFolder();
    const path = join(folder.path, 'id.json');
    await createWallet(env, path, PASSPHRASE);
    const good = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown> & { scrypt: object; seed: string };
    const flipped = (good.seed.startsWith('0') ? '1' : '0') + good.seed.slice(1);
    const bad: readonly [object, string][] = [
      [{ ...good, address: randomKey().address }, 'wallet/passphrase'],
      [{ ...good, seed: flipped }, 'wallet/passphrase'],
      [{ ...good, scrypt: { ...good.scrypt, salt: '00'.repeat(16) } }, 'wallet/passphrase'],
      [{ ...good, scrypt: { ...good.scrypt, N: 2 ** 30 } }, 'wallet/invalid'],
      [{ ...good, scrypt: { ...good.scrypt, N: 3 * 2 ** 15 } }, 'wallet/invalid'],
      [{ ...good, extra: 1 }, 'wallet/invalid'],
    ];
    for (const [content, code] of bad) {
      await writeFile(path, JSON.stringify(content), { mode: 0o600 });
      await expect(readWallet(path, async () => PASSPHRASE)).rejects.toMatchObject({ code });
    }
  });

  test('a passphrase of a few letters is refused, and no file is left', async () => {
    await using folder = await newFolder();
    const path = join(folder.path, 'id.json');
    await expect(createWallet(env, path, 'short')).rejects.toMatchObject({ code: 'wallet/passphrase' });
    await expect(stat(path)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  test('is put on an existing wallet, and changed, without a moment in which the key is gone', async () => {
    await using folder = await newFolder();
    const path = join(folder.path, 'id.json');
    const { address } = await createWallet(env, path);
    await encryptWallet(env, path, PASSPHRASE);
    await expect(readWallet(path)).rejects.toMatchObject({ code: 'wallet/locked' });
    await expect(encryptWallet(env, path, 'another passphrase', async () => 'wrong passphrase')).rejects.toMatchObject({
      code: 'wallet/passphrase',
    });
    await encryptWallet(env, path, 'another passphrase', async () => PASSPHRASE);
    expect((await readWallet(path, async () => 'another passphrase')).address).toBe(address);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(await readdir(folder.path)).toEqual(['id.json']);
  });
});
