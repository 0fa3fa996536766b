/**
 * Goal: a lease whose provider broke its word is disputed as soon as it is claimed, also by the next client, and let be when
 * there is nothing to dispute. Method: the leases of a chain by hand, and a folder that outlives a client.
 */
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import type { Chain, DisputeAccount, LeaseAccount } from '../../chain/index.ts';
import type { Address } from '../../protocol/address.ts';
import { MoltError } from '../../protocol/errors.ts';
import { systemEnv } from '../../protocol/env.ts';
import { baseUnits } from '../../protocol/units.ts';
import { type Contests, openContests } from '../../sdk/contest.ts';
import type { JobEvent } from '../../sdk/progress.ts';
import { address, key } from '../market/fixtures.ts';

const lease = address('lease');
const NOW = 1_000_000;

/** Leases as they change, and the disputes that were raised. */
class Leases {
  readonly disputed: string[] = [];
  fault: MoltError | undefined;
  #states: (LeaseAccount | undefined)[] = [];
  #changed = Promise.withResolvers<void>();

  readonly chain = {
    chainTimeMs: async () => NOW,
    openDispute: async (_key: unknown, { address: of }: LeaseAccount) => {
      const { fault } = this;
      this.fault = undefined;
      if (fault !== undefined) throw fault;
      this.disputed.push(of);
      return { signature: 'signature' };
    },
    // The dispute is over as soon as it is looked at.
    lease: async () => undefined,
    leaseEnding: async () => undefined,
    watchLease: (_address: unknown, signal: AbortSignal) => this.#watch(signal),
  } as unknown as Chain;

  set(state: Partial<LeaseAccount> | undefined): void {
    this.#states.push(state === undefined ? undefined : ({ address: lease, ...state } as LeaseAccount));
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }

  async *#watch(signal: AbortSignal): AsyncGenerator<LeaseAccount | undefined> {
    const over = Promise.withResolvers<void>();
    signal.addEventListener('abort', () => over.resolve(), { once: true });
    // Who begins to watch sees the lease as it is.
    for (let next = Math.max(0, this.#states.length - 1); !signal.aborted;) {
      if (next < this.#states.length) yield this.#states[next++];
      else await Promise.race([this.#changed.promise, over.promise]);
    }
  }
}

const running = { state: 'running' } as const;
const claimed = (provenAtMs: number): Partial<LeaseAccount> => ({
  state: 'proven',
  windowMs: 60_000,
  proof: { claimed: baseUnits(5n), resultDigest: new Uint8Array(32), provenAtMs },
});

let directory: string;
let leases: Leases;
const open: Contests[] = [];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'molt-contests-'));
  leases = new Leases();
  leases.set(running);
});
afterEach(async () => {
  for (const contests of open.splice(0)) await contests[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

const nobody = async (): Promise<readonly Address[]> => [];

async function contestsOf(): Promise<Contests> {
  const contests = await openContests(systemEnv(), {
    chain: leases.chain,
    key: key('buyer'),
    directory,
    handIn: nobody,
    onClosed: () => undefined,
  });
  open.push(contests);
  return contests;
}

const kept = async (): Promise<unknown> => JSON.parse(await readFile(join(directory, 'contests.json'), 'utf8'));

test('a claim is disputed when it comes, told, and forgotten', async () => {
  const contests = await contestsOf();
  const told: JobEvent[] = [];
  await contests.add(lease, (event) => told.push(event));
  expect(await kept()).toEqual({ version: 1, leases: [lease] });
  expect((await stat(join(directory, 'contests.json'))).mode & 0o777).toBe(0o600);
  expect(leases.disputed).toEqual([]);
  leases.set(claimed(NOW));
  await contests.quiet(60_000, 60_000);
  expect(leases.disputed).toEqual([lease]);
  expect(told).toEqual([{ type: 'lease-disputed', lease, transaction: 'signature', claimed: 5n }]);
  expect(await kept()).toEqual({ version: 1, leases: [] });
});

test.each<[string, Partial<LeaseAccount> | undefined]>([
  ['closed, because its provider gave the money back', undefined],
  ['disputed already', { state: 'disputed' }],
  ['claimed so long ago that its window is over', claimed(NOW - 60_001)],
])('a lease that is %s is let be', async (_what, state) => {
  const contests = await contestsOf();
  await contests.add(lease, () => undefined);
  leases.set(state);
  await contests.quiet(60_000, 60_000);
  expect(leases.disputed).toEqual([]);
  expect(await kept()).toEqual({ version: 1, leases: [] });
});

test('what one client began the next goes on with', async () => {
  await (await contestsOf()).add(lease, () => undefined);
  await open.pop()?.[Symbol.asyncDispose]();
  expect(await kept()).toEqual({ version: 1, leases: [lease] });
  leases.set(claimed(NOW));
  await (await contestsOf()).quiet(60_000, 60_000);
  expect(leases.disputed).toEqual([lease]);
});

test('a dispute that the chain does not take is tried again', async () => {
  leases.fault = new MoltError('chain/unreachable', 'the endpoint is away');
  const contests = await contestsOf();
  await contests.add(lease, () => undefined);
  leases.set(claimed(NOW));
  await contests.quiet(60_000, 60_000);
  expect(leases.disputed).toEqual([lease]);
});

test('waiting for claims ends when time is up; a client without a folder contests for as long as it lives', async () => {
  const contests = await openContests(systemEnv(), {
    chain: leases.chain,
    key: key('buyer'),
    directory: undefined,
    handIn: nobody,
    onClosed: () => undefined,
  });
  open.push(contests);
  await contests.add(lease, () => undefined);
  await contests.quiet(1, 1);
  expect(leases.disputed).toEqual([]);
  leases.set(claimed(NOW));
  await contests.quiet(60_000, 60_000);
  expect(leases.disputed).toEqual([lease]);
});

test.each(['', '{"version":2,"leases":["x"]}', '{"version":1,"leases":["no address"]}', '{"version":1}'])(
  'a file with %j is begun anew',
  async (text) => {
    await writeFile(join(directory, 'contests.json'), text);
    const contests = await contestsOf();
    await contests.quiet(60_000, 60_000);
    await contests.add(lease, () => undefined);
    expect(await kept()).toEqual({ version: 1, leases: [lease] });
  },
);

/** A chain whose dispute goes on when somebody does what is next. */
class DisputeOnChain {
  readonly done: string[] = [];
  readonly verifiers = ['a', 'b', 'c', 'd'].map((name) => address(name));
  seats: DisputeAccount['seats'] = [];
  isOpen = true;
  nowMs = NOW;
  /** What each step throws once. */
  readonly faults = new Map<string, MoltError>();

  readonly #step = (name: string, effect: () => void) => async (): Promise<{ signature: string }> => {
    const fault = this.faults.get(name);
    this.faults.delete(name);
    if (fault !== undefined) throw fault;
    this.done.push(name);
    effect();
    return { signature: name };
  };

  readonly chain = {
    chainTimeMs: async () => this.nowMs,
    config: async () => ({ verifiers: this.verifiers }),
    watchLease: async function* () {
      yield { address: lease, state: 'disputed' };
    },
    lease: async () => (this.isOpen ? { address: lease, provider: address('d') } : undefined),
    dispute: async () => ({ lease, seats: this.seats, voteUntilMs: NOW + 10, revealUntilMs: NOW + 20 }),
    providersAt: async (found: readonly Address[]) => found.map((one) => ({ operator: address(`node of ${one}`) })),
    drawVerifiers: this.#step('draw', () => {
      this.seats = this.verifiers
        .slice(0, 3)
        .map((verifier) => ({ verifier, committed: false, pledge: baseUnits(1n) }));
    }),
    resolveDispute: this.#step('resolve', () => {
      this.isOpen = false;
    }),
    leaseEnding: async () => ({ lease, ending: 'resolvedForBuyer', paid: 0n, slashed: 7n, signature: 'end' }),
  } as unknown as Chain;

  vote(): void {
    this.seats = this.seats.map((seat) => ({ ...seat, committed: true, vote: 'buyer' as const }));
  }
}

async function pursue(
  dispute: DisputeOnChain,
  handIn: (nodes: readonly Address[]) => readonly Address[],
): Promise<{ readonly contests: Contests; readonly told: JobEvent[]; readonly closed: Address[] }> {
  const [told, closed]: [JobEvent[], Address[]] = [[], []];
  const contests = await openContests(systemEnv(), {
    chain: dispute.chain,
    key: key('buyer'),
    directory,
    handIn: async (_lease, nodes) => handIn(nodes),
    onClosed: (of) => closed.push(of),
  });
  open.push(contests);
  await contests.add(lease, (event) => told.push(event));
  return { contests, told, closed };
}

test('a dispute is pursued: drawn, each verifier told until it has heard, resolved when all votes are in', async () => {
  const dispute = new DisputeOnChain();
  const rounds: number[] = [];
  const { contests, told, closed } = await pursue(dispute, (nodes) => {
    rounds.push(nodes.length);
    return nodes.slice(0, 2);
  });
  // Nothing is left that needs this client once all three have heard, though none has voted.
  await contests.quiet(60_000, 60_000);
  expect(dispute.done).toEqual(['draw']);
  expect(rounds).toEqual([3, 1]);
  dispute.vote();
  await contests.ended(lease, new AbortController().signal);
  expect(dispute.done).toEqual(['draw', 'resolve']);
  expect(closed).toEqual([lease]);
  expect(told.filter(({ type }) => type === 'dispute-progress').at(-1)).toMatchObject({
    drawn: 3,
    heard: 3,
    revealed: 3,
  });
  expect(told.at(-1)).toEqual({
    type: 'dispute-resolved',
    lease,
    ending: 'resolvedForBuyer',
    paid: 0n,
    slashed: 7n,
    transaction: 'end',
  });
  expect(await kept()).toEqual({ version: 1, leases: [] });
});

test('who was faster to draw has done it for us, and an endpoint that is away is asked again', async () => {
  const dispute = new DisputeOnChain();
  dispute.faults.set('draw', new MoltError('chain/refused', 'AlreadyDrawn'));
  dispute.faults.set('resolve', new MoltError('chain/unreachable', 'the endpoint is away'));
  const { contests } = await pursue(dispute, (nodes) => nodes);
  await contests.quiet(60_000, 60_000);
  dispute.vote();
  await contests.ended(lease, new AbortController().signal);
  expect(dispute.done).toEqual(['draw', 'resolve']);
});

test('where nobody can be drawn nothing is waited for, and the end of the time is', async () => {
  const dispute = new DisputeOnChain();
  dispute.verifiers.splice(0, 1);
  const { contests } = await pursue(dispute, () => []);
  await contests.quiet(60_000, 60_000);
  expect(dispute.done).toEqual([]);
  dispute.nowMs = NOW + 11;
  await contests.ended(lease, new AbortController().signal);
  expect(dispute.done).toEqual(['resolve']);
});
