/**
 * Friends of friends: a peer with one connection is alone as soon as that one is lost, so it asks the DHT who else is near.
 *
 * libp2p asks once, a second after the start, and then after five minutes. Whoever is not connected by then, because the
 * machine is slow or the first peer not up yet, hears of nobody until somebody finds it.
 */
import type { KadDHT } from '@libp2p/kad-dht';
import type { Libp2p } from '@libp2p/interface';

import { Deadline } from '../../protocol/deadline.ts';
import type { Env } from '../../protocol/env.ts';
import { peersOf } from './peer.ts';

/** Until the first question after a connection; each further pause is twice as long, for the others come later as well. */
const ASK_FIRST_MS = 1_000;
const ASK_MAX_MS = 5 * 60_000;
const ASK_MS = 10_000;

/** Goes on until the signal aborts, and throws nothing. */
export async function findFriends(
  env: Env,
  { libp2p, dht }: { readonly libp2p: Libp2p; readonly dht: KadDHT },
  signal: AbortSignal,
): Promise<void> {
  const self = libp2p.peerId.toMultihash().bytes;
  let pauseMs = ASK_FIRST_MS;
  for (;;) {
    await env.clock.sleep(pauseMs, signal).catch(() => undefined);
    if (signal.aborted) return;
    const connected = peersOf(libp2p.getConnections()).size;
    if (connected !== 1) {
      pauseMs = connected === 0 ? ASK_FIRST_MS : ASK_MAX_MS;
      continue;
    }
    using deadline = new Deadline(env.clock, ASK_MS, signal);
    try {
      // A peer that is named is asked as well, and to be asked it is dialled.
      for await (const _ of dht.getClosestPeers(self, { signal: deadline.signal })) continue;
    } catch (error) {
      if (!signal.aborted) env.logger.log('debug', 'no friends of friends found', { error });
    }
    pauseMs = Math.min(pauseMs * 2, ASK_MAX_MS);
  }
}
