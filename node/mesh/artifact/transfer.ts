/**
 * Fetching an artifact: first its inner nodes, which are small and say everything about the tree but its bytes; then, when
 * the tree is one that would be taken, the leaves that are not here yet. Each part is one request on the stream and one
 * CAR in answer (car.ts; the sending side is serve.ts).
 *
 * The receiver knows each block's CID before it comes and hashes it before it is stored, so a sender cannot make it keep
 * anything but the artifact asked for. What is asked for is what is missing here, whoever brought the rest: so a broken
 * transfer goes on at the block where it stopped, and blocks of other artifacts are not sent again.
 */
import type { CID } from 'multiformats/cid';
import * as raw from 'multiformats/codecs/raw';

import type { Channel, Network } from '../../../market/ports.ts';
import type { Address } from '../../../protocol/address.ts';
import type { Env } from '../../../protocol/env.ts';
import { type ErrorCode, MoltError, hasCode } from '../../../protocol/errors.ts';
import { LIMITS } from '../../../protocol/limits.ts';
import { ArtifactAnswer, ArtifactRequest } from '../../../protocol/molt.js';
import { STREAMS, fromRefusal } from '../../../protocol/wire.ts';
import type { MeshOpenOptions } from '../streams.ts';
import { Bits } from './bits.ts';
import { type Blocks, isBlock } from './blocks.ts';
import { decodeCarHeader, decodeSection } from './car.ts';
import { DagWalk, decodeNode, tooLarge } from './dag.ts';
import { Frames } from './frames.ts';
import { checkTree } from './tree.ts';

export interface FetchOptions {
  /** Of all blocks together, the few bytes of the tree's own nodes included; and of all files together. */
  readonly maxBytes: number;
  /** Files and directories together; 100,000 unless said. */
  readonly maxEntries?: number;
  readonly signal?: AbortSignal;
  /** Blocks that are here, in bytes; the total is what the root claims, and unknown before the root is here. */
  readonly onProgress?: (bytesDone: number, bytesTotal?: number) => void;
  /** Multiaddrs to try when there is no connection to the peer yet. */
  readonly addresses?: readonly string[];
}

/** Where the blocks come from and go to, with the set that keeps them from being swept meanwhile. */
export interface Store {
  readonly blocks: Blocks;
  put(cid: CID, bytes: Uint8Array): Promise<void>;
}

/** A silent peer is given up after this long; a transfer that made progress is taken up again this often. */
export const IDLE_MS = 20_000;
const RESUMES_MAX = 5;
/** One that broke before the first block is tried again as often in a row, for the peer may be reached another way by then. */
const FRUITLESS_MAX = 2;
const RETRY_MS = 500;
/** Blocks that are being hashed and written while the next ones arrive. */
const KEPT_AT_ONCE = 8;

/** Brings every missing block here. Throws what `Artifacts.fetch` documents. */
export async function fetchBlocks(
  env: Env,
  store: Store,
  job: { network: Network; from: Address; root: CID },
  options: FetchOptions,
): Promise<void> {
  let fruitless = 0;
  for (let attempt = 0; ; attempt++) {
    await using source = new Source(job, options.signal, options.addresses);
    const receiver = new Receiver(store, source, options);
    try {
      await receiver.receive();
      return;
    } catch (error) {
      options.signal?.throwIfAborted();
      fruitless = source.blocks > 0 ? 0 : fruitless + 1;
      const isCut = hasCode(error, 'mesh/closed', fruitless > 0 ? 'mesh/unreachable' : 'mesh/timeout');
      if (!isCut || fruitless > FRUITLESS_MAX || attempt >= RESUMES_MAX) throw error;
      if (fruitless > 0) await env.clock.sleep(RETRY_MS * fruitless, options.signal);
      env.logger.log('debug', 'artifact transfer resumed', { from: job.from, cid: job.root.toString() });
    }
  }
}

/** The peer that has the blocks, over one stream that is opened with the first request. */
class Source implements AsyncDisposable {
  readonly root: CID;
  readonly #network: Network;
  readonly #from: Address;
  readonly #opening: MeshOpenOptions;
  #channel: Channel | undefined;
  #frames: AsyncIterator<Uint8Array> | undefined;
  readonly #onAbort = (): void => this.#channel?.abort(cancelled());
  readonly #rooms = new Frames(STREAMS.artifact.maxFrameBytes);
  /** Blocks that came. */
  blocks = 0;

  constructor(
    job: { network: Network; from: Address; root: CID },
    signal: AbortSignal | undefined,
    addresses: readonly string[] | undefined,
  ) {
    this.root = job.root;
    this.#network = job.network;
    this.#from = job.from;
    this.#opening = {
      maxFrameBytes: STREAMS.artifact.maxFrameBytes,
      idleMs: IDLE_MS,
      allocate: this.#rooms.take,
      ...(signal && { signal }),
      ...(addresses && { addresses }),
    };
    signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  /** Asks for the blocks of a part that `have` does not mark. Throws the peer's refusal. */
  async ask(part: 'nodes' | 'leaves', have: Bits): Promise<void> {
    this.#channel ??= await this.#network.open(this.#from, STREAMS.artifact.protocol, this.#opening);
    await this.#channel.send(
      ArtifactRequest.encode({ cid: this.root.bytes, leaves: part === 'leaves', have: have.bytes() }),
    );
    const { refused } = decodeAnswer(await this.#frame());
    if (refused !== undefined) throw refusal(refused);
    if (!decodeCarHeader(await this.#frame()).equals(this.root)) throw corrupt('the header names another root');
  }

  /** The bytes sent as the next block, which must be called this one. They are not hashed yet. */
  async next(expected: CID): Promise<Uint8Array> {
    const { cid, bytes } = decodeSection(await this.#frame());
    if (!expected.equals(cid)) throw corrupt(`block ${expected.toString()} was due, another came`);
    this.blocks++;
    return bytes;
  }

  /** Whoever waits for the next block gets this error, now. */
  fail(error: Error): void {
    this.#channel?.abort(error);
  }

  /** The bytes of a block that nobody needs any more; a block that is not given back is simply kept. */
  giveBack(bytes: Uint8Array): void {
    this.#rooms.giveBack(bytes);
  }

  async #frame(): Promise<Uint8Array> {
    const { signal } = this.#opening;
    signal?.throwIfAborted();
    try {
      this.#frames ??= this.#channel?.[Symbol.asyncIterator]();
      const next = await this.#frames?.next();
      if (next !== undefined && next.done !== true) return next.value;
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    }
    throw new MoltError('mesh/closed', 'the peer ended the transfer before the last block; ask again');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#opening.signal?.removeEventListener('abort', this.#onAbort);
    this.#channel?.abort(cancelled());
    await this.#frames?.return?.();
  }
}

/** One walk over an artifact that is partly here. */
class Receiver {
  readonly #store: Store;
  readonly #source: Source;
  readonly #options: FetchOptions;
  readonly #keeping = new Set<Promise<void>>();
  #bytesDone = 0;
  #bytesTotal: number | undefined;
  #failure: Error | undefined;

  constructor(store: Store, source: Source, options: FetchOptions) {
    this.#store = store;
    this.#source = source;
    this.#options = options;
  }

  async receive(): Promise<void> {
    try {
      await this.#nodes();
      const { maxBytes, maxEntries = LIMITS.artifactEntries, signal } = this.#options;
      const bounds = { maxBytes, maxEntries, ...(signal && { signal }) };
      await checkTree((cid) => this.#store.blocks.get(cid), this.#source.root, bounds);
      await this.#leaves();
    } finally {
      await Promise.all(this.#keeping);
    }
    // The last blocks may have failed after the last look.
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Inner nodes from their first gap on: below a node that is not here, nobody knows what is. */
  async #nodes(): Promise<void> {
    const walk = new DagWalk(this.#source.root);
    const have = new Bits();
    let isHere = true;
    for (let cid = walk.next(); cid !== undefined; cid = walk.next()) {
      this.#options.signal?.throwIfAborted();
      if (cid.code === raw.code) continue;
      if (isHere && this.#store.blocks.size(cid) === undefined) {
        isHere = false;
        await this.#source.ask('nodes', have);
      }
      const bytes = isHere ? await this.#store.blocks.get(cid) : await this.#source.next(cid);
      if (isHere) have.push(true);
      this.#count(bytes.length);
      if (!isHere) await this.#keep(cid, bytes);
      walk.enter(cid, bytes);
      this.#tell(claimedBytes(cid, bytes));
    }
  }

  async #leaves(): Promise<void> {
    const { have, missing } = await this.#present();
    if (missing.length === 0) return;
    await this.#source.ask('leaves', have);
    for (const cid of missing) {
      const bytes = await this.#source.next(cid);
      this.#count(bytes.length);
      await this.#keepBehind(cid, bytes);
      this.#tell(bytes.length);
    }
  }

  /** Which leaves are here, in the order of the walk. */
  async #present(): Promise<{ readonly have: Bits; readonly missing: readonly CID[] }> {
    const walk = new DagWalk(this.#source.root);
    const have = new Bits();
    const missing: CID[] = [];
    for (let cid = walk.next(); cid !== undefined; cid = walk.next()) {
      this.#options.signal?.throwIfAborted();
      if (cid.code !== raw.code) {
        walk.enter(cid, await this.#store.blocks.get(cid));
        continue;
      }
      const size = this.#store.blocks.size(cid);
      have.push(size !== undefined);
      if (size === undefined) missing.push(cid);
      else {
        this.#count(size);
        this.#tell(size);
      }
    }
    return { have, missing };
  }

  /** Keeps a block that is what it is called. Throws `artifact/corrupt`, and what the disk says. */
  async #keep(cid: CID, bytes: Uint8Array): Promise<void> {
    if (!(await isBlock(cid, bytes))) throw corrupt(`block ${cid.toString()} does not hash to its CID`);
    await this.#store.put(cid, bytes);
  }

  /** Goes on while earlier blocks are hashed and written, by other threads. */
  async #keepBehind(cid: CID, bytes: Uint8Array): Promise<void> {
    const keeping = this.#keep(cid, bytes).then(
      () => this.#source.giveBack(bytes),
      (error: Error) => {
        this.#failure ??= error;
        this.#source.fail(error);
      },
    );
    this.#keeping.add(keeping);
    void keeping.then(() => this.#keeping.delete(keeping));
    if (this.#keeping.size >= KEPT_AT_ONCE) await Promise.race(this.#keeping);
    if (this.#failure !== undefined) throw this.#failure;
  }

  #count(sizeBytes: number): void {
    this.#bytesDone += sizeBytes;
    if (this.#bytesDone > this.#options.maxBytes) throw tooLarge('bytes', `more than ${this.#options.maxBytes} bytes`);
  }

  #tell(claimed: number): void {
    this.#bytesTotal ??= claimed;
    this.#options.onProgress?.(this.#bytesDone, Math.max(this.#bytesTotal, this.#bytesDone));
  }
}

/** What the root says the whole tree takes. A claim: good for a progress bar, never for a limit. */
function claimedBytes(root: CID, bytes: Uint8Array): number {
  return decodeNode(root, bytes).Links.reduce((sum, link) => sum + (link.Tsize ?? 0), bytes.length);
}

function decodeAnswer(bytes: Uint8Array): ArtifactAnswer {
  try {
    return ArtifactAnswer.decode(bytes);
  } catch (cause) {
    throw new MoltError(
      'protocol/malformed',
      'expected an answer to a request for an artifact, got bytes that do not decode; drop the peer',
      {},
      { cause },
    );
  }
}

const REFUSALS: ReadonlySet<ErrorCode> = new Set(['artifact/not-found', 'artifact/corrupt', 'artifact/too-large']);

/** A peer may refuse for its own reasons, but only with the codes of this exchange. */
function refusal(refused: Parameters<typeof fromRefusal>[0]): MoltError {
  const error = fromRefusal(refused);
  return REFUSALS.has(error.code) ? error : new MoltError('artifact/not-found', error.message, { remote: true });
}

function corrupt(what: string): MoltError {
  return new MoltError('artifact/corrupt', `the peer sends wrong blocks: ${what}; fetch from another peer`);
}

function cancelled(): MoltError {
  return new MoltError('mesh/closed', 'the transfer is over');
}
