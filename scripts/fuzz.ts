/**
 * `node scripts/fuzz.ts --seconds N`: the chain program's C under AddressSanitizer, UBSan and libFuzzer
 * (test/fuzz/harness.c), starting from the committed corpus. Exit code 0: nothing found; 1: something was, and the input
 * is kept and named; 2: this machine cannot (clang 19 or its sanitiser libraries are missing).
 *
 * `--grow` writes the corpus anew afterwards: inputs of the model test, the old corpus and what was found to reach
 * further, reduced to a smallest set with the same coverage.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const FOLDER = join(import.meta.dirname, '../test/fuzz');
const CORPUS = join(FOLDER, 'corpus');
const CLANG = 'clang-19';
const FLAGS = (
  '-g -O1 -std=gnu11 -fno-strict-aliasing -Wall -Wextra -Werror -Wno-unused-parameter ' +
  // The program reads unaligned words in one place, the key after the instruction data, which its machine allows.
  '-fsanitize=address,undefined,fuzzer -fno-sanitize=alignment -fno-sanitize-recover=undefined'
).split(' ');
const INPUT_BYTES_MAX = 8_192;
const GAMES = 3_000;

async function main(): Promise<number> {
  const { values } = parseArgs({ options: { seconds: { type: 'string' }, grow: { type: 'boolean' } } });
  const seconds = Number(values.seconds ?? 60);
  const work = mkdtempSync(join(tmpdir(), 'molt-fuzz-'));
  try {
    const fuzzer = join(work, 'fuzzer');
    const built = spawnSync(CLANG, [...FLAGS, join(FOLDER, 'harness.c'), '-o', fuzzer], { encoding: 'utf8' });
    if (built.status !== 0) {
      console.log(
        `cannot fuzz: ${CLANG} does not build the harness (Debian: apt-get install clang-19 libclang-rt-19-dev)\n${built.stderr ?? ''}`,
      );
      return 2;
    }
    const found = join(work, 'corpus');
    mkdirSync(found);
    cpSync(CORPUS, found, { recursive: true });
    const crash = join(tmpdir(), `molt-fuzz-${process.pid}-`);
    const run = spawnSync(
      fuzzer,
      [`-max_total_time=${seconds}`, `-max_len=${INPUT_BYTES_MAX}`, `-artifact_prefix=${crash}`, found],
      { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 },
    );
    if (run.status !== 0) {
      console.log(run.stderr.split('\n').slice(-60).join('\n'));
      console.log(`found something: the input is ${crash}*`);
      return 1;
    }
    console.log(/Done \d+ runs.*/.exec(run.stderr)?.[0] ?? 'done');
    console.log(`coverage: ${/.*cov: (\d+)(?![\s\S]*cov: )/.exec(run.stderr)?.[1] ?? 'unknown'} edges`);
    if (values.grow) await grow(fuzzer, found, work);
    return 0;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

async function grow(fuzzer: string, found: string, work: string): Promise<void> {
  const seeds = join(work, 'seeds');
  const merged = join(work, 'merged');
  mkdirSync(seeds);
  mkdirSync(merged);
  const { makeSeeds } = await import('../test/fuzz/seeds.ts');
  for (const [index, seed] of makeSeeds(GAMES, 7).entries()) writeFileSync(join(seeds, String(index)), seed);
  const limit = `-max_len=${INPUT_BYTES_MAX}`;
  // One input per branch is enough; how often it was taken does not matter.
  execFileSync(fuzzer, ['-set_cover_merge=1', '-use_counters=0', limit, merged, seeds, found], { stdio: 'ignore' });
  rmSync(CORPUS, { recursive: true, force: true });
  mkdirSync(CORPUS);
  for (const name of readdirSync(merged)) copyFileSync(join(merged, name), join(CORPUS, name));
  console.log(`corpus: ${readdirSync(CORPUS).length} inputs`);
}

process.exitCode = await main();
