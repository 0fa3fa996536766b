/**
 * What a verifier has to do about a dispute now: a pure decision over the dispute on chain and what this node has kept.
 *
 * The parties are given a moment to draw and to resolve, for it is their money; then whoever is on the list does it.
 */
import type { DisputeAccount, DisputeSeat } from '../../chain/index.ts';
import type { Address } from '../../protocol/address.ts';

export type Duty = 'wait' | 'draw' | 'judge' | 'commit' | 'reveal' | 'resolve';

export interface DutyInput {
  readonly dispute: DisputeAccount;
  /** Our provider account. */
  readonly self: Address;
  /** A vote is in the journal. */
  readonly hasVote: boolean;
  /** The chain's clock. */
  readonly nowMs: number;
  /** From the dispute to the end of the time for the draw. */
  readonly voteMs: number;
}

/** What the parties are left before somebody else does it. */
const DRAW_PATIENCE_MS = 6_000;
const RESOLVE_PATIENCE_MS = 10_000;
/** Evidence is waited for until this share of the time for votes is left, and no longer than this before its end. */
const LATE_SHARE = 0.25;
const LATE_MS_MAX = 10 * 60_000;

export function dutyOf({ dispute, self, hasVote, nowMs, voteMs }: DutyInput): Duty {
  const { seats, voteUntilMs, revealUntilMs } = dispute;
  if (seats.length === 0) {
    if (nowMs > voteUntilMs) return nowMs > voteUntilMs + RESOLVE_PATIENCE_MS ? 'resolve' : 'wait';
    return nowMs >= voteUntilMs - voteMs + DRAW_PATIENCE_MS ? 'draw' : 'wait';
  }
  const seat = seatOf(dispute, self);
  if (nowMs > revealUntilMs) return nowMs > revealUntilMs + RESOLVE_PATIENCE_MS ? 'resolve' : 'wait';
  if (seat === undefined || seat.vote !== undefined) return 'wait';
  if (nowMs <= voteUntilMs) {
    // Committing again replaces a vote whose salt is lost.
    if (!hasVote) return 'judge';
    return seat.committed ? 'wait' : 'commit';
  }
  return seat.committed && hasVote ? 'reveal' : 'wait';
}

export function seatOf({ seats }: DisputeAccount, self: Address): DisputeSeat | undefined {
  return seats.find(({ verifier }) => verifier === self);
}

/** True when no more evidence is waited for. */
export function isLate({ voteUntilMs }: DisputeAccount, nowMs: number, voteMs: number): boolean {
  return nowMs >= voteUntilMs - Math.min(voteMs * LATE_SHARE, LATE_MS_MAX);
}
