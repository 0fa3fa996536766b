/**
 * The one Ed25519 rule of the network: OpenSSL verification, and neither the public key nor R of small order.
 *
 * Peers must agree about evidence, so there is one rule everywhere. Published edge-case vectors are accepted by Node and
 * by @noble/ed25519 in different numbers; this rule accepts the intersection that Solana's strict verification accepts
 * too. test/protocol/ed25519.test.ts holds the vectors that must be refused and the cross-check against noble.
 */
import { createPrivateKey, createPublicKey, sign as nodeSign, verify as nodeVerify, type KeyObject } from 'node:crypto';

import { type Address, encodeAddress } from './address.ts';
import { MoltError, assert } from './errors.ts';

/** Something that signs as one node key or wallet. The seed never leaves the closure unless asked by `seed`. */
export interface Signer {
  readonly address: Address;
  readonly publicKey: Uint8Array;
  /** 64-byte Ed25519 signature over exactly these bytes. Callers put a domain tag first. */
  sign(bytes: Uint8Array): Uint8Array;
}

/** A signer whose 32-byte seed is needed by a library that signs itself (libp2p, web3.js). */
export interface KeyPair extends Signer {
  readonly seed: Uint8Array;
}

const PKCS8_PREFIX = Buffer.from('302e020100300506032b657004220420', 'hex');
const SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex');

/** 32 secret bytes → key pair. */
export function keyPairFromSeed(seed: Uint8Array): KeyPair {
  assert(seed.length === 32, 'an Ed25519 seed has 32 bytes');
  const privateKey = createPrivateKey({
    key: Buffer.concat([PKCS8_PREFIX, seed]),
    format: 'der',
    type: 'pkcs8',
  });
  const spki = createPublicKey(privateKey).export({ format: 'der', type: 'spki' });
  const publicKey = new Uint8Array(spki.subarray(SPKI_PREFIX.length));
  return {
    address: encodeAddress(publicKey),
    publicKey,
    seed: seed.slice(),
    sign: (bytes) => new Uint8Array(nodeSign(null, bytes, privateKey)),
  };
}

/**
 * y-coordinates (sign bit cleared) of all encodings, canonical or not, of the eight points of small order:
 * 0, 1, two of order 8, p−1, p, p+1.
 */
const SMALL_ORDER: ReadonlySet<string> = new Set([
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
]);

function isSmallOrder(point: Uint8Array): boolean {
  const masked = Buffer.from(point);
  masked[31] = (masked[31] ?? 0) & 0x7f;
  return SMALL_ORDER.has(masked.toString('hex'));
}

/** True when `publicKey` may be an identity: 32 bytes and not of small order. */
export function isUsablePublicKey(publicKey: Uint8Array): boolean {
  return publicKey.length === 32 && !isSmallOrder(publicKey);
}

/** Verification keys are kept, least recently used first out: rebuilding one costs a fifth of a verification. */
const KEYS_MAX = 8_192;
const keys = new Map<string, KeyObject>();

function keyObject(publicKey: Uint8Array): KeyObject {
  const name = Buffer.from(publicKey).toString('latin1');
  const known = keys.get(name);
  if (known !== undefined) {
    keys.delete(name);
    keys.set(name, known);
    return known;
  }
  const made = createPublicKey({ key: Buffer.concat([SPKI_PREFIX, publicKey]), format: 'der', type: 'spki' });
  keys.set(name, made);
  if (keys.size > KEYS_MAX) {
    for (const oldest of keys.keys()) {
      keys.delete(oldest);
      break;
    }
  }
  return made;
}

/** The rule. Never throws: anything that is not a good signature is false. */
export function verifySignature(bytes: Uint8Array, signature: Uint8Array, publicKey: Uint8Array): boolean {
  if (signature.length !== 64 || !isUsablePublicKey(publicKey) || isSmallOrder(signature.subarray(0, 32))) return false;
  try {
    return nodeVerify(null, bytes, keyObject(publicKey), signature);
  } catch {
    return false;
  }
}

/** Throws `protocol/bad-signature` unless the rule holds. */
export function assertSignature(bytes: Uint8Array, signature: Uint8Array, publicKey: Uint8Array): void {
  if (!verifySignature(bytes, signature, publicKey)) {
    throw new MoltError(
      'protocol/bad-signature',
      'the signature does not verify for this key and these bytes; drop the message',
    );
  }
}
