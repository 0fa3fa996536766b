/**
 * Which of the free GPUs a job gets. Pure.
 *
 * In this order: the devices are as near each other as can be (their farthest pair decides, then all pairs together);
 * no more memory and capability than asked for is taken; the neighbours of what stays free are not torn apart; and the
 * ids decide, so that the answer is the same every time.
 */
import type { GpuGroup } from '../protocol/messages.ts';
import { fits } from './fit.ts';

/** A GPU as it is sold: given out whole, by its id. */
export interface Gpu {
  /** Stays the same across restarts. */
  readonly id: string;
  /** As the driver names it; printable, at most LIMITS.modelCharacters. */
  readonly model: string;
  /** Of its own; 0 where nobody tells (parts that share the host's memory). */
  readonly memoryBytes: number;
  /** CUDA compute capability in tenths: 89 is 8.9. 0 when not told, and for other vendors. */
  readonly computeCapability: number;
  /** PCI address, `domain:bus:device.function` in lower case, "" when not told. Slices of one card share it. */
  readonly busId: string;
  readonly numaNode: number | undefined;
  /** How near other devices are, by id: see CLOSENESS. Who is not named is as far as can be. */
  readonly links: Readonly<Record<string, number>>;
}

/**
 * Nearness of two devices, higher is nearer: the paths that drivers tell apart. Direct links between cards count with
 * how many of them are bonded, up to 99.
 */
export const CLOSENESS = {
  /** Slices of one card. */
  sameCard: 200,
  /** Plus the number of bonded links: NVLink, XGMI. */
  linked: 100,
  /** One PCIe switch. */
  sameSwitch: 40,
  /** Several PCIe switches below one host bridge. */
  sameBridge: 30,
  /** Through a host bridge. */
  hostBridge: 20,
  /** Between host bridges of one NUMA node. */
  sameNode: 10,
  /** Across NUMA nodes. */
  far: 0,
} as const;

/** Sets looked at before the search goes greedy: every set of up to 16 devices is tried. */
const SETS_MAX = 20_000;

/** Groups of equal devices, as offers carry them: largest memory first, then by name. Devices in `without` do not count. */
export function groupGpus(devices: readonly Gpu[], without: ReadonlySet<string> = new Set()): GpuGroup[] {
  const groups = new Map<string, GpuGroup>();
  for (const { id, model, memoryBytes, computeCapability } of devices) {
    const key = `${memoryBytes}/${computeCapability}/${model}`;
    const before = groups.get(key) ?? { count: 0, vramBytes: memoryBytes, model, computeCapability };
    groups.set(key, { ...before, count: before.count + (without.has(id) ? 0 : 1) });
  }
  return [...groups.values()].sort((a, b) => b.vramBytes - a.vramBytes || (a.model < b.model ? -1 : 1));
}

/** Ids for `need` out of what is not taken, sorted; undefined when there are not enough that suit. */
export function placeGpus(
  devices: readonly Gpu[],
  taken: ReadonlySet<string>,
  need: readonly GpuGroup[],
): readonly string[] | undefined {
  const wanted = need.reduce((sum, group) => sum + group.count, 0);
  if (wanted === 0) return [];
  const free = devices.filter((device) => !taken.has(device.id)).sort((a, b) => (a.id < b.id ? -1 : 1));
  if (!serves(free, need)) return undefined;
  const useful = free.filter((device) => need.some((group) => serves([device], [{ ...group, count: 1 }])));
  const best =
    combinations(useful.length, wanted) <= SETS_MAX
      ? bestSet(useful, free, need, wanted)
      : greedySet(useful, free, need);
  return best?.map((device) => device.id).sort();
}

function serves(devices: readonly Gpu[], need: readonly GpuGroup[]): boolean {
  return fits({ ...NOTHING, gpus: need }, { ...NOTHING, gpus: groupGpus(devices) }) === undefined;
}

const NOTHING = { cpuMillis: 0, memoryBytes: 0, diskBytes: 0 } as const;

function bestSet(
  useful: readonly Gpu[],
  free: readonly Gpu[],
  need: readonly GpuGroup[],
  size: number,
): readonly Gpu[] | undefined {
  let best: { readonly set: readonly Gpu[]; readonly score: readonly number[] } | undefined;
  for (const set of subsets(useful, size)) {
    if (need.length > 1 && !serves(set, need)) continue;
    const score = scoreOf(set, free);
    if (best === undefined || isBetter(score, best.score)) best = { set, score };
  }
  return best?.set;
}

/** Higher is better, first difference decides. */
function scoreOf(set: readonly Gpu[], free: readonly Gpu[]): readonly number[] {
  const pairs = set.flatMap((one, index) => set.slice(index + 1).map((other) => closeness(one, other)));
  const chosen = new Set(set.map((device) => device.id));
  const left = free.filter((device) => !chosen.has(device.id));
  const torn = set.reduce((sum, one) => sum + left.reduce((each, other) => each + closeness(one, other), 0), 0);
  return [
    pairs.length === 0 ? 0 : Math.min(...pairs),
    total(pairs),
    -total(set.map((device) => device.memoryBytes)),
    -total(set.map((device) => device.computeCapability)),
    -torn,
  ];
}

function isBetter(one: readonly number[], other: readonly number[]): boolean {
  for (const [index, value] of one.entries()) {
    const difference = value - (other[index] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return false;
}

/** For more devices than every set of can be looked at: from each device on, near ones first; the best of those sets. */
function greedySet(
  useful: readonly Gpu[],
  free: readonly Gpu[],
  need: readonly GpuGroup[],
): readonly Gpu[] | undefined {
  let best: { readonly set: readonly Gpu[]; readonly score: readonly number[] } | undefined;
  for (const seed of useful) {
    const set = grow(seed, useful, need);
    if (set === undefined) continue;
    const score = scoreOf(set, free);
    if (best === undefined || isBetter(score, best.score)) best = { set, score };
  }
  return best?.set;
}

/** A set that serves the need and has the seed in it, if there is one. */
function grow(seed: Gpu, useful: readonly Gpu[], need: readonly GpuGroup[]): Gpu[] | undefined {
  const chosen: Gpu[] = [];
  let candidates: readonly Gpu[] = [seed];
  let rest = useful;
  let open = need;
  while (open.length > 0) {
    const step = takeOne(candidates, rest, open);
    if (step === undefined) return undefined;
    chosen.push(step.device);
    rest = rest.filter((device) => device !== step.device);
    open = step.open;
    const nearness = new Map(rest.map((device) => [device, total(chosen.map((one) => closeness(one, device)))]));
    candidates = rest.toSorted(
      (a, b) => (nearness.get(b) ?? 0) - (nearness.get(a) ?? 0) || a.memoryBytes - b.memoryBytes,
    );
  }
  return chosen;
}

/** The first candidate that serves one of the open wishes so that the others can still be served. */
function takeOne(
  candidates: readonly Gpu[],
  rest: readonly Gpu[],
  open: readonly GpuGroup[],
): { readonly device: Gpu; readonly open: readonly GpuGroup[] } | undefined {
  for (const device of candidates) {
    const others = rest.filter((one) => one !== device);
    for (const group of open.filter((each) => serves([device], [{ ...each, count: 1 }]))) {
      const after = open
        .map((one) => (one === group ? { ...one, count: one.count - 1 } : one))
        .filter((one) => one.count > 0);
      if (serves(others, after)) return { device, open: after };
    }
  }
  return undefined;
}

/** The nearer of what the two say: drivers tell links from both ends. Where no path is told, one NUMA node is near. */
function closeness(one: Gpu, other: Gpu): number {
  const told = Math.max(one.links[other.id] ?? 0, other.links[one.id] ?? 0);
  const isSameNode = one.numaNode !== undefined && one.numaNode === other.numaNode;
  // Slices of one card share its address and are as near as can be.
  if (one.busId !== '' && one.busId === other.busId) return CLOSENESS.sameCard;
  return Math.max(told, isSameNode ? CLOSENESS.sameNode : CLOSENESS.far);
}

function total(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}

function combinations(of: number, size: number): number {
  let count = 1;
  for (let index = 0; index < Math.min(size, of - size); index++) {
    count = (count * (of - index)) / (index + 1);
    if (count > SETS_MAX) return Infinity;
  }
  return count;
}

function* subsets<T>(items: readonly T[], size: number, from = 0): Generator<readonly T[]> {
  if (size === 0) {
    yield [];
    return;
  }
  for (let index = from; index <= items.length - size; index++) {
    for (const rest of subsets(items, size - 1, index + 1)) yield [items[index] as T, ...rest];
  }
}
