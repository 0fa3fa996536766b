/**
 * What a run leaves as evidence: its outputs, content-addressed, and the signed proof over them.
 */
import { type Transcript, makeProof } from '../../attestation/index.ts';
import type { Address } from '../../protocol/address.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import { assert } from '../../protocol/errors.ts';
import { type JobSpec, recordedInputs } from '../../protocol/job-spec.ts';
import { LIMITS } from '../../protocol/limits.ts';
import { baseUnits, costOf } from '../../protocol/units.ts';
import { MOLT_VERSION } from '../version.ts';
import type { Exit, Job, Outcome } from './job.ts';
import type { CollectedOutputs } from './outputs.ts';

/** A program that ended well, but without its outputs, did not end well. */
export function endingOf(
  exit: Pick<Exit, 'reason' | 'detail' | 'exitCode'>,
  { missing, tooLarge }: CollectedOutputs,
): { readonly reason: string; readonly detail: string } {
  const { reason, detail, exitCode } = exit;
  if (reason !== 'exited' || exitCode !== 0) return { reason, detail };
  const told = (text: string): string => text.replaceAll(/\p{Cc}/gu, ' ').slice(0, LIMITS.refusalCharacters);
  if (tooLarge !== undefined) return { reason: 'output-too-large', detail: told(tooLarge) };
  if (missing.length === 0) return { reason, detail };
  return {
    reason: 'output-missing',
    detail: told(`the program ended well but did not write ${missing.join(', ')} under /out`),
  };
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
  const { outputs } = collected;
  const ending = endingOf(exit, collected);
  const billedMs = Math.ceil(exit.durationMs);
  const claimed = costOf(billedMs, baseUnits(BigInt(agreement.pricePerSecond)), baseUnits(BigInt(agreement.amount)));
  const { logRoot, logLeaves, meterHead, samples, stdoutSha256 } = transcript.finish();
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
      ...(agreement.gpus === undefined || agreement.gpus.length === 0 ? {} : { gpus: [...agreement.gpus] }),
      inputs: recordedInputs(spec).map((input) => ({ ...input, cid: input.cid ?? job.inputs?.[input.path] ?? '' })),
      outputs: [...outputs],
      exit: { ...ending, exitCode: exit.exitCode },
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
        stdoutSha256,
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
