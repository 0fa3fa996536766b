/**
 * For whom capacity is held while a quote is open, and how much of it. Pure.
 *
 * A hold costs its bidder nothing unless somebody counts, and identities are free, so three things that are not free bound
 * it. Money: a hold is given to a budget on chain that can pay for it, and all holds of a budget together are no more than
 * it has. Time: what was held in vain is counted per budget and per network range as a share of the machine times seconds,
 * which flows back slowly, and to a budget the more slowly the more it held in vain of late: a few squatters would otherwise
 * take turns for ever. A lease that opens costs nothing and forgives half. History: where a provider has buyers that paid it before, a
 * part of the machine stays out of reach of all strangers together, so that those always find room.
 */
import type { Address } from '../protocol/address.ts';
import type { MoltError } from '../protocol/errors.ts';
import { LIMITS } from '../protocol/limits.ts';
import type { Resources } from '../protocol/messages.ts';
import { formatMolt } from '../protocol/units.ts';
import type { Capacity } from './capacity.ts';
import { refusal } from './refusal.ts';

/** What a provider knows of a bidder. */
export interface BuyerStanding {
  /** The account that would pay, read from the chain; it names the bidder as a delegate. */
  readonly budget: Address;
  /** Base units that it can lease with now, and at once. */
  readonly free: bigint;
  readonly capPerLease: bigint;
  /** Network range that the bidder connects from; empty on the local network, whose addresses are shared. */
  readonly range: string;
  /** It paid for a lease of this provider before. */
  readonly isKnown: boolean;
}

/** A hold, kept with its reservation until the chain has the lease. */
export interface Hold {
  readonly budget: Address;
  readonly range: string;
  readonly isKnown: boolean;
  /** What its lease would lock. */
  readonly amount: bigint;
  /** Of the machine, 0 … 1: the dimension that it takes most of. */
  readonly share: number;
  readonly sinceMs: number;
}

interface Used {
  /** Share of the machine × seconds that have not flowed back. */
  readonly used: number;
  /** Share of the machine × seconds that were held in vain of late, flowed back or not. */
  readonly vain: number;
  readonly atMs: number;
}

/** What was held in vain, by whom: a budget, a range, all strangers. The one unchanged longest is forgotten first. */
export type HoldTime = ReadonlyMap<string, Used>;

/** At most this much is used up at a time: the whole machine twice for the life of a quote. */
const USED_MAX = (2 * LIMITS.quoteLifetimeMs) / 1000;
const STRANGERS = 'strangers';
const BUDGET = 'budget ';
/** Less than this in vain slows nothing down. */
const VAIN_KEPT = 1;
/** Share of the machine that flows back per second. */
const FLOWS_BACK = { stranger: 1 / 8, known: 1 / 2, range: 1 / 4, strangers: 1 / 2 } as const;
/** Share of the machine that may be held at a time. The first hold may be larger: a small machine is sold whole. */
const HELD_MAX = { range: 1 / 2, strangers: 3 / 4 } as const;
/** To a budget half as fast flows back for each so many machine seconds in vain: two quotes of the whole that ran out. */
const VAIN_HALVES = 60;
/** What was in vain counts half a day later. */
const VAIN_HALF_LIFE_MS = 24 * 3600 * 1000;
const NAMES_MAX = 2_048;

/** The hold that a quote would be; `total` is the machine. */
export function holdOf(
  standing: BuyerStanding,
  wanted: { readonly capacity: Capacity; readonly need: Resources; readonly amount: bigint },
  nowMs: number,
): Hold {
  const { budget, range, isKnown } = standing;
  const { need, amount, capacity } = wanted;
  return { budget, range, isKnown, amount, share: shareOf(capacity, need), sinceMs: nowMs };
}

/** Why this hold is not given, if so. `hasRegulars`: others paid this provider before, and room is kept for them. */
export function holdRefusal(
  hold: Hold,
  by: {
    readonly standing: BuyerStanding;
    readonly capacity: Capacity;
    readonly time: HoldTime;
    readonly hasRegulars: boolean;
  },
  nowMs: number,
): MoltError | undefined {
  const open = openHolds(by.capacity, nowMs);
  return moneyRefusal(hold, by.standing, open) ?? roomRefusal(hold, { ...by, open }, nowMs);
}

function moneyRefusal(hold: Hold, { free, capPerLease }: BuyerStanding, open: readonly Hold[]): MoltError | undefined {
  const { amount, budget } = hold;
  if (amount > free) {
    return refusal(
      'chain/budget-empty',
      `the lease locks ${formatMolt(amount)}, the budget has ${formatMolt(free)} free; deposit more, or shorten the job`,
    );
  }
  if (amount > capPerLease) {
    const most = formatMolt(capPerLease);
    return refusal(
      'chain/budget-limit',
      `the lease locks ${formatMolt(amount)}, the budget leases at most ${most} at once`,
    );
  }
  const promised = open.filter((one) => one.budget === budget).reduce((sum, one) => sum + one.amount, 0n);
  if (promised + amount <= free) return undefined;
  return refusal(
    'chain/budget-limit',
    `open quotes of this provider already count on ${formatMolt(promised)} of the ${formatMolt(free)} that the budget has free; accept them or let go of them first`,
  );
}

function roomRefusal(
  hold: Hold,
  by: { readonly time: HoldTime; readonly hasRegulars: boolean; readonly open: readonly Hold[] },
  nowMs: number,
): MoltError | undefined {
  const strangers = by.open.filter(({ isKnown }) => !isKnown);
  const held = (those: readonly Hold[]): number => those.reduce((sum, { share }) => sum + share, 0);
  if (!hold.isKnown) {
    const near = held(strangers.filter(({ range }) => hold.range !== '' && range === hold.range));
    if (near > 0 && near + hold.share > HELD_MAX.range)
      return noRoom('bidders of your network hold as much as they may', 0);
    const all = held(strangers);
    if (by.hasRegulars && all > 0 && all + hold.share > HELD_MAX.strangers)
      return noRoom('buyers without history here hold as much as they may', 0);
  }
  for (const [name, rate] of accountsOf(hold)) {
    if (name === STRANGERS && !by.hasRegulars) continue;
    const excess = usedOf(by.time, [name, rate], nowMs).used + costOf(hold) - USED_MAX;
    if (excess > 0)
      return noRoom(WHO[name.split(' ')[0] ?? ''] ?? '', excess / rateOf(by.time.get(name), [name, rate]));
  }
  return undefined;
}

const WHO: Readonly<Record<string, string>> = {
  budget: 'your budget held as much as it may',
  range: 'bidders of your network held as much as they may',
  strangers: 'buyers without history here held as much as they may',
};

function noRoom(who: string, seconds: number): MoltError {
  const when = seconds === 0 ? 'when quotes have ended' : `in ${Math.ceil(seconds)} s`;
  return refusal('market/no-capacity', `${who} without a lease; bid again ${when}`);
}

/** Counts a hold that is given now, for as long as its quote may live. */
export function beginHold(time: HoldTime, hold: Hold, nowMs: number): HoldTime {
  return change(time, hold, { used: costOf(hold), vain: 0, forgives: false }, nowMs);
}

/** Counts what it really was: the time that it held in vain, or nothing once the chain has its lease. */
export function endHold(time: HoldTime, hold: Hold, opened: boolean, nowMs: number): HoldTime {
  const seconds = opened ? 0 : Math.max(0, nowMs - hold.sinceMs) / 1000;
  const vain = hold.share * seconds;
  return change(time, hold, { used: vain - costOf(hold), vain, forgives: opened }, nowMs);
}

function change(
  time: HoldTime,
  hold: Hold,
  by: { readonly used: number; readonly vain: number; readonly forgives: boolean },
  nowMs: number,
): HoldTime {
  const changed = new Map(time);
  for (const account of accountsOf(hold)) {
    const [name] = account;
    const before = usedOf(time, account, nowMs);
    const used = Math.max(0, before.used + by.used);
    const vain = (before.vain + by.vain) * (by.forgives ? 1 / 2 : 1);
    changed.delete(name);
    if (used > 0 || vain > VAIN_KEPT) changed.set(name, { used, vain, atMs: nowMs });
  }
  const [oldest] = changed.keys();
  if (changed.size > NAMES_MAX && oldest !== undefined) changed.delete(oldest);
  return changed;
}

/** On whose account a hold goes, and how fast that flows back. */
function accountsOf({ budget, range, isKnown }: Hold): readonly (readonly [name: string, rate: number])[] {
  if (isKnown) return [[`${BUDGET}${budget}`, FLOWS_BACK.known]];
  return [
    [`${BUDGET}${budget}`, FLOWS_BACK.stranger],
    ...(range === '' ? [] : [[`range ${range}`, FLOWS_BACK.range] as const]),
    [STRANGERS, FLOWS_BACK.strangers],
  ];
}

function usedOf(
  time: HoldTime,
  account: readonly [string, number],
  nowMs: number,
): { readonly used: number; readonly vain: number } {
  const known = time.get(account[0]);
  if (known === undefined) return { used: 0, vain: 0 };
  const elapsedMs = Math.max(0, nowMs - known.atMs);
  const used = Math.max(0, known.used - (elapsedMs / 1000) * rateOf(known, account));
  return { used, vain: known.vain * 2 ** (-elapsedMs / VAIN_HALF_LIFE_MS) };
}

/** A range and all strangers are many people: what one of them does slows nobody else down. */
function rateOf(known: Used | undefined, [name, rate]: readonly [string, number]): number {
  return name.startsWith(BUDGET) ? rate * 2 ** (-(known?.vain ?? 0) / VAIN_HALVES) : rate;
}

function costOf({ share }: Hold): number {
  return (share * LIMITS.quoteLifetimeMs) / 1000;
}

/** Holds whose lease the chain does not have yet. */
function openHolds({ reservations }: Capacity, nowMs: number): readonly Hold[] {
  return [...reservations.values()].flatMap(({ hold, expiresMs }) =>
    hold !== undefined && (expiresMs ?? Infinity) > nowMs ? [hold] : [],
  );
}

function shareOf({ total, devices }: Capacity, need: Resources): number {
  const gpus = need.gpus.reduce((sum, { count }) => sum + count, 0);
  return Math.max(
    part(need.cpuMillis, total.cpuMillis),
    part(need.memoryBytes, total.memoryBytes),
    part(need.diskBytes, total.diskBytes),
    part(gpus, devices.length),
  );
}

function part(of: number, total: number): number {
  return total === 0 ? 0 : Math.min(1, of / total);
}
