/**
 * Goal: a provider that bills time that did not pass is not paid for it, and the job goes on elsewhere. Method: a real
 * provider in this process whose runtime tells thirty times the time that a run took.
 */
import { afterAll, beforeAll, expect, test, vi } from 'vitest';

import { readWallet } from '../../chain/index.ts';
import type { JobEvent } from '../../sdk/index.ts';
import { startCrook, tamper, withExit } from './crook.ts';
import { type TestMarket, openMarket, runFirstOn, stepsJob } from './market.ts';

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
  tamper((run) => withExit(run, (exit) => ({ ...exit, durationMs: exit.durationMs * 30 })));
  const node = await startCrook(market.env, liar.home);
  try {
    const buyer = await market.buyer();
    const before = await market.chain.budget(buyer.budget);
    await using molt = await buyer.connect();
    await expect.poll(async () => (await molt.offers()).length).toBe(2);
    const events: JobEvent[] = [];
    const result = await runFirstOn([liar], molt, await stepsJob(market, molt, 3), {
      maxPrice: '5',
      onEvent: (event) => events.push(event),
    });
    expect(events.find((event) => event.type === 'provider-failed')).toMatchObject({
      node: (await readWallet(liar.home.nodeKey)).address,
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
