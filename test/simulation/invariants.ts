/** What must be true after every step, and what must be true when everything has come to rest. */
import type { Book, Reservation } from '../../market/index.ts';
import type { Address } from '../../protocol/address.ts';
import { isErrorCode } from '../../protocol/errors.ts';
import { isLeaseEnd } from '../../protocol/lease.ts';
import type { Resources } from '../../protocol/messages.ts';
import { Buyer } from './buyer.ts';
import type { Chain, LeaseAccount } from './chain.ts';
import type { Peer } from './peer.ts';
import { Provider } from './provider.ts';
import { type Actor, Violation, type World } from './world.ts';

/** Clocks further off than this hear nobody in time and are heard by nobody: they are left out where all must agree. */
const SANE_SKEW_MS = 5_000;
/** A node that is up for so long has seen to everything that it was left with. */
const THERE_MS = 60_000;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const ASKED_BEFORE_MS = 60_000;
/** Who contests a lease for so long has disputed its claim, however many transactions are lost. */
const CONTEST_MS = 25_000;
/**
 * Of the live offers, in a book of a market so large that its offers exceed what one neighbour may forward: 5,000 providers
 * in one shard repeat 250 offers a second, five times as many, and a book lacked 2 % of them.
 */
const MISSING_MAX_SHARE = 0.04;
/** Of the books in such a market, those that do not hear one message. */
const DEAF_MAX_SHARE = 0.1;

export class Invariants {
  readonly #world: World;
  readonly #chain: Chain;
  readonly #providers: ReadonlyMap<string, Provider>;
  readonly #buyers: readonly Buyer[];
  /** Leases that are open on chain, by operator. */
  readonly #open = new Map<string, Set<LeaseAccount>>();
  /** Every lease that was ever opened, by budget. */
  readonly #leases = new Map<string, Set<LeaseAccount>>();
  /** Whose leases have changed since the last look. */
  readonly #changed = new Set<string>();

  constructor(world: World, chain: Chain, peers: readonly Peer[]) {
    this.#world = world;
    this.#chain = chain;
    const providers = peers.filter((peer) => peer instanceof Provider);
    this.#providers = new Map(providers.map((provider) => [provider.address, provider]));
    this.#buyers = peers.filter((peer) => peer instanceof Buyer);
    chain.watch((lease) => this.#noteLease(lease));
  }

  /** After one step. Only what the step can have changed is looked at. */
  check(actor: Actor | undefined): void {
    for (const operator of this.#changed) this.#checkProvider(this.#providers.get(operator));
    this.#changed.clear();
    if (actor instanceof Provider) this.#checkProvider(actor);
  }

  /** Everything that `check` looks at bit by bit, as a whole. */
  checkAll(): void {
    this.#chain.assertConserved();
    for (const provider of this.#providers.values()) this.#checkProvider(provider);
  }

  checkAtRest(peers: readonly Peer[]): void {
    this.checkAll();
    for (const buyer of this.#buyers) this.#checkBuyer(buyer);
    for (const { address, state } of this.#chain.leases.values()) {
      if (!isLeaseEnd(state)) throw new Violation(`lease ${address} is ${state} at the end`);
    }
    for (const provider of this.#providers.values()) this.#checkReleased(provider);
    for (const { name, links } of peers) {
      if (links.size > 0) throw new Violation(`${name} has ${links.size} streams open at the end`);
    }
    const waiting = this.#world.waiting();
    if (waiting.length > 0) throw new Violation(`${waiting.length} timers are left, first "${waiting[0]}"`);
  }

  #noteLease(lease: LeaseAccount): void {
    this.#changed.add(lease.terms.operator);
    this.#checkBudget(lease);
    const { operator, delegate, amount, pricePerSecond, quote } = lease.terms;
    const open = this.#open.get(operator) ?? new Set();
    this.#open.set(operator, open);
    if (isLeaseEnd(lease.state)) open.delete(lease);
    if (lease.last === 'expire') this.#checkExpired(lease);
    if (isLeaseEnd(lease.state)) this.#checkPaid(lease);
    if (lease.state !== 'running') return;
    open.add(lease);
    for (const signer of [operator, delegate]) {
      if (!this.#chain.hasSignedOpening(signer, lease))
        throw new Violation(`lease ${lease.address} was opened, ${signer} never signed it`);
    }
    this.#checkPromises(lease);
    const buyer = this.#buyers.find(({ address }) => address === delegate);
    if (buyer !== undefined) this.#checkAutonomy(buyer, lease);
    const job = [...(buyer?.jobs ?? []), ...(buyer?.asks ?? [])].find(({ state }) =>
      state.ranked.some((ranked) => ranked.quote.id === quote),
    );
    if (job === undefined) return;
    const { maxPrice, spec } = job.order;
    if (amount > maxPrice || pricePerSecond * BigInt(spec.maxDurationSeconds) > maxPrice)
      throw new Violation(`lease ${lease.address} locks ${amount}, the job may cost ${maxPrice}`);
  }

  /** Of each budget: what its leases lock or have cost, counted here and not by the chain. */
  #checkBudget(lease: LeaseAccount): void {
    const { address, terms } = lease;
    const leases = this.#leases.get(terms.budget) ?? new Set();
    this.#leases.set(terms.budget, leases.add(lease));
    const spent = spentOn([...leases]);
    const budget = this.#chain.budgets.get(terms.budget);
    if (budget === undefined || spent > budget.capInAll)
      throw new Violation(`budget ${terms.budget} has spent ${spent}, its cap is ${budget?.capInAll}`);
    if (terms.amount > budget.capPerLease) throw new Violation(`lease ${address} is over the cap of its budget`);
  }

  /** What a buyer set itself, whatever crashed meanwhile. */
  #checkAutonomy({ options, name, budget }: Buyer, { terms }: LeaseAccount): void {
    const { autonomy } = options;
    if (autonomy === undefined) return;
    if (terms.amount > autonomy.jobMax) throw new Violation(`${name} leases for ${terms.amount}, over its own limit`);
    for (const [spanMs, most] of [
      [HOUR_MS, autonomy.hourMax],
      [DAY_MS, autonomy.dayMax],
    ] as const) {
      // A lease counts from when it was asked for, which is a little before it opened.
      const sinceMs = this.#chain.nowMs() - spanMs + ASKED_BEFORE_MS;
      const spent = spentOn([...(this.#leases.get(budget) ?? [])].filter(({ openedMs }) => openedMs > sinceMs));
      if (spent > most)
        throw new Violation(`${name} spent ${spent} in ${spanMs / HOUR_MS} h, its own limit is ${most}`);
    }
  }

  /** An honest provider that is there proves what it ran, or gives the money back, before its lease runs out. */
  #checkExpired({ address, terms }: LeaseAccount): void {
    const provider = this.#providers.get(terms.operator);
    if (provider?.isHonest !== true || !provider.isUp) return;
    if (this.#world.nowMs - provider.upSinceMs < THERE_MS) return;
    const phase = provider.journal.jobs.get(address)?.phase;
    throw new Violation(`${provider.name} let lease ${address} run out, its job is ${phase}`);
  }

  /** No replica is paid by its window while its buyer, which is there, still waits to compare it. */
  #checkCompared(lease: Address, last: string, delegate: Address): void {
    const sinceMs = this.#chain.waiting.get(lease);
    const buyer = this.#buyers.find(({ address }) => address === delegate);
    if (last === 'settleLapsed' && sinceMs !== undefined && buyer?.isUp === true && buyer.upSinceMs <= sinceMs)
      throw new Violation(`${buyer.name} lets a replica be paid before it is compared`);
  }

  /** Whoever broke his word is not paid: no honest provider takes it, and no buyer that is there lets it lapse or signs. */
  #checkPaid({ address, terms, last, paid }: LeaseAccount): void {
    if (this.#chain.late.has(address)) this.#world.count(`late starts that ended by ${last}`);
    if (this.#chain.outvoted.has(address)) this.#world.count(`outvoted replicas that ended by ${last}`);
    this.#checkCompared(address, last, terms.delegate);
    if (paid === 0n || last === 'cancelByDelegate' || last === 'resolveForProvider') return;
    const { late, outvoted } = this.#chain;
    const provider = this.#providers.get(terms.operator);
    if (late.has(address) && provider?.isHonest === true)
      throw new Violation(`${provider.name} is paid for a job that began later than it promised`);
    const buyer = this.#buyers.find((one) => one.address === terms.delegate);
    if (buyer === undefined || !(late.has(address) || outvoted.has(address))) return;
    if (last !== 'settleLapsed') throw new Violation(`${buyer.name} signs ${last} for a word that was broken`);
    const sinceMs = Math.max(buyer.contested.get(address)?.sinceMs ?? Infinity, buyer.upSinceMs);
    if (buyer.isUp && this.#world.nowMs - sinceMs > CONTEST_MS)
      throw new Violation(`${buyer.name} lets a broken word be paid by the window that lapsed`);
  }

  /**
   * A withdrawal is heard by all who are there, long before the offer would have run out; by most of them where so many
   * offer that a neighbour may not forward them all.
   */
  checkWithdrawn({ address, name }: Provider, hearers: readonly Peer[], mayLag: boolean): void {
    const there = hearers.filter(({ isUp, skewMs, book }) => isUp && Math.abs(skewMs) <= SANE_SKEW_MS && book);
    const deaf = there.filter(({ book }) => book?.get(address) !== undefined);
    if (deaf.length > (mayLag ? there.length * DEAF_MAX_SHARE : 0))
      throw new Violation(`the book of ${deaf[0]?.name} still has the offer that ${name} has withdrawn`);
  }

  /**
   * Whoever says two things under one number is believed by nobody, or by all the same: but for a few newcomers to whom
   * each of those who have convicted it, and forward nothing more of it, told nothing.
   */
  #checkEquivocators(peers: readonly Peer[]): void {
    const there = peers.filter(({ book, isUp, skewMs }) => book && isUp && Math.abs(skewMs) <= SANE_SKEW_MS);
    const offers = there.flatMap(({ book }) => book?.list() ?? []);
    for (const [said, copies] of Map.groupBy(offers, ({ signer, sequence }) => `${sequence} of ${signer}`)) {
      if (copies.length * 2 > there.length && new Set(copies.map(({ id }) => id)).size > 1)
        throw new Violation(`${copies.length} of ${there.length} books have different offers ${said}`);
    }
  }

  /** What an honest provider signed is in its journal and within its policy. */
  #checkPromises({ address, terms }: LeaseAccount): void {
    const provider = this.#providers.get(terms.operator);
    if (provider === undefined || !provider.isHonest) return;
    const { name, journal, options } = provider;
    if (!journal.jobs.has(address)) throw new Violation(`${name} signed lease ${address} before its journal had it`);
    const { floorPerSecond = 0n, ceilingPerSecond = terms.pricePerSecond, leaseAmountMin = 0n } = options.policy;
    if (terms.pricePerSecond < floorPerSecond || terms.pricePerSecond > ceilingPerSecond)
      throw new Violation(`${name} sold for ${terms.pricePerSecond} a second, which its policy rules out`);
    if (terms.amount < leaseAmountMin)
      throw new Violation(`${name} sold a lease of ${terms.amount}, which is too small`);
    if (options.policy.blockedBuyers?.includes(terms.delegate) === true)
      throw new Violation(`${name} sold to ${terms.delegate}, whom it does not serve`);
    const region = this.#buyers.find((buyer) => buyer.address === terms.delegate)?.options.region ?? '';
    if (region !== '' && region !== options.region)
      throw new Violation(`${name} in "${options.region}" sold to a job that must run in "${region}"`);
  }

  /** Nothing sold twice: by the provider's own books, or its journal while it is down, and by the chain's. */
  #checkProvider(provider: Provider | undefined): void {
    if (provider === undefined || !provider.isHonest) return;
    const { options, name, journal } = provider;
    // A job that is over has given its capacity back, though the chain has still to close its lease.
    const leases = [...(this.#open.get(provider.address) ?? [])].filter(
      ({ state, address }) => state === 'running' && journal.jobs.get(address)?.vacated !== true,
    );
    assertWithin(
      `${name} on chain`,
      options.total,
      leases.flatMap(({ address }) => this.#chain.promises.get(address)?.need ?? []),
    );
    if (provider.isUp) this.#checkBooksOf(provider, leases);
    else {
      const promised = [...journal.jobs.values()].filter(
        ({ phase, vacated }) => phase !== 'closed' && vacated !== true,
      );
      const needs = promised.map(({ agreement }) => agreement.need);
      assertWithin(`${name}, which is down,`, options.total, needs);
    }
  }

  #checkBooksOf(provider: Provider, leases: readonly LeaseAccount[]): void {
    const { seller, options, name } = provider;
    const nowMs = provider.now();
    const live = [...seller.capacity.reservations].filter(
      ([, { expiresMs }]) => expiresMs === undefined || expiresMs > nowMs,
    );
    const needs = live.map(([, { need }]) => need);
    assertWithin(name, options.total, needs);
    const gpus = live.flatMap(([, reservation]) => reservation.gpus);
    if (new Set(gpus).size < gpus.length) throw new Violation(`${name} gave one GPU to two`);
    const held = new Map(live);
    for (const { id, expiresMs } of seller.quotes.values()) {
      if (expiresMs > nowMs && !held.has(id))
        throw new Violation(`${name} has quote ${id} out and holds nothing for it`);
    }
    for (const { address } of leases) {
      if (!held.has(address)) throw new Violation(`${name} has sold what lease ${address} holds`);
    }
    this.#checkStake(provider, held);
  }

  /** The stake behind quotes and leases is there, unless it was slashed after it was promised. */
  #checkStake({ account, name }: Provider, held: ReadonlyMap<string, Reservation>): void {
    const onChain = this.#chain.providers.get(account);
    if (onChain === undefined || onChain.faults > 0) return;
    let promised = onChain.reserved;
    for (const [id, { stake }] of held) if (!this.#chain.leases.has(id as Address)) promised += stake;
    if (promised > onChain.stake) throw new Violation(`${name} promised ${promised} of its stake of ${onChain.stake}`);
  }

  #checkReleased(provider: Provider): void {
    const { name, isHonest, seller, isUp, openJobs, options } = provider;
    if (!isHonest || !isUp) return;
    const { gpus: _groups, ...free } = provider.free();
    const { gpus: _all, ...total } = options.total;
    if (JSON.stringify(free) !== JSON.stringify(total))
      throw new Violation(`${name} has ${JSON.stringify(free)} of ${JSON.stringify(total)} free at the end`);
    if (seller.quotes.size > 0) throw new Violation(`${name} has ${seller.quotes.size} quotes open at the end`);
    const leases = [...seller.capacity.reservations.values()].filter(({ expiresMs }) => expiresMs === undefined);
    if (leases.length > 0) throw new Violation(`${name} holds capacity for ${leases.length} leases at the end`);
    if (openJobs.length > 0) throw new Violation(`${name} has a job that is ${openJobs[0]?.phase} at the end`);
  }

  #checkBuyer({ name, jobs, asks, gangs }: Buyer): void {
    for (const { isVanished, state, held } of [...jobs, ...asks]) {
      if (isVanished) continue;
      if (state.phase !== 'over') throw new Violation(`a job of ${name} is ${state.phase} at the end`);
      if (held.size > 0) throw new Violation(`a job of ${name} holds ${held.size} quotes at the end`);
    }
    for (const { isVanished, state, outcome, paid, order, slots } of [...jobs, ...gangs]) {
      if (isVanished) continue;
      if (state.phase !== 'over' || outcome === undefined)
        throw new Violation(`a job of ${name} is ${state.phase} at the end`);
      if (outcome !== 'delivered' && !isErrorCode(outcome.code))
        throw new Violation(`a job of ${name} ended without a typed reason: ${String(outcome)}`);
      if (paid > order.maxPrice * BigInt(slots))
        throw new Violation(`a job of ${name} cost ${paid}, at most ${order.maxPrice} was agreed for each slot`);
    }
  }

  /**
   * Every book says of every honest provider what it said last, and nothing of those who are gone. Where so many offer that
   * a neighbour may not forward them all (`offersPerForwarder`), `mayLag` allows an earlier offer that is still alive,
   * and a few that are missing until the next pull.
   */
  checkBooks(peers: readonly Peer[], mayLag: boolean): void {
    const honest = [...this.#providers.values()].filter(
      ({ isHonest, skewMs }) => isHonest && Math.abs(skewMs) <= SANE_SKEW_MS,
    );
    for (const peer of peers) {
      const { name, book, isUp, skewMs } = peer;
      if (book === undefined || !isUp || Math.abs(skewMs) > SANE_SKEW_MS) continue;
      book.expire(peer.now());
      const faults = honest.flatMap((provider) => faultOfBook(peer, book, provider, mayLag) ?? []);
      this.#world.count('offers in books', book.size);
      this.#world.count('offers not in books that should be', faults.length);
      if (faults.length > (mayLag ? honest.length * MISSING_MAX_SHARE : 0))
        throw new Violation(`the book of ${name} ${faults.join(', ')}`);
    }
    if (!mayLag) this.#checkEquivocators(peers);
  }
}

/** What a book has of a provider that is not as it should be. */
function faultOfBook(peer: Peer, book: Book, provider: Provider, mayLag: boolean): string | undefined {
  const { resourceClass, options, published, isUp, name } = provider;
  const sequence = book.get(provider.address)?.sequence;
  if (!peer.follows(resourceClass, options.region))
    return sequence === undefined ? undefined : `has ${name}, whose shard it does not follow`;
  const expected = isUp && published?.revoked === false ? published.sequence : undefined;
  if (sequence === expected || (mayLag && sequence !== undefined && expected !== undefined)) return undefined;
  return `has offer ${sequence} of ${name}, the last is ${expected}`;
}

function spentOn(leases: readonly LeaseAccount[]): bigint {
  return leases.reduce((sum, { state, paid, terms }) => sum + (isLeaseEnd(state) ? paid : terms.amount), 0n);
}

function assertWithin(name: string, total: Resources, needs: readonly Resources[]): void {
  for (const what of ['cpuMillis', 'memoryBytes', 'diskBytes'] as const) {
    const sum = needs.reduce((before, need) => before + need[what], 0);
    if (sum > total[what]) throw new Violation(`${name} sold ${sum} of its ${total[what]} ${what}`);
  }
}
