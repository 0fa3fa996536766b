/** Our token instructions are the ones that @solana/spl-token builds, and its native dependency is not loaded by us. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

import {
  createAssociatedTokenAccountIdempotentInstruction,
  createInitializeMint2Instruction,
  createMintToInstruction,
  getAssociatedTokenAddressSync,
} from '@solana/spl-token';
import { PublicKey, type TransactionInstruction } from '@solana/web3.js';
import { expect, test } from 'vitest';

import { tokenAddress } from '../../chain/addresses.ts';
import { createTokenAccount, initializeMint, mintTokens } from '../../chain/token.ts';
import { U64_MAX, baseUnits } from '../../protocol/units.ts';
import { randomKey } from './local-chain.ts';

const plain = ({ programId, keys, data }: TransactionInstruction) => ({
  programId: programId.toBase58(),
  keys: keys.map(({ pubkey, isSigner, isWritable }) => [pubkey.toBase58(), isSigner, isWritable]),
  data: Buffer.from(data).toString('hex'),
});

test('token instructions and addresses equal those of the SPL library', () => {
  const [payer, owner, mint, account] = [randomKey(), randomKey(), randomKey(), randomKey()].map(
    ({ address }) => address,
  ) as [never, never, never, never];
  const key = (address: string): PublicKey => new PublicKey(address);
  expect(tokenAddress(owner, mint)).toBe(getAssociatedTokenAddressSync(key(mint), key(owner)).toBase58());
  expect(plain(createTokenAccount({ payer, account, owner, mint }))).toEqual(
    plain(createAssociatedTokenAccountIdempotentInstruction(key(payer), key(account), key(owner), key(mint))),
  );
  expect(plain(initializeMint(mint, 9, owner))).toEqual(
    plain(createInitializeMint2Instruction(key(mint), 9, key(owner), null)),
  );
  for (const amount of [0n, 1n, U64_MAX]) {
    expect(plain(mintTokens(mint, account, owner, baseUnits(amount)))).toEqual(
      plain(createMintToInstruction(key(mint), key(account), key(owner), amount)),
    );
  }
});

test('neither client nor local chain loads bigint-buffer, whose native build overflows', async () => {
  const script = `
    import { createRequire } from 'node:module';
    await import('./chain/client.ts');
    await import('./chain/devnet/index.ts');
    const loaded = [...Object.keys(createRequire(import.meta.url).cache), ...process.report.getReport().sharedObjects];
    console.log(JSON.stringify({ bigint: loaded.filter((path) => /bigint.buffer/.test(path)), litesvm: loaded.some((path) => /litesvm/.test(path)) }));
  `;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
    cwd: new URL('../..', import.meta.url),
  });
  // LiteSVM is a native module that is loaded: the look-out works.
  expect(JSON.parse(stdout)).toEqual({ bigint: [], litesvm: true });
});

test('importing the folder for its types loads neither web3.js nor LiteSVM', async () => {
  const script = `
    import { createRequire, registerHooks } from 'node:module';
    const seen = [];
    registerHooks({ resolve: (name, context, next) => { seen.push(name); return next(name, context); } });
    await import('./chain/index.ts');
    console.log(JSON.stringify(seen.filter((name) => /solana|litesvm|fastify|level/.test(name))), seen.length > 3);
  `;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
    cwd: new URL('../..', import.meta.url),
  });
  expect(stdout.trim()).toBe('[] true');
});
