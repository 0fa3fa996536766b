/**
 * Goal: what a peer does below every protocol is counted, and what honest peers do there costs them nothing. Method: a real
 * peer of the mesh, and one that writes frames of the multiplexer by hand.
 */
import { describe, expect, it } from 'vitest';

import type { Mesh } from '../../../node/mesh/index.ts';
import { type RawPeer, dialledPeer, rawPeer } from '../../integration/hostile/raw-peer.ts';
import { DATA, PING, RST, SYN, WINDOW_UPDATE, wireOf, yamuxFrame } from '../../integration/hostile/yamux.ts';
import { Peers, until } from './peers.ts';

const PROTOCOL = '/molt/echo/1';
const LIMITS = { maxFrameBytes: 1 << 20, maxStreams: 8, maxStreamsPerPeer: 8 };

type Meets = (mesh: Mesh) => Promise<RawPeer>;
const DIALS_US: Meets = (mesh) => rawPeer(mesh.addresses[0] ?? '');
const IS_DIALLED: Meets = (mesh) => dialledPeer((address) => mesh.meet([address]));

/** Sends until it is thrown out, at most `frames`; resolves to whether it was. */
async function sends(
  to: Mesh,
  frames: number,
  frame: (index: number) => Uint8Array,
  meets: Meets = DIALS_US,
): Promise<boolean> {
  await using peer = await meets(to);
  await until('it is connected', () => to.peers().length === 1);
  const wire = wireOf(peer.connection);
  try {
    for (let index = 0; index < frames; index++) {
      await wire(frame(index));
      if (index % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await until('it is thrown out', () => to.peers().length === 0, 1_000);
    return true;
  } catch {
    return to.peers().length === 0;
  }
}

describe('frames of the multiplexer', () => {
  it.each([
    ['pings', (index: number) => yamuxFrame(PING, { flags: SYN, length: index })],
    ['window updates that answer nothing', () => yamuxFrame(WINDOW_UPDATE, { stream: 1, length: 1 })],
    [
      'streams that are opened and reset',
      (index: number) =>
        Buffer.concat([SYN, RST].map((flags) => yamuxFrame(WINDOW_UPDATE, { flags, stream: 101 + 2 * index }))),
    ],
    [
      'resets of streams that never were',
      (index: number) => yamuxFrame(WINDOW_UPDATE, { flags: RST, stream: 99 + index }),
    ],
  ])('a flood of %s ends the connection', async (_name, frame) => {
    await using peers = new Peers();
    const mesh = await peers.open({ limits: { controlFramesPerSecond: 100 } });
    expect(await sends(mesh, 20, frame)).toBe(false);
    expect(await sends(mesh, 2_000, frame)).toBe(true);
  });

  it.each([
    ['pings', (index: number) => yamuxFrame(PING, { flags: SYN, length: index })],
    ['window updates that answer nothing', () => yamuxFrame(WINDOW_UPDATE, { stream: 1, length: 1 })],
  ])(
    'a flood of %s by a peer that this node dialled ends that connection too, and keeps the peer out',
    async (_name, frame) => {
      await using peers = new Peers();
      const mesh = await peers.open({ limits: { controlFramesPerSecond: 100 } });
      expect(await sends(mesh, 20, frame, IS_DIALLED)).toBe(false);
      let address = '';
      const isDialled: Meets = (to) =>
        dialledPeer((told) => {
          address = told;
          return to.meet([told]);
        });
      await using listening = await isDialled(mesh);
      const wire = wireOf(listening.connection);
      await until('it is thrown out', async () => {
        for (let index = 0; index < 50; index++) await wire(frame(index)).catch(() => undefined);
        return mesh.peers().length === 0;
      });
      await expect(mesh.meet([address])).rejects.toMatchObject({ code: 'mesh/unreachable' });
    },
  );

  it('a peer that this node dialled, and that answers its pings, is kept', async () => {
    await using peers = new Peers();
    const mesh = await peers.open({ limits: { controlFramesPerSecond: 10 } });
    await using peer = await IS_DIALLED(mesh);
    const { muxer } = peer.connection as unknown as { muxer: { sendPing(id: number, flag?: number): void } };
    let answered = 0;
    const send = muxer.sendPing.bind(muxer);
    muxer.sendPing = (id, flag) => {
      answered++;
      send(id, flag);
    };
    await until('it answered two heartbeats', () => answered >= 2);
    expect(mesh.peers()).toHaveLength(1);
  });

  it('a flood of data frames with a byte each ends it too', async () => {
    await using peers = new Peers();
    const mesh = await peers.open({ limits: { controlFramesPerSecond: 100 } });
    expect(await sends(mesh, 20_000, () => yamuxFrame(DATA, { stream: 99 }, Uint8Array.of(0)))).toBe(true);
  });

  it('a frame that announces more than its window is not waited for', async () => {
    await using peers = new Peers();
    const mesh = await peers.open();
    expect(await sends(mesh, 1, () => yamuxFrame(DATA, { flags: SYN, stream: 101, length: 2 ** 31 }))).toBe(true);
  });

  it('window updates that answer our data cost nothing', async () => {
    await using peers = new Peers();
    // So few that an honest reader of two thousand messages would be thrown out if its updates counted.
    const limits = { controlFramesPerSecond: 100 };
    const [a, b] = await peers.pair({ limits }, { limits: { controlFramesPerSecond: 100_000 } });
    await using _served = await b.handle(PROTOCOL, LIMITS, async (channel) => {
      let count = 0;
      for await (const _frame of channel) if (++count === 2_000) break;
      await channel.send(Uint8Array.of(1));
    });
    await until('both are connected', () => a.isConnected(b.self));
    const channel = await a.open(b.self, PROTOCOL, { maxFrameBytes: LIMITS.maxFrameBytes });
    for (let index = 0; index < 2_000; index++) await channel.send(new Uint8Array(64));
    for await (const answer of channel) {
      expect(answer).toEqual(Uint8Array.of(1));
      break;
    }
    expect(a.isConnected(b.self)).toBe(true);
  });
});
