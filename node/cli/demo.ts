/**
 * `molt demo`: the main job of Molt, once, on this machine, with nothing simulated but the distances.
 *
 * A local chain, three providers and a buyer run as processes of their own on loopback. The buyer runs a Python script
 * over a CSV file on the provider that ranks best, pays for the seconds it ran and keeps the proof. What the terminal
 * shows is what the buyer's process reports.
 */
import { copyFile, mkdir, mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

import { MoltError } from '../../protocol/errors.ts';
import { formatBytes, formatMolt } from '../../protocol/units.ts';
import { engineSocket } from '../config.ts';
import { createRuntimes } from '../runtime/index.ts';
import { type CommandContext, moltCommand, printResult, whenAborted } from './command.ts';
import { type Reckoning, readBalances, reckon } from './demo/balances.ts';
import { startMolt } from './demo/child.ts';
import { writeDataset } from './demo/dataset.ts';
import { type DemoNetwork, openDemoNetwork } from './demo/network.ts';
import type { JobLine, ResultLine } from './job-line.ts';
import { createJobView, receipt } from './job-view.ts';
import { type LiveList, createLiveList } from './live-list.ts';
import { type Terminal, formatDuration, table } from './terminal.ts';

const OUT = 'molt-demo-out';
const IMAGES = { wasm: 'python', container: 'python:3.12-alpine' } as const;
/** Time for a cancelled job to be settled: longer than its buyer waits for a provider on a busy machine. */
const CANCEL_GRACE_MS = 60_000;

export async function demoCommand(context: CommandContext, flags: Readonly<Record<string, unknown>>): Promise<void> {
  const { env, terminal, signal } = context;
  const started = env.clock.monotonic();
  const runtime = flags['container'] === undefined ? 'wasm' : 'container';
  const image = typeof flags['container'] === 'string' ? flags['container'] : IMAGES[runtime];
  const input = flags['input'] as string | undefined;
  if (input !== undefined) await assertFile(input);
  if (runtime === 'container') await assertEngine(context);
  using list = context.json ? silentList() : createLiveList(terminal, env.clock);
  list.expect(['chain up', 'accounts funded', 'providers up']);
  await using network = await openDemoNetwork(env, {
    runtime,
    begin: (title) => list.begin(title),
    tell: (title, detail) => list.end('done', title, detail),
  });
  signal.throwIfAborted();
  const before = await readBalances(network.chain, network.parties);
  const result = await buy(context, { network, list, image, input: input ?? (await defaultInput(network, list)) });
  const reckoning = reckon(before, await readBalances(network.chain, network.parties), BigInt(result.cost));
  list[Symbol.dispose]();
  const lines = [
    '',
    terminal.style('bold', 'receipt'),
    ...receipt(terminal, result).map((line) => `  ${line}`),
    '',
    terminal.style('bold', 'balances'),
    ...balanceLines(terminal, reckoning, BigInt(result.cost)).map((line) => `  ${line}`),
    '',
    `done in ${formatDuration(env.clock.monotonic() - started)}; check the proof: ${moltCommand()} verify ${result.proofFile}`,
  ];
  printResult(context, { ...result, balances: reckoning.rows, burned: reckoning.burned }, lines);
  if (flags['keep'] === true) await keep(context, network);
}

async function assertFile(path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isFile() !== true) {
    throw new MoltError('job/input-missing', `${path} is not a file that can be read; give a CSV file with --input`, {
      path,
    });
  }
}

async function assertEngine({ env, environment, signal }: CommandContext): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'molt-probe-'));
  const runtimes = createRuntimes(env, { directory, containerSocket: engineSocket(environment) });
  const container = runtimes.find((each) => each.kind === 'container');
  const capability = await container?.probe(signal);
  await Promise.all(runtimes.map((each) => each.close()));
  await rm(directory, { recursive: true, force: true });
  if (capability?.available === true) return;
  throw new MoltError(
    'runtime/unavailable',
    `--container needs a container engine, and none is usable here: ${capability?.reason ?? 'no socket'} Without the option the demo uses WebAssembly.`,
  );
}

interface Purchase {
  readonly network: DemoNetwork;
  readonly list: LiveList;
  readonly image: string;
  readonly input: string;
}

/** Runs `molt run` as a process of its own and shows what it reports. */
async function buy(context: CommandContext, purchase: Purchase): Promise<ResultLine> {
  const { env, terminal, signal } = context;
  const view = createJobView(terminal, purchase.list, env.clock);
  let result: ResultLine | undefined;
  const onLine = (line: Readonly<Record<string, unknown>>): void => {
    // The line was printed by the same version of this program.
    const known = line as unknown as JobLine;
    if (known.type === 'result') result = known;
    else if (context.json) terminal.out(JSON.stringify(line));
    else view.event(known);
  };
  const child = startMolt(env, { name: 'buyer', args: await runArguments(purchase), onLine });
  await Promise.race([child.exited, whenAborted(signal)]);
  if (signal.aborted) {
    purchase.list.print('stopping: the job is cancelled and settled for the time it ran');
    await child.stop(CANCEL_GRACE_MS);
    signal.throwIfAborted();
  }
  view.flush();
  if (result === undefined) throw child.failure();
  return result;
}

async function runArguments({ network, image, input }: Purchase): Promise<string[]> {
  const script = fileURLToPath(new URL('./demo/analyse.py', import.meta.url));
  await mkdir(OUT, { recursive: true });
  // Any name a file may have becomes one that a job's path may have.
  const data = basename(input)
    .replaceAll(/[^\w.-]/g, '_')
    .slice(-100);
  return [
    ['run', '--home', network.buyer.directory, '--image', image],
    ['--input', `${script}:analyse.py`, '--input', `${input}:${data}`],
    `--output report.json --output summary.txt --out ${OUT} --timeout 120 --max-price 2 --quotes 3 --`.split(' '),
    ['python3', '/in/analyse.py', `/in/${data}`, '/out'],
  ].flat();
}

async function defaultInput(network: DemoNetwork, list: LiveList): Promise<string> {
  list.begin('input made', 'sales.csv');
  const path = join(network.directory, 'sales.csv');
  await writeDataset(path);
  const { size } = await stat(path);
  await mkdir(OUT, { recursive: true });
  await copyFile(path, join(OUT, 'sales.csv'));
  list.end('done', 'input made', `${join(OUT, 'sales.csv')}, ${formatBytes(size)}`);
  return path;
}

function balanceLines(terminal: Terminal, reckoning: Reckoning, cost: bigint): string[] {
  const plain = (amount: bigint): string => formatMolt(amount).replace(' MOLT', '');
  const signed = (amount: bigint): string => (amount > 0n ? `+${plain(amount)}` : plain(amount));
  const rows = reckoning.rows.map(({ name, before, after }) => [
    name,
    plain(before),
    plain(after),
    after === before ? '' : signed(after - before),
  ]);
  rows.push(['burned', '', '', signed(reckoning.burned)]);
  const columns = [
    { title: 'MOLT' },
    { title: 'before', align: 'right' },
    { title: 'after', align: 'right' },
    { title: 'change', align: 'right' },
  ] as const;
  const { payout, stakeFee, burned } = reckoning;
  return [
    ...table(terminal, columns, rows),
    `${terminal.style('green', '✔')} adds up to the base unit: ${plain(cost)} paid =`,
    `  ${plain(payout)} to the provider + ${plain(stakeFee)} to its stake + ${plain(burned)} burned`,
  ];
}

async function keep({ terminal, signal }: CommandContext, network: DemoNetwork): Promise<void> {
  const molt = moltCommand();
  const home = `--home ${relative('.', network.buyer.directory)}`;
  for (const line of [
    '',
    `the network keeps running: chain at ${network.rpcUrl}, providers at`,
    ...network.addresses.map((address) => `  ${address}`),
    'in another terminal, in this directory:',
    `  ${molt} offers ${home}`,
    `  ${molt} run ${home} --image python -- python -c 'print(6 * 7)'`,
    `  ${molt} wallet ${home}`,
    'Ctrl-C here stops everything and removes its files',
  ]) {
    terminal.err(line);
  }
  await whenAborted(signal);
}

function silentList(): LiveList {
  const nothing = (): void => undefined;
  return { expect: nothing, begin: nothing, end: nothing, print: nothing, [Symbol.dispose]: nothing };
}
