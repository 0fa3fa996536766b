/**
 * The machine under the node, as the operating system tells it: for people to read, and to refuse settings that sell
 * what is not there. Self-declared, so it never ranks and never earns.
 */
import { readFile, statfs } from 'node:fs/promises';
import { cpus, release, totalmem, type } from 'node:os';

import { MoltError } from '../protocol/errors.ts';
import { formatBytes } from '../protocol/units.ts';
import type { NodeConfig } from './node-config.ts';

export interface Machine {
  /** As the processor names itself, e.g. "AMD EPYC 9654". */
  readonly cpu: string;
  /** Hardware threads. */
  readonly cores: number;
  readonly memoryBytes: number;
  /** Free where the node keeps its data. */
  readonly diskFreeBytes: number;
  readonly system: string;
}

export async function describeMachine(home: string): Promise<Machine> {
  const [disk, system] = await Promise.all([statfs(home), systemName()]);
  const threads = cpus();
  return {
    cpu: threads[0]?.model.trim() ?? 'an unknown processor',
    cores: threads.length,
    memoryBytes: totalmem(),
    diskFreeBytes: disk.bavail * disk.bsize,
    system: `${system}, kernel ${release()}`,
  };
}

/** As a Linux distribution names itself in os-release(5), else the name of the kernel. */
async function systemName(): Promise<string> {
  const told = await readFile('/etc/os-release', 'utf8').catch(() => '');
  return /^PRETTY_NAME="?([^"\n]+)/m.exec(told)?.[1] ?? type();
}

/** Throws `config/invalid` when more is for sale than the machine has beside what the host keeps. */
export function assertSellable(config: Pick<NodeConfig, 'capacity' | 'reserve'>, machine: Machine): void {
  const { capacity, reserve } = config;
  if (capacity.cpuMillis + reserve.cpuMillis > machine.cores * 1_000) {
    throw new MoltError(
      'config/invalid',
      `cpuMillis sells ${capacity.cpuMillis / 1_000} cores and hostCpuMillis keeps ${reserve.cpuMillis / 1_000}, this machine has ${machine.cores}; lower one with --cpu-millis, --host-cpu-millis or in config.json`,
      { cpuMillis: capacity.cpuMillis, hostCpuMillis: reserve.cpuMillis, cores: machine.cores },
    );
  }
  if (capacity.memoryBytes + reserve.memoryBytes > machine.memoryBytes) {
    throw new MoltError(
      'config/invalid',
      `memoryBytes sells ${formatBytes(capacity.memoryBytes)} and hostMemoryBytes keeps ${formatBytes(reserve.memoryBytes)}, this machine has ${formatBytes(machine.memoryBytes)}; lower one with --memory-bytes, --host-memory-bytes or in config.json`,
      { memoryBytes: capacity.memoryBytes, hostMemoryBytes: reserve.memoryBytes, has: machine.memoryBytes },
    );
  }
}
