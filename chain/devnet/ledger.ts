/**
 * The ledger of the local chain: one VM, its clock, and everything that happened, on disk.
 *
 * A transaction is executed at once; the accounts it changed and its record are then written in one synced batch, and
 * only after that is it visible to anybody: readers wait for the batch under way, and notifications follow it. So
 * whatever was reported survives SIGKILL. Batches that wait are written together.
 *
 * The clock follows the wall clock plus a warp that is kept on disk; a slot lasts 400 ms and is a block, with
 * transactions or without. Every slot has a blockhash of its own that nobody knows before, and it is good for 150 slots.
 */
import { createHash } from 'node:crypto';

import { base58btc } from 'multiformats/bases/base58';

import { encodeAddress, type Address } from '../../protocol/address.ts';
import { keyPairFromSeed, type KeyPair } from '../../protocol/ed25519.ts';
import type { Env } from '../../protocol/env.ts';
import { LOCAL_PROGRAM_ID } from '../instructions.ts';
import { TOKEN_ACCOUNT_SIZE, TOKEN_PROGRAM } from '../token.ts';
import { Store, type ClockState, type Meta, type TokenBalance, type TransactionRecord } from './store.ts';
import {
  addressOf,
  isWritable,
  loadAddresses,
  parseTransaction,
  type LoadedAddresses,
  type WireTransaction,
} from './transaction.ts';
import {
  SYSTEM_PROGRAM,
  Vm,
  type Executed,
  type LedgerError,
  type Outcome,
  type Simulated,
  type StoredAccount,
} from './vm.ts';

export const SLOT_MS = 400;
export const BLOCKHASH_SLOTS = 150;
/** Entries of the SlotHashes sysvar. */
const SLOT_HASHES = 512;
/** Lamports of the faucet: as many as JSON numbers hold exactly. */
const FAUCET_LAMPORTS = 9_000_000_000_000_000n;

export type ChangeListener = (record: TransactionRecord, changed: readonly Address[]) => void;

export interface LedgerOptions {
  readonly directory: string;
  /** The Molt program, installed at its local address. */
  readonly program: Uint8Array;
  /** Transactions kept; older ones are forgotten, accounts never. */
  readonly historyMax: number;
}

/** A refused transaction: nothing was executed, or (preflight) nothing kept. */
export class TransactionRefused extends Error {
  override readonly name = 'TransactionRefused';
  readonly err: LedgerError;
  readonly outcome: Outcome | undefined;

  constructor(err: LedgerError, outcome?: Outcome) {
    super(describe(err));
    this.err = err;
    this.outcome = outcome;
  }
}

/** The words of a Solana node for the errors that clients tell apart by text. */
export function describe(err: LedgerError): string {
  if (err === 'BlockhashNotFound') return 'Blockhash not found';
  if (err === 'AlreadyProcessed') return 'This transaction has already been processed';
  if (err === 'AccountNotFound') return 'Attempt to debit an account but found no record of a prior credit.';
  if (err === 'InsufficientFundsForFee') return 'Insufficient funds for fee';
  if (err === 'SignatureFailure') return 'Transaction did not pass signature verification';
  if (err === 'AccountLoadedTwice') return 'Account loaded twice';
  if (err === 'AddressLookupTableNotFound') return "Transaction loads an address table account that doesn't exist";
  if (typeof err === 'object' && Array.isArray(err['InstructionError'])) {
    const [index, detail] = err['InstructionError'] as [number, unknown];
    const custom =
      typeof detail === 'object' && detail !== null && 'Custom' in detail ? Number(detail.Custom) : undefined;
    const what = custom === undefined ? JSON.stringify(detail) : `custom program error: 0x${custom.toString(16)}`;
    return `Error processing Instruction ${index}: ${what}`;
  }
  if (typeof err === 'object' && 'InsufficientFundsForRent' in err)
    return 'Transaction results in an account with insufficient funds for rent';
  return typeof err === 'string' ? err : JSON.stringify(err);
}

export class Ledger implements AsyncDisposable {
  readonly genesis: Address;
  readonly faucet: KeyPair;
  readonly #env: Env;
  readonly #store: Store;
  readonly #vm = new Vm();
  readonly #bornMs: number;
  readonly #secret: Uint8Array;
  readonly #listeners = new Set<ChangeListener>();
  /** Signatures whose blockhash may still be good: a repetition is refused. */
  readonly #recent = new Map<string, number>();
  #clock: ClockState;
  #gifts = 0;
  /** The VM's clock stands at this slot; hashes of the slots before it, newest first. */
  #tickedAt = 0;
  #hashes: readonly { readonly slot: number; readonly hash: string }[] = [];
  #valid: ReadonlySet<string> = new Set();

  private constructor(env: Env, store: Store, opened: { readonly meta: Meta; readonly clock: ClockState }) {
    const { meta, clock } = opened;
    this.#env = env;
    this.#store = store;
    this.#clock = clock;
    this.#bornMs = meta.bornMs;
    this.genesis = meta.genesis;
    this.#secret = Buffer.from(meta.faucetSeed, 'hex');
    this.faucet = keyPairFromSeed(this.#secret);
  }

  /** Opens or starts the ledger in a folder. Throws `node/already-running` and `node/journal-corrupt`. */
  static async open(env: Env, { directory, program, historyMax }: LedgerOptions): Promise<Ledger> {
    const kept = { historyMax, slotsMin: SLOT_HASHES };
    const [store, meta] = await Store.open(directory, kept, () => ({
      genesis: encodeAddress(env.random.bytes(32)),
      // One slot is complete from the start.
      bornMs: env.clock.now() - SLOT_MS,
      faucetSeed: Buffer.from(env.random.bytes(32)).toString('hex'),
    }));
    const known = await store.clock();
    const ledger = new Ledger(env, store, { meta, clock: known ?? { warpMs: 0, slot: 0, sequence: 0 } });
    await ledger.#restore(program, known === undefined);
    return ledger;
  }

  async #restore(program: Uint8Array, isNew: boolean): Promise<void> {
    this.#vm.addProgram(LOCAL_PROGRAM_ID, program);
    if (isNew) {
      const faucet = { lamports: FAUCET_LAMPORTS, owner: SYSTEM_PROGRAM, executable: false, data: new Uint8Array() };
      this.#vm.setAccount(this.faucet.address, faucet);
      await this.#store.write({ clock: this.#clock, accounts: new Map([[this.faucet.address, faucet]]) });
    }
    this.#tick();
    const programs: [Address, StoredAccount][] = [];
    for await (const [address, account] of this.#store.accounts()) {
      // A program refers to the account with its code, which must be there first.
      if (account.executable) programs.push([address, account]);
      else this.#vm.setAccount(address, account);
    }
    for (const [address, account] of programs) this.#vm.setAccount(address, account);
    // Newest first, until their blockhashes cannot be good any more.
    for await (const record of this.#store.newestFirst()) {
      if (record.slot + BLOCKHASH_SLOTS + 1 < this.slot()) break;
      this.#recent.set(record.signature, record.slot);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#store[Symbol.asyncDispose]();
  }

  /** What is on disk: transactions by name, account and slot. */
  get history(): Pick<Store, 'record' | 'signaturesFor' | 'block' | 'firstSlot'> {
    return this.#store;
  }

  /** A number that no gift of this slot had. */
  nextGift(): number {
    this.#gifts = Math.max(this.#gifts + 1, this.#clock.sequence);
    return this.#gifts;
  }

  /** Transactions since the first start. */
  get transactionCount(): number {
    return this.#clock.sequence;
  }

  // Time

  slot(): number {
    const elapsed = this.#env.clock.now() - this.#bornMs + this.#clock.warpMs;
    const slot = Math.max(this.#clock.slot, 1 + Math.floor(elapsed / SLOT_MS));
    if (slot !== this.#clock.slot) this.#clock = { ...this.#clock, slot };
    return slot;
  }

  /** Unix seconds of a slot; with the slot it never goes back. */
  timeOf(slot: number): number {
    return Math.floor((this.#bornMs + (slot - 1) * SLOT_MS) / 1000);
  }

  #tick(): number {
    const slot = this.slot();
    if (slot === this.#tickedAt) return slot;
    const count = Math.min(SLOT_HASHES, slot);
    const known = new Map(this.#hashes.map((one) => [one.slot, one]));
    this.#hashes = Array.from({ length: count }, (_, index) => {
      const at = slot - 1 - index;
      return known.get(at) ?? { slot: at, hash: this.blockhash(at) };
    });
    const valid = this.#hashes.slice(0, BLOCKHASH_SLOTS).map(({ hash }) => hash);
    this.#valid = new Set([this.blockhash(slot), ...valid]);
    this.#vm.setTime(slot, this.timeOf(slot), this.#hashes);
    this.#tickedAt = slot;
    return slot;
  }

  /** Puts the clock forward, for good, by whole slots: the time of the slot is later by no less than `seconds`. */
  async warp(seconds: number): Promise<void> {
    await this.#store.turn();
    const slots = Math.ceil((seconds * 1000) / SLOT_MS);
    this.#clock = { ...this.#clock, warpMs: this.#clock.warpMs + slots * SLOT_MS };
    this.#tick();
    await this.#store.write({ clock: this.#clock });
  }

  blockhash(slot: number = this.slot()): string {
    const number = Buffer.alloc(8);
    number.writeBigUInt64LE(BigInt(slot));
    return base58btc.baseEncode(createHash('sha256').update(this.#secret).update(number).digest());
  }

  isBlockhashValid(hash: string): boolean {
    this.#tick();
    return this.#valid.has(hash);
  }

  // Accounts

  account(address: Address): StoredAccount | undefined {
    this.#tick();
    return this.#vm.account(address);
  }

  programAccounts(program: Address): { readonly address: Address; readonly account: StoredAccount }[] {
    return this.#vm.programAccounts(program);
  }

  minimumBalance(size: number): bigint {
    return this.#vm.minimumBalance(size);
  }

  // Transactions

  /** What would happen. With `replaceBlockhash`, any blockhash is taken; `verify` false skips the signatures. */
  simulate(
    wire: Uint8Array,
    options: { readonly replaceBlockhash?: boolean; readonly verify?: boolean } = {},
  ): Simulated {
    const transaction = parseTransaction(wire);
    const refused = this.#refusal(transaction, options.replaceBlockhash === true);
    if (refused !== undefined)
      return { err: refused, logs: [], computeUnits: 0, inner: [], returnData: null, after: new Map() };
    return this.#vm.simulate(transaction, options.verify !== false);
  }

  #refusal({ name, keys, blockhash }: WireTransaction, anyBlockhash: boolean): LedgerError | undefined {
    if (new Set(keys).size !== keys.length) return 'AccountLoadedTwice';
    if (this.#recent.has(name)) return 'AlreadyProcessed';
    return anyBlockhash || this.isBlockhashValid(blockhash) ? undefined : 'BlockhashNotFound';
  }

  /**
   * Executes and keeps. With `preflight`, a transaction that fails is refused and costs nothing; without, it is
   * recorded with its error and pays its fee, as on a cluster. Throws `TransactionRefused` and `protocol/malformed`.
   */
  async execute(wire: Uint8Array, preflight = true): Promise<TransactionRecord> {
    const transaction = parseTransaction(wire);
    await this.#store.turn();
    const refused = this.#refusal(transaction, false);
    if (refused !== undefined) throw new TransactionRefused(refused);
    const { record, changed } = this.#run(transaction, preflight);
    this.#recent.set(record.signature, record.slot);
    for (const [old, slot] of this.#recent) {
      if (slot + BLOCKHASH_SLOTS >= record.slot) break;
      this.#recent.delete(old);
    }
    const accounts = new Map(changed.map((address) => [address, this.#vm.account(address)]));
    await this.#store.write({ clock: this.#clock, record, accounts });
    for (const listener of this.#listeners) listener(record, changed);
    return record;
  }

  #run(transaction: WireTransaction, preflight: boolean): { record: TransactionRecord; changed: Address[] } {
    const slot = this.#tick();
    const loaded = loadAddresses(transaction, (table) => this.#vm.account(table)) ?? { writable: [], readonly: [] };
    const addresses = [...transaction.keys, ...loaded.writable, ...loaded.readonly];
    const before = addresses.map((address) => this.#vm.account(address));
    const executed = this.#vm.execute(transaction);
    const [payer] = addresses;
    const charged = payer !== undefined && this.#vm.account(payer)?.lamports !== before[0]?.lamports;
    // What fails before execution pays no fee and is in no block. Preflight runs once, too: of a transaction that fails
    // nothing remains but the fee, which is given back.
    if (executed.err !== null && (preflight || !charged)) {
      if (charged) this.#vm.setAccount(payer, before[0]);
      throw new TransactionRefused(executed.err, executed);
    }
    const after = addresses.map((address) => this.#vm.account(address));
    const sequence = this.#clock.sequence + 1;
    this.#clock = { ...this.#clock, sequence };
    const ran = { transaction, addresses, loaded, executed, before, after };
    return {
      record: { ...recordOf(ran), sequence, slot, blockTime: this.timeOf(slot) },
      changed: addresses.filter((_, index) => isWritable(transaction, index)),
    };
  }

  /** Called after a transaction is on disk, in order. */
  onChange(listener: ChangeListener): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }

  /** Runs `look` at a moment when everything executed so far is on disk. */
  settled<T>(look: () => T | Promise<T>): Promise<T> {
    return this.#store.settled(look);
  }
}

interface Ran {
  readonly transaction: WireTransaction;
  readonly addresses: readonly Address[];
  readonly loaded: LoadedAddresses;
  readonly executed: Executed;
  readonly before: readonly (StoredAccount | undefined)[];
  readonly after: readonly (StoredAccount | undefined)[];
}

function recordOf(ran: Ran): Omit<TransactionRecord, 'sequence' | 'slot' | 'blockTime'> {
  const { transaction, addresses, loaded, executed, before, after } = ran;
  return {
    signature: transaction.name,
    wire: Buffer.from(transaction.wire).toString('base64'),
    accounts: addresses,
    loaded: { writable: loaded.writable.length, readonly: loaded.readonly.length },
    err: executed.err,
    fee: executed.fee,
    computeUnits: executed.computeUnits,
    logs: executed.logs,
    preBalances: before.map((account) => Number(account?.lamports ?? 0n)),
    postBalances: after.map((account) => Number(account?.lamports ?? 0n)),
    preTokenBalances: tokenBalances(before),
    postTokenBalances: tokenBalances(after),
    inner: executed.inner,
    returnData: executed.returnData,
  };
}

function tokenBalances(accounts: readonly (StoredAccount | undefined)[]): TokenBalance[] {
  return accounts.flatMap((account, accountIndex) => {
    if (account?.owner !== TOKEN_PROGRAM || account.data.length !== TOKEN_ACCOUNT_SIZE) return [];
    const mint = addressOf(account.data.subarray(0, 32));
    const owner = addressOf(account.data.subarray(32, 64));
    return [{ accountIndex, mint, owner, amount: Buffer.from(account.data).readBigUInt64LE(64).toString() }];
  });
}
