/**
 * Artifacts: inputs and outputs of jobs, named by the CID of a UnixFS tree, kept on disk under a quota.
 *
 * A tree counts as here when its root is marked, which happens after its last block is written. Equal blocks of several
 * trees are kept once; removing a tree removes the blocks that no other marked tree and no running operation needs. When
 * the quota is reached, leftovers are swept first, then trees that nobody has pinned go, the least recently used first.
 */
import { mkdir, readdir, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import type { CID } from 'multiformats/cid';
import * as raw from 'multiformats/codecs/raw';

import type { Network } from '../../../market/ports.ts';
import type { Address } from '../../../protocol/address.ts';
import type { Env } from '../../../protocol/env.ts';
import { hasCode } from '../../../protocol/errors.ts';
import { Blocks, diskErrors } from './blocks.ts';
import { DagWalk, blockKey, parseArtifactCid } from './dag.ts';
import { type ExportOptions, exportTree } from './export.ts';
import { type AddOptions, type Added, type PutBlock, importBytes, importPath, importStream } from './import.ts';
import { type Allow, serveBlocks } from './serve.ts';
import { type FetchOptions, fetchBlocks } from './transfer.ts';

export interface ArtifactsOptions {
  readonly directory: string;
  /** All blocks together. Where no more room can be made, `job/disk-full`. */
  readonly quotaBytes: number;
}

export interface Artifacts {
  /** Bytes that all blocks take. */
  readonly usedBytes: number;
  /** A file or directory. Throws `artifact/unsafe-path` (links, special files), `artifact/too-large`, `job/disk-full`. */
  add(path: string, options?: AddOptions): Promise<Added>;
  /** Bytes as one file. */
  addBytes(bytes: Uint8Array): Promise<Added>;
  /** The same for bytes as they come; what the source throws is thrown, and nothing is here then. */
  addStream(content: AsyncIterable<Uint8Array>): Promise<Added>;
  /**
   * Writes the tree to a path that must not exist or be an empty directory. Throws `artifact/not-found`,
   * `artifact/corrupt`, `artifact/too-large`, `artifact/unsafe-path`, `job/disk-full`; leaves nothing behind then.
   */
  export(cid: string, toPath: string, options: ExportOptions): Promise<{ sizeBytes: number }>;
  /** Whether the whole tree is here. */
  has(cid: string): Promise<boolean>;
  /** Until disposed, this tree is not taken away: neither to make room nor by `remove`, which then waits for the last pin. */
  pin(cid: string): Disposable;
  remove(cid: string): Promise<void>;
  /** Serves whole trees to the peers that `allow` names; the others cannot tell a refusal from absence. */
  serve(network: Network, allow: Allow): Promise<AsyncDisposable>;
  /**
   * Brings a tree here; keeps what came when it fails, and goes on from there when asked again. Throws
   * `artifact/not-found`, `artifact/corrupt`, `artifact/too-large`, `job/disk-full`, `mesh/…`, the signal's reason.
   */
  fetch(network: Network, from: Address, cid: string, options: FetchOptions): Promise<void>;
}

/** Opens the store in its own folder; one process at a time. */
export async function openArtifacts(env: Env, options: ArtifactsOptions): Promise<Artifacts> {
  const roots = join(options.directory, 'roots');
  await diskErrors(() => mkdir(roots, { recursive: true, mode: 0o700 }));
  const blocks = await Blocks.open(env, join(options.directory, 'blocks'), options.quotaBytes);
  const marked = new Map<string, number>();
  for (const name of await readdir(roots)) marked.set(name, (await stat(join(roots, name))).mtimeMs);
  return new DiskArtifacts(env, { blocks, roots, marked });
}

class DiskArtifacts implements Artifacts {
  readonly #env: Env;
  readonly #blocks: Blocks;
  readonly #roots: string;
  /** Roots that are here, with when they were last used, Unix ms. */
  readonly #marked: Map<string, number>;
  readonly #pins = new Map<string, number>();
  /** Removed while pinned. */
  readonly #unwanted = new Set<string>();
  /** Blocks that running operations count on, a set for each. */
  readonly #inUse = new Set<Set<string>>();
  /** The sweep that runs now: writes wait for it, so that none counts on a block that is about to go. */
  #sweeping: Promise<void> = Promise.resolve();

  constructor(
    env: Env,
    parts: { readonly blocks: Blocks; readonly roots: string; readonly marked: Map<string, number> },
  ) {
    this.#env = env;
    this.#blocks = parts.blocks;
    this.#roots = parts.roots;
    this.#marked = parts.marked;
  }

  get usedBytes(): number {
    return this.#blocks.usedBytes;
  }

  add(path: string, options?: AddOptions): Promise<Added> {
    return this.#adding((put) => importPath(put, path, options));
  }

  addBytes(bytes: Uint8Array): Promise<Added> {
    return this.#adding((put) => importBytes(put, bytes));
  }

  addStream(content: AsyncIterable<Uint8Array>): Promise<Added> {
    return this.#adding((put) => importStream(put, content));
  }

  async #adding(add: (put: PutBlock) => Promise<Added>): Promise<Added> {
    return this.#using(async (used) => {
      const added = await add((cid, bytes) => this.#put(used, cid, bytes));
      await this.#mark(added.cid);
      return added;
    });
  }

  async export(cid: string, toPath: string, options: ExportOptions): Promise<{ sizeBytes: number }> {
    const root = parseArtifactCid(cid);
    using _pin = this.pin(cid);
    try {
      await this.#touch(root.toString());
      return await exportTree(this.#blocks, root, toPath, options);
    } catch (error) {
      // A tree with a hole must not count as here, or nobody would fetch it again.
      if (hasCode(error, 'artifact/not-found', 'artifact/corrupt')) await this.#unmark(root.toString());
      throw error;
    }
  }

  // oxlint-disable-next-line require-await -- so that a malformed CID rejects rather than throws
  async has(cid: string): Promise<boolean> {
    return this.#marked.has(parseArtifactCid(cid).toString());
  }

  pin(cid: string): Disposable {
    const name = parseArtifactCid(cid).toString();
    this.#pins.set(name, (this.#pins.get(name) ?? 0) + 1);
    let isHeld = true;
    return {
      [Symbol.dispose]: () => {
        if (!isHeld) return;
        isHeld = false;
        const left = (this.#pins.get(name) ?? 1) - 1;
        if (left > 0) this.#pins.set(name, left);
        else this.#pins.delete(name);
        if (left > 0 || !this.#unwanted.has(name)) return;
        void this.remove(name).catch((error: unknown) =>
          this.#env.logger.log('warn', 'artifact not removed', { cid: name, error }),
        );
      },
    };
  }

  async remove(cid: string): Promise<void> {
    const name = parseArtifactCid(cid).toString();
    if (!this.#marked.has(name)) return;
    if (this.#pins.has(name)) {
      this.#unwanted.add(name);
      return;
    }
    await this.#unmark(name);
    await this.#sweep();
  }

  serve(network: Network, allow: Allow): Promise<AsyncDisposable> {
    return serveBlocks(this.#env, network, async (root, peer) => {
      const name = root.toString();
      return this.#marked.has(name) && (await allow(peer, name)) ? this.#blocks : undefined;
    });
  }

  async fetch(network: Network, from: Address, cid: string, options: FetchOptions): Promise<void> {
    const root = parseArtifactCid(cid);
    if (this.#marked.has(root.toString())) {
      await this.#touch(root.toString());
      return;
    }
    await this.#using(async (used) => {
      await this.#holdPresent(used, root);
      const store = { blocks: this.#blocks, put: (one: CID, bytes: Uint8Array) => this.#put(used, one, bytes) };
      await fetchBlocks(this.#env, store, { network, from, root }, options);
      await this.#mark(root.toString());
    });
  }

  /** What an interrupted fetch left here must not be swept while the next one counts on it. */
  async #holdPresent(used: Set<string>, root: CID): Promise<void> {
    await this.#sweeping;
    const walk = new DagWalk(root);
    for (let cid = walk.next(); cid !== undefined; cid = walk.next()) {
      used.add(blockKey(cid));
      if (cid.code === raw.code) continue;
      if (this.#blocks.size(cid) === undefined) return;
      walk.enter(cid, await this.#blocks.get(cid));
    }
  }

  async #using<Value>(work: (used: Set<string>) => Promise<Value>): Promise<Value> {
    const used = new Set<string>();
    this.#inUse.add(used);
    try {
      return await work(used);
    } finally {
      this.#inUse.delete(used);
    }
  }

  async #put(used: Set<string>, cid: CID, bytes: Uint8Array): Promise<void> {
    used.add(blockKey(cid));
    await this.#sweeping;
    // Leftovers first; then trees, twice as many each time, so that making room takes few sweeps.
    for (let evicted = 0; ; evicted = Math.max(1, 2 * evicted)) {
      try {
        await this.#blocks.put(cid, bytes);
        return;
      } catch (error) {
        if (!hasCode(error, 'job/disk-full') || (evicted > 0 && !(await this.#evict(evicted)))) throw error;
        await this.#sweep();
      }
    }
  }

  /** Lets go of so many trees that nobody has pinned, the least recently used first; false when there is none. */
  async #evict(count: number): Promise<boolean> {
    const free = [...this.#marked].filter(([name]) => !this.#pins.has(name)).sort(([, a], [, b]) => a - b);
    for (const [name] of free.slice(0, count)) await this.#unmark(name);
    return free.length > 0;
  }

  async #touch(name: string): Promise<void> {
    if (!this.#marked.has(name)) return;
    const nowMs = this.#env.clock.now();
    this.#marked.set(name, nowMs);
    // Only the order after a restart depends on it.
    await utimes(join(this.#roots, name), nowMs / 1000, nowMs / 1000).catch(() => undefined);
  }

  async #mark(name: string): Promise<void> {
    await diskErrors(() => writeFile(join(this.#roots, name), ''));
    this.#marked.set(name, 0);
    this.#unwanted.delete(name);
    await this.#touch(name);
  }

  async #unmark(name: string): Promise<void> {
    this.#marked.delete(name);
    this.#unwanted.delete(name);
    await rm(join(this.#roots, name), { force: true });
  }

  /** Deletes every block that no marked tree and no running operation needs. */
  #sweep(): Promise<void> {
    const sweep = this.#sweeping.then(() => this.#sweepNow());
    this.#sweeping = sweep.catch(() => undefined);
    return sweep;
  }

  async #sweepNow(): Promise<void> {
    const live = new Set<string>();
    for (const name of this.#marked.keys()) await this.#collect(parseArtifactCid(name), live);
    for (const key of this.#blocks.keys()) {
      const isUsed = live.has(key) || this.#inUse.values().some((used) => used.has(key));
      if (!isUsed) await this.#blocks.delete(key);
    }
  }

  async #collect(root: CID, live: Set<string>): Promise<void> {
    const walk = new DagWalk(root);
    for (let cid = walk.next(); cid !== undefined; cid = walk.next()) {
      live.add(blockKey(cid));
      if (cid.code === raw.code) continue;
      try {
        walk.enter(cid, await this.#blocks.get(cid));
      } catch (error) {
        this.#env.logger.log('warn', 'artifact is damaged', { root: root.toString(), error });
        await this.#unmark(root.toString());
        return;
      }
    }
  }
}
