/** The client behind an endpoint that loses, delays, repeats and refuses: nothing is paid twice, nothing is misreported. */
import * as fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { connectChain, type Chain, type Devnet } from '../../chain/index.ts';
import { parseTransaction } from '../../chain/devnet/transaction.ts';
import type { Address } from '../../protocol/address.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import { MoltError } from '../../protocol/errors.ts';
import { baseUnits } from '../../protocol/units.ts';
import { startFlakyEndpoint, type Fault, type FlakyEndpoint } from './flaky-endpoint.ts';
import { LIMITS, env, funded, rpc, startLocalChain, type LocalChain } from './local-chain.ts';

let local: LocalChain;
let devnet: Devnet;
let endpoint: FlakyEndpoint;
let chain: Chain;
let buyer: KeyPair;
let budget: Address;

beforeAll(async () => {
  local = await startLocalChain();
  ({ devnet } = local);
  endpoint = await startFlakyEndpoint(devnet.rpcUrl);
  chain = await connectChain(env, { rpcUrl: endpoint.url });
  buyer = await funded(devnet);
  ({ budget } = await local.chain.createBudget(buyer, 1n, LIMITS(buyer.address)));
});

afterAll(async () => {
  await chain[Symbol.asyncDispose]();
  await endpoint[Symbol.asyncDispose]();
  await local[Symbol.asyncDispose]();
});

beforeEach(() => {
  endpoint.faults = () => 'pass';
});

/** What is in the budget, asked of the chain itself. */
const free = async (): Promise<bigint> => (await local.chain.budget(budget))?.free ?? 0n;
const on =
  (method: string, ...faults: readonly Fault[]): FlakyEndpoint['faults'] =>
  (asked, count) => {
    if (asked !== method) return 'pass';
    first ??= count;
    return faults[count - first] ?? 'pass';
  };
let first: number | undefined;
beforeEach(() => {
  first = undefined;
});

describe('sending', () => {
  test.each<readonly [string, readonly Fault[]]>([
    ['the request is lost on its way', ['lose-request', 'lose-request']],
    ['the answer is lost', ['lose-answer']],
    ['it arrives twice', ['twice']],
    ['the endpoint is busy', ['busy', 'busy', 'unavailable']],
    ['the answer is lost, then the endpoint is busy', ['lose-answer', 'busy']],
    ['the answer is late', ['late']],
    ['every answer is lost', ['lose-answer', 'lose-answer', 'lose-answer', 'lose-answer', 'lose-answer']],
  ])('pays once when %s', async (_, faults) => {
    const before = await free();
    endpoint.faults = on('sendTransaction', ...faults);
    const { signature } = await chain.deposit(buyer, budget, baseUnits(7n));
    expect((await free()) - before).toBe(7n);
    expect((await local.chain.transactionCost(signature))?.feeLamports).toBe(5_000n);
  });

  test('a status that cannot be read for a while is waited for', async () => {
    const before = await free();
    endpoint.faults = on('getSignatureStatuses', 'nonsense', 'nonsense', 'lose-answer', 'unavailable');
    await chain.deposit(buyer, budget, baseUnits(3n));
    expect((await free()) - before).toBe(3n);
  });

  test('an endpoint that refuses every connection is unreachable, at once, and nothing is sent', async () => {
    const own = await startFlakyEndpoint(devnet.rpcUrl);
    const slept: number[] = [];
    const sleep = (ms: number, signal?: AbortSignal): Promise<void> => {
      slept.push(ms);
      return env.clock.sleep(ms, signal);
    };
    await using client = await connectChain({ ...env, clock: { ...env.clock, sleep } }, { rpcUrl: own.url });
    await client.recentBlockhash();
    const before = await free();
    await own[Symbol.asyncDispose]();
    // Until the client has noticed that its kept connection is gone.
    await env.clock.sleep(100);
    // A process that stood still meanwhile runs its timers before it hears of anything.
    await new Promise((resolve) => setImmediate(resolve));
    slept.length = 0;
    await expect(client.deposit(buyer, budget, baseUnits(1n))).rejects.toMatchObject({ code: 'chain/unreachable' });
    // Deadlines of attempts, and no wait between two of them.
    expect(slept.length).toBeGreaterThan(0);
    expect(slept.filter((ms) => ms < 10_000)).toEqual([]);
    expect(await free()).toBe(before);
  });

  test('a transaction whose blockhash expired on its way is told apart from one that arrived', async () => {
    const before = await free();
    await chain.recentBlockhash();
    await rpc(devnet.rpcUrl, 'molt_warp', 120);
    // The first sending is refused for its age; the second carries a new blockhash.
    endpoint.faults = on('sendTransaction', 'pass', 'lose-answer');
    await chain.deposit(buyer, budget, baseUnits(5n));
    expect((await free()) - before).toBe(5n);
    // Here the chain took it, the answer was lost, and by the next question its blockhash was old.
    let warped: Promise<unknown> | undefined;
    first = undefined;
    endpoint.faults = (method, count) => {
      if (method !== 'sendTransaction') return 'pass';
      first ??= count;
      if (count > first) warped ??= rpc(devnet.rpcUrl, 'molt_warp', 120);
      return count === first ? 'lose-answer' : 'busy';
    };
    await chain.deposit(buyer, budget, baseUnits(11n));
    await warped;
    expect((await free()) - before).toBe(16n);
  });

  test('two equal payments at the same moment are two payments', async () => {
    const before = await free();
    const sent = await Promise.all([1, 2, 3].map(() => chain.deposit(buyer, budget, baseUnits(17n))));
    expect(new Set(sent.map(({ signature }) => signature)).size).toBe(3);
    expect((await free()) - before).toBe(51n);
  });

  test('an endpoint that answers nonsense is unreachable, with what it said', async () => {
    endpoint.faults = on('getGenesisHash', 'nonsense');
    await expect(connectChain(env, { rpcUrl: endpoint.url })).rejects.toMatchObject({ code: 'chain/unreachable' });
  });

  test('under faults of every kind, what is confirmed happened once and what failed did not happen', async () => {
    const kinds = fc.constantFrom<Fault>('pass', 'pass', 'lose-request', 'lose-answer', 'twice', 'busy', 'unavailable');
    await fc.assert(
      fc.asyncProperty(fc.array(kinds, { minLength: 30, maxLength: 30 }), async (faults) => {
        let at = 0;
        endpoint.faults = () => faults[at++ % faults.length] ?? 'pass';
        const before = await free();
        const outcome = await chain.deposit(buyer, budget, baseUnits(13n)).then(
          () => 'confirmed',
          (error: unknown) => (error instanceof MoltError ? error.code : Promise.reject(error as Error)),
        );
        const paid = (await free()) - before;
        if (outcome === 'confirmed') expect(paid).toBe(13n);
        // Only of an unknown fate nothing can be said.
        else if (outcome !== 'chain/not-confirmed') expect(paid, outcome).toBe(0n);
        expect(paid === 0n || paid === 13n).toBe(true);
      }),
      { numRuns: 12 },
    );
  });
});

describe('compute units and priority', () => {
  /** Fee, and limit and price per unit as they stand in the transaction. */
  async function paid(signature: string): Promise<{ fee: bigint; limit: number; price: bigint; used: number }> {
    const found = await rpc<{ transaction: [string] }>(devnet.rpcUrl, 'getTransaction', signature, {
      encoding: 'base64',
    });
    const { instructions, keys } = parseTransaction(Buffer.from(found.transaction[0], 'base64'));
    const budgets = instructions.filter(({ programIdIndex }) => keys[programIdIndex]?.startsWith('ComputeBudget'));
    const of = (tag: number): Buffer | undefined => {
      const data = budgets.map((one) => Buffer.from(one.data)).find((bytes) => bytes[0] === tag);
      return data?.subarray(1);
    };
    const cost = await local.chain.transactionCost(signature);
    return {
      fee: cost?.feeLamports ?? 0n,
      used: cost?.computeUnits ?? 0,
      limit: of(2)?.readUInt32LE() ?? 0,
      price: of(3)?.readBigUInt64LE() ?? 0n,
    };
  }

  async function depositWith(fees: readonly number[]): Promise<Awaited<ReturnType<typeof paid>>> {
    const paying = fees.map((prioritizationFee, slot) => ({ slot, prioritizationFee }));
    endpoint.results.set('getRecentPrioritizationFees', paying);
    // A client keeps the price for some seconds.
    await using client = await connectChain(env, { rpcUrl: endpoint.url });
    const { signature } = await client.deposit(buyer, budget, baseUnits(1n));
    return paid(signature);
  }

  test('where nobody pays for priority, nothing is paid, and the limit is what a simulation used and some more', async () => {
    const { fee, limit, price, used } = await depositWith([]);
    expect({ fee, price }).toEqual({ fee: 5_000n, price: 0n });
    expect(limit).toBeGreaterThan(used);
    expect(limit).toBeLessThan(2 * used + 10_000);
  });

  test('in a busy market the price of three of four recent blocks is paid, up to a bound', async () => {
    const busy = await depositWith([0, 100_000, 200_000, 300_000]);
    expect(busy.price).toBe(300_000n);
    expect(busy.fee).toBe(5_000n + (busy.price * BigInt(busy.limit) + 999_999n) / 1_000_000n);
    const mad = await depositWith([10 ** 12, 10 ** 12]);
    expect(mad.fee).toBeLessThanOrEqual(55_000n);
    expect(mad.fee).toBeGreaterThan(54_000n);
  });

  test('an endpoint that does not tell prices is no obstacle', async () => {
    endpoint.results.delete('getRecentPrioritizationFees');
    endpoint.faults = (method) => (method === 'getRecentPrioritizationFees' ? 'nonsense' : 'pass');
    await using client = await connectChain(env, { rpcUrl: endpoint.url });
    await client.deposit(buyer, budget, baseUnits(1n));
  });
});

test('a watch goes on by polling where no notification comes, and over answers that are lost', async () => {
  const stop = new AbortController();
  const { delegate, terms, address } = await lease();
  endpoint.faults = (_, count) => (count % 3 === 0 ? 'lose-answer' : 'pass');
  const seen: (string | undefined)[] = [];
  for await (const account of chain.watchLease(address, stop.signal)) {
    seen.push(account?.state);
    if (seen.length === 1) {
      const draft = local.chain.draftOpenLease(terms, await local.chain.recentBlockhash());
      await local.chain.submit(draft, [delegate.delegate, delegate.operator]);
    } else stop.abort();
  }
  expect(seen).toEqual([undefined, 'running']);
});

async function lease() {
  const { newParties, termsOf } = await import('./local-chain.ts');
  const delegate = await newParties(devnet, local.chain);
  const terms = await termsOf(local.chain, delegate);
  return { delegate, terms, address: local.chain.leaseAddress(terms.budget, terms.termsDigest) };
}
