/**
 * Evidence for the chain program: signatures that the Ed25519 program verifies in the same transaction, and the hashes
 * that offences, votes and draws go by. The program (signature.h, dispute.h, equivocation.h) computes the same.
 */
import { createHash } from 'node:crypto';

import { PublicKey, TransactionInstruction } from '@solana/web3.js';

import { type Address, decodeAddress } from '../protocol/address.ts';
import { decodeCommit } from '../protocol/commit.ts';
import { MoltError, assert } from '../protocol/errors.ts';
import type { Equivocation, Side } from './chain.ts';
import { VOTES } from './layout.ts';

const ED25519_PROGRAM = new PublicKey('Ed25519SigVerify111111111111111111111111111');
export const INSTRUCTIONS_SYSVAR = 'Sysvar1nstructions1111111111111111111111111' as Address;
export const SLOT_HASHES_SYSVAR = 'SysvarS1otHashes111111111111111111111111111' as Address;

const HERE = 0xffff;

/** A message of at most 136 bytes and its 64-byte signature. */
export interface SignedMessage {
  readonly message: Uint8Array;
  readonly signature: Uint8Array;
}

/**
 * Has one or two signatures of one key verified: goes right before the instruction that reads them. Everything is inside
 * this instruction, in the one form that the program takes: offsets, key, signatures, messages.
 */
export function verifySignatures(signer: Address, signed: readonly SignedMessage[]): TransactionInstruction {
  const length = signed[0]?.message.length ?? 0;
  assert(
    signed.every(({ message, signature }) => message.length === length && signature.length === 64),
    'messages of one length with 64-byte signatures',
  );
  const keyAt = 2 + 14 * signed.length;
  const signaturesAt = keyAt + 32;
  const messagesAt = signaturesAt + 64 * signed.length;
  const data = Buffer.alloc(messagesAt + length * signed.length);
  data.writeUInt8(signed.length, 0);
  data.set(decodeAddress(signer), keyAt);
  for (const [index, { message, signature }] of signed.entries()) {
    const signatureAt = signaturesAt + 64 * index;
    const messageAt = messagesAt + length * index;
    [signatureAt, HERE, keyAt, HERE, messageAt, length, HERE].forEach((value, at) =>
      data.writeUInt16LE(value, 2 + 14 * index + 2 * at),
    );
    data.set(signature, signatureAt);
    data.set(message, messageAt);
  }
  return new TransactionInstruction({ programId: ED25519_PROGRAM, keys: [], data });
}

/** What tells an offence from others: kind, attempt, subject and index of the later commit. Throws `protocol/malformed`. */
export function offenceDigest({ commits }: Pick<Equivocation, 'commits'>): Uint8Array {
  const [a, b] = commits.map((bytes) => ({ ...decodeCommit(bytes), bytes: Buffer.from(bytes) }));
  assert(a && b, 'an equivocation has two commits');
  const later = b.index > a.index || (b.index === a.index && b.attempt > a.attempt) ? b : a;
  return createHash('sha256')
    .update(later.bytes.subarray(16, 17))
    .update(later.bytes.subarray(18, 20))
    .update(later.bytes.subarray(24, 56))
    .update(later.bytes.subarray(56, 64))
    .digest();
}

/** What a verifier commits to before it reveals. `salt`: 32 bytes nobody else knows. */
export function voteCommitment(dispute: Address, verifier: Address, side: Side, salt: Uint8Array): Uint8Array {
  assert(salt.length === 32, 'a salt has 32 bytes');
  return createHash('sha256')
    .update('molt/vote/v1'.padEnd(16, '\0'))
    .update(decodeAddress(dispute))
    .update(decodeAddress(verifier))
    .update(salt)
    .update(Uint8Array.of(VOTES[side]))
    .digest();
}

/** What a draw goes by. */
export interface DrawInput {
  readonly dispute: Address;
  /** Of the lease: it never judges itself. */
  readonly provider: Address;
  readonly slot: bigint;
  readonly verifiers: readonly Address[];
  /** Data of the SlotHashes sysvar. */
  readonly slotHashes: Uint8Array;
}

const SLOT_HASHES_MAX = 512;

/**
 * The three verifiers whom the program draws, in order; the first three of the list where the slot is forgotten already,
 * for then the program only starts the draw anew. Throws `chain/refused` before the time and with too few verifiers.
 */
export function drawnVerifiers(input: DrawInput): readonly [Address, Address, Address] {
  const { dispute, provider, slot, verifiers } = input;
  const list = verifiers.filter((verifier) => verifier !== provider);
  if (list.length < 3) {
    throw new MoltError('chain/refused', `a draw needs three verifiers, and only ${list.length} are registered`);
  }
  const hashes = Buffer.from(input.slotHashes);
  const count = Number(hashes.readBigUInt64LE(0));
  const later = Array.from({ length: count }, (_, index) => 8 + 40 * index).filter(
    (at) => hashes.readBigUInt64LE(at) > slot,
  );
  const at = later.at(-1);
  if (at === undefined) {
    throw new MoltError('chain/refused', 'no slot has followed the dispute yet: draw a moment later');
  }
  const forgotten = later.length === SLOT_HASHES_MAX;
  const seed = createHash('sha256')
    .update(hashes.subarray(at + 8, at + 40))
    .update(decodeAddress(dispute))
    .digest();
  const drawn = [0, 1, 2].map((seat) => {
    const pick = forgotten ? seat : Number(seed.readBigUInt64LE(8 * seat) % BigInt(list.length));
    const verifier = list[pick];
    assert(verifier, 'a pick is inside the list');
    if (forgotten) return verifier;
    const last = list.pop();
    if (last !== undefined && pick < list.length) list[pick] = last;
    return verifier;
  });
  return drawn as unknown as readonly [Address, Address, Address];
}
