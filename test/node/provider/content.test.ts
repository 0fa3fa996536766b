/**
 * Goal: what jobs need is here while they need it, is shared, and goes when it may; inputs from the web are inputs like any
 * other. Method: a buyer and a provider on loopback, the real store, and a TLS server that is the web.
 */
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, readdir, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { type Artifacts, type Mesh, openArtifacts } from '../../../node/mesh/index.ts';
import { Content } from '../../../node/provider/content.ts';
import { secureConnection } from '../../../node/provider/download.ts';
import type { Agreement } from '../../../node/provider/job.ts';
import type { Address } from '../../../protocol/address.ts';
import { type JobSpec, type JobSpecInput, parseJobSpec, warmPrefix } from '../../../protocol/job-spec.ts';
import { type TestWeb, openWeb } from '../../fixtures/web.ts';
import { Peers, env, until } from '../mesh/peers.ts';

const MIB = 1024 * 1024;
const IMAGE = `busybox@sha256:${'0'.repeat(64)}`;
const object = randomBytes(2 * MIB + 9);

let directory: string;
let peers: Peers;
let buyer: Mesh;
let theirs: Artifacts;
let artifacts: Artifacts;
let web: TestWeb;
let content: Content;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'molt-content-'));
  peers = new Peers();
  const [provider, other] = await peers.pair();
  buyer = other;
  theirs = await openArtifacts(env, { directory: join(directory, 'theirs'), quotaBytes: 64 * MIB });
  await theirs.serve(buyer, () => true);
  artifacts = await openArtifacts(env, { directory: join(directory, 'ours'), quotaBytes: 64 * MIB });
  web = await openWeb((_request, response) => void response.end(object));
  content = await open(provider);
});

afterEach(async () => {
  await web[Symbol.asyncDispose]();
  await peers[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

function open(network: Mesh): Promise<Content> {
  return Content.open(env, {
    network,
    artifacts,
    web: { connect: secureConnection(web.outside, web.authority), policy: [`*.example.com:${web.port}`] },
    directory,
    moduleBytesMax: 5 * MIB,
  });
}

function fetch(
  lease: string,
  input: Omit<JobSpecInput, 'runtime' | 'image'>,
  { module, near = [] }: { readonly module?: string; readonly near?: readonly string[] } = {},
) {
  const spec = parseJobSpec({ runtime: module === undefined ? 'container' : 'wasm', image: module ?? IMAGE, ...input });
  const agreement = {
    lease,
    delegate: buyer.self,
    buyerAddresses: [] as readonly string[],
    near,
  } as unknown as Agreement;
  const { signal } = new AbortController();
  return content.fetch({ agreement, spec, signal, report: () => () => undefined }).then((inputs) => ({ spec, inputs }));
}

const lease = (name: string): Address => name as Address;

async function place(job: { spec: JobSpec; inputs: Readonly<Record<string, string>> }): Promise<string> {
  const target = await mkdtemp(join(directory, 'in-'));
  await content.place(job.spec, job.inputs, target);
  return target;
}

describe('inputs', () => {
  it('come from the buyer and from the web, each under its path', async () => {
    const { cid } = await theirs.addBytes(randomBytes(1_000));
    const url = web.url('data.example.com', '/x?signature=abc');
    const job = await fetch('a', {
      inputs: [
        { cid, path: 'mine' },
        { url, path: 'deep/web' },
      ],
    });
    expect(Object.keys(job.inputs)).toEqual(['mine', 'deep/web']);
    const target = await place(job);
    expect((await readFile(join(target, 'deep/web'))).equals(object)).toBe(true);
    expect((await readFile(join(target, 'mine'))).length).toBe(1_000);
    expect(job.inputs['deep/web']).toBe((await theirs.addBytes(object)).cid);
  });

  it('go with their lease, but not while another job needs them', async () => {
    const { cid } = await theirs.addBytes(randomBytes(1_000));
    const url = web.url('data.example.com', '/x');
    const first = await fetch('a', {
      inputs: [
        { cid, path: 'x' },
        { url, path: 'y' },
      ],
    });
    const second = await fetch('b', { inputs: [{ cid, path: 'z' }] });
    await content.release(lease('a'), first.inputs);
    expect(artifacts.usedBytes).toBe(1_000);
    await place(second);
    await content.release(lease('b'), second.inputs);
    await until('nothing is left', () => artifacts.usedBytes === 0);
  });

  it('are within the disk of the job, all of them together', async () => {
    const big = (await theirs.addBytes(randomBytes(2 * MIB))).cid;
    const url = web.url('data.example.com', '/x');
    const inputs = [
      { cid: big, path: 'a' },
      { url, path: 'b' },
    ];
    await expect(fetch('a', { inputs, resources: { diskBytes: 3 * MIB } })).rejects.toMatchObject({
      code: 'job/input-missing',
      context: { reason: 'bytes' },
    });
    await place(await fetch('b', { inputs, resources: { diskBytes: 5 * MIB } }));
  });

  it('that are not to be had say so, whatever the reason', async () => {
    const outside = web.url('inside.private.com', '/x');
    await expect(fetch('a', { inputs: [{ url: outside, path: 'x' }] })).rejects.toMatchObject({
      code: 'market/egress-refused',
    });
    const url = web.url('data.example.com', '/x');
    await expect(fetch('a', { inputs: [{ url, sha256: '0'.repeat(64), path: 'x' }] })).rejects.toMatchObject({
      code: 'job/input-missing',
    });
    const absent = 'bafkreif2pall7dybz7vecqka3zo24irdwabwdi4wc55jznaq75q7eaavvu';
    await expect(fetch('a', { inputs: [{ cid: absent, path: 'x' }] })).rejects.toMatchObject({
      code: 'job/input-missing',
    });
    await content.release(lease('a'), {});
    expect(artifacts.usedBytes).toBe(0);
  });
});

describe('inputs that the bid named', () => {
  const cids = async (): Promise<readonly [string, string]> => [
    (await theirs.addBytes(randomBytes(MIB))).cid,
    (await theirs.addBytes(randomBytes(MIB))).cid,
  ];
  const inputsOf = (...named: readonly string[]) => named.map((cid, index) => ({ cid, path: `in-${index}` }));

  it('stay after the job and are told to be here; the others go, and nobody is told of them', async () => {
    const [named, unnamed] = await cids();
    const names = [named, unnamed].map(warmPrefix);
    expect(await content.near(names)).toEqual([]);
    const { inputs } = await fetch('a', { inputs: inputsOf(named, unnamed) }, { near: [warmPrefix(named)] });
    expect(await content.near(names)).toEqual([warmPrefix(named)]);
    await content.release(lease('a'), inputs);
    expect(await artifacts.has(named)).toBe(true);
    expect(await artifacts.has(unnamed)).toBe(false);
    expect(await content.near(names)).toEqual([warmPrefix(named)]);
  });

  it('are not fetched again, and stay when a job that did not name them ends', async () => {
    const [named] = await cids();
    const first = await fetch('a', { inputs: inputsOf(named) }, { near: [warmPrefix(named)] });
    await content.release(lease('a'), first.inputs);
    await rm(join(directory, 'theirs'), { recursive: true });
    const second = await fetch('b', { inputs: inputsOf(named) });
    await content.release(lease('b'), second.inputs);
    expect(await content.near([warmPrefix(named)])).toEqual([warmPrefix(named)]);
  });

  it('make room for what a job needs, and are not told to be here then', async () => {
    const [named] = await cids();
    const { inputs } = await fetch('a', { inputs: inputsOf(named) }, { near: [warmPrefix(named)] });
    await content.release(lease('a'), inputs);
    const large = (await theirs.addBytes(randomBytes(63.5 * MIB))).cid;
    await fetch('b', { inputs: inputsOf(large), resources: { diskBytes: 70 * MIB } });
    expect(await content.near([warmPrefix(named)])).toEqual([]);
  });

  it('are known again after a restart, as the journal has them', async () => {
    const [named] = await cids();
    const near = [warmPrefix(named)];
    const { inputs } = await fetch('a', { inputs: inputsOf(named) }, { near });
    await content.release(lease('a'), inputs);
    content = await open(await peers.open());
    expect(await content.near(near)).toEqual([]);
    content.remember({ near } as unknown as Agreement, Object.values(inputs));
    expect(await content.near(near)).toEqual(near);
  });
});

describe('modules', () => {
  const module = async (sizeBytes: number): Promise<string> => (await theirs.addBytes(randomBytes(sizeBytes))).cid;
  const use = async (name: string, cid: string): Promise<string> => {
    await fetch(name, {}, { module: cid });
    return (await content.module(cid, 16 * MIB)).path;
  };

  it('stay as files after their jobs, the least recently used go first, none that a job needs', async () => {
    const [a, b, c] = [await module(2 * MIB), await module(2 * MIB), await module(2 * MIB)];
    await use('a', a);
    await use('b', b);
    await use('c', c);
    expect([...content.warm()].sort()).toEqual([a, b, c].sort());
    await content.release(lease('a'), {});
    await until('the first one made room', () => content.warm().length === 2);
    expect([...content.warm()].sort()).toEqual([b, c].sort());
    await content.release(lease('b'), {});
    await content.release(lease('c'), {});
    await until('the store keeps no second copy', () => artifacts.usedBytes === 0);
    expect((await readdir(join(directory, 'modules'))).length).toBe(2);
  });

  it('are found again after a restart, unless they were damaged meanwhile', async () => {
    const [whole, damaged] = [await module(MIB), await module(MIB)];
    await use('a', whole);
    await truncate(await use('b', damaged), 10);
    for (const name of ['a', 'b']) await content.release(lease(name), {});
    await until('the store keeps no second copy', () => artifacts.usedBytes === 0);
    await rm(join(directory, 'theirs'), { recursive: true });
    content = await open(await peers.open());
    expect(content.warm().length).toBe(2);
    expect((await readFile(await use('c', whole))).length).toBe(MIB);
    await expect(use('d', damaged)).rejects.toMatchObject({ code: 'job/image-missing' });
    expect(content.warm()).toEqual([whole]);
  });
});
