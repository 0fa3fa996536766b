/**
 * The chain's clock without a request each time: wall clock plus an offset that is measured again and again.
 *
 * Deadlines on chain are compared with the chain's own clock, which may differ from ours; quotes and deadlines are made
 * and judged with this one.
 */
import type { Env } from '../protocol/env.ts';
import type { Chain } from './chain.ts';

export interface ChainClock extends Disposable {
  /** Estimated Unix ms of the chain, within a second or two. */
  now(): number;
}

const REFRESH_MS = 2_000;

/** Reads the chain's time once before it resolves. Throws `chain/unreachable`. */
export async function openChainClock(env: Env, chain: Pick<Chain, 'chainTimeMs'>): Promise<ChainClock> {
  let offsetMs = (await chain.chainTimeMs()) - env.clock.now();
  const refreshing = env.clock.every(REFRESH_MS, async () => {
    // An endpoint that is away for a moment leaves the last offset standing.
    const chainMs = await chain.chainTimeMs().catch(() => undefined);
    if (chainMs !== undefined) offsetMs = chainMs - env.clock.now();
  });
  return { now: () => env.clock.now() + offsetMs, [Symbol.dispose]: () => refreshing[Symbol.dispose]() };
}
