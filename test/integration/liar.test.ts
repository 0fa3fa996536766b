/**
 * Goal: a provider that bills time that did not pass is not paid for it, and the job goes on elsewhere. Method: a real
 * provider in this process whose runtime tells thirty times the time that a run took.
 */
import { afterAll, beforeAll, expect, test, vi } from 'vitest';

import { readWallet } from '../../chain/index.ts';
import { mergeSettings, readConfigFile } from '../../node/config.ts';
import { nodeConfig } from '../../node/node-config.ts';
import { startNode } from '../../node/node.ts';
import { type Run, WasmRuntime } from '../../node/runtime/index.ts';
import type { JobEvent } from '../../sdk/index.ts';
import { type TestMarket, openMarket, stepsJob } from './market.ts';

let market: TestMarket;
beforeAll(async () => {
  market = await openMarket();
});
afterAll(async () => {
  await market?.[Symbol.asyncDispose]();
});

test('billing more time than passed is found out, costs the liar its claim, and the next provider does the job', async () => {
  const liar = await market.provider({ pricePerCpu: '0.00005' });
  const honest = await market.provider({ pricePerCpu: '0.003' });
  await liar.stop();
  const { settings } = mergeSettings({ environment: {}, file: await readConfigFile(liar.home.config) });
  const config = await nodeConfig(liar.home.directory, await readWallet(liar.home.nodeKey), settings);
  // oxlint-disable-next-line unbound-method -- applied to its own instance below
  const honestStart = WasmRuntime.prototype.start;
  vi.spyOn(WasmRuntime.prototype, 'start').mockImplementation(async function (this: WasmRuntime, ...given) {
    return exaggerate(await honestStart.apply(this, given));
  });
  const node = await startNode(market.env, config, () => undefined);
  try {
    const buyer = await market.buyer();
    const before = await market.chain.budget(buyer.budget);
    await using molt = await buyer.connect();
    await expect.poll(async () => (await molt.offers()).length).toBe(2);
    const events: JobEvent[] = [];
    const result = await molt.run(await stepsJob(market, molt, 3), {
      maxPrice: '5',
      lotShare: 0,
      onEvent: (event) => events.push(event),
    });
    expect(events.find((event) => event.type === 'provider-failed')).toMatchObject({
      node: config.key.address,
      code: 'proof/wrong-metering',
      retrying: true,
    });
    expect(result).toMatchObject({ exitCode: 0, attempts: 2, provider: honest.account.account });
    const lied = events.find((event) => event.type === 'lease-opened');
    if (lied?.type !== 'lease-opened') throw new Error('no lease was opened with the liar');
    const ending = await market.chain.leaseEnding(lied.lease);
    expect(ending).toMatchObject({ ending: 'cancelledByDelegate' });
    const after = await market.chain.budget(buyer.budget);
    expect(after).toMatchObject({ locked: 0n, free: (before?.free ?? 0n) - result.cost - (ending?.paid ?? 0n) });
  } finally {
    await node.close();
    vi.restoreAllMocks();
  }
});

/** The same run, thirty times as long. */
function exaggerate(run: Run): Run {
  return new Proxy(run, {
    get: (target, name) => {
      if (name === 'exit') return target.exit.then((exit) => ({ ...exit, durationMs: exit.durationMs * 30 }));
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}
