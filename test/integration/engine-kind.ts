/**
 * What is asked of every kind of engine, each in a file of its own so that they are tried side by side: the runtime's
 * contract, the hostile jobs, and what the kind says of itself. One private engine serves a whole file.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, it } from 'vitest';
import type { ContainerOptions } from '../../node/runtime/index.ts';
import { openContainerRuntime } from '../contract/container.ts';
import { describeHostile, type HostileOptions, openHostileGround } from '../contract/hostile.ts';
import { describeRuntime } from '../contract/runtime.ts';
import {
  openPrivateEngine,
  type PrivateEngine,
  type PrivateEngineKind,
  whyNoPrivateEngine,
} from '../fixtures/private-engine.ts';

export interface EngineUnderTest {
  readonly kind: PrivateEngineKind;
  readonly name: string;
  /** Absent: only `says` is tried. */
  readonly hostile?: HostileOptions;
  readonly sandbox?: NonNullable<ContainerOptions['sandbox']>;
  /** What the kind says of itself; `directory` is for a runtime's files. */
  readonly says: string;
  readonly check: (socketPath: string, directory: string) => Promise<void>;
}

export function describeEngine({ kind, name, hostile, sandbox, says, check }: EngineUnderTest): void {
  const skipReason = whyNoPrivateEngine(kind);
  const skipped = skipReason === '' ? '' : ` (skipped: ${skipReason})`;
  let engine: PrivateEngine;
  if (skipReason === '') {
    beforeAll(async () => {
      engine = await openPrivateEngine({ kind });
    });
    afterAll(async () => {
      await engine?.[Symbol.asyncDispose]();
    });
  }
  if (hostile !== undefined) {
    const options = sandbox === undefined ? {} : { sandbox };
    const open = () => openContainerRuntime({ socketPath: engine.socketPath, ...options });
    describeRuntime(`container (${name})`, open, skipReason);
    describeHostile(name, () => openHostileGround(engine.socketPath), { ...hostile, skipReason });
  }
  describe.skipIf(skipReason !== '')(`${name}, asked what it is${skipped}`, () => {
    it(says, async () => {
      const directory = mkdtempSync(join(tmpdir(), 'molt-kind-'));
      await check(engine.socketPath, directory);
      rmSync(directory, { recursive: true, force: true });
    });
  });
}
