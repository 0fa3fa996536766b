/**
 * Whose things these are: the labels and names by which a node finds its own in an engine that it may share with other
 * nodes, also after a restart.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { LABEL } from './engine.ts';

/** What a container or a volume is for. */
type Role = 'job' | 'pool' | 'entry' | 'loader' | 'network' | 'self-test';

export class Owner {
  readonly #id: string;

  private constructor(id: string) {
    this.#id = id;
  }

  /** The node that keeps its files in this directory; its id is one of them. */
  static async at(directory: string): Promise<Owner> {
    const path = join(directory, 'node-id');
    await mkdir(directory, { recursive: true });
    await writeFile(path, randomUUID(), { flag: 'wx' }).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
    return new Owner((await readFile(path, 'utf8')).trim());
  }

  /** Without an attempt: what belongs to the node, and is nothing that a job left. */
  labels(role: Role, attemptId?: string): Record<string, string> {
    const attempt = attemptId === undefined ? {} : { [LABEL.attempt]: attemptId };
    return { [LABEL.node]: this.#id, ...attempt, [LABEL.role]: role };
  }

  /** Of what is only tried out: what a killed self-test leaves is found like a job's. */
  trialLabels(): Record<string, string> {
    return this.labels('self-test', `self-test-${randomUUID()}`);
  }

  /** Lists all that is the node's, or what is there for one attempt. */
  filters(attemptId?: string): { readonly label: string[] } {
    const label = [`${LABEL.node}=${this.#id}`];
    if (attemptId !== undefined) label.push(`${LABEL.attempt}=${attemptId}`);
    return { label };
  }

  name(what: string): string {
    return `molt-${this.#id.slice(0, 8)}-${what}`;
  }
}
