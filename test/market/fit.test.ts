/** Goal: fitting is exact, also for GPUs of several kinds, and a shortfall says what and how much. */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import { fits } from '../../market/index.ts';
import type { GpuGroup, Resources } from '../../protocol/messages.ts';

const free: Resources = { cpuMillis: 1500, memoryBytes: 4e9, diskBytes: 10e9, gpus: [] };
const GB = 1e9;

test.each([
  [{ cpuMillis: 2000 }, 'cpu', '2 CPU cores needed, 1.5 free'],
  [{ memoryBytes: 8e9 }, 'memory', '8.0 GB of memory needed, 4.0 GB free'],
  [{ diskBytes: 20e9 }, 'disk', '20 GB of disk needed, 10 GB free'],
  [
    { gpus: [{ count: 2, vramBytes: 24 * GB, model: 'L4', computeCapability: 0 }] },
    'gpu',
    '2 × L4 with 24 GB needed, 0 such free',
  ],
] as const)('%o does not fit', (more, what, reason) => {
  expect(fits({ cpuMillis: 1500, memoryBytes: 4e9, diskBytes: 10e9, gpus: [], ...more }, free)).toEqual({
    what,
    reason,
  });
});

test('what is needed may be all that is free', () => {
  expect(fits(free, free)).toBeUndefined();
});

test('one free GPU does not serve two wishes, but the right pairing is found', () => {
  const need: GpuGroup[] = [
    { count: 1, vramBytes: 10 * GB, model: '', computeCapability: 0 },
    { count: 1, vramBytes: 20 * GB, model: 'A', computeCapability: 0 },
  ];
  const one: GpuGroup[] = [{ count: 1, vramBytes: 80 * GB, model: 'A', computeCapability: 0 }];
  const two: GpuGroup[] = [
    { count: 1, vramBytes: 80 * GB, model: 'A', computeCapability: 0 },
    { count: 1, vramBytes: 12 * GB, model: 'B', computeCapability: 0 },
  ];
  expect(fits({ ...free, gpus: need }, { ...free, gpus: one })?.reason).toBe(
    '1 × GPU with 10 GB and 1 × A with 20 GB needed, 1 such free',
  );
  expect(fits({ ...free, gpus: need }, { ...free, gpus: two })).toBeUndefined();
});

test('the answer for GPUs is the one that trying every assignment gives', () => {
  const group = fc.record({
    count: fc.integer({ min: 0, max: 2 }),
    vramBytes: fc.constantFrom(10, 20),
    model: fc.constantFrom('', 'A', 'B'),
    computeCapability: fc.constantFrom(0, 80, 90),
  });
  const have = group.map((gpu) => ({ ...gpu, model: gpu.model === '' ? 'C' : gpu.model }));
  fc.assert(
    fc.property(fc.array(group, { maxLength: 3 }), fc.array(have, { maxLength: 3 }), (need, gpus) => {
      const fitting = fits({ ...free, gpus: need }, { ...free, gpus }) === undefined;
      expect(fitting).toBe(assignable(one(need), one(gpus)));
    }),
    { numRuns: 500 },
  );
});

/** Each GPU on its own. */
function one(groups: readonly GpuGroup[]): GpuGroup[] {
  return groups.flatMap((group) => Array.from({ length: group.count }, () => group));
}

function assignable(need: readonly GpuGroup[], have: readonly GpuGroup[]): boolean {
  const [want, ...others] = need;
  if (want === undefined) return true;
  return have.some(
    (gpu, index) =>
      gpu.vramBytes >= want.vramBytes &&
      gpu.computeCapability >= want.computeCapability &&
      (want.model === '' || want.model === gpu.model) &&
      assignable(
        others,
        have.filter((_, other) => other !== index),
      ),
  );
}
