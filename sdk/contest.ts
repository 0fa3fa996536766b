/**
 * Leases whose provider broke its word, and that this buyer therefore does not settle: the money comes back when they
 * expire, with a part of the reserve. A provider that claims it on chain all the same is disputed inside the challenge
 * window.
 *
 * What is contested is kept in the buyer's folder, where it has one, before anything else is done, so that the next client
 * goes on with what this one began. Without a folder it is contested for as long as the client lives.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import type { Chain } from '../chain/index.ts';
import { type Address, parseAddress } from '../protocol/address.ts';
import { Deadline } from '../protocol/deadline.ts';
import type { KeyPair } from '../protocol/ed25519.ts';
import type { Env } from '../protocol/env.ts';
import { MoltError } from '../protocol/errors.ts';
import { replaceFile } from './journal.ts';
import type { JobEvent } from './progress.ts';

export interface Contests extends AsyncDisposable {
  /** Contests a claim of this lease from now on; `tell` hears of the dispute. */
  add(lease: Address, tell: (event: JobEvent) => void): Promise<void>;
  /** Resolves when every contested lease is disputed or closed, or after `ms`: a provider claims some seconds after its proof. */
  quiet(ms: number): Promise<void>;
}

const CONTESTS_FILE = 'contests.json';
const CONTESTS_MAX = 1_000;
const TRY_AGAIN_MS = 3_000;

/** Takes up what an earlier client with this folder contested. A file that cannot be read is begun anew. */
export async function openContests(
  env: Env,
  on: { readonly chain: Chain; readonly key: KeyPair; readonly directory: string | undefined },
): Promise<Contests> {
  const { chain, key, directory } = on;
  const closing = new AbortController();
  const watched = new Map<Address, Promise<void>>();
  let writing: Promise<void> = Promise.resolve();
  const write = (): Promise<void> => {
    if (directory === undefined) return Promise.resolve();
    const text = JSON.stringify({ version: 1, leases: [...watched.keys()] });
    writing = writing.catch(() => undefined).then(() => replaceFile(join(directory, CONTESTS_FILE), text));
    return writing;
  };
  const watch = async (lease: Address, tell: (event: JobEvent) => void): Promise<void> => {
    while (!closing.signal.aborted) {
      try {
        if (await contest(chain, key, lease, { tell, signal: closing.signal })) break;
      } catch (error) {
        env.logger.log('warn', 'a lease could not be contested, and is tried again', { lease, error });
      }
      await env.clock.sleep(TRY_AGAIN_MS, closing.signal).catch(() => undefined);
    }
    if (closing.signal.aborted) return;
    watched.delete(lease);
    await write().catch(() => undefined);
  };
  const start = (lease: Address, tell: (event: JobEvent) => void): void => {
    if (!watched.has(lease)) watched.set(lease, watch(lease, tell));
  };
  if (directory !== undefined)
    for (const lease of await readContests(join(directory, CONTESTS_FILE))) start(lease, () => undefined);
  return {
    add: async (lease, tell) => {
      start(lease, tell);
      await write().catch((error: unknown) =>
        env.logger.log('warn', 'a contested lease could not be kept', { lease, error }),
      );
    },
    quiet: async (ms) => {
      using waiting = new Deadline(env.clock, ms, closing.signal);
      const timeUp = Promise.withResolvers<void>();
      waiting.signal.addEventListener('abort', () => timeUp.resolve(), { once: true });
      await Promise.race([Promise.all(watched.values()), timeUp.promise]);
    },
    [Symbol.asyncDispose]: async () => {
      closing.abort(new MoltError('node/stopped', 'the client was closed'));
      await Promise.all(watched.values());
      await writing.catch(() => undefined);
    },
  };
}

/** True when nothing is left to do: the lease is disputed, closed, or its window is over. */
async function contest(
  chain: Chain,
  key: KeyPair,
  address: Address,
  { tell, signal }: { readonly tell: (event: JobEvent) => void; readonly signal: AbortSignal },
): Promise<boolean> {
  for await (const lease of chain.watchLease(address, signal)) {
    if (lease === undefined || lease.state === 'disputed') return true;
    if (lease.proof === undefined) continue;
    if ((await chain.chainTimeMs()) > lease.proof.provenAtMs + lease.windowMs) return true;
    const { signature } = await chain.openDispute(key, lease);
    tell({ type: 'lease-disputed', lease: address, transaction: signature, claimed: lease.proof.claimed });
    return true;
  }
  return false;
}

async function readContests(path: string): Promise<readonly Address[]> {
  try {
    const kept = JSON.parse(await readFile(path, 'utf8')) as { version?: unknown; leases?: unknown };
    if (kept.version !== 1 || !Array.isArray(kept.leases)) return [];
    return kept.leases.slice(-CONTESTS_MAX).map((lease) => parseAddress(String(lease)));
  } catch {
    return [];
  }
}
