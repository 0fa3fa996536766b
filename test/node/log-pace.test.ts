/** Goal: however a program flushes, its output costs few pieces, loses nothing and does not wait. Method: a clock of our own. */
import { expect, test } from 'vitest';

import { paceLogs } from '../../node/provider/log-pace.ts';
import type { LogStream } from '../../node/runtime/index.ts';
import type { Clock } from '../../protocol/env.ts';

/** Moves only by `advance`; sleepers wake in order. */
function handClock() {
  let nowMs = 1_000;
  let sleepers: { readonly atMs: number; readonly wake: () => void }[] = [];
  const clock = {
    now: () => nowMs,
    monotonic: () => nowMs,
    sleep: (ms: number) => new Promise<void>((wake) => sleepers.push({ atMs: nowMs + ms, wake })),
    every: () => ({ [Symbol.dispose]: () => undefined }),
  } satisfies Clock;
  const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  const advance = async (ms: number): Promise<void> => {
    await settle();
    nowMs += ms;
    for (const { wake } of sleepers.filter((one) => one.atMs <= nowMs)) wake();
    sleepers = sleepers.filter((one) => one.atMs > nowMs);
    await settle();
  };
  return { clock, advance, settle };
}

/** Chunks that come when they are pushed. */
function pushed() {
  const queue: { stream: LogStream; bytes: Uint8Array }[] = [];
  let wake = Promise.withResolvers<void>();
  const state = { ended: false, taken: 0 };
  const tell = (): void => {
    wake.resolve();
    wake = Promise.withResolvers<void>();
  };
  return {
    state,
    push: (text: string, stream: LogStream = 'stdout') => {
      queue.push({ stream, bytes: Buffer.from(text) });
      tell();
    },
    end: () => {
      state.ended = true;
      tell();
    },
    chunks: (async function* () {
      for (;;) {
        const next = queue.shift();
        if (next !== undefined) {
          state.taken++;
          yield next;
        } else if (state.ended) return;
        else await wake.promise;
      }
    })(),
  };
}

function collect(clock: Clock, chunks: AsyncIterable<{ stream: LogStream; bytes: Uint8Array }>) {
  const read: string[] = [];
  const done = (async () => {
    for await (const { stream, bytes } of paceLogs(clock, chunks))
      read.push(`${stream} ${Buffer.from(bytes).toString()}`);
  })();
  return { read, done };
}

test('what comes after a pause comes at once; what follows closely comes together', async () => {
  const { clock, advance, settle } = handClock();
  const source = pushed();
  const { read, done } = collect(clock, source.chunks);
  source.push('a');
  await settle();
  expect(read).toEqual(['stdout a']);
  for (const text of ['b', 'c', 'd']) source.push(text);
  source.push('x', 'stderr');
  source.push('e');
  await advance(49);
  expect(read).toEqual(['stdout a']);
  await advance(1);
  expect(read).toEqual(['stdout a', 'stdout bcde', 'stderr x']);
  source.push('z');
  source.end();
  await done;
  expect(read.at(-1)).toBe('stdout z');
});

test('ten thousand single bytes within a second are at most twenty-one pieces, and all there', async () => {
  const { clock, advance } = handClock();
  const source = pushed();
  const { read, done } = collect(clock, source.chunks);
  for (let tick = 0; tick < 100; tick++) {
    for (let count = 0; count < 100; count++) source.push('.');
    await advance(10);
  }
  source.end();
  await done;
  expect(read.length).toBeLessThanOrEqual(21);
  expect(read.map((one) => one.slice('stdout '.length)).join('')).toBe('.'.repeat(10_000));
});

test('a flood is not gathered but passed on as it is taken', async () => {
  const { clock, settle } = handClock();
  const source = pushed();
  const { read, done } = collect(clock, source.chunks);
  for (let count = 0; count < 8; count++) source.push('x'.repeat(32 * 1024));
  await settle();
  await settle();
  expect(read).toHaveLength(8);
  source.end();
  await done;
});
