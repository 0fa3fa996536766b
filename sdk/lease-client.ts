/**
 * The lease stream, buyer's end: accept, submit, follow, settle, cancel; and coming back after a cut.
 *
 * Contract: events arrive in order, each once, whatever happens to the connection: after a cut the client attaches again
 * "from n". A provider that sends nothing for `SILENT_MS`, not even its heartbeat, counts as gone; one that can be reached
 * and says nothing is no more patiently waited for, and one that sends what no provider may send is left at once.
 */
import type { Channel } from '../market/ports.ts';
import { type Address, decodeAddress } from '../protocol/address.ts';
import { Deadline } from '../protocol/deadline.ts';
import { MoltError, hasCode } from '../protocol/errors.ts';
import { LIMITS } from '../protocol/limits.ts';
import { type JobEvent as WireJobEvent, LeaseRequest } from '../protocol/molt.js';
import { STREAMS, decodeLeaseResponse, fromRefusal } from '../protocol/wire.ts';
import type { Buyer } from './buyer.ts';
import type { JobEvent } from './progress.ts';

type Request = Partial<Parameters<typeof LeaseRequest.encode>[0]>;

const ANSWER_MS = 10_000;
const SILENT_MS = 3 * LIMITS.heartbeatMs;
const RECONNECT_EVERY_MS = 500;
const RECONNECT_MS = 8_000;
/** How long a provider may take to end the stream after we have. */
const LEAVE_MS = 1_000;
/** Events that wait to be taken: a provider that sends more is read no further until they are. */
const WAITING_MAX = 1_024;
const WAITING_BYTES_MAX = 4 * 1024 * 1024;

export interface LeaseClientOptions {
  readonly node: Address;
  readonly addresses: readonly string[];
  readonly reconnectMs?: number;
  readonly tell: (event: JobEvent) => void;
}

/** One at a time waits for an answer that is not an event. */
interface Waiter {
  readonly wants: 'accepted' | 'settleSigned';
  readonly resolve: (answer: Uint8Array) => void;
  readonly reject: (error: unknown) => void;
}

export class LeaseClient implements AsyncDisposable {
  readonly #buyer: Buyer;
  readonly #options: LeaseClientOptions;
  #channel: Channel | undefined;
  #reader: Promise<void> | undefined;
  #waiter: Waiter | undefined;
  #lease: Address | undefined;
  /** The job itself, until the provider is seen to have it. */
  #unheard: NonNullable<Request['submit']> | undefined;
  #next = 0;
  readonly #events: { readonly event: WireJobEvent; readonly sizeBytes: number }[] = [];
  #waitingBytes = 0;
  #isOver = false;
  #wake: () => void = () => undefined;
  /** Lets the reader go on. */
  #drained: () => void = () => undefined;
  #broken: unknown;
  #refused: MoltError | undefined;
  #lastHeardMs = 0;
  /** Since when nothing was heard but broken streams; undefined while the provider is heard. */
  #silentSinceMs: number | undefined;
  #cameBackMs = -Infinity;

  constructor(buyer: Buyer, options: LeaseClientOptions) {
    this.#buyer = buyer;
    this.#options = options;
  }

  /** Asks the provider to co-sign; resolves to its signature. Throws its typed refusal, or `mesh/…`. */
  async accept(request: NonNullable<Request['accept']>): Promise<Uint8Array> {
    return this.#ask({ accept: request }, 'accepted');
  }

  /** Hands over the job. Events follow. A provider that goes away before it has the job is given it when it is back. */
  async submit(lease: Address, request: Omit<NonNullable<Request['submit']>, 'lease'>): Promise<void> {
    this.#lease = lease;
    this.#unheard = { ...request, lease: decodeAddress(lease) };
    try {
      await this.#send({ submit: this.#unheard });
    } catch (error) {
      if (!(error instanceof MoltError && error.code.startsWith('mesh/'))) throw error;
      this.#broken ??= error;
    }
  }

  /** Follows a job that its provider has, from its beginning. */
  async attach(lease: Address): Promise<void> {
    this.#lease = lease;
    try {
      await this.#send({ attach: { lease: decodeAddress(lease), fromSequence: 0n } });
    } catch (error) {
      if (!(error instanceof MoltError && error.code.startsWith('mesh/'))) throw error;
      this.#broken ??= error;
    }
  }

  /** Asks for the signature under a settlement; throws the provider's refusal. */
  async settle(request: Omit<NonNullable<Request['settle']>, 'lease'>): Promise<Uint8Array> {
    return this.#ask({ settle: { ...request, lease: this.#leaseBytes() } }, 'settleSigned');
  }

  /** False once the stream broke, or before there is one. */
  get isConnected(): boolean {
    return this.#channel !== undefined && this.#broken === undefined;
  }

  /** Lets go of a lease that was co-signed, opened or not: nothing ran under it, so nothing is owed. */
  async letGo(lease: Address): Promise<void> {
    await this.#send({ cancel: { lease: decodeAddress(lease) } });
  }

  /** Finds the provider again after a call failed. Throws `job/provider-lost` when it does not come back in time. */
  async comeBack(signal: AbortSignal): Promise<void> {
    if (this.#channel !== undefined && this.#broken === undefined)
      this.#channel.abort(new MoltError('mesh/closed', 'another stream is opened'));
    await this.#comeBack(signal);
  }

  async cancel(): Promise<void> {
    await this.#send({ cancel: { lease: this.#leaseBytes() } });
  }

  /** The job's events until `closed`; throws `job/provider-lost` when the provider does not come back. */
  async *events(signal: AbortSignal): AsyncGenerator<WireJobEvent> {
    for (;;) {
      const event = this.#shift();
      if (event !== undefined) {
        yield event;
        if (event.closed !== undefined) return;
        continue;
      }
      if (signal.aborted) throw signal.reason as Error;
      if (this.#refused !== undefined) throw this.#refused;
      if (this.#channel === undefined || this.#broken !== undefined) {
        await this.#comeBack(signal);
        continue;
      }
      await this.#somethingHeard(signal);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    this.#events.length = 0;
    this.#drained();
    const channel = this.#channel;
    if (channel === undefined) return;
    // Our last word may arrive; whoever goes on talking to nobody after it is cut off.
    const left = new AbortController();
    const cutOff = (): void => channel.abort(new MoltError('node/stopped', 'the buyer has left this job'));
    this.#buyer.env.clock.sleep(LEAVE_MS, left.signal).then(cutOff, () => undefined);
    await channel.close().catch(() => undefined);
    await this.#reader?.catch(() => undefined);
    left.abort();
  }

  async #ask(request: Request, wants: Waiter['wants']): Promise<Uint8Array> {
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    this.#waiter = { wants, resolve, reject };
    const given = new AbortController();
    try {
      await this.#send(request);
      const timeout = this.#buyer.env.clock.sleep(ANSWER_MS, given.signal).then(() => {
        throw new MoltError(
          'mesh/timeout',
          `expected an answer of the provider within ${ANSWER_MS / 1000} s, none came`,
          {
            node: this.#options.node,
          },
        );
      });
      timeout.catch(() => undefined);
      return await Promise.race([promise, timeout]);
    } finally {
      promise.catch(() => undefined);
      this.#waiter = undefined;
      given.abort(new MoltError('node/stopped', 'no longer waiting'));
    }
  }

  async #send(request: Request): Promise<void> {
    const channel = this.#channel ?? (await this.#open());
    await channel.send(LeaseRequest.encode(request)).catch((error: unknown) => {
      throw inWords(error);
    });
  }

  async #open(signal?: AbortSignal): Promise<Channel> {
    const channel = await this.#buyer.mesh.open(this.#options.node, STREAMS.lease.protocol, {
      addresses: this.#options.addresses,
      maxFrameBytes: STREAMS.lease.maxFrameBytes,
      ...(signal === undefined ? {} : { signal }),
    });
    this.#channel = channel;
    this.#broken = undefined;
    this.#lastHeardMs = this.#buyer.env.clock.monotonic();
    this.#reader = this.#read(channel);
    return channel;
  }

  async #read(channel: Channel): Promise<void> {
    let reason: unknown = new MoltError('mesh/closed', 'the provider ended the connection');
    try {
      for await (const frame of channel) {
        const response = decodeLeaseResponse(frame);
        this.#lastHeardMs = this.#buyer.env.clock.monotonic();
        this.#silentSinceMs = undefined;
        // Nobody reads events any more once the buyer has left: kept, they would be as many as the provider sends.
        if (this.#isOver) continue;
        if (response.event !== undefined) this.#take(response.event, frame.length);
        else if (response.accepted !== undefined) this.#answer('accepted', response.accepted.operatorSignature);
        else if (response.settleSigned !== undefined)
          this.#answer('settleSigned', response.settleSigned.operatorSignature);
        else if (response.refused !== undefined) this.#refuse(fromRefusal(response.refused));
        this.#wake();
        await this.#room();
      }
    } catch (error) {
      reason = inWords(error);
      channel.abort(error as Error);
    }
    if (this.#channel !== channel) return;
    // It would say the same again: to come back to it would have no end.
    if (reason instanceof MoltError && reason.code.startsWith('protocol/')) this.#refused ??= reason;
    this.#broken = reason;
    this.#waiter?.reject(reason);
    this.#wake();
  }

  #shift(): WireJobEvent | undefined {
    const first = this.#events.shift();
    this.#waitingBytes -= first?.sizeBytes ?? 0;
    if (this.#hasRoom) this.#drained();
    return first?.event;
  }

  get #hasRoom(): boolean {
    return this.#isOver || (this.#events.length < WAITING_MAX && this.#waitingBytes < WAITING_BYTES_MAX);
  }

  /** Resolves when there is room for more events. */
  async #room(): Promise<void> {
    while (!this.#hasRoom) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#drained = resolve;
      await promise;
    }
  }

  #take(event: WireJobEvent, sizeBytes: number): void {
    const sequence = Number(event.sequence);
    if (sequence < this.#next) return;
    if (sequence > this.#next) {
      throw new MoltError('protocol/malformed', `expected event ${this.#next} of the job, got ${sequence}`);
    }
    this.#next = sequence + 1;
    if (event.phase?.phase !== 'queued') this.#unheard = undefined;
    this.#events.push({ event, sizeBytes });
    this.#waitingBytes += sizeBytes;
  }

  #answer(kind: Waiter['wants'], signature: Uint8Array): void {
    if (this.#waiter?.wants === kind) this.#waiter.resolve(signature);
  }

  /** A refusal answers what is waited for; otherwise it is about the job itself and ends the following of it. */
  #refuse(error: MoltError): void {
    if (this.#waiter !== undefined) this.#waiter.reject(error);
    else this.#refused = error;
  }

  async #somethingHeard(signal: AbortSignal): Promise<void> {
    const { clock } = this.#buyer.env;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    if (this.#events.length > 0 || this.#broken !== undefined || this.#refused !== undefined) return;
    const woken = new AbortController();
    const leftMs = Math.max(0, this.#lastHeardMs + SILENT_MS - clock.monotonic());
    const silence = clock.sleep(leftMs, AbortSignal.any([woken.signal, signal]));
    silence.catch(() => undefined);
    try {
      await Promise.race([promise, silence]);
    } finally {
      woken.abort(new MoltError('node/stopped', 'woken'));
    }
    if (clock.monotonic() - this.#lastHeardMs >= SILENT_MS && this.#channel !== undefined) {
      const error = new MoltError('mesh/timeout', `the provider said nothing for ${SILENT_MS / 1000} s`);
      this.#channel.abort(error);
      this.#broken ??= error;
    }
  }

  /** Attaches again where the stream broke, for as long as the buyer is patient. */
  async #comeBack(signal: AbortSignal): Promise<void> {
    const { env } = this.#buyer;
    const { node, tell } = this.#options;
    this.#silentSinceMs ??= env.clock.monotonic();
    const untilMs = this.#silentSinceMs + (this.#options.reconnectMs ?? RECONNECT_MS);
    tell({
      type: 'provider-silent',
      node,
      reason: this.#broken instanceof Error ? this.#broken.message : 'the connection is closed',
    });
    // A provider that ends every stream at once is not asked for the next one as fast as it does.
    await env.clock.sleep(Math.max(0, this.#cameBackMs + RECONNECT_EVERY_MS - env.clock.monotonic()), signal);
    // It was back in time, and has said nothing since: that it can be reached is no reason to be more patient.
    if (this.#cameBackMs >= this.#silentSinceMs && env.clock.monotonic() >= untilMs) throw this.#lost(this.#broken);
    for (;;) {
      using trying = new Deadline(env.clock, Math.max(1, untilMs - env.clock.monotonic()), signal);
      try {
        const channel = await this.#open(trying.signal);
        const attach = { lease: this.#leaseBytes(), fromSequence: BigInt(this.#next) };
        await channel.send(LeaseRequest.encode(this.#unheard === undefined ? { attach } : { submit: this.#unheard }));
        this.#cameBackMs = env.clock.monotonic();
        tell({ type: 'provider-back', node, fromSequence: this.#next });
        return;
      } catch (error) {
        if (signal.aborted) throw signal.reason as Error;
        if (hasCode(error, 'job/unknown')) throw error;
        if (env.clock.monotonic() + RECONNECT_EVERY_MS >= untilMs) throw this.#lost(error);
      }
      await env.clock.sleep(RECONNECT_EVERY_MS, signal);
    }
  }

  #lost(cause: unknown): MoltError {
    const { node } = this.#options;
    const message = `the provider ${node} no longer answers; the job goes to another one`;
    return new MoltError('job/provider-lost', message, { node }, { cause });
  }

  #leaseBytes(): Uint8Array {
    if (this.#lease === undefined) throw new MoltError('job/unknown', 'no lease was opened on this stream yet');
    return decodeAddress(this.#lease);
  }
}

/** A cut is told to users, who open no streams: what the transport says of it is its cause. */
function inWords(error: unknown): unknown {
  if (!hasCode(error, 'mesh/closed')) return error;
  return new MoltError('mesh/closed', 'the connection to the provider broke', {}, { cause: error });
}
