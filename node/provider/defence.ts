/**
 * The provider's word in a dispute: quote, specification and proof of the job, brought to each drawn verifier.
 *
 * It has an interest in that: a proof which nobody shows is found against it. Module and inputs are the buyer's to bring.
 */
import type { Chain, DisputeAccount } from '../../chain/index.ts';
import { createBoundedMap } from '../../market/index.ts';
import type { Network } from '../../market/ports.ts';
import type { Address } from '../../protocol/address.ts';
import { Deadline } from '../../protocol/deadline.ts';
import type { Env } from '../../protocol/env.ts';
import { JobEvent } from '../../protocol/molt.js';
import type { Journal } from '../journal.ts';
import { type HandedIn, handInToAll } from '../mesh/index.ts';
import type { Job } from './job.ts';

export interface DefenceOptions {
  readonly chain: Chain;
  readonly network: Network;
  readonly journal: Journal;
  /** Where a node was last heard of. */
  readonly addressesOf: (node: Address) => readonly string[];
}

/** One round of handing in. */
const ROUND_MS = 20_000;
const LEASES_MAX = 1_000;

export class Defence implements AsyncDisposable {
  readonly #env: Env;
  readonly #options: DefenceOptions;
  /** Verifiers that need nothing more, by lease. */
  readonly #handed = createBoundedMap<Address, Set<Address>>(LEASES_MAX);
  readonly #busy = new Map<Address, Promise<void>>();
  readonly #closing = new AbortController();

  constructor(env: Env, options: DefenceOptions) {
    this.#env = env;
    this.#options = options;
  }

  /** Called as often as one likes while votes are given; those who have heard are left alone. */
  show(job: Job, dispute: DisputeAccount): void {
    const { lease } = dispute;
    if (this.#busy.has(lease)) return;
    const showing = this.#show(job, dispute)
      .catch((error: unknown) => this.#env.logger.log('warn', 'a job could not be defended yet', { lease, error }))
      .finally(() => this.#busy.delete(lease));
    this.#busy.set(lease, showing);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await Promise.allSettled(this.#busy.values());
  }

  async #show(job: Job, { lease, seats }: DisputeAccount): Promise<void> {
    const { chain, network, addressesOf } = this.#options;
    const handed = this.#handed.get(lease) ?? new Set();
    this.#handed.set(lease, handed);
    if (handed.size === seats.length) return;
    const accounts = await chain.providersAt(seats.map(({ verifier }) => verifier));
    const nodes = accounts.flatMap((account) => account?.operator ?? []).filter((node) => !handed.has(node));
    using round = new Deadline(this.#env.clock, ROUND_MS, this.#closing.signal);
    const verifiers = nodes.map((node) => ({ node, addresses: addressesOf(node) }));
    const evidence = await this.#evidenceOf(job);
    for (const node of await handInToAll(this.#env, { network, verifiers, evidence }, round.signal)) handed.add(node);
  }

  async #evidenceOf({ agreement, spec }: Job): Promise<HandedIn> {
    const { lease, quote } = agreement;
    let proof: Uint8Array | undefined;
    for await (const { bytes } of this.#options.journal.events(lease, 0))
      proof = JobEvent.decode(bytes).proof?.envelope ?? proof;
    const read = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'base64'));
    return {
      lease,
      ...(quote === undefined || spec === undefined ? {} : { quote: read(quote), spec: read(spec) }),
      ...(proof === undefined ? {} : { proof }),
      hasContent: false,
    };
  }
}
