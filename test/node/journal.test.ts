/** Goal: what was journaled is there after any end of the process, and events resume "from n". Method: the real database. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { openJournal } from '../../node/journal.ts';
import type { Job } from '../../node/provider/job.ts';
import { type Address, encodeAddress } from '../../protocol/address.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'molt-journal-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const lease = encodeAddress(new Uint8Array(32).fill(3));
const other = encodeAddress(new Uint8Array(32).fill(4));
const job = (of: Address, phase: Job['phase'] = 'queued'): Job => ({
  agreement: { lease: of } as Job['agreement'],
  phase,
  phaseSinceMs: 1,
  attempt: 1,
});
const event = (sequence: number, text: string) => ({ sequence, bytes: new Uint8Array(Buffer.from(text)) });

async function texts(events: AsyncIterable<{ sequence: number; bytes: Uint8Array }>): Promise<string[]> {
  const read: string[] = [];
  for await (const one of events) read.push(`${one.sequence} ${Buffer.from(one.bytes).toString()}`);
  return read;
}

test('jobs and their events survive a close without ceremony', async () => {
  {
    await using journal = await openJournal(directory);
    await journal.commit(job(lease), [event(0, 'a'), event(1, 'b')]);
    await journal.append(lease, [event(2, 'c')]);
    await journal.commit(job(other, 'running'), [event(0, 'z')]);
    await journal.setCounter('sequence', 42);
  }
  await using journal = await openJournal(directory);
  expect((await journal.jobs()).map((one) => one.phase).sort()).toEqual(['queued', 'running']);
  expect(await texts(journal.events(lease, 0))).toEqual(['0 a', '1 b', '2 c']);
  expect(await texts(journal.events(lease, 2))).toEqual(['2 c']);
  expect(await texts(journal.events(lease, 3))).toEqual([]);
  expect(await journal.nextSequence(lease)).toBe(3);
  expect(await journal.nextSequence(encodeAddress(new Uint8Array(32).fill(9)))).toBe(0);
  expect(await journal.counter('sequence')).toBe(42);
  expect(await journal.counter('never set')).toBe(0);
});

test('events come in the order of their numbers, also past ten and a thousand', async () => {
  await using journal = await openJournal(directory);
  const numbers = [999, 1_000, 9, 10, 11, 2];
  await journal.append(
    lease,
    numbers.map((number) => event(number, 'x')),
  );
  expect(await texts(journal.events(lease, 0))).toEqual(['2 x', '9 x', '10 x', '11 x', '999 x', '1000 x']);
});

test('a second process is refused with who to stop', async () => {
  await using _first = await openJournal(directory);
  await expect(openJournal(directory)).rejects.toMatchObject({
    code: 'node/already-running',
    message: expect.stringContaining('--home'),
  });
});

test('a forgotten job is gone with its events, and no other', async () => {
  await using journal = await openJournal(directory);
  await journal.commit(job(lease), [event(0, 'a')]);
  await journal.commit(job(other), [event(0, 'b')]);
  await journal.forget(lease);
  expect(await texts(journal.events(lease, 0))).toEqual([]);
  expect((await journal.jobs()).map((one) => one.agreement.lease)).toEqual([other]);
  expect(await texts(journal.events(other, 0))).toEqual(['0 b']);
});

test('of several writes of one name the last stands, also those that nobody waited for before the end', async () => {
  {
    await using journal = await openJournal(directory);
    for (let count = 1; count <= 1_000; count++) {
      void journal.setRecord('sales', Buffer.from(String(count)));
      if (count % 100 === 0) void journal.keepRecord('vote', Buffer.from(String(count)));
      if (count % 100 === 0) void journal.setCounter('sequence', count);
    }
  }
  await using journal = await openJournal(directory);
  expect(Buffer.from((await journal.record('sales')) ?? []).toString()).toBe('1000');
  expect(Buffer.from((await journal.record('vote')) ?? []).toString()).toBe('1000');
  expect(await journal.counter('sequence')).toBe(1_000);
});
