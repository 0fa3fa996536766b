/**
 * The fixed 136-byte commit: a signed statement small enough that two of them fit into one Solana transaction.
 *
 * Layout, little endian: 0 domain (16, zero padded) · 16 kind u8 · 17 flags u8 · 18 attempt u16 · 20 network (first 4
 * bytes) · 24 subject (32) · 56 index u64 · 64 aux u64 · 72 value digest (32) · 104 slot u64 · 112 account (first 24
 * bytes). Two commits of one signer with equal kind, attempt, subject and index but different value are equivocation,
 * which anyone can show without judgement. SPEC.md, "Commit".
 */
import { type Address, decodeAddress } from './address.ts';
import { MoltError, assert } from './errors.ts';

export const COMMIT_BYTES = 136;
const DOMAIN = Buffer.from('molt/commit/v1'.padEnd(16, '\0'), 'latin1');

/** Append-only. */
export const COMMIT_KINDS = { offer: 1, lease: 2, result: 3, checkpoint: 4, verdict: 5, attestation: 6 } as const;
export type CommitKind = keyof typeof COMMIT_KINDS;

export interface Commit {
  readonly kind: CommitKind;
  readonly attempt: number;
  readonly network: Address;
  /** What is spoken of, 32 bytes: for a result the lease account. */
  readonly subject: Uint8Array;
  readonly index: bigint;
  readonly aux: bigint;
  /** SHA-256 of what is committed to: for a result the decoded payload of the proof. */
  readonly value: Uint8Array;
  readonly slot: bigint;
  readonly account: Address;
}

export function encodeCommit(commit: Commit): Uint8Array {
  assert(commit.subject.length === 32 && commit.value.length === 32, 'a commit has 32-byte subject and value');
  assert(commit.attempt >= 0 && commit.attempt < 2 ** 16, 'an attempt is a u16');
  const bytes = Buffer.alloc(COMMIT_BYTES);
  DOMAIN.copy(bytes, 0);
  bytes.writeUInt8(COMMIT_KINDS[commit.kind], 16);
  bytes.writeUInt16LE(commit.attempt, 18);
  bytes.set(decodeAddress(commit.network).subarray(0, 4), 20);
  bytes.set(commit.subject, 24);
  bytes.writeBigUInt64LE(commit.index, 56);
  bytes.writeBigUInt64LE(commit.aux, 64);
  bytes.set(commit.value, 72);
  bytes.writeBigUInt64LE(commit.slot, 104);
  bytes.set(decodeAddress(commit.account).subarray(0, 24), 112);
  return new Uint8Array(bytes);
}

/** What a commit can be read back to: network and account only as the prefixes it carries. Throws `protocol/malformed`. */
export interface DecodedCommit extends Omit<Commit, 'network' | 'account'> {
  readonly networkPrefix: Uint8Array;
  readonly accountPrefix: Uint8Array;
}

export function decodeCommit(raw: Uint8Array): DecodedCommit {
  const bytes = Buffer.from(raw);
  const kind = (Object.keys(COMMIT_KINDS) as CommitKind[]).find((name) => COMMIT_KINDS[name] === bytes[16]);
  if (bytes.length !== COMMIT_BYTES || !bytes.subarray(0, 16).equals(DOMAIN) || bytes[17] !== 0 || kind === undefined) {
    throw new MoltError(
      'protocol/malformed',
      `expected a commit of ${COMMIT_BYTES} bytes in our domain, got ${bytes.length} bytes of something else`,
    );
  }
  return {
    kind,
    attempt: bytes.readUInt16LE(18),
    networkPrefix: new Uint8Array(bytes.subarray(20, 24)),
    subject: new Uint8Array(bytes.subarray(24, 56)),
    index: bytes.readBigUInt64LE(56),
    aux: bytes.readBigUInt64LE(64),
    value: new Uint8Array(bytes.subarray(72, 104)),
    slot: bytes.readBigUInt64LE(104),
    accountPrefix: new Uint8Array(bytes.subarray(112, 136)),
  };
}
