/** The steps of several jobs at once, for people and for programs: one line per step, behind the rank of whose it is. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { type BaseUnits, formatMolt } from '../../protocol/units.ts';
import type { GangEvent, GangResult } from '../../sdk/index.ts';
import type { CommandContext } from './command.ts';
import { createLineWriter, toJson } from './job-line.ts';
import { harmless } from './terminal.ts';

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
  'gang-undone': ({ reason, retrying, ending }) =>
    `given up: ${reason}${retrying ? '; trying again' : ending ? '' : '; the others go on'}`,
  'member-lost': ({ rank, reason, replacing, ending }) =>
    `slot ${rank} lost: ${reason}; ${replacing ? 'another provider is sought' : `the others ${ending ? 'are stopped' : 'go on'}`}`,
  'lease-left': ({ rank, lease, paid }) => `slot ${rank}: lease ${lease} given up, ${sayPaid(paid)}`,
  'replicas-compared': ({ agreed, outvoted, lost }) =>
    `${agreed.length} of ${agreed.length + outvoted.length + lost.length} replicas agree${named(outvoted, 'outvoted')}${named(lost, 'lost')}`,
  'lease-disputed': ({ rank, claimed }) => `slot ${rank}: its claim of ${formatMolt(claimed)} is disputed`,
  'provider-silent': ({ rank, reason }) => `slot ${rank}: the provider is silent (${reason})`,
  settled: ({ rank, paid, refunded }) =>
    `slot ${rank}: settled, ${formatMolt(paid)} paid, ${formatMolt(refunded)} came back`,
};

function named(ranks: readonly number[], what: string): string {
  return ranks.length === 0 ? '' : `; ${what}: ${ranks.join(', ')}`;
}

function sayPaid(paid: BaseUnits | undefined): string {
  return paid === undefined ? 'its money comes back after its deadline' : `${formatMolt(paid)} paid`;
}

function sayEvent<Type extends GangEvent['type']>(event: Of<Type>): string | undefined {
  const say: ((event: Of<Type>) => string) | undefined = SAYINGS[event.type];
  return say?.(event);
}
