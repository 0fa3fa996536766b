/**
 * Goal: a peer that nobody can dial is reached through peers that can be, and relaying has bounds. Method: real peers on
 * loopback; one that listens nowhere stands for one behind NAT, one that announces its address for one the world reaches.
 */
import { multiaddr } from '@multiformats/multiaddr';
import { createServer } from 'node:net';
import { describe, expect, test } from 'vitest';

import { announced } from '../../../node/mesh/nat.ts';
import type { Mesh, MeshLimits } from '../../../node/mesh/index.ts';
import { Peers, text, until } from './peers.ts';

const LIMITS = { maxFrameBytes: 1024 * 1024, maxStreamsPerPeer: 8, maxStreams: 64 };

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

/** A peer that the world reaches, and that relays. */
async function openRelay(peers: Peers, limits: Partial<MeshLimits> = {}): Promise<Mesh> {
  const address = `/ip4/127.0.0.1/tcp/${await freePort()}`;
  const relay = await peers.open({ listen: [address], announce: [address], relay: true, limits });
  await until('the relay is open', () => relay.reachability.relaying !== undefined);
  return relay;
}

/** A peer that nobody can dial, with its places at the relays. */
async function openHidden(peers: Peers, relays: readonly Mesh[]): Promise<Mesh> {
  const hidden = await peers.open({ listen: [], bootstrap: relays.flatMap((relay) => [...relay.addresses]) });
  await until('places at relays', () => hidden.reachability.relays.length === Math.min(2, relays.length));
  return hidden;
}

async function echo(mesh: Mesh): Promise<void> {
  await mesh.handle('/echo', LIMITS, async (channel) => {
    for await (const frame of channel) await channel.send(frame);
  });
}

async function ask(from: Mesh, to: Mesh, word: string): Promise<string> {
  const channel = await from.open(to.self, '/echo', { addresses: to.addresses });
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
  const stranger = await peers.open({ bootstrap: [...relays[0]!.addresses] });
  expect(await ask(stranger, hidden, 'hello')).toBe('hello');
  expect(relays.map((relay) => relay.reachability.relaying?.circuits)).toContain(1);
  expect(Math.max(...relays.map((relay) => relay.reachability.relaying?.bytes ?? 0))).toBeGreaterThan(10);
});
