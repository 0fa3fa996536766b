/**
 * WebAssembly modules as files, kept for the next job: bounded in bytes, the least recently used go first, and none that a
 * job on its way needs. A file is named by the CID of its content and compared with it once after every start.
 */
import { mkdir, readdir, rename, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';

import type { Env } from '../../protocol/env.ts';
import { cidOfFile } from '../mesh/index.ts';
import { sha256OfFile } from './outputs.ts';

export interface ModuleFile {
  readonly path: string;
  /** SHA-256 of the bytes, 64 hex digits. */
  readonly digest: string;
}

interface Entry {
  readonly sizeBytes: number;
  usedMs: number;
  /** Known once the content was compared with its name. */
  digest: string | undefined;
}

const SUFFIX = '.wasm';
const PARTIAL = '.part';

export class Modules {
  readonly #env: Env;
  readonly #directory: string;
  readonly #bytesMax: number;
  readonly #entries: Map<string, Entry>;
  readonly #pins = new Map<string, number>();

  private constructor(env: Env, options: { directory: string; bytesMax: number; entries: Map<string, Entry> }) {
    this.#env = env;
    this.#directory = options.directory;
    this.#bytesMax = options.bytesMax;
    this.#entries = options.entries;
  }

  /** Opens the folder and removes what an earlier crash left half written. */
  static async open(env: Env, options: { readonly directory: string; readonly bytesMax: number }): Promise<Modules> {
    const { directory } = options;
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const entries = new Map<string, Entry>();
    for (const name of await readdir(directory)) {
      const path = join(directory, name);
      if (!name.endsWith(SUFFIX)) await rm(path, { recursive: true, force: true });
      else {
        const { size, mtimeMs } = await stat(path);
        entries.set(name.slice(0, -SUFFIX.length), { sizeBytes: size, usedMs: mtimeMs, digest: undefined });
      }
    }
    const modules = new Modules(env, { ...options, entries });
    await modules.#makeRoom();
    return modules;
  }

  /** CIDs of all modules that are here, the most recently used first. */
  list(): readonly string[] {
    return [...this.#entries].sort(([, a], [, b]) => b.usedMs - a.usedMs).map(([cid]) => cid);
  }

  /** Until disposed, this module stays once it is here. */
  pin(cid: string): Disposable {
    this.#pins.set(cid, (this.#pins.get(cid) ?? 0) + 1);
    let isHeld = true;
    return {
      [Symbol.dispose]: () => {
        if (!isHeld) return;
        isHeld = false;
        const left = (this.#pins.get(cid) ?? 1) - 1;
        if (left > 0) this.#pins.set(cid, left);
        else this.#pins.delete(cid);
        void this.#makeRoom().catch((error: unknown) =>
          this.#env.logger.log('warn', 'modules were not removed', { error }),
        );
      },
    };
  }

  /** The file of a module, or undefined when it is not here or was damaged, in which case it no longer is. */
  async find(cid: string): Promise<ModuleFile | undefined> {
    const entry = this.#entries.get(cid);
    if (entry === undefined) return undefined;
    const path = join(this.#directory, `${cid}${SUFFIX}`);
    const status = await stat(path).catch(() => undefined);
    const isWhole = status?.size === entry.sizeBytes && (entry.digest !== undefined || (await cidOfFile(path)) === cid);
    if (!isWhole) {
      this.#entries.delete(cid);
      await rm(path, { force: true });
      return undefined;
    }
    entry.digest ??= await sha256OfFile(path);
    entry.usedMs = this.#env.clock.now();
    await utimes(path, entry.usedMs / 1000, entry.usedMs / 1000);
    return { path, digest: entry.digest };
  }

  /** Keeps a module that `write` puts at the path it is given; its bytes must be those of the CID. */
  async add(cid: string, write: (path: string) => Promise<unknown>): Promise<ModuleFile> {
    const aside = join(this.#directory, `${Buffer.from(this.#env.random.bytes(8)).toString('hex')}${PARTIAL}`);
    const path = join(this.#directory, `${cid}${SUFFIX}`);
    try {
      await write(aside);
      const digest = await sha256OfFile(aside);
      await rename(aside, path);
      this.#entries.set(cid, { sizeBytes: (await stat(path)).size, usedMs: this.#env.clock.now(), digest });
      await this.#makeRoom();
      return { path, digest };
    } finally {
      await rm(aside, { force: true });
    }
  }

  async #makeRoom(): Promise<void> {
    let usedBytes = [...this.#entries.values()].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    for (const cid of this.list().toReversed()) {
      if (usedBytes <= this.#bytesMax) return;
      if (this.#pins.has(cid)) continue;
      usedBytes -= this.#entries.get(cid)?.sizeBytes ?? 0;
      this.#entries.delete(cid);
      await rm(join(this.#directory, `${cid}${SUFFIX}`), { force: true });
    }
  }
}
