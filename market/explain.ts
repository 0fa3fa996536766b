/**
 * Why a bid matched or did not, in words: what became of every offer, and which single change would have found a provider.
 *
 * Nothing here is guessed: it adds up obstacles that offers showed, refusals that providers signed off with a number, and
 * the reasons of the ranking. A change is named only where it is the one thing in the way of a provider, or, when every
 * provider has several, for the nearest of them.
 */
import type { Address } from '../protocol/address.ts';
import type { ErrorCode } from '../protocol/errors.ts';
import { HARDWARE_TIER_SHOWN } from '../protocol/messages.ts';
import { formatBytes, formatMolt } from '../protocol/units.ts';
import type { Obstacle, ObstacleName, OfferJudgement, Wanted } from './obstacle.ts';
import type { BidRecord, RecordedAnswer } from './record.ts';

export interface Explanation {
  /** What became of the bid, in one sentence. */
  readonly headline: string;
  readonly providers: readonly { readonly node: Address; readonly text: string }[];
  /** What would have matched, most providers first. Empty where nothing was needed or nothing helps. */
  readonly changes: readonly Change[];
}

export interface Change {
  readonly what: ObstacleName | 'again' | 'several';
  readonly text: string;
  /** Providers that it would have won. */
  readonly providers: number;
  /** For a program: the least that wins one provider, and what wins all of them; units as in `Obstacle`. */
  readonly enough?: string;
  readonly enoughForAll?: string;
}

interface Standing {
  readonly node: Address;
  readonly obstacles: readonly Obstacle[];
  readonly text: string;
  readonly outcome: 'taken' | 'quoted' | 'refused' | 'silent' | 'not-drawn' | 'not-asked' | 'failed';
}

export function explainBid(record: BidRecord): Explanation {
  const standings = standingsOf(record);
  const isMatched = standings.some(({ outcome }) => outcome === 'taken' || outcome === 'quoted');
  return {
    headline: headlineOf(record, standings),
    providers: standings.map(({ node, text }) => ({ node, text })),
    changes: isMatched ? [] : changesOf(record.wanted, standings),
  };
}

function headlineOf(
  { offersHeard, asked, answers, ranked, outcome, several }: BidRecord,
  standings: readonly Standing[],
): string {
  const quotes = answers.filter(({ pricePerSecond }) => pricePerSecond !== undefined).length;
  const heard = `${count(offersHeard, 'offer')} heard, ${asked.length} asked, ${count(quotes, 'quote')}`;
  if (several !== undefined) {
    const places = count(several.size, several.noun);
    const taken = standings.filter(({ outcome }) => outcome === 'taken').length;
    const why = outcome?.type === 'failed' ? ` (${outcome.code})` : '';
    return `${heard}: ${taken === 0 ? `nobody taken for ${places}` : `${count(taken, 'provider')} taken for ${places}`}${why}`;
  }
  if (outcome?.type === 'delivered') {
    const taken = standings.find(({ outcome }) => outcome === 'taken');
    return `${heard}: ${taken === undefined ? 'delivered' : `${short(taken.node)} delivered`}`;
  }
  if (outcome === undefined) return `${heard}: not over yet`;
  return `${heard}: ${ranked.length > 0 ? 'nobody delivered' : 'no match'} (${outcome.code})`;
}

function standingsOf(record: BidRecord): Standing[] {
  const { offers, answers } = record;
  const answered = new Map(answers.map((answer) => [answer.node, answer]));
  const offered = new Set(offers.map(({ node }) => node));
  const strangers = answers.filter(({ node }) => !offered.has(node));
  return [
    ...offers.map((offer) => standingOf(record, repriced(record, offer), answered.get(offer.node))),
    ...strangers.map((answer) => standingOf(record, { node: answer.node, obstacles: [], failedBefore: false }, answer)),
  ].sort((a, b) => OUTCOMES.indexOf(a.outcome) - OUTCOMES.indexOf(b.outcome));
}

/** The bid may have gone out with a lower ceiling than the one that the offer was first held against. */
function repriced({ wanted }: BidRecord, offer: OfferJudgement): OfferJudgement {
  const { pricePerSecond: enough, obstacles } = offer;
  const isDear = BigInt(enough) > BigInt(wanted.pricePerSecondMax);
  if (!isDear || obstacles.some(({ what }) => what === 'price')) return offer;
  const price = { what: 'price', text: `asks ${formatMolt(BigInt(enough))} a second`, enough } as const;
  return { ...offer, obstacles: [...obstacles, price] };
}

const OUTCOMES: readonly Standing['outcome'][] = [
  'taken',
  'failed',
  'quoted',
  'refused',
  'silent',
  'not-drawn',
  'not-asked',
];

function standingOf(
  record: BidRecord,
  { node, obstacles, failedBefore }: Pick<OfferJudgement, 'node' | 'obstacles' | 'failedBefore'>,
  answer: RecordedAnswer | undefined,
): Standing {
  const failure = record.failures.find((each) => each.node === node);
  if (failure?.code === 'market/egress-refused') {
    const { code, reason } = failure;
    return {
      node,
      obstacles: [{ what: 'egress', text: reason }],
      outcome: 'refused',
      text: `declined: ${reason} (${code})`,
    };
  }
  if (failure !== undefined) {
    return {
      node,
      obstacles: [],
      outcome: 'failed',
      text: `was tried and failed: ${failure.reason} (${failure.code})`,
    };
  }
  if (answer?.refused !== undefined) {
    const { code, reason, enough } = answer.refused;
    const firm = obstacleOf(code, reason, enough);
    // What the provider says firmly is newer than its offer; of the offer, what it did not come to counts on.
    const others = obstacles.filter(({ what }) => what !== firm.what && (firm.what !== 'busy' || !SIZES.has(what)));
    const own = firm.what === 'busy' ? obstacles.filter(({ what }) => SIZES.has(what)) : [];
    const all = own.length > 0 ? [...own, ...others] : [firm, ...others];
    return { node, obstacles: all, outcome: 'refused', text: `declined: ${reason} (${code})` };
  }
  if (answer?.pricePerSecond !== undefined) return rankedStanding(record, answer);
  const places = placesOf(record, node);
  if (failedBefore && places !== '')
    return { node, obstacles: [], outcome: 'not-asked', text: `was not asked: it has ${places} already` };
  if (failedBefore)
    return { node, obstacles: [], outcome: 'not-asked', text: 'was not asked: it failed this job before' };
  const why = obstacles.map(({ text }) => text).join(', ');
  if (record.asked.includes(node)) {
    return { node, obstacles, outcome: 'silent', text: `did not answer in time${why === '' ? '' : `; it ${why}`}` };
  }
  if (obstacles.length > 0) return { node, obstacles, outcome: 'not-asked', text: `was not asked: it ${why}` };
  if (record.bid === '') return { node, obstacles, outcome: 'silent', text: 'suits, and no bid went out' };
  return { node, obstacles, outcome: 'not-drawn', text: 'suits, and was not among those that the bid asked' };
}

function rankedStanding(record: BidRecord, { node, pricePerSecond = '0' }: RecordedAnswer): Standing {
  const place = record.ranked.findIndex((each) => each.node === node);
  const ranking = record.ranked[place];
  const asks = `quoted ${formatMolt(BigInt(pricePerSecond))} a second`;
  if (ranking === undefined) return { node, obstacles: [], outcome: 'quoted', text: `${asks}, too late to be ranked` };
  const places = placesOf(record, node);
  const isTaken = record.several === undefined ? isDelivering(record, node) : places !== '';
  const best = [...ranking.reasons].sort((a, b) => b.weight * b.value - a.weight * a.value)[0];
  const why = best === undefined ? '' : `: ${best.text}`;
  const text = `${asks}, ranked ${place + 1} of ${record.ranked.length} with ${ranking.score.toFixed(3)}${why}${places === '' ? '' : `; it got ${places}`}`;
  return { node, obstacles: [], outcome: isTaken ? 'taken' : 'quoted', text };
}

/** What it has of a gang, or of replicas: "slot 0 and slot 2"; empty where it has nothing. */
function placesOf({ several }: BidRecord, node: Address): string {
  const taken = several?.taken.filter((seat) => seat.node === node) ?? [];
  return taken.map(({ rank }) => `${several?.noun} ${rank}`).join(' and ');
}

/** The best that did not fail. */
function isDelivering({ failures, ranked, outcome }: BidRecord, node: Address): boolean {
  const failed = new Set(failures.map((failure) => failure.node));
  return outcome?.type === 'delivered' && ranked.find((each) => !failed.has(each.node))?.node === node;
}

const SIZES: ReadonlySet<ObstacleName> = new Set(['cpu', 'memory', 'disk', 'gpu']);

const CODES: Readonly<Partial<Record<ErrorCode, ObstacleName>>> = {
  'market/price-too-low': 'price',
  'market/duration-too-long': 'duration',
  'market/closed': 'duration',
  'market/finish-too-late': 'duration',
  'market/start-too-late': 'start',
  'market/tier-too-low': 'tier',
  'market/lease-too-small': 'amount',
  'market/no-capacity': 'busy',
  'chain/stake-too-low': 'stake',
  'market/reserve-too-high': 'reserve',
  'chain/budget-empty': 'budget',
  'market/unsupported': 'feature',
};

/** A number is what makes a refusal something that can be changed. */
function obstacleOf(code: ErrorCode, text: string, enough: string | undefined): Obstacle {
  const what = CODES[code] ?? 'policy';
  const isNumeric = ['price', 'duration', 'amount', 'stake', 'reserve', 'start'].includes(what);
  if (!isNumeric) return { what, text };
  return enough === undefined ? { what: 'policy', text } : { what, text, enough };
}

function changesOf(wanted: Wanted, standings: readonly Standing[]): readonly Change[] {
  const single = standings.filter(({ obstacles, outcome }) => obstacles.length === 1 && outcome !== 'silent');
  const byWhat = Map.groupBy(single, ({ obstacles: [only] }) => only?.what ?? 'policy');
  const changes = [...byWhat].flatMap(([what, group]) => {
    const change = changeOf(
      wanted,
      what,
      group.flatMap(({ obstacles }) => obstacles),
    );
    return change === undefined ? [] : [change];
  });
  const left = standings.filter(({ outcome }) => outcome === 'not-drawn').length;
  if (left > 0) {
    const text = `bidding again may ask ${count(left, 'provider')} more that ${left === 1 ? 'suits' : 'suit'}`;
    changes.push({ what: 'again', text, providers: left });
  }
  if (changes.length === 0) changes.push(...nearest(wanted, standings), ...unheard(wanted));
  return changes.sort((a, b) => b.providers - a.providers);
}

/** More is better for price, amount and time to start, less for everything else. */
const RISING: ReadonlySet<ObstacleName> = new Set(['price', 'amount', 'start']);

function changeOf(wanted: Wanted, what: ObstacleName, obstacles: readonly Obstacle[]): Change | undefined {
  const providers = obstacles.length;
  const values = obstacles
    .flatMap(({ enough }) => (enough === undefined ? [] : [BigInt(enough)]))
    .filter((value) => value > 0n)
    .sort((a, b) => (a < b ? -1 : Number(a > b)) * (RISING.has(what) ? 1 : -1));
  const [least] = values;
  const most = values.at(-1);
  if (least === undefined || most === undefined) {
    const said = wordless(wanted, what);
    return said === undefined ? undefined : { what, text: `${said} ${would(what, providers)}`, providers };
  }
  const first = values.filter((value) => value === least).length;
  const others = least === most ? '' : `, ${measure(what, most)} from ${values.length}`;
  const text = `${changed(wanted, what, least)} ${would(what, first)}${others}`;
  const numbers = { enough: least.toString(), enoughForAll: most.toString() };
  return { what, text, providers: values.length, ...numbers };
}

function would(what: ObstacleName, providers: number): string {
  if (what === 'busy') return `may get a quote from ${count(providers, 'provider')}`;
  return `would have got a quote from ${count(providers, 'provider')}`;
}

/** Changes that are no number. */
function wordless({ features, region, hardwareTierMin }: Wanted, what: ObstacleName): string | undefined {
  if (what === 'tier') return `hardware of tier ${HARDWARE_TIER_SHOWN} instead of ${hardwareTierMin}`;
  if (what === 'region') return `any region instead of ${region}`;
  if (what === 'feature' && features.length > 0) return `a job that does without ${features.join(' and ')}`;
  if (what === 'gpu') return 'fewer or other GPUs';
  if (what === 'egress') return 'a job that does without the hosts that the provider does not let jobs reach';
  if (what === 'busy') return 'trying again later, when there is room,';
  if (what === 'budget') return 'a larger deposit, a higher cap or a shorter job';
  return undefined;
}

function changed(wanted: Wanted, what: ObstacleName, value: bigint): string {
  const { need, durationSecondsMax, pricePerSecondMax } = wanted;
  const shown = measure(what, value);
  switch (what) {
    case 'price':
      return `${shown} (${formatMolt(value * BigInt(durationSecondsMax))} for the job) instead of ${measure(what, BigInt(pricePerSecondMax))}`;
    case 'memory':
      return `${formatBytes(need.memoryBytes - Number(value))} less memory (${shown})`;
    case 'disk':
      return `${formatBytes(need.diskBytes - Number(value))} less disk (${shown})`;
    case 'cpu':
      return `${shown} instead of ${measure(what, BigInt(need.cpuMillis))}`;
    case 'duration':
      return `a job of at most ${shown} instead of ${durationSecondsMax} s`;
    case 'stake':
      return `asking for ${shown} of stake instead of ${formatMolt(BigInt(wanted.stakeMin))}`;
    case 'reserve':
      return `a reserve of ${shown} instead of ${formatMolt(BigInt(wanted.reserveMin ?? '0'))}`;
    case 'start':
      return `a start within ${shown}`;
    case 'amount':
      return `a longer job, one that locks ${shown},`;
    default:
      return shown;
  }
}

function measure(what: ObstacleName, value: bigint): string {
  if (what === 'price') return `${formatMolt(value)}/s`;
  if (what === 'memory' || what === 'disk') return formatBytes(Number(value));
  if (what === 'cpu') return `${Number(value) / 1000} ${value === 1000n ? 'core' : 'cores'}`;
  return what === 'duration' || what === 'start' ? `${value} s` : formatMolt(value);
}

/** Every provider wants more than one change: those of the one that wants fewest. */
function nearest(wanted: Wanted, standings: readonly Standing[]): Change[] {
  const [first] = standings
    .filter(
      ({ obstacles }) => obstacles.length > 1 && !obstacles.some(({ what }) => what === 'policy' || what === 'runtime'),
    )
    .sort((a, b) => a.obstacles.length - b.obstacles.length);
  if (first === undefined) return [];
  const parts = first.obstacles.map((obstacle) => {
    const value = BigInt(obstacle.enough ?? '0');
    return (value > 0n ? changed(wanted, obstacle.what, value) : wordless(wanted, obstacle.what)) ?? obstacle.text;
  });
  const text = `the nearest is ${short(first.node)}: it would have taken ${parts.join(', and ')}`;
  return [{ what: 'several', text, providers: 1 }];
}

/** What would have matched elsewhere nobody can say; only that it was not looked at. */
function unheard({ followed }: Wanted): Change[] {
  if (followed === undefined) return [];
  const text = `only offers of region ${followed} were heard: following all regions, or another, may find providers`;
  return [{ what: 'region', text, providers: 0 }];
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`;
}

function short(node: Address): string {
  return node.slice(0, 8);
}
