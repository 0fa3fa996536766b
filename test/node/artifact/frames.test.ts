import { describe, expect, it } from 'vitest';

import { Frames } from '../../../node/mesh/artifact/frames.ts';

const FRAME = 256 * 1024;

describe('room for frames', () => {
  it('is used again once it was given back, by any view of it, and by nobody before', () => {
    const frames = new Frames(FRAME);
    const first = frames.take(FRAME);
    const second = frames.take(FRAME - 1);
    expect(second.buffer).not.toBe(first.buffer);
    frames.giveBack(first.subarray(36, 100));
    expect(frames.take(FRAME).buffer).toBe(first.buffer);
    expect(frames.take(FRAME).buffer).not.toBe(first.buffer);
  });

  it('is not kept for small frames', () => {
    const frames = new Frames(FRAME);
    const small = frames.take(1_000);
    expect(small.buffer.byteLength).toBe(1_000);
    frames.giveBack(small);
    expect(frames.take(1_000).buffer).not.toBe(small.buffer);
  });
});
