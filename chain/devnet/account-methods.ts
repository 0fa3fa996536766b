/** JSON-RPC methods that read accounts and tokens. */
import { base58btc } from 'multiformats/bases/base58';
import { z } from 'zod';

import type { Address } from '../../protocol/address.ts';
import { MINT_SIZE, TOKEN_ACCOUNT_SIZE, TOKEN_PROGRAM } from '../token.ts';
import type { Ledger } from './ledger.ts';
import { parsedAccount, uiAmount, type DecimalsOf } from './parsed.ts';
import {
  accountOptions,
  address,
  base,
  dataSlice,
  encoding,
  invalid,
  options,
  parse,
  slotNumber,
  u64,
  withContext,
  type MethodContext,
  type Methods,
} from './rpc.ts';
import { addressOf } from './transaction.ts';
import type { StoredAccount } from './vm.ts';

const ACCOUNTS_MAX = 100;
const LARGEST = 20;

const memcmp = z.object({
  memcmp: z.object({
    offset: slotNumber,
    bytes: z.string().max(180),
    encoding: z.enum(['base58', 'base64']).optional(),
  }),
});
export const filters = z
  .array(z.union([memcmp, z.object({ dataSize: slotNumber })]))
  .max(4)
  .default([]);
export type AccountFilter = z.output<typeof filters>[number];

const programOptions = z
  .looseObject({
    ...base,
    encoding: encoding.default('base64'),
    dataSlice,
    filters,
    withContext: z.boolean().default(false),
  })
  .default({ encoding: 'base64', filters: [], withContext: false });

export interface AccountForm {
  readonly encoding: z.output<typeof encoding>;
  readonly dataSlice?: z.output<typeof dataSlice>;
}

export const decimalsOf =
  (ledger: Ledger): DecimalsOf =>
  (mint) =>
    ledger.account(mint)?.data[44];

/** An account as JSON. `jsonParsed` falls back to base64, as nodes do where they have no parser. */
export function encodeAccount(ledger: Ledger, account: StoredAccount, form: AccountForm): unknown {
  const { encoding: as, dataSlice: slice } = form;
  const data = Buffer.from(slice ? account.data.subarray(slice.offset, slice.offset + slice.length) : account.data);
  if (as === 'base58' && data.length > 128)
    throw invalid('Encoded binary (base 58) data should be less than 128 bytes, please use Base64 encoding.');
  const parsed = as === 'jsonParsed' ? parsedAccount(account, decimalsOf(ledger)) : undefined;
  return {
    data: parsed ?? (as === 'base58' ? [base58btc.baseEncode(data), 'base58'] : [data.toString('base64'), 'base64']),
    executable: account.executable,
    lamports: u64(account.lamports),
    owner: account.owner,
    rentEpoch: u64(2n ** 64n - 1n),
    space: account.data.length,
  };
}

/** True when the account's data passes every filter of getProgramAccounts. */
export function matches(account: StoredAccount, list: readonly AccountFilter[]): boolean {
  return list.every((filter) => {
    if ('dataSize' in filter) return account.data.length === filter.dataSize;
    const { offset, bytes, encoding: as } = filter.memcmp;
    const wanted = as === 'base64' ? Buffer.from(bytes, 'base64') : decodeBase58(bytes);
    return Buffer.from(account.data.subarray(offset, offset + wanted.length)).equals(wanted);
  });
}

export function decodeBase58(text: string): Uint8Array {
  try {
    return base58btc.baseDecode(text);
  } catch {
    throw invalid('invalid base58 encoding');
  }
}

function isToken(account: StoredAccount | undefined, size: number): account is StoredAccount {
  return account?.owner === TOKEN_PROGRAM && account.data.length === size;
}

const amountAt = (account: StoredAccount, offset: number): bigint => Buffer.from(account.data).readBigUInt64LE(offset);

function list(
  { ledger }: MethodContext,
  program: Address,
  wanted: readonly AccountFilter[],
  form: AccountForm,
): readonly { pubkey: Address; account: unknown }[] {
  return ledger
    .programAccounts(program)
    .filter(({ account }) => matches(account, wanted))
    .map(({ address: pubkey, account }) => ({ pubkey, account: encodeAccount(ledger, account, form) }));
}

/** Token accounts whose key at `offset` is the one named. */
function tokenAccounts(context: MethodContext, params: readonly unknown[], offset: number): unknown {
  const wanted = z.union([z.object({ mint: address }), z.object({ programId: address })]);
  const [owner, filter, form] = parse(params, address, wanted, accountOptions);
  const filtered: AccountFilter[] = [{ dataSize: TOKEN_ACCOUNT_SIZE }, { memcmp: { offset, bytes: owner } }];
  // The delegate is an optional key: one in four bytes says that it is there.
  if (offset === 76) filtered.push({ memcmp: { offset: 72, bytes: base58btc.baseEncode(Uint8Array.of(1, 0, 0, 0)) } });
  if ('mint' in filter) filtered.push({ memcmp: { offset: 0, bytes: filter.mint } });
  const isOther = 'programId' in filter && filter.programId !== TOKEN_PROGRAM;
  return withContext(context.ledger, isOther ? [] : list(context, TOKEN_PROGRAM, filtered, form));
}

export const ACCOUNT_METHODS: Methods = {
  getBalance: ({ ledger }, params) => {
    const [of] = parse(params, address, options);
    return withContext(ledger, u64(ledger.account(of)?.lamports ?? 0n));
  },
  getAccountInfo: ({ ledger }, params) => {
    const [of, form] = parse(params, address, accountOptions);
    const account = ledger.account(of);
    return withContext(ledger, account ? encodeAccount(ledger, account, form) : null);
  },
  getMultipleAccounts: ({ ledger }, params) => {
    const many = z.array(address).max(ACCOUNTS_MAX, `Too many inputs provided; max ${ACCOUNTS_MAX}`);
    const [wanted, form] = parse(params, many, accountOptions);
    const accounts = wanted.map((of) => ledger.account(of));
    return withContext(
      ledger,
      accounts.map((account) => (account ? encodeAccount(ledger, account, form) : null)),
    );
  },
  getProgramAccounts: (context, params) => {
    const [program, form] = parse(params, address, programOptions);
    const found = list(context, program, form.filters, form);
    return form.withContext ? withContext(context.ledger, found) : found;
  },
  getTokenAccountBalance: ({ ledger }, params) => {
    const [of] = parse(params, address, options);
    const account = ledger.account(of);
    if (account === undefined) throw invalid('Invalid param: could not find account');
    if (!isToken(account, TOKEN_ACCOUNT_SIZE)) throw invalid('Invalid param: not a Token account');
    const decimals = decimalsOf(ledger)(addressOf(account.data.subarray(0, 32))) ?? 0;
    return withContext(ledger, uiAmount(amountAt(account, 64), decimals));
  },
  getTokenAccountsByOwner: (context, params) => tokenAccounts(context, params, 32),
  getTokenAccountsByDelegate: (context, params) => tokenAccounts(context, params, 76),
  getTokenSupply: ({ ledger }, params) => {
    const [of] = parse(params, address, options);
    const account = ledger.account(of);
    if (account === undefined) throw invalid('Invalid param: could not find mint');
    if (!isToken(account, MINT_SIZE)) throw invalid('Invalid param: not a Token mint');
    return withContext(ledger, uiAmount(amountAt(account, 36), account.data[44] ?? 0));
  },
  getTokenLargestAccounts: ({ ledger }, params) => {
    const [of] = parse(params, address, options);
    const mint = ledger.account(of);
    if (!isToken(mint, MINT_SIZE)) throw invalid('Invalid param: not a Token mint');
    const found = ledger
      .programAccounts(TOKEN_PROGRAM)
      .filter(({ account }) =>
        matches(account, [{ dataSize: TOKEN_ACCOUNT_SIZE }, { memcmp: { offset: 0, bytes: of } }]),
      )
      .map((one) => ({ address: one.address, amount: amountAt(one.account, 64) }))
      .sort((a, b) => (a.amount < b.amount ? 1 : -1))
      .slice(0, LARGEST);
    return withContext(
      ledger,
      found.map((one) => ({ address: one.address, ...uiAmount(one.amount, mint.data[44] ?? 0) })),
    );
  },
  getMinimumBalanceForRentExemption: ({ ledger }, params) => {
    const [size] = parse(params, slotNumber.max(10_485_760), options);
    return Number(ledger.minimumBalance(size));
  },
};
