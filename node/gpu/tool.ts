/**
 * Asking a vendor's tool: bounded in time and size, never a shell, never more than one stuck process per tool.
 *
 * A driver that hangs leaves its tool unkillable in the kernel, so the answer does not wait for the process to be gone,
 * and a tool that is stuck is not asked again until it is.
 */
import { execFile } from 'node:child_process';

import { Deadline } from '../../protocol/deadline.ts';
import type { Env } from '../../protocol/env.ts';

/** `reason` is for people. `absent`: there is no such program on this machine, which is no fault. */
export type ToolAnswer =
  | { readonly text: string }
  | { readonly failed: 'absent' | 'timed-out' | 'failed'; readonly reason: string };

/** Runs a program of the machine with fixed arguments. Never rejects. */
export type Tool = (program: string, args: readonly string[]) => Promise<ToolAnswer>;

const ANSWER_MS_MAX = 5_000;
const ANSWER_BYTES_MAX = 8 << 20;

/** `path` is the search path for programs, as in the environment variable. */
export function createTool(env: Env, path: string): Tool {
  const stuck = new Set<string>();
  return async (program, args) => {
    if (stuck.has(program)) {
      return { failed: 'timed-out', reason: `${program} still hangs; the driver does not answer, restart the machine` };
    }
    stuck.add(program);
    const { promise, resolve } = Promise.withResolvers<ToolAnswer>();
    using deadline = new Deadline(env.clock, ANSWER_MS_MAX);
    const child = execFile(
      program,
      args,
      { encoding: 'utf8', maxBuffer: ANSWER_BYTES_MAX, env: { LC_ALL: 'C', PATH: path }, windowsHide: true },
      (error, stdout, stderr) => {
        stuck.delete(program);
        if (error === null) resolve({ text: stdout });
        else if (error.code === 'ENOENT') resolve({ failed: 'absent', reason: `there is no ${program} here` });
        else
          resolve({ failed: 'failed', reason: `${program} failed: ${oneLine(`${stderr} ${stdout}`, error.message)}` });
      },
    );
    child.unref();
    deadline.signal.addEventListener(
      'abort',
      () => {
        child.kill('SIGKILL');
        const reason = `${program} did not answer in ${ANSWER_MS_MAX / 1_000} s; the driver may hang`;
        resolve({ failed: 'timed-out', reason });
      },
      { once: true },
    );
    // Awaited here, so that the deadline lives as long as the question.
    return await promise;
  };
}

/** The first thing that was said, short. */
function oneLine(said: string, otherwise: string): string {
  const text = said
    .replaceAll(/\P{L}*\n\P{L}*/gu, '; ')
    .replaceAll(/\p{Cc}+/gu, ' ')
    .trim();
  return (text === '' ? otherwise : text).slice(0, 200);
}
