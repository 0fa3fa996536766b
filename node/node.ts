/**
 * A running node: listens first, then becomes a provider, and takes itself apart again in the right order.
 *
 * Order at start: the journal (it is also the lock on the data directory), the mesh, the chain, and then the provider
 * (provider/provider.ts), which recovers unfinished jobs before it trades.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

import { connectChain, readNetwork } from '../chain/index.ts';
import type { Address } from '../protocol/address.ts';
import type { Env } from '../protocol/env.ts';
import { meshName } from '../protocol/wire.ts';
import type { NodeConfig } from './node-config.ts';
import type { Tell } from './events.ts';
import { openJournal } from './journal.ts';
import { type Mesh, type Reachability, openMesh } from './mesh/index.ts';

export interface RunningNode extends AsyncDisposable {
  /** The node key. */
  readonly self: Address;
  /** Multiaddrs that others can dial. */
  readonly addresses: readonly string[];
  /** Withdraws the offer and stops; running jobs stay in the journal for the next start. */
  close(): Promise<void>;
}

/**
 * Starts a provider node. `tell` hears everything from the first moment. Throws `node/already-running`,
 * `mesh/listen-failed`, `chain/…` and `runtime/unavailable` when nothing can be sold.
 */
export async function startNode(env: Env, config: NodeConfig, tell: Tell): Promise<RunningNode> {
  await using opened = new AsyncDisposableStack();
  await mkdir(config.home, { recursive: true, mode: 0o700 });
  const asking = readNetwork(config.rpcUrl);
  asking.catch(() => undefined);
  const journal = opened.use(await openJournal(join(config.home, 'journal')));
  const networkId = await asking;
  const mesh = opened.use(await openMeshOf(env, config, networkId));
  tell({ type: 'listening', node: mesh.self, addresses: mesh.addresses });
  const reached = ({ way, addresses }: Reachability): void => tell({ type: 'reachability', way, addresses });
  opened.use(mesh.onReachability(reached));

  const { programId, rpcUrl } = config;
  const chainOptions = { rpcUrl, expectedNetwork: networkId, ...(programId === undefined ? {} : { programId }) };
  const chain = opened.use(await connectChain(env, chainOptions));
  const { openProvider } = await import('./provider/provider.ts');
  await openProvider({ env, config, tell, networkId, journal, mesh, chain }, opened);
  const resources = opened.move();
  const close = (): Promise<void> => resources.disposeAsync();
  return {
    self: mesh.self,
    get addresses() {
      return mesh.addresses;
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

function openMeshOf(env: Env, config: NodeConfig, networkId: Address): Promise<Mesh> {
  return openMesh(env, {
    key: config.key,
    directory: join(config.home, 'mesh'),
    listen: config.listen,
    announce: config.announce,
    bootstrap: config.bootstrap,
    mdns: config.mdns,
    upnp: config.upnp,
    relay: config.relay,
    limits: config.relayLimits,
    role: 'node',
    network: meshName(networkId),
  });
}
