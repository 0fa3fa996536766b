/**
 * What every job of one connected buyer shares: mesh, chain, book, content store, and the routes of incoming quotes.
 *
 * A buyer is a light peer: it follows offers, publishes bids, answers pulls for the inputs of its own running jobs, and
 * needs no daemon.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { contentToRepeat } from '../attestation/index.ts';
import {
  type BudgetAccount,
  type Chain,
  type ProviderAccount,
  type Vouched,
  connectChain,
  createVouching,
  openChainClock,
  readNetwork,
} from '../chain/index.ts';
import {
  ADMISSION_LIMITS,
  type OfferFeed,
  createAdmission,
  createBuckets,
  followMarket,
  KeptNeighbours,
  openOfferFeed,
  autonomyOf,
} from '../market/index.ts';
import { type Artifacts, type Mesh, handInToAll, openArtifacts, openMesh } from '../node/mesh/index.ts';
import type { Address } from '../protocol/address.ts';
import { Deadline } from '../protocol/deadline.ts';
import type { KeyPair } from '../protocol/ed25519.ts';
import { type Env, randomInt, systemEnv } from '../protocol/env.ts';
import { MoltError } from '../protocol/errors.ts';
import { decodeJobSpec } from '../protocol/job-spec.ts';
import { type Message, type Offer, RESOURCE_CLASSES } from '../protocol/messages.ts';
import { STREAMS, marketCid, meshName } from '../protocol/wire.ts';
import { type AnswerRoute, takeAnswers } from './answers.ts';
import { type Contests, type ContestsOptions, openContests } from './contest.ts';
import { type BuyerJournal, openBuyerJournal } from './journal.ts';
import { type RunJournal, openRunJournal } from './runs.ts';
import { type KeptEvidence, openEvidence } from './evidence.ts';
import type { ConnectOptions } from './options.ts';
import { type Spending, openSpending } from './spending.ts';

export interface Buyer extends AsyncDisposable {
  readonly env: Env;
  readonly key: KeyPair;
  readonly mesh: Mesh;
  readonly chain: Chain;
  readonly chainClock: { now(): number };
  readonly feed: OfferFeed;
  readonly artifacts: Artifacts;
  readonly closing: AbortSignal;
  /** When it connected, monotonic. */
  readonly joinedMs: number;
  readonly journal: BuyerJournal;
  /** Gangs and replicas, over crashes. */
  readonly runs: RunJournal;
  /** What a buyer with limits of its own spends; undefined for one without. */
  readonly spending: Spending | undefined;
  /** Leases that are not settled, and disputed when they are claimed. */
  readonly contests: Contests;
  /** What could be shown about open leases. */
  readonly evidence: KeptEvidence;
  /** Newest sequence that this key signed here. */
  sequence: number;
  /** Waits until one more bid is within what peers take from one origin. */
  bidTurn(signal: AbortSignal): Promise<void>;
  budgetAddress: Address;
  /** The one region that is followed; empty: all. */
  readonly followRegion: string;
  /** The budget that pays, fresh. Throws `chain/account-missing`, `chain/budget-limit`, `chain/budget-empty`. */
  budget(): Promise<BudgetAccount>;
  /** A provider's account, at most a few seconds old. */
  providerAccount(address: Address): Promise<ProviderAccount>;
  /** Which of these offers are of providers that the chain knows. */
  vouch(offers: readonly Message<Offer>[]): Promise<Vouched>;
  waitForOffers(timeoutMs: number, signal: AbortSignal): Promise<void>;
  /** Sends answers to this bid to `route` until the returned function is called. */
  routeAnswers(bid: string, route: AnswerRoute): () => void;
  /** Lets one peer fetch this content until disposed. */
  readonly grant: (peer: Address, cids: readonly string[]) => Disposable;
  /** A random number in [0, 1). */
  draw(): number;
}

const ARTIFACT_QUOTA_BYTES = 50 * 10 ** 9;
const ACCOUNT_FRESH_MS = 5_000;
const ACCOUNTS_MAX = 10_000;
/** Sellers that a bid finds connected. */
const WARM_MAX = 24;
/** Gossip and the pull on connecting have this long before the DHT is asked. */
const SEARCH_AFTER_MS = 500;
const SEARCH_EVERY_MS = 1_000;
const BID_TURN_POLL_MS = 100;
const DRAW_STEPS = 2 ** 32;

export async function openBuyer(options: ConnectOptions): Promise<Buyer> {
  const env = options.env ?? systemEnv();
  const { key } = options;
  await using opened = new AsyncDisposableStack();
  const closing = new AbortController();
  opened.defer(() => closing.abort(new MoltError('node/stopped', 'the client was closed')));
  const directory = options.directory ?? (await mkdtemp(join(tmpdir(), 'molt-')));
  if (options.directory === undefined) opened.defer(() => rm(directory, { recursive: true, force: true }));
  const { journal, runs } = await openJournals(env, options, opened);
  const spending = await spendingOf(env, options);
  const network = await readNetwork(options.rpcUrl);
  const { chain, mesh } = await joinNetworks(env, options, { network, opened });
  const artifacts = await openArtifacts(env, {
    directory: join(directory, 'artifacts'),
    quotaBytes: ARTIFACT_QUOTA_BYTES,
  });
  const vouch = createVouching(env, chain);
  const feed = opened.use(
    await openOfferFeed(env, {
      pubsub: mesh,
      network: mesh,
      networkId: network,
      admission: createAdmission({ network }),
      regions: [options.followRegion ?? ''],
      vouch,
    }),
  );
  const chainClock = opened.use(await openChainClock(env, chain));
  opened.use(followMarket(env, { feed, neighbours: mesh }));
  opened.use(new KeptNeighbours(env, { feed, neighbours: mesh, vouch, wanted: WARM_MAX }));
  const routes = new Map<string, AnswerRoute>();
  opened.use(await mesh.handle(STREAMS.quote.protocol, STREAMS.quote, (channel) => takeAnswers(env, channel, routes)));
  const grants = createGrants();
  opened.use(await artifacts.serve(mesh, grants.allows));
  const { grant } = grants;
  const disputes = await openDisputes(env, options, { parts: { chain, mesh, feed, artifacts, grant }, opened });
  const random = env.random.split('ranking');
  const resources = opened.move();

  return {
    env,
    key,
    mesh,
    chain,
    chainClock,
    feed,
    artifacts,
    closing: closing.signal,
    joinedMs: env.clock.monotonic(),
    journal,
    runs,
    spending,
    ...disputes,
    sequence: 0,
    budgetAddress: options.budget,
    followRegion: options.followRegion ?? '',
    bidTurn: bidTurns(env),
    budget: () => readBudget(chain, options.budget, { delegate: key.address, chainNowMs: chainClock.now() }),
    providerAccount: cachedProviders(env, chain),
    vouch,
    waitForOffers: (timeoutMs, signal) =>
      waitForOffers(env, { feed, mesh, network }, timeoutMs, AbortSignal.any([signal, closing.signal])),
    routeAnswers: (bid, route) => {
      routes.set(bid, route);
      return () => routes.delete(bid);
    },
    grant,
    draw: () => randomInt(random, DRAW_STEPS) / DRAW_STEPS,
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

/** Bids, gangs and replicas, remembered over restarts where there is a folder for it. */
async function openJournals(
  env: Env,
  { journal: directory }: ConnectOptions,
  opened: AsyncDisposableStack,
): Promise<Pick<Buyer, 'journal' | 'runs'>> {
  const onTrouble = (error: unknown): void => env.logger.log('warn', 'a bid could not be kept', { error });
  const journal = opened.use(await openBuyerJournal(directory, onTrouble));
  return { journal, runs: opened.use(await openRunJournal(env, directory)) };
}

/** Throws `config/invalid` for limits that are none, or that could not be counted across restarts. */
async function spendingOf(env: Env, { autonomy, journal }: ConnectOptions): Promise<Spending | undefined> {
  if (autonomy === undefined) return undefined;
  const limits = autonomyOf(autonomy);
  if (journal === undefined) {
    const message = 'autonomy counts spending across restarts: name a folder for it in the option journal';
    throw new MoltError('config/invalid', message);
  }
  return openSpending(env, journal, limits);
}

/** Chain and mesh at once; whatever was opened is closed when the other fails. */
async function joinNetworks(
  env: Env,
  options: ConnectOptions,
  at: { readonly network: Address; readonly opened: AsyncDisposableStack },
): Promise<{ chain: Chain; mesh: Mesh }> {
  const { rpcUrl, programId, key, bootstrap } = options;
  const meshing = openMesh(env, {
    key,
    listen: options.listen ?? defaultListen(bootstrap),
    bootstrap,
    mdns: options.mdns ?? false,
    role: 'light',
    network: meshName(at.network),
  });
  at.opened.defer(async () => (await meshing.catch(() => undefined))?.[Symbol.asyncDispose]());
  const chainOptions = { rpcUrl, expectedNetwork: at.network, ...(programId === undefined ? {} : { programId }) };
  const chain = at.opened.use(await connectChain(env, chainOptions));
  return { chain, mesh: await meshing };
}

/** Providers must be able to reach the bidder; on one machine loopback is enough and nothing is opened to the network. */
function defaultListen(bootstrap: readonly string[]): readonly string[] {
  const local = bootstrap.length > 0 && bootstrap.every((address) => /^\/ip4\/127\.|^\/ip6\/::1\//.test(address));
  return [local ? '/ip4/127.0.0.1/tcp/0' : '/ip4/0.0.0.0/tcp/0'];
}

/** Peers drop bids above their rate without a word, so the buyer keeps a little below it. */
function bidTurns(env: Env): (signal: AbortSignal) => Promise<void> {
  const { perSecond, burst } = ADMISSION_LIMITS.bidsPerOrigin;
  const bucket = createBuckets({ perSecond: perSecond * 0.9, burst: burst - 1 }, 1);
  return async (signal) => {
    while (!bucket.take('bids', env.clock.now())) await env.clock.sleep(BID_TURN_POLL_MS, signal);
  };
}

type DisputeParts = Pick<Buyer, 'chain' | 'mesh' | 'feed' | 'artifacts' | 'grant'>;

/** Takes up what an earlier client contested. */
async function openDisputes(
  env: Env,
  { key, journal }: ConnectOptions,
  { parts, opened }: { readonly parts: DisputeParts; readonly opened: AsyncDisposableStack },
): Promise<Pick<Buyer, 'evidence' | 'contests'>> {
  const { chain } = parts;
  const evidence = opened.use(await openEvidence(env, { chain, buyer: key.address, journal }));
  const handIn = handingIn(env, { ...parts, evidence });
  const onClosed = (lease: Address): void => evidence.forget(lease);
  const contests = opened.use(await openContests(env, { chain, key, directory: journal, handIn, onClosed }));
  return { evidence, contests };
}

/** Brings a lease's documents to verifiers; module and inputs can be fetched from here meanwhile, where all of them are. */
function handingIn(env: Env, from: DisputeParts & { readonly evidence: KeptEvidence }): ContestsOptions['handIn'] {
  const { mesh, feed, artifacts, evidence, grant } = from;
  return async (lease, nodes, signal) => {
    const shown = await evidence.of(lease);
    const content = shown === undefined ? [] : contentToRepeat(decodeJobSpec(shown.spec));
    const here = await Promise.all(content.map((cid) => artifacts.has(cid)));
    const hasContent = content.length > 0 && here.every((isHere) => isHere);
    using granted = new DisposableStack();
    for (const node of hasContent ? nodes : []) granted.use(grant(node, content));
    const verifiers = nodes.map((node) => ({ node, addresses: feed.book.get(node)?.content.addresses ?? [] }));
    // Awaited here: what was granted ends with this function.
    return await handInToAll(env, { network: mesh, verifiers, evidence: { lease, ...shown, hasContent } }, signal);
  };
}

/** Who may fetch what from us: content of a job for the provider that runs it, as long as it does. */
function createGrants(): { allows: (peer: Address, cid: string) => boolean; grant: Buyer['grant'] } {
  const counts = new Map<string, number>();
  const change = (peer: Address, cids: readonly string[], by: 1 | -1): void => {
    for (const cid of cids) {
      const name = `${peer} ${cid}`;
      const count = (counts.get(name) ?? 0) + by;
      if (count > 0) counts.set(name, count);
      else counts.delete(name);
    }
  };
  return {
    allows: (peer, cid) => counts.has(`${peer} ${cid}`),
    grant: (peer, cids) => {
      change(peer, cids, 1);
      return { [Symbol.dispose]: () => change(peer, cids, -1) };
    },
  };
}

function cachedProviders(env: Env, chain: Chain): (address: Address) => Promise<ProviderAccount> {
  const cache = new Map<Address, { readonly atMs: number; readonly reading: Promise<ProviderAccount> }>();
  const read = async (address: Address): Promise<ProviderAccount> => {
    const account = await chain.provider(address);
    if (account !== undefined) return account;
    throw new MoltError('chain/account-missing', `the quote names a provider ${address} that is not on this chain`);
  };
  return (address) => {
    const known = cache.get(address);
    if (known !== undefined && env.clock.monotonic() - known.atMs < ACCOUNT_FRESH_MS) return known.reading;
    const reading = read(address);
    // A failed read is not kept; who awaits it hears of it.
    reading.catch(() => cache.delete(address));
    if (cache.size >= ACCOUNTS_MAX) cache.clear();
    cache.set(address, { atMs: env.clock.monotonic(), reading });
    return reading;
  };
}

async function readBudget(
  chain: Chain,
  address: Address,
  at: { delegate: Address; chainNowMs: number },
): Promise<BudgetAccount> {
  const budget = await chain.budget(address);
  if (budget === undefined) {
    throw new MoltError(
      'chain/account-missing',
      `there is no budget ${address} on this chain; create one with \`molt init --role buyer\``,
      { budget: address },
    );
  }
  if (!budget.delegates.includes(at.delegate)) {
    throw new MoltError(
      'chain/budget-limit',
      `the budget ${address} does not name this node key ${at.delegate} as a delegate; its owner can add it`,
    );
  }
  if (budget.expiresAtMs <= at.chainNowMs)
    throw new MoltError('chain/budget-limit', `the budget ${address} has expired; its owner can extend it`);
  if (budget.free === 0n) {
    throw new MoltError(
      'chain/budget-empty',
      `the budget ${address} has nothing free to lease with; deposit MOLT into it (molt budget deposit AMOUNT)`,
      { budget: address },
    );
  }
  return budget;
}

interface Market {
  readonly feed: OfferFeed;
  readonly mesh: Mesh;
  readonly network: Address;
}

/** Resolves with the first offer, or when time is up. Gossip and pulls usually bring one; else the DHT knows who sells. */
async function waitForOffers(env: Env, market: Market, timeoutMs: number, signal: AbortSignal): Promise<void> {
  const { feed } = market;
  if (feed.book.size > 0) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  using _listening = feed.onChange(resolve);
  using waiting = new Deadline(env.clock, timeoutMs, signal);
  const timeUp = Promise.withResolvers<void>();
  waiting.signal.addEventListener('abort', () => timeUp.resolve(), { once: true });
  void searchMarket(env, market, waiting.signal).catch(() => undefined);
  await Promise.race([promise, timeUp.promise]);
  signal.throwIfAborted();
}

/** Asks the DHT for sellers, and each seller for its book, until the signal aborts or an offer is there. */
async function searchMarket(env: Env, { feed, mesh, network }: Market, signal: AbortSignal): Promise<void> {
  await env.clock.sleep(SEARCH_AFTER_MS, signal);
  while (feed.book.size === 0) {
    for (const resourceClass of RESOURCE_CLASSES) {
      for await (const seller of mesh.findProviders(marketCid(network, resourceClass), signal)) {
        await feed.pull(seller, signal).catch(() => undefined);
      }
    }
    await env.clock.sleep(SEARCH_EVERY_MS, signal);
  }
}
