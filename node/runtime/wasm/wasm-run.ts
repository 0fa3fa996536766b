/**
 * One run of a wasm guest, seen from the node: waits for its first instruction, watches its deadline, tells how it ended.
 */
import type { Env } from '../../../protocol/env.ts';
import { MoltError } from '../../../protocol/errors.ts';
import { type LogChunk, NO_DEVICES, type Run, type RunExit, type RunRequest, type RunUsage } from '../runtime.ts';
import type { Duplex } from 'node:stream';
import type { GuestResult, SandboxEvent, SandboxVitals } from './channel.ts';
import type { Slot } from './slot.ts';

const FUEL_MAX = 2n ** 63n - 1n;
/** How long a sandbox that was told to stop may take to report its last figures before it is killed. */
const STOP_MS_MAX = 2000;

type Ending = 'timed-out' | 'cancelled';

export class WasmRun implements Run {
  readonly #env: Env;
  readonly #request: RunRequest;
  readonly #slot: Slot;
  readonly #watch = new AbortController();
  readonly #usageWaiters: ((usage: RunUsage) => void)[] = [];
  #startedMonotonic = 0;
  #startedAtMs = 0;
  #vitals: SandboxVitals = { cpuMs: 0, memoryBytes: 0, fuel: '0' };
  #result: GuestResult | undefined;
  #failure: MoltError | undefined;
  #ending: Ending | undefined;
  #started: () => void = () => undefined;
  readonly exit: Promise<RunExit>;
  readonly logs: AsyncIterable<LogChunk>;

  private constructor(env: Env, request: RunRequest, slot: Slot) {
    this.#env = env;
    this.#request = request;
    this.#slot = slot;
    slot.sandbox.onEvent = (event) => this.#onEvent(event);
    this.logs = slot.sandbox.logs();
    this.exit = this.#finish();
  }

  /** Starts the guest in a slot that holds its module, and waits for its first instruction. Throws as `Runtime.start`. */
  static async start(env: Env, request: RunRequest, slot: Slot, signal: AbortSignal): Promise<WasmRun> {
    const run = new WasmRun(env, request, slot);
    try {
      await slot.showInputs(request.inputDirectory);
    } catch (error) {
      slot.sandbox.kill();
      await run.exit;
      throw error;
    }
    const fuel = request.limits.fuel ?? FUEL_MAX;
    slot.sandbox.send({
      task: 'run',
      command: request.command,
      environment: request.environment,
      inputDirectory: slot.inputDirectory,
      outputDirectory: slot.outputDirectory,
      secrets: Object.fromEntries(
        Object.entries(request.secrets ?? {}).map(([name, bytes]) => [name, Buffer.from(bytes).toString('base64')]),
      ),
      memoryBytes: request.limits.memoryBytes,
      diskBytes: request.limits.diskBytes,
      logBytes: request.limits.logBytes,
      fuel: String(fuel < FUEL_MAX ? fuel : FUEL_MAX),
      randomSeed: Buffer.from(request.randomSeed).toString('hex'),
      clockStartMs: request.clockStartMs,
    });
    await run.#untilStarted(signal);
    return run;
  }

  get startedAtMs(): number {
    return this.#startedAtMs;
  }

  async #untilStarted(signal: AbortSignal): Promise<void> {
    const started = new Promise<'started'>((resolve) => {
      this.#started = () => resolve('started');
    });
    const abort = (): void => this.#slot.sandbox.kill();
    signal.addEventListener('abort', abort, { once: true });
    // It may have been called off while the inputs were shown.
    if (signal.aborted) abort();
    try {
      // The job's own time starts here, so what comes before must be bounded by itself.
      const first = await Promise.race([started, this.exit]);
      if (first === 'started') {
        void this.#watchDeadline();
        return;
      }
      if (signal.aborted) throw new MoltError('job/cancelled', 'the start of the job was cancelled');
      throw this.#failure ?? new MoltError('runtime/engine-failed', `the wasm sandbox did not start: ${first.detail}`);
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  async #watchDeadline(): Promise<void> {
    const { durationMs } = this.#request.limits;
    await this.#env.clock.sleep(durationMs, this.#watch.signal).catch(() => undefined);
    if (!this.#watch.signal.aborted) await this.#end('timed-out', STOP_MS_MAX);
  }

  #onEvent(event: SandboxEvent): void {
    if ('vitals' in event) this.#vitals = event.vitals;
    switch (event.event) {
      case 'started':
        this.#startedMonotonic = this.#env.clock.monotonic();
        this.#startedAtMs = this.#env.clock.now();
        this.#started();
        break;
      case 'ended':
        this.#result = event.result;
        break;
      case 'failed':
        this.#failure = new MoltError(event.code, event.message, { attemptId: this.#request.attemptId });
        break;
      case 'usage':
        for (const resolve of this.#usageWaiters.splice(0)) resolve(this.#usage());
        break;
      case 'stopped':
      case 'loaded':
        break;
    }
  }

  #usage(): RunUsage {
    const { cpuMs, memoryBytes, fuel } = this.#vitals;
    // Linear memory never shrinks, so what it is now is also its peak.
    return { ...NO_DEVICES, cpuMs, memoryBytes, memoryPeakBytes: memoryBytes, fuel: BigInt(fuel) };
  }

  async usage(): Promise<RunUsage> {
    const answer = new Promise<RunUsage>((resolve) => this.#usageWaiters.push(resolve));
    this.#slot.sandbox.send({ command: 'usage' });
    return Promise.race([answer, this.exit.then(() => this.#usage())]);
  }

  connect(port: number): Promise<Duplex> {
    return Promise.reject(new MoltError('job/impossible', `a wasm job has no service on port ${port}`));
  }

  async #finish(): Promise<RunExit> {
    const end = await this.#slot.sandbox.ended;
    this.#watch.abort();
    await this.#slot.handOver(this.#request.outputDirectory).catch((error: unknown) => {
      this.#result = undefined;
      this.#failure = new MoltError('runtime/engine-failed', `the outputs cannot be moved: ${String(error)}`);
    });
    const measuredMs = this.#startedAtMs === 0 ? 0 : this.#env.clock.monotonic() - this.#startedMonotonic;
    const durationMs = this.#result?.durationMs ?? measuredMs;
    const { cpuMs, memoryPeakBytes, fuel } = this.#usage();
    return {
      ...this.#verdict(end.signal, end.diagnostic),
      startedAtMs: this.#startedAtMs,
      finishedAtMs: this.#startedAtMs + Math.ceil(durationMs),
      durationMs,
      cpuMs,
      memoryPeakBytes,
      ...(fuel === undefined ? {} : { fuel }),
    };
  }

  #verdict(
    signal: NodeJS.Signals | null,
    diagnostic: string,
  ): Pick<RunExit, 'reason' | 'exitCode' | 'signal' | 'detail'> {
    const { durationMs, memoryBytes } = this.#request.limits;
    if (this.#result !== undefined) {
      const { reason, exitCode, detail } = this.#result;
      return { reason, exitCode, detail };
    }
    if (this.#ending === 'timed-out') {
      return { reason: 'timed-out', exitCode: undefined, detail: `stopped at its limit of ${durationMs} ms` };
    }
    if (this.#ending === 'cancelled') return { reason: 'cancelled', exitCode: undefined, detail: 'stopped on request' };
    if (this.#failure !== undefined) {
      return { reason: 'engine-failed', exitCode: undefined, detail: this.#failure.message };
    }
    if (diagnostic.includes('out of memory')) {
      const detail = `the sandbox process had not enough memory beside the guest's ${memoryBytes} bytes`;
      return { reason: 'engine-failed', exitCode: undefined, detail };
    }
    const how = signal === null ? '' : ` by ${signal}`;
    const last = diagnostic.split('\n').at(-1) ?? '';
    const detail = `the sandbox process ended unexpectedly${how}${last === '' ? '' : `: ${last}`}`;
    return { reason: 'engine-failed', exitCode: undefined, ...(signal === null ? {} : { signal }), detail };
  }

  /** A guest cannot handle signals: `graceMs` only bounds how long the sandbox may take to report its figures. */
  async stop(graceMs: number): Promise<void> {
    await this.#end('cancelled', Math.min(graceMs, STOP_MS_MAX));
  }

  async #end(ending: Ending, graceMs: number): Promise<void> {
    this.#ending ??= ending;
    this.#slot.sandbox.send({ command: 'stop' });
    const killed = this.#env.clock.sleep(graceMs, this.#watch.signal).then(
      () => this.#slot.sandbox.kill(),
      () => undefined,
    );
    await this.exit;
    await killed;
  }

  /** Drops output that nobody has read. */
  release(): void {
    this.#slot.sandbox.release();
  }
}
