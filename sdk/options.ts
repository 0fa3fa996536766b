/** What `connect` and `run` take. */
import type { Autonomy, AutonomyName, OwnRanking } from '../market/index.ts';
import type { Address } from '../protocol/address.ts';
import type { KeyPair } from '../protocol/ed25519.ts';
import type { Env } from '../protocol/env.ts';
import type { HardwareTier } from '../protocol/messages.ts';
import type { BaseUnits } from '../protocol/units.ts';
import type { JobEvent } from './progress.ts';

export interface ConnectOptions {
  /** Solana JSON-RPC endpoint. */
  readonly rpcUrl: string;
  /** The buyer's node key: a delegate of the budget. */
  readonly key: KeyPair;
  /** The budget account that pays. */
  readonly budget: Address;
  /** Multiaddrs of peers to join by. Empty: LAN discovery only. */
  readonly bootstrap: readonly string[];
  /** Where content and fetched outputs are kept; a temporary folder when absent. */
  readonly directory?: string;
  /** Where bids are remembered across restarts, for one client at a time; for as long as the client lives when absent. */
  readonly journal?: string;
  /**
   * For a program that buys on its own: limits on price, spending, jobs at once and providers, by preset or one by one. Needs
   * `journal`, in which spending is counted. What goes beyond them ends with `market/spending-limit`.
   */
  readonly autonomy?: AutonomyName | Autonomy;
  /**
   * Hear only the offers of this region, as providers say of themselves, and bid there: less traffic in a large market, and
   * nothing of the rest of it. Empty or absent: all.
   */
  readonly followRegion?: string;
  /** Program id, when it is not the well-known one. */
  readonly programId?: Address;
  /** Addresses to listen on; by default loopback or, with non-loopback bootstrap peers, all interfaces. */
  readonly listen?: readonly string[];
  readonly mdns?: boolean;
  readonly env?: Env;
  readonly signal?: AbortSignal;
}

export interface RunOptions {
  /** Ceiling for the whole job, base units or text such as "2.5". The lease locks at most this. */
  readonly maxPrice: BaseUnits | string;
  readonly signal?: AbortSignal;
  /** Every step, in order. Must not throw. */
  readonly onEvent?: (event: JobEvent) => void;
  /** Folder that outputs are written to, as <name>; none are fetched when absent. */
  readonly outputDirectory?: string;
  /** Values of the secrets that the spec names. */
  readonly secrets?: Readonly<Record<string, string>>;
  /** Login for the registry of an image that is not public. Only the chosen provider gets it. */
  readonly registry?: { readonly username: string; readonly password: string };
  /** How many quotes to wait for, 1 … 20. Default 5. */
  readonly quotes?: number;
  /**
   * How long to wait for quotes, ms; ends earlier when every provider asked has answered. Default 2,000, and up to 8,000 more
   * where none has come by then, or fewer than there are slots or replicas.
   */
  readonly quoteTimeoutMs?: number;
  /** How many providers to try in all; with `replicas`, how often places are filled. Default 3, or `replicas` + 2. */
  readonly attempts?: number;
  /**
   * Your own order of the quotes: gets them as ranked here, with score and reasons, and gives those that it would take, best
   * first. One that throws, or gives what it was not given, ends the job with `market/ranking-failed`.
   */
  readonly rank?: OwnRanking;
  /** Share of bids in which the lot decides who comes first, 0 … 1, so that newcomers get a turn. Default 0.05. */
  readonly lotShare?: number;
  /**
   * On how many providers, 2 … 16, a job runs at once, to be believed where more than half agree: the others are not
   * paid. `maxPrice` is then for all of them. A container needs a `comparator` in its specification, which says that it
   * repeats. Default 1. A result that too few came to is `proof/no-majority`.
   */
  readonly replicas?: number;
  /**
   * With `replicas`: where no result is that of more than half, every claim is disputed, each with a bond of the budget that
   * is lost where the provider was right. Default false: claims are paid after their window.
   */
  readonly disputeAll?: boolean;
  /** A non-zero exit is returned instead of thrown. Default false. */
  readonly allowFailure?: boolean;
  /** Smallest stake a provider must have. */
  readonly minStake?: BaseUnits;
  /** Stake that must stand behind the lease; by default what the chain asks for. */
  readonly reserve?: BaseUnits;
  /**
   * Seconds from now within which the job must be proven. Providers promise it in their quotes; one that breaks the promise
   * loses stake to the buyer when the lease expires. Retries have what is left of it.
   */
  readonly finishWithinSeconds?: number;
  /**
   * Seconds from a bid within which its provider must have begun the job. Providers promise it in their quotes; one that
   * breaks the promise gives the money back, or is not paid. Each provider that is tried has as long.
   */
  readonly startWithinSeconds?: number;
  /**
   * Tells in the bid, by digests of their CIDs, the first four inputs that come from this client's store: providers that have
   * them say so and rank higher. Everybody who hears the bid learns that a job with these inputs is wanted, if he knows
   * their CIDs; and the provider keeps the inputs after the job until it needs the room. Default false.
   */
  readonly nearData?: boolean;
  /**
   * Least tier of the hardware: what must show that it is what the provider says. So far nobody can show more than A0, the
   * provider's word; a higher one finds nobody. Default A0.
   */
  readonly hardwareTier?: HardwareTier;
  /** Region in which the job must run, as providers say of themselves. */
  readonly region?: string;
  /** Region in which it would better run: counts in ranking, keeps nobody out. */
  readonly regionWished?: string;
  /** How long a silent provider may take to come back before the next one is tried, ms. Default 8,000. */
  readonly reconnectMs?: number;
}
