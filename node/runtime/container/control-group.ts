/**
 * What the kernel itself counts for a container, read where an engine on this machine keeps it.
 *
 * The engine is asked every half second, and asks the kernel then; when the container ends, its control group goes with it,
 * and with the group whatever it used since. A read of the group costs microseconds, so it can be done so often that what
 * the last one misses does not matter. Where there is none to read, as with an engine elsewhere, the engine's word stays.
 */
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';

export interface GroupUsage {
  readonly cpuMs: number;
  readonly memoryPeakBytes: number;
}

/** Where the hierarchies are mounted, as the engine needs it as well. */
const ROOT = '/sys/fs/cgroup';

interface GroupFiles {
  readonly cpu: string;
  /** Version 2 says microseconds in a line of several, version 1 nanoseconds alone. */
  readonly version: 1 | 2;
  readonly peak: string;
}

export class ControlGroup {
  readonly #files: GroupFiles;

  private constructor(files: GroupFiles) {
    this.#files = files;
  }

  /** The group of a container by the process that the engine names; undefined where it cannot be read from here. */
  static async of(pid: number, containerId: string): Promise<ControlGroup | undefined> {
    if (pid <= 0 || process.platform !== 'linux') return undefined;
    const text = await readFile(`/proc/${pid}/cgroup`, 'utf8').catch(() => '');
    const files = groupFiles(text, containerId);
    if (files === undefined) return undefined;
    const group = new ControlGroup(files);
    return group.read() === undefined ? undefined : group;
  }

  /** Undefined once the group is gone. Blocks for as long as the kernel takes to print two numbers. */
  read(): GroupUsage | undefined {
    const { cpu, version, peak } = this.#files;
    const text = read(cpu);
    if (text === undefined) return undefined;
    const cpuMs = version === 1 ? Number(text) / 1e6 : Number(/^usage_usec (\d+)$/m.exec(text)?.[1]) / 1e3;
    // Kernels before 5.19 keep no peak in version 2.
    const memoryPeakBytes = Number(read(peak) ?? 0);
    return Number.isFinite(cpuMs) && Number.isFinite(memoryPeakBytes) ? { cpuMs, memoryPeakBytes } : undefined;
  }
}

/**
 * From `/proc/PID/cgroup`. A process number may have been given to another process meanwhile, but never one in a group
 * that is named after the container.
 */
export function groupFiles(text: string, containerId: string): GroupFiles | undefined {
  const groups = text.split('\n').flatMap((line) => {
    const [, controllers = '', path = ''] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    const isSafe = path.includes(containerId) && !path.split('/').includes('..');
    return isSafe ? [{ controllers: controllers.split(','), path }] : [];
  });
  const of = (controller: string): string | undefined =>
    groups.find(({ controllers }) => controllers.includes(controller))?.path;
  const [cpu, memory, unified] = [of('cpuacct'), of('memory'), of('')];
  if (cpu !== undefined && memory !== undefined) {
    const peak = `${ROOT}/memory${memory}/memory.max_usage_in_bytes`;
    return { version: 1, cpu: `${ROOT}/cpuacct${cpu}/cpuacct.usage`, peak };
  }
  if (unified === undefined) return undefined;
  return { version: 2, cpu: `${ROOT}${unified}/cpu.stat`, peak: `${ROOT}${unified}/memory.peak` };
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
