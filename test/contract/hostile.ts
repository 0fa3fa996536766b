/**
 * What a container job must not be able to do, tried by jobs that do it; and what the buyer is told.
 *
 * Run on every kind of engine that this machine can open. `own` is a sandbox with a kernel of its own: there a system call
 * that is answered is answered by that kernel, so what it refuses proves nothing and is not asked.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import Docker from 'dockerode';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  type ContainerImage,
  ContainerRuntime,
  type Run,
  type RunExit,
  type RunLimits,
  type RunRequest,
} from '../../node/runtime/index.ts';
import { systemEnv } from '../../protocol/env.ts';
import { hostileFiles, openBusyboxRegistry } from '../fixtures/engine.ts';
import type { Registry } from '../fixtures/registry.ts';
import { makeDirectories, readLogs, requestOf, type RunDirectories } from './runtime.ts';

export interface HostileGround {
  readonly runtime: ContainerRuntime;
  readonly socketPath: string;
  readonly close: () => Promise<void>;
}

export interface HostileOptions {
  readonly skipReason?: string;
  /** Jobs have a kernel of their own. */
  readonly own?: boolean;
  /** The engine does not tell a kill for want of memory from another kill. */
  readonly mute?: boolean;
  /** Disk is watched, and the root file system is not read-only. */
  readonly watched?: boolean;
  /** The scratch file systems have no limit on the number of files. */
  readonly manyFiles?: boolean;
}

/** `end` is called after the runtime is closed. */
export async function openHostileGround(
  socketPath: string,
  end: () => Promise<void> = async () => undefined,
): Promise<HostileGround> {
  const directory = mkdtempSync(join(tmpdir(), 'molt-hostile-'));
  const runtime = new ContainerRuntime(systemEnv(), { directory, socketPath });
  return {
    runtime,
    socketPath,
    close: async () => {
      await runtime.close();
      await end();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

const never = new AbortController().signal;
const MIB = 1 << 20;
const LIMITS: RunLimits = {
  cpus: 1,
  memoryBytes: 96 * MIB,
  diskBytes: 8 * MIB,
  durationMs: 60_000,
  logBytes: MIB,
  processes: 32,
};

interface Outcome {
  readonly exit: RunExit;
  readonly stdout: string;
  readonly stderr: string;
}

/** Declares a test where the attack means something: elsewhere there is nothing to skip. */
function where(applies: boolean, title: string, attack: () => Promise<void>): void {
  if (applies) it(title, attack);
}

export function describeHostile(name: string, open: () => Promise<HostileGround>, options: HostileOptions = {}): void {
  const { files, reason } = options.skipReason === undefined || options.skipReason === '' ? hostileFiles() : NOTHING;
  const skip = options.skipReason !== undefined && options.skipReason !== '' ? options.skipReason : reason;
  const title = `a hostile job on ${name}${skip === '' ? '' : ` (skipped: ${skip})`}`;
  describe.skipIf(skip !== '')(title, () => {
    let ground: HostileGround;
    let registry: Registry;
    let image: ContainerImage;
    let directories: RunDirectories;

    beforeAll(async () => {
      ground = await open();
      registry = await openBusyboxRegistry(files);
      image = { kind: 'image', reference: registry.reference };
      await ground.runtime.prepare(image, () => undefined, never);
    }, 120_000);
    beforeEach(() => {
      directories = makeDirectories();
    });
    afterEach(async () => {
      for (const attemptId of await ground.runtime.list()) await ground.runtime.remove(attemptId);
      rmSync(directories.root, { recursive: true, force: true });
    });
    afterAll(async () => {
      await ground.close();
      await registry[Symbol.asyncDispose]();
    }, 120_000);

    const start = async (
      script: string,
      limits: Partial<RunLimits> = {},
      more: Partial<RunRequest> = {},
    ): Promise<Run> =>
      ground.runtime.start(
        requestOf(image, directories, {
          command: ['/bin/sh', '-c', script],
          limits: { ...LIMITS, ...limits },
          ...(options.own === true ? { sandbox: true } : {}),
          ...more,
        }),
        never,
      );
    const attack = async (
      script: string,
      limits?: Partial<RunLimits>,
      more?: Partial<RunRequest>,
    ): Promise<Outcome> => {
      const run = await start(script, limits, more);
      const { stdout, stderr } = await readLogs(run);
      return { exit: await run.exit, stdout, stderr };
    };
    const inspect = async (): Promise<Docker.ContainerInspectInfo> => {
      const engine = new Docker({ socketPath: ground.socketPath });
      const found = await engine.listContainers({ all: true, filters: { label: ['molt.role=job'] } });
      const own = found.find(({ Image }) => Image.includes(registry.host));
      if (own === undefined) throw new Error('the job has no container');
      return engine.getContainer(own.Id).inspect();
    };

    where(options.own !== true, 'is refused every system call that reaches beyond it', async () => {
      const { exit, stdout } = await attack('hostile calls');
      expect(stdout.split('\n').filter((line) => line.includes('ALLOWED'))).toEqual([]);
      for (const call of [
        'mount',
        'unshare',
        'bpf',
        'keyctl',
        'ptrace',
        'io_uring_setup',
        'socket_vsock',
        'socket_inet_raw',
      ]) {
        expect(stdout).toContain(`${call} refused`);
      }
      expect(stdout.split('\n').length).toBeGreaterThan(60);
      expect(exit).toMatchObject({ reason: 'exited', exitCode: 0 });
    });

    it('stays nobody without a capability, whatever the image marks as root', async () => {
      const { stdout } = await attack(`
hostile identity; hostile-setuid identity
while read name value; do case $name in Cap*|NoNewPrivs:|Seccomp:) echo $name $value;; esac; done < /proc/self/status`);
      const lines = stdout.split('\n').filter(Boolean);
      expect(lines.slice(0, 2)).toEqual(['65534 65534 65534', '65534 65534 65534']);
      const none = ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'].map((set) => `${set}: 0000000000000000`);
      // A sandbox shows the sets that it keeps itself, and neither of the other two.
      const seen = options.own === true ? lines.slice(2).filter((line) => line.startsWith('Cap')) : lines.slice(2);
      const kept = none.filter((line) => seen.some((other) => other.split(':')[0] === line.split(':')[0]));
      expect(seen).toEqual(options.own === true ? kept : [...none, 'NoNewPrivs: 1', 'Seccomp: 2']);
    });

    it('writes nowhere but to its outputs and its scratch', async () => {
      const places = [
        '/',
        '/bin',
        '/etc',
        '/in',
        '/secrets',
        '/proc',
        '/sys',
        '/dev',
        '/run',
        '/root',
        '/var',
        '/home',
      ];
      const { stdout } = await attack(
        `for place in ${places.join(' ')} /out /tmp; do (echo x > $place/molt-test) 2>/dev/null && echo $place; done; true`,
        {},
        { secrets: { key: Buffer.from('x') } },
      );
      expect(stdout.split('\n').filter(Boolean)).toEqual(['/out', '/tmp']);
    });

    where(options.watched !== true, 'finds its root file system read-only', async () => {
      expect((await attack('grep " / " /proc/self/mounts')).stdout).toMatch(/ \/ \S+ ro[, ]/);
      expect((await inspect()).HostConfig.ReadonlyRootfs).toBe(true);
    });

    it('cannot change the kernel, its control groups or its own place in a shortage of memory', async () => {
      const { stdout, exit } = await attack(`
for file in /proc/sys/kernel/core_pattern /proc/sys/kernel/hostname /proc/sys/vm/overcommit_memory /proc/sysrq-trigger \\
  /proc/1/oom_score_adj /proc/self/uid_map /proc/kcore /proc/kmsg /sys/kernel/uevent_helper /sys/power/state \\
  /sys/fs/cgroup/*/memory.limit_in_bytes /sys/fs/cgroup/*/cpu.cfs_quota_us /sys/fs/cgroup/*/pids.max /sys/fs/cgroup/*/release_agent \\
  /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cgroup.procs; do
  (echo -1000 > $file) 2>/dev/null && echo $file
done; (head -c 1 /proc/kcore; head -c 1 /proc/kmsg) 2>/dev/null; mkdir /sys/fs/cgroup/molt 2>/dev/null && echo made; true`);
      // A sandbox has files of its own under these names; those that are the host's are not among them.
      const seen = stdout
        .split('\n')
        .filter((line) => line !== '' && !(options.own === true && line.startsWith('/proc/')));
      expect(seen).toEqual([]);
      expect(exit).toMatchObject({ reason: 'exited', exitCode: 0 });
    });

    it('sees no process but its own, no mount of the host and no device', async () => {
      process.env['MOLT_TEST_LEAK'] = 'leaked';
      const { stdout } = await attack(`
echo processes; for entry in /proc/[0-9]*; do cat $entry/cmdline 2>/dev/null | head -c 60; echo; done
echo mounts; cat /proc/self/mounts
echo devices; ls /dev
echo sockets; ls /var/run /run 2>/dev/null
echo resolvers; cat /etc/resolv.conf 2>/dev/null; env; true`);
      delete process.env['MOLT_TEST_LEAK'];
      const part = (from: string, to: string): string[] =>
        stdout
          .slice(stdout.indexOf(`${from}\n`) + from.length + 1, stdout.indexOf(`${to}\n`))
          .split('\n')
          .filter(Boolean);
      expect(part('processes', 'mounts').length).toBeLessThan(6);
      const kinds = part('mounts', 'devices').map((line) => line.split(' '));
      expect(kinds.length).toBeGreaterThan(2);
      // What is of the host's disk is the root of the image, its three small files and the job's own volumes.
      const disks = kinds.filter(
        ([, , kind = '']) =>
          !['proc', 'sysfs', 'tmpfs', 'devpts', 'mqueue', 'cgroup', 'cgroup2', 'devtmpfs', 'none'].includes(kind),
      );
      const places = disks.map(([, place]) => place);
      for (const place of places) {
        expect([
          '/',
          '/in',
          '/out',
          '/etc/resolv.conf',
          '/etc/hostname',
          '/etc/hosts',
          '/sbin/docker-init',
          '/dev/init',
          '/run/.containerenv',
          '/dev',
          '/tmp',
          '/dev/shm',
          '/proc/keys',
          '/secrets',
          '/sys',
        ]).toContain(place);
      }
      const allowed = [
        'console',
        'core',
        'fd',
        'full',
        'init',
        'mqueue',
        'net',
        'null',
        'ptmx',
        'pts',
        'random',
        'shm',
        'stderr',
        'stdin',
        'stdout',
        'tty',
        'urandom',
        'zero',
        'fuse',
      ];
      expect(part('devices', 'sockets').filter((device) => !allowed.includes(device))).toEqual([]);
      expect(stdout).not.toContain('docker.sock');
      expect(stdout).not.toContain('leaked');
      const hostResolvers = readFileSync('/etc/resolv.conf', 'utf8').match(/nameserver \S+/g) ?? [];
      for (const resolver of hostResolvers.filter((line) => !line.includes('127.0.0.1')))
        expect(stdout).not.toContain(resolver);
    });

    it('reaches no network: not the internet, not the host, not cloud metadata', async () => {
      const server = createServer((_request, response) => response.end('reached'));
      await new Promise<void>((resolve) => server.listen(0, '0.0.0.0', resolve));
      const { port } = server.address() as AddressInfo;
      const hosts = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
      const addresses = hosts.filter(({ family }) => family === 'IPv4').map(({ address }) => address);
      try {
        const attempts = [...addresses, '172.17.0.1'].map((address) => `hostile connect ${address} ${port}`);
        const { stdout } = await attack(
          [
            ...attempts,
            'hostile connect 1.1.1.1 53',
            'hostile connect 169.254.169.254 80',
            'ls /sys/class/net || true',
          ].join('\n'),
        );
        expect(stdout).not.toContain('connected');
        if (options.own !== true) expect(stdout.split('\n').filter(Boolean).at(-1)).toBe('lo');
      } finally {
        server.close();
      }
    });

    it('that bombs with forks is held to its processes, and the next job runs', async () => {
      const { stdout, exit } = await attack('hostile forks', { processes: 16, durationMs: 20_000 });
      if (options.own === true) expect(exit.reason).not.toBe('engine-failed');
      else {
        const [count = '', error] = stdout.trim().split(' ');
        expect(Number(count)).toBeLessThan(16);
        expect(error).toBe('EAGAIN');
        expect(exit).toMatchObject({ reason: 'exited', exitCode: 0 });
      }
      expect((await attack('echo next')).stdout).toBe('next\n');
    });

    it('that takes more memory is told so, and has no swap to take', async () => {
      const run = await start('exec tail /dev/zero', { memoryBytes: 32 * MIB });
      const { HostConfig } = await inspect();
      expect(HostConfig).toMatchObject({ Memory: 32 * MIB, MemorySwap: 32 * MIB });
      const exit = await run.exit;
      if (options.mute === true) expect(['signalled', 'out-of-memory']).toContain(exit.reason);
      else {
        expect(exit).toMatchObject({ reason: 'out-of-memory', exitCode: undefined });
        expect(exit.detail).toContain('memory');
      }
    });

    where(
      options.mute !== true,
      'whose child takes more memory keeps its own exit code, and is told of the child',
      async () => {
        const { exit } = await attack('tail /dev/zero; exit 9', { memoryBytes: 32 * MIB });
        expect(exit).toMatchObject({ reason: 'exited', exitCode: 9 });
        expect(exit.detail).toContain('killed for want of memory');
      },
    );

    it('gets the share of the processors that it was leased', async () => {
      const { exit } = await attack('(while :; do :; done) & while :; do :; done', { cpus: 0.2, durationMs: 3000 });
      expect(exit.reason).toBe('timed-out');
      expect(exit.cpuMs).toBeGreaterThan(0);
      expect(exit.cpuMs).toBeLessThan(exit.durationMs * 0.35);
    });

    it('that fills its scratch finds it full', async () => {
      const fill = (place: string): string => `dd if=/dev/zero of=${place}/big bs=1M count=80 2>&1; ls -l ${place}/big`;
      const { stdout } = await attack(`${fill('/tmp')}; rm /tmp/big; ${fill('/dev/shm')}`, { memoryBytes: 512 * MIB });
      const sizes = [...stdout.matchAll(/ (\d{6,}) \w{3} +\d+ .*big/g)].map(([, size]) => Number(size));
      expect(sizes).toHaveLength(2);
      for (const size of sizes) expect(size).toBeLessThanOrEqual(64 * MIB);
    });

    where(options.mute !== true, 'that fills its scratch beyond its memory is out of memory', async () => {
      const { exit } = await attack('exec dd if=/dev/zero of=/tmp/big bs=1M count=60', { memoryBytes: 24 * MIB });
      expect(exit).toMatchObject({ reason: 'out-of-memory' });
    });

    where(options.manyFiles !== true, 'that makes files without end is stopped', async () => {
      const { stdout } = await attack('hostile files /tmp; hostile files /out', { memoryBytes: 512 * MIB });
      const counts = stdout
        .trim()
        .split('\n')
        .map((line) => line.split(' '));
      expect(counts).toHaveLength(2);
      for (const [count, error] of counts) {
        expect(Number(count)).toBeLessThan(10_000);
        expect(error).toBe('ENOSPC');
      }
    });

    it('that fills its disk is stopped at its limit, and the buyer is told', async () => {
      const { exit, stdout, stderr } = await attack(
        'dd if=/dev/zero of=/out/big bs=65536 count=2000; code=$?; sleep 2; exit $code',
      );
      const told = exit.reason === 'output-too-large' || (exit.reason === 'exited' && exit.exitCode === 1);
      expect(told).toBe(true);
      if (exit.reason === 'exited') expect(stdout + stderr).toContain('No space left');
      for (const name of readdirSync(directories.outputDirectory))
        expect(statSync(join(directories.outputDirectory, name)).size).toBeLessThanOrEqual(LIMITS.diskBytes);
    });

    it('that floods its output fills neither the node nor the disk of the engine', async () => {
      const run = await start('yes molt-molt-molt-molt-molt-molt-molt-molt | head -c 60000000; sleep 30', {
        logBytes: 100_000,
      });
      const { LogPath } = await inspect();
      let bytes = 0;
      for await (const chunk of run.logs) {
        bytes += chunk.bytes.length;
        if (chunk.stream === 'stderr') break;
      }
      expect(bytes).toBeLessThan(101_000);
      await run.stop(0);
      if (LogPath !== '' && process.getuid?.() === 0) {
        const directory = dirname(LogPath);
        const logs = readdirSync(directory).filter((file) => file.includes('.log'));
        expect(logs.reduce((sum, file) => sum + statSync(join(directory, file)).size, 0)).toBeLessThan(20_000_000);
      }
      expect((await run.exit).reason).toBe('cancelled');
    });

    it('that ignores SIGTERM is killed, and its buyer is told that it was cancelled', async () => {
      const run = await start("trap '' TERM; echo ready; while :; do sleep 1; done");
      for await (const _ of run.logs) break;
      await run.stop(1000);
      expect(await run.exit).toMatchObject({ reason: 'cancelled', exitCode: undefined });
    });

    it('leaves no daemon behind, however it was started', async () => {
      const mark = `31337${process.pid}`;
      const { exit } = await attack(
        `setsid sleep ${mark} < /dev/null > /dev/null 2>&1 & (setsid sleep ${mark} &) ; sleep 1; exit 0`,
      );
      expect(exit).toMatchObject({ reason: 'exited', exitCode: 0 });
      const left = readdirSync('/proc')
        .filter((entry) => /^\d+$/.test(entry))
        .filter((pid) => {
          try {
            return readFileSync(`/proc/${pid}/cmdline`, 'latin1').startsWith(`sleep\0${mark}\0`);
          } catch {
            return false;
          }
        });
      expect(left).toEqual([]);
    });

    it('that crashes with a secret leaves it in no inspection, environment, log or core', async () => {
      const secret = `hunter2-${process.pid}-${process.hrtime.bigint()}`;
      const secrets = { key: Buffer.from(secret) };
      const run = await start(
        "cat /secrets/key > /dev/null; env; cat /proc/self/limits; cat /secrets/key > /tmp/held; sh -c 'kill -SEGV $$'; exit $?",
        {},
        { secrets },
      );
      const told = JSON.stringify(await inspect());
      const { stdout, stderr } = await readLogs(run);
      const exit = await run.exit;
      expect(exit).toMatchObject({ reason: 'signalled', signal: 'SIGSEGV' });
      if (options.own !== true) expect(stdout).toMatch(/Max core file size\s+1\s+1\s/);
      for (const text of [told, stdout, stderr, JSON.stringify(exit), JSON.stringify(await inspect())])
        expect(text).not.toContain(secret);
      expect(readdirSync(directories.outputDirectory)).toEqual([]);
      const { LogPath } = await inspect();
      if (LogPath !== '' && process.getuid?.() === 0) {
        for (const file of readdirSync(dirname(LogPath))) {
          const path = join(dirname(LogPath), file);
          if (statSync(path).isFile()) expect(readFileSync(path).includes(secret)).toBe(false);
        }
      }
    });

    it('that is cancelled takes its secrets with it', async () => {
      const run = await start('sleep 60', {}, { secrets: { key: Buffer.from('x') }, attemptId: 'with-secrets' });
      await run.stop(0);
      await ground.runtime.remove('with-secrets');
      expect(await ground.runtime.list()).toEqual([]);
    });
  });
}

const NOTHING = { files: [], reason: '' } as const;
