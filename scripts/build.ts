/**
 * `npm run build`: what is published, into dist/. tsc keeps the tree of folders, and the files that are no TypeScript
 * but are read at run time are put beside the code that reads them.
 */
import { spawnSync } from 'node:child_process';
import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');
const dist = join(root, 'dist');

/** Files and folders that code finds next to itself. */
const BESIDE = ['protocol/molt.js', 'protocol/molt.d.ts', 'chain/program/molt.so', 'node/cli/demo/analyse.py'];

await rm(dist, { recursive: true, force: true });
const tsc = join(root, 'node_modules', '.bin', 'tsc');
const compiled = spawnSync(tsc, ['-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' });
if (compiled.status !== 0) process.exit(compiled.status ?? 1);
for (const path of BESIDE) await cp(join(root, path), join(dist, path), { recursive: true });
console.log(`built ${dist}`);
