/**
 * What a proof says: an in-toto Statement v1 whose subjects are the outputs and whose predicate is ours.
 *
 * Declared once: the schema gives the type a provider writes (`ProofFacts`), the type a reader gets (`ProofStatement`),
 * all bounds, and the one encoding. That encoding is JSON without white space, members in the order below, absent ones
 * left out; amounts are decimal strings of base units. A payload that decodes but encodes differently is refused, so
 * no two readers can read one proof differently. SPEC.md, "Proof".
 */
import { CID } from 'multiformats/cid';
import { z } from 'zod';

import { type Address, parseAddress } from '../protocol/address.ts';
import { LIMITS } from '../protocol/limits.ts';
import { RUNTIMES } from '../protocol/messages.ts';
import { type BaseUnits, U64_MAX, baseUnits } from '../protocol/units.ts';
import { firstIssue, malformedProof, parseJson } from './dsse.ts';

const STATEMENT_TYPE = 'https://in-toto.io/Statement/v1';
export const PREDICATE_TYPE = 'https://molt.network/execution-proof/v1';

/**
 * Why the run ended. All but `engine-failed`, `output-missing` and `never-ready` (its health check was missed too long) are
 * told by the runtime as they happened to the job.
 */
export const EXIT_REASONS = [
  'exited',
  'signalled',
  'out-of-memory',
  'out-of-fuel',
  'stack-overflow',
  'timed-out',
  'cancelled',
  'output-too-large',
  'output-missing',
  'crashed',
  'engine-failed',
  'never-ready',
] as const;

// Each `abort` keeps the check after it from seeing what the check before it refused.
const address = z
  .string()
  .max(44, { abort: true })
  .refine(isAddress, 'must be an address, base58 of 32 bytes')
  .transform((text) => text as Address);
const digest = z.string().regex(/^[0-9a-f]{64}$/, 'must be 64 hex digits');
const cid = z.string().max(120, { abort: true }).refine(isCid, 'must be a CID in its canonical form');
/** Without control characters: these are shown on terminals. */
const text = (charactersMax: number) =>
  z
    .string()
    .max(charactersMax, { abort: true })
    .regex(/^\P{Cc}*$/u, 'must not hold control characters');
const whole = z.int().min(0);
const unixMs = z.int().min(0).max(8_640_000_000_000_000);
const u64Text = z
  .string()
  .regex(/^(?:0|[1-9]\d{0,19})$/, { error: 'must be a decimal number', abort: true })
  .refine((digits) => BigInt(digits) <= U64_MAX, 'must fit into 64 bits');
const amount = u64Text.transform((digits): BaseUnits => baseUnits(BigInt(digits)));

/** The predicate, as untrusted JSON is checked against it. scripts/spec.ts prints it. */
export const predicateSchema = z.strictObject({
  network: address,
  lease: address,
  /** Binds quote and spec: protocol/job-spec.ts, `termsDigest`. */
  termsDigest: digest,
  specDigest: digest,
  budget: address,
  /** The delegate that opened the lease. */
  buyer: address,
  /** Provider account. */
  provider: address,
  /** Node key of the provider, and of this signature. */
  operator: address,
  attempt: z.int().min(0).max(65_535),
  runtime: z.strictObject({ kind: z.enum(RUNTIMES), version: text(100) }),
  image: z.strictObject({
    /** As in the spec. */
    reference: text(300),
    /** Manifest of the platform that ran, where the reference names an index of several. */
    digest: z
      .string()
      .regex(/^sha256:[0-9a-f]{64}$/)
      .optional(),
  }),
  /** Devices that the job was given, as their vendor names them; absent when there were none. Self-reported. */
  gpus: z.array(text(120)).min(1).max(LIMITS.gpusPerJob).optional(),
  /** `url`: where the provider fetched it, without its query, when the spec names a URL instead of a CID. */
  inputs: z.array(z.strictObject({ path: text(255), cid, url: text(2_048).optional() })).max(LIMITS.inputs),
  /** `sha256` is of the file's bytes; for a folder, of its UnixFS root block. */
  outputs: z
    .array(z.strictObject({ name: text(64), path: text(255), cid, sha256: digest, sizeBytes: whole }))
    .max(LIMITS.outputs),
  exit: z.strictObject({
    reason: z.string().pipe(z.enum(EXIT_REASONS)),
    exitCode: z
      .int()
      .min(-(2 ** 31))
      .max(2 ** 32 - 1)
      .optional(),
    detail: text(LIMITS.refusalCharacters),
  }),
  /** Wall clock of the provider. */
  startedAtMs: unixMs,
  finishedAtMs: unixMs,
  /** First instruction to exit. */
  billedMs: whole,
  pricePerSecond: amount,
  locked: amount,
  claimed: amount,
  usage: z.strictObject({ cpuMs: whole, memoryPeakBytes: whole, fuel: u64Text.optional() }),
  logs: z.strictObject({ root: digest, leaves: whole, stdoutBytes: whole, stderrBytes: whole, stdoutSha256: digest }),
  metering: z.strictObject({ head: digest, samples: whole }),
  software: text(100),
  /** "Not before": the chain as it was at the start. */
  chain: z.strictObject({ slot: u64Text, blockhash: text(44) }).optional(),
});

/** What a provider states: amounts as decimal strings of base units, digests as 64 hex digits. */
export type ProofFacts = z.input<typeof predicateSchema>;
/** What a reader gets: the same with amounts as bigints. */
export type ProofStatement = z.output<typeof predicateSchema>;

/** Facts → the canonical payload. Throws `proof/malformed` naming the first fact that breaks the schema. */
export function encodeStatement(facts: ProofFacts): Uint8Array {
  return encodeCanonical(parsePredicate(facts));
}

/** Payload → what it says. Throws `proof/malformed`, also when the payload is not the canonical encoding. */
export function decodeStatement(payload: Uint8Array): ProofStatement {
  const statement = parseJson(payload, 'payload');
  const envelope = statementSchema.safeParse(statement);
  if (!envelope.success) throw malformedProof(`the payload is not our statement: ${firstIssue(envelope.error)}`);
  const predicate = parsePredicate(envelope.data.predicate);
  if (!Buffer.from(encodeCanonical(predicate)).equals(payload)) {
    throw malformedProof('the payload is not in its canonical encoding, or its subjects are not its outputs');
  }
  return predicate;
}

const statementSchema = z.object({
  _type: z.literal(STATEMENT_TYPE),
  predicateType: z.literal(PREDICATE_TYPE),
  predicate: z.unknown(),
});

function parsePredicate(facts: unknown): ProofStatement {
  const result = predicateSchema.safeParse(facts);
  if (!result.success) throw malformedProof(`the predicate is refused: ${firstIssue(result.error)}`);
  assertUnique(result.data.outputs.map(({ name }) => name));
  assertUnique(result.data.inputs.map(({ path }) => path));
  return result.data;
}

function encodeCanonical(predicate: ProofStatement): Uint8Array {
  const { outputs, logs } = predicate;
  const statement = {
    _type: STATEMENT_TYPE,
    subject: [
      ...outputs.map(({ name, sha256 }) => ({ name, digest: { sha256 } })),
      // A statement must have a subject, and not every job has outputs; no output can have a name with a colon.
      { name: 'molt:logs', digest: { rfc6962Sha256: logs.root } },
    ],
    predicateType: PREDICATE_TYPE,
    predicate,
  };
  const json = JSON.stringify(statement, (_key, value: unknown) =>
    typeof value === 'bigint' ? value.toString() : value,
  );
  return new Uint8Array(Buffer.from(json, 'utf8'));
}

function assertUnique(names: readonly string[]): void {
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw malformedProof(`it names "${twice}" twice`);
}

function isAddress(candidate: string): boolean {
  try {
    return parseAddress(candidate) === candidate;
  } catch {
    return false;
  }
}

function isCid(candidate: string): boolean {
  try {
    return CID.parse(candidate).toString() === candidate;
  } catch {
    return false;
  }
}
