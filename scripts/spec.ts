/**
 * The tables of protocol/SPEC.md, written from the code: `node scripts/spec.ts` rewrites what stands between the markers
 * `<!-- table: NAME -->` and `<!-- end -->`; `--check` fails when the committed text differs. The words around the tables
 * are written by people.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { z } from 'zod';

import { EXIT_REASONS, predicateSchema } from '../attestation/statement.ts';
import { ADMISSION_LIMITS } from '../market/index.ts';
import { COMMIT_KINDS } from '../protocol/commit.ts';
import { KINDS } from '../protocol/envelope.ts';
import { ERRORS } from '../protocol/errors.ts';
import { JOB_PHASES } from '../protocol/job.ts';
import { jobSpecSchema } from '../protocol/job-spec.ts';
import { LEASE_EVENTS } from '../protocol/lease.ts';
import { LIMITS } from '../protocol/limits.ts';
import { RESOURCE_CLASSES, RUNTIMES } from '../protocol/messages.ts';
import { STREAMS } from '../protocol/wire.ts';

type Row = readonly (string | number)[];

const ADMISSION_BUCKETS = [
  'offersPerOrigin',
  'bidsPerOrigin',
  'offersPerForwarder',
  'offersInAll',
  'bidsPerForwarder',
  'bidsInAll',
  'bidsBlameless',
] as const;

const TABLES: Readonly<Record<string, () => string>> = {
  kinds: () =>
    table(
      ['kind', 'number', 'bytes at most', 'lives at most, ms'],
      Object.entries(KINDS).map(([kind, { number, bytesMax, lifetimeMs }]) => [kind, number, bytesMax, lifetimeMs]),
    ),
  runtimes: () =>
    table(
      ['runtime', 'number'],
      RUNTIMES.map((runtime, index) => [runtime, index + 1]),
    ),
  classes: () =>
    table(
      ['resource class', 'who trades in it'],
      RESOURCE_CLASSES.map((name) => [name, name === 'gpu' ? 'resources with at least one GPU' : 'all others']),
    ),
  streams: () =>
    table(
      ['stream', 'protocol', 'frame bytes at most', 'streams per peer', 'streams in all'],
      Object.entries(STREAMS).map(([name, stream]) => [
        name,
        `\`${stream.protocol}\``,
        stream.maxFrameBytes,
        stream.maxStreamsPerPeer,
        stream.maxStreams,
      ]),
    ),
  admission: () =>
    table(
      ['bucket', 'burst', 'per second'],
      ADMISSION_BUCKETS.map((name) => [name, ADMISSION_LIMITS[name].burst, ADMISSION_LIMITS[name].perSecond]),
    ),
  limits: () =>
    table(
      ['limit', 'value'],
      Object.entries(LIMITS).map(([name, value]) => [name, value]),
    ),
  lease: () =>
    table(
      ['event', 'from', 'to', 'signed by', 'accepted when', 'pays the provider'],
      Object.entries(LEASE_EVENTS).map(([event, { from, to, by, when, pays }]) => [
        event,
        from.join(', '),
        to,
        by,
        when,
        pays,
      ]),
    ),
  phases: () =>
    table(
      ['phase', 'longest stay, ms', 'a miss is called', 'meaning'],
      Object.entries(JOB_PHASES).map(([phase, { deadlineMs, onMiss, meaning }]) => [
        phase,
        deadlineMs ?? '–',
        `\`${onMiss}\``,
        meaning,
      ]),
    ),
  'job-spec': () => table(['member', 'type', 'default', 'bounds'], schemaRows(jobSpecSchema)),
  commits: () =>
    table(
      ['kind', 'number'],
      Object.entries(COMMIT_KINDS).map(([kind, number]) => [kind, number]),
    ),
  predicate: () => table(['member', 'type', 'default', 'bounds'], schemaRows(predicateSchema)),
  exits: () =>
    table(
      ['exit.reason'],
      EXIT_REASONS.map((reason) => [`\`${reason}\``]),
    ),
  errors: () =>
    table(
      ['code', 'blame', 'retry', 'meaning'],
      Object.entries(ERRORS).map(([code, { blame, retry, meaning }]) => [`\`${code}\``, blame, retry, meaning]),
    ),
};

/** `text` with every marked table written anew. Throws on a marker that names no table, and on a table without marker. */
export function renderSpec(text: string): string {
  const used = new Set<string>();
  const rendered = text.replaceAll(/(<!-- table: (\S+) -->\n)[\s\S]*?(<!-- end -->)/g, (_all, start, name, end) => {
    const make = TABLES[String(name)];
    if (make === undefined) throw new TypeError(`SPEC.md asks for a table "${name}"; scripts/spec.ts has none`);
    used.add(String(name));
    return `${start}\n${make()}\n\n${end}`;
  });
  const unused = Object.keys(TABLES).filter((name) => !used.has(name));
  if (unused.length > 0) throw new TypeError(`SPEC.md has no place for: ${unused.join(', ')}`);
  return rendered;
}

function table(head: readonly string[], rows: readonly Row[]): string {
  const line = (cells: Row): string => `| ${cells.map((cell) => String(cell).replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

interface Schema {
  readonly type?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly enum?: readonly string[];
  readonly const?: unknown;
  readonly default?: unknown;
  readonly pattern?: string;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly maxItems?: number;
}

/** One row per member, in order, nested ones as `a.b` and `a[].b`. */
function schemaRows(schema: z.ZodType): Row[] {
  return memberRows(z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as Schema, '');
}

function memberRows(schema: Schema, path: string): Row[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, member]) => {
    const here = `${path}${name}`;
    const required = schema.required?.includes(name) ?? false;
    // An object is told by its members; only one that may be absent has a row of its own.
    const isPlain = member.properties === undefined || (!required && member.default === undefined);
    const row: Row = [
      `\`${here}\``,
      typeOf(member),
      member.default === undefined ? (required ? 'required' : 'optional') : code(member.default),
      bounds(member),
    ];
    return [
      ...(isPlain ? [row] : []),
      ...memberRows(member, `${here}.`),
      ...memberRows(member.items ?? {}, `${here}[].`),
    ];
  });
}

function typeOf(schema: Schema): string {
  if (schema.const !== undefined) return code(schema.const);
  if (schema.enum !== undefined) return schema.enum.map(code).join(', ');
  if (schema.items !== undefined)
    return schema.items.properties === undefined ? `list of ${typeOf(schema.items)}` : 'list';
  return schema.type ?? 'any';
}

function bounds(schema: Schema): string {
  const { minimum, maximum, minLength, maxLength, maxItems, pattern } = schema;
  const parts = [
    minimum === undefined && maximum === undefined ? '' : `${minimum ?? ''} … ${maximum ?? ''}`,
    minLength === undefined ? '' : `≥ ${minLength} characters`,
    maxLength === undefined ? '' : `≤ ${maxLength} characters`,
    maxItems === undefined ? '' : `≤ ${maxItems} entries`,
    pattern === undefined ? '' : code(pattern),
    schema.items === undefined || schema.items.properties !== undefined ? '' : bounds(schema.items),
  ];
  return parts.filter((part) => part !== '').join(', ');
}

function code(value: unknown): string {
  return `\`${typeof value === 'string' && value !== '' ? value : JSON.stringify(value)}\``;
}

if (import.meta.main) {
  const path = join(import.meta.dirname, '../protocol/SPEC.md');
  const committed = readFileSync(path, 'utf8');
  const rendered = renderSpec(committed);
  if (!process.argv.includes('--check')) writeFileSync(path, rendered);
  else if (rendered !== committed) {
    console.error(
      'the tables of protocol/SPEC.md differ from the code: run `node scripts/spec.ts` and commit the result',
    );
    process.exitCode = 1;
  }
}
