/**
 * Where a job's network comes from: a container of ours that does nothing but hold a network namespace.
 *
 * It is there before the job, so that the job finds its network whole, and it has neither interface nor route. The job's
 * container joins it. A node that restarts finds it by its labels and opens the same network again, with
 * the addresses that were pinned at the start.
 */
import type { Container } from 'dockerode';

import type { Env } from '../../../protocol/env.ts';
import { MoltError } from '../../../protocol/errors.ts';
import type { Feature } from '../../../protocol/messages.ts';
import type { Outside } from '../../outside.ts';
import type { RunRequest } from '../runtime.ts';
import { type Engine, engineCall, isMissing } from './engine.ts';
import { loaderConfig } from './host-config.ts';
import { ensureIdleImage, IDLE_IMAGE } from './idle-image.ts';
import { Namespace } from './namespace.ts';
import { JobNetwork, type NetworkTerms, extraHosts, pinHosts, proxyVariables } from './network.ts';
import type { EngineArchitecture } from './seccomp.ts';

export interface PlacedNetwork {
  readonly network: JobNetwork;
  readonly terms: NetworkTerms;
  /** What the job's container joins. */
  readonly mode: string;
  /** Variables by which programs find the proxy. */
  readonly variables: Readonly<Record<string, string>>;
}

/** The self-test listens here and connects to itself. */
const TEST_PORT = 7;
const TEST_MS = 10_000;

export class Networks implements AsyncDisposable {
  readonly #env: Env;
  readonly #engine: Engine;
  readonly #outside: Outside;
  readonly #open = new Set<JobNetwork>();

  constructor(env: Env, engine: Engine, outside: Outside) {
    this.#env = env;
    this.#engine = engine;
    this.#outside = outside;
  }

  /** What jobs can have of a network here, found by making one; each thing that they cannot have with its reason. */
  async tryOut(
    architecture: EngineArchitecture,
    labels: Readonly<Record<string, string>>,
  ): Promise<{ readonly features: readonly Feature[]; readonly gaps: readonly string[] }> {
    const none = (why: string): { features: []; gaps: [string] } => ({
      features: [],
      gaps: [`egress and services are not offered: ${why}`],
    });
    if (process.platform !== 'linux') return none('they need Linux');
    if (process.getuid?.() !== 0) return none('the node needs root for them');
    await using holders = new AsyncDisposableStack();
    const removed = (container: Container): Container =>
      holders.adopt(container, async () => container.remove({ force: true, v: true }).catch(() => undefined));
    try {
      const holder = removed(await this.#hold(architecture, labels, []));
      await using namespace = await this.#namespaceOf(holder);
      const [server] = await namespace.listen([{ address: '127.0.0.1', port: TEST_PORT }]);
      const socket = await namespace.connect(TEST_PORT, AbortSignal.timeout(TEST_MS)).finally(() => server?.close());
      socket.destroy();
      const guest = removed(await this.#join(holder, labels));
      const [held, joined] = [await holder.inspect(), await guest.inspect()];
      if (held.HostsPath !== '' && held.HostsPath === joined.HostsPath)
        return { features: ['egress', 'services'], gaps: [] };
      const why = 'egress is not offered: this engine does not pass on the names of a network that a container joins';
      return { features: ['services'], gaps: [why] };
    } catch (error) {
      return none(error instanceof Error ? error.message : String(error));
    }
  }

  /** A container that joins a network, as a job does. */
  async #join(holder: Container, labels: Readonly<Record<string, string>>): Promise<Container> {
    const { NetworkDisabled: _disabled, HostConfig, ...rest } = loaderConfig(IDLE_IMAGE, labels, []);
    return engineCall('joining a network', async () => {
      const guest = await this.#engine.createContainer({
        ...rest,
        HostConfig: { ...HostConfig, NetworkMode: `container:${holder.id}` },
      });
      await guest.start();
      return guest;
    });
  }

  /**
   * The network that the job asks for, undefined when it asks for none. The container carries `labels` and is removed by
   * them. Throws `job/egress-refused`, `runtime/engine-failed`.
   */
  async create(
    request: RunRequest,
    architecture: EngineArchitecture,
    labels: Readonly<Record<string, string>>,
  ): Promise<PlacedNetwork | undefined> {
    const { egress = [], services = [] } = request;
    if (egress.length === 0 && services.length === 0) return undefined;
    const terms = await pinHosts(this.#outside, { egress, services });
    const holder = await this.#hold(architecture, labels, extraHosts(terms));
    const network = await this.#openIn(holder, terms);
    return { network, terms, mode: `container:${holder.id}`, variables: proxyVariables(terms) };
  }

  /** The network of a job that outlived the node. Throws `runtime/engine-failed` when its container is gone. */
  async reopen(holderId: string | undefined, terms: NetworkTerms): Promise<JobNetwork> {
    if (holderId === undefined) {
      throw new MoltError('runtime/engine-failed', 'the container that holds the network of the job is gone');
    }
    return this.#openIn(this.#engine.getContainer(holderId), terms);
  }

  /** Lets go of every network; jobs find theirs closed until it is opened again. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#open].map((network) => network[Symbol.asyncDispose]()));
  }

  async #openIn(holder: Container, terms: NetworkTerms): Promise<JobNetwork> {
    const namespace = await this.#namespaceOf(holder);
    const network = await JobNetwork.open(this.#env, namespace, terms, this.#outside);
    this.#open.add(network);
    network.over.addEventListener('abort', () => this.#open.delete(network), { once: true });
    return network;
  }

  async #hold(
    architecture: EngineArchitecture,
    labels: Readonly<Record<string, string>>,
    hosts: readonly string[],
  ): Promise<Container> {
    await ensureIdleImage(this.#engine, architecture);
    const { NetworkDisabled: _disabled, HostConfig, ...rest } = loaderConfig(IDLE_IMAGE, labels, []);
    return engineCall('making the network of the job', async () => {
      const holder = await this.#engine.createContainer({
        ...rest,
        // The resolver that is nowhere: names are in the hosts file, or the proxy knows them.
        HostConfig: { ...HostConfig, NetworkMode: 'none', ExtraHosts: [...hosts], Dns: ['127.0.0.1'] },
      });
      await holder.start();
      return holder;
    });
  }

  async #namespaceOf(holder: Container): Promise<Namespace> {
    const pidOf = async (): Promise<number> => {
      const { State } = await holder.inspect();
      return State.Running ? State.Pid : 0;
    };
    const pid = await engineCall('looking for the network of the job', pidOf).catch((error: unknown) => {
      if (!isMissing(error)) throw error;
      return 0;
    });
    return Namespace.of(this.#env, pid, async () => pid > 0 && (await pidOf()) === pid);
  }
}
