/**
 * A node that is killed leaves no wasm guest behind: a real process is killed with a guest computing in its sandbox.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

/** Processes of this machine whose command line mentions `text`. */
function processesMentioning(text: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(join('/proc', pid, 'cmdline'), 'utf8').includes(text);
      } catch {
        return false;
      }
    })
    .map(Number);
}

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
console.log('running');
`;

/** The same in a sandbox process without bubblewrap around it, as on a machine that has none. */
const WITHOUT_BUBBLEWRAP = `
import { mkdirSync, writeFileSync } from 'node:fs';
import { meterModule } from ${source('../../node/runtime/wasm/meter.ts')};
import { Sandbox } from ${source('../../node/runtime/wasm/sandbox.ts')};
import { systemEnv } from ${source('../../protocol/env.ts')};
import { assemble, ENDLESS } from ${source('../node/runtime/module.ts')};
const root = process.argv[1];
const modulePath = root + '/module.wasm';
writeFileSync(modulePath, meterModule(assemble({ bodies: [ENDLESS] })));
const [inputDirectory, outputDirectory] = ['in', 'out'].map((name) => root + '/' + name);
for (const directory of [inputDirectory, outputDirectory]) mkdirSync(directory);
const onEvent = ({ event }) => event === 'started' && console.log('running');
const sandbox = new Sandbox(systemEnv(), { readable: [modulePath, inputDirectory], writable: outputDirectory, onEvent });
sandbox.send({
  task: 'run', modulePath, optimiseEagerly: false, command: [], environment: {}, inputDirectory, outputDirectory,
  memoryBytes: 1 << 20, diskBytes: 0, logBytes: 0, fuel: String(2n ** 62n), randomSeed: '00'.repeat(32), clockStartMs: 0,
});
await sandbox.ended;
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
    expect(processesMentioning(join(root, 'out')).length).toBeGreaterThan(0);
    node.kill('SIGKILL');
    let left: number[] = [];
    for (let tries = 0; tries < 50; tries++) {
      left = processesMentioning(join(root, 'out'));
      if (left.length === 0) break;
      await sleep(100);
    }
    expect(left).toEqual([]);
  } finally {
    node.kill('SIGKILL');
    rmSync(root, { recursive: true, force: true });
  }
});
