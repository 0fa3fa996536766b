/** What only a local chain (`molt devnet`) does, by JSON-RPC methods of its own: tokens and lamports from nowhere, and more. */
import type { Address } from '../../protocol/address.ts';
import { MoltError } from '../../protocol/errors.ts';

/** JSON-RPC: "method not found". Any real cluster answers so. */
const METHOD_NOT_FOUND = -32_601;

/** Base units of MOLT, and lamports. */
export interface Gift {
  readonly owner: Address;
  readonly tokens: bigint;
  readonly lamports: bigint;
}

/** Throws `chain/insufficient-funds` where there is no faucet, `chain/unreachable` where nothing answers. */
export async function requestFaucet(rpcUrl: string, { owner, tokens, lamports }: Gift): Promise<void> {
  const amounts = { lamports: lamports.toString(), tokens: tokens.toString() };
  const none = new MoltError(
    'chain/insufficient-funds',
    `${rpcUrl} has no faucet: only a local chain (molt devnet) gives tokens away`,
  );
  await callLocalChain(rpcUrl, { method: 'molt_faucet', params: [owner, amounts], none });
}

/**
 * Asks a local chain for what no other one does. Throws `none` where it is another one, an error of the same code with its
 * own words where it refuses, and `chain/unreachable` where nothing answers.
 */
export async function callLocalChain(
  rpcUrl: string,
  call: { readonly method: string; readonly params: readonly unknown[]; readonly none: MoltError },
): Promise<unknown> {
  const { method, params, none } = call;
  const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method, params });
  let answer: { result?: unknown; error?: { code?: number; message?: string } };
  try {
    const response = await fetch(rpcUrl, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
      signal: AbortSignal.timeout(10_000),
    });
    answer = (await response.json()) as typeof answer;
  } catch (cause) {
    throw new MoltError(
      'chain/unreachable',
      `${rpcUrl} does not answer: start the local chain with molt devnet`,
      { rpcUrl },
      { cause },
    );
  }
  if (answer.error === undefined) return answer.result;
  const { code, message = 'no reason given' } = answer.error;
  if (code === METHOD_NOT_FOUND) throw none;
  throw new MoltError(none.code, `${method} of ${rpcUrl} refuses: ${message}`, { rpcUrl });
}
