/**
 * The shell around job.ts: keeps the jobs, journals every decision before its effects, performs the effects and feeds
 * their outcomes back.
 *
 * Contract: inputs of one job are applied one after the other; an effect of a kind that is already under way for a job
 * is not started twice; `recover` after a crash brings every unfinished job back to where its journal says, exactly once.
 */
import type { Chain, DisputeAccount, LeaseAccount, LeaseTerms } from '../../chain/index.ts';
import { LIMITS } from '../../protocol/limits.ts';
import { type Address, encodeAddress } from '../../protocol/address.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import type { Env } from '../../protocol/env.ts';
import { MoltError, assert, hasCode } from '../../protocol/errors.ts';
import { JobEvent as WireEvent, type JobEvent as WireJobEvent } from '../../protocol/molt.js';
import { baseUnits } from '../../protocol/units.ts';
import { toRefusal } from '../../protocol/wire.ts';
import type { Tell } from '../events.ts';
import type { Journal, JournaledEvent } from '../journal.ts';
import type { Content } from './content.ts';
import type { Execution } from './execution.ts';
import {
  type Agreement,
  type Decision,
  type Effect,
  type Input,
  type Job,
  OPEN_SLACK_MS,
  acceptJob,
  decide,
} from './job.ts';

/** A wire event without the parts that the shell fills in. */
export type EventBody = Partial<Omit<WireJobEvent, 'sequence' | 'atMs' | 'attempt'>>;

export interface JobsOptions {
  readonly key: KeyPair;
  readonly chain: Chain;
  readonly journal: Journal;
  readonly execution: Execution;
  readonly content: Content;
  readonly tell: Tell;
  /** The job is over; what it took is free when `gone` settles, for then nothing of it is left that could use it. */
  readonly onRelease: (agreement: Agreement, gone: Promise<void>) => void;
  /** Shows the drawn verifiers what this node has to show about a disputed job. */
  readonly defend: (job: Job, dispute: DisputeAccount) => void;
  /** The lease is closed, and its buyer paid something. */
  readonly onPaid: (agreement: Agreement) => Promise<void>;
}

/** How long closed jobs, their logs and outputs are kept for buyers who come back. */
const KEEP_CLOSED_MS = 6 * 3_600_000;
/** How often deadlines are looked at. */
const TICK_MS = 1_000;

export class Jobs implements AsyncDisposable {
  readonly #env: Env;
  readonly #options: JobsOptions;
  readonly #jobs = new Map<Address, Job>();
  readonly #sequences = new Map<Address, number>();
  readonly #queues = new Map<Address, Promise<void>>();
  /** The last write of each lease that is under way. */
  readonly #writes = new Map<Address, Promise<void>>();
  readonly #busy = new Set<string>();
  readonly #listeners = new Map<Address, Set<() => void>>();
  readonly #closing = new AbortController();
  readonly #ticker: Disposable;

  constructor(env: Env, options: JobsOptions) {
    this.#env = env;
    this.#options = options;
    this.#ticker = env.clock.every(TICK_MS, () => {
      for (const [lease, job] of this.#jobs) {
        if (job.phase !== 'closed') void this.dispatch(lease, { type: 'tick' });
        else if (env.clock.now() - job.phaseSinceMs > KEEP_CLOSED_MS) this.#forget(job);
      }
    });
  }

  get(lease: Address): Job | undefined {
    return this.#jobs.get(lease);
  }

  /**
   * The job of this lease, if this peer is its buyer. Throws `job/unknown`, the same for a stranger's lease and for none,
   * and `protocol/malformed`.
   */
  ownedBy(buyer: Address, lease: Uint8Array): Job {
    if (lease.length !== 32) throw new MoltError('protocol/malformed', 'a lease is named by 32 bytes');
    const job = this.#jobs.get(encodeAddress(lease));
    if (job === undefined || job.agreement.delegate !== buyer)
      throw new MoltError('job/unknown', 'no such lease of yours is known here');
    return job;
  }

  list(): readonly Job[] {
    return [...this.#jobs.values()];
  }

  /** Journals an agreement before this node signs it. */
  async accept(agreement: Agreement): Promise<void> {
    assert(!this.#jobs.has(agreement.lease), 'a lease is accepted once');
    this.#sequences.set(agreement.lease, 0);
    await this.#enqueue(agreement.lease, () => this.#carryOut(acceptJob(agreement, this.#env.clock.now()), []));
  }

  /** Brings back what the journal holds. Called once, before the node trades. */
  async recover(): Promise<readonly Job[]> {
    const { journal, execution } = this.#options;
    const recovered: Job[] = [];
    for (const job of await journal.jobs()) {
      const { lease } = job.agreement;
      this.#jobs.set(lease, job);
      this.#options.content.keepOutputs(lease, job.outcome?.outputs ?? []);
      this.#options.content.remember(job.agreement, Object.values(job.inputs ?? {}));
      this.#sequences.set(lease, await journal.nextSequence(lease));
      if (job.phase !== 'closed') recovered.push(job);
    }
    await execution.reconcile(recovered.filter((job) => job.vacated !== true));
    return recovered;
  }

  /** Lets the recovered jobs go on. Called when chain and mesh are there. */
  async resume(recovered: readonly Job[]): Promise<void> {
    for (const job of recovered) {
      const { lease } = job.agreement;
      const adopted = await this.#options.execution.canAdopt(job);
      this.#options.tell({ type: 'job-recovered', lease, phase: job.phase, adopted });
      if (job.phase !== 'accepted') this.#watch(job.agreement);
      await this.dispatch(lease, { type: 'restarted', adopted });
    }
  }

  /** Applies one input. Events in `told` are journaled in the same batch, before what the decision tells. */
  dispatch(lease: Address, input: Input, told: readonly EventBody[] = []): Promise<void> {
    return this.#enqueue(lease, async () => {
      const job = this.#jobs.get(lease);
      if (job === undefined || this.#closing.signal.aborted) return;
      const decision = decide(job, input, this.#env.clock.now());
      if (decision.job === job && decision.effects.length === 0) return;
      await this.#carryOut(decision, told);
      if (input.type === 'lease-funded' && decision.job.phase === 'queued') this.#watch(job.agreement);
    });
  }

  /** Appends events of a running job (logs, usage, progress). */
  async append(lease: Address, bodies: readonly EventBody[]): Promise<void> {
    const job = this.#jobs.get(lease);
    if (job === undefined || job.phase === 'closed') return;
    await this.#inOrder(job, bodies, (events) => this.#options.journal.append(lease, events));
    this.#wake(lease);
  }

  /** Events with sequence ≥ `from`: those that are there, then each as it comes, until the job is closed. */
  async *follow(lease: Address, from: number, signal: AbortSignal): AsyncGenerator<JournaledEvent> {
    let next = from;
    for (;;) {
      const changed = this.#changed(lease, signal);
      for await (const event of this.#options.journal.events(lease, next)) {
        yield event;
        next = event.sequence + 1;
      }
      const job = this.#jobs.get(lease);
      if (signal.aborted || job === undefined || (job.phase === 'closed' && next >= this.nextSequence(lease))) {
        changed.cancel();
        return;
      }
      await changed.promise;
    }
  }

  nextSequence(lease: Address): number {
    return this.#sequences.get(lease) ?? 0;
  }

  /** Stops without deciding anything: the journal holds where to go on. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new MoltError('node/stopped', 'the node is closing'));
    this.#ticker[Symbol.dispose]();
    for (const lease of this.#listeners.keys()) this.#wake(lease);
    await this.#options.execution[Symbol.asyncDispose]();
    await Promise.allSettled(this.#queues.values());
  }

  /** The end of a closed job's keeping: events and outputs go. */
  #forget(job: Job): void {
    const { lease } = job.agreement;
    this.#jobs.delete(lease);
    this.#sequences.delete(lease);
    const forgetting = async (): Promise<void> => {
      await this.#options.content.dropOutputs(lease, job.outcome?.outputs ?? []);
      await this.#options.journal.forget(lease);
    };
    void this.#enqueue(lease, forgetting).catch(() => undefined);
  }

  #enqueue(lease: Address, task: () => Promise<void>): Promise<void> {
    const previous = this.#queues.get(lease) ?? Promise.resolve();
    const mine = previous.then(task, task);
    const settled = mine.catch((error: unknown) => this.#trouble(`job ${lease}`, error));
    this.#queues.set(lease, settled);
    void settled.then(() => {
      if (this.#queues.get(lease) === settled) this.#queues.delete(lease);
    });
    return mine;
  }

  async #carryOut(decision: Decision, told: readonly EventBody[]): Promise<void> {
    const { job } = decision;
    const { lease } = job.agreement;
    const bodies = [...told, ...decision.effects.flatMap((effect) => tellOf(job, effect))];
    await this.#inOrder(job, bodies, (events) => this.#options.journal.commit(job, events));
    this.#jobs.set(lease, job);
    this.#wake(lease);
    for (const effect of decision.effects) {
      if (effect.type === 'tell-phase')
        this.#options.tell({ type: 'job-phase', lease, phase: job.phase, attempt: job.attempt });
      else if (effect.type === 'tell-failure')
        this.#options.tell({ type: 'job-failed', lease, code: effect.failure.code, reason: effect.failure.message });
      else if (effect.type === 'tell-closed') {
        this.#options.tell({ type: 'lease-closed', lease });
        if (isPaid(job)) await this.#options.onPaid(job.agreement);
      } else this.#start(job, effect);
    }
  }

  #start(job: Job, effect: Effect): void {
    const { lease } = job.agreement;
    const name = `${lease} ${effect.type} ${job.attempt}`;
    if (this.#busy.has(name)) return;
    this.#busy.add(name);
    void this.#perform(job, effect)
      .catch((error: unknown) => this.#trouble(`${effect.type} of ${lease}`, error))
      .finally(() => this.#busy.delete(name));
  }

  async #perform(job: Job, effect: Effect): Promise<void> {
    const { execution } = this.#options;
    switch (effect.type) {
      case 'await-lease':
        return this.#awaitLease(job.agreement);
      case 'fetch':
      case 'prepare':
      case 'start':
      case 'adopt':
      case 'collect':
        return execution.perform(effect.type, job, this);
      case 'stop':
        return execution.stop(job);
      case 'claim':
        return this.#onChain(job, 'claim');
      case 'settle-lapsed':
        return this.#onChain(job, 'settle-lapsed');
      case 'refund':
        return this.#onChain(job, 'refund');
      case 'release':
        return this.#release(job);
      default:
        return undefined;
    }
  }

  #release(job: Job): Promise<void> {
    const gone = this.#options.execution.cleanUp(job);
    this.#options.onRelease(job.agreement, gone);
    return gone;
  }

  /** The three things a provider does on chain alone. A lease that is gone already is the end, not an error. */
  async #onChain(job: Job, what: 'claim' | 'settle-lapsed' | 'refund'): Promise<void> {
    const { chain, key, tell } = this.#options;
    const { lease: address } = job.agreement;
    const lease = await chain.lease(address);
    if (lease === undefined) return this.dispatch(address, { type: 'lease-closed' });
    if (what === 'refund') {
      const { signature } = await chain.cancelByOperator(key, lease);
      tell({ type: 'refunded', lease: address, transaction: signature });
      return this.dispatch(address, { type: 'lease-closed' });
    }
    if (what === 'claim') {
      if (lease.state === 'running') {
        assert(job.outcome !== undefined, 'a claim follows a proof');
        const resultDigest = Buffer.from(job.outcome.proofDigest, 'hex');
        const { signature } = await chain.submitProof(
          key,
          address,
          baseUnits(BigInt(job.outcome.claimed)),
          resultDigest,
        );
        tell({ type: 'claimed', lease: address, transaction: signature });
      }
      return this.dispatch(address, { type: 'claim-confirmed' });
    }
    if (lease.state === 'disputed') return this.#pushDispute(job, lease);
    if (lease.proof === undefined || (await chain.chainTimeMs()) <= lease.proof.provenAtMs + lease.windowMs)
      return undefined;
    const { signature } = await chain.settleAfterWindow(key, lease);
    tell({ type: 'settled-alone', lease: address, transaction: signature });
    return this.dispatch(address, { type: 'lease-closed' });
  }

  /** A dispute waits for nobody's permission: anyone may draw the verifiers and resolve it, so the one who waits does. */
  async #pushDispute(job: Job, lease: LeaseAccount): Promise<void> {
    const { chain, key, tell } = this.#options;
    const dispute = await chain.dispute(lease.address);
    if (dispute === undefined) return;
    const nowMs = await chain.chainTimeMs();
    const { seats, voteUntilMs, revealUntilMs } = dispute;
    const isDrawn = seats.length > 0;
    const isOver =
      nowMs > (isDrawn ? revealUntilMs : voteUntilMs) || (isDrawn && seats.every((seat) => seat.vote !== undefined));
    if (isOver) {
      const { signature } = await chain.resolveDispute(key, lease);
      tell({ type: 'settled-alone', lease: lease.address, transaction: signature });
      await this.dispatch(lease.address, { type: 'lease-closed' });
    } else if (!isDrawn) await chain.drawVerifiers(key, lease.address);
    else if (nowMs <= voteUntilMs) this.#options.defend(job, dispute);
  }

  /** Waits until a co-signed lease is on chain, or can no longer come. */
  async #awaitLease(agreement: Agreement): Promise<void> {
    const { chain } = this.#options;
    const untilMs = agreement.openBeforeMs + OPEN_SLACK_MS;
    const waiting = abortAt(this.#env, untilMs, this.#closing.signal);
    try {
      for await (const lease of chain.watchLease(agreement.lease, waiting)) {
        if (lease === undefined) continue;
        await chain.fundedLease(agreement.lease, termsOf(agreement));
        return await this.dispatch(agreement.lease, { type: 'lease-funded' });
      }
    } catch (error) {
      if (!waiting.aborted) throw error;
    }
    if (!this.#closing.signal.aborted) await this.dispatch(agreement.lease, { type: 'lease-missing' });
  }

  /** Tells the job when its lease leaves the chain, whoever closed it. */
  #watch(agreement: Agreement): void {
    const name = `${agreement.lease} watch`;
    if (this.#busy.has(name)) return;
    this.#busy.add(name);
    const watch = async (): Promise<void> => {
      for await (const lease of this.#options.chain.watchLease(agreement.lease, this.#closing.signal)) {
        if (lease === undefined) return this.dispatch(agreement.lease, { type: 'lease-closed' });
      }
      return undefined;
    };
    void watch()
      .catch((error: unknown) => this.#trouble(`watch of ${agreement.lease}`, error))
      .finally(() => this.#busy.delete(name));
  }

  /**
   * Writes in the order of their numbers. Two that are under way at once may end in either order, and a follower that is
   * told the second before the first is there would never be told the first. What cannot be written, as on a disk that is
   * full for a moment, gives its numbers back: a follower takes a gap for a broken word.
   */
  #inOrder(
    job: Job,
    bodies: readonly EventBody[],
    write: (events: readonly JournaledEvent[]) => Promise<void>,
  ): Promise<void> {
    const { lease } = job.agreement;
    const mine = (this.#writes.get(lease) ?? Promise.resolve()).then(async () => {
      const first = this.nextSequence(lease);
      try {
        await write(this.#number(job, bodies));
      } catch (error) {
        this.#sequences.set(lease, first);
        throw error;
      }
    });
    const settled = mine.catch(() => undefined);
    this.#writes.set(lease, settled);
    void settled.then(() => {
      if (this.#writes.get(lease) === settled) this.#writes.delete(lease);
    });
    return mine;
  }

  #number(job: Job, bodies: readonly EventBody[]): JournaledEvent[] {
    return bodies.map((body) => {
      const sequence = this.nextSequence(job.agreement.lease);
      this.#sequences.set(job.agreement.lease, sequence + 1);
      const bytes = WireEvent.encode({
        ...body,
        sequence: BigInt(sequence),
        atMs: BigInt(this.#env.clock.now()),
        attempt: job.attempt,
      });
      return { sequence, bytes };
    });
  }

  #wake(lease: Address): void {
    const listeners = this.#listeners.get(lease);
    this.#listeners.delete(lease);
    for (const listener of listeners ?? []) listener();
  }

  #changed(lease: Address, signal: AbortSignal): { promise: Promise<void>; cancel: () => void } {
    const { promise, resolve } = Promise.withResolvers<void>();
    const listeners = this.#listeners.get(lease) ?? new Set();
    this.#listeners.set(lease, listeners.add(resolve));
    signal.addEventListener('abort', () => resolve(), { once: true });
    return { promise, cancel: () => listeners.delete(resolve) };
  }

  #trouble(what: string, error: unknown): void {
    if (hasCode(error, 'node/stopped') || this.#closing.signal.aborted) return;
    if (!(error instanceof MoltError)) {
      this.#env.logger.log('error', 'defect while performing an effect', { what, error });
      return;
    }
    this.#options.tell({ type: 'trouble', what, code: error.code, reason: error.message });
  }
}

function isPaid({ failure, outcome }: Job): boolean {
  return failure === undefined && BigInt(outcome?.claimed ?? '0') > 0n;
}

/** What an effect tells the follower of the job. */
function tellOf(job: Job, effect: Effect): EventBody[] {
  switch (effect.type) {
    case 'tell-phase':
      return [{ phase: { phase: job.phase, detail: detailOf(job), bytesDone: 0n, bytesTotal: 0n } }];
    case 'tell-failure':
      return [{ failed: toRefusal(effect.failure) }];
    case 'tell-closed':
      return [
        {
          closed: {
            state: job.failure === undefined ? 'settled' : 'cancelled',
            paid: BigInt(job.outcome?.claimed ?? '0'),
          },
        },
      ];
    default:
      return [];
  }
}

/** A running job names the GPUs that it was given. */
function detailOf({ phase, agreement: { gpus = [] } }: Job): string {
  return phase === 'running' && gpus.length > 0 ? `on ${gpus.join(', ')}`.slice(0, LIMITS.refusalCharacters) : '';
}

export function termsOf(agreement: Agreement): LeaseTerms {
  return {
    budget: agreement.budget,
    provider: agreement.provider,
    operator: agreement.operator,
    delegate: agreement.delegate,
    termsDigest: new Uint8Array(Buffer.from(agreement.termsDigest, 'hex')),
    amount: baseUnits(BigInt(agreement.amount)),
    pricePerSecond: baseUnits(BigInt(agreement.pricePerSecond)),
    reserve: baseUnits(BigInt(agreement.reserve)),
    openBeforeMs: agreement.openBeforeMs,
    finishByMs: agreement.finishByMs,
    graceMs: agreement.graceMs,
    windowMs: agreement.windowMs,
  };
}

/** Aborts when the clock reaches `atMs`, unless the node closes first. */
function abortAt(env: Env, atMs: number, closing: AbortSignal): AbortSignal {
  const controller = new AbortController();
  const abort = (): void => controller.abort(new MoltError('market/quote-expired', 'the lease was not opened in time'));
  env.clock.sleep(Math.max(0, atMs - env.clock.now()), closing).then(abort, abort);
  return controller.signal;
}
