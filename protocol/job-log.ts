/** The output of a job's program, as its events carry it: numbered, timed, and resumable at any of them. */
import type { JobEvent } from './molt.js';

/** A piece of what a program printed; may begin and end in mid-line, or in mid-character. */
export interface LogRecord {
  /** Of the job's event; what follows is asked for with the next number. */
  readonly sequence: number;
  /** When the provider kept it, Unix ms. */
  readonly atMs: number;
  readonly attempt: number;
  readonly stream: 'stdout' | 'stderr';
  /** Of the first byte within its stream and attempt. */
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** The output that an event carries, and whether it is the last word: nothing of the program follows a proof or an end. */
export function logOf(event: JobEvent): { readonly record: LogRecord | undefined; readonly isLast: boolean } {
  const { sequence, atMs, attempt, log } = event;
  const isLast = event.proof !== undefined || event.failed !== undefined || event.closed !== undefined;
  if (log === undefined) return { record: undefined, isLast };
  const stream = log.stream === 1 ? 'stdout' : 'stderr';
  const place = { sequence: Number(sequence), atMs: Number(atMs), attempt, stream } as const;
  return { record: { ...place, offset: Number(log.offset), bytes: log.bytes }, isLast };
}
