/**
 * One bid and its answers: publishes, collects quotes on direct streams until enough have come, checks and ranks them.
 *
 * A quote's stream stays open while it may still be accepted; closing it tells the provider that its capacity is free
 * again. So `settleHolds` ends every bid, whatever came of it.
 */
import {
  type HistoryParameters,
  acceptableQuote,
  fits,
  isAsked,
  makeBid,
  nextSequence,
  pricePerSecondWithin,
  rank,
  type RankedQuote,
} from '../market/index.ts';
import type { Channel } from '../market/ports.ts';
import type { BudgetAccount, ProviderAccount } from '../chain/index.ts';
import type { Address } from '../protocol/address.ts';
import type { Verified } from '../protocol/brands.ts';
import { type Envelope, decodeEnvelope, sealEnvelope, verifyEnvelope } from '../protocol/envelope.ts';
import { MoltError, hasCode } from '../protocol/errors.ts';
import { type JobSpec, featuresOf } from '../protocol/job-spec.ts';
import { LIMITS } from '../protocol/limits.ts';
import {
  type Bid,
  type Message,
  type Offer,
  type Quote,
  decodeQuote,
  encodeBid,
  resourceClassOf,
} from '../protocol/messages.ts';
import { BASE_UNITS_PER_MOLT, type BaseUnits, formatMolt } from '../protocol/units.ts';
import { bidsTopic, decodeBidAnswer, fromRefusal } from '../protocol/wire.ts';
import type { Buyer } from './buyer.ts';
import type { RunOptions } from './options.ts';
import type { JobEvent } from './progress.ts';

export type VerifiedQuote = Verified<Message<Quote>>;

export interface Bidding {
  readonly bid: { readonly id: string; readonly content: Bid };
  /** Best first. Never empty. */
  readonly ranked: readonly RankedQuote[];
  readonly accounts: ReadonlyMap<Address, ProviderAccount>;
  /** Lets every hold go. Idempotent. */
  readonly letGo: () => Promise<void>;
}

export interface BidRequest {
  readonly spec: JobSpec;
  readonly maxPrice: BaseUnits;
  readonly options: RunOptions;
  readonly attempt: number;
  /** Node keys that failed this job. */
  readonly failed: ReadonlySet<Address>;
  readonly tell: (event: JobEvent) => void;
  readonly signal: AbortSignal;
}

const QUOTES_WANTED = 5;
const QUOTE_TIMEOUT_MS = 2_000;
const OFFERS_WAIT_MS = 5_000;
/** Once one quote is there, slower providers get this long. */
const STRAGGLER_MS = 250;

/** Throws `market/no-offers`, `market/no-quotes` (with every refusal heard), `market/no-capacity`. */
export async function bidFor(buyer: Buyer, request: BidRequest): Promise<Bidding> {
  const { spec, options, tell, signal } = request;
  await buyer.waitForOffers(OFFERS_WAIT_MS, signal);
  // Who sells GPUs sells processor time too.
  const resourceClass = resourceClassOf(spec.resources);
  const able = buyer.feed.book
    .list(resourceClass === 'gpu' ? resourceClass : undefined)
    .filter(({ content, signer }) => canRun(content, spec) && !request.failed.has(signer));
  // An offer may be some seconds old: when none has room, those who could are asked all the same and say it firmly.
  const roomy = able.filter(({ content }) => fits(spec.resources, content.free) === undefined);
  const suitable = roomy.length > 0 ? roomy : able;
  tell({ type: 'offers', count: buyer.feed.book.size });
  if (suitable.length === 0) {
    throw new MoltError('market/no-offers', noOffers(buyer, request), { offers: buyer.feed.book.size });
  }
  await buyer.bidTurn(signal);
  const content = makeBid({
    spec,
    pricePerSecondMax: pricePerSecondWithin(request.maxPrice, spec.maxDurationSeconds),
    bookSize: suitable.length,
    quotesWanted: options.quotes ?? QUOTES_WANTED,
    addresses: buyer.mesh.addresses,
    ...(options.minStake === undefined ? {} : { stakeMin: options.minStake }),
  });
  const envelope = sealBid(buyer, content);
  const bid = { id: envelope.id, content };
  const asked = new Set(suitable.filter(({ content }) => isAsked(bid, content.provider)).map(({ signer }) => signer));
  const collected = collectAnswers(buyer, { bid, request, asked });
  tell({ type: 'bid', bid: bid.id, pricePerSecondMax: content.pricePerSecondMax, attempt: request.attempt });
  try {
    await buyer.mesh.publish(bidsTopic(buyer.chain.network, resourceClassOf(spec.resources)), envelope.bytes);
    const budget = buyer.budget();
    budget.catch(() => undefined);
    await collected.enough;
    return await rankAnswers(buyer, { bid, request, collected, budget: await budget });
  } catch (error) {
    await collected.letGo();
    throw error;
  }
}

function canRun(offer: Offer, spec: JobSpec): boolean {
  return offer.runtimes.includes(spec.runtime) && featuresOf(spec).every((feature) => offer.features.includes(feature));
}

function sealBid(buyer: Buyer, content: Bid): Envelope {
  const nowMs = buyer.env.clock.now();
  buyer.sequence = nextSequence(buyer.sequence, nowMs);
  const header = {
    network: buyer.chain.network,
    sequence: buyer.sequence,
    issuedMs: nowMs,
    expiresMs: nowMs + LIMITS.bidLifetimeMs,
  };
  return sealEnvelope(buyer.key, 'bid', header, encodeBid(content));
}

interface Collected {
  readonly quotes: { readonly quote: VerifiedQuote; readonly afterMs: number }[];
  readonly declines: { readonly node: Address; readonly error: MoltError }[];
  readonly enough: Promise<void>;
  readonly letGo: () => Promise<void>;
}

/** Takes answers to one bid until all that were asked have answered, or time is up. */
function collectAnswers(
  buyer: Buyer,
  context: { bid: { id: string; content: Bid }; request: BidRequest; asked: ReadonlySet<Address> },
): Collected {
  const { bid, request, asked } = context;
  const { clock } = buyer.env;
  const { promise: enough, resolve: finish, reject } = Promise.withResolvers<void>();
  // Looked at only once the bid is out; until then a rejection must not count as unhandled.
  enough.catch(() => undefined);
  const startedMs = clock.monotonic();
  const waiting = new AbortController();
  const holds: { channel: Channel; done: () => void }[] = [];
  const quotes: Collected['quotes'] = [];
  const declines: { node: Address; error: MoltError }[] = [];
  const heard = new Set<Address>();
  let over = false;

  const take = (channel: Channel, answer: ReturnType<typeof decodeBidAnswer>): 'hold' | 'done' => {
    // A provider that failed this job hears the bid like everybody; its answer neither counts nor keeps its capacity.
    if (over || request.failed.has(channel.remote) || heard.has(channel.remote)) return 'done';
    if (heard.size >= LIMITS.quotesWanted * 4) return 'done';
    heard.add(channel.remote);
    if (answer.declined !== undefined) {
      const error = fromRefusal(answer.declined);
      declines.push({ node: channel.remote, error });
      request.tell({ type: 'declined', node: channel.remote, code: error.code, reason: error.message });
      return 'done';
    }
    const quote = readQuote(buyer, channel, answer.quote);
    const afterMs = clock.monotonic() - startedMs;
    quotes.push({ quote, afterMs });
    // Asked for now, so that ranking finds it; what fails is told there.
    void buyer.providerAccount(quote.content.provider).catch(() => undefined);
    const { provider, pricePerSecond, amount } = quote.content;
    request.tell({
      type: 'quote',
      provider,
      node: quote.signer,
      pricePerSecond,
      amount,
      afterMs,
    });
    return 'hold';
  };

  const removeRoute = buyer.routeAnswers(bid.id, async (channel, answer) => {
    const outcome = take(channel, answer);
    const all = asked.size > 0 && [...asked].every((node) => heard.has(node));
    const complete = all || quotes.length >= bid.content.quotesWanted;
    if (complete) finish();
    else if (quotes.length === 1) {
      const patienceMs = stragglerMs(asked.size, clock.monotonic() - startedMs);
      void clock.sleep(patienceMs, waiting.signal).then(finish, finish);
    }
    if (outcome === 'done') return;
    await new Promise<void>((done) => holds.push({ channel, done }));
  });
  const timeoutMs = request.options.quoteTimeoutMs ?? QUOTE_TIMEOUT_MS;
  void clock.sleep(timeoutMs, waiting.signal).then(finish, finish);
  request.signal.addEventListener('abort', () => reject(request.signal.reason), { once: true });

  return {
    quotes,
    declines,
    enough,
    letGo: async () => {
      over = true;
      removeRoute();
      waiting.abort(new MoltError('market/quote-expired', 'the bid is over'));
      for (const hold of holds.splice(0)) {
        await hold.channel.close().catch(() => undefined);
        hold.done();
      }
    },
  };
}

/** The quote in an answer, if its signer is the peer that sent it. Throws `protocol/…`. */
function readQuote(buyer: Buyer, channel: Channel, bytes: Uint8Array | undefined): VerifiedQuote {
  const at = { network: buyer.chain.network, nowMs: buyer.env.clock.now() };
  const envelope = decodeEnvelope('quote', bytes ?? new Uint8Array(), at);
  if (envelope.signer !== channel.remote) {
    throw new MoltError('protocol/wrong-signer', 'a quote must come from the node that signed it');
  }
  return verifyEnvelope(decodeQuote(envelope));
}

/** The more were asked and the later the first answered, the longer the others are worth waiting for. */
function stragglerMs(asked: number, firstAfterMs: number): number {
  return Math.max(STRAGGLER_MS + 25 * asked, 3 * firstAfterMs);
}

async function rankAnswers(
  buyer: Buyer,
  context: { bid: { id: string; content: Bid }; request: BidRequest; collected: Collected; budget: BudgetAccount },
): Promise<Bidding> {
  const { bid, request, collected, budget } = context;
  const accounts = new Map<Address, ProviderAccount>();
  const candidates: Parameters<typeof rank>[0]['candidates'][number][] = [];
  const limit = budget.free < budget.capPerLease ? budget.free : budget.capPerLease;
  for (const { quote, afterMs } of collected.quotes) {
    try {
      const account = await buyer.providerAccount(quote.content.provider);
      acceptableQuote({
        quote,
        bid,
        provider: account,
        nowMs: buyer.env.clock.now(),
        chainNowMs: buyer.chainClock.now(),
      });
      if (quote.content.amount > limit) throw tooDear(quote, budget.free, limit);
      accounts.set(quote.content.provider, account);
      candidates.push({
        quote,
        account,
        latencyMs: afterMs,
        failedBefore: request.failed.has(quote.signer),
        draw: buyer.draw(),
      });
    } catch (error) {
      if (!(error instanceof MoltError)) throw error;
      collected.declines.push({ node: quote.signer, error });
      request.tell({ type: 'declined', node: quote.signer, code: error.code, reason: error.message });
    }
  }
  const history = historyParameters(buyer.chain.parameters.burnFeeBps);
  const ranked = candidates.length === 0 ? [] : rank({ bid: bid.content, candidates, history });
  if (ranked.length === 0) throw noQuotes(collected.declines);
  request.tell({
    type: 'ranked',
    quotes: ranked.map(({ quote, score, reasons }) => ({
      provider: quote.content.provider,
      node: quote.signer,
      pricePerSecond: quote.content.pricePerSecond,
      score,
      reasons,
    })),
  });
  return { bid, ranked, accounts, letGo: collected.letGo };
}

/** One reference job is 1 MOLT, whatever share of it this market burns. */
function historyParameters(burnFeeBps: number): HistoryParameters {
  const share = Math.max(burnFeeBps, 1);
  return { burnFeeBps: share, referenceFee: (BASE_UNITS_PER_MOLT * BigInt(share)) / 10_000n };
}

function tooDear(quote: VerifiedQuote, free: bigint, limit: bigint): MoltError {
  const what =
    free === limit
      ? `the budget has ${formatMolt(free)} free; deposit more`
      : `the budget leases at most ${formatMolt(limit)} at once; raise its cap`;
  return new MoltError(
    'chain/budget-empty',
    `the quote locks ${formatMolt(quote.content.amount)}, ${what}, or shorten the job's maximum duration`,
  );
}

/** The refusal that most providers gave decides the code; all of them are in the text. */
function noQuotes(declines: readonly { readonly node: Address; readonly error: MoltError }[]): MoltError {
  if (declines.length === 0) {
    return new MoltError(
      'market/no-quotes',
      'no provider answered the bid in time; try again, or give it longer with quoteTimeoutMs',
    );
  }
  const texts = declines.map(({ node, error }) => `${node.slice(0, 8)}: ${error.message}`);
  const full = declines.find(({ error }) => hasCode(error, 'market/no-capacity'));
  const same = declines.every(({ error }) => error.code === declines[0]?.error.code)
    ? declines[0]?.error.code
    : undefined;
  const code = same ?? (full === undefined ? 'market/no-quotes' : 'market/no-capacity');
  return new MoltError(code, `no provider takes this job now. ${texts.join('; ')}`, { declined: declines.length });
}

function noOffers(buyer: Buyer, request: BidRequest): string {
  const { book } = buyer.feed;
  if (book.size === 0) {
    return `no live offer was heard from ${buyer.mesh.peers().length} peers; check the bootstrap addresses, and that a provider is up`;
  }
  const left = request.failed.size === 0 ? '' : `; ${request.failed.size} already failed this job`;
  const features = featuresOf(request.spec);
  const beyond = features.length === 0 ? '' : ` with ${features.join(' and ')}`;
  return `${book.size} offers were heard, none sells the ${request.spec.runtime} runtime${beyond} for ${resourceClassOf(request.spec.resources)} jobs${left}`;
}
