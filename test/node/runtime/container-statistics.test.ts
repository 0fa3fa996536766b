/** What engines write about a container's use, in the forms that both control group versions have. */
import type { ContainerStats } from 'dockerode';
import { expect, it } from 'vitest';
import { groupFiles } from '../../../node/runtime/container/control-group.ts';
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

const ID = 'e54fe3c0cbb1';

it.each([
  [
    'version 1',
    `12:pids:/docker/${ID}\n6:memory:/docker/${ID}\n4:cpu,cpuacct:/docker/${ID}\n1:name=systemd:/docker/${ID}\n0::/\n`,
    {
      version: 1,
      cpu: `/sys/fs/cgroup/cpuacct/docker/${ID}/cpuacct.usage`,
      peak: `/sys/fs/cgroup/memory/docker/${ID}/memory.max_usage_in_bytes`,
    },
  ],
  [
    'version 2',
    `0::/system.slice/docker-${ID}.scope\n`,
    {
      version: 2,
      cpu: `/sys/fs/cgroup/system.slice/docker-${ID}.scope/cpu.stat`,
      peak: `/sys/fs/cgroup/system.slice/docker-${ID}.scope/memory.peak`,
    },
  ],
  ['another process that got the number', '0::/user.slice/session-1.scope\n', undefined],
  ['a path out of the hierarchy', `0::/../${ID}\n`, undefined],
  ['a process that is gone', '', undefined],
])('the control group of a container is found in %s', (_what, text, files) => {
  expect(groupFiles(text, ID)).toEqual(files);
});
