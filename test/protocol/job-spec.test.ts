/** Goal: what is not stated is safe, what is not known is refused, and a digest names exactly one specification. */
import { createHash } from 'node:crypto';

import * as dagCbor from '@ipld/dag-cbor';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import { MoltError } from '../../protocol/errors.ts';
import {
  type JobSpecInput,
  decodeJobSpec,
  encodeJobSpec,
  comparatorOf,
  featuresOf,
  parseJobSpec,
  specCid,
  specDigest,
  termsDigest,
  warmPrefix,
  wantedEgress,
} from '../../protocol/job-spec.ts';
import { LIMITS } from '../../protocol/limits.ts';

const MODULE = 'bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy';
const IMAGE = `docker.io/library/busybox@sha256:${'ab'.repeat(32)}`;
const wasm: JobSpecInput = { runtime: 'wasm', image: MODULE };
const container: JobSpecInput = { runtime: 'container', image: IMAGE };

function codeOf(action: () => unknown): string {
  try {
    action();
    return 'accepted';
  } catch (error) {
    if (error instanceof MoltError) return error.code;
    throw error;
  }
}

test('what is not stated is the safe value', () => {
  expect(parseJobSpec(wasm)).toEqual({
    version: 1,
    runtime: 'wasm',
    image: MODULE,
    command: [],
    environment: {},
    secrets: [],
    resources: { cpuMillis: 1_000, memoryBytes: 2 ** 29, diskBytes: 2 ** 28, gpus: [] },
    inputs: [],
    outputs: [],
    network: { egress: [] },
    services: [],
    sandbox: false,
    maxDurationSeconds: 600,
    clockMs: 1_767_225_600_000,
  });
});

test.each<[string, object, string]>([
  ['an unknown field', { ...wasm, privileged: true }, 'Unrecognized key'],
  ['no image', { runtime: 'wasm' }, 'image'],
  ['a tag instead of a digest', { runtime: 'container', image: 'busybox:latest' }, 'must be an image by digest'],
  ['an image where a module belongs', { runtime: 'wasm', image: IMAGE }, 'must be a CID'],
  ['a runtime that is not known', { ...wasm, runtime: 'vm' }, 'runtime'],
  ['an absolute path', { ...wasm, inputs: [{ cid: MODULE, path: '/etc/passwd' }] }, 'must be a relative path'],
  ['a path that climbs', { ...wasm, outputs: [{ name: 'a', path: 'x/../../y' }] }, 'must be a relative path'],
  ['an input without a CID', { ...wasm, inputs: [{ cid: 'x', path: 'a' }] }, 'must be a CID'],
  [
    'an input path twice',
    {
      ...wasm,
      inputs: [
        { cid: MODULE, path: 'a' },
        { cid: MODULE, path: 'a' },
      ],
    },
    'has the same name twice',
  ],
  ['a comparator that is not known', { ...container, comparator: 'tolerance' }, 'comparator'],
  ['outputs to compare where there are none', { ...container, comparator: 'outputs' }, 'there are none'],
  ['GPUs for wasm', { ...wasm, resources: { gpus: [{ count: 1, vramBytes: 1 }] } }, 'use runtime "container"'],
  [
    'a GPU in a sandbox',
    { ...container, sandbox: true, resources: { gpus: [{ count: 1 }] } },
    'leave out one of the two',
  ],
  ['network for wasm', { ...wasm, network: { egress: ['example.com:443'] } }, 'use runtime "container"'],
  ['a host without a port', { ...container, network: { egress: ['example.com'] } }, 'must be host:port'],
  ['an address in place of a name', { ...container, network: { egress: ['10.0.0.1:80'] } }, 'must be host:port'],
  ['every name', { ...container, network: { egress: ['*:443'] } }, 'must be host:port'],
  ['a port beyond the last', { ...container, network: { egress: ['example.com:70000'] } }, 'port up to 65535'],
  [
    'a port twice',
    {
      ...container,
      services: [
        { name: 'a', port: 80 },
        { name: 'b', port: 80 },
      ],
    },
    'has the same name twice',
  ],
  ['health of no service', { ...container, health: { service: 'web' } }, 'is not one of the services'],
  ['an input over plain http', { ...wasm, inputs: [{ url: 'http://example.com/a', path: 'a' }] }, 'inputs'],
  ['a password in a URL', { ...wasm, inputs: [{ url: 'https://u:p@example.com/a', path: 'a' }] }, 'inputs'],
  ['a bucket without a key', { ...wasm, inputs: [{ url: 's3://bucket/', path: 'a' }] }, 'inputs'],
  ['an address in a URL', { ...wasm, inputs: [{ url: 'https://127.0.0.1/a', path: 'a' }] }, 'at a named host'],
  ['a name of this machine in a URL', { ...wasm, inputs: [{ url: 'https://localhost/a', path: 'a' }] }, 'inputs'],
  ['no time', { ...wasm, maxDurationSeconds: 0 }, 'maxDurationSeconds'],
  ['more time than a lease', { ...wasm, maxDurationSeconds: LIMITS.leaseSeconds + 1 }, 'maxDurationSeconds'],
  ['a strange variable', { ...wasm, environment: { 'A=B': 'x' } }, 'environment'],
  ['half a byte', { ...wasm, resources: { memoryBytes: 2 ** 20 + 0.5 } }, 'resources.memoryBytes'],
])('%s is refused by name', (_what, spec, reason) => {
  expect(() => parseJobSpec(spec)).toThrow(
    expect.objectContaining({ code: 'protocol/invalid-spec', message: expect.stringContaining(reason) }),
  );
});

test('what a job needs to reach is its rules and where its inputs by URL really are, each once', () => {
  const spec = parseJobSpec({
    ...container,
    network: { egress: ['api.example.com:8443', '*.example.org:443'] },
    inputs: [
      { cid: MODULE, path: 'stored' },
      { url: 'https://Data.example.com/a?key=secret', path: 'a' },
      { url: 'https://data.example.com/b', path: 'b' },
      { url: 'https://api.example.com:8443/c', path: 'c' },
      { url: 's3://bucket/key', path: 'd' },
    ],
  });
  expect(wantedEgress(spec)).toEqual([
    'api.example.com:8443',
    '*.example.org:443',
    'data.example.com:443',
    'bucket.s3.amazonaws.com:443',
  ]);
});

test('what is encoded is decoded, and its digest and CID are those of the bytes', () => {
  const spec = parseJobSpec({
    runtime: 'container',
    image: IMAGE,
    command: ['sh', '-c', 'echo é'],
    environment: { B: '2', A: '1' },
    secrets: ['token'],
    resources: { gpus: [{ count: 2, vramBytes: 24e9 }] },
    inputs: [{ cid: MODULE, path: 'a/b' }],
    outputs: [{ name: 'out', path: 'result' }],
    fuel: 5,
  });
  const bytes = encodeJobSpec(spec);
  expect(decodeJobSpec(bytes)).toEqual(spec);
  expect(Buffer.from(specDigest(bytes))).toEqual(createHash('sha256').update(bytes).digest());
  expect(specCid(bytes)).toMatch(/^bafyrei/);
});

test('what a job needs beyond a runtime is read off its specification', () => {
  expect(featuresOf(parseJobSpec(wasm))).toEqual([]);
  const spec = parseJobSpec({
    ...container,
    network: { egress: ['*.example.com:443'] },
    services: [{ name: 'web', port: 8080 }],
    health: { service: 'web', path: '/healthz' },
    sandbox: true,
    inputs: [{ url: 's3://bucket/key', path: 'data' }],
  });
  expect(featuresOf(spec)).toEqual(['egress', 'services', 'sandbox', 'fetch']);
  expect(decodeJobSpec(encodeJobSpec(spec))).toEqual(spec);
});

test('the same specification has one encoding, in whatever order it was written', () => {
  const spec = parseJobSpec({ ...wasm, environment: { B: '2', A: '1' } });
  const other = parseJobSpec({ environment: { A: '1', B: '2' }, image: MODULE, runtime: 'wasm', fuel: undefined });
  expect(encodeJobSpec(other)).toEqual(encodeJobSpec(spec));
});

test.each<[string, () => Uint8Array, string]>([
  ['too many bytes', () => new Uint8Array(LIMITS.specBytes + 1), 'protocol/oversize'],
  ['no dag-cbor', () => Uint8Array.of(0xff), 'protocol/malformed'],
  ['bytes after the end', () => Uint8Array.of(...encodeJobSpec(parseJobSpec(wasm)), 0), 'protocol/malformed'],
  ['another value', () => dagCbor.encode('spec'), 'protocol/invalid-spec'],
  ['defaults left out', () => dagCbor.encode(wasm), 'protocol/not-canonical'],
  ['unsorted keys', () => swapKeys(encodeJobSpec(parseJobSpec(wasm))), 'protocol/not-canonical'],
])('%s is refused', (_what, make, code) => {
  expect(codeOf(() => decodeJobSpec(make()))).toBe(code);
});

/** Two members of the map, both of one length, in the wrong order. */
function swapKeys(bytes: Uint8Array): Uint8Array {
  const text = Buffer.from(bytes).toString('latin1');
  const [inputs, outputs] = ['\x66inputs\x80', '\x67outputs\x80'];
  expect(text).toContain(inputs);
  expect(text).toContain(outputs);
  return Buffer.from(text.replace(inputs, '#').replace(outputs, inputs).replace('#', outputs), 'latin1');
}

test('whatever decodes re-encodes to identical bytes, and nothing but a MoltError is thrown', () => {
  const good = encodeJobSpec(parseJobSpec({ ...wasm, inputs: [{ cid: MODULE, path: 'a' }] }));
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc
      .tuple(fc.nat(good.length - 1), fc.nat(255))
      .map(([at, byte]) => Uint8Array.from(good, (old, index) => (index === at ? byte : old))),
  );
  fc.assert(
    fc.property(bytes, (candidate) => {
      const outcome = codeOf(() => {
        expect(Buffer.from(encodeJobSpec(decodeJobSpec(candidate))).equals(candidate)).toBe(true);
      });
      expect(outcome).toMatch(/^(?:accepted|protocol\/(?:malformed|not-canonical|invalid-spec))$/);
    }),
    { numRuns: 2_000 },
  );
});

test('terms bind the quote and the specification', () => {
  const quote = 'ab'.repeat(32);
  const spec = specDigest(encodeJobSpec(parseJobSpec(wasm)));
  const terms = (id: string, digest: Uint8Array): string => Buffer.from(termsDigest(id, digest)).toString('hex');
  const expected = createHash('sha256')
    .update('molt/1/terms\n')
    .update(Buffer.from(quote, 'hex'))
    .update(spec)
    .digest('hex');
  expect(terms(quote, spec)).toBe(expected);
  expect(terms('ac'.repeat(32), spec)).not.toBe(expected);
  expect(terms(quote, new Uint8Array(32))).not.toBe(expected);
});

test('an image is told as warm by the first eight bytes of its hash', () => {
  expect(warmPrefix(MODULE)).toBe(createHash('sha256').update(MODULE).digest('hex').slice(0, 16));
});

test('a wasm job repeats exactly, a container only as far as its buyer says', () => {
  const outputs = [{ name: 'a', path: 'a' }];
  expect(comparatorOf(parseJobSpec(wasm))).toBe('exact');
  expect(comparatorOf(parseJobSpec({ ...wasm, outputs, comparator: 'outputs' }))).toBe('outputs');
  expect(comparatorOf(parseJobSpec(container))).toBeUndefined();
  expect(comparatorOf(parseJobSpec({ ...container, comparator: 'exact' }))).toBe('exact');
  // What is not said is not stated either: the digest of a specification without one stays what it was.
  const said = dagCbor.decode(encodeJobSpec(parseJobSpec(container)));
  expect(said).not.toHaveProperty('comparator');
});
