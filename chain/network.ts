/** Which cluster an endpoint serves, asked with nothing but HTTP: a node needs it before it loads the chain client. */
import { type Address, parseAddress } from '../protocol/address.ts';
import { MoltError } from '../protocol/errors.ts';
import { post } from './http.ts';

const TIMEOUT_MS = 10_000;

/** The genesis hash. Throws `chain/unreachable`. */
export async function readNetwork(rpcUrl: string): Promise<Address> {
  try {
    const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'getGenesisHash' });
    const { text } = await post(rpcUrl, body, { signal: AbortSignal.timeout(TIMEOUT_MS) });
    const { result } = JSON.parse(text) as { result?: unknown };
    return parseAddress(String(result));
  } catch (cause) {
    throw new MoltError(
      'chain/unreachable',
      `no Solana JSON-RPC endpoint answers at ${rpcUrl}; start \`molt devnet\`, or name another with --rpc`,
      { rpcUrl },
      { cause },
    );
  }
}
