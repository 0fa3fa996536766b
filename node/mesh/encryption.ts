/**
 * TLS 1.3 between peers (libp2p TLS specification), on the socket itself.
 *
 * `@libp2p/tls` lets OpenSSL talk to a JavaScript stream in front of the socket, makes a key and a certificate for every
 * connection, and writes each part of a frame as a record of its own: a small message costs three records and six writes.
 * Here OpenSSL reads and writes the TCP socket directly, a node has one certificate for its life, and a small message is
 * one record and one write. What proves who a peer is, is the library's own check. Connections without a socket of their
 * own (websockets, circuits) are left to the library.
 */
import { once } from 'node:events';
import { Socket } from 'node:net';
import { type SecureContext, TLSSocket, connect, createSecureContext } from 'node:tls';

import {
  type AbortOptions,
  type ConnectionEncrypter,
  type MessageStream,
  type SecureConnectionOptions,
  type SecuredConnection,
  type StreamMessageEvent,
  type StreamMuxerFactory,
  serviceCapabilities,
} from '@libp2p/interface';
import type { TLSComponents } from '@libp2p/tls';
import { AbstractMessageStream, type SendResult } from '@libp2p/utils';
import type { Uint8ArrayList } from 'uint8arraylist';

import { MoltError } from '../../protocol/errors.ts';

/** The name that both ends agree on, and the one that stands for "no multiplexer agreed yet" in ALPN. */
const PROTOCOL = '/tls/1.0.0';
const NO_MUXER = 'libp2p';
/** Up to this size the parts of a write are joined: copying them is cheaper than a record and a system call each. */
const JOINED_BYTES_MAX = 16 * 1024;

type Encrypter = ConnectionEncrypter & { readonly [serviceCapabilities]: readonly string[] };

/** The certificate library is a sixth of what a node would otherwise load before it listens: it waits for the first peer. */
export function directTls(): (components: TLSComponents) => Encrypter {
  return (components) => {
    const inner = new DirectTls(components);
    return {
      protocol: PROTOCOL,
      [serviceCapabilities]: ['@libp2p/connection-encryption'],
      secureInbound: (connection, options) => inner.secure(connection, { ...options, isServer: true }),
      secureOutbound: (connection, options) => inner.secure(connection, { ...options, isServer: false }),
    };
  };
}

interface SecureOptions extends SecureConnectionOptions {
  readonly isServer: boolean;
}

class DirectTls {
  readonly #components: TLSComponents;
  #library: Promise<ConnectionEncrypter> | undefined;
  #context: Promise<SecureContext> | undefined;

  constructor(components: TLSComponents) {
    this.#components = components;
  }

  async secure(connection: MessageStream, options: SecureOptions): Promise<SecuredConnection> {
    const raw = socketOf(connection);
    if (raw === undefined) {
      this.#library ??= import('@libp2p/tls').then(({ tls }) => tls()(this.#components));
      const library = await this.#library;
      return options.isServer
        ? library.secureInbound(connection, options)
        : library.secureOutbound(connection, options);
    }
    try {
      // What the peer sends from here on is for OpenSSL alone.
      connection.pause();
      const [context, { verifyPeerCertificate }] = await Promise.all([
        (this.#context ??= createContext(this.#components)),
        import('@libp2p/tls/utils'),
      ]);
      handOver(connection, raw);
      const muxers =
        options.skipStreamMuxerNegotiation === true ? undefined : this.#components.upgrader.getStreamMuxers();
      const { socket, streamMuxer } = await handshake(connection, raw, { ...options, context, muxers });
      const certificate = socket.getPeerX509Certificate();
      if (certificate === undefined) throw untrusted('it showed no certificate');
      const remotePeer = await verifyPeerCertificate(certificate.raw, options.remotePeer);
      options.signal?.throwIfAborted();
      const secured = { remotePeer, connection: new TlsConnection(connection, socket) };
      return streamMuxer === undefined ? secured : { ...secured, streamMuxer };
    } catch (error) {
      connection.abort(error instanceof Error ? error : untrusted(String(error)));
      throw error;
    }
  }
}

async function createContext({ privateKey }: TLSComponents): Promise<SecureContext> {
  const { generateCertificate } = await import('@libp2p/tls/utils');
  return createSecureContext({
    ...(await generateCertificate(privateKey)),
    minVersion: 'TLSv1.3',
    maxVersion: 'TLSv1.3',
  });
}

/** The TCP socket under a connection that nothing lies between, so far as the transport shows it. */
function socketOf(connection: MessageStream): Socket | undefined {
  const { socket } = connection as { socket?: unknown };
  return socket instanceof Socket ? socket : undefined;
}

/** Takes the socket from its connection: what was read already goes back to it, and nobody but TLS hears what comes. */
function handOver(connection: MessageStream, raw: Socket): void {
  const early: Uint8Array[] = [];
  const collect = (event: StreamMessageEvent): void => void early.push(event.data.subarray());
  connection.addEventListener('message', collect);
  connection.resume();
  connection.pause();
  connection.removeEventListener('message', collect);
  raw.removeAllListeners('data');
  if (early.length > 0) raw.unshift(Buffer.concat(early));
}

interface Handshake extends SecureOptions {
  readonly context: SecureContext;
  readonly muxers: Map<string, StreamMuxerFactory> | undefined;
}

/** Rejects with what OpenSSL or the connection says, or with the signal's reason. The caller ends the connection then. */
async function handshake(
  connection: MessageStream,
  raw: Socket,
  { context, muxers, isServer, signal }: Handshake,
): Promise<{ readonly socket: TLSSocket; readonly streamMuxer: StreamMuxerFactory | undefined }> {
  signal?.throwIfAborted();
  const names = [...(muxers?.keys() ?? []), NO_MUXER];
  // Certificates are signed by their own key and checked by `verifyPeerCertificate`.
  const options = { secureContext: context, rejectUnauthorized: false };
  const choose = ({ protocols }: { readonly protocols: readonly string[] }): string | undefined =>
    protocols.find((protocol) => names.includes(protocol));
  const socket = isServer
    ? new TLSSocket(raw, { ...options, isServer, requestCert: true, ALPNCallback: choose })
    : connect({ ...options, socket: raw, ALPNProtocols: names });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onAbort = (): void => reject(signal?.reason as Error);
  signal?.addEventListener('abort', onAbort, { once: true });
  // OpenSSL is still at work while it tells: a connection must not be taken apart inside of its calls.
  socket.once('secure', () => setImmediate(resolve));
  socket.once('close', () => reject(untrusted('it went away during the handshake')));
  socket.on('error', (error) => {
    reject(error);
    connection.abort(error);
  });
  try {
    await promise;
  } finally {
    signal?.removeEventListener('abort', onAbort);
  }
  const agreed = socket.alpnProtocol;
  return { socket, streamMuxer: typeof agreed === 'string' ? muxers?.get(agreed) : undefined };
}

/** What was said in plain text on both sides of the socket, as the multiplexer uses it. */
class TlsConnection extends AbstractMessageStream {
  readonly #connection: MessageStream;
  readonly #socket: TLSSocket;

  constructor(connection: MessageStream, socket: TLSSocket) {
    super({
      log: connection.log,
      inactivityTimeout: connection.inactivityTimeout,
      maxReadBufferLength: connection.maxReadBufferLength,
      direction: connection.direction,
    });
    this.#connection = connection;
    this.#socket = socket;
    socket.on('data', (bytes) => this.onData(bytes));
    socket.on('drain', () => this.safeDispatchEvent('drain'));
    // A local failure, a reset by the peer and a proper end stay told apart.
    connection.addEventListener('close', ({ error, local }) => {
      if (error === undefined) this.onTransportClosed();
      else if (local === true) this.abort(error);
      else this.onRemoteReset();
    });
    if (connection.status !== 'open') this.onTransportClosed();
  }

  override sendData(data: Uint8ArrayList): SendResult {
    if (data.byteLength <= JOINED_BYTES_MAX) {
      return { sentBytes: data.byteLength, canSendMore: this.#socket.write(data.subarray()) };
    }
    let sentBytes = 0;
    let canSendMore = true;
    for (const bytes of data) {
      sentBytes += bytes.byteLength;
      canSendMore = this.#socket.write(bytes);
      if (!canSendMore) break;
    }
    return { sentBytes, canSendMore };
  }

  override sendReset(error: Error): void {
    // TLS ends with the transport below it, by itself and in its own time; ended first it would only be closed.
    this.#connection.abort(error);
  }

  override sendPause(): void {
    this.#socket.pause();
  }

  override sendResume(): void {
    this.#socket.resume();
  }

  /** Sends what is queued, says goodbye, and closes the transport. */
  override async close(options?: AbortOptions): Promise<void> {
    if (!this.#socket.closed) {
      this.#socket.destroySoon();
      await once(this.#socket, 'close', { signal: options?.signal });
    }
    await this.#connection.close(options);
  }
}

function untrusted(why: string): MoltError {
  return new MoltError(
    'mesh/closed',
    `expected a peer that proves its key by its TLS certificate: ${why}; it is dropped`,
  );
}
