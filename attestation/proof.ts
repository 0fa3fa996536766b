/**
 * Making and reading a proof: the provider's signed statement over the transcript, and the commit that names it on chain.
 */
import { decodeAddress } from '../protocol/address.ts';
import { encodeCommit } from '../protocol/commit.ts';
import type { Signer } from '../protocol/ed25519.ts';
import { MoltError, assert } from '../protocol/errors.ts';
import { LIMITS } from '../protocol/limits.ts';
import { costOf } from '../protocol/units.ts';
import { openDsse, sealDsse } from './dsse.ts';
import { sha256 } from './log-tree.ts';
import { type ProofFacts, type ProofStatement, decodeStatement, encodeStatement } from './statement.ts';
import { EMPTY_LOG_ROOT, firstHead, hex } from './transcript.ts';

/** A proof that was read, not verified. */
export interface Proof extends ProofStatement {
  /** SHA-256 of the decoded payload, 64 hex digits: the name of the proof, and the result digest on chain. */
  readonly digest: string;
}

export interface SignedProof {
  /** DSSE as JSON, at most LIMITS.proofBytes. */
  readonly envelope: Uint8Array;
  /** 32 bytes. */
  readonly proofDigest: Uint8Array;
  /** 136 bytes of kind `result`, and the operator's 64-byte signature over them. */
  readonly commit: Uint8Array;
  readonly commitSignature: Uint8Array;
}

/**
 * Signs as the operator. Everything is checked as a verifier would, so that nothing leaves that others refuse. The end is
 * moved to where the billed time reaches when the wall clock, set back during the run, says less; the detail becomes one line and is cut.
 * Throws `proof/malformed`, `proof/wrong-metering`.
 */
export function makeProof(request: { readonly signer: Signer; readonly facts: ProofFacts }): SignedProof {
  const { signer, facts } = request;
  assert(facts.operator === signer.address, 'a proof is signed by the operator that it names');
  const payload = encodeStatement({
    ...facts,
    finishedAtMs: Math.max(facts.finishedAtMs, facts.startedAtMs + facts.billedMs),
    exit: { ...facts.exit, detail: oneLine(facts.exit.detail) },
  });
  assertAddsUp(decodeStatement(payload));
  const proofDigest = sha256(payload);
  const envelope = sealDsse(signer, payload);
  const proof = parseProof(envelope);
  const commit = encodeCommit({
    kind: 'result',
    attempt: proof.attempt,
    network: proof.network,
    subject: decodeAddress(proof.lease),
    index: 0n,
    aux: 0n,
    value: proofDigest,
    slot: BigInt(proof.chain?.slot ?? 0),
    account: proof.budget,
  });
  return { envelope, proofDigest, commit, commitSignature: signer.sign(commit) };
}

function oneLine(detail: string): string {
  return detail.replaceAll(/\p{Cc}+/gu, ' ').slice(0, LIMITS.refusalCharacters);
}

/** Untrusted bytes → typed and bounded. Checks no signature: that is `verifyProof`. Throws `proof/malformed`. */
export function parseProof(envelope: Uint8Array): Proof {
  const { payload } = openDsse(envelope);
  return { ...decodeStatement(payload), digest: hex(sha256(payload)) };
}

/** What a proof says of itself must agree with itself. Throws `proof/wrong-metering`. */
export function assertAddsUp(proof: ProofStatement): void {
  const { startedAtMs, finishedAtMs, billedMs, pricePerSecond, locked, claimed, logs, metering } = proof;
  const spanMs = finishedAtMs - startedAtMs;
  if (spanMs < 0 || billedMs > spanMs) {
    throw wrongMetering(`it bills ${billedMs} ms of a run that took ${spanMs} ms`);
  }
  const owed = costOf(billedMs, pricePerSecond, locked);
  if (claimed !== owed) {
    throw wrongMetering(`it claims ${claimed} base units where time and price make ${owed}`);
  }
  const logIsEmpty = logs.leaves === 0;
  if (logIsEmpty !== (logs.root === EMPTY_LOG_ROOT) || (logIsEmpty && logs.stdoutBytes + logs.stderrBytes > 0)) {
    throw wrongMetering(`its log root does not belong to a log of ${logs.leaves} chunks`);
  }
  if ((metering.samples === 0) !== (metering.head === hex(firstHead(proof)))) {
    throw wrongMetering(`its meter head does not belong to a chain of ${metering.samples} samples`);
  }
}

export function wrongMetering(what: string): MoltError {
  return new MoltError('proof/wrong-metering', `the proof does not add up: ${what}; do not pay on it`);
}
