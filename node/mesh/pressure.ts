/**
 * How far this node's event loop lags behind, and what it lets go of then: gossip first, pulls and artifacts next, leases
 * never. A timer that should fire every 50 ms tells by how late it comes. Pressure is the second worst delay of the last
 * five seconds, about their 99th percentile, so that one long pause alone changes nothing.
 */
import type { Clock } from '../../protocol/env.ts';

const TICK_MS = 50;
const WINDOW_MS = 5_000;

export interface PressureLimits {
  /** From this delay of the event loop on a node sheds load. */
  readonly pressureMs: number;
}

interface Sample {
  readonly atMs: number;
  readonly lateMs: number;
}

export class Pressure implements Disposable {
  readonly #clock: Clock;
  readonly #limits: PressureLimits;
  readonly #ticker: Disposable;
  #samples: Sample[] = [];
  #lastMs: number;
  #delayMs = 0;

  constructor(clock: Clock, limits: PressureLimits) {
    this.#clock = clock;
    this.#limits = limits;
    this.#lastMs = clock.monotonic();
    this.#ticker = clock.every(TICK_MS, () => this.#tick());
  }

  get isHigh(): boolean {
    return this.#delayMs > this.#limits.pressureMs;
  }

  [Symbol.dispose](): void {
    this.#ticker[Symbol.dispose]();
  }

  #tick(): void {
    const atMs = this.#clock.monotonic();
    this.#samples.push({ atMs, lateMs: Math.max(0, atMs - this.#lastMs - TICK_MS) });
    this.#lastMs = atMs;
    this.#samples = this.#samples.filter((sample) => atMs - sample.atMs <= WINDOW_MS);
    let worst = 0;
    let second = 0;
    for (const { lateMs } of this.#samples) {
      if (lateMs > worst) [worst, second] = [lateMs, worst];
      else if (lateMs > second) second = lateMs;
    }
    this.#delayMs = second;
  }
}
