/**
 * Following a market: live offers from gossip, repaired by pulls, in one bounded book.
 *
 * Gossip is a hint: it reaches who is there when it is sent. A pull asks one peer for the offers it holds, so that a
 * newcomer, or one side of a healed partition, has the book at once. Whoever follows also answers pulls.
 */
import type { Address } from '../protocol/address.ts';
import { type Env, randomInt } from '../protocol/env.ts';
import { ACCEPT, MoltError, type Verdict } from '../protocol/errors.ts';
import { LIMITS } from '../protocol/limits.ts';
import { type Offer, RESOURCE_CLASSES, type ResourceClass } from '../protocol/messages.ts';
import { OffersRequest } from '../protocol/molt.js';
import { STREAMS, decodeOffersRequest, offersTopic } from '../protocol/wire.ts';
import type { Admission, Admitted } from './admission.ts';
import { type Book, createBook } from './book.ts';
import { type Convictions, createConvictions } from './convictions.ts';
import { Doubts, type Vouch } from './doubts.ts';
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
  /** Shards that are joined; `''` is that of the whole class. Default `['']`. Pulls ask for these, too. */
  readonly regions?: readonly string[];
  /** Looks up strangers when more of them are heard than are taken unseen. Default: those beyond are not taken. */
  readonly vouch?: Vouch;
  /** Hears of every offer that was not taken, and why. */
  readonly onRefused?: (refusal: Refusal) => void;
}

export type Refusal = Exclude<Verdict, { readonly verdict: 'accept' }>;

const OFFERS_MAX = 10_000;
/** Offers taken over from one pull. */
const PULL_MAX = 2_000;
/** Offers of a pull that are verified without a pause, some 0.1 ms each. */
const PULL_AT_ONCE = 32;
const EXPIRE_EVERY_MS = 5_000;

export async function openOfferFeed(env: Env, options: OfferFeedOptions): Promise<OfferFeed> {
  const { pubsub, network, networkId } = options;
  const classes = options.classes ?? RESOURCE_CLASSES;
  const regions = options.regions ?? [''];
  const shards = classes.flatMap((resourceClass) => regions.map((region) => ({ resourceClass, region })));
  const book = createBook({ offersMax: OFFERS_MAX });
  const convictions = createConvictions();
  const listeners = new Set<() => void>();

  const changed = (): void => {
    for (const listener of listeners) listener();
  };
  await using opened = new AsyncDisposableStack();
  const { take, hear } = takeOffers(env, options, { book, convictions, changed, opened });
  for (const { resourceClass, region } of shards) {
    const topic = offersTopic(networkId, resourceClass, region);
    const limits = { messageBytesMax: LIMITS.offerBytes };
    opened.use(await pubsub.subscribe(topic, hear, limits));
  }
  opened.use(await network.handle(STREAMS.offers.protocol, STREAMS.offers, answerPulls(env, book, convictions)));
  opened.use(
    env.clock.every(EXPIRE_EVERY_MS, () => {
      if (book.expire(env.clock.now()) > 0) changed();
    }),
  );
  const resources = opened.move();

  return {
    book,
    pull: async (from, signal) => {
      let added = 0;
      for (const { resourceClass, region } of pulledShards(shards)) {
        const channel = await network.open(from, STREAMS.offers.protocol, {
          maxFrameBytes: STREAMS.offers.maxFrameBytes,
          ...(signal === undefined ? {} : { signal }),
        });
        try {
          await channel.send(OffersRequest.encode({ resourceClass, region }));
          let seen = 0;
          for await (const bytes of channel) {
            if (take(bytes, from).verdict === 'accept') added++;
            if (++seen >= PULL_MAX) break;
            // What arrives together is read without a pause, and each offer costs a signature.
            if (seen % PULL_AT_ONCE === 0) await env.clock.sleep(0, signal);
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

/** Decides about each offer, and keeps what is admitted. */
function takeOffers(
  env: Env,
  options: OfferFeedOptions,
  on: {
    readonly book: Book;
    readonly convictions: Convictions;
    readonly changed: () => void;
    readonly opened: AsyncDisposableStack;
  },
) {
  const { admission } = options;
  const settle = (admitted: Admitted<Offer>, bytes: Uint8Array, by: Address | undefined): Verdict => {
    if (admitted.message === undefined) {
      options.onRefused?.(admitted.verdict);
      if (admitted.convicted === undefined) return admitted.verdict;
      const first = on.book.get(admitted.convicted);
      if (first !== undefined) on.convictions.add(first, bytes);
      if (on.book.drop(admitted.convicted)) on.changed();
      // Forwarded once, as evidence: who heard the other message convicts as well.
      return ACCEPT;
    }
    const change = on.book.put(admitted.message, by);
    if (change === 'full')
      return { verdict: 'ignore', code: 'market/book-full', reason: `the book holds ${OFFERS_MAX} offers` };
    if (change !== 'stale') on.changed();
    return ACCEPT;
  };
  /** What was asked for: it counts against nobody. */
  const take = (bytes: Uint8Array, by: Address | undefined): Verdict =>
    settle(admission.offer(bytes, undefined, env.clock.now()), bytes, by);
  const doubts = options.vouch === undefined ? undefined : on.opened.use(new Doubts(env, options.vouch));
  /** What a peer sent unasked. */
  const hear = (bytes: Uint8Array, from: Address): Verdict | Promise<Verdict> => {
    const admitted = admission.offer(bytes, from, env.clock.now());
    const doubt = admitted.message === undefined ? admitted.doubt : undefined;
    if (doubt === undefined || doubts === undefined) return settle(admitted, bytes, from);
    return doubts.ask(doubt.message, from).then((isGenuine) => {
      if (isGenuine !== undefined) admission.settle(doubt, isGenuine, env.clock.now());
      return settle(isGenuine === true ? admission.offer(bytes, from, env.clock.now()) : admitted, bytes, from);
    });
  };
  return { take, hear };
}

/** Whoever asks for a whole class need not ask for its regions. */
function pulledShards<Shard extends { readonly region: string }>(shards: readonly Shard[]): readonly Shard[] {
  const whole = shards.filter(({ region }) => region === '');
  return whole.length > 0 ? whole : shards;
}

function answerPulls(env: Env, book: Book, convictions: Convictions): (channel: Channel) => Promise<void> {
  return async (channel) => {
    for await (const frame of channel) {
      const { resourceClass, region } = decodeOffersRequest(frame);
      const wanted = RESOURCE_CLASSES.find((name) => name === resourceClass);
      if (wanted === undefined) {
        throw new MoltError(
          'protocol/malformed',
          `there is no resource class "${resourceClass.slice(0, 16)}", known are ${RESOURCE_CLASSES.join(', ')}`,
        );
      }
      // Whoever reads them first takes nothing of a convict that the rest of the answer may hold.
      const shown = convictions.bytes(env.clock.now());
      for (const bytes of shown) await channel.send(bytes);
      for (const bytes of pullOf(env, book.bytes(wanted, region), PULL_MAX - shown.length)) await channel.send(bytes);
      break;
    }
    await channel.close();
  };
}

/** Of a book that is larger than a pull, a part that begins anywhere: so several pulls bring all of it in the end. */
function pullOf({ random }: Env, offers: readonly Uint8Array[], most: number): readonly Uint8Array[] {
  if (offers.length <= most) return offers;
  const from = randomInt(random, offers.length);
  return [...offers.slice(from), ...offers.slice(0, from)].slice(0, most);
}

/** A bid's or offer's sequence: later than the clock's last and than its own predecessor, whatever the clock does. */
export function nextSequence(previous: number, nowMs: number): number {
  return Math.max(previous + 1, nowMs);
}

/** When an offer should be repeated: three times within its life, so that one lost message does no harm. */
export const OFFER_REPEAT_MS = LIMITS.offerLifetimeMs / 3;
