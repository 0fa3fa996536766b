/**
 * One game: a sequence of instructions by honest and hostile people, sent to the real program and told to the reference.
 *
 * A step is a handful of numbers; what they mean depends on what is there when it is played, so that any sequence makes
 * sense and shrinks well. A hostile step is an honest one with an account, a signature or the data exchanged.
 */
import { PublicKey, SystemProgram, TransactionInstruction } from '@solana/web3.js';

import { configAddress, disputeAddress, leaseAddress, tokenAddress, vaultAddress } from '../../../chain/addresses.ts';
import { readDispute, readLease } from '../../../chain/accounts.ts';
import * as calls from '../../../chain/calls.ts';
import type { DisputeAccount, LeaseAccount, LeaseTerms, Parameters } from '../../../chain/chain.ts';
import { decodeInstruction, encodeAccount } from '../../../chain/codec.ts';
import { SLOT_HASHES_SYSVAR, drawnVerifiers } from '../../../chain/evidence.ts';
import { INSTRUCTIONS, type InstructionName } from '../../../chain/layout.ts';
import { TOKEN_PROGRAM } from '../../../chain/token.ts';
import type { Address } from '../../../protocol/address.ts';
import { encodeCommit, type CommitKind } from '../../../protocol/commit.ts';
import type { KeyPair } from '../../../protocol/ed25519.ts';
import { U64_MAX, baseUnits, type BaseUnits } from '../../../protocol/units.ts';
import { encodeVoucher } from '../../../protocol/voucher.ts';
import { LIMITS_OPEN, PARAMETERS, START_SECONDS, must } from '../market.ts';
import { Reference, type Held, type Sent } from './reference.ts';
import type { Buyer, Seller, World } from './world.ts';

/** How a step is made hostile. */
export interface Mutation {
  readonly do: 'replace' | 'unsign' | 'lock' | 'cut' | 'drop' | 'duplicate' | 'strip';
  /** Which account, and by which other one. */
  readonly place: number;
  readonly other: number;
}

export interface Step {
  readonly do: Action;
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly amount: bigint;
  readonly mutation?: Mutation;
}

export const ACTIONS = [
  'stake',
  'unstake',
  'withdrawStake',
  'deposit',
  'withdrawBudget',
  'setDelegates',
  'createBudget',
  'closeBudget',
  'registerProvider',
  'updateProvider',
  'openLease',
  'extendLease',
  'redeemVoucher',
  'submitProof',
  'settle',
  'cancelLease',
  'expireLease',
  'dispute',
  'draw',
  'vote',
  'revealVote',
  'resolve',
  'slashEquivocation',
  'queueParameters',
  'applyParameters',
  'setAuthority',
  'setVerifier',
  'initialize',
  'wait',
  'tick',
  'gift',
] as const;
export type Action = (typeof ACTIONS)[number];

const WAITS = [1, 59, 61, 301, 601, 631, 3_600, 86_400, 172_800, 30 * 86_400];
const SALT = new Uint8Array(32).fill(9);
const RESULT = new Uint8Array(32).fill(7);

function pick<T>(list: readonly T[], index: number): T {
  if (list.length === 0) throw new TypeError('nothing to pick from');
  return list[index % list.length] as T;
}

export class Game {
  readonly #world: World;
  readonly #reference: Reference;
  /** What the VM had of every account that was looked at. */
  readonly #seen: Map<Address, string> = new Map();
  /** Leases by the number of their terms, also those that ended. */
  readonly #leases: Map<number, LeaseAccount> = new Map();
  /** Accepted steps by kind. */
  readonly accepted: Map<Action, number> = new Map();

  constructor(world: World) {
    this.#world = world;
    world.restore();
    this.#reference = new Reference(world.market, world.start, world.rent);
  }

  /** Plays a step on both sides. Throws when they differ. */
  play(step: Step): void {
    if (step.do === 'wait') return this.#world.market.setTime(this.#world.market.now() + pick(WAITS, step.a));
    if (step.do === 'tick') return this.#world.setSlot(this.#world.market.slot() + 1 + (step.a % 20));
    if (step.do === 'gift') return this.#gift(step);
    const built = this.#build(step);
    if (built.length === 0) return;
    const instructions = step.mutation === undefined ? built : this.#mutate(built, step.mutation);
    const sent = this.#describe(instructions);
    const accepted = sent !== undefined && this.#reference.apply(sent, this.#world.moment());
    this.#remember(instructions);
    const outcome = this.#world.send(instructions);
    const refusal = outcome.refused ?? outcome.failed;
    if (accepted !== (refusal === undefined)) {
      const wanted = accepted ? 'accepts' : 'refuses';
      throw new TypeError(
        `the reference ${wanted} this; the program says: ${refusal ?? 'done'} ${tell(step)} ${outcome.logs.join(' | ')}`,
      );
    }
    for (const address of addressesIn(instructions)) this.#compare(address, accepted, step);
    if (accepted) this.accepted.set(step.do, (this.accepted.get(step.do) ?? 0) + 1);
  }

  /** Looks at every account there is, and at what must hold whatever happened. */
  finish(): void {
    for (const address of this.#reference.accounts.keys()) this.#compare(address, true, undefined);
    this.#checkInvariants();
  }

  #checkInvariants(): void {
    let tokens = 0n;
    const reserves = new Map<Address, bigint>();
    const locks = new Map<Address, bigint>();
    const add = (sums: Map<Address, bigint>, key: Address, amount: bigint): unknown =>
      sums.set(key, (sums.get(key) ?? 0n) + amount);
    for (const [, { entry }] of this.#reference.accounts) {
      if (entry.kind === 'token' && entry.mint === this.#reference.mint) tokens += entry.amount;
      if (entry.kind === 'lease') {
        add(reserves, entry.fields.provider, entry.fields.reserve);
        add(locks, entry.fields.budget, entry.fields.amount - entry.fields.redeemed);
      }
      if (entry.kind === 'dispute') {
        const { seat0, seat1, seat2, lease, bond, drawn } = entry.fields;
        if (drawn === 1) for (const seat of [seat0, seat1, seat2]) add(reserves, seat.verifier, seat.pledge);
        const about = this.#reference.accounts.get(lease)?.entry;
        if (about?.kind === 'lease') add(locks, about.fields.budget, bond);
      }
    }
    const supply = this.#reference.accounts.get(this.#reference.mint)?.entry;
    check(supply?.kind === 'mint' && supply.supply === tokens, 'all tokens are somewhere');
    for (const [address, { entry }] of this.#reference.accounts) {
      if (entry.kind === 'provider') {
        const { own, delegated, reserved, stakeVault } = entry.fields;
        const vault = this.#reference.accounts.get(stakeVault)?.entry;
        check(reserved === (reserves.get(address) ?? 0n), 'reserved is the sum of leases and pledges');
        check(own.stake + delegated.stake >= reserved, 'stake covers what is reserved');
        check(vault?.kind === 'token' && vault.amount >= own.stake + delegated.stake, 'the vault holds the stake');
        check(own.shares >= own.unbonding && delegated.shares >= delegated.unbonding, 'unbonding shares are shares');
        this.#checkShares(address, entry.fields);
      }
      if (entry.kind === 'budget') {
        const vault = this.#reference.accounts.get(entry.fields.vault)?.entry;
        check(entry.fields.locked === (locks.get(address) ?? 0n), 'locked is the sum of leases and bonds');
        check(vault?.kind === 'token' && vault.amount >= entry.fields.locked, 'the vault covers what is locked');
      }
    }
  }

  /** The shares of a pool are those of its delegations of the present generation. */
  #checkShares(address: Address, provider: Extract<Held['entry'], { kind: 'provider' }>['fields']): void {
    const sums = { own: [0n, 0n], delegated: [0n, 0n] } as const satisfies Record<string, bigint[]>;
    const found: Record<'own' | 'delegated', [bigint, bigint]> = { own: [...sums.own], delegated: [...sums.delegated] };
    for (const [, { entry }] of this.#reference.accounts) {
      if (entry.kind !== 'delegation' || entry.fields.provider !== address) continue;
      const which = entry.fields.staker === provider.owner ? 'own' : 'delegated';
      if (entry.fields.generation !== provider[which].generation) continue;
      found[which][0] += entry.fields.shares + entry.fields.unbonding;
      found[which][1] += entry.fields.unbonding;
    }
    for (const which of ['own', 'delegated'] as const) {
      check(found[which][0] === provider[which].shares, 'the shares of a pool are those of its delegations');
      check(found[which][1] === provider[which].unbonding, 'so are those that are unbonding');
    }
  }

  #remember(instructions: readonly TransactionInstruction[]): void {
    for (const address of addressesIn(instructions)) {
      if (!this.#seen.has(address)) this.#seen.set(address, this.#world.image(address));
    }
  }

  #compare(address: Address, accepted: boolean, step: Step | undefined): void {
    const image = this.#world.image(address);
    const before = this.#seen.get(address);
    const said = step === undefined ? 'at the end' : tell(step);
    if (!accepted) {
      check(image === before, `a refusal changed ${address}: ${said}`);
      return;
    }
    // What the reference does not know of an account, such as the rest of a token account, stays as it was seen first.
    const [, , base64] = (before ?? image).split(' ');
    const data = base64 === undefined || base64 === '' ? undefined : Buffer.from(base64, 'base64');
    const held = this.#reference.accounts.get(address);
    const expected = this.#world.expected(held, data);
    if (expected !== undefined && expected !== image) {
      throw new TypeError(`${address} is ${describe(image)} and not ${describe(expected)} after ${said}`);
    }
    this.#seen.set(address, image);
  }

  #gift(step: Step): void {
    const { market, thief } = this.#world;
    const { address } = leaseAddress(market.programId, pick(this.#world.buyers, step.a).budget, digestOf(step.b % 4));
    const lamports = 1_000_000n;
    const transfer = SystemProgram.transfer({
      fromPubkey: new PublicKey(thief.address),
      toPubkey: new PublicKey(address),
      lamports,
    });
    this.#remember([transfer]);
    const outcome = this.#world.send([transfer]);
    check(outcome.failed === undefined, `a gift is a transfer: ${outcome.failed}`);
    this.#reference.gift(thief.address, address, lamports);
    for (const account of [thief.address, address]) this.#seen.set(account, this.#world.image(account));
  }

  // From the wire back to what the program sees

  #describe(instructions: readonly TransactionInstruction[]): Sent | undefined {
    const last = must(instructions.at(-1));
    const evidence = instructions.length > 1 ? instructions[0] : undefined;
    const names = Object.keys(INSTRUCTIONS) as InstructionName[];
    const name = names.find((one) => INSTRUCTIONS[one].tag === last.data[0]);
    const fields = name && decodeInstruction(name, last.data);
    if (!name || !fields) return undefined;
    const all = instructions.flatMap(({ keys }) => keys);
    const any = (key: PublicKey, flag: 'isSigner' | 'isWritable'): boolean =>
      all.some((meta) => meta.pubkey.equals(key) && meta[flag]);
    // Flags belong to a key in the whole transaction. Programs and sysvars are never writable.
    const metas = last.keys.map(({ pubkey }) => ({
      address: pubkey.toBase58() as Address,
      isSigner: any(pubkey, 'isSigner'),
      isWritable: any(pubkey, 'isWritable') && !NEVER_WRITABLE.has(pubkey.toBase58()),
    }));
    const verified = evidence && readEvidence(evidence.data);
    return { name, metas, fields, ...(verified === undefined ? {} : { verified }) };
  }

  #mutate(
    instructions: readonly TransactionInstruction[],
    { do: kind, place, other }: Mutation,
  ): TransactionInstruction[] {
    if (kind === 'strip') return instructions.slice(-1);
    const last = must(instructions.at(-1));
    const keys = [...last.keys];
    let { data } = last;
    const at = place % Math.max(keys.length, 1);
    const target = keys[at];
    if (target === undefined) return [...instructions];
    const replace = (address: Address): void => {
      const canSign = this.#world.keys.has(address);
      keys[at] = { ...target, pubkey: new PublicKey(address), isSigner: target.isSigner && canSign };
    };
    if (kind === 'replace') replace(pick(this.#everything(), other));
    if (kind === 'duplicate') replace(pick(keys, other).pubkey.toBase58() as Address);
    if (kind === 'unsign') keys[at] = { ...target, isSigner: false };
    if (kind === 'lock') keys[at] = { ...target, isWritable: false };
    if (kind === 'drop') keys.splice(at, 1);
    if (kind === 'cut') data = other % 2 === 0 ? data.subarray(0, -1) : Buffer.concat([data, Buffer.from([0])]);
    const { programId } = last;
    return [...instructions.slice(0, -1), new TransactionInstruction({ programId, keys, data })];
  }

  /** Every account that a hostile step may put in place of another: also those that ended. */
  #everything(): Address[] {
    const ended = [...this.#leases.values()].map(({ address }) => address);
    return [...new Set([...this.#reference.accounts.keys(), ...ended, SystemProgram.programId.toBase58() as Address])];
  }

  // Building the honest form of a step

  #build(step: Step): TransactionInstruction[] {
    const { market } = this.#world;
    const seller = pick(this.#world.sellers, step.a);
    const buyer = pick(this.#world.buyers, step.b);
    switch (step.do) {
      case 'stake':
      case 'unstake':
      case 'withdrawStake':
        return this.#stakeStep(step, seller);
      case 'deposit':
      case 'withdrawBudget':
      case 'setDelegates':
      case 'createBudget':
      case 'closeBudget':
        return this.#budgetStep(step, buyer);
      case 'registerProvider':
      case 'updateProvider': {
        const settings = {
          operator: pick(seller.operators, step.b).address,
          payout: pick(
            [tokenAddress(seller.owner.address, market.mint), vaultAddress(market.programId, buyer.budget).address],
            step.c >> 2,
          ),
          commissionBps: [0, 500, 10_000, 10_001][step.c % 4] ?? 0,
        };
        const build = step.do === 'registerProvider' ? calls.callRegisterProvider : calls.callUpdateProvider;
        return [build(market.market, seller.owner.address, settings)];
      }
      case 'openLease':
        return [calls.callOpenLease(market.market, this.#terms(step, seller, buyer))];
      case 'slashEquivocation':
        return this.#slashStep(step, seller, buyer);
      case 'initialize':
      case 'queueParameters':
      case 'applyParameters':
      case 'setAuthority':
      case 'setVerifier':
        return this.#authorityStep(step, seller);
      default:
        return this.#leaseStep(step);
    }
  }

  #stakeStep(step: Step, seller: Seller): TransactionInstruction[] {
    const { market, stakers } = this.#world;
    const staker = pick([seller.owner, ...stakers], step.b).address;
    const staking = { staker, provider: seller.provider };
    const account = tokenAddress(staker, market.mint);
    if (step.do === 'withdrawStake') return [calls.callWithdrawStake(market.market, staking, account)];
    if (step.do === 'stake') return [calls.callStake(market.market, staking, account, baseUnits(step.amount))];
    // Half of the time all that is held: a random number would seldom be it.
    const entry = this.#reference.accounts.get(this.#world.delegation(seller.provider, staker))?.entry;
    const held = entry?.kind === 'delegation' && step.c % 2 === 0 ? entry.fields.shares : step.amount;
    return [calls.callUnstake(market.market, staking, held)];
  }

  #budgetStep(step: Step, buyer: Buyer): TransactionInstruction[] {
    const { market, thief } = this.#world;
    const owner = buyer.owner.address;
    const account = tokenAddress(owner, market.mint);
    const move = { budget: buyer.budget, account, amount: baseUnits(step.amount) };
    const delegates =
      step.c % 3 === 0 ? [pick(buyer.delegates, step.a).address] : buyer.delegates.map(({ address }) => address);
    const capPerLease = step.c % 5 === 0 ? baseUnits(step.amount) : LIMITS_OPEN.capPerLease;
    const limits = { ...LIMITS_OPEN, capPerLease, delegates };
    switch (step.do) {
      case 'deposit':
        return [
          step.c % 4 === 0
            ? calls.callDeposit(market.market, thief.address, {
                ...move,
                account: tokenAddress(thief.address, market.mint),
              })
            : calls.callDeposit(market.market, owner, move),
        ];
      case 'withdrawBudget':
        return [calls.callWithdrawBudget(market.market, owner, move)];
      case 'createBudget':
        return [calls.callCreateBudget(market.market, owner, BigInt(1 + (step.c % 2)), limits)];
      case 'closeBudget':
        return [calls.callCloseBudget(market.market, owner, buyer.budget, account)];
      default:
        return [calls.callSetDelegates(market.market, owner, buyer.budget, limits)];
    }
  }

  #terms(step: Step, seller: Seller, buyer: Buyer): LeaseTerms {
    const { market } = this.#world;
    const entry = this.#reference.accounts.get(seller.provider)?.entry;
    const provider = entry?.kind === 'provider' ? entry.fields : undefined;
    const nowMs = market.now() * 1000;
    const number = step.c % 4;
    const amount = baseUnits(step.amount);
    const reserve = step.c % 8 < 6 ? (step.amount + 9n) / 10n : step.amount;
    const terms = {
      budget: buyer.budget,
      provider: seller.provider,
      operator: provider?.operator ?? seller.operators[0].address,
      delegate: pick(buyer.delegates, step.c >> 3).address,
      termsDigest: digestOf(number),
      amount,
      pricePerSecond: baseUnits(step.amount / 700n),
      reserve: capped(reserve),
      openBeforeMs: nowMs + (step.c % 16 === 15 ? -1_000 : 30_000),
      finishByMs: nowMs + (step.c % 32 === 31 ? 86_401_000 : 600_000),
      graceMs: 30_000,
      windowMs: 60_000,
    };
    this.#leases.set(number, {
      ...terms,
      address: leaseAddress(market.programId, buyer.budget, terms.termsDigest).address,
      rentPayer: terms.delegate,
      payout: provider?.payout ?? tokenAddress(seller.owner.address, market.mint),
      redeemed: baseUnits(0n),
      state: 'running',
      openedAtMs: nowMs,
      stakeFeeBps: 0,
      burnFeeBps: 0,
      noShowSlashBps: 0,
      disputeBondBps: 0,
      commissionBps: 0,
    });
    return terms;
  }

  /** A lease by the number of its terms, as it is now or as it last was; undefined where there never was one. */
  #lease(number: number): LeaseAccount | undefined {
    const last = this.#leases.get(number);
    if (last === undefined) return undefined;
    const entry = this.#reference.accounts.get(last.address)?.entry;
    if (entry?.kind !== 'lease') return last;
    const lease = readLease(last.address, encodeAccount('lease', entry.fields));
    this.#leases.set(number, lease);
    return lease;
  }

  #dispute(lease: LeaseAccount): DisputeAccount | undefined {
    const { address } = disputeAddress(this.#world.market.programId, lease.address);
    const entry = this.#reference.accounts.get(address)?.entry;
    return entry?.kind === 'dispute' ? readDispute(address, encodeAccount('dispute', entry.fields)) : undefined;
  }

  #leaseStep(step: Step): TransactionInstruction[] {
    const { market } = this.#world;
    const numbers = [...this.#leases.keys()];
    const lease = numbers.length === 0 ? undefined : this.#lease(pick(numbers.toReversed(), step.a));
    if (lease === undefined) return [];
    const within = baseUnits(step.c % 3 === 0 ? step.amount : step.amount % (lease.amount + 1n));
    const by = pick<readonly calls.LeaseParty[]>([['delegate', 'operator'], ['delegate'], ['operator'], []], step.b);
    const claim = lease.proof?.claimed ?? within;
    switch (step.do) {
      case 'extendLease': {
        const amount = capped(lease.amount + (step.amount % 3_000_000n));
        const reserve = step.c % 4 === 0 ? lease.reserve : capped(lease.reserve + amount / 10n);
        return [
          calls.callExtendLease(market.market, lease, {
            amount,
            reserve,
            finishByMs: lease.finishByMs + 1_000 * (step.b % 700),
          }),
        ];
      }
      case 'redeemVoucher': {
        const signer = must(this.#world.keys.get(step.b % 8 === 0 ? this.#world.thief.address : lease.delegate));
        const signed = baseUnits(step.b % 9 === 0 ? within / 2n : within);
        const message = encodeVoucher({ network: market.network, lease: lease.address, amount: signed });
        const voucher = { message, signature: signer.sign(message) };
        const [verify, redeem] = calls.callRedeemVoucher(market.market, lease, within, voucher);
        // What another key has signed verifies too; it is the program that must look whose it is.
        const verifyAs = calls.callRedeemVoucher(
          market.market,
          { ...lease, delegate: signer.address },
          within,
          voucher,
        )[0];
        return [must(signer.address === lease.delegate ? verify : verifyAs), must(redeem)];
      }
      case 'submitProof':
        return [
          calls.callSubmitProof(market.market, lease.operator, {
            lease: lease.address,
            claimed: within,
            resultDigest: RESULT,
          }),
        ];
      case 'settle': {
        const amount = pick([claim, within, lease.amount], step.c);
        return [calls.callSettle(market.market, lease, { amount, resultDigest: step.c % 7 === 6 ? SALT : RESULT }, by)];
      }
      case 'cancelLease':
        return [calls.callCancelLease(market.market, lease, pick([baseUnits(0n), within, lease.amount], step.c), by)];
      case 'expireLease':
        return [calls.callExpireLease(market.market, lease)];
      case 'dispute':
        return [calls.callDispute(market.market, lease)];
      default:
        return this.#disputeStep(step, lease);
    }
  }

  #disputeStep(step: Step, lease: LeaseAccount): TransactionInstruction[] {
    const { market, sellers } = this.#world;
    const dispute = this.#dispute(lease);
    const verifiers = sellers.slice(2, 5).map(({ provider }) => provider) as unknown as [Address, Address, Address];
    if (step.do === 'draw') {
      return [calls.callDraw(market.market, lease.address, (dispute && this.#drawn(dispute)) ?? verifiers)];
    }
    if (step.do === 'resolve') {
      const nobody = {
        ...EMPTY_DISPUTE,
        address: disputeAddress(market.programId, lease.address).address,
        rentPayer: lease.delegate,
      };
      return [calls.callResolve(market.market, lease, dispute ?? nobody)];
    }
    const drawn = dispute?.seats.map((seat) => seat.verifier) ?? [];
    const verifier = pick(drawn.length > 0 && step.b < 60 ? drawn : verifiers, step.b);
    const entry = this.#reference.accounts.get(verifier)?.entry;
    const operator = entry?.kind === 'provider' ? entry.fields.operator : market.authority.address;
    // Seats vote by their number in most games, so that all outcomes come up.
    const side = step.c % 3 === 0 ? 'buyer' : 'provider';
    const vote = { lease: lease.address, verifier, side, salt: SALT } as const;
    const build = step.do === 'vote' ? calls.callVote : calls.callRevealVote;
    return [build(market.market, operator, vote)];
  }

  #drawn(dispute: DisputeAccount): readonly [Address, Address, Address] | undefined {
    const { market } = this.#world;
    const entry = this.#reference.accounts.get(configAddress(market.programId).address)?.entry;
    const verifiers = entry?.kind === 'config' ? entry.fields.verifiers : [];
    const { address, provider, slot } = dispute;
    const hashes = must(market.data(SLOT_HASHES_SYSVAR));
    try {
      return drawnVerifiers({ dispute: address, provider, slot, verifiers, slotHashes: hashes });
    } catch {
      return undefined;
    }
  }

  #slashStep(step: Step, seller: Seller, buyer: Buyer): TransactionInstruction[] {
    const { market, thief, stakers } = this.#world;
    const kind: CommitKind = step.c % 3 === 0 ? 'lease' : 'result';
    const make = (value: number, from: bigint): Uint8Array =>
      encodeCommit({
        kind,
        attempt: step.c % 2,
        network: step.c % 17 === 16 ? thief.address : market.network,
        subject: new Uint8Array(32).fill(step.b % 3),
        index: kind === 'lease' ? from : 0n,
        aux: kind === 'lease' ? from + 100n : 0n,
        value: new Uint8Array(32).fill(value),
        slot: 0n,
        account: buyer.budget,
      });
    const commits = [make(1, 0n), make(step.c % 11 === 10 ? 1 : 2, step.amount % 150n)] as const;
    const entry = this.#reference.accounts.get(seller.provider)?.entry;
    const operator = entry?.kind === 'provider' ? entry.fields.operator : seller.operators[0].address;
    const signer: KeyPair = must(this.#world.keys.get(step.c % 13 === 12 ? seller.owner.address : operator));
    const evidence = {
      signer: signer.address,
      commits,
      signatures: [signer.sign(commits[0]), signer.sign(commits[1])] as const,
    };
    const reporter = pick(stakers, step.b);
    const report = {
      reporter: reporter.address,
      reward: tokenAddress(reporter.address, market.mint),
      provider: seller.provider,
    };
    return calls.callSlashEquivocation(market.market, report, evidence, step.c % 4 === 0 ? undefined : buyer.budget);
  }

  #authorityStep(step: Step, seller: Seller): TransactionInstruction[] {
    const { market, thief } = this.#world;
    const who = (step.c % 4 === 3 ? thief : market.authority).address;
    const changed: Parameters = {
      ...PARAMETERS,
      noShowSlashBps: pick([500, 5_000, 10_000, 10_001], step.a),
      stakeFeeBps: pick([200, 1_000], step.b),
      reserveBps: pick([1_000, 0, 5_000], step.b),
    };
    switch (step.do) {
      case 'initialize':
        return [calls.callInitialize(market.market, who, PARAMETERS, market.network)];
      case 'queueParameters':
        return [calls.callQueueParameters(market.market, who, changed)];
      case 'applyParameters':
        return [calls.callApplyParameters(market.market)];
      case 'setAuthority':
        return [
          calls.callSetAuthority(
            market.market,
            who,
            pick([thief.address, market.authority.address, undefined], step.b),
          ),
        ];
      default: {
        const people = { authority: market.authority.address, owner: seller.owner.address };
        const signing = pick([[people.authority, people.owner], [people.owner], [people.authority], []], step.b);
        return [calls.callSetVerifier(market.market, people, step.c % 2 === 0, signing)];
      }
    }
  }
}

const EMPTY_DISPUTE: Omit<DisputeAccount, 'address' | 'rentPayer'> = {
  lease: TOKEN_PROGRAM,
  provider: TOKEN_PROGRAM,
  bond: baseUnits(0n),
  slot: 0n,
  seats: [],
  voteUntilMs: 0,
  revealUntilMs: START_SECONDS,
};

const NEVER_WRITABLE: ReadonlySet<string> = new Set([
  TOKEN_PROGRAM,
  SystemProgram.programId.toBase58(),
  'SysvarS1otHashes111111111111111111111111111',
  'Sysvar1nstructions1111111111111111111111111',
]);

const capped = (amount: bigint): BaseUnits => baseUnits(amount < U64_MAX ? amount : U64_MAX);

/** The accounts that a transaction could change: programs and sysvars are out of its reach. */
function addressesIn(instructions: readonly TransactionInstruction[]): Address[] {
  const all = instructions.flatMap(({ keys }) => keys.map(({ pubkey }) => pubkey.toBase58()));
  return [...new Set(all)].filter((address) => !NEVER_WRITABLE.has(address)) as Address[];
}

function digestOf(number: number): Uint8Array {
  return new Uint8Array(32).fill(100 + number);
}

function check(condition: boolean, reason: string): void {
  if (!condition) throw new TypeError(reason);
}

const tell = (step: Step): string =>
  JSON.stringify(step, (_, value: unknown) => (typeof value === 'bigint' ? `${value}n` : value));

function describe(image: string): string {
  const [lamports, owner, data] = image.split(' ');
  return `${lamports} lamports of ${owner}: ${Buffer.from(data ?? '', 'base64').toString('hex')}`;
}

/** Signer and messages of an Ed25519 instruction that our builder made. */
function readEvidence(data: Buffer): { readonly signer: Address; readonly messages: readonly Uint8Array[] } {
  const count = data[0] ?? 0;
  const key = data.subarray(2 + 14 * count, 34 + 14 * count);
  const messages = Array.from({ length: count }, (_, index) => {
    const at = data.readUInt16LE(2 + 14 * index + 8);
    return new Uint8Array(data.subarray(at, at + data.readUInt16LE(2 + 14 * index + 10)));
  });
  return { signer: new PublicKey(key).toBase58() as Address, messages };
}
