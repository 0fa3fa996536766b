/** Account data → the accounts of chain/chain.ts: seconds become milliseconds, numbers become amounts. */
import type { Address } from '../protocol/address.ts';
import { MoltError } from '../protocol/errors.ts';
import { baseUnits, type BaseUnits } from '../protocol/units.ts';
import type {
  BudgetAccount,
  BudgetLimits,
  ConfigAccount,
  DelegationAccount,
  DisputeAccount,
  LeaseAccount,
  LeaseEnding,
  LeaseTerms,
  OffenceAccount,
  Parameters,
  ProviderAccount,
  StakePool,
  StakeSlash,
  VoucherPayment,
  Side,
} from './chain.ts';
import { decodeAccount, decodeEvent, type AccountFields, type EventFields, type Fields } from './codec.ts';
import { LEASE_ENDINGS, LEASE_STATES, SLASH_REASONS, VOTES, type RECORDS } from './layout.ts';

/** Unix seconds → ms; what exceeds the safe integers (an expiry of "never") becomes the largest one. */
function secondsToMs(seconds: bigint): number {
  const ms = seconds * 1000n;
  return ms > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(ms);
}

export const secondsUp = (ms: number): number => Math.ceil(ms / 1000);
export const secondsDown = (ms: number): number => Math.floor(ms / 1000);

/** Config data → the Config. */
export function readConfig(data: Uint8Array): ConfigAccount {
  const { mint, network, authority, parameters, queued, applicableAt, verifiers } = decodeAccount('config', data);
  return {
    mint,
    network,
    ...(authority === NOBODY ? {} : { authority }),
    parameters: readParameters(parameters),
    ...(applicableAt === 0n
      ? {}
      : { queued: { parameters: readParameters(queued), applicableAtMs: secondsToMs(applicableAt) } }),
    verifiers,
  };
}

/** The address of 32 zero bytes, which nobody has a key of. */
export const NOBODY = '11111111111111111111111111111111' as Address;

function readParameters(fields: Fields<typeof RECORDS.parameters>): Parameters {
  const { stakeFeeBps, burnFeeBps, reserveBps, noShowSlashBps, disputeBondBps, equivocationSlashBps } = fields;
  return {
    stakeFeeBps,
    burnFeeBps,
    reserveBps,
    noShowSlashBps,
    disputeBondBps,
    equivocationSlashBps,
    minGraceMs: fields.minGraceSeconds * 1000,
    minWindowMs: fields.minWindowSeconds * 1000,
    maxLeaseMs: fields.maxLeaseSeconds * 1000,
    unbondingMs: fields.unbondingSeconds * 1000,
    voteMs: fields.voteSeconds * 1000,
    revealMs: fields.revealSeconds * 1000,
    minStake: baseUnits(fields.minStake),
    verifierPledge: baseUnits(fields.verifierPledge),
  };
}

export function parametersFields(parameters: Parameters): Fields<typeof RECORDS.parameters> {
  const { minGraceMs, minWindowMs, maxLeaseMs, unbondingMs, voteMs, revealMs, ...rest } = parameters;
  return {
    ...rest,
    minGraceSeconds: secondsUp(minGraceMs),
    minWindowSeconds: secondsUp(minWindowMs),
    maxLeaseSeconds: secondsUp(maxLeaseMs),
    unbondingSeconds: secondsUp(unbondingMs),
    voteSeconds: secondsUp(voteMs),
    revealSeconds: secondsUp(revealMs),
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
  const fields = decodeAccount('provider', data);
  const { own, delegated, jailedUntil, registeredAt, formerOperator, bump: _bump, rotatedAt: _at, ...rest } = fields;
  return {
    ...rest,
    address,
    stake: baseUnits(activeStake(own) + activeStake(delegated)),
    own: { ...own, stake: baseUnits(own.stake) },
    delegated: { ...delegated, stake: baseUnits(delegated.stake) },
    reserved: baseUnits(fields.reserved),
    registeredAtMs: secondsToMs(registeredAt),
    slashed: baseUnits(fields.slashed),
    slashDue: baseUnits(fields.slashDue),
    jailedUntilMs: secondsToMs(jailedUntil),
    ...(formerOperator === NOBODY ? {} : { formerOperator }),
  };
}

function activeStake({ stake, shares, unbonding }: Fields<typeof RECORDS.pool>): bigint {
  return unbonding === 0n ? stake : (stake * (shares - unbonding)) / shares;
}

/** The pool in which this staker's shares are. */
export function poolOf(provider: ProviderAccount, staker: Address): StakePool {
  return staker === provider.owner ? provider.own : provider.delegated;
}

/** What so many shares are worth, rounded down as the program pays it. */
export function shareValue({ stake, shares }: StakePool, held: bigint): BaseUnits {
  return baseUnits(shares === 0n ? 0n : (stake * held) / shares);
}

export function readDelegation(address: Address, data: Uint8Array, provider: ProviderAccount): DelegationAccount {
  const fields = decodeAccount('delegation', data);
  const pool = poolOf(provider, fields.staker);
  const current = fields.generation === pool.generation;
  const shares = current ? fields.shares : 0n;
  const unbondingShares = current ? fields.unbonding : 0n;
  return {
    address,
    provider: fields.provider,
    staker: fields.staker,
    shares,
    value: shareValue(pool, shares),
    unbondingShares,
    unbondingValue: shareValue(pool, unbondingShares),
    unbondingUntilMs: secondsToMs(fields.unbondingUntil),
    principal: baseUnits(fields.principal),
  };
}

const SIDES: ReadonlyMap<number, Side> = new Map<number, Side>(
  Object.entries(VOTES).map(([side, number]) => [number, side as Side]),
);

export function readDispute(address: Address, data: Uint8Array): DisputeAccount {
  const { lease, provider, rentPayer, bond, slot, drawn, voteUntil, revealUntil, ...seats } = decodeAccount(
    'dispute',
    data,
  );
  const taken = drawn === 0 ? [] : [seats.seat0, seats.seat1, seats.seat2];
  return {
    address,
    lease,
    provider,
    rentPayer,
    bond: baseUnits(bond),
    slot,
    seats: taken.map(({ verifier, committed, vote, pledge }) => {
      const side = SIDES.get(vote);
      const seat = { verifier, committed: committed !== 0, pledge: baseUnits(pledge) };
      return side === undefined ? seat : { ...seat, vote: side };
    }),
    voteUntilMs: secondsToMs(voteUntil),
    revealUntilMs: secondsToMs(revealUntil),
  };
}

export function readOffence(address: Address, data: Uint8Array): OffenceAccount {
  const { provider, reporter, harmed, amount, due, provenAt } = decodeAccount('offence', data);
  return {
    address,
    provider,
    reporter,
    ...(harmed === NOBODY ? {} : { harmed }),
    amount: baseUnits(amount),
    due: baseUnits(due),
    provenAtMs: secondsToMs(provenAt),
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
  if (state === LEASE_STATES.running) return { ...lease, state: 'running' };
  return {
    ...lease,
    state: state === LEASE_STATES.disputed ? 'disputed' : 'proven',
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
 * The endings that `programId` itself reported in the logs of one transaction.
 */
export function readEndings(programId: Address, logs: readonly string[], signature: string): LeaseEnding[] {
  return ownData(programId, logs).flatMap((data) => {
    const event = decodeEvent('leaseEnded', data);
    const ending = event && ENDINGS.get(event.ending);
    return event && ending ? [endingOf(event, ending, signature)] : [];
  });
}

const REASONS: ReadonlyMap<number, StakeSlash['reason']> = new Map<number, StakeSlash['reason']>(
  Object.entries(SLASH_REASONS).map(([name, value]) => [value, name as StakeSlash['reason']]),
);

/** The slashes that `programId` itself reported in the logs of one transaction. */
export function readSlashes(programId: Address, logs: readonly string[], signature: string): StakeSlash[] {
  return ownData(programId, logs).flatMap((data) => {
    const event = decodeEvent('stakeSlashed', data);
    const reason = event && REASONS.get(event.reason);
    if (!event || !reason) return [];
    const { provider, own, delegated, paid, burned } = event;
    return [
      {
        reason,
        provider,
        own: baseUnits(own),
        delegated: baseUnits(delegated),
        paid: baseUnits(paid),
        burned: baseUnits(burned),
        signature,
      },
    ];
  });
}

/** The voucher payments that `programId` itself reported in the logs of one transaction. */
export function readVouchers(programId: Address, logs: readonly string[]): VoucherPayment[] {
  return ownData(programId, logs).flatMap((data) => {
    const event = decodeEvent('voucherRedeemed', data);
    if (!event) return [];
    const { lease, budget, provider, redeemed, burned, staked } = event;
    const money = { redeemed: baseUnits(redeemed), burned: baseUnits(burned), staked: baseUnits(staked) };
    return [{ lease, budget, provider, ...money }];
  });
}

/**
 * What the program printed as data. Another program may print any data it likes, so the invocation stack is followed and
 * only lines printed by ours count.
 */
function ownData(programId: Address, logs: readonly string[]): Uint8Array[] {
  const stack: string[] = [];
  const found: Uint8Array[] = [];
  for (const line of logs) {
    const [word, subject, verb] = line.split(' ', 3);
    if (word !== 'Program' || subject === undefined) continue;
    if (verb === 'invoke') stack.push(subject);
    else if (verb === 'success' || verb === 'failed:') stack.pop();
    else if (subject === 'data:' && stack.at(-1) === programId) found.push(Buffer.from(verb ?? '', 'base64'));
  }
  return found;
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
