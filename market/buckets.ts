/**
 * Token buckets, one per key: how many messages somebody may send in a burst and in the long run.
 *
 * Looking and taking are apart, because a message that merely claims an origin must not empty that origin's bucket: it is
 * looked at before the signature is verified and taken from after.
 */
import { createBoundedMap } from './bounded-map.ts';

export interface Rate {
  /** Tokens that flow back each second. */
  readonly perSecond: number;
  /** Tokens of a full bucket; what a new key starts with. */
  readonly burst: number;
}

export interface Buckets {
  /** True when a token is there. Takes nothing. */
  has(key: string, nowMs: number): boolean;
  /** Takes a token; false when there is none. */
  take(key: string, nowMs: number): boolean;
}

interface Bucket {
  readonly tokens: number;
  readonly atMs: number;
}

/** Keeps at most `keysMax` keys; the one unused longest is forgotten, which fills its bucket again. */
export function createBuckets(rate: Rate, keysMax: number): Buckets {
  const buckets = createBoundedMap<string, Bucket>(keysMax);

  const tokensAt = (key: string, nowMs: number): number => {
    const bucket = buckets.get(key);
    if (bucket === undefined) return rate.burst;
    const elapsedMs = nowMs - bucket.atMs;
    if (elapsedMs < 0) {
      // The clock was set back: counting goes on from here, or the bucket would stay as it is until the old time.
      buckets.set(key, { tokens: bucket.tokens, atMs: nowMs });
      return bucket.tokens;
    }
    return Math.min(rate.burst, bucket.tokens + (elapsedMs * rate.perSecond) / 1000);
  };

  return {
    has: (key, nowMs) => tokensAt(key, nowMs) >= 1,
    take(key, nowMs) {
      const tokens = tokensAt(key, nowMs);
      const taken = tokens >= 1;
      buckets.set(key, { tokens: taken ? tokens - 1 : tokens, atMs: nowMs });
      return taken;
    },
  };
}
