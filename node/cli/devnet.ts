/** `molt devnet`: the local chain in the foreground. */
import { join } from 'node:path';

import { startDevnet } from '../../chain/index.ts';
import { MoltError } from '../../protocol/errors.ts';
import { type CommandContext, printResult, untilStopped } from './command.ts';

export async function devnetCommand(context: CommandContext, flags: Readonly<Record<string, unknown>>): Promise<void> {
  const directory = (flags['directory'] as string | undefined) ?? join(context.home.directory, 'devnet');
  const devnet = await startDevnet(context.env, {
    directory,
    port: parsePort(flags['port'] as string),
    ...history(flags),
  });
  printResult(context, { type: 'listening', rpcUrl: devnet.rpcUrl, wsUrl: devnet.wsUrl, directory }, [
    `local chain at ${devnet.rpcUrl} (websocket ${devnet.wsUrl}), state in ${directory}`,
    `in another terminal: molt init --rpc ${devnet.rpcUrl}`,
    'Ctrl-C stops it; what was confirmed stays on disk',
  ]);
  await untilStopped(context, flags['untilStdinEnds'] === true);
  await devnet.close();
}

function parsePort(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port > 65_534) {
    throw new MoltError('config/usage', `--port is "${text}", expected a number from 0 to 65534 (0 picks a free one)`);
  }
  return port;
}

/** How many transactions to keep. */
function history(flags: Readonly<Record<string, unknown>>): { readonly historyMax?: number } {
  const text = flags['history'] as string | undefined;
  if (text === undefined) return {};
  const historyMax = Number(text);
  if (!/^\d+$/.test(text) || historyMax < 1 || historyMax > 100_000_000) {
    throw new MoltError(
      'config/usage',
      `--history is "${text}", expected a number of transactions from 1 to 100000000`,
    );
  }
  return { historyMax };
}
