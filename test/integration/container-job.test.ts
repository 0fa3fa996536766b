/**
 * Goal: a container is bought, run, proven and paid like a module, and outlives its node. Method: a provider process on a
 * real engine, an image pulled by digest from a registry of the test's own.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { verifyProof } from '../../attestation/index.ts';
import { type JobSpecInput, warmPrefix } from '../../protocol/job-spec.ts';
import type { JobEvent } from '../../sdk/index.ts';
import { findEngine, openBusyboxRegistry } from '../fixtures/engine.ts';
import type { Registry } from '../fixtures/registry.ts';
import { leftOnEngine, loopDisksBelow } from '../fixtures/traces.ts';
import { type TestMarket, type TestProvider, openMarket } from './market.ts';

const engine = await findEngine();

describe.skipIf(engine.socketPath === undefined)(
  `a container job${engine.reason === '' ? '' : ` (${engine.reason})`}`,
  () => {
    let market: TestMarket;
    let provider: TestProvider;
    let registry: Registry;

    beforeAll(async () => {
      registry = await openBusyboxRegistry();
      market = await openMarket();
      provider = await market.provider({ runtimes: ['container'], containerSocket: engine.socketPath });
    });

    afterAll(async () => {
      await market?.[Symbol.asyncDispose]();
      await registry?.[Symbol.asyncDispose]();
    });

    const job = (script: string, more: Partial<JobSpecInput> = {}): JobSpecInput => ({
      runtime: 'container',
      image: registry.reference,
      command: ['sh', '-c', script],
      resources: { memoryBytes: 64 * 2 ** 20, diskBytes: 32 * 2 ** 20 },
      maxDurationSeconds: 60,
      ...more,
    });

    test('reads its input, writes its output, is proven and paid, and leaves nothing on the engine', async () => {
      const buyer = await market.buyer();
      await using molt = await buyer.connect();
      const file = join(market.directory, 'input.txt');
      writeFileSync(file, 'hello\n'.repeat(1_000));
      const { cid } = await molt.add(file);
      const before = await market.chain.budget(buyer.budget);
      const result = await molt.run(
        job('wc -l < /in/input.txt > /out/lines; echo done', {
          inputs: [{ cid, path: 'input.txt' }],
          outputs: [{ name: 'lines', path: 'lines' }],
        }),
        {
          maxPrice: '2',
          outputDirectory: join(market.directory, 'container-out'),
        },
      );
      expect(result).toMatchObject({ exitCode: 0, stdout: 'done\n' });
      expect(readFileSync(result.outputs[0]?.path ?? '', 'utf8').trim()).toBe('1000');
      expect(verifyProof(result.proof)).toMatchObject({
        runtime: { kind: 'container' },
        image: { reference: registry.reference },
      });
      expect(await market.chain.budget(buyer.budget)).toMatchObject({
        locked: 0n,
        free: (before?.free ?? 0n) - result.cost,
      });
    });

    test('is told to have its image at hand where an earlier job used it', async () => {
      const buyer = await market.buyer();
      await using molt = await buyer.connect();
      const warm = warmPrefix(registry.reference);
      await expect.poll(async () => (await molt.offers())[0]?.warm, { timeout: 30_000 }).toEqual([warm]);
      const events: JobEvent[] = [];
      await molt.run(job('true'), { maxPrice: '2', onEvent: (event) => events.push(event) });
      const [quote] = events.flatMap((event) => (event.type === 'ranked' ? event.quotes : []));
      expect(quote?.reasons.find(({ what }) => what === 'warm')?.text).toBe('says it has the image at hand');
    });

    test('an image that does not exist is named, costs nothing, and is the buyer’s own fault', async () => {
      const buyer = await market.buyer();
      await using molt = await buyer.connect();
      const before = await market.chain.budget(buyer.budget);
      const image = registry.reference.replace(/[0-9a-f]{64}$/, '0'.repeat(64));
      await expect(molt.run(job('true', { image }), { maxPrice: '2' })).rejects.toMatchObject({
        code: 'job/image-missing',
        message: expect.stringContaining(image),
      });
      await expect.poll(() => market.chain.budget(buyer.budget)).toMatchObject({ locked: 0n, free: before?.free });
    });

    test('outlives a SIGKILL of its node: the same run goes on, its log has no gap, and it is paid once', async () => {
      const buyer = await market.buyer();
      await using molt = await buyer.connect();
      const events: JobEvent[] = [];
      let restarted: Promise<void> | undefined;
      const result = await molt.run(
        job('for i in $(seq 1 12); do echo line $i; sleep 1; done; echo 12 > /out/n', {
          outputs: [{ name: 'n', path: 'n' }],
        }),
        {
          maxPrice: '2',
          reconnectMs: 150_000,
          onEvent: (event) => {
            events.push(event);
            if (event.type === 'log' && restarted === undefined)
              restarted = provider.kill().then(() => provider.start());
          },
        },
      );
      await restarted;
      expect(result.stdout.trim().split('\n')).toEqual(Array.from({ length: 12 }, (_, index) => `line ${index + 1}`));
      expect(events.filter((event) => event.type === 'phase').every((event) => event.attempt === 1)).toBe(true);
      expect(await provider.line((line) => line['type'] === 'job-recovered', 'the recovery')).toMatchObject({
        adopted: true,
      });
      expect(result.billedMs).toBeGreaterThan(11_000);
      expect(await market.chain.budget(buyer.budget)).toMatchObject({ locked: 0n });
    });

    test('a provider that is killed in mid-job leaves what doctor tells of; one that takes it up and stops leaves nothing', async () => {
      // It would take the job as well, and is there for the tests that follow.
      await provider.stop();
      await using _back = { [Symbol.asyncDispose]: () => provider.start() };
      const own = await market.provider({ runtimes: ['container'], containerSocket: engine.socketPath });
      const buyer = await market.buyer();
      await using molt = await buyer.connect();
      const { directory } = own.home;
      let back: Promise<Record<string, unknown>> | undefined;
      const doctor = async (): Promise<Record<string, unknown>> => {
        const answers: Record<string, unknown>[] = [];
        await market.spawn(['doctor', '--home', directory], (line) => answers.push(line)).exited;
        const checks = (answers.at(-1)?.['checks'] ?? []) as Record<string, unknown>[];
        return checks.find(({ name }) => name === 'left of jobs') ?? {};
      };
      const result = await molt.run(job('for i in $(seq 1 8); do echo line $i; sleep 1; done'), {
        maxPrice: '2',
        reconnectMs: 150_000,
        onEvent: (event) => {
          if (event.type !== 'log' || back !== undefined) return;
          back = own.kill().then(async () => {
            const told = await doctor();
            await own.start();
            return told;
          });
        },
      });
      expect(result.stdout).toContain('line 8');
      expect(await back).toMatchObject({ verdict: 'warn', found: expect.stringContaining('of 1 job are there') });
      // Stopped at once: what it is removing at this moment goes before it does.
      await own.stop();
      expect(await doctor()).toMatchObject({ verdict: 'ok' });
      expect(loopDisksBelow(directory)).toEqual([]);
      expect(await leftOnEngine(engine.socketPath ?? '', directory)).toEqual([]);
    });

    test('an image that is not public runs with a login that only the chosen provider gets', async () => {
      const credentials = { username: 'shop', password: 'correct horse' };
      // Content of its own: an image that is on the engine already is not asked for again.
      const mark = { name: 'private', mode: 0o644, contents: Buffer.from(market.directory) };
      await using closed = await openBusyboxRegistry([mark], { credentials });
      const buyer = await market.buyer();
      const image = closed.reference;
      await using molt = await buyer.connect();
      await expect(molt.run(job('true', { image }), { maxPrice: '2' })).rejects.toMatchObject({
        code: 'job/image-denied',
      });
      const result = await molt.run(job('cat /private', { image }), { maxPrice: '2', registry: credentials });
      expect(result.stdout).toBe(market.directory);
      expect(JSON.stringify(provider.lines)).not.toContain(credentials.password);
      expect(Buffer.from(result.proof).toString()).not.toContain(credentials.password);
    });

    test('too much memory is told as such', async () => {
      const buyer = await market.buyer();
      await using molt = await buyer.connect();
      await expect(
        molt.run(job('dd if=/dev/zero of=/dev/null bs=512M count=1'), { maxPrice: '2' }),
      ).rejects.toMatchObject({ code: 'job/out-of-memory', result: { reason: 'out-of-memory' } });
    });
  },
);
