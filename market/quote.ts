/**
 * The two sides of a quote: how a provider answers a bid, and what a buyer insists on before accepting an answer.
 *
 * Deadlines of a lease are chain time, deadlines of messages are wall clock; the two may differ, so both are arguments.
 */
import type { Address } from '../protocol/address.ts';
import type { Verified } from '../protocol/brands.ts';
import type { ErrorCode, MoltError } from '../protocol/errors.ts';
import { OVERHEAD_ALLOWANCE_MS } from '../protocol/job.ts';
import { LIMITS } from '../protocol/limits.ts';
import {
  type Bid,
  type Feature,
  HARDWARE_TIER_SHOWN,
  type Message,
  type Quote,
  type Resources,
  type RuntimeKind,
  isTierAtLeast,
} from '../protocol/messages.ts';
import { type BaseUnits, U64_MAX, baseUnits, formatMolt } from '../protocol/units.ts';
import { fits } from './fit.ts';
import { type SellingPolicy, partnerRefusal, sizeRefusal, startRefusal, timeRefusal } from './policy.ts';
import { askPerSecond, ceilingDivide } from './price.ts';
import { refusal } from './refusal.ts';

/** What the provider knows of itself when it answers. */
export interface ProviderFacts {
  /** Provider account on chain. */
  readonly address: Address;
  /** Own and delegated stake, and the part of it that no open lease holds. */
  readonly stake: BaseUnits;
  readonly freeStake: BaseUnits;
  /** Of the chain's parameters: reserve ≥ amount × reserveBps / 10,000. */
  readonly reserveBps: number;
  readonly minGraceMs: number;
  readonly minWindowMs: number;
  /** Longest time from opening to `finishBy` that the chain admits. */
  readonly maxLeaseMs: number;
  readonly runtimes: readonly RuntimeKind[];
  readonly features: readonly Feature[];
  /** Empty when not told. */
  readonly region: string;
  /** True while the node finishes what runs and takes nothing new. */
  readonly draining: boolean;
}

export interface AnswerRequest {
  readonly bid: Verified<Message<Bid>>;
  readonly policy: SellingPolicy;
  readonly provider: ProviderFacts;
  readonly free: Resources;
  /** Share of the machine in use, 0 … 1. */
  readonly utilisation: number;
  /** As in the offer. */
  readonly speed: number;
  /** True when the module or image that the bid names is at hand. */
  readonly warm: boolean;
  /** Of the inputs that the bid names, those at hand. */
  readonly near: readonly string[];
  /** Wall clock. */
  readonly nowMs: number;
  /** The chain's clock. */
  readonly chainNowMs: number;
}

export type Answer = { readonly quote: Quote } | { readonly declined: MoltError };

/**
 * A firm quote, or the first reason against one: `protocol/expired`, `market/draining`, `market/buyer-refused`,
 * `market/image-refused`, `market/unsupported`, `market/tier-too-low`, `market/duration-too-long`, `market/closed`, `chain/stake-too-low`,
 * `market/reserve-too-high`, `market/start-too-late`, `market/no-capacity`, `market/price-too-low`, `market/lease-too-small`, `market/finish-too-late`, `market/declined`. Whether the bid asks this provider at all is `isAsked`'s question and comes first.
 */
export function answerBid(request: AnswerRequest): Answer {
  const declined = refusalBeforePrice(request);
  if (declined !== undefined) return { declined };
  const { bid, policy, provider } = request;
  const { pricePerSecondMax, durationSecondsMax, reserveMin } = bid.content;

  const ask = askPerSecond(policy, bid.content.need, request.utilisation);
  if (ask > pricePerSecondMax) {
    return decline(
      'market/price-too-low',
      `the price is ${formatMolt(ask)} a second, the bid pays at most ${formatMolt(pricePerSecondMax)}`,
      ask,
    );
  }
  const amount = ask * BigInt(durationSecondsMax);
  if (amount > U64_MAX) return decline('market/declined', `${durationSecondsMax} s cost more than one lease can lock`);
  const tooSmall = sizeRefusal(policy, amount);
  if (tooSmall !== undefined) return { declined: tooSmall };
  const required = ceilingDivide(amount * BigInt(provider.reserveBps), 10_000n);
  const reserve = required > reserveMin ? required : reserveMin;
  if (reserve > provider.freeStake) {
    const free = `${formatMolt(provider.freeStake)} are free`;
    if (required <= provider.freeStake) {
      const asked = `the bid asks for ${formatMolt(reserve)} of stake behind the lease, ${free}`;
      return decline('market/reserve-too-high', asked, provider.freeStake);
    }
    return decline('chain/stake-too-low', `${formatMolt(required)} of stake must stand behind the lease, ${free}`);
  }
  const times = quoteTimes(request);
  const leftMs = times.finishByMs - times.openBeforeMs;
  if (leftMs < durationSecondsMax * 1000) {
    const seconds = Math.max(0, Math.floor(leftMs / 1000));
    return decline(
      'market/finish-too-late',
      `the job may run ${durationSecondsMax} s and its lease may open until ${LIMITS.quoteLifetimeMs / 1000} s from now, which leaves ${seconds} s before the bid wants it finished`,
      BigInt(seconds),
    );
  }
  if (times.finishByMs - request.chainNowMs > provider.maxLeaseMs) {
    return decline(
      'market/duration-too-long',
      `the job may run ${durationSecondsMax} s, with time to prepare more than the ${provider.maxLeaseMs / 1000} s of one lease`,
    );
  }
  return {
    quote: {
      bid: bid.id,
      provider: provider.address,
      pricePerSecond: baseUnits(ask),
      amount: baseUnits(amount),
      reserve: baseUnits(reserve),
      ...times,
      speed: request.speed,
      warm: request.warm,
      near: request.near,
      startByMs: bid.content.startByMs,
    },
  };
}

function refusalBeforePrice(request: AnswerRequest): MoltError | undefined {
  const { bid, policy, provider } = request;
  const { need, runtime, features, region, durationSecondsMax, stakeMin } = bid.content;
  if (bid.expiresMs <= request.nowMs) {
    return refusal('protocol/expired', `the bid expired ${request.nowMs - bid.expiresMs} ms ago`);
  }
  if (provider.draining) {
    return refusal('market/draining', 'the provider finishes its running jobs and takes nothing new');
  }
  const partner = partnerRefusal(policy, bid);
  if (partner !== undefined) return partner;
  if (!provider.runtimes.includes(runtime)) {
    return refusal(
      'market/unsupported',
      `the job needs the ${runtime} runtime, the provider has ${provider.runtimes.join(' and ') || 'none'}`,
    );
  }
  const lacking = features.filter((feature) => !provider.features.includes(feature));
  if (lacking.length > 0) {
    return refusal('market/unsupported', `the job needs ${lacking.join(' and ')}, which the provider does not offer`);
  }
  if (region !== '' && region !== provider.region) {
    return refusal(
      'market/unsupported',
      `the job must run in region ${region}, the provider ${provider.region === '' ? 'names none' : `is in ${provider.region}`}`,
    );
  }
  const { hardwareTierMin } = bid.content;
  if (!isTierAtLeast(HARDWARE_TIER_SHOWN, hardwareTierMin)) {
    return refusal(
      'market/tier-too-low',
      `the bid asks for hardware of tier ${hardwareTierMin}, the provider can show ${HARDWARE_TIER_SHOWN}`,
    );
  }
  const overheadMs = LIMITS.quoteLifetimeMs + OVERHEAD_ALLOWANCE_MS;
  const untimely = timeRefusal(policy, durationSecondsMax, { nowMs: request.nowMs, overheadMs });
  if (untimely !== undefined) return untimely;
  const late = startRefusal(policy, bid.content.startByMs, request);
  if (late !== undefined) return late;
  if (stakeMin > provider.stake) {
    return refusal(
      'chain/stake-too-low',
      `the bid asks for ${formatMolt(stakeMin)} of stake, the provider has ${formatMolt(provider.stake)}`,
      provider.stake,
    );
  }
  const shortfall = fits(need, request.free);
  return shortfall === undefined ? undefined : refusal('market/no-capacity', shortfall.reason);
}

/** What the program takes. */
const WINDOW_MS_MAX = 30 * 86_400_000;

/**
 * A buyer that compares replicas may want to wait for the slowest before it pays, and for one that takes the place of
 * another that was lost: the window then lasts at most twice as long as the job itself may take from quote to proof.
 * Whoever vanishes makes his provider wait for its money as long.
 */
export function longestWindowMs(durationSecondsMax: number): number {
  return Math.min(2 * (LIMITS.quoteLifetimeMs + durationSecondsMax * 1000 + OVERHEAD_ALLOWANCE_MS), WINDOW_MS_MAX);
}

/** Whole seconds, as the chain keeps them: starts round down, spans round up. */
function quoteTimes(request: AnswerRequest): Pick<Quote, 'openBeforeMs' | 'finishByMs' | 'graceMs' | 'windowMs'> {
  const openBeforeMs = Math.floor((request.chainNowMs + LIMITS.quoteLifetimeMs) / 1000) * 1000;
  const { durationSecondsMax, finishByMs: wanted, windowMs } = request.bid.content;
  const ownWindowMs = Math.ceil(request.provider.minWindowMs / 1000) * 1000;
  const usual = openBeforeMs + durationSecondsMax * 1000 + OVERHEAD_ALLOWANCE_MS;
  return {
    openBeforeMs,
    // A tighter promise is the provider's risk: what takes too long before the run is given back in time (job.ts).
    finishByMs: wanted === 0 ? usual : Math.min(usual, wanted),
    graceMs: Math.ceil(request.provider.minGraceMs / 1000) * 1000,
    windowMs: Math.max(ownWindowMs, Math.min(windowMs, longestWindowMs(durationSecondsMax))),
  };
}

/** What the chain says about the provider that a quote names. */
export interface ProviderOnChain {
  readonly operator: Address;
  readonly stake: BaseUnits;
  readonly reserved: BaseUnits;
}

/** Money is locked until finish-by and grace are over, so a buyer bounds both. */
const FINISH_SLACK_MS = 3_600_000;
const GRACE_MS_MAX = 3_600_000;

/**
 * Throws unless the quote is one that the buyer may accept: `protocol/wrong-signer`, `market/quote-expired`, or
 * `market/quote-unacceptable` naming the term that breaks the bid, the chain or its own sums.
 */
export function acceptableQuote(request: {
  readonly quote: Verified<Message<Quote>>;
  /** The buyer's own bid. */
  readonly bid: { readonly id: string; readonly content: Bid };
  readonly provider: ProviderOnChain;
  readonly nowMs: number;
  readonly chainNowMs: number;
}): void {
  const { quote, bid, provider } = request;
  if (quote.signer !== provider.operator) {
    throw refusal(
      'protocol/wrong-signer',
      `the quote is signed by ${quote.signer}, the operator of ${quote.content.provider} is ${provider.operator}`,
    );
  }
  if (quote.expiresMs <= request.nowMs) {
    throw refusal('market/quote-expired', `the quote expired ${request.nowMs - quote.expiresMs} ms ago; bid again`);
  }
  for (const [holds, breach] of [
    ...promises(quote.content, bid),
    ...backing(quote.content, bid.content, provider),
    ...deadlines(quote.content, bid.content, request.chainNowMs),
  ]) {
    if (!holds)
      throw refusal('market/quote-unacceptable', `the quote of ${quote.content.provider} is refused: ${breach}`);
  }
}

type Term = readonly [holds: boolean, breach: string];

function promises(quote: Quote, bid: { readonly id: string; readonly content: Bid }): readonly Term[] {
  const { pricePerSecondMax, durationSecondsMax } = bid.content;
  const amount = quote.pricePerSecond * BigInt(durationSecondsMax);
  return [
    [quote.bid === bid.id, 'it answers another bid'],
    [
      new Set(quote.near).size === quote.near.length && quote.near.every((prefix) => bid.content.near.includes(prefix)),
      'it says to have inputs that the bid does not name',
    ],
    [
      quote.pricePerSecond <= pricePerSecondMax,
      `it asks ${formatMolt(quote.pricePerSecond)} a second, the bid pays at most ${formatMolt(pricePerSecondMax)}`,
    ],
    [
      quote.amount === amount,
      `it locks ${formatMolt(quote.amount)}, price times ${durationSecondsMax} s is ${formatMolt(amount)}`,
    ],
  ];
}

function backing(quote: Quote, bid: Bid, provider: ProviderOnChain): readonly Term[] {
  const freeStake = provider.stake - provider.reserved;
  return [
    [
      quote.reserve >= bid.reserveMin,
      `it reserves ${formatMolt(quote.reserve)} of stake, the bid asks for ${formatMolt(bid.reserveMin)}`,
    ],
    [
      provider.stake >= bid.stakeMin,
      `the provider has ${formatMolt(provider.stake)} of stake, the bid asks for ${formatMolt(bid.stakeMin)}`,
    ],
    [
      freeStake >= quote.reserve,
      `it reserves ${formatMolt(quote.reserve)} of stake, ${formatMolt(freeStake)} are free on chain`,
    ],
  ];
}

function deadlines(quote: Quote, bid: Bid, chainNowMs: number): readonly Term[] {
  const durationMs = bid.durationSecondsMax * 1000;
  const spareMs = quote.finishByMs - quote.openBeforeMs - durationMs;
  return [
    [quote.openBeforeMs > chainNowMs, 'the time to open its lease is over'],
    [
      quote.openBeforeMs <= chainNowMs + LIMITS.quoteLifetimeMs + LIMITS.clockPastMs,
      `its lease could be opened ${quote.openBeforeMs - chainNowMs} ms from now, which is too late`,
    ],
    [spareMs >= 0, `it leaves ${durationMs + spareMs} ms for a job that may run ${durationMs} ms`],
    [spareMs <= FINISH_SLACK_MS, `it keeps the money ${spareMs} ms longer than the job may run`],
    [
      bid.finishByMs === 0 || quote.finishByMs <= bid.finishByMs,
      `it promises to finish ${quote.finishByMs - bid.finishByMs} ms later than the bid asks`,
    ],
    [
      bid.startByMs === 0 || (quote.startByMs > 0 && quote.startByMs <= bid.startByMs),
      quote.startByMs === 0
        ? 'it promises no start, the bid asks for one'
        : `it promises to start ${quote.startByMs - bid.startByMs} ms later than the bid asks`,
    ],
    [
      quote.windowMs >= bid.windowMs,
      `its challenge window is ${quote.windowMs} ms, the bid asks for ${bid.windowMs} ms`,
    ],
    [quote.graceMs <= GRACE_MS_MAX, `its grace of ${quote.graceMs} ms is longer than ${GRACE_MS_MAX} ms`],
  ];
}

function decline(code: ErrorCode, message: string, enough?: bigint): Answer {
  return { declined: refusal(code, message, enough) };
}
