/** Goal: `molt logs` prints whole lines of the right job and stream. Method: pieces of output as a provider keeps them. */
import { expect, test } from 'vitest';

import { createLogPrinter, findJob } from '../../../node/cli/logs.ts';
import { createTerminal } from '../../../node/cli/terminal.ts';
import { type Address, encodeAddress } from '../../../protocol/address.ts';
import type { LogRecord } from '../../../protocol/job-log.ts';

const lease = encodeAddress(new Uint8Array(32).fill(7));
const BOTH = new Set(['stdout', 'stderr'] as const);

function piece(sequence: number, bytes: Uint8Array | string, more: Partial<LogRecord> = {}): LogRecord {
  const place = { atMs: 1_700_000_000_000 + sequence, attempt: 1, stream: 'stdout', offset: 0 } as const;
  return { sequence, ...place, bytes: typeof bytes === 'string' ? Buffer.from(bytes) : bytes, ...more };
}

function printed(
  pieces: readonly LogRecord[],
  options: { json?: boolean; isTTY?: boolean; timestamps?: boolean; streams?: ReadonlySet<LogRecord['stream']> } = {},
): { out: string; err: string } {
  const said = { out: '', err: '' };
  const stdout = { isTTY: options.isTTY ?? false, write: (text: string) => (said.out += text) };
  const stderr = { write: (text: string) => (said.err += text) };
  const terminal = createTerminal({ stdout, stderr, environment: { NO_COLOR: '1' } });
  const { json = false, streams = BOTH, timestamps = false } = options;
  const printer = createLogPrinter({ json, terminal }, { streams, timestamps });
  for (const one of pieces) printer.print(lease, one);
  printer.flush();
  return said;
}

test('lines and characters that pieces cut in two are whole again, each stream by itself', () => {
  const euro = Buffer.from('5 €\n');
  const pieces = [
    piece(0, 'on'),
    piece(1, 'warn', { stream: 'stderr' }),
    piece(2, 'e\r\ntwo\nthr'),
    piece(3, 'ing\n', { stream: 'stderr' }),
    piece(4, 'ee\n'),
    piece(5, euro.subarray(0, 3)),
    piece(6, euro.subarray(3)),
    piece(7, 'no end'),
  ];
  expect(printed(pieces)).toEqual({ out: 'one\ntwo\nthree\n5 €\nno end\n', err: 'warning\n' });
  expect(printed(pieces, { streams: new Set(['stderr']) })).toEqual({ out: '', err: 'warning\n' });
});

test('a time stamp names the piece that its line began in', () => {
  const { out } = printed([piece(3, 'a\nb'), piece(4, 'b\n'), piece(5, 'c\n')], { timestamps: true });
  expect(out.split('\n').map((line) => line.split(' ').slice(1).join(' '))).toEqual([
    '3 stdout a',
    '3 stdout bb',
    '5 stdout c',
    '',
  ]);
  expect(out.startsWith('2023-11-14T22:13:20.003Z ')).toBe(true);
});

test('what a stranger prints cannot drive the screen, and reaches a pipe unchanged', () => {
  const nasty = piece(0, 'a\u001b[2Jb\u0007\n');
  expect(printed([nasty], { isTTY: true }).out).toBe('ab\n');
  expect(printed([nasty]).out).toBe('a\u001b[2Jb\u0007\n');
});

test('a new attempt does not continue the line of the one before', () => {
  expect(printed([piece(0, 'half'), piece(1, 'new\n', { attempt: 2 })]).out).toBe('half\nnew\n');
});

test('as JSON every piece is one line with its place', () => {
  const lines = printed([piece(8, 'a\nb', { offset: 100 })], { json: true })
    .out.trim()
    .split('\n');
  expect(lines.map((line) => JSON.parse(line))).toEqual([
    { lease, sequence: 8, atMs: 1_700_000_000_008, attempt: 1, offset: 100, stream: 'stdout', text: 'a\nb' },
  ]);
});

test('a job is found by any unique beginning', () => {
  const leases = ['AAbb', 'AAcc', 'Bd'] as unknown as Address[];
  expect(findJob(leases, 'AAb')).toBe('AAbb');
  expect(findJob(leases, 'B…')).toBe('Bd');
  expect(findJob(leases, 'x')).toBeUndefined();
  expect(findJob(leases, '')).toBeUndefined();
  expect(() => findJob(leases, 'AA')).toThrow('AAbb, AAcc');
});
