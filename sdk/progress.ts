/**
 * What a buyer sees while a job is bought and run: one typed event per step, and the result at the end.
 *
 * Progress is told, never derived from log text. The CLI's live list, the demo and `--json` are renderings of these
 * events; `run` returns the `JobResult`.
 */
import type { BidderNews, GangNews } from '../market/index.ts';
import type { Address } from '../protocol/address.ts';
import type { ErrorCode } from '../protocol/errors.ts';
import type { BaseUnits } from '../protocol/units.ts';
import type { UsageSample } from '../protocol/usage.ts';

/** One step. `rank` says whose, where a job runs in several slots at once. */
export type JobEvent = Step & { readonly rank?: number };

type Step =
  | { readonly type: 'mesh-joined'; readonly peers: number }
  /** Offers, bid, quotes, declines, ranking, and a provider that is given up for this job. */
  | BidderNews
  /** Slots of a gang, or replicas, that find providers, open together, or are lost. */
  | GangNews
  /** A run that was cut off goes on: these members have their leases, and what they came to. */
  | { readonly type: 'run-resumed'; readonly startedAtMs: number; readonly ranks: readonly number[] }
  /** A lease that was opened and is given up, because another slot's was not. */
  | {
      readonly type: 'lease-left';
      readonly lease: Address;
      /** Undefined while it is open: it comes back after its deadline. */
      readonly paid: BaseUnits | undefined;
    }
  /** A replica's verified result: so many of the `quorum` that must agree have come to it, this one among them. */
  | {
      readonly type: 'replica-proven';
      readonly resultDigest: string;
      readonly votes: number;
      readonly quorum: number;
    }
  /** Replicas are compared without those that are missing: longer, and a claim would be paid before it could be disputed. */
  | {
      readonly type: 'vote-closed';
      readonly missing: readonly number[];
      readonly code: ErrorCode;
      readonly reason: string;
    }
  /** Replicas by rank: those with the result that is delivered, those with another, and those that came to none. */
  | {
      readonly type: 'replicas-compared';
      readonly agreed: readonly number[];
      readonly outvoted: readonly number[];
      readonly lost: readonly number[];
    }
  /** Replicas came to no result of more than half: who came to what, most votes first, and who to nothing. */
  | {
      readonly type: 'replicas-differ';
      readonly results: readonly { readonly resultDigest: string; readonly ranks: readonly number[] }[];
      readonly lost: readonly number[];
      /** Every claim is disputed. */
      readonly disputing: boolean;
    }
  | {
      readonly type: 'accepted';
      readonly provider: Address;
      readonly node: Address;
      readonly pricePerSecond: BaseUnits;
    }
  | {
      readonly type: 'lease-opened';
      readonly lease: Address;
      readonly transaction: string;
      readonly locked: BaseUnits;
      readonly afterMs: number;
    }
  | {
      readonly type: 'phase';
      readonly phase: string;
      readonly detail: string;
      readonly bytesDone: number;
      readonly bytesTotal: number;
      readonly attempt: number;
    }
  | { readonly type: 'log'; readonly stream: 'stdout' | 'stderr'; readonly bytes: Uint8Array; readonly atMs: number }
  | ({ readonly type: 'usage' } & UsageSample)
  /** A service of the job passed its health check, or does so no longer; then `reason` says what was met. */
  | { readonly type: 'ready'; readonly service: string; readonly ready: boolean; readonly reason: string }
  /** The stream broke; the SDK tries to come back to the same provider before it moves on. */
  | { readonly type: 'provider-silent'; readonly node: Address; readonly reason: string }
  | { readonly type: 'provider-back'; readonly node: Address; readonly fromSequence: number }
  | {
      readonly type: 'proof-verified';
      readonly proofDigest: string;
      readonly billedMs: number;
      readonly cost: BaseUnits;
    }
  | { readonly type: 'outputs'; readonly count: number; readonly sizeBytes: number }
  | {
      readonly type: 'settled';
      readonly lease: Address;
      readonly transaction: string;
      readonly paid: BaseUnits;
      readonly refunded: BaseUnits;
    }
  /** A provider that broke its word claims payment on chain all the same; the claim is disputed. */
  | {
      readonly type: 'lease-disputed';
      readonly lease: Address;
      readonly transaction: string;
      readonly claimed: BaseUnits;
    }
  /** How many verifiers are drawn, have heard this buyer, have committed to a vote, and have revealed it. */
  | {
      readonly type: 'dispute-progress';
      readonly lease: Address;
      readonly drawn: number;
      readonly heard: number;
      readonly committed: number;
      readonly revealed: number;
    }
  /** A dispute is over: how, what the provider was paid, and what of its stake it lost. */
  | {
      readonly type: 'dispute-resolved';
      readonly lease: Address;
      readonly ending: string;
      readonly transaction: string;
      readonly paid: BaseUnits;
      readonly slashed: BaseUnits;
    }
  /** An earlier lease of this buyer was closed after its provider never proved: the money is back. */
  | {
      readonly type: 'lease-expired';
      readonly lease: Address;
      readonly transaction: string;
      readonly refunded: BaseUnits;
    };

export interface JobOutput {
  readonly name: string;
  readonly cid: string;
  readonly sha256: string;
  readonly sizeBytes: number;
  /** Where it was written; absent when the caller asked for no files. */
  readonly path?: string;
}

export interface JobResult {
  readonly exitCode: number | undefined;
  readonly reason: string;
  readonly provider: Address;
  readonly node: Address;
  readonly lease: Address;
  readonly outputs: readonly JobOutput[];
  /** The last 64 kB of each stream, as text; the whole is in the log events. */
  readonly stdout: string;
  readonly stderr: string;
  readonly billedMs: number;
  readonly cost: BaseUnits;
  readonly locked: BaseUnits;
  /** Transaction fees this buyer paid for this job, lamports. */
  readonly lamports: bigint;
  readonly openTransaction: string;
  readonly settleTransaction: string;
  /** The DSSE envelope, as `molt verify` takes it. */
  readonly proof: Uint8Array;
  readonly proofDigest: string;
  /** How many providers were tried. */
  readonly attempts: number;
  /** Of a job with replicas: what became of each, by rank. The other members are those of the first that agreed, but for `cost`. */
  readonly replicas?: readonly ReplicaOutcome[];
}

/** What became of one replica. */
export interface ReplicaOutcome {
  readonly rank: number;
  /** Its provider, its node and its lease; absent where it had none. */
  readonly provider?: Address;
  readonly node?: Address;
  readonly lease?: Address;
  /**
   * `outvoted`: more than half agreed on another result, and it is not paid. `undecided`: no result is that of more than
   * half; it is not settled. `lost`: it came to none.
   */
  readonly outcome: 'agreed' | 'outvoted' | 'undecided' | 'lost';
  readonly cost?: BaseUnits;
  /** Its verified proof, as `molt verify` takes it. */
  readonly proof?: Uint8Array;
  readonly proofDigest?: string;
  /** Of what it came to, 64 hex digits: the same for those that came to the same. */
  readonly resultDigest?: string;
  readonly code?: ErrorCode;
  readonly reason?: string;
  /** Providers that had this place before, were lost and were replaced; first one first. */
  readonly earlier?: readonly LostReplica[];
}

/** A provider that was replaced, and why. */
export interface LostReplica {
  readonly provider: Address;
  readonly node: Address;
  readonly lease: Address;
  readonly code: ErrorCode;
  readonly reason: string;
}
