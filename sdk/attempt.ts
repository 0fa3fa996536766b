/**
 * One attempt of a job with one provider: open the lease, follow the run, verify the proof, take the outputs, settle.
 *
 * Order of trust: the spec leaves only after the lease is on chain, but for the hosts that it names, which the chosen provider
 * must know to decline in time; nothing is paid before the proof is verified and the
 * outputs are here. An attempt that fails says whose fault it was by its error code, and leaves its lease either closed
 * or in the care of `reclaim`, which expires it after its deadline.
 */
import { type Proof, verifyProof } from '../attestation/index.ts';
import type { LeaseTerms } from '../chain/index.ts';
import type { VerifiedQuote } from '../market/index.ts';
import { type Address, decodeAddress } from '../protocol/address.ts';
import type { VerifiedProof } from '../protocol/brands.ts';
import { verifySignature } from '../protocol/ed25519.ts';
import { MoltError } from '../protocol/errors.ts';
import { type JobSpec, recordedInputs, storedInputs, termsDigest, wantedEgress } from '../protocol/job-spec.ts';
import { LIMITS } from '../protocol/limits.ts';
import type { JobEvent as WireJobEvent } from '../protocol/molt.js';
import { baseUnits } from '../protocol/units.ts';
import { fromRefusal } from '../protocol/wire.ts';
import type { Buyer } from './buyer.ts';
import type { Replica } from './comparison.ts';
import type { LeaseEvidence } from './evidence.ts';
import { HeardRun } from './heard-run.ts';
import { LeaseClient } from './lease-client.ts';
import { type Opened, afterFailure, paidFor, settle } from './lease-end.ts';
import type { RunOptions } from './options.ts';
import { takeOutputs } from './outputs.ts';
import type { JobEvent, JobOutput, JobResult } from './progress.ts';

export interface AttemptRequest {
  readonly spec: JobSpec;
  readonly specBytes: Uint8Array;
  readonly specDigest: Uint8Array;
  readonly quote: VerifiedQuote;
  readonly options: RunOptions;
  readonly attempt: number;
  readonly tell: (event: JobEvent) => void;
  readonly signal: AbortSignal;
  /** Of a job that runs on several providers: where its result is compared before it is paid. */
  readonly replica?: Replica;
  /** The provider has the job already: it was handed over before a crash. */
  readonly hasJob?: boolean;
}

/** How long a cancelled job may take to stop and prove: at least, and where its provider is heard of all the while. */
const CANCEL_WAIT_MS = 15_000;
const CANCEL_WAIT_MS_MAX = 45_000;
/** Clocks of buyer and provider differ by at most so much, else their messages are refused; a start is heard of later by that. */
const START_GRACE_MS = LIMITS.clockFutureMs;
/** Clocks differ a little, and the lease opens a moment before we hear of it. */
const CLOCK_SLACK_MS = 1_000;
/** How long after a lease may be expired its proof is still waited for, and how often that is looked at. */
const END_SLACK_MS = 5_000;

/** Runs the job once. Throws `job/…`, `proof/…`, `mesh/…`, `market/…`, `chain/…`. */
export async function attemptJob(buyer: Buyer, request: AttemptRequest): Promise<JobResult> {
  const { quote, tell } = request;
  const node = quote.signer;
  const addresses = buyer.feed.book.get(node)?.content.addresses ?? [];
  const { reconnectMs } = request.options;
  await using client = new LeaseClient(buyer, {
    node,
    addresses,
    tell,
    ...(reconnectMs === undefined ? {} : { reconnectMs }),
  });
  const committed = await buyer.spending?.commit(quote.content.amount);
  let opened: Opened | undefined;
  try {
    opened = await openLease(buyer, client, request);
    const result = await runOpened(buyer, client, request, opened);
    await committed?.end(result.cost);
    return result;
  } catch (error) {
    await committed?.end(await paidFor(buyer, opened, error));
    throw error;
  }
}

/** Has the job run under its open lease. Throws `job/…`, `proof/…`, `mesh/…`, and sees to the lease before. */
export async function runOpened(
  buyer: Buyer,
  client: LeaseClient,
  request: AttemptRequest,
  opened: Opened,
): Promise<JobResult> {
  const node = request.quote.signer;
  using _grant = buyer.grant(node, [
    ...storedInputs(request.spec).map((input) => input.cid),
    ...(request.spec.runtime === 'wasm' ? [request.spec.image] : []),
  ]);
  const specDigest = Buffer.from(request.specDigest).toString('hex');
  const subject = { network: buyer.chain.network, lease: opened.lease, specDigest };
  const record = new HeardRun(subject, request.tell);
  buyer.evidence.keep(opened.lease, evidenceOf(request));
  try {
    if (request.hasJob === true) await client.attach(opened.lease);
    else await client.submit(opened.lease, jobOf(request));
    const result = await follow(buyer, client, { request, opened, record });
    buyer.evidence.forget(opened.lease);
    return result;
  } catch (error) {
    const { tell, signal, options } = request;
    await afterFailure(buyer, { lease: opened.lease, tell, signal, disputeAll: options.disputeAll }, error);
    throw error;
  }
}

/** What there is to show if this lease is disputed. */
function evidenceOf({ quote, specBytes: spec }: AttemptRequest, proof?: Uint8Array): LeaseEvidence {
  return { quote: quote.bytes, spec, ...(proof === undefined ? {} : { proof }) };
}

function jobOf(request: AttemptRequest): Parameters<LeaseClient['submit']>[1] {
  const { registry } = request.options;
  return {
    spec: request.specBytes,
    transaction: new Uint8Array(),
    secrets: secretsOf(request),
    ...(registry === undefined ? {} : { registry }),
  };
}

function secretsOf(request: AttemptRequest): { name: string; value: Uint8Array }[] {
  return request.spec.secrets.map((name) => {
    const value = request.options.secrets?.[name];
    if (value === undefined)
      throw new MoltError(
        'protocol/invalid-spec',
        `the specification names a secret "${name}", its value is not given: --secret ${name}=FILE, or options.secrets in a program`,
      );
    return { name, value: new Uint8Array(Buffer.from(value)) };
  });
}

/** What the lease of this quote fixes. */
export function termsOf(buyer: Buyer, quote: VerifiedQuote, digest: Uint8Array): LeaseTerms {
  const { provider, amount, pricePerSecond, reserve, openBeforeMs, finishByMs, graceMs, windowMs } = quote.content;
  return {
    budget: buyer.budgetAddress,
    provider,
    operator: quote.signer,
    delegate: buyer.key.address,
    termsDigest: termsDigest(quote.id, digest),
    amount,
    pricePerSecond,
    reserve,
    openBeforeMs,
    finishByMs,
    graceMs,
    windowMs,
  };
}

async function openLease(buyer: Buyer, client: LeaseClient, request: AttemptRequest): Promise<Opened> {
  const { chain, key } = buyer;
  const { quote, tell } = request;
  const { content } = quote;
  const startedMs = buyer.env.clock.monotonic();
  const terms = termsOf(buyer, quote, request.specDigest);
  const lease = chain.leaseAddress(terms.budget, terms.termsDigest);
  const blockhash = await chain.recentBlockhash();
  const draft = chain.draftOpenLease(terms, blockhash);
  const operatorSignature = await client.accept({
    quote: Buffer.from(quote.id, 'hex'),
    specDigest: request.specDigest,
    budget: decodeAddress(terms.budget),
    blockhash: decodeAddress(blockhash as Address),
    message: new Uint8Array(),
    egress: [...wantedEgress(request.spec)],
  });
  if (!verifySignature(draft.message, operatorSignature, decodeAddress(quote.signer))) {
    const message = 'the provider signed something else than the terms that it quoted; another one is taken';
    throw new MoltError('protocol/bad-signature', message, { node: quote.signer });
  }
  tell({ type: 'accepted', provider: content.provider, node: quote.signer, pricePerSecond: content.pricePerSecond });
  const signatures = new Map([
    [key.address, key.sign(draft.message)],
    [quote.signer, operatorSignature],
  ]);
  const { signature } = await chain.submit(draft, signatures);
  tell({
    type: 'lease-opened',
    lease,
    transaction: signature,
    locked: terms.amount,
    afterMs: buyer.env.clock.monotonic() - startedMs,
  });
  return { terms, lease, transaction: signature, openedMs: buyer.env.clock.monotonic() };
}

/** Follows the run to its proof; turns an abort into a cancelled job that is settled for what ran. */
async function follow(buyer: Buyer, client: LeaseClient, following: Following): Promise<JobResult> {
  const { request, opened, record } = following;
  const overdue = new AbortController();
  const cancelling = new AbortController();
  const onAbort = (): void => {
    void client.cancel().catch((error: unknown) => overdue.abort(error));
    void watchCancelled(buyer, client, cancelling.signal).catch((error: unknown) => {
      if (!cancelling.signal.aborted) overdue.abort(error);
    });
  };
  void watchStart(buyer, client, request, { record, signal: cancelling.signal }).catch((error: unknown) => {
    if (!cancelling.signal.aborted) overdue.abort(error);
  });
  void watchEnd(buyer, opened, cancelling.signal).catch((error: unknown) => {
    if (!cancelling.signal.aborted) overdue.abort(error);
  });
  if (request.signal.aborted) onAbort();
  else request.signal.addEventListener('abort', onAbort, { once: true });
  try {
    for await (const event of client.events(AbortSignal.any([buyer.closing, overdue.signal]))) {
      record.take(event);
      if (event.failed !== undefined) throw toldFailure(fromRefusal(event.failed));
      if (event.proof !== undefined) {
        buyer.evidence.keep(opened.lease, evidenceOf(request, event.proof.envelope));
        return await conclude(buyer, client, { ...following, proof: event.proof });
      }
      if (event.closed !== undefined)
        throw new MoltError(
          'job/provider-lost',
          `the provider closed the lease as ${event.closed.state} without a proof`,
        );
    }
    throw new MoltError('job/provider-lost', 'the events of the job ended without a proof');
  } finally {
    request.signal.removeEventListener('abort', onAbort);
    cancelling.abort(new MoltError('node/stopped', 'no longer waiting'));
  }
}

/** Throws `job/started-late` when the start that the quote promises is not heard of. While the stream is broken nobody can say. */
async function watchStart(
  { env }: Buyer,
  client: LeaseClient,
  { quote }: AttemptRequest,
  { record, signal }: { readonly record: HeardRun; readonly signal: AbortSignal },
): Promise<void> {
  const { startByMs } = quote.content;
  if (startByMs === 0) return;
  await env.clock.sleep(Math.max(0, startByMs + START_GRACE_MS - env.clock.now()), signal);
  for (let heardMs = 0; !record.hasBegun; heardMs += client.isConnected ? CLOCK_SLACK_MS : -heardMs) {
    if (heardMs > CLOCK_SLACK_MS) {
      const message = `the provider ${quote.signer} promised to begin the job by ${new Date(startByMs).toISOString()} and did not; it is not paid`;
      throw new MoltError('job/started-late', message, { node: quote.signer, startByMs });
    }
    await env.clock.sleep(CLOCK_SLACK_MS, signal);
  }
}

/** Throws `job/provider-lost` when a cancelled job does not end: a provider on a busy machine, which is heard, has longer. */
async function watchCancelled({ env }: Buyer, client: LeaseClient, signal: AbortSignal): Promise<void> {
  await env.clock.sleep(CANCEL_WAIT_MS, signal);
  for (let waitedMs = CANCEL_WAIT_MS; client.isConnected && waitedMs < CANCEL_WAIT_MS_MAX; waitedMs += CLOCK_SLACK_MS)
    await env.clock.sleep(CLOCK_SLACK_MS, signal);
  throw new MoltError('job/provider-lost', 'the provider did not end the cancelled job in time');
}

/** Throws `job/provider-lost` when the time for a proof is over: a provider that still sends something does not work for it. */
async function watchEnd({ env, chainClock }: Buyer, { terms }: Opened, signal: AbortSignal): Promise<void> {
  const { finishByMs, graceMs } = terms;
  while (chainClock.now() <= finishByMs + graceMs + END_SLACK_MS) await env.clock.sleep(END_SLACK_MS, signal);
  throw new MoltError(
    'job/provider-lost',
    `the provider did not prove the job by ${new Date(finishByMs).toISOString()} and its grace is over; the money comes back`,
    { finishByMs },
  );
}

/** What is wrong with a proof is found here; a provider that says so itself has none. */
function toldFailure(error: MoltError): MoltError {
  if (!error.code.startsWith('proof/')) return error;
  return new MoltError('job/provider-lost', `the provider has no proof: ${error.message}`, {}, { cause: error });
}

interface Following {
  readonly request: AttemptRequest;
  readonly opened: Opened;
  readonly record: HeardRun;
}

interface Concluding extends Following {
  readonly proof: NonNullable<WireJobEvent['proof']>;
}

/** Proof, agreement where there are replicas, outputs, payment, in this order. */
async function conclude(buyer: Buyer, client: LeaseClient, concluding: Concluding): Promise<JobResult> {
  const { request, opened, record } = concluding;
  const { quote, tell } = request;
  const proof = verified(buyer, concluding);
  const proofDigest = proof.digest;
  tell({
    type: 'proof-verified',
    proofDigest,
    billedMs: proof.billedMs,
    cost: proof.claimed,
  });
  const { replica } = request;
  const result = { proof, stdoutSha256: record.stdoutSha256(), envelope: concluding.proof.envelope };
  await replica?.agree(result, request.signal);
  const { options, spec } = request;
  const source = { node: quote.signer, diskBytes: spec.resources.diskBytes, directory: options.outputDirectory };
  const take = (): Promise<readonly JobOutput[]> => takeOutputs(buyer, proof, source);
  const outputs = await (replica === undefined ? take() : replica.once(take));
  tell({
    type: 'outputs',
    count: outputs.length,
    sizeBytes: outputs.reduce((sum, output) => sum + output.sizeBytes, 0),
  });
  const settled = await settle(buyer, client, opened, proof);
  const cost = settled.paid;
  tell({
    type: 'settled',
    lease: opened.lease,
    transaction: settled.transaction,
    paid: cost,
    refunded: baseUnits(opened.terms.amount - cost),
  });
  const lamports = await feesOf(buyer, [opened.transaction, settled.transaction]);
  const { exit, billedMs } = proof;
  return {
    exitCode: exit.exitCode,
    reason: exit.reason,
    provider: quote.content.provider,
    node: quote.signer,
    lease: opened.lease,
    outputs,
    stdout: record.tails.stdout.text(),
    stderr: record.tails.stderr.text(),
    billedMs,
    cost,
    locked: opened.terms.amount,
    lamports,
    openTransaction: opened.transaction,
    settleTransaction: settled.transaction,
    proof: concluding.proof.envelope,
    proofDigest,
    attempts: request.attempt,
  };
}

/** The proof, held against all that this buyer knows. Throws `proof/…`. */
function verified(buyer: Buyer, concluding: Concluding): VerifiedProof<Proof> {
  const { request, opened, record } = concluding;
  const { spec, quote } = request;
  const proof = verifyProof(concluding.proof.envelope, {
    expected: {
      network: buyer.chain.network,
      lease: opened.lease,
      termsDigest: Buffer.from(opened.terms.termsDigest).toString('hex'),
      specDigest: Buffer.from(request.specDigest).toString('hex'),
      operator: quote.signer,
      image: spec.image,
      inputs: recordedInputs(spec),
      locked: opened.terms.amount,
      pricePerSecond: opened.terms.pricePerSecond,
      budget: opened.terms.budget,
      buyer: buyer.key.address,
      provider: quote.content.provider,
      transcript: record.transcript.finish(),
      ...(quote.content.startByMs === 0 ? {} : { startByMs: quote.content.startByMs }),
    },
    commit: concluding.proof.commit,
    commitSignature: concluding.proof.commitSignature,
  });
  assertTimePassed(buyer, opened, proof);
  return proof;
}

/** A run cannot have taken longer than the buyer waited for it, whatever the provider's clock says. */
function assertTimePassed(buyer: Buyer, opened: Opened, proof: Proof): void {
  const waitedMs = buyer.env.clock.monotonic() - opened.openedMs;
  if (proof.billedMs <= waitedMs + CLOCK_SLACK_MS) return;
  throw new MoltError(
    'proof/wrong-metering',
    `the proof bills ${proof.billedMs} ms, the lease has been open for ${Math.round(waitedMs)} ms; it is not paid`,
    { billedMs: proof.billedMs },
  );
}

async function feesOf(buyer: Buyer, transactions: readonly string[]): Promise<bigint> {
  let sum = 0n;
  // Of a run that was taken up after a crash the opening may not be known.
  for (const transaction of transactions.filter((one) => one !== ''))
    sum += (await buyer.chain.transactionCost(transaction))?.feeLamports ?? 0n;
  return sum;
}
