/**
 * The people and accounts of the model test: made once in the real VM, then put back before every sequence.
 *
 * Two sellers (the second also verifies), three more verifiers, two buyers, two stakers who belong to nobody, and a thief
 * with tokens of another mint. One key outside of the game pays all transaction fees, so lamports can be compared too.
 */
import type { TransactionInstruction } from '@solana/web3.js';

import {
  budgetAddress,
  configAddress,
  programDataAddress,
  providerAddress,
  stakeVaultAddress,
  tokenAddress,
  vaultAddress,
} from '../../../chain/addresses.ts';
import * as calls from '../../../chain/calls.ts';
import { decodeAccount, encodeAccount } from '../../../chain/codec.ts';
import { INSTRUCTIONS_SYSVAR, SLOT_HASHES_SYSVAR } from '../../../chain/evidence.ts';
import { ACCOUNTS, layoutSize, type AccountKind } from '../../../chain/layout.ts';
import { TOKEN_PROGRAM } from '../../../chain/token.ts';
import { decodeAddress, encodeAddress, type Address } from '../../../protocol/address.ts';
import type { KeyPair } from '../../../protocol/ed25519.ts';
import { assert } from '../../../protocol/errors.ts';
import { baseUnits } from '../../../protocol/units.ts';
import { LIMITS_OPEN, START_SECONDS, TestMarket, callOwnStake, kit, must, newKey, type Outcome } from '../market.ts';
import { slotHash, type Entry, type Held, type Moment } from './reference.ts';

export const FIRST_SLOT = 1_000;
const SLOTS = 8;

export interface Seller {
  readonly owner: KeyPair;
  /** The one at the start, and one to rotate to. */
  readonly operators: readonly [KeyPair, KeyPair];
  readonly provider: Address;
}

export interface Buyer {
  readonly owner: KeyPair;
  readonly delegates: readonly [KeyPair, KeyPair];
  readonly budget: Address;
}

export class World {
  readonly market: TestMarket;
  readonly sellers: readonly Seller[];
  readonly buyers: readonly Buyer[];
  readonly stakers: readonly KeyPair[];
  readonly thief: KeyPair;
  readonly #payer: KeyPair = newKey();
  readonly #keys: Map<Address, KeyPair> = new Map();
  readonly #start: ReadonlyMap<Address, Held>;
  /** What every account looked like at the start, as the VM has it. */
  readonly #raw: ReadonlyMap<Address, unknown>;
  readonly #changed: Set<Address> = new Set();
  readonly #bytes: Map<Address, Uint8Array> = new Map();

  constructor() {
    this.market = new TestMarket();
    const { market } = this;
    market.fund(this.#payer, 10n ** 14n);
    this.sellers = Array.from({ length: 5 }, (_, index) => this.#seller(index > 0));
    this.buyers = [this.#buyer(), this.#buyer()];
    this.stakers = [market.newWallet(10n ** 9n), market.newWallet(10n ** 9n)];
    const foreign = market.newMint();
    this.thief = market.newWallet(10n ** 8n);
    const worthless = tokenAddress(this.thief.address, foreign);
    market.newWallet(0n, foreign);
    this.#track([market.authority, this.thief, ...this.stakers]);
    const wallets = [...this.#keys.keys()];
    const known = [
      configAddress(market.programId).address,
      market.mint,
      foreign,
      worthless,
      ...this.sellers.flatMap(({ provider, owner }) => [
        provider,
        stakeVaultAddress(market.programId, provider).address,
        this.delegation(provider, owner.address),
      ]),
      ...this.buyers.flatMap(({ budget }) => [budget, vaultAddress(market.programId, budget).address]),
      ...wallets,
      ...wallets.map((wallet) => tokenAddress(wallet, market.mint)),
      TOKEN_PROGRAM,
      NOBODY,
      programDataAddress(market.programId),
      SLOT_HASHES_SYSVAR,
      INSTRUCTIONS_SYSVAR,
    ];
    this.#start = new Map(known.flatMap((address) => this.#entry(address)));
    this.#raw = new Map([...this.#start.keys()].map((address) => [address, market.svm.getAccount(kit(address))]));
  }

  delegation(provider: Address, staker: Address): Address {
    const call = calls.callUnstake(this.market.market, { provider, staker }, 1n);
    return must(call.keys[3]?.pubkey.toBase58()) as Address;
  }

  #track(keys: readonly KeyPair[]): void {
    for (const key of keys) this.#keys.set(key.address, key);
  }

  #seller(isVerifier: boolean): Seller {
    const { market } = this;
    const owner = market.newWallet(10n ** 9n);
    const operators = [newKey(), newKey()] as const;
    operators.forEach((key) => market.fund(key));
    this.#track([owner, ...operators]);
    const settings = {
      operator: operators[0].address,
      payout: tokenAddress(owner.address, market.mint),
      commissionBps: 1_000,
    };
    const register = calls.callRegisterProvider(market.market, owner.address, settings);
    market.mustSend([register, callOwnStake(market, owner, 100_000_000n)], owner);
    if (isVerifier) {
      const people = { authority: market.authority.address, owner: owner.address };
      const join = calls.callSetVerifier(market.market, people, true, [people.authority, people.owner]);
      market.mustSend([join], market.authority, owner);
    }
    return { owner, operators, provider: providerAddress(market.programId, owner.address).address };
  }

  #buyer(): Buyer {
    const { market } = this;
    const owner = market.newWallet(10n ** 9n);
    const delegates = [newKey(), newKey()] as const;
    delegates.forEach((key) => market.fund(key));
    this.#track([owner, ...delegates]);
    const budget = budgetAddress(market.programId, owner.address, 1n).address;
    const limits = { ...LIMITS_OPEN, delegates: [delegates[0].address] };
    const account = tokenAddress(owner.address, market.mint);
    const deposit = { budget, account, amount: baseUnits(300_000_000n) };
    market.mustSend(
      [
        calls.callCreateBudget(market.market, owner.address, 1n, limits),
        calls.callDeposit(market.market, owner.address, deposit),
      ],
      owner,
    );
    return { owner, delegates, budget };
  }

  /** Everybody who can sign. */
  get keys(): ReadonlyMap<Address, KeyPair> {
    return this.#keys;
  }

  get start(): ReadonlyMap<Address, Held> {
    return this.#start;
  }

  rent = (size: number): bigint => this.market.svm.minimumBalanceForRentExemption(BigInt(size));

  /** Everything as at the start. */
  restore(): void {
    const { svm } = this.market;
    for (const address of this.#changed) {
      // Programs and sysvars are never changed by a transaction, and putting a program back would unload it.
      if (this.#start.get(address)?.entry.kind === 'other') continue;
      const before = this.#raw.get(address);
      if (before !== undefined) svm.setAccount(before as Parameters<typeof svm.setAccount>[0]);
      else this.market.setAccount(address, { owner: NOBODY, data: new Uint8Array(), lamports: 0n });
    }
    this.#changed.clear();
    this.market.setTime(START_SECONDS);
    this.setSlot(FIRST_SLOT);
  }

  setSlot(slot: number): void {
    if (slot !== this.market.slot()) this.market.setSlot(slot, SLOTS);
  }

  moment(): Moment {
    const slot = this.market.slot();
    const slotHashes = Array.from({ length: SLOTS }, (_, index) => BigInt(slot - 1 - index));
    return {
      now: BigInt(this.market.now()),
      slot: BigInt(slot),
      slotHashes: slotHashes.map((at) => ({ slot: at, hash: slotHash(at) })),
    };
  }

  /** Sends with every signature that is marked and that somebody here can give. */
  send(instructions: readonly TransactionInstruction[]): Outcome {
    for (const { keys } of instructions) {
      for (const { pubkey, isWritable } of keys) if (isWritable) this.#changed.add(pubkey.toBase58() as Address);
    }
    const signers = new Set(
      instructions.flatMap(({ keys }) =>
        keys.filter(({ isSigner }) => isSigner).map(({ pubkey }) => pubkey.toBase58()),
      ),
    );
    const pairs = [...signers].map((address) => must(this.#keys.get(address as Address)));
    return this.market.send(instructions, this.#payer, ...pairs);
  }

  /** Data and lamports as the VM has them, in a form that two moments can be compared in. */
  image(address: Address): string {
    let key = this.#bytes.get(address);
    if (key === undefined) this.#bytes.set(address, (key = decodeAddress(address)));
    const account = this.market.vm.getAccount(key);
    const lamports = account?.lamports() ?? 0n;
    if (!account || lamports === 0n) return 'none';
    return `${lamports} ${hex(account.owner())} ${Buffer.from(account.data()).toString('base64')}`;
  }

  /** What an account of the reference looks like in the VM; undefined for those whose data the reference does not know. */
  expected(held: Held | undefined, data: Uint8Array | undefined): string | undefined {
    if (held === undefined || held.lamports === 0n) return 'none';
    const { entry, lamports } = held;
    const bytes = (owner: Address, content: Uint8Array): string =>
      `${lamports} ${hex(decodeAddress(owner))} ${Buffer.from(content).toString('base64')}`;
    switch (entry.kind) {
      case 'other':
        return undefined;
      case 'wallet':
        return bytes(NOBODY, new Uint8Array());
      case 'token': {
        // Only the amount of a token account ever changes; the rest is SPL Token's own business.
        const content = Buffer.from(data ?? TOKEN_ACCOUNT(entry.mint, entry.owner));
        content.writeBigUInt64LE(entry.amount, 64);
        return bytes(TOKEN_PROGRAM, content);
      }
      case 'mint': {
        assert(data, 'a mint was there before');
        const content = Buffer.from(data);
        content.writeBigUInt64LE(entry.supply, 36);
        return bytes(TOKEN_PROGRAM, content);
      }
      default:
        return bytes(this.market.programId, encoded(entry));
    }
  }

  #entry(address: Address): [Address, Held][] {
    const { svm, programId } = this.market;
    const account = svm.getAccount(kit(address));
    if (!account.exists) return [];
    const data = Buffer.from(account.data);
    const owner = account.programAddress as unknown as Address;
    const lamports = BigInt(account.lamports);
    const held = (entry: Entry): [Address, Held][] => [[address, { lamports, entry }]];
    if (owner === NOBODY) return held({ kind: 'wallet' });
    if (owner === TOKEN_PROGRAM && data.length === 165) {
      const [mint, holder] = [encodeAddress(data.subarray(0, 32)), encodeAddress(data.subarray(32, 64))];
      return held({ kind: 'token', mint, owner: holder, amount: data.readBigUInt64LE(64) });
    }
    if (owner === TOKEN_PROGRAM) return held({ kind: 'mint', supply: data.readBigUInt64LE(36) });
    if (owner !== programId) return held({ kind: 'other' });
    const kind = (Object.keys(ACCOUNTS) as AccountKind[]).find(
      (one) => layoutSize(ACCOUNTS[one].fields) === data.length,
    );
    assert(kind, 'an account of the program has the size of its kind');
    const fields: unknown = decodeAccount(kind, data);
    return held({ kind, fields } as Entry);
  }
}

const NOBODY = '11111111111111111111111111111111' as Address;

/** A fresh token account: mint, owner, no amount, usable. */
function TOKEN_ACCOUNT(mint: Address, owner: Address): Buffer {
  const data = Buffer.alloc(165);
  data.set(decodeAddress(mint), 0);
  data.set(decodeAddress(owner), 32);
  data.writeUInt8(1, 108);
  return data;
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

const cache = new WeakMap<object, Uint8Array>();

/** Account data of an entry. Entries are never changed in place, so the bytes are kept. */
function encoded(entry: Extract<Entry, { fields: unknown }>): Uint8Array {
  const known = cache.get(entry);
  if (known) return known;
  const bytes = encodeAccount(entry.kind, entry.fields as never);
  cache.set(entry, bytes);
  return bytes;
}
