/** What a buyer hears of a run: told on as events, its last lines kept, and a transcript to hold the proof against. */
import { createHash } from 'node:crypto';

import { type Transcript, createTranscript } from '../attestation/index.ts';
import type { Address } from '../protocol/address.ts';
import { MoltError } from '../protocol/errors.ts';
import { LIMITS } from '../protocol/limits.ts';
import type { JobEvent as WireJobEvent } from '../protocol/molt.js';
import { decodeUsage } from '../protocol/usage.ts';
import type { JobEvent } from './progress.ts';

/** The last bytes of each stream that the result carries. */
const TAIL_BYTES = 64 * 1024;
/** Both streams of a run together: each provider cuts a program's output off at `LIMITS.logBytes`. */
const LOG_BYTES_MAX = 2 * LIMITS.logBytes;

/** What a run is of, as its transcript says; the digest as 64 hex digits. */
export interface HeardSubject {
  readonly network: Address;
  readonly lease: Address;
  readonly specDigest: string;
}

export class HeardRun {
  readonly tails = { stdout: new Tail(), stderr: new Tail() };
  readonly #subject: HeardSubject;
  readonly #tell: (event: JobEvent) => void;
  #attempt = 1;
  #stdout = createHash('sha256');
  #logBytes = 0;
  /** The program runs, or ran. */
  hasBegun = false;
  transcript: Transcript;

  constructor(subject: HeardSubject, tell: (event: JobEvent) => void) {
    this.#subject = subject;
    this.#tell = tell;
    this.transcript = createTranscript({ ...this.#subject, attempt: this.#attempt });
  }

  /** Of all that the program printed to standard output, hex. */
  stdoutSha256(): string {
    return this.#stdout.copy().digest('hex');
  }

  /** In the order of the provider's sequence. Throws `protocol/oversize`. */
  take(event: WireJobEvent): void {
    if (event.attempt > this.#attempt) {
      // The provider started over: what the earlier run said does not count.
      this.#attempt = event.attempt;
      this.transcript = createTranscript({ ...this.#subject, attempt: event.attempt });
      this.tails.stdout = new Tail();
      this.tails.stderr = new Tail();
      this.#stdout = createHash('sha256');
      this.#logBytes = 0;
    }
    const { phase, log, usage, ready } = event;
    if (phase !== undefined) {
      this.hasBegun ||= phase.phase === 'running';
      const bytes = { bytesDone: Number(phase.bytesDone), bytesTotal: Number(phase.bytesTotal) };
      this.#tell({ type: 'phase', phase: phase.phase, detail: phase.detail, ...bytes, attempt: event.attempt });
    } else if (log !== undefined) {
      if (log.bytes.length > LIMITS.logChunkBytes)
        throw new MoltError('protocol/oversize', `a log chunk has at most ${LIMITS.logChunkBytes} bytes`);
      this.#logBytes += log.bytes.length;
      if (this.#logBytes > LOG_BYTES_MAX)
        throw new MoltError(
          'protocol/oversize',
          `the provider sends more than ${LOG_BYTES_MAX} bytes of output of one run`,
        );
      const stream = log.stream === 1 ? 'stdout' : 'stderr';
      this.transcript.log(stream, log.bytes);
      this.tails[stream].push(log.bytes);
      if (stream === 'stdout') this.#stdout.update(log.bytes);
      this.#tell({ type: 'log', stream, bytes: log.bytes, atMs: Number(event.atMs) });
    } else if (usage !== undefined) {
      const sample = decodeUsage(usage);
      this.transcript.sample(sample);
      this.#tell({ type: 'usage', ...sample });
    } else if (ready !== undefined) {
      const { service, reason } = ready;
      this.#tell({ type: 'ready', service, ready: ready.ready, reason: reason.slice(0, LIMITS.refusalCharacters) });
    }
  }
}

/** Keeps the last bytes of a stream. */
class Tail {
  #bytes = Buffer.alloc(0);

  push(bytes: Uint8Array): void {
    this.#bytes = Buffer.concat([this.#bytes, bytes]).subarray(-TAIL_BYTES);
  }

  text(): string {
    return this.#bytes.toString('utf8');
  }
}
