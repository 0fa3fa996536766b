/** Expecting a refusal of the program, and remembering which ones were provoked. */
import { expect } from 'vitest';

import type { ProgramErrorName } from '../../chain/program-errors.ts';
import type { Outcome } from './market.ts';

export const provoked: Set<string> = new Set();

/** The program refused with exactly this error. */
export function expectRefusal(outcome: Outcome, name: ProgramErrorName): void {
  expect(outcome.refused ?? outcome.failed ?? 'accepted').toBe(name);
  expect(outcome.logs.some((line) => line === `Program log: ${name}`)).toBe(true);
  provoked.add(name);
}
