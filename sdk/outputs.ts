/** The outputs that a proof names, brought into the buyer's folder and held against it. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import type { Proof } from '../attestation/index.ts';
import type { Address } from '../protocol/address.ts';
import type { VerifiedProof } from '../protocol/brands.ts';
import { MoltError } from '../protocol/errors.ts';
import { LIMITS } from '../protocol/limits.ts';
import type { Buyer } from './buyer.ts';
import type { JobOutput } from './progress.ts';

export interface OutputsSource {
  /** The provider's node, which has them. */
  readonly node: Address;
  /** What the job may have written. */
  readonly diskBytes: number;
  /** Where each is written under its name; undefined: nowhere. */
  readonly directory: string | undefined;
}

/** Only what the proof names where no folder is given. Throws `artifact/…`, `mesh/…`, `proof/wrong-binding`. */
export async function takeOutputs(
  buyer: Buyer,
  proof: VerifiedProof<Proof>,
  { node, diskBytes, directory }: OutputsSource,
): Promise<JobOutput[]> {
  const outputs: JobOutput[] = [];
  for (const { name, cid, sha256, sizeBytes } of proof.outputs) {
    if (directory === undefined) {
      outputs.push({ name, cid, sha256, sizeBytes });
      continue;
    }
    const { mesh, artifacts } = buyer;
    const limit = diskBytes + LIMITS.artifactBlockBytes;
    await artifacts.fetch(mesh, node, cid, { maxBytes: limit, signal: buyer.closing });
    const path = join(directory, name);
    await mkdir(dirname(path), { recursive: true });
    await rm(path, { recursive: true, force: true });
    await artifacts.export(cid, path, { maxBytes: limit, maxEntries: LIMITS.artifactEntries });
    outputs.push({ name, cid, sha256, sizeBytes, path });
  }
  for (const output of outputs) await assertContent(output);
  return outputs;
}

/** The proof names a file by CID and by SHA-256; both must be of the same bytes. A folder has only the CID. */
async function assertContent(output: JobOutput): Promise<void> {
  if (output.path === undefined) return;
  const hash = createHash('sha256');
  try {
    for await (const chunk of createReadStream(output.path)) hash.update(chunk as Uint8Array);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EISDIR') return;
    throw error;
  }
  if (hash.digest('hex') !== output.sha256) {
    throw new MoltError(
      'proof/wrong-binding',
      `the proof gives output ${output.name} another SHA-256 than its content has; the lease is not settled`,
    );
  }
}
