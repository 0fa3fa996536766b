/**
 * Goal: a buyer finds sellers that neither gossip nor its own peers tell it of. Method: the only peer that buyer and
 * provider have in common is a bare mesh node that follows no market; what remains is the DHT.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';

import { type Mesh, openMesh } from '../../node/mesh/index.ts';
import { keyPairFromSeed } from '../../protocol/ed25519.ts';
import { meshName } from '../../protocol/wire.ts';
import { connect } from '../../sdk/index.ts';
import { type TestMarket, openMarket, stepsJob } from './market.ts';

let market: TestMarket;
let meeting: Mesh;

beforeAll(async () => {
  market = await openMarket();
  meeting = await openMesh(market.env, {
    key: keyPairFromSeed(market.env.random.bytes(32)),
    listen: ['/ip4/127.0.0.1/tcp/0'],
    bootstrap: [],
    mdns: false,
    role: 'node',
    network: meshName(market.chain.network),
  });
});

afterAll(async () => {
  await meeting?.[Symbol.asyncDispose]();
  await market?.[Symbol.asyncDispose]();
});

test('a market is found through the DHT, and a job runs in it', async () => {
  const provider = await market.provider({ bootstrap: [...meeting.addresses] });
  const buyer = await market.buyer();
  await using molt = await connect({
    rpcUrl: market.rpcUrl,
    key: buyer.key,
    budget: buyer.budget,
    bootstrap: [...meeting.addresses],
  });
  await expect.poll(async () => (await molt.offers()).map((offer) => offer.node)).toEqual([provider.account.nodeKey]);
  const result = await molt.run(await stepsJob(market, molt, 1), { maxPrice: '2' });
  expect(result).toMatchObject({ exitCode: 0, node: provider.account.nodeKey });
});
