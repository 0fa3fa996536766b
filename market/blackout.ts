/**
 * Hours in which a machine is not for sale, as a pure function of the clock.
 *
 * `mon-fri 09:00-17:30`, `sun 00:00-24:00`, `22:00-06:00`: a day or a range of days, where it is not every day, and a span of local time,
 * which may go over midnight. The time zone is stated, never the machine's own, so that the same setting means the same
 * everywhere; summer time is the zone's. A job must be over before such a span begins, not merely begin before it.
 */
import { MoltError } from '../protocol/errors.ts';

export interface Blackouts {
  /** The span that `fromMs` … `untilMs` (wall clock) touches first, and how long after `fromMs` it begins (0: it is on). */
  next(fromMs: number, untilMs: number): { readonly text: string; readonly inMs: number } | undefined;
}

/** Minutes of the local week, Monday 00:00 = 0. `to` may lie in the next week. */
interface Span {
  readonly text: string;
  readonly from: number;
  readonly to: number;
}

const DAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const;
const DAY = 24 * 60;
const WEEK = 7 * DAY;
const MINUTE_MS = 60_000;
const SPANS_MAX = 32;
/** The first of January 1970 was a Thursday. */
const EPOCH_MINUTE = 3 * DAY;

/** Throws `config/invalid`, naming the entry. */
export function parseBlackouts(texts: readonly string[], timeZone: string): Blackouts {
  if (texts.length > SPANS_MAX) throw refused(`there are ${texts.length} of them, at most ${SPANS_MAX} are taken`);
  // Most sell at all hours: their start need not load what knows the zones of the world.
  if (texts.length === 0 && timeZone === 'UTC') return { next: () => undefined };
  const localMinutes = localClock(timeZone);
  const spans = texts.flatMap((text) => parseSpan(text, timeZone));
  return {
    next: (fromMs, untilMs) => {
      // Measured on the local clock, so that a change to summer time between the two counts.
      const local = localMinutes(fromMs);
      const length = localMinutes(untilMs) - local + 1;
      const now = (local + EPOCH_MINUTE) % WEEK;
      const touched = spans
        .map(({ text, from, to }) => ({ text, inMinutes: isWithin(now, from, to) ? 0 : (from - now + WEEK) % WEEK }))
        .filter(({ inMinutes }) => inMinutes < length)
        .sort((a, b) => a.inMinutes - b.inMinutes);
      const [first] = touched;
      if (first === undefined) return undefined;
      const inMs = first.inMinutes === 0 ? 0 : first.inMinutes * MINUTE_MS - (fromMs % MINUTE_MS);
      return { text: first.text, inMs };
    },
  };
}

function isWithin(minute: number, from: number, to: number): boolean {
  return (minute >= from && minute < to) || (minute + WEEK >= from && minute + WEEK < to);
}

function parseSpan(text: string, timeZone: string): Span[] {
  const match = /^(?:([a-z-]+) )?(\d\d):([0-5]\d)-(\d\d):([0-5]\d)$/.exec(text.trim().toLowerCase());
  const [, days, fromHour, fromMinute, toHour, toMinute] = match ?? [];
  const from = Number(fromHour) * 60 + Number(fromMinute);
  const to = Number(toHour) * 60 + Number(toMinute);
  if (match === null || from >= DAY || to > DAY || from === to) {
    throw refused(`"${text}" is none; write for example mon-fri 09:00-17:30, or 22:00-06:00`);
  }
  const length = to > from ? to - from : to - from + DAY;
  const shown = `${text.trim().toLowerCase()} (${timeZone})`;
  return parseDays(days, text).map((day) => ({ text: shown, from: day * DAY + from, to: day * DAY + from + length }));
}

function parseDays(days: string | undefined, text: string): number[] {
  if (days === undefined) return DAYS.map((_, index) => index);
  const [first = '', last = first, ...more] = days.split('-');
  const [a, b] = [first, last].map((name) => DAYS.indexOf(name as (typeof DAYS)[number]));
  if (a === undefined || b === undefined || a === -1 || b === -1 || more.length > 0) {
    throw refused(`"${text}" names the days "${days}", known are ${DAYS.join(', ')} and ranges of two`);
  }
  return Array.from({ length: ((b - a + 7) % 7) + 1 }, (_, index) => (a + index) % 7);
}

/** Minutes of local time since 1970 began there. Throws `config/invalid` for a zone that is not known. */
function localClock(timeZone: string): (ms: number) => number {
  let format: Intl.DateTimeFormat;
  try {
    const digits = { year: 'numeric', month: 'numeric', day: 'numeric', hour: 'numeric', minute: 'numeric' } as const;
    format = new Intl.DateTimeFormat('en-GB', { timeZone, ...digits, hourCycle: 'h23' });
  } catch (cause) {
    const message = `"${timeZone}" is no time zone; write one of the IANA names, for example Europe/Berlin or UTC`;
    throw new MoltError('config/invalid', message, { timeZone }, { cause });
  }
  return (ms) => {
    const parts = new Map(format.formatToParts(ms).map(({ type, value }) => [type, Number(value)]));
    const part = (type: Intl.DateTimeFormatPartTypes): number => parts.get(type) ?? 0;
    return Date.UTC(part('year'), part('month') - 1, part('day'), part('hour'), part('minute')) / MINUTE_MS;
  };
}

function refused(why: string): MoltError {
  return new MoltError('config/invalid', `the hours without sales are refused: ${why}`);
}
