/**
 * Blocks → files, with every bound that a hostile tree could break: bytes written, entries, depth, nodes visited. Memory is
 * constant: one block and the way to it. Nothing is written outside the target and no link is made or followed.
 */
import { type FileHandle, lstat, mkdir, open, readdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { UnixFS } from 'ipfs-unixfs';
import type { CID } from 'multiformats/cid';
import * as raw from 'multiformats/codecs/raw';

import { MoltError } from '../../../protocol/errors.ts';
import { type Blocks, diskErrors, isCode } from './blocks.ts';
import { DEPTH_MAX, decodeNode, tooLarge } from './dag.ts';
import { checkName, unsafePath } from './name.ts';

export interface ExportOptions {
  /** Bytes of all files together. */
  readonly maxBytes: number;
  /** Files and directories together. */
  readonly maxEntries: number;
  readonly signal?: AbortSignal;
}

/**
 * Content that repeats visits a node often. Allowed are a visit for each KiB and two for each entry that may be written,
 * and a few more; a tree that needs more is made to keep us busy.
 */
const BYTES_PER_VISIT = 1_024;
const VISITS_PER_ENTRY = 2;
const VISITS_FREE = 64;
/** A directory shard prefixes each name by two hexadecimal digits; two digits alone name a deeper shard. */
const SHARD_PREFIX = 2;

type Node =
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array }
  | { readonly kind: 'file'; readonly data: Uint8Array | undefined; readonly links: readonly CID[] }
  | { readonly kind: 'directory' | 'shard'; readonly entries: readonly { readonly name: string; readonly cid: CID }[] };

/**
 * Writes the tree to `path`, which must not exist or be an empty directory. What was written is removed when it fails.
 * Throws `artifact/not-found`, `artifact/corrupt`, `artifact/too-large`, `artifact/unsafe-path`, `job/disk-full`.
 */
export async function exportTree(
  blocks: Blocks,
  root: CID,
  path: string,
  options: ExportOptions,
): Promise<{ sizeBytes: number }> {
  await assertFree(path);
  const writer = new TreeWriter(blocks, options);
  try {
    await mkdir(dirname(path), { recursive: true });
    await diskErrors(() => writer.write(root, path, 1));
    return { sizeBytes: writer.bytes };
  } catch (error) {
    await rm(path, { recursive: true, force: true });
    if (isCode(error, 'EEXIST')) throw unsafePath(path, 'two entries have one name on this file system');
    throw error;
  }
}

async function assertFree(path: string): Promise<void> {
  try {
    const status = await lstat(path);
    if (status.isDirectory() && (await readdir(path)).length === 0) return;
  } catch (error) {
    if (isCode(error, 'ENOENT')) return;
    throw error;
  }
  throw unsafePath(path, 'something is already there');
}

class TreeWriter {
  readonly #blocks: Blocks;
  readonly #options: ExportOptions;
  readonly #visitsMax: number;
  bytes = 0;
  #entries = 0;
  #visits = 0;

  constructor(blocks: Blocks, options: ExportOptions) {
    this.#blocks = blocks;
    this.#options = options;
    this.#visitsMax = VISITS_FREE + options.maxEntries * VISITS_PER_ENTRY + options.maxBytes / BYTES_PER_VISIT;
  }

  async write(cid: CID, path: string, depth: number): Promise<void> {
    this.#entries++;
    if (this.#entries > this.#options.maxEntries)
      throw tooLarge(`more than ${this.#options.maxEntries} files and directories`);
    const node = await this.#visit(cid, depth);
    if (node.kind === 'bytes' || node.kind === 'file') {
      await using file = await open(path, 'wx', 0o644);
      await this.#writeFile(file, node, depth);
      return;
    }
    await mkdir(path, { recursive: depth === 1, mode: 0o755 });
    await this.#writeEntries(node, path, depth);
  }

  async #writeEntries(node: Node, path: string, depth: number): Promise<void> {
    if (node.kind !== 'directory' && node.kind !== 'shard') throw corrupt('a directory shard leads to a file');
    for (const { name, cid } of node.entries) {
      const own = node.kind === 'shard' ? name.slice(SHARD_PREFIX) : name;
      if (node.kind === 'shard' && name.length === SHARD_PREFIX) {
        await this.#writeEntries(await this.#visit(cid, depth + 1), path, depth + 1);
        continue;
      }
      checkName(own);
      await this.write(cid, join(path, own), depth + 1);
    }
  }

  /** The leaves of a file, left to right, without recursion. */
  async #writeFile(file: FileHandle, root: Node, rootDepth: number): Promise<void> {
    const stack: { readonly node: Node | CID; readonly depth: number }[] = [{ node: root, depth: rootDepth }];
    for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
      const node = 'kind' in top.node ? top.node : await this.#visit(top.node, top.depth);
      if (node.kind === 'bytes') await this.#append(file, node.bytes);
      else if (node.kind === 'file') {
        if (node.data !== undefined) await this.#append(file, node.data);
        for (const link of node.links.toReversed()) stack.push({ node: link, depth: top.depth + 1 });
      } else throw corrupt('a file has a directory for a part');
    }
  }

  async #append(file: FileHandle, bytes: Uint8Array): Promise<void> {
    this.bytes += bytes.length;
    if (this.bytes > this.#options.maxBytes) throw tooLarge(`more than ${this.#options.maxBytes} bytes of content`);
    await file.writeFile(bytes);
  }

  async #visit(cid: CID, depth: number): Promise<Node> {
    this.#options.signal?.throwIfAborted();
    this.#visits++;
    if (this.#visits > this.#visitsMax) throw tooLarge('more nodes than content');
    if (depth > DEPTH_MAX) throw tooLarge(`a tree deeper than ${DEPTH_MAX}`);
    const bytes = await this.#blocks.get(cid);
    return cid.code === raw.code ? { kind: 'bytes', bytes } : decodeUnixFs(cid, bytes);
  }
}

function decodeUnixFs(cid: CID, bytes: Uint8Array): Node {
  const node = decodeNode(cid, bytes);
  const content = unmarshal(cid, node.Data);
  switch (content.type) {
    case 'file':
    case 'raw':
      return { kind: 'file', data: content.data, links: node.Links.map((link) => link.Hash) };
    case 'directory':
    case 'hamt-sharded-directory': {
      const entries = node.Links.map((link) => ({ name: link.Name ?? '', cid: link.Hash }));
      return { kind: content.type === 'directory' ? 'directory' : 'shard', entries };
    }
    case 'symlink':
      throw unsafePath(cid.toString(), 'a symbolic link');
    default:
      throw corrupt(`block ${cid.toString()} is a UnixFS ${content.type}`);
  }
}

function unmarshal(cid: CID, data: Uint8Array | undefined): UnixFS {
  try {
    if (data !== undefined) return UnixFS.unmarshal(data);
  } catch (cause) {
    throw corrupt(`block ${cid.toString()} is not UnixFS`, cause);
  }
  throw corrupt(`block ${cid.toString()} is not UnixFS`);
}

function corrupt(what: string, cause?: unknown): MoltError {
  return new MoltError('artifact/corrupt', `expected a UnixFS tree of files and directories: ${what}`, {}, { cause });
}
