/**
 * The chain program's layouts, declared once: accounts, instructions, events and error codes.
 *
 * From these tables come the TypeScript codecs (chain/codec.ts), the C header of the program (`npm run program` writes
 * chain/program/layout.h) and the instruction builders. Everything is little endian, every field sits at a multiple of
 * its own size, so that C reads it in place; gaps are declared as `spare…` fields, which encode as zero and do not
 * appear in TypeScript values. Money is u64 base units, times are i64 Unix seconds of the Clock sysvar, durations are
 * u32 seconds, fractions are u16 basis points. Spare bytes at the end of an account are where later fields go.
 */

/** `record` names an entry of RECORDS and is laid out in place. */
export type FieldType =
  | 'u8'
  | 'u16'
  | 'u32'
  | 'u64'
  | 'i64'
  | 'key'
  | { readonly bytes: number }
  | { readonly keys: number }
  | { readonly record: 'parameters' | 'limits' | 'pool' | 'seat' };
export type Field = readonly [name: string, type: FieldType];

/** Parts used inside several layouts. */
export const RECORDS = {
  parameters: [
    ['stakeFeeBps', 'u16'],
    ['burnFeeBps', 'u16'],
    ['reserveBps', 'u16'],
    ['noShowSlashBps', 'u16'],
    ['disputeBondBps', 'u16'],
    ['equivocationSlashBps', 'u16'],
    ['minGraceSeconds', 'u32'],
    ['minWindowSeconds', 'u32'],
    ['maxLeaseSeconds', 'u32'],
    ['unbondingSeconds', 'u32'],
    ['voteSeconds', 'u32'],
    ['revealSeconds', 'u32'],
    ['spare', { bytes: 4 }],
    ['minStake', 'u64'],
    ['verifierPledge', 'u64'],
  ],
  limits: [
    ['delegateCount', 'u8'],
    ['spare', { bytes: 7 }],
    ['capPerLease', 'u64'],
    ['capPerDay', 'u64'],
    ['expiry', 'i64'],
    ['delegates', { keys: 4 }],
  ],
  /** Stake of one kind behind a provider. `unbonding` are those of the shares that are on their way out. */
  pool: [
    ['stake', 'u64'],
    ['shares', 'u64'],
    ['unbonding', 'u64'],
    ['generation', 'u32'],
    ['spare', { bytes: 4 }],
  ],
  /** One drawn verifier. */
  seat: [
    ['verifier', 'key'],
    ['commitment', { bytes: 32 }],
    ['pledge', 'u64'],
    ['committed', 'u8'],
    ['vote', 'u8'],
    ['spare', { bytes: 6 }],
  ],
} as const satisfies Record<string, readonly Field[]>;

/** Account data. `tag` is the first byte and tells the kinds apart; no two kinds share a size or a tag. */
export const ACCOUNTS = {
  config: {
    tag: 1,
    fields: [
      ['tag', 'u8'],
      ['bump', 'u8'],
      ['verifierCount', 'u8'],
      ['spare', { bytes: 5 }],
      ['parameters', { record: 'parameters' }],
      ['queued', { record: 'parameters' }],
      /** From then on the queued parameters can be applied; 0: none are queued. */
      ['applicableAt', 'i64'],
      ['authority', 'key'],
      ['mint', 'key'],
      ['network', 'key'],
      ['verifiers', { keys: 32 }],
      ['spareEnd', { bytes: 64 }],
    ],
  },
  provider: {
    tag: 2,
    fields: [
      ['tag', 'u8'],
      ['bump', 'u8'],
      ['commissionBps', 'u16'],
      ['openLeases', 'u32'],
      ['owner', 'key'],
      ['operator', 'key'],
      ['payout', 'key'],
      ['stakeVault', 'key'],
      ['own', { record: 'pool' }],
      ['delegated', { record: 'pool' }],
      ['reserved', 'u64'],
      ['settledCount', 'u64'],
      ['settledAmount', 'u64'],
      ['feesBurned', 'u64'],
      ['faults', 'u64'],
      ['faultAmount', 'u64'],
      ['registeredAt', 'i64'],
      ['slashed', 'u64'],
      ['slashDue', 'u64'],
      ['jailedUntil', 'i64'],
      ['rotatedAt', 'i64'],
      ['formerOperator', 'key'],
      ['spareEnd', { bytes: 32 }],
    ],
  },
  budget: {
    tag: 3,
    fields: [
      ['tag', 'u8'],
      ['bump', 'u8'],
      ['spare', { bytes: 2 }],
      ['openLeases', 'u32'],
      ['id', 'u64'],
      ['owner', 'key'],
      ['vault', 'key'],
      ['locked', 'u64'],
      ['spentToday', 'u64'],
      ['day', 'i64'],
      ['limits', { record: 'limits' }],
      ['spareEnd', { bytes: 32 }],
    ],
  },
  lease: {
    tag: 4,
    fields: [
      ['tag', 'u8'],
      ['bump', 'u8'],
      ['state', 'u8'],
      ['spare', { bytes: 1 }],
      ['graceSeconds', 'u32'],
      ['windowSeconds', 'u32'],
      ['stakeFeeBps', 'u16'],
      ['burnFeeBps', 'u16'],
      ['noShowSlashBps', 'u16'],
      ['commissionBps', 'u16'],
      ['disputeBondBps', 'u16'],
      ['spareFlags', { bytes: 2 }],
      ['budget', 'key'],
      ['provider', 'key'],
      ['operator', 'key'],
      ['delegate', 'key'],
      ['rentPayer', 'key'],
      ['payout', 'key'],
      ['termsDigest', { bytes: 32 }],
      ['resultDigest', { bytes: 32 }],
      ['amount', 'u64'],
      ['pricePerSecond', 'u64'],
      ['reserve', 'u64'],
      ['redeemed', 'u64'],
      ['claimed', 'u64'],
      ['openedAt', 'i64'],
      ['finishBy', 'i64'],
      ['provenAt', 'i64'],
      ['spareEnd', { bytes: 24 }],
    ],
  },
  delegation: {
    tag: 5,
    fields: [
      ['tag', 'u8'],
      ['bump', 'u8'],
      ['spare', { bytes: 2 }],
      ['generation', 'u32'],
      ['provider', 'key'],
      ['staker', 'key'],
      ['shares', 'u64'],
      ['unbonding', 'u64'],
      ['unbondingUntil', 'i64'],
      ['principal', 'u64'],
      ['spareEnd', { bytes: 16 }],
    ],
  },
  dispute: {
    tag: 6,
    fields: [
      ['tag', 'u8'],
      ['bump', 'u8'],
      ['drawn', 'u8'],
      ['spare', { bytes: 5 }],
      ['lease', 'key'],
      ['provider', 'key'],
      ['rentPayer', 'key'],
      ['bond', 'u64'],
      /** The verifiers come from the hash of the first slot after this one. */
      ['slot', 'u64'],
      /** Before the draw: until when it must be made. After it: until when votes are committed. */
      ['voteUntil', 'i64'],
      ['revealUntil', 'i64'],
      ['seat0', { record: 'seat' }],
      ['seat1', { record: 'seat' }],
      ['seat2', { record: 'seat' }],
      ['spareEnd', { bytes: 16 }],
    ],
  },
  offence: {
    tag: 7,
    fields: [
      ['tag', 'u8'],
      ['bump', 'u8'],
      ['kind', 'u8'],
      ['spare', { bytes: 5 }],
      ['provider', 'key'],
      ['reporter', 'key'],
      /** The budget that is compensated; zero: none. */
      ['harmed', 'key'],
      ['digest', { bytes: 32 }],
      ['amount', 'u64'],
      ['due', 'u64'],
      ['provenAt', 'i64'],
    ],
  },
} as const satisfies Record<string, { readonly tag: number; readonly fields: readonly Field[] }>;

/** Values of `lease.state`. */
export const LEASE_STATES = { running: 1, proven: 2, disputed: 3 } as const;

/** Values of `seat.vote`: whose word a verifier found to be true. 0: not revealed. */
export const VOTES = { provider: 1, buyer: 2 } as const;

/** How a lease ended: values of the event's `ending`. */
export const LEASE_ENDINGS = {
  settledTogether: 1,
  settledByDelegate: 2,
  settledAfterWindow: 3,
  cancelledByOperator: 4,
  cancelledByDelegate: 5,
  cancelledTogether: 6,
  expired: 7,
  resolvedForProvider: 8,
  resolvedForBuyer: 9,
  resolvedNeutral: 10,
} as const;

/** Why stake was slashed: values of the event's `reason`. */
export const SLASH_REASONS = { noShow: 1, wrongResult: 2, equivocation: 3, missedVote: 4 } as const;

/** Data of `sol_log_data`, one blob per event. */
export const EVENTS = {
  leaseEnded: {
    tag: 1,
    fields: [
      ['tag', 'u8'],
      ['ending', 'u8'],
      ['spare', { bytes: 6 }],
      ['lease', 'key'],
      ['budget', 'key'],
      ['provider', 'key'],
      ['resultDigest', { bytes: 32 }],
      ['paid', 'u64'],
      ['refunded', 'u64'],
      ['burned', 'u64'],
      ['staked', 'u64'],
      ['slashed', 'u64'],
    ],
  },
  voucherRedeemed: {
    tag: 2,
    fields: [
      ['tag', 'u8'],
      ['spare', { bytes: 7 }],
      ['lease', 'key'],
      ['budget', 'key'],
      ['provider', 'key'],
      ['redeemed', 'u64'],
      ['burned', 'u64'],
      ['staked', 'u64'],
    ],
  },
  stakeSlashed: {
    tag: 3,
    fields: [
      ['tag', 'u8'],
      ['reason', 'u8'],
      ['spare', { bytes: 6 }],
      ['provider', 'key'],
      ['own', 'u64'],
      ['delegated', 'u64'],
      ['paid', 'u64'],
      ['burned', 'u64'],
    ],
  },
} as const satisfies Record<string, { readonly tag: number; readonly fields: readonly Field[] }>;

/** `may` sign: the program looks whether it did and decides what that allows. */
export interface AccountMeta {
  readonly name: string;
  readonly signer?: true | 'may';
  readonly writable?: true;
}

const CLOSING = [
  { name: 'rentPayer', writable: true },
  { name: 'provider', writable: true },
  { name: 'budget', writable: true },
  { name: 'lease', writable: true },
  { name: 'vault', writable: true },
  { name: 'stakeVault', writable: true },
  { name: 'mint', writable: true },
] as const satisfies readonly AccountMeta[];

const PAYING = [
  { name: 'delegate', signer: 'may' },
  { name: 'operator', signer: 'may' },
  ...CLOSING,
  { name: 'payout', writable: true },
  { name: 'tokenProgram' },
] as const satisfies readonly AccountMeta[];

const AMOUNT = [
  ['tag', 'u8'],
  ['spare', { bytes: 7 }],
  ['amount', 'u64'],
] as const satisfies readonly Field[];

/** Instruction data and accounts, in order. The first byte of the data is `tag`. */
export const INSTRUCTIONS = {
  initialize: {
    tag: 0,
    accounts: [
      { name: 'authority', signer: true, writable: true },
      { name: 'config', writable: true },
      { name: 'mint' },
      { name: 'programData' },
      { name: 'systemProgram' },
    ],
    fields: [
      ['tag', 'u8'],
      ['spare', { bytes: 7 }],
      ['parameters', { record: 'parameters' }],
      ['network', 'key'],
    ],
  },
  queueParameters: {
    tag: 1,
    accounts: [
      { name: 'authority', signer: true },
      { name: 'config', writable: true },
    ],
    fields: [
      ['tag', 'u8'],
      ['spare', { bytes: 7 }],
      ['parameters', { record: 'parameters' }],
    ],
  },
  registerProvider: {
    tag: 2,
    accounts: [
      { name: 'owner', signer: true, writable: true },
      { name: 'config' },
      { name: 'provider', writable: true },
      { name: 'stakeVault', writable: true },
      { name: 'payout' },
      { name: 'mint' },
      { name: 'tokenProgram' },
      { name: 'systemProgram' },
    ],
    fields: [
      ['tag', 'u8'],
      ['bump', 'u8'],
      ['commissionBps', 'u16'],
      ['vaultBump', 'u8'],
      ['spare', { bytes: 3 }],
      ['operator', 'key'],
    ],
  },
  updateProvider: {
    tag: 3,
    accounts: [
      { name: 'owner', signer: true },
      { name: 'config' },
      { name: 'provider', writable: true },
      { name: 'payout' },
    ],
    fields: [
      ['tag', 'u8'],
      ['spare', { bytes: 1 }],
      ['commissionBps', 'u16'],
      ['spareKey', { bytes: 4 }],
      ['operator', 'key'],
    ],
  },
  stake: {
    tag: 4,
    accounts: [
      { name: 'staker', signer: true, writable: true },
      { name: 'provider', writable: true },
      { name: 'delegation', writable: true },
      { name: 'source', writable: true },
      { name: 'stakeVault', writable: true },
      { name: 'tokenProgram' },
      { name: 'systemProgram' },
    ],
    fields: [
      ['tag', 'u8'],
      ['bump', 'u8'],
      ['spare', { bytes: 6 }],
      ['amount', 'u64'],
    ],
  },
  unstake: {
    tag: 5,
    accounts: [
      { name: 'staker', signer: true },
      { name: 'config' },
      { name: 'provider', writable: true },
      { name: 'delegation', writable: true },
    ],
    fields: [
      ['tag', 'u8'],
      ['spare', { bytes: 7 }],
      ['shares', 'u64'],
    ],
  },
  createBudget: {
    tag: 6,
    accounts: [
      { name: 'owner', signer: true, writable: true },
      { name: 'config' },
      { name: 'budget', writable: true },
      { name: 'vault', writable: true },
      { name: 'mint' },
      { name: 'tokenProgram' },
      { name: 'systemProgram' },
    ],
    fields: [
      ['tag', 'u8'],
      ['bump', 'u8'],
      ['vaultBump', 'u8'],
      ['spare', { bytes: 5 }],
      ['id', 'u64'],
      ['limits', { record: 'limits' }],
    ],
  },
  deposit: {
    tag: 7,
    accounts: [
      { name: 'depositor', signer: true },
      { name: 'budget' },
      { name: 'source', writable: true },
      { name: 'vault', writable: true },
      { name: 'tokenProgram' },
    ],
    fields: AMOUNT,
  },
  withdrawBudget: {
    tag: 8,
    accounts: [
      { name: 'owner', signer: true },
      { name: 'budget' },
      { name: 'vault', writable: true },
      { name: 'destination', writable: true },
      { name: 'tokenProgram' },
    ],
    fields: AMOUNT,
  },
  setDelegates: {
    tag: 9,
    accounts: [
      { name: 'owner', signer: true },
      { name: 'budget', writable: true },
    ],
    fields: [
      ['tag', 'u8'],
      ['spare', { bytes: 7 }],
      ['limits', { record: 'limits' }],
    ],
  },
  closeBudget: {
    tag: 10,
    accounts: [
      { name: 'owner', signer: true, writable: true },
      { name: 'budget', writable: true },
      { name: 'vault', writable: true },
      { name: 'destination', writable: true },
      { name: 'tokenProgram' },
    ],
    fields: [['tag', 'u8']],
  },
  openLease: {
    tag: 11,
    accounts: [
      { name: 'payer', signer: true, writable: true },
      { name: 'delegate', signer: true },
      { name: 'operator', signer: true },
      { name: 'config' },
      { name: 'provider', writable: true },
      { name: 'budget', writable: true },
      { name: 'vault' },
      { name: 'lease', writable: true },
      { name: 'systemProgram' },
    ],
    fields: [
      ['tag', 'u8'],
      ['bump', 'u8'],
      ['spare', { bytes: 2 }],
      ['graceSeconds', 'u32'],
      ['windowSeconds', 'u32'],
      ['spareAmount', { bytes: 4 }],
      ['amount', 'u64'],
      ['pricePerSecond', 'u64'],
      ['reserve', 'u64'],
      ['openBefore', 'i64'],
      ['finishBy', 'i64'],
      ['termsDigest', { bytes: 32 }],
    ],
  },
  submitProof: {
    tag: 12,
    accounts: [
      { name: 'operator', signer: true },
      { name: 'lease', writable: true },
    ],
    fields: [
      ['tag', 'u8'],
      ['spare', { bytes: 7 }],
      ['claimed', 'u64'],
      ['resultDigest', { bytes: 32 }],
    ],
  },
  settle: {
    tag: 13,
    accounts: PAYING,
    fields: [
      ['tag', 'u8'],
      ['spare', { bytes: 7 }],
      ['amount', 'u64'],
      ['resultDigest', { bytes: 32 }],
    ],
  },
  cancelLease: { tag: 14, accounts: PAYING, fields: AMOUNT },
  expireLease: { tag: 15, accounts: [...CLOSING, { name: 'tokenProgram' }], fields: [['tag', 'u8']] },
  withdrawStake: {
    tag: 16,
    accounts: [
      { name: 'staker', signer: true, writable: true },
      { name: 'provider', writable: true },
      { name: 'delegation', writable: true },
      { name: 'stakeVault', writable: true },
      { name: 'destination', writable: true },
      { name: 'tokenProgram' },
    ],
    fields: [['tag', 'u8']],
  },
  extendLease: {
    tag: 17,
    accounts: [
      { name: 'delegate', signer: true },
      { name: 'operator', signer: true },
      { name: 'config' },
      { name: 'provider', writable: true },
      { name: 'budget', writable: true },
      { name: 'vault' },
      { name: 'lease', writable: true },
    ],
    fields: [
      ['tag', 'u8'],
      ['spare', { bytes: 7 }],
      ['amount', 'u64'],
      ['reserve', 'u64'],
      ['finishBy', 'i64'],
    ],
  },
  redeemVoucher: {
    tag: 18,
    accounts: [...PAYING, { name: 'config' }, { name: 'instructions' }],
    fields: AMOUNT,
  },
  dispute: {
    tag: 19,
    accounts: [
      { name: 'delegate', signer: true, writable: true },
      { name: 'config' },
      { name: 'budget', writable: true },
      { name: 'vault' },
      { name: 'lease', writable: true },
      { name: 'dispute', writable: true },
      { name: 'systemProgram' },
    ],
    fields: [
      ['tag', 'u8'],
      ['bump', 'u8'],
    ],
  },
  draw: {
    tag: 20,
    accounts: [
      { name: 'config' },
      { name: 'dispute', writable: true },
      { name: 'slotHashes' },
      { name: 'verifier0', writable: true },
      { name: 'verifier1', writable: true },
      { name: 'verifier2', writable: true },
    ],
    fields: [['tag', 'u8']],
  },
  vote: {
    tag: 21,
    accounts: [{ name: 'operator', signer: true }, { name: 'verifier' }, { name: 'dispute', writable: true }],
    fields: [
      ['tag', 'u8'],
      ['spare', { bytes: 7 }],
      ['commitment', { bytes: 32 }],
    ],
  },
  revealVote: {
    tag: 22,
    accounts: [{ name: 'operator', signer: true }, { name: 'verifier' }, { name: 'dispute', writable: true }],
    fields: [
      ['tag', 'u8'],
      ['vote', 'u8'],
      ['spare', { bytes: 6 }],
      ['salt', { bytes: 32 }],
    ],
  },
  resolve: {
    tag: 23,
    accounts: [
      ...CLOSING,
      { name: 'payout', writable: true },
      { name: 'tokenProgram' },
      { name: 'dispute', writable: true },
      { name: 'disputeRentPayer', writable: true },
      { name: 'verifier0', writable: true },
      { name: 'stakeVault0', writable: true },
      { name: 'verifier1', writable: true },
      { name: 'stakeVault1', writable: true },
      { name: 'verifier2', writable: true },
      { name: 'stakeVault2', writable: true },
    ],
    fields: [['tag', 'u8']],
  },
  slashEquivocation: {
    tag: 24,
    accounts: [
      { name: 'reporter', signer: true, writable: true },
      { name: 'config' },
      { name: 'provider', writable: true },
      { name: 'offence', writable: true },
      { name: 'stakeVault', writable: true },
      { name: 'mint', writable: true },
      { name: 'reward', writable: true },
      /** The budget that the first commit names and its vault, if it is still there; else any two accounts. */
      { name: 'harmedBudget' },
      { name: 'harmedVault', writable: true },
      { name: 'instructions' },
      { name: 'tokenProgram' },
      { name: 'systemProgram' },
    ],
    fields: [
      ['tag', 'u8'],
      ['bump', 'u8'],
    ],
  },
  applyParameters: { tag: 25, accounts: [{ name: 'config', writable: true }], fields: [['tag', 'u8']] },
  setAuthority: {
    tag: 26,
    accounts: [
      { name: 'authority', signer: true },
      { name: 'config', writable: true },
      { name: 'newAuthority', signer: 'may' },
    ],
    fields: [['tag', 'u8']],
  },
  setVerifier: {
    tag: 27,
    accounts: [
      { name: 'authority', signer: 'may' },
      { name: 'owner', signer: 'may' },
      { name: 'config', writable: true },
      { name: 'provider' },
    ],
    fields: [
      ['tag', 'u8'],
      ['member', 'u8'],
    ],
  },
} as const satisfies Record<
  string,
  { readonly tag: number; readonly accounts: readonly AccountMeta[]; readonly fields: readonly Field[] }
>;

export type AccountKind = keyof typeof ACCOUNTS;
export type InstructionName = keyof typeof INSTRUCTIONS;

/** Bounds inside the program, which no authority can change. */
export const LIMITS = {
  feeBpsMax: 1_000,
  commissionBpsMax: 10_000,
  /** Six times the amount of a lease. */
  reserveBpsMax: 60_000,
  slashBpsMax: 10_000,
  delegatesMax: 4,
  verifiersMax: 32,
  /** Grace, window, the longest lease and unbonding: nobody's money is locked for longer than three times this. */
  secondsMax: 30 * 86_400,
  /** Committing votes, and revealing them. */
  voteSecondsMax: 7 * 86_400,
  /** From queueing parameters to applying them. */
  parameterDelaySeconds: 2 * 86_400,
  /** No new lease for so long after an equivocation. */
  jailSeconds: 30 * 86_400,
  /** A stake that would get fewer shares is refused, so that rounding takes less than a millionth of it. */
  sharesMin: 1_000_000,
  /** Delegations are at most so many times the own stake. */
  delegationFactor: 8,
  /** Of the own stake that a slash takes: to who reported an equivocation, and to the buyer it harmed. */
  reporterBps: 3_000,
  harmedBps: 4_000,
} as const;

/** Size in bytes and alignment of a field. */
export function fieldSize(type: FieldType): { readonly size: number; readonly align: number } {
  if (typeof type === 'object') {
    // 32 bytes are a digest or a key, compared word by word.
    if ('bytes' in type) return { size: type.bytes, align: type.bytes === 32 ? 8 : 1 };
    if ('keys' in type) return { size: 32 * type.keys, align: 8 };
    return { size: layoutSize(RECORDS[type.record]), align: 8 };
  }
  const size = { u8: 1, u16: 2, u32: 4, u64: 8, i64: 8, key: 32 }[type];
  return { size, align: Math.min(size, 8) };
}

/** Size in bytes of a whole layout. */
export function layoutSize(fields: readonly Field[]): number {
  let size = 0;
  for (const [, type] of fields) size += fieldSize(type).size;
  return size;
}

/** Byte offset of a top-level field. */
export function fieldOffset(fields: readonly Field[], name: string): number {
  let offset = 0;
  for (const [field, type] of fields) {
    if (field === name) return offset;
    offset += fieldSize(type).size;
  }
  return -1;
}
