/** Goal: what is for sale is what is free, whatever happens in whatever order. Method: properties over random histories. */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import {
  type Capacity,
  type Gpu,
  type PlainResources,
  type Reservation,
  createCapacity,
  freeResources,
  keep,
  promisedStake,
  release,
  reserve,
  restore,
  utilisation,
  withhold,
} from '../../market/index.ts';
import { MoltError } from '../../protocol/errors.ts';
import type { Resources } from '../../protocol/messages.ts';

const total: PlainResources = { cpuMillis: 4_000, memoryBytes: 1_000, diskBytes: 1_000 };

function gpu(id: string, more: Partial<Gpu> = {}): Gpu {
  return {
    id,
    model: 'X',
    memoryBytes: 80,
    computeCapability: 0,
    busId: '',
    numaNode: undefined,
    links: {},
    ...more,
  };
}

const two = [gpu('a'), gpu('b')];
const need = (cpuMillis: number, gpus = 0): Resources => ({
  cpuMillis,
  memoryBytes: 100,
  diskBytes: 100,
  gpus: gpus === 0 ? [] : [{ count: gpus, vramBytes: 40, model: '', computeCapability: 0 }],
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
  expect(freeResources(capacity, 1_000)).toEqual({ ...total, gpus: [] });
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
  const busy = reserve(createCapacity(total, two), 'a', hold(need(1, 2)), 0);
  expect(busy.reservations.get('a')?.gpus).toEqual(['a', 'b']);
  expect(freeResources(busy, 0).gpus).toEqual([{ count: 0, vramBytes: 80, model: 'X', computeCapability: 0 }]);
  expect(() => reserve(busy, 'b', hold(need(1, 1)), 0)).toThrow(MoltError);
});

test('a device that is withheld is not free, and a lease that has it keeps it', () => {
  const leased = reserve(createCapacity(total, two), 'lease', hold(need(1, 1)), 0);
  const [mine = ''] = leased.reservations.get('lease')?.gpus ?? [];
  const both = withhold(leased, ['a', 'b']);
  expect(freeResources(both, 0).gpus).toMatchObject([{ count: 0 }]);
  expect(both.reservations.get('lease')?.gpus).toEqual([mine]);
  expect(() => reserve(both, 'other', hold(need(1, 1)), 0)).toThrow(/1 × GPU with 40 B needed, 0 such free/);
  expect(freeResources(withhold(release(both, 'lease'), []), 0).gpus).toMatchObject([{ count: 2 }]);
});

test('a machine made smaller while leases run offers nothing, never less than nothing', () => {
  const capacity = restore(createCapacity(total), 'lease', { ...hold(need(9_000)), gpus: ['gone'] });
  expect(freeResources(capacity, 0)).toMatchObject({ cpuMillis: 0, gpus: [] });
});

type Step =
  | { readonly do: 'quote'; readonly id: number; readonly cpu: number; readonly gpus: number; readonly lifeMs: number }
  | { readonly do: 'accept'; readonly id: number }
  | { readonly do: 'end'; readonly id: number }
  | { readonly do: 'withhold'; readonly ids: readonly number[] }
  | { readonly do: 'wait'; readonly ms: number }
  | { readonly do: 'crash' };

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    do: fc.constant('quote' as const),
    id: fc.nat(5),
    cpu: fc.nat(3_000),
    gpus: fc.nat(3),
    lifeMs: fc.integer({ min: 1, max: 50 }),
  }),
  fc.record({ do: fc.constant('accept' as const), id: fc.nat(5) }),
  fc.record({ do: fc.constant('end' as const), id: fc.nat(5) }),
  fc.record({ do: fc.constant('withhold' as const), ids: fc.array(fc.nat(6), { maxLength: 3 }) }),
  fc.record({ do: fc.constant('wait' as const), ms: fc.nat(30) }),
  fc.record({ do: fc.constant('crash' as const) }),
);

/** A node as it trades: quotes in memory, leases journaled before they are signed. */
class Seller {
  nowMs = 0;
  capacity: Capacity;
  readonly journal = new Map<string, Reservation>();
  readonly #devices: readonly Gpu[];

  constructor(devices: readonly Gpu[]) {
    this.#devices = devices;
    this.capacity = createCapacity(total, devices);
  }

  act(one: Step): void {
    switch (one.do) {
      case 'quote':
        return this.#quote(one);
      case 'accept':
        return this.#accept(String(one.id));
      case 'end':
        this.journal.delete(`lease-${one.id}`);
        this.capacity = release(this.capacity, `lease-${one.id}`);
        return undefined;
      case 'withhold':
        this.capacity = withhold(
          this.capacity,
          one.ids.map((id) => `gpu-${id}`),
        );
        return undefined;
      case 'wait':
        this.nowMs += one.ms;
        return undefined;
      case 'crash':
        return this.#restart();
    }
  }

  #quote({ id, cpu, gpus, lifeMs }: Extract<Step, { do: 'quote' }>): void {
    try {
      const wanted = hold(need(cpu, gpus), this.nowMs + lifeMs);
      this.capacity = reserve(this.capacity, `quote-${id}`, wanted, this.nowMs);
    } catch (error) {
      expect(error).toMatchObject({ code: 'market/no-capacity' });
    }
  }

  #accept(id: string): void {
    // A lease is accepted once.
    if (this.journal.has(`lease-${id}`)) return;
    const held = this.capacity.reservations.get(`quote-${id}`);
    const to = { id: `lease-${id}`, expiresMs: undefined };
    const kept = keep(this.capacity, `quote-${id}`, to, this.nowMs);
    if (kept === undefined || held === undefined) return;
    this.journal.set(`lease-${id}`, { ...held, expiresMs: undefined });
    this.capacity = kept;
  }

  #restart(): void {
    this.capacity = createCapacity(total, this.#devices);
    for (const [id, reservation] of this.journal) this.capacity = restore(this.capacity, id, reservation);
  }
}

function expectSound({ capacity, nowMs, journal }: Seller): void {
  const live = [...capacity.reservations.values()].filter(
    (entry) => entry.expiresMs === undefined || entry.expiresMs > nowMs,
  );
  const cpu = live.reduce((sum, entry) => sum + entry.need.cpuMillis, 0);
  expect(cpu).toBeLessThanOrEqual(total.cpuMillis);
  const free = freeResources(capacity, nowMs);
  expect(free.cpuMillis).toBe(total.cpuMillis - cpu);
  const given = live.flatMap((entry) => entry.gpus);
  expect(new Set(given).size).toBe(given.length);
  for (const { need: asked, gpus } of live) {
    expect(gpus).toHaveLength(asked.gpus.reduce((sum, group) => sum + group.count, 0));
    for (const id of gpus)
      expect(capacity.devices.find((one) => one.id === id)?.memoryBytes).toBeGreaterThanOrEqual(40);
  }
  const out = new Set([...given, ...capacity.withheld]);
  const freeGpus = free.gpus.reduce((sum, group) => sum + group.count, 0);
  expect(freeGpus).toBe(capacity.devices.filter(({ id }) => !out.has(id)).length);
  for (const [lease, { gpus }] of journal) expect(capacity.reservations.get(lease)?.gpus).toEqual(gpus);
  expect(utilisation(capacity, nowMs)).toBeLessThanOrEqual(1);
}

test('never sold twice, never leaked: any history of quotes, leases, expiries and crashes', () => {
  const machine = fc
    .array(fc.record({ memoryBytes: fc.constantFrom(24, 40, 80), near: fc.nat(6) }), { maxLength: 7 })
    .map((cards) =>
      cards.map(({ memoryBytes, near }, index) =>
        gpu(`gpu-${index}`, { memoryBytes, links: near === index ? {} : { [`gpu-${near}`]: 104 } }),
      ),
    );
  fc.assert(
    fc.property(machine, fc.array(step, { maxLength: 40 }), (devices, steps) => {
      const seller = new Seller(devices);
      for (const one of steps) {
        seller.act(one);
        expectSound(seller);
      }
      for (let id = 0; id <= 5; id++) seller.act({ do: 'end', id });
      seller.act({ do: 'wait', ms: 51 });
      seller.act({ do: 'withhold', ids: [] });
      expect(freeResources(seller.capacity, seller.nowMs)).toEqual(freeResources(createCapacity(total, devices), 0));
    }),
    { numRuns: 1_000 },
  );
});
