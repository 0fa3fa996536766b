/**
 * The home directory of one node: keys, settings and data, readable by its user alone, used by one process at a time.
 *
 * `wallet.json` owns money and may be moved away once the node is set up; `node-key.json` is the hot key; `config.json`
 * holds settings. Everything else in it belongs to the running node.
 */
import { randomUUID } from 'node:crypto';
import { chmod, link, mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';

import { MoltError } from '../protocol/errors.ts';

export interface Home {
  /** Absolute path. */
  readonly directory: string;
  readonly wallet: string;
  readonly nodeKey: string;
  readonly config: string;
  readonly lock: string;
  /** Unix socket at which a running node answers its operator. */
  readonly door: string;
  /** Unix socket at which a running `molt run` or `molt gang` opens forwards to its job and reads output for others. */
  readonly runDoor: string;
  /** Folder of what a buyer remembers: its last bids. */
  readonly buyer: string;
}

/** Names the files of a home. `directory` undefined means `~/.molt`. Touches nothing. */
export function homeAt(directory?: string): Home {
  const path = resolve(directory ?? join(homedir(), '.molt'));
  return {
    directory: path,
    wallet: join(path, 'wallet.json'),
    nodeKey: join(path, 'node-key.json'),
    config: join(path, 'config.json'),
    lock: join(path, 'node.lock'),
    door: join(path, 'node.sock'),
    runDoor: join(path, 'run.sock'),
    buyer: join(path, 'buyer'),
  };
}

/** Makes the directory, mode 0700, and takes others' rights from it when it was there already. */
export async function createHome(home: Home): Promise<void> {
  await mkdir(home.directory, { recursive: true, mode: 0o700 });
  const { mode } = await stat(home.directory);
  if ((mode & 0o077) !== 0) await chmod(home.directory, 0o700);
}

/** Replaces a file of the home in one step, mode 0600: a crash leaves the old or the new content, never half of it. */
export async function writeHomeFile(path: string, text: string): Promise<void> {
  const temporary = `${path}.${randomUUID()}`;
  await writeFile(temporary, text, { mode: 0o600, flush: true });
  await rename(temporary, path);
}

/**
 * Takes the home for this process until disposed. Throws `node/already-running` naming the process that has it.
 *
 * The lock is a file with the process id and, on Linux, the time that process started, so that neither a crash nor a
 * reboot that hands the number to somebody else leaves the home locked.
 */
export async function lockHome(home: Home): Promise<AsyncDisposable> {
  const own = JSON.stringify({ pid: process.pid, started: await startOf(process.pid) });
  const temporary = `${home.lock}.${randomUUID()}`;
  await writeFile(temporary, own, { mode: 0o600 });
  try {
    for (let attempt = 0; attempt < 3; attempt++) {
      if (await linked(temporary, home.lock)) return { [Symbol.asyncDispose]: () => unlock(home.lock, own) };
      const holder = await holderOf(home.lock);
      if (typeof holder === 'number') {
        throw new MoltError(
          'node/already-running',
          `process ${holder} uses the node key in ${home.directory}; wait for it or stop it, or give this one another directory with --home`,
          { pid: holder, home: home.directory },
        );
      }
      await breakLock(temporary, home.lock);
    }
  } finally {
    await rm(temporary, { force: true });
  }
  throw new MoltError('node/already-running', `another process is starting on ${home.directory}; try again`, {
    home: home.directory,
  });
}

async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw cause;
  }
}

/**
 * Takes a lock away that was left behind. One process at a time does: with two, the second would take away the lock that
 * somebody has taken since it looked.
 */
async function breakLock(own: string, path: string): Promise<void> {
  const breaking = `${path}.breaking`;
  if (!(await linked(own, breaking))) {
    if ((await holderOf(breaking)) === 'nobody') await rm(breaking, { force: true });
    return;
  }
  try {
    if ((await holderOf(path)) === 'nobody') await rm(path, { force: true });
  } finally {
    await rm(breaking, { force: true });
  }
}

async function unlock(path: string, own: string): Promise<void> {
  if ((await readFile(path, 'utf8').catch(() => '')) === own) await rm(path, { force: true });
}

/** Process id of the lock's living holder; `nobody` where it was left behind, or cannot be read; undefined where there is none. */
async function holderOf(path: string): Promise<number | 'nobody' | undefined> {
  let lock: { pid?: unknown; started?: unknown };
  try {
    lock = JSON.parse(await readFile(path, 'utf8')) as typeof lock;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === 'ENOENT' ? undefined : 'nobody';
  }
  const { pid } = lock;
  if (typeof pid !== 'number' || !Number.isSafeInteger(pid) || pid < 1 || !isAlive(pid)) return 'nobody';
  return (await startOf(pid)) === lock.started ? pid : 'nobody';
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** States of a process in /proc that has ended: `Z` zombie, `X` dead (proc(5)). */
const ENDED: readonly string[] = ['Z', 'X'];

/** Boot and start tick of a living process where /proc tells them, else the empty string. */
async function startOf(pid: number): Promise<string> {
  try {
    const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
    const line = await readFile(`/proc/${pid}/stat`, 'utf8');
    // The second field is the program name in brackets and may hold anything; the start tick is the 22nd field.
    const [state = '', ...fields] = line.slice(line.lastIndexOf(')') + 2).split(' ');
    // One that was killed stays in the table until its parent asks for it, which the first process of a container may never do.
    return ENDED.includes(state) ? '' : `${boot} ${fields[18] ?? ''}`;
  } catch {
    return '';
  }
}
