/**
 * The container runtime: jobs as hardened containers of a Docker or Podman engine.
 *
 * Everything of an attempt carries its labels, so a node that restarts finds its containers, takes the running ones up
 * again and removes the rest. Images are pulled by digest; data goes in and out through volumes as tar streams.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Duplex, Readable } from 'node:stream';
import type { Container, ContainerCreateOptions, ContainerInfo } from 'dockerode';
import { z } from 'zod';
import type { Env } from '../../../protocol/env.ts';
import { MoltError } from '../../../protocol/errors.ts';
import type { Feature } from '../../../protocol/messages.ts';
import { type Outside, publicInternet } from '../../outside.ts';
import { checkRequest } from '../request.ts';
import type { Capability, Image, PrepareProgress, Run, RunLimits, RunRequest, Runtime } from '../runtime.ts';
import { type PackedTree, packTrees } from './archive.ts';
import { ContainerRun, isEndOfUnknownCause, type RunTerms } from './container-run.ts';
import { Disks } from './disk.ts';
import { connectEngine, type Engine, engineCall, engineFailed, engineRemoval, faultOf, LABEL } from './engine.ts';
import { ENTRY_DIRECTORY, ENTRY_NAME, entryProgram } from './entry.ts';
import { readFrames } from './frames.ts';
import type { GpuDevice } from '../../gpu/index.ts';
import { findPassing } from './gpu-check.ts';
import type { GpuPassing } from './gpu-passing.ts';
import { checkClaims, containerConfig, type ContainerPlacement, loaderConfig, mount } from './host-config.ts';
import { ensureIdleImage, IDLE_IMAGE } from './idle-image.ts';
import type { JobNetwork } from './network.ts';
import { Networks } from './networks.ts';
import { Pool, type Shape } from './pool.ts';
import { containerImage, pullImage } from './pull.ts';
import { askEngine, capabilityOf, type EngineFacts, type Findings, tryEngine, unavailable } from './probe.ts';
import { Assignments, PooledSlot, SLOT_PREFIX } from './slot.ts';

export interface ContainerOptions {
  /** Belongs to this runtime: the node's id for labels, and the files behind jobs' disks. */
  readonly directory: string;
  /** Path of the engine's socket. */
  readonly socketPath: string;
  /**
   * Give jobs a disk of the leased size through a loop device where this machine can (Linux, root); true by default.
   * Otherwise the size of what a job wrote is watched, and the root file system is not read-only.
   */
  readonly loopDisks?: boolean;
  /** Which jobs get a runtime that isolates more than a container does; `when-asked` by default. */
  readonly sandbox?: 'when-asked' | 'always';
  /** Where the host's device nodes are; /dev by default. */
  readonly devices?: string;
  /** What jobs with egress rules may reach at all; the public internet by default. */
  readonly outside?: Outside;
  /** Containers that are started ahead for images in frequent use; none by default. Docker only. */
  readonly pool?: number;
}

const runTerms = z.object({
  outputDirectory: z.string(),
  durationMs: z.number(),
  diskBytes: z.number(),
  logBytes: z.number(),
  watchDisk: z.boolean(),
  collects: z.boolean().default(true),
  network: z
    .object({
      egress: z.array(z.string()),
      services: z.array(z.number()),
      pins: z.record(z.string(), z.array(z.string())),
    })
    .optional(),
});

type Role = 'job' | 'pool' | 'entry' | 'loader' | 'network' | 'self-test';

const REMOVE_TRIES = 10;
const REMOVE_PAUSE_MS = 100;
const SECRETS_BYTES = 1 << 20;

/** The results of all, after all have ended; throws the first failure. */
async function allEnded<T extends readonly unknown[] | []>(
  work: T,
): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  await Promise.allSettled(work);
  return Promise.all(work);
}

function termsOf({ outputDirectory, limits, collects }: RunRequest, facts: EngineFacts): RunTerms {
  const { durationMs, diskBytes, logBytes } = limits;
  return { outputDirectory, durationMs, diskBytes, logBytes, watchDisk: !facts.limitsDisk, collects: collects ?? true };
}

/**
 * True when a waiting container can be the job with nothing missing: its mounts, its network and its working directory
 * were fixed when it was made, and it was made without.
 */
async function fitsPool(request: RunRequest): Promise<boolean> {
  const { command, workdir, egress = [], services = [], gpus = [], secrets = {}, inputDirectory } = request;
  const asks = egress.length + services.length + gpus.length + Object.keys(secrets).length;
  return command.length > 0 && workdir === undefined && asks === 0 && (await readdir(inputDirectory)).length === 0;
}

export class ContainerRuntime implements Runtime {
  readonly kind = 'container';
  readonly #env: Env;
  readonly #engine: Engine;
  readonly #streams: Engine;
  readonly #directory: string;
  readonly #disks: Disks;
  readonly #networks: Networks;
  /** What the last probe found; before one, a job that asks is let try. */
  #networkFeatures: readonly Feature[] = ['egress', 'services'];
  readonly #loopDisks: boolean;
  /** Loaders that are being removed, by attempt. */
  readonly #leaving = new Map<string, Promise<void>>();
  readonly #sandbox: 'when-asked' | 'always';
  readonly #devices: string;
  /** GPUs that a container has seen, by id. */
  readonly #gpus = new Map<string, GpuPassing>();
  readonly #assignments: Assignments;
  readonly #pool: Pool<PooledSlot, RunLimits> | undefined;
  /** Slots of this process that belong to no attempt yet. */
  readonly #waiting = new Set<string>();
  #entryVolume: Promise<string> | undefined;
  #facts: Promise<EngineFacts> | undefined;
  #findings: Promise<Findings> | undefined;
  #nodeId: Promise<string> | undefined;

  constructor(env: Env, options: ContainerOptions) {
    this.#env = env;
    const { calls, streams } = connectEngine(options.socketPath);
    this.#engine = calls;
    this.#streams = streams;
    this.#directory = options.directory;
    this.#disks = new Disks(join(options.directory, 'disks'));
    this.#assignments = new Assignments(join(options.directory, 'assigned'));
    const size = options.pool ?? 0;
    if (size > 0) this.#pool = new Pool(env, size, (shape, limits) => this.#openSlot(shape, limits));
    this.#loopDisks = options.loopDisks ?? true;
    this.#sandbox = options.sandbox ?? 'when-asked';
    this.#devices = options.devices ?? '/dev';
    this.#networks = new Networks(env, calls, options.outside ?? publicInternet);
  }

  async probe(signal: AbortSignal): Promise<Capability> {
    try {
      const facts = await this.#learn();
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
    const labels = await this.#labels(`self-test-${randomUUID()}`, 'self-test');
    return this.#networks.tryOut(facts.architecture, labels);
  }

  async #learn(): Promise<EngineFacts> {
    this.#facts ??= (async () => {
      const limitsDisk = this.#loopDisks && (await this.#disks.canLimitDisk());
      return askEngine(this.#engine, { directory: this.#directory, limitsDisk });
    })().catch((error: unknown) => {
      // Asked again next time: an engine may come up later.
      this.#facts = undefined;
      throw error;
    });
    return this.#facts;
  }

  async #try(facts: EngineFacts, signal: AbortSignal): Promise<Findings> {
    this.#findings ??= (async () => {
      const clients = { calls: this.#engine, streams: this.#streams };
      return tryEngine({ env: this.#env, clients, facts, nodeId: await this.#id(), signal });
    })().catch((error: unknown) => {
      this.#findings = undefined;
      throw error;
    });
    return this.#findings;
  }

  /** The stronger runtime this job gets; undefined for the engine's own. Throws `job/impossible` when there is none. */
  async #sandboxFor(request: RunRequest, facts: EngineFacts, signal: AbortSignal): Promise<string | undefined> {
    if (request.sandbox !== true && this.#sandbox !== 'always') return undefined;
    const { sandbox } = await this.#try(facts, signal);
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
      const facts = await this.#learn();
      const trial = {
        env: this.#env,
        engine: this.#engine,
        facts,
        nodeId: await this.#id(),
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
  #passingOf({ gpus = [], sandbox }: RunRequest): readonly GpuPassing[] | undefined {
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

  /** A name of this runtime's directory for labels, so that two nodes on one engine do not touch each other's jobs. */
  async #id(): Promise<string> {
    this.#nodeId ??= (async () => {
      const path = join(this.#directory, 'node-id');
      await mkdir(this.#directory, { recursive: true });
      await writeFile(path, randomUUID(), { flag: 'wx' }).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'EEXIST') throw error;
      });
      return (await readFile(path, 'utf8')).trim();
    })();
    return this.#nodeId;
  }

  async #labels(attemptId: string, role: Role): Promise<Record<string, string>> {
    return { [LABEL.node]: await this.#id(), [LABEL.attempt]: attemptId, [LABEL.role]: role };
  }

  async prepare(image: Image, onProgress: (progress: PrepareProgress) => void, signal: AbortSignal): Promise<void> {
    await pullImage(this.#streams, containerImage(image), onProgress, signal);
  }

  async start(request: RunRequest, signal: AbortSignal): Promise<Run> {
    checkRequest(request, [...this.#networkFeatures, 'sandbox']);
    const { reference: image } = containerImage(request.image);
    const facts = await this.#learn();
    const sandbox = await this.#sandboxFor(request, facts, signal);
    if (sandbox === undefined && !signal.aborted) {
      const run = await this.#startPooled(request, image, facts);
      if (run !== undefined) return run;
    }
    await pullImage(this.#streams, containerImage(request.image), () => undefined, signal);
    try {
      return await this.#create(request, { image, facts, sandbox }, signal);
    } catch (error) {
      await this.remove(request.attemptId).catch((fault: unknown) => {
        this.#env.logger.log('warn', 'an attempt that did not start could not be removed', {
          attemptId: request.attemptId,
          fault: faultOf(fault).message,
        });
      });
      throw engineFailed('starting the job', error);
    }
  }

  async #create(
    request: RunRequest,
    { image, facts, sandbox }: { image: string; facts: EngineFacts; sandbox: string | undefined },
    signal: AbortSignal,
  ): Promise<Run> {
    const { attemptId } = request;
    const gpus = this.#passingOf(request);
    await using opened = new AsyncDisposableStack();
    const place = await this.#networks.create(request, facts.architecture, await this.#labels(attemptId, 'network'));
    if (place !== undefined) opened.use(place.network);
    const terms = { ...termsOf(request, facts), ...(place === undefined ? {} : { network: place.terms }) };
    const labels = { ...(await this.#labels(attemptId, 'job')), [LABEL.terms]: JSON.stringify(terms) };
    const placement: ContainerPlacement = {
      engine: facts.kind,
      image,
      labels,
      seccomp: facts.seccomp,
      init: facts.init,
      ...(sandbox === undefined ? {} : { sandbox }),
      ...(gpus === undefined ? {} : { gpus }),
      ...(place === undefined ? {} : { network: place.mode, variables: place.variables }),
      ...(await this.#createVolumes(request, facts)),
    };
    // Checked before anything is copied.
    const config = containerConfig(request, placement);
    const loader = await this.#load(request, placement, facts);
    if (signal.aborted)
      throw new MoltError('job/cancelled', 'the start of the job was cancelled', {}, { cause: signal.reason });
    const container = await this.#createContainer(attemptId, config, facts);
    const run = await this.#launch(container, terms, request.command, place?.network);
    opened.move();
    if (loader !== undefined) this.#dismiss(attemptId, loader);
    return run;
  }

  async #createContainer(attemptId: string, config: ContainerCreateOptions, facts: EngineFacts): Promise<Container> {
    const name = `molt-${(await this.#id()).slice(0, 8)}-${attemptId}`;
    const container = await this.#engine.createContainer({ ...config, name });
    if (!facts.limitsDisk) {
      const out = { name: 'out', directoryMode: 0o755, fileMode: 0o644 };
      await container.putArchive(packTrees([out]), { path: '/' });
    }
    return container;
  }

  /** The job in a container that waited for it; undefined when there is none, or it did not take the job. */
  async #startPooled(request: RunRequest, image: string, facts: EngineFacts): Promise<Run | undefined> {
    if (this.#pool === undefined || facts.kind !== 'docker' || !(await fitsPool(request))) return undefined;
    checkClaims(request);
    const { attemptId, limits } = request;
    const slot = this.#pool.take({ image, diskBytes: limits.diskBytes }, limits);
    try {
      if (slot === undefined) return undefined;
      const terms = termsOf(request, facts);
      const { startedAtMs, frames } = await slot.begin(this.#env, request);
      await this.#assignments.write(attemptId, { slot: slot.id, startedAtMs, terms });
      this.#waiting.delete(slot.id);
      const { container, waiting, pid } = slot;
      const streams = this.#streams.getContainer(container.id);
      const at = { startedAtMs, attached: frames, logsSinceMs: 0, waiting, marked: true, pid };
      return new ContainerRun(this.#env, { container, streams, terms, ...at });
    } catch (error) {
      this.#env.logger.log('warn', 'a waiting container was not used', { fault: faultOf(error).message });
      await slot?.remove().catch(() => undefined);
      return undefined;
    } finally {
      this.#pool.fill().catch((error: unknown) => {
        this.#env.logger.log('warn', 'no container could be started ahead', { fault: faultOf(error).message });
      });
    }
  }

  /** A container like a job's own, with the entry program in it. */
  async #openSlot({ image, diskBytes }: Shape, limits: RunLimits): Promise<PooledSlot> {
    const facts = await this.#learn();
    const id = `${SLOT_PREFIX}${randomUUID()}`;
    const inputDirectory = join(this.#directory, 'empty');
    await mkdir(inputDirectory, { recursive: true });
    const request: RunRequest = {
      attemptId: id,
      image: { kind: 'image', reference: image },
      command: [`${ENTRY_DIRECTORY}/${ENTRY_NAME}`],
      environment: {},
      inputDirectory,
      outputDirectory: '',
      limits: { ...limits, diskBytes },
      randomSeed: new Uint8Array(32),
      clockStartMs: 0,
    };
    this.#waiting.add(id);
    const remove = async (): Promise<void> => {
      await this.remove(id);
      this.#waiting.delete(id);
    };
    try {
      const { kind: engine, seccomp, init } = facts;
      const labels = await this.#labels(id, 'pool');
      const entryVolume = await this.#fillEntryVolume(facts);
      const volumes = await this.#createVolumes(request, facts);
      const config = containerConfig(request, { engine, image, labels, seccomp, init, entryVolume, ...volumes });
      const container = await this.#createContainer(id, config, facts);
      const streams = this.#streams.getContainer(container.id);
      const options = { stream: true, stdin: true, stdout: true, stderr: true, hijack: true };
      const attached = (await streams.attach(options)) as unknown as Duplex;
      await container.start();
      const { Pid: pid } = (await container.inspect()).State;
      return new PooledSlot({ id, container, attached, pid, waiting: streams.wait(), limits, remove });
    } catch (error) {
      await remove().catch(() => undefined);
      throw engineFailed('starting a container ahead', error);
    }
  }

  /** The volume with the entry program, filled once by each process. */
  async #fillEntryVolume(facts: EngineFacts): Promise<string> {
    const fill = async (): Promise<string> => {
      const name = `molt-${(await this.#id()).slice(0, 8)}-entry`;
      // Without an attempt: it belongs to the node and is nothing that a job left.
      const Labels = { [LABEL.node]: await this.#id(), [LABEL.role]: 'entry' };
      await this.#engine.createVolume({ Name: name, Driver: 'local', Labels });
      await ensureIdleImage(this.#engine, facts.architecture);
      const labels = await this.#labels(`${SLOT_PREFIX}entry`, 'loader');
      const mounts = [mount(name, ENTRY_DIRECTORY, false)];
      const loader = await this.#engine.createContainer(loaderConfig(IDLE_IMAGE, labels, mounts));
      const files = new Map([[ENTRY_NAME, entryProgram(facts.architecture)]]);
      const tree = { name: '.', files, directoryMode: 0o555, fileMode: 0o555 };
      try {
        await loader.putArchive(packTrees([tree]), { path: ENTRY_DIRECTORY });
      } finally {
        await loader.remove({ force: true });
      }
      return name;
    };
    this.#entryVolume ??= fill().catch((error: unknown) => {
      this.#entryVolume = undefined;
      throw error;
    });
    return this.#entryVolume;
  }

  /** Attaches before it starts, so that no output is missed. */
  async #launch(
    container: Container,
    terms: RunTerms,
    command: readonly string[],
    network: JobNetwork | undefined,
  ): Promise<Run> {
    const streams = this.#streams.getContainer(container.id);
    const attached = (await streams.attach({ stream: true, stdout: true, stderr: true })) as unknown as Readable;
    try {
      await container.start();
    } catch (error) {
      const { statusCode, message } = faultOf(error);
      if (statusCode !== 400 && !/executable file|no such file|permission denied/i.test(message)) throw error;
      throw new MoltError(
        'job/failed',
        `the command ${command[0] ?? '(of the image)'} cannot be started in this image: ${message}`,
        {},
        { cause: error },
      );
    }
    const waiting = streams.wait({ condition: 'not-running' });
    waiting.catch(() => undefined);
    const { State } = await container.inspect();
    const startedAtMs = Date.parse(State.StartedAt);
    const at = { startedAtMs, attached: readFrames(attached), logsSinceMs: 0, waiting, pid: State.Pid };
    return new ContainerRun(this.#env, { container, streams, terms, ...at, ...(network && { network }) });
  }

  /** What the job does not need is not made: each volume costs a round trip, inputs a container that carries them. */
  async #createVolumes(
    request: RunRequest,
    facts: EngineFacts,
  ): Promise<Pick<ContainerPlacement, 'inputVolume' | 'outputVolume' | 'secretsVolume'>> {
    const { attemptId, limits, inputDirectory } = request;
    const prefix = `molt-${(await this.#id()).slice(0, 8)}-${attemptId}`;
    const Labels = await this.#labels(attemptId, 'job');
    const create = async (name: string, options: Record<string, string>): Promise<string> => {
      await this.#engine.createVolume({ Name: `${prefix}-${name}`, Driver: 'local', DriverOpts: options, Labels });
      return `${prefix}-${name}`;
    };
    const createDisk = async (): Promise<string> => {
      const device = await this.#disks.create(attemptId, limits.diskBytes, facts.hostUid);
      return create('out', { type: 'ext4', device, o: 'nosuid,nodev' });
    };
    const secretsOptions = {
      type: 'tmpfs',
      device: 'tmpfs',
      // Podman takes a size for a project quota. The job cannot write there either way.
      o: `${facts.kind === 'podman' ? '' : `size=${SECRETS_BYTES},`}nosuid,nodev,noexec,mode=0755`,
    };
    const hasInputs = (await readdir(inputDirectory)).length > 0;
    // All of them end before a failure is told: what is still being made could not be removed.
    const [inputVolume, outputVolume, secretsVolume] = await allEnded([
      hasInputs ? create('in', {}) : undefined,
      facts.limitsDisk ? createDisk() : undefined,
      Object.keys(request.secrets ?? {}).length === 0 ? undefined : create('secrets', secretsOptions),
    ]);
    return {
      ...(inputVolume === undefined ? {} : { inputVolume }),
      ...(outputVolume === undefined ? {} : { outputVolume }),
      ...(secretsVolume === undefined ? {} : { secretsVolume }),
    };
  }

  /**
   * Fills the volumes. Inputs go through a container that never runs. Secrets live in a tmpfs, which is gone as soon as
   * nobody mounts it: a running loader holds it until the job has started. Returns the loader to remove after that,
   * undefined when there is nothing to fill.
   */
  async #load(
    request: RunRequest,
    { inputVolume, secretsVolume }: ContainerPlacement,
    facts: EngineFacts,
  ): Promise<Container | undefined> {
    if (inputVolume === undefined && secretsVolume === undefined) return undefined;
    const labels = await this.#labels(request.attemptId, 'loader');
    // By the path where it is put: Podman finds a volume by its own path only, not below another.
    const trees = new Map<string, PackedTree>();
    if (inputVolume !== undefined) {
      trees.set('/in', { name: '.', directory: request.inputDirectory, directoryMode: 0o555, fileMode: 0o444 });
    }
    if (secretsVolume !== undefined) {
      const files = new Map(Object.entries(request.secrets ?? {}));
      trees.set('/secrets', { name: '.', files, directoryMode: 0o555, fileMode: 0o400 });
    }
    const mounts = [
      ...(inputVolume === undefined ? [] : [mount(inputVolume, '/in', false)]),
      ...(secretsVolume === undefined ? [] : [mount(secretsVolume, '/secrets', false)]),
    ];
    await ensureIdleImage(this.#engine, facts.architecture);
    const loader = await this.#engine.createContainer(loaderConfig(IDLE_IMAGE, labels, mounts));
    if (secretsVolume !== undefined) await loader.start();
    for (const [path, tree] of trees) await loader.putArchive(packTrees([tree]), { path });
    return loader;
  }

  async #containers(attemptId?: string): Promise<ContainerInfo[]> {
    const label = [`${LABEL.node}=${await this.#id()}`];
    if (attemptId !== undefined) label.push(`${LABEL.attempt}=${attemptId}`);
    return engineCall('listing containers', () => this.#engine.listContainers({ all: true, filters: { label } }));
  }

  async adopt(attemptId: string, logsSinceMs: number = 0): Promise<Run | undefined> {
    const assigned = await this.#assignments.read(attemptId);
    const place = assigned?.slot ?? attemptId;
    const containers = await this.#containers(place);
    const role: Role = assigned === undefined ? 'job' : 'pool';
    const found = containers.find(({ Labels }) => Labels[LABEL.role] === role);
    if (found === undefined) return undefined;
    const container = this.#engine.getContainer(found.Id);
    const { State } = await engineCall('looking at the container', () => container.inspect());
    // Nobody watched: an end that the restart of engine or machine may have caused is no verdict of the job.
    if (State.Status === 'created' || isEndOfUnknownCause(State)) return undefined;
    if (!(await this.#hasItsDisk(place))) return undefined;
    const terms = runTerms.parse(assigned?.terms ?? JSON.parse(found.Labels[LABEL.terms] ?? '{}'));
    const streams = this.#streams.getContainer(found.Id);
    const waiting = streams.wait({ condition: 'not-running' });
    const startedAtMs = assigned?.startedAtMs ?? Date.parse(State.StartedAt);
    const at = { startedAtMs, logsSinceMs, waiting, marked: assigned !== undefined, pid: State.Pid };
    if (!State.Running || terms.network === undefined) {
      return new ContainerRun(this.#env, { container, streams, terms, ...at });
    }
    const holder = containers.find(({ Labels }) => Labels[LABEL.role] === 'network');
    try {
      const network = await this.#networks.reopen(holder?.Id, terms.network);
      return new ContainerRun(this.#env, { container, streams, terms, ...at, network });
    } catch (error) {
      // Without its network the job would wait for ever: it is better run again from the start.
      this.#env.logger.log('warn', 'a job lost its network and is not taken up', {
        attemptId,
        fault: faultOf(error).message,
      });
      await this.remove(attemptId);
      return undefined;
    }
  }

  /**
   * After a reboot a disk is attached no more, and the device its volume names may be another job's: the outputs are
   * read only when the disk is there under that name, or could be put there again.
   */
  async #hasItsDisk(attemptId: string): Promise<boolean> {
    const name = (await this.#volumes(attemptId)).find((volume) => volume.endsWith('-out'));
    if (name === undefined) return true;
    const { Options } = await engineCall('looking at the disk', () => this.#engine.getVolume(name).inspect());
    const device = Options?.['device'];
    return device === undefined || this.#disks.attachAs(attemptId, device);
  }

  /** Removes a loader while the job goes on; `remove` waits for that, and does it again where it failed. */
  #dismiss(attemptId: string, loader: Container): void {
    const leaving = loader
      .remove({ force: true })
      .catch((error: unknown) => {
        this.#env.logger.log('debug', 'a loader will be removed with its job', { fault: faultOf(error).message });
      })
      .finally(() => this.#leaving.delete(attemptId));
    this.#leaving.set(attemptId, leaving);
  }

  async remove(attemptId: string): Promise<void> {
    await this.#leaving.get(attemptId);
    const place = (await this.#assignments.read(attemptId))?.slot ?? attemptId;
    const [containers, volumes] = await Promise.all([this.#containers(place), this.#volumes(place)]);
    const isNetwork = ({ Labels }: ContainerInfo): boolean => Labels[LABEL.role] === 'network';
    // Podman keeps a container while another one uses its network.
    for (const group of [containers.filter((each) => !isNetwork(each)), containers.filter(isNetwork)]) {
      await allEnded(
        group.map(({ Id }) =>
          engineRemoval('removing the container', () => this.#engine.getContainer(Id).remove({ force: true, v: true })),
        ),
      );
    }
    await allEnded(volumes.map((name) => this.#removeVolume(name)));
    await this.#disks.remove(place);
    await this.#assignments.remove(attemptId);
  }

  async #volumes(attemptId?: string): Promise<string[]> {
    const label = [`${LABEL.node}=${await this.#id()}`];
    if (attemptId !== undefined) label.push(`${LABEL.attempt}=${attemptId}`);
    const { Volumes } = await engineCall('listing volumes', () => this.#engine.listVolumes({ filters: { label } }));
    return (Volumes ?? []).map(({ Name }) => Name);
  }

  /**
   * A volume stays "in use" for a moment after its last container was removed. An engine that was killed and came back
   * may believe so until it is restarted: then its disk is freed all the same, the volume's name stays, `list` keeps
   * naming its attempt, and the next `remove` tries again.
   */
  async #removeVolume(name: string): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        await engineRemoval('removing a volume', () => this.#engine.getVolume(name).remove());
        return;
      } catch (error) {
        const busy = /active mounts|in use|being used/i.test(faultOf(error).message);
        if (!busy) throw error;
        if (tries >= REMOVE_TRIES) {
          this.#env.logger.log('warn', 'the engine keeps the name of a volume until it is restarted', { name });
          const volume = await engineCall('looking at a volume', () => this.#engine.getVolume(name).inspect());
          if (name.endsWith('-out')) await this.#disks.unmount(volume.Mountpoint);
          return;
        }
        await this.#env.clock.sleep(REMOVE_PAUSE_MS);
      }
    }
  }

  async list(): Promise<string[]> {
    const label = [`${LABEL.node}=${await this.#id()}`];
    const { Volumes } = await engineCall('listing volumes', () => this.#engine.listVolumes({ filters: { label } }));
    const labelled = [...(await this.#containers()), ...(Volumes ?? [])];
    const attempts = labelled.flatMap(({ Labels }) => Labels?.[LABEL.attempt] ?? []);
    const places = new Set([...attempts, ...(await this.#disks.list())]);
    const assigned = await this.#assignments.list();
    const theirs = [...places]
      .filter((place) => !this.#waiting.has(place))
      .map((place) => assigned.get(place) ?? place);
    return [...new Set([...theirs, ...assigned.values()])].sort();
  }

  /** Containers of jobs go on; the next node process adopts them. */
  async close(): Promise<void> {
    await this.#pool?.[Symbol.asyncDispose]();
    // Jobs that took a waiting container keep it; the next process fills it anew.
    const entry = await this.#entryVolume?.catch(() => undefined);
    if (entry !== undefined)
      await this.#engine
        .getVolume(entry)
        .remove()
        .catch(() => undefined);
    await this.#networks[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
