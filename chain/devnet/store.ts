/**
 * The local chain's disk: one LevelDB with accounts, transactions and their indexes.
 *
 * Writes that wait are put down together in one synced batch, and `write` resolves when its batch is on disk. `settled`
 * lets readers look only at moments when nothing is ahead of the disk; while readers wait, no new write starts, so
 * neither side starves the other. Old transactions are removed in steps; accounts never are.
 */
import { chmod, mkdir } from 'node:fs/promises';

import { Level } from 'level';

import { decodeAddress, type Address } from '../../protocol/address.ts';
import { MoltError, hasCode } from '../../protocol/errors.ts';
import { addressOf } from './transaction.ts';
import type { InnerInstruction, LedgerError, StoredAccount } from './vm.ts';

/** Layout of what is on disk; another one is refused. */
const FORMAT = 2;
/** Transactions between two removals of old ones. */
const PRUNE_EVERY = 1_000;

export interface TokenBalance {
  readonly accountIndex: number;
  readonly mint: Address;
  readonly owner: Address;
  readonly amount: string;
}

/** What happened in one transaction. `sequence` orders all transactions of the ledger. */
export interface TransactionRecord {
  readonly signature: string;
  readonly sequence: number;
  readonly slot: number;
  readonly blockTime: number;
  /** Base64 of the wire form. */
  readonly wire: string;
  /** All accounts that the transaction names; the last ones are those that lookup tables gave. */
  readonly accounts: readonly Address[];
  readonly loaded: { readonly writable: number; readonly readonly: number };
  readonly err: LedgerError | null;
  readonly fee: number;
  readonly computeUnits: number;
  readonly logs: readonly string[];
  readonly preBalances: readonly number[];
  readonly postBalances: readonly number[];
  readonly preTokenBalances: readonly TokenBalance[];
  readonly postTokenBalances: readonly TokenBalance[];
  readonly inner: readonly (readonly InnerInstruction[])[];
  readonly returnData: { readonly programId: Address; readonly data: string } | null;
}

export interface Meta {
  readonly format: typeof FORMAT;
  readonly genesis: Address;
  readonly bornMs: number;
  /** Hex. Also the secret from which blockhashes come. */
  readonly faucetSeed: string;
}

export interface ClockState {
  readonly warpMs: number;
  readonly slot: number;
  readonly sequence: number;
}

/** Everything that one step of the ledger changes. An account that is undefined is gone. */
export interface Change {
  readonly clock: ClockState;
  readonly record?: TransactionRecord;
  readonly accounts?: ReadonlyMap<Address, StoredAccount | undefined>;
}

type Write =
  | { readonly type: 'put'; readonly key: string; readonly value: string }
  | { readonly type: 'put'; readonly key: string; readonly value: Uint8Array; readonly valueEncoding: 'view' }
  | { readonly type: 'del'; readonly key: string };

const padded = (number: number): string => number.toString().padStart(12, '0');

/** Lamports (8 bytes), owner (32), executable (1), data. */
function encodeAccount({ lamports, owner, executable, data }: StoredAccount): Uint8Array {
  const head = Buffer.alloc(41);
  head.writeBigUInt64LE(lamports);
  head.set(decodeAddress(owner), 8);
  head[40] = executable ? 1 : 0;
  return Buffer.concat([head, data]);
}

function decodeAccount(value: Uint8Array): StoredAccount {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  return {
    lamports: bytes.readBigUInt64LE(),
    owner: addressOf(bytes.subarray(8, 40)),
    executable: bytes[40] === 1,
    data: new Uint8Array(bytes.subarray(41)),
  };
}

export interface StoreOptions {
  /** Transactions to keep at least. */
  readonly historyMax: number;
  /** Slots whose transactions are kept however many they are. */
  readonly slotsMin: number;
}

export class Store implements AsyncDisposable {
  readonly #db: Level;
  readonly #options: StoreOptions;
  #pending: Write[] = [];
  #flushing: Promise<void> | undefined;
  #draining: Promise<void> | undefined;
  #pruning: Promise<void> | undefined;
  readonly #readers: (() => void)[] = [];
  #broken: MoltError | undefined;

  private constructor(db: Level, options: StoreOptions) {
    this.#db = db;
    this.#options = options;
  }

  /** Opens or makes the folder. Throws `node/already-running`, and `node/journal-corrupt` for another format. */
  static async open(
    directory: string,
    options: StoreOptions,
    first: () => Omit<Meta, 'format'>,
  ): Promise<[Store, Meta]> {
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
    const meta = known === undefined ? { format: FORMAT, ...first() } : (JSON.parse(known) as Meta);
    if (meta.format !== FORMAT) {
      await db.close();
      throw new MoltError(
        'node/journal-corrupt',
        `the chain data in ${directory} was written by another version of molt: move the folder away to start a new chain`,
        { directory },
      );
    }
    if (known === undefined) await db.put('meta', JSON.stringify(meta), { sync: true });
    return [new Store(db, options), meta as Meta];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.settled(() => undefined).catch(() => undefined);
    await this.#pruning;
    await this.#db.close();
  }

  // Reading

  async clock(): Promise<ClockState | undefined> {
    const text = await this.#db.get('clock');
    return text === undefined ? undefined : (JSON.parse(text) as ClockState);
  }

  async *accounts(): AsyncIterable<[Address, StoredAccount]> {
    const range = { gte: 'account/', lt: 'account0', valueEncoding: 'view' } as const;
    for await (const [key, value] of this.#db.iterator<string, Uint8Array>(range)) {
      yield [key.slice('account/'.length) as Address, decodeAccount(value)];
    }
  }

  async record(signature: string): Promise<TransactionRecord | undefined> {
    const text = await this.#db.get(`transaction/${signature}`);
    return text === undefined ? undefined : (JSON.parse(text) as TransactionRecord);
  }

  /** All transactions, newest first. */
  async *newestFirst(): AsyncIterable<TransactionRecord> {
    for await (const name of this.#db.values({ gte: 'block/', lt: 'block0', reverse: true })) {
      const record = await this.record(name);
      if (record) yield record;
    }
  }

  /** Transactions of one slot, in order. */
  async block(slot: number): Promise<TransactionRecord[]> {
    const names = await this.#db.values({ gte: `block/${padded(slot)}/`, lt: `block/${padded(slot)}0` }).all();
    const records = await Promise.all(names.map((name) => this.record(name)));
    return records.filter((record) => record !== undefined);
  }

  /** The first slot of which all transactions are kept. */
  async firstSlot(): Promise<number> {
    return Number((await this.#db.get('pruned')) ?? 0);
  }

  /** Newest first. `before` and `until` are signatures, both exclusive. */
  async signaturesFor(
    address: Address,
    page: { readonly limit: number; readonly before?: string | undefined; readonly until?: string | undefined },
  ): Promise<TransactionRecord[]> {
    const before = page.before === undefined ? undefined : await this.record(page.before);
    const end = before ? `of/${address}/${padded(before.sequence)}` : `of/${address}0`;
    const range = { gte: `of/${address}/`, lt: end, reverse: true, limit: page.limit };
    const records: TransactionRecord[] = [];
    for await (const name of this.#db.values(range)) {
      if (name === page.until) break;
      const record = await this.record(name);
      if (record) records.push(record);
    }
    return records;
  }

  // Writing

  /** Resolves when it is on disk. Throws `chain/unreachable` once the disk has failed. */
  async write({ clock, record, accounts }: Change): Promise<void> {
    const writes = this.#pending;
    writes.push({ type: 'put', key: 'clock', value: JSON.stringify(clock) });
    if (record) this.#addRecord(record);
    for (const [address, account] of accounts ?? []) {
      const key = `account/${address}`;
      writes.push(
        account ? { type: 'put', key, value: encodeAccount(account), valueEncoding: 'view' } : { type: 'del', key },
      );
    }
    // The batch under way does not hold these writes; the one after it does.
    if (this.#flushing) await this.#flushing;
    await (this.#flushing ??= this.#flush());
    if (record && record.sequence % PRUNE_EVERY === 0) this.#prune(record);
  }

  #addRecord(record: TransactionRecord): void {
    const { signature, sequence, slot } = record;
    const order = padded(sequence);
    this.#pending.push(
      { type: 'put', key: `transaction/${signature}`, value: JSON.stringify(record) },
      { type: 'put', key: `block/${padded(slot)}/${order}`, value: signature },
    );
    for (const address of record.accounts)
      this.#pending.push({ type: 'put', key: `of/${address}/${order}`, value: signature });
  }

  async #flush(): Promise<void> {
    const batch = this.#pending;
    this.#pending = [];
    try {
      if (this.#broken !== undefined) throw this.#broken;
      await this.#db.batch<string, string | Uint8Array>(batch, { sync: true });
    } catch (error) {
      // Memory is ahead of the disk now: nothing may be confirmed any more.
      this.#broken = hasCode(error, 'chain/unreachable')
        ? error
        : new MoltError(
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

  /** Runs `look` at a moment when everything executed so far is on disk. */
  settled<T>(look: () => T | Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#readers.push(() => {
        try {
          if (this.#broken !== undefined) throw this.#broken;
          resolve(look());
        } catch (error) {
          reject(error);
        }
      });
      if (this.#flushing || this.#pending.length > 0) this.#draining ??= this.#drain();
      else this.#look();
    });
  }

  /** Resolves when no reader waits for the disk: writers come here before they change anything. */
  async turn(): Promise<void> {
    while (this.#draining) await this.#draining;
  }

  async #drain(): Promise<void> {
    while (this.#flushing || this.#pending.length > 0) {
      await (this.#flushing ??= this.#flush()).catch(() => undefined);
    }
    this.#draining = undefined;
    this.#look();
  }

  #look(): void {
    for (const reader of this.#readers.splice(0)) reader();
  }

  // Removing

  #prune({ sequence, slot }: TransactionRecord): void {
    const keepFrom = sequence - this.#options.historyMax;
    if (keepFrom <= 0 || this.#pruning) return;
    this.#pruning = this.#removeBefore(keepFrom, slot - this.#options.slotsMin)
      // What could not be removed now is removed next time; a disk that fails is noticed by the next write.
      .catch(() => undefined)
      .finally(() => {
        this.#pruning = undefined;
      });
  }

  /** Removes whole slots, so that a block is there with all its transactions or not at all. */
  async #removeBefore(sequence: number, slot: number): Promise<void> {
    const keys: string[] = [];
    let ofSlot: string[] = [];
    let first = 0;
    for await (const [key, name] of this.#db.iterator({ gte: 'block/', lt: 'block0' })) {
      const [, at, order] = key.split('/');
      if (Number(at) !== first) {
        keys.push(...ofSlot);
        ofSlot = [];
        first = Number(at);
      }
      if (Number(order) >= sequence || first >= slot) break;
      const record = await this.record(name);
      const indexed = (record?.accounts ?? []).map((address) => `of/${address}/${order}`);
      ofSlot.push(key, `transaction/${name}`, ...indexed);
    }
    if (keys.length === 0) return;
    await this.#db.batch([
      ...keys.map((key) => ({ type: 'del', key }) as const),
      { type: 'put', key: 'pruned', value: String(first) } as const,
    ]);
  }
}
