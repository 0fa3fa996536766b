/** What a provider keeps over crashes. Writes become durable in their order, some time after they began. */
import type { Job } from '../../node/provider/job.ts';
import type { Address } from '../../protocol/address.ts';
import type { Peer } from './peer.ts';

interface Write {
  readonly apply: () => void;
  readonly done: () => void;
}

const WRITE_MS = { from: 1, to: 30 };

export class Journal {
  /** Every number up to here counts as used. */
  sequence = 0;
  readonly jobs: Map<Address, Job> = new Map<Address, Job>();
  readonly #peer: Peer;
  #pending: Write[] = [];

  constructor(peer: Peer) {
    this.#peer = peer;
  }

  /** A process starts: it waits for nothing that an earlier one wrote. */
  start(): void {
    this.#pending = [];
  }

  /** What was being written is durable up to some point. */
  crash(): void {
    const durable = this.#peer.chance.between(0, this.#pending.length);
    for (const { apply } of this.#pending.splice(0).slice(0, durable)) apply();
  }

  /** `apply` reaches the disk after a while; `done` runs then, in this life. */
  write(apply: () => void, done: () => void): void {
    const write = { apply, done };
    this.#pending.push(write);
    this.#peer.after(this.#peer.chance.between(WRITE_MS.from, WRITE_MS.to), 'journals', () => {
      // In the order of the writes, whatever each of them took.
      while (this.#pending.includes(write)) {
        const first = this.#pending.shift()!;
        first.apply();
        first.done();
      }
    });
  }

  /** After everything that is being written now: write ahead, then sign. */
  whenWritten(run: () => void): void {
    if (this.#pending.length === 0) run();
    else this.write(() => undefined, run);
  }
}
