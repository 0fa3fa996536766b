/**
 * Where the replicas of one job meet: each brings its verified proof and waits until more than half came to the same
 * result, which is then paid, or until the vote is held without those that are still missing. The decision is
 * `market/quorum.ts`; this is the waiting.
 *
 * A proof goes to the buyer alone and names outputs that nobody else can fetch, so a replica cannot copy what another one
 * found. Which results are equal the comparator of the specification says, and `resultDigest` with it.
 */
import { type Proof, resultDigest } from '../attestation/index.ts';
import { type Ballot, decideBallot, quorumOf } from '../market/index.ts';
import type { Address } from '../protocol/address.ts';
import type { VerifiedProof } from '../protocol/brands.ts';
import { MoltError } from '../protocol/errors.ts';
import type { Comparator } from '../protocol/job-spec.ts';
import type { JobEvent, JobOutput } from './progress.ts';

/** What one replica came to, as it waits to be compared. */
export interface ReplicaResult {
  readonly proof: VerifiedProof<Proof>;
  /** SHA-256 of all that the program printed to standard output, hex. */
  readonly stdoutSha256: string;
  /** The DSSE envelope of the proof. */
  readonly envelope: Uint8Array;
}

/** A verified proof, as it is kept, and the name of what it came to. */
export interface FoundProof {
  readonly proof: Uint8Array;
  readonly proofDigest: string;
  /** `resultDigest`: the same for those that came to the same. */
  readonly resultDigest: string;
}

/** The place of one replica. */
export interface Replica {
  /**
   * Resolves when its result is that of more than half, or when `signal` aborts before that is known: what ran of a
   * cancelled job is paid without being compared. Throws `proof/outvoted`, `proof/no-majority`.
   */
  agree(result: ReplicaResult, signal: AbortSignal): Promise<void>;
  /** Takes the outputs, unless another replica has: their content is the same. */
  once(take: () => Promise<readonly JobOutput[]>): Promise<readonly JobOutput[]>;
}

interface Placed {
  readonly rank: number;
  readonly node: Address;
  readonly tell: (event: JobEvent) => void;
}

export class Comparison {
  readonly #size: number;
  readonly #comparator: Comparator;
  readonly #results = new Map<number, string>();
  readonly #lost = new Set<number>();
  readonly #proofs = new Map<number, FoundProof>();
  #taken: Promise<readonly JobOutput[] | undefined> = Promise.resolve(undefined);
  readonly #agreed = Promise.withResolvers<void>();
  #changed = Promise.withResolvers<void>();

  constructor(size: number, comparator: Comparator) {
    this.#size = size;
    this.#comparator = comparator;
  }

  /** `tell` hears what this replica came to. */
  place(rank: number, node: Address, tell: (event: JobEvent) => void): Replica {
    return {
      agree: (result, signal) => this.#agree({ rank, node, tell }, result, signal),
      once: (take) => {
        const mine = this.#taken.then((outputs) => outputs ?? take());
        this.#taken = mine.catch(() => undefined);
        return mine;
      },
    };
  }

  /** Resolves when more than half came to one result. */
  get agreed(): Promise<void> {
    return this.#agreed.promise;
  }

  /** What a replica came to before this client began: a vote as any other. */
  recall(rank: number, found: FoundProof): void {
    this.#results.set(rank, found.resultDigest);
    this.#proofs.set(rank, found);
    const { decision } = decideBallot({ size: this.#size, results: this.#results, lost: this.#lost });
    if (decision === 'agreed') this.#agreed.resolve();
  }

  /** What this replica proved, whatever became of it. */
  proofOf(rank: number): FoundProof | undefined {
    return this.#proofs.get(rank);
  }

  /** This replica comes to nothing, and nobody takes its place. */
  lose(rank: number): void {
    // One that came to a result and was lost then has come to it all the same.
    if (this.#results.has(rank)) return;
    this.#lost.add(rank);
    this.#wake();
  }

  /** Holds the vote with what is there, and gives those that it has not waited for: what they come to later has no vote. */
  close(): readonly number[] {
    const ranks = Array.from({ length: this.#size }, (_none, rank) => rank);
    const missing = ranks.filter((rank) => !this.#results.has(rank) && !this.#lost.has(rank));
    for (const rank of missing) this.#lost.add(rank);
    this.#wake();
    return missing;
  }

  async #agree({ rank, node, tell }: Placed, result: ReplicaResult, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const mine = resultDigest(result.proof, this.#comparator, result.stdoutSha256);
    if (!this.#lost.has(rank)) this.#results.set(rank, mine);
    this.#proofs.set(rank, { proof: result.envelope, proofDigest: result.proof.digest, resultDigest: mine });
    const votes = [...this.#results.values()].filter((one) => one === mine).length;
    tell({ type: 'replica-proven', resultDigest: mine, votes, quorum: quorumOf(this.#size) });
    this.#wake();
    const cancelled = Promise.withResolvers<void>();
    signal.addEventListener('abort', () => cancelled.resolve(), { once: true });
    for (;;) {
      const ballot: Ballot = { size: this.#size, results: this.#results, lost: this.#lost };
      const decided = decideBallot(ballot);
      if (decided.decision === 'agreed') {
        this.#agreed.resolve();
        if (decided.result === mine) return;
        const message = `more than half of the ${this.#size} replicas agree on another result than ${node}; it is not paid`;
        throw new MoltError('proof/outvoted', message, { node, rank });
      }
      if (decided.decision === 'none') throw this.#noMajority(node);
      if (signal.aborted) return;
      await Promise.race([this.#changed.promise, cancelled.promise]);
    }
  }

  #noMajority(node: Address): MoltError {
    const [all, results] = [this.#size, new Set(this.#results.values()).size];
    const lost = this.#lost.size === 0 ? '' : `, ${this.#lost.size} were lost`;
    return new MoltError(
      'proof/no-majority',
      `the ${all} replicas came to ${results === 1 ? 'too few results' : `${results} different results`}${lost}; ${quorumOf(all)} must agree. None is settled: what a provider claims is paid after the challenge window unless it is disputed (molt lease dispute)`,
      { node },
    );
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }
}
