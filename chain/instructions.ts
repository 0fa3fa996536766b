/** Instructions of the chain program, built from chain/layout.ts, and the drafts that hold them. */
import { PublicKey, SystemProgram, Transaction, TransactionInstruction } from '@solana/web3.js';

import type { Address } from '../protocol/address.ts';
import { assert } from '../protocol/errors.ts';
import type { Draft } from './chain.ts';
import { encodeInstruction, type InstructionFields } from './codec.ts';
import { INSTRUCTIONS, type AccountMeta, type InstructionName } from './layout.ts';
import { TOKEN_PROGRAM } from './token.ts';

/** Most bytes of a transaction, signatures and message. */
export const WIRE_BYTES_MAX = 1_232;

/** Where the local chain installs the program. Nobody has a key for it; a public cluster has another address. */
export const LOCAL_PROGRAM_ID = 'Mo1tMarket111111111111111111111111111111111' as Address;

type AccountNames<K extends InstructionName> = (typeof INSTRUCTIONS)[K]['accounts'][number]['name'];

/** The accounts that an instruction names; programs are filled in. */
export type InstructionAccounts<K extends InstructionName> = Readonly<
  Record<Exclude<AccountNames<K>, 'tokenProgram' | 'systemProgram'>, Address>
>;

const PROGRAMS: Readonly<Record<string, PublicKey>> = {
  tokenProgram: new PublicKey(TOKEN_PROGRAM),
  systemProgram: SystemProgram.programId,
};

/** One call: which instruction, of which program, with which accounts and data. */
export interface Call<K extends InstructionName> {
  readonly programId: Address;
  readonly name: K;
  readonly accounts: InstructionAccounts<K>;
  readonly fields: InstructionFields<K>;
  /** Which of the accounts that may sign do sign. */
  readonly signing?: readonly Address[];
}

export function buildInstruction<K extends InstructionName>(call: Call<K>): TransactionInstruction {
  const metas: readonly AccountMeta[] = INSTRUCTIONS[call.name].accounts;
  const named: Readonly<Record<string, Address>> = call.accounts;
  const keys = metas.map(({ name, signer, writable }) => {
    const address = named[name];
    const pubkey = PROGRAMS[name] ?? (address === undefined ? undefined : new PublicKey(address));
    assert(pubkey, `${call.name} needs the account ${name}`);
    const signs =
      signer === true || (signer === 'may' && address !== undefined && call.signing?.includes(address) === true);
    return { pubkey, isSigner: signs, isWritable: writable === true };
  });
  return new TransactionInstruction({
    programId: new PublicKey(call.programId),
    keys,
    data: Buffer.from(encodeInstruction(call.name, call.fields)),
  });
}

/** A legacy message. The same instructions, fee payer and blockhash give the same bytes on both sides. */
export function buildDraft(
  feePayer: Address,
  blockhash: string,
  instructions: readonly TransactionInstruction[],
): Draft {
  const message = new Transaction({ feePayer: new PublicKey(feePayer), recentBlockhash: blockhash })
    .add(...instructions)
    .compileMessage();
  return {
    message: new Uint8Array(message.serialize()),
    signers: message.accountKeys.slice(0, message.header.numRequiredSignatures).map((key) => key.toBase58() as Address),
  };
}

/** Whether a cluster takes these instructions as one transaction. */
export function fitsTransaction(
  payer: Address,
  blockhash: string,
  instructions: readonly TransactionInstruction[],
): boolean {
  try {
    const { message, signers } = buildDraft(payer, blockhash, instructions);
    return 1 + 64 * signers.length + message.length <= WIRE_BYTES_MAX;
  } catch (error) {
    // The library refuses to write what is far too long.
    if (error instanceof RangeError) return false;
    throw error;
  }
}

/** Signatures in the order of the draft's signers, then the message: the wire form of a transaction. */
export function wireTransaction(draft: Draft, signatures: readonly Uint8Array[]): Uint8Array {
  assert(signatures.length === draft.signers.length && signatures.length < 128, 'one signature per signer');
  return Buffer.concat([Uint8Array.of(signatures.length), ...signatures, draft.message]);
}
