/**
 * A short run of the fuzzer (test/fuzz/harness.c): the program's C under AddressSanitizer and UBSan, from the committed
 * corpus on. `node scripts/fuzz.ts --seconds N` runs longer.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const SECONDS = 6;
const CLANG = ['clang', '19'].join('-');

/** Whether clang 19 is here with its sanitiser libraries. */
function canFuzz(): boolean {
  const source = 'int LLVMFuzzerTestOneInput(const char *data, unsigned long size) { return 0; }';
  const flags = ['-fsanitize=address,undefined,fuzzer', '-x', 'c', '-', '-o', '/dev/null'];
  return spawnSync(CLANG, flags, { input: source }).status === 0;
}

describe.skipIf(!canFuzz())('with clang 19 and libclang-rt-19-dev', () => {
  test('the fuzzer finds nothing, starting from a corpus that reaches deep', () => {
    expect(readdirSync(`${root}/test/fuzz/corpus`).length).toBeGreaterThan(100);
    const run = spawnSync(process.execPath, ['scripts/fuzz.ts', '--seconds', String(SECONDS)], {
      cwd: root,
      encoding: 'utf8',
    });
    expect([run.status, run.stdout]).toEqual([0, expect.stringMatching(/^Done \d+ runs/)]);
    // Branches seen, of the program alone about a thousand: fewer would mean that the corpus no longer fits.
    expect(Number(/coverage: (\d+)/.exec(run.stdout)?.[1])).toBeGreaterThan(800);
  });
});
