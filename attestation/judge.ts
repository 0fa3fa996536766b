/**
 * Who is right in a dispute: a pure function over what the chain knows of the lease and what the two sides have shown, so
 * that every honest verifier comes to the same verdict.
 *
 * The lease on chain names everything by digest: its terms digest is over the accepted quote and the specification, its
 * result digest is that of the proof's payload. So no document has to be trusted, and none can be made up afterwards.
 * Burden of proof: the provider has to show the proof that it claims on; all else is for the buyer to show, who complains.
 * What nobody can show, such as what a container did, is found for the provider. SPEC.md, "Disputes".
 */
import { CID } from 'multiformats/cid';

import { type Address, decodeAddress } from '../protocol/address.ts';
import { verifySignature } from '../protocol/ed25519.ts';
import { parseEnvelope } from '../protocol/envelope.ts';
import { MoltError } from '../protocol/errors.ts';
import {
  type JobSpec,
  comparatorOf,
  decodeJobSpec,
  recordedInputs,
  specDigest,
  storedInputs,
  termsDigest,
} from '../protocol/job-spec.ts';
import { type Message, type Quote, decodeQuote } from '../protocol/messages.ts';
import type { BaseUnits } from '../protocol/units.ts';
import { PAYLOAD_TYPE, openDsse, preAuthenticationEncoding } from './dsse.ts';
import { sha256 } from './log-tree.ts';
import type { Proof } from './proof.ts';
import { hex } from './transcript.ts';
import { verifyProof } from './verify.ts';

/** A disputed lease, as the chain has it. Times are the chain's, Unix ms; digests are 32 bytes. */
export interface DisputedLease {
  readonly network: Address;
  readonly lease: Address;
  readonly budget: Address;
  readonly provider: Address;
  readonly operator: Address;
  readonly delegate: Address;
  readonly termsDigest: Uint8Array;
  readonly resultDigest: Uint8Array;
  readonly claimed: BaseUnits;
  readonly locked: BaseUnits;
  readonly pricePerSecond: BaseUnits;
  readonly openedAtMs: number;
  readonly provenAtMs: number;
}

/** What was shown. Each belongs to the lease: `assertEvidence` said so. Quote and specification come together. */
export interface Evidence {
  /** The signed message. */
  readonly quote?: Uint8Array;
  /** dag-cbor. */
  readonly spec?: Uint8Array;
  /** DSSE JSON. */
  readonly proof?: Uint8Array;
}

/** On what a verdict rests. SPEC.md, "Disputes". */
export type Ground =
  | 'proof-missing'
  | 'proof-invalid'
  | 'claim-differs'
  | 'billed-too-long'
  | 'terms-missing'
  | 'terms-broken'
  | 'started-late'
  | 'not-repeatable'
  | 'content-missing'
  | 'too-costly'
  | 'result-differs'
  | 'result-equal';

/** Whose word was found to be true, and why. */
export interface Verdict {
  readonly side: 'provider' | 'buyer';
  readonly ground: Ground;
  /** One sentence for people. */
  readonly reason: string;
}

/** What has to be run again before anybody can say who is right. */
export interface Rerun {
  readonly spec: JobSpec;
  readonly proof: Proof;
}

/** A verdict; or what to run again; or, while the time for evidence lasts, what is still waited for. */
export type Judgement = { readonly verdict: Verdict } | { readonly rerun: Rerun } | { readonly waitsFor: string };

/** What running the job again came to. */
export interface Observed {
  readonly reason: string;
  readonly exitCode: number | undefined;
  readonly fuel?: bigint;
  /** Of standard output, 64 hex digits. */
  readonly stdoutSha256: string;
  readonly outputs: readonly { readonly name: string; readonly cid: string }[];
  /** Of the runtime, as a proof names it: fuel is counted the same by one version. */
  readonly version: string;
}

/** The chain keeps whole seconds, and a lease is seen open a moment after its transaction. */
const CLOCK_SLACK_MS = 2_000;

/** Endings that the program brought about by itself, and therefore would again. */
const REPEATABLE: ReadonlySet<string> = new Set([
  'exited',
  'out-of-memory',
  'out-of-fuel',
  'stack-overflow',
  'output-too-large',
  'output-missing',
  'crashed',
]);

/**
 * Untrusted documents → those that belong to this lease, the rest is refused: `dispute/evidence-refused`. A proof whose
 * payload the operator did not sign is nobody's, whatever its digest.
 */
export function assertEvidence(of: DisputedLease, { quote, spec, proof }: Evidence): void {
  if ((quote === undefined) !== (spec === undefined)) throw refused('a quote and its specification come together');
  if (quote !== undefined && spec !== undefined) {
    const { id } = parse('quote', () => parseEnvelope('quote', quote, of.network));
    if (!same(termsDigest(id, specDigest(spec)), of.termsDigest))
      throw refused('quote and specification are not those whose digest the lease carries');
  }
  if (proof === undefined) return;
  const { payload, signature } = parse('proof', () => openDsse(proof));
  if (!same(sha256(payload), of.resultDigest)) throw refused('the proof is not the one whose digest was claimed');
  if (!verifySignature(preAuthenticationEncoding(PAYLOAD_TYPE, payload), signature, decodeAddress(of.operator)))
    throw refused(`the proof is not signed by ${of.operator}, the operator of the lease`);
}

/** `isLate`: nothing more is waited for. Evidence that `assertEvidence` has passed. Pure; never throws for it. */
export function judge(of: DisputedLease, evidence: Evidence, isLate: boolean): Judgement {
  if (evidence.proof === undefined) {
    if (!isLate) return { waitsFor: 'the proof' };
    return found('buyer', 'proof-missing', 'nobody has shown the proof whose digest was claimed');
  }
  const own = judgeProof(of, evidence.proof);
  if (own.verdict !== undefined) return own;
  const { proof } = own;
  if (evidence.quote === undefined || evidence.spec === undefined) {
    if (!isLate) return { waitsFor: 'quote and specification' };
    return found('provider', 'terms-missing', 'the buyer has not shown what was agreed, and the proof holds by itself');
  }
  const { quote, spec } = evidence;
  let agreed: { readonly quote: Message<Quote>; readonly spec: JobSpec };
  try {
    agreed = { quote: decodeQuote(parseEnvelope('quote', quote, of.network)), spec: decodeJobSpec(spec) };
  } catch (error) {
    return found('provider', 'terms-missing', `the buyer agreed to terms that nobody can read: ${textOf(error)}`);
  }
  return judgeTerms(proof, { ...agreed, bytes: evidence.proof, digest: hex(specDigest(spec)) });
}

/** The proof beside what the chain knows: of the lease, and of the time that has passed. */
function judgeProof(
  of: DisputedLease,
  envelope: Uint8Array,
): { readonly verdict: Verdict } | { readonly verdict?: never; readonly proof: Proof } {
  let proof: Proof;
  try {
    const { network, lease, budget, provider, operator, delegate: buyer, locked, pricePerSecond } = of;
    const expected = { network, lease, budget, provider, operator, buyer, locked, pricePerSecond };
    proof = verifyProof(envelope, { expected: { ...expected, termsDigest: hex(of.termsDigest) } });
  } catch (error) {
    return found('buyer', 'proof-invalid', textOf(error));
  }
  if (proof.claimed !== of.claimed)
    return found('buyer', 'claim-differs', `${of.claimed} base units were claimed, the proof is of ${proof.claimed}`);
  const openMs = of.provenAtMs - of.openedAtMs;
  if (proof.billedMs <= openMs + CLOCK_SLACK_MS) return { proof };
  return found('buyer', 'billed-too-long', `${proof.billedMs} ms are billed of a lease that was open for ${openMs} ms`);
}

interface Agreed {
  readonly quote: Message<Quote>;
  readonly spec: JobSpec;
  readonly bytes: Uint8Array;
  /** Of the specification. */
  readonly digest: string;
}

/** The proof beside what was promised and ordered. */
function judgeTerms(proof: Proof, { quote, spec, bytes, digest }: Agreed): Judgement {
  const { startByMs } = quote.content;
  try {
    verifyProof(bytes, { expected: { specDigest: digest, image: spec.image, inputs: recordedInputs(spec) } });
  } catch (error) {
    return found('buyer', 'terms-broken', textOf(error));
  }
  if (startByMs !== 0 && proof.startedAtMs > startByMs)
    return found('buyer', 'started-late', `the job began ${proof.startedAtMs - startByMs} ms later than was promised`);
  const why = whyNotRepeatable(spec) ?? whyNotRepeated(proof);
  if (why !== undefined) return found('provider', 'not-repeatable', `${why}, and the documents agree`);
  return { rerun: { spec, proof } };
}

/** Module and inputs by CID, each once: what it takes to run the job again. Empty for one that cannot be. */
export function contentToRepeat(spec: JobSpec): readonly string[] {
  if (whyNotRepeatable(spec) !== undefined) return [];
  return [...new Set([spec.image, ...storedInputs(spec).map(({ cid }) => cid)])];
}

function whyNotRepeatable(spec: JobSpec): string | undefined {
  if (spec.runtime !== 'wasm') return 'what a container did cannot be repeated bit by bit';
  if (spec.secrets.length > 0) return 'the job had secrets, which only its provider was told';
  if (spec.inputs.some((input) => !('cid' in input))) return 'an input came from an address that may change';
  return undefined;
}

function whyNotRepeated({ exit }: Proof): string | undefined {
  return REPEATABLE.has(exit.reason) ? undefined : `the run ended as ${exit.reason}, which the program did not do`;
}

/** The proof beside what a second run came to; undefined where that run says nothing, because it was stopped from outside. */
export function judgeRerun({ proof, spec }: Rerun, observed: Observed): Verdict | undefined {
  if (!REPEATABLE.has(observed.reason)) return undefined;
  const differs = differenceOf(proof, observed, comparatorOf(spec) === 'exact');
  return differs === undefined
    ? verdictOf('provider', 'result-equal', 'run again, the job comes to what the proof says')
    : verdictOf('buyer', 'result-differs', `run again, the job has ${differs}`);
}

/** No verdict could be reached within what this verifier spends: the burden is the buyer's. */
export function notShown(ground: 'content-missing' | 'too-costly', reason: string): Verdict {
  return verdictOf('provider', ground, reason);
}

/** `isExact`: what is printed counts as well. */
function differenceOf(
  { exit, outputs, logs, usage, runtime }: Proof,
  observed: Observed,
  isExact: boolean,
): string | undefined {
  if (observed.reason !== exit.reason || observed.exitCode !== exit.exitCode)
    return `ended as ${ending(observed)}, not as ${ending(exit)}`;
  const stated = new Map(outputs.map(({ name, cid }) => [name, CID.parse(cid).toString()]));
  const other = observed.outputs.find(({ name, cid }) => stated.get(name) !== cid);
  if (other !== undefined) return `the output ${other.name} as ${other.cid}, not ${stated.get(other.name) ?? 'none'}`;
  if (stated.size !== observed.outputs.length) return `${observed.outputs.length} outputs, not ${stated.size}`;
  if (!isExact) return undefined;
  if (logs.stdoutSha256 !== observed.stdoutSha256) return 'printed something else';
  const isCounted = runtime.version === observed.version && usage.fuel !== undefined && observed.fuel !== undefined;
  return isCounted && usage.fuel !== observed.fuel?.toString()
    ? `executed ${observed.fuel} instructions, not ${usage.fuel}`
    : undefined;
}

function ending({ reason, exitCode }: { readonly reason: string; readonly exitCode?: number | undefined }): string {
  return exitCode === undefined ? reason : `${reason} with code ${exitCode}`;
}

function found(side: Verdict['side'], ground: Ground, reason: string): { readonly verdict: Verdict } {
  return { verdict: verdictOf(side, ground, reason) };
}

/** The reason is told to people and may carry what a party wrote: one line, bounded. */
function verdictOf(side: Verdict['side'], ground: Ground, reason: string): Verdict {
  return { side, ground, reason: reason.replaceAll(/\p{Cc}+/gu, ' ').slice(0, 300) };
}

function parse<Value>(what: string, read: () => Value): Value {
  try {
    return read();
  } catch (cause) {
    throw refused(`the ${what} cannot be read: ${textOf(cause)}`, cause);
  }
}

function refused(what: string, cause?: unknown): MoltError {
  return new MoltError('dispute/evidence-refused', `${what}; send what the lease was opened with`, {}, { cause });
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.from(a).equals(b);
}
