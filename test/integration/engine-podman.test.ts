/** Podman instead of Docker: held to the runtime's contract and to the hostile jobs, and told from Docker. */
import { expect } from 'vitest';
import { ContainerRuntime } from '../../node/runtime/index.ts';
import { systemEnv } from '../../protocol/env.ts';
import { describeEngine } from './engine-kind.ts';

describeEngine({
  kind: 'podman',
  name: 'Podman',
  hostile: { mute: true, watched: true, manyFiles: true },
  says: 'Podman is told from Docker, and what it does not do is said',
  check: async (socketPath, directory) => {
    const runtime = new ContainerRuntime(systemEnv(), { directory, socketPath });
    const capability = await runtime.probe(new AbortController().signal);
    expect(capability).toMatchObject({ available: true, details: { engine: 'podman', diskQuota: false } });
    // It lists runtimes that are not there, and ones that do not work with it.
    expect(capability.features).not.toContain('sandbox');
    expect(capability.gaps.join()).toContain('disk is watched');
  },
});
