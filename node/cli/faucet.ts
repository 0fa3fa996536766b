/** The faucet of a local chain: tokens and lamports from nowhere, by the JSON-RPC method that only `molt devnet` has. */
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
  const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'molt_faucet', params: [owner, amounts] });
  let answer: { error?: { code?: number; message?: string } };
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
  if (answer.error === undefined) return;
  throw new MoltError(
    'chain/insufficient-funds',
    answer.error.code === METHOD_NOT_FOUND
      ? `${rpcUrl} has no faucet: only a local chain (molt devnet) gives tokens away`
      : `the faucet of ${rpcUrl} refuses: ${answer.error.message ?? 'no reason given'}`,
    { rpcUrl },
  );
}
