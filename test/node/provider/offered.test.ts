/** Goal: an offer always fits its limit and says first what can be bought now. Method: the largest content there can be. */
import { expect, test } from 'vitest';

import { offeredOf, sealWhatFits } from '../../../node/provider/offered.ts';
import { decodeEnvelope, sealEnvelope } from '../../../protocol/envelope.ts';
import { LIMITS } from '../../../protocol/limits.ts';
import { FEATURES, type GpuGroup, RUNTIMES, decodeOffer, encodeOffer } from '../../../protocol/messages.ts';
import { U64_MAX, baseUnits } from '../../../protocol/units.ts';
import { NETWORK, NOW, SMALL, key, multiaddrOf, offerContent } from '../../market/fixtures.ts';

const kind = (letter: string, count: number): GpuGroup => ({
  count,
  vramBytes: Number.MAX_SAFE_INTEGER,
  model: letter.repeat(LIMITS.modelCharacters),
  computeCapability: 999,
});

test('kinds of GPU that are free come before those in use, and no more than an offer names', () => {
  const kinds = [kind('a', 0), kind('b', 3), kind('c', 0), kind('d', 1), kind('e', 0)];
  expect(
    offeredOf({ ...SMALL, gpus: kinds })
      .gpus.map(({ model }) => model[0])
      .join(''),
  ).toBe('bdac');
});

test('the largest offer there can be is sealed within its limit, and still names a GPU', () => {
  const signer = key('seller');
  const most = baseUnits(U64_MAX);
  const offer = offerContent(signer, {
    free: {
      cpuMillis: 2 ** 32 - 1,
      memoryBytes: 2 ** 52,
      diskBytes: 2 ** 52,
      gpus: ['a', 'b', 'c', 'd'].map((name) => kind(name, 64)),
    },
    runtimes: RUNTIMES,
    features: FEATURES,
    prices: { base: most, perCpu: most, perGib: most, perGpu: most },
    region: 'r'.repeat(LIMITS.regionCharacters),
    warm: Array.from({ length: LIMITS.warmPerOffer }, (_, index) => index.toString(16).padStart(16, '0')),
    addresses: [multiaddrOf(signer.address), multiaddrOf(signer.address, 65_535)],
  });
  const header = { network: NETWORK, sequence: NOW, issuedMs: NOW, expiresMs: NOW + 60_000 };
  const { bytes } = sealWhatFits(offer, (candidate) => sealEnvelope(signer, 'offer', header, encodeOffer(candidate)));
  expect(bytes.length).toBeLessThanOrEqual(LIMITS.offerBytes);
  const { content } = decodeOffer(decodeEnvelope('offer', bytes, { network: NETWORK, nowMs: NOW }));
  expect(content.free.gpus.length).toBeGreaterThan(0);
  expect(content.addresses).toHaveLength(1);
  expect(content.warm).toEqual([]);
});

test('a small offer keeps everything', () => {
  const signer = key('seller');
  const offer = offerContent(signer, { free: { ...SMALL, gpus: [kind('a', 1)] }, warm: ['00'.repeat(8)] });
  const header = { network: NETWORK, sequence: NOW, issuedMs: NOW, expiresMs: NOW + 60_000 };
  const { bytes } = sealWhatFits(offer, (candidate) => sealEnvelope(signer, 'offer', header, encodeOffer(candidate)));
  expect(decodeOffer(decodeEnvelope('offer', bytes, { network: NETWORK, nowMs: NOW })).content).toEqual(offer);
});
