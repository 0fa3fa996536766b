/** A proof in rows for people, in the order in which they ask: what, who, how it ended, what it cost, what it made. */
import { formatBytes, formatMolt } from '../protocol/units.ts';
import type { Proof } from './proof.ts';

export interface ProofRow {
  readonly label: string;
  readonly value: string;
}

export function describeProof(proof: Proof): readonly ProofRow[] {
  const { exit, usage, logs, metering } = proof;
  const code = exit.exitCode === undefined ? '' : ` with code ${exit.exitCode}`;
  const isSaid = exit.detail === '' || exit.detail === `exit code ${exit.exitCode}`;
  const fuel = usage.fuel === undefined ? '' : `, ${usage.fuel} instructions`;
  return [
    row('proof', proof.digest),
    row('network', proof.network),
    row('lease', `${proof.lease}, attempt ${proof.attempt}`),
    row('spec digest', proof.specDigest),
    row('buyer', proof.buyer),
    row('provider', proof.provider),
    row('operator', `${proof.operator} (signed this)`),
    row('runtime', `${proof.runtime.kind} ${proof.runtime.version}`),
    row('image', proof.image.reference),
    ...(proof.gpus ?? []).map((id) => row('gpu', id)),
    ...proof.inputs.map(({ path, cid }) => row(`input ${path}`, cid)),
    row('ended', `${exit.reason}${code}${isSaid ? '' : `: ${exit.detail}`}`),
    row('started', new Date(proof.startedAtMs).toISOString()),
    row('finished', new Date(proof.finishedAtMs).toISOString()),
    row('billed', `${proof.billedMs / 1000} s at ${formatMolt(proof.pricePerSecond)} a second`),
    row('claimed', `${formatMolt(proof.claimed)} of ${formatMolt(proof.locked)} locked`),
    row('usage', `${usage.cpuMs / 1000} s of CPU, ${formatBytes(usage.memoryPeakBytes)} of memory at most${fuel}`),
    row('log', `${formatBytes(logs.stdoutBytes + logs.stderrBytes)} in ${logs.leaves} chunks, root ${logs.root}`),
    row('metering', `${metering.samples} samples, head ${metering.head}`),
    ...proof.outputs.map(({ name, sizeBytes, sha256, cid }) =>
      row(`output ${name}`, `${formatBytes(sizeBytes)}, sha256 ${sha256}, ${cid}`),
    ),
    row('software', proof.software),
  ];
}

function row(label: string, value: string): ProofRow {
  return { label, value };
}
