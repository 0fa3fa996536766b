/** The committed program is what its source builds, and the linker refuses what Solana's loader would not take. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { describe, expect, test } from 'vitest';

import { link } from '../../scripts/link.ts';

/** The compiler of the committed file. */
const CLANG = ['clang', '19'].join('-');
const root = fileURLToPath(new URL('../..', import.meta.url));

function hasClang(): boolean {
  try {
    execFileSync(CLANG, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

describe.skipIf(!hasClang())('with clang 19', () => {
  test('chain/program/molt.so, layout.h and idl.json are byte for byte what `npm run program` makes', () => {
    const text = execFileSync(process.execPath, ['scripts/program.ts', '--check'], { cwd: root, encoding: 'utf8' });
    expect(text).toMatch(/^molt\.so is what its source builds/);
  });

  const compile = (source: string): Buffer =>
    execFileSync(
      CLANG,
      ['-target', 'bpf', '-mcpu=v2', '-O2', '-ffreestanding', '-fno-builtin', '-x', 'c', '-c', '-', '-o', '-'],
      { input: source },
    );

  test('a program without an entrypoint, or with a writable global, is not linked', () => {
    expect(() => link(compile('int other(void) { return 1; }'))).toThrow('no entrypoint');
    expect(() => link(compile('int counter = 5; int entrypoint(void) { return ++counter; }'))).toThrow(
      'no writable globals',
    );
    expect(() => link(Buffer.from('not an object at all, whatever it is'))).toThrow('not a BPF ELF');
  });

  test('a small program links to an object whose addresses are file offsets', () => {
    const linked = link(
      compile(
        'extern void sol_log_(const char *, unsigned long long); int entrypoint(void) { sol_log_("hello", 5); return 0; }',
      ),
    );
    const entry = Number(linked.readBigUInt64LE(24));
    expect(entry).toBe(64 + 3 * 56);
    expect(linked.includes(Buffer.from('hello\0'))).toBe(true);
    expect(linked.includes(Buffer.from('\0sol_log_\0'))).toBe(true);
  });
});

test('the committed program is at most 48 KiB', () => {
  expect(readFileSync(new URL('../../chain/program/molt.so', import.meta.url)).length).toBeLessThanOrEqual(48 * 1024);
});
