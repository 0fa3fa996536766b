/**
 * The lease stream, provider's end: co-sign a lease, take the job, tell its events, co-sign the settlement.
 *
 * One kept stream per lease. Every request is checked against the peer that the transport authenticated: only the
 * delegate that a quote was made for can accept it, and only that delegate can speak about its lease. A refusal is a
 * typed answer; the stream stays open after it.
 */
import type { Chain, LeaseTerms } from '../../chain/index.ts';
import { type Channel, type Network, type SellingPolicy, fits, imageRefusal } from '../../market/index.ts';
import { type Address, decodeAddress, encodeAddress } from '../../protocol/address.ts';
import { assertWithinPolicy } from '../../protocol/egress.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import { verifySignature } from '../../protocol/ed25519.ts';
import type { Env } from '../../protocol/env.ts';
import { MoltError, hasCode } from '../../protocol/errors.ts';
import { type JobSpec, decodeJobSpec, specDigest, termsDigest, wantedEgress } from '../../protocol/job-spec.ts';
import { LIMITS } from '../../protocol/limits.ts';
import {
  type Accept,
  JobEvent as WireEvent,
  type LeaseRequest,
  LeaseResponse,
  type SettleRequest,
  type Submit,
} from '../../protocol/molt.js';
import { baseUnits, formatMolt } from '../../protocol/units.ts';
import { STREAMS, decodeLeaseRequest, toRefusal } from '../../protocol/wire.ts';
import type { Tell } from '../events.ts';
import { type Approve, jobQuestion } from './approval.ts';
import type { Confidential, Execution } from './execution.ts';
import type { Agreement } from './job.ts';
import { type Jobs, termsOf } from './jobs.ts';
import type { Trade } from './trade.ts';

export interface LeaseStreamOptions {
  readonly key: KeyPair;
  readonly provider: Address;
  readonly chain: Chain;
  readonly network: Network;
  readonly jobs: Jobs;
  readonly trade: Trade;
  readonly execution: Execution;
  readonly tell: Tell;
  /** Egress rules that jobs are held to. */
  readonly egress: readonly string[];
  readonly policy: SellingPolicy;
  /** The owner's own check, asked before a job is taken. */
  readonly approve: Approve;
  /** The lease is on chain: its stake is reserved there now. */
  readonly onFunded: (lease: Address) => Promise<void>;
}

/** How long a lease that the buyer says is open may take to be seen on our side of the chain. */
const FUNDED_PATIENCE_MS = 10_000;
const FUNDED_POLL_MS = 100;

/** What all streams of a node share. */
interface Serving extends LeaseStreamOptions {
  /** Leases whose job is being taken, which its buyer may hand over again meanwhile. */
  readonly taking: Map<Address, Promise<void>>;
}

export function serveLeases(env: Env, options: LeaseStreamOptions): Promise<AsyncDisposable> {
  const serving = { ...options, taking: new Map<Address, Promise<void>>() };
  return options.network.handle(STREAMS.lease.protocol, STREAMS.lease, (channel) => serveOne(env, serving, channel));
}

async function serveOne(env: Env, options: Serving, channel: Channel): Promise<void> {
  const ended = new AbortController();
  let heartbeat: Disposable | undefined;
  let isFollowed = false;
  try {
    for await (const frame of channel) {
      try {
        const request = decodeLeaseRequest(frame);
        const followed = request.submit ?? request.attach;
        if (followed !== undefined) {
          if (isFollowed) {
            throw new MoltError('protocol/malformed', 'this stream follows a job already; open another');
          }
          // From now on: to see the lease on chain and to ask the owner may take longer than a buyer bears silence.
          const job = options.jobs.ownedBy(channel.remote, followed.lease);
          heartbeat = startHeartbeat(env, options, channel, job.agreement.lease);
        }
        const follow = await answer(env, options, channel, request);
        if (follow !== undefined) {
          isFollowed = true;
          void tellEvents(options, channel, follow, ended.signal).catch(() =>
            channel.abort(new MoltError('mesh/closed', 'the follower is gone')),
          );
        }
      } catch (error) {
        if (hasCode(error, 'mesh/closed')) return;
        if (!isFollowed) heartbeat?.[Symbol.dispose]();
        const refusal =
          error instanceof MoltError
            ? error
            : new MoltError(
                'runtime/engine-failed',
                'the provider failed while it handled the request; try another provider',
                {},
                { cause: error },
              );
        if (!(error instanceof MoltError)) env.logger.log('error', 'a lease request failed unexpectedly', { error });
        options.tell({ type: 'request-refused', from: channel.remote, code: refusal.code, reason: refusal.message });
        await channel.send(LeaseResponse.encode({ refused: toRefusal(refusal) }));
      }
    }
  } finally {
    ended.abort();
    heartbeat?.[Symbol.dispose]();
    await channel.close();
  }
}

interface Follow {
  readonly lease: Address;
  readonly from: number;
}

async function answer(
  env: Env,
  options: Serving,
  channel: Channel,
  request: LeaseRequest,
): Promise<Follow | undefined> {
  if (request.accept !== undefined) {
    await channel.send(LeaseResponse.encode({ accepted: await accept(env, options, channel.remote, request.accept) }));
    return undefined;
  }
  if (request.submit !== undefined) return submit(env, options, channel.remote, request.submit);
  if (request.attach !== undefined) {
    const job = options.jobs.ownedBy(channel.remote, request.attach.lease);
    return { lease: job.agreement.lease, from: Number(request.attach.fromSequence) };
  }
  if (request.settle !== undefined) {
    await channel.send(LeaseResponse.encode({ settleSigned: await settle(options, channel.remote, request.settle) }));
    return undefined;
  }
  if (request.cancel !== undefined) {
    const job = options.jobs.ownedBy(channel.remote, request.cancel.lease);
    await options.jobs.dispatch(job.agreement.lease, { type: 'cancel' });
    return undefined;
  }
  throw new MoltError('protocol/malformed', 'the request says nothing; send accept, submit, attach, settle or cancel');
}

/** Journals the agreement, then signs the one transaction that both sides derive from it. */
async function accept(
  env: Env,
  options: LeaseStreamOptions,
  buyer: Address,
  request: Accept,
): Promise<{ lease: Uint8Array; operatorSignature: Uint8Array }> {
  const { chain, key, trade, jobs, tell } = options;
  if (
    request.quote.length !== 32 ||
    request.specDigest.length !== 32 ||
    request.budget.length !== 32 ||
    request.blockhash.length !== 32
  ) {
    throw new MoltError(
      'protocol/malformed',
      'an acceptance names quote, spec digest, budget and blockhash with 32 bytes each',
    );
  }
  const quote = trade.quote(Buffer.from(request.quote).toString('hex'), buyer);
  assertWithinPolicy(request.egress, options.egress);
  const digest = termsDigest(quote.id, request.specDigest);
  const budget = encodeAddress(request.budget);
  const lease = chain.leaseAddress(budget, digest);
  const { content } = quote;
  const agreement: Agreement = {
    lease,
    quoteId: quote.id,
    budget,
    provider: options.provider,
    operator: key.address,
    delegate: buyer,
    buyerAddresses: quote.bid.addresses,
    specDigest: Buffer.from(request.specDigest).toString('hex'),
    termsDigest: Buffer.from(digest).toString('hex'),
    amount: content.amount.toString(),
    pricePerSecond: content.pricePerSecond.toString(),
    reserve: content.reserve.toString(),
    openBeforeMs: content.openBeforeMs,
    finishByMs: content.finishByMs,
    graceMs: content.graceMs,
    windowMs: content.windowMs,
    need: quote.bid.need,
    gpus: quote.gpus,
    runtime: quote.bid.runtime,
    durationSecondsMax: quote.bid.durationSecondsMax,
    ...(quote.bid.near.length === 0 ? {} : { near: quote.bid.near }),
    ...(content.startByMs === 0 ? {} : { startByMs: content.startByMs }),
    acceptedAtMs: env.clock.now(),
    quote: Buffer.from(quote.bytes).toString('base64'),
  };
  // Known before anything is kept, so that a message which is refused costs nothing.
  const message = messageToSign(chain, termsOf(agreement), request);
  trade.takeOver(quote, lease);
  try {
    await jobs.accept(agreement);
  } catch (error) {
    trade.endLease(lease);
    throw error;
  }
  tell({ type: 'lease-accepted', lease, buyer });
  return { lease: decodeAddress(lease), operatorSignature: key.sign(message) };
}

/** What both sides derive from the terms, or the buyer's transaction if our lease is all that it opens in our name. */
function messageToSign(chain: Chain, terms: LeaseTerms, { blockhash, message }: Accept): Uint8Array {
  if (message.length === 0) return chain.draftOpenLease(terms, encodeAddress(blockhash)).message;
  chain.assertOpens(message, terms);
  return message;
}

/**
 * Takes the job, once. A buyer that was cut off before it heard of that hands it over again: it follows what became of it,
 * and neither chain nor owner is asked twice.
 */
async function submit(env: Env, options: Serving, buyer: Address, request: Submit): Promise<Follow> {
  const { taking } = options;
  const { agreement, phase } = options.jobs.ownedBy(buyer, request.lease);
  const { lease } = agreement;
  if (Buffer.from(specDigest(request.spec)).toString('hex') !== agreement.specDigest) {
    throw new MoltError(
      'job/spec-mismatch',
      'the specification does not have the digest that the lease carries; send the one that was accepted',
    );
  }
  const isTaken = phase !== 'accepted' && phase !== 'queued';
  if (!isTaken && !taking.has(lease)) {
    taking.set(
      lease,
      take(env, options, agreement, request).finally(() => taking.delete(lease)),
    );
  }
  await taking.get(lease);
  return { lease, from: 0 };
}

/** Takes the job once its lease is seen funded. */
async function take(env: Env, options: LeaseStreamOptions, agreement: Agreement, request: Submit): Promise<void> {
  const { jobs, execution } = options;
  const { lease } = agreement;
  await waitForLease(env, options, agreement);
  await jobs.dispatch(lease, { type: 'lease-funded' });
  await options.onFunded(lease);
  let spec: JobSpec;
  try {
    spec = specWithin(agreement, options, request.spec);
    const refused = await options.approve(jobQuestion(agreement, spec));
    if (refused !== undefined) throw refused;
  } catch (error) {
    if (!(error instanceof MoltError)) throw error;
    // The lease is open, so the refusal is an event of the job: the money goes back at once.
    const failure = { code: error.code, message: error.message };
    await jobs.dispatch(lease, { type: 'failed', attempt: jobs.get(lease)?.attempt ?? 1, failure });
    return;
  }
  execution.keepConfidential(lease, readConfidential(request));
  const encoded = Buffer.from(request.spec).toString('base64');
  await jobs.dispatch(lease, {
    type: 'spec',
    spec: encoded,
    hasSecrets: spec.secrets.length > 0 || request.registry !== undefined,
  });
}

/**
 * The specification, if it asks for no more than was leased and than this provider lets jobs reach. Throws
 * `job/impossible`, `market/image-refused`, `market/egress-refused` and what `decodeJobSpec` throws.
 */
function specWithin(
  agreement: Agreement,
  { egress, policy }: Pick<LeaseStreamOptions, 'egress' | 'policy'>,
  bytes: Uint8Array,
): JobSpec {
  const spec = decodeJobSpec(bytes);
  const unwanted = imageRefusal(policy, spec.image);
  if (unwanted !== undefined) throw unwanted;
  const shortfall = fits(spec.resources, agreement.need);
  if (shortfall !== undefined)
    throw new MoltError('job/impossible', `the lease does not cover this specification: ${shortfall.reason}`);
  if (spec.runtime !== agreement.runtime || spec.maxDurationSeconds > agreement.durationSecondsMax) {
    throw new MoltError(
      'job/impossible',
      `the lease is for the ${agreement.runtime} runtime and ${agreement.durationSecondsMax} s, the specification asks for ${spec.runtime} and ${spec.maxDurationSeconds} s`,
    );
  }
  assertWithinPolicy(wantedEgress(spec), egress);
  return spec;
}

function readConfidential(request: Submit): Confidential {
  if (
    request.secrets.length > LIMITS.secrets ||
    request.secrets.some((secret) => secret.value.length > LIMITS.secretBytes)
  ) {
    throw new MoltError(
      'protocol/oversize',
      `at most ${LIMITS.secrets} secrets of ${LIMITS.secretBytes} bytes are taken`,
    );
  }
  const { registry } = request;
  if (registry !== undefined && registry.username.length + registry.password.length > LIMITS.secretBytes) {
    throw new MoltError('protocol/oversize', `a registry login has at most ${LIMITS.secretBytes} characters`);
  }
  return {
    secrets: Object.fromEntries(request.secrets.map((secret) => [secret.name, secret.value])),
    ...(registry === undefined ? {} : { registry }),
  };
}

async function waitForLease(env: Env, options: LeaseStreamOptions, agreement: Agreement): Promise<void> {
  const untilMs = env.clock.monotonic() + FUNDED_PATIENCE_MS;
  for (;;) {
    try {
      await options.chain.fundedLease(agreement.lease, termsOf(agreement));
      return;
    } catch (error) {
      if (!hasCode(error, 'chain/account-missing') || env.clock.monotonic() > untilMs) throw error;
      await env.clock.sleep(FUNDED_POLL_MS);
    }
  }
}

/** Signs the settlement when it pays at least what the proof claims. */
async function settle(
  options: LeaseStreamOptions,
  buyer: Address,
  request: SettleRequest,
): Promise<{ operatorSignature: Uint8Array }> {
  const job = options.jobs.ownedBy(buyer, request.lease);
  const { outcome, agreement } = job;
  if (outcome === undefined)
    throw new MoltError('proof/wrong-binding', 'there is no proof yet; wait for it, or cancel the job');
  const amount = baseUnits(request.amount);
  if (amount < BigInt(outcome.claimed)) {
    throw new MoltError(
      'proof/wrong-metering',
      `the proof claims ${formatMolt(BigInt(outcome.claimed))}, the settlement pays ${formatMolt(amount)}`,
    );
  }
  if (request.blockhash.length !== 32) throw new MoltError('protocol/malformed', 'a blockhash has 32 bytes');
  const lease = await options.chain.lease(agreement.lease);
  if (lease === undefined) throw new MoltError('job/unknown', 'the lease is closed already; nothing is left to settle');
  const draft = options.chain.draftSettle(
    lease,
    amount,
    Buffer.from(outcome.proofDigest, 'hex'),
    encodeAddress(request.blockhash),
  );
  if (!verifySignature(draft.message, request.delegateSignature, decodeAddress(buyer))) {
    throw new MoltError(
      'chain/transaction-mismatch',
      'the signature is not over the settlement that we derive from the lease; build it from amount, proof digest and blockhash',
    );
  }
  return { operatorSignature: options.key.sign(draft.message) };
}

async function tellEvents(
  options: LeaseStreamOptions,
  channel: Channel,
  follow: Follow,
  signal: AbortSignal,
): Promise<void> {
  for await (const event of options.jobs.follow(follow.lease, follow.from, signal)) {
    await channel.send(LeaseResponse.encode({ event: WireEvent.decode(event.bytes) }), signal);
  }
}

/** Lets the buyer tell a quiet job from a dead provider. */
function startHeartbeat(env: Env, options: LeaseStreamOptions, channel: Channel, lease: Address): Disposable {
  return env.clock.every(LIMITS.heartbeatMs, async () => {
    const nextSequence = BigInt(options.jobs.nextSequence(lease));
    await channel.send(LeaseResponse.encode({ heartbeat: { nextSequence } })).catch(() => undefined);
  });
}
