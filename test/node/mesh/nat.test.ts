/**
 * Goal: a peer that nobody can dial is reached through peers that can be, and relaying has bounds. Method: real peers on
 * loopback; one that listens nowhere stands for one behind NAT, one that announces its address for one the world reaches.
 */
import { once } from 'node:events';

import { identify } from '@libp2p/identify';
import type { Libp2p, PeerId, Stream } from '@libp2p/interface';
import { noise } from '@libp2p/noise';
import { tcp } from '@libp2p/tcp';
import { yamux } from '@libp2p/yamux';
import { multiaddr } from '@multiformats/multiaddr';
import { createLibp2p } from 'libp2p';
import { describe, expect, test } from 'vitest';

import { announced } from '../../../node/mesh/nat.ts';
import type { Mesh, MeshLimits, MeshOpenOptions, Reachability } from '../../../node/mesh/index.ts';
import { peerIdOf } from '../../../node/mesh/peer.ts';
import type { Clock, Env } from '../../../protocol/env.ts';
import { RELAY_PROTOCOL, type Reservations, circuits } from '../../../node/mesh/relay.ts';
import { freePort } from '../../fixtures/port.ts';
import { Peers, env, pause, text, until } from './peers.ts';

const LIMITS = { maxFrameBytes: 1024 * 1024, maxStreamsPerPeer: 8, maxStreams: 64 };

/** A peer that the world reaches, and that relays. */
async function openRelay(peers: Peers, limits: Partial<MeshLimits> = {}): Promise<Mesh> {
  const address = `/ip4/127.0.0.1/tcp/${await freePort()}`;
  const relay = await peers.open({ listen: [address], announce: [address], relay: true, limits });
  await until('the relay is open', () => relay.reachability.relaying !== undefined);
  return relay;
}

/** A peer that nobody can dial, with its places at the relays. */
async function openHidden(peers: Peers, relays: readonly Mesh[], on: Env = env): Promise<Mesh> {
  const hidden = await peers.open({ listen: [], bootstrap: relays.flatMap((relay) => [...relay.addresses]) }, on);
  await until('places at relays', () => hidden.reachability.relays.length === Math.min(2, relays.length));
  return hidden;
}

/**
 * A peer on whose word nobody relies: the DHT names it to nobody, so that none of them dials it, and what it says to a
 * hidden one goes through a relay.
 */
async function openStranger(peers: Peers, bootstrap: readonly string[] = []): Promise<Mesh> {
  return peers.open({ role: 'light', bootstrap });
}

async function echo(mesh: Mesh): Promise<void> {
  await mesh.handle('/echo', LIMITS, async (channel) => {
    for await (const frame of channel) await channel.send(frame);
  });
}

/** Tries again where the machine was too busy for the handshakes of relay and circuit, which is no refusal. */
async function openEcho(from: Mesh, to: Mesh, options: MeshOpenOptions = {}): ReturnType<Mesh['open']> {
  for (let tries = 1; ; tries++) {
    try {
      return await from.open(to.self, '/echo', { addresses: to.addresses, ...options });
    } catch (error) {
      const { cause } = error as { cause?: unknown };
      if (tries === 3 || !(cause instanceof Error) || cause.name !== 'TimeoutError') throw error;
    }
  }
}

async function ask(from: Mesh, to: Mesh, word: string): Promise<string> {
  const channel = await openEcho(from, to);
  await channel.send(text(word));
  for await (const frame of channel) {
    await channel.close();
    return Buffer.from(frame).toString();
  }
  return 'nothing';
}

describe('what is told', () => {
  const lan = multiaddr('/ip4/192.168.1.7/tcp/4170');
  const world = multiaddr('/ip4/8.8.4.4/tcp/4170');
  const relayed = multiaddr('/ip4/9.9.9.9/tcp/4170/p2p-circuit');
  const none = { given: new Set<string>(), circuits: [] };

  test('a confirmed public address is told, and nothing that the world cannot dial', () => {
    expect(announced([lan, world], { ...none, circuits: [relayed] })).toEqual({ way: 'direct', addresses: [world] });
  });

  test('circuits are told instead of local addresses where no public one is confirmed', () => {
    expect(announced([lan], { ...none, circuits: [relayed] })).toEqual({ way: 'relayed', addresses: [relayed] });
  });

  test('local addresses are told where there is nothing else', () => {
    expect(announced([lan], none)).toEqual({ way: 'local', addresses: [lan] });
  });

  test('an address that the operator vouches for comes first, public or not', () => {
    expect(announced([world, lan], { ...none, given: new Set([lan.toString()]) })).toEqual({
      way: 'direct',
      addresses: [lan, world],
    });
  });

  test('a circuit that libp2p claims without a place at its relay is not told', () => {
    expect(announced([relayed, lan], none)).toEqual({ way: 'local', addresses: [lan] });
  });

  test('the list is bounded', () => {
    const many = Array.from({ length: 50 }, (_, index) => multiaddr(`/ip4/8.8.4.${index}/tcp/4170`));
    expect(announced(many, none).addresses).toHaveLength(8);
  });
});

test('a peer that listens nowhere tells circuits, and one that is not known to it talks to it through them', async () => {
  await using peers = new Peers();
  const relays = [await openRelay(peers), await openRelay(peers)];
  const hidden = await openHidden(peers, relays);
  await echo(hidden);
  expect(hidden.reachability).toMatchObject({ way: 'relayed' });
  expect(hidden.addresses).toHaveLength(2);
  for (const address of hidden.addresses) expect(multiaddr(address).bytes.length).toBeLessThanOrEqual(96);
  const stranger = await openStranger(peers, relays[0]!.addresses);
  expect(await ask(stranger, hidden, 'hello')).toBe('hello');
  expect(relays.map((relay) => relay.reachability.relaying?.circuits)).toContain(1);
  expect(Math.max(...relays.map((relay) => relay.reachability.relaying?.bytes ?? 0))).toBeGreaterThan(10);
});

test('a relay that is lost is replaced', async () => {
  await using peers = new Peers();
  const relays = [await openRelay(peers), await openRelay(peers), await openRelay(peers)];
  const hidden = await openHidden(peers, relays);
  const [lost] = hidden.reachability.relays;
  const changes: Reachability[] = [];
  using _ = hidden.onReachability((now) => changes.push(now));
  await relays.find(({ self }) => self === lost)![Symbol.asyncDispose]();
  await until('the third relay holds a place, and that is told', () => {
    const now = hidden.reachability.relays;
    const told = changes.at(-1)?.relays ?? [];
    return [now, told].every((relaysHeld) => relaysHeld.length === 2 && !relaysHeld.includes(lost!));
  });
  expect(changes.at(-1)).toMatchObject({ way: 'relayed', relays: hidden.reachability.relays });
  expect(hidden.addresses.some((address) => address.includes(peerIdOf(lost!).toString()))).toBe(false);
});

test('a place at a relay is free again when the peer that had it is gone', async () => {
  await using peers = new Peers();
  const relay = await openRelay(peers);
  const hidden = await openHidden(peers, [relay]);
  expect(relay.reachability.relaying).toMatchObject({ reservations: 1 });
  await hidden[Symbol.asyncDispose]();
  await until('the place is free', () => relay.reachability.relaying?.reservations === 0);
});

test('a peer that nobody reaches relays for nobody', async () => {
  await using peers = new Peers();
  const local = await peers.open({ relay: true });
  const other = await peers.open({ listen: [], bootstrap: [...local.addresses] });
  await until('connected', () => other.peers().length === 1);
  await pause(1_500);
  expect([local.reachability, other.reachability]).toMatchObject([{ way: 'local' }, { way: 'local', relays: [] }]);
  expect(local.reachability.relaying).toBeUndefined();
});

describe('a relay', () => {
  test('holds no more places than it has', async () => {
    await using peers = new Peers();
    const relay = await openRelay(peers, { relayReservationsMax: 1 });
    await openHidden(peers, [relay]);
    const late = await peers.open({ listen: [], bootstrap: [...relay.addresses] });
    await until('connected', () => late.peers().length === 1);
    await pause(1_500);
    expect(late.reachability).toMatchObject({ way: 'local', relays: [] });
    expect(relay.reachability.relaying).toMatchObject({ reservations: 1 });
  });

  test('carries no more circuits than it may', async () => {
    await using peers = new Peers();
    const relay = await openRelay(peers, { relayCircuitsMax: 2 });
    const hidden = await openHidden(peers, [relay]);
    await echo(hidden);
    const strangers = [await openStranger(peers), await openStranger(peers), await openStranger(peers)];
    expect(await ask(strangers[0]!, hidden, 'one')).toBe('one');
    expect(await ask(strangers[1]!, hidden, 'two')).toBe('two');
    await expect(ask(strangers[2]!, hidden, 'three')).rejects.toMatchObject({ code: 'mesh/unreachable' });
    await strangers[0]![Symbol.asyncDispose]();
    await until('a circuit is free', () => relay.reachability.relaying?.circuits === 1);
    expect(await ask(strangers[2]!, hidden, 'three')).toBe('three');
  });

  test('renews the places that it holds while it carries all the circuits that it may', async () => {
    await using peers = new Peers();
    const relay = await openRelay(peers, { relayCircuitsMax: 1 });
    const hidden = await openHidden(peers, [relay]);
    await echo(hidden);
    expect(await ask(await openStranger(peers), hidden, 'one')).toBe('one');
    const client = await openClient();
    try {
      const { remotePeer } = await client.libp2p.dial(multiaddr(relay.addresses[0]));
      await client.reservations.addRelay(remotePeer, 'configured');
      expect(relay.reachability.relaying).toMatchObject({ reservations: 2, circuits: 1 });
    } finally {
      await client.libp2p.stop();
    }
  });

  test('has room again when peers ask for circuits and are gone before they get them', async () => {
    await using peers = new Peers();
    const relay = await openRelay(peers, { relayCircuitsMax: 1 });
    const hidden = await openHidden(peers, [relay]);
    await echo(hidden);
    const client = await openClient();
    try {
      const connection = await client.libp2p.dial(multiaddr(relay.addresses[0]));
      for (const isAborted of [true, true, false]) {
        const stream = await connection.newStream(RELAY_PROTOCOL);
        stream.send(circuitTo(peerIdOf(hidden.self)));
        // In one packet with what it asks for.
        if (isAborted) stream.abort(new Error('gone'));
        else await once(stream, 'message');
      }
      expect(relay.reachability.relaying).toMatchObject({ circuits: 1 });
      await client.libp2p.stop();
      expect(await ask(await openStranger(peers), hidden, 'hello')).toBe('hello');
    } finally {
      await client.libp2p.stop();
    }
  });

  test('carries no questions of the DHT, and no circuit is opened for one', async () => {
    await using peers = new Peers();
    const relay = await openRelay(peers);
    const hidden = await openHidden(peers, [relay]);
    const stranger = await openStranger(peers, relay.addresses);
    await until('connected', () => stranger.peers().length === 1);
    await hidden.provide(CID);
    await until('the relay tells of the hidden one', async () => {
      for await (const provider of stranger.findProviders(CID)) if (provider === hidden.self) return true;
      return false;
    });
    for (let walk = 0; walk < 3; walk++) for await (const _ of stranger.wander()) continue;
    expect(relay.reachability.relaying).toMatchObject({ circuits: 0, bytes: 0 });
  });

  test('ends a circuit at its bytes, and the next one works', async () => {
    await using peers = new Peers();
    const relay = await openRelay(peers, { relayCircuitBytes: 256 * 1024 });
    const hidden = await openHidden(peers, [relay]);
    await echo(hidden);
    const stranger = await openStranger(peers);
    await expect(pump(stranger, hidden, 1024 * 1024)).rejects.toMatchObject({ code: 'mesh/closed' });
    expect(relay.reachability.relaying!.bytes).toBeLessThan(1024 * 1024);
    expect(await ask(stranger, hidden, 'again')).toBe('again');
  });

  test('carries nothing more when the bytes of the hour are used up', async () => {
    await using peers = new Peers();
    const relay = await openRelay(peers, { relayBytesPerHour: 256 * 1024 });
    const hidden = await openHidden(peers, [relay]);
    await echo(hidden);
    const stranger = await openStranger(peers);
    await expect(pump(stranger, hidden, 1024 * 1024)).rejects.toMatchObject({ code: 'mesh/closed' });
    // What is left may be enough for the handshake, and may not.
    await expect(pump(stranger, hidden, 1024 * 1024)).rejects.toMatchObject({
      code: expect.stringMatching(/^mesh\/(closed|unreachable)$/) as string,
    });
    expect(relay.reachability.relaying!.bytes).toBeLessThan(512 * 1024);
  });

  test('does not hold what a fast sender has for one that reads nothing, and brings it once that one reads', async () => {
    await using peers = new Peers();
    const relay = await openRelay(peers);
    const [hidden, stranger] = [await openClient(), await openClient()];
    try {
      const { remotePeer } = await hidden.libp2p.dial(multiaddr(relay.addresses[0]));
      await hidden.reservations.addRelay(remotePeer, 'configured');
      const target = `${relay.addresses[0]}/p2p-circuit/p2p/${hidden.libp2p.peerId.toString()}`;
      await stranger.libp2p.dial(multiaddr(target));
      // Below what the two ends agree on: their own windows would make the sender wait.
      const half = ({ libp2p }: typeof hidden, protocol: string): Stream =>
        libp2p.getConnections(remotePeer)[0]!.streams.find((stream) => stream.protocol === protocol)!;
      const [from, to] = [half(stranger, RELAY_PROTOCOL), half(hidden, '/libp2p/circuit/relay/0.2.0/stop')];
      let received = 0;
      to.pause();
      to.addEventListener('message', ({ data }) => (received += data.byteLength));
      let sent = 0;
      const drain = (ms: number): Promise<boolean> =>
        Promise.race([once(from, 'drain').then(() => true), pause(ms).then(() => false)]);
      do {
        while (sent < 128 * MIB && from.send(new Uint8Array(64 * 1024))) sent += 64 * 1024;
        sent += 64 * 1024;
      } while (sent < 128 * MIB && (await drain(2_000)));
      expect(sent).toBeLessThan(32 * MIB);
      to.resume();
      await until('everything came', () => received >= sent);
    } finally {
      await stranger.libp2p.stop();
      await hidden.libp2p.stop();
    }
  });

  test('holds a place for as long as it is renewed', async () => {
    await using peers = new Peers();
    const relay = await openRelay(peers, { relayReservationMs: 1_500 });
    const client = await openClient();
    try {
      const { remotePeer } = await client.libp2p.dial(multiaddr(relay.addresses[0]));
      for (let renewal = 0; renewal < 5; renewal++) {
        const renewedMs = performance.now();
        const ageMs = (): number => performance.now() - renewedMs;
        await client.reservations.addRelay(remotePeer, 'configured');
        // On a machine that stands still for longer it has run out.
        for (; ageMs() < 1_000; await pause(50)) {
          expect(relay.reachability.relaying).toMatchObject({ reservations: 1 });
        }
      }
    } finally {
      await client.libp2p.stop();
    }
  });
});

test('a circuit is left once nothing has run on it for a while, and not under the hands of who has just opened it', async () => {
  await using peers = new Peers();
  const relay = await openRelay(peers);
  let stopped: number | undefined;
  const clock: Clock = { ...env.clock, monotonic: () => stopped ?? env.clock.monotonic() };
  const hidden = await openHidden(peers, [relay], { ...env, clock });
  await echo(hidden);
  const stranger = await openClient(['/ip4/127.0.0.1/tcp/0']);
  try {
    await hidden.connect(stranger.libp2p.getMultiaddrs().map(String));
    stopped = env.clock.monotonic();
    const circuit = await stranger.libp2p.dial(multiaddr(hidden.addresses[0]), { force: true });
    expect(circuit.limits).toBeDefined();
    // It looks several times, and by its clock no time has passed.
    await pause(2_500);
    const stream = await circuit.newStream('/molt-test/echo', { runOnLimitedConnection: true });
    expect(relay.reachability.relaying).toMatchObject({ circuits: 1 });
    stopped = undefined;
    await stream.close();
    await until('the circuit is left', () => relay.reachability.relaying?.circuits === 0);
    const limitsOf = (): unknown[] => stranger.libp2p.getConnections(peerIdOf(hidden.self)).map(({ limits }) => limits);
    await until('the other end has heard of it', () => limitsOf().length === 1);
    expect(limitsOf()).toEqual([undefined]);
  } finally {
    await stranger.libp2p.stop();
  }
});

test('circuits are refused from a peer that was not chosen as a relay', async () => {
  await using peers = new Peers();
  const node = await peers.open();
  const client = await openClient();
  try {
    const connection = await client.libp2p.dial(multiaddr(node.addresses[0]));
    const asked: string[] = [];
    await client.libp2p.handle('/libp2p/circuit/relay/0.2.0/hop', () => void asked.push('for a place'));
    const stream = await connection.newStream('/libp2p/circuit/relay/0.2.0/stop');
    await until('it is refused', () => stream.status === 'reset');
    expect(asked).toEqual([]);
    expect(node.addresses.every((address) => !address.includes('p2p-circuit'))).toBe(true);
  } finally {
    await client.libp2p.stop();
  }
});

const MIB = 1024 * 1024;
const CID = 'bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e';

/** Sends so much, reading what comes back, until it is through or breaks. */
async function pump(from: Mesh, to: Mesh, bytes: number): Promise<void> {
  const channel = await openEcho(from, to, { maxFrameBytes: MIB });
  const reading = (async () => {
    let got = 0;
    for await (const frame of channel) if ((got += frame.length) >= bytes) break;
  })();
  reading.catch(() => undefined);
  for (let sent = 0; sent < bytes; sent += 16 * 1024) await channel.send(new Uint8Array(16 * 1024));
  await reading;
}

/** What a peer asks a relay for (HopMessage of circuit relay v2): type CONNECT, and the peer with its id. */
function circuitTo(peer: PeerId): Uint8Array {
  const { bytes: id } = peer.toMultihash();
  const message = Uint8Array.of(0x08, 1, 0x12, id.length + 2, 0x0a, id.length, ...id);
  return Uint8Array.of(message.length, ...message);
}

/** libp2p by itself, with the circuits of a node, to ask what a node would not ask. */
async function openClient(listen: readonly string[] = []): Promise<{ libp2p: Libp2p; reservations: Reservations }> {
  let reservations: Reservations | undefined;
  const libp2p = await createLibp2p({
    addresses: { listen: [...listen] },
    transports: [tcp(), circuits((made) => (reservations = made))],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    // It would end a connection on which a test says nothing that the other end understands.
    connectionMonitor: { enabled: false },
    services: { identify: identify() },
  });
  return { libp2p, reservations: reservations! };
}
