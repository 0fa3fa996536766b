/**
 * Whether the other end of each connection still lives: a ping of the multiplexer now and then, and no answer ends the
 * connection. libp2p's own monitor opens a stream for each ping, to all peers in the same moment: with 50 neighbours that
 * is a tenth of a core and a pause that gossip feels. A ping here is a frame of 12 bytes, and they are spread over time.
 */
import type { Connection, Libp2p } from '@libp2p/interface';

import { type Env, randomInt } from '../../protocol/env.ts';
import { MoltError, assert } from '../../protocol/errors.ts';

const TICK_MS = 500;
/**
 * From an answer to the next ping, in ticks; the first ping comes with the connection and tells yamux the round trip time.
 * Ticks and not time, for a process that stood still has not read the answers that came meanwhile.
 */
const REST_TICKS = 8;
/** A cut is noticed after this and REST_TICKS at the latest: 9 s. */
const WAIT_TICKS = 10;

interface Beat {
  /** Ticks until the next ping. */
  rest: number;
  /** Ticks since a ping that is not answered yet. */
  waited: number | undefined;
}

/** What we read of a libp2p connection beyond its interface. */
interface MuxedConnection extends Connection {
  readonly muxer?: { ping?(): Promise<number> };
  rtt?: number;
}

export class Heartbeat implements Disposable {
  readonly #env: Env;
  readonly #beats = new WeakMap<Connection, Beat>();
  readonly #ticker: Disposable;

  constructor(env: Env, libp2p: Libp2p) {
    this.#env = env;
    this.#ticker = env.clock.every(TICK_MS, () => {
      for (const connection of libp2p.getConnections()) this.#look(connection);
    });
  }

  [Symbol.dispose](): void {
    this.#ticker[Symbol.dispose]();
  }

  #look(connection: MuxedConnection): void {
    if (connection.status !== 'open') return;
    const beat = this.#beats.get(connection);
    if (beat === undefined) {
      const first = { rest: randomInt(this.#env.random, REST_TICKS), waited: undefined };
      this.#beats.set(connection, first);
      this.#ping(connection, first);
    } else if (beat.waited !== undefined) {
      if (++beat.waited <= WAIT_TICKS) return;
      this.#env.logger.log('debug', 'peer does not answer', { peer: connection.remotePeer.toString() });
      const waitedMs = WAIT_TICKS * TICK_MS;
      connection.abort(new MoltError('mesh/closed', `the peer answered no ping within ${waitedMs} ms; it is dropped`));
    } else if (--beat.rest < 0) {
      beat.rest = REST_TICKS;
      this.#ping(connection, beat);
    }
  }

  #ping(connection: MuxedConnection, beat: Beat): void {
    const { muxer } = connection;
    assert(muxer?.ping !== undefined, 'this release of libp2p keeps its muxer elsewhere: adapt node/mesh/heartbeat.ts');
    beat.waited = 0;
    // A ping that fails is one on a connection that is ending.
    muxer.ping().then(
      (rttMs) => {
        connection.rtt = rttMs;
        beat.waited = undefined;
      },
      () => undefined,
    );
  }
}
