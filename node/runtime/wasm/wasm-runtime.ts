/**
 * The wasm runtime: the executor that is always there.
 *
 * A module is checked and metered once, in a sandbox process, and kept by its digest. Each run has a sandbox process of its
 * own, often started beforehand (pool.ts), that gets its task over a pipe and dies with the node. Runs are deterministic: the same module, inputs, arguments,
 * seed and clock give the same outputs and the same fuel, which is what lets others re-execute and referee them.
 */
import { createHash, randomUUID } from 'node:crypto';
import { access, mkdir, mkdtemp, open, readdir, realpath, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Env } from '../../../protocol/env.ts';
import { hasCode, MoltError } from '../../../protocol/errors.ts';
import { checkRequest } from '../request.ts';
import type { Capability, Image, ModuleImage, PrepareProgress, Run, RunRequest, Runtime } from '../runtime.ts';
import { METER_VERSION, MODULE_BYTES_MAX } from './meter.ts';
import { type PreparedModule, SandboxPool } from './pool.ts';
import { type Fences, prepareFences } from './sandbox.ts';
import type { Slot } from './slot.ts';
import { WasmRun } from './wasm-run.ts';

/** Metered modules that are kept; the least recently prepared ones go first. */
const CACHE_BYTES_MAX = 4 * 1024 ** 3;
/** Metering 128 MiB takes seconds; beyond this the process is stuck. */
const METER_MS_MAX = 120_000;
/** `(module (memory (export "memory") 1) (func (export "_start")))` */
const PROBE_MODULE: Uint8Array = Uint8Array.from([
  0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, 0x01, 0x04, 0x01, 0x60, 0x00, 0x00, 0x03, 0x02, 0x01, 0x00, 0x05,
  0x03, 0x01, 0x00, 0x01, 0x07, 0x13, 0x02, 0x06, 0x6d, 0x65, 0x6d, 0x6f, 0x72, 0x79, 0x02, 0x00, 0x06, 0x5f, 0x73,
  0x74, 0x61, 0x72, 0x74, 0x00, 0x00, 0x0a, 0x04, 0x01, 0x02, 0x00, 0x0b,
]);

/** `baseline` starts large modules sooner, takes less memory, and runs everything two to four times slower. */
export type WasmCompiler = 'optimizing' | 'baseline';

export class WasmRuntime implements Runtime {
  readonly kind = 'wasm';
  readonly #env: Env;
  readonly #directory: string;
  readonly #modules: string;
  readonly #baseline: boolean;
  readonly #runs = new Map<string, WasmRun>();
  readonly #preparing = new Map<string, Promise<PreparedModule>>();
  readonly #pool: SandboxPool;
  #fences: Promise<Fences> | undefined;
  #closed = false;

  /** `directory` belongs to this runtime; the cache of metered modules is kept in it. */
  constructor(env: Env, directory: string, compiler: WasmCompiler = 'optimizing') {
    this.#env = env;
    this.#baseline = compiler === 'baseline';
    this.#directory = directory;
    this.#modules = join(directory, 'modules');
    this.#pool = new SandboxPool(env, join(directory, 'slots'), async () => this.#prepareFences());
  }

  async probe(signal: AbortSignal): Promise<Capability> {
    const { bubblewrap } = await this.#prepareFences();
    const details = {
      engine: 'v8',
      version: process.versions.v8,
      node: process.versions.node,
      meter: METER_VERSION,
      bubblewrap: bubblewrap !== undefined,
    };
    const namespaces = bubblewrap === undefined ? [] : ['the sandbox process sees no network and no foreign files'];
    const guarantees = [
      'instructions, linear memory, disk and wall time are limited exactly',
      'the guest has no network, no processes and no files but its own',
      'equal inputs give equal outputs and equal fuel',
      ...namespaces,
    ];
    const gaps = ['a fraction of a cpu is not enforced: a guest uses one core'];
    if (bubblewrap === undefined)
      gaps.push('without bubblewrap the sandbox process relies on permissions of Node alone');
    try {
      await this.#selfTest(signal);
      return { available: true, features: [], details, guarantees, gaps };
    } catch (error) {
      const reason = `the self-test failed: ${error instanceof Error ? error.message : String(error)}`;
      return { available: false, reason, features: [], details, guarantees: [], gaps };
    }
  }

  /** Runs the smallest module through everything a job goes through. */
  async #selfTest(signal: AbortSignal): Promise<void> {
    await mkdir(this.#directory, { recursive: true });
    const directory = await mkdtemp(join(this.#directory, 'self-test-'));
    try {
      const [path, inputDirectory, outputDirectory] = ['module.wasm', 'in', 'out'].map((name) => join(directory, name));
      if (path === undefined || inputDirectory === undefined || outputDirectory === undefined) return;
      await Promise.all([writeFile(path, PROBE_MODULE), mkdir(inputDirectory), mkdir(outputDirectory)]);
      const run = await this.start(
        {
          attemptId: `self-test-${randomUUID()}`,
          image: { kind: 'module', path, digest: createHash('sha256').update(PROBE_MODULE).digest('hex') },
          command: ['self-test'],
          environment: {},
          inputDirectory,
          outputDirectory,
          limits: { cpus: 1, memoryBytes: 65_536, diskBytes: 0, durationMs: 10_000, logBytes: 0, processes: 1 },
          randomSeed: new Uint8Array(32),
          clockStartMs: 0,
        },
        signal,
      );
      const exit = await run.exit;
      if (exit.reason !== 'exited') throw new MoltError('runtime/unavailable', exit.detail);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }

  async #prepareFences(): Promise<Fences> {
    this.#fences ??= prepareFences(this.#directory);
    return this.#fences;
  }

  async prepare(image: Image, onProgress: (progress: PrepareProgress) => void, signal: AbortSignal): Promise<void> {
    const module = await this.#prepared(image, onProgress, signal);
    await orAborted(this.#pool.warm(module), signal);
  }

  /** The metered module, made when it is not there. */
  async #prepared(
    image: Image,
    onProgress: (progress: PrepareProgress) => void,
    signal: AbortSignal,
  ): Promise<PreparedModule> {
    const module = this.#module(image);
    const path = join(this.#modules, `${module.digest}.v${METER_VERSION}.wasm`);
    const prepared = { digest: module.digest, path, baseline: this.#baseline };
    if (await exists(path)) return prepared;
    // Two attempts that need the same module meter it once; each waits under its own signal.
    let work = this.#preparing.get(path);
    if (work === undefined) {
      work = this.#meter(module, prepared, onProgress).finally(() => this.#preparing.delete(path));
      this.#preparing.set(path, work);
    }
    return orAborted(work, signal);
  }

  #module(image: Image): ModuleImage {
    if (image.kind !== 'module' || !/^[0-9a-f]{64}$/.test(image.digest)) {
      throw new MoltError(
        'job/impossible',
        'the wasm runtime runs a module named by its SHA-256; ask for the container runtime to run an image',
        { kind: image.kind },
      );
    }
    if (this.#closed) throw new MoltError('node/stopped', 'the wasm runtime is closed; start the node again');
    return image;
  }

  async #meter(
    module: ModuleImage,
    prepared: PreparedModule,
    onProgress: (progress: PrepareProgress) => void,
  ): Promise<PreparedModule> {
    const sourcePath = await realpath(module.path).catch((error: unknown) => {
      throw new MoltError('job/image-missing', 'the module file does not exist; fetch it first', {}, { cause: error });
    });
    const totalBytes = (await stat(sourcePath)).size;
    if (totalBytes > MODULE_BYTES_MAX) {
      throw new MoltError(
        'job/module-invalid',
        `a module has at most ${MODULE_BYTES_MAX} bytes, this has ${totalBytes}`,
      );
    }
    onProgress({ step: 'metering', doneBytes: 0, totalBytes });
    await mkdir(this.#modules, { recursive: true });
    const slot = await this.#pool.takeEmpty();
    try {
      const meteredPath = join(slot.outputDirectory, 'module.wasm');
      await this.#runMeter(slot, sourcePath, { digest: module.digest, meteredPath });
      await flush(meteredPath);
      await rename(meteredPath, prepared.path);
    } catch (error) {
      await slot.close();
      throw hasCode(error) || !isDiskFull(error) ? error : diskFull(this.#modules, error);
    }
    // The process has compiled the module on the way: it is the one to run it first.
    this.#pool.keep(module.digest, Promise.resolve(slot));
    await this.#evict(prepared.path);
    onProgress({ step: 'metering', doneBytes: totalBytes, totalBytes });
    return prepared;
  }

  async #runMeter(
    slot: Slot,
    modulePath: string,
    { digest, meteredPath }: { digest: string; meteredPath: string },
  ): Promise<void> {
    const sourcePath = await slot.show(modulePath, 'source.wasm');
    const task = { task: 'meter', sourcePath, digest, meteredPath, baseline: this.#baseline } as const;
    try {
      await this.#pool.within(slot, METER_MS_MAX, slot.load(task));
    } catch (error) {
      if (!(error instanceof MoltError) || error.code !== 'runtime/engine-failed') throw error;
      const what = 'the module could not be metered: it takes too much memory or time';
      throw new MoltError('job/module-invalid', `${what} (${error.message})`, { digest });
    }
  }

  /** Keeps the cache within its bound. */
  async #evict(keep: string): Promise<void> {
    const files = await Promise.all(
      (await readdir(this.#modules))
        .filter((name) => name.endsWith('.wasm'))
        .map(async (name) => {
          const path = join(this.#modules, name);
          const { size, mtimeMs } = await stat(path);
          return { path, size, mtimeMs };
        }),
    );
    let bytes = files.reduce((sum, { size }) => sum + size, 0);
    for (const { path, size } of files.sort((a, b) => a.mtimeMs - b.mtimeMs)) {
      if (bytes <= CACHE_BYTES_MAX) return;
      if (path === keep) continue;
      await rm(path, { force: true });
      bytes -= size;
    }
  }

  async start(request: RunRequest, signal: AbortSignal): Promise<Run> {
    checkRequest(request, []);
    if ((request.gpus ?? []).length > 0) {
      throw new MoltError('job/impossible', 'the run cannot be started: a wasm job has no GPU; use a container');
    }
    if (request.workdir !== undefined) {
      throw new MoltError(
        'job/impossible',
        'a wasm guest has no working directory; use absolute paths under /in and /out',
      );
    }
    if (this.#runs.has(request.attemptId)) {
      throw new MoltError('job/impossible', `attempt ${request.attemptId} runs already; each attempt starts once`);
    }
    const module = await this.#prepared(request.image, () => undefined, signal);
    // A process that waited may have died unseen a moment ago; nothing of the job has happened in it.
    const run = await this.#startIn(module, request, signal).catch((error: unknown) => {
      if (!hasCode(error, 'runtime/engine-failed')) throw error;
      return this.#startIn(module, request, signal);
    });
    this.#pool.warmNext(module);
    this.#runs.set(request.attemptId, run);
    void run.exit.then(() => {
      if (this.#runs.get(request.attemptId) === run) this.#runs.delete(request.attemptId);
    });
    return run;
  }

  async #startIn(module: PreparedModule, request: RunRequest, signal: AbortSignal): Promise<WasmRun> {
    const taking = this.#pool.take(module);
    const slot = await orAborted(taking, signal).catch(async (error: unknown) => {
      await taking.then(
        async (late) => late.close(),
        () => undefined,
      );
      throw error;
    });
    return WasmRun.start(this.#env, request, slot, signal);
  }

  checkGpu(): Promise<string | undefined> {
    return Promise.resolve('a wasm job has no GPU; it takes a container');
  }

  /** The sandbox process dies with the node, so there is never anything to take up. */
  async adopt(_attemptId: string): Promise<undefined> {
    return undefined;
  }

  async remove(attemptId: string): Promise<void> {
    const run = this.#runs.get(attemptId);
    await run?.stop(0);
    run?.release();
  }

  async list(): Promise<string[]> {
    return [...this.#runs.keys()];
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#runs.keys()].map((attemptId) => this.remove(attemptId)));
    await Promise.allSettled(this.#preparing.values());
    await this.#pool.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

async function flush(path: string): Promise<void> {
  await using file = await open(path, 'r');
  await file.sync();
}

function isDiskFull(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOSPC';
}

function diskFull(directory: string, cause: unknown): MoltError {
  return new MoltError(
    'job/disk-full',
    `no space is left in ${directory}; free some and start the job again`,
    {},
    { cause },
  );
}

export function cancelled(signal: AbortSignal): MoltError {
  return new MoltError('job/cancelled', 'the start of the job was cancelled', {}, { cause: signal.reason });
}

async function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) throw cancelled(signal);
  return new Promise<T>((resolve, reject) => {
    const abort = (): void => reject(cancelled(signal));
    signal.addEventListener('abort', abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
