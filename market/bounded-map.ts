/** A map that never grows past its bound: the entry that was used longest ago makes room. */

export interface BoundedMap<Key, Value> {
  readonly size: number;
  /** Reading counts as use. */
  get(key: Key): Value | undefined;
  /** Sets and returns the value that had to leave, if any. */
  set(key: Key, value: Value): Value | undefined;
}

/** `entriesMax` ≥ 1. */
export function createBoundedMap<Key, Value>(entriesMax: number): BoundedMap<Key, Value> {
  // A Map iterates in insertion order, so re-inserting on use keeps the oldest entry first.
  const entries = new Map<Key, Value>();
  return {
    get size() {
      return entries.size;
    },
    get(key) {
      const value = entries.get(key);
      if (value !== undefined) {
        entries.delete(key);
        entries.set(key, value);
      }
      return value;
    },
    set(key, value) {
      entries.delete(key);
      entries.set(key, value);
      if (entries.size <= entriesMax) return undefined;
      const oldest = entries.entries().next();
      if (oldest.done) return undefined;
      entries.delete(oldest.value[0]);
      return oldest.value[1];
    },
  };
}
