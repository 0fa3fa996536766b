/**
 * What the operator of a node may ask of it, whether it runs or not.
 *
 * A running node answers at its control door; of one that is stopped the journal is read, and written for the next start.
 * There is no third state: the journal's own lock decides, and who holds it without a door says so in the error.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';

import type { SalesExplanation } from '../../market/index.ts';
import type { Address } from '../../protocol/address.ts';
import type { Env } from '../../protocol/env.ts';
import { MoltError } from '../../protocol/errors.ts';
import { type LogRecord, logOf } from '../../protocol/job-log.ts';
import type { Resources } from '../../protocol/messages.ts';
import { JobEvent } from '../../protocol/molt.js';
import type { Home } from '../home.ts';
import { openJournal } from '../journal.ts';
import type { Reachability } from '../mesh/index.ts';
import { Cases, type DisputeSummary, summariseCases } from '../verifier/index.ts';
import { connectDoor } from './door-client.ts';
import { type JobSummary, summarise } from './job-summary.ts';

/** Name of the journal's counter that is 1 while the node drains. */
export const DRAINING = 'draining';

/** A node that runs. */
export interface NodeStatus {
  readonly version: string;
  readonly pid: number;
  /** Node key and provider account. */
  readonly node: Address;
  readonly provider: Address;
  readonly network: Address;
  readonly startedMs: number;
  /** Takes nothing new. */
  readonly draining: boolean;
  /** Jobs that are not closed. */
  readonly unfinished: number;
  readonly reachability: Reachability;
  readonly peers: number;
  readonly total: Resources;
  readonly free: Resources;
  readonly runtimes: readonly { readonly kind: string; readonly available: boolean; readonly reason: string }[];
}

export interface LogQuery {
  /** First sequence wanted. */
  readonly from: number;
  /** Wait for what comes, until the program has ended. A stopped node has nothing to wait for. */
  readonly follow: boolean;
}

export interface Operator extends AsyncDisposable {
  /** Undefined when the node does not run. */
  status(): Promise<NodeStatus | undefined>;
  /** Unfinished jobs, and closed ones for as long as they are kept. Newest first. */
  jobs(): Promise<readonly JobSummary[]>;
  /** Throws `job/unknown`. */
  logs(lease: Address, query: LogQuery, signal: AbortSignal): AsyncIterable<LogRecord>;
  /** Disputes that this node judges or judged as a drawn verifier. */
  disputes(): Promise<readonly DisputeSummary[]>;
  /** Why bids were won or not, in earlier starts too; undefined when the node does not run, for then it hears none. */
  market(): Promise<SalesExplanation | undefined>;
  /** Finish what runs and take nothing new, or take work again. Kept across restarts. */
  setDraining(on: boolean): Promise<{ readonly draining: boolean; readonly unfinished: number }>;
}

/** Throws `node/already-running` when a process holds the journal and answers at no door, `node/journal-corrupt`. */
export async function openOperator(env: Env, home: Home): Promise<Operator> {
  const door = await connectDoor(home.door);
  if (door !== undefined) return door;
  const directory = join(home.directory, 'journal');
  if ((await stat(directory).catch(() => undefined)) === undefined) return NEVER_RAN;
  const journal = await openJournal(directory);
  const jobs = async (): Promise<readonly JobSummary[]> => {
    const nowMs = env.clock.now();
    return newestFirst((await journal.jobs()).map((job) => summarise(job, nowMs)));
  };
  return {
    status: () => Promise.resolve(undefined),
    jobs,
    disputes: async () => summariseCases(await Cases.open(journal)),
    logs: async function* (lease, { from }) {
      if (!(await jobs()).some((job) => job.lease === lease)) throw unknownJob(lease);
      for await (const event of journal.events(lease, from)) {
        const { record } = logOf(JobEvent.decode(event.bytes));
        if (record !== undefined) yield record;
      }
    },
    market: () => Promise.resolve(undefined),
    setDraining: async (on) => {
      await journal.setCounter(DRAINING, on ? 1 : 0);
      return { draining: on, unfinished: (await jobs()).filter((job) => job.phase !== 'closed').length };
    },
    [Symbol.asyncDispose]: () => journal[Symbol.asyncDispose](),
  };
}

export function newestFirst(jobs: readonly JobSummary[]): readonly JobSummary[] {
  const open = (job: JobSummary): number => (job.phase === 'closed' ? 0 : 1);
  return [...jobs].sort((a, b) => open(b) - open(a) || b.sinceMs - a.sinceMs);
}

export function unknownJob(lease: string): MoltError {
  return new MoltError('job/unknown', `this node keeps no job ${lease}; molt jobs --all lists those it keeps`, {
    lease,
  });
}

const NEVER_RAN: Operator = {
  status: () => Promise.resolve(undefined),
  jobs: () => Promise.resolve([]),
  // oxlint-disable-next-line require-yield -- there is none
  logs: async function* (lease) {
    await Promise.reject(unknownJob(lease));
  },
  disputes: () => Promise.resolve([]),
  market: () => Promise.resolve(undefined),
  setDraining: () =>
    Promise.reject(new MoltError('config/usage', 'this node never ran: there is nothing to drain; molt up starts it')),
  [Symbol.asyncDispose]: () => Promise.resolve(),
};
