/**
 * The cases of a verifier in the journal: what was shown, whether the content is here, and the vote with its salt. Written
 * before the chain or a party hears of it, so that a crash at any step loses neither evidence nor pledge.
 */
import type { Evidence, Ground } from '../../attestation/index.ts';
import type { Side } from '../../chain/index.ts';
import type { Address } from '../../protocol/address.ts';
import type { Journal } from '../journal.ts';

/** A vote that is given, or about to be. */
export interface KeptVote {
  readonly side: Side;
  readonly ground: Ground;
  readonly reason: string;
  /** 32 bytes, nobody else's business before the reveal. */
  readonly salt: Uint8Array;
}

/** One dispute in which this node has a seat. */
export interface Case {
  readonly lease: Address;
  readonly evidence: Evidence;
  /** CIDs of module and inputs, all of which are in the store. */
  readonly content: readonly string[];
  readonly vote?: KeptVote;
}

/** A dispute that is over, as it is remembered. */
export interface PastCase {
  readonly lease: Address;
  readonly side?: Side;
  readonly ground?: Ground;
  readonly reason?: string;
  readonly ending: string;
  /** Wall clock. */
  readonly endedAtMs: number;
}

/** A dispute as its verifier's operator sees it. */
export interface DisputeSummary extends Partial<PastCase> {
  readonly lease: Address;
  /** Of an open one: what was shown so far. */
  readonly shown: readonly ('quote' | 'spec' | 'proof' | 'content')[];
}

/** Open ones first, then the last that ended, newest first. */
export function summariseCases(cases: Cases): readonly DisputeSummary[] {
  const open = cases.list().map(({ lease, evidence, content, vote }) => ({
    lease,
    shown: [
      ...(['quote', 'spec', 'proof'] as const).filter((name) => evidence[name] !== undefined),
      ...(content.length > 0 ? (['content'] as const) : []),
    ],
    ...(vote === undefined ? {} : { side: vote.side, ground: vote.ground, reason: vote.reason }),
  }));
  return [...open, ...cases.past().map((past) => ({ ...past, shown: [] }))];
}

const OPEN = 'verifier/case/';
const PAST = 'verifier/past';
const PAST_MAX = 100;

export class Cases {
  readonly #journal: Journal;
  readonly #open = new Map<Address, Case>();
  #past: readonly PastCase[];

  private constructor(journal: Journal, past: readonly PastCase[]) {
    this.#journal = journal;
    this.#past = past;
  }

  static async open(journal: Journal): Promise<Cases> {
    const kept = await journal.record(PAST);
    const cases = new Cases(journal, kept === undefined ? [] : (JSON.parse(textOf(kept)) as PastCase[]));
    for (const name of await journal.recordNames(OPEN)) {
      const bytes = await journal.record(name);
      if (bytes !== undefined) cases.#open.set(name.slice(OPEN.length) as Address, decode(bytes));
    }
    return cases;
  }

  get(lease: Address): Case | undefined {
    return this.#open.get(lease);
  }

  list(): readonly Case[] {
    return [...this.#open.values()];
  }

  /** The last ones, newest first. */
  past(): readonly PastCase[] {
    return this.#past;
  }

  /** Resolves when it is on disk. */
  async keep(one: Case): Promise<void> {
    this.#open.set(one.lease, one);
    await this.#journal.keepRecord(`${OPEN}${one.lease}`, encode(one));
  }

  /** What was shown is forgotten with it. */
  async close(past: PastCase): Promise<void> {
    this.#past = [past, ...this.#past.filter(({ lease }) => lease !== past.lease)].slice(0, PAST_MAX);
    await this.#journal.keepRecord(PAST, Buffer.from(JSON.stringify(this.#past)));
    await this.#journal.keepRecord(`${OPEN}${past.lease}`, undefined);
    this.#open.delete(past.lease);
  }
}

function encode({ evidence, vote, ...rest }: Case): Uint8Array {
  const text = (bytes: Uint8Array | undefined): string | undefined =>
    bytes === undefined ? undefined : Buffer.from(bytes).toString('base64');
  return Buffer.from(
    JSON.stringify({
      ...rest,
      evidence: { quote: text(evidence.quote), spec: text(evidence.spec), proof: text(evidence.proof) },
      ...(vote === undefined ? {} : { vote: { ...vote, salt: text(vote.salt) } }),
    }),
  );
}

/** What `encode` wrote; nobody else writes the journal. */
function decode(bytes: Uint8Array): Case {
  type Kept = Omit<Case, 'evidence' | 'vote'> & {
    readonly evidence: { readonly quote?: string; readonly spec?: string; readonly proof?: string };
    readonly vote?: Omit<KeptVote, 'salt'> & { readonly salt: string };
  };
  const { evidence, vote, ...rest } = JSON.parse(textOf(bytes)) as Kept;
  const read = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'base64'));
  return {
    ...rest,
    evidence: Object.fromEntries(Object.entries(evidence).map(([name, text]) => [name, read(text)])),
    ...(vote === undefined ? {} : { vote: { ...vote, salt: read(vote.salt) } }),
  };
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('utf8');
}
