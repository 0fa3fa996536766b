/**
 * Replicas of one job, compared: a result counts when more than half of all replicas came to it. Those that were lost count
 * as having come to none, so that two that died cannot make one liar a majority.
 *
 * Whoever waits for the others may claim on chain meanwhile, and a claim is paid when its challenge window ends. So the vote
 * has an end of its own, early enough to dispute what is outvoted: who has not come by then counts as lost, and nobody is
 * asked who could not come by then.
 */
import type { MoltError } from '../protocol/errors.ts';
import { LIMITS } from '../protocol/limits.ts';
import { refusal } from './refusal.ts';

/** What is known of the replicas so far, by rank. */
export interface Ballot {
  /** How many replicas there are. */
  readonly size: number;
  /** What each came to, as a text that is equal where results are. */
  readonly results: ReadonlyMap<number, string>;
  /** Those that will come to nothing. */
  readonly lost: ReadonlySet<number>;
}

/** So many replicas of `size` must agree: more than half. */
export function quorumOf(size: number): number {
  return Math.floor(size / 2) + 1;
}

/** The result of more than half, once it is certain; `undecided` while it can still come about, `none` when it cannot. */
export function decideBallot(
  ballot: Ballot,
): { readonly decision: 'agreed'; readonly result: string } | { readonly decision: 'undecided' | 'none' } {
  const quorum = quorumOf(ballot.size);
  const counts = [...Map.groupBy(ballot.results.values(), (result) => result)].map(
    ([result, votes]) => [result, votes.length] as const,
  );
  const agreed = counts.find(([, votes]) => votes >= quorum);
  if (agreed !== undefined) return { decision: 'agreed', result: agreed[0] };
  const open = ballot.size - ballot.results.size - ballot.lost.size;
  const most = Math.max(0, ...counts.map(([, votes]) => votes));
  return { decision: most + open >= quorum ? 'undecided' : 'none' };
}

/** What a dispute needs of a window: the vote is counted, a transaction included, and clocks are off by some seconds. */
const DISPUTE_MS = 60_000;

/** The open lease of a replica, as the chain has it. */
export interface OpenClaim {
  readonly windowMs: number;
  /** Unix ms of the chain; absent while nothing is claimed. */
  readonly provenAtMs?: number;
}

/**
 * Unix ms of the chain by which the vote must be held so that none of these is paid before. What is not claimed can be
 * claimed at once, so this moves on until there are claims. Infinity where nothing is open.
 */
export function voteByMs(open: readonly OpenClaim[], nowMs: number): number {
  return Math.min(...open.map(({ windowMs, provenAtMs = nowMs }) => provenAtMs + windowMs - DISPUTE_MS));
}

/** `market/finish-too-late`: whoever is asked now need not have proven the job when the vote is held. */
export function replacementRefusal(
  durationSecondsMax: number,
  at: { readonly voteByMs: number; readonly nowMs: number },
): MoltError | undefined {
  const leftMs = at.voteByMs - at.nowMs - LIMITS.quoteLifetimeMs;
  if (leftMs >= durationSecondsMax * 1000) return undefined;
  const left = Math.max(0, Math.floor(leftMs / 1000));
  const message = `the job may run ${durationSecondsMax} s, and the replicas that have claimed are paid unless they are compared in time, which leaves ${left} s; the vote is held with what is there`;
  return refusal('market/finish-too-late', message, BigInt(left));
}
