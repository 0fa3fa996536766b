/**
 * The shell around `market/gang.ts`: bids for slots and keeps their quotes, has operators sign, sends the transactions,
 * takes back what was opened in vain, and runs the members as jobs of their own.
 */
import { join } from 'node:path';

import type { OpeningDraft } from '../chain/index.ts';
import {
  type GangBefore,
  type GangEffect,
  type GangEvent as MachineEvent,
  type GangOrder,
  type GangState,
  type Seat,
  type SeveralPlaces,
  type VerifiedQuote,
  createGang,
  decideGang,
  replacementRefusal,
  shareOfCeiling,
} from '../market/index.ts';
import { type Address, decodeAddress, parseAddress } from '../protocol/address.ts';
import { verifySignature } from '../protocol/ed25519.ts';
import { MoltError } from '../protocol/errors.ts';
import { wantedEgress } from '../protocol/job-spec.ts';
import { LIMITS } from '../protocol/limits.ts';
import { type BaseUnits, baseUnits, formatMolt } from '../protocol/units.ts';
import { type AttemptRequest, runOpened, termsOf } from './attempt.ts';
import { buyJob } from './bidding.ts';
import type { Buyer } from './buyer.ts';
import type { Comparison } from './comparison.ts';
import type { GangEvent, GangMember, GangOptions } from './gang.ts';
import { LeaseClient } from './lease-client.ts';
import { isLeftAlone, waitUntilClosed } from './lease-end.ts';
import { CANCELLED, JobFailedError, checked } from './outcome.ts';
import { type PreparedJob, orderOf, priceOf } from './prepare.ts';
import type { OpenRun, RunSeat } from './runs.ts';
import type { Committed } from './spending.ts';
import type { JobEvent } from './progress.ts';
import type { TakenUp } from './taken-up.ts';
import { untilVote, voteTime } from './vote-time.ts';

export interface GangRunOptions {
  /** By rank. */
  readonly jobs: readonly PreparedJob[];
  readonly order: GangOrder;
  /** `maxPrice` is the share of one slot. */
  readonly options: GangOptions;
  /** Of replicas: where their results meet. They have one folder for the outputs. */
  readonly comparison?: Comparison;
  /** Challenge window that providers must grant; default: their own. */
  readonly windowMs?: number;
  /** What is remembered of it, and found after a crash. */
  readonly run: OpenRun;
  /** What an earlier client left of it. */
  readonly takenUp?: TakenUp;
  readonly tell: (event: GangEvent) => void;
  readonly signal: AbortSignal;
}

export interface GangEnd {
  /** Undefined: every member has a result. */
  readonly error: unknown;
  readonly members: readonly GangMember[];
  readonly cost: BaseUnits;
}

/** The provider that has one slot: its stream, and its lease to be. */
interface Place {
  readonly client: LeaseClient;
  readonly request: AttemptRequest;
  readonly lease: Address;
  /** Its share of what may be spent, where that is limited. */
  readonly committed: Committed | undefined;
  /** Settles when the operator has signed, or not; undefined while it was not asked. */
  signing?: Promise<void>;
  /** It was settled before this client began. */
  readonly isPaid?: boolean;
  opened?: { readonly transaction: string; readonly openedMs: number };
}

/** One transaction of an opening, with the signatures so far. */
interface Signing {
  readonly draft: OpeningDraft;
  readonly ranks: readonly number[];
  readonly signatures: Map<Address, Uint8Array>;
}

/** Quotes wanted beyond the slots, so that one bad answer needs no second bid. */
const SPARE_QUOTES = 3;

export class GangRun {
  /** Never rejects. */
  readonly ended: Promise<GangEnd>;
  readonly #buyer: Buyer;
  readonly #options: GangRunOptions;
  readonly #end = Promise.withResolvers<GangEnd>();
  readonly #places = new Map<number, Place>();
  readonly #members: GangMember[];
  readonly #stops = new Map<number, AbortController>();
  /** Lets the quotes of a filling go. */
  #rounds: (() => void)[] = [];
  #signings: readonly Signing[] = [];
  /** What is under way; the end waits for it. */
  readonly #work = new Set<Promise<void>>();
  /** By lease: what it cost or, as long as nobody knows, what it has locked. */
  readonly #bound = new Map<Address, bigint>();
  /** Aborts when there is nothing to vote on any more. */
  readonly #voted = new AbortController();
  #state: GangState;
  #cost = 0n;
  #fillingStartedMs = 0;

  constructor(buyer: Buyer, options: GangRunOptions) {
    this.#buyer = buyer;
    this.#options = options;
    this.#members = options.jobs.map((_job, rank) => ({ rank }));
    this.ended = this.#end.promise;
    const { signal, comparison } = options;
    const onAbort = (): void => this.#dispatch({ type: 'cancelled', error: cancelledBy(signal) });
    const { takenUp } = options;
    const { state, effects } = createGang(options.order, takenUp && beforeOf(takenUp));
    this.#state = state;
    if (takenUp !== undefined) this.#takeUp(takenUp);
    signal.addEventListener('abort', onAbort, { once: true });
    void this.ended.then(() => signal.removeEventListener('abort', onAbort));
    for (const effect of effects) this.#perform(effect);
    if (signal.aborted) onAbort();
    if (comparison === undefined) return;
    const voted = (): void => this.#voted.abort(new MoltError('node/stopped', 'there is nothing to vote on'));
    void this.ended.then(voted);
    void comparison.agreed.then(() => {
      voted();
      this.#dispatch({ type: 'enough' });
    });
    void this.#holdVote(comparison).catch(() => undefined);
  }

  /** In time to dispute what is outvoted: whoever has claimed by then is paid unless it is compared. */
  async #holdVote(comparison: Comparison): Promise<void> {
    await untilVote(this.#buyer, () => this.#running(), this.#voted.signal);
    const missing = comparison.close();
    const code = 'market/finish-too-late';
    const reason = 'replicas that have claimed are paid soon unless they are compared';
    this.#options.tell({ type: 'vote-closed', missing, code, reason });
    this.#dispatch({ type: 'enough', error: new MoltError(code, `${reason}; the vote is held with what is there`) });
  }

  /** Leases of the members that run, or whose result waits for the others. */
  #running(): readonly Address[] {
    const running = this.#state.seats.filter(({ state }) => state === 'running');
    return running.flatMap(({ rank }) => this.#places.get(rank)?.lease ?? []);
  }

  /**
   * Unix ms of the chain by which a job that is bid for now must be proven; undefined where the buyer does not mind. Retries
   * have what is left of it, and who takes the place of a lost replica comes before the vote. Throws `market/finish-too-late`.
   */
  async #finishByMs({ spec }: PreparedJob): Promise<number | undefined> {
    const { run, comparison } = this.#options;
    const wantedMs = run.record.finishByMs === 0 ? Infinity : run.record.finishByMs;
    const voteByMs = comparison === undefined ? Infinity : await voteTime(this.#buyer, this.#running());
    const nowMs = this.#buyer.chainClock.now();
    const refusal = replacementRefusal(spec.maxDurationSeconds, { voteByMs, nowMs });
    if (refusal !== undefined) throw refusal;
    const byMs = Math.min(wantedMs, voteByMs);
    return byMs === Infinity ? undefined : byMs;
  }

  /** Everything that the members of a run have that was cut off. */
  #takeUp({ seats, lost }: TakenUp): void {
    const { run, comparison, tell } = this.#options;
    const ranks = seats.map(({ seat }) => seat.rank);
    tell({ type: 'run-resumed', startedAtMs: run.record.startedAtMs, ranks });
    for (const { lease, amount, paid } of run.record.seats)
      this.#bound.set(parseAddress(lease), BigInt(paid ?? amount));
    for (const seat of lost) {
      this.#cost += BigInt(seat.paid ?? '0');
      this.#members[seat.rank] = { rank: seat.rank, ...this.#earlierOf(seat.rank), ...lostBefore(seat) };
    }
    const { clock } = this.#buyer.env;
    for (const { seat, quote, state } of seats) {
      const { rank, found } = seat;
      const proof = found && { ...found, proof: new Uint8Array(Buffer.from(found.proof, 'base64')) };
      if (proof !== undefined) comparison?.recall(rank, proof);
      if (state === 'gone') continue;
      const openedMs = clock.monotonic() - Math.max(0, clock.now() - seat.openedAtMs);
      const { client, request } = this.#placeFor(rank, quote);
      this.#places.set(rank, {
        client,
        request: { ...request, hasJob: seat.hasJob },
        lease: parseAddress(seat.lease),
        committed: undefined,
        opened: { transaction: '', openedMs },
        isPaid: seat.outcome === 'delivered',
      });
    }
  }

  #dispatch(event: MachineEvent): void {
    const { state, effects } = decideGang(this.#state, event);
    this.#state = state;
    for (const effect of effects) this.#perform(effect);
  }

  #perform(effect: GangEffect): void {
    switch (effect.type) {
      case 'tell':
        return this.#options.tell(effect.news);
      case 'ask':
        return this.#track(this.#ask(effect));
      case 'sign':
        return this.#track(this.#sign(effect.filling, effect.seats));
      case 'open':
        return this.#track(this.#open(effect.filling, effect.ranks));
      case 'leave':
        return this.#track(this.#leave(effect));
      case 'let-quotes-go':
        for (const letGo of this.#rounds) letGo();
        this.#rounds = [];
        return undefined;
      case 'start':
        return this.#track(this.#run(effect.rank));
      case 'stop':
        this.#stops.get(effect.rank)?.abort(new MoltError('job/cancelled', 'the gang ends, and its members with it'));
        return undefined;
      case 'forgo':
        return this.#options.comparison?.lose(effect.rank);
      case 'deliver':
        return void this.#finish(undefined);
      case 'fail':
        return void this.#finish(effect.error);
      default:
        return effect satisfies never;
    }
  }

  #track(work: Promise<void>): void {
    const settled = work.catch((error: unknown) => this.#dispatch({ type: 'cancelled', error }));
    this.#work.add(settled);
    void settled.then(() => this.#work.delete(settled));
  }

  async #finish(fault: unknown): Promise<void> {
    while (this.#work.size > 0) await Promise.all(this.#work);
    this.#options.run.end();
    this.#end.resolve({ error: fault, members: this.#members, cost: baseUnits(this.#cost) });
  }

  /** One bid. Its quotes are held, as the quotes of one job are, until the filling lets them go. */
  async #ask({ filling, shape, slots, afterMs, without }: GangEffect & { type: 'ask' }): Promise<void> {
    const { jobs, order, options, windowMs, tell, signal } = this.#options;
    const job = jobs[order.shapes.indexOf(shape)];
    if (job === undefined) return;
    const over = new AbortController();
    const released = Promise.withResolvers<void>();
    this.#rounds.push(() => {
      released.resolve();
      over.abort(new MoltError('market/quote-expired', 'the gang wants no more quotes'));
    });
    const quotesWanted = Math.min(LIMITS.quotesWanted, options.quotes ?? slots + SPARE_QUOTES);
    const hold = async (ranked: readonly VerifiedQuote[]): Promise<void> => {
      const { free } = await this.#buyer.budget();
      this.#dispatch({ type: 'quoted', filling, shape, quotes: ranked, budgetFree: free });
      await released.promise;
    };
    const attempt = (
      _best: unknown,
      _number: number,
      _tell: unknown,
      ranked: readonly VerifiedQuote[],
    ): Promise<void> => hold(ranked);
    const until = AbortSignal.any([signal, over.signal]);
    try {
      if (afterMs > 0) await this.#buyer.env.clock.sleep(afterMs, until);
      const finishByMs = await this.#finishByMs(job);
      const wanted = {
        ...orderOf(this.#buyer, job.spec, { ...options, maxPrice: this.#shareLeft() }),
        ...(finishByMs === undefined ? {} : { finishByMs }),
        ...(windowMs === undefined ? {} : { windowMs }),
        attempts: 1,
        quotesWanted,
        // Where one provider may have several slots, one quote is a round's worth.
        quotesNeeded: order.spread === 'any' ? 1 : slots,
        without,
      };
      await buyJob(this.#buyer, { order: wanted, attempt, tell, signal: until, several: () => this.#taken() });
    } catch (error) {
      this.#dispatch({ type: 'unquoted', filling, error });
    }
  }

  /** Who has a place, as the record of a bid tells it. */
  #taken(): SeveralPlaces {
    const noun = this.#options.comparison === undefined ? 'slot' : 'replica';
    const taken = this.#state.seats.flatMap(({ rank, quote }) =>
      quote === undefined ? [] : [{ node: quote.signer, rank }],
    );
    return { noun, size: this.#state.seats.length, taken };
  }

  /**
   * What each vacant slot may lock: an equal share of the ceiling for all, once what the others lock or cost is taken off,
   * lost ones among them. Where spending is limited, all of them are one job. Throws `market/gang-incomplete` when nothing
   * is left, and `market/spending-limit`.
   */
  #shareLeft(): BaseUnits {
    const { order, options } = this.#options;
    const { spending } = this.#buyer;
    const whole = priceOf(options.maxPrice) * BigInt(order.shapes.length);
    const held = this.#state.seats.filter(({ state }) => state === 'held');
    const bound = [...this.#bound.values(), ...held.map(({ quote }) => quote?.content.amount ?? 0n)];
    // Slots that need other things are asked for later, and have their share.
    const vacant = this.#state.seats.filter(({ state }) => state === 'vacant').length;
    const most = spending && { jobMax: spending.limits.jobMax, allowance: spending.allowance() };
    const share = shareOfCeiling(whole, { bound, vacant }, most);
    if (share > 0n) return baseUnits(share);
    const message = `the others cost or lock all of the ${formatMolt(baseUnits(whole))}; raise maxPrice to have one that is lost replaced`;
    throw new MoltError('market/gang-incomplete', message);
  }

  /** Every operator is asked at once, each for the transaction that its lease is in. */
  async #sign(filling: number, seats: readonly Seat[]): Promise<void> {
    const { chain } = this.#buyer;
    this.#fillingStartedMs = this.#buyer.env.clock.monotonic();
    const blockhash = await chain.recentBlockhash();
    const leases = seats.flatMap(({ rank, quote }) => {
      const job = this.#options.jobs[rank];
      if (quote === undefined || job === undefined) return [];
      return [{ rank, quote, terms: termsOf(this.#buyer, quote, job.specDigest) }];
    });
    for (const { rank, quote, terms } of leases) {
      const committed = await this.#buyer.spending?.commit(terms.amount);
      const lease = chain.leaseAddress(terms.budget, terms.termsDigest);
      this.#places.set(rank, { ...this.#placeFor(rank, quote), lease, committed });
    }
    const drafts = chain.draftOpenLeases(
      leases.map(({ terms }) => terms),
      blockhash,
    );
    this.#signings = drafts.map((draft) => {
      const ranks = leases.filter(({ terms }) => draft.terms.includes(terms)).map(({ rank }) => rank);
      return { draft, ranks, signatures: new Map([[this.#buyer.key.address, this.#buyer.key.sign(draft.message)]]) };
    });
    for (const signing of this.#signings) {
      for (const rank of signing.ranks) {
        const place = this.#places.get(rank);
        if (place === undefined) continue;
        place.signing = this.#askToSign(place, signing, blockhash).then(
          () => this.#dispatch({ type: 'signed', filling, rank }),
          (error: unknown) => this.#dispatch({ type: 'refused', filling, rank, error }),
        );
      }
    }
  }

  #placeFor(rank: number, quote: VerifiedQuote): Pick<Place, 'client' | 'request'> {
    const { jobs, options, comparison } = this.#options;
    const tell = (event: JobEvent): void => {
      const lease = this.#places.get(rank)?.lease;
      if (event.type === 'phase' && event.phase !== 'queued' && lease !== undefined) this.#noteJob(lease);
      this.#options.tell({ ...event, rank });
    };
    const stop = new AbortController();
    this.#stops.set(rank, stop);
    const { onEvent: _onEvent, outputDirectory, ...rest } = options;
    const folder = comparison === undefined ? join(outputDirectory ?? '', String(rank)) : (outputDirectory ?? '');
    const { reconnectMs } = options;
    const addresses = this.#buyer.feed.book.get(quote.signer)?.content.addresses ?? [];
    const reach = { node: quote.signer, addresses, ...(reconnectMs === undefined ? {} : { reconnectMs }) };
    return {
      client: new LeaseClient(this.#buyer, { ...reach, tell }),
      request: {
        ...(jobs[rank] as PreparedJob),
        quote,
        options: { ...rest, ...(outputDirectory === undefined ? {} : { outputDirectory: folder }) },
        ...(comparison === undefined ? {} : { replica: comparison.place(rank, quote.signer, tell) }),
        attempt: this.#state.filling,
        tell,
        signal: stop.signal,
      },
    };
  }

  /** The provider has the job: after a crash it is not handed over again. */
  #noteJob(lease: Address): void {
    const { run } = this.#options;
    const seat = run.record.seats.find((one) => one.lease === lease);
    if (seat?.hasJob === false) run.note(lease, { hasJob: true });
  }

  /** Throws the operator's refusal, and `protocol/bad-signature`, which would spoil the transaction of the others. */
  async #askToSign({ client, request }: Place, signing: Signing, blockhash: string): Promise<void> {
    const { quote, tell, specDigest } = request;
    const { draft, signatures } = signing;
    const signature = await client.accept({
      quote: Buffer.from(quote.id, 'hex'),
      specDigest,
      budget: decodeAddress(this.#buyer.budgetAddress),
      blockhash: decodeAddress(blockhash as Address),
      message: draft.terms.length > 1 ? draft.message : new Uint8Array(),
      egress: [...wantedEgress(request.spec)],
    });
    if (!verifySignature(draft.message, signature, decodeAddress(quote.signer))) {
      const message = 'the provider signed something else than the transaction that opens its lease; take another';
      throw new MoltError('protocol/bad-signature', message, { node: quote.signer });
    }
    signatures.set(quote.signer, signature);
    const { provider, pricePerSecond } = quote.content;
    tell({ type: 'accepted', provider, node: quote.signer, pricePerSecond });
  }

  /** Nothing is sent while a provider is seen to be gone: what is opened with the dead comes back late. */
  async #open(filling: number, ranks: readonly number[]): Promise<void> {
    for (const rank of ranks) {
      const place = this.#places.get(rank);
      if (place?.client.isConnected === true) continue;
      const message = `the provider ${place?.request.quote.signer ?? ''} went away before the leases were opened`;
      this.#dispatch({ type: 'refused', filling, rank, error: new MoltError('mesh/closed', message) });
      return;
    }
    try {
      await this.#options.run.seat(this.#seatsOf(ranks), filling);
    } catch (error) {
      this.#dispatch({ type: 'unopened', filling, ranks, error });
      return;
    }
    await Promise.all(this.#signings.map((signing) => this.#submit(filling, signing)));
  }

  #seatsOf(ranks: readonly number[]): readonly RunSeat[] {
    const openedAtMs = this.#buyer.env.clock.now();
    return ranks.flatMap((rank) => {
      const place = this.#places.get(rank);
      if (place === undefined) return [];
      const { signer, content, bytes } = place.request.quote;
      const quote = Buffer.from(bytes).toString('base64');
      const { provider, amount } = content;
      return {
        rank,
        lease: place.lease,
        provider,
        node: signer,
        quote,
        amount: amount.toString(),
        openedAtMs,
        hasJob: false,
      };
    });
  }

  async #submit(filling: number, { draft, ranks, signatures }: Signing): Promise<void> {
    const { clock } = this.#buyer.env;
    try {
      const { signature: transaction } = await this.#buyer.chain.submit(draft, signatures);
      const openedMs = clock.monotonic();
      for (const rank of ranks) {
        const place = this.#places.get(rank);
        if (place === undefined) continue;
        place.opened = { transaction, openedMs };
        const { lease, request } = place;
        this.#bound.set(lease, request.quote.content.amount);
        const locked = request.quote.content.amount;
        const afterMs = openedMs - this.#fillingStartedMs;
        request.tell({ type: 'lease-opened', lease, transaction, locked, afterMs });
      }
    } catch (error) {
      this.#dispatch({ type: 'unopened', filling, ranks, error });
      return;
    }
    this.#dispatch({ type: 'opened', filling, ranks });
  }

  /**
   * Gives a slot up before anything ran in it. The provider frees its capacity as soon as it hears, and cancels a lease
   * that is open, which costs nothing. One that does not is cancelled from here, for the seconds since the opening.
   */
  async #leave({ filling, rank, mayBeOpen }: GangEffect & { type: 'leave' }): Promise<void> {
    const place = this.#places.get(rank);
    if (place?.signing !== undefined) {
      await place.signing;
      const isTold = await place.client.letGo(place.lease).then(
        () => true,
        () => false,
      );
      const paid = mayBeOpen ? await this.#takeBack(rank, place.lease, isTold) : 0n;
      await this.#endCount(place, paid, { outcome: 'left' });
      await place.client[Symbol.asyncDispose]();
    } else if (place !== undefined) await this.#endCount(place, 0n, { outcome: 'left' });
    this.#places.delete(rank);
    this.#dispatch({ type: 'left', filling, rank });
  }

  /** What was paid of a lease that is given up: nothing of one that never opened; undefined while it is open. */
  async #takeBack(rank: number, lease: Address, isTold: boolean): Promise<bigint | undefined> {
    const { chain, key } = this.#buyer;
    try {
      const open = isTold ? await waitUntilClosed(this.#buyer, lease) : await chain.lease(lease);
      if (open !== undefined) await chain.cancelByDelegate(key, open);
    } catch {
      // The endpoint is away, or the provider was faster: what the chain says last counts.
    }
    const ending = await chain.leaseEnding(lease).catch(() => undefined);
    const wasOpened = this.#places.get(rank)?.opened !== undefined;
    if (ending === undefined && !wasOpened) return 0n;
    this.#cost += ending?.paid ?? 0n;
    this.#options.tell({ type: 'lease-left', rank, lease, paid: ending?.paid });
    return ending?.paid;
  }

  async #run(rank: number): Promise<void> {
    const place = this.#places.get(rank);
    if (place?.opened === undefined) return;
    const { client, request, lease, opened } = place;
    const { provider } = request.quote.content;
    const at = { place: { provider, node: request.quote.signer, lease }, ...this.#earlierOf(rank) };
    const terms = termsOf(this.#buyer, request.quote, request.specDigest);
    try {
      const ran = await runOpened(this.#buyer, client, request, { terms, lease, ...opened });
      const result = checked(ran, request.options, request.signal);
      this.#cost += result.cost;
      await this.#endCount(place, result.cost, { outcome: 'delivered', ...this.#foundOf(rank) });
      this.#members[rank] = { rank, ...at, result };
    } catch (error) {
      this.#members[rank] = { ...memberOf(rank, error), ...at };
      if (place.isPaid === true) {
        this.#members[rank] = { rank, ...at };
        this.#cost += this.#bound.get(lease) ?? 0n;
        this.#dispatch({ type: 'delivered', rank });
        return;
      }
      const found = this.#foundOf(rank);
      await this.#endCount(place, await this.#costOfLost(rank, lease, error), { outcome: 'lost', ...found });
      this.#dispatch({ type: 'lost', rank, error, hasResult: found.found !== undefined });
      return;
    } finally {
      await client[Symbol.asyncDispose]();
    }
    this.#dispatch({ type: 'delivered', rank });
  }

  #foundOf(rank: number): Pick<RunSeat, 'found'> {
    const found = this.#options.comparison?.proofOf(rank);
    return found === undefined ? {} : { found: { ...found, proof: Buffer.from(found.proof).toString('base64') } };
  }

  /** Those who had this slot before. */
  #earlierOf(rank: number): Pick<GangMember, 'earlier'> {
    const { place, error, earlier = [] } = this.#members[rank] ?? { rank };
    if (place === undefined || error === undefined) return earlier.length === 0 ? {} : { earlier };
    return { earlier: [...earlier, { place, error }] };
  }

  /** A count that cannot be written stays as it is: the lease counts whole. */
  async #endCount({ committed, lease }: Place, paid: bigint | undefined, became: Partial<RunSeat>): Promise<void> {
    if (paid !== undefined) this.#bound.set(lease, paid);
    this.#options.run.note(lease, { ...became, ...(paid === undefined ? {} : { paid: paid.toString() }) });
    await committed?.end(paid).catch(() => undefined);
  }

  async #costOfLost(rank: number, lease: Address, error: unknown): Promise<bigint | undefined> {
    if (isLeftAlone(error)) return undefined;
    // A provider that comes back later must not find a lease to work under: its gang is over, or has another member.
    if (!(error instanceof JobFailedError)) return this.#takeBack(rank, lease, false);
    this.#cost += error.result.cost;
    return error.result.cost;
  }
}

function beforeOf({ seats, failed, fillings }: TakenUp): GangBefore {
  return { seats: seats.map(({ seat, quote, state }) => ({ rank: seat.rank, quote, state })), failed, fillings };
}

/** Why it was lost the client before knew. */
function lostBefore({ provider, node, lease, paid }: RunSeat): Pick<GangMember, 'place' | 'error'> {
  const place = { provider: parseAddress(provider), node: parseAddress(node), lease: parseAddress(lease) };
  const spent = paid === undefined ? '' : `; it cost ${formatMolt(baseUnits(BigInt(paid)))}`;
  return { place, error: new MoltError('job/provider-lost', `it was lost before the run was resumed${spent}`) };
}

function memberOf(rank: number, error: unknown): GangMember {
  if (error instanceof JobFailedError) return { rank, error, result: error.result };
  return error instanceof MoltError ? { rank, error } : { rank };
}

function cancelledBy(signal: AbortSignal): MoltError {
  const reason: unknown = signal.reason;
  return reason instanceof MoltError ? reason : new MoltError('job/cancelled', CANCELLED, {}, { cause: reason });
}
