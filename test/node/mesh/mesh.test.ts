/**
 * Goal: a peer keeps its name and its friends, finds content, keeps strangers in bounds, and says what is wrong. Method:
 * real libp2p nodes on loopback; gate limits with a clock that is turned by hand.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { generateKeyPair } from '@libp2p/crypto/keys';
import { noise } from '@libp2p/noise';
import { peerIdFromPrivateKey } from '@libp2p/peer-id';
import { tcp } from '@libp2p/tcp';
import { yamux } from '@libp2p/yamux';
import { multiaddr } from '@multiformats/multiaddr';
import { createLibp2p } from 'libp2p';
import { describe, expect, it } from 'vitest';

import { Gate } from '../../../node/mesh/gater.ts';
import { reachOf } from '../../../node/mesh/ip.ts';
import { addressOf, parseAddresses, peerIdOf } from '../../../node/mesh/peer.ts';
import { type PeerEvent } from '../../../node/mesh/index.ts';
import { keyPairFromSeed } from '../../../protocol/ed25519.ts';
import { systemClock, systemRandom } from '../../../protocol/env.ts';
import { rangeOf } from '../../../protocol/multiaddress.ts';
import { freePort } from '../../fixtures/port.ts';
import { rawPeer } from '../../integration/hostile/raw-peer.ts';
import { Peers, collect, flows, pause, text, until } from './peers.ts';

const TOPIC = '/molt/1/offers/cpu';

describe('a peer', () => {
  it('has one name: the public key on chain, in the PeerId and in its addresses', async () => {
    await using peers = new Peers();
    const key = keyPairFromSeed(systemRandom.bytes(32));
    const mesh = await peers.open({ key });
    expect(mesh.self).toBe(key.address);
    expect(addressOf(peerIdOf(key.address))).toBe(key.address);
    expect(mesh.addresses).toEqual([expect.stringContaining(`/p2p/${peerIdOf(key.address).toString()}`)]);
  });

  it('keeps its name over a restart, and those who knew it find it again by themselves', async () => {
    await using peers = new Peers();
    const directory = await mkdtemp(join(tmpdir(), 'molt-mesh-'));
    const key = keyPairFromSeed(systemRandom.bytes(32));
    const listen = [`/ip4/127.0.0.1/tcp/${await freePort()}`];
    const first = await peers.open({ key, directory, listen });
    const friend = await peers.open({ bootstrap: first.addresses, listen: [] });
    const events: PeerEvent[] = [];
    friend.onPeer((event) => events.push(event));
    await until('they are connected', () => friend.isConnected(first.self));
    await first[Symbol.asyncDispose]();
    await until('the loss is noticed', () => !friend.isConnected(key.address));
    const second = await peers.open({ key, directory, listen });
    expect(second.self).toBe(first.self);
    const heard = await collect(friend, TOPIC);
    await until('the friend is back', () => second.isConnected(friend.self));
    await flows(second, TOPIC, heard);
    // A machine so busy that gossip is not heard for five seconds brings a further reconnection.
    expect(events.slice(0, 3).map((event) => event.type)).toEqual(['connected', 'disconnected', 'connected']);
    await second[Symbol.asyncDispose]();
    await rm(directory, { recursive: true });
  });

  it('goes on dialling a bootstrap peer that is not up yet', async () => {
    await using peers = new Peers();
    const key = keyPairFromSeed(systemRandom.bytes(32));
    const address = `/ip4/127.0.0.1/tcp/${await freePort()}`;
    const early = await peers.open({ bootstrap: [`${address}/p2p/${peerIdOf(key.address).toString()}`], listen: [] });
    await pause(1_500);
    expect(early.peers()).toEqual([]);
    await peers.open({ key, listen: [address] });
    await until('the early one gets through', () => early.isConnected(key.address));
  });

  it('connects to the friends of its friend, so that the loss of one does not split the rest', async () => {
    await using peers = new Peers();
    const hub = await peers.open();
    const left = await peers.open({ bootstrap: hub.addresses });
    const right = await peers.open({ bootstrap: hub.addresses });
    await until('the two know each other', () => left.isConnected(right.self));
    const heard = await collect(right, TOPIC);
    await hub[Symbol.asyncDispose]();
    await until('the hub is gone', () => left.peers().length === 1);
    await flows(left, TOPIC, heard);
  });

  it('finds who provides a content, through others', async () => {
    await using peers = new Peers();
    const hub = await peers.open();
    const provider = await peers.open({ bootstrap: hub.addresses });
    const seeker = await peers.open({ bootstrap: hub.addresses, listen: [], role: 'light' });
    await until('both are in', () => hub.peers().length === 2);
    const cid = 'bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy';
    const found: string[] = [];
    await until('the record is found', async () => {
      await provider.provide(cid);
      for await (const peer of seeker.findProviders(cid)) found.push(peer);
      return found.length > 0;
    });
    expect(found).toEqual([provider.self]);
    await seeker
      .open(provider.self, '/molt/1/none')
      .catch((error: unknown) => expect(error).toMatchObject({ code: 'mesh/unsupported' }));
    await expect(provider.provide('no cid')).rejects.toMatchObject({ code: 'protocol/malformed' });
  });

  it('refuses a peer whose key is not Ed25519', async () => {
    await using peers = new Peers();
    const mesh = await peers.open();
    const privateKey = await generateKeyPair('secp256k1');
    const other = await createLibp2p({
      privateKey,
      transports: [tcp()],
      connectionEncrypters: [noise()],
      streamMuxers: [yamux()],
    });
    expect(addressOf(peerIdFromPrivateKey(privateKey))).toBeUndefined();
    // The dialler may believe it is connected for a moment; the gate closes the door after the handshake.
    const connection = await other.dial(multiaddr(mesh.addresses[0] ?? '')).catch(() => undefined);
    await until('the connection is gone', () => connection === undefined || connection.status !== 'open');
    expect(mesh.peers()).toEqual([]);
    await other.stop();
  });

  it('says what is wrong with an address, a network name, a port in use and a directory in use', async () => {
    await using peers = new Peers();
    const directory = await mkdtemp(join(tmpdir(), 'molt-mesh-'));
    const mesh = await peers.open({ directory });
    await expect(peers.open({ listen: ['127.0.0.1:4001'] })).rejects.toMatchObject({ code: 'config/invalid' });
    await expect(peers.open({ network: 'a/b' })).rejects.toMatchObject({ code: 'config/invalid' });
    const inUse = (mesh.addresses[0] ?? '').replace(/\/p2p\/.*/, '');
    const port = inUse.split('/').at(-1);
    await expect(peers.open({ listen: [inUse] })).rejects.toMatchObject({
      code: 'mesh/listen-failed',
      message:
        `cannot listen at ${inUse}: listen EADDRINUSE: address already in use 127.0.0.1:${port}; ` +
        'choose another port (setting `listen`) or stop what uses it',
    });
    await expect(peers.open({ directory })).rejects.toMatchObject({ code: 'node/already-running' });
    await mesh[Symbol.asyncDispose]();
    await rm(directory, { recursive: true });
  });

  it('closes twice without complaint, and refuses to be used afterwards', async () => {
    await using peers = new Peers();
    const [a, b] = await peers.pair();
    await b[Symbol.asyncDispose]();
    await b[Symbol.asyncDispose]();
    await expect(b.open(a.self, '/molt/1/x')).rejects.toMatchObject({ code: 'node/stopped' });
    await expect(b.connect(a.addresses)).rejects.toMatchObject({ code: 'node/stopped' });
    await expect(b.publish(TOPIC, text('x'))).rejects.toMatchObject({ code: 'node/stopped' });
  });
});

describe('the gate', () => {
  const limits = {
    acceptsPerSecond: 4,
    acceptsPerSecondPerRange: 1,
    acceptsPerSecondPerLocalRange: 40,
    connectionsPerRange: 4,
    connectionsPerLocalRange: 8,
    banMs: 1_000,
  };

  function gateWithClock(): { gate: Gate; turn: (ms: number) => void } {
    let now = 0;
    const gate = new Gate({ ...systemClock, monotonic: () => now }, limits);
    return { gate, turn: (ms) => (now += ms) };
  }

  const accepted = (gate: Gate, ip: string, times: number): number =>
    Array.from({ length: times }, () => gate.accepts(ip)).filter(Boolean).length;

  it('accepts a burst from one range and then one a second', () => {
    const { gate, turn } = gateWithClock();
    expect(accepted(gate, '203.0.113.7', 10)).toBe(3);
    expect(accepted(gate, '203.0.113.99', 10)).toBe(0);
    turn(2_000);
    expect(accepted(gate, '203.0.113.8', 10)).toBe(2);
  });

  it('bounds all ranges together; loopback and private ranges have a wide limit of their own', () => {
    const { gate } = gateWithClock();
    let total = 0;
    for (let index = 0; index < 100; index++) total += accepted(gate, `203.0.${index}.1`, 1);
    expect(total).toBe(12);
    expect(accepted(gate, '127.0.0.1', 200)).toBe(120);
    expect(accepted(gate, '192.168.1.5', 200)).toBe(120);
  });

  it('bans until the time is up', () => {
    const { gate, turn } = gateWithClock();
    const { address } = keyPairFromSeed(systemRandom.bytes(32));
    gate.ban(address);
    expect(gate.isBanned(address)).toBe(true);
    expect(gate.hooks.denyInboundEncryptedConnection?.(peerIdOf(address), {} as never)).toBe(true);
    turn(1_001);
    expect(gate.isBanned(address)).toBe(false);
  });

  it('dials into private networks only when this node lives in one', () => {
    const { gate } = gateWithClock();
    const inside = multiaddr('/ip4/192.168.1.5/tcp/4001');
    expect(gate.mayDial(inside)).toBe(false);
    expect(gate.mayDial(multiaddr('/ip4/203.0.113.7/tcp/4001'))).toBe(true);
    gate.livesAt([multiaddr('/ip4/192.168.1.1/tcp/4001')]);
    expect(gate.mayDial(inside)).toBe(true);
    expect(gate.mayDial(multiaddr('/ip4/127.0.0.1/tcp/8899'))).toBe(false);
  });
});

describe('addresses', () => {
  it.each([
    ['127.0.0.1', 'loopback'],
    ['::1', 'loopback'],
    ['10.1.2.3', 'private'],
    ['172.31.0.1', 'private'],
    ['100.64.0.1', 'private'],
    ['169.254.169.254', 'private'],
    ['fd00::1', 'private'],
    ['fe80::1', 'private'],
    ['::ffff:127.0.0.1', 'loopback'],
    ['::ffff:192.168.0.1', 'private'],
    ['172.32.0.1', 'public'],
    ['8.8.8.8', 'public'],
    ['2001:db8::1', 'public'],
    ['example.org', 'public'],
  ])('%s is %s', (ip, reach) => expect(reachOf(ip)).toBe(reach));

  it('share an accept budget by /24 and /48', () => {
    expect(rangeOf('203.0.113.7')).toBe(rangeOf('203.0.113.200'));
    expect(rangeOf('203.0.114.7')).not.toBe(rangeOf('203.0.113.7'));
    expect(rangeOf('::ffff:203.0.113.7')).toBe(rangeOf('203.0.113.7'));
    expect(rangeOf('2001:db8:1::1')).toBe(rangeOf('2001:0db8:0001:ffff::1'));
    expect(rangeOf('2001:db8:2::1')).not.toBe(rangeOf('2001:db8:1::1'));
    expect(rangeOf('2001:db8::1')).toBe(rangeOf('2001:db8:0:5::1'));
  });

  it('of strangers are taken when they parse and name the right peer, 16 at most', () => {
    const peer = peerIdOf(keyPairFromSeed(systemRandom.bytes(32)).address);
    const other = peerIdOf(keyPairFromSeed(systemRandom.bytes(32)).address);
    const good = '/ip4/203.0.113.7/tcp/4001';
    expect(parseAddresses([good, 'nonsense', `${good}/p2p/${other.toString()}`], peer).map(String)).toEqual([
      `${good}/p2p/${peer.toString()}`,
    ]);
    expect(
      parseAddresses(
        Array.from({ length: 40 }, () => good),
        peer,
      ),
    ).toHaveLength(16);
    expect(() => parseAddresses(['x'.repeat(300)], peer)).toThrow(
      expect.objectContaining({ code: 'protocol/malformed' }),
    );
    expect(() => parseAddresses([])).toThrow(expect.objectContaining({ code: 'protocol/malformed' }));
  });
});

describe('pings', () => {
  it('answers as many at once as the parts of a peer send without knowing of each other', async () => {
    await using peers = new Peers();
    const mesh = await peers.open();
    await using other = await rawPeer(mesh.addresses[0] ?? '');
    // The DHT and the connection monitor ping without knowing of each other; libp2p's own limits are one out and two in.
    const payload = Buffer.alloc(32, 7);
    const echoes = await Promise.all(
      Array.from({ length: 6 }, async () => {
        const stream = await other.connection.newStream('/ipfs/ping/1.0.0', { maxOutboundStreams: 6 });
        const echo = new Promise<Uint8Array>((resolve, reject) => {
          stream.addEventListener('message', ({ data }) => resolve(data.subarray()), { once: true });
          stream.addEventListener('close', () => reject(new Error('the ping was refused')), { once: true });
        });
        // All six are open before the first is answered.
        await until('all are open', () => other.connection.streams.length >= 6);
        stream.send(payload);
        return echo;
      }),
    );
    for (const echo of echoes) expect(Buffer.from(echo)).toEqual(payload);
    expect(mesh.peers()).toHaveLength(1);
  });
});
