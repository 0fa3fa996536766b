/**
 * A slot: one sandbox process and the only two directories it has.
 *
 * What a process may see is fixed when it starts, and it starts before its job is known. So every process gets a slot of
 * its own: `given/`, which it can only read and into which the node puts the module and the inputs as hard links, and
 * `out/`, which becomes the job's output directory when the run is over. A slot serves one run and is never used again.
 */
import { copyFile, cp, link, mkdir, mkdtemp, opendir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Env } from '../../../protocol/env.ts';
import { MoltError } from '../../../protocol/errors.ts';
import type { SandboxTask } from './channel.ts';
import { DEPTH_MAX, ENTRIES_MAX, SCRATCH_NAME } from './files.ts';
import { type Fences, Sandbox } from './sandbox.ts';

export class Slot {
  readonly #directory: string;
  readonly sandbox: Sandbox;
  #alive = true;

  private constructor(directory: string, sandbox: Sandbox) {
    this.#directory = directory;
    this.sandbox = sandbox;
    void sandbox.ended.then(() => {
      this.#alive = false;
    });
  }

  /** Starts a process. `directory` holds the slots of a runtime; its path has no links. */
  static async open(env: Env, directory: string, fences: Fences): Promise<Slot> {
    const own = await mkdtemp(join(directory, 'slot-'));
    await mkdir(join(own, 'given'), { mode: 0o700 });
    await Promise.all([mkdir(join(own, 'given', 'in'), { mode: 0o700 }), mkdir(join(own, 'out'), { mode: 0o700 })]);
    return new Slot(own, new Sandbox(env, { readable: [join(own, 'given')], writable: join(own, 'out'), fences }));
  }

  get alive(): boolean {
    return this.#alive;
  }

  get inputDirectory(): string {
    return join(this.#directory, 'given', 'in');
  }

  get outputDirectory(): string {
    return join(this.#directory, 'out');
  }

  /** Shows a file of the host to the process; returns the path under which it sees it. */
  async show(hostPath: string, name: string): Promise<string> {
    const path = join(this.#directory, 'given', name);
    await place(hostPath, path);
    return path;
  }

  /** Shows the regular files of a directory as the job's inputs. Throws `job/impossible` for too large a tree. */
  async showInputs(hostDirectory: string): Promise<void> {
    let entries = 0;
    const walk = async (from: string, to: string, depth: number): Promise<void> => {
      for await (const entry of await opendir(from)) {
        if (++entries > ENTRIES_MAX || depth > DEPTH_MAX) throw tooLarge();
        const [source, target] = [join(from, entry.name), join(to, entry.name)];
        if (entry.isFile()) await place(source, target);
        else if (entry.isDirectory()) {
          await mkdir(target, { mode: 0o700 });
          await walk(source, target, depth + 1);
        }
      }
    };
    await walk(hostDirectory, this.inputDirectory, 1);
  }

  /** Gives the process a task and waits until it holds a compiled module. Throws what it reports. */
  async load(task: Exclude<SandboxTask, { task: 'run' }>): Promise<void> {
    const answered = new Promise<void>((resolve, reject) => {
      this.sandbox.onEvent = (event) => {
        if (event.event === 'loaded') resolve();
        else if (event.event === 'failed') reject(new MoltError(event.code, event.message));
      };
    });
    this.sandbox.send(task);
    const ended = this.sandbox.ended.then((end) => {
      throw new MoltError('runtime/engine-failed', `the sandbox process ended early: ${end.diagnostic || 'killed'}`);
    });
    await Promise.race([answered, ended]);
  }

  /** Moves what the run left to its output directory, which is empty. The process has ended. */
  async handOver(outputDirectory: string): Promise<void> {
    // A process that was killed leaves what the guest had written so far; it is no output.
    await rm(join(this.outputDirectory, SCRATCH_NAME), { recursive: true, force: true });
    try {
      await rename(this.outputDirectory, outputDirectory);
    } catch {
      // Another file system, or a directory that cannot be replaced.
      await cp(this.outputDirectory, outputDirectory, { recursive: true });
    }
    await this.close();
  }

  /** Ends the process and deletes its directories. Idempotent. */
  async close(): Promise<void> {
    this.sandbox.kill();
    await this.sandbox.ended;
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** A hard link; a copy where the file system or the owner of the file does not allow one. */
async function place(from: string, to: string): Promise<void> {
  await link(from, to).catch(async () => copyFile(from, to));
}

function tooLarge(): MoltError {
  return new MoltError(
    'job/impossible',
    `/in must have at most ${ENTRIES_MAX} entries in ${DEPTH_MAX} levels; pack them into fewer files`,
    { directory: '/in' },
  );
}
