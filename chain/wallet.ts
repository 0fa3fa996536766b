/**
 * Wallet files: the JSON array of 64 bytes that the Solana CLI writes, seed first, public key second; or, on request, the
 * same key under a passphrase (sealed-wallet.ts).
 *
 * A key file that others can read is refused, and a new one is made readable by its owner only.
 */
import { open, readFile, rename, rm, stat } from 'node:fs/promises';

import { parseAddress, type Address } from '../protocol/address.ts';
import type { Env } from '../protocol/env.ts';
import { keyPairFromSeed, type KeyPair } from '../protocol/ed25519.ts';
import { MoltError } from '../protocol/errors.ts';
import { openSealed, parseSealed, sealWallet, type SealedWallet } from './sealed-wallet.ts';

/** Asks for the passphrase of the wallet with this address. Called only when the file is sealed. */
export type AskPassphrase = (address: Address) => Promise<string>;

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

/**
 * Throws `wallet/missing`, `wallet/unsafe`, `wallet/invalid`; for a sealed wallet also `wallet/locked` where nobody can be
 * asked, and `wallet/passphrase`.
 */
export async function readWallet(path: string, ask?: AskPassphrase): Promise<KeyPair> {
  const value = await readValue(path);
  const sealed = parseSealed(value);
  if (sealed === undefined) return parsePlain(path, value);
  const address = parseAddress(sealed.address);
  if (ask === undefined) {
    const message = `the wallet ${address} in ${path} is encrypted: run the command in a terminal, or give --passphrase-fd`;
    throw new MoltError('wallet/locked', message, { path, address });
  }
  return openSealed(sealed, await ask(address));
}

/** Whose wallet it is; a sealed one need not be opened for that. Throws what `readWallet` throws, but no passphrase. */
export async function readWalletAddress(
  path: string,
): Promise<{ readonly address: Address; readonly encrypted: boolean }> {
  const value = await readValue(path);
  const sealed = parseSealed(value);
  if (sealed === undefined) return { address: parsePlain(path, value).address, encrypted: false };
  return { address: parseAddress(sealed.address), encrypted: true };
}

async function readValue(path: string): Promise<unknown> {
  const info = await stat(path).catch((error: unknown) => {
    if (!isCode(error, 'ENOENT')) throw error;
    throw new MoltError('wallet/missing', `there is no key file at ${path}: make one with "molt wallet new"`, { path });
  });
  if (!info.isFile() || info.size > FILE_BYTES_MAX)
    throw invalid(path, info.isFile() ? `${info.size} bytes` : 'no file');
  if (process.platform !== 'win32' && (info.mode & 0o077) !== 0) {
    throw new MoltError('wallet/unsafe', `${path} can be read by others: run "chmod 600 ${path}"`, { path });
  }
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch {
    throw invalid(path, 'no JSON');
  }
}

function parsePlain(path: string, value: unknown): KeyPair {
  const isByte = (item: unknown): item is number =>
    typeof item === 'number' && Number.isInteger(item) && item >= 0 && item < 256;
  if (!Array.isArray(value) || value.length !== 64 || !value.every(isByte)) throw invalid(path, 'something else');
  const bytes = Uint8Array.from(value);
  const pair = keyPairFromSeed(bytes.subarray(0, 32));
  if (!Buffer.from(pair.publicKey).equals(bytes.subarray(32)))
    throw invalid(path, 'two halves that do not belong together');
  return pair;
}

/**
 * Makes a key and writes it, mode 0600, under the passphrase where one is given. Never overwrites: throws `wallet/invalid`
 * when the file exists; `wallet/passphrase` for a passphrase that is too short.
 */
export async function createWallet(env: Env, path: string, passphrase?: string): Promise<KeyPair> {
  const pair = keyPairFromSeed(env.random.bytes(32));
  await writeNew(path, await contentOf(env, pair, passphrase));
  return pair;
}

/**
 * Puts a passphrase on the key of an existing file, or another one. The file is replaced in one step; the old content may
 * survive in backups and on the disk itself, so a key that others may have seen is better moved to a new wallet.
 */
export async function encryptWallet(env: Env, path: string, passphrase: string, ask?: AskPassphrase): Promise<KeyPair> {
  const pair = await readWallet(path, ask);
  const temporary = `${path}.${Buffer.from(env.random.bytes(6)).toString('hex')}`;
  try {
    await writeNew(temporary, await contentOf(env, pair, passphrase));
    await rename(temporary, path);
  } finally {
    await rm(temporary, { force: true });
  }
  return pair;
}

async function contentOf(env: Env, pair: KeyPair, passphrase: string | undefined): Promise<SealedWallet | number[]> {
  return passphrase === undefined ? [...pair.seed, ...pair.publicKey] : sealWallet(env, pair, passphrase);
}

async function writeNew(path: string, content: unknown): Promise<void> {
  const file = await open(path, 'wx', 0o600).catch((error: unknown) => {
    if (!isCode(error, 'EEXIST')) throw error;
    throw new MoltError('wallet/invalid', `${path} exists already: move it away first, it may hold money`, { path });
  });
  try {
    await file.writeFile(`${JSON.stringify(content)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
}
