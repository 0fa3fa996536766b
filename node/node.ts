/**
 * A running node: the composition root of a provider. Puts mesh, chain, runtimes, journal and trade together and takes
 * them apart again in the right order.
 *
 * Order at start: the journal is opened first (it is also the lock on the data directory), then mesh and chain in
 * parallel, then unfinished jobs are recovered and their capacity taken, and only then the node trades.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

import { type Chain, type ProviderAccount, connectChain, openChainClock, readNetwork } from '../chain/index.ts';
import { type Admission, type OfferFeed, type Refusal, createAdmission, openOfferFeed } from '../market/index.ts';
import type { Address } from '../protocol/address.ts';
import type { Env } from '../protocol/env.ts';
import { MoltError } from '../protocol/errors.ts';
import type { Resources, RuntimeKind } from '../protocol/messages.ts';
import { type BaseUnits, baseUnits, formatMolt } from '../protocol/units.ts';
import type { NodeConfig } from './config.ts';
import type { NodeEvent, Tell } from './events.ts';
import { type Journal, openJournal } from './journal.ts';
import { type Artifacts, type Mesh, openArtifacts, openMesh } from './mesh/index.ts';
import { Execution } from './provider/execution.ts';
import type { Agreement } from './provider/job.ts';
import { Jobs } from './provider/jobs.ts';
import { serveLeases } from './provider/lease-stream.ts';
import { Trade } from './provider/trade.ts';
import { type Runtime, createRuntimes } from './runtime/index.ts';
import { type Speed, measureSpeed } from './speed.ts';

export interface NodeStatus {
  readonly free: Resources;
  readonly peers: number;
  readonly speed: number;
  readonly stake: BaseUnits;
  readonly reserved: BaseUnits;
  readonly jobs: readonly {
    readonly lease: Address;
    readonly phase: string;
    readonly attempt: number;
    readonly buyer: Address;
  }[];
}

export interface RunningNode extends AsyncDisposable {
  readonly self: Address;
  readonly provider: Address;
  readonly addresses: readonly string[];
  status(): NodeStatus;
  onEvent(listener: (event: NodeEvent) => void): Disposable;
  close(): Promise<void>;
}

const FACTS_REFRESH_MS = 5_000;
const ARTIFACT_QUOTA_BYTES = 20 * 10 ** 9;

/**
 * Starts a provider node. `onEvent` hears everything from the first moment. Throws `node/already-running`,
 * `mesh/listen-failed`, `chain/…` and `runtime/unavailable` when nothing can be sold.
 */
export async function startNode(
  env: Env,
  config: NodeConfig,
  onEvent: (event: NodeEvent) => void = () => undefined,
): Promise<RunningNode> {
  const listeners = new Set<(event: NodeEvent) => void>([onEvent]);
  const tell: Tell = (event) => {
    for (const listener of listeners) listener(event);
  };
  await using opened = new AsyncDisposableStack();
  await mkdir(config.home, { recursive: true, mode: 0o700 });
  const journal = opened.use(await openJournal(join(config.home, 'journal')));
  const networkId = await readNetwork(config.rpcUrl);
  const mesh = opened.use(await openMeshOf(env, config, networkId));
  tell({ type: 'listening', node: mesh.self, addresses: mesh.addresses });

  const chain = opened.use(
    await connectChain(env, {
      rpcUrl: config.rpcUrl,
      expectedNetwork: networkId,
      ...(config.programId === undefined ? {} : { programId: config.programId }),
    }),
  );
  const clock = opened.use(await openChainClock(env, chain));
  const account = opened.use(await followAccount(env, chain, config));
  assertWindows(chain, config);
  const artifacts = await openArtifacts(env, {
    directory: join(config.home, 'artifacts'),
    quotaBytes: ARTIFACT_QUOTA_BYTES,
  });
  const runtimes = await usableRuntimes(env, config, tell);
  const parts: Parts = { env, config, tell, networkId, journal, mesh, chain, clock, account, artifacts, runtimes };
  const provider = await openProvider(parts, opened);
  const resources = opened.move();
  const close = (): Promise<void> => resources.disposeAsync();
  return {
    self: mesh.self,
    provider: config.provider,
    get addresses() {
      return mesh.addresses;
    },
    status: () => ({
      free: provider.trade.free(),
      peers: mesh.peers().length,
      speed: provider.speed.score,
      stake: account.now().stake,
      reserved: account.now().reserved,
      jobs: provider.jobs.list().map((job) => ({
        lease: job.agreement.lease,
        phase: job.phase,
        attempt: job.attempt,
        buyer: job.agreement.delegate,
      })),
    }),
    onEvent: (listener) => {
      listeners.add(listener);
      return { [Symbol.dispose]: () => listeners.delete(listener) };
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

interface Parts {
  readonly env: Env;
  readonly config: NodeConfig;
  readonly tell: Tell;
  readonly networkId: Address;
  readonly journal: Journal;
  readonly mesh: Mesh;
  readonly chain: Chain;
  readonly clock: { now(): number };
  readonly account: { now(): ProviderAccount; refresh(): Promise<void> };
  readonly artifacts: Artifacts;
  readonly runtimes: ReadonlyMap<RuntimeKind, Runtime>;
}

/** Recovers what the journal holds, then starts to trade. */
async function openProvider(
  parts: Parts,
  opened: AsyncDisposableStack,
): Promise<{ trade: Trade; jobs: Jobs; speed: Speed }> {
  const { env, config, tell, networkId, journal, mesh, chain, artifacts, runtimes } = parts;
  const admission = createAdmission({ network: networkId });
  const onRefused = ({ code, reason }: Refusal): void => tell({ type: 'offer-refused', code, reason });
  const feed = opened.use(await openOfferFeed(env, { pubsub: mesh, network: mesh, networkId, admission, onRefused }));
  const execution = new Execution(env, {
    key: config.key,
    provider: config.provider,
    chain,
    network: mesh,
    artifacts,
    runtimes,
    journal,
    directory: config.home,
    tell,
  });
  const wasm = runtimes.get('wasm');
  const nowMs = env.clock.now();
  const speed = wasm === undefined ? { score: 0, measuredMs: nowMs } : await measureSpeed(wasm, config.home, nowMs);
  const trade = createTrade(parts, { admission, feed, execution, speed });
  const onRelease = (agreement: Agreement): void => trade.endLease(agreement.lease);
  const jobs = opened.use(new Jobs(env, { key: config.key, chain, journal, execution, tell, onRelease }));
  const recovered = await jobs.recover();
  for (const { agreement, phase } of recovered) {
    trade.restoreLease(agreement.lease, agreement.need, phase === 'accepted' ? BigInt(agreement.reserve) : 0n);
  }
  opened.use(
    await serveLeases(env, {
      key: config.key,
      provider: config.provider,
      chain,
      network: mesh,
      jobs,
      trade,
      execution,
      tell,
      onFunded: async (lease) => {
        await parts.account.refresh();
        trade.stakeReserved(lease);
      },
    }),
  );
  opened.use(await artifacts.serve(mesh, (peer, cid) => mayFetch(jobs, peer, cid)));
  opened.use(trade);
  await jobs.resume(recovered);
  await trade.open();
  tell({
    type: 'selling',
    provider: config.provider,
    cpuMillis: config.capacity.cpuMillis,
    memoryBytes: config.capacity.memoryBytes,
    speed: speed.score,
  });
  return { trade, jobs, speed };
}

function createTrade(
  parts: Parts,
  own: {
    readonly admission: Admission;
    readonly feed: OfferFeed;
    readonly execution: Execution;
    readonly speed: Speed;
  },
): Trade {
  const { env, config, tell, networkId, journal, mesh, runtimes } = parts;
  const { admission, feed, execution, speed } = own;
  const { prices, durationSecondsMax, blockedBuyers, floor } = config;
  return new Trade(env, {
    key: config.key,
    networkId,
    pubsub: mesh,
    network: mesh,
    admission,
    journal,
    total: { ...config.capacity, gpus: [] },
    policy: { prices, durationSecondsMax, blockedBuyers, ...(floor === undefined ? {} : { floorPerSecond: floor }) },
    region: config.region,
    runtimes: () => [...runtimes.keys()],
    speed: () => speed,
    warm: () => execution.warm(),
    facts: () => factsOf(parts),
    chainNowMs: () => parts.clock.now(),
    onOffer: (bytes) => feed.add(bytes),
    tell,
  });
}

/** Outputs are for the buyer whose job wrote them, and for nobody else. */
function mayFetch(jobs: Jobs, peer: Address, cid: string): boolean {
  return jobs.list().some((job) => job.agreement.delegate === peer && job.outcome?.outputs.includes(cid) === true);
}

function openMeshOf(env: Env, config: NodeConfig, networkId: Address): Promise<Mesh> {
  return openMesh(env, {
    key: config.key,
    directory: join(config.home, 'mesh'),
    listen: config.listen,
    announce: config.announce,
    bootstrap: config.bootstrap,
    mdns: config.mdns,
    role: 'node',
    network: meshName(networkId),
  });
}

/** What mesh protocols are scoped by: enough of the network id that two networks never meet. */
export function meshName(networkId: Address): string {
  return networkId.slice(0, 16);
}

async function usableRuntimes(env: Env, config: NodeConfig, tell: Tell): Promise<Map<RuntimeKind, Runtime>> {
  const all = createRuntimes(env, {
    directory: join(config.home, 'runtimes'),
    wasmCompiler: config.wasmCompiler,
    ...(config.containerSocket === undefined ? {} : { containerSocket: config.containerSocket }),
  });
  const usable = new Map<RuntimeKind, Runtime>();
  for (const runtime of all) {
    if (!config.runtimes.includes(runtime.kind)) continue;
    const capability = await runtime.probe(AbortSignal.timeout(30_000));
    tell({ type: 'runtime', runtime: runtime.kind, available: capability.available, reason: capability.reason ?? '' });
    if (capability.available) usable.set(runtime.kind, runtime);
  }
  if (usable.size === 0) {
    throw new MoltError(
      'runtime/unavailable',
      `none of the runtimes ${config.runtimes.join(', ')} works here; the reasons are above`,
    );
  }
  return usable;
}

/** The provider's account, read now and again; never older than a few seconds. */
async function followAccount(
  env: Env,
  chain: Chain,
  config: NodeConfig,
): Promise<{ now(): ProviderAccount; refresh(): Promise<void> } & Disposable> {
  const account = await chain.provider(config.provider);
  if (account === undefined) {
    throw new MoltError(
      'chain/account-missing',
      `there is no provider account ${config.provider} on this chain; run \`molt init --role provider\` first`,
      { provider: config.provider },
    );
  }
  if (account.operator !== config.key.address) {
    throw new MoltError(
      'protocol/wrong-signer',
      `the operator of ${config.provider} is ${account.operator}, this node's key is ${config.key.address}; use that key, or name this one with the owner's wallet`,
    );
  }
  if (account.stake < chain.parameters.minStake) {
    throw new MoltError(
      'chain/stake-too-low',
      `this market asks providers for ${formatMolt(chain.parameters.minStake)} of stake, ${formatMolt(account.stake)} are there; stake more with the owner's wallet`,
    );
  }
  let current: ProviderAccount = account;
  const refresh = async (): Promise<void> => {
    current = (await chain.provider(config.provider).catch(() => undefined)) ?? current;
  };
  const refreshing = env.clock.every(FACTS_REFRESH_MS, refresh);
  return { now: () => current, refresh, [Symbol.dispose]: () => refreshing[Symbol.dispose]() };
}

function assertWindows(chain: Chain, config: NodeConfig): void {
  const { minGraceMs, minWindowMs } = chain.parameters;
  if (config.graceSeconds * 1000 < minGraceMs || config.windowSeconds * 1000 < minWindowMs) {
    throw new MoltError(
      'config/invalid',
      `this chain asks for graceSeconds ≥ ${minGraceMs / 1000} and windowSeconds ≥ ${minWindowMs / 1000}, configured are ${config.graceSeconds} and ${config.windowSeconds}`,
    );
  }
}

function factsOf(parts: Parts): ReturnType<ConstructorParameters<typeof Trade>[1]['facts']> {
  const account = parts.account.now();
  const { reserveBps, maxLeaseMs } = parts.chain.parameters;
  return {
    address: parts.config.provider,
    stake: account.stake,
    freeStake: baseUnits(account.stake - account.reserved),
    reserveBps,
    maxLeaseMs,
    minGraceMs: parts.config.graceSeconds * 1000,
    minWindowMs: parts.config.windowSeconds * 1000,
  };
}
