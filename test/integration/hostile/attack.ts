/**
 * One attack in a process of its own: `attack.ts NAME NETWORK VICTIM SECONDS MOST`. It lasts so many seconds and then, on a
 * machine too slow to send enough in that time, until it was dropped once, at most MOST seconds. Prints one JSON line with
 * what it got done: `sent` of whatever it sends, `dropped`, how often it lost its connection or was refused, and `seconds`.
 */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Stream } from '@libp2p/interface';

import { keyPairFromSeed } from '../../../protocol/ed25519.ts';
import { parseAddress } from '../../../protocol/address.ts';
import { OffersRequest } from '../../../protocol/molt.js';
import { STREAMS, bidsTopic, meshName, offersTopic } from '../../../protocol/wire.ts';
import { bidBytes, multiaddrOf, offerBytes } from '../../market/fixtures.ts';
import { MESHSUB, type RawPeer, gossipFrame, push, rawPeer, varint } from './raw-peer.ts';
import { DATA, PING, RST, SYN, WINDOW_UPDATE, wireOf, yamuxFrame } from './yamux.ts';

const [name = '', networkText = '', victim = '', seconds = '5', most = seconds] = process.argv.slice(2);
const network = parseAddress(networkText);
const prefix = `/molt-${meshName(network)}`;
const offers = `${prefix}${offersTopic(network, 'cpu')}`;
const bids = `${prefix}${bidsTopic(network, 'cpu')}`;
const startMs = performance.now();
const tally = { sent: 0, dropped: 0, seconds: 0 };
const isOver = (): boolean => {
  tally.seconds = (performance.now() - startMs) / 1_000;
  return tally.seconds > Number(tally.dropped > 0 ? seconds : most);
};

/** Repeats `act` with a fresh identity whenever the victim drops it, until time is up. */
async function withIdentities(act: (peer: RawPeer) => Promise<void>): Promise<void> {
  while (!isOver()) {
    try {
      await using peer = await rawPeer(victim);
      await act(peer);
    } catch {
      tally.dropped++;
      await sleep(20);
    }
  }
}

/** Floods frames of ten messages as fast as the victim takes them. */
function flood(topic: string, message: () => Uint8Array): Promise<void> {
  return withIdentities(async ({ connection }) => {
    const stream = await connection.newStream(MESHSUB);
    await push(stream, gossipFrame(topic, [], true));
    while (!isOver()) {
      const messages = Array.from({ length: 10 }, message);
      await push(stream, gossipFrame(topic, messages));
      tally.sent += messages.length;
      await new Promise((resolve) => setImmediate(resolve));
    }
  });
}

/** Floods the connection itself with frames that belong to no protocol, 100 at a time. */
function floodFrames(frame: (index: number) => Uint8Array): Promise<void> {
  return withIdentities(async ({ connection }) => {
    const wire = wireOf(connection);
    while (!isOver()) {
      await wire(Buffer.concat(Array.from({ length: 100 }, () => frame(tally.sent++))));
      await new Promise((resolve) => setImmediate(resolve));
    }
  });
}

const stranger = (): ReturnType<typeof keyPairFromSeed> => keyPairFromSeed(randomBytes(32));
const header = (): { network: typeof network; issuedMs: number; sequence: number } => ({
  network,
  issuedMs: Date.now(),
  sequence: Date.now() + tally.sent,
});
const forged = (): Uint8Array => {
  const bytes = FORGED.slice();
  bytes.set(randomBytes(32), bytes.length - 40);
  return bytes;
};
const FORGED = offerBytes(stranger(), header());

/** Accepts connections and never says a word: who dials it waits for as long as he has patience. */
const tarPit = createServer().listen(0, '127.0.0.1').unref();
await once(tarPit, 'listening');
const tarPitPort = (tarPit.address() as AddressInfo).port;

const ATTACKS: Readonly<Record<string, () => Promise<void>>> = {
  'invalid flood': () => flood(offers, forged),
  'valid flood': () => flood(offers, () => offerBytes(stranger(), header())),
  'sybil bidders': () =>
    flood(bids, () => {
      const key = stranger();
      return bidBytes(key, header(), { addresses: [multiaddrOf(key.address, tarPitPort)] });
    }),
  replay: () => {
    const key = stranger();
    const captured = [1, 2, 3, 4, 5].map((sequence) => offerBytes(key, { network, issuedMs: Date.now(), sequence }));
    return flood(offers, () => captured[tally.sent % captured.length] ?? FORGED);
  },
  // One identity comes back with three kinds of what is too large until it is out; then the next.
  oversize: () =>
    withIdentities(async ({ connection }) => {
      for (;;) {
        const pull = await connection.newStream(`${prefix}${STREAMS.offers.protocol}`);
        await push(pull, Buffer.concat([varint(2 ** 30), randomBytes(60_000)]));
        const stream = await connection.newStream(MESHSUB);
        await push(stream, gossipFrame(offers, [randomBytes(3 * 2 ** 20)], true));
        await push(stream, varint(2 ** 30));
        while (stream.status === 'open' && !isOver()) {
          await push(stream, gossipFrame(offers, [randomBytes(5_000)])).catch(() => undefined);
          tally.sent++;
          await new Promise((resolve) => setImmediate(resolve));
        }
        if (isOver()) return;
      }
    }),
  'slow reader': () =>
    withIdentities(async ({ libp2p, connection }) => {
      // Takes part in gossip and reads nothing of it, and asks for books that it never reads.
      await libp2p.handle(MESHSUB, (stream: Stream) => stream.pause());
      const gossip = await connection.newStream(MESHSUB);
      await push(gossip, gossipFrame(bids, [], true));
      const request = OffersRequest.encode({ resourceClass: 'cpu' });
      while (!isOver()) {
        const stream = await connection.newStream(`${prefix}${STREAMS.offers.protocol}`, { maxOutboundStreams: 1_000 });
        stream.pause();
        await push(stream, Buffer.concat([varint(request.length), request]));
        tally.sent++;
        await sleep(20);
      }
    }),
  'stream churn': () =>
    withIdentities(async ({ connection }) => {
      while (!isOver()) {
        const opening = Array.from({ length: 20 }, async () => {
          const stream = await connection.newStream(`${prefix}${STREAMS.offers.protocol}`, {
            maxOutboundStreams: 1_000,
          });
          stream.abort(new Error('churn'));
          tally.sent++;
        });
        await Promise.all(opening);
      }
    }),
  // Below the protocols: what the multiplexer handles by itself, written straight to the encrypted connection.
  'ping flood': () => floodFrames((index) => yamuxFrame(PING, { flags: SYN, length: index % 2 ** 16 })),
  'window update flood': () => floodFrames(() => yamuxFrame(WINDOW_UPDATE, { stream: 1, length: 1 })),
  'reset churn': () =>
    floodFrames((index) => {
      const stream = 1_001 + 2 * index;
      return Buffer.concat([
        yamuxFrame(WINDOW_UPDATE, { flags: SYN, stream }),
        yamuxFrame(WINDOW_UPDATE, { flags: RST, stream }),
      ]);
    }),
  'endless frame': () =>
    withIdentities(async ({ connection }) => {
      const wire = wireOf(connection);
      await wire(yamuxFrame(DATA, { flags: SYN, stream: 1_001, length: 2 ** 32 - 1 }));
      while (!isOver()) {
        await wire(randomBytes(64 * 1024));
        tally.sent++;
      }
    }),
  'connection churn': async () => {
    const [, , host = '', , port = ''] = victim.split('/');
    // Half of the sockets say nothing and stay; the others come and go.
    while (!isOver()) {
      const socket = connect({ host, port: Number(port), localAddress: '127.66.6.6' });
      socket.on('error', () => undefined);
      socket.on('close', () => tally.dropped++);
      if (tally.sent++ % 2 === 0) setTimeout(() => socket.destroy(), 5);
      await new Promise((resolve) => setImmediate(resolve));
      if (tally.sent % 50 === 0) await sleep(10);
    }
  },
};

// An attacker whose peer is gone has nothing open for a moment.
setInterval(() => undefined, 1_000);
await ATTACKS[name]?.();
console.log(JSON.stringify(tally));
process.exit(0);
