/**
 * The ledger of the local chain: one LiteSVM, its clock, and everything that happened, on disk.
 *
 * A transaction is executed at once; the accounts it changed and its record are then written in one synced batch, and
 * only after that is it visible to anybody: readers wait for the batch under way, and notifications follow it. So
 * whatever was reported survives SIGKILL. Batches that wait are written together.
 *
 * The clock follows the wall clock plus a warp that is kept on disk; a slot lasts 400 ms, every slot has a blockhash of
 * its own, derived from the genesis hash, and a blockhash is good for 150 slots.
 */
import { createHash } from 'node:crypto';
import { chmod, mkdir } from 'node:fs/promises';

import { VersionedTransaction } from '@solana/web3.js';
import { Level } from 'level';
import { FailedTransactionMetadata, LiteSVM, type TransactionMetadata } from 'litesvm';
import { base58btc } from 'multiformats/bases/base58';

import { decodeAddress, encodeAddress, type Address } from '../../protocol/address.ts';
import { keyPairFromSeed, type KeyPair } from '../../protocol/ed25519.ts';
import type { Env } from '../../protocol/env.ts';
import { MoltError, assert } from '../../protocol/errors.ts';
import { LOCAL_PROGRAM_ID } from '../instructions.ts';
import { TOKEN_ACCOUNT_SIZE, TOKEN_PROGRAM } from '../token.ts';

export const SLOT_MS = 400;
export const BLOCKHASH_SLOTS = 150;
/** Lamports of the faucet: as many as JSON numbers hold exactly. */
const FAUCET_LAMPORTS = 9_000_000_000_000_000n;

export interface StoredAccount {
  readonly lamports: bigint;
  readonly owner: Address;
  readonly executable: boolean;
  readonly data: Uint8Array;
}

/** An error as Solana's JSON has it: a name, or a name with its details. */
export type LedgerError = string | Readonly<Record<string, unknown>>;

export interface TokenBalance {
  readonly accountIndex: number;
  readonly mint: Address;
  readonly owner: Address;
  readonly amount: string;
}

export interface InnerInstruction {
  readonly programIdIndex: number;
  readonly accounts: readonly number[];
  /** Base58. */
  readonly data: string;
  readonly stackHeight: number;
}

/** What happened in one transaction. `sequence` orders all transactions of the ledger. */
export interface TransactionRecord {
  readonly signature: string;
  readonly sequence: number;
  readonly slot: number;
  readonly blockTime: number;
  /** Base64 of the wire form. */
  readonly wire: string;
  /** All accounts that the transaction names. */
  readonly accounts: readonly Address[];
  readonly err: LedgerError | null;
  readonly fee: number;
  readonly computeUnits: number;
  readonly logs: readonly string[];
  readonly preBalances: readonly number[];
  readonly postBalances: readonly number[];
  readonly preTokenBalances: readonly TokenBalance[];
  readonly postTokenBalances: readonly TokenBalance[];
  readonly inner: readonly (readonly InnerInstruction[])[];
}

export interface Simulation {
  readonly err: LedgerError | null;
  readonly logs: readonly string[];
  readonly computeUnits: number;
}

export type ChangeListener = (record: TransactionRecord, changed: readonly Address[]) => void;

interface Meta {
  readonly genesis: string;
  readonly bornMs: number;
  readonly faucetSeed: string;
}

interface ClockState {
  readonly warpMs: number;
  readonly slot: number;
  readonly sequence: number;
}

type Write =
  | { readonly type: 'put'; readonly key: string; readonly value: string }
  | { readonly type: 'del'; readonly key: string };

const sequenceKey = (sequence: number): string => sequence.toString().padStart(12, '0');

/** A refused transaction: nothing was executed, or (preflight) nothing kept. */
export class TransactionRefused extends Error {
  override readonly name = 'TransactionRefused';
  readonly err: LedgerError;
  readonly simulation: Simulation | undefined;

  constructor(err: LedgerError, simulation?: Simulation) {
    super(describe(err));
    this.err = err;
    this.simulation = simulation;
  }
}

/** The words of a Solana node for the errors that clients tell apart by text. */
export function describe(err: LedgerError): string {
  if (err === 'BlockhashNotFound') return 'Blockhash not found';
  if (err === 'AlreadyProcessed') return 'This transaction has already been processed';
  if (err === 'AccountNotFound') return 'Attempt to debit an account but found no record of a prior credit.';
  if (err === 'InsufficientFundsForFee') return 'Insufficient funds for fee';
  if (err === 'SignatureFailure') return 'Transaction did not pass signature verification';
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

/** LiteSVM names its errors only in Rust's debug form: `InstructionError(0, Custom(7000))` → JSON as nodes send it. */
export function parseDebugError(text: string): LedgerError {
  const instruction = /^InstructionError\((\d+), (.*)\)$/s.exec(text);
  if (instruction) return { InstructionError: [Number(instruction[1]), parseDebugError(instruction[2] ?? '')] };
  const tuple = /^(\w+)\((\d+)\)$/.exec(text);
  if (tuple?.[1] !== undefined) return { [tuple[1]]: Number(tuple[2]) };
  const record = /^(\w+) \{ (\w+): (\d+) \}$/.exec(text);
  if (record?.[1] !== undefined && record[2] !== undefined) return { [record[1]]: { [record[2]]: Number(record[3]) } };
  return text;
}

function errorOf(failed: FailedTransactionMetadata): LedgerError {
  return parseDebugError(/err: (.*?), meta: TransactionMetadata/s.exec(failed.toString())?.[1] ?? 'Unknown');
}

/** The fee stands only in the debug form too, behind the logs, which may hold any text. */
function feeOf(result: TransactionMetadata | FailedTransactionMetadata): number {
  return Number(/fee: (\d+)[^:]*$/.exec(result.toString())?.[1] ?? 0);
}

function encodeStored(account: StoredAccount): string {
  const { lamports, owner, executable, data } = account;
  return JSON.stringify([lamports.toString(), owner, executable, Buffer.from(data).toString('base64')]);
}

function decodeStored(text: string): StoredAccount {
  const [lamports, owner, executable, data] = JSON.parse(text) as [string, Address, boolean, string];
  return { lamports: BigInt(lamports), owner, executable, data: Buffer.from(data, 'base64') };
}

export class Ledger implements AsyncDisposable {
  readonly genesis: Address;
  readonly faucet: KeyPair;
  readonly #env: Env;
  readonly #db: Level;
  readonly #svm: LiteSVM;
  readonly #bornMs: number;
  readonly #listeners = new Set<ChangeListener>();
  /** Signatures whose blockhash may still be good: a repetition is refused. */
  readonly #recent = new Map<string, number>();
  readonly #hashes = new Map<number, string>();
  #clock: ClockState;
  #pending: Write[] = [];
  #flushing: Promise<void> | undefined;
  #broken: MoltError | undefined;

  private constructor(
    env: Env,
    db: Level,
    opened: { readonly meta: Meta; readonly clock: ClockState; readonly program: Uint8Array },
  ) {
    const { meta, clock, program } = opened;
    this.#env = env;
    this.#db = db;
    this.#clock = clock;
    this.#bornMs = meta.bornMs;
    this.genesis = meta.genesis as Address;
    this.faucet = keyPairFromSeed(Buffer.from(meta.faucetSeed, 'hex'));
    this.#svm = new LiteSVM().withBlockhashCheck(false).withTransactionHistory(0n);
    this.#svm.addProgram(kit(LOCAL_PROGRAM_ID), program);
  }

  /** Opens or starts the ledger in `directory`. Throws `node/already-running`. */
  static async open(env: Env, directory: string, program: Uint8Array): Promise<Ledger> {
    await mkdir(directory, { recursive: true });
    // The seed of the faucet lies here.
    await chmod(directory, 0o700);
    const db = new Level(directory);
    try {
      await db.open();
    } catch (error) {
      throw new MoltError(
        'node/already-running',
        `the chain data in ${directory} cannot be opened: stop the other devnet or name another folder`,
        { directory },
        { cause: error },
      );
    }
    const known = await db.get('meta');
    const meta: Meta = known === undefined ? Ledger.#genesis(env) : (JSON.parse(known) as Meta);
    const clockText = await db.get('clock');
    const clock = clockText === undefined ? { warpMs: 0, slot: 0, sequence: 0 } : (JSON.parse(clockText) as ClockState);
    const ledger = new Ledger(env, db, { meta, clock, program });
    if (known === undefined) {
      ledger.#put(ledger.faucet.address, {
        lamports: FAUCET_LAMPORTS,
        owner: SYSTEM_PROGRAM,
        executable: false,
        data: new Uint8Array(),
      });
      await db.put('meta', JSON.stringify(meta), { sync: true });
    }
    await ledger.#restore();
    return ledger;
  }

  static #genesis(env: Env): Meta {
    return {
      genesis: encodeAddress(env.random.bytes(32)),
      bornMs: env.clock.now(),
      faucetSeed: Buffer.from(env.random.bytes(32)).toString('hex'),
    };
  }

  async #restore(): Promise<void> {
    for await (const [key, value] of this.#db.iterator({ gte: 'account/', lt: 'account0' })) {
      const address = key.slice('account/'.length) as Address;
      this.#put(address, decodeStored(value));
    }
    // Newest first, until their blockhashes cannot be good any more.
    for await (const [, value] of this.#db.iterator({ gte: 'order/', lt: 'order0', reverse: true })) {
      const record = await this.record(value);
      if (!record || record.slot + BLOCKHASH_SLOTS + 1 < this.slot()) break;
      this.#recent.set(record.signature, record.slot);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.settled(() => undefined).catch(() => undefined);
    await this.#db.close();
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
    const clock = this.#svm.getClock();
    clock.slot = BigInt(slot);
    clock.unixTimestamp = BigInt(this.timeOf(slot));
    this.#svm.setClock(clock);
    return slot;
  }

  /** Puts the clock forward, for good. */
  async warp(seconds: number): Promise<void> {
    this.#clock = { ...this.#clock, warpMs: this.#clock.warpMs + seconds * 1000 };
    this.#tick();
    await this.#persist([]);
  }

  blockhash(slot: number = this.slot()): string {
    const known = this.#hashes.get(slot);
    if (known !== undefined) return known;
    const number = Buffer.alloc(8);
    number.writeBigUInt64LE(BigInt(slot));
    const hash = base58btc.baseEncode(createHash('sha256').update(decodeAddress(this.genesis)).update(number).digest());
    if (this.#hashes.size > 2 * BLOCKHASH_SLOTS) this.#hashes.clear();
    this.#hashes.set(slot, hash);
    return hash;
  }

  isBlockhashValid(hash: string): boolean {
    const now = this.slot();
    for (let slot = now; slot >= Math.max(0, now - BLOCKHASH_SLOTS); slot--) {
      if (this.blockhash(slot) === hash) return true;
    }
    return false;
  }

  // Accounts

  account(address: Address): StoredAccount | undefined {
    this.#tick();
    const account = this.#svm.getAccount(kit(address));
    return account.exists && account.lamports > 0n ? stored(account) : undefined;
  }

  programAccounts(program: Address): { readonly address: Address; readonly account: StoredAccount }[] {
    return this.#svm
      .getProgramAccounts(kit(program))
      .filter((account) => account.lamports > 0n)
      .map((account) => ({ address: account.address as unknown as Address, account: stored(account) }));
  }

  minimumBalance(size: number): bigint {
    return this.#svm.minimumBalanceForRentExemption(BigInt(size));
  }

  #put(address: Address, account: StoredAccount): void {
    const { lamports, owner, executable, data } = account;
    this.#svm.setAccount({
      address: kit(address),
      lamports: lamports as EncodedAccount['lamports'],
      programAddress: kit(owner),
      executable,
      data,
      space: BigInt(data.length),
    });
  }

  // Transactions

  /** What would happen. With `replaceBlockhash`, any blockhash is taken; `verify` false skips the signatures. */
  simulate(
    wire: Uint8Array,
    options: { readonly replaceBlockhash?: boolean; readonly verify?: boolean } = {},
  ): Simulation {
    const message = parseTransaction(wire).message;
    if (options.replaceBlockhash !== true && !this.isBlockhashValid(message.recentBlockhash)) {
      return { err: 'BlockhashNotFound', logs: [], computeUnits: 0 };
    }
    this.#tick();
    this.#svm.withSigverify(options.verify !== false);
    try {
      const result = this.#svm.simulateTransaction(vmTransaction(wire));
      const meta = result.meta();
      const err = result instanceof FailedTransactionMetadata ? errorOf(result) : null;
      return { err, logs: meta.logs(), computeUnits: Number(meta.computeUnitsConsumed()) };
    } finally {
      this.#svm.withSigverify(true);
    }
  }

  /**
   * Executes and keeps. With `preflight`, a transaction that would fail is refused and costs nothing; without, it is
   * recorded with its error and pays its fee, as on a cluster. Throws `TransactionRefused`.
   */
  async execute(wire: Uint8Array, preflight = true): Promise<TransactionRecord> {
    const transaction = parseTransaction(wire);
    const [first] = transaction.signatures;
    assert(first, 'a parsed transaction has a signature');
    const signature = base58btc.baseEncode(first);
    if (this.#recent.has(signature)) throw new TransactionRefused('AlreadyProcessed');
    if (!this.isBlockhashValid(transaction.message.recentBlockhash)) throw new TransactionRefused('BlockhashNotFound');
    if (preflight) {
      const simulation = this.simulate(wire);
      if (simulation.err !== null) throw new TransactionRefused(simulation.err, simulation);
    }
    const { record, changed } = this.#run(wire, transaction, signature);
    this.#recent.set(signature, record.slot);
    for (const [old, slot] of this.#recent) {
      if (slot + BLOCKHASH_SLOTS >= record.slot) break;
      this.#recent.delete(old);
    }
    await this.#persist(this.#writesOf(record, changed));
    for (const listener of this.#listeners) listener(record, changed);
    return record;
  }

  #run(
    wire: Uint8Array,
    transaction: VersionedTransaction,
    signature: string,
  ): { record: TransactionRecord; changed: Address[] } {
    const { message } = transaction;
    const addresses = message.staticAccountKeys.map((key) => key.toBase58() as Address);
    const before = addresses.map((address) => this.account(address));
    const slot = this.#tick();
    const result = this.#svm.sendTransaction(vmTransaction(wire));
    const failed = result instanceof FailedTransactionMetadata;
    const err = failed ? errorOf(result) : null;
    // What fails before execution pays no fee and is in no block.
    if (err !== null && !(typeof err === 'object' && 'InstructionError' in err)) throw new TransactionRefused(err);
    const meta = failed ? result.meta() : result;
    const after = addresses.map((address) => this.account(address));
    const sequence = this.#clock.sequence + 1;
    this.#clock = { ...this.#clock, sequence };
    const record: TransactionRecord = {
      signature,
      sequence,
      slot,
      blockTime: this.timeOf(slot),
      wire: Buffer.from(wire).toString('base64'),
      accounts: addresses,
      err,
      fee: feeOf(result),
      computeUnits: Number(meta.computeUnitsConsumed()),
      logs: meta.logs(),
      preBalances: before.map((account) => Number(account?.lamports ?? 0n)),
      postBalances: after.map((account) => Number(account?.lamports ?? 0n)),
      preTokenBalances: tokenBalances(before),
      postTokenBalances: tokenBalances(after),
      inner: readInner(meta),
    };
    return { record, changed: addresses.filter((_, index) => message.isAccountWritable(index)) };
  }

  #writesOf(record: TransactionRecord, changed: readonly Address[]): Write[] {
    const order = sequenceKey(record.sequence);
    const writes: Write[] = [
      { type: 'put', key: `transaction/${record.signature}`, value: JSON.stringify(record) },
      { type: 'put', key: `order/${order}`, value: record.signature },
    ];
    for (const address of record.accounts) {
      writes.push({ type: 'put', key: `of/${address}/${order}`, value: record.signature });
    }
    for (const address of changed) {
      const account = this.account(address);
      const key = `account/${address}`;
      writes.push(account ? { type: 'put', key, value: encodeStored(account) } : { type: 'del', key });
    }
    return writes;
  }

  async record(signature: string): Promise<TransactionRecord | undefined> {
    const text = await this.#db.get(`transaction/${signature}`);
    return text === undefined ? undefined : (JSON.parse(text) as TransactionRecord);
  }

  /** Newest first. `before` and `until` are signatures, both exclusive. */
  async signaturesFor(
    address: Address,
    page: { readonly limit: number; readonly before?: string; readonly until?: string },
  ): Promise<TransactionRecord[]> {
    const before = page.before === undefined ? undefined : await this.record(page.before);
    const end = before ? `of/${address}/${sequenceKey(before.sequence)}` : `of/${address}0`;
    const records: TransactionRecord[] = [];
    for await (const [, signature] of this.#db.iterator({
      gte: `of/${address}/`,
      lt: end,
      reverse: true,
      limit: page.limit,
    })) {
      if (signature === page.until) break;
      const record = await this.record(signature);
      if (record) records.push(record);
    }
    return records;
  }

  /** Called after a transaction is on disk, in order. */
  onChange(listener: ChangeListener): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }

  // Disk

  /** Runs `look` at a moment when everything executed so far is on disk. */
  async settled<T>(look: () => T): Promise<T> {
    while (this.#flushing || this.#pending.length > 0) await (this.#flushing ??= this.#flush());
    return look();
  }

  async #persist(writes: readonly Write[]): Promise<void> {
    this.#pending.push(...writes, { type: 'put', key: 'clock', value: JSON.stringify(this.#clock) });
    // The batch under way does not hold these writes; the one after it does.
    if (this.#flushing) await this.#flushing;
    await (this.#flushing ??= this.#flush());
  }

  async #flush(): Promise<void> {
    const batch = this.#pending;
    this.#pending = [];
    try {
      if (this.#broken !== undefined) throw this.#broken;
      await this.#db.batch(batch, { sync: true });
    } catch (error) {
      // Memory is ahead of the disk now: nothing may be confirmed any more.
      this.#broken = new MoltError(
        'chain/unreachable',
        'the local chain could not write its data: free disk space and start it again',
        {},
        { cause: error },
      );
      throw this.#broken;
    } finally {
      this.#flushing = undefined;
    }
  }
}

const SYSTEM_PROGRAM = '11111111111111111111111111111111' as Address;

/* LiteSVM speaks the types of @solana/kit, which are these values under other brands. */
type KitAddress = Parameters<LiteSVM['getAccount']>[0];
type KitTransaction = Parameters<LiteSVM['sendTransaction']>[0];
type EncodedAccount = Parameters<LiteSVM['setAccount']>[0];
const kit = (address: Address): KitAddress => address as unknown as KitAddress;

function stored(account: EncodedAccount): StoredAccount {
  return {
    lamports: account.lamports,
    owner: account.programAddress as unknown as Address,
    executable: account.executable,
    data: new Uint8Array(account.data),
  };
}

/** Throws `protocol/malformed` for anything that is not a transaction without lookup tables. */
export function parseTransaction(wire: Uint8Array): VersionedTransaction {
  let transaction: VersionedTransaction;
  try {
    transaction = VersionedTransaction.deserialize(wire);
  } catch (error) {
    throw new MoltError(
      'protocol/malformed',
      'the bytes are not a Solana transaction: send its wire form',
      {},
      { cause: error },
    );
  }
  const { message, signatures } = transaction;
  const keys = new Set(message.staticAccountKeys.map((key) => key.toBase58()));
  if (
    signatures.length === 0 ||
    signatures.length > 127 ||
    signatures.length !== message.header.numRequiredSignatures ||
    keys.size !== message.staticAccountKeys.length ||
    message.addressTableLookups.length > 0
  ) {
    throw new MoltError(
      'protocol/malformed',
      'the local chain takes transactions with one signature per signer, no account twice and no address lookup tables',
    );
  }
  return transaction;
}

/** The wire form as LiteSVM takes it: message bytes, and signatures by signer in order. */
export function vmTransaction(wire: Uint8Array): KitTransaction {
  const { message, signatures } = parseTransaction(wire);
  const named = signatures.map(
    (signature, index) => [message.staticAccountKeys[index]?.toBase58(), signature] as const,
  );
  return {
    messageBytes: wire.subarray(1 + 64 * signatures.length),
    signatures: Object.fromEntries(named),
  } as unknown as KitTransaction;
}

function tokenBalances(accounts: readonly (StoredAccount | undefined)[]): TokenBalance[] {
  return accounts.flatMap((account, accountIndex) => {
    if (account?.owner !== TOKEN_PROGRAM || account.data.length !== TOKEN_ACCOUNT_SIZE) return [];
    const mint = encodeAddress(account.data.subarray(0, 32));
    const owner = encodeAddress(account.data.subarray(32, 64));
    return [{ accountIndex, mint, owner, amount: Buffer.from(account.data).readBigUInt64LE(64).toString() }];
  });
}

function readInner(meta: TransactionMetadata): InnerInstruction[][] {
  return meta.innerInstructions().map((list) =>
    list.map((inner) => {
      const instruction = inner.instruction();
      return {
        programIdIndex: instruction.programIdIndex(),
        accounts: [...instruction.accounts()],
        data: base58btc.baseEncode(instruction.data()),
        stackHeight: inner.stackHeight(),
      };
    }),
  );
}
