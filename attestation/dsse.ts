/**
 * DSSE 1.0: the signed envelope in which a proof travels and rests, as JSON.
 *
 * Contract: what is signed is the pre-authentication encoding of type and payload; the decoded payload is what is
 * verified, hashed and parsed, never the envelope's text. `keyid` is a hint that nobody authenticated and nothing trusts.
 */
import { z } from 'zod';

import { LIMITS } from '../protocol/limits.ts';
import { MoltError } from '../protocol/errors.ts';
import type { Signer } from '../protocol/ed25519.ts';

export const PAYLOAD_TYPE = 'application/vnd.in-toto+json';

/** "DSSEv1" SP LEN(type) SP type SP LEN(payload) SP payload; lengths are decimal counts of bytes. */
export function preAuthenticationEncoding(type: string, payload: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from(`DSSEv1 ${Buffer.byteLength(type)} ${type} ${payload.length} `, 'utf8'), payload]);
}

/** Signs `payload` and writes the envelope: UTF-8 JSON with one signature. */
export function sealDsse(signer: Signer, payload: Uint8Array): Uint8Array {
  const signature = signer.sign(preAuthenticationEncoding(PAYLOAD_TYPE, payload));
  const envelope = {
    payload: Buffer.from(payload).toString('base64'),
    payloadType: PAYLOAD_TYPE,
    signatures: [{ keyid: signer.address, sig: Buffer.from(signature).toString('base64') }],
  };
  return new Uint8Array(Buffer.from(JSON.stringify(envelope), 'utf8'));
}

/** Both alphabets, with or without padding. */
const base64 = z
  .string()
  .regex(/^[A-Za-z0-9+/_-]*={0,2}$/)
  .transform((text) => new Uint8Array(Buffer.from(text, 'base64')));

/** Unknown members are ignored, as DSSE asks: they are neither signed nor used. */
const envelopeSchema = z.object({
  payload: base64,
  payloadType: z.literal(PAYLOAD_TYPE),
  signatures: z.tuple([z.object({ sig: base64 })]),
});

export interface OpenedDsse {
  readonly payload: Uint8Array;
  /** Not verified yet. */
  readonly signature: Uint8Array;
}

/** Untrusted bytes → payload and its one signature. Throws `proof/malformed`. */
export function openDsse(bytes: Uint8Array): OpenedDsse {
  if (bytes.length > LIMITS.proofBytes) {
    throw malformedProof(`it has ${bytes.length} bytes, at most ${LIMITS.proofBytes} are allowed`);
  }
  const result = envelopeSchema.safeParse(parseJson(bytes, 'envelope'));
  if (!result.success) throw malformedProof(`the envelope is not DSSE with one signature: ${firstIssue(result.error)}`);
  return { payload: result.data.payload, signature: result.data.signatures[0].sig };
}

/** Strict UTF-8 JSON. Throws `proof/malformed`. */
export function parseJson(bytes: Uint8Array, what: string): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch (cause) {
    throw malformedProof(`the ${what} is not JSON`, cause);
  }
}

export function firstIssue(error: z.ZodError): string {
  const issue = error.issues[0];
  return `${issue?.path.join('.') || 'it'}: ${issue?.message ?? 'is refused'}`;
}

export function malformedProof(what: string, cause?: unknown): MoltError {
  return new MoltError('proof/malformed', `the proof is refused: ${what}`, {}, { cause });
}
