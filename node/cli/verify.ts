/** `molt verify`: reads a proof from a file, checks it without asking anybody, and says what it does not show. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';

import { describeProof, verifyProof } from '../../attestation/index.ts';
import { type Address, parseAddress } from '../../protocol/address.ts';
import { MoltError } from '../../protocol/errors.ts';
import { encodeJobSpec, specDigest } from '../../protocol/job-spec.ts';
import { LIMITS } from '../../protocol/limits.ts';
import { type CommandContext, printResult, readSpec } from './command.ts';
import { harmless } from './terminal.ts';

/** What a receipt does not show; printed each time, so that nobody takes it for more than it is. */
export const NOT_SHOWN = [
  'that the outputs are right: this is a receipt by the provider (tier V0), nobody computed them again',
  'that the lease was paid or exists: ask the chain for that',
  'on what hardware it ran: the provider says so itself (tier A0)',
  'that input, output or logs stayed secret: the provider has seen them',
] as const;

interface Expected {
  lease?: Address;
  operator?: Address;
  specDigest?: string;
}

export async function verifyCommand(
  context: CommandContext,
  flags: Readonly<Record<string, unknown>>,
  words: readonly string[],
): Promise<void> {
  const [path = ''] = words;
  const expected: Expected = {};
  const checked = ['the signature, over exactly these bytes', 'that usage, billed time and claimed amount agree'];
  if (typeof flags['lease'] === 'string') {
    expected.lease = parseAddress(flags['lease']);
    checked.push('that it speaks of the given lease');
  }
  if (typeof flags['operator'] === 'string') {
    expected.operator = parseAddress(flags['operator']);
    checked.push('that the given node key signed it');
  }
  if (typeof flags['spec'] === 'string') {
    const spec = await readSpec(flags['spec']);
    expected.specDigest = Buffer.from(specDigest(encodeJobSpec(spec))).toString('hex');
    checked.push('that it speaks of the given job specification');
  }
  const proof = verifyProof(await readBounded(path, LIMITS.proofBytes), { expected });
  if (typeof flags['outputs'] === 'string') {
    const files = await assertOutputs(proof.outputs, flags['outputs']);
    checked.push(
      `that the files ${files.join(', ')} in ${flags['outputs']} are the ones it names (folders are not compared)`,
    );
  }
  const rows = describeProof(proof);
  const { terminal } = context;
  const width = Math.max(...rows.map((row) => row.label.length));
  printResult(context, { valid: true, checked, notShown: NOT_SHOWN, proof }, [
    `${terminal.style('green', '✔')} the proof is good`,
    '',
    ...rows.map((row) => `  ${terminal.style('dim', row.label.padEnd(width))}  ${harmless(row.value)}`),
    '',
    'checked:',
    ...checked.map((text) => `  ${text}`),
    'not shown by it:',
    ...NOT_SHOWN.map((text) => `  ${text}`),
  ]);
}

async function readBounded(path: string, bytesMax: number): Promise<Buffer> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    throw new MoltError('config/usage', `${path} cannot be read: ${(cause as Error).message}`, { path }, { cause });
  }
  if (bytes.length > bytesMax) {
    throw new MoltError(
      'protocol/oversize',
      `${path} has ${bytes.length} bytes, at most ${bytesMax} are expected here; is it the right file?`,
      { path },
    );
  }
  return bytes;
}

async function assertOutputs(
  outputs: readonly { readonly name: string; readonly sha256: string }[],
  directory: string,
): Promise<string[]> {
  const files: string[] = [];
  for (const { name, sha256 } of outputs) {
    const path = join(directory, name);
    const found = await stat(path).catch(() => undefined);
    if (found?.isDirectory() === true) continue;
    const hash = createHash('sha256');
    try {
      await pipeline(createReadStream(path), hash);
    } catch (cause) {
      throw new MoltError('config/usage', `output ${path} cannot be read: ${(cause as Error).message}`, {}, { cause });
    }
    const digest = hash.digest('hex');
    if (digest !== sha256) {
      throw new MoltError(
        'proof/wrong-binding',
        `${path} has sha256 ${digest}, the proof names ${sha256}: the file is not the output of this job`,
        { path },
      );
    }
    files.push(name);
  }
  return files;
}
