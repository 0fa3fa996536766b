/** Goal: a sandbox ends when it is told to, however young it is, and nothing of it stays. Method: real ones, killed at every moment of their start. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { Sandbox, prepareFences } from '../../../node/runtime/wasm/sandbox.ts';
import { systemEnv } from '../../../protocol/env.ts';
import { killProcessesMentioning, processesMentioning } from '../../fixtures/traces.ts';

const env = systemEnv();
let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'molt-sandbox-'));
});
afterEach(() => {
  killProcessesMentioning(directory);
  rmSync(directory, { recursive: true, force: true });
});

test('one that is killed while it starts ends, as killed, and leaves no process', async () => {
  const fences = await prepareFences(join(directory, 'fences'));
  for (let ageMs = 0; ageMs < 30; ageMs++) {
    const [given, out] = ['given', 'out'].map((name) => join(directory, `${ageMs}`, name)) as [string, string];
    for (const path of [given, out]) mkdirSync(path, { recursive: true });
    const sandbox = new Sandbox(env, { readable: [given], writable: out, fences });
    await env.clock.sleep(ageMs);
    sandbox.kill();
    sandbox.kill();
    expect([ageMs, await sandbox.ended]).toEqual([ageMs, { code: null, signal: 'SIGKILL', diagnostic: '' }]);
    expect(processesMentioning(given)).toEqual([]);
  }
});
