/**
 * The output of a job of this buyer, read from its provider: again, or as it comes, whoever started it.
 *
 * The provider keeps what a program printed for some hours after its end. A cut stream is taken up where it broke.
 */
import type { Channel } from '../market/ports.ts';
import { type Address, decodeAddress } from '../protocol/address.ts';
import { Deadline } from '../protocol/deadline.ts';
import type { Clock } from '../protocol/env.ts';
import { MoltError, hasCode } from '../protocol/errors.ts';
import { type LogRecord, logOf } from '../protocol/job-log.ts';
import { LIMITS } from '../protocol/limits.ts';
import { LeaseRequest } from '../protocol/molt.js';
import { STREAMS, decodeLeaseResponse, fromRefusal } from '../protocol/wire.ts';
import type { Buyer } from './buyer.ts';

export interface LogQuery {
  /** First sequence wanted; default 0. */
  readonly from?: number;
  /** Also what comes from now on, until the program has ended. Default false. */
  readonly follow?: boolean;
  readonly signal?: AbortSignal;
}

const SILENT_MS = 3 * LIMITS.heartbeatMs;
const RECONNECT_EVERY_MS = 500;
const RECONNECT_MS = 15_000;
const OFFERS_WAIT_MS = 3_000;

/** Throws `job/unknown`, `job/provider-lost`, `chain/account-missing`, and the signal's reason. */
export async function* readLogs(buyer: Buyer, lease: Address, query: LogQuery): AsyncGenerator<LogRecord> {
  const { env } = buyer;
  const { from = 0, follow = false } = query;
  const signal = query.signal === undefined ? buyer.closing : AbortSignal.any([query.signal, buyer.closing]);
  const provider = await findProvider(buyer, lease, signal);
  let next = from;
  let lastHeardMs = env.clock.monotonic();
  for (;;) {
    try {
      for await (const { record, heard, isLast } of attach(buyer, provider, { lease, from: next, follow, signal })) {
        lastHeardMs = env.clock.monotonic();
        next = heard;
        if (record !== undefined) yield record;
        if (isLast) return;
      }
    } catch (cause) {
      signal.throwIfAborted();
      if (hasCode(cause, 'job/unknown')) throw cause;
      if (env.clock.monotonic() - lastHeardMs > RECONNECT_MS) {
        const message = `the provider ${provider.node} of lease ${lease} does not answer; molt lease show ${lease} says what becomes of it`;
        throw new MoltError('job/provider-lost', message, { lease }, { cause });
      }
    }
    await env.clock.sleep(RECONNECT_EVERY_MS, signal);
  }
}

interface Provider {
  readonly node: Address;
  readonly addresses: readonly string[];
}

/** The node that runs the lease, or ran it, and where it was heard of. */
export async function findProvider(buyer: Buyer, lease: Address, signal: AbortSignal): Promise<Provider> {
  const { chain, feed } = buyer;
  const open = await chain.lease(lease);
  const ended = open === undefined ? await chain.leaseEnding(lease) : undefined;
  const node = open?.operator ?? (ended && (await chain.provider(ended.provider))?.operator);
  if (node === undefined) {
    throw new MoltError('chain/account-missing', `there never was a lease ${lease} on this chain: check the address`, {
      lease,
    });
  }
  await buyer.waitForOffers(OFFERS_WAIT_MS, signal).catch(() => undefined);
  const offer = feed.book.list().find(({ signer }) => signer === node);
  return { node, addresses: offer?.content.addresses ?? [] };
}

interface Heard {
  readonly record: LogRecord | undefined;
  /** The sequence to go on with after a cut. */
  readonly heard: number;
  readonly isLast: boolean;
}

async function* attach(
  { env, mesh }: Buyer,
  provider: Provider,
  query: { readonly lease: Address; readonly from: number; readonly follow: boolean; readonly signal: AbortSignal },
): AsyncGenerator<Heard> {
  const { lease, from, follow, signal } = query;
  using connecting = new Deadline(env.clock, SILENT_MS, signal);
  const channel = await mesh.open(provider.node, STREAMS.lease.protocol, {
    addresses: provider.addresses,
    maxFrameBytes: STREAMS.lease.maxFrameBytes,
    signal: connecting.signal,
  });
  using silence = watchSilence(env.clock, channel, signal);
  let heard = from;
  try {
    await channel.send(LeaseRequest.encode({ attach: { lease: decodeAddress(lease), fromSequence: BigInt(from) } }));
    for await (const frame of channel) {
      silence.heard();
      const { event, refused, heartbeat } = decodeLeaseResponse(frame);
      if (refused !== undefined) throw fromRefusal(refused);
      if (event !== undefined && Number(event.sequence) >= heard) {
        heard = Number(event.sequence) + 1;
        yield { ...logOf(event), heard };
      }
      // A heartbeat tells how far the job is: who does not follow has all then.
      const isAll = heartbeat !== undefined && !follow && heard >= Number(heartbeat.nextSequence);
      if (heartbeat !== undefined) yield { record: undefined, heard, isLast: isAll };
    }
  } finally {
    await channel.close().catch(() => undefined);
  }
}

/** Ends a stream on which nothing comes, not even a heartbeat, or whose reader wants no more. */
function watchSilence(clock: Clock, channel: Channel, signal: AbortSignal): Disposable & { heard(): void } {
  let heardMs = clock.monotonic();
  const end = (): void => channel.abort(new MoltError('mesh/closed', 'the reader wants no more'));
  signal.addEventListener('abort', end, { once: true });
  const looking = clock.every(SILENT_MS / 6, () => {
    if (clock.monotonic() - heardMs < SILENT_MS) return;
    channel.abort(new MoltError('mesh/timeout', `nothing was heard for ${SILENT_MS / 1000} s`));
  });
  return {
    heard: () => {
      heardMs = clock.monotonic();
    },
    [Symbol.dispose]: () => {
      looking[Symbol.dispose]();
      signal.removeEventListener('abort', end);
    },
  };
}
