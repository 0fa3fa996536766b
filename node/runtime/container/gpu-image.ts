/**
 * The image in which a GPU is looked for: a shell and the C library of this machine, and nothing of any vendor.
 *
 * The engine injects the vendor's own tool together with the device, so that the tool runs there proves that driver,
 * libraries and device go together. That tool is made for this machine's C library, which is therefore what the image
 * has. It is named by its contents and made again when the machine's libraries change.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { access, readFile, realpath } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { promisify } from 'node:util';

import { pack } from 'tar-stream';

import { type Engine, engineCall, isMissing } from './engine.ts';

const execute = promisify(execFile);
const TOOL_MS_MAX = 5_000;
const SHELL = '/bin/sh';
/** What a driver's management library asks for beyond what its tool does; all parts of one C library. */
const LIBRARIES = ['libc.so.6', 'libm.so.6', 'libdl.so.2', 'libpthread.so.0', 'librt.so.1'] as const;
/** Where engines put a driver's libraries, by the layout that they take the image for. */
export const LIBRARY_PATH = [
  '/usr/lib64',
  '/usr/lib/x86_64-linux-gnu',
  '/usr/lib/aarch64-linux-gnu',
  '/usr/lib',
  '/lib64',
  '/lib/x86_64-linux-gnu',
  '/lib/aarch64-linux-gnu',
].join(':');

/** Makes the image unless the engine has it, and returns its name. Throws `runtime/engine-failed`. */
export async function ensureGpuImage(engine: Engine): Promise<string> {
  const files = await filesOfMachine();
  const hash = createHash('sha256');
  for (const [path, bytes] of files) hash.update(`${path}\0${bytes.length}\0`).update(bytes);
  const tag = hash.digest('hex').slice(0, 16);
  const name = `molt-gpu-check:${tag}`;
  try {
    await engine.getImage(name).inspect();
    return name;
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
  const archive = pack();
  for (const [path, bytes] of files) archive.entry({ name: path.slice(1), mode: 0o755 }, bytes);
  archive.finalize();
  await engineCall('importing the image that GPUs are looked for in', async () => {
    const answer = await engine.importImage(Readable.from(archive), { repo: 'molt-gpu-check', tag });
    for await (const _ of answer as unknown as Readable) continue;
  });
  return name;
}

/** Path in the image → contents: the shell, and the libraries that it and the vendors' tools are linked to. */
async function filesOfMachine(): Promise<ReadonlyMap<string, Buffer>> {
  const needed = parseLinked(await linkedTo(await realpath(SHELL)));
  const library = needed.find((path) => path.includes('/libc.so.'));
  const more = library === undefined ? [] : LIBRARIES.map((name) => join(dirname(library), name));
  const files = new Map<string, Buffer>();
  for (const path of [SHELL, ...needed, ...more]) {
    if (
      await access(path).then(
        () => true,
        () => false,
      )
    )
      files.set(path, await readFile(path));
  }
  return files;
}

async function linkedTo(program: string): Promise<string> {
  const env = { LC_ALL: 'C', PATH: '/usr/sbin:/usr/bin:/sbin:/bin' };
  const { stdout } = await execute('ldd', [program], { timeout: TOOL_MS_MAX, env }).catch(() => ({ stdout: '' }));
  return stdout;
}

/** The answer of ldd: "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)", and the loader by its own path. */
export function parseLinked(text: string): readonly string[] {
  return text.split('\n').flatMap((line) => /(?:=>\s*|^\s*)(\/\S+)\s+\(0x/.exec(line)?.[1] ?? []);
}
