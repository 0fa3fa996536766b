/**
 * The transcript of one run: a Merkle tree over its log and a hash chain over its usage samples.
 *
 * Both start from nothing but the lease, the attempt and the spec, and are fed what the provider also sends to the buyer,
 * so a buyer who follows the job builds the same transcript and compares it with the proof. What is fed may thus come from
 * a peer, and what cannot be recorded is refused with a typed error. Nobody else's word for the usage is in it: the chain
 * proves order and completeness, not truth.
 *
 *   leaf   = stream u8 (1 stdout, 2 stderr) | sequence u64 LE, counted over both streams | bytes
 *   head 0 = SHA-256("molt/1/meter\n" | network | lease | attempt u16 LE | spec digest)
 *   head n = SHA-256("molt/1/sample\n" | head n-1 | every field of protocol/usage.ts in its order, u64 LE)
 */
import { createHash } from 'node:crypto';

import { type Address, decodeAddress } from '../protocol/address.ts';
import { MoltError } from '../protocol/errors.ts';
import { LIMITS } from '../protocol/limits.ts';
import { USAGE_FIELDS, type UsageSample } from '../protocol/usage.ts';
import { createLogTree, sha256 } from './log-tree.ts';

/** What a transcript speaks of. */
export interface TranscriptSubject {
  readonly network: Address;
  readonly lease: Address;
  /** 0 … 65,535. */
  readonly attempt: number;
  /** 64 hex digits. */
  readonly specDigest: string;
}

export type LogStream = 'stdout' | 'stderr';

/** What the proof carries of a transcript. Digests are 64 hex digits. */
export interface TranscriptSummary {
  readonly logRoot: string;
  readonly logLeaves: number;
  readonly meterHead: string;
  readonly samples: number;
  /** SHA-256 of all bytes of standard output: how they came in chunks is another with every run. */
  readonly stdoutSha256: string;
}

export interface Transcript {
  /** Bytes so far. */
  readonly logBytes: { readonly stdout: number; readonly stderr: number };
  /**
   * One chunk as it is sent to the buyer, at most LIMITS.logChunkBytes: `protocol/oversize`. A finished transcript takes
   * no more: `proof/wrong-metering`.
   */
  log(stream: LogStream, bytes: Uint8Array): void;
  /**
   * Fractions are cut. Gives back what was recorded, which is what the buyer has to be told; undefined, with nothing
   * recorded, when the transcript is finished: a sample may be under way when the run ends. Numbers below zero or beyond
   * 2^53 are `proof/wrong-metering`.
   */
  sample(sample: UsageSample): UsageSample | undefined;
  /** Ends the transcript. May be called again and then says the same. */
  finish(): TranscriptSummary;
}

const STREAM_BYTES: Readonly<Record<LogStream, number>> = { stdout: 1, stderr: 2 };

/** Throws `protocol/malformed` for an attempt outside its range. */
export function createTranscript(subject: TranscriptSubject): Transcript {
  const tree = createLogTree();
  const logBytes = { stdout: 0, stderr: 0 };
  const stdout = createHash('sha256');
  let head = firstHead(subject);
  let samples = 0;
  let finished = false;
  return {
    logBytes,
    log(stream, bytes) {
      if (finished) throw new MoltError('proof/wrong-metering', 'log arrived after the transcript was finished');
      if (bytes.length > LIMITS.logChunkBytes) {
        throw new MoltError(
          'protocol/oversize',
          `a log chunk has at most ${LIMITS.logChunkBytes} bytes, this one ${bytes.length}`,
        );
      }
      const start = Buffer.alloc(9);
      start.writeUInt8(STREAM_BYTES[stream]);
      start.writeBigUInt64LE(BigInt(tree.leaves), 1);
      tree.add(Buffer.concat([start, bytes]));
      logBytes[stream] += bytes.length;
      if (stream === 'stdout') stdout.update(bytes);
    },
    sample(sample) {
      if (finished) return undefined;
      const recorded = { ...sample };
      for (const field of USAGE_FIELDS) recorded[field] = Math.trunc(sample[field]);
      head = sha256('molt/1/sample\n', head, u64s(...USAGE_FIELDS.map((field) => recorded[field])));
      samples++;
      return recorded;
    },
    finish() {
      finished = true;
      const stdoutSha256 = stdout.copy().digest('hex');
      return { logRoot: hex(tree.root()), logLeaves: tree.leaves, meterHead: hex(head), samples, stdoutSha256 };
    },
  };
}

/** Head 0: what the meter chain of a run without a sample ends with. */
export function firstHead(subject: TranscriptSubject): Uint8Array {
  if (!Number.isInteger(subject.attempt) || subject.attempt < 0 || subject.attempt > 65_535) {
    throw new MoltError('protocol/malformed', `an attempt is 0 … 65535, not ${subject.attempt}`);
  }
  const attempt = Buffer.alloc(2);
  attempt.writeUInt16LE(subject.attempt);
  return sha256(
    'molt/1/meter\n',
    decodeAddress(subject.network),
    decodeAddress(subject.lease),
    attempt,
    Buffer.from(subject.specDigest, 'hex'),
  );
}

/** Root of a log without a chunk, hex: SHA-256 of nothing. */
export const EMPTY_LOG_ROOT: string = hex(createLogTree().root());

function u64s(...values: readonly number[]): Uint8Array {
  const bytes = Buffer.alloc(8 * values.length);
  for (const [index, value] of values.entries()) {
    if (!Number.isSafeInteger(value) || value < 0) {
      throw new MoltError('proof/wrong-metering', `usage is counted in whole numbers from zero, not ${value}`);
    }
    bytes.writeBigUInt64LE(BigInt(value), 8 * index);
  }
  return bytes;
}

export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
