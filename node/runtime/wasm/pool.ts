/**
 * Sandbox processes that are started before there is a job for them.
 *
 * Starting a process inside its fences takes some 100 ms, compiling a module more; neither depends on the job. So the pool
 * keeps, from the first use of the runtime on, one process without a module and, for the modules of the last jobs, one
 * process each that has compiled its module already. (V8 gives no compiled module to another process: what is cached by
 * digest is the metered module on disk, and the compiled one in these processes.) A process is taken once and never
 * comes back; its successor is started at once, in the background.
 *
 * Bounds: `MODULES_MAX` + 1 idle processes, each ended when nobody took it for `IDLE_MS`. Their memory is not part of what the
 * provider sells: 85 to 100 MiB each were measured, code shared with other processes counted in part. All of them die with the node.
 */
import { mkdir, realpath, rm } from 'node:fs/promises';
import type { Env } from '../../../protocol/env.ts';
import { MoltError } from '../../../protocol/errors.ts';
import type { Fences } from './sandbox.ts';
import { Slot } from './slot.ts';

/** Modules of which a process is kept ready. */
const MODULES_MAX = 2;
const IDLE_MS = 10 * 60_000;
const LOAD_MS_MAX = 60_000;

/** A module that was metered. */
export interface PreparedModule {
  readonly digest: string;
  /** Host path of the metered module. */
  readonly path: string;
  readonly baseline: boolean;
}

/** A process that waits. */
interface Waiting {
  readonly slot: Promise<Slot>;
  readonly timer: AbortController;
}

export class SandboxPool {
  readonly #env: Env;
  readonly #directory: string;
  readonly #fences: () => Promise<Fences>;
  #opened: Promise<string> | undefined;
  #empty: Waiting | undefined;
  /** By digest, the one used longest ago first. */
  readonly #loaded = new Map<string, Waiting>();
  /** Digests of the modules that jobs came for, the last first. */
  #wanted: readonly string[] = [];
  /** Processes that are being ended. */
  readonly #closing = new Set<Promise<unknown>>();
  #closed = false;

  /** `directory` belongs to the pool; what a killed node left in it is deleted. */
  constructor(env: Env, directory: string, fences: () => Promise<Fences>) {
    this.#env = env;
    this.#directory = directory;
    this.#fences = fences;
  }

  /** A process without a module: the one that waits, or a new one. */
  async takeEmpty(): Promise<Slot> {
    const waiting = this.#empty;
    this.#empty = undefined;
    return (await this.#claim(waiting)) ?? this.#open();
  }

  /** A process that holds the module. Throws what loading it throws. */
  async take(module: PreparedModule): Promise<Slot> {
    const waiting = this.#loaded.get(module.digest);
    this.#loaded.delete(module.digest);
    return (await this.#claim(waiting)) ?? this.#load(module);
  }

  /** Has a process ready for the next job with this module, and again after each; resolves when the first is. */
  async warm(module: PreparedModule): Promise<void> {
    const others = this.#wanted.filter((digest) => digest !== module.digest);
    this.#wanted = [module.digest, ...others].slice(0, MODULES_MAX);
    await this.#warm(module);
  }

  async #warm(module: PreparedModule): Promise<void> {
    const known = this.#loaded.get(module.digest);
    if (known !== undefined && (await known.slot.then(({ alive }) => alive).catch(() => false))) return;
    this.keep(module.digest, this.#load(module));
    await this.#loaded.get(module.digest)?.slot;
  }

  /**
   * Starts the successors of a process that was taken, in the background. One with its module only where that was asked
   * for: what the node runs to test itself comes once.
   */
  warmNext(module: PreparedModule): void {
    if (this.#wanted.includes(module.digest)) this.#warm(module).catch(() => undefined);
    this.#warmEmpty();
  }

  #warmEmpty(): void {
    if (this.#empty !== undefined || this.#closed) return;
    const waiting = this.#wait(this.#open(), () => {
      if (this.#empty === waiting) this.#empty = undefined;
    });
    this.#empty = waiting;
  }

  /** Keeps a process that holds the module. */
  keep(digest: string, slot: Promise<Slot>): void {
    const waiting = this.#wait(slot, () => {
      if (this.#loaded.get(digest) === waiting) this.#loaded.delete(digest);
    });
    const before = this.#loaded.get(digest);
    if (before !== undefined) this.#discard(before);
    this.#loaded.delete(digest);
    this.#loaded.set(digest, waiting);
    for (const [oldest, idle] of this.#loaded) {
      if (this.#loaded.size <= MODULES_MAX) break;
      this.#loaded.delete(oldest);
      this.#discard(idle);
    }
    if (this.#closed) this.#discard(waiting);
  }

  /** Ends all that wait. Processes that were taken are their takers'. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const waiting of [...this.#loaded.values(), ...(this.#empty === undefined ? [] : [this.#empty])]) {
      this.#discard(waiting);
    }
    this.#loaded.clear();
    this.#empty = undefined;
    await Promise.allSettled(this.#closing);
  }

  #wait(slot: Promise<Slot>, forget: () => void): Waiting {
    const waiting = { slot, timer: new AbortController() };
    // Not when it was taken or discarded meanwhile.
    const drop = (): void => {
      if (waiting.timer.signal.aborted) return;
      forget();
      this.#discard(waiting);
    };
    slot.then(({ sandbox }) => sandbox.ended).then(drop, drop);
    this.#env.clock.sleep(IDLE_MS, waiting.timer.signal).then(drop, () => undefined);
    return waiting;
  }

  /** The process behind `waiting`, unless it died meanwhile. */
  async #claim(waiting: Waiting | undefined): Promise<Slot | undefined> {
    waiting?.timer.abort();
    const slot = await waiting?.slot.catch(() => undefined);
    if (slot === undefined || slot.alive) return slot;
    await slot.close();
    return undefined;
  }

  #discard({ slot, timer }: Waiting): void {
    timer.abort();
    const closing: Promise<unknown> = slot.then(
      async (open) => open.close(),
      () => undefined,
    );
    this.#closing.add(closing);
    void closing.finally(() => this.#closing.delete(closing)).catch(() => undefined);
  }

  async #open(): Promise<Slot> {
    this.#opened ??= this.#prepareDirectory();
    const [directory, fences] = await Promise.all([this.#opened, this.#fences()]);
    if (this.#closed) throw new MoltError('node/stopped', 'the wasm runtime is closed; start the node again');
    return Slot.open(this.#env, directory, fences);
  }

  async #prepareDirectory(): Promise<string> {
    await rm(this.#directory, { recursive: true, force: true });
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    return realpath(this.#directory);
  }

  async #load({ path, baseline }: PreparedModule): Promise<Slot> {
    const slot = await this.takeEmpty();
    try {
      const modulePath = await slot.show(path, 'module.wasm');
      await this.within(slot, LOAD_MS_MAX, slot.load({ task: 'load', modulePath, baseline }));
      return slot;
    } catch (error) {
      await slot.close();
      throw error;
    }
  }

  /** Kills the process when the work in it takes longer than that. */
  async within<T>(slot: Slot, ms: number, work: Promise<T>): Promise<T> {
    const timer = new AbortController();
    const timeout = this.#env.clock.sleep(ms, timer.signal).then(
      () => slot.sandbox.kill(),
      () => undefined,
    );
    try {
      return await work;
    } finally {
      timer.abort();
      await timeout;
    }
  }
}
