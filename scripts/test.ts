/**
 * `npm test`: unit and integration tests side by side, where the time went, and what came of them in one line that a
 * program can read.
 *
 * Arguments go to vitest as they are: `npm test -- test/chain` runs part of it. Skipped tests are named with the reason
 * in their title; the container tests are skipped where no engine answers (`node scripts/engine.ts` brings one up).
 * The last line is exactly `N passed, N failed, N skipped`; the exit code is 1 when anything failed
 * or nothing ran.
 */
import { relative } from 'node:path';

import { type TestModule, type Vitest, parseCLI, startVitest } from 'vitest/node';

/** So many of the files that took longest are named. */
const SLOWEST = 10;

const { filter, options } = parseCLI(['vitest', 'run', '--passWithNoTests', ...process.argv.slice(2)]);
const vitest = await startVitest(filter, options);
const modules = vitest.state.getTestModules();
await vitest.close();

console.log(`\nslowest files:\n${slowest(modules)}`);
const { passed, failed, skipped } = tally(vitest, modules);
if (skipped.length > 0) console.log(`\nskipped:\n${skipped.map((name) => `  ${name}`).join('\n')}`);
const isEmpty = passed + failed + skipped.length === 0;
if (isEmpty) console.error(`no test was found for ${filter.join(' ') || 'this run'}; give a path below test/`);
console.log(`\n${passed} passed, ${failed} failed, ${skipped.length} skipped`);
process.exit(failed > 0 || isEmpty ? 1 : 0);

/** A failure outside of a test (a file that cannot be loaded, a hook, an error that nobody awaited) counts as one failed test. */
function tally(
  { state }: Vitest,
  modules: readonly TestModule[],
): { readonly passed: number; readonly failed: number; readonly skipped: readonly string[] } {
  const tests = modules.flatMap((module) => [...module.children.allTests()]);
  const of = (wanted: string): typeof tests => tests.filter((test) => test.result().state === wanted);
  const broken = modules.filter((module) => !module.ok() && [...module.children.allTests('failed')].length === 0);
  const skipped = tests.filter((test) => ['skipped', 'pending'].includes(test.result().state));
  const outside = state.getUnhandledErrors().length > 0 ? 1 : 0;
  return {
    passed: of('passed').length,
    failed: of('failed').length + broken.length + outside,
    skipped: skipped.map(({ fullName }) => fullName),
  };
}

/** Files with the seconds of their tests, hooks and imports, longest first. */
function slowest(modules: readonly TestModule[]): string {
  return modules
    .map((module) => {
      const { collectDuration, duration, prepareDuration, setupDuration } = module.diagnostic();
      const seconds = (collectDuration + duration + prepareDuration + setupDuration) / 1000;
      return { seconds, name: relative(process.cwd(), module.moduleId) };
    })
    .toSorted((a, b) => b.seconds - a.seconds)
    .slice(0, SLOWEST)
    .map(({ seconds, name }) => `${seconds.toFixed(1).padStart(7)} s  ${name}`)
    .join('\n');
}
