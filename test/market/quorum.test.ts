/** Goal: a result counts when more than half came to it, and never before. Method: ballots one by one, then every ballot. */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import { type OpenClaim, decideBallot, quorumOf, replacementRefusal, voteByMs } from '../../market/index.ts';

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

const windowMs = 540_000;
test.each<[string, readonly OpenClaim[], number, number]>([
  ['nothing is open', [], 1_000, Infinity],
  ['nothing is claimed: a claim could come at once', [{ windowMs }, { windowMs }], 1_000, 481_000],
  ['nothing is claimed still: it has moved on', [{ windowMs }, { windowMs }], 400_000, 880_000],
  ['one has claimed: it stands still', [{ windowMs }, { windowMs, provenAtMs: 5_000 }], 400_000, 485_000],
  [
    'two have claimed: the first counts',
    [5_000, 300_000].map((provenAtMs) => ({ windowMs, provenAtMs })),
    400_000,
    485_000,
  ],
  ['a later claim has a shorter window', [{ windowMs, provenAtMs: 5_000 }, { windowMs: 90_000 }], 6_000, 36_000],
])('the vote leaves a minute for a dispute where %s', (_what, open, nowMs, expected) => {
  expect(voteByMs(open, nowMs)).toBe(expected);
});

test.each<[string, number, number, string | undefined]>([
  ['nobody has claimed', Infinity, 0, undefined],
  ['just enough time is left', 250_000, 100_000, undefined],
  ['a second too little is left', 250_000, 101_000, '119'],
  ['the vote is due', 250_000, 250_000, '0'],
])('another provider is asked only where it would come in time: %s', (_what, voteBy, nowMs, enough) => {
  const refusal = replacementRefusal(120, { voteByMs: voteBy, nowMs });
  expect(refusal?.code).toBe(enough === undefined ? undefined : 'market/finish-too-late');
  expect(refusal?.context['enough']).toBe(enough);
});

test('whoever is asked in time and keeps its promise has come before any claim is paid', () => {
  const seconds = fc.integer({ min: 1, max: 100_000 });
  const claims = fc.array(fc.tuple(seconds, fc.option(fc.nat(100_000))), { minLength: 1, maxLength: 16 });
  fc.assert(
    fc.property(claims, fc.nat(100_000), seconds, (open, nowSeconds, duration) => {
      const nowMs = nowSeconds * 1000;
      const leases = open.map(([window, proven]) => ({
        windowMs: window * 1000,
        ...(proven === null ? {} : { provenAtMs: Math.min(proven, nowSeconds) * 1000 }),
      }));
      const byMs = voteByMs(leases, nowMs);
      for (const { windowMs: lasts, provenAtMs = nowMs } of leases) expect(byMs).toBeLessThan(provenAtMs + lasts);
      if (replacementRefusal(duration, { voteByMs: byMs, nowMs }) === undefined)
        expect(byMs).toBeGreaterThanOrEqual(nowMs + duration * 1000);
    }),
  );
});
