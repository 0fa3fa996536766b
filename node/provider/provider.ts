/**
 * The provider's part of a node: everything behind the listening mesh. Loaded after the node listens, for it is most of
 * the program.
 */
import { join } from 'node:path';

import { type Chain, type ProviderAccount, createVouching, openChainClock } from '../../chain/index.ts';
import {
  type Admission,
  type OfferFeed,
  type Refusal,
  NEIGHBOURS_HEALTHY,
  createAdmission,
  followMarket,
  KeptNeighbours,
  openOfferFeed,
} from '../../market/index.ts';
import type { Address } from '../../protocol/address.ts';
import { Deadline } from '../../protocol/deadline.ts';
import type { Env } from '../../protocol/env.ts';
import { MoltError } from '../../protocol/errors.ts';
import { type Feature, type Resources, type RuntimeKind, resourceClassOf } from '../../protocol/messages.ts';
import { baseUnits, formatMolt } from '../../protocol/units.ts';
import { marketCid } from '../../protocol/wire.ts';
import type { NodeConfig } from '../node-config.ts';
import type { Tell } from '../events.ts';
import {
  type GpuDetector,
  type GpuDevice,
  type GpuSource,
  type GpuUse,
  Gpus,
  createDetector,
  examineGpus,
} from '../gpu/index.ts';
import type { Journal } from '../journal.ts';
import { assertSellable, describeMachine } from '../machine.ts';
import { type Artifacts, type Mesh, openArtifacts } from '../mesh/index.ts';
import { Metrics } from '../metrics.ts';
import type { NodeStatus } from '../operator/index.ts';
import { type Runtime, createRuntimes } from '../runtime/index.ts';
import { Verifier } from '../verifier/index.ts';
import { publicInternet } from '../outside.ts';
import { type Speed, measureSpeed } from '../speed.ts';
import { type Approve, createApproval } from './approval.ts';
import { Buyers } from './buyers.ts';
import { Content } from './content.ts';
import { Defence } from './defence.ts';
import { secureConnection } from './download.ts';
import { Execution } from './execution.ts';
import type { Agreement } from './job.ts';
import { Jobs, type JobsOptions } from './jobs.ts';
import { serveLeases } from './lease-stream.ts';
import { openOperations, wasDraining } from './operated.ts';
import { serveForwards } from './services.ts';
import { Trade } from './trade.ts';

const FACTS_REFRESH_MS = 5_000;
const PROBE_MS = 60_000;
const ANNOUNCE_EVERY_MS = 1_000;
/** Of `artifactQuotaBytes`: modules are kept as files beside the store. */
const MODULE_SHARE = 0.25;

/** What the node opened before. */
export interface ProviderParts {
  readonly env: Env;
  readonly config: NodeConfig;
  readonly tell: Tell;
  readonly networkId: Address;
  readonly journal: Journal;
  readonly mesh: Mesh;
  readonly chain: Chain;
}

/** And what the provider opens itself. */
interface OpenParts extends ProviderParts {
  readonly clock: { now(): number };
  readonly account: { now(): ProviderAccount; refresh(): Promise<void> };
  readonly artifacts: Artifacts;
  readonly runtimes: ReadonlyMap<RuntimeKind, Runtime>;
  /** What each runtime's self-test found. */
  readonly probed: NodeStatus['runtimes'];
  /** Of all usable runtimes together. */
  readonly features: readonly Feature[];
  /** Each was seen inside a container. */
  readonly gpus: readonly GpuDevice[];
  readonly gpuSource: GpuSource;
}

/**
 * Recovers what the journal holds, then trades, until `opened` is disposed. Throws `chain/…`, `config/invalid` and
 * `runtime/unavailable`.
 */
export async function openProvider(base: ProviderParts, opened: AsyncDisposableStack): Promise<void> {
  const metrics = new Metrics();
  const hear: Tell = (event) => {
    metrics.heard(event);
    base.tell(event);
  };
  const parts = await openParts({ ...base, tell: hear }, opened);
  const { env, config, tell, networkId, journal, mesh, chain, artifacts, runtimes } = parts;
  const { key, provider, home, policy, egress } = config;
  const admission = metrics.counting(createAdmission({ network: networkId }));
  const onRefused = ({ code, reason }: Refusal): void => tell({ type: 'offer-refused', code, reason });
  const regions = config.followRegion === '' ? [...new Set(['', config.region])] : [config.followRegion];
  const vouch = createVouching(env, chain);
  const feedOptions = { pubsub: mesh, network: mesh, networkId, admission, regions, vouch, onRefused };
  const feed = opened.use(await openOfferFeed(env, feedOptions));
  opened.use(followMarket(env, { feed, neighbours: mesh }));
  opened.use(new KeptNeighbours(env, { feed, neighbours: mesh, vouch, wanted: NEIGHBOURS_HEALTHY }));
  const shared = { key, provider, chain, network: mesh, journal, tell };
  const content = await openContent(parts);
  const gpus = opened.use(watchGpus(parts, () => trade));
  const gpuUse = (ids: readonly string[]): Promise<GpuUse> => gpus.use(ids);
  const execution = new Execution(env, { ...shared, artifacts, content, runtimes, directory: home, gpuUse });
  const wasm = runtimes.get('wasm');
  const speed = wasm === undefined ? { score: 0, measuredMs: env.clock.now() } : await measureSpeed(env, wasm, home);
  const approve = createApproval(env, { ...config.approval, path: config.toolPath, tell });
  const draining = await wasDraining(journal);
  const buyers = await Buyers.open(env, {
    budget: (address) => chain.budget(address),
    chainNowMs: () => parts.clock.now(),
    journal,
    rangeOf: (peer) => mesh.rangeOf(peer),
  });
  const trade = createTrade(parts, { admission, feed, execution, speed, draining, approve, buyers });
  const onRelease: JobsOptions['onRelease'] = ({ lease, gpus: devices = [] }, gone) => {
    const giveBack = (): void => gpus.release(devices);
    trade.endLease(lease, gone.then(giveBack, giveBack));
  };
  const onPaid = ({ budget }: Agreement): Promise<void> => buyers.paid(budget);
  const defend = defenceOf(parts, feed, opened);
  const jobs = opened.use(new Jobs(env, { ...shared, execution, content, onRelease, onPaid, defend }));
  const recovered = await jobs.recover();
  for (const { agreement, phase, vacated } of recovered) {
    if (vacated === true) continue;
    const { lease, need, gpus, reserve } = agreement;
    trade.restoreLease(lease, { need, gpus: gpus ?? [], stake: phase === 'accepted' ? BigInt(reserve) : 0n });
  }
  const onFunded = async (lease: Address): Promise<void> => {
    await parts.account.refresh();
    trade.stakeReserved(lease);
  };
  opened.use(await serveLeases(env, { ...shared, egress, policy, approve, jobs, trade, execution, onFunded }));
  opened.use(await serveForwards(env, { network: mesh, jobs, execution }));
  opened.use(await artifacts.serve(mesh, (peer, cid) => mayFetch(jobs, peer, cid)));
  opened.use(trade);
  const verifier = config.verify && opened.use(await openVerifier(parts, config.verify));
  await openOperations(env, { ...parts, verifier, jobs, trade, metrics, feed }, opened);
  await jobs.resume(recovered);
  await trade.open();
  opened.use(mesh.onReachability(() => trade.moved()));
  announceMarket(parts, trade.total, opened);
  const { cpuMillis, memoryBytes } = config.capacity;
  tell({ type: 'selling', provider, cpuMillis, memoryBytes, speed: speed.score });
}

function defenceOf(parts: OpenParts, feed: OfferFeed, opened: AsyncDisposableStack): JobsOptions['defend'] {
  const { env, chain, mesh, journal } = parts;
  const addressesOf = (node: Address): readonly string[] => feed.book.get(node)?.content.addresses ?? [];
  const defence = opened.use(new Defence(env, { chain, network: mesh, journal, addressesOf }));
  return (job, dispute) => defence.show(job, dispute);
}

/** A disputed job may have no more memory than one that is sold here. */
function openVerifier(parts: OpenParts, limits: NonNullable<NodeConfig['verify']>): Promise<Verifier> {
  const { env, config, chain, mesh, journal, runtimes, tell } = parts;
  return Verifier.open(env, {
    key: config.key,
    provider: config.provider,
    chain,
    network: mesh,
    journal,
    directory: config.home,
    runtime: runtimes.get('wasm'),
    limits: { ...limits, memoryBytes: config.capacity.memoryBytes },
    tell,
  });
}

/** Stands in the DHT as a provider of its class. Peers come later than we start, so it is tried until it works. */
function announceMarket({ env, mesh, networkId }: OpenParts, total: Resources, opened: AsyncDisposableStack): void {
  const cid = marketCid(networkId, resourceClassOf(total));
  let announced = false;
  opened.use(
    env.clock.every(ANNOUNCE_EVERY_MS, async () => {
      if (announced || mesh.peers().length === 0) return;
      announced = await mesh.provide(cid).then(
        () => true,
        () => false,
      );
    }),
  );
}

function openContent({ env, config, mesh, artifacts }: OpenParts): Promise<Content> {
  return Content.open(env, {
    network: mesh,
    artifacts,
    web: { connect: secureConnection(publicInternet), policy: config.egress },
    directory: config.home,
    moduleBytesMax: config.artifactQuotaBytes * MODULE_SHARE,
  });
}

async function openParts(base: ProviderParts, opened: AsyncDisposableStack): Promise<OpenParts> {
  const { env, config, chain, tell } = base;
  const machine = await describeMachine(config.home);
  tell({ type: 'machine', ...machine });
  assertSellable(config, machine);
  const clock = opened.use(await openChainClock(env, chain));
  const account = opened.use(await followAccount(env, chain, config));
  assertWindows(chain, config);
  const directory = join(config.home, 'artifacts');
  const artifacts = await openArtifacts(env, { directory, quotaBytes: config.artifactQuotaBytes * (1 - MODULE_SHARE) });
  const usable = await usableRuntimes(env, config, tell);
  const detector = createDetector(env, config.toolPath);
  const gpus = await sellableGpus(base, detector, usable.runtimes.get('container'));
  return { ...base, clock, account, artifacts, ...usable, gpus, gpuSource: detector.source };
}

/** `trade` is asked for when something happens, which is not before it is there. */
function watchGpus({ env, tell, gpuSource, gpus }: OpenParts, trade: () => Trade): Gpus {
  return new Gpus(env, {
    source: gpuSource,
    devices: gpus,
    leased: () => trade().leasedGpus(),
    onWithheld: (ids) => trade().withholdGpus(ids),
    tell: (id, reason) => tell({ type: 'gpu-health', id, well: reason === undefined, reason: reason ?? '' }),
  });
}

/** Looks for GPUs, tries each in a container, and tells of all of them. */
async function sellableGpus(
  { env, config, tell, journal }: ProviderParts,
  { source, toolkit }: GpuDetector,
  containers: Runtime | undefined,
): Promise<readonly GpuDevice[]> {
  const unfinished = (await journal.jobs()).filter(({ phase }) => phase !== 'closed');
  const check = async (device: GpuDevice): Promise<string | undefined> => {
    if (containers === undefined) return 'the container runtime is not offered, and nothing else can have a GPU';
    using deadline = new Deadline(env.clock, PROBE_MS);
    return containers.checkGpu(device, deadline.signal);
  };
  const { gpus, problems } = await examineGpus({
    source,
    toolkit,
    check,
    selling: config.gpus,
    leased: new Set(unfinished.flatMap(({ agreement }) => agreement.gpus ?? [])),
  });
  for (const reason of problems) tell({ type: 'trouble', what: 'GPUs', code: 'runtime/unavailable', reason });
  for (const { device, reason } of gpus) {
    const { id, model, memoryBytes } = device;
    tell({ type: 'gpu', id, model, memoryBytes, offered: reason === undefined, reason: reason ?? '' });
  }
  return gpus.flatMap(({ device, reason }) => (reason === undefined ? [device] : []));
}

function createTrade(
  parts: OpenParts,
  own: {
    readonly admission: Admission;
    readonly feed: OfferFeed;
    readonly execution: Execution;
    readonly speed: Speed;
    readonly draining: boolean;
    readonly approve: Approve;
    readonly buyers: Buyers;
  },
): Trade {
  const { env, config, tell, networkId, journal, mesh, runtimes } = parts;
  const { admission, feed, execution, speed, draining } = own;
  return new Trade(env, {
    key: config.key,
    networkId,
    pubsub: mesh,
    network: mesh,
    admission,
    journal,
    buyers: own.buyers,
    total: config.capacity,
    gpus: parts.gpus,
    policy: config.policy,
    approve: own.approve,
    needsApproval: config.approval.command.length > 0,
    region: config.region,
    runtimes: () => [...runtimes.keys()],
    features: parts.features,
    speed: () => speed,
    warm: () => execution.warm(),
    near: (names) => execution.near(names),
    facts: () => factsOf(parts),
    chainNowMs: () => parts.clock.now(),
    onOffer: (bytes) => feed.add(bytes),
    draining,
    tell,
  });
}

/** Outputs are for the buyer whose job wrote them, and for nobody else. */
function mayFetch(jobs: Jobs, peer: Address, cid: string): boolean {
  return jobs.list().some((job) => job.agreement.delegate === peer && job.outcome?.outputs.includes(cid) === true);
}

async function usableRuntimes(
  env: Env,
  config: NodeConfig,
  tell: Tell,
): Promise<Pick<OpenParts, 'runtimes' | 'features' | 'probed'>> {
  const all = createRuntimes(env, {
    directory: join(config.home, 'runtimes'),
    wasmCompiler: config.wasmCompiler,
    ...(config.containerSocket === undefined || !config.runtimes.includes('container')
      ? {}
      : {
          containerSocket: config.containerSocket,
          containerSandbox: config.containerSandbox,
          containerPool: config.containerPool,
        }),
  });
  const usable = new Map<RuntimeKind, Runtime>();
  const features: Feature[] = [];
  const probed: NodeStatus['runtimes'][number][] = [];
  for (const runtime of all) {
    if (!config.runtimes.includes(runtime.kind)) continue;
    using deadline = new Deadline(env.clock, PROBE_MS);
    const capability = await runtime.probe(deadline.signal);
    const { available, reason = '' } = capability;
    tell({ type: 'runtime', runtime: runtime.kind, available, reason });
    probed.push({ kind: runtime.kind, available, reason });
    if (!available) continue;
    usable.set(runtime.kind, runtime);
    // A way out is sold only where the owner of this machine has said where to.
    features.push(...capability.features.filter((feature) => feature !== 'egress' || config.egress.length > 0));
  }
  // What jobs may reach, this node may fetch for them.
  if (config.egress.length > 0) features.push('fetch');
  if (usable.size === 0) {
    throw new MoltError(
      'runtime/unavailable',
      `none of the runtimes of this node works here: ${probed.map(({ kind, reason }) => `${kind}: ${reason}`).join('; ')}`,
    );
  }
  return { runtimes: usable, features, probed };
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

function factsOf(parts: OpenParts): ReturnType<ConstructorParameters<typeof Trade>[1]['facts']> {
  const account = parts.account.now();
  const { reserveBps, maxLeaseMs } = parts.chain.parameters;
  // A jailed provider, or one that owes a slash, opens no lease, so it quotes none.
  const isBarred = account.slashDue > 0n || account.jailedUntilMs > parts.clock.now();
  // Stake that is unbonding no longer counts, while older leases may still have it reserved.
  const isFree = !isBarred && account.stake > account.reserved;
  return {
    address: parts.config.provider,
    stake: account.stake,
    freeStake: baseUnits(isFree ? account.stake - account.reserved : 0n),
    reserveBps,
    maxLeaseMs,
    minGraceMs: parts.config.graceSeconds * 1000,
    minWindowMs: parts.config.windowSeconds * 1000,
  };
}
