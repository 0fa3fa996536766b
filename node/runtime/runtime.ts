/**
 * The Runtime port: how the provider loop starts, watches and ends the program of a job, whatever executes it.
 *
 * Contract (held by test/contract/runtime.ts on every implementation):
 * - A job sees `/in` read-only, `/out` writable within `diskBytes`, `/secrets` read-only when it has any, and no network
 *   but what `egress` and `services` name.
 * - `start` resolves when the job's first instruction is about to execute; what fails before that rejects with a
 *   `MoltError`, what fails after that is a `RunExit`. `Run.exit` never rejects.
 * - When `exit` has resolved, `outputDirectory` holds regular files and directories only, none outside of it.
 * - Nothing of an attempt survives `remove`, and `remove` may be called at any time and more than once.
 */
import type { Duplex } from 'node:stream';

import type { Feature } from '../../protocol/messages.ts';
import type { UsageSample } from '../../protocol/usage.ts';
import type { GpuDevice } from '../gpu/index.ts';

/** What can execute the job: a WebAssembly file on this machine, or a container image pinned by digest. */
export type ModuleImage = {
  readonly kind: 'module';
  /** Host path of the WebAssembly file. */
  readonly path: string;
  /** SHA-256 of the file, 64 lower-case hex digits. */
  readonly digest: string;
};
export type ContainerImage = {
  readonly kind: 'image';
  /** `name@sha256:<64 hex digits>`; a tag is resolved by the buyer before bidding. */
  readonly reference: string;
  /** For a registry that asks. Never logged, never in an error. */
  readonly credentials?: RegistryCredentials;
};
export interface RegistryCredentials {
  readonly username: string;
  readonly password: string;
}
export type Image = ModuleImage | ContainerImage;

export interface RunLimits {
  /** CPU cores, may be a fraction. */
  readonly cpus: number;
  /** Memory of the job in bytes. For wasm: the guest's linear memory. */
  readonly memoryBytes: number;
  /** Bytes the job may have written in `/out` (and, for wasm, `/tmp`) at any moment. */
  readonly diskBytes: number;
  /** Wall time from the first instruction to the kill, in ms. */
  readonly durationMs: number;
  /** Instructions the guest may execute; wasm only, unlimited when absent. */
  readonly fuel?: bigint;
  /** Bytes of stdout and stderr together that are passed on; what follows is dropped and the cut is marked. */
  readonly logBytes: number;
  /** Processes and threads at the same time. A wasm guest has one. */
  readonly processes: number;
}

export interface RunRequest {
  /** `[A-Za-z0-9_-]{1,64}`; names the attempt in labels and directories. */
  readonly attemptId: string;
  readonly image: Image;
  /** Arguments of the program, the program's own name first. Empty: what the image declares. */
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  /** Absolute path inside the container. A wasm guest has no working directory: `start` refuses one. */
  readonly workdir?: string;
  /** Host directory whose regular files the job sees under `/in`. Links in it are not followed. */
  readonly inputDirectory: string;
  /** Host directory that receives what the job left in `/out`. Exists and is empty. */
  readonly outputDirectory: string;
  /** False for a job that declared no outputs: a container's `/out` is then not read back, which saves time at its end. */
  readonly collects?: boolean;
  /** Files under `/secrets`, by name; none: no such directory. They never touch a disk. */
  readonly secrets?: Readonly<Record<string, Uint8Array>>;
  /** `host:port` and `*.suffix:port` that the job may connect to. None: no network. */
  readonly egress?: readonly string[];
  /** TCP ports on which the job will listen; they are reached through `Run.connect` and from nowhere else. */
  readonly services?: readonly number[];
  /** True: only a sandbox stronger than a container on the host's kernel will do. */
  readonly sandbox?: boolean;
  /** Devices of the job by the ids of detection, already allocated. */
  readonly gpus?: readonly string[];
  readonly limits: RunLimits;
  /** Seed of everything random the wasm guest can see, 32 bytes. Containers use the kernel's randomness. */
  readonly randomSeed: Uint8Array;
  /** Unix ms at which the wasm guest's clock starts. Containers see the host's clock. */
  readonly clockStartMs: number;
}

export type LogStream = 'stdout' | 'stderr';
export interface LogChunk {
  readonly stream: LogStream;
  readonly bytes: Uint8Array;
  /** Unix ms at which the chunk was received. */
  readonly atMs: number;
}

/** Why a run ended. Only `exited` carries the program's own verdict; `engine-failed` is never the job's fault. */
export type ExitReason =
  | 'exited'
  | 'signalled'
  | 'out-of-memory'
  | 'out-of-fuel'
  | 'stack-overflow'
  | 'timed-out'
  | 'cancelled'
  | 'output-too-large'
  | 'crashed'
  | 'engine-failed'
  /** Stopped because a health check was missed too long; said by the provider's loop, never by a runtime. */
  | 'never-ready';

export interface RunExit {
  readonly reason: ExitReason;
  /** What the program returned, when it returned. */
  readonly exitCode: number | undefined;
  /** The signal that ended it, for `signalled`. */
  readonly signal?: string;
  /** Unix ms. */
  readonly startedAtMs: number;
  readonly finishedAtMs: number;
  /** First instruction to exit, measured on a monotonic clock (or by the engine): what is billed. */
  readonly durationMs: number;
  /** Fuel burnt. Identical for identical runs that were not stopped from outside; the last known value otherwise. */
  readonly fuel?: bigint;
  readonly cpuMs: number;
  readonly memoryPeakBytes: number;
  /** One sentence for people: what happened and what to do about it. */
  readonly detail: string;
}

/** Figures of what this runtime has none of. */
export const NO_DEVICES = {
  networkRxBytes: 0,
  networkTxBytes: 0,
  blockReadBytes: 0,
  blockWriteBytes: 0,
  gpuPercent: 0,
  gpuMemoryBytes: 0,
} as const;

export interface RunUsage extends Omit<UsageSample, 'elapsedMs'> {
  readonly memoryPeakBytes: number;
  /** Fuel burnt up to the guest's last call into the system; wasm only. */
  readonly fuel?: bigint;
}

export interface Run {
  /** Unix ms of the first instruction. */
  readonly startedAtMs: number;
  /**
   * Output as it appears, for one reader. Back-pressured: a job whose output nobody reads waits once the pipe is full.
   * Ends when the job has ended. Leaving the loop early drops the rest and lets the job go on.
   */
  readonly logs: AsyncIterable<LogChunk>;
  /** Rejects with `runtime/engine-failed` when the engine does not answer; after the exit it gives the final figures. */
  usage(): Promise<RunUsage>;
  readonly exit: Promise<RunExit>;
  /**
   * A connection to a service of the job. Throws `job/impossible` for a port that the request does not name,
   * `mesh/unreachable` while nothing listens there.
   */
  connect(port: number, signal: AbortSignal): Promise<Duplex>;
  /** Asks the job to end (SIGTERM), kills it after `graceMs`, and resolves after the exit. Idempotent. */
  stop(graceMs: number): Promise<void>;
}

/** What a runtime offers on this machine, found by trying it. */
export interface Capability {
  readonly available: boolean;
  /** Why not, and what to do, when not available. */
  readonly reason?: string;
  /** What this runtime can do here beyond running a job. */
  readonly features: readonly Feature[];
  /** Engine, version, cgroup version and the like; goes into offers and `--json` output. */
  readonly details: Readonly<Record<string, string | number | boolean>>;
  /** Limits and isolation that are enforced here, one sentence each. */
  readonly guarantees: readonly string[];
  /** What this runtime cannot enforce on this machine, one sentence each. */
  readonly gaps: readonly string[];
}

export interface PrepareProgress {
  /** `checking` and `metering` for modules; `pulling` and `extracting` for images. */
  readonly step: 'checking' | 'metering' | 'pulling' | 'extracting';
  readonly doneBytes: number;
  /** 0 when not known. */
  readonly totalBytes: number;
  /** Of an image, as far as they are known by now. */
  readonly doneLayers?: number;
  readonly totalLayers?: number;
}

export interface Runtime extends AsyncDisposable {
  readonly kind: 'wasm' | 'container';
  /** Tries the engine out. Never rejects for an absent engine: that is `available: false`. */
  probe(signal: AbortSignal): Promise<Capability>;
  /**
   * Makes the image ready, so that `start` does not wait for the network. Idempotent; `start` calls it when it must.
   * Throws `job/image-missing`, `job/image-denied`, `job/module-invalid`, `runtime/engine-failed`, `job/disk-full`.
   */
  prepare(image: Image, onProgress: (progress: PrepareProgress) => void, signal: AbortSignal): Promise<void>;
  /** Throws what `prepare` throws, and `job/impossible`, `job/out-of-memory`, `job/cancelled`, `job/failed`. */
  start(run: RunRequest, signal: AbortSignal): Promise<Run>;
  /**
   * Takes up a run that outlived the node process, or ended meanwhile; `undefined` when there is none (or none can be:
   * wasm). Its logs start after `logsSinceMs`, Unix ms, by default at the beginning of what the engine kept.
   */
  adopt(attemptId: string, logsSinceMs?: number): Promise<Run | undefined>;
  /**
   * Whether a job here that is given the device sees exactly it, found by trying: undefined when it does, else why not. Only
   * devices for which it did can be in a request.
   */
  checkGpu(device: GpuDevice, signal: AbortSignal): Promise<string | undefined>;
  /** Ends and deletes everything of the attempt. Idempotent. */
  remove(attemptId: string): Promise<void>;
  /** Attempts of which something is left on this machine. */
  list(): Promise<string[]>;
  /** Ends the wasm runs of this process and closes connections; containers go on. Idempotent. */
  close(): Promise<void>;
}
