/**
 * Room for frames that is used again: a block is here for the few milliseconds until it is on disk, and a new array for
 * each would cost more to collect than the block to receive.
 */

/** Smaller ones are not worth keeping. */
const KEPT_BYTES_MIN = 64 * 1024;

export class Frames {
  readonly #frameBytes: number;
  readonly #free: ArrayBufferLike[] = [];

  /** Frames of at most `frameBytes`. */
  constructor(frameBytes: number) {
    this.#frameBytes = frameBytes;
  }

  /** At least `length` bytes with anything in them. Never given out twice before `giveBack`. */
  readonly take = (length: number): Uint8Array => {
    if (length < KEPT_BYTES_MIN) return new Uint8Array(length);
    return new Uint8Array(this.#free.pop() ?? new ArrayBuffer(this.#frameBytes));
  };

  /** Any view of a frame that nobody will look at again. */
  giveBack({ buffer }: Uint8Array): void {
    if (buffer.byteLength === this.#frameBytes) this.#free.push(buffer);
  }
}
