/**
 * What a job does on this machine between the open lease and the proof: fetch, prepare, start, watch, collect.
 *
 * Contract: each step reports through the `Jobs` it is given and never decides what follows. A step that fails reports a
 * typed failure; nothing of a job is left on this machine after `cleanUp`. Everything a job can write is below its own
 * folder, named by lease and attempt.
 */
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';

import { type Transcript, createTranscript } from '../../attestation/index.ts';
import type { Chain } from '../../chain/index.ts';
import type { Network } from '../../market/ports.ts';
import { type Address } from '../../protocol/address.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import type { Env } from '../../protocol/env.ts';
import { type ErrorCode, MoltError, assert } from '../../protocol/errors.ts';
import { type JobSpec, decodeJobSpec, storedInputs } from '../../protocol/job-spec.ts';
import { LIMITS } from '../../protocol/limits.ts';
import type { RuntimeKind } from '../../protocol/messages.ts';
import { JobEvent as WireEvent } from '../../protocol/molt.js';
import { decodeUsage, encodeUsage } from '../../protocol/usage.ts';
import type { Tell } from '../events.ts';
import type { GpuUse } from '../gpu/index.ts';
import type { Journal } from '../journal.ts';
import type { Artifacts } from '../mesh/index.ts';
import type { Image, RegistryCredentials, Run, RunExit, Runtime } from '../runtime/index.ts';
import type { Content } from './content.ts';
import { watchHealth } from './health.ts';
import { proveRun } from './evidence.ts';
import type { Exit, Job } from './job.ts';
import type { EventBody, Jobs } from './jobs.ts';
import { runTermsOf } from './run-terms.ts';
import { WarmImages } from './warm-images.ts';
import { collectOutputs } from './outputs.ts';
import { paceLogs } from './log-pace.ts';

export interface ExecutionOptions {
  readonly key: KeyPair;
  readonly provider: Address;
  readonly chain: Chain;
  readonly network: Network;
  readonly artifacts: Artifacts;
  readonly content: Content;
  readonly runtimes: ReadonlyMap<RuntimeKind, Runtime>;
  readonly journal: Journal;
  readonly directory: string;
  /** What a job's GPUs do now. */
  readonly gpuUse: (ids: readonly string[]) => Promise<GpuUse>;
  readonly tell: Tell;
}

/** What travels beside the specification and is for this provider's memory alone. */
export interface Confidential {
  /** By the names of the specification; each at most LIMITS.secretBytes. */
  readonly secrets: Readonly<Record<string, Uint8Array>>;
  readonly registry?: RegistryCredentials;
}

const NOTHING_CONFIDENTIAL: Confidential = { secrets: {} };

type Step = 'fetch' | 'prepare' | 'start' | 'adopt' | 'collect';

interface Live {
  readonly attempt: number;
  readonly abort: AbortController;
  run?: Run;
  transcript?: Transcript;
  /** Resolves when all output of the run is in the journal. */
  drained?: Promise<void>;
  /** The health check was passed before this node restarted. */
  wasReady?: boolean;
}

const SAMPLE_EVERY_MS = 2_000;
const PROGRESS_EVERY_MS = 250;
const STOP_GRACE_MS = 2_000;
/**
 * Pauses between attempts to remove what an engine that is away holds: the first and the longest. A job's disk and capacity
 * are free again so soon after the engine is back; to ask one that is away costs nothing.
 */
const REMOVE_AGAIN_MS = 1_000;
const REMOVE_MS_MAX = 5_000;
/** A node that closes waits so long for what is being removed; the next one finds the rest. */
const LEAVE_MS_MAX = 4_000;

export class Execution implements AsyncDisposable {
  readonly #env: Env;
  readonly #options: ExecutionOptions;
  readonly #live = new Map<Address, Live>();
  readonly #confidential = new Map<Address, Confidential>();
  readonly #images = new WarmImages();
  readonly #closing = new AbortController();
  /** What of finished jobs is being removed. */
  readonly #leaving = new Set<Promise<void>>();

  constructor(env: Env, options: ExecutionOptions) {
    this.#env = env;
    this.#options = options;
  }

  /** Keeps secrets in memory until the job is over; they are never journaled nor written to a disk. */
  keepConfidential(lease: Address, confidential: Confidential): void {
    this.#confidential.set(lease, confidential);
  }

  /** Modules and images that a new job would find here, by turns: an offer has room for a few. */
  warm(): readonly string[] {
    const [images, modules] = [this.#images.list(), this.#options.content.warm()];
    const longest = Math.max(images.length, modules.length);
    return Array.from({ length: longest }, (_, index) => [images[index] ?? [], modules[index] ?? []].flat()).flat();
  }

  /** Those of these inputs, as bids name them, that are at hand. */
  near(names: readonly string[]): Promise<readonly string[]> {
    return this.#options.content.near(names);
  }

  async perform(step: Step, job: Job, jobs: Jobs): Promise<void> {
    const { lease } = job.agreement;
    const live = this.#liveOf(job);
    try {
      if (step === 'fetch') await this.#fetch(job, jobs, live);
      else if (step === 'prepare') await this.#prepare(job, jobs, live);
      else if (step === 'start') await this.#start(job, jobs, live);
      else if (step === 'adopt') await this.#adopt(job, jobs, live);
      else await this.#collect(job, jobs, live);
    } catch (error) {
      if (this.#closing.signal.aborted || live.abort.signal.aborted) return;
      if (!(error instanceof MoltError))
        this.#env.logger.log('error', 'a step of a job failed unexpectedly', { step, lease, error });
      const failure = failureOf(step, error);
      await jobs.dispatch(lease, { type: 'failed', attempt: job.attempt, failure });
    }
  }

  /** Ends whatever the job is doing. The exit, if there was a run, is reported as always. */
  async stop(job: Job): Promise<void> {
    const live = this.#live.get(job.agreement.lease);
    if (live?.run !== undefined) await live.run.stop(STOP_GRACE_MS);
    else live?.abort.abort(new MoltError('job/cancelled', 'the job was stopped'));
  }

  /** A connection to a service of the job. Throws `mesh/unreachable` while it does not run, and what `Run.connect` throws. */
  async connect(job: Job, port: number, signal: AbortSignal): Promise<Duplex> {
    const run = this.#live.get(job.agreement.lease)?.run;
    if (run !== undefined && job.phase === 'running') return run.connect(port, signal);
    throw new MoltError('mesh/unreachable', `the job is ${job.phase}, its services are there while it runs`);
  }

  /** True when the run of this job outlived the node and can be taken up again. */
  async canAdopt(job: Job): Promise<boolean> {
    if (job.phase !== 'running' && job.phase !== 'starting') return false;
    const run = await this.#take(job);
    if (run === undefined) return false;
    this.#liveOf(job).run = run;
    return true;
  }

  /** An engine that does not answer, or is no longer there, keeps no other job from going on: this one starts over. */
  async #take(job: Job): Promise<Run | undefined> {
    try {
      return await this.#runtime(job).adopt(attemptId(job));
    } catch (error) {
      if (!(error instanceof MoltError)) throw error;
      this.#env.logger.log('warn', 'a run could not be taken up again', { code: error.code, reason: error.message });
      return undefined;
    }
  }

  /** After a crash: removes what belongs to no unfinished job. What cannot be removed yet keeps nobody from selling. */
  async reconcile(unfinished: readonly Job[]): Promise<void> {
    const wanted = new Set(unfinished.map(attemptId));
    for (const runtime of this.#options.runtimes.values()) {
      for (const id of await runtime.list()) {
        if (wanted.has(id)) continue;
        const remove = (): Promise<void> => runtime.remove(id);
        await remove().catch(() => void this.#leave(this.#untilDone(id, remove)));
      }
    }
    const root = join(this.#options.directory, 'jobs');
    await mkdir(root, { recursive: true, mode: 0o700 });
    for (const id of await readdir(root))
      if (!wanted.has(id)) await rm(join(root, id), { recursive: true, force: true });
  }

  /** After the lease: sandbox, folders and inputs go; outputs stay for a while, modules for the next job. */
  cleanUp(job: Job): Promise<void> {
    return this.#leave(this.#cleanUp(job));
  }

  #leave(removal: Promise<void>): Promise<void> {
    const leaving = removal.finally(() => this.#leaving.delete(leaving));
    this.#leaving.add(leaving);
    return leaving;
  }

  async #cleanUp(job: Job): Promise<void> {
    const { lease } = job.agreement;
    this.#live.get(lease)?.abort.abort(new MoltError('job/cancelled', 'the job is over'));
    this.#live.delete(lease);
    this.#confidential.delete(lease);
    for (let attempt = 1; attempt <= job.attempt; attempt++) await this.#removeAttempt({ ...job, attempt });
    const stored = job.spec === undefined ? [] : storedInputs(specOf(job)).map(({ path, cid }) => [path, cid] as const);
    await this.#options.content.release(lease, { ...Object.fromEntries(stored), ...job.inputs });
  }

  async #removeAttempt(job: Job): Promise<void> {
    await this.#untilDone(attemptId(job), async () => {
      // A runtime that this node has no more holds what only a node that has it again can remove.
      if (job.spec !== undefined) await this.#options.runtimes.get(job.agreement.runtime)?.remove(attemptId(job));
      await rm(this.#folder(job), { recursive: true, force: true });
    });
  }

  /**
   * Whatever fails is tried again until nothing is left: the engine may be away, and what it held cannot be sold before.
   * A node that restarts meanwhile finds the rest.
   */
  async #untilDone(attempt: string, remove: () => Promise<void>): Promise<void> {
    let told = '';
    for (let pauseMs = REMOVE_AGAIN_MS; !this.#closing.signal.aborted; pauseMs = Math.min(2 * pauseMs, REMOVE_MS_MAX)) {
      try {
        return await remove();
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        // An engine may be away for hours: each reason is told once.
        if (reason !== told)
          this.#env.logger.log('warn', 'an attempt could not be removed and will be', { attempt, reason });
        told = reason;
      }
      await this.#env.clock.sleep(pauseMs, this.#closing.signal).catch(() => undefined);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new MoltError('node/stopped', 'the node is closing'));
    for (const live of this.#live.values()) live.abort.abort(new MoltError('node/stopped', 'the node is closing'));
    const given = new AbortController();
    const late = this.#env.clock.sleep(LEAVE_MS_MAX, given.signal).catch(() => undefined);
    await Promise.race([Promise.allSettled(this.#leaving), late]);
    given.abort(new MoltError('node/stopped', 'all is removed'));
    for (const runtime of this.#options.runtimes.values()) await runtime.close();
  }

  async #fetch(job: Job, jobs: Jobs, live: Live): Promise<void> {
    const { agreement } = job;
    const inputs = await this.#options.content.fetch({
      agreement,
      spec: specOf(job),
      signal: live.abort.signal,
      report: (what) => this.#progress(job, jobs, 'fetching', what),
    });
    await jobs.dispatch(agreement.lease, { type: 'fetched', attempt: job.attempt, inputs });
  }

  async #prepare(job: Job, jobs: Jobs, live: Live): Promise<void> {
    const image = await this.#image(job, specOf(job));
    const report = this.#progress(job, jobs, 'pulling', image.kind === 'image' ? image.reference : 'module');
    await this.#runtime(job).prepare(
      image,
      ({ doneBytes, totalBytes, doneLayers, totalLayers = 0 }) =>
        report(doneBytes, totalBytes, totalLayers === 0 ? '' : `, ${doneLayers} of ${totalLayers} layers`),
      live.abort.signal,
    );
    if (image.kind === 'image') this.#images.use(image.reference, image.credentials !== undefined);
    await jobs.dispatch(job.agreement.lease, { type: 'prepared', attempt: job.attempt });
  }

  async #start(job: Job, jobs: Jobs, live: Live): Promise<void> {
    const { agreement } = job;
    const spec = specOf(job);
    const folder = this.#folder(job);
    await rm(folder, { recursive: true, force: true });
    for (const name of ['in', 'out']) await mkdir(join(folder, name), { recursive: true, mode: 0o700 });
    await this.#options.content.place(spec, job.inputs ?? {}, join(folder, 'in'));
    const confidential = this.#confidential.get(agreement.lease) ?? NOTHING_CONFIDENTIAL;
    const run = await this.#runtime(job).start(
      {
        ...runTermsOf(spec, agreement),
        attemptId: attemptId(job),
        image: await this.#image(job, spec),
        inputDirectory: join(folder, 'in'),
        outputDirectory: join(folder, 'out'),
        secrets: pick(confidential.secrets, spec.secrets),
      },
      live.abort.signal,
    );
    live.run = run;
    await jobs.dispatch(agreement.lease, { type: 'started', attempt: job.attempt, startedAtMs: run.startedAtMs });
    this.#watchRun(job, jobs, live);
  }

  async #adopt(job: Job, jobs: Jobs, live: Live): Promise<void> {
    assert(live.run !== undefined, 'an adopted job has its run');
    if (job.phase === 'starting') {
      await jobs.dispatch(job.agreement.lease, {
        type: 'started',
        attempt: job.attempt,
        startedAtMs: live.run.startedAtMs,
      });
    }
    live.transcript = await this.#replay(job);
    this.#watchRun(job, jobs, live);
  }

  /** Logs and samples into journal and transcript until the exit, which is then reported. */
  #watchRun(job: Job, jobs: Jobs, live: Live): void {
    const { lease } = job.agreement;
    const { run } = live;
    assert(run !== undefined, 'a watched job has its run');
    const transcript = (live.transcript ??= newTranscript(this.#options.chain.network, job));
    const pump = async (): Promise<void> => {
      // An adopted run tells its output from the beginning: what the journal holds is skipped.
      const known = { stdout: transcript.logBytes.stdout, stderr: transcript.logBytes.stderr };
      for await (const chunk of paceLogs(this.#env.clock, run.logs)) {
        const skipped = Math.min(known[chunk.stream], chunk.bytes.length);
        known[chunk.stream] -= skipped;
        for (let at = skipped; at < chunk.bytes.length; at += LIMITS.logChunkBytes) {
          const bytes = chunk.bytes.slice(at, at + LIMITS.logChunkBytes);
          const offset = transcript.logBytes[chunk.stream];
          transcript.log(chunk.stream, bytes);
          await jobs.append(lease, [
            { log: { stream: chunk.stream === 'stdout' ? 1 : 2, bytes, offset: BigInt(offset) } },
          ]);
        }
      }
    };
    const sampler = this.#env.clock.every(SAMPLE_EVERY_MS, async () => {
      const usage = await run.usage().catch(() => undefined);
      if (usage === undefined || live.abort.signal.aborted) return;
      const elapsedMs = Math.max(0, this.#env.clock.now() - run.startedAtMs);
      const gpus = await this.#options.gpuUse(job.agreement.gpus ?? []);
      if (live.abort.signal.aborted) return;
      const sample = transcript.sample({ ...usage, ...gpus, elapsedMs });
      if (sample !== undefined) await jobs.append(lease, [{ usage: encodeUsage(sample) }]);
    });
    live.drained = pump();
    const healthy = this.#watchHealth(job, jobs, { ...live, run });
    void Promise.all([run.exit, live.drained])
      .then(async ([ended]) => {
        sampler[Symbol.dispose]();
        const exit = { ...ended, ...(await healthy()) };
        if (this.#closing.signal.aborted) return;
        if (exit.reason === 'engine-failed') {
          await jobs.dispatch(lease, {
            type: 'failed',
            attempt: job.attempt,
            failure: { code: 'runtime/engine-failed', message: exit.detail },
          });
        } else await jobs.dispatch(lease, { type: 'exited', attempt: job.attempt, exit: exitOf(exit) });
      })
      .catch((error: unknown) => {
        sampler[Symbol.dispose]();
        void jobs.dispatch(lease, { type: 'failed', attempt: job.attempt, failure: failureOf('start', error) });
      });
  }

  /**
   * Asks the job's service until the run ends, and stops a run whose service does not come up. What is returned ends the
   * asking, and gives what it adds to the exit.
   */
  #watchHealth(
    job: Job,
    jobs: Jobs,
    { run, abort, wasReady = false }: Live & { readonly run: Run },
  ): () => Promise<Pick<RunExit, 'reason' | 'detail' | 'exitCode'> | undefined> {
    const { services, health: check } = specOf(job);
    const port = services.find(({ name }) => name === check?.service)?.port;
    if (check === undefined || port === undefined) return async () => undefined;
    const { lease } = job.agreement;
    const over = new AbortController();
    const watching = watchHealth(
      this.#env,
      {
        check,
        connect: (signal) => run.connect(port, signal),
        wasReady,
        tell: (ready, reason) => {
          const told = { service: check.service, ready, reason: reason.slice(0, LIMITS.refusalCharacters) };
          void jobs.append(lease, [{ ready: told }]).catch(() => undefined);
        },
      },
      AbortSignal.any([abort.signal, over.signal]),
    ).then(async (miss) => {
      if (miss !== undefined) void run.stop(STOP_GRACE_MS);
      return miss;
    });
    return async () => {
      over.abort(new MoltError('node/stopped', 'the run is over'));
      const miss = await watching;
      if (miss === undefined) return undefined;
      const detail = `the service ${check.service} was not ready within ${check.startSeconds} s: ${miss}`;
      return { reason: 'never-ready', exitCode: undefined, detail: detail.slice(0, LIMITS.refusalCharacters) };
    };
  }

  async #collect(job: Job, jobs: Jobs, live: Live): Promise<void> {
    const { key, chain, artifacts, content, tell } = this.#options;
    const { lease } = job.agreement;
    const transcript = live.transcript ?? (await this.#replay(job));
    const directory = join(this.#folder(job), 'out');
    const collected = await collectOutputs(artifacts, specOf(job), directory, live.abort.signal);
    content.keepOutputs(
      lease,
      collected.outputs.map(({ cid }) => cid),
    );
    const proof = proveRun({ key, network: chain.network, job, spec: specOf(job), collected, transcript });
    const { proofDigest, claimed } = proof.outcome;
    tell({ type: 'proof', lease, digest: proofDigest, claimed });
    await jobs.dispatch(lease, { type: 'collected', attempt: job.attempt, outcome: proof.outcome }, [
      { proof: proof.event },
    ]);
  }

  /** Rebuilds the transcript of the present attempt from the journal. */
  async #replay(job: Job): Promise<Transcript> {
    const transcript = newTranscript(this.#options.chain.network, job);
    for await (const { bytes } of this.#options.journal.events(job.agreement.lease, 0)) {
      const event = WireEvent.decode(bytes);
      if (event.attempt !== job.attempt) continue;
      if (event.log !== undefined) transcript.log(event.log.stream === 1 ? 'stdout' : 'stderr', event.log.bytes);
      if (event.usage !== undefined) transcript.sample(decodeUsage(event.usage));
      if (event.ready?.ready === true) this.#liveOf(job).wasReady = true;
    }
    return transcript;
  }

  /** Where the module is on this machine, or the image's name. */
  async #image(job: Job, spec: JobSpec): Promise<Image> {
    if (spec.runtime === 'container') {
      const credentials = this.#confidential.get(job.agreement.lease)?.registry;
      return { kind: 'image', reference: spec.image, ...(credentials === undefined ? {} : { credentials }) };
    }
    const { path, digest } = await this.#options.content.module(spec.image, spec.resources.diskBytes);
    return { kind: 'module', path, digest };
  }

  /** Tells progress at most four times a second, and always the end. */
  #progress(
    job: Job,
    jobs: Jobs,
    phase: string,
    detail: string,
  ): (done: number, total?: number, more?: string) => void {
    let nextMs = 0;
    return (done, total = 0, more = '') => {
      const nowMs = this.#env.clock.monotonic();
      if (nowMs < nextMs && done !== total) return;
      nextMs = nowMs + PROGRESS_EVERY_MS;
      const body: EventBody = {
        phase: { phase, detail: `${detail}${more}`, bytesDone: BigInt(done), bytesTotal: BigInt(total) },
      };
      void jobs.append(job.agreement.lease, [body]).catch(() => undefined);
    };
  }

  #liveOf(job: Job): Live {
    const known = this.#live.get(job.agreement.lease);
    if (known !== undefined && known.attempt === job.attempt && !known.abort.signal.aborted) return known;
    const made: Live = { attempt: job.attempt, abort: new AbortController() };
    this.#live.set(job.agreement.lease, made);
    return made;
  }

  #runtime(job: Job): Runtime {
    const runtime = this.#options.runtimes.get(job.agreement.runtime);
    if (runtime === undefined)
      throw new MoltError('runtime/unavailable', `this node has no runtime "${job.agreement.runtime}"`);
    return runtime;
  }

  #folder(job: Job): string {
    return join(this.#options.directory, 'jobs', attemptId(job));
  }
}

/** Names an attempt in labels and folders. */
export function attemptId(job: Pick<Job, 'agreement' | 'attempt'>): string {
  return `${job.agreement.lease}-${job.attempt}`;
}

export function specOf(job: Job): JobSpec {
  assert(job.spec !== undefined, 'the specification is there after "queued"');
  return decodeJobSpec(Buffer.from(job.spec, 'base64'));
}

/** Secrets by the names the specification has; one that was not sent is an empty file. */
function pick(
  secrets: Readonly<Record<string, Uint8Array>>,
  names: readonly string[],
): Readonly<Record<string, Uint8Array>> {
  return Object.fromEntries(names.map((name) => [name, secrets[name] ?? new Uint8Array()]));
}

function newTranscript(network: Address, job: Job): Transcript {
  const { lease, specDigest } = job.agreement;
  return createTranscript({ network, lease, attempt: job.attempt, specDigest });
}

function exitOf(exit: RunExit): Exit {
  const { reason, exitCode, detail, startedAtMs, finishedAtMs, durationMs, cpuMs, memoryPeakBytes } = exit;
  return {
    reason,
    exitCode,
    detail,
    startedAtMs,
    finishedAtMs,
    durationMs,
    cpuMs,
    memoryPeakBytes,
    fuel: exit.fuel?.toString(),
  };
}

function failureOf(step: Step, error: unknown): { code: ErrorCode; message: string } {
  if (error instanceof MoltError) return { code: error.code, message: error.message };
  if ((error as NodeJS.ErrnoException).code === 'ENOSPC') {
    return {
      code: 'job/disk-full',
      message: 'the disk of the provider is full; the money goes back, take another provider',
    };
  }
  return {
    code: 'runtime/engine-failed',
    message: `the provider failed while it did "${step}"; the money goes back, take another provider`,
  };
}
