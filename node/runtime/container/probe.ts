/**
 * What an engine is and what it really does: asked first, then tried with containers of our own.
 *
 * Engines accept limits that they do not enforce and list runtimes that are not installed, so nothing that matters is taken
 * from their word. Each check is one small container; all of them run at the same time.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ContainerCreateOptions, ContainerStats } from 'dockerode';
import { z } from 'zod';
import type { Env } from '../../../protocol/env.ts';
import { MoltError } from '../../../protocol/errors.ts';
import type { Feature } from '../../../protocol/messages.ts';
import type { Capability } from '../runtime.ts';
import { JOB_UID } from './archive.ts';
import { type Engine, type EngineClients, engineCall, type EngineKind, faultOf } from './engine.ts';
import { readFrames } from './frames.ts';
import { loaderConfig, SANDBOX_PROCESSES_MIN } from './host-config.ts';
import { ensureIdleImage, IDLE_IMAGE, type OwnProgram } from './idle-image.ts';
import type { Owner } from './owner.ts';
import { type EngineArchitecture, seccompProfile } from './seccomp.ts';

/** What the engine says about itself. */
export interface EngineFacts {
  readonly kind: EngineKind;
  readonly architecture: EngineArchitecture;
  /** Our profile as `SecurityOpt` names it: inline JSON, or the path of a file that holds it. */
  readonly seccomp: string;
  /** The engine has an init process to put before a job. */
  readonly init: boolean;
  /** The job's user as the host sees it: another one where the engine maps users. */
  readonly hostUid: number;
  /** Jobs get a disk of the leased size; otherwise what they write is watched. */
  readonly limitsDisk: boolean;
  readonly userNamespace: boolean;
  readonly kernel: string;
  /** Names of runtimes that may isolate more than a container on the host's kernel does. */
  readonly sandboxes: readonly string[];
  readonly details: Capability['details'];
}

/** What trying has shown. */
export interface Findings {
  /** The stronger runtime that jobs can be given; absent where none works. */
  readonly sandbox?: string;
  /** A kill for want of memory is told apart from another kill. */
  readonly tellsOutOfMemory: boolean;
  /** The kernel inside the sandbox, as it calls itself. */
  readonly sandboxKernel?: string;
}

const engineInfo = z.object({
  Architecture: z.string(),
  OSType: z.string(),
  KernelVersion: z.string().default(''),
  ServerVersion: z.string().default(''),
  CgroupVersion: z.string().default('1'),
  InitBinary: z.string().default(''),
  DockerRootDir: z.string().default(''),
  SecurityOptions: z.array(z.string()).nullish(),
  Rootless: z.boolean().nullish(),
  Runtimes: z.record(z.string(), z.unknown()).nullish(),
  NCPU: z.number().default(0),
  MemTotal: z.number().default(0),
});
const engineVersion = z.object({ Components: z.array(z.object({ Name: z.string() })).nullish() });

/** Docker says what the kernel says, Podman what Go says. */
const ARCHITECTURES: Readonly<Record<string, EngineArchitecture>> = {
  x86_64: 'x86_64',
  amd64: 'x86_64',
  aarch64: 'aarch64',
  arm64: 'aarch64',
};
/** Preferred first. */
const SANDBOXES = ['runsc', 'kata', 'kata-runtime'] as const;

const LOOK_MS = 100;
/** A machine that does much else is slow to show what it enforces, and no less fit for that. */
const LOOKS_MAX = 250;
/** The engine may learn of the end before it learns of the cause. */
const LATE_LOOKS = 10;
const MEMORY_BYTES = 32 << 20;
const PROCESSES = 8;
/** A tenth of a core, and what may be taken for it over the time in which it is measured. */
const NANO_CPUS = 1e8;
const RATE_MS = 500;
const RATE_CORES_MAX = 0.5;
/** The kernel's own period of a limit on cpu, and over how many a program that is never held back is judged. */
const PERIOD_SECONDS = 0.1;
const PERIODS_MIN = 20;

export function unavailable(reason: string): MoltError {
  return new MoltError('runtime/unavailable', reason);
}

/**
 * Asks the engine; `machine.directory` receives the system call profile where the engine reads it from a file only.
 * Throws `runtime/unavailable` for an engine that cannot be used, `runtime/engine-failed`.
 */
export async function askEngine(
  engine: Engine,
  machine: { readonly directory: string; readonly limitsDisk: boolean },
): Promise<EngineFacts> {
  const [info, version] = await engineCall('asking what it is', async () => [
    engineInfo.parse(await engine.info()),
    engineVersion.parse(await engine.version()),
  ]);
  const architecture = ARCHITECTURES[info.Architecture];
  if (architecture === undefined) {
    throw unavailable(`the engine runs on ${info.Architecture}; x86_64 and aarch64 are supported`);
  }
  if (info.OSType !== 'linux')
    throw unavailable(`the engine runs ${info.OSType} containers; switch it to Linux containers`);
  const security = info.SecurityOptions ?? [];
  const rootless = info.Rootless === true || security.some((option) => option.includes('name=rootless'));
  if (rootless && info.CgroupVersion === '1') {
    throw unavailable('a rootless engine on cgroup v1 ignores limits; run the engine as root or boot with cgroup v2');
  }
  const isPodman = (version.Components ?? []).some(({ Name }) => Name === 'Podman Engine');
  // Podman does not read from a volume that no running container has mounted, which is when outputs are collected.
  const limitsDisk = machine.limitsDisk && !isPodman;
  const userNamespace = security.some((option) => option.includes('name=userns'));
  // An engine that maps users keeps its data in a directory named by the first uid and gid of the range.
  const firstUid = Number(/\/(\d+)\.\d+\/?$/.exec(info.DockerRootDir)?.[1] ?? 0);
  return {
    kind: isPodman ? 'podman' : 'docker',
    architecture,
    seccomp: isPodman ? await profileFile(machine.directory, architecture) : seccompProfile(architecture),
    // Podman does not tell, and fails at the start when it has none.
    init: !isPodman && info.InitBinary !== '',
    hostUid: userNamespace ? firstUid + JOB_UID : JOB_UID,
    limitsDisk,
    userNamespace,
    kernel: info.KernelVersion,
    sandboxes: SANDBOXES.filter((name) => Object.keys(info.Runtimes ?? {}).includes(name)),
    details: {
      engine: isPodman ? 'podman' : 'docker',
      version: info.ServerVersion,
      kernel: info.KernelVersion,
      cgroups: Number(info.CgroupVersion),
      rootless,
      userNamespace,
      architecture,
      cpus: info.NCPU,
      memoryBytes: info.MemTotal,
      diskQuota: limitsDisk,
    },
  };
}

/** Podman takes what follows `seccomp=` for a path. */
async function profileFile(directory: string, architecture: EngineArchitecture): Promise<string> {
  const path = join(directory, `seccomp-${architecture}.json`);
  await mkdir(directory, { recursive: true });
  await writeFile(path, seccompProfile(architecture));
  return path;
}

/** What is sold, in words: guarantees are what was seen to be enforced. */
export function capabilityOf(facts: EngineFacts, findings: Findings, features: readonly Feature[]): Capability {
  const { sandbox, sandboxKernel = '' } = findings;
  const disk = facts.limitsDisk
    ? 'disk is limited by a file system of the leased size'
    : 'the root file system is not read-only, and disk is watched: a job can exceed it for half a second';
  return {
    available: true,
    features,
    details: { ...facts.details, ...(sandbox === undefined ? {} : { sandbox, sandboxKernel }) },
    guarantees: [
      'no network but what a job was granted, no capabilities, no new privileges, our own system call allow-list, nobody as user',
      'memory (swap included), cpu, processes, open files, output and wall time are limited by the engine',
      ...(facts.limitsDisk ? ['the root file system is read-only', disk] : []),
      ...(facts.userNamespace ? ['users of a container are nobody on the host: the engine maps them'] : []),
      ...(sandbox === undefined ? [] : [`a job that asks for it runs on a kernel of its own, under ${sandbox}`]),
    ],
    gaps: [
      ...(facts.limitsDisk ? [] : [disk]),
      ...(sandbox === undefined
        ? ['containers share the kernel of the host']
        : [
            'jobs that do not ask for the sandbox share the kernel of the host',
            `under ${sandbox} at least ${SANDBOX_PROCESSES_MIN} processes are allowed, there is no network, and a kill for want of memory may be told as a kill by SIGKILL`,
          ]),
      ...(facts.userNamespace ? [] : ['the engine does not map users: start it with userns-remap for that']),
      ...(findings.tellsOutOfMemory ? [] : ['a job killed for want of memory is told as killed by SIGKILL']),
      'cpu time of a job is sampled: what its last moments used may be missing',
    ],
  };
}

interface Trial {
  readonly env: Env;
  readonly clients: EngineClients;
  readonly facts: EngineFacts;
  readonly owner: Owner;
  readonly signal: AbortSignal;
}

interface TrialEnd {
  readonly exitCode: number;
  readonly outOfMemory: boolean;
  readonly stdout: string;
}

/** Runs the checks. Throws `runtime/unavailable` naming the limit that does nothing, `runtime/engine-failed`. */
export async function tryEngine(trial: Trial): Promise<Findings> {
  const { facts, clients } = trial;
  await ensureIdleImage(clients.calls, facts.architecture);
  const [tellsOutOfMemory, , , sandbox] = await Promise.all([
    tryMemory(trial),
    tryProcesses(trial),
    tryCounting(trial),
    findSandbox(trial),
  ]);
  return { tellsOutOfMemory, ...sandbox };
}

/** Whether a kill for want of memory is told as such. Throws when there is no kill. */
async function tryMemory(trial: Trial, runtime?: string): Promise<boolean> {
  const end = await runToEnd(trial, 'hog', runtime);
  if (end.exitCode === 0) {
    throw unavailable('the engine does not enforce memory limits; enable the memory controller of the control groups');
  }
  return end.outOfMemory;
}

async function tryProcesses(trial: Trial): Promise<void> {
  const { exitCode } = await runToEnd(trial, 'forks');
  if (exitCode >= PROCESSES) {
    throw unavailable('the engine does not enforce process limits; enable the pids controller of the control groups');
  }
}

/** An engine whose statistics stay at zero cannot be billed from; one that never throttles sells more than was leased. */
async function tryCounting(trial: Trial): Promise<void> {
  const { clock } = trial.env;
  let counts = false;
  const limits = await withContainer(trial, 'spin', undefined, async (container) => {
    await container.start();
    const startedAt = clock.monotonic();
    for (let look = 0; look < LOOKS_MAX; look++) {
      await clock.sleep(LOOK_MS, trial.signal);
      const stats = await container.stats({ stream: false, 'one-shot': true });
      counts = stats.cpu_stats.cpu_usage.total_usage > 0 && (stats.memory_stats.usage ?? 0) > 0;
      const limited = counts ? isCpuLimited(stats.cpu_stats, clock.monotonic() - startedAt) : undefined;
      if (limited !== undefined) return limited;
    }
    return false;
  });
  if (!counts) {
    throw unavailable('the engine reports no cpu and memory use; mount every cgroup hierarchy of /proc/self/cgroup');
  }
  if (!limits) {
    throw unavailable('the engine does not enforce cpu limits; enable the cpu controller of the control groups');
  }
}

/**
 * Whether a program that computes was seen to have no more than its tenth of a core; undefined when that cannot be told yet.
 * On a machine that does much else it may get less than its limit, and then nothing ever holds it back: the kernel counts
 * the periods of a limit all the same, and of none where there is none.
 */
export function isCpuLimited(
  { cpu_usage, throttling_data }: Pick<ContainerStats['cpu_stats'], 'cpu_usage' | 'throttling_data'>,
  elapsedMs: number,
): boolean | undefined {
  const { periods, throttled_periods: held } = throttling_data;
  if (held > 0) return true;
  if (periods >= PERIODS_MIN && cpu_usage.total_usage <= NANO_CPUS * PERIOD_SECONDS * periods) return true;
  // Podman does not tell of throttling: there the program must have had clearly less than a core.
  if (periods === 0 && elapsedMs > RATE_MS) return cpu_usage.total_usage / 1e6 / elapsedMs < RATE_CORES_MAX;
  return undefined;
}

/** The first of the named sandboxes in which a program sees another kernel than the host's, and is limited. */
async function findSandbox(trial: Trial): Promise<Pick<Findings, 'sandbox' | 'sandboxKernel'>> {
  for (const sandbox of trial.facts.sandboxes) {
    try {
      const [{ stdout }] = await Promise.all([runToEnd(trial, 'kernel', sandbox), tryMemory(trial, sandbox)]);
      const sandboxKernel = stdout.replaceAll('\0', '');
      if (sandboxKernel === '' || sandboxKernel === trial.facts.kernel) continue;
      return { sandbox, sandboxKernel };
    } catch (error) {
      trial.signal.throwIfAborted();
      trial.env.logger.log('info', 'a sandbox that the engine lists does not work', {
        sandbox,
        fault: faultOf(error).message,
      });
    }
  }
  return {};
}

async function runToEnd(trial: Trial, program: OwnProgram, runtime?: string): Promise<TrialEnd> {
  return withContainer(trial, program, runtime, async (container) => {
    await container.start();
    for (let look = 0; look < LOOKS_MAX; look++) {
      await trial.env.clock.sleep(LOOK_MS, trial.signal);
      const { State } = await container.inspect();
      const { Running, ExitCode, OOMKilled } = State;
      if (Running) continue;
      if (program === 'hog' && !OOMKilled && look < LATE_LOOKS) continue;
      const log = await container.logs({ stdout: true });
      let stdout = '';
      for await (const { bytes } of readFrames([log])) stdout += Buffer.from(bytes).toString('latin1');
      return { exitCode: ExitCode, outOfMemory: OOMKilled, stdout };
    }
    throw unavailable(`the engine's self-test did not end: ${program} under ${runtime ?? 'the default runtime'}`);
  });
}

async function withContainer<T>(
  trial: Trial,
  program: OwnProgram,
  runtime: string | undefined,
  use: (container: Awaited<ReturnType<Engine['createContainer']>>) => Promise<T>,
): Promise<T> {
  const engine = trial.clients.calls;
  return engineCall('its self-test', async () => {
    const container = await engine.createContainer(trialConfig(trial, program, runtime));
    try {
      return await use(container);
    } finally {
      await container.remove({ force: true, v: true });
    }
  });
}

function trialConfig(trial: Trial, program: OwnProgram, runtime: string | undefined): ContainerCreateOptions {
  const config = loaderConfig(IDLE_IMAGE, trial.owner.trialLabels(), []);
  return {
    ...config,
    Entrypoint: [`/${program}`],
    HostConfig: {
      ...config.HostConfig,
      SecurityOpt: ['no-new-privileges:true', `seccomp=${trial.facts.seccomp}`],
      NanoCpus: program === 'spin' ? NANO_CPUS : 1e9,
      Memory: MEMORY_BYTES,
      MemorySwap: MEMORY_BYTES,
      PidsLimit: runtime === undefined ? PROCESSES : SANDBOX_PROCESSES_MIN,
      ...(runtime === undefined ? {} : { Runtime: runtime }),
    },
  };
}
