/**
 * Goal: every honest verifier finds the same, each ground of a verdict is reached by exactly what it says, and no document
 * that does not belong to the lease is taken. Method: one honest lease with its quote, specification and proof; each case
 * changes one thing and signs anew, as a party could.
 */
import { expect, test } from 'vitest';

import { type Observed, assertEvidence, contentToRepeat, judge, judgeRerun } from '../../attestation/index.ts';
import { decodeJobSpec, encodeJobSpec, parseJobSpec } from '../../protocol/job-spec.ts';
import { baseUnits } from '../../protocol/units.ts';
import { type Changes, type Disputed, PLAIN, STARTED_MS, disputed } from './disputed.ts';
import { CID_A, CID_B, HONEST, address, digestOf, key, rewrap } from './fixtures.ts';

const findingOf = ({ of, evidence }: Pick<Disputed, 'of' | 'evidence'>): unknown => {
  const judgement = judge(of, evidence, true);
  return 'verdict' in judgement ? [judgement.verdict.side, judgement.verdict.ground] : Object.keys(judgement);
};

test('an honest job is run again, from module and inputs, each once', () => {
  const { of, evidence } = disputed();
  expect(() => assertEvidence(of, evidence)).not.toThrow();
  const judgement = judge(of, evidence, false);
  expect(judgement).toMatchObject({ rerun: { spec: { command: ['tool'] } } });
  expect(contentToRepeat(decodeJobSpec(evidence.spec))).toEqual([CID_A, CID_B]);
  expect(contentToRepeat(decodeJobSpec(disputed({ spec: { secrets: ['token'] } }).evidence.spec))).toEqual([]);
});

test.each<[string, Changes, readonly [string, string]]>([
  [
    'a start later than promised',
    { facts: { startedAtMs: STARTED_MS + 5_001, finishedAtMs: STARTED_MS + 9_000 } },
    ['buyer', 'started-late'],
  ],
  ['another claim than the proof has', { lease: { claimed: baseUnits(2_500_001n) } }, ['buyer', 'claim-differs']],
  ['more time than the lease was open', { lease: { openedAtMs: STARTED_MS + 9_600 } }, ['buyer', 'billed-too-long']],
  ['another price', { lease: { pricePerSecond: baseUnits(999_999n) } }, ['buyer', 'proof-invalid']],
  ['the proof of another lease', { facts: { lease: address('other') } }, ['buyer', 'proof-invalid']],
  ['another specification', { facts: { specDigest: digestOf('other') } }, ['buyer', 'terms-broken']],
  ['another image', { facts: { image: { reference: CID_B } } }, ['buyer', 'terms-broken']],
  ['an input too few', { facts: { inputs: [] } }, ['buyer', 'terms-broken']],
  ['a job with secrets', { spec: { secrets: ['token'] } }, ['provider', 'not-repeatable']],
  ['a run that was stopped', { facts: { exit: { reason: 'cancelled', detail: '' } } }, ['provider', 'not-repeatable']],
  [
    'a promise that was none',
    { quote: { startByMs: 0 }, facts: { startedAtMs: STARTED_MS + 5_001, finishedAtMs: STARTED_MS + 9_000 } },
    ['rerun', ''],
  ],
  [
    'a start at the last moment',
    { facts: { startedAtMs: STARTED_MS + 5_000, finishedAtMs: STARTED_MS + 9_000 } },
    ['rerun', ''],
  ],
  [
    'the time that the lease was open, and what clocks may differ',
    { lease: { openedAtMs: STARTED_MS + 9_500 } },
    ['rerun', ''],
  ],
])('%s', (_what, changes, [side, ground]) => {
  const one = disputed(changes);
  expect(() => assertEvidence(one.of, one.evidence)).not.toThrow();
  expect(findingOf(one)).toEqual(ground === '' ? [side] : [side, ground]);
});

test('what a container did is found for its provider, unless the documents differ', () => {
  const image = `alpine@sha256:${'ab'.repeat(32)}`;
  const container: Changes = {
    spec: { runtime: 'container', image, command: ['true'] },
    facts: { runtime: { kind: 'container', version: '1' }, image: { reference: image } },
  };
  expect(findingOf(disputed(container))).toEqual(['provider', 'not-repeatable']);
  const late = { startedAtMs: STARTED_MS + 60_000, finishedAtMs: STARTED_MS + 70_000 };
  expect(findingOf(disputed({ ...container, facts: { ...container.facts, ...late } }))).toEqual([
    'buyer',
    'started-late',
  ]);
});

test('the proof is for the provider to show, the terms are for the buyer; both are waited for', () => {
  const { of, evidence } = disputed();
  const { quote, spec, proof } = evidence;
  expect(judge(of, { quote, spec }, false)).toEqual({ waitsFor: 'the proof' });
  expect(judge(of, { quote, spec }, true)).toMatchObject({ verdict: { side: 'buyer', ground: 'proof-missing' } });
  expect(judge(of, { proof }, false)).toEqual({ waitsFor: 'quote and specification' });
  expect(judge(of, { proof }, true)).toMatchObject({ verdict: { side: 'provider', ground: 'terms-missing' } });
  // What the proof says of itself needs nobody's documents.
  const over = { ...of, claimed: baseUnits(3n) };
  expect(judge(over, { proof }, false)).toMatchObject({ verdict: { side: 'buyer', ground: 'claim-differs' } });
});

test('documents of something else are refused', () => {
  const { of, evidence } = disputed();
  const other = disputed({ quote: { startByMs: 0 }, facts: { billedMs: 2_400, claimed: '2400000' } }).evidence;
  const forged = rewrap(evidence.proof, { signatures: [{ sig: Buffer.alloc(64).toString('base64') }] });
  for (const wrong of [
    { quote: other.quote, spec: evidence.spec },
    { quote: evidence.quote, spec: encodeJobSpec(parseJobSpec({ ...PLAIN, command: ['other'] })) },
    { quote: evidence.quote },
    { spec: evidence.spec },
    { quote: new Uint8Array(5), spec: evidence.spec },
    { proof: other.proof },
    { proof: HONEST.envelope },
    { proof: forged },
    { proof: new Uint8Array(5) },
  ])
    expect(() => assertEvidence(of, wrong)).toThrow(expect.objectContaining({ code: 'dispute/evidence-refused' }));
});

test('a proof that the operator never signed is nobody’s, whatever was claimed', () => {
  const { of, evidence } = disputed();
  expect(() => assertEvidence({ ...of, operator: key('other').address }, { proof: evidence.proof })).toThrow(
    expect.objectContaining({ code: 'dispute/evidence-refused' }),
  );
});

const { proof, evidence: shown } = disputed();
const spec = decodeJobSpec(shown.spec);
const SAME: Observed = {
  reason: 'exited',
  exitCode: 0,
  fuel: 123_456_789n,
  stdoutSha256: proof.logs.stdoutSha256,
  outputs: [{ name: 'report', cid: CID_B }],
  version: proof.runtime.version,
};

test.each<[string, Partial<Observed>, readonly [string, string] | undefined]>([
  ['the same', {}, ['provider', 'result-equal']],
  ['another exit code', { exitCode: 1 }, ['buyer', 'result-differs']],
  ['another end', { reason: 'crashed', exitCode: undefined }, ['buyer', 'result-differs']],
  ['another output', { outputs: [{ name: 'report', cid: CID_A }] }, ['buyer', 'result-differs']],
  ['no output', { outputs: [] }, ['buyer', 'result-differs']],
  ['an output more', { outputs: [...SAME.outputs, { name: 'more', cid: CID_A }] }, ['buyer', 'result-differs']],
  ['other words', { stdoutSha256: digestOf('other') }, ['buyer', 'result-differs']],
  ['other fuel', { fuel: 1n }, ['buyer', 'result-differs']],
  ['other fuel of another version', { fuel: 1n, version: '9' }, ['provider', 'result-equal']],
  ['a run that was stopped', { reason: 'timed-out', exitCode: undefined }, undefined],
  ['an engine that failed', { reason: 'engine-failed', exitCode: undefined }, undefined],
])('run again, the job comes to %s', (_what, change, wanted) => {
  const verdict = judgeRerun({ proof, spec }, { ...SAME, ...change });
  expect(verdict && [verdict.side, verdict.ground]).toEqual(wanted);
});

test('where the buyer compares outputs alone, what is printed does not count', () => {
  const outputs = decodeJobSpec(encodeJobSpec(parseJobSpec({ ...PLAIN, comparator: 'outputs' })));
  const other = { ...SAME, stdoutSha256: digestOf('other'), fuel: 1n };
  expect(judgeRerun({ proof, spec: outputs }, other)).toMatchObject({ ground: 'result-equal' });
  expect(judgeRerun({ proof, spec: outputs }, { ...other, outputs: [] })).toMatchObject({ ground: 'result-differs' });
});
