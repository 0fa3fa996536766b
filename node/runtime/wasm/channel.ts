/**
 * What the node and the sandbox process of a wasm job say to each other, and over which pipe.
 *
 * - fd 0, node → sandbox: JSON lines, `SandboxTask`s (first `meter` or `load`, which leave a compiled module in the process,
 *   then one `run`), then `SandboxCommand`s. Its end means that the node is gone: the sandbox then kills itself,
 *   whatever the guest is doing.
 * - fd 3, sandbox → node: output of the guest in frames of stream (1 or 2), length (u32 little-endian), bytes. The guest's
 *   thread writes them itself and blocks while the pipe is full, which is the back-pressure.
 * - fd 4, sandbox → node: JSON lines, `SandboxEvent`s.
 * - fd 1 and 2: what Node itself has to say when it dies; only the end of it is kept.
 */
import type { ErrorCode } from '../../../protocol/errors.ts';
import type { ExitReason, LogStream } from '../runtime.ts';

export const LOG_FD = 3;
export const EVENT_FD = 4;
/** Argument with which the sandbox process only loads its sources and ends. */
export const WARM_UP = 'warm-up';
/** Largest frame of guest output, header excluded. */
export const FRAME_BYTES_MAX = 65_536;

/** Runs the module that the process holds. */
export interface RunTask {
  readonly task: 'run';
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly inputDirectory: string;
  readonly outputDirectory: string;
  /** Contents of the files under `/secrets`, base64. */
  readonly secrets: Readonly<Record<string, string>>;
  readonly memoryBytes: number;
  readonly diskBytes: number;
  readonly logBytes: number;
  /** Decimal, at most 2^63-1. */
  readonly fuel: string;
  /** 64 hex digits. */
  readonly randomSeed: string;
  readonly clockStartMs: number;
}

/** Checks the digest of a module, meters it, compiles the result and writes it. */
export interface MeterTask {
  readonly task: 'meter';
  readonly sourcePath: string;
  readonly digest: string;
  readonly meteredPath: string;
  /** Never optimise. */
  readonly baseline: boolean;
}

/** Compiles a metered module. */
export interface LoadTask {
  readonly task: 'load';
  readonly modulePath: string;
  readonly baseline: boolean;
}

export type SandboxTask = MeterTask | LoadTask | RunTask;

export type SandboxCommand = { readonly command: 'usage' } | { readonly command: 'stop' };

/** Figures of the run so far. */
export interface SandboxVitals {
  readonly cpuMs: number;
  readonly memoryBytes: number;
  /** Decimal. */
  readonly fuel: string;
}

export interface GuestResult {
  readonly reason: ExitReason;
  readonly exitCode?: number;
  /** Monotonic, first instruction to exit; absent when the guest's thread died and could not tell. */
  readonly durationMs?: number;
  readonly detail: string;
}

export type SandboxEvent =
  /** The process holds a compiled module and its guest's thread is up: a `run` starts at once. */
  | { readonly event: 'loaded' }
  | { readonly event: 'started' }
  | { readonly event: 'usage'; readonly vitals: SandboxVitals }
  | { readonly event: 'stopped'; readonly vitals: SandboxVitals }
  | { readonly event: 'ended'; readonly vitals: SandboxVitals; readonly result: GuestResult }
  | { readonly event: 'failed'; readonly code: ErrorCode; readonly message: string };

export const STREAM_NUMBER: Readonly<Record<LogStream, number>> = { stdout: 1, stderr: 2 };

/** Cells of the shared vitals, a BigInt64Array: written by the guest's thread at each system call. */
export const VITAL = { fuelBurnt: 0, memoryBytes: 1 } as const;
export const VITAL_CELLS = 2;
