/**
 * Goal: bad peers and bad requests change nothing and are told why. Method: a raw mesh peer says everything that is wrong
 * on every topic and protocol to a real provider process, which tells each refusal; then real buyers ask for what cannot
 * be, and finally an honest job still runs.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { type Mesh, openArtifacts, openMesh } from '../../node/mesh/index.ts';
import { type Address, decodeAddress, parseAddress } from '../../protocol/address.ts';
import { type KeyPair, keyPairFromSeed } from '../../protocol/ed25519.ts';
import { type Kind, sealEnvelope } from '../../protocol/envelope.ts';
import { type Bid, type Offer, encodeBid, encodeOffer } from '../../protocol/messages.ts';
import { LeaseRequest, LeaseResponse, Signed } from '../../protocol/molt.js';
import { STREAMS, bidsTopic, meshName, offersTopic } from '../../protocol/wire.ts';
import { parseMolt } from '../../protocol/units.ts';
import { type TestBuyer, type TestMarket, type TestProvider, openMarket, runFirstOn, stepsJob } from './market.ts';

let market: TestMarket;
let provider: TestProvider;
let hostile: Mesh;
let key: KeyPair;
let network: Address;

beforeAll(async () => {
  market = await openMarket();
  provider = await market.provider();
  network = market.chain.network;
  key = newKey();
  hostile = await openPeer(key);
});

afterAll(async () => {
  await hostile?.[Symbol.asyncDispose]();
  await market?.[Symbol.asyncDispose]();
});

const newKey = (): KeyPair => keyPairFromSeed(market.env.random.bytes(32));

function openPeer(signer: KeyPair): Promise<Mesh> {
  return openMesh(market.env, {
    key: signer,
    listen: ['/ip4/127.0.0.1/tcp/0'],
    bootstrap: [provider.address],
    mdns: false,
    role: 'light',
    network: meshName(network),
  });
}

const zero = parseMolt('0');

const goodBid = (): Bid => ({
  need: { cpuMillis: 1_000, memoryBytes: 2 ** 28, diskBytes: 2 ** 28, gpus: [] },
  runtime: 'wasm',
  features: [],
  durationSecondsMax: 60,
  pricePerSecondMax: parseMolt('1'),
  stakeMin: zero,
  reserveMin: zero,
  region: '',
  distanceMax: 2n ** 64n - 1n,
  finishByMs: 0,
  startByMs: 0,
  near: [],
  windowMs: 0,
  hardwareTierMin: 'A0',
  quotesWanted: 5,
  warm: '',
  addresses: hostile.addresses.slice(0, 2),
  budget: key.address,
});

const goodOffer = (): Offer => ({
  provider: key.address,
  free: { cpuMillis: 1_000, memoryBytes: 2 ** 28, diskBytes: 2 ** 28, gpus: [] },
  runtimes: ['wasm'],
  features: [],
  hardwareTier: 'A0',
  prices: { base: zero, perCpu: zero, perGib: zero, perGpu: zero },
  speed: 1,
  speedMeasuredMs: 1,
  region: '',
  durationSecondsMax: 60,
  warm: [],
  addresses: [],
  revoked: false,
});

interface Sealing {
  readonly kind?: Kind;
  readonly network?: Address;
  readonly issuedMs?: number;
  readonly lifetimeMs?: number;
  readonly sequence?: number;
  readonly signer?: KeyPair;
}

let sequence = 0;

function seal(kind: Kind, sealing: Sealing = {}): Uint8Array {
  const issuedMs = sealing.issuedMs ?? Date.now();
  const header = {
    network: sealing.network ?? network,
    sequence: sealing.sequence ?? issuedMs + ++sequence,
    issuedMs,
    expiresMs: issuedMs + (sealing.lifetimeMs ?? 20_000),
  };
  const body = kind === 'bid' ? encodeBid(goodBid()) : encodeOffer(goodOffer());
  return sealEnvelope(sealing.signer ?? key, sealing.kind ?? kind, header, body).bytes;
}

function withSignature(bytes: Uint8Array, change: (signature: Uint8Array) => Uint8Array): Uint8Array {
  const { payload, signature } = Signed.decode(bytes);
  return Signed.encode({ payload, signature: change(signature) });
}

const other = (): Address => parseAddress('11111111111111111111111111111112');

describe.each([
  { kind: 'bid' as const, refused: 'bid-refused', topic: () => bidsTopic(network, 'cpu') },
  { kind: 'offer' as const, refused: 'offer-refused', topic: () => offersTopic(network, 'cpu') },
])('a $kind that is not one', ({ kind, refused, topic }) => {
  const flipped = (bytes: Uint8Array): Uint8Array => bytes.map((byte, index) => (index === 5 ? byte ^ 1 : byte));
  test.each([
    { what: 'garbage', code: 'protocol/malformed', bytes: () => Buffer.from(`no protobuf at all ${sequence++}`) },
    { what: 'unsigned', code: 'protocol/malformed', bytes: () => withSignature(seal(kind), () => new Uint8Array()) },
    { what: 'wrongly signed', code: 'protocol/bad-signature', bytes: () => withSignature(seal(kind), flipped) },
    { what: 'expired', code: 'protocol/expired', bytes: () => seal(kind, { issuedMs: Date.now() - 50_000 }) },
    {
      what: 'from the future',
      code: 'protocol/from-the-future',
      bytes: () => seal(kind, { issuedMs: Date.now() + 40_000 }),
    },
    { what: 'of another network', code: 'protocol/wrong-network', bytes: () => seal(kind, { network: other() }) },
    { what: 'of another kind', code: 'protocol/wrong-kind', bytes: () => seal(kind, { kind: 'quote' }) },
  ])('$what is refused with $code', async ({ code, bytes }) => {
    // A fresh peer each time: the mesh drops one that keeps sending what it must not.
    await using peer = await openPeer(newKey());
    await expect.poll(() => peer.isConnected(provider.account.nodeKey)).toBe(true);
    const seen = provider.lines.length;
    await peer.publish(topic(), bytes());
    await expect
      .poll(() => provider.lines.slice(seen).some((line) => line['type'] === refused && line['code'] === code))
      .toBe(true);
  });

  test('larger than its topic allows is not looked at, and who repeats it is thrown out', async () => {
    await using peer = await openPeer(newKey());
    await expect.poll(() => peer.isConnected(provider.account.nodeKey)).toBe(true);
    const seen = provider.lines.length;
    for (let index = 0; index < 20; index++) await peer.publish(topic(), new Uint8Array(1_500).fill(index));
    await expect.poll(() => peer.isConnected(provider.account.nodeKey)).toBe(false);
    expect(provider.lines.slice(seen).some((line) => line['type'] === refused)).toBe(false);
  });

  test('replayed is refused with protocol/replayed, also under another outer form', async () => {
    await using peer = await openPeer(newKey());
    await expect.poll(() => peer.isConnected(provider.account.nodeKey)).toBe(true);
    const signer = newKey();
    const newest = Date.now();
    await peer.publish(topic(), seal(kind, { signer, sequence: newest }));
    const seen = provider.lines.length;
    await peer.publish(topic(), seal(kind, { signer, sequence: newest - 1 }));
    await expect
      .poll(() =>
        provider.lines.slice(seen).some((line) => line['type'] === refused && line['code'] === 'protocol/replayed'),
      )
      .toBe(true);
  });
});

describe('the lease stream', () => {
  const ask = async (frame: Uint8Array): Promise<string> => {
    const channel = await hostile.open(provider.account.nodeKey, STREAMS.lease.protocol, {
      maxFrameBytes: STREAMS.lease.maxFrameBytes,
    });
    try {
      await channel.send(frame);
      for await (const bytes of channel) {
        const { refused } = LeaseResponse.decode(bytes);
        return refused?.code ?? 'answered';
      }
      return 'closed';
    } finally {
      await channel.close();
    }
  };
  const bytes32 = new Uint8Array(32).fill(7);

  test.each([
    { what: 'garbage', code: 'protocol/malformed', frame: Buffer.from('garbage') },
    { what: 'an empty request', code: 'protocol/malformed', frame: LeaseRequest.encode({}) },
    {
      what: 'an unknown quote',
      code: 'market/quote-unknown',
      frame: LeaseRequest.encode({
        accept: {
          quote: bytes32,
          specDigest: bytes32,
          budget: bytes32,
          blockhash: bytes32,
          message: new Uint8Array(),
          egress: [],
        },
      }),
    },
    {
      what: 'a short quote id',
      code: 'protocol/malformed',
      frame: LeaseRequest.encode({
        accept: {
          quote: new Uint8Array(3),
          specDigest: bytes32,
          budget: bytes32,
          blockhash: bytes32,
          message: new Uint8Array(),
          egress: [],
        },
      }),
    },
    {
      what: 'a job for no lease',
      code: 'job/unknown',
      frame: LeaseRequest.encode({
        submit: { lease: bytes32, spec: new Uint8Array(9), transaction: new Uint8Array(), secrets: [] },
      }),
    },
    {
      what: 'following a stranger',
      code: 'job/unknown',
      frame: LeaseRequest.encode({ attach: { lease: bytes32, fromSequence: 0n } }),
    },
    {
      what: 'settling nothing',
      code: 'job/unknown',
      frame: LeaseRequest.encode({
        settle: { lease: bytes32, amount: 1n, blockhash: bytes32, delegateSignature: new Uint8Array(64) },
      }),
    },
    { what: 'cancelling nothing', code: 'job/unknown', frame: LeaseRequest.encode({ cancel: { lease: bytes32 } }) },
  ])('$what is answered with $code', async ({ code, frame }) => {
    expect(await ask(frame)).toBe(code);
  });

  test('a frame above the limit ends the stream and nothing else', async () => {
    const channel = await hostile.open(provider.account.nodeKey, STREAMS.lease.protocol, { maxFrameBytes: 2 ** 22 });
    await channel.send(new Uint8Array(STREAMS.lease.maxFrameBytes + 1)).catch(() => undefined);
    const read = async (): Promise<void> => {
      for await (const _frame of channel) continue;
    };
    await expect(read()).rejects.toMatchObject({ code: 'mesh/closed' });
    expect(await ask(LeaseRequest.encode({ cancel: { lease: bytes32 } }))).toBe('job/unknown');
  });
});

describe('the other streams', () => {
  test.each(['offers', 'quote', 'artifact'] as const)(
    'garbage on %s gets no answer but a refusal, and the node lives',
    async (name) => {
      const stream = STREAMS[name];
      const frames: Uint8Array[] = [];
      let failure: unknown;
      try {
        const channel = await hostile.open(provider.account.nodeKey, stream.protocol, {
          maxFrameBytes: stream.maxFrameBytes,
        });
        await channel.send(Buffer.from('garbage'));
        for await (const frame of channel) {
          frames.push(frame);
          break;
        }
      } catch (error) {
        failure = error;
      }
      // `quote` is a protocol of buyers: a provider does not serve it at all. The others end the stream.
      if (name !== 'artifact') expect(failure).toMatchObject({ code: expect.stringMatching(/^mesh\//) });
      expect(frames.length).toBeLessThanOrEqual(1);
      expect(provider.lines.some((line) => line['type'] === 'lease-accepted')).toBe(false);
    },
  );

  test('content of others is not served, and does not tell whether it exists', async () => {
    const artifacts = await openArtifacts(market.env, {
      directory: join(market.directory, 'hostile'),
      quotaBytes: 2 ** 24,
    });
    const cid = 'bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy';
    await expect(
      artifacts.fetch(hostile, parseAddress(provider.account.nodeKey), cid, { maxBytes: 2 ** 20 }),
    ).rejects.toMatchObject({ code: 'artifact/not-found' });
  });
});

describe('a buyer who asks for what cannot be', () => {
  let buyer: TestBuyer;
  beforeAll(async () => {
    buyer = await market.buyer();
  });

  test('an impossible specification is refused by field, before anything is sent', async () => {
    await using molt = await buyer.connect();
    const spec = await stepsJob(market, molt, 1);
    await expect(
      molt.run({ ...spec, outputs: [{ name: 'x', path: '../../etc/passwd' }] }, { maxPrice: '1' }),
    ).rejects.toMatchObject({
      code: 'protocol/invalid-spec',
      message: expect.stringContaining('outputs.0.path'),
    });
  });

  test('more than any machine has is "no capacity" with the numbers', async () => {
    await using molt = await buyer.connect();
    const spec = await stepsJob(market, molt, 1);
    await expect(molt.run({ ...spec, resources: { memoryBytes: 2 ** 40 } }, { maxPrice: '30' })).rejects.toMatchObject({
      code: 'market/no-capacity',
      message: expect.stringMatching(/memory needed/),
    });
  });

  test('too low a price names the price', async () => {
    await using molt = await buyer.connect();
    const spec = await stepsJob(market, molt, 1);
    await expect(molt.run(spec, { maxPrice: '0.000001' })).rejects.toMatchObject({
      code: 'market/price-too-low',
      message: expect.stringContaining('the bid pays at most'),
    });
  });

  test('a module or input that is not there names it and what to do', async () => {
    await using molt = await buyer.connect();
    const spec = await stepsJob(market, molt, 1);
    const nothing = 'bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy';
    await expect(molt.run({ ...spec, image: nothing }, { maxPrice: '1' })).rejects.toMatchObject({
      code: 'job/image-missing',
      message: expect.stringContaining('molt.add'),
    });
    await expect(molt.run({ ...spec, inputs: [{ cid: nothing, path: 'a' }] }, { maxPrice: '1' })).rejects.toMatchObject(
      { code: 'job/input-missing', message: expect.stringContaining('molt.add') },
    );
  });

  test('a module that is none is told by the provider, costs nothing, and is not tried elsewhere', async () => {
    await using molt = await buyer.connect();
    const before = await market.chain.budget(buyer.budget);
    const file = join(market.directory, 'not-a-module.wasm');
    writeFileSync(file, 'this is not WebAssembly');
    const { cid } = await molt.add(file);
    await expect(molt.run({ runtime: 'wasm', image: cid, command: ['x'] }, { maxPrice: '5' })).rejects.toMatchObject({
      code: 'job/module-invalid',
    });
    await expect.poll(() => market.chain.budget(buyer.budget)).toMatchObject({ locked: 0n, free: before?.free });
  });

  test('a program that fails is an error with its last words, and is paid for its time', async () => {
    await using molt = await buyer.connect();
    const spec = await stepsJob(market, molt, 1);
    await expect(
      molt.run({ ...spec, command: ['python', '-c', 'import sys; sys.exit("no such luck")'] }, { maxPrice: '1' }),
    ).rejects.toMatchObject({
      code: 'job/failed',
      message: expect.stringContaining('no such luck'),
      result: { exitCode: 1 },
    });
  });

  test('an output that was not written is an error, not a success', async () => {
    await using molt = await buyer.connect();
    const spec = await stepsJob(market, molt, 1);
    await expect(molt.run({ ...spec, command: ['python', '-c', 'print(1)'] }, { maxPrice: '1' })).rejects.toMatchObject(
      { code: 'job/output-missing' },
    );
  });

  test('an empty budget says so and how to fill it', async () => {
    const poor = await market.buyer({ deposit: '0' });
    await using molt = await poor.connect();
    await expect(molt.run(await stepsJob(market, molt, 1), { maxPrice: '1' })).rejects.toMatchObject({
      code: 'chain/budget-empty',
      message: expect.stringContaining('deposit'),
    });
  });

  test('a budget that cannot lock the whole quote says how much is missing', async () => {
    const poor = await market.buyer({ deposit: '0.001' });
    await using molt = await poor.connect();
    await expect(molt.run(await stepsJob(market, molt, 1), { maxPrice: '1' })).rejects.toMatchObject({
      code: 'chain/budget-empty',
      message: expect.stringMatching(/0\.001 MOLT free; deposit more/),
    });
  });
});

const canMount = process.platform === 'linux' && process.getuid?.() === 0;

describe('a provider whose disk is full', () => {
  test.skipIf(!canMount)(
    'refunds, says that the disk is full, and the job goes to another one (needs root to mount a small disk)',
    async () => {
      const disk = join(market.directory, 'small-disk');
      mkdirSync(disk);
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'none', disk]);
      try {
        const small = await market.provider({ pricePerCpu: '0.00001', homeDirectory: join(disk, 'home') });
        const buyer = await market.buyer();
        const before = await market.chain.budget(buyer.budget);
        await using molt = await buyer.connect();
        await expect.poll(async () => (await molt.offers()).length).toBe(2);
        const failures: unknown[] = [];
        const result = await runFirstOn([small], molt, await stepsJob(market, molt, 1), {
          maxPrice: '2',
          onEvent: (event) => {
            if (event.type === 'provider-failed') failures.push(event);
          },
        });
        expect(failures).toEqual([
          expect.objectContaining({ code: 'job/disk-full', node: small.account.nodeKey, retrying: true }),
        ]);
        expect(result).toMatchObject({ exitCode: 0, provider: provider.account.account });
        await expect
          .poll(() => market.chain.budget(buyer.budget))
          .toMatchObject({ locked: 0n, free: (before?.free ?? 0n) - result.cost });
        await small.stop();
      } finally {
        execFileSync('umount', ['-l', disk]);
      }
    },
  );
});

describe('after all this', () => {
  test('nothing is reserved, nothing is leased, and an honest job runs', async () => {
    const buyer = await market.buyer();
    await using molt = await buyer.connect();
    const result = await molt.run(await stepsJob(market, molt, 1), { maxPrice: '2' });
    expect(result.exitCode).toBe(0);
    const account = await market.chain.provider(parseAddress(provider.account.account));
    expect(account).toMatchObject({ openLeases: 0, reserved: 0n, faults: 0n });
    expect(decodeAddress(result.node)).toHaveLength(32);
  });
});
