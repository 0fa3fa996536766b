/** Goal: whoever follows a job is told every event once and in order. Method: the real journal, with a disk that is slow now and then. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import type { LeaseAccount } from '../../../chain/index.ts';
import { type Journal, openJournal } from '../../../node/journal.ts';
import type { Agreement } from '../../../node/provider/job.ts';
import { Jobs, type JobsOptions } from '../../../node/provider/jobs.ts';
import { address } from '../../market/fixtures.ts';
import { env } from '../mesh/peers.ts';

const lease = address('lease');

let opened: AsyncDisposableStack;
let journal: Journal;
beforeEach(async () => {
  opened = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'molt-jobs-'));
  opened.defer(() => rm(directory, { recursive: true, force: true }));
  journal = opened.use(await openJournal(directory));
});
afterEach(() => opened.disposeAsync());

/** Jobs whose leases the chain never tells of. */
function jobsOn(slow: Journal): Jobs {
  const watchLease = (_lease: unknown, signal: AbortSignal): AsyncIterable<LeaseAccount | undefined> => ({
    [Symbol.asyncIterator]: () => ({
      next: () => new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    }),
  });
  const options = { journal: slow, chain: { watchLease }, execution: { [Symbol.asyncDispose]: async () => undefined } };
  return opened.use(new Jobs(env, { ...options, tell: () => undefined } as unknown as JobsOptions));
}

test('an event whose number is written late is told before those after it', async () => {
  let isWritten: () => void = () => undefined;
  const disk = new Promise<void>((resolve) => (isWritten = resolve));
  const jobs = jobsOn({ ...journal, append: async (...given) => disk.then(() => journal.append(...given)) });
  const openBeforeMs = env.clock.now() + 60_000;
  await jobs.accept({ lease, openBeforeMs } as Agreement);
  const over = new AbortController();
  const told: number[] = [];
  const following = (async () => {
    for await (const { sequence } of jobs.follow(lease, 0, over.signal)) told.push(sequence);
  })();
  const late = jobs.append(lease, [{ log: { stream: 1, bytes: Uint8Array.of(1), offset: 0n } }]);
  const funded = jobs.dispatch(lease, { type: 'lease-funded' });
  await env.clock.sleep(50);
  isWritten();
  await Promise.all([late, funded]);
  await expect.poll(() => told).toEqual([0, 1]);
  over.abort();
  await following;
});

test('an event that cannot be written leaves no gap before those after it', async () => {
  const full = new Error('ENOSPC: no space left on device');
  const jobs = jobsOn({ ...journal, append: () => Promise.reject(full) });
  await jobs.accept({ lease, openBeforeMs: env.clock.now() + 60_000 } as Agreement);
  const lost = jobs.append(lease, [{ log: { stream: 1, bytes: Uint8Array.of(1), offset: 0n } }]);
  const funded = jobs.dispatch(lease, { type: 'lease-funded' });
  await expect(lost).rejects.toBe(full);
  await funded;
  const kept: number[] = [];
  for await (const { sequence } of journal.events(lease, 0)) kept.push(sequence);
  expect(kept).toEqual([0]);
  expect(jobs.nextSequence(lease)).toBe(1);
});
