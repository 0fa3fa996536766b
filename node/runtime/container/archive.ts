/**
 * Files into and out of containers, as tar streams.
 *
 * Going in: regular files and directories of a host directory, read-only for the job's user. Coming out: what the job
 * left, which is hostile. Only regular files and directories are kept, under names that stay inside; sizes are judged by
 * the header before a byte is read; nothing is unpacked that could point elsewhere: symbolic
 * links are left out, and a hard link becomes a copy.
 */
import { constants, createReadStream, createWriteStream } from 'node:fs';
import { copyFile, lstat, mkdir, readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { extract, pack, type Pack } from 'tar-stream';
import { MoltError } from '../../../protocol/errors.ts';

/** The user of every job: nobody. */
export const JOB_UID = 65_534;
const ENTRIES_MAX = 65_536;
const DEPTH_MAX = 64;
const PATH_BYTES_MAX = 4096;

/** A tree of the archive: `directory`'s contents, or `files` by name, under `name`. Without either it is empty. */
export interface PackedTree {
  /** Path without leading slash; `.` is the directory itself into which the archive is put. */
  readonly name: string;
  readonly directory?: string;
  readonly files?: ReadonlyMap<string, Uint8Array>;
  readonly directoryMode: number;
  readonly fileMode: number;
}

/** Packs trees for `putArchive`. Links and special files of the host are left out. */
export function packTrees(trees: readonly PackedTree[]): Readable {
  const archive = pack();
  void fill(archive, trees).then(
    () => archive.finalize(),
    (error: unknown) => archive.destroy(error instanceof Error ? error : new Error(String(error))),
  );
  return Readable.from(archive);
}

async function fill(archive: Pack, trees: readonly PackedTree[]): Promise<void> {
  for (const tree of trees) {
    await addEntry(archive, { name: tree.name, type: 'directory', mode: tree.directoryMode });
    for (const [name, bytes] of tree.files ?? []) {
      await addEntry(archive, { name: `${tree.name}/${name}`, type: 'file', mode: tree.fileMode }, Buffer.from(bytes));
    }
    if (tree.directory !== undefined) await addDirectory(archive, tree, tree.directory, tree.name);
  }
}

async function addDirectory(archive: Pack, tree: PackedTree, hostPath: string, name: string): Promise<void> {
  for (const child of (await readdir(hostPath)).sort()) {
    const childPath = join(hostPath, child);
    const childName = `${name}/${child}`;
    const status = await lstat(childPath);
    if (status.isDirectory()) {
      await addEntry(archive, { name: childName, type: 'directory', mode: tree.directoryMode });
      await addDirectory(archive, tree, childPath, childName);
    } else if (status.isFile()) {
      const { size } = status;
      const entry = archive.entry({ name: childName, type: 'file', mode: tree.fileMode, size, ...owner });
      await pipeline(createReadStream(childPath, { end: Math.max(size - 1, 0) }), entry);
    }
  }
}

const owner = { uid: JOB_UID, gid: JOB_UID, mtime: new Date(0) };

async function addEntry(
  archive: Pack,
  headers: Parameters<Pack['entry']>[0],
  content: string | Buffer = '',
): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    archive.entry({ ...headers, ...owner }, content, (error) => (error ? reject(error) : resolve()));
  });
}

/** Bounds of what is taken out. */
export interface UnpackLimits {
  readonly bytesMax: number;
}

/**
 * Writes the tree under the archive's first directory into `target`, which must be empty. Throws `runtime/engine-failed`
 * for an archive that does not even hold that directory: an engine that is busy may answer so. Throws `job/output-too-large`
 * and `artifact/unsafe-path`; what was written until then stays for the caller to delete.
 */
export async function unpackTree(archive: Readable, target: string, limits: UnpackLimits): Promise<void> {
  const unpacker = extract();
  archive.on('error', (error) => unpacker.destroy(error));
  // The loop below reports the fault; without a listener it would end the process as well.
  unpacker.on('error', () => undefined);
  archive.pipe(unpacker);
  const files = new Set<string>();
  let entries = 0;
  let bytes = 0;
  let whole = false;
  const charge = (size: number): void => {
    bytes += size;
    if (bytes > limits.bytesMax) throw tooLarge(`more than the disk limit of ${limits.bytesMax} bytes`);
  };
  try {
    for await (const entry of unpacker) {
      // Destroying the unpacker in the middle of an entry emits on the entry as well.
      entry.on('error', () => undefined);
      const { name, type, size, linkname } = entry.header;
      if (++entries > ENTRIES_MAX) throw tooLarge(`more than ${ENTRIES_MAX} entries`);
      const path = safePath(name);
      if (path === undefined) {
        whole = true;
        entry.resume();
        continue;
      }
      const hostPath = join(target, path);
      if (type === 'file') {
        charge(size);
        await mkdir(dirname(hostPath), { recursive: true });
        await pipeline(entry, createWriteStream(hostPath, { flags: 'wx', mode: 0o600 }));
        files.add(path);
        continue;
      }
      if (type === 'directory') await mkdir(hostPath, { recursive: true });
      // A second name of a file that came before: kept as a file of its own.
      const first = type === 'link' && typeof linkname === 'string' ? safePath(linkname) : undefined;
      if (first !== undefined && files.has(first)) {
        charge((await lstat(join(target, first))).size);
        await mkdir(dirname(hostPath), { recursive: true });
        await copyFile(join(target, first), hostPath, constants.COPYFILE_EXCL);
      }
      entry.resume();
    }
    if (!whole) throw new MoltError('runtime/engine-failed', 'the engine gave an empty archive of the outputs');
  } finally {
    archive.destroy();
  }
}

function tooLarge(what: string): MoltError {
  return new MoltError('job/output-too-large', `the outputs have ${what}; write less or ask for more disk`, { what });
}

/** The part of an entry's name below the archive's first directory; undefined for that directory itself. */
export function safePath(name: string): string | undefined {
  const parts = name.split('/').filter((part) => part !== '' && part !== '.');
  const unsafe =
    name.startsWith('/') ||
    parts.includes('..') ||
    name.includes('\0') ||
    parts.length > DEPTH_MAX ||
    Buffer.byteLength(name) > PATH_BYTES_MAX;
  if (unsafe) {
    throw new MoltError('artifact/unsafe-path', 'an output has a name that leaves its directory or is too long', {
      name: name.slice(0, 200),
    });
  }
  const below = parts.slice(1).join('/');
  return below === '' ? undefined : below;
}
