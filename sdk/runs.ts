/**
 * Runs on several providers at once, gangs and replicas, as the buyer's folder remembers them: which leases belong together
 * and what became of each. Written before a lease may exist, so that the client after a crash finds what was opened.
 *
 * One JSON file, replaced in one step and readable by its owner alone; without a folder the same for as long as the client
 * lives. A file that cannot be read is begun anew: its leases are then claimed or expire as those of any buyer that is gone.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { z } from 'zod';

import type { Env } from '../protocol/env.ts';
import { MoltError } from '../protocol/errors.ts';
import { replaceFile } from './journal.ts';

const RUNS_FILE = 'runs.json';
const RUNS_MAX = 32;
const SEATS_MAX = 256;

const amount = z.string().regex(/^\d{1,20}$/);
const seatSchema = z.object({
  rank: z.int().min(0),
  lease: z.string(),
  provider: z.string(),
  node: z.string(),
  /** The provider's signed quote, base64. */
  quote: z.string(),
  /** What the lease locks, base units. */
  amount,
  /** Unix ms, about when the lease was opened. */
  openedAtMs: z.number(),
  /** The provider is known to have the job. */
  hasJob: z.boolean(),
  /** Absent: open, as far as is known. `left`: given up before anything ran. */
  outcome: z.enum(['delivered', 'lost', 'left']).optional(),
  /** Base units; absent while nobody knows. */
  paid: amount.optional(),
  /** What a replica came to: its result, and its proof as base64. */
  found: z.object({ resultDigest: z.string(), proofDigest: z.string(), proof: z.string() }).optional(),
});

const runSchema = z.object({
  id: z.string(),
  kind: z.enum(['gang', 'replicas']),
  budget: z.string(),
  /** Of the specification that all have, or that of the first, 64 hex digits. */
  specDigest: z.string(),
  size: z.int().min(1),
  startedAtMs: z.number(),
  /** Unix ms by which the job must be proven; 0: whenever. */
  finishByMs: z.number(),
  /** How often slots were filled. */
  fillings: z.int().min(0),
  /** In the order in which they were opened. */
  seats: z.array(seatSchema).max(SEATS_MAX),
  endedAtMs: z.number().optional(),
});

/** The lease of one slot, or what was to be one. */
export type RunSeat = z.output<typeof seatSchema>;
/** A gang, or replicas. */
export type RunRecord = z.output<typeof runSchema>;
/** What tells it from others, and by when it must be proven. */
export type NewRun = Pick<RunRecord, 'kind' | 'budget' | 'specDigest' | 'size' | 'finishByMs'>;

/** A run of this client. */
export interface OpenRun {
  readonly record: RunRecord;
  /** Keeps seats whose leases are about to be opened. Throws `node/journal-corrupt` when they cannot be kept. */
  seat(seats: readonly RunSeat[], filling: number): Promise<void>;
  /** What became of one; written in the background. */
  note(lease: string, change: Partial<RunSeat>): void;
  /** Nothing of it goes on. */
  end(): void;
}

export interface RunJournal extends AsyncDisposable {
  begin(run: NewRun): OpenRun;
  /** The last run of the same that an earlier client did not end; it is this client's from now on. */
  takeUp(wanted: NewRun): OpenRun | undefined;
}

export async function openRunJournal(env: Env, directory: string | undefined): Promise<RunJournal> {
  const path = directory === undefined ? undefined : join(directory, RUNS_FILE);
  let runs = directory === undefined ? [] : await readRuns(directory);
  const random = env.random.split('runs');
  /** Of this client: they are under way. */
  const mine = new Set<string>();
  let writing: Promise<void> = Promise.resolve();
  const write = (): Promise<void> => {
    if (path === undefined) return Promise.resolve();
    const text = JSON.stringify({ version: 1, runs });
    writing = writing.catch(() => undefined).then(() => replaceFile(path, text));
    return writing;
  };
  const background = (): void =>
    void write().catch((error: unknown) => env.logger.log('warn', 'a run could not be kept', { error }));
  const open = (id: string): OpenRun => {
    mine.add(id);
    const find = (): RunRecord => runs.find((run) => run.id === id) as RunRecord;
    let last = find();
    const change = (how: (record: RunRecord) => RunRecord): void => {
      last = how(last);
      runs = runs.map((run) => (run.id === id ? last : run));
    };
    return {
      get record() {
        return last;
      },
      seat: async (seats, fillings) => {
        change((record) => ({ ...record, fillings, seats: [...record.seats, ...seats].slice(-SEATS_MAX) }));
        await write().catch((cause: unknown) => {
          const message = `what is opened must be found again after a crash, and cannot be kept: ${(cause as Error).message}`;
          throw new MoltError('node/journal-corrupt', message, {}, { cause });
        });
      },
      note: (lease, news) => {
        const noted = (seat: RunSeat): RunSeat => (seat.lease === lease ? { ...seat, ...news } : seat);
        change((record) => ({ ...record, seats: record.seats.map(noted) }));
        background();
      },
      end: () => {
        mine.delete(id);
        change((record) => ({ ...record, endedAtMs: env.clock.now() }));
        background();
      },
    };
  };
  return {
    begin: (run) => {
      const id = Buffer.from(random.bytes(8)).toString('hex');
      runs = [...runs, { ...run, id, startedAtMs: env.clock.now(), fillings: 0, seats: [] }].slice(-RUNS_MAX);
      return open(id);
    },
    takeUp: ({ kind, budget, specDigest, size }) => {
      const found = runs.findLast(
        (run) =>
          run.endedAtMs === undefined &&
          !mine.has(run.id) &&
          run.seats.length > 0 &&
          [run.kind, run.budget, run.specDigest, run.size].join() === [kind, budget, specDigest, size].join(),
      );
      return found && open(found.id);
    },
    [Symbol.asyncDispose]: () => writing.catch(() => undefined),
  };
}

/** The runs that a client with this folder has kept, oldest first; none where there are none. */
export async function readRuns(directory: string): Promise<readonly RunRecord[]> {
  try {
    const kept = JSON.parse(await readFile(join(directory, RUNS_FILE), 'utf8')) as {
      version?: unknown;
      runs?: unknown;
    };
    return kept.version === 1 ? z.array(runSchema).max(RUNS_MAX).parse(kept.runs) : [];
  } catch {
    return [];
  }
}
