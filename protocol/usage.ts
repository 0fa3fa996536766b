/**
 * What a run uses, as it is sampled, told to the buyer and chained into the transcript: one list of fields for all three.
 */
import type { UsageEvent } from './molt.js';

/** In the order of the transcript's hash. Append-only. */
export const USAGE_FIELDS = [
  'elapsedMs',
  'cpuMs',
  'memoryBytes',
  'networkRxBytes',
  'networkTxBytes',
  'blockReadBytes',
  'blockWriteBytes',
  'gpuPercent',
  'gpuMemoryBytes',
] as const;

/**
 * Whole numbers ≥ 0. `elapsedMs` counts from the first instruction; bytes of network and block devices are totals so far;
 * `gpuPercent` is 0 … 100, the mean over the job's GPUs. What a runtime has none of is 0.
 */
export type UsageSample = { readonly [Field in (typeof USAGE_FIELDS)[number]]: number };

export function encodeUsage(sample: UsageSample): UsageEvent {
  const { elapsedMs, cpuMs, memoryBytes, gpuPercent, gpuMemoryBytes } = sample;
  return {
    elapsedMs: BigInt(elapsedMs),
    cpuMs: BigInt(cpuMs),
    memoryBytes: BigInt(memoryBytes),
    networkRxBytes: BigInt(sample.networkRxBytes),
    networkTxBytes: BigInt(sample.networkTxBytes),
    blockReadBytes: BigInt(sample.blockReadBytes),
    blockWriteBytes: BigInt(sample.blockWriteBytes),
    gpuPercent,
    gpuMemoryBytes: BigInt(gpuMemoryBytes),
  };
}

/** A peer's numbers may be beyond 2^53; the transcript refuses those. */
export function decodeUsage(event: UsageEvent): UsageSample {
  const sample = {} as { [Field in (typeof USAGE_FIELDS)[number]]: number };
  for (const field of USAGE_FIELDS) sample[field] = Number(event[field]);
  return sample;
}
