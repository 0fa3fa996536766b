/** Goal: options of `molt run` say in the specification what they say on the command line, and nothing unasked. */
import { expect, test } from 'vitest';

import { buildSpec, parseMaxPrice, parseReplicas, parseRequest, parseWishes } from '../../../node/cli/job-request.ts';
import { parseJobSpec } from '../../../protocol/job-spec.ts';

const image = `busybox@sha256:${'0'.repeat(64)}`;
const store = { add: () => Promise.reject(new Error('nothing to add')) };

async function specOf(flags: Record<string, unknown>): Promise<ReturnType<typeof parseJobSpec>> {
  return parseJobSpec(await buildSpec(store, await parseRequest(flags, ['true']), new AbortController().signal));
}

test('a stronger sandbox, a working directory and disk are asked for by option', async () => {
  const spec = await specOf({ image, sandbox: true, workdir: '/work', disk: '2G' });
  expect(spec).toMatchObject({ sandbox: true, workdir: '/work', resources: { diskBytes: 2 * 2 ** 30 } });
  const plain = await specOf({ image });
  expect(plain).toMatchObject({ sandbox: false, resources: { diskBytes: 256 * 2 ** 20 } });
  expect(plain).not.toHaveProperty('workdir');
});

test('an input from the web is fetched by the provider, and checked when a digest is given', async () => {
  const sha256 = 'ab'.repeat(32);
  const input = ['https://example.com/a/data.csv', `s3://bucket/key.bin:kept/here#sha256=${sha256}`];
  expect((await specOf({ image, input })).inputs).toEqual([
    { url: 'https://example.com/a/data.csv', path: 'data.csv' },
    { url: 's3://bucket/key.bin', path: 'kept/here', sha256 },
  ]);
});

test('wishes about the provider are read with their units, and what is no number is refused by the flag’s name', () => {
  expect(
    parseWishes({
      finishWithin: '90',
      nearData: true,
      hardwareTier: 'A0',
      startWithin: '20',
      inRegion: 'eu',
      nearRegion: 'eu-w',
      minStake: '1.5',
      reserve: '2',
    }),
  ).toEqual({
    finishWithinSeconds: 90,
    startWithinSeconds: 20,
    nearData: true,
    hardwareTier: 'A0',
    region: 'eu',
    regionWished: 'eu-w',
    minStake: 1_500_000_000n,
    reserve: 2_000_000_000n,
  });
  expect(parseWishes({})).toEqual({});
  expect(() => parseWishes({ finishWithin: 'soon' })).toThrow('--finish-within is "soon", expected a positive number');
});

test('without a highest price a job may cost 2 MOLT for each of its slots or replicas', () => {
  expect(parseMaxPrice({}, 1)).toBe(2_000_000_000n);
  expect(parseMaxPrice({}, 3)).toBe(6_000_000_000n);
  expect(parseMaxPrice({ maxPrice: '2.5' }, 3)).toBe(2_500_000_000n);
});

test('more replicas than a gang has slots are refused before anything is asked', () => {
  expect(parseReplicas({})).toBe(1);
  expect(parseReplicas({ replicas: '16' })).toBe(16);
  expect(() => parseReplicas({ replicas: '17' })).toThrow('--replicas is 17, at most 16 are compared');
});
