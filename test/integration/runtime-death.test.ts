/**
 * What becomes of jobs when the node is killed: a wasm guest dies with it, a container is taken up by the next process.
 * Real processes are killed with SIGKILL while their job runs.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { ContainerRuntime } from '../../node/runtime/index.ts';
import { systemEnv } from '../../protocol/env.ts';
import { readLogs } from '../contract/runtime.ts';
import { findEngine, openBusyboxRegistry } from '../fixtures/engine.ts';
import { processesMentioning } from '../fixtures/traces.ts';

const source = (path: string): string => JSON.stringify(new URL(path, import.meta.url).href);

/** Starts an endless guest in the directory it is given and says so: as the runtime does it on this machine. */
const WITH_RUNTIME = `
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { WasmRuntime } from ${source('../../node/runtime/index.ts')};
import { systemEnv } from ${source('../../protocol/env.ts')};
import { assemble, ENDLESS } from ${source('../node/runtime/module.ts')};
const root = process.argv[1];
const bytes = assemble({ bodies: [ENDLESS] });
const path = root + '/module.wasm';
writeFileSync(path, bytes);
for (const name of ['in', 'out']) mkdirSync(root + '/' + name);
const runtime = new WasmRuntime(systemEnv(), root + '/runtime');
await runtime.start({
  attemptId: 'orphan', image: { kind: 'module', path, digest: createHash('sha256').update(bytes).digest('hex') },
  command: [], environment: {}, inputDirectory: root + '/in', outputDirectory: root + '/out',
  limits: { cpus: 1, memoryBytes: 1 << 20, diskBytes: 0, durationMs: 600_000, logBytes: 0, processes: 1 },
  randomSeed: new Uint8Array(32), clockStartMs: 0,
}, new AbortController().signal);
// The guest's process, and those that wait for the next ones.
setTimeout(() => console.log('running'), 200);
`;

/** The same in a sandbox process without bubblewrap around it, as on a machine that has none. */
const WITHOUT_BUBBLEWRAP = `
import { mkdirSync, writeFileSync } from 'node:fs';
import { meterModule } from ${source('../../node/runtime/wasm/meter.ts')};
import { Slot } from ${source('../../node/runtime/wasm/slot.ts')};
import { systemEnv } from ${source('../../protocol/env.ts')};
import { assemble, ENDLESS } from ${source('../node/runtime/module.ts')};
const root = process.argv[1];
const path = root + '/module.wasm';
writeFileSync(path, meterModule(assemble({ bodies: [ENDLESS] })));
mkdirSync(root + '/runtime');
const slot = await Slot.open(systemEnv(), root + '/runtime', { program: process.execPath });
await slot.load({ task: 'load', modulePath: await slot.show(path, 'module.wasm'), baseline: false });
slot.sandbox.onEvent = ({ event }) => event === 'started' && console.log('running');
slot.sandbox.send({
  task: 'run', command: [], environment: {}, inputDirectory: slot.inputDirectory, outputDirectory: slot.outputDirectory,
  secrets: {}, memoryBytes: 1 << 20, diskBytes: 0, logBytes: 0, fuel: String(2n ** 62n), randomSeed: '00'.repeat(32),
  clockStartMs: 0,
});
await slot.sandbox.ended;
`;

it.skipIf(process.platform !== 'linux').each([
  ['', WITH_RUNTIME],
  [' without bubblewrap', WITHOUT_BUBBLEWRAP],
])('a killed node leaves no wasm guest behind%s', async (_where, program) => {
  const root = mkdtempSync(join(tmpdir(), 'molt-orphan-'));
  const cwd = fileURLToPath(new URL('../..', import.meta.url));
  const args = ['--input-type=module', '-e', program, root];
  const node = spawn(process.execPath, args, { cwd, stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const [line] = (await node.stdout.take(1).toArray()) as Buffer[];
    expect(String(line)).toContain('running');
    expect(processesMentioning(join(root, 'runtime')).length).toBeGreaterThan(0);
    node.kill('SIGKILL');
    await expect.poll(() => processesMentioning(join(root, 'runtime')), { interval: 100 }).toEqual([]);
  } finally {
    node.kill('SIGKILL');
    rmSync(root, { recursive: true, force: true });
  }
});

/** Starts a container job that takes three seconds and says so when its first line has come. */
const WITH_CONTAINER = `
import { mkdirSync } from 'node:fs';
import { ContainerRuntime } from ${source('../../node/runtime/index.ts')};
import { systemEnv } from ${source('../../protocol/env.ts')};
const [, root, socketPath, reference] = process.argv;
for (const name of ['in', 'out']) mkdirSync(root + '/' + name);
const runtime = new ContainerRuntime(systemEnv(), { directory: root + '/runtime', socketPath });
const run = await runtime.start({
  attemptId: 'adopted', image: { kind: 'image', reference },
  command: ['/bin/sh', '-c', 'echo first; sleep 3; echo second; echo done > /out/result; exit 5'],
  environment: {}, inputDirectory: root + '/in', outputDirectory: root + '/out',
  limits: { cpus: 1, memoryBytes: 64 << 20, diskBytes: 1 << 20, durationMs: 60_000, logBytes: 1 << 16, processes: 16 },
  randomSeed: new Uint8Array(32), clockStartMs: 0,
}, new AbortController().signal);
for await (const { bytes } of run.logs) console.log(Buffer.from(bytes).toString());
`;

const { socketPath, reason } = await findEngine();
const title = 'a container job of a killed node is taken up again by the next one';

it.skipIf(socketPath === undefined)(reason === '' ? title : `${title} (skipped: ${reason})`, async () => {
  const root = mkdtempSync(join(tmpdir(), 'molt-adopt-'));
  const cwd = fileURLToPath(new URL('../..', import.meta.url));
  await using registry = await openBusyboxRegistry();
  const args = ['--input-type=module', '-e', WITH_CONTAINER, root, socketPath ?? '', registry.reference];
  const node = spawn(process.execPath, args, { cwd, stdio: ['ignore', 'pipe', 'inherit'] });
  const next = new ContainerRuntime(systemEnv(), { directory: join(root, 'runtime'), socketPath: socketPath ?? '' });
  try {
    const [line] = (await node.stdout.take(1).toArray()) as Buffer[];
    expect(String(line)).toContain('first');
    node.kill('SIGKILL');
    expect(await next.list()).toEqual(['adopted']);
    const run = await next.adopt('adopted');
    expect(run === undefined ? '' : (await readLogs(run)).stdout).toBe('first\nsecond\n');
    const exit = await run?.exit;
    expect(exit).toMatchObject({ reason: 'exited', exitCode: 5, startedAtMs: run?.startedAtMs });
    // The engine notes the start a little after the command has begun.
    expect(exit?.durationMs).toBeGreaterThan(1500);
    expect(readFileSync(join(root, 'out', 'result'), 'utf8')).toBe('done\n');
    // A job that ended while no node was there is taken up the same way.
    const late = await next.adopt('adopted');
    expect(await late?.exit).toMatchObject({ reason: 'exited', exitCode: 5, durationMs: exit?.durationMs });
    // A reader that has seen the beginning asks for the rest only.
    const rest = await next.adopt('adopted', (exit?.finishedAtMs ?? 0) - 2500);
    expect(rest === undefined ? '' : (await readLogs(rest)).stdout).toBe('second\n');
    await rest?.exit;
  } finally {
    node.kill('SIGKILL');
    await next.remove('adopted');
    expect(await next.list()).toEqual([]);
    rmSync(root, { recursive: true, force: true });
  }
});
