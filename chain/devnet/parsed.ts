/**
 * The encoding `jsonParsed`: accounts and instructions of the well-known programs in words, as Solana nodes have them.
 *
 * What is not known here is given as a node gives it where it has no parser: base64 data, or accounts and base58 data.
 */
import { base58btc } from 'multiformats/bases/base58';

import type { Address } from '../../protocol/address.ts';
import { MoltError, hasCode } from '../../protocol/errors.ts';
import { ASSOCIATED_TOKEN_PROGRAM, MINT_SIZE, TOKEN_ACCOUNT_SIZE, TOKEN_PROGRAM } from '../token.ts';
import { addressOf } from './transaction.ts';
import { SYSTEM_PROGRAM, type StoredAccount } from './vm.ts';

const LOADER = 'BPFLoaderUpgradeab1e11111111111111111111111';
const MEMO = 'MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr';

/** Decimal text of an amount, and the numbers that wallets show. */
export function uiAmount(amount: bigint, decimals: number): Readonly<Record<string, unknown>> {
  const digits = amount.toString().padStart(decimals + 1, '0');
  const whole = digits.slice(0, digits.length - decimals);
  const fraction = digits.slice(digits.length - decimals).replace(/0+$/, '');
  const text = fraction === '' ? whole : `${whole}.${fraction}`;
  return { amount: amount.toString(), decimals, uiAmount: Number(text), uiAmountString: text };
}

/** Decimals of a mint; undefined where there is no such mint. */
export type DecimalsOf = (mint: Address) => number | undefined;

/** Bytes read one after the other. Throws `protocol/malformed` past the end. */
class Fields {
  readonly #bytes: Buffer;
  #at: number;

  constructor(bytes: Uint8Array, at = 0) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#at = at;
  }

  #take(length: number): Buffer {
    const start = this.#at;
    if (start + length > this.#bytes.length) throw new MoltError('protocol/malformed', 'the data ends too early');
    this.#at += length;
    return this.#bytes.subarray(start, this.#at);
  }

  u8(): number {
    return this.#take(1).readUInt8();
  }

  u32(): number {
    return this.#take(4).readUInt32LE();
  }

  u64(): bigint {
    return this.#take(8).readBigUInt64LE();
  }

  key(): Address {
    return addressOf(this.#take(32));
  }

  /** A length of 8 bytes, then so many. */
  bytes(): Buffer {
    return this.#take(Number(this.u64()));
  }

  /** One byte and a key if it is 1 (instructions of SPL Token). */
  maybeKey(): Address | undefined {
    return this.u8() === 1 ? this.key() : undefined;
  }

  /** Four bytes and a key that counts if they are 1 (accounts of SPL Token). */
  optionalKey(): Address | undefined {
    const present = this.u32() === 1;
    const key = this.key();
    return present ? key : undefined;
  }
}

/** Leaves out what is undefined. */
function present(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

// Accounts

/** `data` of an account as `jsonParsed` has it; undefined where there is no parser. */
export function parsedAccount(account: StoredAccount, decimalsOf: DecimalsOf): unknown {
  const { owner, data } = account;
  const space = data.length;
  if (owner === TOKEN_PROGRAM && space === TOKEN_ACCOUNT_SIZE && data[108] !== 0)
    return { program: 'spl-token', parsed: { type: 'account', info: tokenAccount(account, decimalsOf) }, space };
  if (owner === TOKEN_PROGRAM && space === MINT_SIZE && data[45] === 1)
    return { program: 'spl-token', parsed: { type: 'mint', info: mint(data) }, space };
  if (owner === LOADER && space >= 36 && new Fields(data).u32() === 2) {
    const info = { programData: new Fields(data, 4).key() };
    return { program: 'bpf-upgradeable-loader', parsed: { type: 'program', info }, space };
  }
  return undefined;
}

function tokenAccount({ data }: StoredAccount, decimalsOf: DecimalsOf): Record<string, unknown> {
  const fields = new Fields(data);
  const [mint, owner, amount, delegate] = [fields.key(), fields.key(), fields.u64(), fields.optionalKey()];
  const state = ['uninitialized', 'initialized', 'frozen'][fields.u8()] ?? 'uninitialized';
  const isNative = fields.u32() === 1;
  const rent = fields.u64();
  const delegated = fields.u64();
  const closeAuthority = fields.optionalKey();
  const decimals = decimalsOf(mint) ?? 0;
  return present({
    mint,
    owner,
    tokenAmount: uiAmount(amount, decimals),
    state,
    isNative,
    rentExemptReserve: isNative ? uiAmount(rent, decimals) : undefined,
    delegate,
    delegatedAmount: delegate === undefined ? undefined : uiAmount(delegated, decimals),
    closeAuthority,
  });
}

function mint(data: Uint8Array): Record<string, unknown> {
  const fields = new Fields(data);
  const mintAuthority = fields.optionalKey() ?? null;
  const supply = fields.u64().toString();
  const decimals = fields.u8();
  const isInitialized = fields.u8() === 1;
  return { mintAuthority, supply, decimals, isInitialized, freezeAuthority: fields.optionalKey() ?? null };
}

// Instructions

/** One instruction with its accounts by address. */
export interface NamedInstruction {
  readonly programId: Address;
  readonly accounts: readonly Address[];
  readonly data: Uint8Array;
  readonly stackHeight: number | null;
}

type Named = Readonly<Record<string, Address | undefined>>;
type Shape = readonly [
  type: string,
  accounts: readonly string[],
  data?: (fields: Fields) => Readonly<Record<string, unknown>>,
];

const amount = (fields: Fields): Record<string, unknown> => ({ amount: fields.u64().toString() });
const tokens: NonNullable<Shape[2]> = (fields) => {
  const value = fields.u64();
  return { tokenAmount: uiAmount(value, fields.u8()) };
};
const space = (fields: Fields): Record<string, unknown> => ({
  lamports: Number(fields.u64()),
  space: Number(fields.u64()),
  owner: fields.key(),
});
const newMint: NonNullable<Shape[2]> = (fields) => ({
  decimals: fields.u8(),
  mintAuthority: fields.key(),
  freezeAuthority: fields.maybeKey(),
});
const rent = 'rentSysvar';

const SYSTEM: Readonly<Record<number, Shape>> = {
  0: ['createAccount', ['source', 'newAccount'], space],
  1: ['assign', ['account'], (fields) => ({ owner: fields.key() })],
  2: ['transfer', ['source', 'destination'], (fields) => ({ lamports: Number(fields.u64()) })],
  3: [
    'createAccountWithSeed',
    ['source', 'newAccount'],
    (fields) => ({ base: fields.key(), seed: fields.bytes().toString('utf8'), ...space(fields) }),
  ],
  8: ['allocate', ['account'], (fields) => ({ space: Number(fields.u64()) })],
};

const TOKEN: Readonly<Record<number, Shape>> = {
  0: ['initializeMint', ['mint', rent], newMint],
  1: ['initializeAccount', ['account', 'mint', 'owner', rent]],
  3: ['transfer', ['source', 'destination', 'authority'], amount],
  4: ['approve', ['source', 'delegate', 'owner'], amount],
  5: ['revoke', ['source', 'owner']],
  7: ['mintTo', ['mint', 'account', 'mintAuthority'], amount],
  8: ['burn', ['account', 'mint', 'authority'], amount],
  9: ['closeAccount', ['account', 'destination', 'owner']],
  12: ['transferChecked', ['source', 'mint', 'destination', 'authority'], tokens],
  14: ['mintToChecked', ['mint', 'account', 'mintAuthority'], tokens],
  15: ['burnChecked', ['account', 'mint', 'authority'], tokens],
  16: ['initializeAccount2', ['account', 'mint', rent], (fields) => ({ owner: fields.key() })],
  17: ['syncNative', ['account']],
  18: ['initializeAccount3', ['account', 'mint'], (fields) => ({ owner: fields.key() })],
  20: ['initializeMint2', ['mint'], newMint],
  22: ['initializeImmutableOwner', ['account']],
};

const ASSOCIATED = ['source', 'account', 'wallet', 'mint', 'systemProgram', 'tokenProgram'];

const UPGRADEABLE: Readonly<Record<number, Shape>> = {
  0: ['initializeBuffer', ['account', 'authority']],
  1: [
    'write',
    ['account', 'authority'],
    (fields) => ({ offset: fields.u32(), bytes: fields.bytes().toString('base64') }),
  ],
  2: [
    'deployWithMaxDataLen',
    [
      'payerAccount',
      'programDataAccount',
      'programAccount',
      'bufferAccount',
      rent,
      'clockSysvar',
      'systemProgram',
      'authority',
    ],
    (fields) => ({ maxDataLen: Number(fields.u64()) }),
  ],
  3: [
    'upgrade',
    ['programDataAccount', 'programAccount', 'bufferAccount', 'spillAccount', rent, 'clockSysvar', 'authority'],
  ],
};

/** Program's name, and the shape that its data selects. */
function shapeOf({ programId, data }: NamedInstruction): readonly [string, Shape | undefined, Fields] | undefined {
  if (programId === SYSTEM_PROGRAM || programId === LOADER) {
    const fields = new Fields(data);
    const tag = data.length < 4 ? -1 : fields.u32();
    return programId === LOADER
      ? ['bpf-upgradeable-loader', UPGRADEABLE[tag], fields]
      : ['system', SYSTEM[tag], fields];
  }
  if (programId === TOKEN_PROGRAM) return ['spl-token', TOKEN[data[0] ?? -1], new Fields(data, 1)];
  if (programId !== ASSOCIATED_TOKEN_PROGRAM) return undefined;
  const type = ['create', 'createIdempotent'][data[0] ?? 0];
  return ['spl-associated-token-account', type === undefined ? undefined : [type, ASSOCIATED], new Fields(data, 1)];
}

/** An instruction in words where its program is known, else as accounts and base58 data. */
export function parsedInstruction(instruction: NamedInstruction): unknown {
  const { programId, accounts, data, stackHeight } = instruction;
  const raw = { accounts, data: base58btc.baseEncode(data), programId, stackHeight };
  if (programId === MEMO)
    return { program: 'spl-memo', programId, parsed: Buffer.from(data).toString('utf8'), stackHeight };
  const known = shapeOf(instruction);
  if (known?.[1] === undefined) return raw;
  const [program, [type, names, read], fields] = known;
  // More accounts than named are the signers of a multisignature: given raw, so that nothing is hidden.
  if (accounts.length < names.length || (programId === TOKEN_PROGRAM && accounts.length > names.length)) return raw;
  const named: Named = Object.fromEntries(names.map((name, index) => [name, accounts[index]]));
  try {
    const info = present({ ...named, ...read?.(fields) });
    return { program, programId, parsed: { type, info }, stackHeight };
  } catch (error) {
    if (hasCode(error, 'protocol/malformed')) return raw;
    throw error;
  }
}
