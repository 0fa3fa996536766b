/**
 * Files → blocks. The settings are the published profile `unixfs-v1-2025` (IPIP-499): CID version 1, raw leaves of 1 MiB,
 * 1,024 links a node, directories sharded above 256 KiB. So equal content has equal CIDs here and in other UnixFS tools.
 *
 * Links are never followed and nothing but files and directories is taken: the outputs of a job are written by strangers,
 * and a link in them could name any file of this machine.
 */
import { constants } from 'node:fs';
import { lstat, open, opendir } from 'node:fs/promises';
import type { Dirent } from 'node:fs';
import { join } from 'node:path';

import type { CID } from 'multiformats/cid';

import { MoltError, assert } from '../../../protocol/errors.ts';
import { LIMITS } from '../../../protocol/limits.ts';
import { DEPTH_MAX, tooLarge } from './dag.ts';
import { Names, unsafePath } from './name.ts';

export interface AddOptions {
  readonly maxBytes?: number;
  readonly maxEntries?: number;
  /** Of a directory, the files to take, by their path in it; directories only where such a file is. All when absent. */
  readonly include?: (path: string) => boolean;
  readonly signal?: AbortSignal;
}

export interface Added {
  readonly cid: string;
  /** Bytes of all files together. */
  readonly sizeBytes: number;
  /** Files and directories below the root. */
  readonly entries: number;
}

interface Candidate {
  readonly path: string;
  readonly content?: AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/** Where the importer puts what it makes. */
export type PutBlock = (cid: CID, bytes: Uint8Array) => Promise<void>;

const READ_BYTES = 1024 * 1024;

/** A file or a whole directory. Throws `artifact/unsafe-path` for links and special files, `artifact/too-large`. */
export async function importPath(put: PutBlock, path: string, options: AddOptions = {}): Promise<Added> {
  const count = new Counter(options);
  const status = await lstat(path);
  if (status.isFile())
    return importAll(put, [{ path: 'file', content: readFile(path, count) }], { count, wrap: false });
  if (status.isSymbolicLink()) throw unsafePath(path, 'symlink', 'a symbolic link');
  if (!status.isDirectory()) throw unsafePath(path, 'special', 'neither a file nor a directory');
  return importAll(put, walk(path, count), { count, wrap: true });
}

/** Bytes as one file. */
export function importBytes(put: PutBlock, bytes: Uint8Array): Promise<Added> {
  const count = new Counter({});
  count.addBytes(bytes.length);
  return importAll(put, [{ path: 'file', content: [bytes] }], { count, wrap: false });
}

/** Bytes as they come, as one file. */
export function importStream(put: PutBlock, content: AsyncIterable<Uint8Array>): Promise<Added> {
  const count = new Counter({});
  const counted = async function* (): AsyncGenerator<Uint8Array> {
    for await (const chunk of content) {
      count.addBytes(chunk.length);
      yield chunk;
    }
  };
  return importAll(put, [{ path: 'file', content: counted() }], { count, wrap: false });
}

/** The CID that a file has as an artifact; nothing is stored. */
export async function cidOfFile(path: string): Promise<string> {
  return (await importPath(() => Promise.resolve(), path)).cid;
}

async function importAll(
  put: PutBlock,
  candidates: Iterable<Candidate> | AsyncIterable<Candidate>,
  { count, wrap }: { readonly count: Counter; readonly wrap: boolean },
): Promise<Added> {
  const storage = {
    put: async (cid: CID, bytes: Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>): Promise<CID> => {
      assert(bytes instanceof Uint8Array, 'the importer hands over whole blocks');
      await put(cid, bytes);
      return cid;
    },
  };
  // Loaded on first use: listening does not need it.
  const { importer } = await import('ipfs-unixfs-importer');
  let root: CID | undefined;
  const imported = importer(
    candidates as AsyncIterable<{ path: string; content: AsyncIterable<Uint8Array> }>,
    storage,
    {
      profile: 'unixfs-v1-2025',
      wrapWithDirectory: wrap,
      // Few at a time: each holds a block of 1 MiB.
      fileImportConcurrency: 1,
      blockWriteConcurrency: 8,
    },
  );
  // The root comes last.
  for await (const entry of imported) root = entry.cid;
  assert(root !== undefined, 'every import has a root');
  return { cid: root.toV1().toString(), sizeBytes: count.bytes, entries: count.entries };
}

/** The entries below a directory in the order of their names, parents first. */
async function* walk(root: string, count: Counter, below = '', depth = 1): AsyncGenerator<Candidate> {
  if (depth > DEPTH_MAX / 2) throw tooLarge('depth', `directories deeper than ${DEPTH_MAX / 2}`);
  const names = new Names(below);
  for (const entry of await entriesOf(join(root, below), count)) {
    const path = below === '' ? entry.name : `${below}/${entry.name}`;
    const isTaken = entry.isDirectory() ? count.include === undefined : (count.include?.(path) ?? true);
    if (isTaken || entry.isDirectory()) names.add(entry.name);
    if (isTaken) count.addEntry();
    if (entry.isDirectory()) {
      if (isTaken) yield { path };
      yield* walk(root, count, path, depth + 1);
    } else if (!isTaken) continue;
    else if (entry.isFile()) yield { path, content: readFile(join(root, path), count) };
    else if (entry.isSymbolicLink()) throw unsafePath(path, 'symlink', 'a symbolic link');
    else throw unsafePath(path, 'special', 'neither a file nor a directory');
  }
}

/** One by one: a directory of strangers may have more entries than fit in memory. */
async function entriesOf(path: string, count: Counter): Promise<Dirent[]> {
  const entries: Dirent[] = [];
  for await (const entry of await opendir(path)) {
    count.see();
    entries.push(entry);
  }
  return entries.sort((a, b) => (a.name < b.name ? -1 : 1));
}

async function* readFile(path: string, count: Counter): AsyncGenerator<Uint8Array> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const status = await file.stat();
  if (!status.isFile()) throw unsafePath(path, 'special', 'no longer a plain file');
  // A buffer no larger than the file: thousands of small files would otherwise cost a megabyte each.
  const chunkBytes = Math.min(READ_BYTES, status.size + 1);
  for (;;) {
    const { bytesRead, buffer } = await file.read(Buffer.allocUnsafeSlow(chunkBytes), 0, chunkBytes);
    if (bytesRead === 0) return;
    count.addBytes(bytesRead);
    yield buffer.subarray(0, bytesRead);
  }
}

class Counter {
  readonly #options: AddOptions;
  readonly include: AddOptions['include'];
  bytes = 0;
  entries = 0;
  #seen = 0;

  constructor(options: AddOptions) {
    this.#options = options;
    this.include = options.include;
  }

  addBytes(bytes: number): void {
    this.#options.signal?.throwIfAborted();
    this.bytes += bytes;
    const limit = this.#options.maxBytes ?? Number.MAX_SAFE_INTEGER;
    if (this.bytes > limit)
      throw new MoltError('artifact/too-large', `expected at most ${limit} bytes of content, found more`, {
        reason: 'bytes',
      });
  }

  addEntry(): void {
    this.entries++;
    this.#assertFew(this.entries, this.#options.maxEntries ?? LIMITS.artifactEntries);
  }

  /** An entry that is looked at, taken or not. */
  see(): void {
    this.#options.signal?.throwIfAborted();
    this.#seen++;
    this.#assertFew(this.#seen, LIMITS.artifactEntries);
  }

  #assertFew(found: number, limit: number): void {
    if (found <= limit) return;
    throw new MoltError('artifact/too-large', `expected at most ${limit} files and directories, found more`, {
      reason: 'entries',
    });
  }
}
