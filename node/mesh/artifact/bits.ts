/** A growing row of bits, least significant first, as `ArtifactRequest.have` carries it. */
export class Bits {
  #bytes = new Uint8Array(64);
  #length = 0;
  /** Bytes up to the last set bit. */
  #used = 0;

  push(bit: boolean): void {
    const index = this.#length++;
    if (!bit) return;
    const at = index >> 3;
    if (at >= this.#bytes.length) {
      const grown = new Uint8Array(Math.max(2 * this.#bytes.length, at + 1));
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    this.#bytes[at] = (this.#bytes[at] ?? 0) | (1 << (index & 7));
    this.#used = at + 1;
  }

  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#used);
  }
}

/** Whether bit `index` is set; beyond the end none is. */
export function hasBit(bytes: Uint8Array, index: number): boolean {
  return (((bytes[index >> 3] ?? 0) >> (index & 7)) & 1) === 1;
}
