/** What the commands of token holders and buyers share: the client of the market, and addresses and amounts as typed. */
import { type Chain, type ProviderAccount, connectChain } from '../../chain/index.ts';
import { type Address, parseAddress } from '../../protocol/address.ts';
import { MoltError } from '../../protocol/errors.ts';
import { type BaseUnits, parseMolt } from '../../protocol/units.ts';
import type { Settings } from '../config.ts';
import { type CommandContext, loadSettings } from './command.ts';

export type Flags = Readonly<Record<string, unknown>>;

/** A client, and the settings that it came from. Dispose of the client. */
export async function openMarket(
  context: CommandContext,
  flags: Flags,
): Promise<{ readonly chain: Chain; readonly settings: Settings }> {
  const { settings } = await loadSettings(context, { rpcUrl: flags['rpc'] });
  const { rpcUrl, programId } = settings;
  const named = programId === null ? {} : { programId: parseAddress(programId) };
  return { chain: await connectChain(context.env, { rpcUrl, ...named }), settings };
}

/** A typed address. Throws `config/usage` naming what it should have been. */
export function addressWord(text: string | undefined, what: string, example: string): Address {
  if (text === undefined) throw new MoltError('config/usage', `the ${what} is missing, for example: ${example}`);
  try {
    return parseAddress(text);
  } catch {
    throw new MoltError('config/usage', `"${text}" is not the address of a ${what}, for example: ${example}`);
  }
}

/** A typed amount of MOLT, above zero; "all" where that means something. */
export function amountWord(text: string | undefined, example: string, all?: bigint): BaseUnits {
  if (text === undefined) throw new MoltError('config/usage', `the amount is missing, for example: ${example}`);
  const amount = text === 'all' && all !== undefined ? (all as BaseUnits) : parseMolt(text);
  if (amount > 0n) return amount;
  throw new MoltError('config/usage', `there is nothing to move: the amount is ${text === 'all' ? 'zero' : text}`);
}

/** The provider account at an address, or the one that the wallet at this address owns. */
export async function findProvider(chain: Chain, text: string | undefined, example: string): Promise<ProviderAccount> {
  const address = addressWord(text, 'provider', example);
  const owned = await chain.provider(chain.providerAddress(address));
  // The address of a wallet is no account of the program, and asking for it as one is refused.
  const found = owned ?? (await chain.provider(address));
  if (found) return found;
  throw new MoltError('chain/account-missing', `there is no provider ${address}: molt providers lists them`, {
    address,
  });
}
