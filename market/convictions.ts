/**
 * Who signed two different offers under one number, and what shows it. Both are kept as they were signed and go first into
 * the answer to a pull, where whoever pulls convicts by them as this node did: a newcomer hears nothing of a convict from
 * those who know it, and would believe what the others still forward. Nothing has to be believed of who brings them.
 */
import type { Address } from '../protocol/address.ts';
import type { Message, Offer } from '../protocol/messages.ts';

/** Convicts shown at a time, two offers each: keys cost a liar nothing, and a pull has room for 2,000 offers. */
const SHOWN_MAX = 64;

export interface Convictions {
  /** `first` was taken before `second` came; the oldest make room. */
  add(first: Message<Offer>, second: Uint8Array): void;
  /** The signed bytes; what has expired is admitted nowhere and left out. */
  bytes(nowMs: number): readonly Uint8Array[];
}

export function createConvictions(): Convictions {
  const shown = new Map<Address, { readonly pair: readonly Uint8Array[]; readonly expiresMs: number }>();
  return {
    add(first, second) {
      shown.delete(first.signer);
      shown.set(first.signer, { pair: [first.bytes, second], expiresMs: first.expiresMs });
      const [oldest] = shown.keys();
      if (shown.size > SHOWN_MAX && oldest !== undefined) shown.delete(oldest);
    },
    bytes(nowMs) {
      for (const [signer, { expiresMs }] of shown) if (expiresMs <= nowMs) shown.delete(signer);
      return [...shown.values()].flatMap(({ pair }) => pair);
    },
  };
}
