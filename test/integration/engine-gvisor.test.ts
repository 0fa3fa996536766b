/** gVisor as the sandbox of every job: held to the runtime's contract and to the hostile jobs, and offered as a sandbox. */
import { rmSync } from 'node:fs';
import { expect } from 'vitest';
import { ContainerRuntime } from '../../node/runtime/index.ts';
import { systemEnv } from '../../protocol/env.ts';
import { makeDirectories, readLogs, requestOf } from '../contract/runtime.ts';
import { openBusyboxRegistry } from '../fixtures/engine.ts';
import { describeEngine } from './engine-kind.ts';

const never = new AbortController().signal;

describeEngine({
  kind: 'gvisor',
  name: 'gVisor',
  sandbox: 'always',
  hostile: { own: true, mute: true, manyFiles: true },
  says: 'a sandbox that works is offered, and its jobs run on its kernel',
  check: async (socketPath, directory) => {
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
});
