/** The container runtime on some engine, as the contract suite of runtimes wants it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ContainerOptions, ContainerRuntime } from '../../node/runtime/index.ts';
import { systemEnv } from '../../protocol/env.ts';
import { openBusyboxRegistry } from '../fixtures/engine.ts';
import type { RuntimeUnderTest } from './runtime.ts';

const run = (script: string): readonly string[] => ['/bin/sh', '-c', script];

/** `end` is called after the runtime and its registry are closed. */
export async function openContainerRuntime(
  options: Pick<ContainerOptions, 'socketPath' | 'sandbox'>,
  end: () => Promise<void> = async () => undefined,
): Promise<RuntimeUnderTest> {
  const registry = await openBusyboxRegistry();
  const directory = mkdtempSync(join(tmpdir(), 'molt-container-'));
  const runtime = new ContainerRuntime(systemEnv(), { directory, ...options });
  return {
    runtime,
    image: { kind: 'image', reference: registry.reference },
    missingImage: { kind: 'image', reference: `${registry.host}/molt/absent@sha256:${'0'.repeat(64)}` },
    programs: {
      hello: run('echo hello; echo oops >&2'),
      fail: run('exit 7'),
      copy: run('mkdir /out/nested && cp /in/data /out/nested/copy'),
      'write-input': run('if echo changed > /in/data; then exit 1; fi 2>/dev/null'),
      environment: run('echo $GREETING; env'),
      spin: run('echo ready; while true; do true; done'),
      flood: run('seq 100000'),
      fill: run('dd if=/dev/zero of=/out/big bs=65536 count=245'),
      secret: run('cat /secrets/key'),
    },
    close: async () => {
      await runtime.close();
      await registry[Symbol.asyncDispose]();
      await end();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
