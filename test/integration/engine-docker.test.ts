/** A Docker without any sandbox; the machine's own Docker is held to the contract in the unit tests. */
import { rmSync } from 'node:fs';
import { expect } from 'vitest';
import { ContainerRuntime } from '../../node/runtime/index.ts';
import { systemEnv } from '../../protocol/env.ts';
import { makeDirectories, requestOf } from '../contract/runtime.ts';
import { openBusyboxRegistry } from '../fixtures/engine.ts';
import { describeEngine } from './engine-kind.ts';

const never = new AbortController().signal;

describeEngine({
  kind: 'docker',
  name: 'Docker',
  says: 'a sandbox that is not there is neither offered nor replaced by less',
  check: async (socketPath, directory) => {
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
});
