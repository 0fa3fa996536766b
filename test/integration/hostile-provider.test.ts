/**
 * Goal: whatever a provider does to a buyer, the buyer stays within time and memory, says by a code what went wrong, and its
 * job is done by the next provider. Method: a local chain, an honest provider as a real process, and a cheaper one with a
 * real account and stake whose node this test plays by hand.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { type Chain, readWallet } from '../../chain/index.ts';
import { answerBid, createAdmission } from '../../market/index.ts';
import type { Channel } from '../../market/ports.ts';
import { openMesh } from '../../node/mesh/index.ts';
import { type Address, encodeAddress } from '../../protocol/address.ts';
import type { KeyPair } from '../../protocol/ed25519.ts';
import { sealEnvelope } from '../../protocol/envelope.ts';
import { ACCEPT } from '../../protocol/errors.ts';
import { termsDigest } from '../../protocol/job-spec.ts';
import { type Quote, encodeOffer, encodeQuote } from '../../protocol/messages.ts';
import { BidAnswer, LeaseRequest, LeaseResponse } from '../../protocol/molt.js';
import { baseUnits } from '../../protocol/units.ts';
import { STREAMS, bidsTopic, meshName, offersTopic } from '../../protocol/wire.ts';
import type { JobEvent, Molt } from '../../sdk/index.ts';
import { offerContent } from '../market/fixtures.ts';
import { until } from '../node/mesh/peers.ts';
import { type TestMarket, type TestProvider, openMarket, runFirstOn, stepsJob } from './market.ts';

/** Of what buyer and provider hold, for both are in this process. */
const GROWTH_MB_MAX = 100;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;
const PLENTY = { cpuMillis: 8_000, memoryBytes: 2 ** 34, diskBytes: 2 ** 34, gpus: [] };
const none = baseUnits(0n);
const CHEAP = { base: baseUnits(1_000n), perCpu: none, perGib: none, perGpu: none };

let market: TestMarket;
let hostile: TestProvider;
let honest: TestProvider;
let account: Address;
let key: KeyPair;
let molt: Molt;

beforeAll(async () => {
  market = await openMarket();
  hostile = await market.provider({ pricePerCpu: '0.00005' });
  await hostile.stop();
  [account, key] = [hostile.account.account, await readWallet(hostile.home.nodeKey)];
  honest = await market.provider({ pricePerCpu: '0.003' });
  molt = await (await market.buyer()).connect();
});

afterAll(async () => {
  await market?.[Symbol.asyncDispose]();
});

/** What the hostile provider does where an honest one would do its work; absent: what an honest one does. */
interface Manners {
  /** Where the offer says that it is. */
  readonly addresses?: readonly string[];
  readonly quote?: (channel: Channel, bytes: Uint8Array, bid: Uint8Array) => Promise<void>;
  /** The terms that it signs, of those it quoted. */
  readonly terms?: (quote: Quote) => Quote;
  /** The job is there, its lease open. */
  readonly run?: (channel: Channel, signal: AbortSignal) => Promise<void>;
}

async function openHostile(manners: Manners): Promise<AsyncDisposable> {
  const { chain, env } = market;
  const { network } = chain;
  await using opened = new AsyncDisposableStack();
  const over = new AbortController();
  opened.defer(() => over.abort());
  const mesh = opened.use(
    await openMesh(env, {
      key,
      listen: ['/ip4/127.0.0.1/tcp/0'],
      bootstrap: [honest.address],
      mdns: false,
      role: 'node',
      network: meshName(network),
    }),
  );
  let sequence = 0;
  const header = (lifeMs: number) => {
    const issuedMs = env.clock.now();
    sequence = Math.max(sequence + 1, issuedMs);
    return { network, sequence, issuedMs, expiresMs: issuedMs + lifeMs };
  };
  const admission = createAdmission({ network });
  const quotes = new Map<string, Quote>();
  const bidding = await mesh.subscribe(bidsTopic(network, 'cpu'), (bytes, from) => {
    const { message } = admission.bid(bytes, from, env.clock.now());
    if (message !== undefined) void answer(message).catch(() => undefined);
    return ACCEPT;
  });
  opened.use(bidding);
  const answer = async (bid: Parameters<typeof answerBid>[0]['bid']): Promise<void> => {
    const answered = answerBid({
      bid,
      policy: { prices: CHEAP, durationSecondsMax: 3_600 },
      provider: await factsOf(chain),
      free: PLENTY,
      utilisation: 0,
      speed: 100,
      warm: false,
      near: [],
      nowMs: env.clock.now(),
      chainNowMs: await chain.chainTimeMs(),
    });
    if (!('quote' in answered)) throw answered.declined;
    const envelope = sealEnvelope(key, 'quote', header(30_000), encodeQuote(answered.quote));
    quotes.set(envelope.id, answered.quote);
    const channel = await mesh.open(bid.signer, STREAMS.quote.protocol, { addresses: bid.content.addresses });
    const id = Buffer.from(bid.id, 'hex');
    if (manners.quote !== undefined) return manners.quote(channel, envelope.bytes, id);
    await channel.send(BidAnswer.encode({ bid: id, quote: envelope.bytes }));
    return undefined;
  };
  opened.use(
    await mesh.handle(STREAMS.lease.protocol, STREAMS.lease, async (channel) => {
      for await (const frame of channel) {
        const { accept, submit } = LeaseRequest.decode(frame);
        if (accept !== undefined) {
          const id = Buffer.from(accept.quote).toString('hex');
          const quote = quotes.get(id) as Quote;
          const terms = {
            ...(manners.terms?.(quote) ?? quote),
            budget: encodeAddress(accept.budget),
            operator: key.address,
            delegate: channel.remote,
            termsDigest: termsDigest(id, accept.specDigest),
          };
          const { message } = chain.draftOpenLease(terms, encodeAddress(accept.blockhash));
          const accepted = { lease: new Uint8Array(32), operatorSignature: key.sign(message) };
          await channel.send(LeaseResponse.encode({ accepted }));
        } else if (submit !== undefined) await manners.run?.(channel, over.signal);
      }
    }),
  );
  const offer = async (): Promise<void> => {
    const addresses = manners.addresses ?? mesh.addresses.slice(0, 2);
    const content = offerContent(key, { provider: account, free: PLENTY, prices: CHEAP, addresses });
    const { bytes } = sealEnvelope(key, 'offer', header(60_000), encodeOffer(content));
    await mesh.publish(offersTopic(network, 'cpu'), bytes);
  };
  await until('the hostile provider is connected', () => mesh.peers().length > 0);
  await offer();
  opened.use(env.clock.every(5_000, offer));
  const resources = opened.move();
  return { [Symbol.asyncDispose]: () => resources.disposeAsync() };
}

async function factsOf(chain: Chain) {
  const provider = await chain.provider(account);
  if (provider === undefined) throw new Error('the hostile provider has no account');
  const { stake, reserved } = provider;
  const { reserveBps, minGraceMs, minWindowMs, maxLeaseMs } = chain.parameters;
  const about = { runtimes: ['wasm' as const], features: [], region: '', draining: false };
  return {
    address: account,
    stake,
    freeStake: baseUnits(stake - reserved),
    reserveBps,
    minGraceMs,
    minWindowMs,
    maxLeaseMs,
    ...about,
  };
}

const event = (sequence: number, body: object): Uint8Array =>
  LeaseResponse.encode({ event: { sequence: BigInt(sequence), atMs: 0n, attempt: 1, ...body } });

/** As much as the buyer takes, until it has had enough. */
async function flood(channel: Channel, signal: AbortSignal, frame: (index: number) => Uint8Array): Promise<void> {
  for (let index = 0; !signal.aborted; index++) await channel.send(frame(index), signal);
}

/** What both sides hold in this process, in MiB: what waits to be collected is nobody's. */
function liveMb(): number {
  collectGarbage();
  const { heapUsed, external } = process.memoryUsage();
  return (heapUsed + external) / 2 ** 20;
}

async function runBeside(manners: Manners) {
  const openedMs = market.env.clock.now();
  await using _hostile = await openHostile(manners);
  const isHeard = async (): Promise<boolean> => {
    const offers = await molt.offers();
    // Not the one of the test before, which lives for a minute.
    const isNew = offers.some(({ node, issuedMs }) => node === key.address && issuedMs >= openedMs);
    return isNew && offers.some(({ node }) => node !== key.address);
  };
  await until('both offers are heard', isHeard, 60_000);
  const before = liveMb();
  let mostMb = before;
  using _watch = market.env.clock.every(250, async () => void (mostMb = Math.max(mostMb, liveMb())));
  const events: JobEvent[] = [];
  // Whose quote comes is taken first; the other is there to take over.
  const first = manners.quote === undefined ? [hostile, honest] : [honest];
  const result = await runFirstOn(first, molt, await stepsJob(market, molt, 1), {
    maxPrice: '5',
    reconnectMs: 3_000,
    onEvent: (told) => events.push(told.type === 'log' ? { ...told, bytes: new Uint8Array() } : told),
  });
  const failed = events.find((told) => told.type === 'provider-failed');
  expect(result).toMatchObject({ exitCode: 0, provider: honest.account.account });
  expect(mostMb - before).toBeLessThan(GROWTH_MB_MAX);
  return { result, failed, events };
}

describe('a buyer beside a cheaper provider that', () => {
  test('answers with a quote without end takes the other, after the same patience', async () => {
    const endless: Manners = {
      quote: async (channel, _bytes, bid) =>
        flood(channel, AbortSignal.timeout(10_000), () => BidAnswer.encode({ bid, quote: new Uint8Array(1_500) })),
    };
    expect((await runBeside(endless)).result.attempts).toBe(1);
    const oversize: Manners = { quote: async (channel) => channel.send(new Uint8Array(60_000)) };
    expect((await runBeside(oversize)).result.attempts).toBe(1);
  });

  test('begins a quote and never ends it, or offers where nobody is, takes the other', async () => {
    const slow: Manners = { quote: () => new Promise((resolve) => setTimeout(resolve, 5_000)) };
    expect((await runBeside(slow)).result.attempts).toBe(1);
    const peer = (await import('../market/fixtures.ts')).multiaddrOf(key.address, 9);
    expect((await runBeside({ addresses: [peer], quote: async () => undefined })).result.attempts).toBe(1);
  });

  test('signs other terms than it quoted opens no lease with them', async () => {
    const dearer: Manners = { terms: (quote) => ({ ...quote, amount: baseUnits(quote.amount * 2n) }) };
    const { result, failed, events } = await runBeside(dearer);
    expect(failed).toMatchObject({ node: key.address, code: 'protocol/bad-signature', retrying: true });
    expect(events.filter(({ type }) => type === 'lease-opened')).toHaveLength(1);
    expect(result.attempts).toBe(1);
  });

  test('sends output without end is left when it is more than any run may have', async () => {
    const chunk = new Uint8Array(32 * 1024);
    const loud: Manners = {
      run: (channel, signal) =>
        flood(channel, signal, (index) => event(index, { log: { stream: 1, bytes: chunk, offset: 0n } })),
    };
    const { failed } = await runBeside(loud);
    expect(failed).toMatchObject({ node: key.address, code: 'protocol/oversize', retrying: true });
  });

  test('sends events that are none is left at the first', async () => {
    const { failed, events } = await runBeside({ run: async (channel) => channel.send(event(7, { usage: {} })) });
    expect(failed).toMatchObject({ node: key.address, code: 'protocol/malformed', retrying: true });
    expect(events.filter(({ type }) => type === 'provider-back')).toEqual([]);
  });

  test('takes every stream and ends it without a word is not come back to without end', async () => {
    const { failed, events } = await runBeside({ run: (channel) => channel.close() });
    expect(failed).toMatchObject({ node: key.address, code: 'job/provider-lost', retrying: true });
    // The patience of three seconds has room for six of them, half a second apart.
    expect(events.filter(({ type }) => type === 'provider-back').length).toBeLessThanOrEqual(7);
  });

  test('goes on sending heartbeats and never proves is left when its time is over', async () => {
    const idle: Manners = {
      run: async (channel, signal) => {
        // Chain time passes meanwhile.
        void market.warp(400);
        for (; !signal.aborted; await market.env.clock.sleep(1_000, signal)) {
          await channel.send(LeaseResponse.encode({ heartbeat: { nextSequence: 0n } }));
        }
      },
    };
    const { failed } = await runBeside(idle);
    expect(failed).toMatchObject({ node: key.address, code: 'job/provider-lost', retrying: true });
    expect(failed?.type === 'provider-failed' && failed.reason).toMatch(/^the provider did not prove the job by/);
  });
});
