/** Goal: a GPU goes to the next job only when it is well and empty. Method: a driver that says what the test wants, a clock by hand. */
import { expect, test } from 'vitest';

import type { GpuDetection, GpuDevice } from '../../../node/gpu/index.ts';
import { Gpus, examineGpus } from '../../../node/gpu/index.ts';
import { unfit } from '../../../node/gpu/gpus.ts';
import { systemEnv } from '../../../protocol/env.ts';

const MIB = 2 ** 20;

function device(id: string, more: Partial<GpuDevice> = {}): GpuDevice {
  return {
    id,
    vendor: 'nvidia',
    model: 'X',
    memoryBytes: 80 * 2 ** 30,
    memoryUsedBytes: 4 * MIB,
    busyPercent: 0,
    driver: '',
    computeCapability: 90,
    busId: '',
    numaNode: undefined,
    links: {},
    fault: undefined,
    ...more,
  };
}

test.each([
  [undefined, false, 'no longer lists it'],
  [device('a', { fault: 'the driver says: ERR!' }), true, 'ERR!'],
  [device('a', { memoryUsedBytes: 600 * MIB }), false, 'in use, and no lease has it'],
  [device('a', { memoryUsedBytes: 600 * MIB }), true, undefined],
  [device('a', { memoryUsedBytes: 512 * MIB }), false, undefined],
  [device('a', { memoryUsedBytes: undefined }), false, undefined],
])('whether a device is fit for the next job: %#', (seen, isLeased, words) => {
  const reason = unfit(seen, isLeased);
  if (words === undefined) expect(reason).toBeUndefined();
  else expect(reason).toContain(words);
});

test('each device has its own reason for not being sold, and the cheap reasons spare the check', async () => {
  const checked: string[] = [];
  const { gpus, problems, toolkit } = await examineGpus({
    source: {
      look: async () => ({
        devices: [
          device('good'),
          device('unwanted'),
          device('broken', { fault: 'the driver says: GPU requires reset' }),
          device('busy', { memoryUsedBytes: 2 ** 30 }),
          device('leased', { memoryUsedBytes: 2 ** 30 }),
          device('unseen', { vendor: 'amd' }),
        ],
        problems: ['a tool failed'],
      }),
    },
    toolkit: async () => ({ version: '1.19.1', refusal: undefined }),
    check: async ({ id }) => {
      checked.push(id);
      return id === 'unseen' ? 'a container sees none' : undefined;
    },
    selling: ['good', 'broken', 'busy', 'leased', 'unseen', 'absent'],
    leased: new Set(['leased']),
  });
  expect(Object.fromEntries(gpus.map((one) => [one.device.id, one.reason]))).toEqual({
    good: undefined,
    unwanted: 'the setting gpus does not name it',
    broken: 'the driver says: GPU requires reset',
    busy: expect.stringContaining('no lease has it'),
    leased: undefined,
    unseen: 'a container sees none',
  });
  expect(checked).toEqual(['good', 'leased', 'unseen']);
  expect(problems).toEqual(['a tool failed', 'the setting gpus names absent, which is not on this machine']);
  expect(toolkit).toBe('1.19.1');
});

/** Time passes only when somebody sleeps, and then at once. */
function world(first: GpuDetection['devices']) {
  const state = { nowMs: 0, devices: first, looks: 0 };
  const told: (readonly [string, boolean])[] = [];
  const withheld: string[][] = [];
  const real = systemEnv();
  const clock = {
    now: () => state.nowMs,
    monotonic: () => state.nowMs,
    sleep: async (ms: number) => {
      state.nowMs += ms;
      await new Promise((resolve) => setImmediate(resolve));
    },
    every: () => ({ [Symbol.dispose]: () => undefined }),
  };
  const gpus = new Gpus(
    { ...real, clock },
    {
      source: {
        look: async () => {
          state.looks++;
          return { devices: state.devices, problems: [] };
        },
      },
      devices: first,
      leased: () => new Set(),
      onWithheld: (ids) => withheld.push([...ids]),
      tell: (id, reason) => told.push([id, reason === undefined]),
    },
  );
  return { state, gpus, told, withheld };
}

test('a device that was given back goes to nobody until its memory is free', async () => {
  const { state, gpus, told, withheld } = world([device('a', { memoryUsedBytes: 2 ** 30 }), device('b')]);
  gpus.release(['a', 'b']);
  expect(withheld.at(0)).toEqual(['a', 'b']);
  await expect.poll(() => withheld.at(-1)).toEqual(['a']);
  state.devices = [device('a'), device('b')];
  await expect.poll(() => withheld.at(-1)).toEqual([]);
  expect(told).toEqual([]);
  gpus[Symbol.dispose]();
});

test('a device whose memory does not come back is told of once, and once more when it does', async () => {
  const { state, gpus, told, withheld } = world([device('a', { memoryUsedBytes: 2 ** 30 })]);
  gpus.release(['a']);
  await expect.poll(() => told).toEqual([['a', false]]);
  expect(state.nowMs).toBeGreaterThanOrEqual(30_000);
  expect(gpus.withheld.get('a')).toContain('no lease has it');
  // The next job never got it, so what brings it back is a later look: here the one after another device's job.
  state.devices = [device('a')];
  gpus.release(['a']);
  await expect.poll(() => withheld.at(-1)).toEqual([]);
  expect(told).toEqual([
    ['a', false],
    ['a', true],
  ]);
  gpus[Symbol.dispose]();
});

test('jobs that ask at the same time share one question to the driver', async () => {
  const { state, gpus } = world([
    device('a', { busyPercent: 80, memoryUsedBytes: 10 }),
    device('b', { busyPercent: undefined, memoryUsedBytes: 5 }),
  ]);
  const [one, both, none] = await Promise.all([gpus.use(['a']), gpus.use(['a', 'b']), gpus.use([])]);
  expect(one).toEqual({ gpuPercent: 80, gpuMemoryBytes: 10 });
  expect(both).toEqual({ gpuPercent: 40, gpuMemoryBytes: 15 });
  expect(none).toEqual({ gpuPercent: 0, gpuMemoryBytes: 0 });
  expect(state.looks).toBe(1);
  gpus[Symbol.dispose]();
});
