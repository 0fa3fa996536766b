/** Goal: what is sold exists. Method: the machine that runs the test. */
import { tmpdir } from 'node:os';

import { expect, test } from 'vitest';

import { assertSellable, describeMachine } from '../../node/machine.ts';

test('a node that would sell more than the machine has beside its own reserve is refused with the numbers', async () => {
  const machine = await describeMachine(tmpdir());
  expect(machine.cores).toBeGreaterThan(0);
  const reserve = { cpuMillis: 100, memoryBytes: 2 ** 20 };
  const capacity = {
    cpuMillis: machine.cores * 1_000 - reserve.cpuMillis,
    memoryBytes: machine.memoryBytes - reserve.memoryBytes,
    diskBytes: 1,
  };
  const sell = (more: Partial<typeof capacity>) => () =>
    assertSellable({ capacity: { ...capacity, ...more }, reserve }, machine);
  expect(sell({})).not.toThrow();
  expect(sell({ cpuMillis: capacity.cpuMillis + 1 })).toThrow(
    /hostCpuMillis keeps 0.1, this machine has \d+; lower one/,
  );
  expect(sell({ memoryBytes: capacity.memoryBytes + 1 })).toThrow(/--host-memory-bytes/);
});
