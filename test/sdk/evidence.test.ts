/** Goal: what a buyer could show about a lease outlives its client until the lease is closed. Method: a folder, and a chain by hand. */
import { mkdtemp, readdir, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import type { Chain } from '../../chain/index.ts';
import type { Address } from '../../protocol/address.ts';
import { systemEnv } from '../../protocol/env.ts';
import { type KeptEvidence, hasEvidence, openEvidence } from '../../sdk/evidence.ts';
import { address } from '../market/fixtures.ts';

const lease = address('lease');
const evidence = { quote: Uint8Array.of(1), spec: Uint8Array.of(2, 3) };
let journal: string;
let open: Address[];
beforeEach(async () => {
  journal = await mkdtemp(join(tmpdir(), 'molt-evidence-'));
  open = [];
});
afterEach(() => rm(journal, { recursive: true, force: true }));

const chain = { leases: async () => open.map((one) => ({ address: one })) } as unknown as Chain;
const client = (): Promise<KeptEvidence> => openEvidence(systemEnv(), { chain, buyer: address('buyer'), journal });

test('the next client has it, with the proof that came later, until the lease is closed', async () => {
  {
    await using kept = await client();
    kept.keep(lease, evidence);
    kept.keep(lease, { ...evidence, proof: Uint8Array.of(4) });
  }
  const path = join(journal, 'evidence', `${lease}.json`);
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  expect(await hasEvidence(journal, lease)).toBe(true);
  {
    await using kept = await client();
    expect(await kept.of(lease)).toEqual({ ...evidence, proof: Uint8Array.of(4) });
    kept.forget(lease);
  }
  expect(await readdir(join(journal, 'evidence'))).toEqual([]);
  expect(await hasEvidence(journal, lease)).toBe(false);
});

test('what is old and of no open lease is dropped by the next client; what cannot be read is none', async () => {
  const [closed, running, broken] = [address('closed'), address('running'), address('broken')];
  {
    await using kept = await client();
    for (const one of [closed, running, lease]) kept.keep(one, evidence);
  }
  const path = (one: Address): string => join(journal, 'evidence', `${one}.json`);
  await writeFile(path(broken), '{"version":1,"quote":7}');
  for (const one of [closed, running]) await utimes(path(one), 1, 1);
  open = [running];
  {
    await using kept = await client();
    expect(await kept.of(broken)).toBeUndefined();
  }
  const left = [lease, running, broken].map((one) => `${one}.json`);
  expect((await readdir(join(journal, 'evidence'))).toSorted()).toEqual(left.toSorted());
});

test('without a folder it is kept for as long as the client lives', async () => {
  await using kept = await openEvidence(systemEnv(), { chain, buyer: address('buyer'), journal: undefined });
  kept.keep(lease, evidence);
  expect(await kept.of(lease)).toEqual(evidence);
  kept.forget(lease);
  expect(await kept.of(lease)).toBeUndefined();
});
