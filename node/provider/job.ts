/**
 * The provider's view of one job, as a pure state machine: (state, input) → (state, effects).
 *
 * Contract: the shell (jobs.ts) journals the new state before it performs the effects, and feeds their outcome back as
 * inputs; an input that the table has no entry for in the present phase is dropped, so late or repeated outcomes do no
 * harm. Whatever happens, a job ends in `closed`, its capacity is released once, when nothing of it runs any more, and
 * every end on chain is one of the lease table (protocol/lease.ts).
 */
import type { Address } from '../../protocol/address.ts';
import type { ErrorCode } from '../../protocol/errors.ts';
import { JOB_PHASES } from '../../protocol/job.ts';
import { LIMITS } from '../../protocol/limits.ts';
import type { Resources, RuntimeKind } from '../../protocol/messages.ts';

export const PHASES = [
  'accepted',
  'queued',
  'fetching',
  'pulling',
  'starting',
  'running',
  'collecting',
  'done',
  'claimed',
  'refunding',
  'closed',
] as const;
export type Phase = (typeof PHASES)[number];

/** What was agreed, in a form that survives the journal (JSON): amounts as decimal strings, digests as hex. */
export interface Agreement {
  readonly lease: Address;
  readonly quoteId: string;
  readonly budget: Address;
  readonly provider: Address;
  readonly operator: Address;
  readonly delegate: Address;
  readonly buyerAddresses: readonly string[];
  readonly specDigest: string;
  readonly termsDigest: string;
  readonly amount: string;
  readonly pricePerSecond: string;
  readonly reserve: string;
  readonly openBeforeMs: number;
  readonly finishByMs: number;
  readonly graceMs: number;
  readonly windowMs: number;
  readonly need: Resources;
  /** Ids of the GPUs that the job gets; an agreement from before there were any has none. */
  readonly gpus?: readonly string[];
  readonly runtime: RuntimeKind;
  readonly durationSecondsMax: number;
  /** The inputs that the bid named: they are kept for the next job. Absent where it named none. */
  readonly near?: readonly string[];
  /** The signed quote, base64: what a verifier is shown. An agreement from before it was kept has none. */
  readonly quote?: string;
  /** By when the quote promised the start, on this node's clock; absent where it promised nothing. */
  readonly startByMs?: number;
  /** Wall clock of this node; an agreement from before it was kept has none. */
  readonly acceptedAtMs?: number;
}

export interface Exit {
  readonly reason: string;
  readonly exitCode: number | undefined;
  readonly detail: string;
  readonly startedAtMs: number;
  readonly finishedAtMs: number;
  readonly durationMs: number;
  readonly cpuMs: number;
  readonly memoryPeakBytes: number;
  readonly fuel: string | undefined;
}

export interface Outcome {
  readonly proofDigest: string;
  readonly claimed: string;
  readonly outputs: readonly string[];
}

export interface Failure {
  readonly code: ErrorCode;
  readonly message: string;
}

export interface Job {
  readonly agreement: Agreement;
  readonly phase: Phase;
  readonly phaseSinceMs: number;
  /** Counts starts of the run; results of an earlier attempt are dropped. */
  readonly attempt: number;
  /** dag-cbor of the specification, base64, once received. */
  readonly spec?: string;
  readonly hasSecrets?: boolean;
  /** CIDs of the inputs by path, once they are here: what a URL gave this time. */
  readonly inputs?: Readonly<Record<string, string>>;
  readonly startedAtMs?: number;
  readonly exit?: Exit;
  readonly outcome?: Outcome;
  readonly failure?: Failure;
  /** The buyer asked to stop; the run ends early and is billed for what ran. */
  readonly cancelled?: boolean;
  /** Nothing of it runs or will run: its capacity was given back, whatever the chain still has to say. */
  readonly vacated?: boolean;
  /** When a waiting phase tries its effect (next), Unix ms. */
  readonly retryAtMs?: number;
}

export type Input =
  | { readonly type: 'lease-funded' }
  | { readonly type: 'lease-missing' }
  | { readonly type: 'spec'; readonly spec: string; readonly hasSecrets: boolean }
  | { readonly type: 'fetched'; readonly attempt: number; readonly inputs: Readonly<Record<string, string>> }
  | { readonly type: 'prepared'; readonly attempt: number }
  | { readonly type: 'started'; readonly attempt: number; readonly startedAtMs: number }
  | { readonly type: 'exited'; readonly attempt: number; readonly exit: Exit }
  | { readonly type: 'collected'; readonly attempt: number; readonly outcome: Outcome }
  | { readonly type: 'failed'; readonly attempt: number; readonly failure: Failure }
  | { readonly type: 'cancel' }
  | { readonly type: 'tick' }
  | { readonly type: 'restarted'; readonly adopted: boolean }
  | { readonly type: 'claim-confirmed' }
  | { readonly type: 'lease-closed' };

export type Effect =
  | { readonly type: 'await-lease' }
  | { readonly type: 'fetch' }
  | { readonly type: 'prepare' }
  | { readonly type: 'start' }
  | { readonly type: 'adopt' }
  | { readonly type: 'stop' }
  | { readonly type: 'collect' }
  | { readonly type: 'claim' }
  | { readonly type: 'settle-lapsed' }
  | { readonly type: 'refund' }
  | { readonly type: 'release' }
  | { readonly type: 'tell-phase' }
  | { readonly type: 'tell-failure'; readonly failure: Failure }
  | { readonly type: 'tell-closed' };

export interface Decision {
  readonly job: Job;
  readonly effects: readonly Effect[];
}

/** How long the provider waits for the buyer's signature after the proof before it claims on chain alone. */
export const SETTLE_PATIENCE_MS = 8_000;
/** How long after `openBefore` a co-signed lease may still appear before the hold is dropped. */
export const OPEN_SLACK_MS = 5_000;
/** A run is taken up again after a restart at most this often. */
export const ATTEMPTS_MAX = 3;
/** How often a chain effect of a waiting phase is tried again. */
const RETRY_EVERY_MS = 3_000;

type Handler<T extends Input['type']> = (job: Job, input: Extract<Input, { type: T }>, nowMs: number) => Decision;
type Row = { readonly [T in Input['type']]?: Handler<T> };

/** A job whose lease was co-signed and not yet seen on chain. */
export function acceptJob(agreement: Agreement, nowMs: number): Decision {
  return { job: { agreement, phase: 'accepted', phaseSinceMs: nowMs, attempt: 1 }, effects: [{ type: 'await-lease' }] };
}

const to = (job: Job, phase: Phase, nowMs: number, ...effects: readonly Effect[]): Decision => ({
  job: { ...job, phase, phaseSinceMs: nowMs },
  effects: [{ type: 'tell-phase' }, ...effects],
});

const stay = (job: Job, ...effects: readonly Effect[]): Decision => ({ job, effects });

/** What the job took is free as soon as nothing of it runs: settling may take a whole challenge window. Once a job. */
function vacate({ job, effects }: Decision): Decision {
  if (job.vacated === true) return { job, effects };
  return { job: { ...job, vacated: true }, effects: [...effects, { type: 'release' }] };
}

/** Before anything ran there is nothing to bill: the lock goes back whole. */
function refund(job: Job, failure: Failure, nowMs: number): Decision {
  return vacate({
    job: { ...job, phase: 'refunding', phaseSinceMs: nowMs, retryAtMs: nowMs + RETRY_EVERY_MS, failure },
    effects: [{ type: 'tell-failure', failure }, { type: 'stop' }, { type: 'refund' }],
  });
}

const close = (job: Job, nowMs: number): Decision =>
  vacate({
    job: { ...job, phase: 'closed', phaseSinceMs: nowMs },
    effects: [{ type: 'stop' }, { type: 'tell-closed' }],
  });

const cancelledFailure: Failure = {
  code: 'job/cancelled',
  message: 'the buyer cancelled the job before it ran; nothing is owed',
};

/**
 * Finish-by on this node's clock, at most one life of a quote late: the chain's clock may differ by minutes, but the quote
 * was made at most so long before it was accepted.
 */
function finishByWallMs({ acceptedAtMs, finishByMs, openBeforeMs }: Agreement): number {
  return acceptedAtMs === undefined ? Infinity : acceptedAtMs + (finishByMs - openBeforeMs) + LIMITS.quoteLifetimeMs;
}

/** The time of the start is what the proof will say: a later one would be refused, so the money goes back at once. */
function startedLate(job: Job, startedAtMs: number, nowMs: number): Decision | undefined {
  const { startByMs } = job.agreement;
  if (startByMs === undefined || startedAtMs <= startByMs) return undefined;
  const message = 'the job had not begun when its quote promised; the money goes back';
  return refund(job, { code: 'job/started-late', message }, nowMs);
}

function missed(job: Job, nowMs: number): Decision | undefined {
  const late = job.startedAtMs === undefined ? startedLate(job, nowMs, nowMs) : undefined;
  if (late !== undefined) return late;
  if (nowMs >= finishByWallMs(job.agreement) && job.startedAtMs === undefined) {
    // The promise is broken already; the money given back now costs no stake.
    const message = 'the time in which the job was to be finished is over before it began; the money goes back';
    return refund(job, { code: 'job/phase-timed-out', message }, nowMs);
  }
  const rule = JOB_PHASES[job.phase as keyof typeof JOB_PHASES];
  const limit = rule?.deadlineMs;
  if (limit === undefined || nowMs - job.phaseSinceMs < limit) return undefined;
  return refund(
    job,
    { code: rule.onMiss, message: `the phase "${job.phase}" took longer than ${limit / 1000} s; the money goes back` },
    nowMs,
  );
}

/** Starts over from content that is already here, when there is time and patience left. */
function again(job: Job, nowMs: number): Decision {
  const { agreement } = job;
  const late = startedLate(job, nowMs, nowMs);
  if (late !== undefined) return late;
  const lastStartMs = agreement.finishByMs + agreement.graceMs - agreement.durationSecondsMax * 1000;
  if (job.attempt >= ATTEMPTS_MAX || nowMs > lastStartMs || job.hasSecrets === true) {
    const why =
      job.hasSecrets === true
        ? 'its secrets are not kept on disk'
        : job.attempt >= ATTEMPTS_MAX
          ? `${ATTEMPTS_MAX} attempts were made`
          : 'the time left is too short';
    return refund(
      job,
      {
        code: 'job/interrupted',
        message: `the provider restarted in mid-job and cannot run it again: ${why}; the money goes back`,
      },
      nowMs,
    );
  }
  const { startedAtMs: _started, exit: _exit, ...rest } = job;
  return to({ ...rest, attempt: job.attempt + 1 }, 'fetching', nowMs, { type: 'fetch' });
}

const beforeRun: Row = {
  failed: (job, input, nowMs) => (input.attempt === job.attempt ? refund(job, input.failure, nowMs) : stay(job)),
  cancel: (job, _input, nowMs) => refund({ ...job, cancelled: true }, cancelledFailure, nowMs),
  tick: (job, _input, nowMs) => missed(job, nowMs) ?? stay(job),
  'lease-closed': (job, _input, nowMs) => close(job, nowMs),
};

const TABLE: { readonly [P in Phase]: Row } = {
  accepted: {
    'lease-funded': (job, _input, nowMs) =>
      job.cancelled === true ? refund(job, cancelledFailure, nowMs) : to(job, 'queued', nowMs),
    // Our signature is out: the lease may still be opened, and is given back then. Nothing is held for it.
    cancel: (job) => vacate(stay({ ...job, cancelled: true })),
    'lease-missing': (job, _input, nowMs) => close(job, nowMs),
    restarted: (job) => stay(job, { type: 'await-lease' }),
  },
  queued: {
    ...beforeRun,
    spec: (job, input, nowMs) =>
      to({ ...job, spec: input.spec, hasSecrets: input.hasSecrets }, 'fetching', nowMs, { type: 'fetch' }),
  },
  fetching: {
    ...beforeRun,
    fetched: (job, input, nowMs) =>
      input.attempt === job.attempt
        ? to({ ...job, inputs: input.inputs }, 'pulling', nowMs, { type: 'prepare' })
        : stay(job),
    restarted: (job, _input, nowMs) => again(job, nowMs),
  },
  pulling: {
    ...beforeRun,
    prepared: (job, input, nowMs) =>
      input.attempt === job.attempt ? to(job, 'starting', nowMs, { type: 'start' }) : stay(job),
    restarted: (job, _input, nowMs) => again(job, nowMs),
  },
  starting: {
    ...beforeRun,
    started: (job, input, nowMs) =>
      input.attempt === job.attempt
        ? (startedLate(job, input.startedAtMs, nowMs) ??
          to({ ...job, startedAtMs: input.startedAtMs }, 'running', nowMs))
        : stay(job),
    restarted: (job, input, nowMs) => (input.adopted ? stay(job, { type: 'adopt' }) : again(job, nowMs)),
  },
  running: {
    exited: (job, input, nowMs) =>
      input.attempt === job.attempt
        ? to({ ...job, exit: input.exit }, 'collecting', nowMs, { type: 'collect' })
        : stay(job),
    failed: (job, input, nowMs) => (input.attempt === job.attempt ? refund(job, input.failure, nowMs) : stay(job)),
    cancel: (job) => stay({ ...job, cancelled: true }, { type: 'stop' }),
    restarted: (job, input, nowMs) => (input.adopted ? stay(job, { type: 'adopt' }) : again(job, nowMs)),
    'lease-closed': (job, _input, nowMs) => close(job, nowMs),
  },
  collecting: {
    collected: (job, input, nowMs) =>
      input.attempt === job.attempt
        ? vacate(to({ ...job, outcome: input.outcome, retryAtMs: nowMs + SETTLE_PATIENCE_MS }, 'done', nowMs))
        : stay(job),
    failed: (job, input, nowMs) => (input.attempt === job.attempt ? refund(job, input.failure, nowMs) : stay(job)),
    tick: (job, _input, nowMs) => missed(job, nowMs) ?? stay(job),
    restarted: (job) => stay(job, { type: 'collect' }),
    'lease-closed': (job, _input, nowMs) => close(job, nowMs),
  },
  done: {
    // The buyer's signature closes the lease; without it the provider claims by itself.
    tick: (job, _input, nowMs) => retry(job, nowMs, { type: 'claim' }),
    'claim-confirmed': (job, _input, nowMs) => to({ ...job, retryAtMs: nowMs }, 'claimed', nowMs),
    'lease-closed': (job, _input, nowMs) => close(job, nowMs),
  },
  claimed: {
    tick: (job, _input, nowMs) => retry(job, nowMs, { type: 'settle-lapsed' }),
    'lease-closed': (job, _input, nowMs) => close(job, nowMs),
  },
  refunding: {
    tick: (job, _input, nowMs) => retry(job, nowMs, { type: 'refund' }),
    restarted: (job) => stay(job, { type: 'refund' }),
    'lease-closed': (job, _input, nowMs) => close(job, nowMs),
  },
  closed: {},
};

function retry(job: Job, nowMs: number, effect: Effect): Decision {
  if (nowMs < (job.retryAtMs ?? 0)) return stay(job);
  return stay({ ...job, retryAtMs: nowMs + RETRY_EVERY_MS }, effect);
}

/** Pure. Inputs without an entry in the present phase leave everything as it is. */
export function decide(job: Job, input: Input, nowMs: number): Decision {
  const handler = TABLE[job.phase][input.type] as Handler<Input['type']> | undefined;
  return handler === undefined ? stay(job) : handler(job, input, nowMs);
}

/** What may happen in a phase: the test of the table reads it. */
export function inputsOf(phase: Phase): readonly Input['type'][] {
  return Object.keys(TABLE[phase]) as Input['type'][];
}
