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
  | { readonly record: 'parameters' | 'limits' };
export type Field = readonly [name: string, type: FieldType];

/** Parts used inside several layouts. */
export const RECORDS = {
  parameters: [
    ['stakeFeeBps', 'u16'],
    ['burnFeeBps', 'u16'],
    ['reserveBps', 'u16'],
    ['noShowSlashBps', 'u16'],
    ['minGraceSeconds', 'u32'],
    ['minWindowSeconds', 'u32'],
    ['maxLeaseSeconds', 'u32'],
    ['spare', { bytes: 4 }],
    ['minStake', 'u64'],
  ],
  limits: [
    ['delegateCount', 'u8'],
    ['spare', { bytes: 7 }],
    ['capPerLease', 'u64'],
    ['capPerDay', 'u64'],
    ['expiry', 'i64'],
    ['delegates', { keys: 4 }],
  ],
} as const satisfies Record<string, readonly Field[]>;

/** Account data. `tag` is the first byte and tells the kinds apart; no two kinds share a size or a tag. */
export const ACCOUNTS = {
  config: {
    tag: 1,
    fields: [
      ['tag', 'u8'],
      ['bump', 'u8'],
      ['spare', { bytes: 6 }],
      ['parameters', { record: 'parameters' }],
      ['authority', 'key'],
      ['mint', 'key'],
      ['spareEnd', { bytes: 152 }],
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
      ['stake', 'u64'],
      ['reserved', 'u64'],
      ['settledCount', 'u64'],
      ['settledAmount', 'u64'],
      ['feesBurned', 'u64'],
      ['faults', 'u64'],
      ['faultAmount', 'u64'],
      ['registeredAt', 'i64'],
      ['spareEnd', { bytes: 64 }],
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
      ['spareFlags', { bytes: 6 }],
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
} as const satisfies Record<string, { readonly tag: number; readonly fields: readonly Field[] }>;

/** Values of `lease.state`. */
export const LEASE_STATES = { running: 1, proven: 2 } as const;

/** How a lease ended: values of the event's `ending`. */
export const LEASE_ENDINGS = {
  settledTogether: 1,
  settledByDelegate: 2,
  settledAfterWindow: 3,
  cancelledByOperator: 4,
  cancelledByDelegate: 5,
  cancelledTogether: 6,
  expired: 7,
} as const;

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
] as const satisfies readonly AccountMeta[];

const PAYING = [
  { name: 'delegate', signer: 'may' },
  { name: 'operator', signer: 'may' },
  ...CLOSING,
  { name: 'payout', writable: true },
  { name: 'mint', writable: true },
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
      { name: 'systemProgram' },
    ],
    fields: [
      ['tag', 'u8'],
      ['spare', { bytes: 7 }],
      ['parameters', { record: 'parameters' }],
    ],
  },
  setParameters: {
    tag: 1,
    accounts: [
      { name: 'authority', signer: true },
      { name: 'config', writable: true },
    ],
    fields: [
      ['tag', 'u8'],
      ['spare', { bytes: 7 }],
      ['parameters', { record: 'parameters' }],
      ['newAuthority', 'key'],
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
      { name: 'owner', signer: true },
      { name: 'provider', writable: true },
      { name: 'source', writable: true },
      { name: 'stakeVault', writable: true },
      { name: 'tokenProgram' },
    ],
    fields: AMOUNT,
  },
  unstake: {
    tag: 5,
    accounts: [
      { name: 'owner', signer: true },
      { name: 'provider', writable: true },
      { name: 'stakeVault', writable: true },
      { name: 'destination', writable: true },
      { name: 'tokenProgram' },
    ],
    fields: AMOUNT,
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
  reserveBpsMax: 10_000,
  slashBpsMax: 10_000,
  delegatesMax: 4,
  /** Grace, window and the longest lease: nobody's money is locked for longer than three times this. */
  secondsMax: 30 * 86_400,
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
