/**
 * One transaction that opens several leases: who is asked to sign it looks for its own lease, and for nothing else.
 *
 * A signature counts for every instruction that names its key. So a party signs a transaction that it did not build only
 * if its key stands in exactly one instruction, and that one is the opening which it derives itself. What the others do
 * in theirs is between them and the fee payer.
 */
import { Message, type TransactionInstruction } from '@solana/web3.js';

import type { Address } from '../protocol/address.ts';
import { MoltError } from '../protocol/errors.ts';
import { WIRE_BYTES_MAX } from './instructions.ts';

interface ExpectedOpening {
  /** Who is asked to sign. */
  readonly operator: Address;
  /** Who pays the fee. */
  readonly delegate: Address;
  readonly instruction: TransactionInstruction;
}

/**
 * Throws `chain/transaction-mismatch` unless the operator's signature under this legacy message opens this lease, and does
 * nothing else.
 */
export function assertOpensOnly(bytes: Uint8Array, expected: ExpectedOpening): void {
  const message = readMessage(bytes);
  const { operator, delegate, instruction } = expected;
  const keys = message.accountKeys.map((key) => key.toBase58());
  const mine = keys.indexOf(operator);
  if (keys[0] !== delegate) throw mismatch('its fee payer is not the buyer');
  if (new Set(keys).size !== keys.length) throw mismatch('it names an account twice');
  if (mine < 1 || mine >= message.header.numRequiredSignatures) throw mismatch('it does not ask for our signature');
  const naming = message.compiledInstructions.filter(
    ({ programIdIndex, accountKeyIndexes }) => programIdIndex === mine || accountKeyIndexes.includes(mine),
  );
  const [only] = naming;
  if (only === undefined || naming.length > 1) {
    throw mismatch(`${naming.length} of its instructions name our key, it must be the one that opens the lease`);
  }
  const isOurs =
    keys[only.programIdIndex] === instruction.programId.toBase58() &&
    only.accountKeyIndexes.length === instruction.keys.length &&
    only.accountKeyIndexes.every((index, at) => keys[index] === instruction.keys[at]?.pubkey.toBase58()) &&
    Buffer.from(only.data).equals(instruction.data);
  if (!isOurs) throw mismatch('the lease that it opens is not the one of the quote');
}

/** Only what is written as the cluster writes it, so that both read the same. */
function readMessage(bytes: Uint8Array): Message {
  try {
    const message = Message.from(bytes);
    if (bytes.length <= WIRE_BYTES_MAX && Buffer.from(message.serialize()).equals(bytes)) return message;
  } catch (cause) {
    throw mismatch('it is not a legacy message', cause);
  }
  throw mismatch('it is longer than a transaction can be, or is not written in the one way');
}

function mismatch(why: string, cause?: unknown): MoltError {
  const message = `the transaction is not signed: ${why}; build it from the terms of the quotes`;
  return new MoltError('chain/transaction-mismatch', message, {}, { cause });
}
