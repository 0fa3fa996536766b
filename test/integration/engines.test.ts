/**
 * Engines of other kinds than the machine's, opened for the test where they are installed: each is held to the runtime's
 * contract and to the hostile jobs, and says of itself what it can and what it cannot.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ContainerRuntime } from '../../node/runtime/index.ts';
import { systemEnv } from '../../protocol/env.ts';
import { openContainerRuntime } from '../contract/container.ts';
import { describeHostile, type HostileOptions, openHostileGround } from '../contract/hostile.ts';
import { describeRuntime, makeDirectories, readLogs, requestOf } from '../contract/runtime.ts';
import { openBusyboxRegistry } from '../fixtures/engine.ts';
import { whyNoPrivateEngine, openPrivateEngine, type PrivateEngineKind } from '../fixtures/private-engine.ts';

interface Kind {
  readonly kind: PrivateEngineKind;
  readonly name: string;
  readonly sandbox?: 'always';
  readonly hostile: HostileOptions;
}

const KINDS: readonly Kind[] = [
  { kind: 'user-namespace', name: 'Docker with mapped users', hostile: {} },
  { kind: 'gvisor', name: 'gVisor', sandbox: 'always', hostile: { own: true, mute: true, manyFiles: true } },
  { kind: 'podman', name: 'Podman', hostile: { mute: true, watched: true, manyFiles: true } },
];

for (const { kind, name, sandbox, hostile } of KINDS) {
  const skipReason = whyNoPrivateEngine(kind);
  describeRuntime(
    `container (${name})`,
    async () => {
      const engine = await openPrivateEngine({ kind });
      const options = { socketPath: engine.socketPath, ...(sandbox === undefined ? {} : { sandbox }) };
      return openContainerRuntime(options, async () => engine[Symbol.asyncDispose]());
    },
    skipReason,
  );
  const ground = async (): ReturnType<typeof openHostileGround> => {
    const engine = await openPrivateEngine({ kind });
    return openHostileGround(engine.socketPath, async () => engine[Symbol.asyncDispose]());
  };
  describeHostile(name, ground, { ...hostile, skipReason });
}

const never = new AbortController().signal;

function describeKind(
  kind: PrivateEngineKind,
  title: string,
  test: (socketPath: string, directory: string) => Promise<void>,
): void {
  const reason = whyNoPrivateEngine(kind);
  it.skipIf(reason !== '')(reason === '' ? title : `${title} (skipped: ${reason})`, async () => {
    const directory = mkdtempSync(join(tmpdir(), 'molt-kind-'));
    await using engine = await openPrivateEngine({ kind });
    await test(engine.socketPath, directory);
    rmSync(directory, { recursive: true, force: true });
  });
}

describe('what an engine is', () => {
  describeKind(
    'gvisor',
    'a sandbox that works is offered, and its jobs run on its kernel',
    async (socketPath, directory) => {
      const runtime = new ContainerRuntime(systemEnv(), { directory, socketPath });
      const capability = await runtime.probe(never);
      expect(capability.features).toContain('sandbox');
      expect(capability.details).toMatchObject({ engine: 'docker', sandbox: 'runsc' });
      await using registry = await openBusyboxRegistry();
      const directories = makeDirectories();
      const image = { kind: 'image', reference: registry.reference } as const;
      const command = ['/bin/cat', '/proc/version'];
      const run = await runtime.start(requestOf(image, directories, { command, sandbox: true }), never);
      const sandboxed = (await readLogs(run)).stdout;
      await run.exit;
      const plain = await runtime.start(requestOf(image, directories, { command }), never);
      expect((await readLogs(plain)).stdout).not.toBe(sandboxed);
      expect(sandboxed).toContain(capability.details['sandboxKernel']);
      await plain.exit;
      const wanting = requestOf(image, directories, { command, sandbox: true, services: [80] });
      await expect(runtime.start(wanting, never)).rejects.toMatchObject({ code: 'job/impossible' });
      for (const attemptId of await runtime.list()) await runtime.remove(attemptId);
      rmSync(directories.root, { recursive: true, force: true });
    },
  );

  describeKind(
    'docker',
    'a sandbox that is not there is neither offered nor replaced by less',
    async (socketPath, directory) => {
      await using registry = await openBusyboxRegistry();
      const image = { kind: 'image', reference: registry.reference } as const;
      const directories = makeDirectories();
      const runtime = new ContainerRuntime(systemEnv(), { directory, socketPath });
      expect((await runtime.probe(never)).features).not.toContain('sandbox');
      const wanting = requestOf(image, directories, { command: ['/bin/true'], sandbox: true });
      await expect(runtime.start(wanting, never)).rejects.toMatchObject({ code: 'job/impossible' });
      const strict = new ContainerRuntime(systemEnv(), { directory, socketPath, sandbox: 'always' });
      const capability = await strict.probe(never);
      expect(capability).toMatchObject({ available: false, features: [] });
      expect(capability.reason).toContain('runsc');
      rmSync(directories.root, { recursive: true, force: true });
    },
  );

  describeKind('user-namespace', 'an engine that maps users says so', async (socketPath, directory) => {
    const capability = await new ContainerRuntime(systemEnv(), { directory, socketPath }).probe(never);
    expect(capability.details).toMatchObject({ engine: 'docker', userNamespace: true });
    expect(capability.guarantees.join()).toContain('maps them');
  });

  describeKind(
    'podman',
    'Podman is told from Docker, and what it does not do is said',
    async (socketPath, directory) => {
      const capability = await new ContainerRuntime(systemEnv(), { directory, socketPath }).probe(never);
      expect(capability).toMatchObject({ available: true, details: { engine: 'podman', diskQuota: false } });
      // It lists runtimes that are not there, and ones that do not work with it.
      expect(capability.features).not.toContain('sandbox');
      expect(capability.gaps.join()).toContain('disk is watched');
    },
  );
});
