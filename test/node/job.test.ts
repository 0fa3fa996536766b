/** Goal: whatever happens to a job, it ends, with its capacity released once and its money on one of the chain's ways. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import {
  ATTEMPTS_MAX,
  type Agreement,
  type Effect,
  type Exit,
  type Input,
  type Job,
  PHASES,
  SETTLE_PATIENCE_MS,
  acceptJob,
  decide,
  inputsOf,
} from '../../node/provider/job.ts';
import { encodeAddress } from '../../protocol/address.ts';
import { JOB_PHASES } from '../../protocol/job.ts';

const address = encodeAddress(new Uint8Array(32).fill(1));
const agreement: Agreement = {
  lease: address,
  quoteId: 'q',
  budget: address,
  provider: address,
  operator: address,
  delegate: address,
  buyerAddresses: [],
  specDigest: '',
  termsDigest: '',
  amount: '100',
  pricePerSecond: '1',
  reserve: '10',
  openBeforeMs: 30_000,
  finishByMs: 200_000,
  graceMs: 10_000,
  windowMs: 10_000,
  need: { cpuMillis: 1, memoryBytes: 1, diskBytes: 1, gpus: [] },
  runtime: 'wasm',
  durationSecondsMax: 60,
};
const exit: Exit = {
  reason: 'exited',
  exitCode: 0,
  detail: '',
  startedAtMs: 0,
  finishedAtMs: 1,
  durationMs: 1,
  cpuMs: 1,
  memoryPeakBytes: 1,
  fuel: undefined,
};
const outcome = { proofDigest: 'd', claimed: '1', outputs: [] };
const failure = { code: 'job/disk-full' as const, message: 'full' };

/** Applies inputs one after the other and collects all effects. */
function play(
  inputs: readonly Input[],
  from: Job = acceptJob(agreement, 0).job,
  startMs = 0,
): { job: Job; effects: string[] } {
  let job = from;
  const effects: string[] = [];
  for (const input of inputs) {
    const decision = decide(job, input, startMs);
    job = decision.job;
    effects.push(...decision.effects.map((effect: Effect) => effect.type));
  }
  return { job, effects };
}

const spec: Input = { type: 'spec', spec: 'AA==', hasSecrets: false };
const toRunning: readonly Input[] = [
  { type: 'lease-funded' },
  spec,
  { type: 'fetched', attempt: 1, inputs: {} },
  { type: 'prepared', attempt: 1 },
  { type: 'started', attempt: 1, startedAtMs: 5 },
];

test('the way of a good job: fetch, prepare, start, collect; its capacity is free before the chain has closed its lease', () => {
  const { job, effects } = play([
    ...toRunning,
    { type: 'exited', attempt: 1, exit },
    { type: 'collected', attempt: 1, outcome },
    { type: 'lease-closed' },
  ]);
  expect(job.phase).toBe('closed');
  expect(effects.filter((effect) => effect !== 'tell-phase')).toEqual([
    'fetch',
    'prepare',
    'start',
    'collect',
    'release',
    'stop',
    'tell-closed',
  ]);
});

describe('a job whose own phase fails before the run', () => {
  test.each(['fetching', 'pulling', 'starting'] as const)('is refunded from %s', (phase) => {
    const steps = toRunning.slice(0, { fetching: 2, pulling: 3, starting: 4 }[phase]);
    const { job, effects } = play([...steps, { type: 'failed', attempt: 1, failure }]);
    expect(job).toMatchObject({ phase: 'refunding', failure });
    expect(effects).toContain('refund');
    expect(effects).toContain('tell-failure');
  });

  test('results of an earlier attempt change nothing', () => {
    const { job } = play([{ type: 'lease-funded' }, spec, { type: 'restarted', adopted: false }]);
    expect(job).toMatchObject({ phase: 'fetching', attempt: 2 });
    expect(decide(job, { type: 'failed', attempt: 1, failure }, 0)).toEqual({ job, effects: [] });
    expect(decide(job, { type: 'fetched', attempt: 1, inputs: {} }, 0)).toEqual({ job, effects: [] });
  });

  test('a phase that misses its deadline is a failure with the name of the phase', () => {
    const { job } = play([{ type: 'lease-funded' }]);
    const late = decide(job, { type: 'tick' }, JOB_PHASES.queued.deadlineMs);
    expect(late.job).toMatchObject({
      phase: 'refunding',
      failure: { code: 'job/phase-timed-out', message: expect.stringContaining('"queued"') },
    });
  });
});

describe('a node that restarts', () => {
  test('goes on with a run that outlived it', () => {
    const { job, effects } = play([...toRunning, { type: 'restarted', adopted: true }]);
    expect(job).toMatchObject({ phase: 'running', attempt: 1 });
    expect(effects.at(-1)).toBe('adopt');
  });

  test('runs a lost job again, but not for ever', () => {
    let { job } = play(toRunning);
    for (let attempt = 2; attempt <= ATTEMPTS_MAX; attempt++) {
      job = decide(job, { type: 'restarted', adopted: false }, 0).job;
      expect(job).toMatchObject({ phase: 'fetching', attempt });
    }
    expect(decide(job, { type: 'restarted', adopted: false }, 0).job).toMatchObject({
      phase: 'refunding',
      failure: { code: 'job/interrupted' },
    });
  });

  test('gives the money back when the time left is too short, or the secrets are gone', () => {
    const { job } = play(toRunning);
    const lateMs = agreement.finishByMs + agreement.graceMs - agreement.durationSecondsMax * 1000 + 1;
    expect(decide(job, { type: 'restarted', adopted: false }, lateMs).job.failure?.message).toContain(
      'the time left is too short',
    );
    const secret = play([{ type: 'lease-funded' }, { ...spec, hasSecrets: true }]).job;
    expect(decide(secret, { type: 'restarted', adopted: false }, 0).job.failure?.message).toContain('secrets');
  });

  test('collects again what it had not proven', () => {
    const { effects } = play([
      ...toRunning,
      { type: 'exited', attempt: 1, exit },
      { type: 'restarted', adopted: false },
    ]);
    expect(effects.at(-1)).toBe('collect');
  });
});

describe('a proven job', () => {
  const proven = play([
    ...toRunning,
    { type: 'exited', attempt: 1, exit },
    { type: 'collected', attempt: 1, outcome },
  ]).job;

  test('waits for the buyer before it claims on chain alone', () => {
    expect(decide(proven, { type: 'tick' }, SETTLE_PATIENCE_MS - 1).effects).toEqual([]);
    expect(decide(proven, { type: 'tick' }, SETTLE_PATIENCE_MS).effects).toEqual([{ type: 'claim' }]);
  });

  test('settles by itself after its claim, trying now and then', () => {
    const claimed = decide(proven, { type: 'claim-confirmed' }, 10_000).job;
    const first = decide(claimed, { type: 'tick' }, 10_000);
    expect(first.effects).toEqual([{ type: 'settle-lapsed' }]);
    expect(decide(first.job, { type: 'tick' }, 10_001).effects).toEqual([]);
  });
});

test('a cancelled run is stopped and billed; before the run it is refunded', () => {
  expect(play([...toRunning, { type: 'cancel' }])).toMatchObject({
    job: { phase: 'running', cancelled: true },
    effects: expect.arrayContaining(['stop']),
  });
  expect(play([{ type: 'lease-funded' }, { type: 'cancel' }]).job).toMatchObject({
    phase: 'refunding',
    failure: { code: 'job/cancelled' },
  });
});

describe('a buyer that lets go before the lease is on chain', () => {
  const [release] = play([{ type: 'cancel' }]).effects;
  const { job } = play([{ type: 'cancel' }]);

  test('frees the capacity at once, and again is not twice', () => {
    expect(release).toBe('release');
    expect(decide(job, { type: 'cancel' }, 1).effects).toEqual([]);
    expect(play([{ type: 'lease-missing' }], job)).toMatchObject({ job: { phase: 'closed' } });
    expect(play([{ type: 'lease-missing' }], job).effects).not.toContain('release');
  });

  test('has its money back at once if it opens the lease all the same', () => {
    const opened = play([{ type: 'lease-funded' }], job);
    expect(opened.job).toMatchObject({ phase: 'refunding', failure: { code: 'job/cancelled' } });
    expect(opened.effects).toContain('refund');
    expect(play([spec, { type: 'lease-closed' }], opened.job).effects).not.toContain('release');
  });
});

test('every phase but the last has a way out, and every phase that holds a lease hears of its end', () => {
  for (const phase of PHASES) {
    if (phase === 'closed') expect(inputsOf(phase)).toEqual([]);
    else if (phase === 'accepted') expect(inputsOf(phase)).toContain('lease-missing');
    else expect(inputsOf(phase)).toContain('lease-closed');
  }
});

test('any history: one release when nothing runs any more, nothing after the end, and the end of the lease always ends the job', () => {
  const attempt = fc.integer({ min: 1, max: 3 });
  const input: fc.Arbitrary<Input> = fc.oneof(
    fc.constantFrom<Input>(
      { type: 'lease-funded' },
      { type: 'lease-missing' },
      spec,
      { type: 'cancel' },
      { type: 'tick' },
      { type: 'claim-confirmed' },
      { type: 'lease-closed' },
    ),
    attempt.map((n): Input => ({ type: 'fetched', attempt: n, inputs: {} })),
    attempt.map((n): Input => ({ type: 'prepared', attempt: n })),
    attempt.map((n): Input => ({ type: 'started', attempt: n, startedAtMs: 1 })),
    attempt.map((n): Input => ({ type: 'exited', attempt: n, exit })),
    attempt.map((n): Input => ({ type: 'collected', attempt: n, outcome })),
    attempt.map((n): Input => ({ type: 'failed', attempt: n, failure })),
    fc.boolean().map((adopted): Input => ({ type: 'restarted', adopted })),
  );
  fc.assert(
    fc.property(fc.array(fc.tuple(input, fc.nat(90_000)), { maxLength: 40 }), (steps) => {
      let { job } = acceptJob(agreement, 0);
      let nowMs = 0;
      let releases = 0;
      let claims = 0;
      for (const [step, waitMs] of steps) {
        nowMs += waitMs;
        const wasClosed = job.phase === 'closed';
        const decision = decide(job, step, nowMs);
        if (wasClosed) expect(decision).toEqual({ job, effects: [] });
        job = decision.job;
        for (const effect of decision.effects) {
          if (effect.type === 'release') releases++;
          if (effect.type === 'claim') {
            claims++;
            // Nothing is claimed before there is a proof to claim with.
            expect(job.outcome).toBeDefined();
          }
          if (effect.type === 'refund') expect(job.outcome).toBeUndefined();
        }
        expect(job.attempt).toBeLessThanOrEqual(ATTEMPTS_MAX);
      }
      // Once, and as soon as nothing of it runs or will run.
      const isOver = ['done', 'claimed', 'refunding', 'closed'].includes(job.phase);
      const isLetGo = job.phase === 'accepted' && job.cancelled === true;
      expect(releases).toBe(isOver || isLetGo ? 1 : 0);
      expect(claims).toBeGreaterThanOrEqual(0);
      if (job.phase !== 'closed' && job.phase !== 'accepted') {
        expect(decide(job, { type: 'lease-closed' }, nowMs).job.phase).toBe('closed');
      }
    }),
    { numRuns: 1_000 },
  );
});

test('a job that has not begun when its quote promised gives the money back, and one that began goes on', () => {
  const promised = { ...agreement, startByMs: 1_050_000 };
  const from = acceptJob(promised, 1_000_000).job;
  const late = { phase: 'refunding', failure: { code: 'job/started-late' } };
  const fetching = play([{ type: 'lease-funded' }, spec], from, 1_000_000).job;
  expect(decide(fetching, { type: 'tick' }, 1_050_000).job.phase).toBe('fetching');
  expect(decide(fetching, { type: 'tick' }, 1_050_001).job).toMatchObject(late);
  const queued = play([{ type: 'lease-funded' }], from, 1_000_000).job;
  expect(decide(queued, { type: 'tick' }, 1_050_001).job).toMatchObject(late);
  const running = play(toRunning, from, 1_000_000).job;
  expect(decide(running, { type: 'tick' }, 1_050_001).job.phase).toBe('running');
});

test('a start that came too late between two looks, and one that a restart would make late, give the money back', () => {
  const promised = { ...agreement, startByMs: 1_050_000 };
  const from = acceptJob(promised, 1_000_000).job;
  const starting = play(toRunning.slice(0, -1), from, 1_049_000).job;
  expect(starting.phase).toBe('starting');
  const started = decide(starting, { type: 'started', attempt: 1, startedAtMs: 1_050_001 }, 1_050_100);
  expect(started.job).toMatchObject({ phase: 'refunding', failure: { code: 'job/started-late' } });
  expect(started.effects.map(({ type }) => type)).toContain('stop');
  const inTime = decide(starting, { type: 'started', attempt: 1, startedAtMs: 1_050_000 }, 1_050_100).job;
  expect(inTime.phase).toBe('running');
  const restarted = decide(inTime, { type: 'restarted', adopted: false }, 1_060_000).job;
  expect(restarted).toMatchObject({ phase: 'refunding', failure: { code: 'job/started-late' } });
});

test('a job that has not begun when it was to be finished gives the money back; one that runs goes on', () => {
  const promised = { ...agreement, acceptedAtMs: 1_000_000 };
  const lateMs = 1_000_000 + (promised.finishByMs - promised.openBeforeMs) + 30_000;
  const fetching = play([{ type: 'lease-funded' }, spec], acceptJob(promised, 1_000_000).job, lateMs - 1).job;
  expect(decide(fetching, { type: 'tick' }, lateMs - 1).job.phase).toBe('fetching');
  expect(decide(fetching, { type: 'tick' }, lateMs).job).toMatchObject({
    phase: 'refunding',
    failure: { code: 'job/phase-timed-out', message: expect.stringContaining('over before it began') },
  });
  const running = play(toRunning, acceptJob(promised, 1_000_000).job, lateMs - 1).job;
  expect(decide(running, { type: 'tick' }, lateMs).job.phase).toBe('running');
  const collecting = decide(running, { type: 'exited', attempt: 1, exit }, lateMs - 1).job;
  expect(decide(collecting, { type: 'tick' }, lateMs).job.phase).toBe('collecting');
});
