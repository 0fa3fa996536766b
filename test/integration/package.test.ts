/**
 * Goal: what is published runs without the checkout. Method: build, pack, unpack into an empty folder with the installed
 * dependencies beside it, and run the program and the SDK from there.
 */
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { afterAll, beforeAll, expect, test } from 'vitest';

const root = join(import.meta.dirname, '../..');
const directory = mkdtempSync(join(tmpdir(), 'molt-package-'));
/** Of statements with and without spaces, and of calls; not what a message says. */
const IMPORT =
  /(?:^|[;}\n])\s*(?:import|export)\b(?:[^;'"`=]*?\bfrom)?\s*['"]([^'"]+)['"]|\bimport\(['"`]([^'"`]+)['"`]/g;
const unpacked = join(directory, 'package');

beforeAll(() => {
  execFileSync(process.execPath, [join(root, 'scripts/build.ts')], { cwd: root });
  execFileSync('npm', ['pack', '--pack-destination', directory], { cwd: root, stdio: 'ignore' });
  const tarball = readdirSync(directory).find((name) => name.endsWith('.tgz')) ?? '';
  execFileSync('tar', ['-xzf', join(directory, tarball), '-C', directory]);
  symlinkSync(join(root, 'node_modules'), join(unpacked, 'node_modules'));
});

afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

test('holds no TypeScript source and no test, and nothing of this machine', () => {
  const files = readdirSync(unpacked, { recursive: true, encoding: 'utf8' }).filter(
    (name) => !name.startsWith('node_modules'),
  );
  expect(files.filter((name) => /(?<!\.d)\.ts$/.test(name) || name.startsWith('test'))).toEqual([]);
  for (const name of files.filter((each) => each.endsWith('.js'))) {
    expect(readFileSync(join(unpacked, name), 'utf8').includes(root), name).toBe(false);
  }
});

test('depends on everything that it imports', () => {
  const manifest = JSON.parse(readFileSync(join(unpacked, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>;
  };
  const imported = new Set<string>();
  for (const name of readdirSync(join(unpacked, 'dist'), { recursive: true, encoding: 'utf8' })) {
    if (!name.endsWith('.js')) continue;
    const text = readFileSync(join(unpacked, 'dist', name), 'utf8').replaceAll(/\/\*.*?\*\//gs, '');
    for (const [, whole, later] of text.matchAll(IMPORT)) {
      const from = whole ?? later ?? '';
      if (/^[a-z@]/.test(from) && !isBuiltin(from)) {
        imported.add(
          from
            .split('/')
            .slice(0, from.startsWith('@') ? 2 : 1)
            .join('/'),
        );
      }
    }
  }
  expect(imported.size).toBeGreaterThan(10);
  for (const name of imported) expect(manifest.dependencies, name).toHaveProperty([name]);
});

test('brings the licences of what is in the program, and the program says nothing of what a library deprecates', () => {
  const licences = readFileSync(join(unpacked, 'dist/program/LICENSES.txt'), 'utf8');
  for (const name of ['libp2p', '@solana/web3.js', 'zod'])
    expect(licences).toMatch(new RegExp(`^${name} \\d.* \\(`, 'm'));
  const told = spawnSync(
    process.execPath,
    [join(unpacked, 'dist/molt.js'), 'providers', '--rpc', 'http://127.0.0.1:1'],
    {
      encoding: 'utf8',
    },
  );
  expect(told.stderr).toContain('chain/unreachable');
  expect(told.stderr).not.toContain('Deprecation');
});

test('gives the SDK to whoever imports it by name', () => {
  const user = join(directory, 'user');
  execFileSync('mkdir', ['-p', join(user, 'node_modules')]);
  symlinkSync(unpacked, join(user, 'node_modules/molt'));
  writeFileSync(
    join(user, 'use.mjs'),
    "import { connect, parseMolt } from 'molt'; console.log(typeof connect, parseMolt('1'));",
  );
  expect(execFileSync(process.execPath, ['use.mjs'], { cwd: user, encoding: 'utf8' })).toBe('function 1000000000n\n');
});

test('runs molt demo', async () => {
  const work = mkdtempSync(join(directory, 'work-'));
  // Rejects with what it said when it fails.
  const demo = await promisify(execFile)(process.execPath, [join(unpacked, 'dist/molt.js'), 'demo'], { cwd: work });
  expect(demo.stderr).toBe('');
  expect(demo.stdout).toContain('✔ adds up to the base unit');
  expect(demo.stdout).toContain('molt verify molt-demo-out/proof.json');
  expect(existsSync(join(work, 'molt-demo-out/report.json'))).toBe(true);
});
