/**
 * Wallet files: the JSON array of 64 bytes that the Solana CLI writes, seed first, public key second.
 *
 * A key file that others can read is refused, and a new one is made readable by its owner only.
 */
import { open, readFile, stat } from 'node:fs/promises';

import type { Env } from '../protocol/env.ts';
import { keyPairFromSeed, type KeyPair } from '../protocol/ed25519.ts';
import { MoltError } from '../protocol/errors.ts';

/** Far above the 230 or so characters of a wallet, far below anything that hurts to read. */
const FILE_BYTES_MAX = 4_096;

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

function invalid(path: string, what: string): MoltError {
  return new MoltError(
    'wallet/invalid',
    `${path} is not a Solana keypair: expected a JSON array of 64 bytes, got ${what}`,
    { path },
  );
}

/** Throws `wallet/missing`, `wallet/unsafe`, `wallet/invalid`. */
export async function readWallet(path: string): Promise<KeyPair> {
  const info = await stat(path).catch((error: unknown) => {
    if (!isCode(error, 'ENOENT')) throw error;
    throw new MoltError('wallet/missing', `there is no key file at ${path}: make one with "molt wallet new"`, { path });
  });
  if (!info.isFile() || info.size > FILE_BYTES_MAX)
    throw invalid(path, info.isFile() ? `${info.size} bytes` : 'no file');
  if (process.platform !== 'win32' && (info.mode & 0o077) !== 0) {
    throw new MoltError('wallet/unsafe', `${path} can be read by others: run "chmod 600 ${path}"`, { path });
  }
  return parseWallet(path, await readFile(path, 'utf8'));
}

function parseWallet(path: string, text: string): KeyPair {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw invalid(path, 'no JSON');
  }
  const isByte = (item: unknown): item is number =>
    typeof item === 'number' && Number.isInteger(item) && item >= 0 && item < 256;
  if (!Array.isArray(value) || value.length !== 64 || !value.every(isByte)) throw invalid(path, 'something else');
  const bytes = Uint8Array.from(value);
  const pair = keyPairFromSeed(bytes.subarray(0, 32));
  if (!Buffer.from(pair.publicKey).equals(bytes.subarray(32)))
    throw invalid(path, 'two halves that do not belong together');
  return pair;
}

/** Makes a key and writes it, mode 0600. Never overwrites: throws `wallet/invalid` when the file exists. */
export async function createWallet(env: Env, path: string): Promise<KeyPair> {
  const pair = keyPairFromSeed(env.random.bytes(32));
  const file = await open(path, 'wx', 0o600).catch((error: unknown) => {
    if (!isCode(error, 'EEXIST')) throw error;
    throw new MoltError('wallet/invalid', `${path} exists already: move it away first, it may hold money`, { path });
  });
  try {
    await file.writeFile(`${JSON.stringify([...pair.seed, ...pair.publicKey])}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  return pair;
}
