/**
 * Goal: what a job held is removed soon after that can be done, whatever failed before; a node that stops lets go of the
 * engine only when what it was removing is gone, and waits for no engine for ever. Method: a runtime whose removal ends
 * when and as the test says so.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { Execution, type ExecutionOptions } from '../../../node/provider/execution.ts';
import type { Job } from '../../../node/provider/job.ts';
import { type Env, systemEnv } from '../../../protocol/env.ts';
import { MoltError } from '../../../protocol/errors.ts';
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
function openExecution(env: Env, remove: () => Promise<void>): Execution {
  const runtime = {
    remove: async () => {
      await remove();
      happened.push('removed');
    },
    list: async () => ['lease-1'],
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
  const execution = openExecution(systemEnv(), () => promise);
  const leaving = execution.cleanUp(job);
  const closing = execution[Symbol.asyncDispose]();
  setImmediate(resolve);
  await Promise.all([leaving, closing]);
  expect(happened).toEqual(['removed', 'engine let go']);
});

test('an engine that never ends a removal does not keep the node from stopping', async () => {
  const env = systemEnv();
  const clock = { ...env.clock, sleep: async () => undefined };
  const execution = openExecution({ ...env, clock }, () => new Promise(() => undefined));
  void execution.cleanUp(job);
  await execution[Symbol.asyncDispose]();
  expect(happened).toEqual(['engine let go']);
});

test.each([
  ['an engine that is away', new MoltError('runtime/engine-failed', 'connect ENOENT docker.sock')],
  ['a tool that failed', new Error('losetup: /dev/loop7: detach failed')],
])('a removal that %s kept from ending is tried again every few seconds, until nothing is left', async (_, fault) => {
  const env = systemEnv();
  const pauses: number[] = [];
  const clock = { ...env.clock, sleep: async (ms: number) => void pauses.push(ms) };
  const told: unknown[] = [];
  const logger = { ...env.logger, log: (_level: string, _text: string, fields: unknown) => void told.push(fields) };
  let triesLeft = 20;
  const execution = openExecution({ ...env, clock, logger }, async () => {
    if (triesLeft-- > 0) throw fault;
  });
  const folder = join(directory, 'jobs', 'lease-1');
  mkdirSync(folder, { recursive: true });
  await execution.cleanUp(job);
  expect(happened).toEqual(['removed']);
  expect(existsSync(folder)).toBe(false);
  expect(pauses).toHaveLength(20);
  expect(Math.max(...pauses)).toBeLessThanOrEqual(5_000);
  // One line, and not one for each time.
  expect(told).toEqual([{ reason: fault.message, attempt: 'lease-1' }]);
});

test('a node sells though something of an earlier job cannot be removed yet, and removes it when it can', async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const env = systemEnv();
  const clock = { ...env.clock, sleep: () => promise };
  let tries = 0;
  const execution = openExecution({ ...env, clock }, async () => {
    if (tries++ < 2) throw new MoltError('runtime/engine-failed', 'volume is in use');
  });
  await execution.reconcile([]);
  expect(happened).toEqual([]);
  resolve();
  await expect.poll(() => happened).toEqual(['removed']);
});
