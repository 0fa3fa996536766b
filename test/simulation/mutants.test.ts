/** Goal: the list of faults fits the sources. That the invariants find them is `node scripts/simulate.ts --mutants`. */
import { expect, test } from 'vitest';

import { MUTANTS, placesOf } from './mutants.ts';

test.each(MUTANTS)('the fault "$name" can be put into $file', (mutant) => {
  expect(placesOf(mutant)).toBe(1);
});
