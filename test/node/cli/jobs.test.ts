/** Goal: who bought a gang, or replicas, sees one job with its leases below. Method: leases and runs by hand. */
import { expect, test } from 'vitest';

import { type Bought, boughtLines, inRuns } from '../../../node/cli/jobs.ts';
import { createTerminal } from '../../../node/cli/terminal.ts';
import type { RunRecord } from '../../../sdk/index.ts';
import { address } from '../../market/fixtures.ts';

const terminal = createTerminal({ stdout: { write: () => 0 }, stderr: { write: () => 0 }, environment: {} });
const molt = (amount: number): bigint => BigInt(amount * 10 ** 9);

function job(name: string, changes: Partial<Bought> = {}): Bought {
  const [lease, provider] = [address(name), address(`provider of ${name}`)];
  return { lease, standing: 'settledTogether', provider, atMs: 1_000, locked: null, paid: molt(0.01), ...changes };
}

function run(id: string, kind: RunRecord['kind'], leases: readonly (readonly [number, string])[]): RunRecord {
  const seats = leases.map(([rank, name]) => ({
    rank,
    lease: address(name),
    provider: address('p'),
    node: address('n'),
    quote: '',
    amount: '1',
    openedAtMs: 1,
    hasJob: true,
  }));
  const wanted = { budget: address('budget'), specDigest: '', size: 2, finishByMs: 0 };
  return { id, kind, ...wanted, startedAtMs: 1, fillings: 1, seats };
}

test('leases of one run are one job, with what all of them cost, by rank, one that was replaced before its successor', () => {
  const jobs = [
    job('second', { standing: 'running', locked: molt(0.06), paid: 0n }),
    job('alone'),
    job('lost', { standing: 'cancelledByDelegate', paid: molt(0.001) }),
    job('first'),
  ];
  const runs = [
    run('ab', 'replicas', [
      [0, 'first'],
      [1, 'lost'],
      [1, 'second'],
    ]),
  ];
  const bought = inRuns(jobs, runs);
  expect(bought.map(({ run: of }) => of?.rank)).toEqual([0, 1, 1, undefined]);
  const lines = boughtLines(terminal, bought, { nowMs: 3_000, all: true });
  expect(lines.map((line) => line.trim().split(/ {2,}/))).toEqual([
    ['job', 'standing', 'opened or ended', 'provider', 'locked', 'paid'],
    ['2 replicas', '1 settled together, 1 cancelled by delegate, 1 running', '2.00 s ago', '0.06 MOLT', '0.011 MOLT'],
    ['0', short('first'), 'settled together', '2.00 s ago', of('first'), '0.01 MOLT'],
    ['1', short('lost'), 'cancelled by delegate', '2.00 s ago', of('lost'), '0.001 MOLT'],
    ['1', short('second'), 'running', '2.00 s ago', of('second'), '0.06 MOLT', '0 MOLT'],
    [short('alone'), 'settled together', '2.00 s ago', of('alone'), '0.01 MOLT'],
  ]);
});

const short = (name: string): string => `${address(name).slice(0, 8)}…`;
const of = (name: string): string => short(`provider of ${name}`);
