/**
 * The door to the Solana VM: accounts by address, one transaction at a time, and errors as Solana's JSON has them.
 *
 * It uses LiteSVM's native class and not the wrapper around it: the wrapper re-encodes every transaction and every key
 * in JavaScript, which costs more than running a transfer.
 */
import { Account, FailedTransactionMetadata, LiteSvm, type TransactionMetadata } from 'litesvm/dist/internal.js';
import { base58btc } from 'multiformats/bases/base58';

import { decodeAddress, type Address } from '../../protocol/address.ts';
import { addressOf, type WireTransaction } from './transaction.ts';

export const SYSTEM_PROGRAM = '11111111111111111111111111111111' as Address;

export interface StoredAccount {
  readonly lamports: bigint;
  readonly owner: Address;
  readonly executable: boolean;
  readonly data: Uint8Array;
}

/** An error as Solana's JSON has it: a name, or a name with its details. */
export type LedgerError = string | Readonly<Record<string, unknown>>;

export interface InnerInstruction {
  readonly programIdIndex: number;
  readonly accounts: readonly number[];
  /** Base58. */
  readonly data: string;
  readonly stackHeight: number;
}

export interface ReturnData {
  readonly programId: Address;
  /** Base64. */
  readonly data: string;
}

/** What a transaction did or would do. */
export interface Outcome {
  readonly err: LedgerError | null;
  readonly logs: readonly string[];
  readonly computeUnits: number;
  readonly inner: readonly (readonly InnerInstruction[])[];
  readonly returnData: ReturnData | null;
}

export interface Executed extends Outcome {
  readonly fee: number;
}

export interface Simulated extends Outcome {
  /** Accounts as they would be afterwards; empty when it fails. */
  readonly after: ReadonlyMap<Address, StoredAccount>;
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

function outcome(err: LedgerError | null, meta: TransactionMetadata): Outcome {
  const returned = meta.returnData();
  const data = returned.data();
  return {
    err,
    logs: meta.logs(),
    computeUnits: Number(meta.computeUnitsConsumed()),
    inner: readInner(meta),
    returnData:
      data.length === 0
        ? null
        : { programId: addressOf(returned.programId()), data: Buffer.from(data).toString('base64') },
  };
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

/** Addresses repeat, and base58 is slow: the last ones are kept. */
const KEYS_MAX = 8_192;
const keys = new Map<Address, Uint8Array>();

function keyOf(address: Address): Uint8Array {
  const known = keys.get(address);
  if (known !== undefined) return known;
  if (keys.size >= KEYS_MAX) keys.clear();
  const made = decodeAddress(address);
  keys.set(address, made);
  return made;
}

function stored(account: Account): StoredAccount {
  return {
    lamports: account.lamports(),
    owner: addressOf(account.owner()),
    executable: account.executable(),
    data: account.data(),
  };
}

export class Vm {
  readonly #svm: LiteSvm;

  /** Repetitions and blockhashes are the ledger's business, so the VM's own checks of them are off. */
  constructor() {
    this.#svm = new LiteSvm();
    this.#svm.setBlockhashCheck(false);
    this.#svm.setTransactionHistory(0n);
  }

  addProgram(address: Address, program: Uint8Array): void {
    this.#svm.addProgram(keyOf(address), program);
  }

  /** Sets Clock and SlotHashes. `hashes`: newest first, 512 at most. */
  setTime(
    slot: number,
    unixTimestamp: number,
    hashes: readonly { readonly slot: number; readonly hash: string }[],
  ): void {
    const clock = this.#svm.getClock();
    clock.slot = BigInt(slot);
    clock.unixTimestamp = BigInt(unixTimestamp);
    this.#svm.setClock(clock);
    this.#svm.setSlotHashes(hashes.map((one) => ({ slot: BigInt(one.slot), hash: one.hash })));
  }

  account(address: Address): StoredAccount | undefined {
    const account = this.#svm.getAccount(keyOf(address));
    return account !== null && account.lamports() > 0n ? stored(account) : undefined;
  }

  /** Undefined removes the account. A program's account comes after the account with its code. */
  setAccount(address: Address, account: StoredAccount | undefined): void {
    const { lamports, owner, executable, data } = account ?? {
      lamports: 0n,
      owner: SYSTEM_PROGRAM,
      executable: false,
      data: new Uint8Array(),
    };
    this.#svm.setAccount(keyOf(address), new Account(lamports, data, keyOf(owner), executable, 0n));
  }

  programAccounts(program: Address): { readonly address: Address; readonly account: StoredAccount }[] {
    return this.#svm
      .getProgramAccounts(keyOf(program))
      .map((found) => ({ address: addressOf(found.address), account: stored(found.account()) }))
      .filter(({ account }) => account.lamports > 0n);
  }

  minimumBalance(size: number): bigint {
    return this.#svm.minimumBalanceForRentExemption(BigInt(size));
  }

  /** Changes accounts, also when the transaction fails in an instruction: then the fee is paid. */
  execute({ wire, version }: WireTransaction): Executed {
    const result =
      version === 'legacy' ? this.#svm.sendLegacyTransaction(wire) : this.#svm.sendVersionedTransaction(wire);
    const failed = result instanceof FailedTransactionMetadata;
    return { ...outcome(failed ? errorOf(result) : null, failed ? result.meta() : result), fee: feeOf(result) };
  }

  /** Changes nothing. */
  simulate({ wire, version }: WireTransaction, verify: boolean): Simulated {
    this.#svm.setSigverify(verify);
    try {
      const result =
        version === 'legacy' ? this.#svm.simulateLegacyTransaction(wire) : this.#svm.simulateVersionedTransaction(wire);
      if (result instanceof FailedTransactionMetadata)
        return { ...outcome(errorOf(result), result.meta()), after: new Map() };
      const after = result.postAccounts().map((one) => [addressOf(one.address), stored(one.account())] as const);
      return { ...outcome(null, result.meta()), after: new Map(after) };
    } finally {
      this.#svm.setSigverify(true);
    }
  }
}
