/**
 * What `molt doctor` makes of the facts it gathered: one check each, with what was found and how to mend it. Pure.
 *
 * `fail`: this home cannot sell, or buy, as it is. `warn`: it can, but less than it could, or not for long.
 */
import type { Address } from '../../../protocol/address.ts';
import type { ErrorCode } from '../../../protocol/errors.ts';
import { LIMITS } from '../../../protocol/limits.ts';
import { formatBytes, formatMolt } from '../../../protocol/units.ts';
import { formatDuration } from '../terminal.ts';

export type Verdict = 'ok' | 'warn' | 'fail';

export interface Check {
  readonly name: string;
  readonly verdict: Verdict;
  readonly found: string;
  /** Empty when there is nothing to mend. */
  readonly mend: string;
}

/** Something that was tried and did not work. */
export interface Refused {
  readonly code: ErrorCode | 'unexpected';
  readonly message: string;
}

/** Everything that was looked at; what is absent could not be, or is not for this home. */
export interface Facts {
  /** How the reader starts this program. */
  readonly molt: string;
  readonly home: string;
  readonly nodeVersion: string;
  /** Directory and key files that are there, with their permission bits. */
  readonly files: readonly { readonly path: string; readonly mode: number; readonly isDirectory: boolean }[];
  readonly settings?: Refused;
  readonly roles: readonly ('provider' | 'buyer')[];
  readonly running?: { readonly pid: number; readonly draining: boolean; readonly unfinished: number };
  /** A process holds the home and does not answer. */
  readonly mute?: Refused;
  readonly disk?: { readonly freeBytes: number; readonly soldBytes: number | null };
  readonly clock?: { readonly chainLagMs: number; readonly jumpedMs: number };
  readonly runtimes?: readonly {
    readonly kind: string;
    readonly available: boolean;
    readonly reason: string;
    readonly details: Readonly<Record<string, string | number | boolean>>;
    readonly gaps: readonly string[];
  }[];
  readonly gpus?: {
    /** Nothing is looked for: the setting says so. */
    readonly isOff: boolean;
    readonly devices: readonly { readonly id: string; readonly model: string; readonly reason: string | undefined }[];
    readonly problems: readonly string[];
    readonly toolkit: string | undefined;
  };
  /** Attempts of jobs of which something is there while no node runs. */
  readonly leftovers?: number;
  readonly tools?: readonly { readonly name: string; readonly path: string | undefined; readonly use: string }[];
  readonly ports?: readonly PortFact[];
  readonly reach?: ReachFacts;
  readonly bootstrap?: {
    readonly mdns: boolean;
    readonly peers: readonly { readonly address: string; readonly refused: Refused | undefined }[];
  };
  readonly chain?: { readonly rpcUrl: string; readonly network: Address } | (Refused & { readonly rpcUrl: string });
  readonly provider?: ProviderFacts | Refused;
  readonly budget?: BudgetFacts | Refused;
  /** Lamports of the node key. */
  readonly fees?: { readonly nodeKey: Address; readonly lamports: bigint };
}

export interface PortFact {
  readonly what: string;
  readonly state: 'free' | 'ours' | 'taken' | 'refused';
  readonly reason: string;
}

/** `any`: listens on every interface. */
export type Reach = 'loopback' | 'local' | 'any' | 'public' | 'relayed';

export interface ReachFacts {
  readonly addresses: readonly { readonly address: string; readonly reach: Reach }[];
  /** Named by the operator, so nobody had to confirm them. */
  readonly announced: readonly string[];
  /** The running node says so; else the settings do. */
  readonly isRunning: boolean;
}

/** Base units; times Unix ms. */
export interface ProviderFacts {
  readonly account: Address;
  readonly operator: Address;
  readonly nodeKey: Address;
  readonly stake: bigint;
  readonly reserved: bigint;
  readonly minStake: bigint;
  readonly slashDue: bigint;
  readonly jailedForMs: number;
}

export interface BudgetFacts {
  readonly account: Address;
  readonly isDelegate: boolean;
  readonly free: bigint;
  readonly locked: bigint;
  /** Negative: over. */
  readonly expiresInMs: number;
  readonly leftToday: bigint;
}

const NODE_MAJOR = 24;
const DISK_LEAST_BYTES = 10 ** 9;
const CLOCK_GOOD_MS = 10_000;
/** What a lease's endings cost at most, and what hundreds of them do. */
const LAMPORTS_LEAST = 1_000_000n;
const LAMPORTS_GOOD = 10_000_000n;
const EXPIRES_SOON_MS = 3 * 86_400_000;

const ok = (name: string, found: string): Check => ({ name, verdict: 'ok', found, mend: '' });
const warn = (name: string, found: string, mend: string): Check => ({ name, verdict: 'warn', found, mend });
const fail = (name: string, found: string, mend: string): Check => ({ name, verdict: 'fail', found, mend });

export function diagnose(facts: Facts): Check[] {
  const checks = [
    nodeCheck(facts),
    filesCheck(facts),
    settingsCheck(facts),
    runningCheck(facts),
    diskCheck(facts),
    chainCheck(facts),
    clockCheck(facts),
    ...runtimeChecks(facts),
    leftoverCheck(facts),
    ...gpuChecks(facts),
    toolsCheck(facts),
    ...portChecks(facts),
    reachCheck(facts),
    ...peerChecks(facts),
    ...providerChecks(facts),
    ...budgetChecks(facts),
    feesCheck(facts),
  ];
  return checks.filter((check) => check !== undefined);
}

/** The worst of them. */
export function worst(checks: readonly Check[]): Verdict {
  if (checks.some((check) => check.verdict === 'fail')) return 'fail';
  return checks.some((check) => check.verdict === 'warn') ? 'warn' : 'ok';
}

function nodeCheck({ nodeVersion }: Facts): Check {
  const isNew = Number(nodeVersion.split('.')[0]) >= NODE_MAJOR;
  if (isNew) return ok('node', `version ${nodeVersion}`);
  return fail(
    'node',
    `version ${nodeVersion}`,
    `molt needs Node ${NODE_MAJOR} or newer; in a checkout npm ci brings it`,
  );
}

function filesCheck({ home, files, molt }: Facts): Check {
  if (files.length === 0)
    return fail('home', `${home} does not exist`, `${molt} init --role provider (or buyer) makes it`);
  const open = files.filter(({ mode }) => (mode & 0o077) !== 0);
  if (open.length === 0) return ok('home', `${home}, only its user can read it`);
  const wanted = open.map(({ path, isDirectory }) => `chmod ${isDirectory ? '700' : '600'} ${path}`);
  const found = open.map(({ path, mode }) => `${path} has mode ${(mode & 0o777).toString(8).padStart(4, '0')}`);
  return fail('home', `others can read keys: ${found.join(', ')}`, wanted.join(' && '));
}

function settingsCheck({ settings, roles, molt, home, files }: Facts): Check | undefined {
  if (settings !== undefined)
    return fail('settings', settings.message, `correct it; ${molt} config lists all settings`);
  if (roles.length > 0) return ok('settings', `this home is a ${roles.join(' and a ')}`);
  if (files.length === 0) return undefined;
  return fail('settings', 'no provider and no budget is set', `${molt} init --role provider (or buyer) --home ${home}`);
}

function runningCheck({ running, mute, roles, molt }: Facts): Check | undefined {
  if (mute !== undefined) return warn('running node', mute.message, 'stop that process and start it again');
  if (!roles.includes('provider')) return undefined;
  if (running === undefined) return ok('running node', 'none on this home');
  const found = `process ${running.pid}, ${running.unfinished} unfinished jobs`;
  if (!running.draining) return ok('running node', found);
  return warn('running node', `${found}, draining: nothing new is taken`, `${molt} drain --undo sells again`);
}

function diskCheck({ disk }: Facts): Check | undefined {
  if (disk === undefined) return undefined;
  const { freeBytes, soldBytes } = disk;
  const free = `${formatBytes(freeBytes)} free`;
  if (freeBytes < DISK_LEAST_BYTES) {
    const mend = 'free some, or move the home with --home: inputs, images and journal are kept there';
    return fail('disk', `${free} where the home is`, mend);
  }
  if (soldBytes === null) return ok('disk', `${free}, half of it is sold`);
  const found = `${free}, ${formatBytes(soldBytes)} sold`;
  if (soldBytes <= freeBytes) return ok('disk', found);
  return fail('disk', found, `lower diskBytes to ${Math.floor(freeBytes / 2)} or less, or free some`);
}

function chainCheck({ chain }: Facts): Check | undefined {
  if (chain === undefined) return undefined;
  if ('network' in chain) return ok('chain', `${chain.rpcUrl}, network ${chain.network}`);
  const mend =
    chain.code === 'chain/unreachable'
      ? 'start it (molt devnet), or set rpcUrl to an endpoint that answers'
      : 'set rpcUrl and programId to the market you mean';
  return fail('chain', chain.message, mend);
}

function clockCheck({ clock }: Facts): Check | undefined {
  if (clock === undefined) return undefined;
  const { chainLagMs, jumpedMs } = clock;
  const mend = 'let the clock follow NTP (timedatectl set-ntp true); a local chain that was warped shows this too';
  if (jumpedMs > CLOCK_GOOD_MS) {
    return fail('clock', `was moved by ${formatDuration(jumpedMs)} while we looked`, mend);
  }
  const behind = `${formatDuration(Math.abs(chainLagMs))} ${chainLagMs < 0 ? 'behind' : 'ahead of'} the chain's`;
  if (Math.abs(chainLagMs) <= CLOCK_GOOD_MS) return ok('clock', behind);
  const isRefused = Math.abs(chainLagMs) > LIMITS.clockPastMs;
  if (!isRefused) return warn('clock', behind, mend);
  return fail('clock', `${behind}: peers refuse messages so far from their time`, mend);
}

function runtimeChecks({ runtimes }: Facts): Check[] {
  if (runtimes === undefined) return [];
  const isAny = runtimes.some((runtime) => runtime.available);
  return runtimes.map(({ kind, available, reason, details, gaps }) => {
    const name = `${kind} runtime`;
    if (!available) {
      const mend =
        kind === 'container'
          ? 'start Docker or Podman, name its socket with containerSocket, or leave container out of runtimes'
          : 'molt needs to start processes of Node and to write to its home';
      return isAny ? warn(name, `not offered: ${reason}`, mend) : fail(name, reason, mend);
    }
    const { engine, version } = details;
    const not = gaps.length === 0 ? '' : `; not enforced here: ${gaps.join('; ')}`;
    return ok(name, `${[engine, version].filter((part) => part !== undefined).join(' ')}${not}`);
  });
}

function gpuChecks({ gpus }: Facts): Check[] {
  if (gpus === undefined) return [];
  const { isOff, devices, problems, toolkit } = gpus;
  if (isOff) return [ok('GPUs', 'none is sold: the setting gpus says so')];
  if (devices.length === 0 && problems.length === 0) return [ok('GPUs', 'none on this machine')];
  const mend = 'mend that, or leave the card out with the setting gpus; in a checkout npm run gpu-check looks closer';
  const by = toolkit === undefined ? '' : `, NVIDIA Container Toolkit ${toolkit}`;
  return [
    ...problems.map((problem) => warn('GPUs', problem, mend)),
    ...devices.map(({ id, model, reason }) =>
      reason === undefined
        ? ok('GPU', `${model} (${id}): a container saw exactly this one${by}`)
        : warn('GPU', `${model} (${id}) is not sold: ${reason}`, mend),
    ),
  ];
}

function leftoverCheck({ leftovers, molt }: Facts): Check | undefined {
  if (leftovers === undefined) return undefined;
  const name = 'left of jobs';
  if (leftovers === 0) return ok(name, 'no container, volume or disk');
  const attempts = leftovers === 1 ? '1 job' : `${leftovers} jobs`;
  const found = `containers, volumes or disks of ${attempts} are there, and no node watches them`;
  return warn(name, found, `${molt} up takes up what still runs and removes the rest`);
}

function toolsCheck({ tools }: Facts): Check | undefined {
  if (tools === undefined) return undefined;
  const missing = tools.filter((tool) => tool.path === undefined);
  if (missing.length === 0) return ok('tools', tools.map((tool) => tool.name).join(', '));
  const found = missing.map(({ name, use }) => `${name} is missing: ${use}`).join('; ');
  return warn(
    'tools',
    found,
    `install ${missing.map((tool) => tool.name).join(', ')} with the system's package manager`,
  );
}

function portChecks({ ports = [] }: Facts): Check[] {
  return ports.map(({ what, state, reason }) => {
    if (state === 'free') return ok('port', `${what} is free`);
    if (state === 'ours') return ok('port', `${what} is held by this node`);
    const mend =
      state === 'taken'
        ? 'stop what uses it (ss -ltnp names it), or choose another port in the settings'
        : 'choose an address of this machine and a port that its user may open';
    return fail(
      'port',
      `${what} ${state === 'taken' ? 'is used by another program' : `cannot be used: ${reason}`}`,
      mend,
    );
  });
}

function reachCheck({ reach }: Facts): Check | undefined {
  if (reach === undefined) return undefined;
  const { addresses, announced, isRunning } = reach;
  const name = 'reachability';
  const isPublic = addresses.filter((one) => one.reach === 'public').map((one) => one.address);
  // A running node lists a public address that nobody announced only once a peer dialled back there.
  const confirmed = isRunning ? isPublic.filter((address) => !announced.includes(address)) : [];
  if (confirmed.length > 0) return ok(name, `${confirmed.join(', ')}: a peer dialled back and came through`);
  if (announced.some((address) => isPublic.includes(address))) {
    return ok(name, `announced as ${announced.join(', ')}; no peer was asked to confirm it`);
  }
  const relayed = addresses.filter((one) => one.reach === 'relayed').length;
  if (relayed > 1)
    return ok(name, `behind NAT; the world comes through ${relayed} relays, which is slower than directly`);
  if (relayed === 1) {
    return warn(
      name,
      'behind NAT, and only one relay holds a place for this node: when it goes, nobody gets in',
      'name more bootstrap peers that relay, or forward the port in the router and set announce',
    );
  }
  if (!isRunning && addresses.some((one) => one.reach === 'any' || one.reach === 'public')) {
    return ok(name, 'listens to the world; whether anybody gets through shows while the node runs');
  }
  const where = addresses.every((one) => one.reach === 'loopback') ? 'this machine' : 'the local network';
  return warn(
    name,
    `buyers on ${where} only: no public address ${isRunning ? 'was confirmed by a peer' : 'is listened on'}`,
    'turn on UPnP in the router, or forward the port and set announce to /ip4/PUBLIC-ADDRESS/tcp/PORT, or set bootstrap to peers that relay; fine for a local market',
  );
}

function peerChecks({ bootstrap }: Facts): Check[] {
  if (bootstrap === undefined) return [];
  const { peers, mdns } = bootstrap;
  if (peers.length === 0) {
    const name = 'bootstrap peers';
    if (mdns) return [ok(name, 'none; peers on the local network are found by mDNS')];
    return [
      warn(name, 'none, and mDNS is off: others must find this node', 'set bootstrap to an address molt up printed'),
    ];
  }
  const silent = peers.filter((peer) => peer.refused !== undefined);
  if (silent.length === 0)
    return [ok('bootstrap peers', peers.length === 1 ? 'it answers' : `all ${peers.length} answer`)];
  const found = silent.map(({ address, refused }) => `${address}: ${refused?.message ?? ''}`).join('; ');
  const mend = 'check the address and that the peer runs; take more than one';
  const some = `${peers.length - silent.length} of ${peers.length} answer; ${found}`;
  return [silent.length < peers.length ? warn('bootstrap peers', some, mend) : fail('bootstrap peers', found, mend)];
}

function providerChecks({ provider, molt }: Facts): Check[] {
  if (provider === undefined) return [];
  if ('code' in provider) {
    return [fail('provider account', provider.message, `${molt} init --role provider makes what is missing`)];
  }
  const { account, operator, nodeKey, stake, reserved, minStake, slashDue, jailedForMs } = provider;
  const checks: Check[] = [];
  if (operator === nodeKey) checks.push(ok('provider account', `${account}, operated by this node key`));
  else {
    const mend = `use the home that has that key, or run ${molt} init --role provider with the owner's wallet here`;
    checks.push(fail('provider account', `its operator is ${operator}, this home has ${nodeKey}`, mend));
  }
  const has = `${formatMolt(stake)}, ${formatMolt(reserved)} of it behind open leases`;
  const more = `${molt} stake ${account} AMOUNT, with the owner's wallet`;
  if (stake < minStake) checks.push(fail('stake', `${has}; this market asks for ${formatMolt(minStake)}`, more));
  else if (reserved >= stake) checks.push(warn('stake', `${has}: none is left for another lease`, more));
  else checks.push(ok('stake', has));
  if (slashDue > 0n || jailedForMs > 0) {
    const due = slashDue > 0n ? `${formatMolt(slashDue)} of slashed stake is still due` : '';
    const jailed = jailedForMs > 0 ? `jailed for ${formatDuration(jailedForMs)} more` : '';
    const mend = 'wait: no lease opens before; open ones go on. molt providers shows faults';
    checks.push(fail('standing', [jailed, due].filter((part) => part !== '').join('; '), mend));
  } else checks.push(ok('standing', 'not jailed, nothing due'));
  return checks;
}

function budgetChecks({ budget, molt }: Facts): Check[] {
  if (budget === undefined) return [];
  if ('code' in budget) return [fail('budget', budget.message, `${molt} init --role buyer makes what is missing`)];
  const { account, isDelegate, free, locked, expiresInMs, leftToday } = budget;
  const limits = `${molt} budget delegates --days 30 --budget ${account}`;
  if (!isDelegate)
    return [fail('budget', `${account} does not name this node key as delegate`, `${molt} init --role buyer`)];
  if (expiresInMs <= 0) return [fail('budget', `${account} expired`, limits)];
  const has = `${formatMolt(free)} free, ${formatMolt(locked)} locked`;
  if (free === 0n) return [fail('budget', has, `${molt} budget deposit AMOUNT`)];
  if (leftToday === 0n) {
    return [
      warn('budget', `${has}; nothing may be spent any more today`, `${molt} budget delegates --cap-per-day AMOUNT`),
    ];
  }
  if (expiresInMs < EXPIRES_SOON_MS)
    return [warn('budget', `${has}; expires in ${formatDuration(expiresInMs)}`, limits)];
  return [ok('budget', `${has}, ${formatMolt(leftToday)} left today`)];
}

function feesCheck({ fees }: Facts): Check | undefined {
  if (fees === undefined) return undefined;
  const found = `${Number(fees.lamports) / 1e9} SOL on the node key`;
  if (fees.lamports >= LAMPORTS_GOOD) return ok('network fees', found);
  const mend = `send some SOL to ${fees.nodeKey}; on a local chain molt init does`;
  return fees.lamports < LAMPORTS_LEAST ? fail('network fees', found, mend) : warn('network fees', found, mend);
}
