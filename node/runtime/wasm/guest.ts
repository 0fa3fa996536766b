/**
 * The guest's thread: takes a compiled module and a task, runs it to its end and says how it ended.
 *
 * A thread of its own, because the main thread of the sandbox process must stay able to answer the node and to notice
 * that the node is gone while the guest computes. Its native stack is larger than what the meter lets a guest use. Nothing of the host's state is reachable from the guest but what system.ts imports into it.
 */
import { rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { Fd, WASIProcExit, wasi } from '@bjorn3/browser_wasi_shim';
import { systemClock } from '../../../protocol/env.ts';
import { type ErrorCode, MoltError } from '../../../protocol/errors.ts';
import type { ExitReason, LogStream } from '../runtime.ts';
import { EVENT_FD, FRAME_BYTES_MAX, type GuestResult, LOG_FD, type RunTask, STREAM_NUMBER, VITAL } from './channel.ts';
import { openInMemory, openReadOnly, SCRATCH_NAME, type Transfer, WritableFiles } from './files.ts';
import { FUEL_EXPORT, PAGES_EXPORT, REFUSED_EXPORT, STACK_EXPORT } from './body-writer.ts';
import { PAGE_BYTES } from './meter.ts';
import { GuestSystem, OutOfFuel } from './system.ts';

export type GuestMessage =
  | { readonly kind: 'ready' }
  | { readonly kind: 'ended'; readonly result: GuestResult }
  | { readonly kind: 'failed'; readonly code: ErrorCode; readonly message: string };

export interface GuestData {
  /** Cells of `VITAL`. */
  readonly vitals: BigInt64Array;
}

/** A metered module, compiled. */
export interface GuestModule {
  readonly module: WebAssembly.Module;
  /** Pages of memory that it starts with. */
  readonly pages: number;
}

/** The one message the thread gets. */
export interface GuestJob {
  readonly task: RunTask;
  readonly loaded: GuestModule;
}

/** stdin: at its end from the start. */
class EmptyInput extends Fd {
  override fd_read(): { ret: number; data: Uint8Array } {
    return { ret: wasi.ERRNO_SUCCESS, data: new Uint8Array() };
  }
  override fd_fdstat_get(): { ret: number; fdstat: wasi.Fdstat } {
    return { ret: wasi.ERRNO_SUCCESS, fdstat: new wasi.Fdstat(wasi.FILETYPE_CHARACTER_DEVICE, 0) };
  }
}

/** stdout and stderr share one pipe and one cap; what exceeds the cap is dropped and said once. */
class OutputPipe {
  readonly #transfer: Transfer;
  #left: number;

  constructor(bytesMax: number, transfer: Transfer) {
    this.#left = bytesMax;
    this.#transfer = transfer;
  }

  write(stream: LogStream, bytes: Uint8Array): void {
    this.#transfer.bytes += bytes.length;
    if (this.#left < 0) return;
    const kept = bytes.subarray(0, this.#left);
    for (let at = 0; at < kept.length; at += FRAME_BYTES_MAX)
      this.#frame(stream, kept.subarray(at, at + FRAME_BYTES_MAX));
    this.#left -= bytes.length;
    if (this.#left < 0)
      this.#frame('stderr', Buffer.from('\nmolt: the output limit is reached, the rest is dropped\n'));
  }

  #frame(stream: LogStream, bytes: Uint8Array): void {
    const frame = Buffer.alloc(5 + bytes.length);
    frame.writeUInt8(STREAM_NUMBER[stream], 0);
    frame.writeUInt32LE(bytes.length, 1);
    frame.set(bytes, 5);
    for (let written = 0; written < frame.length;) written += writeSync(LOG_FD, frame, written);
  }
}

class Console extends Fd {
  readonly #pipe: OutputPipe;
  readonly #stream: LogStream;

  constructor(pipe: OutputPipe, stream: LogStream) {
    super();
    this.#pipe = pipe;
    this.#stream = stream;
  }

  override fd_write(data: Uint8Array): { ret: number; nwritten: number } {
    this.#pipe.write(this.#stream, data);
    return { ret: wasi.ERRNO_SUCCESS, nwritten: data.length };
  }

  override fd_fdstat_get(): { ret: number; fdstat: wasi.Fdstat } {
    const fdstat = new wasi.Fdstat(wasi.FILETYPE_CHARACTER_DEVICE, 0);
    fdstat.fs_rights_base = BigInt(wasi.RIGHTS_FD_WRITE);
    return { ret: wasi.ERRNO_SUCCESS, fdstat };
  }

  override fd_filestat_get(): { ret: number; filestat: wasi.Filestat } {
    return { ret: wasi.ERRNO_SUCCESS, filestat: new wasi.Filestat(0n, wasi.FILETYPE_CHARACTER_DEVICE, 0n) };
  }
}

function checkMemory(task: RunTask, pages: number): void {
  if (pages * PAGE_BYTES <= task.memoryBytes) return;
  throw new MoltError(
    'job/out-of-memory',
    `the module starts with ${pages * PAGE_BYTES} bytes of memory, the job asked for ${task.memoryBytes}; ask for more`,
    { neededBytes: pages * PAGE_BYTES, memoryBytes: task.memoryBytes },
  );
}

interface Guest {
  readonly system: GuestSystem;
  readonly files: WritableFiles;
  readonly start: () => void;
  readonly refusedGrows: () => number;
  readonly stackIsOut: () => boolean;
  /** Writes the vitals. */
  readonly observe: () => void;
}

function prepareGuest({ task, loaded }: GuestJob, vitals: BigInt64Array): Guest {
  checkMemory(task, loaded.pages);
  const transfer: Transfer = { bytes: 0 };
  const pipe = new OutputPipe(task.logBytes, transfer);
  const files = new WritableFiles(join(task.outputDirectory, SCRATCH_NAME), task.diskBytes, transfer);
  const descriptors: Fd[] = [
    new EmptyInput(),
    new Console(pipe, 'stdout'),
    new Console(pipe, 'stderr'),
    openReadOnly('/in', task.inputDirectory, transfer),
    files.preopen('/out'),
    files.preopen('/tmp'),
  ];
  const secrets = Object.entries(task.secrets).map(([name, text]) => [name, Buffer.from(text, 'base64')] as const);
  if (secrets.length > 0) descriptors.push(openInMemory('/secrets', new Map(secrets)));
  let memory: WebAssembly.Memory | undefined;
  const observe = (): void => {
    vitals[VITAL.fuelBurnt] = system.fuelBurnt;
    vitals[VITAL.memoryBytes] = BigInt(memory?.buffer.byteLength ?? 0);
  };
  const system = new GuestSystem({
    command: task.command,
    environment: task.environment,
    descriptors,
    transfer,
    randomSeed: Buffer.from(task.randomSeed, 'hex'),
    clockStartMs: task.clockStartMs,
    onCall: observe,
  });
  const instance = new WebAssembly.Instance(loaded.module, { wasi_snapshot_preview1: system.imports() });
  const exports = instance.exports;
  memory = exports['memory'] as WebAssembly.Memory;
  const start = exports['_start'] as () => void;
  system.attach({ memory, fuel: exports[FUEL_EXPORT] as WebAssembly.Global, start }, BigInt(task.fuel));
  const global = (name: string): WebAssembly.Global => exports[name] as WebAssembly.Global;
  global(PAGES_EXPORT).value = Math.min(65_536, Math.floor(task.memoryBytes / PAGE_BYTES));
  return {
    system,
    files,
    start,
    refusedGrows: () => global(REFUSED_EXPORT).value as number,
    stackIsOut: () => (global(STACK_EXPORT).value as number) < 0,
    observe,
  };
}

/** Why `_start` threw. */
function judge(error: unknown, guest: Guest): Omit<GuestResult, 'durationMs'> {
  if (error instanceof WASIProcExit)
    return { reason: 'exited', exitCode: error.code, detail: `exit code ${error.code}` };
  const ended = (reason: ExitReason, detail: string): Omit<GuestResult, 'durationMs'> => ({ reason, detail });
  if (error instanceof OutOfFuel || guest.system.fuelIsOut) {
    return ended('out-of-fuel', 'the guest executed more instructions than its fuel allows; give it more fuel');
  }
  const text = error instanceof Error ? error.message : String(error);
  if (guest.stackIsOut() || (error instanceof RangeError && text.includes('call stack'))) {
    return ended(
      'stack-overflow',
      'the guest recursed deeper than its stack; recurse less or build with a larger stack',
    );
  }
  if (guest.refusedGrows() > 0) {
    return ended('out-of-memory', `the guest was refused more memory and then trapped (${text}); ask for more memory`);
  }
  const place = error instanceof Error ? /wasm-function\[\d+\][^)]*/.exec(error.stack ?? '')?.[0] : undefined;
  return ended('crashed', `the guest trapped: ${text}${place === undefined ? '' : ` in ${place}`}`);
}

function run(guest: Guest): GuestResult {
  const begun = systemClock.monotonic();
  let outcome: Omit<GuestResult, 'durationMs'>;
  try {
    guest.start();
    outcome = { reason: 'exited', exitCode: 0, detail: 'exit code 0' };
  } catch (error) {
    outcome = judge(error, guest);
  }
  const durationMs = systemClock.monotonic() - begun;
  guest.observe();
  const failed = outcome.exitCode !== 0;
  if (failed && guest.files.refused) {
    const detail = `the guest failed (${outcome.detail}) after its disk limit refused a write; ask for more disk`;
    outcome = { reason: 'output-too-large', detail };
  } else if (failed && outcome.reason === 'exited' && guest.refusedGrows() > 0) {
    outcome = { ...outcome, detail: `${outcome.detail}, after the guest was refused more memory` };
  }
  return { ...outcome, durationMs };
}

function collect(guest: Guest, task: RunTask, result: GuestResult): GuestResult {
  try {
    guest.files.collect('/out', task.outputDirectory);
    return result;
  } catch (error) {
    if (!(error instanceof MoltError)) throw error;
    const { exitCode: _, ...rest } = result;
    return { ...rest, reason: 'output-too-large', detail: error.message };
  }
}

function failure(error: unknown): GuestMessage {
  if (error instanceof MoltError) return { kind: 'failed', code: error.code, message: error.message };
  const text = error instanceof Error ? error.message : String(error);
  if (error instanceof WebAssembly.LinkError || error instanceof TypeError) {
    return {
      kind: 'failed',
      code: 'job/module-invalid',
      message: `the WebAssembly engine refuses the module: ${text}`,
    };
  }
  if (error instanceof WebAssembly.RuntimeError) {
    return {
      kind: 'failed',
      code: 'job/module-invalid',
      message: `the module's data does not fit its memory: ${text}`,
    };
  }
  return { kind: 'failed', code: 'runtime/engine-failed', message: `the wasm sandbox failed: ${text}` };
}

function main(job: GuestJob, vitals: BigInt64Array): GuestMessage {
  let guest: Guest;
  try {
    guest = prepareGuest(job, vitals);
  } catch (error) {
    rmSync(join(job.task.outputDirectory, SCRATCH_NAME), { recursive: true, force: true });
    return failure(error);
  }
  // Written here and not by the main thread: what follows is the guest's first instruction.
  writeSync(EVENT_FD, `${JSON.stringify({ event: 'started' })}\n`);
  const result = run(guest);
  return { kind: 'ended', result: collect(guest, job.task, result) };
}

// Outside of a thread the file is only being loaded to be compiled (child.ts).
const port = parentPort;
if (port !== null) {
  const { vitals } = workerData as GuestData;
  port.once('message', (job: GuestJob) => port.postMessage(main(job, vitals)));
  port.postMessage({ kind: 'ready' } satisfies GuestMessage);
}
