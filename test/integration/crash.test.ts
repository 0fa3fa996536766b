/**
 * Goal: a node that dies with SIGKILL, in whatever phase its job is, comes back with nothing lost: the job goes on or
 * fails with a reason, the buyer pays for what ran and for nothing else, no token appears or vanishes, and nothing of
 * the job stays on the machine. Method: real processes; each phase is held open by something slow that a user could
 * have (a big input, a slow registry, a sleeping program, a buyer that does not answer), and the phase that was hit is
 * read from what the restarted node says.
 */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { type Balances, type Parties, readBalances, reckon } from '../../node/cli/demo/balances.ts';
import { hasCode } from '../../protocol/errors.ts';
import type { JobSpecInput } from '../../protocol/job-spec.ts';
import type { JobEvent, JobResult, Molt } from '../../sdk/index.ts';
import { busyboxFiles, findEngine, openBusyboxRegistry } from '../fixtures/engine.ts';
import { type Registry, openRegistry } from '../fixtures/registry.ts';
import { forgetImage, leftOnEngine, loopDisksBelow, processesMentioning } from '../fixtures/traces.ts';
import { PYTHON, type TestBuyer, type TestMarket, type TestProvider, openMarket } from './market.ts';

const PHASES = ['queued', 'fetching', 'pulling', 'starting', 'running', 'collecting', 'done'] as const;
type Phase = (typeof PHASES)[number];

/** How often a phase is aimed at: on a busy machine the signal may come a phase late. */
const SHOTS = 4;
const BIG_BYTES = 64 << 20;
/** How long the buyer does not answer, so that the node stays in the phase that waits for it. */
const HOLD_SECONDS = '2';
/** The way of a node's word to this process takes this at most. */
const SLACK_MS = 2_000;

const engine = await findEngine();
let market: TestMarket;

beforeAll(async () => {
  market = await openMarket();
});

afterAll(async () => {
  await market?.[Symbol.asyncDispose]();
});

interface Bench {
  readonly provider: TestProvider;
  readonly buyer: TestBuyer;
  readonly molt: Molt;
  /** A job that stays in this phase for a while. */
  readonly job: (phase: Phase) => Promise<JobSpecInput>;
}

interface Shot {
  readonly outcome: PromiseSettledResult<JobResult>;
  readonly lease: string;
  /** The phase that the restarted node found the job in. */
  readonly found: string | undefined;
}

/** Runs the job, kills the node in the phase (or a moment later), starts it again, and waits until the lease is gone. */
async function shoot({ provider, buyer, molt, job }: Bench, phase: Phase): Promise<Shot> {
  let restarted: Promise<void> | undefined;
  let lease = '';
  const kill = (): void => {
    restarted ??= provider.kill().then(() => provider.start());
  };
  const onEvent = (event: JobEvent): void => {
    if (event.type === 'lease-opened') {
      lease = event.lease;
      if (phase !== 'queued' && phase !== 'done') {
        const reached = (line: Readonly<Record<string, unknown>>): boolean =>
          line['type'] === 'job-phase' && line['lease'] === lease && line['phase'] === phase;
        // A job that ends without it is a miss, which the caller counts.
        provider.line(reached, `the phase ${phase}`).then(kill, () => undefined);
      }
    }
    // This process does nothing else meanwhile: the provider has no answer and waits.
    const held = phase === 'queued' ? 'lease-opened' : phase === 'done' ? 'proof-verified' : undefined;
    if (event.type === held && restarted === undefined) {
      spawnSync('sleep', [HOLD_SECONDS]);
      kill();
    }
  };
  const running = molt.run(await job(phase), { maxPrice: '5', reconnectMs: 60_000, attempts: 1, onEvent });
  const [outcome] = await Promise.allSettled([running]);
  await restarted;
  const open = async (): Promise<number> => (await market.chain.leases({ budget: buyer.budget })).length;
  await expect.poll(open, { timeout: 90_000, interval: 200, message: 'the lease is closed' }).toBe(0);
  const told = provider.lines.findLast((line) => line['type'] === 'job-recovered' && line['lease'] === lease);
  return { outcome, lease, found: told?.['phase'] as string | undefined };
}

/** What the buyer paid follows from the time between the first instruction and the end, of the run that counted. */
function expectFairBill({ lines }: TestProvider, shot: Shot, cost: bigint): void {
  if (shot.outcome.status === 'rejected') {
    expect(shot.outcome.reason).toSatisfy((error) => hasCode(error, 'job/interrupted'), String(shot.outcome.reason));
    expect(cost).toBe(0n);
    return;
  }
  const result = shot.outcome.value;
  expect(result).toMatchObject({ exitCode: 0, cost });
  // As its node told them while they began: the buyer, which was cut off, hears of them later, and all at once.
  const phases = lines.filter((line) => line['type'] === 'job-phase' && line['lease'] === shot.lease);
  const ended = phases.find((line) => line['phase'] === 'collecting');
  const began = phases.find((line) => line['phase'] === 'starting' && line['attempt'] === ended?.['attempt']);
  const tookMs = Number(ended?.['heardMs']) - Number(began?.['heardMs']);
  expect(result.billedMs).toBeLessThanOrEqual(tookMs + SLACK_MS);
}

async function expectNothingLeft(provider: TestProvider): Promise<void> {
  const { directory } = provider.home;
  const left = async (): Promise<unknown> => ({
    folders: readdirSync(join(directory, 'jobs')),
    guests: processesMentioning(join(directory, 'jobs')),
    disks: loopDisksBelow(directory),
    engine: engine.socketPath === undefined ? [] : await leftOnEngine(engine.socketPath, directory),
  });
  await expect.poll(left, { interval: 200 }).toEqual({ folders: [], guests: [], disks: [], engine: [] });
}

async function survive(bench: Bench, phase: Phase): Promise<void> {
  const { buyer, provider } = bench;
  const parties: Parties = {
    buyer: { wallet: buyer.account.wallet, budget: buyer.budget },
    providers: [{ name: 'provider', wallet: provider.account.wallet, provider: provider.account.account }],
  };
  const hits: (string | undefined)[] = [];
  for (let number = 0; number < SHOTS && hits.at(-1) !== phase; number++) {
    const before: Balances = await readBalances(market.chain, parties);
    const shot = await shoot(bench, phase);
    const after = await readBalances(market.chain, parties);
    const cost = shot.outcome.status === 'fulfilled' ? shot.outcome.value.cost : 0n;
    reckon(before, after, cost);
    expectFairBill(provider, shot, cost);
    await expectNothingLeft(provider);
    const account = await market.chain.provider(provider.account.account);
    expect(account).toMatchObject({ openLeases: 0, reserved: 0n });
    hits.push(shot.found);
  }
  expect(hits).toContain(phase);
}

async function bigFile(molt: Molt, name: string): Promise<string> {
  const path = join(market.directory, name);
  writeFileSync(path, randomBytes(BIG_BYTES));
  return (await molt.add(path)).cid;
}

// Half of what is for sale: a quote of the try before may hold its share for a moment longer.
const resources = { cpuMillis: 500, memoryBytes: 256 * 2 ** 20, diskBytes: 512 * 2 ** 20 };
const maxDurationSeconds = 60;

/** Prints, waits as long as it is told, and writes an output of the size it is told. */
const SCRIPT = `import sys, time
print("begun", flush=True)
time.sleep(float(sys.argv[1]))
with open("/out/big", "wb") as out:
    for number in range(int(sys.argv[2])):
        out.write(bytes([number % 251]) * (1 << 20))
print("ended", flush=True)
`;

describe('a node killed with SIGKILL while its wasm job is', () => {
  let bench: Bench;
  beforeAll(async () => {
    const provider = await market.provider({ pricePerCpu: '0.001' });
    const buyer = await market.buyer({ deposit: '500' });
    const molt = await buyer.connect();
    const script = join(market.directory, 'crash.py');
    writeFileSync(script, SCRIPT);
    const { cid } = await molt.add(script);
    const python = await molt.add(PYTHON);
    const job = async (phase: Phase): Promise<JobSpecInput> => {
      const big =
        phase === 'fetching' || phase === 'starting' ? [{ cid: await bigFile(molt, 'big'), path: 'big' }] : [];
      const [seconds, megabytes] = [phase === 'running' ? '3' : '0', phase === 'collecting' ? '64' : '1'];
      return {
        runtime: 'wasm',
        image: phase === 'pulling' ? await freshPython(molt) : python.cid,
        command: ['python', '/in/crash.py', seconds, megabytes],
        inputs: [{ cid, path: 'crash.py' }, ...big],
        outputs: [{ name: 'big', path: 'big' }],
        resources,
        maxDurationSeconds,
      };
    };
    bench = { provider, buyer, molt, job };
  });
  afterAll(async () => {
    await bench?.molt.close();
    await bench?.provider.stop();
  });

  test.each(PHASES)('%s comes back, and nothing is lost or left', async (phase) => survive(bench, phase));
});

/** The same interpreter under another name: nothing that was prepared before fits it. */
async function freshPython(molt: Molt): Promise<string> {
  const path = join(market.directory, 'fresh.wasm');
  // A custom section: identifier 0, size 18, name of one byte, sixteen bytes of contents.
  const section = Buffer.concat([Buffer.from([0, 18, 1, 0x78]), randomBytes(16)]);
  writeFileSync(path, Buffer.concat([readFileSync(PYTHON), section]));
  return (await molt.add(path)).cid;
}

describe.skipIf(engine.socketPath === undefined)(
  `a node killed with SIGKILL while its container job is${engine.reason === '' ? '' : ` (${engine.reason})`}`,
  () => {
    let bench: Bench;
    let registry: Registry;
    let slow: Registry;
    beforeAll(async () => {
      registry = await openBusyboxRegistry();
      const marker = { name: 'marker', contents: randomBytes(1 << 20) };
      slow = await openRegistry(
        { name: 'molt/slow', files: [...busyboxFiles(), marker], env: ['PATH=/bin'] },
        { bytesPerSecond: 1 << 20 },
      );
      const provider = await market.provider({
        pricePerCpu: '0.001',
        runtimes: ['container'],
        containerSocket: engine.socketPath,
        // The engine is looked at while the node runs: what it keeps ready is not left over.
        containerPool: 0,
      });
      const buyer = await market.buyer({ deposit: '500' });
      const molt = await buyer.connect();
      const job = async (phase: Phase): Promise<JobSpecInput> => {
        const big =
          phase === 'fetching' || phase === 'starting' ? [{ cid: await bigFile(molt, 'big'), path: 'big' }] : [];
        const [seconds, megabytes] = [phase === 'running' ? 3 : 0, phase === 'collecting' ? 64 : 1];
        const script = `echo begun; sleep ${seconds}; dd if=/dev/zero of=/out/big bs=1M count=${megabytes}; echo ended`;
        return {
          runtime: 'container',
          image: phase === 'pulling' ? slow.reference : registry.reference,
          command: ['sh', '-c', script],
          inputs: big,
          outputs: [{ name: 'big', path: 'big' }],
          resources,
          maxDurationSeconds,
        };
      };
      bench = { provider, buyer, molt, job };
    });
    afterAll(async () => {
      await bench?.molt.close();
      await bench?.provider.stop();
      await registry?.[Symbol.asyncDispose]();
      await slow?.[Symbol.asyncDispose]();
    });

    test.each(PHASES)('%s comes back, and nothing is lost or left', async (phase) => {
      // An image that an earlier try brought would not have to be pulled again.
      if (phase === 'pulling') await forgetImage(engine.socketPath ?? '', slow.reference);
      await survive(bench, phase);
    });
  },
);
