/**
 * Goal: a GPU is found, tried, offered, leased by id, given to the job, metered, proven and cleared before the next job.
 * Method: provider and buyer as real processes on a real engine; the vendor's tool, the toolkit and the engine's hook are
 * replays. No GPU is behind them.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { verifyProof } from '../../attestation/index.ts';
import type { JobSpecInput } from '../../protocol/job-spec.ts';
import type { JobEvent } from '../../sdk/index.ts';
import { openBusyboxRegistry } from '../fixtures/engine.ts';
import { type FakeCard, topologyText, writeNvidiaTools } from '../fixtures/gpu.ts';
import { type GpuEngine, noCdiEngine, noGpuEngine, openCdiEngine, openGpuEngine } from '../fixtures/gpu-engine.ts';
import { UNTIL_LET_GO, letGo } from '../fixtures/let-go.ts';
import type { Registry } from '../fixtures/registry.ts';
import { type TestMarket, type TestProvider, openMarket } from './market.ts';

const A = 'GPU-aaaaaaaa-0000-0000-0000-000000000001';
const B = 'GPU-bbbbbbbb-0000-0000-0000-000000000002';
const C = 'GPU-cccccccc-0000-0000-0000-000000000003';
const BROKEN = 'GPU-dddddddd-0000-0000-0000-000000000004';
const reason = noGpuEngine();

describe.skipIf(reason !== undefined)(`GPUs for sale${reason === undefined ? '' : ` (${reason})`}`, () => {
  const directory = mkdtempSync(join(tmpdir(), 'molt-gpu-job-'));
  const tools = join(directory, 'tools');
  const searchPath = process.env['PATH'] ?? '';
  let engine: GpuEngine;
  let registry: Registry;
  let market: TestMarket;
  let provider: TestProvider;

  /** What the machine's driver says from now on; `used` and `busy` of one card. */
  const driverSays = (now: Readonly<Record<string, Partial<FakeCard>>> = {}, toolkit = '1.19.1'): void =>
    writeNvidiaTools(tools, {
      cards: [
        { id: A, ...now[A] },
        { id: B, ...now[B] },
        { id: C, ...now[C] },
        { id: BROKEN, memory: '[GPU requires reset]' },
      ],
      // A and B are bonded.
      topology: topologyText(
        [
          [' X ', 'NV18', 'SYS', 'SYS'],
          ['NV18', ' X ', 'SYS', 'SYS'],
          ['SYS', 'SYS', ' X ', 'SYS'],
          ['SYS', 'SYS', 'SYS', ' X '],
        ],
        ['0', '0', '1', '1'],
      ),
      toolkit,
    });

  beforeAll(async () => {
    driverSays();
    process.env['PATH'] = `${tools}${delimiter}${searchPath}`;
    engine = await openGpuEngine(join(directory, 'engine'));
    registry = await openBusyboxRegistry();
    market = await openMarket();
    provider = await market.provider({
      runtimes: ['container'],
      containerSocket: engine.socketPath,
      pricePerGpu: '0.01',
    });
  });

  afterAll(async () => {
    process.env['PATH'] = searchPath;
    await market?.[Symbol.asyncDispose]();
    await registry?.[Symbol.asyncDispose]();
    await engine?.[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true, force: true });
  });

  const job = (count: number, script: string): JobSpecInput => ({
    runtime: 'container',
    image: registry.reference,
    command: ['sh', '-c', script],
    environment: { PATH: '/bin:/usr/bin' },
    resources: { cpuMillis: 100, memoryBytes: 64 * 2 ** 20, diskBytes: 4 * 2 ** 20, gpus: [{ count }] },
    maxDurationSeconds: 60,
  });
  const release = (): Promise<void> => letGo(engine.socketPath, registry.reference);
  const releasedBy = async (outcome: unknown): Promise<unknown> => {
    await release();
    return outcome;
  };
  const idsIn = (text: string): string[] => [...text.matchAll(/UUID: (\S+)\)/g)].map((match) => match[1] ?? '');

  test('every card is told of: three are offered, the broken one is not, with its own reason', async () => {
    for (const id of [A, B, C]) {
      expect(await provider.line((line) => line['id'] === id, id)).toMatchObject({ type: 'gpu', offered: true });
    }
    expect(await provider.line((line) => line['id'] === BROKEN, BROKEN)).toMatchObject({
      offered: false,
      reason: expect.stringContaining('GPU requires reset'),
    });
  });

  test('a job gets exactly the device it is proven to have had, and one alone leaves the bonded pair whole', async () => {
    const buyer = await market.buyer();
    await using molt = await buyer.connect();
    const events: JobEvent[] = [];
    const result = await molt.run(job(1, 'nvidia-smi -L'), { maxPrice: '5', onEvent: (event) => events.push(event) });
    expect(idsIn(result.stdout)).toEqual([C]);
    expect(verifyProof(result.proof).gpus).toEqual([C]);
    expect(events).toContainEqual(expect.objectContaining({ type: 'phase', phase: 'running', detail: `on ${C}` }));
  });

  test('two GPUs are the bonded pair; meanwhile two more are declined with what is free', async () => {
    const buyer = await market.buyer();
    await using molt = await buyer.connect();
    let declined: Promise<unknown> | undefined;
    const result = await molt.run(job(2, `nvidia-smi -L; ${UNTIL_LET_GO}`), {
      maxPrice: '5',
      onEvent: (event) => {
        if (event.type === 'log')
          declined ??= molt
            .run(job(2, 'true'), { maxPrice: '5' })
            .catch((error: unknown) => error)
            .then(releasedBy);
      },
    });
    expect(idsIn(result.stdout)).toEqual([A, B]);
    expect(await declined).toMatchObject({
      message: expect.stringContaining('2 × GPU needed, 1 such free'),
    });
    await provider.line(
      (line) => line['type'] === 'bid-declined' && line['code'] === 'market/no-capacity',
      'the refusal',
    );
  });

  test('what the job’s own GPU does is told while it runs, and a GPU that still holds memory goes to nobody', async () => {
    const buyer = await market.buyer();
    await using molt = await buyer.connect();
    let released: Promise<void> | undefined;
    const samples: { readonly gpuPercent: number; readonly gpuMemoryBytes: number }[] = [];
    await molt.run(job(1, `nvidia-smi -L; ${UNTIL_LET_GO}`), {
      maxPrice: '5',
      onEvent: (event) => {
        if (event.type === 'log') driverSays({ [C]: { used: '2048 MiB', busy: '50 %' }, [A]: { busy: '99 %' } });
        if (event.type !== 'usage') return;
        samples.push(event);
        if (event.gpuPercent > 0) released ??= release();
      },
    });
    await released;
    expect(samples.at(-1)).toMatchObject({ gpuPercent: 50, gpuMemoryBytes: 2048 * 2 ** 20 });
    await expect(molt.run(job(3, 'true'), { maxPrice: '5' })).rejects.toMatchObject({
      message: expect.stringContaining('3 × GPU needed, 2 such free'),
    });
    driverSays();
    await expect
      .poll(
        () =>
          molt.run(job(3, 'nvidia-smi -L'), { maxPrice: '5' }).then(
            ({ stdout }) => idsIn(stdout),
            () => [],
          ),
        { interval: 1_000 },
      )
      .toEqual([A, B, C]);
  });

  test('a node that is killed and comes back knows whose its GPUs are', async () => {
    const buyer = await market.buyer();
    await using molt = await buyer.connect();
    // The devices of the job before this one may still be waited for.
    const freeGpus = async (): Promise<number> =>
      (await molt.offers()).flatMap(({ free }) => free.gpus).reduce((sum, group) => sum + group.count, 0);
    await expect.poll(freeGpus).toBe(3);
    let back: Promise<unknown> | undefined;
    const result = await molt.run(job(2, `nvidia-smi -L; ${UNTIL_LET_GO}`), {
      maxPrice: '5',
      reconnectMs: 150_000,
      onEvent: (event) => {
        if (event.type !== 'log' || back !== undefined) return;
        back = provider
          .kill()
          .then(() => provider.start())
          .then(() => molt.run(job(2, 'true'), { maxPrice: '5' }))
          .catch((error: unknown) => error)
          .then(releasedBy);
      },
    });
    expect(idsIn(result.stdout)).toEqual([A, B]);
    expect(verifyProof(result.proof).gpus).toEqual([A, B]);
    expect(await back).toMatchObject({ message: expect.stringContaining('2 × GPU needed, 1 such free') });
  });

  test('gpu-check tries every GPU, runs a job on them, and says so; without one it says that', async () => {
    driverSays();
    const check = (path: string, ...args: string[]) =>
      spawnSync(process.execPath, ['scripts/gpu-check.ts', ...args], {
        encoding: 'utf8',
        env: { PATH: path, DOCKER_HOST: `unix://${engine.socketPath}` },
      });
    const none = check(searchPath);
    expect(none).toMatchObject({ status: 0, stdout: expect.stringContaining('there is no GPU on this machine') });
    const found = check(
      `${tools}${delimiter}${searchPath}`,
      registry.reference,
      '/bin/sh',
      '-c',
      '/usr/bin/nvidia-smi -L',
    );
    expect(found).toMatchObject({ status: 0 });
    expect(found.stdout).toContain(`${A} NVIDIA H100 80GB HBM3, 86 GB, driver 590.48.01, compute capability 9`);
    expect(found.stdout.match(/a container sees exactly it/g)).toHaveLength(3);
    expect(found.stdout).toContain('not sold: the driver says: GPU requires reset');
    expect(idsIn(found.stdout)).toEqual([A, B, C]);
    expect(found.stdout).toContain(`the job on ${A}, ${B}, ${C} ended: exited 0`);
  });

  test('a toolkit with known ways out of a container sells no GPU, and says which version would', async () => {
    driverSays({}, '1.17.8');
    const careful = await market.provider({ runtimes: ['container'], containerSocket: engine.socketPath });
    expect(await careful.line((line) => line['id'] === A, 'the refusal')).toMatchObject({
      offered: false,
      reason: expect.stringContaining('install 1.19.1 or newer'),
    });
    await careful.stop();
  });
});

const noCdi = noCdiEngine();

test.skipIf(noCdi !== undefined)(
  `on an engine that gives GPUs by CDI two jobs at a time have a device each, and the next one both${noCdi === undefined ? '' : ` (${noCdi})`}`,
  async () => {
    const directory = mkdtempSync(join(tmpdir(), 'molt-cdi-job-'));
    const searchPath = process.env['PATH'] ?? '';
    await using opened = new AsyncDisposableStack();
    opened.defer(() => rmSync(directory, { recursive: true, force: true }));
    const tools = join(directory, 'tools');
    writeNvidiaTools(tools, { cards: [{ id: A }, { id: B }], toolkit: '1.19.1' });
    process.env['PATH'] = `${tools}${delimiter}${searchPath}`;
    opened.defer(() => void (process.env['PATH'] = searchPath));
    const engine = opened.use(await openCdiEngine(join(directory, 'engine'), [A, B]));
    const registry = opened.use(await openBusyboxRegistry());
    const market = opened.use(await openMarket());
    await market.provider({ runtimes: ['container'], containerSocket: engine.socketPath, pricePerGpu: '0.01' });
    const molt = opened.use(await (await market.buyer()).connect());
    const run = async (count: number, script: string, onLog?: () => void): Promise<readonly string[]> => {
      const spec: JobSpecInput = {
        runtime: 'container',
        image: registry.reference,
        command: ['sh', '-c', script],
        environment: { PATH: '/bin:/usr/bin' },
        resources: { cpuMillis: 100, memoryBytes: 64 * 2 ** 20, diskBytes: 4 * 2 ** 20, gpus: [{ count }] },
        maxDurationSeconds: 60,
      };
      const onEvent = (event: JobEvent): void => {
        if (event.type === 'log') onLog?.();
      };
      const { stdout, proof } = await molt.run(spec, { maxPrice: '5', onEvent });
      const seen = [...stdout.matchAll(/UUID: (\S+)\)/g)].map((match) => match[1] ?? '');
      expect(verifyProof(proof).gpus).toEqual(seen);
      return seen;
    };
    let second: Promise<readonly string[]> | undefined;
    const first = await run(1, `nvidia-smi -L; ${UNTIL_LET_GO}`, () => {
      second ??= run(1, 'nvidia-smi -L').finally(() => void letGo(engine.socketPath, registry.reference));
    });
    expect([...first, ...((await second) ?? [])].toSorted()).toEqual([A, B]);
    await expect.poll(() => run(2, 'nvidia-smi -L').catch(() => [])).toEqual([A, B]);
  },
);
