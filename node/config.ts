/**
 * Configuration: one table of settings, from which come the schema, the environment names, the command-line flags, the
 * help and the README's table.
 *
 * A value is taken from the flag, else from the environment (`MOLT_` and the key in capitals), else from `config.json`
 * in the home directory, else from the default here. Unknown keys are refused, so a misspelt setting is never silently
 * without effect. Amounts are written as MOLT text ("0.001") and become base units at load.
 */
import { readFile } from 'node:fs/promises';

import { z } from 'zod';

import { parseBlackouts, parsePriceCurve } from '../market/index.ts';
import { parseAddress } from '../protocol/address.ts';
import { parseEgressRule } from '../protocol/egress.ts';
import { MoltError } from '../protocol/errors.ts';
import { LIMITS } from '../protocol/limits.ts';
import { RUNTIMES } from '../protocol/messages.ts';
import { parseMolt } from '../protocol/units.ts';

interface Setting {
  readonly schema: z.ZodType;
  readonly default: string | number | boolean | readonly string[] | null;
  readonly unit: string;
  /** Why it exists, and what is traded when it is changed. */
  readonly text: string;
}

/** Whether text is what a parser takes. */
function parsedBy(parse: (text: string) => unknown): (text: string) => boolean {
  return (text) => {
    try {
      parse(text);
      return true;
    } catch {
      return false;
    }
  };
}

const amountText = z
  .string()
  .refine(parsedBy(parseMolt), 'must be MOLT as text with at most 9 decimals, for example "0.001"');
const addressText = z.string().refine(parsedBy(parseAddress), 'must be an address, base58 of 32 bytes');
const imageText = z
  .string()
  .max(300)
  .regex(/^[\w./:@-]+\*?$/, 'must be a CID, an image, a digest, or a beginning that ends in *');
const multiaddrs = z
  .array(
    z
      .string()
      .max(200)
      .regex(/^\/[a-z0-9]+\//, 'must be a multiaddr, for example /ip4/127.0.0.1/tcp/4170'),
  )
  .max(16);

export const SETTINGS = {
  rpcUrl: {
    schema: z.url({ protocol: /^https?$/, hostname: /.+/, error: 'must be an http or https URL' }),
    default: 'http://127.0.0.1:8899',
    unit: 'URL',
    text: 'Solana JSON-RPC endpoint. The local chain of `molt devnet` answers at the default.',
  },
  programId: {
    schema: addressText.nullable(),
    default: null,
    unit: 'address',
    text: 'Molt program on that chain, when it is not the well-known one.',
  },
  provider: {
    schema: addressText.nullable(),
    default: null,
    unit: 'address',
    text: 'Provider account of this seller. Written by `molt init --role provider`.',
  },
  budget: {
    schema: addressText.nullable(),
    default: null,
    unit: 'address',
    text: 'Budget account that pays for jobs of this buyer. Written by `molt init --role buyer`.',
  },
  listen: {
    schema: multiaddrs,
    default: ['/ip4/0.0.0.0/tcp/4170'],
    unit: 'multiaddrs',
    text: 'Where a provider listens. Port 0 picks a free one, but then peers cannot find it again after a restart.',
  },
  announce: {
    schema: multiaddrs,
    default: [],
    unit: 'multiaddrs',
    text: 'Addresses at which the world reaches this node, told to others instead of the listening ones: needed behind a port that was forwarded by hand.',
  },
  bootstrap: {
    schema: multiaddrs,
    default: [],
    unit: 'multiaddrs',
    text: 'Peers to join the mesh by, each ending in /p2p/<id>. More of them survive more failures.',
  },
  mdns: {
    schema: z.boolean(),
    default: true,
    unit: 'true, false',
    text: 'Finds peers on the local network without bootstrap peers; tells that network that this node exists.',
  },
  upnp: {
    schema: z.boolean(),
    default: true,
    unit: 'true, false',
    text: 'Asks the router by UPnP to forward the port of `listen`; told to others once a peer came through. False leaves the router alone.',
  },
  relay: {
    schema: z.boolean(),
    default: true,
    unit: 'true, false',
    text: 'Relays for peers behind NAT while the world reaches this node directly, within the limits below. They are the buyers and sellers of your market too.',
  },
  relayPeersMax: {
    schema: z.int().min(1).max(1_000),
    default: 64,
    unit: 'peers',
    text: 'Peers behind NAT that this node holds a place for, and connections between them and others at once.',
  },
  relayConnectionBytes: {
    schema: z
      .int()
      .min(1 << 20)
      .max(2 ** 44),
    default: 2 ** 30,
    unit: 'bytes',
    text: 'What one relayed connection carries in both directions together, before it ends; jobs take it up again.',
  },
  relayBytesPerHour: {
    schema: z
      .int()
      .min(1 << 20)
      .max(2 ** 50),
    default: 10 * 2 ** 30,
    unit: 'bytes',
    text: 'All that this node relays in an hour. Less keeps your line free, more keeps providers behind NAT in the market.',
  },
  followRegion: {
    schema: z.string().max(LIMITS.regionCharacters),
    default: '',
    unit: 'text',
    text: 'Hears the offers of this region alone, as buyer and as provider: less traffic in a large market, and nothing of the rest of it. Empty hears all.',
  },
  region: {
    schema: z.string().max(LIMITS.regionCharacters),
    default: '',
    unit: 'text',
    text: 'Where this machine stands, as buyers may ask for it, for example `eu-west`. Self-declared.',
  },
  priceBase: {
    schema: amountText,
    default: '0.0002',
    unit: 'MOLT/s',
    text: 'Asked for any job, whatever its size. A high base keeps tiny jobs away.',
  },
  pricePerCpu: {
    schema: amountText,
    default: '0.001',
    unit: 'MOLT/s',
    text: 'Asked per core. Lower earns more jobs, higher earns more a job.',
  },
  pricePerGib: {
    schema: amountText,
    default: '0.0002',
    unit: 'MOLT/s',
    text: 'Asked per GiB of memory.',
  },
  pricePerGpu: {
    schema: amountText,
    default: '0.05',
    unit: 'MOLT/s',
    text: 'Asked per GPU.',
  },
  priceFloor: {
    schema: amountText,
    default: '0',
    unit: 'MOLT/s',
    text: 'No quote goes below this: what running a job at all costs you.',
  },
  priceCeiling: {
    schema: amountText.nullable(),
    default: null,
    unit: 'MOLT/s',
    text: 'No quote goes above this, however busy the machine is; null for no such limit.',
  },
  priceCurve: {
    schema: z.array(z.string().max(12)).max(8),
    default: [],
    unit: 'BUSY:PRICE in %',
    text: 'Share of the prices that is asked at a share of the machine in use, in proportion between two points: `0:80,50:100,100:250` asks less of the first job and more of the last. Empty asks the same always.',
  },
  leaseAmountMin: {
    schema: amountText,
    default: '0',
    unit: 'MOLT',
    text: 'A lease must lock at least this: price times longest duration. Keeps jobs away that are not worth the start.',
  },
  blackouts: {
    schema: z.array(z.string().max(60)).max(32),
    default: [],
    unit: 'hours',
    text: 'When nothing is sold, for example `mon-fri 09:00-17:30` or `22:00-06:00`: jobs that could still run then are declined.',
  },
  timeZone: {
    schema: z.string().min(1).max(60),
    default: 'UTC',
    unit: 'IANA name',
    text: 'Time zone of blackouts, for example `Europe/Berlin`.',
  },
  cpuMillis: {
    schema: z.int().min(10).max(1_024_000).nullable(),
    default: null,
    unit: '1/1000 core',
    text: 'Processor time to sell; null sells every core but hostCpuMillis. Leave some when the machine does other work.',
  },
  hostCpuMillis: {
    schema: z.int().min(0).max(1_024_000),
    default: 100,
    unit: '1/1000 core',
    text: 'Processor time that is never sold: what the node and the system need. 0 sells all, and jobs slow the node down.',
  },
  memoryBytes: {
    schema: z
      .int()
      .min(1 << 20)
      .max(2 ** 44)
      .nullable(),
    default: null,
    unit: 'bytes',
    text: 'Memory to sell; null sells three quarters of it, and never what hostMemoryBytes keeps.',
  },
  hostMemoryBytes: {
    schema: z
      .int()
      .min(0)
      .max(2 ** 44),
    default: 2 ** 29,
    unit: 'bytes',
    text: 'Memory that is never sold: what the node and the system need. Less risks that the kernel ends the node.',
  },
  diskBytes: {
    schema: z
      .int()
      .min(1 << 20)
      .max(2 ** 50)
      .nullable(),
    default: null,
    unit: 'bytes',
    text: 'Disk to sell; null sells half of what is free in the home directory at start.',
  },
  gpus: {
    schema: z.array(z.string().regex(/^[A-Za-z0-9:./-]{1,120}$/, 'must be the id of a GPU, or all, or none')).max(64),
    default: ['all'],
    unit: 'ids, all or none',
    text: 'GPUs to sell, by id as `molt up` prints them. Each is tried in a container first, and not sold when that fails.',
  },
  runtimes: {
    schema: z.array(z.enum(RUNTIMES)).min(1).max(RUNTIMES.length),
    default: ['wasm', 'container'],
    unit: RUNTIMES.join(', '),
    text: 'Sandboxes to offer. `container` is offered only while an engine answers and passes its self-test.',
  },
  containerSocket: {
    schema: z.string().max(255).nullable(),
    default: null,
    unit: 'path',
    text: 'Docker or Podman socket; null takes DOCKER_HOST, else /var/run/docker.sock.',
  },
  containerSandbox: {
    schema: z.enum(['when-asked', 'always']),
    default: 'when-asked',
    unit: 'when-asked, always',
    text: 'Which container jobs get a kernel of their own (gVisor or Kata, registered with the engine as runsc or kata). Always is safer, slower for system calls, and has no network.',
  },
  containerPool: {
    schema: z.number().int().min(0).max(64),
    default: 1,
    unit: 'containers',
    text: 'Containers started ahead for images in frequent use, each used once. A short job starts several times sooner; each costs about 5 MB of memory and a disk that is empty, from the second job of an image on until ten minutes after its last. More than 1 pays where short jobs come at once; 0 keeps the engine empty between jobs. Docker only, and only for jobs without inputs, secrets, network, GPUs and working directory.',
  },
  durationSecondsMax: {
    schema: z.int().min(1).max(LIMITS.leaseSeconds),
    default: 86_400,
    unit: 's',
    text: 'Longest lease sold. Longer ones block capacity and stake for longer.',
  },
  startSecondsWarm: {
    schema: z.int().min(1).max(86_400),
    default: 10,
    unit: 's',
    text: 'Soonest start that a quote promises for an image or module at hand, where a bid asks by when the job must begin. A job that has not begun by then gives its money back.',
  },
  startSecondsCold: {
    schema: z.int().min(1).max(86_400),
    default: 60,
    unit: 's',
    text: 'The same where the image or module must be fetched first. Less wins bids in a hurry, and loses the jobs that a slow download keeps from starting.',
  },
  wasmCompiler: {
    schema: z.enum(['optimizing', 'baseline']),
    default: 'optimizing',
    unit: 'optimizing, baseline',
    text: 'How modules are compiled. Baseline starts sooner and uses less memory, but runs several times slower.',
  },
  graceSeconds: {
    schema: z.int().min(1).max(86_400),
    default: 60,
    unit: 's',
    text: 'Time after finish-by in which the proof may still be submitted. Shorter pleases buyers, longer forgives a reboot.',
  },
  windowSeconds: {
    schema: z.int().min(1).max(604_800),
    default: 60,
    unit: 's',
    text: 'Challenge window asked for in quotes: how long an absent buyer may object before the provider is paid anyway.',
  },
  egress: {
    schema: z
      .array(
        z
          .string()
          .max(262)
          .refine(parsedBy(parseEgressRule), 'must be host:port, *.suffix:port or *:port, in lower case'),
      )
      .max(1_000),
    default: [],
    unit: 'host:port',
    text: 'What container jobs may connect to, if they ask, and where inputs by URL may come from: `host:port`, `*.suffix:port`, or `*:443` for every public host at that port. Who asks for more is declined before any money moves. Empty sells no network. What jobs do there is seen as coming from here.',
  },
  artifactQuotaBytes: {
    schema: z
      .int()
      .min(64 * 2 ** 20)
      .max(2 ** 50),
    default: 20_000_000_000,
    unit: 'bytes',
    text: 'Disk for inputs, outputs and modules of jobs together; a quarter of it is for modules. What is used least goes first, never what a job on its way needs or an output that its buyer may still fetch: a job that finds no room fails.',
  },
  verify: {
    schema: z.boolean(),
    default: true,
    unit: 'true, false',
    text: 'Judges disputes while the market has this provider on its list of verifiers (`molt verifier`): a drawn verifier that does not vote loses its pledge. False leaves that to another program with the same node key.',
  },
  verifySecondsMax: {
    schema: z.int().min(1).max(86_400),
    default: 600,
    unit: 's',
    text: 'Longest run of a disputed job here, one at a time and beside what is sold. What takes longer is found for its provider, for nobody has shown that it is wrong.',
  },
  verifyBytes: {
    schema: z
      .int()
      .min(64 * 2 ** 20)
      .max(2 ** 50),
    default: 2_000_000_000,
    unit: 'bytes',
    text: 'Disk for modules and inputs of disputed jobs together. They go when the dispute is over.',
  },
  allowedBuyers: {
    schema: z.array(addressText).max(1_000),
    default: [],
    unit: 'addresses',
    text: 'Node keys of buyers to serve; empty serves everybody.',
  },
  blockedBuyers: {
    schema: z.array(addressText).max(1_000),
    default: [],
    unit: 'addresses',
    text: 'Node keys whose bids are declined, also when they are allowed.',
  },
  allowedImages: {
    schema: z.array(imageText).max(1_000),
    default: [],
    unit: 'images',
    text: 'What may run: CIDs of modules, images with or without digest, digests, or beginnings with a star such as `ghcr.io/acme/*`. Empty runs everything.',
  },
  blockedImages: {
    schema: z.array(imageText).max(1_000),
    default: [],
    unit: 'images',
    text: 'What may not run, also when it is allowed. Looked at before anything runs: the buyer gets all money back.',
  },
  approvalCommand: {
    schema: z.array(z.string().min(1).max(1_000)).max(32),
    default: [],
    unit: 'program, arguments',
    text: 'Program that is asked about each bid and each job, told as JSON on its standard input: exit code 0 approves, anything else declines. Empty asks nobody.',
  },
  approvalTimeoutMs: {
    schema: z.int().min(10).max(10_000),
    default: 1_000,
    unit: 'ms',
    text: 'How long approvalCommand may take; later is a no. Buyers wait for quotes for about two seconds.',
  },
  metricsPort: {
    schema: z.int().min(1).max(65_535).nullable(),
    default: null,
    unit: 'TCP port',
    text: 'Serves Prometheus metrics at http://127.0.0.1:PORT/metrics to every user of this machine; null serves them at the control socket only.',
  },
} as const satisfies Record<string, Setting>;

export type SettingName = keyof typeof SETTINGS;
/** Checked settings as they stand in `config.json`, every key present. */
export type Settings = { readonly [Name in SettingName]: z.output<(typeof SETTINGS)[Name]['schema']> };

export const SETTING_NAMES = Object.keys(SETTINGS) as SettingName[];

/** Where a value came from, for `molt config`. */
export type Source = 'flag' | 'environment' | 'config.json' | 'default';

/** The environment variable of a setting: `rpcUrl` is `MOLT_RPC_URL`. */
export function environmentName(name: SettingName): string {
  return `MOLT_${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
}

/** The environment of this process: the one door to it for everything behind the CLI. */
export function processEnvironment(): Readonly<Record<string, string | undefined>> {
  return process.env;
}

export interface SettingsLayers {
  readonly flags?: Readonly<Record<string, unknown>>;
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** Content of `config.json`. */
  readonly file?: unknown;
}

export interface LoadedSettings {
  readonly settings: Settings;
  readonly sources: Readonly<Record<SettingName, Source>>;
}

/** Merges the layers and checks every value. Throws `config/invalid` naming key, place and what would be right. */
export function mergeSettings(layers: SettingsLayers): LoadedSettings {
  const file = fileLayer(layers.file);
  const merged: Record<string, unknown> = {};
  const sources = {} as Record<SettingName, Source>;
  for (const name of SETTING_NAMES) {
    const text = layers.environment?.[environmentName(name)];
    if (layers.flags?.[name] !== undefined) {
      merged[name] = layers.flags[name];
      sources[name] = 'flag';
    } else if (text !== undefined && text !== '') {
      merged[name] = fromText(name, text);
      sources[name] = 'environment';
    } else if (file[name] !== undefined) {
      merged[name] = file[name];
      sources[name] = 'config.json';
    } else {
      merged[name] = SETTINGS[name].default;
      sources[name] = 'default';
    }
    const result = SETTINGS[name].schema.safeParse(merged[name]);
    if (!result.success) throw invalid(name, sources[name], result.error);
  }
  const settings = merged as unknown as Settings;
  assertRelations(settings);
  return { settings, sources };
}

/** Reads `config.json`; an absent file is an empty one. Throws `config/invalid` when it is not JSON. */
export async function readConfigFile(path: string): Promise<Record<string, unknown>> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return {};
    throw new MoltError('config/invalid', `${path} cannot be read: ${(cause as Error).message}`, { path }, { cause });
  }
  try {
    return fileLayer(JSON.parse(text));
  } catch (cause) {
    if (cause instanceof MoltError) throw cause;
    throw new MoltError(
      'config/invalid',
      `${path} is not JSON: ${(cause as Error).message}; correct it, or move it away and run molt init again`,
      { path },
      { cause },
    );
  }
}

/** Text of a flag or environment variable → the value the schema expects. Lists are separated by commas. */
export function fromText(name: SettingName, text: string): unknown {
  const standard: unknown = SETTINGS[name].default;
  if (text === 'null' && SETTINGS[name].schema.safeParse(null).success) return null;
  if (Array.isArray(standard)) {
    return text
      .split(',')
      .map((part) => part.trim())
      .filter((part) => part !== '');
  }
  if (typeof standard === 'boolean') return text === 'true' ? true : text === 'false' ? false : text;
  if (typeof standard === 'number' || NUMERIC_OR_NULL.has(name)) return /^\d+$/.test(text) ? Number(text) : text;
  return text;
}

const NUMERIC_OR_NULL: ReadonlySet<SettingName> = new Set(['cpuMillis', 'memoryBytes', 'diskBytes', 'metricsPort']);

function fileLayer(file: unknown): Record<string, unknown> {
  if (file === undefined) return {};
  if (typeof file !== 'object' || file === null || Array.isArray(file)) {
    throw new MoltError('config/invalid', 'config.json must hold one JSON object with settings; see molt config');
  }
  for (const key of Object.keys(file)) {
    if (Object.hasOwn(SETTINGS, key)) continue;
    const nearest = nearestName(key, SETTING_NAMES);
    throw new MoltError(
      'config/invalid',
      `config.json has the unknown setting "${key}"${nearest === undefined ? '' : `; did you mean "${nearest}"?`} All settings: molt config`,
      { key, nearest },
    );
  }
  return file as Record<string, unknown>;
}

/** The known name with the fewest edits, when it is close enough to be meant. */
export function nearestName(text: string, names: readonly string[]): string | undefined {
  const ranked = names
    .map((name) => ({ name, edits: editDistance(text.toLowerCase(), name.toLowerCase()) }))
    .sort((a, b) => a.edits - b.edits);
  const best = ranked[0];
  return best !== undefined && best.edits <= Math.max(2, Math.floor(text.length / 2)) ? best.name : undefined;
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const substitution = (previous[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1);
      current.push(Math.min((previous[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1, substitution));
    }
    previous = current;
  }
  return previous[b.length] ?? 0;
}

function invalid(name: SettingName, source: Source, error: z.ZodError): MoltError {
  const issue = error.issues[0];
  const where =
    source === 'environment' ? environmentName(name) : source === 'flag' ? `flag ${flagName(name)}` : source;
  const place = issue === undefined || issue.path.length === 0 ? '' : ` (entry ${issue.path.join('.')})`;
  return new MoltError(
    'config/invalid',
    `setting "${name}" from ${where}${place} ${issue?.message ?? 'is refused'}; unit: ${SETTINGS[name].unit}. ${SETTINGS[name].text}`,
    { key: name, source },
  );
}

/** `rpcUrl` → `--rpc-url`. */
export function flagName(name: SettingName): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** What no single key can show. The chain's own minima are checked by the node when it connects. */
function assertRelations(settings: Settings): void {
  const asked = [settings.priceBase, settings.pricePerCpu, settings.pricePerGib, settings.pricePerGpu].map(parseMolt);
  if (asked.every((price) => price === 0n) && parseMolt(settings.priceFloor) === 0n) {
    throw new MoltError(
      'config/invalid',
      'every price is 0: a lease must lock something; set priceFloor or one of the prices',
    );
  }
  const { priceCeiling, priceFloor } = settings;
  if (priceCeiling !== null && parseMolt(priceCeiling) < parseMolt(priceFloor)) {
    throw new MoltError(
      'config/invalid',
      `priceCeiling is ${priceCeiling} and priceFloor ${priceFloor}: no price is between them; raise the one or lower the other`,
    );
  }
  // Read once here, so that what is refused is refused when it is set.
  parsePriceCurve(settings.priceCurve);
  parseBlackouts(settings.blackouts, settings.timeZone);
  const unnamed = settings.bootstrap.find((address) => !/\/p2p\/[A-Za-z0-9]+$/.test(address));
  if (unnamed !== undefined) {
    throw new MoltError(
      'config/invalid',
      `bootstrap peer ${unnamed} does not end in /p2p/<id>: without the id anybody at that address could answer; molt up prints the whole address`,
    );
  }
  if (new Set(settings.runtimes).size !== settings.runtimes.length) {
    throw new MoltError('config/invalid', `runtimes names one twice: ${settings.runtimes.join(', ')}`);
  }
}

/** Socket of the container engine where no setting names one: DOCKER_HOST when it is a local socket, else Docker's. */
export function engineSocket(environment: Readonly<Record<string, string | undefined>>): string {
  const host = environment['DOCKER_HOST'] ?? '';
  return host.startsWith('unix://') ? host.slice('unix://'.length) : '/var/run/docker.sock';
}
