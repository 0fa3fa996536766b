/**
 * Containers that are started before there is a job for them: most of the time of a short job goes into starting its
 * container.
 *
 * Policy only: what is kept ready for whom. A shape that was used twice within some minutes gets slots, up to the size of
 * the pool in all; a slot is used once; what nobody used for a while is let go, and a shape that is used more recently
 * takes the place of one that is not. The container runtime makes the slots and turns one into a run.
 */
import type { Env } from '../../../protocol/env.ts';
import { MoltError } from '../../../protocol/errors.ts';

/** What is fixed when a container is created: jobs of one shape can take each other's slots. */
export interface Shape {
  readonly image: string;
  readonly diskBytes: number;
}

export interface Slot {
  /** False once its container ended by itself. */
  isReady(): boolean;
  remove(): Promise<void>;
}

/** A shape is kept ready when it was used so often within the time. */
const USES_MIN = 2;
const USED_WITHIN_MS = 10 * 60_000;
const SWEEP_EVERY_MS = 30_000;
/** From the start of a job to the next slot: a short job is over by then and did not have to share the machine with it. */
const FILL_AFTER_MS = 500;

interface Use<L> {
  readonly shape: Shape;
  /** Of the last job: the next one probably has the same. */
  limits: L;
  times: number[];
}

export class Pool<S extends Slot, L> implements AsyncDisposable {
  readonly #env: Env;
  readonly #size: number;
  readonly #open: (shape: Shape, limits: L) => Promise<S>;
  readonly #uses = new Map<string, Use<L>>();
  readonly #slots: { readonly key: string; readonly slot: S }[] = [];
  readonly #sweeper: Disposable;
  #filling: Promise<void> | undefined;
  readonly #closing = new AbortController();

  /** `open` makes a slot; one is made at a time, and a failure is not repeated before the next job of that shape. */
  constructor(env: Env, size: number, open: (shape: Shape, limits: L) => Promise<S>) {
    this.#env = env;
    this.#size = size;
    this.#open = open;
    this.#sweeper = env.clock.every(SWEEP_EVERY_MS, () => void this.#sweep());
  }

  /** A slot for a job of this shape, if one is ready; it is the caller's now. Counts as a use. */
  take(shape: Shape, limits: L): S | undefined {
    const key = `${shape.image} ${shape.diskBytes}`;
    const use = this.#uses.get(key) ?? { shape, limits, times: [] };
    use.limits = limits;
    use.times = [...use.times, this.#env.clock.monotonic()].slice(-USES_MIN);
    this.#uses.delete(key);
    this.#uses.set(key, use);
    const at = this.#slots.findIndex((each) => each.key === key && each.slot.isReady());
    return at < 0 ? undefined : this.#slots.splice(at, 1)[0]?.slot;
  }

  /** Makes what is missing for the shape in use, a moment later. Called at each start. */
  fill(): Promise<void> {
    this.#filling ??= this.#fill().finally(() => (this.#filling = undefined));
    return this.#filling;
  }

  async #fill(): Promise<void> {
    await this.#env.clock.sleep(FILL_AFTER_MS, this.#closing.signal).catch(() => undefined);
    if (this.#closing.signal.aborted) return;
    await this.#sweep();
    const [key, use] = this.#wanted()[0] ?? [];
    if (key === undefined || use === undefined) return;
    while (!this.#closing.signal.aborted && this.#slots.filter((each) => each.key === key).length < this.#size) {
      if (this.#slots.length >= this.#size) {
        const other = this.#slots.findIndex((each) => each.key !== key);
        await this.#slots.splice(other, 1)[0]?.slot.remove();
      }
      const slot = await this.#open(use.shape, use.limits);
      if (this.#closing.signal.aborted) return slot.remove();
      this.#slots.push({ key, slot });
    }
  }

  /** Shapes that are worth a slot, the one that was used last first. */
  #wanted(): [string, Use<L>][] {
    const sinceMs = this.#env.clock.monotonic() - USED_WITHIN_MS;
    const often = ({ times }: Use<L>): boolean => times.length >= USES_MIN && (times[0] ?? 0) >= sinceMs;
    return [...this.#uses].filter(([, use]) => often(use)).reverse();
  }

  /** Lets go of slots that ended and of shapes that nobody uses any more. */
  async #sweep(): Promise<void> {
    const wanted = new Set(this.#wanted().map(([key]) => key));
    const sinceMs = this.#env.clock.monotonic() - USED_WITHIN_MS;
    for (const [key, { times }] of this.#uses) if ((times.at(-1) ?? 0) < sinceMs) this.#uses.delete(key);
    const kept = this.#slots.filter(({ key, slot }) => wanted.has(key) && slot.isReady());
    const gone = this.#slots.filter((each) => !kept.includes(each));
    this.#slots.splice(0, this.#slots.length, ...kept);
    await Promise.allSettled(gone.map(({ slot }) => slot.remove()));
  }

  /** Ends what waits; slots that were taken are their takers'. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new MoltError('node/stopped', 'the pool is closing'));
    this.#sweeper[Symbol.dispose]();
    await this.#filling?.catch(() => undefined);
    await Promise.allSettled(this.#slots.splice(0).map(({ slot }) => slot.remove()));
  }
}
