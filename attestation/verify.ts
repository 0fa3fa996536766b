/**
 * Verifying a proof. The only place that mints `VerifiedProof`.
 *
 * Offline, with nothing but the bytes: form, signature of the operator that the proof names, and that it agrees with
 * itself. With `expected`: that it speaks of the very lease, spec, parties, image, inputs, outputs and transcript that the
 * verifier knows of. What is not expected is not compared, so a buyer states all it knows. None of this shows that the
 * work was done as stated; it shows who states it and what it stakes.
 */
import { type Address, decodeAddress } from '../protocol/address.ts';
import type { VerifiedProof } from '../protocol/brands.ts';
import { COMMIT_BYTES, type DecodedCommit, decodeCommit } from '../protocol/commit.ts';
import { verifySignature } from '../protocol/ed25519.ts';
import { MoltError } from '../protocol/errors.ts';
import type { BaseUnits } from '../protocol/units.ts';
import { PAYLOAD_TYPE, malformedProof, openDsse, preAuthenticationEncoding } from './dsse.ts';
import { type Proof, assertAddsUp, parseProof, wrongMetering } from './proof.ts';
import type { TranscriptSummary } from './transcript.ts';

/** Digests are 64 hex digits. */
export interface ExpectedProof {
  readonly network?: Address;
  readonly lease?: Address;
  readonly budget?: Address;
  readonly buyer?: Address;
  readonly provider?: Address;
  readonly operator?: Address;
  readonly specDigest?: string;
  readonly termsDigest?: string;
  /** The spec's image. */
  readonly image?: string;
  /** All inputs, in any order; by CID, or by URL where only the provider has seen the content. */
  readonly inputs?: readonly { readonly path: string; readonly cid?: string; readonly url?: string }[];
  /** Outputs that the verifier holds; the proof must name each, and may name more. */
  readonly outputs?: readonly { readonly name: string; readonly cid: string }[];
  readonly locked?: BaseUnits;
  readonly pricePerSecond?: BaseUnits;
  /** What its quote promised: Unix ms by which the run began, as the provider's own clock has it. */
  readonly startByMs?: number;
  /** Made by the verifier from the events that it followed. */
  readonly transcript?: TranscriptSummary;
}

export interface VerifyOptions {
  readonly expected?: ExpectedProof;
  /** The commit beside the proof, with its signature; checked when given. */
  readonly commit?: Uint8Array;
  readonly commitSignature?: Uint8Array;
}

/** Throws `proof/malformed`, `proof/bad-signature`, `proof/wrong-metering`, `proof/wrong-binding`, `proof/started-late`. */
export function verifyProof(envelope: Uint8Array, options: VerifyOptions = {}): VerifiedProof<Proof> {
  const proof = parseProof(envelope);
  const { payload, signature } = openDsse(envelope);
  assertSignedBy(proof.operator, preAuthenticationEncoding(PAYLOAD_TYPE, payload), signature, 'proof');
  assertAddsUp(proof);
  if (options.commit !== undefined || options.commitSignature !== undefined) assertCommit(proof, options);
  if (options.expected !== undefined) assertExpected(proof, options.expected);
  return proof as VerifiedProof<Proof>;
}

function assertSignedBy(operator: Address, bytes: Uint8Array, signature: Uint8Array, what: string): void {
  if (!verifySignature(bytes, signature, decodeAddress(operator))) {
    throw new MoltError('proof/bad-signature', `the ${what} is not signed by ${operator}, the operator it names`, {
      operator,
    });
  }
}

function assertCommit(proof: Proof, { commit, commitSignature }: VerifyOptions): void {
  if (commit === undefined || commitSignature === undefined) {
    throw malformedProof('a commit needs its signature, and a signature its commit');
  }
  if (commit.length !== COMMIT_BYTES)
    throw malformedProof(`its commit has ${commit.length} bytes, not ${COMMIT_BYTES}`);
  let decoded: DecodedCommit;
  try {
    decoded = decodeCommit(commit);
  } catch (cause) {
    throw malformedProof('its commit does not decode', cause);
  }
  assertSignedBy(proof.operator, commit, commitSignature, 'commit');
  const prefix = (address: Address, bytes: number): Uint8Array => decodeAddress(address).subarray(0, bytes);
  const commitment: Readonly<Record<string, boolean>> = {
    kind: decoded.kind === 'result',
    attempt: decoded.attempt === proof.attempt,
    network: sameBytes(decoded.networkPrefix, prefix(proof.network, 4)),
    lease: sameBytes(decoded.subject, decodeAddress(proof.lease)),
    index: decoded.index === 0n && decoded.aux === 0n,
    'proof digest': sameBytes(decoded.value, Buffer.from(proof.digest, 'hex')),
    slot: decoded.slot === BigInt(proof.chain?.slot ?? 0),
    budget: sameBytes(decoded.accountPrefix, prefix(proof.budget, 24)),
  };
  for (const [what, agrees] of Object.entries(commitment)) {
    if (!agrees) throw wrongBinding(`its commit carries another ${what}`);
  }
}

function assertExpected(proof: Proof, expected: ExpectedProof): void {
  const { image, inputs, outputs, transcript, startByMs, ...plain } = expected;
  for (const name of Object.keys(plain) as (keyof typeof plain)[]) {
    const wanted = plain[name];
    if (wanted !== undefined && proof[name] !== wanted) {
      throw wrongBinding(`it names ${name} ${proof[name]}, expected ${wanted}`);
    }
  }
  if (image !== undefined && proof.image.reference !== image) {
    throw wrongBinding(`it names image ${proof.image.reference}, expected ${image}`);
  }
  if (inputs !== undefined) assertInputs(proof, inputs);
  for (const { name, cid } of outputs ?? []) {
    const stated = proof.outputs.find((output) => output.name === name);
    if (stated?.cid !== cid) throw wrongBinding(`its output ${name} is ${stated?.cid ?? 'missing'}, expected ${cid}`);
  }
  if (transcript !== undefined) assertTranscript(proof, transcript);
  if (startByMs !== undefined && proof.startedAtMs > startByMs) {
    throw new MoltError(
      'proof/started-late',
      `the proof says that the job began ${proof.startedAtMs - startByMs} ms later than its quote promised; do not pay on it`,
      { startedAtMs: proof.startedAtMs, startByMs },
    );
  }
}

function assertInputs(proof: Proof, inputs: NonNullable<ExpectedProof['inputs']>): void {
  const stated = new Map(proof.inputs.map((input) => [input.path, input]));
  for (const { path, cid, url } of inputs) {
    const found = stated.get(path);
    if (found === undefined || found.url !== url || (cid !== undefined && found.cid !== cid))
      throw wrongBinding(`its input ${path} is ${found?.url ?? found?.cid ?? 'missing'}, expected ${url ?? cid}`);
  }
  if (stated.size !== inputs.length) {
    throw wrongBinding(`it names ${stated.size} inputs, expected ${inputs.length}`);
  }
}

function assertTranscript({ logs, metering }: Proof, transcript: TranscriptSummary): void {
  if (logs.root !== transcript.logRoot || logs.leaves !== transcript.logLeaves) {
    throw wrongMetering(
      `its log has ${logs.leaves} chunks and another root than the ${transcript.logLeaves} chunks received`,
    );
  }
  if (logs.stdoutSha256 !== transcript.stdoutSha256)
    throw wrongMetering('its standard output has another SHA-256 than the bytes received');
  if (metering.head !== transcript.meterHead || metering.samples !== transcript.samples) {
    throw wrongMetering(
      `its meter has ${metering.samples} samples and another head than the ${transcript.samples} samples received`,
    );
  }
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.from(a).equals(b);
}

function wrongBinding(what: string): MoltError {
  return new MoltError('proof/wrong-binding', `the proof is about something else: ${what}; do not pay on it`);
}
