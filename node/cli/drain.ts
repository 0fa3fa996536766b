/** `molt drain`: finish what runs, take nothing new; kept across restarts until it is undone. */
import { type Operator, openOperator } from '../operator/index.ts';
import { type CommandContext, moltCommand, printResult } from './command.ts';
import type { Flags } from './market.ts';

const LOOK_EVERY_MS = 500;

export async function drainCommand(context: CommandContext, flags: Flags): Promise<void> {
  const undo = flags['undo'] === true;
  await using operator = await openOperator(context.env, context.home);
  const { unfinished } = await operator.setDraining(!undo);
  const running = (await operator.status()) !== undefined;
  if (undo) {
    const lines = [running ? 'selling again' : 'the next molt up sells again'];
    return printResult(context, { draining: false, unfinished, running }, lines);
  }
  const wait = flags['wait'] === true && running && unfinished > 0;
  const left = wait ? await untilEmpty(context, operator, unfinished) : unfinished;
  const jobs = `${left === 1 ? '1 job is' : `${left} jobs are`} left to finish`;
  const state = running
    ? `draining: nothing new is taken, ${left === 0 ? 'nothing runs any more' : jobs}`
    : `the node does not run; it takes nothing new when it starts, and ${left === 0 ? 'has nothing to finish' : jobs}`;
  return printResult(context, { draining: true, unfinished: left, running }, [
    state,
    `to sell again: ${moltCommand()} drain --undo`,
  ]);
}

/** Resolves when every job is closed. Ctrl-C leaves the node draining. */
async function untilEmpty(context: CommandContext, operator: Operator, first: number): Promise<number> {
  const { env, signal, json, terminal } = context;
  for (let left = first, told = -1; ;) {
    if (left === 0) return 0;
    if (left !== told && !json)
      terminal.out(`waiting for ${left === 1 ? '1 job' : `${left} jobs`}; Ctrl-C stops waiting`);
    told = left;
    await env.clock.sleep(LOOK_EVERY_MS, signal);
    left = (await operator.jobs()).filter((job) => job.phase !== 'closed').length;
  }
}
