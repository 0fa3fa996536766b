/** A provider's job as its operator reads it, from what the journal keeps. Pure. */
import type { Address } from '../../protocol/address.ts';
import type { ErrorCode } from '../../protocol/errors.ts';
import { decodeJobSpec } from '../../protocol/job-spec.ts';
import type { RuntimeKind } from '../../protocol/messages.ts';
import { baseUnits, costOf } from '../../protocol/units.ts';
import type { Job, Phase } from '../provider/job.ts';

/** How a job stands, in one word. `ended`: the lease was closed on chain before there was a proof. */
export type Standing = 'open' | 'settled' | 'refunded' | 'never-opened' | 'ended';

/** Amounts are base units as decimal strings, times Unix ms. */
export interface JobSummary {
  readonly lease: Address;
  readonly phase: Phase;
  /** Since when it is in this phase. */
  readonly sinceMs: number;
  readonly standing: Standing;
  readonly attempt: number;
  readonly buyer: Address;
  readonly runtime: RuntimeKind;
  /** What runs, once the specification is here. */
  readonly image: string | null;
  readonly startedAtMs: number | null;
  readonly pricePerSecond: string;
  readonly locked: string;
  /** What the run costs so far; after its exit, what it cost. */
  readonly billed: string;
  /** Present once proven. */
  readonly claimed: string | null;
  readonly exit: { readonly reason: string; readonly exitCode: number | null; readonly detail: string } | null;
  readonly failure: { readonly code: ErrorCode; readonly message: string } | null;
  /** The buyer asked to stop. */
  readonly cancelled: boolean;
}

export function summarise(job: Job, nowMs: number): JobSummary {
  const { agreement, exit, failure, outcome } = job;
  const price = baseUnits(BigInt(agreement.pricePerSecond));
  return {
    lease: agreement.lease,
    phase: job.phase,
    sinceMs: job.phaseSinceMs,
    standing: standingOf(job),
    attempt: job.attempt,
    buyer: agreement.delegate,
    runtime: agreement.runtime,
    image: job.spec === undefined ? null : decodeJobSpec(Buffer.from(job.spec, 'base64')).image,
    startedAtMs: job.startedAtMs ?? null,
    pricePerSecond: agreement.pricePerSecond,
    locked: agreement.amount,
    billed: costOf(ranMs(job, nowMs), price, baseUnits(BigInt(agreement.amount))).toString(),
    claimed: outcome?.claimed ?? null,
    exit: exit === undefined ? null : { reason: exit.reason, exitCode: exit.exitCode ?? null, detail: exit.detail },
    failure: failure ?? null,
    cancelled: job.cancelled ?? false,
  };
}

function standingOf(job: Job): Standing {
  if (job.phase !== 'closed') return 'open';
  if (job.failure !== undefined) return 'refunded';
  if (job.outcome !== undefined) return 'settled';
  return job.spec === undefined ? 'never-opened' : 'ended';
}

function ranMs(job: Job, nowMs: number): number {
  if (job.exit !== undefined) return job.exit.durationMs;
  return job.phase === 'running' && job.startedAtMs !== undefined ? Math.max(0, nowMs - job.startedAtMs) : 0;
}
