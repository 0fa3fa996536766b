/** What engines write about a container's use, in the forms that both control group versions have. */
import type { ContainerStats } from 'dockerode';
import { expect, it } from 'vitest';
import { usageOf } from '../../../node/runtime/container/statistics.ts';

function statistics(memory: object, block: object): ContainerStats {
  const cpu_stats = { cpu_usage: { total_usage: 1_500_000_000 } };
  return { cpu_stats, memory_stats: memory, blkio_stats: block } as unknown as ContainerStats;
}

it('the use of a container is read from control groups of version 1', () => {
  const entries = [
    { major: 254, minor: 0, op: 'Read', value: 4096 },
    { major: 7, minor: 3, op: 'Read', value: 1000 },
    { major: 254, minor: 0, op: 'Write', value: 8192 },
    { major: 254, minor: 0, op: 'Total', value: 13_288 },
  ];
  const memory = { usage: 10_000, max_usage: 12_000, stats: { total_inactive_file: 4000 } };
  expect(usageOf(statistics(memory, { io_service_bytes_recursive: entries }))).toEqual({
    cpuMs: 1500,
    memoryBytes: 6000,
    memoryPeakBytes: 12_000,
    blockReadBytes: 5096,
    blockWriteBytes: 8192,
  });
});

it('the use of a container is read from control groups of version 2', () => {
  const entries = [
    { major: 259, minor: 0, op: 'read', value: 4096 },
    { major: 259, minor: 0, op: 'write', value: 0 },
  ];
  const memory = { usage: 10_000, stats: { inactive_file: 1000 } };
  expect(usageOf(statistics(memory, { io_service_bytes_recursive: entries }))).toMatchObject({
    memoryBytes: 9000,
    memoryPeakBytes: 0,
    blockReadBytes: 4096,
    blockWriteBytes: 0,
  });
});

it('what the kernel does not count is zero', () => {
  expect(usageOf(statistics({}, { io_service_bytes_recursive: null }))).toMatchObject({
    memoryBytes: 0,
    blockReadBytes: 0,
    blockWriteBytes: 0,
  });
});
