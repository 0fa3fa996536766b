/** `molt up`: the provider in the foreground, one line per thing that happens. */
import { pino } from 'pino';

import { type Env, type LogLevel, type Logger, systemEnv } from '../../protocol/env.ts';
import { MoltError } from '../../protocol/errors.ts';
import { formatBytes, formatMolt } from '../../protocol/units.ts';
import { nodeConfig } from '../node-config.ts';
import type { NodeEvent } from '../events.ts';
import { createHome, lockHome } from '../home.ts';
import { startNode } from '../node.ts';
import { type CommandContext, loadSettings, untilStopped } from './command.ts';
import { toJson } from './job-line.ts';
import { readNodeKey } from './node-key.ts';
import { type Terminal, harmless, short } from './terminal.ts';

const LEVELS = ['debug', 'info', 'warn', 'error'] as const satisfies readonly LogLevel[];

export async function upCommand(context: CommandContext, flags: Readonly<Record<string, unknown>>): Promise<void> {
  const level = LEVELS.find((each) => each === flags['logLevel']);
  if (level === undefined) {
    throw new MoltError('config/usage', `--log-level is "${String(flags['logLevel'])}", expected ${LEVELS.join(', ')}`);
  }
  const { settings } = await loadSettings(context, flags);
  await createHome(context.home);
  const key = await readNodeKey(context, 'provider');
  const config = await nodeConfig(context.home.directory, key, settings);
  await using _lock = await lockHome(context.home);

  const logger = context.json ? jsonLogger(level, context.terminal) : plainLogger(level, context);
  const env: Env = systemEnv(logger);
  const node = await startNode(env, config, (event) => tellEvent(context, logger, event));
  if (!context.json) context.terminal.out(sellingLine(context.terminal, config));
  await untilStopped(context, flags['untilStdinEnds'] === true);
  if (!context.json) context.terminal.out('stopping: offers are withdrawn, running jobs are kept for the next start');
  await node.close();
}

function sellingLine(terminal: Terminal, config: Awaited<ReturnType<typeof nodeConfig>>): string {
  const {
    capacity,
    policy: { prices },
  } = config;
  const perHour = (amount: bigint): string => `${formatMolt(amount * 3_600n)}/h`;
  return terminal.style(
    'dim',
    `selling ${capacity.cpuMillis / 1_000} cores, ${formatBytes(capacity.memoryBytes)} memory, ${formatBytes(capacity.diskBytes)} disk; one core with 1 GiB costs ${perHour(prices.base + prices.perCpu + prices.perGib)}; Ctrl-C stops`,
  );
}

function tellEvent(context: CommandContext, logger: Logger, event: NodeEvent): void {
  if (context.json) {
    const { type, ...fields } = event;
    logger.log(levelOf(event), type, { type, ...fields });
    return;
  }
  logger.log(levelOf(event), inWords(event));
}

function levelOf(event: NodeEvent): LogLevel {
  switch (event.type) {
    case 'trouble':
    case 'job-failed':
      return 'warn';
    case 'offer-published':
    case 'offer-refused':
    case 'bid-refused':
    case 'bid-declined':
    case 'hold-released':
      return 'debug';
    default:
      return 'info';
  }
}

/** One event as a line for people. */
export function inWords(event: NodeEvent): string {
  switch (event.type) {
    case 'listening':
      return `listening as ${event.node} on ${event.addresses.join(', ')}`;
    case 'reachability':
      return reachInWords(event);
    case 'machine':
      return `on ${event.cpu}, ${event.cores} cores, ${formatBytes(event.memoryBytes)} memory, ${formatBytes(event.diskFreeBytes)} disk free, ${event.system}`;
    case 'runtime':
      return `runtime ${event.runtime} is ${event.available ? 'offered' : `not offered: ${event.reason}`}`;
    case 'gpu':
      return `GPU ${event.id}, ${event.model} with ${formatBytes(event.memoryBytes)}, is ${event.offered ? 'offered' : `not offered: ${event.reason}`}`;
    case 'gpu-health':
      return event.well ? `GPU ${event.id} is well again` : `GPU ${event.id} goes to nobody: ${event.reason}`;
    case 'selling':
      return `selling as provider ${event.provider}: ${event.cpuMillis / 1_000} cores, ${formatBytes(event.memoryBytes)} memory, speed ${event.speed}`;
    case 'draining':
      return event.draining
        ? `draining: ${event.unfinished === 1 ? '1 job' : `${event.unfinished} jobs`} left to finish, nothing new is taken; molt drain --undo ends it`
        : 'selling again: no longer draining';
    case 'offer-published':
      return event.revoked ? 'offer withdrawn' : `offer ${event.sequence} published`;
    case 'offer-refused':
      return `offer refused: ${event.reason} (${event.code})`;
    case 'bid-refused':
      return `bid refused: ${event.reason} (${event.code})`;
    case 'bid-declined':
      return `bid ${short(event.bid)} declined: ${event.reason} (${event.code})`;
    case 'quoted':
      return `quoted ${formatMolt(event.pricePerSecond)}/s for bid ${short(event.bid)}`;
    case 'hold-released':
      return `capacity held for quote ${short(event.quote)} is free again: ${event.reason}`;
    case 'lease-accepted':
      return `lease ${event.lease} opened by ${event.buyer}`;
    case 'request-refused':
      return `request of ${event.from} refused: ${event.reason} (${event.code})`;
    case 'seat-drawn':
    case 'evidence-taken':
    case 'dispute-judged':
    case 'vote-committed':
    case 'vote-revealed':
    case 'dispute-over':
      return disputeInWords(event);
    default:
      return jobInWords(event);
  }
}

type DisputeEvent = Extract<
  NodeEvent,
  {
    type: 'seat-drawn' | 'evidence-taken' | 'dispute-judged' | 'vote-committed' | 'vote-revealed' | 'dispute-over';
  }
>;

function disputeInWords(event: DisputeEvent): string {
  const about = `dispute about lease ${short(event.lease)}`;
  switch (event.type) {
    case 'seat-drawn':
      return `${about}: this node is drawn to judge it by ${new Date(event.voteUntilMs).toISOString()}`;
    case 'evidence-taken':
      return `${about}: evidence of the ${event.from} is here${event.content ? ', with module and inputs' : ''}`;
    case 'dispute-judged':
      return `${about}: judged for the ${event.side}, ${event.ground}: ${event.reason}`;
    case 'vote-committed':
      return `${about}: vote committed, transaction ${event.transaction}`;
    case 'vote-revealed':
      return `${about}: vote for the ${event.side} revealed, transaction ${event.transaction}`;
    default:
      return `${about}: ended as ${event.ending}${event.side === undefined ? '' : `, our vote was for the ${event.side}`}`;
  }
}

function reachInWords({ way, addresses }: NodeEvent & { type: 'reachability' }): string {
  if (way === 'direct') return `the world reaches this node at ${addresses.join(', ')}`;
  if (way === 'local') return 'only the local network reaches this node; molt doctor tells what to do';
  const relays = addresses.length === 1 ? '1 relay' : `${addresses.length} relays`;
  return `behind NAT: the world reaches this node through ${relays}`;
}

type JobEvent = Extract<
  NodeEvent,
  {
    type:
      | 'job-phase'
      | 'job-failed'
      | 'job-recovered'
      | 'proof'
      | 'claimed'
      | 'refunded'
      | 'settled-alone'
      | 'lease-closed'
      | 'trouble';
  }
>;

function jobInWords(event: JobEvent): string {
  switch (event.type) {
    case 'job-phase':
      return `job ${short(event.lease)} ${event.phase}${event.attempt > 1 ? `, attempt ${event.attempt}` : ''}`;
    case 'job-failed':
      return `job ${short(event.lease)} failed: ${event.reason} (${event.code})`;
    case 'job-recovered':
      return `job ${short(event.lease)} found again after the restart in phase ${event.phase}${event.adopted ? ', still running' : ''}`;
    case 'proof':
      return `job ${short(event.lease)} proven, claims ${formatMolt(BigInt(event.claimed))}`;
    case 'claimed':
      return `job ${short(event.lease)}: claim submitted to the chain, transaction ${event.transaction}`;
    case 'refunded':
      return `job ${short(event.lease)}: buyer refunded, transaction ${event.transaction}`;
    case 'settled-alone':
      return `job ${short(event.lease)}: settled without the buyer, transaction ${event.transaction}`;
    case 'lease-closed':
      return `lease ${short(event.lease)} closed`;
    default:
      return `trouble with ${event.what}: ${event.reason} (${event.code})`;
  }
}

/** pino lines on standard output: {"level":"info","time":…,"text":…} and the fields. */
function jsonLogger(level: LogLevel, terminal: Terminal): Logger {
  const root = pino(
    {
      level,
      base: null,
      messageKey: 'text',
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    { write: (line: string) => terminal.out(line.trimEnd()) },
  );
  const wrap = (inner: typeof root): Logger => ({
    log: (at, text, fields = {}) => inner[at](JSON.parse(toJson(fields)), text),
    child: (fields) => wrap(inner.child(JSON.parse(toJson(fields)) as object)),
  });
  return wrap(root);
}

function plainLogger(least: LogLevel, context: CommandContext, bound: object = {}): Logger {
  const { terminal, env } = context;
  return {
    log: (level, text, fields = {}) => {
      if (LEVELS.indexOf(level) < LEVELS.indexOf(least)) return;
      const time = new Date(env.clock.now()).toISOString().slice(11, 19);
      const mark = level === 'warn' || level === 'error' ? `${terminal.style('yellow', level)} ` : '';
      const rest = Object.entries({ ...bound, ...fields }).map(
        ([name, value]) => `${name}=${typeof value === 'string' ? value : toJson(value)}`,
      );
      terminal.out(`${terminal.style('dim', time)} ${mark}${harmless([text, ...rest].join(' '))}`);
    },
    child: (fields) => plainLogger(least, context, { ...bound, ...fields }),
  };
}
