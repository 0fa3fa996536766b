/**
 * A key under a passphrase: scrypt makes the key, AES-256-GCM seals the seed.
 *
 * The file names the address in the open, so that balances can be read without the passphrase; address and parameters
 * are authenticated with the seed, so none of them can be exchanged. What is opened is compared with the address.
 */
import { createCipheriv, createDecipheriv, scrypt } from 'node:crypto';

import { z } from 'zod';

import { keyPairFromSeed, type KeyPair } from '../protocol/ed25519.ts';
import type { Env } from '../protocol/env.ts';
import { MoltError } from '../protocol/errors.ts';

const FORMAT = 'molt-wallet-1';
/** 128 MiB and about half a second per guess. */
const COST = { N: 2 ** 17, r: 8, p: 1 } as const;
/** A file of a stranger may not take more: 256 MiB. */
const N_MAX = 2 ** 18;
const PASSPHRASE_MIN = 10;
const PASSPHRASE_MAX = 1_024;

const hex = (bytes: number): z.ZodString => z.string().regex(new RegExp(`^[0-9a-f]{${2 * bytes}}$`));
const sealed = z.strictObject({
  format: z.literal(FORMAT),
  address: z.string().max(44),
  scrypt: z.strictObject({
    N: z
      .number()
      .int()
      .min(2 ** 14)
      .max(N_MAX)
      .refine((n) => (n & (n - 1)) === 0),
    r: z.literal(8),
    p: z.literal(1),
    salt: hex(16),
  }),
  nonce: hex(12),
  seed: hex(48),
});
export type SealedWallet = z.output<typeof sealed>;

/** The JSON value of a sealed wallet; undefined when it is something else. */
export function parseSealed(value: unknown): SealedWallet | undefined {
  const result = sealed.safeParse(value);
  return result.success ? result.data : undefined;
}

/** Throws `wallet/passphrase` when the passphrase is too short to protect anything, or too long. */
export async function sealWallet(env: Env, pair: KeyPair, passphrase: string): Promise<SealedWallet> {
  if (passphrase.length < PASSPHRASE_MIN || passphrase.length > PASSPHRASE_MAX) {
    throw new MoltError(
      'wallet/passphrase',
      `a passphrase has ${PASSPHRASE_MIN} to ${PASSPHRASE_MAX} characters, not ${passphrase.length}: take several words`,
    );
  }
  const salt = Buffer.from(env.random.bytes(16)).toString('hex');
  const head = { format: FORMAT, address: pair.address, scrypt: { ...COST, salt } } as const;
  const nonce = env.random.bytes(12);
  const key = await deriveKey(passphrase, head.scrypt);
  try {
    const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(authenticated(head));
    const seed = Buffer.concat([cipher.update(pair.seed), cipher.final(), cipher.getAuthTag()]);
    return { ...head, nonce: Buffer.from(nonce).toString('hex'), seed: seed.toString('hex') };
  } finally {
    key.fill(0);
  }
}

/** Throws `wallet/passphrase` when it does not open. */
export async function openSealed(wallet: SealedWallet, passphrase: string): Promise<KeyPair> {
  const box = Buffer.from(wallet.seed, 'hex');
  const key = await deriveKey(passphrase, wallet.scrypt);
  let seed: Buffer | undefined;
  try {
    const decipher = createDecipheriv('aes-256-gcm', key, Buffer.from(wallet.nonce, 'hex'), { authTagLength: 16 });
    decipher.setAAD(authenticated(wallet)).setAuthTag(box.subarray(32));
    seed = Buffer.concat([decipher.update(box.subarray(0, 32)), decipher.final()]);
    const pair = keyPairFromSeed(new Uint8Array(seed));
    if (pair.address === wallet.address) return pair;
  } catch (error) {
    // Authentication failed: the only thing that can, for the lengths are checked.
    if (seed !== undefined) throw error;
  } finally {
    key.fill(0);
    seed?.fill(0);
  }
  throw new MoltError(
    'wallet/passphrase',
    `the passphrase does not open the wallet ${wallet.address}, or its file was changed: try again`,
    { address: wallet.address },
  );
}

function authenticated({
  format,
  address,
  scrypt: cost,
}: Pick<SealedWallet, 'format' | 'scrypt'> & { address: string }): Buffer {
  return Buffer.from(JSON.stringify([format, address, cost.N, cost.r, cost.p, cost.salt]));
}

function deriveKey(passphrase: string, cost: SealedWallet['scrypt']): Promise<Buffer> {
  const { N, r, p, salt } = cost;
  // One spelling of every character, whatever the keyboard or system makes of it.
  const secret = Buffer.from(passphrase.normalize('NFKC'), 'utf8');
  return new Promise((resolve, reject) => {
    scrypt(secret, Buffer.from(salt, 'hex'), 32, { N, r, p, maxmem: 256 * N * r }, (error, key) => {
      secret.fill(0);
      if (error) reject(error);
      else resolve(key);
    });
  });
}
