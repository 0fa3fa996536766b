/**
 * Goal: what a buyer kept of its bids is shown whole and chosen by a beginning, and a damaged record costs nothing else.
 * Method: records written by the journal, read back by the command, its lines word by word.
 */
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import type { BidRecord } from '../../../market/index.ts';
import { bidLines, chooseBid, shortExplanation } from '../../../node/cli/explain.ts';
import { createTerminal } from '../../../node/cli/terminal.ts';
import { parseAddress } from '../../../protocol/address.ts';
import { keyPairFromSeed } from '../../../protocol/ed25519.ts';
import { openBuyerJournal, readBids } from '../../../sdk/journal.ts';
import { explainBid } from '../../../sdk/index.ts';

const node = parseAddress(keyPairFromSeed(new Uint8Array(32).fill(2)).address);
const terminal = createTerminal({ stdout: { write: () => 0 }, stderr: { write: () => 0 }, environment: {} });

const record: BidRecord = {
  bid: 'ab'.repeat(32),
  atMs: 1_000,
  attempt: 2,
  wanted: {
    runtime: 'container',
    features: ['egress'],
    need: {
      cpuMillis: 2_000,
      memoryBytes: 2_000_000_000,
      diskBytes: 0,
      gpus: [{ count: 1, vramBytes: 0, model: '', computeCapability: 0 }],
    },
    durationSecondsMax: 60,
    pricePerSecondMax: '1000000',
    stakeMin: '5000000000',
    region: 'eu',
  },
  offersHeard: 70,
  offers: [{ node, provider: node, pricePerSecond: '900000', obstacles: [], failedBefore: false }],
  asked: [node],
  answers: [
    { node, refused: { code: 'market/price-too-low', reason: 'the price\u001b[2J is higher', enough: '2000000' } },
  ],
  ranked: [],
  failures: [],
  outcome: { type: 'failed', code: 'market/price-too-low', reason: 'no provider takes this job now' },
};

let directory = '';
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'molt-explain-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

test('a bid is shown with what was wanted, what would have matched, and every provider, and no escape gets through', () => {
  expect(bidLines(terminal, { record, explanation: explainBid(record), nowMs: 4_000 })).toEqual([
    'bid abababab, 3.00 s ago, attempt 2: container, 2 cores, 2.0 GB of memory, 1 GPU, egress, in eu, up to 60 s, at most 0.001 MOLT/s, from 5 MOLT of stake',
    '70 offers heard, 1 asked, 0 quotes: no match (market/price-too-low)',
    '  no provider takes this job now',
    '',
    'what would have matched',
    '  0.002 MOLT/s (0.12 MOLT for the job) instead of 0.001 MOLT/s would have got a quote from 1 provider',
    '',
    'providers',
    `  ${node.slice(0, 8)}  declined: the price is higher (market/price-too-low)`,
    '  and 69 more offers, further from what was wanted',
  ]);
});

test('the short form has the sentence, the first changes, and where to read on', () => {
  expect(shortExplanation(explainBid(record))).toEqual([
    '70 offers heard, 1 asked, 0 quotes: no match (market/price-too-low)',
    '  0.002 MOLT/s (0.12 MOLT for the job) instead of 0.001 MOLT/s would have got a quote from 1 provider',
    '  every offer and answer: npm run molt -- explain',
  ]);
});

test('a bid is chosen by a unique beginning of its id; without one the last is meant', () => {
  const other = { ...record, bid: 'cd'.repeat(32) };
  expect(chooseBid([record, other], undefined)).toBe(other);
  expect(chooseBid([record, other], 'ABA')).toBe(record);
  const failing = (bids: readonly BidRecord[], wanted?: string) => () => chooseBid(bids, wanted);
  expect(failing([record, other], '9')).toThrow('no kept bid begins with "9"; kept are abababab, cdcdcdcd');
  expect(failing([record, { ...record, bid: 'ac'.repeat(32) }], 'a')).toThrow('2 kept bids begin with "a"');
  expect(failing([])).toThrow('no bid of this home is known');
});

test('bids outlive the client, the oldest of many are dropped, and nobody else can read them', async () => {
  const trouble: unknown[] = [];
  {
    await using journal = await openBuyerJournal(directory, (error) => trouble.push(error));
    for (let index = 0; index < 40; index++) journal.keepBid({ ...record, atMs: index });
    expect(journal.bids).toHaveLength(32);
  }
  const kept = await readBids(directory);
  expect(kept.map(({ atMs }) => atMs)).toEqual(Array.from({ length: 32 }, (_, index) => index + 8));
  expect(kept[0]).toEqual({ ...record, atMs: 8 });
  expect((await stat(join(directory, 'bids.json'))).mode & 0o777).toBe(0o600);
  expect(trouble).toEqual([]);
});

test('records that cannot be read are begun anew', async () => {
  await writeFile(join(directory, 'bids.json'), '{"version": 1, "bids": [');
  expect(await readBids(directory)).toEqual([]);
  {
    await using journal = await openBuyerJournal(directory, () => undefined);
    journal.keepBid(record);
  }
  expect(JSON.parse(await readFile(join(directory, 'bids.json'), 'utf8'))).toMatchObject({ version: 1 });
  expect(await readBids(directory)).toHaveLength(1);
});
