/**
 * Goal: the second job with the same data goes to the provider that has it from the first, where its buyer tells the bid
 * which data that is. Method: two providers as real processes, equal but for the data that an earlier job left with each.
 */
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import type { Address } from '../../protocol/address.ts';
import { hasCode } from '../../protocol/errors.ts';
import type { JobSpecInput } from '../../protocol/job-spec.ts';
import type { JobEvent, JobResult, Molt, OwnRanking, RunOptions } from '../../sdk/index.ts';
import { PYTHON, type TestMarket, openMarket } from './market.ts';

let market: TestMarket;
let molt: Molt;
const providers: Address[] = [];
beforeAll(async () => {
  market = await openMarket();
  for (let count = 0; count < 2; count++) providers.push((await market.provider()).account.account);
  molt = await (await market.buyer()).connect();
});
afterAll(async () => {
  await market?.[Symbol.asyncDispose]();
});

/** A job over data of its own, 4 MB. */
async function jobOver(name: string): Promise<JobSpecInput> {
  const path = join(market.directory, name);
  await writeFile(path, randomBytes(4 * 2 ** 20));
  const [module, input] = [await molt.add(PYTHON), await molt.add(path)];
  const command = ['python', '-c', 'import os; print(os.stat("/in/data").st_size)'];
  return { runtime: 'wasm', image: module.cid, command, inputs: [{ cid: input.cid, path: 'data' }] };
}

/** Runs it once both quote: a buyer waits for no quote long once another one is there, and on a busy machine one may be late. */
async function runWithBoth(spec: JobSpecInput, options: Partial<RunOptions>): Promise<JobResult> {
  for (;;) {
    let haveQuoted = false;
    const rank: OwnRanking = (context) => {
      haveQuoted ||= context.quotes.length === providers.length;
      return haveQuoted ? (options.rank?.(context) ?? context.quotes) : [];
    };
    try {
      return await molt.run(spec, { maxPrice: '5', lotShare: 0, ...options, rank });
    } catch (error) {
      if (haveQuoted || !hasCode(error, 'market/no-quotes', 'market/no-capacity')) throw error;
    }
  }
}

/** What each provider's quote came to for its data, and the result. */
async function run(
  spec: JobSpecInput,
  options: Partial<RunOptions>,
): Promise<{ readonly result: JobResult; readonly data: Readonly<Record<string, string | undefined>> }> {
  const isFree = async (): Promise<number> =>
    (await molt.offers()).filter(({ free }) => free.cpuMillis >= 1_000).length;
  await expect.poll(isFree).toBe(2);
  const events: JobEvent[] = [];
  const onEvent = (event: JobEvent): number => events.push(event);
  const result = await runWithBoth(spec, { ...options, onEvent });
  expect(result.stdout).toBe(`${4 * 2 ** 20}\n`);
  const ranked = events.findLast((event) => event.type === 'ranked')?.quotes ?? [];
  const texts = ranked.map(
    ({ provider, reasons }) => [provider, reasons.find(({ what }) => what === 'data')?.text] as const,
  );
  return { result, data: Object.fromEntries(texts) };
}

const only = (provider: Address | undefined): Partial<RunOptions> => ({
  nearData: true,
  rank: ({ quotes }) => quotes.filter(({ quote }) => quote.content.provider === provider),
});

test('a bid that names its data finds the provider that has it, and one that does not learns nothing', async () => {
  const [one, other] = providers;
  const [first, second] = [await jobOver('first'), await jobOver('second')];
  await run(first, only(one));
  await run(second, only(other));

  const again = await run(first, { nearData: true });
  expect(again.data).toEqual({
    [String(one)]: 'says it has 1 of 1 input at hand',
    [String(other)]: 'says it has 0 of 1 input at hand',
  });
  expect(again.result.provider).toBe(one);
  expect((await run(second, { nearData: true })).result.provider).toBe(other);

  const silent = await run(first, {});
  expect(Object.values(silent.data)).toEqual(Array(2).fill('was not told which inputs the job has'));
});
