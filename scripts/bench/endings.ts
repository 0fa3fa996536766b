/** That no lamport stays locked, whichever way a lease ends: each way once, on real accounts. */
import { type LeaseAccount, type LeaseTerms, readWallet } from '../../chain/index.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import { baseUnits } from '../../protocol/units.ts';
import { type TestBuyer, type TestMarket, type TestProvider, openMarket } from '../../test/integration/market.ts';
import type { Group } from './row.ts';

interface Party {
  readonly market: TestMarket;
  readonly provider: TestProvider;
  readonly buyer: TestBuyer;
  readonly operator: KeyPair;
}

/** Ends a running lease and gives the transactions that it took. */
type Ending = (party: Party, lease: LeaseAccount) => Promise<readonly string[]>;

const DIGEST = new Uint8Array(32).fill(7);
const AMOUNT = baseUnits(1_000_000n);

const ENDINGS: Readonly<Record<string, Ending>> = {
  'settled by the buyer alone': async ({ market, buyer }, lease) => [
    (await market.chain.settleAlone(buyer.key, lease, AMOUNT, DIGEST)).signature,
  ],
  'cancelled by the provider': async ({ market, operator }, lease) => [
    (await market.chain.cancelByOperator(operator, lease)).signature,
  ],
  'cancelled by the buyer': async ({ market, buyer }, lease) => [
    (await market.chain.cancelByDelegate(buyer.key, lease)).signature,
  ],
  'settled after the window': async (party, lease) => {
    const [proven, proof] = await prove(party, lease);
    await warpTo(party.market, (proven.proof?.provenAtMs ?? 0) + proven.windowMs);
    return [proof, (await party.market.chain.settleAfterWindow(party.operator, proven)).signature];
  },
  'disputed, neutral': async (party, lease) => {
    const { chain } = party.market;
    const [proven, proof] = await prove(party, lease);
    const opened = await chain.openDispute(party.buyer.key, proven);
    await warpTo(party.market, (await chain.dispute(lease.address))?.voteUntilMs ?? 0);
    const disputed = (await chain.lease(lease.address)) ?? proven;
    return [proof, opened.signature, (await chain.resolveDispute(party.operator, disputed)).signature];
  },
  expired: async ({ market, buyer }, lease) => {
    await warpTo(market, lease.finishByMs + lease.graceMs);
    return [(await market.chain.expireLease(buyer.key, lease)).signature];
  },
};

export const endings: Group = {
  name: 'endings',
  about: 'lamports that buyer and provider have less after a lease, fees apart, by the way it ended',
  run: async (tell) => {
    await using market = await openMarket();
    const provider = await market.provider();
    const buyer = await market.buyer();
    const party = { market, provider, buyer, operator: await readWallet(provider.home.nodeKey) };
    const wealth = async (): Promise<bigint> => {
      const both = [buyer.key, party.operator].map(
        async ({ address }) => (await market.chain.balances(address)).lamports,
      );
      return (await Promise.all(both)).reduce((sum, lamports) => sum + lamports, 0n);
    };
    for (const [index, [name, end]] of Object.entries(ENDINGS).entries()) {
      const before = await wealth();
      const [lease, opening] = await openLease(party, index);
      const rent = before - (await wealth()) - (await feesOf(market, [opening]));
      const transactions = [opening, ...(await end(party, lease))];
      const locked = before - (await wealth()) - (await feesOf(market, transactions));
      const baselineIs = 'rent while the lease is open';
      tell({ name, value: Number(locked), unit: 'lamports', baseline: Number(rent), baselineIs, target: 0 });
    }
  },
};

async function openLease({ market, provider, buyer, operator }: Party, index: number): Promise<[LeaseAccount, string]> {
  const { chain } = market;
  const nowMs = await chain.chainTimeMs();
  const terms: LeaseTerms = {
    budget: buyer.budget,
    provider: provider.account.account,
    operator: operator.address,
    delegate: buyer.key.address,
    termsDigest: new Uint8Array(32).fill(index + 1),
    amount: AMOUNT,
    pricePerSecond: baseUnits(1_000n),
    reserve: AMOUNT,
    openBeforeMs: nowMs + 60_000,
    finishByMs: nowMs + 120_000,
    graceMs: 10_000,
    windowMs: 10_000,
  };
  const { signature } = await chain.submit(chain.draftOpenLease(terms, await chain.recentBlockhash()), [
    buyer.key,
    operator,
  ]);
  return [await chain.fundedLease(chain.leaseAddress(buyer.budget, terms.termsDigest), terms), signature];
}

async function prove({ market, operator }: Party, lease: LeaseAccount): Promise<[LeaseAccount, string]> {
  const { signature } = await market.chain.submitProof(operator, lease.address, baseUnits(1_000n), DIGEST);
  return [(await market.chain.lease(lease.address)) ?? lease, signature];
}

async function warpTo(market: TestMarket, atMs: number): Promise<void> {
  await market.warp(Math.ceil((atMs - (await market.chain.chainTimeMs())) / 1000) + 2);
  // A warp makes the cached blockhash stale; the client drops it after a failure, so it is asked for now.
  await market.env.clock.sleep(16_000);
}

async function feesOf(market: TestMarket, transactions: readonly string[]): Promise<bigint> {
  const costs = await Promise.all(transactions.map((signature) => market.chain.transactionCost(signature)));
  return costs.reduce((sum, cost) => sum + (cost?.feeLamports ?? 0n), 0n);
}
