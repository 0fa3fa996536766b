/** `molt program deploy`: the chain program onto any cluster, under the wallet of this home. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { createWallet, deployProgram, readWallet } from '../../chain/index.ts';
import { type Address, parseAddress } from '../../protocol/address.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import { MoltError, hasCode } from '../../protocol/errors.ts';
import { formatBytes } from '../../protocol/units.ts';
import { confirm, openWallet } from './ask.ts';
import { type CommandContext, loadSettings, printResult } from './command.ts';
import type { Flags } from './market.ts';

const WORDS = { deployed: 'deployed', upgraded: 'upgraded', unchanged: 'was there already, byte for byte' } as const;

export async function programCommand(context: CommandContext, flags: Flags, words: readonly string[]): Promise<void> {
  const [action, file] = words;
  if (action !== 'deploy') {
    throw new MoltError('config/usage', `molt program knows deploy, not "${action ?? ''}": molt program deploy [FILE]`);
  }
  const program = await readProgram(file);
  const { settings } = await loadSettings(context, { rpcUrl: flags['rpc'] });
  const payer = await openWallet(context);
  const programId = await chooseProgramId(context, flags['programId'] as string | undefined);
  const address = typeof programId === 'string' ? programId : programId.address;
  const question = `Put ${formatBytes(program.length)} at ${address} on ${settings.rpcUrl}, paid by ${payer.address}?`;
  await confirm(context, flags['yes'], question);
  const { terminal } = context;
  const isShown = terminal.isScreen && !context.json;
  const done = await deployProgram(context.env, {
    rpcUrl: settings.rpcUrl,
    program,
    payer,
    programId,
    signal: context.signal,
    onProgress: (count, total) => {
      if (isShown) terminal.raw(`\r${count} of ${total} parts`);
    },
  });
  if (isShown) terminal.raw('\n');
  printResult(context, { ...done }, [
    `program ${done.programId} ${WORDS[done.outcome]}: ${done.written} parts sent, ${done.resumed} were there from before`,
    ...(done.signature === undefined ? [] : [`transaction ${done.signature}`]),
    `to use it: MOLT_PROGRAM_ID=${done.programId}`,
  ]);
}

/** The file, or the program that comes with Molt. */
async function readProgram(file: string | undefined): Promise<Uint8Array> {
  const path = file ?? new URL('../../chain/program/molt.so', import.meta.url);
  try {
    return new Uint8Array(await readFile(path));
  } catch (cause) {
    throw new MoltError(
      'config/usage',
      `${file ?? 'the program'} cannot be read: ${(cause as Error).message}`,
      {},
      { cause },
    );
  }
}

/** An address upgrades what is there; a keypair file, by default one in the home that is made when missing, deploys. */
async function chooseProgramId(context: CommandContext, named: string | undefined): Promise<KeyPair | Address> {
  if (named !== undefined) {
    try {
      return parseAddress(named);
    } catch {
      return readWallet(named);
    }
  }
  const path = join(context.home.directory, 'program.json');
  try {
    return await readWallet(path);
  } catch (error) {
    if (!hasCode(error, 'wallet/missing')) throw error;
    return createWallet(context.env, path);
  }
}
