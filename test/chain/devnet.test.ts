/** The local chain as Solana's own client sees it: HTTP, websocket, errors, time, and what survives SIGKILL. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import {
  Connection,
  Keypair,
  PublicKey,
  SystemProgram,
  Transaction,
  TransactionMessage,
  VersionedTransaction,
} from '@solana/web3.js';
import { Level } from 'level';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { connectChain, startDevnet, type Chain, type Devnet } from '../../chain/index.ts';
import { describe as words } from '../../chain/devnet/ledger.ts';
import { parseDebugError } from '../../chain/devnet/vm.ts';
import { LOCAL_PROGRAM_ID } from '../../chain/instructions.ts';
import { ACCOUNTS, layoutSize } from '../../chain/layout.ts';
import { parseAddress } from '../../protocol/address.ts';
import { baseUnits } from '../../protocol/units.ts';
import {
  LIMITS,
  env,
  funded,
  newFolder,
  newParties,
  openOn,
  randomKey,
  rpc,
  rpcRaw,
  startLocalChain,
  termsOf,
  type LocalChain,
} from './local-chain.ts';

let local: LocalChain;
let devnet: Devnet;
let chain: Chain;
let connection: Connection;

beforeAll(async () => {
  local = await startLocalChain();
  ({ devnet, chain } = local);
  connection = new Connection(devnet.rpcUrl, 'confirmed');
});

afterAll(async () => {
  await local[Symbol.asyncDispose]();
});

async function newKeypair(lamports = 5_000_000_000): Promise<Keypair> {
  const keypair = Keypair.generate();
  await connection.confirmTransaction(await connection.requestAirdrop(keypair.publicKey, lamports));
  return keypair;
}

const transfer = (from: Keypair, to: PublicKey, lamports = 1_000_000): Transaction =>
  new Transaction().add(SystemProgram.transfer({ fromPubkey: from.publicKey, toPubkey: to, lamports }));

async function signed(from: Keypair, to = Keypair.generate().publicKey): Promise<Transaction> {
  const transaction = transfer(from, to);
  transaction.feePayer = from.publicKey;
  transaction.recentBlockhash = (await connection.getLatestBlockhash()).blockhash;
  transaction.sign(from);
  return transaction;
}

describe('web3.js Connection', () => {
  test('sends, confirms over the websocket and reads back', async () => {
    const from = await newKeypair();
    const to = Keypair.generate().publicKey;
    const { blockhash, lastValidBlockHeight } = await connection.getLatestBlockhash();
    const signature = await connection.sendTransaction(transfer(from, to), [from]);
    const { value } = await connection.confirmTransaction({ signature, blockhash, lastValidBlockHeight });
    expect(value.err).toBeNull();
    expect(await connection.getBalance(to)).toBe(1_000_000);
    const found = await connection.getTransaction(signature, { maxSupportedTransactionVersion: 0 });
    expect(found?.meta).toMatchObject({ err: null, fee: 5_000, computeUnitsConsumed: 150 });
    expect(found?.meta?.preBalances[0]).toBe(5_000_000_000);
    expect(found?.meta?.postBalances[0]).toBe(5_000_000_000 - 1_000_000 - 5_000);
    expect(found?.transaction.message.getAccountKeys().get(1)?.toBase58()).toBe(to.toBase58());
    expect((await connection.getSignaturesForAddress(to)).map((one) => one.signature)).toEqual([signature]);
    expect((await connection.getSignatureStatuses([signature])).value[0]?.confirmationStatus).toBe('finalized');
  });

  test('takes versioned transactions without lookup tables', async () => {
    const from = await newKeypair();
    const { blockhash } = await connection.getLatestBlockhash();
    const message = new TransactionMessage({
      payerKey: from.publicKey,
      recentBlockhash: blockhash,
      instructions: transfer(from, Keypair.generate().publicKey).instructions,
    }).compileToV0Message();
    const transaction = new VersionedTransaction(message);
    transaction.sign([from]);
    const signature = await connection.sendTransaction(transaction);
    expect((await connection.getTransaction(signature, { maxSupportedTransactionVersion: 0 }))?.version).toBe(0);
  });

  test('answers what wallets and tools ask', async () => {
    const from = await newKeypair();
    expect(parseAddress(await connection.getGenesisHash())).toBe(devnet.network);
    expect(await connection.getMinimumBalanceForRentExemption(165)).toBe(2_039_280);
    // A slot may end between two questions, and the height is the slot of a moment between the first and the last.
    const [before, height, after] = [
      await connection.getSlot(),
      await connection.getBlockHeight(),
      await connection.getSlot(),
    ];
    expect(height).toBeGreaterThanOrEqual(before);
    expect(height).toBeLessThanOrEqual(after);
    expect((await connection.getVersion())['solana-core']).toMatch(/^\d+\.\d+\.\d+$/);
    expect((await connection.getEpochInfo()).absoluteSlot).toBeGreaterThan(0);
    // Of the newest complete slot, in whole seconds: two at most before it was asked for.
    const askedAt = Date.now() / 1000;
    const blockTime = (await connection.getBlockTime(await connection.getSlot())) ?? 0;
    expect(blockTime).toBeGreaterThan(askedAt - 2);
    expect(blockTime).toBeLessThanOrEqual(Date.now() / 1000);
    const { blockhash } = await connection.getLatestBlockhash();
    expect((await connection.isBlockhashValid(blockhash)).value).toBe(true);
    expect((await connection.isBlockhashValid(Keypair.generate().publicKey.toBase58())).value).toBe(false);
    const message = (await signed(from)).compileMessage();
    expect((await connection.getFeeForMessage(message)).value).toBe(5_000);
    const { value } = await connection.simulateTransaction(await signed(from));
    expect(value).toMatchObject({ err: null, unitsConsumed: 150 });
    expect((await fetch(`${devnet.rpcUrl}/health`)).status).toBe(200);
  });

  test('reads tokens, programs and accounts with filters and slices', async () => {
    const holder = await funded(devnet);
    const account = new PublicKey(chain.tokenAddress(holder.address));
    expect((await connection.getTokenAccountBalance(account)).value).toEqual({
      amount: '1000000000000',
      decimals: 9,
      uiAmount: 1000,
      uiAmountString: '1000',
    });
    const byMint = await connection.getTokenAccountsByOwner(new PublicKey(holder.address), {
      mint: new PublicKey(devnet.mint),
    });
    expect(byMint.value.map(({ pubkey }) => pubkey.toBase58())).toEqual([account.toBase58()]);
    expect((await connection.getTokenSupply(new PublicKey(devnet.mint))).value.decimals).toBe(9);
    expect((await connection.getAccountInfo(new PublicKey(LOCAL_PROGRAM_ID)))?.executable).toBe(true);
    const sliced = await connection.getAccountInfo(account, { dataSlice: { offset: 64, length: 8 } });
    expect(sliced?.data.readBigUInt64LE()).toBe(10n ** 12n);
    const configs = await connection.getProgramAccounts(new PublicKey(LOCAL_PROGRAM_ID), {
      filters: [{ dataSize: layoutSize(ACCOUNTS.config.fields) }, { memcmp: { offset: 0, bytes: '2' } }],
    });
    expect(configs).toHaveLength(1);
    const many = await connection.getMultipleAccountsInfo([account, Keypair.generate().publicKey]);
    expect(many.map((info) => info?.data.length)).toEqual([165, undefined]);
  });

  test('notifies account, program, logs, signature and slot subscriptions in order', async () => {
    const from = await newKeypair();
    const holder = await funded(devnet);
    const to = Keypair.generate().publicKey;
    const seen: string[] = [];
    const ids = [
      connection.onAccountChange(to, ({ lamports }) => seen.push(`account ${lamports}`)),
      connection.onLogs(to, ({ logs }) => seen.push(`logs ${logs.length}`)),
    ];
    const program = connection.onProgramAccountChange(new PublicKey(LOCAL_PROGRAM_ID), ({ accountId }) =>
      seen.push(`program ${accountId.toBase58()}`),
    );
    let slots = 0;
    const slot = connection.onSlotChange(() => slots++);
    await expect.poll(() => slots).toBeGreaterThan(0);
    await connection.confirmTransaction(await connection.sendTransaction(transfer(from, to, 2_000_000), [from]));
    await connection.confirmTransaction(await connection.sendTransaction(transfer(from, to, 3_000_000), [from]));
    await chain.createBudget(holder, 3n, LIMITS(holder.address));
    const budget = chain.budgetAddress(holder.address, 3n);
    await expect.poll(() => seen.length).toBe(5);
    expect(seen.filter((line) => line.startsWith('account'))).toEqual(['account 2000000', 'account 5000000']);
    expect(seen.filter((line) => line.startsWith('logs'))).toEqual(['logs 2', 'logs 2']);
    expect(seen.filter((line) => line.startsWith('program'))).toEqual([`program ${budget}`]);
    await Promise.all([
      ...ids.map((id, index) =>
        index === 0 ? connection.removeAccountChangeListener(id) : connection.removeOnLogsListener(id),
      ),
      connection.removeProgramAccountChangeListener(program),
      connection.removeSlotChangeListener(slot),
    ]);
  });

  test('a signature subscription made after the fact is answered at once', async () => {
    const from = await newKeypair();
    const signature = await connection.sendTransaction(await signed(from), [from]);
    await new Promise<void>((resolve) => {
      connection.onSignature(signature, () => resolve(), 'confirmed');
    });
  });
});

describe('refusals', () => {
  const call = (method: string, ...params: readonly unknown[]): ReturnType<typeof rpcRaw> =>
    rpcRaw(devnet.rpcUrl, { jsonrpc: '2.0', id: 7, method, params });

  test('speak JSON-RPC: broken JSON, no request, no method, bad parameters, batches', async () => {
    expect((await rpcRaw(devnet.rpcUrl, '{')).error?.code).toBe(-32700);
    expect((await rpcRaw(devnet.rpcUrl, { id: 1, method: 'getSlot' })).error?.code).toBe(-32600);
    expect((await rpcRaw(devnet.rpcUrl, [])).error?.code).toBe(-32600);
    expect(await call('getNothing')).toMatchObject({ id: 7, error: { code: -32601 } });
    expect(await call('toString')).toMatchObject({ id: 7, error: { code: -32601 } });
    expect((await call('getBalance', 'no address')).error?.code).toBe(-32602);
    expect((await call('getBalance')).error?.code).toBe(-32602);
    expect((await call('getSlot', 1, 2, 3, 4)).error?.code).toBe(-32602);
    expect((await call('sendTransaction', 'AAAA', { encoding: 'base64' })).error?.code).toBe(-32602);
    expect((await call('sendTransaction', 'A'.repeat(4_000), { encoding: 'base64' })).error?.code).toBe(-32602);
    expect((await call('molt_warp', -5)).error?.code).toBe(-32602);
    expect((await call('molt_faucet', randomKey().address, { tokens: -1 })).error?.code).toBe(-32602);
    expect(
      (
        await call(
          'getMultipleAccounts',
          Array.from({ length: 101 }, () => devnet.mint),
        )
      ).error?.code,
    ).toBe(-32602);
    const batch = (await rpcRaw(devnet.rpcUrl, [
      { jsonrpc: '2.0', id: 1, method: 'getHealth' },
      { jsonrpc: '2.0', id: 2, method: 'getNothing' },
    ])) as unknown as { id: number; result?: unknown; error?: { code: number } }[];
    expect(batch).toMatchObject([
      { id: 1, result: 'ok' },
      { id: 2, error: { code: -32601 } },
    ]);
    const health = { jsonrpc: '2.0', id: 1, method: 'getHealth' };
    expect(
      await rpcRaw(
        devnet.rpcUrl,
        Array.from({ length: 100 }, () => health),
      ),
    ).toHaveLength(100);
    expect(
      (
        await rpcRaw(
          devnet.rpcUrl,
          Array.from({ length: 101 }, () => health),
        )
      ).error?.code,
    ).toBe(-32600);
    const big = await fetch(devnet.rpcUrl, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: `"${'x'.repeat(300_000)}"`,
    });
    expect(big.status).toBe(413);
    const plain = await fetch(devnet.rpcUrl, { method: 'POST', headers: { 'content-type': 'text/plain' }, body: '{}' });
    expect(plain.status).toBe(415);
  });

  test('tell a bad signature, an unknown blockhash, a repetition and an empty wallet apart', async () => {
    const from = await newKeypair();
    const good = await signed(from);
    const wire = good.serialize();
    const forged = Buffer.from(wire);
    forged[5] = (forged[5] ?? 0) ^ 1;
    const send = (bytes: Uint8Array): ReturnType<typeof rpcRaw> =>
      call('sendTransaction', Buffer.from(bytes).toString('base64'), { encoding: 'base64' });
    expect((await send(forged)).error?.code).toBe(-32003);
    expect((await send(wire)).result).toBeTypeOf('string');
    expect((await send(wire)).error).toMatchObject({ code: -32002, data: { err: 'AlreadyProcessed' } });
    const stale = transfer(from, Keypair.generate().publicKey);
    stale.feePayer = from.publicKey;
    stale.recentBlockhash = Keypair.generate().publicKey.toBase58();
    stale.sign(from);
    expect((await send(stale.serialize())).error).toMatchObject({ code: -32002, data: { err: 'BlockhashNotFound' } });
    const poor = Keypair.generate();
    expect((await send((await signed(poor)).serialize())).error).toMatchObject({
      code: -32002,
      data: { err: 'AccountNotFound' },
    });
  });

  test('a failing transaction is refused by preflight for free; without preflight it is recorded and pays', async () => {
    const from = await newKeypair(10_000_000);
    const bad = transfer(from, Keypair.generate().publicKey, 50_000_000);
    await expect(connection.sendTransaction(bad, [from])).rejects.toThrow(/custom program error: 0x1/);
    expect(await connection.getBalance(from.publicKey)).toBe(10_000_000);
    const signature = await connection.sendTransaction(bad, [from], { skipPreflight: true });
    const { value } = await connection.confirmTransaction(signature);
    expect(value.err).toEqual({ InstructionError: [0, { Custom: 1 }] });
    expect(await connection.getBalance(from.publicKey)).toBe(10_000_000 - 5_000);
  });

  test('the faucet gives as often as it is asked, also the same at the same moment', async () => {
    const { address } = randomKey();
    await Promise.all(
      Array.from({ length: 5 }, () => rpc(devnet.rpcUrl, 'molt_faucet', address, { lamports: 7_000_000, tokens: '3' })),
    );
    await Promise.all(Array.from({ length: 3 }, () => rpc(devnet.rpcUrl, 'requestAirdrop', address, 1_000)));
    expect(await chain.balances(address)).toEqual({ lamports: 35_003_000n, tokens: 15n });
  });

  test('errors of the VM are read from their debug form', () => {
    expect(parseDebugError('AccountNotFound')).toBe('AccountNotFound');
    expect(parseDebugError('InstructionError(2, Custom(7001))')).toEqual({ InstructionError: [2, { Custom: 7001 }] });
    expect(parseDebugError('InstructionError(0, MissingRequiredSignature)')).toEqual({
      InstructionError: [0, 'MissingRequiredSignature'],
    });
    expect(parseDebugError('InsufficientFundsForRent { account_index: 3 }')).toEqual({
      InsufficientFundsForRent: { account_index: 3 },
    });
    expect(words({ InstructionError: [0, { Custom: 7001 }] })).toBe(
      'Error processing Instruction 0: custom program error: 0x1b59',
    );
  });

  test('the websocket refuses what it does not know, and a client that disappears leaves nothing behind', async () => {
    const socket = new WebSocket(devnet.wsUrl);
    await once(socket, 'open');
    const ask = async (message: unknown): Promise<unknown> => {
      socket.send(typeof message === 'string' ? message : JSON.stringify(message));
      const [event] = (await once(socket, 'message')) as [MessageEvent];
      return JSON.parse(String(event.data));
    };
    expect(await ask('{')).toMatchObject({ error: { code: -32700 } });
    expect(await ask({ jsonrpc: '2.0', id: 1, method: 'nothingSubscribe', params: [] })).toMatchObject({
      error: { code: -32601 },
    });
    expect(await ask({ jsonrpc: '2.0', id: 2, method: 'accountSubscribe', params: ['bad'] })).toMatchObject({
      error: { code: -32602 },
    });
    expect(await ask({ jsonrpc: '2.0', id: 3, method: 'accountUnsubscribe', params: [99] })).toMatchObject({
      error: { code: -32602 },
    });
    expect(await ask({ jsonrpc: '2.0', id: 4, method: 'getHealth', params: [] })).toMatchObject({
      id: 4,
      result: 'ok',
    });
    const account = randomKey().address;
    expect(await ask({ jsonrpc: '2.0', id: 5, method: 'accountSubscribe', params: [account] })).toMatchObject({
      id: 5,
      result: expect.any(Number),
    });
    socket.close();
    await once(socket, 'close');
    await rpc(devnet.rpcUrl, 'molt_faucet', account);
    expect((await chain.balances(account)).lamports).toBe(10_000_000_000n);
  });
});

describe('time', () => {
  test('a warp moves clock and slots together, forward, and expires blockhashes to the slot', async () => {
    await using folder = await newFolder();
    // A clock that stands: what the questions themselves take is no part of it.
    const nowMs = Math.floor(env.clock.now() / 1000) * 1000 + 500;
    const standing = { ...env, clock: { ...env.clock, now: () => nowMs } };
    await using own = await startDevnet(standing, { directory: folder.path, port: 0 });
    const at = new Connection(own.rpcUrl, 'confirmed');
    const look = async (): Promise<{ slot: number; seconds: number }> => {
      const slot = await at.getSlot();
      return { slot, seconds: (await at.getBlockTime(slot)) ?? 0 };
    };
    const { blockhash } = await at.getLatestBlockhash();
    const before = await look();
    const isValid = async (): Promise<boolean> => (await at.isBlockhashValid(blockhash)).value;
    await rpc(own.rpcUrl, 'molt_warp', 60);
    const after = await look();
    expect(after.slot - before.slot).toBe(150);
    expect(after.seconds - before.seconds).toBe(60);
    expect(await isValid()).toBe(true);
    await rpc(own.rpcUrl, 'molt_warp', 1);
    expect(await isValid()).toBe(false);
    // A second is no whole number of slots: wherever within one the clock stands, no less than a second passes.
    for (let last = await look(), step = 0; step < 5; step++) {
      await rpc(own.rpcUrl, 'molt_warp', 1);
      const next = await look();
      expect(next.seconds - last.seconds).toBeGreaterThanOrEqual(1);
      last = next;
    }
  });
});

describe('on disk', () => {
  test('a folder serves one chain at a time, and a port too', async () => {
    await using folder = await newFolder();
    await using first = await startDevnet(env, { directory: folder.path, port: 0 });
    await expect(startDevnet(env, { directory: folder.path, port: 0 })).rejects.toMatchObject({
      code: 'node/already-running',
    });
    await using other = await newFolder();
    const port = Number(new URL(first.rpcUrl).port);
    await expect(startDevnet(env, { directory: other.path, port })).rejects.toMatchObject({
      code: 'mesh/listen-failed',
    });
  });

  test('data of another version is refused and left as it is', async () => {
    await using folder = await newFolder();
    const db = new Level(folder.path);
    await db.put('meta', JSON.stringify({ genesis: randomKey().address, bornMs: 1, faucetSeed: '00'.repeat(32) }));
    await db.close();
    const start = (): Promise<Devnet> => startDevnet(env, { directory: folder.path, port: 0 });
    await expect(start()).rejects.toMatchObject({ code: 'node/journal-corrupt' });
    await expect(start()).rejects.toMatchObject({ code: 'node/journal-corrupt' });
  });

  test('a restart keeps network, accounts, leases, warp and history', async () => {
    await using folder = await newFolder();
    const options = { directory: folder.path, port: 0 };
    const first = await startDevnet(env, options);
    await rpc(first.rpcUrl, 'molt_warp', 1_000);
    const client = await connectChain(env, { rpcUrl: first.rpcUrl });
    const parties = await newParties(first, client);
    const terms = await termsOf(client, parties);
    const address = await openOn(client, parties, terms);
    const before = {
      lease: await client.lease(address),
      budget: await client.budget(parties.budget),
      balance: await client.balances(parties.owner.address),
      time: await client.chainTimeMs(),
    };
    const [{ signature }] = await rpc<[{ signature: string }]>(first.rpcUrl, 'getSignaturesForAddress', address);
    await client[Symbol.asyncDispose]();
    await first.close();

    await using second = await startDevnet(env, options);
    await using again = await connectChain(env, { rpcUrl: second.rpcUrl, expectedNetwork: first.network });
    expect({
      lease: await again.lease(address),
      budget: await again.budget(parties.budget),
      balance: await again.balances(parties.owner.address),
    }).toEqual({
      lease: before.lease,
      budget: before.budget,
      balance: before.balance,
    });
    expect(await again.chainTimeMs()).toBeGreaterThanOrEqual(before.time);
    expect((await again.transactionCost(signature))?.feeLamports).toBe(10_000n);
    expect(second.mint).toBe(first.mint);
    await again.cancelByOperator(parties.operator, before.lease as NonNullable<typeof before.lease>);
    expect((await again.budget(parties.budget))?.openLeases).toBe(0);
  });

  test('SIGKILL at any moment loses nothing that was confirmed, and a confirmed transaction cannot be repeated', async () => {
    await using folder = await newFolder();
    const children: ChildProcess[] = [];
    const start = async (): Promise<{ child: ChildProcess; url: string }> => {
      const child = spawn(
        process.execPath,
        [fileURLToPath(new URL('devnet-process.ts', import.meta.url)), folder.path, '0'],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      );
      children.push(child);
      for await (const line of createInterface({ input: child.stdout as NodeJS.ReadableStream }))
        return { child, url: line };
      throw new Error('the chain ended before it said where it is');
    };
    try {
      const confirmed = new Map<string, bigint>();
      let repeat: { wire: string } | undefined;
      for (let round = 0; round < 3; round++) {
        const { child, url } = await start();
        // What earlier rounds confirmed is there.
        for (const [address, lamports] of confirmed) {
          expect(await rpc<{ value: number }>(url, 'getBalance', address)).toMatchObject({ value: Number(lamports) });
        }
        if (repeat)
          expect(
            (
              await rpcRaw(url, {
                jsonrpc: '2.0',
                id: 1,
                method: 'sendTransaction',
                params: [repeat.wire, { encoding: 'base64' }],
              })
            ).error?.data,
          ).toMatchObject({ err: 'AlreadyProcessed' });
        const first = confirmed.size;
        // Several writers at once, so that batches hold more than one transaction when the blow falls.
        const writer = async (): Promise<void> => {
          for (;;) {
            const { address } = randomKey();
            const lamports = 10n ** 9n;
            await rpc(url, 'molt_faucet', address, { lamports: Number(lamports), tokens: 0 });
            confirmed.set(address, lamports);
            // The other writers' transactions are under way.
            if (confirmed.size >= first + 15 + 7 * round) child.kill('SIGKILL');
          }
        };
        const from = Keypair.generate();
        await rpc(url, 'molt_faucet', from.publicKey.toBase58(), { lamports: 10 ** 9, tokens: 0 });
        const transaction = transfer(from, Keypair.generate().publicKey);
        const { value } = await rpc<{ value: { blockhash: string } }>(url, 'getLatestBlockhash');
        transaction.feePayer = from.publicKey;
        transaction.recentBlockhash = value.blockhash;
        transaction.sign(from);
        repeat = { wire: transaction.serialize().toString('base64') };
        await rpc(url, 'sendTransaction', repeat.wire, { encoding: 'base64' });
        await Promise.allSettled(Array.from({ length: 6 }, writer));
        if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
        expect(child.signalCode).toBe('SIGKILL');
        expect(confirmed.size).toBeGreaterThan(first);
      }
      const { url } = await start();
      for (const [address, lamports] of confirmed) {
        expect(await rpc<{ value: number }>(url, 'getBalance', address)).toMatchObject({ value: Number(lamports) });
      }
    } finally {
      // The folder is removed next, and the last of them may be in the middle of a write.
      for (const child of children) {
        child.kill('SIGKILL');
        if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      }
    }
    // Four chains are started, one after the other.
  }, 300_000);
});

test('amounts of a local market are what its parameters say', () => {
  expect(chain.parameters.minStake).toBe(baseUnits(1_000_000_000n));
});
