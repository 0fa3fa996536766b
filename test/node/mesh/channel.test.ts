/**
 * Goal: frames arrive whole and in order, memory stays flat whoever is slow, and every way a stream can end is told
 * apart. Method: real libp2p nodes on loopback; the hostile peer speaks raw libp2p streams.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import type { Stream } from '@libp2p/interface';
import { noise } from '@libp2p/noise';
import { tcp } from '@libp2p/tcp';
import { yamux } from '@libp2p/yamux';
import { multiaddr } from '@multiformats/multiaddr';
import { type Libp2p, createLibp2p } from 'libp2p';
import { describe, expect, it } from 'vitest';

import type { Channel, ProtocolLimits } from '../../../market/ports.ts';
import type { Mesh } from '../../../node/mesh/index.ts';
import { MoltError } from '../../../protocol/errors.ts';
import { Peers, join, pause, text, until } from './peers.ts';

const PROTOCOL = '/molt/1/test';
const LIMITS: ProtocolLimits = { maxFrameBytes: 1024 * 1024, maxStreamsPerPeer: 8, maxStreams: 16 };
const FRAME = 64 * 1024;
/** What a busy machine may take for tens of megabytes. */
const BULK_MS = 180_000;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

async function echo(mesh: Mesh, limits: ProtocolLimits = LIMITS): Promise<AsyncDisposable> {
  return mesh.handle(PROTOCOL, limits, async (channel) => {
    for await (const frame of channel) await channel.send(frame);
  });
}

async function first(channel: Channel): Promise<Uint8Array | undefined> {
  for await (const frame of channel) return frame;
  return undefined;
}

/** A peer that does not use our channel: it writes what it likes. */
async function rawPeer(): Promise<Libp2p> {
  return createLibp2p({ transports: [tcp()], connectionEncrypters: [noise()], streamMuxers: [yamux()] });
}

async function rawStream(peer: Libp2p, mesh: Mesh): Promise<Stream> {
  return peer.dialProtocol(multiaddr(mesh.addresses[0] ?? ''), `/molt-test${PROTOCOL}`);
}

describe('a channel', () => {
  it('carries frames of every size up to the limit, whole and in order, both ways', async () => {
    await using peers = new Peers();
    const [a, b] = await peers.pair();
    await echo(a);
    const channel = await b.open(a.self, PROTOCOL, { maxFrameBytes: LIMITS.maxFrameBytes });
    expect(channel.remote).toBe(a.self);
    const sizes = [0, 1, 127, 128, 16_383, 16_384, 300_000, LIMITS.maxFrameBytes];
    const sending = (async () => {
      for (const [index, size] of sizes.entries()) await channel.send(new Uint8Array(size).fill(index + 1));
      await channel.close();
    })();
    const got: Uint8Array[] = [];
    for await (const frame of channel) got.push(frame);
    await sending;
    expect(got.map((frame) => frame.length)).toEqual(sizes);
    for (const [index, frame] of got.entries()) expect(frame.every((byte) => byte === index + 1)).toBe(true);
  });

  it('can be left by its reader and entered again', async () => {
    await using peers = new Peers();
    const [a, b] = await peers.pair();
    await echo(a);
    const channel = await b.open(a.self, PROTOCOL);
    for (const word of ['one', 'two', 'three']) await channel.send(text(word));
    for (const word of ['one', 'two', 'three']) expect(Buffer.from((await first(channel)) ?? []).toString()).toBe(word);
  });

  it('refuses to send a frame above the limit, and stays usable', async () => {
    await using peers = new Peers();
    const [a, b] = await peers.pair();
    await echo(a);
    const channel = await b.open(a.self, PROTOCOL, { maxFrameBytes: 100 });
    await expect(channel.send(new Uint8Array(101))).rejects.toMatchObject({ code: 'protocol/oversize' });
    await channel.send(text('fine'));
    expect(Buffer.from((await first(channel)) ?? []).toString()).toBe('fine');
  });

  it('aborts a stream whose next frame announces more than the limit, before its bytes come', async () => {
    await using peers = new Peers();
    const mesh = await peers.open();
    const failed = Promise.withResolvers<unknown>();
    await mesh.handle(PROTOCOL, { ...LIMITS, maxFrameBytes: 1_000 }, async (channel) => {
      try {
        for await (const frame of channel) expect(frame.length).toBeLessThanOrEqual(1_000);
        failed.resolve('ended');
      } catch (error) {
        failed.resolve(error);
        throw error;
      }
    });
    const hostile = await rawPeer();
    const stream = await rawStream(hostile, mesh);
    stream.send(Uint8Array.from([0xe9, 0x07]));
    expect(await failed.promise).toMatchObject({ code: 'protocol/oversize' });
    await until('the hostile side sees the reset', () => stream.status === 'reset');
    await hostile.stop();
  });

  it('aborts a stream whose frame length never ends', async () => {
    await using peers = new Peers();
    const mesh = await peers.open();
    const failed = Promise.withResolvers<unknown>();
    await mesh.handle(PROTOCOL, LIMITS, async (channel) => {
      await first(channel).catch(failed.resolve);
    });
    const hostile = await rawPeer();
    const stream = await rawStream(hostile, mesh);
    stream.send(new Uint8Array(6).fill(0x80));
    expect(await failed.promise).toMatchObject({ code: 'protocol/malformed' });
    await hostile.stop();
  });

  it('tells an end in the middle of a frame from a proper end', async () => {
    await using peers = new Peers();
    const mesh = await peers.open();
    const ends: unknown[] = [];
    await mesh.handle(PROTOCOL, LIMITS, async (channel) => {
      try {
        for await (const _frame of channel);
        ends.push('end');
      } catch (error) {
        ends.push(error);
      }
    });
    const hostile = await rawPeer();
    const whole = await rawStream(hostile, mesh);
    whole.send(Uint8Array.from([2, 1, 1]));
    await whole.close();
    await until('the first ends', () => ends.length === 1);
    const cut = await rawStream(hostile, mesh);
    cut.send(Uint8Array.from([10, 1, 1]));
    await cut.close();
    await until('the second ends', () => ends.length === 2);
    expect(ends).toEqual(['end', expect.objectContaining({ code: 'mesh/closed' })]);
    await hostile.stop();
  });

  it('takes a connection that breaks between two frames for a loss, not for an end', async () => {
    await using peers = new Peers();
    const [a, b] = await peers.pair();
    const lost = Promise.withResolvers<unknown>();
    await a.handle(PROTOCOL, LIMITS, async (channel) => {
      try {
        for await (const frame of channel) expect(frame.length).toBe(3);
        lost.resolve('end');
      } catch (error) {
        lost.resolve(error);
      }
    });
    const channel = await b.open(a.self, PROTOCOL);
    await channel.send(new Uint8Array(3));
    await pause(100);
    await b[Symbol.asyncDispose]();
    expect(await lost.promise).toMatchObject({ code: 'mesh/closed' });
  });

  it('gives reader and sender the reason when their own side aborts in mid-write', async () => {
    await using peers = new Peers();
    const [a, b] = await peers.pair();
    const seen = Promise.withResolvers<unknown>();
    await a.handle(PROTOCOL, LIMITS, async (channel) => {
      await pause(300);
      try {
        for await (const _frame of channel);
        seen.resolve('end');
      } catch (error) {
        seen.resolve(error);
      }
    });
    const channel = await b.open(a.self, PROTOCOL);
    const sending = (async () => {
      for (;;) await channel.send(new Uint8Array(FRAME));
    })();
    const reading = first(channel);
    const reason = new MoltError('job/cancelled', 'enough');
    setTimeout(() => channel.abort(reason), 100);
    await expect(sending).rejects.toBeInstanceOf(MoltError);
    await expect(reading).rejects.toBe(reason);
    await expect(channel.send(text('x'))).rejects.toBe(reason);
    expect(await seen.promise).toMatchObject({ code: 'mesh/closed' });
  });

  it.each([512 * 1024, 4 * 1024])(
    'stops a sender of %d-byte frames while the reader is slow, and loses nothing',
    { timeout: BULK_MS },
    async (size) => {
      await using peers = new Peers();
      const [a, b] = await peers.pair();
      const total = (64 * 1024 * 1024) / size;
      let read = 0;
      const start = Promise.withResolvers<void>();
      const done = Promise.withResolvers<void>();
      await a.handle(PROTOCOL, { ...LIMITS, maxFrameBytes: size }, async (channel) => {
        await start.promise;
        for await (const frame of channel) {
          expect(frame[0]).toBe(read % 251);
          // Rests soon after the stream was resumed with a full buffer: a pause that is undone then lets everything in.
          if (++read < 400 && read % 24 === 0) await pause(50);
        }
        done.resolve();
      });
      const channel = await b.open(a.self, PROTOCOL, { maxFrameBytes: size });
      let sent = 0;
      const sending = (async () => {
        for (; sent < total; sent++) await channel.send(new Uint8Array(size).fill(sent % 251));
        await channel.close();
      })();
      await until('the sender stands still', async () => {
        const before = sent;
        await pause(500);
        return sent > 0 && sent === before;
      });
      // One window of 4 MiB, our read and write bounds of about 1 MiB each, and what the sockets hold.
      expect(sent * size).toBeLessThan(12 * 1024 * 1024);
      start.resolve();
      await sending;
      await done.promise;
      expect(read).toBe(total);
    },
  );

  it(
    'holds memory flat while 200 MB pass a reader that rests after every 64 frames',
    { timeout: BULK_MS },
    async () => {
      await using peers = new Peers();
      const [a, b] = await peers.pair();
      let high = 0;
      let read = 0;
      let frames = 0;
      const done = Promise.withResolvers<void>();
      const used = (): number => {
        collectGarbage();
        return process.memoryUsage().arrayBuffers + process.memoryUsage().heapUsed;
      };
      const before = used();
      await a.handle(PROTOCOL, LIMITS, async (channel) => {
        for await (const frame of channel) {
          read += frame.length;
          if (frames++ % 64 !== 0) continue;
          await pause(20);
          if (frames % 640 !== 1) continue;
          high = Math.max(high, used() - before);
        }
        done.resolve();
      });
      const channel = await b.open(a.self, PROTOCOL);
      const frame = new Uint8Array(FRAME - 64);
      for (let index = 0; index < 3_200; index++) await channel.send(frame);
      await channel.close();
      await done.promise;
      expect(read).toBe(frame.length * 3_200);
      // The bounds add up to some 20 MiB; the rest is what the sockets hold and what the collector has not taken yet.
      expect(high).toBeLessThan(100 * 1024 * 1024);
    },
  );

  it('lets everything that was sent before close arrive at a slow reader', async () => {
    await using peers = new Peers();
    const [a, b] = await peers.pair();
    await a.handle(PROTOCOL, LIMITS, async (channel) => {
      for (let index = 0; index < 60; index++) await channel.send(new Uint8Array(FRAME).fill(index));
    });
    const channel = await b.open(a.self, PROTOCOL);
    await pause(500);
    let count = 0;
    for await (const frame of channel) {
      expect(frame[0]).toBe(count++);
      if (count % 10 === 0) await pause(20);
    }
    expect(count).toBe(60);
  });

  it('wakes a waiting sender when its signal aborts, and sends nothing of that frame', async () => {
    await using peers = new Peers();
    const [a, b] = await peers.pair();
    const go = Promise.withResolvers<void>();
    const frames: number[] = [];
    const done = Promise.withResolvers<void>();
    await a.handle(PROTOCOL, LIMITS, async (channel) => {
      await go.promise;
      for await (const frame of channel) frames.push(frame[0] ?? -1);
      done.resolve();
    });
    const channel = await b.open(a.self, PROTOCOL, { maxFrameBytes: LIMITS.maxFrameBytes });
    const signal = AbortSignal.timeout(500);
    let sent = 0;
    await expect(
      (async () => {
        for (;;) {
          await channel.send(new Uint8Array(512 * 1024).fill(1), signal);
          sent++;
        }
      })(),
    ).rejects.toMatchObject({ name: 'TimeoutError' });
    go.resolve();
    await channel.send(Uint8Array.from([2]));
    await channel.close();
    await done.promise;
    expect(frames).toEqual([...Array.from({ length: sent }, () => 1), 2]);
  });

  it('gives up a silent peer after the idle time', async () => {
    await using peers = new Peers();
    const [a, b] = await peers.pair();
    await a.handle(PROTOCOL, LIMITS, () => new Promise(() => undefined));
    const channel = await b.open(a.self, PROTOCOL, { idleMs: 200 });
    await expect(first(channel)).rejects.toMatchObject({ code: 'mesh/timeout' });
    const stuck = await b.open(a.self, PROTOCOL, { idleMs: 200 });
    await expect(
      (async () => {
        for (;;) await stuck.send(new Uint8Array(FRAME));
      })(),
    ).rejects.toMatchObject({ code: 'mesh/timeout' });
  });

  it('wakes everybody at once when the peer dies while its reader is slow', async () => {
    await using peers = new Peers();
    const [a, b] = await peers.pair();
    await a.handle(PROTOCOL, LIMITS, () => new Promise(() => undefined));
    const channel = await b.open(a.self, PROTOCOL);
    const sending = (async () => {
      for (;;) await channel.send(new Uint8Array(FRAME));
    })();
    const failed = expect(sending).rejects.toMatchObject({ code: 'mesh/closed' });
    await pause(300);
    await a[Symbol.asyncDispose]();
    await failed;
  });
});

describe('protocol limits', () => {
  it('runs the handler once for each of twenty streams', async () => {
    await using peers = new Peers();
    const [a, b] = await peers.pair();
    let calls = 0;
    await a.handle(PROTOCOL, { ...LIMITS, maxStreamsPerPeer: 32, maxStreams: 32 }, async (channel) => {
      calls++;
      for await (const frame of channel) await channel.send(frame);
    });
    for (let index = 0; index < 20; index++) {
      const channel = await b.open(a.self, PROTOCOL);
      await channel.send(text('x'));
      expect(await first(channel)).toBeDefined();
    }
    expect(calls).toBe(20);
  });

  it('refuses the stream above the limit of one peer, and takes one again when another ended', async () => {
    await using peers = new Peers();
    const [a, b] = await peers.pair();
    await echo(a, { ...LIMITS, maxStreamsPerPeer: 2 });
    const open: Channel[] = [];
    for (let index = 0; index < 2; index++) {
      const channel = await b.open(a.self, PROTOCOL);
      await channel.send(text('x'));
      expect(await first(channel)).toBeDefined();
      open.push(channel);
    }
    const third = async (): Promise<Uint8Array | undefined> => {
      const channel = await b.open(a.self, PROTOCOL);
      await channel.send(text('x'));
      return first(channel);
    };
    await expect(third()).rejects.toMatchObject({ code: 'mesh/closed' });
    await open[0]?.close();
    await until('there is room again', () => third().then(Boolean, () => false));
  });

  it('refuses streams of further peers above the total', async () => {
    await using peers = new Peers();
    const [a, b] = await peers.pair();
    const c = await peers.open();
    await join(c, a.addresses);
    await echo(a, { ...LIMITS, maxStreamsPerPeer: 2, maxStreams: 2 });
    const held: Channel[] = [];
    for (const peer of [b, c]) {
      const channel = await peer.open(a.self, PROTOCOL);
      await channel.send(text('x'));
      expect(await first(channel)).toBeDefined();
      held.push(channel);
    }
    const channel = await c.open(a.self, PROTOCOL);
    await expect(channel.send(text('x')).then(() => first(channel))).rejects.toMatchObject({ code: 'mesh/closed' });
  });

  it('says that a peer does not speak a protocol, and that nobody is at an address', async () => {
    await using peers = new Peers();
    const [a, b] = await peers.pair();
    await expect(b.open(a.self, PROTOCOL)).rejects.toMatchObject({ code: 'mesh/unsupported' });
    const gone = await peers.open();
    const { self, addresses } = gone;
    await gone[Symbol.asyncDispose]();
    await expect(b.open(self, PROTOCOL, { addresses })).rejects.toMatchObject({ code: 'mesh/unreachable' });
    await expect(b.open(self, PROTOCOL, { addresses: a.addresses })).rejects.toMatchObject({
      code: 'protocol/malformed',
    });
    await expect(b.connect(addresses)).rejects.toMatchObject({ code: 'mesh/unreachable' });
  });

  it('stops serving when disposed, and ends the streams that are open', async () => {
    await using peers = new Peers();
    const [a, b] = await peers.pair();
    const served = await echo(a);
    const channel = await b.open(a.self, PROTOCOL);
    await channel.send(text('x'));
    await first(channel);
    await served[Symbol.asyncDispose]();
    await expect(first(channel)).rejects.toMatchObject({ code: 'mesh/closed' });
    await expect(b.open(a.self, PROTOCOL)).rejects.toMatchObject({ code: 'mesh/unsupported' });
  });
});
