/**
 * Goal: what a stranger's program leaves in its folder becomes outputs, or a reason why not, and never a way to read or fill
 * this machine. Method: folders as hostile programs would leave them, and the real store.
 */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { link, mkdir, mkdtemp, readFile, readdir, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { type Artifacts, openArtifacts } from '../../../node/mesh/index.ts';
import { type CollectedOutputs, collectOutputs } from '../../../node/provider/outputs.ts';
import { systemEnv } from '../../../protocol/env.ts';
import { parseJobSpec } from '../../../protocol/job-spec.ts';

const MIB = 1024 * 1024;

let directory: string;
let folder: string;
let artifacts: Artifacts;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'molt-outputs-'));
  folder = join(directory, 'out');
  await mkdir(folder);
  artifacts = await openArtifacts(systemEnv(), { directory: join(directory, 'store'), quotaBytes: 256 * MIB });
});

afterEach(() => rm(directory, { recursive: true, force: true }));

function collect(paths: readonly string[], diskBytes = 16 * MIB): Promise<CollectedOutputs> {
  const spec = parseJobSpec({
    runtime: 'container',
    image: `busybox@sha256:${'0'.repeat(64)}`,
    outputs: paths.map((path, index) => ({ name: `o${index}`, path })),
    resources: { diskBytes },
  });
  return collectOutputs(artifacts, spec, folder, new AbortController().signal);
}

async function write(path: string, content: string | Uint8Array = path): Promise<void> {
  await mkdir(join(folder, path, '..'), { recursive: true });
  await writeFile(join(folder, path), content);
}

/** The files of an output, as `find` lists them. */
async function filesOf(cid: string | undefined): Promise<string[]> {
  const target = join(directory, `seen-${randomBytes(4).toString('hex')}`);
  await artifacts.export(cid ?? '', target, { maxBytes: 64 * MIB, maxEntries: 1_000 });
  return execFileSync('find', ['.', '-mindepth', '1'], { cwd: target, encoding: 'utf8' }).trim().split('\n').sort();
}

describe('outputs', () => {
  it('are files and folders as they were written', async () => {
    await write('a.txt', 'hello');
    await write('d/e/f');
    await mkdir(join(folder, 'empty'));
    await write('none', '');
    const { outputs, missing } = await collect(['a.txt', 'd', 'd/e/f', 'empty', 'none', 'absent', 'd/absent/x']);
    expect(outputs.map(({ path, sizeBytes }) => [path, sizeBytes])).toEqual([
      ['a.txt', 5],
      ['d', 5],
      ['d/e/f', 5],
      ['empty', 0],
      ['none', 0],
    ]);
    expect(outputs[0]?.sha256).toBe('2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824');
    expect(missing).toEqual(['absent', 'd/absent/x']);
  });

  it('of a pattern are all files that match, under their paths', async () => {
    for (const path of ['r/a.csv', 'r/b.csv', 'r/c.txt', 'r/sub/d.csv', 'top.csv']) await write(path);
    await mkdir(join(folder, 'r/empty'));
    const { outputs, missing } = await collect(['r/*.csv', '**/*.csv', '*.zip', 'r/**']);
    expect(missing).toEqual(['*.zip']);
    expect(await filesOf(outputs[0]?.cid)).toEqual(['./r', './r/a.csv', './r/b.csv']);
    expect(await filesOf(outputs[1]?.cid)).toEqual([
      './r',
      './r/a.csv',
      './r/b.csv',
      './r/sub',
      './r/sub/d.csv',
      './top.csv',
    ]);
    expect(await filesOf(outputs[2]?.cid)).toEqual([
      './r',
      './r/a.csv',
      './r/b.csv',
      './r/c.txt',
      './r/sub',
      './r/sub/d.csv',
    ]);
  });

  it('never come from behind a link, wherever it stands in the path', async () => {
    const secret = join(directory, 'secret');
    await mkdir(secret);
    await writeFile(join(secret, 'key'), 'secret');
    await symlink(secret, join(folder, 'way'));
    await symlink(join(secret, 'key'), join(folder, 'file'));
    await mkdir(join(folder, 'within'));
    await symlink(secret, join(folder, 'within', 'link'));
    await symlink(join(secret, 'key'), join(folder, 'within', 'key'));
    const { outputs, missing } = await collect(['way/key', 'way', 'file', 'within', 'way/*', '**/key', 'within/**']);
    expect(outputs).toEqual([]);
    expect(missing.map((text) => text.split(' ')[0])).toEqual([
      'way/key',
      'way',
      'file',
      'within',
      'way/*',
      '**/key',
      'within/**',
    ]);
    expect(missing[3]).toContain('a symbolic link');
  });

  it('that are pipes or have names that mean something else elsewhere are refused with the reason', async () => {
    execFileSync('mkfifo', [join(folder, 'pipe')]);
    await write('bad/a\\b');
    await write('two/same');
    await write('two/SAME');
    const { outputs, missing } = await collect(['pipe', 'bad', 'two']);
    expect(outputs).toEqual([]);
    expect(missing).toEqual(['pipe', expect.stringContaining('backslash'), expect.stringContaining('another entry')]);
  });

  it('count in full: a sparse file, or many links to one file, is more than the disk that was asked for', async () => {
    await write('sparse', '');
    await truncate(join(folder, 'sparse'), 2 ** 41);
    expect((await collect(['sparse'])).tooLarge).toContain('sparse');
    await write('links/0', randomBytes(MIB));
    for (let index = 1; index < 20; index++) await link(join(folder, 'links/0'), join(folder, `links/${index}`));
    expect((await collect(['links'])).tooLarge).toContain('links');
    expect((await collect(['links'], 32 * MIB)).outputs[0]?.sizeBytes).toBe(20 * MIB);
    await write('big', randomBytes(9 * MIB));
    const both = await collect(['big', 'big']);
    expect(both.outputs.length).toBe(1);
    expect(both.tooLarge).toContain('big');
  });

  it('may be thousands of tiny files', async () => {
    await mkdir(join(folder, 'many'));
    for (let index = 0; index < 3_000; index++) await writeFile(join(folder, 'many', `${index}`), `${index}`);
    const { outputs } = await collect(['many', 'many/1?']);
    await artifacts.export(outputs[0]?.cid ?? '', join(directory, 'seen'), { maxBytes: MIB, maxEntries: 3_001 });
    expect((await readdir(join(directory, 'seen'))).length).toBe(3_000);
    expect(await readFile(join(directory, 'seen', '2999'), 'utf8')).toBe('2999');
    expect((await filesOf(outputs[1]?.cid)).length).toBe(11);
  });
});
