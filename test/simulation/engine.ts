/**
 * What runs on a provider's machine, and what lies there. Runs outlive the node's process, not the machine; images and
 * inputs that one job brought are at hand for the next.
 */
import type { Address } from '../../protocol/address.ts';
import { warmPrefix } from '../../protocol/job-spec.ts';
import type { Peer } from './peer.ts';

/** What a buyer hands over once its lease is open: as much of a specification as matters here. */
export interface Task {
  /** How long it runs. */
  readonly runMs: number;
  readonly image: string;
  /** CIDs. */
  readonly inputs: readonly string[];
  /** What an honest run comes to. */
  readonly result: string;
}

export interface Run {
  readonly task: Task;
  /** World time. */
  readonly startedMs: number;
  readonly endsMs: number;
  /** The start by the clock of the machine, as its proof will say. */
  readonly startedAtMs: number;
}

const FETCH_MS = { from: 50, to: 2_000 };

export class Engine {
  readonly #peer: Peer;
  /** How many times as long as others this machine takes to bring what is not at hand. */
  readonly #slowness: number;
  readonly #runs = new Map<Address, Run>();
  readonly #images: Set<string>;
  /** By the names that bids had for them: only such inputs are kept. */
  readonly #named = new Set<string>();

  constructor(peer: Peer, on: { readonly slowness: number; readonly images: readonly string[] }) {
    this.#peer = peer;
    this.#slowness = on.slowness;
    this.#images = new Set(on.images);
  }

  /** Images at hand. */
  get warm(): readonly string[] {
    return [...this.#images];
  }

  /** Of these inputs, as bids name them, those at hand. */
  near(names: readonly string[]): readonly string[] {
    return names.filter((name) => this.#named.has(name));
  }

  run(lease: Address): Run | undefined {
    return this.#runs.get(lease);
  }

  /** A machine that loses its power loses its containers; a process that starts has forgotten who named what. */
  crash(): void {
    if (this.#peer.chance.happens(0.5)) this.#runs.clear();
    this.#named.clear();
  }

  /** Brings the inputs here. `named` are the names under which the bid told of them. */
  fetch({ inputs }: Task, named: readonly string[], done: () => void): void {
    const isHere = inputs.every((cid) => this.#named.has(warmPrefix(cid)));
    this.#bring(isHere, 'fetched', () => {
      for (const cid of inputs) if (named.includes(warmPrefix(cid))) this.#named.add(warmPrefix(cid));
      done();
    });
  }

  /** Brings the image here. */
  prepare({ image }: Task, done: () => void): void {
    this.#bring(this.#images.has(image), 'prepared', () => {
      this.#images.add(image);
      done();
    });
  }

  start(lease: Address, task: Task): Run {
    const startedMs = this.#peer.at.world.nowMs;
    const run = { task, startedMs, endsMs: startedMs + task.runMs, startedAtMs: this.#peer.now() };
    this.#runs.set(lease, run);
    return run;
  }

  stop(lease: Address): void {
    this.#runs.delete(lease);
  }

  #bring(isHere: boolean, what: string, done: () => void): void {
    const plain = this.#peer.chance.between(FETCH_MS.from, FETCH_MS.to);
    this.#peer.after(isHere ? FETCH_MS.from : plain * this.#slowness, what, done);
  }
}
