/** `molt gang`: buys n slots that run together or not at all, and leaves a folder for each. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { parseAddress } from '../../protocol/address.ts';
import { MoltError } from '../../protocol/errors.ts';
import { parseJobSpec } from '../../protocol/job-spec.ts';
import { type BaseUnits, formatMolt, parseMolt } from '../../protocol/units.ts';
import { type AutonomyName, type GangEvent, type GangResult, connect } from '../../sdk/index.ts';
import { lockHome } from '../home.ts';
import { type CommandContext, loadSettings, requireBudget } from './command.ts';
import { createLineWriter, toJson } from './job-line.ts';
import { type Flags, buildSpec, parseRequest, parseWishes } from './job-request.ts';
import { readNodeKey } from './node-key.ts';
import { openRunDoor } from './run-door.ts';
import { readLogin, readSecrets } from './run.ts';
import { harmless } from './terminal.ts';

export async function gangCommand(context: CommandContext, flags: Flags, words: readonly string[]): Promise<void> {
  const { env, home, signal } = context;
  const [count = '', ...command] = words;
  const slots = parseSlots(count);
  const request = await parseRequest(flags, command);
  const { gpus: _gpus, ...ofSettings } = flags;
  const { settings } = await loadSettings(context, ofSettings);
  const budget = parseAddress(requireBudget(context, settings));
  const key = await readNodeKey(context, 'buyer');
  const directory =
    (flags['out'] as string | undefined) ??
    join('molt-out', new Date(env.clock.now()).toISOString().slice(0, 19).replaceAll(':', '-'));
  await mkdir(directory, { recursive: true });
  await using _lock = await lockHome(home);
  await using molt = await connect({
    rpcUrl: settings.rpcUrl,
    key,
    budget,
    bootstrap: settings.bootstrap,
    mdns: settings.mdns,
    ...(settings.programId === null ? {} : { programId: parseAddress(settings.programId) }),
    env,
    journal: home.buyer,
    ...(flags['autonomy'] === undefined ? {} : { autonomy: flags['autonomy'] as AutonomyName }),
  });
  await using _door = await openRunDoor(home.runDoor, { logs: (lease, query) => molt.logs(lease, query) });
  signal.throwIfAborted();
  const spec = parseJobSpec(await buildSpec(molt, request, signal));
  await writeFile(join(directory, 'spec.json'), `${JSON.stringify(spec, null, 2)}\n`);
  const print = createGangPrinter(context);
  const { result } = molt.gang({
    spec,
    slots,
    maxPrice: parseMolt(flags['maxPrice'] as string),
    ...parseWishes(flags),
    spread: flags['spread'] === 'any' ? 'any' : 'distinct-providers',
    onLoss: flags['replace'] === true ? 'replace' : 'fail',
    signal,
    outputDirectory: directory,
    secrets: await readSecrets(request.secrets),
    ...(await readLogin(flags['registryLogin'] as string | undefined)),
    onEvent: print.event,
  });
  const gang = await result.finally(print.flush);
  await print.result(gang, directory);
}

function parseSlots(text: string): number {
  if (/^[1-9]\d?$/.test(text)) return Number(text);
  throw new MoltError('config/usage', `molt gang needs a number of slots first, 1 to 16, it got "${text}"`);
}

interface GangPrinter {
  readonly event: (event: GangEvent) => void;
  /** Prints the last lines of output that nobody ended. */
  readonly flush: () => void;
  /** Keeps the proofs, and says what came of it. */
  readonly result: (result: GangResult, directory: string) => Promise<void>;
}

/** One line per step; what members print stands behind their rank. */
export function createGangPrinter({ terminal, json }: CommandContext): GangPrinter {
  const writers = new Map<number, ReturnType<typeof createLineWriter>>();
  const unended = new Map<string, string>();
  const print = (text: string): void => terminal.out(json ? text : harmless(text));
  const log = (event: Extract<GangEvent, { type: 'log' }>): void => {
    const rank = event.rank ?? 0;
    const writer = writers.get(rank) ?? createLineWriter();
    writers.set(rank, writer);
    const line = writer(event);
    if (json) return print(toJson({ ...line, rank }));
    const name = `${rank} ${event.stream}`;
    const pieces = `${unended.get(name) ?? ''}${'text' in line ? line.text : ''}`.split('\n');
    unended.set(name, pieces.pop() ?? '');
    for (const piece of pieces) print(`[${rank}] ${piece}`);
  };
  return {
    event: (event) => {
      if (event.type === 'log') return log(event);
      if (json) return print(toJson(event));
      const said = sayEvent(event);
      if (said !== undefined) print(said);
    },
    flush: () => {
      for (const [name, text] of unended) if (text !== '') print(`[${name.split(' ')[0]}] ${text}`);
      unended.clear();
    },
    result: async ({ members, cost }, directory) => {
      for (const [rank, member] of members.entries()) {
        const proofFile = join(directory, String(rank), 'proof.json');
        await mkdir(join(directory, String(rank)), { recursive: true });
        await writeFile(proofFile, member.proof);
        const { proof: _proof, stdout: _stdout, stderr: _stderr, ...rest } = member;
        if (json) print(toJson({ type: 'member', rank, ...rest, proofFile }));
        else print(`slot ${rank}: exit ${member.exitCode ?? 'none'}, ${formatMolt(member.cost)}, proof ${proofFile}`);
      }
      print(json ? toJson({ type: 'result', slots: members.length, cost }) : `the gang cost ${formatMolt(cost)}`);
    },
  };
}

type Of<Type extends GangEvent['type']> = Extract<GangEvent, { type: Type }>;
type Sayings = { readonly [Type in GangEvent['type']]?: (event: Of<Type>) => string };

/** What a person following a gang reads. Steps that are not here say nothing. */
const SAYINGS: Sayings = {
  seated: ({ rank, provider, pricePerSecond }) =>
    `slot ${rank}: quote of ${provider} at ${formatMolt(pricePerSecond)} a second, held`,
  'gang-opened': ({ slots, locked }) => `all ${slots} slots have their lease, ${formatMolt(locked)} locked`,
  'gang-undone': ({ reason, retrying }) => `given up: ${reason}${retrying ? '; trying again' : ''}`,
  'member-lost': ({ rank, reason, replacing }) =>
    `slot ${rank} lost: ${reason}; ${replacing ? 'another provider is sought' : 'the others are stopped'}`,
  'lease-left': ({ rank, lease, paid }) => `slot ${rank}: lease ${lease} given up, ${sayPaid(paid)}`,
  'lease-disputed': ({ rank, claimed }) => `slot ${rank}: its claim of ${formatMolt(claimed)} is disputed`,
  'provider-silent': ({ rank, reason }) => `slot ${rank}: the provider is silent (${reason})`,
  settled: ({ rank, paid, refunded }) =>
    `slot ${rank}: settled, ${formatMolt(paid)} paid, ${formatMolt(refunded)} came back`,
};

function sayPaid(paid: BaseUnits | undefined): string {
  return paid === undefined ? 'its money comes back after its deadline' : `${formatMolt(paid)} paid`;
}

function sayEvent<Type extends GangEvent['type']>(event: Of<Type>): string | undefined {
  const say: ((event: Of<Type>) => string) | undefined = SAYINGS[event.type];
  return say?.(event);
}
