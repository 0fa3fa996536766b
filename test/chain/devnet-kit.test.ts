/** The local chain as the other Solana client sees it: @solana/kit as it comes, over HTTP and websocket. */
import {
  AccountRole,
  address,
  airdropFactory,
  appendTransactionMessageInstruction,
  assertIsTransactionWithBlockhashLifetime,
  compressTransactionMessageUsingAddressLookupTables,
  createSolanaRpc,
  createSolanaRpcSubscriptions,
  createTransactionMessage,
  devnet as asDevnet,
  generateKeyPairSigner,
  getBase64EncodedWireTransaction,
  getSignatureFromTransaction,
  isSolanaError,
  lamports,
  pipe,
  sendAndConfirmTransactionFactory,
  setTransactionMessageFeePayerSigner,
  setTransactionMessageLifetimeUsingBlockhash,
  signTransactionMessageWithSigners,
  SOLANA_ERROR__JSON_RPC__SERVER_ERROR_SEND_TRANSACTION_PREFLIGHT_FAILURE,
  SOLANA_ERROR__TRANSACTION_ERROR__INSUFFICIENT_FUNDS_FOR_FEE,
  SOLANA_ERROR__TRANSACTION_ERROR__ACCOUNT_NOT_FOUND,
  type Address,
  type Instruction,
  type KeyPairSigner,
  type RpcDevnet,
  type RpcSubscriptionsDevnet,
  type SolanaRpcApiDevnet,
  type SolanaRpcSubscriptionsApi,
} from '@solana/kit';
import { AddressLookupTableProgram, PublicKey } from '@solana/web3.js';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { startLocalChain, type LocalChain } from './local-chain.ts';

const SYSTEM = address('11111111111111111111111111111111');

let local: LocalChain;
let rpc: RpcDevnet<SolanaRpcApiDevnet>;
let subscriptions: RpcSubscriptionsDevnet<SolanaRpcSubscriptionsApi>;
let payer: KeyPairSigner;

beforeAll(async () => {
  local = await startLocalChain();
  rpc = createSolanaRpc(asDevnet(local.devnet.rpcUrl));
  subscriptions = createSolanaRpcSubscriptions(asDevnet(local.devnet.wsUrl));
  payer = await funded();
});

afterAll(async () => {
  await local[Symbol.asyncDispose]();
});

async function funded(): Promise<KeyPairSigner> {
  const signer = await generateKeyPairSigner();
  const airdrop = airdropFactory({ rpc, rpcSubscriptions: subscriptions });
  await airdrop({ recipientAddress: signer.address, lamports: lamports(5_000_000_000n), commitment: 'confirmed' });
  return signer;
}

function transfer(from: Address, to: Address, amount: bigint): Instruction {
  const data = Buffer.alloc(12);
  data.writeUInt32LE(2);
  data.writeBigUInt64LE(amount, 4);
  return {
    programAddress: SYSTEM,
    accounts: [
      { address: from, role: AccountRole.WRITABLE_SIGNER },
      { address: to, role: AccountRole.WRITABLE },
    ],
    data,
  };
}

async function message(from: KeyPairSigner, instruction: Instruction) {
  const { value: blockhash } = await rpc.getLatestBlockhash().send();
  return pipe(
    createTransactionMessage({ version: 0 }),
    (made) => setTransactionMessageFeePayerSigner(from, made),
    (made) => setTransactionMessageLifetimeUsingBlockhash(blockhash, made),
    (made) => appendTransactionMessageInstruction(instruction, made),
  );
}

async function legacyMessage(from: KeyPairSigner, instruction: Instruction) {
  const { value: blockhash } = await rpc.getLatestBlockhash().send();
  return pipe(
    createTransactionMessage({ version: 'legacy' }),
    (made) => setTransactionMessageFeePayerSigner(from, made),
    (made) => setTransactionMessageLifetimeUsingBlockhash(blockhash, made),
    (made) => appendTransactionMessageInstruction(instruction, made),
  );
}

test.each(['legacy', 0] as const)('a transaction of version %s is sent, confirmed and read back', async (version) => {
  const { address: to } = await generateKeyPairSigner();
  const instruction = transfer(payer.address, to, 2_000_000n);
  const signed =
    version === 0
      ? await signTransactionMessageWithSigners(await message(payer, instruction))
      : await signTransactionMessageWithSigners(await legacyMessage(payer, instruction));
  assertIsTransactionWithBlockhashLifetime(signed);
  const sendAndConfirm = sendAndConfirmTransactionFactory({ rpc, rpcSubscriptions: subscriptions });
  await sendAndConfirm(signed, { commitment: 'confirmed' });
  expect((await rpc.getBalance(to).send()).value).toBe(2_000_000n);
  const found = await rpc
    .getTransaction(getSignatureFromTransaction(signed), { maxSupportedTransactionVersion: 0, encoding: 'jsonParsed' })
    .send();
  expect(found?.version).toBe(version);
  expect(found?.transaction.message.instructions).toMatchObject([
    {
      program: 'system',
      parsed: { type: 'transfer', info: { destination: to, lamports: 2_000_000n, source: payer.address } },
    },
  ]);
  expect(found?.transaction.message.accountKeys).toMatchObject([
    { pubkey: payer.address, signer: true, writable: true, source: 'transaction' },
    { pubkey: to, signer: false, writable: true },
    { pubkey: SYSTEM, signer: false, writable: false },
  ]);
});

test('simulation tells logs, units and the accounts as they would be', async () => {
  const { address: to } = await generateKeyPairSigner();
  const signed = await signTransactionMessageWithSigners(await message(payer, transfer(payer.address, to, 3_000_000n)));
  const { value } = await rpc
    .simulateTransaction(getBase64EncodedWireTransaction(signed), {
      encoding: 'base64',
      replaceRecentBlockhash: true,
      innerInstructions: true,
      accounts: { encoding: 'base64', addresses: [to, payer.address] },
    })
    .send();
  expect(value).toMatchObject({ err: null, unitsConsumed: 150n });
  expect(value.accounts?.map((account) => account?.lamports)).toEqual([3_000_000n, expect.any(BigInt)]);
  expect((await rpc.getBalance(to).send()).value).toBe(0n);
});

test('a refusal is a typed error with its cause', async () => {
  const poor = await generateKeyPairSigner();
  const signed = await signTransactionMessageWithSigners(
    await message(poor, transfer(poor.address, payer.address, 1n)),
  );
  const failed: unknown = await rpc
    .sendTransaction(getBase64EncodedWireTransaction(signed), { encoding: 'base64' })
    .send()
    .catch((error: unknown) => error);
  expect(isSolanaError(failed, SOLANA_ERROR__JSON_RPC__SERVER_ERROR_SEND_TRANSACTION_PREFLIGHT_FAILURE)).toBe(true);
  const { cause } = failed as Error;
  expect(
    isSolanaError(cause, SOLANA_ERROR__TRANSACTION_ERROR__ACCOUNT_NOT_FOUND) ||
      isSolanaError(cause, SOLANA_ERROR__TRANSACTION_ERROR__INSUFFICIENT_FUNDS_FOR_FEE),
  ).toBe(true);
});

test('subscriptions give accounts, slots, logs and signatures as they happen', async () => {
  const { address: to } = await generateKeyPairSigner();
  const stop = new AbortController();
  const signal = { abortSignal: stop.signal };
  const form = { commitment: 'confirmed', encoding: 'base64' } as const;
  const signed = await signTransactionMessageWithSigners(await message(payer, transfer(payer.address, to, 7_000_000n)));
  const name = getSignatureFromTransaction(signed);
  // kit keeps what comes only once somebody asks for it.
  const first = async <T>(pending: Promise<AsyncIterable<T>>): Promise<() => Promise<T>> => {
    const next = (await pending)[Symbol.asyncIterator]().next();
    return async () => (await next).value as T;
  };
  const account = await first(subscriptions.accountNotifications(to, form).subscribe(signal));
  const logs = await first(subscriptions.logsNotifications({ mentions: [to] }, form).subscribe(signal));
  const signature = await first(subscriptions.signatureNotifications(name, form).subscribe(signal));
  const slot = await first(subscriptions.slotNotifications().subscribe(signal));
  const root = await first(subscriptions.rootNotifications().subscribe(signal));
  await rpc.sendTransaction(getBase64EncodedWireTransaction(signed), { encoding: 'base64' }).send();
  expect((await account()).value.lamports).toBe(7_000_000n);
  expect((await logs()).value).toMatchObject({ signature: name, err: null });
  expect((await signature()).value).toEqual({ err: null });
  const { slot: current, parent } = await slot();
  expect(current).toBe(parent + 1n);
  expect(await root()).toBeGreaterThan(0n);
  stop.abort();
});

test('token accounts and mints are given in words', async () => {
  const { mint, rpcUrl } = local.devnet;
  const owner = await funded();
  const gift = {
    jsonrpc: '2.0',
    id: 1,
    method: 'molt_faucet',
    params: [owner.address, { lamports: 0, tokens: '2500000000' }],
  };
  await fetch(rpcUrl, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(gift),
  });
  const { value } = await rpc
    .getTokenAccountsByOwner(owner.address, { mint: address(mint) }, { encoding: 'jsonParsed' })
    .send();
  expect(value[0]?.account.data.parsed).toMatchObject({
    type: 'account',
    info: {
      mint,
      owner: owner.address,
      state: 'initialized',
      tokenAmount: { amount: '2500000000', uiAmountString: '2.5' },
    },
  });
  const found = await rpc.getAccountInfo(address(mint), { encoding: 'jsonParsed' }).send();
  expect(found.value?.data).toMatchObject({ program: 'spl-token', parsed: { type: 'mint', info: { decimals: 9 } } });
  expect(found.value?.space).toBe(82n);
});

test('a transaction may take its accounts from an address lookup table', async () => {
  const { address: to } = await generateKeyPairSigner();
  const owner = new PublicKey(payer.address);
  const recentSlot = Number(await rpc.getSlot().send());
  const [create, table] = AddressLookupTableProgram.createLookupTable({ authority: owner, payer: owner, recentSlot });
  const extend = AddressLookupTableProgram.extendLookupTable({
    authority: owner,
    payer: owner,
    lookupTable: table,
    addresses: [new PublicKey(to), SYSTEM].map((key) => new PublicKey(key)),
  });
  const sendAndConfirm = sendAndConfirmTransactionFactory({ rpc, rpcSubscriptions: subscriptions });
  for (const made of [create, extend]) {
    const instruction: Instruction = {
      programAddress: address(made.programId.toBase58()),
      accounts: made.keys.map(({ pubkey, isSigner, isWritable }) => ({
        address: address(pubkey.toBase58()),
        role: isSigner ? AccountRole.WRITABLE_SIGNER : isWritable ? AccountRole.WRITABLE : AccountRole.READONLY,
      })),
      data: made.data,
    };
    const signed = await signTransactionMessageWithSigners(await message(payer, instruction));
    assertIsTransactionWithBlockhashLifetime(signed);
    await sendAndConfirm(signed, { commitment: 'confirmed' });
  }
  // What was added in a slot can be used from the next one.
  const before = await rpc.getSlot({ commitment: 'processed' }).send();
  await expect.poll(() => rpc.getSlot({ commitment: 'processed' }).send()).toBeGreaterThan(before);
  const plain = await message(payer, transfer(payer.address, to, 4_000_000n));
  const compressed = compressTransactionMessageUsingAddressLookupTables(plain, {
    [address(table.toBase58())]: [to, SYSTEM],
  });
  const signed = await signTransactionMessageWithSigners(compressed);
  assertIsTransactionWithBlockhashLifetime(signed);
  await sendAndConfirm(signed, { commitment: 'confirmed' });
  expect((await rpc.getBalance(to).send()).value).toBe(4_000_000n);
  const name = getSignatureFromTransaction(signed);
  const found = await rpc.getTransaction(name, { maxSupportedTransactionVersion: 0, encoding: 'json' }).send();
  expect(found?.meta?.loadedAddresses).toEqual({ writable: [to], readonly: [] });
  expect(found?.meta?.postBalances.at(-1)).toBe(4_000_000n);
});
