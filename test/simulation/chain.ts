/**
 * The chain, as small as the market needs it: budgets, providers with stake, and leases that follow the table of
 * protocol/lease.ts: who must sign, from which state, until when, what it pays. A dispute ends as the truth is, some time
 * later: how verifiers are drawn, vote and are paid is played by test/chain against the program itself.
 *
 * Signatures are real and checked over the whole transaction. A transaction takes its time, and may get lost before or
 * after it was executed.
 */
import { createHash } from 'node:crypto';

import { type Address, decodeAddress, encodeAddress } from '../../protocol/address.ts';
import { type KeyPair, verifySignature } from '../../protocol/ed25519.ts';
import { type ErrorCode, MoltError } from '../../protocol/errors.ts';
import { LEASE_EVENTS, type LeaseEvent, type LeaseState, isLeaseEnd, nextLeaseState } from '../../protocol/lease.ts';
import type { Bid } from '../../protocol/messages.ts';
import { type BaseUnits, baseUnits } from '../../protocol/units.ts';
import type { Chance } from './chance.ts';
import { START_MS, Violation, type World } from './world.ts';

export interface Terms {
  readonly quote: string;
  readonly budget: Address;
  readonly provider: Address;
  readonly operator: Address;
  readonly delegate: Address;
  readonly amount: bigint;
  readonly pricePerSecond: bigint;
  readonly reserve: bigint;
  readonly openBeforeMs: number;
  readonly finishByMs: number;
  readonly graceMs: number;
  readonly windowMs: number;
}

export interface LeaseAccount {
  readonly address: Address;
  readonly terms: Terms;
  state: LeaseState;
  openedMs: number;
  provenMs: number;
  claimed: bigint;
  /** By its end. */
  paid: bigint;
  last: LeaseEvent;
}

interface ProviderAccount {
  readonly operator: Address;
  stake: bigint;
  reserved: bigint;
  payout: bigint;
  settledCount: number;
  settledAmount: bigint;
  feesBurned: bigint;
  faults: number;
  faultAmount: bigint;
}

export interface BudgetAccount {
  readonly delegate: Address;
  readonly capPerLease: bigint;
  readonly capInAll: bigint;
  balance: bigint;
  locked: bigint;
  /** Everything that was ever locked, less what came back. */
  spent: bigint;
}

export interface Transaction {
  readonly event: LeaseEvent;
  readonly lease: Address;
  /** Of an `open`. */
  readonly terms?: Terms;
  readonly amount?: bigint;
  readonly signatures: ReadonlyMap<Address, Uint8Array>;
}

export interface ChainFaults {
  /** Share of transactions that are lost before, and whose answer is lost after, execution. */
  lossShare: number;
  readonly delayMs: { readonly from: number; readonly to: number };
}

/** What an account holds that is not there. */
const NOTHING = { stake: 0n, reserved: 0n, payout: 0n, balance: 0n, locked: 0n, spent: 0n, capInAll: 0n };
const VOTES_MS = { from: 5_000, to: 60_000 };
const BURN_BPS = 100n;
const STAKE_FEE_BPS = 100n;
export const RESERVE_BPS = 1_000;

export class Chain {
  readonly faults: ChainFaults;
  readonly providers = new Map<Address, ProviderAccount>();
  readonly budgets = new Map<Address, BudgetAccount>();
  readonly leases = new Map<Address, LeaseAccount>();
  /** The bid for which a lease's provider gave its word; the invariants compare it with what it has and does. */
  readonly promises = new Map<Address, Bid>();
  /** Leases whose job began later than was promised, and whose result is wrong, as verifiers would find. */
  readonly late = new Set<Address>();
  readonly wrong = new Set<Address>();
  /** Leases of replicas that came to another result than more than half, by their buyers' count. */
  readonly outvoted = new Set<Address>();
  /** Leases of replicas whose result waits for others to be compared, and since when, simulated ms. */
  readonly waiting = new Map<Address, number>();
  readonly #world: World;
  readonly #chance: Chance;
  readonly #watchers: ((lease: LeaseAccount) => void)[] = [];
  readonly #signed = new Set<string>();
  #burned = 0n;
  #minted = 0n;

  constructor(world: World, faults: ChainFaults) {
    this.#world = world;
    this.#chance = world.chance.split('chain');
    this.faults = faults;
  }

  /** The chain's clock: whole seconds, a little behind. */
  nowMs(): number {
    return Math.floor((START_MS + this.#world.nowMs - 400) / 1000) * 1000;
  }

  addProvider(address: Address, operator: Address, stake: bigint): void {
    this.#minted += stake;
    const none = { reserved: 0n, payout: 0n, settledCount: 0, settledAmount: 0n, feesBurned: 0n };
    this.providers.set(address, { operator, stake, ...none, faults: 0, faultAmount: 0n });
  }

  addBudget(address: Address, budget: Pick<BudgetAccount, 'delegate' | 'capPerLease' | 'capInAll' | 'balance'>): void {
    this.#minted += budget.balance;
    this.budgets.set(address, { ...budget, locked: 0n, spent: 0n });
  }

  /** Told of every change of a lease, at once; who is far away delays it himself. */
  watch(watcher: (lease: LeaseAccount) => void): void {
    this.#watchers.push(watcher);
  }

  leaseAddress(budget: Address, quote: string): Address {
    return encodeAddress(new Uint8Array(createHash('sha256').update(`${budget}/${quote}`).digest()));
  }

  providerAccount(address: Address): (ProviderAccount & { stake: BaseUnits; reserved: BaseUnits }) | undefined {
    const account = this.providers.get(address);
    if (account === undefined) return undefined;
    return { ...account, stake: baseUnits(account.stake), reserved: baseUnits(account.reserved) };
  }

  /** Signs, and remembers who signed what. */
  sign(key: KeyPair, transaction: Omit<Transaction, 'signatures'>): Uint8Array {
    const message = messageOf(transaction);
    this.#signed.add(`${key.address} ${Buffer.from(message).toString('latin1')}`);
    return key.sign(message);
  }

  /** True when this key really signed the opening of this lease on exactly these terms. */
  hasSignedOpening(signer: Address, { address, terms }: LeaseAccount): boolean {
    const message = messageOf({ event: 'open', lease: address, terms });
    return this.#signed.has(`${signer} ${Buffer.from(message).toString('latin1')}`);
  }

  /** `done` hears undefined for success; it may never have been executed, or have been all the same: chain/not-confirmed. */
  submit(transaction: Transaction, done: (refusal: MoltError | undefined) => void): void {
    const { from, to } = this.faults.delayMs;
    const isLost = this.#chance.happens(this.faults.lossShare);
    const isUnheard = this.#chance.happens(this.faults.lossShare);
    this.#world.count('transactions');
    this.#world.after(this.#chance.between(from, to), `chain ${transaction.event}`, undefined, () => {
      let refusal: MoltError | undefined;
      if (!isLost) {
        try {
          this.#execute(transaction);
        } catch (error) {
          if (!(error instanceof MoltError)) throw error;
          refusal = error;
        }
      }
      const lost = refuse('chain/not-confirmed', 'the transaction was sent, its fate is not known yet');
      this.#world.trace(`chain ${transaction.event} ${refusal?.code ?? (isLost ? 'lost' : 'done')}`);
      done(isLost || (isUnheard && refusal === undefined) ? lost : refusal);
    });
  }

  /** Throws `Violation` when a token appeared or vanished, or more is locked than there is. */
  assertConserved(): void {
    let sum = this.#burned;
    for (const address of this.providers.keys()) sum += this.#heldByProvider(address);
    for (const address of this.budgets.keys()) sum += this.#heldByBudget(address);
    if (sum !== this.#minted) throw new Violation(`money is not conserved: ${sum} instead of ${this.#minted}`);
  }

  /**
   * The same after one transaction, which can have touched the accounts of its lease alone: what they held before it,
   * with what was burned, they hold after it. A large market has thousands of accounts.
   */
  #assertMoved({ provider, budget }: Terms, before: bigint): void {
    const sum = this.#heldBy(provider, budget);
    if (sum !== before) throw new Violation(`money is not conserved: ${sum} instead of ${before} after a transaction`);
  }

  #heldBy(provider: Address, budget: Address): bigint {
    return this.#heldByProvider(provider) + this.#heldByBudget(budget) + this.#burned;
  }

  #heldByProvider(address: Address): bigint {
    const { stake, reserved, payout } = this.providers.get(address) ?? NOTHING;
    if (reserved < 0n || reserved > stake) throw new Violation(`${address} has ${reserved} of ${stake} reserved`);
    return stake + payout;
  }

  #heldByBudget(address: Address): bigint {
    const { balance, locked, spent, capInAll } = this.budgets.get(address) ?? NOTHING;
    if (locked < 0n || locked > balance) throw new Violation(`budget ${address} has ${locked} of ${balance} locked`);
    if (spent > capInAll) throw new Violation(`budget ${address} spent ${spent}, its cap is ${capInAll}`);
    return balance;
  }

  #execute(transaction: Transaction): void {
    const { event, lease: address } = transaction;
    const lease = event === 'open' ? this.#draft(transaction) : this.leases.get(address);
    if (lease === undefined) throw refuse('chain/account-missing', `there is no lease ${address}`);
    const next = nextLeaseState(lease.state, event);
    if (next === undefined) throw refuse('chain/refused', `a lease that is ${lease.state} cannot ${event}`);
    this.#assertSigned(transaction, lease.terms);
    this.#assertInTime(event, lease);
    const paid = this.#amountOf(transaction, lease);
    const held = this.#heldBy(lease.terms.provider, lease.terms.budget);
    if (event === 'open') this.#lock(lease);
    if (event === 'submitProof') Object.assign(lease, { claimed: transaction.amount ?? 0n, provenMs: this.nowMs() });
    if (isLeaseEnd(next)) {
      lease.paid = paid;
      this.#close(lease, paid, event === 'expire' || event === 'resolveForBuyer');
    }
    if (next === 'disputed') this.#resolveLater(lease);
    this.#assertMoved(lease.terms, held);
    lease.state = next;
    lease.last = event;
    for (const watcher of this.#watchers) watcher(lease);
  }

  #resolveLater({ address }: LeaseAccount): void {
    const isBroken = this.late.has(address) || this.wrong.has(address);
    const event = isBroken ? 'resolveForBuyer' : 'resolveForProvider';
    this.#world.after(this.#chance.between(VOTES_MS.from, VOTES_MS.to), 'verifiers have voted', undefined, () =>
      this.#execute({ event, lease: address, signatures: new Map() }),
    );
  }

  #draft({ lease: address, terms }: Transaction): LeaseAccount {
    if (terms === undefined || this.leases.has(address)) throw refuse('chain/refused', 'the lease was opened already');
    return { address, terms, state: 'none', openedMs: this.nowMs(), provenMs: 0, claimed: 0n, paid: 0n, last: 'open' };
  }

  #assertSigned(transaction: Transaction, terms: Terms): void {
    const { by } = LEASE_EVENTS[transaction.event];
    const message = messageOf(transaction);
    for (const role of by === 'anyone' ? [] : by.split('+')) {
      const who = role === 'delegate' ? terms.delegate : terms.operator;
      const signature = transaction.signatures.get(who);
      if (signature === undefined || !verifySignature(message, signature, decodeAddress(who)))
        throw refuse('chain/refused', `${transaction.event} needs the signature of the ${role} ${who}`);
    }
  }

  #assertInTime(event: LeaseEvent, { terms, provenMs }: LeaseAccount): void {
    const nowMs = this.nowMs();
    const lastMs = terms.finishByMs + terms.graceMs;
    if (event === 'open' && nowMs > terms.openBeforeMs) throw refuse('chain/too-late', 'open-before has passed');
    if (event === 'submitProof' && nowMs > lastMs) throw refuse('chain/too-late', 'the time for the proof has passed');
    if (event === 'expire' && nowMs <= lastMs) throw refuse('chain/too-early', 'the lease can still be proven');
    if (event === 'dispute' && nowMs > provenMs + terms.windowMs) throw refuse('chain/too-late', 'the window is over');
    if (event === 'settleLapsed' && nowMs <= provenMs + terms.windowMs)
      throw refuse('chain/too-early', 'the window is open');
  }

  /** What an end pays the provider; throws when it is more than is locked. */
  #amountOf({ event, amount = 0n }: Transaction, { terms, claimed, openedMs }: LeaseAccount): bigint {
    const seconds = BigInt(Math.max(0, Math.ceil((this.nowMs() - openedMs) / 1000)));
    const since = seconds * terms.pricePerSecond;
    const pays: Partial<Record<LeaseEvent, bigint>> = {
      settleAgreed: amount,
      settleWhole: terms.amount,
      settleClaimed: claimed,
      settleLapsed: claimed,
      resolveForProvider: claimed,
      submitProof: amount,
      cancelByDelegate: since < terms.amount ? since : terms.amount,
    };
    const paid = pays[event] ?? 0n;
    if (paid > terms.amount) throw refuse('chain/refused', `${paid} is more than the ${terms.amount} that are locked`);
    return paid;
  }

  #lock(lease: LeaseAccount): void {
    const { terms } = lease;
    const budget = this.budgets.get(terms.budget);
    const provider = this.providers.get(terms.provider);
    if (budget === undefined || provider === undefined || provider.operator !== terms.operator)
      throw refuse('chain/account-missing', 'budget or provider is not on this chain');
    if (budget.delegate !== terms.delegate) throw refuse('chain/budget-limit', 'the budget has another delegate');
    if (terms.amount > budget.capPerLease || budget.spent + terms.amount > budget.capInAll)
      throw refuse('chain/budget-limit', 'the lease is over a cap of the budget');
    if (budget.balance - budget.locked < terms.amount) throw refuse('chain/budget-empty', 'the budget cannot pay');
    if (provider.stake - provider.reserved < terms.reserve)
      throw refuse('chain/stake-too-low', 'the stake is reserved');
    budget.locked += terms.amount;
    budget.spent += terms.amount;
    provider.reserved += terms.reserve;
    this.leases.set(lease.address, lease);
  }

  #close({ terms }: LeaseAccount, paid: bigint, isFault: boolean): void {
    const budget = this.budgets.get(terms.budget)!;
    const provider = this.providers.get(terms.provider)!;
    const [burn, fee] = [(paid * BURN_BPS) / 10_000n, (paid * STAKE_FEE_BPS) / 10_000n];
    budget.locked -= terms.amount;
    budget.spent -= terms.amount - paid;
    budget.balance -= paid;
    provider.reserved -= terms.reserve;
    provider.payout += paid - burn - fee;
    provider.stake += fee;
    this.#burned += burn;
    if (isFault) {
      const slashed = terms.reserve / 2n;
      provider.stake -= slashed;
      budget.balance += slashed;
      provider.faults++;
      provider.faultAmount += terms.amount;
    } else if (paid > 0n) {
      provider.settledCount++;
      provider.settledAmount += paid;
      provider.feesBurned += burn;
    }
  }
}

/** What is signed. */
function messageOf({ event, lease, terms, amount }: Omit<Transaction, 'signatures'>): Uint8Array {
  const content = [event, lease, terms, amount];
  return Buffer.from(
    JSON.stringify(content, (_key, value: unknown) => (typeof value === 'bigint' ? `${value}` : value)),
  );
}

function refuse(code: ErrorCode, message: string): MoltError {
  return new MoltError(code, message);
}
