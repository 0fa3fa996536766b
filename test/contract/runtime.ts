/**
 * What any Runtime must do, run on every implementation: programs are given in two languages, the contract in one.
 */
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Image, LogChunk, Run, RunLimits, RunRequest, Runtime } from '../../node/runtime/index.ts';

export type Program =
  /** Prints `hello` and, to stderr, `oops`. */
  | 'hello'
  /** Returns 7. */
  | 'fail'
  /** Copies /in/data to /out/nested/copy. */
  | 'copy'
  /** Returns 0 when writing to /in is refused. */
  | 'write-input'
  /** Prints GREETING and every variable's name. */
  | 'environment'
  /** Prints `ready`, then computes for ever. */
  | 'spin'
  /** Prints 100,000 lines and returns 0. */
  | 'flood'
  /** Writes 16 MB to /out/big; returns 0 only if all was written. */
  | 'fill'
  /** Prints /secrets/key. */
  | 'secret';

export interface RuntimeUnderTest {
  readonly runtime: Runtime;
  readonly image: Image;
  readonly missingImage: Image;
  readonly programs: Readonly<Record<Program, readonly string[]>>;
  readonly close: () => Promise<void>;
}

const LIMITS: RunLimits = {
  cpus: 1,
  memoryBytes: 256 << 20,
  diskBytes: 8 << 20,
  durationMs: 60_000,
  logBytes: 1 << 20,
  processes: 32,
};

export interface RunDirectories {
  readonly root: string;
  readonly inputDirectory: string;
  readonly outputDirectory: string;
}

export function makeDirectories(): RunDirectories {
  const root = mkdtempSync(join(tmpdir(), 'molt-runtime-'));
  const inputDirectory = join(root, 'in');
  const outputDirectory = join(root, 'out');
  mkdirSync(inputDirectory);
  mkdirSync(outputDirectory);
  return { root, inputDirectory, outputDirectory };
}

let attempts = 0;
export function newAttemptId(): string {
  return `test-${process.pid}-${attempts++}`;
}

export function requestOf(image: Image, directories: RunDirectories, more: Partial<RunRequest>): RunRequest {
  return {
    attemptId: newAttemptId(),
    image,
    command: [],
    environment: {},
    inputDirectory: directories.inputDirectory,
    outputDirectory: directories.outputDirectory,
    limits: LIMITS,
    randomSeed: new Uint8Array(32).fill(7),
    clockStartMs: 1_700_000_000_000,
    ...more,
  };
}

export async function readLogs(run: Run): Promise<{ stdout: string; stderr: string; chunks: readonly LogChunk[] }> {
  const chunks: LogChunk[] = [];
  for await (const chunk of run.logs) chunks.push(chunk);
  const text = (stream: string): string =>
    Buffer.concat(chunks.filter((chunk) => chunk.stream === stream).map(({ bytes }) => bytes)).toString('utf8');
  return { stdout: text('stdout'), stderr: text('stderr'), chunks };
}

const never = new AbortController().signal;

export function describeRuntime(name: string, open: () => Promise<RuntimeUnderTest>, skipReason: string = ''): void {
  const title = skipReason === '' ? `a ${name} runtime` : `a ${name} runtime (skipped: ${skipReason})`;
  describe.skipIf(skipReason !== '')(title, () => {
    let under: RuntimeUnderTest;
    let directories: RunDirectories;
    const start = async (program: Program, more: Partial<RunRequest> = {}): Promise<Run> => {
      const command = under.programs[program];
      return under.runtime.start(requestOf(under.image, directories, { command, ...more }), never);
    };

    beforeAll(async () => {
      under = await open();
      directories = makeDirectories();
      await under.runtime.prepare(under.image, () => undefined, never);
    }, 120_000);
    afterEach(async () => {
      for (const attemptId of await under.runtime.list()) await under.runtime.remove(attemptId);
      rmSync(directories.root, { recursive: true, force: true });
      directories = makeDirectories();
    });
    afterAll(async () => {
      await under.close();
      rmSync(directories.root, { recursive: true, force: true });
    });

    it('says that it is available, and what it guarantees', async () => {
      const capability = await under.runtime.probe(never);
      expect(capability.reason).toBeUndefined();
      expect(capability.available).toBe(true);
      expect(capability.guarantees.length).toBeGreaterThan(0);
    });

    it('passes output on by its stream and tells the exit code', async () => {
      const run = await start('hello');
      const { stdout, stderr } = await readLogs(run);
      expect(stdout).toBe('hello\n');
      expect(stderr).toBe('oops\n');
      const exit = await run.exit;
      expect(exit).toMatchObject({ reason: 'exited', exitCode: 0 });
      expect(exit.startedAtMs).toBe(run.startedAtMs);
      expect(exit.finishedAtMs).toBeGreaterThanOrEqual(exit.startedAtMs);
    });

    it('tells a non-zero exit code as the verdict of the program', async () => {
      const run = await start('fail');
      expect(await run.exit).toMatchObject({ reason: 'exited', exitCode: 7 });
    });

    it('shows the inputs and collects the outputs', async () => {
      const data = Buffer.alloc(3_000_000, 'molt ');
      writeFileSync(join(directories.inputDirectory, 'data'), data);
      const run = await start('copy');
      expect(await run.exit).toMatchObject({ reason: 'exited', exitCode: 0 });
      expect(readdirSync(directories.outputDirectory)).toEqual(['nested']);
      expect(readFileSync(join(directories.outputDirectory, 'nested', 'copy')).equals(data)).toBe(true);
    });

    it('refuses writes to the inputs', async () => {
      writeFileSync(join(directories.inputDirectory, 'data'), 'original');
      const run = await start('write-input');
      expect(await run.exit).toMatchObject({ reason: 'exited', exitCode: 0 });
      expect(readFileSync(join(directories.inputDirectory, 'data'), 'utf8')).toBe('original');
    });

    it('gives the program its own variables and none of the node', async () => {
      process.env['MOLT_TEST_LEAK'] = 'leaked';
      const run = await start('environment', { environment: { GREETING: 'grüezi' } });
      const { stdout } = await readLogs(run);
      delete process.env['MOLT_TEST_LEAK'];
      expect(stdout).toContain('grüezi');
      expect(stdout).not.toContain('MOLT_TEST_LEAK');
    });

    it('shows secrets as files', async () => {
      const run = await start('secret', { secrets: { key: Buffer.from('hunter2') } });
      expect((await readLogs(run)).stdout).toContain('hunter2');
      expect(await run.exit).toMatchObject({ reason: 'exited', exitCode: 0 });
    });

    it('ends a program at its duration limit', async () => {
      const run = await start('spin', { limits: { ...LIMITS, durationMs: 1000 } });
      const exit = await run.exit;
      expect(exit).toMatchObject({ reason: 'timed-out', exitCode: undefined });
      expect(exit.durationMs).toBeGreaterThanOrEqual(990);
    });

    it('stops a program on request, however often that is asked', async () => {
      const run = await start('spin');
      await Promise.all([run.stop(0), run.stop(1000)]);
      await run.stop(0);
      expect(await run.exit).toMatchObject({ reason: 'cancelled' });
    });

    it('passes output on while the program computes, and answers for its usage', async () => {
      const run = await start('spin');
      for await (const { bytes } of run.logs) {
        expect(Buffer.from(bytes).toString('utf8')).toContain('ready');
        break;
      }
      const usage = await run.usage();
      expect(usage.memoryBytes).toBeGreaterThan(0);
      expect(await under.runtime.list()).toHaveLength(1);
      await run.stop(0);
    });

    it('cuts output at its limit, says so, and lets the program go on', async () => {
      const run = await start('flood', { limits: { ...LIMITS, logBytes: 10_000 } });
      const { stdout, stderr } = await readLogs(run);
      expect(Buffer.byteLength(stdout)).toBe(10_000);
      expect(stderr).toContain('the output limit is reached');
      expect(await run.exit).toMatchObject({ reason: 'exited', exitCode: 0 });
    });

    it('lets a program go on whose reader has left', async () => {
      const run = await start('flood', { limits: { ...LIMITS, logBytes: 64 << 20 } });
      for await (const _ of run.logs) break;
      expect(await run.exit).toMatchObject({ reason: 'exited', exitCode: 0 });
    });

    it('keeps what is written within the disk limit', async () => {
      const run = await start('fill');
      const exit = await run.exit;
      expect(exit.reason === 'exited' && exit.exitCode === 0).toBe(false);
      const big = join(directories.outputDirectory, 'big');
      expect(existsSync(big) ? lstatSync(big).size : 0).toBeLessThanOrEqual(LIMITS.diskBytes);
    });

    it('refuses an image that does not exist', async () => {
      const request = requestOf(under.missingImage, directories, { command: under.programs.hello });
      await expect(under.runtime.start(request, never)).rejects.toMatchObject({ code: 'job/image-missing' });
      expect(await under.runtime.list()).toEqual([]);
    });

    it('refuses requests that cannot be', async () => {
      await expect(start('hello', { attemptId: '../escape' })).rejects.toMatchObject({ code: 'job/impossible' });
      await expect(start('hello', { environment: { 'A=B': '' } })).rejects.toMatchObject({ code: 'job/impossible' });
      await expect(start('hello', { limits: { ...LIMITS, cpus: 0 } })).rejects.toMatchObject({
        code: 'job/impossible',
      });
    });

    it('does not start when the start was cancelled', async () => {
      const request = requestOf(under.image, directories, { command: under.programs.hello });
      const starting = under.runtime.start(request, AbortSignal.abort());
      await expect(starting).rejects.toMatchObject({ code: 'job/cancelled' });
      expect(await under.runtime.list()).toEqual([]);
    });

    it('leaves nothing of an attempt behind', async () => {
      const run = await start('spin', { attemptId: 'gone' });
      await under.runtime.remove('gone');
      await run.exit;
      expect(await under.runtime.list()).toEqual([]);
      await under.runtime.remove('gone');
      expect(await under.runtime.adopt('gone')).toBeUndefined();
    });
  });
}
