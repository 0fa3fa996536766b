/**
 * The network of one job: nothing but what its specification names.
 *
 * The job's namespace has its own loopback, no other interface and no route, so there is nothing to filter. For each
 * host that the job may reach, the name stands in the job's hosts file with a loopback address of its own, where this node
 * listens (namespace.ts) and passes bytes on to the host's real address, which was looked up and judged once, before
 * the job started. Names that only a suffix allows are not known before: for them a proxy listens that knows one word,
 * CONNECT. TCP only. Services go the other way: the node connects to a port of the job's loopback.
 *
 * What a job can take here: 256 connections at a time, each with the buffers of two sockets; 1,024 names.
 */
import type { Server, Socket } from 'node:net';

import { type EgressRule, egressAllows, isHostName, parseEgressRule } from '../../../protocol/egress.ts';
import { Deadline } from '../../../protocol/deadline.ts';
import type { Env } from '../../../protocol/env.ts';
import { MoltError } from '../../../protocol/errors.ts';
import { type Outside, connectOutside, reachableAddresses } from '../../outside.ts';
import type { ListenAddress, Namespace } from './namespace.ts';

/** What a job may reach, with the addresses its hosts had when it started. Survives in a label of the container (JSON). */
export interface NetworkTerms {
  /** Rules as the specification has them. */
  readonly egress: readonly string[];
  /** Ports of services. */
  readonly services: readonly number[];
  /** Host name → addresses. */
  readonly pins: Readonly<Record<string, readonly string[]>>;
}

/** Bytes from the world to the job, and back. */
export interface Traffic {
  readonly receivedBytes: number;
  readonly sentBytes: number;
}

const CONNECTIONS_MAX = 256;
const NAMES_MAX = 1_024;
const CONNECT_MS = 10_000;
const HEAD_MS = 10_000;
const HEAD_BYTES_MAX = 8 * 1024;
/** How long a job whose request was refused may take to end its connection. */
const REFUSED_MS = 10_000;
const IDLE_MS_MAX = 10 * 60_000;
const SWEEP_MS = 30_000;
const PROXY: ListenAddress = { address: '127.77.0.1', port: 3128 };
/** Hosts get 127.77.0.2 and up: a specification names far fewer than there are. */
const FIRST_HOST = 2;

/** Looks up the hosts that are named whole. Throws `job/egress-refused` for one that is not in the public internet. */
export async function pinHosts(
  outside: Outside,
  wanted: { readonly egress: readonly string[]; readonly services: readonly number[] },
): Promise<NetworkTerms> {
  const names = hostsOf(wanted.egress.map(parseEgressRule));
  const pins = await Promise.all(names.map(async (name) => [name, await reachableAddresses(outside, name)] as const));
  return { egress: wanted.egress, services: wanted.services, pins: Object.fromEntries(pins) };
}

/** Lines for the job's hosts file, `name:address`. */
export function extraHosts(terms: NetworkTerms): string[] {
  return hostsOf(terms.egress.map(parseEgressRule)).map((name, index) => `${name}:${loopbackOf(index)}`);
}

/** Variables by which programs find the proxy; none where every host is named whole. */
export function proxyVariables(terms: NetworkTerms): Record<string, string> {
  if (!terms.egress.some((rule) => parseEgressRule(rule).any)) return {};
  const proxy = `http://${PROXY.address}:${PROXY.port}`;
  const direct = ['localhost', '127.0.0.1', ...Object.keys(terms.pins)].join(',');
  return { HTTPS_PROXY: proxy, https_proxy: proxy, NO_PROXY: direct, no_proxy: direct };
}

/** Each name once, in the order of the rules: a host's place in it is its loopback address. */
function hostsOf(rules: readonly EgressRule[]): string[] {
  return [...new Set(rules.flatMap(({ any, host }) => (any ? [] : [host])))];
}

function loopbackOf(index: number): string {
  return `127.77.0.${FIRST_HOST + index}`;
}

/** A job's connection and, once there is one, the host's. */
interface Pair {
  readonly inner: Socket;
  outer?: Socket;
  bytes: number;
  movedMs: number;
}

export class JobNetwork implements AsyncDisposable {
  readonly #env: Env;
  readonly #namespace: Namespace;
  readonly #outside: Outside;
  readonly #terms: NetworkTerms;
  readonly #rules: readonly EgressRule[];
  readonly #pairs = new Set<Pair>();
  readonly #guests = new Set<Socket>();
  readonly #names = new Map<string, Promise<readonly string[]>>();
  readonly #over = new AbortController();
  #servers: readonly Server[] = [];
  #sweep: Disposable | undefined;
  #receivedBytes = 0;
  #sentBytes = 0;

  private constructor(env: Env, namespace: Namespace, terms: NetworkTerms, outside: Outside) {
    this.#env = env;
    this.#namespace = namespace;
    this.#terms = terms;
    this.#outside = outside;
    this.#rules = terms.egress.map(parseEgressRule);
    for (const [name, addresses] of Object.entries(terms.pins)) this.#names.set(name, Promise.resolve(addresses));
  }

  /** Stands before the job starts. Owns the namespace from now on, also when it throws `runtime/engine-failed`. */
  static async open(env: Env, namespace: Namespace, terms: NetworkTerms, outside: Outside): Promise<JobNetwork> {
    const network = new JobNetwork(env, namespace, terms, outside);
    try {
      await network.#listen();
    } catch (error) {
      await network[Symbol.asyncDispose]();
      throw error;
    }
    return network;
  }

  async #listen(): Promise<void> {
    const names = hostsOf(this.#rules);
    const direct = this.#rules
      .filter(({ any }) => !any)
      .map(({ host, port }) => ({ host, address: loopbackOf(names.indexOf(host)), port }));
    const proxied = this.#rules.some(({ any }) => any);
    const addresses: readonly ListenAddress[] = [...direct, ...(proxied ? [PROXY] : [])];
    if (addresses.length === 0) return;
    this.#servers = await this.#namespace.listen(addresses);
    for (const [index, server] of this.#servers.entries()) {
      const to = direct[index];
      server.on('error', () => undefined);
      server.on('connection', (inner) =>
        this.#accept(inner, (pair) => (to === undefined ? this.#serveProxy(pair) : this.#serveHost(pair, to))),
      );
    }
    this.#sweep = this.#env.clock.every(SWEEP_MS, () => this.#dropIdle());
  }

  /** Aborts when this network is closed. */
  get over(): AbortSignal {
    return this.#over.signal;
  }

  /** Totals so far, services included; also after the end. */
  traffic(): Traffic {
    let [receivedBytes, sentBytes] = [this.#receivedBytes, this.#sentBytes];
    for (const socket of [...[...this.#pairs].map(({ inner }) => inner), ...this.#guests]) {
      receivedBytes += socket.bytesWritten;
      sentBytes += socket.bytesRead;
    }
    return { receivedBytes, sentBytes };
  }

  /** A connection to one of the services. Throws `job/impossible` for another port, `mesh/unreachable` while nothing listens. */
  async connect(port: number, signal: AbortSignal): Promise<Socket> {
    if (!this.#terms.services.includes(port)) {
      throw new MoltError('job/impossible', `the job has no service on port ${port}`, { port });
    }
    if (this.#guests.size >= CONNECTIONS_MAX) {
      throw new MoltError('mesh/unreachable', `the job's services have ${CONNECTIONS_MAX} connections; close some`);
    }
    const socket = await this.#namespace.connect(port, AbortSignal.any([signal, this.#over.signal]));
    this.#guests.add(socket);
    // Its own error is told by `close`.
    socket.on('error', () => undefined);
    socket.once('close', () => {
      this.#guests.delete(socket);
      this.#count(socket);
    });
    if (this.#over.signal.aborted) socket.destroy();
    return socket;
  }

  #count(inner: Socket): void {
    this.#receivedBytes += inner.bytesWritten;
    this.#sentBytes += inner.bytesRead;
  }

  #accept(inner: Socket, serve: (pair: Pair) => Promise<void>): void {
    inner.on('error', () => undefined);
    if (this.#pairs.size >= CONNECTIONS_MAX || this.#over.signal.aborted) {
      inner.resetAndDestroy();
      return;
    }
    const pair: Pair = { inner, bytes: 0, movedMs: this.#env.clock.monotonic() };
    this.#pairs.add(pair);
    inner.once('close', () => {
      this.#settle(pair);
    });
    serve(pair).catch((error: unknown) => {
      inner.resetAndDestroy();
      this.#env.logger.log('debug', 'a connection of a job was not made', {
        reason: error instanceof Error ? error.message : String(error),
      });
    });
  }

  /** Forgets a pair when both its ends are closed. */
  #settle(pair: Pair): void {
    const { inner, outer } = pair;
    if (!inner.closed || (outer !== undefined && !outer.closed) || !this.#pairs.delete(pair)) return;
    this.#count(inner);
  }

  async #serveHost(pair: Pair, to: { readonly host: string; readonly port: number }): Promise<void> {
    const outer = await this.#dial(to.host, to.port);
    this.#splice(pair, outer);
  }

  async #serveProxy(pair: Pair): Promise<void> {
    const { inner } = pair;
    const head = await readHead(this.#env, inner);
    if (head === undefined)
      return refuse(this.#env, inner, 400, 'expected one CONNECT request of at most 8 KiB within 10 s');
    const asked = parseConnect(head);
    if (asked === undefined) {
      return refuse(
        this.#env,
        inner,
        405,
        'only "CONNECT host:port HTTP/1.1" is understood; plain HTTP goes to hosts named whole',
      );
    }
    const { host, port } = asked;
    if (!isHostName(host) || !this.#rules.some((rule) => egressAllows(rule, host, port))) {
      return refuse(this.#env, inner, 403, `${host}:${port} is not among the egress rules of this job`);
    }
    try {
      const outer = await this.#dial(host, port);
      inner.write('HTTP/1.1 200 Connection established\r\n\r\n');
      this.#splice(pair, outer);
    } catch (error) {
      if (!(error instanceof MoltError)) throw error;
      return refuse(this.#env, inner, error.code === 'job/egress-refused' ? 403 : 502, error.message);
    }
  }

  async #dial(host: string, port: number): Promise<Socket> {
    using deadline = new Deadline(this.#env.clock, CONNECT_MS, this.#over.signal);
    try {
      const addresses = await this.#addressesOf(host);
      return await connectOutside(this.#outside, { host, addresses, port }, deadline.signal);
    } catch (error) {
      if (!deadline.expired) throw error;
      throw new MoltError('mesh/unreachable', `${host}:${port} does not answer; try again later`, { host });
    }
  }

  /** A name keeps the addresses it had when it was first used. A failed look-up is forgotten. */
  #addressesOf(host: string): Promise<readonly string[]> {
    const known = this.#names.get(host);
    if (known !== undefined) return known;
    if (this.#names.size >= NAMES_MAX) {
      const message = `the job has asked for ${NAMES_MAX} names, more are not looked up`;
      return Promise.reject(new MoltError('job/egress-refused', message));
    }
    const looking = reachableAddresses(this.#outside, host);
    this.#names.set(host, looking);
    looking.catch(() => this.#names.delete(host));
    return looking;
  }

  /** Bytes both ways with back-pressure; an end passes as an end, a break as a break. */
  #splice(pair: Pair, outer: Socket): void {
    const { inner } = pair;
    pair.outer = outer;
    outer.once('close', () => this.#settle(pair));
    if (inner.destroyed || this.#over.signal.aborted) {
      inner.destroy();
      outer.destroy();
      return;
    }
    breakTogether(inner, outer);
    breakTogether(outer, inner);
    inner.pipe(outer);
    outer.pipe(inner);
  }

  #dropIdle(): void {
    const nowMs = this.#env.clock.monotonic();
    for (const pair of this.#pairs) {
      const bytes = pair.inner.bytesRead + pair.inner.bytesWritten;
      if (bytes !== pair.bytes) Object.assign(pair, { bytes, movedMs: nowMs });
      else if (nowMs - pair.movedMs > IDLE_MS_MAX) destroy(pair);
    }
  }

  /** Ends every connection. Idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.abort(new MoltError('mesh/closed', 'the job is over'));
    this.#sweep?.[Symbol.dispose]();
    for (const server of this.#servers) server.close();
    for (const pair of this.#pairs) destroy(pair);
    for (const socket of this.#guests) socket.resetAndDestroy();
    await this.#namespace[Symbol.asyncDispose]();
  }
}

function destroy({ inner, outer }: Pair): void {
  inner.resetAndDestroy();
  outer?.resetAndDestroy();
}

/**
 * A socket that closed without having ended both ways takes the other with it, by a reset, so that nobody takes what came so
 * far for the whole; a proper end was passed on by `pipe`.
 */
function breakTogether(one: Socket, other: Socket): void {
  one.once('close', () => {
    if (!one.readableEnded || !one.writableFinished) other.resetAndDestroy();
  });
}

/** The bytes up to the empty line; what follows goes back into the socket. Undefined: too long, too slow, or gone. */
async function readHead(env: Env, socket: Socket): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  let bytes: Buffer = Buffer.alloc(0);
  const onData = (chunk: Buffer): void => {
    bytes = Buffer.concat([bytes, chunk]);
    const end = bytes.indexOf('\r\n\r\n');
    if (end < 0 && bytes.length <= HEAD_BYTES_MAX) return;
    socket.off('data', onData);
    socket.pause();
    if (end >= 0 && bytes.length > end + 4) socket.unshift(bytes.subarray(end + 4));
    resolve(end < 0 || end > HEAD_BYTES_MAX ? undefined : bytes.toString('latin1', 0, end));
  };
  const giveUp = (): void => resolve(undefined);
  using deadline = new Deadline(env.clock, HEAD_MS);
  deadline.signal.addEventListener('abort', giveUp, { once: true });
  socket.on('data', onData).once('end', giveUp).once('close', giveUp).resume();
  const head = await promise;
  socket.off('data', onData);
  return head;
}

/** `CONNECT host:port HTTP/1.x` and header lines, which mean nothing here; undefined for anything else. */
export function parseConnect(head: string): { readonly host: string; readonly port: number } | undefined {
  const [request = ''] = head.split('\r\n', 1);
  const [, host = '', digits = ''] =
    /^CONNECT ([A-Za-z0-9.-]{1,253}):([1-9]\d{0,4}) HTTP\/1\.[01]$/.exec(request) ?? [];
  const port = Number(digits);
  return host === '' || port > 65_535 ? undefined : { host: host.toLowerCase(), port };
}

const REASONS: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  403: 'Forbidden',
  405: 'Method Not Allowed',
  502: 'Bad Gateway',
};

/**
 * Says why, drops what the job still sends, and closes when it ends as well, or has had its time: a connection that is
 * closed with something unread in it is reset, and the reset would overtake the answer.
 */
async function refuse(env: Env, socket: Socket, status: number, why: string): Promise<void> {
  const body = `molt: ${why}\n`;
  const head = [
    `HTTP/1.1 ${status} ${REASONS[status]}`,
    'Content-Type: text/plain',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
    ...(status === 405 ? ['Allow: CONNECT'] : []),
  ];
  const { promise: closed, resolve } = Promise.withResolvers<void>();
  socket.once('close', () => resolve());
  if (socket.destroyed) return;
  using deadline = new Deadline(env.clock, REFUSED_MS);
  deadline.signal.addEventListener('abort', () => socket.destroy(), { once: true });
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`);
  socket.resume();
  await closed;
}
