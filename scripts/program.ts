/**
 * Builds the chain program: layouts → C header → object (stock clang) → shared object (scripts/link.ts), and the interface
 * that others read it by (scripts/idl.ts).
 *
 * `npm run program` writes chain/program/layout.h, molt.so and idl.json. `npm run program -- --check` builds into a temporary
 * folder and fails when the committed files differ; byte-identical output needs the compiler that made them, clang 19.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import {
  ACCOUNTS,
  EVENTS,
  INSTRUCTIONS,
  LEASE_ENDINGS,
  LEASE_STATES,
  LIMITS,
  RECORDS,
  SLASH_REASONS,
  VOTES,
  fieldSize,
  layoutSize,
  type AccountMeta,
  type Field,
  type FieldType,
} from '../chain/layout.ts';
import { PROGRAM_ERRORS } from '../chain/program-errors.ts';
import { assert } from '../protocol/errors.ts';
import { idl } from './idl.ts';
import { link } from './link.ts';

const FOLDER = fileURLToPath(new URL('../chain/program/', import.meta.url));
/** Of the compiler that made the committed file. */
const CLANG_MAJOR = 19;
const FLAGS = (
  '-target bpf -mcpu=v2 -O2 -std=c11 -ffreestanding -fno-builtin -fno-strict-aliasing ' +
  '-Wall -Wextra -Werror -Wno-unused-parameter -mllvm -bpf-stack-size=4096 -c'
).split(' ');

const capital = (name: string): string => name.charAt(0).toUpperCase() + name.slice(1);

function cField(name: string, type: FieldType): string {
  if (typeof type === 'object') {
    if ('keys' in type) return `Key ${name}[${type.keys}];`;
    if ('record' in type) return `${capital(type.record)} ${name};`;
    return type.bytes === 32 ? `Key ${name};` : `u8 ${name}[${type.bytes}];`;
  }
  return `${type === 'key' ? 'Key' : type} ${name};`;
}

function cStruct(name: string, fields: readonly Field[]): string {
  let offset = 0;
  for (const [field, type] of fields) {
    const { size, align } = fieldSize(type);
    assert(
      offset % align === 0,
      `${name}.${field} is at ${offset}, not at a multiple of ${align}: add spare bytes before it`,
    );
    offset += size;
  }
  const lines = fields.map(([field, type]) => `  ${cField(field, type)}`);
  const check = `_Static_assert(sizeof(${name}) == ${layoutSize(fields)}, "${name} has gaps");`;
  return `typedef struct {\n${lines.join('\n')}\n} ${name};\n${check}`;
}

const constants = (prefix: string, values: Readonly<Record<string, number>>): string =>
  Object.entries(values)
    .map(([name, value]) => `#define ${prefix}${name} ${value}`)
    .join('\n');

const mask = (accounts: readonly AccountMeta[], key: 'signer' | 'writable'): number =>
  accounts.reduce((bits, account, index) => bits | (account[key] === true ? 1 << index : 0), 0);

function instructionTable(): string {
  const list = Object.entries(INSTRUCTIONS);
  const parts = list.map(([name, { accounts, fields }]) => {
    const pointers = accounts.map((account) => `  Account *${account.name};`).join('\n');
    return `${cStruct(`${capital(name)}Data`, fields)}\ntypedef struct {\n${pointers}\n} ${capital(name)}Accounts;`;
  });
  const specs = list.map(([name, { accounts, fields, tag }], index) => {
    assert(tag === index, `${name} has tag ${tag} but stands at ${index}`);
    const numbers = [layoutSize(fields), accounts.length, mask(accounts, 'signer'), mask(accounts, 'writable')];
    return `    {${numbers.join(', ')}}, /* ${name} */`;
  });
  // The accounts that every ending touches, and the payout account where one is paid; in the same order everywhere.
  const closing = INSTRUCTIONS.settle.accounts.slice(2, -1).map(({ name }, index) => [name, index] as const);
  return [
    constants('INSTRUCTION_', Object.fromEntries(list.map(([name, { tag }]) => [name, tag]))),
    `#define INSTRUCTION_COUNT ${list.length}`,
    `#define ACCOUNTS_MAX ${Math.max(...list.map(([, { accounts }]) => accounts.length))}`,
    constants('CLOSING_', Object.fromEntries(closing)),
    ...parts,
    '/** Signers and writables have one bit per account. */',
    'typedef struct {\n  u16 data_size;\n  u16 account_count;\n  u32 signers;\n  u32 writables;\n} InstructionSpec;',
    `static const InstructionSpec INSTRUCTIONS[INSTRUCTION_COUNT] = {\n${specs.join('\n')}\n};`,
  ].join('\n\n');
}

function errorTable(): string {
  const width = Math.max(...PROGRAM_ERRORS.map(({ name }) => name.length)) + 1;
  return [
    PROGRAM_ERRORS.map(({ name, number, text }) => `#define ERROR_${name} ${number} /* ${text} */`).join('\n'),
    `#define ERROR_FIRST ${PROGRAM_ERRORS[0]?.number}`,
    `#define ERROR_COUNT ${PROGRAM_ERRORS.length}`,
    `static const char ERROR_NAMES[ERROR_COUNT][${width}] = {\n${PROGRAM_ERRORS.map(({ name }) => `    "${name}",`).join('\n')}\n};`,
  ].join('\n');
}

/** The C side of chain/layout.ts and chain/program-errors.ts. */
function header(): string {
  const tagged = { ...ACCOUNTS, ...EVENTS };
  const tags = Object.fromEntries(Object.entries(tagged).map(([name, { tag }]) => [capital(name), tag]));
  return `${[
    '/* Generated by `npm run program` from chain/layout.ts and chain/program-errors.ts: change those. */\n#pragma once',
    Object.entries(RECORDS)
      .map(([name, fields]) => cStruct(capital(name), fields))
      .join('\n\n'),
    Object.entries(tagged)
      .map(([name, { fields }]) => cStruct(capital(name), fields))
      .join('\n\n'),
    constants('TAG_', tags),
    constants('LEASE_', {
      RUNNING: LEASE_STATES.running,
      PROVEN: LEASE_STATES.proven,
      DISPUTED: LEASE_STATES.disputed,
    }),
    constants('VOTE_', VOTES),
    constants('SLASH_', SLASH_REASONS),
    constants('ENDING_', LEASE_ENDINGS),
    constants('', {
      FEE_BPS_MAX: LIMITS.feeBpsMax,
      COMMISSION_BPS_MAX: LIMITS.commissionBpsMax,
      RESERVE_BPS_MAX: LIMITS.reserveBpsMax,
      SLASH_BPS_MAX: LIMITS.slashBpsMax,
      DELEGATES_MAX: LIMITS.delegatesMax,
      VERIFIERS_MAX: LIMITS.verifiersMax,
      SECONDS_MAX: LIMITS.secondsMax,
      VOTE_SECONDS_MAX: LIMITS.voteSecondsMax,
      PARAMETER_DELAY_SECONDS: LIMITS.parameterDelaySeconds,
      JAIL_SECONDS: LIMITS.jailSeconds,
      SHARES_MIN: LIMITS.sharesMin,
      DELEGATION_FACTOR: LIMITS.delegationFactor,
      REPORTER_BPS: LIMITS.reporterBps,
      HARMED_BPS: LIMITS.harmedBps,
      DAY_SECONDS: 86_400,
    }),
    instructionTable(),
    errorTable(),
  ].join('\n\n')}\n`;
}

/** A clang that can build, with its major version. */
function findClang(): { readonly command: string; readonly major: number } | undefined {
  for (const command of [`clang-${CLANG_MAJOR}`, 'clang']) {
    try {
      const version = /version (\d+)\./.exec(execFileSync(command, ['--version'], { encoding: 'utf8' }));
      const major = Number(version?.[1] ?? 0);
      if (major >= 17) return { command, major };
    } catch {
      continue;
    }
  }
  return undefined;
}

function build(command: string): { readonly header: string; readonly program: Buffer } {
  const folder = mkdtempSync(join(tmpdir(), 'molt-program-'));
  try {
    writeFileSync(join(folder, 'layout.h'), header());
    const object = join(folder, 'molt.o');
    for (const name of readdirSync(FOLDER)) {
      if (/\.[ch]$/.test(name) && name !== 'layout.h') copyFileSync(join(FOLDER, name), join(folder, name));
    }
    execFileSync(command, [...FLAGS, 'molt.c', '-o', object], { cwd: folder, stdio: 'inherit' });
    return { header: header(), program: link(readFileSync(object)) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function main(): number {
  const check = process.argv.includes('--check');
  const clang = findClang();
  if (!clang || (check && clang.major !== CLANG_MAJOR)) {
    const found = clang ? `found clang ${clang.major}` : 'found no clang 17 or later';
    console.log(
      `${check ? 'skipped' : 'cannot build'}: ${found}; install clang-${CLANG_MAJOR} (Debian: apt-get install clang-19)`,
    );
    return check ? 0 : 1;
  }
  const built = build(clang.command);
  const { version } = JSON.parse(readFileSync(join(FOLDER, '../../package.json'), 'utf8')) as { version: string };
  if (check) {
    const same =
      readFileSync(join(FOLDER, 'layout.h'), 'utf8') === built.header &&
      readFileSync(join(FOLDER, 'idl.json'), 'utf8') === idl(version) &&
      readFileSync(join(FOLDER, 'molt.so')).equals(built.program);
    console.log(
      same
        ? `molt.so is what its source builds (${built.program.length} bytes)`
        : 'molt.so, layout.h or idl.json differ from their source: run `npm run program`',
    );
    return same ? 0 : 1;
  }
  writeFileSync(join(FOLDER, 'layout.h'), built.header);
  writeFileSync(join(FOLDER, 'idl.json'), idl(version));
  writeFileSync(join(FOLDER, 'molt.so'), built.program);
  console.log(`molt.so: ${built.program.length} bytes, clang ${clang.major}`);
  return 0;
}

process.exitCode = main();
