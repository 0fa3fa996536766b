/**
 * Goal: the owner's own check decides, and whatever is wrong with it means no. Method: real programs, one for each way to
 * answer or not to.
 */
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import type { NodeEvent } from '../../../node/events.ts';
import { type Approve, createApproval } from '../../../node/provider/approval.ts';
import { systemEnv } from '../../../protocol/env.ts';

let directory = '';
const told: NodeEvent[] = [];

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'molt-approval-'));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

async function check(script: string, timeoutMs = 10_000): Promise<Approve> {
  const path = join(directory, `check-${Math.random().toString(16).slice(2)}`);
  await writeFile(path, `#!/bin/sh\n${script}\n`);
  await chmod(path, 0o755);
  return approval([path], timeoutMs);
}

function approval(command: readonly string[], timeoutMs = 10_000): Approve {
  told.length = 0;
  return createApproval(systemEnv(), {
    command,
    timeoutMs,
    path: '/usr/bin:/bin',
    tell: (event) => told.push(event),
  });
}

const QUESTION = { type: 'bid', buyer: '$(touch pwned); `id`' } as const;

test('without a program everything is approved', async () => {
  expect(await approval([])(QUESTION)).toBeUndefined();
});

test.each([
  ['says nothing and ends with 0', 'exit 0'],
  ['says that it approves', `echo '{"approve": true}'`],
  ['does not read the question', 'exec <&-; exit 0'],
])('a program that %s approves', async (_what, script) => {
  expect(await (await check(script))(QUESTION)).toBeUndefined();
  expect(told).toEqual([]);
});

test.each([
  ['ends with 1', 'exit 1', "the provider's own check declined"],
  [
    'ends with 1 and a reason',
    `echo '{"approve": false, "reason": "not on sundays"}'; exit 1`,
    "the provider's own check declined: not on sundays",
  ],
  ['ends with 1 though it says yes', `echo '{"approve": true}'; exit 1`, "the provider's own check declined"],
  [
    'ends with 0 and no',
    `echo '{"approve": false, "reason": "no\\u001b[2J"}'`,
    "the provider's own check declined: no [2J",
  ],
])('a program that %s declines', async (_what, script, message) => {
  expect(await (await check(script))(QUESTION)).toMatchObject({ code: 'market/not-approved', message });
  expect(told).toEqual([]);
});

const NOT_MADE = "the provider's own check could not be made; try again, or another provider";

test.each([
  ['says something else', 'echo yes', 'said something that is no JSON object with "approve"'],
  ['says a list', 'echo "[true]"', 'said something that is no JSON object with "approve"'],
  ['is killed', 'kill -9 $$', 'failed'],
  ['says more than it may', 'head -c 100000 /dev/zero', 'failed'],
])('a program that %s declines, and the owner hears why', async (_what, script, why) => {
  expect(await (await check(script))(QUESTION)).toMatchObject({ code: 'market/not-approved', message: NOT_MADE });
  expect(told).toEqual([expect.objectContaining({ type: 'trouble', reason: expect.stringContaining(why) })]);
});

test('a program that is not there declines', async () => {
  expect(await approval([join(directory, 'nowhere')])(QUESTION)).toMatchObject({ message: NOT_MADE });
  expect(told).toHaveLength(1);
});

test('a program that does not answer in time is ended and declines', async () => {
  const marker = join(directory, 'lived');
  const approve = await check(`sleep 2; touch ${marker}`, 100);
  expect(await approve(QUESTION)).toMatchObject({ code: 'market/not-approved', message: NOT_MADE });
  expect(told).toEqual([expect.objectContaining({ reason: expect.stringContaining('did not answer in 100 ms') })]);
});

test('no more than four run at once, and the fifth is declined at once', async () => {
  const gate = join(directory, 'gate');
  const approve = await check(`while [ ! -e ${gate} ]; do sleep 0.05; done`);
  const asked = Array.from({ length: 4 }, () => approve(QUESTION));
  expect(await approve(QUESTION)).toMatchObject({
    message: "the provider's own check is busy; try again, or another provider",
  });
  await writeFile(gate, '');
  expect(await Promise.all(asked)).toEqual([undefined, undefined, undefined, undefined]);
  expect(await approve(QUESTION)).toBeUndefined();
});

test('the question is one JSON object on standard input, no shell sees it, and the environment is not the node’s', async () => {
  process.env['MOLT_SECRET_OF_THE_NODE'] = 'x';
  const heard = join(directory, 'heard');
  const approve = await check(`cat > ${heard}; env >> ${heard}`);
  expect(await approve(QUESTION)).toBeUndefined();
  const [question, ...environment] = (await readFile(heard, 'utf8')).split('\n');
  expect(JSON.parse(question ?? '')).toEqual(QUESTION);
  expect(environment.join(' ')).not.toContain('MOLT_SECRET');
});
