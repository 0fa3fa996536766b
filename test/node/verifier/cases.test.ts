/** Goal: what a verifier was shown, and its vote with the salt, are there again after a crash. Method: a journal on disk. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { openJournal } from '../../../node/journal.ts';
import { Cases, summariseCases } from '../../../node/verifier/index.ts';
import { address } from '../../market/fixtures.ts';

const lease = address('lease');
const vote = { side: 'buyer', ground: 'started-late', reason: 'late', salt: new Uint8Array(32).fill(7) } as const;
const evidence = { quote: Uint8Array.of(1, 2), spec: Uint8Array.of(3), proof: Uint8Array.of(255) };

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'molt-cases-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

test('a case is read back as it was kept, and one that is over is remembered without its evidence', async () => {
  {
    await using journal = await openJournal(directory);
    const cases = await Cases.open(journal);
    await cases.keep({ lease, evidence: {}, content: [] });
    await cases.keep({ lease, evidence, content: ['cid'], vote });
    await cases.keep({ lease: address('other'), evidence: {}, content: [] });
  }
  await using journal = await openJournal(directory);
  const cases = await Cases.open(journal);
  expect(cases.get(lease)).toEqual({ lease, evidence, content: ['cid'], vote });
  expect(cases.list()).toHaveLength(2);
  expect(summariseCases(cases).find((one) => one.lease === lease)).toEqual({
    lease,
    shown: ['quote', 'spec', 'proof', 'content'],
    side: 'buyer',
    ground: 'started-late',
    reason: 'late',
  });
  const past = { lease, side: 'buyer', ground: 'started-late', reason: 'late', ending: 'x', endedAtMs: 1 } as const;
  await cases.close(past);
  const again = await Cases.open(journal);
  expect(again.get(lease)).toBeUndefined();
  expect(again.past()).toEqual([past]);
  expect(await journal.recordNames('verifier/case/')).toEqual([`verifier/case/${address('other')}`]);
});
