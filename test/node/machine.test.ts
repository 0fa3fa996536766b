/** Goal: what is sold exists. Method: the machine that runs the test. */
import { tmpdir } from 'node:os';

import { expect, test } from 'vitest';

import { assertSellable, describeMachine } from '../../node/machine.ts';

test('a node that would sell more than the machine has is refused with both numbers', async () => {
  const machine = await describeMachine(tmpdir());
  expect(machine.cores).toBeGreaterThan(0);
  const capacity = { cpuMillis: machine.cores * 1_000, memoryBytes: machine.memoryBytes, diskBytes: 1 };
  expect(() => assertSellable(capacity, machine)).not.toThrow();
  expect(() => assertSellable({ ...capacity, cpuMillis: capacity.cpuMillis + 1 }, machine)).toThrow(
    /this machine has \d+; lower it with --cpu-millis/,
  );
  expect(() => assertSellable({ ...capacity, memoryBytes: capacity.memoryBytes + 1 }, machine)).toThrow(
    /--memory-bytes/,
  );
});
