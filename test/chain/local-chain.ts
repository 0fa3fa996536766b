/** A running local chain in a folder of its own, with people on it, for the tests of client and devnet. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import {
  connectChain,
  startDevnet,
  type BudgetLimits,
  type Chain,
  type Devnet,
  type LeaseTerms,
} from '../../chain/index.ts';
import type { Address } from '../../protocol/address.ts';
import { keyPairFromSeed, type KeyPair } from '../../protocol/ed25519.ts';
import { systemEnv, type Env } from '../../protocol/env.ts';
import { assert } from '../../protocol/errors.ts';
import { baseUnits } from '../../protocol/units.ts';

export const env: Env = systemEnv();

export async function newFolder(): Promise<{ readonly path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), 'molt-chain-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

export const randomKey = (): KeyPair => keyPairFromSeed(env.random.bytes(32));

/** One JSON-RPC call over HTTP. Throws with the error's message. */
export async function rpc<T>(url: string, method: string, ...params: readonly unknown[]): Promise<T> {
  const { result, error } = await rpcRaw(url, { jsonrpc: '2.0', id: 1, method, params });
  assert(error === undefined, `${method}: ${error?.code} ${error?.message}`);
  return result as T;
}

export interface RpcAnswer {
  readonly id?: unknown;
  readonly result?: unknown;
  readonly error?: { readonly code: number; readonly message: string; readonly data?: unknown };
}

export async function rpcRaw(url: string, body: unknown): Promise<RpcAnswer> {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  const response = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body: text });
  return (await response.json()) as RpcAnswer;
}

export async function funded(devnet: Pick<Devnet, 'rpcUrl'>): Promise<KeyPair> {
  const key = randomKey();
  await rpc(devnet.rpcUrl, 'molt_faucet', key.address);
  return key;
}

export const LIMITS = (delegate: Address): BudgetLimits => ({
  delegates: [delegate],
  capPerLease: baseUnits(10n ** 12n),
  capPerDay: baseUnits(10n ** 13n),
  expiresAtMs: env.clock.now() + 10 * 365 * 86_400_000,
});

/** A provider with stake and a budget with money. */
export interface Parties {
  readonly owner: KeyPair;
  readonly operator: KeyPair;
  readonly buyer: KeyPair;
  readonly delegate: KeyPair;
  readonly budget: Address;
}

export async function newParties(devnet: Devnet, chain: Chain): Promise<Parties> {
  const [owner, operator, buyer, delegate] = await Promise.all([
    funded(devnet),
    funded(devnet),
    funded(devnet),
    funded(devnet),
  ]);
  await chain.registerProvider(owner, { operator: operator.address });
  await chain.stake(owner, chain.providerAddress(owner.address), baseUnits(100n * 10n ** 9n));
  const { budget } = await chain.createBudget(buyer, 1n, LIMITS(delegate.address), baseUnits(500n * 10n ** 9n));
  return { owner, operator, buyer, delegate, budget };
}

export async function termsOf(chain: Chain, parties: Parties, changes: Partial<LeaseTerms> = {}): Promise<LeaseTerms> {
  const nowMs = await chain.chainTimeMs();
  return {
    budget: parties.budget,
    provider: chain.providerAddress(parties.owner.address),
    operator: parties.operator.address,
    delegate: parties.delegate.address,
    termsDigest: env.random.bytes(32),
    amount: baseUnits(10n ** 9n),
    pricePerSecond: baseUnits(10n ** 6n),
    reserve: baseUnits(10n ** 8n),
    openBeforeMs: nowMs + 30_400,
    finishByMs: nowMs + 60_400,
    graceMs: 5_000,
    // Long enough for whatever is to happen inside it, and half as long as a blockhash is good: tests that need its end warp.
    windowMs: 30_000,
    ...changes,
  };
}

/** Opens a lease on the local chain and gives its address. */
export async function openOn(chain: Chain, parties: Parties, terms: LeaseTerms): Promise<Address> {
  const draft = chain.draftOpenLease(terms, await chain.recentBlockhash());
  await chain.submit(draft, [parties.delegate, parties.operator]);
  return chain.leaseAddress(terms.budget, terms.termsDigest);
}

export interface LocalChain extends AsyncDisposable {
  readonly devnet: Devnet;
  readonly chain: Chain;
}

export async function startLocalChain(): Promise<LocalChain> {
  const folder = await newFolder();
  const devnet = await startDevnet(env, { directory: folder.path, port: 0 });
  const chain = await connectChain(env, { rpcUrl: devnet.rpcUrl });
  return {
    devnet,
    chain,
    [Symbol.asyncDispose]: async () => {
      await chain[Symbol.asyncDispose]();
      await devnet.close();
      await folder[Symbol.asyncDispose]();
    },
  };
}
