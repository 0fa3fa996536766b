/** Account data → the accounts of chain/chain.ts: seconds become milliseconds, numbers become amounts. */
import type { Address } from '../protocol/address.ts';
import { MoltError } from '../protocol/errors.ts';
import { baseUnits, type BaseUnits } from '../protocol/units.ts';
import type {
  BudgetAccount,
  BudgetLimits,
  LeaseAccount,
  LeaseEnding,
  LeaseTerms,
  Parameters,
  ProviderAccount,
} from './chain.ts';
import { decodeAccount, decodeEvent, type AccountFields, type EventFields, type Fields } from './codec.ts';
import { LEASE_ENDINGS, LEASE_STATES, type RECORDS } from './layout.ts';

/** Unix seconds → ms; what exceeds the safe integers (an expiry of "never") becomes the largest one. */
function secondsToMs(seconds: bigint): number {
  const ms = seconds * 1000n;
  return ms > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(ms);
}

export const secondsUp = (ms: number): number => Math.ceil(ms / 1000);
export const secondsDown = (ms: number): number => Math.floor(ms / 1000);

/** Config data → mint and parameters. */
export function readConfig(data: Uint8Array): {
  readonly mint: Address;
  readonly authority: Address;
  readonly parameters: Parameters;
} {
  const { mint, authority, parameters: fields } = decodeAccount('config', data);
  return {
    mint,
    authority,
    parameters: {
      stakeFeeBps: fields.stakeFeeBps,
      burnFeeBps: fields.burnFeeBps,
      reserveBps: fields.reserveBps,
      noShowSlashBps: fields.noShowSlashBps,
      minGraceMs: fields.minGraceSeconds * 1000,
      minWindowMs: fields.minWindowSeconds * 1000,
      maxLeaseMs: fields.maxLeaseSeconds * 1000,
      minStake: baseUnits(fields.minStake),
    },
  };
}

export function parametersFields(parameters: Parameters): Fields<typeof RECORDS.parameters> {
  const { minGraceMs, minWindowMs, maxLeaseMs, ...rest } = parameters;
  return {
    ...rest,
    minGraceSeconds: secondsUp(minGraceMs),
    minWindowSeconds: secondsUp(minWindowMs),
    maxLeaseSeconds: secondsUp(maxLeaseMs),
  };
}

export function limitsFields(limits: BudgetLimits): Fields<typeof RECORDS.limits> {
  if (limits.delegates.length < 1 || limits.delegates.length > 4) {
    throw new MoltError('config/invalid', `a budget has one to four delegates, not ${limits.delegates.length}`);
  }
  return {
    delegateCount: limits.delegates.length,
    delegates: limits.delegates,
    capPerLease: limits.capPerLease,
    capPerDay: limits.capPerDay,
    expiry: BigInt(secondsDown(limits.expiresAtMs)),
  };
}

export function readProvider(address: Address, data: Uint8Array): ProviderAccount {
  const { stake, reserved, registeredAt, bump: _bump, ...fields } = decodeAccount('provider', data);
  return {
    ...fields,
    address,
    stake: baseUnits(stake),
    reserved: baseUnits(reserved),
    registeredAtMs: secondsToMs(registeredAt),
  };
}

/** `vaultAmount`: tokens in the budget's vault. */
export function readBudget(address: Address, data: Uint8Array, vaultAmount: bigint): BudgetAccount {
  const { id, owner, vault, openLeases, locked, spentToday, day, limits } = decodeAccount('budget', data);
  return {
    address,
    id,
    owner,
    vault,
    openLeases,
    locked: baseUnits(locked),
    free: baseUnits(vaultAmount - locked),
    spentOnDay: baseUnits(spentToday),
    dayStartMs: secondsToMs(day * 86_400n),
    delegates: limits.delegates.slice(0, limits.delegateCount),
    capPerLease: baseUnits(limits.capPerLease),
    capPerDay: baseUnits(limits.capPerDay),
    expiresAtMs: secondsToMs(limits.expiry),
  };
}

export function readLease(address: Address, data: Uint8Array): LeaseAccount {
  const fields: AccountFields<'lease'> = decodeAccount('lease', data);
  const {
    state,
    claimed,
    resultDigest,
    provenAt,
    openedAt,
    finishBy,
    graceSeconds,
    windowSeconds,
    bump: _bump,
    ...rest
  } = fields;
  const lease = {
    ...rest,
    address,
    amount: baseUnits(fields.amount),
    pricePerSecond: baseUnits(fields.pricePerSecond),
    reserve: baseUnits(fields.reserve),
    redeemed: baseUnits(fields.redeemed),
    openedAtMs: secondsToMs(openedAt),
    finishByMs: secondsToMs(finishBy),
    graceMs: graceSeconds * 1000,
    windowMs: windowSeconds * 1000,
  };
  if (state !== LEASE_STATES.proven) return { ...lease, state: 'running' };
  return {
    ...lease,
    state: 'proven',
    proof: { claimed: baseUnits(claimed), resultDigest, provenAtMs: secondsToMs(provenAt) },
  };
}

/** The first field in which the lease is not what the terms say, in words; undefined when it carries all of them. */
export function leaseDifference(lease: LeaseAccount, terms: LeaseTerms): string | undefined {
  const expected: Readonly<Record<string, string | number | bigint>> = {
    state: 'running',
    budget: terms.budget,
    provider: terms.provider,
    operator: terms.operator,
    delegate: terms.delegate,
    amount: terms.amount,
    pricePerSecond: terms.pricePerSecond,
    reserve: terms.reserve,
    finishByMs: secondsUp(terms.finishByMs) * 1000,
    graceMs: secondsUp(terms.graceMs) * 1000,
    windowMs: secondsUp(terms.windowMs) * 1000,
  };
  for (const [name, value] of Object.entries(expected)) {
    const found: unknown = lease[name as keyof LeaseAccount];
    if (found !== value) return `${name} is not ${value}`;
  }
  return Buffer.from(lease.termsDigest).equals(terms.termsDigest) ? undefined : 'the terms digest is another';
}

/** Balance of an SPL token account, 0 where there is none. */
export function tokenAmount(data: Uint8Array | undefined): BaseUnits {
  if (data === undefined || data.length < 72) return baseUnits(0n);
  return baseUnits(Buffer.from(data.buffer, data.byteOffset, data.byteLength).readBigUInt64LE(64));
}

const ENDINGS = new Map<number, LeaseEnding['ending']>(
  Object.entries(LEASE_ENDINGS).map(([name, value]) => [value, name as LeaseEnding['ending']]),
);

/**
 * The endings that `programId` itself reported in the logs of one transaction. Another program may print any data it
 * likes, so the invocation stack is followed and only lines printed by ours count.
 */
export function readEndings(programId: Address, logs: readonly string[], signature: string): LeaseEnding[] {
  const stack: string[] = [];
  const endings: LeaseEnding[] = [];
  for (const line of logs) {
    const [word, subject, verb] = line.split(' ', 3);
    if (word !== 'Program' || subject === undefined) continue;
    if (verb === 'invoke') stack.push(subject);
    else if (verb === 'success' || verb === 'failed:') stack.pop();
    else if (subject === 'data:' && stack.at(-1) === programId) {
      const event = decodeEvent('leaseEnded', Buffer.from(verb ?? '', 'base64'));
      const ending = event && ENDINGS.get(event.ending);
      if (event && ending) endings.push(endingOf(event, ending, signature));
    }
  }
  return endings;
}

function endingOf(event: EventFields<'leaseEnded'>, ending: LeaseEnding['ending'], signature: string): LeaseEnding {
  return {
    ...event,
    ending,
    paid: baseUnits(event.paid),
    refunded: baseUnits(event.refunded),
    burned: baseUnits(event.burned),
    staked: baseUnits(event.staked),
    slashed: baseUnits(event.slashed),
    signature,
  };
}
