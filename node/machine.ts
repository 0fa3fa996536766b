/**
 * The machine under the node, as the operating system tells it: for people to read, and to refuse settings that sell
 * what is not there. Self-declared, so it never ranks and never earns.
 */
import { statfs } from 'node:fs/promises';

import { MoltError } from '../protocol/errors.ts';
import { formatBytes } from '../protocol/units.ts';
import type { NodeConfig } from './config.ts';

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
  const { default: information } = await import('systeminformation');
  const [cpu, memory, system, disk] = await Promise.all([
    information.cpu(),
    information.mem(),
    information.osInfo(),
    statfs(home),
  ]);
  return {
    cpu: `${cpu.manufacturer} ${cpu.brand}`.trim(),
    cores: cpu.cores,
    memoryBytes: memory.total,
    diskFreeBytes: disk.bavail * disk.bsize,
    system: `${system.distro} ${system.release}, kernel ${system.kernel}`,
  };
}

/** Throws `config/invalid` when more is for sale than the machine has. */
export function assertSellable(capacity: NodeConfig['capacity'], machine: Machine): void {
  const { cpuMillis, memoryBytes } = capacity;
  if (cpuMillis > machine.cores * 1_000) {
    throw new MoltError(
      'config/invalid',
      `cpuMillis sells ${cpuMillis / 1_000} cores, this machine has ${machine.cores}; lower it with --cpu-millis or in config.json`,
      { cpuMillis, cores: machine.cores },
    );
  }
  if (memoryBytes > machine.memoryBytes) {
    throw new MoltError(
      'config/invalid',
      `memoryBytes sells ${formatBytes(memoryBytes)}, this machine has ${formatBytes(machine.memoryBytes)}; lower it with --memory-bytes or in config.json`,
      { memoryBytes, has: machine.memoryBytes },
    );
  }
}
