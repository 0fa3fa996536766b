/** Goal: whoever waits for a signature hears of it, whenever it comes. Method: a real ledger whose look-ups take as long as the test wants. */
import { readFile } from 'node:fs/promises';

import { Keypair, PublicKey, SystemProgram } from '@solana/web3.js';
import { afterEach, beforeEach, expect, test } from 'vitest';

import { Ledger } from '../../chain/devnet/ledger.ts';
import { type MethodContext, SOLANA_VERSION } from '../../chain/devnet/rpc.ts';
import { Subscriptions } from '../../chain/devnet/subscriptions.ts';
import { parseTransaction } from '../../chain/devnet/transaction.ts';
import { buildDraft, wireTransaction } from '../../chain/instructions.ts';
import { env, newFolder } from './local-chain.ts';

let opened: AsyncDisposableStack;
let ledger: Ledger;
beforeEach(async () => {
  opened = new AsyncDisposableStack();
  const { path: directory } = opened.use(await newFolder());
  const program = await readFile(new URL('../../chain/program/molt.so', import.meta.url));
  ledger = opened.use(await Ledger.open(env, { directory, program, historyMax: 1_000 }));
});
afterEach(() => opened.disposeAsync());

/** A transfer of the faucet, signed and not sent. */
function transfer(): Uint8Array {
  const { faucet } = ledger;
  const gift = SystemProgram.transfer({
    fromPubkey: new PublicKey(faucet.address),
    toPubkey: Keypair.generate().publicKey,
    lamports: 1_000_000,
  });
  const draft = buildDraft(faucet.address, ledger.blockhash(), [gift]);
  return wireTransaction(draft, [faucet.sign(draft.message)]);
}

/** A client of the ledger, and what it is sent; `found` passes on what a look-up gives. */
function client(found: <T>(looked: T) => Promise<T>): { subscriptions: Subscriptions; sent: unknown[] } {
  const sent: unknown[] = [];
  const slow: Pick<Ledger, 'onChange'> & { history: Pick<Ledger['history'], 'record'> } = {
    onChange: (listener) => ledger.onChange(listener),
    history: { record: async (name) => found(await ledger.history.record(name)) },
  };
  const context = { ledger: slow } as unknown as MethodContext;
  return { subscriptions: opened.use(new Subscriptions(env, context, (message) => sent.push(message))), sent };
}

const told = (id: unknown, slot: number): object => ({
  jsonrpc: '2.0',
  method: 'signatureNotification',
  params: { result: { context: { slot, apiVersion: SOLANA_VERSION }, value: { err: null } }, subscription: id },
});

test.each<[string, 'before' | 'meanwhile' | 'after']>([
  ['before it is asked for', 'before'],
  ['while it is looked up', 'meanwhile'],
  ['after the answer', 'after'],
])('a transaction that is written %s is told once, and after the answer', async (_when, when) => {
  const wire = transfer();
  const { name } = parseTransaction(wire);
  let slot = 0;
  const execute = async (at: typeof when): Promise<void> => {
    if (at === when) ({ slot } = await ledger.execute(wire));
  };
  const { subscriptions, sent } = client(async (looked) => {
    await execute('meanwhile');
    return looked;
  });
  await execute('before');
  const answer = await subscriptions.call('signatureSubscribe', [name]);
  expect(sent).toEqual([]);
  answer?.after?.();
  await execute('after');
  expect(sent).toEqual([told(answer?.result, slot)]);
  // It has ended by itself, and whatever else is written is nothing to it.
  await ledger.execute(transfer());
  expect(sent).toHaveLength(1);
});
