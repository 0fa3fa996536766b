/**
 * Goal: an artifact moves between two peers, every block is checked, a cut goes on where it stopped, and a hostile sender
 * gains nothing. Method: two real peers on loopback, and senders that speak the protocol with wrong content.
 */
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, readdir, rm, stat, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { CarReader } from '@ipld/car';
import * as dagCbor from '@ipld/dag-cbor';
import * as dagPb from '@ipld/dag-pb';
import { UnixFS } from 'ipfs-unixfs';
import { CID } from 'multiformats/cid';
import * as raw from 'multiformats/codecs/raw';
import { sha256 } from 'multiformats/hashes/sha2';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { Channel, Network } from '../../../market/ports.ts';
import { encodeCarHeader, encodeSection } from '../../../node/mesh/artifact/car.ts';
import { type Artifacts, type Mesh, openArtifacts } from '../../../node/mesh/index.ts';
import { ArtifactAnswer, ArtifactRequest } from '../../../protocol/molt.js';
import { STREAMS } from '../../../protocol/wire.ts';
import { Peers, env, until } from '../mesh/peers.ts';

const MIB = 1024 * 1024;
const LIMIT = { maxBytes: 64 * MIB };

let directory: string;
let peers: Peers;
let seller: Mesh;
let buyer: Mesh;
let here: Artifacts;
let there: Artifacts;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'molt-transfer-'));
  peers = new Peers();
  [seller, buyer] = await peers.pair();
  there = await openArtifacts(env, { directory: join(directory, 'there'), quotaBytes: 256 * MIB });
  here = await openArtifacts(env, { directory: join(directory, 'here'), quotaBytes: 256 * MIB });
});

afterEach(async () => {
  await peers[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

async function block(bytes: Uint8Array, codec = raw.code): Promise<{ cid: CID; bytes: Uint8Array }> {
  return { cid: CID.createV1(codec, await sha256.digest(bytes)), bytes };
}

/** A file node over the given leaves. */
async function parent(leaves: readonly { cid: CID; bytes: Uint8Array }[]): Promise<{ cid: CID; bytes: Uint8Array }> {
  const content = new UnixFS({ type: 'file', blockSizes: leaves.map((leaf) => BigInt(leaf.bytes.length)) });
  const Links = leaves.map((leaf) => ({ Name: '', Hash: leaf.cid, Tsize: leaf.bytes.length }));
  return block(dagPb.encode({ Data: content.marshal(), Links }), dagPb.code);
}

/** What is asked: of which part, and how many of its first blocks the asker has. */
interface Asked {
  readonly root: CID;
  readonly leaves: boolean;
  readonly skip: number;
}

type Frames = (asked: Asked, channel: Channel) => AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

/** A sender that answers every request with an agreement, the header of a CAR and these frames. */
function answer(frames: Frames): Promise<AsyncDisposable> {
  return answerRaw(async function* (asked, channel) {
    yield ArtifactAnswer.encode({});
    yield encodeCarHeader(asked.root);
    yield* frames(asked, channel);
  });
}

/** A sender that answers every request with the same frames. */
function answerRaw(frames: Frames): Promise<AsyncDisposable> {
  const { protocol, ...limits } = STREAMS.artifact;
  return seller.handle(protocol, limits, async (channel) => {
    for await (const bytes of channel) {
      const { cid, leaves, have } = ArtifactRequest.decode(bytes);
      const skip = have.reduce((sum, byte) => sum + byte.toString(2).replaceAll('0', '').length, 0);
      for await (const frame of frames({ root: CID.decode(cid), leaves, skip }, channel)) await channel.send(frame);
    }
  });
}

/** A directory node over entries of these names, all of one content. */
async function folder(names: readonly string[], hash: CID): Promise<{ cid: CID; bytes: Uint8Array }> {
  const Links = names.map((Name) => ({ Name, Hash: hash, Tsize: 10 }));
  Links.sort((a, b) => Buffer.compare(Buffer.from(a.Name), Buffer.from(b.Name)));
  return block(dagPb.encode({ Data: new UnixFS({ type: 'directory' }).marshal(), Links }), dagPb.code);
}

/** A network that tells the size of every frame that arrives on its streams. */
function watchFrames(mesh: Mesh, tell: (bytes: number) => void): Network {
  return {
    self: mesh.self,
    isConnected: (peer) => mesh.isConnected(peer),
    addresses: mesh.addresses,
    handle: (protocol, limits, handler) => mesh.handle(protocol, limits, handler),
    open: async (to, protocol, options) => {
      const channel = await mesh.open(to, protocol, options);
      return {
        remote: channel.remote,
        send: (frame, signal) => channel.send(frame, signal),
        close: () => channel.close(),
        abort: (error) => channel.abort(error),
        async *[Symbol.asyncIterator]() {
          for await (const frame of channel) {
            tell(frame.length);
            yield frame;
          }
        },
      };
    },
  };
}

function varint(length: number): Uint8Array {
  const bytes = [];
  for (; length >= 0x80; length = Math.floor(length / 0x80)) bytes.push((length % 0x80) | 0x80);
  return Uint8Array.from([...bytes, length]);
}

describe('a transfer', () => {
  it.each([0, 5, 9 * MIB + 7, 48 * MIB])('brings a file of %d bytes to the other peer', async (size) => {
    const bytes = randomBytes(size);
    const { cid } = await there.addBytes(bytes);
    await there.serve(seller, () => true);
    const progress: [number, number | undefined][] = [];
    await here.fetch(buyer, seller.self, cid, { ...LIMIT, onProgress: (done, total) => progress.push([done, total]) });
    expect(await here.has(cid)).toBe(true);
    await here.export(cid, join(directory, 'out'), { ...LIMIT, maxEntries: 1 });
    expect((await readFile(join(directory, 'out'))).equals(bytes)).toBe(true);
    const last = progress.at(-1);
    expect(last?.[0]).toBe(last?.[1]);
    expect(last?.[0]).toBeGreaterThanOrEqual(size);
  });

  it('needs no connection beforehand when addresses are given', async () => {
    const { cid } = await there.addBytes(randomBytes(100));
    await there.serve(seller, () => true);
    const stranger = await peers.open({ bootstrap: [], listen: ['/ip4/127.0.0.1/tcp/0'] });
    await here.fetch(stranger, seller.self, cid, { ...LIMIT, addresses: seller.addresses });
    expect(await here.has(cid)).toBe(true);
  });

  it('does not tell a peer that may not have the artifact from one that asks for what is not there', async () => {
    const { cid } = await there.addBytes(randomBytes(100));
    const asked: string[] = [];
    await there.serve(seller, (peer, name) => {
      asked.push(`${peer} ${name}`);
      return false;
    });
    const absent = (await block(randomBytes(5))).cid.toString();
    const refusals: unknown[] = [];
    for (const one of [cid, absent])
      refusals.push(await here.fetch(buyer, seller.self, one, LIMIT).catch((error: unknown) => error));
    expect(refusals).toMatchObject([{ code: 'artifact/not-found' }, { code: 'artifact/not-found' }]);
    expect(asked).toEqual([`${buyer.self} ${cid}`]);
  });

  it('goes on at the block where it was cut', async () => {
    const leaves = await Promise.all(Array.from({ length: 6 }, () => block(randomBytes(MIB))));
    const root = await parent(leaves);
    const skips: (number | string)[] = [];
    await answer(async function* (asked, channel) {
      skips.push(asked.leaves ? asked.skip : 'nodes');
      if (!asked.leaves) {
        yield encodeSection(root);
        return;
      }
      for (const [index, one] of leaves.entries()) {
        if (index < asked.skip) continue;
        if (index === asked.skip + 3) {
          // A cut may overtake what was sent: it comes when that is there, behind the root.
          await until('three blocks are there', () => here.usedBytes > 3 * MIB);
          channel.abort(new Error('cable cut'));
          return;
        }
        yield encodeSection(one);
      }
    });
    await here.fetch(buyer, seller.self, root.cid.toString(), LIMIT);
    expect(skips).toEqual(['nodes', 0, 3]);
    await here.export(root.cid.toString(), join(directory, 'out'), { ...LIMIT, maxEntries: 1 });
    expect((await readFile(join(directory, 'out'))).equals(Buffer.concat(leaves.map((leaf) => leaf.bytes)))).toBe(true);
  });

  it('is tried again when it breaks before the first block, and given up when it always does', async () => {
    const leaf = await block(randomBytes(MIB));
    const root = await parent([leaf]);
    let [asked, breaks] = [0, 2];
    await answer(async function* (request, channel) {
      asked++;
      if (breaks-- > 0) channel.abort(new Error('cable cut'));
      else yield encodeSection(request.leaves ? leaf : root);
    });
    await here.fetch(buyer, seller.self, root.cid.toString(), LIMIT);
    expect(asked).toBe(4);
    [asked, breaks] = [0, 100];
    await here.remove(root.cid.toString());
    await expect(here.fetch(buyer, seller.self, root.cid.toString(), LIMIT)).rejects.toMatchObject({
      code: 'mesh/closed',
    });
    expect(asked).toBe(3);
  });

  it('does not send again what is here already, in whichever artifact it came', async () => {
    const shared = randomBytes(3 * MIB);
    await here.addBytes(shared);
    const parts = [shared.subarray(MIB), randomBytes(MIB), shared.subarray(0, MIB)];
    const { cid } = await there.addBytes(Buffer.concat(parts));
    await there.serve(seller, () => true);
    const came: number[] = [];
    const watched = watchFrames(buyer, (bytes) => came.push(bytes));
    await here.fetch(watched, seller.self, cid, LIMIT);
    // Two answers, two headers, the root, and the one block of four that was missing.
    expect(came.length).toBe(6);
    expect(came.filter((bytes) => bytes >= MIB)).toEqual([MIB + 36]);
    await here.export(cid, join(directory, 'out'), { ...LIMIT, maxEntries: 1 });
    expect((await readFile(join(directory, 'out'))).equals(Buffer.concat(parts))).toBe(true);
  });

  it('is a CAR on the wire that other tools read', async () => {
    const { cid } = await there.addBytes(randomBytes(2 * MIB + 5));
    await there.serve(seller, () => true);
    for (const { leaves, count } of [
      { leaves: false, count: 1 },
      { leaves: true, count: 3 },
    ]) {
      const channel = await buyer.open(seller.self, STREAMS.artifact.protocol, { maxFrameBytes: 2 * MIB });
      await channel.send(ArtifactRequest.encode({ cid: CID.parse(cid).bytes, leaves }));
      await channel.close();
      const parts: Uint8Array[] = [];
      for await (const frame of channel) parts.push(varint(frame.length), frame);
      // The first frame is the answer, empty for yes; the rest of the stream is the CAR.
      const car = await CarReader.fromBytes(Buffer.concat(parts.slice(2)));
      expect((await car.getRoots()).map(String)).toEqual([cid]);
      let blocks = 0;
      for await (const one of car.blocks()) {
        blocks++;
        expect((await sha256.digest(one.bytes)).digest).toEqual(one.cid.multihash.digest);
      }
      expect(blocks).toBe(count);
    }
  });

  it('says that a block was lost on the sending side when it comes to it', async () => {
    const { cid } = await there.addBytes(randomBytes(12 * MIB));
    await there.serve(seller, () => true);
    const blocks = join(directory, 'there', 'blocks');
    const paths = (await readdir(blocks, { recursive: true })).map((name) => join(blocks, name));
    const statuses = await Promise.all(paths.map(async (path) => ({ path, size: (await stat(path)).size })));
    const leaf = statuses.find(({ size }) => size === MIB);
    await truncate(leaf?.path ?? '', 10);
    await expect(here.fetch(buyer, seller.self, cid, LIMIT)).rejects.toMatchObject({
      code: expect.stringMatching(/^artifact\/(corrupt|not-found)$/) as string,
    });
    expect(await here.has(cid)).toBe(false);
  });

  it('goes on where an earlier call stopped, also after a restart', async () => {
    const { cid } = await there.addBytes(randomBytes(6 * MIB));
    const served = await there.serve(seller, () => true);
    const stop = new AbortController();
    const onProgress = (done: number): void => {
      if (done > 3 * MIB) stop.abort(new Error('enough for now'));
    };
    await expect(here.fetch(buyer, seller.self, cid, { ...LIMIT, onProgress, signal: stop.signal })).rejects.toThrow(
      'enough for now',
    );
    expect(await here.has(cid)).toBe(false);
    const again = await openArtifacts(env, { directory: join(directory, 'here'), quotaBytes: 256 * MIB });
    expect(again.usedBytes).toBeGreaterThan(3 * MIB);
    const seen: number[] = [];
    await again.fetch(buyer, seller.self, cid, { ...LIMIT, onProgress: (done) => seen.push(done) });
    expect(await again.has(cid)).toBe(true);
    await served[Symbol.asyncDispose]();
    await again.fetch(buyer, seller.self, cid, LIMIT);
  });

  it('fetches again what was damaged on this disk', async () => {
    const { cid } = await there.addBytes(randomBytes(3 * MIB));
    await there.serve(seller, () => true);
    await here.fetch(buyer, seller.self, cid, LIMIT);
    await rm(join(directory, 'here', 'blocks'), { recursive: true });
    await expect(here.export(cid, join(directory, 'out'), { ...LIMIT, maxEntries: 1 })).rejects.toMatchObject({
      code: 'artifact/not-found',
    });
    await here.fetch(buyer, seller.self, cid, LIMIT);
    await here.export(cid, join(directory, 'out'), { ...LIMIT, maxEntries: 1 });
  });

  it('keeps what a running fetch has brought when another artifact is removed meanwhile', async () => {
    const other = await here.addBytes(randomBytes(MIB));
    const leaves = await Promise.all(Array.from({ length: 4 }, () => block(randomBytes(1_000))));
    const root = await parent(leaves);
    const go = Promise.withResolvers<void>();
    let sent = 0;
    await answer(async function* (asked) {
      for (const one of asked.leaves ? leaves : [root]) {
        yield encodeSection(one);
        if (++sent === 3) await go.promise;
      }
    });
    const fetching = here.fetch(buyer, seller.self, root.cid.toString(), LIMIT);
    await until('three blocks are here', () => here.usedBytes > MIB + 2_000);
    await here.remove(other.cid);
    go.resolve();
    await fetching;
    await here.export(root.cid.toString(), join(directory, 'out'), { ...LIMIT, maxEntries: 1 });
  });
});

describe('a hostile sender', () => {
  it('cannot pass a block whose bytes are not its CID', async () => {
    const honest = await block(randomBytes(1_000));
    await answer(() => [encodeSection({ cid: honest.cid, bytes: randomBytes(1_000) })]);
    await expect(here.fetch(buyer, seller.self, honest.cid.toString(), LIMIT)).rejects.toMatchObject({
      code: 'artifact/corrupt',
    });
    expect(here.usedBytes).toBe(0);
  });

  it('cannot pass a block that was not asked for, though it hashes well', async () => {
    const wanted = await block(randomBytes(10));
    await answer(async function* () {
      yield encodeSection(await block(randomBytes(10)));
    });
    await expect(here.fetch(buyer, seller.self, wanted.cid.toString(), LIMIT)).rejects.toMatchObject({
      code: 'artifact/corrupt',
    });
    expect(here.usedBytes).toBe(0);
  });

  it('cannot end early', async () => {
    const leaves = [await block(randomBytes(10)), await block(randomBytes(10))];
    const root = await parent(leaves);
    await answer(async function* ({ leaves: isLeaves }, channel) {
      if (isLeaves) await channel.close();
      else yield encodeSection(root);
    });
    await expect(here.fetch(buyer, seller.self, root.cid.toString(), LIMIT)).rejects.toMatchObject({
      code: 'mesh/closed',
    });
    expect(await here.has(root.cid.toString())).toBe(false);
  });

  it.each([
    ['another root', async () => encodeCarHeader((await block(randomBytes(10))).cid)],
    ['another version', () => dagCbor.encode({ roots: [], version: 2 })],
    ['no root', () => dagCbor.encode({ roots: [], version: 1 })],
    ['no CBOR', () => Buffer.alloc(60, 0xff)],
    ['a kilobyte and more', () => dagCbor.encode({ roots: [], version: 1, more: 'x'.repeat(2_000) })],
  ])('cannot begin a CAR with a header of %s', async (_what, header) => {
    const wanted = await block(randomBytes(10));
    await answerRaw(async function* () {
      yield ArtifactAnswer.encode({});
      yield await header();
      yield encodeSection(wanted);
    });
    await expect(here.fetch(buyer, seller.self, wanted.cid.toString(), LIMIT)).rejects.toMatchObject({
      code: 'artifact/corrupt',
    });
    expect(here.usedBytes).toBe(0);
  });

  it('cannot send more than was agreed, nor a block above the limit', async () => {
    const { cid } = await there.addBytes(randomBytes(3 * MIB));
    const served = await there.serve(seller, () => true);
    await expect(here.fetch(buyer, seller.self, cid, { maxBytes: 2 * MIB })).rejects.toMatchObject({
      code: 'artifact/too-large',
      context: { reason: 'bytes' },
    });
    await served[Symbol.asyncDispose]();
    const fat = await block(randomBytes(MIB + 1));
    await answer(() => [encodeSection(fat)]);
    await expect(here.fetch(buyer, seller.self, fat.cid.toString(), LIMIT)).rejects.toMatchObject({
      code: 'artifact/too-large',
      context: { reason: 'blocks' },
    });
  });

  it('cannot send more than the tree claims: what comes is counted', async () => {
    const leaves = await Promise.all([block(randomBytes(900_000)), block(randomBytes(900_000))]);
    const content = new UnixFS({ type: 'file', blockSizes: [1n, 1n] });
    const Links = leaves.map((leaf) => ({ Name: '', Hash: leaf.cid, Tsize: 1 }));
    const root = await block(dagPb.encode({ Data: content.marshal(), Links }), dagPb.code);
    await answer(({ leaves: isLeaves }) => (isLeaves ? leaves : [root]).map(encodeSection));
    await expect(here.fetch(buyer, seller.self, root.cid.toString(), { maxBytes: MIB })).rejects.toMatchObject({
      code: 'artifact/too-large',
    });
  });

  it('cannot lead into a tree without a bottom', async () => {
    let node = await block(randomBytes(10));
    const chain = [node];
    for (let level = 0; level < 80; level++) {
      node = await parent([node]);
      chain.unshift(node);
    }
    await answer(({ leaves }) => (leaves ? chain.slice(-1) : chain.slice(0, -1)).map(encodeSection));
    await expect(here.fetch(buyer, seller.self, node.cid.toString(), LIMIT)).rejects.toMatchObject({
      code: 'artifact/too-large',
      context: { reason: 'depth' },
    });
  });

  it.each([
    ['..', 'name'],
    ['/etc/passwd', 'characters'],
    ['a\0b', 'characters'],
    ['x'.repeat(256), 'length'],
  ])('gets no leaf taken for a tree with an entry called %j', async (name, reason) => {
    const leaf = await block(randomBytes(10));
    const root = await folder([name], leaf.cid);
    let asked = 0;
    await answer(({ leaves }) => {
      if (leaves) asked++;
      return [encodeSection(root)];
    });
    await expect(here.fetch(buyer, seller.self, root.cid.toString(), LIMIT)).rejects.toMatchObject({
      code: 'artifact/unsafe-path',
      context: { reason },
    });
    expect(asked).toBe(0);
  });

  it('gets no leaf taken for links, names that collide, too many entries, or nodes that unfold to terabytes', async () => {
    const leaf = await block(new Uint8Array(MIB));
    const symlink = new UnixFS({ type: 'symlink', data: Buffer.from('/etc') });
    const link = await block(dagPb.encode({ Data: symlink.marshal(), Links: [] }), dagPb.code);
    const many = Array.from({ length: 1_000 }, (_, index) => `n${index}`);
    let bomb = leaf;
    const bombNodes = [];
    for (let level = 0, size = BigInt(MIB); level < 6; level++, size *= 100n) {
      const content = new UnixFS({ type: 'file', blockSizes: Array.from({ length: 100 }, () => size) });
      const Links = Array.from({ length: 100 }, () => ({ Name: '', Hash: bomb.cid, Tsize: 1 }));
      bomb = await block(dagPb.encode({ Data: content.marshal(), Links }), dagPb.code);
      bombNodes.unshift(bomb);
    }
    const trees = [
      { nodes: [await folder(['link'], link.cid), link], code: 'artifact/unsafe-path', reason: 'symlink' },
      { nodes: [await folder(['a.txt', 'A.TXT'], leaf.cid)], code: 'artifact/unsafe-path', reason: 'collision' },
      { nodes: [await folder(['\u00e9', 'e\u0301'], leaf.cid)], code: 'artifact/unsafe-path', reason: 'collision' },
      { nodes: [await folder(many, leaf.cid)], code: 'artifact/too-large', reason: 'entries' },
      { nodes: bombNodes, code: 'artifact/too-large', reason: 'bytes' },
    ];
    for (const { nodes, code, reason } of trees) {
      let asked = 0;
      const served = await answer(({ leaves }) => {
        if (leaves) asked++;
        return nodes.map(encodeSection);
      });
      const root = nodes[0]?.cid.toString() ?? '';
      await expect(here.fetch(buyer, seller.self, root, { ...LIMIT, maxEntries: 100 })).rejects.toMatchObject({
        code,
        context: { reason },
      });
      expect(asked).toBe(0);
      await served[Symbol.asyncDispose]();
    }
  });

  it('cannot use codes that are not of this exchange, nor garbage', async () => {
    const { cid } = await block(randomBytes(10));
    const refusal = ArtifactAnswer.encode({ refused: { code: 'job/disk-full', reason: 'yours', enough: 0n } });
    const lying = await answerRaw(() => [refusal]);
    await expect(here.fetch(buyer, seller.self, cid.toString(), LIMIT)).rejects.toMatchObject({
      code: 'artifact/not-found',
    });
    await lying[Symbol.asyncDispose]();
    await answerRaw(() => [Buffer.alloc(64, 0xff)]);
    await expect(here.fetch(buyer, seller.self, cid.toString(), LIMIT)).rejects.toMatchObject({
      code: 'protocol/malformed',
    });
  });

  it('cannot keep us for ever: a signal ends the wait', async () => {
    const { cid } = await block(randomBytes(10));
    await answer(async function* () {
      await new Promise(() => undefined);
      yield new Uint8Array(0);
    });
    const signal = AbortSignal.timeout(300);
    await expect(here.fetch(buyer, seller.self, cid.toString(), { ...LIMIT, signal })).rejects.toMatchObject({
      name: 'TimeoutError',
    });
  });
});

describe('a hostile asker', () => {
  it('gets a refusal for garbage and for roots that are no artifact, and the stream stays usable', async () => {
    const { cid } = await there.addBytes(new Uint8Array(3));
    await there.serve(seller, () => true);
    const channel = await buyer.open(seller.self, STREAMS.artifact.protocol, {
      maxFrameBytes: STREAMS.artifact.maxFrameBytes,
    });
    const root = CID.parse(cid).bytes;
    const requests = [
      Buffer.alloc(50, 0xff),
      ArtifactRequest.encode({ cid: randomBytes(40), leaves: true }),
      ArtifactRequest.encode({ cid: root, leaves: true, have: new Uint8Array(200_000) }),
      ArtifactRequest.encode({ cid: root, leaves: true, have: Uint8Array.of(1) }),
      ArtifactRequest.encode({ cid: root, leaves: true }),
    ];
    for (const request of requests) await channel.send(request);
    const frames: Uint8Array[] = [];
    for await (const frame of channel) {
      frames.push(frame);
      if (frames.length === 8) break;
    }
    const refusals = frames.slice(0, 3).map((frame) => ArtifactAnswer.decode(frame).refused?.code);
    expect(refusals).toEqual(['protocol/malformed', 'artifact/corrupt', 'protocol/oversize']);
    expect(frames.slice(3).map((frame) => frame.length)).toEqual([0, 58, 0, 58, 39]);
  });
});
