/**
 * The world: one queue of what will happen, ordered by (time, number), one seed, and a digest over everything that did.
 *
 * Nothing runs but what the queue gives out; nothing reads a clock or draws a number but from here. So a seed is a run.
 */
import { createHash } from 'node:crypto';

import { Chance } from './chance.ts';

interface Happening {
  readonly atMs: number;
  readonly number: number;
  readonly what: string;
  /** Undefined for what belongs to nobody: the network and the chain. */
  readonly actor: Actor | undefined;
  /** Life of the actor that it belongs to; dropped when that life is over. */
  readonly life: number;
  readonly run: () => void;
}

/** Something that can crash. What it waits for dies with its life. */
export interface Actor {
  readonly name: string;
  readonly life: number;
  readonly isUp: boolean;
}

/** A broken invariant: what `simulate` reports with the seed. */
export class Violation extends Error {
  override readonly name = 'Violation';
}

/** True time 0 of every run, Unix ms. */
export const START_MS = 1_800_000_000_000;
const LINES_KEPT = 60;
/** So many lines go into the digest at once. */
const LINES_AT_ONCE = 512;

export class World {
  readonly chance: Chance;
  /** Virtual ms since the start. */
  nowMs = 0;
  steps = 0;
  readonly counts = new Map<string, number>();
  readonly #heap: Happening[] = [];
  readonly #digest = createHash('sha256');
  /** The last that are in the digest, and those that are not yet. */
  #lines: string[] = [];
  #digested = 0;
  #next = 0;

  constructor(seed: string) {
    this.chance = new Chance(seed);
  }

  get pending(): number {
    return this.#heap.length;
  }

  /** The last things that happened, for a person who looks at a violation. */
  get lines(): readonly string[] {
    return this.#lines.slice(-LINES_KEPT);
  }

  count(what: string, by = 1): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + by);
  }

  /** Part of the digest: two runs of one seed trace the same lines. */
  trace(line: string): void {
    this.#lines.push(`${this.nowMs} ${line}`);
    if (this.#lines.length - this.#digested >= LINES_AT_ONCE) this.#digestLines();
  }

  /** SHA-256 of every line so far, hex. */
  digest(): string {
    this.#digestLines();
    return this.#digest.copy().digest('hex');
  }

  #digestLines(): void {
    const fresh = this.#lines.slice(this.#digested);
    if (fresh.length > 0) this.#digest.update(`${fresh.join('\n')}\n`);
    this.#lines = this.#lines.slice(-LINES_KEPT);
    this.#digested = this.#lines.length;
  }

  /** Calls `run` after `delayMs`, unless the actor's present life ends before. */
  after(delayMs: number, what: string, actor: Actor | undefined, run: () => void): void {
    const atMs = this.nowMs + Math.max(0, Math.round(delayMs));
    this.#push({ atMs, number: this.#next++, what, actor, life: actor?.life ?? 0, run });
  }

  /** One happening; what it was about, undefined when nothing is left before `untilMs`. */
  step(untilMs: number): { readonly actor: Actor | undefined } | undefined {
    for (;;) {
      const first = this.#heap[0];
      if (first === undefined || first.atMs > untilMs) {
        if (Number.isFinite(untilMs)) this.nowMs = Math.max(this.nowMs, untilMs);
        return undefined;
      }
      const { atMs, what, actor, life, run } = this.#pop();
      this.nowMs = atMs;
      if (actor !== undefined && (!actor.isUp || actor.life !== life)) continue;
      this.steps++;
      this.trace(`${actor?.name ?? '-'} ${what}`);
      run();
      return { actor };
    }
  }

  /** What is still to come, by name: what a leak is made of. */
  waiting(): readonly string[] {
    return this.#heap
      .filter(({ actor, life }) => actor === undefined || (actor.isUp && actor.life === life))
      .map(({ actor, what }) => `${actor?.name ?? '-'} ${what}`);
  }

  #push(happening: Happening): void {
    const heap = this.#heap;
    heap.push(happening);
    let at = heap.length - 1;
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (!isBefore(heap[at]!, heap[above]!)) break;
      [heap[at], heap[above]] = [heap[above]!, heap[at]!];
      at = above;
    }
  }

  #pop(): Happening {
    const heap = this.#heap;
    const first = heap[0]!;
    const last = heap.pop()!;
    if (heap.length === 0) return first;
    heap[0] = last;
    for (let at = 0; ;) {
      const left = 2 * at + 1;
      const right = left + 1;
      let least = at;
      if (left < heap.length && isBefore(heap[left]!, heap[least]!)) least = left;
      if (right < heap.length && isBefore(heap[right]!, heap[least]!)) least = right;
      if (least === at) return first;
      [heap[at], heap[least]] = [heap[least]!, heap[at]!];
      at = least;
    }
  }
}

function isBefore(a: Happening, b: Happening): boolean {
  return a.atMs !== b.atMs ? a.atMs < b.atMs : a.number < b.number;
}
