/**
 * Goal: what is added comes out the same, names the same CID everywhere, and no path, link or tree made by a stranger
 * reaches outside its directory or its bounds. Method: the real store on a temporary directory.
 */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, readdir, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import * as dagPb from '@ipld/dag-pb';
import { UnixFS } from 'ipfs-unixfs';
import { CID } from 'multiformats/cid';
import * as raw from 'multiformats/codecs/raw';
import { sha256 } from 'multiformats/hashes/sha2';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { Blocks } from '../../../node/mesh/artifact/blocks.ts';
import { type Artifacts, openArtifacts } from '../../../node/mesh/index.ts';
import { systemEnv } from '../../../protocol/env.ts';
import { until } from '../mesh/peers.ts';

const env = systemEnv();
const MIB = 1024 * 1024;
const BOUNDS = { maxBytes: 64 * MIB, maxEntries: 1_000 };

let directory: string;
let artifacts: Artifacts;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'molt-artifacts-'));
  artifacts = await openArtifacts(env, { directory: join(directory, 'store'), quotaBytes: 256 * MIB });
});

afterEach(() => rm(directory, { recursive: true, force: true }));

/** A block put straight onto the disk, as a hostile sender's would be after a fetch. */
async function plant(block: Uint8Array, codec: number): Promise<CID> {
  const cid = CID.createV1(codec, await sha256.digest(block));
  const blocks = await Blocks.open(env, join(directory, 'store', 'blocks'), 256 * MIB);
  await blocks.put(cid, block);
  return cid;
}

async function plantNode(
  content: UnixFS,
  links: readonly { readonly Name: string; readonly Hash: CID }[],
): Promise<CID> {
  const named = links.map(({ Name, Hash }) => ({ Name, Hash, Tsize: 0 }));
  // encode() insists on sorted names, as an honest writer would produce them.
  named.sort((a, b) => Buffer.compare(Buffer.from(a.Name), Buffer.from(b.Name)));
  return plant(dagPb.encode({ Data: content.marshal(), Links: named }), dagPb.code);
}

const out = (): string => join(directory, 'out');

describe('artifacts', () => {
  it.each([0, 1, MIB, MIB + 1, 7 * MIB + 13])('give back a file of %d bytes', async (size) => {
    const bytes = randomBytes(size);
    await writeFile(join(directory, 'in'), bytes);
    const { cid, sizeBytes } = await artifacts.add(join(directory, 'in'));
    expect(sizeBytes).toBe(size);
    expect(await artifacts.has(cid)).toBe(true);
    expect(await artifacts.export(cid, out(), BOUNDS)).toEqual({ sizeBytes: size });
    expect((await readFile(out())).equals(bytes)).toBe(true);
    expect((await artifacts.addBytes(bytes)).cid).toBe(cid);
  });

  it('give back a directory with everything in it, empty directories too', async () => {
    const source = join(directory, 'tree');
    await mkdir(join(source, 'a', 'b'), { recursive: true });
    await mkdir(join(source, 'empty'));
    await writeFile(join(source, 'a', 'b', 'deep.txt'), 'deep');
    await writeFile(join(source, 'big'), randomBytes(3 * MIB));
    await writeFile(join(source, 'ünï cödé'), 'x');
    await writeFile(join(source, 'none'), '');
    const { cid, sizeBytes } = await artifacts.add(source);
    expect(sizeBytes).toBe(3 * MIB + 5);
    await artifacts.export(cid, out(), BOUNDS);
    expect(execFileSync('diff', ['-r', source, out()]).toString()).toBe('');
    expect((await readdir(out())).sort()).toEqual((await readdir(source)).sort());
  });

  it(
    'give back an empty directory, and one with so many entries that it is sharded',
    { timeout: 300_000 },
    async () => {
      const source = join(directory, 'many');
      await mkdir(source);
      const empty = await artifacts.add(source);
      await artifacts.export(empty.cid, out(), BOUNDS);
      expect(await readdir(out())).toEqual([]);
      for (let index = 0; index < 10_000; index++) {
        await writeFile(join(source, `${'n'.repeat(60)}${index}`), String(index));
      }
      const { cid } = await artifacts.add(source);
      await artifacts.export(cid, out(), { maxBytes: MIB, maxEntries: 11_000 });
      expect(execFileSync('diff', ['-r', source, out()]).toString()).toBe('');
    },
  );

  it('name the same content by the CID that other UnixFS tools give it', async () => {
    // The empty file as raw leaf, and "hello\n": values any UnixFS tool with the 2025 profile prints.
    expect((await artifacts.addBytes(new Uint8Array(0))).cid).toBe(
      'bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku',
    );
    const hello = await artifacts.addBytes(new TextEncoder().encode('hello\n'));
    expect(hello.cid).toBe('bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am');
  });

  it('store equal content once, and free it only with its last owner', async () => {
    const shared = randomBytes(2 * MIB);
    const source = join(directory, 'tree');
    await mkdir(source);
    await writeFile(join(source, 'shared'), shared);
    const alone = await artifacts.addBytes(shared);
    const used = artifacts.usedBytes;
    const tree = await artifacts.add(source);
    expect(artifacts.usedBytes - used).toBeLessThan(1_000);
    await artifacts.remove(alone.cid);
    expect(await artifacts.has(alone.cid)).toBe(false);
    await artifacts.export(tree.cid, out(), BOUNDS);
    expect((await readFile(join(out(), 'shared'))).equals(shared)).toBe(true);
    await artifacts.remove(tree.cid);
    expect(artifacts.usedBytes).toBe(0);
  });

  it('count repeated blocks once, though they are written at the same time', async () => {
    const { cid } = await artifacts.addBytes(new Uint8Array(32 * MIB));
    expect(artifacts.usedBytes).toBeLessThan(MIB + 10_000);
    await artifacts.export(cid, out(), BOUNDS);
    expect((await readFile(out())).length).toBe(32 * MIB);
    await artifacts.remove(cid);
    expect(artifacts.usedBytes).toBe(0);
  });

  it('are still there after a restart, with half-written blocks gone', async () => {
    const { cid } = await artifacts.addBytes(randomBytes(3 * MIB));
    const used = artifacts.usedBytes;
    const shard = join(directory, 'store', 'blocks', 'ff');
    await mkdir(shard, { recursive: true });
    await writeFile(join(shard, 'ff00-1234.part'), 'half');
    const again = await openArtifacts(env, { directory: join(directory, 'store'), quotaBytes: 256 * MIB });
    expect(again.usedBytes).toBe(used);
    expect(await again.has(cid)).toBe(true);
    // In one of 64 runs a whole block has a name that begins like that.
    expect((await readdir(shard)).filter((name) => name.endsWith('.part'))).toEqual([]);
  });

  it('refuse what exceeds the quota with a full disk, after making room from leftovers', async () => {
    const small = await openArtifacts(env, { directory: join(directory, 'small'), quotaBytes: 4 * MIB });
    await expect(small.addBytes(randomBytes(6 * MIB))).rejects.toMatchObject({ code: 'job/disk-full' });
    const kept = await small.addBytes(randomBytes(3 * MIB));
    using _pin = small.pin(kept.cid);
    await expect(small.addBytes(randomBytes(2 * MIB))).rejects.toMatchObject({ code: 'job/disk-full' });
    await small.export(kept.cid, out(), BOUNDS);
  });

  it('make room by what was used least of what nobody has pinned, also after a restart', async () => {
    let atMs = 1_000_000;
    const clock = Object.assign(Object.create(env.clock) as typeof env.clock, { now: () => (atMs += 1_000) });
    const store = { directory: join(directory, 'small'), quotaBytes: 4 * MIB + 10_000 };
    let small = await openArtifacts({ ...env, clock }, store);
    const add = async (): Promise<string> => (await small.addBytes(randomBytes(MIB))).cid;
    const [pinned, used, old, newer] = [await add(), await add(), await add(), await add()];
    await small.export(used, out(), BOUNDS);
    small = await openArtifacts({ ...env, clock }, store);
    const pin = small.pin(pinned);
    const here = async (): Promise<boolean[]> => Promise.all([pinned, used, old, newer].map((cid) => small.has(cid)));
    await add();
    expect(await here()).toEqual([true, true, false, true]);
    await add();
    expect(await here()).toEqual([true, true, false, false]);
    await small.remove(pinned);
    expect(await here()).toEqual([true, true, false, false]);
    pin[Symbol.dispose]();
    pin[Symbol.dispose]();
    await until('the pinned one is gone', () => small.usedBytes === 3 * MIB);
    expect(await small.has(pinned)).toBe(false);
  });

  it('take bytes as they come, and nothing when their source fails', async () => {
    const bytes = randomBytes(3 * MIB + 1);
    const source = async function* (fails: boolean): AsyncGenerator<Uint8Array> {
      for (let at = 0; at < bytes.length; at += 100_000) yield bytes.subarray(at, at + 100_000);
      if (fails) throw new Error('cut');
    };
    await expect(artifacts.addStream(source(true))).rejects.toThrow('cut');
    const { cid, sizeBytes } = await artifacts.addStream(source(false));
    expect(sizeBytes).toBe(bytes.length);
    expect(cid).toBe((await artifacts.addBytes(bytes)).cid);
  });

  it('find damage on disk, and no longer claim to have the tree', async () => {
    const { cid } = await artifacts.addBytes(randomBytes(100));
    const blocks = join(directory, 'store', 'blocks');
    const [shard = ''] = await readdir(blocks);
    const [file = ''] = await readdir(join(blocks, shard));
    await truncate(join(blocks, shard, file), 50);
    await expect(artifacts.export(cid, out(), BOUNDS)).rejects.toMatchObject({ code: 'artifact/corrupt' });
    expect(await artifacts.has(cid)).toBe(false);
    expect(await readdir(directory)).not.toContain('out');
  });

  it('say that content is not here', async () => {
    const cid = CID.createV1(raw.code, await sha256.digest(randomBytes(9))).toString();
    expect(await artifacts.has(cid)).toBe(false);
    await expect(artifacts.export(cid, out(), BOUNDS)).rejects.toMatchObject({ code: 'artifact/not-found' });
    await expect(artifacts.has('not a cid')).rejects.toMatchObject({ code: 'artifact/corrupt' });
  });
});

describe('adding', () => {
  it('refuses links and special files, at the root and below, instead of following them', async () => {
    const source = join(directory, 'tree');
    await mkdir(source);
    await writeFile(join(directory, 'secret'), 'secret');
    await symlink(join(directory, 'secret'), join(source, 'link'));
    await expect(artifacts.add(source)).rejects.toMatchObject({ code: 'artifact/unsafe-path' });
    await expect(artifacts.add(join(source, 'link'))).rejects.toMatchObject({ code: 'artifact/unsafe-path' });
    await rm(join(source, 'link'));
    execFileSync('mkfifo', [join(source, 'pipe')]);
    await expect(artifacts.add(source)).rejects.toMatchObject({ code: 'artifact/unsafe-path' });
  });

  it('refuses names that mean something else elsewhere', async () => {
    const source = join(directory, 'tree');
    await mkdir(source);
    await writeFile(join(source, 'a\\b'), 'x');
    await expect(artifacts.add(source)).rejects.toMatchObject({ code: 'artifact/unsafe-path' });
  });

  it('stops at the limits of bytes and entries', async () => {
    const source = join(directory, 'tree');
    await mkdir(source);
    for (const name of ['a', 'b', 'c']) await writeFile(join(source, name), randomBytes(1_000));
    await expect(artifacts.add(source, { maxBytes: 2_999 })).rejects.toMatchObject({ code: 'artifact/too-large' });
    await expect(artifacts.add(source, { maxEntries: 2 })).rejects.toMatchObject({ code: 'artifact/too-large' });
    expect(await artifacts.add(source, { maxBytes: 3_000, maxEntries: 3 })).toMatchObject({ sizeBytes: 3_000 });
  });
});

describe('exporting', () => {
  const file = (): Promise<CID> => plant(new TextEncoder().encode('owned'), raw.code);

  it.each(['..', '.', '', '../escape', 'a/b', '/etc/passwd', 'a\\b', 'nul\0', 'x'.repeat(256)])(
    'refuses an entry called %j',
    async (name) => {
      const tree = await plantNode(new UnixFS({ type: 'directory' }), [{ Name: name, Hash: await file() }]);
      await expect(artifacts.export(tree.toString(), out(), BOUNDS)).rejects.toMatchObject({
        code: 'artifact/unsafe-path',
      });
      expect((await readdir(directory)).sort()).toEqual(['store']);
    },
  );

  it('refuses symbolic links, alone and in a directory', async () => {
    const link = await plantNode(new UnixFS({ type: 'symlink', data: new TextEncoder().encode('/etc/passwd') }), []);
    const tree = await plantNode(new UnixFS({ type: 'directory' }), [{ Name: 'link', Hash: link }]);
    for (const cid of [link, tree]) {
      await expect(artifacts.export(cid.toString(), out(), BOUNDS)).rejects.toMatchObject({
        code: 'artifact/unsafe-path',
      });
    }
    expect(await readdir(directory)).toEqual(['store']);
  });

  it('refuses two entries of one name, so that none is written through the other', async () => {
    const inner = await plantNode(new UnixFS({ type: 'directory' }), []);
    const tree = await plantNode(new UnixFS({ type: 'directory' }), [
      { Name: 'same', Hash: await file() },
      { Name: 'same', Hash: inner },
    ]);
    await expect(artifacts.export(tree.toString(), out(), BOUNDS)).rejects.toMatchObject({
      code: 'artifact/unsafe-path',
    });
    expect(await readdir(directory)).toEqual(['store']);
  });

  it('never writes over what is already there', async () => {
    const { cid } = await artifacts.addBytes(randomBytes(10));
    await writeFile(out(), 'precious');
    await expect(artifacts.export(cid, out(), BOUNDS)).rejects.toMatchObject({ code: 'artifact/unsafe-path' });
    expect(await readFile(out(), 'utf8')).toBe('precious');
    await symlink(out(), join(directory, 'link'));
    await expect(artifacts.export(cid, join(directory, 'link'), BOUNDS)).rejects.toMatchObject({
      code: 'artifact/unsafe-path',
    });
    expect(await readFile(out(), 'utf8')).toBe('precious');
  });

  it('stops a small tree that unfolds to a huge file', async () => {
    let cid = await plant(new Uint8Array(MIB), raw.code);
    let size = BigInt(MIB);
    for (let level = 0; level < 6; level++) {
      const content = new UnixFS({ type: 'file', blockSizes: Array.from({ length: 100 }, () => size) });
      cid = await plantNode(
        content,
        Array.from({ length: 100 }, () => ({ Name: '', Hash: cid })),
      );
      size *= 100n;
    }
    await expect(artifacts.export(cid.toString(), out(), BOUNDS)).rejects.toMatchObject({ code: 'artifact/too-large' });
    expect(await readdir(directory)).toEqual(['store']);
  });

  it('stops trees that unfold to nothing at great length, to many entries, or to great depth', async () => {
    let hollow = await plantNode(new UnixFS({ type: 'file' }), []);
    for (let level = 0; level < 8; level++) {
      hollow = await plantNode(
        new UnixFS({ type: 'file', blockSizes: Array.from({ length: 100 }, () => 0n) }),
        Array.from({ length: 100 }, () => ({ Name: '', Hash: hollow })),
      );
    }
    await expect(artifacts.export(hollow.toString(), out(), { maxBytes: 1_000, maxEntries: 10 })).rejects.toMatchObject(
      { code: 'artifact/too-large' },
    );
    let wide = await file();
    for (let level = 0; level < 4; level++) {
      wide = await plantNode(
        new UnixFS({ type: 'directory' }),
        Array.from({ length: 30 }, (_, index) => ({ Name: `n${index}`, Hash: wide })),
      );
    }
    await expect(artifacts.export(wide.toString(), out(), BOUNDS)).rejects.toMatchObject({
      code: 'artifact/too-large',
    });
    let deep = await file();
    for (let level = 0; level < 70; level++)
      deep = await plantNode(new UnixFS({ type: 'directory' }), [{ Name: 'd', Hash: deep }]);
    await expect(artifacts.export(deep.toString(), out(), BOUNDS)).rejects.toMatchObject({
      code: 'artifact/too-large',
    });
    expect(await readdir(directory)).toEqual(['store']);
  });

  it('refuses blocks that are no UnixFS', async () => {
    const noData = await plant(dagPb.encode({ Links: [] }), dagPb.code);
    const garbage = await plant(randomBytes(50), dagPb.code);
    for (const cid of [noData, garbage]) {
      await expect(artifacts.export(cid.toString(), out(), BOUNDS)).rejects.toMatchObject({ code: 'artifact/corrupt' });
    }
  });
});
