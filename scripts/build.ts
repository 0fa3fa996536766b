/**
 * `npm run build`: what is published, into dist/. tsc keeps the tree of folders, for the SDK and for the processes that
 * the program starts; the files that are no TypeScript but are read at run time are put beside the code that reads them. The
 * program itself is bundled from there, and dist/molt.js is its door.
 */
import { spawnSync } from 'node:child_process';
import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { bundleProgram } from './bundle.ts';

const root = join(import.meta.dirname, '..');
const dist = join(root, 'dist');

/** Files and folders that code finds next to itself. */
const BESIDE = ['protocol/molt.js', 'protocol/molt.d.ts', 'chain/program/molt.so', 'node/cli/demo/analyse.py'];

await rm(dist, { recursive: true, force: true });
const tsc = join(root, 'node_modules', '.bin', 'tsc');
const compiled = spawnSync(tsc, ['-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' });
if (compiled.status !== 0) process.exit(compiled.status ?? 1);
for (const path of BESIDE) await cp(join(root, path), join(dist, path), { recursive: true });
await cp(join(root, 'node/molt.js'), join(dist, 'molt.js'));
await bundleProgram(root);
console.log(`built ${dist}`);
