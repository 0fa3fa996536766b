/**
 * `node scripts/simulate.ts`: plays a market and says what came of it.
 *
 *   --seed S             a small market with faults, as the tests draw it from this seed
 *   --nodes N --bids M   a large one without crashes or liars, for figures (default 1,000 nodes, 20 bids)
 *   --json               the report as one line
 */
import { parseArgs } from 'node:util';

import { FailedRun, drawScenario, largeScenario, simulate } from '../test/simulation/simulate.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    nodes: { type: 'string' },
    bids: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});

function count(text: string | undefined, otherwise: number, name: string): number {
  const value = text === undefined ? otherwise : Number(text);
  if (!Number.isInteger(value) || value < 1 || value > 20_000) {
    console.error(`--${name} must be a whole number from 1 to 20000, not "${String(text)}"`);
    process.exit(2);
  }
  return value;
}

const isLarge = values.seed === undefined || values.nodes !== undefined || values.bids !== undefined;
const seed = values.seed ?? 'large';
const nodes = count(values.nodes, 1_000, 'nodes');
const scenario = isLarge ? largeScenario(nodes, count(values.bids, 20, 'bids')) : drawScenario(seed);
try {
  const startedMs = performance.now();
  const report = simulate(seed, scenario);
  const tookMs = Math.round(performance.now() - startedMs);
  if (values.json) console.log(JSON.stringify({ ...report, tookMs }));
  else {
    const { providers, liars, buyers, squatters } = scenario;
    const reasons = Object.entries(report.reasons).map(([code, times]) => `${times} × ${code}`);
    for (const [title, text] of [
      ['seed', seed],
      ['market', `${providers} providers, ${liars} liars, ${buyers} buyers, ${squatters} squatters`],
      ['jobs', `${report.jobs}, ${report.delivered} delivered, ${report.vanished} left by their buyer`],
      ['without result', reasons.length === 0 ? 'none' : reasons.join(', ')],
      ['answers per bid', `${report.answersPerBid.toFixed(1)} over ${report.bids} bids`],
      ['to a lease', `p50 ${report.matchMs.p50} ms, p95 ${report.matchMs.p95} ms of the market's own time`],
      ['steps', `${report.steps} in ${tookMs} ms, ${Math.round(report.steps / (tookMs / 1_000))} a second`],
      ['digest', report.digest],
    ] as const)
      console.log(`${title.padEnd(16)} ${text}`);
  }
} catch (error) {
  if (!(error instanceof FailedRun)) throw error;
  console.error([...error.lines.slice(-40), error.message].join('\n'));
  process.exitCode = 1;
}
