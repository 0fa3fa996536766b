/**
 * Disk quotas for container jobs: an ext4 file system of the wanted size in a sparse file, given to the job as `/out`.
 *
 * Needs Linux, root, losetup and mkfs.ext4, and an engine on this machine: where one of them is missing, `canLimitDisk`
 * says so and the container runtime falls back to watching the size of the container's writable layer.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, open, readdir, readFile, realpath, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { JOB_UID } from './archive.ts';
import { MoltError } from '../../../protocol/errors.ts';

const execute = promisify(execFile);
const SUFFIX = '.ext4';
const SELF_TEST = 'self-test';
const BLOCK_BYTES = 4096;
const TOOL_MS_MAX = 30_000;

async function tool(file: string, args: readonly string[]): Promise<string> {
  const { stdout } = await execute(file, args, {
    timeout: TOOL_MS_MAX,
    env: { LC_ALL: 'C', PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
  });
  return stdout.trim();
}

/** Loop devices that hold this file: read from the kernel, and asked from a tool only where that finds none. */
async function devicesOf(path: string): Promise<string[]> {
  const real = await realpath(path).catch(() => path);
  const names = (await readdir('/sys/block').catch(() => [])).filter((name) => name.startsWith('loop'));
  const held = await Promise.all(
    names.map((name) => readFile(`/sys/block/${name}/loop/backing_file`, 'utf8').catch(() => '')),
  );
  const found = names.filter((_, index) => held[index]?.trimEnd() === real).map((name) => `/dev/${name}`);
  if (found.length > 0) return found;
  const told = await tool('losetup', ['-n', '-O', 'NAME', '-j', path]).catch(() => '');
  return told.split('\n').filter(Boolean);
}

/** A device may let go of its file by itself, when its last mount went: then there is nothing left to detach. */
async function detach(device: string, path: string): Promise<void> {
  try {
    await tool('losetup', ['-d', device]);
  } catch (error) {
    if ((await devicesOf(path)).includes(device)) throw error;
  }
}

export class Disks {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Makes, attaches and removes a small disk. */
  async canLimitDisk(): Promise<boolean> {
    if (process.platform !== 'linux' || process.getuid?.() !== 0) return false;
    try {
      // A node that was killed in the middle of this left it here, and would sell without limits from then on.
      await this.remove(SELF_TEST);
      await this.create(SELF_TEST, 1 << 20, JOB_UID);
      return true;
    } catch {
      return false;
    } finally {
      await this.remove(SELF_TEST).catch(() => undefined);
    }
  }

  #file(attemptId: string): string {
    return join(this.#directory, `${attemptId}${SUFFIX}`);
  }

  /** A disk that holds `bytes` of file contents and belongs to `uid`; returns its loop device. Throws `job/disk-full`. */
  async create(attemptId: string, bytes: number, uid: number): Promise<string> {
    await mkdir(this.#directory, { recursive: true });
    const path = this.#file(attemptId);
    // Inode tables and bitmaps take a thirty-second and a fixed part.
    const blocks = Math.ceil((bytes + bytes / 32 + (2 << 20)) / BLOCK_BYTES);
    try {
      await using file = await open(path, 'wx', 0o600);
      await file.truncate(blocks * BLOCK_BYTES);
    } catch (error) {
      throw new MoltError(
        'job/disk-full',
        `the job's disk of ${bytes} bytes cannot be made in ${this.#directory}`,
        {},
        { cause: error },
      );
    }
    const options = `nodiscard,root_owner=${uid}:${uid}`;
    await tool('mkfs.ext4', ['-q', '-b', String(BLOCK_BYTES), '-E', options, '-O', '^has_journal', '-m', '0', path]);
    // The job finds its output directory empty.
    await tool('debugfs', ['-w', '-R', 'rmdir lost+found', path]);
    return tool('losetup', ['-f', '--show', path]);
  }

  /** Attempts that have a disk here. */
  async list(): Promise<string[]> {
    const files = await readdir(this.#directory).catch(() => []);
    return files.flatMap((file) => (file.endsWith(SUFFIX) ? [file.slice(0, -SUFFIX.length)] : []));
  }

  /** True when the attempt's disk is attached as this device, or could be: false for a device that holds another file. */
  async attachAs(attemptId: string, device: string): Promise<boolean> {
    const path = this.#file(attemptId);
    try {
      const attached = await devicesOf(path);
      if (attached.length > 0) return attached.includes(device);
      await tool('losetup', [device, path]);
      return true;
    } catch {
      return false;
    }
  }

  /** Takes a disk from an engine that forgot that it mounted it. One that is not mounted, or not here, is left alone. */
  async unmount(mountPoint: string): Promise<void> {
    await tool('umount', [mountPoint]).catch(() => undefined);
  }

  /** Detaches and deletes the attempt's disk. Idempotent. */
  async remove(attemptId: string): Promise<void> {
    const path = this.#file(attemptId);
    if (!existsSync(path)) return;
    for (const device of await devicesOf(path)) await detach(device, path);
    await rm(path, { force: true });
  }
}
