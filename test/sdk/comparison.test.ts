/**
 * Goal: replicas wait for each other and are told alike what more than half came to. Method: results by hand, in every
 * order in which they can come.
 */
import { describe, expect, test } from 'vitest';

import type { Proof } from '../../attestation/index.ts';
import type { VerifiedProof } from '../../protocol/brands.ts';
import { MoltError } from '../../protocol/errors.ts';
import { Comparison, type ReplicaResult } from '../../sdk/comparison.ts';
import type { JobEvent, JobOutput } from '../../sdk/progress.ts';
import { address } from '../market/fixtures.ts';

const never = new AbortController().signal;
const right: Partial<Proof> = { exit: { reason: 'exited', exitCode: 0, detail: '' }, outputs: [] };

function resultOf(changes: Partial<Proof> = {}, stdoutSha256 = 'aa'): ReplicaResult {
  const proof = { ...right, digest: 'dd', ...changes } as unknown as VerifiedProof<Proof>;
  return { proof, stdoutSha256, envelope: Uint8Array.of(1) };
}

const output = (name: string, cid: string): Proof['outputs'][number] => ({
  name,
  path: name,
  cid,
  sha256: 'ff',
  sizeBytes: 1,
});

/** What each replica is told, in the order in which they come. */
async function compare(results: readonly (ReplicaResult | undefined)[]): Promise<readonly string[]> {
  const comparison = new Comparison(results.length, 'exact');
  const told = results.map((result, rank) => {
    if (result !== undefined)
      return comparison.place(rank, address(`node ${rank}`), () => undefined).agree(result, never);
    comparison.lose(rank);
    return Promise.reject(new MoltError('job/provider-lost', 'it is gone'));
  });
  const settled = await Promise.allSettled(told);
  return settled.map((one) => (one.status === 'fulfilled' ? 'agreed' : (one.reason as MoltError).code));
}

const a = resultOf();
const b = resultOf({}, 'bb');
const c = resultOf({}, 'cc');
test.each<[readonly (ReplicaResult | undefined)[], readonly string[]]>([
  [
    [a, a, a],
    ['agreed', 'agreed', 'agreed'],
  ],
  [
    [b, a, a],
    ['proof/outvoted', 'agreed', 'agreed'],
  ],
  [
    [a, b, a],
    ['agreed', 'proof/outvoted', 'agreed'],
  ],
  [
    [a, a, b],
    ['agreed', 'agreed', 'proof/outvoted'],
  ],
  [
    [a, undefined, a],
    ['agreed', 'job/provider-lost', 'agreed'],
  ],
  [
    [a, b, c],
    ['proof/no-majority', 'proof/no-majority', 'proof/no-majority'],
  ],
  [
    [a, undefined, b],
    ['proof/no-majority', 'job/provider-lost', 'proof/no-majority'],
  ],
])('of replicas in any order, each is told what it is', async (results, told) => {
  expect(await compare(results)).toEqual(told);
});

describe('results are equal', () => {
  test.each<[string, ReplicaResult, ReplicaResult, boolean]>([
    [
      'whatever order the outputs are in',
      resultOf({ outputs: [output('x', '1'), output('y', '2')] }),
      resultOf({ outputs: [output('y', '2'), output('x', '1')] }),
      true,
    ],
    ['whatever was billed', resultOf({ billedMs: 1 }), resultOf({ billedMs: 2 }), true],
    [
      'only with the same outputs',
      resultOf({ outputs: [output('x', '1')] }),
      resultOf({ outputs: [output('x', '2')] }),
      false,
    ],
    [
      'only with the same exit code',
      resultOf(),
      resultOf({ exit: { reason: 'exited', exitCode: 1, detail: '' } }),
      false,
    ],
    ['only with the same end', resultOf(), resultOf({ exit: { reason: 'out-of-fuel', detail: '' } }), false],
    ['only with the same standard output', resultOf({}, 'aa'), resultOf({}, 'ab'), false],
  ])('%s', async (_what, one, other, isEqual) => {
    const expected = isEqual ? 'agreed' : 'proof/no-majority';
    expect(await compare([one, other])).toEqual([expected, expected]);
  });
});

test('a replica that waits for others is let go when the job is cancelled', async () => {
  const cancelling = new AbortController();
  const waiting = new Comparison(3, 'exact').place(0, address('node'), () => undefined).agree(a, cancelling.signal);
  cancelling.abort();
  await expect(waiting).resolves.toBeUndefined();
});

test('a replica that was stopped has no vote', async () => {
  const comparison = new Comparison(3, 'exact');
  const [first, second, third] = [0, 1, 2].map((rank) => comparison.place(rank, address(`${rank}`), () => undefined));
  await expect(first?.agree(b, AbortSignal.abort())).resolves.toBeUndefined();
  expect(comparison.proofOf(0)).toBeUndefined();
  await expect(Promise.all([second?.agree(a, never), third?.agree(a, never)])).resolves.toBeDefined();
  await expect(comparison.agreed).resolves.toBeUndefined();
});

test('a result that cannot win any more is not paid when the others are stopped', async () => {
  const comparison = new Comparison(3, 'exact');
  const stopping = new AbortController();
  const waiting = comparison.place(0, address('node'), () => undefined).agree(a, stopping.signal);
  comparison.lose(1);
  comparison.lose(2);
  stopping.abort();
  await expect(waiting).rejects.toMatchObject({
    code: 'proof/no-majority',
    message: expect.stringContaining('came to too few results, 2 were lost; 2 must agree'),
  });
});

test('when the vote is held, those who are there decide, and whoever comes later has no vote', async () => {
  const comparison = new Comparison(4, 'exact');
  const agree = (rank: number, result: ReplicaResult): Promise<void> =>
    comparison.place(rank, address(`node ${rank}`), () => undefined).agree(result, never);
  const early = Promise.allSettled([agree(0, a), agree(1, a)]);
  expect(comparison.close()).toEqual([2, 3]);
  const late = Promise.allSettled([agree(2, a), agree(3, b)]);
  const failed = { status: 'rejected', reason: { code: 'proof/no-majority' } };
  expect(await early).toMatchObject([failed, failed]);
  expect(await late).toMatchObject([failed, failed]);
  expect(comparison.close()).toEqual([]);
});

test('whoever comes after the vote is paid where it came to the same, and is outvoted where not', async () => {
  const comparison = new Comparison(5, 'exact');
  const agree = (rank: number, result: ReplicaResult): Promise<void> =>
    comparison.place(rank, address(`node ${rank}`), () => undefined).agree(result, never);
  const early = [agree(0, a), agree(1, a)];
  const third = agree(2, a);
  comparison.close();
  await Promise.all([...early, third]);
  await expect(agree(3, a)).resolves.toBeUndefined();
  await expect(agree(4, b)).rejects.toMatchObject({ code: 'proof/outvoted' });
});

test('what a replica came to is told with how many came to the same', async () => {
  const comparison = new Comparison(3, 'outputs');
  const told: JobEvent[] = [];
  const waiting = [a, b, c].map((result, rank) =>
    comparison.place(rank, address(`node ${rank}`), (event) => told.push({ ...event, rank })).agree(result, never),
  );
  await Promise.all(waiting);
  // What they print differs, and is not compared.
  const resultDigest = comparison.proofOf(0)?.resultDigest;
  const proven = { type: 'replica-proven', resultDigest, quorum: 2 } as const;
  expect(told).toEqual([1, 2, 3].map((votes) => ({ ...proven, votes, rank: votes - 1 })));
});

test('outputs are taken once, by the next one where the first could not', async () => {
  const comparison = new Comparison(3, 'exact');
  const places = [0, 1, 2].map((rank) => comparison.place(rank, address(`node ${rank}`), () => undefined));
  const outputs: JobOutput[] = [{ name: 'x', cid: '1', sha256: 'ff', sizeBytes: 1 }];
  let taken = 0;
  const [first, second, third] = places.map((place, rank) =>
    place.once(async () => {
      taken++;
      if (rank === 0) throw new MoltError('mesh/closed', 'it went away');
      return outputs;
    }),
  );
  await expect(first).rejects.toThrow('it went away');
  expect(await second).toBe(outputs);
  expect(await third).toBe(outputs);
  expect(taken).toBe(2);
});

test('what a replica proved is kept, also of one that was outvoted', async () => {
  const comparison = new Comparison(3, 'exact');
  const told = [b, a, a].map((result, rank) =>
    comparison.place(rank, address(`node ${rank}`), () => undefined).agree(result, never),
  );
  await Promise.allSettled(told);
  expect(comparison.proofOf(0)).toEqual({
    proof: Uint8Array.of(1),
    proofDigest: 'dd',
    resultDigest: expect.stringMatching(/^[0-9a-f]{64}$/),
  });
  expect(new Comparison(2, 'exact').proofOf(0)).toBeUndefined();
});
