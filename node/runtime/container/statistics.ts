/**
 * What an engine says that a container used, in our words. Engines leave out what the kernel does not count, and everything
 * of a container that has ended; those are zeros here.
 */
import type { ContainerStats } from 'dockerode';

export interface ContainerUsage {
  readonly cpuMs: number;
  /** Without the page cache that the kernel would give back. */
  readonly memoryBytes: number;
  /** The kernel's own high-water mark on cgroup v1; zero on v2, whose mark engines do not pass on. */
  readonly memoryPeakBytes: number;
  readonly blockReadBytes: number;
  readonly blockWriteBytes: number;
}

/** Which of these there are depends on the cgroup version. */
interface MemoryStatistics {
  readonly usage?: number;
  readonly max_usage?: number;
  readonly stats?: { readonly total_inactive_file?: number; readonly inactive_file?: number };
}

/** Bytes by device and operation, which cgroup v1 writes with a capital. */
interface BlockStatistics {
  readonly io_service_bytes_recursive?: readonly { readonly op?: string; readonly value?: number }[] | null;
}

export function usageOf(stats: ContainerStats): ContainerUsage {
  const { usage = 0, max_usage: memoryPeakBytes = 0, stats: parts } = stats.memory_stats as MemoryStatistics;
  // The page cache of files is not the job's own memory: cgroup v1 and v2 name it differently.
  const cache = parts?.total_inactive_file ?? parts?.inactive_file ?? 0;
  const moved = (stats.blkio_stats as BlockStatistics | undefined)?.io_service_bytes_recursive ?? [];
  const sumOf = (operation: string): number =>
    moved.reduce((sum, { op = '', value = 0 }) => sum + (op.toLowerCase() === operation ? value : 0), 0);
  return {
    cpuMs: stats.cpu_stats.cpu_usage.total_usage / 1e6,
    memoryBytes: Math.max(0, usage - cache),
    memoryPeakBytes,
    blockReadBytes: sumOf('read'),
    blockWriteBytes: sumOf('write'),
  };
}
