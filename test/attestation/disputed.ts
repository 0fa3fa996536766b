/** One honest lease with its quote, specification and proof, and others that differ from it in what a test names. */
import {
  type DisputedLease,
  type Evidence,
  type Proof,
  type ProofFacts,
  makeProof,
  parseProof,
} from '../../attestation/index.ts';
import { sealEnvelope } from '../../protocol/envelope.ts';
import { type JobSpecInput, encodeJobSpec, parseJobSpec, specDigest, termsDigest } from '../../protocol/job-spec.ts';
import { type Quote, encodeQuote } from '../../protocol/messages.ts';
import { baseUnits } from '../../protocol/units.ts';
import { CID_A, CID_B, FACTS, address, digestOf, operator } from './fixtures.ts';

export const STARTED_MS = FACTS.startedAtMs;
export const PLAIN: JobSpecInput = {
  runtime: 'wasm',
  image: CID_A,
  command: ['tool'],
  inputs: [
    { cid: CID_A, path: 'data.csv' },
    { cid: CID_B, path: 'more/data.csv' },
  ],
  outputs: [{ name: 'report', path: 'report.json' }],
  maxDurationSeconds: 600,
};

/** What is other than in the honest lease. */
export interface Changes {
  readonly spec?: Partial<JobSpecInput>;
  readonly quote?: Partial<Quote>;
  readonly facts?: Partial<ProofFacts>;
  readonly lease?: Partial<DisputedLease>;
}

export interface Disputed {
  readonly of: DisputedLease;
  readonly evidence: Required<Evidence>;
  readonly proof: Proof;
}

/** A lease with all its documents, honest but for the changes. */
export function disputed({ spec = {}, quote = {}, facts = {}, lease = {} }: Changes = {}): Disputed {
  const specBytes = encodeJobSpec(parseJobSpec({ ...PLAIN, ...spec }));
  const body = encodeQuote({
    bid: digestOf('bid'),
    provider: address('provider'),
    pricePerSecond: baseUnits(1_000_000n),
    amount: baseUnits(600_000_000n),
    reserve: baseUnits(60_000_000n),
    openBeforeMs: STARTED_MS,
    finishByMs: STARTED_MS + 720_000,
    graceMs: 1_000,
    windowMs: 60_000,
    speed: 1,
    warm: false,
    near: [],
    startByMs: STARTED_MS + 5_000,
    ...quote,
  });
  const issued = { network: address('network'), sequence: 1, issuedMs: STARTED_MS - 20_000, expiresMs: STARTED_MS };
  const signed = sealEnvelope(operator, 'quote', issued, body);
  const terms = termsDigest(signed.id, specDigest(specBytes));
  const digest = Buffer.from(specDigest(specBytes)).toString('hex');
  // Of no sample: the head of the chain follows from the specification.
  const own = makeProof({
    signer: operator,
    facts: { ...FACTS, specDigest: digest, termsDigest: Buffer.from(terms).toString('hex'), ...facts },
  });
  const proof = parseProof(own.envelope);
  const of: DisputedLease = {
    network: address('network'),
    lease: address('lease'),
    budget: address('budget'),
    provider: address('provider'),
    operator: operator.address,
    delegate: address('buyer'),
    termsDigest: terms,
    resultDigest: own.proofDigest,
    claimed: proof.claimed,
    locked: baseUnits(600_000_000n),
    pricePerSecond: baseUnits(1_000_000n),
    openedAtMs: STARTED_MS - 5_000,
    provenAtMs: STARTED_MS + 10_000,
    ...lease,
  };
  return { of, evidence: { quote: signed.bytes, spec: specBytes, proof: own.envelope }, proof };
}
