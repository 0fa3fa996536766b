/**
 * `molt explain`: why the last bid of this home, or the one named, matched or did not, and what would have matched; in the
 * home of a provider, why it does not earn, and what would have won.
 */
import type { SalesExplanation } from '../../market/index.ts';
import { MoltError } from '../../protocol/errors.ts';
import { formatBytes, formatMolt } from '../../protocol/units.ts';
import { type BidRecord, type Explanation, type Molt, explainBid, readBids } from '../../sdk/index.ts';
import { openOperator } from '../operator/index.ts';
import { type CommandContext, loadSettings, moltCommand, printResult } from './command.ts';
import { toJson } from './job-line.ts';
import { type Terminal, formatDuration, harmless } from './terminal.ts';

/** Changes that the short form names. */
const CHANGES_SHORT = 3;

export async function explainCommand(context: CommandContext, words: readonly string[]): Promise<void> {
  const { settings } = await loadSettings(context);
  if (settings.provider !== null && words[0] === undefined) return explainProvider(context);
  const record = chooseBid(await readBids(context.home.buyer), words[0]);
  const explanation = explainBid(record);
  const lines = bidLines(context.terminal, { record, explanation, nowMs: context.env.clock.now() });
  printResult(context, { ...explanation, record }, lines);
}

async function explainProvider(context: CommandContext): Promise<void> {
  await using operator = await openOperator(context.env, context.home);
  const explanation = await operator.market();
  if (explanation === undefined) {
    const message = `the node of ${context.home.directory} does not run, so it hears no bids; ${moltCommand()} up starts it`;
    throw new MoltError('config/usage', message);
  }
  printResult(context, explanation, salesLines(context.terminal, explanation));
}

export function salesLines(terminal: Terminal, { headline, obstacles, reasons }: SalesExplanation): string[] {
  const lines = [headline, ...obstacles.map((text) => `  ${text}`)];
  if (reasons.length > 0) lines.push('', terminal.style('bold', 'what was not won'));
  lines.push(...reasons.map(({ text }) => `  ${harmless(text)}`));
  return lines;
}

/** Throws `config/usage` when there is none, or the beginning fits several. */
export function chooseBid(bids: readonly BidRecord[], wanted: string | undefined): BidRecord {
  const last = bids.at(-1);
  if (last === undefined) {
    throw new MoltError('config/usage', `no bid of this home is known; ${moltCommand()} run keeps the last ones`);
  }
  if (wanted === undefined) return last;
  const found = bids.filter(({ bid }) => bid !== '' && bid.startsWith(wanted.toLowerCase()));
  const [only] = found;
  if (only !== undefined && found.length === 1) return only;
  const known = bids.flatMap(({ bid }) => (bid === '' ? [] : [bid.slice(0, 8)])).join(', ') || 'none';
  const fits = found.length === 0 ? 'no kept bid begins' : `${found.length} kept bids begin`;
  throw new MoltError('config/usage', `${fits} with "${wanted}"; kept are ${known}`);
}

interface Shown {
  readonly record: BidRecord;
  readonly explanation: Explanation;
  readonly nowMs: number;
}

export function bidLines(terminal: Terminal, { record, explanation, nowMs }: Shown): string[] {
  const { headline, providers, changes } = explanation;
  const name = record.bid === '' ? 'a bid that was never sent' : `bid ${record.bid.slice(0, 8)}`;
  const attempt = record.attempt > 1 ? `, attempt ${record.attempt}` : '';
  const bold = (text: string): string => terminal.style('bold', text);
  const lines = [
    `${bold(name)}, ${formatDuration(Math.max(0, nowMs - record.atMs))} ago${attempt}: ${wantedText(record)}`,
    headline,
    ...(record.outcome?.type === 'failed' ? [`  ${harmless(record.outcome.reason)}`] : []),
  ];
  if (changes.length > 0)
    lines.push('', bold('what would have matched'), ...changes.map(({ text }) => `  ${harmless(text)}`));
  if (providers.length > 0) {
    lines.push('', bold('providers'));
    lines.push(...providers.map(({ node, text }) => `  ${node.slice(0, 8)}  ${harmless(text)}`));
    const unseen = record.offersHeard - record.offers.length;
    if (unseen > 0) lines.push(`  and ${unseen} more offers, further from what was wanted`);
  }
  return lines;
}

function wantedText({ wanted, several }: BidRecord): string {
  const { runtime, need, durationSecondsMax, pricePerSecondMax, region, features, stakeMin } = wanted;
  const gpus = need.gpus.reduce((sum, { count }) => sum + count, 0);
  return [
    several === undefined ? runtime : `${several.size} ${several.noun}s of ${runtime}`,
    `${need.cpuMillis / 1000} ${need.cpuMillis === 1000 ? 'core' : 'cores'}`,
    `${formatBytes(need.memoryBytes)} of memory`,
    ...(gpus > 0 ? [`${gpus} ${gpus === 1 ? 'GPU' : 'GPUs'}`] : []),
    ...features,
    ...(region === '' ? [] : [`in ${harmless(region)}`]),
    `up to ${durationSecondsMax} s`,
    `at most ${formatMolt(BigInt(pricePerSecondMax))}/s`,
    ...(BigInt(stakeMin) > 0n ? [`from ${formatMolt(BigInt(stakeMin))} of stake`] : []),
  ].join(', ');
}

/** The last bid of a run that began at `sinceMs`, if it came to one. */
export function lastBid(molt: Pick<Molt, 'bids'>, sinceMs: number): BidRecord | undefined {
  return molt.bids().findLast(({ atMs }) => atMs >= sinceMs);
}

/** What `molt run` and `molt gang` print when not enough providers took the job: for people, or one line for programs. */
export function explanationLines(record: BidRecord, json: boolean): string[] {
  const why = explainBid(record);
  return json ? [toJson({ type: 'explained', bid: record.bid, ...why })] : shortExplanation(why);
}

export function shortExplanation({ headline, changes }: Explanation): string[] {
  const shown = changes.slice(0, CHANGES_SHORT).map(({ text }) => `  ${harmless(text)}`);
  return [headline, ...shown, `  every offer and answer: ${moltCommand()} explain`];
}
