/**
 * What is about to be free. A buyer whose job ended bids for the next one before the last container of the first is gone;
 * on a machine with room for one job he would be declined for want of what is free a moment later.
 */
import { Deadline } from '../../protocol/deadline.ts';
import type { Env } from '../../protocol/env.ts';

/** Less than buyers wait for quotes at the least (2 s), and several times what it takes to remove a container. */
export const LEAVING_WAIT_MS = 1_500;

export class Leaving {
  readonly #env: Pick<Env, 'clock'>;
  readonly #leaving = new Set<Promise<void>>();

  constructor(env: Pick<Env, 'clock'>) {
    this.#env = env;
  }

  /** `gone` settles when the capacity is free: whoever waits goes on after whatever was chained to it before. */
  add(gone: Promise<void>): void {
    const end = (): void => void this.#leaving.delete(left);
    const left = gone.then(end, end);
    this.#leaving.add(left);
  }

  /** Resolves when `isEnough`, or when nothing is leaving any more, or after `LEAVING_WAIT_MS`. */
  async until(isEnough: () => boolean): Promise<void> {
    if (this.#leaving.size === 0 || isEnough()) return;
    using deadline = new Deadline(this.#env.clock, LEAVING_WAIT_MS);
    const over = new Promise<void>((resolve) => deadline.signal.addEventListener('abort', () => resolve()));
    while (this.#leaving.size > 0 && !deadline.expired && !isEnough()) await Promise.race([...this.#leaving, over]);
  }
}
