/** A signal that aborts when time is up or when the caller's own signal does: `using deadline = new Deadline(…)`. */
import type { Clock } from './env.ts';

/** Nobody sees it; a fresh one for each wait would capture a stack that nobody reads. */
const OVER = new DOMException('the wait is over', 'AbortError');

export class Deadline implements Disposable {
  readonly signal: AbortSignal;
  readonly #aborter = new AbortController();
  readonly #timer = new AbortController();
  #expired = false;

  constructor(clock: Clock, ms: number, outer?: AbortSignal) {
    this.signal = outer === undefined ? this.#aborter.signal : AbortSignal.any([this.#aborter.signal, outer]);
    clock.sleep(ms, this.#timer.signal).then(
      () => {
        this.#expired = true;
        this.#aborter.abort(new DOMException(`not done within ${ms} ms`, 'TimeoutError'));
      },
      () => undefined,
    );
  }

  /** True when it was the time, not the caller, that ended the wait. */
  get expired(): boolean {
    return this.#expired;
  }

  [Symbol.dispose](): void {
    this.#timer.abort(OVER);
  }
}
