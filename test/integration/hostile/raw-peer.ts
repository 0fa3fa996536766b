/** A bare libp2p peer that keeps none of our rules: what an attacker would write. */
import { generateKeyPair } from '@libp2p/crypto/keys';
import { identify } from '@libp2p/identify';
import type { Connection, Libp2p, Stream } from '@libp2p/interface';
import { noise } from '@libp2p/noise';
import { tcp } from '@libp2p/tcp';
import { yamux } from '@libp2p/yamux';
import { multiaddr } from '@multiformats/multiaddr';
import { createLibp2p } from 'libp2p';

export interface RawPeer extends AsyncDisposable {
  readonly libp2p: Libp2p;
  readonly connection: Connection;
}

async function bare(listen: readonly string[]): Promise<Libp2p> {
  return createLibp2p({
    privateKey: await generateKeyPair('Ed25519'),
    addresses: { listen: [...listen] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionManager: { reconnectRetries: 0 },
    connectionMonitor: { enabled: false },
    services: { identify: identify() },
  });
}

/** A fresh identity that waits to be dialled by `dial`, which is given its address; resolves when it was. */
export async function dialledPeer(dial: (address: string) => Promise<unknown>): Promise<RawPeer> {
  const libp2p = await bare(['/ip4/127.0.0.1/tcp/0']);
  const { promise, resolve } = Promise.withResolvers<Connection>();
  libp2p.addEventListener('connection:open', ({ detail }) => resolve(detail));
  await dial(String(libp2p.getMultiaddrs()[0]));
  return { libp2p, connection: await promise, [Symbol.asyncDispose]: async () => libp2p.stop() };
}

/** A fresh identity, connected. Rejects when it is refused. `reads`: a protocol whose streams it takes and never answers. */
export async function rawPeer(victim: string, reads?: string): Promise<RawPeer> {
  const libp2p = await bare([]);
  try {
    if (reads !== undefined) await libp2p.handle(reads, (stream: Stream) => stream.resume());
    const connection = await libp2p.dial(multiaddr(victim), { signal: AbortSignal.timeout(5_000) });
    return { libp2p, connection, [Symbol.asyncDispose]: async () => libp2p.stop() };
  } catch (error) {
    await libp2p.stop();
    throw error;
  }
}

export const MESHSUB = '/meshsub/1.2.0';

/** Sends and waits while the transport is full; rejects when the stream is over. */
export async function push(stream: Stream, bytes: Uint8Array): Promise<void> {
  if (stream.status !== 'open') throw new Error(`the stream is ${stream.status}`);
  if (stream.send(bytes)) return;
  await new Promise<void>((resolve, reject) => {
    setTimeout(() => reject(new Error('nothing was taken for three seconds')), 3_000);
    stream.addEventListener('drain', () => resolve(), { once: true });
    stream.addEventListener('close', () => reject(new Error('closed')), { once: true });
  });
}

export function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
  return Uint8Array.from([...bytes, rest]);
}

function field(number: number, bytes: Uint8Array): Uint8Array {
  return Buffer.concat([Uint8Array.of(number * 8 + 2), varint(bytes.length), bytes]);
}

/** A gossip frame with its length before it. */
export function gossipFrame(topic: string, messages: readonly Uint8Array[], subscribe = false): Uint8Array {
  const name = Buffer.from(topic);
  const subscription = field(1, Buffer.concat([Uint8Array.of(8, 1), field(2, name)]));
  const published = messages.map((data) => field(2, Buffer.concat([field(2, data), field(4, name)])));
  const body = Buffer.concat([...(subscribe ? [subscription] : []), ...published]);
  return Buffer.concat([varint(body.length), body]);
}

/** A gossip frame that names messages instead of sending them. */
export function iHaveFrame(topic: string, ids: readonly Uint8Array[]): Uint8Array {
  const named = field(1, Buffer.concat([field(1, Buffer.from(topic)), ...ids.map((id) => field(2, id))]));
  const body = field(3, named);
  return Buffer.concat([varint(body.length), body]);
}
