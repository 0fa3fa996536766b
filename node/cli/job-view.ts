/**
 * The steps of one job on the live list: each event line is said in words, once.
 *
 * `molt run` feeds it the events of its own SDK call, the demo those of a buyer in another process.
 */
import type { Clock } from '../../protocol/env.ts';
import { formatBytes, formatMolt } from '../../protocol/units.ts';
import type { EventLine, ResultLine } from './job-line.ts';
import type { LiveList } from './live-list.ts';
import { type Terminal, fit, formatDuration, harmless, plural, short, table } from './terminal.ts';

export interface JobView {
  event(line: EventLine): void;
  /** Prints what a cut-off last log line still holds. Call once, before the receipt. */
  flush(): void;
}

const STEPS = [
  'mesh joined',
  'offers seen',
  'bid sent',
  'quotes',
  'accepted',
  'lease opened',
  'prepared',
  'running',
  'proof verified',
  'settled',
] as const;

interface State {
  readonly terminal: Terminal;
  readonly list: LiveList;
  readonly clock: Clock;
  /** Since when the provider fetches and starts; undefined once the job runs. */
  preparingSinceMs: number | undefined;
  /** Unfinished last line of each stream. */
  readonly partial: { stdout: string; stderr: string };
  quotes: number;
  firstQuoteMs: number;
  declined: number;
  locked: bigint;
  /** The weightiest reason for the best quote. */
  best: string;
  ran: string;
}

export function createJobView(terminal: Terminal, list: LiveList, clock: Clock): JobView {
  const state: State = {
    terminal,
    list,
    clock,
    preparingSinceMs: undefined,
    partial: { stdout: '', stderr: '' },
    quotes: 0,
    firstQuoteMs: 0,
    declined: 0,
    locked: 0n,
    best: '',
    ran: '',
  };
  list.expect(STEPS);
  list.begin('mesh joined', 'looking for peers');
  return {
    event: (line) => show(state, line),
    flush: () => flushLogs(state),
  };
}

function show(state: State, line: EventLine): void {
  switch (line.type) {
    case 'mesh-joined':
      state.list.end('done', 'mesh joined', plural(line.peers, 'peer'));
      state.list.begin('offers seen');
      return;
    case 'offers':
      state.list.end(line.count > 0 ? 'done' : 'warning', 'offers seen', plural(line.count, 'offer'));
      return;
    case 'bid':
    case 'quote':
    case 'declined':
    case 'ranked':
    case 'accepted':
      showMarket(state, line);
      return;
    case 'lease-opened':
      state.locked = BigInt(line.locked);
      state.list.end(
        'done',
        'lease opened',
        `${line.lease}, ${formatMolt(state.locked)} locked, after ${formatDuration(line.afterMs)}`,
        [transaction(state, line.transaction)],
      );
      state.preparingSinceMs = state.clock.monotonic();
      state.list.begin('prepared', 'waiting for the provider');
      return;
    case 'phase':
    case 'log':
    case 'usage':
    case 'ready':
    case 'outputs':
      showRun(state, line);
      return;
    case 'provider-silent':
      state.list.end('warning', 'provider silent', `${short(line.node)}: ${harmless(line.reason)}; trying to reach it`);
      return;
    case 'provider-back':
      state.list.end('done', 'provider back', `${short(line.node)}, stream taken up at message ${line.fromSequence}`);
      return;
    case 'provider-failed':
      showFailure(state, line);
      return;
    case 'proof-verified':
    case 'settled':
    case 'lease-disputed':
    case 'dispute-resolved':
    case 'lease-expired':
      showEnd(state, line);
      return;
    case 'dispute-progress':
      state.list.begin('dispute', sayProgress(line));
  }
}

type Of<Type extends EventLine['type']> = Extract<EventLine, { type: Type }>;

function showMarket(state: State, line: Of<'bid' | 'quote' | 'declined' | 'ranked' | 'accepted'>): void {
  const { list, terminal } = state;
  switch (line.type) {
    case 'bid':
      state.quotes = 0;
      state.declined = 0;
      list.end(
        'done',
        'bid sent',
        `${short(line.bid)}, ceiling ${perSecond(line.pricePerSecondMax)}${line.attempt > 1 ? `, attempt ${line.attempt}` : ''}`,
      );
      list.begin('quotes', 'none yet');
      return;
    case 'quote':
      state.quotes++;
      if (state.quotes === 1) state.firstQuoteMs = line.afterMs;
      list.begin('quotes', `${state.quotes} so far, latest ${perSecond(line.pricePerSecond)}`);
      return;
    case 'declined':
      state.declined++;
      list.print(terminal.style('dim', `  ${short(line.node)} declines: ${harmless(line.reason)} (${line.code})`));
      return;
    case 'ranked': {
      state.best = harmless(byWeight(line.quotes[0]?.reasons ?? [])[0]?.text ?? '');
      const first = state.quotes > 0 ? `, first after ${formatDuration(state.firstQuoteMs)}` : '';
      list.end('done', 'quotes', `${line.quotes.length} ranked${first}`, quoteTable(terminal, line.quotes));
      return;
    }
    case 'accepted':
      list.end('done', 'accepted', `${line.provider}${state.best === '' ? '' : `: ${state.best}`}`);
      list.begin('lease opened', 'both sign, the chain confirms');
  }
}

function quoteTable(terminal: Terminal, quotes: Of<'ranked'>['quotes']): string[] {
  const rows = quotes.map((quote) => [
    short(quote.provider),
    formatMolt(BigInt(quote.pricePerSecond)).replace(' MOLT', ''),
    quote.score.toFixed(3),
    byWeight(quote.reasons)
      .filter((reason) => reason.weight * reason.value >= 0.005)
      .map((reason) => `${harmless(reason.what)} ${(reason.weight * reason.value).toFixed(2)}`)
      .join(' + '),
  ]);
  const columns = [
    { title: 'provider' },
    { title: 'MOLT/s', align: 'right' },
    { title: 'score', align: 'right' },
    { title: 'made of' },
  ] as const;
  return table(terminal, columns, rows).map((line) =>
    terminal.isScreen ? fit(`    ${line}`, terminal.columns) : `    ${line}`,
  );
}

function byWeight(reasons: Of<'ranked'>['quotes'][number]['reasons']): Of<'ranked'>['quotes'][number]['reasons'] {
  // The lot weighs nothing and decided all the same.
  const first = (what: string): number => Number(what === 'chance');
  return [...reasons].sort((a, b) => first(b.what) - first(a.what) || b.weight * b.value - a.weight * a.value);
}

function showRun(state: State, line: Of<'phase' | 'log' | 'usage' | 'ready' | 'outputs'>): void {
  const { list, terminal } = state;
  switch (line.type) {
    case 'phase': {
      const bytes = line.bytesTotal > 0 ? ` ${formatBytes(line.bytesDone)} of ${formatBytes(line.bytesTotal)}` : '';
      const detail = `${line.phase}${bytes} ${harmless(line.detail)}`.trimEnd();
      if (line.phase === 'running' && state.preparingSinceMs !== undefined) {
        const took = formatDuration(state.clock.monotonic() - state.preparingSinceMs);
        list.end('done', 'prepared', `inputs, image and sandbox are there after ${took}, not billed`);
        state.preparingSinceMs = undefined;
      }
      list.begin(state.preparingSinceMs === undefined ? 'running' : 'prepared', detail);
      return;
    }
    case 'log': {
      const lines = (state.partial[line.stream] + line.text).split(/\r\n|\n|\r(?!$)/);
      state.partial[line.stream] = (lines.pop() ?? '').slice(-4_096);
      for (const text of lines) printLog(state, line.stream, text);
      return;
    }
    case 'usage':
      state.ran = `cpu ${formatDuration(line.cpuMs)}, memory ${formatBytes(line.memoryBytes)}`;
      list.begin('running', `${formatDuration(line.elapsedMs)} in the sandbox, ${state.ran}`);
      return;
    case 'ready':
      flushLogs(state);
      list.print(
        line.ready
          ? `  ${harmless(line.service)} is ready`
          : `  ${harmless(line.service)} is not ready: ${harmless(line.reason)}`,
      );
      return;
    case 'outputs':
      flushLogs(state);
      if (line.count > 0)
        list.print(terminal.style('dim', `  ${plural(line.count, 'output')} fetched, ${formatBytes(line.sizeBytes)}`));
  }
}

function showFailure(state: State, line: Of<'provider-failed'>): void {
  flushLogs(state);
  const { list } = state;
  const next = line.retrying ? '; trying the next one' : '';
  list.end('failed', 'provider failed', `${short(line.node)}: ${harmless(line.reason)} (${line.code})${next}`);
  if (line.retrying) list.expect(STEPS.slice(STEPS.indexOf('bid sent')));
}

/** How far a dispute is. */
export function sayProgress({
  drawn,
  heard,
  committed,
  revealed,
}: Pick<Of<'dispute-progress'>, 'drawn' | 'heard' | 'committed' | 'revealed'>): string {
  if (drawn === 0) return 'verifiers are drawn next';
  if (revealed > 0) return `${revealed} of ${drawn} votes revealed`;
  return `${heard} of ${drawn} verifiers have your evidence, ${committed} have judged`;
}

/** How verifiers found, by the name of the lease's end on chain. */
export const DISPUTE_ENDINGS: Readonly<Record<string, string>> = {
  resolvedForBuyer: 'found for you',
  resolvedForProvider: 'found for the provider',
  resolvedNeutral: 'no two verifiers agreed',
};

function showEnd(
  state: State,
  line: Of<'proof-verified' | 'settled' | 'lease-disputed' | 'dispute-resolved' | 'lease-expired'>,
): void {
  const { list } = state;
  switch (line.type) {
    case 'proof-verified':
      flushLogs(state);
      list.end('done', 'running', `${formatDuration(line.billedMs)} billed${state.ran === '' ? '' : `, ${state.ran}`}`);
      list.end('done', 'proof verified', `claims ${formatMolt(BigInt(line.cost))}`, [
        state.terminal.style('dim', `    sha256 ${line.proofDigest}`),
      ]);
      list.begin('settled', 'both sign, the chain confirms');
      return;
    case 'settled':
      list.end('done', 'settled', `${formatMolt(BigInt(line.paid))} paid, ${formatMolt(BigInt(line.refunded))} back`, [
        transaction(state, line.transaction),
      ]);
      return;
    case 'lease-disputed':
      list.end('warning', 'claim disputed', `${short(line.lease)}: ${formatMolt(BigInt(line.claimed))} were claimed`, [
        transaction(state, line.transaction),
      ]);
      return;
    case 'dispute-resolved':
      list.end(
        'done',
        'dispute',
        `${short(line.lease)}: ${DISPUTE_ENDINGS[line.ending] ?? line.ending}, ${formatMolt(BigInt(line.paid))} paid, ${formatMolt(BigInt(line.slashed))} slashed`,
        [transaction(state, line.transaction)],
      );
      return;
    case 'lease-expired':
      list.end(
        'done',
        'lease expired',
        `${short(line.lease)}: ${formatMolt(BigInt(line.refunded))} back in the budget`,
        [transaction(state, line.transaction)],
      );
  }
}

function transaction({ terminal }: State, signature: string): string {
  return terminal.style('dim', `    transaction ${signature}`);
}

function flushLogs(state: State): void {
  for (const stream of ['stdout', 'stderr'] as const) {
    if (state.partial[stream] !== '') printLog(state, stream, state.partial[stream]);
    state.partial[stream] = '';
  }
}

function printLog(state: State, stream: 'stdout' | 'stderr', text: string): void {
  const bar = state.terminal.style(stream === 'stderr' ? 'yellow' : 'dim', '│');
  state.list.print(`  ${bar} ${harmless(text)}`.trimEnd());
}

function perSecond(amount: string): string {
  return `${formatMolt(BigInt(amount))}/s`;
}

/** What one replica locked says nothing about the cost of all. */
function costOf({ cost, locked, replicas }: ResultLine): string {
  const all = formatMolt(BigInt(cost));
  return replicas === undefined ? `${all} of ${formatMolt(BigInt(locked))} locked` : `${all} for all of them`;
}

/** What became of each replica, and of those that it replaced. */
export function replicaRows(replicas: NonNullable<ResultLine['replicas']>): [string, string][] {
  return replicas.flatMap(({ rank, outcome, provider = 'nobody', reason = '', earlier = [], resultDigest }) => {
    const found = resultDigest === undefined || outcome === 'agreed' ? '' : ` came to ${short(resultDigest)}`;
    const why = reason === '' || outcome === 'undecided' ? '' : `, ${harmless(reason)}`;
    return [
      [`replica ${rank}`, `${outcome}: ${provider}${found}${why}`],
      ...earlier.map((one): [string, string] => ['', `before: ${one.provider}, ${harmless(one.reason)}`]),
    ];
  });
}

/** The receipt of a finished job, as lines. */
export function receipt(terminal: Terminal, result: ResultLine): string[] {
  const rows: [string, string][] = [
    ['ran on', `node ${result.node}`],
    ['', `provider ${result.provider}`],
    ['exit', `${result.exitCode ?? 'none'} (${result.reason})`],
    ['billed', formatDuration(result.billedMs)],
    ['cost', costOf(result)],
    ['network fees', `${result.lamports} lamports`],
    ...(result.replicas === undefined ? [['providers tried', String(result.attempts)] as [string, string]] : []),
    ...replicaRows(result.replicas ?? []),
    ...result.outputs.flatMap((output): [string, string][] => [
      ['output', `${output.path ?? output.name} (${formatBytes(output.sizeBytes)})`],
      ['', `sha256 ${output.sha256}`],
    ]),
    ['proof', result.proofFile],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, text]) => `${terminal.style('dim', name.padEnd(width))}  ${text}`);
}
