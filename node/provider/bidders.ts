/**
 * The streams to bidders. One to each is kept for the answers to all its bids, for a new stream costs two round trips and
 * more work than everything that a quote needs; it goes when it was of no use for a while.
 *
 * Wire: we send `BidAnswer`, the bidder sends `LetGo` for quotes that it does not hold any more. The end of the stream lets
 * all of them go. A bidder may let go as many quotes as it was sent, or its stream is dropped.
 */
import type { Channel, Network } from '../../market/ports.ts';
import type { Address } from '../../protocol/address.ts';
import type { Env } from '../../protocol/env.ts';
import { MoltError, hasCode } from '../../protocol/errors.ts';
import { BidAnswer } from '../../protocol/molt.js';
import { STREAMS, decodeLetGo, toRefusal } from '../../protocol/wire.ts';

/** Whose bid is answered, and where he may be dialled. */
export interface Asker {
  readonly bid: string;
  readonly bidder: Address;
  readonly addresses: readonly string[];
}

/** Bidders that are no peers and are dialled at a time. */
const STRANGERS_MAX = 32;
/** Streams that are kept although nothing is held on them: so many, and so long after the last answer. */
const IDLE_MAX = 256;
const IDLE_MS = 60_000;
const SWEEP_MS = 10_000;

/** The kept stream to one bidder. */
interface Line {
  readonly channel: Channel;
  /** By bid: called when its quote is let go. */
  readonly held: Map<string, () => void>;
  /** Quotes that were sent and not let go. */
  out: number;
  usedMs: number;
}

export class Bidders implements AsyncDisposable {
  readonly #env: Env;
  readonly #network: Network;
  readonly #lines = new Map<Address, Line>();
  readonly #opening = new Map<Address, Promise<Line>>();
  readonly #sweep: Disposable;
  /** Strangers that are being dialled. */
  #meeting = 0;

  constructor(env: Env, network: Network) {
    this.#env = env;
    this.#network = network;
    this.#sweep = env.clock.every(SWEEP_MS, () => this.#closeIdle(env.clock.monotonic() - IDLE_MS));
  }

  /** Dials a bidder that is no peer. Throws `market/rate-limited` when too many are, and what `Network.open` throws. */
  async meet({ bidder, addresses }: Asker): Promise<void> {
    if (this.#network.isConnected(bidder)) return;
    if (this.#meeting >= STRANGERS_MAX) {
      throw new MoltError('market/rate-limited', `${STRANGERS_MAX} strangers are being dialled; bid again later`);
    }
    this.#meeting++;
    try {
      await this.#line(bidder, addresses);
    } finally {
      this.#meeting--;
    }
  }

  /** Resolves when the refusal is sent. Throws what `Network.open` and `Channel.send` throw. */
  async decline(to: Asker, reason: MoltError): Promise<void> {
    await this.#send(to, BidAnswer.encode({ bid: Buffer.from(to.bid, 'hex'), declined: toRefusal(reason) }));
  }

  /**
   * Sends a signed quote and resolves when it is of no use any more: it was let go, its stream ended, or `signal` aborted.
   * Throws as `decline`.
   */
  async quote(to: Asker, quote: Uint8Array, signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const line = await this.#send(to, BidAnswer.encode({ bid: Buffer.from(to.bid, 'hex'), quote }), resolve);
    signal.addEventListener('abort', () => resolve(), { once: true });
    if (signal.aborted) resolve();
    await promise;
    line.held.delete(to.bid);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#sweep[Symbol.dispose]();
    await Promise.all([...this.#lines.values()].map(({ channel }) => channel.close()));
  }

  /** A kept stream may have ended unnoticed: then once more on a new one. */
  async #send({ bid, bidder, addresses }: Asker, frame: Uint8Array, onLetGo?: () => void): Promise<Line> {
    const known = this.#lines.get(bidder);
    const sendOn = async (line: Line): Promise<Line> => {
      line.usedMs = this.#env.clock.monotonic();
      await line.channel.send(frame);
      if (onLetGo === undefined) return line;
      line.out++;
      // Nothing can have been read yet: the stream is listened to in a later turn of the event loop.
      if (this.#lines.get(bidder) === line) line.held.set(bid, onLetGo);
      else onLetGo();
      return line;
    };
    if (known !== undefined) {
      try {
        return await sendOn(known);
      } catch (error) {
        if (!hasCode(error, 'mesh/closed')) throw error;
        this.#forget(bidder, known);
      }
    }
    return sendOn(await this.#line(bidder, addresses));
  }

  async #line(bidder: Address, addresses: readonly string[]): Promise<Line> {
    const known = this.#lines.get(bidder) ?? this.#opening.get(bidder);
    if (known !== undefined) return known;
    const opening = this.#open(bidder, addresses);
    this.#opening.set(bidder, opening);
    try {
      return await opening;
    } finally {
      this.#opening.delete(bidder);
    }
  }

  async #open(bidder: Address, addresses: readonly string[]): Promise<Line> {
    const { protocol, maxFrameBytes } = STREAMS.quote;
    const channel = await this.#network.open(bidder, protocol, { addresses, maxFrameBytes });
    const line: Line = { channel, held: new Map(), out: 0, usedMs: this.#env.clock.monotonic() };
    if (this.#lines.size >= IDLE_MAX) this.#closeIdle(Infinity, 1);
    this.#lines.set(bidder, line);
    void this.#listen(bidder, line);
    return line;
  }

  async #listen(bidder: Address, line: Line): Promise<void> {
    try {
      for await (const frame of line.channel) {
        const { bid } = decodeLetGo(frame);
        if (line.out-- <= 0) {
          throw new MoltError('protocol/malformed', 'expected as many quotes to be let go as were sent; got more');
        }
        line.held.get(Buffer.from(bid).toString('hex'))?.();
      }
      await line.channel.close();
    } catch (error) {
      this.#env.logger.log('debug', 'stream to bidder ended', { bidder, error });
      line.channel.abort(error instanceof Error ? error : new MoltError('mesh/closed', 'the stream broke'));
    } finally {
      this.#forget(bidder, line);
    }
  }

  #forget(bidder: Address, line: Line): void {
    if (this.#lines.get(bidder) === line) this.#lines.delete(bidder);
    for (const letGo of line.held.values()) letGo();
  }

  /** Streams last used before `beforeMs` that hold nothing, the longest unused first. */
  #closeIdle(beforeMs: number, most = Infinity): void {
    const idle = [...this.#lines].filter(([, { held, usedMs }]) => held.size === 0 && usedMs < beforeMs);
    idle.sort(([, a], [, b]) => a.usedMs - b.usedMs);
    for (const [bidder, line] of idle.slice(0, most)) {
      this.#forget(bidder, line);
      void line.channel.close();
    }
  }
}
