/**
 * What a buyer remembers across restarts: its last bids, each with every offer heard and why it was used or not.
 *
 * One JSON file in a folder that one client uses at a time, replaced in one step and readable by its owner alone. Without
 * a folder the same is remembered for as long as the client lives. A record that is lost costs an explanation and nothing
 * else, so a file that cannot be read is begun anew.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import type { BidRecord } from '../market/index.ts';

export interface BuyerJournal extends AsyncDisposable {
  /** Oldest first. */
  readonly bids: readonly BidRecord[];
  /** Adds a record, and drops the oldest of more than a few dozen. Written in the background; disposal waits for it. */
  keepBid(record: BidRecord): void;
}

const BIDS_MAX = 32;
const BIDS_FILE = 'bids.json';

export async function openBuyerJournal(
  directory: string | undefined,
  onTrouble: (error: unknown) => void,
): Promise<BuyerJournal> {
  if (directory !== undefined) await mkdir(directory, { recursive: true, mode: 0o700 });
  let bids = directory === undefined ? [] : await readBids(directory);
  let writing: Promise<void> = Promise.resolve();
  return {
    get bids() {
      return bids;
    },
    keepBid: (record) => {
      bids = [...bids, record].slice(-BIDS_MAX);
      if (directory === undefined) return;
      const text = JSON.stringify({ version: 1, bids });
      writing = writing.then(() => replaceFile(join(directory, BIDS_FILE), text)).catch(onTrouble);
    },
    [Symbol.asyncDispose]: () => writing,
  };
}

/** The bids that a client with this folder has kept, oldest first; none where there are none. */
export async function readBids(directory: string): Promise<readonly BidRecord[]> {
  try {
    const kept = JSON.parse(await readFile(join(directory, BIDS_FILE), 'utf8')) as {
      version?: unknown;
      bids?: unknown;
    };
    return kept.version === 1 && Array.isArray(kept.bids) ? (kept.bids as BidRecord[]) : [];
  } catch {
    return [];
  }
}

/** In one step, mode 0600: a crash leaves the old or the new content. */
export async function replaceFile(path: string, text: string): Promise<void> {
  const temporary = `${path}.${randomUUID()}`;
  await writeFile(temporary, text, { mode: 0o600, flush: true });
  await rename(temporary, path);
}
