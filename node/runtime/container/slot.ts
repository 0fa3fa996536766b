/**
 * One container that waits to become a job: the entry program in it, our connection to its input and output, and the file
 * that says which attempt it was given to.
 *
 * The file is written when the job has begun, so a node that is killed before that finds a container that belongs to
 * nobody and removes it, and one that is killed after it finds the attempt with the moment from which it is billed.
 */
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import type { Container } from 'dockerode';
import { z } from 'zod';
import type { Env } from '../../../protocol/env.ts';
import { MoltError } from '../../../protocol/errors.ts';
import type { RunLimits, RunRequest } from '../runtime.ts';
import { afterMark, entryMessage } from './entry.ts';
import { type Frame, readFrames } from './frames.ts';
import { limitsConfig } from './host-config.ts';
import type { Slot } from './pool.ts';

/** Slots are attempts of their own until they are given to one. */
export const SLOT_PREFIX = 'pool-';
/** How long the entry program may take to answer. */
const BEGIN_MS_MAX = 5_000;

export interface SlotParts {
  readonly id: string;
  readonly container: Container;
  readonly attached: Duplex;
  /** Of its first process. */
  readonly pid: number;
  /** Resolves when the container stopped. */
  readonly waiting: Promise<unknown>;
  readonly limits: RunLimits;
  readonly remove: () => Promise<void>;
}

export interface Begun {
  readonly startedAtMs: number;
  readonly frames: AsyncIterable<Frame>;
}

export class PooledSlot implements Slot {
  readonly id: string;
  readonly container: Container;
  readonly waiting: Promise<unknown>;
  readonly pid: number;
  readonly #parts: SlotParts;
  #ended = false;

  constructor(parts: SlotParts) {
    this.#parts = parts;
    this.id = parts.id;
    this.container = parts.container;
    this.waiting = parts.waiting;
    this.pid = parts.pid;
    const end = (): void => void (this.#ended = true);
    parts.waiting.then(end, end);
    parts.attached.once('error', end);
    parts.attached.once('close', end);
  }

  isReady(): boolean {
    return !this.#ended;
  }

  remove(): Promise<void> {
    this.#parts.attached.destroy();
    return this.#parts.remove();
  }

  /** Makes it the job. Throws `runtime/engine-failed` when it did not begin: then nothing of the job ran here. */
  async begin(env: Env, request: RunRequest): Promise<Begun> {
    const { attached, limits } = this.#parts;
    const wanted = limitsConfig(request.limits);
    if (JSON.stringify(wanted) !== JSON.stringify(limitsConfig(limits))) await this.container.update(wanted);
    attached.write(entryMessage(request.command, request.environment));
    const given = new AbortController();
    const late = env.clock.sleep(BEGIN_MS_MAX, given.signal).then(() => undefined);
    late.catch(() => undefined);
    const answer = await Promise.race([afterMark(readFrames(attached)), late]);
    given.abort(new MoltError('node/stopped', 'answered'));
    if (answer?.seen !== true) {
      throw new MoltError('runtime/engine-failed', 'a waiting container did not take its job; another one is started');
    }
    return { startedAtMs: env.clock.now(), frames: answer.frames };
  }
}

const assignment = z.object({ slot: z.string(), startedAtMs: z.number(), terms: z.unknown() });
export type Assignment = z.infer<typeof assignment>;

/** Which slot an attempt runs in, on disk. */
export class Assignments {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  #file(attemptId: string): string {
    return join(this.#directory, `${attemptId}.json`);
  }

  /** A crash of the node leaves the file whole or not there; one of the machine ends the container as well. */
  async write(attemptId: string, content: Assignment): Promise<void> {
    await mkdir(this.#directory, { recursive: true });
    const temporary = `${this.#file(attemptId)}.new`;
    await writeFile(temporary, JSON.stringify(content), { mode: 0o600 });
    await rename(temporary, this.#file(attemptId));
  }

  async read(attemptId: string): Promise<Assignment | undefined> {
    try {
      return assignment.parse(JSON.parse(await readFile(this.#file(attemptId), 'utf8')));
    } catch {
      return undefined;
    }
  }

  /** Attempts by slot. */
  async list(): Promise<ReadonlyMap<string, string>> {
    const files = await readdir(this.#directory).catch(() => []);
    const attempts = files.filter((file) => file.endsWith('.json')).map((file) => file.slice(0, -'.json'.length));
    const entries = await Promise.all(
      attempts.map(async (attempt) => [(await this.read(attempt))?.slot ?? '', attempt] as const),
    );
    return new Map(entries);
  }

  async remove(attemptId: string): Promise<void> {
    await rm(this.#file(attemptId), { force: true });
  }
}
