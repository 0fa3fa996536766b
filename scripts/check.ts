/**
 * `npm run check`: every gate, in the order of what fails fastest, the same here and in CI. Stops at the first failure and
 * prints the command that repairs or shows it. A gate that cannot run on this machine is named with the reason.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');

interface Gate {
  readonly name: string;
  readonly command: readonly [string, ...string[]];
  /** What to do when it fails. */
  readonly repair: string;
  /** Why it cannot run here; undefined when it can. */
  readonly cannot?: () => string | undefined;
}

const GATES: readonly Gate[] = [
  { name: 'format', command: ['oxfmt', '--check', '.'], repair: 'npx oxfmt .' },
  {
    name: 'lint',
    command: ['oxlint', '--type-aware', '--deny-warnings', '.'],
    repair: 'npx oxlint --type-aware --fix .',
  },
  { name: 'types', command: ['tsc', '-p', '.'], repair: 'npx tsc -p .' },
  {
    name: 'generated: protocol/molt.js',
    command: ['node', 'scripts/proto.ts', '--check'],
    repair: 'npm run proto',
  },
  {
    name: 'generated: protocol/SPEC.md',
    command: ['node', 'scripts/spec.ts', '--check'],
    repair: 'node scripts/spec.ts',
  },
  {
    name: 'generated: chain/program/molt.so',
    command: ['node', 'scripts/program.ts', '--check'],
    repair: 'npm run program',
    cannot: () => (hasClang19() ? undefined : 'clang 19, which made the committed file, is not installed'),
  },
  {
    name: 'generated: node/runtime/container/entry-code.ts',
    command: ['node', 'scripts/entry.ts', '--check'],
    repair: 'node scripts/entry.ts',
    cannot: () => (hasClang19() ? undefined : 'clang 19, which made the committed file, is not installed'),
  },
  { name: 'unit tests', command: ['vitest', 'run', '--project', 'unit'], repair: 'npx vitest --project unit' },
  { name: 'dead code', command: ['knip'], repair: 'npx knip' },
  { name: 'build', command: ['node', 'scripts/build.ts'], repair: 'npm run build' },
  { name: 'package', command: ['publint', '--strict'], repair: 'npx publint' },
];

function hasClang19(): boolean {
  return ['clang-19', 'clang'].some((name) => {
    const { stdout } = spawnSync(name, ['--version'], { encoding: 'utf8' });
    return typeof stdout === 'string' && stdout.includes('version 19.');
  });
}

/** The tools that `npm ci` brought come first, whatever else is installed. */
const path = `${join(root, 'node_modules/.bin')}:${process.env['PATH'] ?? ''}`;

function run({ name, command: [program, ...args], repair, cannot }: Gate): boolean {
  const reason = cannot?.();
  if (reason !== undefined) {
    console.log(`– ${name}: skipped, ${reason}`);
    return true;
  }
  const startMs = performance.now();
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
    env: { ...process.env, PATH: path },
  });
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
  if (status === 0) {
    console.log(`✓ ${name} (${seconds} s)`);
    return true;
  }
  console.error(`${stdout}${stderr}${error?.message ?? ''}`);
  console.error(`✗ ${name} (${seconds} s). Repair or look closer with: ${repair}`);
  return false;
}

if (!GATES.every(run)) process.exitCode = 1;
