/** Goal: the same steps read well on a screen and in a file. Method: streams that remember what was written. */
import { describe, expect, it } from 'vitest';

import { createLiveList } from '../../../node/cli/live-list.ts';
import { createTerminal, fit, formatDuration, harmless, short, table, widthOf } from '../../../node/cli/terminal.ts';
import type { Clock } from '../../../protocol/env.ts';

function fakeTerminal(isTTY: boolean, environment: Record<string, string> = {}) {
  const written = { out: '', err: '' };
  const terminal = createTerminal({
    stdout: { isTTY, columns: 60, write: (text: string) => (written.out += text) },
    stderr: { write: (text: string) => (written.err += text) },
    environment,
  });
  return { terminal, written };
}

function fakeClock(): Clock & { tick(ms: number): void } {
  let now = 0;
  let task: (() => unknown) | undefined;
  return {
    now: () => now,
    monotonic: () => now,
    sleep: () => Promise.resolve(),
    every: (_ms, given) => {
      task = given;
      return { [Symbol.dispose]: () => (task = undefined) };
    },
    tick: (ms) => {
      now += ms;
      task?.();
    },
  };
}

describe('terminal', () => {
  it.each([
    [false, {}],
    [true, { NO_COLOR: '1' }],
    [true, { TERM: 'dumb' }],
  ])('writes no colour when it is a screen: %s, with %j', (isTTY, environment) => {
    expect(fakeTerminal(isTTY, environment).terminal.style('green', 'x')).toBe('x');
  });

  it('colours on a screen', () => {
    expect(fakeTerminal(true).terminal.style('green', 'x')).toContain('\u001b[');
  });

  it('removes from text of strangers what would move the cursor, recolour or reorder', () => {
    expect(harmless('a\u001b[2Jb\u001b]0;title\u0007c\rd\u202ee\tf\u0000')).toBe('abcdef'.replace('e', 'e    '));
  });

  it('cuts to a width counted in characters, not in escapes', () => {
    const { terminal } = fakeTerminal(true);
    const styled = terminal.style('red', 'abcdef');
    expect(fit(styled, 6)).toBe(styled);
    expect(fit(styled, 4)).toBe('abc…');
    expect(widthOf(styled)).toBe(6);
  });

  it('lines tables up', () => {
    const { terminal } = fakeTerminal(false);
    const lines = table(
      terminal,
      [{ title: 'name' }, { title: 'n', align: 'right' }],
      [
        ['longer name', '1'],
        ['x', '20'],
      ],
    );
    expect(lines).toEqual(['name          n', 'longer name   1', 'x            20']);
  });

  it('says durations in the unit that fits', () => {
    expect([850, 1_234, 12_340, 65_000, 3_700_000, 90_000_000].map(formatDuration)).toEqual([
      '850 ms',
      '1.23 s',
      '12.3 s',
      '1 min 5 s',
      '1 h 1 min',
      '1 d 1 h',
    ]);
    expect(short('0123456789abcdef')).toBe('012345…cdef');
  });
});

describe('live list', () => {
  it('prints finished steps and lines only, and no escapes, when it is not on a screen', () => {
    const { terminal, written } = fakeTerminal(false);
    const clock = fakeClock();
    using list = createLiveList(terminal, clock);
    list.expect(['one', 'two']);
    list.begin('one', 'at it');
    clock.tick(500);
    list.print('  a line');
    list.end('done', 'one', 'went well', ['  below']);
    list.end('failed', 'two', 'did not');
    expect(written.out.split('\n')).toEqual([
      '  a line',
      `✔ ${'one'.padEnd(16)} went well`,
      '  below',
      `✖ ${'two'.padEnd(16)} did not`,
      '',
    ]);
  });

  it('leaves on a screen, after all redrawing, the same lines', () => {
    const { terminal, written } = fakeTerminal(true, { NO_COLOR: '1' });
    const clock = fakeClock();
    const list = createLiveList(terminal, clock);
    list.expect(['one', 'two']);
    list.begin('one', 'x'.repeat(200));
    clock.tick(90);
    list.print('  a line');
    clock.tick(90);
    list.end('done', 'one', 'went well');
    list.begin('two');
    clock.tick(90);
    list.end('done', 'two');
    list[Symbol.dispose]();
    expect(replay(written.out)).toEqual(['  a line', `✔ ${'one'.padEnd(16)} went well`, '✔ two', '']);
  });

  it('shows on a screen what is under way and what is to come', () => {
    const { terminal, written } = fakeTerminal(true, { NO_COLOR: '1' });
    const clock = fakeClock();
    using list = createLiveList(terminal, clock);
    list.expect(['one', 'two']);
    list.begin('one', 'busy');
    clock.tick(1_500);
    const screen = replay(written.out);
    expect(screen[0]).toMatch(/^\S one {13} 1\.50 s {2}busy$/);
    expect(screen[1]).toBe('○ two');
  });
});

/** A screen that knows line feeds and the two escapes the list uses: up n lines, clear to the end. */
function replay(text: string): string[] {
  const lines = [''];
  let row = 0;
  // oxlint-disable-next-line no-control-regex -- the escapes are the subject
  for (const part of text.replaceAll('\r', '').split(/(\n|\u001b\[\d+A|\u001b\[0J)/)) {
    if (part === '\n') row++;
    else if (part.endsWith('A') && part.startsWith('\u001b')) row -= Number(part.slice(2, -1));
    else if (part === '\u001b[0J') lines.length = row;
    else if (part !== '') lines[row] = part;
    lines[row] ??= '';
  }
  return lines;
}
