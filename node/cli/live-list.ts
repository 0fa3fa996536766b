/**
 * A list of steps that fills up while things happen.
 *
 * Finished steps and log lines are printed once and stay; on a screen the step under way (with a spinner and its
 * elapsed time) and the steps still to come are redrawn below them. Elsewhere only the finished ones are printed, one
 * plain line each, so a log file reads the same.
 */
import type { Clock } from '../../protocol/env.ts';
import { type Terminal, fit, formatDuration, widthOf } from './terminal.ts';

export type StepEnd = 'done' | 'failed' | 'warning';

const MARKS = { done: ['✔', 'green'], failed: ['✖', 'red'], warning: ['!', 'yellow'] } as const;
const SPINNER = '⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏';
const REDRAW_MS = 90;
const TITLE_WIDTH = 16;

export interface LiveList extends Disposable {
  /** Titles still to come; a title leaves the list when its step begins or ends. */
  expect(titles: readonly string[]): void;
  /** Shows a step as under way. `detail` may be renewed by calling again with the same title. */
  begin(title: string, detail?: string): void;
  /** Prints a step for good, with lines below it. */
  end(end: StepEnd, title: string, detail?: string, below?: readonly string[]): void;
  /** Prints a line for good. */
  print(line: string): void;
}

export function createLiveList(terminal: Terminal, clock: Clock): LiveList {
  let waiting: string[] = [];
  let active: { title: string; detail: string; sinceMs: number } | undefined;
  let drawn = 0;
  let frame = 0;

  const erase = (): void => {
    // The carriage return counts: a typed ^C is echoed and leaves the cursor in the middle of a line.
    if (drawn > 0) terminal.raw(`\r\u001b[${drawn}A\u001b[0J`);
    drawn = 0;
  };
  const draw = (): void => {
    if (!terminal.isScreen) return;
    const width = terminal.columns - 1;
    const lines = waiting.map((title) => terminal.style('dim', fit(`○ ${title}`, width)));
    if (active !== undefined) {
      const elapsed = formatDuration(clock.monotonic() - active.sinceMs);
      const spinner = terminal.style('cyan', SPINNER[frame % SPINNER.length] ?? '*');
      lines.unshift(fit(`${spinner} ${padded(active.title)} ${elapsed}  ${active.detail}`, width));
    }
    if (lines.length > 0) terminal.raw(`${lines.join('\n')}\n`);
    drawn = lines.length;
  };
  const permanently = (lines: readonly string[]): void => {
    erase();
    for (const line of lines) terminal.out(line);
    draw();
  };
  const ticking = terminal.isScreen
    ? clock.every(REDRAW_MS, () => {
        frame++;
        erase();
        draw();
      })
    : undefined;

  return {
    expect: (titles) => {
      waiting = [...titles];
      erase();
      draw();
    },
    begin: (title, detail = '') => {
      waiting = waiting.filter((each) => each !== title);
      active = { title, detail, sinceMs: active?.title === title ? active.sinceMs : clock.monotonic() };
      erase();
      draw();
    },
    end: (end, title, detail = '', below = []) => {
      waiting = waiting.filter((each) => each !== title);
      if (active?.title === title || end === 'failed') active = undefined;
      const [mark, colour] = MARKS[end];
      permanently([`${terminal.style(colour, mark)} ${padded(title)} ${detail}`.trimEnd(), ...below]);
    },
    print: (line) => permanently([line]),
    [Symbol.dispose]: () => {
      ticking?.[Symbol.dispose]();
      waiting = [];
      active = undefined;
      erase();
    },
  };
}

function padded(title: string): string {
  return title + ' '.repeat(Math.max(0, TITLE_WIDTH - widthOf(title)));
}
