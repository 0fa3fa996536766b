/**
 * A drawn verifier at work: looks for disputes, takes the parties' evidence, judges, votes and reveals, by itself.
 *
 * Contract: a vote is in the journal with its salt before the chain hears of it; every step is found again after a crash
 * by looking at chain and journal, and doing a step twice does no harm. What a dispute may cost this machine is bounded by
 * settings, and one job is run again at a time. The verdict itself is `judge` of attestation/: what is added here is where
 * documents and content come from.
 */
import { join } from 'node:path';

import {
  type DisputedLease,
  type Evidence,
  type Rerun,
  type Verdict,
  assertEvidence,
  contentToRepeat,
  judge,
  judgeRerun,
  notShown,
} from '../../attestation/index.ts';
import type { Chain, DisputeAccount, LeaseAccount } from '../../chain/index.ts';
import type { Address } from '../../protocol/address.ts';
import { Deadline } from '../../protocol/deadline.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import type { Env } from '../../protocol/env.ts';
import { MoltError, hasCode } from '../../protocol/errors.ts';
import { type JobSpec, decodeJobSpec } from '../../protocol/job-spec.ts';
import { LIMITS } from '../../protocol/limits.ts';
import type { Network } from '../../market/ports.ts';
import type { Tell } from '../events.ts';
import type { Journal } from '../journal.ts';
import { type Artifacts, type HandedIn, openArtifacts, serveEvidence } from '../mesh/index.ts';
import type { Runtime } from '../runtime/index.ts';
import { type Case, Cases, type DisputeSummary, summariseCases } from './cases.ts';
import { dutyOf, isLate, seatOf } from './duty.ts';
import { runAgain } from './rerun.ts';

export interface VerifierOptions {
  readonly key: KeyPair;
  /** Our provider account: the verifier. */
  readonly provider: Address;
  readonly chain: Chain;
  readonly network: Network;
  readonly journal: Journal;
  /** The node's home. */
  readonly directory: string;
  /** Runs jobs again; a node without it judges by documents alone. */
  readonly runtime: Runtime | undefined;
  readonly limits: VerifierLimits;
  readonly tell: Tell;
}

/** What one dispute may cost this machine. */
interface VerifierLimits {
  /** Longest run of a job. */
  readonly durationMs: number;
  /** Memory of a job. */
  readonly memoryBytes: number;
  /** Module and inputs, of all disputes together. */
  readonly contentBytes: number;
}

const LOOK_EVERY_MS = 3_000;
/** Of the time for votes, what is kept for sending one. */
const SEND_MS = 5_000;

export class Verifier implements AsyncDisposable {
  readonly #env: Env;
  readonly #options: VerifierOptions;
  readonly #cases: Cases;
  readonly #artifacts: Artifacts;
  readonly #pins = new Map<Address, DisposableStack>();
  /** Open disputes as they were last seen, by lease. */
  #disputes = new Map<Address, DisputeAccount>();
  readonly #busy = new Map<Address, Promise<void>>();
  readonly #taking = new Set<Promise<void>>();
  /** Why content that a buyer brought could not be kept here, by lease. After a crash it is brought again. */
  readonly #unkept = new Map<Address, Unkept>();
  #running: Promise<unknown> = Promise.resolve();
  readonly #closing = new AbortController();
  #work: Promise<void> = Promise.resolve();

  private constructor(env: Env, options: VerifierOptions, kept: { cases: Cases; artifacts: Artifacts }) {
    this.#env = env;
    this.#options = options;
    this.#cases = kept.cases;
    this.#artifacts = kept.artifacts;
  }

  /** Takes up what an earlier process left, and does this node's duty until disposed. */
  static async open(env: Env, options: VerifierOptions): Promise<Verifier> {
    const { directory, journal, limits, network } = options;
    const kept = {
      cases: await Cases.open(journal),
      artifacts: await openArtifacts(env, {
        directory: join(directory, 'verifier', 'artifacts'),
        quotaBytes: limits.contentBytes,
      }),
    };
    const verifier = new Verifier(env, options, kept);
    for (const one of kept.cases.list()) verifier.#hold(one.lease, one.content);
    const served = await serveEvidence(env, network, (from, evidence, signal) =>
      verifier.#take(from, evidence, signal),
    );
    verifier.#work = verifier.#look().then(() => served[Symbol.asyncDispose]());
    return verifier;
  }

  /** Disputes in which this node has, or had, a seat. */
  list(): readonly DisputeSummary[] {
    return summariseCases(this.#cases);
  }

  /** What is under way is left as the journal has it. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new MoltError('node/stopped', 'the node is closing'));
    await this.#work;
    await Promise.allSettled([...this.#busy.values(), ...this.#taking]);
  }

  async #look(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      await this.#lookOnce().catch((error: unknown) => this.#trouble('disputes', error));
      await this.#env.clock.sleep(LOOK_EVERY_MS, signal).catch(() => undefined);
    }
  }

  async #lookOnce(): Promise<void> {
    const { chain, provider } = this.#options;
    const { verifiers, parameters } = await chain.config();
    if (!verifiers.includes(provider) && this.#cases.list().length === 0) return;
    const [disputes, nowMs] = await Promise.all([chain.disputes(), chain.chainTimeMs()]);
    this.#disputes = new Map(disputes.map((dispute) => [dispute.lease, dispute]));
    for (const { lease } of this.#cases.list())
      if (!this.#disputes.has(lease)) this.#begin(lease, () => this.#close(lease));
    for (const dispute of disputes) {
      const hasVote = this.#cases.get(dispute.lease)?.vote !== undefined;
      const duty = dutyOf({ dispute, self: provider, hasVote, nowMs, voteMs: parameters.voteMs });
      await this.#sit(dispute);
      if (duty === 'wait') continue;
      const late = isLate(dispute, nowMs, parameters.voteMs);
      this.#begin(dispute.lease, () => this.#perform(duty, dispute, { nowMs, late }));
    }
  }

  /** A seat is a case from when it is seen, whatever the list of verifiers says later. */
  async #sit({ lease, voteUntilMs, ...dispute }: DisputeAccount): Promise<void> {
    const isDrawn = dispute.seats.some(({ verifier }) => verifier === this.#options.provider);
    if (!isDrawn || this.#cases.get(lease) !== undefined) return;
    await this.#cases.keep(this.#caseOf(lease));
    this.#options.tell({ type: 'seat-drawn', lease, voteUntilMs });
  }

  /** One thing at a time about one lease; the next look finds what is left. */
  #begin(lease: Address, task: () => Promise<void>): void {
    if (this.#busy.has(lease)) return;
    const busy = task()
      .catch((error: unknown) => this.#trouble(`dispute about ${lease}`, error))
      .finally(() => this.#busy.delete(lease));
    this.#busy.set(lease, busy);
  }

  async #perform(
    duty: Exclude<ReturnType<typeof dutyOf>, 'wait'>,
    dispute: DisputeAccount,
    at: { readonly nowMs: number; readonly late: boolean },
  ): Promise<void> {
    const { chain, key, provider: verifier, tell } = this.#options;
    const { lease } = dispute;
    const vote = this.#cases.get(lease)?.vote;
    if (duty === 'draw') await chain.drawVerifiers(key, lease);
    else if (duty === 'judge') await this.#judge(dispute, at);
    else if (duty === 'resolve') {
      const account = await chain.lease(lease);
      if (account !== undefined) await chain.resolveDispute(key, account);
    } else if (vote !== undefined) {
      const { side, salt } = vote;
      if (duty === 'commit') {
        const { signature: transaction } = await chain.commitVote(key, { lease, verifier, side, salt });
        tell({ type: 'vote-committed', lease, transaction });
      } else {
        const { signature: transaction } = await chain.revealVote(key, { lease, verifier, side, salt });
        tell({ type: 'vote-revealed', lease, side, transaction });
      }
    }
  }

  /** Comes to a vote where that can be done by now, keeps it, and commits to it. */
  async #judge(dispute: DisputeAccount, at: { readonly nowMs: number; readonly late: boolean }): Promise<void> {
    const { chain, tell } = this.#options;
    const account = await chain.lease(dispute.lease);
    if (account === undefined) return;
    const verdict = await this.#verdict(dispute, disputedLease(chain, account), at);
    if (verdict === undefined) return;
    const { lease } = dispute;
    const { side, ground, reason } = verdict;
    const salt = this.#env.random.bytes(32);
    await this.#cases.keep({ ...this.#caseOf(lease), vote: { side, ground, reason, salt } });
    tell({ type: 'dispute-judged', lease, side, ground, reason });
    await this.#perform('commit', dispute, at);
  }

  async #verdict(
    dispute: DisputeAccount,
    of: DisputedLease,
    { nowMs, late }: { readonly nowMs: number; readonly late: boolean },
  ): Promise<Verdict | undefined> {
    const { evidence, content } = this.#caseOf(dispute.lease);
    const judgement = judge(of, evidence, late);
    if ('verdict' in judgement) return judgement.verdict;
    if ('waitsFor' in judgement) return undefined;
    const { rerun } = judgement;
    const costly = this.#tooCostly(rerun.spec);
    if (costly !== undefined) return notShown('too-costly', costly);
    if (content.length === 0) {
      const unkept = this.#unkept.get(dispute.lease);
      if (unkept !== undefined && (late || unkept.forGood)) return notShown('too-costly', unkept.reason);
      if (!late) return undefined;
      return notShown('content-missing', 'the buyer has not brought the module and the inputs of the job');
    }
    return this.#runAgain(dispute.lease, rerun, dispute.voteUntilMs - SEND_MS - nowMs);
  }

  async #runAgain(lease: Address, rerun: Rerun, leftMs: number): Promise<Verdict | undefined> {
    const { directory, limits, runtime } = this.#options;
    const durationMs = Math.min(limits.durationMs, leftMs);
    if (runtime === undefined || durationMs <= 0) return notShown('too-costly', 'no time is left to run it again');
    // Time in the queue is time that is lost: the deadline is of both.
    using deadline = new Deadline(this.#env.clock, durationMs, this.#closing.signal);
    const parts = { artifacts: this.#artifacts, runtime, directory: join(directory, 'verifier', 'runs') };
    const turn = this.#running
      .catch(() => undefined)
      .then(() => {
        deadline.signal.throwIfAborted();
        return runAgain(parts, { ...rerun, lease, durationMs, signal: deadline.signal });
      });
    this.#running = turn;
    try {
      const verdict = judgeRerun(rerun, await turn);
      return (
        verdict ?? notShown('too-costly', `it did not end within the ${Math.round(durationMs / 1000)} s that are left`)
      );
    } catch (error) {
      if (deadline.expired) return notShown('too-costly', 'it could not be run again in the time that is left');
      if (!hasCode(error, 'job/module-invalid')) throw error;
      const reason = `the module is none that could have been run: ${error.message}`;
      return { side: 'buyer', ground: 'result-differs', reason: reason.slice(0, LIMITS.refusalCharacters) };
    }
  }

  /** Why this machine does not run it; undefined where it does. */
  #tooCostly(spec: JobSpec): string | undefined {
    const { limits, runtime } = this.#options;
    if (runtime === undefined) return 'this verifier has no runtime for it';
    const { memoryBytes } = spec.resources;
    if (memoryBytes > limits.memoryBytes)
      return `the job has ${memoryBytes} bytes of memory, this verifier runs ${limits.memoryBytes} again`;
    return undefined;
  }

  /** Evidence of a party, checked against the chain and kept before it is acknowledged. No party waits for another's content. */
  #take(from: Address, handed: HandedIn, signal: AbortSignal): Promise<void> {
    const taking = this.#takeNow(from, handed, AbortSignal.any([signal, this.#closing.signal]));
    const settled = taking.catch(() => undefined).finally(() => this.#taking.delete(settled));
    this.#taking.add(settled);
    return taking;
  }

  async #takeNow(from: Address, { lease, hasContent, ...evidence }: HandedIn, signal: AbortSignal): Promise<void> {
    const of = await this.#openCase(lease);
    if (from !== of.delegate && from !== of.operator)
      throw new MoltError('dispute/evidence-refused', `${from} is no party of lease ${lease}`);
    assertEvidence(of, evidence);
    const before = this.#caseOf(lease);
    const merged: Evidence = { ...before.evidence, ...evidence };
    await this.#cases.keep({ ...before, evidence: merged });
    const isBuyer = from === of.delegate;
    const content = isBuyer && hasContent ? this.#wanted(of, merged) : [];
    if (content.length > 0 && before.content.length === 0) {
      await this.#fetch({ lease, from, content }, signal);
      const now = this.#cases.get(lease);
      if (now !== undefined) await this.#cases.keep({ ...now, content });
    }
    const brings = content.length > 0;
    this.#options.tell({ type: 'evidence-taken', lease, from: isBuyer ? 'buyer' : 'provider', content: brings });
  }

  /** What of the buyer's content is needed: also before the proof is here, for its provider may show that last. */
  #wanted(of: DisputedLease, evidence: Evidence): readonly string[] {
    if (evidence.spec === undefined || 'verdict' in judge(of, evidence, false)) return [];
    const spec = decodeJobSpec(evidence.spec);
    return this.#tooCostly(spec) === undefined ? contentToRepeat(spec) : [];
  }

  /** The lease of a dispute in which a vote of ours is still to be given. Throws `dispute/not-drawn`, `dispute/judged`. */
  async #openCase(lease: Address): Promise<DisputedLease> {
    const { chain, provider } = this.#options;
    const known = this.#disputes.get(lease);
    const dispute = known !== undefined && known.seats.length > 0 ? known : await chain.dispute(lease);
    if (this.#cases.get(lease)?.vote !== undefined)
      throw new MoltError('dispute/judged', `${provider} has judged the dispute about lease ${lease}`, { lease });
    if (dispute === undefined || seatOf(dispute, provider) === undefined)
      throw new MoltError('dispute/not-drawn', `${provider} has no seat in a dispute about lease ${lease}`, { lease });
    await this.#sit(dispute);
    const account = await chain.lease(lease);
    if (account === undefined) throw new MoltError('dispute/not-drawn', `lease ${lease} is closed`, { lease });
    return disputedLease(chain, account);
  }

  async #fetch(
    { lease, from, content }: { readonly lease: Address; readonly from: Address; readonly content: readonly string[] },
    signal: AbortSignal,
  ): Promise<void> {
    const { limits, network } = this.#options;
    this.#hold(lease, content);
    try {
      for (const cid of content)
        await this.#artifacts.fetch(network, from, cid, { maxBytes: limits.contentBytes, signal });
    } catch (error) {
      // What is too large alone never fits; what finds no room may, when other disputes are over.
      const forGood = hasCode(error, 'artifact/too-large');
      const reason = `module and inputs do not fit into the ${limits.contentBytes} bytes that this verifier keeps of them`;
      if (forGood || hasCode(error, 'job/disk-full')) this.#unkept.set(lease, { reason, forGood });
      throw error;
    }
    this.#unkept.delete(lease);
  }

  #hold(lease: Address, content: readonly string[]): void {
    const pins = this.#pins.get(lease) ?? new DisposableStack();
    this.#pins.set(lease, pins);
    for (const cid of content) pins.use(this.#artifacts.pin(cid));
  }

  #caseOf(lease: Address): Case {
    return this.#cases.get(lease) ?? { lease, evidence: {}, content: [] };
  }

  /** The dispute is gone from the chain: what is known of its end is kept, all else goes. */
  async #close(lease: Address): Promise<void> {
    const { chain, tell } = this.#options;
    const ending = (await chain.leaseEnding(lease))?.ending ?? 'unknown';
    const { vote, content } = this.#caseOf(lease);
    const { side, ground, reason } = vote ?? {};
    const judged = side === undefined || ground === undefined || reason === undefined ? {} : { side, ground, reason };
    await this.#cases.close({ lease, ...judged, ending, endedAtMs: this.#env.clock.now() });
    this.#pins.get(lease)?.dispose();
    this.#pins.delete(lease);
    this.#unkept.delete(lease);
    for (const cid of content) await this.#artifacts.remove(cid);
    tell({ type: 'dispute-over', lease, ending, side });
  }

  #trouble(what: string, error: unknown): void {
    if (this.#closing.signal.aborted) return;
    // Several hurry to draw and to resolve; who comes second has nothing to do.
    const isLast = hasCode(error, 'chain/refused', 'chain/account-missing', 'chain/too-early', 'chain/too-late');
    if (isLast) this.#env.logger.log('debug', 'a step of a dispute was not needed', { what, reason: error.message });
    else if (error instanceof MoltError)
      this.#options.tell({ type: 'trouble', what, code: error.code, reason: error.message });
    else this.#env.logger.log('error', 'defect in a verifier', { what, error });
  }
}

interface Unkept {
  readonly reason: string;
  readonly forGood: boolean;
}

function disputedLease(chain: Chain, account: LeaseAccount): DisputedLease {
  const { address: lease, amount: locked, proof, ...rest } = account;
  if (proof === undefined) throw new MoltError('chain/account-malformed', `lease ${lease} is disputed without a proof`);
  const { claimed, resultDigest, provenAtMs } = proof;
  return { ...rest, network: chain.network, lease, locked, claimed, resultDigest, provenAtMs };
}
