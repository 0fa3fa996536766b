/**
 * When the vote of replicas must be held, by the chain: a provider may claim there before it shows its result, or while that
 * waits for the others. The decision is `market/quorum.ts`.
 */
import { type OpenClaim, voteByMs } from '../market/index.ts';
import type { Address } from '../protocol/address.ts';
import type { Buyer } from './buyer.ts';

const LOOK_EVERY_MS = 2_000;

/** Unix ms of the chain; Infinity where none of these leases is open. Throws `chain/unreachable`. */
export async function voteTime({ chain, chainClock }: Buyer, leases: readonly Address[]): Promise<number> {
  const accounts = await Promise.all(leases.map((lease) => chain.lease(lease)));
  const open = accounts.flatMap((account): OpenClaim[] => {
    // A dispute is not over by time alone.
    if (account === undefined || account.state === 'disputed') return [];
    const { windowMs, proof } = account;
    return [{ windowMs, ...(proof === undefined ? {} : { provenAtMs: proof.provenAtMs }) }];
  });
  return voteByMs(open, chainClock.now());
}

/** Resolves when the vote about these leases must be held; rejects with the signal's reason. */
export async function untilVote(buyer: Buyer, leases: () => readonly Address[], signal: AbortSignal): Promise<void> {
  const { env, chainClock } = buyer;
  for (let [byMs, seen] = [Infinity, '']; ;) {
    const open = leases();
    // What those known claim meanwhile only moves it on; one that replaces another may have a shorter window than the others.
    // While the chain cannot be asked, nothing can be disputed either.
    if (byMs === Infinity || chainClock.now() >= byMs || open.join() !== seen) {
      [byMs, seen] = [await voteTime(buyer, open).catch(() => Infinity), open.join()];
      if (chainClock.now() >= byMs) return signal.throwIfAborted();
    }
    await env.clock.sleep(LOOK_EVERY_MS, signal);
  }
}
