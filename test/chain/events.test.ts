/** Events from logs: every kind is read back, and nobody else's data is taken for ours. */
import { expect, test } from 'vitest';

import { readEvents } from '../../chain/index.ts';
import { EVENTS, layoutSize, type Field } from '../../chain/layout.ts';
import { LOCAL_PROGRAM_ID } from '../../chain/instructions.ts';
import { randomKey } from './local-chain.ts';

type Kind = keyof typeof EVENTS;
const KINDS = Object.keys(EVENTS) as Kind[];

/** Bytes of an event whose every byte behind the tag is 1. */
function blob(kind: Kind): string {
  const layout: { readonly tag: number; readonly fields: readonly Field[] } = EVENTS[kind];
  const bytes = Buffer.alloc(layoutSize(layout.fields), 1);
  bytes[0] = layout.tag;
  return bytes.toString('base64');
}

test('no two kinds of events can be confused', () => {
  const shapes = KINDS.map((kind) => EVENTS[kind].tag);
  expect(new Set(shapes).size).toBe(KINDS.length);
});

test.each(KINDS)('%s is read with all its fields', (kind) => {
  const logs = [
    `Program ${LOCAL_PROGRAM_ID} invoke [1]`,
    `Program data: ${blob(kind)}`,
    `Program ${LOCAL_PROGRAM_ID} consumed 1 of 200000 compute units`,
    `Program ${LOCAL_PROGRAM_ID} success`,
  ];
  const [event, ...rest] = readEvents(LOCAL_PROGRAM_ID, logs);
  expect(rest).toEqual([]);
  expect(event?.event).toBe(kind);
  const fields = EVENTS[kind].fields as readonly Field[];
  const named = fields.map(([name]) => name).filter((name) => name !== 'tag' && !name.startsWith('spare'));
  expect(Object.keys(event ?? {}).sort()).toEqual(['event', ...named].sort());
});

test('data of other programs, before, inside and after ours, is not ours', () => {
  const other = randomKey().address;
  const data = `Program data: ${blob('leaseEnded')}`;
  const logs = [
    `Program ${other} invoke [1]`,
    data,
    `Program ${other} success`,
    `Program ${LOCAL_PROGRAM_ID} invoke [1]`,
    `Program ${other} invoke [2]`,
    data,
    `Program log: Program ${LOCAL_PROGRAM_ID} invoke [3]`,
    data,
    `Program ${other} failed: custom program error: 0x1`,
    data,
    `Program ${LOCAL_PROGRAM_ID} success`,
    data,
    'Log truncated',
  ];
  expect(readEvents(LOCAL_PROGRAM_ID, logs)).toHaveLength(1);
  expect(readEvents(other, logs)).toHaveLength(3);
  expect(readEvents(LOCAL_PROGRAM_ID, ['Program data:', 'Program', '', `Program data: ${blob('leaseEnded')}`])).toEqual(
    [],
  );
});
