/**
 * What the engine of this machine can do for jobs: asked, then tried, and kept for the jobs that come.
 *
 * A probe finds out anew; between two probes a job gets what the last one found.
 */
import type { Env } from '../../../protocol/env.ts';
import { MoltError } from '../../../protocol/errors.ts';
import type { Feature } from '../../../protocol/messages.ts';
import type { GpuDevice } from '../../gpu/index.ts';
import type { Capability, RunRequest } from '../runtime.ts';
import type { Disks } from './disk.ts';
import type { EngineClients } from './engine.ts';
import { findPassing } from './gpu-check.ts';
import type { GpuPassing } from './gpu-passing.ts';
import type { Networks } from './networks.ts';
import type { Owner } from './owner.ts';
import { askEngine, capabilityOf, type EngineFacts, type Findings, tryEngine, unavailable } from './probe.ts';

/** What is tried. */
export interface AbilityParts {
  readonly clients: EngineClients;
  readonly disks: Disks;
  readonly networks: Networks;
  readonly owner: () => Promise<Owner>;
}

export interface AbilityOptions {
  /** Belongs to this runtime: the node's id for labels, and the files behind jobs' disks. */
  readonly directory: string;
  /**
   * Give jobs a disk of the leased size through a loop device where this machine can (Linux, root); true by default.
   * Otherwise the size of what a job wrote is watched, and the root file system is not read-only.
   */
  readonly loopDisks?: boolean;
  /** Which jobs get a runtime that isolates more than a container does; `when-asked` by default. */
  readonly sandbox?: 'when-asked' | 'always';
  /** Where the host's device nodes are; /dev by default. */
  readonly devices?: string;
}

export class Abilities {
  readonly #env: Env;
  readonly #parts: AbilityParts;
  readonly #directory: string;
  readonly #loopDisks: boolean;
  readonly #sandbox: 'when-asked' | 'always';
  readonly #devices: string;
  /** What the last probe found; before one, a job that asks is let try. */
  #networkFeatures: readonly Feature[] = ['egress', 'services'];
  /** GPUs that a container has seen, by id. */
  readonly #gpus = new Map<string, GpuPassing>();
  #facts: Promise<EngineFacts> | undefined;
  #findings: Promise<Findings> | undefined;

  constructor(env: Env, parts: AbilityParts, options: AbilityOptions) {
    this.#env = env;
    this.#parts = parts;
    this.#directory = options.directory;
    this.#loopDisks = options.loopDisks ?? true;
    this.#sandbox = options.sandbox ?? 'when-asked';
    this.#devices = options.devices ?? '/dev';
  }

  /** What a job may ask for; whether there is a sandbox is found when one asks. */
  get features(): readonly Feature[] {
    return [...this.#networkFeatures, 'sandbox'];
  }

  async probe(signal: AbortSignal): Promise<Capability> {
    try {
      const facts = await this.facts();
      this.#findings = undefined;
      const findings = await this.#try(facts, signal);
      if (this.#sandbox === 'always' && findings.sandbox === undefined) {
        throw unavailable(
          'the setting containerSandbox is "always", and no runtime of this engine isolates more than a container does; install runsc and register it with the engine, or set it to "when-asked"',
        );
      }
      const networks = await this.#tryNetworks(facts);
      this.#networkFeatures = networks.features;
      const features: Feature[] = [
        ...networks.features,
        ...(findings.sandbox === undefined ? [] : ['sandbox' as const]),
      ];
      const capability = capabilityOf(facts, findings, features);
      return { ...capability, gaps: [...capability.gaps, ...networks.gaps] };
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      return { available: false, reason, features: [], details: {}, guarantees: [], gaps: [] };
    }
  }

  async #tryNetworks(facts: EngineFacts): ReturnType<Networks['tryOut']> {
    if (this.#sandbox === 'always') {
      return { features: [], gaps: ['egress and services are not offered: in the sandbox a job has no network'] };
    }
    return this.#parts.networks.tryOut(facts.architecture, (await this.#parts.owner()).trialLabels());
  }

  /** Asked once. Throws `runtime/unavailable`, `runtime/engine-failed`. */
  async facts(): Promise<EngineFacts> {
    this.#facts ??= (async () => {
      const limitsDisk = this.#loopDisks && (await this.#parts.disks.canLimitDisk());
      return askEngine(this.#parts.clients.calls, { directory: this.#directory, limitsDisk });
    })().catch((error: unknown) => {
      // Asked again next time: an engine may come up later.
      this.#facts = undefined;
      throw error;
    });
    return this.#facts;
  }

  async #try(facts: EngineFacts, signal: AbortSignal): Promise<Findings> {
    this.#findings ??= (async () => {
      const { clients } = this.#parts;
      return tryEngine({ env: this.#env, clients, facts, owner: await this.#parts.owner(), signal });
    })().catch((error: unknown) => {
      this.#findings = undefined;
      throw error;
    });
    return this.#findings;
  }

  /** The stronger runtime this job gets; undefined for the engine's own. Throws `job/impossible` when there is none. */
  async sandboxFor(request: RunRequest, signal: AbortSignal): Promise<string | undefined> {
    if (request.sandbox !== true && this.#sandbox !== 'always') return undefined;
    const { sandbox } = await this.#try(await this.facts(), signal);
    if (sandbox === undefined) {
      throw new MoltError('job/impossible', 'the run cannot be started: this runtime does not offer sandbox here');
    }
    if ((request.egress ?? []).length > 0 || (request.services ?? []).length > 0) {
      throw new MoltError(
        'job/impossible',
        `the run cannot be started: under ${sandbox} a job has no network; leave out egress and services, or the sandbox`,
      );
    }
    return sandbox;
  }

  async checkGpu(device: GpuDevice, signal: AbortSignal): Promise<string | undefined> {
    if (this.#sandbox === 'always') {
      return 'the setting containerSandbox is "always", and a sandbox has no GPU; set it to "when-asked" to sell GPUs';
    }
    try {
      const facts = await this.facts();
      const trial = {
        env: this.#env,
        engine: this.#parts.clients.calls,
        facts,
        owner: await this.#parts.owner(),
        devices: this.#devices,
        signal,
      };
      const found = await findPassing(trial, device, [...this.#gpus.values()].at(-1));
      if ('refusal' in found) return found.refusal;
      this.#gpus.set(device.id, found);
      return undefined;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  /** How the job gets its devices. Throws `job/impossible` for one that no container has seen. */
  passingOf({ gpus = [], sandbox }: RunRequest): readonly GpuPassing[] | undefined {
    if (gpus.length === 0) return undefined;
    if (sandbox === true) {
      throw new MoltError('job/impossible', 'the run cannot be started: a sandbox has no GPU; leave out one of them');
    }
    return gpus.map((id) => {
      const passing = this.#gpus.get(id);
      if (passing === undefined) {
        throw new MoltError('job/impossible', `the run cannot be started: no container here has seen GPU ${id}`);
      }
      return passing;
    });
  }
}
