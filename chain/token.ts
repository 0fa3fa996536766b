/**
 * The few SPL Token instructions that Molt sends itself, and the addresses of the two token programs.
 *
 * `@solana/spl-token` would bring a native module with a known memory error (bigint-buffer) for these thirty lines, so
 * it serves only as the cross-check in test/chain/token.test.ts.
 */
import { PublicKey, SystemProgram, TransactionInstruction } from '@solana/web3.js';

import { decodeAddress, type Address } from '../protocol/address.ts';
import type { BaseUnits } from '../protocol/units.ts';

export const TOKEN_PROGRAM = 'TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA' as Address;
export const ASSOCIATED_TOKEN_PROGRAM = 'ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL' as Address;
/** Bytes of a mint and of a token account. */
export const MINT_SIZE = 82;
export const TOKEN_ACCOUNT_SIZE = 165;

const key = (address: Address): PublicKey => new PublicKey(address);
const writable = (
  address: Address,
  isSigner = false,
): { pubkey: PublicKey; isSigner: boolean; isWritable: boolean } => ({
  pubkey: key(address),
  isSigner,
  isWritable: true,
});
const readonly = (
  address: Address,
  isSigner = false,
): { pubkey: PublicKey; isSigner: boolean; isWritable: boolean } => ({
  pubkey: key(address),
  isSigner,
  isWritable: false,
});

/** Makes the default token account `account` of `owner` unless it exists. */
export function createTokenAccount(accounts: {
  readonly payer: Address;
  readonly account: Address;
  readonly owner: Address;
  readonly mint: Address;
}): TransactionInstruction {
  return new TransactionInstruction({
    programId: key(ASSOCIATED_TOKEN_PROGRAM),
    keys: [
      writable(accounts.payer, true),
      writable(accounts.account),
      readonly(accounts.owner),
      readonly(accounts.mint),
      { pubkey: SystemProgram.programId, isSigner: false, isWritable: false },
      readonly(TOKEN_PROGRAM),
    ],
    data: Buffer.from([1]),
  });
}

/** Makes a fresh account of MINT_SIZE bytes a mint without a freeze authority. */
export function initializeMint(mint: Address, decimals: number, authority: Address): TransactionInstruction {
  return new TransactionInstruction({
    programId: key(TOKEN_PROGRAM),
    keys: [writable(mint)],
    data: Buffer.concat([Buffer.from([20, decimals]), decodeAddress(authority), Buffer.from([0])]),
  });
}

/** New tokens into `account`; `authority` signs. */
export function mintTokens(
  mint: Address,
  account: Address,
  authority: Address,
  amount: BaseUnits,
): TransactionInstruction {
  const data = Buffer.alloc(9);
  data.writeUInt8(7);
  data.writeBigUInt64LE(amount, 1);
  return new TransactionInstruction({
    programId: key(TOKEN_PROGRAM),
    keys: [writable(mint), writable(account), readonly(authority, true)],
    data,
  });
}
