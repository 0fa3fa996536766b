/**
 * Goal: containers are compared as their specification says. Method: three providers on a real engine, and a program that
 * writes the same and prints something else each time.
 */
import { mkdtemp, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { JobSpecInput, Molt } from '../../sdk/index.ts';
import { findEngine, openBusyboxRegistry } from '../fixtures/engine.ts';
import type { Registry } from '../fixtures/registry.ts';
import { type TestMarket, openMarket } from './market.ts';

const engine = await findEngine();

describe.skipIf(engine.socketPath === undefined)(
  `replicas of a container${engine.reason === '' ? '' : ` (${engine.reason})`}`,
  () => {
    let market: TestMarket;
    let registry: Registry;
    let molt: Molt;

    beforeAll(async () => {
      registry = await openBusyboxRegistry();
      market = await openMarket();
      for (let count = 0; count < 3; count++)
        await market.provider({ runtimes: ['container'], containerSocket: engine.socketPath });
      molt = await (await market.buyer()).connect();
    });

    afterAll(async () => {
      await market?.[Symbol.asyncDispose]();
      await registry?.[Symbol.asyncDispose]();
    });

    const spec = (comparator: JobSpecInput['comparator']): JobSpecInput => ({
      runtime: 'container',
      image: registry.reference,
      command: ['sh', '-c', 'head -c 64 /dev/urandom; seq 9 > /out/numbers; echo done'],
      resources: { memoryBytes: 64 * 2 ** 20, diskBytes: 32 * 2 ** 20 },
      outputs: [{ name: 'numbers', path: 'numbers' }],
      maxDurationSeconds: 60,
      ...(comparator === undefined ? {} : { comparator }),
    });

    test('agree by their outputs, whatever they print', async () => {
      await expect.poll(async () => (await molt.offers()).length, { timeout: 30_000 }).toBe(3);
      const outputDirectory = await mkdtemp(join(market.directory, 'out-'));
      const result = await molt.run(spec('outputs'), { maxPrice: '6', replicas: 3, outputDirectory });
      expect(result.replicas?.map(({ outcome }) => outcome)).toEqual(['agreed', 'agreed', 'agreed']);
      expect(await readFile(join(outputDirectory, 'numbers'), 'utf8')).toMatch(/^1\n2\n/);
    });

    test('have no result where the buyer says that they print the same, and they do not', async () => {
      // A provider may need a moment to clean up after the job before.
      const codeOf = async (): Promise<unknown> =>
        molt.run(spec('exact'), { maxPrice: '6', replicas: 3 }).then(
          () => 'agreed',
          (error: { readonly code: unknown }) => error.code,
        );
      await expect.poll(codeOf, { timeout: 60_000, interval: 1_000 }).toBe('proof/no-majority');
    });
  },
);
