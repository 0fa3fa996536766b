/** Program-derived addresses of the chain program: the only place that knows their seeds. */
import { PublicKey } from '@solana/web3.js';

import { decodeAddress, type Address } from '../protocol/address.ts';
import { ASSOCIATED_TOKEN_PROGRAM, TOKEN_PROGRAM } from './token.ts';

const UPGRADEABLE_LOADER = 'BPFLoaderUpgradeab1e11111111111111111111111' as Address;

/** Address and the bump that makes it fall off the curve. */
export interface Derived {
  readonly address: Address;
  readonly bump: number;
}

/** Searching costs up to a millisecond, so the last ones are kept. */
const KEPT_MAX = 4_096;
const kept = new Map<string, Derived>();

function derive(programId: Address, seeds: readonly Uint8Array[]): Derived {
  const name = `${programId}/${seeds.map((seed) => Buffer.from(seed).toString('base64')).join('/')}`;
  const known = kept.get(name);
  if (known) return known;
  const [key, bump] = PublicKey.findProgramAddressSync([...seeds], new PublicKey(programId));
  const derived = { address: key.toBase58() as Address, bump };
  if (kept.size >= KEPT_MAX) kept.clear();
  kept.set(name, derived);
  return derived;
}

function u64(value: bigint): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
}

const seed = (text: string): Uint8Array => Buffer.from(text, 'latin1');

export const configAddress = (program: Address): Derived => derive(program, [seed('config')]);
export const providerAddress = (program: Address, owner: Address): Derived =>
  derive(program, [seed('provider'), decodeAddress(owner)]);
export const stakeVaultAddress = (program: Address, provider: Address): Derived =>
  derive(program, [seed('stake'), decodeAddress(provider)]);
export const budgetAddress = (program: Address, owner: Address, id: bigint): Derived =>
  derive(program, [seed('budget'), decodeAddress(owner), u64(id)]);
export const vaultAddress = (program: Address, budget: Address): Derived =>
  derive(program, [seed('vault'), decodeAddress(budget)]);
export const leaseAddress = (program: Address, budget: Address, termsDigest: Uint8Array): Derived =>
  derive(program, [seed('lease'), decodeAddress(budget), termsDigest]);
export const delegationAddress = (program: Address, provider: Address, staker: Address): Derived =>
  derive(program, [seed('delegation'), decodeAddress(provider), decodeAddress(staker)]);
export const disputeAddress = (program: Address, lease: Address): Derived =>
  derive(program, [seed('dispute'), decodeAddress(lease)]);
export const offenceAddress = (program: Address, provider: Address, digest: Uint8Array): Derived =>
  derive(program, [seed('offence'), decodeAddress(provider), digest]);

/** Where the upgradeable loader keeps a program's code and who may replace it. */
export const programDataAddress = (program: Address): Address =>
  derive(UPGRADEABLE_LOADER, [decodeAddress(program)]).address;

/** The associated token account: where a wallet holds a mint by default. */
export const tokenAddress = (owner: Address, mint: Address): Address =>
  derive(ASSOCIATED_TOKEN_PROGRAM, [decodeAddress(owner), decodeAddress(TOKEN_PROGRAM), decodeAddress(mint)]).address;
