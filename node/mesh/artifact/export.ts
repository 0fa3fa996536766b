/** Blocks → files. Nothing is written outside the target, and no link is made or followed. */
import { lstat, mkdir, open, readdir, rm } from 'node:fs/promises';
import { dirname } from 'node:path';

import type { CID } from 'multiformats/cid';

import { type Blocks, diskErrors, isCode } from './blocks.ts';
import { unsafePath } from './name.ts';
import { type FileTarget, type TreeBounds, type TreeTarget, readTree } from './tree.ts';

export type ExportOptions = TreeBounds;

const FILES: TreeTarget = {
  directory: async (path, isRoot) => {
    await mkdir(path, { recursive: isRoot, mode: 0o755 });
  },
  file: async (path): Promise<FileTarget> => {
    const file = await open(path, 'wx', 0o644);
    return { append: (bytes) => file.writeFile(bytes), [Symbol.asyncDispose]: () => file.close() };
  },
};

/**
 * Writes the tree to `path`, which must not exist or be an empty directory. What was written is removed when it fails.
 * Throws `artifact/not-found`, `artifact/corrupt`, `artifact/too-large`, `artifact/unsafe-path`, `job/disk-full`.
 */
export async function exportTree(
  blocks: Blocks,
  cid: CID,
  path: string,
  options: ExportOptions,
): Promise<{ sizeBytes: number }> {
  await assertFree(path);
  const get = (one: CID): Promise<Uint8Array> => blocks.get(one);
  try {
    await mkdir(dirname(path), { recursive: true });
    return await diskErrors(() => readTree({ node: get, leaf: get }, { cid, path }, options, FILES));
  } catch (error) {
    await rm(path, { recursive: true, force: true });
    if (isCode(error, 'EEXIST')) throw unsafePath(path, 'collision', 'two entries have one name on this file system');
    throw error;
  }
}

async function assertFree(path: string): Promise<void> {
  try {
    const status = await lstat(path);
    if (status.isDirectory() && (await readdir(path)).length === 0) return;
  } catch (error) {
    if (isCode(error, 'ENOENT')) return;
    throw error;
  }
  throw unsafePath(path, 'occupied', 'something is already there');
}
