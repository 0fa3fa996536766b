/**
 * The container runtime: jobs as hardened containers of a Docker or Podman engine.
 *
 * Everything of an attempt carries its labels, so a node that restarts finds its containers, takes the running ones up
 * again and removes the rest. Images are pulled by digest; data goes in and out through volumes as tar streams.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Duplex, Readable } from 'node:stream';
import type { Container, ContainerCreateOptions, ContainerInfo } from 'dockerode';
import { z } from 'zod';
import type { Env } from '../../../protocol/env.ts';
import { MoltError } from '../../../protocol/errors.ts';
import { type Outside, publicInternet } from '../../outside.ts';
import { checkRequest } from '../request.ts';
import type { Capability, Image, PrepareProgress, Run, RunLimits, RunRequest, Runtime } from '../runtime.ts';
import { Abilities, type AbilityOptions } from './abilities.ts';
import { packTrees } from './archive.ts';
import { ContainerRun, isEndOfUnknownCause, type RunTerms } from './container-run.ts';
import { Disks } from './disk.ts';
import {
  allEnded,
  connectEngine,
  type Engine,
  engineCall,
  engineFailed,
  engineRemoval,
  faultOf,
  LABEL,
} from './engine.ts';
import { ENTRY_DIRECTORY, ENTRY_NAME } from './entry.ts';
import { readFrames } from './frames.ts';
import type { GpuDevice } from '../../gpu/index.ts';
import { checkClaims, containerConfig, type ContainerPlacement } from './host-config.ts';
import type { JobNetwork } from './network.ts';
import { Networks } from './networks.ts';
import { Owner } from './owner.ts';
import { Pool, type Shape } from './pool.ts';
import { containerImage, pullImage } from './pull.ts';
import type { EngineFacts } from './probe.ts';
import { Assignments, PooledSlot, SLOT_PREFIX } from './slot.ts';
import { Volumes } from './volumes.ts';

export interface ContainerOptions extends AbilityOptions {
  /** Path of the engine's socket. */
  readonly socketPath: string;
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
  readonly #abilities: Abilities;
  readonly #volumes: Volumes;
  readonly #networks: Networks;
  readonly #assignments: Assignments;
  readonly #pool: Pool<PooledSlot, RunLimits> | undefined;
  /** Slots of this process that belong to no attempt yet. */
  readonly #waiting = new Set<string>();
  #owner: Promise<Owner> | undefined;

  constructor(env: Env, options: ContainerOptions) {
    this.#env = env;
    const { calls, streams } = connectEngine(env, options.socketPath);
    this.#engine = calls;
    this.#streams = streams;
    this.#directory = options.directory;
    const disks = new Disks(join(options.directory, 'disks'));
    const owner = (): Promise<Owner> => this.#own();
    this.#volumes = new Volumes(env, calls, disks, owner);
    this.#networks = new Networks(env, calls, options.outside ?? publicInternet);
    this.#abilities = new Abilities(
      env,
      { clients: { calls, streams }, disks, networks: this.#networks, owner },
      options,
    );
    this.#assignments = new Assignments(join(options.directory, 'assigned'));
    const size = options.pool ?? 0;
    if (size > 0) this.#pool = new Pool(env, size, (shape, limits) => this.#openSlot(shape, limits));
  }

  async probe(signal: AbortSignal): Promise<Capability> {
    return this.#abilities.probe(signal);
  }

  async checkGpu(device: GpuDevice, signal: AbortSignal): Promise<string | undefined> {
    return this.#abilities.checkGpu(device, signal);
  }

  async #own(): Promise<Owner> {
    this.#owner ??= Owner.at(this.#directory);
    return this.#owner;
  }

  async prepare(image: Image, onProgress: (progress: PrepareProgress) => void, signal: AbortSignal): Promise<void> {
    await pullImage(this.#streams, containerImage(image), onProgress, signal);
  }

  async start(request: RunRequest, signal: AbortSignal): Promise<Run> {
    checkRequest(request, this.#abilities.features);
    const { reference: image } = containerImage(request.image);
    const facts = await this.#abilities.facts();
    const sandbox = await this.#abilities.sandboxFor(request, signal);
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
    const gpus = this.#abilities.passingOf(request);
    await using opened = new AsyncDisposableStack();
    const owner = await this.#own();
    const place = await this.#networks.create(request, facts.architecture, owner.labels('network', attemptId));
    if (place !== undefined) opened.use(place.network);
    const terms = { ...termsOf(request, facts), ...(place === undefined ? {} : { network: place.terms }) };
    const labels = { ...owner.labels('job', attemptId), [LABEL.terms]: JSON.stringify(terms) };
    const placement: ContainerPlacement = {
      engine: facts.kind,
      image,
      labels,
      seccomp: facts.seccomp,
      init: facts.init,
      ...(sandbox === undefined ? {} : { sandbox }),
      ...(gpus === undefined ? {} : { gpus }),
      ...(place === undefined ? {} : { network: place.mode, variables: place.variables }),
      ...(await this.#volumes.create(request, facts)),
    };
    // Checked before anything is copied.
    const config = containerConfig(request, placement);
    const loader = await this.#volumes.fill(request, placement, facts);
    if (signal.aborted)
      throw new MoltError('job/cancelled', 'the start of the job was cancelled', {}, { cause: signal.reason });
    const container = await this.#createContainer(attemptId, config, facts);
    const run = await this.#launch(container, terms, request.command, place?.network);
    opened.move();
    if (loader !== undefined) this.#volumes.dismiss(attemptId, loader);
    return run;
  }

  async #createContainer(attemptId: string, config: ContainerCreateOptions, facts: EngineFacts): Promise<Container> {
    const name = (await this.#own()).name(attemptId);
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
    const facts = await this.#abilities.facts();
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
      const labels = (await this.#own()).labels('pool', id);
      const entryVolume = await this.#volumes.entry(facts);
      const volumes = await this.#volumes.create(request, facts);
      const config = containerConfig(request, { engine, image, labels, seccomp, init, entryVolume, ...volumes });
      const container = await this.#createContainer(id, config, facts);
      const streams = this.#streams.getContainer(container.id);
      const options = { stream: true, stdin: true, stdout: true, stderr: true, hijack: true };
      const attached = (await streams.attach(options)) as unknown as Duplex;
      await container.start();
      const { Pid: pid } = (await container.inspect()).State;
      this.#env.logger.log('debug', 'a container waits for a job', { slot: id });
      return new PooledSlot({ id, container, attached, pid, waiting: streams.wait(), limits, remove });
    } catch (error) {
      await remove().catch(() => undefined);
      throw engineFailed('starting a container ahead', error);
    }
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

  async #containers(attemptId?: string): Promise<ContainerInfo[]> {
    const filters = (await this.#own()).filters(attemptId);
    return engineCall('listing containers', () => this.#engine.listContainers({ all: true, filters }));
  }

  async adopt(attemptId: string, logsSinceMs: number = 0): Promise<Run | undefined> {
    const assigned = await this.#assignments.read(attemptId);
    const place = assigned?.slot ?? attemptId;
    const containers = await this.#containers(place);
    const role = assigned === undefined ? 'job' : 'pool';
    const found = containers.find(({ Labels }) => Labels[LABEL.role] === role);
    if (found === undefined) return undefined;
    const container = this.#engine.getContainer(found.Id);
    const { State } = await engineCall('looking at the container', () => container.inspect());
    // Nobody watched: an end that the restart of engine or machine may have caused is no verdict of the job.
    if (State.Status === 'created' || isEndOfUnknownCause(State)) return undefined;
    if (!(await this.#volumes.hasItsDisk(place))) return undefined;
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

  async remove(attemptId: string): Promise<void> {
    await this.#volumes.dismissed(attemptId);
    const place = (await this.#assignments.read(attemptId))?.slot ?? attemptId;
    const containers = await this.#containers(place);
    const isNetwork = ({ Labels }: ContainerInfo): boolean => Labels[LABEL.role] === 'network';
    // Podman keeps a container while another one uses its network.
    for (const group of [containers.filter((each) => !isNetwork(each)), containers.filter(isNetwork)]) {
      await allEnded(
        group.map(({ Id }) =>
          engineRemoval('removing the container', () => this.#engine.getContainer(Id).remove({ force: true, v: true })),
        ),
      );
    }
    await this.#volumes.remove(place);
    await this.#assignments.remove(attemptId);
  }

  async list(): Promise<string[]> {
    const attempts = (await this.#containers()).flatMap(({ Labels }) => Labels[LABEL.attempt] ?? []);
    const places = new Set([...attempts, ...(await this.#volumes.list())]);
    const assigned = await this.#assignments.list();
    const theirs = [...places]
      .filter((place) => !this.#waiting.has(place))
      .map((place) => assigned.get(place) ?? place);
    return [...new Set([...theirs, ...assigned.values()])].sort();
  }

  /** Containers of jobs go on; the next node process adopts them. */
  async close(): Promise<void> {
    await this.#pool?.[Symbol.asyncDispose]();
    await this.#volumes.close();
    await this.#networks[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
