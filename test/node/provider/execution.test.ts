/**
 * Goal: a node that stops lets go of the engine only when what it was removing is gone, and waits for no engine for ever.
 * Method: a runtime whose removal ends when the test says so.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { Execution, type ExecutionOptions } from '../../../node/provider/execution.ts';
import type { Job } from '../../../node/provider/job.ts';
import { type Env, systemEnv } from '../../../protocol/env.ts';
import { encodeJobSpec, parseJobSpec } from '../../../protocol/job-spec.ts';

const IMAGE = `molt/x@sha256:${'0'.repeat(64)}`;
const spec = Buffer.from(encodeJobSpec(parseJobSpec({ runtime: 'container', image: IMAGE }))).toString('base64');
const job = { attempt: 1, spec, agreement: { lease: 'lease', runtime: 'container' } } as unknown as Job;

let directory: string;
let happened: string[];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'molt-execution-'));
  happened = [];
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** What removing a job needs of a node, and nothing else. */
function openExecution(env: Env, removal: Promise<void>): Execution {
  const runtime = {
    remove: async () => {
      await removal;
      happened.push('removed');
    },
    close: async () => void happened.push('engine let go'),
  };
  const options = {
    directory,
    runtimes: new Map([['container', runtime]]),
    content: { release: async () => undefined },
  };
  return new Execution(env, options as unknown as ExecutionOptions);
}

test('what is being removed when the node stops is gone before the engine is let go', async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const execution = openExecution(systemEnv(), promise);
  const leaving = execution.cleanUp(job);
  const closing = execution[Symbol.asyncDispose]();
  setImmediate(resolve);
  await Promise.all([leaving, closing]);
  expect(happened).toEqual(['removed', 'engine let go']);
});

test('an engine that never ends a removal does not keep the node from stopping', async () => {
  const env = systemEnv();
  const clock = { ...env.clock, sleep: async () => undefined };
  const execution = openExecution({ ...env, clock }, new Promise(() => undefined));
  void execution.cleanUp(job);
  await execution[Symbol.asyncDispose]();
  expect(happened).toEqual(['engine let go']);
});
