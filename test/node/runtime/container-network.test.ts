/**
 * Goal: a container reaches what its specification names and nothing else, and is reached at its services and nowhere
 * else. Method: the real engine; hostile shell scripts; servers on this machine that stand in for the internet.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, type Server, createServer } from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import type { Outside } from '../../../node/outside.ts';
import { type ContainerImage, ContainerRuntime, type Run, type RunRequest } from '../../../node/runtime/index.ts';
import { systemEnv } from '../../../protocol/env.ts';
import type { Feature } from '../../../protocol/messages.ts';
import { makeDirectories, newAttemptId, readLogs, requestOf, type RunDirectories } from '../../contract/runtime.ts';
import { findEngine, openBusyboxRegistry } from '../../fixtures/engine.ts';
import { namespaceReason } from '../../fixtures/namespace.ts';
import type { Registry } from '../../fixtures/registry.ts';

const never = new AbortController().signal;
const { socketPath = '', reason: noEngine } = await findEngine();
const reason = noEngine === '' ? namespaceReason() : noEngine;

/** What this engine was found to offer; Podman passes no names on, and so offers services alone. */
const features = reason === '' ? await offered() : [];

async function offered(): Promise<readonly Feature[]> {
  const directory = mkdtempSync(join(tmpdir(), 'molt-container-probe-'));
  const { features: found } = await new ContainerRuntime(systemEnv(), { directory, socketPath }).probe(never);
  rmSync(directory, { recursive: true, force: true });
  return found;
}

describe.skipIf(reason !== '')(`a container with a network${reason === '' ? '' : ` (skipped: ${reason})`}`, () => {
  let root: string;
  let runtime: ContainerRuntime;
  let registry: Registry;
  let image: ContainerImage;
  let directories: RunDirectories;
  let world: Server;
  let port: number;
  let answers: Record<string, readonly string[]>;
  const outside: Outside = {
    resolve: async (host) => answers[host] ?? [],
    mayReach: (address) => address === '127.0.0.1',
  };

  beforeAll(async () => {
    root = mkdtempSync(join(tmpdir(), 'molt-container-network-'));
    runtime = new ContainerRuntime(systemEnv(), { directory: root, socketPath, outside });
    registry = await openBusyboxRegistry();
    image = { kind: 'image', reference: registry.reference };
    // On every address of this machine, as a service of the host might be.
    world = createServer((socket) => socket.on('error', () => undefined).end('hello from outside\n'));
    await new Promise<void>((resolve) => world.listen(0, '::', resolve));
    ({ port } = world.address() as AddressInfo);
  });
  beforeEach(() => {
    directories = makeDirectories();
    answers = { 'host.test.org': ['127.0.0.1'], 'inner.test.org': ['10.0.0.1', '169.254.169.254'] };
  });
  afterEach(async () => {
    for (const attemptId of await runtime.list()) await runtime.remove(attemptId);
    rmSync(directories.root, { recursive: true, force: true });
  });
  afterAll(async () => {
    world?.close();
    await registry?.[Symbol.asyncDispose]();
    rmSync(root, { recursive: true, force: true });
  });

  const request = (script: string, more: Partial<RunRequest>): RunRequest =>
    requestOf(image, directories, { command: ['/bin/sh', '-c', script], ...more });
  const output = async (script: string, more: Partial<RunRequest>): Promise<string> => {
    const run = await runtime.start(request(script, more), never);
    const { stdout, stderr } = await readLogs(run);
    expect(await run.exit).toMatchObject({ reason: 'exited' });
    return `${stdout}${stderr}`;
  };
  const answerOf = async (run: Run, at: number): Promise<string> => {
    const attempt = async (): Promise<string> => {
      const connection = await run.connect(at, AbortSignal.timeout(10_000)).catch(() => undefined);
      if (connection === undefined) return '';
      const chunks: Buffer[] = [];
      for await (const chunk of connection) chunks.push(chunk as Buffer);
      connection.destroy();
      return Buffer.concat(chunks).toString();
    };
    let text = '';
    await expect.poll(async () => (text = await attempt())).not.toBe('');
    return text;
  };

  it('is offered because it was tried, and what the trial made is gone', async () => {
    const { features: found, gaps } = await runtime.probe(never);
    expect(found).toContain('services');
    expect(found.includes('egress')).toBe(!gaps.some((gap) => gap.startsWith('egress is not offered')));
    expect(await runtime.list()).toEqual([]);
    if (found.includes('egress')) return;
    const refused = runtime.start(request('true', { egress: [`host.test.org:${port}`] }), never);
    await expect(refused).rejects.toMatchObject({ code: 'job/impossible', message: expect.stringContaining('egress') });
  });

  it.skipIf(!features.includes('egress'))(
    'reaches the named host by its name; no host address, no metadata, no private range, no other name',
    async () => {
      const addresses = Object.values(networkInterfaces()).flatMap((entries) => entries ?? []);
      const elsewhere = [
        ...addresses.map(({ address }) => address),
        '172.17.0.1',
        '169.254.169.254',
        '10.0.0.1',
        '192.168.0.1',
        '1.1.1.1',
        'other.test.org',
        'localhost',
      ];
      const text = await output(
        `busybox nc host.test.org ${port}
       for host in ${elsewhere.join(' ')}; do busybox nc -w 1 $host ${port} 2>/dev/null; done
       busybox nc -w 1 host.test.org 22 2>&1; ls /sys/class/net; cat /proc/net/route | wc -l
       echo 127.0.0.1 evil >> /etc/hosts; echo nameserver 1.1.1.1 > /etc/resolv.conf; id -u`,
        { egress: [`host.test.org:${port}`] },
      );
      expect(text.match(/hello from outside/g)).toHaveLength(1);
      expect(text).toContain('refused');
      expect(text).toContain('lo\n1\n');
      expect(text.match(/Permission denied|Read-only/g)).toHaveLength(2);
    },
  );

  it.skipIf(!features.includes('egress'))(
    'is refused before anything starts when a host of its rules is in a private network',
    async () => {
      await expect(runtime.start(request('true', { egress: ['inner.test.org:443'] }), never)).rejects.toMatchObject({
        code: 'job/egress-refused',
        message: expect.stringContaining('inner.test.org'),
      });
      expect(await runtime.list()).toEqual([]);
    },
  );

  it.skipIf(!features.includes('egress'))(
    'finds the proxy in its environment when its rules name a suffix, and says otherwise itself if it wants',
    async () => {
      const show = 'echo $HTTPS_PROXY $https_proxy';
      const egress = ['*.test.org:443'];
      expect(await output(show, { egress })).toBe('http://127.77.0.1:3128 http://127.77.0.1:3128\n');
      const environment = { HTTPS_PROXY: 'http://mine:1' };
      expect(await output(show, { egress, environment })).toBe('http://mine:1 http://127.77.0.1:3128\n');
    },
  );

  it('serves its declared port to the node only: no other job reaches it, nothing listens on the host', async () => {
    const script = 'while true; do echo served | busybox nc -l -p 8080; done';
    const run = await runtime.start(request(script, { services: [8080] }), never);
    expect(await answerOf(run, 8080)).toBe('served\n');
    await expect(run.connect(22, AbortSignal.timeout(5_000))).rejects.toMatchObject({ code: 'job/impossible' });
    const other = { services: [9090], attemptId: newAttemptId() };
    expect(await output('busybox nc -w 1 127.0.0.1 8080; echo done', other)).not.toContain('served');
    expect(await run.usage()).toMatchObject({ networkTxBytes: 'served\n'.length });
    await run.stop(0);
    await expect(run.connect(8080, AbortSignal.timeout(5_000))).rejects.toThrow();
  });

  it.skipIf(!features.includes('egress'))('keeps network, pins and services when the node restarts', async () => {
    const script = `while true; do busybox nc host.test.org ${port} | busybox nc -l -p 8080; done`;
    const asked = request(script, { egress: [`host.test.org:${port}`], services: [8080] });
    const first = await runtime.start(asked, never);
    expect(await answerOf(first, 8080)).toBe('hello from outside\n');
    answers = { 'host.test.org': ['10.0.0.1'] };
    await runtime.close();
    const restarted = new ContainerRuntime(systemEnv(), { directory: root, socketPath, outside });
    const second = await restarted.adopt(asked.attemptId);
    expect(second).toBeDefined();
    if (second === undefined) return;
    // Its loop may have started while nobody listened.
    await expect.poll(async () => await answerOf(second, 8080)).toBe('hello from outside\n');
    await second.stop(0);
    await first.exit;
    await restarted.remove(asked.attemptId);
    expect(await restarted.list()).toEqual([]);
  });

  it('is not taken up again when its network is gone', async () => {
    const asked = request('sleep 60', { services: [8080] });
    await runtime.start(asked, never);
    const { default: Docker } = await import('dockerode');
    const docker = new Docker({ socketPath });
    const filters = { label: [`molt.attempt=${asked.attemptId}`, 'molt.role=network'] };
    for (const { Id } of await docker.listContainers({ filters })) await docker.getContainer(Id).kill();
    const restarted = new ContainerRuntime(systemEnv(), { directory: root, socketPath, outside });
    expect(await restarted.adopt(asked.attemptId)).toBeUndefined();
    expect(await restarted.list()).toEqual([]);
  });
});
