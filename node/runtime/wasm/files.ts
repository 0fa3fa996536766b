/**
 * The files a wasm guest sees: read-only trees over host directories, and writable trees under one quota.
 *
 * Names live in memory only, contents in host files that the guest cannot name: what it writes goes to numbered files
 * of a scratch directory, and `collect` moves the survivors of a tree to where they belong when the guest has ended.
 * So no path of the guest is ever given to the host while it runs, and links do not exist (the shim offers no symlinks;
 * hard links are names of one inode and are copied). Bounds: `ENTRIES_MAX` entries, `DEPTH_MAX` levels, 255-byte names.
 */
import {
  closeSync,
  constants,
  copyFileSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { Directory, Fd, File, Inode, OpenDirectory, wasi } from '@bjorn3/browser_wasi_shim';
import { MoltError } from '../../../protocol/errors.ts';

export const ENTRIES_MAX = 65_536;
export const DEPTH_MAX = 64;
const NAME_BYTES_MAX = 255;
/** One read or write of a guest moves at most this much; a guest that asks for more gets a short count. */
const TRANSFER_BYTES_MAX = 1 << 20;
/** Name of the scratch directory inside the output directory: a tree cannot have an entry of this name at its top. */
export const SCRATCH_NAME = '.molt-scratch';

/** Bytes that system calls moved since the last look; the guest pays fuel for them. */
export interface Transfer {
  bytes: number;
}

type Path = NonNullable<Parameters<Directory['get_entry_for_path']>[0]>;

function splitPath(path: string): Path {
  const parts: string[] = [];
  for (const part of path.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return { parts, is_dir: path.endsWith('/'), to_path_string: () => parts.join('/') };
}

abstract class OpenHostFile extends Fd {
  protected readonly handle: number;
  protected readonly transfer: Transfer;
  protected position: bigint = 0n;

  constructor(handle: number, transfer: Transfer) {
    super();
    this.handle = handle;
    this.transfer = transfer;
  }

  abstract size(): number;
  abstract inode(): Inode;

  override fd_close(): number {
    closeSync(this.handle);
    return wasi.ERRNO_SUCCESS;
  }

  override fd_fdstat_get(): { ret: number; fdstat: wasi.Fdstat } {
    return { ret: 0, fdstat: new wasi.Fdstat(wasi.FILETYPE_REGULAR_FILE, 0) };
  }

  override fd_filestat_get(): { ret: number; filestat: wasi.Filestat } {
    return { ret: 0, filestat: this.inode().stat() };
  }

  override fd_read(size: number): { ret: number; data: Uint8Array } {
    const { ret, data } = this.fd_pread(size, this.position);
    this.position += BigInt(data.length);
    return { ret, data };
  }

  override fd_pread(size: number, offset: bigint): { ret: number; data: Uint8Array } {
    const left = Math.max(0, this.size() - Number(offset));
    const data = new Uint8Array(Math.min(size, left, TRANSFER_BYTES_MAX));
    const read = data.length === 0 ? 0 : readSync(this.handle, data, 0, data.length, Number(offset));
    this.transfer.bytes += read;
    return { ret: wasi.ERRNO_SUCCESS, data: data.subarray(0, read) };
  }

  override fd_seek(offset: bigint, whence: number): { ret: number; offset: bigint } {
    const bases = new Map([
      [wasi.WHENCE_SET, 0n],
      [wasi.WHENCE_CUR, this.position],
      [wasi.WHENCE_END, BigInt(this.size())],
    ]);
    const base = bases.get(whence);
    if (base === undefined || base + offset < 0n || base + offset > BigInt(Number.MAX_SAFE_INTEGER)) {
      return { ret: wasi.ERRNO_INVAL, offset: 0n };
    }
    this.position = base + offset;
    return { ret: wasi.ERRNO_SUCCESS, offset: this.position };
  }

  override fd_tell(): { ret: number; offset: bigint } {
    return { ret: wasi.ERRNO_SUCCESS, offset: this.position };
  }
}

/** A regular file of the host that can be read. */
class ReadOnlyFile extends Inode {
  readonly hostPath: string;
  readonly size: number;
  readonly transfer: Transfer;

  constructor(hostPath: string, size: number, transfer: Transfer) {
    super();
    this.hostPath = hostPath;
    this.size = size;
    this.transfer = transfer;
  }

  path_open(oflags: number, rights: bigint, _flags: number): { ret: number; fd_obj: Fd | null } {
    if ((oflags & wasi.OFLAGS_TRUNC) !== 0 || (rights & BigInt(wasi.RIGHTS_FD_WRITE)) !== 0n) {
      return { ret: wasi.ERRNO_ROFS, fd_obj: null };
    }
    const handle = openSync(this.hostPath, constants.O_RDONLY | constants.O_NOFOLLOW);
    return { ret: wasi.ERRNO_SUCCESS, fd_obj: new OpenReadOnlyFile(handle, this) };
  }

  stat(): wasi.Filestat {
    return new wasi.Filestat(this.ino, wasi.FILETYPE_REGULAR_FILE, BigInt(this.size));
  }
}

class OpenReadOnlyFile extends OpenHostFile {
  readonly file: ReadOnlyFile;

  constructor(handle: number, file: ReadOnlyFile) {
    super(handle, file.transfer);
    this.file = file;
  }

  size(): number {
    return this.file.size;
  }

  inode(): Inode {
    return this.file;
  }
}

class ReadOnlyDirectory extends Directory {
  override create_entry_for_path(): { ret: number; entry: null } {
    return { ret: wasi.ERRNO_ROFS, entry: null };
  }

  override path_open(): { ret: number; fd_obj: OpenDirectory } {
    return { ret: wasi.ERRNO_SUCCESS, fd_obj: new OpenReadOnlyDirectory(this) };
  }
}

/** A directory listing that costs what it lists: the shim's own builds an array of all names for every name. */
class OpenListedDirectory extends OpenDirectory {
  readonly #preopenName: string | undefined;
  #listing: readonly (readonly [string, Inode])[] = [];

  constructor(directory: Directory, preopenName?: string) {
    super(directory);
    this.#preopenName = preopenName;
  }

  override fd_prestat_get(): { ret: number; prestat: wasi.Prestat | null } {
    if (this.#preopenName === undefined) return { ret: wasi.ERRNO_BADF, prestat: null };
    return { ret: wasi.ERRNO_SUCCESS, prestat: wasi.Prestat.dir(this.#preopenName) };
  }

  override fd_readdir_single(cookie: bigint): { ret: number; dirent: wasi.Dirent | null } {
    if (cookie < 2n) {
      this.#listing = [...this.dir.contents];
      return super.fd_readdir_single(cookie);
    }
    const entry = this.#listing[Number(cookie - 2n)];
    if (entry === undefined) return { ret: wasi.ERRNO_SUCCESS, dirent: null };
    const [name, inode] = entry;
    const dirent = new wasi.Dirent(cookie + 1n, inode.ino, name, inode.stat().filetype);
    return { ret: wasi.ERRNO_SUCCESS, dirent };
  }
}

class OpenReadOnlyDirectory extends OpenListedDirectory {
  override path_create_directory(): number {
    return wasi.ERRNO_ROFS;
  }
  override path_link(): number {
    return wasi.ERRNO_ROFS;
  }
  override path_unlink(): { ret: number; inode_obj: null } {
    return { ret: wasi.ERRNO_ROFS, inode_obj: null };
  }
  override path_unlink_file(): number {
    return wasi.ERRNO_ROFS;
  }
  override path_remove_directory(): number {
    return wasi.ERRNO_ROFS;
  }
}

/** A directory of a writable tree. */
class OpenWritableDirectory extends OpenListedDirectory {
  readonly #files: WritableFiles;

  constructor(directory: Directory, files: WritableFiles, preopenName?: string) {
    super(directory, preopenName);
    this.#files = files;
  }

  /** Another name for an inode: a hard link, or the second half of a rename. */
  override path_link(path: string, inode: Inode, allowDirectory: boolean): number {
    if (!(inode instanceof WritableFile || inode instanceof WritableDirectory)) return wasi.ERRNO_XDEV;
    const name = splitPath(path).parts.at(-1) ?? '';
    if (Buffer.byteLength(name) > NAME_BYTES_MAX) return wasi.ERRNO_NAMETOOLONG;
    if (!this.#files.reserveEntry()) return wasi.ERRNO_NOSPC;
    this.#files.noteRemoved();
    return super.path_link(path, inode, allowDirectory);
  }

  override path_unlink(path: string): { ret: number; inode_obj: Inode | null } {
    this.#files.noteRemoved();
    return super.path_unlink(path);
  }

  override path_unlink_file(path: string): number {
    this.#files.noteRemoved();
    return super.path_unlink_file(path);
  }

  override path_remove_directory(path: string): number {
    this.#files.noteRemoved();
    return super.path_remove_directory(path);
  }
}

/** A host directory under `name`, read-only, in byte order of its names. Links and special files are left out. */
export function openReadOnly(name: string, hostDirectory: string, transfer: Transfer): Fd {
  let entries = 0;
  const read = (directory: string, depth: number): Map<string, Inode> => {
    const contents = new Map<string, Inode>();
    for (const child of readdirSync(directory).sort()) {
      const hostPath = join(directory, child);
      const status = lstatSync(hostPath);
      if (++entries > ENTRIES_MAX || depth > DEPTH_MAX) {
        throw new MoltError(
          'job/impossible',
          `${name} must have at most ${ENTRIES_MAX} entries in ${DEPTH_MAX} levels; pack them into fewer files`,
          { directory: name },
        );
      }
      if (status.isDirectory()) contents.set(child, new ReadOnlyDirectory(read(hostPath, depth + 1)));
      else if (status.isFile()) contents.set(child, new ReadOnlyFile(hostPath, status.size, transfer));
    }
    return contents;
  };
  return new OpenReadOnlyDirectory(new ReadOnlyDirectory(read(hostDirectory, 1)), name);
}

/** Small read-only files that are in memory alone. */
export function openInMemory(name: string, files: ReadonlyMap<string, Uint8Array>): Fd {
  const contents = new Map<string, Inode>();
  for (const [child, bytes] of files) contents.set(child, new File(bytes, { readonly: true }));
  return new OpenReadOnlyDirectory(new ReadOnlyDirectory(contents), name);
}

/** The writable trees of one run: `/out` and `/tmp` share its quota and its scratch directory. */
export class WritableFiles {
  readonly #scratch: string;
  readonly #bytesMax: number;
  readonly #transfer: Transfer;
  readonly #trees = new Map<string, WritableDirectory>();
  readonly #open = new Set<WritableFile>();
  #bytes = 0;
  #created = 0;
  #entries = 0;
  /** Names were removed since the last sweep, so that it may free something. */
  #removed = false;
  /** The quota turned a write down. */
  refused = false;

  constructor(scratch: string, bytesMax: number, transfer: Transfer) {
    mkdirSync(scratch);
    this.#scratch = scratch;
    this.#bytesMax = bytesMax;
    this.#transfer = transfer;
  }

  preopen(name: string): Fd {
    const tree = new WritableDirectory(this);
    this.#trees.set(name, tree);
    return new OpenWritableDirectory(tree, this, name);
  }

  get transfer(): Transfer {
    return this.#transfer;
  }

  /** A new empty file, or undefined when there are too many. */
  create(): WritableFile | undefined {
    if (!this.reserveEntry()) return undefined;
    const hostPath = join(this.#scratch, String(this.#created++));
    closeSync(openSync(hostPath, 'wx', 0o600));
    return new WritableFile(this, hostPath);
  }

  reserveEntry(): boolean {
    if (this.#entries >= ENTRIES_MAX) this.#sweep();
    if (this.#entries >= ENTRIES_MAX) return false;
    this.#entries++;
    return true;
  }

  /** Takes (or gives back) bytes of the quota. */
  reserve(bytes: number): boolean {
    if (this.#bytes + bytes > this.#bytesMax) this.#sweep();
    if (this.#bytes + bytes > this.#bytesMax) {
      this.refused = true;
      return false;
    }
    this.#bytes += bytes;
    return true;
  }

  noteRemoved(): void {
    this.#removed = true;
  }

  opened(file: WritableFile): void {
    this.#open.add(file);
  }

  closed(file: WritableFile): void {
    this.#open.delete(file);
    this.#removed = true;
  }

  /** Frees files that no name and no descriptor leads to any more. */
  #sweep(): void {
    if (!this.#removed) return;
    this.#removed = false;
    const alive = new Set<Inode>(this.#open);
    let entries = this.#open.size;
    const walk = (directory: Directory): void => {
      for (const inode of directory.contents.values()) {
        entries++;
        if (alive.has(inode)) continue;
        alive.add(inode);
        if (inode instanceof Directory) walk(inode);
      }
    };
    for (const tree of this.#trees.values()) walk(tree);
    const paths = new Set<string>();
    this.#bytes = 0;
    this.#entries = entries;
    for (const inode of alive) {
      if (!(inode instanceof WritableFile)) continue;
      this.#bytes += inode.size;
      paths.add(inode.hostPath);
    }
    for (const name of readdirSync(this.#scratch)) {
      if (!paths.has(join(this.#scratch, name))) rmSync(join(this.#scratch, name));
    }
  }

  /**
   * Moves the files of tree `name` to `target` and deletes everything else. Throws `job/output-too-large` when what is
   * there cannot be placed within the quota, the depth or the host's path length.
   */
  collect(name: string, target: string): void {
    const moved = new Map<Inode, string>();
    let bytes = 0;
    const place = (directory: Directory, hostDirectory: string, depth: number): void => {
      if (depth > DEPTH_MAX) throw tooLarge(`more than ${DEPTH_MAX} levels of directories`);
      for (const [child, inode] of directory.contents) {
        const hostPath = join(hostDirectory, child);
        if (inode instanceof Directory) {
          mkdirSync(hostPath);
          place(inode, hostPath, depth + 1);
        } else if (inode instanceof WritableFile) {
          bytes += inode.size;
          if (bytes > this.#bytesMax) throw tooLarge('files with several names that exceed the disk limit when copied');
          const source = moved.get(inode);
          if (source === undefined) renameSync(inode.hostPath, hostPath);
          else copyFileSync(source, hostPath, constants.COPYFILE_EXCL);
          moved.set(inode, hostPath);
        }
      }
    };
    const tree = this.#trees.get(name);
    try {
      if (tree !== undefined) place(tree, target, 1);
    } catch (error) {
      if (error instanceof MoltError) throw error;
      throw tooLarge('a name or path that this machine cannot hold', error);
    } finally {
      rmSync(this.#scratch, { recursive: true, force: true });
    }
  }
}

function tooLarge(what: string, cause?: unknown): MoltError {
  return new MoltError(
    'job/output-too-large',
    `the outputs cannot be collected: they have ${what}`,
    { what },
    { cause },
  );
}

/** A file of the guest; its contents lie in a numbered host file. */
class WritableFile extends Inode {
  readonly files: WritableFiles;
  readonly hostPath: string;
  size: number = 0;

  constructor(files: WritableFiles, hostPath: string) {
    super();
    this.files = files;
    this.hostPath = hostPath;
  }

  path_open(oflags: number, _rights: bigint, flags: number): { ret: number; fd_obj: Fd } {
    const open = new OpenWritableFile(this, (flags & wasi.FDFLAGS_APPEND) !== 0);
    if ((oflags & wasi.OFLAGS_TRUNC) !== 0) open.fd_filestat_set_size(0n);
    return { ret: wasi.ERRNO_SUCCESS, fd_obj: open };
  }

  stat(): wasi.Filestat {
    return new wasi.Filestat(this.ino, wasi.FILETYPE_REGULAR_FILE, BigInt(this.size));
  }
}

class OpenWritableFile extends OpenHostFile {
  readonly #file: WritableFile;
  readonly #append: boolean;

  constructor(file: WritableFile, append: boolean) {
    super(openSync(file.hostPath, constants.O_RDWR | constants.O_NOFOLLOW), file.files.transfer);
    this.#file = file;
    this.#append = append;
    file.files.opened(file);
  }

  size(): number {
    return this.#file.size;
  }

  inode(): Inode {
    return this.#file;
  }

  override fd_close(): number {
    this.#file.files.closed(this.#file);
    return super.fd_close();
  }

  override fd_allocate(offset: bigint, length: bigint): number {
    const size = offset + length;
    return size > BigInt(this.#file.size) ? this.fd_filestat_set_size(size) : wasi.ERRNO_SUCCESS;
  }

  override fd_filestat_set_size(size: bigint): number {
    if (size < 0n || size > BigInt(Number.MAX_SAFE_INTEGER)) return wasi.ERRNO_FBIG;
    if (!this.#file.files.reserve(Number(size) - this.#file.size)) return wasi.ERRNO_NOSPC;
    ftruncateSync(this.handle, Number(size));
    this.#file.size = Number(size);
    return wasi.ERRNO_SUCCESS;
  }

  override fd_write(data: Uint8Array): { ret: number; nwritten: number } {
    if (this.#append) this.position = BigInt(this.#file.size);
    const written = this.fd_pwrite(data, this.position);
    this.position += BigInt(written.nwritten);
    return written;
  }

  override fd_pwrite(data: Uint8Array, offset: bigint): { ret: number; nwritten: number } {
    const bytes = data.length > TRANSFER_BYTES_MAX ? data.subarray(0, TRANSFER_BYTES_MAX) : data;
    const end = Number(offset) + bytes.length;
    const growth = Math.max(0, end - this.#file.size);
    if (!this.#file.files.reserve(growth)) return { ret: wasi.ERRNO_NOSPC, nwritten: 0 };
    let written = 0;
    while (written < bytes.length) {
      written += writeSync(this.handle, bytes, written, bytes.length - written, Number(offset) + written);
    }
    this.#file.size = Math.max(this.#file.size, end);
    this.transfer.bytes += bytes.length;
    return { ret: wasi.ERRNO_SUCCESS, nwritten: bytes.length };
  }
}

class WritableDirectory extends Directory {
  readonly #files: WritableFiles;

  constructor(files: WritableFiles) {
    super(new Map());
    this.#files = files;
  }

  override create_entry_for_path(path: string, isDirectory: boolean): { ret: number; entry: Inode | null } {
    const { ret, parent_entry, filename, entry } = this.get_parent_dir_and_entry_for_path(splitPath(path), true);
    if (parent_entry === null || filename === null) return { ret, entry: null };
    if (entry !== null) return { ret: wasi.ERRNO_EXIST, entry: null };
    if (Buffer.byteLength(filename) > NAME_BYTES_MAX) return { ret: wasi.ERRNO_NAMETOOLONG, entry: null };
    const created = isDirectory ? this.#directory() : this.#files.create();
    if (created === undefined) return { ret: wasi.ERRNO_NOSPC, entry: null };
    parent_entry.contents.set(filename, created);
    return { ret: wasi.ERRNO_SUCCESS, entry: created };
  }

  #directory(): WritableDirectory | undefined {
    return this.#files.reserveEntry() ? new WritableDirectory(this.#files) : undefined;
  }

  override path_open(): { ret: number; fd_obj: OpenDirectory } {
    return { ret: wasi.ERRNO_SUCCESS, fd_obj: new OpenWritableDirectory(this, this.#files) };
  }
}
