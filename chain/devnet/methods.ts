/**
 * The JSON-RPC methods of the local chain: the usual ones of a Solana node, and two of our own (`molt_faucet`,
 * `molt_warp`). Every confirmation level is the same here, because what is visible is final and on disk.
 */
import { SystemProgram, PublicKey, Message } from '@solana/web3.js';
import { base58btc } from 'multiformats/bases/base58';
import { z } from 'zod';

import { parseAddress, type Address } from '../../protocol/address.ts';
import { hasCode } from '../../protocol/errors.ts';
import { baseUnits } from '../../protocol/units.ts';
import { tokenAddress } from '../addresses.ts';
import { buildDraft, wireTransaction } from '../instructions.ts';
import { createTokenAccount, mintTokens, TOKEN_ACCOUNT_SIZE, TOKEN_PROGRAM } from '../token.ts';
import {
  BLOCKHASH_SLOTS,
  Ledger,
  TransactionRefused,
  parseTransaction,
  type StoredAccount,
  type TokenBalance,
  type TransactionRecord,
} from './ledger.ts';

export const SOLANA_VERSION = '3.0.0';

/** What a method answers with instead of a result. Codes are JSON-RPC's and Solana's. */
export class RpcError extends Error {
  override readonly name = 'RpcError';
  readonly code: number;
  readonly data: unknown;

  constructor(code: number, message: string, data?: unknown) {
    super(message);
    this.code = code;
    this.data = data;
  }
}

export const INVALID_PARAMS = -32602;

export interface MethodContext {
  readonly ledger: Ledger;
  readonly mint: Address;
}

type Method = (context: MethodContext, params: readonly unknown[]) => unknown;

const address = z.string().transform((text, context) => {
  try {
    return parseAddress(text);
  } catch {
    context.addIssue({ code: 'custom', message: 'not an address' });
    return z.NEVER;
  }
});
const signature = z.string().min(64).max(90);
const options = z.looseObject({});
const encoding = z.enum(['base58', 'base64', 'jsonParsed']).default('base64');
const dataSlice = z.object({ offset: z.number().int().min(0), length: z.number().int().min(0) }).optional();
const memcmp = z.object({
  memcmp: z.object({
    offset: z.number().int().min(0),
    bytes: z.string().max(180),
    encoding: z.enum(['base58', 'base64']).optional(),
  }),
});
const filters = z
  .array(z.union([memcmp, z.object({ dataSize: z.number().int().min(0) })]))
  .max(4)
  .default([]);
const accountOptions = z.looseObject({ encoding, dataSlice }).default({ encoding: 'base64' });
const programOptions = z
  .looseObject({ encoding, dataSlice, filters, withContext: z.boolean().default(false) })
  .default({ encoding: 'base64', filters: [], withContext: false });
const wireOptions = z
  .looseObject({
    encoding: z.enum(['base58', 'base64']).default('base58'),
    skipPreflight: z.boolean().default(false),
    sigVerify: z.boolean().default(false),
    replaceRecentBlockhash: z.boolean().default(false),
  })
  .default({ encoding: 'base58', skipPreflight: false, sigVerify: false, replaceRecentBlockhash: false });

/** Checks positional parameters; missing ones at the end are undefined. */
function parse<T extends readonly z.ZodType[]>(
  params: readonly unknown[],
  ...shape: T
): { [K in keyof T]: z.output<T[K]> } {
  if (params.length > shape.length)
    throw new RpcError(INVALID_PARAMS, `at most ${shape.length} parameters, not ${params.length}`);
  return shape.map((type, index) => {
    const result = type.safeParse(params[index] ?? undefined);
    if (result.success) return result.data;
    throw new RpcError(INVALID_PARAMS, `parameter ${index + 1}: ${result.error.issues[0]?.message ?? 'invalid'}`);
  }) as { [K in keyof T]: z.output<T[K]> };
}

const withContext = (
  ledger: Ledger,
  value: unknown,
): { context: { slot: number; apiVersion: string }; value: unknown } => ({
  context: { slot: ledger.slot(), apiVersion: SOLANA_VERSION },
  value,
});

type Encoding = z.output<typeof encoding>;

/** An account as JSON. `jsonParsed` falls back to base64, as nodes do where they have no parser. */
export function encodeAccount(
  account: StoredAccount,
  as: Encoding,
  slice?: { readonly offset: number; readonly length: number },
): unknown {
  const data = Buffer.from(slice ? account.data.subarray(slice.offset, slice.offset + slice.length) : account.data);
  if (as === 'base58' && data.length > 128)
    throw new RpcError(INVALID_PARAMS, 'data over 128 bytes needs base64 encoding');
  return {
    data: as === 'base58' ? [base58btc.baseEncode(data), 'base58'] : [data.toString('base64'), 'base64'],
    executable: account.executable,
    lamports: Number(account.lamports),
    owner: account.owner,
    rentEpoch: Number(2n ** 64n - 1n),
    space: account.data.length,
  };
}

export type AccountFilter = z.output<typeof filters>[number];

/** True when the account's data passes every filter of getProgramAccounts. */
export function matches(account: StoredAccount, list: readonly AccountFilter[]): boolean {
  return list.every((filter) => {
    if ('dataSize' in filter) return account.data.length === filter.dataSize;
    const { offset, bytes, encoding: as } = filter.memcmp;
    const wanted = as === 'base64' ? Buffer.from(bytes, 'base64') : decodeBase58(bytes);
    return Buffer.from(account.data.subarray(offset, offset + wanted.length)).equals(wanted);
  });
}

function decodeBase58(text: string): Uint8Array {
  try {
    return base58btc.baseDecode(text);
  } catch {
    throw new RpcError(INVALID_PARAMS, 'not base58');
  }
}

function decodeWire(text: string, as: 'base58' | 'base64'): Uint8Array {
  const wire = as === 'base64' ? new Uint8Array(Buffer.from(text, 'base64')) : decodeBase58(text);
  if (wire.length > 1232)
    throw new RpcError(INVALID_PARAMS, `a transaction has at most 1232 bytes, not ${wire.length}`);
  return wire;
}

async function sendTransaction(ledger: Ledger, wire: Uint8Array, skipPreflight: boolean): Promise<string> {
  try {
    return (await ledger.execute(wire, !skipPreflight)).signature;
  } catch (error) {
    if (hasCode(error, 'protocol/malformed')) throw new RpcError(INVALID_PARAMS, error.message);
    if (!(error instanceof TransactionRefused)) throw error;
    if (error.err === 'SignatureFailure') throw new RpcError(-32003, 'Transaction signature verification failure');
    throw new RpcError(-32002, `Transaction simulation failed: ${error.message}`, {
      err: error.err,
      logs: error.simulation?.logs ?? [],
      unitsConsumed: error.simulation?.computeUnits ?? 0,
      accounts: null,
      returnData: null,
    });
  }
}

function tokenBalanceJson(ledger: Ledger, balance: TokenBalance): unknown {
  const { amount, ...rest } = balance;
  return { ...rest, programId: TOKEN_PROGRAM, uiTokenAmount: uiAmount(ledger, balance.mint, BigInt(amount)) };
}

function uiAmount(ledger: Ledger, mint: Address, amount: bigint): Readonly<Record<string, unknown>> {
  const decimals = ledger.account(mint)?.data[44] ?? 0;
  const digits = amount.toString().padStart(decimals + 1, '0');
  const whole = digits.slice(0, digits.length - decimals);
  const fraction = digits.slice(digits.length - decimals).replace(/0+$/, '');
  const text = fraction === '' ? whole : `${whole}.${fraction}`;
  return { amount: amount.toString(), decimals, uiAmount: Number(text), uiAmountString: text };
}

function transactionJson(ledger: Ledger, record: TransactionRecord, as: 'json' | 'base58' | 'base64'): unknown {
  const wire = Buffer.from(record.wire, 'base64');
  const transaction = parseTransaction(wire);
  const { message } = transaction;
  const json = {
    signatures: transaction.signatures.map((bytes) => base58btc.baseEncode(bytes)),
    message: {
      accountKeys: message.staticAccountKeys.map((key) => key.toBase58()),
      header: message.header,
      recentBlockhash: message.recentBlockhash,
      instructions: message.compiledInstructions.map((instruction) => ({
        programIdIndex: instruction.programIdIndex,
        accounts: instruction.accountKeyIndexes,
        data: base58btc.baseEncode(instruction.data),
        stackHeight: null,
      })),
      ...(message instanceof Message ? {} : { addressTableLookups: [] }),
    },
  };
  const encoded = as === 'base64' ? record.wire : base58btc.baseEncode(wire);
  return {
    slot: record.slot,
    blockTime: record.blockTime,
    version: message instanceof Message ? 'legacy' : 0,
    transaction: as === 'json' ? json : [encoded, as],
    meta: {
      err: record.err,
      status: record.err === null ? { Ok: null } : { Err: record.err },
      fee: record.fee,
      computeUnitsConsumed: record.computeUnits,
      logMessages: record.logs,
      preBalances: record.preBalances,
      postBalances: record.postBalances,
      preTokenBalances: record.preTokenBalances.map((balance) => tokenBalanceJson(ledger, balance)),
      postTokenBalances: record.postTokenBalances.map((balance) => tokenBalanceJson(ledger, balance)),
      innerInstructions: record.inner.flatMap((instructions, index) =>
        instructions.length > 0 ? [{ index, instructions }] : [],
      ),
      loadedAddresses: { readonly: [], writable: [] },
      rewards: [],
    },
  };
}

/** The confirmed status of a transaction as getSignatureStatuses and signatureSubscribe have it. */
function statusJson(record: TransactionRecord): unknown {
  return {
    slot: record.slot,
    confirmations: null,
    err: record.err,
    status: record.err === null ? { Ok: null } : { Err: record.err },
    confirmationStatus: 'finalized',
  };
}

/** Tokens and lamports from nowhere: a transfer and a mint by the faucet, in one transaction. */
export async function faucet(
  context: MethodContext,
  owner: Address,
  gift: { readonly lamports: bigint; readonly tokens: bigint },
): Promise<string> {
  const { ledger, mint } = context;
  const from = ledger.faucet;
  const account = tokenAddress(owner, mint);
  const transfer = SystemProgram.transfer({
    fromPubkey: new PublicKey(from.address),
    toPubkey: new PublicKey(owner),
    lamports: gift.lamports,
  });
  // Moves nothing, but makes every gift another transaction: equal ones in one slot would count as a repetition.
  const unique = SystemProgram.transfer({
    fromPubkey: new PublicKey(from.address),
    toPubkey: new PublicKey(from.address),
    lamports: ledger.transactionCount,
  });
  const draft = buildDraft(from.address, ledger.blockhash(), [
    unique,
    ...(gift.lamports > 0n ? [transfer] : []),
    ...(gift.tokens > 0n
      ? [
          createTokenAccount({ payer: from.address, account, owner, mint }),
          mintTokens(mint, account, from.address, baseUnits(gift.tokens)),
        ]
      : []),
  ]);
  return sendTransaction(ledger, wireTransaction(draft, [from.sign(draft.message)]), false);
}

const gift = z
  .union([z.number().int().min(0).max(Number.MAX_SAFE_INTEGER), z.string().regex(/^\d{1,19}$/)])
  .transform(BigInt);

async function signaturesForAddress({ ledger }: MethodContext, params: readonly unknown[]): Promise<unknown> {
  const page = z
    .looseObject({
      limit: z.number().int().min(1).max(1000).default(1000),
      before: signature.optional(),
      until: signature.optional(),
    })
    .default({ limit: 1000 });
  const [of, { limit, before, until }] = parse(params, address, page);
  const records = await ledger.signaturesFor(of, {
    limit,
    ...(before === undefined ? {} : { before }),
    ...(until === undefined ? {} : { until }),
  });
  return records.map((record) => ({
    signature: record.signature,
    slot: record.slot,
    err: record.err,
    memo: null,
    blockTime: record.blockTime,
    confirmationStatus: 'finalized',
  }));
}

function tokenAccountsByOwner({ ledger }: MethodContext, params: readonly unknown[]): unknown {
  const wanted = z.union([z.object({ mint: address }), z.object({ programId: address })]);
  const [owner, filter, { encoding: as, dataSlice: slice }] = parse(params, address, wanted, accountOptions);
  const list: AccountFilter[] = [{ dataSize: TOKEN_ACCOUNT_SIZE }, { memcmp: { offset: 32, bytes: owner } }];
  if ('mint' in filter) list.push({ memcmp: { offset: 0, bytes: filter.mint } });
  const found =
    'programId' in filter && filter.programId !== TOKEN_PROGRAM ? [] : ledger.programAccounts(TOKEN_PROGRAM);
  const value = found
    .filter(({ account }) => matches(account, list))
    .map(({ address: pubkey, account }) => ({ pubkey, account: encodeAccount(account, as, slice) }));
  return withContext(ledger, value);
}

function simulateTransaction({ ledger }: MethodContext, params: readonly unknown[]): unknown {
  const [text, { encoding: as, sigVerify, replaceRecentBlockhash }] = parse(params, z.string(), wireOptions);
  const wire = decodeWire(text, as);
  try {
    const { err, logs, computeUnits } = ledger.simulate(wire, {
      replaceBlockhash: replaceRecentBlockhash,
      verify: sigVerify,
    });
    return withContext(ledger, { err, logs, unitsConsumed: computeUnits, accounts: null, returnData: null });
  } catch (error) {
    if (hasCode(error, 'protocol/malformed')) throw new RpcError(INVALID_PARAMS, error.message);
    throw error;
  }
}

function feeForMessage({ ledger }: MethodContext, params: readonly unknown[]): unknown {
  const [text] = parse(params, z.string(), options.optional());
  const message = Buffer.from(text, 'base64');
  const count = (message[0] ?? 0) & 0x80 ? message[1] : message[0];
  if (count === undefined || count === 0) throw new RpcError(INVALID_PARAMS, 'not a message');
  // A fee is quoted only while the blockhash is good.
  const wire = Buffer.concat([Buffer.from([count]), Buffer.alloc(64 * count), message]);
  try {
    return withContext(
      ledger,
      ledger.isBlockhashValid(parseTransaction(wire).message.recentBlockhash) ? 5000 * count : null,
    );
  } catch {
    throw new RpcError(INVALID_PARAMS, 'not a message');
  }
}

/** Reading methods: run when all that was executed is on disk. */
export const READS: Readonly<Record<string, Method>> = {
  getHealth: () => 'ok',
  getVersion: () => ({ 'solana-core': SOLANA_VERSION, 'feature-set': 0 }),
  getGenesisHash: ({ ledger }) => ledger.genesis,
  getSlot: ({ ledger }) => ledger.slot(),
  getBlockHeight: ({ ledger }) => ledger.slot(),
  getFirstAvailableBlock: () => 0,
  getMinimumLedgerSlot: () => 0,
  getTransactionCount: ({ ledger }) => ledger.transactionCount,
  getEpochInfo: ({ ledger }) => ({
    absoluteSlot: ledger.slot(),
    blockHeight: ledger.slot(),
    epoch: Math.floor(ledger.slot() / 432_000),
    slotIndex: ledger.slot() % 432_000,
    slotsInEpoch: 432_000,
    transactionCount: ledger.transactionCount,
  }),
  getBlockTime: ({ ledger }, params) => {
    const [slot] = parse(params, z.number().int().min(0));
    return slot > ledger.slot() ? null : ledger.timeOf(slot);
  },
  getLatestBlockhash: ({ ledger }) =>
    withContext(ledger, { blockhash: ledger.blockhash(), lastValidBlockHeight: ledger.slot() + BLOCKHASH_SLOTS }),
  isBlockhashValid: ({ ledger }, params) => {
    const [hash] = parse(params, z.string(), options.optional());
    return withContext(ledger, ledger.isBlockhashValid(hash));
  },
  getFeeForMessage: feeForMessage,
  getMinimumBalanceForRentExemption: ({ ledger }, params) => {
    const [size] = parse(params, z.number().int().min(0).max(10_485_760), options.optional());
    return Number(ledger.minimumBalance(size));
  },
  getBalance: ({ ledger }, params) => {
    const [of] = parse(params, address, options.optional());
    return withContext(ledger, Number(ledger.account(of)?.lamports ?? 0n));
  },
  getAccountInfo: ({ ledger }, params) => {
    const [of, { encoding: as, dataSlice: slice }] = parse(params, address, accountOptions);
    const account = ledger.account(of);
    return withContext(ledger, account ? encodeAccount(account, as, slice) : null);
  },
  getMultipleAccounts: ({ ledger }, params) => {
    const [list, { encoding: as, dataSlice: slice }] = parse(params, z.array(address).max(100), accountOptions);
    const accounts = list.map((of) => ledger.account(of));
    return withContext(
      ledger,
      accounts.map((account) => (account ? encodeAccount(account, as, slice) : null)),
    );
  },
  getProgramAccounts: ({ ledger }, params) => {
    const [program, { encoding: as, dataSlice: slice, filters: list, withContext: wrapped }] = parse(
      params,
      address,
      programOptions,
    );
    const value = ledger
      .programAccounts(program)
      .filter(({ account }) => matches(account, list))
      .map(({ address: pubkey, account }) => ({ pubkey, account: encodeAccount(account, as, slice) }));
    return wrapped ? withContext(ledger, value) : value;
  },
  getTokenAccountBalance: ({ ledger }, params) => {
    const [of] = parse(params, address, options.optional());
    const account = ledger.account(of);
    if (account?.owner !== TOKEN_PROGRAM || account.data.length !== TOKEN_ACCOUNT_SIZE) {
      throw new RpcError(INVALID_PARAMS, 'could not find account, or it is not a token account');
    }
    const data = Buffer.from(account.data);
    return withContext(
      ledger,
      uiAmount(ledger, new PublicKey(data.subarray(0, 32)).toBase58() as Address, data.readBigUInt64LE(64)),
    );
  },
  getTokenAccountsByOwner: tokenAccountsByOwner,
  getTokenSupply: ({ ledger }, params) => {
    const [of] = parse(params, address, options.optional());
    const account = ledger.account(of);
    if (account?.owner !== TOKEN_PROGRAM || account.data.length !== 82)
      throw new RpcError(INVALID_PARAMS, 'not a mint');
    return withContext(ledger, uiAmount(ledger, of, Buffer.from(account.data).readBigUInt64LE(36)));
  },
  getSignatureStatuses: async ({ ledger }, params) => {
    const [list] = parse(params, z.array(signature).max(256), options.optional());
    const records = await Promise.all(list.map((one) => ledger.record(one)));
    return withContext(
      ledger,
      records.map((record) => (record ? statusJson(record) : null)),
    );
  },
  getTransaction: async ({ ledger }, params) => {
    const as = z.enum(['json', 'base58', 'base64']).default('json');
    const shape = z
      .union([as.transform((encoding) => ({ encoding })), z.looseObject({ encoding: as })])
      .default({ encoding: 'json' });
    const [one, { encoding: chosen }] = parse(params, signature, shape);
    const record = await ledger.record(one);
    return record ? transactionJson(ledger, record, chosen) : null;
  },
  getSignaturesForAddress: signaturesForAddress,
  simulateTransaction,
};

/** Methods that change the chain; they answer when the change is on disk. */
export const WRITES: Readonly<Record<string, Method>> = {
  sendTransaction: ({ ledger }, params) => {
    const [text, { encoding: as, skipPreflight }] = parse(params, z.string(), wireOptions);
    return sendTransaction(ledger, decodeWire(text, as), skipPreflight);
  },
  requestAirdrop: (context, params) => {
    const [owner, lamports] = parse(params, address, gift, options.optional());
    return faucet(context, owner, { lamports, tokens: 0n });
  },
  /** [owner, { lamports, tokens }?] → signature. Base units; default 10 SOL and 1,000 MOLT. */
  molt_faucet: async (context, params) => {
    const shape = z.object({ lamports: gift.optional(), tokens: gift.optional() }).default({});
    const [owner, { lamports = 10_000_000_000n, tokens = 1_000_000_000_000n }] = parse(params, address, shape);
    return { signature: await faucet(context, owner, { lamports, tokens }) };
  },
  /** [seconds] → slot and Unix time after the jump. Up to ten years, forward only, kept on disk. */
  molt_warp: async ({ ledger }, params) => {
    const [seconds] = parse(params, z.number().positive().max(315_360_000));
    await ledger.warp(seconds);
    return { slot: ledger.slot(), unixTimestamp: ledger.timeOf(ledger.slot()) };
  },
};
