/** Goal: keys stay private and one process uses a home at a time, whatever ended the last one. Method: real files. */
import { spawn } from 'node:child_process';
import { chmod, mkdtemp, readFile, readdir, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { beforeEach, describe, expect, it } from 'vitest';

import { type Home, createHome, homeAt, lockHome, writeHomeFile } from '../../node/home.ts';

let home: Home;

beforeEach(async () => {
  home = homeAt(await mkdtemp(join(tmpdir(), 'molt-home-')));
});

describe('files', () => {
  it('takes the rights of others away', async () => {
    await chmod(home.directory, 0o755);
    await createHome(home);
    expect((await stat(home.directory)).mode & 0o777).toBe(0o700);
    await writeHomeFile(home.config, '{}');
    expect((await stat(home.config)).mode & 0o777).toBe(0o600);
  });

  it('replaces a file without leaving another one behind', async () => {
    await writeHomeFile(home.config, 'one');
    await writeHomeFile(home.config, 'two');
    expect(await readFile(home.config, 'utf8')).toBe('two');
    expect(await readdir(home.directory)).toEqual(['config.json']);
  });
});

describe('lock', () => {
  it('is refused to a second holder, naming the first, and given again once let go', async () => {
    {
      await using _lock = await lockHome(home);
      await expect(lockHome(home)).rejects.toMatchObject({
        code: 'node/already-running',
        context: { pid: process.pid },
      });
    }
    await using _again = await lockHome(home);
    expect(await readdir(home.directory)).toEqual(['node.lock']);
  });

  const script = `import('${new URL('../../node/home.ts', import.meta.url).href}').then(async (m) => { await m.lockHome(m.homeAt(process.argv[1])); console.log('locked'); setInterval(() => {}, 1000); })`;

  it('of a process that was killed does not count', async () => {
    const child = spawn(process.execPath, ['-e', script, home.directory], { stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise((resolve) => child.stdout.once('data', resolve));
    await expect(lockHome(home)).rejects.toMatchObject({ context: { pid: child.pid } });
    const exited = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await exited;
    await using _lock = await lockHome(home);
  });

  it.runIf(process.platform === 'linux')(
    'of a killed process whose parent does not ask for it does not count',
    async () => {
      const args = ['-c', '"$@" & exec sleep 600', 'sh', process.execPath, '-e', script, home.directory];
      const parent = spawn('sh', args, { stdio: ['ignore', 'pipe', 'inherit'] });
      try {
        await new Promise((resolve) => parent.stdout.once('data', resolve));
        const { pid } = JSON.parse(await readFile(home.lock, 'utf8')) as { pid: number };
        process.kill(pid, 'SIGKILL');
        await expect.poll(() => readFile(`/proc/${pid}/stat`, 'utf8')).toContain(') Z ');
        await using _lock = await lockHome(home);
      } finally {
        parent.kill('SIGKILL');
      }
    },
  );

  it.runIf(process.platform === 'linux')(
    'of a process number that was given to another process does not count',
    async () => {
      await writeFile(home.lock, JSON.stringify({ pid: process.pid, started: 'another boot 1' }));
      await using _lock = await lockHome(home);
    },
  );

  it('that cannot be read does not count', async () => {
    await writeFile(home.lock, 'half a l');
    await using _lock = await lockHome(home);
  });

  it('is won by exactly one of many who try at once', async () => {
    const tries = await Promise.allSettled(Array.from({ length: 8 }, () => lockHome(home)));
    expect(tries.filter((each) => each.status === 'fulfilled')).toHaveLength(1);
  });

  it('that was left behind is taken over by exactly one of many', async () => {
    for (let round = 0; round < 20; round++) {
      await writeFile(home.lock, 'half a l');
      const tries = await Promise.allSettled(Array.from({ length: 8 }, () => lockHome(home)));
      const taken = tries.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
      expect(taken).toHaveLength(1);
      await taken[0]?.[Symbol.asyncDispose]();
    }
  });
});
