/** Goal: a job reads to its operator as it stands, with the money it cost. Method: jobs as the journal keeps them. */
import { expect, test } from 'vitest';

import { newestFirst, summarise } from '../../../node/operator/index.ts';
import type { Job } from '../../../node/provider/job.ts';
import { encodeAddress } from '../../../protocol/address.ts';
import { encodeJobSpec, parseJobSpec } from '../../../protocol/job-spec.ts';

const lease = encodeAddress(new Uint8Array(32).fill(1));
const IMAGE = 'bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e';
const spec = Buffer.from(encodeJobSpec(parseJobSpec({ runtime: 'wasm', image: IMAGE }))).toString('base64');
const agreement = {
  lease,
  delegate: encodeAddress(new Uint8Array(32).fill(2)),
  runtime: 'wasm',
  pricePerSecond: '1000',
  amount: '5000',
} as Job['agreement'];
const base: Job = { agreement, phase: 'running', phaseSinceMs: 10_000, attempt: 1, spec, startedAtMs: 10_000 };
const exit = {
  reason: 'exited',
  exitCode: 0,
  detail: '',
  startedAtMs: 10_000,
  finishedAtMs: 11_500,
  durationMs: 1_500,
  cpuMs: 1,
  memoryPeakBytes: 1,
  fuel: undefined,
};
const outcome = { proofDigest: 'aa', claimed: '1500', outputs: [] };
const failure = { code: 'job/cancelled', message: 'no more' } as const;

test('a running job is billed up to now and never beyond its lock; before the run nothing is', () => {
  const billed = (job: Job, nowMs: number): string => summarise(job, nowMs).billed;
  expect(billed(base, 12_001)).toBe('2001');
  expect(billed(base, 99_000)).toBe('5000');
  expect(billed(base, 9_000)).toBe('0');
  expect(billed({ ...base, phase: 'pulling', startedAtMs: 10_000 }, 12_000)).toBe('0');
  expect(billed({ ...base, phase: 'done', exit }, 99_000)).toBe('1500');
  expect(summarise(base, 0)).toMatchObject({
    image: IMAGE,
    standing: 'open',
    claimed: null,
    exit: null,
    failure: null,
  });
});

test('every way a job ends has its word', () => {
  const { spec: _spec, ...bare } = base;
  const closed = { phase: 'closed' } as const;
  const standing = (job: Job): string => summarise(job, 0).standing;
  expect(standing({ ...base, ...closed, exit, outcome })).toBe('settled');
  expect(standing({ ...base, ...closed, failure })).toBe('refunded');
  expect(standing({ ...bare, ...closed })).toBe('never-opened');
  expect(standing({ ...base, ...closed })).toBe('ended');
  expect(standing({ ...base, phase: 'refunding', failure })).toBe('open');
});

test('what goes on comes first, then the newest end', () => {
  const at = (phase: Job['phase'], phaseSinceMs: number): ReturnType<typeof summarise> =>
    summarise({ ...base, phase, phaseSinceMs }, 0);
  const sorted = newestFirst([at('closed', 5), at('running', 1), at('closed', 9), at('queued', 3)]);
  expect(sorted.map(({ phase, sinceMs }) => `${phase} ${sinceMs}`)).toEqual([
    'queued 3',
    'running 1',
    'closed 9',
    'closed 5',
  ]);
});
