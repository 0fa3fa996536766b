/**
 * The buyer: run a container or a WebAssembly module on somebody else's machine and pay only for proven work.
 *
 * `const molt = await connect({ rpcUrl, key, budget, bootstrap })`, then `await molt.run(spec, { maxPrice: '2' })`.
 * Reading order: molt.ts is the door; bidding.ts finds providers until one delivers; attempt.ts is one lease
 * from opening to settlement, with what is heard of its run (heard-run.ts) and how it ends (lease-end.ts); lease-client.ts the
 * stream under it; reclaim.ts gets money back from the dead.
 */
export { type Job, type Molt, type OfferRow, connect } from './molt.ts';
export { JobFailedError } from './outcome.ts';
export type { LogQuery } from './follow.ts';
export { hasEvidence } from './evidence.ts';
export { readBids } from './journal.ts';
export { type RunRecord, type RunSeat, readRuns } from './runs.ts';
export type { Forward, ForwardOptions } from './forward.ts';
export {
  type Gang,
  type GangEvent,
  GangFailedError,
  type GangMember,
  type GangOptions,
  type GangRequest,
  type GangResult,
} from './gang.ts';
export type { ConnectOptions, RunOptions } from './options.ts';
export { type ReplicaResults, ReplicasFailedError } from './replicas.ts';
export type { JobEvent, JobOutput, JobResult, LostReplica, ReplicaOutcome } from './progress.ts';
export {
  AUTONOMY,
  type Autonomy,
  type AutonomyName,
  type BidRecord,
  type Change,
  type Explanation,
  type OwnRanking,
  type RankedQuote,
  type Reason as ScoreReason,
  explainBid,
} from '../market/index.ts';
export { type LeaseEnding, readWallet } from '../chain/index.ts';
export type { Address } from '../protocol/address.ts';
export { parseAddress } from '../protocol/address.ts';
export { type KeyPair, keyPairFromSeed } from '../protocol/ed25519.ts';
export { type Env, type Logger, systemEnv } from '../protocol/env.ts';
export { type ErrorCode, MoltError, hasCode } from '../protocol/errors.ts';
export type { LogRecord } from '../protocol/job-log.ts';
export type { Comparator, JobSpec, JobSpecInput } from '../protocol/job-spec.ts';
export type { HardwareTier } from '../protocol/messages.ts';
export { type BaseUnits, formatMolt, parseMolt } from '../protocol/units.ts';
