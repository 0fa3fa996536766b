/**
 * What the DHT gets of libp2p, which is everything but circuits (relay.ts): those are for jobs, and no stream of the DHT goes
 * through one. Left alone, it would open another circuit for every question to a peer behind NAT, only to be refused there.
 */
import type { KadDHTComponents } from '@libp2p/kad-dht';
import { type PeerId, isPeerId } from '@libp2p/interface';

import { MoltError } from '../../protocol/errors.ts';
import { isCircuit } from './nat.ts';
import { withMethod } from './with-method.ts';

/** Each component by itself: the object that libp2p hands over looks each one up anew at every use. */
export function withoutCircuits(components: KadDHTComponents): KadDHTComponents {
  const { addressManager, connectionManager, datastore, events, logger, peerId, peerStore } = components;
  const { ping, privateKey, registrar } = components;
  const assertDirect = async (to: PeerId): Promise<void> => {
    if (connectionManager.getConnections(to).some(({ limits }) => limits === undefined)) return;
    const { addresses } = await peerStore.get(to).catch(() => ({ addresses: [] }));
    if (addresses.length > 0 && addresses.every(({ multiaddr }) => isCircuit(multiaddr)))
      throw new MoltError('mesh/unreachable', `${to.toString()} is reached through relays only, and not by the DHT`);
  };
  return {
    addressManager,
    connectionManager: withMethod(connectionManager, 'openStream', async (to, protocols, options) => {
      if (isPeerId(to)) await assertDirect(to);
      return connectionManager.openStream(to, protocols, options);
    }),
    datastore,
    events,
    logger,
    peerId,
    peerStore,
    ping: withMethod(ping, 'ping', async (to, options) => {
      if (isPeerId(to)) await assertDirect(to);
      return ping.ping(to, options);
    }),
    privateKey,
    registrar,
  };
}
