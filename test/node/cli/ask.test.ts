/** Goal: people are asked, programs are not, and a passphrase is never shown. Method: a typed-at keyboard, and a real terminal. */
import { spawn } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { createWallet } from '../../../chain/index.ts';
import { readLine } from '../../../node/cli/ask.ts';
import { Interrupted } from '../../../node/cli/command.ts';
import { baseUnits } from '../../../protocol/units.ts';
import { LIMITS, env, newFolder, rpc, startLocalChain, type LocalChain } from '../../chain/local-chain.ts';

class TypedKeyboard extends EventEmitter {
  readonly modes: boolean[] = [];
  setRawMode(raw: boolean): void {
    this.modes.push(raw);
  }
  override removeAllListeners(event?: string | symbol): this {
    return super.removeAllListeners(event);
  }
  resume(): void {}
  pause(): void {}
}

function ask(isHidden: boolean): { keyboard: TypedKeyboard; shown: string[]; line: Promise<string> } {
  const keyboard = new TypedKeyboard();
  const shown: string[] = [];
  const line = readLine(keyboard, (text) => shown.push(text), 'passphrase: ', isHidden);
  return { keyboard, shown, line };
}

describe('a line typed at the keyboard', () => {
  test('is taken up to return, with what was rubbed out gone, and not shown when it is hidden', async () => {
    const { keyboard, shown, line } = ask(true);
    for (const typed of ['se', 'cx\u007f', 'r€x\b', 't\r']) keyboard.emit('data', Buffer.from(typed));
    expect(await line).toBe('secr€t');
    expect(shown.join('')).toBe('passphrase: \n');
    expect(keyboard.modes).toEqual([true, false]);
    expect(keyboard.listenerCount('data')).toBe(0);
  });

  test.each([
    ['Ctrl-C', '\u0003'],
    ['Ctrl-D', '\u0004'],
  ])('%s gives up, and leaves the terminal as it was', async (_, key) => {
    const { keyboard, line } = ask(true);
    keyboard.emit('data', Buffer.from(`abc${key}`));
    await expect(line).rejects.toBeInstanceOf(Interrupted);
    expect(keyboard.modes).toEqual([true, false]);
  });

  test('ends when the terminal goes away', async () => {
    const { keyboard, line } = ask(false);
    keyboard.emit('end');
    await expect(line).rejects.toBeInstanceOf(Interrupted);
    expect(keyboard.modes).toEqual([]);
  });
});

// `script` gives a program a real terminal; the one of other systems is called otherwise.
describe.skipIf(process.platform !== 'linux')('at a terminal', () => {
  let local: LocalChain;
  let folder: Awaited<ReturnType<typeof newFolder>>;
  const program = join(import.meta.dirname, '../../../node/molt.js');

  beforeAll(async () => {
    local = await startLocalChain();
    folder = await newFolder();
  });

  afterAll(async () => {
    await local[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
  });

  /** Runs molt in a terminal; types each answer when its question has appeared. */
  async function typed(home: string, args: readonly string[], answers: readonly (readonly [string, string])[]) {
    const line = [process.execPath, program, '--home', home, ...args].map((word) => `'${word}'`).join(' ');
    const child = spawn('script', ['-qec', line, '/dev/null'], {
      env: { PATH: process.env['PATH'], HOME: folder.path, TERM: 'xterm', MOLT_RPC_URL: local.devnet.rpcUrl },
    });
    let screen = '';
    let next = 0;
    child.stdout.on('data', (data: Buffer) => {
      screen += data.toString();
      const answer = answers[next];
      if (answer === undefined || !screen.slice(-200).includes(answer[0])) return;
      next++;
      screen += ' … ';
      child.stdin.write(`${answer[1]}\r`);
    });
    const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
    return { code, screen };
  }

  test('money moves only after yes', async () => {
    const home = folder.path;
    const wallet = await createWallet(env, join(home, 'wallet.json'));
    await rpc(local.devnet.rpcUrl, 'molt_faucet', wallet.address);
    const { budget } = await local.chain.createBudget(wallet, 0n, LIMITS(wallet.address));
    const args = ['budget', 'deposit', '5', budget];
    const free = async (): Promise<bigint | undefined> => (await local.chain.budget(budget))?.free;
    const refused = await typed(home, args, [['[y/N]', 'n']]);
    expect(refused.screen).toContain('nothing was changed');
    expect(refused.code).toBe(130);
    expect(await free()).toBe(0n);
    expect((await typed(home, args, [['[y/N]', 'yes']])).code).toBe(0);
    expect(await free()).toBe(baseUnits(5n * 10n ** 9n));
    const unasked = await typed(home, [...args, '-y'], []);
    expect(unasked.screen).not.toContain('[y/N]');
    expect(await free()).toBe(baseUnits(10n * 10n ** 9n));
  });

  test('a passphrase is asked twice for a new wallet, then once, and never appears', async () => {
    const home = join(folder.path, 'sealed');
    const secret = 'correct horse battery';
    const differs = await typed(
      home,
      ['wallet', 'new', '--encrypt'],
      [
        ['new passphrase: ', secret],
        ['once more: ', 'incorrect horse'],
      ],
    );
    expect(differs.screen).toContain('wallet/passphrase');
    const made = await typed(
      home,
      ['wallet', 'new', '--encrypt'],
      [
        ['new passphrase: ', secret],
        ['once more: ', secret],
      ],
    );
    expect(made.code).toBe(0);
    const used = await typed(
      home,
      ['wallet', 'encrypt'],
      [
        ['present passphrase: ', secret],
        ['new passphrase: ', 'another horse battery'],
        ['once more: ', 'another horse battery'],
      ],
    );
    expect(used.code).toBe(0);
    for (const { screen } of [differs, made, used]) expect(screen).not.toContain('horse');
  });
});
