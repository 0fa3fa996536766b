/**
 * The engine's multiplexed output: frames of stream (one byte, 1 or 2), three zero bytes, length (u32 big-endian), bytes.
 *
 * A generator, so that a slow reader slows the container down instead of filling memory; a frame is passed on in parts as
 * they arrive, so its length bounds nothing here.
 */
import type { LogStream } from '../runtime.ts';

const HEADER_BYTES = 8;

export interface Frame {
  readonly stream: LogStream;
  readonly bytes: Uint8Array;
}

export async function* readFrames(
  source: AsyncIterable<Buffer> | readonly Buffer[],
): AsyncGenerator<Frame, void, undefined> {
  let header: Buffer = Buffer.alloc(0);
  let stream: LogStream = 'stdout';
  let left = 0;
  for await (const chunk of source) {
    let rest = chunk;
    while (rest.length > 0) {
      if (left === 0) {
        const missing = HEADER_BYTES - header.length;
        header = Buffer.concat([header, rest.subarray(0, missing)]);
        rest = rest.subarray(missing);
        if (header.length < HEADER_BYTES) continue;
        stream = header[0] === 2 ? 'stderr' : 'stdout';
        left = header.readUInt32BE(4);
        header = Buffer.alloc(0);
        continue;
      }
      const part = rest.subarray(0, left);
      left -= part.length;
      rest = rest.subarray(part.length);
      yield { stream, bytes: part };
    }
  }
}
