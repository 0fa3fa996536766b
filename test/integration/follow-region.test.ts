/**
 * Goal: who follows one region trades there as before, hears nothing of the others, has less to read, and is told what is
 * the matter where a region has no provider. Method: a local chain, providers in two regions as real processes in one mesh,
 * buyers by the SDK and by the program, and each node's own metrics.
 */
import { readFile, writeFile } from 'node:fs/promises';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { type Molt, type MoltError, connect } from '../../sdk/index.ts';
import { freePort } from '../fixtures/port.ts';
import { type TestMarket, type TestProvider, openMarket, stepsJob } from './market.ts';

let market: TestMarket;
/** By what they are: sellers in two regions, one that follows its own region and one that follows all. */
let eu: TestProvider;
let us: TestProvider;
let follower: TestProvider;
let followerMetrics: number;
let usMetrics: number;

beforeAll(async () => {
  market = await openMarket();
  [followerMetrics, usMetrics] = [await freePort(), await freePort()];
  eu = await market.provider({ region: 'eu' });
  us = await market.provider({ region: 'us', metricsPort: usMetrics });
  follower = await market.provider({ region: 'eu', followRegion: 'eu', metricsPort: followerMetrics });
});

afterAll(() => market?.[Symbol.asyncDispose]());

async function openBuyer(followRegion: string): Promise<Molt> {
  const { key, budget } = await market.buyer();
  const bootstrap = [eu.address, us.address, follower.address];
  return connect({ rpcUrl: market.rpcUrl, key, budget, bootstrap, followRegion });
}

const nodesOf = async (molt: Molt): Promise<readonly string[]> =>
  (await molt.offers()).map(({ node }) => node).toSorted();
const keysOf = (...providers: readonly TestProvider[]): readonly string[] =>
  providers.map(({ account }) => account.nodeKey).toSorted();

async function metric(port: number, name: string): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  const lines = text.split('\n').filter((line) => line.startsWith(name));
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

test('a buyer that follows a region hears its providers alone, has its jobs there, and hears no more later', async () => {
  await using all = await openBuyer('');
  await using follows = await openBuyer('eu');
  await expect.poll(() => nodesOf(all)).toEqual(keysOf(eu, us, follower));
  await expect.poll(() => nodesOf(follows)).toEqual(keysOf(eu, follower));
  for (let job = 0; job < 2; job++) {
    const { node, exitCode } = await follows.run(await stepsJob(market, follows, 1), { maxPrice: '2' });
    expect(exitCode).toBe(0);
    expect(keysOf(eu, follower)).toContain(node);
  }
  // Offers that followed from the changes of capacity have come meanwhile.
  await expect.poll(() => nodesOf(follows)).toEqual(keysOf(eu, follower));
});

test('a provider that follows its region has that in its book alone, has less to read than the others, and sells', async () => {
  await expect.poll(() => metric(usMetrics, 'molt_offers ')).toBe(3);
  await expect.poll(() => metric(followerMetrics, 'molt_offers ')).toBe(2);
  const read = (port: number): Promise<number> => metric(port, 'molt_gossip_messages_total{kind="offer"');
  const [before, beforeAll] = [await read(followerMetrics), await read(usMetrics)];
  // Two others repeat their offers for the one, one for the other; what a change of capacity adds may come in bursts.
  const spared = async (): Promise<number> =>
    (await read(usMetrics)) - beforeAll - ((await read(followerMetrics)) - before);
  await expect.poll(spared, { timeout: 120_000 }).toBeGreaterThanOrEqual(2);
  // Of those that the buyer hears, the one that follows is left.
  await using molt = await openBuyer('eu');
  await expect.poll(() => nodesOf(molt)).toEqual(keysOf(eu, follower));
  await eu.stop();
  await expect.poll(() => nodesOf(molt)).toEqual(keysOf(follower));
  const { node } = await molt.run(await stepsJob(market, molt, 1), { maxPrice: '2' });
  expect(node).toBe(follower.account.nodeKey);
});

test('a buyer that follows a region without providers is told so, by the job and by explain', async () => {
  await using molt = await openBuyer('mars');
  const refused = molt.run(await stepsJob(market, molt, 1), { maxPrice: '2' }).catch((error: MoltError) => error);
  expect(await refused).toMatchObject({
    code: 'market/no-offers',
    message: expect.stringContaining('no live offer of region mars, the only one that is followed, was heard'),
  });

  const { home } = await market.buyer();
  const settings = JSON.parse(await readFile(home.config, 'utf8')) as object;
  await writeFile(home.config, JSON.stringify({ ...settings, followRegion: 'mars' }));
  const script = `${market.directory}/hello.py`;
  await writeFile(script, 'print("hello")');
  const run = market.spawn([
    'run',
    '--home',
    home.directory,
    '--image',
    'python',
    '--input',
    script,
    '--',
    'python',
    '/in/hello.py',
  ]);
  expect(await run.exited).not.toBe(0);
  const lines: Readonly<Record<string, unknown>>[] = [];
  const explain = market.spawn(['explain', '--home', home.directory], (line) => void lines.push(line));
  expect(await explain.exited).toBe(0);
  expect(lines.at(-1)).toMatchObject({
    headline: '0 offers heard, 0 asked, 0 quotes: no match (market/no-offers)',
    changes: [{ what: 'region', text: expect.stringContaining('only offers of region mars were heard') }],
  });
});
