/**
 * Leases of this buyer whose provider never proved: expired after their deadline, so that the money comes back.
 *
 * Anyone may expire such a lease; this is the party who wants it. It looks at the chain, not at memory, so leases of an
 * earlier process that crashed are found too.
 */
import { baseUnits } from '../protocol/units.ts';
import type { Buyer } from './buyer.ts';
import type { JobEvent } from './progress.ts';

const LOOK_EVERY_MS = 5_000;

/** Looks now and then until disposed; `tell` hears of every lease that was closed. */
export function reclaimLeases(buyer: Buyer, tell: (event: JobEvent) => void): Disposable {
  const look = async (): Promise<void> => {
    try {
      await reclaimOnce(buyer, tell);
    } catch {
      // The endpoint is away or another party was faster; the next look tells.
    }
  };
  void look();
  return buyer.env.clock.every(LOOK_EVERY_MS, look);
}

async function reclaimOnce(buyer: Buyer, tell: (event: JobEvent) => void): Promise<void> {
  const { chain, key } = buyer;
  const leases = await chain.leases({ delegate: key.address });
  if (leases.length === 0) return;
  const chainNowMs = await chain.chainTimeMs();
  for (const lease of leases) {
    if (lease.state !== 'running' || chainNowMs <= lease.finishByMs + lease.graceMs) continue;
    const { signature } = await chain.expireLease(key, lease);
    tell({
      type: 'lease-expired',
      lease: lease.address,
      transaction: signature,
      refunded: baseUnits(lease.amount - lease.redeemed),
    });
  }
}
