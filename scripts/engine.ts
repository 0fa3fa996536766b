/**
 * Brings a container engine up where that is possible, so that the container tests run for real.
 *
 * `node scripts/engine.ts` uses an engine that answers, or starts `dockerd` (installing Debian's `docker.io` when it is
 * absent and we are root; with `busybox-static`, from which the tests make their image), and prints `DOCKER_HOST=unix://…` as its last line. Where it cannot, it says why and exits 0:
 * the tests then count the container tests as skipped. Running it again changes nothing. `MOLT_ENGINE_ROOT` and
 * `MOLT_ENGINE_SOCKET` move the engine's data and socket.
 */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, openSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const root = process.env['MOLT_ENGINE_ROOT'] ?? '/var/lib/molt-engine';
const socket = process.env['MOLT_ENGINE_SOCKET'] ?? '/var/run/docker.sock';
/** gVisor as Debian has it: `ptrace` needs no virtualisation, and its network does not work on newer kernels. */
const RUNSC = { path: 'runsc', runtimeArgs: ['--platform=ptrace', '--network=none'] };
const START_MS_MAX = 60_000;

/** True when an engine answers `/_ping` on the socket. */
async function answers(): Promise<boolean> {
  if (!existsSync(socket)) return false;
  return new Promise((resolve) => {
    const ping = request({ socketPath: socket, path: '/_ping', timeout: 5000 }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    ping.once('error', () => resolve(false));
    ping.once('timeout', () => ping.destroy(new Error('no answer')));
    ping.end();
  });
}

function giveUp(reason: string): never {
  console.log(`no container engine: ${reason}`);
  process.exit(0);
}

function has(command: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${command}`], { stdio: 'ignore' }).status === 0;
}

function run(command: string, args: readonly string[], cwd?: string): boolean {
  const done = spawnSync(command, args, {
    cwd,
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  });
  return done.status === 0;
}

/** Command and the Debian package that has it. */
const MORE = [
  ['runsc', 'runsc'],
  ['podman', 'podman'],
  ['gcc', 'build-essential'],
] as const;

function install(): void {
  if (has('dockerd') && has('busybox')) return;
  if (!has('apt-get')) {
    if (has('dockerd')) return;
    giveUp('dockerd is not installed, and this is not a Debian on which it could be');
  }
  console.log('installing docker.io');
  // What matters is what is there afterwards.
  if (run('apt-get', ['update', '-qq'])) {
    run('apt-get', [
      'install',
      '-y',
      '-qq',
      '--no-install-recommends',
      'docker.io',
      'ca-certificates',
      'e2fsprogs',
      'busybox-static',
    ]);
  }
  if (!has('dockerd')) giveUp('installing docker.io failed');
  // A stronger sandbox, a second engine and a compiler for the hostile jobs: their tests are skipped where one is missing.
  for (const [command, name] of MORE) {
    if (!has(command)) run('apt-get', ['install', '-y', '-qq', '--no-install-recommends', name]);
  }
}

/** The release whose Docker knows CDI, for the tests that give GPUs that way; its runc needs a newer C library. */
const NEWER = { suite: 'trixie', packages: ['docker.io', 'containerd'], keys: 'debian-archive-keyring.gpg' };
const CDI_MAJOR_MIN = 25;

/** Unpacks a newer engine beside the machine's, below our own folder: nothing is installed, and no list of the machine's apt changes. */
function unpackNewer(): void {
  const newer = join(root, 'newer');
  const keys = join('/usr/share/keyrings', NEWER.keys);
  const version = spawnSync('dockerd', ['--version'], { encoding: 'utf8' }).stdout ?? '';
  const isNew = Number(/version (\d+)\./.exec(version)?.[1] ?? 0) >= CDI_MAJOR_MIN;
  if (isNew || existsSync(join(newer, 'usr/sbin/dockerd')) || !existsSync(keys) || !has('apt-get')) return;
  console.log(`unpacking the Docker of Debian ${NEWER.suite} for the tests of CDI`);
  const part = join(root, 'newer.part');
  rmSync(part, { recursive: true, force: true });
  for (const name of ['lists/partial', 'cache/archives/partial', 'tree'])
    mkdirSync(join(part, name), { recursive: true });
  const sources = join(part, 'sources.list');
  writeFileSync(sources, `deb [signed-by=${keys}] http://deb.debian.org/debian ${NEWER.suite} main\n`);
  const settings = [
    `Dir::State::lists=${join(part, 'lists')}`,
    `Dir::Cache=${join(part, 'cache')}`,
    `Dir::Etc::sourcelist=${sources}`,
    'Dir::Etc::sourceparts=-',
    'APT::Sandbox::User=root',
  ].flatMap((setting) => ['-o', setting]);
  const isThere =
    run('apt-get', [...settings, 'update', '-qq']) &&
    run('apt-get', [...settings, 'download', '-qq', ...NEWER.packages], part) &&
    readdirSync(part)
      .filter((name) => name.endsWith('.deb'))
      .every((name) => run('dpkg-deb', ['-x', join(part, name), join(part, 'tree')]));
  if (isThere) renameSync(join(part, 'tree'), newer);
  rmSync(part, { recursive: true, force: true });
}

/**
 * Mounts the control groups the kernel has, when nothing has yet. A hierarchy that this process is in but that is not
 * mounted leaves limits working and statistics at zero, so every one of `/proc/self/cgroup` is mounted.
 */
function mountControlGroups(): void {
  if (spawnSync('mountpoint', ['-q', '/sys/fs/cgroup']).status === 0) return;
  const enabled = readFileSync('/proc/cgroups', 'utf8').split('\n').slice(1).filter(Boolean);
  if (enabled.every((line) => line.split('\t')[1] === '0')) {
    run('mount', ['-t', 'cgroup2', 'none', '/sys/fs/cgroup']);
    return;
  }
  run('mount', ['-t', 'tmpfs', '-o', 'mode=755', 'cgroup', '/sys/fs/cgroup']);
  for (const line of readFileSync('/proc/self/cgroup', 'utf8').split('\n')) {
    const options = line.split(':')[1];
    if (options === undefined || options === '') continue;
    const directory = `/sys/fs/cgroup/${options.replace('name=', '')}`;
    mkdirSync(directory, { recursive: true });
    run('mount', ['-t', 'cgroup', '-o', options, 'cgroup', directory]);
  }
}

/** False for a process that is gone and for one that only waits to be reaped, which dockerd would take for a live one. */
function isAlive(pid: string): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

async function start(): Promise<void> {
  mkdirSync(root, { recursive: true });
  mkdirSync(dirname(socket), { recursive: true });
  // What a killed engine left behind keeps the next one from starting.
  rmSync(join(root, 'pid'), { force: true });
  const containerdPid = join(root, 'exec', 'containerd', 'containerd.pid');
  if (existsSync(containerdPid) && !isAlive(readFileSync(containerdPid, 'utf8').trim())) rmSync(containerdPid);
  rmSync(socket, { force: true });
  const log = join(root, 'dockerd.log');
  const output = openSync(log, 'a');
  const paths = ['--data-root', join(root, 'data'), '--exec-root', join(root, 'exec'), '--pidfile', join(root, 'pid')];
  const config = join(root, 'daemon.json');
  writeFileSync(config, JSON.stringify(has('runsc') ? { runtimes: { runsc: RUNSC } } : {}));
  const flags = ['--config-file', config, '--live-restore', '-H', `unix://${socket}`];
  const engine = spawn('dockerd', [...paths, ...flags], {
    detached: true,
    stdio: ['ignore', output, output],
  });
  const ended = new AbortController();
  engine.once('error', () => ended.abort());
  engine.once('exit', () => ended.abort());
  engine.unref();
  for (let waited = 0; waited < START_MS_MAX && !ended.signal.aborted; waited += 100) {
    if (await answers()) return;
    await sleep(100);
  }
  const last = readFileSync(log, 'utf8').trim().split('\n').slice(-5).join('\n');
  giveUp(`dockerd did not come up; the end of ${log} says:\n${last}`);
}

if (await answers()) {
  if (process.platform === 'linux' && process.getuid?.() === 0) {
    install();
    unpackNewer();
  }
} else {
  if (process.platform !== 'linux') giveUp('it can be started on Linux only; start Docker Desktop and run this again');
  if (process.getuid?.() !== 0) giveUp('starting one needs root; start Docker and run this again');
  install();
  unpackNewer();
  mountControlGroups();
  await start();
}
console.log(`DOCKER_HOST=unix://${socket}`);
