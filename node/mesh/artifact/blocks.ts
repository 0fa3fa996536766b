/**
 * Blocks on disk: one file each, named by its hash, written aside and renamed, so that a block is whole or absent. What
 * is read is hashed again: a disk that lies is found before its bytes are used.
 */
import { createHash, webcrypto } from 'node:crypto';
import { access, mkdir, open, opendir, readFile, rename, rm, stat, unlink } from 'node:fs/promises';
import { basename, join } from 'node:path';

import type { CID } from 'multiformats/cid';

import type { Env } from '../../../protocol/env.ts';
import { MoltError } from '../../../protocol/errors.ts';
import { blockKey } from './dag.ts';

export class Blocks {
  readonly #env: Env;
  readonly #directory: string;
  readonly #quotaBytes: number;
  /** Sizes of all blocks that are here, by key: whether a block is here is asked far more often than a block is read. */
  readonly #sizes: Map<string, number>;
  /** Writes under way: content that repeats hands over one block several times at once. */
  readonly #writing = new Map<string, Promise<void>>();
  #usedBytes: number;

  private constructor(
    env: Env,
    options: { readonly directory: string; readonly quotaBytes: number; readonly sizes: Map<string, number> },
  ) {
    this.#env = env;
    this.#directory = options.directory;
    this.#quotaBytes = options.quotaBytes;
    this.#sizes = options.sizes;
    this.#usedBytes = options.sizes.values().reduce((sum, size) => sum + size, 0);
  }

  /** Opens the folder, removes what an earlier crash left half written, and counts what is there. */
  static async open(env: Env, directory: string, quotaBytes: number): Promise<Blocks> {
    await diskErrors(() => mkdir(directory, { recursive: true, mode: 0o700 }));
    const sizes = new Map<string, number>();
    for await (const path of files(directory)) {
      if (path.endsWith(PARTIAL)) await unlink(path);
      else sizes.set(basename(path), (await stat(path)).size);
    }
    return new Blocks(env, { directory, quotaBytes, sizes });
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Size of a block that is here, else undefined. */
  size(cid: CID): number | undefined {
    return this.#sizes.get(blockKey(cid));
  }

  /**
   * The bytes of a block behind `before`, not hashed: for whoever hashes them anyway. Throws `artifact/not-found`,
   * `artifact/corrupt` when the size is not what was stored.
   */
  async readBehind(cid: CID, before: Uint8Array): Promise<Uint8Array> {
    const size = this.size(cid);
    if (size === undefined) throw notHere(cid);
    const bytes = Buffer.allocUnsafeSlow(before.length + size);
    bytes.set(before);
    await using file = await this.#open(cid);
    const { bytesRead } = await file.read(bytes, before.length, size, 0);
    if (bytesRead !== size) await this.#damaged(cid);
    return bytes;
  }

  async #open(cid: CID): ReturnType<typeof open> {
    try {
      return await open(this.#path(blockKey(cid)), 'r');
    } catch (cause) {
      throw isCode(cause, 'ENOENT') ? await this.#lost(cid, cause) : cause;
    }
  }

  /** The bytes of a block. Throws `artifact/not-found`, or `artifact/corrupt` (the block is removed then). */
  async get(cid: CID): Promise<Uint8Array> {
    const path = this.#path(blockKey(cid));
    let bytes: Uint8Array;
    try {
      bytes = await readFile(path);
    } catch (cause) {
      throw isCode(cause, 'ENOENT') ? await this.#lost(cid, cause) : cause;
    }
    if (await isBlock(cid, bytes)) return bytes;
    return this.#damaged(cid);
  }

  async #damaged(cid: CID): Promise<never> {
    await this.delete(blockKey(cid));
    throw new MoltError(
      'artifact/corrupt',
      `block ${cid.toString()} was damaged on disk; it is removed, fetch the artifact again`,
    );
  }

  /** A file that somebody took away may not be the only one: what is gone is no longer counted as here. */
  async #lost(cid: CID, cause: unknown): Promise<MoltError> {
    for (const key of this.#sizes.keys()) {
      const isThere = await access(this.#path(key)).then(
        () => true,
        () => false,
      );
      if (!isThere) this.#forget(key);
    }
    return notHere(cid, cause);
  }

  #forget(key: string): void {
    this.#usedBytes -= this.#sizes.get(key) ?? 0;
    this.#sizes.delete(key);
  }

  /** Stores a block whose hash the caller has checked. Throws `job/disk-full` at the quota or when the disk is full. */
  async put(cid: CID, bytes: Uint8Array): Promise<void> {
    const key = blockKey(cid);
    const writing = this.#writing.get(key) ?? this.#store(cid, bytes);
    this.#writing.set(key, writing);
    try {
      await writing;
    } finally {
      this.#writing.delete(key);
    }
  }

  async #store(cid: CID, bytes: Uint8Array): Promise<void> {
    if (this.size(cid) !== undefined) return;
    if (this.#usedBytes + bytes.length > this.#quotaBytes) {
      throw new MoltError(
        'job/disk-full',
        `artifacts may take ${this.#quotaBytes} bytes here and all are used; remove some or raise the quota`,
      );
    }
    this.#usedBytes += bytes.length;
    try {
      await diskErrors(() => this.#write(this.#path(blockKey(cid)), bytes));
      this.#sizes.set(blockKey(cid), bytes.length);
    } catch (error) {
      this.#usedBytes -= bytes.length;
      throw error;
    }
  }

  async #write(path: string, bytes: Uint8Array): Promise<void> {
    const aside = `${path}-${Buffer.from(this.#env.random.bytes(6)).toString('hex')}${PARTIAL}`;
    try {
      await using file = await openCreating(aside);
      await file.writeFile(bytes);
    } catch (error) {
      await rm(aside, { force: true });
      throw error;
    }
    await rename(aside, path);
  }

  async delete(key: string): Promise<void> {
    if (!this.#sizes.has(key)) return;
    this.#forget(key);
    await rm(this.#path(key), { force: true });
  }

  /** Keys of all blocks, in no order. */
  keys(): Iterable<string> {
    return this.#sizes.keys();
  }

  #path(key: string): string {
    return join(this.#directory, key.slice(0, 2), key);
  }
}

const PARTIAL = '.part';

function notHere(cid: CID, cause?: unknown): MoltError {
  return new MoltError(
    'artifact/not-found',
    `block ${cid.toString()} is not here; fetch the artifact again`,
    {},
    { cause },
  );
}

/** Bytes from which another thread hashes sooner than this one. */
const HASHED_ELSEWHERE_BYTES = 64 * 1024;

/** True when the bytes hash to the CID. Large blocks are hashed by another thread. */
export async function isBlock(cid: CID, bytes: Uint8Array): Promise<boolean> {
  const digest =
    bytes.length < HASHED_ELSEWHERE_BYTES
      ? createHash('sha256').update(bytes).digest()
      : new Uint8Array(await webcrypto.subtle.digest('SHA-256', bytes));
  return Buffer.from(digest).equals(cid.multihash.digest);
}

/** Runs a write and says `job/disk-full` where the system says ENOSPC or EDQUOT. */
export async function diskErrors<Value>(write: () => Promise<Value>): Promise<Value> {
  try {
    return await write();
  } catch (cause) {
    if (!isCode(cause, 'ENOSPC') && !isCode(cause, 'EDQUOT')) throw cause;
    throw new MoltError(
      'job/disk-full',
      'no space is left on the disk where artifacts are kept; free some and try again',
      {},
      { cause },
    );
  }
}

export function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

async function openCreating(path: string): ReturnType<typeof open> {
  try {
    return await open(path, 'wx', 0o600);
  } catch (error) {
    if (!isCode(error, 'ENOENT')) throw error;
    await mkdir(join(path, '..'), { recursive: true, mode: 0o700 });
    return open(path, 'wx', 0o600);
  }
}

async function* files(directory: string): AsyncGenerator<string> {
  for await (const shard of await opendir(directory)) {
    if (!shard.isDirectory()) continue;
    for await (const file of await opendir(join(directory, shard.name))) yield join(directory, shard.name, file.name);
  }
}
