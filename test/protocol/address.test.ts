/** Goal: one text per key. Method: round trips, and every near miss refused. */
import * as fc from 'fast-check';
import { base58btc } from 'multiformats/bases/base58';
import { expect, test } from 'vitest';

import { type Address, decodeAddress, encodeAddress, parseAddress } from '../../protocol/address.ts';

const malformed = expect.objectContaining({ code: 'protocol/malformed' });

test('32 bytes become a text that is read back to the same bytes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (bytes) => {
      const text = encodeAddress(bytes);
      expect(parseAddress(text)).toBe(text);
      expect(decodeAddress(text)).toEqual(bytes);
    }),
  );
  expect(encodeAddress(new Uint8Array(32).fill(255))).toBe('JEKNVnkbo3jma5nREBBJCDoXFVeKkD56V3xKrvRmWxFG' as Address);
  expect(encodeAddress(new Uint8Array(32))).toBe('11111111111111111111111111111111' as Address);
});

test('the text is the base58 of everybody else, however many zero bytes are in front', () => {
  for (let zeros = 0; zeros <= 32; zeros++) {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 32 - zeros, maxLength: 32 - zeros }), (rest) => {
        const bytes = new Uint8Array(32);
        bytes.set(rest, zeros);
        expect(encodeAddress(bytes)).toBe(base58btc.baseEncode(bytes) as Address);
      }),
      { numRuns: 20 },
    );
  }
});

test.each([
  '',
  '1',
  '1'.repeat(31),
  '1'.repeat(33),
  '0'.repeat(32),
  'l'.repeat(44),
  'z'.repeat(45),
  ` ${'1'.repeat(32)}`,
])('"%s" is no address', (text) => {
  expect(() => parseAddress(text)).toThrow(malformed);
});

test('other lengths than 32 bytes have no address', () => {
  for (const length of [0, 31, 33]) expect(() => encodeAddress(new Uint8Array(length))).toThrow(malformed);
});

test('random text is refused or is the one text of its bytes, and nothing else is thrown', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 50 }), (text) => {
      try {
        expect(encodeAddress(decodeAddress(parseAddress(text)))).toBe(text);
      } catch (error) {
        expect(error).toEqual(malformed);
      }
    }),
  );
});
