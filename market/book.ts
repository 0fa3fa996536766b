/**
 * The book: live offers that were admitted, the newest of each signer, bounded in number.
 *
 * One offer per signer is the bound per origin. Signers cost a liar nothing, so a full book is shared fairly among the
 * peers that brought the offers: who brought most of them makes room for what others bring, and one peer, or a few, cannot
 * keep the rest of the market out. The book has no clock: call `expire` before reading, as often as is wanted.
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
   * gone; `stale` and `full` change nothing. `from` is the peer that brought it; absent: this node itself.
   */
  put(offer: Verified<Message<Offer>>, from?: Address): BookChange;
  /** Forgets what a signer offered; true when there was something. */
  drop(signer: Address): boolean;
  /** Drops what has expired and returns how many that were. */
  expire(nowMs: number): number;
  get(signer: Address): Verified<Message<Offer>> | undefined;
  /** In the order in which the signers were first heard. */
  list(resourceClass?: ResourceClass): readonly Verified<Message<Offer>>[];
  /** The signed bytes, for a peer that pulls the book; of one region when it is not empty. */
  bytes(resourceClass?: ResourceClass, region?: string): readonly Uint8Array[];
}

/** `offersMax` ≥ 1; 10,000 offers of 512 bytes are some 20 MB decoded. */
export function createBook(options: { readonly offersMax: number }): Book {
  assert(options.offersMax >= 1, 'a book holds at least one offer');
  const offers = new Map<Address, Verified<Message<Offer>>>();
  /** Who brought each offer first, and how many each peer brought. */
  const broughtBy = new Map<Address, Address | undefined>();
  const shares = new Map<Address | undefined, number>();

  const share = (from: Address | undefined, change: 1 | -1): void => {
    const count = (shares.get(from) ?? 0) + change;
    if (count > 0) shares.set(from, count);
    else shares.delete(from);
  };
  const remove = (signer: Address): boolean => {
    if (!offers.delete(signer)) return false;
    share(broughtBy.get(signer), -1);
    broughtBy.delete(signer);
    return true;
  };
  /** Takes the oldest offer of whoever brought most, unless that is `from` itself or as good as. */
  const makeRoom = (from: Address | undefined): boolean => {
    const [largest, count] = [...shares].reduce((most, one) => (one[1] > most[1] ? one : most), [from, 0] as const);
    if (count <= (shares.get(from) ?? 0) + 1) return false;
    for (const [signer, by] of broughtBy) if (by === largest) return remove(signer);
    return false;
  };

  const list: Book['list'] = (resourceClass) =>
    [...offers.values()].filter(
      (offer) => resourceClass === undefined || resourceClassOf(offer.content.free) === resourceClass,
    );

  return {
    get size() {
      return offers.size;
    },
    put(offer, from) {
      const known = offers.get(offer.signer);
      if (known !== undefined && offer.sequence <= known.sequence) return 'stale';
      if (offer.content.revoked) {
        remove(offer.signer);
        return 'revoked';
      }
      if (known === undefined) {
        if (offers.size >= options.offersMax && !makeRoom(from)) return 'full';
        broughtBy.set(offer.signer, from);
        share(from, 1);
      }
      offers.set(offer.signer, offer);
      return known === undefined ? 'added' : 'updated';
    },
    expire(nowMs) {
      const before = offers.size;
      for (const [signer, offer] of offers) {
        if (offer.expiresMs <= nowMs) remove(signer);
      }
      return before - offers.size;
    },
    drop: remove,
    get: (signer) => offers.get(signer),
    list,
    bytes: (resourceClass, region = '') =>
      list(resourceClass)
        .filter((offer) => region === '' || offer.content.region === region)
        .map((offer) => offer.bytes),
  };
}
