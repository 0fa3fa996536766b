/**
 * The container runtime against hostile jobs, broken images and restarts, on a real engine. Skipped where none answers.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { inspect } from 'node:util';
import { pack } from 'tar-stream';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  ContainerRuntime,
  type ContainerImage,
  type PrepareProgress,
  type RunExit,
  type RunLimits,
} from '../../../node/runtime/index.ts';
import { safePath, unpackTree } from '../../../node/runtime/container/archive.ts';
import { readFrames } from '../../../node/runtime/container/frames.ts';
import { registryOf } from '../../../node/runtime/container/pull.ts';
import { systemEnv } from '../../../protocol/env.ts';
import { makeDirectories, newAttemptId, readLogs, requestOf, type RunDirectories } from '../../contract/runtime.ts';
import { busyboxFiles, findEngine, openBusyboxRegistry } from '../../fixtures/engine.ts';
import { openRegistry, type Registry } from '../../fixtures/registry.ts';

const inspectDeeply = (value: unknown): string => inspect(value, { depth: 10, showHidden: true });
const never = new AbortController().signal;
const LIMITS: RunLimits = {
  cpus: 1,
  memoryBytes: 64 << 20,
  diskBytes: 8 << 20,
  durationMs: 60_000,
  logBytes: 1 << 20,
  processes: 32,
};

const { socketPath = '', reason } = await findEngine();
const title = reason === '' ? 'the container runtime' : `the container runtime (skipped: ${reason})`;

describe.skipIf(reason !== '')(title, () => {
  let root: string;
  let runtime: ContainerRuntime;
  let registry: Registry;
  let image: ContainerImage;
  let directories: RunDirectories;

  beforeAll(async () => {
    root = mkdtempSync(join(tmpdir(), 'molt-container-runtime-'));
    runtime = new ContainerRuntime(systemEnv(), { directory: root, socketPath });
    registry = await openBusyboxRegistry();
    image = { kind: 'image', reference: registry.reference };
  });
  beforeEach(() => {
    directories = makeDirectories();
  });
  afterEach(async () => {
    for (const attemptId of await runtime.list()) await runtime.remove(attemptId);
    rmSync(directories.root, { recursive: true, force: true });
  });
  afterAll(async () => {
    await registry[Symbol.asyncDispose]();
    rmSync(root, { recursive: true, force: true });
  });

  async function runShell(script: string, limits: Partial<RunLimits> = {}): Promise<{ exit: RunExit; stdout: string }> {
    const command = ['/bin/sh', '-c', script];
    const run = await runtime.start(
      requestOf(image, directories, { command, limits: { ...LIMITS, ...limits } }),
      never,
    );
    const { stdout } = await readLogs(run);
    return { exit: await run.exit, stdout };
  }

  it('ends a job that uses more memory than it was leased', async () => {
    const { exit } = await runShell('tail /dev/zero', { memoryBytes: 32 << 20 });
    expect(exit).toMatchObject({ reason: 'out-of-memory', exitCode: undefined });
  });

  it.skipIf(process.getuid?.() !== 0)('tells a kill for want of memory that the engine never heard of', async () => {
    const deafPath = join(root, 'deaf.sock');
    // Of the same length, so that the answer stays whole.
    const deafen = (bytes: Buffer): Buffer =>
      Buffer.from(bytes.toString('latin1').replaceAll('"OOMKilled":true', '"OOMKilled":null'), 'latin1');
    const deaf = createServer((client) => {
      const engine = connect(socketPath);
      client.pipe(engine);
      engine.on('data', (bytes: Buffer) => client.write(deafen(bytes)));
      engine.on('close', () => client.destroy());
      for (const socket of [client, engine]) socket.on('error', () => socket.destroy());
      client.on('close', () => engine.destroy());
    });
    await new Promise<void>((resolve) => deaf.listen(deafPath, resolve));
    const hearing = runtime;
    runtime = new ContainerRuntime(systemEnv(), { directory: root, socketPath: deafPath });
    try {
      const { exit } = await runShell('exec tail /dev/zero', { memoryBytes: 32 << 20 });
      expect(exit).toMatchObject({ reason: 'out-of-memory', exitCode: undefined });
    } finally {
      await runtime.close();
      runtime = hearing;
      deaf.close();
    }
  });

  it('counts the cpu of a run that is over before the engine is asked', async () => {
    // Its own shell says what it used.
    const { exit, stdout } = await runShell('i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; times');
    const [, minutes, seconds] = /^(\d+)m([\d.]+)s/.exec(stdout) ?? [];
    const usedMs = Number(minutes) * 60_000 + Number(seconds) * 1_000;
    expect(usedMs).toBeGreaterThan(0);
    expect(exit.cpuMs).toBeGreaterThan(usedMs / 2);
    expect(exit.memoryPeakBytes).toBeGreaterThan(0);
  });

  it('keeps a fork bomb within its process limit', async () => {
    const { exit, stdout } = await runShell('f() { f & f & }; f; sleep 1; echo survived', {
      processes: 16,
      durationMs: 8000,
    });
    expect(['exited', 'timed-out', 'signalled']).toContain(exit.reason);
    expect(stdout.length).toBeLessThan(LIMITS.logBytes);
    expect(exit.durationMs).toBeLessThan(20_000);
    expect((await runShell('echo next')).stdout).toBe('next\n');
  });

  it('gives a job no network, no root, no capabilities and no writable root', async () => {
    const { stdout } = await runShell(`
ls /sys/class/net; id -u
cat /proc/self/status | while read name value; do case $name in CapEff:|CapPrm:|CapBnd:|NoNewPrivs:|Seccomp:) echo $name $value;; esac; done
echo x > /bin/x 2>/dev/null && echo writable; mount -t tmpfs none /tmp 2>/dev/null && echo mounted; true`);
    expect(stdout.split('\n').filter(Boolean)).toEqual([
      'lo',
      '65534',
      'CapPrm: 0000000000000000',
      'CapEff: 0000000000000000',
      'CapBnd: 0000000000000000',
      'NoNewPrivs: 1',
      'Seccomp: 2',
    ]);
  });

  it('collects files and directories only', async () => {
    const { exit } = await runShell(
      'cd /out && ln -s /etc/passwd link && mkfifo fifo && mkdir dir && echo kept > dir/file && ln dir/file again',
    );
    expect(exit).toMatchObject({ reason: 'exited', exitCode: 0 });
    expect(readdirSync(directories.outputDirectory)).toContain('dir');
    expect(existsSync(join(directories.outputDirectory, 'link'))).toBe(false);
    expect(existsSync(join(directories.outputDirectory, 'fifo'))).toBe(false);
    expect(readFileSync(join(directories.outputDirectory, 'dir', 'file'), 'utf8')).toBe('kept\n');
    expect(readFileSync(join(directories.outputDirectory, 'again'), 'utf8')).toBe('kept\n');
  });

  it('gives a job without inputs an input directory that is empty and takes nothing', async () => {
    const { exit, stdout } = await runShell('ls -a /in; echo x > /in/x 2>/dev/null && echo writable; id -u');
    expect(stdout.split('\n').filter(Boolean)).toEqual(['.', '..', '65534']);
    expect(exit).toMatchObject({ reason: 'exited', exitCode: 0 });
  });

  it('reads nothing back from a job that declared no outputs', async () => {
    const command = ['/bin/sh', '-c', 'echo kept > /out/file'];
    const request = requestOf(image, directories, { command, limits: LIMITS, collects: false });
    expect(await (await runtime.start(request, never)).exit).toMatchObject({ reason: 'exited', exitCode: 0 });
    expect(readdirSync(directories.outputDirectory)).toEqual([]);
  });

  it('tells a signal from a missing program', async () => {
    expect((await runShell('kill -9 $$')).exit).toMatchObject({
      reason: 'signalled',
      signal: 'SIGKILL',
      exitCode: 137,
    });
    const request = requestOf(image, directories, { command: ['/no/such/program'], limits: LIMITS });
    const exit = await (await runtime.start(request, never)).exit;
    expect(exit).toMatchObject({ reason: 'exited', exitCode: 127 });
    expect(exit.detail).toContain('not found in the image');
  });

  it('refuses a job that claims a GPU by variable', async () => {
    const environment = { NVIDIA_VISIBLE_DEVICES: 'all' };
    const request = requestOf(image, directories, { command: ['/bin/true'], environment, limits: LIMITS });
    await expect(runtime.start(request, never)).rejects.toMatchObject({ code: 'job/impossible' });
    expect(await runtime.list()).toEqual([]);
  });

  it('pulls by digest with progress, once', async () => {
    const marker = { name: 'marker', contents: Buffer.from(newAttemptId() + String(process.hrtime.bigint())) };
    await using own = await openRegistry({ name: 'molt/fresh', files: [...busyboxFiles(), marker] });
    const fresh: ContainerImage = { kind: 'image', reference: own.reference };
    let doneBytes = 0;
    await runtime.prepare(fresh, (progress) => (doneBytes = Math.max(doneBytes, progress.doneBytes)), never);
    expect(doneBytes).toBeGreaterThan(0);
    const asked = own.requests.length;
    await runtime.prepare(fresh, () => undefined, never);
    expect(own.requests.length).toBe(asked);
  });

  it('calls an image missing when its registry serves a corrupt layer, and names both', async () => {
    const marker = { name: 'marker', contents: Buffer.from(String(process.hrtime.bigint())) };
    await using own = await openRegistry({ name: 'molt/broken', files: [marker] }, { corruptLayer: true });
    const pulling = runtime.prepare({ kind: 'image', reference: own.reference }, () => undefined, never);
    await expect(pulling).rejects.toMatchObject({
      code: 'job/image-missing',
      context: { registry: own.host, reference: own.reference },
    });
  });

  it('pulls with credentials from a registry that asks for them, and tells them to nobody', async () => {
    const credentials = { username: 'buyer', password: `hunter2-${process.hrtime.bigint()}` };
    const marker = { name: 'marker', contents: Buffer.from(credentials.password) };
    await using own = await openRegistry({ name: 'molt/private', files: [...busyboxFiles(), marker] }, { credentials });
    const asked = { kind: 'image', reference: own.reference } as const;
    const wrong = { ...asked, credentials: { username: 'buyer', password: 'wrong-password' } };
    for (const [attempt, told] of [
      [asked, 'none were given'],
      [wrong, 'the ones given are refused'],
    ] as const) {
      const error: unknown = await runtime.prepare(attempt, () => undefined, never).catch((fault: unknown) => fault);
      expect(error).toMatchObject({ code: 'job/image-denied', context: { registry: own.host } });
      expect((error as Error).message).toContain(told);
      expect(inspectDeeply(error)).not.toContain('wrong-password');
    }
    await runtime.prepare({ ...asked, credentials }, () => undefined, never);
    const request = requestOf({ ...asked, credentials }, directories, { command: ['/bin/true'], limits: LIMITS });
    expect(await (await runtime.start(request, never)).exit).toMatchObject({ reason: 'exited', exitCode: 0 });
  });

  it('pulls an index of several platforms by its own digest, layer by layer', async () => {
    const marker = { name: 'marker', contents: Buffer.from(String(process.hrtime.bigint())) };
    await using own = await openRegistry({ name: 'molt/many', files: [...busyboxFiles(), marker] }, { index: true });
    const told: PrepareProgress[] = [];
    await runtime.prepare({ kind: 'image', reference: own.reference }, (progress) => told.push(progress), never);
    expect(told.at(-1)).toMatchObject({ doneLayers: 1, totalLayers: 1 });
    const asked = own.requests.length;
    await runtime.prepare({ kind: 'image', reference: own.reference }, () => undefined, never);
    expect(own.requests.length).toBe(asked);
  });

  it('ends a job that fills its disk where the disk can only be watched, and collects outputs there too', async () => {
    await using watching = new ContainerRuntime(systemEnv(), {
      directory: mkdtempSync(join(root, 'watching-')),
      socketPath,
      loopDisks: false,
    });
    expect((await watching.probe(never)).gaps.join()).toContain('disk is watched');
    const runIn = async (script: string): Promise<RunExit> => {
      const request = requestOf(image, directories, { command: ['/bin/sh', '-c', script], limits: LIMITS });
      const run = await watching.start(request, never);
      const exit = await run.exit;
      await watching.remove(request.attemptId);
      return exit;
    };
    const filled = await runIn('dd if=/dev/zero of=/out/big bs=1M count=64; sleep 30');
    expect(filled.reason).toBe('output-too-large');
    expect(readdirSync(directories.outputDirectory)).toEqual([]);
    expect(await runIn('echo small > /out/small')).toMatchObject({ reason: 'exited', exitCode: 0 });
    expect(readFileSync(join(directories.outputDirectory, 'small'), 'utf8')).toBe('small\n');
    expect(await watching.list()).toEqual([]);
  });

  it('says what is wrong when no engine answers', async () => {
    await using absent = new ContainerRuntime(systemEnv(), { directory: root, socketPath: join(root, 'no.sock') });
    const capability = await absent.probe(never);
    expect(capability.available).toBe(false);
    expect(capability.reason).toContain('container engine failed');
  });
});

describe('the archive of outputs', () => {
  async function unpack(build: (archive: ReturnType<typeof pack>) => void): Promise<string> {
    const archive = pack();
    build(archive);
    archive.finalize();
    const target = join(mkdtempSync(join(tmpdir(), 'molt-archive-')), 'out');
    mkdirSync(target);
    await unpackTree(Readable.from(archive), target, { bytesMax: 1000 });
    return target;
  }

  it('is unpacked without what could point elsewhere', async () => {
    const target = await unpack((archive) => {
      archive.entry({ name: 'out/', type: 'directory' });
      archive.entry({ name: 'out/link', type: 'symlink', linkname: '/etc/passwd' });
      archive.entry({ name: 'out/a/b' }, 'text');
    });
    expect(readdirSync(target)).toEqual(['a']);
    expect(readFileSync(join(target, 'a', 'b'), 'utf8')).toBe('text');
  });

  it('without its own directory is none: a busy engine may answer with nothing', async () => {
    await expect(unpack(() => undefined)).rejects.toMatchObject({ code: 'runtime/engine-failed' });
  });

  it.each(['/etc/passwd', 'out/../../x', 'out/a/../../b', `out/${'d/'.repeat(100)}x`])(
    'refuses the name %s',
    (name) => {
      expect(() => safePath(name)).toThrowError(expect.objectContaining({ code: 'artifact/unsafe-path' }));
    },
  );

  it('refuses a file by the size its header announces', async () => {
    const archive = pack();
    archive.entry({ name: 'out/huge', size: 5_000_000_000 });
    const target = mkdtempSync(join(tmpdir(), 'molt-archive-'));
    const unpacking = unpackTree(Readable.from(archive), target, { bytesMax: 1000 });
    await expect(unpacking).rejects.toMatchObject({ code: 'job/output-too-large' });
    expect(readdirSync(target)).toEqual([]);
  });
});

it('output frames are taken apart wherever the transport cuts them', async () => {
  const whole = Buffer.concat([
    Buffer.from([1, 0, 0, 0, 0, 0, 0, 5]),
    Buffer.from('hello'),
    Buffer.from([2, 0, 0, 0, 0, 0, 0, 4]),
    Buffer.from('oops'),
  ]);
  for (let size = 1; size <= whole.length; size++) {
    const parts = Array.from({ length: Math.ceil(whole.length / size) }, (_, index) =>
      whole.subarray(index * size, (index + 1) * size),
    );
    const texts = { stdout: '', stderr: '' };
    for await (const { stream, bytes } of readFrames(Readable.from(parts)))
      texts[stream] += Buffer.from(bytes).toString();
    expect(texts).toEqual({ stdout: 'hello', stderr: 'oops' });
  }
});

it('the registry of an image is told by its first part', () => {
  expect(registryOf('library/alpine@sha256:0')).toBe('docker.io');
  expect(registryOf('ghcr.io/owner/name@sha256:0')).toBe('ghcr.io');
  expect(registryOf('localhost/name@sha256:0')).toBe('localhost');
  expect(registryOf('127.0.0.1:5000/name@sha256:0')).toBe('127.0.0.1:5000');
});
