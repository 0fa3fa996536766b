/**
 * The book: live offers that were admitted, the newest of each signer, bounded in number.
 *
 * One offer per signer is the bound per origin; a full book refuses newcomers until offers run out, which takes at most
 * one offer lifetime. The book has no clock: call `expire` before reading, as often as is wanted.
 */
import type { Address } from '../protocol/address.ts';
import type { Verified } from '../protocol/brands.ts';
import { assert } from '../protocol/errors.ts';
import { type Message, type Offer, type ResourceClass, resourceClassOf } from '../protocol/messages.ts';

export type BookChange = 'added' | 'updated' | 'revoked' | 'stale' | 'full';

export interface Book {
  readonly size: number;
  /**
   * `updated` replaces the signer's earlier offer; `revoked` says that a withdrawal was heard and whatever there was is
   * gone; `stale` and `full` change nothing.
   */
  put(offer: Verified<Message<Offer>>): BookChange;
  /** Drops what has expired and returns how many that were. */
  expire(nowMs: number): number;
  get(signer: Address): Verified<Message<Offer>> | undefined;
  /** In the order in which the signers were first heard. */
  list(resourceClass?: ResourceClass): readonly Verified<Message<Offer>>[];
  /** The signed bytes, for a peer that pulls the book. */
  bytes(resourceClass?: ResourceClass): readonly Uint8Array[];
}

/** `offersMax` ≥ 1; 10,000 offers of 512 bytes are some 20 MB decoded. */
export function createBook(options: { readonly offersMax: number }): Book {
  assert(options.offersMax >= 1, 'a book holds at least one offer');
  const offers = new Map<Address, Verified<Message<Offer>>>();

  const list: Book['list'] = (resourceClass) =>
    [...offers.values()].filter(
      (offer) => resourceClass === undefined || resourceClassOf(offer.content.free) === resourceClass,
    );

  return {
    get size() {
      return offers.size;
    },
    put(offer) {
      const known = offers.get(offer.signer);
      if (known !== undefined && offer.sequence <= known.sequence) return 'stale';
      if (offer.content.revoked) {
        offers.delete(offer.signer);
        return 'revoked';
      }
      if (known === undefined && offers.size >= options.offersMax) return 'full';
      offers.set(offer.signer, offer);
      return known === undefined ? 'added' : 'updated';
    },
    expire(nowMs) {
      const before = offers.size;
      for (const [signer, offer] of offers) {
        if (offer.expiresMs <= nowMs) offers.delete(signer);
      }
      return before - offers.size;
    },
    get: (signer) => offers.get(signer),
    list,
    bytes: (resourceClass) => list(resourceClass).map((offer) => offer.bytes),
  };
}
