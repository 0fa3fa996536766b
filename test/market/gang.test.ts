/**
 * Goal: n slots or none. Method: single decisions, and a world of providers, a chain and chance around the machine in which
 * every effect ends when and how chance wants: late, refused, opened in part, opened although it was said not to be.
 */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import {
  type GangDecision,
  type GangEffect,
  type GangEvent,
  type GangOrder,
  type GangState,
  type VerifiedQuote,
  GANG_SLOTS_MAX,
  createGang,
  decideGang,
} from '../../market/index.ts';
import { type ErrorCode, MoltError } from '../../protocol/errors.ts';
import { address } from './fixtures.ts';

const PLENTY = 10n ** 12n;

/** Nothing here looks at signatures; a thousand games would spend their time on them. */
function quoteOf(provider: string, id: string, amount = 1_000n): VerifiedQuote {
  const content = { provider: address(provider), pricePerSecond: 10n, amount };
  return { id, signer: address(`node of ${provider}`), expiresMs: 1, content } as unknown as VerifiedQuote;
}

function orderOf(slots: number, changes: Partial<GangOrder> = {}): GangOrder {
  const shapes = Array.from({ length: slots }, () => 0);
  return { shapes, spread: 'distinct-providers', onLoss: 'fail', fillings: 3, ...changes };
}

function failure(code: ErrorCode): MoltError {
  return new MoltError(code, `it failed with ${code}`);
}

/** Applies events one after the other; effects are those of all. */
function play(decision: GangDecision, ...events: readonly GangEvent[]): GangDecision {
  let { state } = decision;
  const effects: GangEffect[] = [];
  for (const event of events) {
    const next = decideGang(state, event);
    state = next.state;
    effects.push(...next.effects);
  }
  return { state, effects };
}

const quoted = (filling: number, ...providers: readonly string[]): GangEvent => ({
  type: 'quoted',
  filling,
  shape: 0,
  quotes: providers.map((provider) => quoteOf(provider, `${provider} ${filling}`)),
  budgetFree: PLENTY,
});
const signed = (filling: number, rank: number): GangEvent => ({ type: 'signed', filling, rank });
const types = ({ effects }: GangDecision): string[] =>
  effects.map((effect) => (effect.type === 'tell' ? effect.news.type : effect.type));

describe('a gang of which two of three are enough', () => {
  const ranks = [0, 1, 2];
  const running = play(
    createGang(orderOf(3, { quorum: 2 })),
    quoted(1, 'a', 'b', 'c'),
    ...ranks.map((rank) => signed(1, rank)),
    { type: 'opened', filling: 1, ranks },
  );
  const lost = (rank: number): GangEvent => ({ type: 'lost', rank, error: failure('job/provider-lost') });
  const delivered = (rank: number): GangEvent => ({ type: 'delivered', rank });

  test('goes on without one that is lost, and delivers with the others', () => {
    const without = play(running, lost(1));
    expect(types(without)).toEqual(['member-lost', 'forgo']);
    const one = play(without, delivered(0));
    expect(one.effects).toEqual([]);
    expect(play(one, delivered(2)).effects).toEqual([{ type: 'deliver' }]);
  });

  test('delivers when the last that was waited for is lost', () => {
    expect(types(play(running, delivered(0), delivered(2), lost(1)))).toEqual(['member-lost', 'forgo', 'deliver']);
  });

  test('ends when too few are left, and stops who still runs', () => {
    expect(types(play(running, lost(1), lost(0)))).toEqual(['member-lost', 'forgo', 'member-lost', 'forgo', 'stop']);
    expect(types(play(running, lost(1), lost(0), lost(2))).at(-1)).toBe('fail');
    expect(types(play(running, delivered(2), lost(1), lost(0))).at(-1)).toBe('fail');
  });

  test('ends when it is cancelled, however many have delivered', () => {
    const cancelled = play(running, delivered(0), delivered(1), { type: 'cancelled', error: failure('job/cancelled') });
    expect(types(cancelled)).toEqual(['stop']);
    expect(types(play(cancelled, lost(2))).at(-1)).toBe('fail');
  });

  test('goes on when nobody takes the place of one that is lost, and says so', () => {
    const replacing = { ...running, state: { ...running.state, order: orderOf(3, { quorum: 2, onLoss: 'replace' }) } };
    const sought = play(replacing, lost(1));
    expect(types(sought)).toEqual(['member-lost', 'ask']);
    const error = failure('market/no-quotes');
    const again = play(sought, { type: 'unquoted', filling: 2, error });
    const reason = 'nobody else takes slot 1 (it failed with market/no-quotes)';
    const news = { type: 'gang-undone', reason, ending: false } as const;
    // Who has no room now may have some in a moment.
    expect(again.effects).toMatchObject([
      { news: { ...news, retrying: true } },
      { type: 'let-quotes-go', filling: 2 },
      { type: 'ask', filling: 3, slots: 1, afterMs: 3_000 },
    ]);
    const unfound = play(again, { type: 'unquoted', filling: 3, error });
    expect(unfound.effects).toMatchObject([
      { news: { ...news, retrying: false } },
      { type: 'let-quotes-go', filling: 3 },
      { type: 'forgo', rank: 1 },
    ]);
    expect(types(play(unfound, delivered(0), delivered(2)))).toEqual(['deliver']);
    expect(types(play(unfound, lost(0)))).toEqual(['member-lost', 'forgo', 'stop']);
  });

  test('seeks nobody for one that came to a result, or once what is there is enough', () => {
    const order = orderOf(3, { quorum: 2, onLoss: 'replace' });
    const replacing = { ...running, state: { ...running.state, order } };
    const outvoted: GangEvent = { type: 'lost', rank: 1, error: failure('proof/outvoted') };
    expect(types(play(replacing, outvoted))).toEqual(['member-lost', 'forgo']);
    expect(types(play(replacing, { type: 'enough' }, lost(1)))).toEqual(['member-lost', 'forgo']);
    // Whoever is sought at that moment is not needed any more: while it is asked, has a quote, or is being opened.
    const sought = play(replacing, lost(1));
    expect(types(play(sought, { type: 'enough' }))).toEqual(['let-quotes-go', 'forgo']);
    const signing = play(sought, quoted(2, 'd'));
    expect(types(play(signing, { type: 'enough' }))).toEqual(['let-quotes-go', 'leave']);
    const opening = play(signing, signed(2, 1), { type: 'enough' });
    expect(opening.effects.at(-1)?.type).toBe('open');
    const opened = play(opening, { type: 'opened', filling: 2, ranks: [1] });
    expect(opened.effects).toMatchObject([{ type: 'let-quotes-go' }, { type: 'leave', rank: 1, mayBeOpen: true }]);
    const left = play(opened, { type: 'left', filling: 2, rank: 1 });
    expect(left.effects).toEqual([{ type: 'forgo', rank: 1 }]);
    expect(types(play(left, delivered(0), delivered(2)))).toEqual(['deliver']);
  });

  test('seeks nobody any more once time is short, and tells why', () => {
    const order = orderOf(3, { quorum: 2, onLoss: 'replace', fillings: 9 });
    const sought = play({ ...running, state: { ...running.state, order } }, lost(1));
    const late = failure('market/finish-too-late');
    const reason = 'nobody else takes slot 1 (it failed with market/finish-too-late)';
    const undone = {
      news: { type: 'gang-undone', code: 'market/gang-incomplete', reason, retrying: false, ending: false },
    };
    const forgone = { type: 'forgo', rank: 1 };
    const unasked = play(sought, { type: 'unquoted', filling: 2, error: late });
    expect(unasked.effects).toMatchObject([undone, { type: 'let-quotes-go' }, forgone]);
    // The same while somebody is asked, or is on the way to the chain, when the vote is held.
    const closed: GangEvent = { type: 'enough', error: late };
    expect(play(sought, closed).effects).toMatchObject([undone, { type: 'let-quotes-go' }, forgone]);
    const opening = play(sought, quoted(2, 'd'), signed(2, 1), closed);
    const opened = play(opening, { type: 'opened', filling: 2, ranks: [1] });
    expect(opened.effects).toMatchObject([undone, { type: 'let-quotes-go' }, { type: 'leave', rank: 1 }]);
    expect(play(opened, { type: 'left', filling: 2, rank: 1 }).effects).toMatchObject([forgone]);
    expect(types(play(running, closed))).toEqual([]);
    // Too few are left for the vote.
    const alone = play(play(sought, lost(2)), closed);
    expect(alone.effects).toMatchObject([
      { news: { ending: true } },
      { type: 'let-quotes-go' },
      {},
      {},
      { type: 'stop', rank: 0 },
    ]);
    expect(play(alone, lost(0)).effects.at(-1)).toMatchObject({
      type: 'fail',
      error: { code: 'market/gang-incomplete' },
    });
  });

  test('never takes a provider that has a slot or lost one, not by another of its nodes either', () => {
    const replacing = { ...running, state: { ...running.state, order: orderOf(3, { quorum: 2, onLoss: 'replace' }) } };
    const sought = play(replacing, lost(1), {
      type: 'quoted',
      filling: 2,
      shape: 0,
      quotes: [{ ...quoteOf('b', 'again'), signer: address('another node of b') }, quoteOf('a', 'twice')],
      budgetFree: PLENTY,
    });
    expect(types(sought)).toEqual(['member-lost', 'ask', 'gang-undone', 'let-quotes-go', 'ask']);
    expect(sought.state.seats[1]?.state).toBe('vacant');
  });

  test('still needs a provider for every slot', () => {
    const short = play(createGang(orderOf(3, { quorum: 2 })), quoted(1, 'a', 'b'), {
      type: 'unquoted',
      filling: 1,
      error: failure('market/no-quotes'),
    });
    expect(short.effects.at(-1)).toMatchObject({
      error: { message: expect.stringContaining('Ask for fewer slots or pay more') },
    });
  });
});

describe('a gang that was cut off', () => {
  const order = orderOf(3, { quorum: 2, onLoss: 'replace', fillings: 2 });
  const seat = (rank: number, provider: string, state: 'running' | 'gone') =>
    ({ rank, quote: quoteOf(provider, provider), state }) as const;

  test('goes on with the members that it has, and fills what is vacant with others than those who failed', () => {
    const failed = [quoteOf('x', 'x')];
    const seats = [seat(0, 'a', 'running'), seat(2, 'c', 'running')];
    const going = createGang(order, { seats, failed, fillings: 1 });
    expect(types(going)).toEqual(['start', 'start', 'ask']);
    const without = new Set(['node of x', 'node of a', 'node of c'].map(address));
    expect(going.effects.at(-1)).toMatchObject({ filling: 2, slots: 1, without });
    const again = play(going, quoted(2, 'x', 'd'), signed(2, 1), { type: 'opened', filling: 2, ranks: [1] });
    expect(again.state.seats[1]?.quote?.content.provider).toBe(address('d'));
  });

  test('seeks nobody for one that came to a result before, nor beyond the fillings that it may have', () => {
    const seats = [seat(0, 'a', 'running'), seat(1, 'b', 'gone'), seat(2, 'c', 'running')];
    expect(types(createGang(order, { seats, failed: [], fillings: 1 }))).toEqual(['start', 'start']);
    const used = createGang(order, { seats: [seats[0]!, seats[2]!], failed: [], fillings: 2 });
    expect(types(used)).toEqual(['start', 'start', 'forgo']);
    const alone = createGang(order, { seats: [seats[0]!], failed: [], fillings: 2 });
    expect(types(alone)).toEqual(['start', 'forgo', 'forgo', 'stop']);
  });

  test('does not seek another for one whose result counts already', () => {
    const seats = [0, 1, 2].map((rank) => seat(rank, `p${rank}`, 'running'));
    const going = createGang(order, { seats, failed: [], fillings: 0 });
    const lost: GangEvent = { type: 'lost', rank: 0, error: failure('job/provider-lost'), hasResult: true };
    expect(types(play(going, lost))).toEqual(['member-lost', 'forgo']);
  });
});

describe('a gang of three', () => {
  const asked = createGang(orderOf(3));
  const seated = play(asked, quoted(1, 'a', 'b', 'c', 'd'));
  const allSigned = play(seated, signed(1, 0), signed(1, 1), signed(1, 2));
  const running = play(allSigned, { type: 'opened', filling: 1, ranks: [0, 1, 2] });

  test('asks for all slots at once, seats the best three, and opens when the last has signed', () => {
    expect(asked.effects).toEqual([{ type: 'ask', filling: 1, shape: 0, slots: 3, afterMs: 0, without: new Set() }]);
    expect(types(seated)).toEqual(['seated', 'seated', 'seated', 'sign']);
    expect(play(seated, signed(1, 0), signed(1, 2)).effects).toEqual([]);
    expect(allSigned.effects).toEqual([{ type: 'open', filling: 1, ranks: [0, 1, 2] }]);
  });

  test('starts nobody before every lease is open', () => {
    expect(play(allSigned, { type: 'opened', filling: 1, ranks: [0, 1] }).effects).toEqual([]);
    expect(types(running)).toEqual(['let-quotes-go', 'gang-opened', 'start', 'start', 'start']);
  });

  test('delivers when all have, and not before', () => {
    const two = play(running, { type: 'delivered', rank: 0 }, { type: 'delivered', rank: 2 });
    expect(two.effects).toEqual([]);
    expect(play(two, { type: 'delivered', rank: 1 }).effects).toEqual([{ type: 'deliver' }]);
  });

  test('with too few providers holds nothing, opens nothing, and says how many were found', () => {
    const short = play(asked, quoted(1, 'a', 'b'), {
      type: 'unquoted',
      filling: 1,
      error: failure('market/no-quotes'),
    });
    expect(types(short)).toEqual(['seated', 'seated', 'ask', 'gang-undone', 'let-quotes-go', 'fail']);
    expect(short.effects.at(-1)).toMatchObject({
      error: {
        code: 'market/gang-incomplete',
        message:
          '2 of 3 slots found a provider (it failed with market/no-quotes); nothing of them is kept. Ask for fewer slots, pay more, or let several run on one provider',
      },
    });
  });

  test('lets all go when one does not sign, and tries again without that node', () => {
    const refused = play(seated, signed(1, 0), {
      type: 'refused',
      filling: 1,
      rank: 1,
      error: failure('market/quote-unknown'),
    });
    expect(types(refused)).toEqual(['gang-undone', 'let-quotes-go', 'leave', 'leave', 'leave']);
    const left = play(refused, ...[0, 1, 2].map((rank): GangEvent => ({ type: 'left', filling: 1, rank })));
    expect(left.effects).toEqual([
      { type: 'ask', filling: 2, shape: 0, slots: 3, afterMs: 0, without: new Set([address('node of b')]) },
    ]);
  });

  test('leaves what one transaction opened when another did not', () => {
    const half = play(
      allSigned,
      { type: 'opened', filling: 1, ranks: [0] },
      { type: 'unopened', filling: 1, ranks: [1, 2], error: failure('chain/refused') },
    );
    expect(half.effects.filter((effect) => effect.type === 'leave')).toHaveLength(3);
    expect(types(half)).not.toContain('start');
    const left = play(half, ...[0, 1, 2].map((rank): GangEvent => ({ type: 'left', filling: 1, rank })));
    expect(left.effects).toMatchObject([{ type: 'fail', error: { code: 'chain/refused' } }]);
  });

  test('ends all when one is lost, and fails when the last has stopped', () => {
    const lost = play(running, { type: 'lost', rank: 1, error: failure('job/provider-lost') });
    expect(types(lost)).toEqual(['member-lost', 'stop', 'stop']);
    const stopped = play(
      lost,
      { type: 'lost', rank: 0, error: failure('job/cancelled') },
      { type: 'delivered', rank: 2 },
    );
    expect(stopped.effects.at(-1)).toMatchObject({ type: 'fail', error: { code: 'job/provider-lost' } });
    expect(stopped.state.phase).toBe('over');
  });

  test('does not lock more than the budget has', () => {
    const poor = play(asked, {
      type: 'quoted',
      filling: 1,
      shape: 0,
      quotes: ['a', 'b', 'c'].map((provider) => quoteOf(provider, provider)),
      budgetFree: 2_999n,
    });
    expect(poor.effects.at(-1)).toMatchObject({ type: 'fail', error: { code: 'chain/budget-empty' } });
  });
});

test('a lost member is replaced while the others go on, on a provider that has no other slot', () => {
  const gang = createGang(orderOf(2, { onLoss: 'replace' }));
  const running = play(gang, quoted(1, 'a', 'b'), signed(1, 0), signed(1, 1), {
    type: 'opened',
    filling: 1,
    ranks: [0, 1],
  });
  const lost = play(running, { type: 'lost', rank: 0, error: failure('job/provider-lost') });
  expect(types(lost)).toEqual(['member-lost', 'ask']);
  expect(lost.effects[1]).toMatchObject({ slots: 1, without: new Set([address('node of a'), address('node of b')]) });
  const replaced = play(lost, quoted(2, 'b', 'c'), signed(2, 0), { type: 'opened', filling: 2, ranks: [0] });
  expect(replaced.effects.filter((effect) => effect.type === 'start')).toEqual([{ type: 'start', rank: 0 }]);
  expect(replaced.state.seats[0]?.quote?.content.provider).toBe(address('c'));
});

test('slots that need different things are asked for with a bid each', () => {
  const gang = createGang(orderOf(3, { shapes: [0, 1, 1] }));
  expect(gang.effects).toMatchObject([{ type: 'ask', shape: 0, slots: 1 }]);
  expect(play(gang, quoted(1, 'a')).effects.at(-1)).toMatchObject({ type: 'ask', shape: 1, slots: 2 });
});

test('a gang has at least one slot and at most sixteen', () => {
  for (const slots of [0, GANG_SLOTS_MAX + 1]) expect(() => createGang(orderOf(slots))).toThrow('1 … 16 slots');
});

interface Lease {
  readonly provider: string;
  isOpen: boolean;
  isCancelled: boolean;
  /** The chain opens it although nobody was told. */
  isLate: boolean;
}

/** Providers, a chain and a shell, in which everything that was asked for ends at some time, somehow. */
class World {
  state: GangState;
  readonly #choose: (options: number) => number;
  readonly #providers: readonly { readonly name: string; readonly slots: number }[];
  /** What is under way: each ends with the events it gives, when chance picks it. */
  readonly #pending: (() => readonly GangEvent[])[] = [];
  readonly #leases = new Map<string, Lease>();
  /** Quotes whose stream is open, by id. */
  readonly #held = new Map<string, string>();
  /** Fillings whose quotes were let go. */
  readonly #isOver = new Set<number>();
  readonly #stopping = new Set<number>();
  readonly #forgone = new Set<number>();
  #quotes = 0;
  ends: GangEffect[] = [];

  constructor(order: GangOrder, slots: readonly number[], choose: (options: number) => number) {
    this.#choose = choose;
    this.#providers = slots.map((count, index) => ({ name: `p${index}`, slots: count }));
    const { state, effects } = createGang(order);
    this.state = state;
    this.#performAll(effects);
  }

  get isQuiet(): boolean {
    return this.#pending.length === 0;
  }

  get openLeases(): readonly string[] {
    return [...this.#leases.values()].filter(({ isOpen }) => isOpen).map(({ provider }) => provider);
  }

  get held(): number {
    return this.#held.size;
  }

  step(): void {
    const [work] = this.#pending.splice(this.#choose(this.#pending.length), 1);
    for (const event of work?.() ?? []) this.do(event);
    for (const lease of this.#leases.values()) {
      if (!lease.isLate || this.#choose(3) > 0) continue;
      // The provider gives a lease back that opens after the buyer let it go.
      Object.assign(lease, { isLate: false, isOpen: !lease.isCancelled });
    }
  }

  do(event: GangEvent): void {
    const { state, effects } = decideGang(this.state, event);
    this.state = state;
    this.#performAll(effects);
  }

  #performAll(effects: readonly GangEffect[]): void {
    for (const effect of effects) this.#perform(effect);
    this.check();
  }

  check(): void {
    if (this.state.order.spread === 'distinct-providers')
      expect(new Set(this.openLeases).size).toBe(this.openLeases.length);
    expect(this.state.filling).toBeLessThanOrEqual(this.state.order.fillings);
    expect(this.ends.length).toBeLessThanOrEqual(1);
    // Who still runs in a gang that ends was told to stop.
    if (!this.state.isEnding) return;
    for (const { rank, state } of this.state.seats) if (state === 'running') expect(this.#stopping).toContain(rank);
  }

  #perform(effect: GangEffect): void {
    switch (effect.type) {
      case 'ask':
        this.#pending.push(() => this.#answers(effect));
        return;
      case 'sign':
        for (const { rank } of effect.seats) this.#pending.push(() => this.#signs(effect.filling, rank));
        return;
      case 'open':
        return this.#open(effect);
      case 'leave':
        this.#pending.push(() => this.#leave(effect));
        return;
      case 'let-quotes-go':
        this.#held.clear();
        this.#isOver.add(effect.filling);
        return;
      case 'start':
        this.#stopping.delete(effect.rank);
        // The promise of a gang: whoever starts, all the others have their lease, had it, or are being replaced.
        for (const { state } of this.state.seats) expect(['running', 'done', 'vacant', 'gone']).toContain(state);
        expect(this.#forgone).not.toContain(effect.rank);
        expect(this.#leaseOf(effect.rank)?.isOpen).toBe(true);
        this.#pending.push(() => this.#ends(effect.rank));
        return;
      case 'stop':
        this.#stopping.add(effect.rank);
        return;
      case 'deliver':
      case 'fail':
        this.ends.push(effect);
        return;
      case 'forgo':
        expect(this.state.order.quorum).toBeDefined();
        expect(this.#forgone).not.toContain(effect.rank);
        this.#forgone.add(effect.rank);
        return;
      case 'tell':
        return;
      default:
        effect satisfies never;
    }
  }

  #answers({ filling, shape, slots, without }: GangEffect & { type: 'ask' }): readonly GangEvent[] {
    if (this.#isOver.has(filling)) return [];
    if (this.#choose(12) === 0) return [{ type: 'unquoted', filling, error: failure('market/no-quotes') }];
    const quotes: VerifiedQuote[] = [];
    for (const { name, slots: capacity } of this.#providers) {
      const used = [...this.#held.values(), ...this.openLeases].filter((one) => one === name).length;
      if (used >= capacity || this.#choose(6) === 0) continue;
      const quote = quoteOf(name, `q${this.#quotes++}`);
      // Not everybody keeps to what was asked.
      if ((without.has(quote.signer) && this.#choose(4) > 0) || quotes.length >= slots + 2) continue;
      this.#held.set(quote.id, name);
      quotes.push(quote);
    }
    return [{ type: 'quoted', filling, shape, quotes, budgetFree: PLENTY }];
  }

  #signs(filling: number, rank: number): readonly GangEvent[] {
    const quote = this.state.seats[rank]?.quote;
    if (quote === undefined) return [];
    if (this.#choose(10) === 0) return [{ type: 'refused', filling, rank, error: failure('mesh/timeout') }];
    const provider = this.#providers.find(({ name }) => address(name) === quote.content.provider)?.name ?? '';
    const lease = { provider, isOpen: false, isCancelled: false, isLate: false };
    if (!this.#leases.has(quote.id)) this.#leases.set(quote.id, lease);
    return [{ type: 'signed', filling, rank }];
  }

  #open({ filling, ranks }: GangEffect & { type: 'open' }): void {
    if (this.#choose(15) === 0) {
      const rank = ranks[this.#choose(ranks.length)] ?? 0;
      this.#pending.push(() => [{ type: 'refused', filling, rank, error: failure('mesh/closed') }]);
      return;
    }
    for (let from = 0; from < ranks.length; from += 3) {
      const batch = ranks.slice(from, from + 3);
      this.#pending.push(() => this.#opens(filling, batch));
    }
  }

  #opens(filling: number, ranks: readonly number[]): readonly GangEvent[] {
    const leases = ranks.flatMap((rank) => this.#leaseOf(rank) ?? []);
    const fate = this.#choose(8);
    if (fate > 1) {
      for (const lease of leases) lease.isOpen = true;
      return [{ type: 'opened', filling, ranks }];
    }
    if (fate === 1) for (const lease of leases) lease.isLate = true;
    const error = failure(fate === 1 ? 'chain/not-confirmed' : 'chain/blockhash-expired');
    return [{ type: 'unopened', filling, ranks, error }];
  }

  #leave({ filling, rank }: GangEffect & { type: 'leave' }): readonly GangEvent[] {
    const lease = this.#leaseOf(rank);
    if (lease !== undefined) Object.assign(lease, { isOpen: false, isCancelled: true });
    return [{ type: 'left', filling, rank }];
  }

  #ends(rank: number): readonly GangEvent[] {
    const lease = this.#leaseOf(rank);
    if (lease !== undefined) lease.isOpen = false;
    const fate = this.#choose(8);
    if (fate === 0) return [{ type: 'lost', rank, error: failure('job/provider-lost') }];
    if (fate === 1) return [{ type: 'lost', rank, error: failure('job/failed') }];
    if (this.#stopping.has(rank) && fate < 6) return [{ type: 'lost', rank, error: failure('job/cancelled') }];
    return [{ type: 'delivered', rank }];
  }

  #leaseOf(rank: number): Lease | undefined {
    return this.#leases.get(this.state.seats[rank]?.quote?.id ?? '');
  }
}

describe('whatever happens', () => {
  const arbitrary = fc.record({
    shapes: fc.array(fc.nat(1), { minLength: 1, maxLength: 7 }),
    slots: fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 8 }),
    spread: fc.constantFrom('any' as const, 'distinct-providers' as const),
    onLoss: fc.constantFrom('fail' as const, 'replace' as const),
    fillings: fc.integer({ min: 1, max: 4 }),
    chances: fc.infiniteStream(fc.nat(9_999)),
    cancelAfter: fc.option(fc.nat(30), { nil: undefined }),
    missing: fc.option(fc.nat(3), { nil: undefined }),
    enoughAfter: fc.option(fc.nat(60), { nil: undefined }),
  });

  test('a gang ends, once, with n results or with nothing open, nothing held and a reason', () => {
    const seen = new Set<string>();
    fc.assert(
      fc.property(arbitrary, ({ slots, chances, cancelAfter, missing, enoughAfter, ...rest }) => {
        const chance = chances[Symbol.iterator]();
        const choose = (options: number): number =>
          ((chance.next().value as number | undefined) ?? 0) % Math.max(1, options);
        const quorum = missing === undefined ? undefined : Math.max(1, rest.shapes.length - missing);
        const world = new World(quorum === undefined ? rest : { ...rest, quorum }, slots, choose);
        for (let steps = 0; !world.isQuiet; steps++) {
          expect(steps).toBeLessThan(1_000);
          if (steps === cancelAfter) world.do({ type: 'cancelled', error: failure('job/cancelled') });
          // Known only where so many have delivered.
          const delivered = world.state.seats.filter(({ state }) => state === 'done').length;
          if (steps === enoughAfter && delivered >= (quorum ?? Infinity)) world.do({ type: 'enough' });
          world.step();
        }
        for (let late = 0; late < 20; late++) world.step();
        expect(world.state.phase).toBe('over');
        expect(world.openLeases).toEqual([]);
        expect(world.held).toBe(0);
        const [end] = world.ends;
        const delivered = world.state.seats.filter(({ state }) => state === 'done').length;
        const all = rest.shapes.length;
        const isDelivered = delivered === all || (delivered >= (quorum ?? all) && !world.state.isEnding);
        expect(end?.type).toBe(isDelivered ? 'deliver' : 'fail');
        if (end?.type === 'fail') expect(end.error).toBeInstanceOf(MoltError);
        seen.add(end?.type === 'fail' ? (end.error as MoltError).code : 'delivered');
      }),
      { numRuns: 3_000, seed: 5 },
    );
    // The games are not all alike.
    for (const end of ['delivered', 'market/gang-incomplete', 'job/provider-lost', 'job/failed', 'job/cancelled'])
      expect(seen).toContain(end);
  });
});
