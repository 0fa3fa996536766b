/** Goal: what is for sale is what is free, whatever happens in whatever order. Method: properties over random histories. */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import {
  type Capacity,
  createCapacity,
  freeResources,
  keep,
  promisedStake,
  release,
  reserve,
  utilisation,
} from '../../market/index.ts';
import { MoltError } from '../../protocol/errors.ts';
import type { Resources } from '../../protocol/messages.ts';

const total: Resources = {
  cpuMillis: 4_000,
  memoryBytes: 1_000,
  diskBytes: 1_000,
  gpus: [{ count: 2, vramBytes: 80, model: 'X' }],
};
const need = (cpuMillis: number, gpus = 0): Resources => ({
  cpuMillis,
  memoryBytes: 100,
  diskBytes: 100,
  gpus: gpus === 0 ? [] : [{ count: gpus, vramBytes: 40, model: '' }],
});
const hold = (resources: Resources, expiresMs?: number) => ({ need: resources, stake: 5n, expiresMs });

test('a reservation that does not fit is refused with what is lacking, and changes nothing', () => {
  const capacity = reserve(createCapacity(total), 'a', hold(need(3_000)), 0);
  expect(() => reserve(capacity, 'b', hold(need(2_000)), 0)).toThrow(/2 CPU cores needed, 1 free/);
  expect(capacity.reservations.size).toBe(1);
});

test('a hold ends by itself at its expiry, without any message', () => {
  const capacity = reserve(createCapacity(total), 'quote', hold(need(4_000), 1_000), 0);
  expect(() => reserve(capacity, 'other', hold(need(1)), 999)).toThrow(MoltError);
  expect(freeResources(capacity, 1_000)).toEqual(total);
  expect(promisedStake(capacity, 999)).toBe(5n);
  expect(promisedStake(capacity, 1_000)).toBe(0n);
});

test('a quote becomes a lease without a moment in which its capacity is free', () => {
  const held = reserve(createCapacity(total), 'quote', hold(need(4_000), 1_000), 0);
  const leased = keep(held, 'quote', { id: 'lease', expiresMs: undefined }, 999);
  expect(leased?.reservations.has('quote')).toBe(false);
  expect(leased && freeResources(leased, 10 ** 12).cpuMillis).toBe(0);
  expect(keep(held, 'quote', { id: 'lease', expiresMs: undefined }, 1_000)).toBeUndefined();
});

test('GPUs are given out whole and a busy group stays in the list', () => {
  const busy = reserve(createCapacity(total), 'a', hold(need(1, 2)), 0);
  expect(freeResources(busy, 0).gpus).toEqual([{ count: 0, vramBytes: 80, model: 'X' }]);
  expect(() => reserve(busy, 'b', hold(need(1, 1)), 0)).toThrow(MoltError);
});

test('a machine made smaller while leases run offers nothing, never less than nothing', () => {
  const reservations = new Map([['lease', hold(need(9_000))]]);
  expect(freeResources({ total, reservations }, 0).cpuMillis).toBe(0);
});

test('never sold twice, never leaked: any history keeps the sum within the total, and releasing all frees all', () => {
  const step = fc.oneof(
    fc.record({
      do: fc.constant('reserve' as const),
      id: fc.nat(5),
      cpu: fc.nat(5_000),
      gpus: fc.nat(3),
      lifeMs: fc.option(fc.nat(50)),
    }),
    fc.record({ do: fc.constant('release' as const), id: fc.nat(5) }),
    fc.record({ do: fc.constant('keep' as const), id: fc.nat(5), to: fc.nat(5), lifeMs: fc.option(fc.nat(50)) }),
    fc.record({ do: fc.constant('wait' as const), ms: fc.nat(30) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      let nowMs = 0;
      let capacity: Capacity = createCapacity(total);
      for (const one of steps) {
        if (one.do === 'wait') nowMs += one.ms;
        else if (one.do === 'release') capacity = release(capacity, String(one.id));
        else {
          const expiresMs = one.lifeMs === null ? undefined : nowMs + one.lifeMs;
          if (one.do === 'keep')
            capacity = keep(capacity, String(one.id), { id: String(one.to), expiresMs }, nowMs) ?? capacity;
          else {
            try {
              capacity = reserve(capacity, String(one.id), hold(need(one.cpu, one.gpus), expiresMs), nowMs);
            } catch (error) {
              expect(error).toMatchObject({ code: 'market/no-capacity' });
            }
          }
        }
        const live = [...capacity.reservations.values()].filter(
          (entry) => entry.expiresMs === undefined || entry.expiresMs > nowMs,
        );
        const used = live.reduce((sum, entry) => sum + entry.need.cpuMillis, 0);
        expect(used).toBeLessThanOrEqual(total.cpuMillis);
        expect(freeResources(capacity, nowMs).cpuMillis).toBe(total.cpuMillis - used);
        expect(utilisation(capacity, nowMs)).toBeLessThanOrEqual(1);
      }
      for (const id of capacity.reservations.keys()) capacity = release(capacity, id);
      expect(freeResources(capacity, nowMs)).toEqual(total);
    }),
    { numRuns: 500 },
  );
});
