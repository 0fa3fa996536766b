/**
 * The gang: n slots that run together or not at all, as a pure state machine: (state, event) → (state, effects).
 *
 * It fills whatever slots are vacant, all of them at first: asks for quotes and seats them, has every seat's lease
 * co-signed, and has the leases opened only when all are signed. Until then no money is locked and nobody runs. Where one
 * step fails for one slot, the whole filling is undone: what was signed is let go, what was opened is cancelled, and only
 * when all of that is done does the gang try again without the culprit, or end.
 *
 * Contract: no member starts before every slot has its open lease; a gang that is over has delivered n results, or as many
 * as its order says are enough, or has left every lease that it opened. A member that is lost later ends the others, or is
 * replaced while they go on, as the order says; by nobody who has or had a slot. Where enough are left without it and
 * nobody takes its place, the slot is forgone. Events of an earlier filling are dropped.
 */
import type { Address } from '../protocol/address.ts';
import { type ErrorCode, MoltError, hasCode } from '../protocol/errors.ts';
import { type BaseUnits, baseUnits, formatMolt } from '../protocol/units.ts';
import { type VerifiedQuote, isWorthRetrying } from './bidder.ts';

export interface GangOrder {
  /** One per slot, 1 … GANG_SLOTS_MAX: slots of one shape need the same and are asked for with one bid. */
  readonly shapes: readonly number[];
  readonly spread: 'any' | 'distinct-providers';
  readonly onLoss: 'fail' | 'replace';
  /** How often slots may be filled in all: the first time, again after a failure, and for members that were lost. */
  readonly fillings: number;
  /** So many members are enough: one that is lost beyond them, and that nobody replaces, is forgone. Default: all. */
  readonly quorum?: number;
}

export const GANG_SLOTS_MAX = 16;
/** Who has no room for a replacement now may have it when another job has ended. */
const ASK_AGAIN_MS = 3_000;

/** What one slot has. Leases exist, or may exist, from `signed` to `running` and in `leaving`. */
type SeatState =
  | 'vacant'
  | 'held'
  | 'signing'
  | 'signed'
  | 'opening'
  | 'open'
  | 'running'
  | 'leaving'
  | 'done'
  | 'gone';

export interface Seat {
  readonly rank: number;
  readonly shape: number;
  readonly state: SeatState;
  /** Of the provider that has the slot. */
  readonly quote?: VerifiedQuote;
}

export interface GangState {
  readonly order: GangOrder;
  readonly phase: 'asking' | 'signing' | 'opening' | 'leaving' | 'running' | 'ending' | 'over';
  /** 1 for the first. */
  readonly filling: number;
  readonly seats: readonly Seat[];
  /** Node keys that failed this gang, and the provider accounts that they sell for. */
  readonly failed: ReadonlySet<Address>;
  readonly failedProviders: ReadonlySet<Address>;
  /** What the members have suffices: nobody else is sought for a slot that is vacant. */
  readonly isEnough: boolean;
  /** Why this filling, or the gang, ends. */
  readonly error: unknown;
  /** Why the filling before failed: says more than that too few are left. */
  readonly earlier: unknown;
  /** The gang ends when nothing is open any more. */
  readonly isEnding: boolean;
}

export type GangEvent =
  /** Quotes for one slot each, best first, held open by the shell; `budgetFree` is what the budget can still lock. */
  | {
      readonly type: 'quoted';
      readonly filling: number;
      readonly shape: number;
      readonly quotes: readonly VerifiedQuote[];
      readonly budgetFree: bigint;
    }
  | { readonly type: 'unquoted'; readonly filling: number; readonly error: unknown }
  | { readonly type: 'signed'; readonly filling: number; readonly rank: number }
  /** The provider does not sign, or went away before anything was sent to the chain. */
  | { readonly type: 'refused'; readonly filling: number; readonly rank: number; readonly error: unknown }
  | { readonly type: 'opened'; readonly filling: number; readonly ranks: readonly number[] }
  | { readonly type: 'unopened'; readonly filling: number; readonly ranks: readonly number[]; readonly error: unknown }
  /** The lease of this slot is closed, was never opened, or is in the care of who expires it after its deadline. */
  | { readonly type: 'left'; readonly filling: number; readonly rank: number }
  | { readonly type: 'delivered'; readonly rank: number }
  /** The member ended without a result, and its lease was seen to. */
  | {
      readonly type: 'lost';
      readonly rank: number;
      readonly error: unknown;
      /** It came to a result before: nobody is sought in its place. */
      readonly hasResult?: boolean;
    }
  /** What is there suffices, or must do for this reason: nobody else is sought. Who runs goes on. */
  | { readonly type: 'enough'; readonly error?: MoltError }
  | { readonly type: 'cancelled'; readonly error: unknown };

/** What a person following the gang is told. */
export type GangNews =
  | {
      readonly type: 'seated';
      readonly rank: number;
      readonly provider: Address;
      readonly node: Address;
      readonly pricePerSecond: BaseUnits;
      readonly amount: BaseUnits;
    }
  /** Every slot has its open lease. */
  | { readonly type: 'gang-opened'; readonly slots: number; readonly locked: BaseUnits }
  /** What was signed or opened is given up again. */
  | {
      readonly type: 'gang-undone';
      readonly code: ErrorCode;
      readonly reason: string;
      readonly retrying: boolean;
      /** The gang ends; else those who have their slot go on. */
      readonly ending: boolean;
    }
  | {
      readonly type: 'member-lost';
      readonly rank: number;
      readonly node: Address;
      readonly code: ErrorCode;
      readonly reason: string;
      readonly replacing: boolean;
      /** The others are stopped. */
      readonly ending: boolean;
    };

export type GangEffect =
  | { readonly type: 'tell'; readonly news: GangNews }
  /** A bid for slots of one shape, not to these nodes. Ends as `quoted` or `unquoted`. */
  | {
      readonly type: 'ask';
      readonly filling: number;
      readonly shape: number;
      readonly slots: number;
      /** Nobody was found a moment ago: so long a pause comes first. */
      readonly afterMs: number;
      readonly without: ReadonlySet<Address>;
    }
  /** Ends as `signed` or `refused` for each. */
  | { readonly type: 'sign'; readonly filling: number; readonly seats: readonly Seat[] }
  /** Ends as `opened` or `unopened` for each slot, or as `refused` for one where nothing was sent to the chain. */
  | { readonly type: 'open'; readonly filling: number; readonly ranks: readonly number[] }
  /** Ends as `left`. */
  | { readonly type: 'leave'; readonly filling: number; readonly rank: number; readonly mayBeOpen: boolean }
  /** No quote of this filling is wanted any more: they are let go, also those that an `ask` still brings. */
  | { readonly type: 'let-quotes-go'; readonly filling: number }
  /** Hands over the job. Ends as `delivered` or `lost`. */
  | { readonly type: 'start'; readonly rank: number }
  /** Ends the run of this member early. Ends as `delivered` or `lost`. */
  | { readonly type: 'stop'; readonly rank: number }
  /** Where fewer than all are enough: nobody will come to this slot any more. */
  | { readonly type: 'forgo'; readonly rank: number }
  | { readonly type: 'deliver' }
  | { readonly type: 'fail'; readonly error: unknown };

export interface GangDecision {
  readonly state: GangState;
  readonly effects: readonly GangEffect[];
}

/** What a gang that was cut off had: members that go on, slots that nobody is sought for, and who failed. */
export interface GangBefore {
  readonly seats: readonly {
    readonly rank: number;
    readonly quote: VerifiedQuote;
    readonly state: 'running' | 'gone';
  }[];
  readonly failed: readonly VerifiedQuote[];
  readonly fillings: number;
}

/** A gang that nobody was asked for yet, or that goes on where it was cut off. Throws `protocol/invalid-spec` where the number of slots cannot be. */
export function createGang(order: GangOrder, before?: GangBefore): GangDecision {
  const count = order.shapes.length;
  if (count < 1 || count > GANG_SLOTS_MAX)
    throw new MoltError('protocol/invalid-spec', `a gang has 1 … ${GANG_SLOTS_MAX} slots, ${count} were asked for`);
  const seats = order.shapes.map((shape, rank): Seat => {
    const kept = before?.seats.findLast((seat) => seat.rank === rank);
    return kept === undefined ? { rank, shape, state: 'vacant' } : { ...kept, shape };
  });
  const state: GangState = {
    order,
    phase: 'running',
    filling: before?.fillings ?? 0,
    seats,
    failed: new Set(before?.failed.map(({ signer }) => signer)),
    failedProviders: new Set(before?.failed.map(({ content }) => content.provider)),
    isEnough: false,
    error: undefined,
    earlier: undefined,
    isEnding: false,
  };
  const starts = seats.flatMap(({ rank, state: was }): GangEffect[] =>
    was === 'running' ? [{ type: 'start', rank }] : [],
  );
  const isBarred = state.filling >= order.fillings && seats.some((seat) => seat.state === 'vacant');
  return addFirst(starts, isBarred ? afterLeaving(fault(state, incomplete(state, undefined))) : fill(state));
}

export function decideGang(state: GangState, event: GangEvent): GangDecision {
  if ('filling' in event && event.filling !== state.filling) return nothing(state);
  switch (event.type) {
    case 'quoted':
      return state.phase === 'asking' ? seatQuotes(state, event) : nothing(state);
    case 'unquoted':
      return state.phase === 'asking' ? undo(state, incomplete(state, event.error)) : nothing(state);
    case 'signed':
      return sign(state, event.rank);
    case 'refused':
      return refuse(state, event);
    case 'opened':
      return settleOpening(withSeats(state, event.ranks, 'opening', 'open'));
    case 'unopened':
      return settleOpening(fault(withSeats(state, event.ranks, 'opening', 'signed'), event.error));
    case 'left':
      return leave(state, event.rank);
    case 'delivered':
      return conclude(withSeats(state, [event.rank], 'running', 'done'));
    case 'lost':
      return lose(state, event);
    case 'enough':
      return suffice({ ...state, isEnough: true }, event.error);
    case 'cancelled':
      return cancel(state, event.error);
    default:
      return event satisfies never;
  }
}

/** Nodes that have a slot, or had one and failed. */
function taken({ order, seats, failed }: GangState): ReadonlySet<Address> {
  if (order.spread === 'any') return failed;
  const seated = seats.flatMap(({ quote }) => quote?.signer ?? []);
  return failed.union(new Set(seated));
}

/** Starts to fill what is vacant; `running` until then, and where nothing is. */
function fill(state: GangState): GangDecision {
  if (!state.seats.some((seat) => seat.state === 'vacant')) return nothing({ ...state, phase: 'running' });
  const { filling, error, earlier } = state;
  return ask({ ...state, phase: 'asking', filling: filling + 1, error: undefined, earlier: error ?? earlier });
}

function ask(state: GangState): GangDecision {
  const vacant = state.seats.filter((seat) => seat.state === 'vacant');
  const shape = vacant[0]?.shape ?? 0;
  const slots = vacant.filter((seat) => seat.shape === shape).length;
  const isAgain =
    vacant.length > 0 && isIncomplete(state.earlier) && state.seats.every((seat) => seat.state !== 'held');
  const afterMs = isAgain ? ASK_AGAIN_MS : 0;
  return { state, effects: [{ type: 'ask', filling: state.filling, shape, slots, afterMs, without: taken(state) }] };
}

/** A round that seats somebody is followed by another while slots are vacant; one that seats nobody is the last. */
function seatQuotes(state: GangState, { shape, quotes, budgetFree }: GangEvent & { type: 'quoted' }): GangDecision {
  let next = state;
  const effects: GangEffect[] = [];
  const held = state.seats.filter((seat) => seat.state === 'held');
  let left = held.reduce((sum, { quote }) => sum - (quote?.content.amount ?? 0n), budgetFree);
  for (const quote of quotes) {
    const seat = next.seats.find((one) => one.state === 'vacant' && one.shape === shape);
    if (seat === undefined) break;
    const { provider, pricePerSecond, amount } = quote.content;
    const isTaken = taken(next).has(quote.signer) || isSeatOf(next, provider);
    if (isTaken || isHeld(next, quote)) continue;
    if (amount > left) return undo(next, tooDear(state, budgetFree));
    left -= amount;
    next = withSeat(next, { ...seat, state: 'held', quote });
    const news = { type: 'seated', rank: seat.rank, provider, node: quote.signer, pricePerSecond, amount } as const;
    effects.push({ type: 'tell', news });
  }
  if (effects.length === 0) return undo(state, incomplete(state, undefined));
  const isFull = !next.seats.some((one) => one.state === 'vacant');
  return addFirst(effects, isFull ? startSigning(next) : ask(next));
}

/** One provider may answer with several nodes; for the chain it is one. */
function isSeatOf({ order, seats, failedProviders }: GangState, provider: Address): boolean {
  if (order.spread === 'any') return false;
  return failedProviders.has(provider) || seats.some(({ quote }) => quote?.content.provider === provider);
}

/** Whoever had this slot gets none of this gang again. */
function withFailed(state: GangState, seat: Seat | undefined): GangState {
  if (seat?.quote === undefined) return state;
  const { signer, content } = seat.quote;
  const failedProviders = new Set(state.failedProviders).add(content.provider);
  return { ...state, failed: new Set(state.failed).add(signer), failedProviders };
}

function isHeld({ seats }: GangState, { id }: VerifiedQuote): boolean {
  return seats.some(({ quote }) => quote?.id === id);
}

function startSigning(state: GangState): GangDecision {
  const held = state.seats.filter((seat) => seat.state === 'held');
  const ranks = held.map(({ rank }) => rank);
  const next = withSeats({ ...state, phase: 'signing' }, ranks, 'held', 'signing');
  return { state: next, effects: [{ type: 'sign', filling: state.filling, seats: held }] };
}

function sign(state: GangState, rank: number): GangDecision {
  if (state.phase !== 'signing') return nothing(state);
  const next = withSeats(state, [rank], 'signing', 'signed');
  if (next.seats.some((seat) => seat.state === 'signing')) return nothing(next);
  const ranks = next.seats.filter((seat) => seat.state === 'signed').map((seat) => seat.rank);
  const opening = withSeats({ ...next, phase: 'opening' }, ranks, 'signed', 'opening');
  return { state: opening, effects: [{ type: 'open', filling: state.filling, ranks }] };
}

function refuse(state: GangState, { rank, error }: GangEvent & { type: 'refused' }): GangDecision {
  if (state.phase !== 'signing' && state.phase !== 'opening') return nothing(state);
  return undo(withFailed(state, state.seats[rank]), error);
}

/** Waits for every transaction: what opens late is cancelled too. */
function settleOpening(state: GangState): GangDecision {
  if (state.phase !== 'opening' || state.seats.some((seat) => seat.state === 'opening')) return nothing(state);
  if (state.error !== undefined || state.isEnough) return undo(state, state.error);
  const open = state.seats.filter((seat) => seat.state === 'open');
  const ranks = open.map(({ rank }) => rank);
  const running = withSeats({ ...state, phase: 'running', earlier: undefined }, ranks, 'open', 'running');
  const leased = running.seats.filter((seat) => seat.state === 'running');
  const locked = baseUnits(leased.reduce((sum, { quote }) => sum + (quote?.content.amount ?? 0n), 0n));
  const news = { type: 'gang-opened', slots: state.seats.length, locked } as const;
  const effects: readonly GangEffect[] = [
    { type: 'let-quotes-go', filling: state.filling },
    { type: 'tell', news },
    ...ranks.map((rank) => ({ type: 'start', rank }) as const),
  ];
  // Members may have been lost while these were sought.
  return addFirst(effects, fill(running));
}

/** Gives up this filling: nothing of it stays signed, open or held. */
function undo(state: GangState, error: unknown): GangDecision {
  const { filling } = state;
  const bound = state.seats.filter((seat) => ['signing', 'signed', 'opening', 'open'].includes(seat.state));
  const leaving = bound.map(({ rank, state: was }): GangEffect => {
    // `signed` at the end of an opening is what the chain did not open, as far as is known.
    const mayBeOpen = state.phase === 'opening' && was !== 'signing';
    return { type: 'leave', filling, rank, mayBeOpen };
  });
  const seats = state.seats.map((seat): Seat => {
    if (seat.state === 'held') return vacate(seat);
    return bound.includes(seat) ? { ...seat, state: 'leaving' } : seat;
  });
  const next: GangState = { ...state, phase: 'leaving', seats, error: state.error ?? error };
  const isDone = bound.length === 0;
  const retrying = mayFillAgain(next);
  const ending = !retrying && !isEnoughLeft(forgone(next));
  const news = { type: 'gang-undone', ...wordsOf(next.error), retrying, ending } as const;
  // What is not needed any more did not fail.
  const told: readonly GangEffect[] = state.isEnough && next.error === undefined ? [] : [{ type: 'tell', news }];
  const effects: readonly GangEffect[] = [...told, { type: 'let-quotes-go', filling }, ...leaving];
  return addFirst(effects, isDone ? afterLeaving(next) : nothing(next));
}

function leave(state: GangState, rank: number): GangDecision {
  const seat = state.seats[rank];
  if (seat?.state !== 'leaving') return nothing(state);
  const next = withSeat(state, vacate(seat));
  return next.seats.some((one) => one.state === 'leaving') ? nothing(next) : afterLeaving(next);
}

function afterLeaving(state: GangState): GangDecision {
  if (mayFillAgain(state)) return fill(state);
  const without = forgone(state);
  const vacant = state.seats.filter((seat) => seat.state === 'vacant');
  const isEnding = !isEnoughLeft(without);
  const next = isEnding ? end(state, state.error) : conclude({ ...without, phase: 'running', error: undefined });
  return addFirst(forgo(state, vacant), next);
}

function forgo({ order }: GangState, seats: readonly Seat[]): readonly GangEffect[] {
  return order.quorum === undefined ? [] : seats.map(({ rank }) => ({ type: 'forgo', rank }));
}

/** Nobody is sought any more for what is vacant, or about to be. */
function forgone(state: GangState): GangState {
  const isOpen = (seat: Seat): boolean => seat.state === 'vacant' || seat.state === 'leaving';
  return { ...state, seats: state.seats.map((seat) => (isOpen(seat) ? { ...seat, state: 'gone' } : seat)) };
}

/** Who is on the way to the chain is waited for, and left then. */
function suffice(state: GangState, cause: MoltError | undefined): GangDecision {
  const why = cause && incomplete(state, cause);
  if (state.phase === 'asking' || state.phase === 'signing') return undo(state, why);
  return nothing(state.phase === 'opening' && why !== undefined ? fault(state, why) : state);
}

function mayFillAgain({ isEnding, isEnough, filling, order, error, seats }: GangState): boolean {
  // A gang that cannot begin says so; what runs is worth waiting for, unless time is short: it only gets shorter.
  const isFinal = isIncomplete(error) && (isTooLate(error) || !seats.some((seat) => seat.state === 'running'));
  return !isEnding && !isEnough && filling < order.fillings && isWorthRetrying(error) && !isFinal;
}

function lose(state: GangState, { rank, error, hasResult }: GangEvent & { type: 'lost' }): GangDecision {
  const seat = state.seats[rank];
  if (seat?.state !== 'running' || seat.quote === undefined) return nothing(state);
  const replacing = hasResult !== true && mayReplace(state, error);
  const failing = withFailed(state, seat);
  const without = withSeat(failing, { ...seat, state: 'gone' });
  const ending = !replacing && !isEnoughLeft(without);
  const news = { type: 'member-lost', rank, node: seat.quote.signer, ...wordsOf(error), replacing, ending } as const;
  const told: readonly GangEffect[] = [{ type: 'tell', news }];
  if (!replacing) return addFirst([...told, ...forgo(state, [seat])], ending ? end(without, error) : conclude(without));
  const next = withSeat(failing, vacate(seat));
  // A filling that is under way goes on; it finds this slot vacant when it is through.
  return addFirst(told, state.phase === 'running' ? fill(next) : nothing(next));
}

/** What came to a result, right or wrong, is not sought again. */
function mayReplace({ order, isEnding, isEnough, filling }: GangState, error: unknown): boolean {
  if (order.onLoss !== 'replace' || isEnding || isEnough || filling >= order.fillings) return false;
  return isWorthRetrying(error) && !hasCode(error, 'proof/outvoted', 'proof/no-majority');
}

/** Members that were lost are forgone where the others are as many as the order wants. */
function isEnoughLeft({ order: { quorum }, seats, isEnding }: GangState): boolean {
  return quorum !== undefined && !isEnding && seats.filter((seat) => seat.state !== 'gone').length >= quorum;
}

/** The gang is over when all have delivered, or enough and the others are gone, or when nothing is left of one that ends. */
function conclude(state: GangState): GangDecision {
  const isOver = (seat: Seat): boolean => seat.state === 'done' || (seat.state === 'gone' && isEnoughLeft(state));
  if (state.seats.every(isOver)) return { state: { ...state, phase: 'over' }, effects: [{ type: 'deliver' }] };
  return state.isEnding ? end(state, state.error) : nothing(state);
}

function cancel(state: GangState, error: unknown): GangDecision {
  return state.phase === 'over' || state.isEnding ? nothing(state) : end(state, error);
}

/** Stops who runs, leaves what is signed or open, and fails once nothing is left. The first reason is the reason. */
function end(state: GangState, error: unknown): GangDecision {
  const isFirst = !state.isEnding;
  const ending: GangState = { ...state, isEnding: true, error: isFirst ? error : state.error };
  const stops = state.seats
    .filter((seat) => isFirst && seat.state === 'running')
    .map(({ rank }) => ({ type: 'stop', rank }) as const);
  if (state.phase === 'asking' || state.phase === 'signing') return addFirst(stops, undo(ending, error));
  // Whatever is on its way to the chain is waited for, and left then.
  if (state.phase === 'opening') return { state: ending, effects: stops };
  const isBusy = state.seats.some((seat) => seat.state === 'running' || seat.state === 'leaving');
  const isLeaving = state.seats.some((seat) => seat.state === 'leaving');
  if (isBusy) return { state: { ...ending, phase: isLeaving ? 'leaving' : 'ending' }, effects: stops };
  return { state: { ...ending, phase: 'over' }, effects: [{ type: 'fail', error: ending.error }] };
}

function fault(state: GangState, error: unknown): GangState {
  return { ...state, error: state.error ?? error };
}

function incomplete({ seats, earlier, order }: GangState, cause: unknown): MoltError {
  const held = seats.filter((seat) => seat.state !== 'vacant').length;
  const why = cause instanceof MoltError ? ` (${cause.message})` : '';
  const isReplacing = seats.some((seat) => seat.state === 'running' || seat.state === 'done');
  if (isReplacing) {
    const isSought = ({ state }: Seat): boolean => !['held', 'running', 'done', 'gone'].includes(state);
    const sought = seats.filter(isSought).map(({ rank }) => rank);
    const message = `nobody else takes slot ${sought.join(' or ')}${why}`;
    return new MoltError('market/gang-incomplete', message, { slots: seats.length, found: held }, { cause });
  }
  const advice = order.quorum === undefined ? ', pay more, or let several run on one provider' : ' or pay more';
  const before = earlier instanceof MoltError ? `. Before that: ${earlier.message}` : '';
  return new MoltError(
    'market/gang-incomplete',
    `${held} of ${seats.length} slots found a provider${why}; nothing of them is kept. Ask for fewer slots${advice}${before}`,
    { slots: seats.length, found: held, cause: cause instanceof MoltError ? cause.code : undefined },
    { cause },
  );
}

function isIncomplete(error: unknown): boolean {
  return error instanceof MoltError && error.code === 'market/gang-incomplete';
}

function isTooLate(error: unknown): boolean {
  return error instanceof MoltError && hasCode(error.cause, 'market/finish-too-late');
}

function tooDear({ seats }: GangState, free: bigint): MoltError {
  return new MoltError(
    'chain/budget-empty',
    `the budget has ${formatMolt(free)} free, which does not lock ${seats.length} slots at the prices quoted; deposit more`,
  );
}

function wordsOf(error: unknown): { readonly code: ErrorCode; readonly reason: string } {
  const code = error instanceof MoltError ? error.code : 'job/provider-lost';
  return { code, reason: error instanceof Error ? error.message : String(error) };
}

function vacate({ rank, shape }: Seat): Seat {
  return { rank, shape, state: 'vacant' };
}

function withSeat(state: GangState, seat: Seat): GangState {
  return { ...state, seats: state.seats.with(seat.rank, seat) };
}

/** Moves those of the seats that are in one state to another. */
function withSeats(state: GangState, ranks: readonly number[], from: SeatState, to: SeatState): GangState {
  const seats = state.seats.map((seat) =>
    ranks.includes(seat.rank) && seat.state === from ? { ...seat, state: to } : seat,
  );
  return { ...state, seats };
}

function nothing(state: GangState): GangDecision {
  return { state, effects: [] };
}

function addFirst(effects: readonly GangEffect[], { state, effects: rest }: GangDecision): GangDecision {
  return { state, effects: [...effects, ...rest] };
}
