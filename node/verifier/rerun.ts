/** Running a disputed WebAssembly job again, in the sandbox in which jobs run, from nothing but its specification and content. */
import { createHash } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import type { Observed, Rerun } from '../../attestation/index.ts';
import type { Address } from '../../protocol/address.ts';
import { storedInputs } from '../../protocol/job-spec.ts';
import { LIMITS } from '../../protocol/limits.ts';
import type { Artifacts } from '../mesh/index.ts';
import { endingOf } from '../provider/evidence.ts';
import { collectOutputs, sha256OfFile } from '../provider/outputs.ts';
import { runTermsOf } from '../provider/run-terms.ts';
import type { Run, Runtime } from '../runtime/index.ts';
import { MOLT_VERSION } from '../version.ts';

export interface RerunParts {
  readonly artifacts: Artifacts;
  readonly runtime: Runtime;
  /** Where a folder of its own is made, and removed again. */
  readonly directory: string;
}

export interface RerunRequest extends Rerun {
  readonly lease: Address;
  /** Longest run: what takes longer is stopped, and says nothing. */
  readonly durationMs: number;
  readonly signal: AbortSignal;
}

/** What the job comes to here. Throws what fetching, starting and collecting throw, and the signal's reason. */
export async function runAgain(parts: RerunParts, request: RerunRequest): Promise<Observed> {
  const { artifacts, runtime } = parts;
  const { lease, spec, proof, signal } = request;
  const folder = join(parts.directory, lease);
  const attemptId = `verify-${lease}`;
  const [inputs, outputs, module] = [join(folder, 'in'), join(folder, 'out'), join(folder, 'module.wasm')];
  try {
    await rm(folder, { recursive: true, force: true });
    for (const path of [inputs, outputs]) await mkdir(path, { recursive: true, mode: 0o700 });
    const maxBytes = spec.resources.diskBytes + LIMITS.artifactBlockBytes;
    await artifacts.export(spec.image, module, { maxBytes, maxEntries: 1 });
    for (const { cid, path } of storedInputs(spec)) {
      const target = join(inputs, path);
      await mkdir(dirname(target), { recursive: true });
      await artifacts.export(cid, target, { maxBytes, maxEntries: LIMITS.artifactEntries });
    }
    const terms = runTermsOf(spec, { specDigest: proof.specDigest });
    // Not the job's own longest time: this machine may be slower than the one that ended in it.
    const limits = { ...terms.limits, durationMs: request.durationMs };
    const image = { kind: 'module', path: module, digest: await sha256OfFile(module) } as const;
    const own = { attemptId, image, inputDirectory: inputs, outputDirectory: outputs };
    return await observe(parts, request, await runtime.start({ ...terms, ...own, limits }, signal), outputs);
  } finally {
    await runtime.remove(attemptId);
    await rm(folder, { recursive: true, force: true });
  }
}

async function observe(
  { artifacts }: RerunParts,
  { spec, signal }: RerunRequest,
  run: Run,
  directory: string,
): Promise<Observed> {
  const onAbort = (): void => void run.stop(0);
  signal.addEventListener('abort', onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    const stdout = createHash('sha256');
    for await (const { stream, bytes } of run.logs) if (stream === 'stdout') stdout.update(bytes);
    const exit = await run.exit;
    signal.throwIfAborted();
    const collected = await collectOutputs(artifacts, spec, directory, signal);
    for (const { cid } of collected.outputs) await artifacts.remove(cid);
    return {
      reason: endingOf(exit, collected).reason,
      exitCode: exit.exitCode,
      ...(exit.fuel === undefined ? {} : { fuel: exit.fuel }),
      stdoutSha256: stdout.digest('hex'),
      outputs: collected.outputs.map(({ name, cid }) => ({ name, cid })),
      version: MOLT_VERSION,
    };
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
