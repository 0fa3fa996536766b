/**
 * What jobs read and write in an engine: a volume each for inputs, secrets and outputs, made and filled before the job's
 * container and removed after it, and one with the entry program for all containers that wait for a job.
 *
 * Where this machine can, the volume for outputs is a disk of the leased size.
 */
import { readdir } from 'node:fs/promises';
import type { Container, VolumeInspectInfo } from 'dockerode';
import type { Env } from '../../../protocol/env.ts';
import type { RunRequest } from '../runtime.ts';
import { type PackedTree, packTrees } from './archive.ts';
import type { Disks } from './disk.ts';
import { allEnded, type Engine, engineCall, engineRemoval, faultOf, LABEL } from './engine.ts';
import { ENTRY_DIRECTORY, ENTRY_NAME, entryProgram } from './entry.ts';
import { type ContainerPlacement, loaderConfig, mount } from './host-config.ts';
import { ensureIdleImage, IDLE_IMAGE } from './idle-image.ts';
import type { Owner } from './owner.ts';
import type { EngineFacts } from './probe.ts';
import { SLOT_PREFIX } from './slot.ts';

/** The volumes of one attempt, by name; what it does not need is not there. */
export type JobVolumes = Pick<ContainerPlacement, 'inputVolume' | 'outputVolume' | 'secretsVolume'>;

const REMOVE_TRIES = 10;
const REMOVE_PAUSE_MS = 100;
const SECRETS_BYTES = 1 << 20;

export class Volumes {
  readonly #env: Env;
  readonly #engine: Engine;
  readonly #disks: Disks;
  readonly #owner: () => Promise<Owner>;
  /** Loaders that are being removed, by attempt. */
  readonly #leaving = new Map<string, Promise<void>>();
  #entry: Promise<string> | undefined;

  constructor(env: Env, engine: Engine, disks: Disks, owner: () => Promise<Owner>) {
    this.#env = env;
    this.#engine = engine;
    this.#disks = disks;
    this.#owner = owner;
  }

  /** What the job does not need is not made: each volume costs a round trip, inputs a container that carries them. */
  async create(request: RunRequest, facts: EngineFacts): Promise<JobVolumes> {
    const { attemptId, limits, inputDirectory } = request;
    const owner = await this.#owner();
    const Labels = owner.labels('job', attemptId);
    const create = async (what: string, options: Record<string, string>): Promise<string> => {
      const name = owner.name(`${attemptId}-${what}`);
      await this.#engine.createVolume({ Name: name, Driver: 'local', DriverOpts: options, Labels });
      return name;
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
   * Fills them. Inputs go through a container that never runs. Secrets live in a tmpfs, which is gone as soon as nobody
   * mounts it: a running loader holds it until the job has started. Returns the loader to `dismiss` after that, undefined
   * when there is nothing to fill.
   */
  async fill(
    request: RunRequest,
    { inputVolume, secretsVolume }: JobVolumes,
    facts: EngineFacts,
  ): Promise<Container | undefined> {
    if (inputVolume === undefined && secretsVolume === undefined) return undefined;
    const labels = (await this.#owner()).labels('loader', request.attemptId);
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

  /** Removes a loader while the job goes on; `dismissed` waits for that, and who removes the attempt does it again. */
  dismiss(attemptId: string, loader: Container): void {
    const leaving = loader
      .remove({ force: true })
      .catch((error: unknown) => {
        this.#env.logger.log('debug', 'a loader will be removed with its job', { fault: faultOf(error).message });
      })
      .finally(() => this.#leaving.delete(attemptId));
    this.#leaving.set(attemptId, leaving);
  }

  async dismissed(attemptId: string): Promise<void> {
    await this.#leaving.get(attemptId);
  }

  /** The volume with the entry program, filled once by each process. */
  async entry(facts: EngineFacts): Promise<string> {
    this.#entry ??= this.#fillEntry(facts).catch((error: unknown) => {
      this.#entry = undefined;
      throw error;
    });
    return this.#entry;
  }

  async #fillEntry(facts: EngineFacts): Promise<string> {
    const owner = await this.#owner();
    const name = owner.name('entry');
    await this.#engine.createVolume({ Name: name, Driver: 'local', Labels: owner.labels('entry') });
    await ensureIdleImage(this.#engine, facts.architecture);
    const labels = owner.labels('loader', `${SLOT_PREFIX}entry`);
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
  }

  /**
   * After a reboot a disk is attached no more, and the device its volume names may be another job's: the outputs are
   * read only when the disk is there under that name, or could be put there again.
   */
  async hasItsDisk(attemptId: string): Promise<boolean> {
    const name = (await this.#find(attemptId)).map(({ Name }) => Name).find((volume) => volume.endsWith('-out'));
    if (name === undefined) return true;
    const { Options } = await engineCall('looking at the disk', () => this.#engine.getVolume(name).inspect());
    const device = Options?.['device'];
    return device === undefined || this.#disks.attachAs(attemptId, device);
  }

  /** Attempts that have something here. */
  async list(): Promise<string[]> {
    const attempts = (await this.#find()).flatMap(({ Labels }) => Labels?.[LABEL.attempt] ?? []);
    return [...attempts, ...(await this.#disks.list())];
  }

  /** After the containers of the attempt. Idempotent. */
  async remove(attemptId: string): Promise<void> {
    await allEnded((await this.#find(attemptId)).map(({ Name }) => this.#removeOne(Name)));
    await engineCall('detaching a disk', () => this.#disks.remove(attemptId));
  }

  async #find(attemptId?: string): Promise<readonly VolumeInspectInfo[]> {
    const filters = (await this.#owner()).filters(attemptId);
    const { Volumes: found } = await engineCall('listing volumes', () => this.#engine.listVolumes({ filters }));
    return found ?? [];
  }

  /**
   * A volume stays "in use" for a moment after its last container was removed. An engine that was killed and came back
   * may believe so until it is restarted: then its disk is freed all the same, the volume's name stays, `list` keeps
   * naming its attempt, and the next `remove` tries again.
   */
  async #removeOne(name: string): Promise<void> {
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

  /** Jobs that took a waiting container keep the entry program; the next process fills it anew. */
  async close(): Promise<void> {
    const entry = await this.#entry?.catch(() => undefined);
    if (entry === undefined) return;
    await this.#engine
      .getVolume(entry)
      .remove()
      .catch(() => undefined);
  }
}
