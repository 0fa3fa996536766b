/**
 * Goal: a provider sells to whom, when and what its owner says, and says so. Method: hours over whole weeks against a slow
 * count of minutes, rules of images one by one, curves at and between their points.
 */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import {
  type SellingPolicy,
  currentPrices,
  imageRefusal,
  imageRules,
  parseBlackouts,
  parsePriceCurve,
  timeRefusal,
} from '../../market/index.ts';
import { baseUnits } from '../../protocol/units.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
/** Monday, 4 January 2027, 00:00 UTC. */
const MONDAY = Date.UTC(2027, 0, 4);

const policy: SellingPolicy = {
  prices: { base: baseUnits(100n), perCpu: baseUnits(1_000n), perGib: baseUnits(10n), perGpu: baseUnits(3n) },
  durationSecondsMax: 86_400,
};

test.each<[string, string, number, number, number | undefined]>([
  ['mon 09:00-10:00', 'UTC', 0, 8 * HOUR, undefined],
  ['mon 09:00-10:00', 'UTC', 0, 9 * HOUR + 1, 9 * HOUR],
  ['mon 09:00-10:00', 'UTC', 9 * HOUR, 9 * HOUR + 1, 0],
  ['mon 09:00-10:00', 'UTC', 10 * HOUR - 1, 10 * HOUR, 0],
  ['mon 09:00-10:00', 'UTC', 10 * HOUR, 24 * HOUR, undefined],
  ['mon 09:00-10:00', 'UTC', 10 * HOUR, 8 * 24 * HOUR, 7 * 24 * HOUR + 9 * HOUR],
  ['22:00-06:00', 'UTC', 5 * HOUR, 5 * HOUR + 1, 0],
  ['22:00-06:00', 'UTC', 6 * HOUR, 21 * HOUR, undefined],
  ['sat-mon 00:00-24:00', 'UTC', 23 * HOUR, 23 * HOUR + 1, 0],
  ['sat-mon 00:00-24:00', 'UTC', 24 * HOUR, 48 * HOUR, undefined],
  ['sun 23:00-01:00', 'UTC', 30 * MINUTE, HOUR, 0],
  ['mon 09:00-10:00', 'Asia/Kolkata', 0, 4 * HOUR, 3.5 * HOUR],
  ['tue-thu 12:00-13:00', 'America/New_York', 24 * HOUR, 42 * HOUR, 41 * HOUR],
])('%s in %s, asked %d ms into a week for a job until %d ms, begins after %s ms', (text, zone, ...times) => {
  const [from, until, inMs] = times;
  const found = parseBlackouts([text], zone).next(MONDAY + from, MONDAY + until);
  expect(found?.inMs).toBe(inMs === undefined ? undefined : inMs - (inMs === 0 ? 0 : from));
  if (found !== undefined) expect(found.text).toBe(`${text} (${zone})`);
});

test('in the week in which clocks go forward, hours are those of the local clock', () => {
  // Sunday, 28 March 2027: 02:00 becomes 03:00 in Berlin.
  const saturdayNoon = Date.UTC(2027, 2, 27, 11);
  const blackouts = parseBlackouts(['sun 08:00-09:00'], 'Europe/Berlin');
  expect(blackouts.next(saturdayNoon, saturdayNoon + 19 * HOUR)).toBeDefined();
  expect(blackouts.next(saturdayNoon, saturdayNoon + 19 * HOUR - 2 * MINUTE)).toBeUndefined();
});

test('whatever the hours, a job is declined exactly when one of its minutes lies in them', () => {
  const span = fc.tuple(fc.nat(6), fc.nat(23), fc.nat(24)).filter(([, from, to]) => from !== to);
  const days = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'];
  const two = (hour: number): string => String(hour).padStart(2, '0');
  fc.assert(
    fc.property(span, fc.nat(7 * 24 * 60 - 1), fc.integer({ min: 1, max: 9 * 24 * 60 }), (asked, start, length) => {
      const [day, from, to] = asked;
      const blackouts = parseBlackouts([`${days[day]} ${two(from)}:00-${two(to)}:00`], 'UTC');
      const isClosed = (minute: number): boolean => {
        const after = (((minute - (day * 24 + from) * 60) % (7 * 24 * 60)) + 7 * 24 * 60) % (7 * 24 * 60);
        return after < ((to > from ? to - from : to - from + 24) % 25) * 60;
      };
      const touched = Array.from({ length }, (_, index) => start + index).some(isClosed);
      const found = blackouts.next(MONDAY + start * MINUTE, MONDAY + (start + length) * MINUTE - 1);
      expect(found !== undefined).toBe(touched);
    }),
    { numRuns: 200 },
  );
});

test.each<[readonly string[], string, string]>([
  [
    ['monday 09:00-10:00'],
    'UTC',
    'the hours without sales are refused: "monday 09:00-10:00" names the days "monday", known are mon, tue, wed, thu, fri, sat, sun and ranges of two',
  ],
  [
    ['9-10'],
    'UTC',
    'the hours without sales are refused: "9-10" is none; write for example mon-fri 09:00-17:30, or 22:00-06:00',
  ],
  [
    ['09:00-09:00'],
    'UTC',
    'the hours without sales are refused: "09:00-09:00" is none; write for example mon-fri 09:00-17:30, or 22:00-06:00',
  ],
  [
    ['09:00-25:00'],
    'UTC',
    'the hours without sales are refused: "09:00-25:00" is none; write for example mon-fri 09:00-17:30, or 22:00-06:00',
  ],
  [
    [],
    'Europe/Atlantis',
    '"Europe/Atlantis" is no time zone; write one of the IANA names, for example Europe/Berlin or UTC',
  ],
])('hours %j in %s are refused', (texts, zone, message) => {
  expect(() => parseBlackouts(texts, zone)).toThrow(expect.objectContaining({ code: 'config/invalid', message }));
});

test('a refusal for the hours names the seconds that a job may still take, and a job that takes so many is sold to', () => {
  const closing = { ...policy, blackouts: parseBlackouts(['mon 09:00-10:00'], 'UTC') };
  const at = { nowMs: MONDAY + 8 * HOUR + 30 * MINUTE + 500, overheadMs: 150_000 };
  const refused = timeRefusal(closing, 3_600, at);
  expect(refused).toMatchObject({
    code: 'market/closed',
    message: 'the job may run 3600 s, the provider closes at mon 09:00-10:00 (UTC), which leaves 1649 s',
    context: { enough: '1649' },
  });
  expect(timeRefusal(closing, 1_649, at)).toBeUndefined();
  expect(timeRefusal(closing, 1_740, at)?.code).toBe('market/closed');
});

const DIGEST = `sha256:${'ab'.repeat(32)}`;
const IMAGE = `ghcr.io/acme/tool@${DIGEST}`;

test.each<[readonly string[], readonly string[], string | undefined]>([
  [[], [], undefined],
  [[IMAGE], [], undefined],
  [['ghcr.io/acme/tool'], [], undefined],
  [[DIGEST], [], undefined],
  [['ghcr.io/acme/*'], [], undefined],
  [['ghcr.io/acme'], [], `the provider runs chosen images only, and ${IMAGE} is none of them`],
  [['ghcr.io/other/*', 'tool'], [], `the provider runs chosen images only, and ${IMAGE} is none of them`],
  [[], ['ghcr.io/acme/*'], `the provider does not run ${IMAGE}`],
  [[IMAGE], [DIGEST], `the provider does not run ${IMAGE}`],
  [[], ['ghcr.io/acme/tools'], undefined],
])('with %j allowed and %j blocked, the answer is %s', (allowed, blocked, message) => {
  const refused = imageRefusal({ ...policy, images: imageRules(allowed, blocked) }, IMAGE);
  expect(refused?.message).toBe(message);
  if (message !== undefined) expect(refused?.code).toBe('market/image-refused');
});

test('prices follow the curve: at its points, between them in proportion, and outside as at its ends', () => {
  const curved = { ...policy, curve: parsePriceCurve(['20:50', '60:100', '100:300']) };
  const perCpu = [0, 0.2, 0.4, 0.6, 0.8, 1, 7].map((busy) => currentPrices(curved, busy).perCpu);
  expect(perCpu).toEqual([500n, 500n, 750n, 1_000n, 2_000n, 3_000n, 3_000n]);
  expect(currentPrices(curved, 0).perGpu).toBe(2n);
  expect(currentPrices(policy, 0.5)).toEqual(policy.prices);
});

test.each([
  [['0:100', '0:200'], 'its points do not follow one another from idle to busy'],
  [['50:100', '20:200'], 'its points do not follow one another from idle to busy'],
  [['101:100'], '"101:100" is no BUSY:PRICE, two numbers in percent, at most 100 and 10000'],
  [['half'], '"half" is no BUSY:PRICE, two numbers in percent, at most 100 and 10000'],
  [Array.from({ length: 9 }, (_, index) => `${index}:100`), 'it has 9 points, 8 are enough'],
])('the curve %j is refused', (texts, why) => {
  const message = `the price curve is refused: ${why}; write for example 0:100, 80:150, 100:300`;
  expect(() => parsePriceCurve(texts)).toThrow(expect.objectContaining({ code: 'config/invalid', message }));
});
