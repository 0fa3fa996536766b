/**
 * Goal: in a dispute a provider brings its word to each drawn verifier, until that has heard it and no longer. Method: real
 * verifiers' doors on loopback that answer as the test says, and a journal with the events of the job.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import type { Chain, DisputeAccount, ProviderAccount } from '../../../chain/index.ts';
import { type Journal, openJournal } from '../../../node/journal.ts';
import { type HandedIn, type Mesh, serveEvidence } from '../../../node/mesh/index.ts';
import { Defence } from '../../../node/provider/defence.ts';
import type { Job } from '../../../node/provider/job.ts';
import type { Address } from '../../../protocol/address.ts';
import type { Env } from '../../../protocol/env.ts';
import { MoltError } from '../../../protocol/errors.ts';
import { JobEvent } from '../../../protocol/molt.js';
import { baseUnits } from '../../../protocol/units.ts';
import { address } from '../../market/fixtures.ts';
import { Peers, env } from '../mesh/peers.ts';

const lease = address('lease');
const QUOTE = Uint8Array.of(1, 2, 3);
const SPEC = Uint8Array.of(4, 5);
const PROOF = Uint8Array.of(6, 7, 8);
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
const job = { agreement: { lease, quote: base64(QUOTE) }, spec: base64(SPEC) } as unknown as Job;

/** The node of a drawn verifier: what it was brought, and what it says to that. */
interface Judge {
  readonly account: Address;
  readonly mesh: Mesh;
  readonly heard: HandedIn[];
  answer: (signal: AbortSignal) => Promise<void>;
}

let opened: AsyncDisposableStack;
let peers: Peers;
let provider: Mesh;
let journal: Journal;
let judges: readonly Judge[];
/** How often the chain was asked who the verifiers are. */
let rounds: number;

beforeEach(async () => {
  opened = new AsyncDisposableStack();
  rounds = 0;
  const directory = await mkdtemp(join(tmpdir(), 'molt-defence-'));
  opened.defer(() => rm(directory, { recursive: true, force: true }));
  journal = opened.use(await openJournal(directory));
  peers = opened.use(new Peers());
  provider = await peers.open();
  judges = await Promise.all(['a', 'b', 'c'].map(openJudge));
  const events = [
    { phase: { phase: 'running', detail: '', bytesDone: 0n, bytesTotal: 0n } },
    { proof: { envelope: Uint8Array.of(9) } },
    { proof: { envelope: PROOF } },
  ].map((event, sequence) => ({
    sequence,
    bytes: JobEvent.encode({ sequence: BigInt(sequence), atMs: 1n, attempt: 1, ...event } as JobEvent),
  }));
  await journal.append(lease, events);
});
afterEach(() => opened.disposeAsync());

async function openJudge(name: string): Promise<Judge> {
  const mesh = await peers.open();
  const judge: Judge = { account: address(name), mesh, heard: [], answer: () => Promise.resolve() };
  const take = async (_from: Address, evidence: HandedIn, signal: AbortSignal): Promise<void> => {
    judge.heard.push(evidence);
    await judge.answer(signal);
  };
  opened.use(await serveEvidence(env, mesh, take));
  return judge;
}

const dispute = (drawn: readonly Judge[]): DisputeAccount =>
  ({
    lease,
    seats: drawn.map(({ account: verifier }) => ({ verifier, committed: false, pledge: baseUnits(1n) })),
  }) as unknown as DisputeAccount;

function open(own: Env = env): Defence {
  const chain = {
    providersAt: async (found: readonly Address[]) => {
      rounds++;
      return found.map((one) => {
        const operator = judges.find(({ account }) => account === one)?.mesh.self;
        return operator === undefined ? undefined : ({ operator } as ProviderAccount);
      });
    },
  } as unknown as Chain;
  const addressesOf = (node: Address): readonly string[] =>
    judges.find(({ mesh }) => mesh.self === node)?.mesh.addresses ?? [];
  return opened.use(new Defence(own, { chain, network: provider, journal, addressesOf }));
}

/** Calls `show` as the watch of a lease does, every now and then, until so many evidences were brought to each. */
async function shown(defence: Defence, of: Job, counts: readonly number[]): Promise<void> {
  const look = (): readonly number[] => {
    defence.show(of, dispute(judges));
    return judges.map(({ heard }) => heard.length);
  };
  await expect.poll(look).toEqual(counts);
}

/** Asks once more, which has nothing to do but to find that out. */
async function again(defence: Defence): Promise<void> {
  const before = rounds;
  for (let asked = 0; asked < 20; asked++) {
    defence.show(job, dispute(judges));
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(rounds).toBe(before);
}

test('quote, specification and the last proof come to each verifier, once, and no content', async () => {
  const defence = open();
  await shown(defence, job, [1, 1, 1]);
  for (const { heard } of judges) {
    const [one] = heard;
    expect({
      ...one,
      quote: [...(one?.quote ?? [])],
      spec: [...(one?.spec ?? [])],
      proof: [...(one?.proof ?? [])],
    }).toEqual({
      lease,
      quote: [...QUOTE],
      spec: [...SPEC],
      proof: [...PROOF],
      hasContent: false,
    });
  }
  await again(defence);
  expect(judges.map(({ heard }) => heard.length)).toEqual([1, 1, 1]);
});

test('a verifier that does not know of its seat yet is asked again, one that has judged is left alone', async () => {
  const [unaware, judged] = judges as [Judge, Judge, Judge];
  unaware.answer = async () => {
    if (unaware.heard.length < 3) throw new MoltError('dispute/not-drawn', 'no seat that it knows of');
  };
  judged.answer = () => Promise.reject(new MoltError('dispute/judged', 'it has judged'));
  const defence = open();
  await shown(defence, job, [3, 1, 1]);
  await again(defence);
});

test('a verifier that cannot be reached keeps none of the others from hearing', async () => {
  const [gone, ...rest] = judges as [Judge, Judge, Judge];
  await gone.mesh[Symbol.asyncDispose]();
  const defence = open();
  await shown(defence, job, [0, 1, 1]);
  expect(rest.map(({ heard }) => heard.length)).toEqual([1, 1]);
});

test('of a job whose specification never came, the proof alone is shown', async () => {
  const { quote: _quote, ...agreement } = job.agreement;
  await shown(open(), { ...job, agreement }, [1, 1, 1]);
  for (const { heard } of judges)
    expect(Object.keys(heard[0] ?? {}).toSorted()).toEqual(['hasContent', 'lease', 'proof']);
});

test('a node that stops does not wait for a verifier that never answers', async () => {
  for (const judge of judges)
    judge.answer = (signal) => new Promise((resolve) => signal.addEventListener('abort', () => resolve()));
  // Whose rounds do not end by themselves either.
  const sleep = (_ms: number, signal?: AbortSignal): Promise<void> =>
    new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason as Error)));
  const defence = open({ ...env, clock: { ...env.clock, sleep } });
  await shown(defence, job, [1, 1, 1]);
  await defence[Symbol.asyncDispose]();
});
