/**
 * Goal: the catalogue is the whole truth about errors: printed in SPEC.md, thrown everywhere, decided by code.
 * Method: both lists compared both ways, sources searched for other errors, verdicts by code.
 */
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { ERRORS, type ErrorCode, MoltError, assert, hasCode, isErrorCode, verdictOf } from '../../protocol/errors.ts';
import { fromRefusal, toRefusal } from '../../protocol/wire.ts';
import { LIMITS } from '../../protocol/limits.ts';

const ROOT = join(import.meta.dirname, '../..');
const codes = Object.keys(ERRORS) as ErrorCode[];

test('SPEC.md lists every code with its blame, retry and meaning, and no other', () => {
  const spec = readFileSync(join(ROOT, 'protocol/SPEC.md'), 'utf8');
  const section = spec.slice(spec.indexOf('\n## Errors\n'), spec.indexOf('\n## History\n'));
  const listed = [...section.matchAll(/^\| `([a-z]+\/[a-z-]+)` \| (\w+) \| (\w+) \| (.+) \|$/gm)].map(
    ([, code, blame, retry, meaning]) => [code, { blame, retry, meaning }],
  );
  expect(listed).toEqual(Object.entries(ERRORS));
});

test('sources throw no error but those of the catalogue', () => {
  const files = globSync('{protocol,market,attestation,chain,node,sdk}/**/*.ts', { cwd: ROOT });
  const bare = files.flatMap((file) => {
    const found = readFileSync(join(ROOT, file), 'utf8').match(/\bthrow new (?:Error|TypeError|RangeError)\b/g) ?? [];
    return found.map((text) => `${file}: ${text}; use MoltError with a code of protocol/errors.ts, or assert`);
  });
  expect(files.length).toBeGreaterThan(20);
  expect(bare).toEqual([]);
});

test('codes are a group and lower-case words', () => {
  for (const code of codes) expect(code).toMatch(/^[a-z]+\/[a-z]+(?:-[a-z]+)*$/);
});

test('an error tells code, blame, retry and context, also as JSON', () => {
  const error = new MoltError('market/no-capacity', 'nothing is free', { free: 0 });
  expect(JSON.parse(JSON.stringify(error))).toEqual({
    code: 'market/no-capacity',
    blame: 'nobody',
    retry: 'later',
    message: 'nothing is free',
    context: { free: 0 },
  });
  expect(hasCode(error, 'market/no-quotes', 'market/no-capacity')).toBe(true);
  expect(hasCode(error, 'market/no-quotes')).toBe(false);
  expect(hasCode(new Error('x'), 'market/no-capacity')).toBe(false);
  expect([isErrorCode('market/no-capacity'), isErrorCode('toString'), isErrorCode('')]).toEqual([true, false, false]);
});

test('a forwarder is blamed only for what it could have seen itself', () => {
  const rejected = codes.filter((code) => verdictOf(new MoltError(code, '')).verdict === 'reject');
  expect(rejected).toEqual([
    'protocol/malformed',
    'protocol/oversize',
    'protocol/not-canonical',
    'protocol/bad-signature',
    'protocol/wrong-kind',
    'protocol/wrong-network',
  ]);
});

test('a refusal travels with its code and a bounded reason, and an unknown code is a decline', () => {
  const refusal = toRefusal(new MoltError('chain/stake-too-low', 'x'.repeat(LIMITS.refusalCharacters + 1)));
  expect(refusal.reason).toHaveLength(LIMITS.refusalCharacters);
  expect(fromRefusal(refusal)).toMatchObject({ code: 'chain/stake-too-low', context: { remote: true } });
  expect(fromRefusal({ code: 'future/code', reason: 'because', enough: 0n })).toMatchObject({
    code: 'market/declined',
    message: 'because',
  });
});

test('a refusal carries the number that would have been enough, and nothing that is none', () => {
  const told = (enough: string) =>
    fromRefusal(toRefusal(new MoltError('market/price-too-low', '', { enough }))).context;
  expect(told('1110')['enough']).toBe('1110');
  for (const bad of ['0', '-1', '1.5', '1e9', 'lots', String(2n ** 64n)]) expect(told(bad)['enough']).toBeUndefined();
});

test('a broken invariant is no operating error', () => {
  expect(() => assert(false, 'two and two')).toThrow('two and two');
  expect(() => assert(false, 'two and two')).not.toThrow(MoltError);
});
