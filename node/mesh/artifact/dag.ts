/**
 * The order of blocks: depth first, parents before children, each block once. Sender and receiver walk the same way, so
 * the receiver knows the CID of every block before it comes, and a number says where a broken transfer goes on.
 *
 * The walk is also the guard against trees made to hurt: it bounds depth, blocks, and links that wait.
 */
import * as dagPb from '@ipld/dag-pb';
import { CID } from 'multiformats/cid';
import * as raw from 'multiformats/codecs/raw';
import { sha256 } from 'multiformats/hashes/sha2';

import { MoltError } from '../../../protocol/errors.ts';

/** 1,024 links a node: four levels hold a petabyte, directories add one each. */
export const DEPTH_MAX = 64;
/** One block is at most 1 MiB, so 1 TiB of full blocks; also the bound of memory a walk takes (about 200 B a block). */
export const BLOCKS_MAX = 1_048_576;

/** Any spelling of a CID → the one Molt uses: version 1, SHA-256, raw or dag-pb. Throws `artifact/corrupt`. */
export function parseArtifactCid(text: string): CID {
  try {
    return checkCid(CID.parse(text).toV1());
  } catch (cause) {
    throw refusedCid(text.slice(0, 64), cause);
  }
}

/** The same for bytes from the wire. */
export function decodeArtifactCid(bytes: Uint8Array): CID {
  try {
    return checkCid(CID.decode(bytes).toV1());
  } catch (cause) {
    throw refusedCid(`${bytes.length} bytes`, cause);
  }
}

/** Version 1, SHA-256, raw or dag-pb, or `artifact/corrupt`. */
export function checkCid(cid: CID): CID {
  const isKnown = cid.code === raw.code || cid.code === dagPb.code;
  if (isKnown && cid.multihash.code === sha256.code && cid.multihash.size === 32) return cid;
  throw refusedCid(cid.toString());
}

/** The children of a block in their order; none for raw bytes. Throws `artifact/corrupt`. */
export function linksOf(cid: CID, bytes: Uint8Array): CID[] {
  if (cid.code === raw.code) return [];
  return decodeNode(cid, bytes).Links.map((link) => checkCid(link.Hash.toV1()));
}

/** The node that a dag-pb block holds. Throws `artifact/corrupt`. */
export function decodeNode(cid: CID, bytes: Uint8Array): dagPb.PBNode {
  try {
    return dagPb.decode(bytes);
  } catch (cause) {
    throw new MoltError(
      'artifact/corrupt',
      `block ${cid.toString()} is not a UnixFS node; the artifact cannot be used`,
      {},
      { cause },
    );
  }
}

/** Name of a block in sets and maps: its multihash, for raw and dag-pb spellings of equal bytes are one block. */
export function blockKey(cid: CID): string {
  return Buffer.from(cid.multihash.digest).toString('hex');
}

export class DagWalk {
  readonly #stack: { readonly cid: CID; readonly depth: number }[];
  readonly #seen = new Set<string>();
  #depth = 0;

  constructor(root: CID) {
    this.#stack = [{ cid: root, depth: 1 }];
  }

  /** Blocks met so far, by `blockKey` and codec. */
  get blocks(): number {
    return this.#seen.size;
  }

  /** The next block of the order, or undefined after the last. `enter` must be called with its bytes before the next one. */
  next(): CID | undefined {
    for (;;) {
      const top = this.#stack.pop();
      if (top === undefined) return undefined;
      const key = `${top.cid.code}:${blockKey(top.cid)}`;
      if (this.#seen.has(key)) continue;
      this.#seen.add(key);
      this.#depth = top.depth;
      if (this.#seen.size > BLOCKS_MAX) throw tooLarge('blocks', `more than ${BLOCKS_MAX} blocks`);
      return top.cid;
    }
  }

  /** Queues the children of the block that `next` gave. Throws `artifact/corrupt`, `artifact/too-large`. */
  enter(cid: CID, bytes: Uint8Array): void {
    const links = linksOf(cid, bytes);
    if (links.length === 0) return;
    if (this.#depth >= DEPTH_MAX) throw tooLarge('depth', `a tree deeper than ${DEPTH_MAX}`);
    if (this.#stack.length + links.length > BLOCKS_MAX) throw tooLarge('links', `more than ${BLOCKS_MAX} links`);
    for (const link of links.toReversed()) this.#stack.push({ cid: link, depth: this.#depth + 1 });
  }
}

/** Which bound a tree breaks: content, blocks, links between them, files and directories, levels, or work for nothing. */
export type Bound = 'bytes' | 'blocks' | 'links' | 'entries' | 'depth' | 'visits';

export function tooLarge(reason: Bound, what: string): MoltError {
  return new MoltError(
    'artifact/too-large',
    `the artifact has ${what}; split it, or raise the limit on the receiving side`,
    { reason },
  );
}

function refusedCid(what: string, cause?: unknown): MoltError {
  return new MoltError('artifact/corrupt', `expected a CID of a UnixFS tree with SHA-256, got ${what}`, {}, { cause });
}
