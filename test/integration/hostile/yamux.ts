/** Frames of the multiplexer, written by hand below its library: what an attacker would send (hashicorp/yamux, spec.md). */
import type { Connection } from '@libp2p/interface';

export const [DATA, WINDOW_UPDATE, PING] = [0, 1, 2];
export const [SYN, RST] = [1, 8];

export function yamuxFrame(
  type: number,
  head: { readonly flags?: number; readonly stream?: number; readonly length?: number },
  data: Uint8Array = new Uint8Array(),
): Uint8Array {
  const frame = Buffer.alloc(12);
  frame.writeUInt8(type, 1);
  frame.writeUInt16BE(head.flags ?? 0, 2);
  frame.writeUInt32BE(head.stream ?? 0, 4);
  frame.writeUInt32BE(head.length ?? data.length, 8);
  return Buffer.concat([frame, data]);
}

/** What the muxer sends by: bytes go out encrypted and otherwise as they are. */
interface Wire extends EventTarget {
  send(bytes: Uint8Array): boolean;
  readonly status: string;
}

/** Writes to the connection itself and waits while it is full; rejects when it is over. */
export function wireOf(connection: Connection): (bytes: Uint8Array) => Promise<void> {
  const { muxer } = connection as unknown as { muxer: { maConn: Wire; handlePingResponse: (id: number) => void } };
  const { maConn } = muxer;
  // The library gives up at answers to pings that it did not send itself.
  muxer.handlePingResponse = () => undefined;
  return async (bytes) => {
    if (maConn.status !== 'open' || connection.status !== 'open') throw new Error('the connection is closed');
    if (maConn.send(bytes)) return;
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('nothing was taken for three seconds')), 3_000);
      maConn.addEventListener('drain', () => (clearTimeout(timer), resolve()), { once: true });
      maConn.addEventListener('close', () => (clearTimeout(timer), reject(new Error('closed'))), { once: true });
    });
  };
}
