/**
 * A channel: bounded frames over one libp2p stream, with back-pressure in both directions.
 *
 * Wire: each frame is its length as an unsigned varint, then its bytes. The reader and the writer below are the only two
 * that Molt uses, because those of libp2p 3.3 lose back-pressure:
 * - `stream.onDrain()` keeps its first resolved promise, so a writer that trusts it queues without end. We wait for the
 *   `drain` event itself.
 * - `for await (… of stream)` and `lpStream` buffer without telling the sender. We pause the stream.
 * - `pause()` called from a message handler that `resume()` itself runs is undone. We pause after `resume()` returned.
 *
 * What can pile up for one channel: one frame plus 64 KiB here, one receive window in the stream below (mesh.ts sets
 * its size), and 1 MiB plus one frame on the way out.
 */
import type { Stream, StreamCloseEvent, StreamMessageEvent } from '@libp2p/interface';
import { Uint8ArrayList } from 'uint8arraylist';

import type { Channel } from '../../market/ports.ts';
import type { Address } from '../../protocol/address.ts';
import type { Env } from '../../protocol/env.ts';
import { MoltError, assert } from '../../protocol/errors.ts';
import { Deadline } from '../../protocol/deadline.ts';

/** Unsent bytes from which a sender waits. Waiting at every refusal instead would cost a quarter of the speed. */
const WRITE_HIGH_BYTES = 1024 * 1024;
/** Received bytes beyond one whole frame from which the peer is told to stop. */
const READ_SLACK_BYTES = 64 * 1024;
/** A varint of a frame length: 2^35 is more than any limit. */
const PREFIX_BYTES_MAX = 5;
/** How long what was sent may take to leave after `close`, and how long the peer may then take to end its side. */
const FLUSH_MS = 30_000;
const LINGER_MS = 30_000;

export interface ChannelOptions {
  readonly remote: Address;
  readonly maxFrameBytes: number;
  /** Longest silence of the peer while we wait for a frame or for room to send; then `mesh/timeout`. Absent: for ever. */
  readonly idleMs?: number;
  /**
   * Where the bytes of a frame go, at least `length` of them; by default a new array for each. For whoever reads many large
   * frames and knows when it is done with one: arrays that live for a few milliseconds each cost more to collect than to
   * fill (half the work of a transfer, measured).
   */
  readonly allocate?: (length: number) => Uint8Array;
}

export class StreamChannel implements Channel {
  readonly remote: Address;
  readonly #env: Env;
  readonly #stream: Stream;
  readonly #options: ChannelOptions;
  readonly #reader: FrameReader;
  readonly #ended = new AbortController();
  #closing: Promise<void> | undefined;
  #reading = false;

  constructor(env: Env, stream: Stream, options: ChannelOptions) {
    this.remote = options.remote;
    this.#env = env;
    this.#stream = stream;
    this.#options = options;
    this.#reader = new FrameReader(stream, options.maxFrameBytes, options.allocate);
    stream.addEventListener('close', () => this.#ended.abort(), { once: true });
    if (isOver(stream)) this.#ended.abort();
  }

  /** Aborted when the stream is over on both sides, for whatever reason. */
  get ended(): AbortSignal {
    return this.#ended.signal;
  }

  /**
   * Hands one frame to the transport; waits while the peer is slow. Throws `protocol/oversize` for a frame above the
   * limit (nothing is sent), `mesh/closed` when the stream is over, `mesh/timeout` when the peer takes nothing for
   * `idleMs`, and the signal's reason when it aborts first (nothing is sent then, and the channel stays usable).
   */
  async send(frame: Uint8Array, signal?: AbortSignal): Promise<void> {
    if (frame.length > this.#options.maxFrameBytes) throw oversize(frame.length, this.#options.maxFrameBytes);
    signal?.throwIfAborted();
    while (this.#stream.writeStatus === 'writable' && this.#stream.writeBufferLength > WRITE_HIGH_BYTES) {
      await this.#withIdleLimit((limit) => drained(this.#stream, limit), signal);
    }
    if (this.#stream.writeStatus !== 'writable') throw this.#reader.failure ?? closed('before the frame was sent');
    try {
      this.#stream.send(new Uint8ArrayList(encodeLength(frame.length), frame));
    } catch (cause) {
      throw this.#reader.failure ?? closed('before the frame was sent', cause);
    }
  }

  /**
   * The frames in order. Ends when the peer closed its side between two frames; throws `mesh/closed` when it went away
   * otherwise, `protocol/oversize` or `protocol/malformed` when it sends what it must not (the stream is aborted then),
   * `mesh/timeout` after `idleMs`. May be left and entered again, by one reader at a time.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    assert(!this.#reading, 'a channel has one reader at a time');
    this.#reading = true;
    try {
      for (;;) {
        const frame = await this.#next();
        if (frame === undefined) return;
        yield frame;
      }
    } finally {
      this.#reading = false;
    }
  }

  async #next(): Promise<Uint8Array | undefined> {
    try {
      for (;;) {
        const frame = this.#reader.take();
        if (frame !== 'wait') return frame === 'end' ? undefined : frame;
        await this.#withIdleLimit((signal) => this.#reader.changed(signal));
      }
    } catch (error) {
      if (error instanceof MoltError) this.abort(error);
      throw error;
    }
  }

  /** Ends our side and lets what was sent arrive; the peer's frames can still be read. Idempotent, never throws. */
  close(): Promise<void> {
    this.#closing ??= this.#finish();
    return this.#closing;
  }

  async #finish(): Promise<void> {
    using deadline = new Deadline(this.#env.clock, FLUSH_MS);
    try {
      await this.#stream.close({ signal: deadline.signal });
    } catch (cause) {
      this.abort(closed('while the last frames were being sent', cause));
    }
    void this.#linger();
  }

  /** A peer that never ends its side must not hold the stream for ever. */
  async #linger(): Promise<void> {
    while (!this.#ended.signal.aborted) {
      try {
        await this.#env.clock.sleep(LINGER_MS, this.#ended.signal);
      } catch {
        return;
      }
      if (!this.#reading) this.abort(closed('by us; the peer did not end its side'));
    }
  }

  /** Ends both sides at once; readers and senders get `error`. Idempotent. */
  abort(error: Error): void {
    this.#reader.fail(error);
    if (!isOver(this.#stream)) this.#stream.abort(error);
  }

  async #withIdleLimit(wait: (signal?: AbortSignal) => Promise<void>, outer?: AbortSignal): Promise<void> {
    const { idleMs, remote } = this.#options;
    if (idleMs === undefined) {
      await wait(outer);
      return;
    }
    using deadline = new Deadline(this.#env.clock, idleMs, outer);
    try {
      await wait(deadline.signal);
    } catch (error) {
      if (!deadline.expired) throw error;
      const timeout = new MoltError(
        'mesh/timeout',
        `expected a sign of life from ${remote} within ${idleMs} ms, none came; connect again`,
      );
      this.abort(timeout);
      throw timeout;
    }
  }
}

/** Collects what arrives, cuts it into frames, and pauses the stream while nobody takes them. */
class FrameReader {
  readonly #stream: Stream;
  readonly #maxFrameBytes: number;
  readonly #allocate: (length: number) => Uint8Array;
  readonly #highBytes: number;
  readonly #queue = new Uint8ArrayList();
  #resuming = false;
  #finished: boolean;
  #over = false;
  #cause: Error | undefined;
  #failure: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(stream: Stream, maxFrameBytes: number, allocate?: (length: number) => Uint8Array) {
    this.#stream = stream;
    this.#maxFrameBytes = maxFrameBytes;
    this.#allocate = allocate ?? ((length) => new Uint8Array(length));
    this.#highBytes = maxFrameBytes + READ_SLACK_BYTES;
    // A connection that breaks also ends the stream, without a word: only this event says that the peer meant it.
    this.#finished = stream.remoteWriteStatus === 'closed' && (stream.status === 'open' || stream.status === 'closing');
    stream.addEventListener('remoteCloseWrite', () => {
      this.#finished = true;
    });
    stream.addEventListener('end', () => this.#changed());
    stream.addEventListener('close', this.#onClose);
    stream.addEventListener('message', this.#onMessage);
    if (isOver(stream)) this.#over = true;
  }

  get failure(): Error | undefined {
    return this.#failure;
  }

  readonly #onMessage = (event: StreamMessageEvent): void => {
    if (this.#failure !== undefined) return;
    this.#queue.append(event.data);
    if (!this.#resuming) this.#pauseWhenFull();
    this.#changed();
  };

  readonly #onClose = (event: StreamCloseEvent): void => {
    // Frames that arrived whole before a reset or a broken connection are still handed over.
    this.#over = true;
    this.#cause = event.error;
    this.#changed();
  };

  /** The next frame, `end` after the last one, or `wait`. Throws what `StreamChannel` documents. */
  take(): Uint8Array | 'end' | 'wait' {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      const frame = this.#cut();
      this.#resumeWhenRoom();
      if (frame !== undefined) return frame;
      if (this.#cutIsPossible()) continue;
      if (!this.#stream.readableEnded && !(this.#over && this.#stream.readBufferLength === 0)) return 'wait';
      if (this.#finished && this.#queue.byteLength === 0) return 'end';
      throw closed(this.#queue.byteLength > 0 ? 'in the middle of a frame' : 'without a proper end', this.#cause);
    }
  }

  /** Resolves when `take` may have something new to say. */
  async changed(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onAbort = (): void => reject(signal?.reason as Error);
    signal?.addEventListener('abort', onAbort, { once: true });
    this.#wake = resolve;
    try {
      await promise;
    } finally {
      this.#wake = undefined;
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /** Everything unread is dropped, every reader gets `error`. The first failure stays. */
  fail(error: Error): void {
    this.#failure ??= error;
    this.#queue.consume(this.#queue.byteLength);
    this.#changed();
  }

  #changed(): void {
    this.#wake?.();
  }

  #pauseWhenFull(): void {
    if (this.#queue.byteLength >= this.#highBytes && this.#stream.readStatus === 'readable') this.#stream.pause();
  }

  #resumeWhenRoom(): void {
    if (this.#stream.readStatus !== 'paused' || this.#queue.byteLength >= this.#highBytes) return;
    this.#resuming = true;
    try {
      this.#stream.resume();
    } catch (cause) {
      // What was buffered has been handed over by now; only the wish for more could not be sent.
      if (!isOver(this.#stream)) this.fail(closed('while reading', cause));
    } finally {
      this.#resuming = false;
    }
    this.#pauseWhenFull();
  }

  #cutIsPossible(): boolean {
    const prefix = this.#prefix();
    return prefix !== undefined && this.#queue.byteLength >= prefix.bytes + prefix.length;
  }

  #cut(): Uint8Array | undefined {
    const prefix = this.#prefix();
    if (prefix === undefined || this.#queue.byteLength < prefix.bytes + prefix.length) return undefined;
    // A copy: a view would keep the whole network buffer alive for as long as somebody holds a small frame.
    const frame = this.#allocate(prefix.length).subarray(0, prefix.length);
    let filled = 0;
    for (const part of this.#queue.sublist(prefix.bytes, prefix.bytes + prefix.length)) {
      frame.set(part, filled);
      filled += part.length;
    }
    this.#queue.consume(prefix.bytes + prefix.length);
    return frame;
  }

  #prefix(): { readonly bytes: number; readonly length: number } | undefined {
    let length = 0;
    for (let index = 0; index < PREFIX_BYTES_MAX; index++) {
      if (index >= this.#queue.byteLength) return undefined;
      const byte = this.#queue.get(index);
      length += (byte & 0x7f) * 2 ** (7 * index);
      if (byte >= 0x80) continue;
      if (length > this.#maxFrameBytes) throw oversize(length, this.#maxFrameBytes);
      return { bytes: index + 1, length };
    }
    throw new MoltError(
      'protocol/malformed',
      'expected the length of a frame as a varint of at most 5 bytes; the stream is dropped',
    );
  }
}

/** Resolves at the next `drain` event; rejects when the stream closes or `signal` aborts. */
async function drained(stream: Stream, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onDrain = (): void => resolve();
  const onClose = (event: StreamCloseEvent): void => reject(closed('while the peer was slow to read', event.error));
  const onAbort = (): void => reject(signal?.reason as Error);
  stream.addEventListener('drain', onDrain);
  stream.addEventListener('close', onClose);
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    await promise;
  } finally {
    stream.removeEventListener('drain', onDrain);
    stream.removeEventListener('close', onClose);
    signal?.removeEventListener('abort', onAbort);
  }
}

function isOver(stream: Stream): boolean {
  return stream.status === 'closed' || stream.status === 'aborted' || stream.status === 'reset';
}

function encodeLength(length: number): Uint8Array {
  const bytes: number[] = [];
  let rest = length;
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  bytes.push(rest);
  return Uint8Array.from(bytes);
}

function closed(when: string, cause?: unknown): MoltError {
  return new MoltError('mesh/closed', `the stream closed ${when}; open it again`, {}, { cause });
}

function oversize(length: number, maxFrameBytes: number): MoltError {
  return new MoltError(
    'protocol/oversize',
    `expected a frame of at most ${maxFrameBytes} bytes, got one of ${length}`,
    {
      length,
      maxFrameBytes,
    },
  );
}
