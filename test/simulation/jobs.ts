/**
 * A provider's jobs: the real job machine (node/provider/job.ts) in a shell as thin as node/provider/jobs.ts, over a
 * journal (journal.ts) and an engine (engine.ts).
 */
import {
  type Agreement,
  type Effect,
  type Input,
  type Job,
  OPEN_SLACK_MS,
  acceptJob,
  decide,
} from '../../node/provider/job.ts';
import type { Address } from '../../protocol/address.ts';
import { MoltError } from '../../protocol/errors.ts';
import { isLeaseEnd } from '../../protocol/lease.ts';
import type { LeaseAccount, Terms } from './chain.ts';
import type { Engine, Run, Task } from './engine.ts';
import type { Journal } from './journal.ts';
import type { Link } from './network.ts';
import type { Provider } from './provider.ts';
import { Violation } from './world.ts';

/** Frames of the lease stream, as objects: their bytes are node/'s and test/integration's matter. */
export type LeaseFrame =
  | { readonly type: 'accept'; readonly quote: string; readonly budget: Address }
  | { readonly type: 'submit'; readonly lease: Address; readonly task: Task }
  | { readonly type: 'attach'; readonly lease: Address }
  | { readonly type: 'settle'; readonly lease: Address; readonly amount: bigint }
  | { readonly type: 'cancel'; readonly lease: Address }
  | { readonly type: 'accepted'; readonly terms: Terms; readonly signature: Uint8Array }
  | { readonly type: 'settle-signed'; readonly signature: Uint8Array }
  | { readonly type: 'refused'; readonly error: MoltError }
  | { readonly type: 'failed'; readonly error: MoltError }
  /** The job runs. */
  | { readonly type: 'begun' }
  | { readonly type: 'proof'; readonly proof: Proof }
  | { readonly type: 'closed' };

/** What a proof says, as far as it matters here. */
export interface Proof {
  readonly claimed: bigint;
  readonly result: string;
  /** The clock of the provider. */
  readonly startedAtMs: number;
}

const TICK_MS = 1_000;
const WATCH_MS = 500;
const STEP_MS = { from: 50, to: 2_000 };
const FUNDED_PATIENCE_MS = 10_000;
const MISSING_SHARE = 0.05;

export class Jobs {
  readonly all: Map<Address, Job> = new Map<Address, Job>();
  readonly #provider: Provider;
  readonly #journal: Journal;
  readonly #engine: Engine;
  readonly #followers = new Map<Address, Link>();
  /** Of jobs whose last decision is being journaled: what came meanwhile. */
  readonly #inputs = new Map<Address, Input[]>();
  readonly #ticking = new Set<Address>();

  constructor(provider: Provider, journal: Journal, engine: Engine) {
    this.#provider = provider;
    this.#journal = journal;
    this.#engine = engine;
  }

  /** A process starts with the jobs of the journal, and gives those that are not closed. */
  start(): readonly (readonly [Address, Job])[] {
    this.all.clear();
    this.#followers.clear();
    this.#inputs.clear();
    this.#ticking.clear();
    for (const [lease, job] of this.#journal.jobs) this.all.set(lease, job);
    return [...this.all].filter(([, job]) => job.phase !== 'closed');
  }

  /** These go on where the journal says. */
  recover(open: readonly (readonly [Address, Job])[]): void {
    for (const [lease] of open) {
      this.dispatch(lease, { type: 'restarted', adopted: this.#engine.run(lease) !== undefined });
      this.#tick(lease);
      this.lookAtLease(lease);
    }
  }

  accept(agreement: Agreement, done: () => void): void {
    const { lease } = agreement;
    const { job, effects } = acceptJob(agreement, this.#provider.now());
    this.#journal.write(
      () => this.#journal.jobs.set(lease, job),
      () => {
        this.all.set(lease, job);
        for (const effect of effects) this.#perform(job, effect);
        this.#tick(lease);
        done();
      },
    );
  }

  /** Throws `job/unknown` unless the job is this buyer's. */
  own(buyer: Address, lease: Address): Job {
    const job = this.all.get(lease);
    if (job === undefined || job.agreement.delegate !== buyer)
      throw new MoltError('job/unknown', 'no such lease of yours is known here');
    return job;
  }

  /** Takes the job once its lease is seen funded. */
  submit(link: Link, { agreement }: Job, task: Task, sinceMs: number): void {
    const { lease } = agreement;
    const { chain, world } = this.#provider.at;
    if (!chain.leases.has(lease)) {
      if (world.nowMs - sinceMs > FUNDED_PATIENCE_MS) {
        const error = new MoltError('chain/account-missing', 'the lease is not on chain');
        return link.send(this.#provider, { type: 'refused', error } satisfies LeaseFrame);
      }
      return this.#provider.after(WATCH_MS, 'waits for the lease', () => {
        const job = this.all.get(lease);
        if (job !== undefined) this.submit(link, job, task, sinceMs);
      });
    }
    this.dispatch(lease, { type: 'lease-funded' });
    this.dispatch(lease, { type: 'spec', spec: JSON.stringify(task), hasSecrets: false });
    const job = this.all.get(lease);
    if (job !== undefined) this.follow(link, job);
    return undefined;
  }

  follow(link: Link, job: Job): void {
    this.#followers.set(job.agreement.lease, link);
  }

  tellFollower(job: Job): void {
    const link = this.#followers.get(job.agreement.lease);
    const { failure, outcome, phase, exit, startedAtMs = 0 } = job;
    let frame: LeaseFrame | undefined;
    if (failure !== undefined) frame = { type: 'failed', error: new MoltError(failure.code, failure.message) };
    else if (outcome !== undefined) {
      const [result = ''] = outcome.outputs;
      const proof = { claimed: BigInt(outcome.claimed), result, startedAtMs: exit?.startedAtMs ?? startedAtMs };
      frame = { type: 'proof', proof };
    } else if (phase === 'closed') frame = { type: 'closed' };
    else if (phase === 'running') frame = { type: 'begun' };
    if (frame !== undefined) link?.send(this.#provider, frame);
  }

  /** Inputs of one job are applied one after the other, each decision journaled before its effects. */
  dispatch(lease: Address, input: Input): void {
    const waiting = this.#inputs.get(lease);
    if (waiting !== undefined) {
      waiting.push(input);
      return;
    }
    const job = this.all.get(lease);
    if (job === undefined) return;
    const { job: next, effects } = decide(job, input, this.#provider.now());
    if (next === job && effects.length === 0) return;
    this.#inputs.set(lease, []);
    this.#journal.write(
      () => this.#journal.jobs.set(lease, next),
      () => {
        this.all.set(lease, next);
        for (const effect of effects) this.#perform(next, effect);
        if (next.phase !== job.phase) this.#entered(next);
        const rest = this.#inputs.get(lease) ?? [];
        this.#inputs.delete(lease);
        for (const one of rest) this.dispatch(lease, one);
      },
    );
  }

  lookAtLease(lease: Address): void {
    const found = this.#provider.at.chain.leases.get(lease);
    if (found !== undefined && isLeaseEnd(found.state)) this.dispatch(lease, { type: 'lease-closed' });
  }

  watchLease({ address }: LeaseAccount): void {
    this.#provider.after(this.#provider.chance.between(100, 1_500), 'sees its lease closed', () =>
      this.lookAtLease(address),
    );
  }

  #entered(job: Job): void {
    const { lease } = job.agreement;
    if (job.phase === 'queued') this.#provider.do({ type: 'lease-funded', lease });
    if (['running', 'done', 'refunding', 'closed'].includes(job.phase)) this.tellFollower(job);
    if (job.phase === 'running') {
      const run = this.#engine.run(lease);
      if (run !== undefined) this.#awaitExit(job, run);
    }
  }

  #perform(job: Job, effect: Effect): void {
    const { lease } = job.agreement;
    const { attempt } = job;
    switch (effect.type) {
      case 'await-lease':
        return this.#awaitLease(job.agreement);
      case 'fetch':
        return this.#engine.fetch(taskOf(job), job.agreement.near ?? [], () =>
          this.dispatch(
            lease,
            this.#provider.chance.happens(MISSING_SHARE)
              ? { type: 'failed', attempt, failure: { code: 'job/input-missing', message: 'no such content' } }
              : { type: 'fetched', inputs: {}, attempt },
          ),
        );
      case 'prepare':
        return this.#engine.prepare(taskOf(job), () => this.dispatch(lease, { type: 'prepared', attempt }));
      case 'start':
        return this.#soon('started', () => this.dispatch(lease, this.#start(job)));
      case 'adopt':
        return this.#adopt(job);
      case 'collect':
        return this.#soon('collected', () => this.dispatch(lease, this.#collect(job)));
      case 'stop':
        return this.#stop(job);
      case 'claim':
      case 'settle-lapsed':
      case 'refund':
        return this.#onChain(job, effect.type);
      case 'release':
        if ((this.#engine.run(lease)?.endsMs ?? 0) > this.#provider.at.world.nowMs)
          throw new Violation(`${this.#provider.name} gives away what the run of lease ${lease} still uses`);
        return this.#provider.do({ type: 'lease-ended', lease });
      default:
        return undefined;
    }
  }

  #soon(what: string, run: () => void): void {
    this.#provider.after(this.#provider.chance.between(STEP_MS.from, STEP_MS.to), what, run);
  }

  #start(job: Job): Input {
    const { attempt } = job;
    if (this.#provider.cannotRun)
      return { type: 'failed', attempt, failure: { code: 'job/interrupted', message: 'there is no such machine' } };
    const task = taskOf(job);
    this.#provider.assertMayRun(task);
    const { lease } = job.agreement;
    const { startedAtMs } = this.#engine.start(lease, task);
    const { startByMs = 0 } = this.#provider.at.chain.promises.get(lease) ?? {};
    const { late } = this.#provider.at.chain;
    // A machine whose clock was set back meanwhile may begin once more in time, as far as it can know.
    if (startByMs > 0 && startedAtMs > startByMs) late.add(lease);
    else late.delete(lease);
    return { type: 'started', attempt, startedAtMs };
  }

  #adopt(job: Job): void {
    const { lease } = job.agreement;
    const run = this.#engine.run(lease);
    if (run === undefined) return undefined;
    const { attempt } = job;
    if (job.phase === 'starting') this.dispatch(lease, { type: 'started', attempt, startedAtMs: run.startedAtMs });
    return this.#awaitExit(job, run);
  }

  #awaitExit(job: Job, run: Run): void {
    const { lease } = job.agreement;
    this.#provider.after(run.endsMs - this.#provider.at.world.nowMs, 'a run ends', () => {
      if (this.#engine.run(lease) === run) this.#exit(job, run, run.endsMs);
    });
  }

  #stop(job: Job): void {
    const { lease } = job.agreement;
    const run = this.#engine.run(lease);
    this.#engine.stop(lease);
    if (run !== undefined && job.phase === 'running') this.#exit(job, run, this.#provider.at.world.nowMs);
  }

  #exit({ agreement, attempt }: Job, { startedMs, startedAtMs }: Run, endedMs: number): void {
    const durationMs = endedMs - startedMs;
    const exit = {
      reason: 'exited',
      exitCode: 0,
      detail: '',
      startedAtMs,
      finishedAtMs: startedAtMs + durationMs,
      durationMs,
      cpuMs: 0,
      memoryPeakBytes: 0,
      fuel: undefined,
    };
    this.dispatch(agreement.lease, { type: 'exited', attempt, exit });
  }

  #collect({ agreement, attempt, exit, spec }: Job): Input {
    const seconds = BigInt(Math.ceil((exit?.durationMs ?? 0) / 1000));
    const owed = seconds * BigInt(agreement.pricePerSecond);
    const lock = BigInt(agreement.amount);
    const claimed = String(owed < lock ? owed : lock);
    const task = taskOf({ spec });
    const result = this.#provider.resultOf(task);
    if (result !== task.result) this.#provider.at.chain.wrong.add(agreement.lease);
    return { type: 'collected', attempt, outcome: { proofDigest: agreement.lease, claimed, outputs: [result] } };
  }

  #onChain(job: Job, what: 'claim' | 'settle-lapsed' | 'refund'): void {
    const { chain } = this.#provider.at;
    const { lease } = job.agreement;
    const found = chain.leases.get(lease);
    if (found === undefined || isLeaseEnd(found.state)) return this.dispatch(lease, { type: 'lease-closed' });
    if (what === 'claim' && found.state !== 'running') return this.dispatch(lease, { type: 'claim-confirmed' });
    const event = ({ claim: 'submitProof', 'settle-lapsed': 'settleLapsed', refund: 'cancelByOperator' } as const)[
      what
    ];
    const amount = what === 'claim' ? { amount: BigInt(job.outcome?.claimed ?? '0') } : {};
    const draft = { event, lease, ...amount };
    const signatures = new Map([[this.#provider.address, chain.sign(this.#provider.key, draft)]]);
    chain.submit(
      { ...draft, signatures },
      this.#provider.mine((refusal) => {
        if (what === 'claim' && refusal === undefined) this.dispatch(lease, { type: 'claim-confirmed' });
      }),
    );
    return undefined;
  }

  /** Until the chain's own clock says that the lease can no longer be opened, and it is not there. */
  #awaitLease({ lease, openBeforeMs }: Agreement): void {
    const { chain } = this.#provider.at;
    if (chain.leases.has(lease)) return this.dispatch(lease, { type: 'lease-funded' });
    if (chain.nowMs() > openBeforeMs + OPEN_SLACK_MS) return this.dispatch(lease, { type: 'lease-missing' });
    return this.#provider.after(WATCH_MS, 'awaits a lease', () => {
      const job = this.all.get(lease);
      if (job?.phase === 'accepted') this.#awaitLease(job.agreement);
    });
  }

  #tick(lease: Address): void {
    if (this.#ticking.has(lease)) return;
    this.#ticking.add(lease);
    const again = (): void =>
      this.#provider.after(TICK_MS, 'tick', () => {
        const phase = this.all.get(lease)?.phase;
        if (phase === undefined || phase === 'closed') return;
        this.dispatch(lease, { type: 'tick' });
        again();
      });
    again();
  }
}

const NO_TASK: Task = { runMs: 0, image: '', inputs: [], result: '' };

/** A job that never came has none. */
function taskOf({ spec }: { readonly spec?: string | undefined }): Task {
  return spec === undefined ? NO_TASK : (JSON.parse(spec) as Task);
}
