/**
 * The program that waits in a pooled container (entry.c), and how it is told what to be.
 *
 * It lies in a volume of the node's own, which every pooled container mounts read-only. The node sends one message over
 * the attached stdin; the program answers with a mark on stderr and becomes the job.
 */
import { ENTRY_CODE } from './entry-code.ts';
import type { Frame } from './frames.ts';
import { executable } from './idle-image.ts';
import type { EngineArchitecture } from './seccomp.ts';

export const ENTRY_DIRECTORY = '/.molt';
export const ENTRY_NAME = 'entry';

const MAGIC = 0x31746c6d;
const MARK = Buffer.from([1, 0x6d, 0x6f, 0x6c, 0x74, 6, 0x0a]);

export function entryProgram(architecture: EngineArchitecture): Buffer {
  return executable(architecture, Buffer.from(ENTRY_CODE[architecture], 'base64'));
}

/** The message: what to run with which variables. Its texts have no NUL (request.ts sees to that). */
export function entryMessage(command: readonly string[], environment: Readonly<Record<string, string>>): Buffer {
  const variables = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  const text = Buffer.from([...command, ...variables].map((each) => `${each}\0`).join(''));
  const head = Buffer.alloc(16);
  [MAGIC, text.length, command.length, variables.length].forEach((word, index) => head.writeUInt32LE(word, index * 4));
  return Buffer.concat([head, text]);
}

/**
 * Reads until the mark that opens stderr, and gives what follows; output that overtook the mark is kept. `seen` is false
 * when the output ended without it: then the job did not begin.
 */
export async function afterMark(
  frames: AsyncGenerator<Frame, void, undefined>,
): Promise<{ readonly seen: boolean; readonly frames: AsyncIterable<Frame> }> {
  const early: Frame[] = [];
  let errors: Buffer = Buffer.alloc(0);
  for (;;) {
    const { done, value } = await frames.next();
    if (done === true) return { seen: false, frames: following(early, frames) };
    if (value.stream === 'stdout') {
      early.push({ stream: 'stdout', bytes: Buffer.from(value.bytes) });
      continue;
    }
    errors = Buffer.concat([errors, value.bytes]);
    if (errors.length < MARK.length) continue;
    const seen = errors.subarray(0, MARK.length).equals(MARK);
    const rest = seen ? errors.subarray(MARK.length) : errors;
    if (rest.length > 0) early.push({ stream: 'stderr', bytes: rest });
    return { seen, frames: following(early, frames) };
  }
}

async function* following(
  early: readonly Frame[],
  frames: AsyncGenerator<Frame, void, undefined>,
): AsyncGenerator<Frame, void, undefined> {
  yield* early;
  yield* frames;
}
