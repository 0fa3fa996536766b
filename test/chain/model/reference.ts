/**
 * A reference of the chain program in TypeScript: the same rules, written from their description, over plain values.
 *
 * It interprets an instruction as it is sent, with whatever accounts stand in it, on a map of all accounts, and says
 * whether it must be accepted and what everything is afterwards. It knows nothing of bytes, memory or the runtime, and
 * the program knows nothing of it; the model test holds the two against each other.
 */
import { createHash } from 'node:crypto';

import { NOBODY } from '../../../chain/accounts.ts';
import {
  budgetAddress,
  delegationAddress,
  disputeAddress,
  leaseAddress,
  offenceAddress,
  providerAddress,
  stakeVaultAddress,
  vaultAddress,
} from '../../../chain/addresses.ts';
import type { AccountFields, Fields, InstructionFields } from '../../../chain/codec.ts';
import {
  INSTRUCTIONS_SYSVAR,
  SLOT_HASHES_SYSVAR,
  drawnVerifiers,
  offenceDigest,
  voteCommitment,
} from '../../../chain/evidence.ts';
import {
  ACCOUNTS,
  INSTRUCTIONS,
  LIMITS,
  VOTES,
  layoutSize,
  type AccountKind,
  type AccountMeta,
  type InstructionName,
  type RECORDS,
} from '../../../chain/layout.ts';
import { TOKEN_PROGRAM } from '../../../chain/token.ts';
import { decodeAddress, type Address } from '../../../protocol/address.ts';
import { decodeCommit, type DecodedCommit } from '../../../protocol/commit.ts';
import { U64_MAX, baseUnits } from '../../../protocol/units.ts';
import { encodeVoucher } from '../../../protocol/voucher.ts';

type Parameters = Fields<typeof RECORDS.parameters>;
type Pool = Fields<typeof RECORDS.pool>;

/** What an account is. Wallets are owned by the system program and hold only lamports. */
export type Entry =
  | { [K in AccountKind]: { readonly kind: K; readonly fields: AccountFields<K> } }[AccountKind]
  | { readonly kind: 'token'; readonly mint: Address; readonly owner: Address; readonly amount: bigint }
  | { readonly kind: 'mint'; readonly supply: bigint }
  | { readonly kind: 'wallet' }
  | { readonly kind: 'other' };

export interface Held {
  readonly lamports: bigint;
  readonly entry: Entry;
}

interface SlotHash {
  readonly slot: bigint;
  readonly hash: Uint8Array;
}

/** One instruction as it reaches the program. */
export interface Sent {
  readonly name: InstructionName;
  readonly metas: readonly { readonly address: Address; readonly isSigner: boolean; readonly isWritable: boolean }[];
  readonly fields: Readonly<Record<string, unknown>>;
  /** What an Ed25519 instruction right before has verified. */
  readonly verified?: { readonly signer: Address; readonly messages: readonly Uint8Array[] };
}

export interface Moment {
  readonly now: bigint;
  readonly slot: bigint;
  /** Newest first. */
  readonly slotHashes: readonly SlotHash[];
}

const SYSTEM_PROGRAM = NOBODY;
const DAY = 86_400n;
const TOKEN_ACCOUNT_SIZE = 165;

class Refused extends Error {}

function demand(condition: boolean): asserts condition {
  if (!condition) throw new Refused();
}

const smaller = (a: bigint, b: bigint): bigint => (a < b ? a : b);
const larger = (a: bigint, b: bigint): bigint => (a > b ? a : b);
const share = (amount: bigint, bps: number): bigint => (amount * BigInt(bps)) / 10_000n;
const shareUp = (amount: bigint, bps: number): bigint => (amount * BigInt(bps) + 9_999n) / 10_000n;
const equal = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

function mulDiv(a: bigint, b: bigint, c: bigint): bigint {
  demand(c > 0n);
  const result = (a * b) / c;
  demand(result <= U64_MAX);
  return result;
}

const active = ({ stake, shares, unbonding }: Pool): bigint =>
  unbonding === 0n ? stake : mulDiv(stake, shares - unbonding, shares);

type Provider = AccountFields<'provider'>;
const total = ({ own, delegated }: Provider): bigint => own.stake + delegated.stake;
const overDelegated = (delegated: bigint, own: bigint): boolean => delegated > own * BigInt(LIMITS.delegationFactor);

export class Reference {
  readonly programId: Address;
  readonly mint: Address;
  /** Lamports that keep so many bytes alive. */
  readonly #rent: (size: number) => bigint;
  #accounts: Map<Address, Held>;
  #draft: Map<Address, Held | undefined> = new Map();

  constructor(
    market: { readonly programId: Address; readonly mint: Address },
    accounts: ReadonlyMap<Address, Held>,
    rent: (size: number) => bigint,
  ) {
    this.programId = market.programId;
    this.mint = market.mint;
    this.#accounts = new Map(accounts);
    this.#rent = rent;
  }

  get accounts(): ReadonlyMap<Address, Held> {
    return this.#accounts;
  }

  /** True when the program must accept; then everything is as it must be afterwards. */
  apply(sent: Sent, moment: Moment): boolean {
    this.#draft = new Map();
    try {
      new Call(this, sent, moment).run();
    } catch (error) {
      if (error instanceof Refused) return false;
      throw error;
    }
    for (const [address, held] of this.#draft) {
      if (held) this.#accounts.set(address, held);
      else this.#accounts.delete(address);
    }
    return true;
  }

  /** Lamports from outside of the program. */
  gift(from: Address, to: Address, lamports: bigint): void {
    this.#draft = new Map();
    this.move(from, to, lamports);
    for (const [address, held] of this.#draft) if (held) this.#accounts.set(address, held);
  }

  held(address: Address): Held | undefined {
    return this.#draft.has(address) ? this.#draft.get(address) : this.#accounts.get(address);
  }

  put(address: Address, held: Held | undefined): void {
    this.#draft.set(address, held);
  }

  load<K extends AccountKind>(kind: K, address: Address): AccountFields<K> {
    const entry = this.held(address)?.entry;
    demand(entry?.kind === kind);
    return (entry as { fields: AccountFields<K> }).fields;
  }

  save<K extends AccountKind>(kind: K, address: Address, changes: Partial<AccountFields<K>>): void {
    const fields = { ...this.load(kind, address), ...changes };
    this.put(address, { lamports: this.held(address)?.lamports ?? 0n, entry: { kind, fields } as Entry });
  }

  move(from: Address, to: Address, lamports: bigint): void {
    const source = this.held(from);
    demand(source !== undefined && source.lamports >= lamports);
    this.put(from, { ...source, lamports: source.lamports - lamports });
    const target = this.held(to);
    this.put(to, { lamports: (target?.lamports ?? 0n) + lamports, entry: target?.entry ?? { kind: 'wallet' } });
  }

  create(payer: Address, address: Address, size: number, entry: Entry): void {
    const there = this.held(address);
    demand(there === undefined || there.entry.kind === 'wallet');
    const lacks = larger(this.#rent(size) - (there?.lamports ?? 0n), 0n);
    demand(this.held(payer)?.entry.kind === 'wallet');
    this.move(payer, address, lacks);
    this.put(address, { lamports: this.held(address)?.lamports ?? 0n, entry });
  }

  close(address: Address, rentTo: Address): void {
    demand(address !== rentTo);
    this.move(address, rentTo, this.held(address)?.lamports ?? 0n);
    this.put(address, undefined);
  }
}

/** Who pays for a new account, in which place it stands, and the address that must be there. */
type Making = readonly [payer: string, place: string, derived: Address];

type Run = { readonly [K in InstructionName]: (call: Call, fields: InstructionFields<K>) => void };

/** One instruction being interpreted. */
class Call {
  readonly state: Reference;
  readonly sent: Sent;
  readonly moment: Moment;
  readonly now: bigint;

  constructor(state: Reference, sent: Sent, moment: Moment) {
    this.state = state;
    this.sent = sent;
    this.moment = moment;
    this.now = moment.now;
  }

  run(): void {
    const metas: readonly AccountMeta[] = INSTRUCTIONS[this.sent.name].accounts;
    demand(metas.length === this.sent.metas.length);
    for (const [index, { signer, writable }] of metas.entries()) {
      const given = this.sent.metas[index];
      demand(given !== undefined);
      if (signer === true) demand(given.isSigner);
      if (writable) demand(given.isWritable);
    }
    const rule = RULES[this.sent.name] as (call: Call, fields: unknown) => void;
    rule(this, this.sent.fields);
  }

  /** The address in a named place. */
  at(name: string): Address {
    const metas: readonly AccountMeta[] = INSTRUCTIONS[this.sent.name].accounts;
    const meta = this.sent.metas[metas.findIndex((one) => one.name === name)];
    demand(meta !== undefined);
    return meta.address;
  }

  signed(name: string): boolean {
    const metas: readonly AccountMeta[] = INSTRUCTIONS[this.sent.name].accounts;
    return this.sent.metas[metas.findIndex((one) => one.name === name)]?.isSigner === true;
  }

  signedBy(name: string, key: Address): boolean {
    return this.signed(name) && this.at(name) === key;
  }

  get<K extends AccountKind>(kind: K, name: string = kind): AccountFields<K> {
    return this.state.load(kind, this.at(name));
  }

  has(program: Address): boolean {
    return this.sent.metas.some(({ address }) => address === program);
  }

  create(at: Making, size: number, entry: Entry): void {
    const [payer, name, derived] = at;
    demand(this.has(SYSTEM_PROGRAM) && this.at(name) === derived);
    this.state.create(this.at(payer), derived, size, entry);
  }

  createOwn<K extends AccountKind>(at: Making, kind: K, fields: AccountFields<K>): void {
    this.create(at, layoutSize(ACCOUNTS[kind].fields), { kind, fields } as Entry);
  }

  createVault(at: Making, owner: Address): void {
    demand(this.has(TOKEN_PROGRAM));
    this.create(at, TOKEN_ACCOUNT_SIZE, { kind: 'token', mint: this.at('mint'), owner, amount: 0n });
  }

  token(address: Address): Extract<Entry, { kind: 'token' }> & { readonly lamports: bigint } {
    const held = this.state.held(address);
    demand(held?.entry.kind === 'token');
    return { ...held.entry, lamports: held.lamports };
  }

  isToken(address: Address, mint: Address): boolean {
    const entry = this.state.held(address)?.entry;
    return entry?.kind === 'token' && entry.mint === mint;
  }

  setTokens(address: Address, amount: bigint): void {
    const { lamports, ...entry } = this.token(address);
    this.state.put(address, { lamports, entry: { ...entry, amount } });
  }

  transfer(from: Address, to: Address, authority: Address, amount: bigint): void {
    demand(from !== to);
    if (amount === 0n) return;
    const [source, target] = [this.token(from), this.token(to)];
    demand(
      this.has(TOKEN_PROGRAM) && source.mint === target.mint && source.owner === authority && source.amount >= amount,
    );
    this.setTokens(from, source.amount - amount);
    this.setTokens(to, target.amount + amount);
  }

  burn(from: Address, amount: bigint): void {
    if (amount === 0n) return;
    const held = this.state.held(this.at('mint'));
    demand(this.has(TOKEN_PROGRAM) && held?.entry.kind === 'mint' && this.token(from).amount >= amount);
    this.setTokens(from, this.token(from).amount - amount);
    this.state.put(this.at('mint'), { ...held, entry: { kind: 'mint', supply: held.entry.supply - amount } });
  }

  free(budget: AccountFields<'budget'>): bigint {
    return this.token(budget.vault).amount - budget.locked;
  }

  /** Messages that the Ed25519 instruction before has verified. */
  evidence(count: number, length: number): { readonly signer: Address; readonly messages: readonly Uint8Array[] } {
    demand(this.at('instructions') === INSTRUCTIONS_SYSVAR);
    const { verified } = this.sent;
    demand(verified !== undefined && verified.messages.length === count);
    demand(verified.messages.every((message) => message.length === length));
    return verified;
  }
}

const staking = (call: Call, name: string): { readonly pool: 'own' | 'delegated'; readonly provider: Provider } => {
  const provider = call.get('provider');
  return { provider, pool: provider.owner === call.at(name) ? 'own' : 'delegated' };
};

function delegationOf(call: Call, pool: Pool): AccountFields<'delegation'> {
  const found = call.get('delegation');
  demand(found.staker === call.at('staker') && found.provider === call.at('provider'));
  if (found.generation === pool.generation) return found;
  return { ...found, generation: pool.generation, shares: 0n, unbonding: 0n, principal: 0n };
}

function checkBacking(parameters: Parameters, provider: Provider, reserve: bigint, now: bigint): void {
  const [own, delegated] = [active(provider.own), active(provider.delegated)];
  demand(now >= provider.jailedUntil && provider.slashDue === 0n && !overDelegated(delegated, own));
  demand(own + delegated >= parameters.minStake && reserve + provider.reserved <= own + delegated);
}

function checkMoney(call: Call, budget: AccountFields<'budget'>, amount: bigint, more: bigint): bigint {
  const spent = budget.day === call.now / DAY ? budget.spentToday : 0n;
  const { expiry, capPerLease, capPerDay } = budget.limits;
  demand(call.now < expiry && amount <= capPerLease && spent + more <= capPerDay && more <= call.free(budget));
  return spent + more;
}

function checkFinish(parameters: Parameters, finishBy: bigint, now: bigint): void {
  demand(finishBy > now && finishBy <= now + BigInt(parameters.maxLeaseSeconds));
}

function checkParameters(parameters: Parameters): void {
  const { secondsMax, voteSecondsMax, feeBpsMax, reserveBpsMax, slashBpsMax } = LIMITS;
  const inside = (value: number, max: number): boolean => value >= 1 && value <= max;
  demand(parameters.stakeFeeBps <= feeBpsMax && parameters.burnFeeBps <= feeBpsMax);
  demand(parameters.reserveBps <= reserveBpsMax && parameters.noShowSlashBps <= slashBpsMax);
  demand(parameters.disputeBondBps <= slashBpsMax && parameters.equivocationSlashBps <= slashBpsMax);
  const { minGraceSeconds, minWindowSeconds, maxLeaseSeconds, unbondingSeconds, voteSeconds, revealSeconds } =
    parameters;
  demand(
    [minGraceSeconds, minWindowSeconds, maxLeaseSeconds, unbondingSeconds].every((one) => inside(one, secondsMax)),
  );
  demand([voteSeconds, revealSeconds].every((one) => inside(one, voteSecondsMax)));
}

/** The lease whose accounts all stand where they must. */
function closing(call: Call): AccountFields<'lease'> {
  const lease = call.get('lease');
  const [provider, budget] = [call.get('provider'), call.get('budget')];
  demand(call.at('rentPayer') === lease.rentPayer && call.at('provider') === lease.provider);
  demand(call.at('budget') === lease.budget && call.at('vault') === budget.vault);
  demand(call.at('stakeVault') === provider.stakeVault && call.at('mint') === call.token(budget.vault).mint);
  return lease;
}

const canTake = (call: Call): boolean =>
  call.isToken(call.at('payout'), call.at('mint')) &&
  call.at('payout') !== call.at('vault') &&
  call.at('payout') !== call.at('stakeVault');

function payUpTo(call: Call, goal: bigint): void {
  const lease = call.get('lease');
  const provider = call.get('provider');
  demand(call.at('payout') === lease.payout);
  const amount = goal - lease.redeemed;
  const burned = share(amount, lease.burnFeeBps);
  const fee = share(amount, lease.stakeFeeBps);
  const payout = amount - burned - fee;
  const own = canTake(call) ? 0n : payout;
  const [vault, authority] = [call.at('vault'), call.at('budget')];
  call.burn(vault, burned);
  call.transfer(vault, call.at('stakeVault'), authority, fee + own);
  if (payout > own) call.transfer(vault, call.at('payout'), authority, payout - own);
  const all = total(provider);
  const gross = provider.delegated.stake === 0n ? 0n : (fee * provider.delegated.stake) / all;
  const delegated = share(gross, 10_000 - lease.commissionBps);
  call.state.save('provider', call.at('provider'), {
    delegated: { ...provider.delegated, stake: provider.delegated.stake + delegated },
    own: { ...provider.own, stake: provider.own.stake + fee - delegated + own },
    settledAmount: provider.settledAmount + amount,
    feesBurned: provider.feesBurned + burned,
  });
  const budget = call.get('budget');
  call.state.save('budget', authority, { locked: budget.locked - amount });
  call.state.save('lease', call.at('lease'), { redeemed: goal });
}

function release(call: Call): void {
  const lease = call.get('lease');
  const [provider, budget] = [call.get('provider'), call.get('budget')];
  const refunded = lease.amount - lease.redeemed;
  const sameDay = budget.day === lease.openedAt / DAY;
  call.state.save('budget', call.at('budget'), {
    locked: budget.locked - refunded,
    openLeases: budget.openLeases - 1,
    spentToday: sameDay ? budget.spentToday - refunded : budget.spentToday,
  });
  call.state.save('provider', call.at('provider'), {
    reserved: provider.reserved - lease.reserve,
    openLeases: provider.openLeases - 1,
  });
  call.state.close(call.at('lease'), call.at('rentPayer'));
}

function takeFrom(pool: Pool, amount: bigint): { readonly pool: Pool; readonly taken: bigint } {
  const taken = smaller(amount, pool.stake);
  const left = { ...pool, stake: pool.stake - taken };
  if (taken === 0n || left.stake > 0n) return { pool: left, taken };
  return { pool: { stake: 0n, shares: 0n, unbonding: 0n, generation: pool.generation + 1 }, taken };
}

/** Burns what cannot be paid; gives what the owner lost. */
function slash(call: Call, seat: '' | '0' | '1' | '2', amount: bigint, paidBps: number): bigint {
  const provider = seat === '' ? 'provider' : `verifier${seat}`;
  const before = call.get('provider', provider);
  const own = takeFrom(before.own, amount);
  const delegated = takeFrom(before.delegated, amount - own.taken);
  const slashed = before.slashed + own.taken + delegated.taken;
  call.state.save('provider', call.at(provider), { own: own.pool, delegated: delegated.pool, slashed });
  call.burn(call.at(`stakeVault${seat}`), own.taken + delegated.taken - share(own.taken, paidBps));
  return own.taken;
}

function compensate(call: Call, amount: bigint, paidBps: number): void {
  const own = slash(call, '', amount, paidBps);
  call.transfer(call.at('stakeVault'), call.at('vault'), call.at('provider'), share(own, paidBps));
}

function fault(call: Call, amount: bigint): void {
  const { faults, faultAmount } = call.get('provider');
  call.state.save('provider', call.at('provider'), { faults: faults + 1n, faultAmount: faultAmount + amount });
}

type Seat = Fields<typeof RECORDS.seat>;
const SEATS = ['seat0', 'seat1', 'seat2'] as const;

function seatOf(call: Call): { readonly name: (typeof SEATS)[number]; readonly seat: Seat } {
  const verifier = call.get('provider', 'verifier');
  const dispute = call.get('dispute');
  demand(call.at('operator') === verifier.operator && dispute.drawn === 1);
  const name = SEATS.find((one) => dispute[one].verifier === call.at('verifier'));
  demand(name !== undefined);
  return { name, seat: dispute[name] };
}

function contradicts(a: DecodedCommit, b: DecodedCommit): boolean {
  if (a.kind !== b.kind || !equal(a.subject, b.subject) || equal(a.value, b.value)) return false;
  if (a.attempt === b.attempt && a.index === b.index) return true;
  return a.kind === 'lease' && a.index < b.aux && b.index < a.aux;
}

function decodeOwn(call: Call, message: Uint8Array): DecodedCommit {
  let commit: DecodedCommit;
  try {
    commit = decodeCommit(message);
  } catch {
    throw new Refused();
  }
  demand(equal(commit.networkPrefix, decodeAddress(call.get('config').network).subarray(0, 4)));
  return commit;
}

function sysvar(hashes: readonly SlotHash[]): Uint8Array {
  const bytes = Buffer.alloc(8 + 40 * hashes.length);
  bytes.writeBigUInt64LE(BigInt(hashes.length));
  for (const [index, { slot, hash }] of hashes.entries()) {
    bytes.writeBigUInt64LE(slot, 8 + 40 * index);
    bytes.set(hash, 16 + 40 * index);
  }
  return bytes;
}

/** What each instruction demands and does. */
const RULES: Run = {
  initialize: () => demand(false), // There is a Config already, in every sequence.
  queueParameters: (call, { parameters }) => {
    demand(call.at('authority') === call.get('config').authority);
    checkParameters(parameters);
    const applicableAt = call.now + BigInt(LIMITS.parameterDelaySeconds);
    call.state.save('config', call.at('config'), { queued: parameters, applicableAt });
  },
  applyParameters: (call) => {
    const { queued, applicableAt } = call.get('config');
    demand(applicableAt !== 0n && call.now >= applicableAt);
    const zero = Object.fromEntries(
      Object.entries(queued).map(([name, value]) => [name, typeof value === 'bigint' ? 0n : 0]),
    ) as unknown as Parameters;
    call.state.save('config', call.at('config'), { parameters: queued, queued: zero, applicableAt: 0n });
  },
  setAuthority: (call) => {
    demand(call.at('authority') === call.get('config').authority);
    demand(call.at('newAuthority') === NOBODY || call.signed('newAuthority'));
    call.state.save('config', call.at('config'), { authority: call.at('newAuthority') });
  },
  setVerifier: (call, { member }) => {
    const { authority, verifiers, verifierCount } = call.get('config');
    const byAuthority = call.signedBy('authority', authority);
    const byOwner = call.signedBy('owner', call.get('provider').owner);
    const index = verifiers.indexOf(call.at('provider'));
    if (member !== 0) {
      demand(byAuthority && byOwner && index < 0 && verifierCount < LIMITS.verifiersMax);
      call.state.save('config', call.at('config'), {
        verifiers: [...verifiers, call.at('provider')],
        verifierCount: verifierCount + 1,
      });
      return;
    }
    demand((byAuthority || byOwner) && index >= 0);
    const left = verifiers.slice(0, -1);
    const last = verifiers.at(-1);
    if (index < left.length && last !== undefined) left[index] = last;
    call.state.save('config', call.at('config'), { verifiers: left, verifierCount: verifierCount - 1 });
  },
  registerProvider: (call, { bump, commissionBps, operator }) => {
    const config = call.get('config');
    demand(call.at('mint') === config.mint && call.isToken(call.at('payout'), config.mint));
    demand(commissionBps <= LIMITS.commissionBpsMax);
    const { address } = providerAddress(call.state.programId, call.at('owner'));
    const empty = { stake: 0n, shares: 0n, unbonding: 0n, generation: 0 };
    call.createOwn(['owner', 'provider', address], 'provider', {
      bump,
      commissionBps,
      openLeases: 0,
      owner: call.at('owner'),
      operator,
      payout: call.at('payout'),
      stakeVault: call.at('stakeVault'),
      own: empty,
      delegated: empty,
      reserved: 0n,
      settledCount: 0n,
      settledAmount: 0n,
      feesBurned: 0n,
      faults: 0n,
      faultAmount: 0n,
      registeredAt: call.now,
      slashed: 0n,
      slashDue: 0n,
      jailedUntil: 0n,
      rotatedAt: 0n,
      formerOperator: NOBODY,
    });
    call.createVault(['owner', 'stakeVault', stakeVaultAddress(call.state.programId, address).address], address);
  },
  updateProvider: (call, { commissionBps, operator }) => {
    const [config, provider] = [call.get('config'), call.get('provider')];
    demand(call.at('owner') === provider.owner && call.isToken(call.at('payout'), config.mint));
    demand(commissionBps <= LIMITS.commissionBpsMax);
    const rotated = operator !== provider.operator;
    const { rotatedAt } = provider;
    demand(!rotated || rotatedAt === 0n || call.now >= rotatedAt + BigInt(config.parameters.unbondingSeconds));
    call.state.save('provider', call.at('provider'), {
      commissionBps,
      payout: call.at('payout'),
      ...(rotated ? { operator, formerOperator: provider.operator, rotatedAt: call.now } : {}),
    });
  },
  stake: (call, { bump, amount }) => {
    const { pool: which, provider } = staking(call, 'staker');
    const pool = provider[which];
    demand(call.at('stakeVault') === provider.stakeVault && amount > 0n && total(provider) + amount <= U64_MAX);
    const shares = pool.shares === 0n ? amount : mulDiv(amount, pool.shares, pool.stake);
    demand(shares >= BigInt(LIMITS.sharesMin) && pool.shares + shares <= U64_MAX);
    if (which === 'delegated') demand(!overDelegated(pool.stake + amount, active(provider.own)));
    const held = call.state.held(call.at('delegation'));
    if (held === undefined || held.entry.kind === 'wallet') {
      const { address } = delegationAddress(call.state.programId, call.at('provider'), call.at('staker'));
      call.createOwn(['staker', 'delegation', address], 'delegation', {
        bump,
        generation: pool.generation,
        provider: call.at('provider'),
        staker: call.at('staker'),
        shares: 0n,
        unbonding: 0n,
        unbondingUntil: 0n,
        principal: 0n,
      });
    }
    const found = delegationOf(call, pool);
    call.transfer(call.at('source'), call.at('stakeVault'), call.at('staker'), amount);
    call.state.save('delegation', call.at('delegation'), {
      ...found,
      shares: found.shares + shares,
      principal: found.principal + amount,
    });
    call.state.save('provider', call.at('provider'), {
      [which]: { ...pool, stake: pool.stake + amount, shares: pool.shares + shares },
    });
  },
  unstake: (call, { shares }) => {
    const { unbondingSeconds } = call.get('config').parameters;
    const { pool: which, provider } = staking(call, 'staker');
    const pool = provider[which];
    const found = delegationOf(call, pool);
    demand(shares > 0n && shares <= found.shares);
    call.state.save('delegation', call.at('delegation'), {
      ...found,
      shares: found.shares - shares,
      unbonding: found.unbonding + shares,
      unbondingUntil: call.now + BigInt(unbondingSeconds),
    });
    call.state.save('provider', call.at('provider'), { [which]: { ...pool, unbonding: pool.unbonding + shares } });
  },
  withdrawStake: (call) => {
    const { pool: which, provider } = staking(call, 'staker');
    const pool = provider[which];
    const found = delegationOf(call, pool);
    demand(call.at('stakeVault') === provider.stakeVault);
    if (found.unbonding > 0n) {
      demand(call.now >= found.unbondingUntil && provider.slashDue === 0n);
      const amount = mulDiv(pool.stake, found.unbonding, pool.shares);
      demand(total(provider) - amount >= provider.reserved);
      call.transfer(call.at('stakeVault'), call.at('destination'), call.at('provider'), amount);
      call.state.save('provider', call.at('provider'), {
        [which]: {
          ...pool,
          stake: pool.stake - amount,
          shares: pool.shares - found.unbonding,
          unbonding: pool.unbonding - found.unbonding,
        },
      });
      const principal = (found.principal * found.unbonding) / (found.shares + found.unbonding);
      call.state.save('delegation', call.at('delegation'), {
        ...found,
        unbonding: 0n,
        principal: found.principal - principal,
      });
    } else {
      demand(found.shares === 0n);
    }
    if (found.shares === 0n) call.state.close(call.at('delegation'), call.at('staker'));
  },
  createBudget: (call, { bump, id, limits }) => {
    demand(call.at('mint') === call.get('config').mint);
    demand(limits.delegateCount >= 1 && limits.delegateCount <= LIMITS.delegatesMax);
    const { address } = budgetAddress(call.state.programId, call.at('owner'), id);
    call.createOwn(['owner', 'budget', address], 'budget', {
      bump,
      id,
      limits,
      openLeases: 0,
      owner: call.at('owner'),
      vault: call.at('vault'),
      locked: 0n,
      spentToday: 0n,
      day: 0n,
    });
    call.createVault(['owner', 'vault', vaultAddress(call.state.programId, address).address], address);
  },
  deposit: (call, { amount }) => {
    demand(call.at('vault') === call.get('budget').vault && amount > 0n);
    call.transfer(call.at('source'), call.at('vault'), call.at('depositor'), amount);
  },
  withdrawBudget: (call, { amount }) => {
    const budget = call.get('budget');
    demand(call.at('owner') === budget.owner && call.at('vault') === budget.vault);
    demand(amount > 0n && amount <= call.free(budget));
    call.transfer(call.at('vault'), call.at('destination'), call.at('budget'), amount);
  },
  setDelegates: (call, { limits }) => {
    demand(call.at('owner') === call.get('budget').owner);
    demand(limits.delegateCount >= 1 && limits.delegateCount <= LIMITS.delegatesMax);
    call.state.save('budget', call.at('budget'), { limits });
  },
  closeBudget: (call) => {
    const budget = call.get('budget');
    demand(call.at('owner') === budget.owner && call.at('vault') === budget.vault && budget.openLeases === 0);
    const { amount } = call.token(call.at('vault'));
    call.transfer(call.at('vault'), call.at('destination'), call.at('budget'), amount);
    demand(call.has(TOKEN_PROGRAM));
    call.state.close(call.at('vault'), call.at('owner'));
    call.state.close(call.at('budget'), call.at('owner'));
  },
  openLease: (call, fields) => {
    const [config, provider, budget] = [call.get('config'), call.get('provider'), call.get('budget')];
    const { parameters } = config;
    demand(call.at('vault') === budget.vault && budget.limits.delegates.includes(call.at('delegate')));
    demand(call.at('operator') === provider.operator);
    const { amount, reserve, finishBy, graceSeconds, windowSeconds } = fields;
    demand(amount > 0n && call.now <= fields.openBefore);
    checkFinish(parameters, finishBy, call.now);
    demand(graceSeconds >= parameters.minGraceSeconds && graceSeconds <= LIMITS.secondsMax);
    demand(windowSeconds >= parameters.minWindowSeconds && windowSeconds <= LIMITS.secondsMax);
    demand(reserve >= shareUp(amount, parameters.reserveBps));
    checkBacking(parameters, provider, reserve, call.now);
    const spentToday = checkMoney(call, budget, amount, amount);
    const { address } = leaseAddress(call.state.programId, call.at('budget'), fields.termsDigest);
    call.createOwn(['payer', 'lease', address], 'lease', {
      bump: fields.bump,
      state: 1,
      graceSeconds,
      windowSeconds,
      stakeFeeBps: parameters.stakeFeeBps,
      burnFeeBps: parameters.burnFeeBps,
      noShowSlashBps: parameters.noShowSlashBps,
      commissionBps: provider.commissionBps,
      disputeBondBps: parameters.disputeBondBps,
      budget: call.at('budget'),
      provider: call.at('provider'),
      operator: call.at('operator'),
      delegate: call.at('delegate'),
      rentPayer: call.at('payer'),
      payout: provider.payout,
      termsDigest: fields.termsDigest,
      resultDigest: new Uint8Array(32),
      amount,
      pricePerSecond: fields.pricePerSecond,
      reserve,
      redeemed: 0n,
      claimed: 0n,
      openedAt: call.now,
      finishBy,
      provenAt: 0n,
    });
    call.state.save('budget', call.at('budget'), {
      day: call.now / DAY,
      spentToday,
      locked: budget.locked + amount,
      openLeases: budget.openLeases + 1,
    });
    call.state.save('provider', call.at('provider'), {
      reserved: provider.reserved + reserve,
      openLeases: provider.openLeases + 1,
    });
  },
  extendLease: (call, { amount, reserve, finishBy }) => {
    const [config, provider, budget] = [call.get('config'), call.get('provider'), call.get('budget')];
    const lease = call.get('lease');
    demand(call.at('provider') === lease.provider && call.at('budget') === lease.budget);
    demand(call.at('vault') === budget.vault && call.at('delegate') === lease.delegate);
    demand(budget.limits.delegates.includes(lease.delegate) && call.at('operator') === lease.operator);
    demand(lease.state === 1 && amount >= lease.amount && reserve >= lease.reserve && finishBy >= lease.finishBy);
    checkFinish(config.parameters, finishBy, call.now);
    demand(reserve >= shareUp(amount, config.parameters.reserveBps));
    checkBacking(config.parameters, provider, reserve - lease.reserve, call.now);
    const spentToday = checkMoney(call, budget, amount, amount - lease.amount);
    call.state.save('budget', call.at('budget'), {
      day: call.now / DAY,
      spentToday,
      locked: budget.locked + amount - lease.amount,
    });
    call.state.save('provider', call.at('provider'), { reserved: provider.reserved + reserve - lease.reserve });
    call.state.save('lease', call.at('lease'), { amount, reserve, finishBy });
  },
  submitProof: (call, { claimed, resultDigest }) => {
    const lease = call.get('lease');
    demand(call.at('operator') === lease.operator && lease.state === 1);
    demand(claimed <= lease.amount && claimed >= lease.redeemed);
    demand(call.now <= lease.finishBy + BigInt(lease.graceSeconds));
    call.state.save('lease', call.at('lease'), { state: 2, claimed, resultDigest, provenAt: call.now });
  },
  redeemVoucher: (call, { amount }) => {
    const lease = closing(call);
    demand(call.signedBy('operator', lease.operator) && lease.state === 1);
    demand(call.now <= lease.finishBy + BigInt(lease.graceSeconds));
    const { signer, messages } = call.evidence(1, 88);
    const { network } = call.get('config');
    const voucher = encodeVoucher({ network, lease: call.at('lease'), amount: baseUnits(amount) });
    demand(signer === lease.delegate && equal(messages[0] ?? new Uint8Array(), voucher));
    const goal = smaller(amount, lease.amount);
    demand(goal > lease.redeemed);
    payUpTo(call, goal);
  },
  settle: (call, { amount, resultDigest }) => {
    const lease = closing(call);
    const delegate = call.signedBy('delegate', lease.delegate);
    const operator = call.signedBy('operator', lease.operator);
    demand(lease.state !== 3 && amount <= lease.amount && amount >= lease.redeemed);
    if (!(delegate && operator)) {
      const proven = lease.state === 2;
      if (proven) demand(equal(resultDigest, lease.resultDigest));
      const claim = proven && amount === lease.claimed;
      if (delegate) demand(claim || amount === lease.amount);
      else demand(claim && call.now > lease.provenAt + BigInt(lease.windowSeconds));
    }
    payUpTo(call, amount);
    const { settledCount } = call.get('provider');
    if (amount > 0n) call.state.save('provider', call.at('provider'), { settledCount: settledCount + 1n });
    release(call);
  },
  cancelLease: (call, { amount }) => {
    const lease = closing(call);
    const delegate = call.signedBy('delegate', lease.delegate);
    const operator = call.signedBy('operator', lease.operator);
    demand((delegate || operator) && lease.state === 1);
    const used = smaller(larger(call.now - lease.openedAt, 0n) * lease.pricePerSecond, lease.amount);
    const owed = larger(used, lease.redeemed);
    if (!delegate) demand(amount === 0n);
    else demand(amount >= (operator ? lease.redeemed : owed));
    payUpTo(call, delegate ? smaller(amount, owed) : lease.redeemed);
    release(call);
  },
  expireLease: (call) => {
    const lease = closing(call);
    demand(lease.state === 1 && call.now > lease.finishBy + BigInt(lease.graceSeconds));
    const lost = smaller(share(lease.amount, lease.noShowSlashBps), lease.reserve);
    if (lost > 0n) compensate(call, lost, 10_000);
    fault(call, lease.amount);
    release(call);
  },
  dispute: (call, { bump }) => {
    const { parameters } = call.get('config');
    const [budget, lease] = [call.get('budget'), call.get('lease')];
    demand(call.at('budget') === lease.budget && call.at('vault') === budget.vault);
    demand(call.at('delegate') === lease.delegate && lease.state === 2);
    demand(call.now <= lease.provenAt + BigInt(lease.windowSeconds));
    const bond = shareUp(lease.amount, lease.disputeBondBps);
    demand(bond <= call.free(budget));
    const seat = { verifier: NOBODY, commitment: new Uint8Array(32), pledge: 0n, committed: 0, vote: 0 };
    const { address } = disputeAddress(call.state.programId, call.at('lease'));
    call.createOwn(['delegate', 'dispute', address], 'dispute', {
      bump,
      drawn: 0,
      lease: call.at('lease'),
      provider: lease.provider,
      rentPayer: call.at('delegate'),
      bond,
      slot: call.moment.slot,
      voteUntil: call.now + BigInt(parameters.voteSeconds),
      revealUntil: 0n,
      seat0: seat,
      seat1: seat,
      seat2: seat,
    });
    call.state.save('lease', call.at('lease'), { state: 3 });
    call.state.save('budget', call.at('budget'), { locked: budget.locked + bond });
  },
  draw: (call) => {
    const [config, dispute] = [call.get('config'), call.get('dispute')];
    demand(call.at('slotHashes') === SLOT_HASHES_SYSVAR && dispute.drawn === 0 && call.now <= dispute.voteUntil);
    const { slotHashes, slot } = call.moment;
    demand(config.verifiers.filter((one) => one !== dispute.provider).length >= SEATS.length);
    demand(slotHashes.some((one) => one.slot > dispute.slot));
    if (slotHashes.length === 512 && slotHashes.every((one) => one.slot > dispute.slot)) {
      call.state.save('dispute', call.at('dispute'), { slot });
      return;
    }
    const drawn = drawnVerifiers({
      dispute: call.at('dispute'),
      provider: dispute.provider,
      slot: dispute.slot,
      verifiers: config.verifiers,
      slotHashes: sysvar(slotHashes),
    });
    const { voteSeconds, revealSeconds, verifierPledge } = config.parameters;
    const voteUntil = call.now + BigInt(voteSeconds);
    const seats = drawn.map((verifier, index) => {
      demand(call.at(`verifier${index}`) === verifier);
      const provider = call.get('provider', `verifier${index}`);
      const pledge = smaller(verifierPledge, total(provider) - provider.reserved);
      call.state.save('provider', verifier, { reserved: provider.reserved + pledge });
      return [SEATS[index], { ...dispute.seat0, verifier, pledge }] as const;
    });
    call.state.save('dispute', call.at('dispute'), {
      drawn: 1,
      voteUntil,
      revealUntil: voteUntil + BigInt(revealSeconds),
      ...Object.fromEntries(seats),
    });
  },
  vote: (call, { commitment }) => {
    const { name, seat } = seatOf(call);
    demand(call.now <= call.get('dispute').voteUntil);
    call.state.save('dispute', call.at('dispute'), { [name]: { ...seat, commitment, committed: 1 } });
  },
  revealVote: (call, { vote, salt }) => {
    const { name, seat } = seatOf(call);
    const { voteUntil, revealUntil } = call.get('dispute');
    demand(call.now > voteUntil && call.now <= revealUntil && seat.committed === 1);
    demand(vote === VOTES.provider || vote === VOTES.buyer);
    const side = vote === VOTES.provider ? 'provider' : 'buyer';
    demand(equal(voteCommitment(call.at('dispute'), seat.verifier, side, salt), seat.commitment));
    call.state.save('dispute', call.at('dispute'), { [name]: { ...seat, vote } });
  },
  resolve: (call) => {
    const lease = closing(call);
    const dispute = call.get('dispute');
    demand(dispute.lease === call.at('lease') && call.at('disputeRentPayer') === dispute.rentPayer);
    const seats = SEATS.map((name) => dispute[name]);
    const count = (vote: number): number => seats.filter((seat) => seat.vote === vote).length;
    const until = dispute.drawn === 1 ? dispute.revealUntil : dispute.voteUntil;
    demand(count(0) === 0 || call.now > until);
    for (const [index, seat] of dispute.drawn === 1 ? seats.entries() : []) {
      demand(call.at(`verifier${index}`) === seat.verifier);
      const verifier = call.get('provider', `verifier${index}`);
      demand(call.at(`stakeVault${index}`) === verifier.stakeVault);
      call.state.save('provider', seat.verifier, { reserved: verifier.reserved - seat.pledge });
      if (seat.vote === 0 && seat.pledge > 0n) slash(call, `${index as 0 | 1 | 2}`, seat.pledge, 0);
    }
    const budget = call.get('budget');
    call.state.save('budget', call.at('budget'), { locked: budget.locked - dispute.bond });
    let goal = larger(lease.claimed / 2n, lease.redeemed);
    if (count(VOTES.provider) >= 2) {
      goal = lease.claimed;
      const takes = canTake(call);
      call.transfer(call.at('vault'), call.at(takes ? 'payout' : 'stakeVault'), call.at('budget'), dispute.bond);
      const { own, settledCount } = call.get('provider');
      call.state.save('provider', call.at('provider'), {
        own: takes ? own : { ...own, stake: own.stake + dispute.bond },
        settledCount: goal > 0n ? settledCount + 1n : settledCount,
      });
    } else if (count(VOTES.buyer) >= 2) {
      goal = lease.redeemed;
      if (lease.reserve > 0n) compensate(call, lease.reserve, LIMITS.reporterBps + LIMITS.harmedBps);
      fault(call, lease.amount);
    }
    payUpTo(call, goal);
    release(call);
    call.state.close(call.at('dispute'), call.at('disputeRentPayer'));
  },
  slashEquivocation: (call, { bump }) => {
    const [config, provider] = [call.get('config'), call.get('provider')];
    demand(call.at('stakeVault') === provider.stakeVault && call.at('mint') === config.mint);
    const held = call.state.held(call.at('offence'));
    const known = held !== undefined && held.entry.kind !== 'wallet';
    if (!known) noteOffence(call, bump);
    const offence = call.get('offence');
    demand(offence.provider === call.at('provider'));
    const amount = smaller(offence.due, total(provider) - provider.reserved);
    demand(!known || amount > 0n);
    const harmed = call.at('harmedBudget') === offence.harmed && isHarmed(call);
    call.state.save('offence', call.at('offence'), { due: offence.due - amount });
    call.state.save('provider', call.at('provider'), { slashDue: call.get('provider').slashDue - amount });
    const bps = harmed ? LIMITS.reporterBps + LIMITS.harmedBps : LIMITS.reporterBps;
    const own = slash(call, '', amount, bps);
    const reward = share(own, LIMITS.reporterBps);
    call.transfer(call.at('stakeVault'), call.at('reward'), call.at('provider'), reward);
    if (harmed)
      call.transfer(call.at('stakeVault'), call.at('harmedVault'), call.at('provider'), share(own, bps) - reward);
  },
};

/** The first time: the evidence counts, and what is lost is fixed. */
function noteOffence(call: Call, bump: number): void {
  const [config, provider] = [call.get('config'), call.get('provider')];
  const { signer, messages } = call.evidence(2, 136);
  demand(signer === provider.operator || signer === provider.formerOperator);
  const [first, second] = messages;
  demand(first !== undefined && second !== undefined);
  const [a, b] = [decodeOwn(call, first), decodeOwn(call, second)];
  demand(contradicts(a, b));
  const named = equal(a.accountPrefix, decodeAddress(call.at('harmedBudget')).subarray(0, 24));
  const harmed = named && isHarmed(call);
  const digest = offenceDigest({ commits: [first, second] });
  const amount = share(total(provider), config.parameters.equivocationSlashBps);
  const { address } = offenceAddress(call.state.programId, call.at('provider'), digest);
  call.createOwn(['reporter', 'offence', address], 'offence', {
    bump,
    kind: first[16] ?? 0,
    provider: call.at('provider'),
    reporter: call.at('reporter'),
    harmed: harmed ? call.at('harmedBudget') : NOBODY,
    digest,
    amount,
    due: amount,
    provenAt: call.now,
  });
  call.state.save('provider', call.at('provider'), {
    slashDue: provider.slashDue + amount,
    jailedUntil: call.now + BigInt(LIMITS.jailSeconds),
  });
  fault(call, amount);
}

/** The account in the place of the harmed budget is one, and its vault stands beside it; a closed one is not harmed. */
function isHarmed(call: Call): boolean {
  const entry = call.state.held(call.at('harmedBudget'))?.entry;
  if (entry === undefined || !(entry.kind in ACCOUNTS)) return false;
  demand(call.at('harmedVault') === call.get('budget', 'harmedBudget').vault);
  return true;
}

/** The hash that the tests give to a slot. */
export const slotHash = (slot: bigint): Uint8Array => createHash('sha256').update(`slot ${slot}`).digest();
