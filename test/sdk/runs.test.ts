/** Goal: a gang or replicas are found again after a crash, once, by their own job. Method: journals on one folder, in turn. */
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { systemEnv } from '../../protocol/env.ts';
import { type NewRun, type RunJournal, type RunSeat, openRunJournal, readRuns } from '../../sdk/runs.ts';

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'molt-runs-'));
});

afterEach(() => rm(directory, { recursive: true, force: true }));

const job: NewRun = { kind: 'replicas', budget: 'budget', specDigest: 'ab'.repeat(32), size: 3, finishByMs: 5 };
const open = (): Promise<RunJournal> => openRunJournal(systemEnv(), directory);

function seat(rank: number, lease: string): RunSeat {
  return { rank, lease, provider: 'p', node: 'n', quote: 'AA==', amount: '60', openedAtMs: 1, hasJob: false };
}

test('what was opened is on disk before it is, and what became of it soon', async () => {
  {
    await using journal = await open();
    const run = journal.begin(job);
    await run.seat([seat(0, 'a'), seat(1, 'b')], 1);
    expect((await readRuns(directory))[0]?.seats.map(({ lease }) => lease)).toEqual(['a', 'b']);
    run.note('a', { hasJob: true });
    run.note('b', { outcome: 'lost', paid: '7' });
    await run.seat([seat(1, 'c')], 2);
  }
  const [kept] = await readRuns(directory);
  expect(kept).toMatchObject({ ...job, fillings: 2 });
  expect(kept?.endedAtMs).toBeUndefined();
  expect(kept?.seats).toMatchObject([
    { lease: 'a', hasJob: true },
    { lease: 'b', outcome: 'lost', paid: '7' },
    { lease: 'c', hasJob: false },
  ]);
  expect((await stat(join(directory, 'runs.json'))).mode & 0o777).toBe(0o600);
});

test('the next client takes up a run of the same job that did not end, and nothing else', async () => {
  {
    await using journal = await open();
    await journal.begin(job).seat([seat(0, 'a')], 1);
    const ended = journal.begin({ ...job, size: 5 });
    await ended.seat([seat(0, 'b')], 1);
    ended.end();
    journal.begin({ ...job, size: 7 });
    expect(journal.takeUp(job)).toBeUndefined();
  }
  await using journal = await open();
  for (const other of [{ size: 5 }, { size: 7 }, { budget: 'other' }, { specDigest: '' }, { kind: 'gang' } as const])
    expect(journal.takeUp({ ...job, ...other })).toBeUndefined();
  // By when it must be proven the run says itself.
  const found = journal.takeUp({ ...job, finishByMs: 99 });
  expect(found?.record).toMatchObject({ finishByMs: 5, seats: [{ lease: 'a' }] });
  expect(journal.takeUp(job)).toBeUndefined();
  found?.end();
});

test('a file that cannot be read is begun anew, and without a folder nothing is written', async () => {
  await writeFile(join(directory, 'runs.json'), '{"version":1,"runs":[{"id":3}]}');
  expect(await readRuns(directory)).toEqual([]);
  {
    await using journal = await open();
    await journal.begin(job).seat([seat(0, 'a')], 1);
  }
  expect(await readRuns(directory)).toHaveLength(1);
  const before = await readFile(join(directory, 'runs.json'), 'utf8');
  await using journal = await openRunJournal(systemEnv(), undefined);
  await journal.begin(job).seat([seat(0, 'b')], 1);
  expect(await readFile(join(directory, 'runs.json'), 'utf8')).toBe(before);
});

test('a run whose leases cannot be kept is refused before they are opened', async () => {
  await using journal = await openRunJournal(systemEnv(), join(directory, 'missing'));
  await expect(journal.begin(job).seat([seat(0, 'a')], 1)).rejects.toMatchObject({ code: 'node/journal-corrupt' });
});

test('only the last runs are kept', async () => {
  await using journal = await open();
  for (let count = 0; count < 40; count++) await journal.begin({ ...job, finishByMs: count }).seat([seat(0, 'a')], 1);
  const kept = await readRuns(directory);
  expect(kept).toHaveLength(32);
  expect(kept.at(-1)?.finishByMs).toBe(39);
});
