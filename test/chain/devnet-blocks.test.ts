/** What an explorer asks of the local chain: blocks, transactions in words, codes for what is not there; and forgetting. */
import { Connection, Keypair, PublicKey, SystemProgram, Transaction } from '@solana/web3.js';
import * as fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { ACCOUNT_METHODS } from '../../chain/devnet/account-methods.ts';
import { CLUSTER_METHODS } from '../../chain/devnet/cluster-methods.ts';
import { TRANSACTION_READS, WRITES } from '../../chain/devnet/transaction-methods.ts';
import { startDevnet } from '../../chain/index.ts';
import { baseUnits } from '../../protocol/units.ts';
import {
  LIMITS,
  env,
  funded,
  newFolder,
  randomKey,
  rpc,
  rpcRaw,
  startLocalChain,
  type LocalChain,
  type RpcAnswer,
} from './local-chain.ts';

let local: LocalChain;
let connection: Connection;
let url: string;

beforeAll(async () => {
  local = await startLocalChain();
  url = local.devnet.rpcUrl;
  connection = new Connection(url, 'confirmed');
});

afterAll(async () => {
  await local[Symbol.asyncDispose]();
});

const call = (method: string, ...params: readonly unknown[]): Promise<RpcAnswer> =>
  rpcRaw(url, { jsonrpc: '2.0', id: 1, method, params });

/** Waits until the slot is complete, which its block is from then on. */
async function completed(slot: number): Promise<void> {
  await expect.poll(() => connection.getSlot('confirmed')).toBeGreaterThanOrEqual(slot);
}

test('a block lists its transactions, follows its parent, and never changes', async () => {
  const first = await connection.requestAirdrop(Keypair.generate().publicKey, 1_000_000_000);
  const status = await connection.getSignatureStatus(first);
  const slot = status.value?.slot ?? 0;
  expect(await call('getBlock', slot + 1_000)).toMatchObject({ error: { code: -32004 } });
  await completed(slot);
  const block = await connection.getBlock(slot, { maxSupportedTransactionVersion: 0 });
  expect(block?.transactions.map(({ transaction }) => transaction.signatures[0])).toContain(first);
  expect(block?.parentSlot).toBe(slot - 1);
  expect(block?.blockTime).toBe(await connection.getBlockTime(slot));
  const parent = await connection.getBlock(slot - 1, { maxSupportedTransactionVersion: 0 });
  expect(block?.previousBlockhash).toBe(parent?.blockhash);
  const { signatures } = await connection.getBlockSignatures(slot);
  expect(signatures).toEqual(block?.transactions.map(({ transaction }) => transaction.signatures[0]));
  const parsed = await connection.getParsedBlock(slot, { maxSupportedTransactionVersion: 0 });
  expect(parsed.transactions).toHaveLength(signatures.length);
  const short = await connection.getBlock(slot, { transactionDetails: 'none', maxSupportedTransactionVersion: 0 });
  expect(short).toMatchObject({ blockhash: block?.blockhash });
  expect(await connection.getBlocks(slot - 1, slot)).toEqual([slot - 1, slot]);
  expect((await call('getBlocksWithLimit', slot - 1, 2)).result).toEqual([slot - 1, slot]);
  expect((await call('getBlocks', 0, 600_000)).error?.code).toBe(-32602);
});

test('transactions of the well-known programs are given in words, with their inner instructions', async () => {
  const buyer = await funded(local.devnet);
  const { budget, signature } = await local.chain.createBudget(buyer, 5n, LIMITS(buyer.address), baseUnits(700n));
  const found = await connection.getParsedTransaction(signature, { maxSupportedTransactionVersion: 0 });
  const inner = found?.meta?.innerInstructions?.flatMap(({ instructions }) => instructions) ?? [];
  const words = inner.flatMap((one) =>
    'parsed' in one ? [`${one.program} ${(one.parsed as { type: string }).type}`] : [],
  );
  expect(words).toContain('system createAccount');
  expect(words).toContain('spl-token transfer');
  const source = local.chain.tokenAddress(buyer.address);
  expect(
    inner.find((one) => 'parsed' in one && one.program === 'spl-token' && one.parsed.type === 'transfer'),
  ).toMatchObject({
    parsed: { info: { amount: '700', authority: buyer.address, source } },
  });
  // Our own program is not known to nodes: its accounts and data stand there as they are.
  expect(found?.transaction.message.instructions).toContainEqual(
    expect.objectContaining({ accounts: expect.arrayContaining([new PublicKey(budget)]) }),
  );
  const gift = await connection.getSignaturesForAddress(new PublicKey(source), { limit: 10 });
  const given = await connection.getParsedTransaction(gift.at(-1)?.signature ?? '', {
    maxSupportedTransactionVersion: 0,
  });
  expect(
    given?.transaction.message.instructions.map((one) => 'parsed' in one && `${one.program} ${one.parsed.type}`),
  ).toEqual([
    'system transfer',
    'system transfer',
    'spl-associated-token-account createIdempotent',
    'spl-token mintTo',
  ]);
  expect(found?.meta?.postTokenBalances?.map(({ uiTokenAmount }) => uiTokenAmount.amount)).toContain('700');
});

test('what a node refuses is refused with its code', async () => {
  const from = Keypair.generate();
  const someone = from.publicKey.toBase58();
  expect(await call('getTokenAccountBalance', someone)).toMatchObject({
    error: { code: -32602, message: 'Invalid param: could not find account' },
  });
  expect(await call('getTokenAccountBalance', local.devnet.mint)).toMatchObject({
    error: { code: -32602, message: 'Invalid param: not a Token account' },
  });
  expect((await call('getBalance', someone, { commitment: 'soon' })).error?.code).toBe(-32602);
  expect(await call('getBalance', someone, { minContextSlot: 10 ** 9 })).toMatchObject({
    error: { code: -32016, data: { contextSlot: expect.any(Number) } },
  });
  expect((await call('getSignatureStatuses', ['short'])).error?.code).toBe(-32602);
  expect(
    (
      await call(
        'getSignatureStatuses',
        Array.from({ length: 257 }, () => '1'.repeat(64)),
      )
    ).error?.code,
  ).toBe(-32602);
  expect((await call('sendTransaction', '!!!', { encoding: 'base64' })).error?.code).toBe(-32602);
  // By its length, before minutes go into decoding it.
  expect((await call('sendTransaction', 'z'.repeat(200_000))).error).toMatchObject({
    code: -32602,
    message: expect.stringContaining('too large: 200000 bytes'),
  });
  const simulated = { encoding: 'base64', sigVerify: true, replaceRecentBlockhash: true };
  expect((await call('simulateTransaction', 'AAAA', simulated)).error?.code).toBe(-32602);
  expect((await call('getBlockTime', 10 ** 9)).error?.code).toBe(-32004);
});

test('a transaction of version 0 is given to those only who say that they know it', async () => {
  const payer = await funded(local.devnet);
  const { blockhash } = await connection.getLatestBlockhash();
  const key = Keypair.fromSeed(payer.seed);
  const { TransactionMessage, VersionedTransaction } = await import('@solana/web3.js');
  const message = new TransactionMessage({
    payerKey: key.publicKey,
    recentBlockhash: blockhash,
    instructions: [
      SystemProgram.transfer({ fromPubkey: key.publicKey, toPubkey: Keypair.generate().publicKey, lamports: 10 ** 6 }),
    ],
  });
  const transaction = new VersionedTransaction(message.compileToV0Message());
  transaction.sign([key]);
  const name = await connection.sendTransaction(transaction);
  expect(await call('getTransaction', name)).toMatchObject({ error: { code: -32015 } });
  const { slot } = (await call('getTransaction', name, { maxSupportedTransactionVersion: 0 })).result as {
    slot: number;
  };
  await completed(slot);
  expect(await call('getBlock', slot)).toMatchObject({ error: { code: -32015 } });
});

test('a transaction that fails in preflight leaves no trace, not even its fee', async () => {
  const from = Keypair.generate();
  await connection.requestAirdrop(from.publicKey, 10_000_000);
  const { blockhash } = await connection.getLatestBlockhash();
  const transfer = (to: PublicKey, lamports: number) =>
    SystemProgram.transfer({ fromPubkey: from.publicKey, toPubkey: to, lamports });
  const to = Keypair.generate().publicKey;
  const transaction = new Transaction({ feePayer: from.publicKey, recentBlockhash: blockhash });
  transaction.add(transfer(to, 2_000_000), transfer(to, 50_000_000));
  transaction.sign(from);
  const wire = transaction.serialize().toString('base64');
  const count = await connection.getTransactionCount();
  for (const _ of [1, 2]) {
    expect(await call('sendTransaction', wire, { encoding: 'base64' })).toMatchObject({
      error: { code: -32002, data: { err: { InstructionError: [1, { Custom: 1 }] }, logs: expect.any(Array) } },
    });
  }
  expect(await connection.getBalance(from.publicKey)).toBe(10_000_000);
  expect(await connection.getBalance(to)).toBe(0);
  expect(await connection.getTransactionCount()).toBe(count);
  // Without preflight, what cannot be executed at all is dropped silently, as on a cluster.
  transaction.recentBlockhash = Keypair.generate().publicKey.toBase58();
  transaction.sign(from);
  const dropped = await connection.sendRawTransaction(transaction.serialize(), { skipPreflight: true });
  expect((await connection.getSignatureStatus(dropped)).value).toBeNull();
});

test('whatever is asked, every method answers with a result or says what is wrong with the question', async () => {
  const named = { ...CLUSTER_METHODS, ...ACCOUNT_METHODS, ...TRANSACTION_READS, ...WRITES };
  // Time would jump for the other tests.
  const methods = Object.keys(named).filter((name) => name !== 'molt_warp');
  expect(methods.length).toBeGreaterThan(45);
  const someone = randomKey().address;
  const likely = fc.constantFrom<unknown>(
    someone,
    local.devnet.mint,
    0,
    -1,
    3,
    10 ** 15,
    '',
    'A'.repeat(88),
    '1'.repeat(64),
    [someone],
    null,
  );
  const options = fc.record(
    {
      encoding: fc.constantFrom('base58', 'base64', 'jsonParsed', 'json', 'other', 1),
      commitment: fc.constantFrom('processed', 'finalized', 'other', null),
      filters: fc.anything(),
      dataSlice: fc.anything(),
      mint: likely,
      programId: likely,
      limit: likely,
      accounts: fc.anything(),
    },
    { requiredKeys: [] },
  );
  const params = fc.array(fc.oneof(likely, options, fc.jsonValue()), { maxLength: 3 });
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...methods), params, async (method, given) => {
      const { error, result } = await call(method, ...given);
      expect(error?.code, `${method} ${JSON.stringify(given)} ${error?.message}`).not.toBe(-32603);
      expect(error === undefined).toBe(result !== undefined);
    }),
    { numRuns: 1_500 },
  );
});

test('web pages of explorers may ask', async () => {
  const asked = await fetch(url, { method: 'OPTIONS', headers: { origin: 'https://example.org' } });
  expect(asked.status).toBe(204);
  expect(asked.headers.get('access-control-allow-origin')).toBe('*');
  expect(asked.headers.get('access-control-allow-headers')).toContain('content-type');
});

test('readers are served while writers never stop', async () => {
  const stop = new AbortController();
  let written = 0;
  const writer = async (): Promise<void> => {
    while (!stop.signal.aborted) {
      await rpc(url, 'requestAirdrop', randomKey().address, 1_000_000);
      written++;
    }
  };
  const writers = Array.from({ length: 16 }, writer);
  const READS = 50;
  for (let read = 0; read < READS; read++) await rpc(url, 'getBalance', local.devnet.mint);
  const meanwhile = written;
  stop.abort();
  await Promise.all(writers);
  // A reader waits for no more writes than there are writers, twice at most.
  expect(meanwhile).toBeGreaterThan(READS / 5);
  expect(meanwhile).toBeLessThan(2 * writers.length * READS);
});

test('old transactions are forgotten block by block, their money is not', async () => {
  await using folder = await newFolder();
  const options = { directory: folder.path, port: 0, historyMax: 100 };
  const gifts = async (at: string, count: number): Promise<string[]> => {
    const names: string[] = [];
    const giver = async (): Promise<void> => {
      while (names.length < count) names.push(await rpc<string>(at, 'requestAirdrop', randomKey().address, 1_000_000));
    };
    await Promise.all(Array.from({ length: 20 }, giver));
    return names;
  };
  const owner = randomKey().address;
  let firstName: string;
  let lastName: string | undefined;
  {
    await using chain = await startDevnet(env, options);
    firstName = await rpc<string>(chain.rpcUrl, 'requestAirdrop', owner, 5_000_000);
    await gifts(chain.rpcUrl, 500);
    // Beyond the slots that are kept in any case.
    await rpc(chain.rpcUrl, 'molt_warp', 300);
    lastName = (await gifts(chain.rpcUrl, 600)).at(-1);
    await expect.poll(() => rpc(chain.rpcUrl, 'getFirstAvailableBlock')).toBeGreaterThan(500);
  }
  await using again = await startDevnet(env, options);
  const old = { jsonrpc: '2.0', id: 1, method: 'getBlock', params: [3] };
  expect((await rpcRaw(again.rpcUrl, old)).error).toMatchObject({ code: -32001 });
  expect(await rpc(again.rpcUrl, 'getTransaction', firstName)).toBeNull();
  expect(await rpc(again.rpcUrl, 'getTransaction', lastName)).toMatchObject({ meta: { err: null } });
  expect(await rpc(again.rpcUrl, 'getSignaturesForAddress', owner)).toEqual([]);
  expect(await rpc(again.rpcUrl, 'getBalance', owner)).toMatchObject({ value: 5_000_000 });
});
