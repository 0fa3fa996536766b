/**
 * The phases of a job under a lease, as data: order, longest duration, and what a miss is called.
 *
 * Billing runs from the first instruction to the exit, so every phase before `running` is the provider's own time; the
 * deadlines keep a stuck phase from holding the buyer's money.
 */
import type { ErrorCode } from './errors.ts';

export interface PhaseRule {
  /** Longest stay, ms. `running` is bounded by the specification instead. */
  readonly deadlineMs: number | undefined;
  readonly onMiss: ErrorCode;
  readonly meaning: string;
}

export const JOB_PHASES = {
  queued: {
    deadlineMs: 60_000,
    onMiss: 'job/phase-timed-out',
    meaning: 'the lease is open, the specification is awaited',
  },
  fetching: {
    deadlineMs: 600_000,
    onMiss: 'job/phase-timed-out',
    meaning: 'inputs and module are copied and verified',
  },
  pulling: {
    deadlineMs: 600_000,
    onMiss: 'job/phase-timed-out',
    meaning: 'the image is pulled or the module prepared',
  },
  starting: { deadlineMs: 60_000, onMiss: 'job/phase-timed-out', meaning: 'the sandbox is made' },
  running: {
    deadlineMs: undefined,
    onMiss: 'job/timed-out',
    meaning: 'from the first instruction to the exit: the billed time',
  },
  collecting: {
    deadlineMs: 120_000,
    onMiss: 'job/phase-timed-out',
    meaning: 'outputs are read, hashed and kept; the proof is signed',
  },
  done: { deadlineMs: undefined, onMiss: 'job/phase-timed-out', meaning: 'proof published, settlement awaited' },
} as const satisfies Record<string, PhaseRule>;

export type JobPhase = keyof typeof JOB_PHASES;

/** Time before the run that a quote's finish-by allows for: fetching, pulling, starting, collecting on a normal day. */
export const OVERHEAD_ALLOWANCE_MS = 120_000;
