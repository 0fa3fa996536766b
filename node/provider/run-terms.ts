/** What of a run follows from the job alone, wherever it runs: a second run of a WebAssembly job comes to the same by it. */
import type { JobSpec } from '../../protocol/job-spec.ts';
import { LIMITS } from '../../protocol/limits.ts';
import type { RunRequest } from '../runtime/index.ts';

const PROCESSES_MAX = 256;
/** Frameworks start several threads for each GPU and each loader of data. */
const GPU_PROCESSES_MAX = 1_024;

export type RunTerms = Omit<RunRequest, 'attemptId' | 'image' | 'inputDirectory' | 'outputDirectory' | 'secrets'>;

/** `specDigest`: 64 hex digits. */
export function runTermsOf(
  spec: JobSpec,
  { specDigest, gpus = [] }: { readonly specDigest: string; readonly gpus?: readonly string[] },
): RunTerms {
  return {
    command: spec.command,
    environment: spec.environment,
    collects: spec.outputs.length > 0,
    ...(spec.workdir === undefined ? {} : { workdir: spec.workdir }),
    egress: spec.network.egress,
    services: spec.services.map(({ port }) => port),
    sandbox: spec.sandbox,
    gpus,
    limits: {
      cpus: spec.resources.cpuMillis / 1000,
      memoryBytes: spec.resources.memoryBytes,
      diskBytes: spec.resources.diskBytes,
      durationMs: spec.maxDurationSeconds * 1000,
      ...(spec.fuel === undefined ? {} : { fuel: BigInt(spec.fuel) }),
      logBytes: LIMITS.logBytes,
      processes: gpus.length === 0 ? PROCESSES_MAX : GPU_PROCESSES_MAX,
    },
    randomSeed: Buffer.from(specDigest, 'hex'),
    clockStartMs: spec.clockMs,
  };
}
