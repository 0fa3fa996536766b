/**
 * `connect` and what it gives: add content, run jobs, look at the market.
 *
 * `run` is `start` plus waiting. A job tries providers one after the other until one delivers, its own fault is found,
 * or the attempts are used up; a provider that failed the job is out for the job.
 */
import type { LeaseEnding } from '../chain/index.ts';
import type { BidRecord } from '../market/index.ts';
import type { Address } from '../protocol/address.ts';
import type { LogRecord } from '../protocol/job-log.ts';
import { MoltError } from '../protocol/errors.ts';
import type { JobSpecInput } from '../protocol/job-spec.ts';
import type { Offer } from '../protocol/messages.ts';
import { type BaseUnits, baseUnits } from '../protocol/units.ts';
import { attemptJob } from './attempt.ts';
import { type Attempt, buyJob } from './bidding.ts';
import { type Buyer, openBuyer } from './buyer.ts';
import { EventStream } from './event-stream.ts';
import { type LogQuery, findProvider, readLogs } from './follow.ts';
import { type Forward, type ForwardOptions, type ForwardTarget, openForward } from './forward.ts';
import { type Gang, type GangRequest, startGang } from './gang.ts';
import type { ConnectOptions, RunOptions } from './options.ts';
import type { JobEvent, JobResult } from './progress.ts';
import { checked } from './outcome.ts';
import { orderOf, prepareJob } from './prepare.ts';
import { runReplicas } from './replicas.ts';
import { reclaimLeases } from './reclaim.ts';

/** A live offer as this buyer heard it. */
export interface OfferRow extends Offer {
  readonly node: Address;
  readonly sequence: number;
  readonly issuedMs: number;
  readonly expiresMs: number;
}

/** A job that was started. */
export interface Job {
  /** Everything that happens, from the beginning, for any number of readers; ends with the job. */
  readonly events: AsyncIterable<JobEvent>;
  /** Output of the program as it comes. */
  readonly logs: AsyncIterable<{ readonly stream: 'stdout' | 'stderr'; readonly bytes: Uint8Array }>;
  /** Rejects with a typed error; a non-zero exit is one unless `allowFailure` is set. */
  readonly result: Promise<JobResult>;
  /** What is known of the cost so far, base units: 0 until the proof is verified. */
  cost(): BaseUnits;
  /**
   * Leads a port of this machine to a service of the job, by its name or port, for as long as the job lasts; it may be opened
   * before the job runs. Throws `job/impossible` for a service that the specification does not have, `mesh/listen-failed`.
   */
  forward(service: string | number, options?: ForwardOptions): Promise<Forward>;
  /** Stops the job; what ran is paid, the rest comes back. `result` rejects with `job/cancelled`. */
  cancel(): void;
}

export interface Molt extends AsyncDisposable {
  /** This buyer's node key. */
  readonly self: Address;
  /** Live offers, waiting up to `timeoutMs` (default 3,000) for the first. */
  offers(timeoutMs?: number): Promise<readonly OfferRow[]>;
  /** Imports a file or folder and returns the CID that a spec's inputs name. */
  add(path: string): Promise<{ readonly cid: string; readonly sizeBytes: number }>;
  start(spec: JobSpecInput, options: RunOptions): Job;
  /**
   * What the program of a lease of this buyer printed, from its provider, while the job runs and for hours after. Throws
   * `job/unknown`, `job/provider-lost` and `chain/account-missing`.
   */
  logs(lease: Address, query?: LogQuery): AsyncIterable<LogRecord>;
  /**
   * Leads a port of this machine to a service of a running job of this buyer, whoever started it. Throws
   * `chain/account-missing`, `mesh/listen-failed`.
   */
  forward(lease: Address, servicePort: number, options?: ForwardOptions): Promise<Forward>;
  run(spec: JobSpecInput, options: RunOptions): Promise<JobResult>;
  /**
   * Runs n slots together or none: their quotes are held, their leases opened and their members ended together. Its result
   * rejects with `market/gang-incomplete` where too few providers answer; nothing is held or paid then.
   */
  gang(request: GangRequest): Gang;
  /**
   * Disputes a proven lease of this buyer, or goes on with its dispute: brings verifiers what was kept about it, with module
   * and inputs where this client has them (`add`), and sees to it that it ends. Resolves with the end. The verifiers are shown
   * the specification and the content. Throws `chain/account-missing`, `chain/refused`, the signal's reason.
   */
  dispute(
    lease: Address,
    options?: { readonly signal?: AbortSignal; readonly onEvent?: (event: JobEvent) => void },
  ): Promise<LeaseEnding | undefined>;
  /** The last bids that are over, oldest first, for `explainBid`; those of earlier clients too where there is a journal. */
  bids(): readonly BidRecord[];
  /** Where a provider broke its word, waits some seconds for its claim, to dispute it, and until the verifiers have heard. */
  close(): Promise<void>;
}

const ZERO = baseUnits(0n);
const OFFERS_WAIT_MS = 3_000;
/** A provider claims alone some eight seconds after its proof. */
const CLAIM_WAIT_MS = 15_000;
/** Verifiers are drawn a moment after a dispute, and fetch module and inputs. */
const HAND_IN_WAIT_MS = 60_000;

/**
 * Joins mesh and chain as a light peer. Throws `chain/unreachable`, `chain/not-deployed`, `chain/wrong-network`,
 * `mesh/listen-failed`.
 */
export async function connect(options: ConnectOptions): Promise<Molt> {
  options.signal?.throwIfAborted();
  const buyer = await openBuyer(options);
  const listeners = new Set<(event: JobEvent) => void>();
  const reclaiming = reclaimLeases(buyer, (event) => {
    for (const listener of listeners) listener(event);
  });
  let closed: Promise<void> | undefined;
  const close = (): Promise<void> =>
    (closed ??= (async () => {
      reclaiming[Symbol.dispose]();
      await buyer.contests.quiet(CLAIM_WAIT_MS, HAND_IN_WAIT_MS);
      await buyer[Symbol.asyncDispose]();
    })());
  options.signal?.addEventListener('abort', () => void close(), { once: true });
  const start = (spec: JobSpecInput, runOptions: RunOptions): Job =>
    startJob(buyer, listeners, { spec, options: runOptions });
  return {
    self: buyer.key.address,
    offers: async (timeoutMs = OFFERS_WAIT_MS) => {
      await buyer.waitForOffers(timeoutMs, buyer.closing).catch(() => undefined);
      return buyer.feed.book.list().map(({ content, signer, sequence, issuedMs, expiresMs }) => ({
        ...content,
        node: signer,
        sequence,
        issuedMs,
        expiresMs,
      }));
    },
    add: (path) => buyer.artifacts.add(path),
    start,
    logs: (lease, query = {}) => readLogs(buyer, lease, query),
    forward: async (lease, servicePort, forwardOptions) => {
      const target = { lease, ...(await findProvider(buyer, lease, buyer.closing)) };
      return openForward(buyer, servicePort, () => target, forwardOptions);
    },
    run: (spec, runOptions) => start(spec, runOptions).result,
    gang: (request) => startGang(buyer, request),
    dispute: (lease, disputing = {}) => disputeLease(buyer, lease, disputing),
    bids: () => buyer.journal.bids,
    close,
    [Symbol.asyncDispose]: close,
  };
}

function startJob(
  buyer: Buyer,
  listeners: Set<(event: JobEvent) => void>,
  request: { spec: JobSpecInput; options: RunOptions },
): Job {
  const { options } = request;
  const stream = new EventStream<JobEvent>();
  const cancelling = new AbortController();
  const ending = new AbortController();
  const costs = new Map<number, BaseUnits>();
  let place: Partial<ForwardTarget> = {};
  const tell = (event: JobEvent): void => {
    if (event.type === 'proof-verified') costs.set(event.rank ?? 0, event.cost);
    else if (event.type === 'accepted') place = placeOf(buyer, event.node);
    else if (event.type === 'lease-opened') place = { ...place, lease: event.lease };
    stream.push(event);
    options.onEvent?.(event);
  };
  const signal =
    options.signal === undefined ? cancelling.signal : AbortSignal.any([options.signal, cancelling.signal]);
  listeners.add(tell);
  const result = runJob(buyer, { spec: request.spec, options, tell, signal }).finally(() => {
    listeners.delete(tell);
    stream.end();
    ending.abort(new MoltError('mesh/closed', 'the job is over'));
  });
  // Readers of events may never look at the result.
  result.catch(() => undefined);
  return {
    events: stream,
    logs: { [Symbol.asyncIterator]: () => logsOf(stream) },
    result,
    cost: () => baseUnits([...costs.values()].reduce((sum, cost) => sum + cost, 0n)),
    forward: async (service, { signal: until, ...forward } = {}) => {
      const port = servicePort(request.spec, service);
      const over = until === undefined ? ending.signal : AbortSignal.any([ending.signal, until]);
      return openForward(buyer, port, () => whole(place), { ...forward, signal: over });
    },
    cancel: () => cancelling.abort(new MoltError('job/cancelled', 'the job was cancelled')),
  };
}

async function disputeLease(
  buyer: Buyer,
  address: Address,
  { signal = buyer.closing, onEvent }: NonNullable<Parameters<Molt['dispute']>[1]>,
): Promise<LeaseEnding | undefined> {
  const { chain, contests, key } = buyer;
  const lease = await chain.lease(address);
  if (lease === undefined) {
    const message = `there is no open lease ${address}; it may have ended already`;
    throw new MoltError('chain/account-missing', message, { lease: address });
  }
  if (lease.delegate !== key.address || lease.state === 'running') {
    const why = lease.state === 'running' ? 'only a proven one can be disputed' : `its buyer is ${lease.delegate}`;
    throw new MoltError('chain/refused', `lease ${address} is ${lease.state}: ${why}`, { lease: address });
  }
  const tell = (event: JobEvent): void => onEvent?.(event);
  if (lease.state === 'proven') {
    const { signature } = await chain.openDispute(key, lease);
    tell({ type: 'lease-disputed', lease: address, transaction: signature, claimed: lease.proof?.claimed ?? ZERO });
  }
  await contests.add(address, tell);
  await contests.ended(address, AbortSignal.any([signal, buyer.closing]));
  return chain.leaseEnding(address);
}

function placeOf(buyer: Buyer, node: Address): Partial<ForwardTarget> {
  return { node, addresses: buyer.feed.book.get(node)?.content.addresses ?? [] };
}

/** Known once a lease is open. */
function whole({ lease, node, addresses }: Partial<ForwardTarget>): ForwardTarget | undefined {
  if (lease === undefined || node === undefined || addresses === undefined) return undefined;
  return { lease, node, addresses };
}

function servicePort({ services = [] }: JobSpecInput, wanted: string | number): number {
  const found = services.find(({ name, port }) => name === wanted || port === wanted);
  if (found !== undefined) return found.port;
  const known = services.map(({ name, port }) => `${name} (${port})`).join(', ') || 'none';
  throw new MoltError('job/impossible', `the job has no service ${wanted}; its specification names ${known}`);
}

interface RunRequest {
  readonly spec: JobSpecInput;
  readonly options: RunOptions;
  readonly tell: (event: JobEvent) => void;
  readonly signal: AbortSignal;
}

async function runJob(buyer: Buyer, request: RunRequest): Promise<JobResult> {
  const { options, tell, signal } = request;
  const prepared = await prepareJob(buyer, request.spec);
  const isAlone = (options.replicas ?? 1) === 1;
  const order = isAlone ? orderOf(buyer, prepared.spec, options) : undefined;
  await buyer.budget();
  tell({ type: 'mesh-joined', peers: buyer.mesh.peers().length });
  if (order === undefined) return runReplicas(buyer, { job: prepared, options, tell, signal });
  const job = { ...prepared, options, signal };
  const attempt: Attempt<JobResult> = (quote, number, told) =>
    attemptJob(buyer, { ...job, quote, attempt: number, tell: told });
  return checked(await buyJob(buyer, { order, attempt, tell, signal }), options, signal);
}

async function* logsOf(
  stream: AsyncIterable<JobEvent>,
): AsyncGenerator<{ stream: 'stdout' | 'stderr'; bytes: Uint8Array }> {
  for await (const event of stream) {
    if (event.type === 'log') yield { stream: event.stream, bytes: event.bytes };
  }
}
