/**
 * Compute units and priority of transactions that one party signs alone.
 *
 * The limit comes from a simulation, so that a leader can pack the transaction; the price is what the cluster's recent
 * blocks paid for the same accounts, nothing where nobody pays. The limit also carries a number that makes every
 * transaction another one: two equal payments within one blockhash would otherwise be one transaction, executed once.
 *
 * Transactions of two parties have none of this: both must derive the same bytes from terms and blockhash alone, and
 * neither may spend the other's fees. Where their market is busy, they try again with the next blockhash.
 */
import {
  ComputeBudgetProgram,
  Message,
  PublicKey,
  VersionedTransaction,
  type Connection,
  type TransactionInstruction,
} from '@solana/web3.js';

import type { Address } from '../protocol/address.ts';
import { randomInt, type Env } from '../protocol/env.ts';
import { hasCode } from '../protocol/errors.ts';
import { buildDraft, fitsTransaction } from './instructions.ts';
import { reach } from './submit.ts';

const UNITS_MAX = 1_400_000;
/** Accounts may change between simulation and execution. */
const UNITS_SPARE = 1_000;
const UNITS_SHARE = 1.2;
/** Equal transactions within one blockhash that stay distinct. */
const VARIANTS = 4_096;
/** Most lamports spent on priority: ten signatures. */
const PRIORITY_LAMPORTS_MAX = 50_000;
const PRICE_KEPT_MS = 10_000;
/** Three of four recent blocks would have taken the transaction at this price. */
const PRICE_QUANTILE = 0.75;

export class ComputeBudget {
  readonly #env: Env;
  readonly #connection: Connection;
  #variant: number;
  #price: { readonly microLamports: number; readonly atMs: number } | undefined;

  constructor(env: Env, connection: Connection) {
    this.#env = env;
    this.#connection = connection;
    this.#variant = randomInt(env.random, VARIANTS);
  }

  /** The instructions behind those that set limit and price; as they are where they would not fit. */
  async apply(
    payer: Address,
    blockhash: string,
    instructions: readonly TransactionInstruction[],
  ): Promise<readonly TransactionInstruction[]> {
    const variant = this.#variant;
    this.#variant = (variant + 1) % VARIANTS;
    const [units, price] = await Promise.all([
      this.#units(payer, blockhash, instructions),
      this.#priceFor(instructions),
    ]);
    const limit = Math.min(UNITS_MAX, units) - variant;
    const budget = [ComputeBudgetProgram.setComputeUnitLimit({ units: limit })];
    if (price > 0) {
      const most = Math.floor((PRIORITY_LAMPORTS_MAX * 1_000_000) / limit);
      budget.push(ComputeBudgetProgram.setComputeUnitPrice({ microLamports: Math.min(price, most) }));
    }
    const whole = [...budget, ...instructions];
    return fitsTransaction(payer, blockhash, whole) ? whole : instructions;
  }

  /** What a simulation used and some more; the most there is when it cannot be told, for then the cluster tells why. */
  async #units(payer: Address, blockhash: string, instructions: readonly TransactionInstruction[]): Promise<number> {
    const limit = ComputeBudgetProgram.setComputeUnitLimit({ units: UNITS_MAX });
    const whole = [limit, ...instructions];
    if (!fitsTransaction(payer, blockhash, whole)) return UNITS_MAX;
    const transaction = new VersionedTransaction(Message.from(buildDraft(payer, blockhash, whole).message));
    const config = { sigVerify: false, replaceRecentBlockhash: true, commitment: 'confirmed' } as const;
    const { value } = await reach(this.#connection.simulateTransaction(transaction, config));
    if (value.err !== null || value.unitsConsumed === undefined) return UNITS_MAX;
    return Math.ceil(value.unitsConsumed * UNITS_SHARE) + UNITS_SPARE + VARIANTS;
  }

  /** Micro-lamports per unit. An endpoint that cannot tell is no reason to fail: then nothing is offered. */
  async #priceFor(instructions: readonly TransactionInstruction[]): Promise<number> {
    const nowMs = this.#env.clock.monotonic();
    if (this.#price && nowMs - this.#price.atMs < PRICE_KEPT_MS) return this.#price.microLamports;
    const writable = instructions.flatMap(({ keys }) => keys.filter(({ isWritable }) => isWritable));
    const accounts = [...new Set(writable.map(({ pubkey }) => pubkey.toBase58()))].slice(0, 128);
    const request = this.#connection.getRecentPrioritizationFees({
      lockedWritableAccounts: accounts.map((account) => new PublicKey(account)),
    });
    const paid = await reach(request).catch((error: unknown) => {
      if (hasCode(error, 'chain/unreachable')) return [];
      throw error;
    });
    const sorted = paid.map(({ prioritizationFee }) => prioritizationFee).sort((a, b) => a - b);
    const microLamports = sorted[Math.floor(sorted.length * PRICE_QUANTILE)] ?? 0;
    this.#price = { microLamports, atMs: nowMs };
    return microLamports;
  }
}
