/** Does what is needed fit into what is free? One answer for offers, quotes and a node's own capacity. */
import { assert } from '../protocol/errors.ts';
import type { GpuGroup, Resources } from '../protocol/messages.ts';
import { LIMITS } from '../protocol/limits.ts';
import { formatBytes } from '../protocol/units.ts';

/** What is short first, with the numbers in `reason`. */
export interface Shortfall {
  readonly what: 'cpu' | 'memory' | 'disk' | 'gpu';
  /** For people: "2 CPU cores needed, 1.5 free". */
  readonly reason: string;
}

/** Undefined when `need` fits into `free`. */
export function fits(need: Resources, free: Resources): Shortfall | undefined {
  if (need.cpuMillis > free.cpuMillis) {
    return {
      what: 'cpu',
      reason: `${cores(need.cpuMillis)} needed, ${free.cpuMillis / 1000} free`,
    };
  }
  if (need.memoryBytes > free.memoryBytes) {
    return {
      what: 'memory',
      reason: `${formatBytes(need.memoryBytes)} of memory needed, ${formatBytes(free.memoryBytes)} free`,
    };
  }
  if (need.diskBytes > free.diskBytes) {
    return {
      what: 'disk',
      reason: `${formatBytes(need.diskBytes)} of disk needed, ${formatBytes(free.diskBytes)} free`,
    };
  }
  return gpuShortfall(need.gpus, free.gpus);
}

/**
 * Hall's condition: the groups can be served together exactly when every subset of them finds enough devices that suit
 * at least one of its members. At most 2^4 subsets, so trying them all is both exact and cheap.
 */
function gpuShortfall(need: readonly GpuGroup[], free: readonly GpuGroup[]): Shortfall | undefined {
  assert(need.length <= LIMITS.gpuKindsPerMessage, 'kinds of GPU are bounded where messages and specs are decoded');
  for (let subset = 1; subset < 2 ** need.length; subset++) {
    const wanted = need.filter((_, index) => (subset >> index) % 2 === 1);
    const wantedCount = count(wanted);
    const freeCount = count(free.filter((group) => wanted.some((want) => suits(want, group))));
    if (wantedCount > freeCount) {
      return {
        what: 'gpu',
        reason: `${wanted.map(describeGpus).join(' and ')} needed, ${freeCount} such free`,
      };
    }
  }
  return undefined;
}

function suits(want: GpuGroup, group: GpuGroup): boolean {
  return (
    group.vramBytes >= want.vramBytes &&
    group.computeCapability >= want.computeCapability &&
    (want.model === '' || want.model === group.model)
  );
}

function count(groups: readonly GpuGroup[]): number {
  return groups.reduce((sum, group) => sum + group.count, 0);
}

function describeGpus(want: GpuGroup): string {
  const memory = want.vramBytes === 0 ? '' : ` with ${formatBytes(want.vramBytes)}`;
  const capability = want.computeCapability === 0 ? '' : ` of capability ${want.computeCapability / 10} or more`;
  return `${want.count} × ${want.model === '' ? 'GPU' : want.model}${memory}${capability}`;
}

function cores(millis: number): string {
  return `${millis / 1000} CPU ${millis === 1000 ? 'core' : 'cores'}`;
}
