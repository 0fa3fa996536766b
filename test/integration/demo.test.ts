/**
 * Goal: the demo runs the main job on real parts, tells it well to a file, and leaves nothing behind however it ends.
 * Method: scripts/demo.ts as a process in an empty folder, its output through a pipe, as CI sees it.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, describe, expect, test } from 'vitest';

import { DATASET_ROWS, writeDataset } from '../../node/cli/demo/dataset.ts';
import { findEngine } from '../fixtures/engine.ts';
import { type ImageFile, openRegistry } from '../fixtures/registry.ts';

const script = join(import.meta.dirname, '../../scripts/demo.ts');

const engine = await findEngine();
const python = '/usr/bin/python3';
const skipped = engine.reason !== '' ? engine.reason : `no ${python} to make an image of`;
const canRunContainers = engine.reason === '' && existsSync(python);

/** This machine's Python with what the demo's script imports and links to: an image without any network. */
function pythonFiles(): ImageFile[] {
  const imports =
    'import csv, json, math, os, sys, collections, heapq, encodings.utf_8, encodings.ascii, encodings.latin_1';
  const list = `${imports}; print("\\n".join(m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)))`;
  const sources = execFileSync(python, ['-c', list], { encoding: 'utf8' }).trim().split('\n');
  const binaries = [python, ...sources.filter((path) => path.endsWith('.so'))];
  const linked = binaries.flatMap((path) => execFileSync('ldd', [path], { encoding: 'utf8' }).match(/\/\S+/g) ?? []);
  const paths = new Set([python, ...sources, ...linked].map((path) => path.replace(/:$/, '')));
  return [...paths].map((path) => ({ name: path.slice(1), contents: readFileSync(path) }));
}

interface Demo {
  readonly child: ChildProcess;
  readonly directory: string;
  readonly ended: Promise<{ readonly code: number | null; readonly out: string; readonly err: string }>;
  /** Resolves once this was printed. */
  printed(text: string): Promise<void>;
}

const started: ChildProcess[] = [];
afterAll(() => {
  for (const child of started) child.kill('SIGKILL');
});

function startDemo(args: readonly string[] = []): Demo {
  const directory = mkdtempSync(join(tmpdir(), 'molt-demo-test-'));
  const child = spawn(process.execPath, [script, ...args], { cwd: directory, stdio: ['ignore', 'pipe', 'pipe'] });
  started.push(child);
  let out = '';
  let err = '';
  const listeners = new Set<() => void>();
  child.stdout.on('data', (chunk: Buffer) => {
    out += chunk.toString();
    for (const listener of listeners) listener();
  });
  child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()));
  return {
    child,
    directory,
    ended: new Promise((resolve) => child.once('close', (code) => resolve({ code, out, err }))),
    printed: (text) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          if (!out.includes(text)) return;
          listeners.delete(look);
          resolve();
        };
        listeners.add(look);
        child.once('close', () => reject(new Error(`the demo ended before it printed "${text}":\n${out}\n${err}`)));
        look();
      }),
  };
}

/** Processes whose command line or working directory names this folder. */
function processesOf(directory: string): string[] {
  const lines = execFileSync('ps', ['-eo', 'pid,args'], { encoding: 'utf8' }).split('\n');
  return lines.filter((line) => line.includes(directory));
}

const STEPS = [
  'chain up',
  'accounts funded',
  'providers up',
  'input made',
  'mesh joined',
  'offers seen',
  'bid sent',
  'quotes',
  'accepted',
  'lease opened',
  'prepared',
  'running',
  'proof verified',
  'settled',
];

describe('the demo', () => {
  test('tells every step in order, adds up, and its proof and outputs stand up to molt verify', async () => {
    const demo = startDemo();
    const { code, out, err } = await demo.ended;
    expect({ code, err }).toEqual({ code: 0, err: '' });
    const steps = out.split('\n').filter((line) => line.startsWith('✔ '));
    expect(steps.map((line) => line.slice(2, 18).trim()).filter((title) => STEPS.includes(title))).toEqual(STEPS);
    // No escape sequence reaches a file.
    expect(out).not.toContain('\u001b');
    expect(out).toContain('100,000 rows');
    expect(out).toContain('✔ adds up to the base unit');

    const files = join(demo.directory, 'molt-demo-out');
    const report = readFileSync(join(files, 'report.json'));
    expect((JSON.parse(report.toString()) as { rows: number }).rows).toBe(100_000);
    expect(out).toContain(createHash('sha256').update(report).digest('hex'));
    const program = join(import.meta.dirname, '../../node/molt.js');
    const proof = ['verify', join(files, 'proof.json'), '--spec', join(files, 'spec.json'), '--outputs', files];
    expect(execFileSync(process.execPath, [program, ...proof], { encoding: 'utf8' })).toContain('the proof is good');

    expect(readdirSync(demo.directory)).toEqual(['molt-demo-out']);
    // Sandboxes end a moment after a provider that was too slow to end them.
    await expect.poll(() => processesOf(demo.directory)).toEqual([]);
  });

  test('stopped by Ctrl-C in mid-job cancels it, settles, and removes processes and files', async () => {
    // More rows than the demo's own: the job must not have ended before it is stopped.
    const input = join(mkdtempSync(join(tmpdir(), 'molt-demo-input-')), 'sales.csv');
    await writeDataset(input, 2 * DATASET_ROWS);
    const demo = startDemo(['--input', input]);
    await demo.printed('✔ prepared');
    demo.child.kill('SIGINT');
    const { code, out } = await demo.ended;
    expect(code).toBe(130);
    expect(out).toContain('✔ settled');
    expect(existsSync(join(demo.directory, '.molt'))).toBe(false);
    await expect.poll(() => processesOf(demo.directory)).toEqual([]);
  });

  test('killed leaves no process running', async () => {
    const demo = startDemo(['--keep']);
    await demo.printed('✔ bid sent');
    expect(processesOf(demo.directory).length).toBeGreaterThanOrEqual(5);
    demo.child.kill('SIGKILL');
    await demo.ended;
    await expect.poll(() => processesOf(demo.directory)).toEqual([]);
  });

  test.skipIf(!canRunContainers)(
    `runs the same job in a container${canRunContainers ? '' : ` (${skipped})`}`,
    async () => {
      await using registry = await openRegistry({ name: 'python', files: pythonFiles(), env: ['PATH=/usr/bin'] });
      const demo = startDemo(['--container', registry.reference, '--json']);
      const { code, out, err } = await demo.ended;
      expect({ code, err }).toEqual({ code: 0, err: '' });
      const result = JSON.parse(out.trim().split('\n').at(-1) ?? '') as Record<string, unknown>;
      expect(result).toMatchObject({ type: 'result', exitCode: 0, reason: 'exited' });
      const report = readFileSync(join(demo.directory, 'molt-demo-out', 'report.json'), 'utf8');
      expect((JSON.parse(report) as { rows: number }).rows).toBe(100_000);
      const spec = readFileSync(join(demo.directory, 'molt-demo-out', 'spec.json'), 'utf8');
      expect((JSON.parse(spec) as { runtime: string }).runtime).toBe('container');
    },
  );

  test('refuses an input that is not there before it starts anything', async () => {
    const demo = startDemo(['--input', 'nothing.csv', '--json']);
    const { code, err } = await demo.ended;
    expect(code).toBe(1);
    expect((JSON.parse(err) as { error: { code: string } }).error.code).toBe('job/input-missing');
    expect(readdirSync(demo.directory)).toEqual([]);
  });
});
