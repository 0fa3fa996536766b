/**
 * Goal: offer, bid and quote say on the far side exactly what was meant, within their limits, in one encoding only.
 * Method: round trips of arbitrary content, every limit broken alone, and damaged bytes.
 */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import { encodeAddress } from '../../protocol/address.ts';
import { keyPairFromSeed } from '../../protocol/ed25519.ts';
import { type Envelope, type Kind, sealEnvelope } from '../../protocol/envelope.ts';
import { MoltError } from '../../protocol/errors.ts';
import { LIMITS } from '../../protocol/limits.ts';
import {
  type Bid,
  type Offer,
  type Quote,
  FEATURES,
  HARDWARE_TIERS,
  RUNTIMES,
  decodeBid,
  decodeOffer,
  decodeQuote,
  encodeBid,
  encodeOffer,
  encodeQuote,
  resourceClassOf,
} from '../../protocol/messages.ts';
import * as wire from '../../protocol/molt.js';
import { U64_MAX, baseUnits } from '../../protocol/units.ts';

const signer = keyPairFromSeed(new Uint8Array(32).fill(1));
const u64 = fc.bigInt(0n, U64_MAX);
const money = u64.map(baseUnits);
const u32 = fc.nat(2 ** 32 - 1);
const address = fc.uint8Array({ minLength: 32, maxLength: 32 }).map(encodeAddress);
const prefix = fc.uint8Array({ minLength: 8, maxLength: 8 }).map((bytes) => Buffer.from(bytes).toString('hex'));
const multiaddrs = fc.array(
  fc.tuple(fc.ipV4(), fc.integer({ min: 1, max: 65_535 })).map(([ip, port]) => `/ip4/${ip}/tcp/${port}`),
  { maxLength: LIMITS.addressesPerMessage },
);
const safe = fc.nat(Number.MAX_SAFE_INTEGER);
const text = (max: number) => fc.string({ maxLength: max });
const resources = fc.record({
  cpuMillis: u32,
  memoryBytes: safe,
  diskBytes: safe,
  gpus: fc.array(
    fc.record({ count: u32, vramBytes: safe, model: text(LIMITS.modelCharacters), computeCapability: u32 }),
    {
      maxLength: LIMITS.gpuKindsPerMessage,
    },
  ),
});
const offers: fc.Arbitrary<Offer> = fc.record({
  provider: address,
  free: resources,
  runtimes: fc.array(fc.constantFrom(...RUNTIMES), { maxLength: RUNTIMES.length }),
  features: fc.array(fc.constantFrom(...FEATURES), { maxLength: FEATURES.length }),
  prices: fc.record({ base: money, perCpu: money, perGib: money, perGpu: money }),
  speed: u32,
  speedMeasuredMs: safe,
  region: text(LIMITS.regionCharacters),
  durationSecondsMax: fc.nat(LIMITS.leaseSeconds),
  hardwareTier: fc.constant('A0' as const),
  warm: fc.array(prefix, { maxLength: LIMITS.warmPerOffer }),
  addresses: multiaddrs,
  revoked: fc.boolean(),
});
const bids: fc.Arbitrary<Bid> = fc.record({
  need: resources,
  runtime: fc.constantFrom(...RUNTIMES),
  features: fc.array(fc.constantFrom(...FEATURES), { maxLength: FEATURES.length }),
  durationSecondsMax: fc.integer({ min: 1, max: LIMITS.leaseSeconds }),
  pricePerSecondMax: money,
  stakeMin: money,
  reserveMin: money,
  region: text(LIMITS.regionCharacters),
  distanceMax: u64,
  finishByMs: fc.nat(2 ** 40).map((seconds) => seconds * 1000),
  startByMs: safe,
  near: fc.array(prefix, { maxLength: LIMITS.nearPerBid }),
  hardwareTierMin: fc.constantFrom(...HARDWARE_TIERS),
  windowMs: fc.nat(2 ** 40).map((seconds) => seconds * 1000),
  quotesWanted: fc.integer({ min: 1, max: LIMITS.quotesWanted }),
  warm: fc.oneof(fc.constant(''), prefix),
  addresses: multiaddrs,
  budget: address,
});
const wholeSeconds = fc.nat(8_640_000_000_000).map((seconds) => seconds * 1000);
const quotes: fc.Arbitrary<Quote> = fc.record({
  bid: fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => Buffer.from(bytes).toString('hex')),
  provider: address,
  pricePerSecond: money,
  amount: money,
  reserve: money,
  openBeforeMs: wholeSeconds,
  finishByMs: wholeSeconds,
  graceMs: wholeSeconds,
  windowMs: wholeSeconds,
  speed: u32,
  warm: fc.boolean(),
  near: fc.array(prefix, { maxLength: LIMITS.nearPerBid }),
  startByMs: safe,
});

function enveloped(kind: Kind, body: Uint8Array): Envelope {
  const network = encodeAddress(new Uint8Array(32));
  const empty = sealEnvelope(signer, kind, { network, sequence: 1, issuedMs: 1, expiresMs: 2 }, new Uint8Array());
  return { ...empty, body };
}

function codeOf(action: () => unknown): string {
  try {
    action();
    return 'accepted';
  } catch (error) {
    if (error instanceof MoltError) return error.code;
    throw error;
  }
}

test('every offer, bid and quote is read as it was written', () => {
  fc.assert(
    fc.property(offers, bids, quotes, (offer, bid, quote) => {
      expect(decodeOffer(enveloped('offer', encodeOffer(offer))).content).toEqual(offer);
      expect(decodeBid(enveloped('bid', encodeBid(bid))).content).toEqual(bid);
      expect(decodeQuote(enveloped('quote', encodeQuote(quote))).content).toEqual(quote);
    }),
    { numRuns: 200 },
  );
});

test('whatever decodes re-encodes to identical bytes, and nothing but a MoltError is thrown', () => {
  const damaged = fc
    .tuple(fc.oneof(offers.map(encodeOffer), bids.map(encodeBid), quotes.map(encodeQuote)), fc.nat(), fc.nat(255))
    .map(([bytes, at, byte]) => Uint8Array.from(bytes, (old, index) => (index === at % bytes.length ? byte : old)));
  fc.assert(
    fc.property(fc.oneof(damaged, fc.uint8Array({ maxLength: 200 })), (body) => {
      for (const again of [
        () => encodeOffer(decodeOffer(enveloped('offer', body)).content),
        () => encodeBid(decodeBid(enveloped('bid', body)).content),
        () => encodeQuote(decodeQuote(enveloped('quote', body)).content),
      ]) {
        const outcome = codeOf(() => expect(Buffer.from(again()).equals(body)).toBe(true));
        expect(['accepted', 'protocol/malformed', 'protocol/not-canonical']).toContain(outcome);
      }
    }),
    { numRuns: 2_000 },
  );
});

const oneOffer = wire.Offer.decode(encodeOffer(fc.sample(offers, { numRuns: 1, seed: 5 })[0]!));
const oneBid = wire.Bid.decode(encodeBid(fc.sample(bids, { numRuns: 1, seed: 5 })[0]!));
const oneQuote = wire.Quote.decode(encodeQuote(fc.sample(quotes, { numRuns: 1, seed: 5 })[0]!));
const gpu = { count: 1, vramBytes: 1n, model: '', computeCapability: 0 };
const plain = { cpuMillis: 1, memoryBytes: 1n, diskBytes: 1n, gpus: [] };

test.each<[string, Partial<wire.Offer>]>([
  ['a provider of 31 bytes', { provider: new Uint8Array(31) }],
  ['a runtime that is not known', { runtimes: [3] }],
  ['runtime zero', { runtimes: [0] }],
  ['a feature that is not known', { features: [99] }],
  ['more features than there are', { features: [1, 2, 3, 4, 1] }],
  ['more runtimes than there are', { runtimes: [1, 2, 1] }],
  ['too many warm digests', { warm: Array.from({ length: 13 }, () => new Uint8Array(8)) }],
  ['a warm digest of 7 bytes', { warm: [new Uint8Array(7)] }],
  ['a long region', { region: 'x'.repeat(13) }],
  ['a long duration', { durationSecondsMax: LIMITS.leaseSeconds + 1 }],
  ['a date beyond 2^53', { speedMeasuredMs: 2n ** 53n }],
  ['too many addresses', { addresses: Array.from({ length: 4 }, () => Uint8Array.of(4, 127, 0, 0, 1)) }],
  ['a long address', { addresses: [new Uint8Array(97)] }],
  ['an address that is none', { addresses: [Uint8Array.of(4, 127)] }],
  ['five kinds of GPU', { free: { ...plain, gpus: [gpu, gpu, gpu, gpu, gpu] } }],
  ['a long GPU model', { free: { ...plain, gpus: [{ ...gpu, model: 'x'.repeat(41) }] } }],
  ['memory beyond 2^53', { free: { ...plain, memoryBytes: 2n ** 53n } }],
  ['a hardware tier that nobody can show', { hardwareTier: 1 }],
])('an offer with %s is malformed', (_what, changes) => {
  expect(codeOf(() => decodeOffer(enveloped('offer', wire.Offer.encode({ ...oneOffer, ...changes }))))).toBe(
    'protocol/malformed',
  );
});

test.each<[string, Partial<wire.Bid>]>([
  ['no quotes wanted', { quotesWanted: 0 }],
  ['too many quotes wanted', { quotesWanted: LIMITS.quotesWanted + 1 }],
  ['no duration', { durationSecondsMax: 0 }],
  ['a long duration', { durationSecondsMax: LIMITS.leaseSeconds + 1 }],
  ['a runtime that is not known', { runtime: 9 }],
  ['a warm digest of 9 bytes', { warm: new Uint8Array(9) }],
  ['a long region', { region: 'x'.repeat(13) }],
  ['a start beyond 2^53', { startByMs: 2n ** 53n }],
  ['a challenge window of half a second', { windowMs: 500n }],
  ['too many inputs', { near: Array.from({ length: 5 }, () => new Uint8Array(8)) }],
  ['a digest of an input with 7 bytes', { near: [new Uint8Array(7)] }],
  ['a hardware tier that there is not', { hardwareTier: 5 }],
])('a bid with %s is malformed', (_what, changes) => {
  expect(codeOf(() => decodeBid(enveloped('bid', wire.Bid.encode({ ...oneBid, ...changes }))))).toBe(
    'protocol/malformed',
  );
});

test.each<[string, Partial<wire.Quote>]>([
  ['a bid id of 31 bytes', { bid: new Uint8Array(31) }],
  ['a provider of 33 bytes', { provider: new Uint8Array(33) }],
  ['a deadline between two seconds', { finishByMs: 1_500n }],
  ['a grace beyond 2^53', { graceMs: 2n ** 60n }],
  ['too many inputs', { near: Array.from({ length: 5 }, () => new Uint8Array(8)) }],
])('a quote with %s is malformed', (_what, changes) => {
  expect(codeOf(() => decodeQuote(enveloped('quote', wire.Quote.encode({ ...oneQuote, ...changes }))))).toBe(
    'protocol/malformed',
  );
});

test('resources with a GPU are of the GPU market', () => {
  const need = { cpuMillis: 1, memoryBytes: 1, diskBytes: 1, gpus: [] };
  expect(resourceClassOf(need)).toBe('cpu');
  expect(resourceClassOf({ ...need, gpus: [{ count: 1, vramBytes: 1, model: '', computeCapability: 0 }] })).toBe('gpu');
});

test('every 64-bit number survives the codec, also around each power of two', () => {
  for (let bit = 0n; bit <= 64n; bit++) {
    for (const value of [2n ** bit - 2n, 2n ** bit - 1n, 2n ** bit, 2n ** bit + 1n]) {
      if (value < 0n || value > U64_MAX) continue;
      expect(wire.Prices.decode(wire.Prices.encode({ base: value })).base).toBe(value);
    }
  }
});
