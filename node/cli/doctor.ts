/** `molt doctor`: looks at everything that selling or buying needs, and says how to mend what is wrong. */
import { type CommandContext, printResult } from './command.ts';
import { type Check, diagnose, worst } from './doctor/checks.ts';
import { gatherFacts } from './doctor/facts.ts';
import { createLiveList } from './live-list.ts';
import type { Flags } from './market.ts';
import { type Terminal, harmless, widthOf } from './terminal.ts';

const MARKS = { ok: ['✔', 'green'], warn: ['!', 'yellow'], fail: ['✖', 'red'] } as const;

/** Ends with exit code 1 when something fails. */
export async function doctorCommand(context: CommandContext, flags: Flags): Promise<void> {
  const { terminal, env, json } = context;
  const list = createLiveList(terminal, env.clock);
  let checks: Check[];
  try {
    const tell = (what: string): void => {
      if (!json) list.begin('looking', what);
    };
    tell('home and settings');
    checks = diagnose(await gatherFacts(context, flags['rpc'], tell));
  } finally {
    list[Symbol.dispose]();
  }
  const verdict = worst(checks);
  printResult(context, { verdict, checks }, [...screen(terminal, checks), '', summary(checks)]);
  if (verdict === 'fail') context.failed();
}

function screen(terminal: Terminal, checks: readonly Check[]): string[] {
  const width = Math.max(...checks.map((check) => widthOf(check.name)));
  const indent = ' '.repeat(width + 4);
  return checks.flatMap(({ name, verdict, found, mend }) => {
    const [mark, colour] = MARKS[verdict];
    const [first = '', ...rest] = wrap(terminal, harmless(found), indent.length);
    const next = mend === '' ? [] : wrap(terminal, mend, indent.length + 2);
    return [
      `${terminal.style(colour, mark)} ${name.padEnd(width)}  ${first}`,
      ...rest.map((line) => indent + line),
      ...next.map((line, index) => `${indent}${index === 0 ? terminal.style('bold', '→ ') : '  '}${line}`),
    ];
  });
}

/** Whole words in lines that fit beside the names; a pipe gets one line. */
function wrap(terminal: Terminal, text: string, taken: number): string[] {
  if (!terminal.isScreen) return [text];
  const width = Math.max(24, terminal.columns - taken);
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && widthOf(last) + 1 + widthOf(word) <= width) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

function summary(checks: readonly Check[]): string {
  const count = (verdict: Check['verdict']): number => checks.filter((check) => check.verdict === verdict).length;
  const [failed, warned] = [count('fail'), count('warn')];
  if (failed + warned === 0) return 'all is well';
  const things = (many: number, one: string, more: string): string => (many === 1 ? `1 ${one}` : `${many} ${more}`);
  if (failed === 0) return `works, with ${things(warned, 'warning', 'warnings')}`;
  return `${things(failed, 'thing is', 'things are')} to mend${warned === 0 ? '' : `, ${things(warned, 'warning', 'warnings')}`}`;
}
