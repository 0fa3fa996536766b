/**
 * One run: a market drawn from a seed, its faults, and what came of it.
 *
 * First everything happens at once: jobs, lost and doubled gossip, cuts, crashes, liars, clocks that are off. Then the
 * faults stop and who crashed comes back, but for a few. When every job has ended and every lease is closed, offers are
 * no longer repeated, and the world comes to rest: nothing may be left in the queue.
 */
import { ADMISSION_LIMITS, OFFER_REPEAT_MS } from '../../market/index.ts';
import { isLeaseEnd } from '../../protocol/lease.ts';
import { Buyer, type Purchase } from './buyer.ts';
import { Chain } from './chain.ts';
import type { Chance } from './chance.ts';
import { GangPurchase } from './gang.ts';
import { Invariants } from './invariants.ts';
import { Dawdler, Forger, LIARS, Phantom, Silent, Squatter, Unfit } from './liars.ts';
import { Network } from './network.ts';
import { type Peer, type Surroundings, createMemo, shardsIn } from './peer.ts';
import {
  type Job,
  drawAutonomy,
  drawGang,
  drawJob,
  drawProvider,
  drawRegion,
  drawSkew,
  replicaOf,
} from './population.ts';
import { Provider } from './provider.ts';
import { Violation, World } from './world.ts';

export interface Scenario {
  readonly providers: number;
  readonly liars: number;
  /** Whether each lies in a way of its own, all of them in one, most of them about results, or all do no work. */
  readonly lies: 'all' | 'one' | 'results' | 'work';
  readonly buyers: number;
  readonly squatters: number;
  readonly jobs: number;
  /** How long jobs come and faults happen. */
  readonly activeMs: number;
  readonly lossShare: number;
  readonly duplicateShare: number;
  readonly slowShare: number;
  readonly transactionLossShare: number;
  readonly crashes: number;
  readonly cuts: number;
  /** Share of nodes whose clock is off by more than peers tolerate. */
  readonly wrongClockShare: number;
  /** Share of nodes that are far from all others. */
  readonly farShare: number;
  /** How many a publisher of gossip reaches itself. */
  readonly reach: number;
  /** Honest providers beside the buyers that keep a book, and liars that do. */
  readonly books: number;
  readonly liarBooks: number;
  /** Regions that providers are in and jobs may insist on; 0 for a market without. */
  readonly regions: number;
  /** True: providers have price curves, floors, ceilings, closed hours, and buyers that they do not serve. */
  readonly hasPolicies: boolean;
  /** Share of buyers that trade on their own, within limits. */
  readonly autonomyShare: number;
  /** Share of jobs that are gangs, and of gangs, where the job repeats, that are replicas of it. */
  readonly gangShare: number;
  readonly replicaShare: number;
  /** Jobs want so many quotes to five: of few, not everybody is asked in a small market either. */
  readonly quotesMin: number;
  /** True: jobs insist on starts, ends, stake, tiers, and tell of data that is near. */
  readonly hasWishes: boolean;
}

export interface Report {
  readonly seed: string;
  readonly digest: string;
  readonly steps: number;
  readonly virtualMs: number;
  readonly jobs: number;
  readonly delivered: number;
  /** Jobs that ended otherwise, by code. */
  readonly reasons: Readonly<Record<string, number>>;
  readonly vanished: number;
  /** Jobs of several slots, beside the others. */
  readonly gangs: number;
  readonly gangsDelivered: number;
  readonly bids: number;
  /** Buyers that spent more in all than they allow themselves in one hour. */
  readonly buyersOverAnHour: number;
  /** Quotes and refusals per bid. */
  readonly answersPerBid: number;
  readonly matchMs: { readonly p50: number; readonly p95: number };
  readonly counts: Readonly<Record<string, number>>;
}

/** What a run that broke an invariant throws: `message` says what, `lines` what happened last. */
export class FailedRun extends Error {
  override readonly name = 'FailedRun';
  readonly lines: readonly string[];

  constructor(seed: string, lines: readonly string[], cause: Error) {
    super(`seed ${seed}: ${cause.message}; replay it with: node scripts/simulate.ts --seed ${seed}`, { cause });
    this.lines = lines;
  }
}

/** More providers than this repeat more offers a second than one neighbour may forward of strangers. */
const LAGGING_FROM = (ADMISSION_LIMITS.offersPerForwarder.perSecond * OFFER_REPEAT_MS) / 1_000;
/** Nothing that was begun may take longer than this after the faults have stopped. */
const QUIET_MAX_MS = 3_600_000;
const LOOK_EVERY_MS = 5_000;
/** Long enough for every dead offer to run out and every live one to be heard. */
const SETTLE_MS = 90_000;
/** Longer than any message takes without faults. */
const DELIVERY_MS = 5_000;
/** A machine that comes back may have its clock set back by up to so much. */
const CLOCK_SET_SHARE = 0.3;
const CLOCK_SET_BACK_MS = 40_000;
const REST_MAX_MS = 600_000;

/** In a large market. What it costs to play grows with the nodes times the books that follow them all. */
const BOOKS_MAX = 10;

/** A small, nasty market. */
export function drawScenario(seed: string): Scenario {
  const chance = new World(`scenario ${seed}`).chance;
  const share = (most: number): number => (chance.happens(0.4) ? 0 : chance.next() * most);
  return {
    providers: chance.between(2, 9),
    liars: chance.between(0, 4),
    lies: chance.happens(0.3) ? 'one' : 'all',
    buyers: chance.between(1, 4),
    squatters: chance.happens(0.3) ? 1 : 0,
    jobs: chance.between(4, 16),
    activeMs: chance.between(40_000, 120_000),
    lossShare: share(0.3),
    duplicateShare: share(0.3),
    slowShare: share(0.3),
    transactionLossShare: share(0.3),
    crashes: chance.happens(0.3) ? 0 : chance.between(1, 8),
    cuts: chance.happens(0.5) ? 0 : chance.between(1, 2),
    wrongClockShare: share(0.2),
    farShare: share(0.3),
    reach: chance.between(1, 12),
    books: 2,
    liarBooks: Infinity,
    regions: chance.happens(0.5) ? 0 : chance.between(1, 2),
    hasPolicies: chance.happens(0.5),
    autonomyShare: share(1),
    gangShare: share(0.5),
    replicaShare: share(1),
    quotesMin: 1,
    hasWishes: true,
  };
}

/** A large market without faults, for figures. */
export function largeScenario(nodes: number, bids: number): Scenario {
  const buyers = Math.max(1, Math.min(20, Math.floor(nodes / 5)));
  return {
    providers: nodes - buyers,
    liars: 0,
    lies: 'all',
    buyers,
    squatters: 0,
    jobs: bids,
    activeMs: 60_000,
    lossShare: 0.01,
    duplicateShare: 0.01,
    slowShare: 0.05,
    transactionLossShare: 0,
    crashes: 0,
    cuts: 0,
    wrongClockShare: 0,
    farShare: 0.1,
    reach: 12,
    books: 0,
    liarBooks: 0,
    regions: 0,
    hasPolicies: false,
    autonomyShare: 0,
    gangShare: 0,
    replicaShare: 0,
    quotesMin: 5,
    hasWishes: false,
  };
}

/** A large market with everything that goes wrong in a small one, and books beside those of the buyers. */
export function largeScenarioWithFaults(nodes: number, bids: number): Scenario {
  const clean = largeScenario(nodes, bids);
  const liars = Math.ceil(nodes / 20);
  return {
    ...clean,
    providers: clean.providers - liars,
    liars,
    squatters: 1,
    activeMs: 90_000,
    lossShare: 0.1,
    duplicateShare: 0.05,
    transactionLossShare: 0.05,
    crashes: Math.ceil(nodes / 10),
    cuts: 2,
    wrongClockShare: 0.05,
    reach: 6,
    books: Math.min(Math.ceil(nodes / 20), BOOKS_MAX),
    liarBooks: BOOKS_MAX,
    regions: 2,
    hasPolicies: true,
    autonomyShare: 0.3,
    gangShare: 0.2,
    replicaShare: 0.5,
    quotesMin: 1,
    hasWishes: true,
  };
}

/** Some hours of a small market, whose buyers all trade on their own. */
export function longScenario(): Scenario {
  return {
    ...largeScenario(7, 240),
    buyers: 3,
    providers: 4,
    activeMs: 9_000_000,
    lossShare: 0.05,
    crashes: 12,
    books: 1,
    autonomyShare: 1,
    quotesMin: 1,
  };
}

/** Replicas alone, in a market half of whose providers lie about results, in league. */
export function replicasScenario(): Scenario {
  return {
    ...largeScenario(24, 60),
    providers: 12,
    liars: 9,
    lies: 'results',
    buyers: 3,
    lossShare: 0.1,
    transactionLossShare: 0.1,
    crashes: 6,
    gangShare: 1,
    replicaShare: 1,
  };
}

/** A market in which hardly anybody does the work that he takes on. */
export function idlersScenario(): Scenario {
  return { ...largeScenario(20, 40), providers: 3, liars: 20, lies: 'work', buyers: 3, books: 1, quotesMin: 1 };
}

/** Plays it to its end. Throws `FailedRun` for a broken invariant. */
export function simulate(seed: string, scenario: Scenario = drawScenario(seed)): Report {
  const run = new Run(seed, scenario);
  try {
    return run.play();
  } catch (error) {
    if (error instanceof Violation || error instanceof Error) throw new FailedRun(seed, run.world.lines, error);
    throw error;
  }
}

class Run {
  readonly world: World;
  readonly #seed: string;
  readonly #scenario: Scenario;
  readonly #at: Surroundings;
  readonly #chance: Chance;
  readonly #providers: Provider[] = [];
  readonly #buyers: Buyer[] = [];
  readonly #squatters: Buyer[] = [];
  readonly #invariants: Invariants;

  constructor(seed: string, scenario: Scenario) {
    this.#seed = seed;
    this.#scenario = scenario;
    this.world = new World(seed);
    this.#chance = this.world.chance.split('run');
    const { lossShare, duplicateShare, slowShare, farShare, reach, transactionLossShare } = scenario;
    const faults = { lossShare, duplicateShare, slowShare, farShare, reach, delayMs: { from: 2, to: 60 } };
    this.#at = {
      world: this.world,
      network: new Network(this.world, faults),
      chain: new Chain(this.world, { lossShare: transactionLossShare, delayMs: { from: 300, to: 1_500 } }),
      memo: createMemo(),
      peers: [],
      forged: new WeakSet(),
      isCalm: false,
      isFrozen: false,
    };
    this.#populate();
    this.#invariants = new Invariants(this.world, this.#at.chain, this.#peers);
  }

  get #mayLag(): boolean {
    return this.#providers.length > LAGGING_FROM;
  }

  get #peers(): readonly Peer[] {
    return this.#at.peers;
  }

  play(): Report {
    const { activeMs } = this.#scenario;
    for (const peer of this.#peers) this.#startSoon(peer);
    this.#planJobs();
    this.#planCrashes();
    this.#planCuts();
    this.#until(activeMs);
    this.#stopFaults();
    this.#untilDone();
    this.#until(this.world.nowMs + SETTLE_MS);
    this.#at.isFrozen = true;
    // What was under way has arrived by then, and no offer has run out yet.
    this.#until(this.world.nowMs + DELIVERY_MS);
    this.#invariants.checkBooks(this.#peers, this.#mayLag);
    this.#until(this.world.nowMs + REST_MAX_MS);
    this.#invariants.checkAtRest(this.#peers);
    return this.#report();
  }

  #until(atMs: number): void {
    for (;;) {
      const step = this.world.step(atMs);
      if (step === undefined) return;
      this.#invariants.check(step.actor);
    }
  }

  #untilDone(): void {
    const { nowMs } = this.world;
    const isDone = (): boolean =>
      [...this.#jobs(), ...this.#gangs()].every(({ state, isVanished }) => isVanished || state.phase === 'over') &&
      [...this.#at.chain.leases.values()].every(({ state }) => isLeaseEnd(state));
    while (!isDone() && this.world.nowMs < nowMs + QUIET_MAX_MS) {
      this.#until(this.world.nowMs + LOOK_EVERY_MS);
      this.#invariants.checkAll();
    }
  }

  #jobs(): readonly Purchase[] {
    return [...this.#buyers, ...this.#squatters].flatMap(({ jobs }) => jobs);
  }

  #gangs(): readonly GangPurchase[] {
    return this.#buyers.flatMap(({ gangs }) => gangs);
  }

  #populate(): void {
    const { providers, liars, lies, buyers, squatters, books, liarBooks } = this.#scenario;
    const kinds = {
      all: LIARS,
      one: [this.#chance.pick(LIARS)],
      results: [Forger, Forger, Forger, Unfit, Dawdler],
      work: [Phantom, Silent],
    }[lies];
    for (let index = 0; index < providers + liars; index++) {
      const Kind = index < providers ? Provider : this.#chance.pick(kinds);
      const region = drawRegion(this.#chance, this.#scenario.regions);
      const keepsBook = index < providers ? index < books : index < providers + liarBooks;
      const shards = keepsBook ? shardsIn(this.#chance.happens(0.5) ? '' : region) : [];
      const options = { ...drawProvider(this.#chance, this.#scenario), region, shards, skewMs: this.#drawSkew() };
      this.#providers.push(new Kind(`provider ${index}`, this.#at, options));
    }
    for (let index = 0; index < buyers + squatters; index++) {
      const Kind = index < buyers ? Buyer : Squatter;
      const balance = BigInt(this.#chance.between(1, 30)) * 100_000_000n;
      const caps = { capPerLease: balance / BigInt(this.#chance.between(1, 4)), capInAll: this.#drawCap(balance) };
      const region = drawRegion(this.#chance, this.#scenario.regions);
      const own = this.#chance.happens(this.#scenario.autonomyShare) ? { autonomy: drawAutonomy(this.#chance) } : {};
      const options = { skewMs: this.#drawSkew(), region, shards: shardsIn(region), balance, ...caps, ...own };
      const buyer = new Kind(`buyer ${index}`, this.#at, options);
      (index < buyers ? this.#buyers : this.#squatters).push(buyer);
    }
    this.#at.peers.push(...this.#providers, ...this.#buyers, ...this.#squatters);
    for (const peer of this.#peers) this.#at.network.join(peer, peer.topics());
  }

  /** The chain's own bound of what a buyer spends: in some markets it is less than there is. */
  #drawCap(balance: bigint): bigint {
    return this.#chance.happens(0.5) ? balance : balance / BigInt(this.#chance.between(2, 6));
  }

  #drawSkew(): number {
    return drawSkew(this.#chance, this.#scenario.wrongClockShare);
  }

  #startSoon(peer: Peer): void {
    const spreadMs = Math.min(20_000, this.#peers.length * 200);
    this.world.after(this.#chance.between(0, spreadMs), `${peer.name} starts`, undefined, () => this.#start(peer));
  }

  /** A newcomer pulls the book from two who are there. */
  #start(peer: Peer): void {
    if (peer.isUp) return;
    peer.start();
    const others = this.#peers.filter((other) => other !== peer && other.isUp && other.book !== undefined);
    for (let time = 0; time < 2 && others.length > 0; time++) peer.pull(this.#chance.pick(others).address);
  }

  #planJobs(): void {
    const { jobs, activeMs, gangShare } = this.#scenario;
    const buyers = [...this.#buyers, ...this.#squatters];
    for (let index = 0; index < jobs; index++) {
      const buyer = this.#chance.pick(buyers);
      const atMs = this.#chance.between(3_000, activeMs);
      const job = drawJob(this.#chance, buyer, { ...this.#scenario, atMs });
      const { order, task } = job;
      if (!(buyer instanceof Squatter) && this.#chance.happens(gangShare)) this.#planGang(atMs, buyer, job);
      else this.world.after(atMs, `${buyer.name} wants a job`, undefined, () => buyer.isUp && buyer.buy(order, task));
    }
  }

  #planGang(atMs: number, buyer: Buyer, { order, task, isRepeatable }: Job): void {
    const gang = drawGang(this.#chance, isRepeatable ? this.#scenario.replicaShare : 0);
    const wanted = gang.isCompared === true ? replicaOf(order) : order;
    const cancelMs = this.#chance.happens(0.1) ? this.#chance.between(0, 10_000) : undefined;
    this.world.after(atMs, `${buyer.name} wants a gang`, undefined, () => {
      if (!buyer.isUp) return;
      buyer.gang((limited) => new GangPurchase(buyer, limited, task, gang), wanted);
      const begun = buyer.gangs.at(-1);
      if (cancelMs !== undefined && begun !== undefined)
        buyer.after(cancelMs, 'cancels its gang', () => begun.cancel());
    });
  }

  #planCrashes(): void {
    const { crashes, activeMs } = this.#scenario;
    for (let index = 0; index < crashes; index++) {
      const peer = this.#chance.pick(this.#peers);
      const downMs = this.#chance.between(500, 60_000);
      this.world.after(this.#chance.between(5_000, activeMs), 'a crash', undefined, () => {
        if (!peer.isUp) return;
        peer.crash();
        this.world.after(downMs, 'a restart', undefined, () => {
          if (this.#chance.happens(CLOCK_SET_SHARE)) peer.skewMs -= this.#chance.between(0, CLOCK_SET_BACK_MS);
          this.#start(peer);
        });
      });
    }
  }

  #planCuts(): void {
    const { cuts, activeMs } = this.#scenario;
    const { network } = this.#at;
    for (let index = 0; index < cuts; index++) {
      const sides = new Map(this.#peers.map((peer) => [peer.name, this.#chance.between(0, 1)]));
      const fromMs = this.#chance.between(5_000, activeMs);
      this.world.after(fromMs, 'a cut', undefined, () => network.cut(({ name }) => sides.get(name) ?? 0));
      this.world.after(fromMs + this.#chance.between(1_000, 35_000), 'a cut heals', undefined, () => this.#heal());
    }
  }

  /** As nodes do that connect again: they pull from each other. */
  #heal(): void {
    this.#at.network.heal();
    const keepers = this.#peers.filter((peer) => peer.isUp && peer.book !== undefined);
    for (const peer of keepers) peer.pull(this.#chance.pick(keepers).address);
  }

  /** Everybody comes back but for a few providers, and one goes as it should. */
  #stopFaults(): void {
    const { network, chain } = this.#at;
    this.world.trace('faults stop');
    this.#at.isCalm = true;
    Object.assign(network.faults, { lossShare: 0, duplicateShare: 0, slowShare: 0 });
    chain.faults.lossShare = 0;
    this.#heal();
    const isFaulty = this.#scenario.crashes > 0;
    for (const provider of this.#providers) {
      if (isFaulty && this.#chance.happens(0.1)) {
        if (provider.isUp) provider.crash();
        this.world.after(QUIET_MAX_MS, 'nobody', provider, () => undefined);
      } else this.#start(provider);
    }
    for (const buyer of [...this.#buyers, ...this.#squatters]) this.#start(buyer);
    const honest = this.#providers.filter(
      ({ isUp, isHonest, skewMs }) => isUp && isHonest && Math.abs(skewMs) <= 5_000,
    );
    if (!isFaulty || honest.length === 0) return;
    const leaving = this.#chance.pick(honest);
    // What it says right after its start may be lost on those who start as well.
    this.world.after(DELIVERY_MS, 'one leaves as it should', undefined, () => {
      leaving.drain();
      const hearers = this.#peers.filter(({ isUp }) => isUp);
      this.world.after(DELIVERY_MS, 'all have heard it', undefined, () =>
        this.#invariants.checkWithdrawn(leaving, hearers, this.#mayLag),
      );
    });
  }

  #report(): Report {
    const { world } = this;
    const jobs = this.#jobs();
    const ended = jobs.filter(({ isVanished }) => !isVanished);
    const reasons: Record<string, number> = {};
    for (const { outcome } of ended) {
      if (outcome === undefined || outcome === 'delivered') continue;
      reasons[outcome.code] = (reasons[outcome.code] ?? 0) + 1;
    }
    const overHour = this.#buyers.filter(({ options, budget }) => {
      const spent = this.#at.chain.budgets.get(budget)?.spent ?? 0n;
      return options.autonomy !== undefined && spent > options.autonomy.hourMax;
    });
    const times = ended.flatMap(({ matchedMs, startedMs }) => (matchedMs === undefined ? [] : [matchedMs - startedMs]));
    times.sort((a, b) => a - b);
    const bids = world.counts.get('bids') ?? 0;
    return {
      seed: this.#seed,
      digest: world.digest(),
      steps: world.steps,
      virtualMs: world.nowMs,
      jobs: jobs.length,
      delivered: ended.filter(({ outcome }) => outcome === 'delivered').length,
      reasons,
      vanished: jobs.length - ended.length,
      gangs: this.#gangs().length,
      gangsDelivered: this.#gangs().filter(({ outcome }) => outcome === 'delivered').length,
      bids,
      buyersOverAnHour: overHour.length,
      answersPerBid: bids === 0 ? 0 : (world.counts.get('answers') ?? 0) / bids,
      matchMs: { p50: quantile(times, 0.5), p95: quantile(times, 0.95) },
      counts: Object.fromEntries(world.counts),
    };
  }
}

function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}
