/**
 * What a job's container is created with: everything denied but what the job was leased.
 *
 * No network but one that is joined, read-only root, no capabilities, no new privileges, our own seccomp profile, nobody as user, limits on
 * memory (swap included), cpu, processes, files, locked memory and core dumps. Ulimits are explicit because Podman would
 * raise them otherwise. Every host path stays outside: data goes through volumes, never through binds.
 */
import type { ContainerCreateOptions } from 'dockerode';
import { MoltError } from '../../../protocol/errors.ts';
import type { RunLimits, RunRequest } from '../runtime.ts';
import { JOB_UID } from './archive.ts';
import { ENTRY_DIRECTORY } from './entry.ts';
import type { EngineKind } from './engine.ts';
import { type GpuPassing, gpuConfig } from './gpu-passing.ts';

const SCRATCH_BYTES = 64 << 20;
/**
 * Options of the job's `/tmp`, and of a directory that is there and stays empty. Podman takes no owner and no number of
 * files: there the job's memory limit bounds them.
 */
const TMPFS = {
  docker: {
    scratch: `rw,nosuid,nodev,exec,size=${SCRATCH_BYTES},nr_inodes=10000,uid=${JOB_UID},gid=${JOB_UID},mode=0700`,
    empty: 'ro,nosuid,nodev,noexec,size=4096,nr_inodes=1,mode=0555',
  },
  podman: {
    scratch: `rw,nosuid,nodev,exec,size=${SCRATCH_BYTES},mode=1777`,
    empty: 'ro,nosuid,nodev,noexec,size=4096,mode=0555',
  },
} as const;
/** A sandbox has threads of its own inside the job's limits, and refuses to start with too few. */
export const SANDBOX_PROCESSES_MIN = 512;
const NODE_CPUS_MIN = 0.01;

export interface ContainerPlacement {
  readonly engine: EngineKind;
  readonly image: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly seccomp: string;
  /** The engine has an init process to put before the job. */
  readonly init: boolean;
  /** Name of a runtime that isolates more than the engine's own; absent: the engine's own. */
  readonly sandbox?: string;
  /** Absent for a job without inputs: its `/in` is an empty file system that nobody can write to. */
  readonly inputVolume?: string;
  /** Absent where disk cannot be limited by a volume: then `/out` lies in the container's writable layer. */
  readonly outputVolume?: string;
  readonly secretsVolume?: string;
  /** Of a pooled container: the program that waits in it, told over stdin what to be. */
  readonly entryVolume?: string;
  /** GPUs of the job, and how this engine gives them. */
  readonly gpus?: readonly GpuPassing[];
  /** The container whose network the job joins, as the engine names it; absent: none. */
  readonly network?: string;
  /** Variables that the job finds beside its own, which win. */
  readonly variables?: Readonly<Record<string, string>>;
}

type HostConfig = NonNullable<ContainerCreateOptions['HostConfig']> & {
  /** Known to the engine's API since 1.41, not to the type declarations. */
  readonly CgroupnsMode?: 'private' | 'host';
};
type Mount = NonNullable<HostConfig['Mounts']>[number];

function mount(source: string, target: string, readOnly: boolean): Mount {
  return { Type: 'volume', Source: source, Target: target, ReadOnly: readOnly };
}

/** The limits that can be changed while a container runs. */
export function limitsConfig(
  limits: RunLimits,
  sandbox?: string,
): Required<Pick<HostConfig, 'Memory' | 'MemorySwap' | 'NanoCpus' | 'PidsLimit'>> {
  const memory = Math.floor(limits.memoryBytes);
  return {
    Memory: memory,
    MemorySwap: memory,
    NanoCpus: Math.round(Math.max(limits.cpus, NODE_CPUS_MIN) * 1e9),
    PidsLimit: sandbox === undefined ? limits.processes : Math.max(limits.processes, SANDBOX_PROCESSES_MIN),
  };
}

function hostConfig(request: RunRequest, placement: ContainerPlacement): HostConfig {
  const { limits } = request;
  const memory = Math.floor(limits.memoryBytes);
  const gpus = gpuConfig(placement.gpus ?? []);
  const mounts: Mount[] = [];
  if (placement.entryVolume !== undefined) mounts.push(mount(placement.entryVolume, ENTRY_DIRECTORY, true));
  if (placement.inputVolume !== undefined) mounts.push(mount(placement.inputVolume, '/in', true));
  if (placement.outputVolume !== undefined) mounts.push(mount(placement.outputVolume, '/out', false));
  if (placement.secretsVolume !== undefined) mounts.push(mount(placement.secretsVolume, '/secrets', true));
  return {
    ...gpus.host,
    NetworkMode: placement.network ?? 'none',
    ReadonlyRootfs: placement.outputVolume !== undefined,
    CapDrop: ['ALL'],
    Privileged: false,
    Init: placement.init,
    SecurityOpt: ['no-new-privileges:true', `seccomp=${placement.seccomp}`],
    ...limitsConfig(limits, placement.sandbox),
    ...(placement.sandbox === undefined ? {} : { Runtime: placement.sandbox }),
    OomScoreAdj: 500,
    // Processes that share a GPU hand each other buffers through it; it counts as the job's memory.
    ShmSize: placement.gpus === undefined ? SCRATCH_BYTES : Math.max(SCRATCH_BYTES, Math.floor(memory / 2)),
    IpcMode: 'private',
    CgroupnsMode: 'private',
    // With no network nothing resolves anyway; this keeps the host's own resolvers out of the job's sight. A network that
    // is joined has said so already.
    ...(placement.network === undefined ? { Dns: ['127.0.0.1'] } : {}),
    RestartPolicy: { Name: 'no' },
    AutoRemove: false,
    Ulimits: [
      { Name: 'nofile', Soft: 1024, Hard: 4096 },
      { Name: 'nproc', Soft: 4096, Hard: 4096 },
      // One byte and not none: where the host pipes cores into a program, the kernel ignores 0 and obeys 1.
      { Name: 'core', Soft: 1, Hard: 1 },
      ...(gpus.host.Ulimits ?? []),
    ],
    Tmpfs: {
      '/tmp': TMPFS[placement.engine].scratch,
      ...(placement.inputVolume === undefined ? { '/in': TMPFS[placement.engine].empty } : {}),
    },
    Mounts: mounts,
    LogConfig: { Type: 'json-file', Config: { 'max-size': '8m', 'max-file': '2' } },
  };
}

/** Throws `job/impossible` for variables with which an image could claim devices that were not leased. */
export function checkClaims(request: RunRequest): void {
  const claims = Object.keys(request.environment).filter((name) => name.startsWith('NVIDIA_'));
  if (claims.length > 0) {
    throw new MoltError(
      'job/impossible',
      `${claims.join(', ')} cannot be set by a job: devices are leased, not claimed`,
    );
  }
}

/** Throws what `checkClaims` throws. */
export function containerConfig(request: RunRequest, placement: ContainerPlacement): ContainerCreateOptions {
  checkClaims(request);
  const waits = placement.entryVolume !== undefined;
  const [program, ...rest] = request.command;
  return {
    Image: placement.image,
    ...(program === undefined ? {} : { Entrypoint: [program], Cmd: rest }),
    Env: [
      ...Object.entries({ ...placement.variables, ...request.environment }).map(([name, value]) => `${name}=${value}`),
      ...gpuConfig(placement.gpus ?? []).env,
    ],
    ...(request.workdir === undefined ? {} : { WorkingDir: request.workdir }),
    User: `${JOB_UID}:${JOB_UID}`,
    Labels: placement.labels,
    // One reader, once: when our connection ends, so does the input, and with it a container that still waits.
    OpenStdin: waits,
    AttachStdin: waits,
    StdinOnce: waits,
    Tty: false,
    HostConfig: hostConfig(request, placement),
  };
}

/** A container that carries data into volumes: it shares the job's volumes, writable, and has no rights of its own. */
export function loaderConfig(
  image: string,
  labels: Readonly<Record<string, string>>,
  mounts: readonly Mount[],
): ContainerCreateOptions {
  return {
    Image: image,
    Entrypoint: ['/idle'],
    User: `${JOB_UID}:${JOB_UID}`,
    Labels: labels,
    NetworkDisabled: true,
    HostConfig: {
      NetworkMode: 'none',
      CapDrop: ['ALL'],
      SecurityOpt: ['no-new-privileges:true'],
      Memory: 64 << 20,
      MemorySwap: 64 << 20,
      PidsLimit: 16,
      Ulimits: [
        { Name: 'nofile', Soft: 64, Hard: 64 },
        { Name: 'nproc', Soft: 4096, Hard: 4096 },
      ],
      Mounts: [...mounts],
    },
  };
}

export { mount };
