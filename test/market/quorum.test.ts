/** Goal: a result counts when more than half came to it, and never before. Method: ballots one by one, then every ballot. */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import { decideBallot, quorumOf } from '../../market/index.ts';

/** One character a replica: `.` still runs, `-` is lost, letters are results. */
function decide(text: string): string {
  const places = text.split('');
  const of = (wanted: (place: string) => boolean): (readonly [number, string])[] =>
    places.flatMap((place, rank) => (wanted(place) ? [[rank, place] as const] : []));
  const ballot = {
    size: places.length,
    results: new Map(of((place) => /[a-z]/.test(place))),
    lost: new Set(of((place) => place === '-').map(([rank]) => rank)),
  };
  const decided = decideBallot(ballot);
  return decided.decision === 'agreed' ? decided.result : decided.decision;
}

test.each([
  ['...', 'undecided'],
  ['a..', 'undecided'],
  ['aa.', 'a'],
  ['ab.', 'undecided'],
  ['aba', 'a'],
  ['abb', 'b'],
  ['abc', 'none'],
  ['a-.', 'undecided'],
  ['a--', 'none'],
  ['a-a', 'a'],
  ['ab-', 'none'],
  ['aabb', 'none'],
  ['aab.', 'undecided'],
  ['aa', 'a'],
  ['a-', 'none'],
  ['aabbc', 'none'],
  ['aab.b.', 'undecided'],
  ['aabcb.', 'none'],
])('the ballot %s comes to: %s', (ballot, decision) => {
  expect(decide(ballot)).toBe(decision);
});

test('a decision never changes with what comes later, and no two results can be agreed on', () => {
  const places = fc.array(fc.constantFrom('a', 'b', 'c', '-'), { minLength: 2, maxLength: 16 });
  fc.assert(
    fc.property(places, fc.nat(16), (all, known) => {
      const early = decide(all.map((place, rank) => (rank < known ? place : '.')).join(''));
      const late = decide(all.join(''));
      expect(late).not.toBe('undecided');
      if (early !== 'undecided') expect(late).toBe(early);
      if (late !== 'none')
        expect(all.filter((place) => place === late).length).toBeGreaterThanOrEqual(quorumOf(all.length));
    }),
    { numRuns: 2_000 },
  );
});
