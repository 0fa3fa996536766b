/**
 * What a run leaves as evidence: its outputs, content-addressed, and the signed proof over them.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { lstat } from 'node:fs/promises';
import { join } from 'node:path';

import { CID } from 'multiformats/cid';

import { type Transcript, makeProof } from '../../attestation/index.ts';
import type { Address } from '../../protocol/address.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import { assert } from '../../protocol/errors.ts';
import { type JobSpec, storedInputs } from '../../protocol/job-spec.ts';
import { baseUnits, costOf } from '../../protocol/units.ts';
import type { Artifacts } from '../mesh/index.ts';
import { MOLT_VERSION } from '../version.ts';
import type { Job, Outcome } from './job.ts';

export interface CollectedOutputs {
  readonly outputs: readonly {
    readonly name: string;
    readonly path: string;
    readonly cid: string;
    readonly sha256: string;
    readonly sizeBytes: number;
  }[];
  /** Declared paths that the program did not write. */
  readonly missing: readonly string[];
}

/** Imports the declared outputs below `directory`. Links and devices count as not written. Throws `job/disk-full`. */
export async function collectOutputs(
  artifacts: Artifacts,
  spec: JobSpec,
  directory: string,
): Promise<CollectedOutputs> {
  const outputs: CollectedOutputs['outputs'][number][] = [];
  const missing: string[] = [];
  for (const { name, path } of spec.outputs) {
    const source = join(directory, path);
    const found = await lstat(source).catch(() => undefined);
    if (found === undefined || (!found.isFile() && !found.isDirectory())) {
      missing.push(path);
      continue;
    }
    const { cid, sizeBytes } = await artifacts.add(source);
    const sha256 = found.isFile() ? await sha256OfFile(source) : sha256OfCid(cid);
    outputs.push({ name, path, cid, sizeBytes, sha256 });
  }
  return { outputs, missing };
}

/** Signs the statement over the run. A program that ended well without its outputs did not end well. */
export function proveRun(run: {
  readonly key: KeyPair;
  readonly network: Address;
  readonly job: Job;
  readonly spec: JobSpec;
  readonly collected: CollectedOutputs;
  readonly transcript: Transcript;
}): {
  readonly outcome: Outcome;
  readonly event: { envelope: Uint8Array; commit: Uint8Array; commitSignature: Uint8Array };
} {
  const { job, spec, collected, transcript } = run;
  const { agreement, exit } = job;
  assert(exit !== undefined, 'a proof follows the exit');
  const { missing, outputs } = collected;
  const lacking = missing.length > 0 && exit.reason === 'exited' && exit.exitCode === 0;
  const detail = lacking ? `the program ended well but did not write ${missing.join(', ')} under /out` : exit.detail;
  const billedMs = Math.ceil(exit.durationMs);
  const claimed = costOf(billedMs, baseUnits(BigInt(agreement.pricePerSecond)), baseUnits(BigInt(agreement.amount)));
  const { logRoot, logLeaves, meterHead, samples } = transcript.finish();
  const { lease, termsDigest, specDigest, budget, delegate, provider, operator, pricePerSecond, amount } = agreement;
  const proof = makeProof({
    signer: run.key,
    facts: {
      network: run.network,
      lease,
      termsDigest,
      specDigest,
      budget,
      buyer: delegate,
      provider,
      operator,
      attempt: job.attempt,
      runtime: { kind: spec.runtime, version: MOLT_VERSION },
      image: { reference: spec.image },
      inputs: [...storedInputs(spec)],
      outputs: [...outputs],
      exit: { reason: lacking ? 'output-missing' : exit.reason, exitCode: exit.exitCode, detail },
      startedAtMs: exit.startedAtMs,
      finishedAtMs: exit.finishedAtMs,
      billedMs,
      pricePerSecond,
      locked: amount,
      claimed: claimed.toString(),
      usage: {
        cpuMs: Math.round(exit.cpuMs),
        memoryPeakBytes: exit.memoryPeakBytes,
        ...(exit.fuel === undefined ? {} : { fuel: exit.fuel }),
      },
      logs: {
        root: logRoot,
        leaves: logLeaves,
        stdoutBytes: transcript.logBytes.stdout,
        stderrBytes: transcript.logBytes.stderr,
      },
      metering: { head: meterHead, samples },
      software: MOLT_VERSION,
    },
  });
  const { envelope, commit, commitSignature } = proof;
  return {
    outcome: {
      proofDigest: Buffer.from(proof.proofDigest).toString('hex'),
      claimed: claimed.toString(),
      outputs: outputs.map((output) => output.cid),
    },
    event: { envelope, commit, commitSignature },
  };
}

/** 64 hex digits. */
export async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Uint8Array);
  return hash.digest('hex');
}

/** A folder is named by the SHA-256 of its root block. */
function sha256OfCid(cid: string): string {
  return Buffer.from(CID.parse(cid).multihash.digest).toString('hex');
}
