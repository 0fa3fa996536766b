/**
 * The buyer's own count of what it spends, where it trades on its own.
 *
 * A lease is counted with all that it locks before it is asked for, on disk, and with what was paid once that is known; so
 * jobs that run beside each other cannot overspend together, and a crash forgets nothing. What happened to a lease that was
 * open in a crash is not known here: it counts whole for a day. A count that cannot be read or written stops the buying.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { type Autonomy, type Commitment, DAY_MS, allowance, spendingRefusal } from '../market/index.ts';
import type { Env } from '../protocol/env.ts';
import { MoltError } from '../protocol/errors.ts';
import { replaceFile } from './journal.ts';

export interface Spending {
  readonly limits: Autonomy;
  /** The most that another lease may lock now. Throws `market/spending-limit`. */
  allowance(): bigint;
  /** Counts a lease that is about to be opened. Throws `market/spending-limit`, `node/journal-corrupt`. */
  commit(amount: bigint): Promise<Committed>;
}

export interface Committed {
  /** The lease is over, or never was: so much was paid of it. Undefined: nobody knows, so it counts whole. */
  end(paid: bigint | undefined): Promise<void>;
}

const SPENDING_FILE = 'spending.json';
const COMMITMENTS_MAX = 10_000;

/** Throws `node/journal-corrupt` when the count of an earlier run cannot be read. */
export async function openSpending(env: Env, directory: string, limits: Autonomy): Promise<Spending> {
  const path = join(directory, SPENDING_FILE);
  // Nothing of an earlier process is open in this one; what it had locked counts on.
  const commitments = new Map<number, Commitment>(
    (await readCommitments(path)).map((commitment, index) => [index, { ...commitment, open: false }]),
  );
  let next = commitments.size;
  let writing: Promise<void> = Promise.resolve();
  const write = (): Promise<void> => {
    const text = JSON.stringify({ version: 1, commitments: [...commitments.values()] });
    writing = writing.catch(() => undefined).then(() => replaceFile(path, text));
    return writing;
  };
  const prune = (nowMs: number): void => {
    for (const [id, { atMs, open }] of commitments) if (!open && atMs <= nowMs - DAY_MS) commitments.delete(id);
  };
  return {
    limits,
    allowance: () => allowance(limits, [...commitments.values()], env.clock.now()),
    commit: async (amount) => {
      const nowMs = env.clock.now();
      prune(nowMs);
      const refused = spendingRefusal(limits, [...commitments.values()], { amount, nowMs });
      if (refused !== undefined) throw refused;
      if (commitments.size >= COMMITMENTS_MAX) {
        throw new MoltError(
          'market/spending-limit',
          `${COMMITMENTS_MAX} leases were opened in a day, more than are counted`,
        );
      }
      const id = next++;
      // Counted before anything is awaited, so that no other job comes between.
      commitments.set(id, { atMs: nowMs, amount: amount.toString(), open: true });
      try {
        await write();
      } catch (cause) {
        commitments.delete(id);
        const message = `${path} counts what is spent and cannot be written, so nothing is: ${(cause as Error).message}`;
        throw new MoltError('node/journal-corrupt', message, { path }, { cause });
      }
      return {
        end: async (paid) => {
          const spent = paid ?? amount;
          commitments.set(id, { atMs: nowMs, amount: spent.toString(), open: false });
          await write();
        },
      };
    },
  };
}

async function readCommitments(path: string): Promise<readonly Commitment[]> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw corrupt(path, cause);
  }
  try {
    const kept = JSON.parse(text) as { version?: unknown; commitments?: unknown };
    if (kept.version === 1 && Array.isArray(kept.commitments) && kept.commitments.every(isCommitment)) {
      return kept.commitments;
    }
  } catch (cause) {
    throw corrupt(path, cause);
  }
  throw corrupt(path);
}

function isCommitment(value: unknown): value is Commitment {
  const { atMs, amount } = (value ?? {}) as { atMs?: unknown; amount?: unknown };
  return Number.isSafeInteger(atMs) && typeof amount === 'string' && /^\d{1,20}$/.test(amount);
}

function corrupt(path: string, cause?: unknown): MoltError {
  const message = `${path} counts what was spent and cannot be read, so nothing more is; look at it, and move it away to count from nothing`;
  return new MoltError('node/journal-corrupt', message, { path }, { cause });
}
