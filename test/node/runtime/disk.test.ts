/** Goal: what is known about disks of jobs does not depend on how the last node ended. Method: real loop devices, as root. */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { Disks } from '../../../node/runtime/container/disk.ts';

const canLimit = await inFolder((folder) => new Disks(folder).canLimitDisk());
const why = canLimit ? '' : ' (this machine cannot make loop devices)';

describe.skipIf(!canLimit)(`the self-test of disks${why}`, () => {
  test('holds after a node that was killed within it, and leaves nothing', () =>
    inFolder(async (folder) => {
      await writeFile(join(folder, 'self-test.ext4'), 'half of a disk');
      expect(await new Disks(folder).canLimitDisk()).toBe(true);
      expect(await readdir(folder)).toEqual([]);
    }));
});

async function inFolder<Result>(use: (folder: string) => Promise<Result>): Promise<Result> {
  const folder = await mkdtemp(join(tmpdir(), 'molt-disk-'));
  try {
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
