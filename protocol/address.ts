/**
 * Keys and accounts as text: one form for every 32-byte name, the base58 that Solana uses.
 *
 * A node key's public half is at once a Solana address (the operator or delegate on chain) and a libp2p PeerId (on the
 * mesh), so one text names a node everywhere. The PeerId's own text form appears only in multiaddrs.
 */
import { base58btc } from 'multiformats/bases/base58';

import { MoltError } from './errors.ts';

declare const address: unique symbol;

/** Base58 of exactly 32 bytes: a public key or a program-derived account. */
export type Address = string & { readonly [address]: true };

const ALPHABET = Buffer.from('123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz');
const WORDS = 8;
/** Digits are taken three at a time: 58^3 · 2^32 is still a safe integer. 58^45 > 2^256. */
const GROUP = 58 ** 3;
const DIGITS = 45;
const words = new Float64Array(WORDS);
const text = Buffer.alloc(DIGITS);

/**
 * The text is made at once: one that grows by a character at a time is kept by V8 as a chain of its parts, a kilobyte for
 * each address, which was more than half of what an offer took in a book.
 */
function base58Of32(bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, 32);
  for (let index = 0; index < WORDS; index++) words[index] = view.getUint32(4 * index);
  for (let at = DIGITS - 1; at >= 0; at -= 3) {
    let rest = 0;
    for (let index = 0; index < WORDS; index++) {
      const value = rest * 2 ** 32 + (words[index] ?? 0);
      const quotient = Math.floor(value / GROUP);
      words[index] = quotient;
      rest = value - quotient * GROUP;
    }
    text[at] = ALPHABET[rest % 58] ?? 0;
    text[at - 1] = ALPHABET[Math.floor(rest / 58) % 58] ?? 0;
    text[at - 2] = ALPHABET[Math.floor(rest / 58 ** 2)] ?? 0;
  }
  // A zero byte in front is a digit of its own.
  let zeros = 0;
  while (zeros < bytes.length && bytes[zeros] === 0) zeros++;
  let first = 0;
  while (first < DIGITS && text[first] === ALPHABET[0]) first++;
  return text.toString('latin1', first - zeros, DIGITS);
}

/** 32 bytes → base58. Throws `protocol/malformed` on any other length. */
export function encodeAddress(bytes: Uint8Array): Address {
  if (bytes.length !== 32) throw malformed(`${bytes.length} bytes`);
  return base58Of32(bytes) as Address;
}

/** Base58 → 32 bytes. */
export function decodeAddress(text: Address): Uint8Array {
  return base58btc.baseDecode(text);
}

/** Untrusted text → Address. Throws `protocol/malformed`. */
export function parseAddress(text: string): Address {
  if (text.length > 44) throw malformed(`${text.length} characters`);
  let bytes: Uint8Array;
  try {
    bytes = base58btc.baseDecode(text);
  } catch {
    throw malformed('characters outside base58');
  }
  if (bytes.length !== 32 || base58btc.baseEncode(bytes) !== text) throw malformed(`${bytes.length} bytes`);
  return text as Address;
}

function malformed(what: string): MoltError {
  return new MoltError('protocol/malformed', `expected an address, base58 of 32 bytes; got ${what}`);
}
