/** Following one account: its value now and after every change. */
import { PublicKey, type Connection } from '@solana/web3.js';

import type { Address } from '../protocol/address.ts';
import type { Env } from '../protocol/env.ts';
import { hasCode } from '../protocol/errors.ts';

/** How often the account is read in case its notifications do not come. */
const POLL_MS = 2_000;

export interface Watch<T> {
  readonly address: Address;
  readonly signal: AbortSignal;
  /** Reads the account; undefined where there is none. */
  readonly read: () => Promise<T | undefined>;
}

/**
 * Yields the account now and whenever it differs from what was yielded last, until the signal aborts. A notification
 * only says when to look: a lost one delays by one poll and never misleads, and so does an endpoint that is away.
 * Changes faster than the consumer are merged into the latest.
 */
export async function* watchAccount<T>(
  env: Env,
  connection: Connection,
  watch: Watch<T>,
): AsyncIterable<T | undefined> {
  const { address, signal, read } = watch;
  let wake: () => void = () => undefined;
  let changed = false;
  const subscription = connection.onAccountChange(new PublicKey(address), () => {
    changed = true;
    wake();
  });
  try {
    let last: string | undefined;
    while (!signal.aborted) {
      changed = false;
      const seen = await readIfReachable(read);
      if (seen !== 'unreachable') {
        const text = fingerprint(seen.value);
        if (text !== last) {
          last = text;
          yield seen.value;
        }
      }
      const timer = new AbortController();
      const notified = new Promise<void>((resolve) => {
        wake = resolve;
      });
      if (changed || signal.aborted) continue;
      const slept = env.clock.sleep(POLL_MS, AbortSignal.any([timer.signal, signal])).catch(() => undefined);
      await Promise.race([notified, slept]);
      timer.abort();
    }
  } finally {
    await connection.removeAccountChangeListener(subscription).catch(() => undefined);
  }
}

async function readIfReachable<T>(
  read: () => Promise<T | undefined>,
): Promise<{ readonly value: T | undefined } | 'unreachable'> {
  try {
    return { value: await read() };
  } catch (error) {
    if (hasCode(error, 'chain/unreachable')) return 'unreachable';
    throw error;
  }
}

/** Equal for equal accounts: bigints and bytes as text. */
function fingerprint(value: unknown): string {
  const text = (_: string, item: unknown): unknown => {
    if (typeof item === 'bigint') return item.toString();
    return item instanceof Uint8Array ? Buffer.from(item).toString('base64') : item;
  };
  return JSON.stringify(value, text) ?? 'none';
}
