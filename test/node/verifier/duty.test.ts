/**
 * Goal: at every moment of a dispute a verifier does what is its to do, and nothing twice. Method: the decision alone, over
 * disputes on chain as they look at that moment.
 */
import { expect, test } from 'vitest';

import type { DisputeAccount, DisputeSeat } from '../../../chain/index.ts';
import { baseUnits } from '../../../protocol/units.ts';
import { dutyOf, isLate } from '../../../node/verifier/duty.ts';
import { address } from '../../market/fixtures.ts';

const self = address('verifier');
const VOTE_MS = 60_000;
const DRAWN_BY = 1_000_000;
const REVEAL_BY = DRAWN_BY + 60_000;

function dispute(own?: Partial<DisputeSeat>): DisputeAccount {
  const seat = (verifier: typeof self, more: Partial<DisputeSeat> = {}): DisputeSeat => ({
    verifier,
    committed: false,
    pledge: baseUnits(1n),
    ...more,
  });
  return {
    address: address('dispute'),
    lease: address('lease'),
    provider: address('provider'),
    rentPayer: address('buyer'),
    bond: baseUnits(1n),
    slot: 1n,
    seats: [seat(address('a')), seat(address('b')), own === undefined ? seat(address('c')) : seat(self, own)],
    voteUntilMs: DRAWN_BY,
    revealUntilMs: REVEAL_BY,
  };
}

const undrawn: DisputeAccount = { ...dispute(), seats: [], revealUntilMs: 0 };

test.each<[string, DisputeAccount, number, boolean, string]>([
  ['nobody has drawn yet, for a moment', undrawn, DRAWN_BY - VOTE_MS + 1_000, false, 'wait'],
  ['nobody has drawn', undrawn, DRAWN_BY - 50_000, false, 'draw'],
  ['nobody drew in time', undrawn, DRAWN_BY + 1_000, false, 'wait'],
  ['nobody drew and nobody resolved', undrawn, DRAWN_BY + 11_000, false, 'resolve'],
  ['others were drawn', dispute(), DRAWN_BY - 1_000, false, 'wait'],
  ['we were drawn', dispute({}), DRAWN_BY - 1_000, false, 'judge'],
  ['we have judged', dispute({}), DRAWN_BY - 1_000, true, 'commit'],
  ['we have committed', dispute({ committed: true }), DRAWN_BY - 1_000, true, 'wait'],
  ['our salt is lost', dispute({ committed: true }), DRAWN_BY, false, 'judge'],
  ['votes are revealed', dispute({ committed: true }), DRAWN_BY + 1_000, true, 'reveal'],
  ['we have revealed', dispute({ committed: true, vote: 'buyer' }), DRAWN_BY + 1_000, true, 'wait'],
  ['we were too late to commit', dispute({}), DRAWN_BY + 1_000, true, 'wait'],
  ['our salt is lost and the time is over', dispute({ committed: true }), DRAWN_BY + 1_000, false, 'wait'],
  ['the parties may resolve', dispute({ committed: true }), REVEAL_BY + 1_000, true, 'wait'],
  ['nobody has resolved', dispute(), REVEAL_BY + 11_000, false, 'resolve'],
])('%s', (...[, at, nowMs, hasVote, duty]) => {
  expect(dutyOf({ dispute: at, self, hasVote, nowMs, voteMs: VOTE_MS })).toBe(duty);
});

test('evidence is waited for until a quarter of the time is left, and ten minutes at most', () => {
  expect(isLate(dispute(), DRAWN_BY - 15_001, VOTE_MS)).toBe(false);
  expect(isLate(dispute(), DRAWN_BY - 15_000, VOTE_MS)).toBe(true);
  const day = 86_400_000;
  expect(isLate(dispute(), DRAWN_BY - 600_001, day)).toBe(false);
  expect(isLate(dispute(), DRAWN_BY - 600_000, day)).toBe(true);
});
