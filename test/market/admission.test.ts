/**
 * Goal: nothing enters the market that is unsigned, wrongly signed, expired, replayed, oversized or garbage, and nobody
 * can use a forged message against an honest node. Method: real signed messages, each broken in one way, then properties.
 */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import { type Admission, type AdmissionLimits, ADMISSION_LIMITS, createAdmission } from '../../market/index.ts';
import { Payload, Signed } from '../../protocol/molt.js';
import { address, bidBytes, bidContent, key, multiaddrOf, NETWORK, NOW, offerBytes, seal } from './fixtures.ts';
import { encodeBid } from '../../protocol/messages.ts';

const provider = key('provider');
const buyer = key('buyer');
const forwarder = key('forwarder').address;

function admission(limits: Partial<AdmissionLimits> = {}): Admission {
  return createAdmission({ network: NETWORK, limits });
}

function flip(bytes: Uint8Array, index: number): Uint8Array {
  const changed = bytes.slice();
  changed[index] = (changed[index] ?? 0) ^ 1;
  return changed;
}

test('a signed, live, new offer is accepted and comes out typed', () => {
  const result = admission().offer(offerBytes(provider), forwarder, NOW);
  expect(result.verdict).toEqual({ verdict: 'accept' });
  expect(result.message?.signer).toBe(provider.address);
  expect(result.message?.content.addresses).toEqual([multiaddrOf(provider.address)]);
});

test('a signed, live, new bid is accepted, also from a bidder without addresses', () => {
  const result = admission().bid(bidBytes(buyer), forwarder, NOW);
  expect(result.verdict.verdict).toBe('accept');
  expect(result.message?.content.quotesWanted).toBe(5);
});

test.each([
  ['garbage', Uint8Array.of(1, 2, 3), 'reject', 'protocol/malformed'],
  ['nothing', new Uint8Array(), 'reject', 'protocol/wrong-kind'],
  ['an oversized message', new Uint8Array(513), 'reject', 'protocol/oversize'],
  [
    'a broken signature',
    flip(offerBytes(provider), offerBytes(provider).length - 1),
    'reject',
    'protocol/bad-signature',
  ],
  ['an expired message', offerBytes(provider, { issuedMs: NOW - 40_000 }), 'ignore', 'protocol/expired'],
  ['a message from the future', offerBytes(provider, { issuedMs: NOW + 10_001 }), 'ignore', 'protocol/from-the-future'],
  ['another network', offerBytes(provider, { network: address('other') }), 'reject', 'protocol/wrong-network'],
  ['a bid where an offer belongs', bidBytes(buyer), 'reject', 'protocol/wrong-kind'],
  [
    'an address of somebody else',
    offerBytes(provider, {}, { addresses: [multiaddrOf(buyer.address)] }),
    'reject',
    'protocol/malformed',
  ],
] as const)('%s is refused by the offers topic', (_what, bytes, verdict, code) => {
  const result = admission().offer(bytes, forwarder, NOW);
  expect(result.verdict).toMatchObject({ verdict, code });
  expect(result.message).toBeUndefined();
});

test('a bid that asks for nothing is refused', () => {
  const need = { cpuMillis: 0, memoryBytes: 1, diskBytes: 0, gpus: [] };
  const result = admission().bid(bidBytes(buyer, {}, { need }), forwarder, NOW);
  expect(result.verdict).toMatchObject({ verdict: 'reject', code: 'protocol/malformed' });
});

test('a message without a signature is refused', () => {
  const { payload } = Signed.decode(offerBytes(provider));
  const unsigned = Signed.encode({ payload, signature: new Uint8Array() });
  const blank = Signed.encode({ payload, signature: new Uint8Array(64) });
  expect(admission().offer(unsigned, forwarder, NOW).verdict).toMatchObject({ code: 'protocol/malformed' });
  expect(admission().offer(blank, forwarder, NOW).verdict).toMatchObject({ code: 'protocol/bad-signature' });
});

test('a small-order key, for which one signature fits many messages, is no identity', () => {
  const { payload } = Signed.decode(offerBytes(provider));
  const identity = new Uint8Array(32);
  identity[0] = 1;
  const forged = Payload.encode({ ...Payload.decode(payload), signer: identity });
  const signature = new Uint8Array(64);
  signature[0] = 1;
  const result = admission().offer(Signed.encode({ payload: forged, signature }), forwarder, NOW);
  expect(result.verdict).toMatchObject({ verdict: 'reject', code: 'protocol/malformed' });
});

test('the same message, and an older one, are ignored the second time', () => {
  const node = admission();
  expect(node.offer(offerBytes(provider, { sequence: 5 }), forwarder, NOW).verdict.verdict).toBe('accept');
  for (const sequence of [5, 4, 0]) {
    const result = node.offer(offerBytes(provider, { sequence }), forwarder, NOW);
    expect(result.verdict).toMatchObject({ verdict: 'ignore', code: 'protocol/replayed' });
  }
});

test('offers and bids of one signer count their sequences apart', () => {
  const node = admission();
  expect(node.offer(offerBytes(provider, { sequence: 9 }), forwarder, NOW).verdict.verdict).toBe('accept');
  expect(node.bid(bidBytes(provider, { sequence: 1 }), forwarder, NOW).verdict.verdict).toBe('accept');
});

test('an origin gets a burst of three offers, then one in five seconds', () => {
  const node = admission();
  const verdicts = [1, 2, 3, 4].map(
    (sequence) => node.offer(offerBytes(provider, { sequence }), forwarder, NOW).verdict.verdict,
  );
  expect(verdicts).toEqual(['accept', 'accept', 'accept', 'ignore']);
  const early = node.offer(offerBytes(provider, { sequence: 5 }), forwarder, NOW + 4_999).verdict;
  expect(early).toMatchObject({
    code: 'market/rate-limited',
    reason: expect.stringContaining('more than one offer in 5 s'),
  });
  expect(node.offer(offerBytes(provider, { sequence: 5 }), forwarder, NOW + 5_000).verdict.verdict).toBe('accept');
});

test('an origin gets a burst of ten bids, then one a second', () => {
  const node = admission();
  const send = (sequence: number, atMs: number): string =>
    node.bid(bidBytes(buyer, { sequence, issuedMs: atMs }), forwarder, atMs).verdict.verdict;
  const burst = Array.from({ length: 11 }, (_, index) => send(index + 1, NOW));
  expect(burst.filter((verdict) => verdict === 'accept')).toHaveLength(10);
  expect([send(20, NOW + 1_000), send(21, NOW + 1_000), send(22, NOW + 2_000)]).toEqual(['accept', 'ignore', 'accept']);
});

test('fifty offers of strangers pass at once, whoever brought them, and a pull is not counted', () => {
  const node = admission();
  const signers = Array.from({ length: 60 }, (_, index) => key(`signer ${index}`));
  const from = (index: number): typeof forwarder => key(`forwarder ${index % 3}`).address;
  const verdicts = signers.map((signer, index) => node.offer(offerBytes(signer), from(index), NOW).verdict.verdict);
  expect(verdicts.filter((verdict) => verdict === 'accept')).toHaveLength(50);
  const late = signers[55]!;
  expect(node.offer(offerBytes(late), forwarder, NOW)).toMatchObject({
    verdict: { code: 'market/rate-limited', reason: expect.stringContaining('all peers together') },
    doubt: { from: forwarder, isExcess: false },
  });
  expect(node.offer(offerBytes(late), undefined, NOW).verdict.verdict).toBe('accept');
});

test('what was pulled uses up nothing of what its origin may say itself', () => {
  const node = admission();
  for (let sequence = 1; sequence <= 5; sequence++)
    expect(node.offer(offerBytes(provider, { sequence }), undefined, NOW).verdict.verdict).toBe('accept');
  for (let sequence = 6; sequence <= 8; sequence++)
    expect(node.offer(offerBytes(provider, { sequence }), forwarder, NOW).verdict.verdict).toBe('accept');
  expect(node.offer(offerBytes(provider, { sequence: 9 }), forwarder, NOW).verdict).toMatchObject({
    code: 'market/rate-limited',
  });
});

test('forged messages use up neither the bucket nor the sequences of the node they claim to be from', () => {
  const node = admission();
  for (let sequence = 100; sequence < 120; sequence++) {
    const bytes = offerBytes(provider, { sequence });
    const forged = flip(bytes, bytes.length - 1);
    expect(node.offer(forged, forwarder, NOW).verdict).toMatchObject({ code: 'protocol/bad-signature' });
  }
  expect(node.offer(offerBytes(provider, { sequence: 1 }), forwarder, NOW).verdict.verdict).toBe('accept');
});

test('a clock that steps back neither refills a bucket nor locks it', () => {
  const node = admission({ offersPerOrigin: { perSecond: 1, burst: 1 } });
  const send = (sequence: number, nowMs: number): string =>
    node.offer(offerBytes(provider, { sequence, issuedMs: NOW - 15_000 }), forwarder, nowMs).verdict.verdict;
  expect(send(1, NOW)).toBe('accept');
  expect(send(2, NOW - 10_000)).toBe('ignore');
  expect(send(3, NOW - 9_000)).toBe('accept');
});

test('memory for signers is bounded, and a forgotten signer still cannot be replayed', () => {
  const node = admission({ signersMax: 4 });
  const all = Array.from({ length: 20 }, (_, index) =>
    offerBytes(key(`stranger ${index}`), { issuedMs: NOW + index, sequence: 1 }),
  );
  for (const bytes of all) expect(node.offer(bytes, undefined, NOW + 100).verdict.verdict).toBe('accept');
  for (const bytes of all) {
    expect(node.offer(bytes, undefined, NOW + 100).verdict).toMatchObject({ code: 'protocol/replayed' });
  }
  const fresh = offerBytes(key('stranger 0'), { issuedMs: NOW + 100, sequence: 2 });
  expect(node.offer(fresh, undefined, NOW + 100).verdict.verdict).toBe('accept');
});

test('admission never throws and accepts nothing out of random bytes', () => {
  const most = { perSecond: 1e9, burst: 1e9 };
  const node = admission({ offersPerForwarder: { perSecond: 2e9, burst: 2e9 }, offersInAll: most });
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 1200 }), (bytes) => {
      expect(node.offer(bytes, forwarder, NOW).message).toBeUndefined();
      expect(node.bid(bytes, forwarder, NOW).message).toBeUndefined();
    }),
    { numRuns: 500 },
  );
});

test('admission never throws and accepts nothing signed that was changed anywhere', () => {
  const bytes = bidBytes(
    buyer,
    {},
    { addresses: [multiaddrOf(buyer.address)], region: 'eu', warm: '0011223344556677' },
  );
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: bytes.length - 1 }),
      fc.integer({ min: 1, max: 255 }),
      fc.constantFrom('change', 'cut', 'insert'),
      (at, difference, how) => {
        const changed = {
          change: Uint8Array.from(bytes, (byte, index) => (index === at ? byte ^ difference : byte)),
          cut: bytes.subarray(0, at),
          insert: Uint8Array.from([...bytes.subarray(0, at), difference, ...bytes.subarray(at)]),
        }[how];
        expect(admission().bid(changed, forwarder, NOW).message).toBeUndefined();
      },
    ),
    { numRuns: 1_000 },
  );
});

test('a signed message with any body at all is refused or typed, never an exception', () => {
  const node = admission({ bidsPerOrigin: { perSecond: 1e9, burst: 1e9 } });
  let sequence = 0;
  const good = encodeBid(bidContent());
  const body = fc.oneof(
    fc.uint8Array({ maxLength: 700 }),
    fc
      .tuple(fc.nat(good.length - 1), fc.nat(255))
      .map(([at, byte]) => Uint8Array.from(good, (old, index) => (index === at ? byte : old))),
  );
  fc.assert(
    fc.property(body, (bytes) => {
      sequence++;
      const { verdict, message } = node.bid(seal(buyer, 'bid', bytes, { sequence }), undefined, NOW);
      if (message === undefined) expect(verdict).toMatchObject({ verdict: 'reject' });
      else expect(Buffer.from(encodeBid(message.content)).equals(bytes)).toBe(true);
    }),
    { numRuns: 500 },
  );
});

test('in any order of sending, each sequence of a signer is accepted at most once and only upwards', () => {
  const wide = { ...ADMISSION_LIMITS, bidsPerOrigin: { perSecond: 1e9, burst: 1e9 }, signersMax: 2 };
  const messages = [0, 1, 2].flatMap((signer) =>
    [1, 2, 3].map((sequence) => ({
      signer,
      sequence,
      bytes: bidBytes(key(`bidder ${signer}`), { sequence, issuedMs: NOW + sequence }),
    })),
  );
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...messages), { maxLength: 30 }), (sent) => {
      const node = admission(wide);
      const newest = [0, 0, 0];
      for (const { signer, sequence, bytes } of sent) {
        if (node.bid(bytes, undefined, NOW + 10).message === undefined) continue;
        expect(sequence).toBeGreaterThan(newest[signer]!);
        newest[signer] = sequence;
      }
    }),
    { numRuns: 100 },
  );
});

test('who says two things under one sequence number is convicted, and nothing of it is taken for a while', () => {
  const node = admission();
  expect(node.offer(offerBytes(provider, { sequence: 7 }), forwarder, NOW).verdict.verdict).toBe('accept');
  const other = offerBytes(provider, { sequence: 7 }, { region: 'elsewhere' });
  const forged = flip(other, other.length - 1);
  expect(node.offer(forged, undefined, NOW)).toMatchObject({ verdict: { code: 'protocol/bad-signature' } });
  expect(node.offer(other, forwarder, NOW)).toMatchObject({
    verdict: { verdict: 'ignore', code: 'market/equivocated' },
    convicted: provider.address,
  });
  const later = offerBytes(provider, { sequence: 8, issuedMs: NOW + 1 });
  expect(node.offer(later, forwarder, NOW + 1).verdict).toMatchObject({ code: 'market/equivocated' });
  const after = NOW + 11 * 60_000;
  expect(node.offer(offerBytes(provider, { sequence: 9, issuedMs: after }), forwarder, after).verdict.verdict).toBe(
    'accept',
  );
});
