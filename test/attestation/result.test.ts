/** Goal: two runs have one result digest when they came to the same. Method: pairs by hand, and the bytes that SPEC names. */
import { createHash } from 'node:crypto';

import { expect, test } from 'vitest';

import { type Proof, resultDigest } from '../../attestation/index.ts';

const exited = { reason: 'exited', exitCode: 0, detail: '' } as const;
const [printed, other] = ['aa'.repeat(32), 'bb'.repeat(32)];
const output = (name: string, cid: string): Proof['outputs'][number] => ({
  name,
  path: name,
  cid,
  sha256: 'ff',
  sizeBytes: 1,
});
const run = (outputs: Proof['outputs'] = [], exit: Proof['exit'] = exited): Pick<Proof, 'exit' | 'outputs'> => ({
  exit,
  outputs,
});

test('the digest is that of the bytes which the specification names', () => {
  const text = `molt/1/result\n["exited",0,[["a","bafy1"],["b","bafy2"]],"${printed}"]`;
  const outputs = [output('b', 'bafy2'), output('a', 'bafy1')];
  expect(resultDigest(run(outputs), 'exact', printed)).toBe(createHash('sha256').update(text).digest('hex'));
  const unprinted = 'molt/1/result\n["out-of-fuel",null,[],null]';
  const ended = run([], { reason: 'out-of-fuel', detail: 'at 5' });
  expect(resultDigest(ended, 'outputs', printed)).toBe(createHash('sha256').update(unprinted).digest('hex'));
});

test('what is printed counts only where the comparator is exact', () => {
  expect(resultDigest(run(), 'exact', printed)).not.toBe(resultDigest(run(), 'exact', other));
  expect(resultDigest(run(), 'outputs', printed)).toBe(resultDigest(run(), 'outputs', other));
  expect(resultDigest(run(), 'outputs', printed)).not.toBe(resultDigest(run(), 'exact', printed));
});

test('an output of another content, or under another name, is another result', () => {
  const mine = resultDigest(run([output('a', '1')]), 'outputs', printed);
  for (const theirs of [[output('a', '2')], [output('b', '1')], [], [output('a', '1'), output('b', '1')]])
    expect(resultDigest(run(theirs), 'outputs', printed)).not.toBe(mine);
});
