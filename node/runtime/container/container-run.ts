/**
 * One run of a container: its output, its end, its outputs.
 *
 * The end is found by asking: a blocking `wait` makes it prompt, but an engine that dies in mid-wait leaves that call
 * hanging, so a poll decides. While the engine is away the run goes on; only an engine that stays away ends it.
 */
import { mkdir, readdir, rm } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import type { Duplex, Readable } from 'node:stream';
import type { Container, ContainerInspectInfo } from 'dockerode';
import type { Env } from '../../../protocol/env.ts';
import { hasCode, MoltError } from '../../../protocol/errors.ts';
import { type ExitReason, type LogChunk, NO_DEVICES, type Run, type RunExit, type RunUsage } from '../runtime.ts';
import { unpackTree } from './archive.ts';
import { ControlGroup } from './control-group.ts';
import { usageOf } from './statistics.ts';
import { engineCall, engineFailed, isMissing } from './engine.ts';
import { afterMark } from './entry.ts';
import { type Frame, readFrames } from './frames.ts';
import { wasKilledForMemory } from './kernel-log.ts';
import type { JobNetwork, NetworkTerms } from './network.ts';

const SIGNALS_MAX = 64;
/** How often, and how far apart, a kill of unknown origin is looked at again. */
const LATE_FLAG_LOOKS = 5;
const LATE_FLAG_MS = 100;
const COLLECT_TRIES = 5;
const POLL_MS = 500;
/** The kernel's counters are read when a run has become longer by one part in so many, and not more often than this. */
const GROUP_READS = 20;
const GROUP_READ_MS_MIN = 10;
/** A run whose engine is away for longer is given up. */
const ENGINE_AWAY_MS_MAX = 120_000;
const NO_TRAFFIC = { receivedBytes: 0, sentBytes: 0 };
const CUT_MARK = '\nmolt: the output limit is reached, the rest is dropped\n';

/** What of the request must survive a restart of the node; kept as a label of the container. */
export interface RunTerms {
  readonly outputDirectory: string;
  readonly durationMs: number;
  readonly diskBytes: number;
  readonly logBytes: number;
  /** `/out` lies in the container's writable layer and is watched instead of limited. */
  readonly watchDisk: boolean;
  /** What the job left in `/out` is wanted. */
  readonly collects: boolean;
  /** Absent: the job has no network. */
  readonly network?: NetworkTerms | undefined;
}

export interface ContainerRunOptions {
  readonly container: Container;
  /** The same container through the client that waits for ever. */
  readonly streams: Container;
  readonly terms: RunTerms;
  readonly startedAtMs: number;
  /** Output from before the start; without it the engine's log is read. */
  readonly attached?: AsyncIterable<Frame>;
  /** The engine's log begins with the mark of a pooled container, which is not the job's. */
  readonly marked?: boolean;
  /** With the engine's log: only what is later than this, Unix ms. */
  readonly logsSinceMs: number;
  /** First process, as this machine numbers it; 0 or absent when it is not known. */
  readonly pid?: number;
  /** Resolves when the engine says that the container stopped; may hang or reject. */
  readonly waiting: Promise<unknown>;
  /** Closed when the run has ended. */
  readonly network?: JobNetwork;
}

type Ending = Extract<ExitReason, 'timed-out' | 'cancelled' | 'output-too-large'>;
/** With `size`, the engine adds the size of the writable layer, which the type declarations do not know. */
type Inspection = ContainerInspectInfo & { readonly SizeRw?: number };
type Verdict = Pick<RunExit, 'reason' | 'exitCode' | 'signal' | 'detail'>;

/** Exit code of SIGKILL. */
const KILLED = 137;
/** What an engine that was restarted reports of a container that it does not find, beside the codes of signals. */
const LOST = 255;

/**
 * True for an end that may have been the engine's or the machine's doing: a signal, or the code of a lost container, and
 * no memory limit that explains it. It counts as such only where nobody watched.
 */
export function isEndOfUnknownCause({ Running, ExitCode, OOMKilled }: ContainerInspectInfo['State']): boolean {
  return !Running && !OOMKilled && (ExitCode === LOST || (ExitCode > 128 && ExitCode <= 128 + SIGNALS_MAX));
}

export class ContainerRun implements Run {
  readonly #env: Env;
  readonly #container: Container;
  readonly #streams: Container;
  readonly #terms: RunTerms;
  readonly #waiting: Promise<unknown>;
  readonly #marked: boolean;
  readonly #network: JobNetwork | undefined;
  readonly #deadline: number;
  readonly #over = new AbortController();
  #ending: Ending | undefined;
  /** The engine was away for a moment: it may have ended the job itself. */
  #engineWasAway = false;
  #usage: RunUsage = { ...NO_DEVICES, cpuMs: 0, memoryBytes: 0, memoryPeakBytes: 0 };
  readonly startedAtMs: number;
  readonly logs: AsyncIterable<LogChunk>;
  readonly exit: Promise<RunExit>;

  constructor(env: Env, options: ContainerRunOptions) {
    this.#env = env;
    this.#container = options.container;
    this.#streams = options.streams;
    this.#terms = options.terms;
    this.#network = options.network;
    this.startedAtMs = options.startedAtMs;
    this.#waiting = options.waiting.then(
      () => undefined,
      () => undefined,
    );
    const ranMs = Math.max(0, env.clock.now() - options.startedAtMs);
    this.#deadline = env.clock.monotonic() + options.terms.durationMs - ranMs;
    this.#marked = options.marked ?? false;
    this.logs = this.#readLogs(options.attached, options.logsSinceMs);
    this.exit = this.#finish();
    void this.#watchGroup(options.pid ?? 0);
  }

  /** Reads what the kernel counts while it still does: what is missing in the end is at most a part of the run. */
  async #watchGroup(pid: number): Promise<void> {
    const { clock } = this.#env;
    const beganMs = clock.monotonic();
    const group = await ControlGroup.of(pid, this.#container.id);
    for (let counted = group?.read(); counted !== undefined; counted = group?.read()) {
      const { cpuMs, memoryPeakBytes } = this.#usage;
      this.#usage = {
        ...this.#usage,
        cpuMs: Math.max(cpuMs, counted.cpuMs),
        memoryPeakBytes: Math.max(memoryPeakBytes, counted.memoryPeakBytes),
      };
      const pauseMs = (clock.monotonic() - beganMs) / GROUP_READS;
      await clock
        .sleep(Math.min(Math.max(pauseMs, GROUP_READ_MS_MIN), POLL_MS), this.#over.signal)
        .catch(() => undefined);
      if (this.#over.signal.aborted) return;
    }
  }

  async #finish(): Promise<RunExit> {
    const ended = await this.#untilStopped();
    this.#over.abort();
    await this.#network?.[Symbol.asyncDispose]();
    if (ended === undefined) {
      const finishedAtMs = this.#env.clock.now();
      return this.#exitOf(
        { reason: 'engine-failed', exitCode: undefined, detail: 'the container or its engine went away in mid-run' },
        finishedAtMs,
      );
    }
    // The engine keeps nanoseconds, we keep milliseconds: a very short run must not end before it began.
    const finishedAtMs = Math.max(Date.parse(ended.State.FinishedAt), this.startedAtMs);
    let verdict = this.#verdict(await this.#withLateFlag(ended));
    try {
      if (verdict.reason !== 'engine-failed') await this.#collect();
    } catch (error) {
      await emptyDirectory(this.#terms.outputDirectory);
      const reason = hasCode(error, 'job/output-too-large') ? 'output-too-large' : 'engine-failed';
      const detail = error instanceof Error ? error.message : String(error);
      verdict = { reason, exitCode: undefined, detail };
    }
    return this.#exitOf(verdict, finishedAtMs);
  }

  /**
   * The engine may learn of the exit before it learns that memory was the cause, and one that is shutting down answers
   * for a moment after it ended its containers: an end of unknown origin is looked at again.
   */
  async #withLateFlag(ended: ContainerInspectInfo): Promise<ContainerInspectInfo> {
    let info = ended;
    for (let look = 0; look < LATE_FLAG_LOOKS; look++) {
      if (this.#ending !== undefined || !isEndOfUnknownCause(info.State)) return info;
      await this.#env.clock.sleep(LATE_FLAG_MS);
      try {
        info = await this.#inspect();
      } catch {
        this.#engineWasAway = true;
        return info;
      }
    }
    return info;
  }

  #exitOf(verdict: Verdict, finishedAtMs: number): RunExit {
    const { startedAtMs } = this;
    const { cpuMs, memoryPeakBytes } = this.#usage;
    const durationMs = Math.max(0, finishedAtMs - startedAtMs);
    return { ...verdict, startedAtMs, finishedAtMs, durationMs, cpuMs, memoryPeakBytes };
  }

  /** The container's state once it stopped; undefined when it, or its engine, is gone. */
  async #untilStopped(): Promise<ContainerInspectInfo | undefined> {
    const { clock } = this.#env;
    let seenAt = clock.monotonic();
    let prompt: Promise<unknown> = this.#waiting;
    for (;;) {
      const untilDeadline = Math.max(this.#deadline - clock.monotonic(), 0);
      const pause = new AbortController();
      const slept = clock.sleep(Math.min(POLL_MS, untilDeadline + 1), pause.signal).catch(() => undefined);
      const told = prompt.then(() => {
        // Once is enough: after that only the poll can tell.
        prompt = new Promise(() => undefined);
      });
      await Promise.race([told, slept]);
      pause.abort();
      try {
        const info = await this.#inspect();
        seenAt = clock.monotonic();
        if (!info.State.Running && info.State.Status !== 'created') return info;
        await this.#enforce(info);
        await this.#sample();
      } catch (error) {
        if (isMissing(error) || clock.monotonic() - seenAt > ENGINE_AWAY_MS_MAX) return undefined;
        this.#engineWasAway = true;
      }
    }
  }

  async #inspect(): Promise<Inspection> {
    const { watchDisk } = this.#terms;
    return this.#container.inspect(watchDisk ? ({ size: true } as object) : {});
  }

  async #enforce(info: Inspection): Promise<void> {
    if (this.#terms.watchDisk && (info.SizeRw ?? 0) > this.#terms.diskBytes) this.#ending ??= 'output-too-large';
    else if (this.#env.clock.monotonic() >= this.#deadline) this.#ending ??= 'timed-out';
    if (this.#ending !== undefined && this.#ending !== 'cancelled') await this.#container.kill();
  }

  async #sample(): Promise<void> {
    const stats = await this.#container.stats({ stream: false, 'one-shot': true });
    const now = usageOf(stats);
    const last = this.#usage;
    const { receivedBytes: networkRxBytes, sentBytes: networkTxBytes } = this.#network?.traffic() ?? NO_TRAFFIC;
    // Counters of a container that just ended are gone: what was seen last stays.
    this.#usage = {
      ...NO_DEVICES,
      cpuMs: Math.max(last.cpuMs, now.cpuMs),
      memoryBytes: now.memoryBytes,
      memoryPeakBytes: Math.max(last.memoryPeakBytes, now.memoryPeakBytes, now.memoryBytes),
      networkRxBytes,
      networkTxBytes,
      blockReadBytes: Math.max(last.blockReadBytes, now.blockReadBytes),
      blockWriteBytes: Math.max(last.blockWriteBytes, now.blockWriteBytes),
    };
  }

  #verdict({ State }: ContainerInspectInfo): Verdict {
    const { ExitCode, OOMKilled } = State;
    const { durationMs, diskBytes } = this.#terms;
    switch (this.#ending) {
      case 'timed-out':
        return { reason: 'timed-out', exitCode: undefined, detail: `killed at its limit of ${durationMs} ms` };
      case 'output-too-large':
        return {
          reason: 'output-too-large',
          exitCode: undefined,
          detail: `killed for writing more than ${diskBytes} bytes`,
        };
      case 'cancelled':
        return { reason: 'cancelled', exitCode: undefined, detail: 'stopped on request' };
      case undefined:
        break;
    }
    if (this.#engineWasAway && isEndOfUnknownCause(State)) {
      const detail = 'the container engine was restarted and the job did not outlive it; nothing is owed';
      return { reason: 'engine-failed', exitCode: undefined, detail };
    }
    if (ExitCode === KILLED && (OOMKilled || wasKilledForMemory(this.#container.id))) {
      return {
        reason: 'out-of-memory',
        exitCode: undefined,
        detail: 'killed for using more memory than it was leased; ask for more',
      };
    }
    const signal = Object.entries(constants.signals).find(([, number]) => number === ExitCode - 128)?.[0];
    if (signal !== undefined) {
      return { reason: 'signalled', exitCode: ExitCode, signal, detail: `ended by ${signal} (exit code ${ExitCode})` };
    }
    if (ExitCode === 126 || ExitCode === 127) {
      const detail = `exit code ${ExitCode}: the command was not found in the image, or cannot be executed`;
      return { reason: 'exited', exitCode: ExitCode, detail };
    }
    const oom = OOMKilled ? ', after one of its processes was killed for want of memory' : '';
    return { reason: 'exited', exitCode: ExitCode, detail: `exit code ${ExitCode}${oom}` };
  }

  async #collect(): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        await this.#collectOnce();
        return;
      } catch (error) {
        if (!hasCode(error, 'runtime/engine-failed') || tries >= COLLECT_TRIES) throw error;
        await this.#env.clock.sleep(LATE_FLAG_MS);
      }
    }
  }

  async #collectOnce(): Promise<void> {
    const { outputDirectory, diskBytes, collects } = this.#terms;
    // A node that restarts while it collects does so again.
    await emptyDirectory(outputDirectory);
    if (!collects) return;
    const archive = await engineCall('collecting the outputs', () => this.#streams.getArchive({ path: '/out' }));
    try {
      await unpackTree(archive as Readable, outputDirectory, { bytesMax: diskBytes });
    } catch (error) {
      throw error instanceof MoltError ? error : engineFailed('collecting the outputs', error);
    }
  }

  async *#readLogs(
    attached: AsyncIterable<Frame> | undefined,
    sinceMs: number,
  ): AsyncGenerator<LogChunk, void, undefined> {
    let frames = attached;
    let lastMs = sinceMs;
    let left = this.#terms.logBytes;
    let interrupted = false;
    for (;;) {
      try {
        frames ??= await this.#openLog(lastMs);
        for await (const { stream, bytes } of frames) {
          lastMs = this.#env.clock.now();
          if (left < 0) continue;
          const kept = bytes.subarray(0, left);
          left -= bytes.length;
          if (kept.length > 0) yield { stream, bytes: kept, atMs: lastMs };
          if (left < 0) yield { stream: 'stderr', bytes: Buffer.from(CUT_MARK), atMs: lastMs };
        }
        if (!interrupted && !(await this.#container.inspect()).State.Running) return;
        interrupted = false;
      } catch (error) {
        // The engine is away: what it kept is read when it is back, or the run is given up and so is its output.
        if (isMissing(error) || this.#over.signal.aborted) return;
        interrupted = true;
      }
      frames = undefined;
      await this.#env.clock.sleep(POLL_MS, this.#over.signal).catch(() => undefined);
    }
  }

  async #openLog(sinceMs: number): Promise<AsyncIterable<Frame>> {
    const since = sinceMs === 0 ? 0 : (sinceMs + 1) / 1000;
    const log = (await this.#streams.logs({ follow: true, stdout: true, stderr: true, since })) as Readable;
    const frames = readFrames(log);
    return this.#marked && since === 0 ? (await afterMark(frames)).frames : frames;
  }

  async usage(): Promise<RunUsage> {
    if (!this.#over.signal.aborted) {
      await engineCall('reading statistics', () => this.#sample()).catch((error: unknown) => {
        if (!this.#over.signal.aborted) throw error;
      });
    }
    return this.#usage;
  }

  async connect(port: number, signal: AbortSignal): Promise<Duplex> {
    if (this.#network !== undefined) return this.#network.connect(port, signal);
    throw new MoltError('job/impossible', `the job has no service on port ${port}`);
  }

  async stop(graceMs: number): Promise<void> {
    if (!this.#over.signal.aborted) {
      this.#ending ??= 'cancelled';
      const stopping = graceMs > 0 ? this.#container.stop({ t: Math.ceil(graceMs / 1000) }) : this.#container.kill();
      // "Not running" and "gone" are what was asked for; an engine that is away is dealt with by the watching loop.
      await stopping.catch(() => undefined);
    }
    await this.exit;
  }
}

async function emptyDirectory(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  for (const name of await readdir(directory)) await rm(join(directory, name), { recursive: true, force: true });
}
