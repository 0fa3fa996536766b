import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ContainerRuntime } from '../../../node/runtime/index.ts';
import { systemEnv } from '../../../protocol/env.ts';
import { describeHostile } from '../../contract/hostile.ts';
import { findEngine } from '../../fixtures/engine.ts';

const { socketPath = '', reason } = await findEngine();

describeHostile(
  "this machine's engine",
  async () => {
    const directory = mkdtempSync(join(tmpdir(), 'molt-hostile-'));
    const runtime = new ContainerRuntime(systemEnv(), { directory, socketPath });
    return {
      runtime,
      socketPath,
      close: async () => {
        await runtime.close();
        rmSync(directory, { recursive: true, force: true });
      },
    };
  },
  { skipReason: reason },
);
