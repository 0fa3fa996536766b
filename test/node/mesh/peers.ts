/** Peers on loopback for tests: the real thing, in one process, closed in reverse order at the end of a test. */
import { keyPairFromSeed } from '../../../protocol/ed25519.ts';
import { type Env, systemEnv, systemRandom } from '../../../protocol/env.ts';
import { ACCEPT, type Verdict } from '../../../protocol/errors.ts';
import { type Mesh, type MeshOptions, openMesh } from '../../../node/mesh/index.ts';

export const env: Env = systemEnv();

export class Peers implements AsyncDisposable {
  readonly #meshes: Mesh[] = [];

  async open(options: Partial<MeshOptions> = {}, on: Env = env): Promise<Mesh> {
    const mesh = await openMesh(on, {
      key: keyPairFromSeed(systemRandom.bytes(32)),
      listen: ['/ip4/127.0.0.1/tcp/0'],
      bootstrap: [],
      mdns: false,
      role: 'node',
      network: 'test',
      ...options,
    });
    this.#meshes.push(mesh);
    return mesh;
  }

  /** A listening peer and one that is connected to it. */
  async pair(left: Partial<MeshOptions> = {}, right: Partial<MeshOptions> = {}): Promise<[Mesh, Mesh]> {
    const a = await this.open(left);
    const b = await this.open(right);
    await join(b, a.addresses);
    return [a, b];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const mesh of this.#meshes.toReversed()) await mesh[Symbol.asyncDispose]();
  }
}

/** Waits until `condition` holds; the test fails by name when it does not within `ms`. */
export async function until(what: string, condition: () => boolean | Promise<boolean>, ms = 30_000): Promise<void> {
  const end = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Connects; again where the machine is so busy that a handshake takes longer than a peer waits for it. */
export async function join(mesh: Mesh, addresses: readonly string[]): Promise<void> {
  const connects = (): Promise<boolean> =>
    mesh.connect(addresses).then(
      () => true,
      () => false,
    );
  await until('it is connected', connects);
}

/** Subscribes and collects what arrives as text. */
export async function collect(mesh: Mesh, topic: string, verdict: Verdict = ACCEPT): Promise<string[]> {
  const heard: string[] = [];
  await mesh.subscribe(topic, (data) => {
    heard.push(Buffer.from(data).toString());
    return verdict;
  });
  return heard;
}

/** What is published before the other's subscription was heard goes nowhere, and on a busy machine that takes a while. */
export async function flows(from: Mesh, topic: string, heard: readonly string[]): Promise<void> {
  await until('gossip flows', async () => {
    await from.publish(topic, text(`hello ${env.clock.monotonic()}`));
    await pause(100);
    return heard.length > 0;
  });
}

export const text = (value: string): Uint8Array => new TextEncoder().encode(value);

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
