/**
 * The life of a lease, as data: state × event → next state, who may cause it, until when, and what it pays.
 *
 * The chain program enforces this table; node, SDK, CLI and the program's tests read it; protocol/SPEC.md prints it and
 * a test compares the two. States after `disputed` are ends: the account is closed and the chain keeps only the event.
 * Amounts count from the opening: what vouchers have redeemed is part of them, and no end pays less.
 */

export const LEASE_STATES = ['none', 'running', 'proven', 'disputed', 'settled', 'cancelled', 'expired'] as const;
export type LeaseState = (typeof LEASE_STATES)[number];

/** Who must sign. `anyone` needs no signature but the fee payer's. */
export type LeaseActor = 'delegate' | 'operator' | 'delegate+operator' | 'anyone';

export interface LeaseTransition {
  readonly from: readonly LeaseState[];
  readonly to: LeaseState;
  readonly by: LeaseActor;
  /** When the program accepts it, in chain time. */
  readonly when: string;
  /** What the provider is paid; the rest of the lock returns to the budget. */
  readonly pays: string;
}

export const LEASE_EVENTS = {
  open: {
    from: ['none'],
    to: 'running',
    by: 'delegate+operator',
    when: 'now ≤ openBefore',
    pays: 'nothing; amount locked, reserve set aside',
  },
  extend: {
    from: ['running'],
    to: 'running',
    by: 'delegate+operator',
    when: 'now < new finishBy',
    pays: 'nothing; amount, reserve and finishBy never shrink',
  },
  redeem: {
    from: ['running'],
    to: 'running',
    by: 'operator',
    when: 'now ≤ finishBy + grace, with a voucher of the delegate',
    pays: 'the voucher ≤ lock, less what was redeemed',
  },
  submitProof: {
    from: ['running'],
    to: 'proven',
    by: 'operator',
    when: 'now ≤ finishBy + grace',
    pays: 'nothing; claim and result digest kept',
  },
  settleAgreed: {
    from: ['running', 'proven'],
    to: 'settled',
    by: 'delegate+operator',
    when: 'always',
    pays: 'the agreed amount ≤ lock',
  },
  settleWhole: { from: ['running', 'proven'], to: 'settled', by: 'delegate', when: 'always', pays: 'the whole lock' },
  settleClaimed: { from: ['proven'], to: 'settled', by: 'delegate', when: 'always', pays: 'the claim' },
  settleLapsed: { from: ['proven'], to: 'settled', by: 'anyone', when: 'now > proven + window', pays: 'the claim' },
  dispute: {
    from: ['proven'],
    to: 'disputed',
    by: 'delegate',
    when: 'now ≤ proven + window',
    pays: 'nothing; a bond is locked in the budget',
  },
  resolveForProvider: {
    from: ['disputed'],
    to: 'settled',
    by: 'anyone',
    when: 'two of three verifiers found for the provider',
    pays: 'the claim, and the bond on top',
  },
  resolveForBuyer: {
    from: ['disputed'],
    to: 'settled',
    by: 'anyone',
    when: 'two of three verifiers found for the buyer',
    pays: 'nothing; the reserve is slashed, most of it to the budget',
  },
  resolveNeutral: {
    from: ['disputed'],
    to: 'settled',
    by: 'anyone',
    when: 'the time for votes has passed without two equal ones',
    pays: 'half of the claim',
  },
  cancelByOperator: { from: ['running'], to: 'cancelled', by: 'operator', when: 'always', pays: 'nothing more' },
  cancelByDelegate: {
    from: ['running'],
    to: 'cancelled',
    by: 'delegate',
    when: 'always',
    pays: 'seconds since opening × price ≤ lock',
  },
  cancelAgreed: {
    from: ['running'],
    to: 'cancelled',
    by: 'delegate+operator',
    when: 'always',
    pays: 'the agreed amount ≤ what cancelByDelegate pays',
  },
  expire: {
    from: ['running'],
    to: 'expired',
    by: 'anyone',
    when: 'now > finishBy + grace',
    pays: 'nothing more; part of the reserve goes to the budget',
  },
} as const satisfies Record<string, LeaseTransition>;

export type LeaseEvent = keyof typeof LEASE_EVENTS;

/** The state after `event`, or undefined where the table has no such transition. */
export function nextLeaseState(state: LeaseState, event: LeaseEvent): LeaseState | undefined {
  const transition: LeaseTransition = LEASE_EVENTS[event];
  return transition.from.includes(state) ? transition.to : undefined;
}

/** True when the account is closed and nothing can happen any more. */
export function isLeaseEnd(state: LeaseState): boolean {
  return !Object.values<LeaseTransition>(LEASE_EVENTS).some((transition) => transition.from.includes(state));
}
