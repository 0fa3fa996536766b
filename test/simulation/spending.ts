/**
 * What a buyer that trades on its own has locked and spent, with a journal that survives crashes: the rules are
 * market/autonomy.ts, the shell is as sdk/spending.ts. A lease is counted on disk before it is asked for.
 */
import { type Autonomy, type Commitment, allowance, spendingRefusal } from '../../market/index.ts';
import type { MoltError } from '../../protocol/errors.ts';
import type { Buyer } from './buyer.ts';
import { Violation } from './world.ts';

export interface Committed {
  /** The lease is over, or never was: so much was paid. Undefined: nobody knows, so it counts whole. */
  end(paid: bigint | undefined): void;
}

const WRITE_MS = { from: 1, to: 30 };

export class Spending {
  readonly limits: Autonomy;
  readonly #buyer: Buyer;
  /** What a crash leaves. */
  #journal: readonly Commitment[] = [];
  #counted = new Map<number, Commitment>();
  #next = 0;
  #open = 0;

  constructor(buyer: Buyer, limits: Autonomy) {
    this.#buyer = buyer;
    this.limits = limits;
  }

  /** A process starts: nothing of the one before is open in it, and what that had locked counts on. */
  start(): void {
    this.#counted = new Map(this.#journal.map((one, index) => [index, { ...one, open: false }]));
    this.#next = this.#counted.size;
    this.#open = 0;
  }

  /** Throws `market/spending-limit`. */
  allowance(): bigint {
    return allowance(this.limits, [...this.#counted.values()], this.#buyer.now());
  }

  /** `done` hears what forbids it, or is called once the lease is counted on disk. */
  commit(amount: bigint, done: (result: MoltError | Committed) => void): void {
    const nowMs = this.#buyer.now();
    const refused = spendingRefusal(this.limits, [...this.#counted.values()], { amount, nowMs });
    if (refused !== undefined) return done(refused);
    const id = this.#next++;
    this.#counted.set(id, { atMs: nowMs, amount: String(amount), open: true });
    if (++this.#open > this.limits.concurrentMax)
      throw new Violation(`${this.#buyer.name} has ${this.#open} leases open at once`);
    const end = (paid: bigint | undefined): void => {
      this.#open--;
      this.#counted.set(id, { atMs: nowMs, amount: String(paid ?? amount), open: false });
      this.#write(() => undefined);
    };
    return this.#write(() => done({ end }));
  }

  #write(done: () => void): void {
    const kept = [...this.#counted.values()];
    this.#buyer.after(this.#buyer.chance.between(WRITE_MS.from, WRITE_MS.to), 'counts its spending', () => {
      // Of two writes the later one says more, whichever ends first.
      if (kept.length >= this.#journal.length) this.#journal = kept;
      done();
    });
  }
}
