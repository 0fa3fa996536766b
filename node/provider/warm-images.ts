/**
 * Container images that a new job would find on this machine: those that jobs used since the node started, for as long as
 * it is likely that the engine still has them. A hint for offers and quotes; whoever relies on it waits for a pull at worst.
 */

const IMAGES_MAX = 64;

export class WarmImages {
  readonly #references = new Set<string>();

  /** A job's image is at hand now. One that was pulled with a login is nobody else's business and is not told. */
  use(reference: string, isPrivate: boolean): void {
    this.#references.delete(reference);
    if (isPrivate) return;
    this.#references.add(reference);
    const [oldest] = this.#references;
    if (this.#references.size > IMAGES_MAX && oldest !== undefined) this.#references.delete(oldest);
  }

  /** The most recently used first. */
  list(): readonly string[] {
    return [...this.#references].toReversed();
  }
}
