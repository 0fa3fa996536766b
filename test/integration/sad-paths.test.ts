/**
 * Goal: whoever dies, nobody loses money and the job ends. Method: a local chain and providers as real processes, killed
 * with SIGKILL; buyers as SDK clients or as processes; money read from the chain.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { LeaseAccount } from '../../chain/index.ts';
import { hasCode } from '../../protocol/errors.ts';
import { type BaseUnits, parseMolt } from '../../protocol/units.ts';
import type { JobEvent, JobResult } from '../../sdk/index.ts';
import {
  PYTHON,
  type TestBuyer,
  type TestMarket,
  type TestProvider,
  openMarket,
  runFirstOn,
  stepsJob,
} from './market.ts';

let market: TestMarket;

beforeAll(async () => {
  market = await openMarket();
});

afterAll(async () => {
  await market?.[Symbol.asyncDispose]();
});

async function budgetMoney(
  address: Parameters<TestMarket['chain']['budget']>[0],
): Promise<{ free: BaseUnits; locked: BaseUnits }> {
  const budget = await market.chain.budget(address);
  if (budget === undefined) throw new Error('the budget is gone');
  return budget;
}

/** Rejects when the wait takes much longer than it could. */
function waitFor(condition: () => Promise<boolean>, what: string): Promise<void> {
  return expect.poll(condition, { interval: 200, message: what }).toBe(true);
}

describe('a provider dies with SIGKILL while the job runs', () => {
  test('the buyer notices, the job succeeds on the next provider, and the dead lease gives all its money back', async () => {
    const cheap = await market.provider({ pricePerCpu: '0.0001' });
    const other = await market.provider({ pricePerCpu: '0.003' });
    const buyer = await market.buyer();
    const before = await budgetMoney(buyer.budget);
    const molt = await buyer.connect();
    const spec = await stepsJob(market, molt, 12);
    const events: JobEvent[] = [];
    let killedMs = 0;
    let noticedMs = 0;
    const result = await runFirstOn([cheap], molt, spec, {
      maxPrice: '2',
      onEvent: (event) => {
        events.push(event);
        if (event.type === 'log' && killedMs === 0) {
          killedMs = performance.now();
          void cheap.kill();
        }
        if (event.type === 'provider-silent' && noticedMs === 0) noticedMs = performance.now();
      },
    });
    expect(killedMs).toBeGreaterThan(0);
    // Not a speed: the promise to buyers that a dead provider is noticed within ten seconds.
    expect(noticedMs - killedMs).toBeLessThan(10_000);
    // In words for who waits, not for who writes programs.
    expect(events.find((event) => event.type === 'provider-silent')).toMatchObject({
      reason: 'the connection to the provider broke',
    });
    const opened = events.filter((event) => event.type === 'lease-opened');
    expect(opened).toHaveLength(2);
    expect(events.find((event) => event.type === 'provider-failed')).toMatchObject({
      code: 'job/provider-lost',
      retrying: true,
    });
    expect(result).toMatchObject({ exitCode: 0, attempts: 2, provider: other.account.account });
    const dead = opened[0];
    if (dead?.type !== 'lease-opened') throw new Error('no lease was opened');
    expect((await budgetMoney(buyer.budget)).locked).toBe(dead.locked);

    // Nobody may end it early, anybody may end it late.
    const stranger = await market.buyer({ deposit: '1' });
    const lease = await market.chain.lease(dead.lease);
    if (lease === undefined) throw new Error('the lease is gone');
    await expect(market.chain.expireLease(stranger.key, lease)).rejects.toSatisfy((error) =>
      hasCode(error, 'chain/refused'),
    );
    await molt.close();
    await market.warp(Math.ceil((lease.finishByMs + lease.graceMs - (await market.chain.chainTimeMs())) / 1000) + 2);
    await market.chain.expireLease(stranger.key, lease);
    const after = await budgetMoney(buyer.budget);
    expect(after.locked).toBe(0n);
    const ending = await market.chain.leaseEnding(dead.lease);
    expect(ending).toMatchObject({ ending: 'expired', paid: 0n, refunded: dead.locked });
    expect(after.free).toBe(before.free - result.cost + (ending?.slashed ?? 0n));
    const account = await market.chain.provider(cheap.account.account);
    expect(account).toMatchObject({ faults: 1n, openLeases: 0, reserved: 0n });
    await other.stop();
  });
});

describe('a provider is restarted in mid-job', () => {
  test('it takes the job up from its journal, the buyer resumes the stream, and one lease is paid once', async () => {
    const provider = await market.provider({ pricePerCpu: '0.001' });
    const buyer = await market.buyer();
    const before = await budgetMoney(buyer.budget);
    const molt = await buyer.connect();
    // Its node must not have ended it before it is killed.
    const spec = await stepsJob(market, molt, 16);
    const events: JobEvent[] = [];
    let restarted: Promise<void> | undefined;
    const result = await molt.run(spec, {
      maxPrice: '2',
      reconnectMs: 150_000,
      onEvent: (event) => {
        events.push(event);
        if (event.type === 'log' && restarted === undefined) restarted = provider.kill().then(() => provider.start());
      },
    });
    await restarted;
    expect(events.filter((event) => event.type === 'lease-opened')).toHaveLength(1);
    expect(events.some((event) => event.type === 'provider-back')).toBe(true);
    expect(events.filter((event) => event.type === 'phase').at(-1)).toMatchObject({ attempt: 2 });
    expect(result).toMatchObject({ exitCode: 0, attempts: 1 });
    expect(result.stdout.trim().split('\n')).toHaveLength(16);
    await waitFor(
      async () => (await market.chain.leases({ budget: buyer.budget })).length === 0,
      'the lease is closed',
    );
    const after = await budgetMoney(buyer.budget);
    expect(after).toMatchObject({ locked: 0n, free: before.free - result.cost });
    const account = await market.chain.provider(provider.account.account);
    expect(account).toMatchObject({ settledCount: 1n, openLeases: 0, reserved: 0n });

    // No capacity stayed locked: the whole machine can be bought again.
    const again = await molt.run(await stepsJob(market, molt, 1), { maxPrice: '2' });
    expect(again).toMatchObject({ exitCode: 0, provider: provider.account.account });
    await molt.close();
    await provider.stop();
  });
});

/** A buyer process that is killed as soon as its job says something; resolves to the claim the provider then makes alone. */
async function vanishedBuyer(
  provider: TestProvider,
): Promise<{ buyer: TestBuyer; before: { free: BaseUnits }; lease: LeaseAccount; claimed: BaseUnits }> {
  const buyer = await market.buyer();
  const before = await budgetMoney(buyer.budget);
  const molt = await buyer.connect();
  // Its own process must not have settled before it is killed.
  const spec = await stepsJob(market, molt, 8);
  await molt.close();
  const job = ['--image', PYTHON, '--input', `${market.directory}/steps.py`, '--output', 'result.txt'];
  const out = ['--out', `${market.directory}/vanished`];
  const lines: Readonly<Record<string, unknown>>[] = [];
  const child = market.spawn(
    ['run', '--home', buyer.home.directory, ...job, ...out, '--', ...(spec.command ?? [])],
    (line) => {
      lines.push(line);
      if (line['type'] === 'log' && child.pid !== undefined) process.kill(child.pid, 'SIGKILL');
    },
  );
  await child.exited;
  expect(lines.some((line) => line['type'] === 'settled')).toBe(false);
  await provider.line((line) => line['type'] === 'claimed', 'the claim');
  const [lease] = await market.chain.leases({ budget: buyer.budget });
  if (lease?.proof === undefined) throw new Error('the lease is not proven');
  expect(lease.state).toBe('proven');
  return { buyer, before, lease, claimed: lease.proof.claimed };
}

describe('the buyer vanishes after sending the job', () => {
  test('the provider proves on chain and is paid after the challenge window, with the buyer gone', async () => {
    const provider = await market.provider();
    const wallet = await market.chain.balances(provider.account.wallet);
    const { buyer, before, lease, claimed } = await vanishedBuyer(provider);
    await market.warp(Math.ceil(lease.windowMs / 1000) + 2);
    await provider.line((line) => line['type'] === 'settled-alone', 'the settlement');
    expect(claimed).toBeGreaterThan(0n);
    expect(await budgetMoney(buyer.budget)).toMatchObject({ locked: 0n, free: before.free - claimed });
    const ending = await market.chain.leaseEnding(lease.address);
    expect(ending).toMatchObject({ ending: 'settledAfterWindow', paid: claimed });
    const earned = claimed - (ending?.burned ?? 0n) - (ending?.staked ?? 0n);
    expect((await market.chain.balances(provider.account.wallet)).tokens).toBe(wallet.tokens + earned);
    await provider.stop();
  });

  test('comes back in time to dispute: without a quorum the outcome is neutral, and the provider itself brings it about', async () => {
    const provider = await market.provider();
    const { buyer, before, lease } = await vanishedBuyer(provider);
    await market.chain.openDispute(buyer.key, lease);
    const dispute = await market.chain.dispute(lease.address);
    if (dispute === undefined) throw new Error('there is no dispute');
    await market.warp(Math.ceil((dispute.voteUntilMs - (await market.chain.chainTimeMs())) / 1000) + 2);
    await provider.line((line) => line['type'] === 'settled-alone', 'the resolution');
    const ending = await market.chain.leaseEnding(lease.address);
    expect(ending).toMatchObject({ ending: 'resolvedNeutral', slashed: 0n });
    expect(await budgetMoney(buyer.budget)).toMatchObject({ locked: 0n, free: before.free - (ending?.paid ?? 0n) });
    expect(await market.chain.provider(provider.account.account)).toMatchObject({ openLeases: 0, reserved: 0n });
    await provider.stop();
  });
});

describe('two buyers bid for the only slot at the same moment', () => {
  test('exactly one lease opens, and the other buyer is told that there is no capacity', async () => {
    const provider = await market.provider({ cpuMillis: 1_000 });
    const buyers = await Promise.all([market.buyer(), market.buyer()]);
    const clients = await Promise.all(buyers.map((buyer) => buyer.connect()));
    // The winner's job outlasts the other's bid, and what that one still waits for when it is declined.
    const specs = await Promise.all(clients.map((molt) => stepsJob(market, molt, 16)));
    const opened: string[] = [];
    const outcomes = await Promise.allSettled(
      clients.map((molt, index) =>
        molt.run(specs[index] as (typeof specs)[number], {
          maxPrice: '2',
          onEvent: (event) => {
            if (event.type === 'lease-opened') opened.push(event.lease);
          },
        }),
      ),
    );
    expect(opened).toHaveLength(1);
    const won = outcomes.filter(
      (outcome): outcome is PromiseFulfilledResult<JobResult> => outcome.status === 'fulfilled',
    );
    const lost = outcomes.filter((outcome) => outcome.status === 'rejected');
    expect(won.map((outcome) => outcome.value.exitCode)).toEqual([0]);
    expect(lost).toHaveLength(1);
    expect(lost[0]?.reason).toMatchObject({ code: 'market/no-capacity' });
    expect(String(lost[0]?.reason)).toContain('1 CPU core needed, 0 free');
    for (const molt of clients) await molt.close();
    await provider.stop();
  });
});

describe('a buyer cancels', () => {
  test('what ran is paid, the rest comes back, and the provider is free again', async () => {
    const provider = await market.provider();
    const buyer = await market.buyer();
    const before = await budgetMoney(buyer.budget);
    const molt = await buyer.connect();
    const spec = await stepsJob(market, molt, 200);
    const job = molt.start(spec, {
      maxPrice: parseMolt('2'),
      onEvent: (event) => {
        if (event.type === 'log') job.cancel();
      },
    });
    await expect(job.result).rejects.toMatchObject({ code: 'job/cancelled' });
    await waitFor(async () => (await budgetMoney(buyer.budget)).locked === 0n, 'nothing is locked');
    const after = await budgetMoney(buyer.budget);
    expect(before.free - after.free).toBe(job.cost());
    expect(job.cost()).toBeGreaterThan(0n);
    // It says so itself, once it has cleaned up.
    await waitFor(
      async () =>
        (await molt.offers()).some(
          ({ provider: of, free }) => of === provider.account.account && free.cpuMillis >= 1_000,
        ),
      'the provider offers its room again',
    );
    const again = await molt.run(await stepsJob(market, molt, 1), { maxPrice: '2' });
    expect(again.exitCode).toBe(0);
    await molt.close();
    await provider.stop();
  });
});
