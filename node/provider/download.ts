/**
 * Inputs from the web: one object over HTTPS, as bytes, on behalf of a stranger.
 *
 * Contract: every connection, also after a redirect, goes to a host that the provider's egress policy gives and to an
 * address that may be reached (outside.ts); the certificate must be good for the host. No more than `maxBytes` are
 * handed over. A download that is cut goes on where it stopped, and never mixes two versions of an object: what the server
 * cannot vouch for is compared by its hash.
 */
import { type Hash, createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';

import { Deadline } from '../../protocol/deadline.ts';
import { egressAllows, isHostName, locate, parseEgressRule } from '../../protocol/egress.ts';
import type { Env } from '../../protocol/env.ts';
import { MoltError, hasCode } from '../../protocol/errors.ts';
import { request } from '../http.ts';
import { type Outside, connectOutside, reachableAddresses } from '../outside.ts';

/** How a host is reached securely: a connection whose certificate is good for the name. A port, so that a test can be the web. */
export type ConnectSecure = (
  to: { readonly host: string; readonly port: number },
  signal: AbortSignal,
) => Promise<Socket>;

export interface Web {
  readonly connect: ConnectSecure;
  /** Egress rules of the provider; what they do not give is not fetched. */
  readonly policy: readonly string[];
}

export interface Download {
  /** As in the specification: https or s3. */
  readonly url: string;
  /** 64 hex digits; content with another hash is refused after its last byte. */
  readonly sha256?: string;
  readonly maxBytes: number;
  readonly signal: AbortSignal;
  readonly onProgress?: (bytesDone: number, bytesTotal?: number) => void;
}

const CONNECT_MS = 15_000;
/** A server that sends nothing for so long is left. */
const IDLE_MS = 30_000;
const REDIRECTS_MAX = 5;
/** A download that made progress is taken up again this often; one that did not begin is tried again this often. */
const RESUMES_MAX = 8;
const TRIES_MAX = 3;
const RETRY_MS = 1_000;
const HEADER_BYTES_MAX = 16 * 1024;

/** TLS 1.2 or later to a judged address. `certificates` are further authorities, PEM, for hosts that are not of the web. */
export function secureConnection(outside: Outside, certificates?: string): ConnectSecure {
  return async ({ host, port }, signal) => {
    const addresses = await reachableAddresses(outside, host);
    const socket = await connectOutside(outside, { host, addresses, port }, signal);
    const { promise, resolve, reject } = Promise.withResolvers<Socket>();
    const secure = connectTls({
      socket,
      servername: host,
      ALPNProtocols: ['http/1.1'],
      minVersion: 'TLSv1.2',
      ...(certificates === undefined ? {} : { ca: certificates }),
    });
    const onAbort = (): void => {
      secure.destroy();
      reject(signal.reason as Error);
    };
    secure.once('secureConnect', () => resolve(secure));
    secure.on('error', reject);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      return await promise;
    } catch (error) {
      secure.destroy();
      throw error;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  };
}

/**
 * The bytes of the object, in order. Throws `market/egress-refused` (beyond the policy, also where a redirect leads),
 * `job/egress-refused` (no such host, or no public one), `job/input-missing` (refused by the server, changed meanwhile, too many redirects, wrong hash), `artifact/too-large`, and the signal's reason.
 */
export async function* download(env: Env, web: Web, job: Download): AsyncGenerator<Uint8Array, void, undefined> {
  const progress = new Progress(job);
  for (let resumes = 0, tries = 0; ;) {
    const before = progress.bytes;
    try {
      yield* attempt(env, web, { job, progress });
      progress.finish();
      return;
    } catch (error) {
      job.signal.throwIfAborted();
      if (error instanceof MoltError && !hasCode(error, 'mesh/closed')) throw error;
      if (progress.bytes > before) resumes++;
      else tries++;
      if (resumes > RESUMES_MAX || tries >= TRIES_MAX)
        throw missing(job, `the server ended the transfer at byte ${progress.bytes}: ${messageOf(error)}`, error);
      env.logger.log('debug', 'download resumed', { host: locate(job.url).host, bytes: progress.bytes });
      await env.clock.sleep(RETRY_MS * 2 ** tries, job.signal);
    }
  }
}

/** What came so far, and whether what comes next belongs to it. */
class Progress {
  readonly #job: Download;
  readonly #hash: Hash = createHash('sha256');
  bytes = 0;
  /** A strong validator of the version that came so far: an ETag or a date. */
  validator: string | undefined;
  total: number | undefined;

  constructor(job: Download) {
    this.#job = job;
  }

  take(chunk: Uint8Array): void {
    this.bytes += chunk.length;
    if (this.bytes > this.#job.maxBytes) throw tooLarge(this.#job);
    this.#hash.update(chunk);
    this.#job.onProgress?.(this.bytes, this.total);
  }

  /** Of what came so far. */
  digest(): string {
    return this.#hash.copy().digest('hex');
  }

  finish(): void {
    const { sha256 } = this.#job;
    if (sha256 !== undefined && this.digest() !== sha256)
      throw missing(this.#job, `its content has the SHA-256 ${this.digest()}, expected ${sha256}`);
  }
}

interface Attempt {
  readonly job: Download;
  readonly progress: Progress;
}

async function* attempt(env: Env, web: Web, { job, progress }: Attempt): AsyncGenerator<Uint8Array, void, undefined> {
  const { body, isRest } = await open(env, web, { job, progress });
  // A server that starts over must send what it sent before: the first bytes are compared, not handed over again.
  const again = isRest || progress.bytes === 0 ? undefined : { left: progress.bytes, hash: createHash('sha256') };
  try {
    for await (const chunk of timed(env, body, job.signal)) {
      const old = again === undefined ? 0 : Math.min(again.left, chunk.length);
      if (again !== undefined && old > 0) {
        again.hash.update(chunk.subarray(0, old));
        again.left -= old;
        if (again.left === 0 && again.hash.digest('hex') !== progress.digest()) throw changed(job);
      }
      if (old === chunk.length) continue;
      const fresh = chunk.subarray(old);
      progress.take(fresh);
      yield fresh;
    }
  } finally {
    body.destroy();
  }
  if (again !== undefined && again.left > 0) throw changed(job);
  if (!body.complete || progress.bytes < (progress.total ?? 0))
    throw new MoltError('mesh/closed', 'the connection broke in mid-content');
}

/** Follows redirects to a response with content. */
async function open(
  env: Env,
  web: Web,
  { job, progress }: Attempt,
): Promise<{ readonly body: IncomingMessage; readonly isRest: boolean }> {
  let url = locate(job.url);
  for (let redirects = 0; ; redirects++) {
    const body = await ask(env, web, { job, progress, url });
    const { statusCode: status = 0, headers } = body;
    if ([301, 302, 303, 307, 308].includes(status)) {
      body.destroy();
      if (redirects >= REDIRECTS_MAX) throw missing(job, `it redirects more than ${REDIRECTS_MAX} times`);
      url = redirected(job, url, headers.location);
      continue;
    }
    try {
      return { body, isRest: accept(job, progress, body) };
    } catch (error) {
      body.destroy();
      throw error;
    }
  }
}

function redirected(job: Download, from: URL, location: string | undefined): URL {
  if (location === undefined || !URL.canParse(location, from.href))
    throw missing(job, 'it redirects to no address; a private object needs a presigned https URL');
  const to = new URL(location, from.href);
  if (to.protocol !== 'https:' || to.username !== '' || to.password !== '')
    throw missing(job, `it redirects to ${to.protocol}//${to.host}, and only https without a user is followed`);
  return to;
}

/** Checks a response; true when it is the rest of what came before. */
function accept(job: Download, progress: Progress, body: IncomingMessage): boolean {
  const { statusCode: status = 0, headers } = body;
  if (status === 429 || status >= 500) throw new MoltError('mesh/closed', `the server answers ${status}`);
  if (status !== 200 && status !== 206) throw missing(job, statusText(status));
  const encoding = headers['content-encoding'] ?? 'identity';
  if (encoding !== 'identity') throw missing(job, `the server sends it as ${encoding} only; store it uncompressed`);
  const length = headers['content-length'] === undefined ? undefined : Number(headers['content-length']);
  if (status === 206) {
    const [, from, total] = /^bytes (\d+)-\d+\/(\d+)$/.exec(headers['content-range'] ?? '') ?? [];
    if (Number(from) !== progress.bytes || Number(total) !== (progress.total ?? Number(total))) throw changed(job);
    return true;
  }
  if (progress.bytes > 0 && progress.total !== undefined && length !== progress.total) throw changed(job);
  progress.total = length;
  progress.validator = strongValidator(headers);
  if (length !== undefined && length > job.maxBytes) throw tooLarge(job);
  return false;
}

function strongValidator({ etag, 'last-modified': date }: IncomingMessage['headers']): string | undefined {
  return etag?.startsWith('"') === true ? etag : date;
}

async function ask(
  env: Env,
  web: Web,
  { job, progress, url }: Attempt & { readonly url: URL },
): Promise<IncomingMessage> {
  const { hostname: host } = url;
  const port = url.port === '' ? 443 : Number(url.port);
  if (!isHostName(host)) {
    throw new MoltError(
      'job/egress-refused',
      `the input at ${host}:${port} is at no host of the internet; write its name, or pass the file itself`,
      { host, port },
    );
  }
  if (!web.policy.some((rule) => egressAllows(parseEgressRule(rule), host, port))) {
    throw new MoltError(
      'market/egress-refused',
      `the input at ${host}:${port} is outside of what this provider lets jobs reach; take another provider, or pass the file itself`,
      { host, port },
    );
  }
  using deadline = new Deadline(env.clock, CONNECT_MS, job.signal);
  const socket = await web.connect({ host, port }, deadline.signal);
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const isRest = progress.bytes > 0 && progress.validator !== undefined;
  const asked = request(
    {
      host,
      path: `${url.pathname}${url.search}`,
      // Without an agent: one would connect by itself.
      createConnection: () => socket,
      maxHeaderSize: HEADER_BYTES_MAX,
      headers: {
        host: url.host,
        'user-agent': 'molt',
        accept: '*/*',
        'accept-encoding': 'identity',
        ...(isRest ? { range: `bytes=${progress.bytes}-`, 'if-range': progress.validator } : {}),
      },
    },
    resolve,
  );
  // Stays: a connection that breaks after the response is told by its body.
  asked.on('error', reject);
  const onAbort = (): void => {
    asked.destroy();
    reject(deadline.signal.reason as Error);
  };
  deadline.signal.addEventListener('abort', onAbort, { once: true });
  asked.end();
  try {
    return await promise;
  } finally {
    deadline.signal.removeEventListener('abort', onAbort);
  }
}

/** The body, as long as something keeps coming. */
async function* timed(env: Env, body: IncomingMessage, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const chunks = body[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
  for (;;) {
    using deadline = new Deadline(env.clock, IDLE_MS, signal);
    const onAbort = (): void => void body.destroy(deadline.signal.reason as Error);
    deadline.signal.addEventListener('abort', onAbort, { once: true });
    const next = await chunks.next();
    deadline.signal.removeEventListener('abort', onAbort);
    if (next.done === true) return;
    yield next.value;
  }
}

function statusText(status: number): string {
  if (status === 401 || status === 403)
    return `the server refuses it with ${status}; a private object needs a presigned https URL`;
  return `the server answers ${status}`;
}

/** Without the query: presigned URLs carry their signature there. */
function missing(job: Download, why: string, cause?: unknown): MoltError {
  const { protocol, host, pathname } = new URL(job.url);
  const shown = `${protocol}//${host}${pathname}`.slice(0, 200);
  return new MoltError('job/input-missing', `${shown} cannot be fetched: ${why}`, {}, { cause });
}

function changed(job: Download): MoltError {
  return missing(job, 'the object changed while it was fetched; start the job again');
}

function tooLarge(job: Download): MoltError {
  return new MoltError(
    'artifact/too-large',
    `the input at ${locate(job.url).host} has more than the ${job.maxBytes} bytes that the job's disk leaves; ask for more disk`,
    { reason: 'bytes' },
  );
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
