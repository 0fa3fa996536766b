/**
 * Everything nondeterministic, as ports: time, chance, logging.
 *
 * Every function of Molt that needs one of them takes an `Env` first. The system implementations below are the only
 * place where the real clock, timers and random bytes are used (held by the linter), so a simulation or a test replaces
 * one object and the rest of the program cannot tell.
 */
import { randomBytes } from 'node:crypto';

/** Wall clock and timers. Times are Unix milliseconds. */
export interface Clock {
  /** Unix time in ms. Never used to measure durations of money: those come from the chain or from `monotonic`. */
  now(): number;
  /** Milliseconds from an arbitrary origin; never goes backwards. */
  monotonic(): number;
  /** Resolves after `ms`; rejects with the signal's reason when `signal` aborts first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Calls `task` every `ms` until disposed. A call that is still running is never overlapped; `task` must not throw. */
  every(ms: number, task: () => void | Promise<void>): Disposable;
}

/** Random bytes. `split` gives an independent stream per label, so that one consumer cannot shift another's sequence. */
export interface Random {
  bytes(length: number): Uint8Array;
  split(label: string): Random;
}

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';
export type LogFields = Readonly<Record<string, unknown>>;

/** Structured log. `text` is a lower-case constant, data goes into fields, secrets go nowhere. */
export interface Logger {
  log(level: LogLevel, text: string, fields?: LogFields): void;
  child(fields: LogFields): Logger;
}

export interface Env {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

/** Drops everything: the default of the SDK. */
export const silentLogger: Logger = { log: () => undefined, child: () => silentLogger };

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const onAbort = (): void => {
        clearTimeout(timer);
        reject(signal?.reason as Error);
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      }, ms);
      signal?.addEventListener('abort', onAbort, { once: true });
    }),
  every: (ms, task) => {
    let running = false;
    const timer = setInterval(() => {
      if (running) return;
      running = true;
      void Promise.resolve(task()).finally(() => {
        running = false;
      });
    }, ms);
    timer.unref();
    return { [Symbol.dispose]: () => clearInterval(timer) };
  },
};

/** Operating-system randomness; `split` is the same source, for it needs no separation. */
export const systemRandom: Random = {
  bytes: (length) => new Uint8Array(randomBytes(length)),
  split: () => systemRandom,
};

/** The real clock and randomness with the given logger. */
export function systemEnv(logger: Logger = silentLogger): Env {
  return { clock: systemClock, random: systemRandom, logger };
}

/** Uniform integer in [0, bound), 0 < bound ≤ 2^48, by rejection so that no value is favoured. */
export function randomInt(random: Random, bound: number): number {
  const limit = 2 ** 48 - (2 ** 48 % bound);
  for (;;) {
    const bytes = random.bytes(6);
    let value = 0;
    for (const byte of bytes) value = value * 256 + byte;
    if (value < limit) return value % bound;
  }
}
