/**
 * Tokens are conserved: random sequences of all instructions that move money, in the real VM, beside a small model.
 *
 * The model knows only numbers. After each step every balance of the chain equals the model's, the sum of all balances
 * equals the supply, and no vault holds less than what is promised from it. The model also says whether a step must be
 * accepted, so an instruction that refuses too much is found as well as one that accepts too much.
 */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import { stakeVaultAddress, tokenAddress, vaultAddress } from '../../chain/addresses.ts';
import * as calls from '../../chain/calls.ts';
import type { LeaseTerms } from '../../chain/chain.ts';
import { baseUnits } from '../../protocol/units.ts';
import {
  DIGEST,
  PARAMETERS,
  START_SECONDS,
  TestMarket,
  must,
  newTerms,
  registerPair,
  type Outcome,
  type Pair,
} from './market.ts';

interface LeaseModel {
  readonly terms: LeaseTerms;
  readonly openedAt: number;
  claimed?: bigint;
  provenAt?: number;
}

interface Model {
  vault: bigint;
  locked: bigint;
  stake: bigint;
  reserved: bigint;
  owner: bigint;
  buyer: bigint;
  supply: bigint;
  burned: bigint;
  readonly leases: LeaseModel[];
}

type Step =
  | { readonly do: 'stake' | 'unstake' | 'deposit' | 'withdraw'; readonly amount: bigint }
  | { readonly do: 'open'; readonly amount: bigint; readonly reserve: bigint; readonly price: bigint }
  | {
      readonly do: 'prove' | 'settleTogether' | 'settleAlone' | 'cancelTogether';
      readonly lease: number;
      readonly amount: bigint;
    }
  | { readonly do: 'settleAfterWindow' | 'cancelByOperator' | 'cancelByDelegate' | 'expire'; readonly lease: number }
  | { readonly do: 'wait'; readonly seconds: number };

const amount = fc.oneof(fc.bigInt(0n, 5n), fc.bigInt(0n, 3_000_000n), fc.bigInt(0n, 400_000_000n));
const which = fc.nat(5);
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ do: fc.constantFrom('stake', 'unstake', 'deposit', 'withdraw'), amount }),
  {
    arbitrary: fc.record({ do: fc.constant('open'), amount, reserve: amount, price: fc.bigInt(0n, 50_000n) }),
    weight: 4,
  },
  {
    arbitrary: fc.record({
      do: fc.constantFrom('prove', 'settleTogether', 'settleAlone', 'cancelTogether'),
      lease: which,
      amount,
    }),
    weight: 3,
  },
  {
    arbitrary: fc.record({
      do: fc.constantFrom('settleAfterWindow', 'cancelByOperator', 'cancelByDelegate', 'expire'),
      lease: which,
    }),
    weight: 3,
  },
  {
    arbitrary: fc.record({
      do: fc.constant('wait'),
      seconds: fc.oneof(fc.integer({ min: 1, max: 90 }), fc.constantFrom(61, 62, 700)),
    }),
    weight: 2,
  },
);

/** The lease opened last. */
const LAST = -1;
const reasonable = fc.record({
  do: fc.constant('open' as const),
  amount: fc.bigInt(1n, 2_000_000n),
  reserve: fc.constant(200_000n),
  price: fc.bigInt(0n, 50_000n),
});
/** Short stories that random steps would seldom tell, in between the random steps. */
const story: fc.Arbitrary<readonly Step[]> = fc.oneof(
  { arbitrary: step.map((one): readonly Step[] => [one]), weight: 16 },
  fc
    .tuple(reasonable, amount)
    .map(([open, claim]): readonly Step[] => [
      open,
      { do: 'prove', lease: LAST, amount: claim },
      { do: 'wait', seconds: 61 },
      { do: 'settleAfterWindow', lease: LAST },
    ]),
  reasonable.map((open): readonly Step[] => [open, { do: 'wait', seconds: 700 }, { do: 'expire', lease: LAST }]),
);

const share = (value: bigint, bps: number): bigint => (value * BigInt(bps)) / 10_000n;
const smaller = (a: bigint, b: bigint): bigint => (a < b ? a : b);

class Game {
  readonly model: Model;
  readonly #market: TestMarket;
  readonly #pair: Pair;

  constructor(market: TestMarket) {
    this.#market = market;
    // Back to the start: budgets of the tests expire, and this one lives in a game of its own.
    market.setTime(START_SECONDS);
    this.#pair = registerPair(market, 100_000_000n, 300_000_000n);
    const supply = this.#supply();
    this.model = {
      vault: 300_000_000n,
      locked: 0n,
      stake: 100_000_000n,
      reserved: 0n,
      owner: 100_000_000n,
      buyer: 300_000_000n,
      supply,
      burned: 0n,
      leases: [],
    };
  }

  #supply(): bigint {
    return Buffer.from(must(this.#market.data(this.#market.mint))).readBigUInt64LE(36);
  }

  /** Does the step on the chain and in the model, and compares verdict and balances. */
  play(step: Step): void {
    const { outcome, accepted } = this.#apply(step);
    if (outcome)
      expect([step, outcome.refused ?? outcome.failed]).toEqual([step, accepted ? undefined : expect.any(String)]);
    this.#compare();
  }

  #compare(): void {
    const { model } = this;
    const market = this.#market;
    const pair = this.#pair;
    const provider = market.provider(pair.owner.address);
    const budget = market.budget(pair.budget);
    const found = {
      vault: market.tokens(vaultAddress(market.programId, pair.budget).address),
      locked: budget.locked,
      stake: provider.stake,
      stakeVault: market.tokens(stakeVaultAddress(market.programId, provider.address).address),
      reserved: provider.reserved,
      owner: market.tokens(tokenAddress(pair.owner.address, market.mint)),
      buyer: market.tokens(tokenAddress(pair.buyer.address, market.mint)),
      supply: this.#supply(),
      openLeases: [budget.openLeases, provider.openLeases],
      burned: provider.feesBurned,
    };
    const { leases, stake, ...numbers } = model;
    expect(found).toEqual({ ...numbers, stake, stakeVault: stake, openLeases: [leases.length, leases.length] });
    expect(found.vault >= found.locked && found.stake >= found.reserved).toBe(true);
    expect(leases.reduce((sum, { terms }) => sum + terms.amount, 0n)).toBe(found.locked);
  }

  #apply(step: Step): { readonly outcome?: Outcome; readonly accepted: boolean } {
    const market = this.#market;
    if (step.do === 'wait') {
      market.setTime(market.now() + step.seconds);
      return { accepted: true };
    }
    if (step.do === 'open') return this.#open(step);
    if ('lease' in step) return this.#end(step);
    return this.#move(step);
  }

  #move({ do: kind, amount }: Extract<Step, { do: 'stake' | 'unstake' | 'deposit' | 'withdraw' }>): {
    outcome: Outcome;
    accepted: boolean;
  } {
    const { model } = this;
    const market = this.#market;
    const { owner, buyer, budget } = this.#pair;
    const value = baseUnits(amount);
    const ownerAccount = tokenAddress(owner.address, market.mint);
    const buyerMove = { budget, account: tokenAddress(buyer.address, market.mint), amount: value };
    const table = {
      stake: [calls.callStake(market.market, owner.address, ownerAccount, value), owner, model.owner],
      unstake: [
        calls.callUnstake(market.market, owner.address, ownerAccount, value),
        owner,
        model.stake - model.reserved,
      ],
      deposit: [calls.callDeposit(market.market, buyer.address, buyerMove), buyer, model.buyer],
      withdraw: [calls.callWithdrawBudget(market.market, buyer.address, buyerMove), buyer, model.vault - model.locked],
    } as const;
    const [instruction, signer, available] = table[kind];
    const outcome = market.send([instruction], signer);
    const accepted = amount > 0n && amount <= available;
    if (accepted) {
      const sign = kind === 'stake' || kind === 'deposit' ? 1n : -1n;
      if (kind === 'stake' || kind === 'unstake') {
        model.stake += sign * amount;
        model.owner -= sign * amount;
      } else {
        model.vault += sign * amount;
        model.buyer -= sign * amount;
      }
    }
    return { outcome, accepted };
  }

  #open({ amount, reserve, price }: Extract<Step, { do: 'open' }>): { outcome: Outcome; accepted: boolean } {
    const { model } = this;
    const market = this.#market;
    const terms = newTerms(market, this.#pair, {
      amount: baseUnits(amount),
      reserve: baseUnits(reserve),
      pricePerSecond: baseUnits(price),
    });
    const outcome = market.send([calls.callOpenLease(market.market, terms)], this.#pair.delegate, this.#pair.operator);
    const accepted =
      amount > 0n &&
      amount <= 100_000_000n &&
      amount <= model.vault - model.locked &&
      reserve * 10_000n >= amount * BigInt(PARAMETERS.reserveBps) &&
      reserve <= model.stake - model.reserved &&
      model.stake >= PARAMETERS.minStake;
    if (accepted) {
      model.locked += amount;
      model.reserved += reserve;
      model.leases.push({ terms, openedAt: market.now() });
    }
    return { outcome, accepted };
  }

  #end(step: Extract<Step, { lease: number }>): { outcome?: Outcome; accepted: boolean } {
    const { model } = this;
    const market = this.#market;
    const lease = model.leases.at(step.lease === LAST ? LAST : step.lease % Math.max(1, model.leases.length));
    if (!lease) return { accepted: true };
    const account = must(market.lease(lease.terms));
    const { amount: lock } = lease.terms;
    const now = market.now();
    const { delegate, operator, buyer } = this.#pair;
    const running = lease.provenAt === undefined;
    const owed = smaller(BigInt(now - lease.openedAt) * lease.terms.pricePerSecond, lock);
    const settle = (paid: bigint, by: readonly calls.LeaseParty[]) =>
      calls.callSettle(market.market, account, { amount: baseUnits(paid), resultDigest: DIGEST }, by);
    const cancel = (most: bigint, by: readonly calls.LeaseParty[]) =>
      calls.callCancelLease(market.market, account, baseUnits(most), by);
    const late = now > account.finishByMs / 1000 + account.graceMs / 1000;
    switch (step.do) {
      case 'prove': {
        const claimed = step.amount % 8n === 0n ? step.amount : step.amount % (lock + 1n);
        const proof = { lease: account.address, claimed: baseUnits(claimed), resultDigest: DIGEST };
        const outcome = market.send([calls.callSubmitProof(market.market, operator.address, proof)], operator);
        const accepted = running && !late && claimed <= lock;
        if (accepted) Object.assign(lease, { claimed, provenAt: now });
        return { outcome, accepted };
      }
      case 'settleTogether': {
        const paid = step.amount % 8n === 0n ? step.amount : step.amount % (lock + 1n);
        const outcome = market.send([settle(paid, ['delegate', 'operator'])], delegate, operator);
        return this.#close(lease, outcome, paid <= lock, paid);
      }
      case 'settleAlone': {
        // One time in two the whole lock: a random amount would hardly ever be allowed.
        const paid = step.amount % 2n === 0n ? lock : (lease.claimed ?? step.amount);
        const outcome = market.send([settle(paid, ['delegate'])], delegate);
        return this.#close(lease, outcome, paid === lock || paid === lease.claimed, paid);
      }
      case 'settleAfterWindow': {
        const paid = lease.claimed ?? lock;
        const outcome = market.send([settle(paid, [])], buyer);
        return this.#close(lease, outcome, lease.provenAt !== undefined && now > lease.provenAt + 60, paid);
      }
      case 'cancelByOperator':
        return this.#close(lease, market.send([cancel(0n, ['operator'])], operator), running, 0n);
      case 'cancelByDelegate':
        return this.#close(lease, market.send([cancel(lock, ['delegate'])], delegate), running, owed);
      case 'cancelTogether': {
        const outcome = market.send([cancel(step.amount, ['delegate', 'operator'])], delegate, operator);
        return this.#close(lease, outcome, running, smaller(step.amount, owed));
      }
      default: {
        const slash = smaller(share(lock, PARAMETERS.noShowSlashBps), lease.terms.reserve);
        const result = this.#close(
          lease,
          market.send([calls.callExpireLease(market.market, account)], buyer),
          running && late,
          0n,
        );
        if (result.accepted) {
          model.stake -= slash;
          model.vault += slash;
        }
        return result;
      }
    }
  }

  #close(
    lease: LeaseModel,
    outcome: Outcome,
    accepted: boolean,
    paid: bigint,
  ): { outcome: Outcome; accepted: boolean } {
    if (!accepted) return { outcome, accepted };
    const { model } = this;
    const burned = share(paid, PARAMETERS.burnFeeBps);
    const staked = share(paid, PARAMETERS.stakeFeeBps);
    model.locked -= lease.terms.amount;
    model.reserved -= lease.terms.reserve;
    model.vault -= paid;
    model.supply -= burned;
    model.burned += burned;
    model.stake += staked;
    model.owner += paid - burned - staked;
    model.leases.splice(model.leases.indexOf(lease), 1);
    return { outcome, accepted };
  }
}

test('whatever the parties do, in whatever order, tokens are conserved and the chain agrees with the model', () => {
  const market = new TestMarket();
  const done = new Map<string, number>();
  fc.assert(
    fc.property(fc.array(story, { minLength: 5, maxLength: 25 }), (stories) => {
      const game = new Game(market);
      for (const one of stories.flat()) {
        const before = JSON.stringify(game.model, (_, value: unknown) =>
          typeof value === 'bigint' ? value.toString() : value,
        );
        game.play(one);
        const after = JSON.stringify(game.model, (_, value: unknown) =>
          typeof value === 'bigint' ? value.toString() : value,
        );
        if (before !== after) done.set(one.do, (done.get(one.do) ?? 0) + 1);
      }
    }),
    { numRuns: 200 },
  );
  // The property says something only if every kind of step was accepted often enough.
  const kinds = [
    'stake',
    'unstake',
    'deposit',
    'withdraw',
    'open',
    'prove',
    'settleTogether',
    'settleAlone',
    'settleAfterWindow',
    'cancelByOperator',
    'cancelByDelegate',
    'cancelTogether',
    'expire',
  ];
  expect(kinds.filter((kind) => (done.get(kind) ?? 0) < 3)).toEqual([]);
});
