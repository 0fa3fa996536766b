/**
 * Goal: a verifier hears the parties and nobody else, spends no more than it said, and says what it found and why. Method: a
 * real verifier with mesh, journal, store and sandbox; a dispute on a chain by hand, whose time the test moves.
 */
import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { createTranscript } from '../../../attestation/index.ts';
import type { Chain, DisputeAccount, DisputeSeat, LeaseAccount, Vote } from '../../../chain/index.ts';
import type { NodeEvent } from '../../../node/events.ts';
import { openJournal } from '../../../node/journal.ts';
import { type HandedIn, type Mesh, handInToAll, openArtifacts } from '../../../node/mesh/index.ts';
import { WasmRuntime } from '../../../node/runtime/index.ts';
import { Verifier, type VerifierOptions } from '../../../node/verifier/verifier.ts';
import { type Address, decodeAddress } from '../../../protocol/address.ts';
import { EvidenceRequest } from '../../../protocol/molt.js';
import { baseUnits } from '../../../protocol/units.ts';
import { STREAMS, decodeEvidenceAnswer } from '../../../protocol/wire.ts';
import { type Changes, type Disputed, disputed } from '../../attestation/disputed.ts';
import { FACTS, address, key, operator } from '../../attestation/fixtures.ts';
import { Peers, env, until } from '../mesh/peers.ts';
import { ENDLESS, NOTHING, assemble } from '../runtime/module.ts';

const LEASE = address('lease');
const SELF = address('verifier');
const VOTE_MS = 600_000;
const DISPUTED_AT = FACTS.startedAtMs + 20_000;
const KIB = 1024;
const MIB = 1024 * KIB;
const LIMITS: VerifierOptions['limits'] = { durationMs: 30_000, memoryBytes: 512 * MIB, contentBytes: MIB };

/** One disputed lease in which we have a seat. */
class DisputeByHand {
  nowMs = DISPUTED_AT;
  readonly committed: Vote[] = [];
  readonly #of: Disputed['of'];
  #seat: DisputeSeat = { verifier: SELF, committed: false, pledge: baseUnits(1n) };

  constructor(of: Disputed['of']) {
    this.#of = of;
  }

  #dispute(): DisputeAccount {
    return {
      address: address('dispute'),
      lease: LEASE,
      provider: this.#of.provider,
      rentPayer: this.#of.delegate,
      bond: baseUnits(1n),
      slot: 1n,
      seats: [this.#seat],
      voteUntilMs: DISPUTED_AT + VOTE_MS,
      revealUntilMs: DISPUTED_AT + 2 * VOTE_MS,
    };
  }

  #lease(): Partial<LeaseAccount> {
    const { locked, claimed, resultDigest, provenAtMs, ...rest } = this.#of;
    return { ...rest, address: LEASE, amount: locked, state: 'disputed', proof: { claimed, resultDigest, provenAtMs } };
  }

  readonly chain = {
    network: address('network'),
    config: async () => ({ verifiers: [SELF], parameters: { voteMs: VOTE_MS } }),
    chainTimeMs: async () => this.nowMs,
    disputes: async () => [this.#dispute()],
    dispute: async (lease: Address) => (lease === LEASE ? this.#dispute() : undefined),
    lease: async (lease: Address) => (lease === LEASE ? this.#lease() : undefined),
    commitVote: async (_key: unknown, vote: Vote) => {
      this.committed.push(vote);
      this.#seat = { ...this.#seat, committed: true };
      return { signature: 'committed' };
    },
  } as unknown as Chain;
}

let opened: AsyncDisposableStack;
let directory: string;
let peers: Peers;
let judge: Mesh;
let runtime: WasmRuntime;
let told: NodeEvent[];
beforeEach(async () => {
  opened = new AsyncDisposableStack();
  directory = await mkdtemp(join(tmpdir(), 'molt-verifier-'));
  opened.defer(() => rm(directory, { recursive: true, force: true }));
  peers = opened.use(new Peers());
  judge = await peers.open();
  runtime = new WasmRuntime(env, join(directory, 'runtime'));
  opened.defer(() => runtime.close());
  told = [];
});
afterEach(() => opened.disposeAsync());

interface Market {
  readonly dispute: DisputeByHand;
  readonly verifier: Verifier;
  readonly evidence: Disputed['evidence'];
  readonly buyer: Mesh;
}

/** A verifier with a seat in the dispute about a job of this module, and its buyer, who has the module. */
async function open(
  module: Uint8Array,
  { limits = {}, changes = {} }: { readonly limits?: Partial<typeof LIMITS>; readonly changes?: Changes } = {},
): Promise<Market> {
  const buyerKey = key('buyer node');
  const buyer = await peers.open({ key: buyerKey });
  const store = await openArtifacts(env, { directory: join(directory, 'theirs'), quotaBytes: 64 * MIB });
  opened.use(await store.serve(buyer, () => true));
  const image = (await store.addBytes(module)).cid;
  const inputs = [];
  for (const [index, bytes] of [300, 300].entries())
    inputs.push({ cid: (await store.addBytes(randomBytes(bytes * KIB))).cid, path: `in-${index}` });
  const { of, evidence } = disputed({
    ...changes,
    spec: { image, inputs, outputs: [], ...changes.spec },
    facts: { ...silent(), buyer: buyerKey.address, image: { reference: image }, inputs, ...changes.facts },
    lease: { delegate: buyerKey.address },
  });
  const dispute = new DisputeByHand(of);
  const looking = {
    ...env,
    // It looks every three seconds, and the test has no time for that.
    clock: { ...env.clock, sleep: (ms: number, s?: AbortSignal) => env.clock.sleep(ms === 3_000 ? 20 : ms, s) },
  };
  const verifier = await Verifier.open(looking, {
    key: key('verifier node'),
    provider: SELF,
    chain: dispute.chain,
    network: judge,
    journal: opened.use(await openJournal(join(directory, 'journal'))),
    directory,
    runtime,
    limits: { ...LIMITS, ...limits },
    tell: (event) => told.push(event),
  });
  opened.use(verifier);
  return { dispute, verifier, evidence, buyer };
}

/** The facts of a run that printed nothing and left nothing. */
function silent(): Changes['facts'] {
  const { attempt, specDigest } = FACTS;
  const [network, lease] = [address('network'), LEASE];
  const summary = createTranscript({ network, lease, attempt, specDigest }).finish();
  return {
    outputs: [],
    usage: { cpuMs: 1, memoryPeakBytes: 1 },
    logs: { root: summary.logRoot, leaves: 0, stdoutBytes: 0, stderrBytes: 0, stdoutSha256: sha256('') },
  };
}

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');
const never = new AbortController().signal;

/** What the verifier answers to these bytes: a code, or that it has taken them. */
async function answerTo(from: Mesh, frame: Uint8Array): Promise<string> {
  await meet(from);
  const { protocol, maxFrameBytes } = STREAMS.evidence;
  const channel = await from.open(judge.self, protocol, { addresses: judge.addresses, maxFrameBytes, signal: never });
  try {
    await channel.send(frame);
    for await (const answer of channel) return decodeEvidenceAnswer(answer).refused?.code ?? 'taken';
  } finally {
    await channel.close();
  }
  return 'no answer';
}

/** A busy machine may take longer for a handshake than peers give each other: whoever comes comes again. */
async function meet(from: Mesh): Promise<void> {
  const meeting = (): Promise<boolean> =>
    from.connect(judge.addresses).then(
      () => true,
      () => false,
    );
  await until('a connection to the verifier', async () => from.isConnected(judge.self) || meeting());
}

function request(more: Partial<Omit<EvidenceRequest, 'lease'>>, lease = decodeAddress(LEASE)): Uint8Array {
  const none = new Uint8Array();
  return EvidenceRequest.encode({ lease, quote: none, spec: none, proof: none, hasContent: false, ...more });
}

/** Hands in until the verifier needs nothing more, as a party does. */
async function handIn(from: Mesh, evidence: Omit<HandedIn, 'lease'>): Promise<void> {
  const verifiers = [{ node: judge.self, addresses: judge.addresses }];
  const round = { network: from, verifiers, evidence: { ...evidence, lease: LEASE } };
  while ((await handInToAll(env, round, never)).length === 0);
}

async function verdict(): Promise<readonly unknown[]> {
  const judged = () => told.find(({ type }) => type === 'dispute-judged');
  await expect.poll(judged).toBeDefined();
  const { side, ground, reason } = judged() as Extract<NodeEvent, { type: 'dispute-judged' }>;
  return [side, ground, reason];
}

test('the parties of a dispute are heard, nobody else is, and nothing that belongs to another lease', async () => {
  const { verifier, evidence, buyer } = await open(assemble({ bodies: [NOTHING] }));
  const [stranger, seller] = [await peers.open(), await peers.open({ key: operator })];
  const shown = () => verifier.list().map((one) => one.shown);
  const { quote, spec, proof } = evidence;
  const other = disputed({ quote: { speed: 2 } }).evidence;
  const refused: readonly [Mesh, Uint8Array, string][] = [
    [stranger, request({ quote, spec, proof }), 'dispute/evidence-refused'],
    [buyer, request({ quote }), 'dispute/evidence-refused'],
    [buyer, request({ quote: other.quote, spec: other.spec }), 'dispute/evidence-refused'],
    [seller, request({ proof: other.proof }), 'dispute/evidence-refused'],
    [seller, request({ proof: randomBytes(2_000) }), 'dispute/evidence-refused'],
    [buyer, request({ quote, spec }, decodeAddress(address('another lease'))), 'dispute/not-drawn'],
    [buyer, request({ quote, spec }, new Uint8Array(31)), 'protocol/malformed'],
    [stranger, randomBytes(500), 'protocol/malformed'],
  ];
  for (const [index, [from, frame, code]] of refused.entries())
    expect([index, await answerTo(from, frame)]).toEqual([index, code]);
  await expect.poll(shown).toEqual([[]]);
  expect(await answerTo(seller, request({ proof }))).toBe('taken');
  expect(shown()).toEqual([['proof']]);
  expect(await answerTo(buyer, request({ quote, spec }))).toBe('taken');
  expect(shown()).toEqual([['quote', 'spec', 'proof']]);
  expect(told.filter(({ type }) => type === 'evidence-taken')).toMatchObject([{ from: 'provider' }, { from: 'buyer' }]);
});

test('a job that comes to the same again is found for its provider, and who judged hears nothing more', async () => {
  const { dispute, evidence, buyer } = await open(assemble({ bodies: [NOTHING] }));
  await handIn(buyer, { ...evidence, hasContent: true });
  expect(await verdict()).toEqual(['provider', 'result-equal', expect.any(String)]);
  await expect.poll(() => dispute.committed).toMatchObject([{ lease: LEASE, verifier: SELF, side: 'provider' }]);
  expect(await answerTo(buyer, request({ quote: evidence.quote, spec: evidence.spec }))).toBe('dispute/judged');
  // A party that comes once more has nothing left to do here.
  await handIn(buyer, { ...evidence, hasContent: true });
});

test('a job that runs longer than a verifier gives it is stopped, and found for its provider', async () => {
  const { evidence, buyer } = await open(assemble({ bodies: [ENDLESS] }), { limits: { durationMs: 1_000 } });
  await handIn(buyer, { ...evidence, hasContent: true });
  expect(await verdict()).toEqual([
    'provider',
    'too-costly',
    expect.stringMatching(/it did not end within the 1 s|in the time/),
  ]);
});

test('a job with more memory than a verifier gives it is not even fetched', async () => {
  const limits = { memoryBytes: 64 * MIB };
  const changes = { spec: { resources: { memoryBytes: 65 * MIB } } };
  const { evidence, buyer, verifier } = await open(assemble({ bodies: [NOTHING] }), { limits, changes });
  await handIn(buyer, { ...evidence, hasContent: true });
  expect(await verdict()).toEqual([
    'provider',
    'too-costly',
    `the job has ${65 * MIB} bytes of memory, this verifier runs ${64 * MIB} again`,
  ]);
  expect(verifier.list()).toMatchObject([{ shown: ['quote', 'spec', 'proof'] }]);
});

test('content of which one piece is more than a verifier keeps ends the case at once, and is not asked for again', async () => {
  const { dispute, evidence, buyer } = await open(randomBytes(400 * KIB), { limits: { contentBytes: 350 * KIB } });
  const { quote, spec, proof } = evidence;
  expect(await answerTo(buyer, request({ quote, spec, proof, hasContent: true }))).toBe('artifact/too-large');
  expect(await verdict()).toEqual([
    'provider',
    'too-costly',
    `module and inputs do not fit into the ${350 * KIB} bytes that this verifier keeps of them`,
  ]);
  await expect.poll(() => dispute.committed).toHaveLength(1);
  expect(await answerTo(buyer, request({ quote, spec, proof, hasContent: true }))).toBe('dispute/judged');
});

test('content that is too much together is waited for while room may be made, and then that is said', async () => {
  const { dispute, evidence, buyer } = await open(randomBytes(KIB), { limits: { contentBytes: 500 * KIB } });
  const { quote, spec, proof } = evidence;
  for (const _ of [1, 2])
    expect(await answerTo(buyer, request({ quote, spec, proof, hasContent: true }))).toBe('job/disk-full');
  expect(told.filter(({ type }) => type === 'dispute-judged')).toEqual([]);
  dispute.nowMs = DISPUTED_AT + VOTE_MS - 100_000;
  expect(await verdict()).toEqual(['provider', 'too-costly', expect.stringContaining(`the ${500 * KIB} bytes`)]);
});

test('content that no buyer brings is waited for, and then that is said', async () => {
  const { dispute, evidence, buyer } = await open(assemble({ bodies: [NOTHING] }));
  await handIn(buyer, { ...evidence, hasContent: false });
  expect(told.filter(({ type }) => type === 'dispute-judged')).toEqual([]);
  dispute.nowMs = DISPUTED_AT + VOTE_MS - 100_000;
  expect(await verdict()).toEqual([
    'provider',
    'content-missing',
    'the buyer has not brought the module and the inputs of the job',
  ]);
});
