/**
 * What a runtime tells of a job whose engine is stopped, or killed with SIGKILL, while it starts, runs or ends: a reason,
 * and the time that it ran. Real engines of the test's own are killed; engine-death.test.ts has what it means for lease and money.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { ContainerRuntime, type RunRequest } from '../../node/runtime/index.ts';
import { systemEnv } from '../../protocol/env.ts';
import { makeDirectories, requestOf, type RunDirectories } from '../contract/runtime.ts';
import { openBusyboxRegistry } from '../fixtures/engine.ts';
import { whyNoPrivateEngine, openPrivateEngine, type PrivateEngine } from '../fixtures/private-engine.ts';

const never = new AbortController().signal;
const reason = whyNoPrivateEngine();
const note = reason === '' ? '' : ` (skipped: ${reason})`;

let directories: RunDirectories;
let root: string;
beforeEach(() => {
  directories = makeDirectories();
  root = mkdtempSync(join(tmpdir(), 'molt-engine-death-'));
});
afterEach(() => {
  for (const directory of [directories.root, root]) rmSync(directory, { recursive: true, force: true });
});

interface Scene {
  readonly engine: PrivateEngine;
  readonly runtime: ContainerRuntime;
  readonly request: (script: string, more?: Partial<RunRequest>) => RunRequest;
}

async function withEngine(liveRestore: boolean, play: (scene: Scene) => Promise<void>): Promise<void> {
  await using registry = await openBusyboxRegistry();
  await using engine = await openPrivateEngine({ liveRestore });
  const runtime = new ContainerRuntime(systemEnv(), {
    directory: join(root, 'runtime'),
    socketPath: engine.socketPath,
  });
  const image = { kind: 'image', reference: registry.reference } as const;
  await runtime.prepare(image, () => undefined, never);
  const request: Scene['request'] = (script, more = {}) =>
    requestOf(image, directories, { command: ['/bin/sh', '-c', script], ...more });
  try {
    await play({ engine, runtime, request });
    for (const attemptId of await runtime.list()) await runtime.remove(attemptId);
    // A volume that a killed engine still counts as in use is freed by its next start, and named until then.
    if ((await runtime.list()).length > 0) {
      await engine.kill();
      await engine.start();
      for (const attemptId of await runtime.list()) await runtime.remove(attemptId);
    }
    expect(await runtime.list()).toEqual([]);
  } finally {
    await runtime.close();
  }
}

it.skipIf(reason !== '')(`a job that ends while its engine is away is billed to its own end${note}`, async () => {
  await withEngine(true, async ({ engine, runtime, request }) => {
    const run = await runtime.start(request('sleep 2; exit 17'), never);
    await engine.kill();
    await sleep(5000);
    await engine.start();
    const exit = await run.exit;
    expect(exit).toMatchObject({ reason: 'exited', exitCode: 17 });
    // It slept for two seconds, and began a little before the engine noted so.
    expect(exit.durationMs).toBeGreaterThan(1_500);
    expect(exit.durationMs).toBeLessThan(5_000);
  });
});

it.skipIf(reason !== '')(
  `a job that its engine takes with it ends with a reason, and is billed for what ran${note}`,
  async () => {
    await withEngine(false, async ({ engine, runtime, request }) => {
      const run = await runtime.start(request('echo first; sleep 600'), never);
      await sleep(1000);
      await engine.kill();
      await engine.start();
      const exit = await run.exit;
      expect(['signalled', 'engine-failed', 'exited']).toContain(exit.reason);
      expect(exit.exitCode).not.toBe(0);
      expect(exit.durationMs).toBeGreaterThanOrEqual(900);
      expect(exit.durationMs).toBeLessThan(60_000);
      expect(exit.detail).not.toBe('');
    });
  },
);

it.skipIf(reason !== '')(`an engine that is stopped is the reason of the ends it makes${note}`, async () => {
  await withEngine(false, async ({ engine, runtime, request }) => {
    const run = await runtime.start(request('echo first; sleep 600'), never);
    const asking = (async () => {
      for await (const { stream } of run.logs) expect(stream).toBe('stdout');
    })();
    await engine.stop();
    await engine.start();
    expect(await run.exit).toMatchObject({ reason: 'engine-failed', exitCode: undefined });
    await asking;
  });
});

it.skipIf(reason !== '')(
  `a job whose engine is killed while it starts fails with a reason and leaves nothing${note}`,
  async () => {
    await withEngine(false, async ({ engine, runtime, request }) => {
      const asked = request('sleep 600', { secrets: { key: Buffer.from('x') } });
      const starting = runtime.start(asked, never);
      const outcome = starting.then(
        (run) => run.exit.then((exit) => exit.reason),
        (error: unknown) => (error as { code?: string }).code,
      );
      // In the middle of it: there is something of the job.
      await expect.poll(() => runtime.list(), { interval: 5 }).toContain(asked.attemptId);
      await engine.kill();
      // Before the engine is back: a start that only was slow would go on with it.
      await starting.catch(() => undefined);
      await engine.start();
      expect(['runtime/engine-failed', 'signalled', 'engine-failed', 'exited']).toContain(await outcome);
      expect(await (await runtime.start(request('exit 3'), never)).exit).toMatchObject({
        reason: 'exited',
        exitCode: 3,
      });
    });
  },
);
