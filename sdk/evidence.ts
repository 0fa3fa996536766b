/**
 * What this buyer could show verifiers about its leases: the accepted quote, the specification and, once it came, the proof.
 *
 * Kept from the opening of a lease until it is closed, in the buyer's folder where it has one, a file for each lease, readable
 * by its owner alone. It is written in the background: a crash in the same moment costs evidence and no job.
 */
import { mkdir, readFile, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

import type { Chain } from '../chain/index.ts';
import { type Address, parseAddress } from '../protocol/address.ts';
import type { Env } from '../protocol/env.ts';
import { replaceFile } from './journal.ts';

export interface LeaseEvidence {
  /** The signed message. */
  readonly quote: Uint8Array;
  /** dag-cbor. */
  readonly spec: Uint8Array;
  /** DSSE JSON, as the provider sent it. */
  readonly proof?: Uint8Array;
}

export interface KeptEvidence extends AsyncDisposable {
  keep(lease: Address, evidence: LeaseEvidence): void;
  of(lease: Address): Promise<LeaseEvidence | undefined>;
  /** The lease is closed. */
  forget(lease: Address): void;
}

const FOLDER = 'evidence';
/** A lease may be seen on chain later than its evidence is written. */
const YOUNG_MS = 3_600_000;

/** Drops in the background what an earlier client kept of leases that are closed by now. */
export async function openEvidence(
  env: Env,
  options: { readonly chain: Chain; readonly buyer: Address; readonly journal: string | undefined },
): Promise<KeptEvidence> {
  const { chain, buyer, journal } = options;
  const folder = journal === undefined ? undefined : join(journal, FOLDER);
  if (folder !== undefined) await mkdir(folder, { recursive: true, mode: 0o700 });
  const kept = new Map<Address, LeaseEvidence>();
  const pathOf = (lease: Address): string | undefined => folder && join(folder, `${lease}.json`);
  let work: Promise<void> = Promise.resolve();
  const enqueue = (task: () => Promise<void>): void => {
    work = work.then(task).catch((error: unknown) => env.logger.log('warn', 'evidence was not kept', { error }));
  };
  if (folder !== undefined) enqueue(() => prune(env, folder, { chain, buyer }));
  return {
    keep: (lease, evidence) => {
      kept.set(lease, evidence);
      const path = pathOf(lease);
      if (path !== undefined) enqueue(() => replaceFile(path, encode(evidence)));
    },
    of: async (lease) => {
      const path = pathOf(lease);
      return kept.get(lease) ?? (path === undefined ? undefined : await read(path));
    },
    forget: (lease) => {
      kept.delete(lease);
      const path = pathOf(lease);
      if (path !== undefined) enqueue(() => rm(path, { force: true }));
    },
    [Symbol.asyncDispose]: () => work,
  };
}

async function prune(env: Env, folder: string, of: { readonly chain: Chain; readonly buyer: Address }): Promise<void> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.json'));
  if (names.length === 0) return;
  const open = new Set((await of.chain.leases({ delegate: of.buyer })).map(({ address }) => `${address}.json`));
  for (const name of names) {
    if (open.has(name)) continue;
    const path = join(folder, name);
    const { mtimeMs } = await stat(path);
    if (env.clock.now() - mtimeMs > YOUNG_MS) await rm(path, { force: true });
  }
}

/** Whether a client with this folder has something to show about a lease. */
export async function hasEvidence(journal: string, lease: Address): Promise<boolean> {
  return (await read(join(journal, FOLDER, `${parseAddress(lease)}.json`))) !== undefined;
}

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');

function encode({ quote, spec, proof }: LeaseEvidence): string {
  return JSON.stringify({ version: 1, quote: text(quote), spec: text(spec), proof: proof && text(proof) });
}

/** A file that cannot be read is none. Verifiers check what it says. */
async function read(path: string): Promise<LeaseEvidence | undefined> {
  try {
    const kept = JSON.parse(await readFile(path, 'utf8')) as Readonly<Record<string, unknown>>;
    const { version, quote, spec, proof } = kept;
    if (version !== 1 || typeof quote !== 'string' || typeof spec !== 'string') return undefined;
    const bytes = (given: string): Uint8Array => new Uint8Array(Buffer.from(given, 'base64'));
    return {
      quote: bytes(quote),
      spec: bytes(spec),
      ...(typeof proof === 'string' ? { proof: bytes(proof) } : {}),
    };
  } catch {
    return undefined;
  }
}
