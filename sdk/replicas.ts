/**
 * `run` with `replicas`: one job on several providers at once, held and opened as a gang is, paid where more than half
 * agree; one that is lost is replaced while the result is open. Results are compared as the specification says: a wasm job
 * exactly, a container by the comparator with which its buyer says that it repeats. No provider is told that it is compared: one that cannot know must be honest every time.
 *
 * What this shows: a wrong result needs more than half of the chosen providers to agree on the same lie. What it does not:
 * that they have different owners in the world; they are different accounts with stake of their own, and no more is known.
 */
import { longestWindowMs, quorumOf } from '../market/index.ts';
import { MoltError, hasCode } from '../protocol/errors.ts';
import { type Comparator, type JobSpec, comparatorOf } from '../protocol/job-spec.ts';
import type { Buyer } from './buyer.ts';
import { Comparison, type FoundProof } from './comparison.ts';
import { GangRun, type GangRunOptions } from './gang-run.ts';
import { type GangMember, countOf, runOf, shareOf } from './gang.ts';
import type { BaseUnits } from '../protocol/units.ts';
import type { RunOptions } from './options.ts';
import { checked } from './outcome.ts';
import { type PreparedJob, priceOf } from './prepare.ts';
import type { JobEvent, JobResult, ReplicaOutcome } from './progress.ts';
import type { NewRun } from './runs.ts';
import { readTakenUp } from './taken-up.ts';

/** How often slots are filled beyond once for each. */
const FILLINGS_MORE = 2;
/** For the addresses of providers that have a lease already. */
const OFFERS_WAIT_MS = 3_000;

/** A result, and the replicas that came to it. */
export interface ReplicaResults {
  readonly resultDigest: string;
  readonly ranks: readonly number[];
}

/**
 * No result is that of more than half, or too few providers were found or left. `replicas` says what each came to, with its
 * proof and its lease; `results` who came to the same, most first. Nothing of an undecided one is settled: its provider is
 * paid what it claims when the challenge window has passed, unless the lease is disputed.
 */
export class ReplicasFailedError extends MoltError {
  readonly replicas: readonly ReplicaOutcome[];
  readonly results: readonly ReplicaResults[];
  /** What was paid all the same: of replicas that were stopped, or lost. */
  readonly cost: BaseUnits;

  constructor(cause: MoltError, replicas: readonly ReplicaOutcome[], cost: BaseUnits) {
    super(cause.code, cause.message, { ...cause.context, replicas: replicas.length }, { cause });
    this.replicas = replicas;
    this.results = resultsOf(replicas);
    this.cost = cost;
  }
}

function resultsOf(replicas: readonly ReplicaOutcome[]): readonly ReplicaResults[] {
  const came = replicas.flatMap(({ rank, resultDigest }) =>
    resultDigest === undefined ? [] : [{ rank, resultDigest }],
  );
  return [...Map.groupBy(came, ({ resultDigest }) => resultDigest)]
    .map(([resultDigest, all]) => ({ resultDigest, ranks: all.map(({ rank }) => rank) }))
    .sort((a, b) => b.ranks.length - a.ranks.length);
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
  const comparison = new Comparison(size, repeatingBy(job.spec));
  const { onEvent: _onEvent, ...rest } = options;
  const jobs = Array.from({ length: size }, () => job);
  const kept = await openRunOf(buyer, runOf(buyer, 'replicas', jobs, options));
  const run = new GangRun(buyer, {
    ...kept,
    jobs,
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
  const end = await run.ended;
  const { members, cost } = end;
  const outcomes = members.map((member) => outcomeOf(member, comparison.proofOf(member.rank)));
  const ranksOf = (what: ReplicaOutcome['outcome']): number[] =>
    outcomes.filter(({ outcome }) => outcome === what).map(({ rank }) => rank);
  // One that was stopped has a result too, of which nothing is known.
  const [first] = members.flatMap(({ result, error }) => (error === undefined ? (result ?? []) : []));
  const error = end.error ?? (first === undefined ? nobodyShows() : undefined);
  if (first === undefined || ranksOf('agreed').length < quorumOf(size)) {
    const failure = error instanceof MoltError ? new ReplicasFailedError(error, outcomes, cost) : error;
    const { results = [] } = failure instanceof ReplicasFailedError ? failure : {};
    const disputing = options.disputeAll === true;
    if (results.length > 0) tell({ type: 'replicas-differ', results, lost: ranksOf('lost'), disputing });
    throw failure;
  }
  tell({ type: 'replicas-compared', agreed: ranksOf('agreed'), outvoted: ranksOf('outvoted'), lost: ranksOf('lost') });
  return checked({ ...first, cost, replicas: outcomes }, options, signal);
}

/** The run of this job that an earlier client was cut off in, where its leases go on; else a new one. */
async function openRunOf(buyer: Buyer, wanted: NewRun): Promise<Pick<GangRunOptions, 'run' | 'takenUp'>> {
  const found = buyer.runs.takeUp(wanted);
  const takenUp = found && (await readTakenUp(buyer, found.record));
  if (found !== undefined && takenUp !== undefined) {
    await buyer.waitForOffers(OFFERS_WAIT_MS, buyer.closing).catch(() => undefined);
    return { run: found, takenUp };
  }
  found?.end();
  return { run: buyer.runs.begin(wanted) };
}

function nobodyShows(): MoltError {
  const message = 'the replicas agreed before this client began, and no provider of theirs is left to give the result';
  return new MoltError('job/provider-lost', message);
}

/** By what they are compared. Throws `protocol/invalid-spec` unless two honest runs of this job must come to the same. */
function repeatingBy(spec: JobSpec): Comparator {
  const comparator = comparatorOf(spec);
  if (comparator === undefined) {
    const message =
      'replicas are compared, and of a container nothing says that it repeats; if it does, say so in its specification with comparator "exact", or "outputs" where what it prints may differ (--compare)';
    throw new MoltError('protocol/invalid-spec', message);
  }
  const open = spec.inputs.find((input) => 'url' in input && input.sha256 === undefined);
  if (open === undefined) return comparator;
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
  const spent = result === undefined ? where : { ...where, cost: result.cost };
  // One that agreed and was paid before a crash, and whose provider is gone, has no more to show.
  if (error === undefined && (result ?? found) !== undefined) return { ...spent, outcome: 'agreed' };
  const { code, message } = error ?? new MoltError('job/provider-lost', 'it did not run');
  const isUndecided = found !== undefined && hasCode(error, 'proof/no-majority');
  const outcome = hasCode(error, 'proof/outvoted') ? 'outvoted' : isUndecided ? 'undecided' : 'lost';
  return { ...spent, outcome, code, reason: message };
}
