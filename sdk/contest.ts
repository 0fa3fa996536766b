/**
 * Leases whose provider broke its word, and that this buyer therefore does not settle: the money comes back when they
 * expire, with a part of the reserve. A provider that claims it on chain all the same is disputed inside the challenge
 * window; the buyer then brings what it has to show to the drawn verifiers, and sees to it that the dispute goes on.
 *
 * What is contested is kept in the buyer's folder, where it has one, before anything else is done, so that the next client
 * goes on with what this one began (with the documents of evidence.ts). Without a folder it is contested for as long as the client lives. Module and inputs
 * are in the client's store alone: a client waits with its closing until they are with the verifiers.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import type { Chain, DisputeAccount, LeaseAccount } from '../chain/index.ts';
import { type Address, parseAddress } from '../protocol/address.ts';
import { Deadline } from '../protocol/deadline.ts';
import type { KeyPair } from '../protocol/ed25519.ts';
import type { Env } from '../protocol/env.ts';
import { MoltError, hasCode } from '../protocol/errors.ts';
import { replaceFile } from './journal.ts';
import type { JobEvent } from './progress.ts';

type Tell = (event: JobEvent) => void;

export interface Contests extends AsyncDisposable {
  /** Contests a claim of this lease from now on; `tell` hears of the dispute. */
  add(lease: Address, tell: Tell): Promise<void>;
  /** Resolves when the dispute about this lease is over, or there is none any more; rejects with the signal's reason. */
  ended(lease: Address, signal: AbortSignal): Promise<void>;
  /**
   * Resolves when nothing is left that needs this client: every contested lease is closed, or its verifiers have heard it.
   * A claim is waited for `claimMs` at most, for a provider claims some seconds after its proof; verifiers `handInMs`.
   */
  quiet(claimMs: number, handInMs: number): Promise<void>;
}

export interface ContestsOptions {
  readonly chain: Chain;
  readonly key: KeyPair;
  readonly directory: string | undefined;
  /**
   * Brings what there is to show about a lease to the nodes of these verifiers, with module and inputs where they are here,
   * and gives back those that need nothing more.
   */
  readonly handIn: (lease: Address, verifiers: readonly Address[], signal: AbortSignal) => Promise<readonly Address[]>;
  /** The lease is closed. */
  readonly onClosed: (lease: Address) => void;
}

const CONTESTS_FILE = 'contests.json';
const CONTESTS_MAX = 1_000;
const TRY_AGAIN_MS = 3_000;
const LOOK_EVERY_MS = 1_000;
const HAND_IN_MS = 5 * 60_000;
const SEATS = 3;

/** Where a contest stands. */
interface Watched {
  readonly lease: Address;
  /** Who wants to hear of it. */
  readonly tellers: Set<Tell>;
  /** As it was told last. */
  progress: string;
  stage: 'unclaimed' | 'disputed' | 'heard';
  readonly ended: Promise<void>;
}

/** Takes up what an earlier client with this folder contested. A file that cannot be read is begun anew. */
export async function openContests(env: Env, options: ContestsOptions): Promise<Contests> {
  const { directory } = options;
  const kept = directory === undefined ? [] : await readContests(join(directory, CONTESTS_FILE));
  const contests = new OpenContests(env, options);
  for (const lease of kept) contests.start(lease);
  return contests;
}

class OpenContests implements Contests {
  readonly #env: Env;
  readonly #options: ContestsOptions;
  readonly #watched = new Map<Address, Watched>();
  readonly #closing = new AbortController();
  #writing: Promise<void> = Promise.resolve();
  #changed = Promise.withResolvers<void>();

  constructor(env: Env, options: ContestsOptions) {
    this.#env = env;
    this.#options = options;
  }

  async add(lease: Address, tell: Tell): Promise<void> {
    this.start(lease, tell);
    await this.#write().catch((error: unknown) =>
      this.#env.logger.log('warn', 'a contested lease could not be kept', { lease, error }),
    );
  }

  start(lease: Address, tell?: Tell): void {
    const known = this.#watched.get(lease);
    if (tell !== undefined) known?.tellers.add(tell);
    if (known !== undefined) return;
    const over = Promise.withResolvers<void>();
    const tellers = new Set(tell === undefined ? [] : [tell]);
    const watched: Watched = { lease, tellers, progress: '', stage: 'unclaimed', ended: over.promise };
    this.#watched.set(lease, watched);
    void this.#watch(watched).then(over.resolve);
  }

  async ended(lease: Address, signal: AbortSignal): Promise<void> {
    const aborted = Promise.withResolvers<never>();
    aborted.promise.catch(() => undefined);
    const onAbort = (): void => aborted.reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      signal.throwIfAborted();
      await Promise.race([this.#watched.get(lease)?.ended, aborted.promise]);
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  async quiet(claimMs: number, handInMs: number): Promise<void> {
    await this.#until(claimMs, (stage) => stage !== 'unclaimed');
    await this.#until(handInMs, (stage) => stage !== 'disputed');
    await this.#writing.catch(() => undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new MoltError('node/stopped', 'the client was closed'));
    await Promise.all([...this.#watched.values()].map(({ ended }) => ended));
    await this.#writing.catch(() => undefined);
  }

  async #until(ms: number, holds: (stage: Watched['stage']) => boolean): Promise<void> {
    using waiting = new Deadline(this.#env.clock, ms, this.#closing.signal);
    const timeUp = Promise.withResolvers<void>();
    waiting.signal.addEventListener('abort', () => timeUp.resolve(), { once: true });
    while (!waiting.signal.aborted && ![...this.#watched.values()].every(({ stage }) => holds(stage)))
      await Promise.race([this.#changed.promise, timeUp.promise]);
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }

  #write(): Promise<void> {
    const { directory } = this.#options;
    if (directory === undefined) return Promise.resolve();
    const text = JSON.stringify({ version: 1, leases: [...this.#watched.keys()] });
    this.#writing = this.#writing.catch(() => undefined).then(() => replaceFile(join(directory, CONTESTS_FILE), text));
    return this.#writing;
  }

  async #watch(watched: Watched): Promise<void> {
    const { signal } = this.#closing;
    const { lease } = watched;
    while (!signal.aborted) {
      try {
        if (!(await this.#dispute(watched))) break;
        await this.#pursue(watched);
        break;
      } catch (error) {
        if (!signal.aborted)
          this.#env.logger.log('warn', 'a lease could not be contested, and is tried again', { lease, error });
      }
      await this.#env.clock.sleep(TRY_AGAIN_MS, signal).catch(() => undefined);
    }
    if (signal.aborted) return;
    this.#watched.delete(lease);
    this.#wake();
    await this.#write().catch(() => undefined);
  }

  /** Waits for the claim and disputes it; false when nothing is left to do: the lease is closed, or its window is over. */
  async #dispute(watched: Watched): Promise<boolean> {
    const { chain, key, onClosed } = this.#options;
    const { lease: address } = watched;
    for await (const lease of chain.watchLease(address, this.#closing.signal)) {
      if (lease === undefined) {
        onClosed(address);
        return false;
      }
      if (lease.state === 'disputed') return true;
      if (lease.proof === undefined) continue;
      if ((await chain.chainTimeMs()) > lease.proof.provenAtMs + lease.windowMs) return false;
      const { signature } = await chain.openDispute(key, lease);
      this.#tell(watched, {
        type: 'lease-disputed',
        lease: address,
        transaction: signature,
        claimed: lease.proof.claimed,
      });
      return true;
    }
    return false;
  }

  /** Until the dispute is over: has the verifiers drawn, brings them what there is to show, and resolves. */
  async #pursue(watched: Watched): Promise<void> {
    const { chain, onClosed } = this.#options;
    const { signal } = this.#closing;
    const { lease: address } = watched;
    const heard = new Set<Address>();
    this.#stage(watched, 'disputed');
    for (;;) {
      const lease = await chain.lease(address);
      const dispute = lease === undefined ? undefined : await chain.dispute(address);
      if (lease === undefined || dispute === undefined) break;
      await this.#push(watched, { lease, dispute, heard }).catch((error: unknown) => {
        // Whoever was faster to draw or to resolve has done it for us.
        if (!hasCode(error, 'chain/refused', 'chain/account-missing', 'chain/too-early', 'chain/too-late')) throw error;
      });
      await this.#env.clock.sleep(LOOK_EVERY_MS, signal);
    }
    const ending = await chain.leaseEnding(address);
    onClosed(address);
    if (ending !== undefined)
      this.#tell(watched, {
        type: 'dispute-resolved',
        lease: address,
        ending: ending.ending,
        paid: ending.paid,
        slashed: ending.slashed,
        transaction: ending.signature,
      });
  }

  async #push(
    watched: Watched,
    at: { readonly lease: LeaseAccount; readonly dispute: DisputeAccount; readonly heard: Set<Address> },
  ): Promise<void> {
    const { chain, key } = this.#options;
    const { lease, dispute, heard } = at;
    const { seats, voteUntilMs, revealUntilMs } = dispute;
    this.#tellProgress(watched, dispute, heard);
    const nowMs = await chain.chainTimeMs();
    const isDrawn = seats.length > 0;
    const areIn = isDrawn && seats.every(({ vote }) => vote !== undefined);
    if (areIn || nowMs > (isDrawn ? revealUntilMs : voteUntilMs)) {
      this.#stage(watched, 'heard');
      await chain.resolveDispute(key, lease);
    } else if (!isDrawn) {
      const { verifiers } = await chain.config();
      // Nobody to draw: it ends neutral when its time is over, and nobody waits for anything of ours.
      if (verifiers.filter((verifier) => verifier !== lease.provider).length < SEATS) this.#stage(watched, 'heard');
      else await chain.drawVerifiers(key, lease.address);
    } else if (nowMs > voteUntilMs || heard.size === seats.length) this.#stage(watched, 'heard');
    else await this.#handIn(watched, dispute, heard);
  }

  async #handIn({ lease }: Watched, { seats }: DisputeAccount, heard: Set<Address>): Promise<void> {
    const { chain, handIn } = this.#options;
    const accounts = await chain.providersAt(seats.map(({ verifier }) => verifier));
    const nodes = accounts.flatMap((account) => account?.operator ?? []).filter((node) => !heard.has(node));
    using round = new Deadline(this.#env.clock, HAND_IN_MS, this.#closing.signal);
    for (const node of await handIn(lease, nodes, round.signal)) heard.add(node);
  }

  #tell({ tellers }: Watched, event: JobEvent): void {
    for (const tell of tellers) tell(event);
  }

  /** Once for every change. */
  #tellProgress(watched: Watched, { seats }: DisputeAccount, { size: heard }: ReadonlySet<Address>): void {
    const committed = seats.filter((seat) => seat.committed).length;
    const revealed = seats.filter(({ vote }) => vote !== undefined).length;
    const event = {
      type: 'dispute-progress',
      lease: watched.lease,
      drawn: seats.length,
      heard,
      committed,
      revealed,
    } as const;
    const progress = JSON.stringify(event);
    if (progress === watched.progress) return;
    watched.progress = progress;
    this.#tell(watched, event);
  }

  #stage(watched: Watched, stage: Watched['stage']): void {
    watched.stage = stage;
    this.#wake();
  }
}

async function readContests(path: string): Promise<readonly Address[]> {
  try {
    const kept = JSON.parse(await readFile(path, 'utf8')) as { version?: unknown; leases?: unknown };
    if (kept.version !== 1 || !Array.isArray(kept.leases)) return [];
    return kept.leases.slice(-CONTESTS_MAX).map((lease) => parseAddress(String(lease)));
  } catch {
    return [];
  }
}
