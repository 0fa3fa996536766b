/**
 * One attempt of a job with one provider: open the lease, follow the run, verify the proof, take the outputs, settle.
 *
 * Order of trust: the spec leaves only after the lease is on chain, but for the hosts that it names, which the chosen provider
 * must know to decline in time; nothing is paid before the proof is verified and the
 * outputs are here. An attempt that fails says whose fault it was by its error code, and leaves its lease either closed
 * or in the care of `reclaim`, which expires it after its deadline.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { type Proof, type Transcript, createTranscript, verifyProof } from '../attestation/index.ts';
import type { LeaseAccount, LeaseTerms } from '../chain/index.ts';
import type { VerifiedQuote } from '../market/index.ts';
import { type Address, decodeAddress } from '../protocol/address.ts';
import type { VerifiedProof } from '../protocol/brands.ts';
import { verifySignature } from '../protocol/ed25519.ts';
import { MoltError, hasCode } from '../protocol/errors.ts';
import { type JobSpec, recordedInputs, storedInputs, termsDigest, wantedEgress } from '../protocol/job-spec.ts';
import { LIMITS } from '../protocol/limits.ts';
import type { JobEvent as WireJobEvent } from '../protocol/molt.js';
import { baseUnits } from '../protocol/units.ts';
import { fromRefusal } from '../protocol/wire.ts';
import { decodeUsage } from '../protocol/usage.ts';
import type { Buyer } from './buyer.ts';
import type { Replica } from './comparison.ts';
import type { LeaseEvidence } from './evidence.ts';
import { LeaseClient } from './lease-client.ts';
import type { RunOptions } from './options.ts';
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

/** The last bytes of each stream that the result carries. */
const TAIL_BYTES = 64 * 1024;
/** How long a provider that failed is given to put the money back itself. */
const REFUND_WAIT_MS = 5_000;
/** How long a cancelled job may take to stop and prove: at least, and where its provider is heard of all the while. */
const CANCEL_WAIT_MS = 15_000;
const CANCEL_WAIT_MS_MAX = 45_000;
/** Clocks of buyer and provider differ by at most so much, else their messages are refused; a start is heard of later by that. */
const START_GRACE_MS = LIMITS.clockFutureMs;
/** Clocks differ a little, and the lease opens a moment before we hear of it. */
const CLOCK_SLACK_MS = 1_000;
/** How long after a lease may be expired its proof is still waited for, and how often that is looked at. */
const END_SLACK_MS = 5_000;
/** Both streams of a run together: each provider cuts a program's output off at `LIMITS.logBytes`. */
const LOG_BYTES_MAX = 2 * LIMITS.logBytes;

/** A lease that is on chain. */
export interface Opened {
  readonly terms: LeaseTerms;
  readonly lease: Address;
  readonly transaction: string;
  /** Monotonic. */
  readonly openedMs: number;
}

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

/** What a lease that ended in an error cost; undefined when nobody can say. */
async function paidFor(buyer: Buyer, opened: Opened | undefined, error: unknown): Promise<bigint | undefined> {
  if (opened !== undefined) return (await buyer.chain.leaseEnding(opened.lease).catch(() => undefined))?.paid;
  // A refusal came before anything was sent to the chain; after that the lease may exist, whatever was heard of it.
  const isBefore = error instanceof MoltError && /^(?:market|mesh|protocol)\//.test(error.code);
  return isBefore ? 0n : undefined;
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
  const record = new RunRecord(buyer, request, opened);
  buyer.evidence.keep(opened.lease, evidenceOf(request));
  try {
    if (request.hasJob === true) await client.attach(opened.lease);
    else await client.submit(opened.lease, jobOf(request));
    const result = await follow(buyer, client, { request, opened, record });
    buyer.evidence.forget(opened.lease);
    return result;
  } catch (error) {
    await afterFailure(buyer, { request, opened, record }, error);
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
  { record, signal }: { readonly record: RunRecord; readonly signal: AbortSignal },
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
  readonly record: RunRecord;
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
  const take = (): Promise<readonly JobOutput[]> => takeOutputs(buyer, request, proof);
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

async function takeOutputs(buyer: Buyer, request: AttemptRequest, proof: VerifiedProof<Proof>): Promise<JobOutput[]> {
  const { outputDirectory } = request.options;
  const outputs: JobOutput[] = [];
  for (const { name, cid, sha256, sizeBytes } of proof.outputs) {
    if (outputDirectory === undefined) {
      outputs.push({ name, cid, sha256, sizeBytes });
      continue;
    }
    const { mesh, artifacts } = buyer;
    const limit = request.spec.resources.diskBytes + LIMITS.artifactBlockBytes;
    await artifacts.fetch(mesh, request.quote.signer, cid, { maxBytes: limit, signal: buyer.closing });
    const path = join(outputDirectory, name);
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

interface Settlement {
  readonly transaction: string;
  readonly paid: ReturnType<typeof baseUnits>;
}

/**
 * Together with the provider for exactly what is claimed; alone when it has claimed on chain meanwhile. A provider that
 * went away after it proved is waited for, as while it ran: the work is done, and another one would have to do it again.
 */
async function settle(
  buyer: Buyer,
  client: LeaseClient,
  opened: Opened,
  proof: VerifiedProof<Proof>,
): Promise<Settlement> {
  try {
    return await settleOnce(buyer, client, opened, proof);
  } catch (error) {
    if (!(error instanceof MoltError && error.code.startsWith('mesh/'))) throw error;
    await client.comeBack(buyer.closing);
    return settleOnce(buyer, client, opened, proof);
  }
}

async function settleOnce(
  buyer: Buyer,
  client: LeaseClient,
  opened: Opened,
  proof: VerifiedProof<Proof>,
): Promise<Settlement> {
  const { chain, key } = buyer;
  const amount = proof.claimed;
  const lease = await chain.lease(opened.lease);
  if (lease === undefined) return closedAlready(buyer, opened);
  try {
    const blockhash = await chain.recentBlockhash();
    const draft = chain.draftSettle(lease, amount, Buffer.from(proof.digest, 'hex'), blockhash);
    const mine = key.sign(draft.message);
    const theirs = await client.settle({
      amount,
      blockhash: decodeAddress(blockhash as Address),
      delegateSignature: mine,
    });
    const { signature } = await chain.submit(
      draft,
      new Map([
        [key.address, mine],
        [lease.operator, theirs],
      ]),
    );
    return { transaction: signature, paid: amount };
  } catch (error) {
    if (!(error instanceof MoltError)) throw error;
    return settleAlone(buyer, opened, amount, error);
  }
}

/** The provider did not co-sign: if it has claimed on chain meanwhile, the claim can be paid without it. */
async function settleAlone(buyer: Buyer, opened: Opened, amount: bigint, cause: MoltError): Promise<Settlement> {
  const { chain, key } = buyer;
  const lease = await chain.lease(opened.lease);
  if (lease === undefined) return closedAlready(buyer, opened);
  if (lease.proof === undefined || lease.proof.claimed !== amount) throw cause;
  const { signature } = await chain.settleAlone(key, lease, lease.proof.claimed, lease.proof.resultDigest);
  return { transaction: signature, paid: lease.proof.claimed };
}

async function closedAlready(buyer: Buyer, opened: Opened): Promise<Settlement> {
  const ending = await buyer.chain.leaseEnding(opened.lease);
  if (ending === undefined)
    throw new MoltError(
      'chain/account-missing',
      `the lease ${opened.lease} is gone and its end is not in the history of this endpoint`,
    );
  return { transaction: ending.signature, paid: ending.paid };
}

/**
 * Sees to it that the money of a failed attempt comes back: from the provider itself when the fault is told, by cancelling
 * when the buyer gave up or the proof is bad (that costs the seconds since the opening instead of what a liar may claim),
 * else after the deadline (reclaim.ts). A provider that broke its word is paid nothing: it may still give the money back.
 */
async function afterFailure(buyer: Buyer, { request, opened }: Following, error: unknown): Promise<void> {
  if (isContested(error, request)) await buyer.contests.add(opened.lease, request.tell);
  if (isLeftAlone(error)) return;
  const code = error instanceof MoltError ? error.code : '';
  const badProof = code.startsWith('proof/');
  const gone = code === 'job/provider-lost' || code === 'job/unknown' || code.startsWith('mesh/');
  const ask = badProof || gone;
  const lease = ask
    ? await buyer.chain.lease(opened.lease).catch(() => undefined)
    : await waitUntilClosed(buyer, opened.lease);
  if (lease === undefined || !(badProof || request.signal.aborted)) return;
  await buyer.chain.cancelByDelegate(buyer.key, lease).catch(() => undefined);
}

/** Whether the provider did what it signed not to do, or the buyer wants its claim judged, which is worth a dispute. */
function isContested(error: unknown, { options }: Pick<AttemptRequest, 'options'>): boolean {
  return isBrokenWord(error) || (options.disputeAll === true && hasCode(error, 'proof/no-majority'));
}

function isBrokenWord(error: unknown): boolean {
  return hasCode(error, 'job/started-late', 'proof/started-late', 'proof/outvoted');
}

/** Whether the lease is neither settled nor cancelled after this, which would pay for it: it expires, or is claimed. */
export function isLeftAlone(error: unknown): boolean {
  return isBrokenWord(error) || hasCode(error, 'proof/no-majority');
}

/** The lease as it was last seen, undefined once it is closed, or was never opened. */
export async function waitUntilClosed(buyer: Buyer, lease: Address): Promise<LeaseAccount | undefined> {
  const waiting = new AbortController();
  buyer.env.clock.sleep(REFUND_WAIT_MS, waiting.signal).then(
    () => waiting.abort(),
    () => undefined,
  );
  let last: LeaseAccount | undefined;
  try {
    for await (const account of buyer.chain.watchLease(lease, AbortSignal.any([waiting.signal, buyer.closing]))) {
      last = account;
      if (account === undefined) break;
    }
  } catch {
    // The endpoint is away; the lease is reclaimed after its deadline.
  } finally {
    waiting.abort();
  }
  return last;
}

async function feesOf(buyer: Buyer, transactions: readonly string[]): Promise<bigint> {
  let sum = 0n;
  // Of a run that was taken up after a crash the opening may not be known.
  for (const transaction of transactions.filter((one) => one !== ''))
    sum += (await buyer.chain.transactionCost(transaction))?.feeLamports ?? 0n;
  return sum;
}

/** What the buyer heard of the run: the tails for the result, and its own transcript to hold the proof against. */
class RunRecord {
  readonly tails = { stdout: new Tail(), stderr: new Tail() };
  readonly #subject: { readonly network: Address; readonly lease: Address; readonly specDigest: string };
  readonly #tell: (event: JobEvent) => void;
  #attempt = 1;
  #stdout = createHash('sha256');
  #logBytes = 0;
  /** The program runs, or ran. */
  hasBegun = false;
  transcript: Transcript;

  constructor(buyer: Buyer, request: AttemptRequest, opened: Opened) {
    this.#subject = {
      network: buyer.chain.network,
      lease: opened.lease,
      specDigest: Buffer.from(request.specDigest).toString('hex'),
    };
    this.#tell = request.tell;
    this.transcript = createTranscript({ ...this.#subject, attempt: this.#attempt });
  }

  /** Of all that the program printed to standard output, hex. */
  stdoutSha256(): string {
    return this.#stdout.copy().digest('hex');
  }

  take(event: WireJobEvent): void {
    if (event.attempt > this.#attempt) {
      // The provider started over: what the earlier run said does not count.
      this.#attempt = event.attempt;
      this.transcript = createTranscript({ ...this.#subject, attempt: event.attempt });
      this.tails.stdout = new Tail();
      this.tails.stderr = new Tail();
      this.#stdout = createHash('sha256');
      this.#logBytes = 0;
    }
    const { phase, log, usage, ready } = event;
    if (phase !== undefined) {
      this.hasBegun ||= phase.phase === 'running';
      const bytes = { bytesDone: Number(phase.bytesDone), bytesTotal: Number(phase.bytesTotal) };
      this.#tell({ type: 'phase', phase: phase.phase, detail: phase.detail, ...bytes, attempt: event.attempt });
    } else if (log !== undefined) {
      if (log.bytes.length > LIMITS.logChunkBytes)
        throw new MoltError('protocol/oversize', `a log chunk has at most ${LIMITS.logChunkBytes} bytes`);
      this.#logBytes += log.bytes.length;
      if (this.#logBytes > LOG_BYTES_MAX)
        throw new MoltError(
          'protocol/oversize',
          `the provider sends more than ${LOG_BYTES_MAX} bytes of output of one run`,
        );
      const stream = log.stream === 1 ? 'stdout' : 'stderr';
      this.transcript.log(stream, log.bytes);
      this.tails[stream].push(log.bytes);
      if (stream === 'stdout') this.#stdout.update(log.bytes);
      this.#tell({ type: 'log', stream, bytes: log.bytes, atMs: Number(event.atMs) });
    } else if (usage !== undefined) {
      const sample = decodeUsage(usage);
      this.transcript.sample(sample);
      this.#tell({ type: 'usage', ...sample });
    } else if (ready !== undefined) {
      const { service, reason } = ready;
      this.#tell({ type: 'ready', service, ready: ready.ready, reason: reason.slice(0, LIMITS.refusalCharacters) });
    }
  }
}

/** Keeps the last bytes of a stream. */
class Tail {
  #bytes = Buffer.alloc(0);

  push(bytes: Uint8Array): void {
    this.#bytes = Buffer.concat([this.#bytes, bytes]).subarray(-TAIL_BYTES);
  }

  text(): string {
    return this.#bytes.toString('utf8');
  }
}
