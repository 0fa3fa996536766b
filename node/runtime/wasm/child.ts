/**
 * Main of the sandbox process: takes one task from the node, runs it, reports, ends.
 *
 * Started by sandbox.ts under Node's permission model with an empty environment. It reads nothing but its own sources,
 * the module and the job's inputs, and writes nothing but the job's outputs (or the metered module). When the node
 * closes the command pipe, or dies, the process kills itself at once.
 */
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { Worker } from 'node:worker_threads';
import { MoltError } from '../../../protocol/errors.ts';
import {
  EVENT_FD,
  type MeterTask,
  type RunTask,
  type SandboxCommand,
  type SandboxEvent,
  type SandboxTask,
  type SandboxVitals,
  VITAL,
  VITAL_CELLS,
  WARM_UP,
} from './channel.ts';
import type { GuestData, GuestMessage } from './guest.ts';
import { meterModule } from './meter.ts';

/** Stack of the guest's thread and heap of its JavaScript side, in MiB. */
const GUEST_STACK_MIB = 16;
const GUEST_HEAP_MIB = 192;

const vitals = new BigInt64Array(new SharedArrayBuffer(8 * VITAL_CELLS));

function send(event: SandboxEvent): void {
  writeSync(EVENT_FD, `${JSON.stringify(event)}\n`);
}

function readVitals(): SandboxVitals {
  const { user, system } = process.cpuUsage();
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

function compile(bytes: Uint8Array): WebAssembly.Module {
  return new WebAssembly.Module(bytes);
}

function meter(task: MeterTask): void {
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
  try {
    // Compiling validates every function now, so that an ill-typed one is the module's fault and not a crash later.
    compile(metered);
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw new MoltError('job/module-invalid', `the WebAssembly engine refuses the module: ${text}`);
  }
  writeFileSync(task.meteredPath, metered, { flag: 'wx', mode: 0o600 });
  send({ event: 'metered' });
}

/** Next to this very file, with its extension: `.ts` in a checkout, `.js` in the published package. */
const guestEntry = new URL(`./guest${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url);

function runGuest(task: RunTask): void {
  const data: GuestData = { task, vitals };
  const worker = new Worker(guestEntry, {
    workerData: data,
    resourceLimits: { stackSizeMb: GUEST_STACK_MIB, maxOldGenerationSizeMb: GUEST_HEAP_MIB },
  });
  worker.on('message', (message: GuestMessage) => {
    if (message.kind === 'ended') send({ event: 'ended', vitals: readVitals(), result: message.result });
    else send({ event: 'failed', code: message.code, message: message.message });
    die();
  });
  worker.on('error', (error: Error & { code?: string }) => {
    if (error.code === 'ERR_WORKER_OUT_OF_MEMORY') {
      const detail = 'the guest keeps more files or tables than the sandbox has room for; use fewer';
      send({ event: 'ended', vitals: readVitals(), result: { reason: 'out-of-memory', detail } });
    } else
      send({ event: 'failed', code: 'runtime/engine-failed', message: `the wasm sandbox failed: ${error.message}` });
    die();
  });
}

function perform(task: SandboxTask): void {
  try {
    if (task.task === 'run') {
      runGuest(task);
      return;
    }
    meter(task);
  } catch (error) {
    const code = error instanceof MoltError ? error.code : 'runtime/engine-failed';
    send({ event: 'failed', code, message: error instanceof Error ? error.message : String(error) });
  }
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
  let tasked = false;
  const lines = createInterface({ input: process.stdin, crlfDelay: Infinity });
  lines.on('line', (line) => {
    const message: unknown = JSON.parse(line);
    if (tasked) obey(message as SandboxCommand);
    else {
      tasked = true;
      perform(message as SandboxTask);
    }
  });
  lines.on('close', die);
}

// Loading the sources and ending in good order fills Node's compile cache with them (sandbox.ts).
if (process.argv[2] === WARM_UP) await import(guestEntry.href);
else listen();
