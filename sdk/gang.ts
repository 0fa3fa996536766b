/**
 * `molt.gang`: n slots on one or several providers that run together or not at all. What is asked for, what is told, what
 * comes of it; gang-run.ts performs it.
 *
 * All quotes are held before any is accepted, all leases are signed before any is opened, and no slot starts before the
 * last lease is open. What was opened when another was not is cancelled: by its provider, who had nothing to do and asks
 * for nothing, else by the buyer, which costs that slot's price for the seconds since the opening.
 */
import { GANG_SLOTS_MAX } from '../market/index.ts';
import type { Address } from '../protocol/address.ts';
import { type ErrorCode, MoltError } from '../protocol/errors.ts';
import { type JobSpecInput, featuresOf } from '../protocol/job-spec.ts';
import { type BaseUnits, baseUnits, formatMolt } from '../protocol/units.ts';
import type { Buyer } from './buyer.ts';
import { EventStream } from './event-stream.ts';
import { GangRun } from './gang-run.ts';
import type { RunOptions } from './options.ts';
import { CANCELLED } from './outcome.ts';
import { type PreparedJob, prepareJob, priceOf } from './prepare.ts';
import type { JobEvent, JobResult } from './progress.ts';
import type { NewRun } from './runs.ts';

/** The options of a run, and of a gang. `maxPrice` is the ceiling for all slots; each may lock an equal share of it, one that replaces another what is left. */
export interface GangOptions extends Omit<RunOptions, 'onEvent' | 'replicas'> {
  /** Whether one provider may have several slots. Default `distinct-providers`. */
  readonly spread?: 'any' | 'distinct-providers';
  /**
   * What becomes of the gang when a provider is lost in mid-run: `fail` ends all members, `replace` seeks another provider
   * for that slot while the others go on. A program that fails ends all either way. Default `fail`.
   */
  readonly onLoss?: 'fail' | 'replace';
  /** How often slots are filled in all: at first, again when that failed, and for lost members. Default 3. */
  readonly attempts?: number;
  /** Outputs of a slot are written to the folder of its rank below this one. */
  readonly outputDirectory?: string;
  /** Every step, in order. Must not throw. */
  readonly onEvent?: (event: GangEvent) => void;
}

/**
 * One specification for `slots` equal members, or one for each. Each member finds its place in its environment:
 * MOLT_GANG_RANK, 0 … size − 1, and MOLT_GANG_SIZE.
 */
export type GangRequest = GangOptions &
  ({ readonly spec: JobSpecInput; readonly slots: number } | { readonly specs: readonly JobSpecInput[] });

/** A step of one slot's job; without a rank, of the bid for all of them. */
export type GangEvent = JobEvent;

export interface GangResult {
  /** By rank. */
  readonly members: readonly JobResult[];
  /** What all of them cost, and the leases that were given up on the way. */
  readonly cost: BaseUnits;
}

/** Who has a slot, and under which lease. */
export interface GangPlace {
  readonly provider: Address;
  readonly node: Address;
  readonly lease: Address;
}

/** What became of one slot of a gang that failed. */
export interface GangMember {
  readonly rank: number;
  readonly place?: GangPlace;
  readonly result?: JobResult;
  readonly error?: MoltError;
  /** Those who had the slot before and were replaced, first one first. */
  readonly earlier?: readonly { readonly place: GangPlace; readonly error: MoltError }[];
}

/** The gang ended without n results. The code is that of the first fault. */
export class GangFailedError extends MoltError {
  readonly members: readonly GangMember[];
  readonly cost: BaseUnits;

  constructor(cause: MoltError, members: readonly GangMember[], cost: BaseUnits) {
    super(cause.code, cause.message, { ...cause.context, slots: members.length }, { cause });
    this.members = members;
    this.cost = cost;
  }
}

export interface Gang {
  /** Everything that happens, from the beginning, for any number of readers; ends with the gang. */
  readonly events: AsyncIterable<GangEvent>;
  /** Rejects with `GangFailedError` or another typed error. */
  readonly result: Promise<GangResult>;
  /** Stops all members; what ran is paid, the rest comes back. */
  cancel(): void;
}

export function startGang(buyer: Buyer, request: GangRequest): Gang {
  const stream = new EventStream<GangEvent>();
  const cancelling = new AbortController();
  const tell = (event: GangEvent): void => {
    stream.push(event);
    request.onEvent?.(event);
  };
  const signal =
    request.signal === undefined ? cancelling.signal : AbortSignal.any([request.signal, cancelling.signal]);
  const result = runGang(buyer, request, tell, signal).finally(() => stream.end());
  result.catch(() => undefined);
  return {
    events: stream,
    result,
    cancel: () => cancelling.abort(new MoltError('job/cancelled', CANCELLED)),
  };
}

async function runGang(
  buyer: Buyer,
  request: GangRequest,
  tell: (event: GangEvent) => void,
  signal: AbortSignal,
): Promise<GangResult> {
  const specs = specsOf(request);
  const options: GangOptions = { ...request, maxPrice: shareOf(request.maxPrice, specs.length) };
  const jobs = await Promise.all(specs.map((spec) => prepareJob(buyer, spec)));
  await buyer.budget();
  tell({ type: 'mesh-joined', peers: buyer.mesh.peers().length });
  const order = {
    shapes: shapesOf(jobs),
    spread: request.spread ?? 'distinct-providers',
    onLoss: request.onLoss ?? 'fail',
    fillings: request.attempts ?? FILLINGS,
  } as const;
  const kept = buyer.runs.begin(runOf(buyer, 'gang', jobs, options));
  const run = new GangRun(buyer, { jobs, order, options, run: kept, tell, signal });
  const { error, members, cost } = await run.ended;
  if (error === undefined) {
    const results = members.flatMap(({ result }) => result ?? []);
    return { members: results, cost };
  }
  throw error instanceof MoltError ? new GangFailedError(error, members, cost) : error;
}

const FILLINGS = 3;

function specsOf(request: GangRequest): readonly JobSpecInput[] {
  const given = 'specs' in request ? request.specs : Array.from({ length: countOf(request.slots) }, () => request.spec);
  const size = countOf(given.length);
  return given.map((spec, rank) => {
    const place = { MOLT_GANG_RANK: String(rank), MOLT_GANG_SIZE: String(size) };
    return { ...spec, environment: { ...spec.environment, ...place } };
  });
}

/** Throws `protocol/invalid-spec` for a number of slots that cannot be. */
export function countOf(slots: number): number {
  if (Number.isInteger(slots) && slots >= 1 && slots <= GANG_SLOTS_MAX) return slots;
  throw new MoltError('protocol/invalid-spec', `a gang has 1 … ${GANG_SLOTS_MAX} slots, ${slots} were asked for`);
}

/** What a run of these jobs is remembered by. */
export function runOf(
  buyer: Buyer,
  kind: NewRun['kind'],
  jobs: readonly PreparedJob[],
  { finishWithinSeconds = 0 }: GangOptions,
): NewRun {
  const specDigest = Buffer.from(jobs[0]?.specDigest ?? '').toString('hex');
  const finishByMs = finishWithinSeconds === 0 ? 0 : buyer.chainClock.now() + finishWithinSeconds * 1000;
  return { kind, budget: buyer.budgetAddress, specDigest, size: jobs.length, finishByMs };
}

/** What each of the slots may cost. Throws `protocol/invalid-amount` where nothing is left for one. */
export function shareOf(maxPrice: BaseUnits | string, slots: number): BaseUnits {
  const whole = priceOf(maxPrice);
  const share = baseUnits(whole / BigInt(slots));
  if (share > 0n) return share;
  const code: ErrorCode = 'protocol/invalid-amount';
  throw new MoltError(code, `${formatMolt(whole)} for ${slots} slots leaves nothing for one; raise maxPrice`);
}

/** Numbers jobs that the market cannot tell apart alike. */
function shapesOf(jobs: readonly PreparedJob[]): readonly number[] {
  const seen: string[] = [];
  return jobs.map(({ spec }) => {
    const { runtime, image, resources, maxDurationSeconds } = spec;
    const shape = JSON.stringify([runtime, image, resources, maxDurationSeconds, featuresOf(spec)]);
    if (!seen.includes(shape)) seen.push(shape);
    return seen.indexOf(shape);
  });
}
