/**
 * Faults put into the machines on purpose, to see that the invariants find them: `node scripts/simulate.ts --mutants`.
 *
 * Each is one change of one place in the sources. The place must be there exactly once, so that a change of the sources
 * does not quietly leave a fault out.
 */
import { readFileSync } from 'node:fs';
import { registerHooks } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

export interface Mutant {
  readonly name: string;
  /** From the root of the repository. */
  readonly file: string;
  readonly from: string;
  readonly to: string;
  /** Why no invariant can find it, for one that something else makes good. */
  readonly madeGood?: string;
}

const ROOT = join(import.meta.dirname, '../..');
const SELLER = 'market/seller.ts';
const BIDDER = 'market/bidder.ts';
const ADMISSION = 'market/admission.ts';
const BOOK = 'market/book.ts';
const JOB = 'node/provider/job.ts';
const GANG = 'market/gang.ts';
const AUTONOMY = 'market/autonomy.ts';
const QUOTE = 'market/quote.ts';
const QUORUM = 'market/quorum.ts';
const POLICY = 'market/policy.ts';

export const MUTANTS: readonly Mutant[] = [
  {
    name: 'a quote holds nothing',
    file: SELLER,
    from: 'capacity: reserve(capacity, bid.id, { need, stake: content.reserve, expiresMs, hold }, at.nowMs),',
    to: 'capacity,',
  },
  {
    name: 'a hold holds no need',
    file: 'market/capacity.ts',
    from: 'return restore(without, id, { ...wanted, gpus });',
    to: 'return restore(without, id, { ...wanted, need: { ...wanted.need, cpuMillis: 0, memoryBytes: 0 }, gpus });',
  },
  {
    name: 'a GPU is placed twice',
    file: 'market/capacity.ts',
    from: 'const gpus = placeGpus(without.devices, unavailable(without, nowMs), wanted.need.gpus);',
    to: 'const gpus = placeGpus(without.devices, new Set(), wanted.need.gpus);',
  },
  {
    name: 'what is held never expires',
    file: 'market/capacity.ts',
    from: `  return [...capacity.reservations.values()].filter(
    (entry) => entry.expiresMs === undefined || entry.expiresMs > nowMs,
  );`,
    to: '  return [...capacity.reservations.values()];',
    madeGood: 'every hold is given back by the end of its quote as well',
  },
  {
    name: 'stake is promised twice',
    file: SELLER,
    from: 'provider.freeStake - promisedStake(state.capacity, at.nowMs)',
    to: 'provider.freeStake - promisedStake(state.capacity, at.nowMs) * 0n',
  },
  {
    name: 'a lease loses its hold when it is funded',
    file: SELLER,
    from: 'return nothing(held === undefined ? state : fundLease(state, event.lease, { held, at }));',
    to: 'return nothing(held === undefined ? state : freed(state, event.lease, at));',
  },
  {
    name: 'a lease that ended keeps its hold',
    file: SELLER,
    from: 'return offerAnew(freed(state, event.lease, at), at);',
    to: 'return offerAnew(state, at);',
  },
  {
    name: 'leases of the journal are forgotten',
    file: SELLER,
    from: 'return nothing(withLease(state, event.lease, event));',
    to: 'return nothing(state);',
  },
  {
    name: 'a quote can be accepted again and again',
    file: SELLER,
    from: 'state: { ...withoutQuote(state, quote.id), capacity },',
    to: 'state: { ...state, capacity: restore(capacity, quote.id, capacity.reservations.get(event.lease) as Reservation) },',
  },
  {
    name: "another buyer's quote can be accepted",
    file: SELLER,
    from: 'if (quote.buyer !== buyer) throw',
    to: 'if (quote.buyer === undefined) throw',
  },
  {
    name: 'a quote can be accepted while the provider drains',
    file: SELLER,
    from: `  if (state.isDraining) {
    const message`,
    to: `  if (state.isClosed) {
    const message`,
    madeGood: 'draining takes all quotes back, so none is there to accept',
  },
  {
    name: 'a withdrawal is no withdrawal',
    file: SELLER,
    from: 'const published = publishOffer({ ...emptied, quotes: new Map() }, at, true);',
    to: 'const published = publishOffer({ ...emptied, quotes: new Map() }, at, false);',
  },
  {
    name: 'numbers are signed before they are kept',
    file: SELLER,
    from: "effects: [{ type: 'keep-sequence', upTo }], header }",
    to: 'effects: [], header }',
  },
  {
    name: 'who is not asked answers',
    file: SELLER,
    from: 'if (!isAsked(bid, terms.provider.address)) return nothing(state);',
    to: '',
  },
  {
    name: 'hours without sales are sold',
    file: 'market/policy.ts',
    from: 'if (next === undefined) return undefined;',
    to: 'if (next !== null) return undefined;',
  },
  {
    name: 'the floor is no floor',
    file: 'market/price.ts',
    from: 'const raised = ask < atLeast ? atLeast : ask;',
    to: 'const raised = ask + atLeast * 0n;',
  },
  {
    name: 'blocked buyers are served',
    file: 'market/policy.ts',
    from: 'if (blockedBuyers.includes(bid.signer)) {',
    to: 'if (blockedBuyers.includes(bid.content.budget)) {',
  },
  {
    name: 'small leases are taken',
    file: 'market/policy.ts',
    from: 'if (amount >= leaseAmountMin) return undefined;',
    to: 'if (amount + leaseAmountMin >= 0n) return undefined;',
  },
  {
    name: 'jobs of other regions are taken',
    file: 'market/quote.ts',
    from: "if (region !== '' && region !== provider.region) {",
    to: "if (region !== '' && provider.region === undefined) {",
    madeGood: 'a provider follows its own region alone, and hears no bid for another',
  },
  {
    name: 'a quote that breaks its bid is acceptable',
    file: BIDDER,
    from: '  acceptableQuote({ quote, bid, provider: account, nowMs: at.nowMs, chainNowMs: facts.chainNowMs });\n',
    to: '',
  },
  {
    name: 'who failed is tried again',
    file: BIDDER,
    from: 'const next = { ...state, failed: new Set(state.failed).add(node), ranked: rest };',
    to: 'const next = { ...state, ranked: rest };',
  },
  {
    name: 'a job is bid for without end',
    file: BIDDER,
    from: 'return attempt < (order.attempts ?? ATTEMPTS);',
    to: 'return attempt < 1_000 + (order.attempts ?? ATTEMPTS);',
  },
  {
    name: 'quotes are not let go',
    file: BIDDER,
    from: "return bid === undefined || bid.id === '' ? [] : [{ type: 'let-all-go', bid: bid.id }];",
    to: 'return bid === undefined ? [] : [];',
  },
  {
    name: 'nobody looks at the time for quotes',
    file: BIDDER,
    from: "asking: { answered: takeAnswer, 'time-up': endAsking,",
    to: 'asking: { answered: takeAnswer,',
  },
  {
    name: 'a forged offer is admitted',
    file: ADMISSION,
    from: 'verifyEnvelope(gate.decode(envelope))',
    to: '(gate.decode(envelope) as ReturnType<typeof verifyEnvelope<Message<Content>>>)',
  },
  {
    name: 'nothing is counted per origin',
    file: ADMISSION,
    from: '      buckets.take(signer, nowMs);\n    },',
    to: '    },',
  },
  {
    name: 'old offers are admitted again',
    file: ADMISSION,
    from: 'issuedMs <= forgottenMs : sequence <= known.sequence)',
    to: 'issuedMs <= forgottenMs : sequence < 0)',
  },
  {
    name: 'who says two things is not convicted',
    file: ADMISSION,
    from: 'if (known?.sequence !== sequence || known.id === id) return false;',
    to: 'if (known?.sequence !== sequence || known.id !== id) return false;',
  },
  {
    name: 'a withdrawal is not heard',
    file: BOOK,
    from: `        remove(offer.signer);
        return 'revoked';`,
    to: "        return 'revoked';",
  },
  {
    name: 'offers of the dead stay',
    file: BOOK,
    from: 'if (offer.expiresMs <= nowMs) remove(signer);',
    to: 'if (offer.expiresMs <= 0) remove(signer);',
  },
  {
    name: 'an older offer replaces a newer',
    file: BOOK,
    from: "if (known !== undefined && offer.sequence <= known.sequence) return 'stale';",
    to: "if (known !== undefined && offer.sequence < 0) return 'stale';",
    madeGood: 'admission lets no number in that is not newer',
  },
  {
    name: 'capacity is free while the job runs',
    file: JOB,
    from: "to({ ...job, startedAtMs: input.startedAtMs }, 'running', nowMs))",
    to: "vacate(to({ ...job, startedAtMs: input.startedAtMs }, 'running', nowMs)))",
  },
  {
    name: 'capacity of a job that is over is never free',
    file: JOB,
    from: "return { job: { ...job, vacated: true }, effects: [...effects, { type: 'release' }] };",
    to: 'return { job: { ...job, vacated: true }, effects };',
  },
  {
    name: 'a run is forgotten in a crash',
    file: JOB,
    from: `    cancel: (job) => stay({ ...job, cancelled: true }, { type: 'stop' }),
    restarted: (job, input, nowMs) => (input.adopted ? stay(job, { type: 'adopt' }) : again(job, nowMs)),`,
    to: "    cancel: (job) => stay({ ...job, cancelled: true }, { type: 'stop' }),",
  },
  {
    name: 'work is never claimed',
    file: JOB,
    from: "tick: (job, _input, nowMs) => retry(job, nowMs, { type: 'claim' }),",
    to: '',
  },
  {
    name: 'a gang opens its leases before all are signed',
    file: GANG,
    from: "  if (next.seats.some((seat) => seat.state === 'signing')) return nothing(next);\n",
    to: '',
  },
  {
    name: 'a gang starts before all its leases are open',
    file: GANG,
    from: "if (state.phase !== 'opening' || state.seats.some((seat) => seat.state === 'opening')) return nothing(state);",
    to: "if (state.phase !== 'opening') return nothing(state);",
  },
  {
    name: 'a gang goes on with a lease that did not open',
    file: GANG,
    from: '  if (state.error !== undefined || state.isEnough) return undo(state, state.error);\n',
    to: '',
  },
  {
    name: 'a gang that is undone leaves nothing',
    file: GANG,
    from: "const effects: readonly GangEffect[] = [...told, { type: 'let-quotes-go', filling }, ...leaving];",
    to: "const effects: readonly GangEffect[] = [...told, { type: 'let-quotes-go', filling }];",
  },
  {
    name: 'slots of a gang share a provider that may have one',
    file: GANG,
    from: "if (order.spread === 'any') return failed;",
    to: "if (order.spread !== 'replicas') return failed;",
    madeGood: 'the account behind the nodes is compared as well',
  },
  {
    name: 'what this hour cost is not counted',
    file: AUTONOMY,
    from: 'const hour = limits.hourMax - spentSince(commitments, nowMs - HOUR_MS);',
    to: 'const hour = limits.hourMax;',
  },
  {
    name: 'what a buyer spends is counted late',
    file: AUTONOMY,
    from: '(sum, { atMs, amount }) => (atMs > sinceMs ?',
    to: '(sum, { atMs, amount, open }) => (atMs > sinceMs && !open ?',
  },
  {
    name: 'one job may cost all of the hour',
    file: AUTONOMY,
    from: 'const left = [limits.jobMax, hour, day].reduce',
    to: 'const left = [hour, day].reduce',
  },
  {
    name: 'as many leases as there are jobs are open at once',
    file: AUTONOMY,
    from: 'if (open >= limits.concurrentMax) {',
    to: 'if (open >= 1_000 + limits.concurrentMax) {',
  },
  {
    name: 'money is not given back',
    file: JOB,
    from: "tick: (job, _input, nowMs) => retry(job, nowMs, { type: 'refund' }),",
    to: '',
  },
  {
    name: 'a start is promised that the policy rules out',
    file: POLICY,
    from: 'if (leftMs >= seconds * 1000) return undefined;',
    to: 'if (leftMs >= seconds * 0) return undefined;',
  },
  {
    name: 'a start that is asked for is not promised',
    file: QUOTE,
    from: 'startByMs: bid.content.startByMs,\n    },',
    to: 'startByMs: 0,\n    },',
  },
  {
    name: 'a quote need not promise the start that its bid asks for',
    file: QUOTE,
    from: 'bid.startByMs === 0 || (quote.startByMs > 0 && quote.startByMs <= bid.startByMs),',
    to: 'true,',
  },
  {
    name: 'a job that begins too late is run and claimed',
    file: JOB,
    from: 'if (startByMs === undefined || startedAtMs <= startByMs) return undefined;',
    to: 'if (startByMs !== null) return undefined;',
  },
  {
    name: 'a quote may end later than its bid asks',
    file: QUOTE,
    from: 'bid.finishByMs === 0 || quote.finishByMs <= bid.finishByMs,',
    to: 'bid.finishByMs === 0 || quote.finishByMs > 0,',
  },
  {
    name: 'a provider promises its usual end whatever is asked',
    file: QUOTE,
    from: 'finishByMs: wanted === 0 ? usual : Math.min(usual, wanted),',
    to: 'finishByMs: usual,',
  },
  {
    name: 'a provider without enough stake quotes',
    file: QUOTE,
    from: 'if (stakeMin > provider.stake) {',
    to: 'if (stakeMin < 0n) {',
  },
  {
    name: 'a provider without enough stake is taken',
    file: QUOTE,
    from: 'provider.stake >= bid.stakeMin,',
    to: 'provider.stake >= 0n,',
  },
  {
    name: 'less stake is set aside than is asked for',
    file: QUOTE,
    from: 'const reserve = required > reserveMin ? required : reserveMin;',
    to: 'const reserve = required > 0n ? required : reserveMin;',
  },
  {
    name: 'a quote may set less stake aside than is asked for',
    file: QUOTE,
    from: 'quote.reserve >= bid.reserveMin,',
    to: 'quote.reserve >= 0n,',
  },
  {
    name: 'hardware is quoted that nobody can show',
    file: QUOTE,
    from: 'if (!isTierAtLeast(HARDWARE_TIER_SHOWN, hardwareTierMin)) {',
    to: 'if (!isTierAtLeast(hardwareTierMin, HARDWARE_TIER_SHOWN)) {',
    madeGood: 'no offer that shows more is admitted, so a bid for more is never sent',
  },
  {
    name: 'an image that is not wanted is quoted for',
    file: POLICY,
    from: "if (images.blocked.some(names)) return refusal('market/image-refused', 'the provider does not run this image');",
    to: '',
  },
  {
    name: 'a bid names its inputs unasked',
    file: 'market/bid.ts',
    from: 'near: request.nearData === true ? nearOf(spec) : [],',
    to: 'near: nearOf(spec),',
  },
  {
    name: 'a bid names its inputs in full',
    file: 'market/bid.ts',
    from: 'return [...cids].slice(0, LIMITS.nearPerBid).map(warmPrefix);',
    to: 'return [...cids].slice(0, LIMITS.nearPerBid).map((cid) => cid.slice(0, 16));',
  },
  {
    name: 'a quote may tell of inputs that its bid does not name',
    file: QUOTE,
    from: 'quote.near.every((prefix) => bid.content.near.includes(prefix)),',
    to: 'quote.near.every((prefix) => prefix.length > 0),',
  },
  {
    name: 'a quote may leave less time to compare than its bid asks',
    file: QUOTE,
    from: 'quote.windowMs >= bid.windowMs,',
    to: 'quote.windowMs >= 0,',
  },
  {
    name: 'half of the replicas are enough',
    file: QUORUM,
    from: 'return Math.floor(size / 2) + 1;',
    to: 'return Math.max(1, Math.floor(size / 2));',
  },
  {
    name: 'the vote of replicas has no end',
    file: QUORUM,
    from: 'provenAtMs + windowMs - DISPUTE_MS',
    to: 'provenAtMs + windowMs + 10 ** 9',
  },
  {
    name: 'replicas that were lost are waited for',
    file: QUORUM,
    from: 'const open = ballot.size - ballot.results.size - ballot.lost.size;',
    to: 'const open = ballot.size - ballot.results.size;',
  },
  {
    name: 'replicas that still run are not waited for',
    file: QUORUM,
    from: "return { decision: most + open >= quorum ? 'undecided' : 'none' };",
    to: "return { decision: open < 0 ? 'undecided' : 'none' };",
  },
  {
    name: 'a lost replica is replaced by who has a slot already',
    file: GANG,
    from: 'return failedProviders.has(provider) || seats.some(({ quote }) => quote?.content.provider === provider);',
    to: 'return failedProviders.has(provider);',
    madeGood: 'nodes that have a slot are not asked, and here each provider has one node',
  },
  {
    name: 'a slot that nobody takes is not told as forgone',
    file: GANG,
    from: "return order.quorum === undefined ? [] : seats.map(({ rank }) => ({ type: 'forgo', rank }));",
    to: "return order.quorum !== undefined ? [] : seats.map(({ rank }) => ({ type: 'forgo', rank }));",
  },
];

/** How often the place is in the sources: 1 for a mutant that can be made. */
export function placesOf({ file, from }: Mutant): number {
  return readFileSync(join(ROOT, file), 'utf8').split(from).length - 1;
}

/** From now on this process imports the changed source. Before anything that imports it. */
export function mutate({ file, from, to }: Mutant): void {
  const changed = pathToFileURL(join(ROOT, file)).href;
  registerHooks({
    load: (url, context, nextLoad) => {
      const loaded = nextLoad(url, context);
      if (url !== changed || loaded.source === undefined || loaded.source === null) return loaded;
      return {
        ...loaded,
        source: Buffer.from(loaded.source as Uint8Array)
          .toString('utf8')
          .replace(from, () => to),
      };
    },
  });
}
