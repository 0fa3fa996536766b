/**
 * `node scripts/simulate.ts`: plays a market and says what came of it.
 *
 *   --seed S             a small market with faults, as the tests draw it from this seed; or one of the three of --seeds: long-2,
 *                        replicas, idlers
 *   --seeds N            some hours of buyers on their own, a market of replicas, one in which hardly anybody works, then the
 *                        first N of them, up to the first that breaks an invariant
 *   --nodes N --bids M   a large one without crashes or liars, for figures (default 1,000 nodes, 20 bids)
 *   --faults             with them, and with more books
 *   --json               the report as one line
 *   --mutants            puts faults into the machines, one at a time, and tells by which of N seeds (default 200) each is
 *                        found; fails when one is not that nothing else makes good. Minutes
 *   --kept FILE          with --mutants: keeps there what was found, and leaves out what an earlier pass had found, so that one
 *                        that was broken off goes on. To be deleted when the sources change
 *   --mutant NAME        one of them, with --seed or --seeds
 */
import { spawnSync } from 'node:child_process';
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

import { MUTANTS, mutate } from '../test/simulation/mutants.ts';
import type { Report, Scenario } from '../test/simulation/simulate.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seeds: { type: 'string' },
    mutants: { type: 'boolean', default: false },
    mutant: { type: 'string' },
    kept: { type: 'string' },
    nodes: { type: 'string' },
    bids: { type: 'string' },
    faults: { type: 'boolean', default: false },
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

if (values.mutants) findMutants(count(values.seeds, 200, 'seeds'));
else {
  const mutant = MUTANTS.find(({ name }) => name === values.mutant);
  if (values.mutant !== undefined && mutant === undefined) {
    console.error(`there is no fault called "${values.mutant}"; they are in test/simulation/mutants.ts`);
    process.exit(2);
  }
  if (mutant !== undefined) mutate(mutant);
  await play();
}

/** Each in a process of its own, which imports the changed source. One line for each: its name, and what found it. */
function findMutants(seeds: number): void {
  const { kept } = values;
  const lines = kept !== undefined && existsSync(kept) ? readFileSync(kept, 'utf8').split('\n') : [];
  for (const { name, madeGood } of MUTANTS) {
    const known = lines.find((line) => line.startsWith(`${name}  `));
    const line = known ?? `${name.padEnd(60)}  ${findMutant(name, seeds, madeGood)}`;
    console.log(line);
    if (known === undefined && kept !== undefined) appendFileSync(kept, `${line}\n`);
    if (line.includes('  NOT ')) process.exitCode = 1;
  }
}

function findMutant(name: string, seeds: number, madeGood: string | undefined): string {
  const words = [import.meta.filename, '--mutant', name, '--seeds', String(seeds)];
  const { status, stderr } = spawnSync(process.execPath, words, { encoding: 'utf8' });
  const violation = stderr.split('\n').findLast((line) => line.startsWith('seed '));
  if (violation !== undefined && madeGood !== undefined) return `NOT as marked: found by ${violation}`;
  if (violation !== undefined) return violation.replace(/; replay it.*$/, '');
  if (status !== 0) return `NOT played: ${stderr.trim()}`;
  return madeGood === undefined ? `NOT found by ${seeds} seeds` : `not found: ${madeGood}`;
}

async function play(): Promise<void> {
  // Half of what is heard was heard before, and the stacks of the refusals would take a fifth of the time.
  Error.stackTraceLimit = values.seed === undefined ? 0 : 10;
  // Only now: a fault must be in before the machines are.
  const simulation = await import('../test/simulation/simulate.ts');
  const { FailedRun, drawScenario, largeScenario, largeScenarioWithFaults, simulate } = simulation;
  const named = {
    'long-2': simulation.longScenario,
    replicas: simulation.replicasScenario,
    idlers: simulation.idlersScenario,
  } as const;
  const isLarge = values.seed === undefined || values.nodes !== undefined || values.bids !== undefined;
  const seed = values.seed ?? 'large';
  const nodes = count(values.nodes, 1_000, 'nodes');
  const large = values.faults ? largeScenarioWithFaults : largeScenario;
  const scenario = isLarge
    ? large(nodes, count(values.bids, 20, 'bids'))
    : (named[seed as keyof typeof named]?.() ?? drawScenario(seed));
  try {
    if (values.seeds !== undefined) {
      for (const [name, draw] of Object.entries(named)) simulate(name, draw());
      const reports = Array.from({ length: count(values.seeds, 1, 'seeds') }, (_, one) => simulate(String(one)));
      const jobs = reports.reduce((sum, report) => sum + report.jobs, 0);
      const delivered = reports.reduce((sum, report) => sum + report.delivered, 0);
      console.log(`no invariant was broken by ${values.seeds} seeds; ${delivered} of ${jobs} jobs were delivered`);
      // A market in which nothing ever happens breaks none.
      if (delivered > jobs / 10) return;
      console.error(`seed by seed nearly nothing is delivered: ${delivered} of ${jobs} jobs`);
      process.exitCode = 1;
      return;
    }
    const startedMs = performance.now();
    const report = simulate(seed, scenario);
    print(report, scenario, Math.round(performance.now() - startedMs));
  } catch (error) {
    if (!(error instanceof FailedRun)) throw error;
    console.error([...error.lines.slice(-40), error.message].join('\n'));
    process.exitCode = 1;
  }
}

function print(report: Report, { providers, liars, buyers, squatters }: Scenario, tookMs: number): void {
  if (values.json) {
    console.log(JSON.stringify({ ...report, tookMs }));
    return;
  }
  const reasons = Object.entries(report.reasons).map(([code, times]) => `${times} × ${code}`);
  const { counts } = report;
  for (const [title, text] of [
    ['seed', report.seed],
    ['market', `${providers} providers, ${liars} liars, ${buyers} buyers, ${squatters} squatters`],
    ['jobs', `${report.jobs}, ${report.delivered} delivered, ${report.vanished} left by their buyer`],
    ['gangs', `${report.gangs}, ${report.gangsDelivered} delivered`],
    ['without result', reasons.length === 0 ? 'none' : reasons.join(', ')],
    ['answers per bid', `${report.answersPerBid.toFixed(1)} over ${report.bids} bids`],
    ['to a lease', `p50 ${report.matchMs.p50} ms, p95 ${report.matchMs.p95} ms of the market's own time`],
    [
      'books',
      `${counts['offers in books'] ?? 0} offers in all, ${counts['offers not in books that should be'] ?? 0} missing`,
    ],
    ['steps', `${report.steps} in ${tookMs} ms, ${Math.round(report.steps / (tookMs / 1_000))} a second`],
    ['digest', report.digest],
  ] as const)
    console.log(`${title.padEnd(16)} ${text}`);
}
