/**
 * What `molt doctor` looks at, one thing after the other, each on its own: one that cannot be looked at hides no other.
 *
 * Nothing is changed but for scratch files of the runtimes' self-tests, which go with it.
 */
import { access, constants, mkdtemp, rm, stat, statfs } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

import { type Chain, connectChain, leftToday, readWalletAddress } from '../../../chain/index.ts';
import { parseAddress } from '../../../protocol/address.ts';
import { Deadline } from '../../../protocol/deadline.ts';
import { keyPairFromSeed } from '../../../protocol/ed25519.ts';
import { MoltError } from '../../../protocol/errors.ts';
import { meshName } from '../../../protocol/wire.ts';
import { type Settings, engineSocket, processEnvironment } from '../../config.ts';
import { type GpuDevice, createDetector, examineGpus } from '../../gpu/index.ts';
import { openMesh } from '../../mesh/index.ts';
import { type NodeStatus, openOperator } from '../../operator/index.ts';
import { isPublicAddress } from '../../public-address.ts';
import { type Runtime, createRuntimes } from '../../runtime/index.ts';
import { type CommandContext, loadSettings, moltCommand } from '../command.ts';
import type { BudgetFacts, Facts, PortFact, ProviderFacts, ReachFacts, Refused } from './checks.ts';

const PROBE_MS = 60_000;
const PEER_MS = 10_000;

/** Told what is being looked at. */
export type TellLook = (what: string) => void;

export async function gatherFacts(context: CommandContext, rpc: unknown, tell: TellLook): Promise<Facts> {
  const base = {
    molt: moltCommand(),
    home: context.home.directory,
    nodeVersion: process.versions.node,
    files: await fileFacts(context),
  };
  const loaded = await loadSettings(context, { rpcUrl: rpc }).catch(refusedBy);
  if (isRefused(loaded)) return { ...base, settings: loaded, roles: [] };
  const { settings } = loaded;
  const roles = [
    ...(settings.provider === null ? [] : (['provider'] as const)),
    ...(settings.budget === null ? [] : (['buyer'] as const)),
  ];
  if (roles.length === 0) return { ...base, roles };
  const startedMs = { wall: context.env.clock.now(), monotonic: context.env.clock.monotonic() };
  const { running, mute } = await lookAtNode(context);
  tell('the chain');
  const onChain = await chainFacts(context, settings, startedMs);
  const here = roles.includes('provider') ? await machineFacts(context, settings, { running, tell }) : {};
  tell('bootstrap peers');
  const bootstrap = await peerFacts(context, settings, onChain.chain);
  return {
    ...base,
    roles,
    ...(running === undefined ? {} : { running }),
    ...(mute === undefined ? {} : { mute }),
    ...here,
    ...onChain,
    ...(bootstrap === undefined ? {} : { bootstrap }),
  };
}

function refusedBy(error: unknown): Refused {
  if (error instanceof MoltError) return { code: error.code, message: error.message };
  return { code: 'unexpected', message: error instanceof Error ? error.message : String(error) };
}

function isRefused(value: object): value is Refused {
  return 'code' in value && 'message' in value;
}

async function fileFacts({ home }: CommandContext): Promise<Facts['files']> {
  const files: Facts['files'][number][] = [];
  for (const path of [home.directory, home.wallet, home.nodeKey, home.config]) {
    const found = await stat(path).catch(() => undefined);
    if (found !== undefined) files.push({ path, mode: found.mode & 0o777, isDirectory: found.isDirectory() });
  }
  return files;
}

async function lookAtNode({ env, home }: CommandContext): Promise<{ running?: NodeStatus; mute?: Refused }> {
  try {
    await using operator = await openOperator(env, home);
    const running = await operator.status();
    return running === undefined ? {} : { running };
  } catch (error) {
    return { mute: refusedBy(error) };
  }
}

async function machineFacts(
  context: CommandContext,
  settings: Settings,
  { running, tell }: { readonly running: NodeStatus | undefined; readonly tell: TellLook },
): Promise<Partial<Facts>> {
  const disk = await statfs(context.home.directory);
  tell('ports');
  const ports = await portFacts(settings, running !== undefined);
  tell('runtimes, by trying them');
  const found = await runtimeFacts(context, settings, running !== undefined);
  const addresses = running?.reachability.addresses ?? [...settings.listen, ...settings.announce];
  return {
    disk: { freeBytes: disk.bavail * disk.bsize, soldBytes: settings.diskBytes },
    ports,
    ...found,
    ...(running === undefined ? { leftovers: await leftoverFacts(context, settings) } : {}),
    tools: await toolFacts(context, settings),
    reach: {
      addresses: addresses.map((address) => ({ address, reach: reachOf(address) })),
      announced: addresses.filter((address) => settings.announce.some((given) => address.startsWith(given))),
      isRunning: running !== undefined,
    },
  };
}

/** What a multiaddr that begins with an IP address or a DNS name says about who can dial it. */
function reachOf(address: string): ReachFacts['addresses'][number]['reach'] {
  const [, kind = '', host = '', ...rest] = address.split('/');
  if (rest.includes('p2p-circuit')) return 'relayed';
  if (kind !== 'ip4' && kind !== 'ip6') return 'public';
  if (host === '0.0.0.0' || host === '::') return 'any';
  if (host.startsWith('127.') || host === '::1') return 'loopback';
  return isPublicAddress(host) ? 'public' : 'local';
}

/** Attempts of which something is there while no node runs: containers, volumes and disks by this home's labels. */
async function leftoverFacts({ env, home }: CommandContext, settings: Settings): Promise<number> {
  const directory = join(home.directory, 'runtimes');
  const made = createRuntimes(env, {
    directory,
    ...(settings.runtimes.includes('container')
      ? { containerSocket: settings.containerSocket ?? engineSocket(processEnvironment()) }
      : {}),
  });
  let count = 0;
  for (const runtime of made) {
    // A runtime that was never used here has nothing, and is not given a folder by looking.
    const wasUsed = await access(join(directory, runtime.kind)).then(
      () => true,
      () => false,
    );
    // An engine that is away is told of by the check of its runtime.
    if (wasUsed) count += (await runtime.list().catch(() => [])).length;
    await runtime.close();
  }
  return count;
}

/** In folders of their own, so that nothing of a running node's is touched. */
async function runtimeFacts(
  context: CommandContext,
  settings: Settings,
  isRunning: boolean,
): Promise<Pick<Facts, 'runtimes' | 'gpus'>> {
  const { env } = context;
  const directory = await mkdtemp(join(tmpdir(), 'molt-doctor-'));
  const { runtimes, wasmCompiler, containerSandbox } = settings;
  const socket = settings.containerSocket ?? engineSocket(processEnvironment());
  const found: NonNullable<Facts['runtimes']>[number][] = [];
  let containers: Runtime | undefined;
  try {
    const made = createRuntimes(env, {
      directory,
      wasmCompiler,
      containerSandbox,
      ...(runtimes.includes('container') ? { containerSocket: socket } : {}),
    });
    for (const runtime of made) {
      if (!runtimes.includes(runtime.kind)) continue;
      using deadline = new Deadline(env.clock, PROBE_MS);
      const { available, reason = '', details, gaps } = await runtime.probe(deadline.signal);
      found.push({ kind: runtime.kind, available, reason, details, gaps });
      if (available && runtime.kind === 'container') containers = runtime;
      else await runtime.close();
    }
    return { runtimes: found, gpus: await gpuFacts(context, settings, { containers, isRunning }) };
  } finally {
    await containers?.close();
    await rm(directory, { recursive: true, force: true });
  }
}

/** Each device is tried in a container, as the node does before it sells one. */
async function gpuFacts(
  { env, environment }: CommandContext,
  settings: Settings,
  { containers, isRunning }: { readonly containers: Runtime | undefined; readonly isRunning: boolean },
): Promise<NonNullable<Facts['gpus']>> {
  if (settings.gpus.every((id) => id === 'none')) return { isOff: true, devices: [], problems: [], toolkit: undefined };
  const { source, toolkit } = createDetector(env, environment['PATH'] ?? '');
  const looked = await source.look();
  const check = async (device: GpuDevice): Promise<string | undefined> => {
    if (containers === undefined) return 'the container runtime does not work here, and nothing else can have a GPU';
    using deadline = new Deadline(env.clock, PROBE_MS);
    return containers.checkGpu(device, deadline.signal);
  };
  // What is in the memory of a card that a running node may have leased is right to be there.
  const leased = new Set(isRunning ? looked.devices.map((device) => device.id) : []);
  const examined = await examineGpus({
    source: { look: () => Promise.resolve(looked) },
    toolkit,
    check,
    selling: settings.gpus,
    leased,
  });
  return {
    isOff: false,
    devices: examined.gpus.map(({ device: { id, model }, reason }) => ({ id, model, reason })),
    problems: examined.problems,
    toolkit: examined.toolkit,
  };
}

async function toolFacts({ environment }: CommandContext, settings: Settings): Promise<NonNullable<Facts['tools']>> {
  const uses = [
    ...(settings.runtimes.includes('wasm')
      ? [{ name: 'bwrap', use: 'without it the wasm sandbox has one wall less' }]
      : []),
    ...(settings.runtimes.includes('container')
      ? [{ name: 'nsenter', use: 'without it containers get no egress and no services' }]
      : []),
  ];
  const folders = (environment['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  return Promise.all(uses.map(async ({ name, use }) => ({ name, use, path: await findProgram(folders, name) })));
}

async function findProgram(folders: readonly string[], name: string): Promise<string | undefined> {
  for (const folder of folders) {
    const path = join(folder, name);
    if (
      await access(path, constants.X_OK).then(
        () => true,
        () => false,
      )
    )
      return path;
  }
  return undefined;
}

async function portFacts(settings: Settings, isRunning: boolean): Promise<PortFact[]> {
  const places = settings.listen.flatMap((address) => {
    const [, host, port] = /^\/ip[46]\/([^/]+)\/tcp\/(\d+)/.exec(address) ?? [];
    return host === undefined || Number(port) === 0 ? [] : [{ what: address, host, port: Number(port) }];
  });
  const { metricsPort } = settings;
  if (metricsPort !== null) places.push({ what: `metrics port ${metricsPort}`, host: '127.0.0.1', port: metricsPort });
  return Promise.all(places.map((place) => tryPort(place, isRunning)));
}

async function tryPort(place: { what: string; host: string; port: number }, isRunning: boolean): Promise<PortFact> {
  const { what, host, port } = place;
  const server = createServer();
  const { promise, resolve } = Promise.withResolvers<NodeJS.ErrnoException | undefined>();
  server.once('error', resolve);
  server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(undefined)));
  const error = await promise;
  if (error === undefined) return { what, state: 'free', reason: '' };
  if (error.code !== 'EADDRINUSE') return { what, state: 'refused', reason: error.message };
  return { what, state: isRunning ? 'ours' : 'taken', reason: error.message };
}

type OnChain = Pick<Facts, 'chain' | 'clock' | 'provider' | 'budget' | 'fees'>;

async function chainFacts(
  context: CommandContext,
  settings: Settings,
  started: { readonly wall: number; readonly monotonic: number },
): Promise<OnChain> {
  const { env } = context;
  const { rpcUrl, programId } = settings;
  const named = programId === null ? {} : { programId: parseAddress(programId) };
  const chain = await connectChain(env, { rpcUrl, ...named }).catch(refusedBy);
  if ('code' in chain) return { chain: { ...chain, rpcUrl } };
  await using _closing = chain;
  try {
    const chainMs = await chain.chainTimeMs();
    const { clock } = env;
    const jumpedMs = Math.abs(clock.now() - started.wall - (clock.monotonic() - started.monotonic));
    return {
      chain: { rpcUrl, network: chain.network },
      clock: { chainLagMs: clock.now() - chainMs, jumpedMs },
      ...(await accountFacts(context, settings, { chain, chainMs })),
    };
  } catch (error) {
    return { chain: { ...refusedBy(error), rpcUrl } };
  }
}

async function accountFacts(
  { home, env }: CommandContext,
  settings: Settings,
  { chain, chainMs }: { readonly chain: Chain; readonly chainMs: number },
): Promise<OnChain> {
  const key = await readWalletAddress(home.nodeKey).catch(refusedBy);
  if ('code' in key) {
    return {
      ...(settings.provider === null ? {} : { provider: key }),
      ...(settings.budget === null ? {} : { budget: key }),
    };
  }
  const nodeKey = key.address;
  const { lamports } = await chain.balances(nodeKey);
  const nowMs = env.clock.now();
  return {
    fees: { nodeKey, lamports },
    ...(settings.provider === null
      ? {}
      : { provider: await providerFacts(chain, { nodeKey, account: settings.provider, chainMs }).catch(refusedBy) }),
    ...(settings.budget === null
      ? {}
      : { budget: await budgetFacts(chain, { nodeKey, account: settings.budget, nowMs }).catch(refusedBy) }),
  };
}

async function providerFacts(
  chain: Chain,
  given: { readonly nodeKey: ProviderFacts['nodeKey']; readonly account: string; readonly chainMs: number },
): Promise<ProviderFacts> {
  const account = parseAddress(given.account);
  const found = await chain.provider(account);
  if (found === undefined) {
    throw new MoltError('chain/account-missing', `there is no provider account ${account} on this chain`);
  }
  const { operator, stake, reserved, slashDue, jailedUntilMs } = found;
  const { minStake } = chain.parameters;
  const jailedForMs = Math.max(0, jailedUntilMs - given.chainMs);
  return { account, operator, nodeKey: given.nodeKey, stake, reserved, minStake, slashDue, jailedForMs };
}

async function budgetFacts(
  chain: Chain,
  given: { readonly nodeKey: ProviderFacts['nodeKey']; readonly account: string; readonly nowMs: number },
): Promise<BudgetFacts> {
  const account = parseAddress(given.account);
  const found = await chain.budget(account);
  if (found === undefined) {
    throw new MoltError('chain/account-missing', `there is no budget ${account} on this chain`);
  }
  const { free, locked, delegates, expiresAtMs } = found;
  return {
    account,
    isDelegate: delegates.includes(given.nodeKey),
    free,
    locked,
    expiresInMs: expiresAtMs - given.nowMs,
    leftToday: leftToday(found, given.nowMs),
  };
}

/** Dials each with a key of its own, so that no peer takes us for the node. */
async function peerFacts(
  { env }: CommandContext,
  settings: Settings,
  chain: OnChain['chain'],
): Promise<Facts['bootstrap']> {
  const { bootstrap, mdns } = settings;
  if (bootstrap.length === 0) return { mdns, peers: [] };
  // The protocols of a mesh carry the network's name, which the chain tells.
  if (chain === undefined || !('network' in chain)) return undefined;
  await using mesh = await openMesh(env, {
    key: keyPairFromSeed(env.random.bytes(32)),
    listen: [],
    bootstrap: [],
    mdns: false,
    role: 'light',
    network: meshName(chain.network),
  });
  const peers = await Promise.all(
    bootstrap.map(async (address) => {
      using deadline = new Deadline(env.clock, PEER_MS);
      const refused = await mesh.connect([address], deadline.signal).then(() => undefined, refusedBy);
      return { address, refused };
    }),
  );
  return { mdns, peers };
}
