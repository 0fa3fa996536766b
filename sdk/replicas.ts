/**
 * `run` with `replicas`: one WebAssembly job on several providers at once, held and opened as a gang is, paid where more
 * than half agree. No provider is told that it is compared: one that cannot know must be honest every time.
 *
 * What this shows: a wrong result needs more than half of the chosen providers to agree on the same lie. What it does not:
 * that they have different owners in the world; they are different accounts with stake of their own, and no more is known.
 */
import { longestWindowMs, quorumOf } from '../market/index.ts';
import { MoltError, hasCode } from '../protocol/errors.ts';
import type { JobSpec } from '../protocol/job-spec.ts';
import type { Buyer } from './buyer.ts';
import { Comparison, type FoundProof } from './comparison.ts';
import { GangRun } from './gang-run.ts';
import { type GangMember, countOf, shareOf } from './gang.ts';
import type { RunOptions } from './options.ts';
import { checked } from './outcome.ts';
import { type PreparedJob, priceOf } from './prepare.ts';
import type { JobEvent, JobResult, ReplicaOutcome } from './progress.ts';

/** How often slots are filled beyond once for each. */
const FILLINGS_MORE = 2;

/** No result is that of more than half, or too few providers were found or left. `replicas` says what each came to. */
export class ReplicasFailedError extends MoltError {
  readonly replicas: readonly ReplicaOutcome[];

  constructor(cause: MoltError, replicas: readonly ReplicaOutcome[]) {
    super(cause.code, cause.message, { ...cause.context, replicas: replicas.length }, { cause });
    this.replicas = replicas;
  }
}

export interface ReplicasRequest {
  readonly job: PreparedJob;
  readonly options: RunOptions;
  readonly tell: (event: JobEvent) => void;
  readonly signal: AbortSignal;
}

/**
 * The result that more than half came to, with what all of them cost. Throws `protocol/invalid-spec` for a job that need
 * not repeat, `market/gang-incomplete`, `proof/no-majority`, and what ended the last replica that would have been enough.
 */
export async function runReplicas(buyer: Buyer, request: ReplicasRequest): Promise<JobResult> {
  const { job, options, tell, signal } = request;
  const size = countOf(options.replicas ?? 1);
  assertRepeats(job.spec);
  const comparison = new Comparison(size);
  const { onEvent: _onEvent, ...rest } = options;
  const run = new GangRun(buyer, {
    jobs: Array.from({ length: size }, () => job),
    order: {
      shapes: Array.from({ length: size }, () => 0),
      spread: 'distinct-providers',
      onLoss: 'replace',
      fillings: options.attempts ?? size + FILLINGS_MORE,
      quorum: quorumOf(size),
    },
    // An exit that all agree on is a result; what it means is looked at once, below.
    options: { ...rest, maxPrice: shareOf(priceOf(options.maxPrice), size), allowFailure: true },
    comparison,
    windowMs: longestWindowMs(job.spec.maxDurationSeconds),
    tell,
    signal,
  });
  const { error, members, cost } = await run.ended;
  const outcomes = members.map((member) => outcomeOf(member, comparison.proofOf(member.rank)));
  const ranksOf = (what: ReplicaOutcome['outcome']): number[] =>
    outcomes.filter(({ outcome }) => outcome === what).map(({ rank }) => rank);
  const agreed = members.flatMap(({ result }) => result ?? []);
  const [first] = agreed;
  if (first === undefined || agreed.length < quorumOf(size)) throw failureOf(error, outcomes);
  tell({ type: 'replicas-compared', agreed: ranksOf('agreed'), outvoted: ranksOf('outvoted'), lost: ranksOf('lost') });
  return checked({ ...first, cost, replicas: outcomes }, options, signal);
}

function failureOf(error: unknown, outcomes: readonly ReplicaOutcome[]): unknown {
  return error instanceof MoltError ? new ReplicasFailedError(error, outcomes) : error;
}

/** Throws `protocol/invalid-spec` unless two honest runs of this job must come to the same. */
function assertRepeats({ runtime, inputs }: JobSpec): void {
  if (runtime !== 'wasm') {
    const message =
      'replicas are compared byte for byte, which only a wasm job promises; use runtime "wasm", or one run';
    throw new MoltError('protocol/invalid-spec', message);
  }
  const open = inputs.find((input) => 'url' in input && input.sha256 === undefined);
  if (open === undefined) return;
  throw new MoltError(
    'protocol/invalid-spec',
    `the input ${open.path} comes from an address that may give each replica something else; say its sha256`,
  );
}

/** The proof of one that was outvoted is kept as well: a dispute is about it. */
function outcomeOf(member: GangMember, found: FoundProof | undefined): ReplicaOutcome {
  const { rank, place, result, error, earlier = [] } = member;
  const replaced = earlier.map((one) => ({ ...one.place, code: one.error.code, reason: one.error.message }));
  const where = { rank, ...place, ...found, ...(replaced.length === 0 ? {} : { earlier: replaced }) };
  if (result !== undefined) return { ...where, outcome: 'agreed', cost: result.cost };
  const { code, message } = error ?? new MoltError('job/provider-lost', 'it did not run');
  return { ...where, outcome: hasCode(error, 'proof/outvoted') ? 'outvoted' : 'lost', code, reason: message };
}
