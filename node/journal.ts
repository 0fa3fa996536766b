/**
 * The node's memory across crashes: jobs and their events in one `level` database, written ahead of every effect.
 *
 * Contract: what `commit` resolved for survives SIGKILL. One batch holds a job's new state together with the events that
 * the change told, so a follower that resumes "from n" never sees an event that the state does not know of.
 */
import { Level } from 'level';

import type { Address } from '../protocol/address.ts';
import { MoltError } from '../protocol/errors.ts';
import type { Job } from './provider/job.ts';

export interface JournaledEvent {
  readonly sequence: number;
  /** protobuf JobEvent. */
  readonly bytes: Uint8Array;
}

export interface Journal extends AsyncDisposable {
  /** All jobs that are not closed, plus closed ones that are still kept. */
  jobs(): Promise<Job[]>;
  /** Writes state and events in one synced batch. */
  commit(job: Job, events: readonly JournaledEvent[]): Promise<void>;
  /** Appends events of a running job without a sync: a lost log line is not lost money. */
  append(lease: Address, events: readonly JournaledEvent[]): Promise<void>;
  /** Events with sequence ≥ `from`, in order. */
  events(lease: Address, from: number): AsyncIterable<JournaledEvent>;
  /** Sequence of the next event: 0 for an unknown lease. */
  nextSequence(lease: Address): Promise<number>;
  /** The last value kept under `name`, e.g. the newest sequence number signed. */
  counter(name: string): Promise<number>;
  setCounter(name: string, value: number): Promise<void>;
  /** Small bounded content kept under `name`, such as who paid before; undefined when there is none. */
  record(name: string): Promise<Uint8Array | undefined>;
  /** Without a sync: the last seconds of it may be lost with the machine. */
  setRecord(name: string, value: Uint8Array): Promise<void>;
  /** The same with a sync, for what must not be lost between two steps; undefined removes it. */
  keepRecord(name: string, value: Uint8Array | undefined): Promise<void>;
  /** Names of all records that begin so. */
  recordNames(beginning: string): Promise<string[]>;
  /** Removes a closed job and its events. */
  forget(lease: Address): Promise<void>;
}

const SEQUENCE_DIGITS = 12;

const eventKey = (lease: Address, sequence: number): string =>
  `event/${lease}/${String(sequence).padStart(SEQUENCE_DIGITS, '0')}`;

/** Opens or creates the journal. Throws `node/already-running` when another process holds it, `node/journal-corrupt`. */
export async function openJournal(directory: string): Promise<Journal> {
  const db = new Level<string, Uint8Array>(directory, { keyEncoding: 'utf8', valueEncoding: 'view' });
  try {
    await db.open();
  } catch (cause) {
    const code = (cause as { cause?: { code?: string } }).cause?.code;
    if (code === 'LEVEL_LOCKED') {
      throw new MoltError(
        'node/already-running',
        `another molt process uses ${directory}; stop it, or give this one another --home`,
        {},
        { cause },
      );
    }
    throw new MoltError(
      'node/journal-corrupt',
      `the journal in ${directory} cannot be opened; move it away to start without it`,
      {},
      { cause },
    );
  }
  const inOrder = createQueue();
  return {
    jobs: async () => {
      const jobs: Job[] = [];
      for await (const value of db.values({ gte: 'job/', lt: 'job0' })) jobs.push(parseJob(value, directory));
      return jobs;
    },
    commit: (job, events) =>
      db.batch(
        [
          { type: 'put', key: `job/${job.agreement.lease}`, value: Buffer.from(JSON.stringify(job)) },
          ...events.map((event) => ({
            type: 'put' as const,
            key: eventKey(job.agreement.lease, event.sequence),
            value: event.bytes,
          })),
        ],
        { sync: true } as object,
      ),
    append: (lease, events) =>
      db.batch(
        events.map((event) => ({ type: 'put' as const, key: eventKey(lease, event.sequence), value: event.bytes })),
      ),
    events: async function* (lease, from) {
      for await (const [key, bytes] of db.iterator({ gte: eventKey(lease, from), lt: `event/${lease}0` })) {
        yield { sequence: Number(key.slice(-SEQUENCE_DIGITS)), bytes };
      }
    },
    nextSequence: async (lease) => {
      for await (const key of db.keys({ gte: `event/${lease}/`, lt: `event/${lease}0`, reverse: true, limit: 1 })) {
        return Number(key.slice(-SEQUENCE_DIGITS)) + 1;
      }
      return 0;
    },
    counter: async (name) => Number(Buffer.from((await db.get(`counter/${name}`)) ?? Buffer.from('0')).toString()),
    setCounter: (name, value) =>
      inOrder(() => db.put(`counter/${name}`, Buffer.from(String(value)), { sync: true } as object)),
    ...recordsOf(db, inOrder),
    forget: async (lease) => {
      await db.clear({ gte: `event/${lease}/`, lt: `event/${lease}0` });
      await db.del(`job/${lease}`);
    },
    [Symbol.asyncDispose]: () => inOrder(() => db.close()),
  };
}

type InOrder = (write: () => Promise<void>) => Promise<void>;

/**
 * Of two writes that are under way at once either may be the last. What is written over must not come back: an old sequence
 * number would be signed twice after a crash, an old record would have lost a vote.
 */
function createQueue(): InOrder {
  let last: Promise<void> = Promise.resolve();
  return (write) => {
    const mine = last.then(write);
    last = mine.catch(() => undefined);
    return mine;
  };
}

function recordsOf(
  db: Level<string, Uint8Array>,
  inOrder: InOrder,
): Pick<Journal, 'record' | 'setRecord' | 'keepRecord' | 'recordNames'> {
  return {
    record: (name) => db.get(`record/${name}`),
    setRecord: (name, value) => inOrder(() => db.put(`record/${name}`, value)),
    keepRecord: (name, value) => {
      const key = `record/${name}`;
      const sync = { sync: true } as object;
      return inOrder(() => (value === undefined ? db.del(key, sync) : db.put(key, value, sync)));
    },
    recordNames: async (beginning) => {
      const names: string[] = [];
      // No name holds a character beyond ASCII.
      for await (const key of db.keys({ gte: `record/${beginning}`, lt: `record/${beginning}\u{ff}` }))
        names.push(key.slice('record/'.length));
      return names;
    },
  };
}

function parseJob(value: Uint8Array, directory: string): Job {
  try {
    return JSON.parse(Buffer.from(value).toString()) as Job;
  } catch (cause) {
    throw new MoltError(
      'node/journal-corrupt',
      `a job in ${directory} cannot be read; move the journal away to start without it`,
      {},
      { cause },
    );
  }
}
