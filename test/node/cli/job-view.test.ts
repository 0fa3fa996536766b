/** Goal: every event of a job reaches the reader once, in order. Method: recorded events through the real renderer. */
import { describe, expect, it } from 'vitest';

import { createLineWriter, resultLine, toJson } from '../../../node/cli/job-line.ts';
import { createJobView, receipt } from '../../../node/cli/job-view.ts';
import { createLiveList } from '../../../node/cli/live-list.ts';
import { createTerminal } from '../../../node/cli/terminal.ts';
import { parseAddress } from '../../../protocol/address.ts';
import { keyPairFromSeed } from '../../../protocol/ed25519.ts';
import { systemClock } from '../../../protocol/env.ts';
import { baseUnits } from '../../../protocol/units.ts';
import { usage } from '../../attestation/fixtures.ts';
import type { JobEvent, JobResult } from '../../../sdk/progress.ts';

const address = (byte: number) => parseAddress(keyPairFromSeed(new Uint8Array(32).fill(byte)).address);
const provider = address(1);
const node = address(2);
const lease = address(3);
const price = baseUnits(1_400_000);

const wanted = {
  runtime: 'wasm',
  features: [],
  need: { cpuMillis: 1_000, memoryBytes: 2 ** 30, diskBytes: 0, gpus: [] },
  durationSecondsMax: 60,
  pricePerSecondMax: '33000000',
  stakeMin: '0',
  region: '',
} as const;

const bought: readonly JobEvent[] = [
  { type: 'mesh-joined', peers: 3 },
  { type: 'offers', count: 3, judged: [], wanted },
  { type: 'bid', bid: 'ab'.repeat(32), pricePerSecondMax: baseUnits(33_000_000), attempt: 1, asked: [] },
  { type: 'declined', node, code: 'market/no-capacity', reason: '2 cores are needed, 1 is free' },
  { type: 'quote', provider, node, pricePerSecond: price, amount: baseUnits(84_000_000), afterMs: 12 },
  {
    type: 'ranked',
    quotes: [
      {
        provider,
        node,
        pricePerSecond: price,
        score: 0.8125,
        reasons: [
          { what: 'stake', weight: 0.1, value: 1, text: 'stake covers it' },
          { what: 'price', weight: 0.5, value: 0.9, text: 'cheapest of 3' },
        ],
      },
    ],
  },
  { type: 'accepted', provider, node, pricePerSecond: price },
  { type: 'lease-opened', lease, transaction: 'open-signature', locked: baseUnits(84_000_000), afterMs: 120 },
  { type: 'phase', phase: 'fetching', detail: '', bytesDone: 1_000_000, bytesTotal: 6_000_000, attempt: 1 },
  { type: 'phase', phase: 'running', detail: '', bytesDone: 0, bytesTotal: 0, attempt: 1 },
  { type: 'log', stream: 'stdout', bytes: Buffer.from('first li'), atMs: 1 },
  { type: 'log', stream: 'stdout', bytes: Buffer.from('ne\nsecond\n'), atMs: 2 },
  { type: 'log', stream: 'stderr', bytes: Buffer.from('\u001b[31mwarning'), atMs: 3 },
  { type: 'usage', ...usage({ elapsedMs: 2_000, cpuMs: 1_900, memoryBytes: 50_000_000 }) },
  { type: 'proof-verified', proofDigest: 'cd'.repeat(32), billedMs: 2_345, cost: baseUnits(3_283_000) },
  { type: 'outputs', count: 1, sizeBytes: 12 },
  {
    type: 'settled',
    lease,
    transaction: 'settle-signature',
    paid: baseUnits(3_283_000),
    refunded: baseUnits(80_717_000),
  },
];

const result: JobResult = {
  exitCode: 0,
  reason: 'exited',
  provider,
  node,
  lease,
  outputs: [{ name: 'report.json', cid: 'bafy', sha256: 'ef'.repeat(32), sizeBytes: 12, path: 'out/report.json' }],
  stdout: '',
  stderr: '',
  billedMs: 2_345,
  cost: baseUnits(3_283_000),
  locked: baseUnits(84_000_000),
  lamports: 20_000n,
  openTransaction: 'open-signature',
  settleTransaction: 'settle-signature',
  proof: new Uint8Array(3),
  proofDigest: 'cd'.repeat(32),
  attempts: 1,
};

function render(events: readonly JobEvent[]): string[] {
  let text = '';
  const terminal = createTerminal({
    stdout: { isTTY: false, columns: 120, write: (written: string) => (text += written) },
    stderr: { write: () => undefined },
    environment: {},
  });
  using list = createLiveList(terminal, systemClock);
  const view = createJobView(terminal, list, systemClock);
  const toLine = createLineWriter();
  // Through JSON, as the demo hears it from another process.
  for (const event of events) view.event(JSON.parse(toJson(toLine(event))) as ReturnType<typeof toLine>);
  view.flush();
  return text.split('\n').slice(0, -1);
}

describe('the live list of a job', () => {
  const lines = render(bought);
  const position = (part: string): number => lines.findIndex((line) => line.includes(part));

  it('tells the steps in their order', () => {
    const steps = lines.filter((line) => line.startsWith('✔')).map((line) => line.slice(2, 18).trim());
    expect(steps).toEqual([
      'mesh joined',
      'offers seen',
      'bid sent',
      'quotes',
      'accepted',
      'lease opened',
      'prepared',
      'running',
      'proof verified',
      'settled',
    ]);
  });

  it('shows each quote with price, score and what the score is made of, the weightiest first', () => {
    const row = lines[position('0.813')] ?? '';
    expect(row).toContain('0.0014');
    expect(row).toContain('price 0.45 + stake 0.10');
    expect(lines[position('✔ accepted')]).toContain('cheapest of 3');
  });

  it('puts log lines together that arrive in parts, ends the last one, and disarms escapes', () => {
    expect(lines).toContain('  │ first line');
    expect(lines).toContain('  │ second');
    expect(lines).toContain('  │ warning');
    expect(position('│ warning')).toBeLessThan(position('✔ running'));
  });

  it('names both transactions and who declined why', () => {
    expect(position('open-signature')).toBeGreaterThan(0);
    expect(position('settle-signature')).toBeGreaterThan(0);
    expect(lines[position('declines')]).toContain('2 cores are needed');
  });

  it('says when a service is ready and when it is no longer, and why, without escapes', () => {
    const [ready, unready] = render([
      { type: 'ready', service: 'web', ready: true, reason: '' },
      { type: 'ready', service: 'web', ready: false, reason: 'GET /up answered \u001b[31m503' },
    ]);
    expect(ready).toBe('  web is ready');
    expect(unready).toMatch(/^ {2}web is not ready: GET \/up answered .*503$/);
    expect(unready).not.toContain('\u001b');
  });

  it('says that a provider failed and that the next one is tried', () => {
    const failed = render([
      { type: 'provider-silent', node, reason: 'no answer for 8 s' },
      { type: 'provider-failed', node, code: 'job/provider-lost', reason: 'gone', retrying: true },
      { type: 'lease-expired', lease, transaction: 'expire-signature', refunded: baseUnits(84_000_000) },
    ]);
    expect(failed[0]).toMatch(/^! provider silent/);
    expect(failed[1]).toMatch(/^✖ provider failed.*job\/provider-lost.*next one/);
    expect(failed[2]).toContain('0.084 MOLT back');
  });
});

describe('lines for machines', () => {
  it('carry amounts as exact decimal strings', () => {
    const huge = baseUnits(2n ** 64n - 1n);
    const line = createLineWriter()({ type: 'settled', lease, transaction: 't', paid: huge, refunded: baseUnits(0) });
    expect(line).toMatchObject({ paid: '18446744073709551615', refunded: '0' });
  });

  it('keep a character whole that two log chunks cut in half', () => {
    const bytes = Buffer.from('µ');
    const toLine = createLineWriter();
    const parts = [bytes.subarray(0, 1), bytes.subarray(1)].map((part) =>
      toLine({ type: 'log', stream: 'stdout', bytes: part, atMs: 0 }),
    );
    expect(parts.map((part) => (part.type === 'log' ? part.text : ''))).toEqual(['', 'µ']);
  });

  it('end with the result, without what was streamed before', () => {
    const line = JSON.parse(toJson(resultLine(result, 'out/proof.json'))) as Record<string, unknown>;
    expect(line).toMatchObject({ type: 'result', cost: '3283000', lamports: '20000', proofFile: 'out/proof.json' });
    expect(line).not.toHaveProperty('proof');
    expect(line).not.toHaveProperty('stdout');
  });
});

it('gives a receipt that names every replica of a job and what became of it', () => {
  const terminal = createTerminal({ stdout: { write: () => 0 }, stderr: { write: () => 0 }, environment: {} });
  const replicas = [
    { rank: 0, provider, outcome: 'agreed' },
    { rank: 1, provider, outcome: 'outvoted', code: 'proof/outvoted', reason: 'it came to something else' },
    { rank: 2, outcome: 'lost' },
    {
      rank: 3,
      provider,
      outcome: 'undecided',
      resultDigest: 'ab'.repeat(32),
      code: 'proof/no-majority',
      reason: 'all differ',
      earlier: [{ provider: node, node, lease, code: 'job/provider-lost', reason: 'it no longer answers' }],
    },
  ] as const;
  const lines = receipt(terminal, resultLine({ ...result, replicas }, 'out/proof.json'));
  const from = lines.findIndex((line) => line.startsWith('replica'));
  expect(lines.slice(from, from + 5)).toEqual([
    `replica 0     agreed: ${provider}`,
    `replica 1     outvoted: ${provider}, it came to something else`,
    'replica 2     lost: nobody',
    `replica 3     undecided: ${provider} came to ababab…abab`,
    `              before: ${node}, it no longer answers`,
  ]);
});

it('gives a receipt with who, what, how much and where', () => {
  const terminal = createTerminal({ stdout: { write: () => 0 }, stderr: { write: () => 0 }, environment: {} });
  const text = receipt(terminal, resultLine(result, 'out/proof.json')).join('\n');
  for (const part of [
    provider,
    node,
    '2.35 s',
    '0.003283 MOLT',
    '20000 lamports',
    'out/report.json',
    'ef'.repeat(32),
    'out/proof.json',
  ]) {
    expect(text).toContain(part);
  }
});
