/** Goal: several GPUs are chosen by how near they are, and what stays free stays worth having. Method: known machines, properties. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { CLOSENESS, type Gpu, groupGpus, placeGpus } from '../../market/index.ts';
import type { GpuGroup } from '../../protocol/messages.ts';

const GB = 10 ** 9;
const want = (count: number, more: Partial<GpuGroup> = {}): GpuGroup => ({
  count,
  vramBytes: 0,
  model: '',
  computeCapability: 0,
  ...more,
});

function device(id: string, more: Partial<Gpu> = {}): Gpu {
  return {
    id,
    model: 'X',
    memoryBytes: 80 * GB,
    computeCapability: 90,
    busId: '',
    numaNode: undefined,
    links: {},
    ...more,
  };
}

/** A machine from a list of near pairs: [one, other, closeness]. */
function machine(
  ids: string,
  pairs: readonly (readonly [string, string, number])[],
  more: Readonly<Record<string, Partial<Gpu>>> = {},
): Gpu[] {
  return ids.split('').map((id) => {
    const near = pairs.flatMap(([a, b, closeness]): [string, number][] =>
      a === id ? [[b, closeness]] : b === id ? [[a, closeness]] : [],
    );
    return device(id, { links: Object.fromEntries(near), ...more[id] });
  });
}

const place = (devices: readonly Gpu[], taken: string, ...need: GpuGroup[]): string | undefined =>
  placeGpus(devices, new Set(taken), need)?.join('');

const nvlink = CLOSENESS.linked + 4;

describe('what is chosen', () => {
  // a–b and c–d are bonded pairs; e and f share a switch; all else is far, e and f on the NUMA node of a and b.
  const devices = machine(
    'abcdef',
    [
      ['a', 'b', nvlink],
      ['c', 'd', nvlink],
      ['e', 'f', CLOSENESS.sameSwitch],
    ],
    {
      a: { numaNode: 0 },
      b: { numaNode: 0 },
      e: { numaNode: 0 },
      f: { numaNode: 0 },
      c: { numaNode: 1 },
      d: { numaNode: 1 },
    },
  );

  test.each([
    ['two get a bonded pair', '', [want(2)], 'cd'],
    ['two get the other bonded pair when the first is broken', 'c', [want(2)], 'ab'],
    ['two get a shared switch when no bonded pair is whole', 'ac', [want(2)], 'ef'],
    ['two get one NUMA node when nothing nearer is left', 'acf', [want(2)], 'be'],
    ['two get what there is when all are far', 'abef', [want(2)], 'cd'],
    ['one gets a single, so that pairs stay whole', '', [want(1)], 'e'],
    ['one gets the leftover of a broken pair before a whole one is torn', 'aef', [want(1)], 'b'],
    ['four get two that belong together and two more that do', 'd', [want(4)], 'abef'],
    ['nothing is chosen when there are too few', 'abc', [want(4)], undefined],
    ['nothing is needed', '', [], ''],
  ])('%s', (_name, taken, need, expected) => {
    expect(place(devices, taken, ...need)).toBe(expected);
  });

  test('the smallest that suits is taken, the large one stays for who needs it', () => {
    const mixed = [
      device('big', { memoryBytes: 141 * GB }),
      device('small', { memoryBytes: 24 * GB, computeCapability: 89 }),
    ];
    expect(placeGpus(mixed, new Set(), [want(1)])).toEqual(['small']);
    expect(placeGpus(mixed, new Set(), [want(1, { vramBytes: 25 * GB })])).toEqual(['big']);
    expect(placeGpus(mixed, new Set(), [want(1, { computeCapability: 90 })])).toEqual(['big']);
  });

  test('two wishes get two devices, each the one it needs', () => {
    const mixed = [device('h', { model: 'H' }), device('l', { model: 'L', memoryBytes: 24 * GB })];
    expect(placeGpus(mixed, new Set(), [want(1), want(1, { model: 'H' })])).toEqual(['h', 'l']);
    expect(placeGpus(mixed, new Set('l'), [want(1), want(1, { model: 'H' })])).toBeUndefined();
  });

  test('slices of one card go together before slices of two', () => {
    const slice = (id: string, busId: string): Gpu => device(id, { busId });
    const slices = [slice('a0', '0000:01:00.0'), slice('b0', '0000:02:00.0'), slice('a1', '0000:01:00.0')];
    expect(placeGpus(slices, new Set(), [want(2)])).toEqual(['a0', 'a1']);
  });
});

test('groups carry counts of what is free; a kind that is all in use stays, with none', () => {
  const devices = [device('a'), device('b'), device('c', { model: 'Y', memoryBytes: 24 * GB })];
  expect(groupGpus(devices, new Set(['a', 'c']))).toEqual([
    { count: 1, vramBytes: 80 * GB, model: 'X', computeCapability: 90 },
    { count: 0, vramBytes: 24 * GB, model: 'Y', computeCapability: 90 },
  ]);
});

const anyMachine = fc
  .tuple(
    fc.array(
      fc.record({
        model: fc.constantFrom('X', 'Y'),
        memoryBytes: fc.constantFrom(24 * GB, 80 * GB),
        numaNode: fc.nat(1),
      }),
      { maxLength: 8 },
    ),
    fc.array(fc.tuple(fc.nat(7), fc.nat(7), fc.constantFrom(...Object.values(CLOSENESS))), { maxLength: 12 }),
  )
  .map(([cards, pairs]) => {
    const ids = 'abcdefgh'.slice(0, cards.length);
    const named = pairs.flatMap(([a, b, near]): [string, string, number][] =>
      a !== b && a < cards.length && b < cards.length ? [[ids[a] ?? '', ids[b] ?? '', near]] : [],
    );
    return machine(ids, named, Object.fromEntries(cards.map((card, index) => [ids[index], card])));
  });
const anyNeed = fc.array(
  fc.record({
    count: fc.integer({ min: 1, max: 3 }),
    vramBytes: fc.constantFrom(0, 30 * GB),
    model: fc.constantFrom('', 'X', 'Y'),
    computeCapability: fc.constant(0),
  }),
  { maxLength: 3 },
);

test('what is chosen is free, is as many as asked, can be paired with the wishes, and does not depend on the order', () => {
  fc.assert(
    fc.property(anyMachine, fc.array(fc.constantFrom(...'abcdefgh'.split(''))), anyNeed, (devices, taken, need) => {
      const chosen = placeGpus(devices, new Set(taken), need);
      const free = devices.filter(({ id }) => !taken.includes(id));
      const wishes = need.flatMap((group) => Array.from({ length: group.count }, () => group));
      expect(chosen !== undefined).toBe(pairs(wishes, free));
      if (chosen === undefined) return;
      expect(new Set(chosen).size).toBe(wishes.length);
      const got = free.filter(({ id }) => chosen.includes(id));
      expect(got).toHaveLength(wishes.length);
      expect(pairs(wishes, got)).toBe(true);
      expect(placeGpus(devices.toReversed(), new Set(taken), need)).toEqual(chosen);
    }),
    { numRuns: 300 },
  );
});

/** Every wish finds a device of its own: tried exhaustively. */
function pairs(wishes: readonly GpuGroup[], devices: readonly Gpu[]): boolean {
  const [wish, ...others] = wishes;
  if (wish === undefined) return true;
  return devices.some(
    (one) =>
      one.memoryBytes >= wish.vramBytes &&
      (wish.model === '' || wish.model === one.model) &&
      pairs(
        others,
        devices.filter((other) => other !== one),
      ),
  );
}

test('on a machine too large to try every set, near devices are still found together', () => {
  const ids = Array.from({ length: 64 }, (_, index) => `g${String(index).padStart(2, '0')}`);
  const devices = ids.map((id, index) => {
    const mates = ids.filter((_, other) => other !== index && other >> 3 === index >> 3);
    return device(id, { links: Object.fromEntries(mates.map((mate) => [mate, nvlink])) });
  });
  const taken = new Set(ids.filter((_, index) => index % 8 < 4 && index < 56));
  expect(placeGpus(devices, taken, [want(8)])).toEqual(ids.slice(56));
});
