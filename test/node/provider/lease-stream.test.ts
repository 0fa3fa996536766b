/**
 * Goal: a buyer hears that its provider is there while the owner is asked about the job, and a job that is handed over
 * again, as after a cut, is taken once. Method: real mesh, journal and jobs; a chain that has every lease, an owner who
 * answers when the test says so, and nothing that runs.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import type { Channel } from '../../../market/ports.ts';
import { openJournal } from '../../../node/journal.ts';
import type { Mesh } from '../../../node/mesh/index.ts';
import type { Agreement } from '../../../node/provider/job.ts';
import { Jobs, type JobsOptions } from '../../../node/provider/jobs.ts';
import { type LeaseStreamOptions, serveLeases } from '../../../node/provider/lease-stream.ts';
import { decodeAddress } from '../../../protocol/address.ts';
import { MoltError } from '../../../protocol/errors.ts';
import { encodeJobSpec, parseJobSpec, specDigest } from '../../../protocol/job-spec.ts';
import { LeaseRequest } from '../../../protocol/molt.js';
import { STREAMS, decodeLeaseResponse } from '../../../protocol/wire.ts';
import { address } from '../../market/fixtures.ts';
import { Peers, env, until } from '../mesh/peers.ts';

const lease = address('lease');
const spec = parseJobSpec({
  runtime: 'wasm',
  image: 'bafkreif2pall7dybz7vecqka3zo24irdwabwdi4wc55jznaq75q7eaavvu',
});
const bytes = encodeJobSpec(spec);

let opened: AsyncDisposableStack;
let provider: Mesh;
let buyer: Mesh;
let jobs: Jobs;
/** How often the owner was asked, and what answers all of it. */
let asked: number;
let decide: (refused: MoltError | undefined) => void;

beforeEach(async () => {
  opened = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'molt-lease-stream-'));
  opened.defer(() => rm(directory, { recursive: true, force: true }));
  const journal = opened.use(await openJournal(directory));
  [provider, buyer] = await opened.use(new Peers()).pair();
  const chain = {
    fundedLease: async () => ({}),
    lease: async () => undefined,
    watchLease: async function* (_lease: string, signal: AbortSignal) {
      yield {};
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    },
  };
  const execution = {
    perform: () => new Promise(() => undefined),
    stop: async () => undefined,
    cleanUp: async () => undefined,
    keepConfidential: () => undefined,
    [Symbol.asyncDispose]: async () => undefined,
  };
  const shared = { chain, execution, journal, tell: () => undefined };
  jobs = opened.use(new Jobs(env, { ...shared, onRelease: () => undefined } as unknown as JobsOptions));
  await jobs.accept(agreement());
  asked = 0;
  const { promise, resolve } = Promise.withResolvers<MoltError | undefined>();
  decide = resolve;
  const options = {
    ...shared,
    network: provider,
    jobs,
    egress: [],
    policy: {},
    approve: () => {
      asked++;
      return promise;
    },
    onFunded: async () => undefined,
  };
  // Heartbeats come a hundred times as fast.
  const clock = {
    ...env.clock,
    every: (ms: number, task: () => void | Promise<void>) => env.clock.every(ms / 100, task),
  };
  opened.use(await serveLeases({ ...env, clock }, options as unknown as LeaseStreamOptions));
});
afterEach(() => opened.disposeAsync());

function agreement(): Agreement {
  return {
    lease,
    budget: address('budget'),
    provider: address('provider'),
    operator: provider.self,
    delegate: buyer.self,
    specDigest: Buffer.from(specDigest(bytes)).toString('hex'),
    termsDigest: '00'.repeat(32),
    amount: '1',
    pricePerSecond: '1',
    reserve: '1',
    openBeforeMs: env.clock.now() + 60_000,
    finishByMs: env.clock.now() + 600_000,
    graceMs: 5_000,
    windowMs: 60_000,
    need: spec.resources,
    runtime: 'wasm',
    durationSecondsMax: spec.maxDurationSeconds,
  } as unknown as Agreement;
}

interface Handed {
  readonly channel: Channel;
  heartbeats: number;
  /** Phases, and codes of failures. */
  readonly heard: string[];
}

/** Hands the job over on a stream of its own. */
async function handOver(): Promise<Handed> {
  const { protocol, maxFrameBytes } = STREAMS.lease;
  const channel = await buyer.open(provider.self, protocol, { addresses: provider.addresses, maxFrameBytes });
  const handed: Handed = { channel, heartbeats: 0, heard: [] };
  const listen = async (): Promise<void> => {
    for await (const frame of channel) {
      const { event, heartbeat } = decodeLeaseResponse(frame);
      if (heartbeat !== undefined) handed.heartbeats++;
      if (event?.phase !== undefined) handed.heard.push(event.phase.phase);
      if (event?.failed !== undefined) handed.heard.push(event.failed.code);
    }
  };
  void listen().catch(() => undefined);
  const submit = { lease: decodeAddress(lease), spec: bytes, transaction: new Uint8Array(), secrets: [] };
  await channel.send(LeaseRequest.encode({ submit }));
  return handed;
}

test('a provider is heard while its owner is asked, and one who was cut off meanwhile does not have him asked again', async () => {
  const first = await handOver();
  await until('the provider is heard', () => asked === 1 && first.heartbeats > 3);
  first.channel.abort(new MoltError('mesh/closed', 'cut'));
  const second = await handOver();
  await until('the provider is heard again', () => second.heartbeats > 0);
  decide(undefined);
  await until('the job is taken', () => second.heard.includes('fetching'));
  const third = await handOver();
  await until('the third hears of it as well', () => third.heard.includes('fetching'));
  expect(asked).toBe(1);
  expect(jobs.get(lease)?.phase).toBe('fetching');
});

test('a job that its owner refused is refused once, and who hands it over again hears so', async () => {
  decide(new MoltError('market/not-approved', 'not this one'));
  const first = await handOver();
  await until('the refusal is heard', () => first.heard.includes('market/not-approved'));
  const second = await handOver();
  await until('the refusal is heard again', () => second.heard.includes('market/not-approved'));
  expect(asked).toBe(1);
});
