/** The SDK client of a home that buys: its settings, budget and node key, and what joins the mesh with them. */
import { type Address, parseAddress } from '../../protocol/address.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import { type ConnectOptions, type Molt, connect } from '../../sdk/index.ts';
import type { Settings } from '../config.ts';
import { type CommandContext, loadSettings, requireBudget } from './command.ts';
import type { Flags } from './job-request.ts';
import { readNodeKey } from './node-key.ts';

export interface BuyerHome {
  readonly settings: Settings;
  readonly budget: Address;
  readonly key: KeyPair;
}

/** Throws `config/invalid` for a home without a budget or with settings that cannot be, and what its key file is refused for. */
export async function readBuyer(context: CommandContext, flags: Flags): Promise<BuyerHome> {
  const { settings } = await loadSettings(context, flags);
  const budget = parseAddress(requireBudget(context, settings));
  return { settings, budget, key: await readNodeKey(context, 'buyer') };
}

/**
 * Joins the mesh; the home must be locked, since two processes with one node key would take each other's messages. Not
 * with the signal of Ctrl-C: a cancelled job is still settled over this connection.
 */
export function connectBuyer(
  { env }: CommandContext,
  { settings, budget, key }: BuyerHome,
  more: Pick<ConnectOptions, 'journal' | 'autonomy'> = {},
): Promise<Molt> {
  const { rpcUrl, bootstrap, mdns, followRegion, programId } = settings;
  const program = programId === null ? {} : { programId: parseAddress(programId) };
  return connect({ rpcUrl, key, budget, bootstrap, mdns, followRegion, ...program, env, ...more });
}
