/**
 * `node scripts/model.ts --runs N --seed S`: random games against the chain program and its reference, as many as wanted
 * (test/chain/model.test.ts plays 5,000). Prints the seed, and the shortest game that fails.
 */
import { parseArgs } from 'node:util';

import { play } from '../test/chain/model/play.ts';

const { values } = parseArgs({ options: { runs: { type: 'string' }, seed: { type: 'string' } } });
const runs = Number(values.runs ?? 10_000);
const seed = Number(values.seed ?? crypto.getRandomValues(new Int32Array(1))[0]);
console.log(`${runs} games, seed ${seed}`);
const startMs = performance.now();
const { steps, accepted } = play(runs, seed);
const seconds = (performance.now() - startMs) / 1000;
console.log(`${steps} steps agreed in ${seconds.toFixed(1)} s (${Math.round(steps / seconds)} a second)`);
for (const [kind, count] of [...accepted].sort(([, a], [, b]) => b - a)) console.log(`  ${kind}: ${count} accepted`);
