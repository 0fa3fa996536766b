/**
 * The JSON-RPC methods of the local chain: those of a Solana node that clients and explorers ask, and three of our own
 * (`molt_faucet`, `molt_warp`, `molt_admitVerifier`). Every confirmation level is the same here, because what is visible is final and on disk.
 */
import { ACCOUNT_METHODS } from './account-methods.ts';
import { CLUSTER_METHODS } from './cluster-methods.ts';
import { CODES, RpcError, checkContextSlot, type Method, type MethodContext } from './rpc.ts';
import { TRANSACTION_READS, WRITES } from './transaction-methods.ts';

/** Reading methods run when all that was executed is on disk. */
const READS: ReadonlyMap<string, Method> = new Map(
  Object.entries({ ...CLUSTER_METHODS, ...ACCOUNT_METHODS, ...TRANSACTION_READS }),
);
const WRITING: ReadonlyMap<string, Method> = new Map(Object.entries(WRITES));

/** Runs a method. Throws `RpcError` for what the caller did wrong. */
export function callMethod(context: MethodContext, method: string, params: readonly unknown[]): unknown {
  const write = WRITING.get(method);
  const read = READS.get(method);
  if (write === undefined && read === undefined)
    throw new RpcError(CODES.methodNotFound, `Method not found: ${method.slice(0, 60)}`);
  checkContextSlot(context.ledger, params);
  return write ? write(context, params) : context.ledger.settled(() => read?.(context, params));
}
