/**
 * Replicas of one job, compared: a result counts when more than half of all replicas came to it. Those that were lost count
 * as having come to none, so that two that died cannot make one liar a majority.
 */

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
