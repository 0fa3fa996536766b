/** Goal: a node under pressure sheds gossip first, and one long pause alone is none. Method: clocks turned by hand. */
import { describe, expect, it } from 'vitest';

import { Gate } from '../../../node/mesh/gater.ts';
import { Pressure } from '../../../node/mesh/pressure.ts';
import { type Clock, systemClock } from '../../../protocol/env.ts';

/** A clock whose ticks come when the test says, each so late. */
function lateClock(): { clock: Clock; tick: (lateMs: number) => void } {
  let nowMs = 0;
  let task: () => void = () => undefined;
  return {
    clock: {
      ...systemClock,
      monotonic: () => nowMs,
      every: (ms, work) => {
        task = () => {
          nowMs += ms;
          void work();
        };
        return { [Symbol.dispose]: () => undefined };
      },
    },
    tick: (lateMs) => {
      nowMs += lateMs;
      task();
    },
  };
}

describe('pressure', () => {
  it('is high while the event loop is late again and again, and over five seconds later', () => {
    const { clock, tick } = lateClock();
    using pressure = new Pressure(clock, { pressureMs: 200 });
    for (let index = 0; index < 50; index++) tick(0);
    expect(pressure.isHigh).toBe(false);
    tick(900);
    expect(pressure.isHigh).toBe(false);
    tick(300);
    expect(pressure.isHigh).toBe(true);
    for (let index = 0; index < 101; index++) tick(0);
    expect(pressure.isHigh).toBe(false);
  });

  it('makes every accepted connection cost four', () => {
    const limits = {
      acceptsPerSecond: 20,
      acceptsPerSecondPerRange: 4,
      acceptsPerSecondPerLocalRange: 40,
      connectionsPerRange: 8,
      connectionsPerLocalRange: 8,
      banMs: 1_000,
    };
    const count = (isHigh: boolean): number => {
      const gate = new Gate({ ...systemClock, monotonic: () => 0 }, limits, { isHigh });
      return Array.from({ length: 40 }, () => gate.accepts('203.0.113.7')).filter(Boolean).length;
    };
    expect([count(false), count(true)]).toEqual([12, 3]);
  });
});
