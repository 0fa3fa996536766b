/**
 * Goal: n slots or none, whoever dies when. Method: a local chain and providers as real processes, killed with SIGKILL;
 * money read from the chain, capacity by buying it again.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { readWallet } from '../../chain/index.ts';
import { autonomyOf } from '../../market/index.ts';
import { type BaseUnits, baseUnits, parseMolt } from '../../protocol/units.ts';
import {
  GangFailedError,
  type GangEvent,
  type GangRequest,
  type GangResult,
  type JobSpecInput,
  type Molt,
  connect,
} from '../../sdk/index.ts';
import { PYTHON, type TestBuyer, type TestMarket, type TestProvider, openMarket } from './market.ts';

/** Who only is slow is waited for: the one that is killed is the one that is lost. */
const RECONNECT_MS = 5_000;

/** For so long a provider takes a budget for what it was when it looked. */
const BUDGET_KNOWN_MS = 15_000;

let market: TestMarket;
let buyer: TestBuyer;
let molt: Molt;
const providers: TestProvider[] = [];

beforeAll(async () => {
  market = await openMarket();
  for (let count = 0; count < 3; count++) providers.push(await market.provider({ pricePerCpu: '0.001' }));
  buyer = await market.buyer();
  molt = await buyer.connect();
});

afterAll(async () => {
  await market?.[Symbol.asyncDispose]();
});

/** Says which member it is, then prints a line a step, about a third of a second each. */
const SCRIPT = `import os, sys
print("member", os.environ["MOLT_GANG_RANK"], "of", os.environ["MOLT_GANG_SIZE"], flush=True)
for step in range(int(sys.argv[1])):
    total = 0
    for i in range(400000):
        total += i * i
    print("step", step, flush=True)
`;

async function memberJob(steps: number): Promise<JobSpecInput> {
  const script = join(market.directory, 'member.py');
  await writeFile(script, SCRIPT);
  const [module, input] = [await molt.add(PYTHON), await molt.add(script)];
  return {
    runtime: 'wasm',
    image: module.cid,
    command: ['python', '/in/member.py', String(steps)],
    inputs: [{ cid: input.cid, path: 'member.py' }],
    // What takes a quarter of a minute alone takes more than one beside the rest of the tests.
    maxDurationSeconds: 300,
  };
}

async function money(): Promise<{ free: BaseUnits; locked: BaseUnits; openLeases: number }> {
  const budget = await market.chain.budget(buyer.budget);
  if (budget === undefined) throw new Error('the budget is gone');
  return budget;
}

/** No lease is open, no stake is reserved, and the money is there but for what was paid. */
async function expectNothingLeft(before: BaseUnits, cost: BaseUnits): Promise<void> {
  await expect.poll(() => market.chain.leases({ budget: buyer.budget })).toEqual([]);
  expect(await money()).toMatchObject({ locked: 0n, openLeases: 0, free: before - cost });
  for (const { account } of providers)
    expect(await market.chain.provider(account.account)).toMatchObject({ reserved: 0n, openLeases: 0 });
}

interface Outcome {
  readonly events: readonly GangEvent[];
  readonly result?: GangResult;
  readonly error?: GangFailedError;
}

/** Runs a gang once its providers are free: after the gang before they clean up, and one that was killed comes back. */
async function gangOnce(
  request: GangRequest,
  react: (event: GangEvent, events: readonly GangEvent[]) => void = () => undefined,
  client = molt,
): Promise<Outcome> {
  for (;;) {
    const events: GangEvent[] = [];
    const onEvent = (event: GangEvent): void => {
      events.push(event);
      react(event, events);
    };
    try {
      return { events, result: await client.gang({ ...request, onEvent }).result };
    } catch (error) {
      if (!(error instanceof GangFailedError)) throw error;
      const isEarly = error.code === 'market/gang-incomplete' && typed(events, 'accepted').length === 0;
      if (!isEarly) return { events, error };
      await market.env.clock.sleep(500);
    }
  }
}

async function failureOf(result: Promise<unknown>): Promise<GangFailedError> {
  const error = await result.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(GangFailedError);
  return error as GangFailedError;
}

const typed = <Type extends GangEvent['type']>(
  events: readonly GangEvent[],
  type: Type,
): Extract<GangEvent, { type: Type }>[] =>
  events.filter((event): event is Extract<GangEvent, { type: Type }> => event.type === type);

describe('three providers', () => {
  test('run a gang of three, opened by one transaction, each member on its own machine and told its rank', async () => {
    const before = await money();
    const { events, result, error } = await gangOnce({ spec: await memberJob(2), slots: 3, maxPrice: '3' });
    expect(error).toBeUndefined();
    const { members = [], cost = baseUnits(0n) } = result ?? {};
    expect(new Set(members.map(({ provider }) => provider)).size).toBe(3);
    expect(new Set(members.map(({ openTransaction }) => openTransaction)).size).toBe(1);
    expect(members.map(({ stdout }) => stdout.split('\n')[0])).toEqual([0, 1, 2].map((rank) => `member ${rank} of 3`));
    expect(cost).toBe(members.reduce((sum, member) => sum + member.cost, 0n));
    const opened = events.findIndex((event) => event.type === 'gang-opened');
    const firstPhase = events.findIndex((event) => event.type === 'phase');
    expect(opened).toBeGreaterThan(-1);
    expect(firstPhase).toBeGreaterThan(opened);
    await expectNothingLeft(before.free, cost);
  });

  test('do not run a gang of four: nothing is leased, paid or held, and the buyer hears how many were found', async () => {
    const events: GangEvent[] = [];
    const spec = await memberJob(1);
    const before = await money();
    const attempt = async (): Promise<unknown> => {
      const onEvent = (event: GangEvent): number => events.push(event);
      const error = await failureOf(molt.gang({ spec, slots: 4, maxPrice: '4', onEvent }).result);
      expect(error).toMatchObject({ code: 'market/gang-incomplete', context: { slots: 4 }, cost: 0n });
      return error.message;
    };
    // A provider may need a moment to clean up after the gang before.
    await expect.poll(attempt).toMatch(/^3 of 4 slots found a provider/);
    expect(typed(events, 'accepted')).toEqual([]);
    expect(typed(events, 'lease-opened')).toEqual([]);
    await expectNothingLeft(before.free, baseUnits(0n));
    // Their capacity is free again: all three can be had.
    expect((await gangOnce({ spec, slots: 3, maxPrice: '3' })).result?.members).toHaveLength(3);
  });
});

test('molt gang tells every step as a line with its rank, and leaves a proof for each slot', async () => {
  const other = await market.buyer();
  await memberJob(1);
  const out = join(market.directory, 'gang-out');
  const lines: Readonly<Record<string, unknown>>[] = [];
  const options = ['--home', other.home.directory, '--out', out, '--max-price', '3', '--timeout', '60'];
  const job = [
    '--image',
    'python',
    '--input',
    join(market.directory, 'member.py'),
    '--',
    'python',
    '/in/member.py',
    '1',
  ];
  const gang = (slots: string): Promise<number | undefined> => {
    lines.length = 0;
    return market.spawn(['gang', slots, ...options, ...job], (line) => lines.push(line)).exited;
  };
  expect(await gang('4')).toBe(1);
  const explained = lines.filter(({ type }) => type === 'explained');
  expect(explained).toMatchObject([{ headline: expect.stringMatching(/nobody taken for 4 slots/) }]);
  // A provider may need a moment to clean up after the gang before.
  await expect.poll(() => gang('3')).toBe(0);
  const said = lines.filter(({ type }) => type === 'log').map(({ rank, text }) => `${String(rank)} ${String(text)}`);
  for (const rank of [0, 1, 2]) expect(said.join('')).toContain(`${rank} member ${rank} of 3`);
  expect(lines.at(-1)).toMatchObject({ type: 'result', slots: 3, cost: expect.stringMatching(/^\d+$/) });
  for (const rank of [0, 1, 2])
    expect((await readFile(join(out, String(rank), 'proof.json'))).length).toBeGreaterThan(0);
});

test('a buyer with limits of its own opens no gang beyond them, and what it did not open is not counted', async () => {
  const other = await market.buyer();
  const limits = { ...autonomyOf('aggressive'), concurrentMax: 2 };
  await using client = await connect({
    rpcUrl: market.rpcUrl,
    key: other.key,
    budget: other.budget,
    bootstrap: providers.map(({ address }) => address),
    journal: join(market.directory, 'limited'),
    autonomy: limits,
  });
  const spec = { ...(await memberJob(1)), image: (await client.add(PYTHON)).cid };
  await client.add(join(market.directory, 'member.py'));
  const codeOf = async (slots: number): Promise<string> => {
    const { result } = client.gang({ spec, slots, maxPrice: '3' });
    return result.then(
      () => 'ran',
      (error: GangFailedError) => error.code,
    );
  };
  // A provider may need a moment to clean up after the gang before.
  await expect.poll(() => codeOf(3)).toBe('market/spending-limit');
  expect(await market.chain.budget(other.budget)).toMatchObject({ locked: 0n, openLeases: 0 });
  await expect.poll(() => codeOf(2)).toBe('ran');
});

describe('a provider killed in mid-run', () => {
  test('ends the whole gang: the others are stopped and paid for what ran, and no lease stays open', async () => {
    const before = await money();
    const [victim] = providers as [TestProvider];
    let killed: Promise<void> | undefined;
    const request = { spec: await memberJob(60), slots: 3, maxPrice: '3', reconnectMs: RECONNECT_MS };
    const { events, error } = await gangOnce(request, (event) => {
      if (event.type === 'log') killed ??= victim.kill();
    });
    await killed;
    expect(error?.code).toBe('job/provider-lost');
    expect(typed(events, 'member-lost')[0]).toMatchObject({ code: 'job/provider-lost', replacing: false });
    expect(error?.members.filter(({ result }) => result?.reason === 'cancelled')).toHaveLength(2);
    expect(typed(events, 'lease-left')).toMatchObject([{ paid: expect.any(BigInt) }]);
    await expectNothingLeft(before.free, error?.cost ?? baseUnits(0n));
    await victim.start();
  });

  test('is replaced where the buyer wants that, while the other member goes on', async () => {
    const before = await money();
    let killed: Promise<void> | undefined;
    let victim: TestProvider | undefined;
    // Three must be free, also in the view of the buyer: two for the gang, one to take over.
    const roomy = async (): Promise<number> =>
      (await molt.offers()).filter(({ revoked, free }) => !revoked && free.cpuMillis >= 1_000).length;
    await expect.poll(roomy, { timeout: 90_000 }).toBe(3);
    const request = { spec: await memberJob(40), slots: 2, maxPrice: '2', reconnectMs: RECONNECT_MS };
    const { events, result, error } = await gangOnce({ ...request, onLoss: 'replace' }, (event, soFar) => {
      if (event.type !== 'log' || event.rank !== 1) return;
      const seat = typed(soFar, 'seated')[1];
      victim ??= providers.find(({ account }) => account.account === seat?.provider);
      killed ??= victim?.kill();
    });
    await killed;
    expect(error).toBeUndefined();
    const members = result?.members ?? [];
    expect(typed(events, 'member-lost')).toMatchObject([{ rank: 1, replacing: true }]);
    expect(typed(events, 'seated').map(({ rank }) => rank)).toEqual([0, 1, 1]);
    expect(members.map(({ exitCode }) => exitCode)).toEqual([0, 0]);
    expect(members[1]?.provider).not.toBe(victim?.account.account);
    expect(members[1]?.provider).not.toBe(members[0]?.provider);
    await expectNothingLeft(before.free, result?.cost ?? baseUnits(0n));
    await victim?.start();
  });
});

test('a provider killed between its signature and the opening costs at most seconds, and frees the others', async () => {
  const before = await money();
  const [victim] = providers as [TestProvider];
  let killed: Promise<void> | undefined;
  const request = { spec: await memberJob(60), slots: 3, maxPrice: '3', reconnectMs: RECONNECT_MS };
  const { events, error } = await gangOnce(request, (event) => {
    if (event.type === 'accepted') killed ??= victim.kill();
  });
  await killed;
  // Either it was seen in time and nothing was opened, or what was opened came back.
  expect(error).toBeDefined();
  const opened = typed(events, 'lease-opened');
  expect([0, 3]).toContain(opened.length);
  if (opened.length === 0) expect(error?.cost).toBe(0n);
  else expect(typed(events, 'lease-left').length).toBeGreaterThan(0);
  expect(typed(events, 'proof-verified').length).toBeLessThan(3);
  await expectNothingLeft(before.free, error?.cost ?? baseUnits(0n));
  await victim.start();
});

test('what one transaction opened is given back whole by its provider when the other transaction is refused', async () => {
  for (const provider of providers) await provider.stop();
  const roomy = await market.provider({ pricePerCpu: '0.0001', cpuMillis: 2_000, memoryBytes: 2 * 2 ** 30 });
  const other = await market.buyer();
  const client = await other.connect();
  const spec = await memberJob(1);
  const content = { ...spec, image: (await client.add(PYTHON)).cid };
  await client.add(join(market.directory, 'member.py'));
  const account = await market.chain.budget(other.budget);
  const owner = await readWallet(other.home.wallet);
  const lockOf = async (): Promise<bigint> => {
    const { result } = await gangOnce({ spec: content, slots: 1, maxPrice: '1' }, undefined, client);
    return result!.members[0]!.locked;
  };
  const amount = await lockOf();
  // The provider has just looked at the budget when its limit falls: it quotes what the chain will not open.
  await market.env.clock.sleep(BUDGET_KNOWN_MS + 1_000);
  const tooMany = client.gang({ spec: content, slots: 3, spread: 'any', maxPrice: '3' });
  expect(await failureOf(tooMany.result)).toMatchObject({ code: 'market/gang-incomplete' });
  const { delegates, capPerLease, expiresAtMs, spentOnDay } = (await market.chain.budget(other.budget))!;
  const capPerDay = baseUnits(spentOnDay + (amount * 3n) / 2n);
  await market.chain.setDelegates(owner, other.budget, { delegates, capPerLease, expiresAtMs, capPerDay });
  const before = (await market.chain.budget(other.budget))!;
  // Again while the provider has not let go of the quotes before.
  const request: GangRequest = { spec: content, slots: 2, spread: 'any', maxPrice: '2' };
  const { events, error } = await gangOnce(request, undefined, client);
  expect(error).toMatchObject({ code: 'chain/budget-limit', cost: 0n });
  expect(typed(events, 'lease-opened')).toHaveLength(1);
  expect(typed(events, 'lease-left')).toMatchObject([{ paid: 0n }]);
  expect(typed(events, 'phase')).toEqual([]);
  expect(await market.chain.budget(other.budget)).toMatchObject({ locked: 0n, openLeases: 0, free: before.free });
  expect(account?.free).toBeGreaterThan(parseMolt('1'));
  await roomy.stop();
});
