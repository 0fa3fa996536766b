/**
 * Websocket subscriptions of one client: account, program, signature, logs, slot and root. Notifications follow the write to
 * disk, in the order of the transactions.
 */
import { z } from 'zod';

import { parseAddress, type Address } from '../../protocol/address.ts';
import type { Env } from '../../protocol/env.ts';
import { encodeAccount, filters, matches } from './account-methods.ts';
import { SLOT_MS } from './ledger.ts';
import { CODES, RpcError, SOLANA_VERSION, encoding, invalid, signature, type MethodContext } from './rpc.ts';
import type { TransactionRecord } from './store.ts';
import { SYSTEM_PROGRAM } from './vm.ts';

const SUBSCRIPTIONS_MAX = 1_000;

/** Sees one transaction; sends what it wants to tell. Gives true when it is done for good. */
type Watcher = (record: TransactionRecord, changed: readonly Address[]) => boolean;

interface Subscription {
  readonly kind: string;
  readonly watcher?: Watcher;
  readonly stop?: () => void;
}

const key = z.string().transform((text) => parseAddress(text));
const accountForm = z.looseObject({ encoding: encoding.default('base64') }).prefault({});
const programForm = z.looseObject({ encoding: encoding.default('base64'), filters }).prefault({});
const signatureForm = z.looseObject({ enableReceivedNotification: z.boolean().default(false) }).prefault({});
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
    const unsubscribe = /^(account|program|signature|logs|slot|root)Unsubscribe$/.exec(method);
    if (unsubscribe) return { result: this.#unsubscribe(params[0], unsubscribe[1] ?? '') };
    const kind = /^(account|program|signature|logs|slot|root)Subscribe$/.exec(method)?.[1];
    if (kind === undefined) return undefined;
    if (this.#active.size >= SUBSCRIPTIONS_MAX)
      throw new RpcError(CODES.invalidRequest, `at most ${SUBSCRIPTIONS_MAX} subscriptions per connection`);
    const id = ++this.#last;
    if (kind === 'signature') return this.#subscribeSignature(id, params);
    this.#active.set(id, { kind, ...this.#subscription(kind, id, params) });
    return { result: id };
  }

  #unsubscribe(id: unknown, kind: string): boolean {
    const subscription = typeof id === 'number' ? this.#active.get(id) : undefined;
    // A signature subscription ends by itself, and clients end it again.
    if (kind === 'signature' && subscription === undefined) return true;
    if (subscription?.kind !== kind || typeof id !== 'number') throw invalid('Invalid subscription id.');
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
      const form = parseOne(accountForm, params[1]);
      const gone = { lamports: 0n, owner: SYSTEM_PROGRAM, executable: false, data: new Uint8Array() };
      const watcher: Watcher = ({ slot }, changed) => {
        if (changed.includes(of))
          this.#notify('account', id, encodeAccount(ledger, ledger.account(of) ?? gone, form), slot);
        return false;
      };
      return { watcher };
    }
    if (kind === 'program') {
      const program = parseOne(key, params[0]);
      const form = parseOne(programForm, params[1]);
      const watcher: Watcher = ({ slot }, changed) => {
        for (const pubkey of changed) {
          const account = ledger.account(pubkey);
          if (account?.owner !== program || !matches(account, form.filters)) continue;
          this.#notify('program', id, { pubkey, account: encodeAccount(ledger, account, form) }, slot);
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
      if (kind === 'root') this.#notify('root', id, slot - 1);
      else this.#notify('slot', id, { slot, parent: slot - 1, root: slot - 1 });
    });
    return { stop: () => timer[Symbol.dispose]() };
  }

  /**
   * One notification, at once when the transaction is known already. It is watched for before it is looked up, since it may
   * be written meanwhile, and told only when the answer is out: a client knows no subscription before.
   */
  async #subscribeSignature(id: number, params: readonly unknown[]): Promise<{ result: number; after: () => void }> {
    const wanted = parseOne(signature, params[0]);
    const { enableReceivedNotification: received } = parseOne(signatureForm, params[1]);
    const tell = ({ err, slot }: TransactionRecord): void => {
      if (received) this.#notify('signature', id, 'receivedSignature', slot);
      this.#notify('signature', id, { err }, slot);
    };
    let isAnswered = false;
    let early: TransactionRecord | undefined;
    const watcher: Watcher = (record) => {
      if (record.signature !== wanted) return false;
      if (isAnswered) tell(record);
      else early = record;
      return true;
    };
    this.#active.set(id, { kind: 'signature', watcher });
    const known = await this.#context.ledger.history.record(wanted);
    const after = (): void => {
      isAnswered = true;
      const record = early ?? known;
      if (record === undefined) return;
      this.#active.delete(id);
      tell(record);
    };
    return { result: id, after };
  }
}

function parseOne<T extends z.ZodType>(type: T, value: unknown): z.output<T> {
  try {
    return type.parse(value ?? undefined);
  } catch {
    throw invalid('invalid parameters of a subscription');
  }
}
