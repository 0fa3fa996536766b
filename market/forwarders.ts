/**
 * What peers may bring of strangers: signers that nobody vouches for. Pure; the clock is an argument.
 *
 * Identities are free, so the bucket of an origin bounds nobody who invents origins. An origin whose stake was looked up
 * is bounded by that stake and its own bucket, and costs its forwarder nothing: so a neighbour may pass on a market of any
 * size. For strangers, and for what the origin's own bucket or sequence refuses, the forwarder pays.
 *
 * Nobody is blamed for being forwarded through. A node takes, and so passes on, no more strangers than `inAll` from all its
 * neighbours together, and a forwarder may bring twice that. Of what it brings beyond, strangers are looked up where they can
 * be: a node that knows less than its neighbour finds most of them genuine, and a flood none.
 */
import type { Address } from '../protocol/address.ts';
import { assert } from '../protocol/errors.ts';
import { createBoundedMap } from './bounded-map.ts';
import { type Rate, createBuckets } from './buckets.ts';

export interface StrangerLimits {
  /** Messages of strangers from one forwarder that are taken unseen. */
  readonly perForwarder: Rate;
  /** The same from all forwarders together. */
  readonly inAll: Rate;
  /** Beyond `perForwarder`, where strangers cannot be looked up: who brings more than this floods. Absent: they can. */
  readonly blameless?: Rate;
}

/** `crowded`: all forwarders together bring too many. `excess`: this one does. */
export type Passage = 'taken' | 'crowded' | 'excess';

export interface Forwarders {
  /** Counts a message of a stranger. */
  take(from: Address, nowMs: number): Passage;
  /** Counts a message that is refused anyway; true when this forwarder brings too many. */
  charge(from: Address, nowMs: number): boolean;
  /** What was found about a message in excess that could be looked up. */
  judge(from: Address, isGenuine: boolean, nowMs: number): void;
  /**
   * Asked for each message in excess: true when its forwarder floods. Where strangers can be looked up, that is when most of
   * its excess of late was invented or said before; elsewhere, when there is more of it than an honest peer takes in.
   */
  isFlood(from: Address, nowMs: number): boolean;
}

/** So many bad messages in excess, and more than twice as many as good ones, are a flood. */
const BAD_MIN = 64;
const BAD_PER_GOOD = 2;
/** A forwarder is judged by what it did of late. */
const JUDGED_MS = 60_000;

interface Tally {
  readonly sinceMs: number;
  readonly good: number;
  readonly bad: number;
}

/** Keeps at most `forwardersMax` forwarders; the one unused longest is forgotten. */
export function createForwarders(limits: StrangerLimits, forwardersMax: number): Forwarders {
  const { perForwarder, inAll, blameless } = limits;
  const tolerated = blameless ?? perForwarder;
  assert(tolerated.perSecond >= 2 * inAll.perSecond, 'who passes on all that it may take is not blamed by half');
  assert(tolerated.burst >= 2 * inAll.burst, 'nor is who does so at once');
  const each = createBuckets(perForwarder, forwardersMax);
  const all = createBuckets(inAll, 1);
  const floods = blameless === undefined ? undefined : createBuckets(blameless, forwardersMax);
  const tallies = createBoundedMap<Address, Tally>(forwardersMax);
  const tallyOf = (from: Address, nowMs: number): Tally => {
    const known = tallies.get(from);
    const isOld = known === undefined || Math.abs(nowMs - known.sinceMs) > JUDGED_MS;
    return isOld ? { sinceMs: nowMs, good: 0, bad: 0 } : known;
  };
  return {
    take(from, nowMs) {
      if (!each.take(from, nowMs)) return 'excess';
      return all.take('all', nowMs) ? 'taken' : 'crowded';
    },
    charge: (from, nowMs) => !each.take(from, nowMs),
    judge(from, isGenuine, nowMs) {
      const { sinceMs, good, bad } = tallyOf(from, nowMs);
      tallies.set(from, { sinceMs, good: good + (isGenuine ? 1 : 0), bad: bad + (isGenuine ? 0 : 1) });
    },
    isFlood(from, nowMs) {
      if (floods !== undefined) return !floods.take(from, nowMs);
      const { good, bad } = tallyOf(from, nowMs);
      return bad >= BAD_MIN && bad > BAD_PER_GOOD * good;
    },
  };
}
