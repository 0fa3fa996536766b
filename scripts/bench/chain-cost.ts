/** What one job's whole life costs on chain, counted from its two transactions. */
import { stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { kernelModule } from '../../node/speed.ts';
import { openMarket } from '../../test/integration/market.ts';
import type { Group } from './row.ts';

export const chainCost: Group = {
  name: 'chain-cost',
  about: 'one job on chain: open and settle, both signed by buyer and provider',
  run: async (tell) => {
    await using market = await openMarket();
    await market.provider();
    const buyer = await market.buyer();
    await using molt = await buyer.connect();
    const path = join(market.directory, 'noop.wasm');
    await writeFile(path, kernelModule(1));
    const { cid } = await molt.add(path);
    const before = await market.chain.balances(buyer.key.address);
    const result = await molt.run(
      { runtime: 'wasm', image: cid, command: ['noop'], maxDurationSeconds: 10 },
      { maxPrice: '1' },
    );
    const costs = await Promise.all(
      [result.openTransaction, result.settleTransaction].map((signature) => market.chain.transactionCost(signature)),
    );
    const after = await market.chain.balances(buyer.key.address);
    const sum = (pick: (cost: { feeLamports: bigint; computeUnits: number }) => number): number =>
      costs.reduce((total, cost) => total + (cost === undefined ? Number.NaN : pick(cost)), 0);
    const peer = 'a peer on the same chain (published figures)';
    const fees = sum((cost) => Number(cost.feeLamports));
    tell({ name: 'transactions', value: costs.length, unit: 'count', baseline: 3, baselineIs: peer, target: 2 });
    tell({ name: 'signatures', value: fees / 5_000, unit: 'count', baseline: 6, baselineIs: peer, target: 4 });
    tell({
      name: 'transaction fees',
      value: fees,
      unit: 'lamports',
      baseline: 30_000,
      baselineIs: peer,
      target: 20_000,
    });
    tell({
      name: 'compute units',
      value: sum((cost) => cost.computeUnits),
      unit: 'CU',
      baseline: 103_000,
      baselineIs: peer,
      target: 20_000,
    });
    const locked = Number(before.lamports - after.lamports) - fees;
    tell({
      name: 'lamports still locked afterwards',
      value: locked,
      unit: 'lamports',
      baseline: 2_560_000,
      baselineIs: peer,
      target: 0,
    });
    const { size } = await stat(new URL('../../chain/program/molt.so', import.meta.url));
    const programIs = 'a framework program of this kind (published order of size)';
    tell({
      name: 'program file',
      value: size,
      unit: 'bytes',
      baseline: 300_000,
      baselineIs: programIs,
      target: 48 * 1024,
    });
    const open = await market.chain.leases({ budget: buyer.budget });
    tell({
      name: 'leases still open afterwards',
      value: open.length,
      unit: 'count',
      baseline: 1,
      baselineIs: 'the lease while it ran',
      target: 0,
    });
  },
};
