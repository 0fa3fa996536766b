/**
 * How the lease of an attempt ends: settled for what was proven, or, when it failed, with its money brought back, disputed,
 * or left to its deadline.
 */
import type { Proof } from '../attestation/index.ts';
import type { LeaseAccount, LeaseTerms } from '../chain/index.ts';
import { type Address, decodeAddress } from '../protocol/address.ts';
import type { VerifiedProof } from '../protocol/brands.ts';
import { MoltError, hasCode } from '../protocol/errors.ts';
import type { BaseUnits } from '../protocol/units.ts';
import type { Buyer } from './buyer.ts';
import type { LeaseClient } from './lease-client.ts';
import type { JobEvent } from './progress.ts';

/** How long a provider that failed is given to put the money back itself. */
const REFUND_WAIT_MS = 5_000;

/** A lease that is on chain. */
export interface Opened {
  readonly terms: LeaseTerms;
  readonly lease: Address;
  readonly transaction: string;
  /** Monotonic. */
  readonly openedMs: number;
}

/** What a lease that ended in an error cost; undefined when nobody can say. */
export async function paidFor(buyer: Buyer, opened: Opened | undefined, error: unknown): Promise<bigint | undefined> {
  if (opened !== undefined) return (await buyer.chain.leaseEnding(opened.lease).catch(() => undefined))?.paid;
  // A refusal came before anything was sent to the chain; after that the lease may exist, whatever was heard of it.
  const isBefore = error instanceof MoltError && /^(?:market|mesh|protocol)\//.test(error.code);
  return isBefore ? 0n : undefined;
}

interface Settlement {
  readonly transaction: string;
  readonly paid: BaseUnits;
}

/**
 * Together with the provider for exactly what is claimed; alone when it has claimed on chain meanwhile. A provider that
 * went away after it proved is waited for, as while it ran: the work is done, and another one would have to do it again. Throws
 * `chain/…`, and `mesh/…` when it does not come back.
 */
export async function settle(
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

export interface FailedAttempt {
  readonly lease: Address;
  /** Hears of a dispute. */
  readonly tell: (event: JobEvent) => void;
  /** Aborted: the buyer gave up. */
  readonly signal: AbortSignal;
  readonly disputeAll: boolean | undefined;
}

/**
 * Sees to it that the money of a failed attempt comes back: from the provider itself when the fault is told, by cancelling
 * when the buyer gave up or the proof is bad (that costs the seconds since the opening instead of what a liar may claim),
 * else after the deadline (reclaim.ts). A provider that broke its word is paid nothing: it may still give the money back.
 */
export async function afterFailure(buyer: Buyer, failed: FailedAttempt, error: unknown): Promise<void> {
  if (isContested(error, failed)) await buyer.contests.add(failed.lease, failed.tell);
  if (isLeftAlone(error)) return;
  const code = error instanceof MoltError ? error.code : '';
  const badProof = code.startsWith('proof/');
  const gone = code === 'job/provider-lost' || code === 'job/unknown' || code.startsWith('mesh/');
  const ask = badProof || gone;
  const lease = ask
    ? await buyer.chain.lease(failed.lease).catch(() => undefined)
    : await waitUntilClosed(buyer, failed.lease);
  if (lease === undefined || !(badProof || failed.signal.aborted)) return;
  await buyer.chain.cancelByDelegate(buyer.key, lease).catch(() => undefined);
}

/** Whether the provider did what it signed not to do, or the buyer wants its claim judged, which is worth a dispute. */
function isContested(error: unknown, { disputeAll }: FailedAttempt): boolean {
  return isBrokenWord(error) || (disputeAll === true && hasCode(error, 'proof/no-majority'));
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
