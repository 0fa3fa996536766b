/**
 * Why a provider earns or does not: what became of the bids that it heard, and which price, size or setting would have won.
 *
 * A bounded memory of the last bids, folded from the seller's effects, and the words made of it. A provider never learns
 * who won a bid that it quoted; what it can see is which live offers ask less for the same need, and that is what it is told.
 */
import type { ErrorCode, MoltError } from '../protocol/errors.ts';
import type { Address } from '../protocol/address.ts';
import type { Bid, Message, Offer } from '../protocol/messages.ts';
import { formatMolt } from '../protocol/units.ts';
import { type Wanted, judgeOffer, wantedOf } from './obstacle.ts';

export interface Sale {
  readonly bid: string;
  readonly atMs: number;
  readonly wanted: Wanted;
  /** `silent`: asked, and neither a quote nor a decline got out. */
  readonly outcome: 'silent' | 'declined' | 'quoted' | 'lost' | 'won';
  /** Why it was declined. */
  readonly refused?: { readonly code: ErrorCode; readonly reason: string; readonly enough?: string };
  /** What was quoted, base units a second, decimal. */
  readonly pricePerSecond?: string;
}

export interface Sales {
  readonly sinceMs: number;
  /** How often the node started again since. */
  readonly restarts: number;
  /** Bids heard that asked others. */
  readonly notAsked: number;
  /** The last that asked this provider, oldest first. */
  readonly sales: readonly Sale[];
  /** Older ones that were dropped. */
  readonly dropped: number;
}

export type SalesEvent =
  | { readonly type: 'not-asked' }
  | { readonly type: 'asked'; readonly bid: Message<Bid> }
  | { readonly type: 'declined'; readonly bid: string; readonly reason: MoltError }
  | { readonly type: 'quoted'; readonly bid: string; readonly pricePerSecond: bigint }
  /** The quote ended and was not accepted. */
  | { readonly type: 'lost'; readonly bid: string }
  | { readonly type: 'won'; readonly bid: string };

const SALES_MAX = 256;

export function createSales(sinceMs: number): Sales {
  return { sinceMs, restarts: 0, notAsked: 0, sales: [], dropped: 0 };
}

/** An older record than this says little about why a provider does not earn now. */
const KEPT_MS = 30 * 86_400_000;

/** The record of an earlier start goes on: bids that were under way then got no further. */
export function resumeSales(kept: Sales | undefined, nowMs: number): Sales {
  if (kept === undefined || kept.sinceMs > nowMs || nowMs - kept.sinceMs > KEPT_MS) return createSales(nowMs);
  const sales = kept.sales.map((sale) => (sale.outcome === 'quoted' ? ({ ...sale, outcome: 'lost' } as const) : sale));
  return { ...kept, sales, restarts: kept.restarts + 1 };
}

export function recordSale(record: Sales, event: SalesEvent, nowMs: number): Sales {
  if (event.type === 'not-asked') return { ...record, notAsked: record.notAsked + 1 };
  if (event.type === 'asked') {
    const sale: Sale = { bid: event.bid.id, atMs: nowMs, wanted: wantedOf(event.bid.content), outcome: 'silent' };
    const sales = [...record.sales, sale];
    const surplus = Math.max(0, sales.length - SALES_MAX);
    return { ...record, sales: sales.slice(surplus), dropped: record.dropped + surplus };
  }
  const change = changeBy(event);
  return { ...record, sales: record.sales.map((sale) => (sale.bid === event.bid ? { ...sale, ...change } : sale)) };
}

function changeBy(event: Exclude<SalesEvent, { type: 'not-asked' | 'asked' }>): Partial<Sale> {
  if (event.type === 'quoted') return { outcome: 'quoted', pricePerSecond: event.pricePerSecond.toString() };
  if (event.type !== 'declined') return { outcome: event.type };
  const { code, message, context } = event.reason;
  const enough = context['enough'] === undefined ? {} : { enough: String(context['enough']) };
  return { outcome: 'declined', refused: { code, reason: message, ...enough } };
}

/** What else the provider knows of itself and of the market. */
export interface SalesSituation {
  readonly self: Address;
  readonly draining: boolean;
  readonly peers: number;
  /** All live offers, the own one too. */
  readonly offers: readonly Message<Offer>[];
  readonly nowMs: number;
}

export interface SalesExplanation {
  readonly headline: string;
  /** What keeps bids away altogether. */
  readonly obstacles: readonly string[];
  /** Why bids were not won, most frequent first. */
  readonly reasons: readonly {
    readonly what: ErrorCode | 'lost' | 'silent';
    readonly bids: number;
    readonly text: string;
  }[];
}

export function explainSales(record: Sales, situation: SalesSituation): SalesExplanation {
  const { sales, notAsked, dropped } = record;
  const all = count(sales.length + dropped + notAsked, 'bid');
  const of = (outcome: Sale['outcome']): Sale[] => sales.filter((sale) => sale.outcome === outcome);
  const [declined, lost, won, open, silent] = [of('declined'), of('lost'), of('won'), of('quoted'), of('silent')];
  const shown = dropped === 0 ? '' : `; of the last ${sales.length}`;
  const counted = [
    `${declined.length} declined`,
    `${lost.length + won.length + open.length} quoted`,
    `${won.length} won`,
  ].join(', ');
  const byCode = Map.groupBy(declined, ({ refused }) => refused?.code ?? 'market/declined');
  const reasons = [...byCode].map(([what, group]) => ({ what, bids: group.length, text: declineText(what, group) }));
  return {
    headline: `${all} heard ${span(record, situation.nowMs)}, ${sales.length + dropped} asked this provider${shown}: ${counted}`,
    obstacles: obstaclesOf(record, situation),
    reasons: [
      ...reasons,
      ...(lost.length > 0 ? [{ what: 'lost' as const, bids: lost.length, text: lostText(lost, situation) }] : []),
      ...(silent.length > 0 ? [{ what: 'silent' as const, bids: silent.length, text: silentText(silent.length) }] : []),
    ].sort((a, b) => b.bids - a.bids),
  };
}

function obstaclesOf({ sales, notAsked, dropped }: Sales, { self, draining, peers, offers }: SalesSituation): string[] {
  const found: string[] = [];
  if (draining) found.push('the node drains and offers nothing: molt drain --undo sells again');
  if (peers === 0 && sales.length + dropped === 0)
    found.push('no peer is connected: name one in bootstrap, and see molt doctor');
  if (!draining && !offers.some(({ signer }) => signer === self))
    found.push('no offer of this node is live: see molt doctor');
  if (sales.length + dropped > 0 || peers === 0) return found;
  if (notAsked === 0)
    found.push('no buyer has bid where this node listens: nothing was wanted of its class and region');
  else
    found.push(
      'every bid asked others: each asks only the closest few of those whose offers suit; a lower price or more room suits more',
    );
  return found;
}

function declineText(code: ErrorCode, group: readonly Sale[]): string {
  const were = `${count(group.length, 'bid')} ${group.length === 1 ? 'was' : 'were'} declined`;
  if (code === 'market/price-too-low') return `${were} for the price: ${priceText(group)}`;
  if (code === 'market/duration-too-long') {
    const longest = Math.max(...group.map(({ wanted }) => wanted.durationSecondsMax));
    return `${were} for length: durationSecondsMax of ${longest} would have taken all`;
  }
  if (code === 'market/lease-too-small') {
    const least = group
      .map(({ wanted }) => BigInt(wanted.pricePerSecondMax) * BigInt(wanted.durationSecondsMax))
      .reduce((a, b) => (a < b ? a : b));
    return `${were} for size: the smallest would have paid at most ${formatMolt(least)}, which leaseAmountMin rules out`;
  }
  const last = group.at(-1)?.refused?.reason ?? '';
  if (code === 'market/no-capacity') return `${were} for want of room, last: ${last}`;
  if (code === 'chain/stake-too-low') return `${were} for want of stake, last: ${last}; molt stake adds some`;
  return `${were} (${code}), last: ${last}`;
}

/** Bids that pay less than a tenth of the ask tell a seller nothing about its price. */
const CUT_MAX_PERCENT = 90;

/** By how much less the asks would have met the ceilings: in percent, since every need has its own price. */
function priceText(group: readonly Sale[]): string {
  const cuts = group
    .flatMap(({ wanted, refused }) => {
      const ask = BigInt(refused?.enough ?? '0');
      return ask === 0n ? [] : [percentLess(ask, BigInt(wanted.pricePerSecondMax))];
    })
    .sort((a, b) => a - b);
  if (cuts.length === 0) return 'what they would have paid is not known';
  const [least] = cuts;
  const most = cuts.findLast((cut) => cut <= CUT_MAX_PERCENT);
  if (least === undefined || most === undefined) return 'they would have paid less than a tenth of what you ask';
  const first = cuts.filter((cut) => cut === least).length;
  const within = cuts.filter((cut) => cut <= CUT_MAX_PERCENT).length;
  const all =
    least === most ? '' : `, ${most} % less ${within === cuts.length ? `all ${within}` : `${within} of them`}`;
  return `asking ${least} % less would have got ${first === 1 ? 'one of them' : `${first} of them`} a quote${all}`;
}

function lostText(lost: readonly Sale[], { self, offers }: SalesSituation): string {
  const cuts = lost
    .flatMap((sale) => {
      const own = BigInt(sale.pricePerSecond ?? '0');
      const cheapest = cheapestOf(sale, self, offers);
      return cheapest === undefined || cheapest >= own ? [] : [percentLess(own, cheapest)];
    })
    .sort((a, b) => a - b);
  const most = cuts.at(-1);
  const were = `${count(lost.length, 'quote')} ${lost.length === 1 ? 'was' : 'were'} not taken`;
  if (most === undefined) {
    return `${were}, though no live offer asks less: buyers weigh history, stake, speed for the price and warmth too`;
  }
  return `${were}: others ask less now for ${cuts.length} of these; ${most} % less would be the lowest price for all of them`;
}

/** What the cheapest other live offer asks that could do this job. */
function cheapestOf({ wanted }: Sale, self: Address, offers: readonly Message<Offer>[]): bigint | undefined {
  return offers
    .filter(({ signer }) => signer !== self)
    .map((offer) => judgeOffer(offer, wanted, new Set()))
    .filter(({ obstacles }) => obstacles.length === 0)
    .map(({ pricePerSecond }) => BigInt(pricePerSecond))
    .reduce<bigint | undefined>((least, price) => (least === undefined || price < least ? price : least), undefined);
}

function silentText(bids: number): string {
  return `${count(bids, 'bid')} got no answer out: the buyer could not be reached, or is being answered now`;
}

/** Whole percent, rounded up, by which `price` must fall to be no more than `limit`. */
function percentLess(price: bigint, limit: bigint): number {
  return Number(((price - limit) * 100n + price - 1n) / price);
}

function span({ sinceMs, restarts }: Sales, nowMs: number): string {
  if (restarts === 0) return `in ${duration(nowMs - sinceMs)}`;
  const from = new Date(sinceMs).toISOString().slice(0, 16).replace('T', ' ');
  return `since ${from} UTC, over ${count(restarts, 'restart')}`;
}

function duration(ms: number): string {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 1) return `${Math.floor(ms / 1000)} s`;
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h`;
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`;
}
