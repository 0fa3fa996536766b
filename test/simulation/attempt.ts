/**
 * One quote, from its acceptance to the settlement: a plain model of the SDK's attempt, with its patience (sdk/attempt.ts,
 * sdk/lease-client.ts). Its owner, a job or a slot of a gang, says when to go on from one stage to the next.
 */
import type { VerifiedQuote } from '../../market/index.ts';
import type { Address } from '../../protocol/address.ts';
import { MoltError } from '../../protocol/errors.ts';
import { isLeaseEnd } from '../../protocol/lease.ts';
import { LIMITS } from '../../protocol/limits.ts';
import type { Buyer } from './buyer.ts';
import type { LeaseAccount, Terms, Transaction } from './chain.ts';
import type { Link } from './network.ts';
import type { Task } from './engine.ts';
import type { LeaseFrame, Proof } from './jobs.ts';

/** Each is called at most once, and nothing after `delivered` or `failed`. */
export interface AttemptOwner {
  /** The provider has signed; the lease may be opened. */
  signed(): void;
  /** The lease is on chain; the job may be handed over. */
  opened(): void;
  /** Of a replica: hears undefined once its result is that of more than half, or why it is not to be paid. */
  agree?(result: string, done: (error: MoltError | undefined) => void): void;
  delivered(paid: bigint): void;
  failed(error: MoltError): void;
}

const ANSWER_MS = 10_000;
const RECONNECT_EVERY_MS = 500;
const RECONNECT_MS = 8_000;
const REFUND_WAIT_MS = 5_000;
const CANCEL_WAIT_MS = 15_000;
const START_LOOK_MS = 1_000;

/** Whether the provider did what it signed not to do: its claim is disputed. */
function isContested(error: MoltError): boolean {
  return ['job/started-late', 'proof/started-late', 'proof/outvoted'].includes(error.code);
}

/** Whether the lease is neither settled nor cancelled after this, which would pay for it. */
export function isLeftAlone(error: MoltError): boolean {
  return isContested(error) || error.code === 'proof/no-majority';
}

export class Attempt {
  readonly #buyer: Buyer;
  readonly #owner: AttemptOwner;
  readonly #task: Task;
  readonly #terms: Terms;
  /** Undefined where no start was promised. */
  readonly #startByMs: number | undefined;
  readonly lease: Address;
  #theirs: Uint8Array | undefined;
  #link: Link | undefined;
  #isOver = false;
  #isOpen = false;
  #wasSent = false;
  #lostMs: number | undefined;
  #claimed: bigint | undefined;
  #hasBegun = false;
  #isComparing = false;

  constructor(buyer: Buyer, quote: VerifiedQuote, task: Task, owner: AttemptOwner) {
    const { content } = quote;
    this.#buyer = buyer;
    this.#owner = owner;
    this.#task = task;
    this.#startByMs = content.startByMs === 0 ? undefined : content.startByMs;
    this.lease = buyer.at.chain.leaseAddress(buyer.budget, quote.id);
    this.#terms = {
      quote: quote.id,
      budget: buyer.budget,
      provider: content.provider,
      operator: quote.signer,
      delegate: buyer.address,
      pricePerSecond: content.pricePerSecond,
      amount: content.amount,
      reserve: content.reserve,
      openBeforeMs: content.openBeforeMs,
      finishByMs: content.finishByMs,
      graceMs: content.graceMs,
      windowMs: content.windowMs,
    };
  }

  /** The lease as the chain has it. */
  get onChain(): LeaseAccount | undefined {
    return this.#buyer.at.chain.leases.get(this.lease);
  }

  get isConnected(): boolean {
    return this.#link !== undefined;
  }

  /** What it has cost, as far as that is known: sdk/lease-end.ts, `paidFor`. */
  paid(error: MoltError | undefined): bigint | undefined {
    const lease = this.onChain;
    if (lease !== undefined && isLeaseEnd(lease.state)) return lease.paid;
    const isBefore = !this.#wasSent && error !== undefined && /^(?:market|mesh)\//.test(error.code);
    return isBefore && lease === undefined ? 0n : undefined;
  }

  accept(): void {
    this.#connect();
    this.#say({ type: 'accept', quote: this.#terms.quote, budget: this.#buyer.budget });
    this.#buyer.after(ANSWER_MS, 'waits for a signature', () => {
      if (this.#theirs === undefined) this.fail(new MoltError('mesh/timeout', 'the provider did not answer in time'));
    });
  }

  open(): void {
    this.#wasSent = true;
    this.#submit({ event: 'open', lease: this.lease, terms: this.#terms }, (refusal) => {
      if (refusal !== undefined && this.onChain === undefined) return this.fail(refusal);
      this.#isOpen = true;
      return this.#owner.opened();
    });
  }

  run(): void {
    this.#say({ type: 'submit', lease: this.lease, task: this.#task });
    this.#watchStart();
    this.#watchDeadline();
    if (this.#link === undefined) this.#lost();
  }

  /** The run is to end early: its provider proves what ran. */
  stop(): void {
    this.#say({ type: 'cancel', lease: this.lease });
    this.#buyer.after(CANCEL_WAIT_MS, 'waits for the end of a job', () =>
      this.fail(new MoltError('job/provider-lost', 'the provider did not end the cancelled job in time')),
    );
  }

  /** Gives up what was signed and may be open, before anything ran: sdk/gang-run.ts. `done` in any case. */
  leave(mayBeOpen: boolean, done: () => void): void {
    this.#isOver = true;
    const wasConnected = this.isConnected;
    this.#say({ type: 'cancel', lease: this.lease });
    const over = (): void => {
      this.#link?.close(this.#buyer);
      done();
    };
    if (!mayBeOpen) return this.#buyer.after(100, 'has let go', over);
    const cancel = (): void => {
      const { state } = this.onChain ?? {};
      if (state !== 'running') return over();
      return this.#submit({ event: 'cancelByDelegate', lease: this.lease }, over, true);
    };
    return this.#buyer.after(wasConnected ? REFUND_WAIT_MS : 0, 'takes a lease back', cancel);
  }

  fail(error: MoltError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#link?.close(this.#buyer);
    if (isContested(error)) this.#buyer.contest(this.lease);
    this.#owner.failed(error);
  }

  #connect(): void {
    const link = this.#buyer.at.network.connect(this.#buyer, this.#terms.operator, 'lease', {
      onFrame: (frame) => this.#hear(frame as LeaseFrame),
      onEnd: () => {
        if (this.#link === link) this.#lost();
      },
    });
    this.#link = link;
  }

  #say(frame: LeaseFrame): void {
    this.#link?.send(this.#buyer, frame);
  }

  #hear(frame: LeaseFrame): void {
    if (this.#isOver) return;
    this.#lostMs = undefined;
    if (frame.type === 'accepted' && this.#theirs === undefined) {
      this.#theirs = frame.signature;
      this.#owner.signed();
    } else if (frame.type === 'refused' || frame.type === 'failed') this.fail(frame.error);
    else if (frame.type === 'begun') this.#hasBegun = true;
    else if (frame.type === 'proof' && this.#claimed === undefined) this.#conclude(frame.proof);
    else if (frame.type === 'settle-signed' && this.#claimed !== undefined) this.#settleAgreed(frame.signature);
    else if (frame.type === 'closed') this.#lookAtLease();
  }

  /** A start that was promised and is not heard of: while the stream is broken nobody can say. */
  #watchStart(): void {
    const startByMs = this.#startByMs;
    if (startByMs === undefined) return;
    const wait = (ms: number, heardMs: number): void =>
      this.#buyer.after(ms, 'looks for the start of a job', () => {
        if (this.#isOver || this.#hasBegun || this.#claimed !== undefined) return;
        if (heardMs > START_LOOK_MS)
          this.fail(new MoltError('job/started-late', 'the provider promised to begin the job by now and did not'));
        else wait(START_LOOK_MS, this.isConnected ? heardMs + START_LOOK_MS : 0);
      });
    wait(startByMs + LIMITS.clockFutureMs - this.#buyer.now(), 0);
  }

  /** A provider that lives on and never proves: its lease runs out, and with it the wait. */
  #watchDeadline(): void {
    const { chain } = this.#buyer.at;
    const { finishByMs, graceMs } = this.#terms;
    this.#buyer.after(finishByMs + graceMs - chain.nowMs() + 2_000, 'the lease has run out', () => {
      if (!this.#isComparing)
        this.fail(new MoltError('job/provider-lost', 'the provider proved nothing in the time of the lease'));
    });
  }

  /** The proof, and agreement where there are replicas, before anything is paid. */
  #conclude({ claimed, result, startedAtMs }: Proof): void {
    if (claimed > this.#terms.amount)
      return this.fail(new MoltError('proof/wrong-metering', 'the proof claims more than is locked'));
    if (startedAtMs > (this.#startByMs ?? Infinity))
      return this.fail(new MoltError('proof/started-late', 'the job began later than its quote promised'));
    this.#claimed = claimed;
    if (this.#owner.agree === undefined) return this.#settle(claimed);
    this.#isComparing = true;
    return this.#owner.agree(result, (error) => {
      this.#isComparing = false;
      if (this.#isOver) return;
      if (error !== undefined) this.fail(error);
      else if (this.#link === undefined) this.#lost();
      else this.#settle(claimed);
    });
  }

  #settle(claimed: bigint): void {
    this.#say({ type: 'settle', lease: this.lease, amount: claimed });
    this.#buyer.after(ANSWER_MS, 'waits for the settlement', () => this.#settleAlone(claimed));
  }

  #settleAgreed(theirs: Uint8Array): void {
    this.#theirs = theirs;
    const draft = { event: 'settleAgreed', lease: this.lease, amount: this.#claimed ?? 0n } as const;
    this.#submit(draft, () => this.#lookAtLease());
  }

  /** The provider did not co-sign: what it claimed on chain meanwhile is paid without it, or the wait goes on there. */
  #settleAlone(claimed: bigint): void {
    const lease = this.onChain;
    if (this.#isOver) return;
    if (lease?.state === 'proven' && lease.claimed === claimed)
      this.#submit({ event: 'settleClaimed', lease: this.lease }, () => this.#lookAtLease());
    else this.#lookAtLease();
  }

  #lookAtLease(): void {
    const lease = this.onChain;
    if (this.#isOver || this.#isComparing) return;
    if (lease?.state === 'settled') {
      this.#isOver = true;
      this.#link?.close(this.#buyer);
      this.#owner.delivered(lease.paid);
    } else if (lease === undefined || isLeaseEnd(lease.state)) {
      this.fail(new MoltError('job/provider-lost', 'the lease was closed without a proof'));
    } else this.#buyer.after(2_000, 'looks at its lease', () => this.#settleAlone(this.#claimed ?? 0n));
  }

  #submit(
    draft: Omit<Transaction, 'signatures'>,
    done: (refusal: MoltError | undefined) => void,
    isLeaving = false,
  ): void {
    const { key, address, at } = this.#buyer;
    const signatures = new Map([[address, at.chain.sign(key, draft)]]);
    if (this.#theirs !== undefined) signatures.set(this.#terms.operator, this.#theirs);
    at.chain.submit(
      { ...draft, signatures },
      this.#buyer.mine((refusal) => {
        if (!this.#isOver || isLeaving) done(refusal);
      }),
    );
  }

  /** Comes back to the same provider for a while before it counts as gone. */
  #lost(): void {
    this.#link = undefined;
    if (this.#isOver || this.#isComparing) return;
    const { nowMs } = this.#buyer.at.world;
    if (!this.#isOpen) {
      // What was sent to the chain is waited for.
      if (!this.#wasSent) this.fail(new MoltError('mesh/closed', 'the stream closed before the lease was open'));
      return;
    }
    this.#lostMs ??= nowMs;
    if (nowMs - this.#lostMs > RECONNECT_MS) {
      this.fail(new MoltError('job/provider-lost', 'the provider no longer answers'));
      return;
    }
    this.#buyer.after(RECONNECT_EVERY_MS, 'reconnects', () => {
      if (this.#isOver) return;
      this.#connect();
      this.#say({ type: 'submit', lease: this.lease, task: this.#task });
      this.#say({ type: 'attach', lease: this.lease });
      if (this.#claimed !== undefined) this.#say({ type: 'settle', lease: this.lease, amount: this.#claimed });
    });
  }
}
