/**
 * Sockets in the network namespace of a job.
 *
 * A socket belongs for ever to the namespace in which it was made, whatever process uses it. So a small program of ours
 * enters the namespace, makes listeners and connections there and passes them here; the namespace itself keeps no
 * interface but its own loopback and no route. Needs Linux, root, `nsenter`, and an engine on this machine.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { Server, Socket } from 'node:net';
import { fileURLToPath } from 'node:url';

import { Deadline } from '../../../protocol/deadline.ts';
import type { Env } from '../../../protocol/env.ts';
import { MoltError } from '../../../protocol/errors.ts';

export interface ListenAddress {
  /** In 127.0.0.0/8. */
  readonly address: string;
  readonly port: number;
}

export type NodeMessage =
  | { readonly type: 'listen'; readonly addresses: readonly ListenAddress[] }
  | { readonly type: 'connect'; readonly id: number; readonly port: number };
export type ChildMessage =
  /** With the listener; in the order asked for. */
  | { readonly type: 'listening' }
  | { readonly type: 'ready' }
  | { readonly type: 'failed'; readonly reason: string }
  /** With the socket. */
  | { readonly type: 'connected'; readonly id: number }
  | { readonly type: 'refused'; readonly id: number; readonly reason: string };

const isCheckout = import.meta.url.endsWith('.ts');
const childEntry = fileURLToPath(new URL(`./namespace-child${isCheckout ? '.ts' : '.js'}`, import.meta.url));
const OWN_NAMESPACE = '/proc/self/ns/net';
/** Index of the namespace's descriptor in the child: after the three standard ones and the message channel. */
const NAMESPACE_FD = 4;
const ENTER_MS = 20_000;
const COMPLAINT_BYTES = 2_000;

/** What a child that is asked for a connection has still to answer. */
interface Waiting {
  resolve(socket: Socket): void;
  reject(error: Error): void;
}

interface Door {
  readonly child: ChildProcess;
  readonly waiting: Map<number, Waiting>;
}

export class Namespace implements AsyncDisposable {
  readonly #env: Env;
  readonly #handle: FileHandle;
  #door: Promise<Door> | undefined;
  #next = 0;
  #closed = false;

  private constructor(env: Env, handle: FileHandle) {
    this.#env = env;
    this.#handle = handle;
  }

  /**
   * Holds on to the network namespace of a process. `isStill` is asked once the namespace is held: only when the process
   * is then still the one that was meant was its number not given to another meanwhile. Throws
   * `runtime/engine-failed`, also for this node's own namespace.
   */
  static async of(env: Env, pid: number, isStill: () => Promise<boolean>): Promise<Namespace> {
    const handle = await open(`/proc/${pid}/ns/net`).catch((cause: unknown) => {
      throw failed('the process that holds it is gone', cause);
    });
    try {
      if (!(await isStill())) throw failed('the process that holds it is gone');
      const [its, own] = [await handle.stat(), await stat(OWN_NAMESPACE)];
      if (its.ino === own.ino && its.dev === own.dev) throw failed("it is this node's own");
      return new Namespace(env, handle);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /**
   * Listens inside, all or none, and returns the listeners in the order of the addresses. Their connections come paused and
   * may be half-closed. Throws `runtime/engine-failed`.
   */
  async listen(addresses: readonly ListenAddress[]): Promise<readonly Server[]> {
    const servers: Server[] = [];
    const { child } = await this.#enter(addresses, servers);
    // Listeners stay when their maker goes; a door for connections is opened when one is wanted.
    child.kill('SIGKILL');
    if (servers.length === addresses.length) return servers;
    for (const server of servers) server.close();
    throw failed(`it gave ${servers.length} of ${addresses.length} listeners`);
  }

  /** A connection to 127.0.0.1 inside, paused. Throws `mesh/unreachable` when nothing listens, `runtime/engine-failed`. */
  async connect(port: number, signal: AbortSignal): Promise<Socket> {
    signal.throwIfAborted();
    if (this.#closed) throw failed('its job is over');
    this.#door ??= this.#openDoor();
    const { child, waiting } = await this.#door;
    signal.throwIfAborted();
    const id = this.#next++;
    const { promise, resolve, reject } = Promise.withResolvers<Socket>();
    waiting.set(id, { resolve, reject });
    const onAbort = (): void => {
      // The answer still comes, and its socket is then closed.
      waiting.delete(id);
      reject(signal.reason as Error);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      child.send({ type: 'connect', id, port } satisfies NodeMessage, () => undefined);
      return await promise;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  async #openDoor(): Promise<Door> {
    try {
      const door = await this.#enter([], []);
      const gone = (): void => {
        this.#door = undefined;
        for (const asked of door.waiting.values()) asked.reject(failed('the way in closed'));
        door.waiting.clear();
      };
      door.child.once('exit', gone);
      if (door.child.exitCode !== null || door.child.signalCode !== null) gone();
      return door;
    } catch (error) {
      this.#door = undefined;
      throw error;
    }
  }

  /** Starts the program inside, with these listeners; resolves when they all stand. */
  async #enter(addresses: readonly ListenAddress[], servers: Server[]): Promise<Door> {
    const child = spawn('nsenter', [`--net=/proc/self/fd/${NAMESPACE_FD}`, process.execPath, childEntry], {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc', this.#handle.fd],
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
      cwd: '/',
    });
    const waiting = new Map<number, Waiting>();
    const { promise, resolve, reject } = Promise.withResolvers<Door>();
    let complaint = '';
    child.stderr?.on('data', (bytes: Buffer) => {
      complaint = `${complaint}${bytes.toString()}`.slice(0, COMPLAINT_BYTES);
    });
    child.once('error', (cause) => reject(failed('nsenter cannot be run', cause)));
    child.once('exit', () => reject(failed(complaint.trim() === '' ? 'it was left at once' : complaint.trim())));
    child.on('message', (message: ChildMessage, handle: unknown) => {
      if (message.type === 'ready') resolve({ child, waiting });
      else if (message.type === 'failed') reject(failed(message.reason));
      else if (message.type === 'listening') {
        // A message from another process names no options; these hold for the connections to come.
        if (handle instanceof Server)
          servers.push(Object.assign(handle, { allowHalfOpen: true, pauseOnConnect: true }));
      } else answer(waiting, message, handle);
    });
    using deadline = new Deadline(this.#env.clock, ENTER_MS);
    deadline.signal.addEventListener('abort', () => reject(failed('it was not entered in time')), { once: true });
    try {
      child.send({ type: 'listen', addresses } satisfies NodeMessage, () => undefined);
      return await promise;
    } catch (error) {
      child.kill('SIGKILL');
      for (const server of servers) server.close();
      throw error;
    }
  }

  /** Lets go of the namespace. Listeners and connections that were handed out are their owner's. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const door = await this.#door?.catch(() => undefined);
    door?.child.kill('SIGKILL');
    await this.#handle.close();
  }
}

function answer(
  waiting: Map<number, Waiting>,
  message: Extract<ChildMessage, { readonly id: number }>,
  handle: unknown,
): void {
  const asked = waiting.get(message.id);
  waiting.delete(message.id);
  if (message.type === 'refused') {
    asked?.reject(
      new MoltError(
        'mesh/unreachable',
        `nothing in the job takes the connection (${message.reason}); try again when it listens`,
      ),
    );
  } else if (!(handle instanceof Socket)) {
    // It was closed before it could be taken over.
    asked?.reject(new MoltError('mesh/unreachable', 'the job closed the connection at once; try again'));
  } else if (asked === undefined) handle.destroy();
  else asked.resolve(Object.assign(handle, { allowHalfOpen: true }));
}

function failed(why: string, cause?: unknown): MoltError {
  return new MoltError(
    'runtime/engine-failed',
    `the network namespace of the job cannot be used: ${why}; the node needs root, nsenter and an engine on its own machine`,
    {},
    { cause },
  );
}
