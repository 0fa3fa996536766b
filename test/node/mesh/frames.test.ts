/**
 * Goal: what a peer does below every protocol is counted, and what honest peers do there costs them nothing. Method: a real
 * peer of the mesh, and one that writes frames of the multiplexer by hand.
 */
import { describe, expect, it } from 'vitest';

import type { Mesh } from '../../../node/mesh/index.ts';
import { type RawPeer, dialledPeer, rawPeer } from '../../integration/hostile/raw-peer.ts';
import { DATA, PING, RST, SYN, WINDOW_UPDATE, wireOf, yamuxFrame } from '../../integration/hostile/yamux.ts';
import { Peers, pause, until } from './peers.ts';

const PROTOCOL = '/molt/echo/1';
const LIMITS = { maxFrameBytes: 1 << 20, maxStreams: 8, maxStreamsPerPeer: 8 };

type Meets = (mesh: Mesh) => Promise<RawPeer>;
const DIALS_US: Meets = (mesh) => rawPeer(mesh.addresses[0] ?? '');
const IS_DIALLED: Meets = (mesh) => dialledPeer((address) => mesh.meet([address]));

type Frame = (index: number) => Uint8Array;

/** Sends so many frames, no more than a peer may; resolves to whether it is still there a while later. */
async function isKept(by: Mesh, frames: number, frame: Frame, meets: Meets = DIALS_US): Promise<boolean> {
  await using peer = await meets(by);
  await until('it is connected', () => by.peers().length === 1);
  const wire = wireOf(peer.connection);
  for (let index = 0; index < frames; index++) await wire(frame(index));
  await pause(1_000);
  return by.peers().length === 1;
}

/** Sends, a thousand frames at a time and `most` in all, until it is thrown out. */
async function expectThrownOut(by: Mesh, frame: Frame, most = Infinity): Promise<void> {
  await using peer = await DIALS_US(by);
  await until('it is connected', () => by.peers().length === 1);
  const wire = wireOf(peer.connection);
  let sent = 0;
  const flood = async (): Promise<void> => {
    for (const end = Math.min(most, sent + 1_000); sent < end; sent++) await wire(frame(sent));
  };
  await until('it is thrown out', async () => {
    await flood().catch(() => undefined);
    return by.peers().length === 0;
  });
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
    expect(await isKept(mesh, 20, frame)).toBe(true);
    await expectThrownOut(mesh, frame);
  });

  it.each([
    ['pings', (index: number) => yamuxFrame(PING, { flags: SYN, length: index })],
    ['window updates that answer nothing', () => yamuxFrame(WINDOW_UPDATE, { stream: 1, length: 1 })],
  ])(
    'a flood of %s by a peer that this node dialled ends that connection too, and keeps the peer out',
    async (_name, frame) => {
      await using peers = new Peers();
      const mesh = await peers.open({ limits: { controlFramesPerSecond: 100 } });
      expect(await isKept(mesh, 20, frame, IS_DIALLED)).toBe(true);
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
    // Twenty-five of them count one: so few that a slow machine sends more.
    const mesh = await peers.open({ limits: { controlFramesPerSecond: 10 } });
    await expectThrownOut(mesh, () => yamuxFrame(DATA, { stream: 99 }, Uint8Array.of(0)));
  });

  it('a frame that announces more than its window is not waited for', async () => {
    await using peers = new Peers();
    const mesh = await peers.open();
    await expectThrownOut(mesh, () => yamuxFrame(DATA, { flags: SYN, stream: 101, length: 2 ** 31 }), 1);
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
