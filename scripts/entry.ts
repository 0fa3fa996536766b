/**
 * Builds the program of pooled containers: node/runtime/container/entry.c → entry-code.ts, for both architectures.
 *
 * `--check` fails when the committed file differs from what clang 19 makes of the source now. The text section is the
 * whole program; a relocation or a data section is an error of the source.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const folder = join(import.meta.dirname, '..', 'node', 'runtime', 'container');
const source = join(folder, 'entry.c');
const target = join(folder, 'entry-code.ts');
const ARCHITECTURES = ['x86_64', 'aarch64'] as const;
const FLAGS = [
  '-std=c11 -Os -ffreestanding -fno-builtin -fno-stack-protector -fno-asynchronous-unwind-tables -fno-jump-tables',
  '-mgeneral-regs-only -fPIC -Wall -Wextra -Werror',
].flatMap((line) => line.split(' '));
const ALLOCATED = 2n;
const RELOCATIONS = 4;

interface Section {
  readonly name: string;
  readonly type: number;
  readonly allocated: boolean;
  readonly bytes: Buffer;
}

function sectionsOf(object: Buffer): Section[] {
  const table = Number(object.readBigUInt64LE(40));
  const [size, count, nameIndex] = [object.readUInt16LE(58), object.readUInt16LE(60), object.readUInt16LE(62)];
  const headers = Array.from({ length: count }, (_, index) => object.subarray(table + index * size));
  const bytesOf = (header: Buffer): Buffer => {
    const offset = Number(header.readBigUInt64LE(24));
    return object.subarray(offset, offset + Number(header.readBigUInt64LE(32)));
  };
  const names = bytesOf(headers[nameIndex] ?? object);
  return headers.map((header) => {
    const at = header.readUInt32LE(0);
    return {
      name: names.toString('latin1', at, names.indexOf(0, at)),
      type: header.readUInt32LE(4),
      allocated: (header.readBigUInt64LE(8) & ALLOCATED) !== 0n,
      bytes: bytesOf(header),
    };
  });
}

function compile(clang: string, architecture: string): Buffer {
  const temporary = mkdtempSync(join(tmpdir(), 'molt-entry-'));
  try {
    const object = join(temporary, 'entry.o');
    const args = [`--target=${architecture}-linux-gnu`, ...FLAGS, '-c', source, '-o', object];
    const { status, stderr } = spawnSync(clang, args, { encoding: 'utf8' });
    if (status !== 0) throw new Error(stderr);
    const sections = sectionsOf(readFileSync(object));
    const wrong = sections.filter(
      ({ name, type, allocated, bytes }) => type === RELOCATIONS || (allocated && bytes.length > 0 && name !== '.text'),
    );
    if (wrong.length > 0) {
      throw new Error(`entry.c needs ${wrong.map(({ name }) => name).join(', ')}; write it so that it is text alone`);
    }
    return sections.find(({ name }) => name === '.text')?.bytes ?? Buffer.alloc(0);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

const clang = ['clang-19', 'clang'].find((name) =>
  (spawnSync(name, ['--version'], { encoding: 'utf8' }).stdout ?? '').includes('version 19.'),
);
if (clang === undefined) {
  console.error('clang 19 is needed (Debian: apt-get install clang-19)');
  process.exit(1);
}
const LINE = 112;
const codes = ARCHITECTURES.map((architecture) => {
  const text = compile(clang, architecture).toString('base64');
  const lines = text.match(new RegExp(`.{1,${LINE}}`, 'g')) ?? [];
  return `  ${architecture}: [\n${lines.map((line) => `    '${line}',`).join('\n')}\n  ].join(''),`;
});
const text = `/** Made from entry.c by scripts/entry.ts: machine code of the program of pooled containers, base64. */
export const ENTRY_CODE = {
${codes.join('\n')}
} as const;
`;
if (!process.argv.includes('--check')) writeFileSync(target, text);
else if (readFileSync(target, 'utf8') !== text) {
  console.error('entry-code.ts is not what clang 19 makes of entry.c; run node scripts/entry.ts');
  process.exit(1);
}
