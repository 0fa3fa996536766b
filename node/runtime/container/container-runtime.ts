/**
 * The container runtime: jobs as hardened containers of a Docker or Podman engine.
 *
 * Everything of an attempt carries its labels, so a node that restarts finds its containers, takes the running ones up
 * again and removes the rest. Images are pulled by digest; data goes in and out through volumes as tar streams.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import type { Container, ContainerInfo } from 'dockerode';
import { z } from 'zod';
import type { Env } from '../../../protocol/env.ts';
import { MoltError } from '../../../protocol/errors.ts';
import type { Feature } from '../../../protocol/messages.ts';
import { type Outside, publicInternet } from '../../outside.ts';
import { checkRequest } from '../request.ts';
import type { Capability, Image, PrepareProgress, Run, RunRequest, Runtime } from '../runtime.ts';
import { type PackedTree, packTrees } from './archive.ts';
import { ContainerRun, isEndOfUnknownCause, type RunTerms } from './container-run.ts';
import { Disks } from './disk.ts';
import { connectEngine, type Engine, engineCall, engineFailed, engineRemoval, faultOf, LABEL } from './engine.ts';
import type { GpuDevice } from '../../gpu/index.ts';
import { findPassing } from './gpu-check.ts';
import type { GpuPassing } from './gpu-passing.ts';
import { containerConfig, type ContainerPlacement, loaderConfig, mount } from './host-config.ts';
import { ensureIdleImage, IDLE_IMAGE } from './idle-image.ts';
import type { JobNetwork } from './network.ts';
import { Networks } from './networks.ts';
import { imageReference, pullImage } from './pull.ts';
import { askEngine, capabilityOf, type EngineFacts, type Findings, tryEngine, unavailable } from './probe.ts';

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

const REMOVE_TRIES = 10;
const REMOVE_PAUSE_MS = 100;
const SECRETS_BYTES = 1 << 20;
/** What needs a network of the job's own; offered where one can be made. */
const FEATURES_OFFERED: readonly Feature[] = ['egress', 'services'];

/** The results of all, after all have ended; throws the first failure. */
async function allEnded<T extends readonly unknown[] | []>(
  work: T,
): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  await Promise.allSettled(work);
  return Promise.all(work);
}

export class ContainerRuntime implements Runtime {
  readonly kind = 'container';
  readonly #env: Env;
  readonly #engine: Engine;
  readonly #streams: Engine;
  readonly #directory: string;
  readonly #disks: Disks;
  readonly #networks: Networks;
  readonly #loopDisks: boolean;
  /** Loaders that are being removed, by attempt. */
  readonly #leaving = new Map<string, Promise<void>>();
  readonly #sandbox: 'when-asked' | 'always';
  readonly #devices: string;
  /** GPUs that a container has seen, by id. */
  readonly #gpus = new Map<string, GpuPassing>();
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
          'the setting sandbox is "always", and no runtime of this engine isolates more than a container does; install runsc and register it with the engine, or set it to "when-asked"',
        );
      }
      const noNetwork = await this.#whyNoNetwork(facts);
      const features: Feature[] = noNetwork === undefined ? [...FEATURES_OFFERED] : [];
      if (findings.sandbox !== undefined) features.push('sandbox');
      const capability = capabilityOf(facts, findings, features);
      return { ...capability, gaps: [...capability.gaps, ...(noNetwork === undefined ? [] : [noNetwork])] };
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      return { available: false, reason, features: [], details: {}, guarantees: [], gaps: [] };
    }
  }

  async #whyNoNetwork(facts: EngineFacts): Promise<string | undefined> {
    if (this.#sandbox === 'always') return 'egress and services are not offered: in the sandbox a job has no network';
    return this.#networks.whyNot(facts.architecture, await this.#labels(`self-test-${randomUUID()}`, 'self-test'));
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
      return 'the setting sandbox is "always", and a sandbox has no GPU; set it to "when-asked" to sell GPUs';
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

  async #labels(attemptId: string, role: 'job' | 'loader' | 'network' | 'self-test'): Promise<Record<string, string>> {
    return { [LABEL.node]: await this.#id(), [LABEL.attempt]: attemptId, [LABEL.role]: role };
  }

  async prepare(image: Image, onProgress: (progress: PrepareProgress) => void, signal: AbortSignal): Promise<void> {
    await pullImage(this.#streams, imageReference(image), onProgress, signal);
  }

  async start(request: RunRequest, signal: AbortSignal): Promise<Run> {
    checkRequest(request, [...FEATURES_OFFERED, 'sandbox']);
    const image = imageReference(request.image);
    const facts = await this.#learn();
    const sandbox = await this.#sandboxFor(request, facts, signal);
    await pullImage(this.#streams, image, () => undefined, signal);
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
    const { attemptId, limits, outputDirectory } = request;
    const gpus = this.#passingOf(request);
    await using opened = new AsyncDisposableStack();
    const place = await this.#networks.create(request, facts.architecture, await this.#labels(attemptId, 'network'));
    if (place !== undefined) opened.use(place.network);
    const terms: RunTerms = {
      outputDirectory,
      durationMs: limits.durationMs,
      diskBytes: limits.diskBytes,
      logBytes: limits.logBytes,
      watchDisk: !facts.limitsDisk,
      collects: request.collects ?? true,
      ...(place === undefined ? {} : { network: place.terms }),
    };
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
    const container = await this.#engine.createContainer({
      ...config,
      name: `molt-${(await this.#id()).slice(0, 8)}-${attemptId}`,
    });
    if (terms.watchDisk) {
      const out = { name: 'out', directoryMode: 0o755, fileMode: 0o644 };
      await container.putArchive(packTrees([out]), { path: '/' });
    }
    const run = await this.#launch(container, terms, request.command, place?.network);
    opened.move();
    if (loader !== undefined) this.#dismiss(attemptId, loader);
    return run;
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
    const at = { startedAtMs, attached, logsSinceMs: 0, waiting };
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
    const containers = await this.#containers(attemptId);
    const found = containers.find(({ Labels }) => Labels[LABEL.role] === 'job');
    if (found === undefined) return undefined;
    const container = this.#engine.getContainer(found.Id);
    const { State } = await engineCall('looking at the container', () => container.inspect());
    // Nobody watched: an end that the restart of engine or machine may have caused is no verdict of the job.
    if (State.Status === 'created' || isEndOfUnknownCause(State)) return undefined;
    if (!(await this.#hasItsDisk(attemptId))) return undefined;
    const terms = runTerms.parse(JSON.parse(found.Labels[LABEL.terms] ?? '{}'));
    const streams = this.#streams.getContainer(found.Id);
    const waiting = streams.wait({ condition: 'not-running' });
    const startedAtMs = Date.parse(State.StartedAt);
    const at = { startedAtMs, logsSinceMs, waiting };
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
    const [containers, volumes] = await Promise.all([this.#containers(attemptId), this.#volumes(attemptId)]);
    await allEnded(
      containers.map(({ Id }) =>
        engineRemoval('removing the container', () => this.#engine.getContainer(Id).remove({ force: true, v: true })),
      ),
    );
    await allEnded(volumes.map((name) => this.#removeVolume(name)));
    await this.#disks.remove(attemptId);
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
    return [...new Set([...attempts, ...(await this.#disks.list())])].sort();
  }

  /** Containers go on; the next node process adopts them. */
  async close(): Promise<void> {
    await this.#networks[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
