/** `molt run`: buys one job, shows it happen, and leaves outputs, proof and specification in a folder. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import type { Address } from '../../protocol/address.ts';
import { MoltError } from '../../protocol/errors.ts';
import { parseJobSpec } from '../../protocol/job-spec.ts';
import { formatMolt } from '../../protocol/units.ts';
import { lockHome } from '../home.ts';
import {
  type AutonomyName,
  type BidRecord,
  type Job,
  type Molt,
  type ReplicaOutcome,
  ReplicasFailedError,
  type RunOptions,
} from '../../sdk/index.ts';
import { connectBuyer, readBuyer } from './buyer-client.ts';
import { type CommandContext, moltCommand } from './command.ts';
import { explanationLines, lastBid } from './explain.ts';
import type { PortPair } from './forward-flags.ts';
import { printForward } from './forward.ts';
import { createGangPrinter } from './gang-view.ts';
import { createLineWriter, replicaLines, resultLine, toJson } from './job-line.ts';
import { type Flags, buildSpec, parseMaxPrice, parseReplicas, parseRequest, parseWishes } from './job-request.ts';
import { createJobView, receipt, replicaRows } from './job-view.ts';
import { createLiveList } from './live-list.ts';
import { type ForwardLine, openRunDoor } from './run-door.ts';
import { harmless } from './terminal.ts';

export async function runCommand(context: CommandContext, flags: Flags, words: readonly string[]): Promise<void> {
  const { env, home, signal } = context;
  const request = await parseRequest(flags, words);
  // The job's --gpus is not the provider's setting of that name.
  const { gpus: _gpus, ...ofSettings } = flags;
  const buyer = await readBuyer(context, ofSettings);
  const wishes = parseWishes(flags);
  const replicas = parseReplicas(flags);
  const maxPrice = parseMaxPrice(flags, replicas);
  const directory = await openOutDirectory(context, flags);

  // Two processes with one node key would take each other's messages.
  await using _lock = await lockHome(home);
  const print = replicas === 1 ? createPrinter(context) : createReplicasPrinter(context);
  try {
    await using molt = await connectBuyer(context, buyer, {
      journal: home.buyer,
      ...(flags['autonomy'] === undefined ? {} : { autonomy: flags['autonomy'] as AutonomyName }),
    });
    signal.throwIfAborted();
    const spec = parseJobSpec(await buildSpec(molt, request, signal));
    await writeFile(join(directory, 'spec.json'), `${JSON.stringify(spec, null, 2)}\n`);
    let lease: Address | undefined;
    const startedMs = env.clock.now();
    const job = molt.start(spec, {
      maxPrice,
      signal,
      outputDirectory: directory,
      secrets: await readSecrets(request.secrets),
      ...(await readLogin(flags['registryLogin'] as string | undefined)),
      onEvent: (event) => {
        if (event.type === 'lease-opened') ({ lease } = event);
        print.event(event);
      },
      ...wishes,
      replicas,
      disputeAll: flags['disputeAll'] === true,
    });
    await using forwards = new AsyncDisposableStack();
    await openForwards(context, { molt, job, forwards, wanted: request.forwards, print, lease: () => lease });
    const result = await job.result.catch(async (error: unknown) => {
      if (error instanceof ReplicasFailedError) {
        await writeProofs(directory, error.replicas);
        print.failed(error);
      }
      const record = lastBid(molt, startedMs);
      if (!signal.aborted && record?.ranked.length === 0) print.why(record);
      throw error;
    });
    const proofFile = join(directory, 'proof.json');
    await writeFile(proofFile, result.proof);
    await writeProofs(directory, result.replicas ?? []);
    print.result(result, proofFile);
  } finally {
    print.close();
  }
}

/** One that was outvoted, or is undecided, is shown to verifiers by its proof. */
async function writeProofs(directory: string, replicas: readonly ReplicaOutcome[]): Promise<void> {
  for (const { rank, proof } of replicas)
    if (proof !== undefined) await writeFile(join(directory, `proof-${rank}.json`), proof);
}

interface Forwarding {
  readonly molt: Molt;
  readonly job: Job;
  readonly forwards: AsyncDisposableStack;
  readonly wanted: readonly PortPair[];
  readonly print: Printer;
  readonly lease: () => Address | undefined;
}

/** The ports that --forward names, and a door for `molt forward` and `molt logs` of this home. A port that is taken ends the job. */
async function openForwards({ home }: CommandContext, forwarding: Forwarding): Promise<void> {
  const { molt, job, forwards, wanted, print, lease } = forwarding;
  try {
    for (const { servicePort, ...local } of wanted) {
      const onRefused = ({ code, message }: MoltError): void =>
        print.forward({ type: 'refused', code, reason: message });
      const { port } = forwards.use(await job.forward(servicePort, { ...local, onRefused }));
      print.forward({ type: 'listening', port, servicePort });
    }
  } catch (error) {
    job.cancel();
    await job.result.catch(() => undefined);
    throw error;
  }
  const door = await openRunDoor(home.runDoor, {
    job: { lease, forward: (port, options) => job.forward(port, options) },
    logs: (of, query) => molt.logs(of, query),
  });
  if (door !== undefined) forwards.use(door);
}

interface Printer {
  forward(line: ForwardLine): void;
  event(event: Parameters<ReturnType<typeof createLineWriter>>[0]): void;
  result(result: Awaited<ReturnType<Molt['run']>>, proofFile: string): void;
  /** Replicas that came to no common result: what became of each, and what can be done. */
  failed(error: ReplicasFailedError): void;
  /** No provider took the job: the short form of `molt explain`. */
  why(record: BidRecord): void;
  close(): void;
}

function createPrinter(context: CommandContext): Printer {
  const { terminal, env, json } = context;
  const toLine = createLineWriter();
  if (json) {
    return {
      forward: (line) => printForward(context, line),
      event: (event) => terminal.out(toJson(toLine(event))),
      result: (result, proofFile) => terminal.out(toJson(resultLine(result, proofFile))),
      failed: () => undefined,
      why: (record) => {
        for (const line of explanationLines(record, json)) terminal.out(line);
      },
      close: () => undefined,
    };
  }
  const list = createLiveList(terminal, env.clock);
  const view = createJobView(terminal, list, env.clock);
  return {
    forward: (line) => {
      if (line.type === 'listening')
        list.print(`  127.0.0.1:${line.port} leads to port ${line.servicePort} of the job`);
      else list.print(`  a connection was refused: ${harmless(line.reason)} (${line.code})`);
    },
    event: (event) => view.event(toLine(event)),
    result: (result, proofFile) => {
      view.flush();
      list[Symbol.dispose]();
      const next = `check it: ${moltCommand()} verify ${proofFile}`;
      for (const line of ['', ...receipt(terminal, resultLine(result, proofFile)), '', next]) terminal.out(line);
    },
    failed: () => undefined,
    why: (record) => {
      view.flush();
      list[Symbol.dispose]();
      for (const line of explanationLines(record, json)) terminal.out(line);
    },
    close: () => {
      view.flush();
      list[Symbol.dispose]();
    },
  };
}

/** Several providers speak at once: one line per step, behind the rank of each, as of a gang. */
function createReplicasPrinter(context: CommandContext): Printer {
  const { terminal, json } = context;
  const gang = createGangPrinter(context, 'replica');
  return {
    forward: (line) => printForward(context, line),
    event: gang.event,
    result: (result, proofFile) => {
      const line = resultLine(result, proofFile);
      for (const text of json ? [toJson(line)] : receipt(terminal, line)) terminal.out(text);
    },
    failed: (error) => {
      gang.flush();
      const { code, message, cost, results } = error;
      const replicas = replicaLines(error.replicas);
      if (json) terminal.out(toJson({ type: 'replicas-failed', code, reason: message, cost, results, replicas }));
      else for (const line of failureLines(error)) terminal.out(line);
    },
    why: gang.why,
    close: gang.flush,
  };
}

/** Each replica, and how the claim of one can be judged. */
function failureLines({ replicas, cost }: ReplicasFailedError): string[] {
  const leased = replicas.filter(({ lease }) => lease !== undefined);
  if (leased.length === 0) return [];
  const undecided = leased.filter(({ outcome }) => outcome === 'undecided');
  return [
    '',
    ...replicaRows(replicaLines(replicas)).map(([name, text]) => `${name.padEnd('replica 00'.length)}  ${text}`),
    `${formatMolt(cost)} paid`,
    ...undecided.map(
      ({ rank, lease }) => `replica ${rank}'s claim can be disputed: ${moltCommand()} lease dispute ${lease}`,
    ),
    '',
  ];
}

/** Where outputs and proofs go: `--out`, else a folder named by the time. */
export async function openOutDirectory({ env }: CommandContext, flags: Flags): Promise<string> {
  const given = flags['out'] as string | undefined;
  const time = new Date(env.clock.now()).toISOString().slice(0, 19).replaceAll(':', '-');
  const directory = given ?? join('molt-out', time);
  await mkdir(directory, { recursive: true });
  return directory;
}

/** Name → content. */
export async function readSecrets(files: Readonly<Record<string, string>>): Promise<Record<string, string>> {
  const secrets: Record<string, string> = {};
  for (const [name, path] of Object.entries(files)) {
    try {
      secrets[name] = await readFile(path, 'utf8');
    } catch (cause) {
      throw new MoltError('config/usage', `secret ${name}: ${path} cannot be read`, { name, path }, { cause });
    }
  }
  return secrets;
}

/** The login goes into the file, not on the command line: others on this machine can read command lines. */
export async function readLogin(path: string | undefined): Promise<Pick<RunOptions, 'registry'>> {
  if (path === undefined) return {};
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw new MoltError('config/usage', `--registry-login: ${path} cannot be read`, { path }, { cause });
  });
  const [line = ''] = text.split('\n');
  const colon = line.indexOf(':');
  if (colon < 1) throw new MoltError('config/usage', `--registry-login: ${path} must hold "user:password"`, { path });
  return { registry: { username: line.slice(0, colon), password: line.slice(colon + 1).trimEnd() } };
}
