/**
 * Goal: whatever honest and hostile people send, in whatever order, the program does what the reference says and nothing
 * else. Method: random games, each instruction sent to the real program in the real VM and told to a reference in
 * TypeScript; after each step every account that took part is compared to the byte, and every refusal changes nothing.
 *
 * `node scripts/model.ts --runs N --seed S` plays more.
 */
import { expect, test } from 'vitest';

import { ACTIONS } from './model/game.ts';
import { play } from './model/play.ts';

const GAMES = 5_000;

test(
  'in thousands of random games the program and its reference agree about every account after every step',
  { timeout: 900_000 },
  () => {
    const { accepted } = play(GAMES, 20_260_801);
    // Games say something only if every instruction was accepted often enough. There is one Config, made before.
    const rare = ACTIONS.filter((kind) => !['wait', 'tick', 'gift', 'initialize', 'registerProvider'].includes(kind));
    expect(rare.filter((kind) => (accepted.get(kind) ?? 0) < 20)).toEqual([]);
  },
);
