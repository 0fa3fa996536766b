/**
 * A gang of the simulation: the real gang machine (market/gang.ts) in a shell as sdk/gang-run.ts: bids that hold their
 * quotes, leases that are signed before any is opened, members as attempts of their own. Each lease is opened by its own
 * transaction, so that some may open while others do not. Replicas are a gang whose results are compared (comparison.ts).
 */
import {
  type BidderOrder,
  type GangEffect,
  type GangEvent,
  type GangOrder,
  type GangState,
  type Seat,
  type VerifiedQuote,
  createGang,
  decideGang,
  replacementRefusal,
  shareOfCeiling,
  voteByMs,
} from '../../market/index.ts';
import type { Address } from '../../protocol/address.ts';
import { MoltError } from '../../protocol/errors.ts';
import { LIMITS } from '../../protocol/limits.ts';
import { type BaseUnits, baseUnits } from '../../protocol/units.ts';
import { Attempt, isLeftAlone } from './attempt.ts';
import { type Buyer, Purchase } from './buyer.ts';
import { Comparison } from './comparison.ts';
import type { Task } from './engine.ts';
import type { Committed } from './spending.ts';
import { Violation } from './world.ts';

/** The provider that has one slot, or is to have it. */
interface Place {
  readonly attempt: Attempt;
  committed?: Committed;
  /** The provider has signed, or not. */
  hasAnswered: boolean;
  hasStarted: boolean;
  onAnswered?: () => void;
}

type Done = (error: MoltError | undefined) => void;

const SPARE_QUOTES = 3;
const VOTE_LOOK_MS = 10_000;

export interface GangWish extends Omit<GangOrder, 'shapes'> {
  readonly slots: number;
  /** True: the members do the same, and are paid where more than half agree. */
  readonly isCompared?: boolean;
}

export class GangPurchase {
  readonly buyer: Buyer;
  /** Of one slot. */
  readonly order: BidderOrder;
  readonly slots: number;
  state: GangState;
  isVanished = false;
  outcome: 'delivered' | MoltError | undefined;
  /** Of all leases, those that were given up among them, as far as it is known. */
  paid = 0n;
  readonly #task: Task;
  readonly #comparison: Comparison | undefined;
  /** Those who came to a result that counts. */
  readonly #delivered = new Set<number>();
  readonly #first: readonly GangEffect[];
  readonly #places = new Map<number, Place>();
  /** By lease: what it cost or, as long as nobody knows, what it has locked. */
  readonly #bound = new Map<Address, bigint>();
  #hasStarted = false;
  #asks: Purchase[] = [];

  constructor(buyer: Buyer, order: BidderOrder, task: Task, gang: GangWish) {
    const { slots, isCompared = false, ...rest } = gang;
    const enough = (): void => this.#do({ type: 'enough' });
    const { state, effects } = createGang({ ...rest, shapes: Array.from({ length: slots }, () => 0) });
    this.buyer = buyer;
    this.order = order;
    this.slots = slots;
    this.state = state;
    this.#task = task;
    this.#comparison = isCompared
      ? new Comparison(slots, () => buyer.after(0, 'has enough replicas', enough))
      : undefined;
    this.#first = effects;
  }

  begin(): void {
    for (const effect of this.#first) this.#perform(effect);
  }

  cancel(): void {
    this.#do({ type: 'cancelled', error: new MoltError('job/cancelled', 'the gang was cancelled') });
  }

  #do(event: GangEvent): void {
    const { state, effects } = decideGang(this.state, event);
    this.state = state;
    for (const effect of effects) this.#perform(effect);
  }

  #perform(effect: GangEffect): void {
    switch (effect.type) {
      case 'ask':
        return this.#ask(effect);
      case 'sign':
        return this.#sign(effect.filling, effect.seats);
      case 'open':
        return this.#open(effect.filling, effect.ranks);
      case 'leave':
        return this.#leave(effect);
      case 'let-quotes-go':
        for (const ask of this.#asks.splice(0)) ask.release();
        return undefined;
      case 'start':
        return this.#start(effect.rank);
      case 'stop':
        return this.#places.get(effect.rank)?.attempt.stop();
      case 'forgo':
        return this.#comparison?.lose(effect.rank);
      case 'deliver':
      case 'fail':
        return this.#end(effect);
      default:
        return undefined;
    }
  }

  #ask(effect: GangEffect & { type: 'ask' }): void {
    const { afterMs, filling } = effect;
    if (afterMs === 0) return this.#askNow(effect);
    return this.buyer.after(afterMs, 'asks for a slot again', () => {
      if (this.state.filling === filling && this.state.phase === 'asking') this.#askNow(effect);
    });
  }

  #askNow({ filling, shape, slots, without }: GangEffect & { type: 'ask' }): void {
    const { buyer } = this;
    const quotesWanted = Math.min(LIMITS.quotesWanted, slots + SPARE_QUOTES);
    const voteBy = this.#comparison === undefined ? Infinity : this.#voteByMs();
    const at = { voteByMs: voteBy, nowMs: buyer.at.chain.nowMs() };
    const late = replacementRefusal(this.order.spec.maxDurationSeconds, at);
    if (late !== undefined) buyer.at.world.count('replacements that would come after the vote');
    const maxPrice = this.#shareLeft();
    const refusal = late ?? (maxPrice > 0n ? undefined : new MoltError('market/gang-incomplete', 'nothing is left'));
    if (refusal !== undefined) {
      return buyer.after(0, 'cannot ask for a slot', () => this.#do({ type: 'unquoted', filling, error: refusal }));
    }
    const finishByMs = Math.min(this.order.finishByMs ?? Infinity, voteBy);
    const wanted = { ...this.order, maxPrice, ...(finishByMs === Infinity ? {} : { finishByMs }) };
    const ask = new Purchase(
      buyer,
      { ...wanted, attempts: 1, quotesWanted, quotesNeeded: this.state.order.spread === 'any' ? 1 : slots, without },
      this.#task,
      {
        hold: (quotes) => {
          const { balance, locked } = buyer.at.chain.budgets.get(buyer.budget)!;
          this.#do({ type: 'quoted', filling, shape, quotes, budgetFree: balance - locked });
        },
        failed: (error) => this.#do({ type: 'unquoted', filling, error }),
      },
    );
    this.#asks.push(ask);
    buyer.asks.push(ask);
    ask.begin();
    return undefined;
  }

  /** What each vacant slot may lock: sdk/gang-run.ts. */
  #shareLeft(): BaseUnits {
    const held = this.state.seats.filter(({ state }) => state === 'held');
    const bound = [...this.#bound.values(), ...held.map(({ quote }) => quote?.content.amount ?? 0n)];
    const vacant = this.state.seats.filter(({ state }) => state === 'vacant').length;
    return baseUnits(shareOfCeiling(this.order.maxPrice * BigInt(this.slots), { bound, vacant }));
  }

  /** By the claims of those who run, or whose result waits: sdk/vote-time.ts. */
  #voteByMs(): number {
    const { chain } = this.buyer.at;
    const open = this.state.seats.flatMap(({ rank, state }) => {
      const lease = state === 'running' ? this.#places.get(rank)?.attempt.onChain : undefined;
      if (lease?.state !== 'running' && lease?.state !== 'proven') return [];
      const { terms, provenMs } = lease;
      return [{ windowMs: terms.windowMs, ...(lease.state === 'proven' ? { provenAtMs: provenMs } : {}) }];
    });
    return voteByMs(open, chain.nowMs());
  }

  /** Holds the vote in time to dispute what is outvoted. */
  #holdVote(comparison: Comparison): void {
    const { buyer } = this;
    if (this.outcome !== undefined || comparison.agreed !== undefined) return undefined;
    const leftMs = this.#voteByMs() - buyer.at.chain.nowMs();
    if (leftMs > 0)
      return buyer.after(Math.min(leftMs, VOTE_LOOK_MS), 'looks whether the vote is due', () =>
        this.#holdVote(comparison),
      );
    buyer.at.world.count('votes held before all were there');
    comparison.close();
    return this.#do({
      type: 'enough',
      error: new MoltError('market/finish-too-late', 'the vote is held with what is there'),
    });
  }

  #sign(filling: number, seats: readonly Seat[]): void {
    for (const { rank, quote } of seats) {
      if (quote === undefined) continue;
      const place = this.#placeFor(filling, rank, quote);
      this.#places.set(rank, place);
      this.buyer.commit(quote.content.amount, (result) => {
        if (result instanceof MoltError) return this.#answered(place, () => this.#refuse(filling, rank, result));
        place.committed = result;
        return place.attempt.accept();
      });
    }
  }

  #refuse(filling: number, rank: number, error: MoltError): void {
    this.#do({ type: 'refused', filling, rank, error });
  }

  #answered(place: Place, tell: () => void): void {
    place.hasAnswered = true;
    tell();
    place.onAnswered?.();
  }

  #placeFor(filling: number, rank: number, quote: VerifiedQuote): Place {
    const comparison = this.#comparison;
    const attempt = new Attempt(this.buyer, quote, this.#task, {
      ...(comparison === undefined
        ? {}
        : {
            agree: (result: string, done: Done) => comparison.agree(rank, result, this.#watched(attempt, result, done)),
          }),
      signed: () => this.#answered(place, () => this.#do({ type: 'signed', filling, rank })),
      opened: () => {
        this.#bound.set(attempt.lease, quote.content.amount);
        this.#do({ type: 'opened', filling, ranks: [rank] });
      },
      delivered: (paid) => {
        this.#count(place, paid);
        this.#delivered.add(rank);
        this.#do({ type: 'delivered', rank });
      },
      failed: (error) => {
        if (!place.hasAnswered) return this.#answered(place, () => this.#refuse(filling, rank, error));
        if (!place.hasStarted) return this.#do({ type: 'unopened', filling, ranks: [rank], error });
        const lose = (): void => {
          this.#count(place, attempt.paid(error));
          this.#do({ type: 'lost', rank, error });
        };
        return isLeftAlone(error) ? lose() : attempt.leave(true, lose);
      },
    });
    const place: Place = { attempt, hasAnswered: false, hasStarted: false };
    return place;
  }

  /** What is settled is agreed, and never what was outvoted. */
  #watched({ lease }: Attempt, result: string, done: Done): Done {
    const { chain, world } = this.buyer.at;
    chain.waiting.set(lease, world.nowMs);
    return (error) => {
      chain.waiting.delete(lease);
      const { agreed } = this.#comparison ?? {};
      if (error === undefined && agreed !== result)
        throw new Violation(`${this.buyer.name} is to pay for ${result}, the replicas agree on ${agreed}`);
      if (error?.code === 'proof/outvoted') this.buyer.at.chain.outvoted.add(lease);
      done(error);
    };
  }

  #count({ attempt, committed }: Place, paid: bigint | undefined): void {
    if (paid !== undefined) this.#bound.set(attempt.lease, paid);
    this.paid += paid ?? 0n;
    committed?.end(paid);
  }

  #open(filling: number, ranks: readonly number[]): void {
    for (const rank of ranks) {
      if (this.#places.get(rank)?.attempt.isConnected === true) continue;
      const message = 'the provider went away before the leases were opened';
      return this.#refuse(filling, rank, new MoltError('mesh/closed', message));
    }
    for (const rank of ranks) this.#places.get(rank)?.attempt.open();
    return undefined;
  }

  #leave({ filling, rank, mayBeOpen }: GangEffect & { type: 'leave' }): void {
    const place = this.#places.get(rank);
    const left = (): void => {
      this.#places.delete(rank);
      this.#do({ type: 'left', filling, rank });
    };
    if (place === undefined) return this.buyer.after(0, 'had no place', left);
    const leave = (): void =>
      place.attempt.leave(mayBeOpen, () => {
        this.#count(place, place.attempt.onChain === undefined ? 0n : place.attempt.paid(undefined));
        left();
      });
    // What was asked for is waited for: a signature that comes late binds all the same.
    if (place.hasAnswered) return leave();
    place.onAnswered = leave;
    return undefined;
  }

  /** No member runs before every slot has its lease, and none of one provider where they are to be distinct. */
  #start(rank: number): void {
    const seats = this.state.seats.filter(({ state }) => state === 'running' || state === 'done');
    if (!this.#hasStarted && seats.length < this.slots)
      throw new Violation(`${this.buyer.name} starts a gang of ${seats.length}`);
    for (const { rank: one, quote } of seats) {
      if (this.#places.get(one)?.attempt.onChain === undefined)
        throw new Violation(`${this.buyer.name} starts slot ${rank} of a gang whose slot ${one} has no lease`);
      const twin = seats.find((seat) => seat.rank !== one && seat.quote?.signer === quote?.signer);
      if (twin !== undefined && this.state.order.spread === 'distinct-providers')
        throw new Violation(`${this.buyer.name} has slots ${one} and ${twin.rank} of a gang at one provider`);
    }
    if (!this.#hasStarted && this.#comparison !== undefined) this.#holdVote(this.#comparison);
    this.#hasStarted = true;
    const place = this.#places.get(rank);
    if (place === undefined) return;
    place.hasStarted = true;
    place.attempt.run();
  }

  #end(effect: GangEffect & { type: 'deliver' | 'fail' }): void {
    if (this.outcome !== undefined) throw new Violation(`a gang of ${this.buyer.name} ends twice`);
    this.outcome = effect.type === 'deliver' ? 'delivered' : (effect.error as MoltError);
    const results = this.#delivered.size;
    if (effect.type === 'deliver' && results < (this.state.order.quorum ?? this.slots))
      throw new Violation(`a gang of ${this.buyer.name} has ${results} of ${this.slots} results`);
    if (effect.type === 'deliver' && this.#comparison !== undefined) this.buyer.at.world.count('replicas delivered');
    this.buyer.at.world.trace(`${this.buyer.name} gang ends: ${effect.type}`);
  }
}
