/** Goal: SPEC.md says what the code does. Method: its tables made anew are those that are committed. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { PREDICATE_TYPE } from '../../attestation/index.ts';
import { renderSpec } from '../../scripts/spec.ts';

const spec = readFileSync(join(import.meta.dirname, '../../protocol/SPEC.md'), 'utf8');

test('the tables are those that the code gives: otherwise run `node scripts/spec.ts`', () => {
  expect(renderSpec(spec)).toBe(spec);
});

test('a table that the code does not know, or that has no place, is noticed', () => {
  expect(() => renderSpec(spec.replace('table: kinds', 'table: sorts'))).toThrow('SPEC.md asks for a table "sorts"');
  expect(() => renderSpec(spec.replace('<!-- table: kinds -->', ''))).toThrow('SPEC.md has no place for: kinds');
});

test('a changed cell is noticed', () => {
  const changed = spec.replace('| offer | 1 | 512 |', '| offer | 1 | 513 |');
  expect(changed).not.toBe(spec);
  expect(renderSpec(changed)).toBe(spec);
});

test('names that the words repeat are those of the code', () => {
  expect(spec).toContain(`\`${PREDICATE_TYPE}\``);
});
