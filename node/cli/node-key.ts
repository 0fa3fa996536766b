/** The hot key of a home, for the commands that cannot work without one. */
import { readWallet } from '../../chain/index.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import { MoltError, hasCode } from '../../protocol/errors.ts';
import { type CommandContext, moltCommand } from './command.ts';

/** Throws `wallet/missing` with the `molt init` that makes it, and what `readWallet` throws. */
export async function readNodeKey({ home }: CommandContext, role: 'provider' | 'buyer'): Promise<KeyPair> {
  try {
    return await readWallet(home.nodeKey);
  } catch (cause) {
    if (!hasCode(cause, 'wallet/missing')) throw cause;
    throw new MoltError(
      'wallet/missing',
      `${home.directory} is not set up yet: run ${moltCommand()} init --role ${role} --home ${home.directory}`,
      { home: home.directory },
      { cause },
    );
  }
}
