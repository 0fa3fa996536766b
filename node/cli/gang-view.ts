/** The steps of several jobs at once, for people and for programs: one line per step, behind the rank of whose it is. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { type BaseUnits, formatBytes, formatMolt } from '../../protocol/units.ts';
import type { BidRecord, GangEvent, GangResult } from '../../sdk/index.ts';
import type { CommandContext } from './command.ts';
import { explanationLines } from './explain.ts';
import { createLineWriter, toJson } from './job-line.ts';
import { formatDuration, harmless, plural, short } from './terminal.ts';

interface GangPrinter {
  readonly event: (event: GangEvent) => void;
  /** Prints the last lines of output that nobody ended. */
  readonly flush: () => void;
  /** Why not enough providers took the job: the short form of `molt explain`. */
  readonly why: (record: BidRecord) => void;
  /** Keeps the proofs, and says what came of it. */
  readonly result: (result: GangResult, directory: string) => Promise<void>;
}

/** What the members are called: slots of a gang, or replicas of one job. */
type Noun = 'slot' | 'replica';

/** One line per step; what members print stands behind their rank. */
export function createGangPrinter({ terminal, json }: CommandContext, noun: Noun = 'slot'): GangPrinter {
  const writers = new Map<number, ReturnType<typeof createLineWriter>>();
  const unended = new Map<string, string>();
  const say = createSayings(noun);
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
      for (const line of say(event)) print(line);
    },
    flush: () => {
      for (const [name, text] of unended) if (text !== '') print(`[${name.split(' ')[0]}] ${text}`);
      unended.clear();
    },
    why: (record) => {
      for (const line of explanationLines(record, json)) terminal.out(line);
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
type Sayings = { readonly [Type in GangEvent['type']]?: (event: Of<Type>, who: string) => string };

/** What is said of the market, and of a slot that is given up. `who` is "slot 1", or "replica 1". Steps that are not here say nothing. */
const MARKET: Sayings = {
  'mesh-joined': ({ peers }) => `mesh joined: ${plural(peers, 'peer')}`,
  bid: ({ bid, pricePerSecondMax }) => `bid ${short(bid)}: at most ${formatMolt(pricePerSecondMax)} a second each`,
  declined: ({ node, reason, code }) => `  ${short(node)} declines: ${reason} (${code})`,
  seated: ({ provider, pricePerSecond }, who) =>
    `${who}: quote of ${provider} at ${formatMolt(pricePerSecond)} a second, held`,
  'gang-undone': ({ reason, retrying, ending }) =>
    `given up: ${reason}${retrying ? '; trying again' : ending ? '' : '; the others go on'}`,
  'lease-opened': ({ lease, locked }, who) => `${who}: lease ${lease} open, ${formatMolt(locked)} locked`,
  'lease-left': ({ lease, paid }, who) => `${who}: lease ${short(lease)} given up, ${sayPaid(paid)}`,
  'member-lost': ({ code, reason, replacing, ending }, who) =>
    code === 'job/cancelled'
      ? `${who}: ${reason}`
      : `${who} lost: ${reason}; ${replacing ? 'another provider is sought' : `the others ${ending ? 'are stopped' : 'go on'}`}`,
  'lease-expired': ({ lease, refunded }) => `lease ${short(lease)} expired: ${formatMolt(refunded)} back in the budget`,
};

const RUN: Sayings = {
  'provider-silent': ({ reason }, who) => `${who}: the provider is silent (${reason}); trying to reach it`,
  'provider-back': (_event, who) => `${who}: the provider is back`,
  'proof-verified': ({ billedMs, cost }, who) =>
    `${who}: proof verified, ${formatDuration(billedMs)} billed, claims ${formatMolt(cost)}`,
  'replica-proven': ({ resultDigest, votes, quorum }, who) =>
    `${who}: came to ${short(resultDigest)}, as ${votes === 1 ? 'no other so far' : plural(votes - 1, 'other')}; ${quorum} must agree`,
  'vote-closed': ({ missing, reason }) => `the vote is held with what is there: ${reason}${named(missing, 'missing')}`,
  outputs: ({ count, sizeBytes }, who) =>
    count === 0 ? '' : `${who}: ${plural(count, 'output')} fetched, ${formatBytes(sizeBytes)}`,
  'replicas-compared': ({ agreed, outvoted, lost }) =>
    `${agreed.length} of ${agreed.length + outvoted.length + lost.length} replicas agree${named(outvoted, 'outvoted')}${named(lost, 'lost')}`,
  'lease-disputed': ({ claimed }, who) => `${who}: its claim of ${formatMolt(claimed)} is disputed`,
  'dispute-resolved': ({ ending, paid, slashed }, who) =>
    `${who}: its dispute ended as ${ending}, ${formatMolt(paid)} paid, ${formatMolt(slashed)} slashed`,
  settled: ({ paid, refunded }, who) => `${who}: settled, ${formatMolt(paid)} paid, ${formatMolt(refunded)} came back`,
};

/** Lines for a step; of the phases of a run its beginning, and what takes long. */
function createSayings(noun: Noun): (event: GangEvent) => readonly string[] {
  const phases = new Map<number, string>();
  return (event) => {
    const who = `${noun} ${event.rank ?? ''}`.trimEnd();
    if (event.type === 'phase') {
      const { rank = 0, phase, bytesTotal } = event;
      const isNew = phases.get(rank) !== phase;
      if (isNew) phases.set(rank, phase);
      return isNew && (phase === 'running' || bytesTotal > 0) ? [`${who}: ${phase}`] : [];
    }
    if (event.type === 'run-resumed')
      return [`a run of this job was cut off and goes on: ${event.ranks.map((rank) => `${noun} ${rank}`).join(', ')}`];
    if (event.type === 'gang-opened')
      return [`all ${event.slots} ${noun}s have their lease, ${formatMolt(event.locked)} locked`];
    if (event.type === 'replicas-differ') return sayDifference(event);
    const text = sayEvent(event, who);
    return text === '' ? [] : [text];
  };
}

function sayDifference({ results, lost, disputing }: Of<'replicas-differ'>): readonly string[] {
  const next = disputing ? 'every claim is disputed' : 'what they claim is paid unless you dispute it';
  return [
    `no result is that of more than half${named(lost, 'lost')}; nothing is settled, ${next}`,
    ...results.map(({ resultDigest, ranks }) => `  ${short(resultDigest)}: replicas ${ranks.join(', ')}`),
  ];
}

function named(ranks: readonly number[], what: string): string {
  return ranks.length === 0 ? '' : `; ${what}: ${ranks.join(', ')}`;
}

function sayPaid(paid: BaseUnits | undefined): string {
  return paid === undefined ? 'its money comes back after its deadline' : `${formatMolt(paid)} paid`;
}

function sayEvent<Type extends GangEvent['type']>(event: Of<Type>, who: string): string {
  const say: ((event: Of<Type>, who: string) => string) | undefined = MARKET[event.type] ?? RUN[event.type];
  return say?.(event, who) ?? '';
}
