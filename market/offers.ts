/**
 * Following a market: live offers from gossip, repaired by pulls, in one bounded book.
 *
 * Gossip is a hint: it reaches who is there when it is sent. A pull asks one peer for the offers it holds, so that a
 * newcomer, or one side of a healed partition, has the book at once. Whoever follows also answers pulls.
 */
import type { Address } from '../protocol/address.ts';
import type { Env } from '../protocol/env.ts';
import { ACCEPT, MoltError, type Verdict } from '../protocol/errors.ts';
import { LIMITS } from '../protocol/limits.ts';
import { RESOURCE_CLASSES, type ResourceClass } from '../protocol/messages.ts';
import { OffersRequest } from '../protocol/molt.js';
import { STREAMS, decodeOffersRequest, offersTopic } from '../protocol/wire.ts';
import type { Admission } from './admission.ts';
import { type Book, createBook } from './book.ts';
import type { Channel, Network, PubSub } from './ports.ts';

export interface OfferFeed extends AsyncDisposable {
  readonly book: Book;
  /** Asks one peer for its book; resolves to how many offers were new. Throws `mesh/…`. */
  pull(from: Address, signal?: AbortSignal): Promise<number>;
  /** Takes an offer of this node's own, so that peers that pull get it. */
  add(bytes: Uint8Array): void;
  /** Calls back after every change of the book. */
  onChange(listener: () => void): Disposable;
}

export interface OfferFeedOptions {
  readonly pubsub: PubSub;
  readonly network: Network;
  readonly networkId: Address;
  readonly admission: Admission;
  readonly classes?: readonly ResourceClass[];
  /** Hears of every offer that was not taken, and why. */
  readonly onRefused?: (refusal: Refusal) => void;
}

export type Refusal = Exclude<Verdict, { readonly verdict: 'accept' }>;

const OFFERS_MAX = 10_000;
/** Offers taken over from one pull. */
const PULL_MAX = 2_000;
const EXPIRE_EVERY_MS = 5_000;

export async function openOfferFeed(env: Env, options: OfferFeedOptions): Promise<OfferFeed> {
  const { pubsub, network, networkId, admission } = options;
  const classes = options.classes ?? RESOURCE_CLASSES;
  const book = createBook({ offersMax: OFFERS_MAX });
  const listeners = new Set<() => void>();

  const take = (bytes: Uint8Array, from: Address | undefined): ReturnType<Admission['offer']>['verdict'] => {
    const { verdict, message } = admission.offer(bytes, from, env.clock.now());
    if (message === undefined) {
      options.onRefused?.(verdict);
      return verdict;
    }
    const change = book.put(message);
    if (change === 'full')
      return { verdict: 'ignore', code: 'market/book-full', reason: `the book holds ${OFFERS_MAX} offers` };
    if (change !== 'stale') for (const listener of listeners) listener();
    return ACCEPT;
  };

  await using opened = new AsyncDisposableStack();
  for (const resourceClass of classes) {
    opened.use(await pubsub.subscribe(offersTopic(networkId, resourceClass), take));
  }
  opened.use(await network.handle(STREAMS.offers.protocol, STREAMS.offers, (channel) => answerPull(channel, book)));
  opened.use(
    env.clock.every(EXPIRE_EVERY_MS, () => {
      if (book.expire(env.clock.now()) > 0) for (const listener of listeners) listener();
    }),
  );
  const resources = opened.move();

  return {
    book,
    pull: async (from, signal) => {
      let added = 0;
      for (const resourceClass of classes) {
        const channel = await network.open(from, STREAMS.offers.protocol, {
          maxFrameBytes: STREAMS.offers.maxFrameBytes,
          ...(signal === undefined ? {} : { signal }),
        });
        try {
          await channel.send(OffersRequest.encode({ resourceClass }));
          let seen = 0;
          for await (const bytes of channel) {
            if (take(bytes, undefined).verdict === 'accept') added++;
            if (++seen >= PULL_MAX) break;
          }
        } finally {
          await channel.close();
        }
      }
      return added;
    },
    add: (bytes) => {
      take(bytes, undefined);
    },
    onChange: (listener) => {
      listeners.add(listener);
      return { [Symbol.dispose]: () => listeners.delete(listener) };
    },
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

async function answerPull(channel: Channel, book: Book): Promise<void> {
  for await (const frame of channel) {
    const { resourceClass } = decodeOffersRequest(frame);
    const wanted = RESOURCE_CLASSES.find((name) => name === resourceClass);
    if (wanted === undefined) {
      throw new MoltError(
        'protocol/malformed',
        `there is no resource class "${resourceClass.slice(0, 16)}", known are ${RESOURCE_CLASSES.join(', ')}`,
      );
    }
    for (const bytes of book.bytes(wanted).slice(0, PULL_MAX)) await channel.send(bytes);
    break;
  }
  await channel.close();
}

/** A bid's or offer's sequence: later than the clock's last and than its own predecessor, whatever the clock does. */
export function nextSequence(previous: number, nowMs: number): number {
  return Math.max(previous + 1, nowMs);
}

/** When an offer should be repeated: three times within its life, so that one lost message does no harm. */
export const OFFER_REPEAT_MS = LIMITS.offerLifetimeMs / 3;
