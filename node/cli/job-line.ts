/**
 * Job events and results as JSON lines: what `molt run --json` prints, and what the demo reads back.
 *
 * Amounts are decimal strings of base units, so that no reader rounds them; log bytes become text. Everything else
 * keeps the names of sdk/progress.ts.
 */
import type { JobEvent, JobResult, ReplicaOutcome } from '../../sdk/progress.ts';

type Json<Value> = Value extends string | number | boolean | null | undefined
  ? Value
  : Value extends bigint
    ? string
    : Value extends readonly (infer Item)[]
      ? readonly Json<Item>[]
      : { readonly [Key in keyof Value]: Json<Value[Key]> };

type LogEvent = Extract<JobEvent, { type: 'log' }>;

export type LogLine = Omit<LogEvent, 'bytes'> & { readonly text: string };
export type EventLine = Json<Exclude<JobEvent, LogEvent>> | LogLine;

/** The end of a successful run. Standard output and error were told in log lines. */
export type ResultLine = { readonly type: 'result' } & Json<
  Omit<JobResult, 'proof' | 'stdout' | 'stderr' | 'replicas'>
> & {
    /** Of a job with replicas; their proofs are beside the other one, as `proof-<rank>.json`. */
    readonly replicas?: readonly Json<Omit<ReplicaOutcome, 'proof'>>[];
    /** Where the proof was written. */
    readonly proofFile: string;
  };

export type JobLine = EventLine | ResultLine;

/** Turns events into lines. Keeps characters whole that a log chunk cuts in two: one converter per job. */
export function createLineWriter(): (event: JobEvent) => EventLine {
  const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };
  return (event) => {
    if (event.type !== 'log') return plain(event) as EventLine;
    const text = decoders[event.stream].decode(event.bytes, { stream: true });
    return { type: 'log', stream: event.stream, atMs: event.atMs, text };
  };
}

export function resultLine(result: JobResult, proofFile: string): ResultLine {
  const { proof: _proof, stdout: _stdout, stderr: _stderr, replicas, ...rest } = result;
  const others = replicas === undefined ? {} : { replicas: replicaLines(replicas) };
  return { type: 'result', ...(plain(rest) as Json<typeof rest>), ...others, proofFile };
}

/** Their proofs are files of their own. */
export function replicaLines(replicas: readonly ReplicaOutcome[]): NonNullable<ResultLine['replicas']> {
  return replicas.map(({ proof: _proof, ...replica }) => plain(replica) as Json<typeof replica>);
}

/** JSON text in which amounts are decimal strings. */
export function toJson(value: unknown): string {
  return JSON.stringify(value, (_key, each: unknown) => (typeof each === 'bigint' ? each.toString() : each));
}

function plain(value: unknown): unknown {
  return JSON.parse(toJson(value));
}
