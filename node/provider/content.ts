/**
 * The content of jobs on this machine: inputs and modules that they need, outputs that their buyers may fetch.
 *
 * Contract: what a job on its way needs, and the outputs of a job that is kept, stay whatever else needs room. Inputs go
 * with their lease, but those that the bid named stay until the store needs the room; outputs go with their job, modules
 * when others are used more (modules.ts). Nobody is told of inputs that no bid named.
 */
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { createBoundedMap } from '../../market/index.ts';
import type { Network } from '../../market/ports.ts';
import type { Address } from '../../protocol/address.ts';
import type { Env } from '../../protocol/env.ts';
import { type ErrorCode, MoltError, hasCode } from '../../protocol/errors.ts';
import { type JobSpec, warmPrefix } from '../../protocol/job-spec.ts';
import { LIMITS } from '../../protocol/limits.ts';
import type { Artifacts } from '../mesh/index.ts';
import { type Web, download } from './download.ts';
import type { Agreement } from './job.ts';
import { type ModuleFile, Modules } from './modules.ts';

export interface ContentOptions {
  readonly network: Network;
  readonly artifacts: Artifacts;
  readonly web: Web;
  /** Modules are kept below it. */
  readonly directory: string;
  readonly moduleBytesMax: number;
}

export interface FetchJob {
  readonly agreement: Agreement;
  readonly spec: JobSpec;
  readonly signal: AbortSignal;
  /** A function that tells the progress of one piece of content. */
  readonly report: (what: string) => (bytesDone: number, bytesTotal?: number) => void;
}

/** CIDs of the inputs by their path, as they are for this job. */
export type ResolvedInputs = Readonly<Record<string, string>>;

const NAMED_MAX = 10_000;

export class Content {
  readonly #env: Env;
  readonly #options: ContentOptions;
  readonly #modules: Modules;
  /** What keeps the inputs and modules of a lease here, and the CIDs of the inputs. */
  readonly #needed = new Map<Address, { readonly pins: DisposableStack; readonly inputs: Set<string> }>();
  /** Inputs that bids named, by that name: CIDs, of which the store may have dropped some. */
  readonly #named = createBoundedMap<string, string>(NAMED_MAX);
  /** What keeps its outputs here. */
  readonly #outputs = new Map<Address, DisposableStack>();

  private constructor(env: Env, options: ContentOptions, modules: Modules) {
    this.#env = env;
    this.#options = options;
    this.#modules = modules;
  }

  static async open(env: Env, options: ContentOptions): Promise<Content> {
    const directory = join(options.directory, 'modules');
    return new Content(env, options, await Modules.open(env, { directory, bytesMax: options.moduleBytesMax }));
  }

  /** Modules that a new job would find here. */
  warm(): readonly string[] {
    return this.#modules.list();
  }

  /** Those of these inputs, as bids name them, that are here whole. */
  async near(names: readonly string[]): Promise<readonly string[]> {
    const here = names.map(async (name) => {
      const cid = this.#named.get(name);
      return cid !== undefined && (await this.#options.artifacts.has(cid)) ? [name] : [];
    });
    return (await Promise.all(here)).flat();
  }

  /** These inputs of a job may be kept for the next, where its bid named them. */
  remember({ near = [] }: Agreement, cids: readonly string[]): void {
    for (const cid of cids) if (near.includes(warmPrefix(cid))) this.#named.set(warmPrefix(cid), cid);
  }

  /**
   * Brings everything a job needs here and holds it until `release`. Throws `job/input-missing`, `job/image-missing`,
   * `job/egress-refused`, `job/disk-full` and the signal's reason.
   */
  async fetch(job: FetchJob): Promise<ResolvedInputs> {
    const { spec } = job;
    const resolved: Record<string, string> = {};
    let leftBytes = spec.resources.diskBytes;
    for (const input of spec.inputs) {
      const what = `input ${input.path}`;
      const isStored = 'cid' in input;
      const { cid, sizeBytes } = isStored
        ? await this.#fetchStored(job, { cid: input.cid, what, missing: 'job/input-missing', maxBytes: leftBytes })
        : await this.#fetchUrl(job, { ...input, what, maxBytes: leftBytes });
      leftBytes = Math.max(0, leftBytes - sizeBytes);
      resolved[input.path] = cid;
    }
    if (spec.runtime === 'wasm') await this.#fetchModule(job);
    this.remember(job.agreement, Object.values(resolved));
    return resolved;
  }

  async #fetchModule(job: FetchJob): Promise<void> {
    const { image, resources } = job.spec;
    this.#need(job.agreement.lease).pins.use(this.#modules.pin(image));
    if ((await this.#modules.find(image)) !== undefined) return;
    const maxBytes = resources.diskBytes;
    await this.#fetchStored(job, { cid: image, what: 'module', missing: 'job/image-missing', maxBytes });
  }

  async #fetchStored(
    { agreement, signal, report }: FetchJob,
    wanted: { readonly cid: string; readonly what: string; readonly missing: ErrorCode; readonly maxBytes: number },
  ): Promise<{ readonly cid: string; readonly sizeBytes: number }> {
    const { artifacts, network } = this.#options;
    const { cid, what, missing, maxBytes } = wanted;
    this.#hold(agreement.lease, cid);
    let sizeBytes = 0;
    const tell = report(what);
    try {
      await artifacts.fetch(network, agreement.delegate, cid, {
        maxBytes: maxBytes + LIMITS.artifactBlockBytes,
        signal,
        addresses: agreement.buyerAddresses,
        onProgress: (done, total) => {
          sizeBytes = done;
          tell(done, total);
        },
      });
    } catch (cause) {
      if (!(cause instanceof MoltError) || cause.code === 'job/disk-full') throw cause;
      const message = `the ${what} (${cid}) could not be fetched from the buyer: ${cause.message}`;
      throw new MoltError(missing, message, { ...cause.context, cid }, { cause });
    }
    return { cid, sizeBytes };
  }

  async #fetchUrl(
    { agreement, signal, report }: FetchJob,
    wanted: { url: string; sha256?: string | undefined; what: string; maxBytes: number },
  ): Promise<{ readonly cid: string; readonly sizeBytes: number }> {
    const { url, sha256, what, maxBytes } = wanted;
    const source = download(this.#env, this.#options.web, {
      url,
      ...(sha256 === undefined ? {} : { sha256 }),
      maxBytes,
      signal,
      onProgress: report(what),
    });
    try {
      const added = await this.#options.artifacts.addStream(source);
      this.#hold(agreement.lease, added.cid);
      return added;
    } catch (cause) {
      if (!hasCode(cause, 'artifact/too-large')) throw cause;
      throw new MoltError('job/input-missing', cause.message, cause.context, { cause });
    }
  }

  /** Writes the inputs below `directory`, all of them within the job's disk. */
  async place(spec: JobSpec, resolved: ResolvedInputs, directory: string): Promise<void> {
    let leftBytes = spec.resources.diskBytes;
    for (const input of spec.inputs) {
      const cid = 'cid' in input ? input.cid : (resolved[input.path] ?? '');
      const target = join(directory, input.path);
      await mkdir(dirname(target), { recursive: true });
      const bounds = { maxBytes: leftBytes, maxEntries: LIMITS.artifactEntries };
      const { sizeBytes } = await this.#options.artifacts.export(cid, target, bounds);
      leftBytes -= sizeBytes;
    }
  }

  /** A module that was fetched, as a file. The store need not keep it as well. */
  async module(cid: string, maxBytes: number): Promise<ModuleFile> {
    const known = await this.#modules.find(cid);
    if (known !== undefined) return known;
    const { artifacts } = this.#options;
    const bounds = { maxBytes: maxBytes + LIMITS.artifactBlockBytes, maxEntries: 1 };
    const file = await this.#modules.add(cid, (path) => artifacts.export(cid, path, bounds));
    await artifacts.remove(cid);
    return file;
  }

  /** After the lease: its inputs go, unless somebody else needs them, or a bid named them. */
  async release(lease: Address, resolved: ResolvedInputs): Promise<void> {
    const needed = this.#needed.get(lease);
    this.#needed.delete(lease);
    needed?.pins.dispose();
    for (const cid of new Set([...(needed?.inputs ?? []), ...Object.values(resolved)]))
      if (this.#named.get(warmPrefix(cid)) !== cid) await this.#options.artifacts.remove(cid);
  }

  /** Outputs stay until `dropOutputs`. */
  keepOutputs(lease: Address, cids: readonly string[]): void {
    const pins = this.#outputs.get(lease) ?? new DisposableStack();
    this.#outputs.set(lease, pins);
    for (const cid of cids) pins.use(this.#options.artifacts.pin(cid));
  }

  async dropOutputs(lease: Address, cids: readonly string[]): Promise<void> {
    this.#outputs.get(lease)?.dispose();
    this.#outputs.delete(lease);
    for (const cid of cids) await this.#options.artifacts.remove(cid);
  }

  #hold(lease: Address, cid: string): void {
    const needed = this.#need(lease);
    needed.inputs.add(cid);
    needed.pins.use(this.#options.artifacts.pin(cid));
  }

  #need(lease: Address): { readonly pins: DisposableStack; readonly inputs: Set<string> } {
    const needed = this.#needed.get(lease) ?? { pins: new DisposableStack(), inputs: new Set() };
    this.#needed.set(lease, needed);
    return needed;
  }
}
