/** Random games, by seed: what the test plays a few thousand times, and `node scripts/model.ts` as often as wanted. */
import * as fc from 'fast-check';

import { ACTIONS, Game, type Action, type Mutation, type Step } from './game.ts';
import { World } from './world.ts';

const amount = fc.oneof(
  { arbitrary: fc.bigInt(1_000_000n, 20_000_000n), weight: 8 },
  { arbitrary: fc.bigInt(0n, 400_000_000n), weight: 2 },
  fc.bigInt(0n, 5n),
  fc.constantFrom(2n ** 64n - 1n, 2n ** 63n, 100_000_000n, 800_000_000n),
);
const number = fc.nat(63);
const mutation: fc.Arbitrary<Mutation> = fc.record({
  do: fc.constantFrom(
    'replace',
    'replace',
    'replace',
    'replace',
    'unsign',
    'lock',
    'cut',
    'drop',
    'duplicate',
    'strip',
  ),
  place: fc.nat(20),
  other: fc.nat(200),
});
const frame = { a: number, b: number, c: number, amount };
const any: fc.Arbitrary<Step> = fc.oneof(
  { arbitrary: fc.record({ ...frame, do: fc.constantFrom(...ACTIONS) }), weight: 2 },
  { arbitrary: fc.record({ ...frame, do: fc.constantFrom(...ACTIONS), mutation }), weight: 1 },
);

const one = (what: Action, changes: Partial<Step> = {}): Step => ({
  do: what,
  a: 0,
  b: 0,
  c: 0,
  amount: 0n,
  ...changes,
});
const wait = (index: number): Step => one('wait', { a: index });

/** An honest opening that is accepted at the start: seller, buyer, terms, amount. */
const open = fc
  .record({ a: fc.nat(1), b: fc.nat(1), c: fc.nat(5), amount: fc.bigInt(1_000_000n, 20_000_000n) })
  .map((fields): Step => ({ do: 'openLease', ...fields }));

/** Stories that random steps would seldom tell. Steps in them are hostile now and then. */
const story: fc.Arbitrary<readonly Step[]> = fc.oneof(
  { arbitrary: any.map((step): readonly Step[] => [step]), weight: 10 },
  {
    arbitrary: fc
      .tuple(open, any, any)
      .map(([opening, first, second]): readonly Step[] => [opening, first, { ...second, a: 0 }]),
    weight: 4,
  },
  fc
    .tuple(open, number, amount, fc.constantFrom(0, 1, 3))
    .map(([opening, c, value, by]): readonly Step[] => [
      opening,
      one('redeemVoucher', { b: 1, c: 1, amount: value }),
      one('submitProof', { c: 1, amount: value + 1n }),
      wait(2),
      one('settle', { b: by, c }),
    ]),
  fc
    .tuple(open, number, amount)
    .map(([opening, c, value]): readonly Step[] => [
      opening,
      one('redeemVoucher', { b: 1, c: 1, amount: value }),
      wait(c),
      one('cancelLease', { b: c % 4, c: 2 }),
      one('expireLease'),
    ]),
  {
    arbitrary: fc
      .tuple(open, fc.array(number, { minLength: 6, maxLength: 6 }), any)
      .map(([opening, n, between]): readonly Step[] => [
        opening,
        one('submitProof', { c: 1, amount: 900_000n }),
        one('dispute'),
        one('tick', { a: 1 }),
        one('draw'),
        ...[0, 1, 2].map((seat) => one('vote', { b: seat, c: n[seat] ?? 0 })),
        between,
        wait(4),
        ...[0, 1, 2].map((seat) => one('revealVote', { b: seat, c: (n[3] ?? 0) % 4 === 0 ? 1 : (n[seat] ?? 0) })),
        ...((n[4] ?? 0) % 2 === 0 ? [wait(3)] : []),
        one('resolve'),
      ]),
    weight: 2,
  },
  fc
    .tuple(number, number, amount, any)
    .map(([a, b, value, between]): readonly Step[] => [
      one('stake', { a, b, amount: value }),
      between,
      one('unstake', { a, b, c: 0 }),
      wait(6),
      one('withdrawStake', { a, b }),
    ]),
  fc
    .tuple(open, number, any)
    .map(([opening, c, between]): readonly Step[] => [
      opening,
      one('slashEquivocation', { a: opening.a, b: opening.b, c }),
      between,
      one('cancelLease', { b: 2 }),
      one('slashEquivocation', { a: opening.a, b: opening.b, c }),
    ]),
  fc
    .tuple(number, number)
    .map(([a, b]): readonly Step[] => [one('queueParameters', { a, b }), wait(8), one('applyParameters')]),
);

const game: fc.Arbitrary<readonly Step[]> = fc
  .array(story, { minLength: 1, maxLength: 3 })
  .map((stories) => stories.flat());

export interface Played {
  readonly games: number;
  readonly steps: number;
  /** Accepted steps by kind. */
  readonly accepted: ReadonlyMap<Action, number>;
}

/** Plays `runs` games from `seed`. Throws with seed, path and the shortest game that fails. */
export function play(runs: number, seed: number, world: World = new World()): Played {
  const accepted = new Map<Action, number>();
  let steps = 0;
  fc.assert(
    fc.property(game, (moves) => {
      const table = new Game(world);
      for (const step of moves) table.play(step);
      table.finish();
      steps += moves.length;
      for (const [kind, count] of table.accepted) accepted.set(kind, (accepted.get(kind) ?? 0) + count);
    }),
    { numRuns: runs, seed },
  );
  return { games: runs, steps, accepted };
}
