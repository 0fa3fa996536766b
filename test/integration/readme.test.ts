/**
 * Goal: what the README tells people to type works as written. Method: its shell lines and its TypeScript run in an empty
 * folder, with only ports and the address that `up` prints put in; `npm run molt --` becomes the program's file.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

const root = join(import.meta.dirname, '../..');
const readme = readFileSync(join(root, 'README.md'), 'utf8');
const directory = mkdtempSync(join(tmpdir(), 'molt-readme-'));
const processes: ChildProcess[] = [];
/** Ports of this run; everything else is as in the README. */
const environment: Record<string, string> = {
  PATH: process.env['PATH'] ?? '',
  HOME: directory,
  MOLT_LISTEN: '/ip4/127.0.0.1/tcp/0',
  MOLT_MDNS: 'false',
};

/** The lines of all shell blocks that call the program, in order. */
const lines = [...readme.matchAll(/```sh\n(.*?)```/gs)]
  .flatMap((match) => (match[1] ?? '').trim().split('\n'))
  .filter((line) => line.startsWith('npm run molt -- '))
  .map((line) => line.slice('npm run molt -- '.length));

function lineOf(start: string): string {
  const found = lines.find((line) => line.startsWith(start));
  if (found === undefined) throw new Error(`the README has no line "npm run molt -- ${start}…"`);
  return found.replace('ADDRESS', environment['ADDRESS'] ?? 'ADDRESS');
}

const shell = (line: string): string => `"${process.execPath}" "${join(root, 'node/molt.js')}" ${line}`;

function run(line: string): string {
  return execFileSync('sh', ['-c', shell(line)], { cwd: directory, env: environment, encoding: 'utf8' });
}

/** Starts a line that keeps running; resolves with the first match in what it prints. */
function start(line: string, pattern: RegExp): Promise<string> {
  const child = spawn('sh', ['-c', `exec ${shell(line)}`], { cwd: directory, env: environment });
  processes.push(child);
  let text = '';
  return new Promise((resolve, reject) => {
    const look = (chunk: Buffer): void => {
      text += chunk.toString();
      const match = pattern.exec(text);
      if (match !== null) resolve(match[1] ?? '');
    };
    child.stdout.on('data', look);
    child.stderr.on('data', look);
    child.once('exit', () => reject(new Error(`molt ${line} ended:\n${text}`)));
  });
}

beforeAll(async () => {
  symlinkSync(join(root, 'node_modules'), join(directory, 'node_modules'));
  const url = await start(`${lineOf('devnet')} --port 0`, /local chain at (\S+)/);
  environment['MOLT_RPC_URL'] = url;
});

afterAll(async () => {
  for (const child of processes.reverse()) {
    child.kill('SIGINT');
    await new Promise((resolve) => (child.exitCode === null ? child.once('exit', resolve) : resolve(undefined)));
  }
  rmSync(directory, { recursive: true, force: true });
});

test('a provider comes up as the README says', async () => {
  expect(run(lineOf('init --role provider'))).toContain('molt -- up --home');
  environment['ADDRESS'] = await start(lineOf('up'), /listening as \S+ on (\S+?),?\n(?:.*\n)*?.*selling as provider/);
  expect(environment['ADDRESS']).toMatch(/^\/ip4\/127\.0\.0\.1\/tcp\/\d+\/p2p\//);
});

test('a buyer finds it, runs a job and checks the proof as the README says', async () => {
  run(lineOf('init --role buyer'));
  // A look takes two seconds, and joining the mesh takes longer on a busy machine.
  await expect.poll(() => run(lineOf('offers'))).toContain('eu-west');
  const out = run(lineOf('run'));
  expect(out).toContain('│ 42');
  expect(out).toContain('✔ settled');
  expect(run(lineOf('verify'))).toContain('the proof is good');
});

test('the SDK does the same in the lines of the README', () => {
  const snippet = /```ts\n(.*?)```/s.exec(readme)?.[1] ?? '';
  expect(snippet.trim().split('\n').length).toBeLessThanOrEqual(12);
  writeFileSync(join(directory, 'buy.ts'), snippet.replace("'molt'", `'${join(root, 'sdk/index.ts')}'`));
  const out = execFileSync(process.execPath, ['buy.ts'], { cwd: directory, env: environment, encoding: 'utf8' });
  expect(out).toMatch(/^42 for 0\.\d+ MOLT\n$/);
});
