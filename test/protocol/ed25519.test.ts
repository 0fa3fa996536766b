/**
 * Goal: the one rule. What honest keys sign is accepted here and by the portable implementation alike; what two
 * implementations could disagree about is refused. Method: random and constructed signatures, checked with both.
 */
import { createHash } from 'node:crypto';

import * as noble from '@noble/ed25519';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import { assertSignature, isUsablePublicKey, keyPairFromSeed, verifySignature } from '../../protocol/ed25519.ts';

noble.hashes.sha512 = (bytes) => new Uint8Array(createHash('sha512').update(bytes).digest());

const L = 2n ** 252n + 27742317777372353535851937790883648493n;
const P = 2n ** 255n - 19n;
const seeds = fc.uint8Array({ minLength: 32, maxLength: 32 });
const messages = fc.uint8Array({ maxLength: 200 });

function littleEndian(value: bigint): Uint8Array {
  return Uint8Array.from({ length: 32 }, (_, index) => Number((value >> BigInt(8 * index)) & 0xffn));
}

function fromLittleEndian(bytes: Uint8Array): bigint {
  return bytes.reduceRight((value, byte) => (value << 8n) + BigInt(byte), 0n);
}

/** The most permissive rule in use: what some other peer might accept. */
function zip215Accepts(message: Uint8Array, signature: Uint8Array, publicKey: Uint8Array): boolean {
  return noble.verify(signature, message, publicKey, { zip215: true });
}

/** y of the points of order 1, 2 and 4, with their encodings above the field prime. */
const SMALL_ORDER_Y = [0n, 1n, P - 1n, P, P + 1n];

test('key pairs are those of the portable implementation', () => {
  fc.assert(
    fc.property(seeds, messages, (seed, message) => {
      const pair = keyPairFromSeed(seed);
      expect(pair.publicKey).toEqual(new Uint8Array(noble.getPublicKey(seed)));
      expect(pair.sign(message)).toEqual(new Uint8Array(noble.sign(message, seed)));
    }),
    { numRuns: 20 },
  );
});

test('an honest signature is accepted by both, and by neither after any change of a bit', () => {
  fc.assert(
    fc.property(seeds, messages, fc.nat(511), (seed, message, bit) => {
      const pair = keyPairFromSeed(seed);
      const signature = pair.sign(message);
      expect(verifySignature(message, signature, pair.publicKey)).toBe(true);
      expect(noble.verify(signature, message, pair.publicKey)).toBe(true);
      const changed = signature.slice();
      changed[bit >> 3]! ^= 1 << (bit & 7);
      expect(verifySignature(message, changed, pair.publicKey)).toBe(false);
      expect(noble.verify(changed, message, pair.publicKey)).toBe(false);
      expect(verifySignature(Uint8Array.of(...message, 0), signature, pair.publicKey)).toBe(false);
    }),
    { numRuns: 30 },
  );
});

test('whatever is accepted of random keys and signatures is accepted by the portable implementation too', () => {
  const any64 = fc.uint8Array({ minLength: 64, maxLength: 64 });
  fc.assert(
    fc.property(seeds, any64, messages, (publicKey, signature, message) => {
      const accepted = verifySignature(message, signature, publicKey);
      if (accepted) expect(noble.verify(signature, message, publicKey)).toBe(true);
      expect(accepted).toBe(false);
    }),
    { numRuns: 100 },
  );
});

test('a second signature made by adding the group order is refused', () => {
  const pair = keyPairFromSeed(new Uint8Array(32).fill(7));
  const message = Buffer.from('malleable');
  const signature = pair.sign(message);
  const s = fromLittleEndian(signature.subarray(32)) + L;
  const other = Uint8Array.from([...signature.subarray(0, 32), ...littleEndian(s)]);
  expect(verifySignature(message, other, pair.publicKey)).toBe(false);
});

test('public keys of small order, in every encoding, are no identities', () => {
  const eight = noble.Point.fromBytes(order8Point(), true);
  const points = Array.from({ length: 8 }, (_, index) => (index === 0 ? noble.Point.ZERO : multiple(eight, index)));
  const encodings = new Set(points.map((point) => Buffer.from(point.toBytes()).toString('hex')));
  expect(encodings.size).toBe(8);
  for (const encoding of encodings) expect(isUsablePublicKey(Buffer.from(encoding, 'hex'))).toBe(false);
  for (const y of SMALL_ORDER_Y) {
    const bytes = littleEndian(y);
    expect(isUsablePublicKey(bytes)).toBe(false);
    bytes[31]! |= 0x80;
    expect(isUsablePublicKey(bytes)).toBe(false);
  }
  expect(isUsablePublicKey(new Uint8Array(31))).toBe(false);
  expect(isUsablePublicKey(keyPairFromSeed(new Uint8Array(32)).publicKey)).toBe(true);
});

test('with a small-order key one signature fits every message: ZIP-215 accepts it, the rule does not', () => {
  const identity = littleEndian(1n);
  const signature = Uint8Array.from([...identity, ...new Uint8Array(32)]);
  for (const message of ['pay 1', 'pay 1000'].map((text) => Buffer.from(text))) {
    expect(zip215Accepts(message, signature, identity)).toBe(true);
    expect(verifySignature(message, signature, identity)).toBe(false);
  }
});

test('a signature whose R is of small order is refused, though its equation holds', () => {
  const seed = new Uint8Array(32).fill(9);
  const pair = keyPairFromSeed(seed);
  const message = Buffer.from('small R');
  const hash = createHash('sha512').update(seed).digest();
  hash[0]! &= 248;
  hash[31] = (hash[31]! & 127) | 64;
  const secret = fromLittleEndian(hash.subarray(0, 32));
  const identity = littleEndian(1n);
  const k = fromLittleEndian(createHash('sha512').update(identity).update(pair.publicKey).update(message).digest()) % L;
  const signature = Uint8Array.from([...identity, ...littleEndian((k * secret) % L)]);
  expect(zip215Accepts(message, signature, pair.publicKey)).toBe(true);
  expect(verifySignature(message, signature, pair.publicKey)).toBe(false);
});

test('bytes of other lengths are no signature and no key, and nothing throws', () => {
  const pair = keyPairFromSeed(new Uint8Array(32).fill(3));
  const message = Buffer.from('x');
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
      expect(verifySignature(message, bytes, pair.publicKey)).toBe(false);
      expect(verifySignature(message, pair.sign(message), bytes)).toBe(false);
    }),
  );
});

test('a refused signature is reported with its code', () => {
  const pair = keyPairFromSeed(new Uint8Array(32).fill(3));
  expect(() => assertSignature(Buffer.from('a'), pair.sign(Buffer.from('b')), pair.publicKey)).toThrow(
    expect.objectContaining({ code: 'protocol/bad-signature' }),
  );
});

/** A point of order 8. */
function order8Point(): Uint8Array {
  return Buffer.from('26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05', 'hex');
}

function multiple(point: noble.Point, times: number): noble.Point {
  return Array.from({ length: times }, () => point).reduce((sum, next) => sum.add(next), noble.Point.ZERO);
}
