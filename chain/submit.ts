/**
 * Sending a transaction and learning its fate, with the errors of the catalogue.
 *
 * The same signed bytes are sent as often as needed: a cluster executes them at most once, so no repetition pays twice.
 * "Nothing happened" (`chain/blockhash-expired`) is said only when the blockhash cannot be used any more and the
 * transaction is in no block; where that cannot be learnt, the fate is unknown (`chain/not-confirmed`), and only the
 * accounts tell.
 *
 * A transaction is looked up right after it was sent, because a local chain has decided by then; only if it has not, a
 * websocket subscription waits, with polling behind it for the notification that never comes.
 */
import { SendTransactionError, type Connection, type SignatureStatus, type TransactionError } from '@solana/web3.js';
import { base58btc } from 'multiformats/bases/base58';

import type { Env } from '../protocol/env.ts';
import { MoltError, assert, hasCode } from '../protocol/errors.ts';
import type { Confirmed, Draft, Signatures } from './chain.ts';
import { EndpointError } from './connection.ts';
import { wireTransaction } from './instructions.ts';
import { programError } from './program-errors.ts';

const POLL_MS = 400;
/** Leaders drop transactions under load; the same bytes are sent again. */
const RESEND_MS = 2_000;
/** Longer than a blockhash lives, so that the fate is known by then unless the cluster is in trouble. */
const GIVE_UP_MS = 90_000;

/** Puts the signatures in the draft's order. Throws `chain/transaction-mismatch` when one is missing. */
function collectSignatures(draft: Draft, signatures: Signatures): Uint8Array[] {
  return draft.signers.map((address) => {
    const signature = Array.isArray(signatures)
      ? signatures.find((signer) => signer.address === address)?.sign(draft.message)
      : (signatures as ReadonlyMap<string, Uint8Array>).get(address);
    if (signature?.length === 64) return signature;
    throw new MoltError(
      'chain/transaction-mismatch',
      `the transaction needs a signature of ${address}, and there is none: collect it from that party first`,
      { signer: address },
    );
  });
}

/** A signed transaction on its way. */
interface Sent {
  readonly env: Env;
  readonly connection: Connection;
  readonly wire: Uint8Array;
  readonly signature: string;
  readonly blockhash: string;
}

/** Sends the signed draft and resolves once it is confirmed. Throws the errors listed at `Chain`. */
export async function submitDraft(
  env: Env,
  connection: Connection,
  draft: Draft,
  signatures: Signatures,
): Promise<Confirmed> {
  const ordered = collectSignatures(draft, signatures);
  const [first] = ordered;
  assert(first, 'a transaction has a fee payer');
  const signature = base58btc.baseEncode(first);
  const wire = wireTransaction(draft, ordered);
  const sent: Sent = { env, connection, wire, signature, blockhash: blockhashOf(draft) };
  const refused = await send(sent);
  const status = (await readStatus(sent).catch(ignoreUnreachable)) ?? (await awaitStatus(sent, refused));
  if (status.err !== null) throw refusal(status.err, signature);
  return { signature };
}

/**
 * Sends once. What certainly did not go out is thrown; a refusal that an earlier arrival of the same bytes would explain
 * too is returned, for the transaction's status to decide.
 */
async function send({ connection, wire }: Sent): Promise<MoltError | undefined> {
  try {
    await connection.sendRawTransaction(wire, { preflightCommitment: 'confirmed' });
    return undefined;
  } catch (error) {
    // An answer that never came is no refusal: the request may have arrived.
    if (error instanceof EndpointError && error.mayHaveArrived) return undefined;
    const refused = refusalOfSend(error);
    // A node that has seen it already refuses to take it twice; its fate is what the status says.
    if (refused === 'already-processed') return undefined;
    if (hasCode(refused, 'chain/blockhash-expired')) return refused;
    throw refused;
  }
}

function ignoreUnreachable(error: unknown): undefined {
  if (hasCode(error, 'chain/unreachable')) return undefined;
  throw error;
}

async function readStatus({ connection, signature }: Sent): Promise<SignatureStatus | undefined> {
  const { value } = await reach(connection.getSignatureStatuses([signature]));
  const status = value[0];
  return status && status.confirmationStatus !== 'processed' ? status : undefined;
}

async function awaitStatus(sent: Sent, refused: MoltError | undefined): Promise<SignatureStatus> {
  const { env, connection, signature } = sent;
  const startedMs = env.clock.monotonic();
  let sentMs = startedMs;
  let wake: () => void = () => undefined;
  const subscription = connection.onSignature(signature, () => wake(), 'confirmed');
  try {
    for (let round = 0; ; round++) {
      const timer = new AbortController();
      const notified = new Promise<void>((resolve) => {
        wake = resolve;
      });
      // A refused blockhash is looked at without waiting: usually it is simply too old.
      if (refused === undefined || round > 0)
        await Promise.race([notified, env.clock.sleep(POLL_MS, timer.signal).catch(() => undefined)]);
      timer.abort();
      const look = await lookOnce(sent).catch(ignoreUnreachable);
      if (look?.status) return look.status;
      if (look?.alive === false) throw refused ?? expired(signature);
      const nowMs = env.clock.monotonic();
      if (nowMs - startedMs > GIVE_UP_MS) throw unknownFate(signature);
      if (nowMs - sentMs < RESEND_MS) continue;
      sentMs = nowMs;
      // Refusals of a repetition say nothing about the first one.
      await send(sent).catch(() => undefined);
    }
  } finally {
    await connection.removeSignatureListener(subscription).catch(() => undefined);
  }
}

/** Asked before the status: a transaction can still be included between the two questions, never after both. */
async function lookOnce(
  sent: Sent,
): Promise<{ readonly alive: boolean; readonly status: SignatureStatus | undefined }> {
  const { connection, blockhash } = sent;
  const alive = await reach(connection.isBlockhashValid(blockhash, { commitment: 'confirmed' }));
  return { alive: alive.value, status: await readStatus(sent) };
}

function unknownFate(signature: string): MoltError {
  return new MoltError(
    'chain/not-confirmed',
    `transaction ${signature} was sent but is not confirmed after ${GIVE_UP_MS / 1000} s: it may have counted, so look at what it was for before trying again`,
    { signature },
  );
}

/** The recent blockhash inside a legacy message: after the header and the account keys. */
export function blockhashOf(draft: Draft): string {
  const { message } = draft;
  const count = message[3] ?? 0;
  assert(count < 128, 'a legacy message of ours names fewer than 128 accounts');
  const start = 4 + 32 * count;
  return base58btc.baseEncode(message.subarray(start, start + 32));
}

/** Runs a request; what fails in the transport becomes `chain/unreachable`. */
export async function reach<T>(request: Promise<T>): Promise<T> {
  try {
    return await request;
  } catch (error) {
    if (error instanceof MoltError) throw error;
    throw unreachable(error);
  }
}

export function unreachable(cause: unknown): MoltError {
  const text = cause instanceof Error ? cause.message : String(cause);
  return new MoltError(
    'chain/unreachable',
    `the RPC endpoint did not answer as a Solana cluster does (${text.slice(0, 200)}): check rpcUrl and that the chain is running; molt devnet starts a local one`,
    {},
    { cause },
  );
}

function expired(signature?: string): MoltError {
  return new MoltError(
    'chain/blockhash-expired',
    'the chain did not take the transaction before its blockhash expired, and never will: nothing happened, try again',
    { signature },
  );
}

/** JSON-RPC reports what preflight found as text only, in the words of the runtime. */
function refusalOfSend(error: unknown): MoltError | 'already-processed' {
  if (!(error instanceof SendTransactionError)) return unreachable(error);
  const text = error.transactionError.message;
  if (/already been processed/i.test(text)) return 'already-processed';
  if (/blockhash not found/i.test(text)) return expired();
  const custom = /Instruction (\d+): custom program error: 0x([0-9a-f]+)/i.exec(text);
  if (custom) return refusal({ InstructionError: [Number(custom[1]), { Custom: parseInt(custom[2] ?? '', 16) }] });
  if (
    /debit an account but found no record|insufficient (funds|lamports)|insufficient funds for (fee|rent)/i.test(text)
  ) {
    return poor('lamports to pay the fee and rent of the transaction');
  }
  return new MoltError(
    'chain/refused',
    `the chain refused the transaction: ${text.slice(0, 300)}`,
    {},
    { cause: error },
  );
}

function poor(what: string): MoltError {
  return new MoltError('chain/insufficient-funds', `the account has not enough ${what}: transfer some to it first`);
}

/** The error of an executed or simulated transaction. Small custom numbers come from SPL Token and the system program. */
function refusal(error: TransactionError, signature?: string): MoltError {
  const custom = customNumber(error);
  const known = custom === undefined ? undefined : programError(custom);
  if (known) {
    return new MoltError(known.code, `the chain program refused (${known.name}): ${known.text}`, {
      program: known.name,
      number: known.number,
      signature,
    });
  }
  if (custom === 1) return poor('tokens, or lamports for the rent of a new account');
  const text = JSON.stringify(error);
  if (/InsufficientFunds/.test(text)) return poor('lamports to pay the fee and rent of the transaction');
  if (/BlockhashNotFound/.test(text)) return expired(signature);
  return new MoltError('chain/refused', `the chain refused the transaction: ${text}`, { signature });
}

function customNumber(error: TransactionError): number | undefined {
  if (typeof error !== 'object' || !('InstructionError' in error)) return undefined;
  const detail: unknown = Array.isArray(error.InstructionError) ? error.InstructionError[1] : undefined;
  return typeof detail === 'object' && detail !== null && 'Custom' in detail ? Number(detail.Custom) : undefined;
}
