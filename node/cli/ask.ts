/**
 * Questions to the person at the terminal: passphrases without echo, and "yes" before money moves.
 *
 * A program that calls this one is never asked: passphrases come from a file descriptor, never from arguments or the
 * environment, which other processes can read.
 */
import { createReadStream } from 'node:fs';

import { readWallet } from '../../chain/index.ts';
import type { Address } from '../../protocol/address.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import { MoltError } from '../../protocol/errors.ts';
import { type CommandContext, Interrupted } from './command.ts';

const LINE_BYTES_MAX = 4_096;

/** Where a person types; standard input in the program. */
export interface Keyboard {
  readonly isTTY?: boolean;
  setRawMode?(raw: boolean): unknown;
  on(event: 'data', listener: (data: Buffer) => void): unknown;
  on(event: 'end', listener: () => void): unknown;
  removeAllListeners(event: 'data' | 'end'): unknown;
  resume(): unknown;
  pause(): unknown;
}

/** One line, shown as typed or, when hidden, not at all. Throws `Interrupted` at Ctrl-C, Ctrl-D and a closed input. */
export function readLine(
  keyboard: Keyboard,
  write: (text: string) => void,
  prompt: string,
  isHidden: boolean,
): Promise<string> {
  return new Promise((resolve, reject) => {
    let line = '';
    const finish = (end: () => void): void => {
      keyboard.removeAllListeners('data');
      keyboard.removeAllListeners('end');
      if (isHidden) keyboard.setRawMode?.(false);
      keyboard.pause();
      if (isHidden) write('\n');
      end();
    };
    const stop = (): void => finish(() => reject(new Interrupted('nothing was typed')));
    // Before the question is seen: what is typed after it must not be shown.
    if (isHidden) keyboard.setRawMode?.(true);
    write(prompt);
    keyboard.on('data', (data) => {
      for (const character of data.toString('utf8')) {
        if (character === '\r' || character === '\n') return finish(() => resolve(line));
        if (character === '\u0003' || character === '\u0004') return stop();
        if (character === '\u007f' || character === '\b') line = Array.from(line).slice(0, -1).join('');
        else if (line.length < LINE_BYTES_MAX) line += character;
      }
    });
    keyboard.on('end', stop);
    keyboard.resume();
  });
}

const isAtTerminal = (context: CommandContext): boolean => process.stdin.isTTY && context.terminal.isScreen;
const toError = (text: string): boolean => process.stderr.write(text);

/** The wallet of the home; asks for its passphrase where it has one. */
export function openWallet(context: CommandContext): Promise<KeyPair> {
  return readWallet(context.home.wallet, (address) =>
    askPassphrase(context, `passphrase of wallet ${address}: `, address),
  );
}

/** Throws `wallet/locked` where nobody can be asked. */
export async function askPassphrase(context: CommandContext, prompt: string, address?: Address): Promise<string> {
  if (context.passphraseFd !== undefined) return readDescriptor(context.passphraseFd);
  if (isAtTerminal(context)) return readLine(process.stdin, toError, prompt, true);
  const message = 'a passphrase is needed and nobody can be asked: run this in a terminal, or give --passphrase-fd';
  throw new MoltError('wallet/locked', message, { address });
}

/** A passphrase for a new file: typed twice by a person. Throws `wallet/passphrase` when the two differ. */
export async function askNewPassphrase(context: CommandContext): Promise<string> {
  const first = await askPassphrase(context, 'new passphrase: ');
  if (context.passphraseFd !== undefined) return first;
  if ((await askPassphrase(context, 'once more: ')) === first) return first;
  throw new MoltError('wallet/passphrase', 'the two passphrases differ: start again');
}

/** The first line of what can be read there. Throws `config/usage` when nothing can. */
async function readDescriptor(fd: number): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  try {
    for await (const part of createReadStream('', { fd, autoClose: false })) {
      parts.push(part as Buffer);
      size += (part as Buffer).length;
      if ((part as Buffer).includes(10) || size > LINE_BYTES_MAX) break;
    }
  } catch (cause) {
    throw new MoltError(
      'config/usage',
      `file descriptor ${fd} cannot be read: ${(cause as Error).message}`,
      {},
      { cause },
    );
  }
  return (Buffer.concat(parts).toString('utf8').split('\n', 1)[0] ?? '').replace(/\r$/, '');
}

/**
 * Asks a person before money moves; `-y`, `--json`, or nobody at the terminal mean yes. Throws `Interrupted` on any other
 * answer.
 */
export async function confirm(context: CommandContext, isSure: unknown, question: string): Promise<void> {
  if (isSure === true || context.json || !isAtTerminal(context)) return;
  const answer = await readLine(process.stdin, toError, `${question} [y/N] `, false);
  if (/^y(es)?$/i.test(answer.trim())) return;
  context.terminal.err('nothing was changed');
  throw new Interrupted('the answer was no');
}
