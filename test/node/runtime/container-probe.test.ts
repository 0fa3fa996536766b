/**
 * Goal: the self-test of an engine tells a limit on cpu that is there from one that is not, on an idle machine and on a
 * busy one. Method: what engines said of the program that computes under it.
 */
import type { ContainerStats } from 'dockerode';
import { expect, it } from 'vitest';

import { isCpuLimited } from '../../../node/runtime/container/probe.ts';

type CpuStatistics = Pick<ContainerStats['cpu_stats'], 'cpu_usage' | 'throttling_data'>;

function counted(cpuMs: number, periods: number, throttled_periods: number): CpuStatistics {
  const cpu_usage = { total_usage: cpuMs * 1e6 } as CpuStatistics['cpu_usage'];
  return { cpu_usage, throttling_data: { periods, throttled_periods, throttled_time: throttled_periods * 1e6 } };
}

it.each([
  ['held back is limited', counted(66, 5, 2), 335, true],
  [
    'that never got its part of a busy machine is limited when the kernel counts its periods',
    counted(394, 109, 0),
    39_000,
    true,
  ],
  ['that may still be held back is looked at again', counted(30, 3, 0), 300, undefined],
  ['that had more than its part in every period is not taken for limited', counted(2_400, 24, 0), 2_400, undefined],
  ['whose engine does not count is limited when it had less than half a core', counted(110, 0, 0), 1_000, true],
  ['whose engine does not count is not limited when it had a core', counted(980, 0, 0), 1_000, false],
  ['whose engine does not count yet is looked at again', counted(10, 0, 0), 100, undefined],
])('a program %s', (_, statistics, elapsedMs, limited) => {
  expect(isCpuLimited(statistics, elapsedMs)).toBe(limited);
});
