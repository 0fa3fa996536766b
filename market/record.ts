/**
 * The record of one bid: every offer heard and what stood against it, every answer, the ranking and its reasons, and the
 * end. Folded from what the bidder tells; JSON, so that it can be kept; bounded, so that a big market does not fill a disk.
 */
import type { Address } from '../protocol/address.ts';
import { type ErrorCode, MoltError } from '../protocol/errors.ts';
import type { BidderNews } from './bidder.ts';
import type { OfferJudgement, Wanted } from './obstacle.ts';
import type { Reason } from './rank.ts';

export interface BidRecord {
  /** Empty when nobody suited and no bid went out. */
  readonly bid: string;
  /** Unix ms. */
  readonly atMs: number;
  readonly attempt: number;
  readonly wanted: Wanted;
  /** Of the job's resource class; `offers` holds the nearest of them. */
  readonly offersHeard: number;
  readonly offers: readonly OfferJudgement[];
  /** Nodes that the bid asked. */
  readonly asked: readonly Address[];
  readonly answers: readonly RecordedAnswer[];
  /** Best first. */
  readonly ranked: readonly RecordedRanking[];
  /** Providers that were tried and failed, in order. */
  readonly failures: readonly { readonly node: Address; readonly code: ErrorCode; readonly reason: string }[];
  /** Of a bid for several at once: for what it was, and who got a place by the time it was over. */
  readonly several?: SeveralPlaces;
  /** Absent while the job goes on. */
  readonly outcome?:
    | { readonly type: 'delivered' }
    | { readonly type: 'failed'; readonly code: string; readonly reason: string };
}

/** Slots of a gang, or replicas of one job. */
export interface SeveralPlaces {
  readonly noun: 'slot' | 'replica';
  readonly size: number;
  readonly taken: readonly { readonly node: Address; readonly rank: number }[];
}

export interface RecordedAnswer {
  readonly node: Address;
  /** A quote's price, base units a second, decimal. */
  readonly pricePerSecond?: string;
  readonly afterMs?: number;
  readonly refused?: { readonly code: ErrorCode; readonly reason: string; readonly enough?: string };
}

export interface RecordedRanking {
  readonly node: Address;
  readonly provider: Address;
  readonly pricePerSecond: string;
  readonly score: number;
  readonly reasons: readonly Reason[];
}

const ANSWERS_MAX = 64;

/** Adds one piece of news. `offers` begins a record; what comes before the first is dropped. */
export function recordNews(record: BidRecord | undefined, news: BidderNews, nowMs: number): BidRecord | undefined {
  if (news.type === 'offers') return newRecord(news, nowMs);
  if (record === undefined) return undefined;
  switch (news.type) {
    case 'bid':
      return {
        ...record,
        bid: news.bid,
        attempt: news.attempt,
        asked: news.asked,
        // Limits of the buyer's own may have lowered it.
        wanted: { ...record.wanted, pricePerSecondMax: news.pricePerSecondMax.toString() },
      };
    case 'quote': {
      const { node, pricePerSecond, afterMs } = news;
      return withAnswer(record, { node, pricePerSecond: pricePerSecond.toString(), afterMs });
    }
    case 'declined': {
      const { node, code, reason, enough } = news;
      const refused = { code, reason, ...(enough === undefined ? {} : { enough }) };
      const earlier = record.answers.find((answer) => answer.node === node);
      const rest = record.answers.filter((answer) => answer.node !== node);
      // A quote that turns out unacceptable stays a quote, with what spoke against it.
      return withAnswer({ ...record, answers: rest }, { ...earlier, node, refused });
    }
    case 'ranked':
      return {
        ...record,
        ranked: news.quotes.map((quote) => ({ ...quote, pricePerSecond: quote.pricePerSecond.toString() })),
      };
    case 'provider-failed': {
      const { node, code, reason } = news;
      return { ...record, failures: [...record.failures, { node, code, reason }] };
    }
    default:
      return news satisfies never;
  }
}

/** The job is over for this bid: with a result, or with why not. */
export function endRecord(record: BidRecord, error?: unknown): BidRecord {
  if (error === undefined) return { ...record, outcome: { type: 'delivered' } };
  const code = error instanceof MoltError ? error.code : 'defect';
  const reason = error instanceof Error ? error.message : 'something that is no error was thrown';
  return { ...record, outcome: { type: 'failed', code, reason } };
}

function newRecord({ count, judged, wanted }: BidderNews & { type: 'offers' }, atMs: number): BidRecord {
  return {
    bid: '',
    atMs,
    attempt: 1,
    wanted,
    offersHeard: count,
    offers: judged,
    asked: [],
    answers: [],
    ranked: [],
    failures: [],
  };
}

function withAnswer(record: BidRecord, answer: RecordedAnswer): BidRecord {
  if (record.answers.length >= ANSWERS_MAX) return record;
  return { ...record, answers: [...record.answers, answer] };
}
