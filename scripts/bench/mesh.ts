/**
 * The market as a whole: how soon gossip is everywhere, what one node verifies, how long a bid takes to be answered, and
 * what quotes, offers and peers cost. Nodes of a row share this process and its one thread unless it says otherwise.
 */
import { spawn } from 'node:child_process';
import { generateKeyPairSync, sign, verify } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect as connectTcp, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { type Candidate, createAdmission, createBook, openOfferFeed, rank } from '../../market/index.ts';
import { type Mesh, openMesh } from '../../node/mesh/index.ts';
import { type Address, encodeAddress } from '../../protocol/address.ts';
import type { Verified } from '../../protocol/brands.ts';
import { keyPairFromSeed } from '../../protocol/ed25519.ts';
import { decodeEnvelope } from '../../protocol/envelope.ts';
import { ACCEPT } from '../../protocol/errors.ts';
import { type Message, type Offer, decodeOffer } from '../../protocol/messages.ts';
import { baseUnits } from '../../protocol/units.ts';
import { meshName } from '../../protocol/wire.ts';
import { env, openBidder, openSeller } from '../../test/integration/hostile/seller.ts';
import { NETWORK, NOW, bidContent, key, offerBytes, quoteContent, verifiedQuote } from '../../test/market/fixtures.ts';
import { echoTime } from './flow.ts';
import { type Group, type Row, median, quantile } from './row.ts';

type Tell = (row: Row) => void;

/** A lab behind one address: more at once than a node admits from a range in production. */
const LAB = {
  acceptsPerSecondPerLocalRange: 1_000,
  connectionsPerLocalRange: 1_000,
  connectionsMax: 400,
  // Fifty nodes on one thread are under pressure all the time, and what is shed cannot be measured.
  pressureMs: 60_000,
};

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const freshNetwork = (): Address => encodeAddress(env.random.bytes(32));

async function until(what: string, holds: () => boolean | Promise<boolean>, ms = 60_000): Promise<void> {
  const endMs = performance.now() + ms;
  while (!(await holds())) {
    if (performance.now() > endMs) throw new Error(`not within ${ms} ms: ${what}`);
    await pause(20);
  }
}

/** Peers of one market connect to each other, and a connection costs 16 ms on each side: waits until that is over. */
async function connected(nodes: readonly Mesh[]): Promise<void> {
  const count = (): number => nodes.reduce((sum, node) => sum + node.peers().length, 0);
  const endMs = performance.now() + 90_000;
  for (let before = -1, quiet = 0; quiet < 3 && performance.now() < endMs;) {
    const now = count();
    quiet = now === before ? quiet + 1 : 0;
    before = now;
    await pause(2_000);
  }
}

function peer(network: Address, bootstrap: readonly string[], role: 'node' | 'light' = 'node'): Promise<Mesh> {
  return openMesh(env, {
    key: keyPairFromSeed(env.random.bytes(32)),
    listen: role === 'light' ? [] : ['/ip4/127.0.0.1/tcp/0'],
    bootstrap,
    mdns: false,
    role,
    network: meshName(network),
    limits: LAB,
  });
}

export const gossip: Group = {
  name: 'gossip',
  about: 'one message of 1 KiB to 50 nodes in one process, five a second; and how many offers one node verifies',
  run: async (tell) => {
    await gossipToFifty(tell);
    await uniqueMessages(tell);
  },
};

const NODES = 50;
const MESSAGES = 50;

async function gossipToFifty(tell: Tell): Promise<void> {
  await using opened = new AsyncDisposableStack();
  const network = freshNetwork();
  const topic = '/molt/1/bench';
  const nodes: Mesh[] = [];
  const sentMs = new Map<number, number>();
  const delaysMs: number[] = [];
  for (let index = 0; index < NODES; index++) {
    // Each knows six others and more: behind one or two meeting points most would wait for the next heartbeat.
    const node = opened.use(
      await peer(
        network,
        nodes.filter((_, one) => one >= index - 6 || one % 8 === index % 8).flatMap(({ addresses }) => addresses),
      ),
    );
    await node.subscribe(topic, (data) => {
      const number = Buffer.from(data).readUInt32BE(0);
      if (number > 0) delaysMs.push(performance.now() - (sentMs.get(number) ?? Number.NaN));
      return ACCEPT;
    });
    nodes.push(node);
  }
  await until('all are connected', () => nodes.every((node) => node.peers().length >= 2));
  await connected(nodes);
  const idleShare = await processorShare(3_000);
  const startedMs = performance.now();
  const before = processorMs();
  const publish = async (number: number): Promise<void> => {
    const data = Buffer.alloc(1_024, number);
    data.writeUInt32BE(number);
    sentMs.set(number, performance.now());
    await nodes[number % NODES]?.publish(topic, data);
  };
  for (let number = 1; number <= MESSAGES; number++) {
    await publish(number);
    await pause(200);
  }
  await pause(2_000);
  const worked = processorMs() - before - idleShare * (performance.now() - startedMs);
  const raw = await fanOut(NODES - 1);
  const ms = (name: string, value: number, target: number): Row => ({
    name,
    value,
    unit: 'ms',
    baseline: raw.tookMs,
    baselineIs: `the same bytes on ${NODES - 1} TCP connections, raw`,
    target,
  });
  tell(ms('gossip to 50 nodes, p50', quantile(delaysMs, 0.5), 15));
  tell(ms('gossip to 50 nodes, p99', quantile(delaysMs, 0.99), 50));
  // One thread is all 50 nodes: this is what the last of them waits for at least, however short the way.
  tell({
    ...ms('gossip to 50 nodes, processor time of all for one', worked / MESSAGES, 15),
    baseline: raw.processorMs,
  });
  tell({
    name: 'gossip to 50 nodes, delivered',
    value: (100 * delaysMs.length) / (MESSAGES * (NODES - 1)),
    unit: '%',
    baseline: 100,
    baselineIs: 'every message at every other node',
    target: 100,
    bound: 'at-least',
  });
}

function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
}

/** What this process does anyway, as a share of one core. */
async function processorShare(ms: number): Promise<number> {
  const before = processorMs();
  const startedMs = performance.now();
  await pause(ms);
  return (processorMs() - before) / (performance.now() - startedMs);
}

/** 1 KiB to so many connections of this process at once, until all have it: medians of 20. */
async function fanOut(count: number): Promise<{ readonly tookMs: number; readonly processorMs: number }> {
  const data = Buffer.alloc(1_024, 1);
  let arrived = (): void => undefined;
  const server = createServer((socket) => {
    let bytes = 0;
    socket.on('data', (chunk) => {
      bytes += chunk.length;
      if (bytes % data.length === 0) arrived();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const sockets = Array.from({ length: count }, () => connectTcp(port, '127.0.0.1'));
  await Promise.all(sockets.map((socket) => once(socket, 'connect')));
  const rounds: { tookMs: number; processorMs: number }[] = [];
  for (let round = 0; round < 20; round++) {
    const before = processorMs();
    const startedMs = performance.now();
    await new Promise<void>((resolve) => {
      let left = count;
      arrived = () => void (--left === 0 && resolve());
      for (const socket of sockets) socket.write(data);
    });
    rounds.push({ tookMs: performance.now() - startedMs, processorMs: processorMs() - before });
  }
  for (const socket of sockets) socket.destroy();
  server.close();
  const p50 = (pick: 'tookMs' | 'processorMs'): number => median(rounds.map((one) => one[pick]));
  return { tookMs: p50('tookMs'), processorMs: p50('processorMs') };
}

const OFFERS = 12_000;

/** Offers of as many signers, from another process, through gossip and admission into the book. Nothing is forwarded. */
async function uniqueMessages(tell: Tell): Promise<void> {
  await using opened = new AsyncDisposableStack();
  const network = freshNetwork();
  const mesh = opened.use(
    await openMesh(env, {
      key: keyPairFromSeed(env.random.bytes(32)),
      listen: ['/ip4/127.0.0.1/tcp/0'],
      bootstrap: [],
      mdns: false,
      role: 'node',
      network: meshName(network),
      limits: { ...LAB, gossipPerSecond: 1e6, pendingVerdictsMax: 1e6 },
    }),
  );
  const most = { perSecond: 1e6, burst: 1e6 };
  const limits = { offersPerForwarder: { perSecond: 2e6, burst: 2e6 }, offersInAll: most };
  const admission = createAdmission({ network, limits });
  let firstMs = 0;
  let lastMs = 0;
  let taken = 0;
  const counting = {
    ...admission,
    offer: (...args: Parameters<typeof admission.offer>) => {
      firstMs ||= performance.now();
      lastMs = performance.now();
      taken++;
      return admission.offer(...args);
    },
  };
  opened.use(await openOfferFeed(env, { pubsub: mesh, network: mesh, networkId: network, admission: counting }));
  const script = join(import.meta.dirname, 'mesh-sender.ts');
  const sender = spawn(process.execPath, [script, network, mesh.addresses[0] ?? '', String(OFFERS)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  opened.defer(() => void sender.kill());
  await once(sender.stdout, 'data');
  await until('all offers have come', () => taken >= OFFERS, 60_000).catch(() => undefined);
  tell({
    name: 'unique offers verified a second, one node',
    value: taken / ((lastMs - firstMs) / 1_000),
    unit: '/s',
    baseline: verifiesPerSecond(),
    baselineIs: 'Ed25519 verifications alone, one core',
    target: 2_500,
    bound: 'at-least',
  });
}

function verifiesPerSecond(): number {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const data = Buffer.alloc(400, 1);
  const signature = sign(null, data, privateKey);
  const startedMs = performance.now();
  const rounds = 4_000;
  for (let round = 0; round < rounds; round++) verify(null, data, publicKey, signature);
  return rounds / ((performance.now() - startedMs) / 1_000);
}

export const quotes: Group = {
  name: 'quotes',
  about: 'one bid that asks every seller, warm, all in one process, p50 of 10; and ranking',
  run: async (tell) => {
    for (const [count, target] of [
      [10, 15],
      [20, 30],
      [40, 60],
    ] as const)
      await bidToQuotes(count, target, tell);
    rankMany(tell);
  },
};

async function bidToQuotes(count: number, target: number, tell: Tell): Promise<void> {
  await using opened = new AsyncDisposableStack();
  const network = freshNetwork();
  const directory = await mkdtemp(join(tmpdir(), 'molt-bench-'));
  opened.defer(() => rm(directory, { recursive: true, force: true }));
  const bootstrap: string[] = [];
  const nodes: Mesh[] = [];
  for (let index = 0; index < count; index++) {
    const own = keyPairFromSeed(env.random.bytes(32));
    const at = { network, key: own, directory: join(directory, String(index)), bootstrap: [...bootstrap], limits: LAB };
    const { mesh } = opened.use(await openSeller(at));
    nodes.push(mesh);
    if (index < 2) bootstrap.push(...mesh.addresses);
  }
  const bidder = opened.use(await openBidder({ network, bootstrap, limits: LAB }));
  await until('the bidder knows all sellers', () => bidder.feed.book.size >= count);
  for (const { content } of bidder.feed.book.list()) await bidder.mesh.connect(content.addresses);
  await connected([...nodes, bidder.mesh]);
  const times: number[] = [];
  let came = 0;
  for (let round = 0; round < 13; round++) {
    if (round > 0) await pause(1_100);
    const { quotedBy, tookMs } = await bidder.bid(5_000, count);
    if (round < 3) continue;
    times.push(tookMs);
    came += quotedBy.length;
  }
  tell({
    name: `bid → all quotes, ${count} sellers`,
    value: median(times),
    unit: 'ms p50',
    baseline: await echoTime(),
    baselineIs: 'TCP connect and echo, raw',
    target,
  });
  tell({
    name: `quotes that came, ${count} sellers`,
    value: (100 * came) / (times.length * count),
    unit: '%',
    baseline: 100,
    baselineIs: 'one of every seller',
    target: 100,
    bound: 'at-least',
  });
}

const QUOTES = 10_000;

function rankMany(tell: Tell): void {
  const account = {
    stake: baseUnits(1_000_000_000n),
    reserved: baseUnits(0n),
    settledCount: 10n,
    settledAmount: 10n,
    feesBurned: 1_000n,
    faults: 0n,
    faultAmount: 0n,
  };
  const content = bidContent();
  const quote = verifiedQuote(key('ranked'), quoteContent());
  const candidates: Candidate[] = Array.from({ length: QUOTES }, (_, index) => ({
    quote: {
      ...quote,
      content: { ...quote.content, pricePerSecond: baseUnits(BigInt(1_000 + ((index * 7919) % 5_000))) },
    },
    account,
    latencyMs: (index * 31) % 200,
    failedBefore: false,
    draw: index / QUOTES,
  }));
  const numbers = candidates.map(({ draw }) => (draw * 7919) % 1);
  const time = (work: () => unknown): number => {
    const times = [1, 2, 3, 4, 5].map(() => {
      const startedMs = performance.now();
      work();
      return performance.now() - startedMs;
    });
    return median(times);
  };
  tell({
    name: 'ranking of 10,000 quotes',
    value: time(() => rank({ bid: content, candidates })),
    unit: 'ms',
    baseline: time(() => numbers.toSorted((a, b) => a - b)),
    baselineIs: 'sorting 10,000 numbers',
    target: 100,
  });
}

export const book: Group = {
  name: 'book',
  about: 'a book of 100,000 offers',
  run: (tell) => {
    bookOfMany(tell);
    return Promise.resolve();
  },
};

const BOOK = 100_000;

function bookOfMany(tell: Tell): void {
  const bytes = offerBytes(key('offered'));
  const decode = (): Message<Offer> =>
    decodeOffer(decodeEnvelope('offer', bytes.slice(), { network: NETWORK, nowMs: NOW }));
  const names = Array.from({ length: BOOK }, () => encodeAddress(env.random.bytes(32)));
  const before = liveBytes();
  const raw = new Map(names.map((name) => [name, bytes.slice()]));
  const rawMb = (liveBytes() - before) / 2 ** 20;
  const lookUp = (get: (name: Address) => unknown): number => {
    const times = [1, 2, 3, 4, 5].map(() => {
      const startedMs = performance.now();
      for (const name of names) if (get(name) === undefined) throw new Error('it is not there');
      return ((performance.now() - startedMs) * 1_000) / BOOK;
    });
    return median(times);
  };
  const rawLookUp = lookUp((name) => raw.get(name));
  raw.clear();
  const emptyBytes = liveBytes();
  const offers = createBook({ offersMax: BOOK });
  // Admission is measured elsewhere: these were signed once and carry other names.
  for (const signer of names) offers.put({ ...decode(), signer } as Verified<Message<Offer>>);
  const bookMb = (liveBytes() - emptyBytes) / 2 ** 20;
  const memory = { baseline: rawMb, baselineIs: 'the signed bytes alone, in a Map' };
  tell({ name: 'book of 100,000 offers, memory', value: bookMb, unit: 'MB', ...memory, target: 200 });
  const time = { baseline: rawLookUp, baselineIs: 'Map.get' };
  tell({
    name: 'book of 100,000 offers, look up',
    value: lookUp((name) => offers.get(name)),
    unit: 'µs',
    ...time,
    target: 1,
  });
}

/** Heap and buffers after a full collection. */
function liveBytes(): number {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}
