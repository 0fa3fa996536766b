/** A Docker that maps users: held to the runtime's contract and to the hostile jobs, and known as one that does. */
import { expect } from 'vitest';
import { ContainerRuntime } from '../../node/runtime/index.ts';
import { systemEnv } from '../../protocol/env.ts';
import { describeEngine } from './engine-kind.ts';

describeEngine({
  kind: 'user-namespace',
  name: 'Docker with mapped users',
  hostile: {},
  says: 'an engine that maps users says so',
  check: async (socketPath, directory) => {
    const capability = await new ContainerRuntime(systemEnv(), { directory, socketPath }).probe(
      new AbortController().signal,
    );
    expect(capability.details).toMatchObject({ engine: 'docker', userNamespace: true });
    expect(capability.guarantees.join()).toContain('maps them');
  },
});
