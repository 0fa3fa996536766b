/** Goal: patterns of outputs mean what SPEC says, and no pattern takes long. Method: examples, and a property against a slow twin. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { isOutputPattern, matchesOutputPattern } from '../../protocol/output-pattern.ts';

describe('a pattern of outputs', () => {
  it.each([
    ['*.csv', 'a.csv', true],
    ['*.csv', '.csv', true],
    ['*.csv', 'd/a.csv', false],
    ['results/*.csv', 'results/a.csv', true],
    ['results/*.csv', 'results/a.csv.gz', false],
    ['results/*.csv', 'results/d/a.csv', false],
    ['results/?.csv', 'results/ü.csv', true],
    ['results/?.csv', 'results/ab.csv', false],
    ['**/*.csv', 'a.csv', true],
    ['**/*.csv', 'd/e/f/a.csv', true],
    ['d/**', 'd/e/f', true],
    ['d/**', 'e/f', false],
    ['d/**/x/*', 'd/x/a', true],
    ['d/**/x/*', 'd/1/x/2/x/a', true],
    ['d/**/x/*', 'd/1/x/2/a', false],
    ['a*b*c', 'a1b2bc', true],
    ['a*b*c', 'a1b2', false],
    ['[a].csv', 'a.csv', false],
    ['a.csv', 'aXcsv', false],
  ])('%s matches %s: %s', (pattern, path, expected) => {
    expect(matchesOutputPattern(pattern, path)).toBe(expected);
  });

  it('is a path with a star or a question mark', () => {
    expect(['a/b', 'a*', '**', 'a?', '[a]'].map(isOutputPattern)).toEqual([false, true, true, true, false]);
  });

  it('agrees with the plain recursive meaning on every short pattern and path', () => {
    const names = fc.array(fc.string({ unit: fc.constantFrom('a', 'b'), maxLength: 3 }), {
      minLength: 1,
      maxLength: 4,
    });
    const parts = fc.array(
      fc.oneof(fc.constant('**'), fc.string({ unit: fc.constantFrom('a', 'b', '*', '?'), maxLength: 4 })),
      { minLength: 1, maxLength: 4 },
    );
    fc.assert(
      fc.property(parts, names, (pattern, path) => {
        expect(matchesOutputPattern(pattern.join('/'), path.join('/'))).toBe(slowly(pattern, path));
      }),
      { numRuns: 2_000 },
    );
  });

  it('made to be slow is not', () => {
    const pattern = `${'**/*a*a*a*a*a/'.repeat(15)}b`;
    expect(matchesOutputPattern(pattern, `${'a'.repeat(100)}/`.repeat(40))).toBe(false);
  });
});

function slowly(parts: readonly string[], names: readonly string[]): boolean {
  const [part, ...rest] = parts;
  if (part === undefined) return names.length === 0;
  if (part === '**') return names.some((_, at) => slowly(rest, names.slice(at))) || slowly(rest, []);
  const [name, ...others] = names;
  if (name === undefined) return false;
  const text = new RegExp(`^${Array.from(part, (one) => (one === '*' ? '.*' : one === '?' ? '.' : one)).join('')}$`);
  return text.test(name) && slowly(rest, others);
}
