/**
 * The declared outputs of a run, taken from its folder into the store.
 *
 * The folder was written by a stranger: no link on the way to an output or in it is followed, what is taken is bounded by
 * the disk that the job asked for (sparse files and hard links count in full), and an output that cannot be taken is the
 * job's fault, told with its reason, never the end of the provider's own work.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { lstat } from 'node:fs/promises';
import { join } from 'node:path';

import { CID } from 'multiformats/cid';

import { MoltError, hasCode } from '../../protocol/errors.ts';
import type { JobSpec } from '../../protocol/job-spec.ts';
import { isOutputPattern, matchesOutputPattern } from '../../protocol/output-pattern.ts';
import type { AddOptions, Artifacts } from '../mesh/index.ts';

export interface CollectedOutputs {
  readonly outputs: readonly {
    readonly name: string;
    readonly path: string;
    readonly cid: string;
    readonly sha256: string;
    readonly sizeBytes: number;
  }[];
  /** Declared paths that were not written, or not in a form that can be taken, each with the reason. */
  readonly missing: readonly string[];
  /** Set when the outputs exceed the job's disk. */
  readonly tooLarge: string | undefined;
}

/**
 * Imports the declared outputs below `directory`: a file, a folder, or for a pattern a folder of all files that match, under
 * their paths. Throws `job/disk-full` and the signal's reason.
 */
export async function collectOutputs(
  artifacts: Artifacts,
  spec: JobSpec,
  directory: string,
  signal: AbortSignal,
): Promise<CollectedOutputs> {
  const outputs: CollectedOutputs['outputs'][number][] = [];
  const missing: string[] = [];
  let leftBytes = spec.resources.diskBytes;
  for (const { name, path } of spec.outputs) {
    try {
      const taken = await take(artifacts, directory, path, { maxBytes: leftBytes, signal });
      leftBytes -= taken.sizeBytes;
      outputs.push({ name, path, ...taken });
    } catch (error) {
      if (hasCode(error, 'artifact/too-large')) {
        const tooLarge = `the output ${path} is too large for the ${spec.resources.diskBytes} bytes of disk that the job asked for: ${error.message}`;
        return { outputs, missing, tooLarge };
      }
      if (!hasCode(error, 'job/output-missing', 'artifact/unsafe-path')) throw error;
      missing.push(error.code === 'job/output-missing' ? path : `${path} (${error.message})`);
    }
  }
  return { outputs, missing, tooLarge: undefined };
}

async function take(
  artifacts: Artifacts,
  directory: string,
  path: string,
  options: AddOptions,
): Promise<{ readonly cid: string; readonly sha256: string; readonly sizeBytes: number }> {
  if (isOutputPattern(path)) {
    const include = (file: string): boolean => matchesOutputPattern(path, file);
    const { cid, sizeBytes, entries } = await artifacts.add(directory, { ...options, include });
    if (entries === 0) throw notWritten(path);
    return { cid, sizeBytes, sha256: sha256OfCid(cid) };
  }
  const { source, isFile } = await find(directory, path);
  const { cid, sizeBytes } = await artifacts.add(source, options);
  return { cid, sizeBytes, sha256: isFile ? await sha256OfFile(source) : sha256OfCid(cid) };
}

/** Every directory on the way must be one, not a link: a link could lead to any file of this machine. */
async function find(directory: string, path: string): Promise<{ readonly source: string; readonly isFile: boolean }> {
  let source = directory;
  const parts = path.split('/');
  for (const [index, part] of parts.entries()) {
    source = join(source, part);
    const status = await lstat(source).catch(() => undefined);
    if (status?.isDirectory() === true) continue;
    if (status?.isFile() === true && index === parts.length - 1) return { source, isFile: true };
    throw notWritten(path);
  }
  return { source, isFile: false };
}

function notWritten(path: string): MoltError {
  return new MoltError('job/output-missing', `the program did not write ${path}`);
}

/** 64 hex digits. */
export async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Uint8Array);
  return hash.digest('hex');
}

/** A folder is named by the SHA-256 of its root block. */
function sha256OfCid(cid: string): string {
  return Buffer.from(CID.parse(cid).multihash.digest).toString('hex');
}
