/**
 * Goal: the import rules of the folder tree hold, and a broken one says why it exists.
 * Method: every import of every source file, static and dynamic, types included, against the tables below.
 */
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';

import { expect, test } from 'vitest';

const ROOT = join(import.meta.dirname, '..');

interface Edge {
  readonly from: string;
  /** A file of this repository, or the name of a package or `node:` module. */
  readonly to: string;
  /** `type`: gone before it runs. `lazy`: loaded when asked for, by `import(…)`. */
  readonly when?: 'type' | 'lazy';
}

/** Folder → folders it may import, with the reason. Not listed means never. */
const ALLOWED: Readonly<Record<string, { readonly mayImport: readonly string[]; readonly because: string }>> = {
  protocol: {
    mayImport: [],
    because: 'protocol is pure meaning that another implementation must reproduce; it depends on nobody here',
  },
  market: {
    mayImport: ['protocol'],
    because: 'the market is audited and replaced alone: it never sees chain or attestation, only what they all speak',
  },
  attestation: {
    mayImport: ['protocol'],
    because: 'anyone must be able to verify a proof with attestation and protocol alone',
  },
  chain: {
    mayImport: ['protocol'],
    because: 'the chain client and program are audited and replaced alone',
  },
  node: {
    mayImport: ['protocol', 'market', 'attestation', 'chain', 'sdk'],
    because: "node is the composition root; its command line is also a buyer, through the SDK's door",
  },
  sdk: {
    mayImport: ['protocol', 'market', 'attestation', 'chain', 'node/mesh'],
    because: 'a buyer is a light peer: of node it uses the mesh only, so that no engine enters its graph',
  },
};

/** Only these files of node/ may be a buyer; the provider never is. */
const SDK_USERS = /^node\/cli(?:\.ts$|\/)/;

/** Files that may be entered beside a folder's index.ts, for their types only. */
const SIDE_DOORS: Readonly<Record<string, string>> = {
  'market/ports.ts': 'what implements the ports must not load the market',
  'sdk/progress.ts': "what draws a job on a terminal must not load the buyer for its events' names",
};

/** What pure folders may take from outside this repository. */
const PURE: Readonly<Record<string, readonly string[]>> = {
  protocol: [
    'node:crypto',
    '@ipld/dag-cbor',
    '@multiformats/multiaddr',
    '@noble/ed25519',
    '@noble/hashes',
    'multiformats',
    'protons-runtime',
    'uint8arraylist',
    'zod',
  ],
  market: ['node:crypto', 'multiformats'],
  attestation: ['node:crypto', 'multiformats', 'zod'],
};

/** What no chain of imports from sdk/index.ts may lead to. */
const NEVER_FOR_BUYERS = ['dockerode', 'tar-stream', 'commander'];
/** What a buyer must not load with the SDK; asking for a local chain may. */
const LAZY_FOR_BUYERS = ['fastify', 'litesvm'];

const files = globSync('{protocol,market,attestation,chain,node,sdk}/**/*.ts', { cwd: ROOT })
  .map((path) => path.split('\\').join('/'))
  .filter((path) => !path.endsWith('.d.ts'));
const known = new Set(files);

const edges: readonly Edge[] = files.flatMap((from) => edgesOf(from, readFileSync(join(ROOT, from), 'utf8')));

/** From `import … from`, `export … from`, `import '…'` and `import('…')`. */
function edgesOf(from: string, source: string): Edge[] {
  const code = source.replaceAll(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '');
  const pattern =
    /^\s*(?:import|export)\b([^'";]*?)\bfrom\s*['"]([^'"]+)['"]|^\s*import\s*['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]/gm;
  return [...code.matchAll(pattern)].map(([, clause, named, bare, lazy]) => {
    const specifier = named ?? bare ?? lazy ?? '';
    const to = specifier.startsWith('.') ? posix.join(dirname(from), specifier) : packageOf(specifier);
    if (lazy !== undefined) return { from, to, when: 'lazy' };
    return clause?.trimStart().startsWith('type ') ? { from, to, when: 'type' } : { from, to };
  });
}

function packageOf(specifier: string): string {
  const parts = specifier.split('/');
  return specifier.startsWith('@') ? parts.slice(0, 2).join('/') : (parts[0] ?? specifier);
}

function isOurs(path: string): boolean {
  return Object.hasOwn(ALLOWED, folderOf(path)) && path.includes('/');
}

function folderOf(path: string): string {
  return path.split('/', 1)[0] ?? '';
}

/** Broken folder edges, each with its reason. */
function brokenEdges(all: readonly Edge[]): string[] {
  return all.flatMap(({ from, to }) => {
    const source = folderOf(from);
    if (!isOurs(to) || folderOf(to) === source) return [];
    const rule = ALLOWED[source];
    const allowed = rule?.mayImport.some((folder) => to.startsWith(`${folder}/`)) ?? false;
    const sdkByProvider = source === 'node' && folderOf(to) === 'sdk' && !SDK_USERS.test(from);
    return allowed && !sdkByProvider ? [] : [`${from} imports ${to}, but ${rule?.because}`];
  });
}

/** A folder with an index.ts, and every top folder but protocol, is entered through its index.ts. */
function brokenDoors(all: readonly Edge[], exists: (path: string) => boolean): string[] {
  return all.flatMap(({ from, to, when }) => {
    if (!isOurs(to) || folderOf(to) === 'protocol') return [];
    if (Object.hasOwn(SIDE_DOORS, to) && when === 'type') return [];
    const folders = to.split('/').slice(0, -1);
    const entered = folders
      .map((_, depth) => folders.slice(0, depth + 1).join('/'))
      .filter((folder) => !from.startsWith(`${folder}/`));
    const closed = entered.find((folder) => exists(`${folder}/index.ts`) && to !== `${folder}/index.ts`);
    return closed === undefined ? [] : [`${from} imports ${to}, but a folder is entered through ${closed}/index.ts`];
  });
}

function impure(all: readonly Edge[]): string[] {
  return all.flatMap(({ from, to }) => {
    const allowed = PURE[folderOf(from)];
    if (allowed === undefined || isOurs(to) || allowed.includes(to)) return [];
    return [`${from} imports ${to}, but ${folderOf(from)} is pure: it may use ${allowed.join(', ')}`];
  });
}

/** One cycle, as a path that ends where it starts, or nothing. */
function findCycle(all: readonly Edge[]): string[] {
  const next = new Map<string, string[]>();
  for (const { from, to } of all) next.set(from, [...(next.get(from) ?? []), to]);
  const done = new Set<string>();
  const visit = (path: readonly string[]): string[] => {
    const here = path.at(-1) ?? '';
    const seenAt = path.indexOf(here);
    if (seenAt < path.length - 1) return path.slice(seenAt);
    if (done.has(here)) return [];
    for (const to of next.get(here) ?? []) {
      const cycle = visit([...path, to]);
      if (cycle.length > 0) return cycle;
    }
    done.add(here);
    return [];
  };
  for (const from of next.keys()) {
    const cycle = visit([from]);
    if (cycle.length > 0) return cycle;
  }
  return [];
}

/** Everything that `start` loads, with the chain of imports that leads there. */
function reachable(all: readonly Edge[], start: string): ReadonlyMap<string, readonly string[]> {
  const found = new Map<string, readonly string[]>([[start, [start]]]);
  for (const [here, path] of found) {
    for (const { to } of all.filter(({ from }) => from === here)) if (!found.has(to)) found.set(to, [...path, to]);
  }
  return found;
}

test('the graph was read: files are found and every relative import leads to one', () => {
  expect(files.length).toBeGreaterThan(20);
  const lost = edges.filter(({ to }) => isOurs(to) && !known.has(to) && to !== 'protocol/molt.js');
  expect(lost).toEqual([]);
});

test('folders import only what the table allows', () => {
  expect(brokenEdges(edges)).toEqual([]);
});

test('folders are entered through their index.ts', () => {
  expect(brokenDoors(edges, (path) => known.has(path))).toEqual([]);
});

test('protocol, market and attestation use no I/O', () => {
  expect(impure(edges)).toEqual([]);
});

test('no file waits for itself while it is loaded', () => {
  expect(findCycle(edges.filter(({ when }) => when === undefined))).toEqual([]);
});

test('no container engine and no command line is in the graph of a buyer, and no chain server is loaded with it', () => {
  const everything = reachable(edges, 'sdk/index.ts');
  expect(everything.size).toBeGreaterThan(20);
  expect(NEVER_FOR_BUYERS.flatMap((name) => everything.get(name)?.join(' → ') ?? [])).toEqual([]);
  const loaded = reachable(
    edges.filter(({ when }) => when === undefined),
    'sdk/index.ts',
  );
  expect(loaded.size).toBeGreaterThan(20);
  expect(LAZY_FOR_BUYERS.flatMap((name) => loaded.get(name)?.join(' → ') ?? [])).toEqual([]);
});

test('each rule is broken by an import that breaks it, and says why', () => {
  const edge = (from: string, to: string): readonly Edge[] => [{ from, to }];
  expect(brokenEdges(edge('market/book.ts', 'chain/index.ts'))).toEqual([
    `market/book.ts imports chain/index.ts, but ${ALLOWED['market']?.because}`,
  ]);
  expect(brokenEdges(edge('sdk/molt.ts', 'node/runtime/index.ts'))).toHaveLength(1);
  expect(brokenEdges(edge('sdk/molt.ts', 'node/mesh/index.ts'))).toEqual([]);
  expect(brokenEdges(edge('node/provider/loop.ts', 'sdk/index.ts'))).toHaveLength(1);
  expect(brokenEdges(edge('node/cli/run.ts', 'sdk/index.ts'))).toEqual([]);
  expect(brokenEdges(edge('protocol/units.ts', 'market/index.ts'))).toHaveLength(1);
  const all = (): boolean => true;
  expect(brokenDoors(edge('node/node.ts', 'market/rank.ts'), all)).toEqual([
    'node/node.ts imports market/rank.ts, but a folder is entered through market/index.ts',
  ]);
  expect(brokenDoors(edge('node/node.ts', 'node/mesh/mesh.ts'), all)).toHaveLength(1);
  expect(brokenDoors(edge('node/mesh/gossip.ts', 'node/mesh/mesh.ts'), all)).toEqual([]);
  expect(brokenDoors([{ from: 'node/mesh/gossip.ts', to: 'market/ports.ts', when: 'type' }], all)).toEqual([]);
  expect(brokenDoors(edge('node/mesh/gossip.ts', 'market/ports.ts'), all)).toHaveLength(1);
  expect(impure(edge('market/book.ts', 'node:fs'))).toHaveLength(1);
  expect(findCycle([...edge('a', 'b'), ...edge('b', 'c'), ...edge('c', 'b')])).toEqual(['b', 'c', 'b']);
  const source =
    "import type { A } from './a.ts';\nexport {\n  type B,\n  b,\n} from '../b.ts';\nconst c = await import('c/d');";
  expect(edgesOf('sdk/x.ts', source)).toEqual([
    { from: 'sdk/x.ts', to: 'sdk/a.ts', when: 'type' },
    { from: 'sdk/x.ts', to: 'b.ts' },
    { from: 'sdk/x.ts', to: 'c', when: 'lazy' },
  ]);
});
