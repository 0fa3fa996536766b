/**
 * Who the bidders are: the budget that each of them names, as the chain has it, and which budgets paid this provider
 * before. Identities cost nothing, so what a stranger can make this node ask the chain is bounded per forwarding peer and
 * in all, and what the chain said is kept for a while.
 */
import { type BudgetAccount, leftToday } from '../../chain/index.ts';
import { type BuyerStanding, createBoundedMap, createBuckets } from '../../market/index.ts';
import type { Address } from '../../protocol/address.ts';
import type { Env } from '../../protocol/env.ts';
import { MoltError } from '../../protocol/errors.ts';
import type { Bid, Message } from '../../protocol/messages.ts';
import type { Journal } from '../journal.ts';

export interface BuyersOptions {
  /** Reads a budget; undefined where there is none. */
  readonly budget: (address: Address) => Promise<BudgetAccount | undefined>;
  readonly chainNowMs: () => number;
  readonly journal: Journal;
  /** Network range that a connected peer comes from; empty on the local network. */
  readonly rangeOf: (peer: Address) => string;
}

/** Name of the journal's record of budgets that paid. */
const REGULARS = 'regulars';
const REGULARS_MAX = 1_000;
/** What the chain said of a budget counts this long: less than a hold lasts, and leases check it again. */
const FRESH_MS = 15_000;
const BUDGETS_MAX = 4_096;
/** Reads of budgets not asked for of late: of one forwarding peer, and of all. */
const READS_PER_PEER = { perSecond: 5, burst: 20 };
const READS = { perSecond: 50, burst: 100 };
const PEERS_MAX = 1_024;

interface Known {
  readonly atMs: number;
  readonly reading: Promise<BudgetAccount | undefined>;
}

export class Buyers {
  readonly #env: Env;
  readonly #options: BuyersOptions;
  readonly #budgets = createBoundedMap<Address, Known>(BUDGETS_MAX);
  readonly #perPeer = createBuckets(READS_PER_PEER, PEERS_MAX);
  readonly #all = createBuckets(READS, 1);
  /** Oldest payment first. */
  readonly #regulars: Set<Address>;

  private constructor(env: Env, options: BuyersOptions, regulars: readonly Address[]) {
    this.#env = env;
    this.#options = options;
    this.#regulars = new Set(regulars);
  }

  static async open(env: Env, options: BuyersOptions): Promise<Buyers> {
    const kept = await options.journal.record(REGULARS);
    const regulars = kept === undefined ? [] : (JSON.parse(Buffer.from(kept).toString()) as Address[]);
    return new Buyers(env, options, regulars);
  }

  /** True when anybody paid here before. */
  get hasRegulars(): boolean {
    return this.#regulars.size > 0;
  }

  /** This budget paid for a lease of ours. Resolves when it is kept. */
  async paid(budget: Address): Promise<void> {
    this.#regulars.delete(budget);
    this.#regulars.add(budget);
    const [oldest] = this.#regulars;
    if (this.#regulars.size > REGULARS_MAX && oldest !== undefined) this.#regulars.delete(oldest);
    await this.#options.journal.setRecord(REGULARS, Buffer.from(JSON.stringify([...this.#regulars])));
  }

  /**
   * What is known of a bidder, or why nothing is held for it: `chain/account-missing`, `chain/budget-limit` (not its budget,
   * or expired), `chain/budget-empty`, `market/rate-limited`, or that the chain could not be asked. `from` forwarded the bid.
   */
  async standing({ signer, content }: Message<Bid>, from: Address): Promise<BuyerStanding | MoltError> {
    const { budget: address } = content;
    try {
      const budget = await this.#read(address, from);
      if (budget === undefined) {
        return new MoltError('chain/account-missing', `the bid names a budget ${address} that is not on this chain`);
      }
      if (!budget.delegates.includes(signer) || budget.expiresAtMs <= this.#options.chainNowMs()) {
        const text = `the budget ${address} has expired or does not name ${signer} as a delegate; its owner can change that`;
        return new MoltError('chain/budget-limit', text);
      }
      const today = leftToday(budget, this.#options.chainNowMs());
      const free = budget.free < today ? budget.free : today;
      if (free <= 0n) {
        return new MoltError('chain/budget-empty', `the budget ${address} has nothing free to lease with today`);
      }
      const { capPerLease } = budget;
      const range = this.#options.rangeOf(signer);
      return { budget: address, free, capPerLease, range, isKnown: this.#regulars.has(address) };
    } catch (error) {
      if (!(error instanceof MoltError)) throw error;
      return error;
    }
  }

  async #read(address: Address, from: Address): Promise<BudgetAccount | undefined> {
    const now = this.#env.clock.monotonic();
    const known = this.#budgets.get(address);
    if (known !== undefined && now - known.atMs < FRESH_MS) return known.reading;
    // Who paid before, or was there a moment ago, is asked about whatever strangers do.
    const isFamiliar = this.#regulars.has(address) || (await known?.reading.catch(() => undefined)) !== undefined;
    if (!isFamiliar && !(this.#perPeer.take(from, now) && this.#all.take('reads', now))) {
      throw new MoltError('market/rate-limited', 'too many budgets are being asked for; bid again later');
    }
    const reading = this.#options.budget(address);
    // A failed read is not kept; who awaits it hears of it.
    reading.catch(() => this.#budgets.set(address, { atMs: -Infinity, reading: Promise.resolve(undefined) }));
    this.#budgets.set(address, { atMs: now, reading });
    return reading;
  }
}
