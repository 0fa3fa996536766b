/** What the methods of the local chain share: errors with Solana's codes, checks of parameters, answers with a slot. */
import { z } from 'zod';

import { parseAddress, type Address } from '../../protocol/address.ts';
import type { Ledger } from './ledger.ts';

export const SOLANA_VERSION = '3.0.0';

/** What a method answers with instead of a result. */
export class RpcError extends Error {
  override readonly name = 'RpcError';
  readonly code: number;
  readonly data: unknown;

  constructor(code: number, message: string, data?: unknown) {
    super(message);
    this.code = code;
    this.data = data;
  }
}

/** Codes of JSON-RPC, then those of Solana nodes. */
export const CODES = {
  parseError: -32700,
  invalidRequest: -32600,
  methodNotFound: -32601,
  invalidParams: -32602,
  internalError: -32603,
  blockCleanedUp: -32001,
  preflightFailure: -32002,
  signatureFailure: -32003,
  blockNotAvailable: -32004,
  unsupportedVersion: -32015,
  minContextSlot: -32016,
} as const;

export interface MethodContext {
  readonly ledger: Ledger;
  readonly mint: Address;
}

export type Method = (context: MethodContext, params: readonly unknown[]) => unknown;
export type Methods = Readonly<Record<string, Method>>;

export const invalid = (message: string): RpcError => new RpcError(CODES.invalidParams, message);

export const address = z.string().transform((text, context) => {
  try {
    return parseAddress(text);
  } catch {
    context.addIssue({ code: 'custom', message: 'Invalid param: not an address' });
    return z.NEVER;
  }
});
export const signature = z.string().regex(/^[1-9A-HJ-NP-Za-km-z]{64,88}$/, 'Invalid param: not a signature');
export const slotNumber = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
export const commitment = z.enum(['processed', 'confirmed', 'finalized']).optional();
/** Every method's last parameter may name a commitment and a slot that must have been reached. */
export const base = { commitment, minContextSlot: slotNumber.optional() };
export const options = z.looseObject(base).optional();
export const encoding = z.enum(['base58', 'base64', 'jsonParsed']);
export const dataSlice = z.object({ offset: slotNumber, length: slotNumber }).optional();
/** Data without an encoding named is base58 in the protocol; base64 is what everybody wants, and old clients name it. */
export const accountOptions = z
  .looseObject({ ...base, encoding: encoding.default('base64'), dataSlice })
  .default({ encoding: 'base64' });

/** Checks positional parameters; missing ones at the end are undefined. */
export function parse<T extends readonly z.ZodType[]>(
  params: readonly unknown[],
  ...shape: T
): { [K in keyof T]: z.output<T[K]> } {
  if (params.length > shape.length) throw invalid(`at most ${shape.length} parameters, not ${params.length}`);
  return shape.map((type, index) => {
    const result = type.safeParse(params[index] ?? undefined);
    if (result.success) return result.data;
    throw invalid(`parameter ${index + 1}: ${result.error.issues[0]?.message ?? 'invalid'}`);
  }) as { [K in keyof T]: z.output<T[K]> };
}

/** Refuses a request that asks for a slot which is not there yet. */
export function checkContextSlot(ledger: Ledger, params: readonly unknown[]): void {
  const last = params.at(-1);
  if (typeof last !== 'object' || last === null || !('minContextSlot' in last)) return;
  const slot = ledger.slot();
  if (typeof last.minContextSlot === 'number' && last.minContextSlot > slot)
    throw new RpcError(CODES.minContextSlot, 'Minimum context slot has not been reached', { contextSlot: slot });
}

export const withContext = (
  ledger: Ledger,
  value: unknown,
): { context: { slot: number; apiVersion: string }; value: unknown } => ({
  context: { slot: ledger.slot(), apiVersion: SOLANA_VERSION },
  value,
});

/** A u64 in JSON, also above 2^53. */
export function u64(value: bigint): unknown {
  const { rawJSON } = JSON as typeof JSON & { readonly rawJSON: (text: string) => unknown };
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : rawJSON(value.toString());
}
