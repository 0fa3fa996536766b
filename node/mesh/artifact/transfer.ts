/**
 * Artifacts between two peers, over one stream: a request that names the root and how many blocks of the walk the asker
 * already has, then the rest of the blocks in walk order, then an end with totals; or a refusal instead of any of them.
 *
 * The receiver knows each block's CID before it comes and hashes it before it is stored, so a sender cannot make it keep
 * anything but the artifact asked for, and a broken transfer goes on where it stopped.
 */
import type { CID } from 'multiformats/cid';
import * as raw from 'multiformats/codecs/raw';

import type { Channel, Network } from '../../../market/ports.ts';
import type { Address } from '../../../protocol/address.ts';
import type { Env } from '../../../protocol/env.ts';
import { type ErrorCode, MoltError, hasCode } from '../../../protocol/errors.ts';
import { LIMITS } from '../../../protocol/limits.ts';
import { ArtifactFrame, ArtifactRequest } from '../../../protocol/molt.js';
import { STREAMS, fromRefusal, toRefusal } from '../../../protocol/wire.ts';
import type { MeshOpenOptions, MeshProtocolLimits } from '../streams.ts';
import { type Blocks, isBlock } from './blocks.ts';
import { DagWalk, decodeArtifactCid, decodeNode, tooLarge } from './dag.ts';

export interface FetchOptions {
  /** Of all blocks together, the few bytes of the tree's own nodes included. */
  readonly maxBytes: number;
  readonly signal?: AbortSignal;
  /** Blocks that are here, in bytes; the total is what the root claims, and unknown before the root is here. */
  readonly onProgress?: (bytesDone: number, bytesTotal?: number) => void;
  /** Multiaddrs to try when there is no connection to the peer yet. */
  readonly addresses?: readonly string[];
}

/** Whether this peer may have this artifact. */
export type Allow = (peer: Address, cid: string) => boolean | Promise<boolean>;

/** Where the blocks come from and go to, with the set that keeps them from being swept meanwhile. */
export interface Store {
  readonly blocks: Blocks;
  put(cid: CID, bytes: Uint8Array): Promise<void>;
}

/** A silent peer is given up after this long; a transfer that made progress is taken up again this often. */
const IDLE_MS = 20_000;
const RESUMES_MAX = 5;

/** Brings every missing block here. Throws what `Artifacts.fetch` documents. */
export async function fetchBlocks(
  env: Env,
  store: Store,
  job: { network: Network; from: Address; root: CID },
  options: FetchOptions,
): Promise<void> {
  let had = -1;
  for (let attempt = 0; ; attempt++) {
    const receiver = new Receiver(store, job.root, options);
    if (await receiver.skipPresent()) return;
    try {
      await receive(job, receiver, options);
      return;
    } catch (error) {
      const isCut = hasCode(error, 'mesh/closed', 'mesh/timeout');
      if (!isCut || receiver.blocks <= had || attempt >= RESUMES_MAX) throw error;
      had = receiver.blocks;
      env.logger.log('debug', 'artifact transfer resumed', { from: job.from, cid: job.root.toString(), blocks: had });
    }
  }
}

async function receive(
  job: { network: Network; from: Address; root: CID },
  receiver: Receiver,
  options: FetchOptions,
): Promise<void> {
  const { maxFrameBytes, protocol } = STREAMS.artifact;
  const { signal, addresses } = options;
  const opening: MeshOpenOptions = {
    maxFrameBytes,
    idleMs: IDLE_MS,
    ...(signal && { signal }),
    ...(addresses && { addresses }),
  };
  const channel = await job.network.open(job.from, protocol, opening);
  const onAbort = (): void => channel.abort(signal?.reason instanceof Error ? signal.reason : cancelled());
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    await channel.send(ArtifactRequest.encode({ cid: job.root.bytes, skipBlocks: BigInt(receiver.blocks) }));
    for await (const bytes of channel) {
      const frame = decodeFrame(bytes);
      if (frame.refused !== undefined) throw refusal(frame.refused);
      if (frame.block !== undefined) await receiver.take(frame.block);
      else if (frame.end !== undefined) return receiver.finish();
    }
    throw new MoltError('mesh/closed', 'the peer ended the transfer before the last block; ask again');
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener('abort', onAbort);
    channel.abort(cancelled());
  }
}

/** One walk over an artifact that is partly here. */
class Receiver {
  readonly #store: Store;
  readonly #walk: DagWalk;
  readonly #options: FetchOptions;
  #expected: CID | undefined;
  #done = 0;
  #bytesDone = 0;
  #bytesTotal: number | undefined;

  constructor(store: Store, root: CID, options: FetchOptions) {
    this.#store = store;
    this.#walk = new DagWalk(root);
    this.#options = options;
  }

  /** Blocks of the walk that are here. */
  get blocks(): number {
    return this.#done;
  }

  /** Walks over what is here already, up to the first gap; true when nothing is missing. */
  async skipPresent(): Promise<boolean> {
    for (;;) {
      this.#options.signal?.throwIfAborted();
      const cid = this.#walk.next();
      this.#expected = cid;
      if (cid === undefined) return true;
      const size = await this.#store.blocks.size(cid);
      if (size === undefined) return false;
      // Raw leaves have no children: their size is all the walk needs.
      this.#count(cid, cid.code === raw.code ? size : await this.#store.blocks.get(cid));
    }
  }

  async take(block: { readonly cid: Uint8Array; readonly bytes: Uint8Array }): Promise<void> {
    const expected = this.#expected;
    if (expected === undefined) throw corrupt('a block came after the last one');
    if (block.bytes.length > LIMITS.artifactBlockBytes) throw tooLarge(`a block of ${block.bytes.length} bytes`);
    if (!expected.equals(decodeArtifactCid(block.cid)))
      throw corrupt(`block ${expected.toString()} was due, another came`);
    if (!isBlock(expected, block.bytes)) throw corrupt(`block ${expected.toString()} does not hash to its CID`);
    if (this.#bytesDone + block.bytes.length > this.#options.maxBytes)
      throw tooLarge(`more than ${this.#options.maxBytes} bytes`);
    await this.#store.put(expected, block.bytes);
    this.#count(expected, block.bytes);
    this.#expected = this.#walk.next();
  }

  finish(): void {
    if (this.#expected !== undefined)
      throw corrupt(`the peer says it is done, block ${this.#expected.toString()} is missing`);
  }

  #count(cid: CID, block: Uint8Array | number): void {
    const size = typeof block === 'number' ? block : block.length;
    this.#done++;
    this.#bytesDone += size;
    if (this.#bytesDone > this.#options.maxBytes) throw tooLarge(`more than ${this.#options.maxBytes} bytes`);
    if (typeof block !== 'number') this.#walk.enter(cid, block);
    this.#bytesTotal ??= claimedBytes(cid, block);
    this.#options.onProgress?.(this.#bytesDone, Math.max(this.#bytesTotal, this.#bytesDone));
  }
}

/** What the root says the whole tree takes. A claim: good for a progress bar, never for a limit. */
function claimedBytes(root: CID, block: Uint8Array | number): number {
  if (typeof block === 'number') return block;
  if (root.code === raw.code) return block.length;
  return decodeNode(root, block).Links.reduce((sum, link) => sum + (link.Tsize ?? 0), block.length);
}

/** Answers requests for artifacts that `find` knows and `allow` grants; everything else is `artifact/not-found`. */
export async function serveBlocks(
  env: Env,
  network: Network,
  find: (root: CID, peer: Address) => Promise<Blocks | undefined>,
): Promise<AsyncDisposable> {
  const { protocol, ...limits } = STREAMS.artifact;
  const withIdleLimit: MeshProtocolLimits = { ...limits, idleMs: IDLE_MS };
  return network.handle(protocol, withIdleLimit, async (channel) => {
    for await (const bytes of channel) {
      try {
        const { root, skip } = decodeRequest(bytes);
        const blocks = await find(root, channel.remote);
        if (blocks === undefined)
          throw new MoltError('artifact/not-found', `artifact ${root.toString()} is not served here`);
        await sendBlocks(channel, blocks, root, skip);
      } catch (error) {
        if (!(error instanceof MoltError) || error.code.startsWith('mesh/')) throw error;
        env.logger.log('debug', 'artifact refused', { remote: channel.remote, code: error.code });
        await channel.send(ArtifactFrame.encode({ refused: toRefusal(error) }));
      }
    }
  });
}

async function sendBlocks(channel: Channel, blocks: Blocks, root: CID, skip: number): Promise<void> {
  const walk = new DagWalk(root);
  let sizeBytes = 0;
  for (let cid = walk.next(); cid !== undefined; cid = walk.next()) {
    const isSkipped = walk.blocks <= skip;
    if (isSkipped && cid.code === raw.code) continue;
    const bytes = await blocks.get(cid);
    walk.enter(cid, bytes);
    if (isSkipped) continue;
    sizeBytes += bytes.length;
    await channel.send(ArtifactFrame.encode({ block: { cid: cid.bytes, bytes } }));
  }
  await channel.send(ArtifactFrame.encode({ end: { blocks: BigInt(walk.blocks), sizeBytes: BigInt(sizeBytes) } }));
}

function decodeRequest(bytes: Uint8Array): { readonly root: CID; readonly skip: number } {
  const { cid, skipBlocks } = decodeAs('request for an artifact', () => ArtifactRequest.decode(bytes));
  return { root: decodeArtifactCid(cid), skip: Number(skipBlocks) };
}

function decodeFrame(bytes: Uint8Array): ArtifactFrame {
  return decodeAs('frame of an artifact', () => ArtifactFrame.decode(bytes));
}

function decodeAs<Message>(what: string, decode: () => Message): Message {
  try {
    return decode();
  } catch (cause) {
    throw new MoltError(
      'protocol/malformed',
      `expected a ${what}, got bytes that do not decode; drop the peer`,
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
