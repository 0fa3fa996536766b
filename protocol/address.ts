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

/** 32 bytes → base58. Throws `protocol/malformed` on any other length. */
export function encodeAddress(bytes: Uint8Array): Address {
  if (bytes.length !== 32) throw malformed(`${bytes.length} bytes`);
  return base58btc.baseEncode(bytes) as Address;
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
