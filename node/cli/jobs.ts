/** `molt jobs`: what this home runs for others, and what others run for it. */
import type { Chain, ChainRecord, LeaseAccount, LeaseEnding } from '../../chain/index.ts';
import { parseAddress } from '../../protocol/address.ts';
import { formatMolt } from '../../protocol/units.ts';
import { type RunRecord, readRuns } from '../../sdk/index.ts';
import { type JobSummary, openOperator } from '../operator/index.ts';
import { type CommandContext, loadSettings, printResult } from './command.ts';
import { type Flags, openMarket } from './market.ts';
import { readNodeKey } from './node-key.ts';
import { type Terminal, fit, formatDuration, harmless, table } from './terminal.ts';

/** What a provider keeps of ended jobs is gone after hours; the chain remembers those of a buyer for longer. */
const BOUGHT_SINCE_MS = 7 * 86_400_000;

/** A job that this home pays for, as the chain knows it. */
export interface Bought {
  readonly lease: string;
  readonly standing: LeaseAccount['state'] | LeaseEnding['ending'];
  readonly provider: string;
  readonly atMs: number;
  readonly locked: bigint | null;
  readonly paid: bigint;
  /** Of a gang, or of replicas. */
  readonly run?: {
    readonly id: string;
    readonly kind: RunRecord['kind'];
    readonly size: number;
    readonly rank: number;
  };
}

export async function jobsCommand(context: CommandContext, flags: Flags): Promise<void> {
  const { settings } = await loadSettings(context, flags);
  const all = flags['all'] === true;
  const nowMs = context.env.clock.now();
  const value: Record<string, unknown> = {};
  const lines: string[] = [];
  // A home that was never set up is told so by the account that it lacks.
  if (settings.provider !== null || settings.budget === null) {
    const kept = await soldJobs(context);
    const shown = kept.filter((job) => all || job.phase !== 'closed');
    value['sold'] = shown;
    lines.push(...soldLines(context.terminal, shown, { kept: kept.length, nowMs }));
  }
  if (settings.budget !== null) {
    const { chain } = await openMarket(context, flags);
    await using _closing = chain;
    const leases = await boughtJobs(context, chain, { budget: settings.budget, all });
    const bought = inRuns(leases, await readRuns(context.home.buyer));
    value['bought'] = bought;
    if (lines.length > 0) lines.push('');
    lines.push(...boughtLines(context.terminal, bought, { nowMs, all }));
  }
  printResult(context, value, lines);
}

async function soldJobs(context: CommandContext): Promise<readonly JobSummary[]> {
  await using operator = await openOperator(context.env, context.home);
  return await operator.jobs();
}

function soldLines(
  terminal: Terminal,
  jobs: readonly JobSummary[],
  { kept, nowMs }: { readonly kept: number; readonly nowMs: number },
): string[] {
  if (jobs.length === 0) {
    return [kept === 0 ? 'no jobs' : `no jobs now; molt jobs --all lists ${kept === 1 ? 'the one' : kept} that ended`];
  }
  const rows = jobs.map((job) => [
    idOf(job.lease),
    job.phase === 'closed' ? job.standing : job.phase,
    formatDuration(Math.max(0, nowMs - job.sinceMs)),
    idOf(job.buyer),
    job.runtime,
    formatMolt(BigInt(job.billed)),
    job.claimed === null ? '' : formatMolt(BigInt(job.claimed)),
    whyOf(job),
  ]);
  const columns = [
    { title: 'job' },
    { title: 'phase' },
    { title: 'for', align: 'right' },
    { title: 'buyer' },
    { title: 'runtime' },
    { title: 'billed', align: 'right' },
    { title: 'claimed', align: 'right' },
    { title: 'outcome' },
  ] as const;
  return fitted(terminal, table(terminal, columns, rows));
}

/** The reason of an end, or what is special about a job that goes on. */
function whyOf({ failure, exit, cancelled, attempt }: JobSummary): string {
  if (failure !== null) return `${failure.code}: ${harmless(failure.message)}`;
  if (exit !== null) {
    const code = exit.exitCode === null ? '' : ` ${exit.exitCode}`;
    return exit.reason === 'exited' ? `exit${code}` : `${exit.reason}: ${harmless(exit.detail)}`;
  }
  if (cancelled) return 'the buyer asked to stop';
  return attempt > 1 ? `attempt ${attempt}` : '';
}

async function boughtJobs(
  context: CommandContext,
  chain: Chain,
  { budget, all }: { readonly budget: string; readonly all: boolean },
): Promise<Bought[]> {
  const { address } = await readNodeKey(context, 'buyer');
  const open = (await chain.leases({ delegate: address })).map((lease) => ({
    lease: lease.address,
    standing: lease.state,
    provider: lease.provider,
    atMs: lease.openedAtMs,
    locked: lease.amount,
    paid: lease.redeemed,
  }));
  if (!all) return open;
  const sinceMs = (await chain.chainTimeMs()) - BOUGHT_SINCE_MS;
  const ended: Bought[] = [];
  for await (const record of chain.history(parseAddress(budget), sinceMs)) ended.push(...endedIn(record, budget));
  return [...open, ...ended];
}

function endedIn({ endings, atMs }: ChainRecord, budget: string): Bought[] {
  return endings
    .filter((ending) => ending.budget === budget)
    .map(({ lease, ending, provider, paid }) => ({ lease, standing: ending, provider, atMs, locked: null, paid }));
}

/** Says of each lease to which run it belongs; those of one run follow each other by rank, first opened first. */
export function inRuns(leases: readonly Bought[], runs: readonly RunRecord[]): readonly Bought[] {
  const places = runs.flatMap(({ id, kind, size, seats }) =>
    seats.map(({ lease, rank }, order) => ({ lease, order, run: { id, kind, size, rank } })),
  );
  const known = new Map(places.map((place) => [place.lease, place]));
  const orderOf = ({ lease, run }: Bought): number => (run?.rank ?? 0) * places.length + (known.get(lease)?.order ?? 0);
  const told = leases.map((job): Bought => {
    const place = known.get(job.lease);
    return place === undefined ? job : { ...job, run: place.run };
  });
  const together = Map.groupBy(told, ({ lease, run }) => run?.id ?? lease);
  return [...together.values()].flatMap((jobs) => jobs.toSorted((a, b) => orderOf(a) - orderOf(b)));
}

/** One row for each job; a gang, or replicas, have one for all, and one below it for each lease. */
function boughtRows(jobs: readonly Bought[], nowMs: number): readonly string[][] {
  const ago = ({ atMs }: Bought): string => `${formatDuration(Math.max(0, nowMs - atMs))} ago`;
  const rowOf = (job: Bought, name: string): string[] => [
    name,
    words(job.standing),
    ago(job),
    idOf(job.provider),
    job.locked === null ? '' : formatMolt(job.locked),
    formatMolt(job.paid),
  ];
  return [...Map.groupBy(jobs, ({ lease, run }) => run?.id ?? lease).values()].flatMap((group) => {
    const [first] = group;
    const run = first?.run;
    if (first === undefined) return [];
    if (run === undefined) return [rowOf(first, idOf(first.lease))];
    const noun = run.kind === 'gang' ? 'slot' : 'replica';
    const locked = group.reduce((sum, job) => sum + (job.locked ?? 0n), 0n);
    const paid = group.reduce((sum, job) => sum + job.paid, 0n);
    const all = [`${run.size} ${noun}s`, standingOfAll(group), ago(first), '', locked === 0n ? '' : formatMolt(locked)];
    return [
      [...all, formatMolt(paid)],
      ...group.map((job) => rowOf(job, `  ${job.run?.rank ?? 0}  ${idOf(job.lease)}`)),
    ];
  });
}

/** "2 settled together, 1 expired". */
function standingOfAll(jobs: readonly Bought[]): string {
  const counts = Map.groupBy(jobs, ({ standing }) => standing);
  return [...counts].map(([standing, all]) => `${all.length} ${words(standing)}`).join(', ');
}

export function boughtLines(
  terminal: Terminal,
  jobs: readonly Bought[],
  { nowMs, all }: { readonly nowMs: number; readonly all: boolean },
): string[] {
  if (jobs.length === 0) {
    return [all ? 'nothing was bought in the last 7 days' : 'no open leases; molt jobs --all lists those of 7 days'];
  }
  const rows = boughtRows(jobs, nowMs);
  const columns = [
    { title: 'job' },
    { title: 'standing' },
    { title: 'opened or ended', align: 'right' },
    { title: 'provider' },
    { title: 'locked', align: 'right' },
    { title: 'paid', align: 'right' },
  ] as const;
  return fitted(terminal, table(terminal, columns, rows));
}

/** `settledAfterWindow` → "settled after window". */
function words(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}

/** So much of an address as a person can type: every command about a job takes it. */
function idOf(address: string): string {
  return `${address.slice(0, 8)}…`;
}

function fitted(terminal: Terminal, lines: readonly string[]): string[] {
  return lines.map((line) => (terminal.isScreen ? fit(line, terminal.columns) : line));
}
