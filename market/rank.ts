/**
 * Ranking: which quote to take, and why, in numbers and in words.
 *
 * A strategy is a list of criteria with weights; each criterion says 0 … 1 and a sentence. Everything that counts was
 * measured by the buyer, fixed by the quote, or is on chain. What a provider says of its own speed counts only in the
 * measure in which settled history backs the provider, and otherwise decides nothing but a tie.
 *
 * A small share of all bids goes by lot, so that the best quote is not the only one that ever wins and newcomers come to a
 * history. A buyer may put the quotes in an order of its own instead; it can leave quotes out and never bring one in.
 */
import type { Verified } from '../protocol/brands.ts';
import { MoltError, assert } from '../protocol/errors.ts';
import type { Bid, Message, Quote } from '../protocol/messages.ts';
import { type BaseUnits, formatMolt } from '../protocol/units.ts';
import { type HistoryParameters, type SettledHistory, MICRO, historyScore } from './history.ts';

export interface ProviderRecord extends SettledHistory {
  readonly stake: BaseUnits;
  readonly reserved: BaseUnits;
}

export interface Candidate {
  readonly quote: Verified<Message<Quote>>;
  /** The provider's account on chain. */
  readonly account: ProviderRecord;
  /** Round trip that the buyer measured; undefined when it did not. */
  readonly latencyMs: number | undefined;
  /** True when this provider already failed or refused this job: it is out. */
  readonly failedBefore: boolean;
  /** A fresh random number in [0, 1): the lot. */
  readonly draw: number;
  /** As its offer says; empty when it does not. Self-declared. */
  readonly region?: string;
}

export interface RankingContext {
  readonly bid: Bid;
  /** All that are still in. Never empty when a criterion is asked. */
  readonly candidates: readonly Candidate[];
  readonly history?: HistoryParameters;
  /** Where the buyer would like the job to run, though it may run elsewhere. */
  readonly regionWished?: string;
}

export type CriterionName = 'price' | 'speed' | 'stake' | 'history' | 'latency' | 'warm' | 'data' | 'region';

export interface Judgement {
  /** 0 … 1. */
  readonly value: number;
  /** For people. */
  readonly text: string;
}

export type Criterion = (candidate: Candidate, context: RankingContext) => Judgement;

export interface Reason extends Judgement {
  /** One of `CriterionName`, or a name of the buyer's own. */
  readonly what: string;
  /** Share of the score, 0 … 1; the weights of one strategy sum to 1. */
  readonly weight: number;
}

/** A buyer's own way to judge: the reasons for one candidate. The score is the sum of value × weight. */
export type Strategy = (candidate: Candidate, context: RankingContext) => readonly Reason[];

export interface RankedQuote {
  readonly quote: Verified<Message<Quote>>;
  readonly account: ProviderRecord;
  /** 0 … 1. */
  readonly score: number;
  readonly reasons: readonly Reason[];
  /** Is before better ones because the lot fell on it. */
  readonly byLot: boolean;
}

/** A buyer's own order: those of the given quotes that it would take, best first. They come in the order of the strategy. */
export type OwnRanking = (context: {
  readonly bid: Bid;
  readonly quotes: readonly RankedQuote[];
}) => readonly RankedQuote[];

const CRITERIA: Readonly<Record<CriterionName, Criterion>> = {
  price: judgePrice,
  history: judgeHistory,
  stake: judgeStake,
  speed: judgeSpeed,
  latency: judgeLatency,
  warm: judgeWarmth,
  data: judgeData,
  region: judgeRegion,
};

/**
 * Price first; history and stake together weigh almost as much, so that the cheapest stranger does not always win. Inputs at
 * hand are worth a price higher by a tenth.
 */
export const BALANCED_WEIGHTS: Readonly<Record<CriterionName, number>> = {
  price: 45,
  history: 20,
  stake: 10,
  speed: 10,
  latency: 5,
  warm: 3,
  data: 4,
  region: 3,
};

/** Share of bids in which the first place goes by lot, to each quote in proportion of its score. */
export const LOT_SHARE = 0.05;

/** A strategy from weights of any scale; a criterion without weight is left out. Weights must be ≥ 0 and not all zero. */
export function weightedStrategy(weights: Readonly<Partial<Record<CriterionName, number>>>): Strategy {
  const named = (Object.keys(CRITERIA) as CriterionName[])
    .map((what) => ({ what, weight: weights[what] ?? 0 }))
    .filter(({ weight }) => weight !== 0);
  const total = named.reduce((sum, { weight }) => sum + weight, 0);
  assert(
    named.every(({ weight }) => weight > 0) && Number.isFinite(total) && total > 0,
    'weights are positive numbers',
  );
  return (candidate, context) =>
    named.map(({ what, weight }) => ({ what, weight: weight / total, ...CRITERIA[what](candidate, context) }));
}

export const balanced: Strategy = weightedStrategy(BALANCED_WEIGHTS);

/**
 * Best first. Total and deterministic for given draws: equal scores are ordered by self-declared speed, then price, then
 * quote id, so the order in which quotes came in decides nothing. Candidates that failed before are left out. `lotShare`
 * is 0 … 1, by default LOT_SHARE.
 */
export function rank(request: {
  readonly bid: Bid;
  readonly candidates: readonly Candidate[];
  readonly strategy?: Strategy;
  readonly history?: HistoryParameters;
  readonly regionWished?: string;
  readonly lotShare?: number;
}): readonly RankedQuote[] {
  const { strategy = balanced, lotShare = LOT_SHARE, ...rest } = request;
  const context: RankingContext = {
    ...rest,
    candidates: request.candidates.filter(({ failedBefore }) => !failedBefore),
  };
  const scored = context.candidates.map((candidate) => {
    const reasons = strategy(candidate, context);
    const score = reasons.reduce((sum, { value, weight }) => sum + value * weight, 0);
    assert(Number.isFinite(score), 'a strategy gives finite values and weights');
    return { quote: candidate.quote, account: candidate.account, score, reasons, draw: candidate.draw };
  });
  const sum = scored.reduce((total, { score }) => total + Math.max(score, 0), 0);
  return scored
    .map(({ draw, ...ranked }) => {
      const share = sum === 0 ? 1 / scored.length : Math.max(ranked.score, 0) / sum;
      const byLot = scored.length > 1 && draw < lotShare * share;
      return { ...ranked, byLot, reasons: byLot ? [LOT_REASON, ...ranked.reasons] : ranked.reasons };
    })
    .sort((a, b) => Number(b.byLot) - Number(a.byLot) || compareRanked(a, b));
}

const LOT_REASON: Reason = {
  what: 'chance',
  value: 1,
  weight: 0,
  text: 'the lot fell on it: a share of bids goes by lot, so that everybody gets a turn',
};

/**
 * The buyer's own order of these quotes. Throws `market/ranking-failed` when the function throws, or gives anything but
 * some of the quotes that it was given, each once.
 */
export function rankedByBuyer(bid: Bid, quotes: readonly RankedQuote[], own: OwnRanking): readonly RankedQuote[] {
  let given: unknown;
  try {
    given = own({ bid, quotes });
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new MoltError('market/ranking-failed', `the buyer's own ranking threw: ${why}`, {}, { cause });
  }
  if (!Array.isArray(given)) {
    throw new MoltError('market/ranking-failed', "the buyer's own ranking must give an array of quotes, not a promise");
  }
  const left = new Set(quotes);
  return given.map((one: unknown) => {
    // Found by identity, so that what is taken is what was checked.
    if (left.delete(one as RankedQuote)) return one as RankedQuote;
    throw new MoltError(
      'market/ranking-failed',
      "the buyer's own ranking gave something that is not one of the quotes it was given, or one of them twice",
    );
  });
}

function compareRanked(a: RankedQuote, b: RankedQuote): number {
  if (a.score !== b.score) return b.score - a.score;
  const [left, right] = [a.quote.content, b.quote.content];
  if (left.speed !== right.speed) return right.speed - left.speed;
  if (left.pricePerSecond !== right.pricePerSecond) return left.pricePerSecond < right.pricePerSecond ? -1 : 1;
  return a.quote.id < b.quote.id ? -1 : Number(a.quote.id > b.quote.id);
}

function judgePrice({ quote }: Candidate, { candidates }: RankingContext): Judgement {
  const price = quote.content.pricePerSecond;
  const among = bestOf(candidates).price ?? price;
  const lowest = among < price ? among : price;
  const asked = `asks ${formatMolt(price)} a second`;
  if (price === lowest) {
    return { value: 1, text: candidates.length === 1 ? `${asked}, the only quote` : `${asked}, the lowest price` };
  }
  // One base unit more on both sides, so that a price of zero divides nothing.
  const value = ratio(lowest + 1n, price + 1n);
  return { value, text: `${asked}, the lowest is ${formatMolt(lowest)}` };
}

function judgeHistory({ account }: Candidate, { history }: RankingContext): Judgement {
  const value = ratio(historyScore(account, history), MICRO);
  const faults = Number(account.faults);
  const settled = `${account.settledCount} ${Number(account.settledCount) === 1 ? 'lease' : 'leases'} settled`;
  const kept = faults === 0 ? 'none left unproven' : `${faults} left unproven`;
  return { value, text: `${settled}, ${kept}` };
}

function judgeStake({ quote }: Candidate): Judgement {
  const { reserve, amount } = quote.content;
  const value = reserve === 0n ? 0 : ratio(reserve, reserve + amount);
  return { value, text: `puts ${formatMolt(reserve)} of stake behind a lease of ${formatMolt(amount)}` };
}

interface Best {
  readonly price: bigint | undefined;
  readonly worth: number;
}

/** Everybody is held against the same best: looked for once, or 10,000 quotes would be looked at 10,000 times each. */
const bests = new WeakMap<readonly Candidate[], Best>();

function bestOf(candidates: readonly Candidate[]): Best {
  const known = bests.get(candidates);
  if (known !== undefined) return known;
  let price: bigint | undefined;
  let best = 0;
  for (const candidate of candidates) {
    const { pricePerSecond } = candidate.quote.content;
    if (price === undefined || pricePerSecond < price) price = pricePerSecond;
    best = Math.max(best, worth(candidate));
  }
  const found = { price, worth: best };
  bests.set(candidates, found);
  return found;
}

const worth = ({ quote: { content } }: Candidate): number => content.speed / (Number(content.pricePerSecond) + 1);

/** Speed for the money: what one base unit buys of it, beside the best of the others. */
function judgeSpeed(candidate: Candidate, { candidates, history }: RankingContext): Judgement {
  const best = bestOf(candidates).worth;
  const backing = historyScore(candidate.account, history);
  const share = best === 0 ? 0 : worth(candidate) / best;
  const percent = Number(backing / 10_000n);
  const { speed } = candidate.quote.content;
  return {
    value: share * ratio(backing, MICRO),
    text: `says its speed is ${speed}, ${Math.round(share * 100)} % of the best for the price; its history backs ${percent} % of that`,
  };
}

/** A round trip of this long halves the value. */
const LATENCY_HALF_MS = 100;

function judgeLatency({ latencyMs }: Candidate): Judgement {
  if (latencyMs === undefined) return { value: 0, text: 'answers in a time that was not measured' };
  const value = LATENCY_HALF_MS / (LATENCY_HALF_MS + Math.max(0, latencyMs));
  return { value, text: `answers in ${Math.round(latencyMs)} ms` };
}

function judgeWarmth({ quote }: Candidate): Judgement {
  return quote.content.warm
    ? { value: 1, text: 'says it has the image at hand' }
    : { value: 0, text: 'has to fetch the image first' };
}

function judgeData({ quote }: Candidate, { bid }: RankingContext): Judgement {
  const [here, all] = [quote.content.near.length, bid.near.length];
  if (all === 0) return { value: 0, text: 'was not told which inputs the job has' };
  return { value: here / all, text: `says it has ${here} of ${all} ${all === 1 ? 'input' : 'inputs'} at hand` };
}

function judgeRegion({ region = '' }: Candidate, { regionWished = '' }: RankingContext): Judgement {
  if (regionWished === '') return { value: 0, text: 'may be anywhere' };
  if (region === regionWished) return { value: 1, text: `says it is in ${region}, as wished` };
  return { value: 0, text: region === '' ? `names no region` : `says it is in ${region}` };
}

/** a ÷ b as a number in 0 … 1, to six digits, for 0 ≤ a ≤ b, b > 0. */
function ratio(a: bigint, b: bigint): number {
  return Number((a * MICRO) / b) / Number(MICRO);
}
