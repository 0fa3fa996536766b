/** `molt wallet`: the keys of this home and what they own. */
import { connectChain, createWallet, encryptWallet, readWallet, readWalletAddress } from '../../chain/index.ts';
import type { Address } from '../../protocol/address.ts';
import { MoltError, hasCode } from '../../protocol/errors.ts';
import { formatMolt, parseMolt } from '../../protocol/units.ts';
import { createHome } from '../home.ts';
import { askNewPassphrase, askPassphrase } from './ask.ts';
import { type CommandContext, loadSettings, printResult } from './command.ts';
import { requestFaucet } from './faucet.ts';

type Flags = Readonly<Record<string, unknown>>;

export async function walletCommand(context: CommandContext, flags: Flags, words: readonly string[]): Promise<void> {
  const [action = 'show', amount] = words;
  const { settings } = await loadSettings(context, { rpcUrl: flags['rpc'] });
  switch (action) {
    case 'new':
      return makeWallet(context, flags['encrypt'] === true);
    case 'encrypt':
      return sealWallet(context);
    case 'show':
      return showWallet(context, settings.rpcUrl);
    case 'balance': {
      const { address } = await readWalletAddress(context.home.wallet);
      const balance = await balanceOf(context, settings.rpcUrl, address);
      printResult(context, { wallet: address, ...balance }, [
        `${formatMolt(balance.baseUnits)}, ${formatSol(balance.lamports)}`,
      ]);
      return;
    }
    case 'airdrop': {
      if (amount === undefined) {
        throw new MoltError(
          'config/usage',
          'molt wallet airdrop needs an amount, for example: molt wallet airdrop 500',
        );
      }
      const { address } = await readWalletAddress(context.home.wallet);
      await requestFaucet(settings.rpcUrl, { owner: address, tokens: parseMolt(amount), lamports: 1_000_000_000n });
      const balance = await balanceOf(context, settings.rpcUrl, address);
      printResult(context, { wallet: address, ...balance }, [
        `${address} now has ${formatMolt(balance.baseUnits)} and ${formatSol(balance.lamports)}`,
      ]);
      return;
    }
    default:
      throw new MoltError('config/usage', `molt wallet knows show, new, encrypt, balance and airdrop, not "${action}"`);
  }
}

async function makeWallet(context: CommandContext, isEncrypted: boolean): Promise<void> {
  await createHome(context.home);
  const passphrase = isEncrypted ? await askNewPassphrase(context) : undefined;
  const wallet = await createWallet(context.env, context.home.wallet, passphrase);
  printResult(context, { wallet: wallet.address, file: context.home.wallet, encrypted: isEncrypted }, [
    `wallet ${wallet.address}`,
    isEncrypted
      ? `written to ${context.home.wallet}, encrypted: the money needs file and passphrase, nobody can restore either; keep copies`
      : `written to ${context.home.wallet}: whoever has this file has the money; keep a copy in a safe place`,
  ]);
}

/** Puts a passphrase on the wallet, or another one. */
async function sealWallet(context: CommandContext): Promise<void> {
  const { address, encrypted } = await readWalletAddress(context.home.wallet);
  if (encrypted && context.passphraseFd !== undefined) {
    const message = `the wallet ${address} is encrypted already: change its passphrase in a terminal, without --passphrase-fd`;
    throw new MoltError('config/usage', message);
  }
  const old = encrypted ? await askPassphrase(context, 'present passphrase: ', address) : '';
  await encryptWallet(context.env, context.home.wallet, await askNewPassphrase(context), () => Promise.resolve(old));
  printResult(context, { wallet: address, file: context.home.wallet, encrypted: true }, [
    `wallet ${address} in ${context.home.wallet} is encrypted now; older copies and backups of the file are not`,
  ]);
}

async function showWallet(context: CommandContext, rpcUrl: string): Promise<void> {
  const wallet = await readWalletAddress(context.home.wallet);
  const node = await readWallet(context.home.nodeKey).catch((error: unknown) => {
    if (hasCode(error, 'wallet/missing')) return undefined;
    throw error;
  });
  const balance = await balanceOf(context, rpcUrl, wallet.address).catch((error: unknown) => {
    if (error instanceof MoltError) return error;
    throw error;
  });
  const known = balance instanceof MoltError ? undefined : balance;
  printResult(
    context,
    {
      wallet: wallet.address,
      encrypted: wallet.encrypted,
      nodeKey: node?.address,
      file: context.home.wallet,
      ...known,
    },
    [
      `wallet    ${wallet.address}${wallet.encrypted ? ' (encrypted)' : ''}`,
      `node key  ${node?.address ?? 'none yet: molt init makes one'}`,
      `balance   ${balance instanceof MoltError ? `unknown: ${balance.message}` : `${formatMolt(balance.baseUnits)}, ${formatSol(balance.lamports)}`}`,
      `file      ${context.home.wallet}`,
    ],
  );
}

async function balanceOf(
  context: CommandContext,
  rpcUrl: string,
  owner: Address,
): Promise<{ baseUnits: bigint; lamports: bigint }> {
  await using chain = await connectChain(context.env, { rpcUrl });
  const { tokens, lamports } = await chain.balances(owner);
  return { baseUnits: tokens, lamports };
}

/** Lamports → "1.5 SOL". */
export function formatSol(lamports: bigint): string {
  return formatMolt(lamports).replace('MOLT', 'SOL');
}
