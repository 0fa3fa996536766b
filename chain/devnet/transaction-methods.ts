/** JSON-RPC methods about transactions and blocks: sending, simulating, and reading what happened. */
import { PublicKey, SystemProgram } from '@solana/web3.js';
import { base58btc } from 'multiformats/bases/base58';
import { z } from 'zod';

import type { Address } from '../../protocol/address.ts';
import { hasCode } from '../../protocol/errors.ts';
import { baseUnits } from '../../protocol/units.ts';
import { tokenAddress } from '../addresses.ts';
import { callSetVerifier } from '../calls.ts';
import { LOCAL_PROGRAM_ID, buildDraft, wireTransaction } from '../instructions.ts';
import { TOKEN_PROGRAM, createTokenAccount, mintTokens } from '../token.ts';
import { decimalsOf, decodeBase58, encodeAccount } from './account-methods.ts';
import { TransactionRefused, type Ledger } from './ledger.ts';
import { parsedInstruction, uiAmount } from './parsed.ts';
import {
  CODES,
  RpcError,
  address,
  base,
  commitment,
  encoding,
  invalid,
  options,
  parse,
  signature,
  slotNumber,
  withContext,
  type MethodContext,
  type Methods,
} from './rpc.ts';
import type { TokenBalance, TransactionRecord } from './store.ts';
import { WIRE_BYTES_MAX, isWritable, parseTransaction, type WireTransaction } from './transaction.ts';
import type { Outcome } from './vm.ts';

const SIGNATURES_MAX = 256;
const BLOCKS_MAX = 500_000;

const wireOptions = z
  .looseObject({
    ...base,
    encoding: z.enum(['base58', 'base64']).default('base58'),
    skipPreflight: z.boolean().default(false),
    sigVerify: z.boolean().default(false),
    replaceRecentBlockhash: z.boolean().default(false),
    innerInstructions: z.boolean().default(false),
    accounts: z.object({ encoding: encoding.default('base64'), addresses: z.array(address).max(100) }).nullish(),
  })
  .prefault({});
const transactionEncoding = z.enum(['json', 'jsonParsed', 'base58', 'base64']);
type TransactionEncoding = z.output<typeof transactionEncoding>;
/** Old clients give the encoding alone. */
const form = z.preprocess(
  (given) => (typeof given === 'string' ? { encoding: given } : (given ?? {})),
  z.looseObject({
    commitment,
    encoding: transactionEncoding.default('json'),
    maxSupportedTransactionVersion: slotNumber.optional(),
    transactionDetails: z.enum(['full', 'accounts', 'signatures', 'none']).default('full'),
    rewards: z.boolean().default(true),
  }),
);
type Form = z.output<typeof form>;

// Sending

/** The length is looked at first: decoding base58 takes time with the square of it. */
function decodeWire(text: string, as: 'base58' | 'base64'): Uint8Array {
  const most = as === 'base64' ? 1_644 : 1_683;
  if (text.length > most)
    throw invalid(
      `${as} encoded transaction too large: ${text.length} bytes (max: encoded/raw ${most}/${WIRE_BYTES_MAX})`,
    );
  if (as === 'base64' && !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) throw invalid('invalid base64 encoding');
  return as === 'base64' ? new Uint8Array(Buffer.from(text, 'base64')) : decodeBase58(text);
}

/** The transaction's name, once it is on disk. Without preflight, what is refused is dropped silently, as nodes do. */
async function send(ledger: Ledger, wire: Uint8Array, skipPreflight: boolean): Promise<string> {
  try {
    return (await ledger.execute(wire, !skipPreflight)).signature;
  } catch (error) {
    if (hasCode(error, 'protocol/malformed')) throw invalid(`failed to deserialize transaction: ${error.message}`);
    if (!(error instanceof TransactionRefused)) throw error;
    if (skipPreflight) return parseTransaction(wire).name;
    if (error.err === 'SignatureFailure')
      throw new RpcError(CODES.signatureFailure, 'Transaction signature verification failure');
    throw new RpcError(CODES.preflightFailure, `Transaction simulation failed: ${error.message}`, {
      err: error.err,
      logs: error.outcome?.logs ?? [],
      unitsConsumed: error.outcome?.computeUnits ?? 0,
      accounts: null,
      innerInstructions: null,
      returnData: returnDataJson(error.outcome?.returnData ?? null),
    });
  }
}

function returnDataJson(returned: Outcome['returnData']): unknown {
  return returned && { programId: returned.programId, data: [returned.data, 'base64'] };
}

/** Tokens and lamports from nowhere: a transfer and a mint by the faucet, in one transaction. */
async function faucet(
  context: MethodContext,
  owner: Address,
  gift: { readonly lamports: bigint; readonly tokens: bigint },
): Promise<string> {
  const { ledger, mint } = context;
  const from = ledger.faucet;
  const account = tokenAddress(owner, mint);
  const transfer = (to: Address, lamports: number | bigint): ReturnType<typeof SystemProgram.transfer> =>
    SystemProgram.transfer({ fromPubkey: new PublicKey(from.address), toPubkey: new PublicKey(to), lamports });
  const draft = buildDraft(from.address, ledger.blockhash(), [
    // Moves nothing, but makes every gift another transaction: equal ones in one slot would count as a repetition.
    transfer(from.address, ledger.nextGift()),
    ...(gift.lamports > 0n ? [transfer(owner, gift.lamports)] : []),
    ...(gift.tokens > 0n
      ? [
          createTokenAccount({ payer: from.address, account, owner, mint }),
          mintTokens(mint, account, from.address, baseUnits(gift.tokens)),
        ]
      : []),
  ]);
  return send(ledger, wireTransaction(draft, [from.sign(draft.message)]), false);
}

const gift = z
  .union([z.number().int().min(0).max(Number.MAX_SAFE_INTEGER), z.string().regex(/^\d{1,19}$/)])
  .transform(BigInt);

function simulate({ ledger }: MethodContext, params: readonly unknown[]): unknown {
  const [text, given] = parse(params, z.string(), wireOptions);
  const { sigVerify, replaceRecentBlockhash, accounts, innerInstructions } = given;
  if (sigVerify && replaceRecentBlockhash) throw invalid('sigVerify may not be used with replaceRecentBlockhash');
  const wire = decodeWire(text, given.encoding);
  try {
    const done = ledger.simulate(wire, { replaceBlockhash: replaceRecentBlockhash, verify: sigVerify });
    if (done.err === 'SignatureFailure')
      throw new RpcError(CODES.signatureFailure, 'Transaction signature verification failure');
    const { err, logs, computeUnits, inner, after, returnData } = done;
    const slot = ledger.slot();
    return withContext(ledger, {
      err,
      logs,
      unitsConsumed: computeUnits,
      accounts:
        accounts?.addresses.map((of) => {
          const account = after.get(of) ?? ledger.account(of);
          return account && account.lamports > 0n
            ? encodeAccount(ledger, account, { encoding: accounts.encoding })
            : null;
        }) ?? null,
      innerInstructions: innerInstructions ? innerJson(inner) : null,
      returnData: returnDataJson(returnData),
      ...(replaceRecentBlockhash
        ? { replacementBlockhash: { blockhash: ledger.blockhash(slot), lastValidBlockHeight: slot + 150 } }
        : {}),
    });
  } catch (error) {
    if (hasCode(error, 'protocol/malformed')) throw invalid(`failed to deserialize transaction: ${error.message}`);
    throw error;
  }
}

// Reading

function innerJson(inner: TransactionRecord['inner']): unknown[] {
  return inner.flatMap((instructions, index) => (instructions.length > 0 ? [{ index, instructions }] : []));
}

function tokenBalanceJson(ledger: Ledger, balance: TokenBalance): unknown {
  const { amount, ...rest } = balance;
  const decimals = decimalsOf(ledger)(balance.mint) ?? 0;
  return { ...rest, programId: TOKEN_PROGRAM, uiTokenAmount: uiAmount(BigInt(amount), decimals) };
}

/** Every account of a transaction as the parsed encodings list them. */
function accountsJson(transaction: WireTransaction, { accounts }: TransactionRecord): unknown[] {
  return accounts.map((pubkey, index) => ({
    pubkey,
    signer: index < transaction.header.numRequiredSignatures,
    writable: isWritable(transaction, index),
    source: index < transaction.keys.length ? 'transaction' : 'lookupTable',
  }));
}

function lookupsJson({ version, lookups }: WireTransaction): object {
  if (version === 'legacy') return {};
  return {
    addressTableLookups: lookups.map(({ table, writable, readonly }) => ({
      accountKey: table,
      writableIndexes: writable,
      readonlyIndexes: readonly,
    })),
  };
}

function rawMessage(transaction: WireTransaction): object {
  const { keys, header, blockhash, instructions } = transaction;
  return {
    accountKeys: keys,
    header: {
      numRequiredSignatures: header.numRequiredSignatures,
      numReadonlySignedAccounts: header.numReadonlySignedAccounts,
      numReadonlyUnsignedAccounts: header.numReadonlyUnsignedAccounts,
    },
    recentBlockhash: blockhash,
    instructions: instructions.map(({ programIdIndex, accounts, data }) => ({
      programIdIndex,
      accounts,
      data: base58btc.baseEncode(data),
      stackHeight: 1,
    })),
    ...lookupsJson(transaction),
  };
}

interface Call {
  readonly programIdIndex: number;
  readonly accounts: readonly number[];
  readonly data: Uint8Array;
}

function parsedCall(record: TransactionRecord, call: Call, stackHeight: number): unknown {
  const named = (index: number): Address => record.accounts[index] ?? ('' as Address);
  const { programIdIndex, accounts, data } = call;
  return parsedInstruction({ programId: named(programIdIndex), accounts: accounts.map(named), data, stackHeight });
}

function parsedMessage(transaction: WireTransaction, record: TransactionRecord): object {
  return {
    accountKeys: accountsJson(transaction, record),
    recentBlockhash: transaction.blockhash,
    instructions: transaction.instructions.map((call) => parsedCall(record, call, 1)),
    ...lookupsJson(transaction),
  };
}

function transactionBody(transaction: WireTransaction, record: TransactionRecord, as: TransactionEncoding): unknown {
  if (as === 'base64') return [record.wire, as];
  if (as === 'base58') return [base58btc.baseEncode(transaction.wire), as];
  const signatures = transaction.signatures.map((bytes) => base58btc.baseEncode(bytes));
  return { signatures, message: as === 'jsonParsed' ? parsedMessage(transaction, record) : rawMessage(transaction) };
}

function metaJson(ledger: Ledger, record: TransactionRecord, as: TransactionEncoding): object {
  const { accounts, loaded, inner } = record;
  const first = accounts.length - loaded.writable - loaded.readonly;
  const parsedInner = inner.map((calls) =>
    calls.map((call) => parsedCall(record, { ...call, data: base58btc.baseDecode(call.data) }, call.stackHeight)),
  );
  return {
    err: record.err,
    status: record.err === null ? { Ok: null } : { Err: record.err },
    fee: record.fee,
    computeUnitsConsumed: record.computeUnits,
    logMessages: record.logs,
    preBalances: record.preBalances,
    postBalances: record.postBalances,
    preTokenBalances: record.preTokenBalances.map((balance) => tokenBalanceJson(ledger, balance)),
    postTokenBalances: record.postTokenBalances.map((balance) => tokenBalanceJson(ledger, balance)),
    innerInstructions:
      as === 'jsonParsed'
        ? parsedInner.flatMap((instructions, index) => (instructions.length > 0 ? [{ index, instructions }] : []))
        : innerJson(inner),
    // In the parsed form they stand among the accounts.
    ...(as === 'jsonParsed'
      ? {}
      : {
          loadedAddresses: {
            writable: accounts.slice(first, first + loaded.writable),
            readonly: accounts.slice(first + loaded.writable),
          },
        }),
    ...(record.returnData ? { returnData: returnDataJson(record.returnData) } : {}),
    rewards: [],
  };
}

/** One transaction as getTransaction and getBlock give it. */
function transactionJson(ledger: Ledger, record: TransactionRecord, given: Form): object {
  const transaction = parseTransaction(Buffer.from(record.wire, 'base64'));
  const { maxSupportedTransactionVersion: newest, encoding: as } = given;
  if (transaction.version !== 'legacy' && newest === undefined) {
    throw new RpcError(
      CODES.unsupportedVersion,
      'Transaction version (0) is not supported by the requesting client. Please try the request again with the following configuration parameter: "maxSupportedTransactionVersion": 0',
    );
  }
  const version = newest === undefined ? {} : { version: transaction.version };
  if (given.transactionDetails === 'accounts') {
    const { err, status, fee, preBalances, postBalances, preTokenBalances, postTokenBalances } = metaJson(
      ledger,
      record,
      as,
    ) as Record<string, unknown>;
    const signatures = transaction.signatures.map((bytes) => base58btc.baseEncode(bytes));
    return {
      transaction: { signatures, accountKeys: accountsJson(transaction, record) },
      meta: { err, status, fee, preBalances, postBalances, preTokenBalances, postTokenBalances },
      ...version,
    };
  }
  return { transaction: transactionBody(transaction, record, as), meta: metaJson(ledger, record, as), ...version };
}

async function getBlock({ ledger }: MethodContext, params: readonly unknown[]): Promise<unknown> {
  const [slot, given] = parse(params, slotNumber, form);
  if (slot >= ledger.slot()) throw new RpcError(CODES.blockNotAvailable, `Block not available for slot ${slot}`);
  const first = await ledger.history.firstSlot();
  if (slot < first) {
    throw new RpcError(
      CODES.blockCleanedUp,
      `Block ${slot} cleaned up, does not exist on node. First available block: ${first}`,
    );
  }
  const { transactionDetails: details, rewards } = given;
  const records = details === 'none' ? [] : await ledger.history.block(slot);
  return {
    blockhash: ledger.blockhash(slot),
    previousBlockhash: ledger.blockhash(Math.max(0, slot - 1)),
    parentSlot: Math.max(0, slot - 1),
    blockHeight: slot,
    blockTime: ledger.timeOf(slot),
    ...(rewards ? { rewards: [] } : {}),
    ...(details === 'signatures' ? { signatures: records.map((record) => record.signature) } : {}),
    ...(details === 'full' || details === 'accounts'
      ? { transactions: records.map((record) => transactionJson(ledger, record, given)) }
      : {}),
  };
}

/** The status of a transaction as getSignatureStatuses has it. */
function statusJson(record: TransactionRecord): unknown {
  return {
    slot: record.slot,
    confirmations: null,
    err: record.err,
    status: record.err === null ? { Ok: null } : { Err: record.err },
    confirmationStatus: 'finalized',
  };
}

async function signaturesForAddress({ ledger }: MethodContext, params: readonly unknown[]): Promise<unknown> {
  const page = z
    .looseObject({
      ...base,
      limit: slotNumber.min(1).max(1000).default(1000),
      before: signature.optional(),
      until: signature.optional(),
    })
    .prefault({});
  const [of, { limit, before, until }] = parse(params, address, page);
  const records = await ledger.history.signaturesFor(of, { limit, before, until });
  return records.map((record) => ({
    signature: record.signature,
    slot: record.slot,
    err: record.err,
    memo: null,
    blockTime: record.blockTime,
    confirmationStatus: 'finalized',
  }));
}

/** Complete slots from `first` to `end`. */
async function slots(ledger: Ledger, first: number, end: number): Promise<number[]> {
  if (end - first > BLOCKS_MAX) throw invalid(`Slot range too large; max ${BLOCKS_MAX}`);
  const last = Math.min(end, ledger.slot() - 1);
  const from = Math.max(first, await ledger.history.firstSlot());
  return Array.from({ length: Math.max(0, last - from + 1) }, (_, index) => from + index);
}

export const TRANSACTION_READS: Methods = {
  getSignatureStatuses: async ({ ledger }, params) => {
    const many = z.array(signature).max(SIGNATURES_MAX, `Too many inputs provided; max ${SIGNATURES_MAX}`);
    const [list] = parse(params, many, options);
    const records = await Promise.all(list.map((one) => ledger.history.record(one)));
    return withContext(
      ledger,
      records.map((record) => (record ? statusJson(record) : null)),
    );
  },
  getTransaction: async ({ ledger }, params) => {
    const [one, given] = parse(params, signature, form);
    const record = await ledger.history.record(one);
    if (!record) return null;
    const whole = transactionJson(ledger, record, { ...given, transactionDetails: 'full' });
    return { slot: record.slot, blockTime: record.blockTime, ...whole };
  },
  getSignaturesForAddress: signaturesForAddress,
  getBlock,
  getBlocks: ({ ledger }, params) => {
    const last = z.union([slotNumber, z.looseObject(base)]).optional();
    const [first, end] = parse(params, slotNumber, last, options);
    return slots(ledger, first, typeof end === 'number' ? end : ledger.slot() - 1);
  },
  getBlocksWithLimit: ({ ledger }, params) => {
    const [first, limit] = parse(params, slotNumber, slotNumber.max(BLOCKS_MAX), options);
    return slots(ledger, first, first + limit - 1);
  },
  getBlockCommitment: ({ ledger }, params) => {
    const [slot] = parse(params, slotNumber);
    return { commitment: slot < ledger.slot() ? Array.from({ length: 32 }, () => 0) : null, totalStake: 0 };
  },
  simulateTransaction: simulate,
};

/** Methods that change the chain; they answer when the change is on disk. */
export const WRITES: Methods = {
  sendTransaction: ({ ledger }, params) => {
    const [text, given] = parse(params, z.string(), wireOptions);
    return send(ledger, decodeWire(text, given.encoding), given.skipPreflight);
  },
  requestAirdrop: (context, params) => {
    const [owner, lamports] = parse(params, address, gift, options);
    return faucet(context, owner, { lamports, tokens: 0n });
  },
  /** [owner, { lamports, tokens }?] → signature. Base units; default 10 SOL and 1,000 MOLT. */
  molt_faucet: async (context, params) => {
    const shape = z.object({ lamports: gift.optional(), tokens: gift.optional() }).default({});
    const [owner, { lamports = 10_000_000_000n, tokens = 1_000_000_000_000n }] = parse(params, address, shape);
    return { signature: await faucet(context, owner, { lamports, tokens }) };
  },
  /**
   * [owner, blockhash] → what the market's authority, here the faucet, signs to take the owner's provider into the list of
   * verifiers: its address, and its signature in base58 under the transaction that `draftAdmitVerifier` makes.
   */
  molt_admitVerifier: ({ ledger, mint }, params) => {
    const [owner, blockhash] = parse(params, address, address);
    const { faucet: authority } = ledger;
    const people = { authority: authority.address, owner };
    const call = callSetVerifier({ programId: LOCAL_PROGRAM_ID, mint }, people, true, [authority.address, owner]);
    const { message } = buildDraft(owner, blockhash, [call]);
    return { authority: authority.address, signature: base58btc.baseEncode(authority.sign(message)) };
  },
  /** [seconds] → slot and Unix time after the jump. Up to ten years, forward only, kept on disk. */
  molt_warp: async ({ ledger }, params) => {
    const [seconds] = parse(params, z.number().positive().max(315_360_000));
    await ledger.warp(seconds);
    return { slot: ledger.slot(), unixTimestamp: ledger.timeOf(ledger.slot()) };
  },
};
