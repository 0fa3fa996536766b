/**
 * Containers that wait for their job: which are made, that one is used once, and that a job cannot tell the difference.
 * The policy with slots that do nothing; the rest on a real engine, skipped where none answers.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, test } from 'vitest';
import { type ContainerImage, ContainerRuntime, type RunExit, type RunRequest } from '../../../node/runtime/index.ts';
import { Pool, type Shape, type Slot } from '../../../node/runtime/container/pool.ts';
import { type Env, type Logger, systemEnv } from '../../../protocol/env.ts';
import { makeDirectories, newAttemptId, readLogs, requestOf, type RunDirectories } from '../../contract/runtime.ts';
import { findEngine, openBusyboxRegistry } from '../../fixtures/engine.ts';
import type { Registry } from '../../fixtures/registry.ts';

class IdleSlot implements Slot {
  ready = true;
  readonly shape: Shape;
  constructor(shape: Shape) {
    this.shape = shape;
  }
  isReady(): boolean {
    return this.ready;
  }
  remove(): Promise<void> {
    this.ready = false;
    return Promise.resolve();
  }
}

describe('a pool', () => {
  const made: IdleSlot[] = [];
  const open = (shape: Shape): Promise<IdleSlot> => {
    const slot = new IdleSlot(shape);
    made.push(slot);
    return Promise.resolve(slot);
  };
  const ready = (): IdleSlot[] => made.filter((slot) => slot.ready);
  beforeEach(() => made.splice(0));

  const often: Shape = { image: 'often', diskBytes: 1 };

  it('makes nothing for what was used once, and its size for what was used twice', async () => {
    await using pool = new Pool(systemEnv(), 2, open);
    expect(pool.take(often, 0)).toBeUndefined();
    await pool.fill();
    expect(made).toEqual([]);
    expect(pool.take(often, 0)).toBeUndefined();
    await pool.fill();
    expect(made).toHaveLength(2);
  });

  it('gives a slot to one job only, and none to a job of another image or disk', async () => {
    await using pool = new Pool(systemEnv(), 1, open);
    pool.take(often, 0);
    pool.take(often, 0);
    await pool.fill();
    expect(pool.take({ ...often, diskBytes: 2 }, 0)).toBeUndefined();
    expect(pool.take(often, 0)).toBe(made[0]);
    expect(pool.take(often, 0)).toBeUndefined();
  });

  it('never has more than its size: what was used last takes the place of the rest', async () => {
    await using pool = new Pool(systemEnv(), 2, open);
    for (const image of ['first', 'second']) {
      pool.take({ image, diskBytes: 1 }, 0);
      pool.take({ image, diskBytes: 1 }, 0);
      await pool.fill();
      expect(ready().map(({ shape }) => shape.image)).toEqual([image, image]);
    }
  });

  it('replaces a slot that ended by itself instead of handing it out', async () => {
    await using pool = new Pool(systemEnv(), 1, open);
    pool.take(often, 0);
    pool.take(often, 0);
    await pool.fill();
    await made[0]?.remove();
    expect(pool.take(often, 0)).toBeUndefined();
    await pool.fill();
    expect(pool.take(often, 0)).toBe(made[1]);
  });

  it('ends what waits when it is closed, and leaves what was taken', async () => {
    const pool = new Pool(systemEnv(), 2, open);
    pool.take(often, 0);
    pool.take(often, 0);
    await pool.fill();
    const taken = pool.take(often, 0);
    await pool[Symbol.asyncDispose]();
    expect(ready()).toEqual([taken]);
  });
});

const { socketPath = '', reason } = await findEngine();
const never = new AbortController().signal;
/** What a job can see of its own confinement. */
const LOOK = `id; env | while read line; do case $line in HOSTNAME=*) ;; *) echo "$line";; esac; done; pwd; ls -a / /in /out
cat /proc/self/status | while read name rest; do case $name in Cap*|NoNewPrivs:|Seccomp:|Uid:|Gid:|Groups:) echo $name $rest;; esac; done
cat /proc/self/limits; ls -l /proc/self/fd | while read a b c d e f g h i; do echo $i; done; ls /sys/class/net
echo x > /bin/x; echo x > /in/x; echo x > /.molt/x; echo $0 "$@"`;

describe.skipIf(reason !== '')(`a container that waited${reason === '' ? '' : ` (skipped: ${reason})`}`, () => {
  let root: string;
  let registry: Registry;
  let image: ContainerImage;
  let directories: RunDirectories;
  let runtime: ContainerRuntime;

  /** Slots of which their runtime said that they wait: a container is listed from when it is made, and waits later. */
  const ready = new Set<unknown>();
  const logger: Logger = {
    log: (_level, text, fields) => text === 'a container waits for a job' && ready.add(fields?.['slot']),
    child: () => logger,
  };
  const env: Env = { ...systemEnv(), logger };
  const openRuntime = (pool: number): ContainerRuntime =>
    new ContainerRuntime(env, { directory: join(root, 'runtime'), socketPath, pool });

  beforeAll(async () => {
    registry = await openBusyboxRegistry();
    image = { kind: 'image', reference: registry.reference };
  });
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'molt-pool-'));
    directories = makeDirectories();
    runtime = openRuntime(1);
  });
  afterEach(async () => {
    await runtime.close();
    const last = openRuntime(0);
    for (const attemptId of await last.list()) await last.remove(attemptId);
    expect(await last.list()).toEqual([]);
    rmSync(directories.root, { recursive: true, force: true });
    rmSync(root, { recursive: true, force: true });
  });
  afterAll(async () => {
    await registry?.[Symbol.asyncDispose]();
  });

  const request = (script: string, more: Partial<RunRequest> = {}): RunRequest =>
    requestOf(image, directories, { command: ['sh', '-c', script, 'zero', 'one two'], ...more });
  const isPooled = (attemptId: string): boolean => existsSync(join(root, 'runtime', 'assigned', `${attemptId}.json`));

  async function runOne(wanted: RunRequest): Promise<{ exit: RunExit; stdout: string; stderr: string }> {
    const run = await runtime.start(wanted, never);
    const logs = await readLogs(run);
    return { exit: await run.exit, stdout: logs.stdout, stderr: logs.stderr };
  }

  /** Two jobs of the shape, so that one more finds a container waiting. */
  async function warmUp(): Promise<void> {
    for (let job = 0; job < 2; job++) {
      const wanted = request('true');
      await runOne(wanted);
      await runtime.remove(wanted.attemptId);
    }
    const idle = async (): Promise<readonly boolean[]> => (await openRuntime(0).list()).map((slot) => ready.has(slot));
    await expect.poll(idle, { interval: 100 }).toEqual([true]);
  }

  it('is the job that it would have been: same user, rights, limits, variables and files, except its own entry', async () => {
    const environment = { GREETING: 'grüezi mitenand', PATH: '/bin:/nowhere' };
    const own = request(LOOK, { environment });
    const cold = await runOne(own);
    await runtime.remove(own.attemptId);
    await warmUp();
    const wanted = request(LOOK, { environment });
    const pooled = await runOne(wanted);
    expect(isPooled(wanted.attemptId)).toBe(true);
    const comparable = (text: string): string => text.replace('.molt\n', '').replace(/pipe:\[\d+\]/g, 'pipe');
    expect(comparable(pooled.stdout)).toBe(comparable(cold.stdout));
    expect(pooled.stdout).toContain('GREETING=grüezi mitenand');
    expect(pooled.stdout).toContain('zero one two');
    expect(pooled.stderr.match(/read-only|Read-only/g)).toHaveLength(3);
    expect(pooled.exit).toMatchObject({ reason: 'exited', exitCode: 0 });
  });

  it('obeys the limits of its own job, not of the one before', async () => {
    await warmUp();
    const { limits } = request('');
    const wanted = request('tail /dev/zero', { limits: { ...limits, memoryBytes: 32 << 20 } });
    const { exit } = await runOne(wanted);
    expect(isPooled(wanted.attemptId)).toBe(true);
    expect(exit).toMatchObject({ reason: 'out-of-memory' });
  });

  it('gives its outputs, bills from the first instruction, and is gone afterwards', async () => {
    await warmUp();
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    const wanted = request('echo kept > /out/file');
    const askedMs = performance.now();
    const { exit } = await runOne(wanted);
    const tookMs = performance.now() - askedMs;
    expect(isPooled(wanted.attemptId)).toBe(true);
    expect(readFileSync(join(directories.outputDirectory, 'file'), 'utf8')).toBe('kept\n');
    // It waited for a second before it was asked for, and that is not billed.
    expect(exit.durationMs).toBeLessThanOrEqual(tookMs);
    expect(await runtime.list()).toEqual([wanted.attemptId]);
    await runtime.remove(wanted.attemptId);
    expect(await runtime.list()).toEqual([]);
  });

  it('tells a program that is missing as every container does', async () => {
    await warmUp();
    const wanted = requestOf(image, directories, { command: ['no-such-program'] });
    const { exit } = await runOne(wanted);
    expect(isPooled(wanted.attemptId)).toBe(true);
    expect(exit).toMatchObject({ reason: 'exited', exitCode: 127 });
  });

  test.each<[string, () => Partial<RunRequest>]>([
    ['a working directory', () => ({ workdir: '/tmp' })],
    ['secrets', () => ({ secrets: { key: Buffer.from('value') } })],
    ['no command of its own', () => ({ command: [] })],
  ])('is not used for a job with %s', async (_what, more) => {
    await warmUp();
    const wanted = request('true', more());
    const run = await runtime.start(wanted, never);
    await run.exit;
    expect(isPooled(wanted.attemptId)).toBe(false);
  });

  it('goes on when its node is gone: the next one takes it up with its output and its beginning', async () => {
    await warmUp();
    const wanted = request('echo first; echo oops >&2; sleep 2; echo second', { attemptId: newAttemptId() });
    const run = await runtime.start(wanted, never);
    const next = openRuntime(0);
    expect(await next.list()).toContain(wanted.attemptId);
    const adopted = await next.adopt(wanted.attemptId);
    if (adopted === undefined) throw new Error('it was not taken up');
    expect(adopted.startedAtMs).toBe(run.startedAtMs);
    expect(await readLogs(adopted)).toMatchObject({ stdout: 'first\nsecond\n', stderr: 'oops\n' });
    expect(await adopted.exit).toMatchObject({ reason: 'exited', exitCode: 0 });
  });
});
