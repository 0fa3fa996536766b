/**
 * Where the replicas of one job meet, as sdk/comparison.ts: each waits with its result until the real decision of
 * market/quorum.ts is there. What is agreed is held against what the replicas really are.
 */
import { type Ballot, decideBallot, quorumOf } from '../../market/index.ts';
import { MoltError } from '../../protocol/errors.ts';
import { Violation } from './world.ts';

type Done = (error: MoltError | undefined) => void;

export class Comparison {
  readonly #size: number;
  readonly #results = new Map<number, string>();
  readonly #lost = new Set<number>();
  readonly #waiting = new Map<number, { readonly result: string; readonly done: Done }>();
  readonly #onAgreed: () => void;

  constructor(size: number, onAgreed: () => void) {
    this.#size = size;
    this.#onAgreed = onAgreed;
  }

  /** Undefined while nothing is agreed. */
  get agreed(): string | undefined {
    const decided = decideBallot(this.#ballot);
    if (decided.decision !== 'agreed') return undefined;
    const votes = [...this.#results.values()].filter((result) => result === decided.result).length;
    if (votes * 2 <= this.#size) throw new Violation(`${votes} of ${this.#size} replicas are taken for more than half`);
    return decided.result;
  }

  agree(rank: number, result: string, done: Done): void {
    if (!this.#lost.has(rank)) this.#results.set(rank, result);
    this.#waiting.set(rank, { result, done });
    this.#decide();
  }

  /** This replica comes to nothing, and nobody takes its place. */
  lose(rank: number): void {
    if (this.#results.has(rank)) return;
    this.#lost.add(rank);
    this.#decide();
  }

  /** Holds the vote with what is there: what comes later has no vote. */
  close(): void {
    for (let rank = 0; rank < this.#size; rank++) if (!this.#results.has(rank)) this.#lost.add(rank);
    this.#decide();
  }

  get #ballot(): Ballot {
    return { size: this.#size, results: this.#results, lost: this.#lost };
  }

  #decide(): void {
    const { agreed } = this;
    const isOpen = agreed === undefined && decideBallot(this.#ballot).decision === 'undecided';
    if (isOpen) return;
    if (agreed !== undefined) this.#onAgreed();
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { result, done } of waiting) {
      if (agreed === undefined) done(new MoltError('proof/no-majority', `${quorumOf(this.#size)} must agree`));
      else if (result === agreed) done(undefined);
      else done(new MoltError('proof/outvoted', 'more than half agree on another result; it is not paid'));
    }
  }
}
