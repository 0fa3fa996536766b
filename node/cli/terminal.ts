/**
 * The terminal as the CLI sees it: where text goes, whether it is a screen, and what colour may be used.
 *
 * Escape sequences are written only to a real screen, and colours only when NO_COLOR is not set; a pipe gets plain
 * lines. Everything below the commands writes through this object, so tests read what a user would read.
 */
import { stripVTControlCharacters, styleText } from 'node:util';

export type Style = 'bold' | 'dim' | 'green' | 'red' | 'yellow' | 'cyan';

export interface Terminal {
  /** Standard output: results. */
  out(line: string): void;
  /** Standard error: what is said beside results. */
  err(line: string): void;
  /** Raw text to standard output, for redrawing. Only called on a screen. */
  raw(text: string): void;
  readonly isScreen: boolean;
  /** Width in characters, at least 40. */
  readonly columns: number;
  style(style: Style, text: string): string;
}

export interface TerminalStreams {
  readonly stdout: { readonly isTTY?: boolean; readonly columns?: number; write(text: string): unknown };
  readonly stderr: { write(text: string): unknown };
  readonly environment: Readonly<Record<string, string | undefined>>;
}

export function createTerminal(streams: TerminalStreams): Terminal {
  const { stdout, stderr, environment } = streams;
  const isScreen = stdout.isTTY === true && environment['TERM'] !== 'dumb';
  const colours = isScreen && (environment['NO_COLOR'] ?? '') === '';
  return {
    isScreen,
    get columns() {
      return Math.max(40, stdout.columns ?? 100);
    },
    out: (line) => void stdout.write(`${line}\n`),
    err: (line) => void stderr.write(`${line}\n`),
    raw: (text) => void stdout.write(text),
    style: (style, text) => (colours ? styleText(style, text, { validateStream: false }) : text),
  };
}

/** Characters a text takes on the screen. */
export function widthOf(text: string): number {
  return Array.from(stripVTControlCharacters(text)).length;
}

/** Cuts plain or styled text to a width. Styles are dropped where it is cut, so that none is left open. */
export function fit(text: string, width: number): string {
  if (widthOf(text) <= width) return text;
  return `${Array.from(stripVTControlCharacters(text))
    .slice(0, Math.max(0, width - 1))
    .join('')}…`;
}

/** "1 peer", "2 peers". */
export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** Removes what could move the cursor or recolour the screen: text of strangers is printed, not obeyed. */
export function harmless(text: string): string {
  return (
    stripVTControlCharacters(text)
      .replaceAll('\t', '    ')
      // oxlint-disable-next-line no-control-regex -- control characters are what is removed
      .replace(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, '')
  );
}

export interface Column {
  readonly title: string;
  readonly align?: 'left' | 'right';
}

/** Rows under titles, columns as wide as their widest cell. */
export function table(terminal: Terminal, columns: readonly Column[], rows: readonly (readonly string[])[]): string[] {
  const widths = columns.map((column, index) =>
    Math.max(widthOf(column.title), ...rows.map((row) => widthOf(row[index] ?? ''))),
  );
  const line = (cells: readonly string[]): string =>
    columns
      .map((column, index) => {
        const cell = cells[index] ?? '';
        const space = ' '.repeat(Math.max(0, (widths[index] ?? 0) - widthOf(cell)));
        return column.align === 'right' ? space + cell : cell + space;
      })
      .join('  ')
      .trimEnd();
  return [terminal.style('dim', line(columns.map((column) => column.title))), ...rows.map(line)];
}

/** 850 → "0.85 s", 65_000 → "1 min 5 s". */
export function formatDuration(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1_000).toFixed(2)} s`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1_000);
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h ${Math.floor((seconds % 3_600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3_600)} h`;
}

/** First and last characters of a key, digest or signature, for places where the whole does not fit. */
export function short(text: string): string {
  return text.length <= 12 ? text : `${text.slice(0, 6)}…${text.slice(-4)}`;
}
