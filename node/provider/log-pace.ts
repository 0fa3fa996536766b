/**
 * A program's output at a pace that its keeper sets: at most one piece of each stream in `EVERY_MS`, whatever the program
 * flushes, and at once after a pause.
 *
 * Every piece becomes an event that is journaled, signed for and sent, so a program that writes single bytes would cost
 * its provider a hundred times what it prints. The last pieces come with the end; nothing is lost.
 */
import type { Clock } from '../../protocol/env.ts';
import { LIMITS } from '../../protocol/limits.ts';
import type { LogChunk, LogStream } from '../runtime/index.ts';

type Piece = Pick<LogChunk, 'stream' | 'bytes'>;

/** Half of what a follower may wait for a line. */
const EVERY_MS = 50;

/** Reads no further than one event of each stream holds; each stream stays in order. */
export async function* paceLogs(clock: Clock, chunks: AsyncIterable<Piece>): AsyncGenerator<Piece> {
  const waiting = new Map<LogStream, Uint8Array[]>();
  const iterator = chunks[Symbol.asyncIterator]();
  let lastMs = -Infinity;
  let bytes = 0;
  try {
    for (let next = iterator.next(); ;) {
      const dueMs = bytes === 0 ? Infinity : Math.max(0, lastMs + EVERY_MS - clock.monotonic());
      const came = await within(clock, dueMs, next);
      if (came?.done === false) {
        const { stream, bytes: more } = came.value;
        waiting.set(stream, [...(waiting.get(stream) ?? []), more]);
        bytes += more.length;
        next = iterator.next();
        const isDue = clock.monotonic() - lastMs >= EVERY_MS || bytes >= LIMITS.logChunkBytes;
        if (!isDue) continue;
      }
      for (const [stream, parts] of waiting) yield { stream, bytes: Buffer.concat(parts) };
      waiting.clear();
      bytes = 0;
      lastMs = clock.monotonic();
      if (came?.done === true) return;
    }
  } finally {
    await iterator.return?.();
  }
}

/** What comes within the time; else undefined. */
async function within<T>(clock: Clock, ms: number, coming: Promise<T>): Promise<T | undefined> {
  if (ms === Infinity) return coming;
  const waiting = new AbortController();
  const late = clock.sleep(ms, waiting.signal).then(
    () => undefined,
    () => undefined,
  );
  try {
    return await Promise.race([coming, late]);
  } finally {
    waiting.abort();
  }
}
