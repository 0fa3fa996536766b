/**
 * A web3.js `Connection` that keeps quiet and can be closed.
 *
 * The library writes websocket errors to the console and has no way to close its websocket, so an endpoint that goes away
 * would litter the terminal and keep a process alive. Its socket is private; nothing else of it is touched, and only here.
 */
import { Connection } from '@solana/web3.js';

import type { Env } from '../protocol/env.ts';

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
  const connection = new Connection(rpcUrl, { commitment: 'confirmed', disableRetryOnRateLimit: true });
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
      socket.setAutoReconnect(false);
      try {
        socket.close();
      } catch {
        // It was never opened.
      }
    },
  };
}
