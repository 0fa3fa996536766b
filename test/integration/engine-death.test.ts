/**
 * Goal: the engine restarted under a running job, and the machine rebooted under all of them: the job goes on, runs again
 * or fails with a reason, the buyer pays for the run that counted, and nothing stays behind. Method: an engine of the
 * test's own, killed for real; a reboot is everything it ends (node, engine, shims, containers, mounts, loop devices).
 */
import { randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { JobSpecInput } from '../../protocol/job-spec.ts';
import type { JobEvent, JobResult } from '../../sdk/index.ts';
import { busyboxFiles, findEngine } from '../fixtures/engine.ts';
import { type PrivateEngine, openPrivateEngine, whyNoPrivateEngine } from '../fixtures/private-engine.ts';
import { type Registry, openRegistry } from '../fixtures/registry.ts';
import { leftOnEngine, loopDisksBelow } from '../fixtures/traces.ts';
import { type TestBuyer, type TestMarket, type TestProvider, openMarket } from './market.ts';

const { reason } = await findEngine();
const cannot = reason === '' ? whyNoPrivateEngine() : reason;

/** A market of its own: what is left of a test that failed is no matter of the next one. */
interface Scene extends AsyncDisposable {
  readonly market: TestMarket;
  readonly engine: PrivateEngine;
  readonly provider: TestProvider;
  readonly buyer: TestBuyer;
}

interface Told {
  readonly outcome: PromiseSettledResult<JobResult>;
  readonly events: readonly JobEvent[];
  /** Tokens that left the budget. */
  readonly paid: bigint;
}

describe.skipIf(cannot !== '')(`a container job${cannot === '' ? '' : ` (skipped: ${cannot})`}`, () => {
  let registry: Registry;

  beforeAll(async () => {
    registry = await openRegistry({
      name: 'molt/mortal',
      files: [...busyboxFiles(), { name: 'marker', contents: randomBytes(16) }],
      env: ['PATH=/bin'],
    });
  });
  afterAll(() => registry?.[Symbol.asyncDispose]());

  async function open(liveRestore: boolean): Promise<Scene> {
    await using opened = new AsyncDisposableStack();
    const engine = opened.use(await openPrivateEngine({ liveRestore }));
    const market = opened.use(await openMarket());
    const provider = await market.provider({ runtimes: ['container'], containerSocket: engine.socketPath });
    const buyer = await market.buyer();
    const resources = opened.move();
    return { market, engine, provider, buyer, [Symbol.asyncDispose]: () => resources.disposeAsync() };
  }

  const job = (seconds: number): JobSpecInput => ({
    runtime: 'container',
    image: registry.reference,
    command: ['sh', '-c', `for i in $(seq 1 ${seconds}); do echo line $i; sleep 1; done; echo ${seconds} > /out/n`],
    outputs: [{ name: 'n', path: 'n' }],
    resources: { memoryBytes: 64 * 2 ** 20, diskBytes: 32 * 2 ** 20 },
    maxDurationSeconds: 60,
  });

  /** Runs a job of some seconds and does `harm` when it has said something. */
  async function run(
    { market, buyer, provider, engine }: Scene,
    seconds: number,
    harm: () => Promise<void>,
  ): Promise<Told> {
    const before = await market.chain.budget(buyer.budget);
    await using molt = await buyer.connect();
    const events: JobEvent[] = [];
    let harmed: Promise<void> | undefined;
    const onEvent = (event: JobEvent): void => {
      events.push(event);
      if (event.type === 'log') harmed ??= harm();
    };
    // A quote may take its time on a machine that does other things: this is about what comes after it.
    const patience = { reconnectMs: 150_000, quoteTimeoutMs: 30_000 };
    const running = molt.run(job(seconds), { maxPrice: '2', ...patience, attempts: 1, onEvent });
    const [outcome] = await Promise.allSettled([running]);
    await harmed;
    const left = async (): Promise<unknown> => ({
      leases: (await market.chain.leases({ budget: buyer.budget })).length,
      folders: readdirSync(join(provider.home.directory, 'jobs')),
      disks: loopDisksBelow(provider.home.directory),
    });
    await expect.poll(left, { interval: 200 }).toEqual({ leases: 0, folders: [], disks: [] });
    // An engine that was killed may keep the name of a volume until it is restarted in order.
    await provider.stop();
    await engine.stop();
    await engine.start();
    await provider.start();
    expect(await leftOnEngine(engine.socketPath, provider.home.directory)).toEqual([]);
    const after = await market.chain.budget(buyer.budget);
    expect(after).toMatchObject({ locked: 0n });
    return { outcome, events, paid: (before?.free ?? 0n) - (after?.free ?? 0n) };
  }

  const valueOf = ({ outcome }: Told): JobResult => {
    if (outcome.status === 'rejected') throw outcome.reason;
    return outcome.value;
  };

  test('goes on while its engine is killed and comes back, and its log has no gap', async () => {
    await using scene = await open(true);
    const { engine } = scene;
    const told = await run(scene, 6, async () => {
      await engine.kill();
      await engine.start();
    });
    const result = valueOf(told);
    expect(result).toMatchObject({ exitCode: 0, cost: told.paid });
    expect(result.stdout.trim().split('\n')).toEqual(Array.from({ length: 6 }, (_, index) => `line ${index + 1}`));
    expect(told.events.every((event) => event.type !== 'phase' || event.attempt === 1)).toBe(true);
  });

  test('that its engine ended when it was restarted is no verdict of the job: it fails with that reason, unpaid', async () => {
    await using scene = await open(false);
    const { engine } = scene;
    const told = await run(scene, 30, async () => {
      await engine.stop();
      await engine.start();
    });
    expect(told.outcome).toMatchObject({ status: 'rejected', reason: { code: 'runtime/engine-failed' } });
    expect(told.paid).toBe(0n);
  });

  test('of a machine that was rebooted runs again from the start, and only that run is paid', async () => {
    await using scene = await open(true);
    const { engine } = scene;
    let backMs = 0;
    const told = await run(scene, 4, async () => {
      await scene.provider.kill();
      await engine.crashMachine(scene.provider.home.directory);
      await engine.start();
      backMs = performance.now();
      await scene.provider.start();
    });
    const result = valueOf(told);
    expect(result).toMatchObject({ exitCode: 0, cost: told.paid });
    expect(result.stdout.trim().split('\n')).toHaveLength(4);
    expect(told.events.findLast((event) => event.type === 'phase')).toMatchObject({ attempt: 2 });
    expect(result.billedMs).toBeLessThan(performance.now() - backMs);
  });
});
