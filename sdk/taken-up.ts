/**
 * A run that an earlier client began and did not end, seen against the chain: which of its leases go on, which results are
 * known, what was spent, and who failed.
 */
import type { VerifiedQuote } from '../market/index.ts';
import { parseAddress } from '../protocol/address.ts';
import { parseEnvelope, verifyEnvelope } from '../protocol/envelope.ts';
import { decodeQuote } from '../protocol/messages.ts';
import type { Buyer } from './buyer.ts';
import type { RunRecord, RunSeat } from './runs.ts';

/** A slot that somebody has. */
export interface TakenSeat {
  readonly seat: RunSeat;
  readonly quote: VerifiedQuote;
  /** `gone`: it came to a result that is not paid, and nobody takes its place. */
  readonly state: 'running' | 'gone';
}

export interface TakenUp {
  /** The last of each rank that is not vacant. */
  readonly seats: readonly TakenSeat[];
  /** Quotes of those who were lost. */
  readonly failed: readonly VerifiedQuote[];
  /** Those who were lost, in order. */
  readonly lost: readonly RunSeat[];
  readonly fillings: number;
}

/** Undefined when the time of all its leases is over: it cannot come to a result any more. */
export async function readTakenUp(buyer: Buyer, record: RunRecord): Promise<TakenUp | undefined> {
  const quotes = new Map(record.seats.map((seat) => [seat.lease, quoteOf(buyer, seat)]));
  const nowMs = buyer.chainClock.now();
  const ends = [...quotes.values()].map(({ content }) => content.finishByMs + content.graceMs);
  if (nowMs > Math.max(0, ...ends)) return undefined;
  const seats: TakenSeat[] = [];
  const lost: RunSeat[] = [];
  for (const seat of record.seats) {
    const quote = quotes.get(seat.lease);
    const state = quote === undefined ? 'vacant' : await stateOf(buyer, seat);
    if (state === 'lost' || state === 'gone') lost.push(seat);
    if (quote !== undefined && (state === 'running' || state === 'gone')) seats.push({ seat, quote, state });
  }
  const failed = lost.flatMap(({ lease }) => quotes.get(lease) ?? []);
  return { seats, lost, failed, fillings: record.fillings };
}

/** What can be told of a lease that was open, or about to be, when the client before ended. */
async function stateOf({ chain }: Buyer, seat: RunSeat): Promise<TakenSeat['state'] | 'lost' | 'vacant'> {
  if (seat.outcome === 'left') return 'vacant';
  if (seat.outcome === 'lost') return seat.found === undefined ? 'lost' : 'gone';
  const address = parseAddress(seat.lease);
  if ((await chain.lease(address)) !== undefined) return 'running';
  const ending = (await chain.leaseEnding(address))?.ending;
  // Its provider may still have the run to show; it was paid.
  if (ending?.startsWith('settled') === true) return 'running';
  return ending === undefined ? 'vacant' : 'lost';
}

/** As it was verified when it came; it has expired since. */
function quoteOf({ chain }: Buyer, { quote }: RunSeat): VerifiedQuote {
  const envelope = parseEnvelope('quote', Buffer.from(quote, 'base64'), chain.network);
  return verifyEnvelope(decodeQuote(envelope));
}
