/**
 * `molt logs`: what the program of a job printed, on the provider's side from its node or journal, on the buyer's side
 * from the provider.
 *
 * Standard output of the job goes to standard output, its standard error to standard error, in whole lines.
 */
import { StringDecoder } from 'node:string_decoder';

import type { Address } from '../../protocol/address.ts';
import { parseAddress } from '../../protocol/address.ts';
import { MoltError, hasCode } from '../../protocol/errors.ts';
import type { LogRecord } from '../../protocol/job-log.ts';
import { lockHome } from '../home.ts';
import { openOperator } from '../operator/index.ts';
import { connectBuyer, readBuyer } from './buyer-client.ts';
import { type CommandContext, loadSettings } from './command.ts';
import { toJson } from './job-line.ts';
import { type Flags, openMarket } from './market.ts';
import { logsThroughRun } from './run-door.ts';
import { type Terminal, harmless } from './terminal.ts';

/** How many jobs an ambiguous prefix names at most. */
const CANDIDATES_SHOWN = 5;
/** A line without an end is printed when it is this long, in characters. */
const LINE_MAX = 65_536;
/** How long a process that read for us may take to end, and how often that is looked at. */
const KEY_WAIT_MS = 10_000;
const KEY_LOOK_MS = 100;

interface Wanted {
  readonly from: number;
  readonly follow: boolean;
  readonly streams: ReadonlySet<LogRecord['stream']>;
  readonly timestamps: boolean;
}

export async function logsCommand(context: CommandContext, flags: Flags, [word]: readonly string[]): Promise<void> {
  const wanted = parseWanted(flags);
  if (word === undefined)
    throw new MoltError('config/usage', 'name a job: molt jobs lists them, a unique beginning is enough');
  const { settings } = await loadSettings(context, flags);
  const printer = createLogPrinter(context, wanted);
  try {
    const sells = settings.provider !== null || settings.budget === null;
    if (sells && (await printSold(context, { word, wanted, printer, isLast: settings.budget === null }))) return;
    await printBought(context, flags, { word, wanted, printer });
  } finally {
    printer.flush();
  }
}

interface Printing {
  readonly word: string;
  readonly wanted: Wanted;
  readonly printer: LogPrinter;
}

/** False when this home sold no such job, and may have bought it. */
async function printSold(context: CommandContext, given: Printing & { readonly isLast: boolean }): Promise<boolean> {
  const { word, wanted, printer } = given;
  await using operator = await openOperator(context.env, context.home);
  const known = (await operator.jobs()).map((job) => job.lease);
  const lease = findJob(known, word);
  if (lease === undefined) {
    if (!given.isLast) return false;
    throw new MoltError('job/unknown', `no job here begins with "${word}"; molt jobs --all lists them`, { job: word });
  }
  for await (const record of operator.logs(lease, wanted, context.signal)) printer.print(lease, record);
  if (wanted.follow && (await operator.status()) === undefined && !context.json) {
    context.terminal.err('the node does not run: this is what its journal holds');
  }
  return true;
}

/**
 * Through the process of this home that is on the mesh, where there is one, and by itself else. When that process ends in
 * between, what is missing is read by itself as soon as the key is free.
 */
async function printBought(context: CommandContext, flags: Flags, { word, wanted, printer }: Printing): Promise<void> {
  const { home, signal } = context;
  const buyer = await readBuyer(context, flags);
  const { budget, key } = buyer;
  const lease = await findBought(context, flags, { word, budget, key: key.address });
  const { follow } = wanted;
  let { from } = wanted;
  const print = async (records: AsyncIterable<LogRecord>): Promise<void> => {
    for await (const record of records) {
      printer.print(lease, record);
      from = record.sequence + 1;
    }
  };
  let patienceMs = 0;
  try {
    const records = await logsThroughRun(home.runDoor, { lease, from, follow }, signal);
    if (records !== undefined) return await print(records);
  } catch (error) {
    if (!hasCode(error, 'mesh/closed')) throw error;
    patienceMs = KEY_WAIT_MS;
  }
  await using _lock = await lockSoon(context, patienceMs);
  await using molt = await connectBuyer(context, buyer);
  await print(molt.logs(lease, { from, follow, signal }));
}

/** Two processes with one node key would take each other's messages: the one that is ending is waited for. */
async function lockSoon({ env, home, signal }: CommandContext, patienceMs: number): Promise<AsyncDisposable> {
  const untilMs = env.clock.monotonic() + patienceMs;
  for (;;) {
    try {
      return await lockHome(home);
    } catch (error) {
      if (!hasCode(error, 'node/already-running') || env.clock.monotonic() >= untilMs) throw error;
      await env.clock.sleep(KEY_LOOK_MS, signal);
    }
  }
}

/** A whole address is taken as it is; a beginning is looked for among open leases, then in the budget's last weeks. */
export async function findBought(
  context: CommandContext,
  flags: Flags,
  { word, budget, key }: { readonly word: string; readonly budget: Address; readonly key: Address },
): Promise<Address> {
  const whole = wholeAddress(word);
  if (whole !== undefined) return whole;
  const { chain } = await openMarket(context, flags);
  await using _closing = chain;
  const open = (await chain.leases({ delegate: key })).map((lease) => lease.address);
  const found = findJob(open, word);
  if (found !== undefined) return found;
  const sinceMs = (await chain.chainTimeMs()) - 7 * 86_400_000;
  const ended: Address[] = [];
  for await (const { endings } of chain.history(budget, sinceMs)) {
    ended.push(...endings.filter((ending) => ending.budget === budget).map((ending) => ending.lease));
  }
  const past = findJob(ended, word);
  if (past !== undefined) return past;
  throw new MoltError('job/unknown', `no job of this budget begins with "${word}"; molt jobs --all lists them`, {
    job: word,
  });
}

function wholeAddress(word: string): Address | undefined {
  try {
    return parseAddress(word);
  } catch {
    return undefined;
  }
}

/** The one job whose lease begins so. Throws `config/usage` when there are several. */
export function findJob(leases: readonly Address[], word: string): Address | undefined {
  const start = word.replace(/…$/, '');
  const found = [...new Set(leases)].filter((lease) => start !== '' && lease.startsWith(start));
  if (found.length <= 1) return found[0];
  const some = found.slice(0, CANDIDATES_SHOWN).join(', ');
  throw new MoltError('config/usage', `"${word}" begins ${found.length} jobs, among them ${some}: write more of it`);
}

function parseWanted(flags: Flags): Wanted {
  const text = (flags['from'] as string | undefined) ?? '0';
  if (!/^\d{1,15}$/.test(text)) {
    throw new MoltError('config/usage', `--from is "${text}", expected a sequence number: --timestamps shows them`);
  }
  const [stdout, stderr] = [flags['stdout'] === true, flags['stderr'] === true];
  const streams = new Set<LogRecord['stream']>();
  if (stdout || !stderr) streams.add('stdout');
  if (stderr || !stdout) streams.add('stderr');
  return { from: Number(text), follow: flags['follow'] === true, streams, timestamps: flags['timestamps'] === true };
}

export interface LogPrinter {
  print(lease: Address, record: LogRecord): void;
  /** Prints lines that have no end yet. */
  flush(): void;
}

interface Line {
  text: string;
  /** Of the piece that the line began in. */
  first: LogRecord | undefined;
  readonly decoder: StringDecoder;
}

/** Pieces become whole lines, each stream by itself; a new attempt begins a new line. */
export function createLogPrinter(
  { json, terminal }: { readonly json: boolean; readonly terminal: Terminal },
  wanted: Pick<Wanted, 'streams' | 'timestamps'>,
): LogPrinter {
  const newLine = (): Line => ({ text: '', first: undefined, decoder: new StringDecoder('utf8') });
  const lines = { stdout: newLine(), stderr: newLine() };
  const say = (stream: LogRecord['stream'], text: string, first: LogRecord | undefined): void => {
    const shown = terminal.isScreen ? harmless(text) : text;
    const place = first === undefined ? '' : `${new Date(first.atMs).toISOString()} ${first.sequence} ${stream} `;
    const line = wanted.timestamps ? `${terminal.style('dim', place)}${shown}` : shown;
    if (stream === 'stdout') terminal.out(line);
    else terminal.err(line);
  };
  const flush = (stream: LogRecord['stream']): void => {
    const line = lines[stream];
    if (line.text !== '') say(stream, line.text, line.first);
    line.text = '';
    line.first = undefined;
  };
  return {
    print: (lease, record) => {
      const { stream, bytes, ...place } = record;
      if (!wanted.streams.has(stream)) return;
      const line = lines[stream];
      if (line.first !== undefined && line.first.attempt !== record.attempt) flush(stream);
      const text = line.decoder.write(Buffer.from(bytes));
      if (json) return terminal.out(toJson({ lease, ...place, stream, text }));
      line.first ??= record;
      const parts = (line.text + text).split('\n');
      line.text = parts.pop() ?? '';
      for (const part of parts) {
        say(stream, part.replace(/\r$/, ''), line.first);
        line.first = record;
      }
      if (line.text === '') line.first = undefined;
      if (line.text.length > LINE_MAX) flush(stream);
      return undefined;
    },
    flush: () => {
      flush('stdout');
      flush('stderr');
    },
  };
}
