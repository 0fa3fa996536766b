/**
 * attestation: transcript → proof → verification. No I/O.
 *
 * Reading order: `transcript` records a run (with `log-tree` for its output), `statement` says what a proof states,
 * `dsse` is the signed envelope around it, `proof` makes and reads one, `verify` is the only door to `VerifiedProof`,
 * `result` says which runs came to the same, `describe` renders a proof for people, `judge` says who is right in a dispute.
 * A proof is a signed, bound, self-consistent statement: it shows who vouches for what
 * with which stake, and makes lying evident once found out; it does not show that the work was done.
 */
export { type ProofRow, describeProof } from './describe.ts';
export {
  type DisputedLease,
  type Evidence,
  type Ground,
  type Judgement,
  type Observed,
  type Rerun,
  type Verdict,
  assertEvidence,
  contentToRepeat,
  judge,
  judgeRerun,
  notShown,
} from './judge.ts';
export { type LogTree, createLogTree } from './log-tree.ts';
export { type Proof, type SignedProof, makeProof, parseProof } from './proof.ts';
export { resultDigest } from './result.ts';
export { type ProofFacts, type ProofStatement, EXIT_REASONS, PREDICATE_TYPE } from './statement.ts';
export {
  type LogStream,
  type Transcript,
  type TranscriptSubject,
  type TranscriptSummary,
  createTranscript,
} from './transcript.ts';
export { type ExpectedProof, type VerifyOptions, verifyProof } from './verify.ts';
