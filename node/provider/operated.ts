/** What the operator of this node may ask of it and tell it: the node's side of the control door. */
import type { ProviderAccount } from '../../chain/index.ts';
import { type OfferFeed, explainSales } from '../../market/index.ts';
import type { Address } from '../../protocol/address.ts';
import type { Env } from '../../protocol/env.ts';
import { MoltError } from '../../protocol/errors.ts';
import { type LogRecord, logOf } from '../../protocol/job-log.ts';
import { JobEvent } from '../../protocol/molt.js';
import type { NodeConfig } from '../node-config.ts';
import type { Tell } from '../events.ts';
import { type Home, homeAt } from '../home.ts';
import type { Journal } from '../journal.ts';
import type { Artifacts, Mesh } from '../mesh/index.ts';
import type { Metrics } from '../metrics.ts';
import {
  DRAINING,
  type LogQuery,
  type NodeStatus,
  type Operated,
  newestFirst,
  openDoor,
  openMetricsPort,
  summarise,
} from '../operator/index.ts';
import type { Verifier } from '../verifier/index.ts';
import { MOLT_VERSION } from '../version.ts';
import type { Jobs } from './jobs.ts';
import type { Trade } from './trade.ts';

export interface OperatedParts {
  readonly config: NodeConfig;
  readonly networkId: Address;
  readonly journal: Journal;
  readonly mesh: Mesh;
  readonly artifacts: Artifacts;
  readonly clock: { now(): number };
  readonly account: { now(): ProviderAccount };
  readonly probed: NodeStatus['runtimes'];
  readonly jobs: Jobs;
  readonly trade: Trade;
  readonly verifier: Verifier | undefined;
  readonly metrics: Metrics;
  readonly feed: OfferFeed;
  readonly tell: Tell;
}

/** Whether the operator wants nothing new to be taken: kept from before the start. */
export async function wasDraining(journal: Journal): Promise<boolean> {
  return (await journal.counter(DRAINING)) === 1;
}

/** Opens control door and metrics port until `opened` is disposed. A door that cannot be is told and does not stop sales. */
export async function openOperations(env: Env, parts: OperatedParts, opened: AsyncDisposableStack): Promise<void> {
  const { config, metrics, tell, trade } = parts;
  metrics.measure({
    jobs: () => parts.jobs.list(),
    account: () => parts.account.now(),
    total: () => trade.total,
    free: () => trade.free(),
    utilisation: () => trade.utilisation(),
    peers: () => parts.mesh.peers().length,
    offers: () => parts.feed.book.size,
    artifactBytes: () => parts.artifacts.usedBytes,
    draining: () => trade.draining,
    chainLagMs: () => env.clock.now() - parts.clock.now(),
  });
  const operated = operate(env, parts, env.clock.now());
  const home: Home = homeAt(config.home);
  try {
    opened.use(await openDoor(home.door, operated));
  } catch (error) {
    if (!(error instanceof MoltError)) throw error;
    tell({ type: 'trouble', what: 'control door', code: error.code, reason: error.message });
  }
  if (config.metricsPort !== undefined) opened.use(await openMetricsPort(config.metricsPort, operated));
  if (trade.draining) tell({ type: 'draining', draining: true, unfinished: unfinished(parts.jobs) });
}

function operate(env: Env, parts: OperatedParts, startedMs: number): Operated {
  const { config, jobs, journal, mesh, metrics, tell, trade } = parts;
  return {
    status: () => ({
      version: MOLT_VERSION,
      pid: process.pid,
      node: mesh.self,
      provider: config.provider,
      network: parts.networkId,
      startedMs,
      draining: trade.draining,
      unfinished: unfinished(jobs),
      reachability: mesh.reachability,
      peers: mesh.peers().length,
      total: trade.total,
      free: trade.free(),
      runtimes: parts.probed,
    }),
    jobs: () => newestFirst(jobs.list().map((job) => summarise(job, env.clock.now()))),
    disputes: () => parts.verifier?.list() ?? [],
    logs: (lease, query, signal) => readLogs(parts, { lease, query, signal }),
    setDraining: async (on) => {
      // First what survives a crash, then what it says.
      await journal.setCounter(DRAINING, on ? 1 : 0);
      const changed = trade.draining !== on;
      await trade.setDraining(on);
      if (changed) tell({ type: 'draining', draining: on, unfinished: unfinished(jobs) });
    },
    market: () =>
      explainSales(trade.sales, {
        self: mesh.self,
        draining: trade.draining,
        peers: mesh.peers().length,
        offers: parts.feed.book.list(),
        nowMs: env.clock.now(),
      }),
    metrics: () => metrics.text(),
  };
}

function unfinished(jobs: Jobs): number {
  return jobs.list().filter((job) => job.phase !== 'closed').length;
}

async function* readLogs(
  { jobs, journal }: OperatedParts,
  { lease, query, signal }: { readonly lease: Address; readonly query: LogQuery; readonly signal: AbortSignal },
): AsyncGenerator<LogRecord> {
  const { from, follow } = query;
  for await (const event of follow ? jobs.follow(lease, from, signal) : journal.events(lease, from)) {
    const { record, isLast } = logOf(JobEvent.decode(event.bytes));
    if (record !== undefined) yield record;
    // Nothing of the program comes after its proof, though the lease is still to be settled.
    if (isLast) return;
  }
}
