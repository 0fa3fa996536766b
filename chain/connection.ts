/**
 * A web3.js `Connection` that keeps quiet, can be closed, and asks again where an endpoint fails for a moment.
 *
 * The library writes websocket errors to the console and has no way to close its websocket, so an endpoint that goes away
 * would litter the terminal and keep a process alive. Its socket is private; nothing else of it is touched, and only here.
 *
 * Every request of ours may be repeated: reads change nothing, and a transaction sent twice is the same transaction.
 */
import { Connection } from '@solana/web3.js';

import type { Env } from '../protocol/env.ts';
import { MoltError } from '../protocol/errors.ts';
import { type Answer, post } from './http.ts';

/** One attempt; a public endpoint under load takes a second or two. */
const ATTEMPT_MS = 10_000;
const ATTEMPTS = 5;
const BACKOFF_MS = 150;
/** Longest wait that an endpoint may ask for with `retry-after`. */
const RETRY_AFTER_MS_MAX = 5_000;
/** Busy, or a proxy whose upstream is away. */
const BUSY: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504]);
/** Failures before anything was sent. */
const NOT_SENT: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ERR_INVALID_URL',
]);

/** The endpoint failed at every attempt. */
export class EndpointError extends Error {
  override readonly name = 'EndpointError';
  /** Whether the request may have arrived all the same. */
  readonly mayHaveArrived: boolean;

  constructor(message: string, mayHaveArrived: boolean, options?: { readonly cause?: unknown }) {
    super(message, options);
    this.mayHaveArrived = mayHaveArrived;
  }
}

interface Socket {
  removeAllListeners(event: 'error'): void;
  on(event: 'error', listener: (error: unknown) => void): void;
  setAutoReconnect(reconnect: boolean): void;
  close(): void;
}

interface Internals {
  readonly _rpcWebSocket: Socket;
  _rpcWebSocketConnected: boolean;
}

export interface OpenConnection extends Disposable {
  readonly connection: Connection;
}

/** Nothing is sent yet. */
export function openConnection(env: Env, rpcUrl: string): OpenConnection {
  const closing = new AbortController();
  const connection = new Connection(rpcUrl, {
    commitment: 'confirmed',
    disableRetryOnRateLimit: true,
    httpAgent: false,
    // What the library does with it is to send strings, and to read `ok`, `status`, `statusText` and the text.
    fetch: (async (url: string, init: Request) => {
      const { status, statusText, text } = await persistently(env, url, init, closing.signal);
      return { ok: status >= 200 && status < 300, status, statusText, text: () => Promise.resolve(text) };
    }) as unknown as typeof fetch,
  });
  const internals = connection as unknown as Internals;
  const socket = internals._rpcWebSocket;
  socket.removeAllListeners('error');
  socket.on('error', (error) => {
    internals._rpcWebSocketConnected = false;
    const text = error instanceof Error ? error.message : 'unknown';
    // Everything that waits on the socket polls as well, and the socket reconnects by itself.
    env.logger.log('debug', 'chain websocket failed', { error: text });
  });
  return {
    connection,
    [Symbol.dispose]: () => {
      closing.abort();
      socket.setAutoReconnect(false);
      try {
        socket.close();
      } catch {
        // It was never opened.
      }
    },
  };
}

interface Request {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** `post` that repeats what failed in a way that passes. Throws `EndpointError`. */
async function persistently(env: Env, url: string, asked: Request, closing: AbortSignal): Promise<Answer> {
  let mayHaveArrived = false;
  for (let attempt = 1; ; attempt++) {
    const failed = await attemptOnce(env, url, asked, closing);
    if ('status' in failed) return failed;
    mayHaveArrived ||= failed.arrived;
    if (failed.final || closing.aborted || attempt === ATTEMPTS)
      throw new EndpointError(failed.reason, mayHaveArrived, { cause: failed.cause });
    const wait = Math.max(failed.afterMs, BACKOFF_MS * 2 ** (attempt - 1));
    await env.clock.sleep(wait, closing).catch(() => undefined);
  }
}

interface Failure {
  readonly reason: string;
  readonly cause: unknown;
  /** The request may have arrived. */
  readonly arrived: boolean;
  /** Asking again at once is no use. */
  readonly final: boolean;
  readonly afterMs: number;
}

async function attemptOnce(env: Env, url: string, asked: Request, closing: AbortSignal): Promise<Answer | Failure> {
  const late = new AbortController();
  const answered = new AbortController();
  void env.clock
    .sleep(ATTEMPT_MS, answered.signal)
    .then(() => late.abort(new Error(`no answer within ${ATTEMPT_MS / 1000} s`)))
    .catch(() => undefined);
  try {
    // The body is read here, so that a connection that breaks in its middle counts as a failure to repeat.
    const signal = AbortSignal.any([late.signal, closing]);
    const answer = await post(url, asked.body, { headers: asked.headers, signal });
    return BUSY.has(answer.status) ? busy(answer) : answer;
  } catch (cause) {
    const isLate = late.signal.aborted;
    const code = codeOf(cause);
    const notSent = !isLate && !closing.aborted && (code === undefined || NOT_SENT.has(code));
    if (cause instanceof MoltError) return { reason: cause.message, cause, arrived: true, final: true, afterMs: 0 };
    const reason = isLate ? (late.signal.reason as Error).message : (code ?? String(cause));
    return { reason, cause, arrived: !notSent, final: notSent, afterMs: 0 };
  } finally {
    answered.abort();
  }
}

function busy({ status, statusText, headers }: Answer): Failure {
  const seconds = Number(headers['retry-after'] ?? 0);
  return {
    reason: `HTTP ${status} ${statusText}`,
    cause: undefined,
    // A proxy may have passed it on before it gave up; one that limits the rate has not.
    arrived: status !== 429,
    final: false,
    afterMs: Number.isFinite(seconds) ? Math.min(seconds * 1_000, RETRY_AFTER_MS_MAX) : 0,
  };
}

/** The system's code of a failed request, wherever it is nested. */
function codeOf(error: unknown): string | undefined {
  for (let at = error; at instanceof Error; at = at.cause) {
    if ('code' in at && typeof at.code === 'string') return at.code;
    if (at instanceof AggregateError) return codeOf(at.errors[0]);
  }
  return undefined;
}
