/**
 * Goal: an envelope is accepted only as the very bytes its signer made, in its kind, network and time. Method: one good
 * envelope, every clause broken alone with its code, then properties over random bytes.
 */
import { createHash } from 'node:crypto';

import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import { encodeAddress } from '../../protocol/address.ts';
import { keyPairFromSeed } from '../../protocol/ed25519.ts';
import { KINDS, type Kind, decodeEnvelope, sealEnvelope, verifyEnvelope } from '../../protocol/envelope.ts';
import { MoltError } from '../../protocol/errors.ts';
import { LIMITS } from '../../protocol/limits.ts';
import { Payload, Signed } from '../../protocol/molt.js';

const NOW = 1_800_000_000_000;
const signer = keyPairFromSeed(new Uint8Array(32).fill(1));
const network = encodeAddress(new Uint8Array(32).fill(2));
const at = { network, nowMs: NOW };
const header = { network, sequence: 7, issuedMs: NOW - 1_000, expiresMs: NOW + 1_000 };
const good = sealEnvelope(signer, 'bid', header, Uint8Array.of(1, 2, 3));

function codeOf(action: () => unknown): string {
  try {
    action();
    return 'accepted';
  } catch (error) {
    if (error instanceof MoltError) return error.code;
    throw error;
  }
}

/** The good envelope with another payload, signed again by the same key. */
function resealed(changes: Partial<Payload>): Uint8Array {
  const payload = Payload.encode({ ...Payload.decode(Signed.decode(good.bytes).payload), ...changes });
  return Signed.encode({ payload, signature: signer.sign(Buffer.concat([Buffer.from('molt/1/bid\n'), payload])) });
}

test('what is sealed is decoded and verified, and says the same', () => {
  const decoded = decodeEnvelope('bid', good.bytes, at);
  expect(decoded).toEqual(good);
  expect(verifyEnvelope(decoded).body).toEqual(Uint8Array.of(1, 2, 3));
});

test('the id is SHA-256 over the tag of the kind and the payload, and the signature covers the same', () => {
  const { payload, signature } = Signed.decode(good.bytes);
  const signed = Buffer.concat([Buffer.from('molt/1/bid\n'), payload]);
  expect(good.id).toBe(createHash('sha256').update(signed).digest('hex'));
  expect(signature).toEqual(signer.sign(signed));
});

test.each<[string, Uint8Array, string]>([
  ['more bytes than its kind may have', new Uint8Array(LIMITS.bidBytes + 1), 'protocol/oversize'],
  ['garbage', Uint8Array.of(0xff), 'protocol/malformed'],
  ['nothing', new Uint8Array(), 'protocol/wrong-kind'],
  ['an unknown field', Uint8Array.of(...good.bytes, 0x18, 1), 'protocol/not-canonical'],
  ['another version', resealed({ version: 2 }), 'protocol/wrong-kind'],
  ['another kind', resealed({ kind: KINDS.offer.number }), 'protocol/wrong-kind'],
  ['a network of 31 bytes', resealed({ network: new Uint8Array(31) }), 'protocol/malformed'],
  ['a signer of small order', resealed({ signer: new Uint8Array(32) }), 'protocol/malformed'],
  ['another network', resealed({ network: new Uint8Array(32).fill(3) }), 'protocol/wrong-network'],
  ['a sequence beyond 2^53', resealed({ sequence: 2n ** 53n }), 'protocol/malformed'],
  ['no lifetime', resealed({ expiresMs: BigInt(NOW - 1_000) }), 'protocol/malformed'],
  [
    'a longer lifetime than its kind has',
    resealed({ expiresMs: BigInt(NOW - 1_000 + LIMITS.bidLifetimeMs + 1) }),
    'protocol/malformed',
  ],
  [
    'an issue time ahead of the clock',
    resealed({ issuedMs: BigInt(NOW + 10_001), expiresMs: BigInt(NOW + 10_002) }),
    'protocol/from-the-future',
  ],
  ['an expiry in the past', resealed({ expiresMs: BigInt(NOW) }), 'protocol/expired'],
])('%s is refused', (_what, bytes, code) => {
  expect(codeOf(() => decodeEnvelope('bid', bytes, at))).toBe(code);
});

test('a signature of one kind is none of another, and not one of another key', () => {
  const decoded = decodeEnvelope('bid', resealed({ signer: keyPairFromSeed(new Uint8Array(32)).publicKey }), at);
  expect(codeOf(() => verifyEnvelope(decoded))).toBe('protocol/bad-signature');
  const { payload } = Signed.decode(good.bytes);
  const asOffer = signer.sign(Buffer.concat([Buffer.from('molt/1/offer\n'), payload]));
  const other = decodeEnvelope('bid', Signed.encode({ payload, signature: asOffer }), at);
  expect(codeOf(() => verifyEnvelope(other))).toBe('protocol/bad-signature');
});

test('a body that makes the message too large is refused where it is sealed', () => {
  expect(codeOf(() => sealEnvelope(signer, 'offer', header, new Uint8Array(LIMITS.offerBytes)))).toBe(
    'protocol/oversize',
  );
});

test('every byte counts: a changed, missing or added one is refused', () => {
  const { bytes } = good;
  for (let index = 0; index < bytes.length; index++) {
    for (const changed of [
      Uint8Array.from(bytes, (byte, here) => (here === index ? byte ^ 1 : byte)),
      Uint8Array.from([...bytes.subarray(0, index), ...bytes.subarray(index + 1)]),
      Uint8Array.from([...bytes.subarray(0, index), 0, ...bytes.subarray(index)]),
    ]) {
      expect(codeOf(() => verifyEnvelope(decodeEnvelope('bid', changed, at)))).not.toBe('accepted');
    }
  }
});

test('whatever decodes re-encodes to identical bytes, and nothing but a MoltError is thrown', () => {
  const wrapped = fc
    .record({ payload: fc.uint8Array({ maxLength: 200 }), signature: fc.uint8Array({ maxLength: 80 }) })
    .map((signed) => Signed.encode(signed));
  const mutated = fc
    .tuple(fc.nat(good.bytes.length - 1), fc.nat(255))
    .map(([at, byte]) => Uint8Array.from(good.bytes, (old, index) => (index === at ? byte : old)));
  const kinds = fc.constantFrom(...(Object.keys(KINDS) as Kind[]));
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 300 }), wrapped, mutated), kinds, (bytes, kind) => {
      const outcome = codeOf(() => {
        const envelope = decodeEnvelope(kind, bytes, at);
        expect(Signed.encode(Signed.decode(bytes))).toEqual(bytes);
        expect(Payload.decode(Signed.decode(bytes).payload).body).toEqual(envelope.body);
      });
      expect(outcome).toMatch(/^(?:accepted|protocol\/[a-z-]+)$/);
    }),
    { numRuns: 1_000 },
  );
});
