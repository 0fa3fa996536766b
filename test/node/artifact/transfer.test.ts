/**
 * Goal: an artifact moves between two peers, every block is checked, a cut goes on where it stopped, and a hostile sender
 * gains nothing. Method: two real peers on loopback, and senders that speak the protocol with wrong content.
 */
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import * as dagPb from '@ipld/dag-pb';
import { UnixFS } from 'ipfs-unixfs';
import { CID } from 'multiformats/cid';
import * as raw from 'multiformats/codecs/raw';
import { sha256 } from 'multiformats/hashes/sha2';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { Channel } from '../../../market/ports.ts';
import { type Artifacts, type Mesh, openArtifacts } from '../../../node/mesh/index.ts';
import { ArtifactFrame, ArtifactRequest } from '../../../protocol/molt.js';
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

/** A sender that answers every request with the same frames. */
function answer(
  frames: (skip: number, channel: Channel) => AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): Promise<AsyncDisposable> {
  const { protocol, ...limits } = STREAMS.artifact;
  return seller.handle(protocol, limits, async (channel) => {
    for await (const bytes of channel) {
      const { skipBlocks } = ArtifactRequest.decode(bytes);
      for await (const frame of frames(Number(skipBlocks), channel)) await channel.send(frame);
    }
  });
}

const frameOf = (one: { cid: CID; bytes: Uint8Array }): Uint8Array =>
  ArtifactFrame.encode({ block: { cid: one.cid.bytes, bytes: one.bytes } });
const END = ArtifactFrame.encode({ end: { blocks: 0n, sizeBytes: 0n } });

describe('a transfer', () => {
  it.each([0, 5, 9 * MIB + 7])('brings a file of %d bytes to the other peer', async (size) => {
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
    const all = [root, ...leaves];
    const skips: number[] = [];
    await answer(async function* (skip, channel) {
      skips.push(skip);
      for (const [index, one] of all.entries()) {
        if (index < skip) continue;
        if (index === skip + 3) {
          // What was sent arrives before the cut.
          await new Promise((resolve) => setTimeout(resolve, 300));
          channel.abort(new Error('cable cut'));
          return;
        }
        yield frameOf(one);
      }
      yield END;
    });
    await here.fetch(buyer, seller.self, root.cid.toString(), LIMIT);
    expect(skips).toEqual([0, 3, 6]);
    await here.export(root.cid.toString(), join(directory, 'out'), { ...LIMIT, maxEntries: 1 });
    expect((await readFile(join(directory, 'out'))).equals(Buffer.concat(leaves.map((leaf) => leaf.bytes)))).toBe(true);
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
    await answer(async function* () {
      for (const one of [root, ...leaves]) {
        yield frameOf(one);
        if (++sent === 3) await go.promise;
      }
      yield END;
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
    await answer(() => [frameOf({ cid: honest.cid, bytes: randomBytes(1_000) }), END]);
    await expect(here.fetch(buyer, seller.self, honest.cid.toString(), LIMIT)).rejects.toMatchObject({
      code: 'artifact/corrupt',
    });
    expect(here.usedBytes).toBe(0);
  });

  it('cannot pass a block that was not asked for, though it hashes well', async () => {
    const wanted = await block(randomBytes(10));
    await answer(async function* () {
      yield frameOf(await block(randomBytes(10)));
    });
    await expect(here.fetch(buyer, seller.self, wanted.cid.toString(), LIMIT)).rejects.toMatchObject({
      code: 'artifact/corrupt',
    });
    expect(here.usedBytes).toBe(0);
  });

  it('cannot end early, nor go on after the end', async () => {
    const leaves = [await block(randomBytes(10)), await block(randomBytes(10))];
    const root = await parent(leaves);
    const [leaf] = leaves;
    if (leaf === undefined) throw new Error('two leaves');
    const early = await answer(() => [frameOf(root), frameOf(leaf), END]);
    await expect(here.fetch(buyer, seller.self, root.cid.toString(), LIMIT)).rejects.toMatchObject({
      code: 'artifact/corrupt',
    });
    expect(await here.has(root.cid.toString())).toBe(false);
    await early[Symbol.asyncDispose]();
    const single = await block(randomBytes(10));
    await answer(() => [frameOf(single), frameOf(single), END]);
    await expect(here.fetch(buyer, seller.self, single.cid.toString(), LIMIT)).rejects.toMatchObject({
      code: 'artifact/corrupt',
    });
  });

  it('cannot send more than was agreed, nor a block above the limit', async () => {
    const { cid } = await there.addBytes(randomBytes(3 * MIB));
    const served = await there.serve(seller, () => true);
    await expect(here.fetch(buyer, seller.self, cid, { maxBytes: 2 * MIB })).rejects.toMatchObject({
      code: 'artifact/too-large',
    });
    await served[Symbol.asyncDispose]();
    const fat = await block(randomBytes(MIB + 1));
    await answer(() => [frameOf(fat), END]);
    await expect(here.fetch(buyer, seller.self, fat.cid.toString(), LIMIT)).rejects.toMatchObject({
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
    await answer(() => [...chain.map(frameOf), END]);
    await expect(here.fetch(buyer, seller.self, node.cid.toString(), LIMIT)).rejects.toMatchObject({
      code: 'artifact/too-large',
    });
  });

  it('cannot use codes that are not of this exchange, nor garbage', async () => {
    const { cid } = await block(randomBytes(10));
    const lying = await answer(() => [ArtifactFrame.encode({ refused: { code: 'job/disk-full', reason: 'yours' } })]);
    await expect(here.fetch(buyer, seller.self, cid.toString(), LIMIT)).rejects.toMatchObject({
      code: 'artifact/not-found',
    });
    await lying[Symbol.asyncDispose]();
    await answer(() => [randomBytes(64)]);
    await expect(here.fetch(buyer, seller.self, cid.toString(), LIMIT)).rejects.toMatchObject({
      code: 'protocol/malformed',
    });
  });

  it('cannot keep us for ever: a signal ends the wait', async () => {
    const { cid } = await block(randomBytes(10));
    await answer(async function* () {
      await new Promise(() => undefined);
      yield END;
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
    const requests = [
      randomBytes(50),
      ArtifactRequest.encode({ cid: randomBytes(40), skipBlocks: 0n }),
      ArtifactRequest.encode({ cid: CID.parse(cid).bytes, skipBlocks: 0n }),
    ];
    for (const request of requests) await channel.send(request);
    const frames: ArtifactFrame[] = [];
    for await (const frame of channel) {
      frames.push(ArtifactFrame.decode(frame));
      if (frames.length === 4) break;
    }
    expect(frames.map((frame) => frame.refused?.code ?? (frame.block ? 'block' : 'end'))).toEqual([
      'protocol/malformed',
      'artifact/corrupt',
      'block',
      'end',
    ]);
  });
});
