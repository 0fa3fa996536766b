/**
 * Goal: the log root is RFC 6962's, the meter chain is what the comment in transcript.ts says, and both are bound to
 * lease, attempt and spec. Method: published roots, a recursive reference, and the formulas written out once more.
 */
import { createHash } from 'node:crypto';

import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import { createLogTree, createTranscript } from '../../attestation/index.ts';
import { decodeAddress } from '../../protocol/address.ts';
import { LIMITS } from '../../protocol/limits.ts';
import { address, digestOf, usage } from './fixtures.ts';

const subject = { network: address('network'), lease: address('lease'), attempt: 3, specDigest: digestOf('spec') };

function sha(...parts: readonly (Uint8Array | string)[]): Buffer {
  return createHash('sha256')
    .update(Buffer.concat(parts.map((part) => Buffer.from(part))))
    .digest();
}

function rootOf(leaves: readonly Uint8Array[]): string {
  const tree = createLogTree();
  for (const leaf of leaves) tree.add(leaf);
  return Buffer.from(tree.root()).toString('hex');
}

/** RFC 6962 section 2.1, word for word. */
function reference(leaves: readonly Uint8Array[]): Buffer {
  const [only] = leaves;
  if (only === undefined) return sha();
  if (leaves.length === 1) return sha(Uint8Array.of(0), only);
  let k = 1;
  while (k * 2 < leaves.length) k *= 2;
  return sha(Uint8Array.of(1), reference(leaves.slice(0, k)), reference(leaves.slice(k)));
}

/** Roots of the well-known eight leaves of Certificate Transparency's reference tests. */
const CT_LEAVES = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657', '606162636465666768696a6b6c6d6e6f'];
const CT_ROOTS = [
  'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
  'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
  'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
  'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
  '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
  '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
  'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
  '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
];

test.each(CT_ROOTS.map((root, size) => [size, root] as const))('the published root of %d leaves', (size, root) => {
  expect(rootOf(CT_LEAVES.slice(0, size).map((leaf) => Buffer.from(leaf, 'hex')))).toBe(root);
});

test('the streamed root is that of the recursive definition, at every length on the way', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 8 }), { maxLength: 70 }), (leaves) => {
      const tree = createLogTree();
      for (const [index, leaf] of leaves.entries()) {
        tree.add(leaf);
        expect(Buffer.from(tree.root()).equals(reference(leaves.slice(0, index + 1)))).toBe(true);
      }
      expect(tree.leaves).toBe(leaves.length);
    }),
    { numRuns: 50 },
  );
});

test('a log leaf is stream, sequence over both streams, and bytes', () => {
  const transcript = createTranscript(subject);
  transcript.log('stdout', Buffer.from('one'));
  transcript.log('stderr', Buffer.from('two'));
  const leaves = [
    Buffer.concat([Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0, 0), Buffer.from('one')]),
    Buffer.concat([Uint8Array.of(2, 1, 0, 0, 0, 0, 0, 0, 0), Buffer.from('two')]),
  ];
  expect(transcript.finish()).toMatchObject({ logRoot: reference(leaves).toString('hex'), logLeaves: 2 });
  expect(transcript.logBytes).toEqual({ stdout: 3, stderr: 3 });
});

test('the meter chain starts from network, lease, attempt and spec, and each sample hashes the head before it', () => {
  const first = sha(
    'molt/1/meter\n',
    decodeAddress(subject.network),
    decodeAddress(subject.lease),
    Uint8Array.of(3, 0),
    Buffer.from(subject.specDigest, 'hex'),
  );
  const whole = {
    elapsedMs: 1_000,
    cpuMs: 900,
    memoryBytes: 2 ** 33,
    networkRxBytes: 1,
    networkTxBytes: 2,
    blockReadBytes: 3,
    blockWriteBytes: 4,
    gpuPercent: 50,
    gpuMemoryBytes: 2 ** 34,
  };
  const sample = Buffer.alloc(72);
  Object.values(whole).forEach((value, index) => sample.writeBigUInt64LE(BigInt(value), 8 * index));
  const transcript = createTranscript(subject);
  const recorded = transcript.sample({ ...whole, elapsedMs: 1_000.9, cpuMs: 900.2 });
  expect(recorded).toEqual(whole);
  expect(transcript.finish()).toMatchObject({
    meterHead: sha('molt/1/sample\n', first, sample).toString('hex'),
    samples: 1,
  });
  expect(createTranscript(subject).finish().meterHead).toBe(first.toString('hex'));
});

test('no two runs start with the same head', () => {
  const others = [
    subject,
    { ...subject, network: address('x') },
    { ...subject, lease: address('x') },
    { ...subject, attempt: 4 },
    { ...subject, specDigest: digestOf('x') },
  ].map((other) => createTranscript(other).finish().meterHead);
  expect(new Set(others).size).toBe(others.length);
});

test('any other log or other samples, also in another order, give another root or head', () => {
  const step = fc.oneof(
    fc.record({
      stream: fc.constantFrom('stdout' as const, 'stderr' as const),
      bytes: fc.uint8Array({ maxLength: 4 }),
    }),
    fc.record({ elapsedMs: fc.nat(3), cpuMs: fc.nat(3), memoryBytes: fc.nat(3) }).map(usage),
  );
  const run = (steps: readonly (typeof step extends fc.Arbitrary<infer Step> ? Step : never)[]) => {
    const transcript = createTranscript(subject);
    for (const taken of steps) {
      if ('stream' in taken) transcript.log(taken.stream, taken.bytes);
      else transcript.sample(taken);
    }
    return JSON.stringify(transcript.finish());
  };
  const essence = (steps: readonly unknown[]): string =>
    JSON.stringify([
      steps.filter((taken) => Object.hasOwn(taken as object, 'stream')),
      steps.filter((taken) => !Object.hasOwn(taken as object, 'stream')),
    ]);
  fc.assert(
    fc.property(fc.array(step, { maxLength: 5 }), fc.array(step, { maxLength: 5 }), (left, right) => {
      expect(run(left) === run(right)).toBe(essence(left) === essence(right));
    }),
    { numRuns: 500 },
  );
});

test('a finished transcript drops a late sample, says the same again, and refuses a late log', () => {
  const transcript = createTranscript(subject);
  const summary = transcript.finish();
  expect(transcript.sample(usage({ elapsedMs: 1, cpuMs: 1, memoryBytes: 1 }))).toBeUndefined();
  expect(() => transcript.log('stdout', Uint8Array.of(1))).toThrow(
    expect.objectContaining({ code: 'proof/wrong-metering' }),
  );
  expect(transcript.finish()).toEqual(summary);
});

test('what a hostile provider may tell a buyer is refused with a code and leaves the transcript as it was', () => {
  const transcript = createTranscript(subject);
  transcript.log('stdout', new Uint8Array(LIMITS.logChunkBytes));
  const before = { ...transcript.logBytes };
  expect(() => transcript.log('stdout', new Uint8Array(LIMITS.logChunkBytes + 1))).toThrow(
    expect.objectContaining({ code: 'protocol/oversize' }),
  );
  for (const value of [-1, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY]) {
    expect(() => transcript.sample(usage({ elapsedMs: 0, cpuMs: value, memoryBytes: 0 }))).toThrow(
      expect.objectContaining({ code: 'proof/wrong-metering' }),
    );
  }
  expect(transcript.logBytes).toEqual(before);
  expect(transcript.finish()).toMatchObject({ logLeaves: 1, samples: 0 });
  for (const attempt of [-1, 0.5, 65_536]) {
    expect(() => createTranscript({ ...subject, attempt })).toThrow(
      expect.objectContaining({ code: 'protocol/malformed' }),
    );
  }
});
