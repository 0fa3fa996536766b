/** Goal: the lease table is a machine in which every state can be reached and left, and nobody can be locked in. */
import { expect, test } from 'vitest';

import {
  LEASE_EVENTS,
  LEASE_STATES,
  type LeaseEvent,
  type LeaseState,
  type LeaseTransition,
  isLeaseEnd,
  nextLeaseState,
} from '../../protocol/lease.ts';

const events = Object.keys(LEASE_EVENTS) as LeaseEvent[];
const transitions: Readonly<Record<LeaseEvent, LeaseTransition>> = LEASE_EVENTS;

function after(state: LeaseState): LeaseState[] {
  return events.flatMap((event) => nextLeaseState(state, event) ?? []);
}

function closure(start: LeaseState): Set<LeaseState> {
  const found = new Set<LeaseState>([start]);
  for (const state of found) for (const next of after(state)) found.add(next);
  return found;
}

test('every state is reached from none', () => {
  expect([...closure('none')].sort()).toEqual([...LEASE_STATES].sort());
});

test('settled, cancelled and expired are the ends, and each other state leads to one', () => {
  expect(LEASE_STATES.filter(isLeaseEnd)).toEqual(['settled', 'cancelled', 'expired']);
  for (const state of LEASE_STATES) expect([...closure(state)].some(isLeaseEnd)).toBe(true);
});

test('no event leads back: a lease ends after at most four, extensions and vouchers aside', () => {
  const onwards = (state: LeaseState): LeaseState[] => after(state).filter((next) => next !== state);
  const longest = (state: LeaseState): number => Math.max(0, ...onwards(state).map((next) => 1 + longest(next)));
  expect(longest('none')).toBe(4);
  expect(events.filter((event) => transitions[event].from.includes(transitions[event].to))).toEqual([
    'extend',
    'redeem',
  ]);
});

test('from every open state somebody can end the lease without the other side: buyer, provider, or anyone', () => {
  const endsAlone = (state: LeaseState): string[] =>
    events
      .filter((event) => transitions[event].from.includes(state) && isLeaseEnd(transitions[event].to))
      .map((event) => transitions[event].by);
  expect(new Set(endsAlone('running'))).toEqual(new Set(['delegate', 'operator', 'delegate+operator', 'anyone']));
  expect(new Set(endsAlone('proven'))).toEqual(new Set(['delegate', 'delegate+operator', 'anyone']));
  expect(new Set(endsAlone('disputed'))).toEqual(new Set(['anyone']));
});

test('money is locked only with both signatures, and a claim is made only by the operator', () => {
  expect(transitions.open).toMatchObject({ from: ['none'], by: 'delegate+operator' });
  expect(events.filter((event) => transitions[event].to === 'proven')).toEqual(['submitProof']);
  expect(transitions.submitProof.by).toBe('operator');
});

test('events that the table does not list for a state change nothing', () => {
  expect(nextLeaseState('settled', 'settleWhole')).toBeUndefined();
  expect(nextLeaseState('proven', 'expire')).toBeUndefined();
  expect(nextLeaseState('proven', 'cancelByOperator')).toBeUndefined();
  expect(nextLeaseState('running', 'settleLapsed')).toBeUndefined();
  expect(nextLeaseState('none', 'submitProof')).toBeUndefined();
});
