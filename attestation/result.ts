/**
 * What two runs of one job have in common, as one digest: equal for equal results, whoever ran it and however long it took.
 *
 * A provider's clock, usage, price and standard error are left out; two honest runs differ in them.
 */
import type { Comparator } from '../protocol/job-spec.ts';
import { sha256 } from './log-tree.ts';
import type { ProofStatement } from './statement.ts';
import { hex } from './transcript.ts';

/**
 * SHA-256, 64 hex digits, over the exit, every output by name and CID and, where the comparator wants it, what the program
 * printed to standard output (`stdoutSha256`, hex). The bytes are in protocol/SPEC.md, "Replicas".
 */
export function resultDigest(
  { exit, outputs }: Pick<ProofStatement, 'exit' | 'outputs'>,
  comparator: Comparator,
  stdoutSha256: string,
): string {
  const named = outputs.map(({ name, cid }) => [name, cid]).sort(([a = ''], [b = '']) => (a < b ? -1 : Number(a > b)));
  const printed = comparator === 'exact' ? stdoutSha256 : null;
  const text = JSON.stringify([exit.reason, exit.exitCode ?? null, named, printed]);
  return hex(sha256(`molt/1/result\n${text}`));
}
