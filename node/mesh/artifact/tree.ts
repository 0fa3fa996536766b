/**
 * A UnixFS tree read from its nodes, with every bound that a hostile tree could break: content, entries, depth, nodes
 * visited, names. Memory is constant: one block and the way to it. What becomes of the files is the target's business:
 * they are written (export.ts), or only counted, before the leaves of a stranger's tree are fetched.
 */
import { join } from 'node:path';

import { UnixFS } from 'ipfs-unixfs';
import type { CID } from 'multiformats/cid';
import * as raw from 'multiformats/codecs/raw';

import { MoltError } from '../../../protocol/errors.ts';
import { DEPTH_MAX, decodeNode, tooLarge } from './dag.ts';
import { Names, unsafePath } from './name.ts';

export interface TreeBounds {
  /** Bytes of all files together. */
  readonly maxBytes: number;
  /** Files and directories together. */
  readonly maxEntries: number;
  readonly signal?: AbortSignal;
}

export interface TreeTarget {
  directory(path: string, isRoot: boolean): Promise<void>;
  file(path: string): Promise<FileTarget>;
}

export interface FileTarget extends AsyncDisposable {
  append(bytes: Uint8Array): Promise<void>;
}

/** Where nodes come from; `leaf` is undefined when leaves are only counted, by what their parents claim. */
export interface TreeSource {
  node(cid: CID): Promise<Uint8Array>;
  readonly leaf: ((cid: CID) => Promise<Uint8Array>) | undefined;
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

interface Link {
  readonly cid: CID;
  /** What the parent says that a leaf holds. A claim: good for refusing early, never for trusting. */
  readonly claimedBytes: number;
}

type Node =
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array | undefined; readonly sizeBytes: number }
  | { readonly kind: 'file'; readonly data: Uint8Array | undefined; readonly links: readonly Link[] }
  | { readonly kind: 'directory' | 'shard'; readonly entries: readonly (Link & { readonly name: string })[] };

/** Reads the whole tree. Throws `artifact/not-found`, `artifact/corrupt`, `artifact/too-large`, `artifact/unsafe-path`. */
export async function readTree(
  source: TreeSource,
  root: { readonly cid: CID; readonly path: string },
  bounds: TreeBounds,
  target: TreeTarget,
): Promise<{ sizeBytes: number }> {
  const reader = new TreeReader(source, bounds, target);
  await reader.entry({ cid: root.cid, claimedBytes: 0 }, root.path, 1);
  return { sizeBytes: reader.bytes };
}

/** The same without reading a leaf or writing anything: what `readTree` will refuse for certain, it refuses now. */
export async function checkTree(node: TreeSource['node'], root: CID, bounds: TreeBounds): Promise<void> {
  const file: FileTarget = { append: () => Promise.resolve(), [Symbol.asyncDispose]: () => Promise.resolve() };
  const target = { directory: () => Promise.resolve(), file: () => Promise.resolve(file) };
  await readTree({ node, leaf: undefined }, { cid: root, path: '' }, bounds, target);
}

class TreeReader {
  readonly #source: TreeSource;
  readonly #bounds: TreeBounds;
  readonly #target: TreeTarget;
  readonly #visitsMax: number;
  bytes = 0;
  #entries = 0;
  #visits = 0;

  constructor(source: TreeSource, bounds: TreeBounds, target: TreeTarget) {
    this.#source = source;
    this.#bounds = bounds;
    this.#target = target;
    this.#visitsMax = VISITS_FREE + bounds.maxEntries * VISITS_PER_ENTRY + bounds.maxBytes / BYTES_PER_VISIT;
  }

  async entry(link: Link, path: string, depth: number): Promise<void> {
    this.#entries++;
    if (this.#entries > this.#bounds.maxEntries)
      throw tooLarge('entries', `more than ${this.#bounds.maxEntries} files and directories`);
    const node = await this.#visit(link, depth);
    if (node.kind === 'bytes' || node.kind === 'file') {
      await using file = await this.#target.file(path);
      await this.#content(file, node, depth);
      return;
    }
    await this.#target.directory(path, depth === 1);
    await this.#children(node, { path, depth, names: new Names(path) });
  }

  async #children(
    node: Node,
    at: { readonly path: string; readonly depth: number; readonly names: Names },
  ): Promise<void> {
    if (node.kind !== 'directory' && node.kind !== 'shard') throw corrupt('a directory shard leads to a file');
    const depth = at.depth + 1;
    for (const link of node.entries) {
      const { name } = link;
      const own = node.kind === 'shard' ? name.slice(SHARD_PREFIX) : name;
      if (node.kind === 'shard' && name.length === SHARD_PREFIX) {
        await this.#children(await this.#visit(link, depth), { ...at, depth });
        continue;
      }
      at.names.add(own);
      await this.entry(link, join(at.path, own), depth);
    }
  }

  /** The leaves of a file, left to right, without recursion. */
  async #content(file: FileTarget, root: Node, rootDepth: number): Promise<void> {
    const stack: { readonly node: Node | Link; readonly depth: number }[] = [{ node: root, depth: rootDepth }];
    for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
      const node = 'kind' in top.node ? top.node : await this.#visit(top.node, top.depth);
      if (node.kind === 'bytes') await this.#append(file, node.bytes, node.sizeBytes);
      else if (node.kind === 'file') {
        if (node.data !== undefined) await this.#append(file, node.data, node.data.length);
        for (const link of node.links.toReversed()) stack.push({ node: link, depth: top.depth + 1 });
      } else throw corrupt('a file has a directory for a part');
    }
  }

  async #append(file: FileTarget, bytes: Uint8Array | undefined, sizeBytes: number): Promise<void> {
    this.bytes += sizeBytes;
    if (this.bytes > this.#bounds.maxBytes)
      throw tooLarge('bytes', `more than ${this.#bounds.maxBytes} bytes of content`);
    if (bytes !== undefined) await file.append(bytes);
  }

  async #visit({ cid, claimedBytes }: Link, depth: number): Promise<Node> {
    this.#bounds.signal?.throwIfAborted();
    this.#visits++;
    if (this.#visits > this.#visitsMax) throw tooLarge('visits', 'more nodes than content');
    if (depth > DEPTH_MAX) throw tooLarge('depth', `a tree deeper than ${DEPTH_MAX}`);
    if (cid.code !== raw.code) return decodeUnixFs(cid, await this.#source.node(cid));
    if (this.#source.leaf === undefined) return { kind: 'bytes', bytes: undefined, sizeBytes: claimedBytes };
    const bytes = await this.#source.leaf(cid);
    return { kind: 'bytes', bytes, sizeBytes: bytes.length };
  }
}

function decodeUnixFs(cid: CID, bytes: Uint8Array): Node {
  const node = decodeNode(cid, bytes);
  const content = unmarshal(cid, node.Data);
  switch (content.type) {
    case 'file':
    case 'raw': {
      const links = node.Links.map(({ Hash }, index) => ({
        cid: Hash,
        claimedBytes: Number(content.blockSizes[index] ?? 0n),
      }));
      return { kind: 'file', data: content.data, links };
    }
    case 'directory':
    case 'hamt-sharded-directory': {
      const entries = node.Links.map(({ Name, Hash, Tsize }) => ({
        name: Name ?? '',
        cid: Hash,
        claimedBytes: Tsize ?? 0,
      }));
      return { kind: content.type === 'directory' ? 'directory' : 'shard', entries };
    }
    case 'symlink':
      throw unsafePath(cid.toString(), 'symlink', 'a symbolic link');
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
