/**
 * The GPUs that a node sells: which they are, which of them may be given out now, and what they do.
 *
 * Contract: a device is sold only after a container saw exactly it, by a toolkit without known ways out. It goes to nobody
 * while it is faulty or missing, or while it holds memory although no lease has it: what the last job left there would be
 * the next job's to read. All of that is looked at again and again, so a device that is well again comes back.
 */
import type { Env } from '../../protocol/env.ts';
import { formatBytes } from '../../protocol/units.ts';
import type { GpuDetection, GpuDevice, GpuSource } from './device.ts';
import type { Toolkit } from './toolkit.ts';

/** What was found out about one device. */
export interface ExaminedGpu {
  readonly device: GpuDevice;
  /** Why it is not sold; undefined when it is. */
  readonly reason: string | undefined;
}

export interface GpuExamination {
  readonly gpus: readonly ExaminedGpu[];
  /** What went wrong while looking, one sentence each. */
  readonly problems: readonly string[];
  /** Version of the NVIDIA Container Toolkit, where one was looked for and found. */
  readonly toolkit: string | undefined;
}

export interface GpuExaminer {
  readonly source: GpuSource;
  readonly toolkit: () => Promise<Toolkit>;
  /** Whether a container sees exactly this device: undefined when it does, else why not. */
  readonly check: (device: GpuDevice) => Promise<string | undefined>;
  /** Ids that the operator sells, or "all". */
  readonly selling: readonly string[];
  /** Devices of jobs that go on: what is in their memory is right to be there. */
  readonly leased: ReadonlySet<string>;
}

/** More than a driver keeps for itself, less than any job of use; a display takes more. */
const IDLE_BYTES_MAX = 512 << 20;

/** Looks at every device once and says which can be sold, and why the others cannot. For a node's start, and for doctors. */
export async function examineGpus(examiner: GpuExaminer): Promise<GpuExamination> {
  const { devices, problems } = await examiner.source.look();
  const hasNvidia = devices.some(({ vendor, fault }) => vendor === 'nvidia' && fault === undefined);
  const toolkit = hasNvidia ? await examiner.toolkit() : undefined;
  const gpus: ExaminedGpu[] = [];
  // One after the other: a check is a container on a machine that may be busy with jobs.
  for (const device of devices) {
    const reason =
      (isWanted(device, examiner.selling) ? undefined : 'the setting gpus does not name it') ??
      unfit(device, examiner.leased.has(device.id)) ??
      (device.vendor === 'nvidia' ? toolkit?.refusal : undefined) ??
      (await examiner.check(device));
    gpus.push({ device, reason });
  }
  const named = examiner.selling.filter((id) => id !== 'all' && id !== 'none');
  const unknown = named.filter((id) => !devices.some((device) => device.id === id));
  return {
    gpus,
    problems: [...problems, ...unknown.map((id) => `the setting gpus names ${id}, which is not on this machine`)],
    toolkit: toolkit?.version,
  };
}

function isWanted({ id }: GpuDevice, selling: readonly string[]): boolean {
  return selling.includes('all') || selling.includes(id);
}

/** Why a device cannot be given to the next job now, whatever an engine says; undefined when it can. */
export function unfit(device: GpuDevice | undefined, isLeased: boolean): string | undefined {
  if (device === undefined) return 'the driver no longer lists it; look at the machine';
  if (device.fault !== undefined) return device.fault;
  const used = device.memoryUsedBytes ?? 0;
  if (isLeased || used <= IDLE_BYTES_MAX) return undefined;
  return `${formatBytes(used)} of its memory are in use, and no lease has it; end what uses it`;
}

/** Summed over the devices of one job; 0 where the tools do not tell. */
export interface GpuUse {
  /** Mean over the devices, 0 … 100. */
  readonly gpuPercent: number;
  readonly gpuMemoryBytes: number;
}

export interface GpusOptions {
  readonly source: GpuSource;
  /** Those that were examined and can be sold. */
  readonly devices: readonly GpuDevice[];
  /** Devices that a lease has now. */
  readonly leased: () => ReadonlySet<string>;
  /** Hears at once which devices nobody may get. */
  readonly onWithheld: (ids: ReadonlySet<string>) => void;
  /** Hears, once each time, of a device that does not come back by itself, and of one that does. */
  readonly tell: (id: string, reason: string | undefined) => void;
}

/** What a look says holds for this long: jobs share one question. */
const LOOK_LASTS_MS = 1_500;
const LOOK_EVERY_MS = 30_000;
/** After a job its devices are looked at often, and told of when they do not come back. */
const SCRUB_EVERY_MS = 1_000;
const SCRUB_MS_MAX = 30_000;

/** Keeps watch over the devices that are sold. */
export class Gpus implements Disposable {
  readonly #env: Env;
  readonly #options: GpusOptions;
  readonly #opened = new DisposableStack();
  readonly #closing = new AbortController();
  readonly #withheld = new Map<string, string>();
  /** When a device was last given back, on the monotonic clock. */
  readonly #returned = new Map<string, number>();
  readonly #told = new Set<string>();
  #look: { readonly atMs: number; readonly answer: Promise<GpuDetection> } | undefined;
  #scrubbing = false;

  constructor(env: Env, options: GpusOptions) {
    this.#env = env;
    this.#options = options;
    if (options.devices.length > 0) this.#opened.use(env.clock.every(LOOK_EVERY_MS, () => this.#review()));
  }

  /** Why devices are withheld, by id. */
  get withheld(): ReadonlyMap<string, string> {
    return this.#withheld;
  }

  /** Call before their lease is released: nobody gets these until a look shows that their memory is free. */
  release(ids: readonly string[]): void {
    if (ids.length === 0) return;
    for (const id of ids) {
      this.#withheld.set(id, 'its last job has just ended');
      this.#returned.set(id, this.#env.clock.monotonic());
    }
    this.#options.onWithheld(new Set(this.#withheld.keys()));
    void this.#scrub();
  }

  /** What these devices do now, or did a moment ago. Never rejects. */
  async use(ids: readonly string[]): Promise<GpuUse> {
    if (ids.length === 0) return { gpuPercent: 0, gpuMemoryBytes: 0 };
    const { devices } = await this.#see();
    const mine = devices.filter(({ id }) => ids.includes(id));
    const percents = mine.reduce((sum, { busyPercent = 0 }) => sum + busyPercent, 0);
    return {
      gpuPercent: Math.round(percents / ids.length),
      gpuMemoryBytes: mine.reduce((sum, { memoryUsedBytes = 0 }) => sum + memoryUsedBytes, 0),
    };
  }

  [Symbol.dispose](): void {
    this.#closing.abort();
    this.#opened.dispose();
  }

  #see(): Promise<GpuDetection> {
    const nowMs = this.#env.clock.monotonic();
    if (this.#look === undefined || nowMs - this.#look.atMs > LOOK_LASTS_MS) {
      this.#look = { atMs: nowMs, answer: this.#options.source.look() };
    }
    return this.#look.answer;
  }

  /** Asks until every device that was given back is idle, or has had its time. */
  async #scrub(): Promise<void> {
    if (this.#scrubbing) return;
    this.#scrubbing = true;
    try {
      while (this.#returned.size > 0 && !this.#closing.signal.aborted) {
        this.#look = undefined;
        await this.#review();
        if (this.#returned.size > 0) await this.#env.clock.sleep(SCRUB_EVERY_MS, this.#closing.signal);
      }
    } catch (error) {
      if (!this.#closing.signal.aborted) throw error;
    } finally {
      this.#scrubbing = false;
    }
  }

  async #review(): Promise<void> {
    const { devices } = await this.#see();
    const leased = this.#options.leased();
    for (const { id } of this.#options.devices) {
      const seen = devices.find((device) => device.id === id);
      this.#judge(id, unfit(seen, leased.has(id)));
    }
    if (!this.#closing.signal.aborted) this.#options.onWithheld(new Set(this.#withheld.keys()));
  }

  #judge(id: string, reason: string | undefined): void {
    const returnedMs = this.#returned.get(id);
    const isWaiting = returnedMs !== undefined && this.#env.clock.monotonic() - returnedMs < SCRUB_MS_MAX;
    if (reason === undefined) {
      this.#withheld.delete(id);
      this.#returned.delete(id);
      if (this.#told.delete(id)) this.#options.tell(id, undefined);
      return;
    }
    this.#withheld.set(id, reason);
    if (isWaiting) return;
    this.#returned.delete(id);
    if (this.#told.has(id)) return;
    this.#told.add(id);
    this.#options.tell(id, reason);
  }
}
