/**
 * The signed envelope around everything that is gossiped or quoted.
 *
 * Contract: the bytes that were sent are the bytes that are verified and the bytes that are parsed; nothing is
 * re-serialised in between. The signature covers a domain tag of the kind, then the payload, so a signature over an
 * offer can never be read as one over a quote. Edge rule: bytes → `decodeEnvelope` → (cheap admission) →
 * `verifyEnvelope` → `Verified<…>`; everything further inside takes only `Verified`. SPEC.md, "Envelope".
 */
import { createHash } from 'node:crypto';

import { type Address, decodeAddress, encodeAddress } from './address.ts';
import type { Verified } from './brands.ts';
import { type Signer, isUsablePublicKey, verifySignature } from './ed25519.ts';
import { MoltError } from './errors.ts';
import { LIMITS } from './limits.ts';
import { Payload, Signed } from './molt.js';

/** Kinds are append-only. `bytesMax` bounds the whole signed message, `lifetimeMs` the span issue → expiry. */
export const KINDS = {
  offer: { number: 1, bytesMax: LIMITS.offerBytes, lifetimeMs: LIMITS.offerLifetimeMs },
  bid: { number: 2, bytesMax: LIMITS.bidBytes, lifetimeMs: LIMITS.bidLifetimeMs },
  quote: { number: 3, bytesMax: LIMITS.quoteBytes, lifetimeMs: LIMITS.quoteLifetimeMs },
} as const;

export type Kind = keyof typeof KINDS;

export const PROTOCOL_VERSION = 1;

export interface Envelope {
  readonly kind: Kind;
  readonly network: Address;
  readonly signer: Address;
  readonly sequence: number;
  readonly issuedMs: number;
  readonly expiresMs: number;
  readonly body: Uint8Array;
  /** SHA-256 of domain tag and payload, hex: the name of this message. */
  readonly id: string;
  /** The whole signed message as it travelled. */
  readonly bytes: Uint8Array;
}

interface Header {
  readonly network: Address;
  readonly sequence: number;
  readonly issuedMs: number;
  readonly expiresMs: number;
}

/** "molt/1/<kind>\n": first in every signature and every id. */
function domainTag(kind: Kind): Uint8Array {
  return Buffer.from(`molt/${PROTOCOL_VERSION}/${kind}\n`, 'ascii');
}

/** Signs `body` as `kind`. The caller has kept the sequence before calling (write ahead, then sign). */
export function sealEnvelope(signer: Signer, kind: Kind, header: Header, body: Uint8Array): Envelope {
  const payload = Payload.encode({
    version: PROTOCOL_VERSION,
    kind: KINDS[kind].number,
    network: decodeAddress(header.network),
    signer: signer.publicKey,
    sequence: BigInt(header.sequence),
    issuedMs: BigInt(header.issuedMs),
    expiresMs: BigInt(header.expiresMs),
    body,
  });
  const signed = Buffer.concat([domainTag(kind), payload]);
  const bytes = Signed.encode({ payload, signature: signer.sign(signed) });
  if (bytes.length > KINDS[kind].bytesMax) throw oversize(kind, bytes.length);
  return { kind, ...header, signer: signer.address, body, id: hashHex(signed), bytes };
}

/**
 * Bytes → envelope, everything checked but the signature: size, structure, canonical form, version, kind, network, key,
 * clock window and expiry. Errors: those of `parseEnvelope` and of `assertTimely`.
 */
export function decodeEnvelope(kind: Kind, bytes: Uint8Array, at: { network: Address; nowMs: number }): Envelope {
  const envelope = parseEnvelope(kind, bytes, at.network);
  assertTimely(envelope, at.nowMs);
  return envelope;
}

/**
 * What `decodeEnvelope` checks apart from the time: the same for everybody who gets these bytes, whenever. Errors:
 * `protocol/oversize`, `malformed`, `not-canonical`, `wrong-kind`, `wrong-network`.
 */
export function parseEnvelope(kind: Kind, bytes: Uint8Array, of: Address): Envelope {
  if (bytes.length > KINDS[kind].bytesMax) throw oversize(kind, bytes.length);
  const signed = decodeCanonical(Signed, bytes, 'signed message');
  const payload = decodeCanonical(Payload, signed.payload, 'payload');
  if (payload.version !== PROTOCOL_VERSION || payload.kind !== KINDS[kind].number) {
    throw new MoltError(
      'protocol/wrong-kind',
      `expected a ${kind} of version ${PROTOCOL_VERSION}, got kind ${payload.kind} of version ${payload.version}`,
    );
  }
  if (payload.network.length !== 32 || !isUsablePublicKey(payload.signer) || signed.signature.length !== 64) {
    throw new MoltError(
      'protocol/malformed',
      `a ${kind} needs a 32-byte network, a usable 32-byte key and a 64-byte signature`,
    );
  }
  const network = encodeAddress(payload.network);
  if (network !== of) {
    throw new MoltError('protocol/wrong-network', `expected a ${kind} of network ${of}, got one of ${network}`);
  }
  const sequence = toSafeNumber(payload.sequence, 'sequence');
  const issuedMs = toSafeNumber(payload.issuedMs, 'issue time');
  const expiresMs = toSafeNumber(payload.expiresMs, 'expiry');
  return {
    kind,
    network,
    signer: encodeAddress(payload.signer),
    sequence,
    issuedMs,
    expiresMs,
    body: payload.body,
    id: hashHex(Buffer.concat([domainTag(kind), signed.payload])),
    bytes,
  };
}

/** Checks the signature and mints the brand. Throws `protocol/bad-signature`. */
export function verifyEnvelope<Message extends Envelope>(envelope: Message): Verified<Message> {
  const signed = Signed.decode(envelope.bytes);
  const message = Buffer.concat([domainTag(envelope.kind), signed.payload]);
  if (!verifySignature(message, signed.signature, decodeAddress(envelope.signer))) {
    throw new MoltError('protocol/bad-signature', `the ${envelope.kind} is not signed by ${envelope.signer}`, {
      signer: envelope.signer,
    });
  }
  return envelope as Verified<Message>;
}

interface Codec<T> {
  encode(value: Partial<T>): Uint8Array;
  decode(bytes: Uint8Array): T;
}

/** Decodes and insists that the bytes are the only encoding of what they say. */
export function decodeCanonical<T extends object>(codec: Codec<T>, bytes: Uint8Array, what: string): T {
  let value: T;
  try {
    value = codec.decode(bytes);
  } catch (cause) {
    throw new MoltError('protocol/malformed', `${bytes.length} bytes do not decode as a ${what}`, {}, { cause });
  }
  if (!Buffer.from(codec.encode(value)).equals(bytes)) {
    throw new MoltError('protocol/not-canonical', `the ${what} is not in its canonical encoding`);
  }
  return value;
}

/** u64 on the wire → safe integer. Throws `protocol/malformed`. */
export function toSafeNumber(value: bigint, what: string): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER))
    throw new MoltError('protocol/malformed', `the ${what} ${value} is larger than 2^53`);
  return Number(value);
}

/** Throws `protocol/malformed` for an impossible lifetime, `protocol/from-the-future`, `protocol/expired`. */
export function assertTimely({ kind, issuedMs, expiresMs }: Envelope, nowMs: number): void {
  const lifetimeMs = expiresMs - issuedMs;
  if (lifetimeMs <= 0 || lifetimeMs > KINDS[kind].lifetimeMs) {
    throw new MoltError(
      'protocol/malformed',
      `a ${kind} lives 1 … ${KINDS[kind].lifetimeMs} ms, this one ${lifetimeMs}`,
    );
  }
  if (issuedMs > nowMs + LIMITS.clockFutureMs) {
    throw new MoltError(
      'protocol/from-the-future',
      `the ${kind} was issued ${issuedMs - nowMs} ms ahead of our clock; check both clocks`,
    );
  }
  if (expiresMs <= nowMs) throw new MoltError('protocol/expired', `the ${kind} expired ${nowMs - expiresMs} ms ago`);
}

function oversize(kind: Kind, bytes: number): MoltError {
  return new MoltError('protocol/oversize', `a ${kind} has at most ${KINDS[kind].bytesMax} bytes, this one ${bytes}`, {
    bytes,
  });
}

function hashHex(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
