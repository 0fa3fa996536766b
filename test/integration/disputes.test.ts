/**
 * Goal: a dispute is decided by the drawn verifiers' nodes without anybody's help: a broken promise and a wrong result cost
 * the provider its reserve, a right result costs the buyer its bond, and a verifier that is killed between its two votes
 * gives both. Method: four verifiers as processes of their own; providers in this process that start late or forge outputs.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';

import type { DisputeAccount } from '../../chain/index.ts';
import type { RunningNode } from '../../node/node.ts';
import type { Run } from '../../node/runtime/index.ts';
import type { Address } from '../../protocol/address.ts';
import type { JobEvent, Molt } from '../../sdk/index.ts';
import { forged, startCrook, tamper, withExit } from './crook.ts';
import {
  PYTHON,
  type TestBuyer,
  type TestMarket,
  type TestProvider,
  openMarket,
  runFirstOn,
  stepsJob,
} from './market.ts';

const PATIENCE = { timeout: 90_000, interval: 250 };
const VERIFIERS = 4;

let market: TestMarket;
let buyer: TestBuyer;
let molt: Molt;
const verifiers: TestProvider[] = [];
/** Cheaper than all others, and run in this process. */
const crooks: TestProvider[] = [];
let running: RunningNode[] = [];

beforeAll(async () => {
  market = await openMarket();
  const prices = ['0.00005', '0.00006'];
  for (const pricePerCpu of prices) crooks.push(await market.provider({ pricePerCpu, startSecondsCold: 5 }));
  for (let count = 0; count < VERIFIERS; count++) {
    const verifier = await market.provider({ pricePerCpu: `0.00${count + 1}`, startSecondsCold: 5 });
    await market.spawn(['verifier', 'join', '-y', '--home', verifier.home.directory]).exited;
    verifiers.push(verifier);
  }
  for (const crook of crooks) await crook.stop();
  buyer = await market.buyer();
  molt = await buyer.connect();
});
afterAll(async () => {
  await market?.[Symbol.asyncDispose]();
});
afterEach(async () => {
  vi.restoreAllMocks();
  for (const node of running.splice(0)) await node.close();
});

/** Starts so many crooks in this process; every run of theirs is what `change` makes of it. */
async function corrupt(
  count: number,
  change: (run: Run, outputDirectory: string) => Run,
): Promise<readonly TestProvider[]> {
  const chosen = crooks.slice(0, count);
  for (const { home } of chosen) {
    running.push(await startCrook(market.env, home));
  }
  // After the nodes measured their speed.
  tamper(change);
  const live = async (): Promise<number> =>
    (await molt.offers()).filter(({ free, revoked }) => !revoked && free.cpuMillis >= 1_000).length;
  await expect.poll(live, PATIENCE).toBe(VERIFIERS + count);
  return chosen;
}

/** Waits until all three have committed, and moves the chain to where votes are revealed. */
async function committed(lease: Address): Promise<DisputeAccount> {
  const votes = async (): Promise<number> =>
    (await market.chain.dispute(lease))?.seats.filter((seat) => seat.committed).length ?? 0;
  await expect.poll(votes, PATIENCE).toBe(3);
  const dispute = await market.chain.dispute(lease);
  if (dispute === undefined) throw new Error('the dispute is gone');
  return dispute;
}

function leaseOf(events: readonly JobEvent[], type: 'lease-disputed'): Address | undefined {
  return events.find((event) => event.type === type)?.lease;
}

async function disputed(events: readonly JobEvent[]): Promise<Address> {
  await expect.poll(() => leaseOf(events, 'lease-disputed'), PATIENCE).toBeDefined();
  const lease = leaseOf(events, 'lease-disputed');
  if (lease === undefined) throw new Error('no lease was disputed');
  return lease;
}

const seatsOf = ({ seats }: DisputeAccount): readonly TestProvider[] =>
  verifiers.filter(({ account }) => seats.some(({ verifier }) => verifier === account.account));

/** How each of them found, and on what ground. */
async function verdictsOf(lease: Address, drawn: readonly TestProvider[]): Promise<(readonly unknown[])[]> {
  const verdicts = drawn.map((verifier) =>
    verifier.line(({ type, lease: of }) => type === 'dispute-judged' && of === lease, 'the verdict'),
  );
  return (await Promise.all(verdicts)).map(({ side, ground }) => [side, ground]);
}

async function resolved(lease: Address): Promise<Awaited<ReturnType<typeof market.chain.leaseEnding>>> {
  await expect.poll(async () => (await market.chain.lease(lease)) === undefined, PATIENCE).toBe(true);
  return market.chain.leaseEnding(lease);
}

test('one that began late and claims all the same loses its reserve to the buyer', async () => {
  const late = await corrupt(1, (run) =>
    withExit(run, async (exit) => ({ ...exit, startedAtMs: exit.startedAtMs + 100_000 })),
  );
  const events: JobEvent[] = [];
  const before = await market.chain.budget(buyer.budget);
  const result = await runFirstOn(late, molt, await stepsJob(market, molt, 2), {
    maxPrice: '5',
    // A start that is admitted a hundred seconds later is late all the same, and an honest one is not on a busy machine.
    startWithinSeconds: 60,
    onEvent: (event) => events.push(event),
  });
  const lease = await disputed(events);
  const dispute = await committed(lease);
  await market.warp(market.chain.parameters.voteMs / 1000 + 1);
  const ending = await resolved(lease);
  expect(ending).toMatchObject({ ending: 'resolvedForBuyer', paid: 0n });
  expect(await verdictsOf(lease, seatsOf(dispute))).toEqual(Array.from({ length: 3 }, () => ['buyer', 'started-late']));
  await expect.poll(() => events.find(({ type }) => type === 'dispute-resolved'), PATIENCE).toMatchObject({ lease });
  // The bond is back, and a part of the reserve on top of it.
  const after = await market.chain.budget(buyer.budget);
  expect(ending?.slashed).toBeGreaterThan(0n);
  expect(after?.locked).toBe(0n);
  expect(after?.free).toBeGreaterThan((before?.free ?? 0n) - result.cost);
});

test('a forged result is run again and costs its provider the reserve, though a verifier was killed between its votes', async () => {
  const forgers = await corrupt(1, forged);
  const events: JobEvent[] = [];
  const result = await runFirstOn(forgers, molt, await stepsJob(market, molt, 2), {
    maxPrice: '6',
    replicas: 3,
    onEvent: (event) => events.push(event),
  });
  expect(result.replicas?.find(({ outcome }) => outcome === 'outvoted')?.provider).toBe(forgers[0]?.account.account);
  const lease = await disputed(events);
  const drawn = seatsOf(await committed(lease));
  const [victim] = drawn;
  await victim?.kill();
  await market.warp(market.chain.parameters.voteMs / 1000 + 1);
  await victim?.start();
  expect(await verdictsOf(lease, drawn)).toEqual(Array.from({ length: 3 }, () => ['buyer', 'result-differs']));
  for (const verifier of drawn)
    await verifier.line(({ type, lease: of }) => type === 'vote-revealed' && of === lease, 'the revealed vote');
  expect(await resolved(lease)).toMatchObject({ ending: 'resolvedForBuyer', paid: 0n });
});

test('a right result that was outvoted by two forged ones is paid, and the bond of the buyer with it', async () => {
  const forgers = await corrupt(2, forged);
  const events: JobEvent[] = [];
  const result = await runFirstOn(forgers, molt, await stepsJob(market, molt, 2), {
    maxPrice: '6',
    replicas: 3,
    onEvent: (event) => events.push(event),
  });
  const outvoted = result.replicas?.find(({ outcome }) => outcome === 'outvoted');
  expect(verifiers.map(({ account }) => account.account)).toContain(outvoted?.provider);
  const lease = await disputed(events);
  const dispute = await committed(lease);
  expect(dispute.seats.map(({ verifier }) => verifier)).not.toContain(outvoted?.provider);
  expect(dispute.bond).toBeGreaterThan(0n);
  await market.warp(market.chain.parameters.voteMs / 1000 + 1);
  const ending = await resolved(lease);
  expect(await verdictsOf(lease, seatsOf(dispute))).toEqual(
    Array.from({ length: 3 }, () => ['provider', 'result-equal']),
  );
  expect(ending).toMatchObject({ ending: 'resolvedForProvider', slashed: 0n });
  expect(ending?.paid).toBeGreaterThan(0n);
});

test('three results that differ are disputed one by one with molt lease dispute, which shows what was kept of the job', async () => {
  const each = (run: Run, outputDirectory: string): Run =>
    withExit(run, async (exit) => {
      await writeFile(join(outputDirectory, 'result.txt'), outputDirectory);
      return exit;
    });
  const [crook] = await corrupt(2, each);
  // Three are left, so that the job runs on both crooks.
  const away = verifiers.slice(1);
  await Promise.all(away.map((verifier) => verifier.stop()));
  const { home, key } = await market.buyer();
  const script = join(market.directory, 'steps.py');
  const args = [
    '--image',
    'python',
    '--input',
    script,
    '--output',
    'result.txt',
    '--replicas',
    '3',
    '--max-price',
    '6',
  ];
  const program = ['--timeout', '120', '--', 'python', '/in/steps.py', '2'];
  const out = ['--home', home.directory, '--out', join(market.directory, 'no-majority')];
  // A newcomer may not have heard of all three yet.
  const ending = async (): Promise<unknown> => {
    const child = market.spawn(['run', ...out, ...args, ...program]);
    await child.exited;
    return child.failure().code;
  };
  await expect.poll(ending, PATIENCE).toBe('proof/no-majority');
  await Promise.all(away.map((verifier) => verifier.start()));
  const claimed = async (): Promise<Address | undefined> =>
    (await market.chain.leases({ delegate: key.address })).find(
      ({ provider, state }) => provider === crook?.account.account && state === 'proven',
    )?.address;
  await expect.poll(claimed, PATIENCE).toBeDefined();
  const lease = await claimed();
  if (lease === undefined) throw new Error('nobody claims');
  const lines: Readonly<Record<string, unknown>>[] = [];
  const content = ['--content', PYTHON, '--content', script];
  const disputing = market.spawn(['lease', 'dispute', lease, '-y', '--home', home.directory, ...content], (line) =>
    lines.push(line),
  );
  const drawn = seatsOf(await committed(lease));
  expect(await verdictsOf(lease, drawn)).toEqual(Array.from({ length: 3 }, () => ['buyer', 'result-differs']));
  await market.warp(market.chain.parameters.voteMs / 1000 + 1);
  await disputing.exited;
  expect(lines.filter(({ type }) => type === 'dispute-progress').at(-1)).toMatchObject({ heard: 3 });
  expect(lines.at(-1)).toMatchObject({ type: 'ended', lease, ending: 'resolvedForBuyer', paid: '0' });
});
