/**
 * `npm test`: unit tests, then integration tests, and what came of them in one line that a program can read.
 *
 * Arguments go to vitest as they are: `npm test -- test/chain` runs part of it. Skipped tests are named with the reason
 * in their title; the container tests are skipped where no engine answers (`node scripts/engine.ts` brings one up).
 * The last line is exactly `N passed, N failed, N skipped`; the exit code is 1 when anything failed
 * or nothing ran.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

interface Assertion {
  readonly status: string;
  readonly fullName: string;
}

interface Report {
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly assertionResults: readonly Assertion[];
  }[];
}

interface Tally {
  passed: number;
  failed: number;
  readonly skipped: string[];
}

const PROJECTS = ['unit', 'integration'] as const;

const directory = await mkdtemp(join(tmpdir(), 'molt-tests-'));
const tally: Tally = { passed: 0, failed: 0, skipped: [] };
try {
  for (const project of PROJECTS) count(await run(project), tally);
} finally {
  await rm(directory, { recursive: true, force: true });
}
if (tally.skipped.length > 0) {
  console.log(`\nskipped:\n${tally.skipped.map((name) => `  ${name}`).join('\n')}`);
}
const isEmpty = tally.passed + tally.failed + tally.skipped.length === 0;
if (isEmpty)
  console.error(`no test was found for ${process.argv.slice(2).join(' ') || 'this run'}; give a path below test/`);
console.log(`\n${tally.passed} passed, ${tally.failed} failed, ${tally.skipped.length} skipped`);
process.exitCode = tally.failed > 0 || isEmpty ? 1 : 0;

/** Runs one project; an unreadable report or a failure outside of a test counts as one failed test. */
async function run(project: string): Promise<{ report: Report | undefined; exitCode: number }> {
  const file = join(directory, `${project}.json`);
  const vitest = join(dirname(createRequire(import.meta.url).resolve('vitest/package.json')), 'vitest.mjs');
  const args = ['run', '--project', project, '--passWithNoTests', '--reporter=default', '--reporter=json'];
  const child = spawn(process.execPath, [vitest, ...args, `--outputFile.json=${file}`, ...process.argv.slice(2)], {
    stdio: 'inherit',
  });
  const exitCode = await new Promise<number>((resolve) => child.once('close', (code) => resolve(code ?? 1)));
  const text = await readFile(file, 'utf8').catch(() => undefined);
  return { report: text === undefined ? undefined : (JSON.parse(text) as Report), exitCode };
}

function count({ report, exitCode }: { report: Report | undefined; exitCode: number }, into: Tally): void {
  const failedBefore = into.failed;
  for (const file of report?.testResults ?? []) {
    if (file.status === 'failed' && !file.assertionResults.some(({ status }) => status === 'failed')) into.failed++;
    for (const { status, fullName } of file.assertionResults) {
      if (status === 'passed') into.passed++;
      else if (status === 'failed') into.failed++;
      else into.skipped.push(fullName);
    }
  }
  if (exitCode !== 0 && into.failed === failedBefore) into.failed++;
}
