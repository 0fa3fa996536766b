/**
 * Main of the sandbox process: compiles one module, runs it once, reports, ends.
 *
 * Started by sandbox.ts under Node's permission model with an empty environment, often before there is a job for it
 * (pool.ts). It reads nothing but its own sources and what the node puts into its slot: the module and the job's
 * inputs. It writes nothing but the job's outputs (or the metered module). When the node closes the command pipe, or
 * dies, the process kills itself at once.
 */
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setFlagsFromString } from 'node:v8';
import { Worker } from 'node:worker_threads';
import { assert, MoltError } from '../../../protocol/errors.ts';
import {
  EVENT_FD,
  type MeterTask,
  type SandboxCommand,
  type SandboxEvent,
  type SandboxTask,
  type SandboxVitals,
  VITAL,
  VITAL_CELLS,
  WARM_UP,
} from './channel.ts';
import type { GuestData, GuestJob, GuestMessage, GuestModule } from './guest.ts';
import { initialPages, meterModule } from './meter.ts';

/**
 * Stack of the guest's thread and heap of its JavaScript side, in MiB. The meter ends recursion at 2^20 slots; a slot takes
 * eight or sixteen bytes of native stack, and a frame some more.
 */
const GUEST_STACK_MIB = 64;
const GUEST_HEAP_MIB = 192;

/** What the process had used before its run: starting Node and compiling are not the job's. */
let begun: NodeJS.CpuUsage = { user: 0, system: 0 };
const vitals = new BigInt64Array(new SharedArrayBuffer(8 * VITAL_CELLS));

function send(event: SandboxEvent): void {
  writeSync(EVENT_FD, `${JSON.stringify(event)}\n`);
}

function readVitals(): SandboxVitals {
  const { user, system } = process.cpuUsage(begun);
  return {
    cpuMs: (user + system) / 1000,
    memoryBytes: Number(vitals[VITAL.memoryBytes]),
    fuel: String(vitals[VITAL.fuelBurnt]),
  };
}

/** SIGKILL, because an orderly exit waits for the guest's thread, which may be computing or blocked in a write. */
function die(): void {
  process.kill(process.pid, 'SIGKILL');
}

/** Below this size a module is compiled by the optimising compiler at once. */
const OPTIMISED_BYTES_MAX = 1 << 20;

/**
 * Compiles a metered module. V8 does not replace a running function, so a hot loop in a small module would stay in the
 * baseline compiler; large interpreters start sooner there. Set here and not on the command line, where it would slow
 * down the compilation of Node's own wasm.
 */
function compile(metered: Uint8Array, baseline: boolean): GuestModule {
  if (baseline) setFlagsFromString('--liftoff-only');
  else if (metered.length < OPTIMISED_BYTES_MAX) setFlagsFromString('--no-liftoff');
  try {
    return { module: new WebAssembly.Module(metered), pages: initialPages(metered) };
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw new MoltError('job/module-invalid', `the WebAssembly engine refuses the module: ${text}`);
  }
}

function meter(task: MeterTask): GuestModule {
  let source: Uint8Array;
  try {
    source = readFileSync(task.sourcePath);
  } catch (error) {
    throw new MoltError('job/image-missing', 'the module file cannot be read', {}, { cause: error });
  }
  const digest = createHash('sha256').update(source).digest('hex');
  if (digest !== task.digest) {
    throw new MoltError(
      'job/image-missing',
      `the module has SHA-256 ${digest}, expected ${task.digest}; fetch it again`,
    );
  }
  const metered = meterModule(source);
  // Compiling validates every function, so that an ill-typed one is the module's fault and not a crash later.
  const guestModule = compile(metered, task.baseline);
  writeFileSync(task.meteredPath, metered, { flag: 'wx', mode: 0o600 });
  return guestModule;
}

/** Next to this very file, with its extension: `.ts` in a checkout, `.js` in the published package. */
const guestEntry = new URL(`./guest${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url);

/** The guest's thread, started at once so that it is there when the job is. */
function startThread(): { readonly worker: Worker; readonly ready: Promise<void> } {
  const data: GuestData = { vitals };
  const worker = new Worker(guestEntry, {
    workerData: data,
    resourceLimits: { stackSizeMb: GUEST_STACK_MIB, maxOldGenerationSizeMb: GUEST_HEAP_MIB },
  });
  const ready = new Promise<void>((resolve) => {
    worker.on('message', (message: GuestMessage) => {
      if (message.kind === 'ready') {
        resolve();
        return;
      }
      if (message.kind === 'ended') send({ event: 'ended', vitals: readVitals(), result: message.result });
      else send({ event: 'failed', code: message.code, message: message.message });
      die();
    });
  });
  worker.on('error', (error: Error & { code?: string }) => {
    if (error.code === 'ERR_WORKER_OUT_OF_MEMORY') {
      const detail = 'the guest keeps more files or tables than the sandbox has room for; use fewer';
      send({ event: 'ended', vitals: readVitals(), result: { reason: 'out-of-memory', detail } });
    } else
      send({ event: 'failed', code: 'runtime/engine-failed', message: `the wasm sandbox failed: ${error.message}` });
    die();
  });
  return { worker, ready };
}

function fail(error: unknown): void {
  const code = error instanceof MoltError ? error.code : 'runtime/engine-failed';
  send({ event: 'failed', code, message: error instanceof Error ? error.message : String(error) });
  die();
}

function obey(command: SandboxCommand): void {
  if (command.command === 'usage') {
    send({ event: 'usage', vitals: readVitals() });
    return;
  }
  send({ event: 'stopped', vitals: readVitals() });
  die();
}

function listen(): void {
  const { worker, ready } = startThread();
  let loaded: GuestModule | undefined;
  const perform = (task: SandboxTask): void => {
    if (task.task === 'run') {
      assert(loaded !== undefined, 'a run follows a loaded module');
      begun = process.cpuUsage();
      worker.postMessage({ task, loaded } satisfies GuestJob);
      return;
    }
    loaded = task.task === 'meter' ? meter(task) : compile(readFileSync(task.modulePath), task.baseline);
    void ready.then(() => send({ event: 'loaded' }));
  };
  const lines = createInterface({ input: process.stdin, crlfDelay: Infinity });
  lines.on('line', (line) => {
    const message = JSON.parse(line) as SandboxTask | SandboxCommand;
    if ('command' in message && typeof message.command === 'string') {
      obey(message);
      return;
    }
    try {
      perform(message);
    } catch (error) {
      fail(error);
    }
  });
  lines.on('close', die);
}

// Loading the sources and ending in good order fills Node's compile cache with them (sandbox.ts).
if (process.argv[2] === WARM_UP) await import(guestEntry.href);
else listen();
