/**
 * RFC 6962 Merkle tree over log chunks, computed while the log flows by: memory grows with the logarithm of its length.
 *
 * Leaf hash = SHA-256(0x00 | leaf), node hash = SHA-256(0x01 | left | right), the empty tree = SHA-256 of nothing; so
 * any RFC 6962 implementation can later show that one chunk was, or was not, in the log.
 */
import { createHash } from 'node:crypto';

export interface LogTree {
  readonly leaves: number;
  add(leaf: Uint8Array): void;
  /** 32 bytes. May be asked at any time; later leaves give other roots. */
  root(): Uint8Array;
}

interface Subtree {
  readonly hash: Uint8Array;
  /** 2^height leaves. */
  readonly height: number;
}

const LEAF = Uint8Array.of(0);
const NODE = Uint8Array.of(1);

export function createLogTree(): LogTree {
  // Complete subtrees, left to right, of strictly falling height: the binary digits of the number of leaves.
  const subtrees: Subtree[] = [];
  let leaves = 0;
  return {
    get leaves() {
      return leaves;
    },
    add(leaf) {
      leaves++;
      let grown: Subtree = { hash: sha256(LEAF, leaf), height: 0 };
      for (let last = subtrees.at(-1); last?.height === grown.height; last = subtrees.at(-1)) {
        subtrees.pop();
        grown = { hash: sha256(NODE, last.hash, grown.hash), height: grown.height + 1 };
      }
      subtrees.push(grown);
    },
    root() {
      const hashes = subtrees.map(({ hash }) => hash);
      return hashes.length === 0 ? sha256() : hashes.reduceRight((right, left) => sha256(NODE, left, right));
    },
  };
}

/** SHA-256 over the parts one after the other: 32 bytes. */
export function sha256(...parts: readonly (Uint8Array | string)[]): Uint8Array {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return new Uint8Array(hash.digest());
}
