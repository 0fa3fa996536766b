/** A provider without chain and runtimes, and a bidder without chain: the real mesh and market, for tests of the mesh. */
import { join } from 'node:path';

import { openJournal } from '../../../node/journal.ts';
import { type Mesh, type MeshLimits, openMesh } from '../../../node/mesh/index.ts';
import type { Tell } from '../../../node/events.ts';
import type { BudgetAccount } from '../../../chain/index.ts';
import { Buyers } from '../../../node/provider/buyers.ts';
import { Trade } from '../../../node/provider/trade.ts';
import {
  NEIGHBOURS_HEALTHY,
  type OfferFeed,
  createAdmission,
  followMarket,
  KeptNeighbours,
  makeBid,
  openOfferFeed,
} from '../../../market/index.ts';
import type { Address } from '../../../protocol/address.ts';
import { type KeyPair, keyPairFromSeed } from '../../../protocol/ed25519.ts';
import { systemEnv, systemRandom } from '../../../protocol/env.ts';
import { decodeEnvelope, sealEnvelope, verifyEnvelope } from '../../../protocol/envelope.ts';
import { type JobSpec, parseJobSpec } from '../../../protocol/job-spec.ts';
import { type Message, type Offer, decodeQuote, encodeBid } from '../../../protocol/messages.ts';
import { LetGo } from '../../../protocol/molt.js';
import { baseUnits } from '../../../protocol/units.ts';
import { STREAMS, bidsTopic, decodeBidAnswer, meshName } from '../../../protocol/wire.ts';
import { address } from '../../market/fixtures.ts';

export const env = systemEnv();

export interface Place {
  readonly network: Address;
  readonly bootstrap?: readonly string[];
  readonly listen?: readonly string[];
  readonly limits?: Partial<MeshLimits>;
  /** Node keys that a chain would know as operators; absent: everybody. */
  readonly operators?: readonly Address[];
}

export interface TestSeller extends AsyncDisposable {
  readonly mesh: Mesh;
  readonly feed: OfferFeed;
}

/** Sells 64 processors at a fixed price; `directory` holds its journal. */
export async function openSeller(
  on: Place & { readonly key: KeyPair; readonly directory: string; readonly tell?: Tell },
): Promise<TestSeller> {
  const { network, key, directory } = on;
  await using opened = new AsyncDisposableStack();
  const mesh = opened.use(await open(on, key, 'node'));
  const journal = opened.use(await openJournal(join(directory, 'journal')));
  const admission = createAdmission({ network });
  const vouch = async (offers: readonly Message<Offer>[]) => {
    const signers = offers.map(({ signer }) => signer);
    return { genuine: new Set(signers.filter((signer) => on.operators?.includes(signer) ?? true)) };
  };
  const feedOptions = { pubsub: mesh, network: mesh, networkId: network, admission, vouch };
  const feed = opened.use(await openOfferFeed(env, feedOptions));
  opened.use(followMarket(env, { feed, neighbours: mesh }));
  opened.use(new KeptNeighbours(env, { feed, neighbours: mesh, vouch, wanted: NEIGHBOURS_HEALTHY }));
  const provider = address(`provider of ${key.address}`);
  const stake = baseUnits(10n ** 15n);
  const trade = opened.use(
    new Trade(env, {
      key,
      networkId: network,
      pubsub: mesh,
      network: mesh,
      admission,
      journal,
      buyers: await Buyers.open(env, {
        budget: (named) => Promise.resolve(budgetOf(named)),
        chainNowMs: () => env.clock.now(),
        journal,
        rangeOf: (peer) => mesh.rangeOf(peer),
      }),
      total: { cpuMillis: 64_000, memoryBytes: 2 ** 38, diskBytes: 2 ** 40 },
      gpus: [],
      policy: { prices: PRICES, durationSecondsMax: 3_600, blockedBuyers: [] },
      region: '',
      runtimes: () => ['wasm'],
      features: [],
      speed: () => ({ score: 100, measuredMs: env.clock.now() }),
      warm: () => [],
      near: async () => [],
      facts: () => ({
        address: provider,
        stake,
        freeStake: stake,
        reserveBps: 1_000,
        maxLeaseMs: 10 ** 9,
        minGraceMs: 60_000,
        minWindowMs: 60_000,
      }),
      chainNowMs: () => env.clock.now(),
      onOffer: (bytes) => feed.add(bytes),
      draining: false,
      needsApproval: false,
      approve: () => Promise.resolve(undefined),
      tell: on.tell ?? (() => undefined),
    }),
  );
  await trade.open();
  const resources = opened.move();
  return { mesh, feed, [Symbol.asyncDispose]: () => resources.disposeAsync() };
}

/** There is no chain here: every node key has a budget of its own name, and may use no other. */
function budgetOf(delegate: Address): BudgetAccount {
  const [none, much] = [baseUnits(0n), baseUnits(10n ** 15n)];
  const account = { address: delegate, owner: delegate, vault: delegate, delegates: [delegate], id: 0n, openLeases: 0 };
  const limits = { capPerLease: much, capPerDay: much, expiresAtMs: Number.MAX_SAFE_INTEGER };
  return { ...account, ...limits, locked: none, free: much, spentOnDay: none, dayStartMs: 0 };
}

const PRICES = { base: baseUnits(1_000n), perCpu: baseUnits(0n), perGib: baseUnits(0n), perGpu: baseUnits(0n) };

const SPEC: JobSpec = parseJobSpec({
  runtime: 'wasm',
  image: 'bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy',
  command: ['x'],
  maxDurationSeconds: 60,
});

export interface TestBidder extends AsyncDisposable {
  readonly mesh: Mesh;
  readonly feed: OfferFeed;
  /** Shouts one bid that asks everybody; resolves to who quoted within `ms`, or as soon as `enough` have. */
  bid(ms: number, enough: number): Promise<{ readonly quotedBy: readonly Address[]; readonly tookMs: number }>;
}

export async function openBidder(on: Place): Promise<TestBidder> {
  const { network } = on;
  const key = keyPairFromSeed(systemRandom.bytes(32));
  await using opened = new AsyncDisposableStack();
  const mesh = opened.use(await open(on, key, 'light'));
  const admission = createAdmission({ network });
  const feed = opened.use(await openOfferFeed(env, { pubsub: mesh, network: mesh, networkId: network, admission }));
  opened.use(followMarket(env, { feed, neighbours: mesh }));
  const routes = new Map<string, (from: Address) => void>();
  opened.use(
    await mesh.handle(STREAMS.quote.protocol, STREAMS.quote, async (channel) => {
      for await (const frame of channel) {
        const { bid, quote } = decodeBidAnswer(frame);
        if (quote !== undefined) {
          const envelope = decodeEnvelope('quote', quote, { network, nowMs: env.clock.now() });
          routes.get(Buffer.from(bid).toString('hex'))?.(verifyEnvelope(decodeQuote(envelope)).signer);
          await channel.send(LetGo.encode({ bid }));
        }
      }
    }),
  );
  const resources = opened.move();
  let sequence = 0;
  return {
    mesh,
    feed,
    bid: async (ms, enough) => {
      const nowMs = env.clock.now();
      sequence = Math.max(sequence + 1, nowMs);
      const content = makeBid({
        spec: SPEC,
        pricePerSecondMax: baseUnits(10n ** 6n),
        budget: key.address,
        bookSize: 0,
        quotesWanted: 20,
        addresses: mesh.addresses,
      });
      const header = { network, sequence, issuedMs: nowMs, expiresMs: nowMs + 30_000 };
      const { id, bytes } = sealEnvelope(key, 'bid', header, encodeBid(content));
      const quotedBy: Address[] = [];
      const { promise, resolve } = Promise.withResolvers<void>();
      routes.set(id, (from) => {
        quotedBy.push(from);
        if (quotedBy.length >= enough) resolve();
      });
      const startedMs = performance.now();
      await mesh.publish(bidsTopic(network, 'cpu'), bytes);
      await Promise.race([promise, new Promise((done) => setTimeout(done, ms))]);
      routes.delete(id);
      return { quotedBy, tookMs: performance.now() - startedMs };
    },
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

function open(on: Place, key: KeyPair, role: 'node' | 'light'): Promise<Mesh> {
  return openMesh(env, {
    key,
    listen: on.listen ?? ['/ip4/127.0.0.1/tcp/0'],
    bootstrap: on.bootstrap ?? [],
    mdns: false,
    role,
    network: meshName(on.network),
    ...(on.limits === undefined ? {} : { limits: on.limits }),
  });
}
