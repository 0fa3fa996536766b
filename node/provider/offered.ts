/** What of a provider's abundance an offer has room for. */
import type { Envelope } from '../../protocol/envelope.ts';
import { hasCode } from '../../protocol/errors.ts';
import { LIMITS } from '../../protocol/limits.ts';
import type { Offer, Resources } from '../../protocol/messages.ts';

/** An offer names few kinds of GPU: those that are free before those that are not, large before small. */
export function offeredOf(free: Resources): Resources {
  const kinds = free.gpus.toSorted((a, b) => Number(b.count > 0) - Number(a.count > 0));
  return { ...free, gpus: kinds.slice(0, LIMITS.gpuKindsPerMessage) };
}

/**
 * An offer has few bytes: what does not fit is left out, digests of warm modules first, then the second address, then
 * kinds of GPU from the end of the list. A bid for a kind that is left out is answered all the same.
 */
export function sealWhatFits(offer: Offer, seal: (offer: Offer) => Envelope): Envelope {
  const { warm, addresses, free } = offer;
  const bare = { ...offer, warm: [], addresses: addresses.slice(0, 1) };
  const smaller = [
    ...warm.map((_, index) => ({ ...offer, warm: warm.slice(0, warm.length - index) })),
    { ...offer, warm: [] },
    bare,
    ...free.gpus.slice(1).map((_, index) => ({ ...bare, free: { ...free, gpus: free.gpus.slice(0, -index - 1) } })),
  ];
  for (const candidate of smaller.slice(0, -1)) {
    try {
      return seal(candidate);
    } catch (error) {
      if (!hasCode(error, 'protocol/oversize')) throw error;
    }
  }
  return seal(smaller.at(-1) ?? bare);
}
