/**
 * A connection carried by a channel: each frame is bytes of it, the end of one side's frames is the end of that side.
 *
 * Half-open connections stay half open, a break on one side breaks the other, and a slow end slows the other down: what can
 * pile up is one frame and what the channel and the socket bound themselves.
 */
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';

import type { Channel } from '../../market/ports.ts';
import { MoltError } from '../../protocol/errors.ts';

/** Resolves when both directions have ended or the connection broke. Never rejects. `socket` allows half-open ends. */
export async function tunnel(channel: Channel, socket: Duplex, frameBytesMax: number): Promise<void> {
  // A break is told by `close` and by the reading loop.
  socket.on('error', () => undefined);
  try {
    await Promise.all([toSocket(channel, socket), toChannel(channel, socket, frameBytesMax)]);
  } catch (error) {
    channel.abort(error instanceof MoltError ? error : new MoltError('mesh/closed', 'the connection broke'));
    // A reset: whoever is behind the socket must not take what came so far for the whole.
    if (socket instanceof Socket) socket.resetAndDestroy();
    else socket.destroy();
  }
}

/** One frame, undefined at the end; the channel can be read on. Throws what reading it throws. */
export async function nextFrame(channel: Channel): Promise<Uint8Array | undefined> {
  for await (const frame of channel) return frame;
  return undefined;
}

async function toSocket(channel: Channel, socket: Duplex): Promise<void> {
  for await (const frame of channel) {
    if (socket.destroyed || socket.writableEnded) throw closed();
    if (!socket.write(frame)) await drained(socket);
  }
  if (socket.destroyed && !socket.writableFinished) throw closed();
  socket.end();
}

async function toChannel(channel: Channel, socket: Duplex, frameBytesMax: number): Promise<void> {
  // Leaving the loop at the end must not end the other direction.
  for await (const chunk of socket.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    for (let at = 0; at < chunk.length; at += frameBytesMax) {
      await channel.send(chunk.subarray(at, at + frameBytesMax));
    }
  }
  await channel.close();
}

async function drained(socket: Duplex): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onClose = (): void => reject(closed());
  socket.once('drain', resolve);
  socket.once('close', onClose);
  try {
    await promise;
  } finally {
    socket.off('drain', resolve);
    socket.off('close', onClose);
  }
}

function closed(): MoltError {
  return new MoltError('mesh/closed', 'the connection closed before it had ended');
}
