/**
 * Websocket subscriptions of one client: account, program, signature, logs and slot. Notifications follow the write to
 * disk, in the order of the transactions.
 */
import { z } from 'zod';

import { parseAddress, type Address } from '../../protocol/address.ts';
import type { Env } from '../../protocol/env.ts';
import type { TransactionRecord } from './ledger.ts';
import { SLOT_MS } from './ledger.ts';
import {
  INVALID_PARAMS,
  RpcError,
  SOLANA_VERSION,
  encodeAccount,
  matches,
  type AccountFilter,
  type MethodContext,
} from './methods.ts';

const SUBSCRIPTIONS_MAX = 1_000;

/** Sees one transaction; sends what it wants to tell. Gives true when it is done for good. */
type Watcher = (record: TransactionRecord, changed: readonly Address[]) => boolean;

interface Subscription {
  readonly kind: string;
  readonly watcher?: Watcher;
  readonly stop?: () => void;
}

const key = z.string().transform((text) => parseAddress(text));
const encoding = z.enum(['base58', 'base64', 'jsonParsed']).default('base64');
const accountOptions = z.looseObject({ encoding }).default({ encoding: 'base64' });
const programOptions = z
  .looseObject({
    encoding,
    filters: z
      .array(z.custom<AccountFilter>((value) => typeof value === 'object' && value !== null))
      .max(4)
      .default([]),
  })
  .default({ encoding: 'base64', filters: [] });
const logsFilter = z.union([z.enum(['all', 'allWithVotes']), z.object({ mentions: z.array(key).length(1) })]);

export class Subscriptions implements Disposable {
  readonly #env: Env;
  readonly #context: MethodContext;
  readonly #send: (message: unknown) => void;
  readonly #active = new Map<number, Subscription>();
  readonly #unlisten: Disposable;
  #last = 0;

  constructor(env: Env, context: MethodContext, send: (message: unknown) => void) {
    this.#env = env;
    this.#context = context;
    this.#send = send;
    this.#unlisten = context.ledger.onChange((record, changed) => {
      for (const [id, { watcher }] of this.#active) {
        if (watcher?.(record, changed) === true) this.#active.delete(id);
      }
    });
  }

  [Symbol.dispose](): void {
    this.#unlisten[Symbol.dispose]();
    for (const { stop } of this.#active.values()) stop?.();
    this.#active.clear();
  }

  /** Answers `…Subscribe` and `…Unsubscribe`; undefined for any other method. `after` runs once the answer is out. */
  async call(
    method: string,
    params: readonly unknown[],
  ): Promise<{ readonly result: unknown; readonly after?: () => void } | undefined> {
    const unsubscribe = /^(account|program|signature|logs|slot)Unsubscribe$/.exec(method);
    if (unsubscribe) return { result: this.#unsubscribe(params[0], unsubscribe[1] ?? '') };
    const kind = /^(account|program|signature|logs|slot)Subscribe$/.exec(method)?.[1];
    if (kind === undefined) return undefined;
    if (this.#active.size >= SUBSCRIPTIONS_MAX)
      throw new RpcError(-32000, `at most ${SUBSCRIPTIONS_MAX} subscriptions per connection`);
    const id = ++this.#last;
    if (kind === 'signature') return this.#subscribeSignature(id, params);
    this.#active.set(id, { kind, ...this.#subscription(kind, id, params) });
    return { result: id };
  }

  #unsubscribe(id: unknown, kind: string): boolean {
    const subscription = typeof id === 'number' ? this.#active.get(id) : undefined;
    // A signature subscription ends by itself, and clients end it again.
    if (kind === 'signature' && subscription === undefined) return true;
    if (subscription?.kind !== kind || typeof id !== 'number')
      throw new RpcError(INVALID_PARAMS, 'Invalid subscription id.');
    subscription.stop?.();
    return this.#active.delete(id);
  }

  #notify(method: string, subscription: number, value: unknown, slot?: number): void {
    const result = slot === undefined ? value : { context: { slot, apiVersion: SOLANA_VERSION }, value };
    this.#send({ jsonrpc: '2.0', method: `${method}Notification`, params: { result, subscription } });
  }

  #subscription(kind: string, id: number, params: readonly unknown[]): Omit<Subscription, 'kind'> {
    const { ledger } = this.#context;
    if (kind === 'account') {
      const of = parseOne(key, params[0]);
      const { encoding: as } = parseOne(accountOptions, params[1]);
      const gone = {
        lamports: 0n,
        owner: parseAddress('11111111111111111111111111111111'),
        executable: false,
        data: new Uint8Array(),
      };
      const watcher: Watcher = ({ slot }, changed) => {
        if (changed.includes(of)) this.#notify('account', id, encodeAccount(ledger.account(of) ?? gone, as), slot);
        return false;
      };
      return { watcher };
    }
    if (kind === 'program') {
      const program = parseOne(key, params[0]);
      const { encoding: as, filters } = parseOne(programOptions, params[1]);
      const watcher: Watcher = ({ slot }, changed) => {
        for (const pubkey of changed) {
          const account = ledger.account(pubkey);
          if (account?.owner !== program || !matches(account, filters)) continue;
          this.#notify('program', id, { pubkey, account: encodeAccount(account, as) }, slot);
        }
        return false;
      };
      return { watcher };
    }
    if (kind === 'logs') {
      const filter = parseOne(logsFilter, params[0]);
      const mentioned = typeof filter === 'string' ? undefined : filter.mentions[0];
      const watcher: Watcher = (record) => {
        const { signature, err, logs, slot, accounts } = record;
        if (mentioned === undefined || accounts.includes(mentioned))
          this.#notify('logs', id, { signature, err, logs }, slot);
        return false;
      };
      return { watcher };
    }
    const timer = this.#env.clock.every(SLOT_MS, () => {
      const slot = ledger.slot();
      this.#notify('slot', id, { slot, parent: slot - 1, root: Math.max(0, slot - 32) });
    });
    return { stop: () => timer[Symbol.dispose]() };
  }

  /** One notification, at once when the transaction is known already. */
  async #subscribeSignature(id: number, params: readonly unknown[]): Promise<{ result: number; after: () => void }> {
    const wanted = parseOne(z.string().min(64).max(90), params[0]);
    const tell = ({ err, slot }: TransactionRecord): void => this.#notify('signature', id, { err }, slot);
    const watcher: Watcher = (record) => {
      if (record.signature !== wanted) return false;
      tell(record);
      return true;
    };
    const known = await this.#context.ledger.record(wanted);
    if (!known) this.#active.set(id, { kind: 'signature', watcher });
    return { result: id, after: () => known && tell(known) };
  }
}

function parseOne<T extends z.ZodType>(type: T, value: unknown): z.output<T> {
  try {
    return type.parse(value ?? undefined);
  } catch {
    throw new RpcError(INVALID_PARAMS, 'invalid parameters of a subscription');
  }
}
